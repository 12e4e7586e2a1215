"""Leave-one-out errors and jackknife deviations: brute force, calibration, fallbacks; and the bounds of `svd`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from randla import eigh, range_finder, svd
from randla._arrays import to_host
from randla._random import as_key
from randla._results import Status
from randla.datasets import with_spectrum
from randla.lowrank.leave_one_out import jackknife_nystrom, jackknife_svd, nystrom_error, range_error

from .conftest import tolerance
from .statistics import binomial_upper

DTYPES = ["float64", "complex128"]


def gaussian(n: int, k: int, dtype: str = "float64", rng: Any = 0) -> np.ndarray:
    generator = np.random.default_rng(rng)
    W = generator.standard_normal((n, k))
    return (W + 1j * generator.standard_normal((n, k))) / math.sqrt(2) if dtype == "complex128" else W


def definite(values: Any, dtype: str = "float64") -> np.ndarray:
    n = len(values)
    Q = np.linalg.qr(with_spectrum(n, n, np.ones(n), dtype=dtype, rng=1))[0]
    return (Q * values) @ Q.conj().T


def without(M: np.ndarray, i: int) -> np.ndarray:
    return np.delete(M, i, axis=1)


def powers(A: np.ndarray, W: np.ndarray, q: int) -> np.ndarray:
    Y = A @ W
    for _ in range(q):
        Y = A @ (A.conj().T @ Y)
    return Y


# --- leave-one-out errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q", [0, 1, 2])
def test_range_error_is_brute_force(q: int, dtype: str) -> None:
    A = with_spectrum(60, 40, 0.9 ** np.arange(40), dtype=dtype, rng=0)
    W = gaussian(40, 8, dtype)
    Y, squares = powers(A, W, q), []
    for i in range(8):
        Q = np.linalg.qr(without(Y, i))[0]
        x = A @ W[:, i]
        squares.append(np.linalg.norm(x - Q @ (Q.conj().T @ x)) ** 2)
    result = range_error(Y, A @ W if q else None)
    assert abs(result.error / math.sqrt(np.mean(squares)) - 1) <= tolerance("float64", 60 * 8, result.condition)
    assert (result.error_kind, result.n_vectors, result.status) == ("leave-one-out", 8, Status.CONVERGED)
    if q == 0:  # two routes to one number
        both = range_error(Y, Y)
        assert abs(both.error - result.error) <= tolerance("float64", 60, result.error)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nystrom_error_is_brute_force(dtype: str) -> None:
    A, W = definite(0.8 ** np.arange(40), dtype), gaussian(40, 8, dtype)
    Y, squares = A @ W, []
    for i in range(8):
        V, Z = without(W, i), without(Y, i)
        E = A - Z @ np.linalg.solve(V.conj().T @ Z, Z.conj().T)
        squares.append(np.linalg.norm(E @ W[:, i]) ** 2)
    result = nystrom_error(Y, W)
    assert abs(result.error / math.sqrt(np.mean(squares)) - 1) <= 1e3 * tolerance("float64", 60, result.condition)


def ratios(spectrum: np.ndarray, k: int, q: int, runs: int, seed: int) -> np.ndarray:
    """Estimated over true errors; a diagonal matrix is as good as any for Gaussian vectors."""
    found = []
    for i in range(runs):
        W = gaussian(len(spectrum), k, rng=[seed, i])
        Y = W
        for _ in range(2 * q + 1):
            Y = spectrum[:, None] * Y
        Q = np.linalg.qr(Y)[0]
        true = math.sqrt(np.sum(spectrum**2) - np.sum((spectrum[:, None] * Q) ** 2))
        found.append(range_error(Y, spectrum[:, None] * W if q else None).error / true)
    return np.array(found)


INDEX = np.arange(1, 301)


@pytest.mark.parametrize(
    ("spectrum", "k", "q", "expected"),
    [
        (np.where(INDEX <= 20, 1.0, 1e-2), 40, 0, (1.01, 1.09, 1.17)),
        (0.7**INDEX, 40, 0, (0.93, 1.65, 2.35)),
        (0.8**INDEX, 20, 2, (1.07, 1.25, 1.39)),
    ],
)
def test_published_ratios(spectrum: np.ndarray, k: int, q: int, expected: tuple[float, ...], seed: int) -> None:
    """10th, 50th and 90th percentile of estimate over truth as in the specification, within a quarter."""
    found = np.quantile(ratios(spectrum, k, q, 100, seed), [0.1, 0.5, 0.9])
    assert np.all(np.abs(found / np.array(expected) - 1) < 0.25), found


def test_square_of_the_estimate_is_that_of_one_column_less(seed: int) -> None:
    """The mean over 1000 sketches; six standard errors, as the spread over blocks of draws shows them."""
    spectrum, k = 1.0 / INDEX[:100], 10
    estimated, true = [], []
    for i in range(1000):
        W = gaussian(100, k, rng=[seed, i])
        estimated.append(range_error(spectrum[:, None] * W).error ** 2)
        Q = np.linalg.qr(spectrum[:, None] * W[:, :-1])[0]
        true.append(np.sum(spectrum**2) - np.sum((spectrum[:, None] * Q) ** 2))
    difference = np.array(estimated) - np.array(true)
    assert abs(difference.mean()) < 6 * difference.std(ddof=1) / math.sqrt(1000)
    assert difference.std(ddof=1) / math.sqrt(1000) < 0.02 * np.mean(true)  # so it would see a bias of 12 %


@pytest.mark.parametrize("kind", ["range", "nystrom"])
def test_flat_sketches_are_told_and_probed(kind: str, seed: int) -> None:
    values = np.where(np.arange(60) < 5, 1.0, 1e-13)
    A, W = definite(values), gaussian(60, 12)
    Y = A @ W
    call = (lambda **options: range_error(Y, **options)) if kind == "range" else (
        lambda **options: nystrom_error(Y, W, **options)
    )  # fmt: skip
    alone = call()
    assert alone.condition > 1e12
    assert alone.status is Status.BREAKDOWN
    probed = call(A=aslinearoperator(A), rng=seed)
    assert (probed.error_kind, probed.status) == ("sketched", Status.CONVERGED)
    true = np.linalg.norm(values[5:])  # what no approximation of rank 5 has; the rest is rounding
    assert probed.error <= 2 * true + 20 * tolerance("float64", 60 * 60)
    # what was probed is the residual of this sketch: another matrix gives another error
    other = call(A=A + np.diag(np.where(np.arange(60) == 7, 1.0, 0.0)), rng=seed)
    assert 0.05 < other.error < 5


def test_steep_power_steps_break_down() -> None:
    A = with_spectrum(60, 60, 0.3 ** np.arange(60), rng=0)
    W = gaussian(60, 20)
    assert range_error(powers(A, W, 2), A @ W).status is Status.BREAKDOWN
    result = range_error(powers(A, W, 2), A @ W, A=A, rng=0)
    assert result.error_kind == "sketched"


# --- the jackknife ----------------------------------------------------------------------------------------------------

OUTPUTS = ("values", "left", "right", "approximation")


def outputs_of(A_hat: np.ndarray, rank: int) -> dict[str, np.ndarray]:
    U, s, Vh = np.linalg.svd(A_hat)
    return {
        "values": s[:rank],
        "left": U[:, :rank] @ U[:, :rank].conj().T,
        "right": Vh[:rank].conj().T @ Vh[:rank],
        "approximation": (U[:, :rank] * s[:rank]) @ Vh[:rank],
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q", [0, 1])
def test_jackknife_of_svd_is_brute_force(q: int, dtype: str) -> None:
    A = with_spectrum(50, 40, 0.8 ** np.arange(40), dtype=dtype, rng=0)
    Y = powers(A, gaussian(40, 9, dtype), q)
    core = np.linalg.qr(Y)[0].conj().T @ A
    replicates = []
    for j in range(9):
        Q = np.linalg.qr(without(Y, j))[0]
        replicates.append(outputs_of(Q @ (Q.conj().T @ A), 3))
    for name in OUTPUTS:
        stacked = np.array([outputs[name] for outputs in replicates])
        expected = math.sqrt(np.sum(np.abs(stacked - stacked.mean(axis=0)) ** 2))
        result = jackknife_svd(Y, core, name, rank=3)
        assert abs(result.deviation - expected) <= 100 * tolerance("float64", 2000)
        assert result.n_vectors == 9
    values = jackknife_svd(Y, core, rank=3)
    assert values.entries.shape == (3,)
    assert abs(np.linalg.norm(values.entries) - values.deviation) <= tolerance("float64", 3)
    means = np.mean([outputs["values"] for outputs in replicates], axis=0)
    assert np.abs(values.mean - means).max() <= 100 * tolerance("float64", 50)
    own = jackknife_svd(Y, core, lambda U, s, Vh: np.log(s[:3]))
    assert own.deviation > 0
    assert list(own) == [own.deviation]


@pytest.mark.parametrize("dtype", DTYPES)
def test_jackknife_of_nystrom_is_brute_force(dtype: str) -> None:
    A, W = definite(0.8 ** np.arange(40), dtype), gaussian(40, 9, dtype)
    Y, replicates = A @ W, []
    for j in range(9):
        V, Z = without(W, j), without(Y, j)
        replicates.append(outputs_of(Z @ np.linalg.solve(V.conj().T @ Z, Z.conj().T), 3))
    for name in OUTPUTS:
        stacked = np.array([outputs[name] for outputs in replicates])
        expected = math.sqrt(np.sum(np.abs(stacked - stacked.mean(axis=0)) ** 2))
        result = jackknife_nystrom(Y, W, name, rank=3)
        assert abs(result.deviation - expected) <= 1e4 * tolerance("float64", 2000)


def test_jackknife_is_at_least_the_deviation(seed: int) -> None:
    """Root mean squares over 300 sketches: Efron and Stein hold for s - 1 columns, so a little room is left."""
    spectrum = 1.0 / INDEX[:60]
    values, told = [], []
    for i in range(300):
        Y = spectrum[:, None] * gaussian(60, 12, rng=[seed, i])
        core = np.linalg.qr(Y)[0].T * spectrum[None, :]
        values.append(np.linalg.svd(core, compute_uv=False)[:4])
        told.append(jackknife_svd(Y, core, rank=4).entries)
    true = np.std(values, axis=0, ddof=1)
    assert np.all(np.sqrt(np.mean(np.square(told), axis=0)) > 0.9 * true)
    assert np.all(np.sqrt(np.mean(np.square(told), axis=0)) < 6 * true)


# --- kinds, bad input -------------------------------------------------------------------------------------------------


def test_array_libraries(xp: Any, put: Any, dtype: str) -> None:
    A = definite(0.8 ** np.arange(50)).astype(dtype)
    W = gaussian(50, 8).astype(dtype)
    core = (np.linalg.qr((A @ W).astype("float64"))[0].T @ A).astype(dtype)
    host, other = [
        (
            range_error(make(A @ W)).error,
            range_error(make(A @ A @ A @ W), make(A @ W)).error,
            nystrom_error(make(A @ W), make(W)).error,
            jackknife_nystrom(make(A @ W), make(W), rank=2).deviation,
            jackknife_svd(make(A @ W), make(core), rank=2).deviation,
        )
        for make in (np.asarray, put)
    ]
    assert np.abs(np.array(host) - np.array(other)).max() <= 1e3 * tolerance(dtype, 50)
    entries = jackknife_svd(put(A @ W), put(core), rank=2).entries
    assert to_host(entries).shape == (2,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda Y: range_error(Y[:, :1]), ValueError, "Y must have at least two columns"),
        (lambda Y: range_error(Y.T), ValueError, "Y must have at least two columns and no more than rows"),
        (lambda Y: range_error(Y * np.nan), ValueError, "Y must be finite"),
        (lambda Y: range_error(Y, Y[:-1]), ValueError, "products must have the shape of Y"),
        (lambda Y: range_error(sp.csr_array(Y)), TypeError, "Y must be a dense array"),
        (lambda Y: nystrom_error(Y, Y[:-1]), ValueError, "Omega must have the shape of Y"),
        (lambda Y: nystrom_error(-Y, Y), ValueError, "A must be positive semidefinite"),
        (lambda Y: nystrom_error(Y, Y[::-1] + np.arange(20)[:, None]), ValueError, "A must be symmetric"),
        (lambda Y: jackknife_svd(Y, Y.T, "vectors"), ValueError, "output must be one of"),
        (lambda Y: jackknife_svd(Y, Y.T, rank=6), ValueError, r"rank must be in \[1, 5\]"),
        (lambda Y: jackknife_svd(Y, Y), ValueError, "core must have as many rows"),
        (lambda Y: jackknife_nystrom(Y, Y, rank=0), ValueError, "rank must be in"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gaussian(20, 5))


def test_zero_matrix() -> None:
    assert range_error(np.zeros((20, 5))).error == 0.0
    assert nystrom_error(np.zeros((20, 5)), gaussian(20, 5)).error == 0.0


# --- coverage ---------------------------------------------------------------------------------------------------------

RUNS = 500
SPREAD = np.arange(1, 121)
COVERED = {
    "flat": np.ones(120),
    "inverse root": SPREAD**-0.5,
    "inverse": 1.0 / SPREAD,
    "inverse square": SPREAD**-2.0,
    "slow": 0.9**SPREAD,
    "fast": 0.6**SPREAD,
    "step": np.where(SPREAD <= 15, 1.0, 1e-3),
    "gap": np.where(SPREAD <= 10, 1.0, 1e-3),
    "one left": np.where(SPREAD <= 11, 1.0, 1e-6),
}


def check_coverage(misses: int, confidence: float) -> None:
    assert misses <= binomial_upper(RUNS, 1.0 - confidence)


@pytest.mark.slow
@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("q", [0, 1])
def test_coverage_of_leave_one_out_bounds(name: str, q: int, seed: int) -> None:
    spectrum, misses, nystrom_misses = COVERED[name], 0, 0
    A = np.diag(spectrum)
    for i in range(RUNS):
        W = gaussian(120, 10, rng=[seed, i])
        Z, Y = spectrum[:, None] * W, spectrum[:, None] ** (2 * q + 1) * W
        Q = np.linalg.qr(Y)[0]
        true = np.linalg.norm(A - Q @ (Q.T @ A))
        misses += true > range_error(Y, Z if q else None).error_bound
        true = np.linalg.norm(A - Z @ np.linalg.solve(W.T @ Z, Z.T))
        nystrom_misses += true > nystrom_error(Z, W).error_bound
    check_coverage(misses, 0.95)
    check_coverage(nystrom_misses, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sketched", "krylov", "tolerance", "range", "eigh"])
@pytest.mark.parametrize("name", COVERED)
def test_coverage_of_factorisation_bounds(name: str, kind: str, seed: int) -> None:
    """`error_bound` of svd, range_finder and eigh, where it is not exact: operators, and the spectral norm."""
    spectrum = COVERED[name]
    A = np.diag(spectrum)
    operator, misses = aslinearoperator(A), 0
    for i in range(RUNS):
        key = as_key(seed).fold(i)
        if kind == "range":
            result = range_finder(operator, 10, rng=key)
            approximation = result.Q @ (result.Q.T @ A)
        elif kind == "eigh":
            result = eigh(operator, 10, rng=key)
            approximation = result.to_dense()
        else:
            options = {"tol": 0.3} if kind == "tolerance" else {"rank": 10}
            norm = "spectral" if kind == "krylov" else "frobenius"
            result = svd(operator, **options, norm=norm, rng=key, on_failure="ignore")
            approximation = result.to_dense()
        order = 2 if result.error_norm == "spectral" else "fro"
        true = np.linalg.norm(A - approximation, order) / np.linalg.norm(A, order)
        misses += true > result.error_bound + tolerance("float64", 120)
        assert result.confidence == 0.99
    check_coverage(misses, 0.99)


@pytest.mark.parametrize("name", COVERED)
def test_exact_bounds_hold_always(name: str, seed: int) -> None:
    """Where the error is a difference of norms, its confidence is 1."""
    A = np.diag(COVERED[name])
    for i in range(20):
        result = svd(A, 10, rng=as_key(seed).fold(i))
        true = np.linalg.norm(A - result.to_dense()) / np.linalg.norm(A)
        assert true <= result.error_bound + tolerance("float64", 120)
