"""Least squares of rows observed in part on the GPU: a thread block to a row, long rows first.

A block holds its workspace in shared memory, of which every device gives 48 KiB without being asked.  A system that
does not fit, from about 90 columns on, lies in a piece of global memory for each block, and so do all vectors from some
hundred columns on.
"""

from __future__ import annotations

from .._arrays import eps
from .._random import Stream
from ._compile import launch, seed

SHARED = 48 * 1024 // 8  # doubles of shared memory to a block
SCRATCH = 2**25  # doubles of global memory to all blocks together
#: Entries of a tile of products, threads to a row of one, and parts of an inner product, as in completion.cu.
ROWS, LANES, FOLDS = 64, 8, 32
TILE, TILE_ROWS = 1024, (8, 64)  # doubles of a tile of rows, least and most rows of it


def _threads(k):
    """Threads that a system of k columns keeps busy."""
    return 64 if k <= 32 else 128 if k <= 96 else 256


def _fits(doubles):
    """True if a block has so much shared memory."""
    return doubles <= SHARED


def _place(rows, vectors, matrix):
    """Blocks for a number of rows, doubles of each in shared and in global memory, and the global memory."""
    import cupy

    near = next((size for size in (vectors + matrix, vectors) if _fits(size)), 0)
    far = vectors + matrix - near
    blocks = min(rows, max(1, SCRATCH // far)) if far else rows
    return blocks, near, far, cupy.empty(blocks * far, cupy.float64)


def _integers(table):
    import cupy

    return cupy.ascontiguousarray(table, dtype=cupy.int64)


def _doubles(values):
    import cupy

    return cupy.ascontiguousarray(values, dtype=cupy.float64)


def _entries(values, dtype):
    """Numbers in one dtype; an empty array for None."""
    import cupy

    return cupy.empty(0, dtype) if values is None else cupy.ascontiguousarray(values, dtype=dtype)


def _falling(counts):
    """The order of rows by falling length: the last blocks to run are short ones."""
    import cupy

    return _integers(cupy.argsort(-counts))


def _tile(k):
    """Rows of a tile and their length, which is padded to whole squares."""
    width = -(-k // 4) * 4
    return min(TILE_ROWS[1], max(TILE_ROWS[0], TILE // max(1, width))), width


def masked_cholesky(V, indices, indptr, weights, targets, base, ridge):
    """Row i of X (m, k) solves (base + sum of w_p v_p v_p.T + ridge_i I) x = sum of targets_p v_p.

    Also the least pivots, float64 (m,), relative to their diagonal entries.  See `reference`.
    """
    import cupy

    indptr, (m, k) = _integers(indptr), (len(indptr) - 1, V.shape[1])
    X, pivots = cupy.zeros((m, k), V.dtype), cupy.full(m, 1.0)
    tall, width = _tile(k)
    blocks, near, far, scratch = _place(m, 2 * k + tall * (width + 2), k * (k + 1) // 2)
    launch(
        "completion", "masked_cholesky", blocks if k else 0, m, k, tall, width, near, far, int(weights is not None),
        int(base is not None), _falling(cupy.diff(indptr)), cupy.ascontiguousarray(V), _integers(indices), indptr,
        _entries(weights, V.dtype), _entries(targets, V.dtype), _entries(base, cupy.float64), _doubles(ridge), scratch,
        X, pivots, dtype=V.dtype, per_block=1, threads=_threads(k), shared=8 * near,
    )  # fmt: skip
    return X, pivots


def masked_qr(V, indices, indptr, weights, values, ridge):
    """Row i of X (m, k) minimises sum of w_p (values_p - v_p.x)**2 + ridge_i ||x||**2, by QR of the design.

    Also the least pivots |R_jj| / ||column j||, float64 (m,).  See `reference`.
    """
    import cupy

    indptr, (m, k) = _integers(indptr), (len(indptr) - 1, V.shape[1])
    X, pivots = cupy.zeros((m, k), V.dtype), cupy.full(m, 1.0)
    tall = min(32, max(8, 2048 // max(1, k)))
    blocks, near, far, scratch = _place(m, 2 * k + tall * (k + 1), k * (k + 1) // 2)
    launch(
        "completion", "masked_qr", blocks if k else 0, m, k, tall, near, far, int(weights is not None),
        cupy.float64(8 * k * eps(V.dtype)), _falling(cupy.diff(indptr)), cupy.ascontiguousarray(V),
        _integers(indices), indptr, _entries(weights, V.dtype), _entries(values, V.dtype), _doubles(ridge), scratch,
        X, pivots, dtype=V.dtype, per_block=1, threads=_threads(k), shared=8 * near,
    )  # fmt: skip
    return X, pivots


def _groups(k):
    """Sums of one column that run side by side, so that few columns keep the threads busy."""
    return max(1, min(8, 128 // max(1, k)))


def _results(m, k, dtype):
    """Solutions, steps and residuals of rows without a right-hand side."""
    import cupy

    return cupy.zeros((m, k), dtype), cupy.zeros(m, cupy.int64), cupy.zeros(m, cupy.float64)


def masked_cg(V, indices, indptr, weights, targets, base, ridge, diagonal, scale, X0, tol, max_iter):
    """The systems of `masked_cholesky` by conjugate gradients from X0, preconditioned by scale_i diagonal + ridge_i.

    Returns X (m, k), the steps, int64 (m,), and the relative residuals, float64 (m,).  See `reference`.
    """
    import cupy

    indptr, (m, k), groups = _integers(indptr), (len(indptr) - 1, V.shape[1]), _groups(V.shape[1])
    X, steps, residuals = _results(m, k, V.dtype)
    blocks, near, far, scratch = _place(m, (7 + groups) * k + ROWS * (LANES + 2) + FOLDS, 0)
    launch(
        "completion", "masked_cg", blocks if k else 0, m, k, groups, near, far, int(weights is not None),
        int(base is not None), cupy.float64(tol), int(max_iter), _falling(cupy.diff(indptr)),
        cupy.ascontiguousarray(V), _integers(indices), indptr, _entries(weights, V.dtype), _entries(targets, V.dtype),
        _entries(base, cupy.float64), _doubles(ridge), _doubles(diagonal), _doubles(scale), _entries(X0, V.dtype),
        scratch, X, steps, residuals, dtype=V.dtype, per_block=1, threads=_threads(k), shared=8 * near,
    )  # fmt: skip
    return X, steps, residuals


def masked_sketched_cg(key, V, indices, indptr, weights, targets, ridge, X0, sketch_size, nnz, tol, max_iter):
    """The systems of `masked_cholesky` without base, preconditioned by a sketch of each row's own design.

    Returns as `masked_cg`.  See `reference`.
    """
    import cupy

    indptr, (m, k), groups = _integers(indptr), (len(indptr) - 1, V.shape[1]), _groups(V.shape[1])
    X, steps, residuals = _results(m, k, V.dtype)
    width = _tile(k)[1]
    vectors = (7 + groups) * k + ROWS * (LANES + 2) + FOLDS + (ROWS * nnz + 1) // 2
    blocks, near, far, scratch = _place(m, vectors, k * (k + 1) // 2 + sketch_size * width)
    launch(
        "completion", "masked_sketched_cg", blocks if k else 0, *seed(key, Stream.SPARSE_SIGN), m, k, groups, near, far,
        int(weights is not None), sketch_size, nnz, width, cupy.float64(tol), int(max_iter),
        _falling(cupy.diff(indptr)), cupy.ascontiguousarray(V), _integers(indices), indptr, _entries(weights, V.dtype),
        _entries(targets, V.dtype), _doubles(ridge), _entries(X0, V.dtype), scratch, X, steps, residuals,
        dtype=V.dtype, per_block=1, threads=_threads(k), shared=8 * near,
    )  # fmt: skip
    return X, steps, residuals


def sampled_products(X, Y, indices, indptr):
    """X[i].Y[indices[p]] for the entries p of each row i; (nnz,) in the dtype of X."""
    import cupy

    (m, k), out = X.shape, cupy.empty(len(indices), X.dtype)
    launch(
        "completion", "sampled_products", -(-out.size // ROWS), out.size, m, k, cupy.ascontiguousarray(X),
        _entries(Y, X.dtype), _integers(indices), _integers(indptr), out, dtype=X.dtype, per_block=1,
    )  # fmt: skip
    return out


def masked_variances(V, indices, indptr, weights, base, ridge, rows, U):
    """u_q.M^-1 u_q for each row q of U (q, k), M the system of `masked_cholesky` of row rows[q]; float64 (q,).

    Infinity where that system is singular.  See `reference`.
    """
    import cupy

    indptr, rows, k = _integers(indptr), _integers(rows), V.shape[1]
    out = cupy.zeros(rows.size, cupy.float64)
    members = _integers(cupy.argsort(rows))  # a system is factored once
    starts = _integers(cupy.flatnonzero(cupy.diff(rows[members], prepend=-1)))
    order = _falling(cupy.diff(indptr)[rows[members[starts]]])
    tall, width = _tile(k)
    vectors = 2 * k + FOLDS + tall * (width + 2)
    blocks, near, far, scratch = _place(starts.size, vectors, k * (k + 1) // 2)
    launch(
        "completion", "masked_variances", blocks if k else 0, starts.size, rows.size, k, tall, width, near, far,
        int(weights is not None), int(base is not None), order, starts, members, cupy.ascontiguousarray(V),
        _integers(indices), indptr, _entries(weights, V.dtype), _entries(base, cupy.float64), _doubles(ridge), rows,
        _doubles(U), scratch, out, dtype=V.dtype, per_block=1, threads=_threads(k), shared=8 * near,
    )  # fmt: skip
    return out


def top_columns(scores, k, indices, indptr):
    """The k largest of each row of `scores` (b, n), descending, without the columns that the CSR rows list.

    Returns columns, int64 (b, k), and values (b, k); ties go to the lower column.  See `reference`.
    """
    import cupy

    b, n = scores.shape
    columns = cupy.full((b, k), -1, cupy.int64)
    values = cupy.full((b, k), -cupy.inf, scores.dtype)
    left = cupy.array(scores, order="C")  # the columns that are listed become NaN
    launch(
        "completion", "top_columns", b if k else 0, b, n, k, _integers(indices), _integers(indptr), left, columns,
        values, dtype=scores.dtype, per_block=1, threads=64 if n <= 2048 else 256,
    )  # fmt: skip
    return columns, values
