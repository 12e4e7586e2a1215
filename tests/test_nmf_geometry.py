"""Separable and minimum-volume factorisations, their least-squares problems, and mixed memberships."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, minimize, nnls

import randla
from randla._arrays import to_host
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.nonnegative.ellipsoid import EXCESS, enclosing_ellipsoid
from randla.nonnegative.simplex import capped_lstsq, nonneg_lstsq, onto_simplex
from randla.nonnegative.solvers import nmf

from .conftest import tolerance


def separable(
    m: int, r: int, n: int, seed: int = 0, noise: float = 0.0, scales: bool = True
) -> tuple[np.ndarray, set[int], np.ndarray]:
    """Mixtures of r columns among which these are, in any order and scale; the places of the pure ones, and W."""
    rng = np.random.default_rng(seed)
    W = rng.random((m, r))
    H = np.hstack([rng.dirichlet(np.ones(r), n).T, np.eye(r)])
    order = rng.permutation(n + r)
    X = (W @ H * (rng.uniform(0.1, 10, n + r) if scales else 1.0))[:, order]
    noisy = np.maximum(X + noise * rng.standard_normal(X.shape), 0)
    return noisy, {int(np.flatnonzero(order == n + k)[0]) for k in range(r)}, W


def angle(W: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle between the columns of two matrices, best matched."""
    left, right = (M / np.linalg.norm(M, axis=0) for M in (W, truth))
    angles = np.arccos(np.clip(left.T @ right, -1, 1))
    return float(angles[linear_sum_assignment(angles)].mean())


# --- least squares and projections ------------------------------------------------------------------------------------


def problem(m: int, k: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    W, X = rng.random((m, k)), rng.standard_normal((m, n)) + 0.5
    return W, X, W.T @ W, W.T @ X


def test_nonnegative_least_squares_are_exact() -> None:
    W, X, G, B = problem(20, 6, 15, 0)
    H = nonneg_lstsq(G, B)
    for j in range(15):
        assert np.abs(H[:, j] - nnls(W, X[:, j])[0]).max() <= tolerance("float64", 20, np.linalg.cond(G))


@pytest.mark.parametrize(("m", "k"), [(20, 1), (20, 5), (3, 5)])
def test_capped_least_squares_are_exact(m: int, k: int) -> None:
    """The conditions of optimality: a multiplier for the sum, no entry with a negative slope; G may be singular."""
    _, _, G, B = problem(m, k, 40, 1)
    H = capped_lstsq(G, B)
    assert H.min() >= 0
    assert H.sum(axis=0).max() <= 1 + tolerance("float64", k)
    slopes = G @ H - B
    multiplier = np.maximum(-slopes.min(axis=0), 0)
    size = 1e-6 * (np.linalg.norm(G) + np.abs(B).max())  # the square of it is what is lost in the distance
    assert np.all(multiplier * (1 - H.sum(axis=0)) <= size)
    assert np.all(H * (slopes + multiplier) <= size)


def test_capped_least_squares_against_a_general_solver() -> None:
    _, _, G, B = problem(8, 3, 4, 2)
    H = capped_lstsq(G, B)
    for j in range(4):
        found = minimize(
            lambda h, j=j: 0.5 * h @ G @ h - B[:, j] @ h, np.full(3, 0.1), jac=lambda h, j=j: G @ h - B[:, j],
            bounds=[(0, None)] * 3, constraints={"type": "ineq", "fun": lambda h: 1 - h.sum()}, method="SLSQP",
            options={"ftol": 1e-15},
        )  # fmt: skip
        assert 0.5 * H[:, j] @ G @ H[:, j] - B[:, j] @ H[:, j] <= found.fun + 1e-12


@given(st.integers(1, 8), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_projections_on_simplices(r: int, seed: int, at_most: bool) -> None:
    """The projection makes an obtuse angle with every vertex."""
    X = np.random.default_rng(seed).standard_normal((r, 5)) * 10.0 ** np.random.default_rng(seed).integers(-3, 3)
    P = onto_simplex(X, at_most=at_most)
    assert P.min() >= 0
    total = P.sum(axis=0)
    assert np.all(total <= 1 + tolerance("float64", r)) if at_most else np.allclose(total, 1, rtol=0, atol=1e-12)
    corners = np.hstack([np.eye(r), np.zeros((r, 1))]) if at_most else np.eye(r)
    for j in range(5):
        products = (X[:, j] - P[:, j]) @ (corners - P[:, j : j + 1])
        assert products.max() <= tolerance("float64", r, 1 + np.abs(X[:, j]).sum() ** 2)


def test_ellipsoid_encloses_and_is_the_least() -> None:
    """All points are inside, and the weighted sum of outer products of touching ones is the identity (John)."""
    rng = np.random.default_rng(0)
    P = rng.standard_normal((4, 200)) * np.array([1, 5, 0.2, 1])[:, None]
    Q = enclosing_ellipsoid(P)
    norms = np.linalg.norm(Q, axis=0)
    assert norms.max() <= 1 + EXCESS
    touching = Q[:, norms > 1 - 5 * EXCESS]
    outer = np.array([np.outer(q, q).ravel() for q in touching.T]).T
    weights, residual = nnls(outer, np.eye(4).ravel())
    assert residual <= 0.1
    assert abs(weights.sum() - 4) <= 0.1


# --- successive projections -------------------------------------------------------------------------------------------


@given(st.integers(2, 6), st.integers(0, 30), st.integers(0, 10**6), st.sampled_from([1e-150, 1e-20, 1.0, 1e20, 1e150]))
@settings(max_examples=40, deadline=None)
def test_pure_columns_are_found_exactly(r: int, n: int, seed: int, scale: float) -> None:
    """Whatever the order and the scales of the columns."""
    X, pure, _ = separable(12, r, n, seed)
    for find in (randla.spa, randla.snpa):
        result = find(X * scale, r)
        assert set(result.columns.tolist()) == pure
        assert result.error <= 1e-12
        assert result.status is Status.CONVERGED
        assert np.array_equal(result.W, (X * scale)[:, result.columns])
        assert result.H.min() >= 0


def test_history_is_the_largest_residual() -> None:
    X = np.random.default_rng(0).random((15, 40))
    result = randla.spa(X, 5, normalize=False)
    assert len(result.history) == 6
    for k in range(6):
        Q = np.linalg.qr(X[:, result.columns[:k]])[0]
        left = np.linalg.norm(X - Q @ (Q.T @ X), axis=0)
        assert abs(result.history[k] - left.max() / np.linalg.norm(X, axis=0).max()) <= tolerance("float64", 600)
        if k < 5:
            assert int(left.argmax()) == result.columns[k]
    assert abs(result.error - np.linalg.norm(X - result.W @ result.H) / np.linalg.norm(X)) <= tolerance("float64", 600)


def test_distances_of_snpa_are_those_to_the_hull() -> None:
    """The lazy evaluation picks what computing every distance picks."""
    X = np.random.default_rng(1).random((6, 700))
    result = randla.snpa(X, 6, normalize=False)
    longest = np.linalg.norm(X, axis=0).max()
    for k in range(1, 6):
        W = X[:, result.columns[:k]]
        H = capped_lstsq(W.T @ W, W.T @ X)
        left = np.linalg.norm(X - W @ H, axis=0)
        assert abs(result.history[k] - left.max() / longest) <= 1e-6
        assert left[result.columns[k]] >= left.max() * (1 - 1e-6)


def test_hull_beyond_the_rank() -> None:
    """Five corners in a plane: SNPA finds them, SPA ends after three with a status."""
    angles = 2 * np.pi * np.arange(5) / 5
    corners = np.stack([1 + np.cos(angles), 1 + np.sin(angles), np.full(5, 3.0)])
    X = corners @ np.hstack([np.random.default_rng(0).dirichlet(np.ones(5), 50).T, np.eye(5)])
    assert sorted(randla.snpa(X, 5).columns.tolist()) == [50, 51, 52, 53, 54]
    short = randla.spa(X, 5)
    assert (short.rank, short.status, short.converged) == (3, Status.RANK_DEFICIENT, True)
    assert randla.snpa(X, 8).rank == 5
    assert randla.snpa(X, 8).status is Status.RANK_DEFICIENT


def test_noise_within_the_bound_of_the_theorem() -> None:
    """Theorem 3 of Gillis and Vavasis: all columns of W are found within 9 eps kappa^2 for small enough eps."""
    for seed in range(3):
        X, _, W = separable(30, 4, 200, seed, scales=False)
        W = W / W.sum(axis=0)
        X = X / X.sum(axis=0)
        rng = np.random.default_rng(seed)
        s = np.linalg.svd(W, compute_uv=False)
        kappa = np.linalg.norm(W, axis=0).max() / s[-1]
        size = s[-1] / (2 * 4**0.5 * (1 + 80 * kappa**2))
        N = rng.standard_normal(X.shape)
        result = randla.spa(X + size * N / np.linalg.norm(N, axis=0), 4, normalize=False)
        nearest = np.linalg.norm(W[:, :, None] - X[:, None, result.columns], axis=0).min(axis=1)
        assert nearest.max() <= size * (1 + 80 * kappa**2)


@pytest.mark.parametrize("precondition", ["svd", "ellipsoid"])
def test_preconditioning_tolerates_more_noise(precondition: str) -> None:
    """The worst case of Gillis and Vavasis: W of condition 1000, midpoints that are pushed outwards."""
    plain = better = 0
    for seed in range(4):
        U, _, Vh = np.linalg.svd(np.random.default_rng(seed).random((20, 6)), full_matrices=False)
        W = U * np.geomspace(1, 1e-3, 6) @ Vh
        middle = np.array([(W[:, a] + W[:, b]) / 2 for a in range(6) for b in range(a)]).T
        X = np.hstack([W, middle + 0.2 * (middle - W.mean(axis=1, keepdims=True))])
        found = randla.spa(X, 6, normalize=False, precondition=precondition, rng=0)
        better += len(set(found.columns.tolist()) & set(range(6)))
        plain += len(set(randla.spa(X, 6, normalize=False).columns.tolist()) & set(range(6)))
    assert better == 24
    assert plain < 20


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.csr_matrix, sp.coo_array])
def test_sparse_is_dense(container: Any) -> None:
    S = sp.random_array((30, 60), density=0.2, rng=np.random.default_rng(0), format="csr")
    for find in (randla.spa, randla.snpa):
        dense, sparse = find(S.toarray(), 8), find(container(S), 8)
        assert np.array_equal(dense.columns, sparse.columns)
        assert abs(dense.error - sparse.error) <= tolerance("float64", 1800)
    with_zeros = sp.csr_array(S)
    with_zeros.data[:20] = 0.0
    before = with_zeros.copy()
    assert np.array_equal(randla.spa(with_zeros, 5).columns, randla.spa(with_zeros.toarray(), 5).columns)
    assert np.array_equal(before.data, with_zeros.data)


def test_namespaces_dtypes_and_devices(put: Any, dtype: str) -> None:
    X, pure, _ = separable(10, 3, 20, 0)
    X = X.astype(dtype)
    for find in (randla.spa, randla.snpa):
        result = find(put(X), 3)
        assert set(to_host(result.columns).tolist()) == pure
        assert to_host(result.W).dtype == to_host(result.H).dtype == dtype
        assert result.error <= tolerance(dtype, 10, 10)
    for precondition in ("svd", "ellipsoid"):
        assert set(to_host(randla.spa(put(X), 3, precondition=precondition, rng=0).columns).tolist()) == pure


def test_single_precision_at_high_rank() -> None:
    """Differences of squares would have lost all digits by the last choices."""
    rng = np.random.default_rng(0)
    W = np.linalg.qr(rng.standard_normal((50, 12)))[0] * np.geomspace(1, 1e-4, 12)
    H = np.hstack([rng.dirichlet(np.ones(12), 100).T, np.eye(12)])
    result = randla.spa((W @ H).astype(np.float32), 12, normalize=False)
    assert set(result.columns.tolist()) == set(range(100, 112))


def test_integers_and_zero_columns() -> None:
    X = np.array([[0, 2, 0, 1, 3], [0, 0, 5, 1, 0]])
    result = randla.spa(X, 2)
    assert set(result.columns.tolist()) <= {1, 2, 4}
    assert result.error <= tolerance("float64", 10)
    assert np.array_equal(result.H[:, 0], np.zeros(2))
    assert X.dtype == np.int64


def test_nothing_to_choose() -> None:
    for find in (randla.spa, randla.snpa):
        result = find(np.zeros((4, 3)), 2)
        assert (result.rank, result.error, result.status) == (0, 0.0, Status.RANK_DEFICIENT)
        assert result.W.shape == (4, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_columns(bad: float) -> None:
    X = np.ones((4, 3))
    X[1, 1] = bad
    for find in (randla.spa, randla.snpa):
        with pytest.warns(ConvergenceWarning, match="NONFINITE"):
            assert find(X, 2).status is Status.NONFINITE
        with pytest.raises(ConvergenceError):
            find(X, 2, on_failure="raise")


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, r"rank must be in \[1, 3\], got 4; X has no more columns", {"rank": 4}),
        (ValueError, "rank must be in", {"rank": 0}),
        (TypeError, "rank must be an integer", {"rank": 1.5}),
        (ValueError, "X must be nonnegative with normalize=True, got -1", {"X": -np.ones((4, 3))}),
        (TypeError, "X must be real", {"X": 1j * np.ones((4, 3))}),
        (ValueError, "tol must be finite and in", {"tol": 0.0}),
        (ValueError, "precondition must be one of", {"precondition": "qr"}),
    ],
)
def test_bad_arguments_of_spa(error: type, message: str, options: dict) -> None:
    arguments = {"X": np.ones((4, 3)), "rank": 2, **options}
    with pytest.raises(error, match=message):
        randla.spa(arguments.pop("X"), **arguments)
    if "precondition" not in options:
        arguments = {"X": np.ones((4, 3)), "rank": 2, **options}
        with pytest.raises(error, match=message):
            randla.snpa(arguments.pop("X"), **arguments)


# --- least volume -----------------------------------------------------------------------------------------------------


def no_pure_columns(seed: int, W: np.ndarray, noise: float = 2e-3, n: int = 500) -> np.ndarray:
    """Mixtures in which no part has more than 0.85."""
    rng = np.random.default_rng(seed)
    H = rng.dirichlet(0.4 * np.ones(W.shape[1]), n).T
    X = W @ H[:, H.max(axis=0) < 0.85]
    return np.maximum(X + noise * rng.standard_normal(X.shape), 0)


#: Rank three with four parts, all positive, so that signs say nothing.
DEFICIENT = 0.5 + np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1.0]])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deficient", [False, True])
def test_least_volume_recovers_better_than_plain(seed: int, deficient: bool) -> None:
    """Near-separable data, and parts of deficient rank; against plain NMF and against columns of the data."""
    W = DEFICIENT if deficient else np.random.default_rng(seed).random((30, 4)) + 0.2
    X = no_pure_columns(seed, W)
    found = randla.minvol_nmf(X, 4, weight=0.05, max_iter=1000, on_failure="ignore")
    plain = nmf(X, 4, rng=seed, max_iter=500, on_failure="ignore")
    assert angle(found.W, W) < 0.6 * angle(plain.W, W)
    assert angle(found.W, W) < 0.5 * angle(randla.snpa(X, 4).W, W)


@pytest.mark.parametrize("normalization", ["w-columns", "h-columns", "h-columns-at-most", "h-rows"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "float32"])
def test_objective_never_rises_and_sums_are_kept(normalization: str, kind: str) -> None:
    X = np.random.default_rng(0).random((15, 60)) * (np.random.default_rng(1).random((15, 60)) < 0.5)
    X = {"dense": X, "sparse": sp.csr_array(X), "float32": X.astype(np.float32)}[kind]
    result = randla.minvol_nmf(X, 4, normalization=normalization, max_iter=40, rng=0, on_failure="ignore")
    dtype = result.W.dtype
    assert result.status is not Status.STAGNATED
    assert max(np.diff(result.history)) <= tolerance(dtype, 900)
    assert result.W.min() >= 0
    assert result.H.min() >= 0
    sums = {"w-columns": result.W.sum(axis=0), "h-rows": result.H.sum(axis=1)}.get(normalization, result.H.sum(axis=0))
    if normalization == "h-columns-at-most":
        assert sums.max() <= 1 + tolerance(dtype, 60)
    else:
        assert np.abs(sums - 1).max() <= tolerance(dtype, 60)
    dense = X.toarray() if kind == "sparse" else X
    error = np.linalg.norm(dense - result.W @ result.H) / np.linalg.norm(dense)
    assert abs(result.error - error) <= tolerance(dtype, 900)


def test_tangent_lies_above_the_volume() -> None:
    """What each step rests on: log det is concave, with the inverse as its slope."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        W, V = rng.random((6, 3)), rng.random((6, 3))
        A, B = (M.T @ M + 0.1 * np.eye(3) for M in (W, V))
        tangent = np.linalg.slogdet(A)[1] + np.trace(np.linalg.solve(A, B - A))
        assert np.linalg.slogdet(B)[1] <= tangent + tolerance("float64", 9, abs(tangent))


def test_objective_is_what_it_says() -> None:
    X = no_pure_columns(0, np.random.default_rng(0).random((10, 3)), n=80)
    start = randla.snpa(X, 3)
    result = randla.minvol_nmf(X, 3, init=(start.W, start.H), max_iter=5, on_failure="ignore")
    unit = np.mean(np.sum((start.W / start.W.sum(axis=0)) ** 2, axis=0))
    volume = np.linalg.slogdet(result.W.T @ result.W / unit + 0.1 * np.eye(3))[1]
    fit = np.linalg.norm(X - result.W @ result.H) ** 2 / np.linalg.norm(X) ** 2
    assert abs(result.volume - volume) <= tolerance("float64", 100, abs(volume))
    assert abs(result.objective - fit - result.weight * volume) <= tolerance("float64", 800)
    assert result.n_iter == 5
    assert len(result.errors) == len(result.history) == 6


def test_target_error_is_met() -> None:
    X = no_pure_columns(0, np.random.default_rng(0).random((30, 4)))
    result = randla.minvol_nmf(X, 4, target=0.006, max_iter=1000)
    assert result.converged
    assert abs(result.error / 0.006 - 1) <= 2e-3
    with pytest.warns(ConvergenceWarning):
        missed = randla.minvol_nmf(X, 4, target=1e-8, max_iter=60)  # below the noise
    assert not missed.converged


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e100])
def test_scale_of_the_data_does_not_matter(scale: float) -> None:
    X = no_pure_columns(1, np.random.default_rng(1).random((12, 3)), n=100)
    for normalization in ("w-columns", "h-columns"):
        options = {"normalization": normalization, "max_iter": 20, "on_failure": "ignore"}
        first, other = randla.minvol_nmf(X, 3, **options), randla.minvol_nmf(X * scale, 3, **options)
        assert abs(first.error - other.error) <= 1e-9
        assert abs(first.volume - other.volume) <= 1e-7


def test_volume_zero_does_not_blow_the_weight() -> None:
    """A start whose log det is exactly zero: the weight stays within what the floor allows."""
    W = np.eye(4)[:, :2] * np.sqrt(0.9)
    rng = np.random.default_rng(0)
    X = W @ rng.random((2, 30)) + 0.05 * rng.random((4, 30))
    result = randla.minvol_nmf(X, 2, init=(W, rng.random((2, 30))), normalization="h-rows", delta=0.1, max_iter=3,
                               on_failure="ignore")  # fmt: skip
    assert result.weight <= 0.1 / (0.1 * 2)


def test_random_start_and_its_key() -> None:
    X = no_pure_columns(2, np.random.default_rng(2).random((10, 3)), n=60)
    options = {"init": "random", "max_iter": 30, "on_failure": "ignore"}
    first, again, other = (randla.minvol_nmf(X, 3, rng=seed, **options) for seed in (0, 0, 1))
    assert np.array_equal(first.W, again.W)
    assert not np.array_equal(first.W, other.W)


def test_callback_and_limits() -> None:
    X = no_pure_columns(3, np.random.default_rng(3).random((10, 3)), n=60)
    seen: list[int] = []
    result = randla.minvol_nmf(
        X, 3, tol=0.0, callback=lambda step, objective: seen.append(step) or step == 3, on_failure="ignore"
    )
    assert seen == [1, 2, 3]
    assert result.n_iter == 3
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not randla.minvol_nmf(X, 3, max_iter=0).converged


@pytest.mark.parametrize("normalization", ["w-columns", "h-columns"])
def test_namespaces_of_least_volume(put: Any, normalization: str) -> None:
    X = no_pure_columns(4, np.random.default_rng(4).random((6, 2)), n=25)
    options: dict[str, Any] = {"normalization": normalization, "max_iter": 3, "on_failure": "ignore"}
    host, found = randla.minvol_nmf(X, 2, **options), randla.minvol_nmf(put(X), 2, **options)
    assert np.abs(to_host(found.W) - host.W).max() <= 1e-6
    assert abs(found.error - host.error) <= 1e-8


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "X must be nonnegative", {"X": -np.ones((4, 3))}),
        (ValueError, "X must have no NaN", {"X": np.full((4, 3), np.nan)}),
        (ValueError, "X must be finite", {"X": np.full((4, 3), np.inf)}),
        (ValueError, "X must have a positive entry", {"X": np.zeros((4, 3))}),
        (ValueError, r"rank must be in \[1, 3\]", {"rank": 4}),
        (ValueError, "normalization must be one of", {"normalization": "rows"}),
        (ValueError, "weight must be finite", {"weight": -1.0}),
        (ValueError, "delta must be finite", {"delta": 0.0}),
        (ValueError, "target must be finite", {"target": 0.0}),
        (ValueError, "init must be one of", {"init": "svd"}),
        (ValueError, 'init must be "snpa", "random" or a pair', {"init": np.ones(3)}),
        (ValueError, r"init W must have shape \(4, 2\)", {"init": (np.ones((4, 3)), np.ones((2, 3)))}),
        (ValueError, "init H must be nonnegative", {"init": (np.ones((4, 2)), -np.ones((2, 3)))}),
    ],
)
def test_bad_arguments_of_minvol(error: type, message: str, options: dict) -> None:
    arguments = {"X": np.ones((4, 3)), "rank": 2, **options}
    with pytest.raises(error, match=message):
        randla.minvol_nmf(arguments.pop("X"), **arguments)


# --- mixed memberships ------------------------------------------------------------------------------------------------

MIXING = np.array([[1, 0.2, 0.3], [0.3, 0.9, 0.2], [0.1, 0.3, 0.8]])


def memberships(m: int, seed: int, pure: int = 20) -> np.ndarray:
    shares = np.random.default_rng(seed).dirichlet(np.ones(3), m)
    shares[: 3 * pure] = np.repeat(np.eye(3), pure, axis=0)
    return shares


def membership_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean L1 distance of rows, best matched."""
    cost = np.abs(found[:, :, None] - truth[:, None, :]).sum(axis=0)
    left, right = linear_sum_assignment(cost)
    return float(np.abs(found[:, left] - truth[:, right]).sum(axis=1).mean())


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("sparse", [False, True])
def test_memberships_without_noise_are_exact(sign: float, sparse: bool) -> None:
    """400 x 300 with 20 pure members in each community: 1e-15; signed edges as well."""
    rows, columns = memberships(400, 0), memberships(300, 1)
    A = rows @ (MIXING * np.array([1, sign, 1])) @ columns.T
    result = randla.bipartite_mixed_membership(sp.csr_array(A) if sparse else A, 3, rng=0)
    assert membership_error(result.row_memberships, rows) <= tolerance("float64", 1, result.row_condition * 10)
    assert membership_error(result.column_memberships, columns) <= tolerance("float64", 1, result.column_condition * 10)
    assert np.abs(result.row_memberships.sum(axis=1) - 1).max() <= tolerance("float64", 3)
    assert set(result.pure_rows.tolist()) <= set(range(60))
    assert (result.n_uniform, result.converged) == (0, True)
    mixing = A[np.ix_(result.pure_rows, result.pure_columns)]
    assert np.allclose(np.sort(np.abs(mixing).ravel()), np.sort(MIXING.ravel()), rtol=0, atol=1e-12)


def test_neighbors_help_on_noisy_networks() -> None:
    """Mean errors over six networks with Bernoulli edges: about 0.23 for the row that sticks out, 0.215 for five."""
    rows, columns = memberships(400, 0), memberships(300, 1)
    errors = {1: 0.0, 5: 0.0}
    for seed in range(6):
        A = (np.random.default_rng(seed).random((400, 300)) < rows @ MIXING @ columns.T).astype(float)
        for count in errors:
            result = randla.bipartite_mixed_membership(A, 3, n_neighbors=count, rng=0)
            errors[count] += membership_error(result.row_memberships, rows) / 6
    assert errors[5] < errors[1] < 0.3


def test_communities_that_are_not_there() -> None:
    """One community asked for three: the vectors of the others are made up, and the status says so."""
    rows, columns = memberships(100, 0, pure=5), memberships(80, 1, pure=5)
    A = rows[:, :2] @ MIXING[:2, :2] @ columns[:, :2].T
    assert randla.bipartite_mixed_membership(A, 2, rng=0).converged
    with pytest.warns(ConvergenceWarning, match="BREAKDOWN"):
        result = randla.bipartite_mixed_membership(np.outer(rows[:, 0], columns[:, 0]), 3, rng=0)
    assert result.singular_values[1] <= tolerance("float64", 1, result.singular_values[0])
    assert np.all(np.isfinite(result.row_memberships))


def test_zero_rows_get_equal_shares() -> None:
    A = memberships(60, 0, pure=5) @ MIXING @ memberships(50, 1, pure=5).T
    A[30:33] = 0
    result = randla.bipartite_mixed_membership(A, 3, rng=0)
    assert result.n_uniform >= 3
    assert np.allclose(result.row_memberships[30:33], 1 / 3, rtol=0, atol=1e-12)


def test_namespaces_of_memberships(put: Any) -> None:
    rows, columns = memberships(60, 0, pure=5), memberships(50, 1, pure=5)
    result = randla.bipartite_mixed_membership(put(rows @ MIXING @ columns.T), 3, n_neighbors=2, rng=0)
    assert membership_error(to_host(result.row_memberships), rows) <= tolerance("float64", 60, 10)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, r"n_communities must be in \[1, 4\]", {"n_communities": 5}),
        (ValueError, "n_neighbors must be in", {"n_neighbors": 0}),
        (TypeError, "A must be real", {"A": 1j * np.ones((6, 4))}),
    ],
)
def test_bad_arguments_of_memberships(error: type, message: str, options: dict) -> None:
    arguments = {"A": np.ones((6, 4)), "n_communities": 2, **options}
    with pytest.raises(error, match=message):
        randla.bipartite_mixed_membership(arguments.pop("A"), **arguments)


def test_nonfinite_network() -> None:
    A = np.ones((6, 4))
    A[0, 0] = np.nan
    with pytest.warns(ConvergenceWarning, match="NONFINITE"):
        assert randla.bipartite_mixed_membership(A, 2).status is Status.NONFINITE
