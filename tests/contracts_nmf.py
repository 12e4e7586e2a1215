"""The lines of the contract table on nonnegative least squares and divergences by coordinates.

A sweep carries an error of one coordinate on to the others, but not without bound: it lowers a convex function, so it
is taken as one of eps times the terms of a step, in each of the sweeps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from randla.kernels import reference

from .contracts import Contract
from .contracts_completion import CASES, EPS, TALL, Case, Parts, _relative, _row, parts

#: parts, columns, sweeps, tolerance: tiles of 16 with tails, which stop at different sweeps; one and no part or column
SWEEPS = ((6, 53, 9, 0.1), (9, 16, 3, 0.0), (1, 17, 2, 0.0), (4, 5, 0, 0.0), (0, 3, 2, 0.0), (3, 0, 2, 0.0))


def nmf_contracts() -> Iterator[Contract]:
    """All lines on the kernels of NMF."""
    yield from _sweep_contracts()
    yield from _pivot_contracts()
    yield from _masked_contracts()
    yield from _divergence_contracts()


# --- whole columns ----------------------------------------------------------------------------------------------------


def _problem(r: int, n: int, dtype: str, dead: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gram matrix, right-hand sides of either sign and a start with zeros; part r // 2 is zero if dead."""
    rng = np.random.default_rng(51)
    W, A = rng.random((2 * r + 3, r)), rng.standard_normal((2 * r + 3, n)) * rng.random(n) + 0.3
    if dead:
        W[:, r // 2 : r // 2 + 1] = 0
    X = rng.random((r, n)) * (rng.random((r, n)) < 0.7)
    X[:, n // 2 :] *= 0.01 + np.arange(n - n // 2) % 2
    return W.T @ W, (W.T @ A).astype(dtype), X.astype(dtype)


def _sweep_contracts() -> Iterator[Contract]:
    for (r, n, n_sweeps, tol), dtype in itertools.product(SWEEPS, ("float32", "float64")):
        build = lambda a=(r, n, dtype, r > 4), b=(n_sweeps, tol): (*_problem(*a), *b)  # noqa: E731
        yield Contract("nonneg_sweeps", f"{r}x{n}-{n_sweeps}-{tol}-{dtype}", build, None, "rounding", _sweep_scale)
    # with so many parts, G lies outside of the shared memory of a block
    wide = lambda: (*_problem(63, 20, "float64", True), 2, 0.0)  # noqa: E731
    yield Contract("nonneg_sweeps", "63x20-wide", wide, None, "rounding", _sweep_scale)


def _step_size(G: np.ndarray, b_size: np.ndarray, X: np.ndarray) -> float:
    """The largest sum of terms that a step divides by a diagonal entry, of columns with solutions up to that size."""
    d = np.diag(G)[np.diag(G) > 0]
    if not (d.size and X.size):
        return 0.0
    sizes = np.linalg.norm(X.astype(float), axis=0)
    bound = b_size / np.min(np.linalg.eigvalsh(G[np.ix_(np.diag(G) > 0, np.diag(G) > 0)])) + sizes
    return float(np.max(b_size + np.max(np.linalg.norm(G, axis=0)) * bound) / d.min())


def _sweep_scale(G: Any, B: Any, X: Any, n_sweeps: int, tol: float) -> tuple[int, float]:
    inner = EPS / float(np.finfo(X.dtype).eps)  # columns are swept in double precision
    largest = float(np.max(np.abs(X), initial=0.0)) + float(np.max(np.abs(B), initial=0.0))
    size = _step_size(G, np.linalg.norm(B.astype(float), axis=0), X)
    return max(1, len(G)), largest + inner * max(1, n_sweeps) * size


def _pivot_contracts() -> Iterator[Contract]:
    for r, n, dead in ((5, 21, False), (6, 7, True), (1, 4, False), (0, 3, False), (2, 0, False)):
        for dtype in ("float32", "float64"):
            build = lambda a=(r, n, dtype, dead): (*_problem(*a), 1e-12, 100)  # noqa: E731
            yield Contract("nonneg_pivots", f"{r}x{n}-{dtype}", build, None, "rounding", _pivot_scale)
    yield Contract("nonneg_pivots", "cycle", _cycle, None, "rounding", _pivot_scale)


def _cycle() -> tuple[Any, ...]:
    """A column that exchanges of all infeasible places never end for."""
    rng = np.random.default_rng(692)
    W = rng.standard_normal((7, 6))
    B = (rng.standard_normal(6) * np.linalg.norm(W, axis=0))[:, None]
    return W.T @ W, B, np.zeros((6, 1)), 1e-12, 50


def _pivot_scale(G: Any, B: Any, X: Any, *_: Any) -> tuple[int, tuple[float, float]]:
    terms, size = _sweep_scale(G, B, X, 1, 0.0)
    return terms, (size, 0.0)


# --- entries that are missing -----------------------------------------------------------------------------------------


def _masked_contracts() -> Iterator[Contract]:
    """The systems of `masked_cholesky` with weights that are not negative; a part that no row of V has."""
    for case in (*(case for case in CASES if case.weights != "signed"), TALL):
        for n_sweeps, tol in ((4, 0.5), (2, 0.0))[: 2 if case.k == 5 else 1]:

            def build(case: Case = case, n_sweeps: int = n_sweeps, tol: float = tol) -> tuple[Any, ...]:
                p, rng = parts(case), np.random.default_rng(52)
                V, ridge = p.V.copy(), p.ridge
                if case.k == 17:
                    V[:, 4], ridge = 0, 0 * ridge
                X = rng.random((len(ridge), case.k)).astype(case.dtype)
                return *p._replace(V=V, ridge=ridge), X, n_sweeps, tol

            name = f"{case.id}-{n_sweeps}-{tol}"
            yield Contract("masked_nonneg_sweeps", name, build, None, "rounding", _masked_scale)


def _masked_scale(*arguments: Any) -> tuple[int, float]:
    *shared, X, n_sweeps, _ = arguments
    p, worst, largest = Parts(*shared), 0.0, float(np.max(X, initial=0.0))
    for i in range(len(p.ridge) if X.size else 0):
        M, size, b, b_size = _row(p, i)
        d = np.diag(M)[np.diag(M) > 0]
        if d.size:
            reach = float(np.max(np.abs(b[np.diag(M) > 0]) / d)) + largest
            worst = max(worst, (b_size + size * reach) / d.min(), reach)
    return p.V.shape[1] + int(np.max(np.diff(p.indptr), initial=0)), largest + n_sweeps * (
        worst * _relative(p) + largest
    )


# --- divergences ------------------------------------------------------------------------------------------------------

#: parts, lengths of rows, sweeps, ridge, floor: the model of a long row lies outside of the workspace
ROWS = (
    (5, (0, 1, 40, 9, 300), 3, 0.0, 1e-9), (3, (1030, 0, 2), 1, 0.5, 1e-9), (7, (30, 2, 12), 2, 0.0, 0.0),
    (1, (4, 0, 129), 2, 0.1, 0.0), (2, (6, 1), 0, 0.0, 0.0), (0, (2, 1), 1, 0.0, 0.0), (2, (), 1, 0.0, 0.0),
)  # fmt: skip


def _divergence_contracts() -> Iterator[Contract]:
    """Explicit zeros, rows of V that are zero, and starts far from the solution, whose steps are damped."""
    for (r, lengths, n_sweeps, ridge, floor), dtype in itertools.product(ROWS, ("float32", "float64")):

        def build(r=r, lengths=lengths, dtype=dtype, rest=(n_sweeps, floor), ridge=ridge):
            rng, n, index = np.random.default_rng(53), 45, "int32" if dtype == "float32" else "int64"
            V = (rng.random((n, r)) * (rng.random((n, r)) < 0.8)).astype(dtype)
            V[3] = 0
            indices = rng.integers(0, n, sum(lengths)).astype(index)
            indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
            values = rng.poisson(1.5, indices.size).astype(dtype)
            values[indptr[-2] if len(lengths) else 0 :] = 0  # all of a row
            X = (0.01 + 3 * rng.random((len(lengths), r))).astype(dtype)
            return V, indices, indptr, values, np.sum(V, axis=0, dtype=float) + 0.1, ridge, X, *rest

        name = f"{r}-{len(lengths)}x{max(lengths, default=0)}-{n_sweeps}-{ridge}-{floor}-{dtype}"
        yield Contract("divergence_sweeps", name, build, None, "rounding", _divergence_scale)


def _divergence_scale(*arguments: Any) -> tuple[int, float]:
    """A step divides about the sum of a column by a curvature; a model keeps the errors of where it was large."""
    V, indices, indptr, values, sums, ridge, X, n_sweeps, _ = arguments
    result, (worst, largest) = reference.divergence_sweeps(*arguments).astype(float), (0.0, 0.0)
    for i, (first, last) in enumerate(itertools.pairwise(indptr.tolist())):
        D, v = V[indices[first:last]].astype(float), values[first:last].astype(float)
        D, v = D[(v > 0) & (D @ result[i] > 0)], v[(v > 0) & (D @ result[i] > 0)]
        before, after = D @ X[i].astype(float), D @ result[i]
        curvature = (D / after[:, None]).T ** 2 @ v + ridge
        slopes = (sums + ridge * result[i])[curvature > 0] / curvature[curvature > 0]
        worst = max(worst, np.max(slopes, initial=0.0) * np.max(before / after, initial=1.0))
        largest = max(largest, np.max(X[i], initial=0.0), np.max(result[i], initial=0.0))
    inner = EPS / float(np.finfo(V.dtype).eps)
    return int(np.max(np.diff(indptr), initial=1)) + V.shape[1], largest + inner * n_sweeps * worst
