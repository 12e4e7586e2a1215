"""The number of components by stability, for estimators and for the functions of `randla.nmf`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from ..nonnegative.encoding import nonneg_codes
from ..nonnegative.stability import RankCurve, select_rank
from ._base import FLOATS, key_of


class StabilitySelector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Choose the number of components that come back when the data are perturbed.

    For each number, perturbed copies of X are factorised, the components of all runs are clustered with one of each
    run in a cluster, and silhouettes tell how tight the clusters are; the largest number whose least silhouette is at
    least `min_silhouette` is chosen.  See :func:`randla.select_rank`.

    Parameters
    ----------
    estimator : {"nmf", "rescal", "symmetric"} or estimator, default "nmf"
        The functions `nmf` (rows of H are clustered), `rescal_nmf` and `symmetric_nmf`; or an estimator with
        `n_components` and `components_`, for instance scikit-learn's NMF.
    k_range : sequence of int, default (2, 3, 4, 5, 6)
        Numbers of components to try.
    n_perturbations : int, n_perturbations >= 2, default 20
        Runs for each.
    noise : float, default 0.015, 0 < noise < 1
        Entries are multiplied by numbers between ``1 - noise`` and ``1 + noise``, of mean one.
    perturbation : {"uniform", "poisson"}, default "uniform"
        "poisson" draws counts of which the entries are the means.
    min_silhouette : float, default 0.8
        Silhouette that each cluster must have.
    options : dict, optional
        Further arguments of the function, where `estimator` is a name.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of perturbations and starts.

    Attributes
    ----------
    best_k_ : int
        The number chosen.
    k_range_ : tuple of int
        What was tried, ascending.
    silhouette_min_, silhouette_mean_ : array, shape (n_tried,)
        Least and mean silhouette of the clusters.
    errors_ : array, shape (n_tried,)
        Relative errors: with the medians of the clusters for the names, mean of the runs for an estimator.
    components_ : array, shape (best_k_, n_features)
        Medians of the clusters for `best_k_`, rows of norm one.
    curve_ : RankCurve
        All of it as one object, which `randla.plot.RankStabilityDisplay` draws.
    status_ : Status
        BREAKDOWN where no number reached `min_silhouette`.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    randla.select_rank : the function behind, which also predicts entries held out.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import StabilitySelector
    >>> H = np.kron(np.eye(3), np.ones((1, 8)))
    >>> X = np.random.default_rng(0).random((60, 3)) @ H + 0.01
    >>> StabilitySelector(k_range=(2, 3, 4), n_perturbations=5, random_state=0).fit(X).best_k_
    3
    """

    def __init__(
        self,
        estimator: Any = "nmf",
        k_range: Sequence[int] = (2, 3, 4, 5, 6),
        *,
        n_perturbations: int = 20,
        noise: float = 0.015,
        perturbation: str = "uniform",
        min_silhouette: float = 0.8,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.k_range = k_range
        self.n_perturbations = n_perturbations
        self.noise = noise
        self.perturbation = perturbation
        self.min_silhouette = min_silhouette
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Try all numbers of components.

        Parameters
        ----------
        X : array, data frame or sparse matrix, shape (n_samples, n_features)
            Nonnegative data; for "rescal" a stack (t, n, n) or a list of matrices.
        y : ignored
            Present by convention.

        Returns
        -------
        self : StabilitySelector
            The fitted selector.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X does not suit the estimator.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If no number of components is stable.
        """
        named = isinstance(self.estimator, str)
        relational = named and self.estimator in ("rescal", "symmetric")
        if not relational:
            X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=True)
            check_non_negative(X, type(self).__name__)
        if not named:
            if self.options:
                raise ValueError(f"options must be None for an estimator, got {self.options!r}; set its parameters")
            model: Any = self._run
        else:
            model = self.estimator
        data = X.T if named and not relational else X  # columns of the first factor are clustered
        curve = select_rank(
            data, self.k_range, model=model, options=self.options, n_perturbations=self.n_perturbations,
            noise=self.noise, perturbation=self.perturbation, min_silhouette=self.min_silhouette,
            rng=key_of(self.random_state), on_failure="ignore",
        )  # fmt: skip
        self._store(curve)
        if relational:
            self.n_features_in_ = int(self.components_.shape[1])
        if not curve.converged:
            warnings.warn(
                f"StabilitySelector found no stable number of components: the least silhouettes are "
                f"{np.round(self.silhouette_min_, 2).tolist()}; widen k_range, or lower min_silhouette",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the nonnegative least-squares codes of rows by `components_`.

        Parameters
        ----------
        X : array or sparse matrix, shape (n_samples, n_features)
            Nonnegative rows.

        Returns
        -------
        codes : array, shape (n_samples, best_k_)

        Raises
        ------
        ValueError
            If the selector was fitted to relational data, whose rows have no codes.
        """
        check_is_fitted(self)
        if isinstance(self.estimator, str) and self.estimator != "nmf":
            raise ValueError(f'estimator must be "nmf" or an estimator to transform, got {self.estimator!r}')
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, reset=False)
        return nonneg_codes(X, self.components_.astype(X.dtype))

    @property
    def _n_features_out(self) -> int:
        return self.best_k_

    def _run(self, X: Any, rank: int, *, rng: Any) -> Any:
        """One run of the estimator."""
        model = clone(self.estimator).set_params(n_components=rank)
        if "random_state" in model.get_params(deep=False):
            model.set_params(random_state=rng.lo)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = model.fit_transform(X)
        return _Run(X, codes, model.components_)

    def _store(self, curve: RankCurve) -> None:
        self.curve_ = curve
        self.best_k_, self.k_range_, self.status_ = curve.chosen, curve.values, curve.status
        self.silhouette_min_, self.silhouette_mean_ = np.array(curve.silhouette_min), np.array(curve.silhouette_mean)
        self.errors_ = np.array(curve.errors)
        self.components_ = np.ascontiguousarray(curve.parts[curve.values.index(curve.chosen)].T)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class _Run:
    """What `select_rank` asks of a result: columns to cluster first, and the error."""

    def __init__(self, X: Any, codes: Any, components: Any) -> None:
        self._columns = np.ascontiguousarray(components.T)
        whole = float((X.multiply(X)).sum()) if hasattr(X, "tocsr") else float(np.sum(X * X))
        inner = float(np.sum((X.T @ codes) * components.T))
        model = float(np.sum((codes.T @ codes) * (components @ components.T)))
        self.error = math.sqrt(max(whole - 2 * inner + model, 0.0) / whole) if whole > 0 else 0.0

    def __iter__(self) -> Any:
        yield self._columns
