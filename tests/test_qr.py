"""Cholesky QR and triangular factors: orthonormal at any condition number, ranks, storages, namespaces, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from randla import RowBlocks, as_key
from randla._arrays import eps, to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.datasets import with_spectrum
from randla.qr import NonfiniteMatrixError, cholesky_qr, triangular_factor
from randla.triangular import cholesky, leading_factor, spectral

from .conftest import tolerance

DTYPES = ["float32", "float64", "complex64", "complex128"]


def graded(
    m: int, n: int, condition: float, dtype: str = "float64", coherence: str = "low", rng: int = 0
) -> np.ndarray:
    s = np.logspace(0, -math.log10(condition), n)
    return with_spectrum(m, n, s, dtype=dtype, coherence=coherence, rng=0)


def orthogonality(Q: np.ndarray) -> float:
    return float(np.linalg.norm(Q.conj().T @ Q - np.eye(Q.shape[1])))


def residual(A: np.ndarray, result: Any) -> float:
    Q, R, pivots = result
    ordered = A if pivots is None else A[:, pivots]
    return float(np.linalg.norm(ordered - Q @ R) / np.linalg.norm(A))


def check_is_qr(A: np.ndarray, result: Any) -> None:
    """Shapes, dtype, an upper triangle with a positive diagonal, orthonormal columns, and A again."""
    Q, R, pivots = result
    (m, n), r = A.shape, result.rank
    assert Q.shape == (m, r)
    assert R.shape == (r, n)
    assert Q.dtype == R.dtype == A.dtype
    assert np.array_equal(R, np.triu(R))
    assert np.all(np.diagonal(R).real > 0)
    assert np.all(np.abs(np.diagonal(R).imag) <= tolerance(A.dtype, n, np.abs(R).max()))
    assert pivots is None or sorted(pivots) == list(range(n))
    assert orthogonality(Q) <= tolerance(A.dtype, m * max(1, r))


# --- the factorisation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pivoting", [False, True])
@pytest.mark.parametrize("condition", [1e4, 1e7, 1e10, 1e14, 1e16])
def test_table_of_conditions(condition: float, pivoting: bool) -> None:
    """20,000 x 100: rounding-level orthogonality at every condition number, and the rank where it is below n."""
    A = graded(20_000, 100, condition)
    result = cholesky_qr(A, pivoting=pivoting, on_failure="ignore", rng=1)
    assert np.linalg.norm(result.Q.T @ result.Q - np.eye(result.rank), 2) <= 8e-15  # the spec has 1.9e-15 to 8e-15
    cut = 2 * eps("float64") ** 0.95
    if condition <= 1e14:
        assert result.rank == 100
        assert result.status is Status.CONVERGED
        assert residual(A, result) <= tolerance("float64", 100) / 8
        assert result.condition == pytest.approx(condition, rel=0.05)
    else:
        # singular values 10**(-16 j / 99): 91 lie above the cut, and pivots of a full matrix run up to 10 times higher
        assert 91 <= result.rank < 100
        assert result.status is (Status.CONVERGED if pivoting else Status.BREAKDOWN)
        assert result.pivots is not None
        assert residual(A, result) <= 10 * cut


@pytest.mark.parametrize("condition", [1e10, 1e16])
def test_pivots_are_as_good_as_those_of_householder(condition: float) -> None:
    """Norms of trailing blocks within 0.5 to 2 of those of GEQP3 on the whole matrix (measured 0.79 to 1.13)."""
    A = graded(5_000, 60, condition)
    R = cholesky_qr(A, pivoting=True, rng=0).R
    exact = scipy.linalg.qr(A, mode="r", pivoting=True)[0][:60]
    for k in (0, 10, 30, 50):
        assert 0.5 <= np.linalg.norm(R[k:, k:]) / np.linalg.norm(exact[k:, k:]) <= 2.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pivoting", [False, True])
@pytest.mark.parametrize("shape", [(500, 20), (37, 20), (20, 20), (300, 1), (1, 1)])
def test_defining_properties(shape: tuple[int, int], pivoting: bool, dtype: str) -> None:
    A = graded(*shape, 100.0, dtype)
    before = A.copy()
    result = cholesky_qr(A, pivoting=pivoting, rng=0)
    assert np.array_equal(A, before)
    check_is_qr(A, result)
    assert result.rank == shape[1]
    assert (result.pivots is None) == (not pivoting)
    assert residual(A, result) <= tolerance(dtype, shape[1])
    # Householder QR with a positive diagonal is unique
    exact = np.linalg.qr(A if result.pivots is None else A[:, result.pivots])[1]
    turn = np.conj(np.diagonal(exact)) / np.abs(np.diagonal(exact))
    assert np.linalg.norm(result.R - turn[:, None] * exact) <= tolerance(dtype, A.size, 100.0 * np.linalg.norm(A))


@pytest.mark.parametrize("coherence", ["low", "high"])
@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e20, 1e200])
def test_scales_and_coherence(scale: float, coherence: str) -> None:
    A = graded(2_000, 30, 1e9, coherence=coherence) * scale
    result = cholesky_qr(A, rng=0)
    check_is_qr(A, result)
    assert residual(A / scale, (result.Q, result.R / scale, None)) <= tolerance("float64", 30)


def test_badly_scaled_columns_are_not_a_rank() -> None:
    A = graded(1_000, 12, 10.0) * np.logspace(-60, 60, 12)
    result = cholesky_qr(A, rng=0)
    check_is_qr(A, result)
    assert result.rank == 12
    for j in range(12):
        error = np.linalg.norm(A[:, j] - result.Q @ result.R[:, j])
        assert error <= tolerance("float64", 12, np.linalg.norm(A[:, j]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dependent_columns(dtype: str) -> None:
    A = with_spectrum(400, 16, np.where(np.arange(16) < 9, 1.0, 0.0), dtype=dtype, rng=0)
    result = cholesky_qr(A, pivoting=True, rng=0)
    check_is_qr(A, result)
    assert result.rank == 9
    assert residual(A, result) <= 4 * 400**0.5 * eps(dtype) ** 0.95
    with pytest.warns(ConvergenceWarning, match="BREAKDOWN"):
        switched = cholesky_qr(A, rng=0)
    assert switched.rank == 9
    assert switched.pivots is not None
    with pytest.raises(ConvergenceError):
        cholesky_qr(A, on_failure="raise", rng=0)


def test_copies_and_zero_columns_are_dropped() -> None:
    A = graded(300, 6, 10.0)
    A = np.hstack([A, A[:, :2], np.zeros((300, 2))])
    result = cholesky_qr(A, pivoting=True, rng=0)
    assert result.rank == 6
    assert residual(A, result) <= tolerance("float64", 10)
    assert cholesky_qr(np.zeros((50, 3)), pivoting=True, rng=0).rank == 0
    assert not cholesky_qr(np.zeros((50, 3)), on_failure="ignore", rng=0).converged


def test_tolerance_sets_the_rank() -> None:
    A = graded(2_000, 40, 1e8)
    for tol in (1e-2, 1e-4, 1e-6):
        result = cholesky_qr(A, pivoting=True, tol=tol, rng=0)
        pivots = np.abs(np.diagonal(scipy.linalg.qr(A, mode="r", pivoting=True)[0]))
        wanted = np.sum(pivots > tol * pivots[0])
        assert abs(result.rank - wanted) <= 3  # the pivots of a sketch are those of A within a factor of two or so
        assert residual(A, result) <= 10 * tol


def test_wide_matrices_need_pivoting() -> None:
    A = graded(20, 20, 10.0)[:7]
    result = cholesky_qr(A, pivoting=True, rng=0)
    check_is_qr(A, result)
    assert result.rank == 7
    assert residual(A, result) <= tolerance("float64", 20)
    with pytest.raises(ValueError, match=r"A must have at least as many rows as columns, got shape \(7, 20\)"):
        cholesky_qr(A)


@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (0, 4)])
def test_empty(shape: tuple[int, int]) -> None:
    Q, R, _ = cholesky_qr(np.ones(shape), pivoting=True)
    assert Q.shape == (shape[0], 0)
    assert R.shape == (0, shape[1])


@pytest.mark.parametrize("kind", ["csr", "csc", "fortran", "strided", "blocks", "integers", "list"])
def test_storages(kind: str, generator: np.random.Generator) -> None:
    A = np.where(generator.random((900, 8)) < 0.6, generator.integers(-9, 10, (900, 8)), 0)
    dense = A.astype(np.float64)
    wide = np.zeros((1800, 8))
    wide[::2] = dense
    source: Any = {
        "csr": lambda: sp.csr_array(dense), "csc": lambda: sp.csc_array(dense),
        "fortran": lambda: np.asfortranarray(dense),
        "strided": lambda: wide[::2], "blocks": lambda: RowBlocks.from_array(dense, block_bytes=5000),
        "integers": lambda: A, "list": lambda: A.tolist(),
    }[kind]()  # fmt: skip
    result, plain = cholesky_qr(source, rng=3), cholesky_qr(dense, rng=3)
    assert residual(dense, result) <= tolerance("float64", 8)
    assert np.linalg.norm(result.R - plain.R) <= tolerance("float64", 900, np.linalg.norm(dense))


def test_namespaces_agree(xp: Any, put: Any) -> None:
    for A, pivoting in (
        (graded(600, 10, 1e6), False),
        (graded(600, 10, 1e6), True),
        (np.tile(np.eye(4), (9, 3)), True),
    ):
        result, plain = cholesky_qr(put(A), pivoting=pivoting, rng=0), cholesky_qr(A, pivoting=pivoting, rng=0)
        Q, R, pivots = (None if part is None else to_host(part) for part in result)
        assert result.rank == plain.rank
        assert orthogonality(Q) <= tolerance("float64", Q.size)
        assert residual(A, (Q, R, pivots)) <= tolerance("float64", 10)
        if A.shape[1] == 10:  # the copies of a column are as good as each other
            assert np.linalg.norm(R - plain.R) <= tolerance("float64", A.size, 1e6 * np.linalg.norm(A))


def test_the_estimate_is_the_loss_of_orthogonality() -> None:
    result = cholesky_qr(graded(4_000, 50, 1e10), rng=0)
    assert 0.5 <= result.orthogonality / orthogonality(result.Q) <= 2.0


def test_a_sketch_that_misses_heavy_rows_is_made_good() -> None:
    """One row of the sketch for a column cannot hold coherent data: the first Gram matrix is bad, the result is not."""
    A = graded(3_000, 30, 1e6, coherence="high")
    for key in range(4):
        result = cholesky_qr(A, sketch_size=30, rng=key)
        assert orthogonality(result.Q) <= tolerance("float64", A.size)
        assert residual(A, result) <= tolerance("float64", 30, 10.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**20))
def test_any_shape_and_rank(m: int, n: int, rank: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    r = min(m, n, rank)
    A = generator.standard_normal((m, r)) @ generator.standard_normal((r, n))
    result = cholesky_qr(A, pivoting=True, rng=seed)
    assert result.rank <= min(m, n)
    assert residual(A, result) <= 1e-12 if r else result.rank == 0
    assert orthogonality(result.Q) <= tolerance("float64", m * n)


# --- triangular factors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coherence", ["low", "high"])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12, 1e14])
def test_factor_makes_the_columns_orthonormal(condition: float, coherence: str) -> None:
    A = graded(4_000, 40, condition, coherence=coherence)
    factor = triangular_factor(A, key=as_key(0))
    assert factor.rank == 40
    assert factor.pivots is None
    assert factor.condition == pytest.approx(condition, rel=0.05)
    # one product is off by the condition number; two are not, as far as blocks of rows round alike
    assert orthogonality(A @ factor.inverse) <= condition * tolerance("float64", 40)
    blocks = [(A[lo : lo + 1638] @ factor.first) @ factor.second for lo in range(0, 4_000, 1638)]
    assert orthogonality(np.vstack(blocks)) <= tolerance("float64", A.size)
    assert np.linalg.norm(factor.R.T @ factor.R - A.T @ A) <= tolerance("float64", 40, np.linalg.norm(A) ** 2)
    s = np.linalg.svd(factor.R, compute_uv=False)
    assert s[0] / s[-1] == pytest.approx(condition, rel=0.05)


@pytest.mark.parametrize("kind", ["dense", "csr", "blocks", "operator", "small"])
def test_weighted_factor(kind: str, generator: np.random.Generator) -> None:
    A = graded(60 if kind == "small" else 3_000, 10, 1e3)
    weights = generator.random(A.shape[0]) ** 4
    weights[:20] = 0.0
    exact = np.linalg.qr(np.sqrt(weights)[:, None] * A)[1]
    exact *= np.sign(np.diagonal(exact))[:, None]
    source = {"csr": sp.csr_array, "blocks": RowBlocks.from_array, "operator": aslinearoperator}.get(kind, np.asarray)(
        A
    )
    factor = triangular_factor(source, key=as_key(0), weights=weights)
    assert np.linalg.norm(factor.R - exact) <= tolerance("float64", A.size, 1e3 * np.linalg.norm(exact))


def test_factor_of_dependent_columns(xp: Any, put: Any) -> None:
    A = with_spectrum(2_000, 12, np.where(np.arange(12) < 5, 1.0, 0.0), rng=0)
    factor = triangular_factor(put(A), key=as_key(0))
    assert factor.rank == 5
    R, pivots, inverse = (to_host(part) for part in (factor.R, factor.pivots, factor.inverse))
    assert np.array_equal(R, np.triu(R))
    Q = A @ inverse
    assert orthogonality(Q) <= tolerance("float64", Q.size)
    assert np.linalg.norm(A[:, pivots] - Q @ R) <= 1e-13 * np.linalg.norm(A)
    assert triangular_factor(put(0.0 * A), key=as_key(0)).rank == 0


def test_single_precision_at_the_end_of_its_range() -> None:
    A = graded(2_000, 8, 1e3, "float32") * np.float32(1e-34)
    factor = triangular_factor(A, key=as_key(0))
    assert orthogonality(A.astype(np.float64) @ factor.inverse) <= 1e3 * tolerance("float32", 8)


def test_the_rank_of_noise_is_lowered() -> None:
    """With no tolerance a sketch keeps columns that hold rounding only; the Gram matrix says so."""
    A = with_spectrum(3_000, 12, np.where(np.arange(12) < 5, 1.0, 0.0), rng=0)
    result = cholesky_qr(A, pivoting=True, tol=0.0, rng=0)
    assert 5 <= result.rank <= 12
    assert orthogonality(result.Q) <= tolerance("float64", A.size)


def test_small_tools() -> None:
    M = graded(30, 30, 1e5)
    assert spectral(M) == pytest.approx(np.linalg.norm(M, 2), rel=0.05)
    assert cholesky(-np.eye(3)) is None
    assert cholesky(np.full((2, 2), np.nan)) is None
    R = cholesky(M.T @ M + np.eye(30))
    assert np.linalg.norm(R.T @ R - M.T @ M - np.eye(30)) <= tolerance("float64", 900, 6.0)
    start = leading_factor(M, 1e-13)
    assert np.linalg.norm(M @ start.first @ start.R - M) <= 1e5 * tolerance("float64", 30)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("m", [30, 5_000])
def test_nonfinite(bad: float, m: int) -> None:
    A = graded(m, 5, 10.0)
    A[m // 2, 2] = bad
    result = cholesky_qr(A, on_failure="ignore", rng=0)
    assert result.status is Status.NONFINITE
    assert result.Q.shape == (m, 0)
    for source in (A, sp.csr_array(A)):
        with pytest.raises(NonfiniteMatrixError, match="A must be finite"):
            triangular_factor(source, key=as_key(0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tol": -1.0}, ValueError, r"tol must be finite and in \[0, 1\)"),
        ({"tol": "small"}, TypeError, "tol must be a real number"),
        ({"sketch_size": 2}, ValueError, "sketch_size must be at least 5, got 2"),
        ({"sketch_size": 7.5}, TypeError, "sketch_size must be an integer"),
        ({"on_failure": "explode"}, ValueError, "on_failure must be one of"),
        ({"rng": -1}, ValueError, "rng must be a non-negative integer"),
    ],
)
def test_bad_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cholesky_qr(np.ones((40, 5)), **arguments)


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.ones(4), ValueError, "A must be 2-D"),
        (np.array([["a"]]), TypeError, "A must have a real or complex numeric dtype"),
        (aslinearoperator(np.eye(5)), TypeError, "got a linear operator"),
        (iter([np.eye(2)]), TypeError, "A must be readable more than once"),
    ],
)
def test_bad_matrices(A: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cholesky_qr(A)


def test_repr_is_one_line() -> None:
    text = repr(cholesky_qr(np.eye(30)[:, :3], rng=0))
    assert text.startswith("QRResult(Q: numpy float64 (30, 3), R: numpy float64 (3, 3), pivots=None, rank=3")
    assert "\n" not in text
