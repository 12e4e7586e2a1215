"""l_p sensitivities: the linear program, all sandwich inequalities, proved gaps, buckets, and what must fail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.sparse.linalg import aslinearoperator

from randla import RowBlocks, Status
from randla._arrays import to_host
from randla._results import ConvergenceWarning
from randla.sampling import leverage_scores, lewis_weights, lp_sensitivities, total_sensitivity
from randla.sampling.extremal import TOLERANCE, Pairs, least_norms

from .conftest import tolerance
from .statistics import chebyshev

EXPONENTS = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]

#: Two solutions within the proved gap of one optimum differ by no more.
GAP = 2 * TOLERANCE


def heavy_tailed(m: int = 150, n: int = 4, *, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_t(1.5, size=(m, n)).astype(dtype)


def orthonormal(A: np.ndarray) -> np.ndarray:
    return np.linalg.qr(A)[0]


def by_linear_program(A: np.ndarray, i: int) -> float:
    """1 / min ||A x||_1 with a_i^T x = 1, by HiGHS: minimise t1 + ... + tm with -t <= A x <= t."""
    m, n = A.shape
    eye = sp.eye_array(m)
    sides = sp.block_array([[sp.csr_array(A), -eye], [sp.csr_array(-A), -eye]]).tocsr()
    solution = linprog(
        np.r_[np.zeros(n), np.ones(m)], A_ub=sides, b_ub=np.zeros(2 * m), A_eq=np.r_[A[i], np.zeros(m)][None],
        b_eq=[1.0], bounds=[(None, None)] * (n + m), method="highs",
    )  # fmt: skip
    assert solution.status == 0
    return 1.0 / solution.fun


# --- exact sensitivities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["student", "normal", "cauchy"])
def test_one_norm_against_the_linear_program(kind: str) -> None:
    rng = np.random.default_rng(0)
    draw = {
        "student": lambda s: rng.standard_t(1.5, size=s),
        "normal": rng.standard_normal,
        "cauchy": rng.standard_cauchy,
    }
    A = orthonormal(draw[kind]((200, 5)))
    scores = lp_sensitivities(A, 1.0, method="exact", rng=0)
    for i in range(0, 200, 10):
        # HiGHS stops at 1e-7 of feasibility, absolutely; the rows have entries of order 0.01
        assert scores[i] == pytest.approx(by_linear_program(A, i), rel=1e-5)


@pytest.mark.parametrize("p", [1.5, 3.0, 5.0])
def test_other_norms_against_a_general_solver(p: float) -> None:
    A = orthonormal(np.random.default_rng(1).standard_normal((30, 3)))
    scores = lp_sensitivities(A, p, method="exact", rng=0)
    for i in range(0, 30, 5):
        # x = particular + null-space part, so that no constraint is left
        base, free = A[i] / (A[i] @ A[i]), np.linalg.svd(A[i][None])[2][1:].T
        found = minimize(lambda y: np.sum(np.abs(A @ (base + free @ y)) ** p), np.zeros(2), method="BFGS", tol=1e-12)  # noqa: B023
        assert 1.0 / scores[i] <= found.fun * (1 + GAP)
        assert scores[i] == pytest.approx(1.0 / found.fun, rel=1e-6)


@pytest.mark.parametrize("p", EXPONENTS)
def test_gaps_are_closed_and_bounds_are_ordered(p: float) -> None:
    B = orthonormal(heavy_tailed())
    solved = least_norms(B, B, p)
    assert np.all(solved.proved <= solved.reached * (1 + tolerance("float64", B.size)))
    assert np.max(solved.gaps) <= TOLERANCE
    np.testing.assert_allclose(solved.scores, 1 / solved.reached, rtol=0)


@pytest.mark.parametrize("p", [1.0, 1.5, 4.0])
def test_no_direction_beats_the_sensitivity(p: float, generator: np.random.Generator) -> None:
    A = heavy_tailed()
    scores = lp_sensitivities(A, p, method="exact", rng=0)
    R = np.linalg.qr(A)[1]
    X = np.linalg.solve(R, np.concatenate([generator.standard_normal((4, 3000)), orthonormal(A).T], axis=1))
    shares = np.abs(A @ X) ** p
    shares /= shares.sum(axis=0)
    assert np.all(shares.max(axis=1) <= scores * (1 + GAP))
    assert np.max(shares.max(axis=1) / scores) > 0.9  # the search is not vacuous


def test_two_gives_leverage_scores(dtype: str) -> None:
    A = heavy_tailed(dtype=dtype)
    scores = lp_sensitivities(A, 2.0, method="exact", rng=0)
    assert scores.dtype == A.dtype
    np.testing.assert_allclose(scores, leverage_scores(A, rng=0), rtol=GAP + tolerance(dtype, A.size))


@pytest.mark.parametrize("p", [1.0, 1.5, 4.0])
def test_a_row_repeated_t_times_has_a_t_th(p: float) -> None:
    A = heavy_tailed(60, 3)
    scores = lp_sensitivities(A, p, method="exact", rng=0)
    copies = np.concatenate([A, A, A])
    np.testing.assert_allclose(lp_sensitivities(copies, p, method="exact", rng=0)[:60], scores / 3, rtol=GAP)
    # a single row repeated: the share it had alone is divided among its copies
    one = np.concatenate([A, A[7:8], A[7:8]])
    again = lp_sensitivities(one, p, method="exact", rng=0)
    assert again[7] == pytest.approx(again[60], rel=GAP)
    alone = 1 / scores[7] - 1  # what the other rows hold at least, where the row has 1
    assert again[7] == pytest.approx(1 / (3 + alone), rel=GAP)


@pytest.mark.parametrize("method", ["exact", "bounds"])
@pytest.mark.parametrize("p", [1.0, 1.5, 4.0])
def test_invariances(p: float, method: str, generator: np.random.Generator) -> None:
    A = heavy_tailed(90, 3)
    scores = lp_sensitivities(A, p, method=method, rng=0)
    basis = generator.standard_normal((3, 3)) @ np.diag([1e-3, 1.0, 1e3])
    moved = lp_sensitivities(1e20 * A @ basis, p, method=method, rng=0)
    np.testing.assert_allclose(moved, scores, rtol=GAP + tolerance("float64", A.size, np.linalg.cond(basis)))
    order = generator.permutation(90)
    np.testing.assert_allclose(lp_sensitivities(A[order], p, method=method, rng=0), scores[order], rtol=GAP)


@settings(max_examples=20, deadline=None)
@given(m=st.integers(3, 40), n=st.integers(1, 3), p=st.just(1.0) | st.floats(1.1, 6.0), seed=st.integers(0, 2**16))
def test_zero_rows_and_deficient_columns(m: int, n: int, p: float, seed: int) -> None:
    A = np.random.default_rng(seed).standard_normal((m, n))
    scores = lp_sensitivities(A, p, method="exact", rng=0)
    assert np.all((scores > 0) & (scores <= 1))
    wide = np.zeros((m + 2, n + 1))
    wide[1:-1, :n], wide[1:-1, n] = A, A.sum(axis=1)
    for method in ("exact", "bounds", "sampled", "buckets"):
        again = lp_sensitivities(wide, p, method=method, rng=0)
        if method != "buckets":  # which gives its whole bucket one score
            assert again[0] == again[-1] == 0
        if method == "exact":
            np.testing.assert_allclose(again[1:-1], scores, rtol=GAP)


# --- the sandwich inequalities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("seed", range(3))
def test_sandwich_of_leverage_scores(p: float, seed: int) -> None:
    """p <= 2: m^(p/2-1) tau^(p/2) <= sigma <= tau^(p/2); p >= 2: tau^(p/2) <= sigma <= m^(p/2-1) tau^(p/2)."""
    A = heavy_tailed(seed=seed)
    scores, root = lp_sensitivities(A, p, method="exact", rng=0), leverage_scores(A, rng=0) ** (p / 2)
    ends = sorted([root, 150 ** (p / 2 - 1) * root], key=lambda bound: float(bound.sum()))
    assert np.all(ends[0] <= scores * (1 + GAP))
    assert np.all(scores <= ends[1] * (1 + GAP))


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("seed", range(3))
def test_sandwich_of_lewis_weights(p: float, seed: int) -> None:
    """p <= 2: sigma <= w <= n^(1-p/2) sigma; p >= 2: sigma <= n^(p/2-1) w."""
    A = heavy_tailed(seed=seed)
    scores, w = lp_sensitivities(A, p, method="exact", rng=0), lewis_weights(A, p, tol=1e-9, one_sided=False, rng=0)
    slack = 1 + GAP + 1e-8
    if p <= 2:
        assert np.all(scores <= w * slack)
        assert np.all(w <= 4 ** (1 - p / 2) * scores * slack)
        assert scores.sum() <= 4 * slack
    else:
        assert np.all(scores <= 4 ** (p / 2 - 1) * w * slack)
        assert scores.sum() <= 4 ** (p / 2) * slack


@pytest.mark.parametrize("p", [*EXPONENTS, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_and_are_the_sharpest_known(p: float, seed: int) -> None:
    A = heavy_tailed(seed=seed)
    scores, bounds = (lp_sensitivities(A, p, method=method, rng=0) for method in ("exact", "bounds"))
    rounding = 1 + tolerance("float64", A.size, 1e2)
    assert np.all(scores <= bounds * rounding)
    assert np.all(bounds <= 1)
    root = leverage_scores(A, rng=0) ** (p / 2)
    assert np.all(bounds <= np.maximum(1.0, 150 ** (p / 2 - 1)) * root * rounding)
    if p <= 2:
        w = lewis_weights(A, p, tol=1e-9, rng=0)
        assert np.max(bounds / w) <= 1.1  # what five steps leave
        assert bounds.sum() <= 1.1 * 4


# --- samples and buckets ----------------------------------------------------------------------------------------------


def test_buckets_are_above() -> None:
    """The sample has 20 n^2 = 320 rows, so that A does not stand for itself."""
    A = heavy_tailed(400, 4)
    for p in (1.0, 1.5):
        scores = lp_sensitivities(A, p, method="exact", rng=0)
        buckets = lp_sensitivities(A, p, method="buckets", bucket_size=10, rng=0)
        sampled = lp_sensitivities(A, p, method="sampled", rng=0)
        assert np.max(np.abs(np.log(sampled / scores))) <= math.log(2)
        # each row is missed with probability 1/m**2 against the sample, whose rows are within a factor of 2
        assert np.mean(buckets >= sampled * (1 - GAP)) >= 0.99
        excess = (buckets - scores) / (10 / 400 * scores.sum())
        assert np.median(excess) <= 1.0
        assert np.max(excess) <= 3.0


def test_buckets_of_one_row_are_exact() -> None:
    A = heavy_tailed(100, 3)  # fewer rows than the sample would have, so A stands for itself
    for p in (1.0, 3.0):
        scores = lp_sensitivities(A, p, method="exact", rng=0)
        for other in ("sampled", "buckets"):
            size = 1 if other == "buckets" else None
            np.testing.assert_allclose(lp_sensitivities(A, p, method=other, bucket_size=size, rng=0), scores, rtol=GAP)


def test_buckets_never_exceed_their_rows() -> None:
    """p = 1: the sensitivity of a combination is at most the sum of those of the rows in it."""
    A = heavy_tailed(64, 3)
    scores = lp_sensitivities(A, 1.0, method="exact", rng=0)
    whole = lp_sensitivities(A, 1.0, method="buckets", bucket_size=64, rng=0)
    assert np.all(whole <= min(1.0, scores.sum()) * (1 + GAP))
    assert np.all(whole >= scores * (1 - GAP))


def test_auto_and_keys() -> None:
    small, large = heavy_tailed(100, 3), heavy_tailed(8000, 3)
    assert np.array_equal(lp_sensitivities(small, 1.0, rng=0), lp_sensitivities(small, 1.0, method="exact", rng=0))
    assert np.array_equal(lp_sensitivities(large, 1.0, rng=0), lp_sensitivities(large, 1.0, method="bounds", rng=0))
    A = heavy_tailed(600, 4)
    draws = [lp_sensitivities(A, 1.5, method="buckets", rng=seed) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


# --- the sum ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 1.5, 4.0])
def test_total_sensitivity_is_unbiased(p: float, seed: int) -> None:
    A = heavy_tailed(300, 4)
    scores = lp_sensitivities(A, p, method="exact", rng=0)
    estimates = [total_sensitivity(A, p, n_rows=20, rng=key) for key in range(seed, seed + 40)]
    w = lewis_weights(A, p, one_sided=False, rng=0)
    terms = scores * w.sum() / w
    variance = float(np.sum(w / w.sum() * (terms - scores.sum()) ** 2)) / 20
    mean = np.mean([estimate.value for estimate in estimates])
    assert abs(mean - scores.sum()) <= chebyshev(40, variance) + GAP * scores.sum()
    errors = np.array([estimate.stderr for estimate in estimates])
    assert 0.3 * variance**0.5 <= np.median(errors) <= 3 * variance**0.5
    assert all(estimate.n_rows == 20 and estimate.status is Status.CONVERGED for estimate in estimates)


def test_total_sensitivity_by_default() -> None:
    A = heavy_tailed(300, 4)
    truth = lp_sensitivities(A, 1.0, method="exact", rng=0).sum()
    estimate = total_sensitivity(A, 1.0, rng=0)
    assert estimate.n_rows == 16
    value, stderr = estimate
    assert abs(value - truth) <= 8 * stderr
    assert stderr <= (4 - 4**0.5) / 2 / 15**0.5  # Popoviciu: terms lie in [n^(p/2), n]
    every = total_sensitivity(A, 1.0, n_rows=300, rng=0)
    assert every.value == pytest.approx(truth, rel=GAP)
    assert every.stderr == 0
    assert "TotalSensitivity(value=" in repr(every)
    empty = total_sensitivity(np.zeros((5, 2)), 1.0)
    assert (empty.value, empty.stderr, empty.n_rows) == (0.0, 0.0, 0)


# --- kinds of matrices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "bounds", "sampled", "buckets"])
@pytest.mark.parametrize("p", [1.0, 3.0])
def test_storage_and_namespaces(xp: Any, put: Any, p: float, method: str) -> None:
    A = sp.random_array((260, 3), density=0.6, rng=np.random.default_rng(0), format="csr")
    dense = A.toarray()
    scores = lp_sensitivities(dense, p, method=method, rng=0)
    rtol = GAP + tolerance("float64", A.nnz, 1e2)
    np.testing.assert_allclose(to_host(lp_sensitivities(put(dense), p, method=method, rng=0)), scores, rtol=rtol)
    for other in (A, A.tocsc(), np.asfortranarray(dense), RowBlocks.from_array(dense, block_bytes=2**10)):
        np.testing.assert_allclose(lp_sensitivities(other, p, method=method, rng=0), scores, rtol=rtol)
    value = total_sensitivity(put(dense), p, rng=0).value
    assert value == pytest.approx(total_sensitivity(dense, p, rng=0).value, rel=GAP)


def test_weighted_gram_matrices(generator: np.random.Generator) -> None:
    B, W = generator.standard_normal((1000, 5)), generator.random((1000, 3))
    grams = Pairs(B).grams(W)
    for j in range(3):
        np.testing.assert_allclose(grams[j], B.T @ (W[:, j : j + 1] * B), rtol=0, atol=tolerance("float64", 1000, 1000))


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (4, 2)])
@pytest.mark.parametrize("method", ["auto", "exact", "bounds", "buckets"])
def test_nothing_to_score(shape: tuple[int, int], method: str) -> None:
    scores = lp_sensitivities(np.zeros(shape), 1.0, method=method)
    assert scores.shape == (shape[0],)
    assert not scores.any()


# --- what must fail ---------------------------------------------------------------------------------------------------


def test_open_gaps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    A = heavy_tailed()
    truth = lp_sensitivities(A, 4.0, method="exact", rng=0)
    monkeypatch.setattr("randla.sampling.extremal._MAX_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match="problems with a relative gap above 1e-06, the largest"):
        scores = lp_sensitivities(A, 4.0, method="exact", rng=0)
    assert np.all(scores >= truth * (1 - GAP))  # the upper ends of the gaps
    with pytest.warns(ConvergenceWarning, match="relative gap"):
        assert total_sensitivity(A, 4.0, rng=0).status is Status.MAX_ITER


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "p must be finite and in", {"p": 0.9}),
        (ValueError, "p must be finite and in", {"p": math.inf}),
        (ValueError, "method must be one of", {"method": "newton"}),
        (ValueError, "bucket_size must be None for method='exact'", {"method": "exact", "bucket_size": 3}),
        (ValueError, "bucket_size must be in", {"method": "buckets", "bucket_size": 31}),
        (TypeError, "bucket_size must be an integer", {"method": "buckets", "bucket_size": 2.0}),
        (ValueError, "A must be real", {"A": np.ones((4, 2)) + 1j}),
        (ValueError, "A must be finite", {"A": np.array([[1.0, np.inf], [2.0, 3.0]])}),
        (TypeError, "A must have rows that can be read", {"A": aslinearoperator(np.ones((4, 2)))}),
    ],
)
def test_bad_input(error: type[Exception], message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        lp_sensitivities(**{"A": heavy_tailed(30, 3), "p": 1.0, **arguments})
    if not {"method", "bucket_size"} & arguments.keys():
        with pytest.raises(error, match=message):
            total_sensitivity(**{"A": heavy_tailed(30, 3), "p": 1.0, **arguments})


def test_bad_number_of_rows() -> None:
    with pytest.raises(ValueError, match="n_rows must be at least 2"):
        total_sensitivity(heavy_tailed(), 1.0, n_rows=1)
