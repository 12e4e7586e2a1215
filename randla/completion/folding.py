"""New rows and columns of a completed matrix: exact solves against the factors of the other side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from .._arrays import check_together
from .._backend import kernel
from .._checks import check_integer
from .als import complete
from .losses import loss_weights
from .observations import Observations, as_observations
from .results import CompletionResult, Settings, Training
from .uncertainty import with_constant

_ROUNDS = 30  # of reweighting, for a robust loss: residuals change by less than a thousandth of the scale after ten


class Folded(NamedTuple):
    """Factors (q, rank) and biases (q,) of new rows; biases are None where the result has none."""

    factors: Any
    bias: Any


def fold_in(result: CompletionResult, X_new: Any) -> Folded:
    """Compute the factors and biases of new rows, with the columns held: one exact ridge solve for each row.

    It is what the sweep of a fit does to its rows, with the ridge and the loss of that fit, in ``O(nnz rank**2)``.

    Parameters
    ----------
    result : CompletionResult
        A fit of a matrix (m, n).
    X_new : sparse matrix, or array with NaN, shape (q, n)
        Entries of the new rows.

    Returns
    -------
    Folded
        ``factors`` (q, rank) and ``bias`` (q,); zeros for rows without entries, and, where the ridge is zero, for rows
        that their entries do not determine.

    Raises
    ------
    ValueError
        If X_new has another number of columns, or repeated or infinite entries.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> from randla.completion.folding import fold_in
    >>> X = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 6.0))
    >>> fit = randla.complete(X, 1, reg=1e-9, bias=False, rng=0)
    >>> row = fold_in(fit, np.array([[np.nan, 4.0, np.nan, np.nan, np.nan]]))
    >>> (row.factors @ fit.col_factors.T).round(3)
    array([[ 2.,  4.,  6.,  8., 10.]])
    """
    X = _entries(result, X_new, "X_new", 1)
    factors, bias, _ = _solved(result, X)
    return Folded(factors, bias)


def append_rows(result: CompletionResult, X_new: Any, *, sweeps: int = 0, rng: Any = None) -> CompletionResult:
    """Return the result with new rows below its own: folded in, and then, if asked for, all entries swept.

    Parameters
    ----------
    result : CompletionResult
        A fit of a matrix (m, n).
    X_new : sparse matrix, or array with NaN, shape (q, n)
        Entries of the new rows.
    sweeps : int, sweeps >= 0, default 0
        Sweeps over the old entries and the new ones; the old ones must still be there, see
        `CompletionResult.attach`.
    rng : None, int, SeedSequence, Generator or Key
        Not drawn from by a fit that starts from factors; for the interface of `complete`.

    Returns
    -------
    CompletionResult
        Of shape (m + q, n).  Errors, noise and history are the old ones without sweeps, new ones with them.

    Raises
    ------
    ValueError
        As `fold_in`, or if sweeps are asked for and the old entries are not there.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> X = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 6.0))
    >>> fit = randla.complete(X, 1, reg=1e-9, bias=False, rng=0)
    >>> grown = randla.append_rows(fit, np.array([[np.nan, 18.0, np.nan, np.nan, np.nan]]))
    >>> grown.shape, grown.predict(8, 4).round(3)
    ((9, 5), np.float64(45.0))
    """
    sweeps = check_integer(sweeps, "sweeps", low=0)
    X = _entries(result, X_new, "X_new", 1)
    if sweeps and (result.training is None or result.settings is None):
        raise ValueError(f"sweeps must be 0 for a result without its entries, got {sweeps}; attach them first")
    xp = array_namespace(result.row_factors)
    factors, bias, weights = _solved(result, X)
    counts = None if result.row_counts is None else xp.concat([result.row_counts, X.row_counts])
    col_counts = None if result.col_counts is None else result.col_counts + X.col_counts
    grown = replace(
        result, row_factors=xp.concat([result.row_factors, factors]),
        row_bias=None if bias is None else xp.concat([result.row_bias, bias]), row_counts=counts,
        col_counts=col_counts, training=_stacked(result.training, X, weights),
    )  # fmt: skip
    return _swept(grown, sweeps, rng) if sweeps else grown


def append_cols(result: CompletionResult, X_new: Any, *, sweeps: int = 0, rng: Any = None) -> CompletionResult:
    """Return the result with new columns to the right of its own; see `append_rows`.

    Parameters
    ----------
    result : CompletionResult
        A fit of a matrix (m, n).
    X_new : sparse matrix, or array with NaN, shape (m, q)
        Entries of the new columns.
    sweeps : int, sweeps >= 0, default 0
        Sweeps over all entries afterwards.
    rng : None, int, SeedSequence, Generator or Key
        As in `append_rows`.

    Returns
    -------
    CompletionResult
        Of shape (m, n + q).

    Raises
    ------
    ValueError
        As `append_rows`.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> X = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 6.0))
    >>> fit = randla.complete(X, 1, reg=1e-9, bias=False, rng=0)
    >>> randla.append_cols(fit, 2 * X[:, :1]).predict(7, 5).round(3)
    np.float64(16.0)
    """
    X = _entries(result, X_new, "X_new", 0)
    return swapped(append_rows(swapped(result), X.transposed, sweeps=sweeps, rng=rng))


def swapped(result: CompletionResult) -> CompletionResult:
    """The result of the transposed matrix."""
    training = result.training
    if training is not None:
        X, both = training.observations, (training.weights, training.given)
        training = Training(X.transposed, *(None if w is None else X.by_columns(w) for w in both))
    return replace(
        result, row_factors=result.col_factors, col_factors=result.row_factors, row_bias=result.col_bias,
        col_bias=result.row_bias, row_counts=result.col_counts, col_counts=result.row_counts, training=training,
    )  # fmt: skip


def _entries(result: CompletionResult, X_new: Any, name: str, axis: int) -> Observations:
    """The new entries in the dtype of the factors, their number along `axis` checked."""
    X = as_observations(X_new, name=name)
    check_together(result.row_factors, X.data, names=("result", name))
    if X.shape[axis] != result.shape[axis]:
        kind = ("rows", "columns")[axis]
        raise ValueError(f"{name} must have {result.shape[axis]} {kind}, got {X.shape[axis]}")
    xp = array_namespace(X.data)
    return X if X.data.dtype == result.row_factors.dtype else X.with_values(xp.astype(X.data, result.row_factors.dtype))


def _solved(result: CompletionResult, X: Observations) -> tuple[Any, Any, Any]:
    """Factors, biases, and the weights of a robust loss at them (None for squares)."""
    settings = result.settings or Settings(0.0, 0.0, 1.0 if result.row_bias is not None else 0.0)
    xp, k = array_namespace(X.data), result.rank
    V = with_constant(result.col_factors, settings.column, xp)
    rest = X.data - result.mean
    if result.col_bias is not None:
        rest = rest - xp.take(result.col_bias, X.indices)
    ridge, weights = settings.ridge(X.row_counts, xp), None
    solve = kernel("masked_cholesky", xp)
    found = solve(V, X.indices, X.indptr, None, rest, None, ridge)[0]
    if settings.loss != "squared":
        for _ in range(_ROUNDS):
            errors = rest - kernel("sampled_products", xp)(found, V, X.indices, X.indptr)
            weights = loss_weights(errors, settings.loss, settings.loss_scale, xp)
            found = solve(V, X.indices, X.indptr, weights, weights * rest, None, ridge)[0]
    bias = None if settings.column == 0.0 else settings.column * found[:, k]
    return found[:, :k], bias, weights


def _stacked(training: Training | None, X: Observations, weights: Any) -> Training | None:
    """The old entries and below them the new ones."""
    if training is None:
        return None
    old, xp = training.observations, X.xp
    wide = xp.int64
    pointers = xp.astype(X.indptr[1:], wide) + old.nnz
    both = Observations(
        xp.concat([old.data, X.data]), xp.concat([xp.astype(old.indices, wide), xp.astype(X.indices, wide)]),
        xp.concat([xp.astype(old.indptr, wide), pointers]), (old.shape[0] + X.shape[0], old.shape[1]),
    )  # fmt: skip
    pairs = ((training.weights, weights), (training.given, None))
    return Training(both, *(_joined(first, second, old.data, X.data, xp) for first, second in pairs))


def _joined(first: Any, second: Any, old: Any, new: Any, xp: Any) -> Any:
    """Weights of old and new entries, ones where there are none; None where neither has any."""
    if first is None and second is None:
        return None
    return xp.concat([xp.ones_like(old) if first is None else first, xp.ones_like(new) if second is None else second])


def _swept(grown: CompletionResult, sweeps: int, rng: Any) -> CompletionResult:
    """Sweeps over all entries from the factors that are there, with the settings of their fit."""
    training, settings = grown.training, grown.settings
    if training is None or settings is None:
        return grown
    robust, bias = settings.loss != "squared", settings.column != 0.0
    return complete(
        training.observations, grown.rank, reg=settings.reg, reg_exponent=settings.reg_exponent, bias=bias,
        reg_bias=settings.reg / settings.column**2 if bias and settings.reg > 0 else None, loss=settings.loss,
        loss_scale=settings.loss_scale if robust else None, weights=training.given,
        init=grown, max_iter=sweeps, tol=0.0, rng=rng, on_failure="ignore",
    )  # fmt: skip
