"""One-sided completion: exact sums over pairs, fits with known errors, and an estimate of the error that is right."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.exceptions import ConvergenceWarning as SklearnWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla import ConvergenceError, ConvergenceWarning, OneSidedCompletion, PairMoments, RowBlocks, Status
from randla import one_sided_completion as complete
from randla._arrays import to_host
from randla._random import as_key
from randla.completion.pair_fits import PairFit
from randla.completion.quasi_newton import minimise

from .conftest import tolerance
from .statistics import FALSE_ALARM, binomial_upper, chebyshev
from .test_estimators import Recorder


def pairs_table(m: int, d: int, rank: int, seed: int = 0) -> tuple[np.ndarray, sp.csr_array]:
    """Gaussian factors V (d, rank), and a table with rows V z of which two entries are stored."""
    rng = np.random.default_rng(seed)
    V, Z = rng.standard_normal((d, rank)), rng.standard_normal((m, rank))
    first = rng.integers(0, d, m)
    second = (first + 1 + rng.integers(0, d - 1, m)) % d
    columns = np.sort(np.stack([first, second], axis=1), axis=1)
    values = np.stack([np.sum(Z * V[columns[:, t]], axis=1) for t in range(2)], axis=1)
    return V, sp.csr_array((values.ravel(), columns.ravel(), np.arange(0, 2 * m + 1, 2)), shape=(m, d))


def holes(m: int, d: int, density: float, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((m, d)) < density, rng.standard_normal((m, d)) + mean, np.nan)


def stored(X: np.ndarray) -> sp.csr_array:
    """A CSR matrix of the entries that are not NaN, zeros among them stored."""
    rows, columns = np.nonzero(~np.isnan(X))
    return sp.csr_array((X[rows, columns], (rows, columns)), shape=X.shape)


def truth(X: np.ndarray, p: np.ndarray | None = None, center: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Means of products and counts by the definition, one pair of columns after the other."""
    d, seen = X.shape[1], ~np.isnan(X)
    w = np.ones_like(X) if p is None else 1.0 / p
    means, counts = np.zeros((d, d)), np.zeros((d, d), int)
    mu = [np.average(X[seen[:, a], a], weights=w[seen[:, a], a]) if seen[:, a].any() else 0.0 for a in range(d)]
    for a in range(d):
        for b in range(d):
            both = seen[:, a] & seen[:, b]
            counts[a, b] = both.sum()
            if both.any():
                x, y = (X[both, c] - (mu[c] if center else 0.0) for c in (a, b))
                means[a, b] = np.average(x * y, weights=w[both, a] * (w[both, b] if a != b else 1.0))
    return means, counts


def moments_of(X: Any, **options: Any) -> PairMoments:
    return PairMoments(X.shape[1], **options).update(X)


def angles(V: np.ndarray, W: np.ndarray) -> float:
    """The mean principal angle between two column spaces, in degrees."""
    cosines = np.linalg.svd(np.linalg.qr(V)[0].T @ np.linalg.qr(W)[0], compute_uv=False)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# --- sums over pairs --------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 30), st.integers(1, 7), st.floats(0, 1), st.sampled_from(["sparse", "dense"]), st.booleans(),
    st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_means_and_counts(
    m: int, d: int, density: float, storage: str, center: bool, weighted: bool, csr: bool
) -> None:
    X = holes(m, d, density, seed=m * d, mean=0.5)
    p = np.random.default_rng(1).uniform(0.2, 1, X.shape) if weighted else None
    means, counts = truth(X, p, center)
    state = PairMoments(d, storage=storage, center=center, weighted=weighted)
    state.update(stored(X) if csr else X, propensity=p)
    found, seen = (M.toarray() if sp.issparse(M) else M for M in state.matrices())
    assert seen.dtype == np.int64
    assert np.array_equal(seen, counts)
    assert np.abs(found - means).max() <= tolerance("float64", m, 100)
    assert state.n_pairs == (np.count_nonzero(counts) - np.count_nonzero(np.diag(counts))) // 2
    assert state.n_rows == m


def test_dense_products_and_the_kernel_agree() -> None:
    """A full table is multiplied, one with few entries goes through the kernel."""
    full = holes(500, 40, 0.9)
    few = np.where(np.random.default_rng(1).random(full.shape) < 0.05, full, np.nan)
    for X in (full, few):
        one, other = (moments_of(X, storage=storage, center=True) for storage in ("dense", "sparse"))
        for mine, theirs in zip(one.matrices(), other.matrices(), strict=True):
            assert np.abs(mine - theirs.toarray()).max() <= tolerance("float64", 500, 10)


@pytest.mark.parametrize("storage", ["sparse", "dense"])
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_in_any_order_are_the_whole(storage: str, weighted: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = stored(holes(400, 30, 0.1))
    p = rng.uniform(0.1, 1, (400, 1)) if weighted else None
    options: dict[str, Any] = {"storage": storage, "center": True, "weighted": weighted}
    whole = PairMoments(30, **options).update(X, propensity=p)
    cuts = [0, *np.sort(rng.integers(0, 401, 6)).tolist(), 400]
    order = rng.permutation(len(cuts) - 1)
    spans = [list(pairwise(cuts))[i] for i in order]
    chain, parts = PairMoments(30, **options), []
    for lo, hi in spans:
        part = None if p is None else p[lo:hi]
        chain.update(X[lo:hi], propensity=part, start=lo)
        parts.append(PairMoments(30, **options).update(X[lo:hi], propensity=part, start=lo))
    merged = PairMoments(30, **options)
    for state in parts:
        merged.merge(PairMoments.from_bytes(state.to_bytes()))
    blocks = RowBlocks(lambda: (X[i : i + 70] for i in range(0, 400, 70)), X.shape, X.dtype)
    streamed = PairMoments(30, **options).update(blocks, propensity=p)
    for state in (chain, merged, streamed):
        assert state.n_rows == 400
        assert np.array_equal(state.column_counts, whole.column_counts)
        for mine, theirs in zip(state.table.arrays(), whole.table.arrays(), strict=True):
            if mine.dtype == np.int64:  # keys and counts of each group
                assert np.array_equal(mine, theirs)
            assert np.abs(mine - theirs).max() <= tolerance("float64", 400, 1e3)
    base, other = (complete(state, 2, on_failure="ignore") for state in (whole, merged))
    assert np.abs(base.second_moment.to_dense() - other.second_moment.to_dense()).max() < 1e-5


def test_bytes_keep_every_bit(dtype: str) -> None:
    for storage in ("sparse", "dense"):
        state = moments_of(stored(holes(60, 9, 0.4)).astype(dtype), storage=storage, center=True)
        again = PairMoments.from_bytes(state.to_bytes())
        assert again.to_bytes() == state.to_bytes()
        assert (again.dtype, again.n_rows, again.center) == (dtype, 60, True)
        for mine, theirs in zip(again.table.arrays(), state.table.arrays(), strict=True):
            assert np.array_equal(mine, theirs)
    assert PairMoments.from_bytes(PairMoments(4).to_bytes()).n_rows == 0


def test_bytes_that_were_altered() -> None:
    data = moments_of(holes(20, 5, 0.5), storage="sparse").to_bytes()
    for bad, match in ((data[:-5], "checksum"), (b"x" + data, "begin with"), (data[:10], "at least")):
        with pytest.raises(ValueError, match=match):
            PairMoments.from_bytes(bad)
    with pytest.raises(TypeError, match="data must be bytes"):
        PairMoments.from_bytes("text")


def test_bytes_of_contradictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a checksum that fits: keys out of order, keys of a column with itself, negative counts, wrong shapes."""
    state = moments_of(holes(20, 5, 0.5), storage="sparse")
    run = state.table.run()
    for keys, counts, sums in (
        (run.keys[::-1], run.counts, run.sums),
        (run.keys * 0 + np.arange(len(run.keys)) // 9, run.counts, run.sums),
        (run.keys, -run.counts, run.sums),
        (run.keys, run.counts, np.hstack([run.sums, run.sums])),
        (run.keys, run.counts.astype(float), run.sums),
    ):
        monkeypatch.setattr(state.table, "arrays", lambda k=keys, c=counts, s=sums: (k[None, :], c[None, :], s))
        with pytest.raises(ValueError, match="data must hold"):
            PairMoments.from_bytes(state.to_bytes())


def test_groups_are_balanced_and_depend_on_the_row_number_only() -> None:
    state = moments_of(np.ones((8000, 2)), storage="sparse")
    counts = state.column_counts[:, 0]
    deviation = chebyshev(8000, 1 / 8 * 7 / 8) * 8000
    assert np.abs(counts - 1000).max() <= deviation
    other = PairMoments(2, storage="sparse").update(-np.ones((8000, 2)))
    assert np.array_equal(other.column_counts, state.column_counts)
    shifted = PairMoments(2, storage="sparse").update(np.ones((8000, 2)), start=8000)
    assert not np.array_equal(shifted.column_counts, state.column_counts)


def test_inverse_propensities_take_a_bias_off() -> None:
    """Large rows show half of their entries, small ones a tenth: means of products lean on the large ones."""
    rng = np.random.default_rng(0)
    m, d = 20_000, 6
    large = rng.random(m) < 0.5
    X = np.where(large, 3.0, 1.0)[:, None] * rng.choice([-1.0, 1.0], m)[:, None] * np.ones(d)
    p = np.where(large, 0.5, 0.1)[:, None]
    seen = np.where(rng.random((m, d)) < p, X, np.nan)
    plain = moments_of(seen).matrices()[0]
    corrected = PairMoments(d, weighted=True).update(seen, propensity=p).matrices()[0]
    off = ~np.eye(d, dtype=bool)
    assert plain[off].min() > 8.5  # (9 * 0.25 + 1 * 0.01) / 0.26
    # 5 in truth; an average of m draws of weights x products, of mean 5 and variance (81 / 0.25 + 1 / 0.01) / 2 - 25,
    # over that of weights, of mean 1 and variance (1 / 0.25 + 1 / 0.01) / 2 - 1; the ratio errs by less than twice each
    deviation = chebyshev(m, 187 + 25 * 51, false_alarm=1e-3)
    assert np.abs(corrected - 5.0).max() <= 2 * deviation
    assert abs(corrected.mean() - 5.0) < 0.2 * abs(plain.mean() - 5.0)


def test_stored_zeros_are_observations() -> None:
    X = sp.csr_array((np.zeros(4), [0, 1, 0, 1], [0, 2, 4]), shape=(2, 3))
    assert moments_of(X, storage="sparse").matrices()[1].toarray().tolist() == [[2, 2, 0], [2, 2, 0], [0, 0, 0]]
    assert complete(X, 1).converged
    assert np.all(complete(X, 1).V == 0.0)


def test_integers_wide_indices_and_untouched_input() -> None:
    X = stored(np.round(10 * holes(50, 8, 0.5)))
    wide = sp.csr_array((X.data.astype(int), X.indices.astype(np.int64), X.indptr.astype(np.int64)), shape=X.shape)
    before = copy.deepcopy(wide)
    states = [moments_of(M) for M in (X, wide, X.tocsc(), X.tocoo())]
    for state in states[1:]:
        assert np.abs(state.matrices()[0] - states[0].matrices()[0]).max() <= tolerance("float64", 50, 1e3)
    assert abs(wide - before).max() == 0
    assert wide.indices.dtype == np.int64


def test_long_rows_and_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    X = stored(holes(300, 25, 0.3))
    expected = moments_of(X, storage="sparse").table.run()
    for name, size in (("_PAIRS", 50), ("_ROWS", 7), ("_BLOCK_ENTRIES", 60)):
        monkeypatch.setattr(f"randla.completion.moments.{name}", size)
        found = moments_of(X, storage="sparse").table.run()
        assert np.array_equal(found.keys, expected.keys)
        assert np.array_equal(found.counts, expected.counts)
        assert np.abs(found.sums - expected.sums).max() <= tolerance("float64", 300, 10)
    full, again = moments_of(X.toarray()), moments_of(X.toarray(), storage="sparse")
    assert np.abs(full.matrices()[0] - again.matrices()[0]).max() <= tolerance("float64", 300, 10)


def test_memory_follows_the_pairs_and_not_the_square() -> None:
    """d = 20,000 with two entries in each row: the square would take 3.2 GB in doubles, and the pairs 1 MB."""
    m, d = 40_000, 20_000
    X = pairs_table(m, d, 2)[1]
    moments_of(X[:10])  # compiled
    tracemalloc.start()
    state = moments_of(X)
    added = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    result = complete(state, 2, max_iter=2, rng=0, on_failure="ignore")
    fitted = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state.storage == "sparse"
    assert state.n_pairs > 0.98 * m
    # 24 bytes for a pair, its entries and temporaries, and tables (groups, d) of columns and of the kernel
    assert added < 300 * m + 64 * 8 * 4 * d
    # two copies of the pairs, and a Krylov space of 7 blocks of 12 columns with its temporaries
    assert fitted < 500 * m + 3 * 8 * 84 * d
    assert fitted < 8 * d * d / 20
    assert result.V.shape == (d, 2)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "n_features must be", lambda: PairMoments(0)),
        (ValueError, "storage must be one of", lambda: PairMoments(3, storage="full")),
        (TypeError, "center must be True or False", lambda: PairMoments(3, center=1)),
        (ValueError, "n_groups must be 1 or an even number", lambda: PairMoments(3, n_groups=3)),
        (ValueError, "n_groups must be 1 or an even number", lambda: PairMoments(3, n_groups=2)),
        (ValueError, "X must have 3 columns", lambda: PairMoments(3).update(np.ones((2, 4)))),
        (ValueError, "X must have no infinite", lambda: PairMoments(3).update(np.full((2, 3), np.inf))),
        (ValueError, "start must be", lambda: PairMoments(3).update(np.ones((2, 3)), start=-1)),
        (ValueError, "propensity must be None", lambda: PairMoments(2).update(np.ones((2, 2)), propensity=[[1.0]])),
        (ValueError, "propensity must be given", lambda: PairMoments(2, weighted=True).update(np.ones((2, 2)))),
        (ValueError, r"propensity must be in \(0, 1\]", lambda: _weighted(np.zeros((2, 2)))),
        (ValueError, r"propensity must be in \(0, 1\]", lambda: _weighted(np.full((2, 2), np.nan))),
        (ValueError, r"propensity must have shape \(2, 2\)", lambda: _weighted(np.ones((1, 2)))),
        (ValueError, "propensity must store the entries", lambda: _weighted(sp.csr_array(np.eye(2)))),
        (ValueError, "the state must have seen rows", lambda: PairMoments(3).matrices()),
        (ValueError, "the state must have seen rows", lambda: PairMoments(3).mean),
        (TypeError, "other must be a PairMoments", lambda: PairMoments(3).merge("x")),
        (ValueError, "other must have center=False", lambda: PairMoments(3).merge(PairMoments(3, center=True))),
        (ValueError, "other must have storage='dense'", lambda: _full(storage="dense").merge(_full(storage="sparse"))),
        (ValueError, "other must have storage='dense'", lambda: PairMoments(2, storage="dense").merge(_full("sparse"))),
    ],
)
def test_bad_input_of_the_moments(error: type, match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call()


def _weighted(p: Any) -> PairMoments:
    return PairMoments(2, weighted=True).update(np.ones((2, 2)), propensity=p)


def _full(storage: str) -> PairMoments:
    return moments_of(np.ones((2, 2)), storage=storage)


def test_entries_that_are_stored_twice() -> None:
    X = sp.coo_array(([1.0, 2.0, 3.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    with pytest.raises(ValueError, match="X must store each entry once"):
        moments_of(X)
    bad = sp.csr_array(([1.0, np.nan], [0, 1], [0, 2]), shape=(1, 2))
    with pytest.raises(ValueError, match="X must have finite stored entries"):
        moments_of(bad)


def test_arrays_of_any_library(put: Any, xp: Any, dtype: str) -> None:
    X = holes(40, 6, 0.6).astype(dtype)
    p = np.random.default_rng(0).uniform(0.3, 1, (40, 1))
    device = PairMoments(6, center=True, weighted=True).update(put(X), propensity=put(p))
    host = PairMoments(6, center=True, weighted=True).update(X, propensity=p)
    for mine, theirs in zip(device.matrices(), host.matrices(), strict=True):
        assert np.abs(to_host(mine) - theirs).max() <= tolerance("float64", 40, 10)
    if xp.__name__ not in ("numpy", "cupy"):
        with pytest.raises(NotImplementedError, match='storage must be "dense"'):
            PairMoments(6, storage="sparse").update(put(X))
    merged = PairMoments(6).update(put(X)).merge(PairMoments(6).update(put(X)))
    result = complete(merged, 2, on_failure="ignore")
    expected = complete(PairMoments(6).update(X).update(X, start=0), 2, on_failure="ignore")
    assert to_host(result.components).dtype == dtype
    assert np.abs(to_host(result.second_moment.to_dense()) - expected.second_moment.to_dense()).max() < 1e-4
    Z = result.transform(put(X))
    assert np.abs(to_host(Z) - expected.transform(X)).max() < 1e-3


# --- fits -------------------------------------------------------------------------------------------------------------

#: Rows -> mean principal angles of the fit and of plain eigenvectors, relative error of Theta: one draw each, from the
#: specification, for d = 100, rank 3, Gaussian factors and two entries in each row.
TABLE = {2_000: (34.5, 52.9, 0.78), 10_000: (15.4, 23.6, 0.38), 50_000: (6.6, 8.6, 0.165), 200_000: (3.0, 3.6, 0.075)}


def measured(m: int, seed: int) -> tuple[float, float, float]:
    V, X = pairs_table(m, 100, 3, seed)
    state = moments_of(X)
    result = complete(state, 3, check=False)
    plain = np.linalg.eigh(state.matrices()[0])[1][:, -3:]
    return angles(result.V, V), angles(plain, V), relative(result.second_moment.to_dense(), V @ V.T)


@pytest.mark.parametrize("m", [2_000, 10_000, pytest.param(50_000, marks=pytest.mark.slow), 200_000])
def test_table_of_errors(m: int) -> None:
    """Each number of the table lies in the prediction interval of other draws, taken as normal; the fit is better."""
    if m == 200_000:
        draws = np.array([measured(m, seed) for seed in range(4)])
    else:
        draws = np.array([measured(m, seed) for seed in range(12)])
    n = len(draws)
    width = stats.t.isf(FALSE_ALARM / 2, n - 1) * draws.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    assert np.all(np.abs(draws.mean(axis=0) - TABLE[m]) <= width)
    # the interval of few draws is wide; so the means must be near as well: within a quarter of each number
    assert np.all(np.abs(draws.mean(axis=0) / TABLE[m] - 1) < 0.25)
    assert np.all(draws[:, 0] < draws[:, 1])


@pytest.mark.slow
def test_error_halves_with_four_times_the_rows() -> None:
    errors = [np.mean([measured(m, seed)[2] for seed in range(6)]) for m in (12_500, 50_000, 200_000)]
    for before, after in pairwise(errors):
        assert 0.4 < after / before < 0.6


@pytest.mark.parametrize("storage", ["sparse", "dense"])
@pytest.mark.parametrize("d", [12, 60])
def test_all_pairs_without_noise_are_recovered(storage: str, d: int) -> None:
    """Rows that show everything: the means are the second moment of the rows, of rank 3, and so is the fit."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3)) @ rng.standard_normal((3, d))
    result = complete(moments_of(X, storage=storage), 3, tol=1e-12)
    Theta = X.T @ X / 200
    assert relative(result.second_moment.to_dense(), Theta) < 1e-9
    assert result.residual < 1e-9
    w = np.linalg.eigvalsh(Theta)[::-1][:3]
    assert np.abs(result.eigenvalues - w).max() <= 1e-8 * w[0]
    assert np.abs(result.singular_values - np.linalg.svd(X, compute_uv=False)[:3]).max() < 1e-6
    assert np.abs(result.components @ result.components.T - np.eye(3)).max() <= tolerance("float64", d)
    penalised = complete(moments_of(X, storage=storage), 3, estimator="hajek")
    assert relative(penalised.second_moment.to_dense(), Theta) < 0.02  # the penalty shrinks it


def test_enough_pairs_without_noise_are_recovered() -> None:
    """Rank 1, each row with the same square: the means of pairs are exact, and three quarters of them suffice."""
    rng = np.random.default_rng(0)
    v = rng.uniform(0.5, 2, 20) * rng.choice([-1.0, 1.0], 20)
    rows = [(a, b) for a in range(20) for b in range(a + 1, 20) if (a + b) % 4]
    X = np.full((len(rows), 20), np.nan)
    for i, (a, b) in enumerate(rows):
        X[i, [a, b]] = v[[a, b]] * rng.choice([-1.0, 1.0])
    result = complete(X, 1, tol=1e-12)
    assert relative(result.second_moment.to_dense(), np.outer(v, v)) < 1e-9


def test_pairs_that_were_never_seen_are_no_zeros() -> None:
    """Columns 0-1 and 1-2 are seen together, 0-2 never; the product of the means says what it is."""
    X = np.array([[1.0, 2.0, np.nan], [np.nan, 2.0, -3.0]] * 4)
    state = moments_of(X)
    assert state.matrices()[1][0, 2] == 0
    result = complete(state, 1, tol=1e-12)
    assert abs(result.second_moment.entries([0], [2])[0] + 3.0) < 1e-6
    assert relative(result.second_moment.to_dense(), np.outer([1, 2, -3], [1, 2, -3])) < 1e-6


def test_columns_may_be_permuted_and_scaled() -> None:
    X = pairs_table(20_000, 30, 2)[1]
    order = np.random.default_rng(0).permutation(30)
    for storage in ("sparse", "dense"):
        base = complete(moments_of(X, storage=storage), 2, tol=1e-11)
        moved = complete(moments_of(sp.csr_array(X[:, order]), storage=storage), 2, tol=1e-11)
        expected = base.second_moment.to_dense()[np.ix_(order, order)]
        assert relative(moved.second_moment.to_dense(), expected) < 1e-7
        assert abs(moved.error - base.error) < 1e-3 * base.error
        for scale in (1e-20, 1e20):
            scaled = complete(moments_of(X * scale, storage=storage), 2, tol=1e-11)
            assert relative(scaled.second_moment.to_dense() / scale**2, base.second_moment.to_dense()) < 1e-7
            assert abs(scaled.error - base.error) < 1e-3 * base.error


def test_krylov_start_of_wide_tables() -> None:
    """More than 500 columns: no square array is formed, and the fit is that of the full eigendecomposition."""
    X = pairs_table(150_000, 600, 1)[1]
    sparse, dense = (complete(moments_of(X, storage=s), 1, rng=0, tol=1e-9, check=False) for s in ("sparse", "dense"))
    assert relative(sparse.second_moment.to_dense(), dense.second_moment.to_dense()) < 1e-6
    again = complete(moments_of(X, storage="sparse"), 1, rng=0, tol=1e-9, check=False)
    assert np.array_equal(again.V, sparse.V)


def test_noise_on_the_diagonal_needs_no_weight() -> None:
    rng = np.random.default_rng(0)
    V, X = pairs_table(60_000, 20, 2, seed=1)
    noisy = X.copy()
    noisy.data = X.data + 2.0 * rng.standard_normal(X.data.size)
    plain, without = (complete(noisy, 2, diagonal_weight=w) for w in (1.0, 0.0))
    assert without.error_norm == "co-observed off-diagonal"
    assert relative(without.second_moment.to_dense(), V @ V.T) < 0.5 * relative(plain.second_moment.to_dense(), V @ V.T)


def test_centring_takes_the_mean_away() -> None:
    V, X = pairs_table(40_000, 15, 2, seed=2)
    shifted = X.copy()
    shifted.data = X.data + 3.0
    base, centred = complete(X, 2), complete(shifted, 2, center=True)
    assert relative(centred.second_moment.to_dense(), V @ V.T) < 1.2 * relative(base.second_moment.to_dense(), V @ V.T)
    means = [shifted[:, [a]].data.mean() for a in range(15)]
    assert np.abs(centred.mean - means).max() <= tolerance("float64", 40_000, 3)
    with_mean = complete(shifted, 2)
    first = np.abs(with_mean.components[0] @ np.ones(15)) / np.sqrt(15)
    assert first > 0.95
    assert base.mean is None


def test_columns_that_are_never_seen_are_left_at_zero() -> None:
    X = np.full((30, 5), np.nan)
    X[:, [0, 2, 3]] = np.random.default_rng(0).standard_normal((30, 1)) * [1.0, 2.0, 3.0]
    for storage in ("sparse", "dense"):
        result = complete(moments_of(X, storage=storage), 1)
        assert np.all(result.V[[1, 4]] == 0.0)
        assert result.converged


# --- how wrong it is --------------------------------------------------------------------------------------------------


def weighted_error(state: PairMoments, result: Any, Theta: np.ndarray) -> float:
    """What `error` estimates: pairs as often as they were seen, and the diagonal as its d entries."""
    counts = state.matrices()[1].astype(float)
    d, off = len(counts), counts - np.diag(np.diag(counts))
    W = off * ((1 - 1 / d) / off.sum()) + np.diag(np.diag(counts)) / (d * np.trace(counts))
    wrong = result.second_moment.to_dense() - Theta
    return float(np.sqrt(np.sum(W * wrong**2) / np.sum(W * Theta**2)))


def judged(rank: int, fitted: int, m: int, seed: int) -> tuple[float, Any]:
    V, X = pairs_table(m, 30, rank, seed)
    state = moments_of(X)
    result = complete(state, fitted, tol=1e-6)
    return weighted_error(state, result, V @ V.T), result


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "fitted"), [(2, 2), (3, 2), (2, 3), (1, 1)])
def test_bound_holds_as_often_as_it_says(rank: int, fitted: int) -> None:
    """Ranks that are right, too small and too large: 40 draws each."""
    draws = [judged(rank, fitted, 6000, seed) for seed in range(40)]
    misses = sum(result.error_bound < true for true, result in draws)
    assert misses <= binomial_upper(40, 0.05)
    ratios = np.array([result.error / true for true, result in draws])
    assert 0.75 < np.median(ratios) < 1.4
    assert all(result.confidence == 0.95 and result.error_kind == "halves" for _, result in draws)


def test_error_sees_a_rank_that_is_too_small() -> None:
    true, result = judged(3, 1, 60_000, 0)
    assert result.error_bias > 3 * result.error_spread
    assert abs(result.error / true - 1) < 0.2
    true, good = judged(3, 3, 60_000, 0)
    assert good.error < 0.2 * result.error
    assert good.error_spread > 0.5 * good.error
    assert true < good.error_bound


def test_error_that_cannot_be_known() -> None:
    X = pairs_table(5000, 10, 1)[1]
    for result in (complete(X, 1, check=False), complete(moments_of(X, n_groups=1), 1)):
        assert np.isnan(result.error)
        assert result.error_bound == np.inf
        assert result.error_kind == "none"
    few = complete(X[:3], 1, on_failure="ignore")  # no pair occurs in two groups
    assert few.error_kind == "none"
    assert few.error_bound == np.inf


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("center", [False, True])
def test_cells_are_conditional_means(noise: float, center: bool) -> None:
    """Rows with none, few and many entries against Theta[j, S] (Theta[S, S] + noise I)^+ x_S."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 12)) + 1.0
    result = complete(X, 3, center=center)
    seen = np.where(rng.random((40, 12)) < rng.random((40, 1)), X[:40], np.nan)
    seen[0], seen[1, 1:] = np.nan, np.nan
    Theta, mu = result.second_moment.to_dense(), result.mean if center else np.zeros(12)
    expected = np.empty((40, 12))
    for i, row in enumerate(seen):
        S = np.nonzero(~np.isnan(row))[0]
        core = Theta[np.ix_(S, S)] + noise * np.eye(S.size)
        inverse = np.linalg.pinv(core, rcond=1e-10) if S.size else np.zeros((0, 0))
        expected[i] = mu + Theta[:, S] @ inverse @ (row[S] - mu[S])
    rows, columns = (grid.ravel() for grid in np.indices((40, 12)))
    for table in (seen, stored(seen)):
        cells = result.predict_cells(table, rows, columns, noise_variance=noise)
        assert np.abs(cells.reshape(40, 12) - expected).max() < 1e-6
        Z = result.transform(table, noise_variance=noise)
        assert np.abs(Z @ result.components + mu - expected).max() < 1e-6
    assert np.all(result.transform(seen)[0] == 0.0)
    backwards = result.predict_cells(seen, rows[::-1], columns[::-1], noise_variance=noise)
    assert np.abs(backwards[::-1].reshape(40, 12) - expected).max() < 1e-6
    assert result.predict_cells(seen, [], []).shape == (0,)


def test_second_moment_by_its_factor() -> None:
    result = complete(pairs_table(20_000, 12, 2)[1], 2)
    moment, dense = result.second_moment, result.second_moment.to_dense()
    B = np.random.default_rng(0).standard_normal((12, 3))
    close = tolerance("float64", 12, np.abs(dense).sum())
    assert moment.shape == (12, 12)
    assert np.abs(moment.matmul(B) - dense @ B).max() <= close
    assert np.abs(moment.matmul(B[:, 0]) - dense @ B[:, 0]).max() <= close
    assert np.abs(moment.entries([0, 3], [5, 3]) - dense[[0, 3], [5, 3]]).max() <= close
    assert np.abs(moment.diagonal() - np.diag(dense)).max() <= close
    assert abs(moment.trace() - np.trace(dense)) <= close
    assert repr(moment) == "SecondMoment(shape=(12, 12), rank=2)"
    components, eigenvalues = result
    assert np.abs((components.T * eigenvalues) @ components - dense).max() <= close
    assert result.rank == 2


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "X must have 3 rows", lambda r: r.second_moment.matmul(np.ones(4))),
        (ValueError, r"rows must be in \[0, 2\]", lambda r: r.second_moment.entries([3], [0])),
        (TypeError, "columns must be integers", lambda r: r.second_moment.entries([0], [0.5])),
        (ValueError, "columns must have 1 entries", lambda r: r.second_moment.entries([0], [0, 1])),
        (ValueError, "columns must be 1-D", lambda r: r.second_moment.entries([0], [[0]])),
        (ValueError, "X must have 3 columns", lambda r: r.transform(np.ones((2, 4)))),
        (ValueError, "noise_variance must be", lambda r: r.transform(np.ones((2, 3)), noise_variance=-1)),
        (ValueError, r"rows must be in \[0, 1\]", lambda r: r.predict_cells(np.ones((2, 3)), [2], [0])),
    ],
)
def test_bad_input_of_the_result(error: type, match: str, call: Any) -> None:
    result = complete(np.random.default_rng(0).standard_normal((20, 3)), 1, on_failure="ignore")
    with pytest.raises(error, match=match):
        call(result)


# --- limits and failures ----------------------------------------------------------------------------------------------


def test_limits_are_told() -> None:
    X = pairs_table(3000, 20, 3)[1]
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = complete(X, 3, max_iter=3)
    assert not result.converged
    assert result.n_iter == 3
    assert len(result.history) == 4
    assert np.all(np.diff(result.history) <= 0)
    with pytest.raises(ConvergenceError, match="MAX_ITER") as failure:
        complete(X, 3, max_iter=0, on_failure="raise")
    assert failure.value.result.n_iter == 0
    stagnated = complete(X, 3, tol=0.0, max_iter=10_000, on_failure="ignore")
    assert stagnated.status is Status.STAGNATED
    assert stagnated.gradient < 1e-12
    assert stagnated.n_iter < 1000
    good = complete(X, 3)
    assert good.status is Status.CONVERGED
    assert good.gradient <= 1e-8


def test_overflow_is_told() -> None:
    X = np.array([[1e200, 1e200], [1.0, 2.0]])
    with pytest.warns(ConvergenceWarning, match="NONFINITE"), np.errstate(over="ignore", invalid="ignore"):
        result = complete(X, 1)
    assert result.status is Status.NONFINITE
    assert not result.converged
    assert np.all(result.V == 0.0)


def test_callback_sees_each_iteration_and_may_stop() -> None:
    X, steps = pairs_table(3000, 20, 3)[1], []
    result = complete(X, 3, callback=steps.append)
    assert [step.n_iter for step in steps] == list(range(1, len(steps) + 1))
    assert [step.residual for step in steps] == list(result.history[1 : len(steps) + 1])
    stopped = complete(X, 3, callback=lambda step: step.n_iter == 4, on_failure="ignore")
    assert (stopped.n_iter, stopped.status) == (4, Status.MAX_ITER)


@pytest.mark.parametrize(
    ("error", "match", "X", "options"),
    [
        (ValueError, "X must have a row with two", np.array([[1.0, np.nan], [np.nan, 2.0]]), {}),
        (ValueError, "X must have a row with two", np.ones((4, 1)), {}),
        (ValueError, "X must have at least one column", np.ones((4, 0)), {}),
        (ValueError, r"rank must be in \[1, 2\]", np.ones((4, 2)), {"rank": 3}),
        (ValueError, "estimator must be one of", np.ones((4, 2)), {"estimator": "best"}),
        (ValueError, "diagonal_weight must be", np.ones((4, 2)), {"diagonal_weight": -1}),
        (ValueError, "max_iter must be", np.ones((4, 2)), {"max_iter": -1}),
        (ValueError, "tol must be", np.ones((4, 2)), {"tol": -1}),
        (ValueError, "on_failure must be", np.ones((4, 2)), {"on_failure": "shout"}),
        (ValueError, "center must be False", PairMoments(2).update(np.ones((4, 2))), {"center": True}),
        (ValueError, "propensity must be None", PairMoments(2).update(np.ones((4, 2))), {"propensity": [[1.0]]}),
        (ValueError, "the state must have seen rows", PairMoments(2), {}),
        (TypeError, "X must be real", np.ones((4, 2), complex), {}),
    ],
)
def test_bad_input_of_the_fit(error: type, match: str, X: Any, options: dict) -> None:
    with pytest.raises(error, match=match):
        complete(X, **{"rank": 1, **options})


def test_blocks_of_rows_are_read_once() -> None:
    X = pairs_table(4000, 12, 2)[1]
    blocks = RowBlocks(lambda: (X[i : i + 999] for i in range(0, 4000, 999)), X.shape, X.dtype)
    result = complete(blocks, 2, center=True)
    assert blocks.n_passes == 1
    assert relative(result.V @ result.V.T, complete(X, 2, center=True).second_moment.to_dense()) < 1e-6


def test_minimiser_on_functions_that_are_known() -> None:
    A = np.diag([1.0, 10.0, 100.0])

    def bowl(X: np.ndarray) -> tuple[float, np.ndarray]:
        return float(np.sum((X - 1) * (A @ (X - 1)))), 2 * A @ (X - 1)

    found = minimise(bowl, np.full((3, 1), 3.0), max_iter=100, tol=1e-10)
    assert found.status is Status.CONVERGED
    assert np.abs(found.X - 1).max() < 1e-9
    assert len(found.history) < 20
    assert minimise(bowl, np.full((3, 1), 3.0), max_iter=2, tol=1e-10).status is Status.MAX_ITER
    uphill = minimise(lambda X: (1.0 + float(np.sum(X**2)), -X), np.ones((3, 1)), max_iter=99, tol=1e-10)
    assert uphill.status is Status.STAGNATED  # the gradient is wrong: no step along it lowers the value
    assert minimise(lambda X: (np.nan, X), np.ones((3, 1)), max_iter=9, tol=1e-10).status is Status.NONFINITE


@pytest.mark.parametrize("estimator", ["factored", "hajek"])
@pytest.mark.parametrize("storage", ["sparse", "dense"])
def test_gradient_is_that_of_the_loss(estimator: str, storage: str) -> None:
    state = moments_of(holes(60, 7, 0.4), storage=storage)
    fit = PairFit(state.statistics(range(8)), estimator, 0.7, 60, 2, as_key(0))
    rng = np.random.default_rng(0)
    V, W = rng.standard_normal((2, 7, 2))
    value, gradient = fit.evaluate(V)
    h = 1e-6
    slope = (fit.evaluate(V + h * W)[0] - fit.evaluate(V - h * W)[0]) / (2 * h)
    assert abs(slope - np.sum(gradient * W)) < 1e-6 * abs(slope)
    if estimator == "factored":  # the definition, from the matrices
        means, counts = (M.toarray() if sp.issparse(M) else M for M in state.matrices())
        off, squares = counts - np.diag(np.diag(counts)), np.diag(np.diag(counts))
        C = off / off.sum() + 0.7 * squares / squares.sum()
        unit = np.trace(means) / np.count_nonzero(np.diag(counts))
        expected = np.sum(C * (unit * V @ V.T - means) ** 2) / np.sum(C * means**2)
        assert abs(value - expected) <= tolerance("float64", 49, expected)


# --- the estimator ----------------------------------------------------------------------------------------------------

CHECKED = [
    OneSidedCompletion(),
    OneSidedCompletion(1, center=True, estimator="hajek", noise_variance=0.1, on_few="nan"),
]


@pytest.mark.filterwarnings("ignore:OneSidedCompletion ended with")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn, none of them expected to fail."""
    check(estimator)


def test_estimator_is_the_function() -> None:
    X = pairs_table(6000, 15, 2)[1]
    model, result = OneSidedCompletion(2, random_state=0).fit(X), complete(X, 2, rng=0)
    assert np.array_equal(model.components_, result.components)
    assert np.array_equal(model.singular_values_, result.singular_values)
    assert np.array_equal(model.eigenvalues_, result.eigenvalues)
    assert np.array_equal(model.second_moment_.V, result.V)
    assert (model.error_, model.error_bound_, model.n_iter_) == (result.error, result.error_bound, result.n_iter)
    assert model.status_ is Status.CONVERGED
    assert model.mean_ is None
    assert np.array_equal(model.transform(X), result.transform(X))
    assert np.array_equal(model.predict_cells(X, [0, 5], [3, 4]), result.predict_cells(X, [0, 5], [3, 4]))
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.transform(X), model.transform(X))


def test_batches_are_fitted_when_asked_for() -> None:
    X = pairs_table(6000, 15, 2)[1]
    whole, parts = OneSidedCompletion(2).fit(X), OneSidedCompletion(2)
    for start in range(0, 6000, 1700):
        parts.partial_fit(X[start : start + 1700])
    assert parts.n_samples_seen_ == 6000
    assert relative(parts.second_moment_.to_dense(), whole.second_moment_.to_dense()) < 1e-6
    before = parts.result_
    assert parts.result_ is before
    parts.partial_fit(X[:100])
    assert parts.result_ is not before
    parts.fit(X[:3000])
    assert parts.n_samples_seen_ == 3000
    short = OneSidedCompletion(2, max_iter=1).partial_fit(X)
    with pytest.warns(SklearnWarning, match="MAX_ITER"):
        assert short.components_.shape == (2, 15)


def test_rules_for_rows_with_few_entries(dtype: str) -> None:
    X = pairs_table(4000, 10, 3)[1].astype(dtype)
    model = OneSidedCompletion(3, tol=1e-6).fit(X)
    rows = np.full((3, 10), np.nan, dtype)
    rows[1, :2], rows[2, :5] = 1.0, 1.0
    Z = model.transform(rows)
    assert Z.dtype == model.components_.dtype == dtype
    assert np.all(Z[0] == 0)
    # the shortest solution meets both entries
    assert np.abs(model.inverse_transform(Z)[1, :2] - 1).max() <= tolerance(dtype, 100, 10)
    marked = model.set_params(on_few="nan").transform(rows)
    assert np.isnan(marked).all(axis=1).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="X must have at least 3 observed entries in each row, got 0 in row 0"):
        model.set_params(on_few="raise").transform(rows)


def test_callbacks_of_scikit_learn() -> None:
    X = pairs_table(3000, 20, 3)[1]
    recorder = Recorder(stop_after=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = OneSidedCompletion(3).set_callbacks(recorder).fit(X)
    recorder.check_balanced()
    assert [step["n_iter"] for step in recorder.metadata] == [1, 2, 3]
    assert model.n_iter_ == 3
    assert model.status_ is Status.MAX_ITER


def test_propensities_of_the_estimator() -> None:
    X = holes(500, 6, 0.5)
    p = np.random.default_rng(0).uniform(0.2, 1, (500, 1))
    model = OneSidedCompletion(2, tol=1e-6).fit(X, propensity=p)
    assert model.moments_.weighted
    result = complete(X, 2, propensity=p, tol=1e-6)
    assert np.array_equal(model.components_, result.components)
    batches = OneSidedCompletion(2, tol=1e-6)
    for lo in (0, 250):
        batches.partial_fit(X[lo : lo + 250], propensity=p[lo : lo + 250])
    assert relative(batches.second_moment_.to_dense(), model.second_moment_.to_dense()) < 1e-4


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "n_components must be at most 5", {"n_components": 6}),
        (TypeError, "n_components must be an integer", {"n_components": 1.5}),
        (ValueError, "on_few must be one of", {"on_few": "drop"}),
        (ValueError, "noise_variance must be", {"noise_variance": -1.0}),
        (TypeError, "center must be True or False", {"center": "yes"}),
        (ValueError, "estimator must be one of", {"estimator": "best"}),
    ],
)
def test_bad_parameters_of_the_estimator(error: type, match: str, options: dict) -> None:
    with pytest.raises(error, match=match):
        OneSidedCompletion(**options).fit(holes(50, 5, 0.6))


def test_bad_data_of_the_estimator() -> None:
    model = OneSidedCompletion()
    with pytest.raises(ValueError, match="X must store each entry once"):
        model.fit(sp.coo_array(([1.0, 2.0, 3.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)))
    with pytest.raises(ValueError, match="infinity"):
        model.fit(np.array([[np.inf, 1.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="finite stored entries"):
        model.fit(sp.csr_array(([1.0, np.nan], [0, 1], [0, 2]), shape=(1, 2)))
    with pytest.raises(ValueError, match="n_features=1"):
        model.fit(np.ones((5, 1)))
