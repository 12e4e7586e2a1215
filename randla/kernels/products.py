"""Products of a CSR matrix with a dense panel: one pass over the nonzeros, rows of the panel fetched ahead."""

from __future__ import annotations

import numpy as np

from .._parallel import available_threads, parallel_for, stripe_width
from ._compile import compiled
from ._registers import MOST_LANES, gathered_rows
from ._vector import LANE_BYTES, prefetch_read, prefetch_write, scaled_add

AHEAD = 8  # nonzeros between the hint and the use: about the latency of memory over the time of one update
LEAST_ROWS = 256  # rows that are worth a thread


# contract: a fused multiply-add rounds once instead of twice, and these loops live on it
@compiled(fastmath={"contract"})
def _multiply(data, indices, indptr, X, out, lo, hi):
    (m, k), per_line, n_nonzeros = out.shape, max(1, LANE_BYTES // X.itemsize), indices.size
    flat = X.reshape(X.size)
    for piece in range(0, indptr.size - 1, m):
        for i in range(lo, hi):
            y = out[i]
            p, end = indptr[piece + i], indptr[piece + i + 1]
            while p + 3 < end:  # four rows of X at a time, so that y is read and written a quarter as often
                for q in range(p + AHEAD, min(p + AHEAD + 4, n_nonzeros)):
                    base = np.int64(indices[q]) * k
                    for c in range(0, k, per_line):
                        prefetch_read(flat, base + c)
                a, b, c, d = data[p], data[p + 1], data[p + 2], data[p + 3]
                u, v = X[np.int64(indices[p])], X[np.int64(indices[p + 1])]
                w, x = X[np.int64(indices[p + 2])], X[np.int64(indices[p + 3])]
                for j in range(k):
                    y[j] = (((y[j] + a * u[j]) + b * v[j]) + c * w[j]) + d * x[j]
                p += 4
            while p < end:
                a, u = data[p], X[np.int64(indices[p])]
                for j in range(k):
                    y[j] += a * u[j]
                p += 1


@compiled
def _multiply_lanes(data, indices, indptr, X, out, lo, hi):
    """The same for real panels at least one vector wide: the sums of up to eight vectors stay in registers."""
    (m, k), lane = out.shape, LANE_BYTES // X.itemsize
    source, target = X.reshape(X.size), out.reshape(out.size)
    for piece in range(0, indptr.size - 1, m):
        for i in range(lo, hi):
            start, stop = np.int64(indptr[piece + i]), np.int64(indptr[piece + i + 1])
            if start == stop:
                continue
            c = 0
            while c < k:
                width = min(k - c, MOST_LANES * lane)
                if 0 < k - c - width < lane:  # what is left would not fill a vector
                    width -= lane
                gathered_rows(
                    target, i * k + c, -(-width // lane), width - lane, source, c, k, data, indices, start, stop, AHEAD
                )
                c += width


def csr_matmul(data, indices, indptr, X, n_rows=None):
    """A @ X for a CSR matrix A with X.shape[0] columns and a dense X.

    With `n_rows`, row i of A is given in pieces, the rows i, i + n_rows, ... of the arrays: where each piece holds
    columns whose rows of X fit into a cache, and comes with the like pieces of the other rows, X is read from there.
    """
    X = np.ascontiguousarray(X)
    m = len(indptr) - 1 if n_rows is None else n_rows
    out = np.zeros((m, X.shape[1]), X.dtype)
    wide = X.shape[1] * X.itemsize >= LANE_BYTES and X.dtype in (np.float32, np.float64) and data.dtype == X.dtype
    body = _multiply_lanes if wide and indices.dtype in (np.int32, np.int64) else _multiply
    # rows are independent: the chunks may depend on the number of threads, and the results do not
    chunk = max(LEAST_ROWS, -(-m // (4 * available_threads())))
    parallel_for(lambda lo, hi: body(data, indices, indptr, X, out, lo, hi), m, chunk=chunk)
    return out


@compiled
def _multiply_transposed(data, indices, indptr, Y, sums, lo, hi):
    """sums (n_columns, hi - lo) += A.T @ Y[:, lo:hi]."""
    k, width, line, n_nonzeros = Y.shape[1], hi - lo, LANE_BYTES // Y.itemsize, indices.size
    source, target = Y.reshape(Y.size), sums.reshape(sums.size)
    for i in range(indptr.size - 1):
        p, end, y = indptr[i], indptr[i + 1], i * k + lo
        while p + 3 < end:  # four rows of the output for one load of the row of Y
            for q in range(p + AHEAD, min(p + AHEAD + 4, n_nonzeros)):
                base = np.int64(indices[q]) * width
                for c in range(0, width, line):
                    prefetch_write(target, base + c)
            a, b = np.int64(indices[p]) * width, np.int64(indices[p + 1]) * width
            c, d = np.int64(indices[p + 2]) * width, np.int64(indices[p + 3]) * width
            values = data[p], data[p + 1], data[p + 2], data[p + 3]
            scaled_add(target, (a, b, c, d), values, source, y, width)
            p += 4
        while p < end:
            scaled_add(target, (np.int64(indices[p]) * width,), (data[p],), source, y, width)
            p += 1


@compiled(fastmath={"contract"})
def _multiply_transposed_complex(data, indices, indptr, Y, sums, lo, hi):
    for i in range(indptr.size - 1):
        y = Y[i, lo:hi]
        for p in range(indptr[i], indptr[i + 1]):
            value, x = data[p], sums[np.int64(indices[p])]
            for j in range(y.size):
                x[j] += value * y[j]


def csr_rmatmul(data, indices, indptr, Y, n_columns):
    """A.T @ Y (no conjugation) for a CSR matrix A with `n_columns` columns and a dense Y."""
    Y = np.ascontiguousarray(Y)
    width = Y.shape[1]
    out = np.zeros((n_columns, width), Y.dtype)
    body = _multiply_transposed_complex if np.iscomplexobj(out) else _multiply_transposed

    def work(lo, hi):
        # a stripe of its own for each thread, since rows of `out` would pass to and fro between the caches
        sums = out if hi - lo == width else np.zeros((n_columns, hi - lo), out.dtype)
        body(data, indices, indptr, Y, sums, lo, hi)
        if sums is not out:
            out[:, lo:hi] = sums

    parallel_for(work, width, chunk=stripe_width(width))
    return out
