"""Sums over pairs of entries of a row, on the GPU: a list of pairs, a stable sort, and a thread to a sum."""

from __future__ import annotations

from ._compile import launch


def pair_sums(left, right, groups, indices, indptr, n_columns, n_groups):
    """Sums of products over the pairs of columns a < b that rows observe together; see `reference`.

    Holds four 64-bit numbers for each pair of entries, so callers cut long matrices into blocks of rows.
    """
    import cupy

    (nnz, width), pointers = left.shape, indptr.astype(cupy.int64)
    rows = cupy.searchsorted(pointers[1:], cupy.arange(nnz), side="right")
    ends = cupy.cumsum(pointers[rows + 1] - cupy.arange(nnz) - 1)
    total = int(ends[-1]) if nnz else 0
    first = cupy.zeros(nnz, cupy.int64)
    first[1:] = ends[:-1]
    keys, left_entry, right_entry = (cupy.empty(total, cupy.int64) for _ in range(3))
    columns = indices.astype(cupy.int64)
    launch(
        "moments", "pair_list", nnz, n_columns, n_groups, columns, rows, pointers, cupy.ascontiguousarray(groups),
        first, keys, left_entry, right_entry, dtype="float64",
    )  # fmt: skip
    order = cupy.argsort(keys, kind="stable")  # rows stay in their order, and so the sums are the same in every run
    keys = keys[order]
    fresh = cupy.zeros(total, cupy.int64)
    fresh[1:] = keys[1:] != keys[:-1]
    ids = cupy.cumsum(fresh)
    n_pairs = int(ids[-1]) + 1 if total else 0
    starts = cupy.searchsorted(ids, cupy.arange(n_pairs + 1))
    sums = cupy.empty((n_pairs, width))
    launch(
        "moments", "pair_totals", n_pairs * width, width, starts, order, left_entry, right_entry,
        cupy.ascontiguousarray(left), cupy.ascontiguousarray(right), sums, dtype="float64",
    )  # fmt: skip
    return keys[starts[:-1]], cupy.diff(starts), sums
