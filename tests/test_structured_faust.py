"""Products of sparse factors: Hadamard matrices in their butterflies, descent, projections, operators."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from scipy.sparse.linalg import aslinearoperator

import randla
from randla._arrays import eps, to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.structured import SparseProduct, hadamard_projections, hierarchical_factorize, palm4msa, proj

from .conftest import tolerance

# --- the recipe for Hadamard matrices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "error"),
    # 30 sweeps a stage: exact to rounding up to 32, then what these sweeps leave
    [(4, 1e-15), (8, 1e-15), (16, 1e-15), (32, 1e-15), (64, 1e-10), (128, 2e-7)],
)
def test_hadamard_matrices_come_out_in_butterflies(n: int, error: float) -> None:
    levels = n.bit_length() - 1
    product = hierarchical_factorize(hadamard(n), *hadamard_projections(n))
    assert [S.nnz for S in product.factors] == [2 * n] * levels
    assert product.density == 2 * levels / n
    assert product.speedup == n / (2 * levels)
    assert product.error < error
    assert abs(np.linalg.norm(product.to_dense() - hadamard(n)) / n - product.error) <= tolerance("float64", n)
    for S in product.factors:
        assert np.all(np.diff(S.indptr) == 2)
        assert np.all(np.diff(S.tocsc().indptr) == 2)


def test_the_documented_example() -> None:
    """n = 32: five factors of 64 entries, 320 together, density 0.3125."""
    product = hierarchical_factorize(hadamard(32), *hadamard_projections(32))
    assert (len(product.factors), product.nnz, product.density) == (5, 320, 0.3125)
    assert product.error <= 2 * eps("float64")


def test_more_sweeps_reach_rounding_at_larger_sizes() -> None:
    product = hierarchical_factorize(hadamard(64), *hadamard_projections(64), n_iter=60)
    assert product.error < 1e-14


@pytest.mark.parametrize("n", [8, 16, 32])
def test_other_projections_and_starts_fail_on_hadamard_matrices(n: int) -> None:
    """Why the recipe is what it is: every entry ties, and these leave most of the matrix."""
    splits = n.bit_length() - 2
    residuals = [n >> (j + 1) for j in range(splits)]
    globally = [proj.Largest(2 * n)] * splits, [proj.Largest(k * n) for k in residuals]
    by_columns = [proj.Columns(2)] * splits, [proj.Columns(k) for k in residuals]
    for sets in (globally, by_columns):
        assert hierarchical_factorize(hadamard(n), *sets).error > 0.5
    sets, zero = [proj.RowsAndColumns(2), proj.RowsAndColumns(n // 2)], np.zeros((n, n))
    assert palm4msa(hadamard(n), sets, init=[np.eye(n), zero]).error < 1e-14
    assert palm4msa(hadamard(n), sets, init=[zero, np.eye(n)], order="left-to-right").error > 0.5


def test_sylvester_order_is_not_needed() -> None:
    """Rows of equal pattern with other signs: the recipe does not lean on the first row of ones."""
    H = hadamard(16) * np.random.default_rng(0).choice([-1, 1], 16)
    product = hierarchical_factorize(H, *hadamard_projections(16))
    assert product.error < 1e-12
    assert product.nnz == 128


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_namespaces(put: Any, dtype: str) -> None:
    product = hierarchical_factorize(put(hadamard(16).astype(dtype)), *hadamard_projections(16))
    assert product.nnz == 128
    assert product.error <= tolerance(dtype, 16)
    x = np.random.default_rng(0).standard_normal(16).astype(dtype)
    assert np.abs(to_host(product.matmul(put(x))) - hadamard(16) @ x).max() <= tolerance(dtype, 256, 16)
    assert np.abs(to_host(product.rmatmul(put(x))) - hadamard(16).T @ x).max() <= tolerance(dtype, 256, 16)
    assert to_host(product.to_dense()).dtype == dtype


# --- descent ----------------------------------------------------------------------------------------------------------


def sparse_pair(n: int, density: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, n)) * (rng.random((n, n)) < density) + np.eye(n) for _ in range(2)]


@pytest.mark.parametrize("order", ["right-to-left", "left-to-right"])
@pytest.mark.parametrize("seed", range(3))
def test_error_never_rises(order: str, seed: int) -> None:
    S, T = sparse_pair(20, 0.15, seed)
    sets = [proj.Largest(int(np.count_nonzero(M))) for M in (S, T)]
    product = palm4msa(S @ T, sets, n_iter=100, order=order)
    assert np.all(np.diff(product.history) <= tolerance("float64", 400))
    assert product.error == pytest.approx(product.history[-1], abs=tolerance("float64", 400))
    dense = product.to_dense()
    assert abs(np.linalg.norm(S @ T - dense) / np.linalg.norm(S @ T) - product.error) <= tolerance("float64", 400)
    assert [S.nnz <= bound.k for S, bound in zip(product.factors, sets, strict=True)] == [True, True]
    assert all(abs(np.sqrt((S.data**2).sum()) - 1) <= tolerance("float64", 400) for S in product.factors)


def test_known_supports_are_filled_in() -> None:
    S, T = sparse_pair(20, 0.15, 0)
    masks = [M != 0 for M in (S, T)]
    product = palm4msa(
        S @ T, [proj.Support(mask) for mask in masks], init=[mask.astype(float) for mask in masks], n_iter=2000
    )
    assert product.error < 0.01
    assert all(np.all(M.toarray()[~mask] == 0) for M, mask in zip(product.factors, masks, strict=True))


def test_one_factor_without_constraint_is_the_matrix() -> None:
    A = np.random.default_rng(0).standard_normal((6, 9))
    product = palm4msa(A, [proj.Everything()], n_iter=5)
    assert product.error <= tolerance("float64", 54)
    assert product.shape == (6, 9)


def test_rectangles_and_initial_factors() -> None:
    rng = np.random.default_rng(1)
    A = rng.standard_normal((6, 10))
    product = palm4msa(A, [proj.Everything(), proj.Columns(3)], n_iter=50)
    assert [S.shape for S in product.factors] == [(6, 6), (6, 10)]
    assert np.all(np.diff(product.factors[1].tocsc().indptr) <= 3)
    backwards = palm4msa(A, [proj.Rows(3), proj.Everything()], n_iter=50, order="left-to-right")
    assert [S.shape for S in backwards.factors] == [(6, 10), (10, 10)]
    assert max(product.error, backwards.error) < 0.6
    start = [rng.standard_normal((6, 4)), rng.standard_normal((4, 10))]
    given_ones = palm4msa(A, [proj.Everything()] * 2, init=start, n_iter=3000)
    s = np.linalg.svd(A, compute_uv=False)
    assert given_ones.error >= np.linalg.norm(s[4:]) / np.linalg.norm(s) * (1 - 1e-12)
    assert given_ones.error < 1.02 * np.linalg.norm(s[4:]) / np.linalg.norm(s)


def test_status_tells_of_a_tolerance() -> None:
    A = np.random.default_rng(0).standard_normal((10, 10))
    sets = [proj.Largest(20), proj.Largest(20)]
    with pytest.warns(ConvergenceWarning, match="STAGNATED"):
        assert palm4msa(A, sets, n_iter=300, tol=1e-3).status is Status.STAGNATED
    with pytest.raises(ConvergenceError, match="MAX_ITER"):
        palm4msa(A, sets, n_iter=2, tol=1e-3, on_failure="raise")
    assert palm4msa(A, sets, n_iter=300, tol=0.99).n_iter < 300
    assert not palm4msa(A, sets, n_iter=0, tol=0.5, on_failure="ignore").converged
    with pytest.warns(ConvergenceWarning, match="ended with"):
        hierarchical_factorize(A, [proj.Largest(15)], [proj.Largest(15)], tol=1e-6)
    A[0, 0] = np.nan
    for call in (lambda: palm4msa(A, sets), lambda: hierarchical_factorize(A, sets, sets)):
        with pytest.warns(ConvergenceWarning, match="NONFINITE"):
            assert call().status is Status.NONFINITE


def test_zero_matrix() -> None:
    product = palm4msa(np.zeros((4, 4)), [proj.Largest(4)] * 2)
    assert product.error == 0.0
    assert np.array_equal(product.to_dense(), np.zeros((4, 4)))


# --- projections ------------------------------------------------------------------------------------------------------

MATRICES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))


@given(MATRICES, st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_projections_keep_the_largest(shape: tuple[int, int, int], k: int) -> None:
    m, n, seed = shape
    M = np.random.default_rng(seed).standard_normal((m, n))
    size = np.abs(M)
    kept = proj.Largest(k)(M)
    assert np.count_nonzero(kept) == min(k, m * n)
    assert np.sum(kept**2) == pytest.approx(np.sum(np.sort(size.ravel())[::-1][:k] ** 2))
    for project, axis in ((proj.Columns(k), 0), (proj.Rows(k), 1)):
        kept = project(M)
        assert np.all(np.count_nonzero(kept, axis=axis) == min(k, M.shape[axis]))
        best = np.sum(np.flip(np.sort(size, axis=axis), axis=axis).take(range(min(k, M.shape[axis])), axis=axis) ** 2)
        assert np.sum(kept**2) == pytest.approx(best)
    both = proj.RowsAndColumns(k)(M)
    assert np.array_equal(both != 0, (proj.Rows(k)(M) != 0) | (proj.Columns(k)(M) != 0))
    assert np.array_equal(both[both != 0], M[both != 0])


def test_ties_are_broken_by_place() -> None:
    M = np.array([[1.0, -1.0], [1.0, 1.0]])
    assert np.array_equal(proj.Largest(2)(M), [[1, -1], [0, 0]])
    assert np.array_equal(proj.Columns(1)(M), [[1, -1], [0, 0]])
    assert np.array_equal(proj.Rows(1)(M), [[1, 0], [1, 0]])


def test_permutations_are_optimal() -> None:
    M = np.random.default_rng(0).standard_normal((5, 5))
    best = max(sum(M[i, p[i]] ** 2 for i in range(5)) for p in itertools.permutations(range(5)))
    assert np.sum(proj.Permutation(1)(M) ** 2) == pytest.approx(best)
    two = proj.Permutation(2)(M)
    assert np.all(np.count_nonzero(two, axis=0) == 2)
    assert np.all(np.count_nonzero(two, axis=1) == 2)
    with pytest.raises(ValueError, match="M must be square"):
        proj.Permutation(1)(np.ones((2, 3)))


def test_bad_projections() -> None:
    for kind in (proj.Largest, proj.Columns, proj.Rows, proj.RowsAndColumns, proj.Permutation):
        with pytest.raises(ValueError, match="k must be at least 1"):
            kind(0)
    with pytest.raises(ValueError, match="mask must have the shape of the factor"):
        proj.Support(np.ones((2, 3), bool))(np.ones((3, 2)))


# --- the product as an operator ---------------------------------------------------------------------------------------


def test_is_a_linear_operator() -> None:
    rng = np.random.default_rng(0)
    product = palm4msa(rng.standard_normal((30, 30)), [proj.Largest(200)] * 2, n_iter=20)
    dense = product.to_dense()
    X = rng.standard_normal((30, 3))
    assert np.abs(product.matmul(X) - dense @ X).max() <= tolerance("float64", 900)
    assert np.abs(product.rmatmul(X) - dense.T @ X).max() <= tolerance("float64", 900)
    assert np.allclose(aslinearoperator(product) @ X, dense @ X)
    s = randla.svd(product, 3, rng=0).s
    assert np.allclose(s, np.linalg.svd(dense)[1][:3], rtol=0.05)
    factors, scale = product
    assert scale == product.scale
    assert len(factors) == 2
    assert repr(product).startswith("SparseProduct(scale=")
    with pytest.raises(ValueError, match="X must have 30 rows"):
        product.matmul(X[:5])
    assert SparseProduct((np.eye(2), np.ones((2, 3))), 2.0).nnz == 8


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "projections must hold a callable", lambda A: palm4msa(A, [])),
        (ValueError, "projections must hold a callable", lambda A: palm4msa(A, [3])),
        (ValueError, "order must be one of", lambda A: palm4msa(A, [proj.Rows(1)], order="both")),
        (ValueError, "n_iter must be at least 0", lambda A: palm4msa(A, [proj.Rows(1)], n_iter=-1)),
        (ValueError, "init must hold 2 factors", lambda A: palm4msa(A, [proj.Rows(1)] * 2, init=[np.eye(4)])),
        (ValueError, "init must hold 2", lambda A: palm4msa(A, [proj.Rows(1)] * 2, init=[np.eye(3), np.eye(4)])),
        (ValueError, "residual_projections must hold", lambda A: hierarchical_factorize(A, [proj.Rows(1)], [])),
        (ValueError, "residual_projections must hold", lambda A: hierarchical_factorize(A, [], [])),
        (NotImplementedError, "A must be real", lambda A: palm4msa(1j * A, [proj.Rows(1)])),
        (ValueError, "A must have rows and columns", lambda A: palm4msa(A[:0], [proj.Rows(1)])),
        (ValueError, "n must be a power of two", lambda A: hadamard_projections(12)),
        (ValueError, "n must be at least 4", lambda A: hadamard_projections(2)),
    ],
)
def test_bad_input(error: type, match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call(np.eye(4))
