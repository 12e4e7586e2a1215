"""Distortion of the sketches: isotropy, the singular values of S U in three geometries, the law of sketch-and-solve."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

import randla
from randla import Key, as_key
from randla.operators import GaussianPooledHadamard
from randla.operators.base import SketchOperator

from .statistics import FALSE_ALARM, binomial_upper, gaussian_singular_values

M, N = 16384, 100
DRAWS = 8

MAKE: dict[str, Callable[[int, int, Any], SketchOperator]] = {
    "Gaussian": lambda k, m, rng: randla.Gaussian(k, m, rng=rng),
    "Rademacher": lambda k, m, rng: randla.Rademacher(k, m, rng=rng),
    "SparseJL": lambda k, m, rng: randla.SparseJL(k, m, rng=rng),
    "CountSketch": lambda k, m, rng: randla.CountSketch(k, m, rng=rng),
    "SparseSign-2": lambda k, m, rng: randla.SparseSign(k, m, nnz=2, rng=rng),
    "SparseSign-4": lambda k, m, rng: randla.SparseSign(k, m, nnz=4, rng=rng),
    "SparseSign-8": lambda k, m, rng: randla.SparseSign(k, m, nnz=8, rng=rng),
    "SRCT-1": lambda k, m, rng: randla.SRCT(k, m, rounds=1, rng=rng),
    "SRCT-2": lambda k, m, rng: randla.SRCT(k, m, rng=rng),
    "SRHT-1": lambda k, m, rng: randla.SRHT(k, m, rounds=1, rng=rng),
    "SRHT-2": lambda k, m, rng: randla.SRHT(k, m, rng=rng),
    "Pooled": lambda k, m, rng: GaussianPooledHadamard(k, m, rng=rng),
    "BlockSRHT-2": lambda k, m, rng: randla.BlockSRHT(k, m, rng=rng),
    "LESS-n": lambda k, m, rng: randla.LESS(k, m, nnz=N, rng=rng),
    "LESS-8n": lambda k, m, rng: randla.LESS(k, m, nnz=8 * N, rng=rng),
}


@cache
def geometry(name: str) -> Any:
    """Orthonormal columns: spread out, unit vectors, or one large entry with 150 small ones."""
    if name == "coherent":
        return sp.eye_array(M, N, format="csr")
    if name == "haar":
        return np.linalg.qr(np.random.default_rng(0).standard_normal((M, N)))[0]
    U = np.zeros((M, N))
    for j in range(N):
        U[j, j] = 0.9
        U[N + 150 * j : N + 150 * (j + 1), j] = math.sqrt((1 - 0.81) / 150)
    return sp.csr_array(U)


def test_geometries_are_orthonormal() -> None:
    for name in ("coherent", "haar", "semi"):
        gram = geometry(name).T @ geometry(name)
        gram = gram.toarray() if sp.issparse(gram) else gram
        assert np.abs(gram - np.eye(N)).max() <= 8 * np.finfo(float).eps * M**0.5


def extremes(operator: str, place: str, ratio: int, key: Key, draws: int = DRAWS) -> np.ndarray:
    """(smallest, largest) singular value of S U for each draw."""
    made = (MAKE[operator](ratio * N, M, key.fold(draw)) for draw in range(draws))
    return np.array([ends(S @ geometry(place)) for S in made])


def ends(B: np.ndarray) -> tuple[float, float]:
    """Smallest and largest singular value, from the Gram matrix; what is zero to rounding is 0."""
    values = np.linalg.eigvalsh(B.T @ B)
    return math.sqrt(values[0]) if values[0] > N * np.finfo(float).eps * values[-1] else 0.0, math.sqrt(values[-1])


# --- fences: every draw -----------------------------------------------------------------------------------------------


class Fence(NamedTuple):
    """The ranges of both extremes over `n` draws under other keys, rounded outwards to two digits."""

    least_low: float
    least_high: float
    largest_low: float
    largest_high: float
    n: int

    @property
    def outside(self) -> float:
        """A bound, with 99.9 % confidence, of the probability that a draw leaves the ranges.

        Each of the four ends is passed with a Beta(1, n) probability, so their sum is below a Gamma(4) over n.
        """
        return float(stats.gamma.isf(1e-3, 4)) / self.n

    def holds(self, values: np.ndarray) -> np.ndarray:
        least, largest = values.T
        inside = (self.least_low <= least) & (least <= self.least_high)
        return inside & (self.largest_low <= largest) & (largest <= self.largest_high)


#: the law of a Gaussian matrix, drawn with NumPy; it is the same in every geometry
GAUSSIAN = {
    2: Fence(0.24, 0.35, 1.59, 1.78, 2000),
    4: Fence(0.46, 0.55, 1.43, 1.55, 2000),
    8: Fence(0.61, 0.69, 1.3, 1.39, 2000),
}

FENCES = {
    ("CountSketch", "coherent", 2): Fence(0.0, 0.0, 1.41, 2.83, 2000),
    ("CountSketch", "coherent", 4): Fence(0.0, 0.0, 1.41, 2.24, 2000),
    ("CountSketch", "coherent", 8): Fence(0.0, 1.0, 1.0, 2.24, 2000),
    ("CountSketch", "semi", 4): Fence(0.27, 0.36, 1.41, 2.11, 2000),
    ("CountSketch", "haar", 2): Fence(0.26, 0.35, 1.6, 1.82, 2000),
    ("SparseSign-2", "coherent", 2): Fence(0.0, 0.33, 1.5, 2.36, 2000),
    ("SparseSign-2", "coherent", 4): Fence(0.0, 0.55, 1.38, 2.01, 2000),
    ("SparseSign-2", "coherent", 8): Fence(0.0, 0.71, 1.22, 1.77, 2000),
    ("SparseSign-2", "semi", 4): Fence(0.32, 0.56, 1.4, 1.92, 2000),
    ("SparseSign-2", "haar", 2): Fence(0.25, 0.35, 1.59, 1.77, 2000),
    ("SparseSign-4", "coherent", 2): Fence(0.19, 0.34, 1.57, 1.98, 2000),
    ("SparseSign-4", "coherent", 4): Fence(0.31, 0.55, 1.4, 1.75, 2000),
    ("SparseSign-4", "coherent", 8): Fence(0.43, 0.68, 1.27, 1.61, 2000),
    ("SparseSign-4", "semi", 4): Fence(0.43, 0.55, 1.42, 1.68, 2000),
    ("SparseSign-4", "haar", 2): Fence(0.25, 0.35, 1.61, 1.79, 2000),
    ("SparseSign-8", "coherent", 2): Fence(0.24, 0.36, 1.59, 1.82, 2000),
    ("SparseSign-8", "coherent", 4): Fence(0.44, 0.55, 1.42, 1.61, 2000),
    ("SparseSign-8", "coherent", 8): Fence(0.57, 0.69, 1.3, 1.49, 2000),
    ("SparseSign-8", "semi", 4): Fence(0.46, 0.55, 1.42, 1.57, 2000),
    ("SparseSign-8", "haar", 2): Fence(0.26, 0.35, 1.61, 1.79, 2000),
    ("LESS-n", "coherent", 2): Fence(0.0, 0.0, 1.81, 2.86, 1000),
    ("LESS-n", "coherent", 4): Fence(0.0, 0.0, 1.6, 2.36, 1000),
    ("LESS-n", "coherent", 8): Fence(0.0, 0.54, 1.42, 1.94, 1000),
    ("LESS-n", "semi", 4): Fence(0.27, 0.37, 1.56, 2.19, 1000),
    ("LESS-n", "haar", 2): Fence(0.24, 0.37, 1.6, 1.77, 1000),
    ("LESS-8n", "coherent", 2): Fence(0.0, 0.32, 1.66, 1.96, 400),
    ("LESS-8n", "coherent", 4): Fence(0.36, 0.52, 1.47, 1.68, 400),
    ("LESS-8n", "coherent", 8): Fence(0.58, 0.66, 1.34, 1.46, 200),
    ("LESS-8n", "semi", 4): Fence(0.44, 0.53, 1.45, 1.61, 400),
    ("LESS-8n", "haar", 2): Fence(0.26, 0.34, 1.62, 1.77, 400),
    ("SRHT-2", "coherent", 2): Fence(0.24, 0.35, 1.61, 1.75, 400),
    ("SRHT-2", "coherent", 4): Fence(0.47, 0.55, 1.43, 1.52, 400),
    ("SRHT-2", "coherent", 8): Fence(0.62, 0.69, 1.29, 1.37, 400),
    ("SRHT-2", "semi", 4): Fence(0.47, 0.55, 1.42, 1.54, 400),
    ("SRHT-2", "haar", 2): Fence(0.26, 0.35, 1.61, 1.76, 400),
    ("SRCT-2", "coherent", 2): Fence(0.27, 0.35, 1.62, 1.76, 400),
    ("SRCT-2", "coherent", 4): Fence(0.47, 0.55, 1.42, 1.56, 400),
    ("SRCT-2", "coherent", 8): Fence(0.63, 0.69, 1.3, 1.37, 400),
    ("SRCT-2", "semi", 4): Fence(0.47, 0.55, 1.43, 1.53, 400),
    ("SRCT-2", "haar", 2): Fence(0.25, 0.36, 1.61, 1.76, 400),
    ("Pooled", "coherent", 2): Fence(0.25, 0.34, 1.61, 1.79, 400),
    ("Pooled", "coherent", 4): Fence(0.47, 0.54, 1.44, 1.55, 400),
    ("Pooled", "coherent", 8): Fence(0.62, 0.69, 1.31, 1.41, 400),
    ("Pooled", "semi", 4): Fence(0.47, 0.55, 1.43, 1.54, 400),
    ("Pooled", "haar", 2): Fence(0.25, 0.35, 1.62, 1.78, 400),
    ("BlockSRHT-2", "coherent", 2): Fence(0.27, 0.37, 1.53, 1.63, 400),
    ("BlockSRHT-2", "coherent", 4): Fence(0.52, 0.62, 1.3, 1.37, 400),
    ("BlockSRHT-2", "coherent", 8): Fence(0.68, 0.73, 1.22, 1.27, 400),
    ("BlockSRHT-2", "semi", 4): Fence(0.51, 0.59, 1.36, 1.44, 400),
    ("BlockSRHT-2", "haar", 2): Fence(0.26, 0.35, 1.59, 1.76, 400),
    ("SRCT-1", "coherent", 2): Fence(0.0, 0.2, 1.51, 2.34, 400),
    ("SRCT-1", "coherent", 4): Fence(0.04, 0.56, 1.35, 1.86, 400),
    ("SRHT-1", "coherent", 2): Fence(0.0, 0.0, 1.51, 2.12, 400),
    ("SRHT-1", "coherent", 4): Fence(0.0, 0.54, 1.38, 1.84, 400),
}

FAST = {"CountSketch", "SparseSign-2", "SparseSign-4", "SparseSign-8", "LESS-n", "SRHT-2"}
CELLS = (("coherent", 2), ("coherent", 4), ("coherent", 8), ("semi", 4), ("haar", 2))


def _cells(operators: Any) -> list[Any]:
    slow = pytest.mark.slow
    return [
        pytest.param(operator, *cell, marks=() if operator in FAST and cell[0] == "coherent" else slow)
        for operator in operators
        for cell in CELLS
        if (operator, *cell) in FENCES or operator in ("Gaussian", "Rademacher", "SparseJL")
    ]


@pytest.mark.parametrize(("operator", "place", "ratio"), _cells(MAKE))
def test_distortion(operator: str, place: str, ratio: int, seed: int) -> None:
    """No more draws leave the fences than the binomial law allows: false alarm 1e-6, given the fences."""
    fence = FENCES.get((operator, place, ratio), GAUSSIAN[ratio])
    values = extremes(operator, place, ratio, as_key(seed).fold(f"{operator} {place} {ratio}"))
    allowed = binomial_upper(DRAWS, fence.outside)
    assert allowed < DRAWS
    assert np.count_nonzero(~fence.holds(values)) <= allowed, values


@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("operator", ["Gaussian"])
def test_gaussian_bound(operator: str, ratio: int, seed: int) -> None:
    """Davidson and Szarek's bound for the worst of the draws, and by independence the sharper one for their mean."""
    values = extremes(operator, "coherent", ratio, as_key(seed).fold(ratio), DRAWS)
    low, high = gaussian_singular_values(ratio * N, N, FALSE_ALARM / (2 * DRAWS))
    assert low <= values[:, 0].min()
    assert values[:, 1].max() <= high
    # each extreme is a Lipschitz function of the normals with constant (ratio N)**-1/2, and so is the mean of the
    # draws, with a constant sqrt(DRAWS) times less
    t = math.sqrt(2 * math.log(4 / FALSE_ALARM) / (ratio * N * DRAWS))
    assert values[:, 0].mean() >= 1 - ratio**-0.5 - t
    assert values[:, 1].mean() <= 1 + ratio**-0.5 + t


# --- the table: worst of eight ----------------------------------------------------------------------------------------

#: largest and smallest singular value over eight draws, measured with another program; columns as in CELLS, no haar
TABLE = {
    "Gaussian": ((1.70, 0.306), (1.54, 0.490), (1.35, 0.639), (1.49, 0.491)),
    "CountSketch": ((2.24, 0.0), (1.73, 0.0), (1.41, 0.0), (1.66, 0.293)),
    "SparseSign-2": ((1.81, 0.0), (1.63, 0.226), (1.59, 0.315), (1.63, 0.379)),
    "SparseSign-4": ((1.75, 0.248), (1.70, 0.403), (1.44, 0.586), (1.52, 0.469)),
    "SparseSign-8": ((1.72, 0.282), (1.53, 0.489), (1.40, 0.630), (1.52, 0.502)),
    "SRCT-2": ((1.74, 0.284), (1.50, 0.518), (1.37, 0.653), (1.51, 0.504)),
    "LESS-n": ((2.49, 0.0), (1.99, 0.0), (1.69, 0.0), (1.83, 0.297)),
    "LESS-8n": ((1.82, 0.240), (1.55, 0.455), (1.44, 0.594), (1.58, 0.481)),
}
#: on haar every operator is a Gaussian
HAAR = (1.70, 1.73), (0.27, 0.29)


@pytest.mark.parametrize("operator", TABLE)
def test_fences_and_table_agree(operator: str) -> None:
    """Two programs, one law: the worst of the other's eight draws is a value that a draw of ours may have."""
    for (place, ratio), (largest, least) in zip(CELLS, TABLE[operator], strict=False):
        fence = FENCES.get((operator, place, ratio), GAUSSIAN[ratio])
        assert fence.largest_low <= largest <= fence.largest_high, (place, ratio)
        assert fence.least_low <= least <= fence.least_high, (place, ratio)


@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TABLE]
)
def test_worst_of_eight_draws(operator: str) -> None:
    """The table again, for keys that never change, so that nothing here can fail by chance.

    0.15 is the spread of the worst of eight where a pair of columns may collide, 0.05 where the law is a Gaussian one.
    """
    smooth = operator in ("Gaussian", "SparseSign-8", "SRCT-2", "LESS-8n")
    for (place, ratio), (largest, least) in zip(CELLS, TABLE[operator], strict=False):
        values = extremes(operator, place, ratio, Key(0, 0))
        assert values[:, 0].min() == pytest.approx(least, abs=0.05 if smooth else 0.15)
        if least > 0:
            assert values[:, 1].max() == pytest.approx(largest, abs=0.08 if smooth else 0.15)


@pytest.mark.slow
@pytest.mark.parametrize("operator", MAKE)
def test_incoherent_data_make_all_sketches_alike(operator: str) -> None:
    values = extremes(operator, "haar", 2, Key(0, 0))
    assert HAAR[0][0] - 0.05 <= values[:, 1].max() <= HAAR[0][1] + 0.05
    assert HAAR[1][0] - 0.02 <= values[:, 0].min() <= HAAR[1][1] + 0.02


# --- sketches that must fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_count_sketch_loses_directions_of_coherent_data(ratio: int, seed: int) -> None:
    """Two unit vectors in one bucket are one direction: the birthday of N vectors in ratio N buckets."""
    k = ratio * N
    regular = math.exp(sum(math.log1p(-i / k) for i in range(N)))
    draws = math.ceil(math.log(FALSE_ALARM) / math.log(regular)) if ratio == 8 else DRAWS
    values = extremes("CountSketch", "coherent", ratio, as_key(seed).fold(ratio), draws)
    assert np.count_nonzero(values[:, 0] > 0) <= binomial_upper(draws, regular) < draws
    assert values[:, 0].min() == 0


@pytest.mark.parametrize("ratio", [2, 4])
def test_short_less_rows_miss_columns(ratio: int, seed: int) -> None:
    """With N nonzeros to a row some of the N unit vectors are drawn by no row; the misses are negatively associated."""
    missed = (1 - 1 / M) ** (ratio * N * N)
    regular = (1 - missed) ** N
    values = extremes("LESS-n", "coherent", ratio, as_key(seed).fold(ratio))
    assert np.count_nonzero(values[:, 0] > 0) <= binomial_upper(DRAWS, regular) < DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["SRCT-1", "SRHT-1"])
def test_one_round_loses_directions(operator: str, seed: int) -> None:
    """Neighbouring unit vectors have transforms that are alike: all of 400 draws are below the Gaussian's fence."""
    values = extremes(operator, "coherent", 2, as_key(seed).fold(operator))
    fence = FENCES[operator, "coherent", 2]
    assert fence.least_high < GAUSSIAN[2].least_low
    assert np.count_nonzero(values[:, 0] > fence.least_high) <= binomial_upper(DRAWS, fence.outside) < DRAWS


def test_fences_catch_bad_sketches(seed: int) -> None:
    """A test of the tests: another size, a missing scale, half of the signs, one nonzero for eight."""
    key, allowed = as_key(seed), binomial_upper(DRAWS, FENCES["SparseSign-8", "coherent", 4].outside)
    fence = FENCES["SparseSign-8", "coherent", 4]
    good = extremes("SparseSign-8", "coherent", 4, key)
    bad = {
        "scale": 1.1 * good,
        "smaller": extremes("SparseSign-8", "coherent", 2, key),
        "one nonzero": extremes("CountSketch", "coherent", 4, key),
        "unsigned": np.array(
            [ends(np.abs(randla.SparseSign(4 * N, M, rng=key.fold(i)).toarray(0, N))) for i in range(DRAWS)]
        ),
    }
    assert np.count_nonzero(~fence.holds(good)) <= allowed
    for name, values in bad.items():
        assert np.count_nonzero(~fence.holds(values)) > allowed, name


# --- isotropy ---------------------------------------------------------------------------------------------------------

ISOTROPY_DRAWS = 2000


def _vectors(m: int) -> np.ndarray:
    """A flat vector, one that alternates, a spike, and one that decays; of length one."""
    X = np.stack([np.ones(m), (-1.0) ** np.arange(m), np.arange(m) == m // 3, 0.9 ** np.arange(m)], axis=1)
    return X / np.linalg.norm(X, axis=0)


def check_isotropy(gram: np.ndarray, truth: np.ndarray) -> None:
    """The mean of X.T S.T S X is X.T X within 6 standard deviations of the mean.

    That is 2e-9 for a normal mean; the margin to 1e-6 is for what the mean of 2000 draws lacks to a normal law.
    """
    spread = gram.std(0) / len(gram) ** 0.5
    allowed = np.maximum(6 * spread, 8 * np.finfo(float).eps * truth.size)
    assert np.all(np.abs(gram.mean(0) - truth) <= allowed)


@pytest.mark.parametrize("operator", [*MAKE, "RowSample", "RowSample-weighted", "BlockSRHT-small", "SparseJL-auto"])
def test_isotropy(operator: str, seed: int) -> None:
    """E[S.T @ S] = I: lengths and inner products are kept on average."""
    m, k = 60, 16
    make = {
        **MAKE,
        "LESS-n": lambda k, m, rng: randla.LESS(k, m, nnz=3, rng=rng),
        "LESS-8n": lambda k, m, rng: randla.LESS(k, m, nnz=24, rng=rng),
        "RowSample": lambda k, m, rng: randla.RowSample(k, m, rng=rng),
        "RowSample-weighted": lambda k, m, rng: randla.RowSample(k, m, probabilities=np.arange(1, m + 1), rng=rng),
        "BlockSRHT-small": lambda k, m, rng: randla.BlockSRHT(k, m, block_size=16, rng=rng),
        "SparseJL-auto": lambda k, m, rng: randla.SparseJL(k, m, density="auto", rng=rng),
    }[operator]
    X, key, gram = _vectors(m), as_key(seed).fold(operator), []
    for draw in range(ISOTROPY_DRAWS):
        B = make(k, m, key.fold(draw)) @ X
        gram.append(B.T @ B)
    check_isotropy(np.array(gram), X.T @ X)


def test_isotropy_sees_a_wrong_scale(seed: int) -> None:
    X, key = _vectors(60), as_key(seed)
    sketches = [randla.SparseSign(16, 60, rng=key.fold(draw)) @ X for draw in range(ISOTROPY_DRAWS)]
    gram = np.array([B.T @ B for B in sketches])
    check_isotropy(gram, X.T @ X)
    with pytest.raises(AssertionError):
        check_isotropy(1.06 * gram, X.T @ X)
    with pytest.raises(AssertionError):
        check_isotropy(np.array([B[1:].T @ B[1:] for B in sketches]), X.T @ X)


# --- sketch and solve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [100, 200, 600])
@pytest.mark.parametrize("operator", ["SparseSign-4", "SparseSign-8", pytest.param("SRHT-2", marks=pytest.mark.slow)])
def test_error_of_sketch_and_solve(operator: str, k: int, seed: int) -> None:
    """The excess of the squared residual is d / (k - d - 1) of it on average, for any good sketch.

    One draw has a standard deviation of about 0.3 of its mean, so the mean of 64 has 0.04: a quarter is 6 of those.
    """
    d, draws = 50, 64
    rng, key = np.random.default_rng(seed), as_key(seed).fold(f"{operator} {k}")
    Q = np.linalg.qr(rng.standard_normal((M, d)))[0]
    b = rng.standard_normal(M)
    best = Q.T @ b
    residual = b @ b - best @ best
    excess = []
    for draw in range(draws):
        B = MAKE[operator](k, M, key.fold(draw)) @ np.column_stack([Q, b])
        x = np.linalg.solve(B[:, :-1].T @ B[:, :-1], B[:, :-1].T @ B[:, -1])  # well conditioned: Q is orthonormal
        excess.append(np.sum((x - best) ** 2) / residual)
    assert abs(np.mean(excess) / (d / (k - d - 1)) - 1) <= 0.25
    assert np.std(excess) <= 0.6 * np.mean(excess), "the claim about one draw"
