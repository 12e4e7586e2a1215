"""Sinkhorn divergence: entropic transport without its bias, with derivatives by points and masses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .._checks import check_integer, check_real
from .._results import Result, Status, warn_or_raise
from .both_sides import exponential, log_mass
from .costs import Cost, point_cost
from .gradients import point_gradient
from .problems import as_marginal, as_problem
from .results import TransportResult, TransportStep
from .sinkhorn import sinkhorn

MOST_SELF_SWEEPS = 10_000  # without max_iter; the error falls by half in each where kernels are positive definite


@dataclass(frozen=True, repr=False)
class DivergenceResult(Result):
    """Sinkhorn divergence of two samples with its derivatives; iterates as ``(value,)``.

    Attributes
    ----------
    value : float
        ``OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2``, nonnegative up to the tolerance.
    grad_X : array, shape (n, d)
        Derivative by the points of the first sample, float64; None where it was not asked for.
    grad_Y : array, shape (m, d)
        Derivative by the points of the second sample.
    grad_a : array, shape (n,)
        Derivative by the masses of the first sample along directions without mass; ``a.grad_a = value / 2``.  Points
        without mass have one, too.
    grad_b : array, shape (m,)
        Derivative by the masses of the second sample; ``b.grad_b = value / 2``.
    f, g : array
        Potentials (n,), (m,) between the samples, for plans ``a_i b_j exp((f_i + g_j - C_ij) / reg)``.
    p, q : array
        Potentials (n,), (m,) of each sample with itself.
    reg : float
        Regularisation, absolute.
    marginal_error : float
        The largest of the marginal errors of the three plans, over the mass.
    transport : TransportResult
        The plan between the samples, for masses that sum to 1.
    n_iter : int
        Sweeps of all three problems.
    status : Status
        How the worst of the three ended.
    """

    value: float
    grad_X: Any  # named after the argument
    grad_Y: Any
    grad_a: Any
    grad_b: Any
    f: Any
    g: Any
    p: Any
    q: Any
    reg: float
    marginal_error: float
    transport: TransportResult
    n_iter: int = 0
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("value",)


def sinkhorn_divergence(
    X: Any, Y: Any, a: Any = None, b: Any = None, *, reg: float, metric: str = "sqeuclidean", relative: bool = False,
    tol: float = 1e-9, max_iter: int | None = None, gradient: bool = True,
    callback: Callable[[TransportStep], object] | None = None, on_failure: str = "warn",
) -> DivergenceResult:  # fmt: skip
    """Compare two samples by entropic transport, less what each costs against itself.

    ``S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2``, where ``OT`` is the value of `sinkhorn`.  It is 0 for equal
    samples, positive else for the costs here but "cosine", where it compares directions, and goes from transport
    (reg -> 0) to a squared distance of means under a kernel (reg -> inf).

    Parameters
    ----------
    X : array, shape (n, d)
        Points of the first sample, real and finite.
    Y : array, shape (m, d)
        Points of the second sample.
    a : array, shape (n,), optional
        Masses of the first sample, nonnegative; default uniform of mass 1.
    b : array, shape (m,), optional
        Masses of the second, of the same total.
    reg : float, reg > 0
        Regularisation in units of cost; with ``relative=True`` as a share of the largest cost.
    metric : {"sqeuclidean", "euclidean", "cityblock", "cosine"}, default "sqeuclidean"
        As in `point_cost`.
    relative : bool, default False
        Whether `reg` is a share of the largest cost between the samples.
    tol : float, tol > 0, default 1e-9
        Goal for the marginal error of each of the three plans, over the mass.
    max_iter : int, max_iter >= 1, optional
        Limit of sweeps of each; default that of `sinkhorn`, and 10,000 for a sample with itself.
    gradient : bool, default True
        Whether the derivatives by points are made, which takes four more passes.
    callback : callable, optional
        Called with each `TransportStep` of the plan between the samples; return True to stop.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do when the status is not CONVERGED.

    Returns
    -------
    DivergenceResult
        The value with its derivatives as arrays; iterates as ``(value,)``.

    Raises
    ------
    ValueError
        If masses are negative, not finite, zero or unequal, shapes don't fit, or a parameter is out of range.
    TypeError
        If an argument is complex or not numeric.

    Notes
    -----
    With a symmetric plan one potential is enough: ``p <- (p + softmin(p)) / 2`` halves its error in each pass where
    ``exp(-C / reg)`` is positive definite, as it is for these metrics [1]_.  No plan is stored: ``O(n m d)`` operations
    a pass and ``O((n + m) d)`` memory.  Derivatives: ``dS/da = f - p``, and ``dS/dx_i = sum_j T_ij dc(x_i, y_j)/dx_i -
    sum_j P_ij dc(x_i, x_j)/dx_i`` with the plan T between the samples and P of the first with itself.

    References
    ----------
    .. [1] Feydy, Sejourne, Vialard, Amari, Trouve and Peyre, "Interpolating between optimal transport and MMD using
       Sinkhorn divergences", AISTATS 2019, sections 2 and 3.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2)) + [3, 0]
    >>> result = randla.sinkhorn_divergence(X, Y, reg=0.5)
    >>> 7 < result.value < 11, randla.sinkhorn_divergence(X, X, reg=0.5).value < 1e-8
    (True, True)
    >>> step = X - 60 / 2 * result.grad_X  # half the gradient of a mean of squares: X is moved onto Y
    >>> randla.sinkhorn_divergence(step, Y, reg=0.5).value < 0.1
    True
    """
    cost = point_cost(X, Y, metric)
    problem = as_problem(a, b, cost, reg, relative=relative)
    tol = check_real(tol, "tol", low=0.0, closed="neither")
    limit = MOST_SELF_SWEEPS if max_iter is None else check_integer(max_iter, "max_iter", low=1)
    xp, reg, mass = cost.xp, problem.reg, problem.mass
    a, b = (as_marginal(weights, cost, axis) for axis, weights in enumerate((a, b)))
    a, b = a / xp.sum(a), b / xp.sum(b)
    between = sinkhorn(a, b, cost, reg, tol=tol, max_iter=max_iter, callback=callback, on_failure="ignore")
    f = cost.softmin(between.g, reg)  # also where there is no mass
    g = cost.T.softmin(f + reg * log_mass(a), reg)
    first, second = Cost(cost.metric, cost.X, cost.X), Cost(cost.metric, cost.Y, cost.Y)
    own, other = _self_transport(first, a, reg, tol, limit), _self_transport(second, b, reg, tol, limit)
    grad_a, grad_b = f - own.p, g - other.p
    half = (float(xp.sum(a * grad_a)) - float(xp.sum(b * grad_b))) / 2
    grad_a, grad_b = grad_a - half, grad_b + half
    value = float(xp.sum(a * grad_a)) + float(xp.sum(b * grad_b)) + reg * (own.total + other.total - 2) / 2
    grad_X = grad_Y = None
    if gradient:
        F, G, P, Q = (v + reg * log_mass(w) for v, w in ((f, a), (g, b), (own.p, a), (other.p, b)))
        grad_X = point_gradient(cost, X, metric, F, G, reg) - point_gradient(first, X, metric, P, P, reg)
        grad_Y = point_gradient(cost.T, Y, metric, G, F, reg) - point_gradient(second, Y, metric, Q, Q, reg)
        grad_X, grad_Y = mass * grad_X, mass * grad_Y
    error = max(between.marginal_error, own.error, other.error)
    status = between.status
    if between.converged and not error <= tol:
        status = Status.MAX_ITER if math.isfinite(error) else Status.NONFINITE
    result = DivergenceResult(
        mass * value, grad_X, grad_Y, grad_a, grad_b, f, g, own.p, other.p, reg, error, between,
        n_iter=between.n_iter + own.n_iter + other.n_iter, status=status,
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="sinkhorn_divergence")


@dataclass(frozen=True)
class _SelfTransport:
    """The potential of a sample against itself, the mass of its plan, and the error of its marginals."""

    p: Any
    total: float
    error: float
    n_iter: int


def _self_transport(cost: Cost, a: Any, reg: float, tol: float, limit: int) -> _SelfTransport:
    """Averaged fixed-point steps ``p <- (p + softmin(p + reg log a)) / 2``; the plan's row sums are a by-product."""
    xp, logs = cost.xp, reg * log_mass(a)
    p, step = xp.zeros_like(a), 0
    while True:
        image = cost.softmin(p + logs, reg)
        sums = a * exponential((p - image) / reg)
        error = 2 * float(xp.sum(xp.abs(sums - a)))  # of the rows and of the columns, which are the same
        if error <= tol or step == limit or not math.isfinite(error):
            return _SelfTransport(xp.where(a > 0, p, image), float(xp.sum(sums)), error, step + 1)
        p, step = (p + image) / 2, step + 1
