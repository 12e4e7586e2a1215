"""Positive semidefinite matrices whose entries are computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, dtype_name, floating_dtype, is_complex
from .._backend import kernel as compiled_kernel
from .._checks import check_choice, check_integer, check_real
from ..linear_maps import LinearMap, as_linear_map

#: Kernels that have compiled tiles; "precomputed" is an array of kernel values.
KERNELS = ("rbf", "laplacian", "matern32", "matern52", "polynomial", "linear", "precomputed")
STATIONARY = ("rbf", "laplacian", "matern32", "matern52")

TILE = 1024  # points on either side of a tile of a product
DIAGONAL_BLOCK = 32  # points that a callable kernel gets at a time where only its diagonal is wanted


class KernelMatrix:
    """The matrix of kernel values of n points, of which entries exist only while they are used.

    It offers what algorithms for positive semidefinite matrices ask for: the diagonal, columns, blocks, and products by
    tiles of 1024 x 1024 entries.  It has `matvec` and `matmat`, so SciPy's iterative solvers and `randla.eigh` take it.

    Parameters
    ----------
    X : array, shape (n, d)
        The points, or with ``kernel="precomputed"`` the positive semidefinite matrix itself, shape (n, n).
    kernel : str or callable, default "rbf"
        With r = ||x - y||: "rbf" exp(-gamma r**2), "laplacian" exp(-gamma ||x - y||_1), "matern32" (1 + s) exp(-s) for
        s = sqrt(3) gamma r, "matern52" (1 + s + s**2 / 3) exp(-s) for s = sqrt(5) gamma r, "polynomial"
        (gamma <x, y> + coef0)**degree, "linear" <x, y>, or "precomputed".  A callable gets two arrays of points, (m, d)
        and (k, d), and returns their kernel values, (m, k).
    gamma : float, gamma > 0, optional
        1 / d where it is not given; the inverse length scale of Matern kernels.
    coef0 : float, coef0 >= 0, default 1.0
    degree : int, degree >= 1, default 3
    diagonal : array, shape (n,), optional
        The kernel of each point with itself.  Without it a callable kernel is evaluated on small blocks, at 32 entries
        for each number that is kept.

    Attributes
    ----------
    shape : tuple of two int
        (n, n).
    dtype : dtype
        That of the points; integers count as float64.
    n_entries : int
        Kernel values that were computed (or read) so far.

    Raises
    ------
    TypeError, ValueError
        If X is sparse, complex or not 2-D (and square, for "precomputed"), or a parameter is out of range.

    Notes
    -----
    Kernels of distances see the points with their mean subtracted, since squared distances come from inner products:
    their absolute error is about eps ||x||**2.  Two equal points may therefore have a kernel value that differs from 1
    by rounding; the diagonal is exact.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.kernel_functions import KernelMatrix
    >>> K = KernelMatrix(np.arange(6.0).reshape(3, 2), "rbf", gamma=0.125)
    >>> K.block([0, 1], [1]).round(4).tolist(), K.n_entries
    ([[0.3679], [1.0]], 2)
    """

    ndim = 2

    def __init__(
        self,
        X: Any,
        kernel: str | Callable[[Any, Any], Any] = "rbf",
        *,
        gamma: float | None = None,
        coef0: float = 1.0,
        degree: int = 3,
        diagonal: Any = None,
    ) -> None:
        X = as_matrix(X, name="X", sparse=False)
        if is_complex(X.dtype):
            raise TypeError(f"X must be real, got {dtype_name(X.dtype)}")
        self.kernel = kernel if callable(kernel) else check_choice(kernel, "kernel", KERNELS)
        self.gamma = check_real(
            1.0 / max(1, X.shape[1]) if gamma is None else gamma, "gamma", low=0.0, closed="neither"
        )
        self.coef0 = check_real(coef0, "coef0", low=0.0)
        self.degree = check_integer(degree, "degree", low=1)
        self.xp = array_namespace(X)
        self.dtype = floating_dtype(X, self.xp)
        self.device = device_of(X)
        X = self.xp.astype(X, self.dtype, copy=False)
        if kernel == "precomputed" and X.shape[0] != X.shape[1]:
            raise ValueError(f'X must be square for kernel="precomputed", got shape {tuple(X.shape)}')
        self._shift = self.xp.mean(X, axis=0)[None, :] if kernel in STATIONARY and X.shape[0] else None
        self.X = X if self._shift is None else X - self._shift
        self._diagonal = None if diagonal is None else self._checked_diagonal(diagonal)
        self.shape = (int(X.shape[0]), int(X.shape[0]))
        self.n_entries = 0

    def __repr__(self) -> str:
        name = self.kernel if isinstance(self.kernel, str) else getattr(self.kernel, "__name__", "callable")
        return f"KernelMatrix(shape={self.shape}, kernel={name}, dtype={dtype_name(self.dtype)})"

    def _checked_diagonal(self, diagonal: Any) -> Any:
        diagonal = as_matrix(diagonal, name="diagonal", sparse=False, vector=True)
        check_together(self.X, diagonal, names=("X", "diagonal"))
        if tuple(diagonal.shape) != (self.X.shape[0],):
            raise ValueError(f"diagonal must have shape ({self.X.shape[0]},), got {tuple(diagonal.shape)}")
        return self.xp.astype(diagonal, self.dtype, copy=False)

    def diagonal(self) -> Any:
        """The main diagonal, shape (n,); n entries."""
        xp, n = self.xp, self.shape[0]
        if self._diagonal is not None:
            return self._diagonal
        self.n_entries += n
        if self.kernel == "precomputed":
            return xp.linalg.diagonal(self.X)
        if self.kernel in STATIONARY:
            return xp.ones((n,), dtype=self.dtype, device=self.device)
        if self.kernel in ("linear", "polynomial"):
            squares = xp.sum(self.X**2, axis=1)
            return squares if self.kernel == "linear" else (self.gamma * squares + self.coef0) ** self.degree
        self.n_entries -= n
        parts = [xp.linalg.diagonal(self._tile(P, P)) for _, P in _pieces(self.X, DIAGONAL_BLOCK)]
        return xp.concat(parts) if parts else xp.zeros((0,), dtype=self.dtype, device=self.device)

    def columns(self, index: Any) -> Any:
        """The columns of the given indices, shape (n, k); n k entries."""
        return self.block(None, index)

    def block(self, rows: Any, columns: Any) -> Any:
        """The entries of the given rows and columns; index arrays, slices, or None for all."""
        if self.kernel == "precomputed":
            part = self._rows(self.X, rows)
            if columns is not None:
                part = (
                    part[:, columns] if isinstance(columns, slice) else self.xp.take(part, self._index(columns), axis=1)
                )
            self.n_entries += part.shape[0] * part.shape[1]
            return part
        return self._tile(self._rows(self.X, rows), self._rows(self.X, columns))

    def matmul(self, V: Any, rows: Any = None, columns: Any = None) -> Any:
        """The block of the given rows and columns times V, shape (k,) or (k, p), tile by tile.

        The product with the whole matrix computes each pair of points once: n (n + 1024) / 2 entries.
        """
        V = as_matrix(V, name="V", sparse=False, vector=True)
        check_together(self.X, V, names=("X", "V"))
        points = self._rows(self.X, columns) if self.kernel != "precomputed" else None
        width = self.shape[0] if columns is None else len(self._index(columns)) if points is None else points.shape[0]
        if V.shape[0] != width:
            raise ValueError(f"V must have {width} rows, got shape {tuple(V.shape)}")
        panel = self.xp.astype(V if V.ndim == 2 else V[:, None], self.dtype, copy=False)
        if points is None:
            Y = self.xp.matmul(self.block(rows, columns), panel)
        elif rows is None and columns is None:
            Y = self._symmetric(panel)
        else:
            Y = self._rectangular(self._rows(self.X, rows), points, panel)
        return Y if V.ndim == 2 else Y[:, 0]

    def cross(self, Y: Any, columns: Any = None) -> Any:
        """Kernel values of new points Y (m, d) with the points of the given indices (all by default); (m, k)."""
        return self._tile(self._new(Y), self._rows(self.X, columns))

    def cross_matmul(self, Y: Any, V: Any, columns: Any = None) -> Any:
        """`cross` times V, shape (k,) or (k, p), tile by tile: a prediction at new points."""
        panel = V if V.ndim == 2 else V[:, None]
        product = self._rectangular(self._new(Y), self._rows(self.X, columns), panel)
        return product if V.ndim == 2 else product[:, 0]

    def matvec(self, x: Any) -> Any:
        """`matmul` of a vector or a single column, by the name that SciPy's solvers use."""
        return self.matmul(x)

    matmat = rmatvec = rmatmat = __matmul__ = matvec

    def _new(self, Y: Any) -> Any:
        if self.kernel == "precomputed":
            raise TypeError('kernel must be a function of points for new points, got "precomputed"')
        Y = as_matrix(Y, name="Y", sparse=False)
        check_together(self.X, Y, names=("X", "Y"))
        if Y.shape[1] != self.X.shape[1]:
            raise ValueError(f"Y must have {self.X.shape[1]} columns, got shape {tuple(Y.shape)}")
        Y = self.xp.astype(Y, self.dtype, copy=False)
        return Y if self._shift is None else Y - self._shift

    def _index(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.xp.arange(*index.indices(self.shape[0]), device=self.device)
        return self.xp.asarray(index, dtype=self.xp.int64, device=self.device)

    def _rows(self, X: Any, index: Any) -> Any:
        if index is None:
            return X
        return X[index, :] if isinstance(index, slice) else self.xp.take(X, self._index(index), axis=0)

    def _tile(self, P: Any, Q: Any) -> Any:
        self.n_entries += P.shape[0] * Q.shape[0]
        if isinstance(self.kernel, str):
            return compiled_kernel("kernel_tile", self.xp)(self.kernel, P, Q, self.gamma, self.coef0, self.degree)
        values = self.kernel(P, Q)
        if tuple(values.shape) != (P.shape[0], Q.shape[0]):
            raise ValueError(
                f"kernel must return shape {(P.shape[0], Q.shape[0])} for that many points, got {tuple(values.shape)}"
            )
        return self.xp.astype(values, self.dtype, copy=False)

    def _symmetric(self, V: Any) -> Any:
        xp = self.xp
        pieces = list(_pieces(self.X, TILE))
        parts: list[Any] = [0.0] * len(pieces)
        for i, (here, P) in enumerate(pieces):
            parts[i] = parts[i] + xp.matmul(self._tile(P, P), V[here, :])
            for j, (there, Q) in enumerate(pieces[i + 1 :], i + 1):
                T = self._tile(P, Q)
                parts[i] = parts[i] + xp.matmul(T, V[there, :])
                parts[j] = parts[j] + xp.matmul(T.mT, V[here, :])
        return xp.concat(parts, axis=0) if parts else V

    def _rectangular(self, P: Any, Q: Any, V: Any) -> Any:
        xp, parts = self.xp, []
        for _, here in _pieces(P, TILE):
            products = [xp.matmul(self._tile(here, there), V[rows, :]) for rows, there in _pieces(Q, TILE)]
            parts.append(sum(products[1:], products[0]) if products else None)
        if not parts or parts[0] is None:
            return xp.zeros((P.shape[0], V.shape[1]), dtype=self.dtype, device=self.device)
        return xp.concat(parts, axis=0)


def _pieces(X: Any, size: int) -> Iterator[tuple[slice, Any]]:
    """Slices of so many rows of X, and what they hold."""
    for lo in range(0, X.shape[0], size):
        rows = slice(lo, min(lo + size, X.shape[0]))
        yield rows, X[rows, :]


class KernelMap(LinearMap):
    """A `KernelMatrix` as what algorithms know by its products."""

    knows_norm = False

    def __init__(self, A: KernelMatrix) -> None:
        super().__init__(A.shape, A.dtype, A.xp, A.device)
        self.A = A

    def _matmul(self, X: Any) -> Any:
        return self.A.matmul(X)

    def _rmatmul(self, Y: Any) -> Any:
        return self.A.matmul(Y)


def as_symmetric_map(A: Any, *, name: str = "A") -> LinearMap:
    """The map of a square matrix of any kind, kernel matrices included."""
    A = KernelMap(A) if isinstance(A, KernelMatrix) else as_linear_map(A, name=name)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"{name} must be square, got shape {A.shape}; pass KernelMatrix(X) for points X")
    return A


def as_kernel_matrix(A: Any, *, name: str = "A") -> Any:
    """`A` itself where it offers `diagonal` and `block`, a `KernelMatrix` of an array or a sparse matrix otherwise."""
    if hasattr(A, "diagonal") and hasattr(A, "block") and hasattr(A, "n_entries"):
        return A
    A = as_matrix(A, name=name, sparse=False)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"{name} must be square, got shape {tuple(A.shape)}; pass KernelMatrix(X) for points X")
    return KernelMatrix(A, "precomputed")
