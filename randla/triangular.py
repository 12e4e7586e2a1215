"""Triangular factors of tall matrices from a sketch and a Gram matrix, in blocks of rows, without Q."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from ._arrays import eps, from_host, is_sparse, namespace_of
from ._backend import kernel
from ._random import Key
from .linear_maps import DenseMap, LinearMap, OperatorMap, SparseMap, as_linear_map
from .lowrank.orthonormal import adjoint, core_dtype
from .operators import SparseSign

_BLOCK_ENTRIES = 2**16  # entries in a block of rows: 512 KiB, which stays in the second cache between two products
_DEVICE_ENTRIES = 2**24  # the same where a launch costs more than a missed cache
_SKETCH_ENTRIES = 2**20  # entries of a block that is weighted before it is sketched
_SAMPLE = 4  # rows of a uniform sample for each column
_GOOD = 100.0  # condition number of ``A inv(R1)`` up to which the rounding of its Gram matrix is harmless
_TRIES = 6  # how often the rank is lowered when a Gram matrix is not positive definite


class NonfiniteMatrixError(ValueError):
    """NaN or infinity appeared where a matrix was factored."""


class TriangularFactor(NamedTuple):
    """``A[:, pivots] = Q R`` without Q; ``A @ inverse`` is Q.

    Attributes
    ----------
    R : array, shape (rank, n)
        Upper triangular (trapezoidal) with a positive diagonal, in double precision.
    rank : int
    pivots : int64 array, shape (n,), or None
        The order of the columns; None where it is the natural one.
    condition : float
        Estimate of the ratio of the extreme singular values of ``R[:, :rank]``, within a few percent from below.
    first, second : arrays, shapes (n, rank) and (rank, rank)
        Two halves of the inverse.  Multiplied one after the other they give a Q that is orthonormal to rounding at any
        condition number; with their product it is orthonormal to ``condition`` times machine epsilon.
    """

    R: Any
    rank: int
    pivots: Any
    condition: float
    first: Any
    second: Any

    @property
    def inverse(self) -> Any:
        """``first @ second``, shape (n, rank)."""
        return array_namespace(self.first).matmul(self.first, self.second)


def triangular_factor(
    A: Any, *, key: Key, weights: Any = None, tol: float | None = None, gram_condition: float = 0.0
) -> TriangularFactor:
    """The triangular factor of ``diag(sqrt(weights)) A``; Q is never stored, and A is read once or twice.

    A sketch gives a first factor R1; the Gram matrix of ``A inv(R1)``, which is well-conditioned whatever A is, is
    added up over blocks of rows that stay in cache, and its Cholesky factor R2 completes ``R = R2 R1`` [1]_.  The first
    sketch is a uniform sample of rows, which costs nothing; where it lacks columns, or the Gram matrix shows that it
    missed heavy rows, a sparse sign sketch takes its place.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (m, n)
        A LinearOperator is multiplied with n columns at once.
    key : Key
        Source of the sketches.
    weights : real array, shape (m,), optional
        Non-negative weights; rows are scaled block by block.
    tol : float, optional
        Columns whose pivots are at most ``tol`` times the first one, after scaling to unit norms, are dropped.
        Default ``2 eps**0.95``.
    gram_condition : float, default 0.0
        Use the Gram matrix of A itself where the condition number is at most this, after scaling the columns.

    Returns
    -------
    TriangularFactor

    Raises
    ------
    NonfiniteMatrixError
        A ValueError: A holds NaN or infinity.

    Notes
    -----
    Cost: 3 m n**2 flops in GEMM, m n**2 with the Gram matrix of A itself, and 4 nnz(A) additions for the sparse sketch
    where it is needed.

    References
    ----------
    .. [1] Higgins, Szyld, Boman and Yamazaki, "Analysis of randomized Householder-Cholesky QR factorization with
       multisketching", arXiv:2309.05868, rand_cholQR.
    """
    A = as_rows(A)
    if min(A.shape) == 0:
        return empty_factor(A)
    tol = default_tolerance(A.dtype) if tol is None else tol
    sample = row_sample(A, key, weights)
    if sample is not None:
        start = leading_factor(sample, tol)
        if start.rank == A.shape[1]:  # a sample bounds the rank from below only
            factor = gram_factor(A, weights, gram_condition) if start.condition <= 2.0 * gram_condition else None
            if factor is None:
                # all rows together hold about m / (4 n) times what the sample holds, unless some are heavy
                most = _GOOD**2 * A.shape[0]
                factor = corrected(start, whitened_gram(A, start.first, weights, most=most))
            if factor is not None:
                return factor
    size = max(4 * A.shape[1], 32)
    sketched = row_sketch(A, SparseSign(size, A.shape[0], rng=key.fold("sketch"), nnz=4), weights)
    for _ in range(_TRIES):
        start = leading_factor(sketched, tol)
        if start.rank == 0:
            return empty_factor(A)
        factor = corrected(start, whitened_gram(A, start.first, weights), worst=_GOOD**2)
        if factor is not None:
            return factor
        tol *= 30.0  # directions that the sketch kept are noise in A
    raise NonfiniteMatrixError("A must be finite and far from overflow, got entries whose products are not; scale it")


# --- the first factor, from a sketch ----------------------------------------------------------------------------------


class Start(NamedTuple):
    """A factor of a sketch: ``sketch[:, pivots] = Q R``, with R of full rank and ``first``, its inverse (n, rank).

    `condition` is that of the sketch with its columns scaled to unit norms, infinite if they are dependent.
    """

    R: Any
    rank: int
    pivots: Any
    first: Any
    condition: float


def default_tolerance(dtype: Any) -> float:
    """Pivots at most this fraction of the first are taken for rounding noise."""
    return 2.0 * eps(dtype) ** 0.95


def row_sample(A: LinearMap, key: Key, weights: Any) -> Any:
    """A uniform sample of rows, or None where rows cannot be picked or are too few."""
    xp, (m, n) = A.xp, A.shape
    size = _SAMPLE * n
    if not isinstance(A, (DenseMap, SparseMap)) or m < 4 * size:
        return None
    rows = from_host(kernel("distinct_rows", np)(key.fold("sample"), m, size), xp, _like(A))
    M = A.A[rows].toarray() if isinstance(A, SparseMap) else xp.take(A.A, rows, axis=0)
    M = xp.astype(M, core_dtype(A.dtype, xp), copy=False)
    return M if weights is None else M * _roots(xp.take(weights, rows, axis=0), M)[:, None]


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is told by the factor of the sketch
def row_sketch(A: Any, S: Any, weights: Any) -> Any:
    """``S diag(sqrt(weights)) A`` in double precision; the rows themselves where they are no more than those of S."""
    xp, n = A.xp, A.shape[1]
    core = core_dtype(A.dtype, xp)
    if A.shape[0] <= S.sketch_size:
        eye = xp.eye(n, dtype=A.dtype, device=A.device)
        return xp.astype(xp.concat([W for _, W in whitened_rows(A, eye, weights)], axis=0), core, copy=False)
    if isinstance(A, OperatorMap):
        panel = xp.asarray(S.toarray().T, dtype=A.dtype)
        panel = panel if weights is None else panel * _roots(weights, panel)[:, None]
        return xp.astype(adjoint(A.rmatmul(panel)), core)
    total: Any = 0.0
    pieces = A._blocks() if weights is None else row_pieces(A, weights, entries=_SKETCH_ENTRIES)
    for start, B in pieces:
        total = total + xp.astype(S.matmul(B, start=start), core)
    return total


def leading_factor(M: Any, tol: float, *, pivoting: bool = False) -> Start:
    """The factor of a small matrix (d, n): with its columns in their order if they are independent, else pivoted.

    The pivots are those of columns of unit norm; with `pivoting`, which is always obeyed, of the columns as they are.
    """
    xp, n = array_namespace(M), M.shape[1]
    largest = xp.max(xp.abs(M), axis=0)
    if not bool(xp.all(xp.isfinite(largest))):
        raise NonfiniteMatrixError("A must be finite, got NaN or infinity")
    # powers of two, so that nothing is rounded; entries first, since their squares may leave the range
    scale = _power_of_two(xp.zeros_like(largest) + xp.max(largest) if pivoting else largest, xp)
    M, natural = M / scale[None, :], None
    if not pivoting:
        lengths = _power_of_two(xp.sqrt(xp.sum(xp.abs(M) ** 2, axis=0)), xp)
        M, scale = M / lengths[None, :], scale * lengths
        if M.shape[0] >= n:
            R = positive(_triangle(M, xp))
            if float(xp.min(xp.abs(xp.linalg.diagonal(R)))) > 0.0:
                inverse = inverse_of(R)
                condition = spectral(R) * spectral(inverse)
                natural = Start(R * scale[None, :], n, None, inverse / scale[:, None], condition)
                if condition < 0.1 / tol:
                    return natural
    R, pivots = _pivoted_triangle(M, xp)
    pivot = xp.abs(xp.linalg.diagonal(R))
    rank = int(xp.sum(xp.astype(pivot > tol * float(pivot[0]), xp.int64))) if pivot.shape[0] else 0
    if rank == n and natural is not None:
        return natural
    R = positive(R[:rank, :])
    rest = xp.zeros((n - rank, rank), dtype=R.dtype, device=device_of(R))
    inverse = xp.concat([inverse_of(R[:, :rank]), rest], axis=0)
    condition = spectral(R) * spectral(inverse) if rank == n else math.inf
    first = xp.take(inverse, xp.argsort(pivots), axis=0) / scale[:, None]
    return Start(R * xp.take(scale, pivots, axis=0)[None, :], rank, pivots, first, condition)


def _triangle(M: Any, xp: Any) -> Any:
    """R of a small tall matrix, without its Q where that is possible."""
    return np.linalg.qr(M, mode="r") if is_numpy_namespace(xp) else xp.linalg.qr(M)[1]


def _pivoted_triangle(M: Any, xp: Any) -> tuple[Any, Any]:
    """(R, pivots) of a small matrix, R (min(d, n), n): GEQP3 on NumPy, elsewhere Gram-Schmidt with pivoting."""
    if is_numpy_namespace(xp):
        from scipy.linalg import qr

        R, pivots = qr(M, mode="r", pivoting=True, check_finite=False)
        return R[: min(M.shape), :], pivots.astype(np.int64)
    steps, n = min(M.shape), M.shape[1]
    Q = xp.zeros((M.shape[0], 0), dtype=M.dtype, device=device_of(M))
    order = list(range(n))
    rest = M
    for j in range(steps):
        lengths = xp.sum(xp.abs(rest[:, j:]) ** 2, axis=0)
        k = j + int(xp.argmax(lengths))
        order[j], order[k] = order[k], order[j]
        swap = [*range(j), k, *range(j + 1, k), j, *range(k + 1, n)] if k > j else list(range(n))
        rest = xp.take(rest, xp.asarray(swap, device=device_of(M)), axis=1)
        column = rest[:, j : j + 1]
        for _ in range(2):  # twice is enough
            column = column - xp.matmul(Q, xp.matmul(adjoint(Q), column))
        length = frobenius(column)
        if length == 0.0:  # the rest is zero too
            break
        column = column / length
        Q = xp.concat([Q, column], axis=1)
        tail = rest[:, j + 1 :]
        rest = xp.concat([rest[:, : j + 1], tail - xp.matmul(column, xp.matmul(adjoint(column), tail))], axis=1)
    pivots = xp.asarray(order, dtype=xp.int64, device=device_of(M))
    return xp.triu(xp.matmul(adjoint(Q), xp.take(M, pivots, axis=1))), pivots


def inverse_of(R: Any) -> Any:
    """The inverse of a small upper triangular matrix."""
    xp = array_namespace(R)
    if is_numpy_namespace(xp) and R.shape[0]:
        from scipy.linalg import get_lapack_funcs

        return get_lapack_funcs("trtri", (R,))(R)[0]
    return xp.linalg.solve(R, xp.eye(R.shape[0], dtype=R.dtype, device=device_of(R)))


def positive(R: Any) -> Any:
    """R with its rows turned so that the diagonal is positive."""
    xp = array_namespace(R)
    diagonal = xp.linalg.diagonal(R)
    size = xp.abs(diagonal)
    one = xp.ones_like(diagonal)
    turn = xp.where(size > 0, diagonal / xp.where(size > 0, xp.astype(size, R.dtype), one), one)
    return R / turn[:, None]


def frobenius(M: Any) -> float:
    """The Frobenius norm of a small matrix."""
    return math.sqrt(float(array_namespace(M).sum(array_namespace(M).abs(M) ** 2)))


def _power_of_two(lengths: Any, xp: Any) -> Any:
    """The power of two next to each length; 1 for lengths of zero."""
    one = xp.ones_like(lengths)
    return 2.0 ** xp.round(xp.log2(xp.where(lengths > 0, lengths, one)))


# --- the second factor, from a Gram matrix in blocks of rows ----------------------------------------------------------


def as_rows(A: Any) -> LinearMap:
    """The map of A; CSC matrices become CSR, since they are read by rows."""
    A = as_linear_map(A)
    if isinstance(A, SparseMap) and A.A.format == "csc":
        return SparseMap(A.A.tocsr())
    return A


def row_bounds(m: int, width: int, xp: Any, entries: int | None = None) -> Iterator[tuple[int, int]]:
    """Fixed blocks of range(m): few rows where they shall stay in cache, many where a launch costs more."""
    entries = entries or (_BLOCK_ENTRIES if is_numpy_namespace(xp) else _DEVICE_ENTRIES)
    width = max(1, width)
    # a Gram matrix of many columns wants a thousand rows, and with that many flops a row may leave the cache
    step = max(entries // width, min(1024, 16 * entries // width), 64)
    for lo in range(0, m, step):
        yield lo, min(lo + step, m)


def row_pieces(A: Any, weights: Any = None, *, entries: int | None = None) -> Iterator[tuple[int, Any]]:
    """``(start, block)`` of floating rows, times the roots of the weights, few enough to stay in cache."""
    for begin, B in A._blocks():
        B = B.tocsr() if is_sparse(B) else B
        for lo, hi in row_bounds(B.shape[0], A.shape[1], A.xp, entries):
            piece = B[lo:hi, :]
            piece = np.asarray(piece) if isinstance(piece, np.ndarray) else piece  # a memory map slows slices down
            if weights is not None:
                piece = scaled_rows(piece, _roots(weights[begin + lo : begin + hi], _like(A)))
            yield begin + lo, piece


def scaled_rows(B: Any, root: Any) -> Any:
    """Rows of a dense or CSR block times numbers."""
    if not is_sparse(B):
        return B * root[:, None]
    xp, B = namespace_of(B), B.copy()
    owner = xp.searchsorted(B.indptr[1:], xp.arange(B.data.shape[0], dtype=B.indptr.dtype), side="right")
    B.data = B.data * root[owner]
    return B


def times(B: Any, T: Any) -> Any:
    """``B @ T`` in row-major order for a block of rows, dense or CSR, in the dtype of the block."""
    T = T if T.dtype == B.dtype else namespace_of(B).astype(T, B.dtype)
    if is_sparse(B):
        return kernel("csr_matmul", namespace_of(B))(B.data, B.indices, B.indptr, T)
    return array_namespace(B).matmul(B, T)


def whitened_rows(A: LinearMap, first: Any, weights: Any, second: Any = None) -> Iterator[tuple[int, Any]]:
    """``(start, block @ first @ second)`` over blocks of rows; None stands for the identity."""
    xp = A.xp
    steps = [T for T in (first, second) if T is not None]
    dtype = A.dtype if all(_fits(T, A.dtype) for T in steps) else core_dtype(A.dtype, xp)
    steps = [xp.astype(T, dtype) for T in steps]
    if isinstance(A, OperatorMap):
        W = A.matmul(xp.astype(steps.pop(0) if steps else xp.eye(A.shape[1], device=A.device), A.dtype))
        pieces = iter([(0, W if weights is None else W * _roots(weights, W)[:, None])])
    else:
        pieces = row_pieces(A, weights)
    for start, W in pieces:
        W = W if W.dtype == dtype else W.astype(dtype) if is_sparse(W) else xp.astype(W, dtype)
        W = W if steps else dense_rows(W)
        for T in steps:
            W = times(W, T)
        yield start, W


def _fits(T: Any, dtype: Any) -> bool:
    """True if no entry of T overflows in `dtype`: inverses of tiny single-precision data do."""
    xp = array_namespace(T)
    return eps(dtype) < 1e-10 or 0 in T.shape or float(xp.max(xp.abs(T))) < 1e37


@np.errstate(over="ignore", invalid="ignore")  # a Gram matrix that is not finite has no Cholesky factor
def whitened_gram(A: LinearMap, first: Any, weights: Any, *, most: float = math.inf) -> Any:
    """The Gram matrix of ``diag(sqrt(weights)) A first``, its blocks added up in double precision.

    None as soon as its trace exceeds `most`: `first` is then no good, and the rest of A need not be read to know it.
    """
    xp = A.xp
    core = core_dtype(A.dtype, xp)
    width = A.shape[1] if first is None else first.shape[1]
    G = xp.zeros((width, width), dtype=core, device=A.device)
    for _, W in whitened_rows(A, first, weights):
        part = xp.matmul(adjoint(W), W)
        G = G + (part if part.dtype == core else xp.astype(part, core))
        if most < math.inf and float(xp.sum(xp.abs(xp.linalg.diagonal(G)))) > most:
            return None
    return G


def gram_factor(A: LinearMap, weights: Any, most: float, *, alpha: float = 0.0) -> TriangularFactor | None:
    """The Cholesky factor of ``A^* W A + alpha I``; None where its condition number is above `most`, or unknown."""
    xp, n = A.xp, A.shape[1]
    eye = xp.eye(n, dtype=core_dtype(A.dtype, xp), device=A.device)
    with np.errstate(over="ignore", invalid="ignore"):  # squares that overflow have no Cholesky factor
        G = whitened_gram(A, None, weights) + alpha * eye
        scale = _power_of_two(xp.sqrt(xp.abs(xp.linalg.diagonal(G))), xp)
        R = cholesky(G / (scale[:, None] * scale[None, :]))
    if R is None:
        return None
    inverse = inverse_of(R)
    condition = spectral(R) * spectral(inverse)
    if not condition <= most:
        return None
    return TriangularFactor(R * scale[None, :], n, None, condition, inverse / scale[:, None], eye)


def corrected(start: Start, G: Any, *, worst: float = _GOOD) -> TriangularFactor | None:
    """The first factor times the Cholesky factor of G, the Gram matrix of ``A first``.

    None where G is not positive definite, or the condition number of ``A first`` above `worst`.
    """
    second = None if G is None else cholesky(G)
    if second is None:
        return None
    xp = array_namespace(G)
    inverse = inverse_of(second)
    if not spectral(second) * spectral(inverse) <= worst:
        return None
    R = xp.matmul(second, start.R)
    condition = spectral(R[:, : start.rank]) * spectral(xp.matmul(start.first, inverse))
    return TriangularFactor(R, start.rank, start.pivots, condition, start.first, inverse)


def cholesky(G: Any) -> Any:
    """The upper triangular R with positive diagonal and ``R^* R = G``, or None."""
    xp = array_namespace(G)
    try:
        R = adjoint(xp.linalg.cholesky(G))
    except (np.linalg.LinAlgError, RuntimeError):  # NumPy and CuPy raise the first, PyTorch a kind of the second
        return None
    # CuPy says nothing and leaves a factor of something else
    return R if frobenius(xp.matmul(adjoint(R), R) - G) <= 1e-6 * frobenius(G) else None


def spectral(M: Any) -> float:
    """The largest singular value of a small matrix, from below, by 20 steps of the power method."""
    xp = array_namespace(M)
    if 0 in M.shape:
        return 0.0
    top = float(xp.max(xp.abs(M)))
    if not 0.0 < top < math.inf:
        return top
    M, x = M / top, xp.ones((M.shape[1], 1), dtype=M.dtype, device=device_of(M))
    value = 0.0
    for _ in range(20):
        x = xp.matmul(adjoint(M), xp.matmul(M, x / max(frobenius(x), 1e-300)))
        value = frobenius(x) ** 0.5
    return top * value


def empty_factor(A: LinearMap) -> TriangularFactor:
    """The factor of rank 0."""
    xp, n = A.xp, A.shape[1]
    core = core_dtype(A.dtype, xp)
    R, first, second = (xp.zeros(shape, dtype=core, device=A.device) for shape in ((0, n), (n, 0), (0, 0)))
    pivots = xp.arange(n, dtype=xp.int64, device=A.device) if n else None
    return TriangularFactor(R, 0, pivots, 1.0, first, second)


def _like(A: LinearMap) -> Any:
    return A.xp.empty((0,), dtype=A.dtype, device=A.device)


def dense_rows(B: Any) -> Any:
    """A block of rows as a dense array."""
    return B.toarray() if is_sparse(B) else B


def _roots(weights: Any, like: Any) -> Any:
    xp = array_namespace(like)
    return xp.sqrt(xp.astype(weights, xp.float32 if eps(like.dtype) > 1e-10 else xp.float64))
