"""Selection of features that rebuild all others, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_integer, check_real
from .._results import Status
from ..lowrank.interpolative import interpolative
from ._base import FLOATS, key_of


class ColumnSubsetSelector(CallbackSupportMixin, SelectorMixin, BaseEstimator):
    """Keep the features that rebuild all others best, without looking at a target.

    Finds columns J and coefficients with ``X ~ X[:, J] @ coefficients_``, an interpolative decomposition: features that
    say the same as others are dropped.  Unlike principal components the output consists of features as they are, sparse
    where they are sparse, and only they need to be measured in the future.

    Parameters
    ----------
    n_components : int or None, default 2, 1 <= n_components <= min(n_samples, n_features)
        Features kept without `tol`; with `tol` the largest number allowed, and None allows all.
    tol : float or None, default None, 0 < tol < 1
        Keep as few features of the selection as hold ``||X - X[:, J] coefficients_||_F`` to ``tol * ||X||_F``.
    selection : str, default "sketch-qr"
        How features are chosen; the methods of :func:`randla.select_columns`.
    coefficients : {"lstsq", "oversampled", "sketch"}, default "lstsq"
        How the other features are rebuilt: by least squares on the data, or on a sketch of them.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the sketch.  An int gives the same fit at every call; a RandomState or a Generator is consumed.

    Attributes
    ----------
    indices_ : int64 array, shape (n_components_,)
        The features that are kept, most important first.
    coefficients_ : array, shape (n_components_, n_features)
        Rebuild all features from the columns of ``transform(X)``, which are in the order of X.
    n_components_ : int
        Features kept; fewer than asked for where the rest depends on them.
    error_ : float
        Relative error ``||X - X[:, J] coefficients_||_F / ||X||_F`` on the data of the fit.
    error_bound_ : float
        Upper bound of the same, which holds with the confidence that :func:`randla.interpolative` states.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    TruncatedSVD : combinations of all features, with about half of the error at the same number.
    randla.interpolative : the function behind; also for LinearOperators, files and other array libraries.

    Notes
    -----
    Features are not centred or scaled: put a scaler before the selector in a pipeline if their units differ.

    Examples
    --------
    >>> from randla.estimators import ColumnSubsetSelector
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data
    >>> model = ColumnSubsetSelector(20, random_state=0).fit(X)
    >>> model.transform(X).shape, int(model.get_support().sum()), model.error_ < 0.25
    ((1797, 20), 20, True)
    """

    def __init__(
        self,
        n_components: int | None = 2,
        *,
        tol: float | None = None,
        selection: str = "sketch-qr",
        coefficients: str = "lstsq",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.selection = selection
        self.coefficients = coefficients
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> ColumnSubsetSelector:
        """Choose the features and compute how they rebuild the others.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : ColumnSubsetSelector
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X has non-finite entries.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended without what was asked for; `status_` says why.
        """
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=True)
        context = self._init_callback_context().call_on_fit_task_begin(estimator=self, X=X, y=y)
        result = interpolative(
            X, **self._sizes(X), selection=self.selection, coefficients=self.coefficients,
            rng=key_of(self.random_state), on_failure="ignore",
        )  # fmt: skip
        order = np.argsort(result.indices)
        fitted = {
            "indices_": result.indices,
            "coefficients_": np.ascontiguousarray(result.X[order]),
            "n_components_": result.rank,
            "error_": result.error,
            "error_bound_": result.error_bound,
            "status_": result.status,
        }
        for name, value in fitted.items():
            setattr(self, name, value)
        if not result.converged:
            self._warn()
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=fitted)
        return self

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ coefficients_``: all features, rebuilt from those that were kept.

        Parameters
        ----------
        X : array or CSR/CSC matrix, shape (n_samples, n_components_)
            The kept features, in the order of `transform`.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            The rebuilt data, dense, in the dtype of X (float32 or float64).
        """
        check_is_fitted(self)
        X = check_array(X, dtype=FLOATS, accept_sparse=("csr", "csc"), input_name="X", estimator=self)
        if X.shape[1] != self.n_components_:
            raise ValueError(f"X must have n_components_={self.n_components_} columns, got {X.shape[1]}")
        return X @ self.coefficients_.astype(X.dtype, copy=False)

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.indices_] = True
        return mask

    def _sizes(self, X: Any) -> dict[str, Any]:
        """The arguments of `interpolative` that say how many features to keep."""
        n_samples, n_features = X.shape
        rank, bound = None, min(n_samples, n_features)
        if self.n_components is not None:
            rank = check_integer(self.n_components, "n_components", low=1)
            if rank > bound:
                raise ValueError(
                    f"n_components must be at most {bound} for data with n_samples={n_samples}, "
                    f"n_features={n_features}, got {rank}"
                )
        if self.tol is not None:
            tol = check_real(self.tol, "tol", low=0.0, high=1.0, closed="neither")
            return {"rank": None, "tol": tol, "max_rank": rank}
        if rank is None:
            raise ValueError("n_components must be an integer where tol is None, got None; set one of them")
        return {"rank": rank}

    def _warn(self) -> None:
        if self.status_ is Status.MAX_ITER:
            advice = f"the error is {self.error_:.3g} with {self.n_components_} features; raise n_components or tol"
        else:
            advice = self.status_.advice
        warnings.warn(f"ColumnSubsetSelector ended with {self.status_!r}: {advice}", ConvergenceWarning, stacklevel=4)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
