"""Randomized SVD, eigendecomposition and range finder: defining properties, oracles, and problems that must fail."""

from __future__ import annotations

import itertools
import math
from typing import Any

import array_api_compat.numpy as compat
import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from randla import RowBlocks, eigh, range_finder, svd
from randla._arrays import eps, to_host
from randla._random import as_key
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.datasets import SPECTRA, low_rank_problems, sparse_matrix, spectrum, with_spectrum
from randla.diagnostics import PROBES, lanczos_factor, probe_factor
from randla.linear_maps import AdjointMap, as_linear_map
from randla.lowrank.orthonormal import NonfiniteError, core_svd, orthonormalize

from .conftest import tolerance
from .statistics import binomial_upper, chi_square_interval

DTYPES = ["float32", "float64", "complex64", "complex128"]


def relative_error(A: Any, result: Any, order: Any = "fro") -> float:
    return float(np.linalg.norm(A - result.to_dense(), order) / np.linalg.norm(A, order))


def orthogonality(Q: Any) -> float:
    return float(np.linalg.norm(Q.conj().T @ Q - np.eye(Q.shape[1])))


def decaying(m: int = 120, n: int = 80, kind: str = "inverse", dtype: str = "float64", rng: int = 0) -> np.ndarray:
    return with_spectrum(m, n, spectrum(kind, min(m, n)), dtype=dtype, rng=rng)


def check_is_svd(A: np.ndarray, result: Any) -> None:
    """Orthonormal factors, descending values, the sign rule, and the dtype of A."""
    U, s, Vh = result
    m, n = A.shape
    assert U.shape == (m, result.rank)
    assert s.shape == (result.rank,)
    assert Vh.shape == (result.rank, n)
    assert U.dtype == Vh.dtype == A.dtype
    assert s.dtype == A.real.dtype
    assert orthogonality(U) <= tolerance(A.dtype, m * max(1, result.rank), 2.0)
    assert orthogonality(Vh.conj().T) <= tolerance(A.dtype, n * max(1, result.rank), 2.0)
    assert np.all(np.diff(s) <= 0)
    assert np.all(s >= 0)
    if result.rank and n:
        largest = np.abs(Vh).max(axis=1)
        first = np.argmax(np.abs(Vh) >= 0.999 * largest[:, None], axis=1)
        pivots = Vh[np.arange(result.rank), first]
        assert np.all(pivots.real > 0)
        assert np.all(np.abs(pivots.imag) <= tolerance(A.dtype, 1))


# --- panels -----------------------------------------------------------------------------------------------------------


def panel_of_condition(m: int, width: int, condition: float, dtype: str) -> np.ndarray:
    return with_spectrum(m, width, np.logspace(0, -math.log10(condition), width), dtype=dtype, rng=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e7, 1e10, 1e13, 1e15, 1e30])
def test_orthonormal_basis_of_any_condition(condition: float, dtype: str) -> None:
    Y = panel_of_condition(700, 30, condition, dtype)
    before = Y.copy()
    Q, R, _ = orthonormalize(Y)
    assert np.array_equal(Y, before)
    assert Q.dtype == Y.dtype
    assert orthogonality(Q) <= tolerance(dtype, 700 * 30)
    # what is dropped is below the documented cutoff in each of at most 30 directions
    dropped = 700 * eps(dtype) * np.linalg.norm(Y)
    assert np.linalg.norm(Y - Q @ R, 2) <= dropped + tolerance(dtype, 700 * 30, np.linalg.norm(Y))
    s = np.linalg.svd(Y.astype(np.complex128), compute_uv=False)
    assert np.sum(s > 4 * dropped) <= Q.shape[1] <= np.sum(s > dropped / 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_deficient_panels(dtype: str) -> None:
    Y = with_spectrum(300, 20, np.where(np.arange(20) < 7, 1.0, 0.0), dtype=dtype, rng=0)
    assert orthonormalize(Y).Q.shape == (300, 7)
    assert orthonormalize(0 * Y).Q.shape == (300, 0)
    doubled = np.concatenate([Y[:, :3], Y[:, :3], np.zeros_like(Y[:, :2])], axis=1)
    assert orthonormalize(doubled).Q.shape == (300, 3)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_panels_whose_squares_leave_the_range(scale: float) -> None:
    Y = panel_of_condition(200, 10, 1e3, "float64")
    Q, R, _ = orthonormalize(Y * scale)
    assert Q.shape == (200, 10)
    assert orthogonality(Q) <= tolerance("float64", 2000)
    assert np.linalg.norm(Q @ (R / scale) - Y) <= tolerance("float64", 2000, np.linalg.norm(Y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("new", [1.0, 1e-4, 1e-9, 0.0])
def test_panel_nearly_inside_a_given_span(new: float, dtype: str) -> None:
    key = as_key(5)
    whole = with_spectrum(400, 30, np.ones(30), dtype=dtype, rng=key)
    B = np.linalg.qr(whole)[0]
    Y = B[:, :20] @ with_spectrum(20, 10, np.ones(10), dtype=dtype, rng=1) + new * B[:, 20:]
    Y = Y.astype(dtype)
    Q, R, H = orthonormalize(Y, (B[:, :12], B[:, 12:20]))
    assert np.linalg.norm(B[:, :20].conj().T @ Q) <= tolerance(dtype, 400 * 30)
    assert orthogonality(Q) <= tolerance(dtype, 400 * 10)
    dropped = 400 * eps(dtype) * np.linalg.norm(Y)
    assert np.linalg.norm(Y - B[:, :20] @ H - Q @ R, 2) <= dropped + tolerance(dtype, 4000, np.linalg.norm(Y))
    assert Q.shape[1] == (10 if new > 4 * dropped else 0 if new < dropped / 4 else Q.shape[1])


def test_panels_without_room_or_entries() -> None:
    B = np.eye(6)[:, :4]
    assert orthonormalize(np.ones((6, 5)) + np.eye(6)[:, :5], (B,)).Q.shape[1] <= 2
    assert orthonormalize(np.ones((1, 5))).Q.shape == (1, 1)
    assert orthonormalize(np.ones((5, 0))).Q.shape == (5, 0)
    assert orthonormalize(np.ones((0, 3))).Q.shape == (0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_panels_are_reported(bad: float) -> None:
    Y = np.ones((20, 3))
    Y[4, 1] = bad
    with pytest.raises(NonfiniteError, match="NaN or infinity"):
        orthonormalize(Y)


def test_small_matrix_on_which_divide_and_conquer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    M = decaying(20, 20)
    exact = np.linalg.svd(M)
    original, calls = compat.linalg.svd, []

    def failing_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise np.linalg.LinAlgError("SVD did not converge")
        return original(*arguments, **options)

    monkeypatch.setattr(compat.linalg, "svd", failing_once)
    U, s, Vh = core_svd(M)
    assert len(calls) == 2
    assert np.abs(s - exact[1]).max() <= tolerance(M.dtype, M.size)
    assert np.linalg.norm((U * s) @ Vh - M) <= tolerance(M.dtype, M.size, np.linalg.norm(M))


# --- singular values for a rank ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("method", ["krylov", "subspace"])
def test_rank_is_near_optimal_on_the_zoo(kind: str, method: str, dtype: str) -> None:
    A = decaying(150, 90, kind, dtype)
    s = np.linalg.svd(A.astype(np.complex128), compute_uv=False)
    result = svd(A, 12, method=method, rng=1)
    check_is_svd(A, result)
    best = float(np.linalg.norm(s[12:]) / np.linalg.norm(s))
    true = relative_error(A, result)
    # 1.02: two Krylov or power steps with 10 more columns lose under 0.5 % on every spectrum of the zoo
    assert true <= 1.02 * best + tolerance(dtype, A.size)
    assert result.error <= 2.0 * true + tolerance(dtype, 1)
    assert result.error >= 0.5 * true - tolerance(dtype, 1)
    assert result.converged
    # interlacing: Ritz values never exceed the singular values
    assert np.all(result.s <= s[:12] + tolerance(dtype, A.size, s[0]))


def test_exact_error_is_the_error() -> None:
    A = decaying()
    result = svd(A, 10, rng=0)
    assert result.error_kind == "exact"
    assert result.confidence == 1.0
    # the difference of squares loses eps ||A||**2, so sqrt(1 + eps / error**2) in the error
    assert result.error == pytest.approx(relative_error(A, result), rel=tolerance("float64", A.size) / result.error**2)
    assert result.norm == pytest.approx(np.linalg.norm(A), rel=tolerance("float64", A.size))
    assert result.error <= result.error_bound


@pytest.mark.parametrize("multiplicity", [30, 70])
@pytest.mark.parametrize("method", ["krylov", "subspace"])
def test_multiplicity_above_the_block(multiplicity: int, method: str) -> None:
    """A Krylov space of blocks narrower than a multiplicity holds too few copies; fresh directions must join."""
    s = np.where(np.arange(100) < multiplicity, 1.0, 0.0)
    A = with_spectrum(200, 100, s, rng=0)
    for result in (
        svd(A, 60, method=method, block_size=60 if method == "subspace" else 25, rng=0),
        svd(A, tol=1e-6, rng=0),
    ):
        wanted = min(multiplicity, result.rank)
        assert np.allclose(result.s[:wanted], 1.0, atol=tolerance("float64", A.size))
        assert np.allclose(result.s[wanted:], 0.0, atol=tolerance("float64", A.size))
        check_is_svd(A, result)


def test_flat_tail_costs_no_orthogonality() -> None:
    """Ten ones over a flat tail of 2e-3 with blocks of 14: noise in a block must not spoil the basis (specs 10.2)."""
    s = np.where(np.arange(200) < 10, 1.0, 2e-3)
    A = with_spectrum(300, 200, s, rng=2)
    for steps in (1, 2, 3):
        result = svd(A, 10, block_size=14, n_power_iter=steps, rng=3)
        best = np.linalg.norm(s[10:]) / np.linalg.norm(s)
        assert relative_error(A, result) - best <= 1e-10  # the acceptance figure of specs 10.11
        assert orthogonality(result.U) <= 1e-12


def test_rank_above_that_of_the_matrix_is_filled() -> None:
    A = np.outer(np.arange(1.0, 21.0), np.ones(15))
    for n_passes in (None, 1, 2, 3):
        result = svd(A, 4, n_passes=n_passes, rng=0)
        check_is_svd(A, result)
        assert result.s[1:].max() <= tolerance("float64", A.size, result.s[0])
    check_is_svd(np.zeros((7, 5)), svd(np.zeros((7, 5)), 3, rng=0))


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(0, 12),
    n=st.integers(0, 12),
    dtype=st.sampled_from(DTYPES),
    exponent=st.sampled_from([-15, 0, 15]),
    data=st.data(),
)
def test_any_shape_and_scale(m: int, n: int, dtype: str, exponent: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, min(m, n)))
    A = with_spectrum(m, n, np.linspace(1.0, 0.1, min(m, n)), dtype=dtype, rng=m) * np.dtype(dtype).type(10.0**exponent)
    before = A.copy()
    for result in (svd(A, rank, rng=1), svd(A, tol=0.3, rng=1)):
        check_is_svd(A, result)
        assert np.array_equal(A, before)
    if min(m, n):
        assert relative_error(A, svd(A, tol=0.3, rng=1)) <= 0.3 + tolerance(dtype, A.size)
        assert relative_error(A, svd(A, min(m, n), rng=1)) <= tolerance(dtype, 16 * A.size)
        Q = range_finder(A, rank, rng=1).Q
        assert orthogonality(Q) <= tolerance(dtype, max(1, Q.size))


def test_same_key_same_result_and_generators_move_on() -> None:
    A = decaying()
    assert np.array_equal(svd(A, 5, rng=7).U, svd(A, 5, rng=7).U)
    generator = np.random.default_rng(0)
    assert not np.array_equal(svd(A, 5, n_power_iter=0, rng=generator).U, svd(A, 5, n_power_iter=0, rng=generator).U)


# --- tolerances -------------------------------------------------------------------------------------------------------


def judge(problems: Any, **options: Any) -> tuple[int, int, int, int]:
    """Counts of problems, true errors above tol, estimates off by more than 2, ranks above 1.3 least + 5."""
    count = late = wrong = long = 0
    for i, problem in enumerate(problems):
        result = svd(problem.A, tol=problem.tol, rng=i, on_failure="ignore", **options)
        true = relative_error(problem.A, result)
        count += 1
        late += not (true <= problem.tol and result.converged)
        wrong += not 0.5 * true <= result.error <= 2.0 * true
        long += result.rank > 1.3 * problem.least_rank + 5
    return count, late, wrong, long


def test_tolerance_on_some_problems_of_the_zoo() -> None:
    assert judge(low_rank_problems(40, rng=0)) == (40, 0, 0, 0)
    assert judge(low_rank_problems(20, rng=1), method="subspace") == (20, 0, 0, 0)


def test_spectral_tolerance_on_some_problems_of_the_zoo() -> None:
    for i, problem in enumerate(low_rank_problems(20, rng=6)):
        result = svd(problem.A, tol=problem.tol, norm="spectral", rng=i)
        true = relative_error(problem.A, result, 2)
        assert true <= problem.tol
        assert result.error / 2 <= true <= 2 * result.error
        assert true <= result.error_bound + tolerance("float64", problem.A.size)  # rounding is relative to ||A||
        assert result.rank <= 1.3 * np.sum(problem.s > problem.tol * problem.s[0]) + 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tolerance_on_two_hundred_problems_of_the_zoo(seed: int) -> None:
    count, late, wrong, long = judge(low_rank_problems(200, rng=seed))
    assert count == 200
    # at least 99 % of the problems, and the rank on each
    assert late <= 2
    assert wrong <= 2
    assert long == 0


@pytest.mark.parametrize("kind", ["inverse", "exponential", "spiked", "staircase"])
@pytest.mark.parametrize("tol", [0.2, 3e-2])
def test_spectral_tolerance(kind: str, tol: float) -> None:
    A = decaying(130, 110, kind)
    s = np.linalg.svd(A, compute_uv=False)
    result = svd(A, tol=tol, norm="spectral", rng=0)
    true = relative_error(A, result, 2)
    assert result.converged
    assert result.error_norm == "spectral"
    assert true <= tol
    assert true <= result.error_bound + tolerance("float64", A.size)
    assert result.error / 2 <= true <= 2 * result.error
    assert result.rank <= 1.3 * np.sum(s > tol * s[0]) + 5


@pytest.mark.parametrize("tol", [1e-9, 1e-11, 1e-13])
def test_tolerance_below_the_floor_of_the_difference_of_norms(tol: float) -> None:
    """At ||error|| < sqrt(eps) ||A|| the difference of norms reads 0; the probes must certify instead."""
    A = decaying(200, 150, "geometric")
    result = svd(A, tol=tol, rng=0)
    true = relative_error(A, result)
    assert result.converged
    assert result.error_kind == "sketched"
    assert true <= tol
    assert true / 2 <= result.error <= 2 * true
    least = int(np.argmax(2.0 ** -np.arange(150) <= tol))
    assert result.rank <= 1.3 * least + 5


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_keeps_its_promises(dtype: str) -> None:
    for exponent in (-15, 0, 15):
        A = decaying(200, 150, "exponential", dtype) * np.dtype(dtype).type(10.0**exponent)
        for tol in (0.1, 1e-2, 1e-3):
            result = svd(A, tol=tol, rng=0)
            true = relative_error(A.astype(np.complex128), result)
            assert result.converged
            assert true <= tol * (1 + tolerance(dtype, A.size))
            assert true / 2 <= result.error <= 2 * true


def test_rank_limit_is_told_and_kept() -> None:
    A = decaying()
    with pytest.warns(ConvergenceWarning, match="max_rank"):
        result = svd(A, tol=1e-3, max_rank=10, rng=0)
    assert result.status is Status.MAX_ITER
    assert result.rank == 10
    assert result.error == pytest.approx(relative_error(A, result), rel=1e-6)
    assert result.error > 1e-3
    with pytest.raises(ConvergenceError) as caught:
        svd(A, tol=1e-3, max_rank=10, rng=0, on_failure="raise")
    assert caught.value.result.rank == 10


def test_unreachable_tolerance_stagnates_honestly() -> None:
    for A in (decaying(90, 60, "inverse"), decaying(90, 60, "geometric"), decaying(90, 60, "low-rank")):
        result = svd(A, tol=1e-17, rng=0, on_failure="ignore")
        assert result.status is Status.STAGNATED
        assert result.error > 1e-17
        assert relative_error(A, result) <= tolerance("float64", 16 * A.size)
    single = svd(decaying(90, 60, "inverse", "float32"), tol=1e-9, rng=0, on_failure="ignore")
    assert single.status is Status.STAGNATED
    assert single.error > 1e-9


def test_zero_matrix_has_rank_zero() -> None:
    result = svd(np.zeros((30, 20)), tol=0.1, rng=0)
    assert result.converged
    assert result.rank == 0
    assert result.error == 0.0
    assert np.array_equal(result.to_dense(), np.zeros((30, 20)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "options", [{"rank": 5}, {"tol": 0.1}, {"rank": 5, "n_passes": 1}, {"rank": 5, "method": "subspace"}]
)
def test_nonfinite_input_ends_with_a_status(bad: float, options: dict[str, Any]) -> None:
    A = decaying()
    A[17, 3] = bad
    for matrix in (A, sp.csr_array(A)):
        result = svd(matrix, rng=0, on_failure="ignore", **options)
        assert result.status is Status.NONFINITE
        assert not result.converged
        assert math.isnan(result.error)
    with pytest.raises(ConvergenceError, match="non-finite"):
        svd(A, rng=0, on_failure="raise", **options)


def test_operator_that_turns_bad_keeps_the_last_good_state() -> None:
    A, calls = decaying(), []

    class Failing:
        shape, dtype = A.shape, A.dtype

        def matvec(self, x: Any) -> Any:
            return A @ x

        def matmat(self, X: Any) -> Any:
            calls.append(X.shape)
            return A @ X if len(calls) < 2 else np.full((A.shape[0], X.shape[1]), np.nan)

        def rmatmat(self, Y: Any) -> Any:
            return A.T @ Y

    result = svd(Failing(), 5, rng=0, on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert result.rank == 5
    # one product of 9 columns: the mean error is at most sqrt(1 + 5 / 3) of the best (Halko et al., theorem 10.5)
    assert relative_error(A, result) < 1.7 * np.linalg.norm(spectrum("inverse", 80)[5:]) / np.linalg.norm(A)


# --- kinds of matrices ------------------------------------------------------------------------------------------------


def kinds(A: np.ndarray) -> dict[str, Any]:
    return {
        "dense": A,
        "fortran": np.asfortranarray(A),
        "strided": np.repeat(A, 2, axis=1)[:, ::2],
        "csr": sp.csr_array(A),
        "csc": sp.csc_matrix(A),
        "operator": aslinearoperator(A),
        "blocks": RowBlocks(lambda: (A[i : i + 37] for i in range(0, len(A), 37)), A.shape, A.dtype),
        "sparse blocks": RowBlocks(
            lambda: (sp.csr_array(A[i : i + 37]) for i in range(0, len(A), 37)), A.shape, A.dtype
        ),
    }


KINDS = list(kinds(np.ones((2, 2))))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_every_kind_of_matrix(kind: str, dtype: str, center: bool) -> None:
    A = (decaying(100, 40, "inverse-root", dtype) + 0.1).astype(dtype)
    explicit = A - A.mean(axis=0) if center else A
    A_map = as_linear_map(kinds(A)[kind], center=center)
    X = with_spectrum(40, 3, np.ones(3), dtype=dtype, rng=1)
    Y = with_spectrum(100, 3, np.ones(3), dtype=dtype, rng=2)
    bound = tolerance(dtype, A.size, np.linalg.norm(A))
    assert np.linalg.norm(A_map.matmul(X) - explicit @ X) <= bound
    assert np.linalg.norm(A_map.rmatmul(Y) - explicit.conj().T @ Y) <= bound
    # the adjoint identity <A X, Y> = <X, A^* Y>
    assert abs(np.vdot(Y, A_map.matmul(X)) - np.vdot(A_map.rmatmul(Y), X)) <= bound
    turned = AdjointMap(A_map)
    assert np.linalg.norm(turned.matmul(Y) - explicit.conj().T @ Y) <= bound
    if A_map.knows_norm:
        assert A_map.frobenius_squared() == pytest.approx(np.linalg.norm(explicit) ** 2, rel=tolerance(dtype, A.size))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"rank": 8}, {"tol": 0.1}, {"tol": 1e-10}])
def test_svd_of_every_kind_of_matrix(kind: str, options: dict[str, Any], center: bool) -> None:
    A = decaying(150, 60, "exponential" if options.get("tol") != 1e-10 else "geometric") + 0.05 * np.arange(60)
    explicit = A - A.mean(axis=0) if center else A
    result = svd(kinds(A)[kind], center=center, rng=0, **options)
    assert result.converged
    assert (result.mean is not None) == center
    norm = np.linalg.norm(explicit)
    residual = np.linalg.norm(A - result.to_dense()) / norm
    rank = options.get("rank", result.rank)
    s = np.linalg.svd(explicit, compute_uv=False)
    assert residual <= max(1.02 * np.linalg.norm(s[rank:]) / np.linalg.norm(s), options.get("tol", 0.0))
    assert (
        residual / 2
        <= result.error
        <= 2 * residual + tolerance("float64", A.size, np.linalg.norm(A) / np.linalg.norm(explicit))
    )
    assert residual <= result.error_bound * (1 + 1e-6)


@pytest.mark.parametrize("values", [bool, np.int8, np.int64, np.float16])
def test_narrow_types_are_converted_by_blocks(values: Any) -> None:
    A = (10 * decaying(80, 50)).astype(values)
    result = svd(A, 5, rng=0)
    assert result.s.dtype == (np.float32 if values is np.float16 else np.float64)
    exact = np.linalg.svd(A.astype(float), compute_uv=False)[:5]
    assert np.allclose(result.s, exact, rtol=1e-3)  # two Krylov steps on a slowly decaying rounded matrix


def test_memory_map_is_read_in_place(tmp_path: Any) -> None:
    A = decaying(300, 40, "exponential")
    np.save(tmp_path / "A.npy", A)
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    assert np.allclose(svd(mapped, 4, rng=0).s, svd(A, 4, rng=0).s, rtol=tolerance("float64", A.size))


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_namespaces_stay_on_their_device(dtype: str) -> None:
    xp, device = array_api_strict, array_api_strict.Device("device1")
    A = decaying(90, 50, "exponential", dtype)
    B = xp.asarray(A, device=device)
    for options in (
        {"rank": 6},
        {"tol": 1e-1},
        {"rank": 6, "n_passes": 1},
        {"rank": 6, "center": True},
        {"rank": 3, "norm": "spectral"},
    ):
        there, here = svd(B, rng=0, **options), svd(A, rng=0, **options)
        assert all(factor.device == device for factor in there)
        assert there.rank == here.rank
        assert np.allclose(to_host(there.s), here.s, rtol=0, atol=tolerance(dtype, 64 * A.size))
        assert there.error == pytest.approx(here.error, rel=1e-2)
        assert there.to_dense().device == device
    assert range_finder(B, 4, rng=0).Q.device == device
    assert eigh(xp.asarray(A[:50].conj().T @ A[:50], device=device), 3, rng=0).V.device == device


def test_signs_do_not_depend_on_the_kind_of_matrix() -> None:
    A = decaying(90, 50, "geometric")
    reference = svd(A, 4, rng=0)
    for matrix in kinds(A).values():
        # values halve, so ten more columns and two steps leave 2**-50
        assert np.allclose(svd(matrix, 4, rng=1).Vh, reference.Vh, atol=tolerance("float64", 64 * A.size))


# --- costs ------------------------------------------------------------------------------------------------------------


class CountingOperator:
    """A linear operator that counts the columns it meets."""

    def __init__(self, A: np.ndarray) -> None:
        self.A, self.shape, self.dtype, self.columns, self.calls = A, A.shape, A.dtype, 0, 0

    def matvec(self, x: np.ndarray) -> np.ndarray:
        return self.matmat(x[:, None])[:, 0]

    def matmat(self, X: np.ndarray) -> np.ndarray:
        self.columns, self.calls = self.columns + X.shape[1], self.calls + 1
        return self.A @ X

    def rmatmat(self, Y: np.ndarray) -> np.ndarray:
        self.columns, self.calls = self.columns + Y.shape[1], self.calls + 1
        return self.A.conj().T @ Y


@pytest.mark.parametrize(
    "options", [{"rank": 5}, {"tol": 0.1}, {"rank": 5, "center": True}, {"rank": 5, "norm": "spectral"}]
)
def test_counters_tell_the_truth(options: dict[str, Any]) -> None:
    A = decaying()
    operator = CountingOperator(A)
    result = svd(operator, rng=0, **options)
    assert (result.n_passes, result.n_matvecs) == (operator.calls, operator.columns)
    source = RowBlocks.from_array(A, block_bytes=5000)
    result = svd(source, rng=0, **options)
    assert result.n_passes == source.n_passes


@pytest.mark.parametrize("n_passes", [1, 2, 3, 4, 5, 6, 9])
def test_passes_are_bounded(n_passes: int) -> None:
    A = decaying()
    source = RowBlocks.from_array(A, block_bytes=5000)
    result = svd(source, 10, n_passes=n_passes, rng=0)
    assert source.n_passes == result.n_passes <= n_passes
    best = np.linalg.norm(spectrum("inverse", 80)[10:]) / np.linalg.norm(A)
    # more passes, less excess: the single view may take twice the optimum, two passes 1.3 of it
    assert relative_error(A, result) <= {1: 2.0, 2: 1.3}.get(n_passes, 1.1) * best
    source.n_passes = 0
    limited = svd(source, tol=1e-3, n_passes=max(n_passes, 2), rng=0, on_failure="ignore")
    assert source.n_passes == limited.n_passes <= max(n_passes, 2)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("n_passes", [3, 4, 5])
def test_passes_of_the_range_finder_are_bounded(n_passes: int, center: bool) -> None:
    source = RowBlocks.from_array(decaying(), block_bytes=5000)
    result = range_finder(source, 10, n_passes=n_passes, center=center, rng=0)
    assert source.n_passes == result.n_passes <= n_passes
    operator = CountingOperator(decaying())
    assert svd(operator, 10, n_passes=n_passes, center=center, rng=0).n_passes == operator.calls <= n_passes


def test_default_cost_for_a_rank() -> None:
    result = svd(decaying(400, 300), 20, rng=0)
    assert result.n_passes == 6  # a sketch and five products
    assert result.n_matvecs == 4 * 24 + 5 * 24


# --- single view ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("make", ["array", "iterator", "sparse iterator", "blocks"])
def test_single_view_of_any_source(make: str, center: bool) -> None:
    A = decaying(300, 120, "exponential") + 0.02
    rows = range(0, 300, 41)
    source = {
        "array": A,
        "iterator": (A[i : i + 41] for i in rows),
        "sparse iterator": (sp.csr_array(A[i : i + 41]) for i in rows),
        "blocks": RowBlocks.from_array(A, block_bytes=9000),
    }[make]
    result = svd(source, 8, n_passes=1, center=center, rng=0)
    explicit = A - A.mean(axis=0) if center else A
    residual = np.linalg.norm(A - result.to_dense()) / np.linalg.norm(explicit)
    best = np.linalg.norm(np.linalg.svd(explicit, compute_uv=False)[8:]) / np.linalg.norm(explicit)
    assert result.n_passes == 1
    assert residual <= 1.5 * best  # Tropp et al. 2019 report a few per cent with these sizes
    low, high = (math.sqrt(x / PROBES) for x in chi_square_interval(PROBES))
    assert low * residual <= result.error <= high * residual
    check_is_svd(A, result)


def test_single_view_of_a_flat_spectrum_says_that_it_is_worthless() -> None:
    A = sp.random_array((2000, 1500), density=0.01, rng=np.random.default_rng(0), format="csr")
    A.data -= A.data.mean()
    result = svd(A, 20, n_passes=1, rng=0, on_failure="ignore")
    assert np.linalg.norm(A.toarray() - result.to_dense()) > np.linalg.norm(A.data)
    assert result.status is Status.BREAKDOWN
    with pytest.warns(ConvergenceWarning, match="more passes"):
        svd(A, 20, n_passes=1, rng=0)


def test_partition_of_the_rows_does_not_matter() -> None:
    A = decaying(200, 60)
    whole = svd(A, 5, n_passes=1, rng=0)
    parts = svd(iter([A[:1], A[1:90], A[90:90], A[90:]]), 5, n_passes=1, rng=0)
    assert np.allclose(whole.to_dense(), parts.to_dense(), atol=tolerance("float64", 64 * A.size))


# --- range finder and eigenvalues -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{"rank": 9}, {"tol": 0.05}, {"tol": 0.05, "norm": "spectral"}])
def test_range_finder_tells_the_error_of_its_projection(options: dict[str, Any], dtype: str) -> None:
    A = decaying(140, 90, "inverse", dtype)
    for matrix in (A, sp.csr_array(A), aslinearoperator(A), RowBlocks.from_array(A, block_bytes=9999)):
        result = range_finder(matrix, rng=0, **options)
        (Q,) = result
        order = 2 if "norm" in options else "fro"
        true = np.linalg.norm(A - Q @ (Q.conj().T @ A), order) / np.linalg.norm(A, order)
        assert orthogonality(Q) <= tolerance(dtype, Q.size)
        assert true / 2 <= result.error <= 2 * true
        assert true <= options.get("tol", 1.0)
        assert np.linalg.norm(np.linalg.norm(Q.conj().T @ A, axis=1) - result.s) <= tolerance(dtype, A.size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenvalues_of_largest_modulus(dtype: str) -> None:
    V = np.linalg.qr(decaying(80, 80, "flat", dtype))[0]
    w = spectrum("exponential", 80) * (-1.0) ** np.arange(80)
    A = ((V * w) @ V.conj().T).astype(dtype)
    A = (A + A.conj().T) / 2
    for matrix in (A, sp.csr_array(A), aslinearoperator(A)):
        result = eigh(matrix, 10, n_power_iter=4, rng=0)
        assert result.w.dtype == A.real.dtype
        assert orthogonality(result.V) <= tolerance(dtype, 800)
        assert np.allclose(result.w, w[:10], atol=1e-4)  # gaps of 5 % and four steps
        true = relative_error(A, result)
        assert true <= 1.01 * np.linalg.norm(w[10:]) / np.linalg.norm(w)
        assert true / 2 <= result.error <= 2 * true
        assert np.all(np.take_along_axis(result.V, np.argmax(np.abs(result.V), axis=0)[None], axis=0).real > 0)


def test_eigh_of_projectors_zeros_and_small_matrices() -> None:
    P = np.diag([1.0] * 30 + [0.0] * 20)
    assert np.allclose(eigh(P, 25, n_oversamples=0, rng=0).w, 1.0)
    assert np.array_equal(eigh(np.zeros((5, 5)), 2, rng=0).w, np.zeros(2))
    assert eigh(np.array([[3.0]]), 1, rng=0).w.tolist() == pytest.approx([3.0])
    assert eigh(np.zeros((0, 0)), 0).V.shape == (0, 0)
    low = np.outer(np.arange(6.0), np.arange(6.0))
    assert orthogonality(eigh(low, 4, rng=0).V) <= tolerance("float64", 24)


def test_eigh_refuses_what_is_not_symmetric() -> None:
    A = decaying(40, 40)
    with pytest.raises(ValueError, match=r"A must be symmetric .* pass \(A \+ A.conj\(\).T\) / 2"):
        eigh(A, 3, rng=0)
    with pytest.raises(ValueError, match="square"):
        eigh(A[:30], 3)
    result = eigh(np.full((6, 6), np.nan), 2, rng=0, on_failure="ignore")
    assert result.status is Status.NONFINITE


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_result_acts_as_its_dense_form(dtype: str, center: bool) -> None:
    A = decaying(40, 30, "exponential", dtype) + 0.1
    result = svd(A, 5, center=center, rng=0)
    D, X, Y = result.to_dense(), decaying(30, 4, dtype=dtype), decaying(40, 4, dtype=dtype)
    bound = tolerance(dtype, A.size, np.linalg.norm(A))
    assert np.linalg.norm(result.matmul(X) - D @ X) <= bound
    assert np.linalg.norm(result.matmul(X[:, 0]) - D @ X[:, 0]) <= bound
    assert np.linalg.norm(result.rmatmul(Y) - D.conj().T @ Y) <= bound
    assert np.linalg.norm(result.rmatmul(Y[:, 0]) - D.conj().T @ Y[:, 0]) <= bound
    assert np.linalg.norm(result.diagonal() - np.diagonal(D)) <= bound
    assert abs(result.trace() - np.trace(D)) <= bound
    assert result.shape == A.shape
    assert "\n" not in repr(result)


def test_error_estimate_of_a_result() -> None:
    A = decaying()
    low, high = (math.sqrt(x / PROBES) for x in chi_square_interval(PROBES, 1e-3))
    result, outside = svd(A, 8, rng=0), 0
    for seed in range(40):
        ratio = result.error_estimate(A, rng=seed) / result.error
        outside += not low * 0.9 <= ratio <= high * 1.1  # 0.9, 1.1: the norm of A comes from the same probes
    assert outside <= binomial_upper(40, 1e-3)
    centred = svd(A + 3.0, 8, center=True, rng=0)
    assert centred.error_estimate(A + 3.0, rng=0) == pytest.approx(centred.error, rel=1.0)


def test_probe_bound_holds_as_often_as_it_says() -> None:
    """A residual of rank one is the worst case: its estimate is a chi-square variable."""
    A = with_spectrum(50, 40, np.where(np.arange(40) < 6, [1e-4 if j == 5 else 1.0 for j in range(40)], 0.0), rng=0)
    operator, missed = aslinearoperator(A), 0
    for seed in range(100):
        result = svd(operator, 5, rng=seed)
        missed += not relative_error(A, result) <= result.error_bound
    assert missed <= binomial_upper(100, 1 - result.confidence)


def test_factors_of_the_bounds() -> None:
    assert probe_factor(20, 0.99) == pytest.approx(math.sqrt(20 / 8.2604), rel=1e-4)  # chi-square table
    assert lanczos_factor(1000, 1, 1) == math.inf
    assert 1.0 < lanczos_factor(10_000, 5, 10) < 1.4
    assert lanczos_factor(10_000, 20, 10) < lanczos_factor(10_000, 5, 10)


def test_callback_sees_progress_and_can_stop() -> None:
    A, steps = decaying(300, 200, "inverse-root"), []
    result = svd(A, tol=0.3, rng=0, callback=steps.append)
    assert [step.n_iter for step in steps] == list(range(1, len(steps) + 1))
    assert [step.error for step in steps] == list(result.history)
    assert all(a.rank < b.rank and a.error >= b.error for a, b in itertools.pairwise(steps))
    stopped = svd(A, tol=1e-3, rng=0, callback=lambda step: step.rank >= 60, on_failure="ignore")
    assert stopped.status is Status.MAX_ITER
    assert stopped.rank >= 60
    assert stopped.error == pytest.approx(relative_error(A, stopped), rel=1e-6)
    early = svd(A, 10, rng=0, callback=lambda step: True, on_failure="ignore")
    assert early.status is Status.MAX_ITER
    assert early.n_iter == 1
    assert eigh(A[:200] @ A[:200].T, 5, rng=0, callback=lambda step: True, on_failure="ignore").n_iter == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {}, ValueError, "exactly one of rank and tol"),
        ((3,), {"tol": 0.1}, ValueError, "got both"),
        ((41,), {}, ValueError, r"rank must be in \[0, 40\], got 41"),
        ((-1,), {}, ValueError, "rank must be"),
        ((2.5,), {}, TypeError, "rank must be an integer"),
        ((), {"tol": 0.0}, ValueError, "tol must be"),
        ((), {"tol": math.nan}, ValueError, "tol must be"),
        ((), {"tol": "small"}, TypeError, "tol must be a real number"),
        ((3,), {"norm": "nuclear"}, ValueError, "norm must be one of"),
        ((3,), {"method": "lanczos"}, ValueError, "method must be one of"),
        ((3,), {"n_oversamples": -1}, ValueError, "n_oversamples"),
        ((3,), {"n_power_iter": -1}, ValueError, "n_power_iter"),
        ((3,), {"n_passes": 0}, ValueError, "n_passes"),
        ((), {"tol": 0.1, "n_passes": 1}, ValueError, r"n_passes must be at least 2, got 1; .*single view"),
        ((3,), {"n_passes": 4, "norm": "spectral"}, ValueError, "n_passes must be None"),
        ((3,), {"max_rank": 5}, ValueError, "max_rank must be None"),
        ((30,), {"block_size": 2}, ValueError, "block_size must be at least 10"),
        ((3,), {"rng": "seed"}, TypeError, "rng must be"),
        ((3,), {"on_failure": "shout"}, ValueError, "on_failure must be"),
    ],
)
def test_parameters_are_checked(arguments: tuple[Any, ...], options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        svd(np.ones((50, 40)), *arguments, **options)


def test_matrices_are_checked() -> None:
    with pytest.raises(TypeError, match="n_passes=1"):
        svd(iter([np.ones((3, 3))]), 1)
    with pytest.raises(ValueError, match="at least 2 for a linear operator"):
        svd(aslinearoperator(np.ones((4, 4))), 1, n_passes=1)
    with pytest.raises(ValueError, match="at least one block"):
        svd(iter([]), 1, n_passes=1)
    with pytest.raises(ValueError, match="must have 3 columns"):
        svd(iter([np.ones((3, 3)), np.ones((3, 4))]), 1, n_passes=1)
    with pytest.raises(ValueError, match="rank must be"):
        svd(np.zeros((0, 5)), 1)
    for matrix in (np.ones(3), [[1, 2], [3]]):
        with pytest.raises(ValueError, match="A must be"):
            svd(matrix, 1)
    for matrix in ("text", np.array([["a"]]), None):
        with pytest.raises(TypeError, match="A must"):
            svd(matrix, 1)


def test_sparse_products_meet_scipy() -> None:
    A = sparse_matrix(2000, 700, 9000, skew=2.0, rng=0)
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:10]
    # a nearly flat spectrum: the Krylov space gains with every step, subspace iteration slowly
    assert np.allclose(svd(A, 10, method="krylov", n_power_iter=10, rng=0).s, exact, rtol=1e-4)
    assert np.allclose(svd(A, 10, method="subspace", n_power_iter=10, rng=0).s, exact, rtol=2e-2)


def test_products_of_results_check_their_operand() -> None:
    A = decaying(30, 20, "exponential")
    for result in (svd(A, 3, rng=0), eigh(A.T @ A, 3, rng=0)):
        with pytest.raises(ValueError, match="X must have 20 rows"):
            result.matmul(np.ones(7))
        with pytest.raises(ValueError, match="the result and X must live in one array library"):
            result.matmul(array_api_strict.ones((20, 2)))
        with pytest.raises(TypeError, match="X must have a real or complex numeric dtype"):
            result.matmul(np.array(["a"] * 20))
