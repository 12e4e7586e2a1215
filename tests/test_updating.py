"""An SVD kept up to date is the one of Zha and Simon, costs what its entries cost, and says how wrong it is."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla.updating import UpdatableSVD, model
from randla.updating.ledger import Ledger
from randla.updating.pairs import as_batch, whiten

from .conftest import tolerance

EPS = np.finfo(float).eps


def sparse(m: int, n: int, density: float, seed: int = 0, dtype: str = "float64") -> sp.csr_array:
    rng = np.random.default_rng(seed)
    A = sp.random_array((m, n), density=density, rng=rng, data_sampler=rng.standard_normal)
    return sp.csr_array(A, dtype=dtype)


def low_rank(m: int, n: int, r: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, r)) @ rng.standard_normal((r, n))


def graded(m: int, n: int, seed: int = 0) -> np.ndarray:
    """Singular values 1, 0.8, 0.64, ..."""
    rng = np.random.default_rng(seed)
    k = min(m, n)
    U = np.linalg.qr(rng.standard_normal((m, k)))[0]
    V = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return (U * 0.8 ** np.arange(k)) @ V.T


def prominent(m: int, n: int, k: int) -> UpdatableSVD:
    """A model with singular values that no sparse row displaces."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    return UpdatableSVD.from_factors(U, np.linspace(200.0, 100.0, k), V.T)


def truncated(A: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    U, s, Vh = np.linalg.svd(A, full_matrices=False)
    return U[:, :k], s[:k], Vh[:k]


def dense_update(U: Any, s: Any, Vh: Any, E: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The update of Zha and Simon by rows, with dense factors and Householder QR."""
    k, V = len(s), Vh.T
    C = V.T @ E.T
    Q, R = np.linalg.qr(E.T - V @ C)
    M = np.block([[np.diag(s), np.zeros((k, R.shape[0]))], [C.T, R.T]])
    F, t, Gh = np.linalg.svd(M, full_matrices=False)
    U = np.concatenate([U @ F[:k, :k], F[k:, :k]])
    return U, t[:k], (np.concatenate([V, Q], axis=1) @ Gh[:k].T).T


def gap(A: np.ndarray, B: np.ndarray) -> float:
    """Sine of the largest angle between the spans of orthonormal columns."""
    return float(np.linalg.norm(A - B @ (B.T @ A), 2))


def check(tracked: UpdatableSVD, A: np.ndarray, *, slack: float = 0.0) -> Any:
    """The factors are orthonormal, the bound holds, and an exact one is met; returns the decomposition."""
    result = tracked.to_svd()
    U, s, Vh = result
    assert tracked.shape == A.shape == result.shape
    k = len(s)
    eps = np.finfo(U.dtype).eps
    for Q in (U, Vh.T):
        core = max(tracked._left.condition(), tracked._right.condition()) if eps < 1e-10 else 1.0
        assert np.linalg.norm(Q.T @ Q - np.eye(k)) <= max(k, 1) * (100 * eps * core**2 + model._DRIFT["float64"])
    assert np.all(np.diff(tracked.s) <= 0)
    assert np.all(tracked.s >= 0)
    error = float(np.linalg.norm(A - (U.astype(float) * s) @ Vh))
    rounding = tolerance(U.dtype, max(A.shape), 4 * np.linalg.norm(A)) + slack
    assert error <= tracked.error_bound * (1 + 1e-9) + rounding
    if tracked.error_kind == "exact":
        assert error == pytest.approx(tracked.error_bound, rel=1e-9, abs=rounding + 1e-6 * np.linalg.norm(A))
    return result


# --- the table of the specification -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("k", [16, 64])
def test_agrees_with_the_dense_update_at_full_size(k: int) -> None:
    """4,000 rows of 20,000 columns, then 20 batches of 10 sparse rows."""
    A = sparse(4200, 20_000, 1e-3)
    U, s, Vh = sp.linalg.svds(A[:4000], k, v0=np.ones(4000))
    theirs = U[:, ::-1], s[::-1], Vh[::-1]
    ours = UpdatableSVD.from_factors(*theirs)
    for lo in range(4000, 4200, 10):
        ours.append_rows(A[lo : lo + 10])
        theirs = dense_update(*theirs, A[lo : lo + 10].toarray())
    U, s, Vh = ours.to_svd()
    assert np.abs(ours.s / theirs[1] - 1).max() <= 2e-14
    assert gap(Vh.T, theirs[2].T) <= 1e-12
    assert gap(U, theirs[0]) <= 1e-12
    for Q in (U, Vh.T):
        assert np.abs(Q.T @ Q - np.eye(k)).max() <= 1e-13
    assert ours._left.condition() < 1.1
    assert ours._right.condition() < 1.1
    assert ours.n_rebases == 0
    if k == 16:
        best = sp.linalg.svds(A, k, v0=np.ones(4200), return_singular_vectors=False)
        captured = np.sum(s**2) / np.sum(best**2)
        assert captured == pytest.approx(0.9965, abs=0.02)


@pytest.mark.slow
def test_three_thousand_single_rows() -> None:
    A = sparse(7000, 20_000, 1e-3, seed=3)
    U, s, Vh = sp.linalg.svds(A[:4000], 16, v0=np.ones(4000))
    ours = UpdatableSVD.from_factors(U, s, Vh)
    for lo in range(4000, 7000):
        ours.append_rows(A[lo : lo + 1])
    U, _, Vh = ours.to_svd()
    for Q in (U, Vh.T):
        assert np.abs(Q.T @ Q - np.eye(16)).max() <= 1e-12
    for factor in (ours._left, ours._right):
        assert np.linalg.cond(factor.core) < 3  # 1.22 and 1.44 in the specification
        assert factor.n_sweeps == 0
    assert ours._left.n_copied <= 2 * 7000


def test_agrees_with_the_dense_update() -> None:
    A = sparse(300, 800, 0.01, seed=1)
    ours, theirs = UpdatableSVD.from_factors(*truncated(A[:100].toarray(), 8)), truncated(A[:100].toarray(), 8)
    for lo in range(100, 300, 7):
        E = A[lo : min(lo + 7, 300)]
        ours.append_rows(E)
        theirs = dense_update(*theirs, E.toarray())
    U, s, Vh = ours.to_svd()
    assert np.abs(s / theirs[1] - 1).max() <= 2e-14
    assert max(gap(Vh.T, theirs[2].T), gap(U, theirs[0])) <= 1e-12


# --- each kind of update ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "container", [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, np.asarray, np.asfortranarray]
)
@pytest.mark.parametrize("method", ["exact", "gkl", "rpi"])
def test_rows_from_nothing(container: Callable, method: str, dtype: str) -> None:
    A = graded(90, 40).astype(dtype)
    A[np.abs(A) < 0.01] = 0
    tracked = UpdatableSVD(6, method=method, n_directions=4, rng=0)
    for lo in range(0, 90, 15):
        assert tracked.append_rows(container(A[lo : lo + 15])) is tracked
    result = check(tracked, A.astype(float))
    assert result.U.dtype == dtype
    assert tracked.s.dtype == np.float64
    best = math.sqrt(np.sum(np.linalg.svd(A.astype(float))[1][6:] ** 2))
    assert tracked.error_bound <= (1.3 if method == "exact" else 4) * best
    if method == "exact" and dtype == "float64":
        assert tracked.error_kind == "exact"
        assert tracked.norm == pytest.approx(np.linalg.norm(A), rel=1e-12)


@pytest.mark.parametrize("method", ["exact", "gkl", "rpi"])
def test_columns_are_rows_of_the_transpose(method: str) -> None:
    A = sparse(60, 100, 0.1)
    by_rows, by_columns = (UpdatableSVD(5, method=method, n_directions=3, rng=0) for _ in range(2))
    for lo in range(0, 60, 12):
        by_rows.append_rows(A[lo : lo + 12])
        by_columns.append_columns(A.T[:, lo : lo + 12])
    assert np.abs(by_rows.s - by_columns.s).max() <= tolerance("float64", 100, by_rows.s[0])
    assert by_columns.shape == (100, 60)
    check(by_columns, A.T.toarray())


def test_a_table_of_low_rank_is_recovered() -> None:
    """As long as the rank is enough nothing is lost, whatever the updates."""
    rng = np.random.default_rng(4)
    A = low_rank(40, 30, 3)
    tracked = UpdatableSVD(6, rng=0)
    tracked.append_rows(A[:10])
    for lo in range(10, 40, 5):
        tracked.append_rows(A[lo : lo + 5])
    size = np.linalg.norm(A)
    slack = 1e-6 * size  # the resolution of the pairs: sqrt(1e-14) per update

    def matches() -> None:
        assert np.linalg.norm(tracked.to_svd().to_dense() - A) <= tolerance("float64", 40, 20 * size)
        assert tracked.error_bound <= slack
        check(tracked, A)

    matches()
    more = A @ rng.standard_normal((30, 7))
    A = np.concatenate([A, more], axis=1)
    tracked.append_columns(more)
    matches()
    D, E = rng.standard_normal((40, 2)), rng.standard_normal((37, 2))
    A = A + D @ E.T
    tracked.rank_update(D, E)
    matches()
    A = A - D @ E.T
    tracked.rank_update(-D, E)
    matches()
    A, tracked = 0.5 * A, tracked.decay(0.5)
    matches()
    A[[3, 17]] = 0
    tracked.remove_rows([17, 3, 3])
    matches()
    A[:, 5] = 0
    tracked.remove_columns(5)
    matches()
    assert np.abs(tracked.row_embedding(3)).max() == 0
    assert tracked.entries([0, 3, 1], [5, 2, 4])[:2] == pytest.approx(0, abs=tolerance("float64", 40, size))


def test_a_mixture_of_updates_keeps_its_bound(dtype: str) -> None:
    rng = np.random.default_rng(5)
    A = np.zeros((0, 50))
    tracked = UpdatableSVD(7, rng=0)
    for step in range(40):
        what = step % 5 if step else 0
        if what in (0, 1):
            E = sparse(int(rng.integers(1, 6)), A.shape[1], 0.2, seed=step, dtype=dtype)
            A = np.concatenate([A, E.toarray()])
            tracked.append_rows(E)
        elif what == 2:
            E = sparse(A.shape[0], 2, 0.2, seed=step, dtype=dtype)
            A = np.concatenate([A, E.toarray()], axis=1)
            tracked.append_columns(E)
        elif what == 3:
            change = sparse(*A.shape, 0.002, seed=step, dtype=dtype)
            A = A + change.toarray()
            tracked.add_sparse(change)
        else:
            rows = rng.integers(0, A.shape[0], 2)
            A[rows] = 0
            A *= 0.9
            tracked.remove_rows(rows).decay(0.9)
        check(tracked, A, slack=1e-3 * np.linalg.norm(A) if dtype == "float32" else 0.0)
    assert tracked.error_kind == "bound"
    assert tracked.norm <= np.linalg.norm(A) * (1 + 1e-6)


def test_sparse_change_by_rows_and_by_columns() -> None:
    A = low_rank(30, 25, 4)
    for change in (np.zeros((30, 25)), np.zeros((30, 25))):
        tracked = UpdatableSVD(12).append_rows(A)
        change[[2, 9], 3:20] = 1.5
        tracked.add_sparse(sp.csr_array(change))
        check(tracked, A + change)
        tracked.add_sparse(sp.csc_array(change.T.copy().T))
        check(tracked, A + 2 * change)
    tracked = UpdatableSVD(12).append_rows(A.T)
    tracked.add_sparse(sp.csr_array(change.T))
    check(tracked, (A + change).T)
    tracked.add_sparse(sp.csr_array((25, 30)))
    check(tracked, (A + change).T)


def test_zero_rows_change_nothing() -> None:
    tracked = UpdatableSVD(4).append_rows(sparse(20, 60, 0.2))
    before, basis, bound = tracked.s.copy(), tracked.to_svd().Vh, tracked.error_bound
    tracked.append_rows(sp.csr_array((5, 60))).append_rows(np.zeros((2, 60)))
    tracked.append_rows(sp.csr_array(([0.0], [3], [0, 1, 1]), shape=(2, 60)))
    assert np.array_equal(tracked.s, before)
    assert np.array_equal(tracked.to_svd().Vh, basis)
    assert tracked.error_bound == bound
    assert tracked.shape == (29, 60)
    tracked.append_columns(sp.csc_array((29, 3)))
    assert tracked.shape == (29, 63)
    assert np.abs(tracked.col_embedding([60, 61, 62])).max() == 0
    # the new columns are there to be used
    tracked.append_rows(sp.csr_array(100 * np.eye(1, 63, 61)))
    assert np.abs(tracked.to_svd().Vh[:, 61]).max() > 0


def test_updates_of_disjoint_support_commute() -> None:
    A, B = sparse(6, 80, 0.1, seed=1), sparse(5, 80, 0.1, seed=2)
    A, B = A.toarray(), B.toarray()
    A[:, 40:], B[:, :40] = 0, 0
    first, second = (UpdatableSVD(20).append_rows(sparse(8, 80, 0.1, seed=3)) for _ in range(2))
    first.append_rows(sp.csr_array(A)).append_rows(sp.csr_array(B))
    second.append_rows(sp.csr_array(B)).append_rows(sp.csr_array(A))
    assert first.error_bound <= 1e-6 * first.norm  # nothing was cut off
    assert np.abs(first.s - second.s).max() <= tolerance("float64", 80, first.s[0])
    assert gap(first.to_svd().Vh.T[:, :19], second.to_svd().Vh.T[:, :19]) <= 1e-10


def test_duplicate_entries_are_summed_and_the_input_is_not_changed() -> None:
    E = sp.csr_array(([1.0, 2.0, 4.0], [3, 3, 1], [0, 3]), shape=(1, 6))
    assert not E.has_canonical_format
    before = pickle.dumps(E)
    tracked = UpdatableSVD(1).append_rows(E)
    assert tracked.s[0] == pytest.approx(5.0, rel=4 * EPS)
    assert pickle.dumps(E) == before


@pytest.mark.parametrize("method", ["exact", "gkl", "rpi"])
@pytest.mark.parametrize("copies", [1, 3])
def test_dependent_rows(method: str, copies: int) -> None:
    """Rows that repeat, vanish, or are multiples of others by 1e+-8."""
    E = sparse(6, 200, 0.05).toarray()
    E[2], E[3], E[4] = E[1] * 1e8, 0, E[0] * 1e-8
    E = np.concatenate([E] * copies)
    tracked = UpdatableSVD(8, method=method, n_directions=4, rng=0).append_rows(sparse(10, 200, 0.05, seed=9))
    tracked.append_rows(sp.csr_array(E))
    check(tracked, np.concatenate([sparse(10, 200, 0.05, seed=9).toarray(), E]))


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-6, 3e-8, 1e-9])
def test_rows_near_the_present_space(distance: float) -> None:
    """The inner product of pairs loses digits there; orthogonality does not, and the bound knows."""
    rng = np.random.default_rng(0)
    A = low_rank(30, 300, 4)
    tracked = UpdatableSVD(8).append_rows(A)
    E = rng.standard_normal((3, 30)) @ A
    noise = rng.standard_normal(E.shape)
    E += distance * np.linalg.norm(E) / np.linalg.norm(noise) * noise
    tracked.append_rows(E)
    whole = np.concatenate([A, E])
    result = check(tracked, whole)
    exact = np.linalg.svd(whole)[1][:7]
    assert np.abs(result.s[:4] / exact[:4] - 1).max() <= 1e-12
    rest = np.append(result.s[4:], np.zeros(3))[:3]  # below 1e-7 of a row the directions are left out
    assert np.abs(rest - exact[4:7]).max() <= 2e-7 * np.linalg.norm(E)


def test_new_directions_that_dwarf_the_old_ones() -> None:
    """The small factor would be singular; it is multiplied in instead."""
    A = np.zeros((3, 20))
    A[:, :3] = 1e-6 * np.eye(3)
    E = np.zeros((3, 20))
    E[:, 10:13] = np.diag([3.0, 2.0, 1.0])
    tracked = UpdatableSVD(3).append_rows(A).append_rows(E)
    assert tracked.n_rebases >= 1
    assert tracked.s == pytest.approx([3, 2, 1], rel=4 * EPS)
    check(tracked, np.concatenate([A, E]))


def test_fading_forgets() -> None:
    """After many fading updates of another kind the old directions are gone, and all is orthonormal."""
    old, new = np.zeros((20, 40)), np.zeros((200, 40))
    rng = np.random.default_rng(0)
    old[:, :20], new[:, 20:] = rng.standard_normal((20, 20)), rng.standard_normal((200, 20))
    tracked, A = UpdatableSVD(5).append_rows(old), old
    for lo in range(0, 200, 5):
        tracked.decay(0.6).append_rows(new[lo : lo + 5])
        A = np.concatenate([0.6 * A, new[lo : lo + 5]])
    check(tracked, A)
    assert tracked.error_kind == "exact"
    assert np.abs(tracked.to_svd().Vh[:, :20]).max() <= 1e-6
    assert tracked.n_rebases >= 1


def test_removed_rows_leave_the_rest(dtype: str) -> None:
    A = graded(60, 30).astype(dtype)
    tracked = UpdatableSVD(6).append_rows(A)
    before = tracked.to_svd().to_dense().astype(float)
    gone = [0, 5, 59]
    tracked.remove_rows(np.array(gone))
    before[gone] = 0
    assert np.linalg.norm(tracked.to_svd().to_dense() - before) <= tolerance(dtype, 60, 10 * np.linalg.norm(A))
    rest = A.astype(float).copy()
    rest[gone] = 0
    check(tracked, rest)
    tracked.remove_rows(range(60))
    assert tracked.s.shape == (0,)
    assert tracked.shape == (60, 30)
    assert np.abs(tracked.to_svd().to_dense()).max() == 0
    tracked.append_rows(A[:3])
    assert np.linalg.norm(tracked.s) == pytest.approx(np.linalg.norm(A[:3]), rel=tolerance(dtype, 30))
    tracked.append_rows(A[3:])
    rest = np.concatenate([0 * A, A]).astype(float)
    check(tracked, rest, slack=1e-3 if dtype == "float32" else 0.0)


@pytest.mark.parametrize("n_kept", [0, 1, 3])
def test_removing_what_carries_a_direction(n_kept: int) -> None:
    """Rows 0 to 2 have directions of their own, which go with them."""
    A = np.zeros((10, 12))
    A[:3, :3] = np.diag([5.0, 4.0, 3.0])
    A[3:, 5:] = low_rank(7, 7, 3)
    tracked = UpdatableSVD(6).append_rows(A)
    gone = list(range(n_kept, 3)) or [9]
    tracked.remove_rows(gone)
    A[gone] = 0
    check(tracked, A)
    assert tracked.s.shape == (3 + n_kept,)


# --- the error --------------------------------------------------------------------------------------------------------


def test_error_of_rows_is_exact_and_the_truncation_energy_is_its_square() -> None:
    A = sparse(400, 300, 0.05, seed=8)
    tracked = UpdatableSVD(10)
    for lo in range(0, 400, 25):
        tracked.append_rows(A[lo : lo + 25])
    error = float(np.linalg.norm(A.toarray() - tracked.to_svd().to_dense()))
    assert tracked.error_kind == "exact"
    assert tracked.error_bound == pytest.approx(error, rel=1e-13)
    assert math.sqrt(tracked.truncation_energy) == pytest.approx(error, rel=1e-13)
    assert np.sum(tracked.s**2) + error**2 == pytest.approx(np.sum(A.data**2), rel=1e-13)
    for k in (0, 4, 10):
        result = tracked.to_svd(k)
        assert result.rank == k
        assert result.confidence == 1.0
        truth = np.linalg.norm(A.toarray() - result.to_dense()) / np.linalg.norm(A.data)
        assert result.error == result.error_bound == pytest.approx(truth, rel=1e-12)


def test_bound_of_both_kinds_of_growth_is_above_the_error() -> None:
    """Errors of rows and columns add by the triangle inequality: the bound is not met, but it is within a factor."""
    A = sparse(120, 120, 0.1, seed=2).toarray()
    tracked = UpdatableSVD(8).append_rows(A[:20, :20])
    for lo in range(20, 120, 20):
        tracked.append_columns(A[:lo, lo : lo + 20]).append_rows(A[lo : lo + 20, : lo + 20])
    check(tracked, A)
    assert tracked.error_kind == "bound"
    error = np.linalg.norm(A - tracked.to_svd().to_dense())
    assert error < tracked.error_bound <= 6 * error


def test_ledger() -> None:
    ledger = Ledger()
    ledger.appended("rows", 100.0, 9.0, 0.0)
    ledger.appended("rows", 50.0, 16.0, 0.0)
    assert (ledger.bound, ledger.kind, ledger.energy, ledger.norm(0.0)) == (5.0, "exact", 25.0, math.sqrt(150.0))
    assert ledger.of_rank(144.0) == 13.0
    ledger.faded(0.5)
    assert (ledger.bound, ledger.energy, ledger.squares) == (2.5, 6.25, 37.5)
    ledger.appended("columns", 0.0, 4.0, 9.0)
    assert (ledger.cut_off, ledger.perturbed, ledger.kind) == (4.5, 3.0, "bound")
    ledger.appended("columns", 0.0, 1.0, 16.0)
    assert (ledger.cut_off, ledger.perturbed, ledger.of_rank(4.0)) == (5.5, 5.0, 12.5)
    ledger.changed(4.0, 1.0)
    assert (ledger.bound, ledger.norm(20.0)) == (13.5, 6.5)
    ledger.removed(0.5)
    assert ledger.bound == 14.0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 12), st.integers(1, 15), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_any_partition(sizes: list[int], rank: int, n: int, seed: int) -> None:
    """Shapes, ranks and partitions of all kinds: the exact error is met."""
    A = sparse(sum(sizes), n, 0.5, seed=seed)
    tracked, lo = UpdatableSVD(rank), 0
    for size in sizes:
        tracked.append_rows(A[lo : lo + size])
        lo += size
    check(tracked, A.toarray())
    assert tracked.s.shape[0] <= min(rank, n, sum(sizes))


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_scales(scale: float) -> None:
    A = sparse(50, 40, 0.2)
    plain, scaled = UpdatableSVD(5), UpdatableSVD(5)
    for lo in range(0, 50, 10):
        plain.append_rows(A[lo : lo + 10])
        scaled.append_rows(A[lo : lo + 10] * scale)
    assert scaled.s / scale == pytest.approx(plain.s, rel=1e-11)
    assert scaled.error_bound / scale == pytest.approx(plain.error_bound, rel=1e-11)


def test_randomized_variants_repeat_themselves_and_near_the_exact_one() -> None:
    A = sparse(900, 500, 0.02, seed=6)
    errors = {}
    for method in ("exact", "gkl", "rpi"):
        first, second = (UpdatableSVD(8, method=method, n_directions=20, rng=3) for _ in range(2))
        for lo in range(0, 900, 300):
            first.append_rows(A[lo : lo + 300])
            second.append_rows(A[lo : lo + 300])
        assert np.array_equal(first.s, second.s)
        check(first, A.toarray())
        errors[method] = np.linalg.norm(A.toarray() - first.to_svd().to_dense())
    assert max(errors["gkl"], errors["rpi"]) <= 1.01 * errors["exact"]
    other = UpdatableSVD(8, method="rpi", n_directions=20, rng=4).append_rows(A)
    assert not np.array_equal(other.s, UpdatableSVD(8, method="rpi", n_directions=20, rng=3).append_rows(A).s)


def test_whiten_pairs() -> None:
    """Pairs stand for vectors: their inner products are those of the vectors."""
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((60, 5)))[0]
    E = rng.standard_normal((60, 6))
    E[:, 3] = V @ rng.standard_normal(5)
    E[:, 5] = E[:, 1] - E[:, 2]
    E[:, 4] = E[:, 0] + 1e-3 * E[:, 4]
    C = V.T @ E
    B, D, R, lost = whiten(E, C, 1e-14)
    Q = B - V @ D
    assert Q.shape == (60, 4)
    assert np.abs(Q.T @ Q - np.eye(4)).max() <= 1e-9  # 1e-3 of a column is left: 1e6 eps
    assert np.abs(V.T @ Q).max() <= 1e-11
    assert np.linalg.norm(E - V @ C - Q @ R) <= math.sqrt(lost) + 1e-12
    assert math.sqrt(lost) <= 1e-7 * 2 * np.linalg.norm(E)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_an_update_reads_and_writes_touched_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of gathered and written rows, and of rows handled as a whole."""
    n, batches = 100_000, 30
    tracked = prominent(64, n, 4)
    copied = tracked._right.n_copied
    touched = {"read": 0, "written": 0}
    factor_type = model.GrowingFactor
    raw, put = factor_type.raw, factor_type._put

    def counted_raw(self: Any, where: Any) -> Any:
        rows = raw(self, where)
        touched["read"] += len(rows)
        return rows

    def counted_put(self: Any, where: Any, rows: Any) -> None:
        touched["written"] += len(rows)
        put(self, where, rows)

    monkeypatch.setattr(factor_type, "raw", counted_raw)
    monkeypatch.setattr(factor_type, "_put", counted_put)
    columns = 0
    for step in range(batches):
        E = sparse(6, n, 3e-5, seed=step)
        columns += len(np.unique(E.indices))
        tracked.append_rows(E)
    assert touched == {"read": 2 * columns, "written": columns}
    assert tracked._right.n_copied == copied
    assert tracked.n_rebases == 0
    assert tracked._left.n_copied <= 2 * tracked.shape[0]
    assert tracked._left._table.shape[0] <= 2 * tracked.shape[0]
    touched.update(read=0, written=0)
    tracked.remove_rows([170, 1, 30, 99, 98, 97, 2])
    assert touched == {"read": 7, "written": 7}


def test_memory_of_an_update_is_that_of_its_columns() -> None:
    import tracemalloc

    tracked = prominent(20, 500_000, 8)
    E = sparse(20, 500_000, 1e-5, seed=1)
    tracemalloc.start()
    tracked.append_rows(E)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000  # a dense row alone has 4,000,000 bytes


def test_rebasing_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_REBASE_EVERY", 5)
    A = sparse(60, 50, 0.1)
    tracked = UpdatableSVD(5)
    for lo in range(0, 60, 4):
        tracked.append_rows(A[lo : lo + 4])
    assert tracked.n_rebases >= 3 * 2
    check(tracked, A.toarray())
    before = tracked.to_svd().to_dense()
    assert np.array_equal(tracked.rebase()._left.core, np.eye(5))
    assert np.linalg.norm(tracked.to_svd().to_dense() - before) <= tolerance("float64", 60, np.linalg.norm(before))


def test_lost_orthogonality_is_repaired_in_the_small_factors() -> None:
    A = sparse(60, 50, 0.2)
    tracked = UpdatableSVD(5).append_rows(A[:40])
    tracked._right.core = tracked._right.core @ (np.eye(5) + 1e-6 * np.ones((5, 5)))
    tracked._right.inverse = np.linalg.inv(tracked._right.core)
    assert tracked._right.drift() > 1e-7
    copied = tracked._right.n_copied
    tracked.append_rows(A[40:])
    assert tracked._right.drift() <= 1e-14
    assert tracked._right.n_copied == copied


# --- beginnings, questions, forms -------------------------------------------------------------------------------------


def test_goes_on_from_a_decomposition_without_touching_it(dtype: str) -> None:
    A = graded(80, 40).astype(dtype)
    result = randla.svd(A[:60], 5, rng=0)
    copies = [np.array(factor) for factor in result]
    tracked = UpdatableSVD.from_svd(result, rank=9)
    assert tracked.error_bound == pytest.approx(np.linalg.norm(A[:60] - result.to_dense()), rel=1e-2)
    for lo in range(60, 80, 5):
        tracked.append_rows(A[lo : lo + 5])
    for factor, copied in zip(result, copies, strict=True):
        assert np.array_equal(factor, copied)
    check(tracked, A.astype(float))
    assert tracked.s.shape == (9,)
    assert tracked.error_kind == "bound"
    assert tracked.norm == pytest.approx(np.linalg.norm(A), rel=1e-5)


def test_factors_in_any_order() -> None:
    U, s, Vh = truncated(graded(30, 20), 4)
    tracked = UpdatableSVD.from_factors(U[:, ::-1], s[::-1], Vh[::-1])
    assert tracked.s == pytest.approx(s, rel=1e-14)
    assert np.linalg.norm(tracked.to_svd().to_dense() - (U * s) @ Vh) <= tolerance("float64", 30)
    empty = UpdatableSVD.from_factors(U[:, :0], s[:0], Vh[:0], rank=3)
    check(empty.append_rows(Vh[:2]), np.concatenate([np.zeros((30, 20)), Vh[:2]]))


def test_questions(dtype: str) -> None:
    A = sparse(50, 40, 0.2, dtype=dtype)
    tracked = UpdatableSVD(6).append_rows(A[:30]).append_rows(A[30:])
    result = tracked.to_svd()
    bound = tolerance(dtype, 50, np.linalg.norm(A.data))
    U, V = tracked.row_embedding(range(50)), tracked.col_embedding(np.arange(40))
    assert U.dtype == V.dtype == dtype
    assert np.abs(np.abs(U) - np.abs(result.U)).max() <= bound
    assert np.abs((U * tracked.s) @ V.T - result.to_dense()).max() <= bound
    assert np.abs(tracked.row_embedding(7) - U[7]).max() <= bound
    assert tracked.row_embedding(7).shape == (6,)
    assert tracked.row_embedding([]).shape == (0, 6)
    assert np.abs(tracked.entries([1, 2], [3, 4]) - result.to_dense()[[1, 2], [3, 4]]).max() <= bound
    assert float(tracked.entries(1, 3)) == pytest.approx(result.to_dense()[1, 3], abs=bound)
    for X in (A[:5], sp.csc_array(A[:5]), A[:5].toarray(), A[:5].toarray().astype("float64")):
        assert np.abs(tracked.project(X) - A[:5].toarray() @ V).max() <= bound
    # a kept row lies where it was put
    assert np.abs(tracked.project(A) - U * tracked.s).max() <= 1.1 * tracked.error_bound
    assert "UpdatableSVD(50 x 40, rank=6, n_updates=2, error_bound=" in repr(tracked)
    assert repr(UpdatableSVD(3)).startswith("UpdatableSVD(0 x 0, rank=0")


def test_embeddings_keep_their_sense() -> None:
    A = sparse(400, 60, 0.2)
    tracked = UpdatableSVD(3).append_rows(A[:200])
    before = tracked.col_embedding(range(60))
    for lo in range(200, 400, 2):
        tracked.append_rows(1e-3 * A[lo : lo + 2])
    assert np.abs(tracked.col_embedding(range(60)) - before).max() < 0.01


def test_pickle() -> None:
    A = sparse(50, 40, 0.2)
    tracked = UpdatableSVD(6, method="rpi", n_directions=3, rng=1).append_rows(A[:30])
    twin = pickle.loads(pickle.dumps(tracked))
    assert np.array_equal(tracked.append_rows(A[30:]).s, twin.append_rows(A[30:]).s)


def test_any_namespace(xp: Any, put: Callable, dtype: str) -> None:
    A = graded(40, 25).astype(dtype)
    tracked, host = UpdatableSVD(5, rng=0), UpdatableSVD(5, rng=0)
    for step in (tracked, host):
        move = put if step is tracked else np.asarray
        step.append_rows(move(A[:20, :20])).append_columns(move(A[:20, 20:])).append_rows(move(A[20:]))
        step.rank_update(move(A[:, :2]), move(A[:25, 5:7])).decay(0.7)
        step.remove_rows(move(np.array([3, 4])))
        step.append_rows(move(np.zeros((1, 25), dtype)))
    result = tracked.to_svd()
    assert type(result.U) is type(put(A))
    assert result.U.dtype == getattr(xp, dtype)
    got = [np.asarray(randla._arrays.to_host(factor)) for factor in (*result, tracked.row_embedding(2))]
    expected = (*host.to_svd(), host.row_embedding(2))
    for factor, other in zip(got[1:3], expected[1:3], strict=True):
        assert np.abs(factor - other).max() <= tolerance(dtype, 40, 100)
    for method in ("gkl", "rpi"):
        other = UpdatableSVD(5, method=method, n_directions=4, rng=0).append_rows(put(A))
        assert other.project(put(A)).shape == (40, 5)
        assert float(other.s[0]) == pytest.approx(1.0, rel=1e-2)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ({"rank": 2.0}, TypeError, "rank must be an integer"),
        ({"method": "fast"}, ValueError, "method must be one of 'exact', 'gkl', 'rpi', got 'fast'"),
        ({"n_directions": 0}, ValueError, "n_directions must be at least 1"),
        ({"n_power_iter": 0}, ValueError, "n_power_iter must be at least 1"),
        ({"rebase_condition": 0.5}, ValueError, "rebase_condition must be finite"),
        ({"rng": -1}, ValueError, "rng must be"),
    ],
    ids=repr,
)
def test_bad_parameters(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        UpdatableSVD(**{"rank": 3, **options})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.append_rows(np.ones((2, 9))), ValueError, r"E must have 10 columns, got shape \(2, 9\)"),
        (lambda t: t.append_rows(sp.csr_array((2, 9))), ValueError, "E must have 10 columns"),
        (lambda t: t.append_columns(np.ones((2, 9))), ValueError, r"E must have 6 rows, got shape \(2, 9\)"),
        (lambda t: t.append_rows(np.ones(10)), ValueError, "E must be 2-D"),
        (lambda t: t.append_rows([["a"] * 10]), TypeError, "E must have a real or complex numeric dtype"),
        (lambda t: t.append_rows(np.ones((2, 10)) * 1j), ValueError, "E must be real, got complex128"),
        (lambda t: t.append_rows(np.full((2, 10), np.nan)), ValueError, "E must be finite"),
        (lambda t: t.append_rows(sp.csr_array(np.full((2, 10), np.inf))), ValueError, "E must be finite"),
        (lambda t: t.append_rows(np.full((1, 10), 1e200)), ValueError, "the update must have a Frobenius norm below"),
        (lambda t: t.append_columns(np.full((6, 1), -np.inf)), ValueError, "E must be finite"),
        (lambda t: t.rank_update(np.ones((6, 2)), np.ones((10, 3))), ValueError, "equally many columns, got 2 and 3"),
        (lambda t: t.rank_update(np.ones((5, 2)), np.ones((10, 2))), ValueError, "D must have 6 rows"),
        (lambda t: t.rank_update(np.ones((6, 2)), np.ones((9, 2))), ValueError, "E must have 10 rows"),
        (lambda t: t.add_sparse(np.ones((6, 10))), TypeError, "change must be a sparse matrix, got ndarray"),
        (lambda t: t.add_sparse(sp.csr_array((6, 9))), ValueError, r"change must have shape \(6, 10\)"),
        (lambda t: t.decay(0.0), ValueError, r"weight must be finite and in \(0, 1\]"),
        (lambda t: t.decay(1.5), ValueError, "weight must be finite"),
        (lambda t: t.decay("half"), TypeError, "weight must be a real number"),
        (lambda t: t.remove_rows(6), ValueError, r"rows must be in \[0, 5\], got 6 to 6"),
        (lambda t: t.remove_rows([-1, 2]), ValueError, r"rows must be in \[0, 5\]"),
        (lambda t: t.remove_columns([1.5]), TypeError, "columns must be an integer"),
        (lambda t: t.row_embedding(6), ValueError, r"i must be in \[0, 5\]"),
        (lambda t: t.col_embedding([[1]]), TypeError, "j must be an integer or a 1-D array"),
        (lambda t: t.project(np.ones((2, 9))), ValueError, "X must have 10 columns"),
        (lambda t: t.project(np.ones((2, 10)) * 1j), ValueError, "X must be real"),
        (lambda t: t.to_svd(4), ValueError, r"rank must be in \[0, 3\], got 4"),
    ],
)  # fmt: skip
def test_bad_updates_leave_the_model_alone(call: Callable, error: type[Exception], message: str) -> None:
    tracked = UpdatableSVD(3).append_rows(sparse(6, 10, 0.5))
    before = pickle.dumps(tracked)
    with pytest.raises(error, match=message):
        call(tracked)
    assert pickle.dumps(tracked) == before


@pytest.mark.parametrize("call", ["rebase", "to_svd"])
def test_nothing_to_work_on(call: str) -> None:
    with pytest.raises(ValueError, match="the model must have rows or columns first, got none; call append_rows"):
        getattr(UpdatableSVD(3), call)()
    for ask in ("row_embedding", "col_embedding", "remove_rows", "project"):
        with pytest.raises(ValueError, match="the model must have rows"):
            getattr(UpdatableSVD(3), ask)(0)


@pytest.mark.parametrize(
    ("factors", "options", "message"),
    [
        ((np.eye(4), np.ones(3), np.eye(4)), {}, "must have shapes"),
        ((np.eye(4), np.ones(4), np.eye(3)), {}, "must have shapes"),
        ((np.eye(4), -np.ones(4), np.eye(4)), {}, "s must be finite and non-negative"),
        ((np.eye(4), np.full(4, np.nan), np.eye(4)), {}, "s must be finite and non-negative"),
        ((np.ones((4, 2)), np.ones(2), np.eye(4)[:2]), {}, "U must be orthonormal"),
        ((np.eye(4)[:, :2], np.ones(2), np.full((2, 4), np.nan)), {}, "Vh must be orthonormal"),
        ((np.eye(4) * 1j, np.ones(4), np.eye(4)), {}, "U and Vh must be real"),
        ((np.eye(4), np.ones(4), np.eye(4)), {"rank": 3}, "rank must be at least 4"),
        ((np.eye(4), np.ones(4), np.eye(4)), {"error": -1.0}, "error must be finite"),
    ],
)
def test_bad_factors(factors: tuple, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UpdatableSVD.from_factors(*factors, **options)


def test_results_that_cannot_be_followed() -> None:
    A = graded(20, 10)
    with pytest.raises(ValueError, match="not centred"):
        UpdatableSVD.from_svd(randla.svd(A, 3, center=True, rng=0))
    with pytest.raises(ValueError, match="frobenius"):
        UpdatableSVD.from_svd(randla.svd(A, 3, norm="spectral", rng=0))


def test_intake_of_a_batch() -> None:
    E = sparse(4, 30, 0.1)
    batch = as_batch(E, "E", 30)
    assert np.array_equal(batch.where, np.unique(E.indices))
    assert np.array_equal(batch.dense(), E.toarray().T[batch.where])
    turned = as_batch(sp.csc_array(E.T), "E", 30, columns=True)
    assert np.array_equal(turned.dense(), batch.dense())
    assert turned.shape == batch.shape == (4, 30)


# --- the tour ---------------------------------------------------------------------------------------------------------


def test_stream_of_the_tour_compares_fairly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from randla.tour.jobs import stream_svd
    from randla.tour.measure import measure
    from randla.tour.progress import Silent

    rng = np.random.default_rng(0)
    counts = rng.random((400, 90)) < 0.7 ** np.arange(90)
    A = sp.csr_array(counts * rng.random((400, 90)))
    monkeypatch.setattr(stream_svd, "measure", lambda call, **_: measure(call, budget=0, max_repeats=1))
    ends = stream_svd.batches(A, 7)
    assert ends[-1] == 400
    courses, excess, (peer, ours) = stream_svd._compare(A, ends, 5, Silent())
    assert (peer.ours, ours.ours) == (False, True)
    for row in (peer, ours):
        assert 1 - 1e-9 <= row.excess <= 1.05
        assert row.seconds > 0
    assert ours.estimate == pytest.approx(ours.error, rel=1e-6)
    assert ours.speedup == pytest.approx(peer.seconds / ours.seconds)
    assert {len(values) for values in excess.values()} == {3}
    stream_svd._draw_times(Figure(), ends, courses)
    stream_svd._draw_errors(Figure(), [ends[i] for i in stream_svd.looked_at(7)], excess)
