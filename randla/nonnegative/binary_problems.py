"""Half steps of nonnegative times binary: where all entries are known, and where some are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import device as device_of

from .._arrays import eps
from .._backend import kernel
from .._random import Key
from ..completion.observations import Observations
from .frobenius import Penalties, alternate, exact_squares, half_step
from .initialization import random_factor, start
from .masked import MaskedProblem, _alternate, _Like

SOLVERS = ("exact", "descent")
FEW = 12  # parts up to which the search alone costs less than descents from several starts
PREPARED = 30  # iterations of the factorisation whose thresholds start H


@dataclass(frozen=True)
class Searcher:
    """How columns of H are found: starts of descents (s, rank), nodes, or a callable."""

    starts: Any
    max_nodes: int
    solve: Any = None

    def one(self, G: Any, b: Any, z: Any, xp: Any) -> Any:
        """The callable's vector, if it is better than z."""
        k = int(b.shape[0])
        Q = 2 * xp.triu(G, k=1) + (xp.linalg.diagonal(G) - 2 * b)[:, None] * xp.eye(
            k, dtype=G.dtype, device=device_of(G)
        )
        new = xp.asarray(self.solve(xp.asarray(Q, copy=True)), device=device_of(z))
        if tuple(new.shape) != (k,) or not bool(xp.all((new == 0) | (new == 1))):
            raise ValueError(f"binary_solver must return {k} zeros and ones, got {new}")
        new = xp.astype(new, xp.int8)
        values = [float(xp.sum(xp.matmul(Q, xp.astype(v, G.dtype)) * xp.astype(v, G.dtype))) for v in (new, z)]
        return new if values[0] < values[1] else z


class _Binary:
    """What both kinds of data share."""

    xp: Any
    like: Any
    shape: tuple[int, int]
    alpha: float

    def searcher(self, solver: Any, max_nodes: int, rank: int, n_starts: int, key: Key) -> Searcher:
        xp = self.xp
        count = 0 if callable(solver) or (solver == "exact" and rank <= FEW) else n_starts
        like = _Like(xp, self.like)
        starts = xp.astype(random_factor(count, rank, like, key.fold("descents")) > 0.5, xp.int8)
        return Searcher(starts, max_nodes if solver == "exact" else 0, solver if callable(solver) else None)

    def random_start(self, rank: int, mean: float, key: Key) -> tuple[Any, Any]:
        """Factors (rank, m) and (rank, n), the second one fair coins, whose product has the given mean."""
        xp, like = self.xp, _Like(self.xp, self.like)
        Wt = random_factor(rank, self.shape[0], like, key.fold("W")) * (4 * mean / max(1, rank))
        coins = random_factor(rank, self.shape[1], like, key.fold("H")) > 0.5
        return Wt, xp.astype(coins, xp.int8)

    def thresholds(self, H: Any, Wt: Any) -> tuple[Any, Any]:
        """H above the median of its row, and the parts times the mean of what is above."""
        xp, n = self.xp, int(H.shape[1])
        middle = xp.sort(H, axis=1)[:, (n - 1) // 2]
        above = (H - middle[:, None]) > 0
        wide = xp.astype(above, H.dtype)
        counts = xp.sum(wide, axis=1)
        size = xp.sum(H * wide, axis=1) / xp.where(counts > 0, counts, xp.ones_like(counts))
        return Wt * size[:, None], xp.astype(above, xp.int8)


class DenseBinary(_Binary):
    """All entries are known, in a dense or a sparse matrix; factors have the parts as rows."""

    def __init__(self, data: Any, alpha: float) -> None:
        self.data, self.alpha, self.xp, self.like, self.shape = data, alpha, data.xp, data.like, data.shape
        self.rounding = 8 * self.shape[0] * self.shape[1] * eps(data.dtype) ** 2 * data.squared_norm

    def start(self, rank: int, init: str, key: Key) -> tuple[Any, Any]:
        """Factors by the name of a start, in the layout of this class."""
        data = self.data
        if init == "random" or rank == 0 or min(self.shape) == 0 or not data.squared_norm > 0:
            m, n = self.shape
            ones = self.xp.ones((1, m), dtype=data.dtype, device=device_of(data.like))
            total = float(self.xp.sum(self.xp.astype(data.left(ones), self.xp.float64))) if m and n else 0.0
            return self.random_start(rank, total / max(1, m * n), key)
        Wt, H = start(data, rank, "random", key)
        fit = alternate(data, Wt, H, Penalties(), solver="hals", max_iter=PREPARED, tol=0.0)
        return self.thresholds(fit.H, fit.Wt)

    def take(self, W: Any, H: Any) -> tuple[Any, Any]:
        """Factors (m, rank) and (rank, n) in the layout of this class."""
        return self.xp.asarray(W.T, copy=True), self.xp.astype(H, self.xp.int8)

    def factors(self, Wt: Any, Z: Any) -> tuple[Any, Any]:
        """W (m, rank) and H (rank, n) in the dtype of the data."""
        return self.xp.asarray(Wt.T, copy=True), self.real(Z)

    def real(self, Z: Any) -> Any:
        """Zeros and ones in the dtype of the data."""
        return self.xp.astype(Z, self.data.dtype)

    def nonneg_step(self, Wt: Any, Z: Any) -> Any:
        """The nonnegative factor for the binary one."""
        H = self.real(Z)
        return half_step(_gram(H, self.xp), self.data.right(H), Wt, 0.0, self.alpha, 0, "pivots", self.xp)

    def binary_step(self, Wt: Any, Z: Any, searcher: Searcher) -> tuple[Any, int]:
        """The binary factor for the nonnegative one, and for how many columns it is not proved to be best."""
        xp, G, B = self.xp, _gram(Wt, self.xp), self.data.left(Wt)
        if searcher.solve is None:
            Z, proved = kernel("binary_search", xp)(G, B, Z, searcher.starts, searcher.max_nodes)
            return Z, int(xp.sum(xp.astype(~proved, xp.int64)))
        wide, Z = xp.astype(B, xp.float64), xp.asarray(Z, copy=True)
        for j in range(self.shape[1]):
            Z[:, j] = searcher.one(G, wide[:, j], xp.asarray(Z[:, j], copy=True), xp)
        return Z, self.shape[1]

    def squares(self, Wt: Any, Z: Any) -> float:
        """The squared norm of the residual."""
        return exact_squares(self.data, Wt, self.real(Z)) if self.data.squared_norm > 0 else 0.0

    def objective(self, Wt: Any, Z: Any) -> float:
        """Half the squared residuals of known entries, and the ridge."""
        return self.squares(Wt, Z) / 2 + Penalties(l2_W=self.alpha).of(Wt, Wt[:, :0], self.xp)

    def error(self, Wt: Any, Z: Any) -> float:
        """The norm of the residuals of known entries over that of the entries."""
        whole = self.data.squared_norm
        return math.sqrt(max(self.squares(Wt, Z), 0.0) / whole) if whole > 0 else 0.0

    def revive(self, Wt: Any, Z: Any) -> tuple[Any, Any, int]:
        """Parts that no column has, or of zeros, from the columns that are approximated worst: the objective falls."""
        xp, data = self.xp, self.data
        dead = _dead(xp.sum(Wt, axis=1), xp.sum(xp.astype(Z, xp.int64), axis=1))
        if not dead or self.alpha >= 1 or not data.squared_norm > 0:
            return Wt, Z, 0
        Wt, Z, H = xp.asarray(Wt, copy=True), xp.asarray(Z, copy=True), xp.astype(Z, xp.float64)
        cross, G = xp.astype(data.left(Wt), xp.float64), _gram(Wt, xp)
        lost = data.column_squares - 2 * xp.sum(cross * H, axis=0) + xp.sum(xp.matmul(G, H) * H, axis=0)
        order, new = xp.argsort(-lost, stable=True), 0
        for k, place in zip(dead, range(self.shape[1]), strict=False):
            j = int(order[place])
            rest = data.column(j) - xp.matmul(self.real(Z[:, j])[None, :], Wt)[0, :]
            rest = xp.where(rest > 0, rest, xp.zeros_like(rest))
            if float(lost[j]) > self.rounding and float(xp.sum(rest)) > 0:
                Wt[k, :], Z[k, :] = rest, 0
                Z[k, j] = 1
                new += 1
        return Wt, Z, new


class MaskedBinary(_Binary):
    """Some entries are missing; factors are W (m, rank) and Z (n, rank)."""

    def __init__(self, problem: MaskedProblem, alpha: float) -> None:
        X = problem.fitted
        self.problem, self.alpha, self.xp, self.like, self.shape = problem, alpha, X.xp, X.data, X.shape
        wide = self.xp.astype(X.data, self.xp.float64)
        self.whole = float(self.xp.sum(wide * wide))
        self.rounding = 8 * X.nnz * eps(X.data.dtype) ** 2 * self.whole

    @classmethod
    def of(cls, observed: Observations, alpha: float) -> MaskedBinary:
        """The problem of these entries."""
        return cls(MaskedProblem(observed, None, (None, None), None, Penalties(l2_W=alpha)), alpha)

    def start(self, rank: int, init: str, key: Key) -> tuple[Any, Any]:
        """Factors by the name of a start, in the layout of this class."""
        xp, X = self.xp, self.problem.fitted
        if init == "random":
            mean = float(xp.mean(xp.astype(X.data, xp.float64))) if X.nnz else 0.0
            Wt, Z = self.random_start(rank, mean, key)
        else:
            run = _alternate(self.problem, *self.problem.start(rank, "random", key), PREPARED, 0.0, PREPARED, None)
            Wt, Z = self.thresholds(run.V.T, run.W.T)
        return self.take(Wt.T, Z)

    def take(self, W: Any, H: Any) -> tuple[Any, Any]:
        """W and Z = H.T, with zeros where nothing was observed."""
        xp, X = self.xp, self.problem.fitted
        W = xp.asarray(W, copy=True) * xp.astype(X.row_counts > 0, W.dtype)[:, None]
        Z = xp.asarray(xp.astype(H.T, xp.int8), copy=True)
        return W, Z * xp.astype(X.col_counts > 0, xp.int8)[:, None]

    def factors(self, W: Any, Z: Any) -> tuple[Any, Any]:
        """W (m, rank) and H (rank, n) in the dtype of the data."""
        return W, self.xp.asarray(self.real(Z).T, copy=True)

    def real(self, Z: Any) -> Any:
        """Zeros and ones in the dtype of the data."""
        return self.xp.astype(Z, self.like.dtype)

    def nonneg_step(self, W: Any, Z: Any) -> Any:
        """The nonnegative factor for the binary one."""
        return self.problem.half_step(self.real(Z), W, 0)

    def binary_step(self, W: Any, Z: Any, searcher: Searcher) -> tuple[Any, int]:
        """The binary factor for the nonnegative one, and for how many columns it is not proved to be best."""
        xp, X = self.xp, self.problem.fitted.transposed
        if searcher.solve is None:
            Z, proved = kernel("masked_binary_search", xp)(
                W, X.indices, X.indptr, None, X.data, Z, searcher.starts, searcher.max_nodes
            )
            return Z, int(xp.sum(xp.astype(~proved, xp.int64)))
        Z = xp.asarray(Z, copy=True)
        for j in range(self.shape[1]):
            first, last = int(X.indptr[j]), int(X.indptr[j + 1])
            if last > first:
                V = xp.astype(xp.take(W, X.indices[first:last], axis=0), xp.float64)
                b = xp.matmul(V.mT, xp.astype(X.data[first:last], xp.float64)[:, None])[:, 0]
                Z[j, :] = searcher.one(xp.matmul(V.mT, V), b, xp.asarray(Z[j, :], copy=True), xp)
        return Z, int(xp.sum(xp.astype(X.indptr[1:] > X.indptr[:-1], xp.int64)))

    def objective(self, W: Any, Z: Any) -> float:
        """Half the squared residuals of known entries, and the ridge."""
        return self.problem.objective(W, self.real(Z))

    def error(self, W: Any, Z: Any) -> float:
        """The norm of the residuals of known entries over that of the entries."""
        squares = 2 * (self.objective(W, Z) - self.problem.penalties.of(W, self.real(Z), self.xp))
        return math.sqrt(max(squares, 0.0) / self.whole) if self.whole > 0 else 0.0

    def revive(self, W: Any, Z: Any) -> tuple[Any, Any, int]:
        """As for known entries; those that are missing stay zero in the new part."""
        xp, X, T = self.xp, self.problem.fitted, self.problem.fitted.transposed
        dead = _dead(xp.sum(W, axis=0), xp.sum(xp.astype(Z, xp.int64), axis=0))
        if not dead or self.alpha >= 1 or not X.nnz:
            return W, Z, 0
        W, Z = xp.asarray(W, copy=True), xp.asarray(Z, copy=True)
        R = self.problem.residuals(T, self.real(Z), W)
        ones = xp.ones((self.shape[0], 1), dtype=R.dtype, device=device_of(R))
        lost = kernel("csr_matmul", xp)(R * R, T.indices, T.indptr, ones)[:, 0]
        order, new = xp.argsort(-lost, stable=True), 0
        for k, place in zip(dead, range(self.shape[1]), strict=False):
            j = int(order[place])
            first, last = int(T.indptr[j]), int(T.indptr[j + 1])
            rest = R[first:last]
            rest = xp.where(rest > 0, rest, xp.zeros_like(rest))
            if float(lost[j]) > self.rounding and float(xp.sum(rest)) > 0:
                W[:, k], Z[:, k] = _spread(rest, T.indices[first:last], self.shape[0], xp), 0
                Z[j, k] = 1
                new += 1
        return W, Z, new


def _spread(values: Any, places: Any, m: int, xp: Any) -> Any:
    """A vector (m,) with the values at ascending places, and zeros."""
    rows = xp.arange(m, dtype=places.dtype, device=device_of(places))
    at = xp.searchsorted(places, rows)
    at = xp.where(at < places.shape[0], at, 0 * at)
    return xp.where(xp.take(places, at) == rows, xp.take(values, at), 0 * xp.take(values, at))


def _gram(F: Any, xp: Any) -> Any:
    wide = xp.astype(F, xp.float64, copy=False)
    return xp.matmul(wide, wide.T)


def _dead(sizes: Any, uses: Any) -> list[int]:
    """Parts that no column has, or that are rounding beside the largest one."""
    count = int(sizes.shape[0])
    least = 4 * eps(sizes.dtype) * max((float(sizes[k]) for k in range(count)), default=0.0)
    return [k for k in range(count) if not (float(sizes[k]) > least and int(uses[k]) > 0)]
