"""The constant term of a regression: problems from which the weighted means are taken, so that it drops out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._arrays import is_sparse
from .._blocks import RowBlocks
from ..linear_maps import BlocksMap, DenseMap, LinearMap, Look, SparseMap, as_linear_map, block_rmatmul
from ..triangular import as_rows, scaled_rows
from .lstsq import SMALL_FLOPS, lstsq
from .results import LstsqResult


class Centred(NamedTuple):
    """A problem A (m, n), B (m, k), weights (m,) or None, and the two means (n,) and (k,) that were taken off."""

    A: Any
    B: Any
    weights: Any
    mean_A: Any
    mean_B: Any


class LinearFit(NamedTuple):
    """Coefficients (n, k), constants (k,), the result of `lstsq`, and the share of each target's squares explained."""

    coef: Any
    intercept: Any
    result: LstsqResult
    explained: list[float]


def fit_linear(
    A: Any, B: Any, *, alpha: float = 0.0, intercept: bool = True, weights: Any = None, method: str = "auto",
    **options: Any,
) -> LinearFit:  # fmt: skip
    """Fit ``A X + 1 c' ~ B`` for B (m, k), with ``alpha ||X||**2`` and no penalty on c; `options` go to `lstsq`.

    With an intercept the squares explained are those about the mean.
    """
    xp = as_linear_map(B).xp
    problem = centred(A, B, weights, method=method) if intercept else Centred(A, B, weights, None, None)
    result = lstsq(
        problem.A, problem.B, damp=math.sqrt(alpha), weights=problem.weights, method=method, on_failure="ignore",
        **options,
    )  # fmt: skip
    constants = xp.zeros((B.shape[1],), dtype=xp.float64)
    if intercept:
        constants = problem.mean_B - xp.matmul(problem.mean_A, xp.astype(result.x, xp.float64))
    squares = xp.astype(problem.B, xp.float64) ** 2
    if problem.weights is not None:
        squares = xp.astype(problem.weights, xp.float64)[:, None] * squares
    totals = [float(total) for total in xp.sum(squares, axis=0)]
    explained = [1 - r**2 / t if t > 0 else math.nan for r, t in zip(result.residual_norm, totals, strict=True)]
    return LinearFit(result.x, constants, result, explained)


def centred(A: Any, B: Any, weights: Any = None, *, method: str = "auto") -> Centred:
    """Take the weighted means off the rows of A (m, n) and of B (m, k).

    Dense A in memory is copied: with columns whose mean is 1e6 deviations, coefficients of the copy are right to 1e-14,
    those from an added column of ones, scaled, to 1e-10.  Row blocks are centred when they are read; a sparse A stays
    sparse, as a map that subtracts in its products, and into which the weights go; where `lstsq` would make it dense,
    since it is small or `method` is "direct", it is made dense here.
    """
    source, targets = as_linear_map(A), as_linear_map(B)
    mean_A, mean_B = mean_row(source, weights), mean_row(targets, weights)
    B = _gathered(targets, mean_B)
    if isinstance(source, BlocksMap):
        blocks = RowBlocks(lambda: (block for _, block in _shifted(source, mean_A)), source.shape, source.dtype)
        return Centred(blocks, B, weights, mean_A, mean_B)
    small = 2.0 * max(source.shape) * min(source.shape) ** 2 <= SMALL_FLOPS
    if isinstance(source, DenseMap) or small or method == "direct":
        return Centred(_gathered(source, mean_A), B, weights, mean_A, mean_B)
    rows: Any = as_rows(source)
    xp = rows.xp
    roots = xp.ones((rows.shape[0],), dtype=rows.dtype, device=rows.device)
    if weights is not None:
        roots = xp.sqrt(xp.astype(weights, rows.dtype))
        rows, B = SparseMap(scaled_rows(rows.A, roots)), B * xp.astype(roots, B.dtype)[:, None]
    return Centred(RankOneChange(rows, roots, mean_A), B, None, mean_A, mean_B)


def mean_row(A: LinearMap, weights: Any = None) -> Any:
    """The weighted mean of the rows (n,) in double precision; one read."""
    xp, m = A.xp, A.shape[0]
    shares = xp.ones((m,), dtype=xp.float64, device=A.device) if weights is None else xp.astype(weights, xp.float64)
    shares = (shares / xp.sum(shares))[:, None]
    total: Any = 0.0
    shift: Any = None
    for start, block in _bounded(A):
        part = shares[start : start + block.shape[0], :]
        if is_sparse(block):
            total = total + block_rmatmul(block.astype(xp.float64), part)[:, 0]
            continue
        block = xp.astype(block, xp.float64)
        # moments about the first row: of columns far from zero only small differences are added up
        shift = block[0, :] if shift is None else shift
        total = total + xp.matmul(part.mT, block - shift)[0, :]
    return total if shift is None else total + shift


def _bounded(A: Any) -> Iterator[tuple[int, Any]]:
    return ((start, block) for start, block in A._blocks(bounded=True) if block.shape[0])


def _shifted(A: LinearMap, mean: Any) -> Iterator[tuple[int, Any]]:
    """The blocks of A, dense, with the row subtracted in double precision."""
    for start, block in _bounded(A):
        dense = block.toarray() if is_sparse(block) else block
        yield start, A.xp.astype(A.xp.astype(dense, A.xp.float64, copy=False) - mean, A.dtype, copy=False)


def _gathered(A: LinearMap, mean: Any) -> Any:
    out = A.xp.empty(A.shape, dtype=A.dtype, device=A.device)
    for start, block in _shifted(A, mean):
        out[start : start + block.shape[0], :] = block
    return out


class RankOneChange(LinearMap):
    """``A - u v'`` for a sparse A and two vectors, never formed."""

    def __init__(self, A: Any, u: Any, v: Any) -> None:
        super().__init__(A.shape, A.dtype, A.xp, A.device)
        self.sparse_base, self._u, self._v = A, u, A.xp.astype(v, A.dtype)

    def _matmul(self, X: Any) -> Any:
        return self.sparse_base._matmul(X) - self._u[:, None] * self.xp.matmul(self._v[None, :], X)

    def _rmatmul(self, Y: Any) -> Any:
        return self.sparse_base._rmatmul(Y) - self._v[:, None] * self.xp.matmul(self._u[None, :], Y)

    def _sketch_columns(self, S: Any) -> Any:
        return self.sparse_base._sketch_columns(S) - self._u[:, None] * (S @ self._v)[None, :]

    def _look(self, S: Any) -> Look:
        xp, raw = self.xp, self.sparse_base.frobenius_squared()
        cross = xp.matmul(self._u[None, :], self.sparse_base._matmul(self._v[:, None]))
        squares = raw - 2 * float(cross[0, 0]) + float(xp.sum(self._u**2)) * float(xp.sum(self._v**2))
        SA = None if S is None else S @ self.sparse_base.A - (S @ self._u)[:, None] * self._v[None, :]
        return Look(SA, max(0.0, squares), raw, None)
