"""Binary least squares: the 0/1 vector of least z.G z - 2 b.z, by descents and a search that proves it.

With z**2 = z, a diagonal shift rho of G and rho / 2 of b change nothing at 0/1 vectors: G + rho I = R.T R is regular
whatever G is, and the objective is ||R z - c||^2 up to a constant.  The search sets entries from the last row of R
upwards, the nearer value first, and leaves a branch whose partial sum is no less than the best vector known.
"""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from .completion import _buffers, _entries, _form, _padded

SHIFT = 0.3  # of the mean diagonal entry: fewest nodes of 0, 0.03, 0.1, 0.3, 0.6, 1 and 2 times it for 16 to 40 entries
FLOOR = 16 * 2.0**-52  # of the sum of all terms: changes below are rounding
CHUNK = 16  # columns that a thread takes at a time


@compiled
def _floor_of(G, b):
    """Changes of the objective that are rounding."""
    total = 0.0
    for i in range(len(b)):
        total += 2 * abs(b[i])
        for j in range(len(b)):
            total += abs(G[i, j])
    return FLOOR * total


@compiled
def _value(G, b, z):
    total = 0.0
    for i in range(len(b)):
        if z[i] != 0:
            total -= 2 * b[i]
            for j in range(len(b)):
                total += G[i, j] * z[j]
    return total


@compiled
def _descend(G, b, z, g, d, floor):
    """Change the entry that lowers the objective most, or two of them where one does not, until nothing does."""
    k = len(b)
    for i in range(k):
        g[i] = -b[i]
        for j in range(k):
            g[i] += G[i, j] * z[j]
    while True:
        best, first, second = -floor, -1, -1
        for i in range(k):
            d[i] = G[i, i] + 2 * (1 - 2 * z[i]) * g[i]
            if d[i] < best:
                best, first = d[i], i
        if first < 0:
            for i in range(k):
                for j in range(i):
                    change = d[i] + d[j] + 2 * (1 - 2 * z[i]) * (1 - 2 * z[j]) * G[i, j]
                    if change < best:
                        best, first, second = change, i, j
        if first < 0:
            return
        for t in (first, second):
            if t >= 0:
                step = 1 - 2 * z[t]
                z[t] += step
                for i in range(k):
                    g[i] += step * G[t, i]


@compiled
def _factor(G, R, order):
    """R.T R = G + shift I with the entries in `order`, of which each has the least pivot left; returns the shift.

    The last rows of R, where the search begins, get the large pivots.  R holds what is left of G meanwhile.
    """
    k, trace = len(order), 0.0
    for i in range(k):
        trace += G[i, i]
    shift = SHIFT * trace / k if trace > 0 else 1.0
    for i in range(k):
        order[i] = i
        for j in range(k):
            R[i, j] = G[i, j]
        R[i, i] += shift
    for j in range(k):
        at = j
        for i in range(j + 1, k):
            if R[i, i] < R[at, at]:
                at = i
        for t in range(k):
            R[j, t], R[at, t] = R[at, t], R[j, t]
        for t in range(k):
            R[t, j], R[t, at] = R[t, at], R[t, j]
        order[j], order[at] = order[at], order[j]
        pivot = np.sqrt(max(R[j, j], 1e-12 * shift))  # at least the shift but for rounding
        R[j, j] = pivot
        for t in range(j + 1, k):
            R[j, t] /= pivot
            R[t, j] = 0.0  # rows below hold both halves of the rest, and no row of R has entries before its pivot
        for s in range(j + 1, k):
            for t in range(j + 1, k):
                R[s, t] -= R[j, s] * R[j, t]
    return shift


@compiled
def _search(R, c, z, floor, max_nodes, trial, near, tried, rest, above):
    """Depth first from the incumbent z, in the order of R: z becomes the best vector; False if nodes ran out."""
    k, best, size = len(c), 0.0, 0.0
    for i in range(k):
        value = c[i]
        for j in range(i, k):
            value -= R[i, j] * z[j]
        best += value * value
        size += c[i] * c[i]
    floor += FLOOR * size
    level, nodes, above[k] = k - 1, 0, 0.0
    rest[level], tried[level] = c[level], 0
    near[level] = 1 if c[level] > 0.5 * R[level, level] else 0
    while level < k:
        if tried[level] == 2:
            level += 1
            continue
        if nodes >= max_nodes:
            return False
        value = near[level] if tried[level] == 0 else 1 - near[level]
        tried[level] += 1
        nodes += 1
        left = rest[level] - R[level, level] * value
        cost = above[level + 1] + left * left
        if not cost < best - floor:
            tried[level] = 2  # the other value is farther still
            continue
        trial[level] = value
        if level == 0:
            best = cost
            z[:] = trial
            tried[level] = 2
            continue
        above[level] = cost
        level -= 1
        total = c[level]
        for j in range(level + 1, k):
            total -= R[level, j] * trial[j]
        rest[level], tried[level] = total, 0
        near[level] = 1 if total > 0.5 * R[level, level] else 0
    return True


@compiled
def _best(G, b, R, order, shift, z, starts, max_nodes, work, counts):
    """Replace z by the best vector found if that is better; whether it is proved.  `work` has 9 rows of k + 1."""
    k = len(b)
    g, d, trial, best, c, rest = work[0, :k], work[1, :k], work[2, :k], work[3, :k], work[4, :k], work[5, :k]
    near, above, mixed = work[6, :k], work[7], work[8, :k]
    floor = _floor_of(G, b)
    least = _value(G, b, z)
    if not np.isfinite(least + floor):
        return False
    best[:] = z
    for s in range(-1, len(starts)):
        for i in range(k):
            trial[i] = z[i] if s < 0 else starts[s, i]
        _descend(G, b, trial, g, d, floor)
        value = _value(G, b, trial)
        if value < least - floor:
            least = value
            best[:] = trial
    z[:] = best
    if max_nodes <= 0:
        return False
    for i in range(k):
        value = b[order[i]] + 0.5 * shift
        for j in range(i):
            value -= R[j, i] * c[j]
        c[i] = value / R[i, i]
        mixed[i] = best[order[i]]
    proved = _search(R, c, mixed, floor, max_nodes, trial, near, counts, rest, above)
    for i in range(k):
        trial[order[i]] = mixed[i]
    if not proved:
        _descend(G, b, trial, g, d, floor)
    if _value(G, b, trial) < least - floor:
        z[:] = trial
    return proved


@compiled
def _columns(G, B, starts, max_nodes, out, proved, lo, hi):
    k = len(G)
    R, order, work = np.empty((k, k)), np.empty(k, np.int64), np.empty((9, k + 1))
    z, b, counts = np.empty(k), np.empty(k), np.empty(k, np.int64)
    shift = _factor(G, R, order)
    for j in range(lo, hi):
        for i in range(k):
            z[i], b[i] = out[i, j], B[i, j]
        proved[j] = _best(G, b, R, order, shift, z, starts, max_nodes, work, counts)
        for i in range(k):
            out[i, j] = np.int8(z[i])


def binary_search(G, B, Z, starts, max_nodes):
    """The columns of argmin of z.G z - 2 b.z over 0/1 vectors z, for the columns b of B (k, n), from those of Z.

    Returns them, int8 (k, n), and for which it is proved that there is no better one, bool (n,): where `max_nodes` of
    the search did.  See `reference`.
    """
    (k, n), out = B.shape, np.array(Z, np.int8, order="C")
    proved = np.full(n, k == 0)
    G, B = np.ascontiguousarray(G, np.float64), np.ascontiguousarray(B)
    starts = np.ascontiguousarray(starts, np.float64)

    def work(lo, hi):
        _columns(G, B, starts, max_nodes, out, proved, lo, hi)

    parallel_for(work, n if k else 0, chunk=CHUNK)
    return out, proved


@compiled
def _rows(V, k, indices, indptr, weights, targets, starts, max_nodes, out, proved, lo, hi):
    M, D, E = _buffers(V.shape[1], weights.size > 0)
    G, R, order, work = np.empty((k, k)), np.empty((k, k)), np.empty(k, np.int64), np.empty((9, k + 1))
    z, b, counts, none = np.empty(k), np.empty(k), np.empty(k, np.int64), np.empty((0, k))
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        if first == last:
            proved[i] = True
            continue
        _form(M, D, E, V, k, indices, weights, targets, none, 0.0, first, last)
        for a in range(k):
            z[a], b[a] = out[i, a], M[a, k]
            for c in range(a, k):
                G[a, c] = G[c, a] = M[a, c]
        shift = _factor(G, R, order) if max_nodes > 0 else 0.0
        proved[i] = _best(G, b, R, order, shift, z, starts, max_nodes, work, counts)
        for a in range(k):
            out[i, a] = np.int8(z[a])


def masked_binary_search(V, indices, indptr, weights, targets, Z, starts, max_nodes):
    """`binary_search` for each row z of Z (m, k) with G = sum of w_p v_p v_p.T and b = sum of targets_p v_p.

    The sums are over the entries p of the row, v_p = V[indices[p]]; a row without entries stays as it is.  Returns
    int8 (m, k) and bool (m,).  See `reference`.
    """
    (m, k), out = Z.shape, np.array(Z, np.int8, order="C")
    proved = np.full(m, k == 0)
    wide, w, t = _padded(V), _entries(weights, V.dtype), _entries(targets, V.dtype)
    starts = np.ascontiguousarray(starts, np.float64)

    def work(lo, hi):
        _rows(wide, k, indices, indptr, w, t, starts, max_nodes, out, proved, lo, hi)

    parallel_for(work, m if k else 0, chunk=CHUNK)
    return out, proved
