"""Monarch matrices: the projection is the nearest, Fourier matrices are exact, products agree with the dense form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla._arrays import to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.structured import MonarchOperator, monarch_project

from .conftest import tolerance


def matrix(m: int, n: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    return (A + 1j * rng.standard_normal((m, n)) if dtype.startswith("complex") else A).astype(dtype)


def transposed_columns(F: np.ndarray, a: int, b: int) -> np.ndarray:
    """The columns (i, j) of an a x b grid taken in the order (j, i)."""
    return F.reshape(len(F), a, b).transpose(0, 2, 1).reshape(F.shape)


def slices_by_definition(M: MonarchOperator) -> np.ndarray:
    """The dense matrix by the formula of the docstring, entry by entry."""
    L, R, b = M.left_blocks, M.right_blocks, M.rank
    (q1, p1, _), (p2, _, q2) = L.shape, R.shape
    D = np.zeros((p1, q1, p2, q2), dtype=np.result_type(L, R))
    for k in range(q1):
        for r in range(p2):
            D[:, k, r, :] = sum(np.outer(L[k, :, r * b + j], R[r, k * b + j, :]) for j in range(b))
    return D.reshape(p1 * q1, p2 * q2)


@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(1, 4), st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_products_are_those_of_the_dense_matrix(
    sides: tuple[int, int, int, int], rank: int, columns: int, imaginary: bool
) -> None:
    p1, q1, p2, q2 = sides
    dtype = "complex128" if imaginary else "float64"
    rank = min(rank, p1, q2)
    A = matrix(p1 * q1, p2 * q2, dtype)
    M = monarch_project(A, ((p1, q1), (p2, q2)), rank)
    D = slices_by_definition(M)
    tol = tolerance(dtype, p1 * q1 * p2 * q2, 1 + np.abs(A).max())
    assert np.abs(M.to_dense() - D).max() <= tol
    X, Y = matrix(p2 * q2, columns, dtype, 1), matrix(p1 * q1, columns, dtype, 2)
    assert np.abs(M.matmul(X) - D @ X).max(initial=0) <= 10 * tol
    assert np.abs(M.rmatmul(Y) - D.conj().T @ Y).max(initial=0) <= 10 * tol
    assert abs(M.error * M.norm - np.linalg.norm(A - D)) <= tol
    assert M.rank == rank
    assert M.shape == A.shape
    assert M.n_parameters == M.left_blocks.size + M.right_blocks.size == rank * (p2 * p1 * q1 + q1 * p2 * q2)


@pytest.mark.parametrize(("n", "expected"), [(16, 0.595), (36, 0.736), (1024, 0.941)])
def test_gaussian_matrices_are_not_monarch(n: int, expected: float) -> None:
    """The relative error is reported to rounding; its size is that of one singular value in each slice."""
    A = matrix(n, n)
    M = monarch_project(A)
    assert abs(np.linalg.norm(A - M.to_dense()) / np.linalg.norm(A) - M.error) <= tolerance("float64", n)
    assert abs(M.error - expected) < 0.5 / n**0.5  # one draw; the squares of n**2 entries fluctuate less than this
    assert M.n_parameters == 2 * n * round(n**0.5)


def test_projection_is_idempotent() -> None:
    M = monarch_project(matrix(36, 36))
    D = M.to_dense()
    again = monarch_project(D)
    assert again.error <= tolerance("float64", 6)
    assert np.abs(again.to_dense() - D).max() <= tolerance("float64", 36, np.abs(D).max())


def test_nothing_in_the_class_is_nearer() -> None:
    """The residual is orthogonal to the tangent space, and every random member is further away."""
    A = matrix(12, 20)
    M = monarch_project(A, ((3, 4), (5, 4)))
    residual = A - M.to_dense()
    rng = np.random.default_rng(1)
    for _ in range(20):
        turned = MonarchOperator(M.left_blocks, rng.standard_normal(M.right_blocks.shape)).to_dense()
        assert abs(np.vdot(residual, turned)) <= tolerance("float64", 240, np.linalg.norm(turned) * M.norm)
        moved = MonarchOperator(
            M.left_blocks + 0.1 * rng.standard_normal(M.left_blocks.shape),
            M.right_blocks + 0.1 * rng.standard_normal(M.right_blocks.shape),
        )
        assert np.linalg.norm(A - moved.to_dense()) > np.linalg.norm(residual)


@pytest.mark.parametrize(("n", "p", "q"), [(16, 4, 4), (1024, 32, 32), (15, 3, 5), (100, 20, 5), (512, 16, 32)])
def test_fourier_matrices_are_exact(n: int, p: int, q: int) -> None:
    F = np.fft.fft(np.eye(n), norm="ortho")
    M = monarch_project(transposed_columns(F, q, p), (p, q))
    assert M.error <= tolerance("complex128", 1)
    x = matrix(n, 1, "complex128")[:, 0]
    fast = M.matmul(x.reshape(q, p).T.reshape(-1))
    assert np.linalg.norm(fast - np.fft.fft(x, norm="ortho")) <= tolerance("complex128", n, np.linalg.norm(x))


def test_only_one_permutation_works_on_a_rectangle() -> None:
    F = np.fft.fft(np.eye(32), norm="ortho")
    good, bad = (monarch_project(transposed_columns(F, a, 32 // a), (8, 4)) for a in (4, 8))
    assert good.error * good.norm <= tolerance("complex128", 32)
    assert abs(bad.error * bad.norm - 4.0) <= tolerance("complex128", 32, 4.0)


def test_error_falls_with_the_rank_to_zero() -> None:
    A = matrix(24, 30)
    errors = [monarch_project(A, rank=rank).error for rank in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= tolerance("float64", 4)
    assert monarch_project(A, ((1, 24), (30, 1))).error == 0.0  # slices of one entry


def test_namespaces_and_dtypes(xp: object, put: object, any_dtype: str) -> None:
    A = matrix(12, 20, any_dtype)
    M = monarch_project(put(A), rank=2)
    host = monarch_project(A, rank=2)
    assert to_host(M.to_dense()).dtype == any_dtype
    assert abs(M.error - host.error) <= tolerance(any_dtype, 12)
    assert np.abs(to_host(M.to_dense()) - host.to_dense()).max() <= tolerance(any_dtype, 240, np.abs(A).max())
    X = matrix(20, 2, any_dtype, 3)
    assert np.abs(to_host(M.matmul(put(X))) - host.matmul(X)).max() <= tolerance(any_dtype, 240, 10)
    Y = matrix(12, 2, any_dtype, 3)
    assert np.abs(to_host(M.rmatmul(put(Y))) - host.rmatmul(Y)).max() <= tolerance(any_dtype, 240, 10)


def test_is_a_linear_operator() -> None:
    M = monarch_project(matrix(36, 30))
    s = randla.svd(M, 4, rng=0).s
    exact = np.linalg.svd(M.to_dense())[1][:4]
    assert np.abs(s - exact).max() < 0.1 * exact[0]
    x = matrix(30, 1)[:, 0]
    assert np.allclose(aslinearoperator(M) @ x, M.to_dense() @ x)
    assert "MonarchOperator(left_blocks: numpy float64 (6, 6, 5)" in repr(M)


def test_integers_zeros_and_inputs_stay() -> None:
    A = np.arange(16).reshape(4, 4)
    before = A.copy()
    assert monarch_project(A).dtype == np.float64
    assert np.array_equal(A, before)
    assert monarch_project(np.zeros((4, 4))).error == 0.0


def test_prime_sides_are_exact_without_saving() -> None:
    A = matrix(7, 7)
    M = monarch_project(A)
    assert M.error <= tolerance("float64", 7)
    assert M.n_parameters > 49


def test_nonfinite() -> None:
    A = matrix(4, 4)
    A[1, 2] = np.nan
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        M = monarch_project(A)
    assert M.status is Status.NONFINITE
    with pytest.raises(ConvergenceError):
        monarch_project(A, on_failure="raise")


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, r"shape must have factors of 16, got 3 x 5", (np.ones((16, 16)), (3, 5))),
        (ValueError, "shape must be", (np.ones((16, 16)), (4, 4, 1))),
        (ValueError, "shape must be", (np.ones((16, 16)), 4)),
        (ValueError, "shape must hold pairs", (np.ones((16, 16)), ((2, 2, 4), (4, 4)))),
        (TypeError, "shape must be an integer", (np.ones((16, 16)), (4.0, 4))),
        (ValueError, r"rank must be in \[1, 4\]", (np.ones((16, 16)), None, 5)),
        (ValueError, r"rank must be in \[1, 4\]", (np.ones((16, 16)), None, 0)),
        (ValueError, "A must be 2-D", (np.ones(16),)),
        (ValueError, "A must have rows and columns", (np.ones((0, 4)),)),
        (TypeError, "A must have a real or complex numeric dtype", (np.array([["a"]]),)),
    ],
)
def test_bad_input(error: type, match: str, arguments: tuple) -> None:
    with pytest.raises(error, match=match):
        monarch_project(*arguments)


def test_bad_blocks_and_operands() -> None:
    with pytest.raises(ValueError, match="left_blocks and right_blocks must be 3-D"):
        MonarchOperator(np.ones((2, 2)), np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="left_blocks and right_blocks must have shapes"):
        MonarchOperator(np.ones((2, 2, 3)), np.ones((2, 2, 2)))
    M = monarch_project(matrix(4, 6))
    with pytest.raises(ValueError, match="X must have 6 rows"):
        M.matmul(np.ones(4))
    with pytest.raises(ValueError, match="Y must have 4 rows"):
        M.rmatmul(np.ones((6, 2)))
