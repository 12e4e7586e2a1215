"""Kernel ridge regression: dense solutions, the table of iterations, errors that hold, and counted cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

from randla import ConvergenceError, ConvergenceWarning, Status
from randla.lowrank.kernel_functions import KernelMatrix
from randla.regression.kernel_ridge import KernelRidgeStep, kernel_ridge
from randla.sampling.kernel_leverage import kernel_leverage_sample

from .conftest import tolerance

N, CENTRES = 600, 60


def problem(n: int = N, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.sin(3 * X.sum(axis=1)) + 0.1 * rng.standard_normal(n)


def centres(n: int = N, k: int = CENTRES, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n)[:k]


def fitted_values(K: np.ndarray, S: Any, y: np.ndarray, alpha: float, weights: Any = None) -> np.ndarray:
    """A_S w of the exact solution, by least squares with the square root of the kernel of the centres below."""
    A, root = K[:, S], scipy.linalg.sqrtm(K[np.ix_(S, S)]).real
    D = np.ones(len(y)) if weights is None else np.sqrt(weights)
    rows = np.vstack([D[:, None] * A, alpha**0.5 * root])
    target = np.concatenate([D.reshape(-1, *[1] * (y.ndim - 1)) * y, np.zeros((len(root), *y.shape[1:]))])
    return A @ np.linalg.lstsq(rows, target, rcond=None)[0]


# --- [V] of the specification ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_iterations_of_krill_are_flat_as_alpha_falls_and_those_of_falkon_are_not() -> None:
    """N = 3000, k = 300, residual 1e-6: 22 / 35 / 31 against 70 / >200 / >200 were measured elsewhere."""
    X, y = problem(3000)
    K, S = KernelMatrix(X, "rbf", gamma=0.5), centres(3000, 300)
    steps = {
        (solver, alpha): kernel_ridge(
            K, y, alpha, centers=S, solver=solver, tol=1e-6, max_iter=200, rng=0, on_failure="ignore"
        )
        for solver in ("krill", "falkon")
        for alpha in (1e-2, 1e-4, 1e-8)
    }
    for alpha in (1e-2, 1e-4, 1e-8):
        assert steps["krill", alpha].status is Status.CONVERGED
        assert steps["krill", alpha].n_iter < 50
    assert steps["falkon", 1e-2].n_iter > 2 * steps["krill", 1e-2].n_iter
    for alpha in (1e-4, 1e-8):
        assert steps["falkon", alpha].status is Status.MAX_ITER


# --- solutions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["krill", "falkon", "direct"])
@pytest.mark.parametrize("weighted", [False, True])
def test_centres_agree_with_the_dense_solution_within_the_stated_error(solver: str, weighted: bool) -> None:
    X, y = problem()
    K, S = KernelMatrix(X, "rbf", gamma=0.5), centres()
    weights = np.random.default_rng(2).uniform(0, 2, N) if weighted else None
    dense = K.block(None, None)
    D = 1.0 if weights is None else np.sqrt(weights)
    for alpha in (1.0, 1e-3):
        result = kernel_ridge(K, y, alpha, centers=S, solver=solver, weights=weights, tol=1e-7, rng=0)
        exact = fitted_values(dense, S, y, alpha, weights)
        found = dense[:, S] @ result.coef
        # the shift of the kernel of the centres, and the rounding of large coefficients, are of the size 1e-10
        assert np.linalg.norm(D * (found - exact)) <= (result.error + 1e-9) * np.linalg.norm(D * y)
        assert result.residual <= 1e-7
        assert result.residual_norm == pytest.approx(np.linalg.norm(D * (y - found)), rel=1e-9)
        assert np.array_equal(result.centers, S)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limit", [0, 2**30])
def test_all_points_agree_with_the_dense_solution(weighted: bool, limit: int) -> None:
    X, y = problem()
    K = KernelMatrix(X, "laplacian", gamma=0.5)
    weights = np.random.default_rng(2).uniform(0.1, 2, N) if weighted else None
    dense, W = K.block(None, None), np.ones(N) if weights is None else weights
    result = kernel_ridge(K, y, 0.1, weights=weights, memory_limit=limit, rng=0)
    exact = np.linalg.solve(dense + 0.1 * np.diag(1 / W), y)
    D = np.sqrt(W)
    assert np.linalg.norm(D * (dense @ (result.coef - exact))) <= result.error * np.linalg.norm(D * y) * (1 + 1e-6)
    assert result.error <= 1e-6
    assert result.residual_norm == pytest.approx(np.linalg.norm(D * (y - dense @ result.coef)), rel=1e-6)
    assert result.solver == "pcg"


def test_several_targets_are_solved_at_once() -> None:
    X, y = problem()
    Y = np.stack([y, X[:, 0], np.zeros(N)], axis=1)
    K, S = KernelMatrix(X), centres()
    together = kernel_ridge(K, Y, 1e-3, centers=S, solver="krill", rng=0, tol=1e-10)
    assert together.coef.shape == (CENTRES, 3)
    assert len(together.residual) == len(together.error) == len(together.residual_norm) == 3
    assert not together.coef[:, 2].any()
    A = K.block(None, S)
    for j in range(2):
        alone = kernel_ridge(K, Y[:, j], 1e-3, centers=S, solver="krill", rng=0, tol=1e-10)
        # each coefficient vector solves to 1e-10; what they fit agrees to a multiple of that
        assert np.linalg.norm(A @ (together.coef[:, j] - alone.coef)) < 1e-7 * np.linalg.norm(Y[:, j])
    (coef,) = together
    assert coef is together.coef


def test_dependent_centres_do_no_harm() -> None:
    X, y = problem()
    K, S = KernelMatrix(X, "rbf", gamma=0.5), centres()
    once = kernel_ridge(K, y, 1e-3, centers=S, rng=0)
    for solver in ("krill", "direct"):
        twice = kernel_ridge(K, y, 1e-3, centers=np.concatenate([S, S[:20]]), solver=solver, rng=0)
        assert twice.converged
        assert twice.residual_norm == pytest.approx(once.residual_norm, rel=1e-5)


def test_centres_may_be_points_and_a_number() -> None:
    X, y = problem()
    K, S = KernelMatrix(X, "rbf", gamma=0.5), np.sort(centres())
    numbers = kernel_ridge(K, y, 1e-2, centers=S, solver="direct", rng=0)
    points = kernel_ridge(K, y, 1e-2, centers=X[S], solver="direct", rng=0)
    assert points.centers is None
    A = K.block(None, S)
    assert np.linalg.norm(A @ (points.coef - numbers.coef)) < 1e-6 * np.linalg.norm(y)
    drawn = kernel_ridge(K, y, 1e-2, centers=25, rng=0)
    assert len(np.unique(drawn.centers)) == 25
    again = kernel_ridge(K, y, 1e-2, centers=25, rng=0)
    assert np.array_equal(drawn.centers, again.centers)
    assert np.array_equal(drawn.coef, again.coef)


def test_an_array_is_a_kernel_matrix() -> None:
    X, y = problem()
    K, S = KernelMatrix(X, "rbf", gamma=0.5), centres()
    dense = K.block(None, None)
    for options in ({"centers": S, "solver": "krill"}, {}):
        lazy, eager = (kernel_ridge(M, y, 1e-2, rng=0, **options) for M in (K, dense))
        fits = [dense[:, S] @ r.coef if options else dense @ r.coef for r in (lazy, eager)]
        assert np.linalg.norm(fits[0] - fits[1]) < 1e-5 * np.linalg.norm(y)


def test_single_precision_states_what_rounding_costs() -> None:
    X, y = problem()
    S = centres()
    exact = KernelMatrix(X, "rbf", gamma=0.5).block(None, None)
    K = KernelMatrix(X.astype(np.float32), "rbf", gamma=0.5)
    for alpha in (1.0, 1e-3):
        result = kernel_ridge(K, y.astype(np.float32), alpha, centers=S, solver="krill", rng=0)
        assert result.coef.dtype == np.float32
        assert result.converged
        # the kernel values themselves are rounded, which the least eigenvalues of the centres amplify
        off = np.linalg.norm(exact[:, S] @ result.coef - fitted_values(exact, S, y, alpha))
        assert off <= (result.error + 1e-2) * np.linalg.norm(y)
    full = kernel_ridge(K, y.astype(np.float32), 1.0, rng=0)
    assert full.coef.dtype == np.float32
    assert full.residual <= 1e-4


def test_other_namespaces(put: Any, xp: Any) -> None:
    X, y = problem(300)
    S = centres(300, 30)
    host = kernel_ridge(KernelMatrix(X), y, 1e-2, centers=S, solver="krill", rng=0)
    K = KernelMatrix(put(X))
    for solver in ("krill", "falkon", "direct"):
        result = kernel_ridge(K, put(y), 1e-2, centers=put(S), solver=solver, rng=0)
        assert type(result.coef) is type(put(y))
        assert result.converged
        assert result.residual_norm == pytest.approx(host.residual_norm, rel=1e-6)
    assert kernel_ridge(K, put(y), 1e-2, rng=0).converged
    assert kernel_leverage_sample(K, 20, rng=0).shape == (20,)


# --- cost and iteration -----------------------------------------------------------------------------------------------


def test_kernel_values_are_counted_and_kept_only_within_the_limit() -> None:
    X, y = problem()
    S = centres()
    kept = kernel_ridge(KernelMatrix(X), y, 1e-3, centers=S, solver="krill", rng=0)
    anew = kernel_ridge(KernelMatrix(X), y, 1e-3, centers=S, solver="krill", memory_limit=0, rng=0)
    assert kept.n_entries == N * CENTRES + CENTRES**2
    # a read for the sketch, one for each step, and those of the true residual at the begin and the end of a pass
    assert anew.n_passes == anew.n_iter + 3
    assert anew.n_entries == anew.n_passes * N * CENTRES + CENTRES**2
    assert abs(anew.n_iter - kept.n_iter) <= 1
    direct = kernel_ridge(KernelMatrix(X), y, 1e-3, centers=S, solver="direct", rng=0)
    assert direct.n_iter <= 2
    assert direct.reason == "as asked"
    assert kernel_ridge(KernelMatrix(X), y, 1e-3, centers=S, rng=0).solver == "direct"
    assert kernel_ridge(KernelMatrix(problem(3000)[0]), problem(3000)[1], centers=501, rng=0).solver == "krill"


def test_the_history_and_the_callback_tell_each_step() -> None:
    X, y = problem()
    K, seen = KernelMatrix(X), []
    result = kernel_ridge(K, y, 1e-3, centers=centres(), solver="krill", rng=0, callback=seen.append)
    assert [step.error for step in seen] == list(result.history)
    assert [step.n_iter for step in seen] == list(range(1, result.n_iter + 1))
    assert all(isinstance(step, KernelRidgeStep) for step in seen)
    options = {"centers": centres(), "solver": "krill", "rng": 0, "on_failure": "ignore"}
    stopped = kernel_ridge(K, y, 1e-3, callback=lambda step: step.n_iter == 3, **options)
    assert stopped.n_iter == 3
    assert stopped.status is Status.MAX_ITER
    full = kernel_ridge(K, y, 1e-3, rng=0, callback=lambda step: step.n_iter == 2, on_failure="ignore")
    assert full.n_iter == 2


def test_what_does_not_converge_says_so() -> None:
    X, y = problem()
    K, options = KernelMatrix(X, "rbf", gamma=0.5), {"centers": centres(), "solver": "falkon", "rng": 0}
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = kernel_ridge(K, y, 1e-6, max_iter=2, **options)
    assert not result.converged
    assert result.residual > 1e-6
    with pytest.raises(ConvergenceError):
        kernel_ridge(K, y, 1e-6, max_iter=2, on_failure="raise", **options)
    none = kernel_ridge(K, y, 1e-6, max_iter=0, on_failure="ignore", **options)
    assert not none.coef.any()
    assert none.residual == pytest.approx(1.0)
    floor = kernel_ridge(K, y, 1e-8, centers=centres(), tol=1e-16, rng=0, on_failure="ignore")
    assert floor.status is Status.STAGNATED
    assert kernel_ridge(K, np.zeros(N), centers=centres(), rng=0).converged


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": -1.0}, ValueError, "alpha must be finite"),
        ({"centers": 0}, ValueError, "centers must be"),
        ({"centers": N + 1}, ValueError, "centers must be"),
        ({"centers": np.array([0, N])}, ValueError, "centers must be numbers in"),
        ({"centers": np.array([0.5, 1.0])}, TypeError, "centers must be numbers of points"),
        ({"centers": np.zeros((0, 3))}, ValueError, "centers must be at least one"),
        ({"centers": None, "solver": "krill"}, ValueError, "solver must be"),
        ({"centers": None, "alpha": 0.0}, ValueError, "alpha must be"),
        ({"centers": None, "weights": np.zeros(N)}, ValueError, "weights must be positive"),
        ({"solver": "pcg"}, ValueError, "solver must not be given"),
        ({"rank": 10}, ValueError, "rank must not be given"),
        ({"solver": "lu"}, ValueError, "solver must be one of"),
        ({"weights": np.ones(N - 1)}, ValueError, "weights must have shape"),
        ({"weights": -np.ones(N)}, ValueError, "weights must be finite and not negative"),
        ({"weights": np.ones(N) * 1j}, TypeError, "weights must be real"),
        ({"y": np.ones(N - 1)}, ValueError, "y must have"),
        ({"y": np.ones(N) * 1j}, ValueError, "y must be real"),
        ({"y": np.ones((N, 0))}, ValueError, "must not be empty"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"max_iter": -1}, ValueError, "max_iter must be"),
        ({"memory_limit": 1.5}, TypeError, "memory_limit must be"),
        ({"on_failure": "hope"}, ValueError, "on_failure must be"),
        ({"K": np.ones((3, 4))}, ValueError, "K must be square"),
        ({"K": "kernel"}, TypeError, "K must be"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    X, y = problem()
    arguments = {"K": KernelMatrix(X), "y": y, "alpha": 1.0, "centers": 20, "rng": 0} | change
    with pytest.raises(error, match=message):
        kernel_ridge(**arguments)


def test_not_a_kernel_and_not_finite() -> None:
    y = np.ones(40)
    with pytest.raises(ValueError, match="positive semidefinite"):
        kernel_ridge(-np.eye(40), y, centers=10, rng=0)
    bad = np.eye(40)
    bad[3, 3] = np.nan
    with pytest.raises(ValueError, match="K must be finite"):
        kernel_ridge(bad, y, centers=np.array([3, 4]), rng=0)
    y[5] = np.nan
    result = kernel_ridge(np.eye(40), y, centers=10, rng=0, on_failure="ignore")
    assert result.status is Status.NONFINITE


# --- ridge leverage ---------------------------------------------------------------------------------------------------


def test_leverage_sample_finds_the_few_points_that_matter() -> None:
    """Two far clusters of 2000 and of 20 points: the small one holds half of the directions of the kernel."""
    rng = np.random.default_rng(0)
    X = np.concatenate([0.05 * rng.standard_normal((2000, 2)), 5 + rng.standard_normal((20, 2))])
    K = KernelMatrix(X, "rbf", gamma=1.0)
    chosen = kernel_leverage_sample(K, 30, rng=0)
    assert len(np.unique(chosen)) == 30
    assert np.array_equal(chosen, np.sort(chosen))
    # uniform sampling expects 0.3 of them; P(Binomial(30, 20/2020) >= 8) < 1e-9
    assert np.sum(chosen >= 2000) >= 8
    assert K.n_entries < 5 * 2020 * 30
    assert np.array_equal(chosen, kernel_leverage_sample(KernelMatrix(X, "rbf", gamma=1.0), 30, rng=0))


def test_leverage_sample_of_everything() -> None:
    X, _ = problem(50)
    assert np.array_equal(kernel_leverage_sample(KernelMatrix(X), 50, rng=0), np.arange(50))
    with pytest.raises(ValueError, match="size must be"):
        kernel_leverage_sample(KernelMatrix(X), 51, rng=0)


def test_prediction_error_is_rounding_where_the_kernel_is_linear() -> None:
    """With the linear kernel and all points as centres it is ridge regression."""
    X, y = problem(200, d=5)
    result = kernel_ridge(KernelMatrix(X, "linear"), y, 2.0, centers=np.arange(200), solver="direct", rng=0)
    exact = X @ np.linalg.solve(X.T @ X + 2.0 * np.eye(5), X.T @ y)
    assert np.linalg.norm(X @ (X.T @ result.coef) - exact) < 1e-6 * np.linalg.norm(y)
    assert np.linalg.norm(y - exact) == pytest.approx(result.residual_norm, abs=1e6 * tolerance("float64", 200))
