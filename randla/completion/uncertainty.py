"""How sure a prediction is: what the noise of the observed entries does to the factors of either side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace, device

from .._backend import kernel

if TYPE_CHECKING:
    from .results import CompletionResult


def with_constant(factors: Any, column: float, xp: Any) -> Any:
    """The factors beside a column of one value; the factors themselves where that is zero."""
    if column == 0.0:
        return factors
    constant = xp.full((factors.shape[0], 1), column, dtype=factors.dtype, device=device(factors))
    return xp.concat([factors, constant], axis=1)


def prediction_std(result: CompletionResult, rows: Any, cols: Any, noise: bool) -> Any:
    """Standard deviations of the entries at (rows, cols), float64 (q,); see `CompletionResult.predict_std`."""
    if result.training is None or result.settings is None:
        raise ValueError(
            "result must hold the entries that it was fitted to, got none; call attach(as_observations(X)) on a result "
            "of complete()"
        )
    xp, settings = array_namespace(result.row_factors), result.settings
    X, w = result.training.observations, result.training.weights
    sides = (
        (result.row_factors, result.row_bias, result.col_factors, rows, cols, X, w),
        (result.col_factors, result.col_bias, result.row_factors, cols, rows, X.transposed, _by_columns(X, w)),
    )
    total, spreads, nothing = xp.zeros(rows.shape, dtype=xp.float64, device=device(rows)), [], None
    for own, bias, other, places, partners, seen, weights in sides:
        V = with_constant(other, settings.column, xp)
        U = xp.take(V, partners, axis=0)
        ridge = settings.ridge(seen.row_counts, xp)
        solve = kernel("masked_variances", xp)
        variance = result.noise**2 * solve(V, seen.indices, seen.indptr, weights, None, ridge, places, U)
        spread = _spread(own, bias, settings.column, seen.row_counts, xp)
        wide = xp.astype(U, xp.float64)
        unseen = xp.take(seen.row_counts, places) == 0
        total = total + xp.where(unseen, xp.sum(xp.matmul(wide, spread) * wide, axis=1), variance)
        spreads.append(spread[: result.rank, : result.rank])
        nothing = unseen if nothing is None else nothing & unseen
    # neither side is known: both factors are zero, and their product has the variance of two independent ones
    total = total + xp.where(nothing, xp.sum(spreads[0] * spreads[1]), xp.zeros_like(total))
    return xp.sqrt(total + result.noise**2 if noise else total)


def _by_columns(X: Any, weights: Any) -> Any:
    return None if weights is None else X.by_columns(weights)


def _spread(factors: Any, bias: Any, column: float, counts: Any, xp: Any) -> Any:
    """Mean of ``x x^T`` over the rows with observed entries, x the factors with the bias as its last entry; float64."""
    wide = xp.astype(factors, xp.float64)
    if column != 0.0:
        wide = xp.concat([wide, xp.astype(bias, xp.float64)[:, None] / column], axis=1)
    n_seen = int(xp.sum(xp.astype(counts > 0, xp.int64)))
    return xp.matmul(wide.mT, wide) / max(1, n_seen)
