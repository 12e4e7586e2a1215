"""The least l_p norm of A x on hyperplanes v^T x = 1, for many v at once, each with a proved gap."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import eps

#: Relative gap between ``||B x||_p**p`` and its proved lower bound that ends the iteration.
_AIM = 1e-8

#: Relative gap up to which a problem counts as solved; near p = 1 rounding can keep it from the aim.
TOLERANCE = 1e-6

_HUGE = 1.7e308  # in place of infinity, where the quotient is not used
_MAX_STEPS = 200
_BATCH_ENTRIES = 2**19  # residuals of the problems of one batch: 4 MiB, of which a step keeps about ten
_PAIR_ENTRIES = 2**17  # products of columns at a time: 1 MiB

#: Weights in the Hessian of p > 2 are at least this fraction of the largest: smaller ones make it singular to rounding.
_LEAST_WEIGHT = 1e-12

#: Residuals count at least this fraction of the largest in the Hessian of p < 2.
_LEAST_RESIDUAL = 1e-8


class LeastNorms(NamedTuple):
    """Values of ``||B x||_p**p`` that were reached, and proved lower bounds; arrays of shape (k,)."""

    reached: Any
    proved: Any

    @property
    def gaps(self) -> Any:
        """``1 - proved / reached``; 0 where both are infinite."""
        xp = array_namespace(self.reached)
        return xp.where(xp.isfinite(self.reached), 1.0 - self.proved / xp.clip(self.reached, None, _HUGE), 0.0)

    @property
    def scores(self) -> Any:
        """Reciprocals of the reached values where the gap is closed, else of the proved ones, which are above."""
        xp = array_namespace(self.reached)
        return 1.0 / xp.where(self.gaps <= TOLERANCE, self.reached, self.proved)


def least_norms(B: Any, V: Any, p: float, *, proved: Any = None) -> LeastNorms:
    """Minimise ``||B x||_p**p`` subject to ``v^T x = 1`` for each row v of V.

    Parameters
    ----------
    B : array, shape (m, r), float64
        Matrix of full column rank in which the columns are about orthonormal.
    V : array, shape (k, r), float64
    p : float, p >= 1
    proved : array, shape (k,), optional
        Lower bounds of the minima that are known before.

    Returns
    -------
    LeastNorms
        For a v of zeros both are infinite.

    Notes
    -----
    The dual problem is ``max mu`` subject to ``B^T z = mu v`` and ``||z||_q <= 1`` with ``1/p + 1/q = 1``; every dual
    point bounds the minimum of ``||B x||_p`` from below by its mu.
    """
    xp, k = array_namespace(B), V.shape[0]
    if k == 0:
        none = xp.zeros((0,), dtype=xp.float64, device=device_of(B))
        return LeastNorms(none, none)
    lengths = xp.linalg.vector_norm(V, axis=1)
    empty = lengths == 0
    # unit vectors, so that rows of very different sizes are alike to the solvers; the longest stands in for zeros
    heaviest = int(xp.argmax(lengths))
    lengths = xp.where(empty, lengths[heaviest], lengths)
    units = xp.where(empty[:, None], V[heaviest, :][None, :], V) / lengths[:, None]
    known = xp.zeros_like(lengths) if proved is None else xp.where(empty, 0.0, proved) * lengths**p
    pairs, solver = Pairs(B), _InteriorPoint if p == 1.0 else _Newton
    step = max(4, _BATCH_ENTRIES // max(1, B.shape[0]))
    batches = [
        _solve(solver(pairs, units[lo : min(lo + step, k), :], p, known[lo : min(lo + step, k)]))
        for lo in range(0, k, step)
    ]
    reached, bound = (xp.concat([batch[side] for batch in batches]) * lengths**-p for side in (0, 1))
    return LeastNorms(*(xp.where(empty, math.inf, side) for side in (reached, bound)))


class Pairs:
    """Gram matrices ``B^T diag(w) B`` for many w at once: one product of the weights with the products of columns."""

    def __init__(self, B: Any) -> None:
        xp, r = array_namespace(B), B.shape[1]
        self.B, self.xp, self.r = B, xp, r
        first = [i for i in range(r) for _ in range(i, r)]
        second = [j for i in range(r) for j in range(i, r)]
        place = {pair: at for at, pair in enumerate(zip(first, second, strict=True))}
        full = [place[min(i, j), max(i, j)] for i in range(r) for j in range(r)]
        self._first, self._second, self._full = (
            xp.asarray(index, dtype=xp.int64, device=device_of(B)) for index in (first, second, full)
        )

    def grams(self, W: Any) -> Any:
        """Gram matrices (k, r, r) for weights (m, k), with a ridge at rounding level that keeps them invertible."""
        xp, r, (m, k) = self.xp, self.r, W.shape
        total = xp.zeros((k, self._first.shape[0]), dtype=xp.float64, device=device_of(W))
        step = max(1, _PAIR_ENTRIES // max(1, self._first.shape[0]))
        for lo in range(0, m, step):
            hi = min(lo + step, m)
            block = self.B[lo:hi, :]
            products = xp.take(block, self._first, axis=1) * xp.take(block, self._second, axis=1)
            total = total + xp.matmul(W[lo:hi, :].mT, products)
        H = xp.reshape(xp.take(total, self._full, axis=1), (k, r, r))
        eye = xp.eye(r, dtype=xp.float64, device=device_of(W))
        return H * (1.0 + 4.0 * eps("float64") * eye)


class _Problems:
    """A batch of problems in the middle of their iterations; arrays have a column (or entry) for each.

    `columns`, `entries` and `rows` name the attributes that shrink when problems leave the batch.
    """

    columns: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    rows: tuple[str, ...] = ("V", "X")

    def __init__(self, pairs: Pairs, V: Any, proved: Any) -> None:
        self.pairs, self.xp, self.B = pairs, pairs.xp, pairs.B
        self.V = V
        self.X = self._feasible(V)  # the solution for p = 2 where the columns of B are orthonormal
        self.R = self._residuals()
        self.bound = proved

    def _feasible(self, X: Any) -> Any:
        return X / self.xp.sum(X * self.V, axis=1)[:, None]

    def _residuals(self) -> Any:
        return self.xp.matmul(self.B, self.X.mT)

    def keep(self, chosen: Any) -> None:
        """Let all other problems leave."""
        for name in self.columns:
            setattr(self, name, self.xp.take(getattr(self, name), chosen, axis=1))
        for name in (*self.entries, *self.rows):
            setattr(self, name, self.xp.take(getattr(self, name), chosen, axis=0))

    def value(self) -> Any:
        """The objectives ``||B x||_p**p``."""
        raise NotImplementedError

    def step(self) -> Any:
        """One step for each problem, which may raise `bound`; False where the objective cannot be lowered further."""
        raise NotImplementedError


def _solve(batch: _Problems) -> tuple[Any, Any]:
    """(reached, proved) after stepping until all gaps are closed or nothing moves."""
    xp = batch.xp
    value = batch.value()
    active = xp.arange(value.shape[0], dtype=xp.int64, device=device_of(value))
    left: list[tuple[Any, Any, Any]] = []
    for _ in range(_MAX_STEPS):
        moved = batch.step()
        value = batch.value()
        going = moved & (batch.bound < (1.0 - _AIM) * value)
        if not bool(xp.all(going)):
            ended = xp.nonzero(~going)[0]
            left.append(tuple(xp.take(side, ended, axis=0) for side in (active, value, batch.bound)))
            going = xp.nonzero(going)[0]
            active, value = (xp.take(side, going, axis=0) for side in (active, value))
            batch.keep(going)
        if active.shape[0] == 0:
            break
    else:
        left.append((active, value, batch.bound))
    order, reached, proved = (xp.concat(sides) for sides in zip(*left, strict=True))
    order = xp.argsort(order)
    return xp.take(reached, order, axis=0), xp.take(proved, order, axis=0)


class _Newton(_Problems):
    """Newton's method for p > 1 with a search along each step.

    The full step of iteratively reweighted least squares is 1 (it descends for p <= 2), that of Newton's method
    1 / (p - 1); the best of these two, of two lengths between and of three shorter ones is taken.  ``Z + Q D`` with the
    gradient Z, the weights Q and the step D = B d is a dual point, since ``B^T (Z + Q D) = mu v`` is the equation of d.
    """

    columns = ("R",)
    entries = ("bound",)

    def __init__(self, pairs: Pairs, V: Any, p: float, proved: Any) -> None:
        super().__init__(pairs, V, proved)
        self.p = p
        newton = 1.0 / (p - 1.0)
        between = [newton ** (i / 3.0) for i in range(4)]
        self.lengths = [*between, *(min(between) / shrink for shrink in (4.0, 16.0, 128.0))]

    def value(self) -> Any:
        return self._power(self.R)

    def _power(self, R: Any) -> Any:
        return self.xp.sum(self.xp.abs(R) ** self.p, axis=0)

    def step(self) -> Any:
        xp, p = self.xp, self.p
        top = xp.max(xp.abs(self.R), axis=0)
        size = xp.abs(self.R) / top
        Z = xp.sign(self.R) * size ** (p - 1.0)
        Q = xp.clip(size, _LEAST_RESIDUAL) ** (p - 2.0) if p < 2.0 else xp.clip(size ** (p - 2.0), _LEAST_WEIGHT)
        solved = xp.linalg.solve(self.pairs.grams(Q), xp.stack([self.V, xp.matmul(Z.mT, self.B)], axis=2))
        toward, gradient = solved[:, :, 0], solved[:, :, 1]
        mu = xp.sum(self.V * gradient, axis=1) / xp.sum(self.V * toward, axis=1)
        d = mu[:, None] * toward - gradient
        D = xp.matmul(self.B, d.mT)
        dual = mu / _norm(Z + Q * D, p / (p - 1.0), xp)
        self.bound = xp.maximum(self.bound, xp.clip(dual, 0.0) ** p)
        before, best, length = self.value(), self.value(), xp.zeros_like(top)
        for candidate in self.lengths:
            value = self._power(self.R + candidate * top * D)
            length = xp.where(value < best, candidate, length)
            best = xp.minimum(value, best)
        self.X = self._feasible(self.X + (length * top)[:, None] * d)
        self.R = self._residuals()  # anew: sums of steps would keep the rounding of the first, which may be large
        return best < before


class _InteriorPoint(_Problems):
    """Mehrotra's predictor-corrector method for p = 1: all iterates feasible, the gap known at no cost.

    With ``B x = u - w`` for u, w > 0 and a dual point Y in (-1, 1), ``B^T Y = mu v``, the gap is the sum of all
    ``u (1 - Y)`` and ``w (1 + Y)``.
    """

    columns = ("R", "u", "w", "Y")
    entries = ("bound", "mu")

    def __init__(self, pairs: Pairs, V: Any, p: float, proved: Any) -> None:
        super().__init__(pairs, V, proved)
        xp = self.xp
        shift = 0.5 * xp.mean(xp.abs(self.R), axis=0)
        self.u, self.w = xp.clip(self.R, 0.0) + shift, xp.clip(-self.R, 0.0) + shift
        self.Y, self.mu, self.p = xp.zeros_like(self.R), xp.zeros_like(shift), p

    def value(self) -> Any:
        return self.xp.sum(self.xp.abs(self.R), axis=0)

    def step(self) -> Any:
        xp, m = self.xp, self.B.shape[0]
        above, below = 1.0 - self.Y, 1.0 + self.Y
        gap = xp.sum(self.u * above + self.w * below, axis=0)
        theta = self.u / above + self.w / below
        H = self.pairs.grams(1.0 / theta)
        predicted = self._direction(H, theta, 0.0, 0.0)
        primal, dual = self._lengths(predicted)
        _, dY, du, dw, _ = predicted
        left = xp.sum(
            (self.u + primal * du) * (above - dual * dY) + (self.w + primal * dw) * (below + dual * dY), axis=0
        )
        target = (left / gap) ** 3 * gap / (2 * m)  # Mehrotra's choice of the next gap
        corrected = self._direction(H, theta, target + du * dY, target - dw * dY)
        primal, dual = self._lengths(corrected)
        dX, dY, du, dw, dmu = corrected
        self.X, self.Y = self._feasible(self.X + primal[:, None] * dX), self.Y + dual * dY
        self.u, self.w, self.mu = self.u + primal * du, self.w + primal * dw, self.mu + dual * dmu
        self.R = self._residuals()
        self.bound = xp.maximum(self.bound, self.mu)
        return xp.maximum(primal, dual) > 1e-6

    def _direction(self, H: Any, theta: Any, aim_u: Any, aim_w: Any) -> tuple[Any, Any, Any, Any, Any]:
        """The step towards ``u (1 - Y) = aim_u`` and ``w (1 + Y) = aim_w``."""
        xp = self.xp
        above, below = 1.0 - self.Y, 1.0 + self.Y
        off_u, off_w = aim_u / above - self.u, aim_w / below - self.w
        c = off_u - off_w
        solved = xp.linalg.solve(H, xp.stack([self.V, xp.matmul((c / theta).mT, self.B)], axis=2))
        toward, free = solved[:, :, 0], solved[:, :, 1]
        dmu = -xp.sum(self.V * free, axis=1) / xp.sum(self.V * toward, axis=1)
        dX = free + dmu[:, None] * toward
        dY = (xp.matmul(self.B, dX.mT) - c) / theta
        return dX, dY, off_u + self.u / above * dY, off_w - self.w / below * dY, dmu

    def _lengths(self, direction: tuple[Any, ...]) -> tuple[Any, Any]:
        """The longest primal and dual steps that leave 1/1000 of the way to the boundary, at most 1."""
        _, dY, du, dw, _ = direction
        xp = self.xp

        def longest(z: Any, dz: Any) -> Any:
            shrinks = dz < 0
            return xp.min(xp.where(shrinks, -z / xp.where(shrinks, dz, -1.0), 1e3), axis=0)

        primal = xp.minimum(longest(self.u, du), longest(self.w, dw))
        dual = xp.minimum(longest(1.0 - self.Y, -dY), longest(1.0 + self.Y, dY))
        return xp.clip(0.999 * primal, None, 1.0), xp.clip(0.999 * dual, None, 1.0)


def _norm(Z: Any, q: float, xp: Any) -> Any:
    """The q-norms of the columns, free of overflow."""
    top = xp.max(xp.abs(Z), axis=0)
    return top * xp.sum((xp.abs(Z) / top) ** q, axis=0) ** (1.0 / q)
