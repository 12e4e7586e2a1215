"""How far endmembers and abundances are from known ones, after they have been matched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, floating_dtype, is_complex, namespace_of
from .._results import Result, Status


@dataclass(frozen=True, repr=False)
class EndmemberMatch(Result):
    """Which found endmember is which true one.

    Attributes
    ----------
    order : int64 array, shape (k,)
        ``found[:, order]`` lies in the order of the true ones.
    angles : float64 array, shape (k,)
        Their spectral angles in radians.
    mean_angle : float
        The mean of the angles.
    status : Status
        CONVERGED.
    """

    order: Any
    angles: Any
    mean_angle: float = math.nan
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("order", "angles")


def spectral_angle(A: Any, B: Any) -> Any:
    """Return the angles between the columns of A and those of B, in radians.

    ``2 atan2(||a - b||, ||a + b||)`` of the columns over their norms, which keeps the digits of small angles that the
    arc cosine loses; a column of zeros has the angle pi / 2 to all others.

    Parameters
    ----------
    A : array, shape (m, p)
        Spectra as columns.
    B : array, shape (m, q)
        Others with the same bands.

    Returns
    -------
    float64 array, shape (p, q)

    Raises
    ------
    ValueError
        If the numbers of rows differ, or the arrays are of two libraries.
    TypeError
        If an array is complex or not numeric.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import spectral_angle
    >>> spectral_angle(np.eye(2), np.array([[2.0, 1.0], [0.0, 1.0]])).round(4)
    array([[0.    , 0.7854],
           [1.5708, 0.7854]])
    """
    A, B = _pair(A, B, "A", "B", rows_only=True)
    xp = namespace_of(A)
    A, B = (_unit(F, xp) for F in (A, B))
    columns = []
    for j in range(int(B.shape[1])):
        b = B[:, j : j + 1]
        near, far = xp.linalg.vector_norm(A - b, axis=0), xp.linalg.vector_norm(A + b, axis=0)
        angle = 2 * xp.atan2(near, far)
        zero = (xp.max(xp.abs(A), axis=0) == 0) | (xp.max(xp.abs(b)) == 0) if A.shape[0] else angle == angle
        columns.append(xp.where(zero, math.pi / 2, angle))
    if not columns:
        return xp.zeros((int(A.shape[1]), 0), dtype=xp.float64, device=device_of(A))
    return xp.stack(columns, axis=1)


def match_endmembers(true: Any, found: Any) -> EndmemberMatch:
    """Match found endmembers with true ones so that the sum of the spectral angles is least.

    Parameters
    ----------
    true : array, shape (m, k)
        Known spectra as columns.
    found : array, shape (m, q), q >= k
        Found spectra.

    Returns
    -------
    EndmemberMatch
        ``order`` (k,) and ``angles`` (k,).

    Raises
    ------
    ValueError
        If fewer are found than are known, or as `spectral_angle`.

    Notes
    -----
    The assignment problem is solved exactly by `scipy.optimize.linear_sum_assignment`, on the host.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import match_endmembers
    >>> W = np.random.default_rng(0).random((20, 3))
    >>> match_endmembers(W, 2 * W[:, [2, 0, 1]]).order.tolist()
    [1, 2, 0]
    """
    from scipy.optimize import linear_sum_assignment

    true, found = _pair(true, found, "true", "found", rows_only=True)
    xp, k, q = namespace_of(true), int(true.shape[1]), int(found.shape[1])
    if q < k:
        raise ValueError(f"found must have at least the {k} columns of true, got {q}")
    angles = spectral_angle(true, found)
    table = np.array([[float(angles[i, j]) for j in range(q)] for i in range(k)]).reshape(k, q)
    if not np.all(np.isfinite(table)):
        raise ValueError("true and found must be finite, got NaN or infinity")
    order = linear_sum_assignment(table)[1]
    chosen = [float(table[i, j]) for i, j in enumerate(order)]
    where = device_of(angles)
    return EndmemberMatch(
        xp.asarray([int(j) for j in order], dtype=xp.int64, device=where),
        xp.asarray(chosen, dtype=xp.float64, device=where), float(np.mean(chosen)) if k else 0.0,
    )  # fmt: skip


def abundance_rmse(true: Any, found: Any, order: Any = None) -> float:
    """Return the root mean square difference of all entries of two abundance matrices.

    Parameters
    ----------
    true : array, shape (k, n)
        Known abundances.
    found : array, shape (q, n)
        Found ones; q = k without `order`.
    order : int array, shape (k,), optional
        Which rows of `found` belong to those of `true`, as `match_endmembers` tells.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import abundance_rmse
    >>> abundance_rmse(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.5]]), np.array([1, 0]))
    0.25
    """
    true, found = _pair(true, found, "true", "found", rows_only=False)
    xp = namespace_of(true)
    if order is not None:
        found = xp.take(found, xp.asarray(order, dtype=xp.int64, device=device_of(found)), axis=0)
    if tuple(found.shape) != tuple(true.shape):
        raise ValueError(f"found must have shape {tuple(true.shape)} as true, got {tuple(found.shape)}")
    difference = found - true
    return math.sqrt(float(xp.mean(difference * difference))) if 0 not in true.shape else 0.0


def _pair(A: Any, B: Any, first: str, second: str, *, rows_only: bool) -> tuple[Any, Any]:
    """Two real matrices of one library in double precision."""
    A, B = as_matrix(A, name=first, sparse=False), as_matrix(B, name=second, sparse=False)
    check_together(A, B, names=(first, second))
    xp = namespace_of(A)
    for F, name in ((A, first), (B, second)):
        if is_complex(F.dtype):
            raise TypeError(f"{name} must be real, got {F.dtype}")
    if rows_only and A.shape[0] != B.shape[0]:
        raise ValueError(f"{second} must have the {A.shape[0]} rows of {first}, got {B.shape[0]}")
    return tuple(xp.astype(xp.astype(F, floating_dtype(F, xp)), xp.float64) for F in (A, B))


def _unit(F: Any, xp: Any) -> Any:
    """Columns over their norms; those of zeros stay."""
    top = xp.max(xp.abs(F), axis=0) if F.shape[0] else xp.ones(F.shape[1], dtype=F.dtype, device=device_of(F))
    F = F / xp.where(top > 0, top, xp.ones_like(top))[None, :]
    norms = xp.linalg.vector_norm(F, axis=0)
    return F / xp.where(norms > 0, norms, xp.ones_like(norms))[None, :]
