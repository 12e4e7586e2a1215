"""Entropic optimal transport: annealed, accelerated Sinkhorn sweeps, then Newton steps with a sparse Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._arrays import as_matrix
from .._checks import check_choice, check_integer, check_real
from .._results import Status, interrupted_with, warn_or_raise
from .costs import as_cost
from .newton import Rule, newton_direction
from .problems import Problem, as_problem
from .results import TransportPlan, TransportResult, TransportStep
from .sweeps import ANNEALING_SWEEPS, DEPTH, STALE, LogSweeps, Mixing, ScalingSweeps, column_change, levels

METHODS = ("auto", "sinkhorn", "log", "newton")
STEEPNESS = 64.0  # largest cost over the regularisation at which annealing begins
ANNEALED = 1e-3  # error at which a larger regularisation is left before its sweeps are done
MARGIN = 0.9  # of tol, at which the loop ends: the error that is measured at the end has the rounding of both sides
WINDOW = 6  # sweeps over which progress is judged
PATIENCE = 60  # sweeps worth waiting for: about the price of the Newton steps that would replace them
STORED_BYTES = 2**30  # plans up to this size are stored for scaling sweeps
ARMIJO, SHORTEST = 1e-4, 40
SHORT_OF, LONGEST = 0.2, 64.0  # share of the error left by a short step, and the longest that is tried
MOST_NEWTON_FAILURES = 3
HOPELESS = 10 * PATIENCE  # the same before the warm-up has ended
LEAST_LOOKED_AT = 8  # sweeps before progress is judged
WORSE = 4.0  # times the error before, at which a point is dropped where duals don't tell
BLUR = 4e-16  # relative rounding of the dual
EMPTIED = 0.01  # share of its mass below which a column is refilled by a sweep


class Point(NamedTuple):
    """Potentials whose rows are exact, with the sums of the columns and their distance from b."""

    f: Any
    g: Any
    sums: Any
    error: float
    dual: float
    blur: float  # rounding of the dual

    @property
    def is_finite(self) -> bool:
        """Whether the error and the dual are."""
        return math.isfinite(self.error) and math.isfinite(self.dual)

    def is_better(self, other: Point) -> bool:
        """Whether the dual is higher, or where rounding hides that, the error is lower."""
        if abs(self.dual - other.dual) > self.blur + other.blur:
            return self.dual > other.dual
        return self.error < other.error

    def is_worse(self, other: Point) -> bool:
        """Whether the dual is lower, or where rounding hides that, the error is several times as high."""
        if abs(self.dual - other.dual) > self.blur + other.blur:
            return self.dual < other.dual
        return self.error > WORSE * other.error


def sinkhorn(
    a: Any, b: Any, cost: Any, reg: float, *, method: str = "auto", relative: bool = False, tol: float = 1e-9,
    max_iter: int | None = None, eps_scaling: bool = True, warmup: int = 20, sparsify: str = "mass",
    topk_factor: int = 8, start: Any = None, callback: Callable[[TransportStep], object] | None = None,
    on_failure: str = "warn",
) -> Any:  # fmt: skip
    """Move mass a to mass b at least cost plus `reg` times the negative entropy of the plan.

    Minimises ``<T, C> + reg sum T_ij log T_ij`` over plans ``T >= 0`` with row sums a and column sums b.  The solution
    is ``T_ij = exp((f_i + g_j - C_ij) / reg)``, and everything happens on its potentials, in logarithms.

    Parameters
    ----------
    a : array, shape (n,), or None
        Masses of the rows, nonnegative; None is uniform of mass 1.  Rows without mass get the potential -inf.
    b : array, shape (m,) or (m, k), or None
        Masses of the columns, of the same total as a.  With k columns, k problems are solved one after the other, each
        from the potentials of the one before, and a tuple of results is returned.
    cost : array, shape (n, m), or Cost
        Costs, inf for forbidden pairs; or `point_cost`, `grid_cost` and their like, which store no matrix.
    reg : float, reg > 0
        Regularisation in units of cost; with ``relative=True`` as a share of the largest cost.
    method : {"auto", "sinkhorn", "log", "newton"}, default "auto"
        "log": accelerated sweeps by log-sum-exp.  "sinkhorn": the same by products with a stored plan, which is
        made again when the potentials have moved far: two to three times faster a sweep, ``8 n m`` bytes.  "newton":
        Newton steps after `warmup` sweeps.  "auto": sweeps, and Newton steps where they converge slowly.
    relative : bool, default False
        Whether `reg` is a share of the largest cost.
    tol : float, tol > 0, default 1e-9
        Goal for ``(||T 1 - a||_1 + ||T.T 1 - b||_1) / sum(a)``.
    max_iter : int, max_iter >= 1, optional
        Sweeps and Newton steps at the final regularisation; default 200 steps of Newton and 20,000 sweeps.
    eps_scaling : bool, default True
        Whether larger regularisations are gone through first, each half of the one before.
    warmup : int, warmup >= 1, default 20
        Sweeps before the first Newton step.
    sparsify : {"mass", "topk", "none"}, default "mass"
        Which entries of the plan the Hessian keeps: all but a share of each row's mass that falls with the error, or
        the ``topk_factor max(n, m)`` largest, the rule of SNS.  "none": all, in a stored plan of ``8 n m`` bytes, with
        truncated conjugate gradients; for large `reg`, where plans are dense.
    topk_factor : int, topk_factor >= 1, default 8
        See `sparsify`.
    start : (f, g) or TransportResult, optional
        Potentials to begin at; annealing is left out.
    callback : callable, optional
        Called with each `TransportStep`; return True to stop.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do when the status is not CONVERGED.

    Returns
    -------
    TransportResult
        Potentials, costs and errors, the history, and the plan as an operator; a tuple of them when b has k columns.

    Raises
    ------
    ValueError
        If masses are negative, not finite, zero or unequal, shapes don't fit, a row or column with mass has no finite
        cost, or a parameter is out of range.
    TypeError
        If an argument is complex or not numeric.
    KeyboardInterrupt
        As it comes, with the last state as its attribute `result`.

    Notes
    -----
    A sweep takes ``n m`` exponentials or ``2 n m`` multiplications; memory beyond the arguments is ``O(n + m)``, plus
    ``8 n m`` bytes where a plan is stored ("sinkhorn"; "auto" up to 1 GiB of it).  Sweeps are combined by Anderson's
    mixing.  A Newton step takes two passes over the costs, for the Hessian and for the new point, and a system that is
    solved by conjugate gradients, or by factorisation from the step on at which those need more than 200.  Steps are
    halved until the dual rises, so the dual never falls; a step that fails is replaced by sweeps.

    At the end ``0 <= result.cost - exact cost <= reg min(H(a), H(b))`` with the entropies H, up to `tol`.  An exact
    solver is the better tool where the plan itself is wanted and n is in the thousands; see the guide.

    Potentials and arithmetic are float64 also for float32 costs; their rounding, 1e-16 ``max|f| / reg``, bounds the
    error that can be reached.

    References
    ----------
    Cuturi 2013 (sweeps); Schmitzer 2019, sections 3.2 and 3.3 (annealing, absorption); Brauer, Clason, Lorenz and Wirth
    2017 (Newton); Tang et al. 2024, algorithm 1 (sparse Hessian); Tang and Qiu 2024 (shift, sparsification by mass).

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.random((60, 2)), rng.random((50, 2))
    >>> result = randla.sinkhorn(None, None, randla.point_cost(X, Y), 1e-3)
    >>> result.converged, result.marginal_error < 1e-9
    (True, True)
    >>> result.plan.matmul(Y).shape
    (60, 2)
    """
    cost = as_cost(cost)
    if method == "newton" and not cost.has_entries:
        raise ValueError(
            f'method must be "auto" or "log" for a {type(cost).__name__}, which has no single entries, got "newton"'
        )
    options = _options(method, tol, max_iter, eps_scaling, warmup, sparsify, topk_factor, callback, on_failure)
    if b is not None and len(getattr(b, "shape", ())) == 2:
        return _batch(a, as_matrix(b, name="b", sparse=False), cost, reg, relative, start, options)
    problem = as_problem(a, b, cost, reg, relative=relative)
    run = _Run(problem, options)
    with interrupted_with(lambda: run.result(Status.MAX_ITER)):
        status = run.solve(_start(start, problem))
    return warn_or_raise(run.result(status), on_failure, what="sinkhorn")


@dataclass(frozen=True)
class Options:
    """Checked parameters of `sinkhorn`."""

    method: str
    tol: float
    max_iter: int | None
    eps_scaling: bool
    warmup: int
    sparsify: str
    topk_factor: int
    callback: Callable[[TransportStep], object] | None
    on_failure: str

    @property
    def most_sweeps(self) -> int:
        """Sweeps at the final regularisation."""
        return 20_000 if self.max_iter is None else self.max_iter

    @property
    def most_newton(self) -> int:
        """Newton steps."""
        return 200 if self.max_iter is None else self.max_iter


def _options(
    method: str, tol: float, max_iter: Any, eps_scaling: bool, warmup: int, sparsify: str, topk_factor: int,
    callback: Any, on_failure: str,
) -> Options:  # fmt: skip
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    return Options(
        check_choice(method, "method", METHODS),
        check_real(tol, "tol", low=0.0, closed="neither", remedy="1e-9 is a good value"),
        None if max_iter is None else check_integer(max_iter, "max_iter", low=1),
        bool(eps_scaling),
        check_integer(warmup, "warmup", low=1),
        check_choice(sparsify, "sparsify", ("mass", "topk", "none")),
        check_integer(topk_factor, "topk_factor", low=1),
        callback,
        on_failure,
    )


def _batch(a: Any, B: Any, cost: Any, reg: float, relative: bool, start: Any, options: Options) -> tuple[Any, ...]:
    results: list[Any] = []
    for column in range(B.shape[1]):
        problem = as_problem(a, B[:, column], cost, reg, relative=relative)
        run = _Run(problem, options)
        whole = bool(results) and problem.columns is None and bool(cost.xp.all(cost.xp.isfinite(results[-1].g)))
        status = run.solve(_start(results[-1] if whole else start, problem))
        results.append(warn_or_raise(run.result(status), options.on_failure, what=f"sinkhorn of column {column}"))
    return tuple(results)


def _start(start: Any, problem: Problem) -> Any:
    """The potential g to begin at; None for none."""
    if start is None:
        return None
    f, g = start
    for potential, size, name in ((f, problem.whole.shape[0], "f"), (g, problem.whole.shape[1], "g")):
        if tuple(potential.shape) != (size,):
            raise ValueError(f"start must hold {name} of shape ({size},), got {tuple(potential.shape)}")
    xp = problem.cost.xp
    _, g = problem.restricted(xp.astype(f, xp.float64), xp.astype(g, xp.float64))
    if not bool(xp.all(xp.isfinite(g))):
        raise ValueError("start must be finite where b has mass, got NaN or infinity in g; leave it out")
    return g


@dataclass
class _Run:
    """The state of a solve: the best point, and how it got there."""

    problem: Problem
    options: Options
    point: Any = None  # of type Point, once there is one
    best: Any = None
    latest: str = "log"
    n_iter: int = 0
    n_newton: int = 0
    stopped: bool = False
    history: list[TransportStep] = field(default_factory=list)

    def solve(self, g: Any) -> Status:
        """Anneal, sweep and step until the tolerance; how it ended."""
        problem, options = self.problem, self.options
        if g is None:
            g = problem.cost.xp.zeros(problem.cost.shape[1], dtype=problem.cost.xp.float64, device=problem.cost.device)
            g = self._anneal(g)
        may_step = options.method in ("auto", "newton") and problem.cost.has_entries
        status = self._sweep(self._sweeper(), g, options.most_sweeps, judged=may_step)
        for _ in range(MOST_NEWTON_FAILURES):
            if status is not None:
                return status
            status = self._newton()
            if status is None:  # steps failed: sweeps lead elsewhere
                status = self._sweep(self._sweeper(), self.point.g, options.warmup, judged=False)
                status = None if status is Status.MAX_ITER and not self.stopped else status
        return (
            status or self._sweep(self._sweeper(), self.point.g, options.most_sweeps, judged=False) or Status.MAX_ITER
        )

    def _sweeper(self) -> Any:
        cost, method = self.problem.cost, self.options.method
        small = cost.is_stored and 8 * cost.shape[0] * cost.shape[1] <= STORED_BYTES
        stores = method == "sinkhorn" or (method in ("auto", "newton") and small)
        kind = ScalingSweeps if stores and cost.has_entries else LogSweeps
        return kind(cost, self.problem.a, self.problem.reg)

    def _anneal(self, g: Any) -> Any:
        """Sweeps at larger regularisations; the g that they lead to."""
        problem = self.problem
        for level in levels(problem.cost, problem.reg, STEEPNESS) if self.options.eps_scaling else ():
            sweeps = LogSweeps(problem.cost, problem.a, level)
            mixing = Mixing(problem.b, problem.cost.xp, DEPTH)
            for _ in range(ANNEALING_SWEEPS):
                point = self._point(sweeps, g)
                self._record(point, "sweep", level)
                if self.stopped or not math.isfinite(point.error):
                    return g
                change = column_change(problem.cost, problem.b, point.f, g, point.sums, level)
                g = mixing.next(g, change)
                if point.error <= ANNEALED:
                    break
        return g

    def _point(self, sweeps: Any, g: Any) -> Point:
        f, sums = sweeps(g)
        xp, problem = self.problem.cost.xp, self.problem
        error = float(xp.sum(xp.abs(sums - problem.b)))
        rows, columns = float(xp.sum(problem.a * f)), float(xp.sum(problem.b * g))
        return Point(f, g, sums, error, rows + columns, BLUR * (abs(rows) + abs(columns)))

    def _record(self, point: Point, method: str, reg: float, **extra: Any) -> None:
        if method == "newton":
            self.n_newton += 1
        else:
            self.n_iter += 1
        step = TransportStep(method, reg, point.error, point.dual, **extra)
        self.history.append(step)
        if self.options.callback is not None and self.options.callback(step) is True:
            self.stopped = True

    def _sweep(self, sweeps: Any, g: Any, most: int, judged: bool) -> Status | None:
        """Mixed sweeps from g; None when, if `judged`, Newton steps are the better choice.

        A plain sweep never lowers the dual.  A mixed one that does is dropped for the plain sweep in its place.
        """
        problem, goal, stale = self.problem, MARGIN * self.options.tol, 0
        mixing = Mixing(problem.b, problem.cost.xp, DEPTH)
        errors: list[float] = []
        for n in range(1, most + 1):
            point, last = self._point(sweeps, g), self.point
            self._record(point, "sweep", problem.reg)
            if point.error <= goal:
                self._move(point, sweeps.name)
                return Status.CONVERGED
            if point.is_finite and (last is None or not point.is_worse(last)):
                stale = 0 if last is None or point.is_better(last) else stale + 1
                self._move(point, sweeps.name)
                errors.append(point.error)
            elif mixing.points:
                mixing.forget()
            else:  # a plain sweep can't do better, or the start is of no use
                return Status.STAGNATED if point.is_finite else Status.NONFINITE
            if self.stopped:
                return Status.MAX_ITER
            if judged and self._is_slow(n, errors, goal):
                return None
            if stale > STALE:
                return Status.STAGNATED
            point = self.point
            change = column_change(problem.cost, problem.b, point.f, point.g, point.sums, problem.reg)
            g = mixing.next(point.g, change)
        return Status.MAX_ITER

    def _move(self, point: Point, name: str) -> None:
        """Make the point the current one, and the best where its error is the lowest."""
        self.point = point
        if self.best is None or point.error <= self.best.error:
            self.best, self.latest = point, name

    def _is_slow(self, n: int, errors: list[float], goal: float) -> bool:
        """Whether the sweeps to come, at the pace of the last few, are more than Newton steps would cost."""
        if self.options.method == "newton":
            return n >= self.options.warmup
        if n >= self.options.warmup and len(errors) <= WINDOW:
            return True
        if n < LEAST_LOOKED_AT or len(errors) <= WINDOW:
            return False
        pace = (errors[-1] / errors[-1 - WINDOW]) ** (1 / WINDOW)
        needed = math.log(goal / errors[-1]) / math.log(pace) if pace < 1 else math.inf
        return needed > (PATIENCE if n >= self.options.warmup else HOPELESS)

    def _newton(self) -> Status | None:
        """Newton steps from the current point; None when one fails."""
        problem, options = self.problem, self.options
        rule, goal = Rule(options.sparsify, options.topk_factor), MARGIN * options.tol
        sweeps = LogSweeps(problem.cost, problem.a, problem.reg)
        while self.n_newton < options.most_newton:
            point = self.point
            found = newton_direction(
                problem.cost, problem.a, problem.b, point.f, point.g, point.sums, problem.reg, point.error, rule
            )
            length, moved = self._line_search(sweeps, point, found.step)
            self._record(
                point, "newton", problem.reg, density=found.density, n_inner=found.n_inner, direct=found.direct,
                length=length,
            )  # fmt: skip
            if moved is None:
                return None
            self._move(self._refilled(sweeps, moved), "newton")
            if self.point.error <= goal:
                return Status.CONVERGED
            if self.stopped:
                return Status.MAX_ITER
        return Status.MAX_ITER

    def _refilled(self, sweeps: Any, point: Point) -> Point:
        """The point after a plain sweep where a step has all but emptied a column: the Hessian would not know it."""
        problem = self.problem
        if bool(self.problem.cost.xp.all(point.sums > EMPTIED * problem.b)):
            return point
        change = column_change(problem.cost, problem.b, point.f, point.g, point.sums, problem.reg)
        swept = self._point(sweeps, point.g + change)
        self._record(point, "sweep", problem.reg)
        return swept

    def _line_search(self, sweeps: Any, point: Point, step: Any) -> tuple[float, Point | None]:
        """The first of 1, 1/2, 1/4, ... times the step that raises the dual, and where it leads."""
        xp, problem = self.problem.cost.xp, self.problem
        slope, length = float(xp.sum(step * (problem.b - point.sums))), 1.0
        if not slope > 0:
            return 0.0, None
        for _ in range(SHORTEST):
            moved = self._point(sweeps, point.g + length * step)
            if moved.is_finite and moved.dual >= point.dual + ARMIJO * length * slope - point.blur - moved.blur:
                return self._longer(sweeps, point, step, length, moved)
            length /= 2
        return 0.0, None

    def _longer(self, sweeps: Any, point: Point, step: Any, length: float, moved: Point) -> tuple[float, Point]:
        """Steps of twice, four times the length and so on while they halve the error, where a whole step is short.

        Where a group of entries has too much mass, a Newton step takes it down by a factor of e, whatever is needed.
        """
        while 1.0 <= length < LONGEST and moved.error > SHORT_OF * point.error:
            further = self._point(sweeps, point.g + 2 * length * step)
            if not further.is_finite or further.is_worse(moved) or further.error > 0.5 * moved.error:
                break
            length, moved = 2 * length, further
        return length, moved

    def result(self, status: Status) -> TransportResult:
        """The result at the best point, with what is measured there."""
        problem, point = self.problem, self.best
        xp = problem.cost.xp
        if point is None:  # interrupted while annealing: the plan of no potentials
            zero = xp.zeros(problem.cost.shape[1], dtype=xp.float64, device=problem.cost.device)
            point = self._point(LogSweeps(problem.cost, problem.a, problem.reg), zero)
        middle = float(xp.sum(point.g * problem.b))
        f, g = point.f + middle, point.g - middle
        rows, columns, prices = problem.cost.sums(f, g, problem.reg)
        error = float(xp.sum(xp.abs(rows - problem.a))) + float(xp.sum(xp.abs(columns - problem.b)))
        if not math.isfinite(error):
            status = Status.NONFINITE
        elif status is Status.CONVERGED and error > self.options.tol:
            status = Status.STAGNATED
        elif error <= self.options.tol and status in (Status.MAX_ITER, Status.STAGNATED):
            status = Status.CONVERGED
        if status is Status.NONFINITE:  # of factors it says that their kernel is too coarse
            status = problem.cost.failure
        mass, reg = problem.mass, problem.reg
        f, g = problem.restored(f, g)
        a, b = problem.masses()
        return TransportResult(
            f, g, a, b, cost=mass * float(xp.sum(prices)),
            value=mass * (point.dual + reg * math.log(mass)), marginal_error=error, reg=reg,
            method=self.latest, n_iter=self.n_iter, n_newton=self.n_newton, history=tuple(self.history),
            plan=TransportPlan(problem.whole, f, g, reg), status=status,
        )  # fmt: skip
