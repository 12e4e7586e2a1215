"""Truth of the sums over pairs of entries that are observed in one row."""

from __future__ import annotations

import numpy as np


def pair_sums(left, right, groups, indices, indptr, n_columns, n_groups):
    """Sums of products over the pairs of columns a < b that rows observe together, apart for each group of rows.

    Entry p of a row has the column ``indices[p]``, ascending within the row, and the factors ``left[p]`` and
    ``right[p]``, float64 (nnz, c); row i belongs to the group ``groups[i]``.  Returns, for each pair and group that
    occurs, ascending by key: ``keys = (a n_columns + b) n_groups + group``, int64 (p,); ``counts``, the number of rows,
    int64 (p,); ``sums`` of ``left[entry of a] * right[entry of b]``, float64 (p, c).
    """
    found = {}
    for i in range(len(indptr) - 1):
        for p in range(indptr[i], indptr[i + 1]):
            for q in range(p + 1, indptr[i + 1]):
                key = (int(indices[p]) * n_columns + int(indices[q])) * n_groups + int(groups[i])
                count, total = found.get(key, (0, np.zeros(left.shape[1])))
                found[key] = count + 1, total + left[p] * right[q]
    keys = np.array(sorted(found), np.int64)
    counts = np.array([found[key][0] for key in sorted(found)], np.int64)
    sums = np.array([found[key][1] for key in sorted(found)]).reshape(len(keys), left.shape[1])
    return keys, counts, sums
