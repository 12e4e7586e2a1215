"""Minimisation of a smooth function of a matrix: limited-memory BFGS in the array's own namespace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from .._arrays import eps
from .._results import Status

_SUFFICIENT = 1e-4  # share of the decrease that the slope promises, as usual (Nocedal and Wright, section 3.1)
_SHORTENED = 30  # steps along a line before it is given up: the last one is below rounding
_IDLE = 30  # steps without a lower value or half the gradient after which nothing more is to be had


@dataclass(frozen=True)
class Descent:
    """Where a minimisation ended."""

    X: Any
    value: float
    gradient: float
    history: tuple[float, ...]
    status: Status


def _noise(value: float) -> float:
    """What rounding may change a sum of squares by."""
    return 16.0 * eps("float64") * value


def _dot(A: Any, B: Any) -> float:
    return float(array_namespace(A).sum(A * B))


def minimise(
    evaluate: Callable[[Any], tuple[float, Any]],
    X: Any,
    *,
    max_iter: int,
    tol: float,
    callback: Callable[[int, float, float], bool] | None = None,
    memory: int = 10,
) -> Descent:
    """Lower a nonnegative function of order one until ``||gradient||_F ||X||_F <= tol``, or its value is rounding.

    `evaluate` gives value and gradient.  Steps that satisfy Armijo's rule are taken; where values differ by rounding
    only, those that do not make the slope along the line steeper (the approximate rule of Hager and Zhang, 2005), since
    else the gradient could not fall below the root of rounding.  Pairs of a step and the change of the gradient along
    it are remembered if their curvature is positive.
    """
    value, gradient = evaluate(X)
    history, pairs = [value], []  # type: ignore[var-annotated]
    slope, best, idle = math.nan, (math.inf, math.inf), 0
    for n_iter in range(max_iter + 1):
        slope = math.sqrt(_dot(gradient, gradient) * _dot(X, X))
        if not (math.isfinite(value) and math.isfinite(slope)):
            return Descent(X, value, slope, tuple(history), Status.NONFINITE)
        if slope <= tol or value <= (8 * eps(X.dtype)) ** 2:
            return Descent(X, value, slope, tuple(history), Status.CONVERGED)
        better = value < best[0] - _noise(value) or slope < 0.5 * best[1]
        idle = 0 if better else idle + 1
        best = (min(best[0], value), slope) if better else best
        if idle >= _IDLE:
            return Descent(X, value, slope, tuple(history), Status.STAGNATED)
        if n_iter == max_iter or (callback is not None and n_iter > 0 and callback(n_iter, value, slope)):
            break
        direction = _direction(gradient, pairs)
        if not _dot(direction, gradient) < 0.0:
            direction, pairs = -gradient, []
        first = 1.0 if pairs else 0.1 * math.sqrt(_dot(X, X) / _dot(gradient, gradient))
        found = _step(evaluate, X, value, gradient, direction, first)
        if found is None:
            return Descent(X, value, slope, tuple(history), Status.STAGNATED)
        moved, value, steepest = found
        change, bend = moved - X, steepest - gradient
        curvature = _dot(change, bend)
        if curvature > eps(X.dtype) * math.sqrt(_dot(change, change) * _dot(bend, bend)):
            pairs = [*pairs[1 - memory :], (change, bend, curvature)] if memory > 1 else [(change, bend, curvature)]
        X, gradient = moved, steepest
        history.append(min(value, history[-1]))
    return Descent(X, value, slope, tuple(history), Status.MAX_ITER)


def _direction(gradient: Any, pairs: list[tuple[Any, Any, float]]) -> Any:
    """Minus the inverse Hessian, as the pairs know it, times the gradient: the recursion in two loops."""
    q, shares = gradient, []
    for change, bend, curvature in reversed(pairs):
        shares.append(_dot(change, q) / curvature)
        q = q - shares[-1] * bend
    if pairs:
        _, bend, curvature = pairs[-1]
        q = q * (curvature / _dot(bend, bend))
    for (change, bend, curvature), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - _dot(bend, q) / curvature) * change
    return -q


def _step(
    evaluate: Callable[[Any], tuple[float, Any]], X: Any, value: float, gradient: Any, direction: Any, first: float
) -> tuple[Any, float, Any] | None:
    """A point along the direction with a value that is low enough, its value and gradient; None if there is none."""
    slope, length = _dot(gradient, direction), first
    for _ in range(_SHORTENED):
        moved = X + length * direction
        reached, steepest = evaluate(moved)
        if reached <= value + _SUFFICIENT * length * slope:
            return moved, reached, steepest
        if reached <= value + _noise(value) and _dot(steepest, direction) <= (2.0 * _SUFFICIENT - 1.0) * slope:
            return moved, reached, steepest
        # the minimum of the parabola through what is known, kept inside (0.1, 0.5) of the step
        bend = (reached - value - length * slope) / length**2
        parabola = -slope / (2.0 * bend) if math.isfinite(bend) and bend > 0 else 0.1 * length
        length = min(max(parabola, 0.1 * length), 0.5 * length)
    return None
