"""Factors of a matrix that make its normal equations well-conditioned: from all rows, from a sample, from a sketch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import eps, from_host
from .._backend import kernel
from .._random import Key
from ..linear_maps import DenseMap, LinearMap, OperatorMap, SparseMap
from ..lowrank.orthonormal import adjoint, core_dtype, core_svd
from ..triangular import row_pieces, scaled_rows

GRAM_CONDITION = 1e5  # up to here the eigenvalues of a Gram matrix in double precision keep six digits
NOISE = 30.0  # singular values below this many eps of the first are rounding noise (SPIR's constant)
GRAM_COLUMNS = 256  # up to here a Gram matrix of all rows costs less than the steps that it saves
LEAST_PIVOT = 1e4  # in units of rounding: the inverse of the leading factor keeps four digits
LARGEST_GROWTH = 1e3  # of the rest of a sketch beside its leading rows: the Gram matrix loses twice its digits
LEADING = 3  # rows of the first factor of a sketch, for each column


@dataclass(frozen=True, repr=False)
class Preconditioner:
    """``C scale^-1 ~ Q diag(s) V^*`` with a nearly orthonormal Q, and so is ``C P`` with ``P = scale^-1 V / s``.

    Attributes
    ----------
    V : array, shape (n, rank)
    s : array, shape (rank,), descending, in double precision
    scale : array, shape (n, 1)
        Norms of the columns of C, so that V and s belong to columns of equal norm.
    size, top : float
        Frobenius and spectral norm of the scaled C.
    condition : float
    eps : float
        Machine epsilon of the data.
    rate : float
        Factor by which a step of conjugate gradients is expected to lower the error.
    note : str
        What it was made from.
    null : array, shape (n, n - rank)
        Orthonormal basis of what was dropped.
    """

    V: Any
    s: Any
    scale: Any
    size: float
    top: float
    condition: float
    eps: float
    rate: float
    note: str
    null: Any
    P: Any = field(init=False)

    @property
    def rank(self) -> int:
        """Columns that are kept."""
        return int(self.s.shape[0])

    def __post_init__(self) -> None:
        object.__setattr__(self, "P", self.V / self.s[None, :] / self.scale)

    def apply(self, Y: Any) -> Any:
        """P Y."""
        return self.xp.matmul(self.P, Y)

    def adjoint(self, G: Any) -> Any:
        """P^* G."""
        return self.xp.matmul(adjoint(self.P), G)

    def back(self, S: Any) -> Any:
        """The gradient G in the range of C^* whose `adjoint` is S."""
        return self.scale * self.xp.matmul(self.V, self.s[:, None] * S)

    def project(self, G: Any) -> Any:
        """The part of G that lies in the range of C^*."""
        if self.null.shape[1] == 0:
            return G
        return self.scale * self.xp.matmul(self.V, self.xp.matmul(adjoint(self.V), G / self.scale))

    def least_norm(self, X: Any) -> Any:
        """X without its part in the null space of C."""
        if self.null.shape[1] == 0:
            return X
        Z = self.xp.linalg.qr(self.null / self.scale)[0]
        return X - self.xp.matmul(Z, self.xp.matmul(adjoint(Z), X))

    @property
    def xp(self) -> Any:
        """The namespace of the factors."""
        return array_namespace(self.V)


def from_factor(R: Any, z: Any, scale: Any, *, precision: float, rate: float, note: str) -> tuple[Preconditioner, Any]:
    """The preconditioner of a factor R (r, n) of scaled columns, and the solution of ``R x = z`` where there is a z."""
    xp = array_namespace(R)
    U, s, Vh = core_svd(R)
    rank = int(xp.sum(xp.astype(s > NOISE * precision * s[0], xp.int64))) if s.shape[0] else 0
    V = adjoint(Vh[:rank, :])
    null = complement(V, xp)
    condition = float(s[0] / s[rank - 1]) if rank else 1.0
    size, top = (math.sqrt(float(xp.sum(s**2))), float(s[0])) if rank else (0.0, 0.0)
    pre = Preconditioner(V, s[:rank], scale, size, top, condition, precision, rate, note, null)
    return pre, None if z is None else pre.apply(xp.matmul(adjoint(U[:, :rank]), z))


def complement(V: Any, xp: Any) -> Any:
    """An orthonormal basis of the complement of the columns of V."""
    n, rank = V.shape
    if rank == n:
        return xp.zeros((n, 0), dtype=V.dtype, device=device_of(V))
    U, _, _ = core_svd(xp.eye(n, dtype=V.dtype, device=device_of(V)) - xp.matmul(V, adjoint(V)))
    return U[:, : n - rank]


def from_gram(
    G: Any, *, precision: float, rate: float, note: str, limit: float = GRAM_CONDITION
) -> Preconditioner | None:
    """The preconditioner of a Gram matrix in double precision; None where its root has a condition above `limit`."""
    xp = array_namespace(G)
    lengths = xp.sqrt(
        xp.real(xp.linalg.diagonal(G)) if xp.isdtype(G.dtype, "complex floating") else xp.linalg.diagonal(G)
    )
    if not bool(xp.all(xp.isfinite(lengths) & (lengths > 0))):
        return None
    scale = lengths[:, None]
    G = G / scale / scale.T
    try:  # the least pivot bounds the condition from below, for a tenth of the work
        if not float(xp.min(xp.linalg.diagonal(xp.real(xp.linalg.cholesky(G))))) * limit > 1.0:
            return None
    except (np.linalg.LinAlgError, RuntimeError):
        return None
    values, V = xp.linalg.eigh(G)
    least, most = float(values[0]), float(values[-1])
    if not least * limit**2 > most:
        return None
    s, V = xp.sqrt(xp.flip(values)), xp.flip(V, axis=1)
    null = xp.zeros((V.shape[0], 0), dtype=V.dtype, device=device_of(V))
    size, top = math.sqrt(float(xp.sum(s**2))), float(s[0])
    return Preconditioner(V, s, scale, size, top, float(s[0] / s[-1]), precision, rate, note, null)


def sample_rows_of(C: Any, key: Key, size: int, weights: Any) -> tuple[Any, Any]:
    """(rows, W^(1/2) C[rows]) of a uniform sample, scaled so that its Gram matrix estimates that of C."""
    xp, m = C.xp, C.shape[0]
    index = kernel("distinct_rows", np)(key, m, size)
    rows = from_host(index, xp, xp.empty((0,), dtype=C.dtype, device=C.device))
    M = C.A[index].toarray() if isinstance(C, SparseMap) else xp.take(C.A, rows, axis=0)
    M = xp.astype(M, core_dtype(C.dtype, xp), copy=False) * math.sqrt(m / size)
    return rows, M if weights is None else M * xp.sqrt(xp.take(weights, rows, axis=0))[:, None]


def can_sample(C: LinearMap, size: int) -> bool:
    """True if rows can be picked, and a sample is much smaller than the matrix."""
    return isinstance(C, (DenseMap, SparseMap)) and 4 * size <= C.shape[0] and C.shape[1] > 0


def gram_of(M: Any, damp: float) -> Any:
    """``M^* M + damp**2 I`` of a small matrix."""
    xp = array_namespace(M)
    return xp.matmul(adjoint(M), M) + damp**2 * xp.eye(M.shape[1], dtype=M.dtype, device=device_of(M))


def gram_of_rows(C: LinearMap, weights: Any, damp: float) -> Any:
    """``C^* W C + damp**2 I`` in double precision, over blocks of rows that stay in cache."""
    xp, n = C.xp, C.shape[1]
    G = damp**2 * xp.eye(n, dtype=core_dtype(C.dtype, xp), device=C.device)
    for _, block in row_pieces(C, weights):
        dense = block.toarray() if hasattr(block, "toarray") else block
        G = G + xp.astype(xp.matmul(adjoint(dense), dense), G.dtype, copy=False)
    C.n_passes += 1
    return G


def sketch_of(C: LinearMap, S: Any, B: Any, weights: Any) -> tuple[Any, Any]:
    """(S W^(1/2) C, S W^(1/2) B) in double precision, in one read of C; B may be None."""
    xp = C.xp
    core = core_dtype(C.dtype, xp)
    roots = None if weights is None else xp.sqrt(weights)
    if isinstance(C, OperatorMap) or (roots is not None and not hasattr(C, "_blocks")):
        SC = _sketch_of_products(C, S, roots)
    elif not hasattr(C, "_blocks"):
        SC = C.sketch(S)
    else:
        SC = 0.0
        for start, block in C._blocks(bounded=roots is not None):
            if roots is not None:
                block = scaled_rows(
                    block.tocsr() if hasattr(block, "tocsr") else block, roots[start : start + block.shape[0]]
                )
            SC = SC + S.matmul(block, start=start)
        C._count(S.sketch_size)
    if B is None:
        return xp.astype(SC, core, copy=False), None
    SB = S.matmul(B if roots is None else roots[:, None] * B)
    return xp.astype(SC, core, copy=False), xp.astype(SB, core, copy=False)


def _sketch_of_products(C: LinearMap, S: Any, roots: Any) -> Any:
    """S W^(1/2) C of what is known by products: as many products with C^* as S has rows."""
    xp = C.xp
    like = xp.empty((0,), dtype=C.dtype, device=C.device)
    panel = xp.astype(from_host(np.ascontiguousarray(S.toarray().T), xp, like), C.dtype)
    return adjoint(C.rmatmul(panel if roots is None else xp.astype(roots, C.dtype)[:, None] * panel))


def factor_of_sketch(SC: Any, SB: Any, columns: Any, damp: float, *, precision: float) -> tuple[Any, Any, Any]:
    """(R, Q^* SB, scale): the triangular factor of ``[damp I; SC columns]`` with its columns scaled to unit norm.

    A factor of the leading rows makes the others well-conditioned, and the Gram matrix of these completes it, which
    runs at the speed of GEMM; where the leading rows lack a direction, all rows are factored by Householder.
    """
    xp, n = array_namespace(SC), SC.shape[1]
    M = SC if columns is None else SC * xp.astype(columns, SC.dtype)[:, 0][None, :]
    if SB is None:
        SB = xp.zeros((M.shape[0], 0), dtype=M.dtype, device=device_of(M))
    leading = LEADING * n
    if damp > 0.0:  # first, since these rows may be larger than the sketch
        M = xp.concat([damp * xp.eye(n, dtype=M.dtype, device=device_of(M)), M], axis=0)
        SB = xp.concat([xp.zeros((n, SB.shape[1]), dtype=SB.dtype, device=device_of(M)), SB], axis=0)
        leading += n
    found = _factor_by_gram(M, SB, leading, precision) if M.shape[0] >= 2 * leading else None
    R, z = _factor_with_target(M, SB) if found is None else found
    scale = _column_lengths(R, xp)
    return R / scale[None, :], z, scale[:, None]


def _column_lengths(R: Any, xp: Any) -> Any:
    """Norms of the columns of a small matrix; 1 for a column of zeros."""
    squares = xp.sum(xp.abs(R) ** 2, axis=0)
    return xp.sqrt(xp.where(squares > 0, squares, xp.ones_like(squares)))


def _factor_with_target(M: Any, B: Any) -> tuple[Any, Any]:
    """(R, Q^* B) of a small matrix: B is factored as further columns, so that Q is not formed."""
    xp, n = array_namespace(M), M.shape[1]
    augmented = xp.concat([M, B], axis=1)
    R: Any = np.linalg.qr(augmented, mode="r") if is_numpy_namespace(xp) else xp.linalg.qr(augmented)[1]
    rows = min(n, R.shape[0])
    return R[:rows, :n], R[:rows, n:]


def _factor_by_gram(M: Any, B: Any, leading: int, precision: float) -> tuple[Any, Any] | None:
    """`_factor_with_target` by a factor of the leading rows and a Gram matrix of the rest; None where that fails."""
    xp, n = array_namespace(M), M.shape[1]
    first, z = _factor_with_target(M[:leading, :], B[:leading, :])
    # relative to the columns: what follows does not depend on their scale
    pivots = xp.abs(xp.linalg.diagonal(first)) / _column_lengths(first, xp)
    if not float(xp.min(pivots)) > LEAST_PIVOT * precision:
        return None
    W = xp.matmul(M[leading:, :], _inverse(first, xp))  # GEMM takes half the time of a triangular solve
    eye = xp.eye(n, dtype=M.dtype, device=device_of(M))
    try:
        second = adjoint(xp.linalg.cholesky(eye + xp.matmul(adjoint(W), W)))
    except (np.linalg.LinAlgError, RuntimeError):
        return None
    if not float(xp.max(xp.abs(second))) < LARGEST_GROWTH:
        return None
    z = z + xp.matmul(adjoint(W), B[leading:, :])
    return xp.matmul(second, first), xp.linalg.solve(adjoint(second), z)


def _inverse(R: Any, xp: Any) -> Any:
    """The inverse of a small triangular matrix."""
    if is_numpy_namespace(xp):
        from scipy.linalg.lapack import get_lapack_funcs

        (trtri,) = get_lapack_funcs(("trtri",), (R,))
        return trtri(R)[0]
    return xp.linalg.solve(R, xp.eye(R.shape[0], dtype=R.dtype, device=device_of(R)))


def sketch_rows(m: int, n: int) -> int:
    """Rows of a sketch that make factor and steps together cheapest, between 4 n and 32 n.

    A factor of gamma n rows costs ``2 gamma n**3`` flops, and 40 / log(gamma) steps read A once each; a byte is counted
    as 3.5 flops, which is what a core does while it waits for one.
    """

    def cost(gamma: int) -> float:
        return 2.0 * gamma * n**3 + 40.0 / math.log(gamma) * 28.0 * m * n

    gamma = min((4, 6, 8, 12, 16, 24, 32), key=cost)
    return max(gamma * n, n + 50)


def rate_of(n: int, rows: int) -> float:
    """Convergence factor of conjugate gradients for a Gaussian embedding of n dimensions into so many rows."""
    return math.sqrt(n / rows) if rows > n else 0.99


def precision_of(C: LinearMap) -> float:
    """Machine epsilon of the data."""
    return eps(C.dtype)
