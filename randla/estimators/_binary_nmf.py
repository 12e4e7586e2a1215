"""Nonnegative times binary factorisation, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_choice, check_integer, check_real
from ..nonnegative.binary import binary_codes, binary_nmf
from ..nonnegative.encoding import nonneg_codes
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps

MISSING = ("nan", "absent")
SIDES = ("components", "codes")


class BinaryNMF(Reducer):
    """Factorise nonnegative data as ``X ~ W @ components_``, one factor of zeros and ones.

    Parameters
    ----------
    n_components : int, default 10, n_components >= 1
        Number of parts.
    binary : {"components", "codes"}, default "components"
        Which factor is binary: the parts, as in :func:`randla.binary_nmf`, or the codes of the rows, so that a row is
        the sum of the parts that it has.
    missing : {"nan", "absent"} or None, default None
        What is missing: nothing, the NaN of dense data, or what sparse data do not store.  It is never guessed.
    alpha : float, default 1e-4
        Ridge on the factor that is not binary.
    binary_solver : {"exact", "descent"} or callable, default "exact"
        See :func:`randla.binary_nmf`.
    max_nodes : int, default 1000000
        Vectors that a search may visit.
    init : {"nmf", "random"}, default "nmf"
        Where to start.
    max_iter : int, default 100
        Largest number of iterations.
    tol : float, default 1e-4
        Stop at this relative fall of the objective.
    n_init : int, default 1
        Starts, of which the best is kept.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the starts.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Parts.
    n_components_ : int
        Their number.
    error_ : float
        ``||X - W components_||_F / ||X||_F`` over the known entries.
    objective_ : float
        Half the squared norm with the ridge.
    n_unproved_ : int
        0/1 vectors of the last iteration that are not proved to be best.
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
    randla.binary_nmf : the function behind, for other array libraries too.

    Notes
    -----
    ``transform`` finds the nonnegative codes of least loss for binary parts, or the 0/1 codes for nonnegative parts.
    A callback (``set_callbacks``) sees one task for each iteration, with the fields of its step as metadata.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import BinaryNMF
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 2, (50, 3)) @ rng.random((3, 20))
    >>> model = BinaryNMF(3, binary="codes", alpha=0.0, random_state=0).fit(X)
    >>> bool(np.abs(model.inverse_transform(model.transform(X)) - X).max() < 1e-6)
    True
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        binary: str = "components",
        missing: str | None = None,
        alpha: float = 1e-4,
        binary_solver: Any = "exact",
        max_nodes: int = 1_000_000,
        init: str = "nmf",
        max_iter: int = 100,
        tol: float = 1e-4,
        n_init: int = 1,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.binary = binary
        self.missing = missing
        self.alpha = alpha
        self.binary_solver = binary_solver
        self.max_nodes = max_nodes
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> BinaryNMF:
        """Find the parts of X.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Nonnegative data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : BinaryNMF
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X has negative entries, or NaN where none are expected.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended before the objective settled; `status_` says why.
        """
        X = self._nonnegative(X, reset=True)
        rank = check_integer(self.n_components, "n_components", low=1)
        steps = Steps(self, X, y)
        codes = self.binary == "codes"
        result = binary_nmf(
            X.T if codes else X, rank, absent=self._absent(X), alpha=self.alpha, binary_solver=self.binary_solver,
            max_nodes=self.max_nodes, init=self.init, max_iter=self.max_iter, tol=self.tol, n_init=self.n_init,
            callback=steps, rng=key_of(self.random_state), on_failure="ignore",
        )  # fmt: skip
        self.components_ = np.ascontiguousarray(result.W.T) if codes else result.H
        self.n_components_, self.n_iter_, self.status_ = rank, result.n_iter, result.status
        self.error_, self.objective_, self.n_unproved_ = result.error, result.objective, result.n_unproved
        if not (result.converged or steps.stopped):
            message = f"BinaryNMF ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        steps.close({"components_": self.components_, "n_components_": rank})
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the codes of rows in the parts.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Nonnegative data, with missing entries as `missing` says.

        Returns
        -------
        W : array, shape (n_samples, n_components_)
            Codes in the dtype of X, nonnegative or of zeros and ones.
        """
        check_is_fitted(self)
        X = self._nonnegative(X, reset=False)
        parts = self.components_.astype(X.dtype, copy=False)
        if self.binary == "components":
            absent = None if self.missing is None else "missing"
            alpha = check_real(self.alpha, "alpha", low=0.0)
            return np.asarray(nonneg_codes(X, parts, alpha=alpha, absent=absent))
        found = binary_codes(
            X.T, np.ascontiguousarray(parts.T), absent=self._absent(X), binary_solver=self.binary_solver,
            max_nodes=self.max_nodes,
        )  # fmt: skip
        return np.ascontiguousarray(found.T)

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

    def _absent(self, X: Any) -> str | None:
        """What the function is told of entries that are not stored."""
        if not hasattr(X, "nnz"):
            return None
        return "missing" if self.missing == "absent" else "zeros"

    def _nonnegative(self, X: Any, *, reset: bool) -> Any:
        check_choice(self.binary, "binary", SIDES)
        if self.missing is not None:
            check_choice(self.missing, "missing", MISSING)
        sparse = hasattr(X, "nnz")
        if self.missing == "nan" and sparse:
            raise TypeError('missing must be "absent" or None for sparse data, got "nan"; say what is not stored')
        if self.missing == "absent" and not sparse:
            raise ValueError('missing must be "nan" for dense data, got "absent"; store the known entries sparsely')
        return validate_data(
            self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=reset, ensure_non_negative=True,
            ensure_all_finite="allow-nan" if self.missing == "nan" else True,
        )  # fmt: skip

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = self.missing != "nan"
        tags.input_tags.allow_nan = self.missing == "nan"
        return tags
