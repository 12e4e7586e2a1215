"""Pivots: greedy and random orders of columns, by QR without updates, by LU, and by sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import eps, from_host, is_complex, is_sparse
from .._backend import kernel
from .._random import Key, Stream
from ..linear_maps import BlocksMap, DenseMap, LinearMap, SparseMap
from .orthonormal import NonfiniteError, adjoint, core_dtype, orthonormalize

#: Squared residual norms, as a share of those they were last computed from, at which differences become noise.
_STALE = {True: 1e-3, False: 1e-8}

_COLUMN_ENTRIES = 2**22  # entries of a block of residual columns: 32 MiB in double precision

#: A block of randomly pivoted QR: columns proposed at a time, as a share of the rank.
_PROPOSED = 5

_MOST_ROUNDS = 1000  # rounds of a lottery that nobody may win, beyond one for each pivot


class Pivoted(NamedTuple):
    """The first pivots of a matrix M and its triangle: ``M ~ M[:, order] T`` with ``triangle[:, order]`` triangular.

    Attributes
    ----------
    order : int64 array, shape (r,)
    triangle : array, shape (r, n)
        ``Q^* M`` for the orthonormal basis Q of the pivot columns.
    squares : tuple of float
        Squared Frobenius norm of the residual before each pivot and after the last.
    """

    order: Any
    triangle: Any
    squares: tuple[float, ...]


Choice = Callable[[Any, int], int]


def largest(squares: Any, step: int) -> int:  # noqa: ARG001 - every choice has this signature
    """The greedy choice: the column with the largest residual."""
    return int(array_namespace(squares).argmax(squares))


def proportional(key: Key, rank: int) -> Choice:
    """The random choice: a column with probability proportional to its squared residual."""
    u = kernel("uniforms", np)(key, Stream.SAMPLE, 0, max(rank, 1))
    return lambda squares, step: int(_positions(squares, u[step : step + 1])[0])


def _positions(weights: Any, u: np.ndarray) -> Any:
    """Where the shares u of the total weight fall; never on a weight of zero."""
    xp = array_namespace(weights)
    sums = xp.cumulative_sum(weights)
    wanted = from_host(u, xp, weights) * float(sums[-1])
    found = xp.searchsorted(sums, xp.astype(wanted, sums.dtype), side="right")
    last = int(xp.max(xp.where(weights > 0, xp.arange(weights.shape[0], device=device_of(weights)), 0)))
    return xp.where(found < last, found, xp.full_like(found, last))


# --- QR with a choice of pivots -------------------------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")  # what is not finite raises below
def pivoted_qr(M: Any, rank: int, choose: Choice = largest, *, floor: float = 0.0) -> Pivoted:
    """Pivot on up to `rank` columns of a small matrix; stop early when the residual is rounding, or below `floor`.

    Left-looking Gram-Schmidt with reorthogonalisation [1]_: M is read once for each pivot and never updated, so that
    only the pivots asked for cost anything, where LAPACK's GEQP3 does them all.  Squared norms of the residual columns
    are downdated and computed afresh before rounding shows in them.

    Parameters
    ----------
    M : array, shape (l, n)
    rank : int
    choose : callable
        ``choose(squares, step)`` returns the next column from the squared norms of the residual columns.
    floor : float
        Stop when the squared Frobenius norm of the residual is at most `floor` times that of M.

    References
    ----------
    .. [1] Golub and Van Loan, "Matrix Computations", 4th edition, 5.2.7 and 5.4.2.
    """
    xp = array_namespace(M)
    M = xp.astype(M, core_dtype(M.dtype, xp), copy=False)
    unit = _unit(M, xp)
    M = M if unit == 1.0 else M / unit
    source = _Dense(M)
    return _scaled(_left_looking(source, rank, choose, floor, eps(M.dtype)), unit)


def pivoted_qr_of_map(A: LinearMap, rank: int, choose: Choice = largest, *, floor: float = 0.0) -> Pivoted:
    """`pivoted_qr` of a stored matrix of any size, dense or sparse; each pivot is one pass over it."""
    return _left_looking(_Stored(A), rank, choose, floor, eps(A.dtype))


class _Dense:
    """A small matrix in double precision, as the left-looking loop sees it."""

    def __init__(self, M: Any) -> None:
        self.M, self.xp, self.shape, self.dtype, self.device = M, array_namespace(M), M.shape, M.dtype, device_of(M)

    def column(self, p: int) -> Any:
        return self.xp.asarray(self.M[:, p], copy=True)

    def row(self, q: Any) -> Any:
        return self.xp.matmul(_bar(q)[None, :], self.M)[0, :]

    def residual(self, Q: Any, R: Any) -> Any:
        return self.xp.sum(self.xp.abs(self.M - self.xp.matmul(Q.mT, R)) ** 2, axis=0)

    def squares(self) -> Any:
        return self.xp.sum(self.xp.abs(self.M) ** 2, axis=0)


class _Stored:
    """A dense or sparse matrix behind a map: its columns are read and never changed."""

    def __init__(self, A: LinearMap) -> None:
        self.A, self.xp, self.shape, self.device = A, A.xp, A.shape, A.device
        self.dtype = core_dtype(A.dtype, A.xp)

    def column(self, p: int) -> Any:
        return self.xp.astype(dense(take_columns(self.A, [p]))[:, 0], self.dtype, copy=True)

    def row(self, q: Any) -> Any:
        product = self.A.rmatmul(self.xp.astype(q, self.A.dtype)[:, None])[:, 0]
        return _bar(self.xp.astype(product, self.dtype))

    def residual(self, Q: Any, R: Any) -> Any:
        parts = []
        for lo, hi in _column_blocks(*self.shape):
            block = dense(take_columns(self.A, range(lo, hi)))
            rest = block if Q is None else block - self.xp.matmul(Q.mT, R[:, lo:hi])
            parts.append(self.xp.sum(self.xp.astype(self.xp.abs(rest) ** 2, self.xp.float64), axis=0))
        return self.xp.concat(parts)

    def squares(self) -> Any:
        self.A._count(0)
        return column_squares(self.A)


def _left_looking(source: Any, rank: int, choose: Choice, floor: float, rounding: float) -> Pivoted:
    xp, (height, n) = source.xp, source.shape
    core, place = source.dtype, source.device
    rank = min(rank, height, n)
    Q = xp.zeros((rank, height), dtype=core, device=place)  # its rows are the basis, conjugation left out
    R = xp.zeros((rank, n), dtype=core, device=place)
    squares = source.squares()
    numbers = xp.arange(n, device=place)
    reference = float(xp.max(squares)) if n else 0.0
    whole = float(xp.sum(squares))
    if not math.isfinite(whole):
        raise NonfiniteError("columns to choose from hold NaN or infinity")
    noise = (max(height, n) * rounding) ** 2 * reference
    order: list[int] = []
    history = [whole]
    for j in range(rank):
        top = float(xp.max(squares))
        if top < _STALE[rounding > 1e-10] * reference:
            squares = _unchosen(source.residual(Q[:j, :], R[:j, :]), numbers, order, xp)
            reference = top = float(xp.max(squares))
            history[-1] = float(xp.sum(squares))
        if top <= noise or history[-1] <= floor * whole:
            break
        p = choose(squares, j)
        q = source.column(p)
        length = _norm(q, xp)
        for _ in range(2):  # twice is enough
            q = q - xp.matmul(Q[:j, :].mT, xp.matmul(_bar(Q[:j, :]), q[:, None]))[:, 0]
        left = _norm(q, xp)
        if left <= max(height, n) * rounding * length:
            break  # what is left of a column is rounding
        q = q / left
        row = source.row(q)
        Q[j, :], R[j, :] = q, row
        order.append(p)
        squares = squares - xp.abs(row) ** 2
        squares = xp.where((squares > 0) & (numbers != p), squares, xp.zeros_like(squares))
        history.append(float(xp.sum(squares)))
    chosen = xp.asarray(order, dtype=xp.int64, device=place)
    return Pivoted(chosen, R[: len(order), :], tuple(history))


def _unchosen(squares: Any, numbers: Any, order: list[int], xp: Any) -> Any:
    """Residual squares with those of the pivots set to zero."""
    if not order:
        return squares
    taken = xp.any(numbers[None, :] == xp.asarray(order, device=device_of(squares))[:, None], axis=0)
    return xp.where(taken, xp.zeros_like(squares), squares)


def _unit(M: Any, xp: Any) -> float:
    """The power of two next to the largest entry, where squares would leave the range; else 1."""
    top = float(xp.max(xp.abs(M))) if 0 not in M.shape else 0.0
    if not math.isfinite(top):
        raise NonfiniteError("columns to choose from hold NaN or infinity")
    return 1.0 if top == 0.0 or 1e-100 < top < 1e100 else math.ldexp(1.0, math.frexp(top)[1])


def _scaled(found: Pivoted, unit: float) -> Pivoted:
    if unit == 1.0:
        return found
    return Pivoted(found.order, found.triangle * unit, tuple(square * unit * unit for square in found.squares))


# --- blocks of random pivots ----------------------------------------------------------------------------------------


def random_qr(A: LinearMap, rank: int, key: Key, *, robust: bool) -> Any:
    """Pivots of randomly pivoted QR, in blocks: each block is one pass over A.

    Columns are proposed with probability proportional to their squared residuals.  The plain form accepts a proposal
    with the share of the residual that the ones accepted before left of it, which gives the distribution of one pivot
    at a time exactly [1]_; the robust form takes a greedy pivoted QR of the proposals and keeps the pivots until the
    rest holds less than its share of the block [2]_.

    References
    ----------
    .. [1] Epperly, Tropp and Webber, "Embrace rejection: kernel matrix approximation by accelerated randomly pivoted
       Cholesky", arXiv:2410.03969, for kernel matrices; the same rejection serves QR.
    .. [2] Dong, Chen, Martinsson and Pearce, "Robust blockwise random pivoting: fast and accurate adaptive
       interpolative decomposition", arXiv:2309.16002.
    """
    xp, source = A.xp, _Stored(A)
    squares = source.squares()
    reference = whole = float(xp.sum(squares))
    if not math.isfinite(whole):
        raise NonfiniteError("columns to choose from hold NaN or infinity")
    noise = (max(A.shape) * eps(A.dtype)) ** 2 * whole
    numbers = xp.arange(A.shape[1], device=A.device)
    chosen: list[int] = []
    bases: list[Any] = []
    rows: list[Any] = []
    width = max(4, -(-rank // _PROPOSED))
    for step in range(_MOST_ROUNDS + rank):
        if len(chosen) >= rank or float(xp.sum(squares)) <= noise:
            break
        u = kernel("uniforms", np)(key.fold(step), Stream.SAMPLE, 0, 2 * width)
        proposed = [int(p) for p in _positions(squares, u[:width])]
        proposed = list(dict.fromkeys(proposed)) if robust else proposed
        rest = _outside(dense(take_columns(A, proposed)), bases, xp)
        before = xp.take(squares, xp.asarray(proposed, device=A.device))
        kept = _kept_robust(rest) if robust else _kept_exact(rest, before, u[width:])
        fresh = list(dict.fromkeys(proposed[t] for t in kept))[: rank - len(chosen)]
        if not fresh:
            continue
        chosen += fresh
        bases.append(orthonormalize(dense(take_columns(A, fresh)), bases, scale=math.sqrt(whole)).Q)
        if len(chosen) == rank:
            break
        rows.append(adjoint(A.rmatmul(bases[-1])))
        squares = squares - xp.sum(xp.astype(xp.abs(rows[-1]) ** 2, xp.float64), axis=0)
        if float(xp.sum(squares)) < _STALE[eps(A.dtype) > 1e-10] * reference:
            squares = source.residual(xp.concat(bases, axis=1).mT, xp.concat(rows, axis=0))
            reference = float(xp.sum(squares))
        squares = _unchosen(xp.where(squares > 0, squares, xp.zeros_like(squares)), numbers, chosen, xp)
    return xp.asarray(chosen, dtype=xp.int64, device=A.device)


def _outside(panel: Any, bases: list[Any], xp: Any) -> Any:
    """What is left of a panel outside the span of orthonormal bases."""
    for _ in range(2):
        for Q in bases:
            panel = panel - xp.matmul(Q, xp.matmul(adjoint(Q), panel))
    return panel


def _kept_exact(rest: Any, before: Any, u: np.ndarray) -> list[int]:
    """Which proposals pass the lottery: number t with the share of its residual that is left."""
    xp = array_namespace(rest)
    kept: list[int] = []
    for t in range(rest.shape[1]):
        column = rest[:, t]
        square = _norm(column, xp) ** 2
        if u[t] * float(before[t]) < square and square > 0.0:
            kept.append(t)
            q = column / math.sqrt(square)
            rest = rest - q[:, None] * xp.matmul(_bar(q)[None, :], rest)
    return kept


def _kept_robust(rest: Any) -> list[int]:
    """The leading pivots of a block, until the rest holds less than one part in as many as there are columns."""
    width = rest.shape[1]
    found = pivoted_qr(rest, width, floor=1.0 / width if width > 1 else 0.0)
    return [int(t) for t in found.order]


# --- LU and sampling --------------------------------------------------------------------------------------------------


def lu_pivots(M: Any) -> tuple[Any, Any]:
    """Row pivots of a tall matrix (n, k) by Gaussian elimination, and the coefficients of all rows in those rows.

    Returns
    -------
    order : int64 array, shape (r,)
    coefficients : array, shape (r, n)
        ``M^T ~ M[order]^T coefficients``, ``(L21 L11^-1)^T`` with the identity on `order`; r is k at full rank.
    """
    xp = array_namespace(M)
    M = xp.astype(M, core_dtype(M.dtype, xp), copy=False)
    if not bool(xp.all(xp.isfinite(M))):
        raise NonfiniteError("rows to choose from hold NaN or infinity")
    order, L = _lapack_lu(M) if is_numpy_namespace(xp) else _plain_lu(M, xp)
    r = order.shape[0]
    inverse = xp.linalg.solve(xp.take(L, order, axis=0), xp.eye(r, dtype=M.dtype, device=device_of(M)))
    return order, xp.matmul(L, inverse).mT


def _lapack_lu(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.linalg import lapack

    n, k = M.shape
    factor, swaps, _ = (lapack.zgetrf if is_complex(M.dtype) else lapack.dgetrf)(M)
    rows = np.arange(n)
    for i, p in enumerate(swaps):
        rows[[i, p]] = rows[[p, i]]
    r = _rank_of_pivots(np.abs(np.diagonal(factor)), max(n, k))
    L = np.tril(factor[:, :r], -1)
    L[np.arange(r), np.arange(r)] = 1.0
    back = np.empty_like(L)
    back[rows] = L
    return rows[:r].astype(np.int64), back


def _plain_lu(M: Any, xp: Any) -> tuple[Any, Any]:
    """Gaussian elimination that leaves the rows where they are."""
    n, k = M.shape
    place = device_of(M)
    numbers = xp.arange(n, device=place)
    L = xp.zeros((n, min(n, k)), dtype=M.dtype, device=place)
    free = numbers >= 0
    order: list[int] = []
    pivots: list[float] = []
    for j in range(min(n, k)):
        size = xp.where(free, xp.abs(M[:, j]), xp.full((n,), -1.0, dtype=xp.float64, device=place))
        p = int(xp.argmax(size))
        pivots.append(float(size[p]))
        if pivots[-1] <= max(n, k) * eps(M.dtype) * max(pivots):
            break
        order.append(p)
        free = free & (numbers != p)
        column = xp.where(free, M[:, j] / M[p, j], xp.zeros_like(M[:, j]))
        L[:, j] = xp.where(numbers == p, xp.ones_like(column), column)
        M = M - column[:, None] * M[p : p + 1, :]
    return xp.asarray(order, dtype=xp.int64, device=place), L[:, : len(order)]


def _rank_of_pivots(pivots: np.ndarray, size: int) -> int:
    """Pivots before the first that is rounding."""
    small = np.flatnonzero(pivots <= size * np.finfo(np.float64).eps * pivots.max(initial=0.0))
    return int(small[0]) if small.size else len(pivots)


def sample_distinct(weights: Any, size: int, key: Key) -> Any:
    """`size` distinct indices, one after the other with probability proportional to the weights of those left.

    The smallest of independent exponential waiting times, so that a smaller sample is the start of a larger one.
    """
    xp = array_namespace(weights)
    if not bool(xp.all(xp.isfinite(weights))):
        raise NonfiniteError("weights to sample by hold NaN or infinity")
    u = from_host(kernel("uniforms", np)(key, Stream.SAMPLE, 0, weights.shape[0]), xp, weights)
    present = weights > 0
    times = -xp.log(1.0 - u) / xp.where(present, weights, xp.ones_like(weights))
    times = xp.where(present, times, xp.full_like(times, math.inf))
    order = xp.argsort(times, stable=True)
    return xp.astype(order[: min(size, int(xp.sum(xp.astype(present, xp.int64))))], xp.int64)


# --- columns of a matrix of any kind ----------------------------------------------------------------------------------


def take_columns(A: LinearMap, index: Any) -> Any:
    """``A[:, index]``, sparse where A is; of an operator by products with unit vectors, of blocks by a pass."""
    xp = A.xp
    if isinstance(A, SparseMap):
        from .._arrays import to_host

        host = to_host(index) if hasattr(index, "shape") else np.asarray(list(index), dtype=np.int64)
        return A.A[:, host if is_numpy_namespace(xp) else xp.asarray(host)]
    table = index if hasattr(index, "shape") else xp.asarray(list(index), dtype=xp.int64, device=A.device)
    if isinstance(A, DenseMap):
        return xp.astype(xp.take(A.A, table, axis=1), A.dtype, copy=False)
    if isinstance(A, BlocksMap):
        A._count(0)
        parts = [B[:, table] if is_sparse(B) else xp.take(B, table, axis=1) for _, B in A._blocks()]
        return xp.concat([dense(part) for part in parts], axis=0)
    units = xp.arange(A.shape[1], device=A.device)[:, None] == table[None, :]
    return A.matmul(xp.astype(units, A.dtype))


def dense(B: Any) -> Any:
    """A dense or sparse panel as a dense one."""
    return B.toarray() if is_sparse(B) else B


def column_squares(A: LinearMap) -> Any:
    """The squared norms of the columns of a stored matrix, in double precision."""
    xp = A.xp
    if not isinstance(A, (DenseMap, SparseMap, BlocksMap)):
        raise TypeError(
            "A must be an array, a sparse matrix or row blocks for a selection by norms of columns, got a linear "
            'operator; use "sketch-qr", which needs products only'
        )
    total = xp.zeros((A.shape[1],), dtype=xp.float64, device=A.device)
    with np.errstate(over="ignore", invalid="ignore"):
        for _, B in A._blocks(bounded=True):
            if is_sparse(B):
                weights = xp.astype(xp.abs(B.data), xp.float64) ** 2
                squares = type(B)((weights, B.indices, B.indptr), shape=B.shape)
                total = total + xp.asarray(squares.sum(axis=0)).reshape(-1)
            else:
                total = total + xp.sum(xp.astype(xp.abs(B), xp.float64) ** 2, axis=0)
    return total


def _column_blocks(m: int, n: int) -> Iterator[tuple[int, int]]:
    step = max(1, _COLUMN_ENTRIES // max(m, 1))
    for lo in range(0, n, step):
        yield lo, min(lo + step, n)


def _bar(M: Any) -> Any:
    return array_namespace(M).conj(M) if is_complex(M.dtype) else M


def _norm(q: Any, xp: Any) -> float:
    return math.sqrt(float(xp.sum(xp.abs(q) ** 2)))


def conjugated(M: Any) -> Any:
    """The plain transpose of the adjoint."""
    return _bar(M)


def triangular_solve(R: Any, B: Any) -> Any:
    """``R^-1 B`` for an upper triangular R, in double precision."""
    xp = array_namespace(R)
    B = xp.astype(B, R.dtype, copy=False)
    if is_numpy_namespace(xp) and 0 not in B.shape:
        from scipy.linalg import solve_triangular

        return solve_triangular(R, B, check_finite=False)
    return xp.linalg.solve(R, B)


def thin_qr(C: Any) -> tuple[Any, Any, Any]:
    """``C = Q turn R``: Q orthonormal in the dtype of C, a small unitary `turn` and an upper triangular R.

    Fewer columns of Q than of C tell that those are dependent.  The product Q turn is left to the caller, who mostly
    needs it times something small.
    """
    panel = orthonormalize(C)
    xp = array_namespace(panel.R)
    turn, R = xp.linalg.qr(panel.R) if panel.R.shape[0] else (panel.R[:, :0], panel.R)
    return panel.Q, turn, R


__all__ = [
    "Pivoted", "adjoint", "column_squares", "conjugated", "dense", "largest", "lu_pivots", "pivoted_qr",
    "pivoted_qr_of_map", "proportional", "random_qr", "sample_distinct", "take_columns", "thin_qr", "triangular_solve",
]  # fmt: skip
