"""Kullback-Leibler divergence from a product of nonnegative factors: damped Newton steps, one coordinate at a time."""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from ._vector import log_sums
from .completion import _entries

CHUNK = 32  # rows that a thread takes at a time
LANES = 8
CALM = 0.683802  # Newton decrement below which a full step cannot raise a self-concordant function; Tran-Dinh et al.


@compiled
def _row_sweeps(W, n, x, y, sums, ridge, h, n_sweeps, floor, inverse_root):
    """Sweeps over the coordinates of h for the data x (n,) and the model y = W.T h, which follows h one step behind."""
    r, length = W.shape
    flat, before, pending = W.reshape(W.size), 0, 0.0
    for _ in range(n_sweeps):
        for k in range(r):
            slope, curvature = log_sums(flat, before * length, pending, k * length, x, y, n)
            before, pending = k, 0.0
            g, c = sums[k] + ridge * h[k] - slope, curvature + ridge
            if c > 0:
                step = -g / c
                if g > 0:  # a step up undershoots by itself
                    decrement = np.sqrt(c) * -step * inverse_root
                    if decrement > CALM:
                        step /= 1 + decrement
                value = h[k] + step
            else:
                value = floor if g > 0 else h[k]
            value = value if value > floor else floor
            pending, h[k] = value - h[k], value
    return pending


@compiled
def _sweep_rows(V, indices, indptr, values, sums, ridge, X, n_sweeps, floor, longest, lo, hi):
    r = V.shape[1]
    length = (longest + LANES - 1) // LANES * LANES
    space, x, y, h = np.empty(r * length), np.empty(length), np.empty(length), np.empty(r)
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        n = (last - first + LANES - 1) // LANES * LANES
        W, least = space[: r * n].reshape(r, n), np.inf
        for k in range(r):
            h[k] = X[i, k]
        for p in range(n):
            entry = first + p
            x[p], y[p] = 0, 1
            if entry < last and values[entry] > 0:  # the others are in `sums` only, and their model may become 0
                row, total = V[np.int64(indices[entry])], 0.0
                for k in range(r):
                    W[k, p] = row[k]
                    total += h[k] * row[k]
                x[p] = values[entry]
                y[p] = total if total > 0 else 1e-300
                least = min(least, x[p])
            else:
                for k in range(r):
                    W[k, p] = 0
        _row_sweeps(W, n, x, y, sums, ridge, h, n_sweeps, floor, 1 / np.sqrt(least))
        for k in range(r):
            X[i, k] = h[k]


def divergence_sweeps(V, indices, indptr, values, sums, ridge, X, n_sweeps, floor):
    """Coordinate sweeps from X (m, r) that lower sums.x - sum of values_p log(v_p.x) + ridge ||x||^2 / 2 in each row.

    V is (n, r), `sums` (r,) its column sums plus linear penalties; coordinates stay at `floor` or above.  See
    `reference`.
    """
    X = np.array(X, V.dtype, order="C")
    V, values, sums = np.ascontiguousarray(V), _entries(values, np.float64), _entries(sums, np.float64)
    longest = int(np.max(np.diff(indptr), initial=0))

    def work(lo, hi):
        _sweep_rows(V, indices, indptr, values, sums, ridge, X, n_sweeps, floor, longest, lo, hi)

    parallel_for(work, len(X) if X.shape[1] else 0, chunk=CHUNK)
    return X
