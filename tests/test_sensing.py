"""Recovery from linear measurements: adjoints, robust recovery from a small start, descent on two factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla._arrays import to_host
from randla._random import as_key
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.kernels import reference
from randla.sensing import (
    DenseMeasurements,
    EntryMeasurements,
    GaussianMeasurements,
    Measurements,
    RankOneMeasurements,
    descent,
    factorized_gd,
    intake,
    measurements,
    subgradient_recovery,
)
from randla.sensing.adapters import as_measurements
from randla.sensing.base import gaussian_panel

from .conftest import tolerance
from .statistics import binomial_upper, chi_square_interval


def relative(result: Any, X: np.ndarray) -> float:
    return float(np.linalg.norm(to_host(result.to_dense()) - X) / np.linalg.norm(X))


def low_rank(d1: int, d2: int, rank: int, seed: int = 0, condition: float = 1.0) -> np.ndarray:
    """Orthonormal factors and geometric singular values from 1 to 1 / condition."""
    rng = np.random.default_rng(seed)
    P, Q = (np.linalg.qr(rng.standard_normal((side, rank)))[0] for side in (d1, d2))
    return (P * np.geomspace(1.0, 1.0 / condition, rank)) @ Q.T


def semidefinite(
    d: int, rank: int, m: int, share: float, seed: int = 0, noise: float = 0.0
) -> tuple[DenseMeasurements, np.ndarray, np.ndarray, np.ndarray]:
    """The problem of specification 8A: Gaussian A_i, a share of y off by 100 N(0, 1).  (A, X, y, which are off)."""
    rng = np.random.default_rng(seed)
    L = rng.standard_normal((d, rank))
    A, X = DenseMeasurements(rng.standard_normal((m, d, d))), L @ L.T
    off = np.zeros(m, bool)
    off[rng.permutation(m)[: round(share * m)]] = True
    y = A.apply(X) + noise * np.linalg.norm(X) * rng.standard_normal(m)
    y[off] += 100.0 * rng.standard_normal(off.sum())
    return A, X, y, off


class Counted:
    """An object of the user: the three names that are asked for, the smallest interface, and how often it was used."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.shape, self.n_measurements = table, table.shape[1:], table.shape[0]
        self.applied = self.adjoined = 0

    def apply(self, X: np.ndarray) -> np.ndarray:
        self.applied += 1
        return np.tensordot(self.table, X, 2)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        self.adjoined += 1
        return np.tensordot(y, self.table, 1)


class Complete(Counted):
    """The same with all products."""

    def apply_factors(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.apply(U @ V.T)

    def adjoint_times(self, y: np.ndarray, V: np.ndarray) -> np.ndarray:
        return self.adjoint(y) @ V

    def adjoint_rtimes(self, y: np.ndarray, U: np.ndarray) -> np.ndarray:
        return self.adjoint(y).T @ U


def kinds(d1: int, d2: int, m: int, put: Any = np.asarray, dtype: str = "float64") -> dict[str, Any]:
    """One of each kind of measurements, with what is stored put into a namespace."""
    rng = np.random.default_rng(d1 * 100 + d2 * 10 + m)
    table, a, b = (rng.standard_normal(s).astype(dtype) for s in ((m, d1, d2), (m, d1), (m, d2)))
    rows, cols = rng.integers(0, d1, m), rng.integers(0, d2, m)  # some come twice
    found: dict[str, Any] = {
        "dense": DenseMeasurements(put(table)),
        "gaussian": GaussianMeasurements((d1, d2), m, rng=3),
        "rank one": RankOneMeasurements(put(a), put(b)),
        "entries": EntryMeasurements(put(rows), put(cols), (d1, d2)),
        "matrix": as_measurements(put(table.reshape(m, d1 * d2)), (d1, d2)),
    }
    if d1 == d2:
        found["quadratic"] = RankOneMeasurements(put(a))
        found["symmetric"] = GaussianMeasurements((d1, d1), m, symmetric=True, rng=3)
    if put is np.asarray:
        flat = table.reshape(m, d1 * d2)
        found["operator"] = as_measurements(aslinearoperator(flat), (d1, d2))
        found["sparse"] = as_measurements(sp.csr_array(np.where(np.abs(flat) > 1, flat, 0)), (d1, d2))
        found["user"], found["user, all"] = as_measurements(Counted(table)), as_measurements(Complete(table))
    return found


def matrices(A: Measurements) -> np.ndarray:
    """All A_i (m, d1, d2), by measuring unit matrices."""
    d1, d2 = A.shape
    columns = [A.apply(E.reshape(d1, d2)) for E in np.eye(d1 * d2)]
    return np.stack(columns, axis=1).reshape(-1, d1, d2)


# --- measurements -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 12), st.integers(0, 3), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_products_are_those_of_the_matrices(d1: int, d2: int, m: int, k: int, seed: int) -> None:
    """The adjoint identity, and every shortcut, for each kind."""
    rng = np.random.default_rng(seed)
    X, y, U, V = (rng.standard_normal(s) for s in ((d1, d2), (m,), (d1, k), (d2, k)))
    for name, A in kinds(d1, d2, m).items():
        table = matrices(A)
        size = 10.0 * max(1.0, np.linalg.norm(table) * max(1.0, np.linalg.norm(U)) * max(1.0, np.linalg.norm(V)))
        tol = tolerance("float64", m * d1 * d2, size * max(1.0, np.linalg.norm(X)) * max(1.0, np.linalg.norm(y)))
        image = np.tensordot(y, table, 1)
        assert A.shape == (d1, d2), name
        assert A.n_measurements == m, name
        assert abs(A.apply(X) @ y - np.sum(A.adjoint(y) * X)) <= tol, name
        measured = np.tensordot(table, U @ V.T, 2)
        assert np.abs(A.apply_factors(U, V) - measured).max() <= tol, name
        assert np.abs(A.adjoint(y) - image).max() <= tol, name
        assert np.abs(A.adjoint_times(y, V) - image @ V).max(initial=0) <= tol, name
        assert np.abs(A.adjoint_rtimes(y, U) - image.T @ U).max(initial=0) <= tol, name
        for pair, z in zip(((U, V), (2 * U, V)), A._several([(U, V), (2 * U, V)]), strict=True):
            assert np.abs(z - np.tensordot(table, pair[0] @ pair[1].T, 2)).max() <= 2 * tol, name
        r, left, right = A._sweep(U, V, y, lambda r, _: 3.0 * r)
        assert np.abs(r - (measured - y)).max() <= tol, name
        bent = np.tensordot(3.0 * r, table, 1)
        assert np.abs(left - bent @ V).max(initial=0) <= tol * 10 * (1 + np.abs(r).max()), name
        assert np.abs(right - bent.T @ U).max(initial=0) <= tol * 10 * (1 + np.abs(r).max()), name


def test_gaussian_matrices_are_the_table_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tiles and however many are measured; the symmetric ones are their symmetric parts."""
    key = as_key(5)
    table = reference.gaussian_table(key, 0, 30, 12, np.float64).reshape(30, 3, 4)
    for entries in (2**19, 12, 40):
        monkeypatch.setattr(measurements, "_TABLE_ENTRIES", entries)
        for m in (7, 30):
            assert np.array_equal(matrices(GaussianMeasurements((3, 4), m, rng=key)), table[:m])
    plain, symmetric = (GaussianMeasurements((4, 4), 9, symmetric=s, rng=key) for s in (False, True))
    G = matrices(plain)
    assert np.abs(matrices(symmetric) - (G + G.transpose(0, 2, 1)) / 2).max() <= tolerance(
        "float64", 1, np.abs(G).max()
    )
    kept = symmetric._kept(np.empty(0))
    assert isinstance(kept, DenseMeasurements)
    assert np.array_equal(matrices(kept), matrices(symmetric))
    monkeypatch.setattr(measurements, "_KEPT_BYTES", 100)
    assert symmetric._kept(np.empty(0)) is symmetric


def test_gaussian_measurements_are_isotropic(seed: int) -> None:
    """Measurements of a fixed X are N(0, ||X||**2): their squares add up to a chi-square variable (1e-6)."""
    m, X = 4000, low_rank(6, 6, 3, seed)
    S = X + X.T
    for symmetric, Y in ((False, X), (True, S)):
        z = GaussianMeasurements((6, 6), m, symmetric=symmetric, rng=seed).apply(Y)
        low, high = chi_square_interval(m)
        assert low < np.sum(z**2) / np.linalg.norm(Y) ** 2 < high


def test_mean_squares_are_those_of_the_entries() -> None:
    """Computed exactly, or by one probe: m = 400 squares of one normal distribution know it within 6 sqrt(2 / 400)."""
    for name, A in kinds(8, 8, 400).items():
        if name == "symmetric":
            continue  # on symmetric matrices it measures as with mean square one, which is what is told
        truth = np.mean(matrices(A) ** 2)
        exact = name in ("dense", "rank one", "quadratic", "entries")
        told = A._mean_square(as_key(0), np.empty(0))
        assert abs(told / truth - 1) <= (tolerance("float64", 400 * 64) if exact else 6 * (2 / 400) ** 0.5), name


def test_kinds_in_every_namespace(put: Any, dtype: str) -> None:
    d1, d2, m = 5, 5, 9
    rng = np.random.default_rng(0)
    X, y, U, V = (rng.standard_normal(s).astype(dtype) for s in ((d1, d2), (m,), (d1, 2), (d2, 2)))
    host, there = kinds(d1, d2, m, dtype=dtype), kinds(d1, d2, m, put, dtype)
    for name, A in there.items():
        for method, operands in (
            ("apply", (X,)),
            ("apply_factors", (U, V)),
            ("adjoint", (y,)),
            ("adjoint_times", (y, V)),
            ("adjoint_rtimes", (y, U)),
        ):
            found = getattr(A, method)(*(put(operand) for operand in operands))
            assert to_host(found).dtype == dtype, (name, method)
            expected = getattr(host[name], method)(*operands)
            size = np.abs(expected).max() + 50
            assert np.abs(to_host(found) - expected).max() <= tolerance(dtype, m * d1 * d2, size), (name, method)


def test_operands_of_two_precisions() -> None:
    A = GaussianMeasurements((4, 3), 5, rng=0)
    U, V = np.ones((4, 2), np.float32), np.ones((3, 2))
    assert A.apply_factors(U, V).dtype == np.float64
    assert A.adjoint_times(np.ones(5), V.astype(np.float32)).dtype == np.float64
    assert A.apply(np.ones((4, 3), np.int64)).dtype == np.float64


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (ValueError, r"A must have shape \(m, d1, d2\)", lambda: DenseMeasurements(np.ones((3, 4)))),
        (ValueError, "A must be real", lambda: DenseMeasurements(np.ones((3, 4, 2)) * 1j)),
        (ValueError, r"shape must be a pair", lambda: GaussianMeasurements(3, 4)),
        (ValueError, r"shape\[0\] must be at least 1", lambda: GaussianMeasurements((0, 3), 4)),
        (ValueError, "n_measurements must be at least 1", lambda: GaussianMeasurements((2, 3), 0)),
        (ValueError, "shape must be square", lambda: GaussianMeasurements((2, 3), 4, symmetric=True)),
        (ValueError, "b must have 2 rows", lambda: RankOneMeasurements(np.ones((2, 3)), np.ones((3, 3)))),
        (ValueError, "a and b must be real", lambda: RankOneMeasurements(np.ones((2, 3)) * 1j)),
        (TypeError, "rows must hold integers", lambda: EntryMeasurements([0.5], [1], (2, 2))),
        (ValueError, r"cols must have shape \(2,\)", lambda: EntryMeasurements([0, 1], [1], (2, 2))),
        (ValueError, r"cols must be in \[0, 1\]", lambda: EntryMeasurements([0, 1], [1, 2], (2, 2))),
        (ValueError, r"rows must be in \[0, 1\]", lambda: EntryMeasurements([0, -1], [1, 1], (2, 2))),
        (ValueError, r"X must have shape \(2, 3\)", lambda: GaussianMeasurements((2, 3), 4).apply(np.ones((3, 2)))),
        (ValueError, "X must be real", lambda: GaussianMeasurements((2, 2), 4).apply(1j * np.ones((2, 2)))),
        (ValueError, r"y must have shape \(4,\)", lambda: GaussianMeasurements((2, 2), 4).adjoint(np.ones(3))),
        (ValueError, r"V must have shape \(3, 1\)", lambda: _factors(np.ones((2, 1)), np.ones((3, 2)))),
        (TypeError, "measurements must be measurements", lambda: as_measurements("entries")),
        (ValueError, "shape must have a product of 6", lambda: as_measurements(np.ones((4, 6)))),
        (ValueError, "shape must be that of the measurements", lambda: as_measurements(np.ones((4, 2, 3)), (3, 2))),
        (ValueError, "measurements must be real", lambda: as_measurements(np.ones((4, 4)) * 1j)),
    ],
)
def test_bad_measurements(error: type, match: str, make: Any) -> None:
    with pytest.raises(error, match=match):
        make()


def _factors(U: np.ndarray, V: np.ndarray) -> np.ndarray:
    return GaussianMeasurements((2, 3), 4).apply_factors(U, V)


def test_measurements_and_numbers_live_together() -> None:
    xp = pytest.importorskip("array_api_strict")
    there = xp.asarray(np.ones((4, 3)), device=xp.Device("device1"))
    for A in (RankOneMeasurements(there), EntryMeasurements(xp.asarray([0]), xp.asarray([1]), (3, 3))):
        with pytest.raises(ValueError, match="must live in one array library"):
            A.adjoint(np.ones(A.n_measurements))


# --- robust recovery --------------------------------------------------------------------------------------------------

GEOMETRIC = {"structure": "psd", "schedule": "geometric", "decay": 0.98, "max_iter": 600, "on_failure": "ignore"}


@pytest.mark.parametrize(("m", "share", "exact", "over"), [(500, 0.1, 3.7e-6, 8.9e-4), (1000, 0.3, 3.3e-6, 3.4e-3)])
def test_figures_of_the_specification(m: int, share: float, exact: float, over: float) -> None:
    """d = 20, rank 3, 600 geometric steps from 1e-3: within a factor of ten of what was measured independently."""
    A, X, y, _ = semidefinite(20, 3, m, share)
    for rank, expected in ((3, exact), (20, over)):
        found = relative(subgradient_recovery(A, y, rank, init_scale=1e-3, tol=0.0, **GEOMETRIC), X)
        assert expected / 10 < found < 10 * expected


@pytest.mark.slow
def test_error_falls_with_the_scale_of_the_start() -> None:
    """Rank 20 for 3, 10 % outliers: 1.2e-2, 8.9e-4 and 1.9e-5 in the specification."""
    A, X, y, _ = semidefinite(20, 3, 500, 0.1)
    errors = [
        relative(subgradient_recovery(A, y, 20, init_scale=scale, tol=0.0, **GEOMETRIC), X)
        for scale in (1e-1, 1e-3, 1e-6)
    ]
    for found, expected in zip(errors, (1.2e-2, 8.9e-4, 1.9e-5), strict=True):
        assert expected / 10 < found < 10 * expected
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    default = [
        relative(subgradient_recovery(A, y, 20, structure="psd", init_scale=scale, on_failure="ignore"), X)
        for scale in (1e-1, 1e-3, 1e-6)
    ]
    assert default[0] > 3 * default[1] > 9 * default[2]
    assert default[2] < 5e-5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.45])
@pytest.mark.parametrize("structure", ["psd", "general"])
def test_recovery_names_the_outliers_and_its_error(share: float, structure: str) -> None:
    A, X, y, off = semidefinite(20, 3, 1000, share)
    before = y.copy()
    result = subgradient_recovery(A, y, 3, structure=structure)
    assert result.converged
    assert result.history[0] > 0.5
    assert len(result.history) == result.n_iter + 1
    assert np.array_equal(y, before)
    error = relative(result, X)
    assert error < 3e-5  # tol = 1e-6 times the steps that a factor can still go
    assert result.error_kind == "median"
    assert error / 3 < result.error < 3 * error  # what the result says of itself
    assert result.error == result.history[-1]
    # 5 deviations of normal residuals; the few outliers that are wrong by less than 1e-4 cannot be told
    assert np.sum(result.outliers & ~off) <= binomial_upper(1000, 5.8e-7, 1e-9)
    assert np.sum(off & ~result.outliers) <= 1
    assert abs(result.outlier_share - np.mean(result.outliers)) <= tolerance("float64", 1)


def test_noise_and_least_squares_on_clean_data() -> None:
    """Without outliers the absolute loss costs at most the 1.25 = sqrt(pi / 2) of a median, with a margin for one draw;
    with them least squares is worthless.
    """
    for seed in range(2):
        A, X, y, _ = semidefinite(15, 2, 1000, 0.0, seed, noise=0.02)
        robust = subgradient_recovery(A, y, 2)
        squares = factorized_gd(A, y, 2)
        assert relative(robust, X) < 1.5 * relative(squares, X)
        assert abs(robust.residual_scale / (0.02 * np.linalg.norm(X)) - 1) < 0.2
        dirty = y + np.where(np.arange(1000) < 100, 1000.0, 0.0)
        robust = subgradient_recovery(A, dirty, 2)
        assert relative(robust, X) < 1.7 * relative(squares, X)
        assert relative(factorized_gd(A, dirty, 2, on_failure="ignore"), X) > 20 * relative(robust, X)
        assert np.array_equal(robust.outliers, np.arange(1000) < 100)


def test_over_specified_rank_stays_small() -> None:
    A, X, y, _ = semidefinite(20, 3, 500, 0.1)
    result = subgradient_recovery(A, y, 12, structure="psd")
    s = result.singular_values()
    assert s.shape == (12,)
    assert np.abs(s[:3] / np.linalg.svd(X, compute_uv=False)[:3] - 1).max() < 1e-3
    assert s[3] < 1e-4 * s[0]


def test_the_step_has_no_unit() -> None:
    """Scaling y by a power of four, or the measurements, changes nothing but the exponents."""
    A, _, y, _ = semidefinite(12, 2, 300, 0.2)
    for structure in ("psd", "general"):
        options = {"structure": structure, "max_iter": 60, "on_failure": "ignore"}
        base = subgradient_recovery(A, y, 3, **options)
        for factor in (2.0**60, 2.0**-60):
            scaled = subgradient_recovery(A, factor * y, 3, **options)
            assert np.abs(np.array(scaled.history) - base.history).max() <= tolerance("float64", 300 * 60, 100)
            assert np.abs(scaled.to_dense() / factor - base.to_dense()).max() <= 1e-9 * np.abs(base.to_dense()).max()
        other = DenseMeasurements(1e-3 * matrices(A))
        scaled = subgradient_recovery(other, 1e-3 * y, 3, **options)
        assert np.abs(scaled.to_dense() - base.to_dense()).max() <= 1e-9 * np.abs(base.to_dense()).max()


def test_ill_conditioned_matrices_wait_for_their_last_direction() -> None:
    """Singular values 1 and 0.05: the second comes long after the first; little patience takes it for noise."""
    rng = np.random.default_rng(0)
    A, X = DenseMeasurements(rng.standard_normal((600, 20, 20))), low_rank(20, 20, 2, condition=20.0)
    y = A.apply(X)
    y[:60] += 5.0
    assert relative(subgradient_recovery(A, y, 2), X) < 1e-4
    hasty = subgradient_recovery(A, y, 2, patience=20, decay=0.5, init_scale=1e-3, on_failure="ignore")
    assert relative(hasty, X) > 1e-2
    assert hasty.error > 1e-2  # and the result says so


def test_held_out_measurements_tell_the_error_of_an_overfit() -> None:
    A, X, y, _ = semidefinite(20, 3, 500, 0.1)
    options = {"init_scale": 0.1, "on_failure": "ignore", "rng": 0}
    fit = subgradient_recovery(A, y, 20, **options)
    held = subgradient_recovery(A, y, 20, holdout=0.2, **options)
    assert fit.error < relative(fit, X) / 3
    assert held.error_kind == "held-out"
    assert relative(held, X) / 3 < held.error < 3 * relative(held, X)
    again = subgradient_recovery(A, y, 20, holdout=0.2, **options)
    assert again.history == held.history


def test_infinite_numbers_are_outliers() -> None:
    A, X, y, off = semidefinite(15, 2, 400, 0.1)
    y[off] = np.where(np.arange(off.sum()) % 2, np.inf, -np.inf)
    result = subgradient_recovery(A, y, 2, structure="psd")
    assert result.converged
    assert relative(result, X) < 3e-5
    assert np.array_equal(result.outliers, off)


def test_entries_with_outliers() -> None:
    """A completion problem: 40 % of the entries, a fifth of them wrong."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 3)) @ rng.standard_normal((3, 80))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.4)
    A = EntryMeasurements(rows, cols, X.shape)
    y = A.apply(X)
    off = rng.random(len(y)) < 0.2
    y[off] += 10.0 * rng.standard_normal(off.sum())
    result = subgradient_recovery(A, y, 3)
    assert result.converged
    assert relative(result, X) < 1e-5
    assert np.mean(result.outliers == off) > 0.999
    # what the guide says of the other schedule: half of the entries fit, and the matrix is wrong
    other = subgradient_recovery(A, y, 3, schedule="residual", on_failure="ignore")
    assert relative(other, X) > 1e-2


@pytest.mark.parametrize("quadratic", [True, False])
def test_rank_one_measurements_with_outliers(quadratic: bool) -> None:
    rng = np.random.default_rng(1)
    L = rng.standard_normal((30, 2))
    a, b = rng.standard_normal((700, 30)), rng.standard_normal((700, 30))
    A = RankOneMeasurements(a) if quadratic else RankOneMeasurements(a, b)
    y = A.apply_factors(L, L)
    y[:70] += 100.0 * rng.standard_normal(70)
    result = subgradient_recovery(A, y, 2, structure="psd")
    assert result.converged
    assert relative(result, L @ L.T) < 1e-4
    assert np.sum(result.outliers[:70]) >= 68


def test_all_spellings_of_the_measurements_agree() -> None:
    A, X, y, off = semidefinite(8, 2, 150, 0.1)
    clean, table = A.apply(X), matrices(A)
    flat = table.reshape(150, 64)
    user = Complete(table)
    for other in (table, flat, sp.csr_array(flat), aslinearoperator(flat), Counted(table), user):
        found = subgradient_recovery(other, y, 2, structure="psd", shape=(8, 8))
        assert relative(found, X) < 1e-4
        assert np.array_equal(found.outliers, off)
        assert relative(factorized_gd(other, clean, 2), X) < 1e-6
    user.applied = user.adjoined = 0
    result = subgradient_recovery(user, y, 2, max_iter=10, tol=0.0, on_failure="ignore")
    assert result.n_iter == 10
    assert user.applied == 11 + 1  # one a look and one for the mean square
    assert user.adjoined == 2 * 11 + 1  # two products a look, and the start


def test_large_tables_are_made_once_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    A = GaussianMeasurements((6, 5), 80, rng=0)
    X = low_rank(6, 5, 1)
    y = A.apply(X)
    kept = subgradient_recovery(A, y, 1, max_iter=20, tol=0.0, on_failure="ignore")
    monkeypatch.setattr(measurements, "_KEPT_BYTES", 0)
    monkeypatch.setattr(measurements, "_TABLE_ENTRIES", 30 * 16)  # five tiles
    made, table = [], measurements.kernel("gaussian_table", np)

    def counted(*args: Any) -> np.ndarray:
        made.append(args[2] - args[1])
        return table(*args)

    monkeypatch.setattr(measurements, "kernel", lambda *_: counted)
    result = subgradient_recovery(A, y, 1, max_iter=20, tol=0.0, on_failure="ignore")
    assert made == [16] * 5 * 22  # 21 looks and the start
    assert np.abs(result.to_dense() - kept.to_dense()).max() <= 1e-6 * np.abs(kept.to_dense()).max()


@pytest.mark.parametrize("symmetric", [False, True])
def test_starts_that_are_too_large_to_be_formed(symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    L = rng.standard_normal((40, 3))
    A = RankOneMeasurements(rng.standard_normal((300, 40)), rng.standard_normal((300, 40)))
    y = A.apply_factors(L, L)
    whole = intake.leading(A, y, 3, as_key(0), symmetric=symmetric)
    monkeypatch.setattr(intake, "_DENSE_ENTRIES", 1)
    sketched = intake.leading(A, y, 3, as_key(0), symmetric=symmetric)
    assert np.abs(sketched[1] / whole[1] - 1).max() < 0.05
    C = A.adjoint(y)
    C = (C + C.T) / 2 if symmetric else C
    P, s, Q = sketched
    assert np.linalg.norm(C - (P * s) @ Q.T) < 1.05 * np.linalg.norm(C - (whole[0] * whole[1]) @ whole[2].T)


def test_recovery_in_every_namespace(put: Any, dtype: str) -> None:
    A, X, y, off = semidefinite(10, 2, 200, 0.1)
    table, y = matrices(A).astype(dtype), y.astype(dtype)
    host = subgradient_recovery(table, y, 2, structure="psd")
    result = subgradient_recovery(put(table), put(y), 2, structure="psd")
    assert to_host(result.U).dtype == dtype
    assert relative(result, X) < 1e-4
    assert np.array_equal(to_host(result.outliers), to_host(host.outliers))
    assert np.sum(to_host(result.outliers) != off) <= 2
    rows, cols = (index.ravel() for index in np.indices((10, 10)))
    entries = EntryMeasurements(put(rows), put(cols), (10, 10))
    z = np.where(np.arange(100) % 10 == 3, 50.0, X.ravel()).astype(dtype)
    result = subgradient_recovery(entries, put(z), 2, max_iter=20, on_failure="ignore", holdout=0.1, rng=0)
    host = subgradient_recovery(EntryMeasurements(rows, cols, (10, 10)), z, 2, max_iter=20, on_failure="ignore",
                                holdout=0.1, rng=0)  # fmt: skip
    assert to_host(result.U).dtype == dtype
    assert abs(result.history[5] - host.history[5]) <= tolerance(dtype, 100, 10)


# --- robust recovery: ends --------------------------------------------------------------------------------------------


def test_recovery_that_fails_says_so() -> None:
    A, X, y, _ = semidefinite(12, 2, 200, 0.1)
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = subgradient_recovery(A, y, 2, max_iter=5)
    assert result.n_iter == 5
    start = subgradient_recovery(A, y, 2, max_iter=0, on_failure="ignore")
    assert not start.converged
    assert np.linalg.norm(start.to_dense()) < 1e-11 * np.linalg.norm(X)  # init_scale**2 = 1e-12
    noise = np.random.default_rng(0).standard_normal(200)
    with pytest.raises(ConvergenceError, match="BREAKDOWN") as caught:
        subgradient_recovery(A, noise, 1, structure="psd", on_failure="raise")
    assert caught.value.result.error > 0.5
    y[3] = np.nan
    result = subgradient_recovery(A, y, 2, on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert np.all(np.isfinite(result.to_dense()))


def test_too_many_outliers_are_no_recovery() -> None:
    A, X, y, _ = semidefinite(20, 3, 1000, 0.7)
    result = subgradient_recovery(A, y, 3, on_failure="ignore")
    assert not result.converged
    assert relative(result, X) > 0.1


def test_zero_and_mostly_zero_numbers() -> None:
    A = GaussianMeasurements((6, 6), 60, rng=0)
    for result in (subgradient_recovery(A, np.zeros(60), 2), factorized_gd(A, np.zeros(60), 2)):
        assert result.converged
        assert not np.any(result.to_dense())
        assert result.error == 0.0
    X = np.zeros((20, 20))
    X[:8, :8] = low_rank(8, 8, 1) * 5
    rows, cols = (index.ravel() for index in np.indices(X.shape))
    result = subgradient_recovery(EntryMeasurements(rows, cols, X.shape), X.ravel(), 1)
    assert np.all(np.isfinite(result.to_dense()))
    assert relative(result, X) < 1e-4


def test_callbacks_and_warm_starts() -> None:
    A, X, y, _ = semidefinite(12, 2, 300, 0.1)
    steps: list[Any] = []

    def stop(step: Any) -> bool:
        steps.append(step)
        return step.n_iter == 40

    first = subgradient_recovery(A, y, 2, structure="psd", callback=stop, on_failure="ignore")
    assert first.n_iter == 40
    assert first.status is Status.MAX_ITER
    assert [step.n_iter for step in steps] == list(range(41))
    assert tuple(step.error for step in steps) == first.history
    assert steps[-1].U is first.U
    for init in (first, (first.U, first.V), first.U):
        second = subgradient_recovery(A, y, 2, structure="psd", init=init)
        assert second.history[0] == first.history[-1]
        assert second.converged
        assert relative(second, X) < 3e-5
        assert second.V is second.U
    steps.clear()
    short = factorized_gd(A, A.apply(X), 2, callback=lambda step: step.n_iter == 3, on_failure="ignore")
    assert short.n_iter == 3
    assert not short.converged
    warm = factorized_gd(A, A.apply(X), 2, init=short)
    assert warm.history[0] == short.history[-1]
    assert warm.converged


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "structure must be one of", {"structure": "symmetric"}),
        (ValueError, "schedule must be one of", {"schedule": "constant"}),
        (ValueError, "step must be finite and in", {"step": 0.0}),
        (ValueError, "decay must be finite and in", {"decay": 1.0}),
        (ValueError, "init_scale must be finite and in", {"init_scale": 0.0}),
        (ValueError, "holdout must be finite and in", {"holdout": 1.0}),
        (ValueError, "holdout must leave measurements", {"holdout": 1e-9}),
        (ValueError, "patience must be at least 1", {"patience": 0}),
        (ValueError, "init must be one of", {"init": "zero"}),
        (ValueError, "init must be a pair", {"init": 3.0}),
        (ValueError, "init must hold V of shape", {"init": (np.ones((4, 1)), np.ones((4, 1)))}),
        (ValueError, "init must be real", {"init": (np.ones((4, 1)) * 1j, np.ones((3, 1)))}),
        (ValueError, "shape must be square for", {"structure": "psd"}),
        (ValueError, "tol must be finite and in", {"tol": -1.0}),
        (ValueError, 'on_failure must be "warn"', {"on_failure": "print"}),
    ],
)
def test_bad_options_of_the_recovery(error: type, match: str, options: dict) -> None:
    with pytest.raises(error, match=match):
        subgradient_recovery(GaussianMeasurements((4, 3), 20, rng=0), np.ones(20), 1, **options)


@pytest.mark.parametrize("recover", [subgradient_recovery, factorized_gd])
@pytest.mark.parametrize(
    ("error", "match", "A", "y", "rank"),
    [
        (ValueError, r"y must have shape \(20,\)", np.ones((20, 4, 3)), np.ones(19), 1),
        (ValueError, "y must be real", np.ones((20, 4, 3)), np.ones(20) * 1j, 1),
        (TypeError, "y must have a real or complex numeric", np.ones((20, 4, 3)), np.array(["a"] * 20), 1),
        (ValueError, r"rank must be in \[1, 3\]", np.ones((20, 4, 3)), np.ones(20), 4),
        (TypeError, "rank must be an integer", np.ones((20, 4, 3)), np.ones(20), 1.5),
        (ValueError, "measurements must be finite and not all zero", np.zeros((20, 4, 3)), np.ones(20), 1),
        (ValueError, "measurements must be finite and not all zero", np.full((20, 4, 3), np.nan), np.ones(20), 1),
        (ValueError, "y must not be empty", np.ones((0, 4, 3)), np.ones(0), 1),
    ],
)
def test_bad_problems(recover: Any, error: type, match: str, A: Any, y: Any, rank: Any) -> None:
    with pytest.raises(error, match=match):
        recover(A, y, rank)


# --- descent on two factors -------------------------------------------------------------------------------------------


def observed(n: int = 50) -> tuple[EntryMeasurements, np.ndarray, np.ndarray]:
    """All entries of the symmetric matrix of specification 8B: singular values 1, 0.9, 0.8."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, 3)))
    X = (Q * [1.0, 0.9, 0.8]) @ Q.T
    rows, cols = (index.ravel() for index in np.indices((n, n)))
    A = EntryMeasurements(rows, cols, (n, n))
    return A, X, A.apply(X)


PLAIN = {"rebalance": None, "step": 0.2, "tol": 1e-15, "rng": 0, "on_failure": "ignore"}


@pytest.mark.slow
def test_symmetric_and_asymmetric_rates() -> None:
    """Table 8B(e): rank 5 for 3.  Equal factors stay equal, so the same iteration is the symmetric one: 1 / t."""
    A, X, y = observed()
    U = 0.05 / 50**0.5 * np.random.default_rng(1).standard_normal((50, 5))
    symmetric = factorized_gd(A, y, 5, init=(U, U), max_iter=6000, **PLAIN)
    assert np.abs(symmetric.U - symmetric.V).max() <= tolerance("float64", 6000)
    assert 5.6e-5 < relative(symmetric, X) < 5.6e-3
    slope = np.log(symmetric.history[6000] / symmetric.history[1500]) / np.log(4)
    assert -1.2 < slope < -0.5
    runs = {
        scale: factorized_gd(A, y, 5, init_scale=scale, max_iter=limit, **PLAIN)
        for scale, limit in ((0.5, 1500), (0.2, 6000), (0.05, 6000))
    }
    assert relative(runs[0.5], X) < 1e-13
    assert relative(runs[0.2], X) < 1e-13
    assert 1.2e-5 < relative(runs[0.05], X) < 1.2e-3
    # a linear rate that goes with the square of the scale: 6.25 from 0.5 to 0.2
    rates = [np.log(run.history[300] / run.history[600]) for run in (runs[0.5], runs[0.2])]
    assert 3 < rates[0] / rates[1] < 12


def test_one_rescaling_makes_the_rate_independent_of_the_scale() -> None:
    A, X, y = observed()
    plain = factorized_gd(A, y, 5, init_scale=0.05, max_iter=500, **PLAIN)
    once = {
        scale: factorized_gd(A, y, 5, init_scale=scale, max_iter=500, **{**PLAIN, "rebalance": "once"})
        for scale in (0.5, 0.05, 0.005)
    }
    assert relative(plain, X) > 1e-5
    for result in once.values():
        assert relative(result, X) < 1e-13  # 7e-16 by step 500
    rates = []
    for result in once.values():
        first = next(i for i, error in enumerate(result.history) if error <= 0.1)
        assert result.history[first + 1] <= 0.1 * (1 + 1e-6)  # the rescaling changes nothing
        rates.append(np.log(result.history[first + 20] / result.history[first + 60]))
    assert max(rates) < 1.5 * min(rates)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 5), st.floats(-3, 3), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_rescaling_keeps_the_product(d1: int, d2: int, k: int, exponent: float, seed: int) -> None:
    k = min(k, d1, d2)
    rng = np.random.default_rng(seed)
    A = GaussianMeasurements((d1, d2), 5, rng=0)
    run = descent._Run(intake.checked_problem(A, np.ones(5), None, as_key(0)), "once", 0.2)
    run.top = 10.0**exponent
    U, V = rng.standard_normal((d1, k)), rng.standard_normal((d2, k))
    F, G = run.rescale(U, V)
    condition = np.linalg.cond(U)
    assert np.abs(F @ G.T - U @ V.T).max() <= tolerance("float64", 100 * k, condition * 100)
    assert np.abs(F.T @ F / run.top - np.eye(k)).max() <= tolerance("float64", 100 * k, condition)


def test_scaled_steps_do_not_see_the_condition() -> None:
    """Steps to 1e-8: a few dozen for condition 1 and 100, where plain descent is far from it after 200."""
    A = GaussianMeasurements((30, 20), 800, rng=1)
    counts = []
    for condition in (1.0, 100.0):
        X = low_rank(30, 20, 3, condition=condition)
        y = A.apply(X)
        for rank in (3, 6):
            result = factorized_gd(A, y, rank)
            assert result.converged
            assert relative(result, X) < 1e-7
            assert result.error_kind == "residual"
            counts.append((rank, result.n_iter))
        fixed = factorized_gd(A, y, 3, step=0.5)
        assert relative(fixed, X) < 1e-7
    assert counts[2][1] < 2 * counts[0][1]
    assert counts[3][1] < 2 * counts[1][1]
    plain = factorized_gd(A, y, 3, rebalance=None, max_iter=200, on_failure="ignore")
    assert relative(plain, X) > 1e-4
    assert not plain.converged


def test_exact_steps_are_the_best_of_their_line() -> None:
    A = GaussianMeasurements((8, 7), 60, rng=0)
    y = A.apply(low_rank(8, 7, 2)) + 0.1 * np.random.default_rng(0).standard_normal(60)
    for rebalance in ("scaled", None):
        problem = intake.checked_problem(A, y, None, as_key(0))
        run = descent._Run(problem, rebalance, "exact")
        U, V = (gaussian_panel(as_key(i), side, 3, y) for i, side in enumerate((8, 7)))
        run.top = 1.0
        r, D, E = A._sweep(U, V, y, lambda r, _: r)
        W, Z = run.moved(U, V, r, D, E)
        best = np.linalg.norm(A.apply_factors(W, Z) - y)
        if rebalance == "scaled":
            shift = np.linalg.norm(r) / run.mass**0.5
            D, E = run._solved(D, V, shift), run._solved(E, U, shift)
        for t in np.concatenate([np.geomspace(1e-6, 1e3, 400), -np.geomspace(1e-6, 10, 50)]):
            assert best <= np.linalg.norm(A.apply_factors(U - t * D, V - t * E) - y) * (1 + 1e-12)


def test_clean_entries_and_surplus_rank() -> None:
    """Completion: the true rank with any start; twice the rank with one rescaling, but not from the spectral start."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 3)) @ rng.standard_normal((3, 80))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.4)
    A = EntryMeasurements(rows, cols, X.shape)
    y = A.apply(X)
    assert relative(factorized_gd(A, y, 3), X) < 1e-6
    assert relative(factorized_gd(A, y, 6, rebalance="once", init_scale=0.05, rng=0), X) < 1e-6
    surplus = factorized_gd(A, y, 6, max_iter=200, on_failure="ignore")
    assert relative(surplus, X) > 1e-3


def test_noise_ends_at_the_discrepancy_or_at_a_stationary_point() -> None:
    rng = np.random.default_rng(0)
    A, X = GaussianMeasurements((20, 15), 600, rng=0), low_rank(20, 15, 2)
    y = A.apply(X) + 0.05 * rng.standard_normal(600)
    result = factorized_gd(A, y, 2)
    assert result.converged
    assert abs(result.residual_scale / 0.05 - 1) < 0.1
    assert result.outliers is None
    # a stationary point: no direction of the tangent space lowers the residual
    r = A.apply(result.to_dense()) - y
    G = A.adjoint(r)
    assert np.linalg.norm(G @ result.V) < 2e-4 * np.linalg.norm(r) * 600**0.5 * np.linalg.norm(result.V)
    early = factorized_gd(A, y, 4, noise_level=0.06)
    assert early.converged
    assert early.residual_scale <= 0.06
    assert early.n_iter < factorized_gd(A, y, 4, on_failure="ignore").n_iter


def test_descent_that_fails_says_so() -> None:
    A, X = GaussianMeasurements((10, 8), 200, rng=0), low_rank(10, 8, 2)
    y = A.apply(X)
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        result = factorized_gd(A, y, 2, max_iter=2)
    assert result.n_iter == 2
    assert factorized_gd(A, y, 2, max_iter=0, on_failure="ignore").status is Status.MAX_ITER
    floor = factorized_gd(A, y, 2, tol=0.0, on_failure="ignore", max_iter=3000)
    assert floor.status is Status.STAGNATED
    assert relative(floor, X) < 1e-13
    with pytest.raises(ConvergenceError, match="NONFINITE"), np.errstate(all="ignore"):
        factorized_gd(A, y, 2, rebalance=None, step=100.0, on_failure="raise")
    bad = y.copy()
    bad[5] = np.nan
    result = factorized_gd(A, bad, 2, on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert np.all(np.isfinite(result.to_dense()))
    assert result.history == ()


def test_descent_in_every_namespace(put: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((7, 2)) @ rng.standard_normal((2, 6))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.9)
    table = rng.standard_normal((150, 7, 6)).astype(dtype)
    a, b = table[:, :, 0], table[:, 0, :]
    cases = [
        (DenseMeasurements(put(table)), DenseMeasurements(table)),
        (GaussianMeasurements((7, 6), 150, rng=0), GaussianMeasurements((7, 6), 150, rng=0)),
        (RankOneMeasurements(put(a), put(b)), RankOneMeasurements(a, b)),
        (EntryMeasurements(put(rows), put(cols), X.shape), EntryMeasurements(rows, cols, X.shape)),
    ]
    for there, host in cases:
        y = host.apply(X).astype(dtype)
        for rebalance in ("scaled", "once", None):
            options = {"rebalance": rebalance, "rng": 0, "max_iter": 2, "on_failure": "ignore"}
            result = factorized_gd(there, put(y), 2, **options)
            expected = factorized_gd(host, y, 2, **options)
            assert to_host(result.U).dtype == dtype
            assert result.n_iter == expected.n_iter
            assert abs(result.history[1] - expected.history[1]) <= tolerance(dtype, y.size * 120, 10)
        assert relative(factorized_gd(there, put(y), 2, tol=1e-4), X) < 1e-3


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "rebalance must be one of", {"rebalance": "twice"}),
        (ValueError, "rebalance_at must be finite and in", {"rebalance_at": 1.0}),
        (ValueError, "step must be one of", {"step": "search"}),
        (ValueError, "step must be finite and in", {"step": -1.0}),
        (ValueError, "init must be one of", {"init": "zero"}),
        (ValueError, "init_scale must be finite and in", {"init_scale": 0.0}),
        (ValueError, "noise_level must be finite and in", {"noise_level": -1.0}),
        (ValueError, "max_iter must be at least 0", {"max_iter": -1}),
        (ValueError, "tol must be finite and in", {"tol": np.nan}),
        (ValueError, "init must hold U of shape", {"init": (np.ones((3, 1)), np.ones((3, 1)))}),
    ],
)
def test_bad_options_of_the_descent(error: type, match: str, options: dict) -> None:
    with pytest.raises(error, match=match):
        factorized_gd(GaussianMeasurements((4, 3), 20, rng=0), np.ones(20), 1, **options)


# --- results ----------------------------------------------------------------------------------------------------------


def test_results() -> None:
    A, X = GaussianMeasurements((9, 7), 200, rng=0), low_rank(9, 7, 2)
    result = factorized_gd(A, A.apply(X), 3)
    U, V = result
    assert result.shape == (9, 7)
    assert result.rank == 3
    assert np.array_equal(result.to_dense(), U @ V.T)
    Z = np.random.default_rng(0).standard_normal((7, 4))
    assert np.abs(result.matmul(Z) - result.to_dense() @ Z).max() <= tolerance("float64", 21, 10)
    assert np.abs(result.matmul(Z[:, 0]) - result.to_dense() @ Z[:, 0]).max() <= tolerance("float64", 21, 10)
    assert np.abs(result.rmatmul(X) - result.to_dense().T @ X).max() <= tolerance("float64", 21, 10)
    s = np.linalg.svd(result.to_dense(), compute_uv=False)[:3]
    assert np.abs(result.singular_values() - s).max() <= tolerance("float64", 63)
    with pytest.raises(ValueError, match="X must have 7 rows"):
        result.matmul(np.ones(9))
    assert repr(result).startswith("RecoveryResult(U: numpy float64 (9, 3)")
    assert "\n" not in repr(GaussianMeasurements((9, 7), 200, rng=0)) + repr(as_measurements(np.ones((2, 4))))
    assert randla.RecoveryResult is type(result)
