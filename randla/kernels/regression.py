"""Both products of a normal equation in one read of the matrix: each row is used again while it lies in a cache.

The rows are cut into stripes whose number depends on the shape only.  Each stripe sums into an array of its own and
these are added in order, so a result does not depend on the number of threads.
"""

from __future__ import annotations

import contextlib

import numpy as np
from numba import njit

from .._parallel import parallel_for, serial_blas, stripe_width
from ._compile import compiled
from ._vector import LANE_BYTES, add_rows, dot_rows, prefetch_read, prefetch_write, scaled_add
from .products import AHEAD, csr_matmul, csr_rmatmul

BLOCK_ROWS = 256  # rows that are added up before their sum is added to the others
MOST_STRIPES = 16
BLOCK_BYTES = 2**17  # of rows that are used again from the second-level cache; 2**19 takes 1.2 of the time
WIDE = 16  # columns of a panel from which its stripes of columns fill cache lines
PANEL_LIMIT = 2**24  # bytes of a sparse product's panel above which A is the lesser part of what is read
PANEL_BYTES = 2**18  # the same for panels, whose products BLAS takes


@njit(inline="always")
def _factor(product, i, b, w):
    """What row i of A is multiplied with in the gradient, and the weighted square of its residual."""
    value = b[i] - product if b.size > 0 else product
    weighted = w[i] * value if w.size > 0 else value
    return weighted, np.float64(weighted) * np.float64(value)


# contract: a fused multiply-add rounds once instead of twice
@compiled(fastmath={"contract"})
def _sweep_block(a, n, x, b, w, g, lo, hi):
    """Rows lo..hi-1 of a row-major matrix, two at a time: their products with x, then their sum into g."""
    squares, more, i = 0.0, 0.0, lo
    while i + 2 <= hi:
        p, q = dot_rows(a, (i * n, i * n + n), x, n)
        p, s = _factor(p, i, b, w)
        q, t = _factor(q, i + 1, b, w)
        squares, more = squares + s, more + t
        add_rows(g, a, (i * n, i * n + n), (p, q), n, 2 * n)
        i += 2
    if i < hi:
        p, s = _factor(dot_rows(a, (i * n,), x, n)[0], i, b, w)
        squares += s
        add_rows(g, a, (i * n,), (p,), n, None)
    return squares + more


@compiled
def _sweep_rows(a, n, x, b, w, g, lo, hi):
    """`_sweep_block` by blocks with a sum each: one running sum would lose ten times as much to rounding."""
    squares, part = 0.0, np.empty_like(g)
    for first in range(lo, hi, BLOCK_ROWS):
        part[:] = 0
        squares += _sweep_block(a, n, x, b, w, part, first, min(first + BLOCK_ROWS, hi))
        g += part
    return squares


@compiled(fastmath={"contract"})
def _sweep_columns(a, m, x, b, w, g, lo, hi, step):
    """Rows lo..hi-1 of a column-major matrix in blocks of `step` rows: sums of columns, then products with columns."""
    n, y, squares = x.size, np.empty(step, g.dtype), 0.0
    for first in range(lo, hi, step):
        height = min(step, hi - first)
        y[:height] = 0
        j = 0
        while j + 4 <= n:
            c = j * m + first
            places = (c, c + m, c + 2 * m, c + 3 * m)
            add_rows(y, a, places, (x[j], x[j + 1], x[j + 2], x[j + 3]), height, 4 * m)
            j += 4
        while j < n:
            add_rows(y, a, (j * m + first,), (x[j],), height, None)
            j += 1
        for i in range(height):
            y[i], s = _factor(y[i], first + i, b, w)
            squares += s
        j = 0
        while j + 4 <= n:
            c = j * m + first
            p, q, r, t = dot_rows(a, (c, c + m, c + 2 * m, c + 3 * m), y, height)
            g[j] += p
            g[j + 1] += q
            g[j + 2] += r
            g[j + 3] += t
            j += 4
        while j < n:
            g[j] += dot_rows(a, (j * m + first,), y, height)[0]
            j += 1
    return squares


def _vector_stripe(A, x, b, w, g, lo, hi):
    """Add the rows lo..hi-1 to g (n,); returns the sum of their squares."""
    m, n = A.shape
    if A.flags.c_contiguous:
        return _sweep_rows(A.reshape(-1), n, x, b, w, g, lo, hi)
    step = max(64, BLOCK_BYTES // (n * A.itemsize) // 64 * 64)
    if A.flags.f_contiguous:
        return _sweep_columns(A.T.reshape(-1), m, x, b, w, g, lo, hi, step)
    squares = 0.0
    for first in range(lo, hi, step):
        last = min(first + step, hi)
        block = np.ascontiguousarray(A[first:last])
        squares += _sweep_rows(block.reshape(-1), n, x, b[first:last], w[first:last], g, 0, last - first)
    return squares


def _panel_stripe(A, X, B, w, G, squares, lo, hi):
    """Add the rows lo..hi-1 to G (n, k) and squares (k,): blocks that BLAS reads from memory once, then from cache."""
    step = max(64, PANEL_BYTES // (A.shape[1] * A.itemsize))
    for first in range(lo, hi, step):
        last = min(first + step, hi)
        block = A[first:last]
        Y = block @ X
        if B.size > 0:
            np.subtract(B[first:last], Y, out=Y)
        R = w[first:last, None] * Y if w.size > 0 else Y
        if B.size > 0:
            squares += _squares(R, Y)
        G += block.T @ R


def _stripes(m, size):
    """Rows of a stripe where the entries are `size` in all: fixed by the shape."""
    count = max(1, min(MOST_STRIPES, size // 2**16, m // 64))
    return 2 * -(-m // (2 * count))  # the sweep takes pairs


def _squares(weighted, R):
    return np.einsum("ij,ij->j", weighted, R, dtype=np.float64)


def _operands(X, B, weights, dtype):
    """Row-major panels and a vector of weights in the dtype of A; what is None becomes an array without rows."""
    B = np.empty((0, X.shape[1]), dtype) if B is None else np.ascontiguousarray(B, dtype)
    w = np.empty(0, dtype) if weights is None else np.ascontiguousarray(weights, dtype)
    return np.ascontiguousarray(X, dtype), B, w


def _run(A, X, B, weights):
    A = np.asarray(A)
    (m, n), k, dtype = A.shape, X.shape[1], A.dtype
    X, B, w = _operands(X, B, weights, dtype)
    rows = _stripes(m, m * n)
    count = -(-m // rows) if rows else 0
    sums, squares = np.zeros((count, n, k), dtype), np.zeros((count, k))
    if min(m, n, k) == 0:
        return np.zeros((n, k), dtype), _squares(w[:, None] * B if len(w) == len(B) else B, B)

    def work(lo, hi):
        s = lo // rows
        if k == 1:
            squares[s] = _vector_stripe(A, X[:, 0], B[:, 0], w, sums[s, :, 0], lo, hi)
        else:
            _panel_stripe(A, X, B, w, sums[s], squares[s], lo, hi)

    # what is not finite shows in the result: NumPy would warn for panels only
    with contextlib.nullcontext() if k == 1 else serial_blas(), np.errstate(all="ignore"):
        parallel_for(work, m, chunk=rows)
    for s in range(1, count):
        sums[0] += sums[s]
    return sums[0], squares.sum(axis=0)


def normal_products(A, X, weights):
    """A.T @ diag(weights) @ A @ X for a real dense A (m, n); `weights` is (m,) or None."""
    return _run(A, X, None, weights)[0]


def normal_residual(A, X, B, weights):
    """A.T @ diag(weights) @ R for R = B - A @ X, and the column sums of weights * R**2 in float64."""
    return _run(A, X, B, weights)


@compiled(fastmath={"contract"})
def _sweep_csr(data, indices, indptr, x, b, w, g, lo, hi):
    """Rows lo..hi-1 of a CSR matrix with one vector; returns the sum of their squares."""
    squares = 0.0
    for i in range(lo, hi):
        start, end = np.int64(indptr[i]), np.int64(indptr[i + 1])
        p, even, odd = start, x.dtype.type(0), x.dtype.type(0)
        while p + 2 <= end:
            even += data[p] * x[np.uint64(indices[p])]
            odd += data[p + 1] * x[np.uint64(indices[p + 1])]
            p += 2
        if p < end:
            even += data[p] * x[np.uint64(indices[p])]
        factor, square = _factor(even + odd, i, b, w)
        squares += square
        for p in range(start, end):
            g[np.uint64(indices[p])] += factor * data[p]
    return squares


@compiled(fastmath={"contract"})
def _sweep_csr_panel(data, indices, indptr, X, B, w, G, squares, first, lo, hi):
    """Rows lo..hi-1 with the columns first.. of X and B, as many as G (n, width) and squares (width,) have."""
    k, width, n_nonzeros, line = X.shape[1], G.shape[1], indices.size, max(1, LANE_BYTES // X.itemsize)
    source, target, y = X.reshape(X.size), G.reshape(G.size), np.empty(G.shape[1], G.dtype)
    for i in range(lo, hi):
        y[:] = 0
        p, end = np.int64(indptr[i]), np.int64(indptr[i + 1])
        while p + 3 < end:
            for q in range(p + AHEAD, min(p + AHEAD + 4, n_nonzeros)):
                row = np.int64(indices[q])
                for c in range(0, width, line):
                    prefetch_read(source, row * k + first + c)
                    prefetch_write(target, row * width + c)
            a, b = np.int64(indices[p]) * k + first, np.int64(indices[p + 1]) * k + first
            c, d = np.int64(indices[p + 2]) * k + first, np.int64(indices[p + 3]) * k + first
            values = data[p], data[p + 1], data[p + 2], data[p + 3]
            add_rows(y, source, (a, b, c, d), values, width, None)
            p += 4
        while p < end:
            add_rows(y, source, (np.int64(indices[p]) * k + first,), (data[p],), width, None)
            p += 1
        for j in range(width):
            y[j], square = _factor(y[j], i, B[:, first + j], w)
            squares[j] += square
        p = np.int64(indptr[i])
        while p + 3 < end:
            a, b = np.int64(indices[p]) * width, np.int64(indices[p + 1]) * width
            c, d = np.int64(indices[p + 2]) * width, np.int64(indices[p + 3]) * width
            scaled_add(target, (a, b, c, d), (data[p], data[p + 1], data[p + 2], data[p + 3]), y, 0, width)
            p += 4
        while p < end:
            scaled_add(target, (np.int64(indices[p]) * width,), (data[p],), y, 0, width)
            p += 1


def _run_csr(data, indices, indptr, X, B, weights):
    m, (n, k) = len(indptr) - 1, X.shape
    X, B, w = _operands(X, B, weights, data.dtype)
    if k >= WIDE and X.nbytes > PANEL_LIMIT:
        Y = csr_matmul(data, indices, indptr, X)
        R = B - Y if len(B) else Y
        weighted = w[:, None] * R if len(w) else R
        return csr_rmatmul(data, indices, indptr, weighted, n), _squares(weighted, R)
    # A stripe's sum is cleared and added up once, which should be little beside its entries.  Wide panels are shared by
    # columns instead: each of them is summed on its own, so their widths may depend on the threads.
    rows = _stripes(m, len(data) if n * MOST_STRIPES < len(data) // 8 else 2**13 * (len(data) // max(1, n)))
    rows, width = (m, stripe_width(k)) if k >= WIDE else (rows, k)
    count, parts = -(-m // rows) if rows else 0, -(-k // width) if width else 0
    if count * parts == 0:
        return np.zeros((n, k), data.dtype), np.zeros(k)
    sums = [[np.zeros((n, min(width, k - p * width)), data.dtype) for p in range(parts)] for _ in range(count)]
    squares = np.zeros((count, k))

    def work(task, _):
        (s, p), lo = divmod(task, parts), task // parts * rows
        first, hi, G = p * width, min(lo + rows, m), sums[s][p]
        if k == 1:
            squares[s] = _sweep_csr(data, indices, indptr, X[:, 0], B[:, 0], w, G[:, 0], lo, hi)
        else:
            _sweep_csr_panel(data, indices, indptr, X, B, w, G, squares[s, first : first + width], first, lo, hi)

    parallel_for(work, count * parts, chunk=1)
    for s in range(1, count):
        for p in range(parts):
            sums[0][p] += sums[s][p]
    return np.concatenate(sums[0], axis=1) if parts > 1 else sums[0][0], squares.sum(axis=0)


def csr_normal_products(data, indices, indptr, X, weights):
    """`normal_products` for a CSR matrix with X.shape[0] columns."""
    return _run_csr(data, indices, indptr, X, None, weights)[0]


def csr_normal_residual(data, indices, indptr, X, B, weights):
    """`normal_residual` for a CSR matrix with X.shape[0] columns."""
    return _run_csr(data, indices, indptr, X, B, weights)
