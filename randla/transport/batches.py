"""Sweeps of many transport problems with one cost at once: products with the kernel ``exp(-C / reg)``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

STEEPEST = 300.0  # largest cost over reg up to which exp(-C / reg) is used: scalings then stay below exp(600)
DEPTH = 6  # earlier points that are mixed
GROWN = 2.0  # times its best error, at which a problem goes back to its best point and mixes anew


class BatchFound(NamedTuple):
    """Of k problems of mass 1: cost, value and marginal error, (k,), their potentials, and sweeps in all."""

    cost: Any
    value: Any
    error: Any
    x: Any  #: ``g / reg - log b``, shape (k, m)
    n_iter: int


class Batch:
    """Problems with the same cost, solved for ``x = g / reg - log b``, which bins without mass have, too.

    Parameters
    ----------
    cost : Cost
        Costs (n, m), at most `STEEPEST` times reg where they are finite.
    reg : float
        Regularisation.
    tol : float
        Goal for the marginal error.
    """

    def __init__(self, cost: Any, reg: float, tol: float) -> None:
        xp = self.xp = cost.xp
        self.reg, self.tol, self.device = reg, tol, cost.device
        self.K = cost.plan(*(xp.zeros(size, dtype=xp.float64, device=cost.device) for size in cost.shape), reg)
        there, zeros = self.K > 0, xp.zeros_like(self.K)
        C = cost.X if getattr(cost, "is_stored", False) else -reg * xp.log(xp.where(there, self.K, zeros + 1))
        self.KC = self.K * xp.where(there, xp.astype(C, xp.float64), zeros)

    def solve(self, A: Any, B: Any, most: int) -> BatchFound:
        """Up to `most` sweeps for the pairs of rows of A (k, n) and B (k, m), histograms of mass 1."""
        xp, total, ended = self.xp, 0, []
        x, mixing = xp.zeros_like(B), _Mixings(B, xp)
        best, least = x, xp.full(B.shape[0], math.inf, dtype=xp.float64, device=self.device)
        places = xp.arange(B.shape[0], device=self.device)  # of the problems that still move
        a, b = A, B
        for _ in range(most):
            error, change = self._sweep(a, b, x)
            total += int(places.shape[0])
            better, lost = error < least, ~(error <= GROWN * least)
            best, least = xp.where(better[:, None], x, best), xp.where(better, error, least)
            moving = xp.nonzero(~(least <= self.tol))[0]
            if moving.shape[0] == 0:
                break
            x = xp.where(lost[:, None], best, self._in_range(mixing.next(x, change, lost)))
            if 2 * moving.shape[0] <= places.shape[0]:  # else they are carried along
                ended.append((places, best))
                a, b, x, best, places = (xp.take(part, moving, axis=0) for part in (a, b, x, best, places))
                least = xp.take(least, moving)
                mixing.keep(moving)
        ended.append((places, best))
        return self._found(A, B, self._gathered(ended), total)

    def _in_range(self, x: Any) -> Any:
        """The points about 0, where no exponential overflows; those of solutions with finite costs are not cut."""
        xp = self.xp
        middle = (xp.max(x, axis=1, keepdims=True) + xp.min(x, axis=1, keepdims=True)) / 2
        return xp.clip(x - middle, -STEEPEST, STEEPEST)

    def _gathered(self, ended: list[tuple[Any, Any]]) -> Any:
        """The points of all problems in order; what was said last of one counts."""
        last: dict[int, int] = {}
        offset = 0
        for places, _ in ended:
            last.update({int(place): offset + row for row, place in enumerate(places)})
            offset += places.shape[0]
        rows = self.xp.asarray([last[place] for place in range(len(last))], device=self.device)
        return self.xp.take(self.xp.concat([points for _, points in ended]), rows, axis=0)

    def _scalings(self, A: Any, B: Any, x: Any) -> tuple[Any, Any, Any]:
        """u and v with ``T_ij = u_i K_ij v_j``, whose rows are exact, and the mass of rows that reach nothing."""
        xp = self.xp
        v = B * xp.exp(x)
        reach = xp.matmul(v, self.K.T)
        cut = ~(reach > 0)
        u = xp.where(cut, xp.zeros_like(reach), A / xp.where(cut, xp.ones_like(reach), reach))
        return u, v, xp.sum(xp.where(cut, A, xp.zeros_like(A)), axis=1)

    def _sweep(self, A: Any, B: Any, x: Any) -> tuple[Any, Any]:
        """Marginal errors (k,) once the rows are exact, and the change of x that makes the columns exact."""
        xp = self.xp
        u, v, missed = self._scalings(A, B, x)
        sums = xp.matmul(u, self.K)
        none = ~(sums > 0)
        change = xp.where(none, xp.zeros_like(x), -x - xp.log(xp.where(none, xp.ones_like(x), sums)))
        return xp.sum(xp.abs(v * sums - B), axis=1) + missed, change

    def _found(self, A: Any, B: Any, x: Any, total: int) -> BatchFound:
        xp = self.xp
        u, v, _ = self._scalings(A, B, x)
        sums = xp.matmul(u, self.K)
        rows = u * xp.matmul(v, self.K.T)
        error = xp.sum(xp.abs(v * sums - B), axis=1) + xp.sum(xp.abs(rows - A), axis=1)
        cost = xp.sum(u * xp.matmul(v, self.KC.T), axis=1)
        logs = [
            weights * xp.log(xp.where(scaling > 0, scaling, xp.ones_like(scaling)))
            for weights, scaling in ((A, u), (B, v))
        ]
        value = self.reg * (xp.sum(logs[0], axis=1) + xp.sum(logs[1], axis=1))
        return BatchFound(cost, value, error, x, total)


class _Mixings:
    """Anderson's mixing of each problem by itself; see `sweeps.Mixing`."""

    def __init__(self, B: Any, xp: Any) -> None:
        self.B, self.xp = B, xp
        self.before: tuple[Any, Any] | None = None
        self.points: list[Any] = []  # differences of successive points, (k, m) each
        self.changes: list[Any] = []

    def next(self, x: Any, change: Any, forget: Any) -> Any:
        """The next points after x, whose plain successors are ``x + change``; problems in `forget` begin anew."""
        xp = self.xp
        keep = xp.astype(~forget, xp.float64)[:, None]
        moved = x + change
        if self.before is not None:
            self.points = [keep * part for part in (*self.points, x - self.before[0])[-DEPTH:]]
            self.changes = [keep * part for part in (*self.changes, change - self.before[1])[-DEPTH:]]
            D = xp.stack(self.changes, axis=1)
            weighted = D * self.B[:, None, :]
            gram = xp.matmul(weighted, xp.matrix_transpose(D))
            right = xp.matmul(weighted, change[:, :, None])
            levels = 1e-14 * xp.linalg.trace(gram) + 1e-280  # a problem without a past has the matrix 0
            shares = xp.linalg.solve(gram + levels[:, None, None] * xp.eye(D.shape[1], dtype=D.dtype), right)
            moved = moved - xp.sum(shares * (xp.stack(self.points, axis=1) + D), axis=1)
        self.before = (x, change)
        return moved

    def keep(self, places: Any) -> None:
        """Only the problems at `places` go on."""
        take = self.xp.take
        self.B = take(self.B, places, axis=0)
        self.points, self.changes = (
            [take(part, places, axis=0) for part in parts] for parts in (self.points, self.changes)
        )
        if self.before is not None:
            self.before = (take(self.before[0], places, axis=0), take(self.before[1], places, axis=0))
