"""Factorisations for beta divergences: coordinate Newton steps for Kullback-Leibler, multiplicative updates for all.

``d(x, y) = x log(x / y) - x + y`` for beta = 1, ``x / y - log(x / y) - 1`` for 0, and else
``(x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from .._arrays import eps
from .._backend import kernel
from .._results import Status
from ..completion.observations import Observations, as_observations
from ._matrices import BLOCK_ENTRIES, Sparse
from .frobenius import Fit, Penalties, Step

SWEEPS = 2  # of coordinates in a half step
LOOK_EVERY = 5  # iterations between measurements of stationarity, which cost two products
SETTLED = 1e-12  # relative fall of the objective over LOOK_EVERY iterations that is rounding


def floor_of(data: Any, total: float, rank: int) -> float:
    """The least entry of a factor: logarithms and quotients of the model stay finite."""
    mean = total / max(1, data.shape[0] * data.shape[1])
    return eps(data.dtype) * math.sqrt(mean / max(1, rank)) * 1e-2


def positive_entries(data: Any) -> Observations:
    """The positive entries of X by rows; by columns in `transposed`."""
    xp = data.xp
    if isinstance(data, Sparse):
        rows = Observations(*data.rows, data.shape)
        rows.__dict__["transposed"] = Observations(*data.columns, data.shape[::-1])
        return rows if bool(xp.all(rows.data > 0)) else rows.select(rows.data > 0)
    return as_observations(xp.where(data.X > 0, data.X, math.nan * xp.ones_like(data.X)))


def newton(
    data: Any, Wt: Any, H: Any, penalties: Penalties, *, max_iter: int, tol: float,
    callback: Callable[[Step], object] | None = None,
) -> Fit:  # fmt: skip
    """Kullback-Leibler by damped Newton steps in one coordinate at a time (Hsieh and Dhillon; Hien and Gillis)."""
    xp, entries = data.xp, positive_entries(data)
    total = total_of(data)
    floor, sides = floor_of(data, total, int(H.shape[0])), (entries, entries.transposed)
    W, V = _rows(Wt, floor, xp), _rows(H, floor, xp)  # V = H.T
    best = kl_objective(entries, W, V, xp) + penalties.of(W, V, xp)
    fit = Fit(Wt, H, best, math.inf, 0, [best], 0, Status.MAX_ITER)
    scale, watched = constant_divergence(data, 1.0), best
    sweep = kernel("divergence_sweeps", xp)
    while fit.n_iter < max_iter:
        for side in (1, 0):
            mine, other = (V, W) if side else (W, V)
            l1, l2 = (penalties.l1_H, penalties.l2_H) if side else (penalties.l1_W, penalties.l2_W)
            pattern, sums = sides[side], xp.sum(xp.astype(other, xp.float64), axis=0) + l1
            mine = sweep(other, pattern.indices, pattern.indptr, pattern.data, sums, l2, mine, SWEEPS, floor)
            W, V = (W, mine) if side else (mine, V)
        value = kl_objective(entries, W, V, xp) + penalties.of(W, V, xp)
        fit.n_iter, data.n_passes = fit.n_iter + 1, data.n_passes + 2 * SWEEPS + 1
        if not math.isfinite(value):
            fit.status = Status.NONFINITE
            break
        fit.history.append(value)
        fit.Wt, fit.H, fit.objective = W, V, min(value, fit.objective)
        if fit.n_iter % LOOK_EVERY == 0 or fit.n_iter == max_iter:
            fit.stationarity = _kl_stationarity(sides, W, V, penalties, floor, xp) / max(scale, 1e-300)
            if fit.stationarity <= tol:
                fit.status = Status.CONVERGED
            elif watched - value <= SETTLED * abs(watched):
                fit.status = Status.STAGNATED
            watched = value
        stop = callback is not None and callback(Step(fit.n_iter, value, _ratio(value, scale), fit.stationarity))
        if stop or fit.status is not Status.MAX_ITER:
            fit.stopped = bool(stop)
            break
    fit.Wt, fit.H = W.T, V.T
    return fit


def _rows(F: Any, floor: float, xp: Any) -> Any:
    """A factor (r, n) as (n, r), at `floor` or above."""
    turned = xp.where(floor < F, F, floor * xp.ones_like(F)).T
    return xp.asarray(turned, copy=True, order="C") if hasattr(turned, "flags") else xp.asarray(turned, copy=True)


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale > 0 else 0.0


def kl_objective(entries: Observations, W: Any, V: Any, xp: Any) -> float:
    """The divergence: the logarithms are those of positive entries only."""
    model = kernel("sampled_products", xp)(W, V, entries.indices, entries.indptr)
    x, y = (xp.astype(part, xp.float64) for part in (entries.data, model))
    sums = [xp.sum(xp.astype(F, xp.float64), axis=0) for F in (W, V)]
    y = xp.where(y > 0, y, 1e-300 * xp.ones_like(y))
    return float(xp.sum(x * xp.log(x / y)) - xp.sum(x) + xp.sum(sums[0] * sums[1]))


def _kl_stationarity(sides: Any, W: Any, V: Any, penalties: Penalties, floor: float, xp: Any) -> float:
    """Sum of |entry of a factor times its projected slope|, which does not depend on the scale of the parts."""
    total = 0.0
    ratio = sides[0].data / kernel("sampled_products", xp)(W, V, sides[0].indices, sides[0].indptr)
    weights = ((ratio, W, V, penalties.l1_W, penalties.l2_W), (None, V, W, penalties.l1_H, penalties.l2_H))
    for side, (values, mine, other, l1, l2) in zip(sides, weights, strict=True):
        if values is None:
            values = sides[0].by_columns(ratio)
        pull = kernel("csr_matmul", xp)(values, side.indices, side.indptr, other)
        slope = xp.sum(xp.astype(other, xp.float64), axis=0)[None, :] - xp.astype(pull, xp.float64) + l1 + l2 * mine
        free = xp.where((mine > floor) | (slope < 0), slope * mine, xp.zeros_like(slope))
        total += float(xp.sum(xp.abs(free)))
    return total


# --- multiplicative updates -------------------------------------------------------------------------------------------


def _blocks(data: Any) -> Iterator[tuple[int, Any]]:
    """Blocks of rows of X, dense: what powers of the model cost anyway."""
    m, n = data.shape
    step = max(1, BLOCK_ENTRIES // max(1, n))
    for first in range(0, m, step):
        block = data.source[first : min(first + step, m), :]
        yield first, block.toarray() if isinstance(data, Sparse) else block


def _parts(X: Any, Y: Any, beta: float, xp: Any) -> tuple[Any, Any]:
    """Y^(beta - 2) X and Y^(beta - 1) of a block."""
    if beta == 2:
        return X, Y
    if beta == 1:
        return X / Y, xp.ones_like(Y)
    power = Y ** (beta - 2)
    return power * X, power * Y


def beta_objective(data: Any, Wt: Any, H: Any, beta: float) -> float:
    """The divergence of the data from the model, by blocks."""
    xp, total = data.xp, 0.0
    for first, block in _blocks(data):
        x = xp.astype(block, xp.float64)
        y = xp.astype(xp.matmul(Wt[:, first : first + block.shape[0]].T, H), xp.float64)
        total += _divergence(x, y, beta, xp)
    return total


def _divergence(x: Any, y: Any, beta: float, xp: Any) -> float:
    if beta == 2:
        return float(xp.sum((x - y) ** 2)) / 2
    y = xp.where(y > 0, y, 1e-300 * xp.ones_like(y))
    if beta == 1:
        safe = xp.where(x > 0, x, xp.ones_like(x))
        return float(xp.sum(xp.where(x > 0, x * xp.log(safe / y), xp.zeros_like(x)) - x + y))
    if beta == 0:
        return float(xp.sum(x / y - xp.log(x / y) - 1))
    return float(xp.sum(x**beta + (beta - 1) * y**beta - beta * x * y ** (beta - 1))) / (beta * (beta - 1))


def total_of(data: Any) -> float:
    """The sum of all entries."""
    xp, values = data.xp, data.rows[0] if isinstance(data, Sparse) else data.X
    return float(xp.sum(values, dtype=xp.float64))


def constant_divergence(data: Any, beta: float) -> float:
    """The divergence from the best constant matrix, the mean: what errors are relative to."""
    xp, (m, n) = data.xp, data.shape
    mean = total_of(data) / max(1, m * n)
    if beta == 1:  # the linear terms cancel, and zeros add nothing
        values = xp.reshape(data.rows[0] if isinstance(data, Sparse) else data.X, (-1,))
        x = xp.astype(values[values > 0], xp.float64)
        return float(xp.sum(x * xp.log(x / mean))) if mean > 0 else 0.0
    blocks = (xp.astype(block, xp.float64) for _, block in _blocks(data))
    return sum(_divergence(block, mean * xp.ones_like(block), beta, xp) for block in blocks)


def multiplicative(
    data: Any, Wt: Any, H: Any, penalties: Penalties, *, beta: float, max_iter: int, tol: float,
    callback: Callable[[Step], object] | None = None,
) -> Fit:  # fmt: skip
    """Fevotte and Idier: multiplicative updates with the exponent that makes them monotone for each beta."""
    xp = data.xp
    scale = constant_divergence(data, beta)
    floor = floor_of(data, total_of(data), int(H.shape[0]))
    exponent = 1 / (2 - beta) if beta < 1 else (1.0 if beta <= 2 else 1 / (beta - 1))
    Wt, H = (xp.where(floor < F, F, floor * xp.ones_like(F)) for F in (Wt, H))
    first = beta_objective(data, Wt, H, beta) + penalties.of(Wt, H, xp)
    fit = Fit(Wt, H, first, math.inf, 0, [first], 0, Status.MAX_ITER)
    watched = first
    while fit.n_iter < max_iter:
        up, down = products(data, Wt, H, beta, of_H=True)
        ratio_H, slope_H = ratios(up, down, H, penalties.l1_H, penalties.l2_H, floor, xp)
        H = moved(H, ratio_H, exponent, floor, xp)
        up, down = products(data, Wt, H, beta, of_H=False)
        ratio_W, slope_W = ratios(up, down, Wt, penalties.l1_W, penalties.l2_W, floor, xp)
        Wt = moved(Wt, ratio_W, exponent, floor, xp)
        value = beta_objective(data, Wt, H, beta) + penalties.of(Wt, H, xp)
        fit.n_iter += 1
        if not math.isfinite(value):
            fit.status = Status.NONFINITE
            break
        fit.history.append(value)
        fit.Wt, fit.H, fit.objective = Wt, H, value
        fit.stationarity = (slope_H + slope_W) / max(scale, 1e-300)
        if fit.stationarity <= tol:
            fit.status = Status.CONVERGED
        elif fit.n_iter % LOOK_EVERY == 0:
            if watched - value <= SETTLED * abs(watched):
                fit.status = Status.STAGNATED
            watched = value
        stop = callback is not None and callback(Step(fit.n_iter, value, _ratio(value, scale), fit.stationarity))
        if stop or fit.status is not Status.MAX_ITER:
            fit.stopped = bool(stop)
            break
    return fit


def products(data: Any, Wt: Any, H: Any, beta: float, *, of_H: bool) -> tuple[Any, Any]:
    """Numerator and denominator of an update of H (or of Wt)."""
    xp, (m, n) = data.xp, data.shape
    data.n_passes += 1
    shape = (int(H.shape[0]), n if of_H else m)
    up, down = (xp.zeros(shape, dtype=data.dtype, device=getattr(H, "device", None)) for _ in range(2))
    for first, block in _blocks(data):
        part = Wt[:, first : first + block.shape[0]]
        above, below = _parts(block, xp.matmul(part.T, H), beta, xp)
        if of_H:
            up, down = up + xp.matmul(part, above), down + xp.matmul(part, below)
        else:
            up[:, first : first + block.shape[0]] = xp.matmul(H, above.T)
            down[:, first : first + block.shape[0]] = xp.matmul(H, below.T)
    return up, down


def ratios(up: Any, down: Any, F: Any, l1: float, l2: float, floor: float, xp: Any) -> tuple[Any, float]:
    """Numerator over denominator, and the size of the projected slope along the factor."""
    down = down + l1 + l2 * F
    slope = xp.astype(down - up, xp.float64)
    free = xp.where((floor < F) | (slope < 0), slope * F, xp.zeros_like(slope))
    tiny = float(xp.finfo(down.dtype).smallest_normal)
    return up / xp.where(down > tiny, down, tiny * xp.ones_like(down)), float(xp.sum(xp.abs(free)))


def moved(F: Any, ratio: Any, exponent: float, floor: float, xp: Any) -> Any:
    """A factor times a power of the ratios, at `floor` or above."""
    moved = F * (ratio if exponent == 1.0 else ratio**exponent)
    return xp.where(moved > floor, moved, floor * xp.ones_like(moved))
