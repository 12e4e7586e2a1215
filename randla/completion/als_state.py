"""Alternating least squares as a state and a step: what one sweep does to factors and biases.

A bias is a factor whose partner is constant: the rows of the columns' factors get one entry more, `column`, and the
last entry of a row's solution times that is its bias.  One ridge serves both.  After each sweep factors and biases are
exchanged against one another as the ridges like it best, which changes no prediction (`als_gauge`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from array_api_compat import device

from .._arrays import eps
from .._backend import kernel
from .._parallel import serial_blas
from .als_gauge import balanced, levelled, shifted, turned
from .losses import loss_values, loss_weights, robust_scale
from .observations import Observations
from .results import Settings
from .uncertainty import with_constant

SCALE_SWEEPS = 5  # sweeps that estimate the scale of a robust loss anew; it is fixed for all after them
CG_STEPS = 3  # of a half sweep: with five or twelve a fit takes as many sweeps
FIRST_CG_STEPS = 5  # of the first sweep, which may start without a solution
_BLOCK = 2**18  # entries that are converted to double precision at a time
_CG_TOL = 1e-3  # at 1e-2 fits end visibly above the objective of exact sweeps


@dataclass(frozen=True)
class State:
    """Where the iteration stands; everything that the next sweep depends on.

    Attributes
    ----------
    row, col : array, shapes (m, w) and (n, w)
        Solutions: factors and, with biases, one entry more.
    history, validation : tuple of float
        Objective and held-out error after each sweep.
    scale : float
        Scale of a robust loss; 1 for squares.
    best : tuple of two arrays, or None
        `row` and `col` after the sweep of the least held-out error, `best_iter`.
    """

    row: Any
    col: Any
    history: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    scale: float = 1.0
    best: tuple[Any, Any] | None = None
    best_iter: int = 0

    @property
    def n_iter(self) -> int:
        """Sweeps done."""
        return len(self.history)


class _Side(NamedTuple):
    """What the least-squares problems of all rows share: entries by rows less the mean, and ridges."""

    entries: Observations
    ridge: Any
    weights: Any


class Problem:
    """Observed entries, entries held out, and what is minimised; `step` is a function of the state only."""

    def __init__(
        self, fitted: Observations, held: Observations | None, weights: Any, rank: int, settings: Settings, mean: float,
        scale_given: bool, solver: str,
    ) -> None:  # fmt: skip
        self.xp, self.rank, self.settings, self.mean, self.solver = fitted.xp, rank, settings, mean, solver
        self.fitted, self.weights, self.scale_given = fitted, weights, scale_given
        self.centred = fitted if mean == 0.0 else fitted.with_values(fitted.data - mean)
        self.held = held if held is None or mean == 0.0 else held.with_values(held.data - mean)
        xp = self.xp
        self.row_ridge = settings.ridge(self.centred.row_counts, xp)
        self.col_ridge = settings.ridge(self.centred.col_counts, xp)
        self._known: tuple[Any, Any, Any] = (None, None, None)
        self._lost: tuple[Any, float] = (None, 0.0)
        self.squares = sum_squares(self.centred.data, xp)
        # sum of squares that is rounding, of the entries themselves and of what is done with them
        rounding = eps(fitted.data.dtype) ** 2
        self.floor = rounding * (sum_squares(fitted.data, xp) + 128**2 * self.squares)

    @property
    def robust(self) -> bool:
        """Whether the loss is other than squares."""
        return self.settings.loss != "squared"

    @property
    def first_comparable(self) -> int:
        """Place in the histories from which on the loss has the same scale."""
        return SCALE_SWEEPS - 1 if self.robust and not self.scale_given else 0

    def scale_is_fixed(self, n_iter: int) -> bool:
        """Whether the sweep after `n_iter` of them, and all later ones, keep the scale of the loss."""
        return n_iter > self.first_comparable or self.first_comparable == 0

    # --- one sweep ----------------------------------------------------------------------------------------------------

    def step(self, state: State) -> State:
        """One sweep: rows with the columns held, then columns with the rows held."""
        xp, scale = self.xp, state.scale
        if not self.scale_is_fixed(state.n_iter):
            scale = robust_scale(self.residuals(state), xp)
        weights = self.weights_at(state, scale)
        by_columns = None if weights is None else self.fitted.by_columns(weights)
        limits = self._cg_limits(state)
        row = self._solved(self.centred, self.row_ridge, weights, state.col, state.row, limits)
        col = self._solved(self.centred.transposed, self.col_ridge, by_columns, row, state.col, limits)
        if not math.isfinite(sum_squares(xp.reshape(row, (-1,)), xp) + sum_squares(xp.reshape(col, (-1,)), xp)):
            return replace(state, history=(*state.history, math.inf))
        row, col = self._balanced(row, col)
        moved = replace(state, row=row, col=col, scale=scale)
        added: dict[str, Any] = {"history": (*state.history, self.objective(moved))}
        if self.held is not None:
            error = self.held_out_error(moved)
            added["validation"] = (*state.validation, error)
            first = state.best is None or not self.scale_is_fixed(state.n_iter)
            if first or error < state.validation[state.best_iter - 1]:
                added |= {"best": (row, col), "best_iter": state.n_iter + 1}
        after = replace(moved, **added)
        self._lost = after, self.loss(moved)
        return after

    def weights_at(self, state: State, scale: float) -> Any:
        """The weights of the entries (nnz,): those given times those of the loss; None where all are one."""
        if not self.robust:
            return self.weights
        weights = loss_weights(self.residuals(state), self.settings.loss, scale, self.xp)
        return weights if self.weights is None else weights * self.weights

    def _cg_limits(self, state: State) -> tuple[float, int]:
        """Tolerance and steps of conjugate gradients.

        A gradient is ``A^T r`` with the residuals r, and the tolerance is relative to ``A^T b`` with the entries b: it
        follows the ratio of r to b, and the root of the last change of the objective, which is of second order.
        """
        if state.n_iter == 0:
            return _CG_TOL, FIRST_CG_STEPS
        level = math.sqrt(self.loss(state) / self.squares) if self.squares > 0 else 1.0
        tol = min(_CG_TOL, 0.1 * math.sqrt(_relative_change(state.history)))
        return max(1e-14, tol * min(1.0, level)), CG_STEPS

    def _solved(
        self, X: Observations, ridge: Any, weights: Any, other: Any, start: Any, limits: tuple[float, int]
    ) -> Any:
        """Solutions of all rows of X, with the design made of `other`."""
        xp, k = self.xp, self.rank
        V = with_constant(other[:, :k], self.settings.column, xp)
        targets = X.data
        if self.settings.column != 0.0:
            targets = targets - xp.take(self.settings.column * other[:, k], X.indices)
        targets = targets if weights is None else targets * weights
        if self.solver == "cholesky":
            found, pivots = kernel("masked_cholesky", xp)(V, X.indices, X.indptr, weights, targets, None, ridge)
            # a row that its entries do not determine keeps what it had, so that the objective does not rise
            return xp.where((pivots > 0.0)[:, None], found, start)
        return self._by_cg(X, V, weights, targets, ridge, start, limits)

    def _by_cg(
        self, X: Observations, V: Any, weights: Any, targets: Any, ridge: Any, start: Any, limits: tuple[float, int]
    ) -> Any:
        """A few steps of conjugate gradients in the basis where the mean Gram matrix of the rows is diagonal."""
        xp = self.xp
        amounts = xp.astype(X.row_counts, xp.float64) if weights is None else row_sums(weights, X.indptr, xp)
        diagonal, Q = mean_gram(V, X.col_counts, xp)
        design, first = (turned(F, Q, xp) for F in (V, start))
        found = kernel("masked_cg", xp)(
            design, X.indices, X.indptr, weights, targets, None, ridge, diagonal, amounts, first, *limits
        )[0]
        return turned(found, Q.mT, xp)

    def _balanced(self, row: Any, col: Any) -> tuple[Any, Any]:
        """The same predictions with the least ridge terms."""
        if self.settings.reg == 0.0:
            return row, col
        xp, k, column = self.xp, self.rank, self.settings.column
        rows = _of_seen(self.row_ridge, self.centred.row_counts, xp)
        cols = _of_seen(self.col_ridge, self.centred.col_counts, xp)
        if column != 0.0:
            row, col = shifted(row, col, rows, cols, column, xp)
            col, row = shifted(col, row, cols, rows, column, xp)
            row, col = levelled(row, col, rows, cols, xp)
        return balanced(row, col, k, rows, cols, xp) if k else (row, col)

    # --- how good a state is ------------------------------------------------------------------------------------------

    def _products(self, row: Any, col: Any, X: Observations) -> Any:
        """What a state predicts for the entries of X, without the mean; the biases are two columns more."""
        xp, k, column = self.xp, self.rank, self.settings.column
        if column != 0.0:
            ones = xp.ones_like(row[:, :1]), xp.ones_like(col[:, :1])
            row = xp.concat([row[:, :k], column * row[:, k:], ones[0]], axis=1)
            col = xp.concat([col[:, :k], ones[1], column * col[:, k:]], axis=1)
        return kernel("sampled_products", xp)(row, col, X.indices, X.indptr)

    def residuals(self, state: State) -> Any:
        """Entries less predictions (nnz,); those of the last state asked for are kept."""
        if self._known[0] is not state.row or self._known[1] is not state.col:
            self._known = (None, None, None)  # the memory of the old ones is free before the new ones are made
            found = self.centred.data - self._products(state.row, state.col, self.centred)
            self._known = (state.row, state.col, found)
        return self._known[2]

    def loss(self, state: State) -> float:
        """The sum of the losses, weighted; that of the last state asked for is kept."""
        if self._lost[0] is not state:
            xp, residuals = self.xp, self.residuals(state)
            if not self.robust and self.weights is None:
                self._lost = state, sum_squares(residuals, xp)
            else:
                values = loss_values(residuals, self.settings.loss, state.scale, xp)
                values = values if self.weights is None else values * self.weights
                self._lost = state, float(xp.sum(values, dtype=xp.float64))
        return self._lost[1]

    def objective(self, state: State) -> float:
        """The sum of the losses and the ridge terms."""
        xp = self.xp
        total = self.loss(state)
        for ridge, solution in ((self.row_ridge, state.row), (self.col_ridge, state.col)):
            total += float(xp.sum(ridge * xp.sum(xp.astype(solution, xp.float64) ** 2, axis=1)))
        return total

    def held_out_losses(self, state: State, held: Observations) -> Any:
        """The loss of each entry held out."""
        xp = self.xp
        errors = held.data - self._products(state.row, state.col, held)
        return loss_values(xp.astype(errors, xp.float64), self.settings.loss, state.scale, xp)

    def held_out_error(self, state: State) -> float:
        """The root of the mean loss of the entries held out; NaN where there are none."""
        if self.held is None or self.held.nnz == 0:
            return math.nan
        return math.sqrt(float(self.xp.mean(self.held_out_losses(state, self.held))))

    def rmse(self, state: State) -> float:
        """The root of the mean loss of the entries fitted."""
        if self.weights is None:
            return math.sqrt(self.loss(state) / max(1, self.fitted.nnz))
        losses = loss_values(self.residuals(state), self.settings.loss, state.scale, self.xp)
        return math.sqrt(float(self.xp.mean(self.xp.astype(losses, self.xp.float64))))

    def degrees_of_freedom(self, state: State) -> float:
        """Parameters that the entries determine: of each side what its ridges leave, less those that both share.

        Row i with n_i entries has sum_c n_i d_c / (n_i d_c + ridge_i), where d are the eigenvalues of the mean of
        ``v v^T`` over all entries: exact for rows that are alike.
        """
        xp, shares, total = self.xp, [], 0.0
        sides = ((self.centred, self.row_ridge, state.col), (self.centred.transposed, self.col_ridge, state.row))
        for X, ridge, other in sides:
            V = with_constant(other[:, : self.rank], self.settings.column, xp)
            energy = xp.astype(X.row_counts, xp.float64)[:, None] * mean_gram(V, X.col_counts, xp)[0][None, :]
            below = energy + ridge[:, None]
            left = xp.sum(energy / xp.where(below > 0, below, xp.ones_like(below)), axis=1)
            counts = xp.astype(X.row_counts, xp.float64)
            total += float(xp.sum(xp.where(left < counts, left, counts)))
            shares.append(float(xp.mean(left)))
        return total - shares[0] * shares[1]


def _relative_change(history: tuple[float, ...]) -> float:
    """By which share the last sweep lowered the objective; 1 before it is known."""
    if len(history) < 2 or not history[-2] > 0:
        return 1.0
    return min(1.0, max(0.0, 1.0 - history[-1] / history[-2]))


def mean_gram(V: Any, counts: Any, xp: Any) -> tuple[Any, Any]:
    """Eigenvalues, at least zero, and eigenvectors of the mean of ``v v^T`` over entries, float64.

    `counts` says how many entries each row v of V has.
    """
    wide = xp.astype(V, xp.float64)
    amounts = xp.astype(counts, xp.float64)
    with serial_blas():  # sums in another order would make a resumed run differ from an uninterrupted one
        G = xp.matmul(wide.mT, amounts[:, None] * wide) / max(1.0, float(xp.sum(amounts)))
        values, Q = xp.linalg.eigh(0.5 * (G + G.mT))
    return xp.where(values > 0, values, xp.zeros_like(values)), Q


def _of_seen(ridge: Any, counts: Any, xp: Any) -> Any:
    """Zero for rows without entries, which stay zero and have no say."""
    return xp.where(counts > 0, ridge, xp.zeros_like(ridge))


def sum_squares(values: Any, xp: Any) -> float:
    """The sum of squares of a vector, in double precision and in a fixed order."""
    total, n = 0.0, int(values.shape[0])
    with serial_blas():
        for lo in range(0, n, _BLOCK):
            wide = xp.astype(values[lo : min(lo + _BLOCK, n)], xp.float64)
            total += float(xp.vecdot(wide, wide))
    return total


def row_sums(values: Any, indptr: Any, xp: Any) -> Any:
    """The sum of one number for each entry over the entries of each row; float64 (m,)."""
    zero = xp.zeros(1, dtype=xp.float64, device=device(values))
    whole = xp.concat([zero, xp.cumulative_sum(xp.astype(values, xp.float64))])
    pointers = xp.astype(indptr, xp.int64)
    return xp.take(whole, pointers[1:]) - xp.take(whole, pointers[:-1])
