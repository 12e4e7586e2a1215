"""The estimators of a trace: each grows by test vectors, and tells its value with two deviations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays import eps
from .._random import Key
from ..linear_maps import LinearMap, squared
from ..lowrank.leave_one_out import conj, nystrom_factor, real, symmetric_core, unit_duals
from ..lowrank.orthonormal import adjoint
from ..triangular import inverse_of
from .panels import Pairs, RangePanel, TestPanel, deviation, standard_error
from .results import skewed_factor, student_factor

_LARGEST_CORE = 1e10  # condition number above which an indefinite core is not inverted


class Value(NamedTuple):
    """An estimate, its standard error, the half width of its interval, and the samples behind them."""

    estimate: Any
    stderr: float
    half_width: float
    n_vectors: int


def _left_out(t: Any, replicates: Any, floor: float, confidence: float, xp: Any) -> Value:
    """The value of leave-one-out estimates t (k,) and of the estimates without each test vector, `replicates` (k,)."""
    k = t.shape[0]
    spread = student_factor(k, confidence) * float(deviation(replicates, xp))
    return Value(_scalar(xp.mean(t), xp), float(standard_error(t, xp)), spread + floor, k)


def _scalar(x: Any, xp: Any) -> Any:
    return complex(x) if xp.isdtype(x.dtype, "complex floating") else float(x)


class Estimator:
    """An estimator that grows to a number of products and tells its value from all of them."""

    panel: TestPanel

    def grow(self, n_matvecs: int) -> None:
        """Spend products until there are `n_matvecs` in all."""
        self.panel.grow(n_matvecs - self.panel.Y.shape[1])

    def value(self, confidence: float) -> Value:
        """The estimate from all products so far."""
        raise NotImplementedError


class Hutchinson(Estimator):
    """Girard and Hutchinson: means of ``w^* A w`` over test vectors on the sphere of radius sqrt(n)."""

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = TestPanel(A, key)

    def value(self, confidence: float) -> Value:  # noqa: D102
        xp, n = self.panel.xp, self.panel.A.shape[0]
        W, Y = self.panel.Omega, self.panel.Y
        t = n * xp.sum(conj(W, xp) * Y, axis=0) / xp.sum(xp.abs(W) ** 2, axis=0)
        return _independent(_scalar(xp.mean(t), xp), t, self.panel.rounding, confidence, xp)


def _independent(estimate: Any, t: Any, floor: float, confidence: float, xp: Any) -> Value:
    k, error = t.shape[0], float(standard_error(t, xp))
    return Value(estimate, error, skewed_factor(k, confidence) * error + floor, k)


class HutchPlusPlus(Estimator):
    """The trace on the range of a sketch, and quadratic forms of fresh vectors on its complement."""

    panel: RangePanel

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel, self.fresh = RangePanel(A, key.fold("range")), TestPanel(A, key.fold("fresh"))

    def grow(self, n_matvecs: int) -> None:  # noqa: D102
        k = n_matvecs // 3
        self.panel.grow(k - self.panel.Y.shape[1])
        self.fresh.grow(n_matvecs - 2 * k - self.fresh.Y.shape[1])

    def value(self, confidence: float) -> Value:  # noqa: D102
        xp, Q, Z = self.panel.xp, self.panel.basis.Q, self.panel.Z
        n, k = Q.shape
        G, AG = self.fresh.Omega, self.fresh.Y
        C = xp.matmul(adjoint(Q), G)
        # A (I - Q Q^*) g from products that are there: a basis that grows later needs no new ones
        G, AG = G - xp.matmul(Q, C), AG - xp.matmul(Z, C)
        t = (n - k) * xp.sum(conj(G, xp) * AG, axis=0) / xp.sum(xp.abs(G) ** 2, axis=0)
        inside = xp.sum(conj(Q, xp) * Z)
        return _independent(_scalar(inside + xp.mean(t), xp), t, self.panel.rounding, confidence, xp)


class XTrace(Estimator):
    """Hutch++ with each test vector in turn on the part that the others leave."""

    panel: RangePanel

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = RangePanel(A, key)

    def grow(self, n_matvecs: int) -> None:  # noqa: D102
        self.panel.grow(n_matvecs // 2 - self.panel.Y.shape[1])

    def value(self, confidence: float) -> Value:  # noqa: D102
        xp, Q, Z, Omega = self.panel.xp, self.panel.basis.Q, self.panel.Z, self.panel.Omega
        S, lengths = unit_duals(self.panel.basis.R, xp)
        H, W, T = (xp.matmul(adjoint(left), right) for left, right in ((Q, Z), (Q, Omega), (Z, Omega)))
        one, two = _forms(S, lengths, H, W, T, xp.sum(xp.abs(Omega) ** 2, axis=0), Q.shape[0], xp)
        return _left_out(one, two, self.panel.rounding, confidence, xp)


def _forms(S: Any, lengths: Any, H: Any, W: Any, T: Any, squares: Any, n: int, xp: Any) -> tuple[Any, Any]:
    """Leave-one-out estimates of XTrace, and the estimates without each test vector (leave-two-out means)."""
    diagonal, k = xp.linalg.diagonal, S.shape[1]
    HW, HhW = xp.matmul(H, W), xp.matmul(adjoint(H), W)
    B, U, SHW, SHhW, ST = (xp.matmul(adjoint(S), M) for M in (W, xp.matmul(H, S), HW, HhW, T))
    tw, whw = (xp.sum(conj(M, xp) * W, axis=0) for M in (T, HhW))
    outside = squares - xp.sum(xp.abs(W) ** 2, axis=0)
    u, b, whole = diagonal(U), diagonal(B), xp.linalg.trace(H)
    # one test vector is left out: the projector loses s s^*
    third = whw - conj(diagonal(SHhW), xp) * b - conj(b, xp) * diagonal(SHW) + xp.abs(b) ** 2 * u
    form = conj(b, xp) * lengths - (tw - conj(diagonal(ST), xp) * b) + third
    one = whole - u + (n - k + 1) / (outside + xp.abs(b) ** 2) * form
    # two are left out: c are the coefficients of the test vector on the plane that is lost
    pairs = Pairs(xp.matmul(adjoint(S), S), xp)
    c, d = pairs.coefficients(B)
    third = whw[None, :] - conj(SHhW, xp) * c - conj(diagonal(SHhW), xp)[None, :] * d
    third = third - conj(c, xp) * SHW - conj(d, xp) * diagonal(SHW)[None, :]
    third = third + xp.abs(c) ** 2 * u[:, None] + xp.abs(d) ** 2 * u[None, :]
    third = third + conj(c, xp) * d * U + conj(d, xp) * c * U.mT
    second = tw[None, :] - conj(ST, xp) * c - conj(diagonal(ST), xp)[None, :] * d
    form = conj(d, xp) * lengths[None, :] - second + third
    lost = real(conj(B, xp) * c, xp) + real(conj(b, xp)[None, :] * d, xp)
    return one, pairs.mean(whole - pairs.trace(U) + (n - k + 2) / (outside[None, :] + lost) * form)


class XNysTrace(Estimator):
    """The Nystrom approximation of a positive semidefinite matrix, each test vector on the rest of the others."""

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = TestPanel(A, key)

    def grow(self, n_matvecs: int) -> None:  # noqa: D102
        super().grow(n_matvecs)
        self.core = symmetric_core(self.panel.Omega, self.panel.Y, eps(self.panel.A.dtype))

    def value(self, confidence: float) -> Value:  # noqa: D102
        xp, n = self.panel.xp, self.panel.A.shape[0]
        factor = nystrom_factor(self.panel.Omega, self.panel.Y, self.core, eps(self.panel.A.dtype))
        Z, lengths, F, shift = factor.Z, factor.lengths, factor.F, factor.shift
        k = Z.shape[1]
        held = squared(F, xp) - shift * n
        G, inner = xp.matmul(adjoint(Z), Z), inverse_gram(self.panel.Omega, xp)
        own = real(xp.linalg.diagonal(inner), xp)
        one = held - real(xp.linalg.diagonal(G), xp) + (n - k + 1) * own * lengths**2
        pairs = Pairs(factor.gram, xp)
        tests = own[None, :] - xp.abs(inner) ** 2 / own[:, None]
        two = held - real(pairs.trace(G), xp) + (n - k + 2) * tests * (lengths**2)[None, :] / pairs.gap
        return _left_out(one, pairs.mean(two), n * shift + self.panel.rounding, confidence, xp)


def inverse_gram(Omega: Any, xp: Any) -> Any:
    """The inverse of ``Omega^* Omega``, for Gaussian vectors, whose Gram matrix is well-conditioned below k = n / 2."""
    T = inverse_of(xp.linalg.qr(Omega)[1])
    return xp.matmul(T, adjoint(T))


class XSymTrace(Estimator):
    """The Nystrom approximation of an indefinite symmetric matrix, each test vector on the rest of the others.

    The inverse of an indefinite core has no mean; where its condition number is above 1e10 only its leading part, half
    as large until it is better conditioned, is used.
    """

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = TestPanel(A, key)

    def grow(self, n_matvecs: int) -> None:  # noqa: D102
        super().grow(n_matvecs)
        self.core = symmetric_core(self.panel.Omega, self.panel.Y, eps(self.panel.A.dtype))

    def value(self, confidence: float) -> Value:  # noqa: D102
        xp, n = self.panel.xp, self.panel.A.shape[0]
        M, k = self._inverse()
        if k < 4:
            return Value(math.nan, math.inf, math.inf, k)
        Z, inner = xp.matmul(self.panel.Y[:, :k], M), inverse_gram(self.panel.Omega[:, :k], xp)
        d, own = (real(xp.linalg.diagonal(X), xp) for X in (M, inner))
        G = xp.matmul(adjoint(Z), Z)
        g = real(xp.linalg.diagonal(G), xp)
        held = float(xp.sum(real(xp.matmul(adjoint(self.panel.Y[:, :k]), self.panel.Y[:, :k]) * M.mT, xp)))
        one = held + ((n - k + 1) * own - g) / d
        # removing two vectors: a two by two block of the inverse, which may be singular for an indefinite core
        off = 1.0 - xp.eye(k, dtype=xp.float64, device=self.panel.A.device)
        block = d[:, None] * d[None, :] - xp.abs(M) ** 2
        block = xp.where(off > 0, block, xp.ones_like(block))
        lost = (d[None, :] * g[:, None] + d[:, None] * g[None, :] - 2.0 * real(M * G.mT, xp)) / block
        tests = (own[None, :] - xp.abs(inner) ** 2 / own[:, None]) * d[:, None] / block
        two = held - lost + (n - k + 2) * tests
        return _left_out(one, xp.sum(off * two, axis=1) / (k - 1), self.panel.rounding, confidence, xp)

    def _inverse(self) -> tuple[Any, int]:
        xp, k = self.panel.xp, self.core.shape[0]
        while k >= 4:
            w, V = xp.linalg.eigh(self.core[:k, :k])
            size = xp.abs(w)
            if 0.0 < float(xp.max(size)) <= _LARGEST_CORE * float(xp.min(size)):
                return xp.matmul(V / w[None, :], adjoint(V)), k
            k //= 2
        return self.core[:0, :0], 0


ESTIMATORS: dict[str, Any] = {
    "xtrace": XTrace,
    "xnystrace": XNysTrace,
    "xsymtrace": XSymTrace,
    "hutchpp": HutchPlusPlus,
    "hutchinson": Hutchinson,
}
