"""Choice of pivots for Cholesky factors of large matrices: exponential races, and elimination inside a block."""

from __future__ import annotations

import math

import numpy as np
from numba import uint64

from .._parallel import parallel_for
from .._random import Stream
from ._compile import compiled
from ._philox import key_words, philox

RUN = 1024  # words that wait in the first-level cache
_RACE, _TAIL = np.uint64(Stream.RACE), np.uint64(Stream.RACE_TAIL)


@compiled
def _arrival(word, iteration, j, k0, k1):
    """The exponential variable of an index, from its word and 52 bits behind it."""
    a, b, _, _ = philox(uint64(j), uint64(iteration), _TAIL, k0, k1)
    tail = (np.float64(a >> uint64(5)) * 33554432.0 + np.float64(b >> uint64(7)) + 0.5) / 4503599627370496.0
    return -math.log1p(-(np.float64(word) + tail) / 4294967296.0)


@compiled
def _insert(index, times, j, time):
    """Put (j, time) into an ascending list of fixed length; j is larger than what is there."""
    place = index.size - 1
    if not time < times[place]:
        return
    while place > 0 and time < times[place - 1]:
        times[place], index[place] = times[place - 1], index[place - 1]
        place -= 1
    times[place], index[place] = time, j


@compiled
def _race(index, times, weights, limits, iteration, k0, k1):
    """The first arrivals of one iteration among the indices whose word is at most their limit."""
    n, buffer = weights.size, np.empty(RUN, np.uint64)
    index[:] = -1
    times[:] = np.inf
    for first in range(0, n, RUN):
        lanes = min(RUN, n - first + 3) // 4
        for lane in range(lanes):
            a, b, c, d = philox(iteration, uint64(first // 4) + uint64(lane), _RACE, k0, k1)
            buffer[4 * lane] = a
            buffer[4 * lane + 1] = b
            buffer[4 * lane + 2] = c
            buffer[4 * lane + 3] = d
        here = limits[first : first + RUN]
        for t in range(here.size):
            if buffer[t] < here[t]:
                j = first + t
                _insert(index, times, j, _arrival(buffer[t], iteration, j, k0, k1) / weights[j])


@compiled
def _limits(weights, horizon):
    """Words from these on belong to arrivals after the horizon; 2**32 where all arrivals may come before it."""
    out = np.zeros(weights.size, np.uint64)
    for j in range(weights.size):
        if weights[j] > 0:
            share = -math.expm1(-horizon * weights[j]) * (1 + 1e-9)
            out[j] = np.uint64(min(4294967296.0, share * 4294967296.0 + 2.0))
    return out


@compiled
def _races(index, times, weights, horizon, start, k0, k1, lo, hi):
    positive = np.sum(weights > 0)
    usual = _limits(weights, horizon)
    for s in range(lo, hi):
        reach, limits = horizon, usual
        while True:
            _race(index[s], times[s], weights, limits, uint64(start) + uint64(s), k0, k1)
            # what was left out arrives after `reach`, so a full list that ends before it is complete
            if times[s, -1] <= reach or np.sum(index[s] >= 0) == positive:
                break
            reach *= 4.0
            limits = _limits(weights, reach)


def race_candidates(key, start, stop, weights, count):
    """The `count` first arrivals of the races start..stop-1 between the indices of `weights` (n,), float64.

    Returns indices, int64 (stop - start, count), and times, float64, by ascending time.  See `reference`.
    """
    weights = np.ascontiguousarray(weights)
    index = np.full((stop - start, count), -1, np.int64)
    times = np.full((stop - start, count), np.inf)
    total = float(np.sum(weights))
    if index.size == 0 or not 0.0 < total < math.inf:
        return index, times
    horizon = (count + 4.0 * math.sqrt(count) + 4.0) / total
    k0, k1 = key_words(key)
    parallel_for(lambda lo, hi: _races(index, times, weights, horizon, start, k0, k1, lo, hi), len(index), chunk=16)
    return index, times


@compiled(fastmath={"contract"})
def _eliminate(H, rows, d, p, a):
    """Row a of the transposed factor from pivot p, and the diagonal after it."""
    row = rows[a]
    row[:] = H[p]
    for c in range(a):
        before, factor = rows[c], rows[c, p]
        for i in range(row.size):
            row[i] -= factor * before[i]
    root = math.sqrt(d[p])
    for i in range(row.size):
        row[i] /= root
        d[i] -= row[i] * row[i]
    row[p], d[p] = root, 0.0


@compiled
def _run_races(H, d, index, times, floor, chosen, rows):
    before, a = d.copy(), 0
    for s in range(index.shape[0]):
        best, winner = np.inf, -1
        for c in range(index.shape[1]):
            j, early = index[s, c], times[s, c]
            if j < 0 or early >= best:
                break
            if d[j] > floor[j] and early * (before[j] / d[j]) < best:
                best, winner = early * (before[j] / d[j]), j
        last = index.shape[1] - 1
        if winner < 0 or (index[s, last] >= 0 and times[s, last] < best):
            return
        _eliminate(H, rows, d, winner, a)
        chosen[a] = winner
        a += 1


def race_pivots(H, d, index, times, floor):
    """Pivots of Cholesky factorisation of H (b, b) that win races run with the weights d (b,) before it.

    Returns chosen, int64 (s,), ended by -1, and L (b, s), both of one row or column for each race.  See `reference`.
    """
    chosen, rows = np.full(len(index), -1, np.int64), np.zeros((len(index), len(H)))
    _run_races(np.ascontiguousarray(H), d.copy(), index, times, floor, chosen, rows)
    return chosen, rows.T


@compiled
def _run_greedy(H, d, floor, share, chosen, rows):
    limit = share * np.sum(d)
    for a in range(chosen.size):
        p = np.argmax(d)
        if not (d[p] > floor[p] and np.sum(d) > limit):
            return
        _eliminate(H, rows, d, p, a)
        for i in range(d.size):
            if d[i] <= floor[i]:
                d[i] = 0.0
        chosen[a] = p


def greedy_pivots(H, d, floor, share):
    """Largest pivots of H (b, b) with the diagonal d until what is left of its sum is at most `share` of it.

    Returns chosen, int64 (b,), ended by -1, and L (b, b).  See `reference`.
    """
    chosen, rows = np.full(len(H), -1, np.int64), np.zeros((len(H), len(H)))
    _run_greedy(np.ascontiguousarray(H), d.copy(), floor, share, chosen, rows)
    return chosen, rows.T


@compiled(fastmath={"contract"})
def _store(F, start, first, tile, d, floor):
    width, lanes = tile.shape[0], 8
    for lo in range(0, tile.shape[1], lanes):
        squares = np.zeros(lanes)
        count = min(lanes, tile.shape[1] - lo)
        for c in range(width):
            run = tile[c, lo : lo + count]
            for t in range(run.size):
                F[start + lo + t, first + c] = run[t]
                squares[t] += np.float64(run[t]) * np.float64(run[t])
        for t in range(count):
            left = d[start + lo + t] - squares[t]
            d[start + lo + t] = 0.0 if left <= floor[start + lo + t] else left


def store_columns(start, first, tile, floor, F, d):
    """F[start + r, first + c] = tile[c, r], and the squares of these columns are taken from d, float64.

    What is left of d at or below `floor` becomes zero.
    """
    _store(F, start, first, tile, d, floor)
