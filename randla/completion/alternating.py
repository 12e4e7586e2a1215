"""Alternating minimisation of observed residuals, with least-squares problems solved as precisely as a sweep needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from .._arrays import as_matrix, check_together, eps, from_host, is_complex
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..lowrank.orthonormal import NonfiniteError
from ..lowrank.svd import svd
from .factors import balanced, check_range, mean_error, relative_change, residuals, squares, thin_qr, times
from .maps import SparsePlusLowRank
from .observations import Observations, as_observations, hold_out
from .results import CompletionResult, CompletionStep, Settings, Training
from .rows import PRECONDITIONERS, SOLVERS, Rows, choose_method, solve_rows

_INNER_TOL = 1e-3  # the loosest inner tolerance: what the first sweeps need
_INNER_SHARE = 0.1  # of the last relative change: the inner error stays below what a sweep still gains
_EXPLODED = 3.0  # times the norm that the observed entries extrapolate to: their sample no longer holds the product


def altmin_completion(
    X: Any, rank: int, *, reg: float = 0.0, init: Any = "svd", clip: bool | float = True, solver: str = "auto",
    preconditioner: str = "gram", inner_tol: float | str = "adaptive", max_iter: int = 50, tol: float = 1e-6,
    validation_fraction: float = 0.0, n_iter_no_change: int = 2, rng: Any = None,
    callback: Callable[[CompletionStep], Any] | None = None, on_failure: str = "warn",
) -> CompletionResult:  # fmt: skip
    """Complete a matrix of low rank from some of its entries by alternating minimisation.

    Minimises ``sum (X_ij - u_i . v_j)**2 + reg (||U||_F**2 + ||V||_F**2)`` over the observed entries, one factor at a
    time: each half of a sweep is a small least-squares problem for each row, see `masked_lstsq`.  The problems are
    solved no more precisely than the sweep needs, from where the last sweep ended, so that a sweep costs a few times
    ``4 nnz rank`` flops and not ``nnz rank**2``.  For ratings with biases and a ridge by counts see `complete`.

    Parameters
    ----------
    X : sparse matrix, or array with NaN, shape (m, n)
        The observed entries: those that a sparse matrix stores, zeros included, or those that are not NaN.  Real.
    rank : int, 1 <= rank <= min(m, n)
    reg : float, reg >= 0, default 0.0
        The ridge of both factors.
    init : {"svd", "random"}, CompletionResult, or pair of arrays, shapes (m, rank) and (n, rank), default "svd"
        "svd": the leading left singular vectors of the observed entries with zeros elsewhere.
    clip : bool or float, default True
        Whether entries of that start above ``2 mu sqrt(rank / m)`` in modulus are set to zero, as the theory has it;
        a number is mu, the incoherence.  Unknown, it is taken as thrice that of the median row.
    solver : {"auto", "cholesky", "qr", "cg", "sketch"}, default "auto"
        As in `masked_lstsq`; rows that miss the inner tolerance are solved directly.
    preconditioner : {"gram", "diagonal", "none"}, default "gram"
        As in `masked_lstsq`.
    inner_tol : float in (0, 1) or "adaptive", default "adaptive"
        Tolerance of the inner iterations.  "adaptive": a tenth of the last relative change, at most 1e-3.
    max_iter : int, max_iter >= 0, default 50
        Most sweeps.
    tol : float, tol >= 0, default 1e-6
        Stop when a sweep changes the product U V^T by at most this, in the Frobenius norm relative to that of U V^T.
    validation_fraction : float in [0, 1), default 0.0
        Share of the entries, drawn at random, that is held out to measure the error.
    n_iter_no_change : int, n_iter_no_change >= 1, default 2
        With entries held out: stop after so many sweeps without a smaller error, and return the best sweep.
    rng : None, int, SeedSequence, Generator or Key
        Source of the start, of the sketches, and of the entries held out.
    callback : callable, optional
        Called with a `CompletionStep` after each sweep; returning True ends the computation with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is neither CONVERGED nor RANK_DEFICIENT.

    Returns
    -------
    CompletionResult
        ``row_factors`` (m, rank) and ``col_factors`` (n, rank); iterates as both.  Without a ridge the columns of
        ``col_factors`` are orthonormal.

    Raises
    ------
    ValueError
        If an entry is stored twice or infinite, nothing is observed, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    The status tells how far the factors can be trusted.  CONVERGED: the change fell to `tol`, the residual to rounding
    level, or the held-out error stopped falling.  RANK_DEFICIENT: the same, but rows or columns with fewer entries
    than `rank` got the solution of least norm.  BREAKDOWN: without a ridge there were fewer entries than the
    ``rank (m + n - rank)`` parameters of the product, or the product grew to thrice the norm that the entries
    extrapolate to, or a sweep raised the objective; set `reg` or lower `rank`.  MAX_ITER and NONFINITE as their names
    say.  A training residual near zero proves nothing near that number of entries; hold some out.

    Theory [1]_ asks for fresh entries in each half of a sweep and then for ``(sigma_1 / sigma_k)**2`` times more of
    them, up to logarithms and the incoherence, than have been found to be needed.  In practice, on incoherent
    matrices of 200 x 200 and rank 5, three times as many entries as parameters give an error of 1e-10 in 50 sweeps,
    and 1.5 times as many end, without a ridge, in errors above the norm of the matrix.

    Deviations: (1) all entries serve in all sweeps; (2) the preconditioner is one for all rows, see `masked_lstsq`;
    (3) with a ridge, factors are not orthonormalised, which would change the objective, but rebalanced.

    References
    ----------
    .. [1] Gu, Song, Yin and Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear
       time", arXiv:2302.11068.
    .. [2] Jain, Netrapalli and Sanghavi, "Low-rank matrix completion using alternating minimization", STOC 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import altmin_completion
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 60))
    >>> X = np.where(rng.random(A.shape) < 0.4, A, np.nan)
    >>> result = altmin_completion(X, 3, tol=1e-9, rng=0)
    >>> bool(np.abs(result.to_dense() - A).max() < 1e-6)
    True
    """
    observed = as_observations(X)
    if observed.nnz == 0:
        raise ValueError("X must have observed entries, got none")
    check_range(observed)
    rank = check_integer(rank, "rank", low=1, high=min(observed.shape))
    plan = _plan(
        rank, reg, clip, solver, preconditioner, inner_tol, max_iter, tol, validation_fraction, n_iter_no_change
    )
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    key = as_key(rng).fold("altmin_completion")
    fitted, held = (observed, None) if plan.fraction == 0.0 else hold_out(observed, plan.fraction, key)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite ends in a status
        problem = _Problem(fitted, held, plan, key)
        U, V = problem.started(init)
        result = _descend(problem, U, V, callback)
    return warn_or_raise(result, on_failure, what="altmin_completion")


class _Plan(NamedTuple):
    """The checked parameters; `inner_tol` None is adaptive, `incoherence` None unknown."""

    rank: int
    reg: float
    clip: bool
    incoherence: float | None
    solver: str
    preconditioner: str
    inner_tol: float | None
    max_iter: int
    tol: float
    fraction: float
    patience: int


def _plan(
    rank: int, reg: Any, clip: Any, solver: Any, preconditioner: Any, inner_tol: Any, max_iter: Any, tol: Any,
    fraction: Any, patience: Any,
) -> _Plan:  # fmt: skip
    incoherence = None if isinstance(clip, bool) else check_real(clip, "clip", low=0.0, closed="neither")
    if inner_tol != "adaptive" and isinstance(inner_tol, str):
        raise ValueError(f'inner_tol must be a number or "adaptive", got {inner_tol!r}')
    inner = None if inner_tol == "adaptive" else check_real(inner_tol, "inner_tol", low=0.0, high=1.0, closed="neither")
    return _Plan(
        rank, check_real(reg, "reg", low=0.0), clip is not False, incoherence,
        check_choice(solver, "solver", SOLVERS), check_choice(preconditioner, "preconditioner", PRECONDITIONERS), inner,
        check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0),
        check_real(fraction, "validation_fraction", low=0.0, high=1.0, closed="left"),
        check_integer(patience, "n_iter_no_change", low=1),
    )  # fmt: skip


class _Problem:
    """The entries that are fitted, by rows and by columns, those held out, and what a sweep does."""

    def __init__(self, fitted: Observations, held: Observations | None, plan: _Plan, key: Key) -> None:
        self.fitted, self.held, self.plan, self.key = fitted, held, plan, key
        self.xp, (self.m, self.n) = fitted.xp, fitted.shape
        self.squares = squares(fitted.data)
        self.ridges = tuple(
            self.xp.full((side,), plan.reg, dtype=self.xp.float64, device=device(fitted.data)) for side in fitted.shape
        )
        self.n_deficient = 0
        rows, cols = (int(self.xp.sum(self.xp.astype(c > 0, self.xp.int64))) for c in self.counts)
        k = min(plan.rank, rows, cols)
        self.n_parameters = k * (rows + cols - k)

    @property
    def counts(self) -> tuple[Any, Any]:
        """Entries of each row and of each column."""
        return self.fitted.row_counts, self.fitted.col_counts

    # --- where to start

    def started(self, init: Any) -> tuple[Any, Any]:
        """Factors to start from; V is None where it follows from U."""
        if isinstance(init, CompletionResult):
            init = (init.row_factors, init.col_factors)
        if not isinstance(init, str):
            return self._given(init)
        check_choice(init, "init", ("svd", "random"))
        k, xp = self.plan.rank, self.xp
        extrapolated = math.sqrt(self.squares * self.m * self.n / self.fitted.nnz)
        if init == "random":
            host = np.dtype("float64")
            table = kernel("gaussian_table", xp)(self.key.fold("start"), 0, self.m, k, host)
            U = thin_qr(from_host(table, xp, self.fitted.data))[0]
            sizes = xp.full((k,), extrapolated / k**0.5, dtype=xp.float64, device=device(self.fitted.data))
        else:  # steps 2 and 3
            found = svd(
                SparsePlusLowRank(self.fitted), k, method="subspace", rng=self.key.fold("start"), on_failure="ignore"
            )
            U = self._clipped(xp.astype(found.U, xp.float64))
            sizes = xp.astype(found.s, xp.float64) * (self.m * self.n / self.fitted.nnz)
        if self.plan.reg > 0:
            U = U * xp.sqrt(sizes)[None, :]  # the size that balanced factors have
        return xp.astype(U, self.fitted.data.dtype), None

    def _given(self, init: Any) -> tuple[Any, Any]:
        shapes, found = ((self.m, self.plan.rank), (self.n, self.plan.rank)), []
        if len(init) != 2:
            raise ValueError(f"init must hold two factors, got {len(init)}")
        for F, shape in zip(init, shapes, strict=True):
            F = as_matrix(F, name="init", sparse=False)
            check_together(self.fitted.data, F, names=("X", "init"))
            if is_complex(F.dtype) or tuple(F.shape) != shape or not bool(self.xp.all(self.xp.isfinite(F))):
                raise ValueError(f"init must hold finite real factors of shapes {shapes}, got {tuple(F.shape)}")
            found.append(self.xp.astype(F, self.fitted.data.dtype, copy=False))
        return found[0], found[1]

    def _clipped(self, U: Any) -> Any:
        """Step 3: entries of U that are too large for an incoherent matrix are set to zero."""
        xp, k = self.xp, self.plan.rank
        if not self.plan.clip:
            return U
        if self.plan.incoherence is None:
            lengths = xp.sort(xp.sqrt(xp.sum(U * U, axis=1))[self.fitted.row_counts > 0])
            mu = 3.0 * math.sqrt(self.m / k) * float(lengths[int(lengths.shape[0]) // 2])
        else:
            mu = self.plan.incoherence
        large = xp.abs(U) > 2.0 * mu * math.sqrt(k / self.m)
        return thin_qr(xp.where(large, xp.zeros_like(U), U))[0] if bool(xp.any(large)) else U

    # --- a sweep

    def swept(self, U: Any, V: Any, inner_tol: float) -> tuple[Any, Any]:
        """Steps 4 and 5: V for fixed U, then U for fixed V; both starts stand for the product before."""
        self.n_deficient = 0
        if self.plan.reg > 0:
            U, V = (U, V) if V is None else balanced(U, V)
            V = self._solved(1, U, V, inner_tol)
            return self._solved(0, V, U, inner_tol), V
        Q, R = thin_qr(U)
        start = None if V is None else times(V, R.mT)
        V, R = thin_qr(self._solved(1, Q, start, inner_tol))
        return self._solved(0, V, times(Q, R.mT), inner_tol), V

    def _solved(self, axis: int, V: Any, start: Any, inner_tol: float) -> Any:
        observed = self.fitted if axis == 0 else self.fitted.transposed
        rows = Rows(V, observed, None, self.ridges[axis])
        plan = self.plan
        method = choose_method(rows, plan.solver, plan.preconditioner, inner_tol, None)._replace(guarded=True)
        found = solve_rows(rows, method, start, self.key.fold("rows").fold(axis))
        self.n_deficient += found.n_deficient
        return found.X

    # --- what is known of factors

    def objective(self, U: Any, V: Any) -> tuple[float, float]:
        """The objective, and the sum of squared residuals."""
        rss = squares(residuals(self.fitted, U, V))
        return rss + self.plan.reg * (squares(U) + squares(V)), rss

    def validation(self, U: Any, V: Any) -> tuple[float, tuple[float, float] | None]:
        """The root mean square error of the entries held out, with its interval."""
        if self.held is None or self.held.nnz == 0:
            return math.nan, None
        return mean_error(residuals(self.held, U, V))

    def exploded(self, U: Any, V: Any) -> bool:
        """Whether the product left the norm that the observed entries extrapolate to far behind."""
        xp = self.xp
        G, H = (xp.matmul(xp.astype(F, xp.float64).mT, xp.astype(F, xp.float64)) for F in (U, V))
        norm = float(xp.sum(G * H))
        return norm > _EXPLODED**2 * self.squares * self.m * self.n / self.fitted.nnz


class _Best(NamedTuple):
    """The sweep that is returned."""

    U: Any
    V: Any
    n_iter: int
    objective: float
    rss: float
    validation: float


def _descend(problem: _Problem, U: Any, V: Any, callback: Callable[[CompletionStep], Any] | None) -> CompletionResult:
    """Sweeps until the product rests, the error of what was held out rises, or something breaks."""
    plan, status = problem.plan, Status.MAX_ITER
    history: list[float] = []
    held: list[float] = []
    best, change, rounding = None, 1.0, 8.0 * eps(U.dtype) * math.sqrt(plan.rank * problem.squares)
    for n_iter in range(1, plan.max_iter + 1):
        inner = min(_INNER_TOL, max(_INNER_SHARE * change, eps(U.dtype))) if plan.inner_tol is None else plan.inner_tol
        try:
            moved = problem.swept(U, V, inner)
            objective, rss = problem.objective(*moved)
        except (NonfiniteError, np.linalg.LinAlgError):  # decompositions refuse what is not finite
            objective = math.nan
        if not math.isfinite(objective):
            status = Status.NONFINITE
            break
        # least squares from where the last sweep ended cannot raise it
        if history and math.sqrt(objective) > (1.0 + 1e-6) * math.sqrt(history[-1]) + rounding:
            status = Status.BREAKDOWN
            break
        change = 1.0 if V is None else relative_change(*moved, U, V)
        U, V = moved
        error = problem.validation(U, V)[0]
        history.append(objective)
        held.append(error)
        if best is None or not error >= best.validation:
            best = _Best(U, V, n_iter, objective, rss, error)
        rmse = math.sqrt(rss / problem.fitted.nnz)
        stop = callback is not None and callback(CompletionStep(n_iter, objective, rmse, error)) is True
        fits = plan.reg == 0 and math.sqrt(rss) <= rounding
        if fits or change <= plan.tol or n_iter - best.n_iter >= plan.patience:
            status = Status.CONVERGED
            break
        if stop:
            break
    return _result(problem, best or _before(problem, U, V), history, held, status)


def _before(problem: _Problem, U: Any, V: Any) -> _Best:
    """What there is without a sweep."""
    if V is None:
        V = problem.xp.zeros((problem.n, problem.plan.rank), dtype=U.dtype, device=device(U))
    return _Best(U, V, 0, *problem.objective(U, V), problem.validation(U, V)[0])


def _result(
    problem: _Problem, best: _Best, history: list[float], held: list[float], status: Status
) -> CompletionResult:
    plan, fitted, xp = problem.plan, problem.fitted, problem.xp
    undetermined = plan.reg == 0 and fitted.nnz < problem.n_parameters
    if status is not Status.NONFINITE and (undetermined or problem.exploded(best.U, best.V)):
        status = Status.BREAKDOWN
    elif status is Status.CONVERGED and problem.n_deficient:
        status = Status.RANK_DEFICIENT
    error, interval = problem.validation(best.U, best.V)
    spare = fitted.nnz - problem.n_parameters
    counts = [None if bool(xp.all(c > 0)) else c for c in problem.counts]
    return CompletionResult(
        best.U, best.V, error=math.sqrt(best.rss / fitted.nnz) if interval is None else error,
        error_kind="training" if interval is None else "held-out", error_interval=interval,
        noise=math.sqrt(best.rss / spare) if spare > 0 else math.nan, objective=best.objective, history=tuple(history),
        validation_history=() if interval is None else tuple(held), n_iter=len(history), best_iter=best.n_iter,
        status=status, row_counts=counts[0], col_counts=counts[1], settings=Settings(plan.reg, 0.0, 0.0),
        training=Training(fitted),
    )  # fmt: skip
