"""IncrementalSVD keeps scikit-learn's contracts, never densifies, and says how wrong it is."""

# ruff: noqa: ARG002  # the hooks of callbacks have signatures of scikit-learn's

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla.estimators._incremental import IncrementalSVD

from .conftest import tolerance

DIGITS = load_digits().data
LABELS = load_digits().target
CHECKED = [IncrementalSVD(), IncrementalSVD(1, n_oversamples=0, batch_size=3), IncrementalSVD(decay=0.5)]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn, none of them expected to fail."""
    check(estimator)


@pytest.mark.slow
def test_scikit_learn_contract_with_array_api_dispatch() -> None:
    """The checks that are skipped above: SciPy reads its switch at import, so they need a process of their own."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from tests.test_estimators_incremental import CHECKED\n"
        "records = [record for model in CHECKED for record in check_estimator(model, on_fail=None)]\n"
        "print(len(records), [record for record in records if record['status'] != 'passed'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "SCIPY_ARRAY_API": "1"}, cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    count, failures = run.stdout.split(maxsplit=1)
    assert int(count) > 40 * len(CHECKED)
    assert failures.strip() == "[]"


def best(X: np.ndarray, k: int) -> float:
    s = np.linalg.svd(X, compute_uv=False)
    return math.sqrt(np.sum(s[k:] ** 2) / np.sum(s**2))


CONTAINERS = [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("batch_size", [7, 64, None])
def test_fit_in_batches(container: Any, batch_size: int | None, dtype: str) -> None:
    X = container(DIGITS[:500].astype(dtype))
    before = copy.deepcopy(X)
    model = IncrementalSVD(8, batch_size=batch_size)
    Y = model.fit_transform(X)
    assert Y.shape == (500, 8)
    assert Y.dtype == model.components_.dtype == model.singular_values_.dtype == dtype
    assert abs(X - before).max() == 0
    assert model.n_samples_seen_ == 500
    assert model.n_batches_seen_ == math.ceil(500 / (batch_size or 64))
    V = model.components_.astype(float)
    # orthogonality is repaired when it has drifted by 1e-13, and is known to rounding times the condition of the core
    assert np.abs(V @ V.T - np.eye(8)).max() <= tolerance(dtype, 64, 2) + 1e-12
    dense = DIGITS[:500]
    assert np.abs(Y - dense @ V.T).max() <= tolerance(dtype, 64, np.linalg.norm(dense))
    error = np.linalg.norm(dense - (dense @ V.T) @ V) / np.linalg.norm(dense)
    assert error <= model.error_ * (1 + 1e-6)
    assert model.error_ <= 1.1 * best(dense, 8)
    rebuilt = model.inverse_transform(Y)
    assert rebuilt.dtype == dtype
    assert np.linalg.norm(rebuilt - dense) / np.linalg.norm(dense) == pytest.approx(error, rel=1e-4)


def test_partial_fit_goes_on_and_fit_begins_anew(dtype: str) -> None:
    X = sp.csr_array(DIGITS.astype(dtype))
    whole = IncrementalSVD(5, batch_size=100).fit(X)
    pieces = IncrementalSVD(5, batch_size=100)
    for start in range(0, X.shape[0], 300):
        assert pieces.partial_fit(X[start : start + 300]) is pieces
    assert pieces.n_samples_seen_ == X.shape[0]
    assert np.array_equal(pieces.components_, whole.components_)
    assert pieces.error_ == whole.error_
    pieces.fit(X[:50])
    assert pieces.n_samples_seen_ == 50
    assert np.array_equal(pieces.components_, IncrementalSVD(5, batch_size=100).fit(X[:50]).components_)
    pieces.partial_fit(X[50:60].toarray())
    assert pieces.n_samples_seen_ == 60


def test_error_is_that_of_the_rows_seen_and_falls_with_oversampling() -> None:
    X = DIGITS[:600]
    errors = []
    for n_oversamples in (0, 10, 30):
        model = IncrementalSVD(5, n_oversamples=n_oversamples, batch_size=40).fit(X)
        U, s, Vh = model.svd_.to_svd(5)
        error = np.linalg.norm(X - (U * s) @ Vh) / np.linalg.norm(X)
        # rows that depend on others are left out below 1e-7 of their length, and that much is added to the bound
        assert error * (1 - 1e-12) <= model.error_ <= error + 1e-6
        assert np.array_equal(Vh, model.components_)
        errors.append(error)
    assert errors[0] > errors[1] >= errors[2] >= best(X, 5) * (1 - 1e-12)
    assert errors[2] <= 1.001 * best(X, 5)


def test_fewer_rows_than_components_and_rows_of_zeros() -> None:
    model = IncrementalSVD(6).partial_fit(sp.csr_array((3, 64)))
    assert model.n_components_ == 0
    assert model.transform(DIGITS[:2]).shape == (2, 0)
    assert model.error_ == 0.0
    model.partial_fit(DIGITS[:2])
    assert model.components_.shape == (2, 64)
    assert model.transform(DIGITS[:4]).shape == (4, 2)
    assert model.error_ <= 1e-6
    model.partial_fit(DIGITS[2:20])
    assert model.components_.shape == (6, 64)


def test_old_rows_fade() -> None:
    first, second = np.zeros((100, 40)), np.zeros((100, 40))
    rng = np.random.default_rng(0)
    first[:, :20], second[:, 20:] = 3 * rng.standard_normal((100, 20)), rng.standard_normal((100, 20))
    kept, faded = IncrementalSVD(4), IncrementalSVD(4, decay=0.5)
    for model in (kept, faded):
        model.partial_fit(first)
        for start in range(0, 100, 20):
            model.partial_fit(second[start : start + 20])
    assert np.abs(kept.components_[:, 20:]).max() < 0.1
    assert np.abs(faded.components_[:, :20]).max() < 0.1
    faded_rows = np.concatenate([first * 0.5**5] + [second[20 * i : 20 * i + 20] * 0.5 ** (4 - i) for i in range(5)])
    assert faded.svd_.norm == pytest.approx(np.linalg.norm(faded_rows), rel=1e-12)


def test_memory_of_partial_fit() -> None:
    """2,000 x 20,000 with 0.5 MB of entries: less than 50 MB, where a dense copy has 320 MB."""
    X = sp.random_array((2000, 20_000), density=1e-3, rng=np.random.default_rng(0), format="csr")
    IncrementalSVD(2).fit(X[:50])
    for n_components in (10, 50):
        tracemalloc.start()
        IncrementalSVD(n_components).partial_fit(X)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50e6
    assert X.nnz * 12 + 8000 < 0.5e6


def test_the_decomposition_behind_can_be_used() -> None:
    model = IncrementalSVD(5).fit(DIGITS[:200])
    row = model.svd_.row_embedding(17)[:5] * model.svd_.s[:5]
    projected = model.svd_.project(DIGITS[17:18])[0, :5]
    assert np.linalg.norm(row - projected) <= model.svd_.error_bound
    before = model.components_
    model.svd_.remove_rows(range(50))
    assert not np.array_equal(model.components_, before)


def test_pickle_clone_and_frames() -> None:
    frame = pd.DataFrame(DIGITS[:80], columns=[f"pixel {i}" for i in range(64)])
    model = IncrementalSVD(5).set_output(transform="pandas").fit(frame)
    Y = model.transform(frame)
    assert list(Y.columns) == [f"incrementalsvd{i}" for i in range(5)]
    twin = pickle.loads(pickle.dumps(model))
    assert np.array_equal(twin.partial_fit(frame).components_, model.partial_fit(frame).components_)
    assert not hasattr(clone(model), "svd_")
    with pytest.raises(ValueError, match="feature names"):
        model.partial_fit(frame.rename(columns={"pixel 0": "other"}))
    pipeline = make_pipeline(IncrementalSVD(25), RidgeClassifier()).fit(DIGITS, LABELS)
    assert pipeline.score(DIGITS, LABELS) > 0.9


class Recorder:
    """A scikit-learn callback that writes down what it is told, and stops after `stop_after` batches."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.fitted: Any = None
        self.stop_after = stop_after

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
            self.metadata.append(metadata)
        if fitted_estimator is not None:
            self.fitted = fitted_estimator
        return self.stop_after is not None and len(self.metadata) >= self.stop_after


@pytest.mark.parametrize("stop_after", [None, 3])
def test_callbacks_see_each_batch(stop_after: int | None) -> None:
    seen = Recorder(stop_after)
    model = IncrementalSVD(4, batch_size=100).set_callbacks(seen).fit(DIGITS[:550])
    count = stop_after or 6
    assert [step["n_samples_seen"] for step in seen.metadata] == [100, 200, 300, 400, 500, 550][:count]
    assert [step["n_iter"] for step in seen.metadata] == list(range(1, count + 1))
    assert seen.metadata[-1]["error_bound"] == model.error_
    assert model.n_samples_seen_ == min(550, 100 * count)
    assert np.array_equal(seen.fitted.transform(DIGITS[:5]), model.transform(DIGITS[:5]))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "n_components must be at least 1, got 0"),
        ({"n_components": 65}, ValueError, "n_components must be at most 64 for data with n_features=64, got 65"),
        ({"n_components": 2.5}, TypeError, "n_components must be an integer, got 2.5"),
        ({"n_oversamples": -1}, ValueError, "n_oversamples must be at least 0, got -1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": "all"}, TypeError, "batch_size must be an integer"),
        ({"decay": 0.0}, ValueError, r"decay must be finite and in \(0, 1\]"),
        ({"decay": 1.1}, ValueError, "decay must be finite"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], error: type[Exception], message: str) -> None:
    for call in ("fit", "partial_fit"):
        with pytest.raises(error, match=message):
            getattr(IncrementalSVD(**{"n_components": 5, **parameters}), call)(DIGITS[:50])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_bad_data(bad: float, container: Any) -> None:
    X = DIGITS[:50].copy()
    model = IncrementalSVD(3).fit(X)
    before = model.components_
    X[3, 4] = bad
    for call in (IncrementalSVD(3).fit, model.partial_fit, model.transform):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            call(container(X))
    with pytest.raises(ValueError, match="64 features"):
        model.partial_fit(DIGITS[:5, :40])
    with pytest.raises(ValueError, match="X must have n_components_=3 columns, got 2"):
        model.inverse_transform(np.ones((4, 2)))
    assert np.array_equal(model.components_, before)
    assert model.n_samples_seen_ == 50
    for name in ("components_", "n_components_"):
        with pytest.raises(NotFittedError):
            getattr(IncrementalSVD(), name)
