"""Nystrom features with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import get_blas_funcs
from sklearn.callback import with_callbacks
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from .._arrays import eps
from .._backend import kernel as backend_kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key
from ..lowrank.rpcholesky import rpcholesky
from ..regression.kernel_maps import matrix_like
from ..regression.kernel_ridge import shifted_factor
from ..sampling.kernel_leverage import kernel_leverage_sample
from ..triangular import inverse_of
from ._base import Reducer, key_of
from ._pairwise import as_points, kernel_matrix_of

SELECTIONS = ("auto", "uniform", "rpcholesky", "ridge_leverage", "kmeans")
ROWS = 1024  # that are multiplied at a time
GOOD_CONDITION = 1e-10  # times 1 / eps: up to here the inverse of the factor is as good as substitution
SAMPLED = 256  # rows from which the error is estimated
KMEANS_POINTS = 20  # samples for each centre that k-means looks at


class Nystroem(Reducer):
    """Approximate the feature map of a kernel by its values at a few of the samples.

    Inner products of transformed samples are ``k(x, S) K[S, S]^-1 k(S, y)`` for the components S.  It stands in for
    scikit-learn's class of the same name, with the same parameters and a `normalization_` by which the kernel values
    are multiplied; a triangular one, which takes half the flops and a small part of the time of `fit`.

    Parameters
    ----------
    kernel : str or callable, default "rbf"
        A name of `sklearn.metrics.pairwise.pairwise_kernels`, "matern32", "matern52" or "precomputed", or a function
        of two samples that returns a number.
    gamma, coef0, degree : float, optional
        Parameters of the kernel; None leaves them to it.
    kernel_params : dict, optional
        Further parameters, for a callable.
    n_components : int, n_components >= 1, or None, default 100
        Number of components, at most the number of samples; None with a `tol` sets no limit.
    selection : {"auto", "uniform", "rpcholesky", "ridge_leverage", "kmeans"}, default "auto"
        How the components are chosen: "uniform" at random; "rpcholesky" one after the other, with probability
        proportional to what those before leave of ``k(x, x)``, by far the best on clustered data; "ridge_leverage" by
        approximate ridge leverage scores; "kmeans" takes cluster centres, which are no samples.  "auto" is "uniform",
        and "rpcholesky" with a `tol`.
    tol : float, 0 < tol < 1, optional
        Take components until ``error_ <= tol``; for "rpcholesky".
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the choice.  An int gives the same components at every fit.

    Attributes
    ----------
    components_ : array or CSR matrix, shape (n_components_, n_features)
        The components; rows of kernel values for "precomputed".
    component_indices_ : int64 array, shape (n_components_,), or None
        Their numbers among the samples; None for "kmeans".
    normalization_ : array, shape (n_components_, n_components_)
        Lower triangular: the features are ``kernel(X, components_) @ normalization_.T``.
    error_ : float
        ``trace(K - Z Z') / trace(K)`` for the features Z of the training samples: the share of the kernel that the
        components miss, between 0 and 1.
    error_kind_ : {"exact", "sampled"}
        "sampled": the mean over 256 samples drawn uniformly.
    n_components_ : int
        Components; fewer than asked for where "rpcholesky" finds that the rest of K is rounding error.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    NystromRidge : ridge regression on such components, without storing the features.
    PolynomialTensorSketch : features of polynomial kernels that do not depend on the data.

    Notes
    -----
    Cost of `transform`: the kernel values with the components and ``n_samples n_components**2`` flops.  With
    "rpcholesky" `fit` itself costs as much and makes the features of the training samples, which `fit_transform`
    returns.  Components that depend on each other are kept harmless by a shift of eps trace(K[S, S]).

    References
    ----------
    .. [1] Williams and Seeger, "Using the Nystrom method to speed up kernel machines", NIPS 2000.
    .. [2] Chen, Epperly, Tropp and Webber, "Randomly pivoted Cholesky", Communications on Pure and Applied Mathematics
       78 (2025).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.estimators import Nystroem
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> model = Nystroem(gamma=0.1, n_components=None, tol=1e-3, random_state=0)
    >>> Z = model.fit_transform(X)
    >>> model.error_ <= 1e-3, Z.shape[1] < 60
    (True, True)
    """

    def __init__(
        self,
        kernel: Any = "rbf",
        *,
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        kernel_params: dict[str, Any] | None = None,
        n_components: int | None = 100,
        selection: str = "auto",
        tol: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.coef0 = coef0
        self.degree = degree
        self.kernel_params = kernel_params
        self.n_components = n_components
        self.selection = selection
        self.tol = tol
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Any:
        """Choose the components and factor their kernel.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data; the kernel matrix for ``kernel="precomputed"``.
        y : ignored
            Present by convention.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the kernel has large negative eigenvalues.

        Warns
        -----
        UserWarning
            If `n_components` exceeds the number of samples, and is lowered to it.
        sklearn.exceptions.ConvergenceWarning
            If `tol` was not reached with `n_components` components.
        """
        self._fit(X, y)
        return self

    @with_callbacks
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, then the features of the training samples; "rpcholesky" makes them on the way.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : ignored
            Present by convention.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            In the dtype of X.
        """
        X, features = self._fit(X, y)
        return self._features(X) if features is None else features

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of samples.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Samples; for ``kernel="precomputed"`` their kernel values with all training samples.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            In the dtype of X.
        """
        X = self._intake(X, reset=False)
        return self._features(as_points(X))

    # --- fitting ------------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any) -> tuple[Any, Any]:
        X = self._intake(X, reset=True)
        X = as_points(X)
        context = self._init_callback_context().call_on_fit_task_begin(estimator=self, X=X, y=y)
        features = self._choose(X, key_of(self.random_state))
        fitted = {name: getattr(self, name) for name in _FITTED}
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=fitted)
        return X, features

    def _choose(self, X: Any, key: Key) -> Any:
        """Choose and factor the components; the features of X where they come for free, else None."""
        K = kernel_matrix_of(self, X)
        selection, wanted, tol = self._wanted(X.shape[0])
        if selection == "rpcholesky":
            found = rpcholesky(K, wanted, tol=tol, rng=key, on_failure="ignore")
            if tol is not None and not found.converged:
                message = f"Nystroem ended with {found.status!r}: {found.status.advice}"
                warnings.warn(message, ConvergenceWarning, stacklevel=5)
            self._keep(X, found.pivots, np.triu(np.asarray(found.F[found.pivots], np.float64).T))
            self.error_, self.error_kind_ = float(found.error), "exact"
            return found.F
        if selection == "kmeans":
            points, chosen = cluster_centres(X, wanted, key), None
            W = matrix_like(K, points).block(None, None)
        else:
            points, chosen = None, self._indices(K, selection, wanted, key)
            W = K.block(chosen, chosen)
        self._keep(X, chosen, shifted_factor(_symmetric(W), eps(X.dtype)), points)
        self.error_, self.error_kind_ = self._sampled_error(K, X, key)
        return None

    def _wanted(self, n: int) -> tuple[str, int, float | None]:
        """(selection, components, tolerance), checked."""
        selection = check_choice(self.selection, "selection", SELECTIONS)
        tol = None if self.tol is None else check_real(self.tol, "tol", low=0.0, high=1.0, closed="neither")
        if selection == "auto":
            selection = "uniform" if tol is None else "rpcholesky"
        if tol is not None and selection != "rpcholesky":
            raise ValueError(f'selection must be "rpcholesky" with a tol, got {selection!r}; or leave out tol')
        if selection == "kmeans" and self.kernel == "precomputed":
            raise ValueError('selection must choose samples for kernel="precomputed", got "kmeans"')
        if self.n_components is None:
            if tol is None:
                raise ValueError("n_components must be an integer without a tol, got None")
            return selection, n, tol
        wanted = check_integer(self.n_components, "n_components", low=1)
        if wanted > n and tol is None:
            message = f"n_components must be at most n_samples={n}, got {wanted}; it was lowered to that"
            warnings.warn(message, UserWarning, stacklevel=6)
        return selection, min(wanted, n), tol

    @staticmethod
    def _indices(K: Any, selection: str, wanted: int, key: Key) -> np.ndarray:
        if selection == "ridge_leverage":
            return np.asarray(kernel_leverage_sample(K, wanted, rng=key))
        return backend_kernel("distinct_rows", np)(key.fold("components"), K.shape[0], wanted)

    def _keep(self, X: Any, chosen: Any, factor: np.ndarray, points: Any = None) -> None:
        """Set what `transform` needs: the components, and the upper triangular factor of their kernel."""
        inverse = inverse_of(factor)
        self.component_indices_ = chosen
        self.components_ = X[chosen] if points is None else points
        self.n_components_ = factor.shape[0]
        self.normalization_ = np.asfortranarray(inverse.T.astype(X.dtype))
        good = np.linalg.norm(factor) * np.linalg.norm(inverse) < GOOD_CONDITION / eps(X.dtype)
        self._factor = None if good else np.asfortranarray(factor.T.astype(X.dtype))

    def _features(self, X: Any) -> np.ndarray:
        """Kernel values, turned into features where they lie."""
        if self.kernel == "precomputed":
            out = np.ascontiguousarray(X[:, self.component_indices_])
        else:
            out = kernel_matrix_of(self, self.components_, X).cross(X)
        name, triangle = ("trmm", self.normalization_) if self._factor is None else ("trsm", self._factor)
        multiply, triangle = get_blas_funcs(name, (triangle, out)), np.asfortranarray(triangle)
        for lo in range(0, len(out), ROWS):  # rows of ours are columns to BLAS
            part = out[lo : lo + ROWS].T
            multiply(1.0, triangle, part, lower=1, overwrite_b=1)
        return out

    def _sampled_error(self, K: Any, X: Any, key: Key) -> tuple[float, str]:
        """The share of the trace that the components miss, from a uniform sample of rows."""
        n = X.shape[0]
        rows = backend_kernel("distinct_rows", np)(key.fold("error"), n, min(n, SAMPLED))
        whole = np.sum(np.asarray(K.diagonal(), np.float64)[rows])
        kept = np.sum(self._features(X[rows]).astype(np.float64) ** 2)
        error = 1.0 - kept / whole if whole > 0 else 0.0
        return min(max(float(error), 0.0), 1.0), "sampled" if n > SAMPLED else "exact"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


_FITTED = (
    "components_", "component_indices_", "normalization_", "n_components_", "error_", "error_kind_", "_factor",
)  # fmt: skip


def _symmetric(W: Any) -> np.ndarray:
    W = np.asarray(W, np.float64)
    return 0.5 * (W + W.T)


def cluster_centres(X: Any, k: int, key: Key) -> Any:
    """Centres of k clusters of a sample of the points, in the dtype of X."""
    n = X.shape[0]
    rows = backend_kernel("distinct_rows", np)(key.fold("kmeans"), n, min(n, KMEANS_POINTS * k))
    seed = key.fold("kmeans").lo
    model = MiniBatchKMeans(k, init="random", n_init=1, max_iter=10, batch_size=4096, random_state=seed)
    with warnings.catch_warnings():  # fewer distinct points than clusters: centres repeat, which does no harm
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = model.fit(X[rows]).cluster_centers_.astype(X.dtype)
    return type(X)(found) if sp.issparse(X) else found  # kernels take both sides in one form
