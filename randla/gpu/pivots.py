"""Choice of pivots on the GPU: all arrivals of a race at once, and elimination inside a block by one thread block."""

from __future__ import annotations

from .._random import Stream
from ._compile import BLOCK, launch, seed

RACE_ENTRIES = 2**24  # arrivals that are held at a time


def race_candidates(key, start, stop, weights, count):
    """The `count` first arrivals of the races start..stop-1 between the indices of `weights` (n,), float64.

    Returns indices, int64 (stop - start, count), and times, float64, by ascending time.  See `reference`.
    """
    import cupy

    n, races, weights = weights.size, stop - start, cupy.ascontiguousarray(weights)
    index = cupy.full((races, count), -1, cupy.int64)
    times = cupy.full((races, count), cupy.inf)
    step, kept = max(1, RACE_ENTRIES // max(1, n)), min(count, n)
    for lo in range(0, races if bool(cupy.isfinite(weights.sum())) else 0, step):
        hi = min(lo + step, races)
        arrivals = cupy.empty((hi - lo, n))
        launch(
            "pivots", "race_times", arrivals.size, n, *seed(key, Stream.RACE), int(Stream.RACE_TAIL), start + lo,
            weights, arrivals, dtype="float64",
        )  # fmt: skip
        first = cupy.argpartition(arrivals, kept - 1, axis=1)[:, :kept] if kept < n else cupy.argsort(arrivals, axis=1)
        found = cupy.take_along_axis(arrivals, first, axis=1)
        order = cupy.argsort(found, axis=1)
        found, first = (cupy.take_along_axis(part, order, axis=1) for part in (found, first))
        times[lo:hi, :kept] = found
        index[lo:hi, :kept] = cupy.where(cupy.isfinite(found), first, -1)
    return index, times


def race_pivots(H, d, index, times, floor):
    """Pivots of Cholesky factorisation of H (b, b) that win races run with the weights d (b,) before it.

    Returns chosen, int64 (s,), ended by -1, and L (b, s), both of one row or column for each race.  See `reference`.
    """
    import cupy

    (races, count), b = index.shape, len(H)
    chosen, L = cupy.full(races, -1, cupy.int64), cupy.zeros((b, races))
    launch(
        "pivots", "race_pivots", min(1, races), b, races, count, cupy.ascontiguousarray(H), cupy.array(d),
        cupy.array(d), cupy.ascontiguousarray(index), cupy.ascontiguousarray(times), cupy.ascontiguousarray(floor),
        chosen, L, dtype="float64", per_block=BLOCK,
    )  # fmt: skip
    return chosen, L


def greedy_pivots(H, d, floor, share):
    """Largest pivots of H (b, b) with the diagonal d until what is left of its sum is at most `share` of it.

    Returns chosen, int64 (b,), ended by -1, and L (b, b).  See `reference`.
    """
    import cupy

    b = len(H)
    chosen, L = cupy.full(b, -1, cupy.int64), cupy.zeros((b, b))
    launch(
        "pivots", "greedy_pivots", min(1, b), b, cupy.float64(share), cupy.ascontiguousarray(H), cupy.array(d),
        cupy.ascontiguousarray(floor), chosen, L, dtype="float64", per_block=BLOCK,
    )  # fmt: skip
    return chosen, L


def store_columns(start, first, tile, floor, F, d):
    """F[start + r, first + c] = tile[c, r], and the squares of these columns are taken from d, float64.

    What is left of d at or below `floor` becomes zero.
    """
    import cupy

    rows = slice(start, start + tile.shape[1])
    F[rows, first : first + tile.shape[0]] = tile.T
    left = d[rows] - (tile.astype(cupy.float64) ** 2).sum(axis=0)
    d[rows] = cupy.where(left <= floor[rows], 0.0, left)
