"""MatrixCompletion keeps scikit-learn's contracts where they apply, and is `complete` behind them."""

# ruff: noqa: ARG002  # the hooks of callbacks have signatures of scikit-learn's

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla._results import Status
from randla.completion.als import complete
from randla.completion.folding import fold_in
from randla.estimators._completion import MatrixCompletion

from .test_completion import planted

PLACES = "predict takes rows and columns of the fitted matrix, and the check calls it with data"
#: Checks that cannot pass, with the reason.  All of them pass where `predict` is hidden, see below.
EXPECTED = {
    "check_estimators_unfitted": PLACES,
    "check_n_features_in_after_fitting": PLACES,
    "check_dict_unchanged": PLACES,
    "check_dtype_object": PLACES,
    "check_estimator_sparse_array": PLACES,
    "check_estimator_sparse_matrix": PLACES,
    "check_estimators_dtypes": PLACES,
    "check_estimators_pickle": PLACES,
    "check_f_contiguous_array_estimator": PLACES,
    "check_fit2d_predict1d": PLACES,
    "check_fit_idempotent": PLACES,
    "check_methods_sample_order_invariance": PLACES,
    "check_methods_subset_invariance": PLACES,
}


class Transformer(MatrixCompletion):
    """Without `predict`, all that is left is a transformer like others."""

    def __init__(self, n_components: int = 1, *, random_state: Any = 0) -> None:
        super().__init__(n_components, random_state=random_state)

    def __getattribute__(self, name: str) -> Any:
        if name == "predict":
            raise AttributeError("hidden from checks that would call it with data")
        return super().__getattribute__(name)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the root mean square of what the factors leave of X."""
        return -float(np.sqrt(np.mean((self.inverse_transform(self.transform(X)) - X) ** 2)))


@parametrize_with_checks(
    [MatrixCompletion(1, random_state=0), MatrixCompletion(2, loss="huber", random_state=0)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@parametrize_with_checks([Transformer(1), Transformer(2)])
def test_scikit_learn_contract_of_the_transformer(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn where `predict` is hidden, none of them expected to fail."""
    check(estimator)


def ratings(**options: Any) -> tuple[np.ndarray, np.ndarray]:
    return planted(60, 40, 3, share=0.5, noise=0.2, bias=1.0, **options)


@pytest.mark.parametrize("bias", [True, False])
def test_attributes_are_those_of_the_function(bias: bool, dtype: str) -> None:
    _, Z = ratings()
    Z = Z.astype(dtype)
    model = MatrixCompletion(3, reg=0.01, bias=bias, validation_fraction=0.1, random_state=5).fit(Z)
    fit = complete(Z, 3, reg=0.01, bias=bias, validation_fraction=0.1, rng=5)
    assert np.array_equal(model.row_factors_, fit.row_factors)
    assert np.array_equal(model.components_, fit.col_factors.T)
    assert np.array_equal(model.singular_values_, fit.singular_values())
    assert tuple(model.validation_scores_) == fit.validation_history
    for ours, theirs in ((model.row_bias_, fit.row_bias), (model.col_bias_, fit.col_bias)):
        assert (ours is None and theirs is None) if not bias else np.array_equal(ours, theirs)
    assert (model.global_mean_, model.n_iter_, model.status_) == (fit.mean, fit.n_iter, fit.status)
    assert (model.error_, model.noise_, model.n_components_) == (fit.error, fit.noise, 3)
    assert model.n_features_in_ == 40
    rows, cols = [0, 5], [3, 39]
    assert np.array_equal(model.predict(rows, cols), fit.predict(rows, cols))
    assert np.array_equal(model.predict_std(rows, cols, noise=True), fit.predict_std(rows, cols, noise=True))
    assert model.predict(rows, cols).dtype == np.dtype(dtype)
    assert np.array_equal(model.transform(Z[:5]), fold_in(model.result_, Z[:5]).factors)
    assert model.transform(Z[:5]).dtype == np.dtype(dtype)
    rebuilt = model.inverse_transform(model.row_factors_)
    full = fit.to_dense() - (fit.row_bias[:, None] if bias else 0.0)
    assert np.abs(rebuilt - full).max() <= 1e-5 * np.abs(full).max()
    assert model.get_feature_names_out().tolist() == ["matrixcompletion0", "matrixcompletion1", "matrixcompletion2"]


def test_containers_give_the_same() -> None:
    _, Z = ratings()
    seen = ~np.isnan(Z)
    stored = sp.csr_array((Z[seen], np.nonzero(seen)), shape=Z.shape)
    frame = pd.DataFrame(Z, columns=[f"item {j}" for j in range(40)])
    dense = MatrixCompletion(2, random_state=0).fit(Z)
    for X in (stored, stored.tocsc(), stored.tocoo(), sp.csr_matrix(stored), frame):
        other = MatrixCompletion(2, random_state=0).fit(X)
        assert np.array_equal(other.components_, dense.components_)
        assert np.allclose(other.transform(X), dense.transform(Z), rtol=1e-12)
    assert MatrixCompletion(2).fit(frame).feature_names_in_[3] == "item 3"
    with pytest.raises(ValueError, match="more than once"):
        MatrixCompletion(1).fit(sp.coo_array(([1.0, 2.0, 1.0], ([0, 0, 1], [1, 1, 0])), shape=(3, 3)))
    with pytest.raises(ValueError, match="infinity"):
        MatrixCompletion(1).fit(np.array([[1.0, np.inf], [2.0, 3.0]]))
    again = pickle.loads(pickle.dumps(dense))
    assert np.array_equal(again.predict([1], [2]), dense.predict([1], [2]))
    assert clone(dense).get_params() == dense.get_params()


def test_score_is_minus_the_error_of_other_entries() -> None:
    _, Z = ratings()
    held = np.where(np.random.default_rng(1).random(Z.shape) < 0.2, Z, np.nan)
    model = MatrixCompletion(3, reg=0.01, random_state=0).fit(np.where(np.isnan(held), Z, np.nan))
    seen = ~np.isnan(held)
    errors = held[seen] - model.predict(*np.nonzero(seen))
    assert model.score(held) == pytest.approx(-math.sqrt(np.mean(errors**2)), rel=1e-12)
    assert model.score(held) > -0.5
    assert math.isnan(model.score(np.full(Z.shape, np.nan)))
    with pytest.raises(ValueError, match="must have the shape"):
        model.score(held[:5])


def test_unseen_rows_and_columns() -> None:
    _, Z = ratings()
    Z[4] = np.nan
    model = MatrixCompletion(2, random_state=0).fit(Z)
    assert model.predict(4, 0) == pytest.approx(model.global_mean_ + model.col_bias_[0])
    assert np.isnan(model.set_params(on_unseen="nan").predict(4, 0))
    with pytest.raises(ValueError, match="must have observed entries"):
        model.set_params(on_unseen="raise").predict([4], [0])
    with pytest.raises(ValueError, match="on_unseen must be one of"):
        MatrixCompletion(2, on_unseen="zero").fit(Z)


def test_recommendations_leave_out_what_was_seen() -> None:
    """Also what was held out, and what was added later."""
    _, Z = ratings()
    model = MatrixCompletion(3, validation_fraction=0.2, random_state=0).fit(Z[:50])
    model.partial_fit_rows(Z[50:])
    found = model.recommend(None, 5)
    assert found.columns.shape == (60, 5)
    seen = ~np.isnan(Z)
    dense = model.result_.to_dense()
    for i in (0, 31, 55):
        left = [j for j in np.argsort(-dense[i], kind="stable") if not seen[i, j]][:5]
        assert found.columns[i].tolist() == left
        assert np.allclose(found.values[i], dense[i, left], rtol=1e-10)
    everything = model.recommend(7, 40, filter_seen=False)
    assert sorted(everything.columns[0].tolist()) == list(range(40))
    with pytest.raises(TypeError, match="rows must be integers"):
        model.recommend([0.5])


def test_rows_and_columns_can_be_added() -> None:
    truth, Z = ratings()
    model = MatrixCompletion(3, reg=0.01, random_state=0).fit(Z[:45, :30])
    before = model.components_.copy()
    model.partial_fit_rows(Z[45:, :30])
    assert np.array_equal(model.components_, before)
    model.partial_fit_cols(Z[:, 30:])
    assert model.n_features_in_ == 40
    assert model.transform(Z[:3]).shape == (3, 3)
    rest = np.isnan(Z)
    error = math.sqrt(np.mean((model.predict(*np.nonzero(rest)) - truth[rest]) ** 2))
    assert error < 0.5
    model.partial_fit_rows(Z[:2], sweeps=2)
    assert model.row_factors_.shape == (62, 3)
    assert model.n_iter_ == 2
    with pytest.raises(ValueError, match="40 features"):
        model.partial_fit_rows(Z[:2, :30])


def test_warm_start_goes_on_and_grows() -> None:
    _, Z = ratings()
    model = MatrixCompletion(3, reg=0.01, warm_start=True, random_state=0, max_iter=100, tol=1e-8).fit(Z[:50, :35])
    cold = MatrixCompletion(3, reg=0.01, random_state=0, max_iter=100, tol=1e-8).fit(Z)
    again = model.fit(Z[:50, :35]).n_iter_
    assert again <= 2
    assert model.fit(Z).n_iter_ <= cold.n_iter_
    assert model.result_.shape == (60, 40)
    assert model.result_.objective == pytest.approx(cold.result_.objective, rel=1e-2)
    with pytest.raises(ValueError, match="at least 60 rows"):
        model.fit(Z[:50])


def test_failures_are_told() -> None:
    _, Z = ratings()
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        model = MatrixCompletion(2, max_iter=1, random_state=0).fit(Z)
    assert model.status_ is Status.MAX_ITER
    with pytest.raises(ValueError, match="n_components must be at most 40"):
        MatrixCompletion(41).fit(Z)
    with pytest.raises(NotFittedError):
        MatrixCompletion().predict([0], [0])
    with pytest.raises(NotFittedError):
        MatrixCompletion().recommend([0])
    assert not hasattr(MatrixCompletion(), "components_")


class Recorder:
    """A callback that keeps what it is told and ends the fit after some sweeps."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.told: list[dict[str, Any]] = []

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
            self.told.append(metadata)
            return bool(metadata["n_iter"] >= self.last)
        return False


def test_callbacks_see_each_sweep_and_may_stop() -> None:
    """A fit that was stopped is fitted with what was reached, without a warning."""
    _, Z = ratings()
    recorder = Recorder(3)
    model = MatrixCompletion(2, tol=0.0, validation_fraction=0.1, n_iter_no_change=9, random_state=0)
    model.set_callbacks(recorder).fit(Z)
    assert [step["n_iter"] for step in recorder.told] == [1, 2, 3]
    assert [step["validation_rmse"] for step in recorder.told] == model.validation_scores_.tolist()
    assert model.n_iter_ == 3
    assert model.status_ is Status.MAX_ITER
