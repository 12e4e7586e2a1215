"""Nonnegative matrix factorisation: which solver, from where, how often, and what is told of the result."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._checks import check_choice, check_integer, check_real
from .._parallel import serial_blas
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..operators import SparseSign
from ._matrices import Compressed, Dense, Sparse, as_nonnegative
from .divergences import beta_objective, constant_divergence, multiplicative, newton, total_of
from .frobenius import Fit, Penalties, Step, alternate, exact_squares
from .initialization import INITS, empty_factors, start
from .results import NMFResult

SOLVERS = ("auto", "hals", "pivots", "randomized", "newton", "mu")
LOSSES = {"frobenius": 2.0, "kl": 1.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
OVERSAMPLES = 20  # columns of the sketch beyond the rank
SKETCHED = 4  # a dense matrix is sketched if both sides have this many times the columns of the sketch
COARSE = 10.0  # times tol: where the sketch has done its part


@dataclass(frozen=True)
class Plan:
    """What one start does."""

    rank: int
    beta: float
    solver: str
    reason: str
    init: Any
    penalties: Penalties
    max_iter: int
    tol: float
    callback: Callable[[Step], object] | None


def nmf(
    X: Any, rank: int, *, loss: str | float = "frobenius", solver: str = "auto", init: Any = "auto",
    alpha_W: float = 0.0, alpha_H: float = 0.0, l1_ratio: float = 0.0, max_iter: int = 200, tol: float = 1e-4,
    n_init: int = 1, callback: Callable[[Step], object] | None = None, rng: Any = None, on_failure: str = "warn",
) -> NMFResult:  # fmt: skip
    """Factorise a nonnegative matrix as ``X ~ W H`` with nonnegative W (m, rank) and H (rank, n).

    Minimises the loss plus ``alpha_W n (l1_ratio sum(W) + (1 - l1_ratio) ||W||_F^2 / 2)`` and ``alpha_H m (...)`` of H,
    with scikit-learn's scaling of the penalties.  An iteration of "hals" costs two products with X, ``4 nnz(X) rank``
    flops, and sweeps of about half of that; "randomized" replaces X by a sketch for most of them.

    Parameters
    ----------
    X : array, or CSR or CSC matrix, shape (m, n)
        Nonnegative data, float32 or float64, of any array API namespace where dense; not changed.  Entries that a
        sparse matrix does not store are zeros; for missing entries see `masked_nmf`.
    rank : int, rank >= 0
        Number of parts.  It may exceed the sides of X.
    loss : {"frobenius", "kl", "itakura-saito"} or float, default "frobenius"
        Half the squared Frobenius norm (beta = 2), the Kullback-Leibler (1) or Itakura-Saito (0) divergence, or any
        beta.
    solver : {"auto", "hals", "pivots", "randomized", "newton", "mu"}, default "auto"
        For "frobenius": "hals", extrapolated alternating coordinate sweeps [1]_ [2]_; "pivots", exact half steps by
        block principal pivoting [3]_; "randomized", "hals" on ``Q Q.T X`` for a basis Q of a sketch [4]_, ended by
        iterations on X itself.  For "kl": "newton", damped Newton steps in one coordinate [5]_ [6]_.  For any loss:
        "mu", multiplicative updates [7]_.  "auto" says in `reason` what it took.
    init : str or tuple (W, H), default "auto"
        "random", "nndsvd", "nndsvda", "nndsvdar" [8]_, "nnsvdlrc" [9]_, "spa" (columns of X), or factors.  "auto":
        for one start where rank is at most the sides of X "nnsvdlrc", for other losses than "frobenius" "nndsvda",
        whose factors have no zeros; else "random".
    alpha_W, alpha_H : float, default 0
        Penalties of both factors.
    l1_ratio : float, default 0, 0 <= l1_ratio <= 1
        Share of the sum of entries in the penalties.
    max_iter : int, default 200
    tol : float, default 1e-4
        Stop where the scale-free projected gradient, `stationarity`, is at most `tol`: with the slopes D_W and D_H it
        is ``sqrt(sum_k (||D_W[:, k]|| ||W[:, k]||)^2 + (||D_H[k]|| ||H[k]||)^2) / ||X||_F^2``, for the other losses
        the sum of ``|entry * slope|`` over the divergence of X from its mean.
    n_init : int, default 1
        Starts, under keys of their own; the one of least objective is returned.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the start.
    rng : None, int, SeedSequence, Generator or Key
        Source of starts and sketches.  See :ref:`random`.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    NMFResult
        ``W`` (m, rank), ``H`` (rank, n) with the exact error; iterates as ``W, H``.

    Raises
    ------
    ValueError
        If X has negative, NaN or infinite entries, or zeros for "itakura-saito"; if a parameter is out of range, or
        solver and loss do not fit.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    The problem is not convex: what is reached is a stationary point, and other starts may reach others.  An iteration
    of "pivots" never raises the objective, nor do "newton" and "mu" beyond rounding; "hals" extrapolates, restarts
    where the objective rose, and returns the best factors it saw.  Rows and columns of zeros have zeros in the factors.

    Deviations: 1. sweeps of [1]_ end tile by tile.  2. The end of [9]_'s sweeps and the constants of [2]_ are theirs.

    References
    ----------
    .. [1] Gillis and Glineur, "Accelerated multiplicative updates and hierarchical ALS algorithms for nonnegative
       matrix factorization", Neural Computation 24, 2012.
    .. [2] Ang and Gillis, "Accelerating nonnegative matrix factorization algorithms using extrapolation", Neural
       Computation 31, 2019, arXiv:1805.06604.
    .. [3] Kim and Park, "Fast nonnegative matrix factorization: an active-set-like method and comparisons", SIAM J.
       Sci. Comput. 33, 2011.
    .. [4] Erichson, Mendible, Wihlborn and Kutz, "Randomized nonnegative matrix factorization", Pattern Recognition
       Letters 104, 2018, arXiv:1711.02037.
    .. [5] Hsieh and Dhillon, "Fast coordinate descent methods with variable selection for non-negative matrix
       factorization", KDD 2011.
    .. [6] Hien and Gillis, "Algorithms for nonnegative matrix factorization with the Kullback-Leibler divergence", J.
       Sci. Comput. 87, 2021, arXiv:2010.01935.
    .. [7] Fevotte and Idier, "Algorithms for nonnegative matrix factorization with the beta-divergence", Neural
       Computation 23, 2011, arXiv:1010.1763.
    .. [8] Boutsidis and Gallopoulos, "SVD based initialization: a head start for nonnegative matrix factorization",
       Pattern Recognition 41, 2008.
    .. [9] Atif, Qazi and Gillis, "Improved SVD-based initialization for nonnegative matrix factorization using low-rank
       correction", Pattern Recognition Letters 122, 2019, arXiv:1807.04020.

    Examples
    --------
    >>> import numpy as np, randla
    >>> X = np.random.default_rng(0).random((60, 4)) @ np.random.default_rng(1).random((4, 50))
    >>> result = randla.nmf(X, 4, tol=1e-6, max_iter=2000, rng=0)
    >>> W, H = result
    >>> W.shape, H.shape, bool(result.error < 0.01)
    ((60, 4), (4, 50), True)
    """
    check_choice(solver, "solver", SOLVERS)
    beta = beta_of(loss)
    data, unit = _unit_scale(X)
    rank = check_integer(rank, "rank", low=0)
    max_iter, n_init = check_integer(max_iter, "max_iter", low=0), check_integer(n_init, "n_init", low=1)
    tol = check_real(tol, "tol", low=0.0)
    penalties = _penalties(data, alpha_W, alpha_H, l1_ratio, unit, beta)
    name, reason = _choose(solver, beta, data, rank, penalties)
    if beta == 0 and not _all_positive(data):
        raise ValueError('X must be positive everywhere for loss="itakura-saito", got zeros; use another loss')
    plan = Plan(rank, beta, name, reason, _init(init, data, rank, n_init, beta), penalties, max_iter, tol, callback)
    key = as_key(rng).fold("nmf")
    if rank == 0 or min(data.shape) == 0 or data.squared_norm == 0:
        fit = _trivial(data, plan)
        fits = [fit]
    else:
        fits = []
        for attempt in range(n_init):
            fits.append(_run(data, plan, key.fold(attempt)))
            if fits[-1].stopped:
                break
    result = _result(data, plan, fits, loss, unit)
    return warn_or_raise(result, on_failure if not fits[-1].stopped else "ignore", what="nmf")


def beta_of(loss: Any) -> float:
    if isinstance(loss, str):
        check_choice(loss, "loss", tuple(LOSSES))
        return LOSSES[loss]
    return check_real(loss, "loss")


def _unit_scale(X: Any) -> tuple[Any, float]:
    """The data and 1, or data divided by a power of two, and that, where squares would overflow or vanish."""
    try:
        return as_nonnegative(X), 1.0
    except OverflowError as error:
        unit = 2.0 ** math.floor(math.log2(float(error.args[0])))
        return as_nonnegative(X / unit if hasattr(X, "dtype") else X), unit


def _penalties(data: Any, alpha_W: Any, alpha_H: Any, l1_ratio: Any, unit: float, beta: float) -> Penalties:
    """Coefficients for the scaled data: the loss scales as unit^beta, factors as its root."""
    alpha_W, alpha_H = check_real(alpha_W, "alpha_W", low=0.0), check_real(alpha_H, "alpha_H", low=0.0)
    l1_ratio, (m, n) = check_real(l1_ratio, "l1_ratio", low=0.0, high=1.0), data.shape
    both = []
    for alpha, size in ((alpha_W, n), (alpha_H, m)):
        both.append(alpha * l1_ratio * size * _power(unit, 0.5 - beta) if alpha else 0.0)
        both.append(alpha * (1 - l1_ratio) * size * _power(unit, 1 - beta) if alpha else 0.0)
    return Penalties(*both)


def _power(unit: float, exponent: float) -> float:
    """unit^exponent, infinity where that is too large for a double."""
    try:
        return float(unit**exponent)
    except OverflowError:
        return math.inf


def _all_positive(data: Any) -> bool:
    if isinstance(data, Sparse):
        return data.nnz == data.shape[0] * data.shape[1] and bool(data.xp.all(data.rows[0] > 0))
    return bool(data.xp.all(data.X > 0))


def _choose(solver: str, beta: float, data: Any, rank: int, penalties: Penalties) -> tuple[str, str]:
    """The solver, and why."""
    fitting = {2.0: ("hals", "pivots", "randomized", "mu"), 1.0: ("newton", "mu")}.get(beta, ("mu",))
    if solver != "auto":
        if solver not in fitting:
            raise ValueError(f"solver must be one of auto, {', '.join(fitting)} for beta = {beta:g}, got {solver!r}")
        if solver == "randomized" and isinstance(data, Sparse):
            raise ValueError('solver must not be "randomized" for sparse data, whose sketch is dense; take "hals"')
        return solver, "asked for"
    if beta == 1.0:
        return "newton", "coordinate Newton steps for the Kullback-Leibler divergence"
    if beta != 2.0:
        return "mu", f"multiplicative updates are the solver for beta = {beta:g}"
    wide = SKETCHED * (rank + OVERSAMPLES)
    if isinstance(data, Dense) and min(data.shape) >= wide and not penalties and _tuned(data.xp):
        return "randomized", f"dense, both sides at least {SKETCHED} times the sketch of {rank + OVERSAMPLES} columns"
    return "hals", "sparse data: products with a sketch would cost more" if isinstance(data, Sparse) else "small sides"


def _tuned(xp: Any) -> bool:
    return is_numpy_namespace(xp) or is_cupy_namespace(xp)


def _init(init: Any, data: Any, rank: int, n_init: int, beta: float) -> Any:
    if not isinstance(init, str):
        if n_init > 1:
            raise ValueError(f"n_init must be 1 where init gives the factors, got {n_init}")
        return init
    check_choice(init, "init", ("auto", *INITS))
    if init == "auto":
        if n_init > 1 or rank > min(data.shape):
            return "random"
        return "nnsvdlrc" if beta == 2.0 else "nndsvda"  # divergences leave a start with zeros slowly
    return init


def _run(data: Any, plan: Plan, key: Key) -> Fit:
    """One start."""
    before = data.n_passes
    if plan.solver == "randomized":
        fit = _sketched(data, plan, key)
    else:
        Wt, H = start(data, plan.rank, plan.init, key)
        if plan.beta == 2.0 and plan.solver != "mu":
            # products with a sparse matrix are kernels; on what is left threads of BLAS gain less than they wait
            with serial_blas() if isinstance(data, Sparse) else contextlib.nullcontext():
                fit = alternate(
                    data, Wt, H, plan.penalties, solver=plan.solver, max_iter=plan.max_iter, tol=plan.tol,
                    callback=plan.callback,
                )  # fmt: skip
        else:
            Wt, H = _level(data, Wt, H)
            run: Any = newton if plan.solver == "newton" else multiplicative
            extra = {} if plan.solver == "newton" else {"beta": plan.beta}
            fit = run(
                data, Wt, H, plan.penalties, max_iter=plan.max_iter, tol=plan.tol, callback=plan.callback, **extra
            )
    fit.n_passes = data.n_passes - before
    return fit


def _level(data: Any, Wt: Any, H: Any) -> tuple[Any, Any]:
    """The same parts with the sum of X as the sum of the model."""
    xp = data.xp
    model = float(xp.sum(xp.sum(xp.astype(Wt, xp.float64), axis=1) * xp.sum(xp.astype(H, xp.float64), axis=1)))
    root = math.sqrt(total_of(data) / model) if model > 0 else 1.0
    return Wt * root, H * root


def _basis(data: Dense, size: int, key: Key) -> Any:
    """Orthonormal columns Q near the leading left singular vectors: those of X times the rows of a sparse sketch S X.

    That is half a step of subspace iteration: the sketch alone would leave most of the work to X, see docs/why.md.
    """
    xp, (m, n) = data.xp, data.shape
    size = min(size, m, n)
    rows = SparseSign(size, m, rng=key) @ data.X
    Z, _ = xp.linalg.qr(rows.T)
    Q, _ = xp.linalg.qr(xp.matmul(data.X, Z))
    data.n_passes += 2
    return Q


def _sketched(data: Dense, plan: Plan, key: Key) -> Fit:
    """Iterate on ``Q Q.T X``, then on X: the second part ends what the first began, and tells the truth."""
    xp = data.xp
    Q = _basis(data, plan.rank + OVERSAMPLES, key.fold("sketch"))
    few = Compressed(data, Q, xp.matmul(Q.T, data.X), data.squared_norm)
    data.n_passes += 1
    init = "random" if plan.init == "nnsvdlrc" else plan.init
    Wt, H = start(few, plan.rank, init, key)
    coarse = alternate(
        few, Wt, H, plan.penalties, solver="hals", max_iter=plan.max_iter, tol=COARSE * plan.tol,
        callback=plan.callback,
    )  # fmt: skip
    if coarse.stopped or coarse.status is Status.NONFINITE:
        return coarse

    def later(step: Step) -> object:
        shifted = Step(step.n_iter + coarse.n_iter, step.objective, step.error, step.stationarity)
        return plan.callback(shifted) if plan.callback is not None else False

    left = max(plan.max_iter - coarse.n_iter, min(plan.max_iter, 1))
    fit = alternate(
        data, coarse.Wt, coarse.H, plan.penalties, solver="hals", max_iter=left, tol=plan.tol, callback=later
    )
    fit.n_iter, fit.n_revived = fit.n_iter + coarse.n_iter, fit.n_revived + coarse.n_revived
    fit.history = coarse.history + fit.history[1:]
    return fit


def _trivial(data: Any, plan: Plan) -> Fit:
    """The zero factors, which are best for a matrix of zeros, or without parts."""
    Wt, H = empty_factors(data, plan.rank)
    objective = data.squared_norm / 2 if plan.beta == 2.0 else total_of(data)
    return Fit(Wt, H, objective, 0.0, 0, [objective], 0, Status.CONVERGED)


def _result(data: Any, plan: Plan, fits: list[Fit], loss: Any, unit: float) -> NMFResult:
    """The best start, in the units of the caller, with its error measured on X."""
    xp, beta = data.xp, plan.beta
    best = min(fits, key=lambda fit: fit.objective if math.isfinite(fit.objective) else math.inf)
    Wt, H, scale = best.Wt, best.H, _power(unit, beta)
    if beta == 2.0:
        squares = exact_squares(data, Wt, H) if data.squared_norm > 0 and plan.rank else data.squared_norm
        error, value = math.sqrt(squares / data.squared_norm) if squares > 0 else 0.0, squares / 2
    else:
        whole = constant_divergence(data, beta)
        value = best.objective - plan.penalties.of(Wt, H, xp)
        error = value / whole if whole > 0 else 0.0
    root = math.sqrt(unit)
    return NMFResult(
        xp.asarray((Wt * root).T, copy=True), H * root, error, loss, (value + plan.penalties.of(Wt, H, xp)) * scale,
        best.stationarity, plan.solver, plan.reason, best.n_iter, best.n_passes, tuple(v * scale for v in best.history),
        tuple(fit.objective * scale for fit in fits), best.n_revived, status=best.status,
    )  # fmt: skip


__all__ = ["NMFResult", "Step", "beta_objective", "nmf"]
