"""Pairs of factors: their balance, and how far the product of one pair is from that of another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._backend import kernel
from ..lowrank.orthonormal import core_svd, orthonormalize
from .observations import Observations

_LEAST_SQUARES = 1e-280  # of the entries, so that residuals down to rounding have squares too
_NORMAL_QUANTILE = 1.959964  # of a two-sided interval of 95 %


def squares(values: Any) -> float:
    """The sum of squares, in double precision."""
    xp = array_namespace(values)
    wide = xp.astype(values, xp.float64, copy=False)
    return float(xp.sum(wide * wide))


@np.errstate(over="ignore")  # what overflows ends in a status
def check_range(observed: Observations) -> None:
    """Raise ValueError if the squares of entries vanish in double precision, and the objective with them."""
    xp = observed.xp
    if observed.nnz and squares(observed.data) < _LEAST_SQUARES and bool(xp.any(observed.data != 0)):
        largest = float(xp.max(xp.abs(observed.data)))
        raise ValueError(f"X must have entries whose squares are above 1e-280, got {largest:g} at most; scale it up")


def residuals(observed: Observations, left: Any, right: Any) -> Any:
    """The observed entries less those of ``left @ right^T``."""
    products = kernel("sampled_products", observed.xp)(left, right, observed.indices, observed.indptr)
    return observed.data - products


def times(F: Any, T: Any) -> Any:
    """A factor times a small matrix in double precision, in the dtype of the factor."""
    xp = array_namespace(F)
    return xp.astype(xp.matmul(xp.astype(F, xp.float64, copy=False), T), F.dtype, copy=False)


def thin_qr(F: Any) -> tuple[Any, Any]:
    """Orthonormal Q of the shape of F, and a small R in double precision with F = Q R; R need not be triangular."""
    xp = array_namespace(F)
    wide = xp.astype(F, xp.float64, copy=False)
    panel = orthonormalize(wide, rtol=0.0)
    Q, R = (panel.Q, panel.R) if panel.Q.shape[1] == F.shape[1] else xp.linalg.qr(wide)
    return xp.astype(Q, F.dtype, copy=False), R


def singular_triplets(U: Any, V: Any) -> tuple[Any, Any, Any]:
    """Orthonormal P and W, double precision, and singular values s with ``U V^T = P diag(s) W^T``."""
    xp = array_namespace(U)
    (Q, R), (Z, T) = thin_qr(xp.astype(U, xp.float64)), thin_qr(xp.astype(V, xp.float64))
    left, s, right = core_svd(xp.matmul(R, T.mT))
    return xp.matmul(Q, left), s, xp.matmul(Z, right.mT)


def balanced(U: Any, V: Any) -> tuple[Any, Any]:
    """The factors of the same product with the least ``||U||_F**2 + ||V||_F**2``: orthogonal columns of equal norms."""
    xp = array_namespace(U)
    P, s, W = singular_triplets(U, V)
    root = xp.sqrt(s)[None, :]
    return xp.astype(P * root, U.dtype, copy=False), xp.astype(W * root, V.dtype, copy=False)


def relative_change(U: Any, V: Any, U0: Any, V0: Any) -> float:
    """``||U V^T - U0 V0^T||_F / ||U V^T||_F`` from Gram matrices, without the cancellation of their difference.

    With V = V0 T + E the difference is ``(U T^T - U0) V0^T + U E^T``, both terms of which are small where it is; T by
    least squares, so that they are nearly orthogonal.
    """
    xp = array_namespace(U)
    U, V, U0, V0 = (xp.astype(F, xp.float64, copy=False) for F in (U, V, U0, V0))
    G, GU = xp.matmul(V0.mT, V0), xp.matmul(U.mT, U)
    norm = float(xp.sum(GU * xp.matmul(V.mT, V)))
    if not 0.0 < norm < math.inf:
        return 0.0 if norm == 0.0 and squares(U0) * squares(V0) == 0.0 else math.inf
    T = xp.matmul(xp.linalg.pinv(G, rtol=1e-10), xp.matmul(V0.mT, V))
    E, A = V - xp.matmul(V0, T), xp.matmul(U, T.mT) - U0
    square = (
        float(xp.sum(xp.matmul(A.mT, A) * G))
        + 2.0 * float(xp.sum(xp.matmul(A.mT, U) * xp.matmul(V0.mT, E)))
        + float(xp.sum(GU * xp.matmul(E.mT, E)))
    )
    return math.sqrt(max(square, 0.0) / norm)


def mean_error(residuals: Any) -> tuple[float, tuple[float, float]]:
    """The root mean square of residuals, and a 95 % interval of it for entries drawn at random."""
    xp = array_namespace(residuals)
    each, count = xp.astype(residuals, xp.float64) ** 2, int(residuals.shape[0])
    mean = float(xp.mean(each))
    spread = math.sqrt(float(xp.mean((each - mean) ** 2)) / max(count - 1, 1))
    low, high = max(mean - _NORMAL_QUANTILE * spread, 0.0), mean + _NORMAL_QUANTILE * spread
    return math.sqrt(mean), (math.sqrt(low), math.sqrt(high))
