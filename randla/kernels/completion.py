"""Small least-squares problems of rows observed in part: one system for each row, solved where it was formed.

The rows of V that a row names are gathered from a copy in double precision that is padded to whole cache lines, with
the right-hand side as one column more: the Gram matrix of that is the system and its right-hand side, and elimination
carries both.  A thread owns the rows of a chunk, and sums run in the order of the entries, so that results do not
depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from ._vector import HEIGHT, add_rows, dot_rows, outer_tile, outer_tile_pair, prefetch_read, scaled_add, signed_copy

CHUNK = 32  # rows that a thread takes at a time
BUFFER = 2**15  # bytes of gathered rows that are multiplied at a time: they stay in the first-level cache
AHEAD = 8  # entries between the hint and the use
SINGULAR = 2.0**-52  # of a pivot, times the size of the system


# --- one system -------------------------------------------------------------------------------------------------------


@compiled
def _aligned(rows, columns):
    """Zeros (rows, columns) that begin with a cache line."""
    flat = np.zeros(rows * columns + 8)
    skip = (64 - flat.ctypes.data % 64) % 64 // 8
    return flat[skip : skip + rows * columns].reshape(rows, columns)


def _padded(V):
    """V in double precision with room for one column more, padded to whole cache lines."""
    n, k = V.shape
    wide = _aligned(n, (k + HEIGHT) // HEIGHT * HEIGHT)
    wide[:, :k] = V
    return wide


@compiled
def _buffers(K, weighted):
    """The system M (K, K), and the gathered rows: plain D and, with weights, weighted E."""
    rows = max(32, BUFFER // (8 * K))
    return _aligned(K, K), _aligned(rows, K), _aligned(rows if weighted else 0, K)


@compiled
def _gather(V, k, indices, weights, targets, lo, hi, D, E):
    """The entries lo..hi-1: rows of V in D, the same times the weights in E if it has rows, targets in column k."""
    K, source, plain, last = V.shape[1], V.reshape(V.size), D.reshape(D.size), indices.size
    weighted = E.reshape(E.size)
    for p in range(lo, hi):
        if p + AHEAD < last:
            base = np.int64(indices[p + AHEAD]) * K
            for c in range(0, K, 8):
                prefetch_read(source, base + c)
        at, a = (p - lo) * K, np.int64(indices[p]) * K
        signed_copy(plain, at, source, a, K, 1.0)
        if E.shape[0] > 0:
            signed_copy(weighted, at, source, a, K, np.float64(weights[p]))
    if targets.size > 0:
        right = E if E.shape[0] > 0 else D
        for p in range(lo, hi):
            right[p - lo, k] = targets[p]


@compiled
def _add_gram(M, left, right, n, k):
    """The first k rows of M += left[:n].T @ right[:n] from the diagonal on, by tiles."""
    K = M.shape[1]
    out, a, b = M.reshape(M.size), left.reshape(left.size), right.reshape(right.size)
    for i in range(0, k, HEIGHT):
        j = i
        while j + 16 <= K:
            outer_tile_pair(out, i * K + j, K, a, i, K, b, j, K, n)
            j += 16
        if j < K:
            outer_tile(out, i * K + j, K, a, i, K, b, j, K, n)


@compiled
def _form(M, D, E, V, k, indices, weights, targets, base, ridge, lo, hi):
    """The system of the entries lo..hi-1 in M, from the diagonal on; its right-hand side is column k."""
    step = D.shape[0]
    M[:] = 0
    for i in range(base.shape[0]):
        for j in range(i, k):
            M[i, j] = base[i, j]
    for first in range(lo, hi, step):
        last = min(first + step, hi)
        _gather(V, k, indices, weights, targets, first, last, D, E)
        _add_gram(M, D, E if E.shape[0] > 0 else D, last - first, k)
    for i in range(k):
        M[i, i] += ridge


@compiled
def _is_zero(M, k):
    for i in range(k):
        for j in range(i, k):
            if M[i, j] != 0:
                return False
    return True


@compiled
def _factor(M, k):
    """M = U.T U in place, U from the diagonal on, and column k <- U.T^-1 of it.

    Returns the least pivot relative to its diagonal entry, 0 where one says that the system is singular.
    """
    K, flat, least = M.shape[1], M.reshape(M.size), 1.0
    for i in range(k):
        first, before = i - i % HEIGHT, M[i, i]
        row, j = flat[i * K + first : (i + 1) * K], 0
        while j + 4 <= i:
            c = j * K + first
            factors = -M[j, i], -M[j + 1, i], -M[j + 2, i], -M[j + 3, i]
            add_rows(row, flat, (c, c + K, c + 2 * K, c + 3 * K), factors, K - first, None)
            j += 4
        while j < i:
            add_rows(row, flat, (j * K + first,), (-M[j, i],), K - first, None)
            j += 1
        pivot = M[i, i]
        if not (before > 0 and pivot > k * SINGULAR * before):
            return 0.0
        least = min(least, pivot / before)
        root = 1 / np.sqrt(pivot)
        for c in range(i, K):
            M[i, c] *= root
    return least


@compiled
def _backward(U, x, k):
    """x <- U^-1 x."""
    K, flat = U.shape[1], U.reshape(U.size)
    for i in range(k - 1, -1, -1):
        if i + 1 < k:
            x[i] -= dot_rows(flat, (i * K + i + 1,), x[i + 1 :], k - i - 1)[0]
        x[i] /= U[i, i]


@compiled
def _forward(U, x, k):
    """x <- U.T^-1 x."""
    K, flat = U.shape[1], U.reshape(U.size)
    for i in range(k):
        x[i] /= U[i, i]
        if i + 1 < k:
            add_rows(x[i + 1 :], flat, (i * K + i + 1,), (-x[i],), k - i - 1, None)


# --- direct solutions -------------------------------------------------------------------------------------------------


@compiled
def _solve_rows(V, k, indices, indptr, weights, targets, base, ridge, X, pivots, lo, hi):
    M, D, E = _buffers(V.shape[1], weights.size > 0)
    x = np.empty(k)
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        if first == last and base.shape[0] == 0:
            continue
        _form(M, D, E, V, k, indices, weights, targets, base, ridge[i], first, last)
        if _is_zero(M, k):
            continue
        pivots[i] = _factor(M, k)
        if pivots[i] > 0:
            for c in range(k):
                x[c] = M[c, k]
            _backward(M, x, k)
            for c in range(k):
                X[i, c] = x[c]


def _matrix(base, k):
    """The common part of the systems as a matrix; without rows where there is none."""
    return np.zeros((0, k)) if base is None else np.ascontiguousarray(base, np.float64)


def _entries(values, dtype):
    """Numbers of entries in one dtype; an empty array for None."""
    return np.zeros(0, dtype) if values is None else np.ascontiguousarray(values, dtype)


def masked_cholesky(V, indices, indptr, weights, targets, base, ridge):
    """Row i of X (m, k) solves (base + sum of w_p v_p v_p.T + ridge_i I) x = sum of targets_p v_p.

    Also the least pivots, float64 (m,), relative to their diagonal entries.  See `reference`.
    """
    m, k = len(indptr) - 1, V.shape[1]
    X, pivots = np.zeros((m, k), V.dtype), np.ones(m)
    wide, w, t = _padded(V), _entries(weights, V.dtype), _entries(targets, V.dtype)
    base, ridge = _matrix(base, k), np.ascontiguousarray(ridge, np.float64)

    def work(lo, hi):
        _solve_rows(wide, k, indices, indptr, w, t, base, ridge, X, pivots, lo, hi)

    parallel_for(work, m if k else 0, chunk=CHUNK)
    return X, pivots


@compiled
def _fold_block(R, B, squares, k):
    """Rotate the rows of B (rows, K) into the triangle R (k, K) by Householder reflections; B is spoilt.

    Column k of both is the right-hand side, and `squares` (k,) takes the squares of the columns.
    """
    K, (rows, _) = R.shape[1], B.shape
    flat, w = B.reshape(B.size), np.empty(R.shape[1])
    for i in range(rows):
        for c in range(k):
            squares[c] += B[i, c] * B[i, c]
    for j in range(k):
        below = 0.0
        for i in range(rows):
            below += B[i, j] * B[i, j]
        if below == 0:
            continue
        size = np.sqrt(below + R[j, j] * R[j, j])
        head = R[j, j] + (size if R[j, j] >= 0 else -size)  # no cancellation
        factor = 2 / (head * head + below)
        first = j - j % HEIGHT
        for c in range(first, K):
            w[c] = head * R[j, c]
        i = 0
        while i + 4 <= rows:
            a = i * K + first
            four = B[i, j], B[i + 1, j], B[i + 2, j], B[i + 3, j]
            add_rows(w[first:], flat, (a, a + K, a + 2 * K, a + 3 * K), four, K - first, None)
            i += 4
        while i < rows:
            add_rows(w[first:], flat, (i * K + first,), (B[i, j],), K - first, None)
            i += 1
        for c in range(j, K):
            R[j, c] -= factor * head * w[c]
        i = 0
        while i + 4 <= rows:
            a = i * K + first
            four = -factor * B[i, j], -factor * B[i + 1, j], -factor * B[i + 2, j], -factor * B[i + 3, j]
            scaled_add(flat, (a, a + K, a + 2 * K, a + 3 * K), four, w, first, K - first)
            i += 4
        while i < rows:
            scaled_add(flat, (i * K + first,), (-factor * B[i, j],), w, first, K - first)
            i += 1


@compiled
def _rotate_rows(V, k, least, indices, indptr, weights, values, ridge, X, pivots, lo, hi):
    K = V.shape[1]
    height = max(4 * k, 32)
    R, B, none = _aligned(k, K), _aligned(height, K), np.empty((0, K))
    squares, x = np.empty(k), np.empty(k)
    for i in range(lo, hi):
        root = np.sqrt(ridge[i])
        R[:], squares[:] = 0, root * root
        for c in range(k):
            R[c, c] = root
        for first in range(indptr[i], indptr[i + 1], height):
            last = min(first + height, np.int64(indptr[i + 1]))
            _gather(V, k, indices, weights, values, first, last, B, none)
            if weights.size > 0:
                for p in range(first, last):
                    scale = np.sqrt(np.float64(weights[p]))
                    for c in range(K):
                        B[p - first, c] *= scale
            _fold_block(R, B[: last - first], squares, k)
        if not squares.any():
            continue
        pivots[i] = 1
        for c in range(k):
            size = np.sqrt(squares[c])
            pivots[i] = min(pivots[i], abs(R[c, c]) / size if size > 0 else 0.0)
        if not pivots[i] > least:
            pivots[i] = 0
            continue
        for c in range(k):
            x[c] = R[c, k]
        _backward(R, x, k)
        for c in range(k):
            X[i, c] = x[c]


def masked_qr(V, indices, indptr, weights, values, ridge):
    """Row i of X (m, k) minimises sum of w_p (values_p - v_p.x)**2 + ridge_i ||x||**2, by QR of the design.

    Also the least pivots |R_jj| / ||column j||, float64 (m,).  See `reference`.
    """
    m, k = len(indptr) - 1, V.shape[1]
    X, pivots, least = np.zeros((m, k), V.dtype), np.ones(m), 8 * k * float(np.finfo(V.dtype).eps)
    wide, w, b = _padded(V), _entries(weights, V.dtype), _entries(values, V.dtype)
    ridge = np.ascontiguousarray(ridge, np.float64)

    def work(lo, hi):
        _rotate_rows(wide, k, least, indices, indptr, w, b, ridge, X, pivots, lo, hi)

    parallel_for(work, m if k else 0, chunk=CHUNK)
    return X, pivots


# --- predictions ------------------------------------------------------------------------------------------------------


@compiled
def _sample_rows(X, Y, indices, indptr, out, lo, hi):
    k, source, last = Y.shape[1], Y.reshape(Y.size), indices.size
    line = max(1, 64 // Y.itemsize)
    for i in range(lo, hi):
        p, end, x = np.int64(indptr[i]), np.int64(indptr[i + 1]), X[i]
        while p + 4 <= end:
            for q in range(p + AHEAD, min(p + AHEAD + 4, last)):
                base = np.int64(indices[q]) * k
                for c in range(0, k, line):
                    prefetch_read(source, base + c)
            a, b = np.int64(indices[p]) * k, np.int64(indices[p + 1]) * k
            c, d = np.int64(indices[p + 2]) * k, np.int64(indices[p + 3]) * k
            out[p], out[p + 1], out[p + 2], out[p + 3] = dot_rows(source, (a, b, c, d), x, k)
            p += 4
        while p < end:
            out[p] = dot_rows(source, (np.int64(indices[p]) * k,), x, k)[0]
            p += 1


def sampled_products(X, Y, indices, indptr):
    """X[i].Y[indices[p]] for the entries p of each row i; (nnz,) in the dtype of X."""
    X = np.ascontiguousarray(X)
    Y, out = np.ascontiguousarray(Y, X.dtype), np.zeros(len(indices), X.dtype)

    def work(lo, hi):
        _sample_rows(X, Y, indices, indptr, out, lo, hi)

    parallel_for(work, len(indptr) - 1 if X.shape[1] else 0, chunk=CHUNK)
    return out


@compiled
def _variance_rows(V, k, indices, indptr, weights, base, ridge, rows, order, starts, U, out, lo, hi):
    M, D, E = _buffers(V.shape[1], weights.size > 0)
    none, x = np.zeros(0, U.dtype), np.empty(k)
    for group in range(lo, hi):
        i = rows[order[starts[group]]]
        _form(M, D, E, V, k, indices, weights, none, base, ridge[i], np.int64(indptr[i]), np.int64(indptr[i + 1]))
        regular = _factor(M, k) > 0
        for q in order[starts[group] : starts[group + 1]]:
            for c in range(k):
                x[c] = U[q, c]
            if not x.any():
                continue
            if regular:
                _forward(M, x, k)
            out[q] = np.dot(x, x) if regular else np.inf


def masked_variances(V, indices, indptr, weights, base, ridge, rows, U):
    """u_q.M^-1 u_q for each row q of U (q, k), M the system of `masked_cholesky` of row rows[q]; float64 (q,).

    Infinity where that system is singular.  See `reference`.
    """
    rows, k, out = np.asarray(rows, np.int64), V.shape[1], np.zeros(len(rows))
    order = np.argsort(rows, kind="stable")
    starts = np.append(np.flatnonzero(np.diff(rows[order], prepend=-1)), len(rows))  # a system is factored once
    wide, w, base = _padded(V), _entries(weights, V.dtype), _matrix(base, k)
    ridge, U = np.ascontiguousarray(ridge, np.float64), np.ascontiguousarray(U, V.dtype)

    def work(lo, hi):
        _variance_rows(wide, k, indices, indptr, w, base, ridge, rows, order, starts, U, out, lo, hi)

    parallel_for(work, len(starts) - 1 if k else 0, chunk=CHUNK)
    return out
