"""The rows of an l_p regression in coordinates of their range, and the bound that duality gives for any residual."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays import is_sparse, namespace_of
from .._random import Key
from ..sampling.rows import entry_rows
from ..triangular import triangular_factor


class Design:
    """``W^(1/p) A = U R`` and ``W^(1/p) b``, where U (m, rank) has orthonormal columns, in double precision.

    In these coordinates no step depends on the condition number of A, and dependent columns are gone.  A dense A is
    replaced by U, one copy; of a sparse A products with U are taken, and U is never formed.
    """

    def __init__(self, A: Any, b: Any, scale: Any, key: Key, units: tuple[float, float] = (1.0, 1.0)) -> None:
        self.xp = xp = namespace_of(A)
        self.sparse = is_sparse(A)
        self.units = units  # factors of A and b
        wide = A.astype("float64") if self.sparse else xp.astype(A, xp.float64, copy=False)
        wide = wide if units[0] == 1.0 else wide * units[0]
        b = b if units[1] == 1.0 else b * units[1]
        self.b = b if scale is None else b * scale
        if scale is not None:
            wide = scaled_rows(wide, scale)
        factor = triangular_factor(wide, key=key)
        self.rank = int(factor.rank)
        self.shape = (int(A.shape[0]), self.rank)
        self._factor = factor
        self._inverse = factor.inverse
        self._A = wide if self.sparse else xp.matmul(xp.matmul(wide, factor.first), factor.second)

    def matmul(self, z: Any) -> Any:
        """``U z``."""
        return self._A @ (self._inverse @ z) if self.sparse else self._A @ z

    def adjoint(self, y: Any) -> Any:
        """``U^T y``."""
        return self._inverse.T @ (self._A.T @ y) if self.sparse else self._A.T @ y

    def gram(self, q: Any) -> Any:
        """``U^T diag(q) U``."""
        if not self.sparse:
            return self._A.T @ (self._A * q[:, None])
        G = (self._A.T @ scaled_rows(self._A, q)).toarray()
        return self._inverse.T @ G @ self._inverse

    def rows(self, indices: Any) -> Any:
        """Some rows of U, dense."""
        if self.sparse:
            return self._A[indices] @ self._inverse
        return self.xp.take(self._A, indices, axis=0)

    def augmented(self) -> Any:
        """A matrix whose columns span those of [A b] under the weights: its rows have the scores of those of [A b]."""
        xp, A = self.xp, self._A
        if not self.sparse:
            return xp.concat((A, self.b[:, None]), axis=1)
        of_row, every = entry_rows(A), xp.arange(A.shape[0], dtype=A.indices.dtype)
        columns = xp.concat((A.indices, xp.full_like(every, A.shape[1])))
        rows, data = xp.concat((xp.astype(of_row, every.dtype), every)), xp.concat((A.data, self.b))
        return type(A)((data, (rows, columns)), shape=(A.shape[0], A.shape[1] + 1))

    def lengths(self) -> Any:
        """The norms of the rows of U; of a sparse U in blocks."""
        xp, (m, _) = self.xp, self.shape
        if not self.sparse:
            return xp.sqrt(xp.vecdot(self._A, self._A))
        step = max(1, 2**20 // max(1, self.rank))
        parts = [self._A[lo : lo + step] @ self._inverse for lo in range(0, m, step)]
        return xp.sqrt(xp.concat([xp.vecdot(part, part) for part in parts]))

    def coefficients(self, z: Any) -> Any:
        """The x of least Euclidean norm with ``W^(1/p) A x = U z``, all units undone."""
        xp, n = self.xp, self._inverse.shape[0]
        x = (self._inverse @ z) * self.units[0] / self.units[1]
        if self.rank == n or self.rank == 0:
            return x
        pivots = self._factor.pivots
        R = self._factor.R if pivots is None else xp.take(self._factor.R, xp.argsort(pivots), axis=1)
        V, _ = xp.linalg.qr(R.T)
        return V @ (V.T @ x)


def scaled_rows(A: Any, scale: Any) -> Any:
    """``diag(scale) A``; CSR for a sparse matrix."""
    if not is_sparse(A):
        return A * scale[:, None]
    A = A.tocsr()
    return type(A)((A.data * scale[entry_rows(A)], A.indices, A.indptr), shape=A.shape)


def norm(r: Any, p: float) -> float:
    """``||r||_p`` of a vector, without overflow or underflow."""
    xp = array_namespace(r)
    top = float(xp.max(xp.abs(r))) if r.shape[0] else 0.0
    if top == 0.0 or not math.isfinite(top):
        return top
    return top if math.isinf(p) else top * float(xp.sum((xp.abs(r) / top) ** p)) ** (1.0 / p)


def lower_bound(design: Design, r: Any, y: Any, p: float) -> float:
    """A number below ``min_z ||b - U z||_p``, from any residual r of the problem and any y.

    For ``U^T y = 0`` all residuals have the same product with y, so by Hoelder ``r^T y <= ||y||_q ||b - U z||_p`` for
    all z.  The y that is given is projected first, so that this holds up to rounding.
    """
    y = y - design.matmul(design.adjoint(y))
    size = norm(y, math.inf if p == 1.0 else p / (p - 1.0))
    return max(0.0, float(design.xp.sum(r * y)) / size) if size > 0.0 else 0.0
