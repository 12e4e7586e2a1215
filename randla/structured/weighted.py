"""Low-rank approximation in weighted norms: rows, columns, metrics, and entries one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, is_sparse, namespace_of
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..linear_maps import block_matmul, squared
from ..lowrank.orthonormal import adjoint, core_dtype, core_svd, orthonormalize
from ..lowrank.projectors import TwoSidedFactorization
from ..lowrank.results import signed
from ..lowrank.svd import svd
from ..triangular import cholesky

_FLOOR = 1e-8  # smallest row or column weight, relative to the largest: its inverse square root is applied
_SMALL = 500  # up to this side a full decomposition is as cheap as anything
_BLOCK_ENTRIES = 2**20  # entries of a block in double precision: small matrices of the least-squares problems
METHODS = ("auto", "exact", "randomized")


@dataclass(frozen=True, repr=False)
class WeightedResult(TwoSidedFactorization):
    """Approximation ``A ~ F G H^*`` in a weighted norm, with the costs of an iteration.

    Attributes
    ----------
    F, G, H, left_divisor, right_divisor, error_bound, confidence, error_kind, n_passes, n_matvecs, status
        As in `TwoSidedFactorization`; G is diagonal.
    error : float
        Weighted norm of ``A - F G H^*`` over that of A.
    error_norm : str
        "weighted".
    norm : float
        Weighted norm of A.
    n_iter : int
        Iterations done.
    history : tuple of float
        The error at the start and after each iteration; it never rises.
    """

    n_iter: int = 0
    history: tuple[float, ...] = ()


def weighted_svd(
    A: Any, rank: int, *, row_weights: Any = None, col_weights: Any = None, row_metric: Any = None,
    col_metric: Any = None, method: str = "auto", rng: Any = None, on_failure: str = "warn",
) -> WeightedResult:  # fmt: skip
    """Compute the best approximation of a given rank where rows and columns count differently.

    Minimises ``||L^* (A - X) R||_F`` over X of the rank, with metrics ``L L^*`` of the columns' space and ``R R^*`` of
    the rows' space: whiten, decompose, unwhiten.  Diagonal metrics are given as weights.

    Parameters
    ----------
    A : array, or CSR or CSC matrix, shape (m, n)
        Matrix to approximate, of any array API namespace; it is not changed.  Sparse ones with weights only.
    rank : int, 0 <= rank <= min(m, n)
    row_weights : array, shape (m,), optional
        Weight of the squares in each row.  The sums of the rows of a Fisher information (mean squared gradients) give
        the Fisher-weighted decomposition.
    col_weights : array, shape (n,), optional
        Weight of the squares in each column; of both, the product counts.
    row_metric : array, shape (m, m), optional
        Positive definite matrix in place of `row_weights`.
    col_metric : array, shape (n, n), optional
        Positive definite matrix in place of `col_weights`, such as the Gram matrix of the inputs that A is applied to.
    method : {"auto", "exact", "randomized"}, default "auto"
        "exact": a full decomposition of the whitened matrix.  "randomized": `randla.svd` of it.  "auto" takes the
        first for sides up to 500 or a rank above a quarter of them, and never for sparse matrices.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches of "randomized".
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    WeightedResult
        ``F`` (m, rank), ``G`` (rank, rank), ``H`` (n, rank) with the weighted error; iterates as ``F, G, H``.  The
        columns of F are orthonormal in the row metric, ``F^* L L^* F = I``, and those of H in the column metric.

    Raises
    ------
    ValueError
        If shapes do not fit, a weight is negative, a metric is not positive definite, or a side has both.
    TypeError
        If a sparse A comes with a metric.

    Notes
    -----
    With "exact" the error is that of the singular values cut off, the least possible, and exact up to rounding.
    Weights below 1e-8 of the largest are raised to that, since their roots are divided by.

    References
    ----------
    .. [1] Hsu, Hua, Chang, Lou, Shen and Jin, "Language model compression with weighted low-rank factorization", ICLR
       2022, arXiv:2207.00112.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import weighted_svd
    >>> A = np.diag([3.0, 2.0, 1.0])
    >>> weighted_svd(A, 1, row_weights=[0.01, 0.01, 1]).to_dense().diagonal().round(6)
    array([0., 0., 1.])
    """
    check_choice(method, "method", METHODS)
    A = as_matrix(A)
    m, n = (int(side) for side in A.shape)
    rank = check_integer(rank, "rank", low=0, high=min(m, n))
    xp = namespace_of(A)
    A = _floating(A, xp)
    if is_sparse(A) and (row_metric is not None or col_metric is not None or method == "exact"):
        raise TypeError(
            f'A must be dense for metrics and for method="exact", got a sparse {A.format} matrix; pass A.toarray(), '
            f"which has {m * n} entries, or weights"
        )
    left, right = _Side(row_weights, row_metric, m, A, "row"), _Side(col_weights, col_metric, n, A, "col")
    B = right.scaled(left.scaled(A, rows=True), rows=False)
    exact = method == "exact" or (
        method == "auto" and not is_sparse(A) and (min(m, n) <= _SMALL or 4 * rank > min(m, n))
    )
    U, s, Vh, told = _decomposed(B, rank, exact, as_key(rng).fold("weighted_svd"), xp)
    F, H = left.unscaled(U), right.unscaled(adjoint(Vh))
    diagonal = s[:, None] * xp.eye(s.shape[0], dtype=s.dtype, device=device_of(s))
    result = WeightedResult(F, diagonal, H, error_norm="weighted", **told)
    return warn_or_raise(result, on_failure, what="weighted_svd")


def _floating(A: Any, xp: Any) -> Any:
    dtype = floating_dtype(A, xp)
    if is_sparse(A):
        return A if A.dtype == dtype else A.astype(dtype)
    return xp.astype(A, dtype, copy=False)


def _decomposed(B: Any, rank: int, exact: bool, key: Key, xp: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    """The truncated singular value decomposition of a whitened matrix, and what is known of its error."""
    if not exact:
        found = svd(B, rank, rng=key, on_failure="ignore")
        told = {
            name: getattr(found, name)
            for name in ("error", "error_bound", "confidence", "error_kind", "norm", "n_passes", "n_matvecs", "status")
        }
        return found.U, found.s, found.Vh, told
    norm = math.sqrt(squared(B, xp))
    if not math.isfinite(norm):
        empty = xp.zeros((B.shape[0], 0), dtype=B.dtype, device=device_of(B))
        Vh = xp.zeros((0, B.shape[1]), dtype=B.dtype, device=device_of(B))
        s = xp.zeros((0,), dtype=xp.float64, device=device_of(B))
        return empty, s, Vh, {"status": Status.NONFINITE, "norm": norm}
    U, s, Vh = core_svd(B)
    tail = math.sqrt(float(xp.sum(xp.astype(s[rank:], xp.float64) ** 2)))
    error = tail / norm if norm > 0 else 0.0
    told = {"error": error, "error_bound": error, "confidence": 1.0, "error_kind": "exact", "norm": norm, "n_passes": 1}
    U, Vh = signed(U[:, :rank], Vh[:rank, :])
    return U, s[:rank], Vh, told


class _Side:
    """What makes the rows, or the columns, of a matrix count alike: roots of weights, or a triangular factor."""

    def __init__(self, weights: Any, metric: Any, size: int, like: Any, name: str) -> None:
        if weights is not None and metric is not None:
            raise ValueError(f"{name}_weights and {name}_metric must not both be given, got both")
        xp = namespace_of(like)
        self.xp, self.root, self.triangle, self.dtype = xp, None, None, like.dtype
        if weights is not None:
            label = f"{name}_weights"
            weights = as_matrix(weights, name=label, sparse=False, vector=True)
            check_together(like, weights, names=("A", label))
            if tuple(weights.shape) != (size,):
                raise ValueError(f"{label} must have shape ({size},), got {tuple(weights.shape)}")
            weights = xp.astype(weights, xp.float64)
            if not bool(xp.all(weights >= 0)) or not bool(xp.all(xp.isfinite(weights))):
                raise ValueError(f"{label} must be finite and nonnegative, got other values")
            floor = _FLOOR * float(xp.max(weights)) if size else 0.0
            if not floor > 0.0 and size:
                raise ValueError(f"{label} must have a positive entry, got zeros only")
            self.root = xp.sqrt(xp.where(weights > floor, weights, floor * xp.ones_like(weights)))
        elif metric is not None:
            label = f"{name}_metric"
            metric = as_matrix(metric, name=label, sparse=False)
            check_together(like, metric, names=("A", label))
            if tuple(metric.shape) != (size, size):
                raise ValueError(f"{label} must have shape ({size}, {size}), got {tuple(metric.shape)}")
            metric = xp.astype(metric, core_dtype(xp.result_type(floating_dtype(metric, xp), like.dtype), xp))
            off = math.sqrt(squared(metric - adjoint(metric), xp))
            R = cholesky(metric) if off <= 1e-6 * math.sqrt(squared(metric, xp)) else None
            if R is None:
                raise ValueError(
                    f"{label} must be symmetric positive definite, got another; add a multiple of identity"
                )
            self.triangle = R  # R^* R is the metric, of both sides

    def scaled(self, A: Any, *, rows: bool) -> Any:
        """``L^* A`` for the rows, ``A R`` for the columns."""
        xp = self.xp
        if self.root is not None:
            root = xp.astype(self.root, xp.float32 if eps(A.dtype) > 1e-10 else xp.float64)
            if is_sparse(A):
                return _sparse_scaled(A, root, rows)
            return A * (root[:, None] if rows else root[None, :])
        if self.triangle is None:
            return A
        A = xp.astype(A, self.triangle.dtype)
        return xp.matmul(self.triangle, A) if rows else xp.matmul(A, adjoint(self.triangle))

    def unscaled(self, U: Any) -> Any:
        """``L^-* U``, or ``R^-* V`` for the columns."""
        xp = self.xp
        if self.root is not None:
            U = U / xp.astype(self.root, xp.float32 if eps(U.dtype) > 1e-10 else xp.float64)[:, None]
        elif self.triangle is not None:
            U = xp.linalg.solve(self.triangle, xp.astype(U, self.triangle.dtype))
        return xp.astype(U, self.dtype)


def _sparse_scaled(A: Any, root: Any, rows: bool) -> Any:
    """A CSR or CSC matrix with its rows or columns multiplied."""
    major = rows == (A.format == "csr")
    index = _major(A) if major else A.indices
    return type(A)((A.data * root[index], A.indices, A.indptr), shape=A.shape)


def _major(A: Any) -> Any:
    """The row of each stored entry of a CSR matrix, or the column of a CSC one."""
    xp = namespace_of(A)
    return xp.searchsorted(A.indptr[1:], xp.arange(A.data.shape[0], dtype=A.indptr.dtype), side="right")


# --- weights of entries -----------------------------------------------------------------------------------------------


def weighted_low_rank(
    A: Any, W: Any, rank: int, *, method: str = "als", init: Any = "row-sum", max_iter: int = 300, tol: float = 1e-6,
    rng: Any = None, on_failure: str = "warn",
) -> WeightedResult:  # fmt: skip
    """Approximate a matrix by one of low rank where each entry has its own weight.

    Decreases ``sum(W * (A - X)**2)`` over X of the rank.  Weights zero mean that an entry does not count: what A holds
    there, NaN included, is not looked at.

    Parameters
    ----------
    A : array, shape (m, n), or CSR or CSC matrix
        Matrix to approximate, real; it is not changed.
    W : array, shape (m, n), or CSR or CSC matrix
        Nonnegative weights.  Of a SciPy sparse W the stored entries count and no others; only ``method="als"``.
    rank : int, 1 <= rank <= min(m, n)
    method : {"als", "em"}, default "als"
        "als": least squares for the rows of one factor and of the other in turn.  "em": replace A where its weight is
        low by the approximation so far, and approximate that without weights.
    init : {"row-sum", "svd"} or pair of arrays, shapes (m, rank) and (n, rank), default "row-sum"
        "row-sum": `weighted_svd` with the sums of the rows of W, the optimum where W has rank one; "svd": without
        weights.
    max_iter : int, max_iter >= 0, default 300
    tol : float, tol >= 0, default 1e-6
        Stop when an iteration lowers the sum of weighted squares by at most this share.
    rng : None, int, SeedSequence, Generator or Key
        Source of sketches, where the start is that of a large matrix.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    WeightedResult
        ``F`` (m, rank) and ``H`` (n, rank) orthonormal, ``G`` (rank, rank) diagonal, with the weighted error, computed,
        and its history.

    Raises
    ------
    ValueError
        If shapes do not fit, a weight is negative, or a parameter is out of range.
    NotImplementedError
        If A is complex, or sparse weights come with ``method="em"`` or arrays that are not SciPy's.

    Notes
    -----
    The problem is NP-hard; both methods lower the objective in every step and end in stationary points, which differ.

    Cost of an iteration: "als" ``O(k**2)`` for each weight that is stored and ``O((m + n) k**3)``; "em" ``O(m n k)``,
    but it takes the more iterations the further the largest weight is above the mean, about in that ratio.

    Deviations: (1) a proximal term of 1e-8 of the mean weight of a row makes the least-squares problems of rows with
    too few weights solvable and changes no stationary point; (2) the decomposition in a step of "em" is one step of
    subspace iteration from the row space before, which is enough for the descent.

    References
    ----------
    .. [1] Srebro and Jaakkola, "Weighted low-rank approximations", ICML 2003.
    .. [2] Song, Ye, Yin and Zhang, "Efficient alternating minimization with applications to weighted low rank
       approximation", arXiv:2306.04169.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import weighted_low_rank
    >>> rng = np.random.default_rng(0)
    >>> A = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    >>> W = (rng.random((40, 30)) < 0.5).astype(float)
    >>> X = weighted_low_rank(A, W, 2, tol=1e-12)
    >>> bool(np.allclose(X.to_dense(), A, atol=1e-3))
    True
    """
    check_choice(method, "method", ("als", "em"))
    max_iter = check_integer(max_iter, "max_iter", low=0)
    tol = check_real(tol, "tol", low=0.0)
    A, W = _pair(A, W, method)
    rank = check_integer(rank, "rank", low=1, high=min(A.shape))
    problem = _Problem(A, W)
    if not math.isfinite(problem.squares):
        result = problem.result(None, None, [], Status.NONFINITE)
        return warn_or_raise(result, on_failure, what="weighted_low_rank")
    U, V = problem.started(rank, init, as_key(rng).fold("weighted_low_rank"))
    step = problem.als if method == "als" else problem.em
    history, status = [problem.error(U, V)], Status.MAX_ITER
    noise = 8 * eps(problem.dtype)
    for _ in range(max_iter):
        moved = step(U, V)
        history.append(problem.error(*moved))
        if not math.isfinite(history[-1]):
            status = Status.NONFINITE
            break
        if history[-1] > history[-2]:  # rounding is all that can raise it: stay
            history[-1], status = history[-2], Status.CONVERGED
            break
        U, V = moved
        if history[-1] <= noise or history[-2] ** 2 - history[-1] ** 2 <= tol * history[-2] ** 2:
            status = Status.CONVERGED
            break
    return warn_or_raise(problem.result(U, V, history, status), on_failure, what="weighted_low_rank")


def _pair(A: Any, W: Any, method: str) -> tuple[Any, Any]:
    A, W = as_matrix(A), as_matrix(W, name="W")
    check_together(A, W, names=("A", "W"))
    if tuple(A.shape) != tuple(W.shape):
        raise ValueError(f"W must have the shape of A, {tuple(A.shape)}, got {tuple(W.shape)}")
    if 0 in A.shape:
        raise ValueError(f"A must have rows and columns, got shape {tuple(A.shape)}")
    xp = namespace_of(A)
    if any(not xp.isdtype(floating_dtype(M, xp), "real floating") for M in (A, W)):
        raise NotImplementedError(f"A and W must be real, got {A.dtype} and {W.dtype}; approximate both parts of A")
    if is_sparse(W) and (method == "em" or not is_numpy_namespace(xp)):
        raise NotImplementedError('W must be dense for method="em" and outside of SciPy; use method="als" with SciPy')
    entries = W.data if is_sparse(W) else W
    if not bool(xp.all(entries >= 0)):
        raise ValueError("W must be nonnegative, got a negative weight or NaN")
    if is_sparse(A) and not is_sparse(W):
        raise TypeError("A must be dense beside a dense W, got a sparse matrix; pass W in sparse form too")
    return A, W


class _Problem:
    """A matrix with weights: its blocks in double precision, its objective, and one step of each method."""

    def __init__(self, A: Any, W: Any) -> None:
        self.xp = namespace_of(A)
        self.dtype = floating_dtype(A, self.xp)
        self.A, self.W = A, W
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self.entries = None
        if is_sparse(W):
            W = W.tocsr()
            self.W = type(W)((W.data.astype("float64"), W.indices, W.indptr), shape=W.shape)
            self.entries = _values_at(A, self.W)
            self.WA = type(W)((self.W.data * self.entries, W.indices, W.indptr), shape=W.shape)
            self.sides = ((self.W, self.WA), (self.W.T.tocsr(), self.WA.T.tocsr()))
            self.squares = float((self.W.data * self.entries) @ self.entries)
            self.top = float(self.W.data.max()) if self.W.nnz else 0.0
        else:
            self.top = float(self.xp.max(W))
            self.squares = sum(float(self.xp.sum(w * a * a)) for _, w, a in self._blocks())

    def _blocks(self, transposed: bool = False) -> Iterator[tuple[slice, Any, Any]]:
        """Blocks of rows (or columns) of dense W and A in double precision; A is zero where its weight is."""
        xp = self.xp
        W, A = (self.W.mT, self.A.mT) if transposed else (self.W, self.A)
        step = max(1, _BLOCK_ENTRIES // W.shape[1])
        for lo in range(0, W.shape[0], step):
            rows = slice(lo, min(lo + step, W.shape[0]))
            w, a = (xp.astype(M[rows, :], xp.float64) for M in (W, A))
            yield rows, w, xp.where(w > 0, a, xp.zeros_like(a))

    def error(self, U: Any, V: Any) -> float:
        """The weighted norm of ``A - U V^T`` over that of A."""
        if self.squares == 0.0:
            return 0.0
        if self.entries is not None:
            left = 0.0
            for lo, hi, rows in _entry_blocks(self.W, U.shape[1]):
                fitted = self.xp.sum(U[rows] * V[self.W.indices[lo:hi]], axis=1)
                left += float(self.xp.sum(self.W.data[lo:hi] * (self.entries[lo:hi] - fitted) ** 2))
        else:
            xp = self.xp
            left = sum(float(xp.sum(w * (a - xp.matmul(U[r, :], V.mT)) ** 2)) for r, w, a in self._blocks())
        return math.sqrt(left / self.squares)

    def started(self, rank: int, init: Any, key: Key) -> tuple[Any, Any]:
        """Factors to start from, in double precision."""
        xp = self.xp
        if not isinstance(init, str):
            U, V = (as_matrix(M, name="init", sparse=False) for M in init)
            if tuple(U.shape) != (self.shape[0], rank) or tuple(V.shape) != (self.shape[1], rank):
                raise ValueError(
                    f"init must hold factors of shapes {(self.shape[0], rank)} and {(self.shape[1], rank)}, "
                    f"got {tuple(U.shape)} and {tuple(V.shape)}"
                )
            return xp.astype(U, xp.float64), xp.astype(V, xp.float64)
        check_choice(init, "init", ("row-sum", "svd"))
        if self.entries is not None:
            A = type(self.W)((self.entries, self.W.indices, self.W.indptr), shape=self.shape)
            sums = block_matmul(self.W, xp.ones((self.shape[1], 1)))[:, 0]
        else:
            A = xp.concat([a for _, _, a in self._blocks()], axis=0)
            sums = xp.concat([xp.sum(w, axis=1) for _, w, _ in self._blocks()], axis=0)
        weights = sums if init == "row-sum" and self.top > 0 else None
        F, G, H = weighted_svd(A, rank, row_weights=weights, rng=key, on_failure="ignore")
        return xp.matmul(F, G), H

    def als(self, U: Any, V: Any) -> tuple[Any, Any]:
        """Least squares for the rows of U, then for those of V."""
        U, V = self._balanced(U, V)
        U = self._solved(U, V, 0)
        V, U = self._balanced(V, U)
        return U, self._solved(V, U, 1)

    def _balanced(self, U: Any, V: Any) -> tuple[Any, Any]:
        """The same product with orthonormal V: the least-squares problems are as well-conditioned as the weights."""
        Q, R = self.xp.linalg.qr(V)
        return self.xp.matmul(U, R.mT), Q

    def _solved(self, U: Any, V: Any, axis: int) -> Any:
        """Minimise over the rows of U for fixed V; axis 1 exchanges rows and columns of A."""
        xp, k = self.xp, V.shape[1]
        pairs = [(i, j) for i in range(k) for j in range(i, k)]
        places = [pairs.index((min(i, j), max(i, j))) for i in range(k) for j in range(k)]
        first, second, place = (
            xp.asarray(index, dtype=xp.int64, device=device_of(V))
            for index in ([i for i, _ in pairs], [j for _, j in pairs], places)
        )
        products = xp.take(V, first, axis=1) * xp.take(V, second, axis=1)
        ones = xp.ones((V.shape[0], 1), dtype=xp.float64, device=device_of(V))
        products = xp.concat([products, ones], axis=1)  # the last column adds up the weights
        eye = xp.eye(k, dtype=xp.float64, device=device_of(V))
        parts = []
        for rows, gram, target in self._normal(V, products, axis):
            G = xp.reshape(xp.take(gram, place, axis=1), (-1, k, k))
            mean = gram[:, -1] / V.shape[0]  # the curvature of a row that is spread evenly over orthonormal V
            pull = xp.where(mean > 0, 1e-8 * mean, xp.ones_like(mean))
            right = target + pull[:, None] * U[rows, :]
            parts.append(xp.linalg.solve(G + pull[:, None, None] * eye, right[:, :, None])[:, :, 0])
        return xp.concat(parts, axis=0)

    def _normal(self, V: Any, products: Any, axis: int) -> Iterator[tuple[slice, Any, Any]]:
        """Blocks of ``W products`` and ``(W A) V``: normal equations of the rows, upper triangles in a row."""
        xp = self.xp
        if self.entries is None:
            for rows, w, a in self._blocks(transposed=axis == 1):
                yield rows, xp.matmul(w, products), xp.matmul(w * a, V)
            return
        W, WA = self.sides[axis]
        step = max(1, _BLOCK_ENTRIES // products.shape[1])
        for lo in range(0, W.shape[0], step):
            rows = slice(lo, min(lo + step, W.shape[0]))
            yield rows, block_matmul(W[rows], products), block_matmul(WA[rows], V)

    def em(self, U: Any, V: Any) -> tuple[Any, Any]:
        """One step on ``Y = w A + (1 - w) U V^T`` with w = W / max(W): a column space, then the best rows in it."""
        xp = self.xp
        if self.top == 0.0:
            return U, V
        Q, _ = xp.linalg.qr(V)
        blended = [xp.matmul(self._blend(r, w, a, U, V), Q) for r, w, a in self._blocks()]
        basis, _ = xp.linalg.qr(xp.concat(blended, axis=0))
        new = xp.zeros_like(V)
        for r, w, a in self._blocks():
            new = new + xp.matmul(self._blend(r, w, a, U, V).mT, basis[r, :])
        return basis, new

    def _blend(self, rows: slice, w: Any, a: Any, U: Any, V: Any) -> Any:
        fitted = self.xp.matmul(U[rows, :], V.mT)
        return fitted + (w / self.top) * (a - fitted)

    def result(self, U: Any, V: Any, history: list[float], status: Status) -> WeightedResult:
        """The factors as a decomposition with orthonormal sides."""
        xp = self.xp
        told: dict[str, Any] = {"error_norm": "weighted", "norm": math.sqrt(max(self.squares, 0.0)), "status": status}
        if U is None or status is Status.NONFINITE:
            place = device_of(self.W.data if is_sparse(self.W) else self.W)
            U, V = (xp.zeros((side, 0), dtype=self.dtype, device=place) for side in self.shape)
            return WeightedResult(
                U, xp.zeros((0, 0), dtype=xp.float64, device=place), V, history=tuple(history), **told
            )
        left, right = orthonormalize(U, rtol=0.0), orthonormalize(V, rtol=0.0)
        P, s, Qh = core_svd(xp.matmul(left.R, right.R.mT))
        F, Hh = signed(xp.matmul(left.Q, P), xp.matmul(Qh, right.Q.mT))
        error = history[-1]
        told |= {"error": error, "error_bound": error, "confidence": 1.0, "error_kind": "exact"}
        diagonal = s[:, None] * xp.eye(s.shape[0], dtype=s.dtype, device=device_of(s))
        return WeightedResult(
            xp.astype(F, self.dtype), diagonal, xp.astype(Hh.mT, self.dtype), n_iter=len(history) - 1,
            history=tuple(history), **told,
        )  # fmt: skip


def _values_at(A: Any, W: Any) -> Any:
    """The entries of A where W stores one, in the order of W."""
    rows = _major(W)
    values = A.tocsr()[rows, W.indices] if is_sparse(A) else A[rows, W.indices]
    values = values.toarray() if is_sparse(values) else values
    xp = array_namespace(W.data)
    return xp.where(W.data > 0, xp.asarray(values, dtype=xp.float64).reshape(-1), 0.0)


def _entry_blocks(W: Any, width: int) -> Iterator[tuple[int, int, Any]]:
    """Blocks of stored entries of a CSR matrix: bounds, and the row of each entry."""
    rows = _major(W)
    step = max(1, _BLOCK_ENTRIES // width)
    for lo in range(0, W.data.shape[0], step):
        hi = min(lo + step, W.data.shape[0])
        yield lo, hi, rows[lo:hi]
