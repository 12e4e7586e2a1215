"""Alternating minimisation: exact recovery, its limits, error floors, and results that do not lean on the order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from randla import ConvergenceError, ConvergenceWarning, Status, altmin_completion, complete
from randla._arrays import to_host
from randla.completion.factors import balanced, relative_change, thin_qr
from randla.completion.results import CompletionStep

from .conftest import tolerance


def planted(
    m: int = 200, n: int = 200, k: int = 5, oversampling: float = 3.0, seed: int = 0, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of rank k, and it with NaN: `oversampling` times as many entries as parameters are left."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
    kept = rng.permutation(m * n)[: int(oversampling * k * (m + n - k))]
    X = np.full(m * n, np.nan)
    X[kept] = (A + noise * rng.standard_normal((m, n))).ravel()[kept]
    return A, X.reshape(m, n)


def fit(X: Any, rank: int = 5, **options: Any) -> Any:
    return altmin_completion(X, rank, **{"rng": 0, "on_failure": "ignore", **options})


def distance(result: Any, A: np.ndarray) -> float:
    return float(np.linalg.norm(to_host(result.to_dense()) - A) / np.linalg.norm(A))


# --- recovery ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_recovery_at_three_times_the_parameters(solver: str) -> None:
    """Errors 0.3 to 0.5 after the first sweep and 1e-11 to 1e-10 after 50."""
    for seed in range(3):
        A, X = planted(seed=seed)
        assert 0.2 < distance(fit(X, max_iter=1, solver=solver), A) < 0.6
        result = fit(X, tol=0.0, solver=solver)
        assert distance(result, A) <= 1e-9
        assert result.error <= 1e-9 * np.abs(A).max()
        assert np.all(np.diff(result.history) <= 0)


def test_recovery_at_four_and_at_two_times_the_parameters() -> None:
    """Four times: 8e-13 in 40 sweeps; two: 2e-5 in 50, where one in four of the matrices is not found at all."""
    A, X = planted(oversampling=4)
    assert distance(fit(X, tol=0.0, max_iter=40), A) <= 8e-13
    A, X = planted(oversampling=2)
    assert 1e-9 < distance(fit(X, tol=0.0), A) <= 2e-4


def test_what_cannot_be_recovered_is_told() -> None:
    """1.5 times the parameters: the product explodes; fewer entries than parameters: nothing is determined."""
    A, X = planted(oversampling=1.5)
    result = fit(X, tol=0.0)
    assert distance(result, A) > 1.0
    assert result.status is Status.BREAKDOWN
    few = fit(planted(oversampling=0.9)[1])
    assert few.status is Status.BREAKDOWN
    assert few.error < 0.1 * np.nanstd(X)  # and yet the entries are nearly met
    with pytest.raises(ConvergenceError, match="BREAKDOWN"):
        fit(planted(oversampling=0.9)[1], on_failure="raise")


def test_a_ridge_keeps_the_product_near_the_limit() -> None:
    A, X = planted(oversampling=1.5)
    free, held = fit(X, tol=0.0), fit(X, tol=0.0, reg=0.3)
    assert np.linalg.norm(held.to_dense()) < 2.0 * np.linalg.norm(A)
    assert np.linalg.norm(free.to_dense()) > 3.0 * np.linalg.norm(A)
    assert held.status is not Status.BREAKDOWN
    assert np.all(np.diff(held.history) <= tolerance("float64", X.size, held.history[0]))


def test_inner_tolerance_sets_the_error_floor() -> None:
    """Within ten times it from above; sweeps that are solved exactly go on to rounding."""
    A, X = planted(oversampling=4)
    for inner in (1e-3, 1e-6):
        assert distance(fit(X, solver="cg", inner_tol=inner, tol=0.0), A) <= 10 * inner
    assert distance(fit(X, solver="cholesky", tol=0.0, max_iter=80), A) <= tolerance("float64", X.size, 10)


@pytest.mark.parametrize("solver", ["auto", "cholesky", "qr", "cg", "sketch"])
def test_solvers_and_starts_agree(solver: str) -> None:
    A, X = planted(oversampling=5)
    for init in ("svd", "random"):
        result = fit(X, solver=solver, init=init, tol=1e-8, max_iter=100)
        assert result.status is Status.CONVERGED
        assert distance(result, A) <= 1e-6


def test_going_on_from_a_result() -> None:
    """Both halves of a sweep start from the last product, so nothing is lost where a fit is taken up again."""
    A, X = planted()
    first = fit(X, max_iter=10, tol=0.0)
    again = fit(X, init=first, max_iter=10, tol=0.0)
    whole = fit(X, max_iter=20, tol=0.0)
    assert again.history[0] <= first.history[-1]
    assert again.objective == pytest.approx(whole.objective, rel=1e-6)
    pair = fit(X, init=(first.row_factors, first.col_factors), max_iter=10, tol=0.0)
    assert pair.objective == again.objective
    assert distance(fit(X, init=first, max_iter=0), A) == pytest.approx(distance(first, A))


def test_ridge_has_the_minimum_of_complete() -> None:
    """`complete` with a plain ridge and no bias lowers the same objective by other steps."""
    _, X = planted(oversampling=4, noise=0.5)
    ours = fit(X, reg=2.0, tol=1e-9, max_iter=400)
    theirs = complete(X, 5, reg=2.0, reg_exponent=0.0, bias=False, tol=1e-13, max_iter=400, rng=0, on_failure="ignore")
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-6)
    norms = [np.linalg.norm(F, axis=0) for F in (ours.row_factors, ours.col_factors)]
    assert np.allclose(*norms, rtol=1e-3)  # balanced


def test_noise_is_estimated() -> None:
    _, X = planted(oversampling=5, noise=0.1)
    result = fit(X, tol=1e-8)
    # 9,875 residuals of which 1,975 are fitted: a standard error of 0.8 percent, six of which are allowed
    assert abs(result.noise / 0.1 - 1) < 0.05
    assert result.predict_std([3], [4]) > 0


def test_held_out_error_stops_and_keeps_the_best() -> None:
    """Rank 8 on data of rank 5 with noise learns the noise; the error that is told holds for all that is hidden."""
    A, X = planted(oversampling=5, noise=1.0)
    result = fit(X, 8, validation_fraction=0.2, tol=0.0, n_iter_no_change=2)
    assert result.error_kind == "held-out"
    assert result.best_iter < result.n_iter
    assert result.error == min(result.validation_history)
    low, high = result.error_interval
    assert low < result.error < high
    hidden = np.isnan(X)
    truth = math.sqrt(np.mean((result.to_dense() - A)[hidden] ** 2) + 1.0)  # what is held out has noise
    assert low * 0.9 < truth < high * 1.1
    assert result.status is Status.CONVERGED


def test_clipping_zeroes_only_what_is_coherent() -> None:
    """A row that is a hundred times the others is cut from the start; the fit finds the matrix with or without it."""
    A, X = planted(m=100, n=80, k=2, oversampling=6, seed=3)
    assert np.array_equal(fit(X, 2).row_factors, fit(X, 2, clip=False).row_factors)  # nothing to clip
    spiky = X.copy()
    spiky[7] *= 100
    clipped, whole = fit(spiky, 2, max_iter=1), fit(spiky, 2, max_iter=1, clip=False)
    assert not np.array_equal(clipped.row_factors, whole.row_factors)
    truth = A.copy()
    truth[7] *= 100
    assert distance(fit(spiky, 2, tol=0.0, max_iter=200), truth) < 1e-6
    assert distance(fit(spiky, 2, clip=3.0, tol=0.0, max_iter=200), truth) < 1e-6


# --- order, scale, storage --------------------------------------------------------------------------------------------


def test_rows_columns_and_sides_in_any_order() -> None:
    A, X = planted(m=90, n=70, k=3, oversampling=4)
    rows, cols = np.random.default_rng(1).permutation(90), np.random.default_rng(2).permutation(70)
    for other, truth in ((X[rows][:, cols], A[rows][:, cols]), (X.T, A.T)):
        assert distance(fit(other, 3, tol=1e-10, max_iter=200), truth) < 1e-8


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scales_do_not_matter(scale: float) -> None:
    A, X = planted(m=90, n=70, k=3, oversampling=4)
    base, other = fit(X, 3, tol=1e-8), fit(scale * X, 3, tol=1e-8)
    assert other.n_iter == base.n_iter
    assert distance(other, scale * A) < 1e-6
    ridge, scaled = fit(X, 3, reg=0.1, tol=1e-6), fit(scale * X, 3, reg=0.1 * scale, tol=1e-6)
    assert distance(scaled, scale * ridge.to_dense()) < 1e-4


def test_sparse_and_dense_input_are_the_same() -> None:
    """Stored zeros are observations."""
    _, X = planted(m=60, n=50, k=2, oversampling=5)
    X[0, :5] = 0.0
    rows, cols = np.nonzero(~np.isnan(X))
    S = sp.coo_array((X[rows, cols], (rows, cols)), shape=X.shape)
    wide = sp.csr_array(S)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    dense = fit(X, 2)
    for other in (S, S.tocsr(), S.tocsc(), wide):
        assert np.abs(fit(other, 2).to_dense() - dense.to_dense()).max() < 1e-9


def test_namespaces_and_dtypes(put: Any, dtype: str) -> None:
    A, X = planted(m=16, n=12, k=1, oversampling=4)
    for reg in (0.0, 0.01):
        result = fit(put(X.astype(dtype)), 1, reg=reg, tol=1e-4, max_iter=30)
        assert to_host(result.row_factors).dtype == dtype
        assert result.converged
        assert distance(result, A) < (1e-3 if reg == 0 else 2e-2)


# --- edges ------------------------------------------------------------------------------------------------------------


def test_rows_and_columns_without_entries() -> None:
    """They have zeros for factors; predictions are zero, or what `on_unseen` says."""
    A, X = planted(oversampling=4)
    X[13], X[:, 21] = np.nan, np.nan
    for reg in (0.0, 1e-3):
        result = fit(X, reg=reg, tol=1e-7)
        assert result.status is Status.CONVERGED
        assert not result.row_factors[13].any()
        assert np.abs(result.col_factors[21]).max() <= 1e-12
        rest = np.ones(A.shape, bool)
        rest[13], rest[:, 21] = False, False
        assert np.abs((result.to_dense() - A)[rest]).max() < 0.05
        assert result.row_counts[13] == 0
        assert np.isnan(result.predict(13, 0, on_unseen="nan"))


def test_rank_above_the_count_of_a_row() -> None:
    A, X = planted(m=100, n=90, k=3, oversampling=5)
    X[4, 2:] = np.nan
    X[4, :2] = A[4, :2]
    result = fit(X, 3, tol=1e-8, max_iter=200)
    assert result.status is Status.RANK_DEFICIENT
    assert np.isfinite(result.to_dense()).all()
    others = np.arange(100) != 4
    assert np.linalg.norm((result.to_dense() - A)[others]) < 1e-5 * np.linalg.norm(A)
    assert np.abs((result.to_dense() - A)[4, :2]).max() < 1e-6
    assert fit(X, 3, tol=1e-8, reg=1e-6, max_iter=200).status is Status.CONVERGED


def test_constant_rows_and_zero_matrices() -> None:
    X = np.full((12, 10), 3.0)
    X[::3, ::2] = np.nan
    result = fit(X, 1, tol=1e-13)
    assert np.abs(result.to_dense() - 3.0).max() <= tolerance("float64", 120, 100)
    zero = fit(sp.csr_array((np.zeros(4), ([0, 1, 2, 3], [0, 1, 2, 3])), shape=(4, 4)), 1)
    assert not zero.to_dense().any()
    one = fit(np.array([[2.0]]), 1)
    assert one.to_dense()[0, 0] == pytest.approx(2.0)


def test_limits_callbacks_and_failures() -> None:
    _, X = planted()
    seen: list[CompletionStep] = []
    result = altmin_completion(
        X, 5, rng=0, callback=lambda step: seen.append(step) or step.n_iter == 3, on_failure="ignore"
    )
    assert [step.n_iter for step in seen] == [1, 2, 3]
    assert [step.objective for step in seen] == list(result.history)
    assert not result.converged
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not altmin_completion(X, 5, rng=0, max_iter=2).converged
    nothing = fit(X, max_iter=0)
    assert nothing.n_iter == 0
    assert not nothing.to_dense().any()
    assert nothing.status is Status.MAX_ITER
    huge = fit(1e200 * X)
    assert huge.status is Status.NONFINITE


def test_equal_keys_give_equal_results() -> None:
    _, X = planted(m=60, n=50, k=2)
    first, second = fit(X, 2, solver="sketch", rng=3), fit(X, 2, solver="sketch", rng=3)
    assert np.array_equal(first.row_factors, second.row_factors)


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, r"rank must be in \[1, 3\]", {"rank": 4}),
        (ValueError, r"rank must be in \[1, 3\]", {"rank": 0}),
        (TypeError, "rank must be an integer", {"rank": 1.5}),
        (ValueError, "reg must be finite and in", {"reg": -1.0}),
        (ValueError, "init must be one of", {"init": "zeros"}),
        (ValueError, "init must hold two factors", {"init": (np.ones((4, 2)),)}),
        (ValueError, "init must hold finite real factors", {"init": (np.ones((4, 2)), np.ones((4, 2)))}),
        (ValueError, "init must hold finite real factors", {"init": (np.full((4, 2), np.nan), np.ones((3, 2)))}),
        (ValueError, "clip must be finite and in", {"clip": 0.0}),
        (ValueError, "solver must be one of", {"solver": "lu"}),
        (ValueError, "preconditioner must be one of", {"preconditioner": "lu"}),
        (ValueError, 'inner_tol must be a number or "adaptive"', {"inner_tol": "loose"}),
        (ValueError, "inner_tol must be finite and in", {"inner_tol": 1.0}),
        (ValueError, "max_iter must be at least 0", {"max_iter": -1}),
        (ValueError, "tol must be finite and in", {"tol": -1.0}),
        (ValueError, "validation_fraction must be finite and in", {"validation_fraction": 1.0}),
        (ValueError, "n_iter_no_change must be at least 1", {"n_iter_no_change": 0}),
        (ValueError, "on_failure must be one of", {"on_failure": "no"}),
        (ValueError, "X must have observed entries", {"X": np.full((4, 3), np.nan)}),
        (ValueError, "X must have no infinite entry", {"X": np.full((4, 3), np.inf)}),
        (ValueError, "X must have finite stored entries", {"X": sp.csr_array(np.diag([np.nan, 1, 2]))}),
        (ValueError, "X must store each entry once", {"X": sp.coo_array((np.ones(2), ([0, 0], [1, 1])), shape=(4, 3))}),
        (ValueError, "X must have entries whose squares", {"X": np.full((4, 3), 1e-150)}),
        (TypeError, "X must be real", {"X": np.ones((4, 3)) * 1j}),
    ],
)
def test_bad_input(error: type, match: str, options: dict[str, Any]) -> None:
    given = {"X": np.arange(12.0).reshape(4, 3), "rank": 2, **options}
    with pytest.raises(error, match=match):
        altmin_completion(**given)


# --- factors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-1, 1e-6, 1e-12])
def test_relative_change_keeps_its_digits(size: float) -> None:
    """Also where the bases differ: the same product turned by a random matrix has no change."""
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((60, 4)), rng.standard_normal((50, 4))
    turn = rng.standard_normal((4, 4)) + 3 * np.eye(4)
    U0, V0 = U @ turn, V @ np.linalg.inv(turn).T
    assert relative_change(U, V, U0, V0) <= tolerance("float64", 200, 20)
    U1 = U + size * rng.standard_normal((60, 4))
    V1 = V + size * rng.standard_normal((50, 4))
    norm = np.linalg.norm(U1 @ V1.T)
    # the difference of the dense products has no digits left at 1e-12, so its terms are added up
    expected = np.linalg.norm((U1 - U) @ V1.T + U @ (V1 - V).T) / norm
    assert relative_change(U1, V1, U0, V0) == pytest.approx(expected, rel=1e-2)


def test_relative_change_of_nothing() -> None:
    zero, one = np.zeros((4, 2)), np.ones((4, 2))
    assert relative_change(zero, zero, zero, zero) == 0.0
    assert relative_change(zero, zero, one, one) == math.inf
    assert relative_change(one, one, zero, zero) == 1.0


@pytest.mark.parametrize("deficient", [False, True])
def test_balance_and_thin_qr_keep_products(deficient: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    U, V = (rng.standard_normal((side, 4)).astype(dtype) for side in (30, 20))
    if deficient:
        U[:, 3] = 0.0
    P, W = balanced(U, V)
    assert np.abs(P @ W.T - U @ V.T).max() <= tolerance(dtype, 30, 20)
    assert np.allclose(P.T @ P, W.T @ W, atol=tolerance(dtype, 30, 100))
    Q, R = thin_qr(U)
    assert Q.shape == U.shape
    assert np.abs(Q @ R - U).max() <= tolerance(dtype, 30, 10)
    assert np.abs(Q.T @ Q - np.eye(4)).max() <= tolerance(dtype, 30)
