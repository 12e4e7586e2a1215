"""Kernel ridge regression with scikit-learn's interface: on a few centres, or on all samples."""

from __future__ import annotations

import math
import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._backend import kernel as backend_kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key
from ..lowrank.rpcholesky import rpcholesky
from ..regression.kernel_ridge import KernelRidgeResult, kernel_ridge
from ..sampling.kernel_leverage import kernel_leverage_sample
from ._base import FLOATS, key_of
from ._callbacks import Steps
from ._nystroem import cluster_centres
from ._pairwise import as_points, kernel_matrix_of

CENTERS = ("rpcholesky", "uniform", "ridge_leverage", "kmeans")
SOLVERS = ("auto", "krill", "falkon", "direct")

_REPORTED = {
    "residual_norm_": "residual_norm",
    "residual_": "residual",
    "error_": "error",
    "error_kind_": "error_kind",
    "n_iter_": "n_iter",
    "history_": "history",
    "status_": "status",
}


class _KernelModel(CallbackSupportMixin, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A function ``sum_j dual_coef_j kernel(x, c_j)`` over centres c."""

    alpha: float
    kernel: Any
    gamma: float | None
    coef0: float | None
    degree: float | None
    kernel_params: dict[str, Any] | None
    tol: float | None
    max_iter: int
    memory_limit: int
    random_state: Any

    def _solve(self, K: Any, X: Any, y: Any, weights: Any, key: Key, steps: Any) -> KernelRidgeResult:
        raise NotImplementedError

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data; the kernel matrix for ``kernel="precomputed"``.
        y : array, shape (n_samples,) or (n_samples, n_targets)
            The targets, cast to the dtype of X.
        sample_weight : float or array, shape (n_samples,), optional
            What the squared residuals are multiplied with, >= 0.  Samples of weight zero are left out.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, X or y has non-finite entries, or a weight is negative.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the tolerance was not reached; `status_` says why.
        """
        X, y = validate_data(self, X, y, accept_sparse=("csr", "csc"), dtype=FLOATS, multi_output=True, y_numeric=True)
        X, y, weights = as_points(X), y.astype(X.dtype, copy=False), None
        steps = Steps(self, X, y)
        rows = np.arange(X.shape[0])
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
            rows = np.flatnonzero(weights > 0)
            weights = weights[rows]
        if len(rows) == 0:
            raise ValueError("sample_weight must have a positive entry, got zeros only")
        K = kernel_matrix_of(self, self._training(X, rows))
        result = self._solve(K, self._training(X, rows), y[rows], weights, key_of(self.random_state), steps)
        self._keep(result, X, rows)
        if not (result.converged or steps.stopped):
            message = f"{type(self).__name__} ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        steps.close({name: getattr(self, name) for name in (*_REPORTED, "dual_coef_", "centers_", "center_indices_")})
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the fitted function at samples, from kernel values computed tile by tile.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Samples; for ``kernel="precomputed"`` their kernel values with all training samples.

        Returns
        -------
        y : array, shape (n_samples,) or (n_samples, n_targets)
            Predicted targets.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=False)
        X = as_points(X)
        if self.kernel == "precomputed":
            return X[:, self.center_indices_] @ self.dual_coef_
        X = X.astype(self.centers_.dtype, copy=False)
        return kernel_matrix_of(self, self.centers_, X).cross_matmul(X, self.dual_coef_)

    def _training(self, X: Any, rows: np.ndarray) -> Any:
        if len(rows) == X.shape[0]:
            return X
        return X[np.ix_(rows, rows)] if self.kernel == "precomputed" else X[rows]

    def _keep(self, result: KernelRidgeResult, X: Any, rows: np.ndarray) -> None:
        for name, field in _REPORTED.items():
            value = getattr(result, field)
            setattr(self, name, np.array(value) if isinstance(value, tuple) and name != "history_" else value)
        self.n_iter_ = max(1, result.n_iter)  # scikit-learn counts a direct solution as one iteration
        self.solver_, self.dual_coef_ = result.solver, result.coef
        if self._points is not None:
            self.center_indices_, self.centers_ = None, self._points
        else:
            self.center_indices_ = rows if result.centers is None else rows[result.centers]
            self.centers_ = X[self.center_indices_]
        del self._points

    def _common(self) -> dict[str, Any]:
        return {"tol": self.tol, "max_iter": self.max_iter, "memory_limit": self.memory_limit, "on_failure": "ignore"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


class NystromRidge(_KernelModel):
    """Kernel ridge regression on a few centres, for samples too many for a kernel matrix.

    Minimises ``sum_i w_i (y_i - f(x_i))**2 + alpha ||f||**2`` over ``f = sum_j dual_coef_j kernel(., c_j)``, with the
    norm of the kernel's own space: scikit-learn's KernelRidge where every sample is a centre.  Costs n_samples times
    n_centers for each of 20 to 40 steps, and n_centers**3; the features themselves are never stored.

    Parameters
    ----------
    alpha : float, alpha >= 0, default 1.0
        The penalty, as in scikit-learn's KernelRidge.
    kernel : str or callable, default "rbf"
        A name of `sklearn.metrics.pairwise.pairwise_kernels`, "matern32", "matern52" or "precomputed", or a function
        of two samples that returns a number.
    gamma, coef0, degree : float, optional
        Parameters of the kernel; None leaves them to it.
    kernel_params : dict, optional
        Further parameters, for a callable.
    n_centers : int, n_centers >= 1, optional
        Number of centres; default ``sqrt(n_samples) log(n_samples)``, rounded up, and all samples below 100.
    centers : {"rpcholesky", "uniform", "ridge_leverage", "kmeans"}, default "rpcholesky"
        How they are chosen, see `Nystroem`.
    solver : {"auto", "krill", "falkon", "direct"}, default "auto"
        See :func:`randla.regression.kernel_ridge.kernel_ridge`.
    tol : float, optional
        Stop when the relative residual of the normal equations is at most this; 1e-6 by default, 1e-4 for float32.
    max_iter : int, default 200
        Most steps.
    memory_limit : int, default 2**30
        Bytes up to which the kernel values of samples with centres are kept; beyond they are computed anew in each
        step.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the centres and of the sketch.

    Attributes
    ----------
    dual_coef_ : array, shape (n_centers,) or (n_centers, n_targets)
        Coefficients of the centres.
    centers_ : array or CSR matrix, shape (n_centers, n_features)
        The centres.
    center_indices_ : int64 array, shape (n_centers,), or None
        Their numbers among the samples; None for "kmeans".
    trace_error_ : float
        For "rpcholesky": the share of the trace of the kernel matrix that the centres miss; else NaN.
    error_ : float or array, shape (n_targets,)
        Bound or estimate of ``||f - f*|| / ||y||`` over the samples, for the exact solution f* on the same centres.
    error_kind_ : {"bound", "sketched"}
        What `error_` is.
    residual_, residual_norm_ : float or array, shape (n_targets,)
        The relative residual of the normal equations, and the norm of y - f over the samples.
    n_iter_, history_, solver_, status_
        Steps, the residual after each, what solved it, and how it ended.
    n_features_in_ : int
        Features seen during fit.

    See Also
    --------
    KernelRidgePCG : all samples are centres.
    Nystroem : the features, for other models.

    Notes
    -----
    With centres drawn by leverage, of order ``sqrt(n) log(n)`` of them keep the optimal rate of learning [1]_.

    References
    ----------
    .. [1] Rudi, Camoriano and Rosasco, "Less is more: Nystrom computational regularization", NeurIPS 2015.
    .. [2] Diaz, Epperly, Frangella, Tropp and Webber, "Robust, randomized preconditioning for kernel ridge regression",
       arXiv:2304.12465.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.estimators import NystromRidge
    >>> X = np.random.default_rng(0).uniform(-1, 1, (3000, 2))
    >>> y = np.sin(4 * X[:, 0]) * X[:, 1]
    >>> model = NystromRidge(1e-4, gamma=2.0, n_centers=100, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.999)
    True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        kernel: Any = "rbf",
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        n_centers: int | None = None,
        centers: str = "rpcholesky",
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int = 200,
        memory_limit: int = 2**30,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.coef0 = coef0
        self.degree = degree
        self.kernel_params = kernel_params
        self.n_centers = n_centers
        self.centers = centers
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.memory_limit = memory_limit
        self.random_state = random_state

    def _solve(self, K: Any, X: Any, y: Any, weights: Any, key: Key, steps: Any) -> KernelRidgeResult:
        check_real(self.alpha, "alpha", low=0.0)
        n, how = K.shape[0], check_choice(self.centers, "centers", CENTERS)
        check_choice(self.solver, "solver", SOLVERS)
        k = default_centers(n) if self.n_centers is None else check_integer(self.n_centers, "n_centers", low=1)
        k, self._points, self.trace_error_ = min(k, n), None, math.nan
        chosen: Any
        if how == "kmeans":
            if self.kernel == "precomputed":
                raise ValueError('centers must be samples for kernel="precomputed", got "kmeans"')
            chosen = self._points = cluster_centres(X, k, key)
        elif k == n:
            chosen, self.trace_error_ = np.arange(n), 0.0
        elif how == "rpcholesky":
            found = rpcholesky(K, k, rng=key, on_failure="ignore")
            chosen, self.trace_error_ = found.pivots, float(found.error)
        elif how == "ridge_leverage":
            chosen = kernel_leverage_sample(K, k, rng=key)
        else:
            chosen = backend_kernel("distinct_rows", np)(key.fold("centers"), n, k)
        return kernel_ridge(
            K, y, self.alpha, centers=chosen, weights=weights, solver=self.solver, rng=key, callback=steps,
            **self._common(),
        )  # fmt: skip


class KernelRidgePCG(_KernelModel):
    """Kernel ridge regression on all samples, by preconditioned conjugate gradients.

    Solves ``(K + alpha I) dual_coef_ = y`` as scikit-learn's KernelRidge does, without its n_samples**3 operations:
    each step costs one product with K, whose entries are computed tile by tile where K does not fit `memory_limit`.
    The preconditioner is a randomly pivoted Cholesky factor of K.

    Parameters
    ----------
    alpha : float, alpha > 0, default 1.0
        The penalty.
    kernel : str or callable, default "rbf"
        As in :class:`NystromRidge`.
    gamma, coef0, degree : float, optional
        Parameters of the kernel; None leaves them to it.
    kernel_params : dict, optional
        Further parameters, for a callable.
    rank : int, optional
        Of the preconditioner; by default it is raised until it captures the eigenvalues above 10 alpha.
    tol : float, optional
        Stop when ``||y - (K + alpha I) dual_coef_|| <= tol ||y||``; 1e-6 by default, 1e-4 for float32.
    max_iter : int, default 500
        Most steps.
    memory_limit : int, default 2**30
        Bytes up to which K is kept.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the preconditioner.

    Attributes
    ----------
    dual_coef_ : array, shape (n_samples,) or (n_samples, n_targets)
        Coefficients of the samples of positive weight.
    error_ : float or array, shape (n_targets,)
        Bound of ``||f - f*|| / ||y||`` over the samples, for the exact solution f*.
    centers_, center_indices_
        The samples of positive weight, and their numbers.
    error_kind_, residual_, residual_norm_, n_iter_, history_, solver_, status_, n_features_in_
        As in :class:`NystromRidge`.

    See Also
    --------
    NystromRidge : a few centres, for more samples.

    References
    ----------
    .. [1] Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023).
    .. [2] Diaz, Epperly, Frangella, Tropp and Webber, "Robust, randomized preconditioning for kernel ridge regression",
       arXiv:2304.12465.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.estimators import KernelRidgePCG
    >>> X = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    >>> y = np.sin(4 * X[:, 0]) * X[:, 1]
    >>> model = KernelRidgePCG(1e-3, gamma=2.0, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.999), model.error_ < 1e-6
    (True, True)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        kernel: Any = "rbf",
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        rank: int | None = None,
        tol: float | None = None,
        max_iter: int = 500,
        memory_limit: int = 2**30,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.coef0 = coef0
        self.degree = degree
        self.kernel_params = kernel_params
        self.rank = rank
        self.tol = tol
        self.max_iter = max_iter
        self.memory_limit = memory_limit
        self.random_state = random_state

    def _solve(self, K: Any, X: Any, y: Any, weights: Any, key: Key, steps: Any) -> KernelRidgeResult:  # noqa: ARG002
        check_real(self.alpha, "alpha", low=0.0, closed="neither")
        self._points = None
        return kernel_ridge(
            K, y, self.alpha, weights=weights, rank=self.rank, rng=key, callback=steps, **self._common()
        )


def default_centers(n: int) -> int:
    """``sqrt(n) log(n)``, the number that keeps the rate of learning; all of few samples."""
    return n if n < 100 else min(n, math.ceil(math.sqrt(n) * math.log(n)))
