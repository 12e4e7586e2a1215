"""Nonnegative factorisation with missing and weighted entries, and of rows that pass by."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits

from randla import ConvergenceWarning, RowBlocks, Status
from randla._arrays import to_host
from randla.nonnegative.masked import masked_nmf
from randla.nonnegative.online import OnlineNMF, minibatch_nmf
from randla.nonnegative.solvers import nmf

from .conftest import tolerance


def sparse_product(m: int, n: int, rank: int, seed: int) -> np.ndarray:
    """A product of factors of which half of the entries are zero."""
    rng = np.random.default_rng(seed)
    W, H = (rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((m, rank), (rank, n)))
    return W @ H


def with_holes(X: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """X with NaN in place of all but a share of the entries."""
    return np.where(np.random.default_rng(seed).random(X.shape) < share, X, np.nan)


def fit(X: Any, rank: int, **options: Any) -> Any:
    return masked_nmf(X, rank, rng=0, on_failure="ignore", **options)


# --- missing entries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "seed"), [(0.05, 1), (0.05, 2), (0.1, 0), (0.2, 0)])
def test_noiseless_entries_are_recovered(share: float, seed: int) -> None:
    """The prototype of the specification had 9e-7, 1.5e-7 and 6e-8 after 300 iterations."""
    X = sparse_product(500, 400, 5, seed)
    known = with_holes(X, share, seed + 10)
    found, hidden = fit(known, 5, max_iter=300, tol=0.0).to_dense(), np.isnan(known)
    assert np.linalg.norm((found - X)[hidden]) / np.linalg.norm(X[hidden]) < 1e-6


@pytest.mark.slow
def test_held_out_digits_beat_the_mean_fill() -> None:
    """20 % of the pixels hidden: at least a fifth below a factorisation of the same rank of the matrix of means.

    The ridge is one that entries held out of the known ones choose; the test also holds it to that.
    """
    X = load_digits().data
    hidden = np.random.default_rng(0).random(X.shape) < 0.2
    known = np.where(hidden, np.nan, X)
    held = {a: fit(known, 30, validation_fraction=0.1, alpha_W=a, alpha_H=a, max_iter=60).error for a in (1.0, 30.0)}
    assert held[30.0] < held[1.0]
    ours = fit(known, 30, max_iter=60, alpha_W=30.0, alpha_H=30.0).to_dense()
    filled = np.where(hidden, np.nanmean(known, axis=0)[None, :], X)
    theirs = nmf(filled, 30, rng=0, max_iter=200, on_failure="ignore").to_dense()
    errors = [math.sqrt(np.mean((found - X)[hidden] ** 2)) for found in (ours, theirs)]
    assert errors[0] <= 0.8 * errors[1]


def test_all_entries_known_is_plain_factorisation() -> None:
    X = sparse_product(40, 30, 3, 0) + 0.1
    plain = nmf(X, 3, rng=0, tol=1e-7, max_iter=3000, solver="hals", on_failure="ignore")
    masked = fit(X, 3, tol=1e-9, max_iter=3000)
    assert masked.objective == pytest.approx(plain.objective, rel=0.05)
    assert masked.stationarity < 1e-4


def test_containers_agree(dtype: str) -> None:
    X = with_holes(sparse_product(30, 25, 3, 1) + 0.1, 0.5).astype(dtype)
    seen = ~np.isnan(X)
    A = sp.csr_array((X[seen], np.nonzero(seen)), shape=X.shape)
    dense, stored = fit(X, 3, max_iter=5), fit(A, 3, absent="missing", max_iter=5)
    assert dense.W.dtype == np.dtype(dtype)
    assert np.allclose(dense.to_dense(), stored.to_dense(), atol=tolerance(dtype, 1000, 10.0))
    wide = sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape)
    assert np.array_equal(fit(wide, 3, absent="missing", max_iter=5).W, stored.W)


def test_stored_zeros_are_observations() -> None:
    A = sp.csr_array((np.array([1.0, 0.0, 1.0]), (np.array([0, 0, 1]), np.array([0, 1, 0]))), shape=(2, 2))
    result = fit(A, 1, absent="missing", max_iter=200, tol=0.0)
    assert result.predict([0], [1])[0] < 1e-6  # a zero was seen here
    assert abs(result.predict([1], [0])[0] - 1) < 1e-6


def test_weights_are_repetitions() -> None:
    """A row of weight 2 counts like the row twice."""
    X = with_holes(sparse_product(20, 15, 2, 2) + 0.2, 0.7)
    w = np.ones_like(X)
    w[3] = 2.0
    init = (np.random.default_rng(0).random((20, 2)), np.random.default_rng(1).random((2, 15)))
    twice = (np.vstack([init[0], init[0][3:4]]), init[1])
    weighted = fit(X, 2, weights=w, init=init, max_iter=2000, tol=1e-13)
    repeated = fit(np.vstack([X, X[3:4]]), 2, init=twice, max_iter=2000, tol=1e-13)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-6)


def test_objective_and_penalties_are_as_stated() -> None:
    X, rng = with_holes(sparse_product(30, 20, 3, 3) + 0.1, 0.6), np.random.default_rng(0)
    w = rng.random(X.shape)
    result = fit(X, 3, weights=w, alpha_W=0.3, alpha_H=0.2, l1_ratio=0.4, max_iter=300, tol=1e-10)
    W, H, seen = result.W, result.H, ~np.isnan(X)
    loss = 0.5 * np.sum((w * (X - W @ H) ** 2)[seen])
    penalty = 0.3 * (0.4 * W.sum() + 0.3 * (W**2).sum()) + 0.2 * (0.4 * H.sum() + 0.3 * (H**2).sum())
    assert result.objective == pytest.approx(loss + penalty, rel=1e-9)
    R = np.where(seen, w * (W @ H - np.where(seen, X, 0)), 0)
    for slope, F in ((R @ H.T + 0.12 + 0.18 * W, W), (W.T @ R + 0.08 + 0.12 * H, H)):
        assert np.max(np.where(F > 0, np.abs(slope), np.maximum(-slope, 0))) < 1e-2
    assert result.history[0] > result.objective
    assert min(result.history) == pytest.approx(result.objective, rel=1e-12)


def test_hold_out_is_told_and_kept_out() -> None:
    X = with_holes(sparse_product(80, 60, 3, 4) + 0.05 * np.random.default_rng(0).random((80, 60)), 0.5)
    result = fit(X, 3, validation_fraction=0.2, max_iter=200)
    assert result.error_kind == "held-out"
    low, high = result.error_interval
    assert low <= result.error <= high
    assert result.error == pytest.approx(min(result.validation_history), rel=1e-6)
    assert result.best_iter == int(np.argmin(result.validation_history)) + 1
    assert fit(X, 3, max_iter=5).error_kind == "training"


def test_rank_by_held_out_error_has_its_minimum_at_the_planted_one() -> None:
    rng = np.random.default_rng(5)
    X = sparse_product(200, 150, 5, 5)
    X = with_holes(X + 0.05 * X.std() * np.abs(rng.standard_normal(X.shape)), 0.4)
    errors = [fit(X, rank, validation_fraction=0.1, n_init=2, max_iter=150).error for rank in (3, 4, 5, 6)]
    assert errors[2] < 0.5 * errors[1] < 0.5 * errors[0]
    assert errors[3] > 0.9 * errors[2]


def test_rows_and_columns_without_entries_have_zeros() -> None:
    X = with_holes(sparse_product(20, 15, 2, 6) + 0.1, 0.6)
    X[4], X[:, 3] = np.nan, np.nan
    result = fit(X, 2, init=(np.ones((20, 2)), np.ones((2, 15))), max_iter=50)
    assert not result.W[4].any()
    assert not result.H[:, 3].any()


def test_other_array_libraries(xp: ModuleType, put: Callable[[Any], Any]) -> None:
    X = with_holes(sparse_product(15, 12, 2, 7) + 0.1, 0.7)
    for options in ({}, {"validation_fraction": 0.2}, {"alpha_W": 0.1, "l1_ratio": 0.5}):
        mine, truth = fit(put(X), 2, max_iter=3, **options), fit(X, 2, max_iter=3, **options)
        assert np.allclose(to_host(mine.W) @ to_host(mine.H), truth.to_dense(), atol=1e-8)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"X": sp.eye_array(3).tocsr()}, ValueError, 'absent must be "missing" or "zeros" for a sparse X, got None'),
        ({"X": sp.eye_array(3).tocsr(), "absent": "zeros"}, ValueError, "randla.nmf is the function"),
        ({"absent": "guess"}, ValueError, "absent must be one of"),
        ({"X": -np.ones((3, 3))}, ValueError, "X must be nonnegative, got -1"),
        ({"X": np.full((3, 3), np.inf)}, ValueError, "X must have no infinite entry"),
        ({"weights": np.ones((2, 2))}, ValueError, "weights must have shape"),
        ({"weights": -np.ones((3, 3))}, ValueError, "weights must be finite and nonnegative"),
        ({"weights": sp.eye_array(3).tocsr()}, ValueError, "weights must store a number for each entry"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be finite"),
        ({"init": "nndsvd"}, ValueError, "init must be one of"),
        ({"init": (np.ones((1, 1)), np.ones((2, 3)))}, ValueError, "init W must have shape"),
        ({"rank": -2}, ValueError, "rank must be at least 0"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
    ],
)
def test_bad_input(change: dict[str, Any], kind: type, text: str) -> None:
    arguments: dict[str, Any] = {"X": np.ones((3, 3)), "rank": 2, **change}
    with pytest.raises(kind, match=text):
        masked_nmf(arguments.pop("X"), arguments.pop("rank"), **arguments)


def test_predictions_check_their_places() -> None:
    result = fit(np.ones((3, 4)), 1, max_iter=5)
    assert result.predict([0, 2], [3, 0]).shape == (2,)
    for rows, cols in (([3], [0]), ([0], [4]), ([-1], [0]), ([0, 1], [0]), ([[0]], [[0]])):
        with pytest.raises(ValueError, match="must"):
            result.predict(rows, cols)


def test_too_few_iterations_are_told() -> None:
    with pytest.warns(ConvergenceWarning, match="masked_nmf ended with Status.MAX_ITER"):
        assert not masked_nmf(sparse_product(20, 15, 3, 0) + 0.1, 2, max_iter=1, rng=0).converged


def test_callback_ends_the_run_quietly() -> None:
    seen: list[Any] = []
    result = masked_nmf(
        sparse_product(20, 15, 3, 0) + 0.1, 2, rng=0, callback=lambda step: seen.append(step) or len(seen) == 2
    )
    assert result.n_iter == len(seen) == 2


# --- rows that pass by ------------------------------------------------------------------------------------------------


def stream(m: int = 1200, noise: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((m, 4)) ** 3 @ rng.random((4, 30)) ** 3 + noise * rng.random((m, 30))


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_batches_come_near_the_whole(container: Callable[[Any], Any]) -> None:
    X = stream()
    whole = nmf(X, 4, rng=0, on_failure="ignore")
    rows = RowBlocks.from_array(container(X), block_bytes=20_000)
    found = minibatch_nmf(rows, 4, n_passes=20, tol=0.0, batch=80, rng=0)
    assert found.n_rows == found.n_passes * 1200
    assert found.H.shape == (4, 30)
    assert (found.H >= 0).all()
    codes = nmf_codes(X, found.H)
    assert np.linalg.norm(X - codes @ found.H) <= 5 * np.linalg.norm(X - whole.to_dense())


def nmf_codes(X: np.ndarray, H: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    return np.stack([nnls(H.T, x)[0] for x in X])


def test_state_survives_bytes() -> None:
    X = stream(400)
    state = OnlineNMF(3, rng=1)
    for start in range(0, 200, 50):
        state.partial(X[start : start + 50])
    copy = OnlineNMF.from_bytes(state.to_bytes())
    for start in range(200, 400, 50):
        state.partial(X[start : start + 50])
        copy.partial(X[start : start + 50])
    assert np.array_equal(state.H, copy.H)
    assert state.finalize().error == copy.finalize().error
    damaged = bytearray(state.to_bytes())
    damaged[-40] ^= 1
    with pytest.raises(ValueError, match="must"):
        OnlineNMF.from_bytes(bytes(damaged))


def test_codes_are_nonnegative_least_squares() -> None:
    X = stream(300)
    state = OnlineNMF(3, rng=0).partial(X)
    codes = state.transform(X[:20])
    best = nmf_codes(X[:20], np.asarray(state.H))
    assert np.linalg.norm(X[:20] - codes @ state.H) <= np.linalg.norm(X[:20] - best @ state.H) * (1 + 1e-2)


def test_settling_is_told() -> None:
    rows = RowBlocks.from_array(stream(), block_bytes=40_000)
    assert minibatch_nmf(rows, 4, n_passes=30, batch=160, tol=0.05, rng=0).status is Status.CONVERGED
    assert minibatch_nmf(rows, 4, n_passes=1, rng=0).status is Status.MAX_ITER


def test_bad_batches() -> None:
    state = OnlineNMF(2, rng=0)
    with pytest.raises(ValueError, match="state must have seen a batch"):
        state.finalize()
    with pytest.raises(ValueError, match="state must have seen a batch"):
        state.transform(np.ones((2, 2)))
    state.partial(np.ones((3, 4)))
    with pytest.raises(ValueError, match="X must have 4 columns"):
        state.partial(np.ones((3, 5)))
    with pytest.raises(ValueError, match="X must be nonnegative"):
        state.partial(-np.ones((3, 4)))
    with pytest.raises(TypeError, match="rows must be RowBlocks"):
        minibatch_nmf(np.ones((3, 4)), 2)
    assert state.partial(np.zeros((2, 4))).n_rows == 5
