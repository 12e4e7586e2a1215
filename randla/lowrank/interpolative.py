"""Interpolative decompositions: a matrix as combinations of its own columns, of its own rows, or of both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, is_linear_operator, is_sparse
from .._blocks import RowBlocks
from .._checks import check_choice
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import PROBES
from ..linear_maps import LinearMap, as_linear_map, block_matmul, squared
from .orthonormal import NonfiniteError, adjoint
from .pivoting import conjugated, dense, pivoted_qr, take_columns, triangular_solve
from .projectors import TwoSidedFactorization
from .results import ON_FAILURE
from .selection import (
    Error,
    Picks,
    SelectionPlan,
    default_rows,
    guess_rank,
    pick,
    project,
    selection_plan,
    sketched_rows,
    to_tolerance,
    told_error,
)

#: How the coefficients of the other columns may be found.
COEFFICIENTS = ("lstsq", "oversampled", "sketch")

_GROWTH = 1.3  # of a rank that turned out too small for its tolerance


@dataclass(frozen=True, repr=False)
class InterpolativeResult(TwoSidedFactorization):
    """Interpolative decomposition; iterates as ``indices, X``.

    ``A ~ A[:, indices] @ X`` for ``axis=1`` with X (rank, n), and ``A ~ X @ A[indices, :]`` for ``axis=0`` with X
    (m, rank).  X holds the identity on the chosen columns (rows) exactly.  Products, entries and other forms are those
    of `TwoSidedFactorization`.

    Attributes
    ----------
    indices : int64 array, shape (rank,)
        The chosen columns or rows, most important first; fewer than asked for where the rest of A is rounding.
    X : array, shape (rank, n) or (m, rank)
        Coefficients.
    axis : int
        1 for columns, 0 for rows.
    selection, coefficients : str
        How columns and coefficients were found.
    largest_coefficient : float
        The largest modulus in X: by how much errors in the chosen columns are enlarged.
    F, G, H : arrays
        The chosen columns, the identity, and ``X^*``; or X, the identity and the adjoint of the chosen rows.
    error, error_bound, confidence, error_kind, error_norm, norm, n_passes, n_matvecs, status
        As in `TwoSidedFactorization`.
    """

    indices: Any = None
    X: Any = None
    axis: int = 1
    selection: str = "sketch-qr"
    coefficients: str = "lstsq"
    largest_coefficient: float = math.nan

    _factors: ClassVar[tuple[str, ...]] = ("indices", "X")


@dataclass(frozen=True, repr=False)
class TwoSidedInterpolativeResult(TwoSidedFactorization):
    """Two-sided interpolative decomposition ``A ~ Z @ A[rows][:, columns] @ X``.

    Iterates as ``row_indices, column_indices, Z, X``.

    Attributes
    ----------
    row_indices, column_indices : int64 arrays, shape (rank,)
    Z : array, shape (m, rank)
        The identity on the chosen rows.
    X : array, shape (rank, n)
        The identity on the chosen columns.
    selection, coefficients : str
    F, G, H : arrays
        Z, the block ``A[rows][:, columns]``, and ``X^*``.
    error, error_bound, confidence, error_kind, error_norm, norm, n_passes, n_matvecs, status
        As in `TwoSidedFactorization`.
    """

    row_indices: Any = None
    column_indices: Any = None
    Z: Any = None
    X: Any = None
    selection: str = "sketch-qr"
    coefficients: str = "lstsq"

    _factors: ClassVar[tuple[str, ...]] = ("row_indices", "column_indices", "Z", "X")


def interpolative(
    A: Any, rank: int | None = None, tol: float | None = None, axis: int = 1, *, selection: str = "sketch-qr",
    coefficients: str = "lstsq", sketch_size: int | None = None, max_rank: int | None = None, rng: Any = None,
    on_failure: str = "warn",
) -> InterpolativeResult:  # fmt: skip
    """Write a matrix as combinations of a few of its columns, for a rank or for a tolerance.

    ``A ~ A[:, J] @ X``: pivots J of a sketch (one read, 8 additions for each entry), then the best coefficients for
    these columns, ``2 m n rank`` flops in one GEMM.  The columns keep what the data have (sparsity, sign, units,
    names); the best approximation of the same rank, `svd`, has half the error and none of that.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Matrix of any array API namespace; it is not changed, and a sparse one is not densified beyond (m, rank).
    rank : int, 0 <= rank <= min(m, n)
        Number of columns.  Give either `rank` or `tol`.
    tol : float, tol > 0
        Wanted ``||A - A[:, J] X||_F <= tol ||A||_F``.
    axis : {1, 0}, default 1
        Choose columns (1) or rows (0).
    selection : str, default "sketch-qr"
        How columns are chosen; the methods of `select_columns`.
    coefficients : {"lstsq", "oversampled", "sketch"}, default "lstsq"
        "lstsq" projects A itself on the columns, the least error for them.  "oversampled" solves in a sketch of twice
        the rows that the pivots come from, and "sketch" in the very sketch: no second read of A, and errors of 1.2 and
        1.4 times that.
    sketch_size : int, sketch_size >= rank, default 2 rank + 10
        Rows of the sketch of "sketch-qr".
    max_rank : int, default min(m, n)
        Largest rank that a tolerance may lead to.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches; equal keys give equal columns.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    InterpolativeResult
        Iterates as ``indices, X``; with products, error, costs and status.

    Raises
    ------
    ValueError
        If neither or both of `rank` and `tol` are given, or a parameter is out of range.
    TypeError
        If A is not numeric, can be read only once, or has no rows to choose (row blocks with ``axis=0``).

    Notes
    -----
    Columns with ``||A - A_J X|| <= sqrt(1 + rank (n - rank)) sigma_{rank+1}`` exist, and greedy pivots find them up to
    a factor ``2**rank`` that does not occur.  Measured at 4,000 x 3,000, rank 100: 2.1 times the best possible error
    for singular values ``exp(-j/20)`` and 1.4 for ``1/j``, as SciPy's `interp_decomp`, in 0.04 of its time.

    With "lstsq" the error is the difference of norms that the projection gives ("exact"); below about 1e-7 ||A|| (1e-3
    in single precision), and with the other coefficients, 20 Gaussian probes of the residual take over ("sketched").

    The columns are orthonormalised for the projection, so dependent ones do no harm: they are dropped.

    References
    ----------
    .. [1] Voronin and Martinsson, "Efficient algorithms for CUR and interpolative matrix decompositions",
       arXiv:1412.8447.
    .. [2] Dong, Chen, Martinsson and Pearce, "Robust blockwise random pivoting: fast and accurate adaptive
       interpolative decomposition", arXiv:2309.16002; coefficients by an oversampled sketch.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.interpolative import interpolative
    >>> A = np.vander(np.linspace(0, 1, 200), 30)
    >>> J, X = interpolative(A, tol=1e-3, rng=0)
    >>> J.shape, X.shape, bool(np.linalg.norm(A - A[:, J] @ X) <= 1e-3 * np.linalg.norm(A))
    ((8,), (8, 30), True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(coefficients, "coefficients", COEFFICIENTS)
    if isinstance(axis, bool) or axis not in (0, 1):
        raise ValueError(f"axis must be 1 for columns or 0 for rows, got {axis!r}")
    A = as_linear_map(A if axis == 1 else transposed(A, "axis=0"))
    plan = selection_plan(A, rank, tol, method=selection, sketch_size=sketch_size, max_rank=max_rank, name="selection")
    key = as_key(rng).fold("interpolative")
    try:
        order, columns, X, error, status = column_id(A, plan, coefficients, key)
    except NonfiniteError:
        order, columns, X, error, status = _nothing(A)
    result = _as_result(A, plan, axis, coefficients, order, columns, X, error, status)
    if error.kind == "sketched" and coefficients == "lstsq":
        error = measured(A, columns, X, key)
        result = replace(result, n_passes=A.n_passes, n_matvecs=A.n_matvecs, **told(error))
    return warn_or_raise(result, on_failure, what="interpolative")


def _as_result(
    A: LinearMap, plan: SelectionPlan, axis: int, coefficients: str, order: Any, columns: Any, X: Any, error: Error,
    status: Status,
) -> InterpolativeResult:  # fmt: skip
    xp = A.xp
    eye = xp.eye(order.shape[0], dtype=A.dtype, device=A.device)
    F, H = (columns, adjoint(X)) if axis == 1 else (X.mT, conjugate_of(columns))
    return InterpolativeResult(
        F, eye, H, n_passes=A.n_passes, n_matvecs=A.n_matvecs, status=status, indices=order,
        X=X if axis == 1 else X.mT, axis=axis, selection=plan.method, coefficients=coefficients,
        largest_coefficient=float(xp.max(xp.abs(X))) if 0 not in X.shape else 0.0, **told(error),
    )  # fmt: skip


def interpolative_two_sided(
    A: Any, rank: int | None = None, tol: float | None = None, *, selection: str = "sketch-qr",
    coefficients: str = "lstsq", sketch_size: int | None = None, max_rank: int | None = None, rng: Any = None,
    on_failure: str = "warn",
) -> TwoSidedInterpolativeResult:  # fmt: skip
    """Write a matrix through a small block of its entries: ``A ~ Z @ A[rows][:, columns] @ X``.

    The decomposition of `interpolative`, then rows by pivoted QR of the chosen columns: as many rows as columns rebuild
    those exactly, so the error is that of the one-sided decomposition.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        As in `interpolative`.
    rank, tol, selection, coefficients, sketch_size, max_rank, rng, on_failure :
        As in `interpolative`.

    Returns
    -------
    TwoSidedInterpolativeResult
        Iterates as ``rows, columns, Z, X``.

    Raises
    ------
    ValueError, TypeError
        As `interpolative` does.

    Notes
    -----
    Cost beyond `interpolative`: ``2 m rank**2`` multiplications, and nothing is read again.

    References
    ----------
    .. [1] Cheng, Gimbutas, Martinsson and Rokhlin, "On the compression of low rank matrices", SIAM J. Sci. Comput. 26
       (2005).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.interpolative import interpolative_two_sided
    >>> A = np.vander(np.linspace(0, 1, 200), 30)
    >>> I, J, Z, X = interpolative_two_sided(A, tol=1e-3, rng=0)
    >>> bool(np.linalg.norm(A - Z @ A[np.ix_(I, J)] @ X) <= 1e-3 * np.linalg.norm(A))
    True
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(coefficients, "coefficients", COEFFICIENTS)
    A = as_linear_map(A)
    plan = selection_plan(A, rank, tol, method=selection, sketch_size=sketch_size, max_rank=max_rank, name="selection")
    key = as_key(rng).fold("interpolative")
    xp = A.xp
    try:
        order, columns, X, error, status = column_id(A, plan, coefficients, key)
        C = dense(columns)
        found = pivoted_qr(C.mT, order.shape[0])
        if found.order.shape[0] < order.shape[0]:  # rounding has made the columns dependent
            kept = pivoted_qr(C, found.order.shape[0]).order
            order, columns = xp.take(order, kept, axis=0), take_columns(A, xp.take(order, kept, axis=0))
            X = with_identity(project(A, order, key.fold("again")), order, A)
            C = dense(columns)
            found = pivoted_qr(C.mT, order.shape[0])
        Z = identity_on(_solved(found.triangle, found.order), found.order, A).mT
        G = xp.take(C, found.order, axis=0)
        rows = found.order
    except NonfiniteError:
        order, columns, X, error, status = _nothing(A)
        rows, Z, G = order, columns, xp.zeros((0, 0), dtype=A.dtype, device=A.device)
    result = TwoSidedInterpolativeResult(
        Z, G, adjoint(X), n_passes=A.n_passes, n_matvecs=A.n_matvecs, status=status, row_indices=rows,
        column_indices=order, Z=Z, X=X,
        selection=selection, coefficients=coefficients, **told(error),
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="interpolative_two_sided")


# --- columns and coefficients -----------------------------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity end in a status, not in NumPy's warnings
def column_id(
    A: LinearMap, plan: SelectionPlan, coefficients: str, key: Key
) -> tuple[Any, Any, Any, Error, Status]:  # fmt: skip
    """Indices, columns, coefficients, error and status of the decomposition by columns."""
    if coefficients == "lstsq":
        if plan.tol is None:
            found = project(A, pick(A, plan, plan.rank, key).order, key)
            error, status = told_error(found.tails[-1], found.whole, found.probed, A), Status.CONVERGED
        else:
            found, error, status = to_tolerance(A, plan, key, lambda k, step: pick(A, plan, k, key.fold(step)))
        return found.order, found.columns, with_identity(found, found.order, A), error, status
    if plan.tol is None:
        return (*_from_sketch(A, plan, plan.rank, coefficients, key), Status.CONVERGED)
    k, step = guess_rank(A, plan.tol, plan.max_rank, key.fold("guess")), 0
    while True:
        order, columns, X, error = _from_sketch(A, plan, k, coefficients, key.fold(step))
        if error.bound <= plan.tol:
            return order, columns, X, error, Status.CONVERGED
        if k >= plan.max_rank or order.shape[0] < k:
            exhausted = k >= min(A.shape) or order.shape[0] < k
            return order, columns, X, error, Status.STAGNATED if exhausted else Status.MAX_ITER
        k, step = min(int(_GROWTH * k) + 2, plan.max_rank), step + 1


def _from_sketch(
    A: LinearMap, plan: SelectionPlan, rank: int, coefficients: str, key: Key
) -> tuple[Any, Any, Any, Error]:
    """Coefficients that reproduce a sketch, and their error from probes of A."""
    rows = default_rows(rank) if coefficients == "sketch" else 2 * max(plan.sketch_size or 0, default_rows(rank))
    picks = pick(A, plan, rank, key, n_rows=0 if coefficients == "sketch" else rows)
    order, X = _sketched_coefficients(A, picks, rows, key)
    X = identity_on(X, order, A)
    columns = take_columns(A, order)
    return order, columns, X, measured(A, columns, X, key.fold("error"))


def _sketched_coefficients(A: LinearMap, picks: Picks, rows: int, key: Key) -> tuple[Any, Any]:
    """The columns that are independent in the sketch, and all columns of the sketch in them."""
    xp = A.xp
    if picks.coefficients is not None:
        return picks.order, picks.coefficients
    if picks.pivoted is not None:
        return picks.order, _solved(picks.pivoted.triangle, picks.order)
    M = picks.sketch if picks.sketch is not None else sketched_rows(A, rows, key.fold("coefficients"))
    kept = pivoted_qr(xp.take(M, picks.order, axis=1), picks.order.shape[0]).order
    order = xp.take(picks.order, kept, axis=0)
    if order.shape[0] == 0:
        return order, M[:0, :]
    Q, R = xp.linalg.qr(xp.take(M, order, axis=1))
    return order, triangular_solve(R, xp.matmul(adjoint(Q), M))


def _solved(triangle: Any, order: Any) -> Any:
    xp = array_namespace(triangle)
    return triangular_solve(xp.triu(xp.take(triangle, order, axis=1)), triangle)


def with_identity(found: Any, order: Any, A: LinearMap) -> Any:
    """The coefficients of a projection: ``R^-1 B``, with the identity on the chosen columns."""
    return identity_on(triangular_solve(found.R, found.B), order, A)


def identity_on(X: Any, order: Any, A: LinearMap) -> Any:
    """X (k, p) in the dtype of A with the identity in the columns `order`."""
    xp = array_namespace(X)
    unit = order[:, None] == xp.arange(X.shape[1], device=device_of(X))[None, :]
    chosen = xp.any(unit, axis=0)[None, :]
    return xp.where(chosen, xp.astype(unit, A.dtype), xp.astype(X, A.dtype))


def measured(A: LinearMap, columns: Any, X: Any, key: Key) -> Error:
    """The error of ``columns @ X`` from 20 Gaussian probes of A, one pass; the probes are those of `project`."""
    xp = A.xp
    G = A.gaussian(key.fold("probe"), PROBES)
    Y = A.matmul(G)
    rest = squared(Y - block_matmul(columns, xp.matmul(X, G)), xp) / PROBES
    whole = A.frobenius_squared() if A.knows_norm else squared(Y, xp) / PROBES
    if not math.isfinite(rest + whole):
        raise NonfiniteError("a matrix holds NaN or infinity")
    return told_error(rest, whole, True, A)


def told(error: Error) -> dict[str, Any]:
    """The fields of a result that tell its error."""
    return {
        "error": error.value, "error_bound": error.bound, "confidence": error.confidence, "error_kind": error.kind,
        "norm": error.norm,
    }  # fmt: skip


def _nothing(A: LinearMap) -> tuple[Any, Any, Any, Error, Status]:
    """The decomposition of rank 0 of a matrix with NaN or infinity."""
    xp, (m, n) = A.xp, A.shape
    columns, X = (xp.zeros(shape, dtype=A.dtype, device=A.device) for shape in ((m, 0), (0, n)))
    order = xp.zeros((0,), dtype=xp.int64, device=A.device)
    return order, columns, X, Error(math.nan, math.inf, 1.0, "none", math.nan), Status.NONFINITE


# --- the other side ---------------------------------------------------------------------------------------------------


def transposed(A: Any, what: str) -> Any:
    """The plain transpose of a matrix of any kind but row blocks."""
    if isinstance(A, RowBlocks) or hasattr(A, "__next__"):
        raise TypeError(f"A must have columns that can be read for {what}, got {type(A).__name__}")
    if is_linear_operator(A):
        return A.T
    A = as_matrix(A)
    return A.T if is_sparse(A) else A.mT


def conjugate_of(M: Any) -> Any:
    """The complex conjugate of a dense or sparse panel."""
    return M.conj() if is_sparse(M) else conjugated(M)
