"""Transport between masses that need not agree: marginals are drawn to a and b by Kullback-Leibler divergences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .._checks import check_integer, check_real
from .._results import Result, Status, interrupted_with, warn_or_raise
from .both_sides import BLUR, STEEPNESS, GuardedMixing, exponential, log_mass
from .costs import as_cost
from .problems import as_marginal, as_reg
from .results import TransportPlan
from .sweeps import ANNEALING_SWEEPS, STALE, levels


class UnbalancedStep(NamedTuple):
    """What one sweep found: one record of the history of `sinkhorn_unbalanced`."""

    reg: float  #: regularisation of the sweep
    marginal_error: float  #: see `UnbalancedResult`
    dual: float  #: dual value


@dataclass(frozen=True, repr=False)
class UnbalancedResult(Result):
    """Solution of unbalanced entropic transport by its potentials; iterates as ``(f, g)``.

    Attributes
    ----------
    f : array, shape (n,)
        Potential of the rows, float64; ``T_ij = exp((f_i + g_j - C_ij) / reg)``, -inf where a is 0.
    g : array, shape (m,)
        Potential of the columns.
    cost : float
        ``sum_ij T_ij C_ij``.
    mass : float
        ``sum_ij T_ij``.
    value : float
        The objective at the plan.
    gap : float
        The objective less the dual value at the same potentials: the value is within it of the least one.
    marginal_error : float
        ``||T 1 - a exp(-f' / rho_1)||_1 + ||T.T 1 - b exp(-g' / rho_2)||_1`` over the mean of the masses of a and b,
        with ``f' = f - reg log a``, ``g' = g - reg log b``: the gradient of the dual.  It is the marginal error of
        `sinkhorn` where rho is large.
    reg : float
        Regularisation, absolute.
    reg_marginal : tuple of float
        The two weights rho of the marginals.
    n_iter : int
        Sweeps, those at larger regularisations included.
    history : tuple of UnbalancedStep
        One record for each sweep.
    plan : TransportPlan
        The plan, made when it is asked for.
    status : Status
        How it ended.
    """

    f: Any
    g: Any
    cost: float
    mass: float
    value: float
    gap: float
    marginal_error: float
    reg: float
    reg_marginal: tuple[float, float]
    n_iter: int = 0
    history: tuple[UnbalancedStep, ...] = ()
    plan: Any = field(default=None)
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("f", "g")


def sinkhorn_unbalanced(
    a: Any, b: Any, cost: Any, reg: float, reg_marginal: Any, *, relative: bool = False, tol: float = 1e-9,
    max_iter: int = 20_000, eps_scaling: bool = True, callback: Callable[[UnbalancedStep], object] | None = None,
    on_failure: str = "warn",
) -> UnbalancedResult:  # fmt: skip
    """Transport mass where moving it has to pay: what costs more than `reg_marginal` is destroyed and made instead.

    Minimises ``<T, C> + reg KL(T | a b.T) + rho_1 KL(T 1 | a) + rho_2 KL(T.T 1 | b)`` over ``T >= 0``, with ``KL(x | y)
    = sum x log(x / y) - x + y``.  The masses of a and b may differ.  Use it for samples with outliers or of different
    size; with rho -> inf the plan becomes that of `sinkhorn`.

    Parameters
    ----------
    a : array, shape (n,), or None
        Masses of the rows, nonnegative; None is uniform of mass 1.  Rows without mass get the potential -inf.
    b : array, shape (m,), or None
        Masses of the columns.
    cost : array, shape (n, m), or Cost
        Costs, inf for forbidden pairs; or `point_cost`, `grid_cost` and their like.
    reg : float, reg > 0
        Regularisation in units of cost; with ``relative=True`` as a share of the largest cost.
    reg_marginal : float, or pair of float, > 0
        The weights rho of the marginals, in units of cost.  One of them, not both, may be inf: that marginal is exact.
    relative : bool, default False
        Whether `reg` (not `reg_marginal`) is a share of the largest cost.
    tol : float, tol > 0, default 1e-9
        Goal for the marginal error, see `UnbalancedResult`.
    max_iter : int, max_iter >= 1, default 20000
        Sweeps at the final regularisation.
    eps_scaling : bool, default True
        Whether larger regularisations are gone through first, each half of the one before.
    callback : callable, optional
        Called with each `UnbalancedStep`; return True to stop.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do when the status is not CONVERGED.

    Returns
    -------
    UnbalancedResult
        Potentials ``f`` (n,) and ``g`` (m,), the value with its duality gap, and the plan as an operator.

    Raises
    ------
    ValueError
        If masses are negative, not finite or all zero, shapes don't fit, both `reg_marginal` are inf, or a parameter is
        out of range.
    TypeError
        If an argument is complex or not numeric.

    Notes
    -----
    A sweep is ``f' = rho_1 / (rho_1 + reg) softmin(g)``, likewise g', two passes over the costs [2]_; between them
    f' + t and g' - t get the shift t that is best for the dual, which takes the slow part of the error away where rho
    is large [1]_.  Sweeps are combined by Anderson's mixing.  Every plan is feasible here, so the duality gap needs no
    rounded plan; it is made of row and column sums, and its own rounding is about 1e-16 of its terms, which grow with
    rho.  A row whose costs are all inf gets no mass.

    References
    ----------
    .. [1] Sejourne, Vialard and Peyre, "Faster unbalanced optimal transport: translation invariant Sinkhorn and 1-D
       Frank-Wolfe", AISTATS 2022, section 3.
    .. [2] Chizat, Peyre, Schmitzer and Vialard, "Scaling algorithms for unbalanced optimal transport problems",
       Mathematics of Computation 87 (2018).

    Examples
    --------
    >>> import numpy as np, randla
    >>> x = np.append(np.linspace(0, 1, 20), 50.0)  # an outlier
    >>> result = randla.sinkhorn_unbalanced(None, None, randla.point_cost(x[:, None], x[:20, None]), 1e-2, 1.0)
    >>> result.converged, bool(result.plan.matmul(np.ones(20))[-1] < 1e-9)
    (True, True)
    """
    cost = as_cost(cost)
    a, b = as_marginal(a, cost, 0), as_marginal(b, cost, 1)
    reg = as_reg(reg, cost, relative)
    rhos = _as_rhos(reg_marginal)
    tol = check_real(tol, "tol", low=0.0, closed="neither")
    max_iter = check_integer(max_iter, "max_iter", low=1)
    run = _Run(cost, a, b, rhos, tol, callback)
    # NaN and infinity end in a status
    with interrupted_with(lambda: run.result(reg, Status.MAX_ITER)), np.errstate(over="ignore", invalid="ignore"):
        status = run.solve(reg, max_iter, eps_scaling)
    return warn_or_raise(run.result(reg, status), on_failure, what="sinkhorn_unbalanced")


def _as_rhos(reg_marginal: Any) -> tuple[float, float]:
    pair = tuple(reg_marginal) if isinstance(reg_marginal, (tuple, list)) else (reg_marginal, reg_marginal)
    if len(pair) != 2:
        raise ValueError(f"reg_marginal must be a number or a pair, got {len(pair)} numbers")
    infinite = [isinstance(rho, float) and rho == math.inf for rho in pair]
    if all(infinite):
        raise ValueError("reg_marginal must be finite for one marginal at least, got inf for both; use sinkhorn")
    rhos = [
        math.inf if endless else check_real(rho, "reg_marginal", low=0.0, closed="neither")
        for rho, endless in zip(pair, infinite, strict=True)
    ]
    return rhos[0], rhos[1]


class _Point(NamedTuple):
    """Potentials relative to a and b, what comes next, and how far off they are."""

    given: Any  # the g that it was made from
    f: Any
    g: Any
    image: Any  # the g that comes next
    mass: float
    error: float
    primal: float
    dual: float
    blur: float


class _Run:
    """The state of a solve: the best point, and how it got there."""

    def __init__(self, cost: Any, a: Any, b: Any, rhos: tuple[float, float], tol: float, callback: Any) -> None:
        self.cost, self.a, self.b, self.rhos, self.tol, self.callback = cost, a, b, rhos, tol, callback
        self.xp, self.back = cost.xp, cost.T
        shut = cost.softmin(log_mass(b), 1.0) == math.inf, self.back.softmin(log_mass(a), 1.0) == math.inf
        for rho, closed, weights, name in zip(rhos, shut, (a, b), ("row", "column"), strict=True):
            if rho == math.inf and bool(self.xp.any(closed & (weights > 0))):
                raise ValueError(f"cost must be finite somewhere in each {name} for reg_marginal = inf, got inf only")
        # what may go nowhere is destroyed: it takes no part but for its price
        self.open = tuple(self.xp.where(s, self.xp.zeros_like(w), w) for s, w in zip(shut, (a, b), strict=True))
        self.logs = log_mass(self.open[0]), log_mass(self.open[1])
        self.size = float(self.xp.sum(a)), float(self.xp.sum(b))
        self.best: _Point | None = None
        self.stopped = False
        self.history: list[UnbalancedStep] = []

    def solve(self, reg: float, max_iter: int, eps_scaling: bool) -> Status:
        """Anneal, then sweep until the tolerance; how it ended."""
        g = self.xp.zeros_like(self.b)
        for level in levels(self.cost, reg, STEEPNESS) if eps_scaling else ():
            for _ in range(0 if self.stopped else ANNEALING_SWEEPS):
                g = self._recorded(g, level).image
        mixing = GuardedMixing(self.xp)
        for _ in range(max_iter):
            point = self._recorded(g, reg)
            g = mixing.next(point, self.b)
            self.best = mixing.best
            if not math.isfinite(self.best.error):
                return self.cost.failure
            if self.best.error <= self.tol:
                return Status.CONVERGED
            if self.stopped:
                return Status.MAX_ITER
            if mixing.stale > STALE:
                return Status.STAGNATED
        return Status.MAX_ITER

    def _recorded(self, g: Any, reg: float) -> _Point:
        point = self._point(g, reg)
        step = UnbalancedStep(reg, point.error, point.dual)
        self.history.append(step)
        if self.callback is not None and self.callback(step) is True:
            self.stopped = True
        return point

    def _point(self, g: Any, reg: float) -> _Point:
        """One sweep from g; the sums of rows and columns come with it."""
        xp, (first, second), given, (a, b) = self.xp, self.rhos, g, self.open
        image = self._finite(self.cost.softmin(g + reg * self.logs[1], reg), a)
        f = image / (1 + reg / first)
        rows = a * exponential((f - image) / reg)
        shift = self._shift(f, g)
        f, g = f + shift, g - shift
        image = self._finite(self.back.softmin(f + reg * self.logs[0], reg), b)
        columns = b * exponential((g - image) / reg)
        wanted = a * exponential(-f / first), b * exponential(-g / second)
        error = float(xp.sum(xp.abs(rows - wanted[0]))) + float(xp.sum(xp.abs(columns - wanted[1])))
        mass = float(xp.sum(columns))
        inner = float(xp.sum(rows * f)) + float(xp.sum(columns * g))
        left = reg * (self.size[0] * self.size[1] - mass)
        primal = inner + left + self._penalty(rows, self.a, first) + self._penalty(columns, self.b, second)
        dual = left + self._conjugate(f, self.a, wanted[0], first) + self._conjugate(g, self.b, wanted[1], second)
        blur = BLUR * (abs(left) + abs(dual) + abs(dual - left))
        error /= (self.size[0] + self.size[1]) / 2
        return _Point(given, f, g, image / (1 + reg / second), mass, error, primal, dual, blur)

    def _finite(self, image: Any, weights: Any) -> Any:
        """Potentials with 0 where there is no mass that could go somewhere, so that they can be added up."""
        return self.xp.where(weights > 0, image, self.xp.zeros_like(image))

    def _shift(self, f: Any, g: Any) -> float:
        """The t for which f + t and g - t have the largest dual value: log(A / B) / (1 / rho_1 + 1 / rho_2)."""
        sizes = []
        for potential, weights, rho in ((f, self.open[0], self.rhos[0]), (g, self.open[1], self.rhos[1])):
            exponents = self.xp.where(weights > 0, -potential / rho, self.xp.full_like(weights, -math.inf))
            top = float(self.xp.max(exponents))
            if top == -math.inf:  # no mass can go anywhere
                return 0.0
            sizes.append(top + math.log(float(self.xp.sum(weights * self.xp.exp(exponents - top)))))
        return (sizes[0] - sizes[1]) / (1 / self.rhos[0] + 1 / self.rhos[1])

    def _penalty(self, sums: Any, weights: Any, rho: float) -> float:
        """``rho KL(sums | weights)``; for rho = inf nothing, the potential having taken its place."""
        if rho == math.inf:
            return 0.0
        xp = self.xp
        ratio = xp.where(sums > 0, sums / xp.where(sums > 0, weights, xp.ones_like(sums)), xp.ones_like(sums))
        return rho * float(xp.sum(sums * xp.log(ratio) - sums + weights))

    def _conjugate(self, potential: Any, weights: Any, wanted: Any, rho: float) -> float:
        """``rho sum weights (1 - exp(-potential / rho))``, or its limit for rho = inf."""
        if rho == math.inf:
            return float(self.xp.sum(weights * potential))
        return rho * float(self.xp.sum(weights - wanted))

    def result(self, reg: float, status: Status) -> UnbalancedResult:
        """The result at the best point, with what is measured there."""
        point = self.best if self.best is not None else self._point(self.xp.zeros_like(self.b), reg)
        f, g = point.f + reg * self.logs[0], point.g + reg * self.logs[1]
        _, _, prices = self.cost.sums(f, g, reg)
        return UnbalancedResult(
            f, g, float(self.xp.sum(prices)), point.mass, point.primal, point.primal - point.dual, point.error, reg,
            self.rhos, n_iter=len(self.history), history=tuple(self.history), plan=TransportPlan(self.cost, f, g, reg),
            status=status,
        )  # fmt: skip
