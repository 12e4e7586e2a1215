"""The largest entries of the rows of a block of scores."""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled

CHUNK = 32  # rows that a thread takes at a time


@compiled
def _worse(values, columns, a, b):
    """True if entry a of the heap comes after entry b in the list."""
    return values[a] < values[b] or (values[a] == values[b] and columns[a] > columns[b])


@compiled
def _sink(values, columns, size, top):
    """Restore the heap, whose root is the last of the list, below `top`."""
    while True:
        least, left = top, 2 * top + 1
        if left < size and _worse(values, columns, left, least):
            least = left
        if left + 1 < size and _worse(values, columns, left + 1, least):
            least = left + 1
        if least == top:
            return
        values[top], values[least] = values[least], values[top]
        columns[top], columns[least] = columns[least], columns[top]
        top = least


@compiled
def _top_rows(scores, k, indices, indptr, columns, values, lo, hi):
    n = scores.shape[1]
    row = np.empty(n, scores.dtype)
    for i in range(lo, hi):
        row[:] = scores[i]
        for p in range(indptr[i], indptr[i + 1]):
            row[np.int64(indices[p])] = -np.inf
        v, c, size = values[i], columns[i], 0
        for j in range(n):
            if size < k:
                if row[j] > -np.inf:
                    v[size], c[size] = row[j], j
                    size += 1
                    if size == k:
                        for top in range(k // 2 - 1, -1, -1):
                            _sink(v, c, k, top)
            elif row[j] > v[0]:
                v[0], c[0] = row[j], j
                _sink(v, c, k, 0)
        if size < k:
            for top in range(size // 2 - 1, -1, -1):
                _sink(v, c, size, top)
        for last in range(size - 1, 0, -1):
            v[0], v[last] = v[last], v[0]
            c[0], c[last] = c[last], c[0]
            _sink(v, c, last, 0)


def top_columns(scores, k, indices, indptr):
    """The k largest of each row of `scores` (b, n), descending, without the columns that the CSR rows list.

    Returns columns, int64 (b, k), and values (b, k), -1 and minus infinity where fewer are left.  See `reference`.
    """
    scores = np.ascontiguousarray(scores)
    columns = np.full((len(scores), k), -1, np.int64)
    values = np.full((len(scores), k), -np.inf, scores.dtype)

    def work(lo, hi):
        _top_rows(scores, k, indices, indptr, columns, values, lo, hi)

    parallel_for(work, len(scores) if k else 0, chunk=CHUNK)
    return columns, values
