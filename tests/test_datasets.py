"""Matrices with known answers: the answers must be right."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import randla
from randla import datasets
from randla.datasets import (
    SPECTRA,
    low_rank_problems,
    orthonormal_columns,
    sparse_matrix,
    spectrum,
    synthetic_ratings,
    with_spectrum,
)

from .conftest import tolerance


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_spectra_descend_from_one(kind: str, n: int) -> None:
    s = spectrum(kind, n)
    assert s.shape == (n,)
    assert np.all(np.diff(s) <= 0)
    assert np.all(s >= 0)
    assert n == 0 or s[0] == 1.0


@pytest.mark.parametrize("coherence", ["low", "high"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_prescribed_singular_values(dtype: type, coherence: str) -> None:
    s = spectrum("inverse", 20)
    for shape in ((50, 20), (20, 50), (20, 20)):
        A = with_spectrum(*shape, s, coherence=coherence, dtype=dtype, rng=0)
        assert A.dtype == dtype
        assert A.flags.c_contiguous
        assert np.abs(np.linalg.svd(A, compute_uv=False) - s).max() <= tolerance(dtype, A.size)


def test_coherence_is_what_it_says() -> None:
    for coherence, largest in (("low", 0.5), ("high", 1.0)):
        Q = orthonormal_columns(400, 10, coherence=coherence, rng=1)
        assert np.linalg.norm(Q.T @ Q - np.eye(10)) <= tolerance(np.float64, Q.size)
        scores = (Q**2).sum(axis=1)
        assert scores.max() == pytest.approx(1.0) if largest == 1.0 else scores.max() < largest


def test_same_key_same_matrix() -> None:
    s = np.ones(5)
    assert np.array_equal(with_spectrum(9, 5, s, rng=3), with_spectrum(9, 5, s, rng=3))
    assert not np.array_equal(with_spectrum(9, 5, s, rng=3), with_spectrum(9, 5, s, rng=4))
    first, second = (sparse_matrix(50, 40, 200, rng=3) for _ in range(2))
    assert (first != second).nnz == 0


def test_sparse_matrix_is_skewed_as_asked() -> None:
    A = sparse_matrix(20_000, 100, 20_000, skew=2.0, rng=0)
    assert A.format == "csr"
    assert A.shape == (20_000, 100)
    counts = np.bincount(A.indices, minlength=100)
    # an index below n / 4 has probability 1/2 for u**2
    assert counts[:25].sum() == pytest.approx(A.nnz / 2, rel=0.1)


def test_problems_know_their_least_rank() -> None:
    names = set()
    for problem in low_rank_problems(10, rng=0):
        s = np.linalg.svd(problem.A, compute_uv=False)
        norm = np.linalg.norm(s)
        r = problem.least_rank
        slack = 1 + tolerance(np.float64, problem.A.size) / problem.tol
        assert np.linalg.norm(s[r:]) <= problem.tol * norm * slack
        assert r == 0 or np.linalg.norm(s[r - 1 :]) >= problem.tol * norm / slack
        names.add(problem.name)
    assert len(names) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum("pink", 5), "kind must be one of"),
        (lambda: spectrum("flat", -1), "n must be"),
        (lambda: with_spectrum(5, 4, np.ones(5)), r"s must have min\(m, n\) = 4 values"),
        (lambda: orthonormal_columns(3, 4), "k must be in"),
        (lambda: orthonormal_columns(4, 3, coherence="some"), "coherence must be one of"),
        (lambda: sparse_matrix(5, 5, 5, skew=0.0), "skew must be"),
    ],
)
def test_parameters_are_checked(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


# --- ratings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_synthetic_ratings_are_their_truth_and_noise(dtype: type) -> None:
    made = synthetic_ratings(400, 300, 20_000, rank=5, noise=0.25, scale=None, dtype=dtype, rng=0)
    matrix = made.ratings
    assert made.synthetic is True
    assert "synthetic" in repr(made)
    assert (matrix.shape, matrix.nnz, matrix.dtype) == ((400, 300), 20_000, dtype)
    assert matrix.has_canonical_format  # no pair twice
    rows = np.repeat(np.arange(400), np.diff(matrix.indptr))
    difference = matrix.data - made.truth(rows, matrix.indices)
    # of 20,000 independent normal deviations: the root mean square is off by 6 / sqrt(2 n) with probability 2e-9
    assert made.noise_floor() == pytest.approx(0.25, rel=6 / np.sqrt(2 * 20_000))
    assert made.noise_floor() == pytest.approx(float(np.sqrt(np.mean(difference.astype(float) ** 2))), rel=1e-6)
    full = made.truth(np.arange(400)[:, None], np.arange(300))
    singular = np.linalg.svd(full.astype(float), compute_uv=False)
    assert singular[7] <= tolerance(dtype, full.size, norm=singular[0])  # rank 5, mean and user biases, item biases
    assert singular[6] > 1.0
    direct = made.mean + made.user_bias[7] + made.item_bias[11] + made.user_factors[7] @ made.item_factors[11]
    assert made.truth(7, 11) == pytest.approx(direct, rel=tolerance(dtype, 5))


@pytest.mark.parametrize("scale", [(1, 5, 1), (0.5, 5, 0.5), (-10, 10, 2.5), (0, 1, 0.1)])
def test_synthetic_ratings_lie_on_the_scale(scale: tuple) -> None:
    made = synthetic_ratings(200, 100, 5000, noise=0.3, scale=scale, rng=1)
    low, high, step = scale
    steps = (made.ratings.data - low) / step
    assert np.abs(steps - np.rint(steps)).max() <= tolerance(np.float64, 1, norm=(high - low) / step)
    assert low <= made.ratings.data.min() < made.ratings.data.max() <= high
    smooth = synthetic_ratings(200, 100, 5000, noise=0.3, scale=None, rng=1)
    assert np.array_equal(smooth.ratings.indices, made.ratings.indices)


def test_synthetic_ratings_are_a_function_of_the_key() -> None:
    first, second, other = (synthetic_ratings(500, 400, 9000, rng=key) for key in (3, 3, 4))
    assert (first.ratings != second.ratings).nnz == 0
    assert np.array_equal(first.user_factors, second.user_factors)
    assert (first.ratings != other.ratings).nnz > 0
    with randla.threads(1):
        again = synthetic_ratings(500, 400, 9000, rng=3)
    assert (first.ratings != again.ratings).nnz == 0


def test_the_most_active_and_the_most_popular() -> None:
    made = synthetic_ratings(5000, 2000, 100_000, activity=(0.8, 1.2), rng=0)
    users = np.sort(np.diff(made.ratings.indptr))[::-1]
    wanted = (np.arange(1, 5001) + 5.0) ** -0.8
    assert np.abs(users - 100_000 * wanted / wanted.sum()).max() <= 1  # rounded, and no more
    capped = synthetic_ratings(5000, 2000, 400_000, activity=(0.8, 1.2), rng=0)
    assert np.sum(np.diff(capped.ratings.indptr) == 2000) > 1  # who would have more has all
    items = np.sort(np.bincount(made.ratings.indices, minlength=2000))[::-1]
    assert items[:20].mean() > 10 * np.median(items)
    flat = synthetic_ratings(5000, 2000, 200_000, activity=0.0, rng=0)
    assert set(np.diff(flat.ratings.indptr)) == {40}
    # counts are sums of 5000 independent 0/1 with mean 0.02: one of 2000 is off by 80 with probability 3e-8 (Bernstein)
    assert np.abs(np.bincount(flat.ratings.indices, minlength=2000) - 100).max() <= 80


def test_items_are_drawn_with_their_shares_in_rounds_and_in_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of drawing have the same law: the counts of an item differ by chance alone."""
    counts = {}
    for rounds in (0, 32):
        monkeypatch.setattr(datasets, "_ROUNDS", rounds)
        monkeypatch.setattr(datasets, "_PAIRS", 2**20 if rounds == 0 else -4 * 60_000)  # no race before rounds are over
        made = synthetic_ratings(3000, 60, 60_000, activity=(0.3, 1.0), rng=5)
        assert made.ratings.nnz == 60_000
        assert made.ratings.has_canonical_format
        counts[rounds] = np.bincount(made.ratings.indices, minlength=60)
    # an item's count is a sum of 3000 independent 0/1: two of them differ by t with probability 2 exp(-t**2 / 3000)
    assert np.abs(counts[0] - counts[32]).max() <= np.sqrt(3000 * np.log(2 * 60 / 1e-6))
    assert (counts[0] != counts[32]).any()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 7, 21), (7, 3, 20), (1, 50, 50), (50, 1, 50), (40, 30, 1)])
@pytest.mark.parametrize("activity", [0.0, 1.0, 40.0])
def test_full_and_nearly_empty_ratings(sizes: tuple[int, int, int], activity: float) -> None:
    made = synthetic_ratings(*sizes, rank=2, activity=activity, rng=0)
    assert made.ratings.nnz == sizes[2]
    assert made.ratings.has_canonical_format
    assert np.isfinite(made.ratings.data).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_users": 0}, ValueError, "n_users must be at least 1, got 0"),
        ({"n_ratings": 601}, ValueError, r"n_ratings must be in \[1, 600\], got 601; there are 600 pairs"),
        ({"n_ratings": 2.5}, TypeError, "n_ratings must be an integer"),
        ({"rank": 0}, ValueError, "rank must be at least 1"),
        ({"noise": -1.0}, ValueError, "noise must be finite"),
        ({"noise": np.nan}, ValueError, "noise must be finite"),
        ({"activity": (1.0,)}, ValueError, "activity must be a number or a pair"),
        ({"activity": -0.5}, ValueError, "activity must be finite"),
        ({"scale": (1, 5)}, ValueError, "scale must be"),
        ({"scale": (1, 5, 3)}, ValueError, "scale must go up from low to high in whole steps"),
        ({"scale": (5, 1, 1)}, ValueError, "scale must go up"),
        ({"scale": (1, 5, 0)}, ValueError, "scale must go up"),
        ({"scale": (1, np.inf, 1)}, ValueError, "scale must go up"),
        ({"dtype": np.int64}, ValueError, "dtype must be float32 or float64, got int64"),
    ],
)
def test_wrong_parameters_of_synthetic_ratings(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        synthetic_ratings(**{"n_users": 20, "n_items": 30, "n_ratings": 100, **arguments})


@pytest.mark.slow
def test_twenty_million_synthetic_ratings_fit_into_two_gigabytes() -> None:
    """In a fresh process, which holds nothing else; two minutes are the limit of the child."""
    code = (
        "import resource, numpy as np\n"
        "from randla.datasets import synthetic_ratings\n"
        "made = synthetic_ratings(140_000, 27_000, 20_000_000, dtype=np.float32, rng=0)\n"
        "matrix = made.ratings\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "ascending = matrix.indices[1:] > matrix.indices[:-1]\n"
        "ascending[matrix.indptr[1:-1] - 1] = True\n"
        "print(matrix.nnz, bool(ascending.all()), matrix.dtype, peak)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    n, distinct, dtype, peak = done.stdout.split()
    assert (n, distinct, dtype) == ("20000000", "True", "float32")
    assert int(peak) * 1024 < 2e9
