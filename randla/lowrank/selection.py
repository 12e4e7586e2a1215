"""Which columns of a matrix stand for all of them: pivots of sketches, of singular vectors, and by lottery."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..diagnostics import CONFIDENCE, PROBES, probe_factor
from ..linear_maps import BlocksMap, LinearMap, OperatorMap, as_linear_map
from ..operators import SparseSign
from .krylov import floor_squared
from .orthonormal import NonfiniteError, adjoint, core_dtype, orthonormalize
from .pivoting import (
    Pivoted,
    column_squares,
    dense,
    lu_pivots,
    pivoted_qr,
    pivoted_qr_of_map,
    proportional,
    random_qr,
    sample_distinct,
    take_columns,
    thin_qr,
)
from .results import ON_FAILURE
from .svd import svd

#: Names of the selections, the default first.
METHODS = (
    "sketch-qr", "qr", "sketch-lu", "deim", "leverage", "arp", "rpqr", "rbrp", "column-norm", "uniform",
)  # fmt: skip

#: Selections that read the matrix itself, and not only products with it.
_STORED = ("qr", "rpqr", "rbrp", "column-norm")

#: Rows of the sketch for each pivot, and at least so many more.
_ROWS, _MORE_ROWS = 2, 10

_NONZEROS = 8  # in each column of the sparse sign sketch; its leading half, which pivots may come from, has 4

#: Rows of the first sketch that guesses the rank of a tolerance; it is doubled while its half is not enough.
_FIRST_SKETCH = 128

#: How much a rank that turned out too small grows.
_GROWTH = 1.3


@dataclass(frozen=True, repr=False)
class ColumnSelection(Result):
    """Columns that stand for all of a matrix; iterates as ``(indices,)``.

    Attributes
    ----------
    indices : int64 array, shape (rank,)
        The columns, most important first; fewer than asked for where the rest of A is rounding.
    rank : int
    method : str
    error : float
        Estimate of ``||A - P A||_F / ||A||_F`` for the projector P onto the columns; NaN where nothing is known.
    error_bound : float
        Holds with probability `confidence` at least; NaN where none is known.
    confidence : float
        1.0 where the error is computed exactly (up to rounding).
    error_kind : str
        "exact" and "sketched" where a tolerance was given, "indicator" where only the sketch was looked at, or "none".
    norm : float
        ``||A||_F``; NaN where it is not known.
    n_passes, n_matvecs : int
        Reads of A, and columns multiplied with A or its adjoint.
    status : Status
    """

    indices: Any
    rank: int
    method: str
    error: float
    error_bound: float
    confidence: float
    error_kind: str
    norm: float
    n_passes: int
    n_matvecs: int
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("indices",)


def select_columns(
    A: Any, rank: int | None = None, *, tol: float | None = None, method: str = "sketch-qr",
    sketch_size: int | None = None, max_rank: int | None = None, rng: Any = None, on_failure: str = "warn",
) -> ColumnSelection:  # fmt: skip
    """Choose columns of A whose span is near that of all, for a rank or for a tolerance.

    The indices alone: `interpolative` adds the coefficients that rebuild A from its columns, `cur` rows as well.  The
    rows of A are chosen by ``select_columns(A.T, ...)``.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Matrix of any array API namespace; it is not changed.
    rank : int, 0 <= rank <= min(m, n)
        Number of columns.  Give either `rank` or `tol`.
    tol : float, tol > 0
        Wanted ``||A - P A||_F <= tol ||A||_F`` for the projector P onto the chosen columns; costs one product of A with
        `rank` vectors more.
    method : str, default "sketch-qr"
        One of the following, with the cost beyond a read of A.

        ============= =================================================================================================
        "sketch-qr"   pivoted QR of a sparse sign sketch of ``2 rank + 10`` rows: ``2 rank**2 n`` multiplications
        "sketch-lu"   LU with partial pivoting of a sketch of `rank` rows: less, and larger errors
        "qr"          pivoted QR of A itself, `rank` passes; the customary one, and hardly better
        "deim"        LU with partial pivoting of the leading right singular vectors, by `randla.svd`
        "leverage"    sampled by the squared entries of those
        "arp"         sampled from a basis of the row space of a sketch, each draw projected out before the next
        "rpqr"        sampled by squared residual norms, the exact distribution in blocks: about 10 passes
        "rbrp"        the same with a greedy choice within each block: fewer passes
        "column-norm" sampled by squared norms
        "uniform"     sampled blindly: does not read A
        ============= =================================================================================================
    sketch_size : int, sketch_size >= rank, default 2 rank + 10
        Rows of the sketch of "sketch-qr".
    max_rank : int, default min(m, n)
        Largest number of columns that a tolerance may lead to.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches and lotteries; equal keys give equal columns.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    ColumnSelection
        ``indices`` (rank,) with error, costs and status.

    Raises
    ------
    ValueError
        If neither or both of `rank` and `tol` are given, or a parameter is out of range.
    TypeError
        If A is not numeric, can be read only once, or is known by products only where `method` needs entries.

    Notes
    -----
    Proved: pivots of adaptive randomized pivoting from a basis Q of the row space rebuild A with an expected squared
    error of ``(k + 1) ||A - A Q Q^*||_F**2`` [1]_; greedy pivots only within factors of ``2**k``, which do not occur.
    Measured, error over that of the best rank-24 approximation, 400 x 400 kernel ``1/|x - y|`` between two squares: the
    table in ``docs/cur.md``.

    "indicator" is the residual of the sketch, raised by what its pivots have fitted of it, ``sqrt(l / (l - rank))``.

    References
    ----------
    .. [1] Cortinovis and Kressner, "Adaptive randomized pivoting for column subset selection, DEIM, and low-rank
       approximation", arXiv:2412.13992.
    .. [2] Dong and Martinsson, "Simpler is better: a comparative study of randomized algorithms for computing the CUR
       decomposition", arXiv:2104.05877.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.selection import select_columns
    >>> A = np.vander(np.linspace(0, 1, 200), 30)
    >>> found = select_columns(A, tol=1e-3, rng=0)
    >>> found.rank, found.error <= 1e-3
    (8, True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    A = as_linear_map(A)
    plan = selection_plan(A, rank, tol, method=method, sketch_size=sketch_size, max_rank=max_rank)
    key = as_key(rng).fold("selection")
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status, not in warnings
            result = _selected(A, plan, key)
    except NonfiniteError:
        nothing = A.xp.zeros((0,), dtype=A.xp.int64, device=A.device)
        result = _told(A, plan, nothing, Error(math.nan, math.inf, 1.0, "none", math.nan), Status.NONFINITE)
    return warn_or_raise(result, on_failure, what="select_columns")


def _selected(A: LinearMap, plan: SelectionPlan, key: Key) -> ColumnSelection:
    if plan.tol is not None:
        found, error, status = to_tolerance(A, plan, key, lambda k, step: pick(A, plan, k, key.fold(step)))
        return _told(A, plan, found.order, error, status)
    picks = pick(A, plan, plan.rank, key)
    error = Error(math.nan, math.nan, math.nan, "none", _known_norm(A))
    if picks.pivoted is not None and picks.sketch is not None:
        share = indicated(picks.pivoted, picks.sketch.shape[0], A.shape[0])[len(picks.pivoted.squares) - 1]
        error = replace(error, value=math.sqrt(share), kind="indicator")
    return _told(A, plan, picks.order, error, Status.CONVERGED)


def _told(A: LinearMap, plan: SelectionPlan, order: Any, error: Error, status: Status) -> ColumnSelection:
    return ColumnSelection(
        order, int(order.shape[0]), plan.method, error.value, error.bound, error.confidence, error.kind, error.norm,
        A.n_passes, A.n_matvecs, status,
    )  # fmt: skip


def _known_norm(A: LinearMap) -> float:
    return math.sqrt(A._squares) if A.knows_norm and A._squares is not None else math.nan


# --- parameters -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SelectionPlan:
    """The checked parameters of one selection."""

    rank: int
    tol: float | None
    method: str
    sketch_size: int | None
    max_rank: int


def selection_plan(
    A: LinearMap, rank: Any, tol: Any, *, method: Any, sketch_size: Any, max_rank: Any, name: str = "method"
) -> SelectionPlan:
    """Check the parameters of a selection of columns of A."""
    check_choice(method, name, METHODS)
    if (rank is None) == (tol is None):
        given = "neither" if rank is None else "both"
        raise ValueError(f"exactly one of rank and tol must be given, got {given}; pass rank=k or tol=relative_error")
    if method in _STORED and isinstance(A, (OperatorMap, BlocksMap)):
        kind = "a linear operator" if isinstance(A, OperatorMap) else "row blocks"
        raise TypeError(f'A must be an array or a sparse matrix for {name}="{method}", got {kind}; use "sketch-qr"')
    least = min(A.shape)
    if rank is None:
        tol = check_real(tol, "tol", low=0.0, closed="neither", remedy="it is relative to the norm of A")
        cap = least if max_rank is None else check_integer(max_rank, "max_rank", low=0, high=least)
        rank = 0
    else:
        rank = cap = check_integer(rank, "rank", low=0, high=least, remedy=f"A has shape {A.shape}")
        if max_rank is not None:
            raise ValueError(
                f"max_rank must be None where rank is given, got {max_rank}; it limits the search for a tol"
            )
    if sketch_size is not None:
        sketch_size = check_integer(sketch_size, "sketch_size", low=max(rank, 1))
    return SelectionPlan(rank, tol, method, sketch_size, cap)


# --- the selections ---------------------------------------------------------------------------------------------------


class Picks(NamedTuple):
    """Chosen columns, and what choosing them has left: a sketch, its pivoted QR, coefficients of all columns."""

    order: Any
    sketch: Any = None
    pivoted: Pivoted | None = None
    coefficients: Any = None


def pick(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, *, n_rows: int | None = None) -> Picks:
    """`rank` columns by the method of the plan; a sketch that it makes has `n_rows` rows at least."""
    return _PICKERS[plan.method](A, plan, rank, key, n_rows or 0)


def _by_sketched_qr(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:
    size = max(plan.sketch_size or default_rows(rank), rank)
    M = sketched_rows(A, max(size, n_rows), key.fold("sketch"))
    # the bands of a sparse sign sketch are sketches themselves, so its leading rows serve the pivots
    found = pivoted_qr(M[:size, :] if M.shape[0] < A.shape[0] else M, rank)
    return Picks(found.order, M, found if M.shape[0] <= size or M.shape[0] == A.shape[0] else None)


def _by_sketched_lu(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    M = sketched_rows(A, max(rank, n_rows), key.fold("sketch"))
    order, coefficients = lu_pivots(M[:rank, :].mT)
    return Picks(order, M, coefficients=coefficients if M.shape[0] == rank else None)


def _by_qr(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    found = pivoted_qr_of_map(A, rank)
    return Picks(found.order, None, found)


def _by_deim(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    return Picks(from_vectors(right_vectors(A, rank, key), "deim", key))


def _by_leverage(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    return Picks(from_vectors(right_vectors(A, rank, key), "leverage", key))


def _by_arp(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:
    xp = A.xp
    M = sketched_rows(A, max(rank, n_rows), key.fold("sketch"))
    top = xp.max(xp.abs(M)) if 0 not in M.shape else 0.0
    Q = orthonormalize(adjoint(M[:rank, :])).Q if float(top) > 0.0 else adjoint(M)[:, :0]
    found = pivoted_qr(adjoint(Q), Q.shape[1], proportional(key.fold("lottery"), rank))
    # W = Q Q[S]^-1 rebuilds all columns from the sampled ones: the coefficients that the theorem speaks of
    inverse = xp.linalg.solve(xp.take(found.triangle, found.order, axis=1), found.triangle)
    return Picks(found.order, M, coefficients=inverse if plan.method == "arp" and n_rows == 0 else None)


def _by_random_qr(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    return Picks(random_qr(A, rank, key.fold("lottery"), robust=plan.method == "rbrp"))


def _by_norm(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    A._count(0)
    return Picks(sample_distinct(column_squares(A), rank, key.fold("lottery")))


def _blindly(A: LinearMap, plan: SelectionPlan, rank: int, key: Key, n_rows: int) -> Picks:  # noqa: ARG001
    ones = A.xp.ones((A.shape[1],), dtype=A.xp.float64, device=A.device)
    return Picks(sample_distinct(ones, rank, key.fold("lottery")))


_PICKERS: dict[str, Callable[[LinearMap, SelectionPlan, int, Key, int], Picks]] = {
    "sketch-qr": _by_sketched_qr,
    "sketch-lu": _by_sketched_lu,
    "qr": _by_qr,
    "deim": _by_deim,
    "leverage": _by_leverage,
    "arp": _by_arp,
    "rpqr": _by_random_qr,
    "rbrp": _by_random_qr,
    "column-norm": _by_norm,
    "uniform": _blindly,
}


def default_rows(rank: int) -> int:
    """Rows of the sketch that `rank` pivots are chosen from."""
    return _ROWS * rank + _MORE_ROWS


def sketched_rows(A: LinearMap, size: int, key: Key) -> Any:
    """A sparse sign sketch of `size` rows in double precision; A itself where it has no more."""
    xp = A.xp
    if A.shape[0] > size:
        S = SparseSign(max(size, 1), A.shape[0], rng=key, nnz=max(1, min(_NONZEROS, size)))
        M = A.sketch(S)
    else:
        M = adjoint(A.rmatmul(xp.eye(A.shape[0], dtype=A.dtype, device=A.device)))
    M = xp.astype(dense(M), core_dtype(A.dtype, xp), copy=False)
    if not bool(xp.all(xp.isfinite(M))):
        raise NonfiniteError("a sketch holds NaN or infinity")
    return M


def right_vectors(A: LinearMap, rank: int, key: Key) -> Any:
    """The leading right singular vectors (n, rank)."""
    return singular_vectors(A, rank, key)[1]


def from_vectors(V: Any, method: str, key: Key) -> Any:
    """The rows of singular vectors V (n, rank) that "deim" or "leverage" chooses."""
    if method == "deim":
        return lu_pivots(V)[0]
    xp = array_namespace(V)
    return sample_distinct(xp.sum(xp.astype(xp.abs(V) ** 2, xp.float64), axis=1), V.shape[1], key.fold("lottery"))


def singular_vectors(A: LinearMap, rank: int, key: Key) -> tuple[Any, Any]:
    """The leading left and right singular vectors, (m, rank) and (n, rank)."""
    found = svd(A, rank, rng=key.fold("svd"), on_failure="ignore")
    if found.status is Status.NONFINITE:
        raise NonfiniteError("singular vectors hold NaN or infinity")
    return found.U, adjoint(found.Vh)


def indicated(found: Pivoted, n_rows: int, height: int) -> list[float]:
    """Squared relative error after each pivot as a sketch of `n_rows` rows sees it, its fit taken into account."""
    whole = found.squares[0]
    fitted = 0.0 if n_rows >= height else 1.0
    return [
        (square / (1.0 - fitted * j / n_rows) if j < n_rows else square) / whole if whole > 0.0 else 0.0
        for j, square in enumerate(found.squares)
    ]


# --- projection onto chosen columns, and its error --------------------------------------------------------------------


@dataclass(frozen=True)
class Error:
    """A relative error in the Frobenius norm, as results tell it."""

    value: float
    bound: float
    confidence: float
    kind: str
    norm: float


class Projection(NamedTuple):
    """``A[:, order] = Q turn R`` and ``B = (Q turn)^* A``, with the error of every prefix of the columns.

    `tails` holds the squared errors of 0, 1, ... columns, from the difference of norms or (`probed`) from probes.
    """

    order: Any
    columns: Any  # as A stores them
    Q: Any
    turn: Any
    R: Any
    B: Any
    tails: tuple[float, ...]
    whole: float
    probed: bool


def project(A: LinearMap, order: Any, key: Key, *, target: float = 0.0) -> Projection:
    """Project A onto its columns `order`: one product of A with that many vectors, and 20 more for a tiny error.

    Columns that depend on earlier ones are dropped.  The difference of norms cannot see a squared error below
    `floor_squared`; where the target lies there, or the error turns out to, probes take its place.
    """
    xp = A.xp
    order, columns, (Q, turn, R) = independent(order, lambda chosen: take_columns(A, chosen))
    B = xp.matmul(adjoint(xp.astype(turn, A.dtype)), adjoint(A.rmatmul(Q)))
    caught = np.cumsum([0.0, *_row_squares(B, xp)])
    if A.knows_norm:
        whole = A.frobenius_squared()
        if not math.isfinite(whole):
            raise NonfiniteError("a matrix holds NaN or infinity")
        tails = [max(whole - float(part), 0.0) for part in caught]
        low = floor_squared(A) * whole
        if (target**2 * whole >= 4.0 * low) if target > 0.0 else (tails[-1] > low):
            return Projection(order, columns, Q, turn, R, B, tuple(tails), whole, False)
    tails = _probed_tails(A, xp.matmul(Q, xp.astype(turn, A.dtype)), key)
    whole = A.frobenius_squared() if A.knows_norm else float(caught[-1]) + tails[-1]
    return Projection(order, columns, Q, turn, R, B, tuple(tails), whole, True)


def independent(order: Any, take: Callable[[Any], Any]) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """The numbers in `order` whose columns, ``take(order)``, do not depend on earlier ones, with their `thin_qr`."""
    while True:
        columns = take(order)
        Q, turn, R = thin_qr(dense(columns))
        if Q.shape[1] == order.shape[0]:
            return order, columns, (Q, turn, R)
        order = array_namespace(R).take(order, pivoted_qr(R, Q.shape[1]).order, axis=0)


def _row_squares(B: Any, xp: Any) -> list[float]:
    squares = xp.sum(xp.astype(xp.abs(B), xp.float64) ** 2, axis=1)
    return [float(square) for square in squares]


def _probed_tails(A: LinearMap, Q: Any, key: Key) -> list[float]:
    """Squared errors of all prefixes of the basis from Gaussian probes, one direction projected out after the other."""
    xp = A.xp
    Y = xp.astype(A.matmul(A.gaussian(key.fold("probe"), PROBES)), core_dtype(A.dtype, xp))
    Q = xp.astype(Q, Y.dtype)
    tails = [float(xp.sum(xp.abs(Y) ** 2)) / PROBES]
    for j in range(Q.shape[1]):
        q = Q[:, j : j + 1]
        Y = Y - xp.matmul(q, xp.matmul(adjoint(q), Y))
        tails.append(float(xp.sum(xp.abs(Y) ** 2)) / PROBES)
    return tails


def told_error(squared_error: float, whole: float, probed: bool, A: LinearMap) -> Error:
    """A squared error and a squared norm as a result tells them."""
    value = math.sqrt(squared_error / whole) if whole > 0.0 else 0.0
    if probed:
        return Error(value, value * probe_factor(), CONFIDENCE, "sketched", math.sqrt(whole))
    bound = math.sqrt(value**2 + floor_squared(A)) if whole > 0.0 else 0.0
    return Error(value, bound, 1.0, "exact", math.sqrt(whole))


def to_tolerance(
    A: LinearMap, plan: SelectionPlan, key: Key, choose: Callable[[int, int], Picks]
) -> tuple[Projection, Error, Status]:
    """The least number of columns of a selection that the tolerance needs, grown until it is met.

    ``choose(k, step)`` gives k columns; the first k comes from a sketch.  Prefixes of a selection are judged by their
    own errors, so what was chosen beyond the need is cut off.
    """
    tol = plan.tol or 0.0
    k, step = guess_rank(A, tol, plan.max_rank, key.fold("guess")), 0
    while True:
        found = project(A, choose(k, step).order, key, target=tol)
        factor = probe_factor() ** 2 if found.probed else 1.0
        within = [r for r, tail in enumerate(found.tails) if factor * tail <= tol**2 * found.whole]
        if within:
            found = cut(found, within[0])
            return found, told_error(found.tails[-1], found.whole, found.probed, A), Status.CONVERGED
        if k >= plan.max_rank or found.order.shape[0] < k:
            exhausted = k >= min(A.shape) or found.order.shape[0] < k
            status = Status.STAGNATED if exhausted else Status.MAX_ITER
            return found, told_error(found.tails[-1], found.whole, found.probed, A), status
        k, step = min(int(_GROWTH * k) + 2, plan.max_rank), step + 1


def guess_rank(A: LinearMap, tol: float, max_rank: int, key: Key) -> int:
    """How many columns a tolerance will need, from sketches alone."""
    size = _FIRST_SKETCH
    while True:
        M = sketched_rows(A, size, key.fold(size))
        whole = M.shape[0] == A.shape[0]
        found = pivoted_qr(M, min(max_rank, M.shape[0] if whole else size // 2), floor=0.4 * tol**2)
        shares = indicated(found, M.shape[0], A.shape[0])
        within = [j for j, share in enumerate(shares) if share <= tol**2]
        if within or whole or size // 2 >= max_rank or len(found.squares) <= size // 2:
            needed = within[0] if within else len(shares) - 1
            return min(needed + 1 + needed // 20, max_rank)
        size *= 2


def cut(found: Projection, r: int) -> Projection:
    """The projection onto the first r columns."""
    if r == found.order.shape[0]:
        return found
    xp = array_namespace(found.R)
    Q = xp.matmul(found.Q, xp.astype(found.turn[:, :r], found.Q.dtype))
    eye = xp.eye(r, dtype=found.R.dtype, device=found.R.device)
    return Projection(
        found.order[:r], found.columns[:, :r], Q, eye, found.R[:r, :r], found.B[:r, :], found.tails[: r + 1],
        found.whole, found.probed,
    )  # fmt: skip
