"""Derivatives of transport with respect to points and masses, from the potentials, by the envelope theorem.

At the optimum the plan is stationary, so the derivative of the value is that of the costs under a plan that stays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from .costs import Cost, point_cost

BLOCK_ENTRIES = 2**20  # entries of the plan that are made at a time


class TransportGradient(NamedTuple):
    """Derivatives of `TransportResult.value`: what `transport_gradient` returns."""

    X: Any  #: with respect to the points of the rows, (n, d)
    Y: Any  #: with respect to the points of the columns, (m, d)
    a: Any  #: with respect to the masses of the rows, (n,), up to a constant
    b: Any  #: with respect to the masses of the columns, (m,), up to a constant


def transport_gradient(result: Any, X: Any, Y: Any = None, *, metric: str = "sqeuclidean") -> TransportGradient:
    """Differentiate the value of a transport result by the points and the masses.

    ``dX[i] = sum_j T_ij dc(x_i, y_j) / dx_i``, likewise for Y, and ``da = f``, ``db = g``.  ``O(n m d)`` operations;
    the plan is not stored.

    Parameters
    ----------
    result : TransportResult
        Of `sinkhorn`, or of `sinkhorn_unbalanced` where only the derivatives by points are meant.
    X : array, shape (n, d)
        The points of the rows that the costs were made of.
    Y : array, shape (m, d), optional
        The points of the columns; default X, as points of their own.
    metric : {"sqeuclidean", "euclidean", "cityblock", "cosine"}, default "sqeuclidean"
        As in `point_cost`.

    Returns
    -------
    TransportGradient
        Arrays ``X`` (n, d), ``Y`` (m, d), ``a`` (n,) and ``b`` (m,), float64.

    Raises
    ------
    ValueError
        If X and Y do not fit the result, or `point_cost` refuses them.
    TypeError
        If X or Y is complex or not numeric.

    Notes
    -----
    The mass of a and of b stays equal, so only differences along directions without mass mean anything: ``da`` and
    ``db`` are known up to a constant.  Where a mass is 0 its derivative is -inf, that of ``x log x``.  Where two points
    coincide, "euclidean" and "cityblock" have no derivative; 0 is taken of those that it can be.  The error is of the
    order of the marginal error.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.random((30, 2)), rng.random((20, 2)) + 5
    >>> result = randla.sinkhorn(None, None, randla.point_cost(X, Y), 0.1)
    >>> gradient = randla.transport_gradient(result, X, Y)
    >>> bool(np.all(gradient.X < 0)), bool(np.allclose(gradient.X.sum(axis=0), -gradient.Y.sum(axis=0)))
    (True, True)
    """
    cost = point_cost(X, Y, metric)
    if cost.shape != (result.f.shape[0], result.g.shape[0]):
        raise ValueError(
            f"X and Y must have the {result.f.shape[0]} and {result.g.shape[0]} points of the result, "
            f"got {cost.shape[0]} and {cost.shape[1]}"
        )
    Y = X if Y is None else Y
    first = point_gradient(cost, X, metric, result.f, result.g, result.reg)
    second = point_gradient(cost.T, Y, metric, result.g, result.f, result.reg)
    return TransportGradient(first, second, result.f, result.g)


def point_gradient(cost: Cost, X: Any, metric: str, f: Any, g: Any, reg: float) -> Any:
    """``sum_j T_ij dc(x_i, y_j) / dx_i``, (n, d), for the plan of f and g; `cost` has the points kernels see."""
    if metric in ("euclidean", "cityblock"):
        return _by_blocks(cost, metric, f, g, reg)
    xp = array_namespace(cost.Y)
    if metric == "cosine":  # the points of the cost are directions, divided by the root of 2
        X = xp.astype(xp.asarray(X), xp.float64)
        lengths = xp.sqrt(xp.sum(X * X, axis=1))[:, None]
        directions = X / lengths
        pull = cost.transport(f, g, reg, cost.Y * 2.0**0.5)
        return (xp.sum(pull * directions, axis=1)[:, None] * directions - pull) / lengths
    middle = xp.mean(cost.Y, axis=0)[None, :]  # differences are taken near 0
    ones = xp.ones((cost.shape[1], 1), dtype=xp.float64, device=cost.device)
    moved = cost.transport(f, g, reg, xp.concat([cost.Y - middle, ones], axis=1))
    return 2.0 * ((cost.X - middle) * moved[:, -1:] - moved[:, :-1])


def _by_blocks(cost: Cost, metric: str, f: Any, g: Any, reg: float) -> Any:
    """The same for distances that are not smooth, from blocks of rows of the plan."""
    xp, (n, m), d = cost.xp, cost.shape, cost.X.shape[1]
    step, parts = max(1, BLOCK_ENTRIES // m), []
    for lo in range(0, n, step):
        hi = min(lo + step, n)
        X, block = cost.X[lo:hi, :], Cost(cost.metric, cost.X[lo:hi, :], cost.Y)
        T = block.plan(f[lo:hi], g, reg)
        if metric == "euclidean":
            squares = xp.zeros_like(T)
            for c in range(d):
                squares = squares + (X[:, c][:, None] - cost.Y[:, c][None, :]) ** 2
            T = xp.where(squares > 0, T / xp.sqrt(xp.where(squares > 0, squares, xp.ones_like(T))), xp.zeros_like(T))
        columns = []
        for c in range(d):
            apart = X[:, c][:, None] - cost.Y[:, c][None, :]
            columns.append(xp.sum(T * (xp.sign(apart) if metric == "cityblock" else apart), axis=1))
        parts.append(xp.stack(columns, axis=1))
    return xp.concat(parts)
