"""Imputation by a penalty on the nuclear norm, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from ..completion.observations import Observations, as_observations
from ..completion.rows import masked_lstsq
from ..completion.soft_impute import SoftImputeResult, soft_impute
from ._base import FLOATS, key_of
from ._callbacks import Steps


class SoftImpute(OneToOneFeatureMixin, CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Fill the missing entries of a matrix by one of low nuclear norm.

    Minimises ``sum (X_ij - Z_ij)**2 / 2 + reg ||Z||_*`` over the observed entries; the rank comes out.  The columns
    are taken as they are: centre and scale them first where they are in different units, for instance with
    scikit-learn's StandardScaler, which passes NaN on.

    Parameters
    ----------
    reg : float, reg > 0, default 1.0
        The penalty, in the units of singular values.  :func:`randla.soft_impute_path` chooses one.
    max_rank : int, max_rank >= 1, optional
        Largest rank; by default it grows as the optimum needs.
    method : {"auto", "als", "svd"}, default "auto"
        As in :func:`randla.soft_impute`.
    tol : float, tol > 0, default 1e-4
        Stop when the duality gap is at most ``tol`` times the objective.
    max_iter : int, max_iter >= 0, default 300
        Most sweeps and proximal steps.
    debias : bool, default False
        Whether to fit the singular values again without the penalty.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the directions that the fit looks at.

    Attributes
    ----------
    row_factors_ : array, shape (n_samples, rank_)
        Left singular vectors times the roots of the singular values.
    components_ : array, shape (rank_, n_features)
        Right singular vectors as rows, times the roots of the singular values.
    singular_values_ : array, shape (rank_,)
        Descending.
    rank_ : int
        Rank.
    gap_, gap_bound_ : float
        Duality gap over the objective, estimated and bounded with probability 0.99.
    objective_ : float
        What was minimised.
    error_ : float
        Root mean square of the residuals of the observed entries.
    n_iter_ : int
        Sweeps and steps done.
    status_ : Status
        How the fit ended.
    result_ : SoftImputeResult
        All of it as one object.
    n_features_in_ : int
        Columns seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    MatrixCompletion : a given rank, biases and robust losses.

    Notes
    -----
    Stored entries of a sparse X are the observations, zeros included; of a dense X they are what is not NaN.

    `transform` solves a ridge regression for each row against the fitted components, which for rows of the training
    data gives their fitted values up to `tol`, and keeps what was observed.  Rows and columns without an entry are
    filled with zeros.  `predict` takes places in the fitted matrix and returns fitted values, observed or not.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SoftImpute
    >>> X = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 1.0])
    >>> X[1, 1] = np.nan
    >>> SoftImpute(0.01).fit_transform(X)[1].round(1)
    array([2., 4., 2.])
    """

    def __init__(
        self,
        reg: float = 1.0,
        *,
        max_rank: int | None = None,
        method: str = "auto",
        tol: float = 1e-4,
        max_iter: int = 300,
        debias: bool = False,
        random_state: Any = None,
    ) -> None:
        self.reg = reg
        self.max_rank = max_rank
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.debias = debias
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the observed entries of X.

        Parameters
        ----------
        X : sparse matrix, or array or data frame with NaN, shape (n_samples, n_features)
            The observed entries.
        y : ignored
            Present by convention.

        Returns
        -------
        self : SoftImpute
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, nothing is observed, or an entry is stored twice or infinite.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the gap is above `tol` at the end; `status_` says why.
        """
        X = self._intake(X, reset=True)
        steps = Steps(self, X, y)
        result = soft_impute(
            as_observations(X), self.reg, max_rank=self.max_rank, method=self.method, tol=self.tol,
            max_iter=self.max_iter, debias=self.debias, rng=key_of(self.random_state), callback=steps,
            on_failure="ignore",
        )  # fmt: skip
        self.result_ = result
        if not (result.converged or steps.stopped):
            message = f"SoftImpute ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        steps.close({"result_": result})
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return rows with their missing entries filled.

        Parameters
        ----------
        X : sparse matrix, or array or data frame with NaN, shape (n_samples, n_features)
            Rows, of the training data or new.

        Returns
        -------
        X_new : array, shape (n_samples, n_features)
            Dense; observed entries are kept as they are.
        """
        check_is_fitted(self)
        observed = as_observations(self._intake(X, reset=False))
        filled = self._rows(observed)
        filled[observed.rows, observed.indices] = observed.data
        return filled

    def _rows(self, observed: Observations) -> np.ndarray:
        """The fitted values of rows, from ridge regressions against the factors that the penalty belongs to."""
        result, dtype = self.result_, observed.data.dtype
        shrunk = np.sqrt(result.shrunk_s)
        V = result.Vh.T.astype(np.float64)
        solved = masked_lstsq(
            V * shrunk, observed.indptr, observed.indices, observed.data.astype(np.float64), reg=result.reg,
            solver="cholesky",
        )  # fmt: skip
        stretch = result.s / np.where(shrunk > 0, shrunk, 1.0)
        return ((solved.X * stretch) @ V.T).astype(dtype, copy=False)

    def predict(self, rows: Any, cols: Any) -> np.ndarray:
        """Return the fitted entries at (rows, cols).

        Parameters
        ----------
        rows : array of int, shape (q,)
            Rows of the fitted matrix.
        cols : array of int, shape (q,)
            Columns of it.

        Returns
        -------
        y : array, shape (q,)
            Fitted values; only these entries are computed.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        check_is_fitted(self)
        return self.result_.predict(rows, cols)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Return minus the root mean square error of the entries of X, so that more is better.

        Parameters
        ----------
        X : sparse matrix, or array with NaN, of the shape that was fitted
            Entries at their places in the fitted matrix, for instance those that a split kept from `fit`.
        y : ignored
            Present by convention.

        Returns
        -------
        score : float
            Minus the error, in units of the entries; NaN without entries.
        """
        check_is_fitted(self)
        observed = as_observations(self._intake(X, reset=False))
        if observed.shape != self.result_.shape:
            raise ValueError(f"X must have the shape {self.result_.shape} that was fitted, got {observed.shape}")
        errors = (observed.data - self.result_.predict(observed.rows, observed.indices)).astype(np.float64)
        return -float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")

    # --- what is fitted -----------------------------------------------------------------------------------------------

    @property
    def row_factors_(self) -> np.ndarray:
        """Left singular vectors times the roots of the singular values."""
        return self._fitted().row_factors

    @property
    def components_(self) -> np.ndarray:
        """Right singular vectors as rows, times the roots of the singular values."""
        return self._fitted().col_factors.T

    @property
    def singular_values_(self) -> np.ndarray:
        """Singular values, descending."""
        return self._fitted().s

    @property
    def rank_(self) -> int:
        """Rank."""
        return self._fitted().rank

    @property
    def gap_(self) -> float:
        """Duality gap over the objective, estimated."""
        return self._fitted().gap

    @property
    def gap_bound_(self) -> float:
        """Bound of the gap with probability 0.99."""
        return self._fitted().gap_bound

    @property
    def objective_(self) -> float:
        """What was minimised."""
        return self._fitted().objective

    @property
    def error_(self) -> float:
        """Root mean square of the residuals of the observed entries."""
        return self._fitted().error

    @property
    def n_iter_(self) -> int:
        """Sweeps and steps done, at least 1."""
        return max(1, self._fitted().n_iter)  # scikit-learn counts a solution known at once as one iteration

    @property
    def status_(self) -> Any:
        """How the fit ended."""
        return self._fitted().status

    def _fitted(self) -> SoftImputeResult:
        if not hasattr(self, "result_"):
            # AttributeError, so that hasattr() says what it says of any attribute before a fit
            raise AttributeError(f"{type(self).__name__} has no fitted attributes before fit")
        return self.result_

    def _intake(self, X: Any, *, reset: bool) -> Any:
        """X as float32 or float64, dense with NaN for what is missing, or sparse."""
        return validate_data(
            self, X, accept_sparse=("csr", "csc", "coo"), dtype=FLOATS, ensure_all_finite="allow-nan", reset=reset
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
