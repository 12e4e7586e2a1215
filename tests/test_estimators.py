"""The estimators keep scikit-learn's contracts, agree with exact PCA and SVD, and keep distances."""

# ruff: noqa: ARG002  # the hooks of callbacks have signatures of scikit-learn's

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import decomposition
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, DataDimensionalityWarning, NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.random_projection import johnson_lindenstrauss_min_dim
from sklearn.utils.estimator_checks import parametrize_with_checks

import randla
from randla import GaussianProjection, SparseSignProjection, SRHTProjection, TruncatedSVD

from .conftest import tolerance
from .statistics import FALSE_ALARM

PROJECTIONS = [SparseSignProjection, GaussianProjection, SRHTProjection]
ESTIMATORS = [*PROJECTIONS, TruncatedSVD]
DIGITS = load_digits().data
LABELS = load_digits().target

CHECKED = [
    SparseSignProjection(),
    SparseSignProjection(n_components=2, nnz=1),
    GaussianProjection(),
    GaussianProjection(n_components=2),
    SRHTProjection(),
    SRHTProjection(n_components=2, rounds=1),
    TruncatedSVD(),
    TruncatedSVD(center=True),
    TruncatedSVD(None, tol=0.1),
    TruncatedSVD(n_components=1, method="subspace"),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataDimensionalityWarning")
@pytest.mark.filterwarnings("ignore:TruncatedSVD ended with Status.MAX_ITER")  # some checks set n_components to 1
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
        "from tests.test_estimators import CHECKED\n"
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


def make(kind: type, n_components: int = 5, **options: Any) -> Any:
    return kind(n_components, random_state=0, **options)


def low_rank(n_samples: int, n_features: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Singular values 1, 1/2, 1/4, ... under random vectors, with a mean of size one."""
    rng = np.random.default_rng(seed)
    k = min(n_samples, n_features)
    U = np.linalg.qr(rng.standard_normal((n_samples, k)))[0]
    V = np.linalg.qr(rng.standard_normal((n_features, k)))[0]
    return ((U * 0.5 ** np.arange(k)) @ V.T + rng.standard_normal(n_features)).astype(dtype)


# --- what all estimators share ----------------------------------------------------------------------------------------


def csr_of_int64(X: np.ndarray) -> sp.csr_array:
    A = sp.csr_array(X)
    return sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape)


CONTAINERS = [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array, sp.csr_matrix, sp.coo_array, csr_of_int64]


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_dtype_is_kept_and_input_unchanged(kind: type, container: Any, dtype: str) -> None:
    X = container(DIGITS[:200].astype(dtype))
    before = copy.deepcopy(X)
    model = make(kind)
    Y = model.fit_transform(X)
    assert isinstance(Y, np.ndarray)
    assert Y.shape == (200, 5)
    assert Y.dtype == model.inverse_transform(Y).dtype == dtype
    assert abs(X - before).max() == 0
    assert np.array_equal(Y, model.transform(X))


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint16, bool])
def test_other_dtypes_become_float64(kind: type, dtype: Any) -> None:
    X = DIGITS[:100].astype(dtype)
    model = make(kind)
    Y = model.fit_transform(X)
    assert Y.dtype == np.float64
    assert np.array_equal(Y, model.fit_transform(X.astype(np.float64)))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_sparse_and_dense_agree(kind: type, dtype: str) -> None:
    X = DIGITS[:300].astype(dtype)
    options = {"method": "krylov"} if kind is TruncatedSVD else {}  # "auto" iterates otherwise on sparse data
    dense, sparse = make(kind, **options).fit(X), make(kind, **options).fit(sp.csr_array(X))
    size = np.linalg.norm(X)
    bound = tolerance(dtype, X.shape[1], size * 100 if kind is TruncatedSVD else size)  # 100: gaps of the spectrum
    assert np.abs(dense.transform(X) - sparse.transform(sp.csc_array(X))).max() <= bound


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_nonfinite_data_are_refused(kind: type, bad: float, container: Any) -> None:
    X = DIGITS[:50].copy()
    model = make(kind).fit(X)
    X[3, 4] = bad
    for call in (make(kind).fit, model.transform):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            call(container(X))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_data_of_the_wrong_kind(kind: type) -> None:
    for bad in (DIGITS[0], DIGITS[:0], DIGITS[None], [["a", "b"]], DIGITS[:20] + 1j, "text", None):
        with pytest.raises((ValueError, TypeError)):
            make(kind).fit(bad)
    model = make(kind).fit(DIGITS[:50])
    with pytest.raises(ValueError, match="64 features"):
        model.transform(DIGITS[:50, :40])
    with pytest.raises(ValueError, match="X must have n_components_=5 columns, got 4"):
        model.inverse_transform(np.ones((3, 4)))
    with pytest.raises(NotFittedError):
        make(kind).inverse_transform(np.ones((3, 5)))


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "n_components must be at least 1, got 0"),
        ({"n_components": -3}, ValueError, "n_components must be at least 1, got -3"),
        ({"n_components": 65}, ValueError, "n_components must be at most (64|50) .*n_features=64, got 65"),
        ({"n_components": 2.5}, TypeError, "n_components must be an integer, got 2.5"),
        ({"n_components": True}, TypeError, "n_components must be an integer, got True"),
        ({"n_components": [3]}, TypeError, "n_components must be an integer"),
        ({"random_state": -1}, ValueError, "random_state must be a non-negative integer, got -1"),
        ({"random_state": "0"}, TypeError, "random_state must be None, an int"),
        ({"random_state": 1.5}, TypeError, "random_state must be None, an int"),
    ],
)
def test_parameters_of_all(kind: type, parameters: dict[str, Any], error: type[Exception], message: str) -> None:
    """Parameters are checked by fit, and the message names the parameter."""
    model = kind(**{"n_components": 5, **parameters})
    with pytest.raises(error, match=message):
        model.fit(DIGITS[:50])


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (SparseSignProjection(5, nnz=0), ValueError, "nnz must be at least 1, got 0"),
        (SparseSignProjection(5, nnz=1.5), TypeError, "nnz must be an integer"),
        (SRHTProjection(5, rounds=0), ValueError, "rounds must be at least 1, got 0"),
        (GaussianProjection("all"), ValueError, "n_components must be \"auto\" or an integer, got 'all'"),
        (GaussianProjection(epsilon=0.0), ValueError, r"epsilon must be finite and in \(0, 1\), got 0.0"),
        (GaussianProjection(epsilon=1), ValueError, r"epsilon must be finite and in \(0, 1\), got 1"),
        (GaussianProjection(epsilon="0.1"), TypeError, "epsilon must be a real number"),
        (TruncatedSVD(None), ValueError, "n_components must be an integer where tol is None, got None"),
        (TruncatedSVD("auto"), TypeError, "n_components must be an integer, got 'auto'"),
        (TruncatedSVD(51), ValueError, "n_components must be at most 50 for data with n_samples=50, n_features=64"),
        (TruncatedSVD(tol=0), ValueError, r"tol must be finite and in \(0, 1\), got 0"),
        (TruncatedSVD(tol=math.nan), ValueError, "tol must be finite"),
        (TruncatedSVD(tol="small"), TypeError, "tol must be a real number"),
        (TruncatedSVD(center="yes"), TypeError, "center must be True or False, got 'yes'"),
        (TruncatedSVD(method="lanczos"), ValueError, "method must be one of .*'lanczos'"),
        (TruncatedSVD(n_oversamples=-1), ValueError, "n_oversamples must be at least 0, got -1"),
        (TruncatedSVD(n_oversamples=1.5), TypeError, "n_oversamples must be an integer"),
        (TruncatedSVD(n_power_iter=-1), ValueError, "n_power_iter must be at least 0, got -1"),
    ],
    ids=repr,
)
def test_parameters_of_one(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.fit(DIGITS[:50])


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("n_features", [1, 2, 17])
def test_small_shapes(kind: type, n_features: int) -> None:
    X = DIGITS[:30, 20 : 20 + n_features]
    Y = make(kind, n_features).fit_transform(X)
    assert Y.shape == (30, n_features)
    assert np.isfinite(Y).all()
    assert make(kind, 1).fit(X[:1]).transform(X).shape == (30, 1)


# --- randomness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_random_state(kind: type) -> None:
    """Ints, keys and seed sequences repeat themselves; generators and legacy random states are consumed."""
    X = np.random.default_rng(1).standard_normal((60, 50))

    def fits(random_state: Any) -> list[np.ndarray]:
        model = kind(5, random_state=random_state)
        return [model.fit(X).transform(X) for _ in range(2)]

    for repeatable in (0, np.int64(0), randla.Key(3, 4), np.random.SeedSequence(5)):
        first, second = fits(repeatable)
        assert np.array_equal(first, second)
    for consumed in (np.random.default_rng, np.random.RandomState):
        first, second = fits(consumed(7))
        assert not np.array_equal(first, second)
        for again, expected in zip(fits(consumed(7)), (first, second), strict=True):
            assert np.array_equal(again, expected)
    first, second = fits(None)
    assert not np.array_equal(first, second)
    assert not np.array_equal(fits(0)[0], fits(1)[0])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_global_state_of_numpy_is_neither_read_nor_changed(kind: type) -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = kind(3).fit(DIGITS[:40])
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(0)
    second = kind(3).fit(DIGITS[:40])
    if kind is not TruncatedSVD:
        assert first.operator_ != second.operator_


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_pickle_and_clone(kind: type) -> None:
    model = make(kind).fit(DIGITS)
    expected = model.transform(DIGITS)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).transform(DIGITS), expected)
    assert np.array_equal(copy.deepcopy(model).transform(DIGITS), expected)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "n_components_")
    assert np.array_equal(twin.fit_transform(DIGITS), expected)
    if kind is not TruncatedSVD:
        assert len(pickle.dumps(model)) < 1000


# --- scikit-learn's surroundings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_data_frames_and_names(kind: type) -> None:
    frame = pd.DataFrame(DIGITS[:80], columns=[f"pixel {i}" for i in range(64)], index=np.arange(80) + 1000)
    model = make(kind).set_output(transform="pandas")
    Y = model.fit_transform(frame)
    names = [f"{kind.__name__.lower()}{i}" for i in range(5)]
    assert list(Y.columns) == list(model.get_feature_names_out()) == names
    assert list(Y.index) == list(frame.index)
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.n_features_in_ == 64
    # a frame may come in another memory order than the array, and BLAS then adds in another order
    difference = Y.to_numpy() - make(kind).fit_transform(DIGITS[:80])
    assert np.abs(difference).max() <= tolerance(np.float64, 64, np.linalg.norm(DIGITS[:80]))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame.rename(columns={"pixel 0": "other"}))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_grid_search_in_a_pipeline(kind: type) -> None:
    """More components classify better; the search finds that and refits."""
    name = kind.__name__.lower()
    pipeline = make_pipeline(MaxAbsScaler(), make(kind), RidgeClassifier())
    search = GridSearchCV(pipeline, {f"{name}__n_components": [1, 6, 25]}, cv=3).fit(DIGITS, LABELS)
    assert search.best_params_ == {f"{name}__n_components": 25}
    assert np.all(np.diff(search.cv_results_["mean_test_score"]) > 0)
    assert search.best_estimator_[1].n_components_ == 25
    assert search.score(DIGITS, LABELS) > 0.8


class Recorder:
    """A scikit-learn callback that writes down what it is told, and stops after `stop_after` iterations."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.metadata: list[dict[str, Any]] = []
        self.fitted: Any = None
        self.stop_after = stop_after

    def setup(self, estimator: Any, context: Any) -> None:
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, metadata: Any = None, fitted_estimator: Any = None
    ) -> bool:
        self.events.append(("end", context.task_name))
        if metadata:
            self.metadata.append(metadata)
        if fitted_estimator is not None:
            self.fitted = fitted_estimator
        return self.stop_after is not None and len(self.metadata) >= self.stop_after

    def check_balanced(self) -> None:
        """Each task that begins ends, inside its parent, between setup and teardown."""
        assert self.events[0] == ("setup", "fit")
        assert self.events[-1] == ("teardown", "fit")
        open_tasks: list[str] = []
        for event, task in self.events[1:-1]:
            if event == "begin":
                open_tasks.append(task)
            else:
                assert open_tasks.pop() == task
        assert not open_tasks


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_callbacks_are_told(kind: type) -> None:
    recorder = Recorder()
    model = make(kind).set_callbacks(recorder).fit(DIGITS)
    recorder.check_balanced()
    assert np.array_equal(recorder.fitted.transform(DIGITS), model.transform(DIGITS))
    if kind is TruncatedSVD:
        assert [step["n_iter"] for step in recorder.metadata] == list(range(1, model.n_iter_ + 1))
        assert recorder.events.count(("begin", "iteration")) == model.n_iter_ + 1


def test_a_callback_stops_the_fit_and_the_state_is_kept() -> None:
    """Steps past the first one are not done, nothing is warned of, and the fit is usable with its error told."""
    X = np.random.default_rng(0).standard_normal((400, 300))
    full = TruncatedSVD(None, tol=0.01, random_state=0).fit(X)
    recorder = Recorder(stop_after=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stopped = TruncatedSVD(None, tol=0.01, random_state=0).set_callbacks(recorder).fit(X)
    recorder.check_balanced()
    assert len(recorder.metadata) == 1
    assert stopped.n_iter_ < full.n_iter_
    assert stopped.n_components_ < full.n_components_
    residual = X - stopped.inverse_transform(stopped.transform(X))
    true = np.linalg.norm(residual) / np.linalg.norm(X)
    assert stopped.error_ == pytest.approx(true, rel=0.5)
    assert stopped.status_ is not randla.Status.CONVERGED


def test_callbacks_are_torn_down_after_an_error() -> None:
    class Failing(Recorder):
        def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
            raise OSError("disk full")

    recorder = Failing()
    with pytest.raises(OSError, match="disk full"):
        make(TruncatedSVD).set_callbacks(recorder).fit(DIGITS)
    assert recorder.events[-1] == ("teardown", "fit")


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_progress_bar(kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    make(kind).set_callbacks(ProgressBar()).fit(DIGITS[:100])
    assert kind.__name__ in capsys.readouterr().out


# --- projections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_projection_is_its_operator(kind: type, dtype: str) -> None:
    X = DIGITS[:100].astype(dtype)
    model = make(kind, 20).fit(X)
    assert model.operator_.shape == (20, 64)
    expected = X @ model.operator_.toarray().T
    assert np.abs(model.transform(X) - expected).max() <= tolerance(dtype, 64, np.abs(X).max() * 64)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_inverse_is_the_least_norm_solution(kind: type, dtype: str) -> None:
    X = DIGITS[:100].astype(dtype)
    model = make(kind, 20).fit(X)
    Y = model.transform(X)
    rebuilt = model.inverse_transform(Y)
    S = model.operator_.toarray()
    bound = tolerance(dtype, 64, np.linalg.norm(X) * np.linalg.cond(S) ** 2)
    assert np.abs(rebuilt - Y @ np.linalg.pinv(S).T).max() <= bound
    assert np.abs(model.transform(rebuilt) - Y).max() <= bound


def test_inverse_of_a_sparse_operator_with_dependent_rows() -> None:
    """Columns of S with the same or opposite entries make S S' singular; the pseudo-inverse still is one."""
    X = DIGITS[:30, 20:22]
    models = [SparseSignProjection(2, nnz=2, random_state=seed).fit(X) for seed in range(20)]
    ranks = [np.linalg.matrix_rank(model.operator_.toarray()) for model in models]
    assert {1, 2} == set(ranks)
    for model in models:
        Y = model.transform(X)
        assert np.allclose(model.transform(model.inverse_transform(Y)), Y)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_auto_size(kind: type) -> None:
    X = sp.random_array((200, 30_000), density=1e-3, rng=np.random.default_rng(0), format="csr")
    model = kind(epsilon=0.3, random_state=0).fit(X)
    assert model.n_components_ == johnson_lindenstrauss_min_dim(200, eps=0.3) == model.operator_.sketch_size
    with pytest.warns(DataDimensionalityWarning, match="epsilon must be larger .*n_features=64, got 0.1"):
        capped = kind(random_state=0).fit(DIGITS)
    assert capped.n_components_ == 64


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_distances_are_kept(kind: type, seed: int) -> None:
    """Every pair within the distortion of a Gaussian at this false-alarm probability, on dense and on sparse samples.

    For the Gaussian, ||S x||^2 / ||x||^2 is chi-square with k degrees of freedom over k: each tail beyond
    2 sqrt(t / k) + 2 t / k has probability exp(-t) at most (Laurent and Massart 2000, lemma 1), and a union bound over
    both tails of all pairs gives t.  The others are held to the same threshold, more than twice what they reach.
    """
    k, rng = 300, np.random.default_rng(seed)
    scales = np.geomspace(1.0, 100.0, 2000)
    dense = rng.standard_normal((40, 2000)) * scales
    sparse = sp.random_array((40, 2000), density=0.01, rng=rng, format="csr") @ sp.diags_array(scales)
    pairs = 40 * 39 // 2
    t = math.log(2 * pairs / FALSE_ALARM)
    epsilon = 2 * math.sqrt(t / k) + 2 * t / k

    def worst(X: Any, Y: Any) -> float:
        before, after = (pairwise_distances(Z)[np.triu_indices(40, 1)] ** 2 for Z in (X, Y))
        return float(np.abs(after / before - 1).max())

    for X in (dense, sp.csr_array(sparse)):
        assert worst(X, kind(k, random_state=seed).fit_transform(X)) <= epsilon
        # the test of the test: keeping coordinates instead of mixing them is caught
        assert worst(X, X[:, :k] * math.sqrt(2000 / k)) > epsilon


# --- truncated SVD ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["krylov", "subspace"])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_agrees_with_exact_pca_on_digits(method: str, container: Any) -> None:
    exact = decomposition.PCA(10, svd_solver="full").fit(DIGITS)
    model = TruncatedSVD(10, center=True, method=method, random_state=0).fit(container(DIGITS))
    # subspace iteration leaves singular values short by the square of the gap to the power of the iterations
    assert np.allclose(model.singular_values_, exact.singular_values_, rtol=1e-3)
    assert np.allclose(model.explained_variance_, exact.explained_variance_, rtol=2e-3)
    assert np.allclose(model.explained_variance_ratio_, exact.explained_variance_ratio_, rtol=2e-3)
    assert np.allclose(model.mean_, exact.mean_, rtol=0, atol=tolerance(np.float64, len(DIGITS), DIGITS.max()))
    alignment = np.abs(np.sum(model.components_[:5] * exact.components_[:5], axis=1))
    assert np.all(alignment > 1 - 1e-3)
    tail = math.sqrt(1 - exact.explained_variance_ratio_.sum())
    assert tail <= model.error_ * (1 + 1e-9) <= 1.004 * tail * (1 + 1e-9)
    assert model.error_ <= model.error_bound_


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_agrees_with_exact_truncated_svd_on_digits(container: Any) -> None:
    exact = decomposition.TruncatedSVD(10, algorithm="arpack", random_state=0).fit(DIGITS)
    model = TruncatedSVD(10, random_state=0).fit(container(DIGITS))
    n = len(DIGITS)
    assert np.allclose(model.singular_values_, exact.singular_values_, rtol=1e-3)
    assert np.allclose(model.explained_variance_, exact.explained_variance_ * n / (n - 1), rtol=2e-3)
    assert np.allclose(model.explained_variance_ratio_, exact.explained_variance_ratio_, rtol=2e-3)
    assert model.mean_ is None


@pytest.mark.parametrize("center", [False, True])
def test_transform_is_the_product_with_the_components(center: bool, dtype: str) -> None:
    X = low_rank(120, 80, dtype)
    model = TruncatedSVD(6, center=center, random_state=0)
    Y = model.fit_transform(X)
    V = model.components_.T.astype(np.float64)
    shifted = X.astype(np.float64) - (X.mean(axis=0, dtype=np.float64) if center else 0.0)
    assert np.abs(Y - shifted @ V).max() <= tolerance(dtype, 80, np.linalg.norm(X))
    assert np.abs(V.T @ V - np.eye(6)).max() <= tolerance(dtype, 80, 1.0)
    assert np.linalg.norm(model.inverse_transform(Y) - X) <= 1.01 * 2.0**-5 * math.sqrt(4 / 3)
    assert {model.components_.dtype, model.singular_values_.dtype, model.explained_variance_.dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("center", [False, True])
def test_signs_do_not_depend_on_the_key(center: bool) -> None:
    X = low_rank(100, 60)
    models = [TruncatedSVD(4, center=center, random_state=seed).fit(X) for seed in range(5)]
    for model in models:
        V = model.components_
        largest = V[np.arange(4), np.abs(V).argmax(axis=1)]
        assert np.all(largest > 0)
        assert np.all(np.sum(V * models[0].components_, axis=1) > 0.9), "the same vectors, not their opposites"


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("center", [False, True])
def test_tolerance_decides_the_rank(tol: float, center: bool) -> None:
    X = low_rank(150, 100)
    model = TruncatedSVD(None, tol=tol, center=center, random_state=0).fit(X)
    shifted = X - X.mean(axis=0) if center else X
    norm = np.linalg.norm(shifted)
    true = np.linalg.norm(X - model.inverse_transform(model.transform(X))) / norm
    assert true <= tol
    assert model.error_ <= tol
    assert model.error_ / 2 <= true <= 2 * model.error_
    tails = np.sqrt(np.cumsum(np.linalg.svd(shifted, compute_uv=False)[::-1] ** 2)[::-1]) / norm
    least = int(np.sum(tails > tol))
    assert model.n_components_ == model.rank_ == len(model.components_)
    assert model.n_components_ <= 1.3 * least + 5
    assert model.status_ is randla.Status.CONVERGED


def test_a_tolerance_out_of_reach_is_told() -> None:
    X = np.random.default_rng(0).standard_normal((100, 80))
    with pytest.warns(ConvergenceWarning, match=r"Status.MAX_ITER.* at 10 components; raise n_components or tol"):
        model = TruncatedSVD(10, tol=1e-3, random_state=0).fit(X)
    assert model.n_components_ == 10
    assert model.status_ is randla.Status.MAX_ITER
    assert model.error_ > 0.5


def test_constant_and_zero_data() -> None:
    """No variance to explain: zeros and no NaN."""
    for X in (np.zeros((20, 10)), np.full((20, 10), 3.0)):
        model = TruncatedSVD(2, center=True, random_state=0).fit(X)
        assert np.abs(model.explained_variance_).max() <= tolerance(np.float64, 20, 9.0) ** 2
        assert np.all(np.isfinite(model.explained_variance_ratio_))
        assert np.allclose(model.inverse_transform(model.transform(X)), X)


def test_sparse_fit_with_centring_stays_small() -> None:
    """2,000 x 20,000 with 0.1 % nonzeros: dense it would take 320 MB, the factors of rank 10 take 2 MB."""
    X = sp.random_array((2000, 20_000), density=1e-3, rng=np.random.default_rng(0), format="csr")
    TruncatedSVD(10, center=True, random_state=0).fit(X[:50])  # compile first
    tracemalloc.start()
    try:
        Y = TruncatedSVD(10, center=True, random_state=0).fit_transform(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Y.shape == (2000, 10)
    assert peak < 0.15 * 8 * X.shape[0] * X.shape[1]


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_projection_of_sparse_data_stays_small(kind: type) -> None:
    """As above; the SRHT, whose transform needs whole rows, expands a block of them at a time."""
    X = sp.random_array((2000, 20_000), density=1e-3, rng=np.random.default_rng(0), format="csr")
    make(kind, 10).fit_transform(X[:50])
    tracemalloc.start()
    try:
        make(kind, 10).fit_transform(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (0.5 if kind is SRHTProjection else 0.03) * 8 * X.shape[0] * X.shape[1]
