"""Completion by alternating least squares, with biases, robust losses, entries held out, and states on disk."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import as_matrix, check_together, is_sparse
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, interrupted_with, warn_or_raise
from ..lowrank.results import ON_FAILURE
from .als_checkpoint import Checkpoint, fingerprint
from .als_start import started
from .als_state import Problem, State
from .losses import median, robust_scale
from .observations import Observations, as_observations, hold_out
from .results import LOSSES, CompletionResult, CompletionStep, Settings, Training

SOLVERS = ("auto", "cholesky", "cg")
INITS = ("random", "svd")
_DIRECT_WIDTH = 32  # unknowns of a row up to which factorising its system costs about as much as a few steps
_NORMAL_95 = 1.959963984540054  # quantile of the normal distribution for intervals of 95 %


def complete(
    X: Any, rank: int, *, reg: float = 0.1, reg_exponent: float = 1.0, bias: bool = True, reg_bias: float | None = None,
    loss: str = "squared", loss_scale: float | None = None, weights: Any = None, solver: str = "auto", init: Any = None,
    validation_fraction: float = 0.0, n_iter_no_change: int = 2, max_iter: int = 30, tol: float = 1e-4,
    checkpoint: str | os.PathLike[str] | None = None, rng: Any = None,
    callback: Callable[[CompletionStep], Any] | None = None, on_failure: str = "warn",
) -> CompletionResult:  # fmt: skip
    """Fit a matrix of low rank with biases to the observed entries of a matrix.

    Lowers the sum over observed (i, j) of ``loss(X_ij - mean - b_i - c_j - x_i . y_j)`` plus ``reg n_i**reg_exponent
    (|x_i|**2 + reg_bias / reg b_i**2)`` over the rows and the like over the columns, n_i the observed entries of row i,
    by least squares for all rows with the columns held, and for all columns with the rows held.  A sweep takes
    ``O(nnz k**2 + (m + n) k**3)`` with "cholesky" and ``O(nnz k)`` with "cg", and memory for a few numbers per entry.

    Parameters
    ----------
    X : sparse matrix, or array with NaN, shape (m, n)
        The entries that a sparse matrix stores are the observations, zeros too; of an array those that are not NaN.
    rank : int, 0 <= rank <= min(m, n)
        0 fits biases only.
    reg : float, reg >= 0, default 0.1
        Ridge, in the unit of X: entries times c want a ridge times c.
    reg_exponent : float, reg_exponent >= 0, default 1.0
        Power of the counts of entries that the ridge is multiplied with: 1 weighs all entries alike, 0 is a prior.
    bias : bool, default True
        Whether to fit a mean, and a bias of each row and column.
    reg_bias : float, reg_bias > 0, optional
        Ridge of the biases, `reg` by default.
    loss : {"squared", "huber", "absolute"}, default "squared"
        The others are for entries of which some are grossly wrong; they are minimised by reweighted least squares.
    loss_scale : float, loss_scale > 0, optional
        Standard deviation of the good residuals: "huber" bends at 1.345 of it.  By default their median absolute value
        tells it, after each of the first five sweeps; it is fixed from there on.
    weights : sparse matrix with the pattern of X, or array of shape (m, n), optional
        Nonnegative weight of each observed entry; a vector (nnz,) in the order of rows also does.
    solver : {"auto", "cholesky", "cg"}, default "auto"
        "cg": up to three steps of conjugate gradients for each row from its last solution, preconditioned by what
        rows have in common.  "auto" factorises up to a rank of 31.
    init : None, "svd", "random" or CompletionResult, default None
        "svd", the default: leading directions of the residuals of means.  A result of at most this rank is gone on
        from.
    validation_fraction : float, 0 <= validation_fraction < 1, default 0.0
        Share of the entries that are held out at random.  The fit ends after `n_iter_no_change` sweeps without a lower
        error of theirs, and the result is that of the sweep with the least: see `best_iter`.
    n_iter_no_change : int, n_iter_no_change >= 1, default 2
    max_iter : int, max_iter >= 0, default 30
        Sweeps.
    tol : float, tol >= 0, default 1e-4
        Stop when a sweep lowers the objective by at most this share of it; with entries held out, a lower error is one
        that is lower by more than this share.
    checkpoint : path, optional
        File that holds the state after each sweep.  Where it is there, the fit goes on from it, and ends with the same
        bits as one that was never stopped; it stays there afterwards.
    rng : None, int, SeedSequence, Generator or Key
        Source of the start and of what is held out.  None takes that of the checkpoint where there is one.
    callback : callable, optional
        Called with a `CompletionStep` after each sweep; the fit ends where it returns True.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    CompletionResult
        ``row_factors`` (m, rank) and ``col_factors`` (n, rank) with biases, errors and history.

    Raises
    ------
    ValueError
        If an entry is stored twice or not finite, a parameter is out of range, or a checkpoint is of another fit.
    TypeError
        If X is complex or not numeric.
    KeyboardInterrupt
        As it comes, with the last whole sweep as its attribute `result`.

    Notes
    -----
    After each sweep factors and biases are exchanged against one another such that no prediction changes and the ridge
    terms are least, which sweeps alone take hundreds of rounds for.  The objective never rises, for a fixed scale of
    the loss; a state that would, by rounding, is dropped, and the status is STAGNATED.  What is found is a stationary
    point: the problem is not convex.  A row without entries has zero factors and no bias.  With ``reg=0`` a row that
    its entries do not determine keeps its start.

    Results do not depend on the number of threads.  Systems are formed and solved in double precision, factors are in
    the dtype of X.  The unit of the held-out error of a robust loss is the root of the mean loss.

    References
    ----------
    .. [1] Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the Netflix prize",
       AAIM 2008.
    .. [2] Takács, Pilászy and Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative
       filtering", RecSys 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 50))
    >>> Z = np.where(rng.random(X.shape) < 0.5, X, np.nan)
    >>> fit = randla.complete(Z, 3, reg=1e-4, bias=False, tol=1e-8, rng=0)
    >>> bool(np.abs(fit.to_dense() - X).max() < 0.01), fit.converged
    (True, True)
    """
    observed = as_observations(X)
    rank = check_integer(rank, "rank", low=0, high=min(observed.shape))
    settings = _settings(observed, reg, reg_exponent, bias, reg_bias, loss, loss_scale)
    solver, init = _method(solver, init, rank, settings)
    fraction = check_real(validation_fraction, "validation_fraction", low=0.0, high=1.0, closed="left")
    limits = _Limits(max_iter, tol, n_iter_no_change)
    check_choice(on_failure, "on_failure", ON_FAILURE)
    weights = _entry_weights(weights, observed)
    saved = None if checkpoint is None else Checkpoint(checkpoint)
    key = saved.key if saved is not None and saved.key is not None and rng is None else as_key(rng)
    key = key or as_key(rng)

    with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the objective
        fitted, held, kept = _split(observed, weights, fraction, key.fold("complete"))
        problem = Problem(
            fitted, held, kept, rank, settings, _mean(fitted, kept, settings), loss_scale is not None, solver
        )
        print_ = b""
        if saved is not None:
            begun = tuple(init) if isinstance(init, CompletionResult) else ()
            words = f"{rank}|{settings!r}|{loss_scale is None}|{solver}|{fraction!r}|{key!r}|{None if begun else init}"
            print_ = fingerprint(observed, (weights, *begun), words)
        state = None if saved is None else saved.load(print_, fitted.data, problem.xp)
        state = started(problem, init, key.fold("complete")) if state is None else state
        keep = None if saved is None else lambda state: saved.save(state, key, print_)
        state, status = _iterate(problem, state, limits, keep, callback)
        result = _result(problem, state, status)
    return warn_or_raise(result, on_failure, what="complete")


# --- intake -----------------------------------------------------------------------------------------------------------


def _settings(
    observed: Observations, reg: Any, exponent: Any, bias: Any, reg_bias: Any, loss: str, scale: Any
) -> Settings:
    reg = check_real(reg, "reg", low=0.0)
    exponent = check_real(exponent, "reg_exponent", low=0.0)
    if bias not in (True, False):
        raise TypeError(f"bias must be True or False, got {bias!r}")
    column = 1.0 if bias else 0.0
    if reg_bias is not None:
        if not bias or reg == 0.0:
            raise ValueError(f"reg_bias must be None without biases and with reg=0, got {reg_bias!r}")
        column = math.sqrt(reg / check_real(reg_bias, "reg_bias", low=0.0, closed="neither"))
    check_choice(loss, "loss", LOSSES)
    if scale is not None:
        scale = check_real(scale, "loss_scale", low=0.0, closed="neither")
        if loss == "squared":
            raise ValueError(f'loss_scale must be None for loss="squared", got {scale!r}; squares have no scale')
    elif loss != "squared" and observed.nnz:
        scale = robust_scale(observed.data - median(observed.data, observed.xp), observed.xp)
    return Settings(reg, exponent, column, loss, 1.0 if scale is None else scale)


def _method(solver: str, init: Any, rank: int, settings: Settings) -> tuple[str, Any]:
    """The solver and the start that are meant."""
    check_choice(solver, "solver", SOLVERS)
    if solver == "auto":
        # measured on one core, 300 entries a row: 20 unknowns 30 ns an entry against 29 for three steps,
        # 33 unknowns 65 against 34, 65 unknowns 180 against 46; sweeps needed are the same
        solver = "cholesky" if rank + (settings.column != 0.0) <= _DIRECT_WIDTH else "cg"
    if init is None:
        return solver, "svd"
    return solver, init if isinstance(init, CompletionResult) else check_choice(init, "init", INITS)


class _Limits:
    """When to stop."""

    def __init__(self, max_iter: Any, tol: Any, patience: Any) -> None:
        self.max_iter = check_integer(max_iter, "max_iter", low=0)
        self.tol = check_real(tol, "tol", low=0.0)
        self.patience = check_integer(patience, "n_iter_no_change", low=1)

    def status(self, problem: Problem, state: State) -> Status | None:
        """How the fit ends after this state, or None."""
        n = state.n_iter
        if n and problem.loss(state) <= problem.floor:
            return Status.CONVERGED
        if n > 1 and problem.scale_is_fixed(n - 1) and state.history[-2] * (1 - self.tol) <= state.history[-1]:
            return Status.CONVERGED
        if self._waited(state.validation[problem.first_comparable :]) >= self.patience:
            return Status.CONVERGED
        return Status.MAX_ITER if n >= self.max_iter else None

    def _waited(self, errors: tuple[float, ...]) -> int:
        """Sweeps since the held-out error fell by more than the tolerance."""
        least, waited = math.inf, 0
        for error in errors:
            least, waited = (error, 0) if error < least * (1 - self.tol) else (least, waited + 1)
        return waited


def _entry_weights(weights: Any, observed: Observations) -> Any:
    """The weights of the entries (nnz,) in the dtype of the data, or None."""
    if weights is None:
        return None
    xp, W = observed.xp, as_matrix(weights, name="weights", vector=True)
    check_together(observed.data, W, names=("X", "weights"))
    if W.ndim == 1:
        if tuple(W.shape) != (observed.nnz,):
            raise ValueError(f"weights must have shape ({observed.nnz},), one for each entry, got {tuple(W.shape)}")
    elif tuple(W.shape) != observed.shape:
        raise ValueError(f"weights must have the shape {observed.shape} of X, got {tuple(W.shape)}")
    elif is_sparse(W):
        given = as_observations(W, name="weights")
        same = given.nnz == observed.nnz and bool(xp.all(given.indptr == observed.indptr))
        if not same or not bool(xp.all(given.indices == observed.indices)):
            raise ValueError(f"weights must store the entries that X stores, got another pattern of {given.nnz}")
        W = given.data
    else:
        W = W[observed.rows, observed.indices]
    W = xp.astype(W, observed.data.dtype)
    if not bool(xp.all((W >= 0) & xp.isfinite(W))):
        raise ValueError("weights must be finite and nonnegative, got others")
    return W


def _split(observed: Observations, weights: Any, fraction: float, key: Key) -> tuple[Observations, Any, Any]:
    """What is fitted, what is held out (None where nothing is), and the weights of the first."""
    if fraction == 0.0 or observed.nnz == 0:
        return observed, None, weights
    fitted, held = hold_out(observed, fraction, key)
    if held.nnz == 0:
        raise ValueError(
            f"validation_fraction must leave entries to hold out, got {fraction!r} for {observed.nnz} entries; each "
            "row and column keeps one"
        )
    return fitted, held, None if weights is None else hold_out(observed.with_values(weights), fraction, key)[0].data


def _mean(fitted: Observations, weights: Any, settings: Settings) -> float:
    """What is taken off all entries: their mean, their median for a robust loss, nothing without biases."""
    xp, data = fitted.xp, fitted.data
    if settings.column == 0.0 or fitted.nnz == 0:
        return 0.0
    if settings.loss != "squared":
        return median(data, xp)
    total = float(fitted.nnz) if weights is None else float(xp.sum(weights, dtype=xp.float64))
    whole = float(xp.sum(data if weights is None else data * weights, dtype=xp.float64))
    return whole / total if total > 0 else 0.0


# --- the iteration ----------------------------------------------------------------------------------------------------


def _iterate(
    problem: Problem, state: State, limits: _Limits, keep: Callable[[State], None] | None,
    callback: Callable[[CompletionStep], Any] | None,
) -> tuple[State, Status]:  # fmt: skip
    """Sweep until a reason to stop; states that are not finite, or worse than the one before, are dropped."""
    if problem.fitted.nnz == 0:
        return state, Status.CONVERGED
    with interrupted_with(lambda: _result(problem, state, Status.MAX_ITER)):
        while (status := limits.status(problem, state)) is None:
            moved = problem.step(state)
            if not math.isfinite(moved.history[-1]):
                return state, Status.NONFINITE
            if state.n_iter and problem.scale_is_fixed(state.n_iter) and moved.history[-1] > state.history[-1]:
                return state, Status.STAGNATED
            state = moved
            if keep is not None:
                keep(state)
            if callback is not None and callback(_told(problem, state)) is True:
                return state, limits.status(problem, state) or Status.MAX_ITER
    return state, status


def _told(problem: Problem, state: State) -> CompletionStep:
    validation = state.validation[-1] if state.validation else math.nan
    return CompletionStep(state.n_iter, state.history[-1], problem.rmse(state), validation)


def _result(problem: Problem, state: State, status: Status) -> CompletionResult:
    """The result of the best sweep where entries are held out, of the last where none are."""
    best = state if state.best is None else State(*state.best, scale=state.scale)
    n_best = state.n_iter if state.best is None else state.best_iter
    settings, k, fitted = problem.settings._replace(loss_scale=state.scale), problem.rank, problem.fitted
    column, empty = settings.column, fitted.nnz == 0
    row_bias, col_bias = (None if column == 0.0 else column * F[:, k] for F in (best.row, best.col))
    held = problem.held is not None and state.n_iter > 0
    freedom = fitted.nnz - (0.0 if empty else problem.degrees_of_freedom(best))
    weights = None if empty else problem.weights_at(best, state.scale)
    return CompletionResult(
        best.row[:, :k], best.col[:, :k], row_bias, col_bias, problem.mean,
        error=math.nan if empty else problem.held_out_error(best) if held else problem.rmse(best),
        error_kind="held-out" if held else "training",
        error_interval=_interval(problem, best) if held else None,
        noise=_noise(problem, best, freedom) if freedom > 0 and not empty else math.nan,
        objective=0.0 if empty else state.history[n_best - 1] if n_best else problem.objective(best),
        history=state.history, validation_history=state.validation, n_iter=state.n_iter, best_iter=n_best,
        status=status, row_counts=problem.centred.row_counts, col_counts=problem.centred.col_counts, settings=settings,
        training=Training(fitted, weights, problem.weights),
    )  # fmt: skip


def _interval(problem: Problem, state: State) -> tuple[float, float]:
    """95 % for the root of the mean loss of entries held out at random, from the variance of theirs."""
    xp, held = problem.xp, problem.held
    losses = problem.held_out_losses(state, held) if held is not None else xp.zeros(0)
    n = int(losses.shape[0])
    mean = float(xp.mean(losses))
    spread = math.sqrt(float(xp.sum((losses - mean) ** 2)) / max(1, n - 1) / n) if n > 1 else math.inf
    return math.sqrt(max(0.0, mean - _NORMAL_95 * spread)), math.sqrt(mean + _NORMAL_95 * spread)


def _noise(problem: Problem, state: State, freedom: float) -> float:
    """Standard deviation of the entries: weighted squares over the degrees of freedom left, or robustly the same."""
    xp, residuals = problem.xp, problem.residuals(state)
    if problem.robust:
        return robust_scale(residuals, xp) * math.sqrt(problem.fitted.nnz / freedom)
    return math.sqrt(problem.loss(state) / freedom)
