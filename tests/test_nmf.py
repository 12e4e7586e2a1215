"""Nonnegative factorisation: solvers against oracles and each other, stationarity, starts, penalties, edges, scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.decomposition import NMF as ScikitNMF
from sklearn.decomposition._nmf import _beta_divergence

from randla import ConvergenceError, ConvergenceWarning, Status
from randla._arrays import to_host
from randla._random import as_key
from randla.kernels import nonneg_pivots, nonneg_sweeps
from randla.nonnegative._matrices import Dense, Sparse, as_nonnegative
from randla.nonnegative.frobenius import Penalties, alternate, revived
from randla.nonnegative.initialization import INITS, start
from randla.nonnegative.solvers import nmf

from .conftest import tolerance

ROW_SPARSE = sp.random_array((60, 45), density=0.15, rng=3, format="csr")


def planted(m: int = 60, n: int = 45, rank: int = 4, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A product of uniform factors, and noise that stays nonnegative."""
    rng = np.random.default_rng(seed)
    X = rng.random((m, rank)) @ rng.random((rank, n))
    return X + noise * rng.random((m, n))


def fit(X: Any, rank: int, **options: Any) -> Any:
    return nmf(X, rank, rng=0, on_failure="ignore", **options)


def loss_of(X: Any, W: np.ndarray, H: np.ndarray, beta: float) -> float:
    """scikit-learn's divergence."""
    X = X.toarray() if sp.issparse(X) else X
    return float(_beta_divergence(np.asarray(X, float), np.asarray(W, float), np.asarray(H, float), beta))


# --- what every solver keeps ------------------------------------------------------------------------------------------

RUNS = [
    ({"solver": "hals"}, 2.0), ({"solver": "pivots"}, 2.0), ({"solver": "randomized"}, 2.0), ({"solver": "mu"}, 2.0),
    ({"loss": "kl"}, 1.0), ({"loss": "kl", "solver": "mu"}, 1.0), ({"loss": "itakura-saito"}, 0.0),
    ({"loss": 0.5}, 0.5), ({"loss": 1.5}, 1.5), ({"loss": 3.0}, 3.0), ({"loss": -1.0}, -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("options", "beta"), RUNS)
def test_factors_are_nonnegative_and_the_objective_is_theirs(options: dict[str, Any], beta: float, dtype: str) -> None:
    X = (planted(noise=0.05) + 0.01).astype(dtype)
    before = X.copy()
    result = fit(X, 4, max_iter=30, **options)
    assert np.array_equal(X, before)
    assert result.W.dtype == result.H.dtype == X.dtype
    assert result.W.shape == (60, 4)
    assert result.H.shape == (4, 45)
    assert (result.W >= 0).all()
    assert (result.H >= 0).all()
    value = loss_of(X, result.W, result.H, beta)
    size = float(np.sum(np.abs(X.astype(float)) ** max(beta, 0.0))) * (100.0 if beta < 0 else 1.0)
    assert abs(result.objective - value) <= tolerance(dtype, X.size, size)
    assert result.history[0] >= result.objective
    if beta == 2.0:
        assert result.error == pytest.approx(np.linalg.norm(X - result.W @ result.H) / np.linalg.norm(X), rel=1e-4)


@pytest.mark.parametrize(("options", "beta"), RUNS)
def test_monotone_solvers_never_rise(options: dict[str, Any], beta: float) -> None:
    if options.get("solver") in ("hals", "randomized"):
        options = {"solver": "pivots"}  # those two extrapolate and restart
    X = planted(noise=0.3, seed=1) + 0.01
    history = np.array(fit(X, 5, max_iter=40, tol=0.0, **options).history)
    allowed = tolerance("float64", X.size, float(np.max(history)))
    assert (np.diff(history) <= allowed).all()


@pytest.mark.parametrize("options", [{"solver": "hals"}, {"solver": "pivots"}, {"loss": "kl"}])
def test_sparse_and_dense_agree(options: dict[str, Any]) -> None:
    """Every entry is stored: the number of sweeps of a half step depends on how many are."""
    X = planted(noise=0.3)
    init = (np.random.default_rng(0).random((60, 5)), np.random.default_rng(1).random((5, 45)))
    dense, sparse = (fit(A, 5, init=init, max_iter=10, tol=0.0, **options) for A in (X, sp.csr_array(X)))
    # sums in another order, amplified by the iteration
    assert np.allclose(dense.W @ dense.H, sparse.W @ sparse.H, rtol=0, atol=1e-6)
    assert dense.objective == pytest.approx(sparse.objective, rel=1e-9)


def test_containers_indices_and_explicit_zeros() -> None:
    A = ROW_SPARSE.copy()
    wide = sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape)
    padded = A.copy()
    padded.data = padded.data.copy()
    padded.data[::7] = 0.0
    whole = [fit(X, 3, max_iter=10) for X in (A, wide, A.tocsc(), A.tocoo())]
    assert all(np.array_equal(result.W, whole[0].W) for result in whole)
    without = padded.copy()
    without.eliminate_zeros()
    assert np.array_equal(fit(padded, 3, max_iter=10).W, fit(without, 3, max_iter=10).W)
    assert padded.nnz == A.nnz
    twice = (np.tile(part, 2) for part in A.tocoo().coords)
    doubled = sp.coo_array((np.tile(A.tocoo().data, 2), tuple(twice)), shape=A.shape)
    assert fit(doubled, 3, max_iter=10).error == pytest.approx(fit(2 * A, 3, max_iter=10).error, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"loss": "kl"}, {"solver": "mu"}])
def test_converged_means_stationary(options: dict[str, Any]) -> None:
    """The stopping quantity, computed anew from its definition."""
    X, tol = planted(noise=0.2, seed=2), 1e-3
    result = fit(X, 3, tol=tol, max_iter=5000, **options)
    assert result.converged
    W, H = result.W, result.H
    if options.get("loss") == "kl":
        slopes = (1 - X / (W @ H)) @ H.T, W.T @ (1 - X / (W @ H))
    else:
        slopes = (W @ H - X) @ H.T, W.T @ (W @ H - X)
    if not options:
        free = [np.where((F > 0) | (S < 0), S, 0) for S, F in zip(slopes, (W, H), strict=True)]
        parts = [
            (np.sum(S**2, axis=a) * np.sum(F**2, axis=a)).sum() for S, F, a in zip(free, (W, H), (0, 1), strict=True)
        ]
        found = math.sqrt(sum(parts)) / np.sum(X**2)
    else:
        beta = 1.0 if options.get("loss") == "kl" else 2.0
        scale = loss_of(X, np.full((60, 1), X.mean()), np.ones((1, 45)), beta)
        found = sum(np.abs(S * F).sum() for S, F in zip(slopes, (W, H), strict=True)) / scale
    assert found <= 2 * tol  # the solver measures each half where it was; one step later it may lie a little above


# --- against other solvers --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_reaches_the_objective_of_scikit_learn(container: Callable[[Any], Any]) -> None:
    X = planted(noise=0.3, seed=3)
    rng = np.random.default_rng(0)
    W, H = rng.random((60, 5)), rng.random((5, 45))
    model = ScikitNMF(5, init="custom", max_iter=3000, tol=1e-9)
    model.fit_transform(X, W=W.copy(), H=H.copy())
    result = fit(container(X), 5, init=(W, H), solver="hals", max_iter=3000, tol=1e-8)
    assert result.error * np.linalg.norm(X) <= model.reconstruction_err_ * (1 + 1e-3)


def test_kl_reaches_the_objective_of_multiplicative_updates_in_fewer_iterations() -> None:
    X = np.floor(5 * planted(noise=0.3, seed=4))
    slow, fast = fit(X, 4, loss="kl", solver="mu", max_iter=200, tol=0.0), fit(X, 4, loss="kl", max_iter=40, tol=0.0)
    assert fast.objective <= slow.objective * (1 + 1e-3)


@pytest.mark.parametrize("solver", ["hals", "pivots", "randomized"])
def test_planted_factors_are_reached(solver: str) -> None:
    """Noiseless and of the planted rank: the error falls far below what rounding of the factors would explain."""
    X = planted(120, 110, 3, seed=5)
    assert fit(X, 3, solver=solver, max_iter=4000, tol=1e-7).error < 2e-3


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_exact_half_step_is_nonnegative_least_squares(r: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    W, A = rng.random((2 * r + 3, r)), rng.standard_normal((2 * r + 3, n))
    X, steps = nonneg_pivots(W.T @ W, W.T @ A, rng.random((r, n)), 1e-13, 200)
    assert (steps > 0).all()
    truth = np.stack([nnls(W, a)[0] for a in A.T], axis=1)
    condition = np.linalg.cond(W) ** 2
    assert np.abs(X - truth).max() <= tolerance("float64", 2 * r + 3, condition * max(1.0, np.abs(truth).max()))


@given(st.integers(1, 20), st.integers(1, 70), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_sweeps_are_those_of_hals(r: int, n: int, sweeps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    W, A, X = rng.random((30, r)), rng.standard_normal((30, n)), rng.random((r, n))
    G, B = W.T @ W, W.T @ A
    truth = X.copy()
    for _ in range(sweeps):
        for k in range(r):
            truth[k] = np.maximum(0, truth[k] + (B[k] - G[k] @ truth) / G[k, k])
    assert np.allclose(nonneg_sweeps(G, B, X, sweeps, 0.0), truth, rtol=0, atol=tolerance("float64", 30 * r, 1e3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("r", "n"), [(1, 1), (7, 16), (8, 40), (21, 37)])
def test_sweeps_do_not_depend_on_the_order_in_memory(r: int, n: int, dtype: str) -> None:
    """Columns side by side, as products with sparse matrices have them, or rows: the same bits."""
    rng = np.random.default_rng(r)
    W = rng.random((30, r))
    B, X = (rng.standard_normal((r, n)).astype(dtype) for _ in range(2))
    first = nonneg_sweeps(W.T @ W, B, np.abs(X), 3, 0.1)
    for turned, other in ((np.asfortranarray(B), np.abs(X)), (np.asfortranarray(B), np.asfortranarray(np.abs(X)))):
        assert np.array_equal(nonneg_sweeps(W.T @ W, turned, other, 3, 0.1), first)
    assert nonneg_sweeps(W.T @ W, np.asfortranarray(B), np.abs(X), 3, 0.1).T.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", [1, 7, 8, 17, 66, 129])
def test_pieces_of_a_sparse_matrix_have_its_products(rank: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(rank)
    A = sp.random_array((83, 61), density=0.3, rng=rng, format="csr", dtype=dtype)
    W, H = (rng.random((rank, n)).astype(dtype) for n in A.shape)
    whole = as_nonnegative(A)
    plain = whole.left(W), whole.right(H)
    assert not whole._pieces  # the factors are small
    monkeypatch.setattr("randla.nonnegative._matrices.CACHE_BYTES", 10 * rank * W.itemsize)
    cut = as_nonnegative(A)
    pieces = cut.left(W), cut.right(H)
    assert {side: len(arrays[2]) for (side, _), arrays in cut._pieces.items()} == {
        "columns": 1 + 61 * 9, "rows": 1 + 83 * 7,
    }  # fmt: skip
    for before, after, truth in zip(plain, pieces, (W @ A, H @ A.T), strict=True):
        assert np.array_equal(before, after)  # pieces come in the order of the columns
        assert np.allclose(after, truth, rtol=0, atol=tolerance(dtype, 83, float(np.abs(truth).max())))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("options", [{"solver": "hals"}, {"solver": "pivots"}, {"loss": "kl", "solver": "newton"}])
def test_penalties_are_those_of_scikit_learn(options: dict[str, Any]) -> None:
    X = planted(noise=0.3, seed=6)
    result = fit(X, 4, alpha_W=0.01, alpha_H=0.02, l1_ratio=0.3, max_iter=300, tol=1e-6, **options)
    beta = 1.0 if options.get("loss") == "kl" else 2.0
    W, H, (m, n) = result.W, result.H, X.shape
    penalty = 0.01 * n * (0.3 * W.sum() + 0.35 * (W**2).sum()) + 0.02 * m * (0.3 * H.sum() + 0.35 * (H**2).sum())
    assert result.objective == pytest.approx(loss_of(X, W, H, beta) + penalty, rel=1e-9)
    rng = np.random.default_rng(0)
    model = ScikitNMF(
        4, init="custom", solver="cd" if beta == 2 else "mu", beta_loss=beta, alpha_W=0.01, alpha_H=0.02, l1_ratio=0.3,
        max_iter=3000, tol=1e-9,
    )  # fmt: skip
    left = model.fit_transform(X, W=rng.random((m, 4)), H=rng.random((4, n)))
    right = model.components_
    theirs = loss_of(X, left, right, beta) + 0.01 * n * (0.3 * left.sum() + 0.35 * (left**2).sum())
    theirs += 0.02 * m * (0.3 * right.sum() + 0.35 * (right**2).sum())
    assert result.objective <= theirs * (1 + 2e-2)  # another stationary point may be a little worse


# --- starts, restarts, revival ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_starts_are_nonnegative_and_fit_better_than_nothing(init: str, container: Callable[[Any], Any]) -> None:
    data = as_nonnegative(container(planted(noise=0.2, seed=7)))
    Wt, H = start(data, 5, init, as_key(0))
    assert Wt.shape == (5, 60)
    assert H.shape == (5, 45)
    assert (Wt >= 0).all()
    assert (H >= 0).all()
    assert data.residual_squares(Wt, H) < data.squared_norm
    again = start(data, 5, init, as_key(0))
    assert np.array_equal(Wt, again[0])


def test_low_rank_start_lies_below_the_others() -> None:
    data = as_nonnegative(planted(noise=0.2, seed=8))
    errors = {
        init: data.residual_squares(*start(data, 4, init, as_key(0))) for init in ("random", "nndsvd", "nnsvdlrc")
    }
    assert errors["nnsvdlrc"] < min(errors["random"], errors["nndsvd"])


def test_random_starts_do_not_depend_on_the_other_side() -> None:
    small, large = (as_nonnegative(planted(m, 45)) for m in (30, 60))
    H = [start(data, 3, "random", as_key(1))[1] for data in (small, large)]
    ratio = H[0] / H[1]
    assert np.allclose(ratio, ratio[:, :1], rtol=1e-5)  # parts differ in scale only


def test_best_of_several_starts_is_returned() -> None:
    X = planted(noise=0.3, seed=9)
    result = fit(X, 6, n_init=4, max_iter=20)
    assert len(result.start_objectives) == 4
    assert len(set(result.start_objectives)) > 1
    assert result.objective == pytest.approx(min(result.start_objectives), rel=1e-9)


def test_parts_that_died_are_revived() -> None:
    X = planted(noise=0.1, seed=10)
    data = as_nonnegative(X)
    Wt, H = start(data, 4, "random", as_key(0))
    Wt[2], H[2] = 0, 0
    new_Wt, new_H, count = revived(data, Wt, H)
    assert count == 1
    assert data.residual_squares(new_Wt, new_H) < data.residual_squares(Wt, H)
    ended = alternate(data, Wt, H, Penalties(), solver="hals", max_iter=60, tol=1e-9)
    assert ended.n_revived >= 1
    assert (np.linalg.norm(ended.Wt, axis=1) * np.linalg.norm(ended.H, axis=1) > 0).all()


# --- one key, scalings, permutations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e-290])
@pytest.mark.parametrize("options", [{}, {"loss": "kl"}])
def test_scales_near_the_ends_of_double_precision(scale: float, options: dict[str, Any]) -> None:
    X = planted(noise=0.1, seed=11)
    plain, scaled = fit(X, 3, max_iter=40, **options), fit(X * scale, 3, max_iter=40, **options)
    assert scaled.error == pytest.approx(plain.error, rel=1e-6)
    assert np.allclose((scaled.W / math.sqrt(scale)) @ (scaled.H / math.sqrt(scale)), plain.W @ plain.H, atol=1e-6)


def test_float32_near_the_ends_of_single_precision() -> None:
    X = planted(noise=0.1, seed=11).astype(np.float32)
    plain = fit(X, 3, max_iter=40)
    for scale in (np.float32(2.0**90), np.float32(2.0**-90)):
        assert fit(X * scale, 3, max_iter=40).error == pytest.approx(plain.error, rel=1e-3)


@given(st.permutations(range(20)))
@settings(max_examples=10, deadline=None)
def test_permuted_columns_permute_the_factor(order: list[int]) -> None:
    """For exact half steps; sweeps end tile by tile of columns, so that their number depends on the order."""
    X = planted(25, 20, 3, noise=0.2, seed=12)
    W, H = np.random.default_rng(0).random((25, 3)), np.random.default_rng(1).random((3, 20))
    plain = fit(X, 3, init=(W, H), solver="pivots", max_iter=8, tol=0.0)
    turned = fit(X[:, order], 3, init=(W, H[:, order]), solver="pivots", max_iter=8, tol=0.0)
    assert np.allclose(turned.H, plain.H[:, order], atol=1e-7)
    assert turned.objective == pytest.approx(plain.objective, rel=1e-9)


def test_same_key_same_factors_for_any_number_of_threads() -> None:
    import randla

    X = ROW_SPARSE
    results = []
    for n_threads in (1, 2, 5):
        with randla.threads(n_threads):
            results.append(fit(X, 5, max_iter=10))
    assert all(np.array_equal(results[0].H, other.H) for other in results)
    assert not np.array_equal(results[0].H, nmf(X, 5, init="random", rng=1, max_iter=10, on_failure="ignore").H)


def test_other_array_libraries(xp: ModuleType, put: Callable[[Any], Any]) -> None:
    """The text of the algorithms, off the host where that can be had."""
    X = planted(30, 25, 3, noise=0.2, seed=13)
    for options in ({"solver": "hals"}, {"loss": "kl"}, {"solver": "mu"}, {"loss": 0.5}):
        mine, truth = (
            fit(put(X), 3, max_iter=4, init="random", **options),
            fit(X, 3, max_iter=4, init="random", **options),
        )
        assert np.allclose(to_host(mine.W) @ to_host(mine.H), truth.W @ truth.H, atol=1e-5)


# --- edges ------------------------------------------------------------------------------------------------------------


def test_zero_rows_and_columns_have_zeros() -> None:
    X = planted(noise=0.1, seed=14)
    X[3], X[:, 7] = 0, 0
    for options in ({}, {"solver": "pivots"}):
        result = fit(X, 4, max_iter=50, **options)
        assert not result.W[3].any()
        assert not result.H[:, 7].any()
    kl = fit(X, 4, loss="kl", max_iter=50)
    assert kl.W[3].max() * kl.H.max() < 1e-9


@pytest.mark.parametrize("options", [{}, {"loss": "kl"}, {"solver": "mu"}])
def test_trivial_matrices(options: dict[str, Any]) -> None:
    for X, rank in ((np.zeros((5, 4)), 2), (np.ones((5, 4)), 0), (np.zeros((0, 4)), 2), (np.zeros((4, 0)), 2)):
        result = fit(X, rank, **options)
        assert result.W.shape == (X.shape[0], rank)
        assert result.H.shape == (rank, X.shape[1])
        assert result.converged
        assert not result.W.any()
    assert fit(np.ones((5, 4)), 0).error == 1.0
    assert fit(np.zeros((5, 4)), 2).error == 0.0


def test_more_parts_than_sides() -> None:
    for init in INITS:
        result = fit(planted(6, 5, 2), 9, init=init, max_iter=500, tol=1e-7)
        assert result.H.shape == (9, 5)
        assert result.error < 1e-3


def test_one_part_is_the_leading_singular_pair() -> None:
    X = planted(noise=0.3, seed=15)
    U, s, Vh = np.linalg.svd(X)
    result = fit(X, 1, tol=1e-10, max_iter=500)
    assert np.allclose(result.W @ result.H, s[0] * np.abs(np.outer(U[:, 0], Vh[0])), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"X": -np.ones((3, 3))}, ValueError, "X must be nonnegative, got -1"),
        ({"X": np.array([[1.0, np.nan]])}, ValueError, "X must have no NaN"),
        ({"X": np.array([[1.0, np.inf]])}, ValueError, "X must be finite"),
        ({"X": np.ones((3, 3), complex)}, TypeError, "X must be real"),
        ({"X": np.ones(3)}, ValueError, "X must be 2-D"),
        ({"X": "text"}, TypeError, "X must be an array"),
        ({"rank": -1}, ValueError, "rank must be at least 0"),
        ({"rank": 2.5}, TypeError, "rank must be an integer"),
        ({"loss": "l1"}, ValueError, "loss must be one of"),
        ({"solver": "cd"}, ValueError, "solver must be one of"),
        ({"solver": "newton"}, ValueError, "for beta = 2"),
        ({"loss": "kl", "solver": "hals"}, ValueError, "for beta = 1"),
        ({"X": ROW_SPARSE, "solver": "randomized"}, ValueError, "sketch is dense"),
        ({"X": np.eye(3), "loss": "itakura-saito"}, ValueError, "X must be positive everywhere"),
        ({"init": "magic"}, ValueError, "init must be one of"),
        ({"init": (np.ones((2, 2)), np.ones((2, 2)))}, ValueError, "init W must have shape"),
        ({"init": (-np.ones((3, 2)), np.ones((2, 3)))}, ValueError, "init W must be finite and nonnegative"),
        ({"init": (np.ones((3, 2)), np.ones((2, 3))), "n_init": 2}, ValueError, "n_init must be 1"),
        ({"alpha_W": -1.0}, ValueError, "alpha_W must be finite"),
        ({"l1_ratio": 2.0}, ValueError, "l1_ratio must be finite"),
        ({"max_iter": -1}, ValueError, "max_iter must be at least 0"),
        ({"tol": -1.0}, ValueError, "tol must be finite"),
        ({"on_failure": "shout"}, ValueError, "on_failure must be"),
    ],
)
def test_bad_input(change: dict[str, Any], kind: type, text: str) -> None:
    arguments: dict[str, Any] = {"X": np.ones((3, 3)), "rank": 2, **change}
    with pytest.raises(kind, match=text):
        nmf(arguments.pop("X"), arguments.pop("rank"), **arguments)


def test_too_few_iterations_are_told() -> None:
    X = planted(noise=0.3)
    for options in ({"max_iter": 0}, {"max_iter": 2}, {"loss": "kl", "max_iter": 2}):
        with pytest.warns(ConvergenceWarning, match="nmf ended with Status.MAX_ITER"):
            assert not nmf(X, 3, tol=1e-9, rng=0, **options).converged
    with pytest.raises(ConvergenceError) as caught:
        nmf(X, 3, tol=1e-9, max_iter=2, rng=0, on_failure="raise")
    assert caught.value.result.W.shape == (60, 3)


def test_rounding_floor_is_told() -> None:
    result = fit(planted(20, 15, 2).astype(np.float32), 2, tol=0.0, max_iter=20_000)
    assert result.status is Status.STAGNATED
    assert not result.converged


def test_callback_ends_the_run_quietly() -> None:
    seen = []
    for options in ({"solver": "hals"}, {"solver": "randomized"}, {"loss": "kl"}, {"solver": "mu"}):
        seen.clear()

        def watch(step: Any) -> bool:
            seen.append(step)
            return len(seen) == 3

        result = nmf(planted(noise=0.3), 3, tol=0.0, rng=0, callback=watch, n_init=2, **options)
        assert [step.n_iter for step in seen] == [1, 2, 3]
        assert result.n_iter == 3
        assert len(result.start_objectives) == 1


def test_residual_is_formed_where_the_identity_cancels() -> None:
    """At an error of 1e-9 the identity in double precision has no digit left."""
    X = planted(50, 40, 2, seed=16)
    rng = np.random.default_rng(16)
    W, H = rng.random((50, 2)), rng.random((2, 40))
    data: Any
    for data in (Dense(X), Sparse(sp.csr_array(X))):
        result = alternate(data, W.T * (1 + 1e-9), H, Penalties(), solver="hals", max_iter=0, tol=0.0)
        assert math.sqrt(2 * result.objective) / np.linalg.norm(X) == pytest.approx(1e-9, rel=1e-3)


def test_repr_and_products() -> None:
    result = fit(planted(), 3, max_iter=5)
    assert "NMFResult(W: numpy float64 (60, 3)" in repr(result)
    assert result.rank == 3
    assert result.shape == (60, 45)
    v = np.ones((45, 2))
    assert np.allclose(result.matmul(v), result.to_dense() @ v)
