"""Alternating nonnegative least squares for the Frobenius norm: extrapolated coordinate sweeps, or exact half steps.

Factors have the parts as rows: Wt (r, m) and H (r, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._arrays import eps
from .._backend import kernel
from .._results import Status
from ._matrices import gram

INNER = 0.1  # a half step ends when a sweep changes the factor by less than this share of its first sweep
LOOK_EVERY = 3  # iterations between measurements of stationarity: a tenth of the time of an iteration on sparse data
PANEL = 1024  # columns of a factor at a time where slopes are measured
REVIVE_EVERY = 10  # iterations between looks for parts that died
CANCELLED = 64  # times eps ||X||^2: below, the error of the identity is rounding, and the residual itself is formed
PLATEAU = 10  # iterations without a lower objective after which nothing is to be hoped for


@dataclass(frozen=True)
class Penalties:
    """Coefficients of ``l1 sum(F) + l2 ||F||^2 / 2`` for both factors."""

    l1_W: float = 0.0
    l2_W: float = 0.0
    l1_H: float = 0.0
    l2_H: float = 0.0

    def of(self, Wt: Any, H: Any, xp: Any) -> float:
        """The penalties of two factors."""
        total = 0.0
        for F, l1, l2 in ((Wt, self.l1_W, self.l2_W), (H, self.l1_H, self.l2_H)):
            if l1 or l2:
                wide = xp.astype(F, xp.float64, copy=False)
                total += l1 * float(xp.sum(wide)) + 0.5 * l2 * float(xp.sum(wide * wide))
        return total

    def __bool__(self) -> bool:
        return any((self.l1_W, self.l2_W, self.l1_H, self.l2_H))


@dataclass(frozen=True)
class Step:
    """What a callback is told after an iteration."""

    n_iter: int
    objective: float
    error: float
    stationarity: float


@dataclass
class Fit:
    """The state of an alternating solver: the best factors and how it got there."""

    Wt: Any
    H: Any
    objective: float
    stationarity: float
    n_iter: int
    history: list[float]
    n_revived: int
    status: Status
    stopped: bool = False
    n_passes: float = 0.0


def half_step(G: Any, B: Any, F: Any, l1: float, l2: float, n_sweeps: int, solver: str, xp: Any) -> Any:
    """One factor (r, n) for the Gram matrix of the other and its products with X."""
    if l2:
        G = G + l2 * xp.eye(int(G.shape[0]), dtype=G.dtype, device=getattr(G, "device", None))
    if l1:
        B = B - l1
    if solver == "pivots":
        F, steps = kernel("nonneg_pivots", xp)(G, B, F, 1e-12, 50 + 5 * int(G.shape[0]))
        return F if bool(xp.all(steps >= 0)) else kernel("nonneg_sweeps", xp)(G, B, F, 100, 1e-6)
    return kernel("nonneg_sweeps", xp)(G, B, F, n_sweeps, INNER)


def sweeps_for(data: Any, rank: int, n: int) -> int:
    """Gillis and Glineur: as many sweeps as cost half of the products that they use."""
    m = data.shape[0] + data.shape[1] - n
    return 1 + int(0.5 * (1 + (data.nnz + m * rank) / (n * rank + n)))


def projected_squares(G: Any, B: Any, F: Any, l1: float, l2: float, xp: Any) -> float:
    """Sum over the parts of (||projected gradient|| ||part||)^2, F >= 0: the scale of a part does not matter."""
    slopes, sizes = 0.0, xp.linalg.diagonal(gram(F, xp))
    for first in range(0, int(F.shape[1]), PANEL):  # parts that fit into a cache
        places = slice(first, min(first + PANEL, int(F.shape[1])))
        wide = xp.astype(F[:, places], xp.float64, copy=False)
        slope = xp.matmul(G, wide) - xp.astype(B[:, places], xp.float64, copy=False)
        if l1 or l2:
            slope = slope + (l1 + l2 * wide)
        # a slope that would go below zero is none; exactly so, and in a quarter of the time that `where` takes
        slope = slope - xp.clip(slope, min=0) * xp.astype(wide <= 0, xp.float64)
        slopes = slopes + xp.sum(slope * slope, axis=1)
    return float(xp.sum(slopes * sizes))


def alternate(
    data: Any, Wt: Any, H: Any, penalties: Penalties, *, solver: str, max_iter: int, tol: float,
    callback: Callable[[Step], object] | None = None, extrapolate: bool = True,
) -> Fit:  # fmt: skip
    """Ang and Gillis: alternating half steps from extrapolated factors, with a restart where the error rose."""
    xp, norm = data.xp, data.squared_norm
    rank, (m, n) = int(H.shape[0]), data.shape
    counts = sweeps_for(data, rank, n), sweeps_for(data, rank, m)
    p = penalties
    momentum = Momentum() if extrapolate and solver != "pivots" else Momentum(0.0)
    first = _objective(data, Wt, H, data.left(Wt), gram(Wt, xp), penalties)
    fit = Fit(Wt, H, first, math.inf, 0, [first], 0, Status.MAX_ITER)
    Wy, Hy, last, stale = Wt, H, first, 0
    while fit.n_iter < max_iter:
        look = fit.n_iter % LOOK_EVERY == 0 or fit.n_iter + 1 == max_iter
        G, B = gram(Wy, xp), data.left(Wy)
        slopes = projected_squares(G, B, Hy, p.l1_H, p.l2_H, xp) if look else 0.0
        Hn = half_step(G, B, Hy, p.l1_H, p.l2_H, counts[0], solver, xp)
        Hy = momentum.ahead(Hn, H, xp, keep_positive=True)
        G, B = gram(Hy, xp), data.right(Hy)
        Wn = half_step(G, B, _positive(Wy, xp), p.l1_W, p.l2_W, counts[1], solver, xp)
        slopes += projected_squares(G, B, Wn, p.l1_W, p.l2_W, xp) if look else 0.0
        value = _objective_at(data, Wn, Hy, B, G, penalties)
        fit.n_iter += 1
        if not math.isfinite(value):
            fit.status = Status.NONFINITE
            break
        fit.history.append(value)
        accepted = value <= last
        if accepted:
            Wy = momentum.ahead(Wn, Wt, xp, keep_positive=False)
            Wt, H = Wn, Hn
            momentum.grow()
        else:  # begin again from the factors that were accepted last
            Wy, Hy = Wt, H
            momentum.shrink()
        last = value
        better = value < fit.objective * (1 - 4 * eps(data.dtype) * (not accepted))
        stale = 0 if better else stale + 1
        if better or fit.n_iter == 1:
            fit.Wt, fit.H, fit.objective = Wn, Hy, value
        fit.stationarity = math.sqrt(slopes) / norm if look else fit.stationarity
        if callback is not None:
            error = math.sqrt(max(2 * (value - penalties.of(Wn, Hy, xp)), 0.0) / norm)
            if callback(Step(fit.n_iter, value, error, fit.stationarity)):
                fit.stopped = True
                break
        if look and fit.stationarity <= tol:
            fit.status = Status.CONVERGED
            break
        if stale >= PLATEAU:
            fit.status = Status.STAGNATED
            break
        if fit.n_iter % REVIVE_EVERY == 0 and not penalties:
            Wt, H, n_new = revived(data, Wt, H)
            if n_new:
                fit.n_revived += n_new
                Wy, Hy, last = Wt, H, math.inf
    return fit


class Momentum:
    """How far the next point lies beyond the last step; constants of Ang and Gillis, 2019."""

    def __init__(self, beta: float = 0.5) -> None:
        self.beta, self.limit, self.previous = beta, 1.0, beta

    def ahead(self, new: Any, old: Any, xp: Any, *, keep_positive: bool) -> Any:
        """new + beta (new - old), kept nonnegative if told."""
        if self.beta == 0.0:
            return new
        point = new - old  # changed in place: a factor is larger than the caches
        point *= self.beta
        point += new
        return _positive(point, xp) if keep_positive else point

    def grow(self) -> None:
        """Go further after a step that lowered the error."""
        self.previous = self.beta
        self.beta = min(self.limit, 1.01 * self.beta)
        self.limit = min(1.0, 1.005 * self.limit)

    def shrink(self) -> None:
        """Go less far after a step that raised it."""
        self.limit = self.previous
        self.beta /= 1.5


def _positive(F: Any, xp: Any) -> Any:
    return xp.clip(F, min=0)


def _objective(data: Any, Wt: Any, H: Any, B: Any, G: Any, penalties: Penalties) -> float:
    """The objective from the products of Wt with X and itself."""
    return _squared(data, Wt, H, B, G, H) / 2 + penalties.of(Wt, H, data.xp)


def _objective_at(data: Any, Wt: Any, H: Any, B: Any, G: Any, penalties: Penalties) -> float:
    """The objective from the products of H with X.T and itself."""
    return _squared(data, Wt, H, B, G, Wt) / 2 + penalties.of(Wt, H, data.xp)


def _squared(data: Any, Wt: Any, H: Any, B: Any, G: Any, F: Any) -> float:
    """||X - W H||^2 = ||X||^2 - 2 <B, F> + <G, F F.T>, F the factor that B and G are not of."""
    xp = data.xp
    cross = float(xp.sum(xp.astype(B, xp.float64, copy=False) * xp.astype(F, xp.float64, copy=False)))
    value = data.squared_norm - 2 * cross + float(xp.sum(G * gram(F, xp)))
    if value <= CANCELLED * eps(data.dtype) * data.squared_norm:
        value = data.residual_squares(Wt, H)
    return value


def exact_squares(data: Any, Wt: Any, H: Any) -> float:
    """||X - W H||^2 to the precision of the data."""
    return _squared(data, Wt, H, data.right(H), gram(H, data.xp), Wt)


def revived(data: Any, Wt: Any, H: Any) -> tuple[Any, Any, int]:
    """Begin parts that have become zero anew, each from the column of X that is approximated worst."""
    xp = data.xp
    sizes = xp.linalg.diagonal(gram(Wt, xp)) * xp.linalg.diagonal(gram(H, xp))
    dead = [k for k in range(int(H.shape[0])) if not float(sizes[k]) > 0]
    if not dead or len(dead) == int(H.shape[0]) or not data.squared_norm > 0:
        return Wt, H, 0
    Wt, H = xp.asarray(Wt, copy=True), xp.asarray(H, copy=True)
    cross, G = xp.sum(data.left(Wt) * H, axis=0), gram(Wt, xp)
    wide = xp.astype(H, xp.float64)
    lost = data.column_squares - 2 * cross + xp.sum(xp.matmul(G, wide) * wide, axis=0)
    order = xp.argsort(-lost, stable=True)
    for k, place in zip(dead, range(min(len(dead), data.shape[1])), strict=False):
        j = int(order[place])
        rest = _positive(data.column(j) - xp.matmul(Wt.T, H[:, j]), xp)
        size = math.sqrt(float(xp.linalg.vector_norm(rest)))
        if size > 0:
            Wt[k, :] = rest / size
            H[k, :] = xp.zeros_like(H[k, :])
            H[k, j] = size
    return Wt, H, len(dead)
