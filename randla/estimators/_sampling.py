"""Coresets: a few weighted rows in place of all, for any estimator that takes sample weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_X_y
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_sample_weight, validate_data

from .._checks import check_choice, check_integer, check_real
from ..regression.design import scaled_rows
from ..sampling.rows import SCORES, select_rows
from ._base import FLOATS, key_of
from ._lp import with_constant

_TARGETS = ("auto", "use", "ignore")


class RowSampler(BaseEstimator):
    """Choose a few rows with weights, such that sums over all rows are kept: a coreset.

    ``fit`` finds the rows, ``fit_resample`` returns them with targets and weights, for the `sample_weight` of another
    estimator.  This is no transformer: a transformer gives one row for each row, so that a pipeline of scikit-learn
    could not pass the chosen targets and weights on.  Sample first, then fit the pipeline.

    Parameters
    ----------
    n_samples : int or None, default None
        Expected number of rows; None takes it from `epsilon`.
    p : float, 1 <= p < inf, default 2
        Norm whose p-th power the sums keep: ``sum_i |x_i w - y_i|**p`` for all w.
    scores : {"lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform"}, default "lewis"
        How rows are sampled, see :func:`randla.select_rows`.
    epsilon : float or None, default None, 0 < epsilon < 1
        Distortion that the default size aims at, 0.25 if None; not with `n_samples`.
    target : {"auto", "use", "ignore"}, default "auto"
        Whether y counts as a further column, as regression on the sample needs it; "auto" uses it where it is
        continuous.
    fit_intercept : bool, default True
        Count a constant column, for models that fit one.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the sample.  An int gives the same sample at every call; a RandomState or a Generator is consumed.

    Attributes
    ----------
    sample_indices_ : array, shape (n_kept,), int64
        The chosen rows, ascending.
    probabilities_ : array, shape (n_kept,)
        Their probabilities.
    sample_weights_ : array, shape (n_kept,)
        Factors of their terms: the given sample weights over `probabilities_`.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.select_rows : the function behind; also for other array libraries.
    LpRegressor : regression that samples by itself.

    Notes
    -----
    Sums of p-th powers of linear functions are kept within 1 +- epsilon for all w at once, up to the constant of the
    size rule; other losses (logistic, hinge) are estimated without bias for each w, and nothing more is promised.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.estimators import RowSampler
    >>> from sklearn.linear_model import LinearRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((20_000, 3))
    >>> y = X @ np.array([1.0, 2.0, 3.0]) + 0.1 * rng.standard_normal(20_000)
    >>> X_few, y_few, weights = RowSampler(500, random_state=0).fit_resample(X, y)
    >>> LinearRegression().fit(X_few, y_few, sample_weight=weights).coef_.round(1)
    array([1., 2., 3.])
    """

    def __init__(
        self,
        n_samples: int | None = None,
        *,
        p: float = 2.0,
        scores: str = "lewis",
        epsilon: float | None = None,
        target: str = "auto",
        fit_intercept: bool = True,
        random_state: Any = None,
    ) -> None:
        self.n_samples = n_samples
        self.p = p
        self.scores = scores
        self.epsilon = epsilon
        self.target = target
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RowSampler:
        """Choose the rows.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The data.
        y : array, shape (n_samples,) or (n_samples, n_targets), optional
            Targets; see `target`.
        sample_weight : array, shape (n_samples,), or float, optional
            Nonnegative factors of the terms; rows of weight zero are never chosen.

        Returns
        -------
        self : RowSampler
            The fitted sampler.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the data have non-finite entries.
        """
        self._sample(X, y, sample_weight)
        return self

    def fit_resample(self, X: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, np.ndarray]:
        """Choose the rows and return them.

        Parameters
        ----------
        X, y, sample_weight :
            As in `fit`.

        Returns
        -------
        X_sample : array, data frame or CSR matrix, shape (n_kept, n_features)
            The chosen rows as they are, not scaled.
        y_sample : array, shape (n_kept,) or (n_kept, n_targets), or None
            Their targets.
        weights : array, shape (n_kept,)
            `sample_weights_`, for the `sample_weight` of an estimator.
        """
        X_checked, y_checked = self._sample(X, y, sample_weight)
        rows = X_checked.tocsr() if sparse.issparse(X_checked) else X_checked
        kept = X.iloc[self.sample_indices_] if hasattr(X, "iloc") else rows[self.sample_indices_]
        return kept, None if y is None else y_checked[self.sample_indices_], self.sample_weights_

    def _sample(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=True)
        if y is not None:
            y = self._checked_target(X, y)
        check_choice(self.scores, "scores", SCORES)
        p = check_real(self.p, "p", low=1.0)
        if self.n_samples is not None:
            check_integer(self.n_samples, "n_samples", low=1)
        weights = np.ones(X.shape[0])
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        table = scaled_rows(self._columns(X, y), weights ** (1.0 / p))
        present = np.flatnonzero(weights)
        chosen = select_rows(
            table[present], self.n_samples, scores=self.scores, p=p, epsilon=self.epsilon,
            rng=key_of(self.random_state),
        )  # fmt: skip
        self.sample_indices_ = present[chosen.indices]
        self.probabilities_ = chosen.probabilities
        self.sample_weights_ = weights[self.sample_indices_] / chosen.probabilities
        return X, y

    def _checked_target(self, X: Any, y: Any) -> Any:
        """The target as an array, one row for each of X; numeric where it counts as columns."""
        check_choice(self.target, "target", _TARGETS)
        if hasattr(y, "shape") or hasattr(y, "__array__"):
            y = np.asarray(y)
        numeric = self.target == "use" or (self.target == "auto" and _continuous(y))
        several = getattr(y, "ndim", 1) > 1
        return check_X_y(
            X, y, accept_sparse=("csr", "csc"), dtype=None, multi_output=several, y_numeric=numeric, estimator=self
        )[1]

    def _columns(self, X: Any, y: Any) -> Any:
        """The columns whose combinations the sample is to keep, in double precision."""
        if not isinstance(self.fit_intercept, (bool, np.bool_)):
            raise TypeError(f"fit_intercept must be True or False, got {self.fit_intercept!r}")
        table = (with_constant(X) if self.fit_intercept else X).astype(np.float64)
        joins = self.target == "use" or (self.target == "auto" and y is not None and _continuous(y))
        if not joins:
            return table
        if y is None:
            raise ValueError('y must be given where target is "use", got None')
        y = np.asarray(y, np.float64).reshape(X.shape[0], -1)
        return sparse.hstack([table, y], format="csr") if sparse.issparse(table) else np.hstack([table, y])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "sample_indices_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _continuous(y: Any) -> bool:
    return type_of_target(y, input_name="y").startswith("continuous")
