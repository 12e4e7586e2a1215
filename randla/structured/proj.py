"""Projections on sets of sparse matrices, for `palm4msa` and `hierarchical_factorize`.

Each is a small object that maps a matrix to the nearest one of its set; among entries of equal modulus the first one,
row by row, counts, so equal inputs give equal patterns on every backend.  Norms are left alone: the algorithms scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, is_numpy_namespace

from .._arrays import as_matrix, from_host
from .._checks import check_integer

__all__ = ["Columns", "Everything", "Largest", "Permutation", "Rows", "RowsAndColumns", "Support"]


def _leading(size: Any, k: int, axis: int) -> Any:
    """True for the k largest along an axis, the first of equal ones."""
    xp = array_namespace(size)
    order = xp.argsort(-size, axis=axis, stable=True)
    return xp.argsort(order, axis=axis, stable=True) < k


@dataclass(frozen=True)
class Everything:
    """No constraint.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import proj
    >>> proj.Everything()(np.eye(2)).shape
    (2, 2)
    """

    def __call__(self, M: Any) -> Any:
        """The matrix as it is."""
        return M


@dataclass(frozen=True)
class Largest:
    """At most k entries, those of largest modulus.

    Parameters
    ----------
    k : int, k >= 1

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import proj
    >>> proj.Largest(2)(np.array([[1.0, -3.0], [2.0, 0.5]]))
    array([[ 0., -3.],
           [ 2.,  0.]])
    """

    k: int

    def __post_init__(self) -> None:
        check_integer(self.k, "k", low=1)

    def __call__(self, M: Any) -> Any:
        """The nearest matrix of the set."""
        xp = array_namespace(M)
        keep = xp.reshape(_leading(xp.reshape(xp.abs(M), (-1,)), self.k, 0), M.shape)
        return xp.where(keep, M, xp.zeros_like(M))


@dataclass(frozen=True)
class Columns:
    """At most k entries in each column.

    Parameters
    ----------
    k : int, k >= 1
    """

    k: int

    def __post_init__(self) -> None:
        check_integer(self.k, "k", low=1)

    def __call__(self, M: Any) -> Any:
        """The nearest matrix of the set."""
        xp = array_namespace(M)
        return xp.where(_leading(xp.abs(M), self.k, 0), M, xp.zeros_like(M))


@dataclass(frozen=True)
class Rows:
    """At most k entries in each row.

    Parameters
    ----------
    k : int, k >= 1
    """

    k: int

    def __post_init__(self) -> None:
        check_integer(self.k, "k", low=1)

    def __call__(self, M: Any) -> Any:
        """The nearest matrix of the set."""
        xp = array_namespace(M)
        return xp.where(_leading(xp.abs(M), self.k, 1), M, xp.zeros_like(M))


@dataclass(frozen=True)
class RowsAndColumns:
    """The k largest entries of each row together with those of each column ("splincol").

    A matrix of the result may hold up to twice k entries in a row, so this is a thresholding rule rather than a
    projection; where rows and columns agree on their entries it is both.

    Parameters
    ----------
    k : int, k >= 1

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import proj
    >>> proj.RowsAndColumns(1)(np.array([[1.0, -3.0], [2.0, 0.5]]))
    array([[ 0., -3.],
           [ 2.,  0.]])
    """

    k: int

    def __post_init__(self) -> None:
        check_integer(self.k, "k", low=1)

    def __call__(self, M: Any) -> Any:
        """The entries that the rule keeps."""
        xp = array_namespace(M)
        size = xp.abs(M)
        return xp.where(_leading(size, self.k, 0) | _leading(size, self.k, 1), M, xp.zeros_like(M))


@dataclass(frozen=True)
class Permutation:
    """k entries in each row and in each column of a square matrix ("skperm"), for NumPy arrays.

    One after the other k permutations of largest sum of squares are taken out of what is left; for k = 1 that is the
    projection, above it comes near.

    Parameters
    ----------
    k : int, k >= 1
    """

    k: int

    def __post_init__(self) -> None:
        check_integer(self.k, "k", low=1)

    def __call__(self, M: Any) -> Any:
        """A matrix of the set that is near."""
        xp = array_namespace(M)
        if not is_numpy_namespace(xp):
            raise NotImplementedError(f"Permutation assigns on NumPy arrays, got {xp.__name__}; use RowsAndColumns(k)")
        if M.shape[0] != M.shape[1] or self.k > M.shape[0]:
            raise ValueError(f"M must be square with at least {self.k} rows, got shape {M.shape}")
        from scipy.optimize import linear_sum_assignment

        gain, keep = xp.abs(M) ** 2, xp.zeros(M.shape, dtype=bool)
        taken = -2.0 * M.shape[0] * max(float(gain.max()), 1e-300)  # never worth taking twice
        for _ in range(self.k):
            rows, columns = linear_sum_assignment(gain, maximize=True)
            keep[rows, columns] = True
            gain[rows, columns] = taken
        return xp.where(keep, M, xp.zeros_like(M))


@dataclass(frozen=True, eq=False)
class Support:
    """Entries at given places only.

    Parameters
    ----------
    mask : bool array, shape (m, n)
        True where an entry may be.
    """

    mask: Any

    def __post_init__(self) -> None:
        as_matrix(self.mask, name="mask", sparse=False)

    def __call__(self, M: Any) -> Any:
        """The nearest matrix of the set."""
        xp = array_namespace(M)
        mask = self.mask
        if array_namespace(mask) is not xp:
            mask = from_host(mask, xp, M)
        if tuple(mask.shape) != tuple(M.shape):
            raise ValueError(f"mask must have the shape of the factor, {tuple(M.shape)}, got {tuple(mask.shape)}")
        return xp.where(xp.astype(mask, xp.bool), M, xp.zeros_like(M))
