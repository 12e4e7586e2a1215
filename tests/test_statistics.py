"""The thresholds of the statistical tests hold what they promise, and are not so loose that nothing fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from . import statistics


@pytest.mark.parametrize("p", [1e-4, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("n", [1, 10, 2000])
def test_binomial_threshold_is_exact(n: int, p: float) -> None:
    k = statistics.binomial_upper(n, p, 1e-3)
    assert stats.binom.sf(k, n, p) <= 1e-3
    assert k == 0 or stats.binom.sf(k - 1, n, p) > 1e-3
    low, high = statistics.binomial_interval(n, p, 1e-3)
    assert stats.binom.cdf(low - 1, n, p) + stats.binom.sf(high, n, p) <= 1e-3


@pytest.mark.parametrize(
    "threshold",
    [
        pytest.param(statistics.hoeffding(200, 1.0, 0.02), id="hoeffding"),
        pytest.param(statistics.bernstein(200, 1 / 12, 0.5, 0.02), id="bernstein"),
        pytest.param(statistics.chebyshev(200, 1 / 12, 0.02), id="chebyshev"),
    ],
)
def test_bounds_of_a_mean_hold_and_bite(threshold: float, generator: np.random.Generator) -> None:
    """Means of 200 uniforms are rarely beyond the threshold; means shifted by twice the threshold nearly always are."""
    means = generator.uniform(size=(2000, 200)).mean(axis=1)
    assert np.sum(np.abs(means - 0.5) > threshold) <= statistics.binomial_upper(2000, 0.02)
    assert np.mean(np.abs(means + 2 * threshold - 0.5) > threshold) > 0.9


def test_kolmogorov_threshold(generator: np.random.Generator) -> None:
    draws = generator.uniform(size=(1000, 300))
    distances = [stats.kstest(row, "uniform").statistic for row in draws]
    assert np.sum(np.array(distances) > statistics.dkw(300, 0.01)) <= statistics.binomial_upper(1000, 0.01)
    assert stats.kstest(draws[0] ** 2, "uniform").statistic > statistics.dkw(300)  # a wrong distribution is caught


def test_gaussian_singular_values(generator: np.random.Generator) -> None:
    low, high = statistics.gaussian_singular_values(400, 40)
    s = np.linalg.svd(generator.normal(size=(400, 40)) / 20, compute_uv=False)
    assert low < s[-1]
    assert s[0] < high
    assert low > 0.3  # 1 - sqrt(0.1) - t
    assert high < 1 + math.sqrt(0.1) + 0.3


def test_chi_square_interval(generator: np.random.Generator) -> None:
    low, high = statistics.chi_square_interval(1000)
    assert low < np.sum(generator.normal(size=1000) ** 2) < high
    assert not low < 1.4 * 1000 < high  # a variance that is 40 % too large is seen
