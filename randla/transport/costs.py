"""Costs of transport: stored matrices, or points whose distances are made inside the kernels.

The solvers see a cost through a handful of passes, so that a matrix that is never stored is solved by the same code.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, floating_dtype, is_complex
from .._backend import kernel
from .._checks import check_choice
from .._results import Status

SYMMETRIC = 1e-12  # relative difference of a cost and its transpose that counts as rounding
METRICS = ("sqeuclidean", "euclidean", "cityblock", "cosine")


class BaseCost:
    """What every cost tells the solvers beside its passes, where it differs from a matrix."""

    xp: Any
    X: Any
    shape: tuple[int, int]
    metric = ""
    has_entries = True  # whether `entries` gives single entries, which Newton steps and stored plans need
    failure = Status.NONFINITE  # what NaN stands for

    @property
    def is_stored(self) -> bool:
        """True where entries lie in memory."""
        return self.metric == "stored"

    @property
    def is_finite(self) -> bool:
        """True where no pair is forbidden."""
        return bool(self.xp.all(self.xp.isfinite(self.X)))

    def check_reg(self, reg: float) -> None:
        """Raise ValueError where the cost is not known at this regularisation."""

    def check_symmetric(self, reason: str) -> None:
        """Raise ValueError unless the cost is symmetric, up to rounding; `reason` says why it must be."""
        worst = self._asymmetry() if self.shape[0] == self.shape[1] else math.inf
        if not worst <= SYMMETRIC:
            raise ValueError(
                f"cost must be symmetric {reason}, got shape {self.shape} and a relative difference of {worst:.3g}; "
                "take (C + C.T) / 2 where that is noise"
            )

    def _asymmetry(self) -> float:
        raise NotImplementedError


def relative_difference(A: Any, B: Any) -> float:
    """``max |A - B| / max |A|`` of two arrays; infinities that stand in the same places are no difference."""
    xp = array_namespace(A)
    if tuple(A.shape) != tuple(B.shape):
        return math.inf
    finite = xp.isfinite(A) & xp.isfinite(B)
    if bool(xp.any(~finite & (A != B))):
        return math.inf
    zeros = xp.zeros_like(A)
    apart = float(xp.max(xp.abs(xp.where(finite, A, zeros) - xp.where(finite, B, zeros))))
    return apart / (float(xp.max(xp.abs(xp.where(finite, A, zeros)))) or 1.0)


def real_matrix(A: Any, name: str, *, vector: bool = False) -> Any:
    """`A` as a real matrix (or vector) with an entry at least."""
    A = as_matrix(A, name=name, sparse=False, vector=vector)
    if is_complex(A.dtype):
        raise TypeError(f"{name} must be real, got {A.dtype}")
    if 0 in A.shape:
        raise ValueError(f"{name} must have a row and a column at least, got shape {tuple(A.shape)}")
    return A


class Cost(BaseCost):
    """Costs C (n, m) for the kernels: "stored" with the matrix in X, or the metric of the rows of X and of Y.

    Attributes
    ----------
    metric : str
        "stored", "sqeuclidean", "euclidean" or "cityblock".
    X : array
        The costs (n, m), or the points of the rows (n, d).
    Y : array or None
        The points of the columns (m, d).
    """

    def __init__(self, metric: str, X: Any, Y: Any = None) -> None:
        self.metric, self.X, self.Y = metric, X, Y
        self.xp, self.device = array_namespace(X), device_of(X)
        self.shape = (int(X.shape[0]), int(X.shape[1] if Y is None else Y.shape[0]))

    @property
    def T(self) -> Cost:  # the name of the transpose
        """The costs of the opposite direction; a stored matrix is laid out anew, once for all passes over it."""
        if self.is_stored:
            flat = self.xp.reshape(self.X.T, (-1,))
            return Cost("stored", self.xp.reshape(flat, (self.shape[1], self.shape[0])))
        return Cost(self.metric, self.Y, self.X)

    def take(self, rows: Any = None, columns: Any = None) -> Cost:
        """The costs of some rows and columns, given by their numbers; None keeps all."""
        X, Y = self.X, self.Y
        if rows is not None:
            X = self.xp.take(X, rows, axis=0)
        if columns is not None and self.is_stored:
            X = self.xp.take(X, columns, axis=1)
        elif columns is not None:
            Y = self.xp.take(Y, columns, axis=0)
        return Cost(self.metric, X, Y)

    def _asymmetry(self) -> float:
        return relative_difference(self.X, self.X.T if self.is_stored else self.Y)

    def _run(self, name: str, *arguments: Any) -> Any:
        return kernel(name, self.xp)(self.metric, self.X, self.Y, *arguments)

    def softmin(self, g: Any, reg: float) -> Any:
        """``-reg log(sum_j exp((g_j - C_ij) / reg))``, shape (n,)."""
        return self._run("softmin_rows", g, reg)

    def sweep(self, a: Any, g: Any, reg: float) -> tuple[Any, Any]:
        """The f for which the rows of the plan sum to a, and the sums of its columns."""
        return self._run("sinkhorn_sweep", a, g, reg)

    def sums(self, f: Any, g: Any, reg: float) -> tuple[Any, Any, Any]:
        """Sums of the rows and of the columns of the plan, and of plan times cost in each row."""
        return self._run("plan_sums", f, g, reg)

    def plan(self, f: Any, g: Any, reg: float) -> Any:
        """The plan ``exp((f_i + g_j - C_ij) / reg)``, shape (n, m)."""
        return self._run("plan_matrix", f, g, reg)

    def entries(self, f: Any, g: Any, reg: float, share: float) -> tuple[Any, Any, Any]:
        """CSR data, indices and indptr of the plan without its smallest entries: `share` of each row's sum at most."""
        return self._run("plan_entries", f, g, reg, share)

    def transport(self, f: Any, g: Any, reg: float, V: Any) -> Any:
        """The plan times V (m, k), without storing the plan."""
        return self._run("plan_matmul", f, g, reg, V)

    def largest(self) -> float:
        """The largest finite cost, or for points a bound of it: that of the corners of their common box."""
        xp = self.xp
        if self.is_stored:
            finite = xp.isfinite(self.X)
            return float(xp.max(xp.abs(xp.where(finite, self.X, xp.zeros_like(self.X)))))
        low = xp.minimum(xp.min(self.X, axis=0), xp.min(self.Y, axis=0))
        sides = xp.maximum(xp.max(self.X, axis=0), xp.max(self.Y, axis=0)) - low
        if self.metric == "cityblock":
            return float(xp.sum(sides))
        square = float(xp.sum(sides * sides))
        return square if self.metric == "sqeuclidean" else math.sqrt(square)


def point_cost(X: Any, Y: Any = None, metric: str = "sqeuclidean") -> Cost:
    """Costs between points, made inside the kernels: no n x m matrix is stored.

    Parameters
    ----------
    X : array, shape (n, d)
        Points that mass leaves, one in a row, real and finite.
    Y : array, shape (m, d), optional
        Points that mass arrives at; default X.
    metric : {"sqeuclidean", "euclidean", "cityblock", "cosine"}, default "sqeuclidean"
        ``||x - y||^2``, ``||x - y||``, ``sum |x_c - y_c|``, or ``1 - x.y / (||x|| ||y||)``.

    Returns
    -------
    Cost
        To be passed as `cost` to `sinkhorn` and its relatives.

    Raises
    ------
    TypeError
        If X or Y is not numeric or complex, or both are of different libraries or devices.
    ValueError
        If the shapes don't fit, an entry is not finite, `metric` is unknown, or a zero row has no direction ("cosine").

    Notes
    -----
    A pass makes every distance again: ``O(n m d)`` operations, ``O((n + m) d)`` memory.

    Examples
    --------
    >>> import numpy as np, randla
    >>> X = np.random.default_rng(0).random((50, 3))
    >>> randla.point_cost(X, X[:20], metric="euclidean").shape
    (50, 20)
    """
    check_choice(metric, "metric", METRICS)
    X = _points(X, "X")
    Y = X if Y is None else _points(Y, "Y")
    check_together(X, Y, names=("X", "Y"))
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"Y must have as many columns as X, {X.shape[1]}, got shape {tuple(Y.shape)}")
    if metric == "cosine":  # of unit vectors the squared distance is twice the cosine distance
        return Cost("sqeuclidean", _half_directions(X, "X"), _half_directions(Y, "Y"))
    return Cost(metric, X, Y)


def _points(X: Any, name: str) -> Any:
    X = real_matrix(X, name)
    xp = array_namespace(X)
    X = xp.astype(X, xp.float64)
    if not bool(xp.all(xp.isfinite(X))):
        raise ValueError(f"{name} must be finite, got NaN or infinity; drop or impute these rows")
    return X


def _half_directions(X: Any, name: str) -> Any:
    xp = array_namespace(X)
    X = X / xp.where(xp.max(xp.abs(X), axis=1) > 0, xp.max(xp.abs(X), axis=1), xp.ones_like(X[:, 0]))[:, None]
    lengths = xp.sqrt(xp.sum(X * X, axis=1))
    if bool(xp.any(lengths == 0)):
        raise ValueError(f'{name} must have no zero rows for metric="cosine", got {int(xp.sum(lengths == 0))}')
    return X / (lengths * math.sqrt(2.0))[:, None]


def as_cost(cost: Any, name: str = "cost") -> Any:
    """A matrix of costs (n, m), inf for forbidden pairs, or a `Cost` as it is."""
    if isinstance(cost, BaseCost):
        return cost
    cost = real_matrix(cost, name)
    xp = array_namespace(cost)
    cost = xp.astype(cost, floating_dtype(cost, xp), copy=False)
    if bool(xp.any(xp.isnan(cost))) or bool(xp.any(cost == -math.inf)):
        raise ValueError(f"{name} must hold numbers, or inf for forbidden pairs, got NaN or -inf")
    return Cost("stored", cost)
