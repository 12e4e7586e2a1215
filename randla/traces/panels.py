"""Test vectors, their products, and what is left when one or two of them are taken away."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import eps, from_host, is_complex
from .._backend import kernel
from .._random import Key
from ..linear_maps import DenseMap, LinearMap, SparseMap, squared
from ..lowrank.leave_one_out import conj
from ..lowrank.orthonormal import NonfiniteError, adjoint, core_dtype

_COLUMNS = 256  # columns of the identity in one product


class TestPanel:
    """Test vectors Omega (n, k) and ``Y = A Omega``, in double precision; more columns reuse the products so far.

    Gaussian vectors, complex for a complex A, or random signs.
    """

    def __init__(self, A: LinearMap, key: Key, *, signs: bool = False) -> None:
        self.A, self.key, self.xp, self.signs = A, key, A.xp, signs
        self.core = core_dtype(A.dtype, A.xp)
        self.blocks = 0
        self.Omega = self.Y = A.xp.zeros((A.shape[1], 0), dtype=self.core, device=A.device)

    def draw(self, k: int) -> Any:
        """The next k test vectors."""
        key, self.blocks = self.key.fold(self.blocks), self.blocks + 1
        xp, A = self.xp, self.A
        if self.signs:
            table = from_host(kernel("rademacher_table", xp)(key, 0, A.shape[1], k, "int8"), xp, A._like())
            return xp.astype(table, self.core)
        G = xp.astype(A.gaussian(key, k), self.core)
        if not is_complex(self.core):
            return G
        return (G + 1.0j * xp.astype(A.gaussian(key.fold("imaginary"), k), self.core)) / math.sqrt(2.0)

    def product(self, X: Any) -> Any:
        """``A @ X`` in double precision; raises NonfiniteError."""
        return self._finite(self.A.matmul(self.xp.astype(X, self.A.dtype)))

    def adjoint_product(self, X: Any) -> Any:
        """``A^* @ X`` in double precision; raises NonfiniteError."""
        return self._finite(self.A.rmatmul(self.xp.astype(X, self.A.dtype)))

    def _finite(self, Y: Any) -> Any:
        Y = self.xp.astype(Y, self.core)
        if not squared(Y, self.xp) < math.inf:
            raise NonfiniteError("a product with A holds NaN or infinity")
        return Y

    def grow(self, k: int) -> None:
        """Append k test vectors and their products."""
        new = self.draw(k)
        Y = self.product(new)
        self.Omega, self.Y = beside(self.Omega, new), beside(self.Y, Y)

    @property
    def rounding(self) -> float:
        """What the rounding of the products and sums may amount to in a trace."""
        return 8.0 * eps(self.A.dtype) * math.sqrt(squared(self.Y, self.xp))


class Basis:
    """``Y = Q R`` that grows by columns: Q keeps its columns, and R stays triangular."""

    def __init__(self, Y: Any, xp: Any) -> None:
        self.xp, self.Q, self.R = xp, Y[:, :0], Y[:0, :0]

    def extend(self, Y: Any) -> Any:
        """Append columns; return the new ones of Q."""
        xp, Q, old = self.xp, self.Q, self.R.shape[0]
        above = xp.zeros((old, Y.shape[1]), dtype=Y.dtype, device=device_of(Y))
        R = xp.eye(Y.shape[1], dtype=Y.dtype, device=device_of(Y))
        for _ in range(2 if old else 1):  # a second round takes out what the first one lifts from rounding
            if old:
                C = xp.matmul(adjoint(Q), Y)
                Y, above = Y - xp.matmul(Q, C), above + xp.matmul(C, R)
            Y, T = xp.linalg.qr(Y)
            R = xp.matmul(T, R)
        zeros = xp.zeros((R.shape[0], old), dtype=R.dtype, device=device_of(Y))
        self.R = xp.concat([beside(self.R, above), beside(zeros, R)], axis=0)
        self.Q = beside(Q, Y)
        return Y


class RangePanel(TestPanel):
    """Test vectors with a basis Q of their images, and ``Z = A Q`` or, `turned`, ``A^* Q``.

    The images are Y; for row norms ``A^* Y``, or Y again for a symmetric A.
    """

    def __init__(
        self, A: LinearMap, key: Key, *, signs: bool = False, turned: bool = False, squared_rows: bool = False
    ) -> None:
        super().__init__(A, key, signs=signs)
        self.turned, self.squared_rows = turned, squared_rows
        self.Y = A.xp.zeros((A.shape[0], 0), dtype=self.core, device=A.device)
        self.basis = Basis(self.Omega, A.xp)
        self.Z = self.Omega if turned else self.Y

    def grow(self, k: int) -> None:
        """Append k test vectors, their products, and those with the new columns of the basis."""
        old = self.Y.shape[1]
        super().grow(k)
        images = self.Y[:, old:]
        new = self.basis.extend(self.adjoint_product(images) if self.squared_rows else images)
        self.Z = beside(self.Z, self.adjoint_product(new) if self.turned else self.product(new))


def beside(B: Any, C: Any) -> Any:
    """Two matrices side by side."""
    return array_namespace(C).concat([B, C], axis=1) if B.shape[1] else C


class Pairs:
    """The removal of every pair of columns from a set of unit vectors S, known by ``gram = S^* S``.

    Entry (i, j) of a table is about removing column i for good, and column j to test the rest with it.  Then the
    projector on what is removed is ``S_ij inv(gram_ij) S_ij^*``, with a two by two matrix that is inverted by hand.
    """

    def __init__(self, gram: Any, xp: Any) -> None:
        self.xp = xp
        self.gram = gram
        self.size = gram.shape[0]
        eye = xp.eye(self.size, dtype=xp.float64, device=device_of(gram))
        gap = 1.0 - xp.abs(gram) ** 2
        self.gap = xp.where(eye > 0, eye, xp.where(gap > 1e-14, gap, xp.ones_like(gap) * 1e-14))
        self.off = 1.0 - eye  # 0 where i = j
        self.weight = self.off / self.gap

    def trace(self, U: Any) -> Any:
        """Traces of ``inv(gram_ij) U_ij`` for a table U."""
        xp = self.xp
        d = xp.real(xp.linalg.diagonal(U)) if not is_complex(U.dtype) else xp.linalg.diagonal(U)
        cross = self.gram * U.mT + conj(self.gram, xp) * U
        return (d[:, None] + d[None, :] - cross) / self.gap

    def coefficients(self, B: Any) -> tuple[Any, Any]:
        """``inv(gram_ij) @ [B_ij, B_jj]``, two tables."""
        b = self.xp.linalg.diagonal(B)[None, :]
        return (B - self.gram * b) / self.gap, (b - conj(self.gram, self.xp) * B) / self.gap

    def mean(self, table: Any) -> Any:
        """Means of the rows of a table without its diagonal."""
        return self.xp.sum(self.off * table, axis=1) / (self.size - 1)


def deviation(values: Any, xp: Any) -> Any:
    """Root of the summed squares of replicates about their mean, along the last axis: the jackknife deviation."""
    return xp.sqrt(xp.sum(xp.abs(values - xp.mean(values, axis=-1, keepdims=True)) ** 2, axis=-1))


def standard_error(values: Any, xp: Any) -> Any:
    """Standard deviation of the values along the last axis over the root of their number."""
    k = values.shape[-1]
    return deviation(values, xp) / math.sqrt(k * (k - 1))


def is_stored(A: LinearMap) -> TypeGuard[DenseMap | SparseMap]:
    """True if the entries of A can be read one by one."""
    return isinstance(A, (DenseMap, SparseMap)) and not A.center


def read_diagonal(A: LinearMap) -> Any:
    """The main diagonal of a square A in double precision: read where it is stored, else from ``A @ identity``."""
    xp, n, core = A.xp, A.shape[0], core_dtype(A.dtype, A.xp)
    if is_stored(A):
        return xp.astype(A.A.diagonal() if isinstance(A, SparseMap) else xp.linalg.diagonal(A.A), core)
    parts = []
    for start in range(0, n, _COLUMNS):
        k = min(_COLUMNS, n - start)
        E = xp.eye(n, k, k=-start, dtype=A.dtype, device=A.device)
        parts.append(xp.astype(xp.linalg.diagonal(A.matmul(E)[start : start + k, :]), core))
    return xp.concat(parts) if parts else xp.zeros((0,), dtype=core, device=A.device)
