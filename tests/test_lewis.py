"""Lewis weights: the equation that defines them, invariances, one-sided averages, and problems that must fail."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from randla import RowBlocks
from randla._arrays import eps, to_host
from randla._random import as_key
from randla._results import ConvergenceWarning
from randla.sampling import leverage_scores, lewis_weights
from randla.sampling.lewis import Rows, lewis_steps

from .conftest import tolerance

EXPONENTS = [1.0, 1.5, 2.0, 2.5, 3.0, 3.9, 4.0, 6.0]


def heavy_tailed(m: int = 400, n: int = 5, *, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_t(1.5, size=(m, n)).astype(dtype)


def leverage(A: np.ndarray) -> np.ndarray:
    """By Householder QR in double precision."""
    Q = np.linalg.qr(A.astype(np.float64))[0]
    return np.sum(Q * Q, axis=1)


def weighted_leverage(A: np.ndarray, w: np.ndarray, p: float) -> np.ndarray:
    """``tau(W**(1/2 - 1/p) A)``."""
    return leverage(A * w[:, None] ** (0.5 - 1.0 / p))


def overshoot(A: np.ndarray, w: np.ndarray, p: float) -> float:
    """max tau / w - 1, from lengths of unscaled rows so that no weight is too small for it."""
    power = 1.0 - 2.0 / p
    T = np.linalg.inv(np.linalg.qr(A)[1])
    for _ in range(4):
        Y = (A @ T) * w[:, None] ** (power / 2)
        T = T @ np.linalg.inv(np.linalg.qr(Y)[1])
    return float(np.max(np.sum((A @ T) ** 2, axis=1) * w ** (power - 1.0)) - 1.0)


# --- the defining equation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", EXPONENTS)
def test_fixed_point(p: float) -> None:
    A, tol = heavy_tailed(), 1e-9
    w = lewis_weights(A, p, tol=tol, rng=0)
    assert np.all(w > 0)
    assert np.isclose(w.sum(), 5, rtol=tolerance(A.dtype, w.size))
    # an error of tol in all logarithms shows in tau by the factor |1 - 2/p| of the exponent, at most 1 here
    assert np.max(np.abs(weighted_leverage(A, w, p) / w - 1)) <= 2 * tol + tolerance(A.dtype, A.size, 1e3)


@pytest.mark.parametrize("p", [1.5, 2.5, 3.0, 3.5])
def test_both_maps_have_one_fixed_point(p: float) -> None:
    A, tol = heavy_tailed(), 1e-9
    first, second = (lewis_weights(A, p, tol=tol, method=method, rng=0) for method in ("cohen-peng", "leverage"))
    assert np.max(np.abs(np.log(first / second))) <= 4 * tol


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_error_estimate_is_a_bound_for_the_contraction(p: float) -> None:
    A = heavy_tailed()
    truth = lewis_weights(A, p, tol=1e-12, method="cohen-peng", rng=0)
    for tol in (1e-1, 1e-3, 1e-6):
        w = lewis_weights(A, p, tol=tol, method="cohen-peng", rng=0)
        # scaling to the sum of the rank moves all logarithms once more by at most the error
        assert np.max(np.abs(np.log(w / truth))) <= 2 * tol


def test_two_gives_leverage_scores(dtype: str) -> None:
    A = heavy_tailed(dtype=dtype)
    w = lewis_weights(A, 2.0, rng=0)
    assert w.dtype == A.dtype
    assert np.max(np.abs(w / leverage(A) - 1)) <= tolerance(dtype, A.size)
    np.testing.assert_allclose(w, leverage_scores(A, rng=0), rtol=tolerance(dtype, A.size))


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_five_steps_are_as_near_as_documented(p: float) -> None:
    A = heavy_tailed(2000, 6)
    truth = lewis_weights(A, p, tol=1e-10, rng=0)
    most = {1.0: 0.006, 1.5: 0.001, 3.0: 0.09}[p]
    assert np.max(np.abs(lewis_weights(A, p, rng=0) / truth - 1)) <= most


def test_one_step_is_root_leverage() -> None:
    A = heavy_tailed()
    root = leverage(A) ** 0.5
    np.testing.assert_allclose(lewis_weights(A, 1.0, max_iter=1, rng=0), 5 * root / root.sum(), rtol=1e-10)


def test_weights_are_those_of_the_steps() -> None:
    """The public function is the last step, scaled; each step is the map applied to the weights before it."""
    A, p = heavy_tailed(), 3.0
    steps = lewis_steps(Rows(A, as_key(0)), p, leverage_map=True)
    first, second = next(steps), next(steps)
    assert np.array_equal(second.old, first.new)
    np.testing.assert_allclose(np.exp(first.old), 5 / 400, rtol=1e-14)
    np.testing.assert_allclose(np.exp(second.new), weighted_leverage(A, np.exp(second.old), p), rtol=1e-10)
    np.testing.assert_allclose(lewis_weights(A, p, max_iter=2, rng=0), np.exp(second.new), rtol=1e-10)


# --- averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [6.0, 10.0, 20.0, 50.0])
def test_one_sided_weights(p: float) -> None:
    A = heavy_tailed(2000, 6)
    for max_iter, most in ((5, 0.10), (10, 0.03), (30, 0.01)):
        w = lewis_weights(A, p, max_iter=max_iter, one_sided=True, rng=0)
        assert np.isclose(w.sum(), 6, rtol=tolerance(A.dtype, w.size))
        # proved: (largest growth over the latest half of the steps, at most m / rank)**(1 / steps)
        assert overshoot(A, w, p) <= min(most, (2000 / 6) ** (2 / max_iter) - 1)


@pytest.mark.parametrize("p", [2.0, 3.0, 8.0, 30.0])
def test_one_sided_tolerance_is_kept(p: float) -> None:
    A = heavy_tailed(600, 4, seed=1)
    for tol in (0.2, 0.02):
        w = lewis_weights(A, p, tol=tol, one_sided=True, rng=0)
        assert overshoot(A, w, p) <= tol + tolerance(A.dtype, A.size, 1e3)


def test_averages_are_the_default_for_large_p_only() -> None:
    A = heavy_tailed()
    for p, average in ((6.0, False), (6.1, True)):
        default = lewis_weights(A, p, rng=0)
        assert np.array_equal(default, lewis_weights(A, p, one_sided=average, rng=0))
        assert not np.allclose(default, lewis_weights(A, p, one_sided=not average, rng=0))


def test_weights_below_the_range_of_squares() -> None:
    """Weights of 1e-140 neither stop the iteration nor spoil the others."""
    A = np.random.default_rng(0).standard_cauchy((600, 4))
    steps = lewis_steps(Rows(A, as_key(0)), 50.0, leverage_map=True)
    step = [next(steps) for _ in range(60)][-1]
    assert float(np.min(step.new)) < -320
    assert np.isclose(np.exp(step.new).sum(), 4, rtol=tolerance("float64", 600, 10))
    # at the fixed point log q = (2/p) log w; the part of it above the fixed point is what one-sidedness bounds
    assert np.max(step.log_q - (2 / 50.0) * step.old) <= 0.02


# --- invariances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 1.7, 4.0, 9.0])
def test_a_change_of_basis_changes_nothing(p: float, generator: np.random.Generator) -> None:
    A = heavy_tailed()
    B = generator.standard_normal((5, 5)) @ np.diag([1e-4, 1e-2, 1.0, 1e2, 1e4])
    condition = np.linalg.cond(B)
    w, moved = lewis_weights(A, p, rng=0), lewis_weights(A @ B, p, rng=1)
    np.testing.assert_allclose(moved, w, rtol=tolerance("float64", A.size, condition))


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(6, 60), n=st.integers(1, 5), p=st.floats(1.0, 12.0), seed=st.integers(0, 2**16),
    exponent=st.integers(-20, 20),
)  # fmt: skip
def test_permuted_scaled_and_zero_rows(m: int, n: int, p: float, seed: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    w = lewis_weights(A, p, rng=0)
    order = rng.permutation(m)
    with_zeros = np.zeros((m + 3, n))
    with_zeros[1 : m + 1] = A[order] * 10.0**exponent
    # the start is uniform over all rows, those of zeros too, so finite iterates agree only where it does not matter
    again = lewis_weights(with_zeros, p, rng=1)
    assert np.all(again[[0, m + 1, m + 2]] == 0)
    assert np.isclose(again.sum(), n, rtol=tolerance("float64", m))
    if p <= 6.0 and not 3.9 < p < 4.1:
        w, again = (lewis_weights(M, p, tol=1e-8, max_iter=3000, one_sided=False, rng=2) for M in (A, with_zeros))
        np.testing.assert_allclose(again[1 : m + 1], w[order], rtol=1e-6)


@pytest.mark.parametrize("p", [1.0, 3.0])
def test_duplicates_share_a_weight(p: float) -> None:
    A = heavy_tailed(50, 3)
    w = lewis_weights(A, p, tol=1e-10, rng=0)
    twice = lewis_weights(np.concatenate([A, A]), p, tol=1e-10, rng=0)
    np.testing.assert_allclose(twice, np.concatenate([w, w]) / 2, rtol=1e-8)


@pytest.mark.parametrize("p", [1.0, 4.0])
def test_rank_deficient(p: float) -> None:
    A = heavy_tailed(200, 3)
    wide = np.concatenate([A, A @ np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), np.zeros((200, 1))], axis=1)
    np.testing.assert_allclose(lewis_weights(wide, p, rng=0), lewis_weights(A, p, rng=0), rtol=1e-8)
    np.testing.assert_allclose(lewis_weights(A[:2], p, rng=0), 1.0, rtol=1e-10)


def test_ill_conditioned(dtype: str) -> None:
    """A condition number near 1 / eps loses digits in proportion, not all of them."""
    A = heavy_tailed(500, 6)
    w = lewis_weights(A, 1.0, rng=0)
    condition = 1e10 if dtype == "float64" else 1e3
    bad = (A @ np.diag(np.logspace(0, -math.log10(condition), 6)) @ np.linalg.qr(A[:6])[0]).astype(dtype)
    np.testing.assert_allclose(lewis_weights(bad, 1.0, rng=0), w, rtol=8 * eps(dtype) * 500**0.5 * condition)


# --- kinds of matrices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 3.0, 8.0])
def test_storage_does_not_matter(p: float) -> None:
    A = sp.random_array((700, 6), density=0.4, rng=np.random.default_rng(0), format="csr")
    dense = A.toarray()
    w = lewis_weights(dense, p, rng=0)
    blocks = RowBlocks.from_array(dense, block_bytes=2**12)
    kinds: tuple[Any, ...] = (A, A.tocsc(), A.tocoo(), np.asfortranarray(dense), dense[::1, ::-1][:, ::-1], blocks)
    for other in kinds:
        np.testing.assert_allclose(
            lewis_weights(other, p, rng=0), w, rtol=tolerance("float64", A.nnz, 1e2), atol=1e-300
        )
    whole = np.round(100 * dense).astype(np.int16)
    assert lewis_weights(whole, p, rng=0).dtype == np.float64


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    A = heavy_tailed(3000, 4)
    w = lewis_weights(A, 1.0, rng=0)
    monkeypatch.setattr("randla.triangular._BLOCK_ENTRIES", 1000)
    np.testing.assert_allclose(lewis_weights(A, 1.0, rng=0), w, rtol=tolerance("float64", A.size, 1e2))


@pytest.mark.parametrize("p", [1.0, 3.0, 8.0])
def test_namespaces(xp: Any, put: Any, p: float) -> None:
    A = heavy_tailed(300, 4)
    w = lewis_weights(put(A), p, rng=0)
    assert type(w) is type(put(A))
    np.testing.assert_allclose(to_host(w), lewis_weights(A, p, rng=0), rtol=tolerance("float64", A.size, 1e2))
    if xp is array_api_strict:
        assert w.device == xp.Device("device1")


def test_input_stays_as_it_was_and_keys_do_not_matter() -> None:
    A = heavy_tailed()
    before = A.copy()
    first, second = lewis_weights(A, 1.0, rng=1), lewis_weights(A, 1.0, rng=2)
    assert np.array_equal(A, before)
    assert np.array_equal(first, lewis_weights(A, 1.0, rng=1))
    np.testing.assert_allclose(second, first, rtol=tolerance("float64", A.size, 1e2))


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0), (4, 2)])
def test_nothing_to_weigh(shape: tuple[int, int]) -> None:
    w = lewis_weights(np.zeros(shape), 1.0)
    assert w.shape == (shape[0],)
    assert not w.any()


# --- what must fail ---------------------------------------------------------------------------------------------------


def test_too_few_steps_are_told() -> None:
    A = heavy_tailed()
    with pytest.warns(ConvergenceWarning, match="relative error of .* in 2 steps.*raise max_iter"):
        w = lewis_weights(A, 1.0, tol=1e-6, max_iter=2, rng=0)
    assert np.array_equal(w, lewis_weights(A, 1.0, max_iter=2, rng=0))
    with pytest.warns(ConvergenceWarning, match="overshoot"):
        lewis_weights(A, 8.0, tol=1e-3, max_iter=3, rng=0)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "p must be finite and in", {"p": 0.5}),
        (ValueError, "p must be finite and in", {"p": math.inf}),
        (ValueError, "p must be finite and in", {"p": math.nan}),
        (TypeError, "p must be a real number", {"p": "1"}),
        (ValueError, "max_iter must be at least 1", {"max_iter": 0}),
        (ValueError, "tol must be finite and in", {"tol": 0.0}),
        (TypeError, "one_sided must be", {"one_sided": 1}),
        (ValueError, "p must be at least 2 for one-sided", {"one_sided": True}),
        (ValueError, "method must be one of", {"method": "newton"}),
        (ValueError, "p must be below 4 for the Cohen-Peng map", {"p": 4.0, "method": "cohen-peng"}),
        (ValueError, r"p must be at least 1\.5 for the leverage map", {"p": 1.4, "method": "leverage"}),
        (ValueError, "A must be real", {"A": np.ones((4, 2)) + 1j}),
        (ValueError, "A must be finite", {"A": np.array([[1.0, np.nan], [2.0, 3.0]])}),
        (ValueError, "A must be 2-D", {"A": np.ones(3)}),
        (TypeError, "A must have rows that can be read", {"A": aslinearoperator(np.ones((4, 2)))}),
        (TypeError, "A must", {"A": "rows"}),
        (TypeError, "rng must be", {"rng": "seed"}),
    ],
)
def test_bad_input(error: type[Exception], message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        lewis_weights(**{"A": heavy_tailed(30, 3), "p": 1.0, **arguments})
