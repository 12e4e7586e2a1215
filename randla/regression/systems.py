"""The two shapes of a least-squares problem as one symmetric system ``C^* C u + damp**2 u = h`` behind one interface.

Tall: C = W^(1/2) A and h = C^* W^(1/2) b, and u is the solution.  Wide: C = (W^(1/2) A)^* and h = W^(1/2) b, and the
solution of least norm is ``C u``.  A system knows products with C^* C, the residual of its state, and how to move it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..linear_maps import AdjointMap, DenseMap, LinearMap, SparseMap
from ..triangular import as_rows
from .preconditioners import Preconditioner

TINY = 1e-300  # below every norm that is divided by


class Check(NamedTuple):
    """What one look at a state tells, an entry of each array for each right-hand side.

    Attributes
    ----------
    gradient : array, shape (n, k)
        ``h - (C^* C + damp**2) u``.
    residual : array, shape (k,)
        ``||b - A x||``, of the weighted rows.
    error, backward : arrays, shape (k,)
        See `LstsqResult`; from the true residual.
    floor : array, shape (k,)
        Preconditioned gradient that rounding of x allows; no use in going below before x is corrected.
    """

    gradient: Any
    residual: Any
    error: Any
    backward: Any
    normal: Any
    floor: Any


class _System:
    """What both have: A and C, which may be one map, and how often they were read."""

    A: LinearMap
    C: LinearMap

    @property
    def n_passes(self) -> int:
        """Reads of the matrix."""
        return self.C.n_passes + (0 if self.C is self.A else self.A.n_passes)


class TallSystem(_System):
    """``min ||W^(1/2) (A X - B)||**2 + damp**2 ||X||**2`` for A (m, n) with m >= n; the state is X."""

    def __init__(self, A: LinearMap, B: Any, weights: Any, damp: float, b_norm: Any) -> None:
        self.A = self.C = A
        self.B, self.weights, self.damp, self.b_norm = B, weights, damp, b_norm
        self.xp, self.sketch_weights, self.columns = A.xp, weights, None

    def start(self, X: Any) -> Any:
        """The state of a first guess X (n, k)."""
        return X

    def zero(self) -> Any:
        """The state of X = 0."""
        return self.xp.zeros((self.C.shape[1], self.B.shape[1]), dtype=core_of(self.C), device=self.C.device)

    def product(self, V: Any) -> Any:
        """``(C^* C + damp**2) V`` in the precision of A, as a core array."""
        xp = self.xp
        out = self.C.normal_products(xp.astype(V, self.C.dtype, copy=False), self.weights)
        return xp.astype(out, V.dtype, copy=False) + self.damp**2 * V

    def check(self, X: Any, pre: Preconditioner) -> Check:
        """One read of A."""
        xp = self.xp
        G, squares = self.C.normal_residual(xp.astype(X, self.C.dtype, copy=False), self.B, self.weights)
        G = xp.astype(G, X.dtype, copy=False) - self.damp**2 * X
        length = column_norms(X, xp)
        residual = xp.sqrt(squares)
        whole = xp.sqrt(squares + (self.damp * length) ** 2)
        S = pre.adjoint(G)
        error = column_norms(S, xp) / xp.maximum(self.b_norm, TINY * xp.ones_like(self.b_norm))
        self._scale(pre, whole, column_norms(X, xp, pre.scale), xp)
        normal = column_norms(G, xp, 1.0 / pre.scale) / xp.maximum(pre.size * whole, TINY * xp.ones_like(whole))
        floor = 100 * pre.eps * (pre.top * self._x_norm + 0.04 * pre.condition * whole)
        return Check(G, residual, error, self.backward(S, pre), normal, floor)

    def backward(self, S: Any, pre: Preconditioner) -> Any:
        """The backward error that belongs to a preconditioned gradient, at the state of the last check [1]_."""
        xp = self.xp
        s = xp.astype(pre.s, xp.float64)[:, None]
        return xp.sqrt(xp.sum((s * xp.abs(S)) ** 2 / (s**2 + self._shift[None, :]), axis=0)) * self._factor

    def _scale(self, pre: Preconditioner, residual: Any, x_norm: Any, xp: Any) -> None:
        """For theta = ||A||_F / ||b||: the shift theta**2 ||r||**2 / (1 + theta**2 ||x||**2), and its factor."""
        theta = pre.size / xp.maximum(self.b_norm, TINY * xp.ones_like(self.b_norm))
        grown = 1.0 + (theta * x_norm) ** 2
        least = (pre.eps * pre.top) ** 2 + TINY  # a residual of zero
        self._shift = (theta * residual) ** 2 / grown + least
        self._factor = theta / xp.sqrt(grown) / max(pre.size, TINY)
        self._x_norm = x_norm

    def move(self, X: Any, V: Any) -> Any:
        """The state after a step V."""
        return X + V

    def solution(self, X: Any) -> Any:
        """The solution that belongs to a state."""
        return X


class WideSystem(_System):
    """``min ||X||`` subject to ``A X = B`` for A (m, n) with m < n (with damp: its ridge form); X = C U.

    The state is (U, X): X is updated and not computed anew, so that its error stays at eps cond(A).
    """

    def __init__(self, A: LinearMap, B: Any, weights: Any, damp: float, b_norm: Any) -> None:
        self.A, self.damp, self.xp, self.b_norm = A, damp, A.xp, b_norm
        self.C, self.sketch_weights = _adjoint_map(A), None
        self.columns = None if weights is None else self.xp.sqrt(weights)[:, None]
        self.B = self.xp.astype(B, core_of(A), copy=False) if weights is None else self.columns * B

    def start(self, X: Any) -> Any:
        """A guess X enters through its residual alone, so that what is added to it is of least norm."""
        U = self.xp.zeros((self.A.shape[0], X.shape[1]), dtype=X.dtype, device=self.C.device)
        return U, X

    def zero(self) -> Any:
        """The state of X = 0."""
        shape, xp = (self.A.shape[1], self.B.shape[1]), self.xp
        return self.start(xp.zeros(shape, dtype=core_of(self.A), device=self.C.device))

    def product(self, V: Any) -> Any:
        """``(C^* C + damp**2) V``: one read of A."""
        xp = self.xp
        out = self.C.normal_products(xp.astype(self._scaled(V), self.C.dtype, copy=False))
        return self._scaled(xp.astype(out, V.dtype, copy=False)) + self.damp**2 * V

    def check(self, state: Any, pre: Preconditioner) -> Check:
        """One read of A; the residual of ``A X = B`` (plus damp**2 U) is the gradient."""
        xp, (U, X) = self.xp, state
        fitted = self._scaled(xp.astype(self.A.matmul(xp.astype(X, self.A.dtype, copy=False)), X.dtype, copy=False))
        R = self.B - fitted
        G = R - self.damp**2 * U
        self._reach = pre.size * column_norms(X, xp) + self.b_norm + TINY
        reached = pre.project(G)  # what lies in the range of A, the rest of b no solution can reach
        size = column_norms(reached, xp)
        error = size / xp.maximum(self.b_norm, TINY * xp.ones_like(self.b_norm))
        floor = 0.0 * error
        return Check(G, column_norms(R, xp), error, size / self._reach, size / self._reach, floor)

    def backward(self, S: Any, pre: Preconditioner) -> Any:
        """``||A x - b|| / (||A||_F ||x|| + ||b||)`` for a preconditioned gradient, at the last check."""
        return column_norms(pre.back(S), self.xp) / self._reach

    def move(self, state: Any, V: Any) -> Any:
        """The state after a step V of U."""
        xp, (U, X) = self.xp, state
        step = self.C.matmul(xp.astype(self._scaled(V), self.C.dtype, copy=False))
        return U + V, X + xp.astype(step, X.dtype, copy=False)

    def solution(self, state: Any) -> Any:
        """The solution that belongs to a state."""
        return state[1]

    def _scaled(self, V: Any) -> Any:
        return V if self.columns is None else self.columns * V


def make_system(A: LinearMap, B: Any, weights: Any, damp: float) -> TallSystem | WideSystem:
    """The system of a problem, by its shape."""
    xp = A.xp
    weighted = B if weights is None else xp.sqrt(weights)[:, None] * B
    b_norm = column_norms(weighted, xp)
    kind = TallSystem if A.shape[0] >= A.shape[1] else WideSystem
    return kind(as_rows(A) if kind is TallSystem else A, B, weights, damp, b_norm)


def _adjoint_map(A: LinearMap) -> LinearMap:
    """The adjoint, with counters of its own; of a real stored matrix its transpose, which the fused kernels read."""
    if isinstance(A, DenseMap) and not A.xp.isdtype(A.dtype, "complex floating"):
        return DenseMap(A.A.T)
    if isinstance(A, SparseMap) and not A.xp.isdtype(A.dtype, "complex floating"):
        return as_rows(SparseMap(A.A.T))
    return AdjointMap(A)


def core_of(A: LinearMap) -> Any:
    """The double-precision dtype in which solutions are kept."""
    return A.xp.complex128 if A.xp.isdtype(A.dtype, "complex floating") else A.xp.float64


def column_norms(M: Any, xp: Any, scale: Any = None) -> Any:
    """Euclidean norms of the columns in double precision; of rows scaled by `scale` if given."""
    M = xp.abs(M)
    M = xp.astype(M, xp.float64, copy=False)
    if scale is not None:
        M = M * scale
    top = xp.max(M, axis=0) if M.shape[0] else xp.zeros((M.shape[1],), dtype=xp.float64)
    with np.errstate(invalid="ignore"):
        unit = xp.where((top > 0) & xp.isfinite(top), top, xp.ones_like(top))
        return unit * xp.sqrt(xp.sum((M / unit) ** 2, axis=0))
