"""Two-sided factorizations: their products, forms and replacements, the core of each named special case, projectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import randla
from randla import RowBlocks, as_key
from randla._arrays import eps, to_host
from randla._results import ConvergenceWarning, Status
from randla.datasets import with_spectrum
from randla.linear_maps import as_linear_map
from randla.lowrank.cur import cur
from randla.lowrank.nystrom import nystrom
from randla.lowrank.projectors import ObliqueProjector, TwoSidedFactorization, as_two_sided, core_matrix

from .conftest import tolerance


def panel(m: int, k: int, seed: int = 0, dtype: Any = "float64") -> np.ndarray:
    rng = np.random.default_rng([m, k, seed])
    table = rng.standard_normal((m, k))
    if np.dtype(dtype).kind == "c":
        table = table + 1j * rng.standard_normal((m, k))
    return table.astype(dtype)


def factors(dtype: Any = "float64", m: int = 40, n: int = 30, k: int = 5, width: int = 4) -> tuple[np.ndarray, ...]:
    return panel(m, k, 1, dtype), panel(k, width, 2, dtype), panel(n, width, 3, dtype)


def close(X: Any, Y: Any, dtype: Any, size: int = 40, norm: float | None = None) -> bool:
    X, Y = np.asarray(X), np.asarray(Y)
    norm = float(np.linalg.norm(Y)) if norm is None else norm
    return X.shape == Y.shape and float(np.linalg.norm(X - Y)) <= tolerance(dtype, size, norm)


def decaying(m: int, n: int, s: np.ndarray, dtype: Any = "float64", rng: int = 0) -> np.ndarray:
    """A matrix with the singular values s, and zeros."""
    return with_spectrum(m, n, np.pad(s, (0, min(m, n) - s.shape[0])), dtype=dtype, rng=rng)


def smooth(m: int = 60, n: int = 50) -> np.ndarray:
    """A matrix whose singular values fall by a factor of about 8."""
    return 1 / (1 + np.linspace(0, 1, m)[:, None] + np.linspace(0, 1, n)[None, :])


# --- products, parts and forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["dense", "sparse", "mixed"])
def test_products_and_parts(any_dtype: str, stored: str) -> None:
    F, G, H = factors(any_dtype)
    D = F @ G @ H.conj().T
    left = sp.csr_array(F) if stored != "dense" else F
    right = sp.coo_array(H) if stored == "sparse" else H
    result = TwoSidedFactorization(left, G, right)
    assert result.shape == (40, 30)
    assert result.rank == 4
    assert result.dtype == F.dtype
    X, Y = panel(30, 3, 4, any_dtype), panel(40, 2, 5, any_dtype)
    size, norm = 400, float(np.linalg.norm(D))
    assert close(result.matmul(X), D @ X, any_dtype, size, norm * np.linalg.norm(X))
    assert close(result.matvec(X[:, 0]), D @ X[:, 0], any_dtype, size, norm * np.linalg.norm(X))
    assert close(result.rmatmul(Y), D.conj().T @ Y, any_dtype, size, norm * np.linalg.norm(Y))
    assert close(result.rmatvec(Y[:, 0]), D.conj().T @ Y[:, 0], any_dtype, size, norm * np.linalg.norm(Y))
    assert close(result.rows([3, 0, 3]), D[[3, 0, 3]], any_dtype, size, norm)
    assert close(result.rows(7), D[7], any_dtype, size, norm)
    assert close(result.columns(np.array([29, 1])), D[:, [29, 1]], any_dtype, size, norm)
    assert close(result.columns(2), D[:, 2], any_dtype, size, norm)
    assert close(result.entries([0, 39], [5, 29]), D[[0, 39], [5, 29]], any_dtype, size, norm)
    assert close(result.entries(4, 6), D[4, 6], any_dtype, size, norm)
    assert close(result.diagonal(), np.diagonal(D), any_dtype, size, norm)
    assert close(result.trace(), np.trace(D[:30]), any_dtype, size, norm)
    assert close(result.to_dense(), D, any_dtype, size)
    assert result.to_dense().dtype == D.dtype
    assert result.rows([]).shape == (0, 30)


def test_dtypes_may_differ() -> None:
    """A real sparse factor meets complex vectors, and a core in double precision single-precision bases."""
    F, G, H = factors("float32")
    result = TwoSidedFactorization(sp.csr_array(F), G.astype("float64"), H)
    D = F @ G @ H.T
    X = panel(30, 2, 4, "complex64")
    assert result.dtype == np.float32
    assert close(result.matmul(X), D @ X, "complex64", 400)
    assert result.matmul(X).dtype == np.complex64
    assert result.matmul(X.real).dtype == np.float32
    turned = TwoSidedFactorization(F, G + 1j, H)
    assert turned.dtype == np.complex64
    assert close(turned.to_dense(), F @ (G + 1j) @ H.T, "complex64", 400)
    assert close(turned.entries([1], [2]), (F @ (G + 1j) @ H.T)[[1], [2]], "complex64", 400, np.linalg.norm(D))


def test_divisors_are_solved_with() -> None:
    """``F P^-1 G T^-* H^*``, also where P is too ill conditioned to be inverted."""
    F, G, H = factors("complex128", k=4)
    P, T = np.triu(panel(4, 4, 7, "complex128")) + 3 * np.eye(4), panel(4, 4, 8, "complex128")
    result = TwoSidedFactorization(F, G, H, left_divisor=P, right_divisor=T)
    core = np.linalg.inv(P) @ G @ np.linalg.inv(T).conj().T
    D = F @ core @ H.conj().T
    slack = 100 * np.linalg.cond(P) * np.linalg.cond(T)
    assert close(result.core, core, "complex128", 400, slack * np.linalg.norm(core))
    assert close(result.to_dense(), D, "complex128", 400, slack * np.linalg.norm(D))
    assert close(result.rmatmul(F), D.conj().T @ F, "complex128", 400, slack * np.linalg.norm(D.conj().T @ F))
    assert close(result.rows([1, 2]), D[[1, 2]], "complex128", 400, slack * np.linalg.norm(D))
    assert close(result.to_svd().to_dense(), D, "complex128", 400, slack * np.linalg.norm(D))
    # columns graded down to 1e-15: what the divisor cancels is nothing that rounding sees
    scale = 10.0 ** -np.arange(0, 16, 5)
    graded = TwoSidedFactorization(F * scale, G, H, left_divisor=np.diag(scale))
    assert close(graded.to_dense(), F @ G @ H.conj().T, "complex128", 400)


def test_namespaces(xp: Any, put: Callable[[Any], Any], dtype: str) -> None:
    F, G, H = factors(dtype)
    D = F @ G @ H.T
    result = TwoSidedFactorization(put(F), put(G), put(H))
    norm = float(np.linalg.norm(D))
    for got, wanted in [
        (result.matmul(put(panel(30, 3, 4, dtype))), D @ panel(30, 3, 4, dtype)),
        (result.rmatmul(put(panel(40, 3, 4, dtype))), D.T @ panel(40, 3, 4, dtype)),
        (result.rows([1, 2]), D[[1, 2]]),
        (result.columns(put(np.array([3]))), D[:, [3]]),
        (result.entries([1, 2], [3, 4]), D[[1, 2], [3, 4]]),
        (result.diagonal(), np.diagonal(D)),
        (result.to_dense(), D),
        (result.to_svd().to_dense(), D),
        (result.truncate(rank=9).to_dense(), D),
        (result.replace_left(put(F @ panel(5, 5, 9, dtype))).to_dense(), D),
    ]:
        assert got.device == result.G.device
        assert dtype in str(got.dtype)
        assert close(to_host(got), wanted, dtype, 400, 100 * norm)


@pytest.mark.parametrize("stored", ["dense", "sparse"])
def test_svd_of_it(any_dtype: str, stored: str) -> None:
    F, G, H = factors(any_dtype)
    told = {"error": 0.25, "error_bound": 0.5, "confidence": 0.99, "error_kind": "sketched", "norm": 7.0, "n_passes": 3}
    result = TwoSidedFactorization(sp.csr_array(F) if stored == "sparse" else F, G, H, **told)
    D = F @ G @ H.conj().T
    svd = result.to_svd()
    assert svd.U.shape == (40, 4)
    assert svd.rank == 4
    assert close(svd.to_dense(), D, any_dtype, 400)
    assert close(svd.s, np.linalg.svd(D)[1][:4], any_dtype, 400)
    assert close(svd.U.conj().T @ svd.U, np.eye(4), any_dtype, 400)
    assert close(svd.Vh @ svd.Vh.conj().T, np.eye(4), any_dtype, 400)
    assert {name: getattr(svd, name) for name in told} == told
    again = as_two_sided(svd)
    assert close(again.to_dense(), D, any_dtype, 400)
    assert {name: getattr(again, name) for name in told} == told


def test_svd_of_graded_factors() -> None:
    """Bases graded over 300 orders of magnitude whose core undoes it lose nothing."""
    F, G, H = factors(k=4)
    scale = np.array([1.0, 1e-5, 1e-100, 1e-150])
    svd = TwoSidedFactorization(F * scale, np.diag(1 / scale) @ G, H).to_svd()
    assert close(svd.to_dense(), F @ G @ H.T, "float64", 400)


def test_centred_svd_as_two_sided() -> None:
    A = panel(40, 20) + 5
    for dtype in ("float32", "complex128"):
        data = A.astype(dtype) + (2j * A[:, :1] if dtype == "complex128" else 0)
        svd = randla.svd(data, 4, center=True, rng=0)
        result = as_two_sided(svd)
        assert result.F.shape == (40, 5)
        assert close(result.to_dense(), svd.to_dense(), dtype, 400)


def test_eigenvectors_as_two_sided() -> None:
    A = panel(30, 30)
    A = A @ np.diag(np.resize([1.0, -1.0], 30)) @ A.T
    eigh = randla.eigh(A, 5, rng=0)
    result = as_two_sided(eigh)
    assert result.F is result.H
    assert close(result.to_dense(), eigh.to_dense(), "float64", 400)
    assert as_two_sided(result) is result
    with pytest.raises(TypeError, match="result must be a LowRankResult or an EighResult, got ndarray"):
        as_two_sided(A)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.99), st.integers(0, 9))
def test_truncation(tol: float, rank: int) -> None:
    s = 2.0 ** -np.arange(8)
    A = decaying(30, 20, s, rng=1)
    whole = as_two_sided(randla.svd(A, 8, rng=0))
    tails = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0))
    cut = whole.truncate(tol)
    r = cut.rank
    slack = 1 + 1e-12
    assert np.linalg.norm(cut.to_dense() - A) <= (tol * tails[0]) * slack + tolerance("float64", 600, 1.0)
    assert r == 0 or tails[r - 1] > tol * tails[0] / slack  # one less would not do
    fixed = whole.truncate(rank=rank)
    assert fixed.rank == min(rank, 8)
    assert np.linalg.norm(fixed.to_dense() - A) == pytest.approx(tails[min(rank, 8)], abs=1e-12)
    assert np.linalg.norm(fixed.to_dense() - A) / tails[0] <= fixed.error_bound + 1e-12


def test_truncation_told_in_other_norms() -> None:
    s = 2.0 ** -np.arange(8)
    A = decaying(30, 20, s, rng=1)
    spectral = as_two_sided(randla.svd(A, 8, norm="spectral", rng=0)).truncate(rank=3)
    assert spectral.error_bound == pytest.approx(s[3], rel=1e-6)
    U, values, Vh = np.linalg.svd(A)
    trace = TwoSidedFactorization(
        U[:, :8], np.diag(values[:8]), Vh[:8].T, error=0.0, error_norm="trace", error_kind="exact", norm=2.0
    )
    assert math.isnan(trace.truncate(rank=3).error)
    assert trace.truncate(rank=8).error == 0.0


def test_is_a_linear_operator() -> None:
    """It stands in for the matrix, in randla and in SciPy."""
    F, G, H = factors(m=100, n=80)
    result = TwoSidedFactorization(F, G, H)
    D = F @ G @ H.T
    assert close(randla.svd(result, 4, rng=0).to_dense(), D, "float64", 8000)
    operator = LinearOperator(result.shape, result.matvec, result.rmatvec, dtype=result.dtype)
    assert close(operator @ np.ones(80), D @ np.ones(80), "float64", 8000)


def test_error_estimate() -> None:
    """From 20 probes: within a factor 2 with probability 0.999, and the seed is fixed."""
    s = 1 / np.arange(1.0, 51)
    A = with_spectrum(60, 50, s, rng=1)
    U, values, Vh = np.linalg.svd(A)
    result = TwoSidedFactorization(U[:, :9], np.diag(values[:9]), Vh[:9].T)
    truth = np.linalg.norm(s[9:]) / np.linalg.norm(s)
    assert truth / 2 <= result.error_estimate(A, rng=0) <= 2 * truth
    assert truth / 2 <= result.error_estimate(aslinearoperator(A), rng=0) <= 2 * truth


def test_iterates_and_prints() -> None:
    F, G, H = factors()
    result = TwoSidedFactorization(sp.csr_array(F), G, H)
    parts = list(result)
    assert len(parts) == 3
    assert parts[1] is G
    assert "\n" not in repr(result)
    assert "F: csr float64 (40, 5), 200 stored, G: numpy float64 (5, 4)" in repr(result)
    assert result.converged
    shared = TwoSidedFactorization(F, np.eye(5), F)
    assert shared.F is shared.H


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("m", [0, 3])
def test_empty_factors(m: int, k: int) -> None:
    result = TwoSidedFactorization(np.ones((m, k)), np.ones((k, k)), np.ones((2, k)))
    D = np.ones((m, k)) @ np.ones((k, 2))
    assert np.array_equal(result.to_dense(), D)
    assert np.array_equal(result.matmul(np.ones(2)), D @ np.ones(2))
    assert np.array_equal(result.diagonal(), np.diagonal(D))
    assert close(result.to_svd().to_dense(), D, "float64")
    assert result.truncate(0.5).rank <= k


def test_bad_factors() -> None:
    F, G, H = factors()
    with pytest.raises(ValueError, match=r"G must have shape \(5, 4\) between F and H, got \(4, 5\)"):
        TwoSidedFactorization(F, G.T, H)
    with pytest.raises(ValueError, match=r"left_divisor must have shape \(5, 5\)"):
        TwoSidedFactorization(F, G, H, left_divisor=np.eye(4))
    with pytest.raises(TypeError, match="G must be a dense array"):
        TwoSidedFactorization(F, sp.csr_array(G), H)
    with pytest.raises(TypeError, match="F must have a real or complex numeric dtype"):
        TwoSidedFactorization(F.astype(str), G, H)
    result = TwoSidedFactorization(F, G, H)
    for call, message in [
        (lambda: result.matmul(np.ones(29)), "X must have 30 rows"),
        (lambda: result.rmatmul(np.ones((30, 2))), "Y must have 40 rows"),
        (lambda: result.rows(40), r"i must be in \[0, 39\]"),
        (lambda: result.rows([-1, 2]), r"i must be in \[0, 39\], got values from -1 to 2"),
        (lambda: result.columns([[1]]), "j must be an integer or a vector"),
        (lambda: result.entries([1, 2], [3]), "i and j must have one length"),
        (lambda: result.truncate(), "tol or rank must be given"),
        (lambda: result.truncate(0.1, rank=2), "tol or rank must be given"),
        (lambda: result.truncate(1.0), "tol must be finite and in"),
        (lambda: result.truncate(rank=-1), "rank must be at least 0"),
        (lambda: result.replace_left(np.ones((39, 5))), "F must have 40 rows"),
        (lambda: result.replacement_residual(F, side="top"), "side must be one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="i must hold integers"):
        result.rows([0.5])
    with pytest.raises(TypeError, match="rank must be an integer"):
        result.truncate(rank=2.5)


def test_libraries_do_not_mix() -> None:
    import array_api_strict

    F, G, H = factors()
    with pytest.raises(ValueError, match="F and G must live in one array library"):
        TwoSidedFactorization(F, array_api_strict.asarray(G), H)
    with pytest.raises(ValueError, match="must live in one array library"):
        TwoSidedFactorization(F, G, H).matmul(array_api_strict.asarray(H))
    with pytest.raises(ValueError, match="A and F must live in one array library"):
        core_matrix(array_api_strict.asarray(F @ G @ H.T), F, H)


# --- another basis: the worked example of arXiv:2111.14385, section 4 -------------------------------------------------


def edges(*pairs: tuple[int, int]) -> np.ndarray:
    """One column for each edge between nodes 1 to 5."""
    return np.stack([np.eye(5)[i - 1] - np.eye(5)[j - 1] for i, j in pairs], axis=1)


B = edges((1, 2), (2, 3), (1, 3), (3, 4), (4, 5), (3, 5))
LAPLACIAN = B @ np.diag([2.0, 1, 3, 1, 4, 2]) @ B.T
TREE = edges((1, 2), (2, 3), (3, 4), (4, 5))
OTHER_TREE = edges((1, 3), (2, 3), (3, 5), (4, 5))
NO_TREE = edges((1, 2), (2, 3), (1, 3), (4, 5))


def test_network_example() -> None:
    """The author prints 3.1e-14, 3.291403 = sqrt(390) / 6, 3.0e-14 and 6.9e-15 for four candidates."""
    result = TwoSidedFactorization(TREE, core_matrix(LAPLACIAN, TREE, TREE), TREE)
    assert result.replacement_residual(OTHER_TREE) <= 3.2e-14
    swapped = result.replace_left(OTHER_TREE)
    assert np.linalg.norm(swapped.to_dense() - LAPLACIAN) <= 3.8e-14
    # spanning trees: the interface between them is unimodular
    assert abs(np.linalg.det(np.linalg.pinv(OTHER_TREE) @ TREE)) == pytest.approx(1.0, abs=1e-12)
    assert result.replacement_residual(NO_TREE) == pytest.approx(math.sqrt(390) / 6, rel=1e-13)
    with pytest.raises(ValueError, match=r"a residual of 3\.291403 \(0\.284 of \|\|F core\|\|\)"):
        result.replace_left(NO_TREE)
    forced = result.replace_left(NO_TREE, check=False)
    assert np.linalg.norm(forced.to_dense() - LAPLACIAN) == pytest.approx(3.415650, abs=5e-7)
    # the constant vector joins the tree: five independent columns, the same matrix
    whole = np.column_stack([TREE, np.ones(5)])
    larger = TwoSidedFactorization(whole, core_matrix(LAPLACIAN, whole, whole), whole)
    assert larger.replacement_residual(np.column_stack([OTHER_TREE, np.ones(5)])) <= 3.1e-14
    # a basis of rank 4 with a column of zeros will do as well
    assert larger.replacement_residual(np.column_stack([TREE, np.zeros(5)])) <= 3.1e-14


def test_replacement_on_both_sides(any_dtype: str) -> None:
    F, G, H = factors(any_dtype)
    result = TwoSidedFactorization(F, G, H, error=0.1)
    D = F @ G @ H.conj().T
    turn_left, turn_right = np.eye(5) + panel(5, 5, 4, any_dtype) / 9, np.eye(4) + panel(4, 4, 4, any_dtype) / 9
    one = result.replace_left((F @ turn_left).astype(any_dtype), left_test=F)
    both = one.replace_right(sp.csr_array((H @ turn_right).astype(any_dtype)))
    assert close(both.to_dense(), D, any_dtype, 4000)
    assert both.error == 0.1
    assert math.isnan(result.replace_right(H[:, :2], check=False).error)
    assert result.replacement_residual(H[:, :2], side="right") > 0.1 * np.linalg.norm(H @ G.conj().T)
    with pytest.raises(ValueError, match="H must span what the core uses"):
        result.replace_right(H[:, :2])


# --- the core of each named special case ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["svd", "cur", "cross", "nystrom", "psd"])
def test_special_cases_agree(any_dtype: str, case: str) -> None:
    """The general core equals the formula of each named factorization: 1e-10 in double precision."""
    A = decaying(60, 50, 0.7 ** np.arange(20.0), any_dtype)
    pinv, bar = np.linalg.pinv, lambda M: M.conj().T
    J, rows = np.array([3, 17, 44, 9, 30]), np.array([0, 12, 58, 33, 21])
    D, T = panel(50, 5, 1, any_dtype), panel(60, 8, 2, any_dtype)
    if case == "svd":
        U, s, Vh = (M.astype(any_dtype) for M in np.linalg.svd(A))
        got, wanted = core_matrix(A, U[:, :5], bar(Vh[:5])), np.diag(s[:5])
    elif case == "cur":
        C, R = A[:, J], A[rows]
        got, wanted = core_matrix(A, C, bar(R)), pinv(C) @ A @ pinv(R)
        explicit = core_matrix(A, C, bar(R), left_test=C, right_test=bar(R))
        squared = max(np.linalg.cond(C), np.linalg.cond(R)) ** 2  # tests C and R^* square the condition number
        assert np.linalg.norm(explicit - got) <= tolerance(any_dtype, 60, squared * np.linalg.norm(got))
    elif case == "cross":
        got = core_matrix(A, A[:, J], bar(A[rows]), left_test=rows, right_test=J)
        wanted = pinv(A[np.ix_(rows, J)])
    elif case == "nystrom":
        # D sees five of the eight columns of the row basis, as it must
        got = core_matrix(A, A @ D, bar(A) @ T, left_test=T, right_test=D, allow_rank_deficient=True)
        wanted = pinv(bar(T) @ A @ D)
    else:
        K = (A[:50] @ bar(A[:50])).astype(any_dtype)
        got = core_matrix(K, K @ D, K @ D, left_test=D, right_test=D)
        wanted = pinv(bar(D) @ K @ D)
    accuracy = 1e-10 if eps(any_dtype) < 1e-10 else 2e-2
    assert got.dtype == A.dtype
    assert np.linalg.norm(got - wanted) <= accuracy * np.linalg.norm(wanted)


@pytest.mark.parametrize("core", ["optimal", "cross"])
def test_cur_agrees(core: str) -> None:
    A = decaying(60, 50, 0.7 ** np.arange(20.0))
    result = cur(A, 6, core=core, rng=0)
    C, R = A[:, result.column_indices], A[result.row_indices]
    tests = {"left_test": result.row_indices, "right_test": result.column_indices} if core == "cross" else {}
    general = TwoSidedFactorization(C, core_matrix(A, C, R.T, **tests), R.T)
    assert np.linalg.norm(general.G - result.core) <= 1e-10 * np.linalg.norm(result.core)
    assert np.linalg.norm(general.to_dense() - result.to_dense()) <= 1e-10 * np.linalg.norm(A)


def test_nystrom_agrees() -> None:
    """The panel of `nystrom` as the test of both sides, drawn again from its key."""
    A = decaying(60, 60, 0.7 ** np.arange(20.0))
    K = A @ A.T
    result = as_two_sided(nystrom(K, 8, n_oversamples=0, rng=3))
    D = as_linear_map(K).gaussian(as_key(3).fold("nystrom").fold(0), 8)
    general = TwoSidedFactorization(K @ D, core_matrix(K, K @ D, K @ D, left_test=D, right_test=D), K @ D)
    assert np.linalg.norm(general.to_dense() - result.to_dense()) <= 1e-10 * np.linalg.norm(K)


def test_svd_agrees() -> None:
    A = decaying(60, 50, 0.7 ** np.arange(20.0))
    U, s, Vh = randla.svd(A, 6, n_power_iter=4, rng=0)
    assert np.linalg.norm(core_matrix(A, U, Vh.T) - np.diag(s)) <= 1e-10 * s[0]


def test_pseudo_inverse_from_a_full_rank_factorization() -> None:
    """``A = B D`` of full rank: ``A^+ = D^* (B^* A D^*)^-1 B^*``."""
    left, right = panel(40, 6, 1), panel(6, 30, 2)
    A = left @ right
    inverse = TwoSidedFactorization(right.T, np.linalg.inv(left.T @ A @ right.T), left)
    assert np.linalg.norm(inverse.to_dense() - np.linalg.pinv(A)) <= 1e-10 * np.linalg.norm(np.linalg.pinv(A))
    general = core_matrix(np.linalg.pinv(A), right.T, left)
    assert np.linalg.norm(general - inverse.G) <= 1e-10 * np.linalg.norm(inverse.G)


def test_gauge_changes_the_core_only() -> None:
    """Where the columns of a basis depend on each other the core is free, and ``F G H^*`` is not."""
    A = decaying(40, 30, 0.5 ** np.arange(10.0))
    F, H = A[:, [0, 3, 9, 3]], A[[1, 5, 8, 8, 1]].T  # columns that come twice
    W = panel(4, 5, 3)
    plain, turned = core_matrix(A, F, H), core_matrix(A, F, H, gauge=W)
    assert np.linalg.norm(turned - plain) > 0.1 * np.linalg.norm(W)
    assert np.linalg.norm(F @ (turned - plain) @ H.T) <= 1e-10 * np.linalg.norm(A)
    free = core_matrix(A, F[:, :3], H[:, :3], gauge=W[:3, :3])
    assert np.linalg.norm(free - core_matrix(A, F[:, :3], H[:, :3])) <= 1e-10 * np.linalg.norm(free)


@pytest.mark.parametrize("kind", ["array", "indices", "sketch", "default", "csr"])
@pytest.mark.parametrize("storage", ["dense", "csr", "csc", "operator", "blocks"])
def test_core_of_every_storage(storage: str, kind: str) -> None:
    A = smooth()
    source = {
        "dense": lambda: A,
        "csr": lambda: sp.csr_array(A),
        "csc": lambda: sp.csc_array(A),
        "operator": lambda: aslinearoperator(A),
        "blocks": lambda: RowBlocks.from_array(A, block_bytes=17 * 50 * 8),
    }[storage]()
    F, H = A[:, [0, 20, 49]], A[[0, 30, 59]].T
    left = {
        "array": panel(60, 5, 1), "indices": [59, 3, 30, 1], "sketch": randla.Gaussian(5, 60, rng=0), "default": None,
        "csr": sp.csr_array(panel(60, 5, 1)),
    }[kind]  # fmt: skip
    right = {
        "array": panel(50, 4, 2), "indices": np.array([7, 4, 49]), "sketch": randla.SparseSign(5, 50, rng=1),
        "default": None, "csr": sp.csr_array(panel(50, 4, 2)),
    }[kind]  # fmt: skip

    def explicit(test: Any, M: np.ndarray) -> np.ndarray:
        if test is None:
            return M
        if kind == "indices":
            return np.eye(M.shape[0])[:, np.asarray(test)]
        return test.toarray().T if kind == "sketch" else test.toarray() if kind == "csr" else test

    TL, TR = explicit(left, F), explicit(right, H)
    wanted = np.linalg.pinv(TL.T @ F) @ TL.T @ A @ TR @ np.linalg.pinv(H.T @ TR)
    got = core_matrix(source, F, H, left_test=left, right_test=right)
    assert np.linalg.norm(got - wanted) <= 1e-9 * np.linalg.norm(wanted)
    if storage == "blocks":
        assert source.n_passes == 1


def test_selected_rows_come_in_any_order() -> None:
    """Indices out of order and twice over, through blocks of 7 rows."""
    A = smooth()
    blocks = RowBlocks.from_array(A, block_bytes=7 * 50 * 8)
    F, H = A[:, [0, 20, 49]], A[[0, 30, 59]].T
    rows, columns = [58, 2, 31, 2, 30], [9, 9, 49, 0, 1, 30]
    got = core_matrix(blocks, F, H, left_test=rows, right_test=columns)
    wanted = np.linalg.pinv(F[rows]) @ A[np.ix_(rows, columns)] @ np.linalg.pinv(H[columns]).T
    assert np.linalg.norm(got - wanted) <= 1e-9 * np.linalg.norm(wanted)


def test_mixed_real_and_complex() -> None:
    A = smooth()
    F, H = A[:, :3] + 1j * A[:, 3:6], A[:3].T
    got = core_matrix(A, F, H)
    assert np.linalg.norm(got - np.linalg.pinv(F) @ A @ np.linalg.pinv(H.T)) <= 1e-6 * np.linalg.norm(got)


def test_core_in_other_namespaces(xp: Any, put: Callable[[Any], Any]) -> None:
    A = smooth()
    F, H = A[:, [0, 20, 49]], A[[0, 30, 59]].T
    rows, columns = np.array([59, 3, 30, 1]), np.array([7, 4, 49])
    got = core_matrix(put(A), put(F), put(H), left_test=put(rows), right_test=put(columns))
    wanted = np.linalg.pinv(F[rows]) @ A[np.ix_(rows, columns)] @ np.linalg.pinv(H[columns]).T
    assert np.linalg.norm(to_host(got) - wanted) <= 1e-9 * np.linalg.norm(wanted)
    best = core_matrix(put(A), put(F), put(H), gauge=put(np.ones((3, 3))))
    wanted = np.linalg.pinv(F) @ A @ np.linalg.pinv(H.T)
    assert np.linalg.norm(to_host(best) - wanted) <= 1e-9 * np.linalg.norm(wanted)


def test_deficient_and_ill_conditioned_tests() -> None:
    A = smooth()
    F, H = A[:, [0, 20, 49]], A[[0, 30, 59]].T
    with pytest.raises(ValueError, match="left_test must see all 3 independent columns of the basis, got rank 2"):
        core_matrix(A, F, H, left_test=[0, 30])
    with pytest.raises(ValueError, match="right_test must see all 3"):
        core_matrix(A, F, H, right_test=np.ones((50, 3)))
    got = core_matrix(A, F, H, left_test=[0, 30], allow_rank_deficient=True)
    assert np.allclose((F @ got @ H.T)[[0, 30]] @ np.linalg.pinv(H.T) @ H.T, A[[0, 30]] @ np.linalg.pinv(H.T) @ H.T)
    Q = np.linalg.qr(np.column_stack([F, panel(60, 1)]))[0]
    blind = Q[:, [0, 1, 3]] + 1e-10 * Q[:, [0, 1, 2]]  # nearly orthogonal to the third column
    with pytest.warns(ConvergenceWarning, match="left_test sees the basis with condition number"):
        core_matrix(A, Q[:, :3], H, left_test=blind)
    with pytest.warns(ConvergenceWarning, match="take 5 test columns or more"):
        ObliqueProjector(Q[:, :3], blind)


def test_bad_cores() -> None:
    A = smooth()
    F, H = A[:, :3], A[:3].T
    for call, message in [
        (lambda: core_matrix(A, F[:-1], H), "F must have 60 rows to fit A"),
        (lambda: core_matrix(A, F, H[:-1]), "H must have 50 rows to fit A"),
        (lambda: core_matrix(A, F, H, left_test=np.ones((59, 4))), "left_test must have 60 rows"),
        (lambda: core_matrix(A, F, H, left_test=[60]), r"left_test must be in \[0, 59\]"),
        (lambda: core_matrix(A, F, H, right_test=randla.Gaussian(4, 60)), "right_test must be a sketch of 50 rows"),
        (lambda: core_matrix(A, F, H, gauge=np.ones((2, 3))), r"gauge must have shape \(3, 3\)"),
        (lambda: core_matrix(A, F, H, rcond=1.0), "rcond must be finite and in"),
        (lambda: core_matrix(A, F * np.nan, H), "the basis and left_test must be finite"),
        (lambda: core_matrix(A, F, H, right_test=np.full((50, 3), np.inf)), "must be finite"),
    ]:
        with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
            call()
    with pytest.raises(TypeError, match="A must be"):
        core_matrix(None, F, H)


# --- projectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["default", "array", "indices", "sketch"])
def test_projector(any_dtype: str, kind: str) -> None:
    F = panel(40, 4, 1, any_dtype)
    test = {
        "default": None, "array": panel(40, 6, 2, any_dtype), "indices": np.array([5, 1, 39, 20, 5, 8]),
        "sketch": randla.Gaussian(6, 40, rng=0),
    }[kind]  # fmt: skip
    matrix = {
        "default": F, "indices": np.eye(40)[:, [5, 1, 39, 20, 5, 8]],
        "array": test, "sketch": randla.Gaussian(6, 40, rng=0).toarray().T,
    }[kind]  # fmt: skip
    P = ObliqueProjector(F, test)
    wide = np.complex128 if "complex" in any_dtype else np.float64
    explicit = F.astype(wide) @ np.linalg.pinv(matrix.conj().T @ F.astype(wide)) @ matrix.conj().T
    X = panel(40, 3, 3, any_dtype)
    slack = 100 * P.condition * np.linalg.norm(explicit, 2)
    assert P.shape == (40, 40)
    assert P.rank == 4
    assert P.matmul(X).dtype == X.dtype
    assert close(P.matmul(X), explicit @ X, any_dtype, 40, slack * np.linalg.norm(X))
    assert close(P @ X[:, 0], explicit @ X[:, 0], any_dtype, 40, slack * np.linalg.norm(X))
    assert close(P.rmatvec(X[:, 0]), explicit.conj().T @ X[:, 0], any_dtype, 40, slack * np.linalg.norm(X))
    assert close(P.matmul(P.matmul(X)), P.matmul(X), any_dtype, 40, slack**2 * np.linalg.norm(X))
    assert close(P.matmul(F), F, any_dtype, 40, slack * np.linalg.norm(F))
    assert P.norm_estimate() == pytest.approx(np.linalg.norm(explicit, 2), rel=tolerance(any_dtype, 40, slack))
    assert "rank=4" in repr(P)


def test_error_is_bounded_by_the_norms() -> None:
    """What the projectors leave is at most (1 + ||P||) (1 + ||Q||) times what the orthogonal ones leave."""
    A = smooth()
    F, H = A[:, [0, 20, 49]], A[[0, 30, 59]].T
    rows, columns = [2, 33, 55], [1, 25, 48]
    best = np.linalg.norm(A - F @ core_matrix(A, F, H) @ H.T)
    cross = np.linalg.norm(A - F @ core_matrix(A, F, H, left_test=rows, right_test=columns) @ H.T)
    growth = (1 + ObliqueProjector(F, rows).norm_estimate()) * (1 + ObliqueProjector(H, columns).norm_estimate())
    assert best < cross <= growth * best


def test_projector_of_dependent_columns() -> None:
    F = panel(40, 3, 1)[:, [0, 1, 2, 1]]
    P = ObliqueProjector(F, panel(40, 5, 2))
    assert P.rank == 3
    assert close(P.matmul(F), F, "float64", 40, 1e3 * np.linalg.norm(F))
    assert ObliqueProjector(np.zeros((40, 2))).norm_estimate() == 0.0
    assert ObliqueProjector(np.ones((40, 0))).matmul(np.ones(40)).shape == (40,)
    assert ObliqueProjector(F).norm_estimate() == 1.0
    with pytest.raises(ValueError, match="X must have 40 rows"):
        P.matmul(np.ones(39))
    with pytest.raises(ValueError, match="B must see all 3"):
        ObliqueProjector(F, [0, 1])


def test_status_goes_along() -> None:
    F, G, H = factors()
    result = TwoSidedFactorization(F, G, H, status=Status.BREAKDOWN)
    assert not result.converged
    assert result.to_svd().status is Status.BREAKDOWN
    assert result.truncate(rank=1).status is Status.BREAKDOWN
