"""Nonnegative least squares and divergences on the GPU: a thread to a column, or a thread block to a column or row."""

from __future__ import annotations

from ._compile import launch
from .completion import _doubles, _entries, _falling, _fits, _integers, _place, _threads, _tile

#: Columns of a block, coordinates side by side, parts of a sum, sums of them, and entries of a model, as in nmf.cu.
COLUMNS, HEIGHT, PARTS, FOLDS, SHORT = 32, 4, 128, 16, 1024


def nonneg_sweeps(G, B, X, n_sweeps, tol):
    """Up to `n_sweeps` coordinate sweeps from X (r, n) towards argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0.

    Stops, tile by tile of 16 columns, when a sweep changes X by at most `tol` of what the first one did.  See
    `reference`.
    """
    import cupy

    (r, n), out = X.shape, cupy.array(X, order="C")
    K = -(-r // HEIGHT) * HEIGHT
    wide = cupy.zeros((K, K), cupy.float64)
    wide[:r, :r] = G
    blocks, near, far, scratch = _place(-(-n // COLUMNS), COLUMNS * (K + 1), 0)
    inside = _fits(near + K * K)  # else it is read from global memory, which is cached
    launch(
        "nmf", "nonneg_sweeps", blocks if r else 0, r, n, K, int(n_sweeps), near, far, int(inside), cupy.float64(tol),
        wide, _entries(B, X.dtype), scratch, out, dtype=X.dtype, per_block=1, threads=COLUMNS,
        shared=8 * (near + inside * K * K),
    )  # fmt: skip
    return out


def nonneg_pivots(G, B, X, tol, max_iter):
    """The columns of argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0, exactly, from the places where X (r, n) is > 0.

    Returns X (r, n), and for each column 1, or -1 where `max_iter` exchanges did not do; int64 (n,).  See `reference`.
    """
    import cupy

    (r, n), out = X.shape, cupy.array(X, order="C")
    found = cupy.full(n, 1, cupy.int64)
    blocks, near, far, scratch = _place(n, 7 * r, r * (r + 1) // 2)
    launch(
        "nmf", "nonneg_pivots", blocks if r else 0, r, n, near, far, int(max_iter), cupy.float64(tol), _doubles(G),
        _entries(B, X.dtype), scratch, out, found, dtype=X.dtype, per_block=1, threads=_threads(r), shared=8 * near,
    )  # fmt: skip
    return out, found


def masked_nonneg_sweeps(V, indices, indptr, weights, targets, base, ridge, X, n_sweeps, tol):
    """Coordinate sweeps from X (m, r) for the nonnegative solutions of the systems of `masked_cholesky`.

    Stops, row by row, when a sweep changes x by at most `tol` of what the first one did.  See `reference`.
    """
    import cupy

    (m, r), indptr, out = X.shape, _integers(indptr), cupy.array(X, V.dtype, order="C")
    tall, width = _tile(r)
    blocks, near, far, scratch = _place(m, 2 * r + tall * (width + 2), r * (r + 1) // 2)
    launch(
        "nmf", "masked_nonneg_sweeps", blocks if r else 0, m, r, tall, width, near, far, int(weights is not None),
        int(base is not None), int(n_sweeps), cupy.float64(tol), _falling(cupy.diff(indptr)),
        cupy.ascontiguousarray(V), _integers(indices), indptr, _entries(weights, V.dtype), _entries(targets, V.dtype),
        _entries(base, cupy.float64), _doubles(ridge), scratch, out, dtype=V.dtype, per_block=1, threads=_threads(r),
        shared=8 * near,
    )  # fmt: skip
    return out


def divergence_sweeps(V, indices, indptr, values, sums, ridge, X, n_sweeps, floor):
    """Coordinate sweeps from X (m, r) that lower sums.x - sum of values_p log(v_p.x) + ridge ||x||^2 / 2 in each row.

    V is (n, r), `sums` (r,) its column sums plus linear penalties; coordinates stay at `floor` or above.  See
    `reference`.
    """
    import cupy

    (m, r), indptr, out = X.shape, _integers(indptr), cupy.array(X, V.dtype, order="C")
    blocks, near, far, scratch = _place(m, r + 2 * PARTS + 2 * FOLDS + SHORT, 0)
    launch(
        "nmf", "divergence_sweeps", blocks if r else 0, m, r, near, far, int(n_sweeps), cupy.float64(ridge),
        cupy.float64(floor), _falling(cupy.diff(indptr)), cupy.ascontiguousarray(V), _integers(indices), indptr,
        _doubles(values), _doubles(sums), cupy.empty(len(indices), cupy.float64), scratch, out, dtype=V.dtype,
        per_block=1, threads=PARTS, shared=8 * near,
    )  # fmt: skip
    return out
