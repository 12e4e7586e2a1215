"""Entropic transport: linear programs, small regularisations, invariances, bad marginals, published steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

import randla
from randla._arrays import to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.transport.rounding import rounded_plan
from randla.transport.sweeps import LogSweeps, ScalingSweeps, column_change

from .conftest import tolerance

METHODS = ("auto", "sinkhorn", "log", "newton")


def problem(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random masses and costs in [0, 1]."""
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    return a / a.sum(), b / b.sum(), rng.random((n, m))


def blobs(side: int, power: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images of three blobs each, and the distance of their pixels over the largest."""
    rng = np.random.default_rng(5)
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) / side
    images = []
    for _ in range(2):
        parts = list(zip(rng.random((3, 2)), 0.05 + 0.09 * rng.random(3), rng.random(3), strict=True))
        image = sum(h * np.exp(-((place - c) ** 2).sum(1) / (2 * w * w)) for c, w, h in parts)
        images.append(0.99875 * image / image.sum() + 0.00125 / len(place))
    C = (np.abs(place[:, None] - place[None]) ** power).sum(2)
    return images[0], images[1], C / C.max()


def line(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exponential density against two normal ones on [0, 5]."""
    x, y = (np.arange(n) + 0.5) / n * 5, (np.arange(m) + 0.5) / m * 5
    a, b = np.exp(-x), 0.2 * np.exp(-((y - 1) ** 2) / 0.08) + 0.8 * np.exp(-((y - 3) ** 2) / 0.5)
    C = (x[:, None] - y) ** 2
    return a / a.sum(), b / b.sum(), C / C.max()


def exact(a: np.ndarray, b: np.ndarray, C: np.ndarray) -> float:
    """Cost of exact transport, by HiGHS."""
    n, m = C.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    found = linprog(C.ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=np.concatenate([a, b])[:-1])
    assert found.status == 0
    return float(found.fun)


def entropy(p: np.ndarray) -> float:
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def assert_solves(result: Any, a: np.ndarray, b: np.ndarray, C: np.ndarray, tol: float = 1e-9) -> None:
    """The result is what its definition says, found by plain NumPy from its potentials."""
    assert result.converged
    T = np.exp((result.f[:, None] + result.g[None, :] - C) / result.reg)
    error = np.abs(T.sum(1) - a).sum() + np.abs(T.sum(0) - b).sum()
    rounding = tolerance("float64", T.size, 1 + np.abs(result.f[np.isfinite(result.f)]).max() / result.reg)
    assert error <= tol + rounding
    assert abs(result.marginal_error - error) <= rounding
    assert abs(result.cost - np.sum(T * np.where(T > 0, C, 0))) <= rounding
    logs = np.log(np.where(T > 0, T, 1.0))
    assert abs(result.value - (np.sum(T * np.where(T > 0, C, 0)) + result.reg * np.sum(T * logs))) <= tol + rounding


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reg", [1.0, 3e-2, 1e-3])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (1, 7), (7, 1), (1, 1), (2, 2)])
def test_solves_the_problem(method: str, reg: float, shape: tuple[int, int]) -> None:
    a, b, C = problem(*shape)
    assert_solves(randla.sinkhorn(a, b, C, reg, method=method), a, b, C)


@pytest.mark.parametrize("sparsify", ["mass", "topk", "none"])
def test_newton_rules_agree_with_long_sweeps(sparsify: str) -> None:
    a, b, C = blobs(7)
    result = randla.sinkhorn(a, b, C, 5e-3, method="newton", sparsify=sparsify, tol=1e-12)
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(20000):
        f = 5e-3 * (np.log(a) - logsumexp((g[None, :] - C) / 5e-3, axis=1))
        g = 5e-3 * (np.log(b) - logsumexp((f[:, None] - C) / 5e-3, axis=0))
        if np.abs(np.exp((f[:, None] + g - C) / 5e-3).sum(1) - a).sum() < 1e-12:
            break
    T = np.exp((f[:, None] + g - C) / 5e-3)
    assert result.converged
    assert result.n_newton > 0
    assert abs(result.cost - np.sum(T * C)) <= 1e-10


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.3, 1e-2, 1e-3]))
@settings(max_examples=25, deadline=None)
def test_bounds_hold_the_linear_program(n: int, m: int, seed: int, reg: float) -> None:
    a, b, C = problem(n, m, seed)
    result, truth = randla.sinkhorn(a, b, C, reg), exact(a, b, C)
    slack = 1e-8  # HiGHS stops at 1e-7 relative, and marginals are off by 1e-9
    assert result.converged
    assert result.lower_bound - slack <= truth <= result.rounded_cost + slack
    assert -slack <= result.cost - truth <= reg * min(entropy(a), entropy(b)) + slack
    assert result.gap <= reg * (math.log(n * m) + 1) + slack


def test_small_regularisation_gives_the_linear_program() -> None:
    a, b, C = problem(25, 20)
    result = randla.sinkhorn(a, b, C, 1e-6)
    assert abs(result.rounded_cost - exact(a, b, C)) <= 1e-7
    assert result.gap <= 1e-5


@pytest.mark.parametrize("reg", [1e-4, 1e-5, 1e-6])
def test_converges_where_scalings_underflow(reg: float) -> None:
    """500 x 500 random costs: both marginals to 1e-9, and a cost that the best assignment confirms."""
    C = np.random.default_rng(0).random((500, 500))
    result = randla.sinkhorn(None, None, C, reg)
    rows, columns = linear_sum_assignment(C)
    truth = float(C[rows, columns].mean())
    assert result.converged
    assert result.marginal_error <= 1e-9
    assert np.isfinite(result.f).all()
    assert np.isfinite(result.g).all()
    assert -1e-9 <= result.rounded_cost - truth <= reg * math.log(500)
    assert -1e-9 <= truth - result.lower_bound <= reg * math.log(500)


def test_published_counts_of_steps() -> None:
    """The first row of Tang et al. 2024, n = 500, eta = 1200: at most 12 Newton steps to 1e-12 after 20 sweeps."""
    for seed in range(3):
        C = np.random.default_rng(seed).random((500, 500))
        result = randla.sinkhorn(
            None, None, C, 1 / 1200, method="newton", sparsify="topk", eps_scaling=False, warmup=20, tol=1e-12
        )
        assert result.converged
        assert result.n_iter <= 21
        assert result.n_newton <= 12
    C = np.random.default_rng(0).random((500, 500))
    result = randla.sinkhorn(None, None, C, 1 / 1200, method="newton")
    assert result.n_newton <= 8
    assert abs(result.cost - 0.00345041) <= 5e-9  # by a prototype that shares no code with this one
    a, b, C = line(1000, 800)
    result = randla.sinkhorn(a, b, C, 1e-3, method="newton")
    assert result.converged
    assert result.n_newton <= 8


def test_dual_never_falls_over_newton_steps() -> None:
    a, b, C = blobs(14, power=1)
    steps = [s for s in randla.sinkhorn(a, b, C, 1e-3, method="newton").history if s.method == "newton"]
    duals = np.array([step.dual for step in steps])
    assert len(duals) > 1
    assert np.all(np.diff(duals) >= -1e-14)
    assert all(0 < step.density <= 1 for step in steps)


# --- invariances ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([-10, -3, 0, 3, 10]))
@settings(max_examples=15, deadline=None)
def test_permutation_shift_and_scale_of_the_cost(seed: int, power: int) -> None:
    a, b, C = problem(15, 12, seed)
    scale, rng = 10.0**power, np.random.default_rng(seed)
    rows, columns = rng.permutation(15), rng.permutation(12)
    plain = randla.sinkhorn(a, b, C, 1e-2, tol=1e-11).plan.to_dense()
    other = randla.sinkhorn(
        a[rows], b[columns], scale * (C + 3.0)[np.ix_(rows, columns)], scale * 1e-2, tol=1e-11
    ).plan.to_dense()
    assert np.abs(other - plain[np.ix_(rows, columns)]).max() <= 1e-9


def test_transposed_problem_has_the_transposed_plan() -> None:
    a, b, C = problem(20, 30)
    first, second = randla.sinkhorn(a, b, C, 1e-2, tol=1e-12), randla.sinkhorn(b, a, C.T, 1e-2, tol=1e-12)
    assert np.abs(first.plan.to_dense() - second.plan.to_dense().T).max() <= 1e-10
    assert abs(first.value - second.value) <= 1e-10


def test_relative_regularisation_is_a_share_of_the_largest_cost() -> None:
    a, b, C = problem(20, 30)
    C[3, 4] = np.inf
    largest = C[np.isfinite(C)].max()
    first = randla.sinkhorn(a, b, 7 * C, 1e-2, relative=True)
    second = randla.sinkhorn(a, b, C / largest, 1e-2)
    assert math.isclose(first.reg, 7 * largest * 1e-2)
    assert np.abs(first.plan.to_dense() - second.plan.to_dense()).max() <= 1e-9
    assert randla.sinkhorn(a, b, 0 * first.plan.to_dense(), 0.1, relative=True).converged


def test_mass_scales_the_plan() -> None:
    a, b, C = problem(20, 30)
    one, many = randla.sinkhorn(a, b, C, 1e-2, tol=1e-12), randla.sinkhorn(1e6 * a, 1e6 * b, C, 1e-2, tol=1e-12)
    assert np.abs(many.plan.to_dense() / 1e6 - one.plan.to_dense()).max() <= 1e-10
    assert math.isclose(many.cost, 1e6 * one.cost, rel_tol=1e-9)
    T = many.plan.to_dense()
    assert math.isclose(many.value, np.sum(T * C) + 1e-2 * np.sum(T * np.log(T)), rel_tol=1e-9)


def test_threads_change_nothing() -> None:
    a, b, C = problem(1500, 1400)  # two chunks of rows and more
    results = []
    for n in (1, 2):
        with randla.threads(n):
            results.append(randla.sinkhorn(a, b, C, 1e-2, method="log"))
    assert np.array_equal(results[0].g, results[1].g)
    assert np.array_equal(results[0].f, results[1].f)


# --- costs and plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_costs_of_points_equal_the_stored_ones(metric: str) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(35, 3))
    C = cdist(X, Y, metric)
    made, stored = (randla.sinkhorn(None, None, cost, 0.05, tol=1e-12) for cost in (randla.point_cost(X, Y, metric), C))
    assert made.method in ("log", "newton")
    assert made.converged
    assert abs(made.cost - stored.cost) <= 1e-10
    assert np.abs(made.plan.to_dense() - stored.plan.to_dense()).max() <= 1e-10
    assert abs(made.rounded_cost - stored.rounded_cost) <= 1e-10
    assert randla.point_cost(X, Y, metric).largest() >= C.max() * (1 - 1e-12)


def test_plan_is_an_operator() -> None:
    a, b, C = problem(30, 20)
    plan = randla.sinkhorn(a, b, C, 1e-2).plan
    T, rng = plan.to_dense(), np.random.default_rng(1)
    V, U = rng.normal(size=(20, 3)), rng.normal(size=(30, 2))
    assert np.abs(plan.matmul(V) - T @ V).max() <= tolerance("float64", 20, 1.0)
    assert np.abs(plan.matmul(V[:, 0]) - T @ V[:, 0]).max() <= tolerance("float64", 20, 1.0)
    assert np.abs(plan.rmatmul(U) - T.T @ U).max() <= tolerance("float64", 30, 1.0)
    sparse = plan.to_sparse(1e-3)
    assert sparse.nnz < T.size
    assert np.all((T - sparse.toarray()).sum(1) <= 1e-3 * a + 1e-15)
    assert plan.shape == plan.T.shape[::-1] == (30, 20)
    assert "TransportPlan" in repr(plan)


def test_rounded_plan_is_feasible() -> None:
    a, b, C = problem(30, 20)
    with pytest.warns(ConvergenceWarning):
        result = randla.sinkhorn(a, b, C, 1e-3, method="log", max_iter=1, eps_scaling=False)
    assert result.marginal_error > 1e-3
    T = result.rounded.to_dense()
    assert np.abs(T.sum(1) - a).max() <= 1e-15
    assert np.abs(T.sum(0) - b).max() <= 1e-15
    assert math.isclose(np.sum(T * C), result.rounded_cost, rel_tol=1e-12)
    assert np.abs(T - result.plan.to_dense()).sum() <= 2 * result.marginal_error + 1e-14
    dense = randla.round_plan(result.plan.to_dense(), a, b)
    assert np.abs(dense - T).max() <= 1e-14
    V = np.random.default_rng(0).normal(size=(20, 2))
    assert np.abs(result.rounded.matmul(V) - T @ V).max() <= 1e-14
    assert np.abs(result.rounded.matmul(V[:, 0]) - T @ V[:, 0]).max() <= 1e-14


def test_float32_costs_are_solved_in_float64() -> None:
    a, b, C = problem(30, 20)
    result = randla.sinkhorn(a, b, C.astype(np.float32), 1e-3)
    assert result.f.dtype == np.float64
    assert_solves(result, a, b, C.astype(np.float32).astype(np.float64))


def test_inputs_are_not_changed() -> None:
    a, b, C = problem(20, 15)
    copies = a.copy(), b.copy(), C.copy()
    for method in METHODS:
        randla.sinkhorn(a, b, C, 1e-3, method=method)
    assert all(np.array_equal(x, y) for x, y in zip((a, b, C), copies, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_other_array_libraries(xp: Any, put: Any, method: str) -> None:
    a, b, C = problem(14, 11)
    result = randla.sinkhorn(put(a), put(b), put(C), 1e-2, method=method)
    plain = randla.sinkhorn(a, b, C, 1e-2, method=method)
    assert result.converged
    assert np.abs(to_host(result.plan.to_dense()) - plain.plan.to_dense()).max() <= 1e-8
    assert abs(result.rounded_cost - plain.rounded_cost) <= 1e-8
    assert abs(result.lower_bound - plain.lower_bound) <= 1e-8


# --- zero masses, forbidden pairs, batches, starts --------------------------------------------------------------------


def test_zero_masses_have_no_potential_and_no_plan() -> None:
    a, b, C = problem(30, 20)
    a[[0, 7]], b[3] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    result = randla.sinkhorn(a, b, C, 1e-3)
    T = result.plan.to_dense()
    assert result.converged
    assert np.isneginf(result.f[[0, 7]]).all()
    assert np.isneginf(result.g[3])
    assert np.all(T[[0, 7]] == 0)
    assert np.all(T[:, 3] == 0)
    assert np.abs(T.sum(1) - a).sum() + np.abs(T.sum(0) - b).sum() <= 1e-9
    assert abs(result.rounded_cost - exact(a, b, C)) <= 1e-3 * math.log(600)
    assert result.lower_bound <= exact(a, b, C) + 1e-9


def test_forbidden_pairs_carry_nothing() -> None:
    a, b, C = problem(30, 30)
    C[np.random.default_rng(0).random((30, 30)) < 0.5] = np.inf
    np.fill_diagonal(C, 1.0)
    a = b = np.full(30, 1 / 30)
    result = randla.sinkhorn(a, b, C, 1e-2)
    assert_solves(result, a, b, C)
    assert np.all(result.plan.to_dense()[np.isinf(C)] == 0)
    assert result.lower_bound <= result.cost <= result.rounded_cost  # inf: the rest would take a forbidden pair


def test_impossible_pairs_do_not_converge() -> None:
    """Rows 0 and 1 can only use column 0, which is too small for both: no plan exists."""
    C = np.ones((3, 3))
    C[:2, 1:] = np.inf
    with pytest.warns(ConvergenceWarning):
        result = randla.sinkhorn(None, None, C, 0.1)
    assert not result.converged
    assert result.marginal_error > 0.1
    with pytest.raises(ConvergenceError) as caught:
        randla.sinkhorn(None, None, C, 0.1, on_failure="raise")
    assert caught.value.result.status is result.status


def test_constant_costs_give_the_product() -> None:
    a, b, _ = problem(9, 5)
    result = randla.sinkhorn(a, b, np.full((9, 5), 3.0), 1e-4)
    assert np.abs(result.plan.to_dense() - np.outer(a, b)).max() <= 1e-12
    assert result.n_iter <= 40


def test_duplicate_points_share_their_mass() -> None:
    X = np.repeat(np.random.default_rng(0).random((10, 2)), 3, axis=0)
    result = randla.sinkhorn(None, None, randla.point_cost(X), 1e-4, relative=True)
    assert result.converged
    assert np.ptp(result.f.reshape(10, 3), axis=1).max() <= 1e-9


def test_a_batch_solves_each_column() -> None:
    a, _, C = problem(20, 15)
    B = np.random.default_rng(2).random((15, 3)) + 0.01
    B /= B.sum(axis=0)
    B[4, 1] = 0
    B[:, 1] /= B[:, 1].sum()
    results = randla.sinkhorn(a, B, C, 1e-2)
    assert len(results) == 3
    for result, b in zip(results, B.T, strict=True):
        single = randla.sinkhorn(a, b, C, 1e-2)
        assert abs(result.cost - single.cost) <= 1e-8
        assert result.converged


def test_a_start_saves_the_way() -> None:
    a, b, C = blobs(14)
    first = randla.sinkhorn(a, b, C, 1e-3)
    again = randla.sinkhorn(a, b, C, 1e-3, start=first)
    assert again.n_iter + again.n_newton <= 2
    assert randla.sinkhorn(a, b, C, 1e-3, start=(first.f, first.g + 1.0)).n_iter <= 3


def test_callback_sees_each_step_and_stops() -> None:
    a, b, C = blobs(14)
    steps: list[Any] = []
    result = randla.sinkhorn(a, b, C, 1e-3, method="newton", callback=steps.append)
    assert tuple(steps) == result.history
    assert result.n_iter + result.n_newton == len(steps)
    with pytest.warns(ConvergenceWarning):
        stopped = randla.sinkhorn(a, b, C, 1e-3, callback=lambda step: step.reg == 1e-3)
    assert stopped.status is Status.MAX_ITER
    assert math.isfinite(stopped.cost)


def test_an_interrupt_carries_the_last_state() -> None:
    a, b, C = blobs(14)
    seen = []

    def interrupt(step: Any) -> None:
        seen.append(step)
        if len(seen) == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        randla.sinkhorn(a, b, C, 1e-4, callback=interrupt)
    resumed = randla.sinkhorn(a, b, C, 1e-4, start=caught.value.result)
    assert resumed.converged


# --- failures and bad input -------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1e-5, 1e-6]), st.sampled_from([3e-2, 5e-3, 2e-3]))
@settings(max_examples=60, deadline=None)
def test_coarse_tolerances_are_kept(seed: int, tol: float, reg: float) -> None:
    """The point that ends the loop is the one that is returned."""
    X = np.random.default_rng(seed).random((2, 64)) ** 3
    place = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) / 8
    result = randla.sinkhorn(X[0] / X[0].sum(), X[1] / X[1].sum(), cdist(place, place, "sqeuclidean"), reg, tol=tol)
    assert result.converged
    assert result.marginal_error <= tol


def test_converged_is_never_told_of_unmet_marginals() -> None:
    a, b, C = blobs(10)
    for tol in (1e-17, 1e-15):
        with pytest.warns(ConvergenceWarning):
            result = randla.sinkhorn(a, b, C, 1e-3, tol=tol, max_iter=60)
        assert result.converged == (result.marginal_error <= tol)
        assert result.marginal_error <= 1e-12
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = randla.sinkhorn(a, b, C, 1e-4, method="log", max_iter=3)
    assert result.marginal_error > 1e-9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"a": [-0.1, 0.6, 0.5]}, "a must be nonnegative"),
        ({"a": [np.nan, 0.5, 0.5]}, "a must be finite"),
        ({"b": [np.inf, 1.0]}, "b must be finite"),
        ({"b": [0.0, 0.0]}, "b must have mass"),
        ({"b": [0.6, 0.6]}, "b must have the mass of a"),
        ({"a": [0.5, 0.5]}, r"a must have shape \(3,\)"),
        ({"cost": np.full((3, 2), np.nan)}, "cost must hold numbers"),
        ({"cost": np.array([[np.inf, np.inf], [1, 1], [1, 1.0]])}, "every row with mass"),
        ({"cost": np.array([[np.inf, 1], [np.inf, 1], [np.inf, 1.0]])}, "every column with mass"),
        ({"cost": np.empty((0, 2))}, "cost must have a row"),
        ({"reg": 0.0}, "reg must be"),
        ({"reg": np.inf}, "reg must be"),
        ({"tol": 0.0}, "tol must be"),
        ({"method": "exact"}, "method must be one of"),
        ({"sparsify": "rows"}, "sparsify must be one of"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"start": (np.zeros(2), np.zeros(2))}, "start must hold f"),
        ({"start": (np.zeros(3), np.full(2, np.nan))}, "start must be finite"),
        ({"on_failure": "shout"}, "on_failure must be"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {"a": np.full(3, 1 / 3), "b": np.full(2, 1 / 2), "cost": np.ones((3, 2)), "reg": 0.1}
    with pytest.raises(ValueError, match=match):
        randla.sinkhorn(**{**arguments, **change})


def test_bad_types_are_named() -> None:
    for cost in (np.ones((3, 2), complex), [["a", "b"]]):
        with pytest.raises(TypeError, match="cost"):
            randla.sinkhorn(None, None, cost, 0.1)
    with pytest.raises(TypeError, match="a must be real"):
        randla.sinkhorn(np.ones(3, complex), None, np.ones((3, 2)), 0.1)
    with pytest.raises(ValueError, match="must have no zero rows"):
        randla.point_cost(np.zeros((3, 2)), metric="cosine")
    with pytest.raises(ValueError, match="Y must have as many columns"):
        randla.point_cost(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="X must be finite"):
        randla.point_cost(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="T must be finite and nonnegative"):
        randla.round_plan(-np.ones((2, 2)), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="b must have the total of a"):
        randla.round_plan(np.ones((2, 2)), np.ones(2), np.zeros(2))


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_scaling_sweeps_equal_log_sweeps_far_from_their_kernel() -> None:
    a, b, C = problem(25, 30)
    cost = randla.sinkhorn(a, b, C, 1e-2).plan.cost
    scaled, logs = ScalingSweeps(cost, a, 1e-3), LogSweeps(cost, a, 1e-3)
    rng, g = np.random.default_rng(0), np.zeros(30)
    for size in (1e-3, 0.1, 1.0, 0.1):
        g = g + size * rng.normal(size=30)
        for found, truth in zip(scaled(g), logs(g), strict=True):
            assert np.abs(found - truth).max() <= tolerance("float64", 30, 1e3 * max(1.0, np.abs(g).max()))


def test_lost_columns_are_found_again_in_logarithms() -> None:
    a, b, C = problem(10, 8)
    cost = randla.sinkhorn(a, b, C, 1e-2).plan.cost
    g = np.zeros(8)
    g[2] = -5.0  # e**-5000 of its mass is left
    f, sums = LogSweeps(cost, a, 1e-3)(g)
    assert sums[2] == 0
    moved = g + column_change(cost, b, f, g, sums, 1e-3)
    truth = 1e-3 * (np.log(b) - logsumexp((f[:, None] - C) / 1e-3, axis=0))
    assert np.abs(moved - truth).max() <= 1e-12


def test_rounding_of_points_is_bounded_above() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.random((12, 2)), rng.random((9, 2))
    result = randla.sinkhorn(None, None, randla.point_cost(X, Y), 1e-2, max_iter=2, on_failure="ignore")
    T = rounded_plan(result.plan, result.a, result.b).to_dense()
    assert np.abs(T.sum(1) - result.a).max() <= 1e-15
    assert result.rounded_cost >= np.sum(T * cdist(X, Y, "sqeuclidean")) - 1e-15


def test_what_has_no_entries_takes_no_newton_steps() -> None:
    with pytest.raises(ValueError, match='method must be "auto" or "log" for a GridCost'):
        randla.sinkhorn(None, None, randla.grid_cost(4, 3), 0.1, method="newton")


def test_symmetric_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((6, 9)) + 0.1
    X /= X.sum(axis=1, keepdims=True)
    place = rng.random((9, 2))
    C = cdist(place, place, "sqeuclidean")
    noisy = C * (1 + 1e-15 * rng.random(C.shape))
    found = randla.transport_distances(X, noisy, 0.1).distances
    assert np.abs(found - randla.transport_distances(X, C, 0.1).distances).max() <= 1e-9
    with pytest.raises(ValueError, match="cost must be symmetric where Y is None"):
        randla.transport_distances(X, C + 1e-6 * rng.random(C.shape), 0.1)
    L = rng.random((9, 2))
    randla.factor_cost(L, L.copy(), 0.1).check_symmetric("here")
    with pytest.raises(ValueError, match="relative difference"):
        randla.factor_cost(L, rng.random((9, 2)), 0.1).check_symmetric("here")
