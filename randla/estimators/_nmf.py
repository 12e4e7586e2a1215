"""Nonnegative matrix factorisation, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_choice, check_integer, check_real
from ..nonnegative.encoding import nonneg_codes
from ..nonnegative.masked import masked_nmf
from ..nonnegative.online import OnlineNMF
from ..nonnegative.solvers import nmf
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps

MISSING = ("nan", "absent")


def _by_batches(estimator: Any) -> bool:
    """Sums of products take the place of rows for squares over all entries only."""
    if estimator.loss != "frobenius" or estimator.missing is not None:
        raise AttributeError('partial_fit is there for loss="frobenius" and missing=None only')
    return True


class NMF(Reducer):
    """Factorise nonnegative data into nonnegative parts: ``X ~ W @ components_``.

    Takes the parameters of :class:`sklearn.decomposition.NMF` where they mean the same, and missing entries.  Fits by
    :func:`randla.nmf`, or by :func:`randla.masked_nmf` where entries are missing.

    Parameters
    ----------
    n_components : int or "auto", default "auto", n_components >= 1
        Number of parts; "auto" takes the number of features.
    loss : {"frobenius", "kl", "kullback-leibler", "itakura-saito"} or float, default "frobenius"
        Loss, scikit-learn's `beta_loss`.
    solver : {"auto", "hals", "pivots", "randomized", "newton", "mu"}, default "auto"
        See :func:`randla.nmf`.
    init : str, default "auto"
        "random", "nndsvd", "nndsvda", "nndsvdar", "nnsvdlrc" or "spa"; see :func:`randla.nmf`.
    missing : {"nan", "absent"} or None, default None
        What is missing: nothing, the NaN of dense data, or what sparse data do not store.  It is never guessed.
    alpha_W : float, default 0.0
        Penalty of W.  It is multiplied by n_features, as in scikit-learn; not with `missing`.
    alpha_H : float or "same", default "same"
        Penalty of the parts.  It is multiplied by n_samples, as in scikit-learn; not with `missing`.
    l1_ratio : float, default 0.0, 0 <= l1_ratio <= 1
        Share of the sum of entries in the penalties.
    validation_fraction : float, default 0.0, 0 <= validation_fraction < 1
        With `missing`: share of the known entries held out, whose least error ends the fit.
    max_iter : int, default 200
        Largest number of iterations.
    tol : float, default 1e-4
        Stop at this scale-free projected gradient; with `missing`, at this relative fall of the objective.
    n_init : int, default 1
        Starts, of which the best is kept.
    batch_size : int, default 1024
        Rows for which :meth:`partial_fit` forgets by 0.7.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of starts and sketches.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Parts, nonnegative.
    n_components_ : int
        Their number.
    reconstruction_err_ : float
        Frobenius norm of ``X - W components_``, or the square root of twice the divergence, as in scikit-learn; over
        the known entries with `missing`.
    error_ : float
        Relative error as :func:`randla.nmf` tells it; with `missing` the root mean square of known or held-out
        residuals; after :meth:`partial_fit` the running error of batches.
    stationarity_ : float
        Scale-free projected gradient at the end.
    n_iter_ : int
        Iterations done.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.nmf : the function behind, for other array libraries too.

    Notes
    -----
    ``transform`` finds the nonnegative codes of least loss for the parts, with `alpha_W`.  ``fit_transform(X)`` is
    ``fit(X).transform(X)``.  A callback (``set_callbacks``) sees one task for each iteration, with the fields of its
    step as metadata: n_iter, objective, error, stationarity.

    Examples
    --------
    >>> from randla import NMF
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data
    >>> model = NMF(8, random_state=0).fit(X)
    >>> model.transform(X[:5]).shape, bool(model.error_ < 0.5)
    ((5, 8), True)
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        loss: str | float = "frobenius",
        solver: str = "auto",
        init: str = "auto",
        missing: str | None = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        validation_fraction: float = 0.0,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_init: int = 1,
        batch_size: int = 1024,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.loss = loss
        self.solver = solver
        self.init = init
        self.missing = missing
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.validation_fraction = validation_fraction
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.batch_size = batch_size
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> NMF:
        """Find the parts of X.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Nonnegative data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : NMF
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X has negative entries, or NaN where none are expected.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended before it was stationary; `status_` says why.
        """
        X = self._nonnegative(X, reset=True)
        rank = self._rank(X)
        steps = Steps(self, X, y)
        result = self._fitted(X, rank, steps)
        self._store(result, X)
        if not (result.converged or steps.stopped):
            warnings.warn(f"NMF ended with {self.status_!r}: {self.status_.advice}", ConvergenceWarning, stacklevel=2)
        steps.close({"components_": self.components_, "n_components_": rank})
        return self

    @available_if(_by_batches)
    def partial_fit(self, X: Any, y: Any = None) -> NMF:  # noqa: ARG002
        """Learn from more rows, from sums that take the place of the rows seen before.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            A batch of rows, nonnegative.  Loss "frobenius" without missing entries only.
        y : ignored
            Present by convention.

        Returns
        -------
        self : NMF
            The estimator with more rows seen.

        Raises
        ------
        ValueError
            As `fit` does, or if X has another number of features.
        """
        first = not hasattr(self, "online_")
        X = self._nonnegative(X, reset=first)
        if first:
            batch = check_integer(self.batch_size, "batch_size", low=1)
            self.online_ = OnlineNMF(self._rank(X), batch=batch, rng=key_of(self.random_state))
        self.online_.partial(X)
        if self.online_.H is None:  # nothing but zeros so far
            self.components_ = np.zeros((self.online_.rank, X.shape[1]), X.dtype)
        else:
            self.components_ = np.asarray(self.online_.H)
        self.n_components_, self.n_iter_ = self.online_.rank, self.online_.n_batches
        self.error_ = self.online_.error
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the nonnegative codes of rows in the parts.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Nonnegative data, with missing entries as `missing` says.

        Returns
        -------
        W : array, shape (n_samples, n_components_)
            Codes, in the dtype of X (float32 or float64).
        """
        check_is_fitted(self)
        X = self._nonnegative(X, reset=False)
        scale = 1 if self.missing is not None else X.shape[1]
        return np.asarray(
            nonneg_codes(
                X, self.components_.astype(X.dtype, copy=False), loss=self.loss,
                alpha=scale * check_real(self.alpha_W, "alpha_W", low=0.0), l1_ratio=self.l1_ratio,
                absent=None if self.missing is None else "missing",
            )
        )  # fmt: skip

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ components_``: the model, also where entries were missing.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Codes.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            The model, dense, in the dtype of X.
        """
        X = self._intake_reduced(X)
        return X @ self.components_.astype(X.dtype, copy=False)

    def _nonnegative(self, X: Any, *, reset: bool) -> Any:
        if self.missing is not None:
            check_choice(self.missing, "missing", MISSING)
        if self.missing == "nan" and hasattr(X, "nnz"):
            raise TypeError('missing must be "absent" or None for sparse data, got "nan"; say what is not stored')
        return validate_data(
            self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=reset, ensure_non_negative=True,
            ensure_all_finite="allow-nan" if self.missing == "nan" else True,
        )  # fmt: skip

    def _rank(self, X: Any) -> int:
        if self.n_components == "auto":
            return int(X.shape[1])
        return check_integer(self.n_components, "n_components", low=1)

    def _fitted(self, X: Any, rank: int, steps: Steps) -> Any:
        alpha_W = check_real(self.alpha_W, "alpha_W", low=0.0)
        alpha_H = alpha_W if self.alpha_H == "same" else check_real(self.alpha_H, "alpha_H", low=0.0)
        common: dict[str, Any] = {
            "alpha_W": alpha_W, "alpha_H": alpha_H, "l1_ratio": self.l1_ratio, "max_iter": self.max_iter,
            "tol": self.tol, "n_init": self.n_init, "callback": steps, "rng": key_of(self.random_state),
            "on_failure": "ignore",
        }  # fmt: skip
        if self.missing is None:
            return nmf(X, rank, loss=self.loss, solver=self.solver, init=self.init, **common)
        if self.loss != "frobenius" or self.solver not in ("auto", "hals"):
            raise ValueError(
                'loss must be "frobenius" and solver "auto" for missing entries, got '
                f"loss={self.loss!r}, solver={self.solver!r}"
            )
        if self.missing == "absent" and not hasattr(X, "nnz"):
            raise ValueError('missing must be "nan" for dense data, got "absent"; store the known entries sparsely')
        absent = "missing" if hasattr(X, "nnz") else None
        return masked_nmf(X, rank, absent=absent, validation_fraction=self.validation_fraction, **common)

    def _store(self, result: Any, X: Any) -> None:
        self.components_ = np.asarray(result.H)
        self.n_components_, self.n_iter_ = result.rank, result.n_iter
        self.error_, self.stationarity_, self.status_ = result.error, result.stationarity, result.status
        if self.missing is None and self.loss == "frobenius":
            norm = np.sqrt(np.sum(np.square(X.data if hasattr(X, "nnz") else X, dtype=np.float64)))
            self.reconstruction_err_ = float(result.error * norm)
        else:
            self.reconstruction_err_ = float(np.sqrt(2 * max(result.objective, 0.0)))
        if hasattr(self, "online_"):
            del self.online_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = self.missing != "nan"
        tags.input_tags.allow_nan = self.missing == "nan"
        return tags
