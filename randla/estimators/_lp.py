"""Regression in the l_p norm, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._checks import check_integer
from ..regression.lp import LpResult, lp_regression
from ._base import FLOATS, key_of
from ._callbacks import Steps


class LpRegressor(CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Fit a linear model in the l_p norm of its residuals: least absolute deviations at p = 1.

    Finds the w and c that minimise ``sum_i |x_i w + c - y_i|**p``.  Rows are sampled by importance, the small problem
    is solved, and a few steps on all rows remove the sampling error; how far the fit can be from the best is proved
    and told.  Without outliers p = 2 is more precise; with them p = 1 hardly notices.

    Parameters
    ----------
    p : float, 1 <= p < inf, default 1
        The norm.
    n_samples : int or None, default None
        Expected rows of the sample; None leaves the choice to :func:`randla.lp_regression`.
    scores : {"lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform"}, default "lewis"
        How rows are sampled.
    polish : int, default 3
        Largest number of steps on all rows.
    tol : float or None, default 1e-6
        Wanted relative excess of the norm over the least possible one; None asks for nothing.
    fit_intercept : bool, default True
        Fit the constant c.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the sample.  An int gives the same fit at every call; a RandomState or a Generator is consumed.

    Attributes
    ----------
    coef_ : array, shape (n_features,)
        The coefficients w.
    intercept_ : float
        The constant c, 0.0 without `fit_intercept`.
    sample_indices_ : array, shape (n_kept,), int64
        Rows that the sample kept.
    objective_ : float
        The norm of the residuals, with the sample weights.
    excess_bound_ : float
        The norm is at most ``1 + excess_bound_`` times the least possible one; proved, up to rounding.
    n_iter_ : int
        Steps done on all rows.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.lp_regression : the function behind.
    sklearn.linear_model.QuantileRegressor : p = 1 as one linear program on all rows, with other quantiles.

    Notes
    -----
    At p = 1 the minimiser need not be unique; then any of them is returned.  A callback (``set_callbacks``) sees one
    task for the sample and one for each step, whose end brings as metadata n_iter, objective and excess_bound.  One
    that returns True ends the fit; the estimator is then fitted with what was reached, unwarned.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.estimators import LpRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((3000, 2))
    >>> y = X @ np.array([1.0, -2.0]) + 3.0 + rng.standard_cauchy(3000)
    >>> model = LpRegressor(random_state=0).fit(X, y)
    >>> model.coef_.round(1), round(model.intercept_, 1)
    (array([ 1., -2.]), 3.0)
    """

    def __init__(
        self,
        p: float = 1.0,
        *,
        n_samples: int | None = None,
        scores: str = "lewis",
        polish: int = 3,
        tol: float | None = 1e-6,
        fit_intercept: bool = True,
        random_state: Any = None,
    ) -> None:
        self.p = p
        self.n_samples = n_samples
        self.scores = scores
        self.polish = polish
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LpRegressor:
        """Fit the model.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : array, shape (n_samples,)
            The targets.
        sample_weight : array, shape (n_samples,), or float, optional
            Nonnegative factors of the terms ``|residual|**p``.

        Returns
        -------
        self : LpRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the data have non-finite entries.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If `tol` was not reached; `status_` says why.
        """
        X, y = validate_data(
            self, X, y, accept_sparse=("csr", "csc"), dtype=FLOATS, y_numeric=True, multi_output=False, reset=True
        )
        if not isinstance(self.fit_intercept, (bool, np.bool_)):
            raise TypeError(f"fit_intercept must be True or False, got {self.fit_intercept!r}")
        if self.n_samples is not None:
            check_integer(self.n_samples, "n_samples", low=1)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not np.any(sample_weight > 0):
                raise ValueError("sample_weight must have a positive entry, got none; all rows would be left out")
        steps = Steps(self, X, y)
        result = lp_regression(
            with_constant(X) if self.fit_intercept else X, np.asarray(y, np.float64), self.p,
            n_samples=self.n_samples, scores=self.scores, polish=self.polish, tol=self.tol, weights=sample_weight,
            rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        for name, value in _fitted(result, bool(self.fit_intercept)).items():
            setattr(self, name, value)
        if not (result.converged or steps.stopped):
            warnings.warn(
                f"LpRegressor ended with {self.status_!r} and an excess of at most {self.excess_bound_:.3g}; "
                "raise polish, n_samples or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        steps.close(partial(_fitted, result, bool(self.fit_intercept)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return ``X @ coef_ + intercept_``.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The data.

        Returns
        -------
        y : array, shape (n_samples,)
            The predictions.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=False)
        return X @ self.coef_.astype(X.dtype, copy=False) + X.dtype.type(self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def with_constant(X: Any) -> Any:
    """X with a column of ones behind it; CSR if X is sparse."""
    ones = np.ones((X.shape[0], 1), dtype=X.dtype)
    return sparse.hstack([X, ones], format="csr") if sparse.issparse(X) else np.hstack([X, ones])


def _fitted(result: LpResult, fit_intercept: bool) -> dict[str, Any]:
    """The attributes of an estimator fitted with this result."""
    return {
        "coef_": result.x[:-1] if fit_intercept else result.x,
        "intercept_": float(result.x[-1]) if fit_intercept else 0.0,
        "sample_indices_": result.indices,
        "objective_": result.objective,
        "excess_bound_": result.excess_bound,
        "n_iter_": result.n_iter,
        "status_": result.status,
    }
