"""What an algorithm needs of a matrix: its shape, products with panels, one sketch and one norm, all counted.

Dense arrays, CSR and CSC matrices, linear operators and sources of row blocks look the same behind `as_linear_map`, and
so do their centred and adjoint forms, which are never formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from ._arrays import as_matrix, floating_dtype, from_host, is_complex, is_linear_operator, is_sparse, namespace_of
from ._backend import kernel
from ._blocks import RowBlocks
from ._random import Key

_BLOCK_BYTES = 32 * 2**20  # rows converted or centred at a time: far above the cost of a call, far below a matrix


class Look(NamedTuple):
    """What one read of a matrix gives: ``S @ A``, the squared Frobenius norm, and the mean row where centred."""

    sketch: Any
    squares: float
    raw_squares: float
    mean: Any


class LinearMap:
    """A matrix (m, n) known by what can be done with it.

    Attributes
    ----------
    shape : tuple of two int
    dtype : dtype
        Floating dtype of all products.
    xp, device : namespace and device of the products.
    mean : array, shape (n,), or None
        The row that a centred map subtracts; known after the first sketch.
    n_passes, n_matvecs : int
        Reads of the whole matrix, and columns that it or its adjoint was multiplied with.
    knows_norm : bool
        True if the Frobenius norm is a sum over entries; False if only products are known.
    amplification : float
        Squared norm before centring over the one after: how much centring lifts relative rounding errors.
    """

    shape: tuple[int, int]
    dtype: Any
    xp: Any
    device: Any
    mean: Any = None
    knows_norm: bool = True
    amplification: float = 1.0

    def __init__(self, shape: tuple[int, int], dtype: Any, xp: Any, device: Any) -> None:
        self.shape, self.dtype, self.xp, self.device = (int(shape[0]), int(shape[1])), dtype, xp, device
        self.n_passes = self.n_matvecs = 0
        self._squares: float | None = None

    def matmul(self, X: Any) -> Any:
        """``A @ X`` for a panel X (n, k)."""
        self._count(X.shape[1])
        return self._matmul(X)

    def rmatmul(self, Y: Any) -> Any:
        """``A^* @ Y`` for a panel Y (m, k)."""
        self._count(Y.shape[1])
        return self._rmatmul(Y)

    def normal_products(self, X: Any, weights: Any = None) -> Any:
        """``A^* diag(weights) A X`` for a panel X (n, k) and weights (m,); one read of a stored real A."""
        return self._normal(X, None, weights)[0]

    def normal_residual(self, X: Any, B: Any, weights: Any = None) -> tuple[Any, Any]:
        """``A^* diag(weights) R`` for R = B - A X, and the column sums of weights |R|^2 (k,) in double precision."""
        return self._normal(X, B, weights)

    def sketch(self, S: Any) -> Any:
        """``S @ A`` for a sketch operator S with m columns; the same read gives the Frobenius norm and the mean."""
        self._count(S.sketch_size)
        look = self._look(S)
        if self.knows_norm:
            self._squares = look.squares
            self.amplification = look.raw_squares / look.squares if look.squares > 0 else 1.0
        return look.sketch

    def sketch_columns(self, S: Any) -> Any:
        """``A @ S.T`` for a sketch operator S with n columns."""
        self._count(S.sketch_size)
        return self._sketch_columns(S)

    def frobenius_squared(self) -> float:
        """``||A||_F**2``, from the last sketch where there was one, else by a read of the matrix."""
        if self._squares is None:
            self._count(0)
            self._squares = self._look(None).squares
        return self._squares

    def gaussian(self, key: Key, k: int, n: int | None = None) -> Any:
        """A standard normal panel (n, k); n is the number of columns of A unless given."""
        host = np.dtype("float32" if self.dtype in (self.xp.float32, self.xp.complex64) else "float64")
        table = from_host(
            kernel("gaussian_table", self.xp)(key, 0, self.shape[1] if n is None else n, k, host), self.xp, self._like()
        )
        return self.xp.astype(table, self.dtype)

    def _like(self) -> Any:
        return self.xp.empty((0,), dtype=self.dtype, device=self.device)

    def _count(self, columns: int) -> None:
        self.n_passes += 1
        self.n_matvecs += columns

    def _normal(self, X: Any, B: Any, weights: Any) -> tuple[Any, Any]:
        """Both products one after the other: for what is known by products only, centred or complex."""
        xp, Y = self.xp, self.matmul(X)
        R = Y if B is None else B - Y
        weighted = R if weights is None else weights[:, None] * R
        return self.rmatmul(weighted), None if B is None else weighted_squares(R, weighted, xp)

    def _matmul(self, X: Any) -> Any:
        raise NotImplementedError

    def _rmatmul(self, Y: Any) -> Any:
        raise NotImplementedError

    def _sketch_columns(self, S: Any) -> Any:
        raise NotImplementedError

    def _look(self, S: Any) -> Look:
        raise NotImplementedError


class _Blocked(LinearMap):
    """A matrix whose rows can be read block by block; a matrix in memory is one block of itself."""

    def __init__(self, *args: Any, center: bool = False) -> None:
        super().__init__(*args)
        self.center = center

    def _blocks(self, bounded: bool = False) -> Iterator[tuple[int, Any]]:
        """(start, block) with floating blocks; `bounded` ones are small enough to be copied."""
        raise NotImplementedError

    def _reads_once(self) -> bool:
        """True if both products of a normal equation come out of one read."""
        return not is_complex(self.dtype)

    def _matmul(self, X: Any) -> Any:
        products = [block_matmul(B, X) for _, B in self._blocks()]
        Y = products[0] if len(products) == 1 else self.xp.concat(products, axis=0)
        return Y - self.xp.matmul(self._mean_row()[None, :], X) if self.center else Y

    def _normal(self, X: Any, B: Any, weights: Any) -> tuple[Any, Any]:
        if self.center or not self._reads_once():
            return super()._normal(X, B, weights)
        self._count(2 * X.shape[1])
        total: Any = None
        squares: Any = None
        for start, block in self._blocks():
            rows = slice(start, start + block.shape[0])
            w = None if weights is None else weights[rows]
            part, more = block_normal(block, X, None if B is None else B[rows, :], w)
            total = part if total is None else total + part
            squares = more if squares is None else squares + more
        return total, squares

    def _rmatmul(self, Y: Any) -> Any:
        total: Any = None
        for start, B in self._blocks():
            part = block_rmatmul(B, Y[start : start + B.shape[0], :])
            total = part if total is None else total + part
        if not self.center:
            return total
        mean = self._mean_row()
        mean = self.xp.conj(mean) if is_complex(self.dtype) else mean
        return total - mean[:, None] * self.xp.sum(Y, axis=0)[None, :]

    def _sketch_columns(self, S: Any) -> Any:
        products = [S.rmatmul(B) for _, B in self._blocks()]
        Y = self.xp.astype(products[0] if len(products) == 1 else self.xp.concat(products, axis=0), self.dtype)
        if not self.center:
            return Y
        return Y - self.xp.astype(S.matmul(self._mean_row()[:, None]), self.dtype)[:, 0][None, :]

    def _mean_row(self) -> Any:
        if self.mean is None:
            self.n_passes += 1
            self._squares = self._look(None).squares
        return self.mean

    def _look(self, S: Any) -> Look:
        xp, squares, raw = self.xp, 0.0, 0.0
        SA: Any = None
        ones: Any = None
        sums: Any = None
        shift: Any = None
        for start, B in self._blocks(bounded=self.center):
            raw += squared(B, xp)
            if self.center:
                # moments about the mean of the first block: the difference of large numbers is taken only once
                here = column_sums(B, xp)
                shift = (
                    (here / B.shape[0] if not is_sparse(B) else here * 0.0) if shift is None and B.shape[0] else shift
                )
                if not is_sparse(B):
                    B = B - shift[None, :]
                    here = column_sums(B, xp)
                squares += squared(B, xp)
                sums = here if sums is None else sums + here
                if S is not None:
                    part = S.matmul(xp.ones((B.shape[0], 1), dtype=self.dtype, device=self.device), start=start)
                    ones = part if ones is None else ones + part
            if S is not None:
                part = S.matmul(B, start=start)
                SA = part if SA is None else SA + part
        if not self.center:
            return Look(SA, raw, raw, None)
        off = sums / self.shape[0]
        self.mean = shift + off
        if SA is not None:
            SA = xp.astype(SA, self.dtype) - xp.astype(ones, self.dtype) * off[None, :]
        return Look(SA, max(0.0, squares - self.shape[0] * squared(off[None, :], xp)), raw, self.mean)


class DenseMap(_Blocked):
    """A dense array of any namespace; integers, bools and strided NumPy arrays are converted by blocks of rows."""

    def __init__(self, A: Any, *, center: bool = False) -> None:
        xp = array_namespace(A)
        super().__init__(A.shape, floating_dtype(A, xp), xp, device_of(A), center=center)
        self.A = A
        ordered = not is_numpy_namespace(xp) or A.flags.c_contiguous or A.flags.f_contiguous
        self._direct = A.dtype == self.dtype and ordered

    def _blocks(self, bounded: bool = False) -> Iterator[tuple[int, Any]]:
        if (self._direct and not bounded) or self.shape[0] == 0:
            yield 0, self.xp.astype(self.A, self.dtype, copy=False)
            return
        step = max(1, _BLOCK_BYTES // (16 * max(1, self.shape[1])))
        for start in range(0, self.shape[0], step):
            block = self.A[start : min(start + step, self.shape[0]), :]
            block = self.xp.astype(block, self.dtype, copy=False)
            yield start, np.ascontiguousarray(block) if is_numpy_namespace(self.xp) else block


class SparseMap(_Blocked):
    """A CSR or CSC matrix; the products are those of `randla.kernels.products`."""

    def __init__(self, A: Any, *, center: bool = False) -> None:
        xp = namespace_of(A)
        dtype = floating_dtype(A, xp)
        super().__init__(A.shape, dtype, xp, device_of(A.data), center=center)
        self.A = A if A.dtype == dtype else A.astype(dtype)

    def _blocks(self, bounded: bool = False) -> Iterator[tuple[int, Any]]:  # noqa: ARG002 - never copied
        yield 0, self.A

    def _reads_once(self) -> bool:
        return self.A.format == "csr" and super()._reads_once()


class BlocksMap(_Blocked):
    """A source of row blocks that can be read again; every product is one pass over it."""

    def __init__(self, source: RowBlocks, *, center: bool = False) -> None:
        first = next(iter(source), None)
        source.n_passes -= 1  # a look at the first block tells the namespace; it is no pass
        block = first[1] if first is not None else np.empty(source.shape, source.dtype)
        xp = namespace_of(block)
        place = device_of(block.data if is_sparse(block) else block)
        super().__init__(source.shape, floating_dtype(block, xp), xp, place, center=center)
        self.source = source

    def _reads_once(self) -> bool:
        return True  # a block is in memory when its second product is taken

    def _blocks(self, bounded: bool = False) -> Iterator[tuple[int, Any]]:
        for start, block in self.source:
            piece = SparseMap(block) if is_sparse(block) else DenseMap(block)
            for inner, B in piece._blocks(bounded):
                yield start + inner, B


class OperatorMap(LinearMap):
    """An object with `matmat` and `rmatmat` only, such as SciPy's LinearOperator."""

    knows_norm = False

    def __init__(self, A: Any, *, center: bool = False) -> None:
        xp: Any = array_namespace(np.empty(0))
        if type(A).__module__.startswith("cupyx"):
            import array_api_compat.cupy as xp  # type: ignore[no-redef]
        like = np.empty(0, A.dtype if A.dtype is not None else np.float64)
        if like.dtype.kind not in "fciub":
            raise TypeError(f"A must have a numeric dtype, got a linear operator of {like.dtype}")
        super().__init__(A.shape, floating_dtype(like, xp), xp, "cpu" if is_numpy_namespace(xp) else None)
        self.A, self.center = A, center

    def _matmul(self, X: Any) -> Any:
        Y = self.xp.asarray(self.A.matmat(X), dtype=self.dtype, copy=True)  # an operator may return what it keeps
        return Y - self.xp.matmul(self._mean_row()[None, :], X) if self.center else Y

    def _rmatmul(self, Y: Any) -> Any:
        X = self.xp.asarray(self.A.rmatmat(Y), dtype=self.dtype, copy=True)
        if not self.center:
            return X
        mean = self._mean_row()
        return X - self.xp.conj(mean)[:, None] * self.xp.sum(Y, axis=0)[None, :]

    def _mean_row(self) -> Any:
        if self.mean is None:
            self._count(1)
            ones = self.xp.ones((self.shape[0], 1), dtype=self.dtype)
            self.mean = self.xp.conj(self.xp.asarray(self.A.rmatmat(ones), dtype=self.dtype)[:, 0]) / self.shape[0]
        return self.mean

    def _sketch_columns(self, S: Any) -> Any:
        return self._matmul(self.xp.astype(self.xp.asarray(S.toarray()).T, self.dtype))

    def _look(self, S: Any) -> Look:
        if S is None:
            raise TypeError(
                "A must be an array, a sparse matrix or row blocks for its exact norm, got a linear operator"
            )
        Y = self.xp.astype(self.xp.asarray(S.toarray()).T, self.dtype)
        return Look(self.xp.conj(self._rmatmul(Y).T), math.nan, math.nan, self.mean)


class AdjointMap(LinearMap):
    """The adjoint of another map; shares its counters and its norm."""

    def __init__(self, A: LinearMap) -> None:
        super().__init__((A.shape[1], A.shape[0]), A.dtype, A.xp, A.device)
        self.A, self.knows_norm = A, A.knows_norm

    def _count(self, columns: int) -> None:
        self.A._count(columns)
        self.n_passes, self.n_matvecs = self.A.n_passes, self.A.n_matvecs

    def _matmul(self, X: Any) -> Any:
        return self.A._rmatmul(X)

    def _rmatmul(self, Y: Any) -> Any:
        return self.A._matmul(Y)

    def sketch(self, S: Any) -> Any:
        """``S @ A^*``, the adjoint of ``A @ S.T``; the norm comes out of a read of its own."""
        if self.knows_norm:
            self._squares = self.A.frobenius_squared()
            self.amplification = self.A.amplification
        self._count(S.sketch_size)
        Y = self.A._sketch_columns(S)
        self.mean = self.A.mean
        return self.xp.conj(Y.mT) if is_complex(self.dtype) else Y.mT


def as_linear_map(A: Any, *, center: bool = False, name: str = "A") -> LinearMap:
    """The map that belongs to a matrix of any kind; with `center` the mean row is subtracted in every product.

    Raises
    ------
    TypeError, ValueError
        As `as_matrix` does; TypeError as well for an iterator, which can be read only once.
    """
    if isinstance(A, LinearMap):
        return A
    if isinstance(A, RowBlocks):
        return BlocksMap(A, center=center)
    if hasattr(A, "__next__"):
        raise TypeError(
            f"{name} must be readable more than once, got {type(A).__name__}; "
            "pass randla.RowBlocks(function, shape, dtype), or n_passes=1 for a single view"
        )
    if is_linear_operator(A):
        return OperatorMap(A, center=center)
    A = as_matrix(A, name=name)
    return SparseMap(A, center=center) if is_sparse(A) else DenseMap(A, center=center)


def block_matmul(B: Any, X: Any) -> Any:
    """``B @ X`` for a dense or sparse block."""
    if not is_sparse(B):
        # with the narrow panel first OpenBLAS takes 0.62 of the time (35 for 57 ms: 10,000 x 2,000 times 60 columns)
        return array_namespace(B).matmul(X.mT, B.mT).mT
    if B.format == "csr":
        return kernel("csr_matmul", namespace_of(B))(B.data, B.indices, B.indptr, X)
    return kernel("csr_rmatmul", namespace_of(B))(B.data, B.indices, B.indptr, X, B.shape[0])


def block_rmatmul(B: Any, Y: Any) -> Any:
    """``B^* @ Y`` for a dense or sparse block."""
    xp = namespace_of(B)
    if not is_sparse(B):
        if is_complex(B.dtype):
            return xp.conj(xp.matmul(xp.conj(Y).mT, B)).mT
        return xp.matmul(Y.mT, B).mT
    bar = xp.conj if is_complex(B.dtype) else (lambda M: M)
    if B.format == "csr":
        return bar(kernel("csr_rmatmul", xp)(B.data, B.indices, B.indptr, bar(Y), B.shape[1]))
    return bar(kernel("csr_matmul", xp)(B.data, B.indices, B.indptr, bar(Y)))


def block_normal(A: Any, X: Any, B: Any, weights: Any) -> tuple[Any, Any]:
    """``A^T W A X``, or ``A^T W (B - A X)`` where there is a panel B, and the weighted squares of B - A X (or None)."""
    xp = namespace_of(A)
    if is_complex(A.dtype) or (is_sparse(A) and A.format != "csr"):
        Y = block_matmul(A, X)
        R = Y if B is None else B - Y
        weighted = R if weights is None else weights[:, None] * R
        return block_rmatmul(A, weighted), None if B is None else weighted_squares(R, weighted, xp)
    name, matrix = ("csr_", (A.data, A.indices, A.indptr)) if is_sparse(A) else ("", (A,))
    if B is None:
        return kernel(f"{name}normal_products", xp)(*matrix, X, weights), None
    return kernel(f"{name}normal_residual", xp)(*matrix, X, B, weights)


def weighted_squares(R: Any, weighted: Any, xp: Any) -> Any:
    """The column sums of ``Re(conj(R) * weighted)`` in double precision."""
    if is_complex(R.dtype):
        return xp.real(xp.sum(xp.astype(xp.conj(R), xp.complex128) * xp.astype(weighted, xp.complex128), axis=0))
    return xp.sum(xp.astype(R, xp.float64) * xp.astype(weighted, xp.float64), axis=0)


def column_sums(B: Any, xp: Any) -> Any:
    """The sums of the columns of a dense or sparse block."""
    if not is_sparse(B):
        return xp.sum(B, axis=0)
    ones = xp.ones((B.shape[0], 1), dtype=B.dtype)
    sums = block_rmatmul(B, ones)[:, 0]
    return xp.conj(sums) if is_complex(B.dtype) else sums


def squared(B: Any, xp: Any) -> float:
    """The squared Frobenius norm of a dense or sparse block, its rows added up in double precision."""
    if is_sparse(B):
        B = B.data.reshape(1, -1)
    elif is_numpy_namespace(xp) and B.flags.f_contiguous and not B.flags.c_contiguous:
        B = B.mT
    if B.shape[0] == 0 or B.shape[1] == 0:
        return 0.0
    total = _row_squares(B, xp)
    # squares of float32 entries below 1e-19 or above 1e19 leave its range; doubles are safe there
    if xp.finfo(B.dtype).eps > 1e-10 and not 1e-30 < total / (B.shape[0] * B.shape[1]) < 1e30:
        total = _row_squares(xp.astype(B, xp.complex128 if is_complex(B.dtype) else xp.float64), xp)
    return total


def _row_squares(B: Any, xp: Any) -> float:
    rows = xp.vecdot(B, B)
    rows = xp.real(rows) if is_complex(rows.dtype) else rows
    return float(xp.sum(xp.astype(rows, xp.float64)))
