"""Recovery from measurements with gross outliers: subgradients of the absolute loss from a small start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import from_host
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, Stream, as_key
from .._results import Status, warn_or_raise
from .intake import Problem, checked_problem, given_factors, leading, norm
from .measurements import EntryMeasurements
from .results import RecoveryResult

_NORMAL = 1.4826  # standard deviation of a normal variable over the median of its modulus
_CUTOFF = 5.0  # outliers lie beyond this many standard deviations: of 1e6 normal residuals less than one does
_SHORTEST, _LONGEST = 30, 300  # steps without progress before the step size shrinks
_PROGRESS = 0.9  # the median has to fall below this multiple of its best to count as progress
_WORTHLESS = 0.5  # a median residual above this share of the median of |y| explains nothing
STRUCTURES = ("general", "psd")
SCHEDULES = ("auto", "residual", "geometric")
_DECAYS = {"residual": 0.9, "geometric": 0.99}


@dataclass(frozen=True)
class SubgradientStep:
    """What a callback is told at each step of `subgradient_recovery`.

    Attributes
    ----------
    n_iter : int
        Steps done.
    error : float
        Median of ``|residual|`` over that of ``|y|``.
    step : float
        Step size that comes next.
    U, V : arrays
        The factors so far; not to be changed.
    """

    n_iter: int
    error: float
    step: float
    U: Any
    V: Any


def subgradient_recovery(
    measurements: Any, y: Any, rank: int, *, structure: str = "general", shape: tuple[int, int] | None = None,
    schedule: str = "auto", step: float = 0.5, decay: float | None = None, init_scale: float = 1e-6,
    init: Any = "spectral", patience: int | None = None, holdout: float = 0.0, max_iter: int = 2000, tol: float = 1e-6,
    rng: Any = None, callback: Callable[[SubgradientStep], Any] | None = None, on_failure: str = "warn",
) -> RecoveryResult:  # fmt: skip
    """Recover a low-rank matrix from linear measurements of which a part is grossly wrong.

    Lowers ``mean |<A_i, U V^T> - y_i|`` by subgradient steps from tiny factors.  `rank` may be above the true one: the
    surplus directions start at `init_scale` and stay small.  A step costs the residual and one adjoint, O(m d1 d2) for
    dense A_i and O(m rank) for entries.  Without outliers `factorized_gd` needs fewer steps.

    Parameters
    ----------
    measurements : measurements, array (m, d1, d2), matrix (m, d1 d2) or LinearOperator
        `GaussianMeasurements`, `RankOneMeasurements`, `EntryMeasurements`, `DenseMeasurements`, or any object with
        `shape`, `n_measurements`, `apply(X)` and `adjoint(y)`, which may have `apply_factors(U, V)`,
        `adjoint_times(y, V)` and `adjoint_rtimes(y, U)` as well.  Matrices and operators act on the rows of X one after
        the other.
    y : array, shape (m,)
        Measured numbers, real; they are not changed.
    rank : int, 1 <= rank <= min(d1, d2)
        Columns of the factors, at least the rank of the matrix.
    structure : {"general", "psd"}, default "general"
        "psd": the matrix is positive semidefinite, ``U U^T``, which takes half of the measurements.
    shape : tuple of int, (d1, d2), optional
        Shape of the matrix, for measurements by a matrix or operator; default a square.
    schedule : {"auto", "residual", "geometric"}, default "auto"
        "residual": the step is proportional to the median residual, and shrinks by `decay` once that has stopped
        falling.  "geometric": ``step * decay**t``.  "auto" takes the second for `EntryMeasurements`, where half of the
        entries can fit while whole rows are still wrong, and the first else.
    step : float, step > 0, default 0.5
        First step size.  It has no unit: a step multiplies the factors by ``1 - 2 step S`` with S of norm about 0.8.
    decay : float, 0 < decay < 1, optional
        Default 0.9 for "residual", 0.99 for "geometric".
    init_scale : float, 0 < init_scale <= 1, default 1e-6
        Norm of the factors at the start, relative to that of the factors that are looked for.
    init : "spectral", pair of arrays, shapes (d1, rank) and (d2, rank), or result, default "spectral"
        Start; `init_scale` is for "spectral".  With "psd" the first factor is enough, and all that counts.
    patience : int, patience >= 1, optional
        Steps in which the median residual must fall by a tenth, or be taken to have stopped.  Default: as many as a
        direction needs that grows from `init_scale` to the residual, between 30 and 300.
    holdout : float, 0 <= holdout < 1, default 0.0
        Share of the measurements, drawn from `rng`, that is not used and tells the error.
    max_iter : int, max_iter >= 0, default 2000
    tol : float, tol >= 0, default 1e-6
        Stop when a step changes the factors by at most this share of their norm.
    rng : None, int, SeedSequence, Generator or Key
        Source of the held-out measurements, and of a sketch where d1 d2 is above a million.
    callback : callable, optional
        Called with a `SubgradientStep` before each step; returning True ends the iteration with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    RecoveryResult
        ``U`` (d1, rank) and ``V`` (d2, rank), the median residual, its history, and which measurements are outliers;
        iterates as ``U, V``.

    Raises
    ------
    ValueError
        If shapes do not fit, y is complex, a matrix to be "psd" is not square, or a parameter is out of range.
    TypeError
        If the measurements are of no known kind.

    Notes
    -----
    Proved for Gaussian A_i and the structure "psd" [1]_: with gross errors, and a number of measurements that does not
    grow with `rank`, the iterates come near the matrix in a number of steps proportional to ``log(1 / init_scale)``,
    with an error that falls with `init_scale`.  Entries and rank-one measurements are not covered.  The guide has what
    was observed.

    `error` is the median of ``|residual|`` over that of ``|y|``.  For Gaussian A_i without noise this is about
    ``||U V^T - X||_F / ||X||_F``, whatever the share of outliers below one half.  Where rank (d1 + d2) comes near the
    number of measurements the residuals can be fitted and say less; `holdout` tells then.  Outliers are beyond 5
    standard deviations, estimated from the median of those that are not and that the fit does not make zero by itself.

    Deviations: (1) the step sizes are not those of the proof, but were chosen by experiment; (2) they are not divided
    by the root of the norm of the matrix, since the subgradient grows with the factors as they do: the norm, from the
    median of ``|y|``, sets the size of the start only; (3) "general" is the method on the symmetric matrix with blocks
    X and X^T, of which [1]_ says nothing; (4) A_i are scaled as if their entries had mean square one.

    A status CONVERGED says that the step has become small while the median residual had stopped falling or vanished
    ("residual"), or only that it became small ("geometric").  BREAKDOWN says that the median residual is above half of
    the median of ``|y|``.  A direction smaller than the others by more than the residual at which progress stops is
    taken for noise: raise `patience` or `init_scale` for ill-conditioned matrices.

    References
    ----------
    .. [1] Ma and Fattahi, "Global convergence of sub-gradient method for robust matrix recovery: small initialization,
       noisy measurements, and over-parameterization", arXiv:2202.08788.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> L = rng.standard_normal((20, 2))
    >>> A = randla.GaussianMeasurements((20, 20), 400, rng=0)
    >>> y = A.apply(L @ L.T)
    >>> y[:40] += 1000 * rng.standard_normal(40)
    >>> result = randla.subgradient_recovery(A, y, 4, structure="psd")
    >>> bool(np.linalg.norm(result.to_dense() - L @ L.T) < 1e-3 * np.linalg.norm(L @ L.T)), result.outlier_share
    (True, 0.1)
    """
    check_choice(structure, "structure", STRUCTURES)
    check_choice(schedule, "schedule", SCHEDULES)
    step = check_real(step, "step", low=0.0, closed="neither")
    decay = None if decay is None else check_real(decay, "decay", low=0.0, high=1.0, closed="neither")
    init_scale = check_real(init_scale, "init_scale", low=0.0, high=1.0, closed="right")
    patience = None if patience is None else check_integer(patience, "patience", low=1)
    holdout = check_real(holdout, "holdout", low=0.0, high=1.0, closed="left")
    max_iter, tol = check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0)
    key = as_key(rng).fold("subgradient_recovery")
    problem = checked_problem(measurements, y, shape, key)
    d1, d2 = problem.A.shape
    rank = check_integer(rank, "rank", low=1, high=min(d1, d2))
    if structure == "psd" and d1 != d2:
        raise ValueError(f'shape must be square for structure="psd", got {(d1, d2)}')
    run = _Run(problem, structure == "psd", key, holdout)
    if isinstance(init, str):
        check_choice(init, "init", ("spectral",))
        start = run.spectral(rank, init_scale, key.fold("start"))
    else:
        start = given_factors((init, init) if structure == "psd" and _single(init) else init, problem, rank)
        start = (start[0], start[0]) if structure == "psd" else start
    if schedule == "auto":
        schedule = "geometric" if isinstance(problem.A, EntryMeasurements) else "residual"
    plan = _Plan(schedule, step, decay or _DECAYS[schedule], patience, init_scale, max_iter, tol, callback)
    return warn_or_raise(run.go(*start, plan), on_failure, what="subgradient_recovery")


def _single(init: Any) -> bool:
    """True for one factor in place of two, which is enough for a positive semidefinite matrix."""
    return len(getattr(init, "shape", ())) == 2 and not isinstance(init, RecoveryResult)


@dataclass(frozen=True)
class _Plan:
    """How steps shrink and when they end."""

    schedule: str
    step: float
    decay: float
    patience: int | None
    init_scale: float
    max_iter: int
    tol: float
    callback: Callable[[SubgradientStep], Any] | None


class _Schedule:
    """The step size after each look at the median residual."""

    def __init__(self, plan: _Plan) -> None:
        self.plan, self.best, self.since, self.damping, self.started = plan, 1.0, 0, 1.0, False

    def size(self, n_iter: int, error: float) -> float:
        plan = self.plan
        if plan.schedule == "geometric":
            return plan.step * plan.decay**n_iter
        size = plan.step * min(1.0, error)
        if error < _PROGRESS * self.best:
            self.best, self.since, self.damping, self.started = error, 0, 1.0, True
        else:
            self.since += 1
        if self.since > self._patience(size):
            self.damping *= plan.decay
        return size * self.damping

    def _patience(self, size: float) -> float:
        if self.plan.patience is not None:
            return self.plan.patience
        # a direction grows by 1 + 2 * 0.8 * size a step: sqrt(2 / pi) = 0.8 is the mean of |N(0, 1)|
        growth = math.log(1.0 / self.plan.init_scale) / (1.6 * max(size, 1e-300))
        if not self.started:  # outliers and many directions slow the first growth: ten times as long
            return _SHORTEST + 10.0 * growth
        return max(_SHORTEST, min(_LONGEST, growth))


class _Run:
    """One recovery: the problem, its training weights, and the iteration."""

    def __init__(self, problem: Problem, psd: bool, key: Key, holdout: float) -> None:
        self.problem, self.psd, self.xp = problem, psd, array_namespace(problem.y)
        xp, m = self.xp, problem.A.n_measurements
        self.used: Any = None
        if holdout > 0.0:
            draws = kernel("uniforms_at", np)(key.fold("holdout"), Stream.SAMPLE, np.arange(m))
            self.used = from_host(draws, xp, problem.y) >= holdout
        self.told = xp.arange(m, device=device_of(problem.y)) if self.used is None else xp.nonzero(~self.used)[0]
        self.kind = "median" if self.used is None else "held-out"
        n_used = m if self.used is None else int(xp.sum(xp.astype(self.used, xp.int64)))
        if n_used == 0 or self.told.shape[0] == 0:
            raise ValueError(f"holdout must leave measurements on both sides, got {holdout} of {m}")
        self.mean = 1.0 / (n_used * problem.unit)
        size = self._median(xp.abs(xp.take(problem.y, self.told)))
        # more than half of the numbers zero: what is not zero tells the scale
        nonzero = problem.y[xp.abs(problem.y) > 0] if size == 0.0 else problem.y
        self.size = size if size > 0.0 or nonzero.shape[0] == 0 else self._median(xp.abs(nonzero))
        self.norm = _NORMAL * self.size / problem.unit  # about ||X||_F

    def _median(self, values: Any, skipped: int = 0) -> float:
        """The median without the `skipped` least values."""
        xp, middle = self.xp, (values.shape[0] + skipped) // 2
        ordered = xp.partition(values, middle) if hasattr(xp, "partition") else xp.sort(values)
        return float(ordered[middle])

    def _signs(self, r: Any, rows: slice) -> Any:
        xp = self.xp
        s = xp.sign(r)
        return s if self.used is None else xp.where(self.used[rows], s, xp.zeros_like(s))

    def spectral(self, rank: int, scale: float, key: Key) -> tuple[Any, Any]:
        """Factors of the leading part of ``mean sign(y_i) A_i``, of the given norm relative to that of the solution."""
        xp, y = self.xp, self.problem.y
        if bool(xp.any(y != y)):  # NaN: nothing to decompose, and the first look ends the iteration
            return tuple(xp.zeros((d, rank), dtype=y.dtype, device=device_of(y)) for d in self.problem.A.shape)
        everything = slice(0, self.problem.A.n_measurements)
        P, s, Q = leading(self.problem.A, self.mean * self._signs(y, everything), rank, key, symmetric=self.psd)
        root = xp.sqrt(s)[None, :]
        length = norm(root)
        factor = scale * math.sqrt(self.norm) / length if length > 0.0 else 0.0
        return factor * root * P, factor * root * Q

    def subgradient(self, U: Any, V: Any) -> tuple[Any, Any, Any]:
        """The residual and the two blocks of the direction, ``(S + S^T) U`` or ``2 S V`` and ``2 S^T U``."""
        r, left, right = self.problem.A._sweep(U, V, self.problem.y, self._signs)
        if self.psd:
            D = self.mean * (left + right)
            return r, D, D
        return r, 2.0 * self.mean * left, 2.0 * self.mean * right

    def error(self, r: Any) -> float:
        return self._median(self.xp.abs(self.xp.take(r, self.told))) / self.size

    def go(self, U: Any, V: Any, plan: _Plan) -> RecoveryResult:
        xp = self.xp
        if self.size == 0.0:  # y is zero, and so is the matrix
            U, V = 0.0 * U, 0.0 * V
            return self.result(U, V, xp.zeros_like(self.problem.y), [0.0], 0, Status.CONVERGED)
        sizes, history, status = _Schedule(plan), [], Status.MAX_ITER
        good = U, V, xp.zeros_like(self.problem.y)
        for n_iter in range(plan.max_iter + 1):
            r, D, E = self.subgradient(U, V)
            error = self.error(r)
            slope, length = norm(D, E), norm(U, V)
            if not (math.isfinite(error) and math.isfinite(slope)):
                status = Status.NONFINITE
                break
            good = U, V, r
            history.append(error)
            size = sizes.size(n_iter, error)
            stop = plan.callback is not None and plan.callback(SubgradientStep(n_iter, error, size, U, V)) is True
            if size * slope <= plan.tol * length:
                status = Status.CONVERGED if error <= _WORTHLESS else Status.BREAKDOWN
                break
            if stop or n_iter == plan.max_iter:
                break
            # step 2 of [1]
            U, V = (U - size * D, V - size * E) if not self.psd else (U - size * D,) * 2
        return self.result(*good, history, max(0, len(history) - 1), status)

    def result(self, U: Any, V: Any, r: Any, history: list[float], n_iter: int, status: Status) -> RecoveryResult:
        xp, distance = self.xp, self.xp.abs(r)
        error = history[-1] if history else math.nan
        told = RecoveryResult(
            U, V, error, self.kind, math.nan, distance != distance, 0.0, n_iter, tuple(history), status
        )
        if status is Status.NONFINITE:
            return told
        fitted = self._fitted(told)
        mask = told.outliers  # none so far
        for _ in range(4):  # fewer outliers in the median, a smaller scale, and again: settles in two or three
            kept = distance[~mask]
            scale = _NORMAL * self._median(kept, min(fitted, kept.shape[0] // 2))
            mask = distance > _CUTOFF * scale
        share = float(xp.mean(xp.astype(mask, xp.float64)))
        return replace(told, residual_scale=scale, outliers=mask, outlier_share=share)

    def _fitted(self, told: RecoveryResult) -> int:
        """How many residuals the absolute loss makes nearly zero by itself: the numbers that the factors can choose."""
        xp, s = self.xp, told.singular_values()
        # directions below the error are no fit of anything
        rank = int(xp.sum(xp.astype(s > told.error * norm(s), xp.int64)))
        d1, d2 = told.shape
        return rank * d1 - rank * (rank - 1) // 2 if self.psd else rank * (d1 + d2 - rank)
