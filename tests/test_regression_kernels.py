"""Both products of a normal equation: layouts and memory of the kernels, and the linear maps that call them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator
from threadpoolctl import threadpool_info

from randla import RowBlocks, kernels
from randla._arrays import to_host
from randla._parallel import serial_blas, threads
from randla.linear_maps import AdjointMap, LinearMap, as_linear_map

from . import contracts
from .conftest import tolerance


def _system(m: int, n: int, k: int, dtype: str, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    panels = (contracts._panel(rng, shape, dtype) for shape in ((m, n), (n, k), (m, k)))
    return (*panels, rng.random(m).astype(np.dtype(dtype).type(0).real.dtype))


def _truth(A: np.ndarray, X: np.ndarray, B: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The gradient, the squares, and the norm that rounding errors are measured by."""
    wide = np.complex128 if np.iscomplexobj(A) else np.float64
    A, X, B, w = A.astype(wide), X.astype(wide), B.astype(wide), w.astype(np.float64)
    R = B - A @ X
    size = np.linalg.norm(A) * np.linalg.norm(X) + np.linalg.norm(B)
    return A.conj().T @ (w[:, None] * R), (w[:, None] * np.abs(R) ** 2).sum(axis=0), max(np.linalg.norm(A), size) * size


def _check(found: tuple[Any, Any], A: np.ndarray, X: np.ndarray, B: np.ndarray, w: np.ndarray) -> None:
    gradient, squares, norm = _truth(A, X, B, w)
    allowed = tolerance(A.dtype, sum(A.shape), norm)
    assert np.abs(found[0] - gradient).max() <= allowed
    assert np.abs(found[1] - squares).max() <= allowed
    assert found[1].dtype == np.float64


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 300),
    n=st.integers(1, 70),
    k=st.integers(1, 4),
    layout=st.sampled_from("CFS"),
    seed=st.integers(0, 9),
)
def test_any_shape(m: int, n: int, k: int, layout: str, seed: int) -> None:
    """Tails of every length behind the vectors, rows in pairs and single ones."""
    A, X, B, w = _system(m, n, k, "float64", seed)
    M = {"C": A, "F": np.asfortranarray(A), "S": np.repeat(A, 2, axis=0)[::2]}[layout]
    _check(kernels.normal_residual(M, X, B, w), A, X, B, w)
    S = sp.csr_array(np.where(np.abs(A) < 1, A, 0.0))
    _check(kernels.csr_normal_residual(S.data, S.indices, S.indptr, X, B, w), S.toarray(), X, B, w)


@pytest.mark.parametrize("k", [1, 3])
def test_maps_of_files_and_arrays_that_must_not_be_written(k: int, tmp_path: Path) -> None:
    A, X, B, w = _system(5000, 40, k, "float64")
    A.tofile(tmp_path / "A")
    mapped = np.memmap(tmp_path / "A", np.float64, mode="r", shape=A.shape)
    for array in (X, B, w):
        array.flags.writeable = False
    found = kernels.normal_residual(mapped, X, B, w)
    assert type(found[0]) is np.ndarray
    _check(found, A, X, B, w)
    for mine, other in zip(found, kernels.normal_residual(A, X, B, w), strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("layout", "CF")
def test_nan_reaches_every_sum_that_it_belongs_to(k: int, layout: str) -> None:
    A, X, B, _ = _system(300, 9, k, "float64")
    A[17, 3] = np.nan
    G, squares = kernels.normal_residual(np.asarray(A, order=layout), X, B, None)
    assert np.isnan(G).all()
    assert np.isnan(squares).all()
    A[17, 3] = 1.0
    B[4, 0] = np.inf
    G, squares = kernels.normal_residual(np.asarray(A, order=layout), X, B, None)
    assert not np.isfinite(G[:, 0]).any()
    assert squares[0] == np.inf
    assert np.isfinite(G[:, 1:]).all()


def test_wide_sparse_panels_take_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of panels that fill no cache gives what the sweep gives."""
    A, X, B, w = _system(400, 30, 17, "float64")
    S = sp.csr_array(np.where(np.abs(A) < 0.5, A, 0.0))
    monkeypatch.setattr("randla.kernels.regression.PANEL_LIMIT", 0)
    _check(kernels.csr_normal_residual(S.data, S.indices, S.indptr, X, B, w), S.toarray(), X, B, w)
    monkeypatch.setattr("randla.kernels.regression.csr_matmul", None)
    with pytest.raises(TypeError):
        kernels.csr_normal_residual(S.data, S.indices, S.indptr, X, B, w)


# --- one thread of BLAS -----------------------------------------------------------------------------------------------


def _blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def _blas_inside() -> list[int]:
    with serial_blas():
        return _blas_threads()


def test_blas_has_one_thread_inside_and_its_own_count_after() -> None:
    before = _blas_threads()
    with threads(2):
        assert _blas_inside() == [1] * len(before)
        assert _blas_threads() == [2] * len(before)
    with ThreadPoolExecutor(1) as pool:  # another thread, after the first gave BLAS back
        assert pool.submit(_blas_inside).result() == [1] * len(before)
    assert _blas_threads() == before
    with pytest.raises(RuntimeError, match="inside"), serial_blas():
        raise RuntimeError("inside")
    assert _blas_threads() == before


# --- linear maps ------------------------------------------------------------------------------------------------------

#: kind of matrix -> (its map, reads of the matrix that one fused product takes where it is real)
KINDS: dict[str, tuple[Callable[..., LinearMap], int]] = {
    "array": (as_linear_map, 1),
    "strided": (lambda A, **o: as_linear_map(np.repeat(A, 2, axis=1)[:, ::2], **o), 1),
    "csr": (lambda A, **o: as_linear_map(sp.csr_array(A), **o), 1),
    "csc": (lambda A, **o: as_linear_map(sp.csc_array(A), **o), 2),
    "blocks": (lambda A, **o: as_linear_map(RowBlocks.from_array(A, block_bytes=2000), **o), 1),
    "sparse blocks": (lambda A, **o: as_linear_map(RowBlocks.from_array(sp.csr_array(A), block_bytes=2000), **o), 1),
    "operator": (lambda A, **o: as_linear_map(aslinearoperator(A), **o), 2),
    "adjoint": (lambda A, **o: AdjointMap(as_linear_map(A.conj().T.copy())), 2),
}


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_maps(kind: str, k: int, center: bool, any_dtype: str) -> None:
    A, X, B, w = _system(120, 9, k, any_dtype)
    A[np.abs(A) < 0.7] = 0
    make, passes = KINDS[kind]
    M = make(A, center=center)
    exact = A - A.mean(axis=0) if center and kind != "adjoint" else A
    _check(M.normal_residual(X, B, w), exact, X, B, w)
    if not center:
        real = not any_dtype.startswith("complex")
        assert M.n_passes == (passes if real or "blocks" in kind else 2)
        assert M.n_matvecs == 2 * k
    product = M.normal_products(X)
    truth, _, norm = _truth(exact, X, 0 * B, np.ones_like(w))
    assert np.abs(product + truth).max() <= tolerance(any_dtype, sum(A.shape), norm)


def test_other_array_libraries(xp: Any, put: Callable[[Any], Any], dtype: str) -> None:
    A, X, B, w = _system(50, 6, 2, dtype)
    M = as_linear_map(put(A))
    G, squares = M.normal_residual(put(X), put(B), put(w))
    assert squares.dtype == xp.float64
    _check((to_host(G), to_host(squares)), A, X, B, w)
    _check((-to_host(M.normal_products(put(X), put(w))), _truth(A, X, 0 * B, w)[1]), A, X, 0 * B, w)
    assert M.n_passes == 2


def test_integers_are_converted_by_blocks() -> None:
    A, X, B, w = _system(200, 6, 1, "float64")
    A = np.round(4 * A)
    _check(as_linear_map(A.astype(np.int32)).normal_residual(X, B, w), A, X, B, w)
