"""How good lists of recommendations are: recall, NDCG and reciprocal rank of interactions that were held out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import device

from .._arrays import check_together, from_host, is_sparse
from .._backend import kernel
from .._checks import check_real
from .._random import Key, as_key
from .._results import Result, Status
from ..sampling.selection import shared_uniforms
from .observations import Observations, as_observations


@dataclass(frozen=True, repr=False)
class RankingScores(Result):
    """Means over rows of what the first k places of their lists hold, with standard errors.

    Attributes
    ----------
    recall : float
        ``hits / min(k, n_held)`` for n_held interactions held out: 1 is the best that k places allow.
    ndcg : float
        ``sum over hits of 1 / log2(1 + place)``, relative to the largest such sum that is possible.
    mrr : float
        ``1 / place`` of the first hit, 0 without one.
    recall_error, ndcg_error, mrr_error : float
        Standard errors of the means: those of other rows drawn from the same population differ by about as much.
    k : int
        Length of the lists.
    n_rows : int
        Rows with interactions held out; the others do not count.
    per_row : array, shape (m, 3)
        Recall, NDCG and reciprocal rank of each row in double precision; NaN where nothing is held out.
    status : Status
        CONVERGED.
    """

    recall: float
    ndcg: float
    mrr: float
    recall_error: float
    ndcg_error: float
    mrr_error: float
    k: int
    n_rows: int
    per_row: Any
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("recall", "ndcg", "mrr")


class RowSplit(NamedTuple):
    """Rows to fit on, and other rows of which a part is known; `rows` are the places of the latter."""

    train: Any
    fold_in: Any
    held: Any
    rows: Any


def ranking_scores(columns: Any, held: Any) -> RankingScores:
    """Compute recall, NDCG and mean reciprocal rank at k of lists of columns.

    Parameters
    ----------
    columns : array of int, shape (m, k)
        A list for each row, best first, without repetitions; -1 stands for no column.
    held : sparse matrix, or array, shape (m, n)
        Interactions held out.  Positive stored values are hits; their sizes do not matter.

    Returns
    -------
    RankingScores
        Means, standard errors, and the scores of each row.

    Raises
    ------
    ValueError
        If shapes do not fit, or no row has anything held out.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from randla.completion.ranking_metrics import ranking_scores
    >>> held = sp.csr_array(np.array([[0, 1, 0, 1], [1, 0, 0, 0]]))
    >>> found = ranking_scores(np.array([[1, 2], [2, 0]]), held)
    >>> found.recall, round(found.ndcg, 3), found.mrr
    (0.75, 0.622, 0.75)
    """
    relevant = as_observations(held, name="held")
    relevant = relevant.select(relevant.data > 0)
    columns = relevant.xp.asarray(columns) if isinstance(columns, (list, tuple)) else columns
    check_together(columns, relevant.data, names=("columns", "held"))
    xp, (m, n) = relevant.xp, relevant.shape
    if columns.ndim != 2 or columns.shape[0] != m or columns.shape[1] == 0:
        raise ValueError(f"columns must have shape ({m}, k) for k >= 1, got {tuple(columns.shape)}")
    k, place = int(columns.shape[1]), device(columns)
    counts = relevant.row_counts
    if not bool(xp.any(counts > 0)):
        raise ValueError(f"held must have positive entries, got none in shape {(m, n)}; hold out a larger share")
    hits = xp.astype(_members(columns, relevant), xp.float64)
    places = xp.arange(1, k + 1, dtype=xp.float64, device=place)
    gains = 1.0 / xp.log2(1.0 + places)
    best = xp.concat([xp.zeros(1, dtype=xp.float64, device=place), xp.cumulative_sum(gains)])
    reachable = xp.where(counts < k, counts, xp.full_like(counts, k))
    one = xp.ones_like(counts)
    least = xp.where(reachable > 0, reachable, one)  # rows without any are NaN below
    scores = xp.stack(
        [
            xp.sum(hits, axis=1) / xp.astype(least, xp.float64),
            xp.sum(hits * gains[None, :], axis=1) / xp.take(best, least),
            xp.max(hits / places[None, :], axis=1),
        ],
        axis=1,
    )
    asked = counts > 0
    table = xp.take(scores, xp.nonzero(asked)[0], axis=0)
    per_row = xp.where(asked[:, None], scores, xp.full_like(scores, math.nan))
    size = int(table.shape[0])
    means, spread = xp.mean(table, axis=0), xp.std(table, axis=0)
    errors = [float(spread[j]) / max(size - 1, 1) ** 0.5 for j in range(3)]
    recall, ndcg, mrr = (float(means[j]) for j in range(3))
    return RankingScores(recall, ndcg, mrr, errors[0], errors[1], errors[2], k, size, per_row)


def _members(columns: Any, relevant: Observations) -> Any:
    """Whether row i of `relevant` holds each of ``columns[i]``; bool (m, k)."""
    xp, (m, n) = relevant.xp, relevant.shape
    numbers = relevant.rows * n + xp.astype(relevant.indices, xp.int64)  # ascending
    rows = xp.arange(m, dtype=xp.int64, device=device(columns))
    wanted = rows[:, None] * n + xp.astype(columns, xp.int64)
    spots = xp.searchsorted(numbers, xp.reshape(wanted, (-1,)))
    last = int(numbers.shape[0]) - 1
    spots = xp.where(spots > last, xp.full_like(spots, last), spots)
    found = xp.reshape(xp.take(numbers, spots), wanted.shape) == wanted
    return found & (columns >= 0) & (columns < n)


def hold_out_interactions(X: Any, fraction: float, *, rng: Any = None) -> tuple[Any, Any]:
    """Split the interactions of each row: what stays to fit on, and those held out.

    Of a row of c interactions ``floor(fraction c + 1/2)`` are held out, at most c - 1, so that none loses all.  Which
    they are depends on the key, the row and the column only.

    Parameters
    ----------
    X : sparse matrix, or array, shape (m, n)
        Interactions; of an array those that are not NaN.
    fraction : float, 0 <= fraction < 1
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    tuple of two matrices, shape (m, n)
        Of the kind of X; arrays have NaN at the other places.

    Raises
    ------
    ValueError
        If `fraction` is out of range, or X has an entry twice.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from randla.completion.ranking_metrics import hold_out_interactions
    >>> train, held = hold_out_interactions(sp.csr_array(np.ones((3, 10))), 0.2, rng=0)
    >>> np.diff(train.indptr).tolist(), np.diff(held.indptr).tolist()
    ([8, 8, 8], [2, 2, 2])
    """
    fraction = check_real(fraction, "fraction", low=0.0, high=1.0, closed="left")
    observed = as_observations(X)
    out = _last_of_rows(observed, fraction, as_key(rng))
    return _as_given(observed.select(~out), X), _as_given(observed.select(out), X)


def _last_of_rows(observed: Observations, fraction: float, key: Key) -> Any:
    """Which entries are among the last of their row in a random order; bool (nnz,)."""
    xp, n = observed.xp, observed.shape[1]
    u = shared_uniforms(key.fold("interactions"), observed.rows * n + xp.astype(observed.indices, xp.int64), xp)
    order = xp.argsort(u, stable=True)
    order = xp.take(order, xp.argsort(xp.take(observed.rows, order), stable=True))
    counts = xp.astype(observed.row_counts, xp.float64)
    held = xp.astype(xp.floor(fraction * counts + 0.5), xp.int64)
    most = xp.where(observed.row_counts > 0, observed.row_counts - 1, observed.row_counts)
    first = xp.astype(observed.indptr[1:], xp.int64) - xp.where(held < most, held, most)
    places = xp.arange(observed.nnz, dtype=xp.int64, device=device(u))  # rows are at their own places in that order
    taken = places >= xp.take(first, observed.rows)
    return xp.take(taken, xp.argsort(order))


def split_rows(X: Any, fraction: float = 0.1, *, fold_in: float = 0.8, rng: Any = None) -> RowSplit:
    """Split off whole rows for a test of new rows: of each a part is known, and the rest is to be found.

    Parameters
    ----------
    X : sparse matrix, or array, shape (m, n)
        Interactions; of an array those that are not NaN.
    fraction : float, 0 < fraction < 1, default 0.1
        Share of the rows, drawn by their numbers; at least one, and not all.
    fold_in : float, 0 < fold_in < 1, default 0.8
        Share of the interactions of such a row that is known, at least one.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    RowSplit
        ``train``: the other rows; ``fold_in`` and ``held``: the two parts of the rows ``rows``, in that order.

    Raises
    ------
    ValueError
        If a share is out of range, X has fewer than two rows, or an entry twice.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from randla.completion.ranking_metrics import split_rows
    >>> split = split_rows(sp.random_array((100, 30), density=0.5, rng=0), 0.2, rng=0)
    >>> split.train.shape, split.fold_in.shape, split.held.shape
    ((80, 30), (20, 30), (20, 30))
    """
    fraction = check_real(fraction, "fraction", low=0.0, high=1.0, closed="neither")
    fold_in = check_real(fold_in, "fold_in", low=0.0, high=1.0, closed="neither")
    observed, key = as_observations(X), as_key(rng)
    xp, m = observed.xp, observed.shape[0]
    if m < 2:
        raise ValueError(f"X must have two rows or more, got {m}")
    size = min(max(1, math.floor(fraction * m + 0.5)), m - 1)
    drawn = np.sort(kernel("distinct_rows", np)(key.fold("rows"), m, size))
    others = np.setdiff1d(np.arange(m), drawn, assume_unique=True)
    rows = from_host(drawn, xp, observed.data)
    chosen = take_rows(observed, rows)
    train = take_rows(observed, from_host(others, xp, observed.data))
    out = _last_of_rows(chosen, 1.0 - fold_in, key.fold("fold-in"))
    known, held = (_as_given(part, X) for part in (chosen.select(~out), chosen.select(out)))
    return RowSplit(_as_given(train, X), known, held, rows)


def take_rows(observed: Observations, rows: Any) -> Observations:
    """The given rows, in their order, as a matrix of their own."""
    xp, place = observed.xp, device(observed.data)
    zero = xp.zeros(1, dtype=xp.int64, device=place)
    start, counts = xp.take(xp.astype(observed.indptr, xp.int64), rows), xp.take(observed.row_counts, rows)
    indptr = xp.concat([zero, xp.cumulative_sum(counts)])
    places = xp.arange(int(indptr[-1]), dtype=xp.int64, device=place)
    # CuPy's repeat takes no array of counts
    owner = xp.searchsorted(indptr[1:], places, side="right")
    entries = places + xp.take(start - indptr[:-1], owner)
    shape = (int(rows.shape[0]), observed.shape[1])
    return Observations(xp.take(observed.data, entries), xp.take(observed.indices, entries), indptr, shape)


def _as_given(observed: Observations, X: Any) -> Any:
    """The entries in the kind of matrix that X is."""
    if isinstance(X, Observations):
        return observed
    if is_sparse(X):
        kind = type(X.tocsr())
        return kind((observed.data, observed.indices, observed.indptr), shape=observed.shape)
    xp, (m, n) = observed.xp, observed.shape
    numbers = observed.rows * n + xp.astype(observed.indices, xp.int64)  # ascending
    every = xp.arange(m * n, dtype=xp.int64, device=device(numbers))
    if observed.nnz == 0:
        return xp.full((m, n), math.nan, dtype=observed.data.dtype, device=device(numbers))
    spots = xp.searchsorted(numbers, every)
    spots = xp.where(spots < observed.nnz, spots, xp.zeros_like(spots))
    there = xp.take(numbers, spots) == every
    values = xp.take(observed.data, spots)
    return xp.reshape(xp.where(there, values, xp.full_like(values, math.nan)), (m, n))
