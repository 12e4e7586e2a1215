"""ColumnSubsetSelector: scikit-learn's contract, what is kept and rebuilt, pipelines, names, callbacks, bad input."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla import Key, Status
from randla.estimators._selection import ColumnSubsetSelector
from randla.lowrank.interpolative import interpolative

from .conftest import tolerance

DIGITS = load_digits().data

CHECKED = [
    ColumnSubsetSelector(),
    ColumnSubsetSelector(None, tol=0.1),
    ColumnSubsetSelector(n_components=1, selection="rpqr"),
    ColumnSubsetSelector(coefficients="oversampled"),
]


@pytest.mark.filterwarnings("ignore:ColumnSubsetSelector ended with Status.MAX_ITER")  # with n_components set to 1
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def test_it_is_the_decomposition_of_the_function(dtype: str) -> None:
    X = DIGITS.astype(dtype)
    model = ColumnSubsetSelector(20, random_state=Key(3, 4)).fit(X)
    J, coefficients = interpolative(X, 20, rng=Key(3, 4))
    assert np.array_equal(model.indices_, J)
    assert model.coefficients_.dtype == dtype
    kept = model.transform(X)
    assert np.array_equal(kept, X[:, np.sort(J)])
    assert np.array_equal(kept, X[:, model.get_support()])
    error = np.linalg.norm(X - model.inverse_transform(kept)) / np.linalg.norm(X)
    assert error == pytest.approx(model.error_, abs=tolerance(dtype, X.size))
    assert error <= model.error_bound_ + tolerance(dtype, X.size)
    assert np.allclose(model.inverse_transform(kept), X[:, J] @ coefficients, atol=tolerance(dtype, 20, 16.0))
    assert model.status_ is Status.CONVERGED


def test_kept_features_are_rebuilt_exactly() -> None:
    model = ColumnSubsetSelector(15, random_state=0).fit(DIGITS)
    kept = model.transform(DIGITS)
    assert np.array_equal(model.inverse_transform(kept)[:, model.get_support()], kept)


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.csr_matrix])
def test_sparse_data_stay_sparse(container: Any, dtype: str) -> None:
    X = container(DIGITS.astype(dtype))
    sparse, dense = (ColumnSubsetSelector(12, random_state=0).fit(data) for data in (X, DIGITS.astype(dtype)))
    assert np.array_equal(sparse.indices_, dense.indices_)
    kept = sparse.transform(X)
    assert sp.issparse(kept)
    assert kept.dtype == dtype
    assert abs(kept - X.tocsc()[:, np.sort(sparse.indices_)]).max() == 0
    assert np.allclose(sparse.inverse_transform(kept), dense.inverse_transform(kept.toarray()), atol=1e-3)


@pytest.mark.parametrize("tol", [0.5, 0.2, 0.05])
def test_tolerance(tol: float) -> None:
    model = ColumnSubsetSelector(None, tol=tol, random_state=0).fit(DIGITS)
    rebuilt = model.inverse_transform(model.transform(DIGITS))
    assert np.linalg.norm(DIGITS - rebuilt) <= tol * np.linalg.norm(DIGITS)
    fewer = interpolative(DIGITS, model.n_components_ - 1, rng=0)
    assert fewer.error > 0.9 * tol
    with pytest.warns(ConvergenceWarning, match="3 features; raise n_components or tol"):
        short = ColumnSubsetSelector(3, tol=tol / 10, random_state=0).fit(DIGITS)
    assert short.status_ is Status.MAX_ITER
    assert short.n_components_ == 3


def test_dependent_features_are_not_kept_twice() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((200, 5))
    X = np.hstack([base, base, base @ rng.standard_normal((5, 4)), np.zeros((200, 2))])
    model = ColumnSubsetSelector(12, random_state=0).fit(X)
    assert model.n_components_ == 5
    assert np.allclose(model.inverse_transform(model.transform(X)), X, atol=tolerance("float64", 200, 100.0))


def test_names_and_pandas_output() -> None:
    frame = pd.DataFrame(DIGITS, columns=[f"pixel{i}" for i in range(64)])
    model = ColumnSubsetSelector(10, random_state=0).set_output(transform="pandas").fit(frame)
    out = model.transform(frame)
    assert list(out.columns) == list(model.get_feature_names_out()) == [f"pixel{i}" for i in np.sort(model.indices_)]


def test_pipeline_clone_and_pickle() -> None:
    digits = load_digits()
    train, test = slice(0, None, 2), slice(1, None, 2)

    def scored(*steps: Any) -> tuple[Any, float]:
        model = make_pipeline(StandardScaler(), *steps, LogisticRegression(max_iter=2000, C=0.1))
        model.fit(digits.data[train], digits.target[train])
        return model, model.score(digits.data[test], digits.target[test])

    model, few = scored(ColumnSubsetSelector(40, random_state=0))
    assert few > scored()[1] - 0.03  # 24 of the 64 pixels may go
    selector = model[1]
    again = pickle.loads(pickle.dumps(selector))
    assert np.array_equal(again.get_support(), selector.get_support())
    assert clone(selector).get_params() == selector.get_params()


def test_bad_parameters() -> None:
    for options, text in (
        ({"n_components": 0}, "n_components must be at least 1"),
        ({"n_components": 65}, "n_components must be at most 64"),
        ({"n_components": None}, "n_components must be an integer where tol is None"),
        ({"tol": 2.0}, "tol must be"),
        ({"selection": "best"}, "selection must be one of"),
        ({"coefficients": "best"}, "coefficients must be one of"),
    ):
        with pytest.raises(ValueError, match=text):
            ColumnSubsetSelector(**options).fit(DIGITS)
    with pytest.raises(TypeError, match="random_state must be"):
        ColumnSubsetSelector(random_state="0").fit(DIGITS)
    with pytest.raises(NotFittedError):
        ColumnSubsetSelector().get_support()
    with pytest.raises(ValueError, match="must have n_components_=2 columns"):
        ColumnSubsetSelector().fit(DIGITS).inverse_transform(DIGITS)
