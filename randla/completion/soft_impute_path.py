"""Completions for a falling sequence of nuclear-norm penalties, and which of them entries held out speak for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .._checks import check_choice, check_integer, check_real
from .._random import as_key
from .._results import Result, Status, warn_or_raise
from ..traces.norms import norm_estimate
from .factors import check_range, residuals, squares
from .maps import SparsePlusLowRank
from .nuclear import METHODS, Descent, Limits, Problem, Triplets
from .observations import Observations, as_observations, hold_out
from .results import CompletionStep
from .soft_impute import SoftImputeResult, as_result


@dataclass(frozen=True, repr=False)
class SoftImputePath(Result):
    """Completions along a path of penalties; iterates as ``(result,)``.

    Attributes
    ----------
    result : SoftImputeResult
        The completion for the chosen penalty, fitted to all entries.
    regs : tuple of float
        The penalties, descending, as far as the path was followed.
    results : tuple of SoftImputeResult
        The completions on the way, fitted without the entries held out.
    validation_errors : tuple of float
        Root mean square errors of the entries held out; empty where none are.
    validation_bounds : tuple of float
        What one standard error of the mean square makes of them.
    best : int
        The place of the least error on the path.
    chosen : int
        The place of the largest penalty whose error is within one standard error of that.
    status : Status
        That of `result`, or the first one on the path that is not CONVERGED.
    """

    result: SoftImputeResult
    regs: tuple[float, ...]
    results: tuple[SoftImputeResult, ...]
    validation_errors: tuple[float, ...]
    validation_bounds: tuple[float, ...]
    best: int
    chosen: int
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("result",)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the completions on the path."""
        return tuple(result.rank for result in self.results)


def soft_impute_path(
    X: Any, regs: Sequence[float] | None = None, *, n_regs: int = 20, reg_ratio: float = 1e-3,
    validation_fraction: float = 0.1, n_iter_no_change: int | None = 3, max_rank: int | None = None,
    method: str = "auto", tol: float = 1e-3, max_iter: int = 300, debias: bool = False, rng: Any = None,
    callback: Callable[[CompletionStep], Any] | None = None, on_failure: str = "warn",
) -> SoftImputePath:  # fmt: skip
    """Complete a matrix for a falling sequence of nuclear-norm penalties and choose one by entries held out.

    Each completion starts from that for the penalty before, and the rank grows on the way.  The chosen penalty is the
    largest one whose held-out error is within one standard error of the least, and is fitted again to all entries.

    Parameters
    ----------
    X : sparse matrix, or array with NaN, shape (m, n)
        The observed entries, as in `soft_impute`.
    regs : sequence of float, optional
        The penalties; by default `n_regs` in geometric progression from the spectral norm of the entries, where the
        completion is zero, to `reg_ratio` of it.
    n_regs : int, n_regs >= 2, default 20
    reg_ratio : float in (0, 1), default 1e-3
    validation_fraction : float in [0, 1), default 0.1
        Share of the entries, drawn at random, that is held out.  With 0 the smallest penalty is chosen.
    n_iter_no_change : int, n_iter_no_change >= 1, or None, default 3
        Leave the path after so many penalties in a row without a smaller error; None follows it to its end, where
        completions have the largest ranks and take the most time.
    max_rank, method, tol, max_iter
        As in `soft_impute`, for each penalty; the chosen one is fitted to a tenth of `tol`.
    debias : bool, default False
        Whether to fit the singular values again, for the errors and for the result; the path itself goes on from those
        before.
    rng : None, int, SeedSequence, Generator or Key
        Source of the entries held out, and as in `soft_impute`.
    callback : callable, optional
        Called with a `CompletionStep` after each penalty, `n_iter` its place and the objective its own; returning True
        ends the path.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    SoftImputePath
        ``result`` and what led to it.

    Raises
    ------
    ValueError
        If an entry is stored twice or infinite, nothing is observed or everything is zero, or a parameter is out of
        range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    The standard error is that of a mean over the entries held out, as if they were independent; entries of one row are
    not quite, so it is somewhat low.  The error of the chosen penalty is low as well, as the least of several; for one
    that is not, hold out other entries first.

    References
    ----------
    .. [1] Mazumder, Hastie and Tibshirani, "Spectral regularization algorithms for learning large incomplete matrices",
       J. Mach. Learn. Res. 11 (2010).

    Examples
    --------
    >>> import numpy as np
    >>> from randla import soft_impute_path
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 50)) + 0.1 * rng.standard_normal((60, 50))
    >>> path = soft_impute_path(np.where(rng.random(A.shape) < 0.6, A, np.nan), rng=0)
    >>> bool(path.regs[path.chosen] < 0.2 * path.regs[0]), path.results[0].rank
    (True, 0)
    """
    observed = as_observations(X)
    n_regs = check_integer(n_regs, "n_regs", low=2)
    ratio = check_real(reg_ratio, "reg_ratio", low=0.0, high=1.0, closed="neither")
    fraction = check_real(validation_fraction, "validation_fraction", low=0.0, high=1.0, closed="left")
    patience = None if n_iter_no_change is None else check_integer(n_iter_no_change, "n_iter_no_change", low=1)
    check_choice(method, "method", METHODS)
    least = min(observed.shape)
    cap = least if max_rank is None else min(check_integer(max_rank, "max_rank", low=1), least)
    limits = Limits(
        method, cap, check_real(tol, "tol", low=0.0, closed="neither"), check_integer(max_iter, "max_iter", low=0)
    )
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    given = None if regs is None else _descending(regs)
    check_range(observed)
    if squares(observed.data) == 0.0:
        raise ValueError("X must have an observed entry that is not zero, got none")
    key = as_key(rng).fold("soft_impute_path")
    fitted, held = (observed, None) if fraction == 0.0 else hold_out(observed, fraction, key)
    problem = Problem(fitted, key)
    values = _geometric(problem, n_regs, ratio) if given is None else given
    walk = _Walk(problem, held, limits, bool(debias), patience)
    walk.follow(values, callback)
    best, chosen = walk.choice()
    whole = problem if held is None else Problem(observed, key)
    sharp = limits._replace(tol=0.1 * limits.tol)
    outcome = Descent(whole, values[chosen], sharp).run(walk.points[chosen])
    result = as_result(whole, outcome, values[chosen], bool(debias))
    told = [r.status for r in (result, *walk.results) if r.status is not Status.CONVERGED]
    path = SoftImputePath(
        result, tuple(values[: len(walk.results)]), tuple(walk.results),
        tuple(math.sqrt(mean) for mean in walk.means),
        tuple(math.sqrt(mean + error) for mean, error in zip(walk.means, walk.errors, strict=True)), best, chosen,
        told[0] if told else Status.CONVERGED,
    )  # fmt: skip
    return warn_or_raise(path, on_failure, what="soft_impute_path")


def _descending(regs: Sequence[float]) -> list[float]:
    values = sorted((check_real(reg, "regs", low=0.0, closed="neither") for reg in regs), reverse=True)
    if not values:
        raise ValueError("regs must have a penalty, got none")
    return values


def _geometric(problem: Problem, n_regs: int, ratio: float) -> list[float]:
    top = norm_estimate(SparsePlusLowRank(problem.observed), 2, rng=problem.key.fold("largest")).upper
    return [top * ratio ** (i / (n_regs - 1)) for i in range(n_regs)]


class _Walk:
    """The path so far: points to go on from, completions, and mean squares of the entries held out."""

    def __init__(
        self, problem: Problem, held: Observations | None, limits: Limits, debias: bool, patience: int | None
    ) -> None:
        self.problem, self.held, self.limits, self.debias, self.patience = problem, held, limits, debias, patience
        self.points: list[Triplets] = []
        self.results: list[SoftImputeResult] = []
        self.means: list[float] = []
        self.errors: list[float] = []

    def follow(self, regs: Sequence[float], callback: Callable[[CompletionStep], Any] | None) -> None:
        """Complete for one penalty after the other until the end, or until the errors no longer fall."""
        for place, reg in enumerate(regs):
            outcome = Descent(self.problem, reg, self.limits).run(self.points[-1] if self.points else None)
            result = as_result(self.problem, outcome, reg, self.debias)
            self.points.append(outcome.point)
            self.results.append(result)
            error = self._validated(result)
            told = CompletionStep(place + 1, result.objective, result.error, error)
            stop = callback is not None and callback(told) is True
            late = self.patience is not None and self.means and place - self._best() >= self.patience
            if stop or late or outcome.status is Status.NONFINITE:
                break

    def _validated(self, result: SoftImputeResult) -> float:
        if self.held is None or self.held.nnz == 0:
            return math.nan
        xp = self.problem.xp
        each = xp.astype(residuals(self.held, result.row_factors, result.col_factors), xp.float64) ** 2
        mean = float(xp.mean(each))
        self.means.append(mean)
        self.errors.append(math.sqrt(float(xp.mean((each - mean) ** 2)) / max(self.held.nnz - 1, 1)))
        return math.sqrt(mean)

    def _best(self) -> int:
        return min(range(len(self.means)), key=self.means.__getitem__)

    def choice(self) -> tuple[int, int]:
        """The place of the least mean square, and the first one within a standard error of it."""
        if not self.means:
            return len(self.results) - 1, len(self.results) - 1
        best = self._best()
        bound = self.means[best] + self.errors[best]
        return best, next(i for i, mean in enumerate(self.means) if mean <= bound)
