"""LpRegressor and RowSampler: scikit-learn's contracts, agreement with exact fits, coresets that keep sums."""

# ruff: noqa: ARG002  # the hooks of callbacks have signatures of scikit-learn's

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import randla
from randla.estimators import LpRegressor, RowSampler

from .conftest import tolerance

CHECKED = [
    LpRegressor(),
    LpRegressor(1.5, fit_intercept=False),
    LpRegressor(2.0),
    LpRegressor(4.0, scores="leverage"),
    RowSampler(),
    RowSampler(10, p=1.0, target="ignore", fit_intercept=False),
    RowSampler(10, scores="uniform"),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn, none of them expected to fail."""
    check(estimator)


def regression(m: int = 3000, n: int = 4, noise: str = "cauchy", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, n))
    errors = rng.standard_cauchy(m) if noise == "cauchy" else rng.standard_normal(m)
    return X, X @ np.arange(1.0, n + 1) + 7 + errors


# --- LpRegressor ------------------------------------------------------------------------------------------------------


def test_least_absolute_deviations_are_those_of_quantile_regression() -> None:
    X, y = regression(600)
    model = LpRegressor(n_samples=200, random_state=0).fit(X, y)
    exact = QuantileRegressor(alpha=0, solver="highs").fit(X, y)
    ours, theirs = (np.abs(y - fitted.predict(X)).sum() for fitted in (model, exact))
    assert ours <= theirs * (1 + 1e-6)
    assert abs(model.objective_ - ours) <= tolerance(np.float64, 600, ours)
    assert model.excess_bound_ <= 1e-6
    assert model.status_ is randla.Status.CONVERGED
    assert model.sample_indices_.dtype == np.int64
    assert np.abs(model.coef_ - exact.coef_).max() < 0.01


def test_squares_are_linear_regression() -> None:
    X, y = regression(noise="normal")
    weights = np.random.default_rng(1).random(3000)
    for intercept in (True, False):
        model = LpRegressor(2.0, n_samples=300, tol=1e-14, polish=10, fit_intercept=intercept, random_state=0)
        exact = LinearRegression(fit_intercept=intercept).fit(X, y, sample_weight=weights)
        model.fit(X, y, sample_weight=weights)
        assert np.abs(model.coef_ - exact.coef_).max() <= 1e-6
        assert abs(model.intercept_ - exact.intercept_) <= 1e-6


@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array, sp.csr_matrix])
def test_containers_and_dtypes(container: Any, dtype: str) -> None:
    X, y = regression(500)
    X[np.abs(X) < 0.5] = 0
    model = LpRegressor(1.5, n_samples=200, random_state=0)
    exact = clone(model).fit(X, y)
    model.fit(container(X.astype(dtype)), y.astype(dtype))
    assert model.coef_.shape == (4,)
    assert model.coef_.dtype == dtype
    predicted = model.predict(container(X.astype(dtype)))
    assert predicted.dtype == dtype
    assert np.abs(predicted - exact.predict(X)).max() < 0.05
    assert model.objective_ == pytest.approx(exact.objective_, rel=1e-5)


def test_random_states_pickles_and_frames() -> None:
    X, y = regression(2000)
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = LpRegressor(1.2, n_samples=150, polish=1, tol=None, random_state=3).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list("abcd")
    again = clone(model).fit(X, y)
    assert np.array_equal(again.coef_, model.coef_)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(frame), model.predict(frame))
    shared = np.random.RandomState(0)
    first, second = (LpRegressor(1.2, n_samples=150, tol=None, random_state=shared).fit(X, y) for _ in range(2))
    assert not np.array_equal(first.sample_indices_, second.sample_indices_)


def test_in_a_pipeline_and_a_search() -> None:
    X, y = regression(400)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LpRegressor(random_state=0)), {"lpregressor__p": [1.0, 2.0]},
        scoring="neg_median_absolute_error",
    )  # fmt: skip
    assert search.fit(X, y).best_params_ == {"lpregressor__p": 1.0}


def test_what_was_not_reached_is_told() -> None:
    X, y = regression(noise="normal")
    with pytest.warns(ConvergenceWarning, match=r"LpRegressor ended with Status.MAX_ITER and an excess of at most"):
        model = LpRegressor(4.0, n_samples=40, polish=0, random_state=0).fit(X, y)
    assert model.n_iter_ == 0
    assert model.excess_bound_ > 1e-6


class Recorder:
    """A callback that notes the metadata of each step, and ends the fit after `most` of them."""

    def __init__(self, most: int = 100) -> None:
        self.most: int = most
        self.seen: list[dict[str, Any]] = []
        self.fitted: Any = None

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, metadata: Any = None, fitted_estimator: Any = None
    ) -> bool:
        if metadata:
            self.seen.append(metadata)
        if fitted_estimator is not None:
            self.fitted = fitted_estimator
        return len(self.seen) >= self.most


def test_callbacks_see_the_steps_and_may_end_the_fit() -> None:
    X, y = regression(noise="normal")
    recorder = Recorder()
    options: dict[str, Any] = {"p": 4.0, "n_samples": 60, "polish": 8, "tol": 1e-10, "random_state": 0}
    model = LpRegressor(**options).set_callbacks(recorder).fit(X, y)
    assert [step["n_iter"] for step in recorder.seen] == list(range(model.n_iter_ + 1))
    assert recorder.seen[-1]["excess_bound"] <= 1e-10
    assert np.array_equal(recorder.fitted.predict(X), model.predict(X))
    stopper = Recorder(most=1)
    early = LpRegressor(**options).set_callbacks(stopper).fit(X, y)  # a warning would be an error here
    assert early.n_iter_ == 0
    assert early.excess_bound_ > model.excess_bound_


def test_scikit_learns_progress_bar_runs(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = regression(500)
    LpRegressor(random_state=0).set_callbacks(ProgressBar()).fit(X, y)
    assert "LpRegressor" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"p": 0.5}, ValueError, "p must be"),
        ({"n_samples": 0}, ValueError, "n_samples must be"),
        ({"scores": "no"}, ValueError, "scores must be one of"),
        ({"polish": -1}, ValueError, "polish must be"),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"fit_intercept": "yes"}, TypeError, "fit_intercept must be True or False"),
        ({"random_state": -1}, ValueError, "random_state must be"),
    ],
)
def test_bad_parameters_of_the_regressor(options: dict[str, Any], error: type, message: str) -> None:
    X, y = regression(50)
    with pytest.raises(error, match=message):
        LpRegressor(**options).fit(X, y)


def test_bad_data_of_the_regressor() -> None:
    X, y = regression(50)
    for weights in (-np.ones(50), np.full(50, np.nan), np.ones(49), np.zeros(50)):
        with pytest.raises(ValueError, match=r"[Ww]eight|NaN"):
            LpRegressor().fit(X, y, sample_weight=weights)
    for targets in (np.full(50, np.inf), y[:49], np.column_stack([y, y]), ["a"] * 50):
        with pytest.raises(ValueError, match=r"y|inconsistent|string"):
            LpRegressor().fit(X, targets)
    with pytest.raises(NotFittedError):
        LpRegressor().predict(X)
    with pytest.raises(ValueError, match="4 features"):
        LpRegressor().fit(X, y).predict(X[:, :3])


# --- RowSampler -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_array])
def test_a_coreset_keeps_sums(p: float, container: Any) -> None:
    X, y = regression(5000, noise="normal")
    X[np.abs(X) < 0.5] = 0
    weights = np.random.default_rng(0).random(5000)
    weights[:500] = 0
    sampler = RowSampler(600, p=p, random_state=0)
    X_few, y_few, few = sampler.fit_resample(container(X), y, sample_weight=weights)
    assert X_few.shape == (len(y_few), 4)
    assert abs(len(y_few) - 600) <= 6 * 600**0.5
    assert np.array_equal(few, sampler.sample_weights_)
    kept = X_few.toarray() if sp.issparse(X_few) else X_few
    assert np.array_equal(kept, X[sampler.sample_indices_])
    assert np.array_equal(y_few, y[sampler.sample_indices_])
    assert sampler.sample_indices_.min() >= 500, "rows of weight zero are never chosen"
    assert np.allclose(few * sampler.probabilities_, weights[sampler.sample_indices_])
    rng = np.random.default_rng(1)
    for _ in range(20):
        w, c = rng.standard_normal(4), rng.standard_normal()
        whole = np.sum(weights * np.abs(X @ w + c - y) ** p)
        assert abs(np.sum(few * np.abs(kept @ w + c - y_few) ** p) / whole - 1) < 0.4
    again = clone(sampler).fit(container(X), y, sample_weight=weights)
    assert np.array_equal(again.sample_indices_, sampler.sample_indices_)


def test_a_weight_of_one_million_is_a_row_that_matters() -> None:
    X, y = regression(2000, noise="normal")
    weights = np.ones(2000)
    weights[123] = 1e6
    for seed in range(5):
        assert 123 in RowSampler(100, random_state=seed).fit(X, y, sample_weight=weights).sample_indices_


def test_models_on_a_coreset_are_near_those_on_all_rows() -> None:
    X, y = regression(20_000, noise="normal")
    X_few, y_few, weights = RowSampler(1000, random_state=0).fit_resample(X, y)
    whole, few = LinearRegression().fit(X, y), LinearRegression().fit(X_few, y_few, sample_weight=weights)
    losses = [np.sum((y - model.predict(X)) ** 2) for model in (whole, few)]
    assert losses[1] <= 1.05 * losses[0]  # five coefficients, 1000 rows: an excess of 5/1000 is usual
    points, labels = make_classification(8000, 6, random_state=0)
    points_few, labels_few, weights = RowSampler(800, p=1.0, random_state=0).fit_resample(points, labels)
    full = LogisticRegression().fit(points, labels).score(points, labels)
    assert LogisticRegression().fit(points_few, labels_few, weights).score(points, labels) >= full - 0.02


def test_targets_count_where_they_are_continuous() -> None:
    X, y = regression(2000, noise="normal")
    y[77] = 1e6
    X_only = RowSampler(60, target="ignore", random_state=0)
    assert 77 not in X_only.fit(X, y).sample_indices_  # 3 % of the rows
    for target in ("auto", "use"):
        assert 77 in RowSampler(60, target=target, random_state=0).fit(X, y).sample_indices_
    labels = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
    _, kept, _ = RowSampler(60, random_state=0).fit_resample(X, labels)
    assert set(kept) == {"no", "yes"}
    both = np.column_stack([y, -y])
    _, kept, _ = RowSampler(60, random_state=0).fit_resample(X, both)
    assert kept.shape[1] == 2
    assert RowSampler(60, random_state=0).fit_resample(X)[1] is None
    with pytest.raises(ValueError, match='y must be given where target is "use"'):
        RowSampler(60, target="use").fit(X)


def test_frames_stay_frames_and_all_rows_may_be_kept() -> None:
    X, y = regression(100)
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(100)[::-1])
    sampler = RowSampler(200, random_state=0)
    kept, targets, weights = sampler.fit_resample(frame, y)
    assert isinstance(kept, pd.DataFrame)
    assert kept.equals(frame)
    assert np.array_equal(targets, y)
    assert np.array_equal(weights, np.ones(100))
    assert sampler.feature_names_in_.tolist() == list("abcd")
    assert not hasattr(sampler, "transform"), "a transformer would have to give one row for each row"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples must be"),
        ({"p": 0.5}, ValueError, "p must be"),
        ({"scores": "no"}, ValueError, "scores must be one of"),
        ({"epsilon": 2.0}, ValueError, "epsilon must be"),
        ({"n_samples": 5, "epsilon": 0.5}, ValueError, "epsilon must be None"),
        ({"target": "some"}, ValueError, "target must be one of"),
        ({"fit_intercept": 1}, TypeError, "fit_intercept must be True or False"),
        ({"random_state": "a"}, TypeError, "random_state must be"),
    ],
)
def test_bad_parameters_of_the_sampler(options: dict[str, Any], error: type, message: str) -> None:
    X, y = regression(50)
    with pytest.raises(error, match=message):
        RowSampler(**options).fit(X, y)


def test_bad_data_of_the_sampler() -> None:
    X, y = regression(50)
    for bad in (np.full((50, 2), np.nan), X[:0], X[:, 0], "text"):
        with pytest.raises((ValueError, TypeError)):
            RowSampler(5).fit(bad)
    with pytest.raises(ValueError, match="inconsistent"):
        RowSampler(5).fit(X, y[:40])
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        RowSampler(5).fit(X, y, sample_weight=-np.ones(50))
