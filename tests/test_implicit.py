"""Implicit feedback: the objective by its definition, exact and inexact solutions, folding in, ranking metrics."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import randla
from randla import ConvergenceError, ConvergenceWarning, Status
from randla.completion.implicit import ImplicitStep, implicit_als
from randla.completion.implicit_model import ImplicitResult
from randla.completion.observations import as_observations
from randla.completion.ranking_metrics import hold_out_interactions, ranking_scores, split_rows
from randla.estimators._implicit import ImplicitALS

from .conftest import tolerance
from .statistics import binomial_interval, hoeffding
from .test_estimators import Recorder

Objective = dict[str, Any]
OBJECTIVES: list[Objective] = [
    {"reg": 0.5},
    {"reg": 2.0, "alpha": 7.0},
    {"reg": 0.01, "alpha": 0.3, "unobserved_weight": 0.4},  # some confidences are below the weight of empty cells
    {"reg": 0.02, "unobserved_weight": 0.1, "weighting": "all", "reg_exponent": 1.0},
    {"reg": 0.1, "unobserved_weight": 0.3, "reg_exponent": 0.5},
    {"reg": 0.5, "unobserved_weight": 0.0},
]


def interactions(m: int, n: int, share: float = 0.3, *, seed: int = 0, dtype: Any = np.float64) -> sp.csr_array:
    """Counts, with dislikes and stored zeros among them, a row and a column without any, and a row of dislikes."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 5, (m, n)) * np.where(rng.random((m, n)) < 0.15, -1.0, 1.0)
    stored = rng.random((m, n)) < share
    stored[1, :], stored[:, 2] = False, False
    values[3, :] = -1.0
    rows, cols = np.nonzero(stored)
    data = values[rows, cols]
    data[::17] = 0.0
    return sp.csr_array((data.astype(dtype), (rows, cols)), shape=(m, n))


def dense_cells(C: sp.csr_array, told: Objective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight and preference of each cell of one sum of squares, and a weight of s**2 beside it."""
    stored = np.zeros(C.shape, bool)
    rows = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr))
    stored[rows, C.indices] = True
    values, w = C.toarray(), told.get("unobserved_weight", 1.0)
    confidence = told.get("alpha", 1.0) * np.abs(values)
    if told.get("weighting") == "all":
        return np.where(stored, confidence, 0.0), np.where(values > 0, 1.0, 0.0), np.full(C.shape, w)
    return np.where(stored, confidence, w), np.where(values > 0, 1.0, 0.0), np.zeros(C.shape)


def dense_ridges(C: sp.csr_array, told: Objective) -> tuple[np.ndarray, np.ndarray]:
    w, power = told.get("unobserved_weight", 1.0), told.get("reg_exponent", 0.0)
    counts = np.diff(C.indptr), np.diff(C.tocsc().indptr)
    rows, cols = (told["reg"] * (c + w * n) ** power for c, n in zip(counts, C.shape[::-1], strict=True))
    return rows, cols


def dense_loss(C: sp.csr_array, told: Objective, X: np.ndarray, Y: np.ndarray) -> float:
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    (c, p, w), S, (rows, cols) = dense_cells(C, told), X @ Y.T, dense_ridges(C, told)
    squares = np.sum(c * (p - S) ** 2) + np.sum(w * S**2)
    return float(squares + np.sum(rows @ X**2) + np.sum(cols @ Y**2))


def dense_rows(C: sp.csr_array, told: Objective, Y: np.ndarray) -> np.ndarray:
    """The minimiser over X, from the normal equations of each row."""
    (c, p, w), (ridge, _) = dense_cells(C, told), dense_ridges(C, told)
    k = Y.shape[1]
    return np.array([
        np.linalg.lstsq((Y.T * (c[i] + w[i])) @ Y + ridge[i] * np.eye(k), Y.T @ (c[i] * p[i]), rcond=None)[0]
        for i in range(C.shape[0])
    ])  # fmt: skip


def quiet(*args: Any, **kwargs: Any) -> ImplicitResult:
    return implicit_als(*args, on_failure="ignore", **kwargs)


# --- the objective and its minimisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("told", OBJECTIVES)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_loss_is_that_of_the_definition(told: Objective, solver: str) -> None:
    C = interactions(30, 20)
    found = quiet(C, 4, solver=solver, max_iter=3, rng=0, **told)
    expected = dense_loss(C, told, found.row_factors, found.col_factors)
    assert abs(found.loss - expected) <= tolerance(np.float64, C.shape[0] * C.shape[1], expected)
    assert found.history[-1] == found.loss


@pytest.mark.parametrize("told", OBJECTIVES)
def test_rows_are_the_minimisers_of_the_normal_equations(told: Objective) -> None:
    """Folding in the training rows: the exact solution for the columns at hand."""
    C = interactions(30, 20)
    model = quiet(C, 4, max_iter=2, rng=0, **told)
    expected = dense_rows(C, told, model.col_factors)
    size = np.abs(expected).max()
    assert np.abs(model.fold_in(C) - expected).max() <= tolerance(np.float64, 20, 1e3 * size)  # 1e3: conditions
    transposed = dense_rows(sp.csr_array(C.T), told, model.row_factors)
    assert np.abs(model.fold_in_cols(C) - transposed).max() <= tolerance(np.float64, 30, 1e3 * np.abs(transposed).max())


@pytest.mark.parametrize("told", OBJECTIVES)
def test_exact_sweep_and_many_steps_agree(told: Objective) -> None:
    C = interactions(40, 25)
    exact = quiet(C, 5, solver="cholesky", max_iter=4, rng=0, **told)
    inexact = quiet(C, 5, solver="cg", cg_steps=60, max_iter=4, rng=0, **told)
    S = exact.row_factors @ exact.col_factors.T
    assert np.abs(inexact.row_factors @ inexact.col_factors.T - S).max() <= 1e-8 * np.abs(S).max()
    assert np.allclose(exact.history, inexact.history, rtol=1e-9, atol=0)
    assert exact.residual == 0.0
    assert inexact.residual < 1e-6


@pytest.mark.parametrize("told", OBJECTIVES)
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_loss_never_rises(told: Objective, solver: str, dtype: str) -> None:
    C = interactions(60, 40, dtype=dtype)
    found = quiet(C, 6, solver=solver, cg_steps=1, max_iter=25, tol=0.0, rng=0, **told)
    rise = tolerance(dtype, C.nnz, found.history[0])
    assert len(found.history) >= 2
    assert all(after <= before + rise for before, after in zip(found.history, found.history[1:], strict=False))
    assert found.row_factors.dtype == found.col_factors.dtype == dtype


@pytest.mark.parametrize("told", OBJECTIVES[:5])
def test_the_limit_is_stationary(told: Objective) -> None:
    """Both half steps leave the factors of a converged fit where they are."""
    C = interactions(30, 20, 0.5)
    model = quiet(C, 3, solver="cholesky", max_iter=3000, tol=1e-15, rng=0, **told)
    X = model.fold_in(C)
    after = dense_loss(C, told, X, model.col_factors)
    assert model.loss - after <= 1e-10 * model.loss
    S = model.row_factors @ model.col_factors.T
    assert np.abs(X @ model.col_factors.T - S).max() <= 1e-4 * np.abs(S).max()


def test_change_of_basis_lowers_the_loss_beyond_plain_sweeps() -> None:
    """Plain alternating least squares, from the same start, is behind after the same number of sweeps."""
    C, told = interactions(60, 40), {"reg": 5.0, "alpha": 20.0}
    found = quiet(C, 4, solver="cholesky", max_iter=6, tol=0.0, rng=0, **told)
    start = quiet(C, 4, solver="cholesky", max_iter=0, rng=0, **told)
    Y = start.col_factors
    for _ in range(6):
        X = dense_rows(C, told, Y)
        Y = dense_rows(sp.csr_array(C.T), told, X)
    assert found.loss < dense_loss(C, told, X, Y)


def test_the_two_weightings_are_one_model_for_ones() -> None:
    """With ones stored, "all" of weight a is "missing" of weight a / (1 + a), the scores divided by 1 + a."""
    C, a = interactions(40, 30), 0.25
    C.data[:] = 1.0
    both = [
        quiet(C, 3, reg=0.3, unobserved_weight=w, weighting=kind, tol=1e-14, max_iter=3000, rng=0)
        for kind, w in (("all", a), ("missing", a / (1 + a)))
    ]
    first, second = (model.row_factors @ model.col_factors.T for model in both)
    assert np.abs(second - (1 + a) * first).max() <= 1e-4 * np.abs(second).max()


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, np.asarray])
def test_containers(container: Any, dtype: str) -> None:
    """One model for each storage; in an array zeros and NaN are cells without interaction."""
    C = interactions(30, 20, dtype=dtype)
    C.data[C.data == 0] = 1.0
    X = container(C.toarray())
    before = copy.deepcopy(X)
    found, expected = quiet(X, 3, rng=0, max_iter=5), quiet(C, 3, rng=0, max_iter=5)
    assert np.array_equal(found.row_factors, expected.row_factors)
    assert abs(X - before).max() == 0
    if container is np.asarray:
        holes = np.where(X == 0, np.nan, X)
        assert np.array_equal(quiet(holes, 3, rng=0, max_iter=5).row_factors, expected.row_factors)


def test_array_libraries(xp: Any, put: Any) -> None:
    """Dense interactions of any library: the same model as of NumPy."""
    C = interactions(12, 8)
    C.data[C.data == 0] = 1.0
    expected = quiet(C.toarray(), 2, rng=0, max_iter=3, reg=0.5, solver="cg")
    found = quiet(put(C.toarray()), 2, rng=0, max_iter=3, reg=0.5, solver="cg")
    assert type(found.row_factors) is type(put(C.toarray()))
    assert np.allclose(found.history, expected.history, rtol=1e-9, atol=0)
    assert xp.all(found.recommend([0, 3], 2).columns == put(expected.recommend([0, 3], 2).columns))
    grown = found.with_rows([13, 1], put(C.toarray()[:2]))
    assert grown.row_factors.shape == (14, 2)


# --- degenerate data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("rank", [1, 5, 60])
def test_empty_rows_and_columns_have_zero_factors(solver: str, rank: int) -> None:
    C = interactions(30, 20)
    found = quiet(C, rank, solver=solver, reg=0.5, max_iter=5, rng=0)
    assert not found.row_factors[1].any()  # nothing stored
    assert not found.row_factors[3].any()  # dislikes only
    assert not found.col_factors[2].any()
    assert np.isfinite(found.row_factors).all()
    assert found.row_factors[0].any()


def test_nothing_stored() -> None:
    found = implicit_als(sp.csr_array((4, 3)), 2, rng=0)
    assert found.converged
    assert found.loss == 0.0
    assert not found.row_factors.any()
    assert not found.col_factors.any()


def test_indices_of_64_bits_and_float32() -> None:
    C = interactions(30, 20, dtype=np.float32)
    wide = sp.csr_array((C.data, C.indices.astype(np.int64), C.indptr.astype(np.int64)), shape=C.shape)
    assert np.array_equal(quiet(C, 3, rng=0, max_iter=3).col_factors, quiet(wide, 3, rng=0, max_iter=3).col_factors)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reg": 0.0}, ValueError, "reg must be finite and in \\(0"),
        ({"reg": math.nan}, ValueError, "reg must be finite"),
        ({"alpha": -1.0}, ValueError, "alpha must be finite and in \\(0"),
        ({"unobserved_weight": -0.1}, ValueError, "unobserved_weight must be"),
        ({"weighting": "some"}, ValueError, "weighting must be one of 'missing', 'all', got 'some'"),
        ({"reg_exponent": -1}, ValueError, "reg_exponent must be"),
        ({"solver": "lu"}, ValueError, "solver must be one of"),
        ({"cg_steps": 0}, ValueError, "cg_steps must be at least 1, got 0"),
        ({"max_iter": -1}, ValueError, "max_iter must be at least 0"),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be"),
        ({"validation_fraction": 1e-6}, ValueError, "validation_fraction must leave something to hold out"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
        ({"init": "svd"}, ValueError, "init must be one of 'normal', got 'svd'"),
        ({"init": (None, np.ones((3, 2)))}, ValueError, "init must hold factors of shapes"),
        ({"on_failure": "hide"}, ValueError, "on_failure must be"),
    ],
)
def test_parameters(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        implicit_als(interactions(10, 8), 2, rng=0, **options)


def test_bad_data() -> None:
    for bad, error, message in (
        (sp.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 3)), ValueError, "once"),
        (sp.csr_array(np.array([[1.0, np.nan]])), ValueError, "finite"),
        (np.array([[1.0, np.inf]]), ValueError, "infinite"),
        (np.zeros((0, 3)), ValueError, "rows and columns"),
        (np.ones((2, 2), complex), TypeError, "real"),
        (np.ones(3), ValueError, "2-D"),
    ):
        with pytest.raises(error, match=message):
            implicit_als(bad, 2)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        implicit_als(interactions(10, 8), 0)


# --- how a fit ends ---------------------------------------------------------------------------------------------------


def test_limit_of_sweeps_is_told() -> None:
    C = interactions(30, 20)
    with pytest.warns(ConvergenceWarning, match=r"implicit_als ended with Status\.MAX_ITER"):
        found = implicit_als(C, 3, tol=0.0, max_iter=2, rng=0)
    assert not found.converged
    assert found.n_iter == 2
    with pytest.raises(ConvergenceError) as caught:
        implicit_als(C, 3, tol=0.0, max_iter=2, rng=0, on_failure="raise")
    assert caught.value.result.n_iter == 2
    none = quiet(C, 3, max_iter=0, rng=0)
    assert none.status is Status.MAX_ITER
    assert none.history == ()
    assert math.isnan(none.loss)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_overflow_ends_in_a_status(solver: str) -> None:
    C = interactions(30, 20)
    C.data *= 1e200
    found = quiet(C, 3, alpha=1e200, solver=solver, rng=0)
    assert found.status is Status.NONFINITE
    assert not found.converged
    assert np.isfinite(found.col_factors).all()


def test_singular_problems_end_in_a_status() -> None:
    """A ridge below the rounding of the Gram matrix of factors that are more than the data can hold."""
    C = sp.csr_array(np.ones((6, 5)))
    found = quiet(C, 4, reg=1e-30, alpha=1e6, solver="cholesky", max_iter=20, tol=0.0, rng=0)
    assert found.status is Status.BREAKDOWN
    assert not found.converged


def test_callback_stops_and_its_factors_go_on() -> None:
    C, steps = interactions(40, 25), []

    def watch(step: ImplicitStep) -> bool:
        steps.append(step)
        return step.n_iter == 3

    found = implicit_als(C, 4, solver="cholesky", tol=0.0, rng=0, callback=watch)
    assert found.n_iter == 3
    assert found.converged
    assert [step.loss for step in steps] == list(found.history)
    longer = quiet(C, 4, solver="cholesky", tol=0.0, max_iter=6, rng=0)
    last = steps[-1]
    resumed = quiet(C, 4, solver="cholesky", tol=0.0, max_iter=3, rng=0, init=(last.row_factors, last.col_factors))
    assert np.allclose(resumed.history, longer.history[3:], rtol=1e-10, atol=0)


def test_equal_keys_equal_models_on_any_number_of_threads() -> None:
    C = interactions(60, 40)
    with randla.threads(1):
        one = quiet(C, 12, rng=5, max_iter=4, validation_fraction=0.2)
    again = quiet(C, 12, rng=5, max_iter=4, validation_fraction=0.2)
    assert np.array_equal(one.row_factors, again.row_factors)
    assert one.validation_history == again.validation_history
    assert not np.array_equal(one.col_factors, quiet(C, 12, rng=6, max_iter=4).col_factors)


# --- planted taste ----------------------------------------------------------------------------------------------------


def planted(m: int, n: int, n_groups: int, length: int, seed: int) -> sp.csr_array:
    """Rows that choose 70 % of their columns from those of their group, the others anywhere, by popularity."""
    rng = np.random.default_rng(seed)
    popularity = (np.arange(n) + 5.0) ** -0.8
    group = rng.integers(0, n_groups, m)
    cells = []
    for i in range(m):
        taste = popularity * np.where(np.arange(n) % n_groups == group[i], 0.7 * n_groups, 0.3)
        cells += [(i, j) for j in rng.choice(n, length, replace=False, p=taste / taste.sum())]
    rows, cols = np.array(cells).T
    return sp.csr_array((np.ones(len(cells)), (rows, cols)), shape=(m, n))


def by_popularity(train: sp.csr_array, known: sp.csr_array, k: int) -> np.ndarray:
    counts = np.asarray(train.sum(axis=0)).ravel()
    scores = np.where(known.toarray() > 0, -np.inf, counts[None, :])
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_planted_taste_beats_popularity(seed: int) -> None:
    """The mean over rows of the difference in NDCG, each in [-1, 1], is positive beyond Hoeffding's bound (1e-6)."""
    C = planted(600, 120, 6, 20, seed)
    train, held = hold_out_interactions(C, 0.2, rng=0)
    model = quiet(train, 8, reg=1.0, alpha=5.0, rng=0)
    ours = ranking_scores(model.recommend(None, 10, seen=train).columns, held)
    theirs = ranking_scores(by_popularity(train, train, 10), held)
    difference = ours.per_row[:, 1] - theirs.per_row[:, 1]
    assert difference.mean() > hoeffding(600, 2.0)
    new = split_rows(planted(1200, 120, 6, 20, seed), 0.5, fold_in=0.7, rng=0)
    model = quiet(new.train, 8, reg=1.0, alpha=5.0, rng=0)
    folded = randla.completion.ranking.recommend(
        model.fold_in(new.fold_in), model.col_factors, None, 10, seen=as_observations(new.fold_in)
    )
    ours = ranking_scores(folded.columns, new.held)
    theirs = ranking_scores(by_popularity(new.train, new.fold_in, 10), new.held)
    assert (ours.per_row[:, 1] - theirs.per_row[:, 1]).mean() > hoeffding(600, 2.0)


def test_hold_out_keeps_the_best_sweep() -> None:
    """A rank far above that of the taste and hardly any ridge: the score falls again, and the fit stops there."""
    C = planted(120, 60, 4, 12, 0)
    found = quiet(C, 40, reg=1e-3, alpha=100.0, validation_fraction=0.2, n_iter_no_change=3, tol=0.0, rng=0)
    assert found.status is Status.CONVERGED
    assert found.score == max(found.validation_history)
    assert found.best_iter == 1 + found.validation_history.index(found.score)
    assert found.n_iter == found.best_iter + 3
    assert found.loss == found.history[found.best_iter - 1]
    train, held = hold_out_interactions(C, 0.2, rng=randla.as_key(0).fold("implicit_als"))
    again = ranking_scores(found.recommend(None, 10, seen=train).columns, held)
    assert again.ndcg == pytest.approx(found.score, rel=1e-12)
    assert again.ndcg_error == pytest.approx(found.score_error, rel=1e-12)


# --- lists and their scores -------------------------------------------------------------------------------------------


def test_recommend_is_the_sorted_row() -> None:
    C = interactions(30, 20)
    model = quiet(C, 3, rng=0, max_iter=3)
    S = model.row_factors @ model.col_factors.T
    found = model.recommend([4, 0, 4], 5)
    assert np.array_equal(found.columns, np.argsort(-S[[4, 0, 4]], axis=1, kind="stable")[:, :5])
    seen = np.zeros(C.shape, bool)
    seen[np.repeat(np.arange(30), np.diff(C.indptr)), C.indices] = True
    unseen = model.recommend(None, 20, seen=C)
    for i in range(30):
        assert not seen[i, unseen.columns[i][unseen.columns[i] >= 0]].any()
        assert np.sum(unseen.columns[i] >= 0) == 20 - seen[i].sum()
    rows, cols = np.array([0, 5]), np.array([[1, 2], [3, 4]])
    assert np.allclose(model.predict(rows, cols), S[rows, cols], rtol=0, atol=tolerance(np.float64, 3, np.abs(S).max()))
    with pytest.raises(ValueError, match=r"cols must be in \[0, 19\], got 20"):
        model.predict(0, 20)
    with pytest.raises(TypeError, match="rows must be integers"):
        model.recommend([0.5], 3)


def test_similar_rows_and_columns() -> None:
    model = quiet(interactions(30, 20), 3, rng=0, max_iter=3)
    Y = model.col_factors
    with np.errstate(invalid="ignore"):
        cosines = (Y @ Y.T) / np.outer(np.linalg.norm(Y, axis=1), np.linalg.norm(Y, axis=1))
    cosines = np.nan_to_num(cosines)
    np.fill_diagonal(cosines, -np.inf)
    found = model.similar_cols([0, 7], 4)
    assert np.allclose(found.values, -np.sort(-cosines[[0, 7]], axis=1)[:, :4])
    assert found.columns[0, 0] == np.argmax(cosines[0])
    assert 5 not in model.similar_rows([5], 29).columns


def test_rows_and_columns_replaced_and_added() -> None:
    C = interactions(30, 20)
    model = quiet(C, 3, rng=0, max_iter=3, reg=0.5)
    grown = model.with_rows([2, 32], C[:2])
    assert grown.shape == (33, 20)
    assert np.allclose(grown.row_factors[[2, 32]], model.fold_in(C[:2]))
    assert not grown.row_factors[30:32].any()
    assert np.array_equal(grown.row_factors[[0, 1, 29]], model.row_factors[[0, 1, 29]])
    wider = model.with_cols([0], C[:, [5]])
    assert np.allclose(wider.col_factors[0], model.fold_in_cols(C)[5])
    for call, message in (
        (lambda: model.with_rows([0, 0], C[:2]), "rows must be distinct"),
        (lambda: model.with_rows([0], C[:2]), "rows must be 2 indices"),
        (lambda: model.with_rows([-1], C[:1]), "rows must be at least 0, got -1"),
        (lambda: model.fold_in(C[:, :4]), "X must have 20 cells"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def brute_force(columns: np.ndarray, held: np.ndarray) -> np.ndarray:
    rows = []
    for listed, wanted in zip(columns, held > 0, strict=True):
        hits = [bool(j >= 0 and wanted[j]) for j in listed]
        n_held, k = int(wanted.sum()), len(listed)
        if not n_held:
            continue
        gain = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        best = sum(1 / math.log2(place + 2) for place in range(min(k, n_held)))
        first = next((1 / (place + 1) for place, hit in enumerate(hits) if hit), 0.0)
        rows.append((sum(hits) / min(k, n_held), gain / best, first))
    return np.array(rows)


def test_metrics_are_those_of_the_definition(xp: Any, put: Any) -> None:
    rng = np.random.default_rng(0)
    held = rng.integers(-1, 2, (50, 12)) * (rng.random((50, 12)) < 0.4) * 1.0
    columns = np.argsort(rng.random((50, 12)), axis=1)[:, :4]
    columns[::7, 2:] = -1
    expected = brute_force(columns, held)
    found = ranking_scores(put(columns), put(held))
    for value, error, j in (
        (found.recall, found.recall_error, 0), (found.ndcg, found.ndcg_error, 1), (found.mrr, found.mrr_error, 2),
    ):  # fmt: skip
        assert value == pytest.approx(expected[:, j].mean(), rel=1e-12)
        assert error == pytest.approx(expected[:, j].std(ddof=1) / len(expected) ** 0.5, rel=1e-12)
    assert found.n_rows == len(expected)
    assert found.k == 4
    assert found.per_row.shape == (50, 3)
    assert tuple(found) == (found.recall, found.ndcg, found.mrr)
    assert bool(xp.any(xp.isnan(found.per_row))) == (len(expected) < 50)


def test_metrics_of_nothing() -> None:
    with pytest.raises(ValueError, match="held must have positive entries"):
        ranking_scores(np.zeros((2, 3), int), sp.csr_array((2, 5)))
    with pytest.raises(ValueError, match=r"columns must have shape \(2, k\)"):
        ranking_scores(np.zeros((3, 3), int), sp.csr_array(np.ones((2, 5))))


@pytest.mark.parametrize("container", [sp.csr_array, sp.coo_array, sp.csr_matrix])
def test_hold_out_of_interactions(container: Any) -> None:
    X = container(interactions(40, 30))
    C = sp.csr_array(X)
    train, held = hold_out_interactions(X, 0.25, rng=3)
    counts, out = np.diff(C.indptr), np.diff(held.indptr)
    assert np.array_equal(out, np.minimum(np.floor(0.25 * counts + 0.5), np.maximum(counts - 1, 0)).astype(int))
    assert abs(train + held - C).max() == 0
    assert train.nnz + held.nnz == C.nnz
    rows = np.r_[np.arange(40)[::-1]]
    other = hold_out_interactions(sp.csr_array(C.toarray())[rows][rows], 0.25, rng=3)[1]
    assert abs(other - hold_out_interactions(sp.csr_array(C.toarray()), 0.25, rng=3)[1]).max() == 0
    assert (hold_out_interactions(X, 0.25, rng=4)[1] != held).nnz > 0
    assert hold_out_interactions(X, 0.0, rng=3)[1].nnz == 0
    dense = hold_out_interactions(np.where(C.toarray() == 0, np.nan, C.toarray()), 0.25, rng=3)
    assert not (np.isfinite(dense[0]) & np.isfinite(dense[1])).any()


def test_hold_out_is_uniform(seed: int) -> None:
    """Of 2000 rows of ten, each column is held out in a fifth; the ten binomial intervals fail with 1e-6 in all."""
    held = hold_out_interactions(sp.csr_array(np.ones((2000, 10))), 0.2, rng=seed)[1]
    low, high = binomial_interval(2000, 0.2, 1e-7)
    counts = np.bincount(held.indices, minlength=10)
    assert low <= counts.min()
    assert counts.max() <= high


def test_rows_split_off() -> None:
    C = interactions(40, 30)
    split = split_rows(C, 0.25, fold_in=0.6, rng=1)
    assert len(split.rows) == 10
    others = np.setdiff1d(np.arange(40), split.rows)
    assert abs(split.train - C[others]).max() == 0
    assert abs(split.fold_in + split.held - C[split.rows]).max() == 0
    assert (np.diff(split.fold_in.indptr) >= np.minimum(np.diff(C[split.rows].indptr), 1)).all()
    assert np.array_equal(split.rows, split_rows(C, 0.25, fold_in=0.5, rng=1).rows)
    for fraction, fold_in in ((0.0, 0.5), (1.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            split_rows(C, fraction, fold_in=fold_in)
    with pytest.raises(ValueError, match="X must have two rows"):
        split_rows(C[:1], 0.5)


# --- the estimator ----------------------------------------------------------------------------------------------------

PLACES = "predict takes rows and columns of the fitted matrix, and the check calls it with data"
#: Checks that cannot pass, with the reason.  All of them pass where `predict` is hidden, see below.
EXPECTED = dict.fromkeys(
    (
        "check_estimators_unfitted", "check_n_features_in_after_fitting", "check_dict_unchanged", "check_dtype_object",
        "check_estimator_sparse_array", "check_estimator_sparse_matrix", "check_estimators_dtypes",
        "check_estimators_pickle", "check_f_contiguous_array_estimator", "check_fit2d_predict1d",
        "check_fit_idempotent", "check_methods_sample_order_invariance", "check_methods_subset_invariance",
    ),
    PLACES,
)  # fmt: skip


class Transformer(ImplicitALS):
    """Without `predict`, all that is left is a transformer like others."""

    def __init__(self, n_components: int = 1, *, solver: str = "auto", random_state: Any = 0) -> None:
        super().__init__(n_components, solver=solver, random_state=random_state)

    def __getattribute__(self, name: str) -> Any:
        if name == "predict":
            raise AttributeError("hidden from checks that would call it with data")
        return super().__getattribute__(name)


@pytest.mark.filterwarnings("ignore:ImplicitALS ended with Status.MAX_ITER")
@parametrize_with_checks([ImplicitALS(2, random_state=0)], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore:ImplicitALS ended with Status.MAX_ITER")
@pytest.mark.filterwarnings("ignore:Transformer ended with Status.MAX_ITER")
@parametrize_with_checks([Transformer(1), Transformer(3, solver="cg")])
def test_scikit_learn_contract_of_the_transformer(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn where `predict` is hidden, none of them expected to fail."""
    check(estimator)


def test_estimator_is_the_function(dtype: str) -> None:
    C = interactions(40, 25, dtype=dtype)
    options = {"reg": 0.3, "alpha": 2.0, "unobserved_weight": 0.5, "weighting": "all", "reg_exponent": 0.5}
    model = ImplicitALS(3, **options, random_state=7, validation_fraction=0.2, max_iter=50).fit(C)
    found = quiet(C, 3, **options, rng=7, validation_fraction=0.2, max_iter=50)
    assert np.array_equal(model.row_factors_, found.row_factors)
    assert np.array_equal(model.components_, found.col_factors.T)
    assert model.loss_ == found.loss
    assert model.n_iter_ == found.n_iter
    assert tuple(model.validation_scores_) == found.validation_history
    assert model.status_ is found.status
    F = model.transform(C)
    assert F.dtype == dtype
    assert np.allclose(model.inverse_transform(F), F @ model.components_)
    assert np.array_equal(model.recommend([3], 4).columns, found.recommend([3], 4, seen=C).columns)
    assert np.array_equal(model.recommend(3, 4, filter_seen=False).columns, found.recommend([3], 4).columns)
    assert model.predict([1], [2]).shape == (1,)
    assert np.array_equal(model.similar_items([3]).columns, found.similar_cols([3], 10).columns)
    assert np.array_equal(model.similar_rows([3], 2).columns, found.similar_rows([3], 2).columns)
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(other.recommend(None, 3).columns, model.recommend(None, 3).columns)
    new = model.recommend_new(C, 3)
    seen = C.toarray() != 0
    assert not any(seen[i, j] for i in range(40) for j in new.columns[i] if j >= 0)


def test_partial_fits_change_what_was_seen() -> None:
    C = interactions(40, 25)
    model = ImplicitALS(3, reg=0.3, random_state=0, max_iter=5, tol=0.1).fit(C)
    Y = model.components_.copy()
    model.partial_fit_rows(C[:3]).partial_fit_rows(C[[5]], [0])
    assert model.row_factors_.shape == (43, 3)
    assert np.array_equal(model.components_, Y)
    assert np.allclose(model.row_factors_[40:], model.transform(C[:3]))
    assert not set(model.recommend([41], 25).columns[0]) & set(C[[1]].indices)
    assert not set(model.recommend([0], 25).columns[0]) & set(C[[5]].indices)
    more = sp.csr_array(np.r_[C.toarray(), C.toarray()[:3]][:, :2])
    model.partial_fit_cols(more)
    assert model.n_features_in_ == 27
    assert model.components_.shape == (3, 27)
    liked = np.flatnonzero(more.toarray()[:, 0])
    assert not (model.recommend(liked, 27).columns == 25).any()
    model.partial_fit_cols(more, [0, 1])
    assert model.n_features_in_ == 27
    assert math.isnan(model.loss_)


def test_warm_start_goes_on_and_grows() -> None:
    C = interactions(40, 25)
    short = ImplicitALS(3, solver="cholesky", max_iter=3, tol=0.0, warm_start=True, random_state=0)
    with pytest.warns(SklearnConvergenceWarning, match=r"ImplicitALS ended with Status\.MAX_ITER"):
        short.fit(C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklearnConvergenceWarning)
        history = short.fit(C).result_.history
        longer = ImplicitALS(3, solver="cholesky", max_iter=6, tol=0.0, random_state=0).fit(C).result_.history
        assert np.allclose(history, longer[3:], rtol=1e-10, atol=0)
        wide = sp.csr_array(np.c_[C.toarray(), C.toarray()[:, :4]])
        start = short.result_.col_factors
        short.set_params(max_iter=0).fit(wide)
        assert short.components_.shape == (3, 29)
        assert np.array_equal(short.components_.T[:25], start)
        assert short.components_.T[25].any()
    with pytest.raises(ValueError, match="X must have at least 29 columns"):
        short.fit(C)


def test_frames_search_and_score() -> None:
    C = planted(200, 40, 4, 10, 0)
    frame = pd.DataFrame(C.toarray(), columns=[f"item {j}" for j in range(40)])
    model = ImplicitALS(4, reg=1.0, alpha=5.0, random_state=0, tol=1e-3).fit(frame)
    assert model.feature_names_in_[3] == "item 3"
    known, held = hold_out_interactions(C, 0.2, rng=0)
    model.fit(C)
    assert model.score(C) == ranking_scores(model.recommend_new(known, 10).columns, held).ndcg
    search = GridSearchCV(clone(model), {"n_components": [1, 4]}, cv=2).fit(C)
    assert search.best_params_ == {"n_components": 4}
    with pytest.raises(ValueError, match="once"):
        ImplicitALS(1).fit(sp.coo_array(([1.0, 2.0, 1.0], ([0, 0, 1], [1, 1, 0])), shape=(3, 3)))
    with pytest.raises(NotFittedError):
        ImplicitALS().recommend([0])


def test_callbacks_see_each_sweep() -> None:
    recorder = Recorder(stop_after=2)
    model = ImplicitALS(2, random_state=0, tol=0.0).set_callbacks(recorder).fit(interactions(30, 20))
    recorder.check_balanced()
    assert model.n_iter_ == 2
    assert [step["loss"] for step in recorder.metadata] == list(model.result_.history)
    assert set(recorder.metadata[0]) == {"n_iter", "loss", "score"}
