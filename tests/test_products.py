"""Approximate products: unbiasedness, the errors they tell, choices, kinds of arrays, bad input."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from randla._results import Status
from randla.sampling import matmul_approx
from randla.sampling.selection import poisson_threshold

from .conftest import tolerance
from .statistics import bernstein, binomial_upper

METHODS = ["row-norm", "coordinated", "countsketch", "sparse-sign"]


def factors(generator: np.random.Generator, sizes: tuple[int, int, int] = (6, 400, 5)) -> tuple[np.ndarray, np.ndarray]:
    """Two factors whose heavy columns and rows are in part the same."""
    m, n, p = sizes
    scales = generator.lognormal(size=(2, n))
    A = generator.standard_normal((m, n)) * scales[0]
    return A, generator.standard_normal((n, p)) * (scales[0] * scales[1])[:, None] + 0.1


def expected_square(A: np.ndarray, B: np.ndarray, k: int, method: str) -> float:
    """E||estimate - A B||_F**2: exact for the sketches, a bound for the samples."""
    left, right = np.sum(A**2, axis=0), np.sum(B**2, axis=1)
    whole = np.sum(left) * np.sum(right)
    if method == "row-norm":
        return np.sum(np.sqrt(left * right)) ** 2 / k
    if method == "coordinated":
        return 2 / (k - 1) * whole
    return (whole + np.sum((A @ B) ** 2) - 2 * np.sum(left * right)) / k


@pytest.mark.parametrize("method", METHODS)
def test_errors_are_as_expected_and_as_told(method: str, seed: int) -> None:
    """By Markov a squared error is above four times its expectation with probability at most 1/4: so many of 60.

    The means of what is told and of what happened spread by some 10 %; a wrong formula is off by a factor k or 2.
    """
    A, B = factors(np.random.default_rng(1))
    expected = expected_square(A, B, 80, method)
    exceeded, squares, told = 0, [], []
    for key in range(60):
        result = matmul_approx(A, B, 80, method=method, rng=seed + key)
        squares.append(float(np.sum((result.value - A @ B) ** 2)))
        told.append(result.standard_error**2)
        exceeded += squares[-1] > 4 * expected
        assert (result.method, result.reason, result.status) == (method, "asked for", Status.CONVERGED)
    assert exceeded <= binomial_upper(60, 0.25)
    assert 1 / 3 < np.mean(told) / np.mean(squares) < 3


def test_row_norm_sampling_is_unbiased(seed: int) -> None:
    """A product of two vectors: a sum of independent bounded terms, Bernstein at 1e-6; the variance told is exact."""
    A, B = factors(np.random.default_rng(2), (1, 100, 1))
    n_keys, terms = 1500, (A.T * B).ravel()
    results = [matmul_approx(A, B, 20, method="row-norm", rng=seed + key) for key in range(n_keys)]
    p = np.minimum(1.0, poisson_threshold(np.abs(terms), 0.0, 20, np) * np.abs(terms))
    variance = np.sum((1 - p) / p * terms**2)
    for result in results:
        assert abs(result.standard_error**2 - variance) <= tolerance("float64", 100, variance)
    allowed = bernstein(n_keys, variance, np.sum(np.abs(terms) / p))
    assert abs(np.mean([float(result.value[0, 0]) for result in results]) - terms.sum()) <= allowed
    assert allowed < 0.2 * np.sum(np.abs(terms)), "the test could not see a bias"


def test_row_norm_sampling_beats_what_does_not_see_both_factors() -> None:
    """Half of the columns of A meet rows of zeros: the expected errors, in closed form."""
    A, B = factors(np.random.default_rng(3))
    B[::2] = 0.0
    told = {method: matmul_approx(A, B, 60, method=method, rng=0).standard_error for method in METHODS}
    assert told["row-norm"] < 0.8 * math.sqrt(expected_square(A, B, 60, "countsketch"))
    assert told["row-norm"] <= math.sqrt(expected_square(A, B, 60, "row-norm"))


@pytest.mark.parametrize("method", [*METHODS, "exact", "auto"])
def test_kinds_of_arrays(method: str, generator: np.random.Generator) -> None:
    A, B = factors(generator)
    A[generator.random(A.shape) < 0.7] = 0.0
    B[generator.random(B.shape) < 0.7] = 0.0
    dense = matmul_approx(A, B, 50, method=method, rng=1)
    bound = tolerance("float64", 400, np.linalg.norm(A) * np.linalg.norm(B))
    for X, Y in product((A, sp.csr_array(A), sp.csc_matrix(A), np.asfortranarray(A)), (B, sp.csr_matrix(B))):
        result = matmul_approx(X, Y, 50, method=method, rng=1)
        value = result.value.toarray() if sp.issparse(result.value) else result.value
        assert np.max(np.abs(value - dense.value)) <= bound
        both = sp.issparse(X) and sp.issparse(Y)
        assert sp.issparse(result.value) == (both and "sketch" not in method and "sign" not in method)
    assert "\n" not in repr(result)


@pytest.mark.parametrize("method", [*METHODS, "exact", "auto"])
def test_float32(method: str, generator: np.random.Generator) -> None:
    A, B = (X.astype(np.float32) for X in factors(generator))
    result = matmul_approx(A, B, 100, method=method, rng=1)
    assert result.value.dtype == np.float32
    wide = matmul_approx(A.astype(np.float64), B, 100, method=method, rng=1)
    assert wide.value.dtype == np.float64
    bound = tolerance("float32", 100, 4 * np.linalg.norm(A) * np.linalg.norm(B))
    assert np.max(np.abs(result.value - wide.value)) <= bound
    assert np.issubdtype(matmul_approx(np.eye(3, dtype=int), np.eye(3, dtype=int), 5, rng=0).value.dtype, np.float64)


@pytest.mark.parametrize("method", [*METHODS, "exact", "auto"])
def test_other_array_libraries(method: str, xp: Any, put: Any, generator: np.random.Generator) -> None:
    A, B = factors(generator)
    result = matmul_approx(put(A), put(B), 60, method=method, rng=2)
    expected = matmul_approx(A, B, 60, method=method, rng=2)
    assert type(result.value) is type(put(A))
    bound = tolerance("float64", 400, np.linalg.norm(A) * np.linalg.norm(B))
    assert float(xp.max(xp.abs(result.value - put(expected.value)))) <= bound
    assert abs(result.standard_error - expected.standard_error) <= bound
    assert result.reason == expected.reason


def test_choice(generator: np.random.Generator) -> None:
    A, B = factors(generator)
    result = matmul_approx(A, B, 50, rng=0)
    assert result.method == "row-norm"
    assert result.reason.startswith("the error is at most ")
    (value,) = result
    assert value is result.value
    B[100:] = 0.0
    whole = matmul_approx(A, B, 100, rng=0)
    assert (whole.method, whole.standard_error) == ("exact", 0.0)
    assert whole.reason == "n_samples=100 holds all 100 terms that are not zero"
    assert np.max(np.abs(whole.value - A @ B)) <= tolerance("float64", 400, np.linalg.norm(A) * np.linalg.norm(B))


@pytest.mark.parametrize("method", METHODS)
def test_equal_keys_give_equal_products(method: str, generator: np.random.Generator) -> None:
    A, B = factors(generator)
    first, second, other = (matmul_approx(A, B, 30, method=method, rng=rng).value for rng in (4, 4, 5))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", [*METHODS, "exact", "auto"])
@pytest.mark.parametrize("sizes", [(0, 5, 3), (2, 5, 0), (3, 1, 2)])
def test_small_sizes(method: str, sizes: tuple[int, int, int]) -> None:
    m, n, p = sizes
    result = matmul_approx(np.ones((m, n)), np.ones((n, p)), 5, method=method, rng=0)
    assert result.value.shape == (m, p)
    if n == 1:
        assert np.array_equal(np.round(result.value, 12), np.ones((m, p)))


@pytest.mark.parametrize("method", ["row-norm", "coordinated", "exact", "countsketch"])
def test_factors_that_are_not_finite(method: str) -> None:
    A = np.ones((3, 50))
    A[1, 7] = np.nan
    assert matmul_approx(A, A.T, 10, method=method, rng=0).status is Status.NONFINITE


@pytest.mark.parametrize(
    ("A", "B", "keywords", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), {}, ValueError, r"^B must have 3 rows to be multiplied by A, got shape"),
        (np.ones((2, 3), complex), np.ones((3, 2)), {}, ValueError, "^A must be real, got a complex dtype"),
        (np.ones((2, 3)), np.ones((3, 2), complex), {}, ValueError, "^B must be real, got a complex dtype"),
        (np.ones(3), np.ones((3, 2)), {}, ValueError, "^A must be 2-D"),
        (np.ones((2, 3)), "B", {}, TypeError, "^B must be an array"),
        (np.ones((2, 3)), np.ones((3, 2)), {"n_samples": 0}, ValueError, "^n_samples must be in"),
        (np.ones((2, 3)), np.ones((3, 2)), {"n_samples": 1.5}, TypeError, "^n_samples must be an integer"),
        (np.ones((2, 3)), np.ones((3, 2)), {"method": "best"}, ValueError, "^method must be one of 'auto', 'row-norm'"),
        (np.ones((2, 3)), np.ones((3, 2)), {"rng": -1}, ValueError, "^rng must be a non-negative integer"),
    ],
)
def test_bad_input(A: Any, B: Any, keywords: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        matmul_approx(A, B, **{"n_samples": 2, **keywords})
