"""Nonnegative RESCAL and the number of parts: recovery, errors that fall, containers, noise, clusters, choice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.io import savemat
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning
from sklearn.metrics import silhouette_samples
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla import ConvergenceError, ConvergenceWarning, Key, Status
from randla._arrays import to_host
from randla.estimators._stability import StabilitySelector
from randla.nonnegative import rescal as rescal_module
from randla.nonnegative._stacks import Intake
from randla.nonnegative.perturbations import perturbed
from randla.nonnegative.relations import load_relations
from randla.nonnegative.rescal import _best_length, _core_sweeps, rescal_nmf
from randla.nonnegative.stability import cluster_silhouettes, clustered, select_rank
from randla.plot import RankStabilityDisplay, ValidationCurveDisplay

from . import statistics
from .conftest import skip, tolerance


def bumps(n: int, k: int) -> np.ndarray:
    """k Gaussian bumps over n nodes."""
    centres = (np.arange(k) + 0.5) * n / k
    return np.exp(-0.5 * ((np.arange(n)[:, None] - centres) / (n / k / 3)) ** 2)


def relations(n: int = 60, t: int = 12, k: int = 4, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Bumps with uniform relations and multiplicative noise, as the specification has them."""
    rng = np.random.default_rng(seed)
    A = bumps(n, k)
    X = A @ rng.random((t, k, k)) @ A.T
    return X * (1 + noise * (2 * rng.random(X.shape) - 1))


def fit(X: Any, rank: int, **options: Any) -> Any:
    return rescal_nmf(X, rank, **{"rng": 0, "on_failure": "ignore", **options})


def with_holes(X: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    known = np.random.default_rng(1).random(X.shape) < share
    return np.where(known, X, np.nan), known


def stored(X: np.ndarray) -> list[sp.csr_array]:
    """CSR matrices that store what is not NaN, zeros too."""
    out = []
    for S in X:
        i, j = np.nonzero(~np.isnan(S))
        out.append(sp.csr_array((S[i, j], (i, j)), shape=S.shape))
    return out


# --- the factorisation ------------------------------------------------------------------------------------------------


def test_groups_and_relations_are_found(dtype: str) -> None:
    A = np.kron(np.eye(3), np.ones((5, 1)))
    R = np.random.default_rng(0).random((4, 3, 3)) + 0.1
    X = (A @ R @ A.T).astype(dtype)
    result = fit(X, 3, max_iter=60, tol=1e-6, n_init=2)
    assert result.A.dtype == result.R.dtype == dtype
    assert result.error < 1e-2
    assert np.abs(result.A.sum(axis=0) - 1).max() < tolerance(dtype, 15)
    order = result.A[::5].argmax(axis=1)
    assert sorted(order) == [0, 1, 2]
    assert np.abs(result.A[:, order] - A / 5).max() < 0.05  # factors of full mass may be mixed a little at no error
    assert np.corrcoef(result.R[:, order][:, :, order].ravel(), R.ravel())[0, 1] > 0.95
    exact = np.linalg.norm(X - result.to_dense()) / np.linalg.norm(X)
    assert result.error == pytest.approx(exact, abs=tolerance(dtype, X.size))


@pytest.mark.parametrize("absent", [None, "missing"])
def test_array_libraries_agree(xp: Any, put: Callable[[Any], Any], dtype: str, absent: str | None) -> None:
    X = relations(8, 2, 2).astype(dtype)
    X[:, 5, :] = X[:, :, 5] = 0
    if absent:
        X[0, 1, 2] = np.nan
    found = fit(put(X), 2, max_iter=2, absent=absent)
    expected = fit(X, 2, max_iter=2, absent=absent)
    for F, G in zip(found, expected, strict=True):
        assert str(F.dtype).endswith(dtype)
        assert np.allclose(to_host(F), G, atol=tolerance(dtype, X.size, 20 * float(np.abs(G).max())))
    assert found.error == pytest.approx(expected.error, abs=tolerance(dtype, X.size))


@pytest.mark.parametrize("solver", ["sweeps", "mu"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "missing", "scaled"])
def test_the_error_never_rises(solver: str, kind: str) -> None:
    X = relations(24, 5, 3)
    X[:, 3, :] = X[:, :, 3] = 0
    options: dict[str, Any] = {"solver": solver, "max_iter": 60, "tol": 0.0}
    if kind == "missing":
        X, options["absent"] = with_holes(X, 0.6)[0], "missing"
    options["scale_slices"] = kind == "scaled"
    result = fit(stored(X) if kind == "sparse" else X, 4, **options)
    history = np.array(result.history)
    assert len(history) == result.n_iter + 1
    assert np.diff(history).max() <= tolerance("float64", X.size, history[0])
    assert history[-1] < 0.1 * history[0]


def test_sweeps_need_far_fewer_passes_than_multiplicative_updates() -> None:
    """The objective that multiplicative updates have after 400 iterations, of two products each as of sweeps."""
    rng = np.random.default_rng(0)
    A = rng.random((50, 6)) * (rng.random((50, 6)) < 0.5)
    X = A @ rng.random((8, 6, 6)) @ A.T
    X = X * (1 + 0.1 * (2 * rng.random(X.shape) - 1))
    slow = fit(X, 6, solver="mu", max_iter=400, tol=0.0)
    reached: list[int] = []

    def watch(step: Any) -> bool:
        reached.append(step.n_iter)
        return step.objective <= slow.objective

    quick = fit(X, 6, max_iter=100, tol=0.0, callback=watch)
    assert quick.objective <= slow.objective
    assert reached[-1] <= 100


def test_the_step_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    A, goal, R = rng.random((9, 3)), rng.random((9, 3)), rng.random((4, 3, 3))
    D, X = 3 * (goal - A), goal @ R @ goal.T + 0.1 * rng.random((4, 9, 9))

    def error(step: float) -> float:
        B = A + step * D
        return float(np.sum((X - B @ R @ B.T) ** 2))

    best = _best_length(A, D, R, X @ A, X @ D, np)
    tried = [error(step) for step in np.linspace(0, 1, 101)]
    assert 0 < best < 1
    assert error(best) <= min(tried)


def test_core_by_rows_reaches_the_joint_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    A, R = rng.random((20, 4)), rng.random((5, 4, 4))
    X = rng.random((5, 20, 20))
    G, B = A.T @ A, A.T @ X @ A
    ends = []
    for joint in (16, 1):
        monkeypatch.setattr(rescal_module, "JOINT", joint)
        found = R
        for _ in range(200):
            found = _core_sweeps(G, B, found, np)
        ends.append(found)
    assert np.abs(ends[0] - ends[1]).max() < 1e-6
    slope = G @ ends[0] @ G - B
    assert np.abs(np.where(ends[0] > 0, slope, np.minimum(slope, 0))).max() < 1e-5 * np.abs(B).max()


def test_ranks_above_the_joint_limit_work() -> None:
    assert fit(relations(24, 4, 3), 18, max_iter=30).error < fit(relations(24, 4, 3), 3, max_iter=30).error


# --- containers, missing entries, edges -------------------------------------------------------------------------------


def test_containers_agree(dtype: str) -> None:
    X = relations(24, 5, 3).astype(dtype)
    X[X < 0.2] = 0
    dense = fit(X, 3, max_iter=30)
    for other in ([sp.csr_array(S) for S in X], [sp.csc_matrix(S) for S in X], list(X), X.tolist()):
        found = fit(other, 3, max_iter=30)
        assert found.error == pytest.approx(dense.error, rel=1e-3)
    wide = [sp.csr_array((S.data, S.indices.astype(np.int64), S.indptr.astype(np.int64)), shape=S.shape)
            for S in map(sp.csr_array, X)]  # fmt: skip
    assert np.allclose(fit(wide, 3, max_iter=30).A, dense.A, atol=1e-3)


def test_missing_entries_are_predicted_and_sparse_ones_agree() -> None:
    X = relations(30, 8, 3, noise=0.0)
    holed, known = with_holes(X, 0.5)
    dense = fit(holed, 3, absent="missing", max_iter=200, n_init=2)
    sparse = fit(stored(holed), 3, absent="missing", max_iter=200, n_init=2)
    assert sparse.error == pytest.approx(dense.error, rel=1e-6)
    rest = (dense.to_dense() - X)[~known]
    assert np.linalg.norm(rest) < 0.05 * np.linalg.norm(X[~known])
    fitted = np.linalg.norm((dense.to_dense() - X)[known]) / np.linalg.norm(X[known])
    assert dense.error == pytest.approx(fitted, rel=1e-6)


def test_nan_as_zeros() -> None:
    X = relations(20, 3, 3)
    holed, known = with_holes(X, 0.8)
    zeros = np.where(known, X, 0.0)
    assert np.array_equal(fit(holed, 3, absent="zeros", max_iter=10).A, fit(zeros, 3, max_iter=10).A)
    sparse = fit([sp.csr_array(S) for S in holed], 3, absent="zeros", max_iter=10)
    assert np.allclose(sparse.A, fit(zeros, 3, max_iter=10).A)


def test_errors_of_slices_and_inputs_unchanged() -> None:
    X = relations(20, 4, 3)
    X[2] = 0
    before = X.copy()
    result = fit(X, 3, max_iter=50)
    direct = np.linalg.norm(X - result.to_dense(), axis=(1, 2))
    assert np.array_equal(X, before)
    for i in (0, 1, 3):
        assert result.errors[i] == pytest.approx(direct[i] / np.linalg.norm(X[i]), rel=1e-6)
    assert result.shape == X.shape
    assert result.rank == 3
    assert "error" in repr(result)


def test_slices_of_other_sizes_count_alike_where_asked() -> None:
    X = relations(24, 4, 3, noise=0.02)
    sizes = np.array([1e-6, 1.0, 1e3, 1e6])[:, None, None]
    scaled = fit(X * sizes, 3, scale_slices=True, max_iter=300)
    plain = fit(X, 3, scale_slices=True, max_iter=300)
    assert np.allclose(scaled.A, plain.A, atol=1e-8)
    assert max(scaled.errors) < 0.03
    assert np.allclose(scaled.R / sizes, plain.R, rtol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_nodes_that_never_occur_have_zeros(sparse: bool) -> None:
    X = relations(24, 4, 3)
    gone = [0, 7, 23]
    X[:, gone, :] = 0
    X[:, :, gone] = 0
    result = fit([sp.csr_array(S) for S in X] if sparse else X, 3, max_iter=40)
    assert result.n_pruned == 3
    assert not result.A[gone].any()
    kept = np.setdiff1d(np.arange(24), gone)
    small = fit(X[:, kept][:, :, kept], 3, max_iter=40)
    assert result.error == pytest.approx(small.error, rel=1e-6)


def test_dead_groups_are_begun_anew() -> None:
    X = relations(24, 4, 3, noise=0.0)
    A = np.random.default_rng(0).random((24, 3))
    R = np.ones((4, 3, 3))
    A[:, 1] = R[:, 1] = R[:, :, 1] = 0
    result = fit(X, 3, init=(A, R), max_iter=300)
    assert result.n_revived == 1
    assert result.error < 0.02
    assert np.diff(result.history).max() <= tolerance("float64", X.size, result.history[0])


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scales_that_would_overflow_or_vanish(scale: float) -> None:
    X = relations(20, 3, 3)
    plain, extreme = fit(X, 3, max_iter=20), fit(X * scale, 3, max_iter=20)
    assert extreme.error == pytest.approx(plain.error, rel=1e-6)
    assert np.allclose(extreme.R / scale, plain.R, rtol=1e-5)


def test_trivial_stacks() -> None:
    zero = fit(np.zeros((2, 5, 5)), 3)
    assert zero.status is Status.CONVERGED
    assert zero.error == 0
    assert zero.A.shape == (5, 3)
    none = fit(relations(12, 2, 2), 0)
    assert none.error == 1
    assert none.to_dense().shape == (2, 12, 12)
    assert fit(relations(12, 2, 2), 15, max_iter=20).error < 0.2  # more groups than nodes


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nnsvdlrc"])
def test_starts_from_singular_vectors(init: str) -> None:
    X = relations(24, 4, 3, noise=0.02)
    assert fit(X, 3, init=init, max_iter=100).error < 0.03
    assert fit([sp.csr_array(S) for S in X], 3, init=init, max_iter=100).error < 0.03


def test_equal_keys_equal_results() -> None:
    X = relations(20, 3, 3)
    assert np.array_equal(fit(X, 3, max_iter=5).A, fit(X, 3, max_iter=5, rng=0).A)
    assert not np.array_equal(fit(X, 3, max_iter=5).A, fit(X, 3, max_iter=5, rng=1).A)


def test_ends_and_what_is_said_of_them() -> None:
    X = relations(20, 3, 3)
    assert fit(X, 3, max_iter=0).status is Status.MAX_ITER
    assert not fit(X, 3, max_iter=3).converged
    with pytest.warns(ConvergenceWarning, match="rescal_nmf"):
        rescal_nmf(X, 3, max_iter=1, rng=0)
    with pytest.raises(ConvergenceError) as caught:
        rescal_nmf(X, 3, max_iter=1, rng=0, on_failure="raise")
    assert caught.value.result.n_iter == 1
    stopped = rescal_nmf(X, 3, rng=0, n_init=5, callback=lambda step: step.n_iter == 2)
    assert stopped.n_iter == 2
    assert len(stopped.start_objectives) == 1
    exact = fit(np.ones((2, 6, 6)), 1, max_iter=500, tol=0.0)
    assert exact.status in (Status.CONVERGED, Status.STAGNATED)
    assert exact.error < 1e-6


@pytest.mark.parametrize(
    ("X", "options", "error", "text"),
    [
        (-np.ones((1, 3, 3)), {}, ValueError, "nonnegative"),
        (np.full((1, 3, 3), np.inf), {}, ValueError, "finite"),
        (np.full((1, 3, 3), np.nan), {}, ValueError, "absent must be"),
        (np.ones((3, 3)), {}, ValueError, r"shape \(t, n, n\)"),
        (np.ones((2, 3, 4)), {}, ValueError, r"shape \(t, n, n\)"),
        (np.ones((1, 3, 3)) * 1j, {}, TypeError, "real"),
        (np.array([[["a"]]]), {}, TypeError, "numeric"),
        (sp.eye_array(3, format="csr"), {}, TypeError, "list of sparse"),
        ([sp.eye_array(3, format="csr"), np.eye(3)], {}, TypeError, "one kind"),
        ([sp.eye_array(3, format="csr"), sp.eye_array(4, format="csr")], {}, ValueError, "one shape"),
        ([np.eye(3), np.eye(4)], {}, ValueError, "one shape"),
        ([[[1, 2], [3]]], {}, ValueError, "ragged|shape"),
        (np.ones((1, 3, 3)), {"solver": "als"}, ValueError, "solver"),
        (np.ones((1, 3, 3)), {"init": "svd"}, ValueError, "init"),
        (np.ones((1, 3, 3)), {"init": (np.ones((3, 1)), np.ones((1, 2, 2)))}, ValueError, "init A"),
        (np.ones((1, 3, 3)), {"init": (np.ones((3, 2)), -np.ones((1, 2, 2)))}, ValueError, "init R"),
        (np.ones((1, 3, 3)), {"init": (np.ones((3, 2)), np.ones((1, 2, 2))), "n_init": 2}, ValueError, "n_init"),
        (np.ones((1, 3, 3)), {"absent": "unknown"}, ValueError, "absent"),
        (np.ones((1, 3, 3)), {"tol": -1.0}, ValueError, "tol"),
    ],
)
def test_bad_input(X: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        rescal_nmf(X, 2, **options)


# --- perturbations ----------------------------------------------------------------------------------------------------


def is_centred(factors: np.ndarray, noise: float) -> bool:
    """Whether the mean of factors in [1 - noise, 1 + noise] may be one; false alarm 1e-6 for a centred sampler."""
    return abs(float(factors.mean()) - 1) <= statistics.hoeffding(factors.size, 2 * noise)


@pytest.mark.parametrize("noise", [0.015, 0.1])
def test_noise_is_centred(seed: int, noise: float) -> None:
    factors = perturbed(np.ones((300, 400)), "uniform", noise, Key(seed, 1))
    assert factors.min() >= 1 - noise
    assert factors.max() <= 1 + noise
    assert is_centred(factors, noise)
    # a uniform number on an interval of this length has this variance: the noise is not just absent
    spread = statistics.bernstein(factors.size, noise**4, noise**2)
    assert abs(float(np.mean((factors - 1) ** 2)) - noise**2 / 3) <= spread


def test_the_biased_sampler_is_caught(seed: int) -> None:
    """1 + noise + 2 noise u, as in a program in use: the data grow by twice the noise."""
    u = np.random.default_rng(seed).random(120_000)
    assert not is_centred(1 + 0.015 + 2 * 0.015 * u, 0.015)


def test_poisson_counts_have_the_entries_as_means(seed: int) -> None:
    counts = perturbed(np.full((200, 200), 3.0), "poisson", 0.1, Key(seed, 2))
    assert np.array_equal(counts, np.rint(counts))
    assert abs(float(counts.mean()) - 3) <= statistics.chebyshev(counts.size, 3.0)
    assert not perturbed(np.zeros((4, 4)), "poisson", 0.1, Key(0, 0)).any()


def test_noise_depends_on_key_and_place_only() -> None:
    X = np.random.default_rng(0).random((12, 12)) * (np.random.default_rng(1).random((12, 12)) < 0.5)
    dense = perturbed(X, "uniform", 0.1, Key(1, 2))
    assert np.array_equal(perturbed(sp.csc_array(X), "uniform", 0.1, Key(1, 2)).toarray(), dense)
    assert not np.array_equal(perturbed(X, "uniform", 0.1, Key(1, 3)), dense)
    S = X + X.T
    mirrored = perturbed(S, "uniform", 0.1, Key(1, 2), symmetric=True)
    assert np.array_equal(mirrored, mirrored.T)
    assert np.array_equal(
        perturbed(sp.csr_array(S), "uniform", 0.1, Key(1, 2), symmetric=True).toarray(), mirrored
    )  # fmt: skip
    stack = np.stack([X, X])
    noisy = perturbed(stack, "uniform", 0.1, Key(1, 2))
    assert not np.array_equal(noisy[0], noisy[1])
    assert np.array_equal(perturbed([sp.csr_array(X)] * 2, "uniform", 0.1, Key(1, 2))[1].toarray(), noisy[1])
    holed = np.where(X > 0.5, np.nan, X)
    assert np.array_equal(np.isnan(perturbed(holed, "poisson", 0.1, Key(1, 2))), np.isnan(holed))


# --- clusters ---------------------------------------------------------------------------------------------------------


def permuted_runs(n_runs: int = 6, k: int = 4, noise: float = 0.05) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    parts = rng.random((30, k))
    runs = []
    for _ in range(n_runs):
        F = parts[:, rng.permutation(k)] + noise * rng.random((30, k))
        runs.append(F / np.linalg.norm(F, axis=0))
    return parts / np.linalg.norm(parts, axis=0), runs


def test_each_cluster_has_one_column_of_each_run() -> None:
    parts, runs = permuted_runs()
    centres, ordered = clustered(runs)
    match = (parts.T @ centres).argmax(axis=0)
    assert sorted(match) == [0, 1, 2, 3]
    for F, own in zip(ordered, runs, strict=True):
        assert np.array_equal((parts.T @ F).argmax(axis=0), match)
        assert np.array_equal(np.sort(F, axis=1), np.sort(own, axis=1))
    assert np.allclose(np.linalg.norm(centres, axis=0), 1)


def test_assignment_is_the_best_and_not_the_greedy_one() -> None:
    """The largest cosine, 0.9, belongs to an assignment of less sum."""
    angles = np.arccos([0.9, 0.8, 0.85, 0.1])
    first = np.eye(2)
    assert np.cos(angles[0]) == pytest.approx(0.9)
    second = np.array([[0.9, 0.85], [0.8, 0.1]])
    _, ordered = clustered([first, second])
    assert np.array_equal(ordered[1], second[:, ::-1])  # 0.85 + 0.8 > 0.9 + 0.1


def test_silhouettes_are_those_of_scikit_learn() -> None:
    _, runs = permuted_runs(noise=1.0)
    _, ordered = clustered(runs)
    table, labels = np.concatenate(ordered, axis=1).T, np.tile(np.arange(4), 6)
    theirs = silhouette_samples(table, labels, metric="cosine")
    ours = cluster_silhouettes(ordered)
    assert np.allclose(ours, [theirs[labels == k].mean() for k in range(4)], atol=tolerance("float64", 24))
    assert cluster_silhouettes([F[:, :1] for F in ordered]) == pytest.approx(1.0)


# --- ranks ------------------------------------------------------------------------------------------------------------


def low_rank(rank: int = 3) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.kron(np.eye(rank), np.ones((8, 1))) @ rng.random((rank, 30)) + 0.02 * rng.random((8 * rank, 30))


def test_stability_finds_the_rank_of_nmf() -> None:
    X = low_rank()
    curve = select_rank(X, [4, 2, 3], n_perturbations=5, rng=0)
    assert curve.values == (2, 3, 4)
    assert curve.chosen == 3
    assert curve.silhouette_min[1] > 0.95
    assert curve.silhouette_min[2] < 0.5
    W, H = curve.parts[1], curve.cores[1]
    assert curve.errors[1] == pytest.approx(np.linalg.norm(X - W @ H) / np.linalg.norm(X), rel=1e-6)
    sparse = select_rank(sp.csr_array(X), [2, 3], n_perturbations=3, rng=0)
    assert sparse.chosen == 3
    values, errors = curve
    assert len(values) == len(errors)
    display = RankStabilityDisplay.from_result(curve).plot()
    assert display.ax_.get_xlabel() == "rank"
    assert len(display.lines_) == 3


def test_stability_of_incomplete_data() -> None:
    holed, _ = with_holes(low_rank(), 0.8)
    curve = select_rank(holed, [2, 3, 4], absent="missing", n_perturbations=4, rng=0, options={"max_iter": 100})
    assert curve.chosen == 3
    rest = (curve.parts[1] @ curve.cores[1] - holed)[~np.isnan(holed)]
    assert curve.errors[1] == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(holed[~np.isnan(holed)]), rel=1e-6)


def test_stability_of_symmetric_factorisations_and_callables() -> None:
    S = np.kron(np.eye(3), np.ones((6, 6))) + 0.01
    curve = select_rank(S, [2, 3, 4], model="symmetric", n_perturbations=4, rng=0)
    assert curve.chosen == 3
    H, weights = curve.parts[1], curve.cores[1]
    assert curve.errors[1] == pytest.approx(np.linalg.norm(S - (H * weights) @ H.T) / np.linalg.norm(S), rel=1e-6)
    assert select_rank(sp.csr_array(S), [2, 3], model="symmetric", n_perturbations=3, rng=0).chosen == 3

    def columns(X: np.ndarray, rank: int, *, rng: Any) -> np.ndarray:
        return np.eye(18)[:, :rank]

    own = select_rank(S, [2, 5], model=columns, n_perturbations=2, rng=0)
    assert own.chosen == 5
    assert np.isnan(own.errors[0])
    with pytest.raises(ValueError, match="2 columns"):
        select_rank(S, [2], model=lambda X, rank, rng: np.eye(18)[:, :3], rng=0)


def test_stability_of_relations() -> None:
    curve = select_rank(
        relations(30, 6, 3, noise=0.01), [2, 3, 4], model="rescal", n_perturbations=4, rng=0,
        options={"max_iter": 80, "tol": 1e-4},
    )  # fmt: skip
    assert curve.chosen == 3
    assert curve.silhouette_min[1] > 0.95
    assert curve.cores[1].shape == (6, 3, 3)
    assert curve.errors[1] < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.1])
@pytest.mark.parametrize("k", [3, 4, 5])
def test_the_ranks_of_the_specification_are_recovered(k: int, noise: float) -> None:
    """Prototype: least silhouettes of 0.97 to 1 at the true rank and below -0.4 above it."""
    X = relations(60, 12, k, noise, seed=k)
    curve = select_rank(
        X, [k - 1, k, k + 1], model="rescal", n_perturbations=6, rng=0, options={"max_iter": 150, "tol": 1e-4}
    )
    assert curve.chosen == k
    assert curve.silhouette_min[1] >= 0.97
    assert curve.silhouette_min[2] < 0


@pytest.mark.slow
def test_rank_of_nations() -> None:
    """14 countries and 56 relations, NaN as zeros: four groups; least silhouettes of the prototype in the comment."""
    path = os.environ.get("RANDLA_NATIONS")
    if path is None:
        skip("nations")
    X = load_relations(path)
    assert X.shape == (56, 14, 14)
    curve = select_rank(
        X, range(2, 8), model="rescal", absent="zeros", n_perturbations=10, noise=0.015, rng=0,
        options={"max_iter": 1500}, on_failure="ignore",
    )  # fmt: skip
    assert curve.chosen == 4  # 1.000, 0.784, 1.000, 0.259, 0.406, 0.107
    assert curve.errors[2] == pytest.approx(0.6053, abs=0.01)


def test_relations_are_read_and_checked(tmp_path: Path) -> None:
    """The layout of dnations.mat: slices last, NaN where nothing is known, other arrays beside it."""
    X = np.random.default_rng(0).random((14, 14, 56))
    X[0, 0, 0] = np.nan
    savemat(tmp_path / "a.mat", {"R": X, "A": np.ones((14, 3))})
    np.savez(tmp_path / "a.npz", R=X)
    np.save(tmp_path / "a.npy", np.moveaxis(X, 2, 0))
    for name in ("a.mat", "a.npz", "a.npy"):
        found = load_relations(tmp_path / name)
        assert found.shape == (56, 14, 14)
        assert np.array_equal(found, np.moveaxis(X, 2, 0), equal_nan=True)
    with pytest.raises(ValueError, match="end on"):
        load_relations(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="must be one of"):
        load_relations(tmp_path / "a.npz", name="S")
    np.savez(tmp_path / "b.npz", A=np.ones((2, 3, 4)), B=np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="name must be given"):
        load_relations(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="two axes of one length"):
        load_relations(tmp_path / "b.npz", name="A")
    (tmp_path / "c.mat").write_bytes(b"not a file of MATLAB, but long enough to have a header " * 10)
    with pytest.raises(ValueError, match=r"7\.2"):
        load_relations(tmp_path / "c.mat")
    np.save(tmp_path / "d.npy", np.array([[["a"]]]))
    with pytest.raises(ValueError, match="real array"):
        load_relations(tmp_path / "d.npy")


def test_held_out_entries_choose_the_rank() -> None:
    rng = np.random.default_rng(0)
    W, H = (rng.random(shape) * (rng.random(shape) < 0.6) for shape in ((50, 3), (3, 40)))
    X = W @ H
    X = np.maximum(X + 0.05 * X.mean() * rng.standard_normal(X.shape), 0)
    curve = select_rank(X, range(1, 6), method="holdout", rng=0, n_init=2, options={"max_iter": 100})
    assert curve.chosen == 3
    assert curve.errors[2] < 0.5 * curve.errors[1]
    assert all(spread > 0 for spread in curve.standard_errors)
    assert list(curve.training_errors) == sorted(curve.training_errors, reverse=True)
    assert curve.method == "holdout"
    assert ValidationCurveDisplay.from_result(curve).plot().ax_.get_xlabel() == "rank"
    with pytest.raises(ValueError, match=r"curve\.method"):
        RankStabilityDisplay(curve)


@pytest.mark.slow
def test_the_curve_of_the_specification() -> None:
    """r = 5, 10 % held out, 5 % noise: errors .319 .257 .168 .036 .036 .036 .036, flat from the true rank on."""
    rng = np.random.default_rng(0)
    X = rng.random((100, 5)) @ rng.random((5, 80))
    X = np.maximum(X + 0.05 * X.std() * rng.standard_normal(X.shape), 0)
    curve = select_rank(X, range(2, 9), method="holdout", rng=0, options={"max_iter": 200})
    errors = np.array(curve.errors)
    assert curve.chosen == 5
    assert errors[2] > 2 * errors[3]
    assert errors[3:].max() < 1.5 * errors[3]


def test_held_out_relations_choose_the_rank() -> None:
    X = relations(30, 6, 3, noise=0.05)
    curve = select_rank(
        X, [2, 3, 4], model="rescal", method="holdout", n_splits=2, n_init=2, rng=0, options={"max_iter": 60}
    )
    assert curve.chosen == 3
    with pytest.raises(NotImplementedError, match="array"):
        select_rank([sp.csr_array(S) for S in X], [2], model="rescal", method="holdout", rng=0)
    with pytest.raises(ValueError, match="absent must be"):
        select_rank(np.where(X > 0.5, np.nan, X), [2], model="rescal", method="holdout", rng=0)


def test_no_stable_rank_is_said() -> None:
    X = np.random.default_rng(0).random((20, 15))
    with pytest.warns(ConvergenceWarning, match="select_rank"):
        curve = select_rank(X, [5, 6], n_perturbations=3, noise=0.5, rng=0, options={"max_iter": 20})
    assert curve.status is Status.BREAKDOWN
    assert curve.chosen in (5, 6)


def test_the_search_can_be_ended() -> None:
    seen: list[int] = []

    def stop(step: Any) -> bool:
        seen.append(step.rank)
        return step.rank == 2

    curve = select_rank(low_rank(), range(1, 6), n_perturbations=2, rng=0, callback=stop)
    assert seen == [1, 2]
    assert curve.values == (1, 2)
    assert curve.silhouette_min[0] == 1.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ranks": []}, "ranks"),
        ({"ranks": [0]}, "ranks"),
        ({"method": "elbow"}, "method"),
        ({"model": "svd"}, "model"),
        ({"perturbation": "gaussian"}, "perturbation"),
        ({"noise": 1.0}, "noise"),
        ({"n_perturbations": 1}, "n_perturbations"),
        ({"min_silhouette": 2.0}, "min_silhouette"),
        ({"method": "holdout", "n_splits": 1}, "n_splits"),
        ({"method": "holdout", "validation_fraction": 0.0}, "validation_fraction"),
        ({"method": "holdout", "model": "symmetric"}, "model"),
        ({"model": "symmetric", "absent": "missing"}, "absent"),
        ({"model": lambda X, rank, rng: X, "absent": "missing"}, "absent"),
    ],
)
def test_bad_parameters(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        select_rank(low_rank(), **{"ranks": [2], **options})


def test_core_for_given_columns_is_the_least_squares_one() -> None:
    X = relations(20, 3, 3)
    X[:, 4, :] = X[:, :, 4] = 0
    A = np.random.default_rng(0).random((20, 3))
    A[4] = 0
    R, error = rescal_module.fitted_core(Intake(X, None, True), A)
    slope = A.T @ (A @ R @ A.T - X) @ A
    assert np.abs(np.where(R > 0, slope, np.minimum(slope, 0))).max() < 1e-4 * np.abs(A.T @ X @ A).max()
    assert 0 < error < 1


# --- the estimator ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:StabilitySelector found no stable")
@parametrize_with_checks([StabilitySelector(k_range=(1, 2), n_perturbations=2, options={"max_iter": 5})])
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def test_selector_is_the_function_on_the_transpose() -> None:
    X = low_rank().T
    model = StabilitySelector(k_range=(2, 3, 4), n_perturbations=4, random_state=Key(1, 2)).fit(X)
    curve = select_rank(X.T, (2, 3, 4), n_perturbations=4, rng=Key(1, 2))
    assert model.best_k_ == curve.chosen == 3
    assert np.array_equal(model.silhouette_min_, curve.silhouette_min)
    assert np.array_equal(model.errors_, curve.errors)
    assert model.components_.shape == (3, X.shape[1])
    codes = model.transform(X)
    assert np.linalg.norm(X - codes @ model.components_) / np.linalg.norm(X) == pytest.approx(
        curve.errors[1], rel=1e-3
    )  # fmt: skip


def test_selector_takes_estimators_and_relations() -> None:
    X = low_rank().T
    model = StabilitySelector(NMF(init="random", max_iter=300), (2, 3, 4), n_perturbations=4, random_state=0).fit(X)
    assert model.best_k_ == 3
    assert 0 < model.errors_[1] < 0.1
    assert StabilitySelector(
        NMF(init="random", max_iter=100), (2, 3), n_perturbations=3, random_state=0
    ).fit(sp.csr_array(X)).best_k_ == 3  # fmt: skip
    stack = relations(24, 4, 2, noise=0.01)
    options = {"max_iter": 50}
    relational = StabilitySelector("rescal", (2, 3), n_perturbations=3, options=options, random_state=0).fit(stack)
    assert relational.best_k_ == 2
    with pytest.raises(ValueError, match="transform"):
        relational.transform(X)
    with pytest.raises(ValueError, match="options"):
        StabilitySelector(NMF(), options={"max_iter": 1}).fit(X)


def test_selector_warns_where_nothing_is_stable() -> None:
    X = np.random.default_rng(0).random((20, 15))
    selector = StabilitySelector(k_range=(5, 6), n_perturbations=3, noise=0.5, random_state=0, options={"max_iter": 20})
    with pytest.warns(SklearnConvergenceWarning, match="no stable"):
        selector.fit(X)
