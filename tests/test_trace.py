"""Traces, diagonals, log-determinants and norms: oracles, brute force, exactness, unbiasedness, and intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from randla._arrays import to_host
from randla._random import as_key
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.datasets import with_spectrum
from randla.linear_maps import as_linear_map
from randla.traces import diagonal, logdet, norm_estimate, row_norms, trace
from randla.traces.diagonal import _STATES
from randla.traces.panels import TestPanel as Panel  # a name that pytest would collect
from randla.traces.results import entry_factor, skewed_factor, student_factor
from randla.traces.scalar import ESTIMATORS

from .conftest import tolerance
from .statistics import FALSE_ALARM, binomial_upper

METHODS = tuple(ESTIMATORS)
GENERAL = ("xtrace", "hutchpp", "hutchinson")
ENTRYWISE = ("xdiag", "xnysdiag", "xrownorm", "xsymrownorm")


def symmetric(values: Any, dtype: str = "float64", rng: int = 0) -> np.ndarray:
    """A symmetric (Hermitian) matrix with the given eigenvalues."""
    n = len(values)
    Q = np.linalg.qr(with_spectrum(n, n, np.ones(n), dtype=dtype, rng=rng))[0]
    A = (Q * np.asarray(values)) @ Q.conj().T
    return ((A + A.conj().T) / 2).astype(dtype)


def general(n: int = 60, dtype: str = "float64", rng: int = 0) -> np.ndarray:
    return with_spectrum(n, n, 0.8 ** np.arange(n), dtype=dtype, rng=rng)


def entries(A: Any, n_matvecs: int, method: str, **options: Any) -> Any:
    return (diagonal if "diag" in method else row_norms)(A, n_matvecs, method=method, **options)


def truth_of(A: np.ndarray, method: str) -> np.ndarray:
    return np.diag(A) if "diag" in method else np.sum(np.abs(A) ** 2, axis=1)


# --- the measured table ---------------------------------------------------------------------------------------------

INDEX = np.arange(1, 1001)
TABLE = {
    # spectrum: eigenvalues, {products: median relative error of Hutchinson, Hutch++, XTrace, XNysTrace}
    "geometric": (0.7**INDEX, {40: (7.9e-2, 1.6e-3, 2.8e-4, 2.8e-6), 100: (5.6e-2, 7.6e-7, 5.5e-9, 1.8e-14)}),
    "inverse square": (INDEX**-2.0, {100: (7.0e-2, 5.6e-4, 2.3e-4, 1.6e-4)}),
    "step": (np.where(INDEX <= 50, 1.0, 1e-3), {100: (9.2e-3, 1.1e-2, 1.2e-2, 5.6e-4)}),
    "flat": (np.linspace(1.0, 3.0, 1000), {100: (8.9e-4, 1.6e-3, 1.6e-3, 1.5e-3)}),
}
STATED_ERRORS = {("geometric", 40): 2.1e-6, ("geometric", 100): 1.3e-14, ("inverse square", 100): 1.9e-4,
                 ("step", 100): 5.0e-4, ("flat", 100): 1.8e-3}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), STATED_ERRORS)
def test_published_table(name: str, size: int, seed: int) -> None:
    """Medians of 15 draws within a factor 4 of those of the specification, whose own draws were as few.

    The matrix is diagonal, which changes nothing for Gaussian vectors, and so cheap to multiply with.
    """
    values, expected = TABLE[name][0], TABLE[name][1][size]
    A, total = sp.diags_array(values).tocsr(), float(np.sum(values))
    for method, median in zip(("hutchinson", "hutchpp", "xtrace", "xnystrace"), expected, strict=True):
        results = [trace(A, size, method=method, rng=seed + i) for i in range(15)]
        found = float(np.median([abs(r.estimate - total) for r in results])) / total
        assert median / 4 < found < 4 * median, method
        if method == "xnystrace":
            told = float(np.median([r.stderr for r in results])) / total
            stated = STATED_ERRORS[name, size]
            assert stated / 3 < told < 3 * stated
            assert {r.n_matvecs for r in results} == {size}


# --- definitions ------------------------------------------------------------------------------------------------------


def literal_trace(method: str, A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """The leave-one-out estimates by their definition: a factorisation for each vector that is left out."""
    n, k = W.shape
    found = []
    for i in range(k):
        w, rest = W[:, i], np.delete(W, i, axis=1)
        Y = A @ rest
        if method == "xtrace":
            P = np.linalg.qr(Y)[0]
            whole, E = np.trace(P.conj().T @ A @ P), A
            seen = w - P @ (P.conj().T @ w)
            free = seen
        else:
            N = Y @ np.linalg.solve(rest.conj().T @ Y, Y.conj().T)
            whole, E, seen = np.trace(N), A - N, w
            T = np.linalg.qr(rest)[0]
            free = w - T @ (T.conj().T @ w)
        scale = (n - k + 1) / np.vdot(free, free).real
        found.append(whole + scale * np.vdot(seen, E @ seen))
    return np.array(found)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", ["xtrace", "xnystrace", "xsymtrace"])
def test_traces_are_their_definition(method: str, dtype: str) -> None:
    """Estimate, standard error and jackknife interval from brute-force leave-one-out and leave-two-out."""
    A = general(40, dtype) if method == "xtrace" else symmetric(0.8 ** np.arange(40), dtype)
    A = A - 0.2 * np.eye(40) if method == "xsymtrace" else A
    estimator = ESTIMATORS[method](as_linear_map(A), as_key(3))
    estimator.grow(12 if method == "xtrace" else 6)
    value = estimator.value(0.95)
    W = estimator.panel.Omega
    one = literal_trace(method, A, W)
    two = np.array([np.mean(literal_trace(method, A, np.delete(W, i, axis=1))) for i in range(6)])
    jackknife = math.sqrt(np.sum(np.abs(two - two.mean()) ** 2))
    slack = 1e4 * tolerance("float64", 40, np.abs(one).max() + np.abs(two).max())  # inverses of (6, 6) cores
    assert abs(value.estimate - one.mean()) <= slack
    assert abs(value.stderr - np.std(one, ddof=1) / math.sqrt(6)) <= slack
    assert abs(value.half_width - student_factor(6, 0.95) * jackknife) <= 10 * slack + 40 * estimator.panel.rounding


def literal_entries(method: str, A: np.ndarray, W: np.ndarray) -> np.ndarray:
    (n, k), found = W.shape, []
    for i in range(k):
        w, rest = W[:, i], np.delete(W, i, axis=1)
        if method == "xnysdiag":
            Y = A @ rest
            N = Y @ np.linalg.solve(rest.conj().T @ Y, Y.conj().T)
            found.append(np.real(np.diag(N) + w.conj() * ((A - N) @ w)))
            continue
        images = A @ rest if method in ("xdiag", "xsymrownorm") else A.conj().T @ (A @ rest)
        Q = np.linalg.qr(images)[0]
        P = Q @ Q.conj().T
        if method == "xdiag":
            found.append(np.diag(P @ A) + w * ((A - P @ A) @ w))
        else:
            free = w - P @ w
            scale = (n - k + 1) / np.vdot(free, free).real
            found.append(np.sum(np.abs(A @ Q) ** 2, axis=1) + scale * np.abs(A @ free) ** 2)
    return np.array(found).T


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", ENTRYWISE)
def test_entries_are_their_definition(method: str, dtype: str) -> None:
    definite = symmetric(0.8 ** np.arange(40), dtype)
    A = {"xdiag": general(40, dtype), "xrownorm": general(40, dtype)}.get(method, definite)
    A = np.concatenate([A, A[:9] + 0.1]) if method == "xrownorm" else A
    state = _STATES[method](as_linear_map(A), as_key(3))
    state.grow({"xdiag": 12, "xnysdiag": 6, "xrownorm": 18, "xsymrownorm": 12}[method])
    estimate, error, width = state.value(0.95)
    W = state.panel.Omega
    one = literal_entries(method, A, W)
    two = np.array([literal_entries(method, A, np.delete(W, i, axis=1)).mean(axis=1) for i in range(6)])
    jackknife = np.sqrt(np.sum(np.abs(two - two.mean(axis=0)) ** 2, axis=0))
    slack = 1e4 * tolerance("float64", 40, np.abs(one).max() + np.abs(two).max())  # inverses of (6, 6) cores
    assert np.abs(estimate - one.mean(axis=1)).max() <= slack
    assert np.abs(error - np.std(one, axis=1, ddof=1) / math.sqrt(6)).max() <= slack
    factor = entry_factor if "diag" in method else skewed_factor
    assert np.abs(width - factor(6, 0.95) * jackknife).max() <= 30 * slack


@pytest.mark.parametrize("method", METHODS)
def test_one_look_and_several_looks_agree(method: str) -> None:
    """Products are used again: growing in steps is growing at once, with other keys for the later vectors."""
    A = as_linear_map(symmetric(0.9 ** np.arange(80)))
    estimator = ESTIMATORS[method](A, as_key(0))
    for size in (8, 16, 32):
        estimator.grow(size)
        assert A.n_matvecs == size - (size // 3 + size // 3 + (size - 2 * (size // 3)) - size)
    panel = estimator.panel
    assert np.abs(panel.Y - symmetric(0.9 ** np.arange(80)) @ panel.Omega).max() <= tolerance("float64", 80, 10.0)
    if hasattr(panel, "basis"):
        Q, R = panel.basis.Q, panel.basis.R
        assert np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1])) <= tolerance("float64", Q.size)
        assert np.linalg.norm(Q @ R - panel.Y) <= tolerance("float64", Q.size, np.linalg.norm(panel.Y))
        assert np.array_equal(R, np.triu(R))


# --- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_as_many_products_as_columns_are_exact(method: str, n: int) -> None:
    A = symmetric(np.linspace(1, 2, n))
    result = trace(aslinearoperator(A), max(4, n), method=method)
    assert result.method == "exact"
    assert result.n_matvecs == n
    assert result.confidence == 1.0
    assert abs(result.estimate - np.trace(A)) <= result.half_width <= tolerance("float64", n * n, 2.0 * n)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("rank", [0, 1, 9])
def test_exact_below_the_number_of_vectors(rank: int, dtype: str, seed: int) -> None:
    """Rank at most k - 1: nothing is left for the tests, whatever they are."""
    values = np.where(np.arange(100) < rank, 1.0 + np.arange(100), 0.0)
    U, V = symmetric(values, dtype, 1), general(100, dtype, 2)
    A = (U @ V).astype(dtype)
    exact, size = np.trace(A.astype("complex128")), 1.0 + np.linalg.norm(A) + np.linalg.norm(U)
    result = trace(A, 20, rng=seed)
    assert abs(result.estimate - exact) <= tolerance(dtype, 100 * 100, size)
    result = trace(U, 10, method="xnystrace", rng=seed)
    # nine vectors see rank nine through a square Gaussian matrix, which amplifies rounding by its condition number
    assert abs(result.estimate - np.sum(values)) <= 100 * tolerance(dtype, 100 * 100, size)
    found = diagonal(A, 20, rng=seed).estimate
    assert np.abs(found - np.diag(A)).max() <= tolerance(dtype, 100 * 100, size)
    found = diagonal(U, 10, method="xnysdiag", rng=seed).estimate
    assert np.abs(found - np.diag(U)).max() <= 100 * tolerance(dtype, 100 * 100, size)
    assert found.dtype == U.real.dtype
    rows = row_norms(A, 30, rng=seed).estimate
    assert np.abs(rows - truth_of(A, "rows")).max() <= tolerance(dtype, 100 * 100, size**2)


def test_stored_diagonals_are_read() -> None:
    A = general(50)
    for matrix in (A, sp.csr_array(A), sp.csc_array(A)):
        result = trace(matrix, method="auto")
        assert (result.n_matvecs, result.method, result.confidence) == (0, "exact", 1.0)
        assert abs(result.estimate - np.trace(A)) <= result.half_width
        assert np.array_equal(diagonal(matrix, method="auto").estimate, np.diag(A))
    assert trace(aslinearoperator(A), 20, method="auto", rng=0).method == "xtrace"
    assert diagonal(aslinearoperator(A), 20, method="auto", rng=0).method == "xdiag"


@given(n=st.integers(1, 40), size=st.integers(4, 60), method=st.sampled_from(METHODS), scale=st.sampled_from([-20, 20]))
@settings(deadline=None, max_examples=60)
def test_any_shape_and_scale(n: int, size: int, method: str, scale: int) -> None:
    """No failure at any size, and everything is proportional to the matrix."""
    A = symmetric(1.0 / np.arange(1, n + 1))
    one, other = (trace(B, size, method=method, rng=1) for B in (A, A * 2.0**scale))
    assert one.n_matvecs <= min(n, size)
    assert one.half_width < math.inf
    # the core of an indefinite or fast matrix amplifies rounding by its condition number, here below 1e6
    slack = 1e6 * tolerance("float64", n, abs(one.estimate) + one.half_width)
    assert abs(other.estimate * 2.0**-scale - one.estimate) <= slack
    assert abs(other.half_width * 2.0**-scale - one.half_width) <= slack * max(1, size)


@pytest.mark.parametrize("method", METHODS)
def test_adaptive_products(method: str) -> None:
    A = symmetric(0.8 ** np.arange(300))
    operator = as_linear_map(aslinearoperator(A))
    result = trace(operator, tol=0.1, method=method, rng=0)
    assert result.converged
    assert result.half_width <= 0.1 * abs(result.estimate) or result.method == "exact"
    assert abs(result.estimate - np.trace(A)) <= result.half_width
    assert operator.n_matvecs == result.n_matvecs
    tight = trace(operator, tol=1e-14, method=method, rng=0)
    assert tight.method == "exact"
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        short = trace(operator, 8, tol=1e-9, method=method, rng=0)
    assert short.n_matvecs <= 8
    assert not short.converged


@pytest.mark.parametrize("method", ENTRYWISE)
def test_adaptive_entries(method: str) -> None:
    A = symmetric(0.8 ** np.arange(200))
    result = entries(A, None, method, tol=0.01, rng=0)
    assert result.converged
    assert np.linalg.norm(result.half_width) <= 0.01 * np.linalg.norm(result.estimate)
    assert entries(A, None, method, tol=1e-15, rng=0).method == "exact"
    assert entries(A, 8, method, tol=1e-9, rng=0, on_failure="ignore").status is Status.MAX_ITER
    with pytest.raises(ConvergenceError, match="MAX_ITER"):
        entries(A, 8, method, tol=1e-9, rng=0, on_failure="raise")


# --- kinds of input ---------------------------------------------------------------------------------------------------


def test_every_kind_of_matrix_gives_the_same() -> None:
    A = symmetric(0.9 ** np.arange(70))
    kinds = [
        A,
        sp.csr_array(A),
        sp.csc_array(A),
        aslinearoperator(A),
        as_linear_map(A),
        np.asfortranarray(A),
        A.tolist(),
    ]
    for method in METHODS:
        results = [trace(kind, 20, method=method, rng=5) for kind in kinds]
        for result in results[1:]:
            assert abs(result.estimate - results[0].estimate) <= 1e3 * tolerance("float64", 70, 10.0)
    for method in ENTRYWISE:
        found = [entries(kind, 24, method, rng=5).estimate for kind in kinds]
        for value in found[1:]:
            assert np.abs(value - found[0]).max() <= 1e3 * tolerance("float64", 70, 10.0)


def test_array_libraries(xp: Any, put: Any, dtype: str) -> None:
    host = symmetric(0.8 ** np.arange(60), dtype) + np.eye(60, dtype=dtype) * 0.1
    A = put(host)
    for method in METHODS:
        one, other = trace(A, 20, method=method, rng=2), trace(host, 20, method=method, rng=2)
        assert abs(one.estimate - other.estimate) <= 1e3 * tolerance(dtype, 60, 10.0)
        assert abs(one.half_width - other.half_width) <= 1e3 * tolerance(dtype, 60, 10.0)
    for method in ENTRYWISE:
        found = entries(A, 24, method, rng=2)
        assert str(found.estimate.dtype).endswith(dtype)
        expected = entries(host, 24, method, rng=2)
        for name in ("estimate", "stderr", "half_width"):
            assert np.abs(to_host(getattr(found, name)) - getattr(expected, name)).max() <= 1e3 * tolerance(
                dtype, 60, 1
            )
    for options in ({}, {"rank": 4}, {"smallest": 0.05}):
        values = [logdet(B, 4, 8, rng=2, **options).estimate for B in (A, host)]
        assert abs(values[0] - values[1]) <= 1e3 * tolerance(dtype, 60, 100.0)
    for order in (2, "fro"):
        values = [norm_estimate(B, order, rng=2).estimate for B in (A, host)]
        assert abs(values[0] - values[1]) <= 10 * tolerance(dtype, 60, 2.0)


def test_complex_traces_lie_in_a_square() -> None:
    A = general(60, "complex128")
    result = trace(A, 30, rng=0)
    low, high = result.interval
    assert low.real <= np.trace(A).real <= high.real
    assert low.imag <= np.trace(A).imag <= high.imag
    low, high = diagonal(A, 30, rng=0).interval
    assert np.mean((low.real <= np.diag(A).real) & (np.diag(A).imag <= high.imag)) > 0.9
    assert isinstance(trace(symmetric(np.ones(60), "complex128"), 20, method="xnystrace", rng=0).estimate, float)


def test_random_signs_are_balanced(seed: int) -> None:
    panel = Panel(as_linear_map(np.eye(2000)), as_key(seed), signs=True)
    panel.grow(10)
    assert np.array_equal(np.abs(panel.Omega), np.ones((2000, 10)))
    assert binomial_upper(20000, 0.5) >= np.sum(panel.Omega > 0) >= 20000 - binomial_upper(20000, 0.5)


# --- what must fail ---------------------------------------------------------------------------------------------------


def test_matrices_that_methods_refuse() -> None:
    A = general(50)
    for call in (trace, diagonal):
        method = "xnystrace" if call is trace else "xnysdiag"
        with pytest.raises(ValueError, match="must be symmetric"):
            call(A, 20, method=method, rng=0)
        with pytest.raises(ValueError, match="must be positive semidefinite"):
            call(symmetric(np.linspace(-1, 1, 50)), 20, method=method, rng=0)
    with pytest.raises(ValueError, match="must be symmetric"):
        trace(A, 20, method="xsymtrace", rng=0)
    for smallest in (None, 0.1):
        with pytest.raises(ValueError, match="must be positive definite"):
            logdet(sp.diags_array(np.linspace(-1, 1, 600)), 4, 8, smallest=smallest, rng=0)
    with pytest.raises(ValueError, match="must be positive definite"):
        logdet(np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match="must be positive definite"):
        logdet(sp.diags_array(np.linspace(-1, 1, 600)), 4, 8, rank=5, rng=0)


def test_indefinite_core_that_cannot_be_inverted_is_cut_or_given_up() -> None:
    A = symmetric(np.where(np.arange(80) % 2 == 0, 1.0, -1.0) * 0.2 ** np.arange(80))
    result = trace(A, 40, method="xsymtrace", rng=0)
    assert result.n_vectors < 40
    assert result.converged
    broken = trace(np.zeros((50, 50)), 20, method="xsymtrace", rng=0, on_failure="ignore")
    assert broken.status is Status.BREAKDOWN
    assert math.isinf(broken.half_width)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_matrices(bad: float) -> None:
    A = symmetric(np.linspace(1, 2, 600))
    A[3, 4] = bad
    results = [trace(A, 20, method=method, rng=0, on_failure="ignore") for method in METHODS]
    results += [entries(A, 24, method, rng=0, on_failure="ignore") for method in ENTRYWISE]
    results += [logdet(A, 4, 8, rng=0, on_failure="ignore"), norm_estimate(A, rng=0, on_failure="ignore")]
    results += [norm_estimate(A, "fro", rng=0, on_failure="ignore")]
    results += [norm_estimate(aslinearoperator(A), "fro", rng=0, on_failure="ignore")]
    for result in results:
        assert result.status is Status.NONFINITE
    np.fill_diagonal(A, bad)
    assert trace(A, method="auto", on_failure="ignore").status is Status.NONFINITE
    assert diagonal(A, method="auto", on_failure="ignore").status is Status.NONFINITE
    assert logdet(A[:20, :20], on_failure="ignore").status is Status.NONFINITE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A: trace(A[:, :5], 10), "A must be square"),
        (lambda A: trace(A, 3), "n_matvecs must be at least 4, got 3"),
        (lambda A: trace(A, 10, method="hutch"), "method must be one of"),
        (lambda A: trace(A, 10, tol=0.0), "tol must be finite and in"),
        (lambda A: trace(A, 10, confidence=0.999), "confidence must be finite and in"),
        (lambda A: trace(A, 10, on_failure="no"), "on_failure must be one of"),
        (lambda A: diagonal(A[:, :5], 10), "A must be square"),
        (lambda A: diagonal(A, 7), "n_matvecs must be at least 8, got 7"),
        (lambda A: row_norms(A[:, :5], 10, method="xsymrownorm"), "A must be square"),
        (lambda A: row_norms(A, 10, method="xdiag"), "method must be one of"),
        (lambda A: logdet(A[:, :5]), "A must be square"),
        (lambda A: logdet(A, 3), "n_probes must be at least 4"),
        (lambda A: logdet(A, 4, 7), "n_lanczos must be at least 8"),
        (lambda A: logdet(A, rank=10), r"rank must be in \[0, 9\]"),
        (lambda A: logdet(A, smallest=0.0), "smallest must be finite"),
        (lambda A: norm_estimate(A, 1), 'ord must be 2 or "fro", got 1'),
        (lambda A: norm_estimate(A, tol=0.0), "tol must be finite"),
        (lambda A: norm_estimate(A, confidence=1.0), "confidence must be finite"),
        (lambda A: trace(np.zeros(3), 10), "A must be 2-D"),
    ],
)
def test_bad_parameters(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.eye(10))


def test_bad_kinds() -> None:
    for call in (trace, diagonal, row_norms, logdet, norm_estimate):
        with pytest.raises(TypeError, match="A must"):
            call(np.array([["a"]]))
    with pytest.raises(TypeError, match="n_matvecs must be an integer"):
        trace(np.eye(10), 4.5)


def test_empty_matrices() -> None:
    empty = np.zeros((0, 0))
    assert trace(empty).estimate == 0.0
    assert diagonal(empty).estimate.shape == (0,)
    assert row_norms(np.zeros((3, 0))).estimate.tolist() == [0.0, 0.0, 0.0]
    assert logdet(empty).estimate == 0.0
    assert norm_estimate(np.zeros((4, 0))).estimate == 0.0


# --- unbiasedness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in METHODS if m != "xsymtrace"])
def test_traces_are_unbiased(method: str, seed: int) -> None:
    """The mean of 600 draws, by a t test at FALSE_ALARM; twice the normal quantile stands for its skewness."""
    A = symmetric(1.0 / np.arange(1, 41))
    A = A + 0.3 * (general(40) - general(40).T) if method in GENERAL else A
    draws = np.array([trace(A, 12, method=method, rng=as_key(seed).fold(i)).estimate for i in range(600)])
    z = (draws.mean() - np.trace(A)) / (draws.std(ddof=1) / math.sqrt(len(draws)))
    assert abs(z) < 2.0 * stats.norm.isf(FALSE_ALARM / 2)
    # the test has power: a bias of a standard deviation of one draw would be seen
    assert math.sqrt(len(draws)) > 2.0 * stats.norm.isf(FALSE_ALARM / 2)


@pytest.mark.parametrize("method", ENTRYWISE)
def test_entries_are_unbiased(method: str, seed: int) -> None:
    A = symmetric(1.0 / np.arange(1, 31))
    draws = np.array([entries(A, 15, method, rng=as_key(seed).fold(i)).estimate for i in range(600)])
    z = (draws.mean(axis=0) - truth_of(A, method)) / (draws.std(axis=0, ddof=1) / math.sqrt(len(draws)))
    assert np.abs(z).max() < 2.0 * stats.norm.isf(FALSE_ALARM / 2 / 30)


# --- log-determinants and norms ---------------------------------------------------------------------------------------


def test_small_logdets_are_exact(any_dtype: str) -> None:
    A = symmetric(np.linspace(0.5, 3, 50), any_dtype)
    result = logdet(A)
    assert (result.method, result.confidence, result.n_matvecs) == ("exact", 1.0, 50)
    assert abs(result.estimate - np.sum(np.log(np.linspace(0.5, 3, 50)))) <= result.half_width
    assert result.half_width <= 1e3 * tolerance(any_dtype, 50)


@pytest.mark.parametrize("options", [{}, {"smallest": 1.0}, {"rank": 10}, {"rank": 10, "smallest": 1.0}])
def test_logdet_of_a_spread_spectrum(options: dict[str, Any], seed: int) -> None:
    """Eigenvalues from 1 to 100: the relative error of 30 probes is 0.5e-3 to 2.5e-3, independent of the steps."""
    values = np.linspace(1, 100, 1000)
    A, truth = sp.diags_array(values).tocsr(), float(np.sum(np.log(values)))
    for steps in (12, 40):
        result = logdet(A, 30, steps, rng=seed, **options)
        assert abs(result.estimate - truth) <= 4e-3 * truth
        assert abs(result.estimate - truth) <= result.half_width
        assert result.half_width <= 0.01 * truth
        assert result.n_matvecs == 30 * steps + (0 if not options.get("rank") else result.n_matvecs - 30 * steps)
    assert result.quadrature_error <= 1e-6 * truth


def test_quadrature_is_between_its_bounds() -> None:
    """The conditional expectation given the probes: a Gauss rule above it, a Gauss-Radau rule below."""
    values = np.geomspace(1e-2, 1e2, 600)
    A = sp.diags_array(values).tocsr()
    fine = logdet(A, 4, 200, rng=0)
    for steps in (8, 12, 20, 30):
        rough, held = (logdet(A, 4, steps, rng=0, smallest=smallest) for smallest in (None, 1e-2))
        assert rough.estimate >= fine.estimate - tolerance("float64", 600, 2e3)
        assert abs(held.estimate - fine.estimate) <= held.quadrature_error + tolerance("float64", 600, 2e3)
        assert abs(rough.estimate - fine.estimate) <= rough.quadrature_error + tolerance("float64", 600, 2e3)


def test_deflation_makes_kernels_with_a_ridge_cheap(seed: int) -> None:
    values = 1e-3 + 100.0 * 0.8 ** np.arange(1000)
    A, truth = sp.diags_array(values).tocsr(), float(np.sum(np.log(values)))
    plain, deflated = (logdet(A, 10, 40, rank=rank, smallest=1e-3, rng=seed) for rank in (0, 60))
    assert deflated.half_width < 0.1 * plain.half_width
    for result in (plain, deflated):
        assert abs(result.estimate - truth) <= result.half_width
    assert logdet(A, 4, 20, rank=60, smallest=1e-3, tol=1e-4, rng=seed).converged
    assert logdet(A, 4, 8, tol=1e-8, rng=seed, on_failure="ignore").status is Status.MAX_ITER


def test_lanczos_on_few_distinct_eigenvalues() -> None:
    """A Krylov space that is exhausted after two steps goes on without harm."""
    A = sp.diags_array(np.where(np.arange(700) < 300, 1.0, 4.0)).tocsr()
    result = logdet(A, 20, 20, rng=0)
    assert abs(result.estimate - 400 * math.log(4)) <= result.half_width
    identity = logdet(sp.eye_array(700, format="csr") * 2.0, 4, 8, rng=0)
    assert abs(identity.estimate - 700 * math.log(2)) <= tolerance("float64", 700, 700)


@pytest.mark.parametrize("tol", [0.3, 0.1, 0.02])
def test_spectral_norm_between_its_bounds(tol: float, any_dtype: str) -> None:
    A = with_spectrum(150, 90, 1.0 / np.arange(1, 91), dtype=any_dtype, rng=0)
    result = norm_estimate(A, tol=tol, rng=0)
    assert result.lower <= 1.0 <= result.upper + tolerance(any_dtype, 150)
    assert result.upper <= (1 + tol) * result.lower + tolerance(any_dtype, 150, 100.0)


def test_frobenius_norms() -> None:
    A = general(50)
    exact = np.linalg.norm(A)
    for matrix in (A, sp.csr_array(A)):
        result = norm_estimate(matrix, "fro")
        assert result.lower <= exact <= result.upper
        assert (result.confidence, result.n_matvecs) == (1.0, 0)
    result = norm_estimate(aslinearoperator(A), "fro", n_probes=30, rng=0)
    assert result.lower <= exact <= result.upper
    assert (result.confidence, result.n_matvecs) == (0.99, 30)


def test_equal_keys_give_equal_results() -> None:
    A = symmetric(1.0 / np.arange(1, 601))
    for call in (
        lambda rng: trace(A, 20, rng=rng).estimate,
        lambda rng: diagonal(A, 20, rng=rng).estimate[7],
        lambda rng: row_norms(A, 20, rng=rng).estimate[7],
        lambda rng: logdet(A, 4, 8, rng=rng).estimate,
        lambda rng: norm_estimate(aslinearoperator(A), "fro", rng=rng).estimate,
    ):
        assert call(1) == call(1)
        assert call(1) != call(2)


def test_products_are_counted() -> None:
    """What a wrapped operator sees is what the result says."""
    A, seen = symmetric(1.0 / np.arange(1, 601)), []

    def product(X: np.ndarray) -> np.ndarray:
        seen.append(X.shape[1])
        return A @ X

    operator = LinearOperator(A.shape, matvec=lambda x: A @ x, matmat=product, rmatmat=product, dtype=A.dtype)
    for call in (
        *(lambda method=method: trace(operator, 21, method=method, rng=0) for method in METHODS),
        *(lambda method=method: entries(operator, 24, method, rng=0) for method in ENTRYWISE),
        lambda: logdet(operator, 4, 8, rng=0),
        lambda: norm_estimate(operator, rng=0),
        lambda: norm_estimate(operator, "fro", rng=0),
    ):
        seen.clear()
        assert call().n_matvecs == sum(seen)
        assert sum(seen) > 0


# --- intervals --------------------------------------------------------------------------------------------------------


def test_interval_factors_grow_with_confidence() -> None:
    for factor in (student_factor, skewed_factor, entry_factor):
        assert factor(10, 0.5) < factor(10, 0.9) < factor(10, 0.99)
        assert factor(4, 0.95) > factor(10, 0.95) > factor(100, 0.95) > stats.norm.ppf(0.975)


RUNS = 500
SPREAD = np.arange(1, 201)
COVERED = {
    "flat": np.linspace(1, 3, 200),
    "inverse": 1.0 / SPREAD,
    "inverse square": SPREAD**-2.0,
    "slow": 0.9**SPREAD,
    "fast": 0.7**SPREAD,
    "step": np.where(SPREAD <= 20, 1.0, 1e-3),
    "one": np.where(SPREAD == 1, 1.0, 1e-4),
    "indefinite": np.where(SPREAD % 2 == 0, -1.0, 1.0) / SPREAD,
}


def check_coverage(misses: int, confidence: float) -> None:
    """At most as many misses as the stated confidence allows, up to bad luck of probability FALSE_ALARM."""
    assert misses <= binomial_upper(RUNS, 1.0 - confidence)


@pytest.mark.slow
@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("size", [12, 48])
@pytest.mark.parametrize("name", COVERED)
def test_coverage_of_traces(name: str, size: int, confidence: float, seed: int) -> None:
    A = symmetric(COVERED[name])
    for method in METHODS:
        if (name, method) == ("indefinite", "xnystrace"):
            continue
        misses = 0
        for i in range(RUNS):
            key = as_key(seed).fold(i)
            low, high = trace(A, size, method=method, confidence=confidence, rng=key, on_failure="ignore").interval
            misses += not low <= np.trace(A) <= high
        check_coverage(misses, confidence)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [0.1, 0.01])
@pytest.mark.parametrize("name", COVERED)
def test_coverage_of_adaptive_traces(name: str, tol: float, seed: int) -> None:
    """Stopping at the first interval that is narrow enough does not cost the confidence."""
    A = symmetric(COVERED[name])
    for method in METHODS:
        if (name, method) == ("indefinite", "xnystrace"):
            continue
        misses = 0
        for i in range(RUNS):
            low, high = trace(A, tol=tol, method=method, rng=as_key(seed).fold(i), on_failure="ignore").interval
            misses += not low <= np.trace(A) <= high
        check_coverage(misses, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("size", [12, 48])
@pytest.mark.parametrize("name", COVERED)
def test_coverage_of_entries(name: str, size: int, seed: int) -> None:
    """Entries of one run are dependent, so one of them, another in each run, counts."""
    A = symmetric(COVERED[name])
    for method in ENTRYWISE:
        if (name, method) == ("indefinite", "xnysdiag"):
            continue
        misses, truth = 0, truth_of(A, method)
        for i in range(RUNS):
            low, high = entries(A, size, method, rng=as_key(seed).fold(i)).interval
            at = i % len(truth)
            misses += not low[at] <= truth[at] <= high[at]
        check_coverage(misses, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rank": 10}, {"smallest": 1e-2}])
@pytest.mark.parametrize("values", ["linear", "geometric", "outlier"])
def test_coverage_of_logdets(values: str, options: dict[str, Any], seed: int) -> None:
    spectrum = {
        "linear": np.linspace(1, 50, 600),
        "geometric": np.geomspace(1e-2, 1e2, 600),
        "outlier": np.where(np.arange(600) == 0, 1e4, 1.0),
    }[values]
    A, truth = sp.diags_array(spectrum).tocsr(), float(np.sum(np.log(spectrum)))
    misses = 0
    for i in range(RUNS):
        low, high = logdet(A, 6, 12, rng=as_key(seed).fold(i), **options).interval
        misses += not low <= truth <= high
    check_coverage(misses, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flat", "inverse", "fast", "one"])
def test_coverage_of_norms(name: str, seed: int) -> None:
    A = aslinearoperator(np.diag(COVERED[name]))
    for order, truth in ((2, np.max(COVERED[name])), ("fro", np.linalg.norm(COVERED[name]))):
        misses = 0
        for i in range(RUNS):
            low, high = norm_estimate(A, order, tol=0.3, rng=as_key(seed).fold(i)).interval
            misses += not low <= truth <= high
        check_coverage(misses, 0.99)
