"""The sketch operators: products against `toarray`, for every kind of input, in blocks, turned over, and refused."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pickle
import re
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
from array_api_compat import array_namespace, device
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla import as_key
from randla._arrays import to_host
from randla.operators import GaussianPooledHadamard
from randla.operators.base import TILE_BYTES, SketchOperator
from randla.operators.trigonometric import TrigonometricSketch

from .conftest import tolerance

N = 83  # a prime: no size of a block divides it
K = 24


def _weighted(k: int, n: int, rng: Any) -> SketchOperator:
    return randla.RowSample(k, n, probabilities=np.arange(1.0, n + 1), rng=rng)


#: every operator, and every variant that takes another path
MAKE: dict[str, Callable[[int, int, Any], SketchOperator]] = {
    "Gaussian": lambda k, n, rng: randla.Gaussian(k, n, rng=rng),
    "Rademacher": lambda k, n, rng: randla.Rademacher(k, n, rng=rng),
    "SparseJL": lambda k, n, rng: randla.SparseJL(k, n, rng=rng),
    "SparseJL-auto": lambda k, n, rng: randla.SparseJL(k, n, density="auto", rng=rng),
    "SparseSign": lambda k, n, rng: randla.SparseSign(k, n, rng=rng),
    "SparseSign-3": lambda k, n, rng: randla.SparseSign(k, n, nnz=min(3, k), rng=rng),
    "CountSketch": lambda k, n, rng: randla.CountSketch(k, n, rng=rng),
    "LESS": lambda k, n, rng: randla.LESS(k, n, rng=rng),
    "SRHT": lambda k, n, rng: randla.SRHT(k, n, rng=rng),
    "SRHT-1": lambda k, n, rng: randla.SRHT(k, n, rounds=1, rng=rng),
    "SRCT": lambda k, n, rng: randla.SRCT(k, n, rng=rng),
    "Pooled": lambda k, n, rng: GaussianPooledHadamard(k, n, rng=rng),
    "Pooled-7": lambda k, n, rng: GaussianPooledHadamard(k, n, block_size=7, rng=rng),
    "BlockSRHT": lambda k, n, rng: randla.BlockSRHT(k, n, block_size=32, rng=rng),
    "RowSample": lambda k, n, rng: randla.RowSample(k, n, rng=rng),
    "RowSample-weighted": _weighted,
}
PARTITIONED = [name for name in MAKE if not name.startswith(("SRHT", "SRCT", "Pooled"))]
#: those whose columns do not depend on how many there are
NESTED = [name for name in PARTITIONED if not name.startswith(("LESS", "RowSample", "SparseJL-auto"))]
SPARSE_RESULT = ("RowSample", "RowSample-weighted")

operators = pytest.mark.parametrize("name", MAKE)
partitioned = pytest.mark.parametrize("name", PARTITIONED)


def data(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith(("int", "uint")):
        return rng.integers(0, 100, shape).astype(dtype)
    A = rng.standard_normal(shape)
    return (A + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else A).astype(dtype)


def dense(result: Any) -> np.ndarray:
    if sp.issparse(result):
        return result.toarray()
    return to_host(result)


def close(found: Any, left: np.ndarray, right: np.ndarray, dtype: Any) -> None:
    """Assert that `found` is left @ right to rounding, in `dtype`."""
    found = dense(found)
    assert found.dtype == dtype
    assert found.shape == (left @ right).shape
    allowed = tolerance(dtype, max(left.shape[-1], 128), np.linalg.norm(left) * np.linalg.norm(right))
    assert np.abs(found - left @ right).max(initial=0.0) <= allowed


def checksum(A: Any) -> str:
    parts = (A.data, A.indices, A.indptr) if sp.issparse(A) else (A,)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


# --- products for every kind of input ---------------------------------------------------------------------------------


def _unaligned(A: np.ndarray) -> np.ndarray:
    raw = np.zeros(A.nbytes + 1, np.uint8)
    view = raw[1:].view(A.dtype).reshape(A.shape)
    view[...] = A
    return view


def _read_only(A: np.ndarray) -> np.ndarray:
    A = A.copy()
    A.flags.writeable = False
    return A


def _strided(A: np.ndarray) -> np.ndarray:
    wide = np.zeros((2 * A.shape[0], 3 * A.shape[1]), A.dtype)
    wide[::2, ::3] = A
    return wide[::2, ::3]


def _mapped(A: np.ndarray, folder: Path, order: str) -> np.ndarray:
    mapped = np.memmap(folder / order, A.dtype, "w+", shape=A.shape, order=order)
    mapped[...] = A
    mapped.flush()
    return np.memmap(folder / order, A.dtype, "r", shape=A.shape, order=order)


def _indices(A: Any, index: str) -> Any:
    A.indices, A.indptr = A.indices.astype(index), A.indptr.astype(index)
    for part in (A.data, A.indices, A.indptr):
        part.flags.writeable = False
    return A


LAYOUTS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "C": lambda A, _: A,
    "F": lambda A, _: np.asfortranarray(A),
    "strided": lambda A, _: _strided(A),
    "part of columns": lambda A, _: np.hstack([A, A])[:, : A.shape[1]],
    "negative strides": lambda A, _: np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "read-only": lambda A, _: _read_only(A),
    "read-only F": lambda A, _: _read_only(A.T).T,
    "repeated": lambda A, _: np.broadcast_to(A[:1], A.shape),
    "unaligned": lambda A, _: _unaligned(A),
    "big-endian": lambda A, _: A.astype(A.dtype.newbyteorder(">")),
    "memory map": lambda A, folder: _mapped(A, folder, "C"),
    "memory map F": lambda A, folder: _mapped(A, folder, "F"),
    "lists": lambda A, _: A.tolist(),
    "matrix": lambda A, _: np.asmatrix(A),
    "csr_matrix": lambda A, _: _indices(sp.csr_matrix(A), "int32"),
    "csr_array": lambda A, _: _indices(sp.csr_array(A), "int64"),
    "csc_matrix": lambda A, _: _indices(sp.csc_matrix(A), "int64"),
    "csc_array": lambda A, _: _indices(sp.csc_array(A), "int32"),
    "coo_array": lambda A, _: sp.coo_array(A),
}


@operators
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(name: str, layout: str, tmp_path: Path) -> None:
    S = MAKE[name](K, N, 1)
    A = data("float64", (N, 5))
    A[A < -0.7] = 0
    given_A = LAYOUTS[layout](A, tmp_path)
    truth = given_A.toarray() if sp.issparse(given_A) else np.asarray(given_A)
    before = None if layout == "coo_array" else checksum(given_A)
    close(S @ given_A, S.toarray(), truth, "float64")
    if layout not in ("lists", "coo_array"):  # of these only the array is transposed by itself
        close(given_A.T @ S.T, truth.T, S.toarray().T, "float64")
    if before is not None:
        assert checksum(given_A) == before, "the input was changed"


@operators
@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only", "unaligned", "big-endian", "lists"])
def test_layouts_of_the_adjoint(name: str, layout: str, tmp_path: Path) -> None:
    S = MAKE[name](K, N, 1)
    Y = LAYOUTS[layout](data("float64", (K, 5)), tmp_path)
    before = checksum(Y)
    close(S.T @ Y, S.toarray().T, np.asarray(Y), "float64")
    if layout != "lists":
        close(Y.T @ S, np.asarray(Y).T, S.toarray(), "float64")
    assert checksum(Y) == before


DTYPES = {
    "float16": "float32", "float32": "float32", "float64": "float64", "complex64": "complex64",
    "complex128": "complex128", "int8": "float64", "int32": "float64", "int64": "float64", "uint8": "float64",
    "bool": "float64",
}  # fmt: skip


@operators
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name: str, dtype: str) -> None:
    S, result = MAKE[name](K, N, 1), DTYPES[dtype]
    A = data(dtype, (N, 3))
    exact = A.astype(result)
    for given_A in (A, np.asfortranarray(A), _strided(A)):
        close(S @ given_A, S.toarray(), exact, result)
        close(given_A.T @ S.T, exact.T, S.toarray().T, result)
    close(S @ A[:, 0], S.toarray(), exact[:, 0], result)
    if dtype != "float16":  # SciPy has no sparse matrices of half precision
        for given_S in (sp.csr_array(A), sp.csc_matrix(A)):
            close(S @ given_S, S.toarray(), exact, result)
            close(given_S.T @ S.T, exact.T, S.toarray().T, result)
    Y = data(dtype, (K, 3))
    close(S.T @ Y, S.toarray().T, Y.astype(result), result)
    close(S.T @ Y[:, 0], S.toarray().T, Y[:, 0].astype(result), result)


@operators
def test_namespaces(name: str, xp: ModuleType, put: Callable[[Any], Any], any_dtype: str) -> None:
    """Results stay in the namespace and on the device of the data, in their dtype."""
    S = MAKE[name](K, N, 1)
    A, Y = data(any_dtype, (N, 3)), data(any_dtype, (K, 3))
    products = [
        (S @ put(A), S.toarray(), A),
        (S @ put(A[:, 0]), S.toarray(), A[:, 0]),
        (S.T @ put(Y), S.toarray().T, Y),
        (S.rmatmul(put(A.T)), A.T, S.toarray().T),
    ]
    if xp.__name__ != "array_api_strict":  # its arrays raise TypeError where others ask the right operand
        products += [(put(A.T) @ S.T, A.T, S.toarray().T), (put(Y.T) @ S, Y.T, S.toarray())]
    for found, left, right in products:
        assert array_namespace(found) is array_namespace(put(A))
        assert str(device(found)) == str(device(put(A)))
        close(found, left, right, any_dtype)


@operators
def test_integers_of_another_namespace(name: str) -> None:
    A = data("int32", (N, 3))
    found = MAKE[name](K, N, 1) @ array_api_strict.asarray(A, device=array_api_strict.Device("device1"))
    assert found.dtype == array_api_strict.float64
    close(found, MAKE[name](K, N, 1).toarray(), A.astype("float64"), "float64")


@operators
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (N, 0), (N, 1), (7, 130), (130, 17), (257, 2)])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_shapes(name: str, shape: tuple[int, int], k: int) -> None:
    n, d = shape
    k = min(k, n) if name.startswith(("SRHT", "SRCT")) else k
    S, A = MAKE[name](k, n, 2), data("float64", shape)
    assert S.toarray().shape == S.shape == (k, n)
    assert S.T.shape == S.T.toarray().shape == (n, k)
    close(S @ A, S.toarray(), A, "float64")
    close(S @ np.asfortranarray(A), S.toarray(), A, "float64")
    close(S @ sp.csr_array(A), S.toarray(), A, "float64")
    close(S @ sp.csc_array(A), S.toarray(), A, "float64")
    close(S.T @ data("float64", (k, d)), S.toarray().T, data("float64", (k, d)), "float64")


@pytest.mark.parametrize("name", [name for name in PARTITIONED if not name.startswith("RowSample")])
@pytest.mark.parametrize("d", [0, 1, 3])
def test_no_rows_at_all(name: str, d: int) -> None:
    S = MAKE[name](5, 0, 2)
    assert S.toarray().shape == (5, 0)
    for A in (np.zeros((0, d)), np.zeros((0, d), order="F"), sp.csr_array((0, d)), sp.csc_array((0, d))):
        assert np.array_equal(dense(S @ A), np.zeros((5, d)))
    assert (S.T @ np.ones((5, d))).shape == (0, d)
    assert np.array_equal(S @ np.zeros(0), np.zeros(5))


@partitioned
def test_empty_blocks(name: str) -> None:
    S = MAKE[name](5, N, 2)
    for start in (0, 40, N):
        assert np.array_equal(S.matmul(np.zeros((0, 2)), start=start), np.zeros((5, 2)))
        assert np.array_equal(dense(S.matmul(sp.csr_array((0, 2)), start=start)), np.zeros((5, 2)))
        assert S.toarray(start, start).shape == (5, 0)


@operators
def test_vectors(name: str) -> None:
    S, x, y = MAKE[name](K, N, 1), data("float64", (N,)), data("float64", (K,))
    for found in (S @ x, S @ x.tolist(), S.matvec(x), x @ S.T, S.T.rmatvec(x), S.matmul(x), S.rmatmul(x)):
        assert found.shape == (K,)
        close(found, S.toarray(), x, "float64")
    for found in (S.T @ y, S.rmatvec(y), y @ S, S.T.matvec(y), S.adjoint(y)):
        assert found.shape == (N,)
        close(found, S.toarray().T, y, "float64")
    assert np.array_equal(S @ x, (S @ x[:, None])[:, 0])


@pytest.mark.parametrize("name", [name for name in MAKE if name not in SPARSE_RESULT])
def test_sparse_data_gives_a_dense_sketch(name: str) -> None:
    assert type(MAKE[name](K, N, 1) @ sp.csr_array(data("float64", (N, 3)))) is np.ndarray


@pytest.mark.parametrize("name", ["Gaussian", "SparseSign", "LESS"])
def test_sparse_data_of_the_other_byte_order(name: str) -> None:
    S, A = MAKE[name](K, N, 1), data("float64", (N, 3))
    for given_A in (sp.csr_array(A), sp.csc_array(A)):
        given_A.data = given_A.data.astype(">f8")
        close(S @ given_A, S.toarray(), A, "float64")


@pytest.mark.parametrize("name", SPARSE_RESULT)
@pytest.mark.parametrize("container", [sp.csr_array, sp.csr_matrix, sp.csc_array])
def test_sampled_sparse_rows_stay_sparse(name: str, container: type) -> None:
    S, A = MAKE[name](K, N, 1), data("float64", (N, 3))
    found = S @ container(A)
    assert found.format == "csr"
    assert sp.issparse(found)
    for r in range(K):
        assert np.allclose(found.toarray()[r], S.weights[r] * A[S.rows[r]], rtol=1e-15)


# --- linear maps ------------------------------------------------------------------------------------------------------


@operators
@settings(deadline=None, max_examples=10)
@given(k=st.integers(1, 40), n=st.integers(1, 150), seed=st.integers(0, 2**32), is_complex=st.booleans())
def test_adjoint_identity(name: str, k: int, n: int, seed: int, is_complex: bool) -> None:
    """<S x, y> = <x, S.T y>, and the same for the transposed pair."""
    k = min(k, n) if name.startswith(("SRHT", "SRCT")) else min(k, 32) if name == "BlockSRHT" else k
    S, dtype = MAKE[name](k, n, seed), "complex128" if is_complex else "float64"
    x, y = data(dtype, (n,), seed % 100), data(dtype, (k,), seed % 100 + 1)
    norm = np.linalg.norm(S.toarray()) * np.linalg.norm(x) * np.linalg.norm(y)
    assert abs((S @ x) @ y - x @ (S.T @ y)) <= tolerance("float64", n + k + 128, norm)
    assert abs((S.T.T @ x) @ y - x @ (y @ S)) <= tolerance("float64", n + k + 128, norm)


@operators
def test_linear(name: str, dtype: str) -> None:
    S = MAKE[name](K, N, 1)
    A, B = data(dtype, (N, 4), 1), data(dtype, (N, 4), 2)
    allowed = tolerance(dtype, N + 128, 3 * np.linalg.norm(S.toarray()) * (np.linalg.norm(A) + np.linalg.norm(B)))
    scale = np.dtype(dtype).type
    assert np.abs(S @ (scale(2) * A - B) - (scale(2) * (S @ A) - S @ B)).max() <= allowed
    assert not np.any(S @ np.zeros_like(A))


@operators
@pytest.mark.parametrize("power", [1e20, 1e-20])
def test_scalings(name: str, power: float, dtype: str) -> None:
    """Far from one but inside the range of float32: nothing overflows or vanishes on the way."""
    S, A = MAKE[name](K, N, 1), data(dtype, (N, 4))
    factor = np.dtype(dtype).type(power)
    found, expected = (S @ (factor * A)).astype("float64") / float(factor), S @ A
    norm = np.linalg.norm(S.toarray()) * np.linalg.norm(A)
    assert np.abs(found - expected).max() <= tolerance(dtype, N + 128, norm)
    # by powers of two the sketch scales exactly
    assert np.array_equal(S @ (np.dtype(dtype).type(2.0**40) * A), np.dtype(dtype).type(2.0**40) * (S @ A))


@operators
def test_duplicate_and_zero_rows(name: str) -> None:
    """Exchanging equal rows changes nothing; a zero row is as if its column of S were not there."""
    S, A = MAKE[name](K, N, 1), data("float64", (N, 3))
    A[50] = A[7]
    exchanged = A.copy()
    exchanged[[7, 50]] = exchanged[[50, 7]]
    assert np.array_equal(S @ A, S @ exchanged)
    A[20:30] = 0
    without = S.toarray()
    without[:, 20:30] = 0
    close(S @ A, without, A, "float64")
    permutation = np.random.default_rng(0).permutation(3)
    close((S @ A)[:, permutation], S.toarray(), A[:, permutation], "float64")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@operators
def test_nonfinite_entries_pass_through(name: str, value: float) -> None:
    """A sketch is a linear map: what meets a bad entry turns bad, and no other column does."""
    S, A = MAKE[name](K, N, 1), data("float64", (N, 3))
    row = int(S.rows[0]) if name in SPARSE_RESULT else 11
    A[row, 1] = value
    hit = S.toarray()[:, row] != 0
    assert hit.any()
    with np.errstate(invalid="ignore"):
        for given_A in (A, np.asfortranarray(A), sp.csr_array(A), sp.csc_array(A)):
            found = dense(S @ given_A)
            assert not np.any(np.isfinite(found[hit, 1]))
            close(found[:, [0, 2]], S.toarray(), A[:, [0, 2]], "float64")
        Y = data("float64", (K, 3))
        Y[0, 1] = value
        found = S.T @ Y
    assert not np.any(np.isfinite(found[S.toarray()[0] != 0, 1]))
    close(found[:, [0, 2]], S.toarray().T, Y[:, [0, 2]], "float64")


# --- blocks of rows, and one table for all ----------------------------------------------------------------------------


@partitioned
@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, N), max_size=6), sparse=st.sampled_from(["csr", "csc", "C", "F"]))
def test_blocks_add_up(name: str, cuts: list[int], sparse: str) -> None:
    S, A, Y = MAKE[name](K, N, 1), data("float64", (N, 3)), data("float64", (K, 2))
    edges = [0, *sorted(cuts), N]
    total = np.zeros((K, 3))
    for lo, hi in itertools.pairwise(edges):
        block = A[lo:hi]
        given_A = sp.csr_array(block).asformat(sparse) if sparse in ("csr", "csc") else np.asarray(block, order=sparse)
        total += dense(S.matmul(given_A, start=lo))
        assert np.array_equal(S.toarray(lo, hi), S.toarray()[:, lo:hi])
        close(S.adjoint(Y, start=lo, stop=hi), S.toarray()[:, lo:hi].T, Y, "float64")
    allowed = tolerance("float64", N + 128, np.linalg.norm(S.toarray()) * np.linalg.norm(A))
    assert np.abs(total - S @ A).max() <= allowed


@partitioned
def test_blocks_of_columns_add_up(name: str) -> None:
    S, A = MAKE[name](K, N, 1), data("complex64", (4, N))
    total = S.rmatmul(A[:, :30]) + S.rmatmul(A[:, 30:], start=30)
    close(total, A, S.toarray().T.astype("float32"), "complex64")


@pytest.mark.parametrize("name", NESTED)
def test_appending_rows_keeps_the_columns(name: str) -> None:
    small, large = MAKE[name](K, N, 5), MAKE[name](K, 10 * N, 5)
    assert np.array_equal(small.toarray(), large.toarray(0, N))
    A = data("float64", (N, 3))
    assert np.array_equal(small @ A, large.matmul(A))


@pytest.mark.parametrize("name", [name for name in NESTED if "JL" not in name])
def test_columns_beyond_32_bits(name: str) -> None:
    """A block far along a huge axis costs no more than one at its start, and is another one."""
    S, start = MAKE[name](K, 2**40, 5), 2**33 + 5
    A = data("float64", (N, 3))
    close(S.matmul(A, start=start), S.toarray(start, start + N), A, "float64")
    assert not np.array_equal(S.toarray(start, start + N), S.toarray(start - 2**33, start - 2**33 + N))
    assert not np.array_equal(S.toarray(start, start + N), S.toarray(start - 2**32, start - 2**32 + N))


@operators
def test_one_key_one_sketch(name: str) -> None:
    """Tables do not depend on threads, dtype or the order of calls; other keys and sizes give other ones."""
    S = MAKE[name](K, N, 5)
    table = S.toarray()
    for count in (1, 2, 5):
        with randla.threads(count):
            assert np.array_equal(MAKE[name](K, N, 5).toarray(), table)
    S @ data("float32", (N, 2))
    assert np.array_equal(S.toarray(), table)
    assert np.array_equal(MAKE[name](K, N, S.key).toarray(), table)
    # products with unit vectors in single precision see the same matrix
    identity = dense(S @ np.eye(N, dtype="float32"))
    assert np.abs(identity - table).max() <= tolerance("float32", 128, np.abs(table).max())
    assert not np.array_equal(MAKE[name](K, N, 6).toarray(), table)
    assert not np.array_equal(MAKE[name](K, N, S.key.fold(0)).toarray(), table)


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ("Gaussian", "Rademacher")])
def test_products_do_not_depend_on_threads(name: str) -> None:
    """Bit for bit where no BLAS takes part; wide enough for several stripes and panels."""
    S, results = MAKE[name](30, 3000, 5), []
    A = data("float64", (3000, 70))
    for count in (1, 2, 5):
        with randla.threads(count):
            results.append([S @ A, S @ np.asfortranarray(A), S.T @ A[:30], dense(S @ sp.csr_array(A))])
    for found in results[1:]:
        assert all(np.array_equal(mine, first) for mine, first in zip(found, results[0], strict=True))


def test_count_sketch_is_sparse_sign_with_one_entry() -> None:
    assert np.array_equal(randla.CountSketch(K, N, rng=3).toarray(), randla.SparseSign(K, N, nnz=1, rng=3).toarray())


# --- the entries are what the documentation says ----------------------------------------------------------------------


def test_entries() -> None:
    S = randla.SparseSign(K, N, nnz=6, rng=0).toarray()
    assert np.array_equal(np.unique(np.abs(S)), [0.0, 6**-0.5])
    assert np.all((S.reshape(6, 4, N) != 0).sum(1) == 1), "one in each band"
    assert np.array_equal(np.unique(randla.CountSketch(K, N, rng=0).toarray()), [-1.0, 0.0, 1.0])
    assert np.array_equal(np.unique(np.abs(randla.Rademacher(K, N, rng=0).toarray())), [K**-0.5])
    assert np.allclose(np.unique(np.abs(randla.SparseJL(K, N, rng=0).toarray())), [0.0, (3 / K) ** 0.5], rtol=1e-15)
    less = randla.LESS(K, N, nnz=10, rng=0)
    multiples = less.toarray() / np.sqrt(N / (10 * K))
    assert np.allclose(multiples, np.round(multiples), atol=1e-12)
    assert np.abs(multiples).sum(1).max() <= 10 + 1e-9
    rows = randla.RowSample(K, N, rng=0)
    assert np.array_equal(np.argmax(rows.toarray(), 1), rows.rows)
    assert np.allclose(rows.toarray().sum(1), (N / K) ** 0.5)


@pytest.mark.parametrize("make", [randla.SRHT, randla.SRCT])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_transforms_are_orthonormal(make: type, rounds: int) -> None:
    """Distinct rows of an orthonormal matrix times sqrt(N / sketch_size)."""
    S = make(K, 64, rounds=rounds, rng=0).toarray()
    assert np.abs(S @ S.T - 64 / K * np.eye(K)).max() <= tolerance("float64", 64 * rounds, 64 / K)
    full = make(64, 64, rounds=rounds, rng=0).toarray()
    assert np.abs(full.T @ full - np.eye(64)).max() <= tolerance("float64", 64 * rounds)


def test_blocks_of_the_block_transform_are_orthonormal() -> None:
    S = randla.BlockSRHT(16, 64, block_size=16, rng=0).toarray()
    for b in range(4):
        part = S[:, 16 * b : 16 * b + 16]
        assert np.abs(part.T @ part - np.eye(16)).max() <= tolerance("float64", 64)
    assert not np.allclose(S[:, :16], S[:, 16:32])


def test_default_sizes() -> None:
    assert randla.SparseSign(100, N).nnz == 8
    assert randla.SparseSign(3, N).nnz == 3
    assert randla.SparseJL(9, N).density == 1 / 3
    assert randla.SparseJL(9, 10**4, density="auto").density == 0.01
    assert randla.SRHT(9, N).rounds == randla.SRCT(9, N).rounds == randla.BlockSRHT(9, N).rounds == 2
    assert randla.LESS(10, 1000).nnz == 40
    assert randla.BlockSRHT(10, N).block_size == 1024
    assert randla.BlockSRHT(700, N).block_size == 2048


def test_weights_of_a_row_sample() -> None:
    p = np.zeros(N)
    p[[3, 50, N - 1]] = [1.0, 2.0, 5.0]
    S = randla.RowSample(2000, N, probabilities=p, rng=0)
    assert set(S.rows.tolist()) == {3, 50, N - 1}
    assert np.allclose(S.weights, (2000 * p[S.rows] / 8) ** -0.5, rtol=1e-14)
    p[:] = 1  # the recipe has its own copy
    assert S.probabilities[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        S.probabilities[0] = 1


# --- values -----------------------------------------------------------------------------------------------------------


@operators
def test_operators_are_values(name: str) -> None:
    S = MAKE[name](K, N, 7)
    assert MAKE[name](K, N, 7) == S
    assert hash(S) == hash(MAKE[name](K, N, 7))
    assert S.T == MAKE[name](K, N, 7).T
    assert hash(S.T) == hash(MAKE[name](K, N, 7).T)
    assert S.T.T is S
    others = [MAKE[name](K, N, 8), MAKE[name](K + 1, N, 7), MAKE[name](K, N + 1, 7), S.T, None]
    assert all(other != S for other in others)
    assert S.key == S.rng == as_key(7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        S.n = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        S.T.operator = S


def test_operators_of_different_kinds_are_different() -> None:
    made = [make(K, N, 7) for make in MAKE.values()]
    assert len(set(made)) == len(MAKE)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "RowSample-weighted"])
def test_repr_and_pickle(name: str) -> None:
    S = MAKE[name](K, N, 7)
    assert "\n" not in repr(S)
    names = {"Key": randla.Key} | {name: getattr(randla.operators, name) for name in randla.operators.__all__}
    assert eval(repr(S), names) == S
    assert len(pickle.dumps(S)) < 1024
    copy = pickle.loads(pickle.dumps(S))
    assert copy == S
    assert np.array_equal(copy.toarray(), S.toarray())
    assert pickle.loads(pickle.dumps(S.T)) == S.T


def test_repr_and_pickle_of_given_probabilities() -> None:
    S = _weighted(K, N, 7)
    assert pickle.loads(pickle.dumps(S)) == S
    assert "\n" not in repr(S)
    assert "probabilities" in repr(S), "the repr of a weighted sample must not be that of a uniform one"
    assert randla.RowSample(K, N, rng=7) != S


@operators
def test_scipy_takes_it_for_a_linear_operator(name: str) -> None:
    S, A, Y = MAKE[name](K, N, 7), data("float64", (N, 3)), data("float64", (K, 3))
    L = aslinearoperator(S)
    assert L.shape == S.shape
    assert L.dtype == S.dtype == np.float64
    close(L @ A[:, 0], S.toarray(), A[:, 0], "float64")
    close(L @ A, S.toarray(), A, "float64")
    close(L.T @ Y, S.toarray().T, Y, "float64")
    close(aslinearoperator(S.T) @ Y, S.toarray().T, Y, "float64")
    close(aslinearoperator(S.T).H @ A, S.toarray(), A, "float64")
    close(S.matmat(A), S.toarray(), A, "float64")
    close(S.rmatmat(Y), S.toarray().T, Y, "float64")


def test_rng_none_is_fresh_and_a_generator_is_consumed() -> None:
    assert randla.SparseSign(K, N) != randla.SparseSign(K, N)
    rng = np.random.default_rng(0)
    assert randla.SparseSign(K, N, rng=rng) != randla.SparseSign(K, N, rng=rng)


# --- memory -----------------------------------------------------------------------------------------------------------

SIZE = (300_000, 40)  # 92 MiB of float64
ALLOWED = 16 * 2**20  # the output and tiles of S; conversion adds a tile of the data


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder, arrays = tmp_path_factory.mktemp("memory"), {}
    A = np.random.default_rng(0).standard_normal(SIZE, dtype="float32")
    for order, dtype in (("C", "float64"), ("F", "float64"), ("C", "int16")):
        mapped = np.memmap(folder / f"{order}{dtype}", dtype, "w+", shape=SIZE, order=order)
        mapped[...] = 100 * A
        arrays[f"{order}-{dtype}"] = mapped
    arrays["strided"] = arrays["C-float64"][:, ::-1]
    return arrays


@pytest.mark.parametrize("kind", ["C-float64", "F-float64", "C-int16", "strided"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("SparseSign", "SRHT") else pytest.mark.slow) for name in MAKE]
)
def test_a_sketch_costs_a_few_tiles(name: str, kind: str, files: dict[str, np.ndarray]) -> None:
    A = files[kind]
    S = randla.BlockSRHT(20, len(A), rng=0) if name == "BlockSRHT" else MAKE[name](20, len(A), 0)
    part = MAKE[name](20, 3000, 0) if isinstance(S, TrigonometricSketch) else S
    part.matmul(A[:3000])  # compile, and load modules
    limit = ALLOWED
    if isinstance(S, TrigonometricSketch):
        # 8 columns of the padded length of 2**19 for each of 2 threads, or two tiles of the cosine transform
        limit += max(2 * TILE_BYTES, 2 * 8 * 8 * 2**19)
    if kind != "C-float64":
        limit += TILE_BYTES  # of converted data
    tracemalloc.start()
    try:
        with randla.threads(2):
            S @ A
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak / 2**20:.0f} MiB, allowed {limit / 2**20:.0f}"


# --- errors -----------------------------------------------------------------------------------------------------------


class OnDevice:
    """Stands for a CuPy array."""

    __cuda_array_interface__ = None


BAD_SIZES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "sketch_size 0": (lambda: randla.Gaussian(0, 5), ValueError, "sketch_size must be in [1, 1073741824], got 0"),
    "sketch_size -3": (lambda: randla.SparseSign(-3, 5), ValueError, "sketch_size must be in [1, 1073741824], got -3"),
    "sketch_size 2**31": (
        lambda: randla.LESS(2**31, 5),
        ValueError,
        "sketch_size must be in [1, 1073741824], got 2147483648",
    ),
    "sketch_size 1.5": (
        lambda: randla.CountSketch(1.5, 5),
        TypeError,
        "sketch_size must be an integer, got 1.5 of type float",
    ),
    "sketch_size True": (lambda: randla.CountSketch(True, 5), TypeError, "sketch_size must be an integer, got True"),
    "sketch_size text": (
        lambda: randla.CountSketch("9", 5),
        TypeError,
        "sketch_size must be an integer, got '9' of type str",
    ),
    "n -1": (lambda: randla.Rademacher(3, -1), ValueError, "n must be in [0, "),
    "n None": (lambda: randla.Rademacher(3, None), TypeError, "n must be an integer, got None of type NoneType"),
    "rng": (lambda: randla.Gaussian(3, 5, rng="a"), TypeError, "rng must be None, an int, a SeedSequence"),
    "nnz 0": (lambda: randla.SparseSign(3, 5, nnz=0), ValueError, "nnz must be in [1, 3], got 0"),
    "nnz 4": (
        lambda: randla.SparseSign(3, 5, nnz=4),
        ValueError,
        "nnz must be in [1, 3], got 4; raise sketch_size or lower nnz",
    ),
    "n of SparseSign": (
        lambda: randla.SparseSign(9, 2**62, nnz=8),
        ValueError,
        "n must be in [0, 2305843009213693952]",
    ),
    "nnz of LESS": (lambda: randla.LESS(3, 5, nnz=0), ValueError, "nnz must be at least 1, got 0"),
    "n of LESS": (lambda: randla.LESS(3, 2**33), ValueError, "n must be in [0, 4294967296], got 8589934592"),
    "density 0": (
        lambda: randla.SparseJL(3, 5, density=0),
        ValueError,
        "density must be finite and in (0, 1], got 0.0",
    ),
    "density 2": (
        lambda: randla.SparseJL(3, 5, density=2.0),
        ValueError,
        "density must be finite and in (0, 1], got 2.0",
    ),
    "density nan": (
        lambda: randla.SparseJL(3, 5, density=np.nan),
        ValueError,
        "density must be finite and in (0, 1], got nan",
    ),
    "density text": (
        lambda: randla.SparseJL(3, 5, density="most"),
        TypeError,
        "density must be a real number, got 'most'",
    ),
    "SRHT size": (
        lambda: randla.SRHT(9, 5),
        ValueError,
        "sketch_size must be in [1, 8], got 9; rows are sampled without repetition",
    ),
    "SRCT size": (lambda: randla.SRCT(6, 5), ValueError, "sketch_size must be in [1, 5], got 6"),
    "SRHT n": (lambda: randla.SRHT(1, 0), ValueError, "n must be at least 1, got 0"),
    "SRCT n": (lambda: randla.SRCT(1, 0), ValueError, "n must be at least 1, got 0"),
    "rounds 0": (lambda: randla.SRHT(3, 5, rounds=0), ValueError, "rounds must be at least 1, got 0"),
    "rounds 1.0": (
        lambda: randla.SRCT(3, 5, rounds=1.0),
        TypeError,
        "rounds must be an integer, got 1.0 of type float",
    ),
    "block_size 24": (
        lambda: randla.BlockSRHT(3, 50, block_size=24),
        ValueError,
        "block_size must be a power of two, got 24; take 32",
    ),
    "block_size 2": (lambda: randla.BlockSRHT(3, 50, block_size=2), ValueError, "block_size must be at least 3, got 2"),
    "block_size 0": (
        lambda: GaussianPooledHadamard(3, 50, block_size=0),
        ValueError,
        "block_size must be at least 1, got 0",
    ),
    "block_size 2.0": (
        lambda: GaussianPooledHadamard(3, 50, block_size=2.0),
        TypeError,
        "block_size must be an integer, got 2.0 of type float",
    ),
    "pooled n": (lambda: GaussianPooledHadamard(1, 0), ValueError, "n must be at least 1, got 0"),
    "pooled length": (
        lambda: GaussianPooledHadamard(2**20, 50, block_size=2**13),
        ValueError,
        "max(n, sketch_size * block_size) must be in [1, 4294967296], got 8589934592",
    ),
    "RowSample n": (lambda: randla.RowSample(3, 0), ValueError, "n must be in [1, 2**32] for a row sample, got 0"),
    "probabilities shape": (
        lambda: randla.RowSample(3, 5, probabilities=np.ones(4)),
        ValueError,
        "probabilities must have shape (5,), got (4,)",
    ),
    "probabilities negative": (
        lambda: randla.RowSample(3, 2, probabilities=[1, -1e-9]),
        ValueError,
        "probabilities must be finite and nonnegative",
    ),
    "probabilities zero": (
        lambda: randla.RowSample(3, 2, probabilities=[0, 0]),
        ValueError,
        "probabilities must be finite and nonnegative",
    ),
    "probabilities nan": (
        lambda: randla.RowSample(3, 2, probabilities=[1, np.nan]),
        ValueError,
        "probabilities must be finite and nonnegative",
    ),
    "probabilities inf": (
        lambda: randla.RowSample(3, 2, probabilities=[1, np.inf]),
        ValueError,
        "probabilities must be finite and nonnegative",
    ),
    "probabilities overflow": (
        lambda: randla.RowSample(3, 2, probabilities=[1e308, 1e308]),
        ValueError,
        "probabilities must be finite and nonnega",
    ),
    "probabilities text": (
        lambda: randla.RowSample(3, 2, probabilities="ab"),
        TypeError,
        "probabilities must be an array of 2 numbers, got str",
    ),
    "probabilities on a device": (
        lambda: randla.RowSample(3, 2, probabilities=OnDevice()),
        TypeError,
        "probabilities must be a NumPy array, got one on",
    ),
    "probabilities complex": (
        lambda: randla.RowSample(3, 2, probabilities=[1, 1j]),
        TypeError,
        "probabilities must be an array of 2 numbers",
    ),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_bad_sizes(case: str) -> None:
    make, kind, text = BAD_SIZES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match="^" + re.escape(text)):
            make()


BAD_DATA: dict[str, tuple[Any, type[Exception], str]] = {
    "text": ("abc", TypeError, "A must be an array or a sparse matrix, got str"),
    "None": (None, TypeError, "A must be an array or a sparse matrix, got NoneType"),
    "strings": ([["a"]] * N, TypeError, "A must have a real or complex numeric dtype"),
    "objects": (np.full((N, 2), None), TypeError, "A must have a real or complex numeric dtype"),
    "ragged": ([[1], [1, 2]], ValueError, "A must be rectangular"),
    "masked": (np.ma.ones((N, 2)), TypeError, "A must be a plain array, got a masked array"),
    "scalar": (3.0, ValueError, "A must be 1-D or 2-D, got shape ()"),
    "three axes": (np.ones((N, 2, 2)), ValueError, f"A must be 1-D or 2-D, got shape ({N}, 2, 2)"),
    "no rows": (np.ones((0, 2)), ValueError, f"A must have n = {N} rows to meet"),
    "too few rows": (np.ones((N - 1, 2)), ValueError, f"A must have n = {N} rows to meet"),
    "too many rows": (sp.csr_array((N + 1, 2)), ValueError, f"A must have n = {N} rows to meet"),
    "long list": ([[1.0]] * (N + 1), ValueError, f"A must have n = {N} rows to meet"),
    "sparse vector": (sp.coo_array(np.ones(N)), ValueError, f"A must be 2-D, got a sparse array of shape ({N},)"),
    "linear operator": (aslinearoperator(np.ones((N, 2))), TypeError, "A must have a real or complex numeric dtype"),
}  # fmt: skip


@operators
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(name: str, case: str) -> None:
    A, kind, text = BAD_DATA[case]
    with pytest.raises(kind, match="^" + re.escape(text)):
        MAKE[name](K, N, 1) @ A


@operators
def test_bad_data_of_the_other_products(name: str) -> None:
    S = MAKE[name](K, N, 1)
    with pytest.raises(ValueError, match=rf"^A must have n = {N} columns to meet S\.T, got shape \(3, {N - 1}\)$"):
        np.ones((3, N - 1)) @ S.T
    for Y in (np.ones(K - 1), np.ones((K + 1, 2))):
        with pytest.raises(ValueError, match=rf"^Y must have sketch_size = {K} rows, got shape"):
            S.T @ Y
    with pytest.raises(TypeError, match=r"^Y must be a dense array, got a sparse csr matrix"):
        S.T @ sp.csr_array(np.ones((K, 2)))
    with pytest.raises(TypeError, match=r"^Y must have a real or complex numeric dtype"):
        S.T @ np.full((K, 2), "a")
    for start, stop, text in ((0, N + 1, "stop must be in"), (-1, 3, "start must be in"), (4, 3, "start must be in")):
        with pytest.raises(ValueError, match=f"^{text}"):
            S.toarray(start, stop)
        with pytest.raises(ValueError, match=f"^{text}"):
            S.adjoint(np.ones(K), start=start, stop=stop)


@partitioned
def test_bad_blocks(name: str) -> None:
    S = MAKE[name](K, N, 1)
    for rows, start in ((N + 1, 0), (4, N - 3), (1, N)):
        with pytest.raises(ValueError, match=f"^A must have at most {N - start} rows from row {start} on to meet"):
            S.matmul(np.ones((rows, 2)), start=start)
    with pytest.raises(ValueError, match=r"^start must be at least 0, got -1"):
        S.matmul(np.ones((2, 2)), start=-1)
    with pytest.raises(TypeError, match=r"^start must be an integer, got 1.0"):
        S.matmul(np.ones((2, 2)), start=1.0)


@pytest.mark.parametrize("name", ["SRHT", "SRHT-1", "SRCT", "Pooled"])
@pytest.mark.parametrize("rows", [np.ones((5, 2)), np.ones(5), sp.csr_array((5, 2)), [[1.0, 2.0]], [1.0]])
def test_transforms_need_all_rows(name: str, rows: Any) -> None:
    S = MAKE[name](K, N, 1)
    text = rf"^{type(S).__name__}\.matmul takes all {N} rows at once: .*BlockSRHT"
    with pytest.raises(NotImplementedError, match=text):
        S.matmul(rows)
    with pytest.raises(NotImplementedError, match="rows at once"):
        S.matmul(np.ones((5, 2)), start=5)
    with pytest.raises(NotImplementedError, match="rows at once"):
        S.rmatmul(np.ones((2, 5)))


# --- sketch, choose_sketch, sketch_size_for ---------------------------------------------------------------------------

KINDS = ("gaussian", "rademacher", "sparse-jl", "sparse-sign", "countsketch", "less", "srht", "srct", "pooled", "rows")


def test_kinds() -> None:
    assert tuple(randla.operators.choose.KINDS) == KINDS


@pytest.mark.parametrize("kind", ["auto", *KINDS])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_matrix])
def test_sketch(kind: str, axis: int, container: Callable[[Any], Any]) -> None:
    A = data("float32", (60, 50))
    operator, reason = randla.choose_sketch(container(A), 20, kind=kind, axis=axis, rng=3)
    assert "sketch_size 20 as given" in reason
    assert operator.shape == (20, A.shape[axis])
    if kind != "auto":
        assert type(operator) is randla.operators.choose.KINDS[kind]
    found = randla.sketch(container(A), 20, kind=kind, axis=axis, rng=3)
    S = operator.toarray().astype("float32")
    if axis == 0:
        close(found, S, A, "float32")
    else:
        close(found, A, S.T, "float32")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rows"])
def test_sketch_with_a_distortion(kind: str, seed: int) -> None:
    """The size of the rule, and a distortion below epsilon on incoherent data."""
    d, epsilon = 5, 0.6
    A = np.linalg.qr(np.random.default_rng(seed).standard_normal((20_000, d)))[0]
    size = randla.sketch_size_for(kind, d, epsilon=epsilon, delta=1e-6)
    found = randla.sketch(A, epsilon=epsilon, delta=1e-6, kind=kind, rng=seed) if size < 20_000 else None
    if found is None:
        assert kind == "countsketch"
        return
    assert found.shape == (size, d)
    values = np.linalg.svd(found, compute_uv=False)
    assert np.abs(values - 1).max() <= epsilon


def test_sizes() -> None:
    size = randla.sketch_size_for
    assert size("gaussian", 100, epsilon=0.5) == 703
    for kind in ("rademacher", "sparse-jl", "sparse-sign", "less", "srht", "srct", "pooled"):
        assert size(kind, 100, epsilon=0.5) == 703
    # (d^2 + d) / (delta (2 epsilon - epsilon^2)^2) in whole numbers: 10100 / (0.01 * 0.75^2)
    assert size("countsketch", 100, epsilon=0.5) == 1_795_556
    assert size("gaussian", 100, epsilon=0.25) > 3.9 * size("gaussian", 100, epsilon=0.5)
    assert size("gaussian", 100, epsilon=0.5, delta=1e-6) > size("gaussian", 100, epsilon=0.5)
    assert size("gaussian", 1, epsilon=0.999, delta=0.99) >= 1


def test_size_of_the_default() -> None:
    A = np.ones((5000, 7))
    assert randla.sketch(A, rng=0).shape[0] == randla.sketch_size_for("gaussian", 7, epsilon=0.5)
    assert randla.sketch(A.T, axis=1, rng=0).shape == (7, randla.sketch_size_for("gaussian", 7, epsilon=0.5))


@pytest.mark.parametrize(("kind", "size"), [("srht", 16), ("srct", 10), ("sparse-sign", 100)])
def test_default_size_on_a_short_matrix(kind: str, size: int) -> None:
    A = np.random.default_rng(0).standard_normal((10, 3))
    operator, reason = randla.choose_sketch(A, kind=kind, rng=0)
    assert operator.sketch_size == size
    assert "no fewer than the 10 rows" in reason
    values = np.linalg.svd(operator @ A, compute_uv=False) / np.linalg.svd(A, compute_uv=False)
    assert np.abs(values - 1).max() <= (tolerance("float64", A.size) if kind != "sparse-sign" else 0.5)


def test_auto_tells_what_and_why() -> None:
    small, why_small = randla.choose_sketch(np.ones((1000, 5)), 50, rng=0)
    large, why_large = randla.choose_sketch(np.broadcast_to(1.0, (10**6, 50)), 500, rng=0)
    sparse, why_sparse = randla.choose_sketch(sp.csr_array((1000, 5)), 50, rng=0)
    assert isinstance(small, randla.Gaussian)
    assert isinstance(large, randla.SparseSign)
    assert isinstance(sparse, randla.SparseSign)
    assert large.nnz == sparse.nnz == 8
    assert why_small.startswith("gaussian: ")
    assert "large dense data" in why_large
    assert "sparse data" in why_sparse
    assert all("\n" not in why for why in (why_small, why_large, why_sparse))


BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kind": ({"kind": "normal"}, ValueError, "kind must be one of 'auto', 'gaussian'"),
    "kind None": ({"kind": None}, ValueError, "kind must be one of 'auto', 'gaussian'"),
    "axis 2": ({"axis": 2}, ValueError, "axis must be 0 (compress rows) or 1 (compress columns), got 2"),
    "axis text": ({"axis": "rows"}, ValueError, "axis must be 0 (compress rows) or 1 (compress columns), got 'rows'"),
    "both": (
        {"sketch_size": 9, "epsilon": 0.5}, ValueError, "sketch_size and epsilon must not both be given, got 9 and 0.5",
    ),
    "sketch_size 0": ({"sketch_size": 0}, ValueError, "sketch_size must be at least 1, got 0"),
    "sketch_size 2.0": ({"sketch_size": 2.0}, TypeError, "sketch_size must be an integer, got 2.0 of type float"),
    "epsilon 0": ({"epsilon": 0}, ValueError, "epsilon must be finite and in (0, 1), got 0.0"),
    "epsilon 1": ({"epsilon": 1.0}, ValueError, "epsilon must be finite and in (0, 1), got 1.0"),
    "epsilon nan": ({"epsilon": np.nan}, ValueError, "epsilon must be finite and in (0, 1), got nan"),
    "delta": ({"epsilon": 0.5, "delta": 1.5}, ValueError, "delta must be finite and in (0, 1), got 1.5"),
    "delta text": ({"delta": "small"}, TypeError, "delta must be a real number, got 'small' of type str"),
    "rows": ({"kind": "rows"}, ValueError, 'sketch_size must be given for kind "rows", got None'),
    "rows with epsilon": ({"kind": "rows", "epsilon": 0.5}, ValueError, 'kind must not be "rows" with epsilon'),
    "rng": ({"sketch_size": 3, "rng": -1}, ValueError, "rng must be a non-negative integer, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("function", [randla.sketch, randla.choose_sketch])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(function: Callable[..., Any], case: str) -> None:
    arguments, kind, text = BAD_CALLS[case]
    with pytest.raises(kind, match="^" + re.escape(text)):
        function(np.ones((30, 4)), **arguments)


@pytest.mark.parametrize("function", [randla.sketch, randla.choose_sketch])
def test_sketch_takes_matrices_only(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"^A must be 2-D, got shape \(30,\)"):
        function(np.ones(30), 4)
    with pytest.raises(TypeError, match=r"^A must be a plain array"):
        function(np.ma.ones((30, 4)), 4)


@pytest.mark.parametrize("bad", [{"kind": "auto"}, {"d": 0}, {"epsilon": -1.0}, {"delta": 0.0}])
def test_bad_arguments_of_the_rule(bad: dict[str, Any]) -> None:
    arguments = {"kind": "gaussian", "d": 10, "epsilon": 0.5, "delta": 0.1, **bad}
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        randla.sketch_size_for(**arguments)
