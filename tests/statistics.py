"""Thresholds of statistical tests: each is derived from a stated probability of a false alarm.

A test that compares a random quantity with one of these thresholds fails by bad luck with at most that probability,
whatever the seed.  The binomial and chi-square thresholds are exact; the others are concentration inequalities, which
hold for every sample size, so no test here leans on a limit theorem.
"""

from __future__ import annotations

import math

from scipy import stats

#: Highest probability with which one correct test may fail.
FALSE_ALARM = 1e-6


def binomial_upper(n: int, p: float, false_alarm: float = FALSE_ALARM) -> int:
    """The least k with P(X > k) <= false_alarm for X ~ Binomial(n, p): how many rare events are still plausible."""
    k = int(stats.binom.isf(false_alarm, n, p))
    while stats.binom.sf(k, n, p) > false_alarm:  # isf rounds; the loop makes the claim exact
        k += 1
    return k


def binomial_interval(n: int, p: float, false_alarm: float = FALSE_ALARM) -> tuple[int, int]:
    """(low, high) with P(low <= X <= high) >= 1 - false_alarm for X ~ Binomial(n, p)."""
    high = binomial_upper(n, p, false_alarm / 2)
    low = n - binomial_upper(n, 1 - p, false_alarm / 2)
    return low, high


def chi_square_interval(dof: int, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """(low, high) for a sum of `dof` squared standard normals."""
    return float(stats.chi2.ppf(false_alarm / 2, dof)), float(stats.chi2.isf(false_alarm / 2, dof))


def hoeffding(n: int, width: float, false_alarm: float = FALSE_ALARM) -> float:
    """Largest plausible |mean - expectation| of `n` independent draws from an interval of length `width`."""
    return width * math.sqrt(math.log(2 / false_alarm) / (2 * n))


def bernstein(n: int, variance: float, bound: float, false_alarm: float = FALSE_ALARM) -> float:
    """Largest plausible |mean - expectation| of `n` independent draws with |X - EX| <= bound and the given variance."""
    log = math.log(2 / false_alarm)
    return bound * log / (3 * n) + math.sqrt((bound * log / (3 * n)) ** 2 + 2 * variance * log / n)


def chebyshev(n: int, variance: float, false_alarm: float = FALSE_ALARM) -> float:
    """Largest plausible |mean - expectation| of `n` uncorrelated draws of which only the variance is known."""
    return math.sqrt(variance / (n * false_alarm))


def dkw(n: int, false_alarm: float = FALSE_ALARM) -> float:
    """Largest plausible Kolmogorov distance of `n` draws to their distribution (Dvoretzky-Kiefer-Wolfowitz-Massart)."""
    return math.sqrt(math.log(2 / false_alarm) / (2 * n))


def gaussian_singular_values(sketch_size: int, n: int, false_alarm: float = FALSE_ALARM) -> tuple[float, float]:
    """(low, high) for the singular values of a (sketch_size, n) Gaussian matrix divided by sqrt(sketch_size).

    Davidson and Szarek: each side fails with probability at most exp(-sketch_size t^2 / 2).
    """
    t = math.sqrt(2 * math.log(2 / false_alarm) / sketch_size)
    ratio = math.sqrt(n / sketch_size)
    return max(0.0, 1 - ratio - t), 1 + ratio + t
