"""Nonnegative least squares: coordinate sweeps in tiles of columns, exactly by pivoting, and with missing entries.

A factor with the parts as rows, (r, n), is taken 16 columns at a time: a coordinate of 16 problems fills two vectors,
so that no sum over lanes is needed.  A tile is read once for all sweeps.  Tiles are fixed, so results do not depend on
the number of threads.
"""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from ._registers import descend_tile
from ._vector import HEIGHT
from .completion import _aligned, _buffers, _entries, _form, _matrix, _padded

LANES = 16  # columns of a tile
CHUNK = 16  # tiles that a thread takes at a time
ROWS = 32  # the same for problems that are solved one by one


@compiled
def _load_tile(X, turned, r, first, width, T):
    """Columns `first` to `first + width` of X into the tile T; `turned` says that X has its columns as rows."""
    if turned:
        for c in range(width):
            column = X[first + c]
            for k in range(r):
                T[k, c] = column[k]
        return
    for k in range(r):
        row, target = X[k, first : first + width], T[k]
        for c in range(width):
            target[c] = row[c]


@compiled
def _store_tile(T, turned, r, first, width, out):
    if turned:
        for c in range(width):
            column = out[first + c]
            for k in range(r):
                column[k] = T[k, c]
        return
    for k in range(r):
        row, source = out[k, first : first + width], T[k]
        for c in range(width):
            row[c] = source[c]


@compiled
def _sweep_tiles(G, B, X, turned, r, n_sweeps, tol, out, lo, hi):
    """Sweeps over the tiles lo to hi, with G padded; coordinates are taken eight at a time, see `descend_tile`."""
    n, K = X.shape[0] if turned else X.shape[1], G.shape[0]
    T, D = _aligned(K, LANES), _aligned(K, LANES)
    tile, right, left = T.reshape(T.size), D.reshape(D.size), G.reshape(G.size)
    scale, squares = np.zeros(K), np.empty(LANES)
    for k in range(r):
        scale[k] = 1 / G[k, k] if G[k, k] > 0 else 0.0  # a part that is zero stays as it is
    for t in range(lo, hi):
        first = t * LANES
        width = min(n - first, LANES)
        if width < LANES:
            T[:], D[:] = 0, 0
        _load_tile(X, turned, r, first, width, T)
        _load_tile(B, turned, r, first, width, D)
        start = 0.0
        for sweep in range(n_sweeps):
            squares[:] = 0
            for i in range(0, K, HEIGHT):
                descend_tile(tile, right, squares, left, scale, i, K)
            change = squares.sum()
            if sweep == 0:
                start = change
            if not change > tol * tol * start:
                break
        _store_tile(T, turned, r, first, width, out)


def nonneg_sweeps(G, B, X, n_sweeps, tol):
    """Up to `n_sweeps` coordinate sweeps from X (r, n) towards argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0.

    Stops, tile by tile of 16 columns, when a sweep changes X by at most `tol` of what the first one did.  See
    `reference`.
    """
    r, n = X.shape
    K = -(-r // HEIGHT) * HEIGHT
    # columns that lie one after another, as products with sparse matrices give them, stay so
    turned = B.flags.f_contiguous and not B.flags.c_contiguous
    wide, out = _aligned(K, K), np.empty((n, r) if turned else (r, n), X.dtype)
    wide[:r, :r] = G
    B, X = (np.ascontiguousarray(F.T if turned else F) for F in (B, X))

    def work(lo, hi):
        _sweep_tiles(wide, B, X, turned, r, n_sweeps, tol, out, lo, hi)

    parallel_for(work, -(-n // LANES) if r else 0, chunk=CHUNK)
    return out.T if turned else out


# --- exact solutions by pivoting --------------------------------------------------------------------------------------


@compiled
def _solve_passive(G, b, passive, size, L, x):
    """x on the `size` passive places solves G[p, p] x = b[p], by Cholesky with a raised diagonal where that breaks."""
    ridge, r = 0.0, G.shape[0]
    trace = 0.0
    for k in range(r):
        trace += G[k, k]
    while True:
        sound = True
        for i in range(size):
            for j in range(i + 1):
                value = G[passive[i], passive[j]] + (ridge if i == j else 0.0)
                for t in range(j):
                    value -= L[i, t] * L[j, t]
                if j < i:
                    L[i, j] = value / L[j, j]
                elif value > r * 2.0**-52 * (G[passive[i], passive[i]] + ridge):
                    L[i, i] = np.sqrt(value)
                else:
                    sound = False
                    break
            if not sound:
                break
        if sound or not (trace > 0 and ridge < np.inf):  # entries that are not finite never become so
            break
        ridge = 1e-10 * trace / r if ridge == 0 else 10 * ridge
    if not sound:  # L is not filled, and may hold anything
        x[:size] = np.nan
        return
    for i in range(size):
        value = b[passive[i]]
        for t in range(i):
            value -= L[i, t] * x[t]
        x[i] = value / L[i, i]
    for i in range(size - 1, -1, -1):
        value = x[i]
        for t in range(i + 1, size):
            value -= L[t, i] * x[t]
        x[i] = value / L[i, i]


@compiled
def _pivot_columns(G, B, X, tol, max_iter, out, found, lo, hi):
    """Block principal pivoting of Kim and Park: exchange all infeasible places, only the last where that cycles."""
    r = G.shape[0]
    L, x, y, b = np.empty((r, r)), np.empty(r), np.empty(r), np.empty(r)
    passive, inside = np.empty(r, np.int64), np.empty(r, np.bool_)
    for column in range(lo, hi):
        largest, size, found[column] = 0.0, 0, -1
        for k in range(r):
            b[k], inside[k] = B[k, column], X[k, column] > 0 and G[k, k] > 0
            largest = max(largest, abs(b[k]))
        floor, tries, fewest = tol * largest, 3, r + 1
        for _ in range(max_iter):
            size = 0
            for k in range(r):
                if inside[k]:
                    passive[size] = k
                    size += 1
            _solve_passive(G, b, passive, size, L, x)
            y[:] = 0
            for k in range(r):
                y[k] = -b[k]
                for t in range(size):
                    y[k] += G[k, passive[t]] * x[t]
            n_wrong, last, t = 0, -1, 0
            for k in range(r):
                if inside[k]:
                    wrong = x[t] < 0
                    t += 1
                else:
                    wrong = y[k] < -floor and G[k, k] > 0
                n_wrong, last = (n_wrong + 1, k) if wrong else (n_wrong, last)
            if n_wrong == 0:
                found[column] = 1
                break
            every = n_wrong < fewest or tries > 0
            tries = 3 if n_wrong < fewest else tries - 1
            fewest = min(fewest, n_wrong)
            t = 0
            for k in range(r):
                if inside[k]:
                    wrong = x[t] < 0
                    t += 1
                else:
                    wrong = y[k] < -floor and G[k, k] > 0
                if wrong and (every or k == last):
                    inside[k] = not inside[k]
        for k in range(r):
            out[k, column] = 0
        for t in range(size):
            out[passive[t], column] = 0.0 if x[t] < 0 else x[t]


def nonneg_pivots(G, B, X, tol, max_iter):
    """The columns of argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0, exactly, from the places where X (r, n) is > 0.

    Returns X (r, n), and for each column 1, or -1 where `max_iter` exchanges did not do; int64 (n,).  See `reference`.
    """
    r, n = X.shape
    G, out, found = np.ascontiguousarray(G, np.float64), np.empty((r, n), X.dtype), np.ones(n, np.int64)

    def work(lo, hi):
        _pivot_columns(G, B, X, tol, max_iter, out, found, lo, hi)

    parallel_for(work, n if r else 0, chunk=ROWS)
    return out, found


# --- entries that are missing -----------------------------------------------------------------------------------------


@compiled
def _nonneg_rows(V, r, indices, indptr, weights, targets, base, ridge, X, n_sweeps, tol, lo, hi):
    M, D, E = _buffers(V.shape[1], weights.size > 0)
    x, y = np.empty(r), np.empty(r)
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        if first == last and base.shape[0] == 0:
            continue
        _form(M, D, E, V, r, indices, weights, targets, base, ridge[i], first, last)
        for k in range(r):
            x[k], y[k] = X[i, k], -M[k, r]
            for j in range(k):
                M[k, j] = M[j, k]
        for j in range(r):
            for k in range(r):
                y[k] += M[j, k] * x[j]
        start = 0.0
        for sweep in range(n_sweeps):
            change = 0.0
            for k in range(r):
                if not M[k, k] > 0:
                    continue
                value = x[k] - y[k] / M[k, k]
                step = (value if value > 0 else 0.0) - x[k]
                if step != 0:
                    x[k] += step
                    change += step * step
                    row = M[k]
                    for j in range(r):
                        y[j] += step * row[j]
            start = change if sweep == 0 else start
            if not change > tol * tol * start:
                break
        for k in range(r):
            X[i, k] = x[k]


def masked_nonneg_sweeps(V, indices, indptr, weights, targets, base, ridge, X, n_sweeps, tol):
    """Coordinate sweeps from X (m, r) for the nonnegative solutions of the systems of `masked_cholesky`.

    Stops, row by row, when a sweep changes x by at most `tol` of what the first one did.  See `reference`.
    """
    r, X = V.shape[1], np.array(X, V.dtype, order="C")
    wide, w, t = _padded(V), _entries(weights, V.dtype), _entries(targets, V.dtype)
    base, ridge = _matrix(base, r), np.ascontiguousarray(ridge, np.float64)

    def work(lo, hi):
        _nonneg_rows(wide, r, indices, indptr, w, t, base, ridge, X, n_sweeps, tol, lo, hi)

    parallel_for(work, len(X) if r else 0, chunk=ROWS)
    return X
