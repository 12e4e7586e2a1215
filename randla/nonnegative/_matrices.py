"""What a solver asks of the matrix: products with both factors, and norms.  Factors have the parts as rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import is_cupy_namespace, is_numpy_namespace
from scipy.sparse import csc_array

from .._arrays import as_matrix, dtype_name, floating_dtype, is_complex, is_sparse, namespace_of
from .._backend import kernel

#: Squared norms between which neither squares of slopes nor products of factors overflow or vanish.
MODERATE = {"float32": (1e-16, 1e24), "float64": (1e-100, 1e100)}
CACHE_BYTES = 2**20  # of a factor that a piece of a sparse matrix may read: half of a usual cache of the second level
LEAST_ENTRIES = 2  # of a row in a piece, on average: a row of the product is read and written for them
BLOCK_ENTRIES = 2**22  # entries of X that a block of rows may have where the residual itself is formed


class Dense:
    """A dense matrix X (m, n)."""

    def __init__(self, X: Any) -> None:
        self.xp, self.X, self.source = namespace_of(X), X, X
        self.shape = (int(X.shape[0]), int(X.shape[1]))
        self.nnz = self.shape[0] * self.shape[1]
        self.dtype, self.like, self.n_passes = X.dtype, X, 0.0
        self.squared_norm = _squares(X, self.xp)

    def left(self, Wt: Any) -> Any:
        """Return W.T X (r, n)."""
        self.n_passes += 1
        return self.xp.matmul(Wt, self.X)

    def right(self, H: Any) -> Any:
        """Return H X.T (r, m)."""
        self.n_passes += 1
        return self.xp.matmul(H, self.X.mT if hasattr(self.X, "mT") else self.X.T)

    def column(self, j: int) -> Any:
        """Column j, dense."""
        return self.X[:, j]

    @property
    def column_squares(self) -> Any:
        """Squared norms of the columns."""
        wide = self.xp.astype(self.X, self.xp.float64)
        return self.xp.sum(wide * wide, axis=0)

    def residual_squares(self, Wt: Any, H: Any) -> float:
        """The squared norm of X - W H, formed block by block: no cancellation."""
        self.n_passes += 1
        xp, (m, n), total = self.xp, self.shape, 0.0
        step = max(1, BLOCK_ENTRIES // max(1, n))
        for first in range(0, m, step):
            last = min(first + step, m)
            block = self.X[first:last, :] - xp.matmul(Wt[:, first:last].T, H)
            total += _squares(block, xp)
        return total


class Sparse:
    """A CSR matrix, with its transpose beside it: both products gather, neither scatters.

    On the CPU both are kept a second time, as pieces whose columns take rows of the factor that fit into a cache: read
    from there they cost a third.  Products have the columns of a factor side by side in memory, as the next product
    wants them.
    """

    def __init__(self, A: Any) -> None:
        self.xp, self.source, csr = namespace_of(A), A, A.tocsr()
        turned = csr.T.tocsr()
        self.rows = (csr.data, csr.indices, csr.indptr)
        self.columns = (turned.data, turned.indices, turned.indptr)
        self.shape, self.nnz = (int(A.shape[0]), int(A.shape[1])), int(csr.nnz)
        self.dtype, self.like, self.n_passes = csr.data.dtype, csr.data, 0.0
        self.squared_norm = _squares(csr.data, self.xp)
        self._pieces: dict[tuple[str, int], tuple[Any, Any, Any]] = {}

    def left(self, Wt: Any) -> Any:
        self.n_passes += 1
        return self._product("columns", Wt)

    def right(self, H: Any) -> Any:
        self.n_passes += 1
        return self._product("rows", H)

    def _product(self, side: str, F: Any) -> Any:
        panel = self.xp.asarray(F.T, order="C")
        m, n = self.shape if side == "rows" else self.shape[::-1]
        return kernel("csr_matmul", self.xp)(*self._pieces_of(side, n, panel), panel, m).T

    def _pieces_of(self, side: str, n: int, panel: Any) -> tuple[Any, Any, Any]:
        """The arrays of one side, cut at every so many columns that their rows of the panel fit into the cache."""
        arrays, turned = (self.rows, self.columns) if side == "rows" else (self.columns, self.rows)
        m, width = len(arrays[2]) - 1, int(panel.shape[1]) * panel.dtype.itemsize
        n_pieces = min(-(-n * width // CACHE_BYTES), self.nnz // max(1, LEAST_ENTRIES * m))
        if n_pieces < 2 or not is_numpy_namespace(self.xp):
            return arrays
        if (side, n_pieces) not in self._pieces:
            self._pieces[side, n_pieces] = _cut(turned, m, n, -(-n // n_pieces))
        return self._pieces[side, n_pieces]

    @property
    def column_squares(self) -> Any:
        data, _, indptr = self.columns
        return kernel("csr_row_power_sums", self.xp)(data, indptr, 2)

    def column(self, j: int) -> Any:
        data, indices, indptr = self.columns
        out = self.xp.zeros(self.shape[0], dtype=self.dtype)
        first, last = int(indptr[j]), int(indptr[j + 1])
        out[indices[first:last]] = data[first:last]
        return out

    def residual_squares(self, Wt: Any, H: Any) -> float:
        """Stored entries: their squared residuals; the others: squares of the model, as all of them less the stored."""
        self.n_passes += 1
        xp, (data, indices, indptr) = self.xp, self.rows
        left, right = (xp.asarray(F.T, order="C") for F in (Wt, H))
        model = xp.astype(kernel("sampled_products", xp)(left, right, indices, indptr), xp.float64)
        whole = float(xp.sum(gram(Wt, xp) * gram(H, xp)))
        inside = float(xp.sum(model * model))
        return _squares(data - model, xp) + max(whole - inside, 0.0)


def _cut(turned: tuple[Any, Any, Any], m: int, n: int, step: int) -> tuple[Any, Any, Any]:
    """CSR arrays of the blocks of `step` columns of an m x n matrix, one below another, from those of its transpose."""
    data, indices, indptr = turned
    parts, total = [], 0
    for first in range(0, n, step):
        last = min(first + step, n)
        places = slice(int(indptr[first]), int(indptr[last]))
        inside = (data[places], indices[places], indptr[first : last + 1] - indptr[first])
        block = csc_array(inside, shape=(m, last - first)).tocsr()
        kind = np.int32 if n < 2**31 else np.int64
        parts.append((block.data, block.indices.astype(kind) + kind(first), block.indptr[1:].astype(np.int64) + total))
        total += block.nnz
    values, columns, bounds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return values, columns, np.concatenate([np.zeros(1, np.int64), bounds])


class Compressed:
    """A matrix in place of which the product ``Q B`` (m, l), (l, n) is taken: products cost O((m + n) l r)."""

    def __init__(self, data: Any, Q: Any, B: Any, squared_norm: float) -> None:
        self.xp, self.Q, self.B, self.shape, self.source = data.xp, Q, B, data.shape, data.source
        self.dtype, self.like, self.squared_norm, self.n_passes = data.dtype, data.like, squared_norm, 0.0
        self.nnz = (self.shape[0] + self.shape[1]) * int(Q.shape[1])
        self._data = data

    @classmethod
    def of_factors(cls, data: Any, Y: Any, Z: Any) -> Compressed:
        """The product Y Z itself as the matrix."""
        xp = data.xp
        return cls(data, Y, Z, float(xp.sum(gram(Y.T, xp) * gram(Z, xp))))

    def left(self, Wt: Any) -> Any:
        return self.xp.matmul(self.xp.matmul(Wt, self.Q), self.B)

    def right(self, H: Any) -> Any:
        return self.xp.matmul(self.xp.matmul(H, self.B.T), self.Q.T)

    @property
    def column_squares(self) -> Any:
        return self._data.column_squares

    def column(self, j: int) -> Any:
        return self._data.column(j)

    def residual_squares(self, Wt: Any, H: Any) -> float:
        return self._data.residual_squares(Wt, H)


def gram(F: Any, xp: Any) -> Any:
    """F F.T of a factor (r, n), in double precision."""
    wide = xp.astype(F, xp.float64, copy=False)
    return xp.matmul(wide, wide.T)


def _squares(X: Any, xp: Any) -> float:
    """Squared Frobenius norm, summed in double precision by blocks."""
    flat, total = xp.reshape(X, (-1,)), 0.0
    for first in range(0, int(flat.shape[0]), BLOCK_ENTRIES):
        part = xp.astype(flat[first : min(first + BLOCK_ENTRIES, int(flat.shape[0]))], xp.float64, copy=False)
        total += float(xp.vecdot(part, part)) if hasattr(xp, "vecdot") else float(xp.sum(part * part))
    return total


def as_nonnegative(X: Any, *, name: str = "X") -> Any:
    """The matrix as `Dense` or `Sparse`, in float32 or float64.

    Raises
    ------
    TypeError
        If `X` is complex or not numeric.
    ValueError
        If an entry is negative, NaN or infinite.
    OverflowError
        If the squared norm is not moderate; its argument is the largest entry.
    """
    A = as_matrix(X, name=name)
    if is_complex(A.dtype):
        raise TypeError(f"{name} must be real, got {A.dtype}")
    xp = namespace_of(A)
    dtype = floating_dtype(A.data if is_sparse(A) else A, xp)
    if is_sparse(A):
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            raise NotImplementedError(f"{name} must be a SciPy or CuPy matrix where it is sparse")
        A = A if A.dtype == dtype else A.astype(dtype)
        _check_entries(A.data, name, xp)
        if not (A.has_canonical_format and bool(xp.all(A.data != 0))):
            A = A.copy()
            A.sum_duplicates()
            A.eliminate_zeros()
        data: Any = Sparse(A)
    else:
        A = xp.astype(A, dtype, copy=False)
        _check_entries(A, name, xp)
        data = Dense(A)
    values = A.data if is_sparse(A) else A
    low, high = MODERATE[dtype_name(dtype)]
    if not low <= data.squared_norm <= high:
        largest = float(xp.max(values)) if 0 not in values.shape else 0.0
        if largest > 0:
            raise OverflowError(largest)
    return data


def _check_entries(values: Any, name: str, xp: Any) -> None:
    if values.shape[0] == 0 or 0 in values.shape:
        return
    least, largest = float(xp.min(values)), float(xp.max(values))
    if math.isnan(least) or math.isnan(largest):
        raise ValueError(f"{name} must have no NaN, got some; use randla.masked_nmf for missing entries")
    if math.isinf(largest):
        raise ValueError(f"{name} must be finite, got infinity")
    if least < 0:
        raise ValueError(f"{name} must be nonnegative, got {least:g}; shift it, or use randla.svd")
