"""Factorisation of least volume: parts that lie as close around the data as the error allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ._matrices import as_nonnegative, gram
from .initialization import random_factor
from .results import NMFResult
from .separable import _Columns, successive_hull
from .simplex import nonneg_lstsq, onto_simplex

NORMALIZATIONS = ("w-columns", "h-columns", "h-columns-at-most", "h-rows")
INNER = 10  # gradient steps on a factor in each iteration
BAND = 1e-3  # the target error is met within this share of it
PACE = 1.05  # the weight changes by this factor while it is not; its logarithm is halved when the error crosses
LEAST_ERROR = 1e-6  # squared error of the start, relative to that of X, with which the weight is scaled at least


@dataclass(frozen=True, repr=False)
class MinVolResult(NMFResult):
    """Factorisation ``X ~ W H`` with a penalty on the volume of the columns of W.

    Attributes
    ----------
    W, H, error, error_kind, loss, solver, reason, n_iter, n_passes, start_objectives, n_revived, status
        As in `NMFResult`.
    objective : float
        ``||X - W H||_F^2 + weight * volume``, over the squared norm of X.
    stationarity : float
        The larger of the relative changes that a projected gradient step makes to W and to H; the stopping quantity.
    history : tuple of float
        The objective at the start and after each iteration; with a fixed weight it never rises.
    errors : tuple of float
        The error at the same moments.
    volume : float
        ``log det(W.T W / unit + delta I)``, with the mean squared column norm of the first W as the unit.
    weight : float
        Final weight of the volume, relative to the squared norm of X.
    normalization : str
        Which sums are one.
    """

    errors: tuple[float, ...] = ()
    volume: float = math.nan
    weight: float = math.nan
    normalization: str = ""


def minvol_nmf(
    X: Any, rank: int, *, weight: float = 0.1, delta: float = 0.1, normalization: str = "w-columns",
    target: float | None = None, init: Any = "snpa", max_iter: int = 500, tol: float = 1e-4, rng: Any = None,
    callback: Callable[[int, float], Any] | None = None, on_failure: str = "warn",
) -> MinVolResult:  # fmt: skip
    """Factor a nonnegative matrix with parts of least volume.

    Minimises ``||X - W H||_F^2 + weight' log det(W.T W + delta I)`` over nonnegative W and H with sums of one.  Among
    the factorisations of nearly the same error it takes the one whose parts lie closest around the data; if H is
    sufficiently scattered (`check_ssc`) that is the true one, and unlike for plain factorisations that also holds
    where no column of X is pure.  The term with delta allows W of deficient rank.

    Parameters
    ----------
    X : array, or CSR or CSC matrix, shape (m, n)
        Nonnegative data; it is not changed.
    rank : int, 1 <= rank <= n
        Number of parts.
    weight : float, weight >= 0, default 0.1
        Share of the squared error of the start that its volume term has in the objective, from which the weight that
        is used follows.
    delta : float, delta > 0, default 0.1
        Relative to the mean squared norm of the columns of the first W: directions of W that are shorter cost no
        volume.
    normalization : {"w-columns", "h-columns", "h-columns-at-most", "h-rows"}, default "w-columns"
        Columns of W sum to one; columns of H sum to one (mixtures: abundances), or to at most one; or rows of H do.
    target : float, optional
        Wanted error ``||X - W H||_F / ||X||_F``: the weight is raised by 5 % in iterations in which the error is below
        it, and lowered where it is above, until it is met within 0.1 %; by less each time that the error crosses it.
    init : {"snpa", "random"} or pair of arrays, shapes (m, rank) and (rank, n), default "snpa"
        The columns of X that `snpa` takes, filled up by random ones where they are fewer; random numbers; or factors.
    max_iter : int, max_iter >= 0, default 500
    tol : float, tol >= 0, default 1e-4
        Stop when a projected gradient step changes neither W nor H by more than this share of its norm (and the target
        is met).
    rng : None, int, SeedSequence, Generator or Key
        Source of random starts.
    callback : callable, optional
        Called with the number of iterations and the objective; returning True ends the iteration.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    MinVolResult
        ``W`` (m, rank) and ``H`` (rank, n) with error, volume and objective; iterates as ``W, H``.

    Raises
    ------
    ValueError
        If X has negative entries or NaN, `init` does not fit, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    The concave log det is replaced by its tangent at the last W, with slope ``(W.T W + delta I)^-1`` [1]_; what remains
    for each factor is convex and takes accelerated projected gradient steps (coordinate sweeps where only signs are
    constrained), of which a result that is not better than the start is dropped.  So the objective cannot rise.

    Deviations from [1]_: (1) delta is relative, so that the result does not depend on the scale of X; (2) the start's
    volume, by which the weight is divided, is taken as 0.1 rank at least, as a logarithm can be near zero.

    References
    ----------
    .. [1] Leplat, Ang and Gillis, "Minimum-volume rank-deficient nonnegative matrix factorizations", ICASSP 2019.
    .. [2] Gillis, "Nonnegative matrix factorization", SIAM 2020, section 4.3 and chapter 8.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> W, H = rng.random((30, 3)), rng.dirichlet(np.ones(3), 300).T
    >>> H = H[:, H.max(axis=0) < 0.8]  # no column is pure
    >>> result = randla.minvol_nmf(W @ H, 3, normalization="h-columns", tol=1e-3, on_failure="ignore")
    >>> result.error < 0.01
    True
    """
    check_choice(normalization, "normalization", NORMALIZATIONS)
    weight, delta = check_real(weight, "weight", low=0.0), check_real(delta, "delta", low=0.0, closed="neither")
    target = None if target is None else check_real(target, "target", low=0.0, high=1.0, closed="neither")
    max_iter, tol = check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0)
    X = as_matrix(X, name="X")
    scale = 1.0
    try:
        data = as_nonnegative(X)
    except OverflowError as error:  # squares would leave the range: a power of two loses no digits
        scale = 2.0 ** math.frexp(error.args[0])[1]
        data = as_nonnegative(X / scale)
    rank = check_integer(rank, "rank", low=1, high=data.shape[1])
    if not data.squared_norm > 0:
        raise ValueError("X must have a positive entry, got zeros only")
    problem = _Problem(data, delta, normalization, scale)
    Wt, H = problem.started(rank, init, as_key(rng).fold("minvol_nmf"))
    result = _iterate(problem, Wt, H, weight, target, max_iter, tol, callback)
    return warn_or_raise(result, on_failure, what="minvol_nmf")


def _iterate(
    problem: _Problem, Wt: Any, H: Any, weight: float, target: float | None, max_iter: int, tol: float, callback: Any
) -> MinVolResult:
    fit = problem.fit(Wt, H)
    volume = problem.volume(Wt)
    scaled = weight * max(LEAST_ERROR, fit) / max(abs(volume), 0.1 * H.shape[0])
    history, errors, status, moved = [fit + scaled * volume], [math.sqrt(fit)], Status.MAX_ITER, math.nan
    noise, pace, side = 64 * eps(problem.data.dtype), math.log(PACE), 0.0
    for step in range(max_iter):
        if target is not None and step and abs(errors[-1] / target - 1) > BAND:
            now = math.copysign(1.0, target - errors[-1])
            pace, side = (pace / 2 if now == -side else pace), now
            scaled *= math.exp(max(pace, BAND) * side)
        before = fit + scaled * volume
        H, h_moved = problem.update_h(Wt, H)
        new, w_moved = problem.update_w(Wt, H, scaled)
        fit, volume, moved = problem.fit(new, H), problem.volume(new), max(h_moved, w_moved)
        Wt = new
        history.append(fit + scaled * volume)
        errors.append(math.sqrt(fit))
        if not math.isfinite(history[-1]):
            status = Status.NONFINITE
            break
        if history[-1] > before + noise * (1 + abs(scaled * volume)):  # no step may raise it by more than rounding
            status = Status.STAGNATED
            break
        met = target is None or abs(errors[-1] / target - 1) <= BAND
        if moved <= tol and met:
            status = Status.CONVERGED
            break
        if callback is not None and callback(step + 1, history[-1]):
            break
    return problem.result(Wt, H, history, errors, scaled, moved, status)


class _Step(NamedTuple):
    """A factor after some steps, and by how much the first of them changed it, relative to its norm."""

    factor: Any
    moved: float


class _Problem:
    """The objective over the squared norm of X, its constraints, and a step for each factor; parts are rows."""

    def __init__(self, data: Any, delta: float, normalization: str, scale: float) -> None:
        self.data, self.xp, self.delta, self.normalization = data, data.xp, delta, normalization
        self.unit, self.scale = 1.0, scale  # the data are those of the caller over the scale

    def started(self, rank: int, init: Any, key: Key) -> tuple[Any, Any]:
        """Factors that satisfy the constraints, and the unit of the volume."""
        xp, data, m = self.xp, self.data, self.data.shape[0]
        if isinstance(init, str):
            check_choice(init, "init", ("snpa", "random"))
            Wt = random_factor(rank, m, data, key.fold("W"))
            if init == "snpa":
                chosen = successive_hull(_Columns(data.source, normalize=True), rank, 32 * eps(data.dtype)).columns
                picked = xp.stack([data.column(j) for j in chosen])
                Wt = xp.concat([picked, Wt[len(chosen) :, :] * xp.mean(picked)], axis=0)
            if self.normalization in ("h-columns", "h-columns-at-most"):  # columns of X are mixtures as they are
                G, B = gram(Wt, xp), xp.astype(data.left(Wt), xp.float64)
                H = self._simplex_lstsq(G, B, onto_simplex(nonneg_lstsq(G, B), at_most=True), steps=100).factor
                H = onto_simplex(H, at_most=self.normalization != "h-columns")
                self._set_unit(Wt)
                return Wt, xp.astype(H, data.dtype)
            H = xp.astype(nonneg_lstsq(gram(Wt, xp), xp.astype(data.left(Wt), xp.float64)), data.dtype)
        else:
            Wt, H = self._given(init, rank)
        Wt, H = self._normalized(Wt, H)
        self._set_unit(Wt)
        return Wt, H

    def _given(self, init: Any, rank: int) -> tuple[Any, Any]:
        try:
            W, H = init
        except (TypeError, ValueError):
            raise ValueError(f'init must be "snpa", "random" or a pair (W, H), got {init!r}') from None
        parts = []
        for F, name, wanted in ((W, "W", (self.data.shape[0], rank)), (H, "H", (rank, self.data.shape[1]))):
            F = as_matrix(F, name=f"init {name}", sparse=False)
            check_together(self.data.like, F, names=("X", f"init {name}"))
            if tuple(F.shape) != wanted:
                raise ValueError(f"init {name} must have shape {wanted}, got {tuple(F.shape)}")
            if not bool(self.xp.all(F >= 0)):
                raise ValueError(f"init {name} must be nonnegative, got a negative entry or NaN")
            parts.append(self.xp.astype(F, self.data.dtype))
        return self.xp.asarray(parts[0].mT, copy=True), parts[1] / self.scale

    def _normalized(self, Wt: Any, H: Any) -> tuple[Any, Any]:
        """The same product, as far as the constraint allows it."""
        xp = self.xp
        if self.normalization in ("h-columns", "h-columns-at-most"):
            return Wt, onto_simplex(H, at_most=self.normalization != "h-columns")
        sums = xp.sum(Wt if self.normalization == "w-columns" else H, axis=1, keepdims=True)
        flat = 1.0 / (Wt if self.normalization == "w-columns" else H).shape[1]
        sums = xp.where(sums > 0, sums, 1.0)
        if self.normalization == "w-columns":
            Wt = Wt / sums
            return xp.where(xp.sum(Wt, axis=1, keepdims=True) > 0, Wt, flat), H * sums
        H = H / sums
        return Wt * sums, xp.where(xp.sum(H, axis=1, keepdims=True) > 0, H, flat)

    def _set_unit(self, Wt: Any) -> None:
        self.unit = float(self.xp.linalg.trace(gram(Wt, self.xp))) / Wt.shape[0] or 1.0

    def _loaded(self, Wt: Any) -> Any:
        """``W.T W / unit + delta I``."""
        G = gram(Wt, self.xp)
        return G / self.unit + self.delta * self.xp.eye(G.shape[0], dtype=G.dtype, device=device_of(G))

    def volume(self, Wt: Any) -> float:
        """The logarithm of the determinant of what is positive definite by delta."""
        L = self.xp.linalg.cholesky(self._loaded(Wt))
        return 2 * float(self.xp.sum(self.xp.log(self.xp.linalg.diagonal(L))))

    def fit(self, Wt: Any, H: Any) -> float:
        """``||X - W H||_F^2 / ||X||_F^2``, from Gram matrices, and block by block where that loses digits."""
        xp, whole = self.xp, self.data.squared_norm
        inner = float(xp.sum(xp.astype(self.data.left(Wt), xp.float64) * xp.astype(H, xp.float64)))
        value = (whole - 2 * inner + float(xp.sum(gram(Wt, xp) * gram(H, xp)))) / whole
        return self.data.residual_squares(Wt, H) / whole if value < 1e8 * eps(self.data.dtype) else value

    def update_h(self, Wt: Any, H: Any) -> _Step:
        """Steps on H: the products of X with W are formed once."""
        xp = self.xp
        G, B = gram(Wt, xp), xp.astype(self.data.left(Wt), xp.float64)
        step = self._signs_only(G, B, H) if self.normalization == "w-columns" else self._simplex_lstsq(G, B, H)
        return _Step(xp.astype(step.factor, self.data.dtype), step.moved)

    def update_w(self, Wt: Any, H: Any, weight: float) -> _Step:
        """Steps on W, with the volume replaced by its tangent: ``weight'`` times the inverse joins the Gram matrix."""
        xp = self.xp
        slope = weight * self.data.squared_norm / self.unit
        G = gram(H, xp) + slope * xp.linalg.inv(self._loaded(Wt))
        B = xp.astype(self.data.right(H), xp.float64)
        if self.normalization == "w-columns":
            step = self._gradient_steps(G, B, Wt, lambda F: onto_simplex(F.mT).mT)
        else:
            step = self._signs_only(G, B, Wt)
        return _Step(xp.astype(step.factor, self.data.dtype), step.moved)

    def _simplex_lstsq(self, G: Any, B: Any, H: Any, steps: int = INNER) -> _Step:
        if self.normalization == "h-rows":
            return self._gradient_steps(G, B, H, lambda F: onto_simplex(F.mT).mT, steps)
        at_most = self.normalization == "h-columns-at-most"
        return self._gradient_steps(G, B, H, lambda F: onto_simplex(F, at_most=at_most), steps)

    def _signs_only(self, G: Any, B: Any, F: Any) -> _Step:
        """Coordinate sweeps, and the projected gradient step that tells how far from stationary the start was."""
        xp = self.xp
        F = xp.astype(F, xp.float64)
        first = xp.maximum(F - (xp.matmul(G, F) - B) / _largest(G, xp), xp.zeros_like(F))
        return _Step(kernel("nonneg_sweeps", xp)(G, B, F, INNER, 1e-2), _change(first, F, xp))

    def _gradient_steps(self, G: Any, B: Any, F: Any, project: Callable[[Any], Any], steps: int = INNER) -> _Step:
        """Accelerated projected gradient steps on ``tr(F.T G F) / 2 - tr(B.T F)``, with a restart where that rises."""
        xp = self.xp
        F = xp.astype(F, xp.float64)
        lipschitz = _largest(G, xp)

        def value(M: Any) -> float:
            return float(xp.sum(M * (0.5 * xp.matmul(G, M) - B)))

        best, least, previous, Y, t, moved = F, value(F), F, F, 1.0, 0.0
        for step in range(steps):
            new = project(Y - (xp.matmul(G, Y) - B) / lipschitz)
            moved = _change(new, F, xp) if step == 0 else moved
            now = value(new)
            if now > least:  # restart from the best
                if t == 1.0:
                    break
                previous, Y, t = best, best, 1.0
                continue
            ahead = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
            Y = new + ((t - 1) / ahead) * (new - previous)
            best, least, previous, t = new, now, new, ahead
        return _Step(best, moved)

    def result(
        self, Wt: Any, H: Any, history: list[float], errors: list[float], weight: float, moved: float, status: Status
    ) -> MinVolResult:
        """Factors in the shapes of the caller, with the error of what is returned."""
        xp = self.xp
        error = math.sqrt(self.data.residual_squares(Wt, H) / self.data.squared_norm)
        volume, W = self.volume(Wt), xp.asarray(Wt.mT, copy=True)
        W, H = (W, H * self.scale) if self.normalization == "w-columns" else (W * self.scale, H)
        return MinVolResult(
            W, H, error, objective=history[-1], stationarity=moved, solver="minvol",
            n_iter=len(history) - 1, n_passes=self.data.n_passes, history=tuple(history), status=status,
            errors=tuple(errors), volume=volume, weight=weight, normalization=self.normalization,
        )  # fmt: skip


def _largest(G: Any, xp: Any) -> float:
    """The largest eigenvalue of a semidefinite matrix, 1 for zeros."""
    return float(xp.max(xp.linalg.eigh(G)[0])) * (1 + 1e-12) or 1.0


def _change(new: Any, old: Any, xp: Any) -> float:
    size = float(xp.linalg.vector_norm(old))
    return float(xp.linalg.vector_norm(new - old)) / size if size else 0.0
