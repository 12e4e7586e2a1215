"""The three sketches of a single view: which operators they are, and the decomposition that they determine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device as device_of

from .._arrays import is_sparse, namespace_of, real_dtype
from .._random import Key
from ..diagnostics import PROBES
from ..operators import Gaussian, Rademacher, SparseSign
from .orthonormal import NonfiniteError, adjoint, core_dtype, core_svd, orthonormalize_owned

#: Kinds of the four sketches; the probes are Gaussian always, since their confidence rests on it.
SKETCHES = ("sparse-sign", "gaussian", "rademacher")


@dataclass(frozen=True)
class Identity:
    """The sketch that keeps all, for a side of the matrix that is not longer than its sketch."""

    n: int

    @property
    def sketch_size(self) -> int:
        """Rows: as many as columns."""
        return self.n

    def matmul(self, A: Any, *, start: int = 0) -> Any:
        """The rows of A at their places among n rows; A itself where it has them all."""
        A = A.toarray() if is_sparse(A) else A
        if A.shape[0] == self.n:
            return A
        out = namespace_of(A).zeros((self.n, A.shape[1]), dtype=A.dtype, device=device_of(A))
        out[start : start + A.shape[0], :] = A
        return out

    def rmatmul(self, A: Any, *, start: int = 0) -> Any:
        """The columns of A at their places among n columns."""
        A = A.toarray() if is_sparse(A) else A
        return A if A.shape[1] == self.n else self.matmul(A.mT, start=start).mT

    def toarray(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The columns start..stop-1 of the identity."""
        return np.eye(self.n)[:, start:stop]


class Sketches(NamedTuple):
    """``X = upsilon A``, ``Y = A omega^T``, ``Z = phi A psi^T`` and the probes ``theta A``.

    Without phi and psi there are two sketches, X with the larger size and Y.
    """

    upsilon: Any
    omega: Any
    phi: Any
    psi: Any
    theta: Gaussian


def sketches(
    size: int, core_size: int, m: int, n: int, key: Key, *, kind: str = "sparse-sign", core: bool = True,
    n_probes: int = PROBES,
) -> Sketches:  # fmt: skip
    """The operators of a matrix (m, n); those that are not smaller than the side they sketch become the identity."""

    def one(rows: int, length: int, label: str) -> Any:
        if rows >= length:
            return Identity(length)
        if kind == "sparse-sign":
            return SparseSign(rows, length, nnz=min(4, rows), rng=key.fold(label))
        return {"gaussian": Gaussian, "rademacher": Rademacher}[kind](rows, length, rng=key.fold(label))

    return Sketches(
        one(size if core else core_size, m, "rows"),
        one(size, n, "columns"),
        one(core_size, m, "core rows") if core else None,
        one(core_size, n, "core columns") if core else None,
        Gaussian(n_probes, m, rng=key.fold("probe")),
    )


def solve_core(S: Sketches, X: Any, Y: Any, Z: Any, rank: int) -> tuple[Any, Any, Any]:
    """The decomposition ``U, s, Vh`` of rank at most `rank` that the sketches determine; X and Y are not changed.

    With Q and P spanning Y and X^* the core C solves the two least squares problems ``(phi Q) C (psi P)^* = Z``; where
    there are two sketches only it is ``(upsilon Q)^+ X``.

    Raises
    ------
    NonfiniteError
        If a sketch holds NaN or infinity.
    """
    xp = namespace_of(Y)
    core = core_dtype(Y.dtype, xp)
    Q = orthonormalize_owned(xp.asarray(Y, copy=True)).Q
    P = orthonormalize_owned(xp.asarray(adjoint(X), copy=True)).Q
    if S.phi is None:
        left = xp.astype(S.upsilon.matmul(Q), core)
        C = xp.matmul(xp.linalg.pinv(left), xp.astype(xp.matmul(X, P), core))
    else:
        left, right = (xp.astype(side.matmul(B), core) for side, B in ((S.phi, Q), (S.psi, P)))
        C = xp.matmul(xp.matmul(xp.linalg.pinv(left), xp.astype(Z, core)), adjoint(xp.linalg.pinv(right)))
    if not bool(xp.all(xp.isfinite(C))):
        raise NonfiniteError("the core holds NaN or infinity")
    W, s, Vh = core_svd(C)
    r = min(rank, s.shape[0])
    U = xp.matmul(Q, xp.astype(W[:, :r], Y.dtype))
    V = xp.matmul(P, xp.astype(adjoint(Vh[:r, :]), Y.dtype))
    return U, xp.astype(s[:r], real_dtype(Y.dtype, xp)), adjoint(V)


def filled(U: Any, s: Any, Vh: Any, rank: int) -> tuple[Any, Any, Any]:
    """Zero singular values with orthonormal vectors up to the rank asked for."""
    missing = rank - s.shape[0]
    if missing <= 0:
        return U, s, Vh
    xp, device = namespace_of(U), device_of(U)
    grown = []
    for B in (U, adjoint(Vh)):
        fresh = xp.eye(B.shape[0], min(B.shape[0], missing + B.shape[1]), dtype=B.dtype, device=device)
        grown.append(xp.concat([B, orthonormalize_owned(fresh, (B,)).Q[:, :missing]], axis=1))
    return grown[0], xp.concat([s, xp.zeros((missing,), dtype=s.dtype, device=device)]), adjoint(grown[1])
