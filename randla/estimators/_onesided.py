"""Row space of a table of which each row shows a few entries, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_choice, check_real
from ..completion.moments import PairMoments
from ..completion.observations import Observations, as_observations
from ..completion.onesided import OneSidedResult, SecondMoment, one_sided_completion
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps

_FEW = ("conditional", "nan", "raise")


class OneSidedCompletion(Reducer):
    """Find the principal row space of a table with many rows, from a few entries of each; two are enough.

    Fits the second moment ``X^T X / n_samples ~ V V^T`` to the products of entries that rows show together.  Rows are
    not modelled, so their number costs nothing: new ones are placed by `transform` from the entries that they show, and
    their missing entries are predicted by `predict_cells`.

    Parameters
    ----------
    n_components : int, default 2, 1 <= n_components <= n_features
        Rank of the second moment.
    estimator : {"factored", "hajek"}, default "factored"
        Weights of the pairs of columns, see :func:`randla.one_sided_completion`.
    diagonal_weight : float, diagonal_weight >= 0, default 1.0
        Weight of the mean squares of the columns; 0 where entries have errors of unknown variance.
    center : bool, default False
        Subtract the means of the observed entries; else the mean takes a component.
    noise_variance : float, noise_variance >= 0, default 0.0
        Variance of the errors of entries, which `transform` and `predict_cells` take into account.
    on_few : {"conditional", "nan", "raise"}, default "conditional"
        What `transform` does with a row that shows fewer entries than n_components: give the conditional mean of its
        coordinates, which is the shortest solution, and zero without entries; give NaN; or raise ValueError.
    max_iter : int, default 500
        Iterations of the fit.
    tol : float, default 1e-8
        Stop when the norm of the gradient times that of V is below, relative to the loss at zero.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the start, for more than 500 features.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Orthonormal rows, most important first; the entry of largest modulus in each row is positive.
    eigenvalues_ : array, shape (n_components_,)
        Eigenvalues of the second moment, descending.
    singular_values_ : array, shape (n_components_,)
        ``sqrt(n_samples_seen_ * eigenvalues_)``.
    second_moment_ : SecondMoment
        ``V V^T`` with `matmul`, `entries`, `diagonal`, `trace` and `to_dense`.
    mean_ : array, shape (n_features,), or None
        Means of the observed entries, None without `center`.
    error_ : float
        Estimate of the relative error of the second moment, as :func:`randla.one_sided_completion` has it.
    error_bound_ : float
        Upper bound of the same with confidence 0.95.
    n_components_ : int
        Columns of the output.
    n_samples_seen_ : int
        Rows seen.
    n_iter_ : int
        Iterations done.
    status_ : Status
        How the fit ended.
    moments_ : PairMoments
        What was added up; states of several machines can be merged, see :class:`randla.PairMoments`.
    result_ : OneSidedResult
        All diagnostics of the fit.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.one_sided_completion : the function behind; also for files, streams and other array libraries.

    Notes
    -----
    Of a sparse matrix the stored entries are the observations, zeros included; of a dense one those that are not NaN.
    `partial_fit` adds up products only, and the fit is done when something of it is asked for.  A callback
    (``set_callbacks``) sees one task for each iteration of a `fit`, whose end brings as metadata n_iter, residual and
    gradient; one that returns True ends the fit, unwarned.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import OneSidedCompletion
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((5000, 2)) @ rng.standard_normal((2, 10))
    >>> seen = np.where(rng.random(X.shape) < 0.4, X, np.nan)
    >>> model = OneSidedCompletion(2, random_state=0).fit(seen)
    >>> complete = model.inverse_transform(model.transform(seen))
    >>> rows = np.isfinite(seen).sum(axis=1) >= 4
    >>> bool(np.median(np.abs(complete - X)[rows]) < 0.05)
    True
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        estimator: str = "factored",
        diagonal_weight: float = 1.0,
        center: bool = False,
        noise_variance: float = 0.0,
        on_few: str = "conditional",
        max_iter: int = 500,
        tol: float = 1e-8,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.estimator = estimator
        self.diagonal_weight = diagonal_weight
        self.center = center
        self.noise_variance = noise_variance
        self.on_few = on_few
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None, propensity: Any = None) -> OneSidedCompletion:
        """Find the row space of X.

        Parameters
        ----------
        X : array with NaN, data frame or sparse matrix, shape (n_samples, n_features)
            The table; what is stored, or not NaN, was observed.
        y : ignored
            Present by convention.
        propensity : array or sparse matrix, shape (n_samples, n_features) or (n_samples, 1), optional
            Probabilities with which entries were observed: products are weighted by their reciprocals.

        Returns
        -------
        self : OneSidedCompletion
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, X has infinite entries or one that is stored twice, or no row shows two.
        """
        seen = self._observed(X, reset=True)
        self._begin(seen, propensity is not None)
        steps = Steps(self, X, y)
        self.moments_.update(seen, propensity=propensity)
        self._solve(steps)
        if not (self.result_.converged or steps.stopped):
            self._warn(4)
        steps.close({name: getattr(self, name) for name in ("moments_", "_result", "_fitted_rows")})
        return self

    def partial_fit(self, X: Any, y: Any = None, propensity: Any = None) -> OneSidedCompletion:  # noqa: ARG002
        """Take up more rows.

        Parameters
        ----------
        X : array with NaN, data frame or sparse matrix, shape (n_samples, n_features)
            Rows beyond those seen.
        y : ignored
            Present by convention.
        propensity : array or sparse matrix, shape (n_samples, n_features) or (n_samples, 1), optional
            As in `fit`; in all batches or in none.

        Returns
        -------
        self : OneSidedCompletion
            The estimator with more rows seen; it is fitted when something of the fit is asked for.

        Raises
        ------
        ValueError
            As `fit` does, or if X has another number of features than the rows before.
        """
        first = not hasattr(self, "moments_")
        seen = self._observed(X, reset=first)
        if first:
            self._begin(seen, propensity is not None)
        self.moments_.update(seen, propensity=propensity)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the coordinates of rows in the components, from the entries that they show.

        Parameters
        ----------
        X : array with NaN, data frame or sparse matrix, shape (n_samples, n_features)
            Old or new rows.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            ``inverse_transform(X_new)`` completes the rows.

        Raises
        ------
        ValueError
            If a row shows too few entries and `on_few` is "raise".
        """
        check_is_fitted(self)
        few, seen = check_choice(self.on_few, "on_few", _FEW), self._observed(X, reset=False)
        short = np.nonzero(seen.row_counts < self.n_components_)[0]
        if few == "raise" and short.size:
            raise ValueError(
                f"X must have at least {self.n_components_} observed entries in each row, got "
                f'{int(seen.row_counts[short[0]])} in row {int(short[0])}; drop it, or set on_few="conditional"'
            )
        Z = self.result_.transform(seen, noise_variance=self.noise_variance).astype(seen.data.dtype, copy=False)
        if few == "nan":
            Z[short] = np.nan
        return Z

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return complete rows, ``X @ components_`` plus the means.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Coordinates.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            The rows, dense, in the dtype of X.
        """
        X = self._intake_reduced(X)
        rebuilt = X @ self.components_.astype(X.dtype, copy=False)
        if self.mean_ is not None:
            rebuilt += self.mean_.astype(X.dtype, copy=False)
        return rebuilt

    def predict_cells(self, X: Any, rows: Any, cols: Any) -> np.ndarray:
        """Return conditional means of single cells, given the entries that their rows show.

        Parameters
        ----------
        X : array with NaN, data frame or sparse matrix, shape (n_samples, n_features)
            Old or new rows.
        rows, cols : integer arrays, shape (n_cells,)
            The cells.

        Returns
        -------
        values : array, shape (n_cells,)
            ``Theta[j, S] Theta[S, S]^+ x_S``, S the entries of the row, plus the mean; in the dtype of X.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        check_is_fitted(self)
        seen = self._observed(X, reset=False)
        values = self.result_.predict_cells(seen, rows, cols, noise_variance=self.noise_variance)
        return values.astype(seen.data.dtype, copy=False)

    @property
    def result_(self) -> OneSidedResult:
        """All diagnostics of the fit to the rows seen so far."""
        check_is_fitted(self)
        if self._fitted_rows != self.moments_.n_rows:
            self._solve(None)
            if not self._result.converged:
                self._warn(3)
        return self._result

    @property
    def components_(self) -> np.ndarray:
        """Orthonormal rows, shape ``(n_components_, n_features)``."""
        return self.result_.components

    @property
    def eigenvalues_(self) -> np.ndarray:
        """Eigenvalues of the second moment, descending."""
        return self.result_.eigenvalues

    @property
    def singular_values_(self) -> np.ndarray:
        """Singular values of the table, descending."""
        return self.result_.singular_values

    @property
    def second_moment_(self) -> SecondMoment:
        """The second moment, by its factor."""
        return self.result_.second_moment

    @property
    def mean_(self) -> np.ndarray | None:
        """Means of the observed entries, None without centring."""
        return self.result_.mean

    @property
    def error_(self) -> float:
        """Estimate of the relative error of the second moment."""
        return self.result_.error

    @property
    def error_bound_(self) -> float:
        """Upper bound of the same."""
        return self.result_.error_bound

    @property
    def n_components_(self) -> int:  # type: ignore[override]  # it follows the rows seen
        """Columns of the output."""
        return self.result_.rank

    @property
    def n_iter_(self) -> int:
        """Iterations done."""
        return self.result_.n_iter

    @property
    def status_(self) -> Any:
        """How the fit ended."""
        return self.result_.status

    @property
    def n_samples_seen_(self) -> int:
        """Rows seen."""
        check_is_fitted(self)
        return self.moments_.n_rows

    def _observed(self, X: Any, *, reset: bool) -> Observations:
        X = validate_data(
            self, X, accept_sparse=("csr", "csc", "coo"), dtype=FLOATS, ensure_all_finite="allow-nan", reset=reset
        )
        return as_observations(X)

    def _begin(self, seen: Observations, weighted: bool) -> None:
        if seen.shape[1] < 2:
            raise ValueError(f"X must have two features at least, got n_features={seen.shape[1]}; products need pairs")
        self._check_components(self.n_components, seen, of="n_features")
        check_real(self.noise_variance, "noise_variance", low=0.0)
        check_choice(self.on_few, "on_few", _FEW)
        if not isinstance(self.center, (bool, np.bool_)):
            raise TypeError(f"center must be True or False, got {self.center!r}")
        self.moments_ = PairMoments(seen.shape[1], center=self.center, weighted=weighted)
        self._fitted_rows = -1

    def _solve(self, steps: Steps | None) -> None:
        self._result = one_sided_completion(
            self.moments_, self.n_components, estimator=self.estimator, diagonal_weight=self.diagonal_weight,
            max_iter=self.max_iter, tol=self.tol, rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        self._fitted_rows = self.moments_.n_rows

    def _warn(self, level: int) -> None:
        message = f"OneSidedCompletion ended with {self._result.status!r}: {self._result.status.advice}"
        warnings.warn(message, ConvergenceWarning, stacklevel=level)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
