"""Barycenters of histograms by iterative Bregman projections, in logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._checks import check_integer, check_real
from .._results import Result, Status, interrupted_with, warn_or_raise
from .both_sides import BLUR, STEEPNESS, GuardedMixing, exponential, log_mass
from .costs import as_cost
from .problems import as_histograms, as_reg, common_mass
from .sweeps import ANNEALING_SWEEPS, STALE, levels

FAR = 0.1  # marginal error above which debiased sweeps are not mixed: their map is no contraction far off
TOL, DEBIASED_TOL = 1e-9, 1e-7


class BarycenterStep(NamedTuple):
    """What one sweep found: one record of the history of `sinkhorn_barycenter`."""

    reg: float  #: regularisation of the sweep
    marginal_error: float  #: see `BarycenterResult`


@dataclass(frozen=True, repr=False)
class BarycenterResult(Result):
    """Barycenter of histograms with the potentials of its plans; iterates as ``(barycenter,)``.

    Attributes
    ----------
    barycenter : array, shape (m,)
        Masses, float64, of the total of each histogram.
    f : array, shape (k, n)
        Potentials of the histograms, -inf where they are 0: ``T_k = exp((f[k]_i + g[k]_j - C_ij) / reg)``.
    g : array, shape (k, m)
        Potentials of the barycenter.
    value : float
        ``sum_k w_k OT(b_k, barycenter)``, with ``- OT(barycenter, barycenter) / 2`` where debiased.
    marginal_error : float
        ``sum_k w_k || T_k.T 1 - barycenter ||_1`` over the mass: by how much the plans differ on what they lead to.
        The other marginals are exact.  Where debiased, the same of the plan of the barycenter with itself is added.
    reg : float
        Regularisation, absolute.
    n_iter : int
        Sweeps, those at larger regularisations included.
    history : tuple of BarycenterStep
        One record for each sweep.
    status : Status
        How it ended.
    """

    barycenter: Any
    f: Any
    g: Any
    value: float
    marginal_error: float
    reg: float
    n_iter: int = 0
    history: tuple[BarycenterStep, ...] = ()
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("barycenter",)


def sinkhorn_barycenter(
    B: Any, cost: Any, reg: float, *, weights: Any = None, debiased: bool = False, relative: bool = False,
    tol: float | None = None, max_iter: int = 20_000, eps_scaling: bool = True,
    callback: Callable[[BarycenterStep], object] | None = None, on_failure: str = "warn",
) -> BarycenterResult:  # fmt: skip
    """Find the histogram that is nearest to several ones in the mean, by entropic transport.

    Minimises ``sum_k w_k OT(b_k, p)`` over histograms p, with ``OT`` the value of `sinkhorn`.  The entropy blurs p by
    about the root of reg (for squared distances); ``debiased=True`` minimises ``sum_k w_k OT(b_k, p) - OT(p, p) / 2``,
    which takes the blur away.

    Parameters
    ----------
    B : array, shape (k, n)
        Histograms in rows, nonnegative and of equal mass.
    cost : array, shape (n, m), or Cost
        Costs, finite, from the places of the histograms to those of the barycenter; `grid_cost` for images.
    reg : float, reg > 0
        Regularisation in units of cost; with ``relative=True`` as a share of the largest cost.
    weights : array, shape (k,), optional
        Positive weights w, divided by their sum; default equal.
    debiased : bool, default False
        Whether the bias of the entropy is removed; the cost must then be symmetric, shape (n, n).
    relative : bool, default False
        Whether `reg` is a share of the largest cost.
    tol : float, tol > 0, optional
        Goal for the marginal error, see `BarycenterResult`; default 1e-9, and 1e-7 where debiased.
    max_iter : int, max_iter >= 1, default 20000
        Sweeps at the final regularisation.
    eps_scaling : bool, default True
        Whether larger regularisations are gone through first, each half of the one before.
    callback : callable, optional
        Called with each `BarycenterStep`; return True to stop.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do when the status is not CONVERGED.

    Returns
    -------
    BarycenterResult
        ``barycenter`` (m,) with potentials, value and error; iterates as ``(barycenter,)``.

    Raises
    ------
    ValueError
        If masses are negative, not finite, zero or unequal, shapes don't fit, a cost is not finite, or a parameter is
        out of range.
    TypeError
        If an argument is complex or not numeric.

    Notes
    -----
    A sweep makes the rows of each plan exact, takes the weighted geometric mean p of their column sums, and makes the
    columns p: 2 k passes over the costs [1]_.  All of it is done on potentials, so no regularisation underflows.  The
    debiased p also has a factor d, of the plan of p with itself, with ``d <- sqrt(d p / (K d))`` [2]_.  That undoes a
    blur, so its last digits, where p is nearly 0, come slowly: the more, the wider the blur is against the histograms.
    Deviation: sweeps are combined by Anderson's mixing, with a return to the best point where that raises the error.

    References
    ----------
    .. [1] Benamou, Carlier, Cuturi, Nenna and Peyre, "Iterative Bregman projections for regularized transportation
       problems", SIAM J. Scientific Computing 37 (2015), section 3.2.
    .. [2] Janati, Cuturi and Gramfort, "Debiased Sinkhorn barycenters", ICML 2020, algorithm 1.

    Examples
    --------
    >>> import numpy as np, randla
    >>> x = np.linspace(0, 1, 101)
    >>> B = np.exp(-((x - np.array([[0.2], [0.6]])) ** 2) / 0.005)
    >>> B /= B.sum(axis=1, keepdims=True)
    >>> result = randla.sinkhorn_barycenter(B, randla.grid_cost(x), 1e-3, debiased=True)
    >>> result.converged, round(float(x @ result.barycenter), 4)
    (True, 0.4)
    """
    cost = as_cost(cost)
    B = as_histograms(B, "B", cost)
    mass = common_mass(B, names="B")
    B = B / cost.xp.sum(B, axis=1)[:, None]
    weights = _as_weights(weights, B)
    if not cost.is_finite:
        raise ValueError("cost must be finite for barycenters, got inf: forbidden pairs")
    if debiased:
        cost.check_symmetric("for debiased=True")
    reg = as_reg(reg, cost, relative)
    tol = (DEBIASED_TOL if debiased else TOL) if tol is None else check_real(tol, "tol", low=0.0, closed="neither")
    max_iter = check_integer(max_iter, "max_iter", low=1)
    run = _Run(cost, B, weights, bool(debiased), tol, callback)
    # NaN and infinity end in a status
    with interrupted_with(lambda: run.result(reg, mass, Status.MAX_ITER)), np.errstate(over="ignore", invalid="ignore"):
        status = run.solve(reg, max_iter, eps_scaling)
    return warn_or_raise(run.result(reg, mass, status), on_failure, what="sinkhorn_barycenter")


def _as_weights(weights: Any, B: Any) -> list[float]:
    k = int(B.shape[0])
    values = [1.0] * k if weights is None else [check_real(w, "weights", low=0.0, closed="neither") for w in weights]
    if len(values) != k:
        raise ValueError(f"weights must have one entry for each of {k} histograms, got {len(values)}")
    return [value / sum(values) for value in values]


class _Point(NamedTuple):
    """Potentials in and out of a sweep: rows 0 to k - 1 those of the barycenter, row k that of its own plan."""

    given: Any
    image: Any
    f: Any
    mean: Any  # of the column sums, weighted
    error: float
    dual: float  # NaN where debiased: sweeps do not raise one
    blur: float


def _flat(point: _Point) -> _Point:
    """The same with the potentials of all plans in one vector."""
    xp = array_namespace(point.given)
    return point._replace(given=xp.reshape(point.given, (-1,)), image=xp.reshape(point.image, (-1,)))


class _Run:
    """The state of a solve: the best point, and how it got there."""

    def __init__(self, cost: Any, B: Any, weights: list[float], debiased: bool, tol: float, callback: Any) -> None:
        self.cost, self.B, self.weights = cost, B, weights
        self.debiased, self.tol, self.callback = debiased, tol, callback
        self.xp, self.back, self.logs = cost.xp, cost.T, log_mass(B)
        self.best: _Point | None = None
        self.stopped = False
        self.history: list[BarycenterStep] = []

    def solve(self, reg: float, max_iter: int, eps_scaling: bool) -> Status:
        """Anneal, then sweep until the tolerance; how it ended."""
        given = self._zeros()
        for level in levels(self.cost, reg, STEEPNESS) if eps_scaling else ():
            for _ in range(0 if self.stopped else ANNEALING_SWEEPS):
                given = self._recorded(given, level).image
        mixing = GuardedMixing(self.xp, FAR if self.debiased else math.inf)
        for _ in range(max_iter):
            point = self._recorded(given, reg)
            shares = [*self.weights, 1.0] if self.debiased else self.weights
            weights = self.xp.concat([share * point.mean for share in shares])
            given = self.xp.reshape(mixing.next(_flat(point), weights), given.shape)
            if self.best is None or mixing.best.error < self.best.error:
                self.best = point
            if not math.isfinite(self.best.error):
                return self.cost.failure
            if self.best.error <= self.tol:
                return Status.CONVERGED
            if self.stopped:
                return Status.MAX_ITER
            if mixing.stale > STALE:
                return Status.STAGNATED
        return Status.MAX_ITER

    def _zeros(self) -> Any:
        rows = len(self.weights) + self.debiased
        return self.xp.zeros((rows, self.cost.shape[1]), dtype=self.xp.float64, device=self.cost.device)

    def _recorded(self, given: Any, reg: float) -> _Point:
        point = self._point(given, reg)
        step = BarycenterStep(reg, point.error)
        self.history.append(step)
        if self.callback is not None and self.callback(step) is True:
            self.stopped = True
        return point

    def _point(self, given: Any, reg: float) -> _Point:
        """One sweep."""
        xp, k = self.xp, len(self.weights)
        f = [reg * self.logs[i, :] + self.cost.softmin(given[i, :], reg) for i in range(k)]
        lifts = [self.back.softmin(potential, reg) for potential in f]
        sums = [exponential((given[i, :] - lifts[i]) / reg) for i in range(k)]
        mean, level = xp.zeros_like(lifts[0]), given[k, :] if self.debiased else xp.zeros_like(lifts[0])
        for share, column, lift in zip(self.weights, sums, lifts, strict=True):
            mean, level = mean + share * column, level - share * lift
        error = abs(float(xp.sum(mean)) - 1.0)  # rounding, unless a row has lost its mass
        for share, column in zip(self.weights, sums, strict=True):
            error += share * float(xp.sum(xp.abs(column - mean)))
        rows = [level + lift for lift in lifts]
        if self.debiased:
            lift = self.cost.softmin(given[k, :], reg)
            error += float(xp.sum(xp.abs(exponential((given[k, :] - lift) / reg) - mean)))
            rows.append((given[k, :] + level + lift) / 2)
        stacked = xp.stack(f)
        dual, size = self._dual(stacked)
        return _Point(given, xp.stack(rows), stacked, mean, error, math.nan if self.debiased else dual, BLUR * size)

    def _dual(self, f: Any) -> tuple[float, float]:
        """``sum_k w_k b_k.f_k``, the value at the solution, and the sum of its absolute terms."""
        held = self.xp.where(self.B > 0, f, self.xp.zeros_like(f)) * self.B
        terms = [w * float(self.xp.sum(held[i, :])) for i, w in enumerate(self.weights)]
        return sum(terms), sum(map(abs, terms))

    def result(self, reg: float, mass: float, status: Status) -> BarycenterResult:
        """The result at the best point, for the mass of the caller's histograms."""
        point, k = self.best if self.best is not None else self._point(self._zeros(), reg), len(self.weights)
        value = self._dual(point.f)[0] + reg * math.log(mass) * (0.5 if self.debiased else 1.0)
        return BarycenterResult(
            mass * point.mean, point.f + reg * math.log(mass), point.given[:k, :], mass * value, point.error, reg,
            n_iter=len(self.history), history=tuple(self.history), status=status,
        )  # fmt: skip
