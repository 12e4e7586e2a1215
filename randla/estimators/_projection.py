"""Random projections of the features, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from .._checks import check_integer, check_real
from .._random import Key
from ..operators import SRHT, Gaussian, SparseSign
from ._base import Reducer, key_of

#: Entries of the panel that `inverse_transform` holds at a time (128 MB of float64).
_TILE_ENTRIES = 2**24


class _Projection(Reducer):
    """Fit draws the recipe of S, transform multiplies by it; a subclass says which S."""

    def _make(self, n_components: int, n_features: int, key: Key) -> Any:
        raise NotImplementedError

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Any:
        """Draw the operator for data of this shape; the values of X are checked and not used.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            The training data.
        y : ignored
            Present by convention.

        Returns
        -------
        self : estimator
            The fitted estimator.
        """
        X = self._intake(X, reset=True)
        context = self._init_callback_context().call_on_fit_task_begin(estimator=self, X=X, y=y)
        self.n_components_ = self._choose_size(X)
        self.operator_ = self._make(self.n_components_, X.shape[1], key_of(self.random_state))
        fitted = {"operator_": self.operator_, "n_components_": self.n_components_}
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=fitted)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return ``X @ S.T``.

        Parameters
        ----------
        X : array, data frame or CSR/CSC matrix, shape (n_samples, n_features)
            Data to compress.  A sparse matrix is never densified.

        Returns
        -------
        X_new : array, shape (n_samples, n_components_)
            The compressed data, dense, in the dtype of X (float32 or float64).
        """
        X = self._intake(X, reset=False)
        return self.operator_.rmatmul(X)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return ``X @ pinv(S).T``: for each row the least-norm solution z of ``S @ z = x``.

        Hence ``transform(inverse_transform(X))`` is X wherever S has full row rank, and
        ``inverse_transform(transform(X))`` is the orthogonal projection of X on the row space of S.  The adjoint
        ``X @ S``, an unbiased estimate of the data, has a larger error and is not used.  S is never stored: each call
        applies S and its transpose to n_components vectors and inverts ``S @ S.T``, of n_components**2 entries.

        Parameters
        ----------
        X : array, shape (n_samples, n_components_)
            Compressed data.

        Returns
        -------
        X_original : array, shape (n_samples, n_features)
            The rebuilt data, dense, in the dtype of X.
        """
        X = self._intake_reduced(X)
        S, units = self.operator_, np.eye(self.n_components_)
        width = max(1, _TILE_ENTRIES // self.n_features_in_)
        panels = [S @ (S.T @ units[:, lo : lo + width]) for lo in range(0, self.n_components_, width)]
        gram = np.concatenate(panels, axis=1)
        # Hermitian pseudo-inverse and not a Cholesky factor: a sparse S with few columns can have dependent rows
        coefficients = X @ np.linalg.pinv(gram, hermitian=True)
        return np.ascontiguousarray((S.T @ coefficients.T).T, dtype=X.dtype)

    def _choose_size(self, X: Any) -> int:
        if not isinstance(self.n_components, str):
            return self._check_components(self.n_components, X, of="n_features")
        if self.n_components != "auto":
            raise ValueError(f'n_components must be "auto" or an integer, got {self.n_components!r}')
        n_samples, n_features = X.shape
        epsilon = check_real(self.epsilon, "epsilon", low=0.0, high=1.0, closed="neither")
        wanted = max(1, int(johnson_lindenstrauss_min_dim(n_samples, eps=epsilon)))
        if wanted > n_features:
            warnings.warn(
                f"epsilon must be larger to compress {n_samples} samples of n_features={n_features}, got {epsilon:g}, "
                f"which needs n_components={wanted}; {n_features} are used, without a guarantee",
                DataDimensionalityWarning,
                stacklevel=4,  # the caller of fit, through the decorator
            )
        return min(wanted, n_features)


class SparseSignProjection(_Projection):
    """Project the features with a sparse sign matrix: `nnz` additions for each entry of X.

    Sample x becomes ``S @ x`` with S of shape (n_components, n_features) and E[S.T @ S] = I, so that squared distances
    between samples are kept up to a factor 1 +- epsilon.  S has `nnz` entries +-1/sqrt(nnz) in each column; it is
    generated while it multiplies, never stored, and its pickle is below 1 kB.  The projection to take unless there is a
    reason for another one: it costs nnz flops for each nonzero of X, where `GaussianProjection` costs n_components.

    Parameters
    ----------
    n_components : int or "auto", default "auto", 1 <= n_components <= n_features
        Columns of the output, the sketch size of S.  "auto" takes the Johnson-Lindenstrauss size for `epsilon` and the
        number of samples; where that exceeds n_features, n_features is used and a DataDimensionalityWarning says so.
    nnz : int, nnz >= 1, default 8
        Nonzeros in each column of S; a value above n_components is lowered to it.
    epsilon : float, 0 < epsilon < 1, default 0.1
        Relative distortion of squared distances that "auto" aims at; an integer `n_components` does not use it.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the key of S.  An int gives the same S at every fit; a RandomState or a Generator is consumed.

    Attributes
    ----------
    operator_ : SparseSign
        The operator S, shape (n_components_, n_features).
    n_components_ : int
        Columns of the output.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    GaussianProjection : independent normal entries, with the sharpest proof.
    SRHTProjection : a randomized Hadamard transform, for dense data and many components.

    Notes
    -----
    "auto" is ``4 log(n_samples) / (epsilon**2 / 2 - epsilon**3 / 3)`` as in scikit-learn [1]_.  With a Gaussian S a
    pair of samples then fails with probability at most 2 / n_samples**2, so that the union bound gives all pairs with
    probability at least 1 / n_samples only; in practice nearly every draw holds.  For the sparse S the same order of
    size is proved with nnz of order log(n_samples) / epsilon [2]_; that `nnz` = 8 behaves as the Gaussian is observed.

    References
    ----------
    .. [1] Dasgupta and Gupta, "An elementary proof of a theorem of Johnson and Lindenstrauss", Random Structures and
       Algorithms 22, 2003.
    .. [2] Kane and Nelson, "Sparser Johnson-Lindenstrauss transforms", Journal of the ACM 61, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SparseSignProjection
    >>> X = np.random.default_rng(0).standard_normal((50, 1000))
    >>> SparseSignProjection(100, random_state=0).fit_transform(X).shape
    (50, 100)
    """

    def __init__(
        self, n_components: Any = "auto", *, nnz: int = 8, epsilon: float = 0.1, random_state: Any = None
    ) -> None:
        self.n_components = n_components
        self.nnz = nnz
        self.epsilon = epsilon
        self.random_state = random_state

    def _make(self, n_components: int, n_features: int, key: Key) -> SparseSign:
        nnz = check_integer(self.nnz, "nnz", low=1)
        return SparseSign(n_components, n_features, nnz=min(nnz, n_components), rng=key)


class GaussianProjection(_Projection):
    """Project the features with a matrix of independent normal entries of variance 1/n_components.

    Sample x becomes ``S @ x`` with S of shape (n_components, n_features) and E[S.T @ S] = I, so that squared distances
    between samples are kept up to a factor 1 +- epsilon.  S is generated in tiles beside the matrix product, never
    stored, and its pickle is below 1 kB.  The projection with the sharpest proof, at n_components flops for each
    nonzero of X; `SparseSignProjection` keeps distances as well in practice at a fraction of the cost.

    Parameters
    ----------
    n_components : int or "auto", default "auto", 1 <= n_components <= n_features
        Columns of the output, the sketch size of S.  "auto" takes the Johnson-Lindenstrauss size for `epsilon` and the
        number of samples; where that exceeds n_features, n_features is used and a DataDimensionalityWarning says so.
    epsilon : float, 0 < epsilon < 1, default 0.1
        Relative distortion of squared distances that "auto" aims at; an integer `n_components` does not use it.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the key of S.  An int gives the same S at every fit; a RandomState or a Generator is consumed.

    Attributes
    ----------
    operator_ : Gaussian
        The operator S, shape (n_components_, n_features).
    n_components_ : int
        Columns of the output.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    SparseSignProjection : `nnz` signs in each column; what its size guarantees is said there.
    SRHTProjection : a randomized Hadamard transform, for dense data and many components.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import GaussianProjection
    >>> X = np.random.default_rng(0).standard_normal((50, 1000))
    >>> GaussianProjection(100, random_state=0).fit_transform(X).shape
    (50, 100)
    """

    def __init__(self, n_components: Any = "auto", *, epsilon: float = 0.1, random_state: Any = None) -> None:
        self.n_components = n_components
        self.epsilon = epsilon
        self.random_state = random_state

    def _make(self, n_components: int, n_features: int, key: Key) -> Gaussian:
        return Gaussian(n_components, n_features, rng=key)


class SRHTProjection(_Projection):
    """Project the features with a subsampled randomized Hadamard transform.

    Sample x becomes ``S @ x``: random signs and a Walsh-Hadamard transform, `rounds` times, of which n_components
    coordinates are kept; E[S.T @ S] = I, so that squared distances between samples are kept up to a factor
    1 +- epsilon.  It costs about ``rounds * log2(n_features)`` additions for each entry of X, whatever n_components is:
    the projection for dense data and many components.  A sparse X gains nothing from its zeros here;
    `SparseSignProjection` serves it better.

    Parameters
    ----------
    n_components : int or "auto", default "auto", 1 <= n_components <= n_features
        Columns of the output, the sketch size of S.  "auto" takes the Johnson-Lindenstrauss size for `epsilon` and the
        number of samples; where that exceeds n_features, n_features is used and a DataDimensionalityWarning says so.
    rounds : int, rounds >= 1, default 2
        Rounds of signs and transform.  One round distorts sparse samples; two are needed to be near the Gaussian.
    epsilon : float, 0 < epsilon < 1, default 0.1
        Relative distortion of squared distances that "auto" aims at; an integer `n_components` does not use it.
    random_state : None, int, RandomState, SeedSequence, Generator or Key, default None
        Source of the key of S.  An int gives the same S at every fit; a RandomState or a Generator is consumed.

    Attributes
    ----------
    operator_ : SRHT
        The operator S, shape (n_components_, n_features).
    n_components_ : int
        Columns of the output.
    n_features_in_ : int
        Features seen during fit.
    feature_names_in_ : array, shape (n_features,)
        Their names, where X has string column names.

    See Also
    --------
    SparseSignProjection : `nnz` signs in each column; what its size guarantees is said there.
    GaussianProjection : independent normal entries, with the sharpest proof.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import SRHTProjection
    >>> X = np.random.default_rng(0).standard_normal((50, 1000))
    >>> SRHTProjection(100, random_state=0).fit_transform(X).shape
    (50, 100)
    """

    def __init__(
        self, n_components: Any = "auto", *, rounds: int = 2, epsilon: float = 0.1, random_state: Any = None
    ) -> None:
        self.n_components = n_components
        self.rounds = rounds
        self.epsilon = epsilon
        self.random_state = random_state

    def _make(self, n_components: int, n_features: int, key: Key) -> SRHT:
        return SRHT(n_components, n_features, rounds=check_integer(self.rounds, "rounds", low=1), rng=key)
