"""The best columns of rows: scores are products of factors, made in blocks and never all at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from .._arrays import as_matrix, check_together
from .._backend import kernel
from .._checks import check_integer
from .observations import Observations

BLOCK_ENTRIES = 2**21  # scores that are held at a time


class TopColumns(NamedTuple):
    """The best columns of each row, best first; shapes (q, k)."""

    columns: Any
    values: Any


def recommend(
    row_factors: Any, col_factors: Any, rows: Any, k: int, *, seen: Observations | None = None, col_bias: Any = None,
    offset: Any = None, block_size: int | None = None,
) -> TopColumns:  # fmt: skip
    """Find the k columns with the largest ``row_factors[i] . col_factors[j] + col_bias[j]`` of each row i.

    Cost ``O(q n rank)`` for q rows; memory is that of a block of scores.  Of equal scores the lower column comes first,
    and results do not depend on `block_size` but for rounding.

    Parameters
    ----------
    row_factors : array, shape (m, rank)
        Factors of the rows.
    col_factors : array, shape (n, rank)
        Factors of the columns.
    rows : array of int64, shape (q,), or None
        The rows asked for; None takes all.
    k : int, k >= 1
        Columns for each row.
    seen : Observations, optional
        Entries (i, j) of which row i never gets column j, of shape (m, n).
    col_bias : array, shape (n,), optional
        Added to the score of each column.
    offset : array, shape (m,), optional
        Added to all scores of a row; it changes values and not their order.
    block_size : int, optional
        Rows whose scores are held at a time; by default such that a block has two million.

    Returns
    -------
    TopColumns
        ``columns`` int64 (q, k) and ``values`` (q, k); -1 and minus infinity where a row has fewer columns left.

    Raises
    ------
    ValueError
        If shapes do not fit, or a row is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.completion.ranking import recommend
    >>> recommend(np.eye(2), np.array([[0.1, 0.5], [0.7, 0.2], [0.3, 0.4]]), None, 2).columns
    array([[1, 2],
           [0, 2]])
    """
    X, Y = (
        as_matrix(F, name=name, sparse=False)
        for F, name in ((row_factors, "row_factors"), (col_factors, "col_factors"))
    )
    check_together(X, Y, names=("row_factors", "col_factors"))
    xp, (m, n) = array_namespace(X), (int(X.shape[0]), int(Y.shape[0]))
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"col_factors must have {int(X.shape[1])} columns, got {int(Y.shape[1])}")
    if seen is not None and seen.shape != (m, n):
        raise ValueError(f"seen must have shape {(m, n)}, got {seen.shape}")
    k = check_integer(k, "k", low=1)
    rows = xp.arange(m, dtype=xp.int64, device=device(X)) if rows is None else rows
    if rows.shape[0] and not (int(xp.min(rows)) >= 0 and int(xp.max(rows)) < m):
        raise ValueError(f"rows must be in [0, {m - 1}], got others")
    step = max(1, BLOCK_ENTRIES // max(n, 1)) if block_size is None else check_integer(block_size, "block_size", low=1)
    columns, values = [], []
    for lo in range(0, max(1, int(rows.shape[0])), step):
        part = rows[lo : min(lo + step, int(rows.shape[0]))]
        scores = xp.matmul(xp.take(X, part, axis=0), Y.mT)
        scores = scores if col_bias is None else scores + col_bias[None, :]
        found = kernel("top_columns", xp)(scores, k, *_listed(seen, part, xp))
        columns.append(found[0])
        values.append(found[1] if offset is None else found[1] + xp.take(offset, part)[:, None])
    return TopColumns(xp.concat(columns), xp.concat(values))


def _listed(seen: Observations | None, rows: Any, xp: Any) -> tuple[Any, Any]:
    """The columns that each of the rows must not get, as compressed rows."""
    zero = xp.zeros(1, dtype=xp.int64, device=device(rows))
    if seen is None:
        return zero[:0], xp.zeros(int(rows.shape[0]) + 1, dtype=xp.int64, device=device(rows))
    start, counts = xp.take(xp.astype(seen.indptr, xp.int64), rows), xp.take(seen.row_counts, rows)
    indptr = xp.concat([zero, xp.cumulative_sum(counts)])
    numbers = xp.arange(int(indptr[-1]), dtype=xp.int64, device=device(rows))
    owners = xp.searchsorted(indptr[1:], numbers, side="right")  # CuPy repeats by one count only
    return xp.take(seen.indices, numbers + xp.take(start - indptr[:-1], owners)), indptr
