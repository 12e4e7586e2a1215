"""l_p regression against linear programs and convex solvers; the bound of the excess is never below the excess."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

import randla
from randla import ConvergenceWarning, Status
from randla.regression import LpResult, LpStep, lp_regression
from randla.regression import newton as newton_module
from randla.regression.design import Design, lower_bound, norm
from randla.sampling.rows import SCORES

from .conftest import tolerance

POWERS = [1.0, 1.5, 2.0, 3.0, 8.0]


def problem(m: int = 2000, n: int = 5, noise: str = "cauchy", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    errors = rng.standard_cauchy(m) if noise == "cauchy" else rng.standard_normal(m)
    return A, A @ rng.standard_normal(n) + errors


def norm_of(r: np.ndarray, p: float, weights: Any = 1.0) -> float:
    top = np.abs(r).max()
    return float(top * np.sum(weights * (np.abs(r) / top) ** p) ** (1 / p)) if top else 0.0


def exact_minimum(A: np.ndarray, b: np.ndarray, p: float, weights: np.ndarray | None = None) -> float:
    """By other means: the usual linear program at p = 1, BFGS from several starts else."""
    m, n = A.shape
    w = np.ones(m) if weights is None else weights
    if p == 1:
        table = sp.hstack([sp.csr_array(A), sp.identity(m), -sp.identity(m)], format="csc")
        cost = np.concatenate([np.zeros(n), w, w])
        return float(linprog(cost, A_eq=table, b_eq=b, bounds=[(None, None)] * n + [(0, None)] * (2 * m)).fun)
    start = np.linalg.lstsq(A, b, rcond=None)[0]
    size = norm_of(b - A @ start, p, w)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        r = (b - A @ x) / size
        value = np.sum(w * np.abs(r) ** p)
        return value, -p * A.T @ (w * np.sign(r) * np.abs(r) ** (p - 1)) / size

    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-12, "maxiter": 2000})
    return float(found.fun ** (1 / p) * size)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("noise", ["cauchy", "normal"])
@pytest.mark.parametrize("n_samples", [200, 10_000])
def test_minimum_of_other_solvers(p: float, noise: str, n_samples: int) -> None:
    A, b = problem(600, noise=noise)
    result = lp_regression(A, b, p, n_samples=n_samples, polish=20, rng=0)
    found, best = norm_of(b - A @ result.x, p), exact_minimum(A, b, p)
    assert result.status is Status.CONVERGED
    assert result.excess_bound <= 1e-6
    assert abs(result.objective - found) <= tolerance(np.float64, 600, found)
    assert found <= best * (1 + 1e-6)
    assert found / (1 + result.excess_bound) <= best * (1 + tolerance(np.float64, 600, 10)), "the bound is proved"
    (x,) = result
    assert x is result.x


@pytest.mark.parametrize("p", [1.0, 1.01, 1.05, 1.2, 1.5, 3.0, 8.0, 30.0])
@pytest.mark.parametrize("polish", [0, 1])
def test_the_bound_holds_when_it_is_loose(p: float, polish: int) -> None:
    """A small sample and few steps: far from the minimum, and never further than is told."""
    for seed in range(5):
        A, b = problem(1000, seed=seed)
        options: dict[str, Any] = {"rng": seed, "on_failure": "ignore"}
        rough = lp_regression(A, b, p, n_samples=60, polish=polish, tol=0.0, **options)
        best = lp_regression(A, b, p, n_samples=1000, tol=1e-9, **options)
        assert best.excess_bound <= 1e-6
        true = rough.objective / best.objective - 1
        assert -1e-6 <= true <= rough.excess_bound * (1 + 1e-6) + tolerance(np.float64, 1000, 10)
        assert rough.status is not Status.CONVERGED or p == 1.0
        assert rough.n_iter <= polish


def test_l1_ends_with_a_proof_of_the_minimum() -> None:
    A, b = problem(5000, 6)
    result = lp_regression(A, b, tol=1e-12, rng=0)
    assert result.status is Status.CONVERGED
    assert result.excess_bound <= 1e-12
    assert result.n_iter <= 3
    zero = np.abs(b - A @ result.x) <= tolerance(np.float64, 6, np.abs(b).max())
    assert np.sum(zero) == 6, "a vertex: as many residuals vanish as there are columns"


def test_goal_of_a_sample_of_1600_rows() -> None:
    """20,000 x 8 with Cauchy noise: the excess of the sample's own solution, told without a further program."""
    A, b = problem(20_000, 8)
    for seed in range(5):
        sampled = lp_regression(A, b, n_samples=1600, polish=0, rng=seed, on_failure="ignore")
        exact = lp_regression(A, b, n_samples=1600, rng=seed)
        assert exact.excess_bound <= 1e-6
        true = sampled.objective / exact.objective - 1
        assert true <= 1e-3
        assert true <= sampled.excess_bound <= true + 1e-3
        assert abs(len(sampled.indices) - 1600) <= 6 * 40
        assert exact.history[0] == sampled.objective


@pytest.mark.slow
def test_a_hundredth_of_the_time_of_the_full_program() -> None:
    A, b = problem(20_000, 8)
    lp_regression(A[:500], b[:500], n_samples=100, rng=0)  # load and compile
    start = time.process_time()
    result = lp_regression(A, b, n_samples=1600, rng=0)
    middle = time.process_time()
    best = exact_minimum(A, b, 1.0)
    assert middle - start <= (time.process_time() - middle) / 100
    assert abs(result.objective / best - 1) <= 1e-6


@pytest.mark.parametrize("p", POWERS)
def test_weights_are_repeated_rows(p: float) -> None:
    A, b = problem(700)
    weights = np.random.default_rng(0).integers(0, 4, 700)
    repeated = np.repeat(np.arange(700), weights)
    weighted = lp_regression(A, b, p, weights=weights, n_samples=300, polish=20, tol=1e-9, rng=0)
    plain = lp_regression(A[repeated], b[repeated], p, n_samples=10_000, tol=1e-9, rng=0)
    assert abs(weighted.objective / plain.objective - 1) <= 2e-9
    assert abs(weighted.objective - norm_of(b - A @ weighted.x, p, weights)) <= tolerance(
        np.float64, 700, plain.objective
    )


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("n_samples", [300, 10_000])
def test_equivariance(p: float, n_samples: int) -> None:
    """Powers of two scale everything exactly, also where squares overflow; columns may be mixed, b shifted."""
    A, b = problem(1000, 4)
    options: dict[str, Any] = {"n_samples": n_samples, "polish": 20, "tol": 1e-8, "rng": 0}
    plain = lp_regression(A, b, p, **options)
    close = tolerance(np.float64, 1000, 100)
    for of_A, of_b in ((2.0**500, 1.0), (2.0**-520, 2.0**480), (1.0, 2.0**-500)):
        scaled = lp_regression(A * of_A, b * of_b, p, **options)
        assert np.abs(scaled.x * (of_A / of_b) - plain.x).max() <= close * np.abs(plain.x).max()
        assert abs(scaled.objective / of_b / plain.objective - 1) <= close
    mixed = lp_regression(A @ np.triu(np.ones((4, 4)) * 10.0 ** np.arange(4)), b + A @ np.ones(4), p, **options)
    assert abs(mixed.objective / plain.objective - 1) <= 2e-8


@pytest.mark.parametrize("p", POWERS)
def test_dependent_columns_give_the_least_norm(p: float) -> None:
    A, b = problem(500, 3)
    plain = lp_regression(A, b, p, n_samples=500, tol=1e-9, rng=0)
    twice = lp_regression(np.hstack([A, A[:, :1]]), b, p, n_samples=500, tol=1e-9, rng=0)
    assert twice.status is Status.RANK_DEFICIENT
    assert twice.converged
    assert twice.rank == 3
    assert twice.excess_bound <= 1e-9
    assert abs(twice.x[0] - twice.x[3]) <= tolerance(np.float64, 500, 10)
    assert abs(twice.objective / plain.objective - 1) <= 2e-9


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_ill_conditioned_columns(p: float) -> None:
    A, b = problem(2000, 4)
    plain = lp_regression(A, b, p, n_samples=400, polish=20, rng=0)
    A[:, 3] = A[:, 2] + 1e-9 * A[:, 3]
    result = lp_regression(A, b, p, n_samples=400, polish=20, rng=0)
    assert result.rank == 4
    assert result.converged
    assert abs(result.objective / plain.objective - 1) <= 1e-5  # the same columns up to the rounding of 1e-9 A[:, 3]


@pytest.mark.parametrize("p", POWERS)
def test_trivial_problems(p: float) -> None:
    A, b = problem(300, 3)
    for n_samples in (50, 1000):
        consistent = lp_regression(A, A @ np.ones(3), p, n_samples=n_samples, rng=0)
        assert np.abs(consistent.x - 1).max() <= tolerance(np.float64, 300, 10)
        assert consistent.excess_bound == 0
        assert np.all(lp_regression(A, 0 * b, p, n_samples=n_samples, rng=0).x == 0)
        nothing = lp_regression(0 * A, b, p, n_samples=n_samples, rng=0)
        assert np.all(nothing.x == 0)
        assert nothing.rank == 0
        assert abs(nothing.objective - norm_of(b, p)) <= tolerance(np.float64, 300, nothing.objective)
    for shape in ((0, 3), (4, 0), (0, 0), (1, 1), (3, 5)):
        small = lp_regression(np.ones(shape) + np.eye(*shape), np.arange(1.0, 1 + shape[0]), p, rng=0)
        assert small.x.shape == (shape[1],)
        assert small.converged
        assert small.excess_bound == 0


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix])
@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_sparse_and_dense_agree(container: Any, p: float) -> None:
    A, b = problem(1500, 6)
    A[np.abs(A) < 0.8] = 0
    A[:20] = 0
    weights = np.random.default_rng(0).random(1500)
    options: dict[str, Any] = {"n_samples": 400, "polish": 20, "tol": 1e-8, "weights": weights, "rng": 0}
    dense, sparse = lp_regression(A, b, p, **options), lp_regression(container(A), b, p, **options)
    assert isinstance(sparse.x, np.ndarray)
    assert abs(sparse.objective / dense.objective - 1) <= 2e-8


@pytest.mark.parametrize("p", [1.5, 2.0, 4.0])
def test_every_namespace(xp: Any, put: Any, p: float) -> None:
    A, b = problem(800, 4)
    host = lp_regression(A, b, p, n_samples=200, rng=0)
    result = lp_regression(put(A), put(b), p, n_samples=200, rng=0)
    assert type(result.x) is type(put(b))
    assert abs(result.objective / host.objective - 1) <= 2e-6


def test_p_of_one_needs_the_host() -> None:
    xp = pytest.importorskip("array_api_strict")
    A, b = problem(100)
    with pytest.raises(NotImplementedError, match=r"p must be above 1 for arrays of .*; the linear programs"):
        lp_regression(xp.asarray(A), xp.asarray(b))


def test_dtypes() -> None:
    A, b = problem(500, 3)
    for p in (1.0, 1.5):
        single = lp_regression(A.astype(np.float32), b.astype(np.float32), p, n_samples=200, rng=0)
        assert single.x.dtype == np.float32
        assert single.objective == pytest.approx(lp_regression(A, b, p, rng=0).objective, rel=1e-5)
        whole = lp_regression((8 * A).astype(int), b, p, rng=0)
        assert whole.x.dtype == np.float64


@pytest.mark.parametrize("scores", SCORES)
def test_every_score_leads_to_the_minimum(scores: str) -> None:
    A, b = problem(3000, 3)
    result = lp_regression(A, b, 1.0, scores=scores, n_samples=500, polish=10, rng=1)
    assert result.excess_bound <= 1e-6


def test_keys_decide_everything() -> None:
    A, b = problem()
    first, again, other = (lp_regression(A, b, 1.5, n_samples=300, polish=1, tol=None, rng=k) for k in (3, 3, 4))
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.indices, again.indices)
    assert not np.array_equal(first.indices, other.indices)
    copies = A.copy(), b.copy()
    lp_regression(A, b, rng=randla.as_key(0))
    assert np.array_equal(A, copies[0])
    assert np.array_equal(b, copies[1])


@given(
    rows=st.integers(2, 30),
    columns=st.integers(1, 4),
    p=st.sampled_from([1.0, 1.1, 2.0, 5.0]),
    seed=st.integers(0, 1000),
    discrete=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_small_problems_of_all_shapes(rows: int, columns: int, p: float, seed: int, discrete: bool) -> None:
    """Ties, zero rows, dependent columns, fewer rows than columns: always a proof, or an honest status."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
    if discrete:
        A, b = np.round(A), np.round(b)
    result = lp_regression(A, b, p, rng=seed, on_failure="ignore")
    assert math.isfinite(result.objective)
    assert result.converged == (result.excess_bound <= 1e-6)
    assert result.excess_bound <= 1e-3
    for _ in range(5):
        other = norm_of(b - A @ (result.x + 0.1 * rng.standard_normal(columns)), p)
        assert other * (1 + result.excess_bound) >= result.objective * (1 - tolerance(np.float64, rows))


# --- steps and how they end -------------------------------------------------------------------------------------------


def test_history_falls_and_the_callback_sees_it() -> None:
    A, b = problem(3000, 5)
    for p in (1.0, 1.2, 4.0):
        seen: list[LpStep] = []
        result = lp_regression(
            A, b, p, n_samples=200, polish=5, tol=1e-12, rng=0, callback=seen.append, on_failure="ignore"
        )
        assert tuple(step.objective for step in seen) == result.history
        assert [step.n_iter for step in seen] == list(range(result.n_iter + 1))
        assert all(after <= before for before, after in zip(result.history, result.history[1:], strict=False))
        bounds = [step.excess_bound for step in seen]
        assert bounds[-1] <= bounds[0]
        stopped = lp_regression(A, b, p, n_samples=200, rng=0, callback=lambda step: True, on_failure="ignore")
        assert stopped.n_iter == 0


def test_a_tolerance_out_of_reach_is_told() -> None:
    A, b = problem(2000, noise="normal")
    with pytest.warns(ConvergenceWarning, match="lp_regression ended with Status.MAX_ITER"):
        result = lp_regression(A, b, 4.0, n_samples=50, polish=0, rng=0)
    assert not result.converged
    assert result.excess_bound > 1e-6
    with pytest.raises(randla.ConvergenceError) as caught:
        lp_regression(A, b, 4.0, n_samples=50, polish=0, rng=0, on_failure="raise")
    assert isinstance(caught.value.result, LpResult)
    assert lp_regression(A, b, 4.0, n_samples=50, polish=0, tol=None, rng=0).converged, "nothing was asked for"
    stagnated = lp_regression(A, b, 3.0, n_samples=5000, tol=0.0, rng=0, on_failure="ignore")
    assert stagnated.status in (Status.STAGNATED, Status.CONVERGED)
    assert stagnated.converged == (stagnated.excess_bound == 0)
    assert stagnated.excess_bound <= tolerance(np.float64, 2000, 10)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_nonfinite_data(bad: float, container: Any) -> None:
    A, b = problem(100, 3)
    A[3, 1] = bad
    result = lp_regression(container(A), b, on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert not result.converged
    assert np.all(np.isnan(result.x))
    A[3, 1], b[5] = 0, bad
    assert lp_regression(container(A), b, on_failure="ignore").status is Status.NONFINITE


def test_bounds_from_wrong_duals_are_not_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any y gives a bound from below; with spoiled directions the status says that nothing was proved."""
    A, b = problem(300, 3)
    design = Design(A, b, None, randla.as_key(0))
    rng = np.random.default_rng(0)
    for p in POWERS:
        best = lp_regression(A, b, p, rng=0).objective
        for y in (rng.standard_normal((20, 300)), np.sign(b) * rng.random((20, 300))):
            assert max(lower_bound(design, b, row, p) for row in y) <= best
    monkeypatch.setattr(newton_module, "_solve", lambda G, g, xp: 0.0 * g)
    result = lp_regression(A, b, 4.0, rng=0, on_failure="ignore")
    assert not result.converged
    assert result.excess_bound > 1e-3


@pytest.mark.parametrize("p", [3.0, 8.0])
def test_line_search_where_few_residuals_rule(p: float) -> None:
    """The slope along the direction grows like a power: false position creeps, and must not end above its start."""
    rng = np.random.default_rng(6)
    A = rng.standard_normal((200_000, 8))
    result = lp_regression(A, A @ np.ones(8) + rng.standard_cauchy(200_000), p, rng=0)
    assert result.converged
    assert len(result.indices) == 200_000
    assert 1 <= result.n_iter <= 8


def test_norm_has_no_overflow() -> None:
    r = np.array([3.0, -4.0, 0.0])
    for scale in (1.0, 1e300, 1e-300):
        assert norm(r * scale, 2.0) == pytest.approx(5.0 * scale, rel=tolerance(np.float64, 3))
        assert norm(r * scale, math.inf) == 4.0 * scale
        assert norm(r * scale, 700.0) == pytest.approx(4.0 * scale, rel=tolerance(np.float64, 700))
    assert norm(np.zeros(0), 2.0) == 0.0


BAD = [
    ({"p": 0.5}, ValueError, "p must be finite and in"),
    ({"p": math.inf}, ValueError, "p must be finite and in"),
    ({"p": "1"}, TypeError, "p must be a real number"),
    ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
    ({"n_samples": 1.5}, TypeError, "n_samples must be an integer"),
    ({"scores": "best"}, ValueError, "scores must be one of"),
    ({"polish": -1}, ValueError, "polish must be"),
    ({"tol": -1.0}, ValueError, "tol must be"),
    ({"weights": np.ones(3)}, ValueError, r"weights must have shape \(50,\), got \(3,\)"),
    ({"weights": -np.ones(50)}, ValueError, "weights must be finite and nonnegative"),
    ({"weights": np.full(50, np.nan)}, ValueError, "weights must be finite and nonnegative"),
    ({"on_failure": "print"}, ValueError, "on_failure must be one of"),
    ({"rng": -1}, ValueError, "rng must be"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_parameters(options: dict[str, Any], error: type, message: str) -> None:
    A, b = problem(50, 2)
    with pytest.raises(error, match=message):
        lp_regression(A, b, **options)


def test_bad_data() -> None:
    A, b = problem(50, 2)
    for matrix, vector, error, message in (
        (A[:, 0], b, ValueError, "A must be 2-D"),
        (A, b[:40], ValueError, r"b must have shape \(50,\), got \(40,\)"),
        (A, np.stack([b, b], axis=1), ValueError, r"b must have shape \(50,\), got \(50, 2\)"),
        (A + 1j, b, ValueError, "A must be real"),
        (A, b + 1j, ValueError, "b must be real"),
        ([["a"]], b, TypeError, "A must have a real"),
        (A, None, TypeError, "b must be an array"),
    ):
        with pytest.raises(error, match=message):
            lp_regression(matrix, vector)
