"""Unmixing of spectra, structured or robust, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_integer
from ..nonnegative.robust import robust_nmf
from ..nonnegative.structured import structured_nmf
from ..nonnegative.unmixing import codes
from ._base import FLOATS, Reducer, key_of
from ._callbacks import Steps


class _Unmixer(Reducer):
    """What both share: rows are pixels, columns bands, `components_` the endmembers."""

    sparsity: float
    penalty: str
    sum_to_one: float

    def transform(self, X: Any) -> np.ndarray:
        """Return the abundances of the endmembers in pixels, each by itself: without graph.

        Parameters
        ----------
        X : array or data frame, shape (n_samples, n_features)
            Nonnegative spectra.

        Returns
        -------
        H : array, shape (n_samples, n_components_)
            Abundances, in the dtype of X (float32 or float64).
        """
        check_is_fitted(self)
        X = self._spectra(X, reset=False)
        W = np.ascontiguousarray(self.components_.T.astype(X.dtype, copy=False))
        found = codes(
            np.ascontiguousarray(X.T), W, unit=self._unit, weights=getattr(self, "feature_weights_", None),
            sum_to_one=self.sum_to_one, sparsity=self.sparsity, penalty=self.penalty,
        )  # fmt: skip
        return np.ascontiguousarray(found.T)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ components_``: spectra of mixtures.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Abundances.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            Spectra, in the dtype of X.
        """
        X = self._intake_reduced(X)
        return X @ self.components_.astype(X.dtype, copy=False)

    def _spectra(self, X: Any, *, reset: bool) -> Any:
        return validate_data(self, X, dtype=FLOATS, reset=reset, ensure_non_negative=True)

    def _take(self, result: Any, X: Any, steps: Steps) -> None:
        self.components_ = np.ascontiguousarray(result.W.T)
        self.n_components_, self.n_iter_, self.status_ = result.rank, result.n_iter, result.status
        self.error_, self.objective_ = result.error, result.objective
        self._unit = float(X.max()) if X.size and X.max() > 0 else 1.0
        if not (result.converged or steps.stopped):
            message = f"{type(self).__name__} ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=4)
        steps.close({"components_": self.components_, "n_components_": result.rank})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = False
        return tags


class StructuredNMF(_Unmixer):
    """Unmix spectra into endmembers and abundances that sum to one, are sparse, and smooth over the image.

    Parameters
    ----------
    n_components : int, default 4, n_components >= 1
        Number of endmembers.
    image_shape : tuple of two int, optional
        Height and width of the image whose pixels are the rows of X, row by row; needed for smoothness.
    smoothness : float, default 0.0
        Weight of the graph of neighbouring pixels, in `fit`.
    connectivity : {4, 8}, default 8
        Neighbours of a pixel.
    sparsity : float, default 0.0
        Weight of the sparsity of abundances.
    penalty : {"l1", "l1/2"}, default "l1"
        Kind of sparsity.
    sum_to_one : float, default 5.0
        Strength with which abundances are pulled to a sum of one.
    max_iter : int, default 500
        Largest number of iterations.
    tol : float, default 1e-5
        Stop at this relative fall of the objective.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Fills up the start where X has fewer directions than endmembers.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Spectra of the endmembers.
    n_components_ : int
        Their number.
    abundances_ : array, shape (n_samples, n_components_)
        Abundances of the pixels of `fit`, with the graph.
    error_ : float
        ``||X - abundances_ components_||_F / ||X||_F``.
    objective_ : float
        See :func:`randla.structured_nmf`.
    n_iter_ : int
        Iterations done.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Bands seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.structured_nmf : the function behind; its X has pixels as columns.

    Notes
    -----
    ``transform`` knows no neighbours: `abundances_` has what `fit` found with them.  A callback (``set_callbacks``)
    sees one task for each iteration, with the fields of its step as metadata.

    Examples
    --------
    >>> from randla import StructuredNMF, datasets
    >>> cube = datasets.spectral_cube(60, (20, 20), 3, snr=40, rng=0)
    >>> model = StructuredNMF(3, image_shape=cube.image_shape, smoothness=0.1).fit(cube.X.T)
    >>> model.components_.shape, model.abundances_.shape
    ((3, 60), (400, 3))
    """

    def __init__(
        self,
        n_components: int = 4,
        *,
        image_shape: tuple[int, int] | None = None,
        smoothness: float = 0.0,
        connectivity: int = 8,
        sparsity: float = 0.0,
        penalty: str = "l1",
        sum_to_one: float = 5.0,
        max_iter: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.image_shape = image_shape
        self.smoothness = smoothness
        self.connectivity = connectivity
        self.sparsity = sparsity
        self.penalty = penalty
        self.sum_to_one = sum_to_one
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> StructuredNMF:
        """Find the endmembers of X.

        Parameters
        ----------
        X : array or data frame, shape (n_samples, n_features)
            Nonnegative spectra, one for each pixel.
        y : ignored
            Present by convention.

        Returns
        -------
        self : StructuredNMF
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the image does not fit, or X has negative entries or NaN.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended before the objective settled; `status_` says why.
        """
        X = self._spectra(X, reset=True)
        steps = Steps(self, X, y)
        result = structured_nmf(
            np.ascontiguousarray(X.T), check_integer(self.n_components, "n_components", low=1),
            image_shape=self.image_shape, smoothness=self.smoothness, connectivity=self.connectivity,
            sparsity=self.sparsity, penalty=self.penalty, sum_to_one=self.sum_to_one, max_iter=self.max_iter,
            tol=self.tol, rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        self.abundances_ = np.ascontiguousarray(result.H.T)
        self._take(result, X, steps)
        return self


class RobustNMF(_Unmixer):
    """Unmix spectra of which some bands are wrong: bands that do not fit count less.

    Parameters
    ----------
    n_components : int, default 4, n_components >= 1
        Number of endmembers.
    loss : {"correntropy", "huber", "l21"}, default "correntropy"
        Loss of the residual of a band; see :func:`randla.robust_nmf`.
    theta : float, default 1.0
        Factor of the scale.
    scale : {"median", "mean"}, default "median"
        What the scale is taken from.
    sparsity : float, default 0.0
        Weight of the sparsity of abundances.
    penalty : {"l1", "l1/2"}, default "l1"
        Kind of sparsity.
    sum_to_one : float, default 0.0
        Strength with which abundances are pulled to a sum of one.
    init : {"screened", "spa"}, default "screened"
        Start.
    max_iter : int, default 500
        Largest number of iterations.
    tol : float, default 1e-5
        Stop at this relative fall of the objective.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Fills up the start where X has fewer directions than endmembers.

    Attributes
    ----------
    components_ : array, shape (n_components_, n_features)
        Spectra of the endmembers.
    n_components_ : int
        Their number.
    feature_weights_ : array, shape (n_features,)
        How much each band counts, at most 1; `transform` uses them.
    error_ : float
        ``||X - W components_||_F / ||X||_F``, all bands alike.
    objective_ : float
        See :func:`randla.robust_nmf`.
    n_iter_ : int
        Iterations done.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Bands seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.robust_nmf : the function behind; its X has pixels as columns.

    Notes
    -----
    A callback (``set_callbacks``) sees one task for each iteration, with the fields of its step as metadata.

    Examples
    --------
    >>> from randla import RobustNMF, datasets
    >>> cube = datasets.spectral_cube(60, (20, 20), 3, snr=40, n_bad_bands=6, rng=0)
    >>> model = RobustNMF(3, sum_to_one=5.0).fit(cube.X.T)
    >>> bool(model.feature_weights_[cube.bad_bands].max() < 0.01)
    True
    """

    def __init__(
        self,
        n_components: int = 4,
        *,
        loss: str = "correntropy",
        theta: float = 1.0,
        scale: str = "median",
        sparsity: float = 0.0,
        penalty: str = "l1",
        sum_to_one: float = 0.0,
        init: str = "screened",
        max_iter: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.loss = loss
        self.theta = theta
        self.scale = scale
        self.sparsity = sparsity
        self.penalty = penalty
        self.sum_to_one = sum_to_one
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> RobustNMF:
        """Find the endmembers of X, and how much each band counts.

        Parameters
        ----------
        X : array or data frame, shape (n_samples, n_features)
            Nonnegative spectra, one for each pixel.
        y : ignored
            Present by convention.

        Returns
        -------
        self : RobustNMF
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X has negative entries or NaN.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the fit ended before the objective settled; `status_` says why.
        """
        X = self._spectra(X, reset=True)
        steps = Steps(self, X, y)
        result = robust_nmf(
            np.ascontiguousarray(X.T), check_integer(self.n_components, "n_components", low=1), loss=self.loss,
            theta=self.theta, scale=self.scale, sparsity=self.sparsity, penalty=self.penalty,
            sum_to_one=self.sum_to_one, init=self.init, max_iter=self.max_iter, tol=self.tol,
            rng=key_of(self.random_state), callback=steps, on_failure="ignore",
        )  # fmt: skip
        self.feature_weights_ = result.weights
        self._take(result, X, steps)
        return self
