"""What solvers share that go over the costs in both directions: logarithms of masses, and mixing that is undone."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .sweeps import DEPTH, Mixing

FIRST_PAUSE, LONGEST_PAUSE = 4, 64  # plain sweeps after a mixed one that led astray
BLUR = 1e-14  # relative rounding of a dual value
STEEPNESS = 4.0  # largest cost over the regularisation at which annealing begins: at 64 sweeps are a tenth more
LARGEST = 700.0  # exponent of a number that can still be added up


def log_mass(weights: Any) -> Any:
    """Logarithms of masses, -inf where there is none."""
    xp = array_namespace(weights)
    positive = weights > 0
    logs = xp.log(xp.where(positive, weights, xp.ones_like(weights)))
    return xp.where(positive, logs, xp.full_like(weights, -math.inf))


def exponential(x: Any) -> Any:
    """``exp(x)``, at most e**700: larger ones stand for far too much, not for infinity."""
    xp = array_namespace(x)
    return xp.exp(xp.where(x > LARGEST, xp.full_like(x, LARGEST), x))


class GuardedMixing:
    """Anderson's mixing that goes back where it leads astray, and makes plain sweeps for a while, longer each time.

    Points have `given` and `image`, where a sweep starts and where it leads, an `error`, and a `dual` value with the
    `blur` of its rounding.  Plain sweeps never lower a dual, so a mixed one that does is undone.  A dual that is NaN,
    for problems without one, leaves the errors to be compared; those may rise in plain sweeps on their way from far
    off, and above an error of `far` no sweep is mixed.
    """

    def __init__(self, xp: Any, far: float = math.inf) -> None:
        self.mixing, self.far = Mixing(None, xp, DEPTH), far
        self.first_pause = 0 if far == math.inf else FIRST_PAUSE
        self.pause, self.next_pause, self.mixed = 0, self.first_pause, False
        self.best: Any = None  # by its error
        self.last: Any = None  # that was not undone
        self.stale = 0  # sweeps without progress

    def next(self, point: Any, weights: Any) -> Any:
        """Where the next sweep starts; changes are compared in the norm of `weights`."""
        if self.mixed and self._is_worse(point):
            point = self.best if math.isnan(point.dual) else self.last
            self.pause, self.next_pause = self.next_pause, min(max(1, 2 * self.next_pause), LONGEST_PAUSE)
            self.mixing.forget()
            self.stale += 1
        else:
            self.next_pause = self.first_pause if self.mixed else self.next_pause
            ahead = self.best is None or point.error < self.best.error
            self.stale = 0 if ahead or point.dual > self.last.dual + self.last.blur else self.stale + 1
            self.last, self.best = point, point if ahead else self.best
        self.mixed = False
        if self.pause > 0 or not point.error <= self.far:
            self.pause -= self.pause > 0
            self.mixing.forget()
            return point.image
        self.mixing.b = weights
        self.mixed = bool(self.mixing.points)
        return self.mixing.next(point.given, point.image - point.given)

    def _is_worse(self, point: Any) -> bool:
        change = point.dual - self.last.dual
        if abs(change) > self.last.blur:
            return change < 0
        return not point.error <= 2 * self.best.error  # also for NaN
