"""Nuclear-norm completion: the optimum of independent methods, a gap that bounds the distance to it, and paths."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from randla import (
    ConvergenceError,
    ConvergenceWarning,
    SoftImpute,
    Status,
    altmin_completion,
    soft_impute,
    soft_impute_path,
)
from randla._arrays import to_host
from randla._random import as_key
from randla.completion.nuclear import Problem, Triplets, refitted
from randla.completion.observations import as_observations
from randla.completion.results import CompletionStep

from .conftest import tolerance

METHODS = ("auto", "als", "svd")


def noisy(m: int = 60, n: int = 50, k: int = 3, share: float = 0.5, noise: float = 0.3, seed: int = 0) -> Any:
    """A matrix of rank k, and what is seen of it with noise: NaN elsewhere."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
    return A, np.where(rng.random((m, n)) < share, A + noise * rng.standard_normal((m, n)), np.nan)


def top(X: np.ndarray) -> float:
    return float(np.linalg.norm(np.nan_to_num(X), 2))


def objective(X: np.ndarray, Z: np.ndarray, reg: float) -> float:
    return 0.5 * float(np.nansum((X - Z) ** 2)) + reg * float(np.linalg.svd(Z, compute_uv=False).sum())


def proximal(X: np.ndarray, reg: float) -> np.ndarray:
    """The minimiser by dense accelerated proximal gradients with restarts, written without anything of the library."""
    seen, Y = ~np.isnan(X), np.nan_to_num(X)
    Z = W = np.zeros_like(Y)
    t, last = 1.0, math.inf
    for _ in range(20_000):
        U, s, Vh = np.linalg.svd(W + seen * (Y - W), full_matrices=False)
        new = (U * np.maximum(s - reg, 0)) @ Vh
        value = objective(X, new, reg)
        if value > last and t > 1.0:
            W, t, last = Z, 1.0, math.inf
            continue
        step = (1 + math.sqrt(1 + 4 * t * t)) / 2
        W, Z, t = new + (t - 1) / step * (new - Z), new, step
        if last - value <= 1e-13 * value:
            break
        last = value
    return Z


def fit(X: Any, reg: float, **options: Any) -> Any:
    return soft_impute(X, reg, **{"rng": 0, "on_failure": "ignore", **options})


# --- the optimum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.5, 0.1, 0.05])
def test_optimum_of_an_independent_method(method: str, share: float) -> None:
    """Objectives agree to the gap, in fact to far less, ranks are equal, and the certificate holds."""
    _, X = noisy(40, 30)
    reg = share * top(X)
    Z, result = proximal(X, reg), fit(X, reg, method=method, tol=1e-6, max_iter=1000)
    least = objective(X, Z, reg)
    assert result.status is Status.CONVERGED
    assert result.objective == pytest.approx(objective(X, result.to_dense(), reg), rel=1e-9)
    assert result.objective - least <= result.gap * result.objective + tolerance("float64", X.size, least)
    assert result.objective - least >= -1e-9 * least
    assert result.objective == pytest.approx(least, rel=1e-6)
    assert result.rank == np.linalg.matrix_rank(Z)
    assert np.linalg.norm(result.to_dense() - Z) <= 1e-3 * np.linalg.norm(Z)
    assert 0 <= result.gap <= 1e-6
    assert result.gap_bound >= result.gap


def test_gap_bounds_what_is_left_on_the_way() -> None:
    """At each stage: the excess of the objective, and the distance of the fitted values, against the true minimum."""
    _, X = noisy(30, 25, 2, 0.5)
    reg, seen = 0.05 * top(X), ~np.isnan(X)
    Z = proximal(X, reg)
    least = objective(X, Z, reg)
    for method in ("als", "svd"):
        for steps in (0, 1, 2, 4, 8, 16):
            result = fit(X, reg, method=method, tol=1e-12, max_iter=steps)
            assert result.objective - least <= result.gap * result.objective * (1 + 1e-9)
            assert result.gap <= result.gap_bound
            apart = np.linalg.norm((result.to_dense() - Z)[seen])
            assert apart <= math.sqrt(2 * result.gap * result.objective) * (1 + 1e-6)
            assert not result.converged


def test_optimality_conditions() -> None:
    """U^T R V = reg I and no singular value of the residuals above reg."""
    _, X = noisy()
    result = fit(X, 3.0, tol=1e-7, max_iter=1000)
    R = np.nan_to_num(X - result.to_dense())
    assert np.linalg.norm(R, 2) == pytest.approx(3.0, rel=1e-5)
    assert result.residual_norm == pytest.approx(1.0, rel=1e-5)
    assert np.allclose(result.U.T @ R @ result.Vh.T, 3.0 * np.eye(result.rank), atol=1e-3)
    assert np.allclose(result.U.T @ result.U, np.eye(result.rank), atol=tolerance("float64", 60, 10))
    assert np.allclose((result.U * result.s) @ result.Vh, result.to_dense(), atol=tolerance("float64", 60, 100))
    assert np.allclose(result.singular_values(), result.s)


@pytest.mark.parametrize("reg", [pytest.param(2.0, marks=pytest.mark.slow), 6.0])
def test_ridge_factors_have_the_same_minimum(reg: float) -> None:
    """At a rank that is large enough; objectives agree to 1e-6 and completions to 1e-3."""
    _, X = noisy()
    soft = fit(X, reg, tol=1e-7, max_iter=1000)
    ridge = altmin_completion(X, soft.rank + 3, reg=reg, tol=1e-10, max_iter=3000, rng=0, on_failure="ignore")
    assert ridge.objective / 2 == pytest.approx(soft.objective, rel=1e-6)
    assert np.linalg.norm(ridge.to_dense() - soft.to_dense()) <= 1e-3 * np.linalg.norm(soft.to_dense())


def test_above_the_spectral_norm_it_is_zero() -> None:
    _, X = noisy()
    result = fit(X, 1.0001 * top(X), tol=1e-3)
    assert result.rank == 0
    assert result.status is Status.CONVERGED
    assert not result.to_dense().any()
    assert result.predict([1, 2], [3, 4]).tolist() == [0.0, 0.0]
    below = fit(X, 0.98 * top(X), tol=1e-4)
    assert below.rank == 1


def test_many_directions_at_once() -> None:
    """An identity has all its singular values at one: the rank grows from nothing to all of them."""
    result = fit(sp.csr_array(sp.eye_array(40)), 0.5, tol=1e-6)
    assert result.status is Status.CONVERGED
    dense = fit(np.eye(40), 0.5, tol=1e-6)
    assert dense.rank == 40
    assert np.allclose(dense.to_dense(), 0.5 * np.eye(40), atol=1e-3)


def test_rank_limits_are_told() -> None:
    _, X = noisy()
    free = fit(X, 2.0, tol=1e-5)
    held = fit(X, 2.0, max_rank=2, tol=1e-5)
    assert free.rank > 2 == held.rank
    assert held.status is Status.MAX_ITER
    assert held.residual_norm > 1.01
    assert held.objective > free.objective
    # the best of rank 2 is a stationary point of the factors
    ridge = altmin_completion(X, 2, reg=2.0, tol=1e-9, max_iter=500, rng=0, on_failure="ignore")
    assert held.objective == pytest.approx(ridge.objective / 2, rel=1e-4)


def test_warm_starts_save_sweeps() -> None:
    _, X = noisy()
    cold, near = fit(X, 2.0, tol=1e-5), fit(X, 2.05, tol=1e-5)
    warm = fit(X, 2.0, tol=1e-5, init=near)
    assert warm.n_iter < cold.n_iter
    assert warm.objective == pytest.approx(cold.objective, rel=1e-5)
    assert fit(X, 2.0, tol=1e-5, init=cold).n_iter == 0


def test_debiasing_takes_the_shrinkage_back() -> None:
    A, X = noisy(noise=0.01)
    plain, debiased = fit(X, 4.0), fit(X, 4.0, debias=True)
    errors = [np.linalg.norm(result.to_dense() - A) / np.linalg.norm(A) for result in (plain, debiased)]
    assert errors[1] < 0.6 * errors[0]
    assert np.all(np.diff(debiased.s) <= 0)
    assert np.allclose(debiased.shrunk_s, plain.s)
    assert debiased.error < plain.error
    assert debiased.objective == plain.objective


def test_refitted_singular_values_are_least_squares() -> None:
    _, X = noisy()
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((side, 4)))[0] for side in X.shape)
    seen = ~np.isnan(X)
    design = np.stack([np.outer(U[:, j], V[:, j])[seen] for j in range(4)], axis=1)
    signs = np.sign(np.linalg.lstsq(design, X[seen])[0])
    found, before = refitted(as_observations(X), Triplets(U * signs, np.array([4.0, 3.0, 2.0, 1.0]), V))
    expected = np.abs(np.linalg.lstsq(design, X[seen])[0])
    assert np.allclose(found.s, np.sort(expected)[::-1])
    assert np.allclose(before, np.array([4.0, 3.0, 2.0, 1.0])[np.argsort(-expected)])
    flipped, _ = refitted(as_observations(X), Triplets(U * signs * np.array([1, -1, 1, 1]), np.ones(4), V))
    assert flipped.rank < 4  # what fits with the wrong sign is left out
    assert np.all(flipped.s >= 0)


# --- order, scale, storage --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_order_and_sides_do_not_matter() -> None:
    _, X = noisy()
    base = fit(X, 2.0, tol=1e-6, max_iter=1000)
    rows, cols = np.random.default_rng(1).permutation(60), np.random.default_rng(2).permutation(50)
    turned = fit(X[rows][:, cols], 2.0, tol=1e-6, max_iter=1000)
    other = fit(X.T, 2.0, tol=1e-6, max_iter=1000)
    assert turned.objective == pytest.approx(base.objective, rel=1e-6)
    assert other.objective == pytest.approx(base.objective, rel=1e-6)
    assert np.linalg.norm(turned.to_dense() - base.to_dense()[rows][:, cols]) <= 1e-2
    assert np.linalg.norm(other.to_dense() - base.to_dense().T) <= 1e-2


@pytest.mark.parametrize("scale", [2.0**-66, 2.0**66])
def test_scales_do_not_matter(scale: float) -> None:
    """About 1e-20 and 1e20; powers of two, so that rounding does not take the steps apart."""
    _, X = noisy()
    base, other = fit(X, 2.0), fit(scale * X, 2.0 * scale)
    assert other.n_iter == base.n_iter
    assert np.abs(other.to_dense() / scale - base.to_dense()).max() <= 1e-6


def test_sparse_input_and_int64_indices() -> None:
    _, X = noisy()
    X[0, :4] = 0.0
    rows, cols = np.nonzero(~np.isnan(X))
    S = sp.coo_array((X[rows, cols], (rows, cols)), shape=X.shape)
    wide = sp.csr_array(S)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    dense = fit(X, 2.0)
    for other in (S, S.tocsc(), wide):
        assert np.abs(fit(other, 2.0).to_dense() - dense.to_dense()).max() <= 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_namespaces_and_dtypes(put: Any, dtype: str, method: str) -> None:
    _, X = noisy(14, 12, 1, 0.8)
    host = fit(X, 1.0, method=method, tol=1e-3)
    result = fit(put(X.astype(dtype)), 1.0, method=method, tol=1e-3, debias=True)
    assert to_host(result.row_factors).dtype == dtype
    assert result.converged
    assert result.objective == pytest.approx(host.objective, rel=2e-3)


def test_equal_keys_give_equal_results() -> None:
    _, X = noisy()
    assert np.array_equal(fit(X, 2.0, rng=4).row_factors, fit(X, 2.0, rng=4).row_factors)


# --- edges ------------------------------------------------------------------------------------------------------------


def test_rows_without_entries_constant_rows_and_zeros() -> None:
    _, X = noisy()
    X[9], X[5], X[:, 7] = 2.0, np.nan, np.nan
    for method in METHODS:
        result = fit(X, 2.0, method=method)
        assert result.converged
        assert np.abs(result.to_dense()[5]).max() <= 1e-9
        assert np.abs(result.to_dense()[:, 7]).max() <= 1e-9
    zero = fit(np.zeros((4, 3)), 1.0)
    assert zero.status is Status.CONVERGED
    assert zero.gap == zero.objective == 0.0
    one = fit(np.array([[5.0]]), 2.0, tol=1e-9)
    assert one.to_dense()[0, 0] == pytest.approx(3.0)


def test_limits_callbacks_and_failures() -> None:
    _, X = noisy()
    seen: list[CompletionStep] = []
    result = fit(X, 0.5, callback=lambda step: seen.append(step) or step.n_iter == 2)
    assert [step.n_iter for step in seen] == [1, 2]
    assert [step.objective for step in seen] == list(result.history)
    assert len(result.gap_history) == 2
    assert result.status is Status.MAX_ITER
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        assert not soft_impute(X, 0.5, max_iter=0, rng=0).converged
    with pytest.raises(ConvergenceError):
        soft_impute(X, 0.5, max_iter=1, rng=0, on_failure="raise")
    # no gap is below the rounding of the objective
    assert fit(X, 5.0, tol=1e-18, max_iter=2000).status is Status.STAGNATED
    assert fit(1e200 * X, 1.0).status is Status.NONFINITE
    assert fit((1e37 * X).astype("float32"), 1e37, method="svd").status is Status.NONFINITE  # products overflow


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "reg must be finite and in", {"reg": 0.0}),
        (TypeError, "reg must be a real number", {"reg": "strong"}),
        (ValueError, "max_rank must be at least 1", {"max_rank": 0}),
        (ValueError, "method must be one of", {"method": "admm"}),
        (ValueError, "tol must be finite and in", {"tol": 0.0}),
        (ValueError, "max_iter must be at least 0", {"max_iter": -1}),
        (ValueError, "on_failure must be one of", {"on_failure": "no"}),
        (ValueError, "X must have observed entries", {"X": np.full((4, 3), np.nan)}),
        (ValueError, "X must have no infinite entry", {"X": np.full((4, 3), np.inf)}),
        (ValueError, "X must store each entry once", {"X": sp.coo_array((np.ones(2), ([0, 0], [1, 1])), shape=(4, 3))}),
        (ValueError, "X must have entries whose squares", {"X": np.full((4, 3), 1e-150)}),
        (TypeError, "X must be real", {"X": np.ones((4, 3)) * 1j}),
    ],
)
def test_bad_input(error: type, match: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        soft_impute(**{"X": np.arange(12.0).reshape(4, 3), "reg": 1.0, **options})


def test_starts_must_fit() -> None:
    _, X = noisy()
    with pytest.raises(ValueError, match="init must hold real factors with 60 and 49 rows"):
        fit(X[:, 1:], 1.0, init=fit(X, 1.0))


def test_gap_of_a_wrong_norm_is_seen() -> None:
    """The test of the test: a certificate that took the residuals for smaller than they are would be broken."""
    _, X = noisy()
    problem = Problem(as_observations(X), as_key(0))
    look = problem.look(problem.zero(), 0.1 * top(X), np.random.default_rng(0).standard_normal((50, 50)))
    least = objective(X, proximal(X, 0.1 * top(X)), 0.1 * top(X))
    honest = problem.gap(look.residuals, look.objective, look.rss, top(X), 0.1 * top(X))
    assert look.norm == pytest.approx(top(X), rel=1e-2)
    assert look.objective - least <= honest * look.objective
    assert look.objective - least > problem.gap(look.residuals, look.objective, look.rss, 0.0, 0.1 * top(X)) * least


# --- paths ------------------------------------------------------------------------------------------------------------


def test_path_falls_to_the_noise_and_chooses_within_one_standard_error() -> None:
    A, X = noisy(80, 60, 3, 0.5)
    path = soft_impute_path(X, n_iter_no_change=None, n_regs=7, reg_ratio=1e-2, debias=True, rng=0)
    assert path.status is Status.CONVERGED
    assert len(path.regs) == len(path.results) == 7
    assert path.regs[0] / path.regs[-1] == pytest.approx(100)
    assert path.results[0].rank == 0
    assert path.ranks[0] <= path.ranks[path.best] <= path.ranks[-1]
    assert path.best == int(np.argmin(path.validation_errors))
    assert path.chosen <= path.best
    assert path.validation_errors[path.chosen] <= path.validation_bounds[path.best]
    assert all(error > path.validation_bounds[path.best] for error in path.validation_errors[: path.chosen])
    assert path.result.reg == path.regs[path.chosen]
    assert np.linalg.norm(path.result.to_dense() - A) < 0.2 * np.linalg.norm(A)
    assert next(iter(path)) is path.result
    # the held-out error of the noise is 0.3 and cannot fall below it but by chance: 240 entries, six standard errors
    assert min(path.validation_errors) > 0.3 * (1 - 6 / math.sqrt(2 * 240))


def test_path_stops_when_errors_rise_and_equals_single_fits() -> None:
    _, X = noisy()
    path = soft_impute_path(X, n_regs=20, rng=0)
    assert len(path.regs) < 20
    assert len(path.regs) == path.best + 4
    single = fit(X, path.result.reg, tol=1e-4)
    assert path.result.objective == pytest.approx(single.objective, rel=1e-4)
    whole = soft_impute_path(X, [1.0, 30.0, 5.0], validation_fraction=0.0, rng=0)
    assert whole.regs == (30.0, 5.0, 1.0)
    assert whole.validation_errors == ()
    assert whole.chosen == 2
    stopped = soft_impute_path(X, rng=0, callback=lambda step: step.n_iter == 2)
    assert len(stopped.regs) == 2
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        soft_impute_path(X, [0.1], max_iter=1, rng=0)


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("regs must have a penalty", {"regs": []}),
        ("regs must be finite and in", {"regs": [1.0, 0.0]}),
        ("n_regs must be at least 2", {"n_regs": 1}),
        ("reg_ratio must be finite and in", {"reg_ratio": 1.0}),
        ("validation_fraction must be finite and in", {"validation_fraction": 1.0}),
        ("n_iter_no_change must be at least 1", {"n_iter_no_change": 0}),
        ("X must have an observed entry that is not zero", {"X": np.zeros((4, 3))}),
        ("method must be one of", {"method": "admm"}),
    ],
)
def test_bad_input_of_paths(match: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=match):
        soft_impute_path(**{"X": np.arange(12.0).reshape(4, 3), **options})


# --- the estimator ----------------------------------------------------------------------------------------------------

PLACES = "predict takes rows and columns of the fitted matrix, and the check calls it with data"
#: Checks that cannot pass, with the reason.  All of them pass where `predict` is hidden.
EXPECTED = dict.fromkeys(
    [
        "check_estimators_unfitted",
        "check_n_features_in_after_fitting",
        "check_estimators_dtypes",
        "check_dtype_object",
        "check_estimator_sparse_array",
        "check_estimator_sparse_matrix",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_dict_unchanged",
        "check_fit_idempotent",
        "check_fit2d_predict1d",
    ],
    PLACES,
)


class Transformer(SoftImpute):
    """Without `predict`, all that is left is a transformer like others."""

    def __getattribute__(self, name: str) -> Any:
        if name == "predict":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SoftImpute ended with Status.MAX_ITER")  # some checks have a rank of 1
@parametrize_with_checks([SoftImpute()], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn but those above."""
    check(estimator)


@parametrize_with_checks([Transformer()])
def test_scikit_learn_contract_of_the_transformer(estimator: Any, check: Any) -> None:
    """Every check of scikit-learn where `predict` is hidden, none of them expected to fail."""
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SoftImpute ended with Status.MAX_ITER")
@parametrize_with_checks([Transformer(0.1, debias=True), Transformer(max_rank=1, method="svd")])
def test_scikit_learn_contract_of_other_parameters(estimator: Any, check: Any) -> None:
    """The same for a debiased fit and for a rank limit, where the fit may end before its tolerance."""
    check(estimator)


@pytest.mark.parametrize("debias", [False, True])
def test_training_rows_are_filled_with_fitted_values(debias: bool, dtype: str) -> None:
    _, X = noisy()
    X = X.astype(dtype)
    model = SoftImpute(2.0, tol=1e-6 if dtype == "float64" else 1e-4, debias=debias, random_state=0)
    filled, seen = model.fit_transform(X), ~np.isnan(X)
    assert filled.dtype == dtype
    assert np.array_equal(filled[seen], X[seen])
    fitted = model.result_.to_dense()
    assert np.abs((filled - fitted)[~seen]).max() < 0.05
    assert np.array_equal(model.predict([1, 2], [3, 4]), model.result_.predict([1, 2], [3, 4]))
    assert np.allclose(fitted, model.row_factors_ @ model.components_, atol=tolerance(dtype, 60, 100))
    assert model.components_.shape == (model.rank_, 50)
    assert model.singular_values_.shape == (model.rank_,)
    assert model.objective_ == model.result_.objective
    assert model.gap_ <= model.gap_bound_
    assert model.error_ == model.result_.error
    assert model.status_ is Status.CONVERGED
    assert list(model.get_feature_names_out(np.array([f"c{j}" for j in range(50)]))) == [f"c{j}" for j in range(50)]
    assert np.array_equal(pickle.loads(pickle.dumps(model)).transform(X[:3]), filled[:3])


def test_sparse_and_dense_input_of_the_estimator_agree_and_scores_are_of_places() -> None:
    A, X = noisy()
    rows, cols = np.nonzero(~np.isnan(X))
    S = sp.csr_array((X[rows, cols], (rows, cols)), shape=X.shape)
    dense, sparse = SoftImpute(2.0, random_state=0).fit(X), SoftImpute(2.0, random_state=0).fit(S)
    assert np.allclose(sparse.transform(S), dense.transform(X))
    hidden = np.where(np.isnan(X), A, np.nan)
    errors = (dense.result_.to_dense() - A)[np.isnan(X)]
    assert dense.score(hidden) == pytest.approx(-math.sqrt(np.mean(errors**2)))
    assert math.isnan(dense.score(np.full_like(X, np.nan)))
    with pytest.raises(ValueError, match="X must have the shape"):
        dense.score(X[:5])
    new = noisy(5, 50, 3, 0.6, seed=9)[1]
    assert np.isfinite(clone(dense).fit(X).transform(new)).all()


def test_unfinished_fits_warn_and_unfitted_ones_have_no_attributes() -> None:
    _, X = noisy()
    with pytest.warns(SklearnConvergenceWarning, match="MAX_ITER"):
        SoftImpute(0.1, max_iter=1, random_state=0).fit(X)
    assert not hasattr(SoftImpute(), "components_")
