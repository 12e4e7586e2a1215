"""Sinkhorn sweeps on the potential of the columns, and their acceleration by mixing of what came before.

Each sweep takes g to the f that makes the rows exact and measures the sums of the columns; the plain next g makes the
columns exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays import from_host, to_host
from .._backend import kernel

DEPTH = 10  # earlier points that are mixed
STALE = 300  # sweeps without progress
ANNEALING_SWEEPS = 3  # at each regularisation on the way
FAR = 200.0  # exponent that a scaling may reach before it is taken into the kernel: e**FAR is far from overflow
LOST = 1e-250  # column sums below have lost digits, and the column is summed in logarithms


def levels(cost: Any, reg: float, steepness: float) -> list[float]:
    """Regularisations to go through before `reg`: the largest cost over `steepness`, and half of it again and again."""
    level, found = cost.largest() / steepness, []
    while level > reg:
        found.append(level)
        level = level / 2
    return found


class LogSweeps:
    """Sweeps by log-sum-exp over the costs: nothing of size n m is stored."""

    name = "log"

    def __init__(self, cost: Any, a: Any, reg: float) -> None:
        self.cost, self.a, self.reg = cost, a, reg

    def __call__(self, g: Any) -> tuple[Any, Any]:
        """The f that makes the rows of the plan sum to a, and the sums of the columns."""
        return self.cost.sweep(self.a, g, self.reg)


class ScalingSweeps(LogSweeps):
    """Sweeps by products with a stored plan of earlier potentials, made again when g has gone far from them."""

    name = "sinkhorn"

    def __init__(self, cost: Any, a: Any, reg: float) -> None:
        super().__init__(cost, a, reg)
        self.K: Any = None
        self.f: Any = None
        self.base: Any = None

    def __call__(self, g: Any) -> tuple[Any, Any]:
        """As for the base class, by products with the stored plan where g is near enough."""
        xp = self.cost.xp
        if self.K is None or float(xp.max(xp.abs(g - self.base))) > FAR * self.reg:
            f, sums = super().__call__(g)
            self.K, self.f, self.base = self.cost.plan(f, g, self.reg), f, g
            return f, sums
        v = xp.exp((g - self.base) / self.reg)
        u, sums = kernel("scaling_sweep", xp)(self.K, self.a, v)
        if bool(xp.any(u == 0)):  # a row of the stored plan has nothing where g is now
            self.K = None
            return self(g)
        return self.f + self.reg * xp.log(u), v * sums


def column_change(cost: Any, b: Any, f: Any, g: Any, sums: Any, reg: float) -> Any:
    """The change of g that makes the columns of the plan sum to b, from their sums."""
    xp = cost.xp
    lost = sums < LOST
    change = reg * xp.log(b / xp.where(lost, b, sums))
    if bool(xp.any(lost)):
        places = xp.nonzero(lost)[0]
        fresh = cost.take(columns=places).T.softmin(f, reg)
        change[places] = reg * xp.log(xp.take(b, places)) + fresh - xp.take(g, places)
    return change


class Mixing:
    """Anderson's mixing: the combination of earlier points whose changes cancel best gives the next one.

    Changes are compared in the norm weighted by b, in which a sweep near the solution is a symmetric map, so that it
    takes the steps of conjugate gradients.  Source: Anderson 1965; Walker and Ni 2011.
    """

    def __init__(self, b: Any, xp: Any, depth: int) -> None:
        self.b, self.xp, self.depth = b, xp, depth
        self.forget()

    def forget(self) -> None:
        """Drop the earlier points."""
        self.points: list[Any] = []
        self.changes: list[Any] = []

    def next(self, g: Any, change: Any) -> Any:
        """The next point after g, whose plain successor is ``g + change``."""
        xp = self.xp
        if self.points:
            self.points[-1], self.changes[-1] = g - self.points[-1], change - self.changes[-1]
        moved = g + change
        if self.points:
            self.points, self.changes = self.points[-self.depth :], self.changes[-self.depth :]
            D = xp.stack(self.changes)
            weighted = D * self.b
            gram, right = to_host(weighted @ D.T), to_host(weighted @ change)
            level = float(np.trace(gram))
            if level > 0 and math.isfinite(level):
                gram = gram + 1e-14 * level * np.eye(len(gram))
                shares = from_host(np.linalg.lstsq(gram, right, rcond=None)[0], xp, g)
                moved = moved - shares @ (xp.stack(self.points) + D)
        self.points.append(g)
        self.changes.append(change)
        return moved
