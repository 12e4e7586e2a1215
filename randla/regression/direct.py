"""Dense problems that are small, or nearly square: QR and a singular value decomposition, no sketch."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import device as device_of

from ..lowrank.orthonormal import adjoint, core_svd
from .preconditioners import Preconditioner, complement
from .systems import TallSystem, WideSystem


def direct(
    system: TallSystem | WideSystem, A: Any, B: Any, damp: float, *, precision: float
) -> tuple[Any, Preconditioner]:
    """(X, exact preconditioner) of ``min ||A X - B||**2 + damp**2 ||X||**2`` for dense, already weighted A and B.

    Singular values below ``max(m, n) eps`` of the first are taken for zero, as LAPACK's gelsd does by default.
    """
    xp = system.xp
    U, s, Vh = _svd(A, xp) if min(A.shape) else _empty(A, xp)
    cut = max(A.shape) * precision * float(s[0]) if s.shape[0] else 0.0
    rank = int(xp.sum(xp.astype(s > cut, xp.int64)))
    U, s, V = U[:, :rank], s[:rank], adjoint(Vh[:rank, :])
    X = xp.matmul(V, (s / (s**2 + damp**2))[:, None] * xp.matmul(adjoint(U), B))
    tall = isinstance(system, TallSystem)
    basis = V if tall else U
    kept = xp.sqrt(s**2 + damp**2)
    null = complement(basis, xp)
    size, top = (math.sqrt(float(xp.sum(kept**2))), float(kept[0])) if rank else (0.0, 0.0)
    condition = float(kept[0] / kept[rank - 1]) if rank else 1.0
    unit = xp.ones((basis.shape[0], 1), dtype=kept.dtype, device=device_of(A))
    pre = Preconditioner(basis, kept, unit, size, top, condition, precision, 0.0, "singular value decomposition", null)
    return X, pre


def _empty(A: Any, xp: Any) -> tuple[Any, Any, Any]:
    """The decomposition of a matrix without rows or without columns."""
    (m, n), place = A.shape, device_of(A)
    values = xp.zeros((0,), dtype=xp.float64, device=place)
    return xp.zeros((m, 0), dtype=A.dtype, device=place), values, xp.zeros((0, n), dtype=A.dtype, device=place)


def _svd(A: Any, xp: Any) -> tuple[Any, Any, Any]:
    """The thin singular value decomposition, through QR where one side is much longer."""
    m, n = A.shape
    if m > 2 * n:
        Q, R = xp.linalg.qr(A)
        U, s, Vh = core_svd(R)
        return xp.matmul(Q, U), s, Vh
    if n > 2 * m:
        V, s, Uh = _svd(adjoint(A), xp)
        return adjoint(Uh), s, adjoint(V)
    return core_svd(A)
