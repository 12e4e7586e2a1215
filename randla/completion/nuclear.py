"""The minimum of squared residuals plus a nuclear norm, by steps of factors and the residuals' spectral norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from .._arrays import as_matrix, check_together, eps, from_host, is_complex
from .._backend import kernel
from .._random import Key
from .._results import Status
from ..lowrank.orthonormal import NonfiniteError, core_svd
from ..traces.norms import norm_estimate
from .factors import residuals, singular_triplets, squares, thin_qr, times
from .maps import SparsePlusLowRank
from .observations import Observations
from .results import CompletionResult, CompletionStep
from .rows import Rows, choose_method, solve_rows

METHODS = ("auto", "als", "svd")
_WIDTH = 8  # directions outside the factors that are looked at, at least
_SHARPER = 4  # looks in a row where one must be sure of what is outside
_INNER_TOL = 1e-3  # the loosest tolerance of the least-squares problems
_INNER_SHARE = 0.1  # of the relative gap, for those problems
_NORM_TOL, _STARTS = 0.01, 2  # of the proved bound of the spectral norm; few starts need more steps but fewer products
_FLAT, _FALLING = 5, 0.9  # steps in a row that move neither the objective nor the gap, which falls by a tenth
_SLOW, _PATIENCE = (
    0.7,
    2,
)  # a sweep that leaves more of the gap is slow; after so many in a row proximal steps are better
_PAIR_ENTRIES = 2**20  # numbers of a block of the design of the singular values


class Limits(NamedTuple):
    """Checked parameters that do not belong to one penalty."""

    method: str
    max_rank: int
    tol: float
    max_iter: int


class Triplets(NamedTuple):
    """``U diag(s) V^T`` with orthonormal columns; s is float64."""

    U: Any
    s: Any
    V: Any

    @property
    def rank(self) -> int:
        """Number of triplets."""
        return int(self.s.shape[0])

    def factors(self) -> tuple[Any, Any]:
        """``U sqrt(s)`` and ``V sqrt(s)``."""
        xp = array_namespace(self.U)
        root = xp.astype(xp.sqrt(self.s), self.U.dtype)[None, :]
        return self.U * root, self.V * root


class Look(NamedTuple):
    """The residuals of a point, its objective, and its certificate.

    `norm` estimates the spectral norm of the residuals; `outer` are triplets of them outside the factors.
    """

    residuals: Any
    objective: float
    rss: float
    norm: float
    gap: float
    outer: Triplets
    images: Any  # of the right singular vectors


class Problem:
    """The observed entries by rows and by columns, and what can be done with them for any penalty."""

    def __init__(self, observed: Observations, key: Key) -> None:
        self.observed, self.key, self.xp = observed, key, observed.xp
        self.m, self.n = observed.shape
        self.dtype, self.place = observed.data.dtype, device(observed.data)
        self.rounding = 8.0 * eps(self.dtype)

    def given(self, init: CompletionResult, cap: int) -> Triplets:
        """The triplets of a result to start from."""
        factors = []
        for F, side in zip(init, self.observed.shape, strict=True):
            F = as_matrix(F, name="init", sparse=False)
            check_together(self.observed.data, F, names=("X", "init"))
            if is_complex(F.dtype) or F.shape[0] != side:
                raise ValueError(
                    f"init must hold real factors with {self.m} and {self.n} rows, got {tuple(F.shape)} of {F.dtype}"
                )
            factors.append(F)
        return self.cut(*singular_triplets(*factors), cap)

    def zero(self) -> Triplets:
        """The matrix zero, of rank 0."""
        xp = self.xp
        U, V = (xp.zeros((side, 0), dtype=self.dtype, device=self.place) for side in self.observed.shape)
        return Triplets(U, xp.zeros(0, dtype=xp.float64, device=self.place), V)

    def cut(self, U: Any, s: Any, V: Any, cap: int) -> Triplets:
        """The leading triplets that are above rounding level."""
        xp = self.xp
        top = float(s[0]) if s.shape[0] else 0.0
        keep = min(int(xp.sum(xp.astype(s > self.rounding * top, xp.int64))), cap)
        U, V = (xp.astype(F[:, :keep], self.dtype, copy=False) for F in (U, V))
        return Triplets(U, s[:keep], V)

    # --- the certificate

    def look(self, point: Triplets, reg: float, outside: Any) -> Look:
        """Residuals, objective and gap; `outside` are vectors (n, q) that the search outside the factors goes on with.

        With U and V the norm of the residuals is at most that of a matrix of two by two norms, three of which are
        those of what is computed.
        """
        xp, X = self.xp, self.observed
        A, B = point.factors()
        values = residuals(X, A, B)
        rss = squares(values)
        objective = rss / 2.0 + reg * float(xp.sum(point.s))
        R = SparsePlusLowRank(X.with_values(values))
        RV, RtU = R.matmul(point.V), R.rmatmul(point.U)
        inner = xp.matmul(xp.astype(point.U.mT, xp.float64), xp.astype(RV, xp.float64))
        below, beside = _outside(RV, point.U), _outside(RtU, point.V)
        Q, _ = thin_qr(_outside(R.matmul(_outside(outside, point.V)), point.U))
        right = _outside(R.rmatmul(Q), point.V)
        W, T = thin_qr(right)
        turn, sigma, lead = core_svd(T.mT)
        outer = Triplets(times(Q, turn), sigma, times(W, lead.mT))
        corners = [_norm2(inner), _norm2(beside), _norm2(below), float(sigma[0]) if sigma.shape[0] else 0.0]
        norm = float(np.linalg.norm(np.array(corners).reshape(2, 2), 2)) if math.isfinite(sum(corners)) else math.nan
        gap = self.gap(values, objective, rss, norm, reg)
        return Look(values, objective, rss, norm, gap, outer, RV)

    def gap(self, residuals: Any, objective: float, rss: float, norm: float, reg: float) -> float:
        """The duality gap over the objective, for residuals of a spectral norm of at most `norm`."""
        xp = self.xp
        inner = float(xp.sum(xp.astype(residuals, xp.float64) * xp.astype(self.observed.data, xp.float64)))
        if not objective > 0.0:
            return 0.0 if objective == 0.0 else math.nan
        z = min(inner / rss if rss > 0 else 1.0, reg / norm if norm > 0 else math.inf)
        return (objective - max(z * inner - z * z * rss / 2.0, 0.0)) / objective

    # --- steps

    def swept(self, point: Triplets, reg: float, inner_tol: float) -> tuple[Any, Any]:
        """Ridge regressions for the column factors, then for the row factors."""
        A, B = point.factors()
        B = self._solved(1, A, B, reg, inner_tol)
        return self._solved(0, B, A, reg, inner_tol), B

    def _solved(self, axis: int, V: Any, start: Any, reg: float, inner_tol: float) -> Any:
        xp, observed = self.xp, self.observed if axis == 0 else self.observed.transposed
        rows = Rows(V, observed, None, xp.full((observed.shape[0],), reg, dtype=xp.float64, device=self.place))
        method = choose_method(rows, "auto", "gram", inner_tol, None)
        return solve_rows(rows, method, start, self.key.fold("rows").fold(axis)).X

    def thresholded(self, point: Triplets, images: Any, reg: float) -> Triplets:
        """The best matrix over the span of V for residuals plus point: singular values less `reg`, none below zero."""
        xp = self.xp
        M = xp.astype(images, xp.float64) + xp.astype(point.U, xp.float64) * point.s[None, :]
        Q, R = thin_qr(M)
        left, s, right = core_svd(R)
        kept = int(xp.sum(xp.astype(s > reg, xp.int64)))
        U, V = times(Q, left[:, :kept]), times(xp.astype(point.V, xp.float64), right[:kept, :].mT)
        return Triplets(xp.astype(U, self.dtype), s[:kept] - reg, xp.astype(V, self.dtype))

    def widened(self, point: Triplets, look: Look, reg: float, cap: int) -> Triplets:
        """The point with the directions outside it that lower the objective, a step along each."""
        xp, outer = self.xp, look.outer
        wanted = int(xp.sum(xp.astype(outer.s > (1.0 + self.rounding) * reg, xp.int64)))
        more = min(wanted, cap - point.rank)
        if more <= 0:
            return point
        # the residuals along u v^T fall by the share of the entries that were observed
        step = (outer.s[:more] - reg) * (self.m * self.n / self.observed.nnz)
        U = xp.concat([point.U, outer.U[:, :more]], axis=1)
        V = xp.concat([point.V, outer.V[:, :more]], axis=1)
        return Triplets(U, xp.concat([point.s, step]), V)


class Outcome(NamedTuple):
    """What a descent ended with; `bound` is the gap with a proved bound of the residuals' norm."""

    point: Triplets
    look: Look
    gap: float
    bound: float
    history: tuple[float, ...]
    gaps: tuple[float, ...]
    status: Status


class Descent:
    """The iteration for one penalty: a point, its certificate, and the directions outside it that are watched."""

    def __init__(
        self, problem: Problem, reg: float, limits: Limits, callback: Callable[[CompletionStep], Any] | None = None
    ) -> None:
        self.problem, self.reg, self.limits, self.callback = problem, reg, limits, callback
        self.xp, self.key, self.n_draws = problem.xp, problem.key.fold("outside"), 0
        self.history: list[float] = []
        self.gaps: list[float] = []
        self.momentum, self.past, self.slow = 1.0, problem.zero(), 0
        nothing = problem.zero()
        blind = Look(problem.observed.data, math.nan, math.nan, math.nan, math.nan, nothing, nothing.V)
        self.last = nothing, blind

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite ends in a status
    def run(self, start: Triplets | None = None) -> Outcome:
        """Steps until the gap is small, a limit is met, or nothing moves."""
        try:
            return self._run(start)
        except (NonfiniteError, np.linalg.LinAlgError):  # decompositions refuse what is not finite
            return self._outcome(*self.last, math.nan, math.inf, Status.NONFINITE)

    def _run(self, start: Triplets | None) -> Outcome:
        problem, tol, flat, least = self.problem, self.limits.tol, 0, math.inf
        point = problem.zero() if start is None else start
        look, stop = self._sharpened(point, None), False
        while True:
            self.last = point, look
            if not math.isfinite(look.objective + look.norm):
                return self._outcome(point, look, math.nan, math.inf, Status.NONFINITE)
            if look.gap <= tol:
                gap, bound = self._proved(look)
                if gap <= tol:
                    return self._outcome(point, look, gap, bound, Status.CONVERGED)
                look = self._sharpened(point, look)  # there is more outside than it saw
            if stop or len(self.history) >= self.limits.max_iter or flat == _FLAT:
                status = Status.STAGNATED if flat == _FLAT and not self._barred(point, look) else Status.MAX_ITER
                return self._outcome(point, look, *self._proved(look), status)
            before = look.objective
            point, look = self._moved(point, look)
            self.history.append(look.objective)
            self.gaps.append(look.gap)
            share = 0.01 * tol if self._barred(point, look) else problem.rounding
            still = abs(before - look.objective) <= share * before and look.gap > _FALLING * least
            flat, least = flat + 1 if still else 0, min(least, look.gap)
            rmse = math.sqrt(look.rss / problem.observed.nnz)
            told = CompletionStep(len(self.history), look.objective, rmse, math.nan)
            stop = self.callback is not None and self.callback(told) is True

    def _outcome(self, point: Triplets, look: Look, gap: float, bound: float, status: Status) -> Outcome:
        return Outcome(point, look, gap, bound, tuple(self.history), tuple(self.gaps), status)

    # --- steps

    def _moved(self, point: Triplets, look: Look) -> tuple[Triplets, Look]:
        """A sweep, or a proximal step where the method says so or sweeps have become slow."""
        if self.limits.method == "svd" or (self.limits.method == "auto" and self.slow >= _PATIENCE):
            return self._proximal(point, look)
        moved, seen = self._alternated(point, look)
        self.slow = self.slow + 1 if seen.gap > _SLOW * look.gap else 0
        return moved, seen

    def _alternated(self, point: Triplets, look: Look) -> tuple[Triplets, Look]:
        """Ridge regressions for both factors, after directions outside have joined and before spent ones leave."""
        problem, reg, cap = self.problem, self.reg, self.limits.max_rank
        block = self._block(point, look)
        point = problem.widened(point, look, reg, cap)
        if point.rank:
            inner_tol = min(_INNER_TOL, max(_INNER_SHARE * look.gap, eps(problem.dtype)))
            point = problem.cut(*singular_triplets(*problem.swept(point, reg, inner_tol)), cap)
        look = problem.look(point, reg, block)
        along = self.xp.sum(self.xp.astype(point.U * look.images, self.xp.float64), axis=0)
        if point.rank and float(self.xp.min(point.s + along)) <= reg:
            point = problem.thresholded(point, look.images, reg)
            look = problem.look(point, reg, look.outer.V)
        return point, look

    def _proximal(self, point: Triplets, look: Look) -> tuple[Triplets, Look]:
        """An accelerated proximal step; one without momentum where that raises the objective."""
        momentum = (1.0 + math.sqrt(1.0 + 4.0 * self.momentum**2)) / 2.0
        lead = (self.momentum - 1.0) / momentum
        moved = self._shrunk(point, self.past if lead > 0.0 else point, lead, look)
        seen = self.problem.look(moved, self.reg, self._block(moved, look))
        if lead > 0.0 and seen.objective > look.objective:
            momentum, moved = 1.0, self._shrunk(point, point, 0.0, look)
            seen = self.problem.look(moved, self.reg, self._block(moved, look))
        self.momentum, self.past = momentum, point
        return moved, seen

    def _shrunk(self, point: Triplets, past: Triplets, lead: float, look: Look) -> Triplets:
        """Threshold the singular values of Y with its observed entries put right, Y = point + lead (point - past).

        From a step of subspace iteration, which begins with the vectors of the point and those outside it.
        """
        xp, problem = self.xp, self.problem
        now, before = (T.U * xp.astype(T.s, T.U.dtype)[None, :] for T in (point, past))
        left = xp.concat([(1.0 + lead) * now, -lead * before], axis=1)
        right = xp.concat([point.V, past.V], axis=1)
        X = problem.observed
        values = residuals(X, left, right)
        A = SparsePlusLowRank(X.with_values(values), left, right)
        Q, _ = thin_qr(A.matmul(xp.concat([point.V, look.outer.V], axis=1)))
        W, T = thin_qr(A.rmatmul(Q))
        turn, s, lead_vectors = core_svd(T.mT)
        kept = min(int(xp.sum(xp.astype(s > self.reg, xp.int64))), self.limits.max_rank)
        return Triplets(times(Q, turn[:, :kept]), s[:kept] - self.reg, times(W, lead_vectors[:kept, :].mT))

    # --- what is outside

    def _barred(self, point: Triplets, look: Look) -> bool:
        """Whether a direction outside would lower the objective, were the rank not at its limit."""
        s = look.outer.s
        return point.rank >= self.limits.max_rank and s.shape[0] > 0 and float(s[0]) > self.reg

    def _block(self, point: Triplets, look: Look | None) -> Any:
        """Vectors that the search outside goes on with: the last ones, and fresh ones where many of them count."""
        problem, xp = self.problem, self.xp
        room = min(problem.m, problem.n) - point.rank
        known = problem.zero() if look is None else look.outer
        wanted = 2 * int(xp.sum(xp.astype(known.s > self.reg, xp.int64)))
        width = min(max(_WIDTH, wanted), room)
        fresh = width - known.rank
        if fresh <= 0:
            return known.V[:, :width]
        self.n_draws += 1
        key = self.key.fold(self.n_draws)
        table = kernel("gaussian_table", xp)(key, 0, problem.n, fresh, np.dtype("float64"))
        G = xp.astype(from_host(table, xp, problem.observed.data), problem.dtype)
        return xp.concat([known.V, G], axis=1)

    def _sharpened(self, point: Triplets, look: Look | None) -> Look:
        """Looks in a row, each a step of the subspace iteration outside."""
        for _ in range(_SHARPER):
            look = self.problem.look(point, self.reg, self._block(point, look))
        return look  # type: ignore[return-value]

    def _proved(self, look: Look) -> tuple[float, float]:
        """The gap with an estimate of the residuals' norm that does not lean on the factors, and with its bound."""
        problem = self.problem
        R = SparsePlusLowRank(problem.observed.with_values(look.residuals))
        self.n_draws += 1
        norm = norm_estimate(
            R, 2, tol=_NORM_TOL, n_probes=_STARTS, rng=self.key.fold(self.n_draws), on_failure="ignore"
        )
        told = (look.residuals, look.objective, look.rss)
        estimate = min(max(norm.estimate, look.norm), norm.upper)
        return problem.gap(*told, estimate, self.reg), problem.gap(*told, norm.upper, self.reg)


def _outside(Y: Any, U: Any) -> Any:
    """Y without its part in the span of the orthonormal U, twice is enough."""
    xp = array_namespace(Y)
    for _ in range(2):
        Y = Y - xp.matmul(U, xp.matmul(U.mT, Y))
    return Y


def _norm2(M: Any) -> float:
    """The spectral norm of a matrix with few columns."""
    xp = array_namespace(M)
    if 0 in M.shape:
        return 0.0
    wide = xp.astype(M, xp.float64)
    G = xp.matmul(wide.mT, wide)
    return math.sqrt(max(float(xp.linalg.eigvalsh(G)[-1]), 0.0)) if bool(xp.all(xp.isfinite(G))) else math.inf


def refitted(observed: Observations, point: Triplets) -> tuple[Triplets, Any]:
    """The same vectors with the singular values of least squared residuals, and theirs before (both descending now).

    By blocks of the normal equations.  Vectors whose value would be negative fit noise, and are left out.
    """
    xp, r = observed.xp, point.rank
    G = xp.zeros((r, r), dtype=xp.float64, device=device(point.s))
    h = xp.zeros((r, 1), dtype=xp.float64, device=device(point.s))
    step = max(1, _PAIR_ENTRIES // max(r, 1))
    for lo in range(0, observed.nnz, step):
        hi = min(lo + step, observed.nnz)
        left = xp.take(point.U, observed.rows[lo:hi], axis=0)
        design = xp.astype(left * xp.take(point.V, observed.indices[lo:hi], axis=0), xp.float64)
        G = G + xp.matmul(design.mT, design)
        h = h + xp.matmul(design.mT, xp.astype(observed.data[lo:hi], xp.float64)[:, None])
    kept = xp.arange(r, dtype=xp.int64, device=device(point.s))
    while kept.shape[0]:
        inner = xp.take(xp.take(G, kept, axis=0), kept, axis=1)
        s = xp.matmul(xp.linalg.pinv(inner, rtol=r * 2.0**-52), xp.take(h, kept, axis=0))[:, 0]
        if bool(xp.all(s >= 0)):
            order = xp.argsort(-s, stable=True)
            kept = xp.take(kept, order)
            U, V = (xp.take(F, kept, axis=1) for F in (point.U, point.V))
            return Triplets(U, xp.take(s, order), V), xp.take(point.s, kept)
        kept = kept[s > 0]
    return Triplets(point.U[:, :0], point.s[:0], point.V[:, :0]), point.s[:0]
