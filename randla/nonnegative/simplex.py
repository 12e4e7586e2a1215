"""Least squares over the nonnegative orthant and over simplices, many columns at once."""

from __future__ import annotations

from typing import Any

from array_api_compat import device as device_of

from .._arrays import eps, namespace_of
from .._backend import kernel

MOST_PIVOTS = 100  # exchanges of a column before coordinate sweeps take over
PENALTY, PULL = 1e3, 1e-9  # weight of the sum and of the last iterate, relative to the largest diagonal entry of G
ROUNDS = 12  # updates of multipliers; each leaves at most about a thousandth of their error


def nonneg_lstsq(G: Any, B: Any, X: Any = None) -> Any:
    """The columns of argmin of ``tr(X.T G X) / 2 - tr(B.T X)`` over X >= 0, exactly, from the places where X is > 0."""
    xp = namespace_of(B)
    X = xp.zeros_like(B) if X is None else X
    out, steps = kernel("nonneg_pivots", xp)(G, B, X, 16 * eps(B.dtype), MOST_PIVOTS)
    if bool(xp.any(steps < 0)):  # pivoting cycles on columns that depend on each other
        out = kernel("nonneg_sweeps", xp)(G, B, xp.where(steps[None, :] < 0, X, out), 500, eps(B.dtype))
    return out


def capped_lstsq(G: Any, B: Any) -> Any:
    """The columns of argmin of ``x.T G x / 2 - b.T x`` over x >= 0 with sum(x) <= 1, for any semidefinite G.

    A slack makes the sum an equation, which multipliers enforce; the pull to the last iterate makes singular problems
    solvable and leaves the minimum where it is.  The result satisfies the bound exactly.
    """
    xp, (k, n), device = namespace_of(B), B.shape, device_of(B)
    size = float(xp.max(xp.linalg.diagonal(G))) or 1.0
    rho, delta = PENALTY * size, PULL * size
    wide = xp.zeros((k + 1, k + 1), dtype=B.dtype, device=device)
    wide[:k, :k] = G
    wide = wide + rho + delta * xp.eye(k + 1, dtype=B.dtype, device=device)
    right = xp.concat([B, xp.zeros((1, n), dtype=B.dtype, device=device)], axis=0)
    x = xp.zeros((k + 1, n), dtype=B.dtype, device=device)
    dual = xp.zeros((1, n), dtype=B.dtype, device=device)
    for _ in range(ROUNDS):
        new = nonneg_lstsq(wide, right + (rho - dual) + delta * x, x)
        excess = xp.sum(new, axis=0, keepdims=True) - 1.0
        moved = float(xp.max(xp.abs(new - x)))
        x, dual = new, dual + rho * excess
        if float(xp.max(xp.abs(excess))) <= 1e-12 and moved <= 1e-7:
            break
    x = x[:k, :]
    total = xp.sum(x, axis=0, keepdims=True)
    return x / xp.maximum(total, xp.ones_like(total))


def onto_simplex(X: Any, *, at_most: bool = False) -> Any:
    """The columns of X projected on ``x >= 0, sum(x) = 1``, or with `at_most` on ``x >= 0, sum(x) <= 1``.

    By a sort of each column: the projection is max(x - t, 0), and the sum of the largest entries that stay positive
    gives the threshold t.
    """
    xp, r = namespace_of(X), X.shape[0]
    falling = xp.sort(X, axis=0, descending=True)
    counts = xp.arange(1, r + 1, dtype=X.dtype, device=device_of(X))[:, None]
    levels = (xp.cumulative_sum(falling, axis=0) - 1.0) / counts
    stay = xp.sum(xp.astype(falling > levels, xp.int64), axis=0, keepdims=True)
    out = xp.maximum(X - xp.take_along_axis(levels, stay - 1, axis=0), xp.zeros_like(X))
    if not at_most:
        return out
    clipped = xp.maximum(X, xp.zeros_like(X))
    return xp.where(xp.sum(clipped, axis=0, keepdims=True) <= 1.0, clipped, out)
