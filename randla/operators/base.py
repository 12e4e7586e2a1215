"""What all sketch operators share: a recipe (sizes and a key), never a stored matrix, and one way to be applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import device, is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, floating_dtype, from_host, is_sparse, namespace_of
from .._checks import check_integer
from .._random import Key, as_key

MAX_SKETCH_SIZE = 2**30  # rows of a sketch are packed with their sign into 31 bits
TILE_BYTES = 2**25  # converted copies of strided or integer data come in blocks of about this size


@dataclass(frozen=True)
class SketchOperator:
    """A random matrix S of shape (sketch_size, n) with E[S.T @ S] = I, known by its sizes and its key.

    ``S @ A`` compresses the rows of A, ``A @ S.T`` its columns; ``S.T @ Y`` is the adjoint.  Subclasses say how a
    block of columns of S meets a block of rows of A; copies, types and layouts are settled here.
    """

    sketch_size: int
    n: int
    rng: Key = field(default=None, kw_only=True)  # type: ignore[assignment]  # anything as_key takes; a Key afterwards

    __array_ufunc__ = None  # makes ``ndarray @ S.T`` ask S.T
    ndim = 2

    def __post_init__(self) -> None:
        self._set("sketch_size", check_integer(self.sketch_size, "sketch_size", low=1, high=MAX_SKETCH_SIZE))
        self._set("n", check_integer(self.n, "n", low=0, high=2**62))
        self._set("rng", as_key(self.rng))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """(sketch_size, n)."""
        return self.sketch_size, self.n

    @property
    def dtype(self) -> np.dtype:
        """The dtype of `toarray`; products keep the floating dtype of the data instead."""
        return np.dtype(np.float64)

    @property
    def key(self) -> Key:
        """The key that decides every entry."""
        return self.rng

    @property
    def T(self) -> TransposedSketch:
        """The transpose, of shape (n, sketch_size)."""
        return TransposedSketch(self)

    # --- products --------------------------------------------------------------------------------------------------

    def matmul(self, A: Any, *, start: int = 0) -> Any:
        """Return ``S[:, start : start + m] @ A`` for a block A of m rows; over a partition of the rows these add up.

        Parameters
        ----------
        A : array, shape (m,) or (m, d), or CSR or CSC matrix, shape (m, d)
            Any numeric dtype; float32, float64 and the complex ones are kept, integers and bools become float64.
        start : int, 0 <= start <= n - m
            Position of the first row of A in the whole matrix.

        Returns
        -------
        array, shape (sketch_size,) or (sketch_size, d)
            Dense, in the namespace and on the device of A.

        Raises
        ------
        ValueError
            If the block does not fit into n rows.
        TypeError
            If A is not numeric.
        """
        A = as_matrix(A, name="A", vector=True)
        start = check_integer(start, "start", low=0)
        if start + A.shape[0] > self.n:
            raise ValueError(
                f"A must have at most {self.n - start} rows from row {start} on to meet {type(self).__name__} with "
                f"n={self.n}, got shape {tuple(A.shape)}; choose n as the number of rows of the whole matrix"
            )
        if A.ndim == 1:
            return self._left(A[:, None], start)[:, 0]
        return self._left(A, start)

    def rmatmul(self, A: Any, *, start: int = 0) -> Any:
        """Return ``A @ S[:, start : start + m].T`` for a block A of m columns: compress the columns of A."""
        A = as_matrix(A, name="A", vector=True)
        return self.matmul(A, start=start) if A.ndim == 1 else _transposed(self.matmul(_transposed(A), start=start))

    def adjoint(self, Y: Any, *, start: int = 0, stop: int | None = None) -> Any:
        """Return ``S[:, start:stop].T @ Y`` for Y of shape (sketch_size,) or (sketch_size, d)."""
        Y = as_matrix(Y, name="Y", vector=True, sparse=False)
        stop = self.n if stop is None else check_integer(stop, "stop", low=0, high=self.n)
        start = check_integer(start, "start", low=0, high=stop)
        if Y.shape[0] != self.sketch_size:
            raise ValueError(f"Y must have sketch_size = {self.sketch_size} rows, got shape {tuple(Y.shape)}")
        xp = namespace_of(Y)
        columns = Y if Y.ndim == 2 else Y[:, None]
        columns = xp.astype(columns, floating_dtype(Y, xp), copy=False)
        out = self._adjoint(xp.asarray(columns), start, stop, xp) * self._scale
        return out if Y.ndim == 2 else out[:, 0]

    def toarray(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The columns start..stop-1 of S as a NumPy float64 array of shape (sketch_size, stop - start)."""
        stop = self.n if stop is None else check_integer(stop, "stop", low=0, high=self.n)
        start = check_integer(start, "start", low=0, high=stop)
        return self._columns(start, stop) * self._scale

    def _columns(self, start: int, stop: int) -> np.ndarray:
        """Unscaled dense columns on the host; here by applying S to unit vectors."""
        out = np.zeros((self.sketch_size, stop - start))
        self._apply_rows(np.eye(stop - start), start, out, namespace_of(out))
        return out

    @property
    def _scale(self) -> float:
        """What the integer (or standard normal) entries are multiplied with."""
        return self.sketch_size**-0.5

    @property
    def _bytes_per_column(self) -> int:
        """What `_columns` needs for each column: decides the tiles of the untuned paths."""
        return 8 * self.sketch_size

    # --- how subclasses are applied: out += S A, unscaled, for contiguous floating data ----------------------------

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:
        """out += S[:, start : start + m] @ A for C-contiguous A (m, d) and out (sketch_size, d)."""
        raise NotImplementedError

    def _apply_columns(self, A: Any, start: int, out: Any, xp: Any) -> None:
        """out += A @ S[:, start : start + m].T for C-contiguous A (r, m) and out (r, sketch_size)."""
        raise NotImplementedError

    def _apply_sparse(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        """S[:, start : start + m] @ A, unscaled, for a CSR or CSC matrix."""
        raise NotImplementedError

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        """S[:, start:stop].T @ Y, unscaled."""
        out = xp.zeros((stop - start, Y.shape[1]), dtype=Y.dtype, device=device(Y))
        for lo, hi in blocks(start, stop, self._bytes_per_column):
            block = xp.astype(from_host(self._columns(lo, hi), xp, Y), Y.dtype)
            out[lo - start : hi - start, :] = xp.matmul(xp.matrix_transpose(block), Y)
        return out

    def _left(self, A: Any, start: int) -> Any:
        xp = namespace_of(A)
        dtype = floating_dtype(A, xp)
        if is_sparse(A):
            return self._apply_sparse(A, start, dtype, xp) * self._scale
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return self._left_generic(A, start, dtype, xp)
        A = np.asarray(A) if isinstance(A, np.ndarray) else A  # a memory map is an array to the kernels
        turned = A.flags.f_contiguous and not A.flags.c_contiguous
        out = xp.zeros((A.shape[1], self.sketch_size) if turned else (self.sketch_size, A.shape[1]), dtype=dtype)
        ready = is_ready(A, dtype)
        if turned:
            step = max(A.shape[1], 1) if ready else _rows_in_a_tile(A.shape[0], A.dtype.itemsize)
            for lo in range(0, A.shape[1], step):
                part = xp.ascontiguousarray(A.T[lo : lo + step], dtype=dtype)
                self._apply_columns(part, start, out[lo : lo + step], xp)
            out = out.T
        else:
            step = max(A.shape[0], 1) if ready and A.flags.c_contiguous else self._row_step(A)
            for lo in range(0, A.shape[0], step):
                self._apply_rows(xp.ascontiguousarray(A[lo : lo + step], dtype=dtype), start + lo, out, xp)
        if self._scale != 1.0:  # a CountSketch is spared the pass
            out *= self._scale
        return out

    def _row_step(self, A: Any) -> int:
        """Rows of a strided or integer A that are converted at a time."""
        return _rows_in_a_tile(A.shape[1], 8)

    def _left_generic(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        """Any other array API namespace: dense columns of S made on the host, tile by tile; correct but untuned."""
        out = xp.zeros((self.sketch_size, A.shape[1]), dtype=dtype, device=device(A))
        for lo, hi in blocks(0, A.shape[0], self._bytes_per_column):
            block = xp.astype(from_host(self.toarray(start + lo, start + hi), xp, A), dtype)
            out = out + xp.matmul(block, xp.astype(A[lo:hi, :], dtype))
        return out

    # --- Python and SciPy protocols --------------------------------------------------------------------------------

    def _whole(self, A: Any) -> Any:
        if getattr(A, "shape", None) is None or len(A.shape) == 0:
            A = as_matrix(A, name="A", vector=True)
        if A.shape[0] != self.n:
            raise ValueError(
                f"A must have n = {self.n} rows to meet {self!r}, got shape {tuple(A.shape)}; "
                "use S.matmul(A, start=) for a block of rows"
            )
        return A

    def __matmul__(self, A: Any) -> Any:
        return self.matmul(self._whole(A))

    def __rmatmul__(self, Y: Any) -> Any:
        Y = as_matrix(Y, name="Y", vector=True, sparse=False)
        return self.adjoint(Y) if Y.ndim == 1 else _transposed(self.adjoint(_transposed(Y)))

    def matvec(self, x: Any) -> Any:
        """S @ x for a vector; with `rmatvec`, `matmat` and `rmatmat` this is SciPy's protocol of linear operators."""
        return self @ x

    def rmatvec(self, y: Any) -> Any:
        """S.T @ y for a vector."""
        return self.adjoint(y)

    def matmat(self, A: Any) -> Any:
        """S @ A for a matrix."""
        return self @ A

    def rmatmat(self, Y: Any) -> Any:
        """S.T @ Y for a matrix."""
        return self.adjoint(Y)


@dataclass(frozen=True)
class TransposedSketch:
    """The transpose of a sketch operator: ``S.T @ Y`` and ``A @ S.T``."""

    operator: SketchOperator

    __array_ufunc__ = None
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """(n, sketch_size)."""
        return self.operator.n, self.operator.sketch_size

    @property
    def dtype(self) -> np.dtype:
        """The dtype of `toarray`."""
        return self.operator.dtype

    @property
    def T(self) -> SketchOperator:
        """The sketch operator itself."""
        return self.operator

    def toarray(self) -> np.ndarray:
        """S.T as a NumPy float64 array."""
        return self.operator.toarray().T

    def __matmul__(self, Y: Any) -> Any:
        return self.operator.adjoint(Y)

    def __rmatmul__(self, A: Any) -> Any:
        A = as_matrix(A, name="A", vector=True)
        if A.shape[-1] != self.operator.n:
            raise ValueError(f"A must have n = {self.operator.n} columns to meet S.T, got shape {tuple(A.shape)}")
        return self.operator.rmatmul(A)

    matvec = matmat = __matmul__

    def rmatvec(self, x: Any) -> Any:
        """S @ x for a vector."""
        return self.operator @ x

    rmatmat = rmatvec


def blocks(start: int, stop: int, bytes_each: int) -> Iterator[tuple[int, int]]:
    """Fixed blocks of range(start, stop) of about TILE_BYTES when an index takes `bytes_each`."""
    step = max(1, TILE_BYTES // max(bytes_each, 1))
    for lo in range(start, stop, step):
        yield lo, min(lo + step, stop)


def is_ready(A: Any, dtype: Any) -> bool:
    """True for dense data that the kernels take without conversion, apart from their layout."""
    return A.dtype == dtype and (not isinstance(A, np.ndarray) or (A.dtype.isnative and A.flags.aligned))


def _rows_in_a_tile(width: int, itemsize: int) -> int:
    return max(1, TILE_BYTES // max(width * itemsize, 1))


def _transposed(A: Any) -> Any:
    return A.T if is_sparse(A) or isinstance(A, np.ndarray) else namespace_of(A).matrix_transpose(A)


def csr_arrays(A: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """(data, indices, indptr) of a CSR matrix with `data` of the floating dtype."""
    return A.data if A.data.dtype == dtype else A.data.astype(dtype), A.indices, A.indptr
