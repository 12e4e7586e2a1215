"""Samples of rows: their expected size, probabilities, weights, independence of blocks, and merging."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla._arrays import to_host
from randla._random import Stream
from randla.kernels import reference
from randla.sampling import RowSelection, StreamingRowSampler, sample_rows, select_rows
from randla.sampling.rows import SCORES, inclusion_probabilities, sample_size

from .conftest import tolerance
from .statistics import FALSE_ALARM, bernstein, binomial_interval


def heavy(m: int = 4000, n: int = 5, seed: int = 0) -> np.ndarray:
    """Student-t rows, the first of them fifty times larger."""
    A = np.random.default_rng(seed).standard_t(1.5, (m, n))
    A[: m // 100] *= 50
    return A


# --- given scores -----------------------------------------------------------------------------------------------------


@given(
    scores=st.lists(st.floats(0, 1e308), min_size=1, max_size=60),
    n_samples=st.integers(0, 70),
)
@settings(deadline=None)
def test_expected_size_is_exact(scores: list[float], n_samples: int) -> None:
    q = np.array(scores)
    pi = inclusion_probabilities(q, n_samples)
    positive = int(np.sum(q > 0))
    assert abs(pi.sum() - min(n_samples, positive)) <= tolerance(np.float64, q.size, q.size)
    assert np.all((pi >= 0) & (pi <= 1))
    assert np.all(pi[q == 0] == 0)


def test_expected_size_over_the_whole_range_of_doubles() -> None:
    """Sums may neither overflow at the top nor lose the scores at the bottom."""
    q = np.array([1e308, 1e308, 1e300, 1e-300, 1e-308, 1e-308, 5e-324, 0.0])
    for n_samples in range(9):
        assert inclusion_probabilities(q, n_samples).sum() == pytest.approx(min(n_samples, 7), rel=tolerance(float, 8))
    assert inclusion_probabilities(q, 2)[:2].tolist() == pytest.approx([1, 1], abs=1e-7)


@pytest.mark.parametrize("method", ["poisson", "priority"])
def test_samples_over_the_whole_range_of_doubles(method: str) -> None:
    q = np.array([1e308, 1e308, 1e300, 1e-300, 1e-307, 5e-324, 0.0])
    for n_samples in range(8):
        sample = sample_rows(q, n_samples, method=method, rng=0)
        assert sample.n_expected == min(n_samples, 5), "5e-324 counts as zero"
        assert np.all((sample.probabilities > 0) & (sample.probabilities <= 1))
        assert len(sample.indices) == sample.n_expected or method == "poisson"


def test_probabilities_are_proportional_below_one() -> None:
    q = np.random.default_rng(0).standard_cauchy(500) ** 2
    pi = inclusion_probabilities(q, 100)
    free = pi < 1
    assert 0 < free.sum() < 500
    assert np.ptp(pi[free] / q[free]) <= tolerance(np.float64, 500, (pi[free] / q[free]).max())
    assert q[~free].min() >= q[free].max()


def test_a_row_is_kept_when_its_uniform_is_below_its_probability() -> None:
    q = np.random.default_rng(1).random(300)
    key = randla.as_key(5)
    sample = sample_rows(q, 40, rng=key)
    u, pi = reference.uniforms(key, Stream.POISSON, 0, 300), inclusion_probabilities(q, 40)
    assert np.array_equal(sample.indices, np.flatnonzero(u < pi))
    assert np.array_equal(sample.probabilities, pi[sample.indices])
    assert sample.indices.dtype == np.int64
    indices, probabilities = sample
    assert indices is sample.indices
    assert probabilities is sample.probabilities


def test_frequencies_are_the_probabilities(seed: int) -> None:
    """Poisson: each row by itself, a false alarm of FALSE_ALARM shared by the rows."""
    q, n_draws = np.array([0.0, 1, 1, 2, 5, 10, 100]), 3000
    pi, counts = inclusion_probabilities(q, 3), np.zeros(7)
    key = randla.as_key(seed).fold("frequencies")
    for draw in range(n_draws):
        counts[sample_rows(q, 3, rng=key.fold(draw)).indices] += 1
    for count, probability in zip(counts, pi, strict=True):
        low, high = binomial_interval(n_draws, probability, FALSE_ALARM / 7)
        assert low <= count <= high


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_weighted_sums_are_unbiased(p: float, seed: int) -> None:
    """Rows by their share of ||A x||_p^p: the estimate of that norm has a known variance and bound (Bernstein)."""
    terms, k, n_draws = np.random.default_rng(2).random(200) + 0.05, 20, 2000
    pi = inclusion_probabilities(np.sqrt(terms), k)
    column = terms[:, None] ** (1 / p)
    key = randla.as_key(seed).fold("unbiased")
    samples = [sample_rows(np.sqrt(terms), k, p=p, rng=key.fold(draw)) for draw in range(n_draws)]
    scaled = [np.sum(np.abs(sample.apply(column)) ** p) for sample in samples]
    weighted = [np.sum(sample.objective_weights * terms[sample.indices]) for sample in samples]
    variance, bound = np.sum(terms**2 * (1 - pi) / pi), np.sum(terms / pi)
    assert abs(np.mean(scaled) - terms.sum()) <= bernstein(n_draws, variance, bound)
    assert np.allclose(scaled, weighted, rtol=tolerance(np.float64, 200))
    wrong = [np.sum(np.abs(sample.probabilities[:, None] ** -1.0 * column[sample.indices]) ** p) for sample in samples]
    if p > 1:  # 1/pi is the weight of a term and no scale of a row
        assert abs(np.mean(wrong) - terms.sum()) > bernstein(n_draws, variance, bound)


def test_priority_probabilities_are_those_given_all_other_rows() -> None:
    """The uniform of a row is independent of the k-th rank among the others, so this identity makes sums unbiased."""
    q, key, k = np.random.default_rng(3).random(60) ** 3, randla.as_key(9), 12
    sample = sample_rows(q, k, method="priority", rng=key)
    ranks = reference.uniforms(key, Stream.POISSON, 0, 60) / q
    assert len(sample.indices) == k == sample.n_expected
    for index, probability in zip(sample.indices, sample.probabilities, strict=True):
        kth_of_others = np.sort(np.delete(ranks, index))[k - 1]
        assert ranks[index] < kth_of_others
        assert probability == min(1.0, q[index] * kth_of_others)


@pytest.mark.parametrize("method", ["poisson", "priority"])
def test_larger_samples_contain_smaller_ones(method: str) -> None:
    q = np.random.default_rng(4).random(500)
    kept = [set(sample_rows(q, k, method=method, rng=0).indices.tolist()) for k in (10, 50, 200)]
    assert kept[0] < kept[1] < kept[2]


@pytest.mark.parametrize("method", ["poisson", "priority"])
def test_more_samples_than_positive_scores(method: str) -> None:
    q = np.array([0.0, 3, 0, 1e-300, 2])
    for n_samples in (3, 4, 100):
        sample = sample_rows(q, n_samples, method=method, rng=0)
        assert sample.complete
        assert sample.n_expected == 3
        assert sample.indices.tolist() == [1, 3, 4]
        assert np.array_equal(sample.probabilities, np.ones(3))
    assert not sample_rows(q, 2, method=method, rng=0).complete
    for nothing in (sample_rows(q, 0, method=method), sample_rows(np.zeros(4), 3, method=method)):
        assert nothing.indices.shape == (0,)
        assert nothing.apply(np.ones((nothing.n_rows, 2))).shape == (0, 2)


def test_scores_scale_freely() -> None:
    q = np.random.default_rng(5).random(200)
    first = sample_rows(q, 30, rng=0)
    for factor in (2.0**-900, 2.0**900):
        other = sample_rows(q * factor, 30, rng=0)
        assert np.array_equal(first.indices, other.indices)
        assert np.array_equal(first.probabilities, other.probabilities)


@pytest.mark.parametrize("method", ["poisson", "priority"])
def test_every_namespace_gives_the_same_sample(xp: Any, put: Any, method: str) -> None:
    q, A = np.random.default_rng(6).random(300), heavy(300)
    host = sample_rows(q, 25, method=method, p=1.5, rng=0)
    sample = sample_rows(put(q), 25, method=method, p=1.5, rng=0)
    assert np.array_equal(_host(sample.indices), host.indices)
    assert np.allclose(_host(sample.probabilities), host.probabilities, rtol=tolerance(np.float64, 300))
    scaled = _host(sample.apply(put(A)))
    assert np.abs(scaled - host.apply(A)).max() <= tolerance(np.float64, 300, np.abs(scaled).max())


def _host(array: Any) -> np.ndarray:
    if type(array).__module__.startswith("array_api_strict"):
        array = array.to_device(type(array.device)("CPU_DEVICE"))
    return to_host(array)


def test_apply_keeps_kind_and_dtype(dtype: str) -> None:
    A = heavy(200).astype(dtype)
    A[A < 0] = 0
    A[7] = 0
    sample = sample_rows(np.arange(200.0), 50, p=3, rng=0)
    dense = sample.apply(A)
    assert dense.dtype == dtype
    assert np.allclose(dense, A[sample.indices] * sample.probabilities[:, None] ** (-1 / 3), rtol=tolerance(dtype, 4))
    for container in (sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix):
        scaled = sample.apply(container(A))
        assert scaled.format == "csr"
        assert scaled.dtype == dtype
        assert np.array_equal(scaled.toarray(), dense)
    assert sample.apply(np.arange(200)).dtype == np.float64
    assert sample.apply(A[:, 0]).shape == sample.indices.shape
    assert isinstance(sample, RowSelection)
    assert sample.converged


BAD_SCORES = [
    ([[1.0]], ValueError, "scores must be 1-D"),
    ([1.0, -1.0], ValueError, "scores must be finite and nonnegative, got -1.0 at row 1"),
    ([1.0, math.nan], ValueError, "got nan at row 1"),
    ([math.inf], ValueError, "got inf at row 0"),
    ([1j], ValueError, "scores must be real"),
    (["a"], TypeError, "scores must have a real or complex numeric dtype"),
    (None, TypeError, "scores must be an array"),
]


@pytest.mark.parametrize(("scores", "error", "message"), BAD_SCORES)
def test_bad_scores(scores: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        sample_rows(scores if scores is None else np.array(scores), 1)


def test_bad_parameters_of_samples() -> None:
    q = np.ones(5)
    for n_samples, error in ((-1, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n_samples must be"):
            sample_rows(q, n_samples)
    with pytest.raises(ValueError, match="p must be finite and in"):
        sample_rows(q, 2, p=0.5)
    with pytest.raises(ValueError, match="method must be one of"):
        sample_rows(q, 2, method="bernoulli")
    sample = sample_rows(q, 2, rng=0)
    with pytest.raises(ValueError, match="A must have 5 rows"):
        sample.apply(np.ones((4, 2)))
    with pytest.raises(ValueError, match="A must be given, got None"):
        sample.apply()


# --- scores that are computed -----------------------------------------------------------------------------------------


def distortion(sample: RowSelection, A: np.ndarray, p: float, X: np.ndarray) -> float:
    full = np.sum(np.abs(A @ X) ** p, axis=0)
    return float(np.abs(np.sum(np.abs(sample.apply(A) @ X) ** p, axis=0) / full - 1).max())


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_select_rows_by_every_score(scores: str, p: float) -> None:
    A = heavy()
    sample = select_rows(A, 400, scores=scores, p=p, rng=0)
    again = select_rows(A, 400, scores=scores, p=p, rng=0)
    assert np.array_equal(sample.indices, again.indices)
    assert np.all(np.diff(sample.indices) > 0)
    assert sample.p == p
    assert sample.n_expected == 400
    assert abs(len(sample.indices) - 400) <= 6 * 400**0.5  # Chernoff: probability below 1e-6
    if scores != "uniform":
        X = np.random.default_rng(0).standard_normal((5, 50))
        assert distortion(sample, A, p, X) < 0.5


@pytest.mark.parametrize("scores", ["lewis", "leverage"])
def test_select_rows_of_sparse_data(scores: str) -> None:
    A = heavy()
    A[np.abs(A) < 0.5] = 0
    dense, sparse = (select_rows(T, 300, scores=scores, p=1, rng=0) for T in (A, sp.csc_array(A)))
    common = np.intersect1d(dense.indices, sparse.indices)
    assert len(common) >= 0.99 * len(dense.indices)  # scores differ by rounding
    assert sp.issparse(sparse.apply(sp.csc_array(A)))


def test_different_scores_do_not_share_draws() -> None:
    """On equal scores the samples are still unrelated."""
    A = np.vstack([np.eye(4)] * 500)
    kept = {name: set(select_rows(A, 500, scores=name, rng=0).indices.tolist()) for name in ("uniform", "leverage")}
    low, high = binomial_interval(2000, 1 / 16)
    assert low <= len(kept["uniform"] & kept["leverage"]) <= high


def test_root_leverage_in_rounds_is_unbiased(seed: int) -> None:
    """On equal rows the first round keeps N_1 of 3000 at 241/3000 each, the last one 100/N_1 of these.

    So N_1 can be read off a probability; that it and the final size are binomial makes weighted sums unbiased.
    """
    m, k, n_draws = 3000, 100, 60
    aim = math.ceil(4 * math.log(3) * m**0.5)
    key = randla.as_key(seed).fold("rounds")
    samples = [select_rows(np.ones((m, 1)), k, scores="root_leverage", p=1.0, rng=key.fold(i)) for i in range(n_draws)]
    assert all(np.ptp(sample.probabilities) == 0 for sample in samples)
    first = [k * aim / (m * sample.probabilities[0]) for sample in samples]
    assert np.abs(first - np.round(first)).max() <= tolerance(np.float64, m, m)
    low, high = binomial_interval(n_draws * m, aim / m)
    assert low <= round(sum(first)) <= high
    sizes = [len(sample.indices) for sample in samples]
    assert abs(np.mean(sizes) - k) <= bernstein(n_draws * m, k / m, 1.0) * m


def test_heavy_rows_are_always_kept() -> None:
    A = np.random.default_rng(0).standard_normal((1000, 3))
    A[17] = [0, 0, 1e6]
    for scores in ("lewis", "leverage+sensitivity", "leverage", "root_leverage"):
        for seed in range(5):
            sample = select_rows(A, 100, scores=scores, p=1.0, rng=seed)
            place = np.searchsorted(sample.indices, 17)
            assert sample.indices[place] == 17
            assert sample.probabilities[place] > 0.99


def test_zero_rows_and_dependent_columns() -> None:
    A = heavy(500, 3)
    A = np.column_stack([A, A[:, 0] - A[:, 1]])
    A[::2] = 0
    for scores in ("lewis", "leverage", "root_leverage"):
        sample = select_rows(A, 60, scores=scores, p=1.0, rng=0)
        assert np.all(sample.indices % 2 == 1)
    assert select_rows(A, 600, p=1.0, rng=0).complete


def test_default_size() -> None:
    A = heavy(8000, 2)
    assert (
        select_rows(A, p=1.0, epsilon=0.5, rng=0).n_expected == sample_size(2, 1.0, 0.5) == math.ceil(32 * math.log(4))
    )
    assert select_rows(A[:50], p=4.0, epsilon=0.1, rng=0).complete


def test_bad_parameters_of_select_rows() -> None:
    A = heavy(100)
    for options, message in (
        ({"scores": "gram"}, "scores must be one of"),
        ({"p": 0.9}, "p must be"),
        ({"n_samples": 5, "epsilon": 0.1}, "epsilon must be None where n_samples is given"),
        ({"epsilon": 1.0}, "epsilon must be"),
        ({"n_samples": -1}, "n_samples must be"),
    ):
        with pytest.raises(ValueError, match=message):
            select_rows(A, **options)
    with pytest.raises(ValueError, match="A must be real"):
        select_rows(A + 1j, 5)
    with pytest.raises(ValueError, match="A must be 2-D"):
        select_rows(A[:, 0], 5)
    A[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"finite|NaN"):
        select_rows(A, 5)


#: Specification 1(e), medians of ten draws on one matrix of this kind: at most a quarter above them is allowed.
TABLE = {
    (1.0, 200): {"leverage": 0.328, "root_leverage": 0.217, "lewis": 0.214, "leverage+sensitivity": 0.228},
    (1.0, 800): {"leverage": 0.118, "root_leverage": 0.106, "lewis": 0.108, "leverage+sensitivity": 0.099},
    (1.5, 200): {"leverage": 0.192, "root_leverage": 0.185, "lewis": 0.205, "leverage+sensitivity": 0.202},
    (3.0, 200): {"leverage": 0.049, "root_leverage": 0.015, "lewis": 0.015, "leverage+sensitivity": 0.022},
}


@pytest.mark.slow
@pytest.mark.parametrize(("p", "k"), TABLE)
def test_distortions_by_score(p: float, k: int) -> None:
    rng = np.random.default_rng(1)
    A = rng.standard_t(1.5, (20_000, 10))
    A[:50] *= 50
    X = np.vstack([rng.standard_normal((200, 10)), A[rng.choice(20_000, 10)]]).T

    def median(scores: str) -> float:
        return float(np.median([distortion(select_rows(A, k, scores=scores, p=p, rng=i), A, p, X) for i in range(10)]))

    worst = median("uniform")
    for scores, published in TABLE[p, k].items():
        found = median(scores)
        assert found <= 1.25 * published
        assert found < worst


# --- streams ----------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 120), max_size=6), order=st.randoms(use_true_random=False), k=st.integers(1, 130))
@settings(deadline=None, max_examples=50)
def test_streams_do_not_depend_on_blocks_or_order(cuts: list[int], order: Any, k: int) -> None:
    A, q = heavy(120, 3), np.random.default_rng(0).random(120)
    q[5:9] = 0
    edges = [0, *sorted(cuts), 120]
    blocks = list(pairwise(edges))
    order.shuffle(blocks)
    sampler = StreamingRowSampler(k, p=1.5, rng=7)
    for lo, hi in blocks:
        sampler.partial_fit(A[lo:hi], q[lo:hi], start=lo)
    check_equals_one_shot(sampler, A, q, k)


def check_equals_one_shot(sampler: StreamingRowSampler, A: np.ndarray, q: np.ndarray, k: int) -> None:
    streamed, whole = sampler.finalize(), sample_rows(q, k, p=1.5, method="priority", rng=7)
    assert np.array_equal(streamed.indices, whole.indices)
    assert np.array_equal(streamed.probabilities, whole.probabilities)
    assert np.array_equal(streamed.rows, A[whole.indices])
    assert np.array_equal(streamed.apply(), whole.apply(A))
    assert streamed.complete == whole.complete
    assert streamed.n_rows == whole.n_rows


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_array])
def test_merged_samplers_are_the_sampler_of_the_union(container: Any) -> None:
    A, q, parts = heavy(300, 3), np.random.default_rng(1).random(300), []
    A[np.abs(A) < 0.3] = 0
    for residue in range(3):
        sampler = StreamingRowSampler(30, p=1.5, rng=7)
        for lo in range(50 * residue, 300, 150):
            sampler.partial_fit(container(A[lo : lo + 50]), q[lo : lo + 50], start=lo)
        parts.append(sampler)
    merged = StreamingRowSampler(30, p=1.5, rng=7).merge(parts[2]).merge(parts[0]).merge(parts[1])
    assert merged.n_rows == 300
    streamed, whole = merged.finalize(), sample_rows(q, 30, p=1.5, method="priority", rng=7)
    assert np.array_equal(streamed.indices, whole.indices)
    rows = streamed.rows.toarray() if sp.issparse(streamed.rows) else streamed.rows
    assert np.array_equal(rows, A[whole.indices])
    assert parts[1].n_rows == 100, "the other one is left as it was"


def test_a_sampler_keeps_few_rows() -> None:
    A, sampler = heavy(5000, 3), StreamingRowSampler(20, rng=0)
    for lo in range(0, 5000, 500):
        sampler.partial_fit(A[lo : lo + 500])
        assert sampler._kept.rows.shape[0] <= 21
    assert sampler.n_rows == 5000
    assert repr(sampler).endswith("5000 rows seen")


def test_online_scores_bound_leverage_and_keep_norms() -> None:
    A = heavy(4000, 4)
    A[:, 3] = A[:, 0] + A[:, 1]  # dependent columns
    A[:3] = 0
    sampler = StreamingRowSampler(4000, rng=0)
    for lo in range(0, 4000, 400):
        sampler.partial_fit(A[lo : lo + 400])
    everything = sampler.finalize()
    assert everything.complete
    online = np.zeros(4000)
    online[everything.indices] = sampler._kept.scores
    leverage = np.sum(np.linalg.svd(A[:, :3], full_matrices=False)[0] ** 2, axis=1)
    assert np.all(online >= leverage - tolerance(np.float64, 4000))
    assert np.all(online <= 1)
    assert np.all(online[:3] == 0)
    small = StreamingRowSampler(600, rng=0)
    for lo in range(0, 4000, 400):
        small.partial_fit(A[lo : lo + 400])
    U = np.linalg.svd(A[:, :3], full_matrices=False)[0]
    X = np.linalg.lstsq(A[:, :3], U, rcond=None)[0]
    singular = np.linalg.svd(small.finalize().apply()[:, :3] @ X, compute_uv=False)
    assert np.all(np.abs(singular - 1) < 0.5)


def test_samplers_refuse_what_does_not_fit() -> None:
    A, q = heavy(20, 3), np.ones(20)

    def fresh(**options: Any) -> StreamingRowSampler:
        return StreamingRowSampler(options.pop("n_samples", 5), rng=options.pop("rng", 0), **options).partial_fit(A, q)

    for other, message in (
        (StreamingRowSampler(5, rng=1).partial_fit(A, q, start=20), "other must have key="),
        (StreamingRowSampler(6, rng=0).partial_fit(A, q, start=20), "other must have n_samples=5"),
        (StreamingRowSampler(5, p=1, rng=0).partial_fit(A, q, start=20), "other must have p=2.0"),
        (fresh(), "rows must be seen once, got rows 0 to 19 again"),
        (StreamingRowSampler(5, rng=0).partial_fit(A, start=20), "scores of the same kind"),
        (StreamingRowSampler(5, rng=0).partial_fit(A[:, :2], q, start=20), "3 columns, got 2"),
        (StreamingRowSampler(5, rng=0).partial_fit(sp.csr_array(A), q, start=20), "all sparse or all dense"),
    ):
        sampler = fresh()
        with pytest.raises(ValueError, match=message):
            sampler.merge(other)
        assert sampler.n_rows == 20
        assert len(sampler.finalize().indices) == 5
    with pytest.raises(TypeError, match="other must be a StreamingRowSampler"):
        fresh().merge(A)
    for arguments, message in (
        ((A, None), "scores must be given for all blocks or for none"),
        ((A, np.ones(19)), r"scores must have shape \(20,\)"),
        ((A[:, :2], q), "block must have 3 columns"),
        ((A, q, 10), "rows must be seen once, got rows 10 to 19 again"),
        ((A, q, -1), "start must be"),
    ):
        with pytest.raises(ValueError, match=message):
            fresh().partial_fit(*arguments)
    with pytest.raises(ValueError, match="block must be finite"):
        StreamingRowSampler(5).partial_fit(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        StreamingRowSampler(0)
    with pytest.raises(ValueError, match="finalize must come after a block"):
        StreamingRowSampler(5).finalize()
    assert fresh().merge(StreamingRowSampler(5, rng=0)).n_rows == 20, "an empty one changes nothing"
