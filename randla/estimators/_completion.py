"""Completion of a matrix of which some entries were observed, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_choice, check_integer
from ..completion.als import complete
from ..completion.folding import append_cols, append_rows, fold_in
from ..completion.observations import Observations, as_observations
from ..completion.ranking import TopColumns, recommend
from ..completion.results import ON_UNSEEN, CompletionResult
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps


class MatrixCompletion(Reducer):
    """Fit a matrix of low rank with biases to observed entries, and predict the others.

    The model is ``global_mean_ + row_bias_[i] + col_bias_[j] + row_factors_[i] @ components_[:, j]``, fitted by
    alternating least squares with a ridge that grows with the number of entries of a row or column.

    Parameters
    ----------
    n_components : int, default 10, 1 <= n_components <= min(n_samples, n_features)
        Rank.
    reg : float, default 0.1, reg >= 0
        Ridge.
    reg_exponent : float, default 1.0, reg_exponent >= 0
        Power of the counts of entries that the ridge is multiplied with.
    bias : bool, default True
        Whether to fit a mean, and a bias of each row and column.
    loss : {"squared", "huber", "absolute"}, default "squared"
        The others are for entries of which some are grossly wrong.
    solver : {"auto", "cholesky", "cg"}, default "auto"
        How the least-squares problems of rows are solved; see :func:`randla.complete`.
    init : {"svd", "random"}, default "svd"
        Where the factors start.
    max_iter : int, default 30
        Largest number of sweeps.
    tol : float, default 1e-4
        Relative decrease of the objective at which the fit stops.
    validation_fraction : float, default 0.0, 0 <= validation_fraction < 1
        Share of the entries held out; the fit then stops when their error does not fall, and keeps its best state.
    n_iter_no_change : int, default 2
        Sweeps to wait for a lower held-out error.
    warm_start : bool, default False
        Whether `fit` starts from the factors of the last fit.  Rows and columns that were added since are folded in.
    on_unseen : {"mean", "nan", "raise"}, default "mean"
        What `predict` does for a row or column without observed entries: "mean" takes mean and bias of what is known.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the start and of what is held out.

    Attributes
    ----------
    row_factors_ : array, shape (n_samples, n_components)
        Factors of the rows.
    components_ : array, shape (n_components, n_features)
        Factors of the columns.
    row_bias_ : array, shape (n_samples,), or None
        Biases of the rows; None without `bias`.
    col_bias_ : array, shape (n_features,), or None
        Biases of the columns.
    global_mean_ : float
        Mean of the entries fitted; 0 without `bias`.
    singular_values_ : array, shape (n_components,)
        Singular values of ``row_factors_ @ components_``, descending.
    error_ : float
        Held-out root mean square error, or that of the entries fitted where none are held out.
    noise_ : float
        Estimate of the standard deviation of entries around the model.
    validation_scores_ : array, shape (n_iter_,)
        Held-out error after each sweep; empty where none are held out.
    n_components_ : int
        Rank.
    n_iter_ : int
        Sweeps done.
    status_ : Status
        How the fit ended.
    result_ : CompletionResult
        All of it as one object, with the entries that were fitted.
    n_features_in_ : int
        Columns seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.complete : the function behind; also with weights, states on disk and other array libraries.
    randla.choose_completion_rank : rank by held-out error.

    Notes
    -----
    Stored entries of a sparse X are the observations, zeros included; of a dense X they are what is not NaN.  A pickle
    holds the entries that were fitted, for `predict_std` and `recommend`.

    `transform` and `predict` do different things: `transform` takes new rows and returns their factors, `predict` takes
    places in the fitted matrix.  A callback (``set_callbacks``) sees one task for each sweep, whose end brings as
    metadata n_iter, objective, rmse and validation_rmse.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import MatrixCompletion
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    >>> Z = np.where(rng.random(X.shape) < 0.5, X, np.nan)
    >>> model = MatrixCompletion(2, reg=1e-3, random_state=0).fit(Z)
    >>> bool(np.abs(model.predict([3, 4], [5, 6]) - X[[3, 4], [5, 6]]).max() < 0.1)
    True
    >>> model.transform(Z[:4]).shape
    (4, 2)
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        reg: float = 0.1,
        reg_exponent: float = 1.0,
        bias: bool = True,
        loss: str = "squared",
        solver: str = "auto",
        init: str = "svd",
        max_iter: int = 30,
        tol: float = 1e-4,
        validation_fraction: float = 0.0,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        on_unseen: str = "mean",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.reg = reg
        self.reg_exponent = reg_exponent
        self.bias = bias
        self.loss = loss
        self.solver = solver
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.on_unseen = on_unseen
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> MatrixCompletion:
        """Fit the observed entries of X.

        Parameters
        ----------
        X : sparse matrix, or array or data frame with NaN, shape (n_samples, n_features)
            The observed entries.
        y : ignored
            Present by convention.

        Returns
        -------
        self : MatrixCompletion
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, an entry is stored twice or infinite, or a warm start meets fewer rows
            or columns than before.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the sweeps ended before the tolerance; `status_` says why.
        """
        X = self._intake(X, reset=True)
        rank = self._check_components(self.n_components, X, of="both")
        check_choice(self.on_unseen, "on_unseen", ON_UNSEEN)
        observed = as_observations(X)
        init: Any = self.init
        if self.warm_start and hasattr(self, "result_"):
            init = _grown(self.result_, X)
        steps = Steps(self, X, y)
        result = complete(
            observed, rank, reg=self.reg, reg_exponent=self.reg_exponent, bias=self.bias, loss=self.loss,
            solver=self.solver, init=init, validation_fraction=self.validation_fraction,
            n_iter_no_change=self.n_iter_no_change, max_iter=self.max_iter, tol=self.tol,
            rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        self._take(result, observed)
        if not (result.converged or steps.stopped):
            message = f"MatrixCompletion ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        steps.close({"result_": result, "_seen": observed, "n_components_": result.rank})
        return self

    def predict(self, rows: Any, cols: Any) -> np.ndarray:
        """Return the predicted entries at (rows, cols).

        Parameters
        ----------
        rows : array of int, shape (q,)
            Rows of the fitted matrix.
        cols : array of int, shape (q,)
            Columns of it.

        Returns
        -------
        y : array, shape (q,)
            Predictions; only these entries are computed.

        Raises
        ------
        ValueError
            If an index is out of range, or with ``on_unseen="raise"`` where nothing was observed.
        """
        check_is_fitted(self)
        return self.result_.predict(rows, cols, on_unseen=self.on_unseen)

    def predict_std(self, rows: Any, cols: Any, *, noise: bool = False) -> np.ndarray:
        """Return standard deviations of predictions.

        Parameters
        ----------
        rows : array of int, shape (q,)
            Rows of the fitted matrix.
        cols : array of int, shape (q,)
            Columns of it.
        noise : bool, default False
            Whether to add the noise of a single observation.

        Returns
        -------
        std : array, shape (q,)
            See `randla.CompletionResult.predict_std` for what it covers and what not.
        """
        check_is_fitted(self)
        return self.result_.predict_std(rows, cols, noise=noise)

    def transform(self, X: Any) -> np.ndarray:
        """Return the factors of new rows, by an exact ridge solve for each against the fitted columns.

        Parameters
        ----------
        X : sparse matrix, or array or data frame with NaN, shape (n_samples, n_features)
            Observed entries of the rows.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            Their factors.
        """
        X = self._intake(X, reset=False)
        dtype = X.dtype
        return fold_in(self.result_, X).factors.astype(dtype, copy=False)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ components_`` with the mean and the biases of the columns; rows have no bias here.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Factors of rows.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            All entries of these rows.
        """
        X = self._intake_reduced(X)
        rebuilt = X @ self.components_.astype(X.dtype, copy=False) + self.global_mean_
        return rebuilt if self.col_bias_ is None else rebuilt + self.col_bias_.astype(X.dtype, copy=False)

    def partial_fit_rows(self, X_new: Any, *, sweeps: int = 0) -> MatrixCompletion:
        """Add rows below the fitted ones: folded in, the columns as they are unless `sweeps` are asked for.

        Parameters
        ----------
        X_new : sparse matrix, or array with NaN, shape (q, n_features)
            Entries of the new rows.
        sweeps : int, default 0
            Sweeps over all entries afterwards.

        Returns
        -------
        self : MatrixCompletion
            The estimator with more rows.
        """
        new = as_observations(self._intake(X_new, reset=False))
        result = append_rows(self.result_, new, sweeps=sweeps)
        self._take(result, _stacked(self._seen, new))
        return self

    def partial_fit_cols(self, X_new: Any, *, sweeps: int = 0) -> MatrixCompletion:
        """Add columns to the right of the fitted ones; `n_features_in_` grows.

        Parameters
        ----------
        X_new : sparse matrix, or array with NaN, shape (n_samples, q)
            Entries of the new columns.
        sweeps : int, default 0
            Sweeps over all entries afterwards.

        Returns
        -------
        self : MatrixCompletion
            The estimator with more columns.
        """
        check_is_fitted(self)
        new = as_observations(X_new, name="X_new")
        result = append_cols(self.result_, new, sweeps=sweeps)
        self._take(result, _stacked(self._seen.transposed, new.transposed).transposed)
        self.n_features_in_ = result.shape[1]
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def recommend(self, rows: Any, k: int = 10, *, filter_seen: bool = True) -> TopColumns:
        """Return the k columns with the largest predictions for each row, in blocks of rows.

        Parameters
        ----------
        rows : array of int, shape (q,), or None
            Rows of the fitted matrix; None takes all.
        k : int, default 10
            Columns for each row.
        filter_seen : bool, default True
            Whether to leave out the columns that a row has an observed entry in.

        Returns
        -------
        TopColumns
            ``columns`` (q, k), best first, and their predictions ``values`` (q, k); -1 and minus infinity where fewer
            are left.
        """
        check_is_fitted(self)
        fit, offset = self.result_, None
        if fit.row_bias is not None:
            offset = fit.row_bias + np.asarray(fit.mean, dtype=fit.row_bias.dtype)
        places = None if rows is None else np.atleast_1d(np.asarray(rows))
        if places is not None and places.dtype.kind not in "iu":
            raise TypeError(f"rows must be integers, got {places.dtype}; convert them first")
        return recommend(
            fit.row_factors, fit.col_factors, None if places is None else places.astype(np.int64),
            check_integer(k, "k", low=1), seen=self._seen if filter_seen else None, col_bias=fit.col_bias,
            offset=offset,
        )  # fmt: skip

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
        observed = as_observations(self._intake(X, reset=False))
        if observed.shape != self.result_.shape:
            raise ValueError(f"X must have the shape {self.result_.shape} that was fitted, got {observed.shape}")
        errors = (observed.data - self.predict(observed.rows, observed.indices)).astype(np.float64)
        return -float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")

    # --- what is fitted -----------------------------------------------------------------------------------------------

    @property
    def row_factors_(self) -> np.ndarray:
        """Factors of the rows, shape ``(n_samples, n_components)``."""
        return self._fitted().row_factors

    @property
    def components_(self) -> np.ndarray:
        """Factors of the columns, shape ``(n_components, n_features)``."""
        return self._fitted().col_factors.T

    @property
    def row_bias_(self) -> np.ndarray | None:
        """Biases of the rows."""
        return self._fitted().row_bias

    @property
    def col_bias_(self) -> np.ndarray | None:
        """Biases of the columns."""
        return self._fitted().col_bias

    @property
    def global_mean_(self) -> float:
        """Mean of the entries fitted."""
        return self._fitted().mean

    @property
    def singular_values_(self) -> np.ndarray:
        """Singular values of the factors' product, descending."""
        return self._fitted().singular_values()

    @property
    def error_(self) -> float:
        """Held-out error, or that of the entries fitted."""
        return self._fitted().error

    @property
    def noise_(self) -> float:
        """Estimate of the standard deviation of entries around the model."""
        return self._fitted().noise

    @property
    def validation_scores_(self) -> np.ndarray:
        """Held-out error after each sweep."""
        return np.asarray(self._fitted().validation_history)

    @property
    def n_iter_(self) -> int:
        """Sweeps done."""
        return self._fitted().n_iter

    @property
    def status_(self) -> Any:
        """How the fit ended."""
        return self._fitted().status

    def _fitted(self) -> CompletionResult:
        if not hasattr(self, "result_"):
            # AttributeError, so that hasattr() says what it says of any attribute before a fit
            raise AttributeError(f"{type(self).__name__} has no fitted attributes before fit")
        return self.result_

    def _take(self, result: CompletionResult, seen: Observations) -> None:
        self.result_, self._seen, self.n_components_ = result, seen, result.rank

    def _intake(self, X: Any, *, reset: bool) -> Any:
        """X as float32 or float64, dense with NaN for what is missing, or sparse."""
        if not reset:
            check_is_fitted(self)
        return validate_data(
            self, X, accept_sparse=("csr", "csc", "coo"), dtype=FLOATS, ensure_all_finite="allow-nan", reset=reset
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _grown(result: CompletionResult, X: Any) -> CompletionResult:
    """A former result with what X has more of, folded in."""
    (m, n), (more, wider) = result.shape, X.shape
    if more < m or wider < n:
        raise ValueError(f"X must have at least {m} rows and {n} columns for a warm start, got {more} x {wider}")
    rows = X.tocsr() if hasattr(X, "tocsr") else X
    if more > m:
        result = append_rows(result, rows[m:, :n])
    return append_cols(result, rows[:, n:]) if wider > n else result


def _stacked(above: Observations, below: Observations) -> Observations:
    """The entries of two matrices, one below the other."""
    return Observations(
        np.concatenate([above.data, below.data.astype(above.data.dtype)]),
        np.concatenate([above.indices.astype(np.int64), below.indices.astype(np.int64)]),
        np.concatenate([above.indptr.astype(np.int64), below.indptr[1:].astype(np.int64) + above.nnz]),
        (above.shape[0] + below.shape[0], above.shape[1]),
    )
