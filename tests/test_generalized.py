"""Generalized Nystrom: accuracy and its table, one pass over every storage, partitions, stated errors, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla import RowBlocks
from randla._arrays import eps, to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.datasets import with_spectrum
from randla.linear_maps import as_linear_map
from randla.lowrank.generalized import SKETCHES, generalized_nystrom
from randla.lowrank.projectors import core_matrix

from .conftest import tolerance
from .statistics import binomial_upper


def relative(A: np.ndarray, D: Any) -> float:
    return float(np.linalg.norm(A - to_host(D)) / np.linalg.norm(A))


def harmonic(m: int = 120, n: int = 90, dtype: Any = "float64") -> np.ndarray:
    return with_spectrum(m, n, 1 / np.arange(1.0, min(m, n) + 1), dtype=dtype, rng=0)


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", ["auto", *SKETCHES])
def test_rank_beyond_the_numerical_one(sketch: str) -> None:
    """Singular values exp(-0.3 j) at rank 150, where they are 3e-20: the table has 5e-15 to 2e-14, and 0.23 naively."""
    A = with_spectrum(600, 400, np.exp(-0.3 * np.arange(400)), rng=0)
    result = generalized_nystrom(A, 150, sketch=sketch, rng=1)
    error = relative(A, result.to_dense())
    assert error <= 2e-14
    assert error / 2 <= result.error <= 2 * error
    assert 105 <= result.rank <= 116  # 5 eps is reached at singular value 113
    # what the table calls naive, and the same pseudo-inverse formed rather than kept as factors
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((400, 150)), rng.standard_normal((600, 225))
    core = Y.T @ A @ X
    naive = A @ X @ np.linalg.pinv(core, rcond=0.0) @ (Y.T @ A)
    formed = A @ X @ np.linalg.pinv(core, rcond=5 * eps("float64")) @ (Y.T @ A)
    assert relative(A, naive) > 0.05
    assert relative(A, formed) > 1e-4


@pytest.mark.parametrize("decay", ["harmonic", "exponential"])
def test_error_beside_that_of_two_passes(decay: str) -> None:
    """1.5 to 2 times the error of a randomized SVD with two passes: in theory the root of 3 at oversampling 1.5."""
    s = 1 / np.arange(1.0, 401) if decay == "harmonic" else np.exp(-0.05 * np.arange(400))
    A = with_spectrum(600, 400, s, rng=0)
    ratios = []
    for seed in range(20):
        Q = np.linalg.qr(A @ np.random.default_rng(seed).standard_normal((400, 60)))[0]
        two_passes = relative(A, Q @ (Q.T @ A))
        ratios.append(relative(A, generalized_nystrom(A, 60, sketch="gaussian", rng=seed).to_dense()) / two_passes)
    assert 1.5 <= float(np.mean(ratios)) <= 2.0


def test_bound_of_the_theorem() -> None:
    """The mean squared error of Gaussian sketches against the expectation proved, for the best inner rank.

    Twenty draws; their mean is far below the bound, so the false-alarm probability is nothing to speak of.
    """
    s = 1 / np.arange(1.0, 201)
    A = with_spectrum(300, 200, s, rng=0)
    rank, width = 30, 45
    tails = np.cumsum((s**2)[::-1])[::-1]
    inner = min((1 + k / (rank - k - 1)) * tails[k] for k in range(rank - 1))
    bound = (1 + rank / (width - rank - 1)) * inner
    squares = [
        np.linalg.norm(A - generalized_nystrom(A, rank, sketch="gaussian", rng=i).to_dense()) ** 2 for i in range(20)
    ]
    assert float(np.mean(squares)) <= bound


def test_truncated_it_is_near_the_best() -> None:
    s = 1 / np.arange(1.0, 401)
    A = with_spectrum(600, 400, s, rng=0)
    result = generalized_nystrom(A, 80, oversampling=2.0, rng=0)
    cut = result.truncate(rank=20)
    best = np.linalg.norm(s[20:]) / np.linalg.norm(s)
    assert relative(A, cut.to_dense()) <= 1.3 * best
    assert relative(A, cut.to_dense()) <= cut.error_bound


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_exact_for_low_rank(m: int, n: int, data: st.DataObject) -> None:
    """Exact at rank(A), at any shape, with the sketches as small as that and the identity where they are larger."""
    r = data.draw(st.integers(0, min(m, n)))
    rng = np.random.default_rng([m, n, r])
    A = rng.standard_normal((m, r)) @ rng.standard_normal((r, n))
    rank = data.draw(st.integers(r, min(m, n)))
    result = generalized_nystrom(A, rank, oversampling=2.0, sketch="gaussian", rng=0)
    assert result.rank <= max(rank, 0)
    # the condition number of a Gaussian core is below 1e6 but with probability 1e-6 for each draw
    assert np.linalg.norm(A - result.to_dense()) <= 1e6 * tolerance("float64", m * n, np.linalg.norm(A))


def test_small_sketches_are_not_singular() -> None:
    """Rank 2 of 8 x 6, and rank 20 of 25 columns: signs alone would be singular every 30th and every 10th time."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 6))
        assert generalized_nystrom(A, 2, rng=seed).rank == 2
        assert generalized_nystrom(rng.standard_normal((40, 25)), 20, rng=seed, on_failure="ignore").rank == 20


def test_agrees_with_the_general_core() -> None:
    """The factors with the core of `core_matrix` for the same sketches, to 1e-10."""
    A = harmonic()
    result = generalized_nystrom(A, 8, sketch="gaussian", rng=3)
    key = randla.as_key(3).fold("generalized nystrom")
    X = randla.Gaussian(8, 90, rng=key.fold("columns"))
    Y = randla.Gaussian(12, 120, rng=key.fold("rows"))
    F, H = X.rmatmul(A), Y.matmul(A).T
    core = core_matrix(A, F, H, left_test=Y, right_test=X, allow_rank_deficient=True)
    assert relative(F @ core @ H.T, result.to_dense()) <= 1e-10
    assert np.linalg.norm(core - np.linalg.pinv(Y.toarray() @ A @ X.toarray().T)) <= 1e-10 * np.linalg.norm(core)


# --- storages ---------------------------------------------------------------------------------------------------------


def test_every_storage_gives_the_same(any_dtype: str) -> None:
    A = harmonic(dtype=any_dtype)
    A[np.abs(A) < 0.002] = 0
    wanted = generalized_nystrom(A, 20, rng=5)  # both sketches are sparse
    assert wanted.F.dtype == wanted.H.dtype == A.dtype
    assert relative(A, wanted.to_dense()) <= wanted.error_bound
    blocks = RowBlocks.from_array(A, block_bytes=31 * 90 * A.itemsize)
    sparse_blocks = RowBlocks.from_array(sp.csr_array(A), block_bytes=40_000)
    sources = [sp.csr_array(A), sp.csc_array(A), blocks, sparse_blocks, iter([A[:50], A[50:50], A[50:]]), A.T.copy().T]
    for source in sources:
        result = generalized_nystrom(source, 20, rng=5)
        assert result.n_passes == 1
        assert result.n_matvecs == 20 + 30 + 10
        slack = tolerance(any_dtype, 120, 100)
        assert relative(wanted.to_dense(), result.to_dense()) <= slack
        assert result.error == pytest.approx(wanted.error, rel=slack)
        assert result.norm == pytest.approx(np.linalg.norm(A), rel=slack)
    assert blocks.n_passes == sparse_blocks.n_passes == 1


def test_linear_operator(any_dtype: str) -> None:
    """Two panels, however many columns: the sketches are those of the stored matrix."""
    A = harmonic(dtype=any_dtype)
    calls = []

    class Counted:
        shape, dtype = A.shape, A.dtype
        matvec = rmatvec = None

        def matmat(self, X: Any) -> Any:
            calls.append(("matmat", X.shape[1]))
            return A @ X

        def rmatmat(self, Y: Any) -> Any:
            calls.append(("rmatmat", Y.shape[1]))
            return A.conj().T @ Y

    result = generalized_nystrom(Counted(), 12, rng=5)
    assert calls == [("matmat", 12), ("rmatmat", 28)]
    assert (result.n_passes, result.n_matvecs) == (2, 40)
    wanted = generalized_nystrom(A, 12, rng=5)
    assert relative(wanted.to_dense(), result.to_dense()) <= tolerance(any_dtype, 120, 100)
    assert relative(A, result.to_dense()) <= result.error_bound
    centred = generalized_nystrom(as_linear_map(A, center=True), 12, rng=5)
    assert relative(A - A.mean(axis=0), centred.to_dense()) <= centred.error_bound


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5), st.sampled_from(["auto", *SKETCHES]))
def test_any_partition(cuts: list[int], sketch: str) -> None:
    A = harmonic(60, 40)
    bounds = [0, *sorted(cuts), 60]
    pieces = [A[lo:hi] for lo, hi in pairwise(bounds)]
    whole = generalized_nystrom(A, 8, sketch=sketch, rng=1, on_failure="ignore")
    parts = generalized_nystrom(iter(pieces), 8, sketch=sketch, rng=1, on_failure="ignore")
    assert whole.status is parts.status
    assert relative(whole.to_dense(), parts.to_dense()) <= tolerance("float64", 60, 1e3)


def test_namespaces(xp: Any, put: Callable[[Any], Any], dtype: str) -> None:
    A = harmonic(60, 40, dtype)
    wanted = generalized_nystrom(A, 8, rng=1)
    result = generalized_nystrom(put(A), 8, rng=1)
    assert dtype in str(result.F.dtype)
    assert result.F.device == put(A).device
    assert relative(to_host(wanted.to_dense()), result.to_dense()) <= tolerance(dtype, 60, 1e3)
    assert result.error == pytest.approx(wanted.error, rel=tolerance(dtype, 60, 1e3))


@pytest.mark.parametrize("kind", ["dense", "csr", "operator"])
@pytest.mark.parametrize("shape", [(30, 30), (30, 7), (7, 30), (0, 4), (4, 0)])
def test_ranks_at_the_ends(shape: tuple[int, int], kind: str) -> None:
    A = np.random.default_rng(0).standard_normal(shape)
    source = {"dense": A, "csr": sp.csr_array(A), "operator": aslinearoperator(A)}[kind]
    for rank in (0, min(shape)):
        result = generalized_nystrom(source, rank, rng=0)
        assert result.rank == rank
        assert result.status is Status.CONVERGED
        assert result.F.shape == (shape[0], rank)
        assert result.H.shape == (shape[1], rank)
        if rank:
            assert relative(A, result.to_dense()) <= 1e6 * tolerance("float64", A.size)
            assert result.error <= 1e6 * tolerance("float64", A.size)
        elif A.size:
            assert result.error_bound >= 1.0


def test_integers_and_zero() -> None:
    A = np.arange(48).reshape(8, 6)
    result = generalized_nystrom(A, 2, rng=0)
    assert result.F.dtype == np.float64
    assert relative(A, result.to_dense()) <= tolerance("float64", 48, 1e3)
    zero = generalized_nystrom(np.zeros((8, 6)), 3, rng=0)
    assert zero.rank == 0
    assert zero.error == 0.0
    assert zero.status is Status.CONVERGED


# --- what it says of its error ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "operator"])
def test_coverage_of_the_bound(kind: str) -> None:
    """500 seeds: the true error exceeds `error_bound` in at most 1 % of the draws (false alarm 1e-6)."""
    s = 1 / np.arange(1.0, 31)
    A = with_spectrum(40, 30, s, rng=0)
    source = A if kind == "stored" else aslinearoperator(A)
    misses = 0
    for seed in range(500):
        result = generalized_nystrom(source, 6, rng=seed, on_failure="ignore")
        assert result.confidence == 0.99
        misses += relative(A, result.to_dense()) > result.error_bound
    assert misses <= binomial_upper(500, 0.01)


def test_breakdown_is_told() -> None:
    """On a flat spectrum the noise of square sketches outweighs what they caught."""
    A = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 100)))[0]
    with pytest.warns(ConvergenceWarning, match="generalized_nystrom ended with Status.BREAKDOWN"):
        result = generalized_nystrom(A, 10, oversampling=1.0, rng=0)
    assert result.error > 1.0
    assert not result.converged


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["stored", "operator"])
def test_nonfinite_is_told(value: float, kind: str) -> None:
    A = harmonic(40, 30)
    A[3, 4] = value
    source = A if kind == "stored" else aslinearoperator(A)
    with pytest.raises(ConvergenceError) as caught:
        generalized_nystrom(source, 5, on_failure="raise", rng=0)
    result = caught.value.result
    assert result.status is Status.NONFINITE
    assert result.rank == 0
    assert math.isnan(result.error)
    assert result.error_bound == math.inf


def test_scaling() -> None:
    """Entries of 1e-150 and 1e150 change nothing but the scale."""
    A = harmonic(60, 40)
    wanted = generalized_nystrom(A, 8, rng=1)
    for scale in (2.0**-500, 2.0**500):
        result = generalized_nystrom(A * scale, 8, rng=1)
        assert relative(wanted.to_dense(), result.to_dense() / scale) <= tolerance("float64", 60, 1e3)
        assert result.error == pytest.approx(wanted.error, rel=1e-10)


def test_bad_input() -> None:
    A = harmonic(40, 30)
    for call, message in [
        (lambda: generalized_nystrom(A, 31), r"rank must be in \[0, 30\], got 31"),
        (lambda: generalized_nystrom(A, -1), "rank must be in"),
        (lambda: generalized_nystrom(A, 5, oversampling=0.9), "oversampling must be finite and in"),
        (lambda: generalized_nystrom(A, 5, oversampling=math.inf), "oversampling must be finite"),
        (lambda: generalized_nystrom(A, 5, sketch="srht"), "sketch must be one of 'auto', 'sparse-sign'"),
        (lambda: generalized_nystrom(A, 5, rcond=1.0), "rcond must be finite and in"),
        (lambda: generalized_nystrom(A, 5, n_probes=0), "n_probes must be at least 1"),
        (lambda: generalized_nystrom(A, 5, on_failure="shout"), "on_failure must be one of"),
        (lambda: generalized_nystrom(iter([A[:3]]), 5), "rank must be at most the number of rows, got 5 for 3 rows"),
        (lambda: generalized_nystrom(iter([A]), 31), "rank must be in|rank must be at most"),
        (lambda: generalized_nystrom(iter([]), 5), "A must yield at least one block"),
        (lambda: generalized_nystrom(A[0], 1), "A must be 2-D"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="rank must be an integer"):
        generalized_nystrom(A, 5.0)
    with pytest.raises(TypeError, match="A must"):
        generalized_nystrom("A", 5)
