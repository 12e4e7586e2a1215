"""Implicit feedback by weighted alternating least squares, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_integer
from .._random import as_key
from ..completion.implicit import implicit_als
from ..completion.implicit_model import ImplicitResult, indices_of, interactions
from ..completion.observations import Observations
from ..completion.ranking import TopColumns, recommend
from ..completion.ranking_metrics import hold_out_interactions, ranking_scores, take_rows
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps

_HELD = 0.2  # share of the interactions of each row that `score` looks for


@dataclass(frozen=True)
class _Sweep:
    """What a callback is told after each sweep of a fit."""

    n_iter: int
    loss: float
    score: float


class ImplicitALS(Reducer):
    """Factors of rows and columns from interactions, where cells without interaction count a little too.

    Minimises the weighted squares of all cells that :func:`randla.implicit_als` describes; scores are
    ``row_factors_ @ components_``.

    Parameters
    ----------
    n_components : int, default 64, n_components >= 1
        Rank.  It may exceed the number of rows and columns.
    reg : float, default 0.01, reg > 0
        Ridge, in units of confidence.
    alpha : float, default 1.0, alpha > 0
        Confidence for each unit of a stored value.
    unobserved_weight : float, default 1.0, unobserved_weight >= 0
        Weight of cells without interaction.
    weighting : {"missing", "all"}, default "missing"
        Which cells `unobserved_weight` is for: those without interaction, or all.
    reg_exponent : float, default 0.0, reg_exponent >= 0
        0: plain ridge; 1: in proportion to the cells of a row.
    solver : {"auto", "cholesky", "cg"}, default "auto"
        How the problems of rows are solved in a fit.
    cg_steps : int, default 3
        Steps of conjugate gradients for each row and sweep.
    max_iter : int, default 100
        Largest number of sweeps.
    tol : float, default 1e-4
        Relative decrease of the objective at which the fit stops.
    validation_fraction : float, default 0.0, 0 <= validation_fraction < 1
        Share of the interactions held out; the fit then stops when their NDCG at 10 does not rise, and keeps its best
        state.
    n_iter_no_change : int, default 2
        Sweeps to wait for a better score.
    warm_start : bool, default False
        Whether `fit` starts from the factors of the last fit.  Columns that were added since are folded in.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the start and of what is held out.

    Attributes
    ----------
    row_factors_ : array, shape (n_samples, n_components)
        Factors of the rows.
    components_ : array, shape (n_components, n_features)
        Factors of the columns.
    loss_ : float
        The objective.
    validation_scores_ : array, shape (n_iter_,)
        NDCG at 10 of what was held out after each sweep; empty where nothing was.
    n_components_ : int
        Rank.
    n_iter_ : int
        Sweeps done.
    status_ : Status
        How the fit ended.
    result_ : ImplicitResult
        All of it as one object.
    n_features_in_ : int
        Columns seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.implicit_als : the function behind.
    EASE : weights between columns in place of factors, for up to some ten thousand columns.
    MatrixCompletion : for ratings, where a cell without one says nothing.

    Notes
    -----
    Stored entries of a sparse X are interactions; of an array they are what is neither zero nor NaN.  A negative one is
    a dislike, a stored zero takes its cell out of the objective.  A pickle holds the interactions, for `recommend`.

    A callback (``set_callbacks``) sees one task for each sweep, whose end brings as metadata n_iter, loss and score.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from randla import ImplicitALS
    >>> taste = np.kron(np.eye(2), np.ones((4, 3)))  # four rows like the first three columns, four the others
    >>> taste[0, 2] = 0.0
    >>> model = ImplicitALS(2, reg=0.1, alpha=10.0, tol=1e-3, random_state=0).fit(sp.csr_array(taste))
    >>> model.recommend([0], 1).columns
    array([[2]])
    >>> model.transform(np.array([[0.0, 0, 0, 1, 0, 0]])).shape
    (1, 2)
    """

    def __init__(
        self,
        n_components: int = 64,
        *,
        reg: float = 0.01,
        alpha: float = 1.0,
        unobserved_weight: float = 1.0,
        weighting: str = "missing",
        reg_exponent: float = 0.0,
        solver: str = "auto",
        cg_steps: int = 3,
        max_iter: int = 100,
        tol: float = 1e-4,
        validation_fraction: float = 0.0,
        n_iter_no_change: int = 2,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.reg = reg
        self.alpha = alpha
        self.unobserved_weight = unobserved_weight
        self.weighting = weighting
        self.reg_exponent = reg_exponent
        self.solver = solver
        self.cg_steps = cg_steps
        self.max_iter = max_iter
        self.tol = tol
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> ImplicitALS:
        """Fit factors to interactions.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (n_samples, n_features)
            The interactions.
        y : ignored
            Present by convention.

        Returns
        -------
        self : ImplicitALS
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, an entry is stored twice or not finite, or a warm start meets fewer
            columns or another rank than before.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the sweeps ended before the tolerance; `status_` says why.
        """
        observed = self._interactions(X, reset=True)
        rank = check_integer(self.n_components, "n_components", low=1)
        init = _warm(self.result_, observed, rank) if self.warm_start and hasattr(self, "result_") else "normal"
        steps = Steps(self, X, y)
        result = implicit_als(
            observed, rank, reg=self.reg, alpha=self.alpha, unobserved_weight=self.unobserved_weight,
            weighting=self.weighting, reg_exponent=self.reg_exponent, solver=self.solver, cg_steps=self.cg_steps,
            init=init, max_iter=self.max_iter, tol=self.tol, validation_fraction=self.validation_fraction,
            n_iter_no_change=self.n_iter_no_change, rng=key_of(self.random_state), callback=_lightly(steps),
            on_failure="ignore",
        )  # fmt: skip
        self._take(result, observed)
        if not (result.converged or steps.stopped):
            message = f"ImplicitALS ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        steps.close({"result_": result, "_seen": observed, "n_components_": rank})
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the factors of new rows: the exact minimiser of the objective for the fitted columns.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (n_samples, n_features)
            Interactions of the rows.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            Their factors, in the dtype of X; zero for a row without a positive interaction.
        """
        observed = self._interactions(X, reset=False)
        return self.result_.fold_in(observed).astype(observed.data.dtype, copy=False)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the scores ``X @ components_``.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Factors of rows.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            Scores of all columns; for many rows take `recommend` or `recommend_new`, which hold a block at a time.
        """
        X = self._intake_reduced(X)
        return X @ self.components_.astype(X.dtype, copy=False)

    def predict(self, rows: Any, cols: Any) -> np.ndarray:
        """Return the scores of the cells (rows, cols) of the fitted matrix; only they are computed.

        Parameters
        ----------
        rows : array of int, shape (q,)
        cols : array of int, shape (q,)

        Returns
        -------
        y : array, shape (q,)
            Scores, near 1 where an interaction is to be expected.
        """
        check_is_fitted(self)
        return self.result_.predict(rows, cols)

    def recommend(self, rows: Any, k: int = 10, *, filter_seen: bool = True) -> TopColumns:
        """Return the k columns of largest score for rows of the fitted matrix, in blocks of rows.

        Parameters
        ----------
        rows : array of int, shape (q,), or None
            None takes all rows.
        k : int, default 10
        filter_seen : bool, default True
            Whether to leave out the columns that a row has an interaction with, dislikes too.

        Returns
        -------
        TopColumns
            ``columns`` (q, k), best first, and their scores ``values`` (q, k); -1 and minus infinity where fewer are
            left.
        """
        check_is_fitted(self)
        rows = None if rows is None else np.atleast_1d(rows)
        return self.result_.recommend(rows, k, seen=self._seen if filter_seen else None)

    def recommend_new(self, X: Any, k: int = 10, *, filter_seen: bool = True) -> TopColumns:
        """Return the k columns of largest score for new rows, which are folded in and not kept.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (q, n_features)
            Interactions of the rows.
        k : int, default 10
        filter_seen : bool, default True

        Returns
        -------
        TopColumns
            As `recommend` does.
        """
        observed = self._interactions(X, reset=False)
        F = self.result_.fold_in(observed)
        return recommend(F, self.result_.col_factors, None, k, seen=observed if filter_seen else None)

    def similar_items(self, cols: Any, k: int = 10) -> TopColumns:
        """Return the k columns whose factors have the largest cosine with those of each of `cols`, itself left out.

        Parameters
        ----------
        cols : array of int, shape (q,)
        k : int, default 10

        Returns
        -------
        TopColumns
            ``columns`` (q, k) and their cosines ``values`` (q, k).
        """
        check_is_fitted(self)
        return self.result_.similar_cols(cols, k)

    def similar_rows(self, rows: Any, k: int = 10) -> TopColumns:
        """Return the k rows whose factors have the largest cosine with those of each of `rows`, itself left out.

        Parameters
        ----------
        rows : array of int, shape (q,)
        k : int, default 10

        Returns
        -------
        TopColumns
            ``columns`` (q, k), here numbers of rows, and their cosines ``values`` (q, k).
        """
        check_is_fitted(self)
        return self.result_.similar_rows(rows, k)

    def partial_fit_rows(self, X: Any, rows: Any = None) -> ImplicitALS:
        """Give rows new interactions, or add rows: their factors are solved for, the columns stay.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (q, n_features)
            All interactions of these rows.
        rows : array of int, shape (q,), optional
            Which rows they are; None adds them at the end, as do numbers beyond it.

        Returns
        -------
        self : ImplicitALS
            The estimator with these rows.
        """
        observed = self._interactions(X, reset=False)
        m = self.result_.shape[0]
        rows = np.arange(m, m + observed.shape[0]) if rows is None else indices_of(rows, "rows", None, observed.data)
        self._take(self.result_.with_rows(rows, observed), _with_rows(self._seen, rows, observed))
        return self

    def partial_fit_cols(self, X: Any, cols: Any = None) -> ImplicitALS:
        """Give columns new interactions, or add columns: their factors are solved for, the rows stay.

        Parameters
        ----------
        X : sparse matrix, or array, shape (n_samples, q)
            All interactions of these columns.
        cols : array of int, shape (q,), optional
            Which columns they are; None adds them at the end, and `n_features_in_` grows.

        Returns
        -------
        self : ImplicitALS
            The estimator with these columns.
        """
        check_is_fitted(self)
        observed, n = interactions(X), self.result_.shape[1]
        cols = np.arange(n, n + observed.shape[1]) if cols is None else indices_of(cols, "cols", None, observed.data)
        result = self.result_.with_cols(cols, observed)
        self._take(result, _with_rows(self._seen.transposed, cols, observed.transposed).transposed)
        if result.shape[1] > n:
            self.n_features_in_ = result.shape[1]
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        return self

    def score(self, X: Any, y: Any = None, *, k: int = 10) -> float:  # noqa: ARG002
        """Return the NDCG at k of a fifth of the interactions of each row, which is folded in with the others.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (n_samples, n_features)
            Rows, for instance those that a split kept from `fit`.
        y : ignored
            Present by convention.
        k : int, default 10

        Returns
        -------
        score : float
            Between 0 and 1.  Which interactions are looked for does not depend on the estimator.
        """
        known, held = hold_out_interactions(self._interactions(X, reset=False), _HELD, rng=as_key(0))
        F = self.result_.fold_in(known)
        return ranking_scores(recommend(F, self.result_.col_factors, None, k, seen=known).columns, held).ndcg

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
    def loss_(self) -> float:
        """The objective; NaN after rows or columns were changed."""
        return self._fitted().loss

    @property
    def validation_scores_(self) -> np.ndarray:
        """NDCG at 10 of what was held out after each sweep."""
        return np.asarray(self._fitted().validation_history)

    @property
    def n_iter_(self) -> int:
        """Sweeps done."""
        return self._fitted().n_iter

    @property
    def status_(self) -> Any:
        """How the fit ended."""
        return self._fitted().status

    def _fitted(self) -> ImplicitResult:
        if not hasattr(self, "result_"):
            # AttributeError, so that hasattr() says what it says of any attribute before a fit
            raise AttributeError(f"{type(self).__name__} has no fitted attributes before fit")
        return self.result_

    def _take(self, result: ImplicitResult, seen: Observations) -> None:
        self.result_, self._seen, self.n_components_ = result, seen, result.rank

    def _interactions(self, X: Any, *, reset: bool) -> Observations:
        return checked_interactions(self, X, reset=reset)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def checked_interactions(estimator: Any, X: Any, *, reset: bool) -> Observations:
    """The interactions in X as float32 or float64; COO is taken as it is, so that repeated entries are seen."""
    if not reset:
        check_is_fitted(estimator)
    X = validate_data(
        estimator, X, accept_sparse=("csr", "csc", "coo"), dtype=FLOATS, ensure_all_finite="allow-nan", reset=reset
    )
    return interactions(X)


def _lightly(steps: Steps) -> Callable[[Any], bool]:
    """Tell a step without its factors, which would be copied."""
    return lambda step: steps(_Sweep(step.n_iter, step.loss, step.score))


def _warm(result: ImplicitResult, observed: Observations, rank: int) -> tuple[Any, Any]:
    """The factors of the last fit as a start; new columns are folded in, new rows are solved first anyway."""
    (m, n), (rows, cols) = result.shape, observed.shape
    if cols < n or rank != result.rank:
        raise ValueError(
            f"X must have at least {n} columns and n_components be {result.rank} for a warm start, got {cols} columns "
            f"and {rank}; clone the estimator to start anew"
        )
    if cols > n and rows >= m:
        known = take_rows(take_rows(observed, np.arange(m)).transposed, np.arange(n, cols)).transposed
        result = result.with_cols(np.arange(n, cols), known)
    dtype = observed.data.dtype
    X, Y = np.zeros((rows, rank), dtype), np.zeros((cols, rank), dtype)
    X[: min(m, rows)], Y[: result.shape[1]] = result.row_factors[:rows], result.col_factors
    return X, Y


def _with_rows(old: Observations, places: np.ndarray, new: Observations) -> Observations:
    """The entries of `old` with those of some rows replaced, or rows added."""
    m, size = old.shape[0], max(old.shape[0], int(places.max(initial=-1)) + 1)
    none = m + new.shape[0]  # a row without entries, for numbers that were left out
    both = Observations(
        np.concatenate([old.data, new.data.astype(old.data.dtype)]),
        np.concatenate([old.indices.astype(np.int64), new.indices.astype(np.int64)]),
        np.concatenate([old.indptr.astype(np.int64), new.indptr[1:].astype(np.int64) + old.nnz, [old.nnz + new.nnz]]),
        (none + 1, max(old.shape[1], new.shape[1])),
    )
    source = np.where(np.arange(size) < m, np.arange(size), none)
    source[places] = m + np.arange(new.shape[0])
    return take_rows(both, source)
