"""Least-squares problems of rows observed in part, by conjugate gradients: rows are gathered once for all steps."""

from __future__ import annotations

import numpy as np

from .._parallel import parallel_for
from ._compile import compiled
from ._vector import add_rows, dot_rows, prefetch_read, scaled_add, signed_copy
from .completion import (
    AHEAD,
    CHUNK,
    SINGULAR,
    _add_gram,
    _aligned,
    _backward,
    _entries,
    _factor,
    _forward,
    _padded,
)
from .tables import sparse_sign_table

KEPT = 2**20  # bytes of gathered rows up to which they are kept for all steps of an iteration


@compiled
def _places(V, indices, lo, hi, kept, places):
    """Where the rows of V for the entries lo..hi-1 begin: in V itself, or in `kept` where they fit and are copied."""
    K, source, last = V.shape[1], V.reshape(V.size), indices.size
    line = 64 // V.itemsize
    fit = (hi - lo) * K <= kept.size
    for p in range(lo, hi):
        places[p - lo] = np.int64(indices[p]) * K
        if fit:
            if p + AHEAD < last:
                base = np.int64(indices[p + AHEAD]) * K
                for c in range(0, K, line):
                    prefetch_read(source, base + c)
            signed_copy(kept, (p - lo) * K, source, places[p - lo], K, V.dtype.type(1))
            places[p - lo] = (p - lo) * K
    return kept if fit else source


@compiled
def _right_side(source, places, n, targets, lo, b):
    """b <- the sum of targets[lo + p] times the row at places[p]."""
    b[:] = 0
    p, t = 0, targets
    while p + 4 <= n:
        four = places[p], places[p + 1], places[p + 2], places[p + 3]
        q = lo + p
        add_rows(b, source, four, (t[q], t[q + 1], t[q + 2], t[q + 3]), b.size, None)
        p += 4
    while p < n:
        add_rows(b, source, (places[p],), (t[lo + p],), b.size, None)
        p += 1


@compiled
def _multiply(source, places, n, weights, lo, base, diagonal, ridge, x, y):
    """y <- (base + diag(diagonal) + sum of w v v.T + ridge I) x; vectors of the padded width."""
    K, one = x.size, x.dtype.type(1)
    for c in range(K):
        y[c] = (diagonal[c] + x.dtype.type(ridge)) * x[c]
    flat = base.reshape(base.size)
    for j in range(base.shape[0]):
        add_rows(y, flat, (j * K,), (x[j],), K, None)
    p = 0
    while p + 4 <= n:
        four = places[p], places[p + 1], places[p + 2], places[p + 3]
        s, t, u, v = dot_rows(source, four, x, K)
        if weights.size > 0:
            q = lo + p
            s, t, u, v = weights[q] * s, weights[q + 1] * t, weights[q + 2] * u, weights[q + 3] * v
        add_rows(y, source, four, (s, t, u, v), K, None)
        p += 4
    while p < n:
        s = dot_rows(source, (places[p],), x, K)[0]
        add_rows(y, source, (places[p],), ((weights[lo + p] if weights.size > 0 else one) * s,), K, None)
        p += 1


@compiled
def _precondition(P, U, k, r, z):
    """z <- P^-1 r: by the reciprocals P, or by the factor U where it has rows; returns r.z."""
    energy = 0.0
    if U.shape[0] > 0:
        for c in range(k):
            z[c] = r[c]
        _forward(U, z, k)
        _backward(U, z, k)
        for c in range(k):
            energy += np.float64(r[c]) * np.float64(z[c])
        return energy
    for c in range(k):
        z[c] = P[c] * r[c]
        energy += np.float64(r[c]) * np.float64(z[c])
    return energy


@compiled
def _iterate(source, places, n, weights, lo, base, diagonal, ridge, P, U, k, vectors, tol, max_iter):
    """Conjugate gradients; rows of `vectors` are x (start and result), b, r, z, p and q.  Returns steps and ratio."""
    x, b, r, z, p, q = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5]
    target = _precondition(P, U, k, b, z)
    if not target > 0:
        x[:] = 0
        return 0, 0.0 if target == 0 else np.nan
    r[:] = b
    if x.any():
        _multiply(source, places, n, weights, lo, base, diagonal, ridge, x, q)
        for c in range(x.size):
            r[c] -= q[c]
    energy, steps = _precondition(P, U, k, r, z), 0
    p[:] = z
    while steps < max_iter and energy > tol * tol * target:
        _multiply(source, places, n, weights, lo, base, diagonal, ridge, p, q)
        curvature = 0.0
        for c in range(k):
            curvature += np.float64(p[c]) * np.float64(q[c])
        if not curvature > 0:
            break
        step = x.dtype.type(energy / curvature)
        for c in range(x.size):
            x[c] += step * p[c]
            r[c] -= step * q[c]
        before, energy = energy, _precondition(P, U, k, r, z)
        again = x.dtype.type(energy / before)
        for c in range(x.size):
            p[c] = z[c] + again * p[c]
        steps += 1
    return steps, np.sqrt(max(energy / target, 0.0))


@compiled
def _iterate_rows(V, k, indices, indptr, longest, weights, targets, base, plain, ridge, diagonal, scale, X, tol,
                  max_iter, steps, residuals, lo, hi):  # fmt: skip
    K, none = V.shape[1], np.zeros((0, 0), V.dtype)
    vectors, places, P = np.zeros((6, K), V.dtype), np.empty(longest, np.int64), np.zeros(k, V.dtype)
    room = min(longest * K, KEPT // V.itemsize) + 64
    space = np.empty(room, V.dtype)
    kept = space[(64 - space.ctypes.data % 64) % 64 // V.itemsize :]
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        source = _places(V, indices, first, last, kept, places)
        _right_side(source, places, last - first, targets, first, vectors[1])
        for c in range(k):
            vectors[0, c] = X[i, c]
            value = scale[i] * diagonal[c] + ridge[i]
            P[c] = 1 / value if value > 0 else 1
        steps[i], residuals[i] = _iterate(
            source, places, last - first, weights, first, base, plain, ridge[i], P, none, k, vectors, tol, max_iter
        )
        for c in range(k):
            X[i, c] = vectors[0, c]


def _to_lines(V, k, dtype):
    """V (n, k) in a dtype, its rows padded to whole cache lines and beginning with one."""
    lane = 64 // np.dtype(dtype).itemsize
    n, K = len(V), max(1, -(-k // lane)) * lane
    flat = np.zeros(n * K + lane, dtype)
    skip = -flat.ctypes.data % 64 // flat.itemsize
    wide = flat[skip : skip + n * K].reshape(n, K)
    wide[:, :k] = V
    return wide


def _longest(indptr):
    return int(np.max(np.diff(indptr), initial=0))


def masked_cg(V, indices, indptr, weights, targets, base, ridge, diagonal, scale, X0, tol, max_iter):
    """The systems of `masked_cholesky` by conjugate gradients from X0, preconditioned by scale_i diagonal + ridge_i.

    Returns X (m, k), the steps, int64 (m,), and the last residuals over the right-hand sides in the preconditioner's
    norm, float64 (m,).  See `reference`.
    """
    (m, k), dtype = (len(indptr) - 1, V.shape[1]), V.dtype
    X, steps, residuals = np.array(X0, dtype, order="C"), np.zeros(m, np.int64), np.zeros(m)
    wide, w, t = _to_lines(V, k, dtype), _entries(weights, dtype), _entries(targets, dtype)
    plain, common = np.zeros(wide.shape[1], dtype), np.zeros((0, wide.shape[1]), dtype)
    if base is not None and np.count_nonzero(base) == np.count_nonzero(np.diagonal(base)):
        plain[:k] = np.diagonal(base)  # one number a step in place of k
    elif base is not None:
        common = _to_lines(np.asarray(base), k, dtype)
    numbers = [np.ascontiguousarray(part, np.float64) for part in (ridge, diagonal, scale)]
    longest = _longest(indptr)

    def work(lo, hi):
        _iterate_rows(
            wide, k, indices, indptr, longest, w, t, common, plain, *numbers, X, tol, max_iter, steps, residuals, lo, hi
        )

    parallel_for(work, m if k else 0, chunk=CHUNK)
    return X, steps, residuals


@compiled
def _sketch_rows(V, k, table, sketch_size, indices, indptr, longest, weights, targets, ridge, X, tol, max_iter, steps,
                 residuals, lo, hi):  # fmt: skip
    K, nnz, none = V.shape[1], table.shape[1], np.zeros((0, V.shape[1]))
    vectors, places, plain, P = np.zeros((6, K)), np.empty(longest, np.int64), np.zeros(K), np.zeros(0)
    SA, M = _aligned(sketch_size, K), _aligned(K, K)
    source, flat = V.reshape(V.size), SA.reshape(SA.size)
    for i in range(lo, hi):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        SA[:], M[:] = 0, 0
        for p in range(first, last):
            j = np.int64(indices[p])
            places[p - first] = j * K
            size = np.sqrt(np.float64(weights[p]) if weights.size > 0 else 1.0) / np.sqrt(nnz)
            for t in range(nnz):
                packed = np.int64(table[j, t])
                scaled_add(flat, ((packed >> 1) * K,), (size if packed & 1 == 0 else -size,), source, j * K, K)
        _add_gram(M, SA, SA, sketch_size, k)
        trace = 0.0
        for c in range(k):
            M[c, c] += ridge[i]
            trace += M[c, c]
        for c in range(k):
            M[c, c] += k * SINGULAR * trace
        U = M if _factor(M, k) > 0 else none
        if U.shape[0] == 0:
            P = np.ones(k)
        _right_side(source, places, last - first, targets, first, vectors[1])
        for c in range(k):
            vectors[0, c] = X[i, c]
        steps[i], residuals[i] = _iterate(
            source, places, last - first, weights, first, none, plain, ridge[i], P, U, k, vectors, tol, max_iter
        )
        for c in range(k):
            X[i, c] = vectors[0, c]


def masked_sketched_cg(key, V, indices, indptr, weights, targets, ridge, X0, sketch_size, nnz, tol, max_iter):
    """The systems of `masked_cholesky` without base, preconditioned by a sketch of each row's own design.

    Returns as `masked_cg`.  See `reference`.
    """
    (m, k), dtype = (len(indptr) - 1, V.shape[1]), V.dtype
    X, steps, residuals = np.array(X0, np.float64, order="C"), np.zeros(m, np.int64), np.zeros(m)
    wide, w, t = _padded(V), _entries(weights, np.float64), _entries(targets, np.float64)
    table, ridge = sparse_sign_table(key, 0, len(V), nnz, sketch_size), np.ascontiguousarray(ridge, np.float64)
    longest = _longest(indptr)

    def work(lo, hi):
        _sketch_rows(
            wide,
            k,
            table,
            sketch_size,
            indices,
            indptr,
            longest,
            w,
            t,
            ridge,
            X,
            tol,
            max_iter,
            steps,
            residuals,
            lo,
            hi,
        )

    parallel_for(work, m if k else 0, chunk=CHUNK)
    return X.astype(dtype), steps, residuals
