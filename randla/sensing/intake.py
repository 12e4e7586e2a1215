"""What both recoveries share: checked problems, factors to start from, and the leading part of an adjoint image."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, dtype_name, floating_dtype, from_host, is_complex, namespace_of
from .._random import Key
from ..linear_maps import LinearMap, Look
from ..lowrank.orthonormal import core_svd
from ..lowrank.svd import svd
from .adapters import as_measurements
from .base import Measurements

_DENSE_ENTRIES = 2**20  # an adjoint image up to this size is formed and decomposed whole


class Problem(NamedTuple):
    """Checked measurements and their numbers, and the root mean square of the entries of all A_i."""

    A: Measurements
    y: Any
    unit: float


def checked_problem(measurements: Any, y: Any, shape: Any, key: Key) -> Problem:
    """The problem in the floating dtype of y; measurements that are generated and small are kept."""
    A = as_measurements(measurements, shape)
    y = as_matrix(y, name="y", sparse=False, vector=True)
    if tuple(y.shape) != (A.n_measurements,):
        raise ValueError(
            f"y must have shape ({A.n_measurements},), one number for each measurement, got {tuple(y.shape)}"
        )
    if is_complex(y.dtype):
        raise ValueError(
            f"y must be real, got {dtype_name(y.dtype)}; recover the real and the imaginary part one by one"
        )
    if A.n_measurements == 0:
        raise ValueError("y must not be empty, got shape (0,)")
    A._check_place(y, "y")
    xp = namespace_of(y)
    y = xp.astype(xp.asarray(y), floating_dtype(y, xp), copy=False)
    square = A._mean_square(key.fold("unit"), y)
    if not square > 0.0:  # NaN included
        raise ValueError(f"measurements must be finite and not all zero, got a mean square of {square}")
    return Problem(A._kept(y), y, math.sqrt(square))


def given_factors(init: Any, problem: Problem, rank: int) -> tuple[Any, Any]:
    """Factors of the user, in the dtype of y; a result serves as well."""
    try:
        U, V = init
    except (TypeError, ValueError):
        raise ValueError(f"init must be a pair of factors or a result, got {type(init).__name__}") from None
    xp, checked = namespace_of(problem.y), []
    for name, side, factor in zip("UV", problem.A.shape, (U, V), strict=True):
        factor = as_matrix(factor, name=f"init {name}", sparse=False)
        check_together(problem.y, factor, names=("y", f"init {name}"))
        if tuple(factor.shape) != (side, rank):
            raise ValueError(f"init must hold {name} of shape ({side}, {rank}), got {tuple(factor.shape)}")
        if is_complex(factor.dtype):
            raise ValueError(f"init must be real, got {dtype_name(factor.dtype)}")
        checked.append(xp.astype(factor, problem.y.dtype, copy=False))
    return checked[0], checked[1]


def leading(A: Measurements, w: Any, rank: int, key: Key, *, symmetric: bool = False) -> tuple[Any, Any, Any]:
    """The leading singular triplets of ``A^*(w)``, or the leading positive eigenpairs of its symmetric part.

    Returns (P, s, Q) with P (d1, rank), s (rank,) and Q (d2, rank).
    """
    xp = array_namespace(w)
    if math.prod(A.shape) <= _DENSE_ENTRIES:
        C = xp.astype(A._adjoint(w), xp.float64)
        if symmetric:
            values, W = xp.linalg.eigh(0.5 * (C + C.mT))
            P, s = xp.flip(W, axis=1)[:, :rank], xp.flip(values, axis=0)[:rank]
            Q, s = P, xp.where(s > 0, s, xp.zeros_like(s))
        else:
            P, s, Qh = core_svd(C)
            P, s, Q = P[:, :rank], s[:rank], Qh[:rank, :].mT
    else:
        P, s, Qh = svd(_Image(A, w, symmetric), rank, rng=key, on_failure="ignore")
        Q = Qh.mT
        if symmetric:
            middle = xp.astype(P.mT @ _Image(A, w, symmetric).matmul(P), xp.float64)
            values, W = xp.linalg.eigh(0.5 * (middle + middle.mT))
            P, s = xp.matmul(xp.astype(P, xp.float64), xp.flip(W, axis=1)), xp.flip(values, axis=0)
            Q, s = P, xp.where(s > 0, s, xp.zeros_like(s))
    return xp.astype(P, w.dtype), xp.astype(s, w.dtype), xp.astype(Q, w.dtype)


class _Image(LinearMap):
    """``A^*(w)``, or its symmetric part, by products with panels."""

    knows_norm = False

    def __init__(self, A: Measurements, w: Any, symmetric: bool) -> None:
        super().__init__(A.shape, w.dtype, array_namespace(w), device_of(w))
        self.A, self.w, self.symmetric = A, w, symmetric

    def _matmul(self, X: Any) -> Any:
        Y = self.A._times(self.w, X)
        return 0.5 * (Y + self.A._rtimes(self.w, X)) if self.symmetric else Y

    def _rmatmul(self, Y: Any) -> Any:
        return self._matmul(Y) if self.symmetric else self.A._rtimes(self.w, Y)

    def _sketch_columns(self, S: Any) -> Any:
        return self._matmul(self._transposed(S))

    def _look(self, S: Any) -> Look:
        return Look(self._rmatmul(self._transposed(S)).mT, math.nan, math.nan, None)

    def _transposed(self, S: Any) -> Any:
        return self.xp.astype(from_host(S.toarray().T, self.xp, self.w), self.dtype)


def norm(*arrays: Any) -> float:
    """The Frobenius norm of all arrays together, in double precision."""
    total = 0.0
    for X in arrays:
        xp = array_namespace(X)
        total += float(xp.sum(xp.astype(X, xp.float64) ** 2))
    return math.sqrt(total)
