"""Losses of residuals, and the weights by which least squares minimises them step by step."""

from __future__ import annotations

import math
from typing import Any

_HUBER = 1.345  # of the scale: 95 % of the efficiency of least squares for normal residuals
_ROUNDED = 0.1  # of the scale: where the absolute value is rounded off; at 0.01 fits take several times the sweeps
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute value


def loss_values(residuals: Any, loss: str, scale: float, xp: Any) -> Any:
    """The loss of each residual e, in units of its square.

    "squared" is e**2.  "huber" is that up to c = 1.345 scale, and 2 c |e| - c**2 beyond.  "absolute" is 2 scale |e|, up
    to a constant, and rounded off below 0.1 scale.
    """
    if loss == "squared":
        return residuals * residuals
    size, corner = xp.abs(residuals), _corner(loss, scale)
    values = xp.where(size <= corner, size * size, (2.0 * corner) * size - corner**2)
    return values if loss == "huber" else (scale / corner) * values


def loss_weights(residuals: Any, loss: str, scale: float, xp: Any) -> Any:
    """Weights w for which w e**2 touches the loss at each residual and lies above it elsewhere, up to a constant."""
    corner = _corner(loss, scale)
    size = xp.abs(residuals)
    top = corner if loss == "huber" else scale
    return top / xp.where(size > corner, size, xp.full_like(size, corner))


def _corner(loss: str, scale: float) -> float:
    return (_HUBER if loss == "huber" else _ROUNDED) * scale


def robust_scale(residuals: Any, xp: Any) -> float:
    """The standard deviation of normal residuals by their median absolute value; outliers move it little.

    Where more than half are zero it is a millionth of their root mean square, and 1 where all are.
    """
    if residuals.shape[0] == 0:
        return 1.0
    wide = xp.astype(residuals, xp.float64)
    mean_square = float(xp.mean(wide * wide))
    scale = max(_NORMAL * median(xp.abs(wide), xp), 1e-6 * math.sqrt(mean_square))
    return scale if scale > 0.0 else 1.0


def median(values: Any, xp: Any) -> float:
    """The median of a vector with at least one entry."""
    ordered = xp.sort(values)
    n = int(values.shape[0])
    return 0.5 * (float(ordered[(n - 1) // 2]) + float(ordered[n // 2]))
