"""EASE: equal to ridge regressions of single columns, its errors, approximations, memory, and lists."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla.completion import ease as ease_module
from randla.completion.ease import EASEResult, ease
from randla.completion.ranking_metrics import ranking_scores, split_rows
from randla.estimators._ease import EASE

from .conftest import tolerance
from .statistics import hoeffding
from .test_implicit import by_popularity, planted


def clicks(m: int, n: int, share: float = 0.3, *, seed: int = 0, dtype: Any = np.float64) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    return sp.csr_array((rng.random((m, n)) < share * (np.arange(n) + 1.0) ** -0.3).astype(dtype))


def closed_form(X: np.ndarray, reg: float, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(B, P) by NumPy's inverse, in double precision."""
    X = X.astype(np.float64)
    w = np.ones(len(X)) if weights is None else weights
    P = np.linalg.inv((X.T * w) @ X + reg * np.eye(X.shape[1]))
    B = -P / np.diag(P)[None, :]
    np.fill_diagonal(B, 0.0)
    return B, P


def condition(X: np.ndarray, reg: float) -> float:
    return 1.0 + float(np.linalg.norm(X, 2)) ** 2 / reg


# --- the weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reg", [0.5, 20.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_ridge_regressions_that_leave_the_column_out(reg: float, weighted: bool) -> None:
    X = clicks(60, 25).toarray()
    w = np.random.default_rng(1).random(60) * 3 if weighted else None
    B = ease(sp.csr_array(X), reg, sample_weight=w, dtype="float64", rng=0).B
    for j in range(25):
        others = np.delete(np.arange(25), j)
        ridge = Ridge(alpha=reg, fit_intercept=False, solver="cholesky").fit(X[:, others], X[:, j], sample_weight=w)
        assert np.abs(B[others, j] - ridge.coef_).max() <= tolerance(np.float64, 25, condition(X, reg))
        assert B[j, j] == 0.0


def test_equals_the_inverse_of_numpy(dtype: str) -> None:
    X = clicks(80, 40)
    B, P = closed_form(X.toarray(), 5.0)
    found = ease(X, 5.0, dtype=dtype, rng=0)
    bound = tolerance(dtype, 40, condition(X.toarray(), 5.0))
    assert found.B.dtype == dtype
    assert np.abs(found.B - B).max() <= bound
    assert np.abs(found.inverse_diagonal - np.diag(P)).max() <= bound * P.max()
    assert tuple(found) == (found.B,)


def test_tiles_and_blocks_beyond_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns than a tile that is mirrored has, and than fit a block of rows."""
    X = clicks(100, 530, 0.05)
    B, _ = closed_form(X.toarray(), 10.0)
    monkeypatch.setattr(ease_module, "_BLOCK_ENTRIES", 50_000)
    found = ease(X, 10.0, rng=0)
    assert np.abs(found.B - B).max() <= tolerance(np.float64, 530, condition(X.toarray(), 10.0))
    S = np.where(X.toarray() > 0, -np.inf, X.toarray() @ found.B)
    listed = np.take_along_axis(S, found.recommend(X, 3).columns, axis=1)
    assert np.abs(listed + np.sort(-S, axis=1)[:, :3]).max() <= tolerance(np.float64, 530)


def test_precision_follows_the_ridge() -> None:
    X = clicks(60, 25)
    assert ease(X, 100.0, rng=0).B.dtype == np.float32
    assert ease(X, 99.0, rng=0).B.dtype == np.float64
    assert ease(X.astype(np.float32), 99.0, rng=0).B.dtype == np.float64
    assert ease(X, 100.0, dtype=np.float64, rng=0).B.dtype == np.float64


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, np.asarray])
def test_containers(container: Any) -> None:
    C = clicks(50, 20)
    X = container(C.toarray())
    before = copy.deepcopy(X)
    found = ease(X, 2.0, rng=0)
    assert np.array_equal(found.B, ease(C, 2.0, rng=0).B)
    assert abs(X - before).max() == 0
    assert np.allclose(found.scores(X), C.toarray() @ found.B, rtol=0, atol=tolerance(np.float64, 20))
    if container is np.asarray:
        assert np.array_equal(ease(np.where(X == 0, np.nan, X), 2.0, rng=0).B, found.B)


def test_array_libraries(xp: Any, put: Any) -> None:
    X = clicks(30, 12).toarray()
    found, expected = ease(put(X), 2.0, rng=0), ease(X, 2.0, rng=0)
    assert type(found.B) is type(put(X))
    assert bool(xp.all(xp.abs(found.B - put(expected.B)) <= tolerance(np.float64, 12, condition(X, 2.0))))
    assert bool(xp.all(found.recommend(put(X), 3).columns == put(expected.recommend(X, 3).columns)))
    assert found.error <= tolerance(np.float64, 12, condition(X, 2.0))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.02}, {"approx": "svd", "rank": 5}, {"approx": "nystrom", "rank": 5}]
)
def test_error_is_that_of_the_inverse(options: dict[str, Any], seed: int) -> None:
    """The bound holds with probability 0.99 for each key, and of three keys one at least with 1 - 1e-6."""
    X, reg = clicks(80, 30).toarray(), 3.0
    G, kept = X.T @ X + reg * np.eye(30), []
    for key in range(3):
        found = ease(X, reg, rng=3 * seed + key, dtype="float64", **options)
        P = (np.eye(30) - found.to_dense()) * found.inverse_diagonal[None, :]
        true = np.linalg.norm(G @ P - np.eye(30)) / 30**0.5
        kept.append(true <= found.error_bound)
        assert 0 <= found.error <= found.error_bound
        if options:
            assert true > 1e-3
    assert any(kept)
    assert found.error_kind == "sketched"
    assert found.confidence == 0.99


def test_thresholded_weights() -> None:
    X = clicks(80, 30)
    whole = ease(X, 3.0, rng=0).B
    found = ease(X, 3.0, threshold=0.02, rng=0)
    expected = np.where(np.abs(whole) > 0.02, whole, 0.0)
    assert np.array_equal(found.to_dense(), expected)
    assert 0 < found.B.nnz < 30 * 29
    assert found.B.nnz == np.count_nonzero(expected)
    dropped = np.linalg.norm(whole - expected) / np.linalg.norm(whole)
    assert found.dropped == pytest.approx(dropped, rel=1e-12)
    S = X.toarray() @ expected
    assert np.allclose(found.scores(X), S, rtol=0, atol=tolerance(np.float64, 30))
    assert found.n_bytes == found.B.data.nbytes + found.B.indices.nbytes + found.B.indptr.nbytes


@pytest.mark.parametrize("approx", ["svd", "nystrom"])
def test_approximation_of_full_rank_is_exact(approx: str) -> None:
    X = clicks(80, 30)
    whole = ease(X, 3.0, rng=0)
    found = ease(X, 3.0, approx=approx, rank=30, rng=0)
    bound = tolerance(np.float64, 30, 10 * condition(X.toarray(), 3.0))  # 10: eigenvectors of close eigenvalues
    assert found.B is None
    assert np.abs(found.to_dense() - whole.B).max() <= bound
    assert np.abs(found.scores(X) - whole.scores(X)).max() <= bound * 30
    assert found.method == approx
    assert found.n_bytes == 2 * 30 * 30 * 8
    thresholded = ease(X, 3.0, approx=approx, rank=30, threshold=0.02, rng=0)
    dense = found.to_dense()
    assert np.array_equal(thresholded.to_dense(), np.where(np.abs(dense) > 0.02, dense, 0.0))


def test_approximation_is_the_inverse_of_rank_plus_diagonal() -> None:
    """The identity of Woodbury against an inverse of the matrix that is meant, from exact eigenvectors."""
    rng, reg, rank = np.random.default_rng(0), 3.0, 4
    X = rng.standard_normal((200, rank)) @ rng.standard_normal((rank, 30)) + 1e-3 * rng.standard_normal((200, 30))
    G = X.T @ X
    w, V = np.linalg.eigh(G)
    low = (V[:, -rank:] * w[-rank:]) @ V[:, -rank:].T
    P = np.linalg.inv(low + np.diag(np.diag(G - low) + reg))
    B = -P / np.diag(P)[None, :]
    np.fill_diagonal(B, 0.0)
    found = ease(X, reg, approx="svd", rank=rank, rng=0, dtype="float64")
    # 1e-8: singular values fall by 1e-4 after the rank, so one power iteration leaves 1e-12 of the other directions
    assert np.abs(found.to_dense() - B).max() <= 1e-8 * np.abs(B).max()


def test_approximation_beats_popularity_and_is_near_the_inverse(seed: int) -> None:
    """Differences of the NDCG of rows beyond Hoeffding's bound (1e-6 each)."""
    split = split_rows(planted(1600, 120, 6, 20, seed), 0.5, fold_in=0.7, rng=0)
    theirs = ranking_scores(by_popularity(split.train, split.fold_in, 10), split.held).per_row[:, 1]
    for options in ({}, {"approx": "svd", "rank": 12}, {"threshold": 0.02}):
        found = ease(split.train, 100.0, rng=0, **options)
        ours = ranking_scores(found.recommend(split.fold_in, 10).columns, split.held).per_row[:, 1]
        assert (ours - theirs).mean() > hoeffding(800, 2.0)


# --- limits and bad input ---------------------------------------------------------------------------------------------


def test_memory_is_told_before() -> None:
    X = clicks(20, 30)
    with pytest.raises(
        ValueError, match=r"memory_limit must be at least 7200 bytes for 30 columns in float64, got 7199"
    ):
        ease(X, 3.0, memory_limit=7199)
    assert ease(X, 3.0, memory_limit=7200, rng=0).n_bytes == 7200
    with pytest.raises(ValueError, match="memory_limit must be at least 3600"):
        ease(X, 300.0, memory_limit=3599)
    wide = sp.csr_array((3, 200_000))
    with pytest.raises(ValueError, match=r"must be at least 160000000000 bytes for 200000 columns .* approx="):
        ease(wide, 500.0)
    with pytest.raises(ValueError, match="memory_limit must be at least 480 bytes"):
        ease(X, 3.0, approx="svd", rank=1, memory_limit=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reg": 0.0}, ValueError, "reg must be finite and in \\(0"),
        ({"threshold": -1.0}, ValueError, "threshold must be"),
        ({"approx": "lu"}, ValueError, "approx must be one of 'svd', 'nystrom'"),
        ({"rank": 0}, ValueError, "rank must be in \\[1, 8\\]"),
        ({"rank": 9}, ValueError, "rank must be in \\[1, 8\\]"),
        ({"dtype": "float16"}, ValueError, "dtype must be one of 'float32', 'float64'"),
        ({"sample_weight": np.ones(3)}, ValueError, "sample_weight must be 10 finite numbers"),
        ({"sample_weight": -np.ones(10)}, ValueError, "sample_weight must be 10 finite numbers"),
        ({"memory_limit": 1.5}, TypeError, "memory_limit must be an integer"),
    ],
)
def test_parameters(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ease(clicks(10, 8), **{"reg": 5.0, **options})


def test_bad_data() -> None:
    for bad, message in (
        (sp.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 3)), "once"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.zeros((0, 3)), "rows and columns"),
    ):
        with pytest.raises(ValueError, match=message):
            ease(bad, 1.0)
    found = ease(clicks(20, 8), 5.0, rng=0)
    with pytest.raises(ValueError, match=r"X must have 8 columns, got shape \(20, 7\)"):
        found.scores(clicks(20, 7))
    with pytest.raises(ValueError, match="k must be at least 1"):
        found.recommend(clicks(20, 8), 0)


def test_a_ridge_below_rounding_is_refused() -> None:
    """Equal columns, whose Gram matrix is singular without a ridge that single precision can see."""
    X = np.repeat(np.random.default_rng(0).standard_normal((30, 2)) * 1e4, 4, axis=1)
    with pytest.raises(ValueError, match="reg must be larger for interactions of this size in float32"):
        ease(X, 1e-6, dtype="float32")


def test_empty_columns_have_no_weights() -> None:
    X = clicks(40, 10).toarray()
    X[:, 3] = 0.0
    B = ease(X, 3.0, rng=0).B
    assert not B[:, 3].any()
    assert not B[3].any()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_recommend_is_the_sorted_row() -> None:
    X = clicks(50, 20)
    found = ease(X, 2.0, rng=0)
    S = X.toarray() @ found.B
    assert np.array_equal(
        found.recommend(X, 5, filter_seen=False).columns, np.argsort(-S, axis=1, kind="stable")[:, :5]
    )
    unseen = found.recommend(X, 20)
    expected = np.argsort(-np.where(X.toarray() > 0, -np.inf, S), axis=1, kind="stable")
    for i in range(50):
        n_left = 20 - int(X.toarray()[i].sum())
        assert np.array_equal(unseen.columns[i, :n_left], expected[i, :n_left])
        assert (unseen.columns[i, n_left:] == -1).all()
    similar = found.similar([4], 3)
    order = np.argsort(-np.where(np.arange(20) == 4, -np.inf, found.B[4]), kind="stable")
    assert np.array_equal(similar.columns[0], order[:3])


# --- the estimator ----------------------------------------------------------------------------------------------------

ALL_COLUMNS = "predict returns the scores of all columns, and the check awaits one number for each row"
EXPECTED = {"check_estimator_sparse_array": ALL_COLUMNS, "check_estimator_sparse_matrix": ALL_COLUMNS}


@parametrize_with_checks(
    [EASE(dtype="float64"), EASE(1.0, threshold=0.01), EASE(1.0, approx="svd", rank=1)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def test_estimator_is_the_function() -> None:
    X = clicks(60, 20)
    w = np.random.default_rng(0).random(60)
    model = EASE(3.0, random_state=5).fit(X, sample_weight=w)
    found: EASEResult = ease(X, 3.0, sample_weight=w, rng=5)
    assert np.array_equal(model.coef_, found.B)
    assert model.error_ == found.error
    assert np.array_equal(model.predict(X), found.scores(X))
    assert np.array_equal(model.recommend(X, 4).columns, found.recommend(X, 4).columns)
    assert np.array_equal(model.similar_items([3], 4).columns, found.similar([3], 4).columns)
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(other.predict(X), model.predict(X))
    frame = pd.DataFrame(X.toarray(), columns=[f"item {j}" for j in range(20)])
    assert clone(model).fit(frame).feature_names_in_[3] == "item 3"
    with pytest.raises(NotFittedError):
        EASE().predict(X)
    with pytest.raises(ValueError, match="once"):
        EASE().fit(sp.coo_array(([1.0, 2.0, 1.0], ([0, 0, 1], [1, 1, 0])), shape=(3, 3)))


def test_search_by_score() -> None:
    C = planted(300, 40, 4, 12, 0)
    search = GridSearchCV(EASE(random_state=0), {"reg": [20.0, 1e7]}, cv=2).fit(C)
    assert search.best_params_ == {"reg": 20.0}
    assert 0 < search.best_score_ < 1
