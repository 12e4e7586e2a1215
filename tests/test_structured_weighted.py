"""Weighted low rank: exact for weights and metrics of rows and columns, monotone for weights of entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from randla._arrays import to_host
from randla._random import as_key
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.structured import weighted_low_rank, weighted_svd
from randla.structured.weighted import _Problem

from .conftest import tolerance


def matrix(m: int, n: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    return (A + 1j * rng.standard_normal((m, n)) if dtype.startswith("complex") else A).astype(dtype)


def metric(n: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    B = matrix(n, n, dtype, seed)
    return B @ B.conj().T + n * np.eye(n, dtype=dtype)


def truncated(A: np.ndarray, rank: int) -> np.ndarray:
    U, s, Vh = np.linalg.svd(A, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


def loss(A: np.ndarray, W: np.ndarray, X: np.ndarray) -> float:
    return float(np.sum(W * (A - X) ** 2))


# --- rows, columns, metrics -------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.integers(0, 3), st.booleans())
@settings(max_examples=80, deadline=None)
def test_error_is_the_tail_of_the_whitened_matrix(m: int, n: int, rank: int, sides: int, imaginary: bool) -> None:
    """For each combination of diagonal and dense metrics; F and H are orthonormal in them."""
    dtype = "complex128" if imaginary else "float64"
    rank, A = min(rank, m, n), matrix(m, n, dtype)
    rng = np.random.default_rng(1)
    w, c = rng.random(m) + 0.1, rng.random(n) + 0.1
    M, N = metric(m, dtype, 2), metric(n, dtype, 3)
    options: dict[str, Any] = [
        {"row_weights": w, "col_weights": c},
        {"row_metric": M, "col_metric": N},
        {"row_weights": w, "col_metric": N},
        {"row_metric": M},
    ][sides]
    left = np.diag(w) if "row_weights" in options else M
    right = np.diag(c) if "col_weights" in options else N if "col_metric" in options else np.eye(n)
    L, R = np.linalg.cholesky(left), np.linalg.cholesky(right)
    s = np.linalg.svd(L.conj().T @ A @ R, compute_uv=False)
    result = weighted_svd(A, rank, **options)
    tol = tolerance(dtype, m * n, 100)
    assert abs(result.error - np.linalg.norm(s[rank:]) / np.linalg.norm(s)) <= tol
    actual = np.linalg.norm(L.conj().T @ (A - result.to_dense()) @ R) / np.linalg.norm(s)
    assert abs(result.error - actual) <= tol
    assert np.abs(result.F.conj().T @ left @ result.F - np.eye(rank)).max(initial=0) <= tol
    assert np.abs(result.H.conj().T @ right @ result.H - np.eye(rank)).max(initial=0) <= tol
    assert result.error_kind == "exact"
    assert result.error_norm == "weighted"


def test_without_weights_it_is_the_svd() -> None:
    A = matrix(30, 20)
    assert np.abs(weighted_svd(A, 5).to_dense() - truncated(A, 5)).max() <= tolerance("float64", 600, 10)


def test_fisher_weights_beat_the_plain_svd_in_their_norm() -> None:
    """FWSVD: the row sums of squared gradients; in this norm no matrix of the rank is nearer."""
    rng = np.random.default_rng(0)
    A, fisher = matrix(50, 40), rng.exponential(size=(50, 1)) * rng.random((50, 40))
    d = fisher.sum(axis=1)
    result = weighted_svd(A, 5, row_weights=d)
    least = loss(A, d[:, None], result.to_dense())
    assert abs(least - (result.error * result.norm) ** 2) <= tolerance("float64", 2000, least)
    assert least < loss(A, d[:, None], truncated(A, 5))
    other = np.linalg.lstsq(result.F + 0.01 * matrix(50, 5, seed=1), A)[0]
    assert least < loss(A, d[:, None], (result.F + 0.01 * matrix(50, 5, seed=1)) @ other)


def test_zero_weights_are_raised_to_the_floor() -> None:
    A = matrix(10, 8)
    w = np.ones(10)
    w[:3] = 0.0
    result = weighted_svd(A, 8, row_weights=w)
    assert np.all(np.isfinite(result.to_dense()))
    assert np.abs(result.to_dense() - A).max() <= tolerance("float64", 80, 1e4)  # roots of the floor are divided by


def test_large_and_sparse_matrices_go_through_the_sketch() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((900, 6)), rng.standard_normal((6, 700))
    A = left @ right + 1e-3 * rng.standard_normal((900, 700))
    w, c = rng.random(900) + 0.1, rng.random(700) + 0.1
    exact = weighted_svd(A, 6, row_weights=w, col_weights=c, method="exact")
    found = weighted_svd(A, 6, row_weights=w, col_weights=c, rng=0)
    assert found.error_kind != "exact" or found.n_matvecs > 0
    assert np.linalg.norm(np.sqrt(w)[:, None] * (A - found.to_dense()) * np.sqrt(c)) <= 1.01 * exact.error * exact.norm
    S = sp.random_array((300, 200), density=0.1, rng=rng, format="csr")
    for container in (S, S.tocsc()):
        sparse = weighted_svd(container, 5, row_weights=w[:300], col_weights=c[:200], rng=0)
        dense = weighted_svd(S.toarray(), 5, row_weights=w[:300], col_weights=c[:200])
        assert abs(sparse.norm - dense.norm) <= tolerance("float64", 6000, dense.norm)
        assert sparse.error <= 1.02 * dense.error
        again = weighted_svd(container, 5, row_weights=w[:300], col_weights=c[:200], rng=0)
        assert np.array_equal(again.F, sparse.F)


def test_namespaces_and_dtypes_of_the_svd(put: Any, any_dtype: str) -> None:
    A, M = matrix(12, 9, any_dtype), metric(9)
    w = np.arange(1.0, 13)
    result = weighted_svd(put(A), 3, row_weights=put(w), col_metric=put(M))
    host = weighted_svd(A, 3, row_weights=w, col_metric=M)
    assert to_host(result.F).dtype == any_dtype
    assert np.abs(to_host(result.to_dense()) - host.to_dense()).max() <= tolerance(any_dtype, 108, 10)
    assert abs(result.error - host.error) <= tolerance(any_dtype, 108)


def test_nonfinite_matrix_of_the_svd() -> None:
    A = matrix(4, 3)
    A[0, 0] = np.inf
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        assert weighted_svd(A, 2).status is Status.NONFINITE
    with pytest.raises(ConvergenceError):
        weighted_svd(A, 2, on_failure="raise")


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, r"row_weights must have shape \(4,\)", {"row_weights": np.ones(3)}),
        (ValueError, "row_weights must be finite and nonnegative", {"row_weights": np.array([1, 1, 1, -1.0])}),
        (ValueError, "row_weights must be finite and nonnegative", {"row_weights": np.array([1, 1, 1, np.nan])}),
        (ValueError, "col_weights must have a positive entry", {"col_weights": np.zeros(3)}),
        (ValueError, "row_weights and row_metric must not both", {"row_weights": np.ones(4), "row_metric": np.eye(4)}),
        (ValueError, "row_metric must be symmetric positive definite", {"row_metric": -np.eye(4)}),
        (ValueError, "col_metric must be symmetric positive definite", {"col_metric": np.triu(np.ones((3, 3)))}),
        (ValueError, r"col_metric must have shape \(3, 3\)", {"col_metric": np.eye(4)}),
        (ValueError, "method must be one of", {"method": "fast"}),
        (ValueError, r"rank must be in \[0, 3\]", {"rank": 4}),
        (TypeError, "rank must be an integer", {"rank": 1.5}),
    ],
)
def test_bad_input_of_the_svd(error: type, match: str, options: dict) -> None:
    with pytest.raises(error, match=match):
        weighted_svd(matrix(4, 3), **{"rank": 2, **options})


def test_sparse_matrices_are_never_made_dense() -> None:
    A = sp.csr_array(np.eye(4))
    for options in ({"row_metric": np.eye(4)}, {"method": "exact"}):
        with pytest.raises(TypeError, match="A must be dense for metrics"):
            weighted_svd(A, 2, **options)


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_losses_on_random_weights(seed: int) -> None:
    """50 x 40, weights uniform squared, rank 5: plain 430, row sums 424; both iterations end a quarter lower."""
    rng = np.random.default_rng(seed)
    A, W = rng.standard_normal((50, 40)), rng.random((50, 40)) ** 2
    plain, rows = loss(A, W, truncated(A, 5)), loss(A, W, weighted_svd(A, 5, row_weights=W.sum(axis=1)).to_dense())
    assert 405 < plain < 455  # one draw of a sum of 2000 terms of mean 0.21; its deviation is below 10
    assert rows < 1.02 * plain
    losses = []
    for method in ("als", "em"):
        result = weighted_low_rank(A, W, 5, method=method, max_iter=4000, tol=1e-7)
        losses.append(loss(A, W, result.to_dense()))
        assert result.converged
        assert abs(losses[-1] - result.error**2 * np.sum(W * A * A)) <= tolerance("float64", 2000, losses[-1])
        assert losses[-1] < 0.75 * rows
    assert abs(losses[0] / losses[1] - 1) < 0.05  # two stationary points


@given(st.integers(2, 15), st.integers(2, 15), st.integers(1, 4), st.floats(0, 0.9), st.sampled_from(["als", "em"]))
@settings(max_examples=60, deadline=None)
def test_objectives_never_rise(m: int, n: int, rank: int, missing: float, method: str) -> None:
    rng = np.random.default_rng(m * 100 + n)
    A, W = rng.standard_normal((m, n)), rng.exponential(size=(m, n)) ** 2 * (rng.random((m, n)) > missing)
    result = weighted_low_rank(A, W, min(rank, m, n), method=method, max_iter=15, on_failure="ignore")
    assert np.all(np.diff(result.history) <= 0)
    assert len(result.history) == result.n_iter + 1
    problem = _Problem(A, W)  # what the steps do by themselves: nearly singular rows cost half of the digits
    U, V = problem.started(min(rank, m, n), "row-sum", as_key(0))
    for _ in range(15):
        before = problem.error(U, V)
        U, V = getattr(problem, method)(U, V)
        assert problem.error(U, V) <= before + 1e-10


@pytest.mark.parametrize("method", ["als", "em"])
def test_constant_weights_give_the_truncated_svd(method: str) -> None:
    A = matrix(30, 20)
    result = weighted_low_rank(A, np.full((30, 20), 2.5), 4, method=method, tol=0, max_iter=500, on_failure="ignore")
    assert np.abs(result.to_dense() - truncated(A, 4)).max() < 1e-6  # of a start that is there already
    start = matrix(30, 4, seed=5), matrix(20, 4, seed=6)
    other = weighted_low_rank(
        A, np.ones((30, 20)), 4, method=method, init=start, tol=1e-15, max_iter=5000, on_failure="ignore"
    )
    assert abs(other.error - result.error) < 1e-8  # from anywhere: without weights all minima are global
    s = np.linalg.svd(A, compute_uv=False)
    assert abs(result.error - np.linalg.norm(s[4:]) / np.linalg.norm(s)) <= tolerance("float64", 600)


@pytest.mark.parametrize("method", ["als", "em"])
def test_row_sum_start_is_the_optimum_for_weights_of_rank_one(method: str) -> None:
    A, d = matrix(25, 20), np.random.default_rng(1).random(25) + 0.1
    result = weighted_low_rank(A, np.outer(d, np.ones(20)), 4, method=method, tol=1e-10)
    exact = weighted_svd(A, 4, row_weights=d)
    assert result.n_iter <= 2
    assert abs(result.error - exact.error) <= tolerance("float64", 500)


def test_hidden_entries_are_recovered_and_not_read() -> None:
    """Half of a matrix of rank 3, NaN where it is hidden; dense and sparse weights agree."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))
    W = (rng.random((60, 50)) < 0.5).astype(float)
    seen = np.where(W > 0, A, np.nan)
    result = weighted_low_rank(seen, W, 3, tol=1e-9, max_iter=2000)
    assert np.linalg.norm(result.to_dense() - A) < 1e-3 * np.linalg.norm(A)
    assert result.error < 1e-4
    sparse = weighted_low_rank(sp.csr_array(np.where(W > 0, A, 0)), sp.csr_array(W), 3, tol=1e-9, max_iter=2000)
    mixed = weighted_low_rank(seen, sp.csc_array(W), 3, tol=1e-9, max_iter=2000)
    for other in (sparse, mixed):
        assert np.linalg.norm(other.to_dense() - A) < 1e-3 * np.linalg.norm(A)
    assert sparse.status is Status.CONVERGED


def test_stored_zeros_of_a_are_values_where_they_have_weight() -> None:
    A = np.zeros((6, 5))
    A[:, 0] = 1.0
    W = np.ones((6, 5))
    result = weighted_low_rank(sp.csr_array(A), sp.csr_array(W), 1)
    assert np.abs(result.to_dense() - A).max() <= tolerance("float64", 30)


def test_rows_without_weight_and_zero_weights() -> None:
    A, W = matrix(8, 6), np.ones((8, 6))
    W[3] = 0.0
    W[:, 2] = 0.0
    result = weighted_low_rank(A, W, 2)
    assert np.all(np.isfinite(result.to_dense()))
    for method in ("als", "em"):
        zero = weighted_low_rank(A, np.zeros((8, 6)), 2, method=method)
        assert zero.error == 0.0
        assert np.all(np.isfinite(zero.to_dense()))


def test_scales_do_not_matter() -> None:
    A, W = matrix(12, 10), np.random.default_rng(1).random((12, 10))
    base = weighted_low_rank(A, W, 3)
    scaled = weighted_low_rank(1e20 * A, 1e-20 * W, 3)
    assert abs(scaled.error - base.error) <= 1e-5  # the pull is relative; the stopping test may fall otherwise


@pytest.mark.parametrize("method", ["als", "em"])
def test_namespaces_and_dtypes_of_entries(put: Any, dtype: str, method: str) -> None:
    A, W = matrix(15, 12, dtype), np.random.default_rng(1).random((15, 12)).astype(dtype)
    result = weighted_low_rank(put(A), put(W), 3, method=method, max_iter=20, on_failure="ignore")
    host = weighted_low_rank(A, W, 3, method=method, max_iter=20, on_failure="ignore")
    assert to_host(result.F).dtype == dtype
    assert result.n_iter == host.n_iter
    assert abs(result.error - host.error) <= tolerance(dtype, 180)
    assert np.abs(to_host(result.to_dense()) - host.to_dense()).max() <= tolerance(dtype, 180, 100)


def test_limits_and_failures() -> None:
    A, W = matrix(20, 15), np.random.default_rng(1).random((20, 15)) ** 4
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = weighted_low_rank(A, W, 4, max_iter=2, tol=1e-12)
    assert not result.converged
    assert result.n_iter == 2
    start = weighted_low_rank(A, W, 4, max_iter=0, on_failure="ignore")
    expected = weighted_svd(A, 4, row_weights=W.sum(axis=1)).to_dense()
    assert np.allclose(start.to_dense(), expected)
    A[0, 0] = np.nan
    with pytest.raises(ConvergenceError, match="NONFINITE"):
        weighted_low_rank(A, W, 4, on_failure="raise")


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    [
        (ValueError, "W must have the shape of A", (np.ones((3, 2)), np.ones((2, 3)), 1), {}),
        (ValueError, "W must be nonnegative", (np.ones((2, 2)), -np.ones((2, 2)), 1), {}),
        (ValueError, "W must be nonnegative", (np.ones((2, 2)), np.full((2, 2), np.nan), 1), {}),
        (ValueError, r"rank must be in \[1, 2\]", (np.ones((2, 2)), np.ones((2, 2)), 3), {}),
        (ValueError, "method must be one of", (np.ones((2, 2)), np.ones((2, 2)), 1), {"method": "gd"}),
        (ValueError, "init must be one of", (np.ones((2, 2)), np.ones((2, 2)), 1), {"init": "random"}),
        (ValueError, "init must hold factors", (np.ones((2, 2)), np.ones((2, 2)), 1), {"init": (np.ones((2, 2)),) * 2}),
        (NotImplementedError, "A and W must be real", (np.ones((2, 2)) * 1j, np.ones((2, 2)), 1), {}),
        (NotImplementedError, "W must be dense", (np.eye(2), sp.csr_array(np.eye(2)), 1), {"method": "em"}),
        (TypeError, "A must be dense beside a dense W", (sp.csr_array(np.eye(2)), np.eye(2), 1), {}),
        (ValueError, "tol must be finite and in", (np.eye(2), np.eye(2), 1), {"tol": -1.0}),
        (ValueError, "A must have rows and columns", (np.ones((0, 2)), np.ones((0, 2)), 1), {}),
    ],
)
def test_bad_input_of_entries(error: type, match: str, arguments: tuple, options: dict) -> None:
    with pytest.raises(error, match=match):
        weighted_low_rank(*arguments, **options)
