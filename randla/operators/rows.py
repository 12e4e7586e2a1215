"""Row sampling as a sketch operator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import device, is_cupy_namespace, is_numpy_namespace

from .._arrays import floating_dtype, from_host, is_sparse, namespace_of
from .._backend import kernel
from .._random import Stream
from .base import SketchOperator


@dataclass(frozen=True, eq=False, repr=False)
class RowSample(SketchOperator):
    """Sample of rows, with repetition, scaled so that E[S.T @ S] = I.

    Row r of S has one entry 1/sqrt(sketch_size p_i) at a row i that is drawn with probability p_i.  The cheapest
    sketch, and the only one that keeps rows of the data as they are; uniform sampling fails on coherent data, so give
    leverage scores as probabilities there.  Sparse matrices stay sparse (CSR).

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows to draw.
    n : int, 1 <= n <= 2**32
        Rows of the matrix.
    probabilities : None or array, shape (n,), float64
        None draws uniformly.  Otherwise nonnegative and finite with a positive sum, which is scaled to 1.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Attributes
    ----------
    rows : array, shape (sketch_size,), int64
        The drawn rows.
    weights : array, shape (sketch_size,), float64
        Their factors 1/sqrt(sketch_size p_i).

    Raises
    ------
    TypeError, ValueError
        If `probabilities` is not a host array of n finite nonnegative numbers with a positive sum.

    Notes
    -----
    With probabilities proportional to leverage scores and sketch_size >= 6 d log(d / delta) / epsilon**2 all squared
    singular values of S U lie in 1 +- epsilon with probability at least 1 - 2 delta, for an orthonormal U with d
    columns and epsilon <= 1 (matrix Chernoff bound [1]_).  With given probabilities the recipe holds the n of them.

    References
    ----------
    .. [1] Tropp, "User-friendly tail bounds for sums of random matrices", 2012, Theorem 1.1.

    Examples
    --------
    >>> import numpy as np, randla
    >>> S = randla.RowSample(5, 1000, rng=0)
    >>> (S @ np.ones((1000, 2))).shape
    (5, 2)
    """

    probabilities: Any = field(default=None, kw_only=True)
    rows: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n <= 2**32:
            raise ValueError(f"n must be in [1, 2**32] for a row sample, got {self.n}")
        if self.probabilities is None:
            rows = kernel("uniform_rows", np)(self.key, self.n, self.sketch_size)
            weights = np.full(self.sketch_size, (self.n / self.sketch_size) ** 0.5)
        else:
            p = _checked(self.probabilities, self.n)
            self._set("probabilities", p)
            totals = np.cumsum(p)
            u = kernel("uniforms", np)(self.key, Stream.SAMPLE, 0, self.sketch_size)
            # a draw at or above the last total by rounding belongs to the last row that can be drawn
            rows = np.minimum(np.searchsorted(totals, u * totals[-1], side="right"), np.flatnonzero(p)[-1])
            weights = (self.sketch_size * p[rows] / totals[-1]) ** -0.5
        self._set("rows", rows)
        self._set("weights", weights)

    def __repr__(self) -> str:
        given = "" if self.probabilities is None else f", probabilities=<{self.n} numbers>"
        return f"RowSample(sketch_size={self.sketch_size}, n={self.n}, rng={self.rng}{given})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSample) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        p = self.probabilities
        return self.sketch_size, self.n, self.rng, None if p is None else hashlib.sha256(p.tobytes()).digest()

    def __reduce__(self) -> Any:  # the rows are drawn again, so that a uniform sample pickles as its recipe
        return _rebuild, (self.sketch_size, self.n, self.rng, self.probabilities)

    @property
    def _scale(self) -> float:
        return 1.0

    def _columns(self, start: int, stop: int) -> np.ndarray:
        S = np.zeros((self.sketch_size, stop - start))
        inside = np.flatnonzero((self.rows >= start) & (self.rows < stop))
        S[inside, self.rows[inside] - start] = self.weights[inside]
        return S

    def _left(self, A: Any, start: int) -> Any:
        xp = namespace_of(A)
        if not (is_sparse(A) or is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._left(A, start)
        dtype = floating_dtype(A, xp)
        inside = np.flatnonzero((self.rows >= start) & (self.rows < start + A.shape[0]))
        index = from_host(self.rows[inside] - start, xp, A.data if is_sparse(A) else A)
        weights = from_host(self.weights[inside], xp, A.data if is_sparse(A) else A)
        if is_sparse(A):
            return _scaled_rows(A.tocsr(), index, inside, weights, self.sketch_size, dtype)
        out = xp.zeros((self.sketch_size, A.shape[1]), dtype=dtype)
        out[from_host(inside, xp, A)] = A[index] * weights[:, None].astype(dtype)
        return out

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        inside = np.flatnonzero((self.rows >= start) & (self.rows < stop))
        packed = from_host(2 * (self.rows[inside] - start), xp, Y)
        weighted = Y[from_host(inside, xp, Y)] * from_host(self.weights[inside], xp, Y)[:, None].astype(Y.dtype)
        out = xp.zeros((stop - start, Y.shape[1]), dtype=Y.dtype, device=device(Y))
        kernel("scatter_rows", xp)(xp.arange(len(inside) + 1), packed, xp.ascontiguousarray(weighted), out)
        return out


def _checked(probabilities: Any, n: int) -> np.ndarray:
    if hasattr(probabilities, "__cuda_array_interface__"):
        raise TypeError("probabilities must be a NumPy array, got one on a GPU; pass probabilities.get()")
    try:
        p = np.array(probabilities, dtype=np.float64)  # a copy: the recipe must not change with the caller's array
    except (TypeError, ValueError):
        raise TypeError(f"probabilities must be an array of {n} numbers, got {type(probabilities).__name__}") from None
    if p.shape != (n,):
        raise ValueError(f"probabilities must have shape ({n},), got {p.shape}")
    with np.errstate(over="ignore"):
        total = p.sum()
    if not np.all(np.isfinite(p)) or p.min() < 0 or not 0 < total < np.inf:
        raise ValueError(f"probabilities must be finite and nonnegative with a positive sum, got a sum of {total}")
    p.flags.writeable = False
    return p


def _scaled_rows(A: Any, index: Any, inside: np.ndarray, weights: Any, sketch_size: int, dtype: Any) -> Any:
    """CSR matrix of sketch_size rows whose rows `inside` are the weighted rows `index` of A."""
    picked = A[index]
    counts = picked.indptr[1:] - picked.indptr[:-1]
    counts = counts if isinstance(counts, np.ndarray) else counts.get()
    per_row = np.zeros(sketch_size, np.int64)
    per_row[inside] = counts
    xp = namespace_of(A)
    indptr = from_host(np.concatenate([[0], np.cumsum(per_row)]), xp, A.data)
    source = from_host(np.repeat(np.arange(len(inside)), counts), xp, A.data)  # CuPy repeats by fixed counts only
    data = picked.data.astype(dtype) * weights.astype(dtype)[source]
    return type(picked)((data, picked.indices, indptr), shape=(sketch_size, A.shape[1]))


def _rebuild(sketch_size: int, n: int, rng: Any, probabilities: Any) -> RowSample:
    return RowSample(sketch_size, n, rng=rng, probabilities=probabilities)
