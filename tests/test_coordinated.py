"""Coordinated samples: unbiasedness, errors, merging, keys, bytes, and joins."""

from __future__ import annotations

import hashlib
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.sampling import (
    CoordinatedSample,
    PrioritySampler,
    ThresholdSampler,
    coordinated,
    estimate_product,
    join_regression,
    join_statistics,
    packing,
)
from randla.sampling.selection import poisson_threshold, priority_threshold

from .conftest import tolerance
from .statistics import bernstein, binomial_interval, binomial_upper, chebyshev

SAMPLERS = [PrioritySampler, ThresholdSampler]
WEIGHTS = ["l2", "l1", "uniform", "moments"]
KINDS = list(product(SAMPLERS, WEIGHTS))
IDS = [f"{sampler.kind}-{weight}" for sampler, weight in KINDS]
every_kind = pytest.mark.parametrize(("sampler", "weight"), KINDS, ids=IDS)


def table(generator: np.random.Generator, m: int, d: int, sigma: float = 1.0) -> np.ndarray:
    """Normal deviates with log-normal scales of the rows."""
    return generator.standard_normal((m, d)) * generator.lognormal(sigma=sigma, size=(m, 1))


def sparse_pair(density: float = 0.04, shape: tuple[int, int, int] = (2000, 50, 40)) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of the acceptance test: sparse, with rows of log-normal scale that both tables share."""
    rng, (m, d, n) = np.random.default_rng(7), shape
    scales = rng.lognormal(size=(m, 1))
    return tuple((rng.random((m, k)) < density) * rng.standard_normal((m, k)) * scales for k in (d, n))


def same(first: CoordinatedSample, second: CoordinatedSample) -> None:
    """Equal rows and keys; thresholds up to the order of summation."""
    assert np.array_equal(first.keys, second.keys)
    rows = [S.rows.toarray() if sp.issparse(S.rows) else S.rows for S in (first, second)]
    assert np.array_equal(*rows)
    bound = tolerance("float64", first.shape[0])
    for mine, theirs in zip(first.thresholds, second.thresholds, strict=True):
        assert mine == theirs or abs(mine - theirs) <= bound * theirs
    assert first.shape == second.shape
    assert abs(first.squared_norm - second.squared_norm) <= bound * second.squared_norm


def probabilities(SA: CoordinatedSample, SB: CoordinatedSample, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Probability of each row to be in both threshold samples with weight l2, whose thresholds are not random."""
    return np.minimum(1.0, np.minimum(SA.threshold * np.sum(a**2, axis=1), SB.threshold * np.sum(b**2, axis=1)))


# --- unbiasedness and its error ---------------------------------------------------------------------------------------


def test_threshold_estimates_are_unbiased_and_know_their_variance(seed: int) -> None:
    """Mean of value and of squared error over keys, both sums of independent bounded terms: Bernstein at 1e-6 each."""
    generator, n_keys = np.random.default_rng(3), 1500
    a, b = (table(generator, 60, 1) for _ in range(2))
    b[::3] = 0.0
    terms = (a * b).ravel()
    values, variances = [], []
    for key in range(n_keys):
        sampler = ThresholdSampler(15, rng=seed + key)
        SA, SB = sampler.sketch(a), sampler.sketch(b)
        result = estimate_product(SA, SB, on_failure="ignore")
        values.append(float(result.value[0, 0]))
        variances.append(result.standard_error**2)
    p = probabilities(SA, SB, a, b)[terms != 0]
    terms = terms[terms != 0]
    variance = np.sum((1 - p) / p * terms**2)
    allowed = bernstein(n_keys, variance, np.sum(np.abs(terms) / p))
    assert abs(np.mean(values) - terms.sum()) <= allowed
    assert allowed < 0.5 * np.sum(np.abs(terms)), "the test could not see a bias"
    weights = (1 - p) / p**2 * terms**2
    spread = bernstein(n_keys, np.sum(p * (1 - p) * weights**2), np.sum(weights))
    assert abs(np.mean(variances) - variance) <= spread


def contributions(sampler: Any, a: np.ndarray, b: np.ndarray, moved: int, grid: int, monkeypatch: Any) -> list[float]:
    """What row `moved` adds to the estimate while its uniform goes over a grid and the others stay."""
    others, found = np.random.default_rng(5).random(len(a)), []
    for u in (np.arange(grid) + 0.5) / grid:
        others[moved] = u
        drawn = others.copy()
        monkeypatch.setattr(coordinated, "shared_uniforms", lambda key, numbers, xp, drawn=drawn: drawn[numbers])
        SA, SB = sampler.sketch(a), sampler.sketch(b)
        common = set(SA.keys.tolist()) & set(SB.keys.tolist())
        A, B, p = coordinated.aligned(SA, SB)
        at = sorted(common).index(moved) if moved in common else None
        found.append(0.0 if at is None else float(A[at, 0] * B[at, 0] / p[at]))
    return found


@pytest.mark.parametrize("weight", WEIGHTS)
def test_priority_estimates_are_unbiased_given_the_other_rows(weight: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No chance at all: the mean over the uniform of one row, the others held, is its term up to the grid.

    A contribution is constant up to one jump at the probability p, so the midpoint rule is off by at most term / (p n).
    """
    generator, grid = np.random.default_rng(4), 100
    a, b = generator.uniform(0.5, 2.0, (2, 12, 1)) * generator.choice([-1, 1], (2, 12, 1))
    sampler = PrioritySampler(4, weight=weight, rng=0)
    for moved in range(12):
        found = contributions(sampler, a, b, moved, grid, monkeypatch)
        term = a[moved, 0] * b[moved, 0]
        highest = max(abs(value) for value in found)
        assert abs(np.mean(found) - term) <= highest / grid
        values = {value for value in found if value != 0.0}
        assert max(values, default=0.0) - min(values, default=0.0) <= 12 * tolerance("float64", 1, abs(highest))


def test_the_published_threshold_is_biased(seed: int) -> None:
    """With the k-th rank, whose row is kept, squared norms come out too large: the strict comparison is no detail.

    The difference D of the two estimates is not negative, so its mean falls short of its expectation by t with
    probability at most exp(-n t**2 / (2 E D**2)) (Maurer): below 1e-9 for t a third of the expectation.
    """
    generator, n_keys, k = np.random.default_rng(8), 800, 5
    a = np.abs(table(generator, 200, 1, sigma=0.5))
    truth, strict, published = np.sum(a**2), [], []
    for key in range(n_keys):
        S = PrioritySampler(k, rng=seed + key).sketch(a)
        strict.append(float(estimate_product(S, S).value[0, 0]))
        u = coordinated.shared_uniforms(S.key, S.keys, np)
        weights = S.weights[0]
        published.append(np.sum(S.rows[:, 0] ** 2 / np.minimum(1.0, weights * np.max(u / weights))))
    # each strict estimate has at most the variance truth**2 / (k - 1)
    assert abs(np.mean(strict) - truth) <= chebyshev(n_keys, truth**2 / (k - 1), 1e-3)
    assert abs(np.mean(strict) - truth) <= 0.1 * truth
    assert np.mean(published) - np.mean(strict) >= 0.15 * truth


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guarantee(sampler: Any, seed: int) -> None:
    """By Chebyshev an error above twice the guarantee has probability at most 1/4: so many of 150, at 1e-6."""
    A, B = sparse_pair()
    exceeded, errors, told = 0, [], []
    for key in range(150):
        recipe = sampler(50, rng=seed + key)
        result = estimate_product(recipe.sketch(A), recipe.sketch(B))
        errors.append(float(np.linalg.norm(result.value - A.T @ B)))
        told.append(result.standard_error)
        exceeded += errors[-1] > 2 * result.guarantee
    assert exceeded <= binomial_upper(150, 0.25)
    assert 0.5 < np.mean(np.square(told)) / np.mean(np.square(errors)) < 2
    size = 50 - (sampler is PrioritySampler)
    assert math.isclose(result.guarantee, math.sqrt(2 / size) * np.linalg.norm(A) * np.linalg.norm(B))


@pytest.mark.parametrize("density", [0.01, 0.04])
@pytest.mark.parametrize("k", [200, 500])
def test_five_times_the_accuracy_of_linear_sketches_of_equal_size(density: float, k: int) -> None:
    """Expected squared errors, in closed form on both sides: no chance in the comparison.

    Sizes are in words of 64 bits: a sample as `n_words` counts it (keys, values, columns, lengths of rows), a sketch by
    its dense rows.  CountSketch and SparseSign have the same expectation.  The zero estimator is beaten too.
    """
    A, B = sparse_pair(density)
    sampler = ThresholdSampler(k, rng=1)
    SA, SB = sampler.sketch(sp.csr_array(A)), sampler.sketch(sp.csr_array(B))
    p = probabilities(SA, SB, A, B)
    squares = np.sum(A**2, axis=1) * np.sum(B**2, axis=1)
    met = squares > 0
    sampled = math.sqrt(np.sum((1 - p[met]) / p[met] * squares[met]))
    n_rows = (SA.n_words + SB.n_words) / (A.shape[1] + B.shape[1])
    W = A.T @ B
    fixed = np.sum(A**2) * np.sum(B**2) + np.sum(W**2) - 2 * np.sum(squares)
    sketched = math.sqrt(fixed / n_rows)
    assert 5 * sampled <= sketched
    assert sampled < 0.8 * np.linalg.norm(W)


def test_measured_errors_are_the_expected_ones(seed: int) -> None:
    """The closed forms of the comparison above, seen in 40 runs of each: within a factor 2 in mean square.

    By Markov at most half of 40 squared errors lie above twice the expectation but with probability 0.5: so the count
    is held to the binomial limit.
    """
    A, B = sparse_pair()
    W, counts = A.T @ B, {"threshold": 0, "countsketch": 0, "sparse-sign": 0}
    squares = np.sum(A**2, axis=1) * np.sum(B**2, axis=1)
    fixed = np.sum(A**2) * np.sum(B**2) + np.sum(W**2) - 2 * np.sum(squares)
    for key in range(40):
        sampler = ThresholdSampler(200, rng=seed + key)
        SA, SB = sampler.sketch(A), sampler.sketch(B)
        p = probabilities(SA, SB, A, B)
        met = squares > 0
        expected = np.sum((1 - p[met]) / p[met] * squares[met])
        counts["threshold"] += np.sum((estimate_product(SA, SB).value - W) ** 2) > 4 * expected
        for name, operator in (("countsketch", randla.CountSketch), ("sparse-sign", randla.SparseSign)):
            S = operator(21, len(A), rng=seed + key)
            counts[name] += np.sum(((S @ A).T @ (S @ B) - W) ** 2) > 4 * fixed / 21
    assert all(count <= binomial_upper(40, 0.25) for count in counts.values())


@pytest.mark.parametrize("overlap", [0.01, 0.1, 0.5])
def test_vectors_of_the_paper(overlap: float, seed: int) -> None:
    """100,000 entries, 20,000 of them not zero, values in [-1, 1] with 2 % outliers up to 10, equal storage.

    The expected squared error of threshold sampling, in closed form, against that of CountSketch.
    """
    rng, words = np.random.default_rng(seed), 400
    a, b = np.zeros(100_000), np.zeros(100_000)
    n_common = round(20_000 * overlap)
    here = rng.permutation(100_000)[: 40_000 - n_common]
    values = rng.uniform(-1, 1, 20_000)
    outliers = rng.random(20_000) < 0.02
    values[outliers] = rng.uniform(0, 10, outliers.sum())
    a[here[:20_000]] = values
    b[here[20_000 - n_common :]] = np.concatenate([values[20_000 - n_common :], rng.permutation(values)[n_common:]])
    sampler = ThresholdSampler(words // 2, rng=seed)
    SA, SB = sampler.sketch(a), sampler.sketch(b)
    p = probabilities(SA, SB, a[:, None], b[:, None])
    met = a * b != 0
    sampled = np.sum((1 - p[met]) / p[met] * (a * b)[met] ** 2)
    sketched = (np.sum(a**2) * np.sum(b**2) + (a @ b) ** 2 - 2 * np.sum((a * b) ** 2)) / words
    assert sampled < sketched * {0.01: 1 / 25, 0.1: 1 / 3, 0.5: 1 / 2}[overlap]
    result = estimate_product(SA, SB, on_failure="ignore")
    assert result.value.shape == ()
    assert abs(float(result.value) - a @ b) <= math.sqrt(sampled * 1e6)


# --- selection --------------------------------------------------------------------------------------------------------


def test_priority_keeps_the_strictly_smaller_ranks(generator: np.random.Generator) -> None:
    A = table(generator, 100, 3)
    S = PrioritySampler(10, rng=2).sketch(A)
    rank = coordinated.shared_uniforms(S.key, np.arange(100), np) / np.sum(A**2, axis=1)
    order = np.argsort(rank)
    assert np.array_equal(np.sort(order[:10]), S.keys)
    assert abs(S.threshold - rank[order[10]]) <= tolerance("float64", 3, S.threshold)


@given(
    weights=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60),
    k=st.integers(1, 20),
    dropped=st.just(0.0) | st.floats(1e-3, 1e3),
)
@settings(max_examples=80, deadline=None)
def test_poisson_threshold_solves_its_equation(weights: list[float], k: int, dropped: float) -> None:
    w = np.array(weights)
    c = poisson_threshold(w, dropped, k, np)
    if len(w) <= k and dropped == 0:
        assert math.isinf(c)
    else:
        total = np.sum(np.minimum(1.0, c * w)) + c * dropped
        assert abs(total - k) <= tolerance("float64", len(w) + 1, k)


@pytest.mark.parametrize("n", [1, 16, 17, 500, 50_000])
@pytest.mark.parametrize("absent", [0.0, 0.999])
@pytest.mark.parametrize("ordered", [False, True])
def test_priority_threshold_is_an_order_statistic(
    n: int, absent: float, ordered: bool, generator: np.random.Generator
) -> None:
    known = np.where(generator.random(n) < absent, np.inf, generator.random(n))
    known = -np.sort(-known) if ordered else known
    for k in (1, 10, 300):
        assert priority_threshold(known, k, np) == (np.sort(known)[k] if n > k else np.inf)


def test_size_of_threshold_samples(seed: int) -> None:
    """Equal weights make the size binomial; 400 keys, all sizes together."""
    n_kept = sum(len(ThresholdSampler(20, rng=seed + key).sketch(np.ones(100))) for key in range(400))
    low, high = binomial_interval(400 * 100, 0.2)
    assert low <= n_kept <= high


@every_kind
def test_samples_that_hold_all_rows_are_exact(sampler: Any, weight: str, generator: np.random.Generator) -> None:
    A, B = table(generator, 30, 4), table(generator, 30, 2)
    recipe = sampler(30, weight=weight, rng=0)
    SA, SB = recipe.sketch(A), recipe.sketch(B)
    assert SA.is_exact
    assert len(SA) == 30
    result = estimate_product(SA, SB)
    assert np.max(np.abs(result.value - A.T @ B)) <= tolerance("float64", 30, np.linalg.norm(A) * np.linalg.norm(B))
    assert (result.standard_error, result.guarantee, result.n_common) == (0.0, 0.0, 30)


@every_kind
def test_moments_alone_keep_rows_of_zeros(sampler: Any, weight: str) -> None:
    A = np.zeros((20, 2))
    A[3], A[5, 1] = [1.0, 2.0], -1.0
    S = sampler(25, weight=weight, rng=0).sketch(A)
    assert len(S) == (20 if weight == "moments" else 2)


@every_kind
def test_rows_that_are_not_finite_are_dropped_and_told(sampler: Any, weight: str) -> None:
    A = np.ones((20, 2))
    A[4, 1], A[7, 0] = np.nan, np.inf
    S = sampler(50, weight=weight, rng=0).sketch(A)
    assert S.n_nonfinite == 2
    assert not {4, 7} & set(S.keys.tolist())
    with pytest.warns(ConvergenceWarning, match="NaN or infinity"):
        result = estimate_product(S, S)
    assert result.status is Status.NONFINITE
    assert np.array_equal(result.value, np.full((2, 2), 18.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_in_common_is_told(sampler: Any) -> None:
    recipe = sampler(5, rng=0)
    SA, SB = recipe.sketch(np.ones(100)), recipe.sketch(np.ones(100), keys=np.arange(100, 200))
    with pytest.warns(ConvergenceWarning, match="ended with Status.BREAKDOWN"):
        result = estimate_product(SA, SB)
    assert result.n_common == 0
    assert result.guarantee > 0
    with pytest.raises(ConvergenceError):
        estimate_product(SA, SB, on_failure="raise")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (5, 0), (5, 3)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_empty_and_zero_tables(sampler: Any, shape: tuple[int, ...]) -> None:
    S = sampler(4, rng=0).sketch(np.zeros(shape))
    assert len(S) == 0
    result = estimate_product(S, S)
    assert result.value.shape == shape[1:] * 2
    assert not np.any(result.value)
    assert CoordinatedSample.from_bytes(S.to_bytes()).shape == shape


@every_kind
@pytest.mark.parametrize("factor", [2.0**-60, 2.0**60, -1.0])
def test_scales_do_not_matter(sampler: Any, weight: str, factor: float, generator: np.random.Generator) -> None:
    A = table(generator, 80, 3)
    recipe = sampler(12, weight=weight, rng=1)
    S, T = recipe.sketch(A), recipe.sketch(factor * A)
    assert np.array_equal(T.rows, factor * S.rows)
    first, second = estimate_product(S, S), estimate_product(T, S)
    bound = tolerance("float64", 80, np.max(np.abs(first.value)))
    assert np.max(np.abs(second.value / factor - first.value)) <= bound


# --- streams, merging, order ------------------------------------------------------------------------------------------


@every_kind
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_updates_and_merges_give_the_one_shot_sample(sampler: Any, weight: str, data: Any) -> None:
    m, k = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 25))
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    A = table(rng, m, 2, sigma=2.0)
    keys = rng.choice(10**6, m, replace=False) - 5 * 10**5
    cuts = sorted(data.draw(st.lists(st.integers(0, m), max_size=4)))
    order = rng.permutation(m)
    recipe = sampler(k, weight=weight, rng=3)
    whole = recipe.sketch(A, keys)
    parts = [recipe.sketch(A[i], keys[i]) for i in np.split(order, cuts)]
    forward = parts[0]
    for part in parts[1:]:
        forward = forward.merge(part)
    same(forward, whole)
    backward = parts[-1]
    for i in reversed(np.split(order, cuts)[:-1]):
        backward = backward.update(A[i], keys[i])
    same(backward, whole)
    for mine, theirs in zip(forward.dropped, whole.dropped, strict=True):
        assert abs(mine - theirs) <= tolerance("float64", m, 1 + np.sum(A**2) ** 2)


def test_updates_number_rows_on(generator: np.random.Generator) -> None:
    A = table(generator, 90, 2)
    recipe = PrioritySampler(20, rng=0)
    same(recipe.sketch(A[:40]).update(A[40:70]).update(A[70:]), recipe.sketch(A))


@every_kind
def test_sparse_tables_give_the_sample_of_dense_ones(sampler: Any, weight: str) -> None:
    A, B = sparse_pair(0.1, (300, 8, 6))
    recipe = sampler(40, weight=weight, rng=2)
    dense, csr = recipe.sketch(A), recipe.sketch(sp.csr_array(A))
    assert sp.issparse(csr.rows)
    same(csr, dense)
    same(recipe.sketch(sp.csc_matrix(A[:100])).update(sp.csr_matrix(A[100:])), dense)
    other = recipe.sketch(sp.csr_array(B)), recipe.sketch(B)
    values = [estimate_product(SA, SB).value for SA, SB in product((csr, dense), other)]
    assert [sp.issparse(value) for value in values] == [True, False, False, False]
    bound = tolerance("float64", 40, np.max(np.abs(values[3])))
    for value in values[:3]:
        assert np.max(np.abs((value.toarray() if sp.issparse(value) else value) - values[3])) <= bound


def test_repeated_entries_of_a_sparse_matrix_are_one() -> None:
    raw = sp.csr_array((np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    S = ThresholdSampler(5, rng=0).sketch(raw)
    assert np.array_equal(S.rows.toarray(), [[3.0, 0.0], [0.0, 5.0]])
    assert S.squared_norm == 34.0
    assert raw.nnz == 3, "the input was changed"


@every_kind
def test_layouts_and_blocks_of_memory_do_not_matter(sampler: Any, weight: str, generator: np.random.Generator) -> None:
    A = table(generator, 200, 6)
    recipe = sampler(30, weight=weight, rng=0)
    wide = np.zeros((400, 12))
    wide[::2, ::2] = A
    for other in (np.asfortranarray(A), wide[::2, ::2]):
        same(recipe.sketch(other), recipe.sketch(A))


def test_threads_do_not_matter(generator: np.random.Generator) -> None:
    A = table(generator, 150_000, 2)
    recipe = ThresholdSampler(100, rng=0)
    with randla.threads(1):
        alone = recipe.sketch(A)
    with randla.threads(3):
        together = recipe.sketch(A)
    assert alone.to_bytes() == together.to_bytes()


@every_kind
def test_float32_stays(sampler: Any, weight: str, generator: np.random.Generator) -> None:
    A = table(generator, 200, 4).astype(np.float32)
    recipe = sampler(50, weight=weight, rng=0)
    S, wide = recipe.sketch(A), recipe.sketch(A.astype(np.float64))
    assert S.rows.dtype == np.float32
    assert np.array_equal(S.keys, wide.keys)
    result, exact = estimate_product(S, S), estimate_product(wide, wide)
    assert result.value.dtype == np.float32
    assert estimate_product(S, wide).value.dtype == np.float64
    assert np.max(np.abs(result.value - exact.value)) <= tolerance("float32", 50, np.max(np.abs(exact.value)))
    assert recipe.sketch(np.arange(10)).rows.dtype == np.float64


@every_kind
def test_other_array_libraries(sampler: Any, weight: str, xp: Any, put: Any, generator: np.random.Generator) -> None:
    A, B = table(generator, 150, 4), table(generator, 150, 3)
    recipe = sampler(30, weight=weight, rng=5)
    SA, SB = recipe.sketch(put(A)), recipe.sketch(put(B))
    same(CoordinatedSample.from_bytes(SA.to_bytes()), recipe.sketch(A))
    value = estimate_product(SA, SB).value
    assert type(value) is type(put(A))
    expected = estimate_product(recipe.sketch(A), recipe.sketch(B)).value
    bound = tolerance("float64", 30, np.max(np.abs(expected)))
    assert float(xp.max(xp.abs(value - put(expected)))) <= bound
    keys = put(np.arange(100, 150))
    merged = recipe.sketch(put(A[:100])).merge(recipe.sketch(put(A[100:]), keys))
    same(CoordinatedSample.from_bytes(merged.to_bytes()), recipe.sketch(A))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_strings_are_hashed_as_written() -> None:
    """BLAKE2b with 8 bytes under the key, of UTF-8: computed here from the definition."""
    sampler = PrioritySampler(5, rng=0)
    S = sampler.sketch(np.ones(3), keys=["Zürich", b"Oslo", "Oslo "])
    secret = sampler.rng.lo.to_bytes(4, "little") + sampler.rng.hi.to_bytes(4, "little")
    texts = ["Zürich".encode(), b"Oslo", b"Oslo "]
    expected = [
        int.from_bytes(hashlib.blake2b(t, digest_size=8, key=secret).digest(), "little", signed=True) for t in texts
    ]
    assert S.keys.tolist() == sorted(expected)
    assert S.key_kind == "text"


@pytest.mark.parametrize("kind", ["U", object, "S", list])
def test_kinds_of_strings_agree(kind: Any) -> None:
    texts = [f"row {i}" for i in range(50)]
    keys = texts if kind is list else np.array(texts, dtype=kind)
    sampler = ThresholdSampler(10, rng=0)
    same(sampler.sketch(np.arange(50.0), keys), sampler.sketch(np.arange(50.0), texts))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint16", "int64", "uint64", object])
def test_kinds_of_integers_agree(dtype: Any) -> None:
    sampler = PrioritySampler(10, rng=0)
    same(sampler.sketch(np.arange(50.0), np.arange(50).astype(dtype)), sampler.sketch(np.arange(50.0)))


def test_keys_of_64_bits() -> None:
    sampler = PrioritySampler(5, rng=0)
    edges = [0, 2**63 - 1, 2**63, 2**64 - 1]
    for keys in (np.array(edges, np.uint64), np.array(edges, object)):
        assert sampler.sketch(np.ones(4), keys).keys.tolist() == [-(2**63), -1, 0, 2**63 - 1]
    with pytest.raises(ValueError, match=r"^keys must be integers of 64 bits"):
        sampler.sketch(np.ones(1), np.array([2**64], object))


def test_rows_of_equal_key(generator: np.random.Generator) -> None:
    """The sum over all pairs of equal keys is the product of the sums."""
    A, keys = table(generator, 60, 3), generator.integers(0, 20, 60)
    total = np.zeros((20, 3))
    np.add.at(total, keys, A)
    sampler = ThresholdSampler(100, rng=0)
    with pytest.raises(ValueError, match=r"^keys must be distinct, got some of them twice; pass duplicates='sum'"):
        sampler.sketch(A, keys)
    for table_ in (A, sp.csr_array(A)):
        S = sampler.sketch(table_, keys, duplicates="sum")
        rows = S.rows.toarray() if sp.issparse(S.rows) else S.rows
        assert np.max(np.abs(rows - total[S.keys])) <= tolerance("float64", 60, np.linalg.norm(A))
    first = sampler.sketch(A[:10])
    with pytest.raises(ValueError, match=r"^keys must be disjoint"):
        first.merge(first)


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (np.arange(4), ValueError, r"^keys must have shape \(5,\), one for each row, got \(4,\)"),
        (np.zeros(5), TypeError, r"^keys must be integers, strings or bytes, got float64"),
        (np.ones(5, bool), TypeError, r"^keys must be integers, strings or bytes, got bool"),
        (["a", "b", 1, "c", "d"], TypeError, r"^keys must be integers, or strings and bytes, got both text and int"),
        (np.array([1, 2.5, 3, 4, 5], object), TypeError, r"^keys must be integers, or strings and bytes"),
        (np.array([1, True, 3, 4, 5], object), TypeError, r"^keys must be integers, or strings and bytes"),
        ("abcde", TypeError, r"^keys must be an array or a list with one key for each row, got str"),
        (5, TypeError, r"^keys must be an array or a list"),
    ],
)
def test_bad_keys(keys: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PrioritySampler(3, rng=0).sketch(np.ones(5), keys)


# --- samples that must not meet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda A: PrioritySampler(5, rng=1).sketch(A), r"must share their key, .*; give all samplers the same rng"),
        (lambda A: ThresholdSampler(5, rng=0).sketch(A), r"must share their kind, got 'priority' and 'threshold'"),
        (lambda A: PrioritySampler(5, weight="l1", rng=0).sketch(A), r"must share their weight, got 'l2' and 'l1'"),
        (lambda A: PrioritySampler(5, rng=0).sketch(A, list("abcdef")), r"must share the kind of their keys"),
    ],
)
def test_strangers_refuse_to_meet(other: Any, message: str) -> None:
    A = np.ones(6)
    mine = PrioritySampler(5, rng=0).sketch(A)
    for meet in (estimate_product, CoordinatedSample.merge):
        with pytest.raises(ValueError, match=message):
            meet(mine, other(A))


def test_merging_asks_for_equal_recipes() -> None:
    S = PrioritySampler(5, rng=0).sketch(np.ones((6, 2)))
    with pytest.raises(ValueError, match=r"^other must have n_samples=5 and \(2,\) columns"):
        S.merge(PrioritySampler(6, rng=0).sketch(np.ones((6, 2)), np.arange(6, 12)))
    with pytest.raises(ValueError, match=r"^other must have n_samples=5 and \(2,\) columns"):
        S.update(np.ones((6, 3)))
    with pytest.raises(ValueError, match=r"^other must be stored as the first sample is"):
        S.update(sp.csr_array(np.ones((6, 2))))
    with pytest.raises(TypeError, match=r"^SB must be a CoordinatedSample, got ndarray; make it with .sketch"):
        estimate_product(S, np.ones((6, 2)))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((0,), {}, ValueError, "^n_samples must be "),
        ((2.5,), {}, TypeError, "^n_samples must be an integer"),
        ((5,), {"weight": "l3"}, ValueError, "^weight must be one of 'l2', 'l1', 'uniform', 'moments', got 'l3'"),
        ((5,), {"rng": "a"}, TypeError, "^rng must be None"),
    ],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bad_samplers(sampler: Any, arguments: Any, keywords: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sampler(*arguments, **keywords)


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.ones((2, 2), complex), ValueError, "^A must be real, got a complex dtype"),
        (np.ones((2, 2, 2)), ValueError, "^A must be 1-D or 2-D"),
        (np.array(["a"]), TypeError, "^A must have a real or complex numeric dtype"),
        (None, TypeError, "^A must be an array"),
    ],
)
def test_bad_tables(A: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ThresholdSampler(3, rng=0).sketch(A)
    with pytest.raises(ValueError, match=r"^duplicates must be one of 'raise', 'sum'"):
        ThresholdSampler(3, rng=0).sketch(np.ones(3), duplicates="drop")


# --- bytes ------------------------------------------------------------------------------------------------------------


def samples() -> list[CoordinatedSample]:
    A, _ = sparse_pair(0.2, (60, 5, 4))
    tables = (A, A.astype(np.float32), sp.csr_array(A), A[:, 0], sp.csr_array(A[:0]))
    return [sampler(12, weight=weight, rng=9).sketch(X) for (sampler, weight), X in product(KINDS, tables)]


@pytest.mark.parametrize("S", samples(), ids=repr)
def test_bytes_round_trip(S: CoordinatedSample) -> None:
    data = S.to_bytes()
    T = CoordinatedSample.from_bytes(data)
    assert T.to_bytes() == data
    same(T, S)
    for name in ("key", "kind", "weight", "n_samples", "key_kind", "thresholds", "dropped", "squared_norm"):
        assert getattr(T, name) == getattr(S, name)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(T.weights, S.weights, strict=True))
    assert T.rows.dtype == S.rows.dtype
    assert len(data) == packing._HEADER.size + packing._DIGEST + 8 * S.n_words
    if len(S):
        assert estimate_product(T, S).n_common == len(S)


DATA = PrioritySampler(6, rng=1).sketch(sparse_pair(0.3, (30, 3, 1))[0]).to_bytes()


@given(position=st.integers(0, len(DATA) - 1), change=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_altered_bytes_are_refused(position: int, change: int) -> None:
    altered = bytearray(DATA)
    altered[position] ^= change
    with pytest.raises(ValueError, match=r"^data must (begin with|be of version|match its checksum)"):
        CoordinatedSample.from_bytes(bytes(altered))


@given(length=st.integers(0, len(DATA) - 1))
@settings(max_examples=60, deadline=None)
def test_truncated_bytes_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"^data must (begin with|have at least|match its checksum)"):
        CoordinatedSample.from_bytes(DATA[:length])


@given(position=st.integers(12, len(DATA) - 33), change=st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_forged_bytes_are_refused_or_harmless(position: int, change: int) -> None:
    """With a fresh checksum: either a ValueError or a sample of consistent shape, never another error."""
    altered = bytearray(DATA[:-32])
    altered[position] ^= change
    try:
        S = CoordinatedSample.from_bytes(bytes(altered) + hashlib.sha256(altered).digest())
    except ValueError:
        return
    assert S.rows.shape == (len(S), 3)
    assert len(S.weights) == len(S.thresholds)
    assert CoordinatedSample.from_bytes(S.to_bytes()).shape == S.shape


def test_bytes_of_another_kind() -> None:
    with pytest.raises(TypeError, match=r"^data must be bytes, got str"):
        CoordinatedSample.from_bytes("randlaCS")
    with pytest.raises(ValueError, match=r"^data must begin with b'randlaCS', got b'PK"):
        CoordinatedSample.from_bytes(b"PK\3\4" + DATA)
    later = bytearray(DATA)
    later[8] = 2
    with pytest.raises(ValueError, match=r"^data must be of version 1 .*; read it with the release of randla"):
        CoordinatedSample.from_bytes(bytes(later))


def test_format_is_frozen() -> None:
    """Files are read for years: a change of the bytes is a change of the version in the header."""
    S = ThresholdSampler(8, rng=0).sketch(np.arange(20.0).reshape(10, 2))
    assert hashlib.sha256(S.to_bytes()).hexdigest()[:32] == "199702169823d733bd7cf0de29550a62"


# --- joins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_join_statistics(sampler: Any, generator: np.random.Generator) -> None:
    """Against the join itself: most estimates within two standard errors, all within six.

    By Chebyshev a quantity is off by more than two of its errors with probability at most 1/4; the 12 quantities of
    40 keys are dependent within a key, so keys are counted for each quantity.
    """
    A, b = table(generator, 3000, 2, sigma=0.3), np.zeros(2500)
    keys = np.arange(500, 3000)
    b[:] = A[500:, 0] + 0.5 * generator.standard_normal(2500)
    truth = np.corrcoef(np.column_stack([A[500:], b]).T)[:2, 2]
    misses = np.zeros(4, int)
    for key in range(40):
        recipe = sampler(250, weight="moments", rng=key)
        join = join_statistics(recipe.sketch(A), recipe.sketch(b, keys))
        assert join.correlation.shape == (2,)
        assert join.mean_b.shape == ()
        misses[:2] += np.abs(join.correlation - truth) > 2 * join.correlation_error
        misses[2] += abs(join.size - 2500) > 2 * join.size_error
        misses[3] += abs(join.mean_a[1] - A[500:, 1].mean()) > 2 * join.mean_a_error[1]
    assert np.all(misses <= binomial_upper(40, 0.25))
    size, correlation = join
    assert 0.5 * np.abs(correlation - truth).max() < 6 * join.correlation_error.max()
    assert size == join.size


def test_join_statistics_of_whole_tables_are_exact(generator: np.random.Generator) -> None:
    A, B = table(generator, 200, 3), generator.standard_normal((150, 2))
    A[::4] = 0.0
    recipe = ThresholdSampler(300, weight="moments", rng=0)
    join = join_statistics(recipe.sketch(A), recipe.sketch(B, np.arange(50, 200)))
    bound = tolerance("float64", 200)
    assert (join.size, join.size_error, join.n_common) == (150.0, 0.0, 150)
    assert np.max(np.abs(join.correlation - np.corrcoef(A[50:].T, B.T)[:3, 3:])) <= bound
    assert np.max(np.abs(join.mean_a - A[50:].mean(axis=0))) <= bound * np.linalg.norm(A)
    assert np.max(join.correlation_error) == 0.0


def test_empty_joins_are_told() -> None:
    recipe = PrioritySampler(5, weight="moments", rng=0)
    SA, SB = recipe.sketch(np.arange(40.0)), recipe.sketch(np.arange(40.0), np.arange(100, 140))
    with pytest.warns(ConvergenceWarning, match="join_statistics ended with Status.BREAKDOWN"):
        join = join_statistics(SA, SB)
    assert join.size == 0.0
    assert np.isnan(join.correlation)
    with pytest.warns(ConvergenceWarning, match="join_regression ended with Status.BREAKDOWN"):
        assert np.array_equal(join_regression(SA, SB).coef, [0.0])
    assert float(join_regression(SA, SB, intercept=False, on_failure="ignore").intercept) == 0.0


def test_joins_need_rows_of_zeros() -> None:
    S = PrioritySampler(5, rng=0).sketch(np.ones(9))
    for use in (join_statistics, join_regression):
        with pytest.raises(ValueError, match=r"^the samples must have weight='moments' to describe a join, got 'l2'"):
            use(S, S)
    with pytest.raises(ValueError, match=r"^alpha must be finite and in \[0, inf\], got -1.0"):
        join_regression(S, S, alpha=-1.0)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_regression_over_whole_tables_is_ridge(intercept: bool, alpha: float, generator: np.random.Generator) -> None:
    A, B = table(generator, 120, 4), generator.standard_normal((120, 2))
    recipe = PrioritySampler(200, weight="moments", rng=0)
    result = join_regression(recipe.sketch(A[:100]), recipe.sketch(B), alpha=alpha, intercept=intercept)
    X, Y = A[:100], B[:100]
    if intercept:
        X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    expected = np.linalg.solve(X.T @ X + alpha * np.eye(4), X.T @ Y)
    assert np.max(np.abs(result.coef - expected)) <= tolerance("float64", 100, result.condition)
    assert (result.n_join, result.rank, np.max(result.coef_error)) == (100.0, 4, 0.0)
    coef, constant = result
    gradient = np.sum(B[:100] - A[:100] @ coef - constant, axis=0)
    assert not intercept or np.max(np.abs(gradient)) <= tolerance("float64", 100, np.linalg.norm(A) * 10)


def test_regression_over_a_partial_join(seed: int) -> None:
    """Coefficients against the full join in units of their errors: Chebyshev, as above, for each of 3 coefficients."""
    generator = np.random.default_rng(seed)
    A = table(generator, 4000, 3, sigma=0.5)
    b = A[1000:] @ [1.0, -2.0, 0.5] + generator.standard_normal(3000)
    keys = np.arange(1000, 4000)
    design = np.column_stack([A[1000:], np.ones(3000)])
    best = np.linalg.lstsq(design, b)[0]
    misses = np.zeros(3, int)
    for key in range(40):
        recipe = PrioritySampler(300, weight="moments", rng=seed + key)
        result = join_regression(recipe.sketch(A), recipe.sketch(b, keys))
        misses += np.abs(result.coef - best[:3]) > 2 * result.coef_error
        assert result.r_squared.shape == ()
    assert np.all(misses <= binomial_upper(40, 0.25))
    assert abs(result.r_squared - (1 - np.var(b - design @ best) / np.var(b))) < 0.2


def test_regression_apart_keeps_its_bound(seed: int) -> None:
    """Rows of U from A = U R: the excess is ||W - U.T b||**2, at most 2 d / (k - 1) ||b||**2 in expectation.

    By Markov it exceeds four times that with probability at most 1/4: so many of 60 keys, at 1e-6.
    """
    generator, d, k = np.random.default_rng(seed), 5, 200
    A = table(generator, 2000, d)
    b = A @ np.ones(d) + generator.standard_normal(2000)
    U, R = np.linalg.qr(A)
    best = np.linalg.norm(b - U @ (U.T @ b)) ** 2
    exceeded = 0
    for key in range(60):
        recipe = PrioritySampler(k, rng=seed + key)
        x = np.linalg.solve(R, estimate_product(recipe.sketch(U), recipe.sketch(b)).value)
        exceeded += np.linalg.norm(A @ x - b) ** 2 - best > 4 * 2 * d / (k - 1) * np.linalg.norm(b) ** 2
    assert exceeded <= binomial_upper(60, 0.25)


@pytest.mark.parametrize("result", [join_statistics, join_regression])
def test_joins_in_other_libraries(result: Any, xp: Any, put: Any, generator: np.random.Generator) -> None:
    A, B = table(generator, 200, 3), table(generator, 200, 2)
    recipe = PrioritySampler(50, weight="moments", rng=0)
    mine, theirs = result(recipe.sketch(put(A)), recipe.sketch(put(B))), result(recipe.sketch(A), recipe.sketch(B))
    for part, expected in zip(mine, theirs, strict=True):
        bound = tolerance("float64", 200, 100 * np.max(np.abs(expected)))
        if isinstance(part, float):
            assert abs(part - expected) <= bound
        else:
            assert type(part) is type(put(A))
            assert float(xp.max(xp.abs(part - put(expected)))) <= bound
