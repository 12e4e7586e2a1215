"""Linear and ridge regression by sketching, with scikit-learn's interface."""

from __future__ import annotations

import math
import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._arrays import is_sparse
from .._checks import check_integer, check_real
from ..regression import lstsq
from ..regression.intercept import centred
from ._base import FLOATS, key_of
from ._callbacks import Steps
from ._row_sketch import RowSketch

_STREAM_FACTOR = 20  # rows of the sketch of a stream for each column: an expected excess of 5 %

#: What `fit` sets from the result of `lstsq`, beside the coefficients: attribute -> field.
_REPORTED = {
    "rank_": "rank",
    "condition_": "condition",
    "residual_norm_": "residual_norm",
    "backward_error_": "backward_error",
    "n_iter_": "n_iter",
    "method_": "method",
    "status_": "status",
}
#: What the solution of a sketched stream sets, when first asked for.
_STREAMED = ("coef_", "intercept_", "rank_", "condition_", "residual_norm_", "excess_estimate_")


class _LinearModel(CallbackSupportMixin, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Least squares with an intercept that no penalty meets; `_alpha` is the penalty."""

    fit_intercept: bool
    method: str
    tol: float | None
    sketch_size: int | None
    max_iter: int | None
    random_state: Any

    def _alpha(self) -> float:
        return 0.0

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the coefficients to all the data at once; rows that `partial_fit` saw before are forgotten.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : array, shape (n_samples,) or (n_samples, n_targets)
            The targets, cast to the dtype of X.
        sample_weight : float or array, shape (n_samples,), optional
            What the squared residuals are multiplied with, >= 0.

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
        alpha, fit_intercept = self._parameters()
        X, y, weights = self._intake(X, y, sample_weight, reset=True, all_zero=False)
        self._forget()
        A, b, means = X, y, None
        if fit_intercept:
            A, targets, weights, *means = centred(X, y.reshape(len(y), -1), weights, method=self.method)
            b = targets.reshape(y.shape)
        steps = Steps(self, X, y)
        result = lstsq(
            A, b, method=self.method, tol=self.tol, damp=math.sqrt(alpha), weights=weights,
            sketch_size=self.sketch_size, max_iter=self.max_iter, rng=key_of(self.random_state), callback=steps,
            on_failure="ignore",
        )  # fmt: skip
        fitted = {name: _plain(getattr(result, field)) for name, field in _REPORTED.items()}
        fitted["n_iter_"] = max(1, result.n_iter)  # scikit-learn counts a direct solution as one iteration
        fitted |= _coefficients(result.x, means, y.ndim == 1)
        for name, value in fitted.items():
            setattr(self, name, value)
        if not (result.converged or steps.stopped):
            message = f"{type(self).__name__} ended with {result.status!r}: {result.status.advice}"
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        steps.close(fitted)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, start: int | None = None) -> Self:
        """Add a block of rows to a sketch, from which the coefficients are solved when they are first asked for.

        The sketch of the rows does not depend on how they are cut into blocks, on the order of these, or on the process
        that saw them: row number i meets the same random signs everywhere.  One block costs 8 operations per entry.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Rows that were not seen before; what `fit` saw does not count.
        y : array, shape (n_samples,) or (n_samples, n_targets)
            Their targets.
        sample_weight : float or array, shape (n_samples,), optional
            What the squared residuals are multiplied with, >= 0.
        start : int, optional
            Number of the first row of the block in the whole data; by default the one after the last row seen.  Where
            several estimators see parts of the data to `merge`, each part needs its own numbers.

        Returns
        -------
        self : estimator
            The estimator with more rows seen.

        Raises
        ------
        ValueError
            As `fit` does; and if a row number was seen before, or `sketch_size` leaves no row over for the residual.
        """
        _, fit_intercept = self._parameters()
        stream = self._stream
        X, y, weights = self._intake(X, y, sample_weight, reset=stream is None, all_zero=True)
        single, targets = y.ndim == 1, np.reshape(y, (len(y), -1)).astype(np.float64)
        n_targets = None if single else targets.shape[1]
        if stream is None:
            stream = self._new_stream(X.shape[1], targets.shape[1], fit_intercept)
            about = {"fit_intercept": fit_intercept, "n_targets": n_targets, "dtype": X.dtype}
        elif (about := self._about)["n_targets"] != n_targets:
            earlier = "(n,)" if about["n_targets"] is None else f"(n, {about['n_targets']})"
            raise ValueError(f"y must have the shape {earlier} of the earlier blocks, got {np.shape(y)}")
        start = stream.next_row if start is None else check_integer(start, "start", low=0)
        ones = np.ones((len(y), 1)) if about["fit_intercept"] else np.empty((len(y), 0))
        roots = None if weights is None else np.sqrt(weights.astype(np.float64))
        X = X.tocsr() if is_sparse(X) else X
        stream.add(X, np.concatenate([ones, targets], axis=1), roots, start)
        self._seen(stream, about)
        return self

    def merge(self, other: _LinearModel) -> Self:
        """Add the rows that another estimator saw in `partial_fit`, on this machine or on another one.

        Parameters
        ----------
        other : estimator of the same class
            With the same integer `random_state`, and rows with other numbers (the `start` of `partial_fit`).

        Returns
        -------
        self : estimator
            As if it had seen the rows of both; `other` is left as it is.

        Raises
        ------
        ValueError
            If the two do not belong together, or saw a row with the same number.
        """
        if not isinstance(other, _LinearModel):
            raise TypeError(f"other must be an estimator that has seen rows in partial_fit, got {type(other).__name__}")
        mine, theirs = self._stream, other._stream
        if mine is None or theirs is None:
            name = "self" if mine is None else "other"
            raise ValueError(f"{name} must have seen rows in partial_fit, got none; call it before merge")
        kinds = [
            (model.n_features_in_, model._about["fit_intercept"], model._about["n_targets"]) for model in (self, other)
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(f"other must have (n_features_in_, fit_intercept, n_targets) = {kinds[0]}, got {kinds[1]}")
        mine.merge(theirs)
        self._seen(mine, self._about)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return ``X @ coef_.T + intercept_``.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Samples.  A sparse matrix is never densified.

        Returns
        -------
        y : array, shape (n_samples,) or (n_samples, n_targets)
            Predicted targets.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=False)
        return X @ self.coef_.T + self.intercept_

    # --- intake and state ---------------------------------------------------------------------------------------------

    def _parameters(self) -> tuple[float, bool]:
        if not isinstance(self.fit_intercept, (bool, np.bool_)):
            raise TypeError(f"fit_intercept must be True or False, got {self.fit_intercept!r}")
        return self._alpha(), bool(self.fit_intercept)

    def _intake(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool, all_zero: bool
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        X, y = validate_data(
            self, X, y, accept_sparse=("csr", "csc"), dtype=FLOATS, multi_output=True, y_numeric=True, reset=reset
        )
        y = y.astype(X.dtype, copy=False)
        if sample_weight is None:
            return X, y, None
        weights = _check_sample_weight(
            sample_weight, X, dtype=X.dtype, ensure_non_negative=True, allow_all_zero_weights=all_zero
        )
        return X, y, weights

    @property
    def _stream(self) -> RowSketch | None:
        return self.__dict__.get("_row_sketch")

    def _new_stream(self, n_features: int, n_targets: int, fit_intercept: bool) -> RowSketch:
        n = n_features + fit_intercept
        size = _STREAM_FACTOR * (n + 1) if self.sketch_size is None else self.sketch_size
        remedy = (
            f"the residual needs rows beyond the {n} unknowns; an excess of 5 % needs {_STREAM_FACTOR} times as many"
        )
        size = check_integer(size, "sketch_size", low=n + 2, remedy=remedy)
        return RowSketch(key_of(self.random_state), size, n + n_targets)

    def _seen(self, stream: RowSketch, about: dict[str, Any]) -> None:
        """Keep a stream with more rows; the solution of the shorter one is out of date."""
        self._forget()
        self._row_sketch, self._about = stream, about
        self.n_samples_seen_ = stream.n_rows

    def _forget(self) -> None:
        for name in (*_STREAMED, *_REPORTED, "n_samples_seen_", "_row_sketch", "_about"):
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """Solve the stream when its solution is first looked at."""
        stream = self.__dict__.get("_row_sketch") if name in _STREAMED else None
        if stream is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        for key, value in _solve_stream(stream, self.n_features_in_, self._alpha(), **self._about).items():
            setattr(self, key, value)
        return self.__dict__[name]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class SketchedLinearRegression(_LinearModel):
    """Ordinary least squares by sketching: LAPACK's accuracy from a few reads of tall data, and streams of rows.

    Minimises ``sum_i w_i (y_i - x_i' coef - intercept)**2``, by :func:`randla.lstsq` in `fit` and from a sketch that
    grows by blocks of rows in `partial_fit`.  Of several minimisers the one with the smallest coefficients is taken.

    Parameters
    ----------
    fit_intercept : bool, default True
        Fit a constant term, by centring: a copy of dense data, an implicit change of sparse data.
    method : {"auto", "direct", "precondition", "sketch", "lsmr"}, default "auto"
        Method of `fit`, as of :func:`randla.lstsq`.
    tol : float or None, default None
        Stop when the backward error falls below it, as :func:`randla.lstsq` does; None goes to the rounding floor.
    sketch_size : int or None, default None
        Rows of the sketch.  None leaves the choice to :func:`randla.lstsq` in `fit`; in `partial_fit` it means
        ``20 (n_features + 2)``, for an expected excess of 5 %.
    max_iter : int or None, default None
        Largest number of iterations of `fit`.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the sketch.  An int gives the same fit at every call, and sketches that can be merged.

    Attributes
    ----------
    coef_ : array, shape (n_features,) or (n_targets, n_features)
        Coefficients.
    intercept_ : float or array, shape (n_targets,)
        Constant term, 0.0 without `fit_intercept`.
    rank_ : int
        Numerical rank of the data, centred where there is an intercept.
    condition_ : float
        Estimate of their condition number; over the nonzero singular values where the rank is deficient.
    residual_norm_ : float or array, shape (n_targets,)
        Weighted norm of the residual; an estimate after `partial_fit`.
    backward_error_ : float
        Estimate of the relative change of the data that would make `coef_` exact; after `fit` only.
    excess_estimate_ : float
        Expected relative excess of the squared residual over the optimum, ``n / (d - n - 1)`` for n unknowns and a
        sketch of d rows; 0 while all rows fit into the sketch.  After `partial_fit` only.
    n_iter_ : int
        Iterations done, 1 for a direct solution; after `fit` only.
    method_ : str
        Method used; after `fit` only.
    status_ : Status
        How `fit` ended.
    n_samples_seen_ : int
        Rows in the sketch; after `partial_fit` only.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    SketchedRidge : with a penalty on the coefficients.
    randla.lstsq : the function behind; also for LinearOperators, files and other array libraries.

    Notes
    -----
    `partial_fit` keeps ``S [X 1 y]`` with d rows, whatever the number of samples, and never sees a row again, so its
    solution is one of sketch-and-solve: its squared residual exceeds the least one by the factor
    ``1 + n / (d - n - 1)`` in expectation, a law for Gaussian sketches that the sparse signs used here follow within a
    few per cent.  The residual of the optimum is that of the data; for the coefficients themselves this means errors
    of about ``sqrt(n / (d - n - 1))`` of the noise over the smallest singular value.  Where the data can be read again,
    `fit` has none of this error.

    A callback (``set_callbacks``) sees one task for each iteration of `fit`, with the fields of that step as metadata.
    One that returns True ends the fit; the estimator is then fitted with what was reached, unwarned.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SketchedLinearRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(5000, 3))
    >>> y = X @ [1.0, -2.0, 0.5] + 4.0
    >>> model = SketchedLinearRegression(random_state=0).fit(X, y)
    >>> model.coef_.round(6).tolist(), round(float(model.intercept_), 6)
    ([1.0, -2.0, 0.5], 4.0)
    >>> stream = SketchedLinearRegression(random_state=0)
    >>> for start in range(0, 5000, 1000):
    ...     stream = stream.partial_fit(X[start : start + 1000], y[start : start + 1000])
    >>> stream.n_samples_seen_, stream.coef_.round(6).tolist()
    (5000, [1.0, -2.0, 0.5])
    """

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        method: str = "auto",
        tol: float | None = None,
        sketch_size: int | None = None,
        max_iter: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.method = method
        self.tol = tol
        self.sketch_size = sketch_size
        self.max_iter = max_iter
        self.random_state = random_state


class SketchedRidge(_LinearModel):
    """Ridge regression by sketching: least squares with a penalty on the coefficients, for tall data and streams.

    Minimises ``sum_i w_i (y_i - x_i' coef - intercept)**2 + alpha ||coef||**2``, as scikit-learn's Ridge; the intercept
    is not penalised.  `fit` calls :func:`randla.lstsq`, `partial_fit` keeps a sketch of the rows, to which the penalty
    is added exactly.

    Parameters
    ----------
    alpha : float, default 1.0, >= 0
        The penalty: multiplies the squared norm of the coefficients.
    fit_intercept, method, tol, sketch_size, max_iter, random_state
        As in :class:`SketchedLinearRegression`.

    Attributes
    ----------
    coef_ : array, shape (n_features,) or (n_targets, n_features)
        Coefficients.
    intercept_ : float or array, shape (n_targets,)
        Constant term, 0.0 without `fit_intercept`.
    excess_estimate_ : float
        As in :class:`SketchedLinearRegression`, of the penalised sum, with the effective number of unknowns
        ``sum_i s_i**2 / (s_i**2 + alpha)`` over the singular values in place of n.
    rank_, condition_, residual_norm_, backward_error_, n_iter_, method_, status_, n_samples_seen_, n_features_in_
        As in :class:`SketchedLinearRegression`; the residual is without the penalty.

    See Also
    --------
    SketchedLinearRegression : without a penalty.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SketchedRidge
    >>> X = np.vander(np.linspace(0, 1, 1000), 8)
    >>> y = np.sin(3 * X[:, -2])
    >>> model = SketchedRidge(1e-3, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.999)
    True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        method: str = "auto",
        tol: float | None = None,
        sketch_size: int | None = None,
        max_iter: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.method = method
        self.tol = tol
        self.sketch_size = sketch_size
        self.max_iter = max_iter
        self.random_state = random_state

    def _alpha(self) -> float:
        return check_real(self.alpha, "alpha", low=0.0)


# --- coefficients -----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A field of a result; the numbers of several right-hand sides come as a tuple."""
    return np.array(value) if isinstance(value, tuple) else value


def _coefficients(x: Any, means: Any, single: bool) -> dict[str, Any]:
    """`coef_` and `intercept_` in scikit-learn's shapes, from x (n_features,) or (n_features, k) and two mean rows."""
    coef = x if single else np.ascontiguousarray(x.T)
    if means is None:
        return {"coef_": coef, "intercept_": 0.0}
    intercept = means[1] - coef.reshape(len(means[1]), -1).astype(np.float64) @ means[0]
    return {"coef_": coef, "intercept_": coef.dtype.type(intercept[0]) if single else intercept.astype(coef.dtype)}


# --- the solution of a stream -----------------------------------------------------------------------------------------


def _solve_stream(
    stream: RowSketch, n_features: int, alpha: float, *, fit_intercept: bool, n_targets: int | None, dtype: Any
) -> dict[str, Any]:
    """Solve the rows kept, or those of the sketch, by a singular value decomposition; the penalty is not sketched."""
    rows, means = stream.rows, None
    if fit_intercept:  # the column of ones is projected out of the others, which centres rows that are exact
        ones, rows = rows[:, n_features], np.delete(rows, n_features, axis=1)
        row = ones @ rows / max(float(ones @ ones), np.finfo(float).tiny)
        rows, means = rows - ones[:, None] * row, (row[:n_features], row[n_features:])
    R: Any = np.linalg.qr(rows, mode="r")  # of [X y]: what it takes from here on is small
    U, s, Vh = np.linalg.svd(R[:, :n_features], full_matrices=False)
    rank = int(np.sum(s > max(rows.shape) * np.finfo(float).eps * s[0]))
    U, s, Vh = U[:, :rank], s[:rank], Vh[:rank]
    x = Vh.T @ ((s / (s**2 + alpha))[:, None] * (U.T @ R[:, n_features:]))
    residual = np.linalg.norm(R[:, n_features:] - R[:, :n_features] @ x, axis=0)
    d, shares = stream.operator.sketch_size, s**2 / (s**2 + alpha)
    effective, excess = float(np.sum(shares)) + fit_intercept, 0.0
    if not stream.is_exact:
        # E ||S r||^2 = (1 - n/d) ||r||^2 at the optimum, and the solution's residual is larger by the expected excess
        residual = residual * math.sqrt((d - 1) * d / ((d - effective - 1) * (d - effective)))
        excess = _excess(Vh @ x, s, alpha, effective, d, float(residual @ residual))
    single = n_targets is None
    return _coefficients((x[:, 0] if single else x).astype(dtype), means, single) | {
        "rank_": rank,
        "condition_": float(s[0] / s[-1]) if rank else 1.0,
        "residual_norm_": float(residual[0]) if single else residual,
        "excess_estimate_": excess,
    }


def _excess(z: np.ndarray, s: np.ndarray, alpha: float, effective: float, d: int, squares: float) -> float:
    """Expected relative excess of the penalised sum, where z is the solution in the basis of right singular vectors.

    Without a penalty this is the law n / (d - n - 1).  With one, let r be the optimal residual and H = X'X + alpha I:
    the gradient of the sketched problem is X'(S'S - I) r there, with covariance (||r||^2 X'X + X'r r'X) / d, and
    X'r = alpha coef; its square in the norm of H^-1 is the excess.
    """
    if alpha == 0.0 or squares == 0.0:
        return effective / (d - effective - 1)
    drawn = effective * squares + float(np.sum((alpha * z) ** 2 / (s**2 + alpha)[:, None]))
    return drawn / ((d - effective - 1) * (squares + alpha * float(np.sum(z**2))))
