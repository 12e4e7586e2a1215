"""Changes of factors and biases that change no prediction: which of them has the least ridge terms is a small problem.

Sweeps would go there too, by half a percent at a time.  A solution X (m, k + 1) of rows holds factors and, where there
are biases, the bias over `column` as its last entry; Y (n, k + 1) those of columns.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import device

from .._parallel import serial_blas
from ..lowrank.orthonormal import core_svd

_LEAST = 1e-7  # of the largest: a direction that counts less is lost in the roots of Gram matrices


def balanced(X: Any, Y: Any, k: int, row_ridge: Any, col_ridge: Any, xp: Any) -> tuple[Any, Any]:
    """X T and Y T^-T with the least sum of ``ridge |x|**2`` over rows and columns, in the first k entries.

    With A = X^T diag(ridge) X and B of the columns, T^T A T = T^-1 B T^-T is diagonal, and descending.
    """
    left, right = (_root_gram(F[:, :k], ridge, xp) for F, ridge in ((X, row_ridge), (Y, col_ridge)))
    P, s, Wh = core_svd(xp.matmul(left, right.mT))
    if not float(s[-1]) > _LEAST * float(s[0]):
        return X, Y
    T = xp.matmul(right.mT, Wh.mT) / xp.sqrt(s)[None, :]
    inverse = xp.matmul(P.mT, left) / xp.sqrt(s)[:, None]
    return _replaced(X, k, T, xp), _replaced(Y, k, inverse.mT, xp)


def shifted(X: Any, Y: Any, row_ridge: Any, col_ridge: Any, column: float, xp: Any) -> tuple[Any, Any]:
    """The best t: added to the factors of each column, and ``x . t`` taken off the bias of each row."""
    k = int(X.shape[1]) - 1
    wide, other = xp.astype(X, xp.float64), xp.astype(Y[:, :k], xp.float64)
    factors, bias = wide[:, :k] / column, wide[:, k:]
    weighted = row_ridge[:, None] * factors
    with serial_blas():
        M = xp.matmul(weighted.mT, factors)
        M = M + xp.sum(col_ridge) * xp.eye(k, dtype=xp.float64, device=device(X))
        right = xp.matmul(weighted.mT, bias) - xp.matmul(other.mT, col_ridge[:, None])
        t = xp.linalg.solve(M, right) if k else right
        bias = bias - xp.matmul(factors, t)
    seen = xp.astype(col_ridge > 0, xp.float64)[:, None]
    X = xp.concat([X[:, :k], xp.astype(bias, X.dtype)], axis=1)
    return X, xp.concat([xp.astype(other + seen * t.mT, Y.dtype), Y[:, k:]], axis=1)


def levelled(X: Any, Y: Any, row_ridge: Any, col_ridge: Any, xp: Any) -> tuple[Any, Any]:
    """The best number: added to the biases of all rows and taken off those of all columns."""
    k = int(X.shape[1]) - 1
    surplus = float(xp.sum(col_ridge * xp.astype(Y[:, k], xp.float64)))
    surplus -= float(xp.sum(row_ridge * xp.astype(X[:, k], xp.float64)))
    step = surplus / float(xp.sum(row_ridge) + xp.sum(col_ridge))
    moved = []
    for F, ridge, change in ((X, row_ridge, step), (Y, col_ridge, -step)):
        bias = F[:, k:] + change * xp.astype(ridge > 0, F.dtype)[:, None]
        moved.append(xp.concat([F[:, :k], bias], axis=1))
    return moved[0], moved[1]


def _replaced(F: Any, k: int, T: Any, xp: Any) -> Any:
    return xp.concat([turned(F[:, :k], T, xp), F[:, k:]], axis=1)


def _root_gram(F: Any, ridge: Any, xp: Any) -> Any:
    """R with ``R^T R = F^T diag(ridge) F``; float64."""
    wide = xp.sqrt(ridge)[:, None] * xp.astype(F, xp.float64)
    with serial_blas():
        values, Q = xp.linalg.eigh(xp.matmul(wide.mT, wide))
    return xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))[:, None] * Q.mT


def turned(F: Any, Q: Any, xp: Any) -> Any:
    """``F @ Q`` in the dtype of F."""
    with serial_blas():
        return xp.matmul(F, xp.astype(Q, F.dtype))
