"""Global maxima of |y|^2 over the polytope ``C.T y >= 0, sum(y) = 1``: by its vertices, by branch and bound, by SCIP.

The unit vectors are in the polytope, with value 1.  Asked is whether a point has a larger value (then the columns of C
are not sufficiently scattered), or whether another one has the same.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, QhullError

FEASIBLE = 1e-9  # by how much a point of a linear program may leave the polytope before it is pulled back
POOL = 64  # inequalities that linear programs begin with, and that are added at a time
POINTS = 64  # points of the first convex hull; each next one has twice as many, after a look at the clock
FIRST_ASCENTS = 32  # nodes from which a vertex is sought; later only where that could change the answer
SCIP_TOLERANCE = 1e-5  # of the answers of SCIP, whose constraints hold up to 1e-6
_PRECISE = {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9}


class UnboundedError(Exception):
    """The polytope is not bounded, or a linear program could not be solved."""


@dataclass
class Search:
    """What is known of the maximum so far: points that were found, and a bound that was proved.

    Attributes
    ----------
    C : array, shape (r, n)
        Nonnegative columns that sum to one.
    tol : float
        Values that differ by less are equal.
    deadline : float
        Reading of `time.monotonic` at which to stop.
    value, point : float, array
        The largest value found, and where; a unit vector at the beginning.
    other, other_point : float, array
        The same over points that are no unit vectors.
    bound : float
        Above the maximum over the polytope.
    other_bound : float
        Above the maximum outside of neighbourhoods of the unit vectors in which these are the only maxima.
    n_nodes : int
        Vertices looked at, or nodes of the search tree.
    """

    C: np.ndarray
    tol: float
    deadline: float
    value: float = 1.0
    point: np.ndarray | None = None
    other: float = -np.inf
    other_point: np.ndarray | None = None
    bound: float = np.inf
    other_bound: float = np.inf
    n_nodes: int = 0
    pool: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def late(self) -> bool:
        """True when the time is over."""
        return time.monotonic() >= self.deadline

    @property
    def exceeded(self) -> bool:
        """True when a point above 1 is known."""
        return self.value > 1 + self.tol

    @property
    def matched(self) -> bool:
        """True when a point is known that is no unit vector and reaches 1."""
        return self.other >= 1 - 2 * self.tol

    def note(self, y: np.ndarray) -> None:
        """Take a point into account, pulled into the polytope where rounding left it outside."""
        y = self.feasible(y)
        value = float(y @ y)
        if value > self.value:
            self.value, self.point = value, y
        if value > self.other and np.max(np.abs(y - np.eye(len(y))[np.argmax(y)])) > self.tol**0.5:
            self.other, self.other_point = value, y

    def feasible(self, y: np.ndarray) -> np.ndarray:
        """The nearest mixture of y and the centre that satisfies all inequalities."""
        y, r = y / y.sum(), len(y)
        least = float((y @ self.C).min())
        share = max(0.0, -least) / (1 / r + max(0.0, -least))
        return (1 - share) * y + share / r

    def maximum(self, objective: np.ndarray, low: Any = None, high: Any = None) -> np.ndarray | None:
        """A point of the polytope, in a box where given, with the largest inner product; None where there is none.

        Inequalities join the program when a solution violates them, most violated first.
        """
        r, n = self.C.shape
        if not self.pool.size:
            spread = np.argsort(-np.sum(self.C**2, axis=0), kind="stable")
            self.pool = np.sort(spread[: max(POOL, 4 * r)])
        free = np.full(r, np.inf)
        bounds = np.column_stack([-free if low is None else low, free if high is None else high])
        while True:
            found = linprog(
                -objective, A_ub=-self.C[:, self.pool].T, b_ub=np.zeros(self.pool.size), A_eq=np.ones((1, r)),
                b_eq=[1.0], bounds=bounds, method="highs", options=_PRECISE,
            )  # fmt: skip
            if found.status == 2:
                return None
            if found.x is None and self.pool.size < n:  # unbounded without the others
                self.pool = np.arange(n)
                continue
            if found.x is None:
                raise UnboundedError
            slack = found.x @ self.C
            worst = np.argsort(slack)[:POOL]
            worst = np.setdiff1d(worst[slack[worst] < -FEASIBLE], self.pool)
            if not worst.size:
                return found.x
            self.pool = np.union1d(self.pool, worst)

    def ascend(self, y: np.ndarray) -> None:
        """Go to vertices of larger value until there is none: each maximises the linear model at the one before."""
        value = -np.inf
        while float(y @ y) > value + 1e-12:
            value = float(y @ y)
            vertex = self.maximum(2 * y)
            if vertex is None:
                return
            y = vertex
        self.note(y)


# --- by vertices ------------------------------------------------------------------------------------------------------


def hull_route(search: Search) -> bool:
    """Enumerate the vertices as the facets of the convex hull of the columns; False if the time or Qhull ended it.

    A facet at distance d from the centre e / r is a vertex of value ``1 / r + 1 / (r d)**2``.
    """
    r, n = search.C.shape
    if r == 2:
        return _interval(search)
    basis = np.linalg.qr(np.column_stack([np.ones(r), np.eye(r)[:, 1:]]))[0][:, 1:]
    points = (search.C - 1 / r).T @ basis
    order = np.argsort(-np.sum(points**2, axis=1), kind="stable")  # corners first: most of the rest lies inside
    size, spent, growth = max(POINTS, 4 * r), 0.0, 2.0
    while True:  # Qhull cannot be interrupted: smaller hulls foretell whether the whole one ends in time
        began = time.monotonic()
        if began + growth * spent > search.deadline:
            return False
        try:
            equations = ConvexHull(points[order[:size]]).equations
        except QhullError:
            if size >= n:
                return False
            equations = None
        taken = time.monotonic() - began
        growth, spent = max(2.0, 2 * taken / spent if spent > 1e-3 else 2.0), taken
        if size >= n:
            break
        size *= 2
    distances = -equations[:, -1]
    if distances.min() <= 0:
        return False
    vertices = 1 / r - (equations[:, :-1] / (r * distances[:, None])) @ basis.T
    search.n_nodes = len(np.unique(np.round(vertices, 7), axis=0))
    _note_vertices(search, vertices)
    search.bound = max(1.0, search.value)
    search.other_bound = search.other
    return True


def _interval(search: Search) -> bool:
    """Two rows: the polytope is an interval, and its ends are orthogonal to the outermost columns."""
    for column in (search.C[:, np.argmin(search.C[0])], search.C[:, np.argmax(search.C[0])]):
        if column[0] == column[1]:
            return False
        search.note(np.array([column[1], -column[0]]) / (column[1] - column[0]))
    search.bound, search.other_bound, search.n_nodes = max(1.0, search.value), search.other, 2
    return True


def _note_vertices(search: Search, vertices: np.ndarray) -> None:
    """Note the vertices that can decide: the largest, and the largest that are no unit vectors.

    Offsets of merged facets are those of their outermost points, so a vertex that decides is found again by a linear
    program.
    """
    values = np.sum(vertices**2, axis=1)
    units = np.max(np.abs(vertices - np.eye(len(search.C))[np.argmax(vertices, axis=1)]), axis=1) <= search.tol**0.5
    others = np.flatnonzero(~units)
    for index in others[np.argsort(-values[others])[:3]]:
        search.ascend(vertices[index])
        search.note(vertices[index])


# --- by branch and bound ----------------------------------------------------------------------------------------------


def caps(search: Search) -> np.ndarray | None:
    """For each k a bound c_k < 1 such that no point with ``c_k < y_k < 1`` has a value of 1 or more; None if too late.

    If the ball of radius rho around e lies in the cone of the columns with a zero in row k, then ``sum(z) >= rho |z|``
    for the other coordinates z of y, and so ``|y|^2 <= y_k^2 + (1 - y_k)^2 / rho^2``, which is below 1 for y_k between
    ``(1 - rho^2) / (1 + rho^2)`` and 1.  For rho, |z|^2 is bounded over ``sum(z) = 1`` by its secants in a box.
    """
    r = len(search.C)
    found = np.ones(r)
    for k in range(r):
        face = search.C[:, search.C[k] == 0]
        sub = Search(np.delete(face, k, axis=0), search.tol, search.deadline)
        try:
            box = _box(sub)
        except UnboundedError:  # no ball: no neighbourhood of this unit vector is left out
            continue
        if box is None or (top := sub.maximum(box[0] + box[1], *box)) is None:
            if sub.late:
                return None
            continue
        square = float((box[0] + box[1]) @ top - box[0] @ box[1])
        found[k] = (square - 1) / (square + 1)
    return found


def _box(search: Search, high: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """The least box around the polytope, below `high` where given; None where there is no point or too late."""
    r = len(search.C)
    low, top = np.empty(r), np.empty(r)
    for i in range(r):
        for sign, side in ((-1.0, low), (1.0, top)):
            if search.late:
                return None
            vertex = search.maximum(sign * np.eye(r)[i], None, high)
            if vertex is None:
                return None
            side[i] = vertex[i] + sign * FEASIBLE
    return low, top


def _region(search: Search) -> tuple[np.ndarray, np.ndarray] | None:
    """The box around what the neighbourhoods of the unit vectors leave; None if that is nothing, or if too late."""
    high = caps(search)
    box = None if high is None else _box(search, high)
    if box is None and not search.late:
        search.bound, search.other_bound = 1.0, -np.inf
    return box


def branch_route(search: Search) -> bool:
    """Branch and bound over boxes; False if the time ended it.

    Upper bounds: secants of the squares, over the polytope and the box.  Lower bounds: ascent over vertices.  The box
    with the largest bound is cut first, at the point of its bound, where the secants are farthest from the squares.
    """
    r = len(search.C)
    for i in range(r):  # the vertices that are lowest in a coordinate are good ones to begin with
        vertex = None if search.late else search.maximum(-np.eye(r)[i])
        if vertex is not None:
            search.ascend(vertex)
        if search.exceeded:
            return True
    box = _region(search)
    if box is None:
        return not search.late
    heap: list[tuple[float, int, np.ndarray, np.ndarray, np.ndarray]] = []
    _push(search, heap, *box)
    while heap:
        goal = 1 + search.tol if search.matched else 1 - search.tol
        search.other_bound = max(-heap[0][0], goal) if search.n_nodes > 1 else -heap[0][0]
        search.bound = max(1.0, search.other_bound)
        if search.exceeded:
            return True
        if -heap[0][0] <= goal:
            break
        if search.late:
            return False
        _, _, y, low, top = heapq.heappop(heap)
        i = int(np.argmax((top - y) * (y - low)))
        width = top[i] - low[i]
        cut = min(max(y[i], low[i] + 0.1 * width), top[i] - 0.1 * width)
        for side, end in ((top, cut), (low, cut)):
            kept, side[i] = side[i], end
            _push(search, heap, low.copy(), top.copy())
            side[i] = kept
    goal = 1 + search.tol if search.matched else 1 - search.tol
    search.other_bound = min(search.other_bound, goal)
    search.bound = max(1.0, search.other_bound)
    return True


def _push(search: Search, heap: list, low: np.ndarray, top: np.ndarray) -> None:
    """Bound a box, look for better points from there, and keep it where the bound leaves the answer open."""
    search.n_nodes += 1
    y = search.maximum(low + top, low, top)
    if y is None:
        return
    bound = float((low + top) @ y - low @ top)
    if bound <= (1 + search.tol if search.matched else 1 - search.tol):
        return
    search.note(y)
    if search.n_nodes <= FIRST_ASCENTS or float(y @ y) > max(search.other, 0.9):
        search.ascend(y)
    heapq.heappush(heap, (-bound, search.n_nodes, y, low, top))


# --- by SCIP ----------------------------------------------------------------------------------------------------------


def scip_route(search: Search) -> bool:
    """The same problem for SCIP, a global solver, if PySCIPOpt is there; False if the time ended it."""
    from pyscipopt import Model, quicksum

    search.tol = max(search.tol, SCIP_TOLERANCE)
    box = _region(search)
    if box is None:
        return not search.late
    r, n = search.C.shape
    model = Model()
    model.hideOutput()
    model.setParam("limits/time", max(0.0, search.deadline - time.monotonic()))
    model.setParam("parallel/maxnthreads", 1)
    y = [model.addVar(lb=float(box[0][i]), ub=float(box[1][i])) for i in range(r)]
    t = model.addVar(lb=0.0, ub=float(np.sum(np.maximum(box[0] ** 2, box[1] ** 2))))
    model.addCons(quicksum(y) == 1)
    for j in range(n):
        model.addCons(quicksum(float(search.C[i, j]) * y[i] for i in range(r) if search.C[i, j]) >= 0)
    model.addCons(t <= quicksum(y[i] * y[i] for i in range(r)))
    model.setObjective(t, "maximize")
    model.setObjlimit(1 - search.tol)  # what is below is of no interest
    model.setParam("limits/primal", 1 + 2 * search.tol)  # a point above 1 decides
    model.optimize()
    search.n_nodes = int(model.getNTotalNodes())
    for solution in model.getSols():
        search.ascend(np.array([model.getSolVal(solution, v) for v in y]))
    if model.getStatus() == "infeasible":
        search.other_bound = 1 - search.tol
    else:
        search.other_bound = float(model.getDualbound())
    search.bound = max(1.0, search.other_bound)
    return model.getStatus() not in ("timelimit", "userinterrupt")
