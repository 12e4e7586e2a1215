"""Fits of a low-rank second moment to means of products that are known for some pairs of columns only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import from_host
from .._backend import kernel
from .._random import Key
from ..linear_maps import LinearMap, Look
from ..lowrank.eigh import eigh
from .moments import PairStatistics
from .pair_tables import Pattern
from .quasi_newton import Descent, minimise

ESTIMATORS = ("factored", "hajek")
_SMALL = 500  # up to this side a full eigendecomposition is as cheap as anything
_STEPS = 6  # Krylov steps of the start for more columns: it need not be exact
_FLOOR = 1e-3  # of the largest eigenvalue: what the start has at least in each direction
_PENALTY = 1e-4, 1e-3  # factor and threshold of the penalty on long rows, from the authors' code of "hajek"


class _SymmetricPairs(LinearMap):
    """A symmetric matrix by its entries above the diagonal, and on it."""

    knows_norm = False

    def __init__(self, pattern: Pattern, values: Any, diagonal: Any) -> None:
        d = int(diagonal.shape[0])
        super().__init__((d, d), values.dtype, array_namespace(values), device_of(values))
        self.pattern, self.values, self.diagonal = pattern, values, diagonal

    def _matmul(self, X: Any) -> Any:
        P = self.values, self.pattern.indices, self.pattern.indptr
        upper = kernel("csr_matmul", self.xp)(*P, X)
        return upper + kernel("csr_rmatmul", self.xp)(*P, X, self.shape[0]) + self.diagonal[:, None] * X

    def _rmatmul(self, Y: Any) -> Any:
        return self._matmul(Y)

    def _look(self, S: Any) -> Look:
        panel = self.xp.astype(from_host(S.toarray(), self.xp, self._like()).mT, self.dtype)
        return Look(self._matmul(panel).mT, math.nan, math.nan, None)


class PairFit:
    """Means of products with the weight of each, in units of the mean square of the columns.

    The loss is ``sum_ab c_ab ((V V^T)_ab - H_ab)**2`` over the pairs and the diagonal, relative to that of V = 0.
    """

    def __init__(
        self, known: PairStatistics, estimator: str, diagonal_weight: float, n_rows: int, rank: int, key: Key
    ) -> None:
        self.xp = xp = array_namespace(known.means)
        self.pattern, self.rank, self.key, self.d = known.pattern, rank, key, int(known.column_means.shape[0])
        self.seen, diagonal_seen = known.counts > 0, known.column_counts > 0
        twice = 2.0 if known.pattern is not None else 1.0  # square arrays hold each pair in both orders
        n_pairs = twice * float(xp.sum(xp.astype(self.seen, xp.float64)))
        n_columns = float(xp.sum(xp.astype(diagonal_seen, xp.float64)))
        self.unit = float(xp.sum(known.column_means)) / max(n_columns, 1.0)
        self.filled = n_pairs / max(1.0, self.d * (self.d - 1.0))
        usable = self.unit if self.unit > 0.0 and math.isfinite(self.unit) else 1.0
        self.H, self.h = known.means / usable, known.column_means / usable
        self.penalty = _PENALTY if estimator == "hajek" else (0.0, 0.0)
        total = max(1.0, n_pairs + n_columns)
        if estimator == "hajek":
            share = known.column_counts / max(n_rows, 1)  # 1 - (1 - p)**m: how probable it is that a column is known
            observed = -xp.expm1(n_rows * xp.log1p(-xp.where(share < 1.0, share, 1.0 - 1e-16 * share)))
            self.C = xp.astype(self.seen, xp.float64) * (twice / (2.0 * total))
            self.c = diagonal_weight * observed / (2.0 * total)
        else:
            self.C = known.counts / max(1.0, float(xp.sum(known.counts)))
            self.c = known.column_counts * (diagonal_weight / max(1.0, float(xp.sum(known.column_counts))))
        norm = float(xp.sum(self.C * self.H * self.H)) + float(xp.sum(self.c * self.h * self.h))
        self.finite = math.isfinite(norm) and math.isfinite(self.unit)
        self.trivial = not norm > 0.0
        if self.finite and not self.trivial:
            self.C, self.c = self.C / norm, self.c / norm
            self.penalty = self.penalty[0] / norm / self.d, self.penalty[1]

    def evaluate(self, V: Any) -> tuple[float, Any]:
        """The loss at V (d, rank), in units of the data, and its gradient."""
        xp = self.xp
        r = xp.sum(V * V, axis=1) - self.h
        if self.pattern is None:
            R = xp.matmul(V, V.mT) - self.H
            value = float(xp.sum(self.C * R * R))
            gradient = 4.0 * xp.matmul(self.C * R, V)
        else:
            indices, indptr = self.pattern.indices, self.pattern.indptr
            R = kernel("sampled_products", xp)(V, V, indices, indptr) - self.H
            weighted = self.C * R
            value = float(xp.sum(weighted * R))
            gradient = kernel("csr_matmul", xp)(weighted, indices, indptr, V)
            gradient = 2.0 * (gradient + kernel("csr_rmatmul", xp)(weighted, indices, indptr, V, self.d))
        value += float(xp.sum(self.c * r * r))
        gradient = gradient + (4.0 * self.c * r)[:, None] * V
        factor, threshold = self.penalty
        if factor > 0.0:
            length = xp.sqrt(xp.sum(V * V, axis=1))
            above = xp.where(length > threshold, length - threshold, xp.zeros_like(length))
            value += factor * float(xp.sum(above**4))
            slope = 4.0 * factor * above**3 / xp.where(length > 0, length, xp.ones_like(length))
            gradient = gradient + slope[:, None] * V
        return value, gradient

    def start(self) -> Any:
        """Leading eigenvectors of the means, those of pairs divided by the share of pairs that are known."""
        xp, d, k = self.xp, self.d, self.rank
        filled = max(self.filled, 1.0 / (d * d))
        if self.pattern is None:
            eye = xp.eye(d, dtype=xp.float64, device=device_of(self.H))
            values, E = xp.linalg.eigh(self.H / filled + eye * self.h[:, None])
        elif d <= _SMALL and is_numpy_namespace(xp):
            M = xp.zeros((d, d), dtype=xp.float64)
            M[self.pattern.rows, self.pattern.indices] = self.H / filled
            values, E = xp.linalg.eigh(M + M.mT + xp.eye(d) * self.h[:, None])
        else:
            M = _SymmetricPairs(self.pattern, self.H / filled, self.h)
            # noise has eigenvalues of both signs, and these come by modulus
            values, E = eigh(M, min(d, 2 * k + 8), n_power_iter=_STEPS, rng=self.key, on_failure="ignore")
            order = xp.argsort(values, stable=True)
            values, E = values[order], xp.take(E, order, axis=1)
        values, E = xp.flip(values[-k:], axis=0), xp.flip(E[:, -k:], axis=1)
        largest = float(values[0]) if values.shape[0] else 0.0
        if not largest > 0.0:
            largest, values = 1.0, xp.ones_like(values)
        low = _FLOOR * largest * xp.ones_like(values)
        return E * xp.sqrt(xp.where(values > low, values, low))[None, :]

    def run(self, max_iter: int, tol: float, callback: Callable[[int, float, float], bool] | None = None) -> Descent:
        """Fit V from the spectral start; V comes back in the units of the data."""
        found = minimise(self.evaluate, self.start(), max_iter=max_iter, tol=tol, callback=callback)
        return Descent(math.sqrt(self.unit) * found.X, found.value, found.gradient, found.history, found.status)
