"""Symmetric nonnegative factorisation: the cubic, brute force on tiny matrices, communities, both methods."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import randla
from randla import kernels
from randla._arrays import to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.kernels import reference
from randla.kernels.symmetric import _stationary

from .conftest import tolerance

#: Matrices come in with norm one: squares of coefficients that vanish are those of nothing.
numbers = st.floats(-1e8, 1e8).filter(lambda x: x == 0 or abs(x) > 1e-100)


def parts(n: int, r: int, seed: int = 0, density: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n, r)) * (rng.random((n, r)) < density)


def loss(A: np.ndarray, H: np.ndarray) -> float:
    return float(np.sum((A - H @ H.T) ** 2))


# --- the cubic --------------------------------------------------------------------------------------------------------


@given(numbers, numbers)
@settings(max_examples=300, deadline=None)
def test_cubic_is_minimised(a: float, b: float) -> None:
    """No root of the cubic and no other point does better; roots by their companion matrix."""

    def value(x: Any) -> Any:
        return x**4 / 4 + a * x**2 / 2 + b * x

    x = _stationary(a, b)
    assert x >= 0
    roots = np.roots([1, 0, a, b])
    candidates = np.concatenate([np.abs(roots[np.abs(roots.imag) <= 1e-6 * np.abs(roots)].real), [0.0, 1.01 * x]])
    size = x**4 / 4 + abs(a) * x**2 / 2 + abs(b) * x
    assert value(x) <= value(candidates).min() + tolerance("float64", 4, max(size, 1e-300))


def test_limits_of_the_cubic() -> None:
    assert _stationary(0.0, 0.0) == _stationary(1.0, 0.0) == _stationary(1.0, 1.0) == 0.0
    assert _stationary(-4.0, 0.0) == 2.0  # x^3 = 4 x
    assert _stationary(0.0, -8.0) == 2.0
    assert abs(_stationary(1e12, -1e-12) - 1e-24) <= 1e-39


@pytest.mark.parametrize("sparse", [False, True])
def test_coefficients_are_those_of_the_objective(sparse: bool) -> None:
    """The entry that a sweep sets last is its minimiser given all others, and the fall of the objective is right."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 6))
    A, H = A + A.T, rng.random((6, 2))
    before = loss(A, H)
    S = sp.csr_array(A)
    if sparse:
        found, fall = kernels.csr_symmetric_sweep(S.data, S.indices, S.indptr, H)
    else:
        found, fall = kernels.symmetric_sweep(A, H)
    assert abs(before - loss(A, found) - fall[0]) <= tolerance("float64", 36, before)
    grid = np.linspace(0, 3, 3001)
    for value in grid:
        moved = found.copy()
        moved[5, 1] = value
        assert loss(A, moved) >= loss(A, found) - tolerance("float64", 36, before)


# --- against brute force and known factors ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_tiny_matrices_against_many_starts_of_a_general_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.random((5, 5))
    A = A + A.T
    least = math.inf
    for _ in range(20):
        found = minimize(
            lambda h: loss(A, h.reshape(5, 2)), rng.random(10),
            jac=lambda h: (4 * (h.reshape(5, 2) @ h.reshape(5, 2).T - A) @ h.reshape(5, 2)).ravel(),
            bounds=[(0, None)] * 10, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10},
        )  # fmt: skip
        least = min(least, found.fun)
    result = randla.symmetric_nmf(A, 2, n_init=10, tol=1e-13, max_iter=5000, rng=seed)
    assert abs(loss(A, result.H) - least) <= 1e-8 * least
    assert abs(result.error - math.sqrt(loss(A, result.H)) / np.linalg.norm(A)) <= tolerance("float64", 25)


@pytest.mark.parametrize("method", ["coordinate", "anls"])
def test_exact_factors_are_found(method: str) -> None:
    H = parts(40, 4)
    result = randla.symmetric_nmf(H @ H.T, 4, method=method, n_init=4, max_iter=3000, tol=1e-10, rng=0)
    assert result.converged
    assert result.error <= 1e-4
    assert result.asymmetry <= 1e-5
    assert len(result.start_errors) == 4
    assert result.error == min(result.start_errors)


def network(seed: int) -> tuple[sp.csr_array, np.ndarray]:
    """Four communities of 75, edges with probability 0.3 inside and 0.05 outside, normalised by degrees."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 300)
    upper = np.triu(rng.random((300, 300)) < (0.05 + 0.25 * np.eye(4))[labels][:, labels], 1)
    A = (upper + upper.T).astype(float)
    degrees = np.maximum(A.sum(axis=0), 1)
    return sp.csr_array(A / np.sqrt(np.outer(degrees, degrees))), labels


@pytest.mark.parametrize("method", ["coordinate", "anls"])
def test_communities_are_found(method: str) -> None:
    """Pairs of nodes of the same community get the same label, on one network with a stated seed."""
    A, labels = network(1)
    result = randla.symmetric_nmf(A, 4, method=method, n_init=3, rng=0, on_failure="ignore")
    same = labels[:, None] == labels
    assert np.mean((result.labels[:, None] == result.labels) == same) > 0.97


def test_error_never_rises_and_sparse_is_dense() -> None:
    A, _ = network(0)
    sparse = randla.symmetric_nmf(A, 4, rng=0, tol=1e-5)
    dense = randla.symmetric_nmf(A.toarray(), 4, rng=0, tol=1e-5)
    assert max(np.diff(sparse.history)) <= 0
    assert sparse.n_iter == dense.n_iter
    assert np.abs(sparse.H - dense.H).max() <= tolerance("float64", 90_000, 100)
    assert abs(sparse.history[-1] - sparse.error) <= tolerance("float64", 90_000)
    assert sparse.H.min() >= 0
    for container in (sp.csc_array, sp.csr_matrix, sp.coo_array):
        assert abs(randla.symmetric_nmf(container(A), 4, rng=0, tol=1e-5).error - sparse.error) <= 1e-10


def test_fixed_points_are_stationary() -> None:
    """Small slopes where entries are positive, none downwards where they are zero."""
    A, _ = network(0)
    H = randla.symmetric_nmf(A, 4, rng=0, tol=1e-14, max_iter=5000).H
    slope = H @ (H.T @ H) - A @ H
    assert np.abs(np.minimum(H, slope)).max() <= 1e-5


# --- scales, kinds of arrays, the two kernels -------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_scales(scale: float) -> None:
    H = parts(20, 3)
    first, other = (randla.symmetric_nmf(H @ H.T * s, 3, rng=0, on_failure="ignore") for s in (1.0, scale))
    assert first.n_iter == other.n_iter
    assert abs(first.error - other.error) <= 1e-9
    assert np.abs(first.H - other.H / math.sqrt(scale)).max() <= 1e-6


def test_namespaces_and_dtypes(put: Any, dtype: str) -> None:
    H = parts(8, 2).astype(dtype)
    A = (H @ H.T).astype(dtype)
    for method in ("coordinate", "anls"):
        options: dict[str, Any] = {"method": method, "max_iter": 4, "rng": 0, "on_failure": "ignore"}
        host, found = randla.symmetric_nmf(A, 2, **options), randla.symmetric_nmf(put(A), 2, **options)
        assert to_host(found.H).dtype == dtype
        assert np.abs(to_host(found.H) - host.H).max() <= 100 * tolerance(dtype, 64)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_sweeps_are_those_of_the_definition(n: int, r: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    A, H = A + A.T, rng.random((n, r))
    mine, truth = kernels.symmetric_sweep(A, H), reference.symmetric_sweep(A, H)
    assert abs(loss(A, mine[0]) - loss(A, truth[0])) <= tolerance("float64", n**3, 100 * (1 + np.linalg.norm(A) ** 2))
    assert mine[1][0] >= -tolerance("float64", n * n, 1 + np.linalg.norm(A) ** 2)


def test_input_is_not_changed() -> None:
    A, _ = network(0)
    before, start = A.copy(), np.random.default_rng(0).random((300, 3))
    kept = start.copy()
    result = randla.symmetric_nmf(A, 3, init=start, max_iter=3, on_failure="ignore")
    assert np.array_equal(A.data, before.data)
    assert np.array_equal(start, kept)
    assert result.n_iter == 3


def test_zero_matrix_and_zero_rows() -> None:
    zero = randla.symmetric_nmf(np.zeros((5, 5)), 2, rng=0)
    assert (zero.error, zero.norm) == (0.0, 0.0)
    assert np.array_equal(zero.H, np.zeros((5, 2)))
    A = np.zeros((6, 6))
    A[:3, :3] = 1.0
    result = randla.symmetric_nmf(A, 2, rng=0, n_init=3, on_failure="ignore")  # two parts for one: slow
    assert result.error <= 1e-3
    assert np.abs(result.H[3:]).max() <= 1e-2
    negative = randla.symmetric_nmf(-np.eye(4), 2, rng=0)
    assert negative.H.max() <= tolerance("float64", 4)  # nothing is nearer than zero
    assert abs(negative.error - 1) <= tolerance("float64", 16)


# --- what must fail ---------------------------------------------------------------------------------------------------


def test_limits_and_callback() -> None:
    A, _ = network(0)
    for method in ("coordinate", "anls"):
        with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
            assert not randla.symmetric_nmf(A, 4, method=method, max_iter=0, rng=0).converged
        seen: list[int] = []
        stop = lambda step, error, seen=seen: seen.append(step) or step == 2  # noqa: E731
        result = randla.symmetric_nmf(A, 4, method=method, tol=0.0, callback=stop, rng=0, on_failure="ignore")
        assert seen == [1, 2]
        assert result.n_iter == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_matrix(bad: float) -> None:
    A = np.ones((4, 4))
    A[1, 1] = bad
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        assert randla.symmetric_nmf(A, 2).status is Status.NONFINITE
    with pytest.raises(ConvergenceError):
        randla.symmetric_nmf(A, 2, on_failure="raise")


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "A must be symmetric, got a difference of 1", {"A": np.triu(np.ones((4, 4)))}),
        (ValueError, "A must be symmetric", {"A": sp.csr_array(np.triu(np.ones((4, 4))))}),
        (ValueError, "A must be square and not empty", {"A": np.ones((4, 3))}),
        (ValueError, "A must be square and not empty", {"A": np.ones((0, 0))}),
        (TypeError, "A must be real", {"A": 1j * np.eye(4)}),
        (ValueError, r"rank must be in \[1, 4\]", {"rank": 5}),
        (ValueError, "n_init must be at least 1", {"n_init": 0}),
        (ValueError, "method must be one of", {"method": "newton"}),
        (ValueError, r"init must have shape \(4, 2\)", {"init": np.ones((2, 4))}),
        (ValueError, "init must be nonnegative", {"init": -np.ones((4, 2))}),
        (ValueError, "init must be nonnegative", {"init": np.full((4, 2), np.nan)}),
        (ValueError, "tol must be finite", {"tol": -1.0}),
    ],
)
def test_bad_arguments(error: type, message: str, options: dict) -> None:
    arguments = {"A": np.eye(4), "rank": 2, **options}
    with pytest.raises(error, match=message):
        randla.symmetric_nmf(arguments.pop("A"), **arguments)
