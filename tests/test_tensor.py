"""Tensor sketches: against explicit Kronecker products, isotropic, and with the variances that are derived for them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import re
from collections.abc import Callable, Sequence
from functools import reduce
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from array_api_compat import array_namespace, device
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla import as_key
from randla._arrays import to_host
from randla.operators import KhatriRao, KroneckerSRHT, SketchOperator, TensorSketch, TensorSRHT
from randla.operators.tensor import mode_indices

from .conftest import tolerance
from .test_sketch_statistics import check_isotropy

K = 12
MAKE: dict[str, Callable[[int, Sequence[int], Any], Any]] = {
    "TensorSketch": lambda k, shapes, rng: TensorSketch(k, shapes, rng=rng),
    "KhatriRao": lambda k, shapes, rng: KhatriRao(k, shapes, rng=rng),
    "KhatriRao-gaussian": lambda k, shapes, rng: KhatriRao(k, shapes, entries="gaussian", rng=rng),
    "TensorSRHT": lambda k, shapes, rng: TensorSRHT(k, shapes, rng=rng),
    "KroneckerSRHT": lambda k, shapes, rng: KroneckerSRHT(k, shapes, rng=rng),
}
SHAPES = [(5, 7), (16, 2), (1, 12), (8, 3, 4), (3, 4, 2, 5), (2, 3, 2, 2, 3)]

operators = pytest.mark.parametrize("name", MAKE)
orders = pytest.mark.parametrize("shapes", SHAPES, ids=str)


def factors_of(shapes: Sequence[int], columns: int = 3, dtype: str = "float64", seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    if dtype.startswith("complex"):
        pairs = [rng.standard_normal((2, N, columns)) for N in shapes]
        return [(X[0] + 1j * X[1]).astype(dtype) for X in pairs]
    return [rng.standard_normal((N, columns)).astype(dtype) for N in shapes]


def khatri_rao(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Column by column the Kronecker product, from `np.kron` alone."""
    columns = range(factors[0].shape[1])
    return np.stack([reduce(np.kron, [X[:, j] for X in factors]) for j in columns], axis=1)


def close(found: Any, left: np.ndarray, right: np.ndarray, dtype: Any = "float64") -> None:
    """Assert that `found` is left @ right to rounding; the norms of the factors bound those of all partial results."""
    found = to_host(found)
    assert found.dtype == dtype
    assert found.shape == (left @ right).shape
    allowed = tolerance(dtype, 16 * max(left.shape[-1], 128), np.linalg.norm(left) * np.linalg.norm(right))
    assert np.abs(found - left @ right).max(initial=0.0) <= allowed


# --- against the explicit matrix --------------------------------------------------------------------------------------


@operators
@orders
def test_factors_meet_as_their_kronecker_product(name: str, shapes: tuple[int, ...]) -> None:
    """Columns and whole matrices, first factor slowest, as in `np.kron`."""
    S, factors = MAKE[name](K, shapes, 1), factors_of(shapes)
    table = S.toarray()
    assert S.shape == table.shape == (K, math.prod(shapes))
    close(S.apply_factors(factors), table, khatri_rao(factors))
    mixed = [X[:, : 1 + k % 3] for k, X in enumerate(factors)]
    close(S.apply_kronecker(mixed), table, reduce(np.kron, mixed))
    close(S.apply_factors([X[:, 0] for X in factors]), table, khatri_rao(factors)[:, 0])
    # a test of the test: another order of modes is another matrix
    if shapes[0] != 1 and shapes[::-1] != shapes:
        other = khatri_rao(factors[::-1])
        assert np.abs(table @ other - to_host(S.apply_factors(factors))).max() > 0.1


@operators
@orders
def test_any_matrix(name: str, shapes: tuple[int, ...]) -> None:
    """Dense and sparse matrices of prod(shapes) rows, whole and in blocks, and the adjoint."""
    S, n = MAKE[name](K, shapes, 1), math.prod(shapes)
    table, rng = S.toarray(), np.random.default_rng(2)
    A, Y = rng.standard_normal((n, 5)), rng.standard_normal((K, 4))
    A[A < -0.7] = 0
    for given_A in (A, np.asfortranarray(A), np.hstack([A, A])[:, :5], sp.csr_array(A), sp.csc_array(A)):
        close(S @ given_A, table, A)
    close(S @ A[:, 0], table, A[:, 0])
    close(A.T @ S.T, A.T, table.T)
    close(S.T @ Y, table.T, Y)
    close(S.matmul(A[:7]) + S.matmul(A[7:], start=7), table, A)
    for lo, hi in ((0, n), (3, n - 2), (n - 1, n), (4, 4)):
        assert np.array_equal(S.toarray(lo, hi), table[:, lo:hi])
        close(S.adjoint(Y, start=lo, stop=hi), table[:, lo:hi].T, Y)


@operators
def test_dtypes_and_namespaces(name: str, xp: ModuleType, put: Callable[[Any], Any], any_dtype: str) -> None:
    for shapes in ((5, 7), (3, 4, 2)):
        S, factors = MAKE[name](K, shapes, 1), factors_of(shapes, dtype=any_dtype)
        placed = [put(X) for X in factors]
        product = khatri_rao([X.astype("complex128" if "complex" in any_dtype else "float64") for X in factors])
        found = S.apply_factors(placed)
        assert array_namespace(found) is array_namespace(placed[0])
        assert str(device(found)) == str(device(placed[0]))
        close(found, S.toarray(), product, any_dtype)
        close(S.apply_factors([X[:, 1] for X in placed]), S.toarray(), product[:, 1], any_dtype)
        close(S.apply_kronecker([X[:, :2] for X in placed]), S.toarray(), reduce(np.kron, [X[:, :2] for X in factors]),
              any_dtype)  # fmt: skip
        close(S @ put(product.astype(any_dtype)), S.toarray(), product, any_dtype)


@operators
def test_kinds_of_factors(name: str) -> None:
    """Sparse, strided, integer and mixed factors, in the common floating dtype; none is changed."""
    shapes = (9, 6, 4)
    S, factors = MAKE[name](K, shapes, 1), factors_of(shapes)
    for X in factors:
        X[X < 0] = 0
    truth = khatri_rao(factors)
    before = [X.copy() for X in factors]
    for kind in (sp.csr_array, sp.csc_matrix, np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2]):
        close(S.apply_factors([kind(X) for X in factors]), S.toarray(), truth)
    close(S.apply_factors([sp.csr_array(factors[0]), factors[1], factors[2].tolist()]), S.toarray(), truth)
    assert all(np.array_equal(X, old) for X, old in zip(factors, before, strict=True))
    counts = [np.arange(2 * N).reshape(N, 2) for N in shapes]
    close(S.apply_factors(counts), S.toarray(), khatri_rao(counts))
    single = [factors[0].astype("float32"), *factors[1:]]
    assert S.apply_factors(single).dtype == np.float64
    assert S.apply_factors([X.astype("float32") for X in factors]).dtype == np.float32
    assert S.apply_factors([X.astype("float32") for X in factors[:2]] + [factors[2] + 0j]).dtype == np.complex128


@operators
def test_many_columns_come_in_panels(name: str) -> None:
    """Columns do not know of each other: neither panels nor threads change them."""
    shapes, k = (6, 5, 3), 5000
    S, factors = MAKE[name](k if name != "KroneckerSRHT" else 100, shapes, 1), factors_of(shapes, 250)
    whole = S.apply_factors(factors)
    part = S.apply_factors([X[:, 200:] for X in factors])
    close(whole[:, 200:], np.eye(S.sketch_size), part)
    with randla.threads(2):
        assert np.array_equal(S.apply_factors(factors), whole)
    assert S.apply_factors([X[:, :0] for X in factors]).shape == (S.sketch_size, 0)


@settings(deadline=None, max_examples=200)
@given(
    shapes=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    data=st.data(),
)
def test_mode_indices(shapes: list[int], ends: tuple[float, float], data: Any) -> None:
    """The pieces of a mode that a block runs through, against `np.unravel_index`."""
    n = math.prod(shapes)
    start, stop = sorted(round(end * n) for end in ends)
    mode = data.draw(st.integers(0, len(shapes) - 1))
    pieces, index = mode_indices(shapes, mode, start, stop, np)
    assert all(0 <= lo <= hi <= shapes[mode] for lo, hi in pieces)
    values = np.concatenate([np.arange(lo, hi) for lo, hi in pieces])
    assert len(values) <= min(shapes[mode], stop - start + 1)
    assert np.array_equal(values[index], np.unravel_index(np.arange(start, stop), shapes)[mode])


@pytest.mark.parametrize("name", [name for name in MAKE if name != "KroneckerSRHT"])
def test_huge_modes(name: str) -> None:
    """A block of columns of S costs its own width, wherever it lies in 2**60 columns."""
    shapes, start = (2**30, 2**30), 2**59 + 2**30 - 3
    S = MAKE[name](K, shapes, 1)
    table = S.toarray(start, start + 8)
    assert table.shape == (K, 8)
    A = np.random.default_rng(0).standard_normal((8, 2))
    close(S.matmul(A, start=start), table, A)
    with pytest.raises(AssertionError):
        close(S.matmul(A, start=start + 1), table, A)


def test_entries() -> None:
    """One +-1 to a column; rows that are Kronecker products; orthonormal rows; an isometry with all rows."""
    for shapes in SHAPES:
        table = TensorSketch(K, shapes, rng=3).toarray()
        assert np.array_equal(np.abs(table).sum(0), np.ones(math.prod(shapes)))
        assert set(np.unique(table)) <= {-1.0, 0.0, 1.0}
        sampled = KroneckerSRHT(K, shapes, rng=3)
        N = math.prod(sampled._lengths)
        gram = KroneckerSRHT(K, sampled._lengths, rng=3).toarray()
        assert np.abs(gram @ gram.T - N / K * np.eye(K)).max() <= tolerance("float64", N, N / K)
        full = KroneckerSRHT(N, shapes, rng=3).toarray()
        assert np.abs(full.T @ full - np.eye(math.prod(shapes))).max() <= tolerance("float64", N)
    for make in (KhatriRao, TensorSRHT, KroneckerSRHT):
        rows = make(K, (5, 7), rng=3).toarray().reshape(K, 5, 7)
        assert np.allclose(np.abs(rows), K**-0.5)
        assert all(np.linalg.matrix_rank(row) == 1 for row in rows)


# --- what a sketch promises -------------------------------------------------------------------------------------------

DRAWS = 2000


def products(name: str, k: int, shapes: Sequence[int], factors: Sequence[np.ndarray], key: Any) -> np.ndarray:
    """Gram matrices of the sketched columns, one for each draw."""
    found = []
    for draw in range(DRAWS):
        B = MAKE[name](k, shapes, key.fold(draw)).apply_factors(factors)
        found.append(B.T @ B)
    return np.array(found)


@operators
@pytest.mark.parametrize("shapes", [(9, 6), pytest.param((4, 3, 5), marks=pytest.mark.slow)], ids=str)
def test_isotropy(name: str, shapes: tuple[int, ...], seed: int) -> None:
    """E[S.T @ S] = I: lengths and inner products of Kronecker products are kept on average."""
    factors = factors_of(shapes)
    factors = [X / np.linalg.norm(X, axis=0) for X in factors]
    truth = khatri_rao(factors).T @ khatri_rao(factors)
    gram = products(name, 16, shapes, factors, as_key(seed).fold(f"{name} {shapes}"))
    check_isotropy(gram, truth)
    with pytest.raises(AssertionError):
        check_isotropy(1.2 * gram, truth)


def fourth(x: np.ndarray) -> float:
    """E (sum of sign_i x_i)**4 for a vector of length one."""
    return 3 - 2 * float(np.sum(x**4))


def variance(name: str, k: int, factors: Sequence[np.ndarray]) -> float:
    """The exact variance of ||S z||**2, z the Kronecker product of vectors of length one, one level of merges."""
    if name == "KhatriRao-gaussian":
        return (3 ** len(factors) - 1) / k
    moment = math.prod(fourth(x) for x in factors)
    if name in ("KhatriRao", "TensorSRHT"):
        # rows that are drawn with replacement are uncorrelated: the mean of h_i h_j h_i h_j over j is that of signs
        return (moment - 1) / k
    if name == "KroneckerSRHT":
        N = math.prod(1 << (len(x) - 1).bit_length() for x in factors)
        return (moment - 1) / k * (N - k) / (N - 1)
    # TensorSketch: pairs that differ in one mode meet in 1/k, in both modes in 1/k for the difference of their hashes
    # and, turned over, where it is its own negative: at 0, and at k/2 for an even k
    one, two = (1 - float(np.sum(x**4)) for x in factors)
    return 2 * one / k + 2 * two / k + one * two * (2 / k + (4 if k % 2 == 0 else 2) / k**2)


def lengths(name: str, k: int, factors: Sequence[np.ndarray], key: Any, draws: int = DRAWS) -> np.ndarray:
    shapes = [len(x) for x in factors]
    sketches = (MAKE[name](k, shapes, key.fold(draw)).apply_factors(factors) for draw in range(draws))
    return np.array([y @ y for y in sketches])


def check_variance(found: np.ndarray, exact: float) -> None:
    """Mean and mean square of ||S z||**2 - 1, each within 6 of its standard deviations.

    That is 2e-9 for a normal mean; the margin to 1e-6 is for what the mean of thousands of draws lacks to a normal law.
    """
    check_isotropy(found[:, None, None], np.ones((1, 1)))
    check_isotropy(((found - 1) ** 2)[:, None, None], np.full((1, 1), exact))


def spread(N: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(N)
    return x / np.linalg.norm(x)


def decaying(N: int) -> np.ndarray:
    x = 0.6 ** np.arange(N)
    return x / np.linalg.norm(x)


@operators
@pytest.mark.parametrize(
    ("kind", "k"),
    [("spread", 33)]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in (("spread", 16), ("decaying", 16), ("decaying", 33))],
)
def test_variance(name: str, kind: str, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = [spread(N, rng) if kind == "spread" else decaying(N) for N in (24, 20)]
    exact = variance(name, k, factors)
    found = lengths(name, k, factors, as_key(seed).fold(f"{name} {kind} {k}"))
    check_variance(found, exact)
    with pytest.raises(AssertionError):
        check_variance(found, 2 * exact)


@pytest.mark.parametrize(("name", "measured"), [("TensorSketch", 0.150), ("KhatriRao", 0.171), ("TensorSRHT", 0.171)])
def test_table_of_deviations(name: str, measured: float) -> None:
    """Another program's standard deviations over 300 draws at size 256, of relative error 1/sqrt(600) = 4 % each."""
    rng = np.random.default_rng(0)
    exact = variance(name, 256, [spread(64, rng), spread(64, rng)]) ** 0.5
    assert exact == pytest.approx(measured, rel=4 * 0.04)
    assert exact > 1.5 * math.sqrt(2 / 256), "a Gaussian matrix has less"


@operators
def test_unit_vectors_keep_their_length(name: str) -> None:
    """No variance at all where there is one entry, except with Gaussian entries."""
    shapes = (8, 5, 4)
    factors = [np.eye(N)[:, [N // 2, 0]] for N in shapes]
    values = np.array([np.linalg.norm(MAKE[name](16, (8, 5), s).apply_factors(factors[:2]), axis=0) for s in range(50)])
    assert (np.abs(values - 1).max() <= tolerance("float64", 16)) == (name != "KhatriRao-gaussian")
    if name == "TensorSketch":
        values = np.linalg.norm(MAKE[name](16, shapes, 0).apply_factors(factors), axis=0)
        assert np.abs(values - 1).max() <= tolerance("float64", 16)


@pytest.mark.parametrize("name", ["TensorSketch", "TensorSRHT"])
@pytest.mark.parametrize("q", [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_variance_of_the_tree(name: str, q: int, seed: int) -> None:
    """Each node multiplies the second moment by at most 1 + v: exponential growth would be seen from order 4 on."""
    k, rng, draws = 128, np.random.default_rng(seed), 1000
    v = 6 / k + 4 / k**2 if name == "TensorSketch" else 8 / k
    bound = (1 + v) ** (q - 1) - 1
    found = lengths(name, k, [spread(16, rng) for _ in range(q)], as_key(seed).fold(f"{name} {q}"), draws)
    squares = (found - 1) ** 2
    margin = 6 * squares.std() / draws**0.5  # as in check_variance
    assert abs(found.mean() - 1) <= 6 * found.std() / draws**0.5
    assert squares.mean() <= bound + margin
    assert squares.mean() >= 0.5 * v * (q - 1) - margin, "the bound is nearly reached by factors that are spread out"
    if q == 8:  # what one product of eight sketches has: 3**8 / k, and 2 (2**8 - 1) / k
        assert bound + margin < {"TensorSRHT": 3**q, "TensorSketch": 2 * (2**q - 1)}[name] / k


@pytest.mark.slow
def test_one_merge_of_many_modes_is_exponential(seed: int) -> None:
    """Why there is a tree: signs alone have the variance (3**q - 1) / k, to the fourth moments of the factors."""
    rng, k = np.random.default_rng(seed), 128
    factors = [spread(16, rng) for _ in range(4)]
    exact = variance("KhatriRao", k, factors)
    assert exact > 1.5 * ((1 + 8 / k) ** 3 - 1)
    check_variance(lengths("KhatriRao", k, factors, as_key(seed).fold("flat"), 8000), exact)


def test_kronecker_least_squares(seed: int) -> None:
    """A job for it: min ||(A (x) B) x - b|| from the sketched factors, in the usual excess of n / (k - n - 1)."""
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((40, 4)), rng.standard_normal((30, 3))
    M, b, k = np.kron(A, B), rng.standard_normal(1200), 300
    best = np.linalg.lstsq(M, b)[0]
    residual = np.sum((M @ best - b) ** 2)
    excess = []
    for draw in range(40):
        S = KroneckerSRHT(k, (40, 30), rng=as_key(seed).fold(draw))
        x = np.linalg.lstsq(S.apply_kronecker([A, B]), S @ b)[0]
        excess.append(np.sum((M @ (x - best)) ** 2) / residual)
    # the law 12 / 287 of a Gaussian; 40 draws of about 12 degrees of freedom have a deviation of 7 %, doubled for the
    # heavier tails of a row that is a product of two
    assert np.mean(excess) == pytest.approx(12 / 287, rel=6 * 0.14)


# --- values and errors ------------------------------------------------------------------------------------------------


@operators
def test_operators_are_values(name: str) -> None:
    S = MAKE[name](K, (5, 7), 7)
    assert isinstance(S, SketchOperator)
    assert MAKE[name](K, [5, np.int64(7)], 7) == S
    assert hash(S) == hash(MAKE[name](K, (5, 7), 7))
    others = [MAKE[name](K, (7, 5), 7), MAKE[name](K, (5, 7), 8), MAKE[name](K + 1, (5, 7), 7), S.T, None]
    assert all(other != S for other in others)
    names = {kind.__name__: kind for kind in (KhatriRao, KroneckerSRHT, TensorSketch, TensorSRHT, randla.Key)}
    assert eval(repr(S), names) == S
    assert "\n" not in repr(S)
    assert len(pickle.dumps(S)) < 1024
    assert np.array_equal(pickle.loads(pickle.dumps(S)).toarray(), S.toarray())
    with pytest.raises(dataclasses.FrozenInstanceError):
        S.shapes = (3, 3)
    assert not np.array_equal(MAKE[name](K, (7, 5), 7).toarray(), S.toarray())
    assert S.n == 35
    assert S.key == as_key(7)


def test_all_kinds_are_different() -> None:
    tables = [MAKE[name](16, (8, 8), 7).toarray() for name in MAKE]
    assert all(not np.allclose(one, other) for one, other in itertools.combinations(tables, 2))


BAD_SIZES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "one mode": (lambda: TensorSketch(3, (5,)), ValueError, "shapes must name at least two modes, got (5,)"),
    "a number": (lambda: TensorSketch(3, 35), TypeError, "shapes must be a sequence of at least two integers, got 35"),
    "None": (lambda: KhatriRao(3, None), TypeError, "shapes must be a sequence of at least two integers, got None"),
    "empty mode": (lambda: KhatriRao(3, (5, 0)), ValueError, "each of shapes must be in [1, 4294967296], got 0"),
    "fraction": (lambda: TensorSRHT(3, (5, 2.5)), TypeError, "each of shapes must be an integer, got 2.5"),
    "huge": (lambda: TensorSRHT(3, (2**32, 2**31)), ValueError, "n must be in [0, 4611686018427387904]"),
    "sketch_size": (lambda: TensorSketch(0, (5, 7)), ValueError, "sketch_size must be in [1, 1073741824], got 0"),
    "too many rows": (
        lambda: KroneckerSRHT(65, (5, 7)),
        ValueError,
        "sketch_size must be in [1, 64], got 65; rows are sampled without repetition",
    ),
    "huge when padded": (
        lambda: KroneckerSRHT(3, (2**30 + 1, 2**30 + 1, 3)),
        ValueError,
        "the product of shapes, padded to powers of two, must be in [1, 4611686018427387904]",
    ),
    "entries": (
        lambda: KhatriRao(3, (5, 7), entries="normal"),
        ValueError,
        "entries must be one of 'sign', 'gaussian', got 'normal'",
    ),
    "rng": (lambda: TensorSketch(3, (5, 7), rng="a"), TypeError, "rng must be None, an int, a SeedSequence"),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_bad_sizes(case: str) -> None:
    make, kind, text = BAD_SIZES[case]
    with pytest.raises(kind, match="^" + re.escape(text)):
        make()


X5, X7 = np.ones((5, 2)), np.ones((7, 2))
BAD_FACTORS: dict[str, tuple[Any, type[Exception], str]] = {
    "an array": (X5, TypeError, "factors must be a list or tuple of arrays, got ndarray"),
    "too few": ([X5], ValueError, "factors must hold one array for each of shapes=(5, 7), got 1"),
    "too many": ([X5, X7, X7], ValueError, "factors must hold one array for each of shapes=(5, 7), got 3"),
    "order": ([X7, X5], ValueError, "factors[0] must have 5 rows to meet shapes=(5, 7), got shape (7, 2)"),
    "text": ([X5, "abc"], TypeError, "factors[1] must be an array or a sparse matrix, got str"),
    "objects": ([X5, np.full((7, 2), None)], TypeError, "factors[1] must have a real or complex numeric dtype"),
    "masked": ([np.ma.ones((5, 2)), X7], TypeError, "factors[0] must be a plain array, got a masked array"),
    "three axes": ([X5, np.ones((7, 2, 2))], ValueError, "factors[1] must be 1-D or 2-D, got shape (7, 2, 2)"),
}


@operators
@pytest.mark.parametrize("case", BAD_FACTORS)
def test_bad_factors(name: str, case: str) -> None:
    factors, kind, text = BAD_FACTORS[case]
    S = MAKE[name](3, (5, 7), 1)
    for apply in (S.apply_factors, S.apply_kronecker):
        with pytest.raises(kind, match="^" + re.escape(text)):
            apply(factors)


def test_columns_must_agree() -> None:
    S = TensorSketch(3, (5, 7), rng=1)
    for factors in ([X5, X7[:, :1]], [X5[:, 0], X7], [X5, X7[:, 0]]):
        with pytest.raises(ValueError, match=r"^factors must have equal numbers of columns, got shapes .*kronecker"):
            S.apply_factors(factors)
    with pytest.raises(ValueError, match=r"^factors must be 2-D, got shapes \[\(5,\), \(7,\)\]; use apply_factors"):
        S.apply_kronecker([X5[:, 0], X7[:, 0]])
    with pytest.raises(ValueError, match=r"^A must have n = 35 rows to meet"):
        S @ np.ones((34, 2))
    import array_api_strict

    with pytest.raises(ValueError, match=r"^factors\[0\] and factors\[1\] must live in one array library"):
        S.apply_factors([X5, array_api_strict.asarray(X7)])


@operators
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_entries_stay_in_their_column(name: str, value: float) -> None:
    S, factors = MAKE[name](K, (5, 7), 1), factors_of((5, 7))
    good = S.apply_factors(factors)
    factors[0][2, 1] = value
    with np.errstate(invalid="ignore"):
        found = S.apply_factors(factors)
    assert not np.all(np.isfinite(found[:, 1]))
    assert np.array_equal(found[:, [0, 2]], good[:, [0, 2]])
