"""The estimator of transport keeps scikit-learn's contracts, agrees with the function, and moves points rightly."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla.estimators._transport import SinkhornTransport
from randla.transport.costs import point_cost
from randla.transport.sinkhorn import sinkhorn

from .conftest import tolerance
from .test_estimators import Recorder

#: Fifteen points in thirty dimensions at the default `reg`: their plan is all but a permutation, so that the images of
#: points without weight hang on potentials that a marginal error of 1e-9 does not determine to the 1e-7 of this check.
WEAK = {"check_sample_weight_equivalence_on_dense_data": "potentials of a near-permutation are determined weakly"}
CHECKED = [
    SinkhornTransport(),
    SinkhornTransport(0.1, tol=1e-12),
    SinkhornTransport(0.5, metric="euclidean", tol=1e-12),
]


@pytest.mark.slow
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda model: WEAK if model.reg == 0.01 else {})
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def clouds(n: int = 60, m: int = 50, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), 0.5 * rng.normal(size=(m, d)) + 3.0


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_agrees_with_the_function(metric: str) -> None:
    """The image of a fitted point is its row of the plan over its mass, both ways."""
    X, Y = clouds()
    model = SinkhornTransport(0.05, metric=metric).fit(X, Y=Y)
    result = sinkhorn(None, None, point_cost(X, Y, metric), 0.05, relative=True)
    plan = result.plan.to_dense()
    near = (
        tolerance(np.float64, 60, float(np.abs(Y).max())) + 1e-9 * 60 * np.abs(Y).max()
    )  # 1e-9 of the mass, over 1/60
    assert np.array_equal(model.potentials_[1], result.g)
    assert np.abs(model.transform(X) - 60 * plan @ Y).max() <= near
    assert np.abs(model.inverse_transform(Y) - 50 * plan.T @ X).max() <= near
    assert np.array_equal(model.fit_transform(X, Y=Y), model.transform(X))
    assert (model.cost_, model.reg_, model.marginal_error_) == (result.cost, result.reg, result.marginal_error)
    assert model.status_ is result.status
    assert model.n_iter_ == result.n_iter + result.n_newton
    assert np.array_equal(model.plan_.to_dense(), plan)


def test_weights_are_repetitions() -> None:
    X, Y = clouds(20, 15)
    a, b = np.arange(20) % 4, np.arange(15) % 3
    weighted = SinkhornTransport(0.1, tol=1e-12).fit(X, Y=Y, sample_weight=a, target_weight=7.0 * b)
    repeated = SinkhornTransport(0.1, tol=1e-12).fit(X.repeat(a, axis=0), Y=Y.repeat(b, axis=0))
    assert weighted.reg_ == repeated.reg_  # rows without weight are no part of the largest cost
    assert np.allclose(weighted.transform(X), repeated.transform(X), rtol=1e-8, atol=0)
    assert np.allclose(weighted.inverse_transform(Y), repeated.inverse_transform(Y), rtol=1e-8, atol=0)
    assert np.array_equal(np.isinf(weighted.potentials_[0]), a == 0)


def test_the_map_follows_a_shift_and_does_not_feel_where_the_origin_is() -> None:
    X, _ = clouds(80, d=2)
    shift = np.array([5.0, -2.0])
    moved = SinkhornTransport(1e-3).fit(X, Y=X + shift).transform(X)
    assert np.abs(moved - X - shift).max() < 0.2 * X.std()
    assert np.abs(moved.mean(axis=0) - X.mean(axis=0) - shift).max() <= 1e-8 * 80
    far = 1e6
    again = SinkhornTransport(1e-3).fit(X + far, Y=X + shift + far).transform(X + far)
    assert np.abs(again - far - moved).max() <= 1e3 * np.finfo(float).eps * far


def test_a_classifier_learnt_here_works_there() -> None:
    """Labels of a turned sample, from those of the sample that was moved onto it."""
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], 60)
    X = rng.normal(size=(120, 2)) * 0.4 + np.array([[-1.5, 0.0], [1.5, 0.5]])[y]
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    target = (rng.normal(size=(120, 2)) * 0.4 + np.array([[-1.5, 0.0], [1.5, 0.5]])[y]) @ turn + np.array([2.0, 3.0])
    plain = KNeighborsClassifier(5).fit(X, y).score(target, y)
    model = SinkhornTransport(1e-2)
    adapted = KNeighborsClassifier(5).fit(model.fit(X, Y=target).transform(X), y).score(target, y)
    assert adapted >= 0.95
    assert plain <= 0.8


def test_dtypes_frames_and_pipelines() -> None:
    X, Y = clouds()
    model = SinkhornTransport(0.05).fit(X.astype(np.float32), Y=Y.astype(np.float32))
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    assert np.allclose(model.transform(X), SinkhornTransport(0.05).fit(X, Y=Y).transform(X), atol=1e-5)
    assert list(model.get_feature_names_out()) == ["x0", "x1", "x2"]
    frame = clone(model).set_output(transform="pandas").fit(X, Y=Y).transform(X)
    assert frame.shape == X.shape
    pipeline = make_pipeline(StandardScaler(), SinkhornTransport(0.05))
    assert pipeline.fit(X, sinkhorntransport__Y=Y).transform(X).shape == X.shape


def test_callbacks_see_every_step() -> None:
    X, Y = clouds()
    recorder = Recorder()
    model = SinkhornTransport(0.05).set_callbacks(recorder).fit(X, Y=Y)
    errors = [known["marginal_error"] for known in recorder.metadata if "marginal_error" in known]
    assert len(errors) == model.n_iter_
    stopped = SinkhornTransport(0.05).set_callbacks(Recorder(stop_after=3)).fit(X, Y=Y)  # no warning: it was asked for
    assert stopped.n_iter_ < model.n_iter_
    assert stopped.marginal_error_ > model.tol


def test_warns_when_it_did_not_converge() -> None:
    X, Y = clouds()
    with pytest.warns(ConvergenceWarning, match="SinkhornTransport ended with Status"):
        model = SinkhornTransport(1e-3, max_iter=1, method="log").fit(X, Y=Y)
    assert model.marginal_error_ > 1e-9
    assert np.isfinite(model.transform(X)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SinkhornTransport(0.1).fit(X, Y=Y)


@pytest.mark.parametrize(
    ("options", "arguments", "text"),
    [
        ({"reg": 0.0}, {}, "reg must be"),
        ({"metric": "minkowski"}, {}, "metric must be one of"),
        ({"method": "simplex"}, {}, "method must be one of"),
        ({"tol": -1.0}, {}, "tol must be"),
        ({"max_iter": 0}, {}, "max_iter must be"),
        ({}, {"Y": np.ones((4, 2))}, "Y must have the 3 columns of X in fit, got 2"),
        ({}, {"Y": np.full((4, 3), np.nan)}, "Y contains NaN"),
        ({}, {"sample_weight": np.ones(3)}, r"sample_weight must have shape \(60,\)"),
        ({}, {"sample_weight": -np.ones(60)}, "sample_weight must be nonnegative"),
        ({}, {"target_weight": np.zeros(50)}, "target_weight must have an entry above 0"),
    ],
)  # fmt: skip
def test_wrong_arguments(options: dict, arguments: dict, text: str) -> None:
    X, Y = clouds()
    with pytest.raises(ValueError, match=text):
        SinkhornTransport(**options).fit(X, **({"Y": Y} | arguments))
