"""The intake of completion: observed entries as compressed rows and columns, checked once; and which are held out."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import device, is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, floating_dtype, is_complex, is_sparse, namespace_of
from .._random import Key
from ..sampling.selection import shared_uniforms


@dataclass(frozen=True, eq=False)
class Observations:
    """Observed entries of a real matrix (m, n): row i has the columns ``indices[indptr[i]:indptr[i + 1]]``, ascending.

    Attributes
    ----------
    data : array, shape (nnz,)
        The values, float32 or float64.
    indices : array, shape (nnz,)
        Their columns, int32 or int64.
    indptr : array, shape (m + 1,)
        Where rows begin.
    shape : tuple of two int
    """

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]

    @property
    def xp(self) -> Any:
        """The array namespace of the values."""
        return namespace_of(self.data)

    @property
    def nnz(self) -> int:
        """Number of observed entries."""
        return int(self.data.shape[0])

    @functools.cached_property
    def row_counts(self) -> Any:
        """Observed entries of each row; int64 (m,)."""
        return self.xp.astype(self.indptr[1:] - self.indptr[:-1], self.xp.int64)

    @functools.cached_property
    def col_counts(self) -> Any:
        """Observed entries of each column; int64 (n,)."""
        return self.transposed.row_counts

    @functools.cached_property
    def rows(self) -> Any:
        """The row of each entry; int64 (nnz,)."""
        return _row_numbers(self.indptr, self.nnz, self.xp)

    @functools.cached_property
    def transposed(self) -> Observations:
        """The same entries by columns; made at the first use, in the order that `by_columns` gives."""
        m, n = self.shape
        if is_numpy_namespace(self.xp):
            from scipy.sparse import csr_array

            T = csr_array((self.data, self.indices, self.indptr), shape=self.shape).tocsc()
            other = Observations(T.data, T.indices, T.indptr, (n, m))
        else:
            xp, order = self.xp, self._order
            indptr = _pointers(self.indices, n, xp)
            rows = xp.astype(xp.take(self.rows, order), self.indices.dtype)
            other = Observations(xp.take(self.data, order), rows, indptr, (n, m))
        other.__dict__["transposed"] = self
        return other

    @functools.cached_property
    def _order(self) -> Any:
        return self.xp.argsort(self.indices, stable=True)

    def by_columns(self, values: Any) -> Any:
        """One number for each entry, in the order of `transposed`."""
        if is_numpy_namespace(self.xp):
            from scipy.sparse import csr_array

            return csr_array((values, self.indices, self.indptr), shape=self.shape).tocsc().data
        return self.xp.take(values, self._order)

    def with_values(self, values: Any) -> Observations:
        """Other values at the same places."""
        return replace(self, data=values)

    def select(self, kept: Any) -> Observations:
        """Return the entries where the mask `kept` (nnz,) is true, in a matrix of the same shape."""
        xp, m = self.xp, self.shape[0]
        indptr = _pointers(self.rows[kept], m, xp)
        return Observations(self.data[kept], self.indices[kept], xp.astype(indptr, self.indptr.dtype), self.shape)


def _pointers(numbers: Any, n: int, xp: Any) -> Any:
    """Where each of the values 0..n-1 would begin in the sorted `numbers`; int64 (n + 1,)."""
    if is_numpy_namespace(xp) or is_cupy_namespace(xp):
        counts = xp.bincount(numbers, minlength=n)
        out = xp.zeros(n + 1, dtype=xp.int64)
        out[1:] = xp.cumsum(counts)
        return out
    ordered = xp.sort(xp.astype(numbers, xp.int64))
    return xp.searchsorted(ordered, xp.arange(n + 1, dtype=xp.int64, device=device(numbers)))


def _row_numbers(indptr: Any, nnz: int, xp: Any) -> Any:
    """The row of each of the entries; int64 (nnz,)."""
    if is_numpy_namespace(xp):
        return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    numbers = xp.arange(nnz, dtype=xp.int64, device=device(indptr))
    return xp.astype(xp.searchsorted(xp.astype(indptr[1:], xp.int64), numbers, side="right"), xp.int64)


def as_observations(X: Any, *, name: str = "X") -> Observations:
    """Return the observed entries of `X`: those that a sparse matrix stores, zeros too, or those that are not NaN.

    Nothing is changed in `X`, and arrays of a sorted CSR matrix of float32 or float64 are shared.  Integers become
    float64.  The order of columns within rows is ascending afterwards.

    Raises
    ------
    TypeError
        If `X` is complex, or not numeric.
    ValueError
        If an entry is stored twice, infinite, or NaN in a sparse matrix; or if `X` is not 2-D.
    """
    if isinstance(X, Observations):
        return X
    A = as_matrix(X, name=name)
    if is_complex(A.dtype):
        raise TypeError(f"{name} must be real, got {A.dtype}; complete its real and imaginary parts one by one")
    return _from_sparse(X, A, name) if is_sparse(A) else _from_dense(A, name)


def _from_sparse(X: Any, A: Any, name: str) -> Observations:
    xp = namespace_of(A)
    csr = A if A.format == "csr" else A.tocsr()
    data, indices, indptr = csr.data, csr.indices, csr.indptr
    data = xp.astype(data, floating_dtype(data, xp), copy=False)
    if X.format == "coo" and X.nnz != indices.shape[0]:  # the conversion has summed
        order = xp.lexsort(xp.stack([X.col, X.row]))
        _refuse_repeated(X.row[order], X.col[order], name, xp)
    rows = _row_numbers(indptr, int(indices.shape[0]), xp)
    same = rows[1:] == rows[:-1]
    if bool(xp.any(same & (indices[1:] <= indices[:-1]))):
        order = xp.lexsort(xp.stack([xp.astype(indices, xp.int64), rows]))
        data, indices = data[order], indices[order]
        _refuse_repeated(rows, indices, name, xp)
    good = xp.isfinite(data)
    if not bool(xp.all(good)):
        place = int(xp.argmin(good))
        raise ValueError(
            f"{name} must have finite stored entries, got {float(data[place])} at row {int(rows[place])}, column "
            f"{int(indices[place])}; remove the entries that were not observed"
        )
    return Observations(data, indices, indptr, (int(A.shape[0]), int(A.shape[1])))


def _refuse_repeated(rows: Any, columns: Any, name: str, xp: Any) -> None:
    """Raise if two neighbours in the sorted list of places are equal."""
    equal = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    if bool(xp.any(equal)):
        place = int(xp.argmax(equal))
        raise ValueError(
            f"{name} must store each entry once, got row {int(rows[place])}, column {int(columns[place])} more than "
            f"once; decide which value holds, or add them up with {name}.sum_duplicates()"
        )


def _from_dense(A: Any, name: str) -> Observations:
    xp = namespace_of(A)
    A = xp.astype(A, floating_dtype(A, xp), copy=False)
    if bool(xp.any(xp.isinf(A))):
        place = int(xp.argmax(xp.reshape(xp.astype(xp.isinf(A), xp.int8), (-1,))))
        i, j = divmod(place, int(A.shape[1]))
        raise ValueError(
            f"{name} must have no infinite entry, got one at row {i}, column {j}; use NaN for what is missing"
        )
    seen = ~xp.isnan(A)
    rows, cols = xp.nonzero(seen)
    m, n = (int(side) for side in A.shape)
    return Observations(A[seen], xp.astype(cols, xp.int64), _pointers(rows, m, xp), (m, n))


def hold_out(X: Observations, fraction: float, key: Key) -> tuple[Observations, Observations]:
    """Split the entries at random: what is left to fit on, and about `fraction` of them held out.

    Whether an entry (i, j) is held out depends on the key and on i n + j only, not on order or storage.  Each row and
    column keeps an entry to fit on: of those that would lose all, the one that was drawn last stays.
    """
    xp, n = X.xp, X.shape[1]
    number = X.rows * n + xp.astype(X.indices, xp.int64)
    u = shared_uniforms(key.fold("hold-out"), number, xp)
    kept = u >= fraction
    kept = kept | _largest_where_none(X.indptr, kept, u, xp)
    T = X.transposed
    by_columns, drawn = X.by_columns(xp.astype(kept, xp.int8)) != 0, X.by_columns(u)
    rescued = _largest_where_none(T.indptr, by_columns, drawn, xp)
    if bool(xp.any(rescued)):
        kept = kept | (T.by_columns(xp.astype(rescued, xp.int8)) != 0)
    return X.select(kept), X.select(~kept)


def _largest_where_none(indptr: Any, kept: Any, u: Any, xp: Any) -> Any:
    """The entry of largest `u` of each row of which none is kept; bool (nnz,)."""
    nnz = int(u.shape[0])
    whole = xp.concat([xp.zeros_like(u[:1], dtype=xp.int64), xp.cumulative_sum(xp.astype(kept, xp.int64))])
    start, stop = xp.astype(indptr[:-1], xp.int64), xp.astype(indptr[1:], xp.int64)
    bare = (xp.take(whole, stop) == xp.take(whole, start)) & (stop > start)
    chosen = xp.zeros_like(kept)
    if nnz > 0 and bool(xp.any(bare)):  # few rows: a row loses all its entries with probability fraction**count
        for first, last in zip(_integers(start[bare]), _integers(stop[bare]), strict=True):
            chosen[first + int(xp.argmax(u[first:last]))] = True
    return chosen


def _integers(values: Any) -> list[int]:
    return [int(values[i]) for i in range(values.shape[0])]
