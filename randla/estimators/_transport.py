"""Entropic optimal transport of one sample to another, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_choice, check_integer, check_real
from ..transport.costs import METRICS, point_cost
from ..transport.problems import as_reg
from ..transport.sinkhorn import METHODS, sinkhorn
from ._base import FLOATS
from ._callbacks import Steps


class SinkhornTransport(OneToOneFeatureMixin, CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Move the points of a sample to where another sample lies, at least cost: domain adaptation, colours of a picture.

    ``fit(X, Y=target)`` solves entropic transport between the rows of both by :func:`randla.sinkhorn`.  ``transform``
    takes a point, old or new, to the mean of the target points weighted by what the plan sends there.

    Parameters
    ----------
    reg : float, default 0.01, reg > 0
        Regularisation: a share of the largest cost, or in units of cost with ``relative=False``.  Larger ones blur: the
        images draw together towards the mean of the target.
    relative : bool, default True
        Whether `reg` is a share of the largest cost, for points a bound of it: the cost of opposite corners of the box
        of all points.
    metric : {"sqeuclidean", "euclidean", "cityblock", "cosine"}, default "sqeuclidean"
        Costs of moving, made inside the kernels; see :func:`randla.point_cost`.
    method : {"auto", "sinkhorn", "log", "newton"}, default "auto"
        See :func:`randla.sinkhorn`.
    tol : float, default 1e-9, tol > 0
        Goal for the marginal error ``||T 1 - a||_1 + ||T.T 1 - b||_1``.
    max_iter : int or None, default None, max_iter >= 1
        See :func:`randla.sinkhorn`.

    Attributes
    ----------
    potentials_ : tuple of two arrays, shapes (n_samples,) and (n_target,)
        f and g, the potentials of the rows of X and of Y, float64; -inf where a row has no weight.
    X_ : array, shape (n_samples, n_features)
        The sample that was fitted.
    Y_ : array, shape (n_target, n_features)
        The target.
    cost_ : float
        Cost of the plan, ``<T, C>``.
    marginal_error_ : float
        Marginal error of the plan.
    reg_ : float
        Regularisation in units of cost.
    plan_ : TransportPlan
        The plan as an operator, shape (n_samples, n_target); made when it is asked for.
    n_iter_ : int
        Sweeps and Newton steps.
    status_ : Status
        How the fit ended.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.sinkhorn : the function behind.

    Notes
    -----
    Nothing of size n_samples times n_target is stored.  A point x gets the weights ``softmax((g - c(x, Y)) / reg)``,
    the entropic map: for a fitted point this is its row of the plan over its mass, up to the marginal error.  So
    ``fit_transform(X)`` is ``fit(X).transform(X)``, and new points cost ``n_new * n_target`` exponentials.  Where the
    plan falls into parts that hardly exchange mass, the potentials of the parts are determined weakly, and so are the
    images of new points between them.

    The weighted mean is the point of least cost to its targets for "sqeuclidean" only; for the other metrics it is
    taken all the same, as POT's ``BaseTransport`` does.

    A callback (``set_callbacks``) sees one task for each step, with the fields of `TransportStep` as metadata.

    References
    ----------
    Seguy et al. 2018 and Pooladian and Niles-Weed 2021 (the entropic map); Courty et al. 2017 (domain adaptation).

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SinkhornTransport
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.random((80, 2)), rng.random((60, 2)) + [3.0, 1.0]
    >>> moved = SinkhornTransport(reg=0.001).fit(X, Y=Y).transform(X)
    >>> bool(np.abs(moved.mean(axis=0) - Y.mean(axis=0)).max() < 1e-8)
    True
    """

    def __init__(
        self,
        reg: float = 0.01,
        *,
        relative: bool = True,
        metric: str = "sqeuclidean",
        method: str = "auto",
        tol: float = 1e-9,
        max_iter: int | None = None,
    ) -> None:
        self.reg = reg
        self.relative = relative
        self.metric = metric
        self.method = method
        self.tol = tol
        self.max_iter = max_iter

    @with_callbacks
    def fit(
        self, X: Any, y: Any = None, *, Y: Any = None, sample_weight: Any = None, target_weight: Any = None
    ) -> SinkhornTransport:
        """Find the plan that takes X to Y.

        Parameters
        ----------
        X : array or data frame, shape (n_samples, n_features)
            Points to be moved.
        y : ignored
            Present by convention.
        Y : array or data frame, shape (n_target, n_features), optional
            Points to move to.  None takes X itself, whose plan is a smoothing; a call for which that is meant is rare.
        sample_weight : array, shape (n_samples,), optional
            Nonnegative weights of the rows of X; only their ratios count.
        target_weight : array, shape (n_target,), optional
            Those of the rows of Y; without Y they are `sample_weight`.

        Returns
        -------
        self : SinkhornTransport
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range, points are not finite, or X and Y have different numbers of columns.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the marginal error is above `tol`; `status_` says why.
        """
        options = self._options()
        X = validate_data(self, X, dtype=FLOATS)
        target = X if Y is None else self._target(Y)
        a = _weights(sample_weight, X.shape[0], "sample_weight")
        b = a if Y is None and target_weight is None else _weights(target_weight, target.shape[0], "target_weight")
        # rows without weight count for nothing, also not for the largest cost
        seen = _with_weight(X, a), _with_weight(target, b)
        reg = as_reg(self.reg, point_cost(*seen, metric=self.metric), bool(self.relative))
        steps = Steps(self, X, y)
        result = sinkhorn(
            a, b, point_cost(X, target, metric=self.metric), reg, callback=steps, on_failure="ignore", **options
        )
        self.X_, self.Y_ = X, target
        self.potentials_, self.reg_ = (result.f, result.g), result.reg
        self.cost_, self.marginal_error_ = result.cost, result.marginal_error
        self.n_iter_, self.status_ = result.n_iter + result.n_newton, result.status
        if not (result.converged or steps.stopped):
            message = f"SinkhornTransport ended with {self.status_!r}: {self.status_.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        steps.close({name: getattr(self, name) for name in ("X_", "Y_", "potentials_", "reg_")})
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the images of points: weighted means of the target.

        Parameters
        ----------
        X : array or data frame, shape (n_new, n_features)
            Points like those that were fitted, or those themselves.

        Returns
        -------
        X_new : array, shape (n_new, n_features)
            Their images, in the dtype of X.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        return self._images(X, self.Y_, self.potentials_[1])

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the images of points of the target among the fitted sample, by the same plan in the other direction.

        Parameters
        ----------
        X : array or data frame, shape (n_new, n_features)
            Points like those of the target.

        Returns
        -------
        X_original : array, shape (n_new, n_features)
            Weighted means of the rows of X seen by `fit`, in the dtype of X.  Not an inverse of `transform`: both blur.
        """
        check_is_fitted(self)
        return self._images(self._target(X, "X"), self.X_, self.potentials_[0])

    @property
    def plan_(self) -> Any:
        """The plan as an operator."""
        from ..transport.results import TransportPlan

        check_is_fitted(self)
        return TransportPlan(point_cost(self.X_, self.Y_, metric=self.metric), *self.potentials_, self.reg_)

    def _images(self, X: np.ndarray, target: np.ndarray, potential: np.ndarray) -> np.ndarray:
        """Means of the target with the weights ``exp((f(x) + potential_j - c(x, y_j)) / reg)``, which sum to 1."""
        cost = point_cost(X, target, metric=self.metric)
        f = cost.softmin(potential, self.reg_)
        # about the middle, so that rounding of the weights' sum does not move a cloud that lies far from the origin
        middle = target.mean(axis=0, dtype=np.float64)
        moved = cost.transport(f, potential, self.reg_, target - middle) + middle
        return np.asarray(moved.astype(X.dtype, copy=False))

    def _target(self, Y: Any, name: str = "Y") -> np.ndarray:
        Y = check_array(Y, dtype=FLOATS, input_name=name, estimator=self)
        if Y.shape[1] != self.n_features_in_:
            raise ValueError(f"{name} must have the {self.n_features_in_} columns of X in fit, got {Y.shape[1]}")
        return Y

    def _options(self) -> dict[str, Any]:
        check_choice(self.metric, "metric", METRICS)
        check_real(self.reg, "reg", low=0.0, closed="neither")
        max_iter = None if self.max_iter is None else check_integer(self.max_iter, "max_iter", low=1)
        return {
            "method": check_choice(self.method, "method", METHODS),
            "tol": check_real(self.tol, "tol", low=0.0, closed="neither"),
            "max_iter": max_iter,
        }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _with_weight(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return points if (weights > 0).all() else points[weights > 0]


def _weights(weights: Any, size: int, name: str) -> np.ndarray:
    """Weights of mass 1."""
    if weights is None:
        return np.full(size, 1.0 / size)
    weights = check_array(weights, dtype=np.float64, ensure_2d=False, input_name=name)
    if weights.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {weights.shape}")
    if (weights < 0).any():
        raise ValueError(f"{name} must be nonnegative, got {weights.min():.3g}")
    if not weights.any():
        raise ValueError(f"{name} must have an entry above 0, got zeros only")
    return np.asarray(weights / weights.sum())
