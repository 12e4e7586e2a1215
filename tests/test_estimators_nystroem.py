"""Nystrom features and kernel ridge: scikit-learn's contracts and answers, selections, errors that are true."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import kernel_approximation, kernel_ridge
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.gaussian_process.kernels import Matern
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.utils.estimator_checks import parametrize_with_checks

import randla
from randla.estimators._kernel_ridge import KernelRidgePCG, NystromRidge, default_centers
from randla.estimators._nystroem import Nystroem

from .conftest import tolerance
from .statistics import hoeffding

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS / 16.0
SELECTIONS = ["uniform", "rpcholesky", "ridge_leverage", "kmeans"]

CHECKED = [
    Nystroem(),
    Nystroem(n_components=None, tol=0.1),
    Nystroem(n_components=5, selection="kmeans"),
    Nystroem(n_components=5, selection="ridge_leverage"),
    Nystroem("polynomial", degree=2, selection="rpcholesky"),
    NystromRidge(),
    NystromRidge(kernel="laplacian"),
    KernelRidgePCG(),
]


@pytest.mark.filterwarnings("ignore:n_components must be at most")  # the checks have few samples
@pytest.mark.filterwarnings("ignore:Nystroem ended with Status.MAX_ITER")  # and some set n_components to 1
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn, none of them expected to fail."""
    check(estimator)


# --- features ---------------------------------------------------------------------------------------------------------


def two_clusters(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([0.05 * rng.standard_normal((950, 3)), 3 + rng.standard_normal((50, 3))])


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_matrix])
def test_features_reproduce_the_nystrom_approximation(selection: str, container: Any, dtype: str) -> None:
    X = DIGITS[:300].astype(dtype)
    model = Nystroem(gamma=0.05, n_components=40, selection=selection, random_state=0)
    Z = model.fit_transform(container(X))
    assert isinstance(Z, np.ndarray)
    assert Z.shape == (300, 40)
    assert Z.dtype == dtype
    S = model.components_.toarray() if sp.issparse(model.components_) else model.components_
    if selection == "kmeans":
        assert model.component_indices_ is None
    else:
        assert np.array_equal(S, X[model.component_indices_])
        assert len(np.unique(model.component_indices_)) == 40
    C, W = (pairwise_kernels(A, S.astype(float), metric="rbf", gamma=0.05) for A in (X.astype(float), S.astype(float)))
    # what the features lose: rounding of the kernel values times the condition number of the triangular factor
    condition = np.linalg.cond(W) ** 0.5
    expected = C @ np.linalg.solve(W, C.T)
    assert np.abs(Z @ Z.T - expected).max() <= tolerance(dtype, 300) * condition**2
    assert np.allclose(pairwise_kernels(X, S, gamma=0.05, metric="rbf") @ model.normalization_.T, Z,
                       atol=tolerance(dtype, 40) * condition**2)  # fmt: skip
    assert np.array_equal(model.normalization_, np.tril(model.normalization_))
    assert np.abs(model.transform(container(X)) - Z).max() <= tolerance(dtype, 40) * condition**2


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "poly", "linear", "cosine", "chi2"])
def test_kernels_are_those_of_scikit_learn(kernel: str) -> None:
    """With all samples as components the inner products are the kernel."""
    X = DIGITS[:60] + 0.1
    options = {"gamma": 0.01} if kernel in ("rbf", "laplacian", "chi2", "poly") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Z = Nystroem(kernel, n_components=60, random_state=0, **options).fit_transform(X)
    K = pairwise_kernels(X, metric=kernel, **options)
    assert np.abs(Z @ Z.T - K).max() < 1e-7 * np.abs(K).max()
    theirs = kernel_approximation.Nystroem(kernel, n_components=60, random_state=0, **options).fit_transform(X)
    assert np.abs(Z @ Z.T - theirs @ theirs.T).max() < 1e-4 * np.abs(K).max()


def test_a_kernel_with_negative_eigenvalues_is_refused() -> None:
    with pytest.raises(ValueError, match="positive semidefinite"):
        Nystroem("sigmoid", gamma=0.01, n_components=60, random_state=0).fit(DIGITS[:60])


def test_kernels_beyond_scikit_learns() -> None:
    X = DIGITS[:60]
    for name, nu in (("matern32", 1.5), ("matern52", 2.5)):
        Z = Nystroem(name, gamma=0.5, n_components=60, random_state=0).fit_transform(X)
        assert np.abs(Z @ Z.T - Matern(length_scale=2.0, nu=nu)(X)).max() < 1e-7
        with pytest.raises(TypeError, match="dense for kernel"):
            Nystroem(name, n_components=10).fit(sp.csr_array(X))


def test_callable_and_precomputed_kernels() -> None:
    X = DIGITS[:80]

    def product(x: np.ndarray, y: np.ndarray, power: float = 1.0) -> float:
        return float(x @ y) ** power

    Z = Nystroem(product, n_components=20, kernel_params={"power": 2.0}, random_state=0).fit_transform(X)
    K = (X @ X.T) ** 2
    model = Nystroem("precomputed", n_components=20, random_state=0).fit(K)
    assert np.array_equal(model.components_, K[model.component_indices_])
    Y = model.transform(K)
    assert np.abs(Z @ Z.T - Y @ Y.T).max() < 1e-7 * K.max()
    assert np.abs(model.transform(K[:7]) - Y[:7]).max() <= tolerance("float64", 20, 1e3 * np.abs(Y).max())
    with pytest.raises(ValueError, match="gamma must be None"):
        Nystroem("precomputed", gamma=1.0).fit(K)


def test_a_tolerance_takes_as_many_components_as_it_needs() -> None:
    ranks = []
    for tol in (0.3, 0.1, 0.01):
        model = Nystroem(gamma=0.05, n_components=None, tol=tol, random_state=0)
        Z = model.fit_transform(DIGITS)
        assert 1 - np.sum(Z**2) / len(Z) <= tol
        assert model.error_ == pytest.approx(1 - np.sum(Z**2) / len(Z), abs=1e-9)
        assert model.error_kind_ == "exact"
        ranks.append(model.n_components_)
    assert ranks[0] < ranks[1] < ranks[2] < len(DIGITS)
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        Nystroem(gamma=0.05, n_components=5, tol=1e-3, random_state=0).fit(DIGITS)


def test_the_sampled_error_is_near_the_true_one() -> None:
    for selection in ("uniform", "ridge_leverage", "kmeans"):
        model = Nystroem(gamma=0.05, n_components=30, selection=selection, random_state=0)
        Z = model.fit_transform(DIGITS)
        left = 1 - np.sum(Z**2, axis=1)
        assert model.error_kind_ == "sampled"
        # entries of the diagonal that is left lie in [0, its largest], and 256 distinct rows vary less than draws
        assert abs(model.error_ - left.mean()) <= hoeffding(256, left.max())
    small = Nystroem(gamma=0.05, n_components=30, random_state=0)
    Z = small.fit_transform(DIGITS[:200])
    assert small.error_kind_ == "exact"
    assert small.error_ == pytest.approx(1 - np.sum(Z**2) / 200, rel=1e-9)


def test_rpcholesky_sees_the_small_cluster() -> None:
    X = two_clusters()
    errors = {
        how: Nystroem(gamma=1.0, n_components=30, selection=how, random_state=0).fit(X).error_ for how in SELECTIONS
    }
    assert errors["rpcholesky"] < 0.5 * errors["uniform"]
    assert errors["ridge_leverage"] < 0.7 * errors["uniform"]


def test_dependent_samples_do_no_harm() -> None:
    X = np.repeat(DIGITS[:20], 5, axis=0)
    K = pairwise_kernels(X, metric="rbf", gamma=0.05)
    for selection in SELECTIONS:
        Z = Nystroem(gamma=0.05, n_components=100, selection=selection, random_state=0).fit_transform(X)
        assert np.abs(Z @ Z.T - K).max() < 1e-6


def test_too_many_components_are_lowered_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="n_components must be at most n_samples=30"):
        model = Nystroem(n_components=31, random_state=0).fit(DIGITS[:30])
    assert model.n_components_ == 30
    assert len(model.get_feature_names_out()) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "gauss"}, "kernel must be one of"),
        ({"selection": "best"}, "selection must be one of"),
        ({"selection": "uniform", "tol": 0.1}, 'selection must be "rpcholesky" with a tol'),
        ({"kernel": "precomputed", "selection": "kmeans"}, "selection must choose samples"),
        ({"n_components": None}, "n_components must be an integer without a tol"),
        ({"n_components": 0}, "n_components must be at least 1"),
        ({"tol": 1.0}, "tol must be"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"random_state": "seed"}, "random_state"),
    ],
)
def test_bad_parameters_of_features(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Nystroem(**options).fit(np.eye(20))


def test_clones_pickles_and_seeds() -> None:
    for selection in SELECTIONS:
        model = Nystroem(gamma=0.05, n_components=20, selection=selection, random_state=3)
        Z = model.fit(DIGITS).transform(DIGITS[:50])
        assert np.array_equal(pickle.loads(pickle.dumps(model)).transform(DIGITS[:50]), Z)
        assert np.array_equal(clone(model).fit(DIGITS).transform(DIGITS[:50]), Z)
        with pytest.raises(NotFittedError):
            clone(model).transform(DIGITS)


# --- regression -------------------------------------------------------------------------------------------------------


def regression(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (n, 3))
    return X, np.sin(3 * X[:, 0]) * X[:, 1] + 0.01 * rng.standard_normal(n)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "poly", "chi2"])
def test_kernel_ridge_is_that_of_scikit_learn(kernel: str, weighted: bool) -> None:
    X, y = regression()
    X = X + 1.0 if kernel == "chi2" else X
    weights = np.random.default_rng(1).uniform(0, 2, len(y)) if weighted else None
    options = {"alpha": 0.1, "kernel": kernel, "gamma": 0.7}
    theirs = kernel_ridge.KernelRidge(**options).fit(X, y, sample_weight=weights).predict(X)
    ours = KernelRidgePCG(**options, tol=1e-9, random_state=0).fit(X, y, sample_weight=weights)
    assert np.linalg.norm(ours.predict(X) - theirs) < 1e-6 * np.linalg.norm(theirs)
    every = NystromRidge(**options, n_centers=len(y), random_state=0).fit(X, y, sample_weight=weights)
    assert np.linalg.norm(every.predict(X) - theirs) < 1e-5 * np.linalg.norm(theirs)
    assert ours.n_iter_ == len(ours.history_)


@pytest.mark.parametrize("centers", ["rpcholesky", "uniform", "ridge_leverage", "kmeans"])
@pytest.mark.parametrize("solver", ["auto", "krill", "falkon", "direct"])
def test_few_centers_fit_nearly_as_well(centers: str, solver: str) -> None:
    X, y = regression(2000)
    model = NystromRidge(1e-2, gamma=0.7, n_centers=100, centers=centers, solver=solver, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.99
    assert model.dual_coef_.shape == (100,)
    assert model.centers_.shape == (100, 3)
    assert (model.center_indices_ is None) == (centers == "kmeans")
    assert np.isnan(model.trace_error_) == (centers != "rpcholesky")
    assert model.status_ is randla.Status.CONVERGED
    reference = NystromRidge(1e-2, gamma=0.7, n_centers=100, centers=centers, solver="direct", random_state=0)
    off = np.linalg.norm(model.predict(X) - reference.fit(X, y).predict(X))
    assert off <= (model.error_ + reference.error_ + 1e-9) * np.linalg.norm(y)


@pytest.mark.parametrize("kind", [KernelRidgePCG, NystromRidge])
def test_targets_containers_and_dtypes(kind: type, dtype: str) -> None:
    X, y = regression(150)
    X, Y = X.astype(dtype), np.stack([y, -2 * y], axis=1).astype(dtype)
    model = kind(0.1, gamma=0.7, random_state=0).fit(X, Y)
    P = model.predict(X)
    assert P.shape == (150, 2)
    assert P.dtype == model.dual_coef_.dtype == dtype
    assert np.shape(model.error_) == (2,)
    small = 1e-3 if dtype == "float32" else 1e-5
    assert np.linalg.norm(P[:, 1] + 2 * P[:, 0]) < small * np.linalg.norm(P)
    for container in (sp.csr_array, sp.csc_matrix, np.asfortranarray):
        other = kind(0.1, gamma=0.7, random_state=0).fit(container(X), Y)
        assert np.linalg.norm(other.predict(X) - P) < small * np.linalg.norm(P)
        assert np.linalg.norm(model.predict(container(X)) - P) < small * np.linalg.norm(P)
    K = pairwise_kernels(X, metric="rbf", gamma=0.7).astype(dtype)
    given = kind(0.1, kernel="precomputed", random_state=0).fit(K, Y)
    assert np.linalg.norm(given.predict(K) - P) < small * np.linalg.norm(P)


def test_weights_of_zero_leave_samples_out() -> None:
    X, y = regression(120)
    weights = np.r_[np.ones(80), np.zeros(40)]
    for kind in (KernelRidgePCG, NystromRidge):
        model = kind(0.1, random_state=0).fit(X, y, sample_weight=weights)
        assert model.center_indices_.max() < 80
        part = kind(0.1, random_state=0).fit(X[:80], y[:80])
        assert np.array_equal(model.predict(X), part.predict(X))
        with pytest.raises(ValueError, match="at least one non-zero"):
            kind().fit(X, y, sample_weight=np.zeros(120))


def test_what_does_not_converge_warns() -> None:
    X, y = regression()
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        KernelRidgePCG(1e-6, gamma=2.0, rank=1, max_iter=2, random_state=0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        NystromRidge(1e-6, gamma=2.0, n_centers=50, solver="falkon", max_iter=2, random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NystromRidge(alpha=-1), "alpha must be"),
        (KernelRidgePCG(alpha=0), "alpha must be"),
        (NystromRidge(n_centers=0), "n_centers must be"),
        (NystromRidge(centers="all"), "centers must be one of"),
        (NystromRidge(solver="pcg"), "solver must be one of"),
        (NystromRidge(kernel="precomputed", centers="kmeans"), "centers must be samples"),
        (NystromRidge(kernel="gauss"), "kernel must be one of"),
        (KernelRidgePCG(rank=-1), "rank must be"),
        (KernelRidgePCG(tol=0), "tol must be"),
    ],
)
def test_bad_parameters_of_regression(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(np.eye(20), np.ones(20))


def test_default_number_of_centers() -> None:
    assert [default_centers(n) for n in (1, 50, 10_000)] == [1, 50, 922]
