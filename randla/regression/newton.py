"""Damped Newton steps for ``min_z ||b - U z||_p``, 1 < p < inf, each with a bound from below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from .design import Design, lower_bound, norm

#: Residuals below this share of the largest count as this share: powers below zero stay finite.
LEAST_RESIDUAL = 1e-10

#: Weights below this share of the largest count as this share: the normal matrix stays invertible.
LEAST_WEIGHT = 1e-14

_TRIALS = 16  # evaluations of a line search, O(m) each
_SLOPE = 0.1  # share of the first slope at which a line search ends
_LONGEST = 4.0  # the first trial of a line search in directions of reweighted least squares, for p near 1


class Iterate(NamedTuple):
    """Where a minimisation stands: its point, residual and objective, and the best bound from below so far."""

    z: Any
    residual: Any
    objective: float
    lower: float

    @property
    def excess(self) -> float:
        """Bound of ``objective / minimum - 1``."""
        if self.objective == 0.0:
            return 0.0
        return max(0.0, self.objective / self.lower - 1.0) if self.lower > 0.0 else math.inf


def iterates(design: Design, p: float, z: Any) -> Iterator[Iterate]:
    """The start, then the point after each step; ends where no step lowers the objective.

    The direction d of reweighted least squares, ``(U^T Q U) d = U^T y`` with ``y = sign(r) |r|^(p-1)`` and
    ``Q = diag(|r|^(p-2))``, is (p - 1) times that of Newton; a line search finds the step.  ``y - Q U d`` is orthogonal
    to the columns of U and differs from the y of the next point in second order only, so it gives the bound.
    For p < 2 residuals below a floor count as the floor, which starts near the median and falls with each step.
    """
    xp, lower, n_iter = design.xp, 0.0, 0
    r = design.b - design.matmul(z)
    while True:
        objective, top = norm(r, p), float(xp.max(xp.abs(r)))
        if objective == 0.0 or not math.isfinite(objective):
            yield Iterate(z, r, objective, lower)
            return
        t = r / top
        y = xp.sign(t) * xp.abs(t) ** (p - 1.0)
        q = _weights(xp.abs(t), p, n_iter, xp)
        d = _solve(design.gram(q), design.adjoint(y), xp)
        s = design.matmul(d)
        lower = max(lower, lower_bound(design, r, y - q * s, p))
        yield Iterate(z, r, objective, lower)
        step = _line_search(t, s, p, xp) * top
        trial = r - step * s
        n_iter += 1
        if norm(trial, p) >= objective:
            if p >= 2.0 or n_iter > -math.log10(LEAST_RESIDUAL):
                return
            continue  # the floor was too high to see which way is down; the next one is lower
        z = z + step * d
        r = design.b - design.matmul(z)


def _weights(t: Any, p: float, n_iter: int, xp: Any) -> Any:
    """``t**(p-2)``, kept from infinity and from zero."""
    if p < 2.0:
        floor = max(LEAST_RESIDUAL, float(xp.sort(t)[t.shape[0] // 2]) * 10.0**-n_iter)
        t = xp.where(t > floor, t, floor * xp.ones_like(t))
    q = t ** (p - 2.0)
    least = LEAST_WEIGHT * xp.max(q) * xp.ones_like(q)
    return xp.where(q > least, q, least)


def _solve(G: Any, g: Any, xp: Any) -> Any:
    """The solution of least norm of a positive semidefinite system, scaled to a unit diagonal."""
    length = xp.sqrt(xp.linalg.diagonal(G))
    length = xp.where(length > 0, length, xp.ones_like(length))
    values, V = xp.linalg.eigh(G / (length[:, None] * length[None, :]))
    known = values > xp.max(values) * (values.shape[0] * 2.0**-52)
    inverse = xp.where(known, 1.0 / xp.where(known, values, xp.ones_like(values)), xp.zeros_like(values))
    return (V @ (inverse * (V.T @ (g / length)))) / length


def _line_search(t: Any, s: Any, p: float, xp: Any) -> float:
    """A step a along s that about minimises ``||t - a s||_p``: false position and bisection on the slope."""

    def slope(a: float) -> float:
        v = t - a * s
        return -float(xp.sum(xp.sign(v) * xp.abs(v) ** (p - 1.0) * s))

    first = slope(0.0)
    low, below, high, above = 0.0, first, math.inf, math.inf
    a = min(max(1.0, 1.0 / (p - 1.0)), _LONGEST) if p < 2.0 else 1.0 / (p - 1.0)
    for trial in range(_TRIALS):
        here = slope(a)
        if abs(here) <= _SLOPE * abs(first):
            return a
        if here < 0.0:
            low, below = a, here
        else:
            high, above = a, here
        if math.isinf(high):
            a *= 2.0
        elif trial % 2:  # false position alone creeps where the slope grows like a power
            a = (low + high) / 2.0
        else:
            a = low + (high - low) * below / (below - above)
    return low  # downhill still, so that the norm, a convex function, is below its start
