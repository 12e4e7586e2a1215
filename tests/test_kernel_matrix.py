"""Kernel matrices: every kernel against its definition, products by tiles, and how many entries they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator, cg

import randla
from randla._arrays import to_host
from randla.kernels import _exponential, reference
from randla.lowrank.kernel_functions import KERNELS, KernelMatrix, as_kernel_matrix

from .conftest import tolerance

NAMES = [name for name in KERNELS if name != "precomputed"]


def points(n: int = 40, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def tiled(K: KernelMatrix) -> int:
    """Entries of a product with the whole matrix: each tile on or above the diagonal once."""
    n, size = K.shape[0], 1024
    return sum((min(n, i + size) - i) * (n - i) for i in range(0, n, size))


# --- the exponential --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 8, 1000])
def test_exponentials(dtype: str, length: int) -> None:
    x = -np.random.default_rng(1).exponential(9.0, length).astype(dtype)
    found = x.copy()
    _exponential.exponentials_32(found, 0, length) if dtype == "float32" else _exponential.exponentials_64(
        found, 0, length
    )
    exact = np.exp(x.astype(np.longdouble))
    assert np.max(np.abs(found / exact - 1)) <= tolerance(dtype, 1)


def test_exponentials_of_special_numbers(dtype: str) -> None:
    x = np.array([0.0, -1e30, -np.inf, np.nan, -1.0], dtype)
    function = _exponential.exponentials_32 if dtype == "float32" else _exponential.exponentials_64
    function(x, 0, 4)
    assert x[0] == 1
    assert np.all(x[1:3] < (1e-37 if dtype == "float32" else 1e-307))
    assert np.isnan(x[3])
    assert x[4] == -1  # outside the range


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_their_definitions(name: str, dtype: str) -> None:
    X = points().astype(dtype)
    K = KernelMatrix(X, name, gamma=0.4, coef0=0.5, degree=2)
    expected = reference.kernel_tile(name, X.astype(float), X.astype(float), 0.4, 0.5, 2)
    scale = 1 + np.max(np.abs(expected)) + np.max(np.sum(X**2, axis=1))
    assert K.block(None, None).dtype == dtype
    # a Matern kernel sees the square root of an error in r**2 where points are close, flattened by its slope there
    assert np.max(np.abs(K.block(None, None) - expected)) <= tolerance(dtype, 3, scale)
    assert np.max(np.abs(K.diagonal() - np.diag(expected))) <= tolerance(dtype, 3, scale)


def test_far_points_lose_no_digits() -> None:
    X = points()
    near, far = (KernelMatrix(X + shift, "rbf", gamma=0.5).block(None, None) for shift in (0.0, 2.0**20))
    assert np.max(np.abs(near - far)) <= tolerance("float64", 3, 2.0**20 * 4)  # the points themselves are rounded
    assert np.max(np.abs(near - far)) < 1e-7


@pytest.mark.parametrize("name", [*NAMES, "precomputed"])
def test_blocks_columns_and_counts(name: str) -> None:
    X = points(50)
    X = X @ X.T if name == "precomputed" else X
    K = KernelMatrix(X, name)
    D = K.block(None, None)
    before = K.n_entries
    assert before == 2500
    assert np.allclose(K.columns([3, 1, 3]), D[:, [3, 1, 3]], rtol=0, atol=tolerance("float64", 50, np.max(np.abs(D))))
    assert K.n_entries - before == 150
    part = K.block(slice(4, 9), np.array([0, 49]))
    assert np.allclose(part, D[4:9][:, [0, 49]], rtol=0, atol=tolerance("float64", 50, np.max(np.abs(D))))
    assert K.n_entries - before == 160
    K.diagonal()
    assert K.n_entries - before == 210


def test_callable_kernels() -> None:
    X = points(70)
    calls: list[tuple[int, int]] = []

    def cosine(P: Any, Q: Any) -> Any:
        calls.append((len(P), len(Q)))
        return (P @ Q.T) / np.linalg.norm(P, axis=1)[:, None] / np.linalg.norm(Q, axis=1)

    K = KernelMatrix(X, cosine)
    assert np.allclose(K.diagonal(), 1.0)
    assert calls == [(32, 32), (32, 32), (6, 6)]
    assert K.n_entries == sum(m * n for m, n in calls)
    known = KernelMatrix(X, cosine, diagonal=np.ones(70))
    assert np.array_equal(known.diagonal(), np.ones(70))
    assert known.n_entries == 0
    assert np.allclose(K @ np.eye(70), cosine(X, X))
    with pytest.raises(ValueError, match=r"kernel must return shape \(2, 3\)"):
        KernelMatrix(X, lambda P, Q: np.ones(3), diagonal=np.ones(70)).block([0, 1], [0, 1, 2])


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 60, 1500, 2100])
def test_products_compute_each_pair_of_tiles_once(n: int) -> None:
    K = KernelMatrix(points(n), "matern32")
    V = np.random.default_rng(2).standard_normal((n, 2))
    D = K.block(None, None)
    before = K.n_entries
    allowed = tolerance("float64", max(n, 1), np.linalg.norm(V) * n**0.5)
    assert np.max(np.abs(K @ V - D @ V), initial=0.0) <= allowed
    assert K.n_entries - before == tiled(K)
    assert np.max(np.abs(K.matvec(V[:, 0]) - D @ V[:, 0]), initial=0.0) <= allowed


def test_products_with_blocks() -> None:
    K = KernelMatrix(points(1300), "rbf")
    D, rng = K.block(None, None), np.random.default_rng(3)
    rows, columns, V = rng.integers(0, 1300, 30), rng.integers(0, 1300, 1200), rng.standard_normal(1200)
    allowed = tolerance("float64", 1200, np.linalg.norm(V))
    assert np.max(np.abs(K.matmul(V, rows, columns) - D[np.ix_(rows, columns)] @ V)) <= allowed
    assert np.max(np.abs(K.matmul(V, slice(5, 90), columns) - D[5:90][:, columns] @ V)) <= allowed
    fixed = KernelMatrix(D, "precomputed")
    assert np.max(np.abs(fixed.matmul(V, rows, columns) - D[np.ix_(rows, columns)] @ V)) <= allowed
    assert K.matmul(np.zeros(0), None, []).tolist() == [0.0] * 1300


def test_new_points() -> None:
    X, Y = points(300), points(20, seed=5) + 3.0
    K = KernelMatrix(X, "laplacian", gamma=0.2)
    expected = reference.kernel_tile("laplacian", Y, X, 0.2, 1.0, 3)
    V = np.random.default_rng(4).standard_normal((300, 2))
    assert np.max(np.abs(K.cross(Y) - expected)) <= tolerance("float64", 3, 10.0)
    assert np.max(np.abs(K.cross(Y, [4, 2]) - expected[:, [4, 2]])) <= tolerance("float64", 3, 10.0)
    assert np.max(np.abs(K.cross_matmul(Y, V) - expected @ V)) <= tolerance("float64", 300, np.linalg.norm(V))
    assert K.cross_matmul(Y, V[:2, 0], [4, 2]).shape == (20,)


def test_solvers_of_scipy_and_eigh_take_it() -> None:
    K = KernelMatrix(points(200), "rbf", gamma=0.3)
    b = np.ones(200)
    x, failed = cg(aslinearoperator(K) + aslinearoperator(np.eye(200)), b, rtol=1e-10)
    assert failed == 0
    assert np.linalg.norm(K @ x + x - b) < 1e-9 * np.linalg.norm(b)
    w = randla.eigh(K, 3, n_power_iter=8, rng=0).w
    assert np.allclose(w, np.linalg.eigvalsh(K.block(None, None))[::-1][:3], rtol=1e-8)


def test_any_namespace(xp: Any, put: Callable[[Any], Any], dtype: str) -> None:
    X, V = points(30).astype(dtype), points(30, 2, 1).astype(dtype)
    for name in NAMES:
        K, truth = KernelMatrix(put(X), name), KernelMatrix(X, name)
        size = float(np.max(np.abs(truth.block(None, None)))) * (1 + np.max(np.sum(X**2, axis=1)))
        assert K.dtype == getattr(xp, dtype)
        found = to_host(K.matmul(put(V)))
        assert np.max(np.abs(found - truth.matmul(V))) <= tolerance(dtype, 30, 30 * size)
        assert np.allclose(to_host(K.columns([1, 2])), truth.columns([1, 2]), rtol=0, atol=tolerance(dtype, 9, size))


def test_equal_for_any_number_of_threads() -> None:
    K = KernelMatrix(points(1500), "rbf")
    results = []
    for count in (1, 2, 3):
        with randla.threads(count):
            results.append(K.columns(np.arange(400)))
    assert all(np.array_equal(results[0], other) for other in results[1:])


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: KernelMatrix(np.ones(3)), ValueError, "X must be 2-D"),
        (lambda: KernelMatrix(np.ones((3, 2)) * 1j), TypeError, "X must be real"),
        (lambda: KernelMatrix(points(), "sine"), ValueError, "kernel must be one of 'rbf'"),
        (lambda: KernelMatrix(points(), gamma=0.0), ValueError, "gamma must be finite and in"),
        (lambda: KernelMatrix(points(), degree=0), ValueError, "degree must be at least 1"),
        (lambda: KernelMatrix(points(), coef0=-1), ValueError, "coef0 must be"),
        (lambda: KernelMatrix(points(), diagonal=np.ones(3)), ValueError, r"diagonal must have shape \(40,\)"),
        (lambda: KernelMatrix(points(), "precomputed"), ValueError, "X must be square"),
        (lambda: KernelMatrix(points()).matmul(np.ones(3)), ValueError, "V must have 40 rows"),
        (lambda: KernelMatrix(points()).cross(np.ones((2, 9))), ValueError, "Y must have 3 columns"),
        (lambda: KernelMatrix(np.eye(3), "precomputed").cross(np.ones((2, 3))), TypeError, "kernel must be a function"),
        (lambda: KernelMatrix(points()).matmul(array_api_strict.ones(40)), ValueError, "X and V must live in one"),
        (lambda: as_kernel_matrix(np.ones((3, 2))), ValueError, "A must be square"),
        (lambda: as_kernel_matrix("K"), TypeError, "A must be an array"),
    ],
)
def test_bad_input(build: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_not_a_number_stays_one() -> None:
    X = points(5)
    X[2, 1] = np.nan
    with np.errstate(invalid="ignore"):
        for name in NAMES:
            assert np.all(np.isnan(KernelMatrix(X, name).block([0], [2])))
