"""Random tables on the GPU: equal to those of `randla.kernels.reference` bit for bit."""

from __future__ import annotations

from .._random import Stream
from ._compile import launch, seed


def philox_words(key, stream, start, stop, n_lanes):
    """Words of the indices start..stop-1, lane after lane; uint32 (stop - start, 4 * n_lanes)."""
    import cupy

    out = cupy.empty((stop - start, 4 * n_lanes), cupy.uint32)
    launch("tables", "philox_words", (stop - start) * n_lanes, *seed(key, stream), start, n_lanes, out)
    return out


def uniforms(key, stream, start, stop):
    """Uniforms on [0, 1) with 53 bits; float64 (stop - start,)."""
    import cupy

    out = cupy.empty(stop - start, cupy.float64)
    launch("tables", "uniforms", stop - start, *seed(key, stream), start, out)
    return out


def uniform_rows(key, n, size):
    """`size` indices drawn uniformly with replacement from range(n); int64 (size,)."""
    import cupy

    out = cupy.empty(size, cupy.int64)
    launch("tables", "uniform_rows", size, *seed(key, Stream.SAMPLE), n, out)
    return out


def distinct_rows(key, n, size):
    """The first `size` values of a pseudorandom permutation of range(n), ascending; int64 (size,)."""
    import cupy

    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    out = cupy.empty(size, cupy.int64)
    launch("tables", "distinct_rows", size, *seed(key, Stream.PERMUTATION), half, n, out)
    out.sort()
    return out


def sparse_sign_table(key, start, stop, nnz, sketch_size):
    """Columns start..stop-1 of a block-constructed sparse sign matrix; packed int32 (stop - start, nnz)."""
    import cupy

    out = cupy.empty((stop - start, nnz), cupy.int32)
    shape = (start, nnz, 1 << (nnz - 1).bit_length(), sketch_size)
    launch("tables", "sparse_sign_table", stop - start, *seed(key, Stream.SPARSE_SIGN), *shape, out)
    return out


def sparse_jl_table(key, thresholds, start, stop, sketch_size):
    """Columns of a matrix with independent entries: +-1 with probability p, else 0; ragged packed int32 table."""
    import cupy

    n, thresholds = stop - start, cupy.asarray(thresholds, dtype=cupy.int64)
    walk = (*seed(key, Stream.SPARSE_JL), start, sketch_size, thresholds.size, thresholds)
    counts, pointers = cupy.empty(n, cupy.int64), cupy.zeros(n + 1, cupy.int64)
    launch("tables", "sparse_jl_count", n, *walk, counts)
    if n > 0:
        pointers[1:] = cupy.cumsum(counts)
    packed = cupy.empty(int(pointers[-1]), cupy.int32)
    launch("tables", "sparse_jl_fill", n, *walk, pointers, packed)
    return pointers, packed


def less_table(key, start, stop, nnz, n):
    """Rows start..stop-1 of a LESS-uniform matrix: nnz draws with replacement from range(n); packed int64."""
    import cupy

    out = cupy.empty((stop - start, nnz), cupy.int64)
    launch("tables", "less_table", out.size, *seed(key, Stream.LESS), start, nnz, n, out)
    return out


def _dense_table(name, key, stream, start, stop, sketch_size, dtype):
    import cupy

    real = cupy.float32 if cupy.dtype(dtype).name in ("float32", "complex64") else cupy.float64
    out, n_groups = cupy.empty((stop - start, sketch_size), real), -(-sketch_size // 4)
    n_items = (stop - start) * n_groups
    launch("tables", name, n_items, *seed(key, stream), start, sketch_size, n_groups, out, dtype=real)
    return out.astype(dtype, copy=False)


def rademacher_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a dense sign matrix, one per row of the table; (stop - start, sketch_size), +-1."""
    return _dense_table("rademacher_table", key, Stream.RADEMACHER, start, stop, sketch_size, dtype)


def gaussian_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a standard normal matrix, one per row of the table; (stop - start, sketch_size)."""
    return _dense_table("gaussian_table", key, Stream.GAUSSIAN, start, stop, sketch_size, dtype)


def sign_bits(key, stream, lane, start, stop):
    """Signs of the indices start..stop-1: index i owns bit i % 128 of the Philox block i // 128; +-1, int8."""
    import cupy

    out = cupy.empty(stop - start, cupy.int8)
    launch("tables", "sign_bits", stop - start, *seed(key, stream), start, lane, out)
    return out
