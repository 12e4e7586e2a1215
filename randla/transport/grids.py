"""Costs of histograms on grids, such as images: sums over the axes, so that passes go along one axis at a time."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from array_api_compat import device as device_of

from .._arrays import check_together, from_host
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .both_sides import exponential
from .costs import BaseCost, real_matrix, relative_difference

METRICS = ("sqeuclidean", "cityblock")
LOST = 1e-250  # sums below may have lost terms to underflow, and are made again by log-sum-exp
LEAST = 1e-300  # smaller factors count as 0: products with subnormal numbers take many times longer


class GridCost(BaseCost):
    """Costs ``C[i, j] = sum over axes k of tables[k][i_k, j_k]``, the points of both grids numbered in C order.

    It has the methods of `Cost`, each in ``O(n sum_k n_k)`` operations and ``O(n)`` memory but for `plan` and
    `to_dense`, which make all entries.

    Parameters
    ----------
    tables : tuple of array, shapes (n_k, m_k)
        Costs along each axis, float64; inf for forbidden pairs.
    rows, columns : array of int, optional
        Numbers of the points that are kept; default all.
    """

    metric = "grid"
    has_entries = False

    def __init__(self, tables: tuple[Any, ...], rows: Any = None, columns: Any = None) -> None:
        self.tables, self.rows, self.columns = tables, rows, columns
        self.X = tables[0]
        self.xp, self.device = array_namespace(self.X), device_of(self.X)
        whole = [math.prod(int(table.shape[side]) for table in tables) for side in range(2)]
        kept = [
            size if places is None else int(places.shape[0])
            for size, places in zip(whole, (rows, columns), strict=True)
        ]
        self.whole, self.shape = (whole[0], whole[1]), (kept[0], kept[1])

    @property
    def T(self) -> GridCost:  # the name of the transpose
        """The costs of the opposite direction."""
        return GridCost(tuple(table.T for table in self.tables), self.columns, self.rows)

    @property
    def is_finite(self) -> bool:
        """True where no pair is forbidden."""
        return all(bool(self.xp.all(self.xp.isfinite(table))) for table in self.tables)

    def _asymmetry(self) -> float:
        if not (self.rows is None and self.columns is None):
            return relative_difference(self.to_dense(), self.to_dense().T)
        return max(relative_difference(table, table.T) for table in self.tables)

    def take(self, rows: Any = None, columns: Any = None) -> GridCost:
        """The costs of some rows and columns, given by their numbers; None keeps all."""
        both = []
        for before, now in ((self.rows, rows), (self.columns, columns)):
            both.append(before if now is None else now if before is None else self.xp.take(before, now))
        return GridCost(self.tables, both[0], both[1])

    def softmin(self, g: Any, reg: float) -> Any:
        """``-reg log(sum_j exp((g_j - C_ij) / reg))``, shape (n,)."""
        return self._softmin(self.tables, g, reg)

    def _softmin(self, tables: tuple[Any, ...], g: Any, reg: float) -> Any:
        xp, values = self.xp, self._spread(g)
        for table in reversed(
            tables
        ):  # the last axis is summed and comes first: after all of them, the order is that of C
            values = _summed(xp.reshape(values, (-1, table.shape[1])), table, reg).T
        values = -xp.reshape(values, (-1,))
        return values if self.rows is None else xp.take(values, self.rows)

    def _spread(self, g: Any) -> Any:
        """Values of the columns kept, and -inf for the others."""
        if self.columns is None:
            return g
        xp, size = self.xp, self.whole[1]
        order, every = xp.argsort(self.columns), xp.arange(size, device=self.device)
        placed = xp.take(self.columns, order)
        found = xp.searchsorted(placed, every)
        found = xp.where(found < placed.shape[0], found, xp.zeros_like(found))
        values = xp.take(g, xp.take(order, found))
        return xp.where(xp.take(placed, found) == every, values, xp.full_like(values, -math.inf))

    def sweep(self, a: Any, g: Any, reg: float) -> tuple[Any, Any]:
        """The f for which the rows of the plan sum to a, and the sums of its columns."""
        xp = self.xp
        positive = a > 0
        logs = xp.log(xp.where(positive, a, xp.ones_like(a)))
        f = xp.where(positive, reg * logs + self.softmin(g, reg), xp.full_like(a, -math.inf))
        reached = xp.where(f < math.inf, f, xp.full_like(f, -math.inf))
        return f, self._exponentials(g, self.T.softmin(reached, reg), reg)

    def _exponentials(self, f: Any, lift: Any, reg: float) -> Any:
        """``exp((f - lift) / reg)``, the sums of the rows; 0 where a row has no terms."""
        xp = self.xp
        alive = (f > -math.inf) & (lift < math.inf)
        zero = xp.zeros_like(f)
        return xp.where(alive, exponential((xp.where(alive, f, zero) - xp.where(alive, lift, zero)) / reg), zero)

    def sums(self, f: Any, g: Any, reg: float) -> tuple[Any, Any, Any]:
        """Sums of the rows and of the columns of the plan, and of plan times cost in each row."""
        xp = self.xp
        rows = self._exponentials(f, self.softmin(g, reg), reg)
        columns = self._exponentials(g, self.T.softmin(f, reg), reg)
        prices = xp.zeros_like(rows)
        for axis, table in enumerate(self.tables):
            base = _least(table)
            rest = table - base  # each cost of this axis counts as a factor: what its logarithm adds to the exponent
            priced = xp.isfinite(rest) & (rest > 0)
            logs = xp.log(xp.where(priced, rest, xp.ones_like(rest)))
            weighted = xp.where(priced, table - reg * logs, xp.full_like(rest, math.inf))
            tables = (*self.tables[:axis], weighted, *self.tables[axis + 1 :])
            prices = prices + base * rows + self._exponentials(f, self._softmin(tables, g, reg), reg)
        return rows, columns, prices

    def transport(self, f: Any, g: Any, reg: float, V: Any) -> Any:
        """The plan times V (m, k): two passes a column, for its positive and its negative entries."""
        xp = self.xp
        V = xp.astype(V, xp.float64)
        products = []
        for c in range(V.shape[1]):
            total = xp.zeros_like(f)
            for sign in (1.0, -1.0):
                part = sign * V[:, c]
                positive = part > 0
                if bool(xp.any(positive)):
                    logs = xp.where(
                        positive, xp.log(xp.where(positive, part, xp.ones_like(part))), xp.full_like(g, -math.inf)
                    )
                    total = total + sign * self._exponentials(f, self.softmin(g + reg * logs, reg), reg)
            products.append(total)
        return (
            xp.stack(products, axis=1) if products else xp.zeros((self.shape[0], 0), dtype=V.dtype, device=self.device)
        )

    def entries(self, f: Any, g: Any, reg: float, share: float) -> tuple[Any, Any, Any]:
        """Not offered: Newton's sparse Hessian would need all n m entries."""
        raise NotImplementedError(
            'cost must give single entries for sparse plans and method="newton", got a grid; '
            'use method="log", or pass cost.to_dense() where n m entries fit into memory'
        )

    def to_dense(self) -> Any:
        """Return all costs, shape (n, m)."""
        xp, C = self.xp, self.tables[0]
        for table in self.tables[1:]:
            rows, columns = C.shape[0] * table.shape[0], C.shape[1] * table.shape[1]
            C = xp.reshape(C[:, None, :, None] + table[None, :, None, :], (rows, columns))
        C = C if self.rows is None else xp.take(C, self.rows, axis=0)
        return C if self.columns is None else xp.take(C, self.columns, axis=1)

    def plan(self, f: Any, g: Any, reg: float) -> Any:
        """The plan, shape (n, m), by way of all costs: for small grids."""
        return kernel("plan_matrix", self.xp)("stored", self.to_dense(), None, f, g, reg)

    def largest(self) -> float:
        """The largest finite cost of the whole grid."""
        xp, total = self.xp, 0.0
        for table in self.tables:
            total += float(xp.max(xp.abs(xp.where(xp.isfinite(table), table, xp.zeros_like(table)))))
        return total

    def __repr__(self) -> str:
        return f"GridCost(shape={self.shape}, axes={tuple(tuple(table.shape) for table in self.tables)})"


def _least(table: Any) -> float:
    """The smallest cost, which is finite: forbidden pairs are inf."""
    return float(array_namespace(table).min(table))


def _summed(values: Any, table: Any, reg: float) -> Any:
    """``reg log(sum_j exp((values[l, j] - table[i, j]) / reg))``, shape (l, n): a product of matrices.

    The largest value of a line and the smallest cost are taken out, so no factor exceeds 1; lines with a sum that is
    small enough to have lost terms are made again with a largest term for each i.
    """
    xp, base = array_namespace(values), _least(table)
    if base == math.inf:  # weighted by costs that are all 0
        return xp.full((values.shape[0], table.shape[0]), -math.inf, dtype=values.dtype, device=device_of(values))
    K = xp.exp((base - table) / reg)
    tops = xp.max(values, axis=1)
    alive = tops > -math.inf
    tops = xp.where(alive, tops, xp.zeros_like(tops))
    V = xp.exp((values - tops[:, None]) / reg)
    K, V = (xp.where(M < LEAST, xp.zeros_like(M), M) for M in (K, V))
    S = xp.matmul(V, K.T)
    positive = S > 0
    out = reg * xp.log(xp.where(positive, S, xp.ones_like(S))) + (tops - base)[:, None]
    out = xp.where(positive, out, xp.full_like(out, -math.inf))
    lost = xp.nonzero(alive & xp.any(S < LOST, axis=1))[0]
    softmin = kernel("softmin_rows", xp)
    for k in range(lost.shape[0]):
        line = int(lost[k])
        out[line, :] = -softmin("stored", table, None, values[line, :] + 0.0, reg)  # a sum is contiguous
    return out


def grid_cost(*axes: Any, spacing: Any = 1.0, metric: str = "sqeuclidean") -> GridCost:
    """Costs between the points of a grid, kept as one small matrix for each axis.

    ``C[i, j] = sum_k c_k[i_k, j_k]`` for points ``i = (i_1, i_2, ...)``: squared Euclidean and city block distances,
    and whatever else adds up over the axes.  A histogram on the grid is flattened in C order, as ``image.ravel()``.
    A pass over the plan of n points takes ``O(n (n_1 + n_2 + ...))`` operations in place of n squared.

    Parameters
    ----------
    *axes : int, array of shape (n_k,) or array of shape (n_k, m_k)
        One for each axis: a number of equally spaced points, coordinates, or any matrix of costs along the axis, inf
        for forbidden pairs.
    spacing : float, or one for each axis, spacing > 0, default 1.0
        Distance of neighbours on the axes given by a number.
    metric : {"sqeuclidean", "cityblock"}, default "sqeuclidean"
        ``(x - y)**2`` or ``|x - y|`` along the axes that are not matrices.

    Returns
    -------
    GridCost
        To be passed as `cost` to `sinkhorn` and its relatives.

    Raises
    ------
    ValueError
        If there is no axis, an axis is empty, holds NaN or -inf or a row or column of inf only, the axes live in
        different libraries, or a parameter is out of range.
    TypeError
        If an axis is complex or not numeric.

    Notes
    -----
    Along an axis ``log sum exp`` is a product of matrices as long as nothing underflows; lines of the grid where
    something does are summed in logarithms, so that any regularisation is served.  Source: Solomon et al.,
    "Convolutional Wasserstein distances", ACM Transactions on Graphics 34 (2015), section 4.

    Examples
    --------
    >>> import numpy as np, randla
    >>> cost = randla.grid_cost(28, 28, spacing=1 / 27)
    >>> image = np.random.default_rng(0).random((2, 28, 28))
    >>> a, b = (part.ravel() / part.sum() for part in image)
    >>> cost.shape, randla.sinkhorn(a, b, cost, 1e-2).converged
    ((784, 784), True)
    """
    check_choice(metric, "metric", METRICS)
    if not axes:
        raise ValueError("axes must hold one at least, got none; pass the sides of the grid")
    steps = [spacing] * len(axes) if isinstance(spacing, (int, float)) else list(spacing)
    if len(steps) != len(axes):
        raise ValueError(f"spacing must be a number or one for each of {len(axes)} axes, got {len(steps)}")
    steps = [check_real(step, "spacing", low=0.0, closed="neither") for step in steps]
    arrays = [None if _is_count(axis) else real_matrix(axis, "axes", vector=True) for axis in axes]
    like = next((axis for axis in arrays if axis is not None), np.zeros(1))
    tables = []
    for axis, given, step in zip(axes, arrays, steps, strict=True):
        if given is None:
            size = check_integer(axis, "axes", low=1)
            given = from_host(step * np.arange(size, dtype=np.float64), array_namespace(like), like)
        check_together(like, given, names=("axes", "axes"))
        tables.append(_table(given, metric))
    return GridCost(tuple(tables))


def _is_count(axis: Any) -> bool:
    if is_array_api_obj(axis) and axis.ndim > 0:
        return False
    try:
        operator.index(axis)
    except TypeError:
        return False
    return True


def _table(axis: Any, metric: str) -> Any:
    """The costs along an axis, checked."""
    xp = array_namespace(axis)
    axis = xp.astype(axis, xp.float64)
    if axis.ndim == 1:
        if not bool(xp.all(xp.isfinite(axis))):
            raise ValueError("axes must have finite coordinates, got NaN or infinity")
        apart = axis[:, None] - axis[None, :]
        return xp.abs(apart) if metric == "cityblock" else apart * apart
    if bool(xp.any(xp.isnan(axis))) or bool(xp.any(axis == -math.inf)):
        raise ValueError("axes must hold numbers, or inf for forbidden pairs, got NaN or -inf")
    finite = xp.isfinite(axis)
    if not bool(xp.all(xp.any(finite, axis=0))) or not bool(xp.all(xp.any(finite, axis=1))):
        raise ValueError("axes must let every row and column go somewhere, got one with inf only")
    return axis
