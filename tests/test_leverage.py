"""Leverage and ridge leverage scores: oracles, invariances, storages, namespaces, bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from randla import RowBlocks, as_key
from randla._arrays import eps, to_host
from randla.datasets import SPECTRA, orthonormal_columns, sparse_matrix, spectrum, with_spectrum
from randla.qr import triangular_factor
from randla.sampling.scores import leverage_scores, ridge_leverage_scores, row_leverage

from .conftest import tolerance
from .statistics import chi_square_interval

EXACT = ["auto", "qr", "gram"]
METHODS = [*EXACT, "sketch"]


def graded(m: int, n: int, condition: float, dtype: str = "float64", coherence: str = "low") -> np.ndarray:
    s = np.logspace(0, -math.log10(condition), n)
    return with_spectrum(m, n, s, dtype=dtype, coherence=coherence, rng=0)


def oracle(A: np.ndarray, rank: int | None = None, alpha: float = 0.0) -> np.ndarray:
    """Scores from the SVD in double precision."""
    U, s, _ = np.linalg.svd(np.asarray(A, np.complex128 if A.dtype.kind == "c" else np.float64), full_matrices=False)
    rank = len(s) if rank is None else rank
    return np.sum(np.abs(U[:, :rank]) ** 2 * (s[:rank] ** 2 / (s[:rank] ** 2 + alpha)), axis=1)


def extended_oracle(A: np.ndarray) -> np.ndarray:
    """Scores from `A T`, with a T that makes it well-conditioned, and its Gram matrix, in the widest floats here."""
    n = A.shape[1]
    R = np.linalg.qr(A)[1]
    W = A.astype(np.longdouble) @ np.linalg.inv(R).astype(np.longdouble)
    G = W.T @ W
    inverse = np.linalg.inv(G.astype(np.float64)).astype(np.longdouble)
    for _ in range(3):  # Newton: the error of the inverse is squared each time
        inverse = inverse + inverse @ (np.eye(n, dtype=np.longdouble) - G @ inverse)
    return np.sum((W @ inverse) * W, axis=1)


def check_are_scores(scores: np.ndarray, rank: float, size: int, condition: float = 1.0) -> None:
    assert np.all(scores >= 0)
    assert np.all(scores <= 1)
    assert abs(scores.astype(np.float64).sum() - rank) <= tolerance(scores.dtype, size, condition * max(1.0, rank))


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("condition", "most"), [(1e1, 1e-12), (1e3, 1e-10), (1e8, 1e-6)])
def test_relative_error_of_every_row(condition: float, most: float, uneven: bool) -> None:
    """The marks: 1e-10 at condition number 1e3, 1e-6 at 1e8, for rows with a thousandth of the mean score at least."""
    A = graded(5_000, 50, condition)
    if uneven:
        A *= 10.0 ** np.random.default_rng(0).uniform(-3, 3, (5_000, 1))
    exact = extended_oracle(A)
    counts = exact > 1e-3 * exact.mean()
    assert np.sum(counts) > 1_000
    for method in ("auto", "qr"):
        scores = leverage_scores(A, method=method, rng=0)
        assert float(np.abs(scores[counts] / exact[counts] - 1).max()) <= most
        check_are_scores(scores, 50, A.size, condition)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9, 1e12, 1e14, 1e15])
@pytest.mark.parametrize("m", [100, 4_000])
def test_error_grows_as_the_condition(m: int, condition: float) -> None:
    A = graded(m, 20, condition)
    scores = leverage_scores(A, rng=0)
    check_are_scores(scores, 20, A.size, min(condition, 1e9))  # from 1e9 on the two halves hold the sum to rounding
    # the scores of A itself move that much when its entries are rounded
    assert np.abs(scores - oracle(A)).max() <= condition * tolerance("float64", 20, oracle(A).max())


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(2_000, 10), (60, 10), (10, 10), (7, 1)])
def test_against_the_singular_value_decomposition(shape: tuple[int, int], dtype: str, method: str) -> None:
    A = graded(*shape, 5.0, dtype)
    before = A.copy()
    scores = leverage_scores(A, method=method, rng=0)
    assert np.array_equal(A, before)
    assert scores.dtype == A.real.dtype
    assert scores.shape == shape[:1]
    check_are_scores(scores, shape[1], A.size, 25.0)
    assert np.abs(scores - oracle(A)).max() <= 25.0 * tolerance(dtype, shape[1])


@pytest.mark.parametrize("kind", SPECTRA)
def test_the_zoo(kind: str) -> None:
    s = spectrum(kind, 24)
    A = with_spectrum(900, 24, s, coherence="high", rng=2)
    rank = int(np.sum(s > 1e-13 * s[0]))
    scores = leverage_scores(A, rng=0)
    assert np.abs(scores - oracle(A, rank)).max() <= s[0] / s[rank - 1] * tolerance("float64", A.size)
    assert abs(scores.sum() - rank) <= s[0] / s[rank - 1] * tolerance("float64", A.size)


def test_gram_is_taken_only_where_it_is_accurate() -> None:
    """At condition number 1e5 the Gram matrix loses ten digits, and "auto" does not."""
    A = graded(20_000, 20, 1e5)
    exact = oracle(A)
    assert np.abs(leverage_scores(A, rng=0) / exact - 1).max() <= 1e5 * tolerance("float64", 400)
    with pytest.raises(ValueError, match='condition number of at most 165140 for method="gram"'):
        leverage_scores(graded(20_000, 20, 1e6), method="gram")
    well = graded(20_000, 20, 10.0)
    gram, auto = leverage_scores(well, method="gram", rng=0), leverage_scores(well, rng=0)
    assert np.array_equal(gram, auto)
    assert not np.array_equal(leverage_scores(A, method="gram", rng=0), leverage_scores(A, rng=0))


# --- structure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "qr", "sketch"])
def test_dependent_columns(method: str) -> None:
    A = with_spectrum(3_000, 14, np.where(np.arange(14) < 6, 1.0, 0.0), rng=0)
    scores = leverage_scores(A, method=method, rng=0)
    check_are_scores(scores, 6, A.size, 10.0)
    if method != "sketch":
        assert np.abs(scores - oracle(A, 6)).max() <= tolerance("float64", A.size)
    with pytest.raises(ValueError, match="full column rank"):
        leverage_scores(A, method="gram")


@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_and_heavy_rows(method: str) -> None:
    A = graded(2_000, 8, 3.0)
    A[100:200] = 0.0
    A[7] = 0.0
    A[7, 3] = 1e6  # alone in its column as far as rounding can tell
    scores = leverage_scores(A, method="qr" if method == "gram" else method, rng=0)
    assert np.all(scores[100:200] == 0.0)
    assert scores[7] > 1 - 1e-9 if method != "sketch" else scores[7] > 0.1
    zero = leverage_scores(0.0 * A, method="sketch" if method == "sketch" else "auto", rng=0)
    assert np.all(zero == 0.0)


def test_coherent_rows_that_a_sample_misses() -> None:
    """Each column lives in one row of 20,000: a sample of rows does not see it, and the scores must."""
    A = np.zeros((20_000, 10))
    rows = np.arange(10) * 1_999 + 3
    A[rows, np.arange(10)] = np.logspace(0, -9, 10)
    scores = leverage_scores(A, rng=0)
    assert np.all(scores[rows] == pytest.approx(1.0, abs=tolerance("float64", 10)))
    assert scores.sum() == pytest.approx(10.0, abs=tolerance("float64", 100))
    A += 1e-12 * with_spectrum(20_000, 10, np.ones(10), rng=0)  # now the sample sees something, of the wrong size
    scores = leverage_scores(A, rng=0)
    assert np.all(scores[rows] == pytest.approx(1.0, abs=1e-5))


@pytest.mark.parametrize("m", [4, 9])
def test_wide_matrices_of_full_row_rank(m: int) -> None:
    A = graded(10, 10, 3.0)[:m]
    assert np.abs(leverage_scores(A, rng=0) - 1.0).max() <= tolerance("float64", 10, 3.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 2**20))
def test_invariance(m: int, n: int, seed: int) -> None:
    """Scores follow a permutation of the rows, and do not see a change of basis of the columns."""
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((m, n))
    scores = leverage_scores(A, rng=seed)
    condition = np.linalg.cond(A)
    order = generator.permutation(m)
    assert np.abs(leverage_scores(A[order], rng=seed) - scores[order]).max() <= condition * tolerance("float64", m * n)
    B = np.linalg.qr(generator.standard_normal((n, n)))[0] * 10.0 ** generator.uniform(-3, 3, n)
    mixed = leverage_scores(A @ B, rng=seed)
    assert np.abs(mixed - scores).max() <= condition * 1e6 * tolerance("float64", m * n)
    check_are_scores(scores, min(m, n), A.size, condition)


def test_a_row_split_in_two_shares_its_score() -> None:
    A = graded(500, 6, 10.0)
    scores = leverage_scores(A, rng=0)
    doubled = leverage_scores(np.vstack([A[:1] / 2**0.5, A[:1] / 2**0.5, A[1:]]), rng=0)
    assert doubled[:2] == pytest.approx(scores[0] / 2, rel=100 * tolerance("float64", 6))
    assert doubled[2:] == pytest.approx(scores[1:], rel=100 * tolerance("float64", 6))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-20, 1e20, 1e200])
def test_scaled_data(scale: float) -> None:
    A = graded(3_000, 8, 10.0)
    assert leverage_scores(A * scale, rng=0) == pytest.approx(
        leverage_scores(A, rng=0), rel=100 * tolerance("float64", 8)
    )


def test_scaled_columns() -> None:
    A = graded(3_000, 8, 10.0)
    scaled = A * 10.0 ** np.array([-100, -50, -10, -1, 0, 10, 50, 100])
    for method in ("auto", "qr"):
        scores = leverage_scores(scaled, method=method, rng=0)
        assert scores == pytest.approx(leverage_scores(A, rng=0), rel=100 * tolerance("float64", 8))


# --- storages and namespaces ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", ["csr", "csc", "fortran", "strided", "blocks", "sparse blocks", "memory map", "operator"]
)
def test_storages(kind: str, method: str, tmp_path: Path) -> None:
    A = sparse_matrix(4_000, 12, 20_000, rng=0)
    dense = A.toarray()
    wide = np.zeros((8_000, 12))
    wide[::2] = dense
    np.save(tmp_path / "A.npy", dense)
    source: Any = {
        "csr": A.tocsr(), "csc": A.tocsc(), "fortran": np.asfortranarray(dense), "strided": wide[::2],
        "blocks": RowBlocks.from_array(dense, block_bytes=10_000),
        "sparse blocks": RowBlocks.from_array(A.tocsr(), block_bytes=10_000),
        "memory map": np.load(tmp_path / "A.npy", mmap_mode="r"), "operator": aslinearoperator(dense),
    }[kind]  # fmt: skip
    scores = leverage_scores(source, method=method, rng=0)
    if method == "sketch":
        assert scores == pytest.approx(leverage_scores(dense, method="sketch", rng=0), rel=1e-9)
    else:
        assert scores == pytest.approx(oracle(dense), rel=np.linalg.cond(dense) ** 2 * tolerance("float64", dense.size))


def test_integers_and_lists() -> None:
    A = np.random.default_rng(0).integers(-5, 6, (300, 4))
    for source in (A, A.astype(np.int8), A.tolist(), sp.csr_array(A)):
        assert leverage_scores(source, rng=0) == pytest.approx(oracle(A), rel=tolerance("float64", A.size, 10.0))


@pytest.mark.parametrize("method", METHODS)
def test_namespaces_agree(method: str, xp: Any, put: Any) -> None:
    A = graded(1_200, 6, 50.0)
    scores = leverage_scores(put(A), method=method, rng=0)
    ridge = ridge_leverage_scores(put(A), 0.1, method=method, rng=0)
    assert np.abs(to_host(scores) - leverage_scores(A, method=method, rng=0)).max() <= 2500 * tolerance("float64", 6)
    exact = ridge_leverage_scores(A, 0.1, method=method, rng=0)
    assert np.abs(to_host(ridge) - exact).max() <= 2500 * tolerance("float64", 6)


def test_rows_of_another_matrix_and_weights(generator: np.random.Generator) -> None:
    A, weights = graded(2_000, 7, 100.0), np.random.default_rng(0).random(2_000)
    factor = triangular_factor(A, key=as_key(0), weights=weights)
    exact = oracle(np.sqrt(weights)[:, None] * A)
    for source in (A, sp.csr_array(A), RowBlocks.from_array(A, block_bytes=9_999)):
        assert row_leverage(source, factor, weights) == pytest.approx(exact, rel=100 * tolerance("float64", 49))
    assert row_leverage(A[:50], factor.R, weights[:50]) == pytest.approx(exact[:50], rel=100 * tolerance("float64", 49))


# --- ridge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1e-12, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("condition", [10.0, 1e5, 1e12])
@pytest.mark.parametrize("method", ["auto", "qr"])
def test_ridge_scores(method: str, condition: float, alpha: float) -> None:
    A = graded(2_000, 15, condition)
    s = np.logspace(0, -math.log10(condition), 15)
    scores = ridge_leverage_scores(A, alpha, method=method, rng=0)
    # the problem of [A; sqrt(alpha) I]
    effective = math.sqrt((1 + alpha) / (s[-1] ** 2 + alpha))
    assert np.abs(scores - oracle(A, alpha=alpha)).max() <= effective * tolerance("float64", 15)
    dimension = np.sum(s**2 / (s**2 + alpha))
    assert scores.sum() == pytest.approx(dimension, rel=effective * tolerance("float64", A.size))


def test_ridge_of_dependent_columns_by_every_method() -> None:
    A = with_spectrum(3_000, 10, np.where(np.arange(10) < 4, 1.0, 0.0), rng=0)
    exact = oracle(A, 4, alpha=0.5)
    for method in EXACT:
        scores = ridge_leverage_scores(A, 0.5, method=method, rng=0)
        assert np.abs(scores - exact).max() <= tolerance("float64", A.size)
    with pytest.raises(ValueError, match="full column rank"):
        ridge_leverage_scores(A, 0.0, method="gram")
    assert np.all(ridge_leverage_scores(A, 1e300, rng=0) < 1e-290)


def test_ridge_scores_fall_with_the_ridge() -> None:
    A = graded(500, 9, 1e4)
    before = leverage_scores(A, rng=0)
    for alpha in np.logspace(-10, 2, 13):
        after = ridge_leverage_scores(A, alpha, rng=0)
        assert np.all(after <= before + 1e4 * tolerance("float64", 9))
        before = after


# --- sketched scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coherence", ["low", "high"])
def test_sketched_scores_are_within_a_constant_factor(coherence: str, seed: int) -> None:
    """Without projection: (1 +- e)**-2 with the distortion e of this very sketch, scaled by the sum."""
    A = graded(20_000, 20, 1e6, coherence=coherence)
    exact, scores = oracle(A), leverage_scores(A, method="sketch", rng=seed)
    counts = exact > 1e-8
    ratio = scores[counts] / exact[counts]
    # 0.7: at 4 n rows the singular values of S U lie in [0.4, 1.55] in every draw of the table in the specification
    assert ratio.min() >= (1 + 0.7) ** -2 * (1 - 0.7) ** 2
    assert ratio.max() / ratio.min() <= ((1 + 0.7) / (1 - 0.7)) ** 2
    assert scores.sum() == pytest.approx(20.0, rel=1e-9) or scores.max() == 1.0


def test_projected_scores_spread_as_chi_square(seed: int) -> None:
    """100 columns go to 32 Gaussian ones: each score is multiplied by a chi-square of 32 degrees over 32, or nearly."""
    A = orthonormal_columns(6_000, 100, rng=0)
    exact, scores = oracle(A), leverage_scores(A, method="sketch", rng=seed)
    low, high = chi_square_interval(32, 1e-6 / 6_000)
    factor = (1 + 0.7) ** 2 / (1 - 0.7) ** 2
    assert np.all(scores >= low / 32 / factor * exact)
    assert np.all(scores <= np.minimum(high / 32 * factor * exact, 1.0))
    assert scores.sum() == pytest.approx(100.0, rel=1e-9)


def test_equal_keys_give_equal_scores() -> None:
    A = graded(3_000, 12, 1e4)
    for method in ("qr", "sketch"):
        assert np.array_equal(leverage_scores(A, method=method, rng=5), leverage_scores(A, method=method, rng=5))
    assert not np.array_equal(leverage_scores(A, method="sketch", rng=5), leverage_scores(A, method="sketch", rng=6))


# --- bad input and trivial cases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 0), (6, 0), (0, 3)])
def test_empty(shape: tuple[int, int], method: str) -> None:
    for scores in (
        leverage_scores(np.ones(shape), method=method),
        ridge_leverage_scores(np.ones(shape), 1.0, method=method),
    ):
        assert scores.shape == shape[:1]
        assert np.all(scores == 0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("m", [40, 5_000])
def test_nonfinite(m: int, bad: float, method: str) -> None:
    A = graded(m, 4, 2.0)
    A[m - 1, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        leverage_scores(A, method=method)
    with pytest.raises(ValueError, match="finite"):
        ridge_leverage_scores(A, 1.0, method=method)


@pytest.mark.parametrize(
    ("A", "arguments", "error", "message"),
    [
        (np.ones(4), {}, ValueError, "A must be 2-D"),
        (np.array([["a"]]), {}, TypeError, "A must have a real or complex numeric dtype"),
        (None, {}, TypeError, "A must be an array"),
        (
            np.ones((4, 2)),
            {"method": "svd"},
            ValueError,
            "method must be one of 'auto', 'qr', 'gram', 'sketch', got 'svd'",
        ),
        (np.ones((4, 2)), {"rng": "x"}, TypeError, "rng must be"),
    ],
)
def test_bad_input(A: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        leverage_scores(A, **arguments)
    with pytest.raises(error, match=message):
        ridge_leverage_scores(A, 1.0, **arguments)


@pytest.mark.parametrize(
    ("alpha", "error"), [(-1.0, ValueError), (np.nan, ValueError), (np.inf, ValueError), ("1", TypeError)]
)
def test_bad_ridge(alpha: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="alpha must be"):
        ridge_leverage_scores(np.eye(3), alpha)


def test_single_precision_error_is_that_of_single_precision() -> None:
    A = graded(5_000, 10, 100.0, "float32")
    assert np.abs(leverage_scores(A, rng=0) - oracle(A)).max() <= 100 * 8 * eps("float32") * oracle(A).max()
