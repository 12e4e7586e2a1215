"""Truncated SVD of data that arrive in batches, with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.utils.validation import check_is_fitted

from .._arrays import is_sparse
from .._checks import check_integer, check_real
from ..linear_maps import block_matmul
from ..updating import UpdatableSVD
from ._base import Reducer
from ._callbacks import Steps

_LEAST_BATCH = 64  # rows per update: enough for BLAS, few enough that a batch of a sparse matrix stays small


@dataclass(frozen=True)
class _IncrementalStep:
    """What a callback is told after each batch of a fit."""

    n_iter: int
    n_samples_seen: int
    error_bound: float


class _Formed:
    """The right singular vectors, formed once for each state of a decomposition."""

    def __init__(self) -> None:
        self.state: tuple[int, int] | None = None
        self.value: Any = None

    def vectors(self, tracked: UpdatableSVD, rank: int) -> np.ndarray:
        state = (tracked.n_updates, rank)
        if self.state != state:
            self.value, self.state = tracked.right_vectors(rank), state
        return self.value


class IncrementalSVD(Reducer):
    """Reduce the features to the leading right singular vectors of rows that arrive in batches.

    Each batch updates the decomposition of all rows seen before, which are not kept: the cost depends on the entries
    of the batch and on the features that they touch, not on the rows seen nor on n_features, and sparse data are never
    densified.  Without centring: the columns of a sparse matrix keep their zeros.

    Parameters
    ----------
    n_components : int, default 2, 1 <= n_components <= n_features
        Rank.  As long as the rows seen span fewer dimensions there are fewer components.
    n_oversamples : int, default 10, n_oversamples >= 0
        Singular values beyond n_components that are carried from batch to batch, for accuracy.
    batch_size : int or None, default None, batch_size >= 1
        Rows per update; larger ones are cut.  None takes ``max(64, 2 (n_components + n_oversamples))``.
    decay : float, default 1.0, 0 < decay <= 1
        What all rows seen before are multiplied with at each `partial_fit`, so that old ones fade.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Right singular vectors as rows, most important first; the entry of largest modulus in each row is positive.
    singular_values_ : array, shape (n_components_,)
        Singular values, descending.
    n_components_ : int
        Columns of the output.
    error_ : float
        Upper bound of ``||X - X_k||_F / ||X||_F`` for all rows seen, as they have faded, and their approximation X_k of
        rank n_components_, of which `components_` are the right singular vectors.  It is the error itself, up to
        rounding, and also above that of ``X @ V @ V.T``.
    n_samples_seen_ : int
        Rows seen.
    n_batches_seen_ : int
        Updates done: each `partial_fit` counts its batches.
    svd_ : UpdatableSVD
        The decomposition, with the left factor: ``svd_.row_embedding(i)``, ``svd_.append_columns(E)`` and so on act on
        it, and the next `partial_fit` goes on from there.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    TruncatedSVD : for data that are all there.
    randla.UpdatableSVD : the same without scikit-learn, with new columns, changes in place and removal of rows.

    Notes
    -----
    The left factor takes 8 bytes (n_components + n_oversamples) for each row seen (4 for float32 data), the right one
    as much for each feature.  `components_` is formed when it is asked for the first time after a batch, and so by
    `transform`.  A callback (``set_callbacks``) sees one task for each batch of a `fit`, whose end brings as metadata
    n_iter, n_samples_seen and error_bound (relative); one that returns True ends the fit there.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from randla import IncrementalSVD
    >>> model = IncrementalSVD(5)
    >>> for seed in range(3):
    ...     model = model.partial_fit(sp.random_array((200, 3000), density=0.01, rng=seed, format="csr"))
    >>> model.components_.shape, model.n_samples_seen_
    ((5, 3000), 600)
    >>> model.transform(sp.random_array((4, 3000), density=0.01, rng=3, format="csr")).shape
    (4, 5)
    """

    def __init__(
        self, n_components: int = 2, *, n_oversamples: int = 10, batch_size: int | None = None, decay: float = 1.0
    ) -> None:
        self.n_components = n_components
        self.n_oversamples = n_oversamples
        self.batch_size = batch_size
        self.decay = decay

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> IncrementalSVD:
        """Forget what was seen and take up X in batches.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : IncrementalSVD
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X has non-finite entries.
        """
        X = self._intake(X, reset=True)
        rank, batch_size, _ = self._sizes(X)
        self._begin(X, rank)
        steps = Steps(self, X, y)
        for stop in self._updates(X, batch_size):
            if steps(_IncrementalStep(self.svd_.n_updates, stop, self.error_)):
                break
        steps.close({name: getattr(self, name) for name in ("svd_", "_wanted", "_formed", "_dtype")})
        return self

    def partial_fit(self, X: Any, y: Any = None) -> IncrementalSVD:  # noqa: ARG002
        """Take up more rows.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Rows beyond those seen; CSR is taken as it is.
        y : ignored
            Present by convention.

        Returns
        -------
        self : IncrementalSVD
            The estimator with more rows seen.

        Raises
        ------
        ValueError
            As `fit` does, or if X has another number of features than the rows before.
        """
        first = not hasattr(self, "svd_")
        X = self._intake(X, reset=first)
        rank, batch_size, decay = self._sizes(X)
        if first:
            self._begin(X, rank)
        elif decay < 1.0:
            self.svd_.decay(decay)
        for _ in self._updates(X, batch_size):
            pass
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return ``X @ V``.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Data to reduce.  A sparse matrix is never densified.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            The reduced data, dense, in the dtype of X (float32 or float64).
        """
        X = self._intake(X, reset=False)
        return block_matmul(X, np.ascontiguousarray(self.components_.T, dtype=X.dtype))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ V.T``.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Reduced data.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            The rebuilt data, dense, in the dtype of X.
        """
        X = self._intake_reduced(X)
        return X @ self.components_.astype(X.dtype, copy=False)

    @property
    def components_(self) -> np.ndarray:
        """Right singular vectors as rows, shape ``(n_components_, n_features)``."""
        check_is_fitted(self)
        return self._formed.vectors(self.svd_, self.n_components_)

    @property
    def n_components_(self) -> int:  # type: ignore[override]  # it follows the rows seen
        """Columns of the output."""
        check_is_fitted(self)
        return min(int(self._wanted), int(self.svd_.s.shape[0]))

    @property
    def singular_values_(self) -> np.ndarray:
        """Singular values, descending, shape ``(n_components_,)``."""
        return self.svd_.s[: self.n_components_].astype(self._dtype)

    @property
    def error_(self) -> float:
        """Upper bound of the relative error of the rows seen."""
        return self.svd_.relative_error(self.n_components_)

    @property
    def n_samples_seen_(self) -> int:
        """Rows seen."""
        return self.svd_.shape[0]

    @property
    def n_batches_seen_(self) -> int:
        """Updates done."""
        return self.svd_.n_updates

    def _sizes(self, X: Any) -> tuple[int, int, float]:
        """Rank to carry, rows per update and decay, checked."""
        self._wanted = self._check_components(self.n_components, X, of="n_features")
        rank = self._wanted + check_integer(self.n_oversamples, "n_oversamples", low=0)
        default = max(_LEAST_BATCH, 2 * rank)
        batch_size = default if self.batch_size is None else check_integer(self.batch_size, "batch_size", low=1)
        decay = check_real(self.decay, "decay", low=0.0, high=1.0, closed="right")
        return min(rank, X.shape[1]), batch_size, decay

    def _begin(self, X: Any, rank: int) -> None:
        self.svd_, self._formed, self._dtype = UpdatableSVD(rank, rng=0), _Formed(), X.dtype

    def _updates(self, X: Any, batch_size: int) -> Iterator[int]:
        """Take up X batch by batch; yields the rows of it that are done."""
        X = X.tocsr() if is_sparse(X) else X
        for start in range(0, X.shape[0], batch_size):
            self.svd_.append_rows(X[start : start + batch_size])
            yield min(start + batch_size, X.shape[0])
