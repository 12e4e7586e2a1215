"""Nonnegative times binary: the search against all vectors, exact products, missing entries, plugged-in solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from array_api_compat import array_namespace
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning as SklearnWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla import ConvergenceWarning, Status, kernels
from randla._arrays import to_host
from randla.estimators import BinaryNMF
from randla.kernels import reference
from randla.nonnegative.binary import binary_codes, binary_nmf

from .conftest import tolerance


def product(m: int, n: int, rank: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W H, W and H: uniform numbers times fair coins."""
    rng = np.random.default_rng(seed)
    W, H = rng.random((m, rank)), rng.integers(0, 2, (rank, n)).astype(float)
    return W @ H, W, H


def with_holes(X: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(X.shape) < share, X, np.nan)


def fit(X: Any, rank: int, **options: Any) -> Any:
    return binary_nmf(X, rank, **{"rng": 0, "on_failure": "ignore", **options})


def falls(result: Any) -> bool:
    """Whether the objective never rises beyond rounding of the squares of X, which are about the first value."""
    history = np.array(result.history)
    return bool(np.all(np.diff(history) <= tolerance("float64", 10_000, history[0])))


def by_sign(Q: Any) -> Any:
    """What would be best for a diagonal Q, in any array library."""
    xp = array_namespace(Q)
    return xp.astype(xp.linalg.diagonal(Q) < 0, xp.int8)


# --- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(1, 13))
def test_search_is_brute_force(k: int) -> None:
    """200 random columns: the values are those of the best of all vectors, full rank or not."""
    rng = np.random.default_rng(k)
    for n_rows in (60, max(1, k // 2)):
        W = rng.random((n_rows, k))
        X = (W.sum(axis=1, keepdims=True) * rng.random((n_rows, 100))).round(1)
        G, B, Z = W.T @ W, W.T @ X, rng.integers(0, 2, (k, 100)).astype(np.int8)
        found, proved = kernels.binary_search(G, B, Z, np.zeros((0, k), np.int8), 10**6)
        every = ((np.arange(2**k)[:, None] >> np.arange(k)) & 1).astype(float)
        values = np.sum((every @ G) * every, axis=1)[:, None] - 2 * every @ B
        mine = np.sum((G @ found) * found, axis=0) - 2 * np.sum(B * found, axis=0)
        assert proved.all()
        assert np.max(np.abs(mine - values.min(axis=0))) <= tolerance("float64", k * k, np.sum(G) + 2 * np.max(B) * k)


def test_known_problem_by_hand() -> None:
    """z.G z - 2 b.z with G = [[2, 1], [1, 2]], b = [1.2, 1]: the values are 0, -0.4, 0 and 1.6."""
    G, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.2], [1.0]])
    for module in (kernels, reference):
        for nodes in (0, 100):
            found, proved = module.binary_search(G, B, np.ones((2, 1), np.int8), np.zeros((0, 2), np.int8), nodes)
            assert found[:, 0].tolist() == [1, 0]
            assert proved[0] == (nodes > 0)


def test_equally_good_columns_stay() -> None:
    """Two equal parts: either of them does, and the one before is kept."""
    G, B = np.ones((2, 2)), np.ones((2, 2))
    Z = np.array([[1, 0], [0, 1]], np.int8)
    assert np.array_equal(kernels.binary_search(G, B, Z, np.zeros((0, 2), np.int8), 100)[0], Z)


def test_nodes_that_run_out_are_told_and_never_worsen() -> None:
    rng = np.random.default_rng(0)
    W, k = rng.random((12, 24)), 24
    X = W @ rng.integers(0, 2, (k, 20)) + rng.random((12, 20))
    G, B, Z = W.T @ W, W.T @ X, rng.integers(0, 2, (k, 20)).astype(np.int8)
    none = np.zeros((0, k), np.int8)
    values = []
    for nodes in (0, 30, 10**7):
        found, proved = kernels.binary_search(G, B, Z, none, nodes)
        values.append(np.sum((G @ found) * found, axis=0) - 2 * np.sum(B * found, axis=0))
        assert proved.all() == (nodes == 10**7)
    before = np.sum((G @ Z) * Z, axis=0) - 2 * np.sum(B * Z, axis=0)
    slack = tolerance("float64", k * k, np.sum(G))
    assert np.all(values[0] <= before + slack)
    assert np.all(values[1] <= before + slack)
    assert np.all(values[2] <= np.minimum(values[0], values[1]) + slack)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_is_proved_of_numbers_that_are_none(bad: float) -> None:
    Z = np.array([[1], [0]], np.int8)
    for module in (kernels, reference):
        found, proved = module.binary_search(np.eye(2), np.array([[bad], [1.0]]), Z, np.zeros((0, 2), np.int8), 100)
        assert np.array_equal(found, Z)
        assert not proved.any()


# --- factorisations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_exact_products_are_recovered(share: float) -> None:
    """The prototype asks for one start of ten with a training loss below 1e-10; from a factorisation it is each."""
    X, W, H = product(60, 80, 6)
    known = X if share == 1.0 else with_holes(X, share)
    found = [fit(known, 6, alpha=0.0, max_iter=300, tol=1e-7, rng=key) for key in range(3)]
    assert all(2 * result.objective < 1e-10 for result in found)
    assert all(map(falls, found))
    result = found[0]
    order = [int(np.argmax(np.sum(result.H[k] == H, axis=1))) for k in range(6)]
    assert np.array_equal(result.H[np.argsort(order)], H)
    assert np.allclose(result.W[:, np.argsort(order)], W, atol=1e-4)
    assert (result.n_unproved, result.error_kind) == (0, "exact" if share == 1.0 else "training")


def test_random_starts_recover_too() -> None:
    X, _, _ = product(60, 80, 6)
    result = fit(with_holes(X, 0.3), 6, alpha=0.0, max_iter=300, tol=1e-7, init="random", n_init=10)
    assert 2 * min(result.start_objectives) < 1e-10
    assert len(result.start_objectives) == 10
    assert result.objective == min(result.start_objectives)


@pytest.mark.parametrize("solver", ["exact", "descent"])
@pytest.mark.parametrize("holes", [False, True])
def test_objective_falls_and_is_as_stated(solver: str, holes: bool) -> None:
    X = product(40, 50, 8)[0] + np.random.default_rng(3).random((40, 50))
    X = with_holes(X, 0.5) if holes else X
    result = fit(X, 8, alpha=0.3, binary_solver=solver, init="random", tol=1e-9)
    assert falls(result)
    R = np.where(np.isnan(X), 0.0, X - result.to_dense())
    assert result.objective == pytest.approx(0.5 * np.sum(R**2) + 0.15 * np.sum(result.W**2), rel=1e-9)
    assert result.error == pytest.approx(np.linalg.norm(R) / np.linalg.norm(np.nan_to_num(X)), rel=1e-7)
    assert set(np.unique(result.H)) <= {0.0, 1.0}
    assert result.n_unproved == (0 if solver == "exact" else 50)
    assert result.solver == f"binary-{solver}"


@pytest.mark.parametrize("holes", [False, True])
def test_callable_gets_the_qubo(holes: bool) -> None:
    """z.Q z + ||x||^2 is ||x - W z||^2 for each vector, and the best one of all gives what the search gives."""
    X = product(30, 20, 4)[0] + np.random.default_rng(5).random((30, 20))
    X = with_holes(X, 0.6) if holes else X
    every = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(float)
    seen = []

    def all_vectors(Q: np.ndarray) -> np.ndarray:
        seen.append(Q)
        return every[np.argmin(np.einsum("bi,ij,bj->b", every, Q, every))]

    mine, exact = fit(X, 4, binary_solver=all_vectors), fit(X, 4)
    assert np.array_equal(mine.H, exact.H)
    assert mine.n_unproved == 20
    assert all(np.array_equal(Q, np.triu(Q)) for Q in seen)
    W = np.random.default_rng(6).random((30, 4))
    seen.clear()
    binary_codes(X, W, binary_solver=all_vectors)
    for Q, x in zip(seen, X.T, strict=True):
        known = ~np.isnan(x)
        squares = np.sum((x[known, None] - W[known] @ every.T) ** 2, axis=0)
        shifted = np.einsum("bi,ij,bj->b", every, Q, every) + np.sum(x[known] ** 2)
        assert np.allclose(squares, shifted, atol=tolerance("float64", 30, 100.0))


def test_worse_answers_of_a_callable_are_not_taken() -> None:
    X = product(30, 20, 3)[0]
    result = fit(X, 3, binary_solver=lambda Q: np.zeros(len(Q)), init="random")
    assert falls(result)


@pytest.mark.parametrize("answer", [np.zeros(2), np.full(3, 0.5), np.full(3, np.nan)])
def test_wrong_answers_of_a_callable_raise(answer: np.ndarray) -> None:
    with pytest.raises(ValueError, match="binary_solver must return 3 zeros and ones"):
        fit(product(10, 8, 3)[0], 3, binary_solver=lambda Q: answer)


def test_containers_agree(dtype: str) -> None:
    X = with_holes(product(30, 40, 3)[0] + 0.1, 0.5).astype(dtype)
    seen = ~np.isnan(X)
    A = sp.csr_array((X[seen], np.nonzero(seen)), shape=X.shape)
    dense, stored = fit(X, 3, max_iter=5), fit(A, 3, absent="missing", max_iter=5)
    assert dense.W.dtype == dense.H.dtype == np.dtype(dtype)
    assert np.array_equal(dense.H, stored.H)
    assert np.allclose(dense.W, stored.W, atol=tolerance(dtype, 1000, 10.0))
    full = np.where(seen, X, 0).astype(dtype)
    zeros = [fit(B, 3, absent=absent) for B, absent in ((full, None), (sp.csr_array(full), "zeros"))]
    assert np.array_equal(zeros[0].H, zeros[1].H)
    assert zeros[0].error == pytest.approx(zeros[1].error, rel=tolerance(dtype, 1200))


@pytest.mark.parametrize("holes", [False, True])
def test_other_array_libraries(holes: bool, xp: ModuleType, put: Callable) -> None:
    X = product(9, 7, 3)[0] + 0.1 * np.random.default_rng(0).random((9, 7))
    X = with_holes(X, 0.7) if holes else X
    for init, rank in (("random", 3), ("nmf", 1)):
        mine, theirs = (fit(data, rank, max_iter=2, init=init) for data in (X, put(X)))
        assert np.array_equal(to_host(theirs.H), mine.H)
        assert np.allclose(to_host(theirs.W), mine.W, atol=tolerance("float64", 1000, 10.0))
        assert type(theirs.W) is type(put(X))
    mine, theirs = (fit(data, 2, max_iter=1, init="random", binary_solver=by_sign) for data in (X, put(X)))
    assert np.array_equal(to_host(theirs.H), mine.H)


def test_unused_parts_are_revived_and_the_objective_falls() -> None:
    X, W, H = product(30, 40, 5)
    W0, H0 = W.copy(), H.copy()
    W0[:, 3:], H0[3:] = 0, 0
    for known in (X, with_holes(X, 0.6)):
        result = fit(known, 5, alpha=0.0, init=(W0, H0), max_iter=200, tol=1e-9)
        assert result.n_revived > 0
        assert falls(result)
        assert result.H.any(axis=1).all()
    assert fit(X, 5, alpha=2.0, init=(W0, H0)).n_revived == 0  # a new part could cost more than it brings


def test_rows_and_columns_without_entries() -> None:
    X = with_holes(product(20, 25, 3)[0], 0.7)
    X[4], X[:, 7] = np.nan, np.nan
    result = fit(X, 3)
    assert not result.W[4].any()
    assert not result.H[:, 7].any()
    assert np.array_equal(result.predict([4, 5], [7, 8]), [0.0, (result.W @ result.H)[5, 8]])


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scales_near_the_ends_of_the_range(scale: float) -> None:
    X = product(20, 25, 3)[0]
    for data in (X, with_holes(X, 0.7)):
        plain, scaled = fit(data, 3), fit(data * scale, 3)
        assert np.array_equal(scaled.H, plain.H)
        assert scaled.error == pytest.approx(plain.error, rel=0.01)  # the start has another rounding


@pytest.mark.parametrize("shape", [(0, 4), (5, 0), (5, 4)])
def test_trivial_data(shape: tuple[int, int]) -> None:
    for rank in (0, 2, 6):
        result = fit(np.zeros(shape), rank)
        assert result.W.shape == (shape[0], rank)
        assert result.H.shape == (rank, shape[1])
        assert not result.to_dense().any()
    X = product(6, 5, 2)[0]
    assert fit(X, 9).error < 1e-3  # more parts than rows
    assert fit(X, 0).error == 1.0


def test_endings() -> None:
    X = product(20, 30, 4)[0] + np.random.default_rng(2).random((20, 30))
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        result = binary_nmf(X, 4, max_iter=1, tol=0.0, rng=0)
    assert (result.status, result.converged, result.n_iter) == (Status.MAX_ITER, False, 1)
    steps = []
    stopped = binary_nmf(X, 4, tol=0.0, rng=0, callback=lambda step: steps.append(step) or len(steps) == 2)
    assert stopped.n_iter == 2
    assert steps[-1].error == pytest.approx(stopped.error, rel=1e-9)
    assert fit(X, 4).converged
    assert np.array_equal(fit(X, 4, rng=7).W, fit(X, 4, rng=7).W)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": -np.ones((3, 3))}, "nonnegative"),
        ({"X": np.full((3, 3), np.inf)}, "finite"),
        ({"X": np.array([[1.0, np.nan], [-1.0, 2.0]])}, "nonnegative"),
        ({"X": np.array([[1.0, np.nan], [1.0, 2.0]]), "absent": "zeros"}, "absent must be"),
        ({"X": sp.eye_array(3, format="csr")}, "absent must be"),
        ({"absent": "nothing"}, "absent must be one of"),
        ({"rank": -1}, "rank must be"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"binary_solver": "annealer"}, "binary_solver must be one of"),
        ({"max_nodes": 0}, "max_nodes must be"),
        ({"init": "svd"}, "init must be one of"),
        ({"init": 3}, "init must be one of"),
        ({"init": (np.ones((4, 2)), np.full((2, 5), 0.5))}, "init H must have zeros and ones"),
        ({"init": (np.ones((4, 2)), np.ones((2, 4)))}, "init H must have shape"),
        ({"init": (-np.ones((4, 2)), np.ones((2, 5)))}, "init W must be finite"),
        ({"init": (np.ones((4, 2)), np.ones((2, 5))), "n_init": 2}, "n_init must be 1"),
        ({"n_init": 0}, "n_init must be"),
        ({"tol": -1.0}, "tol must be"),
        ({"on_failure": "stop"}, "on_failure must be"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments = {"X": np.ones((4, 5)), "rank": 2, **change}
    with pytest.raises(ValueError, match=message):
        binary_nmf(arguments.pop("X"), arguments.pop("rank"), **arguments)


def test_wrong_kinds_of_input_and_inputs_that_stay() -> None:
    with pytest.raises(TypeError, match="real"):
        binary_nmf(np.ones((3, 3), complex), 1)
    with pytest.raises(TypeError, match="rank must be an integer"):
        binary_nmf(np.ones((3, 3)), 1.5)
    X, W, H = product(8, 9, 2)
    copies = X.copy(), W.copy(), H.copy()
    fit(X, 2, init=(W, H))
    assert all(np.array_equal(a, b) for a, b in zip(copies, (X, W, H), strict=True))


# --- the estimator ----------------------------------------------------------------------------------------------------


@parametrize_with_checks([BinaryNMF(2, random_state=0), BinaryNMF(2, binary="codes", missing="nan", random_state=0)])
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("binary", ["components", "codes"])
def test_estimator_is_the_function(binary: str, dtype: str) -> None:
    X = (product(40, 30, 3)[0] + 0.2 * np.random.default_rng(0).random((40, 30))).astype(dtype)
    model = BinaryNMF(3, binary=binary, random_state=5).fit(X)
    result = fit(X.T if binary == "codes" else X, 3, rng=5)
    parts = result.W.T if binary == "codes" else result.H
    assert np.array_equal(model.components_, parts)
    assert (model.error_, model.n_iter_, model.status_, model.n_unproved_) == (
        result.error, result.n_iter, result.status, 0,
    )  # fmt: skip
    W = model.transform(X)
    assert W.dtype == np.dtype(dtype)
    best = np.linalg.norm(X - model.inverse_transform(W)) / np.linalg.norm(X)
    assert best <= result.error + tolerance(dtype, X.size)
    if binary == "codes":
        assert set(np.unique(W)) <= {0.0, 1.0}
    assert model.get_feature_names_out().tolist() == ["binarynmf0", "binarynmf1", "binarynmf2"]


def test_estimator_with_missing_entries() -> None:
    for binary in ("components", "codes"):
        whole = product(40, 30, 3)[0]
        whole = whole if binary == "components" else np.ascontiguousarray(whole.T)
        X = with_holes(whole, 0.6)
        seen = ~np.isnan(X)
        A = sp.csr_array((X[seen], np.nonzero(seen)), shape=X.shape)
        model = BinaryNMF(3, binary=binary, missing="nan", alpha=0.0, random_state=0).fit(X)
        stored = clone(model).set_params(missing="absent").fit(A)
        assert np.allclose(model.components_, stored.components_, atol=1e-9)
        assert np.allclose(stored.transform(A), model.transform(X), atol=1e-9)
        filled = model.inverse_transform(model.transform(X))
        assert np.abs(filled - whole).max() < 0.05
    with pytest.raises(TypeError, match="missing must be"):
        BinaryNMF(2, missing="nan").fit(A)
    with pytest.raises(ValueError, match="missing must be"):
        BinaryNMF(2, missing="absent").fit(np.ones((3, 3)))
    with pytest.raises(ValueError, match="binary must be one of"):
        BinaryNMF(2, binary="both").fit(np.ones((3, 3)))
    with pytest.warns(SklearnWarning, match="max_iter"):
        BinaryNMF(2, max_iter=1, tol=0.0, random_state=0).fit(np.random.default_rng(0).random((9, 8)))


def test_repr_is_one_line() -> None:
    text = repr(fit(product(6, 7, 2)[0], 2))
    assert text.startswith("BinaryNMFResult(W: numpy float64 (6, 2)")
    assert "\n" not in text
    assert math.isfinite(fit(product(6, 7, 2)[0], 2).objective)
