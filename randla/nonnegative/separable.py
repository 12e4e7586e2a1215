"""Separable factorisation: the parts are columns of the data, found by successive projections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from array_api_compat import device as device_of
from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, eps, floating_dtype, is_complex, is_sparse, namespace_of
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..linear_maps import block_rmatmul
from ..lowrank.svd import svd
from .ellipsoid import enclosing_ellipsoid
from .results import NMFResult
from .simplex import capped_lstsq, nonneg_lstsq

PRECONDITIONERS = ("svd", "ellipsoid")
TIES = 1e-6  # squared residuals that differ by less are equal: the longer column wins
BLOCK_ENTRIES = 2**21  # entries of a block of columns in double precision
BATCH = 256  # distances to the hull that are computed together


@dataclass(frozen=True, repr=False)
class SeparableResult(NMFResult):
    """Factorisation ``X ~ X[:, columns] H`` with nonnegative H, and what was left when each column was taken.

    Attributes
    ----------
    W : array, shape (m, rank)
        The columns of X that were taken, in the order of `columns`.
    H : array, shape (rank, n)
        Nonnegative coefficients of all columns, by exact nonnegative least squares.
    columns : int64 array, shape (rank,)
        Indices of the columns.
    error, error_kind, loss, objective, stationarity, solver, reason, n_iter, n_passes, start_objectives, n_revived
        As in `NMFResult`; n_iter is the number of columns.
    history : tuple of float
        The largest residual norm over the columns, relative to the largest norm of a column, before each choice and
        after the last; the stopping quantity.
    status : Status
        RANK_DEFICIENT if fewer columns than asked for left nothing; NONFINITE for NaN or infinity.
    """

    columns: Any = None


def spa(
    X: Any, rank: int, *, normalize: bool = True, precondition: str | None = None, tol: float = 1e-6, rng: Any = None,
    on_failure: str = "warn",
) -> SeparableResult:  # fmt: skip
    """Find the columns of which all others are mixtures, by successive projections.

    The column of largest norm is taken, all columns are projected onto the complement of it, and so on, `rank` times.
    If ``X = W [I, H'] P`` with columns of H' that sum to at most one and W of full rank, these are the columns of W, in
    ``O(nnz(X) rank)`` operations.  Where W has dependent columns, take `snpa`.

    Parameters
    ----------
    X : array, or CSR or CSC matrix, shape (m, n)
        The data, real; it is not changed, and a sparse one is never made dense as a whole.
    rank : int, 1 <= rank <= n
        Number of columns to take.
    normalize : bool, default True
        Divide each column of a nonnegative X by its sum first, so that the scales of columns do not matter; columns of
        zeros are never taken.  False for signed data, and where short columns are mostly noise.
    precondition : {None, "svd", "ellipsoid"}, default None
        Transform the columns before they are compared, which tolerates more noise: to orthonormal rows by the leading
        singular vectors [2]_, or by the ellipsoid of least volume around them [3]_.
    tol : float, tol > 0, default 1e-6
        Stop early when no residual column is longer than `tol` times the longest column (32 eps at least).
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches of the singular value decomposition, if `precondition` asks for one.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is NONFINITE.

    Returns
    -------
    SeparableResult
        ``W`` (m, rank), ``H`` (rank, n) and ``columns`` with the error; iterates as ``W, H``.  Its rank is lower where
        the columns that were taken left nothing.

    Raises
    ------
    ValueError
        If X has negative entries with ``normalize=True``, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    With noise of norm epsilon in each column the columns of W are found up to ``O(epsilon kappa(W)**2)`` as long as
    ``epsilon <= O(sigma_min(W) / (sqrt(rank) kappa(W)**2))`` [1]_; with the ellipsoid up to ``O(epsilon kappa(W))``
    [3]_.

    Deviation from [1]_: squared residuals are updated by differences, and computed anew when they have fallen to
    sqrt(eps) of the last such computation, so that the differences keep half of their digits.

    References
    ----------
    .. [1] Gillis and Vavasis, "Fast and robust recursive algorithms for separable nonnegative matrix factorization",
       IEEE TPAMI 36, 2014, Algorithm 1 and Theorem 3.
    .. [2] Gillis and Ma, "Enhancing pure-pixel identification performance via preconditioning", SIAM J. Imaging
       Sciences 8, 2015.
    .. [3] Gillis and Vavasis, "Semidefinite programming based preconditioning for more robust near-separable
       nonnegative matrix factorization", SIAM J. Optimization 25, 2015.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> W = rng.random((20, 3))
    >>> X = W @ np.hstack([rng.dirichlet(np.ones(3), 40).T, np.eye(3)])
    >>> result = randla.spa(X, 3)
    >>> sorted(result.columns.tolist()), result.error < 1e-14
    ([40, 41, 42], True)
    """
    columns, rank, tol = _intake(X, rank, normalize, tol)
    if precondition is not None:
        check_choice(precondition, "precondition", PRECONDITIONERS)
    key = as_key(rng).fold("spa")
    if precondition is not None and columns.finite and columns.top > 0:
        points = _preconditioned(columns, min(rank, *columns.shape), precondition, key)
        chosen = successive(_Columns(points, normalize=False), rank, tol)
    else:
        chosen = successive(columns, rank, tol)
    result = _result(columns, chosen, rank, "spa")
    return warn_or_raise(result, on_failure, what="spa")


def snpa(
    X: Any, rank: int, *, normalize: bool = True, tol: float = 1e-6, on_failure: str = "warn",
) -> SeparableResult:  # fmt: skip
    """Find the columns of which all others are mixtures, by successive nonnegative projections.

    As `spa`, but the residual of a column is its distance from the convex hull of zero and of the columns that were
    taken, not from their span.  So it finds the vertices of a polytope also where they are more than the rank of X, and
    it tolerates more noise, for about ``n rank**3`` operations more.

    Parameters
    ----------
    X : array, or CSR or CSC matrix, shape (m, n)
        The data, real; it is not changed, and a sparse one is never made dense as a whole.
    rank : int, 1 <= rank <= n
        Number of columns to take.
    normalize : bool, default True
        Divide each column of a nonnegative X by its sum first, so that the scales of columns do not matter; columns of
        zeros are never taken.
    tol : float, tol > 0, default 1e-6
        Stop early when no column is farther than `tol` times the longest column from the hull (32 eps at least).
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is NONFINITE.

    Returns
    -------
    SeparableResult
        ``W`` (m, rank), ``H`` (rank, n) and ``columns`` with the error; iterates as ``W, H``.  H is nonnegative, its
        sums are not bounded.

    Raises
    ------
    ValueError
        If X has negative entries with ``normalize=True``, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    Distances can only shrink from one choice to the next, so they are computed anew only for columns that could be the
    farthest by their last one; the choice is that of [1]_.  Each is a least-squares problem over
    ``h >= 0, sum(h) <= 1``, solved exactly (block pivoting and multipliers for the sum) in place of the 200 gradient
    steps of [1]_.

    References
    ----------
    .. [1] Gillis, "Successive nonnegative projection algorithm for robust nonnegative blind source separation",
       SIAM J. Imaging Sciences 7, 2014, Algorithm SNPA.

    Examples
    --------
    >>> import numpy as np, randla
    >>> angles = 2 * np.pi * np.arange(5) / 5
    >>> corners = np.stack([1 + np.cos(angles), 1 + np.sin(angles), np.full(5, 3.0)])  # five corners, rank three
    >>> X = corners @ np.hstack([np.random.default_rng(0).dirichlet(np.ones(5), 30).T, np.eye(5)])
    >>> sorted(randla.snpa(X, 5).columns.tolist()), randla.spa(X, 5).rank
    ([30, 31, 32, 33, 34], 3)
    """
    columns, rank, tol = _intake(X, rank, normalize, tol)
    result = _result(columns, successive_hull(columns, rank, tol), rank, "snpa")
    return warn_or_raise(result, on_failure, what="snpa")


def _intake(X: Any, rank: int, normalize: bool, tol: float) -> tuple[_Columns, int, float]:
    X = as_matrix(X, name="X")
    xp = namespace_of(X)
    if is_complex(X.dtype):
        raise TypeError(f"X must be real, got {X.dtype}")
    if is_sparse(X) and not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
        raise NotImplementedError("X must be a SciPy or CuPy matrix where it is sparse")
    rank = check_integer(rank, "rank", low=1, high=int(X.shape[1]), remedy="X has no more columns")
    tol = check_real(tol, "tol", low=0.0, closed="neither")
    columns = _Columns(X, normalize=normalize)
    return columns, rank, max(tol, 32 * eps(columns.dtype))


class Chosen(NamedTuple):
    """Columns in the order of their choice, and the largest residual before each and after the last."""

    columns: list[int]
    history: list[float]


class _Columns:
    """The columns of X, divided by their sums where asked: products, norms, single columns, all without a copy of X.

    Norms are relative to the largest entry, so that squares of entries near the ends of the range stay in it.
    """

    def __init__(self, X: Any, *, normalize: bool) -> None:
        self.xp = xp = namespace_of(X)
        self.dtype = floating_dtype(X, xp)
        if is_sparse(X):
            X = X.tocsc()
            X = X if X.dtype == self.dtype else X.astype(self.dtype)
            if not X.has_canonical_format:
                X = X.copy()
                X.sum_duplicates()
        else:
            X = xp.astype(X, self.dtype, copy=False)
        self.X, self.shape = X, (int(X.shape[0]), int(X.shape[1]))
        self.like = X.data if is_sparse(X) else X
        entries = self.like
        self.largest = float(xp.max(xp.abs(entries))) if 0 not in entries.shape else 0.0
        self.finite = math.isfinite(self.largest)
        if normalize and self.finite and self.largest > 0 and float(xp.min(entries)) < 0:
            raise ValueError(
                f"X must be nonnegative with normalize=True, got {float(xp.min(entries)):g}; pass normalize=False"
            )
        # a power of two: to divide by it loses no digits
        self.top = 2.0 ** min(max(math.frexp(self.largest)[1], -1000), 1000) if self.finite and self.largest else 0.0
        self.weights = self._weights(normalize)
        self.squares = self._squares()

    def _weights(self, normalize: bool) -> Any:
        """What each column is multiplied with, float64 (n,)."""
        xp, n = self.xp, self.shape[1]
        if self.top == 0.0:
            return xp.zeros(n, dtype=xp.float64, device=device_of(self.like))
        if not normalize:
            return xp.full(n, 1 / self.top, dtype=xp.float64, device=device_of(self.like))
        total = xp.zeros(n, dtype=xp.float64, device=device_of(self.like))
        for lo, hi, block in self._blocks():
            total[lo:hi] = xp.sum(block / self.top, axis=0)
        return xp.where(total > 0, 1 / self.top / xp.where(total > 0, total, 1.0), 0.0)

    def _blocks(self) -> Any:
        """Blocks of columns in double precision, dense."""
        m, n = self.shape
        step = max(1, BLOCK_ENTRIES // max(1, m))
        for lo in range(0, n, step):
            hi = min(lo + step, n)
            block = self.X[:, lo:hi]
            yield lo, hi, self.xp.astype(block.toarray() if is_sparse(block) else block, self.xp.float64)

    def _squares(self) -> Any:
        xp = self.xp
        out = xp.zeros(self.shape[1], dtype=xp.float64, device=device_of(self.like))
        for lo, hi, block in self._blocks() if self.top else ():
            block = block * self.weights[None, lo:hi]
            out[lo:hi] = xp.sum(block * block, axis=0)
        return out

    def column(self, j: int) -> Any:
        """Column j, multiplied with its weight, in double precision."""
        part = self.X[:, j : j + 1]
        part = part.toarray() if is_sparse(part) else part
        return self.xp.astype(part[:, 0], self.xp.float64) * self.weights[j]

    def products(self, u: Any) -> Any:
        """Row u.T X with the weights, float64 (n,); u is of moderate size."""
        row = block_rmatmul(self.X, self.xp.astype(u[:, None], self.dtype))[:, 0]
        return self.xp.astype(row, self.xp.float64) * self.weights

    def residual_squares(self, U: Any) -> Any:
        """Squared norms of the columns less their projections on orthonormal U, formed block by block."""
        xp = self.xp
        out = xp.zeros_like(self.squares)
        for lo, hi, block in self._blocks():
            block = block * self.weights[None, lo:hi]
            block = block - xp.matmul(U, xp.matmul(U.mT, block))
            out[lo:hi] = xp.sum(block * block, axis=0)
        return out

    def taken(self, indices: Any) -> Any:
        """Some columns with their weights, dense and in double precision."""
        part = self.X[:, indices].toarray() if is_sparse(self.X) else self.xp.take(self.X, indices, axis=1)
        return self.xp.astype(part, self.xp.float64) * self.xp.take(self.weights, indices)[None, :]


def _longest(left: Any, squares: Any, xp: Any) -> int:
    """The index of the largest entry of `left`; of ties the one with the longest column."""
    near = left >= (1 - TIES) * xp.max(left)
    return int(xp.argmax(xp.where(near, squares, -xp.ones_like(squares))))


def successive(columns: _Columns, rank: int, tol: float) -> Chosen:
    """Algorithm 1 of Gillis and Vavasis: largest residual column, projection, and so on."""
    xp, left = columns.xp, columns.squares
    largest = float(xp.max(left))
    if not (columns.finite and largest > 0):
        return Chosen([], [])
    chosen, history, fresh = [], [1.0], largest
    U = xp.zeros((columns.shape[0], 0), dtype=xp.float64, device=device_of(columns.like))
    for _ in range(rank):
        j = _longest(left, columns.squares, xp)
        u = columns.column(j)
        for _ in range(2):  # once more takes out what rounding left of the first time
            u = u - xp.matmul(U, xp.matmul(U.mT, u[:, None]))[:, 0]
        u = u / xp.linalg.vector_norm(u)
        U = xp.concat([U, u[:, None]], axis=1)
        c = columns.products(u)
        left = xp.maximum(left - c * c, xp.zeros_like(left))
        left = xp.where(xp.arange(left.shape[0], device=device_of(left)) == j, 0.0, left)
        chosen.append(j)
        peak = float(xp.max(left))
        if peak <= math.sqrt(eps(columns.dtype)) * fresh:
            left = columns.residual_squares(U)
            fresh = peak = float(xp.max(left))
        history.append(math.sqrt(peak / largest))
        if history[-1] <= tol:
            break
    return Chosen(chosen, history)


def successive_hull(columns: _Columns, rank: int, tol: float) -> Chosen:
    """Algorithm SNPA: the column that is farthest from the hull of zero and of those taken, and so on."""
    xp, left = columns.xp, columns.squares
    largest = float(xp.max(left))
    if not (columns.finite and largest > 0):
        return Chosen([], [])
    chosen, history = [], [1.0]
    W = xp.zeros((columns.shape[0], 0), dtype=xp.float64, device=device_of(columns.like))
    B = xp.zeros((0, columns.shape[1]), dtype=xp.float64, device=device_of(columns.like))
    for _ in range(rank):
        j = _longest(left, columns.squares, xp)
        chosen.append(j)
        w = columns.column(j)
        W = xp.concat([W, w[:, None]], axis=1)
        B = xp.concat([B, columns.products(w)[None, :]], axis=0)
        left = xp.where(xp.arange(left.shape[0], device=device_of(left)) == j, 0.0, left)
        left = _distances(columns, W, B, left)
        history.append(math.sqrt(float(xp.max(left)) / largest))
        if history[-1] <= tol:
            break
    return Chosen(chosen, history)


def _distances(columns: _Columns, W: Any, B: Any, bounds: Any) -> Any:
    """Squared distances from the hull, exact where they could be the largest, and elsewhere their upper `bounds`.

    Columns are taken by falling bound, and it ends when the next bound is below the largest distance found.
    """
    xp = columns.xp
    G = xp.matmul(W.mT, W)
    order = xp.argsort(bounds, descending=True)
    falling, best = xp.take(bounds, order), 0.0
    for lo in range(0, int(order.shape[0]), BATCH):
        bound = float(falling[lo])
        if bound == 0.0 or bound < best * (1 - TIES):
            break
        hi = min(lo + BATCH, int(order.shape[0]))
        part = order[lo:hi]
        R = columns.taken(part) - xp.matmul(W, capped_lstsq(G, xp.take(B, part, axis=1)))
        exact = xp.minimum(xp.sum(R * R, axis=0), falling[lo:hi])
        falling[lo:hi] = exact
        best = max(best, float(xp.max(exact)))
    return xp.take(falling, xp.argsort(order))


def _preconditioned(columns: _Columns, rank: int, kind: str, key: Key) -> Any:
    """The columns in `rank` dimensions, where those of W are about orthonormal."""
    xp, X = columns.xp, columns.X
    if is_sparse(X):
        places = xp.searchsorted(X.indptr[1:], xp.arange(X.data.shape[0]), side="right")
        data = X.data * xp.astype(xp.take(columns.weights, places), columns.dtype)
        weighted = type(X)((data, X.indices, X.indptr), shape=X.shape)
    else:
        weighted = X * xp.astype(columns.weights, columns.dtype)[None, :]
    _, s, Vh = svd(weighted, rank, rng=key, on_failure="ignore")
    kept = int(xp.sum(xp.astype(s > 1e-10 * s[0], xp.int64)))
    points = xp.astype(Vh[:kept, :], xp.float64)
    return points if kind == "svd" else enclosing_ellipsoid(points)


def _result(columns: _Columns, chosen: Chosen, rank: int, solver: str) -> SeparableResult:
    """The columns of X, the coefficients of all others, and the error of both."""
    xp, (m, n), device = columns.xp, columns.shape, device_of(columns.like)
    k = len(chosen.columns)
    if not columns.finite or k == 0:
        W, H = (xp.zeros(shape, dtype=columns.dtype, device=device) for shape in ((m, 0), (0, n)))
        status = Status.RANK_DEFICIENT if columns.finite else Status.NONFINITE
        error = 0.0 if columns.finite else math.nan
        index = xp.zeros(0, dtype=xp.int64, device=device)
        return SeparableResult(W, H, error, solver=solver, columns=index, status=status)
    index = xp.asarray(chosen.columns, dtype=xp.int64, device=device)
    plain = _Columns(columns.X, normalize=False)
    W = plain.taken(index)  # over the power of two
    lengths = xp.sqrt(xp.sum(W * W, axis=0))
    unit = W / lengths[None, :]
    B = xp.stack([plain.products(unit[:, t]) for t in range(k)])
    H = nonneg_lstsq(xp.matmul(unit.mT, unit), B)
    squares = 0.0
    for lo, hi, block in plain._blocks():
        R = block / plain.top - xp.matmul(unit, H[:, lo:hi])
        squares += float(xp.sum(R * R))
    whole = float(xp.sum(plain.squares))
    H = H / lengths[:, None]  # both factors of 2**t cancel
    error = math.sqrt(squares / whole)
    return SeparableResult(
        xp.astype(W * plain.top, columns.dtype), xp.astype(H, columns.dtype), error, solver=solver, n_iter=k,
        objective=squares * plain.top**2 / 2 if plain.top < 1e150 else math.inf, history=tuple(chosen.history),
        columns=index, status=Status.CONVERGED if k == rank else Status.RANK_DEFICIENT,
    )  # fmt: skip
