"""Randomized truncated SVD and PCA, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning

from .._checks import check_real
from .._results import Status
from ..linear_maps import block_matmul
from ..lowrank import svd
from ._base import Reducer, key_of
from ._callbacks import Steps


class TruncatedSVD(Reducer):
    """Reduce the features to the leading right singular vectors, to a rank or a tolerance; with centring this is PCA.

    Finds V of shape (n_features, n_components_) with orthonormal columns such that ``X @ V @ V.T`` is near X, by a
    randomized block iteration, and transforms by ``X @ V``.  Sparse data are never densified, also when centred.  The
    error of the approximation is estimated and reported, and a tolerance can be given in place of a rank.

    Parameters
    ----------
    n_components : int or None, default 2, 1 <= n_components <= min(n_samples, n_features)
        Rank without `tol`; with `tol` the largest rank allowed, and None allows all.
    tol : float or None, default None, 0 < tol < 1
        Take the least rank found whose error ``||X - X V V'||_F`` is at most ``tol * ||X||_F``, with X centred where
        `center` says so.
    center : bool, default False
        Subtract the column means, implicitly.
    method : {"auto", "krylov", "subspace"}, default "auto"
        Iteration of :func:`randla.svd`.
    n_oversamples : int, default 10
        Columns of the random start beyond n_components.
    n_power_iter : int or None, default None
        Power iterations; None leaves the choice to :func:`randla.svd`.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the random start.  An int gives the same fit at every call; a RandomState or a Generator is consumed.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Right singular vectors as rows, most important first; the entry of largest modulus in each row is positive.
    singular_values_ : array, shape (n_components_,)
        Singular values, descending.
    explained_variance_ : array, shape (n_components_,)
        Variance of the columns of ``transform(X)``, with n_samples - 1 in the denominator.
    explained_variance_ratio_ : array, shape (n_components_,)
        The same as shares of the summed variance of the features.
    mean_ : array, shape (n_features,), or None
        Column means, None without `center`.
    n_components_ : int
        Columns of the output.
    rank_ : int
        Rank reached, equal to n_components_.
    error_ : float
        Estimate of the relative error ``||X - X V V'||_F / ||X||_F``.
    error_bound_ : float
        Upper bound of the same, which holds with the confidence that :func:`randla.svd` states.
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
    randla.svd : the function behind; also for LinearOperators, files, streams and other array libraries.
    SparseSignProjection : compress without looking at the data.

    Notes
    -----
    ``fit_transform(X)`` is ``fit(X).transform(X)``, the product ``X @ V``, and not the left factor of the fit, which
    differs from it by the error of the fit.  A callback (``set_callbacks``) sees one task for each iteration, whose
    end brings as metadata the fields of that step: n_iter, rank, error (relative, NaN where not known yet), n_passes
    and n_matvecs.  One that returns True ends the fit; the estimator is then fitted with what was reached, unwarned.

    Examples
    --------
    >>> from randla import TruncatedSVD
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data
    >>> TruncatedSVD(10, center=True, random_state=0).fit_transform(X).shape
    (1797, 10)
    >>> model = TruncatedSVD(None, tol=0.1, random_state=0).fit(X)
    >>> bool(model.error_ <= 0.1)
    True
    """

    def __init__(
        self,
        n_components: int | None = 2,
        *,
        tol: float | None = None,
        center: bool = False,
        method: str = "auto",
        n_oversamples: int = 10,
        n_power_iter: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.center = center
        self.method = method
        self.n_oversamples = n_oversamples
        self.n_power_iter = n_power_iter
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Find the leading right singular vectors of X.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : TruncatedSVD
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
        X = self._intake(X, reset=True)
        sizes = self._sizes(X)
        steps = Steps(self, X, y)
        result = svd(
            X, **sizes, method=self.method, center=self.center, n_oversamples=self.n_oversamples,
            n_power_iter=self.n_power_iter, rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        for name, value in _fitted(result, X).items():
            setattr(self, name, value)
        if not (result.converged or steps.stopped):
            self._warn()
        steps.close(partial(_fitted, result, X))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return ``X @ V``, or ``(X - mean_) @ V`` where the fit was centred.

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
        V = np.ascontiguousarray(self.components_.T, dtype=X.dtype)
        reduced = block_matmul(X, V)
        if self.mean_ is not None:
            reduced -= self.mean_.astype(X.dtype, copy=False) @ V
        return reduced

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ V.T``, plus the means where the fit was centred.

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
        rebuilt = X @ self.components_.astype(X.dtype, copy=False)
        if self.mean_ is not None:
            rebuilt += self.mean_.astype(X.dtype, copy=False)
        return rebuilt

    def _sizes(self, X: Any) -> dict[str, Any]:
        """The arguments of `svd` that say how far to go."""
        if not isinstance(self.center, (bool, np.bool_)):
            raise TypeError(f"center must be True or False, got {self.center!r}")
        rank = None if self.n_components is None else self._check_components(self.n_components, X, of="both")
        if self.tol is not None:
            tol = check_real(self.tol, "tol", low=0.0, high=1.0, closed="neither")
            return {"rank": None, "tol": tol, "max_rank": rank}
        if rank is None:
            raise ValueError("n_components must be an integer where tol is None, got None; set one of them")
        return {"rank": rank}

    def _warn(self) -> None:
        if self.status_ is Status.MAX_ITER and self.tol is not None:
            advice = f"the error is {self.error_:.3g} at {self.n_components_} components; raise n_components or tol"
        else:
            advice = self.status_.advice
        warnings.warn(f"TruncatedSVD ended with {self.status_!r}: {advice}", ConvergenceWarning, stacklevel=4)


def _fitted(result: Any, X: Any) -> dict[str, Any]:
    """The attributes of an estimator fitted with this result."""
    variances, total = _variances(result, X)
    return {
        "components_": result.Vh,
        "singular_values_": result.s,
        "explained_variance_": variances,
        "explained_variance_ratio_": variances / total if total > 0 else np.zeros_like(variances),
        "mean_": result.mean,
        "n_components_": result.rank,
        "rank_": result.rank,
        "error_": result.error,
        "error_bound_": result.error_bound,
        "n_iter_": result.n_iter,
        "status_": result.status,
    }


def _variances(result: Any, X: Any) -> tuple[np.ndarray, float]:
    """Variances of the columns of X V, and the sum of those of the columns of X; one pass over X if not centred."""
    n_samples, degrees = X.shape[0], max(X.shape[0] - 1, 1)
    squares, total = result.s.astype(np.float64) ** 2, float(result.norm) ** 2
    if result.mean is None:
        mean = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel() / n_samples
        squares = np.maximum(squares - n_samples * (result.Vh @ mean) ** 2, 0.0)
        total -= n_samples * float(mean @ mean)
    return (squares / degrees).astype(result.s.dtype), max(total, 0.0) / degrees
