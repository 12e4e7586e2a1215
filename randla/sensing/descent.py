"""Recovery from clean or noisy measurements: gradient descent on two factors, imbalanced or preconditioned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import eps
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..lowrank.orthonormal import core_svd
from .base import gaussian_panel
from .intake import Problem, checked_problem, given_factors, leading, norm
from .results import RecoveryResult

_RATIO = 3.0  # how much smaller the second factor starts: alpha and alpha / 3 in [1] of `factorized_gd`
_LARGEST = 1e8  # cap of the scaling of one direction: those that are not used are near zero
_WINDOW = 50  # steps without a new least residual, at the level of rounding, before the iteration gives up
REBALANCE = ("scaled", "once")


@dataclass(frozen=True)
class DescentStep:
    """What a callback is told at each step of `factorized_gd`.

    Attributes
    ----------
    n_iter : int
        Steps done.
    error : float
        ``||residual|| / ||y||``.
    stationarity : float
        How far the residual is from being orthogonal to what the factors can change, between 0 and about 1.
    U, V : arrays
        The factors so far; not to be changed.
    """

    n_iter: int
    error: float
    stationarity: float
    U: Any
    V: Any


def factorized_gd(
    measurements: Any, y: Any, rank: int, *, rebalance: str | None = "scaled", shape: tuple[int, int] | None = None,
    rebalance_at: float = 0.1, step: float | str = "exact", init: Any = "auto", init_scale: float = 0.5,
    noise_level: float = 0.0, max_iter: int = 1000, tol: float | None = None, rng: Any = None,
    callback: Callable[[DescentStep], Any] | None = None, on_failure: str = "warn",
) -> RecoveryResult:  # fmt: skip
    """Recover a low-rank matrix from linear measurements by gradient descent on its factors.

    Lowers ``sum_i (<A_i, U V^T> - y_i)**2``.  `rank` may be above the true one: two factors of different size still
    converge at a linear rate, where a symmetric factorisation slows down to ``1 / t``.  A step costs the residual and
    one adjoint, O(m d1 d2) for dense A_i and O(m rank) for entries; the exact step size takes one product more.  For
    gross errors in y take `subgradient_recovery`.

    Parameters
    ----------
    measurements : measurements, array (m, d1, d2), matrix (m, d1 d2) or LinearOperator
        As for `subgradient_recovery`.
    y : array, shape (m,)
        Measured numbers, real; they are not changed.
    rank : int, 1 <= rank <= min(d1, d2)
        Columns of the factors, at least the rank of the matrix.
    rebalance : {"scaled", "once", None}, default "scaled"
        "scaled": each gradient is multiplied by the inverse Gram matrix of the other factor, which makes the rate
        independent of the condition of the matrix.  "once": plain descent, but when the residual is first below
        `rebalance_at` the factors are rescaled so that the first has orthogonal columns of equal length.  None: plain
        descent.
    shape : tuple of int, (d1, d2), optional
        Shape of the matrix, for measurements by a matrix or operator; default a square.
    rebalance_at : float, 0 < rebalance_at < 1, default 0.1
        Relative residual at which "once" rescales.  It must be below the smallest singular value of the matrix over its
        norm: what is not there yet at that time is learned slowly afterwards.
    step : float or "exact", default "exact"
        Step size, relative to ``1 / ||X||_2`` for plain descent and to 1 for "scaled"; "exact" takes the minimum along
        the direction, a polynomial of degree four.
    init : {"auto", "spectral", "random"}, pair of arrays, shapes (d1, rank) and (d2, rank), or result, default "auto"
        "spectral": the leading part of the adjoint of y, in equal parts; "random": Gaussian factors, the second a third
        of the first.  "auto" takes the first for "scaled" and the second else.
    init_scale : float, init_scale > 0, default 0.5
        Length of the columns of the first factor for "random", relative to ``sqrt(||X||_2)``.
    noise_level : float, noise_level >= 0, default 0.0
        Stop when the root mean square of the residuals is down to this.
    max_iter : int, max_iter >= 0, default 1000
    tol : float, tol >= 0, optional
        Stop when ``||residual|| <= tol ||y||``, or when the residual is orthogonal to what the factors can change up
        to ``sqrt(tol)``, times `init_scale` after "random": a step lowers the squared residual by about tol of itself
        then.  Default 1e-8, and 1e-5 in single precision.
    rng : None, int, SeedSequence, Generator or Key
        Source of "random", and of a sketch where d1 d2 is above a million.
    callback : callable, optional
        Called with a `DescentStep` before each step; returning True ends the iteration with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    RecoveryResult
        ``U`` (d1, rank) and ``V`` (d2, rank), the relative residual and its history; iterates as ``U, V``.

    Raises
    ------
    ValueError
        If shapes do not fit, y is complex, or a parameter is out of range.
    TypeError
        If the measurements are of no known kind.

    Notes
    -----
    For near-isotropic measurements and plain descent with a rank above the true one: a symmetric factorisation cannot
    be faster than ``1 / t**2`` in the loss, two factors started at different scales converge like
    ``exp(-c init_scale**2 t)``, and one rescaling makes the rate independent of `init_scale` [1]_.  For "scaled" with
    the true rank the rate is independent of the condition number [2]_; above it the Gram matrices are nearly singular
    and a multiple of identity of the size of the residual is added, as in [3]_ for symmetric matrices.

    Stationarity is ``||A^*(r) V|| / (||A|| ||r|| ||V||)``, and the same for U, whichever is larger, with ``||A||**2``
    the mean square of ``<A_i, X>`` over ``||X||_F**2``, times m.  With noise it goes to zero where the residual does
    not.  A small residual on few measurements does not mean a small error.

    Deviations from [1]_: (1) the rescaling, W = B diag(beta / sigma) B^T from the decomposition of U, is rebuilt from
    its properties (same product, ``U^T U = beta**2 I``), with ``beta**2`` the estimated norm of the matrix, and its
    stretch of a direction capped at 1e8; (2) the threshold of the residual is our own.

    References
    ----------
    .. [1] Xiong, Ding and Du, "How over-parameterization slows down gradient descent in matrix sensing: the curses of
       symmetry and initialization", ICLR 2024, arXiv:2310.01769.
    .. [2] Tong, Ma and Chi, "Accelerating ill-conditioned low-rank matrix estimation via scaled gradient descent", JMLR
       22, 2021.
    .. [3] Zhang, Fattahi and Zhang, "Preconditioned gradient descent for over-parameterized nonconvex matrix
       factorization", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))
    >>> A = randla.GaussianMeasurements((30, 20), 500, rng=0)
    >>> result = randla.factorized_gd(A, A.apply(X), 4)
    >>> bool(np.linalg.norm(result.to_dense() - X) < 1e-6 * np.linalg.norm(X))
    True
    """
    if rebalance is not None:
        check_choice(rebalance, "rebalance", REBALANCE)
    if isinstance(step, str):
        check_choice(step, "step", ("exact",))
    else:
        step = check_real(step, "step", low=0.0, closed="neither")
    init_scale = check_real(init_scale, "init_scale", low=0.0, closed="neither")
    noise_level = check_real(noise_level, "noise_level", low=0.0)
    max_iter = check_integer(max_iter, "max_iter", low=0)
    tol = None if tol is None else check_real(tol, "tol", low=0.0)
    rebalance_at = check_real(rebalance_at, "rebalance_at", low=0.0, high=1.0, closed="neither")
    key = as_key(rng).fold("factorized_gd")
    problem = checked_problem(measurements, y, shape, key)
    rank = check_integer(rank, "rank", low=1, high=min(problem.A.shape))
    run = _Run(problem, rebalance, step)
    if not isinstance(init, str):
        init = given_factors(init, problem, rank)
    elif check_choice(init, "init", ("auto", "spectral", "random")) == "auto":
        init = "spectral" if rebalance == "scaled" else "random"
    start = run.started(init, rank, init_scale, key)
    tol = (1e-8 if eps(problem.y.dtype) < 1e-10 else 1e-5) if tol is None else tol
    angle = math.sqrt(tol) * (min(1.0, init_scale) if isinstance(init, str) and init == "random" else 1.0)
    result = run.go(*start, _Limits(max_iter, tol, angle, noise_level, rebalance_at), callback)
    return warn_or_raise(result, on_failure, what="factorized_gd")


@dataclass(frozen=True)
class _Limits:
    """When the iteration ends."""

    max_iter: int
    tol: float
    angle: float
    noise_level: float
    rebalance_at: float


class _Run:
    """One recovery: the problem, its scales, and the step of each kind."""

    def __init__(self, problem: Problem, rebalance: str | None, step: float | str) -> None:
        self.A, self.y, self.unit = problem
        self.xp, self.rebalance, self.step = array_namespace(self.y), rebalance, step
        self.length = norm(self.y)
        self.mass = self.A.n_measurements * self.unit**2  # A^* A is about this times identity
        self.floor = eps(self.y.dtype) ** 0.5
        self.rescaled = rebalance != "once"

    def started(self, init: Any, rank: int, scale: float, key: Key) -> tuple[Any, Any]:
        """Factors to start from; the norm of the matrix is estimated on the way."""
        xp = self.xp
        if not math.isfinite(self.length) or self.length == 0.0:
            self.top = 0.0
            return tuple(xp.zeros((side, rank), dtype=self.y.dtype, device=device_of(self.y)) for side in self.A.shape)
        P, s, Q = leading(self.A, self.y / self.mass, rank, key.fold("start"))
        self.top = float(s[0])
        if not isinstance(init, str):
            return init
        if init == "spectral":
            root = xp.sqrt(s)[None, :]
            return P * root, Q * root
        U, V = (
            gaussian_panel(key.fold(name), side, rank, self.y) for name, side in zip("UV", self.A.shape, strict=True)
        )
        length = scale * math.sqrt(self.top / U.shape[0])
        return length * U, (length / _RATIO) * V

    def go(self, U: Any, V: Any, limits: _Limits, callback: Callable[[DescentStep], Any] | None) -> RecoveryResult:
        if self.length == 0.0:
            return self.result(U, V, [0.0], Status.CONVERGED)
        history, status = [], Status.MAX_ITER
        good, best, since = (U, V), math.inf, 0
        for n_iter in range(limits.max_iter + 1):
            r, D, E = self.A._sweep(U, V, self.y, _as_it_is)
            size = norm(r)
            error, angle = size / self.length, self.stationarity(size, U, V, D, E)
            if not (math.isfinite(error) and math.isfinite(angle)):
                status = Status.NONFINITE
                break
            good = U, V
            history.append(error)
            best, since = (error, 0) if error < best else (best, since + 1)
            stop = callback is not None and callback(DescentStep(n_iter, error, angle, U, V)) is True
            if error <= limits.tol or angle <= limits.angle or size <= limits.noise_level * self.A.n_measurements**0.5:
                status = Status.CONVERGED
                break
            if since >= _WINDOW and error < self.floor:
                status = Status.STAGNATED
                break
            if stop or n_iter == limits.max_iter:
                break
            if not self.rescaled and error <= limits.rebalance_at:
                U, V = self.rescale(U, V)
                self.rescaled = True
                continue
            U, V = self.moved(U, V, r, D / self.mass, E / self.mass)
        return self.result(*good, history, status)

    def stationarity(self, size: float, U: Any, V: Any, D: Any, E: Any) -> float:
        if size == 0.0:
            return 0.0
        lengths = norm(U), norm(V)
        if 0.0 in lengths:
            return 1.0 if max(lengths) > 0.0 else 0.0
        return max(norm(D) / lengths[1], norm(E) / lengths[0]) / (math.sqrt(self.mass) * size)

    def moved(self, U: Any, V: Any, r: Any, D: Any, E: Any) -> tuple[Any, Any]:
        """One step along the gradients, scaled by the inverse Gram matrices where that is asked for."""
        if self.rebalance == "scaled":
            shift = norm(r) / math.sqrt(self.mass)  # about the norm of the error, as in [3]
            D, E = self._solved(D, V, shift), self._solved(E, U, shift)
            unit = 1.0
        else:
            unit = 1.0 / self.top
        size = self._exact(U, V, r, D, E) if isinstance(self.step, str) else self.step * unit
        return U - size * D, V - size * E

    def _solved(self, D: Any, V: Any, shift: float) -> Any:
        """``D (V^T V + shift I)^{-1}``, the small system in double precision."""
        xp = self.xp
        G = xp.astype(V, xp.float64)
        G = xp.matmul(G.mT, G)
        lift = shift + V.shape[1] * eps(V.dtype) * float(xp.linalg.trace(G))  # keeps it regular at the end
        G = G + lift * xp.eye(V.shape[1], dtype=xp.float64, device=device_of(V))
        return xp.astype(xp.linalg.solve(G, xp.astype(D, xp.float64).mT).mT, V.dtype)

    def _exact(self, U: Any, V: Any, r: Any, D: Any, E: Any) -> float:
        """The step t of least ``||r - t a + t**2 b||``; a and b measure ``D V^T + U E^T`` and ``D E^T``."""
        xp = self.xp
        a, b = self.A._several([(xp.concat([D, U], axis=1), xp.concat([V, E], axis=1)), (D, E)])
        r, a, b = (xp.astype(z, xp.float64) for z in (r, a, b))
        rr, ra, rb, aa, ab, bb = (float(xp.sum(p * q)) for p, q in ((r, r), (r, a), (r, b), (a, a), (a, b), (b, b)))
        if not all(map(math.isfinite, (rr, ra, rb, aa, ab, bb))):
            return math.nan
        roots = np.roots([2.0 * bb, -3.0 * ab, aa + 2.0 * rb, -ra])
        reals = [float(t.real) for t in roots if abs(t.imag) <= 1e-9 * abs(t)]
        change = {t: -2.0 * t * ra + t * t * (aa + 2.0 * rb) - 2.0 * t**3 * ab + t**4 * bb for t in reals}
        return min(change, key=lambda t: change[t]) if change else 0.0

    def rescale(self, U: Any, V: Any) -> tuple[Any, Any]:
        """The same product with ``U^T U = top I``: what remains is well-conditioned least squares in V."""
        xp = self.xp
        _, s, Bh = core_svd(xp.astype(U, xp.float64))
        stretch = math.sqrt(self.top) / s
        stretch = xp.where(stretch < _LARGEST, stretch, _LARGEST * xp.ones_like(stretch))
        forth = xp.matmul(Bh.mT * stretch[None, :], Bh)
        back = xp.matmul(Bh.mT / stretch[None, :], Bh)
        return tuple(
            xp.astype(xp.matmul(xp.astype(side, xp.float64), W), side.dtype) for side, W in ((U, forth), (V, back))
        )

    def result(self, U: Any, V: Any, history: list[float], status: Status) -> RecoveryResult:
        error = history[-1] if history else math.nan
        scale = error * self.length / math.sqrt(self.A.n_measurements)
        steps = max(0, len(history) - 1)
        return RecoveryResult(U, V, error, "residual", scale, None, 0.0, steps, tuple(history), status)


def _as_it_is(r: Any, rows: slice) -> Any:  # noqa: ARG001 - the loss of squares weighs a residual by itself
    return r
