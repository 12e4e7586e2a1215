"""Robust unmixing: bands that do not fit count less, by half-quadratic reweighting."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from array_api_compat import device as device_of

from .._arrays import eps
from .._checks import check_choice, check_integer, check_real
from .._random import as_key
from .._results import Status, warn_or_raise
from .frobenius import Step
from .results import NMFResult
from .structured import relative_error, sum_error
from .unmixing import Mixed, Mixture, first_factors, mixture, unmix

LOSSES = ("correntropy", "huber", "l21")
SCALES = ("median", "mean")
STARTS = ("screened", "spa")
SPREAD = 4.0  # the scale of correntropy and the screen of bands, in medians: a median band keeps a weight of exp(-1/4)
HUBER = 1.345  # median residuals at which the loss becomes linear: 95 % efficiency for normal ones
SETTLED = 0.05  # relative change of the scale that ends them
LEAST = 0.01  # of the first squared scale: below, half of the rows are fitted exactly and the others given up


@dataclass(frozen=True, repr=False)
class RobustNMFResult(NMFResult):
    """Endmembers and abundances ``X ~ W H``, and how much each band counted.

    Attributes
    ----------
    W : array, shape (m, rank)
        Endmembers.
    H : array, shape (rank, n)
        Abundances.
    weights : float64 array, shape (m,)
        Final weights of the rows of X over the largest one: small where a band does not fit.
    scale : float
        The scale of the loss, a residual norm of a row in units of X; 0 for "l21", which has none.
    stages : tuple of int
        Iterations at which the scale was set; between them the objective does not rise.
    objective : float
        The objective of `robust_nmf` at the last scale, for X over its largest entry.
    error : float
        ``||X - W H||_F / ||X||_F``, bands that do not fit included.
    history : tuple of float
        The objective at the start and after each iteration.
    sum_error : float
        Root mean square of ``sum(H[:, j]) - 1`` over the columns that are not zero.
    error_kind, loss, stationarity, solver, reason, n_iter, n_passes, start_objectives, n_revived, status
        As in `NMFResult`; reason tells the start, stationarity is not computed.
    """

    weights: Any = None
    scale: float = 0.0
    stages: tuple[int, ...] = ()
    sum_error: float = math.nan


def robust_nmf(
    X: Any, rank: int, *, loss: str = "correntropy", theta: float = 1.0, scale: str = "median", sparsity: float = 0.0,
    penalty: str = "l1", sum_to_one: float = 0.0, init: Any = "screened", max_iter: int = 500, tol: float = 1e-5,
    callback: Callable[[Step], object] | None = None, rng: Any = None, on_failure: str = "warn",
) -> RobustNMFResult:  # fmt: skip
    """Factorise a nonnegative matrix some rows of which are wrong, ``X ~ W H`` with nonnegative W and H.

    For X divided by its largest entry and the squared residual norms e_i of its rows it minimises
    ``sum_i rho(e_i) + sparsity phi(H) + sum_to_one^2 / 2 sum_j (1 - sum(H[:, j]))^2``.  A row that does not fit has a
    small weight ``2 rho'(e_i)`` when H is fitted, so that noisy bands of a spectral image do not spoil the abundances.
    An iteration costs ``6 m n rank`` flops.

    Parameters
    ----------
    X : array, shape (m, n)
        Nonnegative data; rows (bands) are what may be wrong, columns are samples (pixels).  For wrong samples pass X.T.
    rank : int, rank >= 0
        Number of endmembers.
    loss : {"correntropy", "huber", "l21"}, default "correntropy"
        ``rho(e)``: ``s (1 - exp(-e / (2 s)))``; ``e / 2``, linear in sqrt(e) beyond a scale; ``sqrt(e)``.
    theta : float, theta > 0, default 1
        Factor of the scale, see Notes.
    scale : {"median", "mean"}, default "median"
        What the scale is taken from.  "mean" is that of [1]_, which bad bands raise.
    sparsity, penalty, sum_to_one
        As in `structured_nmf`; here the sums are free by default.
    init : {"screened", "spa"} or tuple (W, H), default "screened"
        Columns of X that successive projections take (`spa`): of all rows alike, or with rows weighted by the noise
        that other rows do not explain.
    max_iter : int, default 500
    tol : float, default 1e-5
        Stop where the objective falls by at most `tol` of itself over an iteration, and the scale does not change by
        more than 5 %.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the run.
    rng : None, int, SeedSequence, Generator or Key
        Fills up the start where X has fewer directions than `rank`.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    RobustNMFResult
        ``W`` (m, rank), ``H`` (rank, n) and ``weights`` (m,); iterates as ``W, H``.

    Raises
    ------
    ValueError
        If X has negative entries, NaN or infinity, or a parameter is out of range.
    TypeError
        If X is sparse, complex or not numeric.

    Notes
    -----
    The scale is s = 2 theta median(e) for "correntropy" (theta mean(e) / 2 with ``scale="mean"``) and
    1.345 theta sqrt(median(e)) for "huber", computed from the start and again where the iteration has settled.  At a
    fixed scale the weights are those of a quadratic majorant and the objective falls.  No scale is below rounding of X,
    so a band that fits exactly does not silence all others; and no squared scale is below a hundredth of the first one,
    as where rank is not small beside m, half of the rows could be fitted exactly and the others given up.

    Rows of W are least-squares fits one by one: weights of rows cancel there, and act through H only.

    Noise that the other rows do not explain is the inverse of the diagonal of ``(X X.T)^-1``, over n.  With fewer
    than 2 m columns it says nothing, and "screened" falls back to "spa".

    Deviations from [1]_: 1. half steps by exact nonnegative least squares in place of multiplicative updates.  2. the
    screened start and the scale from the median, without which the pixels of the start are those of the largest noise.

    References
    ----------
    .. [1] Wang, Pan, Xiang and Zhu, "Robust hyperspectral unmixing with correntropy-based metric", IEEE TIP 24, 2015,
       arXiv:1305.7311.
    .. [2] Kong, Ding and Huang, "Robust nonnegative matrix factorization using L21-norm", CIKM 2011.
    .. [3] Roger and Arnold, "Reliably estimating the noise in AVIRIS hyperspectral images", Int. J. Remote Sensing 17,
       1996.

    Examples
    --------
    >>> import randla
    >>> cube = randla.datasets.spectral_cube(60, (20, 20), 3, snr=40, n_bad_bands=6, rng=0)
    >>> result = randla.robust_nmf(cube.X, 3, sum_to_one=5.0)
    >>> sorted(result.weights.argsort()[:6].tolist()) == cube.bad_bands.tolist()
    True
    """
    check_choice(loss, "loss", LOSSES)
    check_choice(scale, "scale", SCALES)
    theta = check_real(theta, "theta", low=0.0, closed="neither")
    model = mixture(X, sum_to_one=sum_to_one, sparsity=sparsity, penalty=penalty)
    rank = check_integer(rank, "rank", low=0)
    max_iter, tol = check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0)
    key, reason = as_key(rng).fold("robust_nmf"), "init given"
    first = model
    if isinstance(init, str):
        check_choice(init, "init", STARTS)
        noise = band_noise(model) if init == "screened" else None
        reason = "pure pixels of all bands" if noise is None else "pure pixels of bands weighted by their noise"
        first = model if noise is None else replace(model, weights=screen(noise, model.xp))
    W, H = first_factors(first, rank, init, None, key, STARTS)
    state, rule, stages = _stages(model, W, H, _Rule(model, loss, theta, scale), max_iter, tol, callback)
    weights = rule.apply(model.band_errors(state.W, state.H))[1]
    top = float(model.xp.max(weights)) if model.data.shape[0] else 0.0
    result = RobustNMFResult(
        state.W * model.unit, state.H, relative_error(model, state), loss, state.objective, solver="pivots",
        reason=reason, n_iter=state.n_iter, n_passes=3.0 * state.n_iter, history=tuple(state.history),
        start_objectives=(state.objective,), status=state.status, weights=weights / top if top > 0 else weights,
        scale=math.sqrt(rule.value) * model.unit, stages=tuple(stages), sum_error=sum_error(model, state.H),
    )  # fmt: skip
    return warn_or_raise(result, "ignore" if state.stopped else on_failure, what="robust_nmf")


def band_noise(model: Mixture) -> Any:
    """Mean squared residual of each row in the regression on all others, float64 (m,); None with few columns."""
    xp, (m, n) = model.xp, model.data.shape
    if n < 2 * m or m < 2:
        return None
    C = xp.astype(model.data.right(model.data.X), xp.float64) / n
    size = float(xp.sum(xp.linalg.diagonal(C))) / m
    if not size > 0:
        return None
    ridge = 4 * m * eps(model.data.dtype) * size
    C = C + ridge * xp.eye(m, dtype=C.dtype, device=device_of(C))
    return 1 / xp.linalg.diagonal(xp.linalg.inv(C))


def screen(noise: Any, xp: Any) -> Any:
    """Weights of rows from their noise: 1 up to four medians, then falling as its inverse."""
    limit = SPREAD * _median(noise, xp)
    return xp.where(noise > limit, limit / xp.where(noise > 0, noise, xp.ones_like(noise)), xp.ones_like(noise))


def _median(values: Any, xp: Any) -> float:
    return float(xp.sort(values)[int(values.shape[0]) // 2]) if values.shape[0] else 0.0


class _Rule:
    """The loss of squared residual norms of rows, and the weights of its majorant, at a scale."""

    def __init__(self, model: Mixture, loss: str, theta: float, scale: str) -> None:
        self.xp, self.loss, self.theta, self.scale, self.value = model.xp, loss, theta, scale, 0.0
        m = max(1, model.data.shape[0])
        # rounding of the data leaves so much of a row, whatever the fit
        self.floor = max(eps(model.data.dtype) ** 2 * model.data.squared_norm / m * 16, 1e-290)

    def at(self, e: Any) -> _Rule:
        """The same rule with the scale of these residuals."""
        new = copy(self)
        middle = _median(e, self.xp) if self.scale == "median" else float(self.xp.mean(e)) if e.shape[0] else 0.0
        if self.loss == "correntropy":
            new.value = max(self.theta * middle * (SPREAD / 2 if self.scale == "median" else 0.5), self.floor)
        elif self.loss == "huber":
            new.value = max((HUBER * self.theta) ** 2 * middle, self.floor)
        if self.value == 0.0:
            new.floor = max(self.floor, LEAST * new.value) if self.loss != "l21" else self.floor
        return new

    def apply(self, e: Any) -> tuple[float, Any]:
        """The loss, and the weights of a quadratic that is no less and touches it here."""
        xp, s = self.xp, self.value
        if self.loss == "correntropy":
            weights = xp.exp(-e / (2 * s))
            return s * float(xp.sum(-xp.expm1(-e / (2 * s)))), weights
        root = xp.sqrt(xp.where(e > self.floor, e, self.floor))
        if self.loss == "l21":  # below the floor continued by its tangent
            low = math.sqrt(self.floor)
            return float(xp.sum(xp.where(e > self.floor, root, low + (e - self.floor) / (2 * low)))), 1 / root
        cut = math.sqrt(s)
        inside = e <= s
        return float(xp.sum(xp.where(inside, e / 2, cut * root - s / 2))), xp.where(inside, xp.ones_like(e), cut / root)


def _stages(
    model: Mixture, W: Any, H: Any, rule: _Rule, max_iter: int, tol: float, callback: Callable[[Step], object] | None,
) -> tuple[Mixed, _Rule, list[int]]:  # fmt: skip
    """Iterate at a scale until it settles, set the scale anew, and so on until that settles too."""
    rule = rule.at(model.band_errors(W, H))
    stages: list[int] = []
    history: list[float] = []
    begun = 0
    while True:
        stages.append(begun)
        state = unmix(
            model, W, H, free=True, max_iter=max_iter, tol=tol, callback=callback, loss=rule.apply, begun=begun
        )
        history = state.history if not history else history + state.history[1:]
        state.history, W, H, begun = history, state.W, state.H, state.n_iter
        if state.stopped or state.status is not Status.CONVERGED:
            return state, rule, stages
        new = rule.at(model.band_errors(W, H))
        if abs(new.value - rule.value) <= SETTLED * rule.value:
            return state, rule, stages
        rule = new
