"""Symmetric nonnegative factorisation on the GPU: coordinate descent by one thread block, for small matrices only."""

from __future__ import annotations

from ._compile import BLOCK, launch


def symmetric_sweep(A, H):
    """One pass over the entries of H (n, r), row by row, each set to the minimiser of ||A - H H.T||_F^2 over x >= 0.

    Returns H, and by how much the squared norm fell, float64 (1,).  See `reference`.
    """
    import cupy

    none = cupy.zeros(1, cupy.int64)
    return _sweep(cupy.ascontiguousarray(A, dtype=H.dtype), none, none, 0, H)


def csr_symmetric_sweep(data, indices, indptr, H):
    """`symmetric_sweep` for a matrix in CSR form, symmetric and without duplicates.  See `reference`."""
    import cupy

    places, pointers = (cupy.ascontiguousarray(part, dtype=cupy.int64) for part in (indices, indptr))
    return _sweep(cupy.ascontiguousarray(data, dtype=H.dtype), places, pointers, 1, H)


def _sweep(A, indices, indptr, sparse, H):
    import cupy

    (n, r), H = H.shape, cupy.array(H)
    wide, fall = H.astype(cupy.float64), cupy.zeros(1)
    G = cupy.ascontiguousarray(wide.T @ wide)
    launch(
        "symmetric", "symmetric_sweep", min(1, n * r), n, r, sparse, A, indices, indptr, G, cupy.empty(r),
        cupy.empty(r), H, fall, dtype=H.dtype, per_block=BLOCK,
    )  # fmt: skip
    return H, fall
