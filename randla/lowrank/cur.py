"""CUR decompositions: a matrix through some of its own columns and rows, with a core that is never ill conditioned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._arrays import eps, is_sparse
from .._checks import check_choice
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import PROBES
from ..linear_maps import BlocksMap, LinearMap, as_linear_map, squared
from ..operators import SparseSign
from .interpolative import conjugate_of, told, transposed
from .krylov import floor_squared
from .orthonormal import NonfiniteError, adjoint, core_dtype
from .pivoting import dense, pivoted_qr, take_columns
from .projectors import TwoSidedFactorization
from .results import ON_FAILURE
from .selection import (
    Error,
    SelectionPlan,
    default_rows,
    from_vectors,
    guess_rank,
    independent,
    pick,
    selection_plan,
    singular_vectors,
    told_error,
)

#: How the core may be found.
CORES = ("optimal", "cross", "sketched")

_GROWTH = 1.3  # of a rank that turned out too small for its tolerance

_ROUNDINGS = 10.0  # units of rounding below which a block of entries counts as singular

_SKETCH_ROWS = 2  # rows of the sketches of a core, as a multiple of those that pivots are chosen from


@dataclass(frozen=True, repr=False)
class CURResult(TwoSidedFactorization):
    """CUR decomposition ``A ~ C @ core @ R``; iterates as ``C, core, R``.

    C and R are columns and rows of A, sparse where A is.  The core is kept as ``P^-1 G T^-*`` with triangular divisors
    and applied by solves; the attribute `core` multiplies it out, which for an ill-conditioned C or R loses digits
    that the products of this result keep.

    Attributes
    ----------
    column_indices, row_indices : int64 arrays, shape (rank,)
        Their numbers, most important first; fewer than asked for where the rest of A is rounding.
    C : array or CSR matrix, shape (m, rank)
    R : array or CSR matrix, shape (rank, n)
    selection : str
        How columns and rows were chosen.
    core_kind : str
        "optimal", "cross" or "sketched".
    F, G, H, left_divisor, right_divisor : arrays
        C, the middle of the core, ``R^*``, P and T.
    error, error_bound, confidence, error_kind, error_norm, norm, n_passes, n_matvecs, status
        As in `TwoSidedFactorization`.
    """

    column_indices: Any = None
    row_indices: Any = None
    selection: str = "sketch-qr"
    core_kind: str = "optimal"

    _factors: ClassVar[tuple[str, ...]] = ("C", "core", "R")

    @property
    def C(self) -> Any:
        """The chosen columns, shape (m, rank)."""
        return self.F

    @property
    def R(self) -> Any:
        """The chosen rows, shape (rank, n)."""
        return conjugate_of(self.H.T.tocsr() if is_sparse(self.H) else self.H.mT)


def cur(
    A: Any, rank: int | None = None, tol: float | None = None, *, selection: str = "sketch-qr", core: str = "optimal",
    rows_from: str = "columns", sketch_size: int | None = None, max_rank: int | None = None, rng: Any = None,
    on_failure: str = "warn",
) -> CURResult:  # fmt: skip
    """Approximate a matrix through some of its columns and rows, for a rank or for a tolerance.

    ``A ~ C @ core @ R``.  For readers: the columns and rows are data and can be looked at.  For memory: a sparse A has
    sparse C and R, where singular vectors are dense.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Matrix of any array API namespace; it is not changed, and a sparse one is not densified beyond (m + n, rank).
    rank : int, 0 <= rank <= min(m, n)
        Number of columns and of rows.  Give either `rank` or `tol`.
    tol : float, tol > 0
        Wanted ``||A - C core R||_F <= tol ||A||_F``.
    selection : str, default "sketch-qr"
        How columns and rows are chosen; the methods of `select_columns`.
    core : {"optimal", "cross", "sketched"}, default "optimal"
        "optimal" is ``C^+ A R^+``, the best for these columns and rows: one product of A with `rank` vectors.  "cross"
        is the inverse of the block where they meet: no further read of A, but an error 2 to 3 times larger.
        "sketched" is the best for two sketches of A: one read, and about 1.2 times the error.
    rows_from : {"columns", "matrix"}, default "columns"
        Choose the rows that rebuild C by pivoted QR, or rows of A by `selection`.  The first costs no read, has about
        the error of the second, and lets columns and rows meet in a regular block, which a "cross" needs.
    sketch_size : int, sketch_size >= rank, default 2 rank + 10
        Rows of the sketch of "sketch-qr".
    max_rank : int, default min(m, n)
        Largest rank that a tolerance may lead to.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches; equal keys give equal columns and rows.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    CURResult
        Iterates as ``C, core, R``; with the numbers of columns and rows, products, error, costs and status.

    Raises
    ------
    ValueError
        If neither or both of `rank` and `tol` are given, or a parameter is out of range.
    TypeError
        If A is not numeric, can be read only once, or has no rows to choose from (row blocks with
        ``rows_from="matrix"``).

    Notes
    -----
    With ``C = Q P`` and ``R^* = V T`` the optimal core is ``P^-1 (Q^* A V) T^-*``.  Only the middle, whose entries are
    at most ||A||, is formed; a core that is multiplied out has entries of the order of ``1 / sigma_rank`` and costs up
    to half of the digits (400 x 400 kernel, rank 43: 2e-12 against 4e-5).

    Squared error: ``||A||_F**2 - ||Q^* A V||_F**2``, exact; below about 1e-7 ||A|| (1e-3 in single precision), and for
    the other cores, from 20 Gaussian probes.  It is at most that of the projection onto the columns plus that onto the
    rows, each within ``(k + 1)`` of the best squared error in expectation for "arp".

    References
    ----------
    .. [1] Voronin and Martinsson, "Efficient algorithms for CUR and interpolative matrix decompositions",
       arXiv:1412.8447.
    .. [2] Sorensen and Embree, "A DEIM induced CUR factorization", arXiv:1407.5516.
    .. [3] Park and Nakatsukasa, "Accuracy and stability of CUR decompositions with oversampling", arXiv:2405.06375.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.cur import cur
    >>> A = np.vander(np.linspace(0, 1, 200), 30)
    >>> result = cur(A, tol=1e-3, rng=0)
    >>> result.C.shape, result.R.shape, result.error <= 1e-3
    ((200, 8), (8, 30), True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(core, "core", CORES)
    check_choice(rows_from, "rows_from", ("matrix", "columns"))
    B = None if rows_from == "columns" else as_linear_map(transposed(A, 'rows_from="matrix"; use "columns"'))
    A = as_linear_map(A)
    plan = selection_plan(A, rank, tol, method=selection, sketch_size=sketch_size, max_rank=max_rank, name="selection")
    task = _Task(A, B, plan, core, as_key(rng).fold("cur"))
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            result = task.to_rank(plan.rank, task.key)[0] if plan.tol is None else task.to_tolerance(plan.tol)
    except NonfiniteError:
        result = task.nothing()
    return warn_or_raise(result, on_failure, what="cur")


class _Middle(NamedTuple):
    """A core ``left^-1 G right^-*`` for the columns and rows that it is for."""

    columns: Any
    C: Any
    rows: Any
    H: Any
    left: Any
    G: Any
    right: Any


@dataclass(frozen=True)
class _Task:
    """A matrix, its transpose where rows are chosen from it, and what is wanted."""

    A: LinearMap
    B: LinearMap | None
    plan: SelectionPlan
    core: str
    key: Key

    def to_rank(self, k: int, key: Key, target: float = 0.0) -> tuple[CURResult, _Middle, bool]:
        """The decomposition of rank k, its parts, and whether its error is a difference of norms."""
        middle = _MIDDLES[self.core](self, *self.chosen(k, key), key)
        result = self.as_result(middle, Status.CONVERGED)
        if self.core == "optimal" and self.A.knows_norm:
            whole, low = self.A.frobenius_squared(), floor_squared(self.A)
            rest = max(whole - squared(middle.G, self.A.xp), 0.0)
            if not math.isfinite(whole):
                raise NonfiniteError("a matrix holds NaN or infinity")
            if (target**2 >= 4.0 * low) if target > 0.0 else rest > low * whole:
                return replace(result, **told(told_error(rest, whole, False, self.A)), **self.costs()), middle, True
        return replace(result, **told(self.measured(result, key.fold("error"))), **self.costs()), middle, False

    def to_tolerance(self, tol: float) -> CURResult:
        """The decomposition of least rank of this selection whose error is known to be below the tolerance."""
        # the errors of columns and rows add up
        k = guess_rank(self.A, tol / math.sqrt(2.0), self.plan.max_rank, self.key.fold("guess"))
        step = 0
        while True:
            result, middle, exact = self.to_rank(k, self.key.fold(step), tol)
            if exact and result.error <= tol:
                return self.shortest(result, middle, tol)
            if not exact and result.error_bound <= tol:
                return result
            short = result.rank < k
            if k >= self.plan.max_rank or short:
                exhausted = k >= min(self.A.shape) or short
                return replace(result, status=Status.STAGNATED if exhausted else Status.MAX_ITER)
            k, step = min(int(_GROWTH * k) + 2, self.plan.max_rank), step + 1

    def shortest(self, result: CURResult, middle: _Middle, tol: float) -> CURResult:
        """The least leading part of the columns and rows whose exact error is below the tolerance."""
        xp, G = self.A.xp, middle.G
        whole = result.norm**2
        squares = xp.abs(G) ** 2
        for r in range(result.rank):
            rest = max(whole - float(xp.sum(squares[:r, :r])), 0.0)
            if rest <= tol**2 * whole:
                part = _Middle(
                    middle.columns[:r], middle.C[:, :r], middle.rows[:r], middle.H[:, :r], middle.left[:r, :r],
                    G[:r, :r], middle.right[:r, :r],
                )  # fmt: skip
                cut = self.as_result(part, Status.CONVERGED)
                return replace(cut, **told(told_error(rest, whole, False, self.A)), **self.costs())
        return result

    def chosen(self, k: int, key: Key) -> tuple[Any, Any]:
        """Columns and rows; None for rows that are still to be chosen from the columns."""
        plan, A, B = self.plan, self.A, self.B
        if B is not None and plan.method in ("deim", "leverage"):
            U, V = singular_vectors(A, k, key)
            return from_vectors(V, plan.method, key.fold("columns")), from_vectors(U, plan.method, key.fold("rows"))
        columns = pick(A, plan, k, key.fold("columns")).order
        return columns, None if B is None else pick(B, plan, k, key.fold("rows")).order

    def panels(self, columns: Any, rows: Any) -> tuple[Any, Any, Any, Any]:
        """Columns, C, rows and ``R^*``, sparse where A is."""
        C = take_columns(self.A, columns)
        rows = pivoted_qr(dense(C).mT, columns.shape[0]).order if rows is None else rows
        return columns, C, rows, self.adjoint_rows(rows)

    def adjoint_rows(self, rows: Any) -> Any:
        """``A[rows, :]^*``, shape (n, k)."""
        if self.B is not None:
            return conjugate_of(take_columns(self.B, rows))
        A: Any = self.A
        if isinstance(A, BlocksMap):
            return _rows_of_blocks(A, rows)
        return conjugate_of(take_columns(as_linear_map(transposed(A.A, "rows")), rows))

    def measured(self, result: CURResult, key: Key) -> Error:
        """The error of a result from 20 Gaussian probes of A, one pass."""
        A, xp = self.A, self.A.xp
        G = A.gaussian(key, PROBES)
        Y = A.matmul(G)
        rest = squared(Y - result.matmul(G), xp) / PROBES
        whole = A.frobenius_squared() if A.knows_norm else squared(Y, xp) / PROBES
        if not math.isfinite(rest + whole):
            raise NonfiniteError("a matrix holds NaN or infinity")
        return told_error(rest, whole, True, A)

    def costs(self) -> dict[str, Any]:
        """Passes and products so far, on both sides."""
        maps = [M for M in (self.A, self.B) if M is not None]
        return {"n_passes": sum(M.n_passes for M in maps), "n_matvecs": sum(M.n_matvecs for M in maps)}

    def as_result(self, middle: _Middle, status: Status) -> CURResult:
        return CURResult(
            middle.C, middle.G, middle.H, middle.left, middle.right, status=status, column_indices=middle.columns,
            row_indices=middle.rows, selection=self.plan.method, core_kind=self.core,
        )  # fmt: skip

    def nothing(self) -> CURResult:
        """The decomposition of rank 0 of a matrix with NaN or infinity."""
        A, xp = self.A, self.A.xp
        none = xp.zeros((0,), dtype=xp.int64, device=A.device)
        C, G, H = (xp.zeros(s, dtype=A.dtype, device=A.device) for s in ((A.shape[0], 0), (0, 0), (A.shape[1], 0)))
        error = told(Error(math.nan, math.inf, 1.0, "none", math.nan))
        result = self.as_result(_Middle(none, C, none, H, None, G, None), Status.NONFINITE)
        return replace(result, **error, **self.costs())


# --- cores ------------------------------------------------------------------------------------------------------------


def _optimal(task: _Task, columns: Any, rows: Any, key: Key) -> _Middle:  # noqa: ARG001 - one signature for all
    """``P^-1 (Q^* A V) T^-*`` for ``C = Q P`` and ``R^* = V T``."""
    A, xp = task.A, task.A.xp
    columns, C, (Q, left_turn, P) = independent(columns, lambda chosen: take_columns(A, chosen))
    rows = pivoted_qr(dense(C).mT, columns.shape[0]).order if rows is None else rows
    rows, H, (V, right_turn, T) = independent(rows, task.adjoint_rows)
    W = A.rmatmul(Q)
    G = xp.astype(xp.matmul(adjoint(W), V), core_dtype(A.dtype, xp))
    G = xp.matmul(adjoint(left_turn), xp.matmul(G, right_turn))
    return _Middle(columns, C, rows, H, P, G, T)


def _cross(task: _Task, columns: Any, rows: Any, key: Key) -> _Middle:  # noqa: ARG001
    """``A[rows, columns]^-1`` by a QR factorisation, cut to the rows and columns that are independent there."""
    A, xp = task.A, task.A.xp
    columns, C, rows, H = task.panels(columns, rows)
    block = xp.astype(xp.take(dense(C), rows, axis=0), core_dtype(A.dtype, xp))
    floor = (_ROUNDINGS * max(A.shape) * eps(A.dtype)) ** 2
    kept = pivoted_qr(block, columns.shape[0], floor=floor).order
    met = pivoted_qr(xp.take(block, kept, axis=1).mT, kept.shape[0], floor=floor).order
    kept = kept[: met.shape[0]]
    if not kept.shape[0] == columns.shape[0] == rows.shape[0]:
        columns, rows = xp.take(columns, xp.sort(kept), axis=0), xp.take(rows, xp.sort(met), axis=0)
        columns, C, rows, H = task.panels(columns, rows)
        block = xp.astype(xp.take(dense(C), rows, axis=0), core_dtype(A.dtype, xp))
    Q, P = xp.linalg.qr(block)
    return _Middle(columns, C, rows, H, P, adjoint(Q), None)


def _sketched(task: _Task, columns: Any, rows: Any, key: Key) -> _Middle:
    """The core that is optimal for ``S A W^T`` with two sparse sign sketches."""
    A, xp = task.A, task.A.xp
    columns, C, rows, H = task.panels(columns, rows)
    size = _SKETCH_ROWS * default_rows(max(columns.shape[0], rows.shape[0]))
    core = core_dtype(A.dtype, xp)
    S, W = (_sketch(size, n, key.fold(label)) for n, label in zip(A.shape, ("left", "right"), strict=True))
    Z = A.sketch(S) if S is not None else adjoint(A.rmatmul(xp.eye(A.shape[0], dtype=A.dtype, device=A.device)))
    Z = Z if W is None else W.rmatmul(Z)
    columns, C, Q, P = _sketched_basis(columns, C, S, core)
    rows, H, V, T = _sketched_basis(rows, H, W, core)
    G = xp.matmul(adjoint(Q), xp.matmul(xp.astype(dense(Z), core), V))
    return _Middle(columns, C, rows, H, P, G, T)


def _sketch(size: int, n: int, key: Key) -> Any:
    """A sparse sign sketch of vectors of length n, or None where it would be no shorter."""
    return SparseSign(size, n, rng=key, nnz=min(8, size)) if size < n else None


def _sketched_basis(order: Any, panel: Any, S: Any, core: Any) -> tuple[Any, Any, Any, Any]:
    """The columns that are independent in a sketch, and the QR factorisation of their sketch."""
    xp = array_namespace(order)
    Y = xp.astype(dense(panel) if S is None else dense(S.matmul(panel)), core)
    kept = pivoted_qr(Y, order.shape[0]).order
    if kept.shape[0] < order.shape[0]:
        panel = panel[:, kept] if is_sparse(panel) else xp.take(panel, kept, axis=1)
        order, Y = xp.take(order, kept, axis=0), xp.take(Y, kept, axis=1)
    Q, P = xp.linalg.qr(Y)
    return order, panel, Q, P


_MIDDLES = {"optimal": _optimal, "cross": _cross, "sketched": _sketched}


def _rows_of_blocks(A: BlocksMap, rows: Any) -> Any:
    """``A[rows, :]^*`` in one pass over row blocks."""
    xp = A.xp
    A._count(0)
    out = xp.zeros((A.shape[1], rows.shape[0]), dtype=A.dtype, device=A.device)
    for start, B in A._blocks():
        numbers = xp.arange(start, start + B.shape[0], device=A.device)
        unit = xp.astype(numbers[:, None] == rows[None, :], A.dtype)
        out = out + (B.conj().T @ unit if is_sparse(B) else xp.matmul(adjoint(B), unit))
    return out
