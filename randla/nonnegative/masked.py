"""Nonnegative factorisation of matrices of which entries are missing, or count with weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, is_sparse
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..completion.observations import Observations, as_observations, hold_out
from .frobenius import INNER, PLATEAU, Momentum, Penalties, Step
from .initialization import random_factor
from .results import NMFResult

SWEEPS = 5  # of coordinates in a half step
STARTS = ("random",)
_NORMAL_95 = 1.959963984540054  # quantile of the normal distribution for intervals of 95 %
ABSENT = ("missing", "zeros")


@dataclass(frozen=True, repr=False)
class MaskedNMFResult(NMFResult):
    """Nonnegative factors fitted to observed entries, with the error of those that were held out.

    Attributes
    ----------
    W, H, loss, objective, stationarity, solver, reason, n_iter, n_passes, history, start_objectives, n_revived, status
        As in `NMFResult`, over the observed entries that were fitted.
    error : float
        Root of the weighted mean square of the residuals: of the held-out entries where there are some, else of the
        fitted ones.
    error_kind : str
        "held-out" or "training".
    error_interval : tuple of two float, or None
        Interval of 95 % for the error of entries like those held out, from the spread of their squared residuals.
    validation_history : tuple of float
        Held-out error after each iteration.
    best_iter : int
        The iteration that W and H are of.
    """

    error_interval: tuple[float, float] | None = None
    validation_history: tuple[float, ...] = ()
    best_iter: int = 0

    def predict(self, rows: Any, cols: Any) -> Any:
        """Return the entries (rows[q], cols[q]) of W H, one for each q; nothing else is formed.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        xp = array_namespace(self.W)
        rows, cols = (
            _places(part, size, name, xp, self.W)
            for part, size, name in ((rows, self.shape[0], "rows"), (cols, self.shape[1], "cols"))
        )
        if rows.shape != cols.shape:
            raise ValueError(f"rows and cols must have one shape, got {tuple(rows.shape)} and {tuple(cols.shape)}")
        return xp.sum(xp.take(self.W, rows, axis=0) * xp.take(self.H, cols, axis=1).T, axis=1)


def _places(values: Any, size: int, name: str, xp: Any, like: Any) -> Any:
    places = xp.asarray(values, dtype=xp.int64, device=device_of(like))
    if places.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {tuple(places.shape)}")
    if places.shape[0] and not (int(xp.min(places)) >= 0 and int(xp.max(places)) < size):
        raise ValueError(f"{name} must be in [0, {size}), got {int(xp.min(places))} to {int(xp.max(places))}")
    return places


def masked_nmf(
    X: Any, rank: int, *, absent: str | None = None, weights: Any = None, init: Any = "random", alpha_W: float = 0.0,
    alpha_H: float = 0.0, l1_ratio: float = 0.0, validation_fraction: float = 0.0, n_iter_no_change: int = 5,
    max_iter: int = 300, tol: float = 1e-5, n_init: int = 1, callback: Callable[[Step], object] | None = None,
    rng: Any = None, on_failure: str = "warn",
) -> MaskedNMFResult:  # fmt: skip
    """Factorise the observed entries of a nonnegative matrix, ``X_ij ~ (W H)_ij`` where X_ij is known.

    Minimises ``sum over observed w_ij (X_ij - (W H)_ij)^2 / 2`` plus penalties over W, H >= 0 by extrapolated
    coordinate sweeps, row by row.  An iteration costs ``2 nnz rank (rank + 1)`` flops; nothing of the size m n is
    formed from sparse data.

    Parameters
    ----------
    X : array with NaN for what is missing, or sparse matrix, shape (m, n)
        Nonnegative data, not changed.
    rank : int, rank >= 0
        Number of parts.
    absent : {"missing", "zeros"}, optional
        What the entries are that a sparse X does not store; must be given for sparse X.  Stored zeros are
        observations of zero.
    weights : array or sparse matrix, shape (m, n), optional
        Nonnegative weights of the entries; sparse ones store a weight for each observed entry.
    init : "random" or tuple (W, H), default "random"
    alpha_W, alpha_H : float, default 0
        Penalties ``alpha_W (l1_ratio sum(W) + (1 - l1_ratio) ||W||_F^2 / 2)``, and the same of H.
    l1_ratio : float, default 0, 0 <= l1_ratio <= 1
    validation_fraction : float, default 0, 0 <= validation_fraction < 1
        Share of the observed entries held out; the factors of least held-out error are returned.
    n_iter_no_change : int, default 5
        Iterations without a lower held-out error that end a run.
    max_iter : int, default 300
    tol : float, default 1e-5
        Stop where the objective falls by at most `tol` of itself over an iteration; an objective below rounding of
        the data counts as that.
    n_init : int, default 1
        Starts; that of least error is returned.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the run.
    rng : None, int, SeedSequence, Generator or Key
        Source of the start and of what is held out.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    MaskedNMFResult
        ``W`` (m, rank) and ``H`` (rank, n), with `predict`.

    Raises
    ------
    ValueError
        If X has negative or infinite entries or repeats one, if `absent` is not given for sparse X, or a parameter is
        out of range.

    Notes
    -----
    A row or column without observed entries has zeros: nothing is known of it.  With fewer entries than parts in a
    row its part of the factor is not unique, and coordinate sweeps take one of the solutions; a penalty makes it so.
    The objective of the returned factors is the least that was seen.

    References
    ----------
    .. [1] Ang and Gillis, "Accelerating nonnegative matrix factorization algorithms using extrapolation", Neural
       Computation 31, 2019, arXiv:1805.06604.

    Examples
    --------
    >>> import numpy as np, randla
    >>> X = np.random.default_rng(0).random((60, 3)) @ np.random.default_rng(1).random((3, 50))
    >>> known = np.where(np.random.default_rng(2).random(X.shape) < 0.5, X, np.nan)
    >>> result = randla.masked_nmf(known, 3, tol=1e-9, max_iter=2000, rng=0)
    >>> bool(np.abs(result.to_dense() - X).max() < 0.01)
    True
    """
    observed = observed_entries(X, absent)
    w = _weights(weights, observed)
    rank = check_integer(rank, "rank", low=0)
    penalties = _penalties(alpha_W, alpha_H, l1_ratio)
    fraction = check_real(validation_fraction, "validation_fraction", low=0.0, high=1.0, closed="left")
    patience = check_integer(n_iter_no_change, "n_iter_no_change", low=1)
    max_iter, n_init = check_integer(max_iter, "max_iter", low=0), check_integer(n_init, "n_init", low=1)
    tol = check_real(tol, "tol", low=0.0)
    if isinstance(init, str):
        check_choice(init, "init", STARTS)
    key = as_key(rng).fold("masked_nmf")
    problem = MaskedProblem.split(observed, w, fraction, penalties, key)
    runs = [
        _alternate(problem, *problem.start(rank, init, key.fold(attempt)), max_iter, tol, patience, callback)
        for attempt in range(n_init if isinstance(init, str) else 1)
    ]
    best = min(runs, key=lambda run: run.score if math.isfinite(run.score) else math.inf)
    result = _result(problem, best, [run.objective for run in runs])
    return warn_or_raise(result, "ignore" if best.stopped else on_failure, what="masked_nmf")


def observed_entries(X: Any, absent: str | None) -> Observations:
    """The observed entries; what a sparse matrix leaves out is said, never guessed."""
    if absent is not None:
        check_choice(absent, "absent", ABSENT)
    if not isinstance(X, Observations) and is_sparse(X):
        if absent is None:
            raise ValueError(
                'absent must be "missing" or "zeros" for a sparse X, got None; say what the entries are that are not '
                "stored"
            )
        if absent == "zeros":
            raise ValueError(
                'absent must be "missing" in masked_nmf, got "zeros"; where every entry is known, randla.nmf is the '
                "function, and weights of single entries need them stored"
            )
    observed = as_observations(X)
    xp = observed.xp
    if observed.nnz and float(xp.min(observed.data)) < 0:
        raise ValueError(f"X must be nonnegative, got {float(xp.min(observed.data)):g}")
    return observed


def _weights(weights: Any, X: Observations) -> Any:
    """A weight for each observed entry, or None."""
    if weights is None:
        return None
    xp = X.xp
    given = as_matrix(weights, name="weights")
    check_together(X.data, given, names=("X", "weights"))
    if tuple(given.shape) != X.shape:
        raise ValueError(f"weights must have shape {X.shape}, got {tuple(given.shape)}")
    if is_sparse(given):
        stored = as_observations(given, name="weights")
        same = stored.nnz == X.nnz and bool(xp.all(stored.indptr == X.indptr))
        if not (same and bool(xp.all(stored.indices == X.indices))):
            raise ValueError("weights must store a number for each entry of X and for no other, got another pattern")
        values = stored.data
    else:
        values = xp.reshape(given, (-1,))[X.rows * X.shape[1] + xp.astype(X.indices, xp.int64)]
    values = xp.astype(values, X.data.dtype)
    if not bool(xp.all(values >= 0)) or not bool(xp.all(xp.isfinite(values))):
        raise ValueError("weights must be finite and nonnegative, got other values")
    return values


def _penalties(alpha_W: Any, alpha_H: Any, l1_ratio: Any) -> Penalties:
    alpha_W, alpha_H = check_real(alpha_W, "alpha_W", low=0.0), check_real(alpha_H, "alpha_H", low=0.0)
    share = check_real(l1_ratio, "l1_ratio", low=0.0, high=1.0)
    return Penalties(alpha_W * share, alpha_W * (1 - share), alpha_H * share, alpha_H * (1 - share))


@dataclass
class _Run:
    """One start: the best factors (W (m, r) and V = H.T (n, r)), and how it got there."""

    W: Any
    V: Any
    objective: float
    score: float
    history: list[float]
    validation: list[float]
    best_iter: int = 0
    n_iter: int = 0
    status: Status = Status.MAX_ITER
    stopped: bool = False


@dataclass(frozen=True)
class MaskedProblem:
    """Entries that are fitted and held out, with their weights, by rows and by columns."""

    fitted: Observations
    held: Observations | None
    weights: tuple[Any, Any]
    held_weights: Any
    penalties: Penalties

    @classmethod
    def split(cls, observed: Observations, w: Any, fraction: float, penalties: Penalties, key: Key) -> MaskedProblem:
        """The entries, with a share of them held out, and their weights."""
        held, held_weights = None, None
        if fraction > 0:
            chosen, whole = key.fold("validation"), observed
            observed, held = hold_out(whole, fraction, chosen)
            if w is not None:  # the places and the key decide, so that the weights are split like the entries
                w, held_weights = (part.data for part in hold_out(whole.with_values(w), fraction, chosen))
        sides = (None, None) if w is None else (w, observed.by_columns(w))
        return cls(observed, held, sides, held_weights, penalties)

    @property
    def xp(self) -> Any:
        """The array namespace of the entries."""
        return self.fitted.xp

    def start(self, rank: int, init: Any, key: Key) -> tuple[Any, Any]:
        """W and V = H.T, scaled so that the model has the mean of the data."""
        X, xp = self.fitted, self.xp
        if not isinstance(init, str):
            return self._known(*self._given(rank, init))
        mean = float(xp.mean(xp.astype(X.data, xp.float64))) if X.nnz else 0.0
        size = math.sqrt(4 * mean / max(1, rank))  # the mean of a product of two uniform numbers is 1/4
        like = _Like(xp, X.data)
        W, V = (
            xp.asarray((size * random_factor(rank, n, like, key.fold(name))).T, copy=True)
            for n, name in zip(X.shape, "WH", strict=True)
        )
        return self._known(W, V)

    def _known(self, W: Any, V: Any) -> tuple[Any, Any]:
        """The same factors with zeros where no entry was observed."""
        xp, counts = self.xp, (self.fitted.row_counts, self.fitted.col_counts)
        seen = (xp.astype(count > 0, W.dtype)[:, None] for count in counts)
        return W * next(seen), V * next(seen)

    def _given(self, rank: int, init: Any) -> tuple[Any, Any]:
        try:
            W, H = init
        except (TypeError, ValueError):
            raise ValueError(f'init must be "random" or a pair (W, H), got {init!r}') from None
        X, xp = self.fitted, self.xp
        W, H = (as_matrix(F, name=f"init {name}", sparse=False) for F, name in ((W, "W"), (H, "H")))
        for F, name, shape in ((W, "W", (X.shape[0], rank)), (H, "H", (rank, X.shape[1]))):
            check_together(X.data, F, names=("X", f"init {name}"))
            if tuple(F.shape) != shape:
                raise ValueError(f"init {name} must have shape {shape}, got {tuple(F.shape)}")
            if not bool(xp.all(F >= 0)) or not bool(xp.all(xp.isfinite(F))):
                raise ValueError(f"init {name} must be finite and nonnegative, got other entries")
        return xp.astype(W, X.data.dtype, copy=True), xp.asarray(xp.astype(H, X.data.dtype).T, copy=True)

    def half_step(self, other: Any, mine: Any, side: int) -> Any:
        """The factor of the rows (side 0) or columns (1) for the other one."""
        X, w, xp, p = (self.fitted, self.fitted.transposed)[side], self.weights[side], self.xp, self.penalties
        targets = X.data if w is None else w * X.data
        l1, l2 = (p.l1_H, p.l2_H) if side else (p.l1_W, p.l2_W)
        ridge = xp.full((X.shape[0],), l2, dtype=xp.float64, device=device_of(X.data))
        if l1:  # a target that every row has: -l1 times the all-ones vector, through a row of its own
            return self._with_l1(X, other, w, targets, ridge, mine, l1)
        return kernel("masked_nonneg_sweeps", xp)(
            other, X.indices, X.indptr, w, targets, None, ridge, mine, SWEEPS, INNER
        )

    def _with_l1(self, X: Observations, other: Any, w: Any, targets: Any, ridge: Any, mine: Any, l1: float) -> Any:
        """An entry more in each row, of weight 0, whose target subtracts l1 from the right-hand side."""
        xp, m = self.xp, X.shape[0]
        where = device_of(other)
        ones = xp.ones((1, other.shape[1]), dtype=other.dtype, device=where)
        numbers = xp.arange(m, dtype=xp.int64, device=where)
        order = xp.argsort(xp.concat([X.rows, numbers]), stable=True)

        def joined(values: Any, extra: float) -> Any:
            last = xp.full((m,), extra, dtype=values.dtype, device=where)
            return xp.take(xp.concat([values, last]), order)

        indices = joined(xp.astype(X.indices, xp.int64), X.shape[1])
        weights, targets = joined(xp.ones_like(X.data) if w is None else w, 0.0), joined(targets, -l1)
        indptr = xp.astype(X.indptr, xp.int64) + xp.arange(m + 1, dtype=xp.int64, device=where)
        return kernel("masked_nonneg_sweeps", xp)(
            xp.concat([other, ones]), indices, indptr, weights, targets, None, ridge, mine, SWEEPS, INNER
        )

    def residuals(self, X: Observations, W: Any, V: Any) -> Any:
        """What W V.T leaves of the entries of X."""
        return X.data - kernel("sampled_products", self.xp)(W, V, X.indices, X.indptr)

    def objective(self, W: Any, V: Any) -> float:
        """Half the weighted squares of the fitted residuals, and the penalties."""
        return 0.5 * self._squares(self.fitted, self.weights[0], W, V) + self.penalties.of(W, V, self.xp)

    def _squares(self, X: Observations, w: Any, W: Any, V: Any) -> float:
        xp, r = self.xp, self.xp.astype(self.residuals(X, W, V), self.xp.float64)
        return float(xp.sum(r * r if w is None else w * r * r))

    def error(self, W: Any, V: Any) -> float:
        """Root of the weighted mean square of the residuals, held out where there are such."""
        X, w = (self.fitted, self.weights[0]) if self.held is None else (self.held, self.held_weights)
        total = float(X.nnz) if w is None else float(self.xp.sum(w))
        return math.sqrt(self._squares(X, w, W, V) / total) if total > 0 else 0.0

    def stationarity(self, W: Any, V: Any) -> float:
        """Scale-free size of the projected slopes over the squares of the fitted entries, as of `nmf`."""
        xp, total = self.xp, 0.0
        whole = float(xp.sum(xp.astype(self.fitted.data, xp.float64) ** 2))
        for side, (mine, other) in enumerate(((W, V), (V, W))):
            X, w = (self.fitted, self.fitted.transposed)[side], self.weights[side]
            r = self.residuals(X, mine, other)
            l1, l2 = ((self.penalties.l1_W, self.penalties.l2_W), (self.penalties.l1_H, self.penalties.l2_H))[side]
            pull = kernel("csr_matmul", xp)(r if w is None else w * r, X.indices, X.indptr, other)
            slope = l1 + l2 * xp.astype(mine, xp.float64) - xp.astype(pull, xp.float64)
            free = xp.where((mine > 0) | (slope < 0), slope, xp.zeros_like(slope))
            total += float(xp.sum(xp.sum(free * free, axis=0) * xp.sum(xp.astype(mine, xp.float64) ** 2, axis=0)))
        return math.sqrt(total) / whole if whole > 0 else 0.0


@dataclass(frozen=True)
class _Like:
    """What `random_factor` asks of data."""

    xp: Any
    like: Any

    @property
    def dtype(self) -> Any:
        return self.like.dtype


def _alternate(
    problem: MaskedProblem, W: Any, V: Any, max_iter: int, tol: float, patience: int,
    callback: Callable[[Step], object] | None,
) -> _Run:  # fmt: skip
    """Half steps from extrapolated factors, begun again from the accepted ones where the objective rose."""
    xp, momentum = problem.xp, Momentum()
    value = problem.objective(W, V)
    run = _Run(W, V, value, math.inf, [value], [])
    rounding = 8 * problem.fitted.nnz * float(xp.finfo(W.dtype).eps) ** 2 * problem.objective(0 * W, 0 * V)
    Wy, Vy, last, least, stale = W, V, value, value, 0
    while run.n_iter < max_iter:
        Vn = problem.half_step(Wy, _positive(Vy, xp), 1)
        Vy = momentum.ahead(Vn, V, xp, keep_positive=True)
        Wn = problem.half_step(Vy, _positive(Wy, xp), 0)
        value = problem.objective(Wn, Vy)
        run.n_iter += 1
        if not math.isfinite(value):
            run.status = Status.NONFINITE
            break
        run.history.append(value)
        error = problem.error(Wn, Vy)
        run.validation.append(error)
        if (error < run.score) if problem.held is not None else (value <= least):
            run.W, run.V, run.objective, run.score, run.best_iter = Wn, Vy, value, error, run.n_iter
        fell = least - value
        stale, least = (0 if fell > 0 else stale + 1), min(least, value)
        if value <= last:
            Wy, W, V = momentum.ahead(Wn, W, xp, keep_positive=False), Wn, Vn
            momentum.grow()
        else:
            Wy, Vy = W, V
            momentum.shrink()
        last = value
        if callback is not None and callback(Step(run.n_iter, value, error, fell / least if least > 0 else 0.0)):
            run.stopped = True
            break
        if 0 <= fell <= tol * value or value <= rounding:
            run.status = Status.CONVERGED
            break
        if problem.held is not None and run.n_iter - run.best_iter >= patience:
            run.status = Status.CONVERGED
            break
        if stale >= PLATEAU:
            run.status = Status.STAGNATED
            break
    return run


def _positive(F: Any, xp: Any) -> Any:
    return xp.where(F > 0, F, xp.zeros_like(F))


def _result(problem: MaskedProblem, run: _Run, objectives: list[float]) -> MaskedNMFResult:
    xp, held = problem.xp, problem.held is not None
    interval = None
    if problem.held is not None:
        r = xp.astype(problem.residuals(problem.held, run.W, run.V), xp.float64)
        w = xp.ones_like(r) if problem.held_weights is None else xp.astype(problem.held_weights, xp.float64)
        total, mean = float(xp.sum(w)), problem.error(run.W, run.V) ** 2
        spread = _NORMAL_95 * math.sqrt(float(xp.sum((w * (r * r - mean)) ** 2))) / total if total > 0 else 0.0
        interval = math.sqrt(max(mean - spread, 0.0)), math.sqrt(mean + spread)
    return MaskedNMFResult(
        run.W, xp.asarray(run.V.T, copy=True), problem.error(run.W, run.V), "frobenius", run.objective,
        problem.stationarity(run.W, run.V), "sweeps", "coordinate sweeps for observed entries", run.n_iter,
        n_passes=float(2 * run.n_iter), history=tuple(run.history), start_objectives=tuple(objectives),
        error_kind="held-out" if held else "training", status=run.status, error_interval=interval,
        validation_history=tuple(run.validation) if held else (), best_iter=run.best_iter,
    )  # fmt: skip
