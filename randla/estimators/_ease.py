"""EASE, weights between the columns of a matrix of interactions, with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from .._random import as_key
from ..completion.ease import EASEResult, ease
from ..completion.observations import Observations
from ..completion.ranking import TopColumns
from ..completion.ranking_metrics import hold_out_interactions, ranking_scores
from ._base import key_of
from ._implicit import _HELD, checked_interactions


class EASE(BaseEstimator):
    """Predict each column of a matrix of interactions from all the others by ridge regression, in closed form.

    Scores are ``X @ coef_`` with weights of zero diagonal that :func:`randla.ease` describes: one inverse of a matrix
    of the size of the columns, so for up to some ten thousand of them.

    Parameters
    ----------
    reg : float, default 500.0, reg > 0
        Ridge, in units of interactions of a column.
    approx : {None, "svd", "nystrom"}, default None
        Approximation of low rank in place of the inverse, for more columns.
    rank : int or None, default None
        Its rank; None takes ``min(n_features, 256)``.
    threshold : float, default 0.0, threshold >= 0
        Above 0, weights of at most this modulus are dropped, and `coef_` is sparse.
    dtype : {None, "float32", "float64"}, default None
        Of the inverse; None takes single precision where reg is at least 100.
    memory_limit : int, default 2**32
        Largest number of bytes for the inverse, or for the factors.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the probes of the error, and of the panels of the approximations.

    Attributes
    ----------
    coef_ : array or CSR matrix, shape (n_features, n_features), or None
        Weights; None where they are kept as factors in `result_`.
    error_ : float
        How far the inverse is off; see :class:`randla.EASEResult`.
    result_ : EASEResult
        All of it as one object.
    n_features_in_ : int
        Columns seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.ease : the function behind.
    ImplicitALS : factors of rows and columns.

    Notes
    -----
    Values count as numbers: for clicks pass ones.  What is not stored, or NaN, counts as 0.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import EASE
    >>> taste = np.kron(np.eye(2), np.ones((4, 3)))  # four rows like the first three columns, four the others
    >>> model = EASE(1.0).fit(taste)
    >>> model.recommend(np.array([[1.0, 0, 1, 0, 0, 0]]), 1).columns
    array([[1]])
    """

    def __init__(
        self,
        reg: float = 500.0,
        *,
        approx: str | None = None,
        rank: int | None = None,
        threshold: float = 0.0,
        dtype: Any = None,
        memory_limit: int = 2**32,
        random_state: Any = None,
    ) -> None:
        self.reg = reg
        self.approx = approx
        self.rank = rank
        self.threshold = threshold
        self.dtype = dtype
        self.memory_limit = memory_limit
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> EASE:  # noqa: ARG002
        """Compute the weights.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (n_samples, n_features)
            The interactions.
        y : ignored
            Present by convention.
        sample_weight : array, shape (n_samples,), optional
            Weights of rows, not negative.

        Returns
        -------
        self : EASE
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the memory exceeds the limit, or an entry is stored twice.
        """
        observed = self._interactions(X, reset=True)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        self.result_: EASEResult = ease(
            observed, self.reg, sample_weight=sample_weight, approx=self.approx, rank=self.rank,
            threshold=self.threshold, dtype=self.dtype, memory_limit=self.memory_limit,
            rng=key_of(self.random_state),
        )  # fmt: skip
        self.coef_, self.error_ = self.result_.B, self.result_.error
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the scores of all columns; for many rows take `recommend`, which holds a block at a time.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (n_samples, n_features)
            Interactions of rows, those of the fit or others.

        Returns
        -------
        scores : array, shape (n_samples, n_features)
            ``X @ coef_``.
        """
        observed = self._interactions(X, reset=False)
        return self.result_.scores(observed)

    def recommend(self, X: Any, k: int = 10, *, filter_seen: bool = True) -> TopColumns:
        """Return the k columns of largest score of each row, in blocks of rows.

        Parameters
        ----------
        X : sparse matrix, array or data frame, shape (q, n_features)
            Interactions of rows, those of the fit or others.
        k : int, default 10
        filter_seen : bool, default True
            Whether to leave out the columns that a row has an interaction with.

        Returns
        -------
        TopColumns
            ``columns`` (q, k), best first, and their scores ``values`` (q, k); -1 and minus infinity where fewer are
            left.
        """
        observed = self._interactions(X, reset=False)
        return self.result_.recommend(observed, k, filter_seen=filter_seen)

    def similar_items(self, cols: Any, k: int = 10) -> TopColumns:
        """Return the k columns that each of `cols` weighs most for.

        Parameters
        ----------
        cols : array of int, shape (q,)
        k : int, default 10

        Returns
        -------
        TopColumns
            ``columns`` (q, k) and the weights ``values`` (q, k).
        """
        check_is_fitted(self)
        return self.result_.similar(cols, k)

    def score(self, X: Any, y: Any = None, *, k: int = 10) -> float:  # noqa: ARG002
        """Return the NDCG at k of a fifth of the interactions of each row, found from the others.

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
        return ranking_scores(self.result_.recommend(known, k).columns, held).ndcg

    def _interactions(self, X: Any, *, reset: bool) -> Observations:
        return checked_interactions(self, X, reset=reset)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags
