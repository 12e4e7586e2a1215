"""Frequent Directions and its ridge regression, and the streaming SVD: guarantees, updates, merging, bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla import ConvergenceWarning, RowBlocks, Status
from randla._arrays import to_host
from randla.streaming import FrequentDirections, FrequentDirectionsRidge, StreamingSVD
from randla.streaming.entries import Places

from .conftest import tolerance
from .statistics import binomial_upper, chi_square_interval

# --- Frequent Directions ----------------------------------------------------------------------------------------------

M, N, LENGTH = 4000, 200, 20


def signal() -> np.ndarray:
    """Rank 30 with strengths 1 / i, and noise of deviation 0.05."""
    rng = np.random.default_rng(0)
    U, V, E = (rng.standard_normal(shape) for shape in ((M, 30), (30, N), (M, N)))
    return (U / np.arange(1, 31)) @ V + 0.05 * E


def best_bound(A: np.ndarray, length: int) -> float:
    """The least ``||A - A_k||_F**2 / (length - k)`` over k."""
    squares = np.linalg.svd(A, compute_uv=False) ** 2
    return min(float(squares[k:].sum()) / (length - k) for k in range(length))


def error_of(sketch: FrequentDirections, A: np.ndarray) -> float:
    return float(np.linalg.norm(A.T @ A - sketch.get_covariance(), 2))


def test_published_numbers() -> None:
    """Errors of 20 directions on the signal of rank 30: certified, robust, merged, and the bound over all k."""
    A = signal()
    plain, robust = FrequentDirections(LENGTH).partial_fit(A), FrequentDirections(LENGTH, robust=True).partial_fit(A)
    assert round(error_of(plain, A), 1) == 2855.6
    assert error_of(plain, A) == pytest.approx(plain.error_bound_, rel=1e-5)
    assert round(error_of(robust, A), 1) == 1427.8
    assert robust.shift_ == robust.error_bound_ == plain.error_bound_ / 2
    merged = FrequentDirections(LENGTH)
    for start in range(0, M, 1000):
        merged.merge(FrequentDirections(LENGTH).partial_fit(A[start : start + 1000]))
    assert math.floor(error_of(merged, A)) == 2808
    assert round(best_bound(A, LENGTH)) == 4744
    assert plain.error_bound_ <= best_bound(A, LENGTH)
    assert merged.error_bound_ <= best_bound(A, LENGTH)
    S = randla.Gaussian(LENGTH, M, rng=0)
    assert np.linalg.norm(A.T @ A - (S @ A).T @ (S @ A), 2) > 30 * plain.error_bound_


def check_guarantees(sketch: FrequentDirections, A: np.ndarray) -> None:
    """The sketch lies below the covariance by at most its bound, which is below the theorem's; so does the rest."""
    rounding = tolerance("float64", A.size, np.linalg.norm(A) ** 2 + np.finfo(float).tiny)
    result = sketch.result(on_failure="ignore")
    below = A.T @ A - (result.to_dense() - result.shift * np.eye(A.shape[1]))
    values = np.linalg.eigvalsh(below)
    assert values[0] >= -rounding
    assert values[-1] <= result.shrinkage + rounding
    assert sketch.error_bound_ == (result.shrinkage / 2 if sketch.robust else result.shrinkage)
    assert error_of(sketch, A) <= sketch.error_bound_ + rounding
    assert result.shrinkage <= best_bound(A, sketch.n_components) + rounding
    # each shrinking takes its amount off at least n_components squared singular values
    energy = result.squared_frobenius - float(np.sum(result.s**2))
    assert sketch.n_components * result.shrinkage <= energy + rounding
    V = result.Vh.T
    assert np.linalg.norm(A - A @ V @ V.T) ** 2 <= (result.projection_bound * np.linalg.norm(A)) ** 2 + rounding
    assert np.linalg.norm(V.T @ V - np.eye(V.shape[1])) <= tolerance("float64", V.size)
    k, length = sketch.n_components // 2, sketch.n_components
    tail = float(np.sum(np.linalg.svd(A, compute_uv=False)[k:] ** 2))
    leading = V[:, :k]
    assert np.linalg.norm(A - A @ leading @ leading.T) ** 2 <= (1 + k / (length - k)) * tail + rounding


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("buffer_size", [None, 7, 40])
@pytest.mark.parametrize("order", ["given", "sorted", "shuffled", "reversed"])
def test_guarantees_in_any_order(order: str, buffer_size: int | None, robust: bool) -> None:
    rng = np.random.default_rng(3)
    A = rng.standard_normal((500, 24)) * 0.75 ** np.arange(24)
    A[::50] *= 20.0
    places = {
        "given": np.arange(500),
        "sorted": np.argsort(np.linalg.norm(A, axis=1)),
        "shuffled": rng.permutation(500),
        "reversed": np.arange(500)[::-1],
    }[order]
    sketch = FrequentDirections(6, robust=robust, buffer_size=buffer_size).partial_fit(A[places])
    check_guarantees(sketch, A)
    assert sketch.n_rows_ == 500
    assert sketch.squared_frobenius_ == pytest.approx(np.linalg.norm(A) ** 2, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(0, 60), n=st.integers(1, 20), length=st.integers(2, 12), extra=st.integers(1, 15),
    rank=st.integers(0, 20), power=st.sampled_from([-20, 0, 20]), cuts=st.lists(st.integers(0, 60), max_size=4),
    merged=st.booleans(),
)  # fmt: skip
def test_guarantees_of_any_shape(
    m: int, n: int, length: int, extra: int, rank: int, power: int, cuts: list[int], merged: bool
) -> None:
    rng = np.random.default_rng([m, n, rank])
    A = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n)) * 10.0**power
    whole = FrequentDirections(length, buffer_size=length + extra).partial_fit(A)
    check_guarantees(whole, A)
    bounds = [0, *sorted(min(cut, m) for cut in cuts), m]
    parts = FrequentDirections(length, buffer_size=length + extra)
    for lo, hi in pairwise(bounds):
        if merged:
            parts.merge(FrequentDirections(length, buffer_size=length + extra).partial_fit(A[lo:hi]))
        else:
            parts.partial_fit(A[lo:hi])
    check_guarantees(parts, A)
    if not merged:  # the blocks do not matter, to the last bit
        assert np.array_equal(parts.get_covariance(), whole.get_covariance())


def test_few_rows_and_low_rank_are_exact() -> None:
    rng = np.random.default_rng(0)
    for A in (rng.standard_normal((9, 30)), rng.standard_normal((400, 5)) @ rng.standard_normal((5, 30))):
        sketch = FrequentDirections(10).partial_fit(A)
        assert error_of(sketch, A) <= tolerance("float64", A.size, np.linalg.norm(A) ** 2)
        assert sketch.error_bound_ <= tolerance("float64", A.size, np.linalg.norm(A) ** 2)
        assert sketch.components_.shape == (np.linalg.matrix_rank(A), 30)
        assert sketch.result().projection_bound <= 1e-6  # the root of a rounding error


def test_reading_changes_nothing() -> None:
    A = signal()[:333]
    read, unread = FrequentDirections(12), FrequentDirections(12)
    for start in range(0, 333, 50):
        read.partial_fit(A[start : start + 50]).result(on_failure="ignore")
        unread.update(A[start : start + 50])
        bound = read.error_bound_
        assert bound == read.shrinkage_ == unread.error_bound_
    assert read.to_bytes() == unread.to_bytes()
    again = FrequentDirections(12).partial_fit(A[:3]).fit(A[i : i + 100] for i in range(0, 333, 100))
    assert np.array_equal(again.get_covariance(), read.get_covariance())
    again.fit(RowBlocks.from_array(A, block_bytes=9999))
    assert np.array_equal(again.get_covariance(), read.get_covariance())
    assert again.n_rows_ == 333


@pytest.mark.parametrize("kind", ["csr", "csc", "int", "float32", "fortran", "list"])
def test_directions_of_any_kind_of_block(kind: str) -> None:
    A = np.round(signal()[:300, :40])
    make: dict[str, Callable[[np.ndarray], Any]] = {
        "csr": sp.csr_array, "csc": sp.csc_array, "int": lambda B: B.astype(int), "list": np.ndarray.tolist,
        "float32": lambda B: B.astype(np.float32), "fortran": np.asfortranarray,
    }  # fmt: skip
    sketch, plain = FrequentDirections(8), FrequentDirections(8).partial_fit(A)
    for start in range(0, 300, 90):
        sketch.partial_fit(make[kind](A[start : start + 90]))
    assert np.array_equal(sketch.get_covariance(), plain.get_covariance())
    coordinates = sketch.transform(make[kind](A[:7]))
    assert coordinates.shape == (7, 7)
    wide = tolerance(coordinates.dtype, 40, np.linalg.norm(A[:7]))
    assert np.linalg.norm(coordinates - A[:7] @ plain.components_.T) <= wide
    assert coordinates.dtype == (np.float32 if kind == "float32" else np.float64)


def test_directions_on_any_backend(xp: Any, put: Any) -> None:
    A = signal()[:500, :30]
    host = FrequentDirections(8, robust=True).partial_fit(A)
    sketch = FrequentDirections(8, robust=True).partial_fit(put(A[:200]))
    other = FrequentDirections(8, robust=True).partial_fit(put(A[200:]))
    together = FrequentDirections(8, robust=True).partial_fit(put(A))
    rounding = tolerance("float64", A.size, np.linalg.norm(A) ** 2)
    assert np.linalg.norm(to_host(together.get_covariance()) - host.get_covariance()) <= rounding
    result = sketch.merge(other).result()
    assert error_of_result(result, A) <= sketch.error_bound_ + rounding
    assert result.Vh.device == put(A).device
    assert to_host(result.matmul(put(A.T))).shape == (30, 500)
    assert sketch.from_bytes(sketch.to_bytes(), like=put(A)).to_bytes() == sketch.to_bytes()
    assert to_host(sketch.transform(put(A))).shape == (500, result.rank)


def error_of_result(result: Any, A: np.ndarray) -> float:
    return float(np.linalg.norm(A.T @ A - to_host(result.to_dense()), 2))


def test_result_is_a_matrix() -> None:
    A = signal()[:600, :50]
    result = FrequentDirections(10, robust=True).partial_fit(A).result()
    s, Vh = result
    C = (Vh.T * s**2) @ Vh + result.shift * np.eye(50)
    x = np.arange(50.0)
    assert np.array_equal(result.to_dense(), C)
    wide = tolerance("float64", 50 * 50, np.linalg.norm(C) * np.linalg.norm(x))
    assert np.linalg.norm(result.matmul(x) - C @ x) <= wide
    assert np.linalg.norm(result.diagonal() - np.diag(C)) <= wide
    assert abs(result.trace() - np.trace(C)) <= wide
    assert np.linalg.norm((C + 3.0 * np.eye(50)) @ result.solve(x, 3.0) - x) <= wide
    assert result.shape == (50, 50)
    assert result.error_bound == pytest.approx(result.shrinkage / 2 / s[0] ** 2)
    assert "certified" in repr(result)


def test_a_flat_spectrum_certifies_nothing() -> None:
    A = np.tile(np.eye(40), (20, 1))
    sketch = FrequentDirections(5).partial_fit(A)
    with pytest.warns(ConvergenceWarning, match="FrequentDirections ended with Status.BREAKDOWN"):
        result = sketch.result()
    assert result.status is Status.BREAKDOWN
    assert result.error_bound >= 1.0
    assert error_of(sketch, A) <= sketch.error_bound_ * (1 + 1e-12)


def test_bytes_of_directions_go_on() -> None:
    A = signal()[:500, :30]
    sketch = FrequentDirections(8, robust=True, buffer_size=20).partial_fit(A[:333])
    back = FrequentDirections.from_bytes(sketch.to_bytes())
    assert np.array_equal(back.partial_fit(A[333:]).get_covariance(), sketch.partial_fit(A[333:]).get_covariance())
    assert back.to_bytes() == sketch.to_bytes()
    assert (back.n_rows_, back.robust, back.buffer_size) == (500, True, 20)
    empty = FrequentDirections.from_bytes(FrequentDirections(3).to_bytes())
    assert empty.partial_fit(A).to_bytes() == FrequentDirections(3).partial_fit(A).to_bytes()


def test_a_bad_block_leaves_the_state_alone() -> None:
    A = signal()[:100, :30]
    sketch = FrequentDirections(8).partial_fit(A)
    before = sketch.to_bytes()
    bad: list[tuple[Any, type[Exception], str]] = [
        (np.full((2, 30), np.nan), ValueError, "X must be finite"),
        (np.full((2, 30), 1e200), ValueError, "X must be finite"),
        (A[:, :29], ValueError, "X must have 30 columns, got 29"),
        (A + 1j, ValueError, "X must be real"),
        (A[0], ValueError, "X must be 2-D"),
        (np.array([["a"]]), TypeError, "numeric dtype"),
        (sp.csr_array(np.full((1, 30), np.inf)), ValueError, "X must be finite"),
    ]
    for block, error, message in bad:
        with np.errstate(over="ignore"), pytest.raises(error, match=message):
            sketch.partial_fit(block)
    assert sketch.to_bytes() == before
    assert sketch.result() is sketch.result()  # read once
    assert sketch.partial_fit(A[:1]).result().n_rows == 101


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FrequentDirections(1), ValueError, "n_components must be at least 2, got 1"),
        (lambda: FrequentDirections(2.0), TypeError, "n_components must be an integer"),
        (lambda: FrequentDirections(5, buffer_size=5), ValueError, "buffer_size must be at least 6, got 5"),
        (lambda: FrequentDirections(5, robust=1), TypeError, "robust must be True or False, got 1"),
        (lambda: FrequentDirections(5).result(), ValueError, "result must come after a block"),
        (lambda: FrequentDirections(5).partial_fit(np.ones((3, 0))), ValueError, "X must have at least one column"),
        (lambda: FrequentDirections(5).merge(3), TypeError, "other must be a FrequentDirections, got int"),
        (
            lambda: FrequentDirections(5).merge(FrequentDirections(6).partial_fit(np.ones((3, 2)))),
            ValueError,
            "other must have n_components=5",
        ),
        (
            lambda: (
                FrequentDirections(5)
                .partial_fit(np.ones((3, 3)))
                .merge(FrequentDirections(5).partial_fit(np.ones((3, 2))))
            ),
            ValueError,
            "other must have 3 columns, got 2",
        ),
        (
            lambda: FrequentDirections(5).partial_fit(np.ones((3, 3))).result().solve(np.ones(3)),
            ValueError,
            "alpha must be positive for a sketch without shift",
        ),
        (
            lambda: FrequentDirections(5).partial_fit(np.ones((3, 3))).result().matmul(np.ones(4)),
            ValueError,
            "X must have 3 rows",
        ),
    ],
)
def test_bad_directions(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- ridge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("targets", [0, 3])
def test_ridge_keeps_its_bound(targets: int, robust: bool) -> None:
    A = signal()[:2000, :60]
    rng = np.random.default_rng(1)
    B = A @ rng.standard_normal((60, 3)) + rng.standard_normal((2000, 3))
    B = B if targets else B[:, 0]
    alpha = 3 * best_bound(A, 20)
    state, other = (FrequentDirectionsRidge(20, alpha, robust=robust) for _ in range(2))
    state.partial_fit(A[:500], B[:500]).partial_fit(sp.csr_array(A[500:900]), B[500:900])
    state.merge(other.partial_fit(A[900:], B[900:]))
    exact = np.linalg.solve(A.T @ A + alpha * np.eye(60), A.T @ B)
    (x,) = result = state.result()
    off = np.linalg.norm(x - exact, axis=0) / np.linalg.norm(x, axis=0)
    assert np.max(off) <= result.error_bound <= (1 / 6 if robust else 1 / 3)
    assert np.max(off) > 1e-6  # the sketch is no copy of the covariance
    assert x.shape == exact.shape
    assert np.allclose(state.predict(A[:5]), A[:5] @ x)
    assert np.allclose(state.predict(sp.csr_array(A[:5])), A[:5] @ x)
    back = FrequentDirectionsRidge.from_bytes(state.to_bytes())
    assert np.array_equal(back.coef_, x)
    assert back.to_bytes() == state.to_bytes()
    assert state.fit(A, B).error_bound_ <= result.error_bound * 1.5


def test_ridge_on_any_backend(xp: Any, put: Any) -> None:
    A = signal()[:400, :30]
    b = A @ np.ones(30)
    state = FrequentDirectionsRidge(10, 1000.0).partial_fit(put(A), put(b))
    host = FrequentDirectionsRidge(10, 1000.0).partial_fit(A, b)
    assert np.linalg.norm(to_host(state.coef_) - host.coef_) <= tolerance("float64", A.size, 10 * np.linalg.norm(b))
    back = FrequentDirectionsRidge.from_bytes(state.to_bytes(), like=put(A))
    assert back.coef_.device == put(A).device


def test_bad_ridge() -> None:
    A, b = np.ones((5, 3)), np.ones(5)
    state = FrequentDirectionsRidge(4, 1.0).partial_fit(A, b)
    before = state.to_bytes()
    for call, error, message in [
        (lambda: FrequentDirectionsRidge(4, 0.0), ValueError, "alpha must be finite and in"),
        (lambda: FrequentDirectionsRidge(4, 1.0).result(), ValueError, "result must come after a block"),
        (lambda: state.partial_fit(A, b[:4]), ValueError, "y must have 5 rows as X has"),
        (lambda: state.partial_fit(A, A), ValueError, "y must have the columns of the targets before"),
        (lambda: state.partial_fit(A, b * np.nan), ValueError, "X and y must be finite"),
        (lambda: state.partial_fit(A * 1j, b), ValueError, "X must be real"),
        (lambda: state.partial_fit(A, b * 1j), ValueError, "y must be real"),
        (lambda: state.merge(FrequentDirections(4)), TypeError, "other must be a FrequentDirectionsRidge"),
        (lambda: state.merge(FrequentDirectionsRidge(4, 2.0)), ValueError, "other must have alpha=1.0"),
        (
            lambda: state.merge(FrequentDirectionsRidge(4, 1.0).partial_fit(A, A)),
            ValueError,
            "other must have as many targets",
        ),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert state.to_bytes() == before
    wide = FrequentDirectionsRidge(2, 1e-3).partial_fit(np.eye(9), np.ones(9))
    with pytest.warns(ConvergenceWarning, match="FrequentDirectionsRidge ended with Status.BREAKDOWN"):
        assert wide.result().error_bound >= 1.0


# --- streaming SVD ----------------------------------------------------------------------------------------------------


def of_spectrum(m: int, n: int, s: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, s.size)))[0] for size in (m, n))
    return (U * s) @ V.T


def inverse_tail(n: int) -> np.ndarray:
    """Ten ones, then 1/2, 1/3, ...: the slow decay of the paper."""
    return np.concatenate([np.ones(10), 1.0 / np.arange(2, n - 8)])


def excess(A: np.ndarray, rank: int, seeds: range, **options: Any) -> tuple[float, float]:
    """Mean relative excess of the error over the best rank, and mean ratio of its estimate to it."""
    best = np.linalg.norm(np.linalg.svd(A, compute_uv=False)[rank:])
    found = []
    for seed in seeds:
        result = StreamingSVD(A.shape, rank, rng=seed, **options).update(A).finalize(on_failure="ignore")
        error = np.linalg.norm(A - result.to_dense())
        found.append((error / best - 1.0, result.error * result.norm / error))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1])


def test_published_table() -> None:
    """Rank 10: 1/k decay 0.086 with three sketches and 0.169 with two; exponential 4e-15; flat 0.65; estimates 0.97."""
    seeds = range(8)
    slow = of_spectrum(400, 300, inverse_tail(300))
    for kind in ("sparse-sign", "gaussian", "rademacher"):
        # single draws scatter by 0.012 (measured), means of eight by 0.005
        mean, ratio = excess(slow, 10, seeds, sketch=kind)
        assert abs(mean - 0.086) < 0.025
        # 160 squared normals: standard deviation of the ratio at most 0.056 even for a residual of rank one
        assert abs(ratio - 1.0) < 0.2
    mean, _ = excess(slow, 10, seeds, co_range=False, sketch_size=25)
    assert abs(mean - 0.169) < 0.06
    fast = of_spectrum(400, 300, np.concatenate([np.ones(10), 10.0 ** -np.arange(1.0, 291.0)]))
    mean, _ = excess(fast, 10, range(3))
    assert abs(mean) < 1e-13
    flat = of_spectrum(400, 300, np.concatenate([np.ones(10), np.full(290, 0.01)]))
    mean, _ = excess(flat, 10, seeds)
    assert abs(mean - 0.65) < 0.1


def test_the_stated_confidence_holds() -> None:
    """500 keys: the true error exceeds its bound in 1 % of them at most, up to luck of one in a million."""
    for s in (np.array([1.0, 0.5, 0.3]), inverse_tail(40)):  # a residual of rank one is the worst case
        A = of_spectrum(50, 40, s)
        above = within = 0
        for seed in range(500):
            result = StreamingSVD(A.shape, 2, rng=seed).update(A).finalize(on_failure="ignore")
            error = np.linalg.norm(A - result.to_dense()) / np.linalg.norm(A)
            above += error > result.error_bound
            within += abs(result.error / error - 1.0) <= 0.3
        assert above <= binomial_upper(500, 1.0 - result.confidence)
        if s.size > 3:
            assert within >= 0.95 * 500  # what the specification asks of the estimate


def states_of(A: np.ndarray, seed: int = 0, **options: Any) -> Callable[[], StreamingSVD]:
    return lambda: StreamingSVD(A.shape, 4, rng=seed, **options)


def same(first: StreamingSVD, second: StreamingSVD, rtol: float = 1e-12) -> bool:
    """All sketches equal up to rounding."""
    pairs = list(zip(first._arrays(), second._arrays(), strict=True))
    return all(np.linalg.norm(a - b) <= rtol * np.linalg.norm(b) for a, b in pairs)


@pytest.mark.parametrize("co_range", [True, False])
@pytest.mark.parametrize("shape", [(90, 70), (300, 12), (12, 300), (150, 5), (5, 4)])
def test_every_kind_of_update_gives_the_same_state(shape: tuple[int, int], co_range: bool) -> None:
    m, n = shape
    A = of_spectrum(m, n, 0.6 ** np.arange(min(m, n)))
    new = states_of(A, co_range=co_range)
    whole = new().update(A)
    i, j = (np.ravel(places) for places in np.indices(shape))
    order = np.random.default_rng(0).permutation(A.size)
    F, H = np.linalg.qr(A)
    itself = new().update(-A)
    others = {
        "rows": new().update_rows(A[m // 3 :], m // 3).update_rows(A[: m // 3]),
        "sparse rows": new().update_rows(sp.csr_array(A[: m // 2])).update_rows(sp.csc_array(A[m // 2 :]), m // 2),
        "columns": new().update_columns(A[:, n // 3 :], n // 3).update_columns(A[:, : n // 3], 0),
        "sparse columns": new().update_columns(sp.csr_array(A)),
        "entries": new().update_entries(i[order], j[order], A[i[order], j[order]]),
        "twice": new().update_entries(np.tile(i, 3), np.tile(j, 3), np.tile(np.ravel(A), 3), weight=1 / 3),
        "low rank": new().update_low_rank(F, H.T),
        "vectors": new().update_low_rank(F[:, 0], H[0]).update(A - np.outer(F[:, 0], H[0])),
        "sparse": new().update(sp.csr_array(A)),
        "operator": new().update(aslinearoperator(A)),
        "blocks": new().update(RowBlocks.from_array(A, block_bytes=999)),
        "fading": new().update(7.0 * A).update(A, decay=0.0),
        "linear": new().update_rows(A).update(A, decay=3.0, weight=-2.0),
        "merged": new().update(2.0 * A).merge(new().update(A), weight=-1.0),
        "itself": itself.merge(itself, decay=0.5, weight=-1.5),
        "into empty": new().merge(new().update(A)),
        "empty": new().update(A).merge(new()),
        "bytes": StreamingSVD.from_bytes(new().update_rows(A[:2]).to_bytes()).update_rows(A[2:], 2),
    }
    for name, state in others.items():
        assert same(state, whole), name
    k = whole.rank
    result = whole.finalize(on_failure="ignore")
    assert result.rank == k
    assert (result.U.shape, result.s.shape, result.Vh.shape) == ((m, k), (k,), (k, n))
    for Q in (result.U, result.Vh.T):
        assert np.linalg.norm(Q.T @ Q - np.eye(k)) <= tolerance("float64", Q.size)
    if min(shape) <= 5:  # sketches as large as the side hold all of it
        best = np.linalg.norm(np.linalg.svd(A, compute_uv=False)[k:])
        assert np.linalg.norm(A - result.to_dense()) <= best + tolerance("float64", A.size, np.linalg.norm(A))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), m=st.integers(4, 60), n=st.integers(4, 60))
def test_any_order_and_partition(data: st.DataObject, m: int, n: int) -> None:
    """A matrix cut into rows, columns and entries, taken in by two states in any order, is the matrix."""
    A = np.random.default_rng([m, n]).standard_normal((m, n))
    top = data.draw(st.integers(0, m))
    left = data.draw(st.integers(0, n))
    cuts = sorted(data.draw(st.lists(st.integers(0, top), max_size=4)))
    rest = A.copy()
    rest[:top], rest[:, :left] = 0.0, 0.0
    i, j = np.nonzero(rest)
    columns = A.copy()
    columns[:top] = 0.0
    changes: list[tuple[str, tuple[Any, ...]]] = [("update_entries", (i, j, A[i, j]))]
    bounds = [0, *cuts, top]
    changes += [("update_rows", (A[lo:hi], lo)) for lo, hi in pairwise(bounds)]
    changes += [("update_columns", (columns[:, lo : lo + 7][:, : left - lo], lo)) for lo in range(0, left, 7)]
    states = [StreamingSVD((m, n), 2, rng=5) for _ in range(2)]
    for t in data.draw(st.permutations(range(len(changes)))):
        name, arguments = changes[t]
        getattr(states[data.draw(st.integers(0, 1))], name)(*arguments)
    assert same(states[0].merge(states[1]), StreamingSVD((m, n), 2, rng=5).update(A), 1e-11)
    assert states[0].n_updates == len(changes)


def test_streaming_equals_the_single_view() -> None:
    """The sketches are those of ``svd(..., n_passes=1)``; only the norm comes from elsewhere."""
    A = of_spectrum(400, 120, 0.8 ** np.arange(120))
    ours = StreamingSVD(A.shape, 5, rng=randla.as_key(3).fold("single view")).update(A).finalize()
    theirs = randla.svd(A, 5, n_passes=1, rng=3)
    assert np.linalg.norm(ours.to_dense() - theirs.to_dense()) <= tolerance("float64", A.size, 64.0)
    low, high = (math.sqrt(x / 20) for x in chi_square_interval(20))
    assert low <= ours.norm / theirs.norm <= high


def test_merge_is_one_shot() -> None:
    A = of_spectrum(300, 200, inverse_tail(200))
    new = states_of(A, sketch="gaussian")
    a, b = new().update_rows(A[:130]), new().update_rows(A[130:], 130)
    merged, whole = a.merge(b).finalize(), new().update(A).finalize()
    assert np.linalg.norm(merged.to_dense() - whole.to_dense()) <= 1e-12 * np.linalg.norm(A)
    assert b.n_updates == 1
    assert same(b, new().update_rows(A[130:], 130))


def test_threads_do_not_matter() -> None:
    """The three sketches to the last bit; the probes are products of BLAS, equal up to rounding."""
    A = np.random.default_rng(0).standard_normal((3000, 60))
    found = []
    for n_threads in (1, 2, 5):
        with randla.threads(n_threads):
            found.append(StreamingSVD(A.shape, 5, rng=0).update_rows(A).update_entries([5, 7], [3, 3], [1.0, 2.0]))
    for other in found[1:]:
        assert same(other, found[0])
        assert all(np.array_equal(a, b) for a, b in zip(other._arrays()[:3], found[0]._arrays()[:3], strict=True))


def test_scattered_entries_of_a_huge_matrix() -> None:
    """The columns of a sketch between the places are skipped: 1e12 of them could not be walked through."""
    rng = np.random.default_rng(0)
    indices = np.sort(rng.choice(10**12, 40, replace=False))
    S = randla.SparseSign(9, 10**12, nnz=4, rng=1)
    columns = Places(indices, 10**12).of(S, np.empty(0))
    assert np.array_equal(columns, np.concatenate([S.toarray(int(i), int(i) + 1) for i in indices], axis=1))


def test_streaming_in_single_precision_and_complex(any_dtype: str) -> None:
    rng = np.random.default_rng(1)
    A = of_spectrum(200, 90, 0.5 ** np.arange(90))
    if any_dtype.startswith("complex"):
        A = A * np.exp(2j * np.pi * rng.random((200, 1))) * np.exp(2j * np.pi * rng.random(90))
    A = A.astype(any_dtype)
    for state in (StreamingSVD(A.shape, 6, rng=0), StreamingSVD(A.shape, 6, co_range=False, rng=0)):
        i, j = np.nonzero(np.ones((50, 90)))
        U, _, Vh = np.linalg.svd(A[50:90], full_matrices=False)
        state.update_entries(i, j, A[i, j]).update_rows(sp.csr_array(A[90:]), 90)
        F = np.zeros((200, 40), any_dtype)
        F[50:90] = (U * np.linalg.svd(A[50:90], compute_uv=False)).astype(any_dtype)
        state.update_low_rank(F, Vh.conj().T)
        result = state.finalize()
        best = np.linalg.norm(np.linalg.svd(A, compute_uv=False)[6:])
        rounding = tolerance(any_dtype, A.size, np.linalg.norm(A))
        assert np.linalg.norm(A - result.to_dense()) <= 1.5 * best + rounding
        assert result.U.dtype == any_dtype
        assert result.s.dtype == A.real.dtype
        assert same(StreamingSVD.from_bytes(state.to_bytes()), state, 0.0)


def test_streaming_on_any_backend(xp: Any, put: Any, dtype: str) -> None:
    A = of_spectrum(80, 60, 0.7 ** np.arange(60)).astype(dtype)
    state = StreamingSVD(A.shape, 3, rng=0).update_rows(put(A[:50])).update_columns(put(np.zeros((80, 2), dtype)), 5)
    i, j = np.nonzero(np.ones((20, 60)))
    state.update_entries(put(i), put(j), put(A[50:70].ravel()))  # the first twenty rows get what belongs further down
    state.update_entries(put(i), put(j), put(-A[50:70].ravel())).update_entries(
        put(i + 50), put(j), put(A[50:70].ravel())
    )
    tail = np.zeros((80, 10), dtype)
    tail[70:] = np.eye(10)
    state.update_low_rank(put(tail), put(np.ascontiguousarray(A[70:].T)))
    host = StreamingSVD(A.shape, 3, rng=0).update(A)
    for ours, theirs in zip(state._arrays(), host._arrays(), strict=True):
        assert np.linalg.norm(to_host(ours) - theirs) <= tolerance(dtype, A.size, np.linalg.norm(theirs))
    result = state.finalize()
    assert result.U.device == put(A).device
    back = StreamingSVD.from_bytes(state.to_bytes(), like=put(A))
    assert to_host(back.merge(state, weight=-1.0)._Y).any() is np.False_
    assert back.finalize().error == 0.0


def test_streaming_finalize_again_and_at_lower_rank() -> None:
    A = of_spectrum(120, 80, 0.5 ** np.arange(80))
    state = StreamingSVD(A.shape, 5, rng=0).update(A)
    first, low = state.finalize(), state.finalize(2)
    assert low.rank == 2
    assert np.allclose(low.s, first.s[:2])
    assert np.array_equal(state.finalize().U, first.U)
    assert state.n_bytes == 8 * (80 * 21 + 120 * 21 + 43**2 + 20 * 80)
    assert "1 updates" in repr(state)


def test_streaming_states_that_are_no_good() -> None:
    flat = np.random.default_rng(0).standard_normal((400, 400))
    with pytest.warns(ConvergenceWarning, match="StreamingSVD ended with Status.BREAKDOWN"):
        StreamingSVD(flat.shape, 20, rng=0).update(flat).finalize()
    bad = np.ones((30, 20))
    bad[3, 4] = np.nan
    result = StreamingSVD(bad.shape, 2, rng=0).update(bad).finalize(on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert math.isnan(result.error)
    zero = StreamingSVD((30, 20), 2, rng=0).update(np.zeros((30, 20))).finalize()
    assert (zero.error, zero.error_bound, zero.rank) == (0.0, 0.0, 2)
    assert np.linalg.norm(zero.U.T @ zero.U - np.eye(2)) <= tolerance("float64", 60)


def bad_streams() -> list[tuple[Callable[[], Any], type[Exception], str]]:
    A = np.ones((6, 5))
    new = lambda **options: StreamingSVD((6, 5), 2, rng=0, **options)  # noqa: E731
    begun = lambda: new().update(A)  # noqa: E731
    return [
        (lambda: StreamingSVD(6, 2), ValueError, "shape must be two integers, got 6"),
        (lambda: StreamingSVD((6, 0), 1), ValueError, r"shape\[1\] must be at least 1, got 0"),
        (lambda: StreamingSVD((6, 5), 6), ValueError, r"rank must be in \[1, 5\], got 6"),
        (lambda: new(sketch="srht"), ValueError, "sketch must be one of"),
        (lambda: new(co_range=0), TypeError, "co_range must be True or False"),
        (lambda: new(sketch_size=2), ValueError, "sketch_size must be at least 3, got 2"),
        (lambda: new(core_size=4), ValueError, "core_size must be at least 9, got 4"),
        (lambda: new(n_probes=0), ValueError, "n_probes must be at least 1"),
        (lambda: new().finalize(), ValueError, "finalize must come after a change, got none"),
        (lambda: begun().finalize(3), ValueError, r"rank must be in \[1, 2\], got 3"),
        (lambda: begun().finalize(on_failure="no"), ValueError, "on_failure must be"),
        (lambda: new().update(A.T), ValueError, r"A must have shape \(6, 5\), got \(5, 6\)"),
        (lambda: new().update(iter([A])), TypeError, "A must be readable more than once"),
        (lambda: begun().update(A + 1j), ValueError, "A must be real, as what came first was"),
        (lambda: new().update(A, decay=math.nan), ValueError, "decay must be finite"),
        (lambda: new().update_rows(A, 1), ValueError, "block must have at most 5 rows from 1 on"),
        (lambda: new().update_rows(A[:, :4]), ValueError, "block must have 5 columns"),
        (lambda: new().update_rows(A[:1], -1), ValueError, "start must be at least 0"),
        (lambda: new().update_columns(A, 2), ValueError, "block must have at most 3 columns from 2 on"),
        (lambda: new().update_columns(A[:5]), ValueError, "block must have 6 rows"),
        (lambda: new().update_entries([6], [0], [1.0]), ValueError, r"rows must be in \[0, 5\], got 6"),
        (lambda: new().update_entries([0], [-1], [1.0]), ValueError, r"columns must be in \[0, 4\], got -1"),
        (lambda: new().update_entries([0.5], [1], [1.0]), TypeError, "rows must be integers, got dtype float64"),
        (lambda: new().update_entries([0, 1], [1], [1.0]), ValueError, "rows must have 1 entries as values has, got 2"),
        (lambda: new().update_entries([[0]], [1], [1.0]), ValueError, "rows must be 1-D"),
        (lambda: begun().update_entries([0], [1], [1j]), ValueError, "values must be real"),
        (lambda: new().update_low_rank(np.ones(5), np.ones(5)), ValueError, "F must have 6 rows"),
        (lambda: new().update_low_rank(np.ones(6), np.ones(6)), ValueError, "H must have 5 rows"),
        (lambda: new().update_low_rank(np.ones((6, 2)), np.ones(5)), ValueError, "H must have 2 columns as F has"),
        (lambda: begun().update_low_rank(np.ones(6), 1j * np.ones(5)), ValueError, "H must be real"),
        (lambda: new().merge(FrequentDirections(3)), TypeError, "other must be a StreamingSVD"),
        (lambda: new().merge(StreamingSVD((6, 5), 2, rng=1)), ValueError, "other must have key="),
        (lambda: new().merge(StreamingSVD((6, 5), 1, rng=0)), ValueError, "other must have rank=2 to be merged"),
    ]


@pytest.mark.parametrize(("call", "error", "message"), bad_streams())
def test_bad_streams(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_refused_changes_leave_the_state_alone() -> None:
    A = np.random.default_rng(0).standard_normal((6, 5))
    state = StreamingSVD((6, 5), 2, rng=0).update(A)
    before = state.to_bytes()
    for change in (
        lambda: state.update_rows(A + 1j),
        lambda: state.update_low_rank(A, 1j * np.eye(5)),
        lambda: state.merge(StreamingSVD((6, 5), 2, rng=0).update(A + 1j)),
        lambda: state.update_entries([0], [9], [1.0]),
    ):
        with pytest.raises(ValueError):
            change()
    assert state.to_bytes() == before
    assert state.update_entries([], [], []).n_updates == 2


# --- bytes ------------------------------------------------------------------------------------------------------------


def resigned(data: bytes) -> bytes:
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def test_bytes_are_checked() -> None:
    A = np.random.default_rng(0).standard_normal((40, 9))
    states = {
        FrequentDirections: FrequentDirections(4).partial_fit(A).to_bytes(),
        FrequentDirectionsRidge: FrequentDirectionsRidge(4, 1.0).partial_fit(A, A[:, 0]).to_bytes(),
        StreamingSVD: StreamingSVD((40, 9), 2, rng=0).update(A).to_bytes(),
    }
    for cls, data in states.items():
        assert cls.from_bytes(bytearray(data)).to_bytes() == data
        version = data[:12] + b"\x09" + data[13:]
        cases = [
            (b"", "data must begin with"),
            (b"PK" + data, "data must begin with"),
            (data[:30], "data must have at least"),
            (data[:-40], "data must match its checksum"),
            (data[:100] + bytes([data[100] ^ 1]) + data[101:], "data must match its checksum"),
            (version, "data must be of version 1"),
            (resigned(data[:-40] + data[-32:]), "contradiction"),
        ]
        for bad, message in cases:
            with pytest.raises(ValueError, match=message):
                cls.from_bytes(bad)
        with pytest.raises(TypeError, match="data must be bytes, got str"):
            cls.from_bytes("randlaST")
        for other in states.keys() - {cls}:
            with pytest.raises(ValueError, match="data must be a state of kind"):
                other.from_bytes(data)


def test_bytes_survive_no_flip_of_a_header_bit() -> None:
    """Every single bit of the numbers of a header, signed again, is read to a state of the same kind or refused."""
    A = np.random.default_rng(0).standard_normal((40, 9))
    refused = 0
    for cls, data, stop in [
        (FrequentDirections, FrequentDirections(4).partial_fit(A).to_bytes(), 24 + 8 * 6 + 24 * 2),
        (StreamingSVD, StreamingSVD((40, 9), 2, rng=0).update(A).to_bytes(), 24 + 8 * 12 + 24 * 4),
    ]:
        for position in range(24, stop):
            for bit in (0, 5, 7):
                bad = bytearray(data)
                bad[position] ^= 1 << bit
                try:
                    state = cls.from_bytes(resigned(bytes(bad)))
                except (ValueError, MemoryError):  # a buffer of 2**30 rows is no contradiction
                    refused += 1
                else:
                    assert state.to_bytes() == resigned(bytes(bad))
    assert refused > 300
