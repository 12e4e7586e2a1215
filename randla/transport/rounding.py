"""Plans brought to their marginals exactly, and bounds of the cost of exact transport."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together

SHARPENED = 1e-3  # of reg: at that, a soft minimum over m costs is within 1e-3 reg log(m) below the minimum


class RoundedPlan:
    """A plan with the marginals a and b to rounding: ``exp((f_i + g_j - C_ij) / reg) + u_i v_j``.

    Attributes
    ----------
    plan : TransportPlan
        The plan scaled down where it had too much.
    u, v : array
        Masses (n,) and (m,) that were missing; the second is divided by their sum.
    price : float
        Cost of the whole plan, or an upper bound that is off by at most the largest cost times ``sum(u)``.
    """

    def __init__(self, plan: Any, u: Any, v: Any, price: float) -> None:
        self.plan, self.u, self.v, self.price = plan, u, v, price
        self.shape = plan.shape

    def matmul(self, V: Any) -> Any:
        """Return the product with V, (m, k) or (m,)."""
        xp = array_namespace(self.u)
        inner = xp.matmul(self.v, V)
        return self.plan.matmul(V) + (self.u * inner if V.ndim == 1 else self.u[:, None] * inner[None, :])

    def to_dense(self) -> Any:
        """Return the plan as an array (n, m), float64."""
        return self.plan.to_dense() + self.u[:, None] * self.v[None, :]


def rounded_plan(plan: Any, a: Any, b: Any) -> RoundedPlan:
    """The rounding of Altschuler, Weed and Rigollet 2017, algorithm 2, on potentials: no plan is stored."""
    xp, cost, reg = plan.cost.xp, plan.cost, plan.reg
    rows, _, _ = cost.sums(plan.f, plan.g, reg)
    f = _lowered(plan.f, a, rows, reg, xp)
    _, columns, _ = cost.sums(f, plan.g, reg)
    g = _lowered(plan.g, b, columns, reg, xp)
    rows, columns, prices = cost.sums(f, g, reg)
    u, v = xp.maximum(a - rows, 0.0 * a), xp.maximum(b - columns, 0.0 * b)
    missing = float(xp.sum(v))
    price = float(xp.sum(prices))
    if missing > 0:
        v = v / missing
        price += _price_of_rest(cost, u, v)
    return RoundedPlan(type(plan)(cost, f, g, reg), u, v, price)


def _lowered(potential: Any, wanted: Any, found: Any, reg: float, xp: Any) -> Any:
    """The potential at which no sum is above the one that is wanted."""
    over = found > wanted
    ratio = xp.where(over & (wanted > 0), wanted / xp.where(over, found, xp.ones_like(found)), xp.ones_like(found))
    return potential + reg * xp.log(ratio)


def _price_of_rest(cost: Any, u: Any, v: Any) -> float:
    """``u.C v``, or for costs that are not stored an upper bound."""
    xp = cost.xp
    if not getattr(cost, "is_stored", False):
        return cost.largest() * float(xp.sum(u)) * float(xp.sum(v))
    rows, columns = (xp.nonzero(weights > 0)[0] for weights in (u, v))
    some = xp.take(xp.take(cost.X, rows, axis=0), columns, axis=1)
    return float(xp.sum(xp.take(u, rows)[:, None] * some * xp.take(v, columns)[None, :]))


def unregularised_dual(plan: Any, a: Any, b: Any) -> float:
    """``a.f + b.g`` for the g of a plan and an f with ``f_i + g_j <= C_ij``: at most the cost of any plan."""
    xp, cost = plan.cost.xp, plan.cost
    held_a, held_b = a > 0, b > 0
    f = cost.softmin(plan.g, SHARPENED * plan.reg)
    total = xp.where(held_a, a * xp.where(held_a, f, xp.zeros_like(f)), xp.zeros_like(a))
    return float(xp.sum(total)) + float(
        xp.sum(xp.where(held_b, b * xp.where(held_b, plan.g, xp.zeros_like(b)), xp.zeros_like(b)))
    )


def round_plan(T: Any, a: Any, b: Any) -> Any:
    """Bring a plan to its marginals exactly, changing it by no more than it misses them.

    Rows and then columns with too much are scaled down, and what is missing then is added as a product.

    Parameters
    ----------
    T : array, shape (n, m)
        Nonnegative plan; it is not changed.
    a : array, shape (n,)
        Wanted sums of the rows.
    b : array, shape (m,)
        Wanted sums of the columns, of the same total.

    Returns
    -------
    array, shape (n, m)
        Nonnegative, with row sums a and column sums b up to rounding;
        ``||result - T||_1 <= 2 (||T 1 - a||_1 + ||T.T 1 - b||_1)``.

    Raises
    ------
    TypeError
        If an argument is not numeric, or they are of different libraries or devices.
    ValueError
        If the shapes don't fit, an entry is negative or not finite, or the totals of a and b differ.

    References
    ----------
    Altschuler, Weed and Rigollet 2017, algorithm 2 and lemma 7.

    Examples
    --------
    >>> import numpy as np, randla
    >>> half = np.array([0.5, 0.5])
    >>> randla.round_plan(np.array([[0.5, 0.1], [0.0, 0.3]]), half, half).sum(axis=1)
    array([0.5, 0.5])
    """
    T, a, b = (
        as_matrix(T, name="T", sparse=False),
        *(as_matrix(weights, name=name, sparse=False, vector=True) for weights, name in ((a, "a"), (b, "b"))),
    )
    xp = array_namespace(T)
    for weights, name, size in ((a, "a", T.shape[0]), (b, "b", T.shape[1])):
        check_together(T, weights, names=("T", name))
        if tuple(weights.shape) != (size,):
            raise ValueError(f"{name} must have shape ({size},), got {tuple(weights.shape)}")
    T, a, b = (xp.astype(part, xp.float64) for part in (T, a, b))
    for part, name in ((T, "T"), (a, "a"), (b, "b")):
        if not bool(xp.all(xp.isfinite(part))) or bool(xp.any(part < 0)):
            raise ValueError(f"{name} must be finite and nonnegative")
    if not math.isclose(float(xp.sum(a)), float(xp.sum(b)), rel_tol=1e-8):
        raise ValueError(f"b must have the total of a, {float(xp.sum(a)):.9g}, got {float(xp.sum(b)):.9g}")
    T = T * _at_most_one(a, xp.sum(T, axis=1))[:, None]
    T = T * _at_most_one(b, xp.sum(T, axis=0))[None, :]
    u, v = xp.maximum(a - xp.sum(T, axis=1), 0.0 * a), xp.maximum(b - xp.sum(T, axis=0), 0.0 * b)
    missing = float(xp.sum(u))
    return T + u[:, None] * (v / missing)[None, :] if missing > 0 else T


def _at_most_one(wanted: Any, found: Any) -> Any:
    xp = array_namespace(wanted)
    over = found > wanted
    return xp.where(over, wanted / xp.where(over, found, xp.ones_like(found)), xp.ones_like(found))
