"""The Numba kernels against their slow truth, for any number of threads, and the laws of the random tables."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import randla
from randla import Key, as_key, kernels
from randla._random import Stream
from randla.kernels import _philox, reference
from randla.kernels.reference import sketching
from randla.operators.sparse import _gap_thresholds

from . import contracts
from .conftest import tolerance
from .statistics import binomial_interval, chi_square_interval, dkw

CONTRACTS = list(contracts.contracts())
KEY = Key(0x01234567, 0x89ABCDEF)
PRIMES = (2, 3, 5, 127, 131)


# --- twins ------------------------------------------------------------------------------------------------------------


def test_same_names_and_signatures() -> None:
    assert sorted(kernels.__all__) == sorted(reference.__all__) == sorted({contract.kernel for contract in CONTRACTS})
    for name in kernels.__all__:
        assert inspect.signature(getattr(kernels, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.id)
def test_contract(contract: contracts.Contract) -> None:
    contracts.check(contract, kernels)


def _same_for_all_threads(compute: Callable[[], tuple[np.ndarray, ...]]) -> None:
    results = []
    for count in (1, 2, 5):
        with randla.threads(count):
            results.append(compute())
    for found in results[1:]:
        for mine, first in zip(found, results[0], strict=True):
            assert np.array_equal(mine.view(np.uint8), first.view(np.uint8))


@pytest.mark.parametrize("name", kernels.__all__)
def test_small_results_do_not_depend_on_threads(name: str) -> None:
    for contract in CONTRACTS:
        if contract.kernel == name:
            _same_for_all_threads(lambda c=contract: tuple(map(np.ascontiguousarray, contracts.outcome(c, kernels))))


def _large(dtype: str) -> dict[str, Callable[[], Any]]:
    """Calls that are cut into several chunks, stripes and panels."""
    rng, n, d, k = np.random.default_rng(0), 70_001, 41, 129
    A = contracts._panel(rng, (n, d), dtype)
    short = contracts._panel(rng, (300, 3001), dtype)
    csr = sp.random_array((n, 500), density=0.004, rng=rng, format="csr")
    csr = csr.astype(dtype)
    packed = kernels.sparse_sign_table(KEY, 0, n, 3, k).reshape(-1)
    pointers = np.arange(0, 3 * n + 1, 3)
    rows = kernels.distinct_rows(KEY, 2**17, k)

    def written(name: str, shape: tuple[int, int], *arguments: Any) -> np.ndarray:
        out = np.zeros(shape, dtype)
        getattr(kernels, name)(*arguments, out)
        return out

    triple = csr.data, csr.indices, csr.indptr
    return {
        "scatter_rows": lambda: written("scatter_rows", (k, d), pointers, packed, A),
        "scatter_rows wide": lambda: written(
            "scatter_rows", (k, 3001), np.arange(301), packed[:300] % (2 * k), np.ascontiguousarray(short)
        ),
        "scatter_columns": lambda: written("scatter_columns", (300, k), pointers[:3002], packed[:9003], short),
        "gather_rows": lambda: written("gather_rows", (n, d), pointers, packed, A[:k].copy()),
        "scatter_rows_csr": lambda: written("scatter_rows_csr", (k, 500), pointers, packed, *triple),
        "scatter_columns_csr": lambda: written("scatter_columns_csr", (n, k), pointers[:501], packed[:1500], *triple),
        "csr_matmul": lambda: kernels.csr_matmul(*triple, A[:500]),
        "csr_rmatmul": lambda: kernels.csr_rmatmul(*triple, A, 500),
        **_normal_equations(A, triple, rng),
        **_plans(A),
        "srht_apply": lambda: written("srht_apply", (k, d), KEY, A, 2**17, 2, rows),
        "srht_adjoint": lambda: written("srht_adjoint", (n, d), KEY, A[:k], 2**17, 2, rows),
        "block_srht_apply": lambda: written("block_srht_apply", (k, d), KEY, A, 100, 256, 2, rows % 256),
        "block_srht_adjoint": lambda: written("block_srht_adjoint", (n, d), KEY, A[:k], 100, 256, 2, rows % 256),
        "philox_words": lambda: kernels.philox_words(KEY, Stream.GAUSSIAN, 5, 5 + n, 2),
        "uniforms": lambda: kernels.uniforms(KEY, Stream.SAMPLE, 5, 5 + n),
        "sparse_sign_table": lambda: kernels.sparse_sign_table(KEY, 5, 5 + 2 * n, 5, 100),
        "sparse_sign_table narrow": lambda: kernels.sparse_sign_table(KEY, 5, 5 + 2 * n, 1, 100),
        "sparse_jl_table": lambda: kernels.sparse_jl_table(KEY, _gap_thresholds(0.1, 50), 5, 5 + n, 50),
        "less_table": lambda: kernels.less_table(KEY, 5, 5 + n, 3, 10**9),
        "rademacher_table": lambda: kernels.rademacher_table(KEY, 5, 5 + n, 20, dtype),
        "sign_bits": lambda: kernels.sign_bits(KEY, Stream.BLOCK_SIGN, 0, 77, 77 + 40 * n),
        "gaussian_table": lambda: kernels.gaussian_table(KEY, 5, 5 + n, 20, dtype),
    }


def _normal_equations(A: np.ndarray, triple: tuple, rng: np.random.Generator) -> dict[str, Callable[[], Any]]:
    """Vectors and panels, all layouts, dense and sparse; the kernels are real."""
    if np.iscomplexobj(A):
        return {}
    calls: dict[str, Callable[[], Any]] = {}
    weights = rng.random(len(A)).astype(A.dtype)
    for k in (1, 3, 20):
        X, B = (contracts._panel(rng, (size, k), A.dtype.name) for size in (500, len(A)))
        for layout, M in {"C": A, "F": np.asfortranarray(A), "S": np.repeat(A, 2, axis=1)[:, ::2]}.items():
            calls[f"normal_residual {layout} {k}"] = lambda M=M, X=X, B=B: kernels.normal_residual(
                M, X[: M.shape[1]], B, weights
            )
        calls[f"csr_normal_residual {k}"] = lambda X=X, B=B: kernels.csr_normal_residual(*triple, X, B, weights)
    return calls


def _plans(A: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Passes over plans of three chunks of rows, stored and from points; the kernels are real."""
    if np.iscomplexobj(A):
        return {}
    C, X, Y = np.abs(A[:61_500].reshape(1500, 1681)), A[:1500, :2], A[-1681:, :2]
    a, g = np.full(1500, 1 / 1500), np.zeros(1681)
    f, _ = kernels.sinkhorn_sweep("stored", C, None, a, g, 0.5)
    points = ("sqeuclidean", X, Y)
    return {
        "sinkhorn_sweep": lambda: kernels.sinkhorn_sweep("stored", C, None, a, g, 0.5),
        "sinkhorn_sweep points": lambda: kernels.sinkhorn_sweep(*points, a, g, 0.5),
        "plan_sums": lambda: kernels.plan_sums("stored", C, None, f, g, 0.5),
        "plan_entries": lambda: kernels.plan_entries("stored", C, None, f, g, 0.5, 0.1),
        "plan_matmul": lambda: kernels.plan_matmul("stored", C, None, f, g, 0.5, Y),
        "scaling_sweep": lambda: kernels.scaling_sweep(C.astype(float), a, np.ones(1681)),
    }


@pytest.mark.parametrize("dtype", ["float32", pytest.param("complex128", marks=pytest.mark.slow)])
def test_large_results_do_not_depend_on_threads(dtype: str) -> None:
    for compute in _large(dtype).values():

        def parts(compute: Callable[[], Any] = compute) -> tuple[np.ndarray, ...]:
            found = compute()
            return found if isinstance(found, tuple) else (found,)

        _same_for_all_threads(parts)


# --- tables are pure functions of the index ---------------------------------------------------------------------------

#: kernel: (arguments before start and stop, arguments after)
INDEXED = {
    "philox_words": ((KEY, Stream.GAUSSIAN), (3,)),
    "uniforms": ((KEY, Stream.SAMPLE), ()),
    "sparse_sign_table": ((KEY,), (5, 100)),
    "sparse_sign_table nnz=1": ((KEY,), (1, 100)),
    "sparse_sign_table nnz=2": ((KEY,), (2, 100)),
    "sparse_jl_table": ((KEY, _gap_thresholds(0.3, 17)), (17,)),
    "less_table": ((KEY,), (4, 10**6)),
    "rademacher_table": ((KEY,), (131, "float32")),
    "sign_bits": ((KEY, Stream.TRIGONOMETRIC_SIGN, 1), ()),
    "gaussian_table": ((KEY,), (7, "float64")),
}


def _indexed(name: str, start: int, stop: int) -> np.ndarray:
    before, after = INDEXED[name]
    table = getattr(kernels, name.split()[0])(*before, start, stop, *after)
    if isinstance(table, tuple):  # a ragged table: one padded row for each item
        pointers, packed = table
        rows = [packed[a:b] for a, b in itertools.pairwise(pointers)]
        table = np.array([np.pad(row, (0, 17 - len(row)), constant_values=-1) for row in rows]).reshape(-1, 17)
    return table


@pytest.mark.parametrize("name", INDEXED)
@settings(deadline=None, max_examples=15)
@given(
    start=st.one_of(st.integers(0, 300), st.integers(2**32 - 200, 2**32 + 5), st.integers(2**40, 2**41)),
    length=st.integers(0, 200),
    cut=st.integers(0, 200),
)
def test_tables_do_not_depend_on_their_bounds(name: str, start: int, length: int, cut: int) -> None:
    cut = min(cut, length)
    whole = _indexed(name, start, start + length)
    parts = [_indexed(name, start, start + cut), _indexed(name, start + cut, start + length)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_appending_items_keeps_the_sampled_rows() -> None:
    assert np.array_equal(kernels.uniform_rows(KEY, 10**6, 50), kernels.uniform_rows(KEY, 10**6, 500)[:50])
    assert set(kernels.distinct_rows(KEY, 10**6, 50)) <= set(kernels.distinct_rows(KEY, 10**6, 500))


def test_gaussians_are_one_table_in_all_dtypes() -> None:
    table = kernels.gaussian_table(KEY, 3, 200, 13, "float32")
    for dtype in ("float64", "complex64", "complex128"):
        assert np.array_equal(kernels.gaussian_table(KEY, 3, 200, 13, dtype), table.astype(dtype))


@pytest.mark.parametrize("n_columns", [1, *PRIMES])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_csr_products_of_odd_shapes(n_columns: int, index: str, any_dtype: str) -> None:
    """Read-only arrays with either kind of index; empty rows; widths on both sides of the unrolled loops."""
    rng = np.random.default_rng(n_columns)
    dense = sp.random_array((37, 23), density=0.2, rng=rng).toarray()
    dense[5:7] = 0
    A = sp.csr_array(dense.astype(any_dtype))
    arrays = A.data, A.indices.astype(index), A.indptr.astype(index)
    for array in arrays:
        array.flags.writeable = False
    X, Y = (contracts._panel(rng, (size, n_columns), any_dtype) for size in (23, 37))
    for found, left, right in (
        (kernels.csr_matmul(*arrays, X), A.toarray(), X),
        (kernels.csr_rmatmul(*arrays, Y, 23), A.toarray().T, Y),
    ):
        assert found.dtype == any_dtype
        allowed = tolerance(any_dtype, left.shape[1], np.linalg.norm(left) * np.linalg.norm(right))
        assert np.abs(found - left @ right).max() <= allowed


# --- other ways to run the same text ----------------------------------------------------------------------------------

SHARES = 4  # compiling all kernels with bounds checks takes minutes
RUN = """
import sys
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "overflow encountered")  # Python's scalars tell what unsigned words do by design
from randla import kernels
from tests import contracts
mine = sorted(kernels.__all__)[int(sys.argv[1]) :: int(sys.argv[2])]
table = [contract for contract in contracts.contracts() if contract.kernel in mine]
for contract in table:
    contracts.check(contract, kernels)
print(len({contract.kernel for contract in table}), "kernels kept their contracts")
"""


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_contracts_without_compilation_and_with_bounds_checks(setting: str, share: int, tmp_path: Path) -> None:
    environment = {**os.environ, setting: "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(share), str(SHARES)], env=environment,
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout == f"{len(sorted(kernels.__all__)[share::SHARES])} kernels kept their contracts\n"


# --- tests of the tests -----------------------------------------------------------------------------------------------


def _mutants() -> dict[str, tuple[str, Callable[..., Any]]]:
    """Kernels with one fault each: nothing written, a flipped sign, a start or an index that is one off."""

    def zeros(name: str) -> Callable[..., Any]:
        def mutant(*arguments: Any) -> Any:
            result = getattr(kernels, name)(*arguments)
            if result is None:
                arguments[-1][...] = 0
                return None
            return tuple(map(np.zeros_like, result)) if isinstance(result, tuple) else np.zeros_like(result)

        return mutant

    def negative(name: str) -> Callable[..., Any]:
        def mutant(*arguments: Any) -> Any:
            before = arguments[-1].copy() if isinstance(arguments[-1], np.ndarray) else None
            result = getattr(kernels, name)(*arguments)
            if result is None:
                added = arguments[-1] - before if name != "block_srht_adjoint" and "srht" not in name else arguments[-1]
                arguments[-1][...] = -added
                return None
            if isinstance(result, tuple):
                second = np.asarray(result[1])
                return result[0], -second if second.dtype.kind == "f" else second ^ 1, *result[2:]
            return result ^ 1 if result.dtype in (np.int32, np.int64) and "rows" not in name else -result

        return mutant

    def late(name: str) -> Callable[..., Any]:
        parameters = list(inspect.signature(getattr(kernels, name)).parameters)

        def mutant(*arguments: Any) -> Any:
            shifted = list(arguments)
            for parameter in ("start", "stop"):
                if parameter in parameters:
                    shifted[parameters.index(parameter)] += 1
            return getattr(kernels, name)(*shifted)

        return mutant

    mutants = {f"{name} zeros": (name, zeros(name)) for name in kernels.__all__}
    mutants |= {f"{name} negative": (name, negative(name)) for name in kernels.__all__}
    for name in kernels.__all__:
        if "start" in inspect.signature(getattr(kernels, name)).parameters:
            mutants[f"{name} late"] = name, late(name)
    mutants["csr_rmatmul conjugates"] = "csr_rmatmul", lambda d, *rest: kernels.csr_rmatmul(d.conj(), *rest)
    mutants["srht_apply one round"] = "srht_apply", lambda k, A, n, r, *rest: kernels.srht_apply(k, A, n, 1, *rest)
    mutants["gaussian_table in another stream"] = (
        "gaussian_table",
        lambda key, *rest: kernels.gaussian_table(key.fold(0), *rest),
    )
    return mutants


@pytest.mark.parametrize("mutant", _mutants())
def test_mutated_kernels_are_caught(mutant: str) -> None:
    name, function = _mutants()[mutant]
    module: ModuleType = SimpleNamespace(**{name: function})

    def kept(contract: contracts.Contract) -> bool:
        try:
            contracts.check(contract, module)
        except AssertionError:
            return False
        return True

    assert not all(kept(contract) for contract in CONTRACTS if contract.kernel == name)


# --- laws of the tables -----------------------------------------------------------------------------------------------


def _chi_square(counts: np.ndarray, expected: np.ndarray | float) -> float:
    return float(np.sum((counts - expected) ** 2 / expected))


def _check_uniform(values: np.ndarray, size: int) -> None:
    """Chi-square on `size` cells of at least a hundred draws each, where its law is that of the limit."""
    counts = np.bincount(values, minlength=size)
    assert counts.size == size
    assert counts.sum() >= 100 * size
    low, high = chi_square_interval(size - 1)
    assert low <= _chi_square(counts, counts.sum() / size) <= high


def _check_fair(signs: np.ndarray) -> None:
    low, high = binomial_interval(signs.size, 0.5)
    assert low <= np.count_nonzero(signs) <= high


@pytest.mark.parametrize("nnz", [1, 3, 8])
def test_sparse_sign_rows_are_uniform_in_their_bands(nnz: int, seed: int) -> None:
    k = 101
    table = kernels.sparse_sign_table(as_key(seed), 0, 20_000, nnz, k)
    edges = [t * k // nnz for t in range(nnz + 1)]
    for t in range(nnz):
        _check_uniform((table[:, t] >> 1) - edges[t], edges[t + 1] - edges[t])
    _check_fair(table & 1)


def test_sparse_sign_entries_are_independent(seed: int) -> None:
    """Rows and signs of two entries of a column, of neighbouring columns, and of keys that are folds of each other."""
    key, k = as_key(seed), 10
    a = kernels.sparse_sign_table(key, 0, 60_000, 2, k)
    b = kernels.sparse_sign_table(key.fold(0), 0, 60_000, 2, k)
    joint = [(a[:, 0], a[:, 1] - k), (a[:-1, 0], a[1:, 0]), (a[:, 0], b[:, 0])]
    for first, second in joint:
        _check_uniform(first.astype(np.int64) * k + second, k * k)


@pytest.mark.parametrize("n", [7, 2**12 + 3])
def test_sampled_rows_are_uniform(n: int, seed: int) -> None:
    rows = kernels.uniform_rows(as_key(seed), n, 120 * n)
    assert rows.min() >= 0
    _check_uniform(rows, n)
    _check_uniform(kernels.less_table(as_key(seed), 0, 12 * n, 10, n).reshape(-1) >> 1, n)


def test_large_ranges_are_filled(seed: int) -> None:
    rows = kernels.uniform_rows(as_key(seed), 2**32, 100_000)
    _check_uniform(rows >> 23, 512)
    _check_uniform(rows & 511, 512)


def test_distinct_rows_are_distinct_and_uniform(seed: int) -> None:
    """Each row is taken with probability size/n, and any two of them together with (size/n)((size-1)/(n-1))."""
    n, size, draws = 13, 5, 20_000
    key = as_key(seed)
    taken = np.zeros((draws, n), bool)
    for draw in range(draws):
        rows = kernels.distinct_rows(key.fold(draw), n, size)
        assert np.all(np.diff(rows) > 0)
        taken[draw, rows] = True
    low, high = binomial_interval(draws, size / n, 1e-6 / n)
    assert np.all((taken.sum(0) >= low) & (taken.sum(0) <= high))
    pairs = taken.T.astype(float) @ taken
    low, high = binomial_interval(draws, size * (size - 1) / (n * (n - 1)), 1e-6 / n**2)
    off = pairs[~np.eye(n, dtype=bool)]
    assert np.all((off >= low) & (off <= high))


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (3, 3), (1000, 1000), (1025, 1025), (2**40, 10)])
def test_distinct_rows_of_everything(n: int, size: int) -> None:
    rows = kernels.distinct_rows(KEY, n, size)
    assert len(set(rows.tolist())) == size
    assert 0 <= rows.min() <= rows.max() < n
    if n == size:
        assert rows.tolist() == list(range(n))


def test_uniforms_are_uniform(seed: int) -> None:
    n = 200_000
    u = kernels.uniforms(as_key(seed), Stream.SAMPLE, 0, n)
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").statistic <= dkw(n)
    low_bits = (u * 2.0**53).astype(np.int64) & 1023
    _check_uniform(low_bits, 1024)


def test_signs_are_fair_and_independent(seed: int) -> None:
    key, n = as_key(seed), 2**20
    bits = kernels.sign_bits(key, Stream.TRIGONOMETRIC_SIGN, 0, 0, n)
    other = kernels.sign_bits(key, Stream.TRIGONOMETRIC_SIGN, 1, 0, n)
    for sign in (bits, bits * other, bits[1:] * bits[:-1], bits[128:] * bits[:-128]):
        _check_fair(sign > 0)
    table = kernels.rademacher_table(key, 0, 4000, 256, "float32")
    assert np.array_equal(np.abs(table), np.ones_like(table))
    for sign in (table, table[1:] * table[:-1], table[:, 1:] * table[:, :-1]):
        _check_fair(sign > 0)


@pytest.mark.parametrize(("density", "k"), [(1 / 3, 200), (0.01, 1000), (1.0, 50), (1e-4, 300)])
def test_sparse_jl_density(density: float, k: int, seed: int) -> None:
    """Entries are nonzero independently with the given probability (up to 2**-31), everywhere and with fair signs."""
    n = 3000
    pointers, packed = kernels.sparse_jl_table(as_key(seed), _gap_thresholds(density, k), 0, n, k)
    low, high = binomial_interval(n * k, density)
    assert low <= packed.size <= high
    lengths = np.diff(pointers)
    low, high = binomial_interval(k, density, 1e-6 / n)
    assert low <= lengths.min() <= lengths.max() <= high
    if packed.size >= 100 * k:
        assert all(np.all(np.diff(packed[a:b] >> 1) > 0) for a, b in itertools.pairwise(pointers[:200]))
        if density < 1:
            counts = np.bincount(packed >> 1, minlength=k)
            low, high = binomial_interval(n, density, 1e-6 / k)
            assert np.all((counts >= low) & (counts <= high))
    _check_fair(packed & 1)


def test_gaussians_are_gaussian(seed: int) -> None:
    """Kolmogorov distance (an exact bound), and lengths of columns and products of entries by chi-square laws."""
    n, k = 4000, 64
    table = kernels.gaussian_table(as_key(seed), 0, n, k, "float64")
    assert stats.kstest(table.reshape(-1), "norm").statistic <= dkw(n * k)
    low, high = chi_square_interval(n * k)
    assert low <= np.sum(table**2) <= high
    low, high = chi_square_interval(n, 1e-6 / k)
    assert np.all((np.sum(table**2, 0) >= low) & (np.sum(table**2, 0) <= high))
    # sums of pairs of entries are normal with variance 2 only if the two are independent
    for pairs in (table[:, 0::2] + table[:, 1::2], table[0::2] + table[1::2], table[:, ::2] - table[:, 1::2]):
        low, high = chi_square_interval(pairs.size)
        assert low <= np.sum(pairs**2) / 2 <= high
    largest = stats.norm.isf(1e-6 / (2 * n * k))
    assert np.abs(table).max() <= largest


def test_gaussian_tail_ends_where_it_should() -> None:
    """The radius is finite for every word: u = (w >> 1 | 1) / 2**31 is at least 2**-31."""
    words = np.array([0, 1, 2, 3, 2**31, 2**32 - 1, 2**32 - 2], np.uint32)
    radius = sketching._radius(words)
    assert np.all(np.isfinite(radius))
    assert radius.max() == pytest.approx(math.sqrt(62 * math.log(2)), rel=1e-6)
    assert radius.min() >= 0
    cosine, sine = sketching._circle(words)
    assert np.all(np.abs(cosine**2 + sine**2 - 1) <= 8 * np.finfo(np.float32).eps)


def test_box_muller_is_accurate() -> None:
    """The polynomials of the table against NumPy's functions in double precision: a few float32 roundings."""
    words = kernels.philox_words(KEY, Stream.GAUSSIAN, 0, 5000, 1)
    radius = sketching._radius(words[:, 0].copy()).astype(float)
    u = (words[:, 0] >> 1 | 1).astype(float).astype(np.float32).astype(float) / 2**31
    exact = np.sqrt(-2 * np.log(u))
    assert np.all(np.abs(radius - exact) <= 4 * np.finfo(np.float32).eps * np.maximum(exact, 1))
    cosine, sine = sketching._circle(words[:, 1].copy())
    low = (words[:, 1] << np.uint32(2)).view(np.int32) / 2.0**32
    angle = (words[:, 1] >> np.uint32(30)) * (np.pi / 2) + low * (np.pi / 2)
    for found, truth in ((cosine, np.cos(angle)), (sine, np.sin(angle))):
        assert np.abs(found - truth).max() <= 4 * np.finfo(np.float32).eps


def test_key_words() -> None:
    assert _philox.key_words(Key(1, 2**32 - 1)) == (np.uint64(1), np.uint64(2**32 - 1))
    assert all(isinstance(word, np.uint64) for word in _philox.key_words(KEY))
