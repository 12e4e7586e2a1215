"""The estimator of nonnegative factorisation keeps scikit-learn's contracts and agrees with the function."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.decomposition import NMF as ScikitNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla.estimators._nmf import NMF
from randla.nonnegative.solvers import nmf

CHECKED = [NMF(), NMF(2, solver="pivots"), NMF(2, loss="kl"), NMF(2, missing="nan"), NMF(3, solver="mu", loss=1.5)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn, none of them expected to fail."""
    check(estimator)


def data(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((50, 4)) @ rng.random((4, 20)) + 0.1 * rng.random((50, 20))


def quiet(model: Any, X: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def test_agrees_with_the_function() -> None:
    X = data()
    model, result = quiet(NMF(4, random_state=0), X), nmf(X, 4, rng=0, on_failure="ignore")
    assert np.array_equal(model.components_, result.H)
    assert model.error_ == result.error
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(X - result.to_dense()), rel=1e-6)
    W = model.transform(X)
    assert (W >= 0).all()
    assert np.linalg.norm(X - W @ model.components_) <= np.linalg.norm(X - result.to_dense()) * (1 + 1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parameters_mean_what_they_mean_in_scikit_learn() -> None:
    """The penalised objectives of both, by scikit-learn's scaling of the penalties."""
    X = data(1)
    for alpha, share in ((0.0, 0.0), (0.003, 0.5)):
        common = {"alpha_W": alpha, "l1_ratio": share, "max_iter": 3000, "init": "nndsvda"}
        values = []
        for model in (ScikitNMF(3, tol=1e-8, **common), NMF(3, solver="hals", tol=1e-7, random_state=0, **common)):
            W, H = model.fit_transform(X), model.components_
            penalties = [share * F.sum() + (1 - share) / 2 * (F**2).sum() for F in (W, H)]
            values.append(0.5 * np.sum((X - W @ H) ** 2) + alpha * (20 * penalties[0] + 50 * penalties[1]))
        assert values[1] <= values[0] * 1.05
    assert model.reconstruction_err_ > 0


def test_missing_entries_are_filled() -> None:
    X = data(2)
    known = np.where(np.random.default_rng(0).random(X.shape) < 0.7, X, np.nan)
    model = quiet(NMF(4, missing="nan", max_iter=500, random_state=0), known)
    filled = model.inverse_transform(model.transform(known))
    hidden = np.isnan(known)
    means = np.broadcast_to(np.nanmean(known, axis=0), X.shape)
    assert np.linalg.norm((filled - X)[hidden]) < 0.5 * np.linalg.norm((means - X)[hidden])
    A = sp.csr_array((known[~hidden], np.nonzero(~hidden)), shape=X.shape)
    stored = quiet(NMF(4, missing="absent", max_iter=500, random_state=0), A)
    assert np.allclose(stored.components_, model.components_)


def test_batches_and_fit_start_anew() -> None:
    X = data(3)
    model = NMF(3, batch_size=10, random_state=0)
    for _ in range(20):
        for start in range(0, 50, 10):
            model.partial_fit(X[start : start + 10])
    whole = quiet(NMF(3, random_state=0), X)
    W = model.transform(X)
    assert np.linalg.norm(X - W @ model.components_) <= 2 * whole.reconstruction_err_
    assert model.n_iter_ == 100
    assert np.array_equal(quiet(model, X).components_, whole.components_)
    assert not hasattr(model, "online_")


def test_pipelines_searches_names_and_frames() -> None:
    X = data(4)

    def score(model: Any, X: np.ndarray, y: Any = None) -> float:
        scaled = model[:-1].transform(X)
        return -float(np.linalg.norm(scaled - model[-1].inverse_transform(model.transform(X))))

    pipeline = make_pipeline(MinMaxScaler(clip=True), NMF(2, random_state=0, max_iter=50))
    search = GridSearchCV(pipeline, {"nmf__n_components": [2, 3]}, scoring=score, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert search.fit(X).best_params_ == {"nmf__n_components": 3}
        frame = clone(NMF(2, random_state=0)).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["nmf0", "nmf1"]


def test_warns_and_stops() -> None:
    with pytest.warns(ConvergenceWarning, match="NMF ended with Status.MAX_ITER"):
        NMF(3, max_iter=1, tol=1e-9, random_state=0).fit(data())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_components": 0}, "n_components must be at least 1"),
        ({"missing": "guess"}, "missing must be one of"),
        ({"missing": "absent"}, 'missing must be "nan" for dense data'),
        ({"missing": "nan", "loss": "kl"}, 'loss must be "frobenius"'),
        ({"alpha_H": -1.0}, "alpha_H must be finite"),
    ],
)
def test_bad_parameters(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NMF(**{"n_components": 2, **options}).fit(data())


def test_batches_need_a_loss_of_squares_and_all_entries() -> None:
    assert hasattr(NMF(2), "partial_fit")
    for options in ({"loss": "kl"}, {"missing": "nan"}):
        with pytest.raises(AttributeError, match="partial_fit"):
            NMF(2, **options).partial_fit(data())
