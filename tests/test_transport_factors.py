"""Transport by low-rank kernels: against the kernel itself, with the error that is told, and where they break down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import randla
from randla._arrays import to_host
from randla._results import ConvergenceWarning, Status
from randla.transport.costs import Cost
from randla.transport.factors import FactorCost

from .conftest import tolerance
from .statistics import FALSE_ALARM, chebyshev


def points(n: int = 40, m: int = 30, d: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((n, d)), rng.random((m, d)) + 0.2


def masses(n: int, seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).random(n) + 0.1
    return weights / weights.sum()


def features(n: int = 20, m: int = 15, rank: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((n, rank)) + 0.01, rng.random((m, rank)) + 0.01


def test_passes_are_those_over_the_costs_of_the_product() -> None:
    (L, R), reg, rng = features(), 0.3, np.random.default_rng(2)
    factors, dense = randla.factor_cost(L, R, reg), Cost("stored", -reg * np.log(L @ R.T))
    a, g = masses(20), rng.normal(size=15)
    a[3], g[2] = 0.0, -np.inf
    bound = tolerance("float64", 20, 30)
    f, sums = factors.sweep(a, g, reg)
    f_all, sums_all = dense.sweep(a, g, reg)
    kept = a > 0
    assert np.abs(f[kept] - f_all[kept]).max() <= bound
    assert f[3] == -np.inf
    assert np.abs(sums - sums_all).max() <= bound
    for part, wanted in zip(factors.sums(f, g, reg), dense.sums(f, g, reg), strict=True):
        assert np.abs(part - wanted).max() <= bound
    V = rng.normal(size=(15, 2))
    assert np.abs(factors.transport(f, g, reg, V) - dense.transport(f, g, reg, V)).max() <= bound
    assert np.abs(factors.plan(f, g, reg) - dense.plan(f, g, reg)).max() <= bound
    some, places = factors.take(np.array([5, 1]), np.array([0, 7, 3])), np.ix_([5, 1], [0, 7, 3])
    assert (
        np.abs(some.T.softmin(f[[5, 1]], reg) - Cost("stored", dense.X[places]).T.softmin(f[[5, 1]], reg)).max()
        <= bound
    )
    assert np.all(factors.softmin(np.full(15, -np.inf), reg) == np.inf)
    assert np.all(np.isnan(factors.softmin(g, 0.1)))
    assert np.isnan(factors.largest())


def test_solvers_take_factors() -> None:
    (L, R), reg = features(), 0.3
    a, b = masses(20), masses(15, 1)
    factors, C = randla.factor_cost(L, R, reg), -reg * np.log(L @ R.T)
    for solve in (
        lambda cost: randla.sinkhorn(a, b, cost, reg),
        lambda cost: randla.sinkhorn(a, b, cost, reg, method="sinkhorn"),
        lambda cost: randla.sinkhorn_unbalanced(a, 2 * b, cost, reg, 1.0),
        lambda cost: randla.sinkhorn_barycenter(np.stack([a, a[::-1]]), cost, reg),
    ):
        found, wanted = solve(factors), solve(C)
        assert found.converged
        assert abs(found.value - wanted.value) <= 1e-8
    assert abs(randla.sinkhorn(a, b, factors, reg).cost - randla.sinkhorn(a, b, C, reg).cost) <= 1e-8


@pytest.mark.parametrize("reg", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("same", [False, True])
def test_nystrom_kernel_against_the_kernel(reg: float, same: bool) -> None:
    X, Y = points()
    Y = None if same else Y
    cost, true = randla.nystrom_cost(X, Y, reg=reg, rng=0), randla.point_cost(X, Y)
    a, b = masses(40), masses(cost.shape[1], 1)
    a[0] = 0.0
    a /= a.sum()
    result, exact = randla.sinkhorn(a, b, cost, reg), randla.sinkhorn(a, b, true, reg)
    assert result.converged
    error = randla.factor_error(result, rng=0)
    assert cost.trace_error <= 1e-10
    T = result.plan.to_dense()
    true_T = true.plan(result.f, result.g, reg)
    rounding = tolerance("float64", 70, 1e3)
    assert np.abs(T - true_T).sum() <= error.bound + rounding  # the bound is one
    assert error.bound <= 1e-6
    assert np.abs(T - exact.plan.to_dense()).sum() <= 1e-6
    assert abs(result.cost - exact.cost) <= 1e-7
    assert abs(result.value - exact.value) <= 1e-7


def test_bound_and_sample_tell_a_coarse_kernel() -> None:
    """Rank 12 is too few here: both numbers say so.  Chebyshev's inequality, with the variance over all rows."""
    X, Y = points(300, 250)
    cost = randla.nystrom_cost(X, Y, reg=0.3, rank=12, rng=0)
    result = randla.sinkhorn(None, None, cost, 0.3)
    error = randla.factor_error(result, n_samples=2000, rng=1)
    true = randla.point_cost(X, Y).plan(result.f, result.g, 0.3)
    off = np.abs(true.sum(1) * 300 - 1)
    actual = np.abs(result.plan.to_dense() - true).sum()
    assert 1e-6 < actual <= error.bound
    # 1e-6 by Chebyshev takes a thousand deviations; rows differ by little, so the range of the mean is told as well
    slack = min(chebyshev(2000, off.var(), FALSE_ALARM), off.max() - off.min())
    assert abs(error.marginal_error - off.mean()) <= slack
    assert error.marginal_error <= error.bound
    assert 0 < error.deviation < error.marginal_error
    finer = randla.factor_error(
        randla.sinkhorn(None, None, randla.nystrom_cost(X, Y, reg=0.3, rank=40, rng=0), 0.3), rng=1
    )
    assert finer.bound < error.bound / 100
    assert finer.trace_error < error.trace_error / 100


def test_positive_features_of_a_gaussian_kernel() -> None:
    """exp(-(x - y)^2 / reg) is a Gaussian mean of exponentials in x and in y: a quadrature gives positive factors."""
    reg, x = 0.5, np.random.default_rng(0).random(50)
    nodes = np.linspace(-4, 5, 400)
    L = np.exp(-2 * (x[:, None] - nodes) ** 2 / reg) * np.sqrt(9 / 399 * 2 / np.sqrt(np.pi * reg))
    cost, true = randla.factor_cost(L, L, reg), randla.point_cost(x[:, None])
    result = randla.sinkhorn(None, None, cost, reg)
    assert result.converged
    error = randla.factor_error(result, true, rng=0)
    assert error.marginal_error <= 1e-9
    assert np.isnan(error.bound)
    assert abs(result.cost - randla.sinkhorn(None, None, true, reg).cost) <= 1e-8
    with pytest.raises(ValueError, match="cost must be given for factors of unknown origin"):
        randla.factor_error(result)
    with pytest.raises(ValueError, match="cost must have the shape of the factors"):
        randla.factor_error(result, true.X)
    with pytest.raises(ValueError, match="result must have a cost made of factors"):
        randla.factor_error(randla.sinkhorn(None, None, true, reg))
    with pytest.raises(ValueError, match="n_samples must be at least 2"):
        randla.factor_error(result, true, n_samples=1)


def test_bound_knows_rounding() -> None:
    """At full rank the factor is exact up to rounding, but plans between far points magnify that."""
    X, Y = points()
    cost = randla.nystrom_cost(X, Y, reg=0.02, tol=0.0, rng=0)
    assert cost.trace_error <= 1e-14
    result = randla.sinkhorn(None, None, cost, 0.02, max_iter=100, on_failure="ignore")
    true = randla.point_cost(X, Y).plan(result.f, result.g, 0.02)
    actual = np.abs(result.plan.to_dense() - true).sum() / true.sum()
    assert 1e-6 < actual <= 2 * randla.factor_error(result, rng=0).bound


def test_break_down_is_told() -> None:
    """Rank 3 for points that see few others: sums of the kernel come out negative or 0."""
    X, Y = points()
    cost = randla.nystrom_cost(X, Y, reg=1e-3, rank=3, rng=0)
    with pytest.warns(ConvergenceWarning, match="BREAKDOWN"):
        result = randla.sinkhorn(None, None, cost, 1e-3)
    assert result.status is Status.BREAKDOWN
    negative = randla.factor_cost(np.array([[1.0, -2.0], [1.0, 0.0]]), np.ones((2, 2)), 0.1)
    assert randla.sinkhorn(None, None, negative, 0.1, on_failure="ignore").status is Status.BREAKDOWN
    for solve in (
        lambda: randla.sinkhorn_unbalanced(None, None, negative, 0.1, 1.0, on_failure="ignore"),
        lambda: randla.sinkhorn_barycenter(np.full((2, 2), 0.5), negative, 0.1, on_failure="ignore"),
    ):
        assert solve().status is Status.BREAKDOWN


def test_costs_of_too_many_pairs_are_not_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    (L, R), reg = features(), 0.3
    whole = randla.sinkhorn(None, None, randla.factor_cost(L, R, reg), reg)
    monkeypatch.setattr("randla.transport.factors.BLOCK_ENTRIES", 40)
    blocks = randla.sinkhorn(None, None, randla.factor_cost(L, R, reg), reg)
    assert abs(blocks.cost - whole.cost) <= tolerance("float64", 20)
    monkeypatch.setattr("randla.transport.factors.MOST_PRICED", 100)
    result = randla.sinkhorn(None, None, randla.factor_cost(L, R, reg), reg)
    assert result.converged
    assert np.isnan(result.cost)
    assert np.isnan(result.lower_bound)


def test_factors_in_other_libraries(xp: Any, put: Any) -> None:
    X, Y = points(20, 15)
    wanted = randla.sinkhorn(None, None, randla.nystrom_cost(X, Y, reg=0.3, rng=0), 0.3)
    found = randla.sinkhorn(None, None, randla.nystrom_cost(put(X), put(Y), reg=0.3, rng=0), 0.3)
    assert np.allclose(to_host(found.f), to_host(wanted.f), rtol=0, atol=1e-7)
    assert abs(found.cost - wanted.cost) <= 1e-7
    assert randla.factor_error(found, rng=0).marginal_error <= 1e-7
    given = randla.factor_cost(*(put(part) for part in features()), 0.3)
    assert randla.sinkhorn(None, None, given, 0.3).converged


def test_bad_factors() -> None:
    L, R = features()
    with pytest.raises(ValueError, match="R must have as many columns as L"):
        randla.factor_cost(L, R[:, :2], 0.1)
    with pytest.raises(ValueError, match="L must be finite"):
        randla.factor_cost(L * np.nan, R, 0.1)
    with pytest.raises(ValueError, match="L must have a row and a column"):
        randla.factor_cost(L[:0], R, 0.1)
    with pytest.raises(TypeError, match="L must be real"):
        randla.factor_cost(L + 0j, R, 0.1)
    with pytest.raises(ValueError, match="reg must be finite"):
        randla.factor_cost(L, R, 0.0)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        randla.nystrom_cost(L, reg=0.1, rank=0)
    with pytest.raises(ValueError, match="tol must be finite"):
        randla.nystrom_cost(L, reg=0.1, tol=1.0)
    cost = randla.factor_cost(L, R, 0.1)
    assert isinstance(cost, FactorCost)
    assert repr(cost) == "FactorCost(shape=(20, 15), rank=4, reg=0.1)"
    for solve in (
        lambda: randla.sinkhorn(None, None, cost, 0.2),
        lambda: randla.sinkhorn_unbalanced(None, None, cost, 0.2, 1.0),
        lambda: randla.sinkhorn_barycenter(np.full((1, 20), 0.05), cost, 0.2),
    ):
        with pytest.raises(ValueError, match="reg must be that of the factors"):
            solve()
    with pytest.raises(NotImplementedError, match="cost must give single entries"):
        randla.sinkhorn(None, None, cost, 0.1).plan.to_sparse()


@pytest.mark.slow
def test_many_points_in_little_memory() -> None:
    """20,000 times 20,000 pairs, 3.2 GB as a matrix, by factors of rank below 300."""
    rng = np.random.default_rng(0)
    X, Y = rng.random((20_000, 2)), rng.random((20_000, 2)) * 0.8
    cost = randla.nystrom_cost(X, Y, reg=0.1, rng=0)
    assert cost.rank < 300
    result = randla.sinkhorn(None, None, cost, 0.1)
    assert result.converged
    error = randla.factor_error(result, rng=0)
    assert error.bound < 1e-7
    assert error.marginal_error < 1e-8
