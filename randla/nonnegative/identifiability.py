"""Whether a nonnegative factor is sufficiently scattered, so that the factorisation it belongs to is unique."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import is_numpy_namespace
from scipy.optimize import linprog

from .._arrays import as_matrix, is_complex, is_sparse, namespace_of
from .._checks import check_choice, check_real
from .._results import Result
from .scattered import Search, UnboundedError, branch_route, hull_route, scip_route

METHODS = ("auto", "hull", "branch", "scip")
HULL_RANK = 7  # up to this rank the hull of some hundred columns takes less time than the linear programs
HULL_COLUMNS = 500
MERGE = 1e-9  # columns whose entries differ by less are one


class Verdict(NamedTuple):
    """What a threshold for zeros leads to: the threshold, the zeros it leaves, and the answers."""

    threshold: float
    n_zeros: int
    status: str
    value: float


@dataclass(frozen=True, repr=False)
class SSCResult(Result):
    """Whether a factor is sufficiently scattered, with a certificate where it is not.

    Attributes
    ----------
    ssc1 : bool or None
        The cone of the columns contains ``{x >= 0: sum(x) >= sqrt(r - 1) ||x||}``; None if not known.
    ssc2 : bool or None
        Its dual cone touches ``{y: sum(y) >= ||y||}`` along the axes only; None if not known.
    necessary : bool or None
        Each ``e - e_k`` is in the interior of the cone of the columns with a zero in row k, in the space of the other
        rows; None if it could not be decided by `tol`.
    value : float
        Largest ``||y||^2`` that was found over ``H.T y >= 0, sum(y) = 1``: at least 1, and 1 if SSC1 holds.
    bound : float
        Proved to be at or above the maximum of ``||y||^2``; infinity where nothing was proved.
    certificate : array, shape (r,), or None
        A y with ``H.T y >= 0``, ``sum(y) = 1`` that refutes: ``||y|| > 1``, or ``||y|| = 1`` off the axes.
    status : {"proved", "refuted", "unknown"}
        Whether both conditions hold; "unknown" when the time was over.
    method : str
        What decided: "necessary", "hull", "branch" or "scip".
    margin : float
        The least over k of how far inside ``e - e_k`` lies, on a scale from 0 to r - 1; at most 0 where it is not.
    n_columns : int
        Distinct columns that were left after cleaning.
    n_nodes : int
        Vertices that were enumerated, or nodes of the search tree.
    sensitivity : tuple of Verdict
        ``(threshold, n_zeros, status, value)`` for each threshold that was asked for.
    """

    ssc1: bool | None
    ssc2: bool | None
    necessary: bool | None
    value: float
    bound: float
    certificate: Any
    status: str  # type: ignore[assignment]  # the answer, not how an iteration ended
    method: str
    margin: float = math.nan
    n_columns: int = 0
    n_nodes: int = 0
    sensitivity: tuple[Verdict, ...] = ()

    _factors: ClassVar[tuple[str, ...]] = ("ssc1", "ssc2")

    @property
    def converged(self) -> bool:
        """True when the question was decided."""
        return self.status != "unknown"


def check_ssc(
    H: Any, *, method: str = "auto", tol: float = 1e-6, time_limit: float = 60.0,
    thresholds: Sequence[float] = (1e-10, 1e-3),
) -> SSCResult:  # fmt: skip
    """Decide whether the columns of H are sufficiently scattered.

    If they are, ``X = W H`` with W of full rank and of least volume determines W and H up to the order and scale of the
    parts.  The condition holds if and only if the unit vectors are the only maxima of ``||y||^2`` over
    ``H.T y >= 0, sum(y) = 1``, with value 1; that problem is NP-hard in general.  First a necessary condition, by one
    linear program for each row; then all vertices, or a branch and bound.

    Parameters
    ----------
    H : array, or CSR or CSC matrix, shape (r, n)
        Nonnegative factor with the parts as rows, of NumPy or SciPy.
    method : {"auto", "hull", "branch", "scip"}, default "auto"
        "hull": the convex hull of the columns, by Qhull; for small r.  "branch": branch and bound with linear programs
        by HiGHS.  "scip": the same problem for SCIP, if PySCIPOpt is installed.  "auto" takes the hull up to rank 7 and
        500 columns, and else "branch".
    tol : float, 0 < tol < 0.01, default 1e-6
        Values of ``||y||^2`` that differ by less count as equal, 1e-5 at least for "scip".
    time_limit : float, time_limit > 0, default 60.0
        Seconds after which the answer is "unknown", in wall time, for all thresholds together.
    thresholds : sequence of float, default (1e-10, 1e-3)
        Entries at most so large, relative to the largest of a column that sums to one, count as zero.  The answer is
        that for the first; `sensitivity` tells what the others would lead to.

    Returns
    -------
    SSCResult
        ``ssc1`` and ``ssc2``, the status, and a certificate where one was refuted; iterates as ``ssc1, ssc2``.

    Raises
    ------
    ValueError
        If H has negative entries, NaN or infinity, or no column that is not zero, or a parameter is out of range.
    NotImplementedError
        If H is not an array of NumPy or SciPy.
    ImportError
        If SCIP is asked for and PySCIPOpt is not installed.

    Notes
    -----
    Columns are scaled to sum one, small entries set to zero and equal columns merged.  A facet of the hull at distance
    d from its centre gives a vertex of value ``1 / r + 1 / (r d)**2``.  The branch and bound over-estimates squares by
    their secants in a box; neighbourhoods of the unit vectors in which no other point reaches 1 are left out before.

    A result that is proved or refuted is so in double precision and up to `tol`; a certificate can be checked by
    anyone: it satisfies ``H.T y >= 0`` up to rounding, for the columns as they were cleaned.  With the necessary
    condition refuted, `value` can be below the maximum.  Factors that were computed have small entries in place of
    zeros: if the second threshold changes the answer, the first means little.

    References
    ----------
    .. [1] Gillis and Luce, "Checking the sufficiently scattered condition using a global non-convex optimization
       software", IEEE Signal Processing Letters 31, 2024, arXiv:2402.06019.
    .. [2] Huang, Sidiropoulos and Swami, "Non-negative matrix factorization revisited: uniqueness and algorithm for
       symmetric decomposition", IEEE Transactions on Signal Processing 62, 2014.

    Examples
    --------
    >>> import numpy as np, randla
    >>> w = 0.4
    >>> H = np.array([[w, 1, 1, w, 0, 0], [1, w, 0, 0, w, 1], [0, 0, w, 1, 1, w]])
    >>> randla.check_ssc(H).status
    'proved'
    >>> H[H == w] = 0.6
    >>> result = randla.check_ssc(H)
    >>> result.status, round(result.value, 6), bool(result.certificate @ result.certificate > 1)
    ('refuted', 1.204082, True)
    """
    check_choice(method, "method", METHODS)
    tol = check_real(tol, "tol", low=0.0, high=0.01, closed="neither")
    time_limit = check_real(time_limit, "time_limit", low=0.0, closed="neither")
    if not len(thresholds):
        raise ValueError("thresholds must hold at least one number, got none")
    limits = [check_real(t, "thresholds", low=0.0, high=1.0, closed="left") for t in thresholds]
    table = _intake(H)
    if method == "scip" and find_spec("pyscipopt") is None:
        raise ImportError('method="scip" needs PySCIPOpt: install randla[scip], or use method="branch"')
    deadline = time.monotonic() + time_limit
    answers: list[tuple[np.ndarray, SSCResult]] = []
    told = []
    for threshold in limits:
        C = _cleaned(table, threshold)
        same = [answer for other, answer in answers if other.shape == C.shape and np.array_equal(other == 0, C == 0)]
        answer = same[0] if same else _decide(C, method, tol, deadline)
        answers.append((C, answer))
        told.append(Verdict(threshold, int(np.sum(C == 0)), answer.status, answer.value))
    first = answers[0][1]
    return SSCResult(**{**vars(first), "sensitivity": tuple(told)})


def _intake(H: Any) -> np.ndarray:
    """The columns of H that are not zero, scaled to sum one, in double precision."""
    H = as_matrix(H, name="H")
    if is_complex(H.dtype):
        raise TypeError(f"H must be real, got {H.dtype}")
    if not is_numpy_namespace(namespace_of(H)):
        raise NotImplementedError("H must be an array of NumPy or SciPy, whose linear programs are used; move it there")
    table = (H.toarray() if is_sparse(H) else H).astype(np.float64)
    if 0 in table.shape or not np.any(table != 0):
        raise ValueError(f"H must have a column that is not zero, got shape {table.shape} and none")
    if not np.all(np.isfinite(table)):
        raise ValueError("H must be finite, got NaN or infinity")
    if table.min() < 0:
        raise ValueError(f"H must be nonnegative, got {table.min():g}")
    table = table[:, table.max(axis=0) > 0]
    table = table / table.max(axis=0)  # sums of entries near the ends of the range stay in it
    return table / table.sum(axis=0)


def _cleaned(table: np.ndarray, threshold: float) -> np.ndarray:
    """Distinct columns that sum to one, with small entries set to zero."""
    C = np.where(table <= threshold * table.max(axis=0), 0.0, table)
    C = C / C.sum(axis=0)
    _, first = np.unique(np.round(C / MERGE), axis=1, return_index=True)
    return C[:, np.sort(first)]


def _decide(C: np.ndarray, method: str, tol: float, deadline: float) -> SSCResult:
    """The answer for columns that are clean."""
    r, n = C.shape
    necessary, margin, y = _necessary(C, tol, deadline)
    search = Search(C, tol, deadline)
    if y is not None:
        search.note(y)
    told: dict[str, Any] = {"margin": margin, "n_columns": n}
    if necessary is False:
        _improve(search)
        return SSCResult(
            False, False, False, search.value, math.inf, search.point, "refuted", "necessary", **told,
        )  # fmt: skip
    if r == 1:
        return SSCResult(True, True, True, 1.0, 1.0, None, "proved", "necessary", **told)
    if method == "auto":
        method = "hull" if r <= HULL_RANK and n <= HULL_COLUMNS else "branch"
        done = _searched(search, method) or (method == "hull" and _searched(search, "branch"))
    else:
        done = _searched(search, method)
    ssc1 = False if search.exceeded else True if search.bound <= 1 + search.tol else None
    unique = done and search.other_bound <= 1 - search.tol
    ssc2 = False if search.exceeded or search.matched else True if unique else None
    status = "refuted" if False in (ssc1, ssc2) else "proved" if ssc1 and ssc2 else "unknown"
    point = search.point if search.exceeded else search.other_point if search.matched else None
    return SSCResult(
        ssc1, ssc2, necessary, search.value, search.bound, point, status, method, n_nodes=search.n_nodes, **told,
    )  # fmt: skip


def _searched(search: Search, method: str) -> bool:
    route = {"hull": hull_route, "branch": branch_route, "scip": scip_route}[method]
    try:
        return route(search)
    except UnboundedError:
        return False


def _improve(search: Search) -> None:
    """Larger values from the certificate, where the linear programs have solutions."""
    try:
        if search.point is not None and not search.late:
            search.ascend(search.point)
    except UnboundedError:
        return


# --- the necessary condition ------------------------------------------------------------------------------------------


def _necessary(C: np.ndarray, tol: float, deadline: float) -> tuple[bool | None, float, np.ndarray | None]:
    """Whether each ``e - e_k`` is inside the cone of the columns A with a zero in row k, the margin, and a certificate.

    For each row k the least ``sum(w)`` over ``A.T w >= 0`` with a mean of ``A.T w`` of 1 is positive, and A has full
    rank, if and only if it is.  Else w gives a certificate: with a last coordinate s large enough for the columns that
    are not zero in row k, ``||(w, s)|| > sum(w) + s``.
    """
    r, least, open_question = len(C), math.inf, False
    for k in range(r if r > 1 else 0):
        if time.monotonic() >= deadline:
            return None, least, None
        A = np.delete(C[:, C[k] == 0], k, axis=0)
        margin, w = _inside(A, tol)
        least = min(least, margin)
        if w is not None:
            y = _certificate(C, k, w)
            if y is not None:
                return False, least, y
            open_question = True
    return (None if open_question else True), least, None


def _inside(A: np.ndarray, tol: float) -> tuple[float, np.ndarray | None]:
    """How far inside the cone of A the vector of ones lies, and a w with ``A.T w >= 0``, ``sum(w) <= tol`` if not."""
    size = len(A)
    if A.shape[1] == 0:
        return -1.0, -np.ones(size)
    found = linprog(
        np.ones(size), A_ub=np.vstack([-A.T, -np.ones(size)]), b_ub=np.concatenate([np.zeros(A.shape[1]), [1.0]]),
        A_eq=A.mean(axis=1)[None, :], b_eq=[1.0], bounds=(None, None), method="highs",
    )  # fmt: skip
    if found.x is not None and found.fun <= tol:
        return float(found.fun), found.x
    U, s, _ = np.linalg.svd(A)
    if s.size < size or s[-1] <= 1e-10 * s[0]:  # the columns lie in a hyperplane
        w = U[:, -1]
        return 0.0, w if w.sum() <= 0 else -w
    return (float(found.fun) if found.x is not None else 0.0), None


def _certificate(C: np.ndarray, k: int, w: np.ndarray) -> np.ndarray | None:
    """The y of largest norm with the other coordinates w; None if rounding leaves nothing above 1."""
    others = np.delete(np.arange(len(C)), k)
    w, total = w / np.linalg.norm(w), float(w.sum() / np.linalg.norm(w))
    crossing = C[:, C[k] > 0]
    s = float(np.max(-(w @ crossing[others]) / crossing[k], initial=0.0))
    if s + total <= 1e-3:  # any scale will do: the polytope is not bounded here
        s = 1.0 - total
    y = np.empty(len(C))
    y[others], y[k] = w, s
    y = Search(C, 1e-6, math.inf).feasible(y)
    return y if float(y @ y) > 1 + 64 * np.finfo(float).eps else None
