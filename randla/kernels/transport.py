"""Passes over the plans of entropic transport, T_ij = exp((f_i + g_j - C_ij) / reg), that never store them.

Costs are read from an array, or made from points a row at a time.  A full Sinkhorn sweep takes one exponential for each
entry: those of a row, once it is normalised, are its part of the sums of the columns.
"""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from ._exponential import bits_of, number_of
from ._softmax import LANES, exponential_sum, scaled_gaps
from ._vector import add_rows, dot_rows

PANEL = 1024  # costs of a row that are made at a time, in the first-level cache
TASK = 2**20  # entries that a thread takes at a time: fewer would not pay for the thread
MOST_TASKS = 16  # each has column sums of its own, which are added in their order
STORED, SQEUCLIDEAN, EUCLIDEAN, CITYBLOCK = range(4)
METRICS = {"stored": STORED, "sqeuclidean": SQEUCLIDEAN, "euclidean": EUCLIDEAN, "cityblock": CITYBLOCK}
LEAST_NORMAL = 2.3e-308
BINS = 64  # powers of two below the largest entry of a row


@compiled(fastmath={"contract"})
def _add_squares(costs, x, y):
    for j in range(y.size):
        apart = x - y[j]
        costs[j] += apart * apart


@compiled(fastmath={"contract"})
def _add_lengths(costs, x, y):
    for j in range(y.size):
        costs[j] += abs(x - y[j])


@compiled
def _make_costs(metric, X, Y, i, costs, lo, hi):
    """costs[j] = distance of X[i] and the point of column j of Y, a row for each coordinate; for lo <= j < hi."""
    run = costs[lo:hi]
    run[:] = 0
    for c in range(X.shape[1]):
        if metric == CITYBLOCK:
            _add_lengths(run, X[i, c], Y[c, lo:hi])
        else:
            _add_squares(run, X[i, c], Y[c, lo:hi])
    if metric == EUCLIDEAN:
        for j in range(run.size):
            run[j] = np.sqrt(run[j])


@compiled
def _gaps(metric, X, Y, i, g, scale, row, costs):
    """row[j] = scale (g_j - C_ij), and the largest."""
    m, top = g.size, -np.inf
    if metric == STORED:
        return scaled_gaps(row, scale, g, X.reshape(X.size), i * m, m)
    for lo in range(0, m, PANEL):
        hi = min(lo + PANEL, m)
        _make_costs(metric, X, Y, i, costs, lo, hi)
        top = max(top, scaled_gaps(row[lo:hi], scale, g[lo:hi], costs, lo, hi - lo))
    return top


@compiled
def _room(m):
    """Space for a row and its costs in whole cache lines, so that exp of what lies beyond m is 0."""
    width = (m + LANES - 1) // LANES * LANES
    return np.full(width, -np.inf), np.empty(width), width


@compiled
def _softmin_rows(metric, X, Y, g, reg, out, lo, hi):
    row, costs, width = _room(g.size)
    for i in range(lo, hi):
        top = _gaps(metric, X, Y, i, g, 1 / reg, row, costs)
        row[g.size :] = -np.inf
        out[i] = -reg * (top + np.log(exponential_sum(row, top, width))) if top > -np.inf else np.inf


@compiled
def _sweep_rows(metric, X, Y, a, g, reg, f, sums, lo, hi):
    row, costs, width = _room(g.size)
    for i in range(lo, hi):
        top = _gaps(metric, X, Y, i, g, 1 / reg, row, costs)
        row[g.size :] = -np.inf
        if top > -np.inf and a[i] > 0:
            total = exponential_sum(row, top, width)
            f[i] = reg * (np.log(a[i] / total) - top)
            add_rows(sums, row, (0,), (a[i] / total,), g.size, None)
        else:
            f[i] = -np.inf if a[i] == 0 else np.inf


@compiled
def _plan_row(metric, X, Y, i, f, g, reg, row, costs, width):
    """row[j] = T_ij; the sum."""
    top = _gaps(metric, X, Y, i, g, 1 / reg, row, costs)
    row[g.size :] = -np.inf
    level = f[i] / reg + top if top > -np.inf else -np.inf
    if not level > -700.0:  # all of the row would be subnormal
        row[:] = 0
        return 0.0
    factor = np.exp(level)
    total = exponential_sum(row, top, width) * factor
    row *= factor
    return total


@compiled
def _plan_sums(metric, X, Y, f, g, reg, rows, prices, sums, lo, hi):
    m = g.size
    row, costs, width = _room(m)
    for i in range(lo, hi):
        rows[i] = _plan_row(metric, X, Y, i, f, g, reg, row, costs, width)
        add_rows(sums, row, (0,), (1.0,), m, None)
        total = 0.0
        for j in range(m):
            if row[j] > 0:
                total += row[j] * (X[i, j] if metric == STORED else costs[j])
        prices[i] = total


@compiled
def _plan_matrix(metric, X, Y, f, g, reg, out, lo, hi):
    m = g.size
    row, costs, width = _room(m)
    for i in range(lo, hi):
        _plan_row(metric, X, Y, i, f, g, reg, row, costs, width)
        out[i] = row[:m]


@compiled
def _least_kept(row, places, n, total, certain, share):
    """A power of two, or less: the row's entries below it, and those not in `places`, sum to `share` of it or less."""
    masses, highest, kept = np.zeros(BINS), np.int64(0), 0.0
    for k in range(n):
        highest = max(highest, bits_of(row[places[k]]) >> np.int64(52))
    for k in range(n):
        value = row[places[k]]
        masses[min(highest - (bits_of(value) >> np.int64(52)), BINS - 1)] += value
        kept += value
    spent, allowed = max(total - kept, 0.0), share * total
    for k in range(BINS - 1, -1, -1):
        spent += masses[k]
        if spent > allowed:  # the last bin has all that is lower, which is then kept
            return max(certain, number_of((highest - k) << np.int64(52))) if k < BINS - 1 else certain
    return certain


@compiled
def _plan_entries(metric, X, Y, f, g, reg, share, counts, lo, hi):
    """The entries kept of rows lo..hi-1: their columns and values, one row after the other."""
    m, n = g.size, 0
    row, costs, width = _room(m)
    places = np.empty(m, np.int32)
    columns, values = np.empty(16 * (hi - lo) + m, np.int32), np.empty(16 * (hi - lo) + m)
    for i in range(lo, hi):
        total, first = _plan_row(metric, X, Y, i, f, g, reg, row, costs, width), n
        certain, found = max(share * total / m, LEAST_NORMAL), 0
        for j in range(m):
            places[found] = j  # kept if the count goes up
            found += row[j] >= certain
        least = _least_kept(row, places, found, total, certain, share)
        if n + found > columns.size:
            wider, larger = np.empty(2 * columns.size + m, np.int32), np.empty(2 * columns.size + m)
            wider[:n], larger[:n] = columns[:n], values[:n]
            columns, values = wider, larger
        for k in range(found):
            columns[n], values[n] = places[k], row[places[k]]
            n += row[places[k]] >= least
        counts[i] = n - first
    return columns[:n].copy(), values[:n].copy()


@compiled
def _plan_products(metric, X, Y, f, g, reg, V, out, lo, hi):
    m = g.size
    row, costs, width = _room(m)
    for i in range(lo, hi):
        _plan_row(metric, X, Y, i, f, g, reg, row, costs, width)
        for c in range(V.shape[0]):
            out[i, c] = dot_rows(V.reshape(V.size), (c * m,), row, m)[0]


@compiled
def _scale_rows(K, a, v, u, sums, lo, hi):
    m, flat = v.size, K.reshape(K.size)
    for i in range(lo, hi):
        total = dot_rows(flat, (i * m,), v, m)[0]
        u[i] = a[i] / total if total > 0 else 0.0
        add_rows(sums, flat, (i * m,), (u[i],), m, None)


@compiled(fastmath={"contract"})
def _schur_product(data, indices, indptr, rows, diagonal, p, out):
    """out = (diag(diagonal) - S.T diag(1 / rows) S) p; p.out."""
    for j in range(p.size):
        out[j] = diagonal[j] * p[j]
    for i in range(rows.size):
        first, last, total = indptr[i], indptr[i + 1], 0.0
        for e in range(first, last):
            total += data[e] * p[indices[e]]
        total /= rows[i]
        for e in range(first, last):
            out[indices[e]] -= total * data[e]
    product = 0.0
    for j in range(p.size):
        product += p[j] * out[j]
    return product


@compiled(fastmath={"contract"})
def _schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter):
    m = right.size
    scale = diagonal.copy()
    for i in range(rows.size):
        for e in range(indptr[i], indptr[i + 1]):
            scale[indices[e]] -= data[e] * data[e] / rows[i]
    for j in range(m):
        scale[j] = 1 / max(scale[j], 1e-3 * diagonal[j])
    x, rest, image = np.zeros(m), right.copy(), np.empty(m)
    p = scale * rest
    energy, norm = 0.0, 0.0
    for j in range(m):
        energy += rest[j] * p[j]
        norm += abs(rest[j])
    goal = tol * norm
    for step in range(max_iter):
        if norm <= goal:
            return x, step, True
        curvature = _schur_product(data, indices, indptr, rows, diagonal, p, image)
        if not (curvature > 0 and energy > 0):
            return x, step, False
        length, before, energy, norm = energy / curvature, energy, 0.0, 0.0
        for j in range(m):
            x[j] += length * p[j]
            rest[j] -= length * image[j]
            energy += rest[j] * rest[j] * scale[j]
            norm += abs(rest[j])
        for j in range(m):
            p[j] = scale[j] * rest[j] + energy / before * p[j]
    return x, max_iter, norm <= goal


def _points(metric, X, Y):
    """The number of a metric and what the compiled rows read: costs, or points and coordinates."""
    if metric == "stored":
        return STORED, np.ascontiguousarray(X), np.empty((0, 0))
    return METRICS[metric], np.ascontiguousarray(X, np.float64), np.ascontiguousarray(Y.T, np.float64)


def _over_rows(n, m, body):
    """Call body(task, lo, hi) over fixed chunks of n rows of m entries; how many chunks there are."""
    chunk = -(-n // _tasks(n, m))
    parallel_for(lambda lo, hi: body(lo // chunk, lo, hi), n, chunk=chunk)


def _tasks(n, m):
    return max(1, min(MOST_TASKS, n * m // TASK, n))


def softmin_rows(metric, X, Y, g, reg):
    """-reg log(sum over j of exp((g_j - C_ij) / reg)), float64 (n,); see `reference`."""
    kind, X, Y = _points(metric, X, Y)
    out = np.empty(len(X))
    _over_rows(len(X), len(g), lambda _, lo, hi: _softmin_rows(kind, X, Y, g, reg, out, lo, hi))
    return out


def sinkhorn_sweep(metric, X, Y, a, g, reg):
    """f (n,) for which the rows of the plan sum to a, and the sums of its columns (m,); see `reference`."""
    kind, X, Y = _points(metric, X, Y)
    f, sums = np.empty(len(X)), np.zeros((_tasks(len(X), len(g)), len(g)))
    _over_rows(len(X), len(g), lambda task, lo, hi: _sweep_rows(kind, X, Y, a, g, reg, f, sums[task], lo, hi))
    return f, sums.sum(axis=0)


def plan_sums(metric, X, Y, f, g, reg):
    """Sums of the rows (n,) and columns (m,) of the plan, and of its products with the costs in each row (n,)."""
    kind, X, Y = _points(metric, X, Y)
    rows, prices, sums = np.empty(len(f)), np.empty(len(f)), np.zeros((_tasks(len(f), len(g)), len(g)))
    _over_rows(len(f), len(g), lambda task, lo, hi: _plan_sums(kind, X, Y, f, g, reg, rows, prices, sums[task], lo, hi))
    return rows, sums.sum(axis=0), prices


def plan_matrix(metric, X, Y, f, g, reg):
    """The plan, float64 (n, m); see `reference`."""
    kind, X, Y = _points(metric, X, Y)
    out = np.empty((len(f), len(g)))
    _over_rows(len(f), len(g), lambda _, lo, hi: _plan_matrix(kind, X, Y, f, g, reg, out, lo, hi))
    return out


def plan_entries(metric, X, Y, f, g, reg, share):
    """The plan without small entries, at most `share` of the sum of each row, as (data, indices, indptr) of CSR.

    See `reference`.
    """
    kind, X, Y = _points(metric, X, Y)
    counts, parts = np.empty(len(f), np.int64), {}

    def work(task, lo, hi):
        parts[task] = _plan_entries(kind, X, Y, f, g, reg, share, counts, lo, hi)

    _over_rows(len(f), len(g), work)
    indices, data = (np.concatenate([parts[task][k] for task in sorted(parts)]) for k in range(2))
    return data, indices, np.concatenate([[0], np.cumsum(counts)])


def plan_matmul(metric, X, Y, f, g, reg, V):
    """The product of the plan and V (m, k), float64 (n, k); see `reference`."""
    kind, X, Y = _points(metric, X, Y)
    out, V = np.empty((len(f), V.shape[1])), np.ascontiguousarray(V.T, np.float64)
    _over_rows(len(f), len(g), lambda _, lo, hi: _plan_products(kind, X, Y, f, g, reg, V, out, lo, hi))
    return out


def scaling_sweep(K, a, v):
    """u = a / (K v) (0 where K v is), and K.T u, in one pass over K (n, m); see `reference`."""
    u, sums = np.empty(len(K)), np.zeros((_tasks(*K.shape), K.shape[1]))
    _over_rows(*K.shape, lambda task, lo, hi: _scale_rows(K, a, v, u, sums[task], lo, hi))
    return u, sums.sum(axis=0)


def schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter):
    """Solve (diag(diagonal) - S.T diag(1 / rows) S) x = right by conjugate gradients; x (m,), steps, whether solved.

    See `reference`.
    """
    return _schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter)
