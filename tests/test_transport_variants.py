"""Grids, divergences with their derivatives, masses that differ, barycenters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.spatial.distance import cdist

import randla
from randla._arrays import to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.transport.costs import Cost
from randla.transport.grids import GridCost

from .conftest import tolerance

METRICS = ("sqeuclidean", "euclidean", "cityblock", "cosine")


def masses(n: int, seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).random(n) + 0.1
    return weights / weights.sum()


def close(found: Any, wanted: Any, size: int, norm: float = 1.0) -> bool:
    """Equal up to the rounding of sums and of exponents of the size of `norm`."""
    return bool(np.all(np.abs(to_host(found) - wanted) <= tolerance("float64", size, norm)))


# --- grids ------------------------------------------------------------------------------------------------------------

GRIDS = {
    "image": lambda: randla.grid_cost(5, 4),
    "volume": lambda: randla.grid_cost(3, 4, 2, spacing=(0.5, 1.0, 2.0), metric="cityblock"),
    "line": lambda: randla.grid_cost(np.array([0.0, 0.5, 2.0])),
    "rectangular": lambda: randla.grid_cost(np.random.default_rng(0).random((5, 6)), 2, np.array([[-1.0, 3.0, 0.2]])),
    "one way": lambda: randla.grid_cost(np.where(np.arange(4)[:, None] > np.arange(4), np.inf, 1.0), 3),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("reg", [1.0, 1e-2, 1e-4])  # products, some lines in logarithms, all of them
def test_passes_over_a_grid_are_those_over_all_costs(name: str, reg: float) -> None:
    grid, rng = GRIDS[name](), np.random.default_rng(1)
    (n, m), C = grid.shape, grid.to_dense()
    dense = Cost("stored", C)
    a, g = masses(n), rng.random(m)
    a[0], g[0] = 0.0, -np.inf
    blur = (np.abs(C[np.isfinite(C)]).max() + 1) / reg  # what a rounding of an exponent does
    f, sums = grid.sweep(a, g, reg)
    f_all, sums_all = dense.sweep(a, g, reg)
    assert close(f[1:], f_all[1:], m, reg * blur)
    assert f[0] == -np.inf
    assert close(sums, sums_all, n, blur)
    for part, wanted in zip(grid.sums(f, g, reg), dense.sums(f, g, reg), strict=True):
        assert close(part, wanted, m, blur * (1 + blur * reg))
    V = rng.standard_normal((m, 3))
    V[:, 2] = 0
    assert close(grid.transport(f, g, reg, V), dense.transport(f, g, reg, V), m, 4 * blur)
    assert grid.transport(f, g, reg, V[:, :0]).shape == (n, 0)
    assert close(grid.plan(f, g, reg), dense.plan(f, g, reg), 1, blur)
    assert grid.largest() >= np.abs(C[np.isfinite(C)]).max() - tolerance("float64", 4, 10)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([1.0, 1e-3]))
@settings(max_examples=40, deadline=None)
def test_kept_points_of_a_grid(n: int, m: int, seed: int, reg: float) -> None:
    rng = np.random.default_rng(seed)
    grid = randla.grid_cost(rng.random((n, m)), rng.random((m, n)))
    rows, columns = (rng.permutation(n * m)[: rng.integers(1, n * m + 1)] for _ in range(2))
    some, g = grid.take(rows, columns), rng.random(len(columns))
    assert np.array_equal(some.to_dense(), grid.to_dense()[np.ix_(rows, columns)])
    wanted = Cost("stored", some.to_dense())
    assert close(some.softmin(g, reg), wanted.softmin(g, reg), m * n, 4)
    f = rng.random(len(rows))
    assert close(some.T.softmin(f, reg), wanted.T.softmin(f, reg), m * n, 4)
    again = rng.permutation(len(rows))[:1]
    assert np.array_equal(some.take(again).to_dense(), some.to_dense()[again])


def test_sinkhorn_on_images_with_black_pixels() -> None:
    """Zero masses are the rule in images; the result is that of the stored costs."""
    cost = randla.grid_cost(9, 8, spacing=1 / 8)
    rng = np.random.default_rng(0)
    a, b = (np.where(rng.random(72) < 0.4, 0.0, rng.random(72)) for _ in range(2))
    a, b = a / a.sum(), b / b.sum()
    for reg in (1e-2, 1e-3):
        result = randla.sinkhorn(a, b, cost, reg)
        dense = randla.sinkhorn(a, b, cost.to_dense(), reg)
        assert result.converged
        assert abs(result.value - dense.value) <= 1e-8
        assert abs(result.cost - dense.cost) <= 1e-7
        plan = result.plan.to_dense()
        assert np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum() <= 1.1e-9
        assert close(result.plan.matmul(np.ones(72)), plan.sum(1), 72, 1e3)
    with pytest.raises(NotImplementedError, match="cost must give single entries"):
        result.plan.to_sparse()


def test_grid_in_other_libraries(xp: Any, put: Any) -> None:
    rng = np.random.default_rng(0)
    C, a, b = rng.random((3, 4)), masses(6), masses(8, 1)
    for reg in (0.1, 1e-3):
        wanted = randla.grid_cost(C, 2).sweep(a, np.log(b), reg)
        grid = randla.grid_cost(put(C), 2)
        found = grid.sweep(put(a), put(np.log(b)), reg)
        for part, truth in zip(found, wanted, strict=True):
            assert close(part, truth, 24, 10 / reg)
        some = grid.take(put(np.array([4, 1])), put(np.array([7, 0, 3])))
        assert close(some.to_dense(), randla.grid_cost(C, 2).to_dense()[np.ix_([4, 1], [7, 0, 3])], 1)
        assert close(some.softmin(put(b[:3]), reg), Cost("stored", to_host(some.to_dense())).softmin(b[:3], reg), 3, 10)
    assert "GridCost(shape=(6, 8)" in repr(grid)


@pytest.mark.parametrize(
    ("error", "message", "axes", "options"),
    [
        (ValueError, "axes must hold one at least", (), {}),
        (ValueError, "axes must be at least 1", (0,), {}),
        (ValueError, "axes must have a row and a column", (np.zeros(0),), {}),
        (ValueError, "axes must have finite coordinates", (np.array([0, np.nan]),), {}),
        (ValueError, "axes must hold numbers", (np.array([[0, np.nan]]),), {}),
        (ValueError, "axes must let every row", (np.array([[0.0, np.inf]]),), {}),
        (TypeError, "axes must be real", (np.array([1j, 2]),), {}),
        (ValueError, "metric must be one of", (3,), {"metric": "euclidean"}),
        (ValueError, "spacing must be a number or one for each of 2", (3, 3), {"spacing": (1.0,)}),
        (ValueError, "spacing must be finite", (3,), {"spacing": 0.0}),
    ],
)
def test_bad_grids(error: type, message: str, axes: tuple, options: dict) -> None:
    with pytest.raises(error, match=message):
        randla.grid_cost(*axes, **options)


# --- divergence and derivatives ---------------------------------------------------------------------------------------


def samples(n: int = 12, m: int = 9, d: int = 3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.5, masses(n), masses(m, 1)


def slopes(value: Any, arguments: list[np.ndarray], directions: list[np.ndarray], h: float = 1e-4) -> list[float]:
    """Central differences of a function along one direction for each argument."""
    found = []
    for k, direction in enumerate(directions):
        ends = []
        for sign in (1, -1):
            moved = list(arguments)
            moved[k] = moved[k] + sign * h * direction
            ends.append(value(*moved))
        found.append((ends[0] - ends[1]) / (2 * h))
    return found


def moves(X: np.ndarray, Y: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Random directions; those of masses have sum 0 and are as small as the masses."""
    rng = np.random.default_rng(3)
    found = [rng.normal(size=part.shape) for part in (X, Y, a, b)]
    return [*found[:2], *(w.min() * (part - part.mean()) for part, w in zip(found[2:], (a, b), strict=True))]


@pytest.mark.parametrize("metric", METRICS)
def test_derivatives_against_differences(metric: str) -> None:
    """A central difference with h = 1e-4 is off by h^2 / 6 times a third derivative, which reg = 0.3 keeps small."""
    X, Y, a, b = samples()

    def divergence(X: Any, Y: Any, a: Any, b: Any) -> Any:
        return randla.sinkhorn_divergence(X, Y, a, b, reg=0.3, metric=metric, tol=1e-12)

    def transport(X: Any, Y: Any, a: Any, b: Any) -> Any:
        return randla.sinkhorn(a, b, randla.point_cost(X, Y, metric), 0.3, tol=1e-12)

    directions = moves(X, Y, a, b)
    result = divergence(X, Y, a, b)
    assert result.converged
    found = [
        np.sum(part * v)
        for part, v in zip((result.grad_X, result.grad_Y, result.grad_a, result.grad_b), directions, strict=True)
    ]
    wanted = slopes(lambda *x: divergence(*x).value, [X, Y, a, b], directions)
    assert np.allclose(found, wanted, rtol=0, atol=1e-6)
    assert np.min(np.abs(wanted)) > 1e-3  # there is something to get wrong
    gradient = randla.transport_gradient(transport(X, Y, a, b), X, Y, metric=metric)
    found = [np.sum(part * v) for part, v in zip(gradient, directions, strict=True)]
    assert np.allclose(found, slopes(lambda *x: transport(*x).value, [X, Y, a, b], directions), rtol=0, atol=1e-6)


def test_divergence_of_three_balanced_problems() -> None:
    X, Y, a, b = samples()
    result = randla.sinkhorn_divergence(X, Y, 3 * a, 3 * b, reg=0.5)
    values = [
        randla.sinkhorn(3 * u, 3 * v, randla.point_cost(P, Q), 0.5).value
        for P, Q, u, v in ((X, Y, a, b), (X, X, a, a), (Y, Y, b, b))
    ]
    assert abs(result.value - (values[0] - values[1] / 2 - values[2] / 2)) <= 1e-8
    assert abs(3 * a @ result.grad_a - result.value / 2) <= 1e-8
    assert abs(3 * b @ result.grad_b - result.value / 2) <= 1e-8
    (value,) = result
    assert value == result.value
    swapped = randla.sinkhorn_divergence(Y, X, 3 * b, 3 * a, reg=0.5)
    assert abs(swapped.value - value) <= 1e-8
    assert np.allclose(swapped.grad_X, result.grad_Y, rtol=0, atol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("reg", [1e-3, 1e-2, 0.1, 1.0])
def test_divergence_is_zero_for_equal_samples_and_positive_else(metric: str, reg: float) -> None:
    X, Y, a, b = samples()
    same = randla.sinkhorn_divergence(X, X, a, a, reg=reg, metric=metric)
    assert same.converged
    assert abs(same.value) <= 1e-7
    assert np.abs(same.grad_X).max() <= 1e-6
    split = randla.sinkhorn_divergence(
        X, np.vstack([X, X]), a, np.append(a, a) / 2, reg=reg, metric=metric, gradient=False
    )
    assert abs(split.value) <= 1e-7  # the same measure, its points twice
    assert split.grad_X is None
    assert randla.sinkhorn_divergence(X, Y, a, b, reg=reg, metric=metric).value > 1e-3


def test_limits_of_the_divergence() -> None:
    """For large reg it is half the distance of means for squared distances, doubled: ||mean(X) - mean(Y)||^2."""
    X, Y, a, b = samples()
    wide = randla.sinkhorn_divergence(X, Y, a, b, reg=1e6)
    assert abs(wide.value - np.sum((a @ X - b @ Y) ** 2)) <= 1e-4
    narrow = randla.sinkhorn_divergence(X, Y, a, b, reg=1e-3, relative=True)
    rows, columns = np.kron(np.eye(12), np.ones(9)), np.kron(np.ones(12), np.eye(9))
    exact = linprog(cdist(X, Y, "sqeuclidean").ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=np.append(a, b)[:-1])
    assert abs(narrow.value - exact.fun) <= narrow.reg * math.log(12 * 9)


def test_points_without_mass() -> None:
    X, Y, a, b = samples()
    a = np.where(np.arange(12) < 3, 0.0, a)
    a /= a.sum()
    result = randla.sinkhorn_divergence(X, Y, a, b, reg=0.3, tol=1e-12)
    fewer = randla.sinkhorn_divergence(X[3:], Y, a[3:], b, reg=0.3, tol=1e-12)
    assert abs(result.value - fewer.value) <= 1e-10
    assert np.all(result.grad_X[:3] == 0)
    assert np.allclose(result.grad_X[3:], fewer.grad_X, rtol=0, atol=1e-9)
    h, step = 1e-6, -a  # mass goes to a point that has none: a one-sided difference
    step[0] += 1
    more = randla.sinkhorn_divergence(X, Y, a + h * step, b, reg=0.3, tol=1e-12)
    assert abs((more.value - result.value) / h - result.grad_a @ step) <= 1e-4


def test_gradient_where_points_coincide() -> None:
    X = np.array([[0.0, 0.0], [1.0, 0.0]])
    for metric in ("euclidean", "cityblock"):
        result = randla.sinkhorn(None, None, randla.point_cost(X, X, metric), 0.1)
        gradient = randla.transport_gradient(result, X, metric=metric)
        assert np.all(np.isfinite(gradient.X))
        assert abs(gradient.X[0, 0] + result.plan.to_dense()[0, 1]) <= 1e-12


def test_large_gradients_are_made_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y, a, b = samples()
    result = randla.sinkhorn(a, b, randla.point_cost(X, Y, "euclidean"), 0.3)
    whole = randla.transport_gradient(result, X, Y, metric="euclidean")
    monkeypatch.setattr("randla.transport.gradients.BLOCK_ENTRIES", 25)
    assert close(randla.transport_gradient(result, X, Y, metric="euclidean").X, whole.X, 9)
    with pytest.raises(ValueError, match="X and Y must have the 12 and 9 points of the result, got 9 and 12"):
        randla.transport_gradient(result, Y, X)


def test_divergence_in_other_libraries(xp: Any, put: Any) -> None:
    X, Y, a, b = samples(5, 4, 2)
    for metric in METRICS:
        wanted = randla.sinkhorn_divergence(X, Y, a, b, reg=0.5, metric=metric)
        found = randla.sinkhorn_divergence(put(X), put(Y), put(a), put(b), reg=0.5, metric=metric)
        assert abs(found.value - wanted.value) <= 1e-8
        assert np.allclose(to_host(found.grad_X), wanted.grad_X, rtol=0, atol=1e-7)
        assert np.allclose(to_host(found.grad_b), wanted.grad_b, rtol=0, atol=1e-7)


def test_failures_of_the_divergence() -> None:
    X, Y, a, b = samples()
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not randla.sinkhorn_divergence(X, Y, a, b, reg=0.1, max_iter=1).converged
    with pytest.raises(ConvergenceError):
        randla.sinkhorn_divergence(X, Y, a, b, reg=0.1, max_iter=1, on_failure="raise")
    assert (
        randla.sinkhorn_divergence(X, Y, reg=0.1, callback=lambda step: True, on_failure="ignore").status
        is Status.MAX_ITER
    )
    for message, options in (
        ("Y must have as many columns as X", {"Y": Y[:, :2]}),
        ("b must have the mass of a", {"b": 2 * b}),
        ("a must be nonnegative", {"a": -a}),
        ("a must be finite", {"a": a * np.nan}),
        ("reg must be finite", {"reg": 0.0}),
        ("tol must be finite", {"tol": 0.0}),
        ("max_iter must be at least 1", {"max_iter": 0}),
        ("metric must be one of", {"metric": "stored"}),
    ):
        with pytest.raises(ValueError, match=message):
            randla.sinkhorn_divergence(**{"X": X, "Y": Y, "a": a, "b": b, "reg": 0.1, **options})


# --- masses that differ -----------------------------------------------------------------------------------------------


def kl(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum(np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / y), 0) - x + y))


def objective(T: np.ndarray, a: np.ndarray, b: np.ndarray, C: np.ndarray, reg: float, rhos: tuple) -> float:
    marginals = sum(
        rho * kl(T.sum(axis), w) for rho, axis, w in zip(rhos, (1, 0), (a, b), strict=True) if rho < math.inf
    )
    return float(np.sum(T * C)) + reg * kl(T, np.outer(a, b)) + marginals


def unbalanced_problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random(5) + 0.05, 2 * rng.random(4) + 0.05, rng.random((5, 4))


@pytest.mark.parametrize("rho", [0.5, (0.2, 3.0), 1e-3])
@pytest.mark.parametrize("reg", [0.3, 0.1])
def test_unbalanced_against_a_general_solver(reg: float, rho: Any) -> None:
    a, b, C = unbalanced_problem()
    result = randla.sinkhorn_unbalanced(a, b, C, reg, rho, tol=1e-12)
    T, rhos = result.plan.to_dense(), result.reg_marginal
    value = objective(T, a, b, C, reg, rhos)
    assert abs(result.value - value) <= tolerance("float64", 20, 1 + abs(value))
    assert abs(result.cost - np.sum(T * C)) <= tolerance("float64", 20, 1)
    assert abs(result.mass - T.sum()) <= tolerance("float64", 20, 1)
    assert -1e-13 <= result.gap <= 1e-10

    def smooth(t: np.ndarray) -> tuple[float, np.ndarray]:
        S = np.exp(t.reshape(5, 4))
        slope = (
            C
            + reg * np.log(S / np.outer(a, b))
            + rhos[0] * np.log(S.sum(1) / a)[:, None]
            + rhos[1] * np.log(S.sum(0) / b)
        )
        return objective(S, a, b, C, reg, rhos), (S * slope).ravel()

    found = minimize(smooth, np.log(np.outer(a, b)).ravel(), jac=True, method="BFGS", options={"gtol": 1e-10})
    assert -1e-12 <= found.fun - value <= 1e-8
    rng = np.random.default_rng(1)
    for _ in range(20):  # no plan nearby is better: the objective is convex
        near = T * np.exp(1e-3 * rng.normal(size=T.shape))
        assert objective(near, a, b, C, reg, rhos) >= value


def test_semi_relaxed_marginal_is_exact() -> None:
    a, b, C = unbalanced_problem()
    result = randla.sinkhorn_unbalanced(a, b, C, 0.05, (math.inf, 0.4), tol=1e-12)
    T = result.plan.to_dense()
    assert np.abs(T.sum(1) - a).sum() <= 1e-11
    assert abs(result.gap) <= 1e-10
    wanted = b * np.exp(-(result.g - 0.05 * np.log(b)) / 0.4)  # the optimality condition of the other
    assert np.abs(T.sum(0) - wanted).sum() <= 1e-11
    mirrored = randla.sinkhorn_unbalanced(b, a, C.T, 0.05, (0.4, math.inf), tol=1e-12)
    assert abs(mirrored.value - result.value) <= 1e-10


def test_unbalanced_becomes_balanced() -> None:
    """The plan differs from that of `sinkhorn` by the order of 1 / rho."""
    rng = np.random.default_rng(0)
    cost = randla.point_cost(rng.random((40, 2)), rng.random((30, 2)) + 0.3)
    balanced = randla.sinkhorn(None, None, cost, 1e-2)
    before = math.inf
    for rho in (1e2, 1e4, 1e6):
        result = randla.sinkhorn_unbalanced(None, None, cost, 1e-2, rho)
        assert result.converged
        off = np.abs(result.plan.to_dense() - balanced.plan.to_dense()).sum()
        assert off <= 10 / rho
        assert off < before / 50
        before = off
    assert result.n_iter <= 200  # without the shift it would take of the order of rho / reg sweeps


@given(st.floats(-6, 2), st.floats(-3, 3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_gap_bounds_the_error(log_rho: float, log_mass: float, seed: int) -> None:
    """Weak duality holds at whatever point the solver stops, and masses may be anything."""
    rng = np.random.default_rng(seed)
    a, b, C = rng.random(4) + 0.01, 10**log_mass * (rng.random(5) + 0.01), rng.random((4, 5))
    short = randla.sinkhorn_unbalanced(a, b, C, 0.05, 10**log_rho, max_iter=2, eps_scaling=False, on_failure="ignore")
    long = randla.sinkhorn_unbalanced(a, b, C, 0.05, 10**log_rho)
    blur = tolerance("float64", 20, 1 + (1 + 10**log_rho) * (a.sum() + b.sum()))
    assert -blur <= short.value - long.value <= short.gap + blur
    assert long.converged


@pytest.mark.parametrize("reg", [1e-3, 1e-5])
def test_unbalanced_at_small_regularisation(reg: float) -> None:
    rng = np.random.default_rng(0)
    cost = randla.point_cost(rng.random((60, 2)), rng.random((50, 2)) + 0.3)
    result = randla.sinkhorn_unbalanced(None, None, cost, reg, 0.3)
    assert result.converged
    assert 0.5 < result.mass < 1
    assert result.gap <= 1e-9


def test_unbalanced_zeros_and_forbidden_pairs() -> None:
    a, b, C = unbalanced_problem()
    a[1], C[2] = 0.0, np.inf  # the third row may go nowhere: its mass is destroyed
    result = randla.sinkhorn_unbalanced(a, b, C, 0.1, 0.5)
    assert result.converged
    T = result.plan.to_dense()
    assert np.all(T[1:3] == 0)
    assert result.f[1] == -np.inf
    kept = [0, 3, 4]
    fewer = randla.sinkhorn_unbalanced(a[kept], b, C[kept], 0.1, 0.5)
    # the product a b.T of the reference and the destroyed mass are larger by what the third row had
    assert abs(result.value - fewer.value - a[2] * (0.5 + 0.1 * b.sum())) <= 1e-8
    assert np.allclose(T[kept], fewer.plan.to_dense(), rtol=0, atol=1e-8)


def test_unbalanced_in_other_libraries(xp: Any, put: Any) -> None:
    a, b, C = unbalanced_problem()
    wanted = randla.sinkhorn_unbalanced(a, b, C, 0.1, 0.5)
    found = randla.sinkhorn_unbalanced(put(a), put(b), put(C), 0.1, 0.5)
    assert abs(found.value - wanted.value) <= 1e-9
    assert np.allclose(to_host(found.f), wanted.f, rtol=0, atol=1e-8)
    assert len(found.history) == found.n_iter


INFINITE_ROW = np.where(np.arange(5) == 2, np.inf, 0.0)[:, None]


def test_failures_of_unbalanced() -> None:
    a, b, C = unbalanced_problem()
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not randla.sinkhorn_unbalanced(a, b, C, 1e-3, 1.0, max_iter=1).converged
    steps: list[Any] = []
    stop = lambda step: steps.append(step) or len(steps) == 2  # noqa: E731
    stopped = randla.sinkhorn_unbalanced(a, b, C, 1e-2, 1.0, callback=stop, on_failure="ignore")
    assert stopped.status is Status.MAX_ITER
    assert len(steps) == stopped.n_iter

    def interrupt(step: Any) -> None:
        steps.append(step)
        if len(steps) > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        randla.sinkhorn_unbalanced(a, b, C, 1e-3, 1.0, tol=1e-300, callback=interrupt)
    assert not caught.value.result.converged
    assert randla.sinkhorn_unbalanced(a, b, C, 0.1, 1.0, tol=1e-300, on_failure="ignore").status is Status.STAGNATED
    for message, options in (
        ("reg_marginal must be finite for one", {"reg_marginal": math.inf}),
        ("reg_marginal must be a number or a pair", {"reg_marginal": (1, 2, 3)}),
        ("reg_marginal must be finite and in", {"reg_marginal": 0.0}),
        ("reg_marginal must be finite and in", {"reg_marginal": (1.0, math.nan)}),
        ("cost must be finite somewhere in each row", {"reg_marginal": (math.inf, 1.0), "cost": C + INFINITE_ROW}),
        ("a must have mass", {"a": 0 * a}),
        ("b must be nonnegative", {"b": -b}),
        ("a must have shape", {"a": b}),
        ("reg must be finite", {"reg": -1.0}),
        ("tol must be finite", {"tol": 0.0}),
        ("max_iter must be at least 1", {"max_iter": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            randla.sinkhorn_unbalanced(**{"a": a, "b": b, "cost": C, "reg": 0.1, "reg_marginal": 1.0, **options})


# --- barycenters ------------------------------------------------------------------------------------------------------

LINE = np.linspace(0, 1, 101)


def bumps(centres: Any, widths: Any) -> np.ndarray:
    B = np.exp(-((LINE - np.asarray(centres)[:, None]) ** 2) / 2 / np.asarray(widths)[:, None] ** 2)
    return B / B.sum(1, keepdims=True)


def spread(p: np.ndarray) -> float:
    return float(np.sqrt(p @ (LINE - p @ LINE) ** 2))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("reg", [1e-2, 1e-3, 1e-4])  # POT's stabilised barycenter fails from 1e-3 on (issue 219)
def test_barycenter_of_bumps(reg: float, debiased: bool) -> None:
    """Of normal densities it is one with the mean of their means, and of their widths where nothing blurs it."""
    B, weights = bumps([0.3, 0.5, 0.7], [0.03, 0.05, 0.04]), [0.5, 0.25, 0.25]
    result = randla.sinkhorn_barycenter(B, randla.grid_cost(LINE), reg, weights=weights, debiased=debiased)
    assert result.converged
    p = result.barycenter
    assert abs(p.sum() - 1) <= 1e-12
    assert abs(p @ LINE - 0.45) <= 1e-6
    width = spread(p)
    if debiased:
        assert abs(width - 0.0375) <= 1e-3
    else:
        assert 0.0375 < width < 0.0375 + 0.8 * math.sqrt(reg)


@pytest.mark.parametrize("debiased", [False, True])
def test_barycenter_is_optimal(debiased: bool) -> None:
    """Moving mass within the barycenter never helps, by the objective made of balanced problems."""
    rng = np.random.default_rng(0)
    B, x = rng.random((3, 12)) * (rng.random((3, 12)) < 0.7) + 0, rng.random((12, 2))
    B /= B.sum(1, keepdims=True)
    C, weights, reg = cdist(x, x, "sqeuclidean"), [0.2, 0.5, 0.3], 0.05
    result = randla.sinkhorn_barycenter(B, C, reg, weights=weights, debiased=debiased, tol=1e-11)

    def total(p: np.ndarray) -> float:
        own = randla.sinkhorn(p, p, C, reg, tol=1e-12, on_failure="ignore").value / 2 if debiased else 0.0
        parts = [randla.sinkhorn(b, p, C, reg, tol=1e-12, on_failure="ignore").value for b in B]
        return float(np.dot(weights, parts)) - own

    p = result.barycenter
    value = total(p)
    assert abs(result.value - value) <= 1e-8
    for _ in range(4):
        move = rng.normal(size=12)
        move -= move.mean()
        move *= 1e-2 * p.min() / np.abs(move).max() if p.min() > 0 else 0.0
        assert total(p + move) >= value - 1e-10
    for k in range(3):  # each plan leads from its histogram to the barycenter
        T = np.exp((result.f[k][:, None] + result.g[k] - C) / reg)
        assert np.abs(T.sum(1) - B[k]).sum() <= 1e-12 * 12
        assert np.abs(T.sum(0) - p).sum() <= 1e-9


def test_barycenter_against_a_linear_program() -> None:
    """The unregularised cost of the barycenter is within the entropy of the least one."""
    rng = np.random.default_rng(0)
    n, k = 6, 2
    B, C = rng.random((k, n)), cdist(*[rng.random((n, 1))] * 2, "sqeuclidean")
    B /= B.sum(1, keepdims=True)
    rows, columns = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    zero, one = np.zeros((n, n * n)), np.zeros((n, n))
    A = np.block([[rows, zero, one], [zero, rows, one], [columns, zero, -np.eye(n)], [zero, columns, -np.eye(n)]])
    right = np.concatenate([B[0], B[1], np.zeros(2 * n)])
    exact = linprog(np.concatenate([C.ravel(), C.ravel(), np.zeros(n)]) / k, A_eq=A, b_eq=right)
    assert exact.status == 0
    result = randla.sinkhorn_barycenter(B, C, 1e-4, relative=True)
    cost = np.mean([np.sum(C * np.exp((result.f[i][:, None] + result.g[i] - C) / result.reg)) for i in range(k)])
    assert -1e-9 <= cost - exact.fun <= result.reg * math.log(n * n)


def test_barycenter_of_one_and_of_equals() -> None:
    B = bumps([0.4], [0.05])
    cost = randla.grid_cost(LINE)
    result = randla.sinkhorn_barycenter(np.vstack([B, B]), cost, 1e-3, debiased=True)
    assert np.abs(result.barycenter - B[0]).sum() <= 1e-4  # the divergence to it is 0
    heavy = randla.sinkhorn_barycenter(5 * np.vstack([B, B]), cost, 1e-3, debiased=True)
    assert np.allclose(heavy.barycenter, 5 * result.barycenter, rtol=0, atol=1e-8)
    alone = randla.sinkhorn_barycenter(B, cost, 1e-3)
    pair = randla.sinkhorn_barycenter(np.vstack([B, B]), cost, 1e-3, weights=[3.0, 1.0])
    assert np.allclose(alone.barycenter, pair.barycenter, rtol=0, atol=1e-8)


def test_barycenter_on_other_places_and_points() -> None:
    B = bumps([0.3, 0.5], [0.04, 0.04])
    places = np.linspace(0.2, 0.6, 37)
    result = randla.sinkhorn_barycenter(B, randla.point_cost(LINE[:, None], places[:, None]), 1e-3)
    assert result.barycenter.shape == (37,)
    assert abs(result.barycenter @ places - 0.4) <= 1e-4
    stored = randla.sinkhorn_barycenter(B, (LINE[:, None] - places) ** 2, 1e-3)
    assert np.allclose(stored.barycenter, result.barycenter, rtol=0, atol=1e-8)
    points = randla.sinkhorn_barycenter(B, randla.point_cost(LINE[:, None]), 1e-3, debiased=True)
    grid = randla.sinkhorn_barycenter(B, randla.grid_cost(LINE), 1e-3, debiased=True)
    assert np.allclose(points.barycenter, grid.barycenter, rtol=0, atol=1e-7)


def test_barycenter_in_other_libraries(xp: Any, put: Any) -> None:
    B, C = np.random.default_rng(0).random((2, 6)), cdist(*[np.arange(6.0)[:, None]] * 2)
    B /= B.sum(1, keepdims=True)
    for debiased in (False, True):
        wanted = randla.sinkhorn_barycenter(B, C, 0.5, debiased=debiased, tol=1e-7)
        found = randla.sinkhorn_barycenter(put(B), put(C), 0.5, debiased=debiased, tol=1e-7)
        assert np.allclose(to_host(found.barycenter), wanted.barycenter, rtol=0, atol=1e-5)


def test_failures_of_barycenters() -> None:
    B, C = bumps([0.3, 0.6], [0.05, 0.05]), (LINE[:, None] - LINE) ** 2
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not randla.sinkhorn_barycenter(B, C, 1e-4, max_iter=1, eps_scaling=False).converged
    flat = randla.sinkhorn_barycenter(B, C, 1.0, debiased=True, max_iter=50, on_failure="ignore")
    assert flat.status is Status.MAX_ITER  # a blur that wide is all but impossible to undo
    assert randla.sinkhorn_barycenter(B, C, 1e-2, tol=1e-300, on_failure="ignore").status is Status.STAGNATED

    def interrupt(step: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        randla.sinkhorn_barycenter(B, C, 1e-2, callback=interrupt)
    assert caught.value.result.barycenter.shape == (101,)
    stopped = randla.sinkhorn_barycenter(B, C, 1e-2, callback=lambda step: True, on_failure="ignore")
    assert stopped.status is Status.MAX_ITER
    for error, message, options in (
        (ValueError, "B must have shape \\(101,\\), or rows", {"B": B[:, :5]}),
        (ValueError, "B must have a row and a column", {"B": B[:0]}),
        (ValueError, "B must be nonnegative", {"B": -B}),
        (ValueError, "B must be finite", {"B": B * np.nan}),
        (ValueError, "B must have mass, in each row", {"B": B * [[0], [1]]}),
        (ValueError, "B must have rows of equal mass", {"B": B * [[2], [1]]}),
        (TypeError, "B must be real", {"B": B + 0j}),
        (ValueError, "weights must have one entry for each of 2", {"weights": [1.0]}),
        (ValueError, "weights must be finite", {"weights": [1.0, 0.0]}),
        (ValueError, "cost must be finite", {"cost": np.where(C > 0.5, np.inf, C)}),
        (ValueError, "cost must be symmetric", {"cost": C[:, :50], "debiased": True}),
        (ValueError, "cost must be symmetric", {"cost": np.triu(C), "debiased": True}),
        (
            ValueError,
            "cost must be symmetric",
            {"cost": randla.point_cost(LINE[:, None], LINE[::-1, None]), "debiased": True},
        ),
        (ValueError, "cost must be symmetric", {"cost": randla.grid_cost(np.triu(C)), "debiased": True}),
        (ValueError, "reg must be finite", {"reg": 0.0}),
        (ValueError, "max_iter must be at least 1", {"max_iter": 0}),
    ):
        with pytest.raises(error, match=message):
            randla.sinkhorn_barycenter(**{"B": B, "cost": C, "reg": 1e-2, **options})


@pytest.mark.slow
def test_large_image_needs_no_matrix() -> None:
    """Pixels of a 192 x 192 image: all costs would take 10 GB."""
    side = 192
    place = (np.arange(side) + 0.5) / side
    images = [
        np.exp(-((place[:, None] - x) ** 2 + (place - y) ** 2) / w).ravel() + 1e-6
        for x, y, w in ((0.3, 0.4, 0.02), (0.6, 0.7, 0.01))
    ]
    a, b = (image / image.sum() for image in images)
    cost = randla.grid_cost(place, place)
    assert isinstance(cost, GridCost)
    result = randla.sinkhorn(a, b, cost, 1e-2)
    assert result.converged
    rows, columns, _ = cost.sums(result.f, result.g, 1e-2)
    assert np.abs(rows - a).sum() + np.abs(columns - b).sum() <= 1.1e-9
    p = randla.sinkhorn_barycenter(np.stack([a, b]), cost, 1e-2)
    assert p.converged
