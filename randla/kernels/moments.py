"""Sums over pairs of entries of a row, for all pairs of columns that occur: a sparse product that is not formed twice.

A thread owns the smaller column of its pairs.  It goes through the rows that hold this column, in order, and adds to
one place for each larger column and group, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled

LEAST_CHUNK = 64  # columns to a task; a wide matrix has 32 tasks, since each has a place for every column
TASKS = 32
SCAN = 16  # places are sorted where fewer than one in so many was used, and else found in their order


@compiled
def _by_columns(indices, indptr, starts, entries, rows):
    """The entries by column, in the order of the rows, and their rows; `starts` (n_columns + 1,) begins as zeros."""
    for p in range(indices.size):
        starts[np.int64(indices[p]) + 1] += 1
    for a in range(starts.size - 1):
        starts[a + 1] += starts[a]
    for i in range(indptr.size - 1):
        for p in range(indptr[i], indptr[i + 1]):
            a = np.int64(indices[p])
            entries[starts[a]], rows[starts[a]] = p, i
            starts[a] += 1
    for a in range(starts.size - 1, 0, -1):
        starts[a] = starts[a - 1]
    starts[0] = 0


@compiled
def _room(rows, entries, starts, indptr, n_groups, lo, hi):
    """Pairs and groups that the columns lo..hi-1 can have as the smaller one."""
    total, n_columns = 0, starts.size - 1
    for a in range(lo, hi):
        pairs = 0
        for q in range(starts[a], starts[a + 1]):
            pairs += indptr[rows[q] + 1] - entries[q] - 1
        total += min(pairs, (n_columns - a - 1) * n_groups)
    return total


@compiled(fastmath={"contract"})
def _pair_sums(left, right, groups, indices, indptr, by_columns, n_groups, out, lo, hi):
    """Fill keys, counts and sums for the smaller columns lo..hi-1; returns how many there are."""
    starts, entries, rows = by_columns
    keys, counts, sums = out
    n_columns, width, done = starts.size - 1, left.shape[1], 0
    seen = np.zeros(n_columns * n_groups, np.int64)
    added = np.zeros((n_columns * n_groups, width))
    used = np.empty(n_columns * n_groups, np.int64)
    for a in range(lo, hi):
        n_used = 0
        for q in range(starts[a], starts[a + 1]):
            p, i = entries[q], rows[q]
            for s in range(p + 1, indptr[i + 1]):
                place = np.int64(indices[s]) * n_groups + groups[i]
                if seen[place] == 0:
                    used[n_used] = place
                    n_used += 1
                seen[place] += 1
                for t in range(width):
                    added[place, t] += left[p, t] * right[s, t]
        if SCAN * n_used < (n_columns - a) * n_groups:
            used[:n_used] = np.sort(used[:n_used])
        else:
            n_used = 0
            for place in range((a + 1) * n_groups, n_columns * n_groups):
                if seen[place] > 0:
                    used[n_used] = place
                    n_used += 1
        for u in range(n_used):
            place = used[u]
            keys[done], counts[done] = a * n_columns * n_groups + place, seen[place]
            seen[place] = 0
            for t in range(width):
                sums[done, t] = added[place, t]
                added[place, t] = 0.0
            done += 1
    return done


def pair_sums(left, right, groups, indices, indptr, n_columns, n_groups):
    """Sums of products over the pairs of columns a < b that rows observe together; see `reference`."""
    nnz, width = left.shape
    by_columns = np.zeros(n_columns + 1, np.int64), np.empty(nnz, np.int64), np.empty(nnz, np.int64)
    _by_columns(indices, indptr, *by_columns)
    starts, entries, rows = by_columns
    chunk = max(LEAST_CHUNK, -(-n_columns // TASKS))
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, width)))] * max(1, -(-n_columns // chunk))

    def fill(lo, hi):
        room = _room(rows, entries, starts, indptr, n_groups, lo, hi)
        out = np.empty(room, np.int64), np.empty(room, np.int64), np.empty((room, width))
        n = _pair_sums(left, right, groups, indices, indptr, by_columns, n_groups, out, lo, hi)
        parts[lo // chunk] = tuple(part[:n] if n == room else part[:n].copy() for part in out)

    parallel_for(fill, n_columns, chunk=chunk)
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
