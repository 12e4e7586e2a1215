"""Transport by low-rank kernels ``exp(-C / reg) ~ L R.T``: sweeps of O((n + m) r) for many points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import check_together, eps, from_host, to_host
from .._backend import kernel
from .._checks import check_integer, check_real
from .._random import Stream, as_key
from .._results import Status
from ..lowrank.kernel_functions import KernelMatrix
from ..lowrank.rpcholesky import rpcholesky
from .both_sides import exponential, log_mass
from .costs import BaseCost, as_cost, point_cost, real_matrix

BLOCK_ENTRIES = 2**20  # entries of the kernel that are made at a time
MOST_PRICED = 2**26  # pairs up to which costs that are known by factors only are summed
SAME_REG = 1e-12


class FactorCost(BaseCost):
    """Costs ``-reg log(L R.T)`` for one regularisation; it has the methods of `Cost`, made of products with L and R.

    A sum of the kernel that is not positive becomes NaN, which ends a solver with the status BREAKDOWN.

    Parameters
    ----------
    L : array, shape (n, r)
        Factor of the rows, float64.
    R : array, shape (m, r)
        Factor of the columns, float64.
    reg : float
        Regularisation of the kernel.
    points : Cost, optional
        Squared distances that the kernel approximates, for costs of plans and for errors.
    left : pair of array, optional
        The diagonal of the kernel of all points less its approximation, and the rounding of products, for rows (n,) and
        columns (m,): entry i, j of the kernel is off by at most ``sqrt(left_i left_j)``.
    trace_error : float, optional
        The sum of both over the number of points.
    """

    metric = "factors"
    has_entries = False
    failure = Status.BREAKDOWN  # what NaN stands for

    def __init__(
        self, L: Any, R: Any, reg: float, points: Any = None, left: Any = None, trace_error: float = math.nan
    ) -> None:
        self.L, self.R, self.reg, self.points, self.left, self.trace_error = L, R, reg, points, left, trace_error
        self.X = L
        self.xp, self.device = array_namespace(L), device_of(L)
        self.shape = (int(L.shape[0]), int(R.shape[0]))

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""
        return int(self.L.shape[1])

    @property
    def T(self) -> FactorCost:  # the name of the transpose
        """The costs of the opposite direction."""
        points = None if self.points is None else self.points.T
        left = None if self.left is None else self.left[::-1]
        return FactorCost(self.R, self.L, self.reg, points, left, self.trace_error)

    def _asymmetry(self) -> float:
        """``||K - K.T||_F / ||K||_F`` of the kernel, from products of the factors."""
        if self.L is self.R:
            return 0.0
        xp = self.xp
        cross = xp.matmul(self.R.T, self.L)
        size = float(xp.sum(xp.matmul(self.L.T, self.L) * xp.matmul(self.R.T, self.R)))
        return math.sqrt(max(0.0, 2 * size - 2 * float(xp.sum(cross * cross.T))) / (size or 1.0))

    def take(self, rows: Any = None, columns: Any = None) -> FactorCost:
        """The costs of some rows and columns, given by their numbers; None keeps all."""
        take = self.xp.take
        L = self.L if rows is None else take(self.L, rows, axis=0)
        R = self.R if columns is None else take(self.R, columns, axis=0)
        points = None if self.points is None else self.points.take(rows, columns)
        left = self.left
        if left is not None:
            pairs = zip(left, (rows, columns), strict=True)
            left = tuple(part if places is None else take(part, places) for part, places in pairs)
        return FactorCost(L, R, self.reg, points, left, self.trace_error)

    def check_reg(self, reg: float) -> None:
        """Raise ValueError unless `reg` is that of the factors."""
        if abs(reg - self.reg) > SAME_REG * self.reg:
            raise ValueError(
                f"reg must be that of the factors, {self.reg:.9g}, got {reg:.9g}; make other factors for it"
            )

    def _product(self, g: Any) -> tuple[Any, Any, float]:
        """``K v`` for ``v = exp((g - top) / reg)``, v, and top, the largest g."""
        xp, top = self.xp, float(self.xp.max(g))
        top = 0.0 if top == -math.inf else top  # NaN stays
        v = xp.exp((g - top) / self.reg)
        return xp.matmul(self.L, xp.matmul(self.R.T, v)), v, top

    def softmin(self, g: Any, reg: float) -> Any:
        """``-reg log(sum_j exp((g_j - C_ij) / reg))``, (n,); NaN where the sum is not positive, and at another reg."""
        xp = self.xp
        if abs(reg - self.reg) > SAME_REG * self.reg:
            return xp.full((self.shape[0],), math.nan, dtype=xp.float64, device=self.device)
        S, v, top = self._product(g)
        if bool(xp.all(v == 0)):
            return xp.full_like(S, math.inf)
        positive = S > 0
        logs = xp.log(xp.where(positive, S, xp.ones_like(S)))
        return xp.where(positive, -reg * logs - top, xp.full_like(S, math.nan))

    def sweep(self, a: Any, g: Any, reg: float) -> tuple[Any, Any]:
        """The f for which the rows of the plan sum to a, and the sums of its columns."""
        self.check_reg(reg)
        xp, logs = self.xp, reg * log_mass(a)
        f = xp.where(a > 0, logs + self.softmin(g, reg), logs)
        return f, self._sums(g, self.T.softmin(f, reg))

    def _sums(self, f: Any, lift: Any) -> Any:
        """``exp((f - lift) / reg)``, 0 where f is -inf."""
        gone = f == -math.inf
        return exponential(self.xp.where(gone, f, f - lift) / self.reg)

    def rows(self, f: Any, g: Any) -> Any:
        """The sums of the rows of the plan."""
        return self._sums(f, self.softmin(g, self.reg))

    def sums(self, f: Any, g: Any, reg: float) -> tuple[Any, Any, Any]:
        """Sums of the rows and of the columns of the plan, and of plan times cost in each row."""
        self.check_reg(reg)
        rows = self.rows(f, g)
        columns = self._sums(g, self.T.softmin(f, reg))
        if self.points is None:
            return rows, columns, self._prices(f, g)
        xp, X, Y = self.xp, self.points.X, self.points.Y
        middle = xp.mean(Y, axis=0)[None, :]
        X, Y = X - middle, Y - middle
        squares = xp.sum(Y * Y, axis=1)[:, None]
        moved = self.transport(f, g, reg, xp.concat([Y, squares], axis=1))
        inner = xp.sum(X * moved[:, :-1], axis=1)
        return rows, columns, xp.sum(X * X, axis=1) * rows + moved[:, -1] - 2.0 * inner

    def _prices(self, f: Any, g: Any) -> Any:
        """Plan times ``-reg log(L R.T)`` in each row, by blocks; NaN for too many pairs."""
        xp, (n, m) = self.xp, self.shape
        if n * m > MOST_PRICED:
            return xp.full_like(f, math.nan)
        step, parts = max(1, BLOCK_ENTRIES // m), []
        for lo in range(0, n, step):
            hi = min(lo + step, n)
            logs, signs = self._logarithms(self.L[lo:hi, :])
            T = self._entries(f[lo:hi], g, logs, signs)
            parts.append(-self.reg * xp.sum(xp.where(T > 0, T * logs, xp.zeros_like(T)), axis=1))
        return xp.concat(parts)

    def _logarithms(self, L: Any) -> tuple[Any, Any]:
        """Logarithms of the absolute entries of the kernel, 0 where they are 0, and their signs."""
        xp, K = self.xp, self.xp.matmul(L, self.R.T)
        return xp.log(xp.where(K == 0, xp.ones_like(K), xp.abs(K))), xp.sign(K)

    def _entries(self, f: Any, g: Any, logs: Any, signs: Any) -> Any:
        return signs * exponential((f[:, None] + g[None, :]) / self.reg + logs)

    def plan(self, f: Any, g: Any, reg: float) -> Any:
        """The plan ``exp((f_i + g_j) / reg) (L R.T)_ij``, shape (n, m); an entry of the kernel may be negative."""
        self.check_reg(reg)
        return self._entries(f, g, *self._logarithms(self.L))

    def transport(self, f: Any, g: Any, reg: float, V: Any) -> Any:
        """The plan times V (m, k), by the factors."""
        self.check_reg(reg)
        xp = self.xp
        S, v, top = self._product(g)
        positive = S > 0
        lift = -reg * xp.log(xp.where(positive, S, xp.full_like(S, math.nan))) - top
        share = self._sums(f, lift) / xp.where(positive, S, xp.ones_like(S))
        return share[:, None] * xp.matmul(self.L, xp.matmul(self.R.T, v[:, None] * xp.astype(V, xp.float64)))

    def entries(self, f: Any, g: Any, reg: float, share: float) -> tuple[Any, Any, Any]:
        """Not offered: Newton's sparse Hessian would need all n m entries."""
        raise NotImplementedError(
            'cost must give single entries for sparse plans and method="newton", got factors; use method="sinkhorn"'
        )

    def largest(self) -> float:
        """NaN: a kernel at one regularisation bounds no cost, and there is no larger regularisation to begin at."""
        return math.nan

    def __repr__(self) -> str:
        return f"FactorCost(shape={self.shape}, rank={self.rank}, reg={self.reg:.3g})"


@dataclass(frozen=True)
class FactorError:
    """How far a plan made with factors is from one with the kernel itself and the same potentials.

    Attributes
    ----------
    bound : float
        Upper bound of ``sum_ij |T_ij - T'_ij|`` over the mass, T with the factors and T' with the kernel; NaN for
        factors of unknown origin.
    marginal_error : float
        Estimate of ``||T' 1 - a||_1`` over the mass, from a sample of rows.
    deviation : float
        Standard error of that estimate.
    trace_error : float
        ``trace(K - F F.T) / trace(K)`` of the kernel of all points; NaN for factors of unknown origin.
    """

    bound: float
    marginal_error: float
    deviation: float
    trace_error: float


def factor_cost(L: Any, R: Any, reg: float) -> FactorCost:
    """Use a kernel ``exp(-C / reg) = L R.T`` that is given by its factors.

    A sweep takes ``O((n + m) r)`` operations and memory.  With nonnegative factors, such as positive random features of
    a Gaussian kernel, all sums are positive and nothing can break down.

    Parameters
    ----------
    L : array, shape (n, r)
        Factor of the rows, real and finite.
    R : array, shape (m, r)
        Factor of the columns.
    reg : float, reg > 0
        The regularisation for which the kernel was made; solvers must be called with it.

    Returns
    -------
    FactorCost
        To be passed as `cost` to `sinkhorn` and its relatives, for this `reg` only.

    Raises
    ------
    ValueError
        If the shapes don't fit, an entry is not finite, or `reg` is not positive.
    TypeError
        If a factor is complex or not numeric.

    Notes
    -----
    The kernel is taken as it is: `factor_error` compares a result with true costs.  ``result.cost`` is that of
    ``-reg log(L R.T)``, which takes all pairs; beyond 67 million of them it is NaN.  `TransportResult.lower_bound`
    is NaN.

    References
    ----------
    Scetbon and Cuturi, "Linear time Sinkhorn divergences using positive features", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> L, R = rng.random((1000, 5)), rng.random((800, 5))
    >>> randla.sinkhorn(None, None, randla.factor_cost(L, R, 0.1), 0.1).converged
    True
    """
    factors = []
    for factor, name in ((L, "L"), (R, "R")):
        factor = real_matrix(factor, name)
        xp = array_namespace(factor)
        factor = xp.astype(factor, xp.float64)
        if not bool(xp.all(xp.isfinite(factor))):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        factors.append(factor)
    check_together(*factors, names=("L", "R"))
    if factors[0].shape[1] != factors[1].shape[1]:
        raise ValueError(
            f"R must have as many columns as L, {factors[0].shape[1]}, got shape {tuple(factors[1].shape)}"
        )
    return FactorCost(factors[0], factors[1], check_real(reg, "reg", low=0.0, closed="neither"))


def nystrom_cost(
    X: Any, Y: Any = None, *, reg: float, rank: int | None = None, tol: float = 1e-12, rng: Any = None
) -> FactorCost:
    """Squared Euclidean costs by a low-rank factor of their Gaussian kernel, for very many points in few dimensions.

    ``exp(-||x - y||^2 / reg) ~ F_x F_y.T`` by randomly pivoted Cholesky of the kernel of all points: ``(n + m) r``
    kernel values and ``(n + m) r**2`` operations once, and ``(n + m) r`` a sweep.  The rank r grows as `reg` falls:
    use it where `reg` is a few hundredths of the largest cost or more, and `point_cost` elsewhere.

    Parameters
    ----------
    X : array, shape (n, d)
        Points that mass leaves, one in a row, real and finite.
    Y : array, shape (m, d), optional
        Points that mass arrives at; default X.
    reg : float, reg > 0
        Regularisation in units of cost; solvers must be called with it.
    rank : int, rank >= 1, optional
        Largest rank; default n + m.
    tol : float, 0 <= tol < 1, default 1e-12
        Goal for ``trace(K - F F.T) / trace(K)``; what was reached is the attribute `trace_error`.
    rng : None, int, SeedSequence, Generator or Key
        Source of the pivots.

    Returns
    -------
    FactorCost
        To be passed as `cost` to `sinkhorn` and its relatives, for this `reg` only.

    Raises
    ------
    ValueError
        If the shapes don't fit, an entry is not finite, or a parameter is out of range.
    TypeError
        If X or Y is complex or not numeric.

    Notes
    -----
    Entry i, j of the kernel is off by at most ``sqrt(d_i d_j)``, where d is what the factor has left of its diagonal,
    plus r units of rounding.  `factor_error` makes of it a bound for the plan of a result.  Where all points of a row
    are so far away that the kernel is below that, its sums are noise: sweeps slow down or, when a sum comes out
    negative, end in the status BREAKDOWN.  A larger `reg` helps, and a larger rank as long as rounding is not
    reached.  `TransportResult.lower_bound` is NaN: the factor says nothing about exact transport.

    References
    ----------
    Altschuler, Bach, Rudi and Niles-Weed, "Massively scalable Sinkhorn distances via the Nystrom method", NeurIPS 2019;
    Chen, Epperly, Tropp and Webber, "Randomly pivoted Cholesky", 2025.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.random((2000, 2)), rng.random((1500, 2))
    >>> cost = randla.nystrom_cost(X, Y, reg=0.2, rng=0)
    >>> result = randla.sinkhorn(None, None, cost, 0.2)
    >>> result.converged, randla.factor_error(result, rng=0).bound < 1e-6
    (True, True)
    """
    points = point_cost(X, Y)
    reg = check_real(reg, "reg", low=0.0, closed="neither")
    tol = check_real(tol, "tol", low=0.0, high=1.0, closed="left")
    xp, n, same = points.xp, points.shape[0], Y is None
    Z = points.X if same else xp.concat([points.X, points.Y])
    size = int(Z.shape[0])
    rank = size if rank is None else min(size, check_integer(rank, "rank", low=1))
    key = as_key(rng).fold("nystrom_cost")
    found = rpcholesky(KernelMatrix(Z, "rbf", gamma=1.0 / reg), rank, tol=tol, rng=key, on_failure="ignore")
    F = found.F
    left = found.diagonal_left + int(F.shape[1]) * eps(
        F.dtype
    )  # products of rows, whose norm is 1 at most, are rounded
    parts = [(F, left)] * 2 if same else [(F[:n, :], left[:n]), (F[n:, :], left[n:])]
    return FactorCost(parts[0][0], parts[1][0], reg, points, (parts[0][1], parts[1][1]), float(found.error))


def factor_error(result: Any, cost: Any = None, *, n_samples: int = 256, rng: Any = None) -> FactorError:
    """Tell how far a plan by factors is from the one with true costs and the same potentials.

    Parameters
    ----------
    result : TransportResult
        Of `sinkhorn` with a cost made by `nystrom_cost` or `factor_cost`.
    cost : array, shape (n, m), or Cost, optional
        The true costs; those of its points for `nystrom_cost`, and required for `factor_cost`.
    n_samples : int, n_samples >= 2, default 256
        Rows of the true plan that are summed, drawn by their mass: ``O(n_samples m d)`` operations.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sample.

    Returns
    -------
    FactorError
        A bound, for `nystrom_cost`, and the marginal error estimated on the sample.

    Raises
    ------
    ValueError
        If the result was not made with factors, the shapes don't fit, true costs are missing, or `n_samples` is out of
        range.

    Notes
    -----
    With ``u = exp(f / reg)``, ``v = exp(g / reg)`` and the diagonals d that the factor has left, rounding included,
    ``sum_ij |T_ij - T'_ij| <= (u.sqrt(d_x)) (v.sqrt(d_y))``, by Cauchy's inequality for positive semidefinite matrices.
    A row i drawn with probability ``a_i`` gives the unbiased estimate ``|T'_i 1 - a_i| / a_i`` of the marginal error.

    Examples
    --------
    >>> import numpy as np, randla
    >>> X = np.random.default_rng(0).random((500, 2))
    >>> result = randla.sinkhorn(None, None, randla.nystrom_cost(X, reg=0.5, rank=20, rng=0), 0.5)
    >>> error = randla.factor_error(result, rng=0)
    >>> error.marginal_error <= error.bound + 1e-9
    True
    """
    factors = result.plan.cost
    if not isinstance(factors, FactorCost):
        raise ValueError(f"result must have a cost made of factors, got {type(factors).__name__}; its plan is exact")
    n_samples = check_integer(n_samples, "n_samples", low=2)
    if cost is None and factors.points is None:
        raise ValueError("cost must be given for factors of unknown origin, got None; pass point_cost(X, Y)")
    true = factors.points if cost is None else as_cost(cost)
    if true.shape != factors.shape:
        raise ValueError(f"cost must have the shape of the factors, {factors.shape}, got {true.shape}")
    xp, reg, f, g = factors.xp, result.reg, result.f, result.g
    rows = factors.rows(f, g)
    masses = to_host(rows)
    mass = float(masses.sum())
    uniforms = kernel("uniforms", np)(as_key(rng).fold("factor_error"), Stream.SAMPLE, 0, n_samples)
    ends = np.cumsum(masses)
    chosen = np.minimum(np.searchsorted(ends, uniforms * ends[-1], side="right"), np.nonzero(masses > 0)[0][-1])
    places = from_host(chosen, xp, f)
    sampled = true.take(rows=places)
    sums = exponential((xp.take(f, places) - sampled.softmin(g, reg)) / reg)
    off = to_host(xp.abs(sums / xp.take(rows, places) - 1.0))
    bound = math.nan
    if factors.left is not None:
        sides = [_log_sum(p / reg + 0.5 * log_mass(d)) for p, d in zip((f, g), factors.left, strict=True)]
        bound = math.exp(min(700.0, sum(sides))) / mass
    return FactorError(bound, float(off.mean()), float(off.std(ddof=1)) / math.sqrt(n_samples), factors.trace_error)


def _log_sum(exponents: Any) -> float:
    """``log(sum(exp(exponents)))``."""
    xp = array_namespace(exponents)
    top = float(xp.max(exponents))
    return top + math.log(float(xp.sum(xp.exp(exponents - top)))) if top > -math.inf else -math.inf
