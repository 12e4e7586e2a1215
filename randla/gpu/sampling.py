"""Uniforms of given indices and powers summed over rows, on the GPU."""

from __future__ import annotations

from ._compile import launch, seed


def uniforms_at(key, stream, index):
    """Uniforms on (0, 1) of the given 64-bit indices (int64, as bit patterns); float64 (len(index),)."""
    import cupy

    out = cupy.empty(index.size, cupy.float64)
    launch("sampling", "uniforms_at", out.size, *seed(key, stream), cupy.ascontiguousarray(index), out)
    return out


def row_power_sums(A, power):
    """Sums of |a|**power over each row of a real dense A, power 1 or 2, in double precision; float64 (m,)."""
    import cupy

    if not (A.flags.c_contiguous or A.T.flags.c_contiguous):
        A = cupy.ascontiguousarray(A)
    row_stride, column_stride = (s // A.itemsize for s in A.strides)
    out = cupy.empty(A.shape[0], cupy.float64)
    steps = (A.shape[1], row_stride, column_stride, power)
    launch("sampling", "row_power_sums", out.size, *steps, A, out, dtype=A.dtype)
    return out


def csr_row_power_sums(data, indptr, power):
    """`row_power_sums` for a CSR matrix without repeated entries, given as its values and pointers."""
    import cupy

    out = cupy.empty(indptr.size - 1, cupy.float64)
    wide = indptr.astype(cupy.int64)
    launch("sampling", "csr_row_power_sums", out.size, power, cupy.ascontiguousarray(data), wide, out, dtype=data.dtype)
    return out
