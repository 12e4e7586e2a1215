"""Subsampled Walsh-Hadamard transforms on the GPU: passes through shared memory, signs and sampling fused into them."""

from __future__ import annotations

from .._random import Stream
from ._compile import launch, seed
from .scatter import by_position, gather_rows

TILE_BYTES = 32_768  # of shared memory, as in hadamard.cu
SEGMENT_BYTES = 64  # least run of neighbouring addresses that a tile of a wide array reads: two sectors of memory


def passes(block_bits, columns, itemsize):
    """The passes (low, bits, width_bits) of a transform of 2**block_bits rows; see hadamard.cu."""
    capacity, low, plan = (TILE_BYTES // itemsize).bit_length() - 1, 0, []
    while not plan or low < block_bits:
        across = ((columns << low) - 1).bit_length()
        bits = min(block_bits - low, capacity - min(across, (SEGMENT_BYTES // itemsize).bit_length() - 1))
        plan.append((low, bits, min(capacity - bits, across)))
        low += bits
    return plan


def _transform(key, dense, sampled, rows, n_blocks, block_size, rounds, first_row, shift, *, adjoint):
    """Run the rounds on a batch of blocks, from `dense` to `sampled` or, if `adjoint`, the other way.

    Both are row-major.  Row i of `dense` is row i + shift of the batch; row b * len(rows) + i of `sampled` is the
    sampled row i of block b.  Row 0 of the batch owns the signs of `first_row`.
    """
    import cupy

    if dense.shape[1] == 0:
        return
    real = dense.real.dtype
    columns, block_bits = dense.shape[1] * dense.dtype.itemsize // real.itemsize, block_size.bit_length() - 1
    starts, items = by_position(cupy.arange(len(rows) + 1, dtype=cupy.int64), 2 * rows, block_size)
    sampling = (len(rows), starts, items >> 1)
    plan = [(lane, *step) for lane in range(rounds) for step in passes(block_bits, columns, real.itemsize)]
    n_entries = n_blocks * block_size * columns
    work = (0, n_entries, cupy.empty(n_entries if len(plan) > 1 else 0, real))
    ends = [(shift * columns, len(dense) * columns, dense), (0, sampled.size, sampled)]
    direction = -1 if adjoint else 1
    for number, (lane, low, bits, width_bits) in enumerate(plan[::direction]):
        first, last = number == 0, number == len(plan) - 1
        n_tiles = (n_blocks << (block_bits - low - bits)) * -(-(columns << low) >> width_bits)
        launch(
            "hadamard", "fwht_pass", n_tiles, *seed(key, Stream.TRIGONOMETRIC_SIGN), lane,
            direction if low == 0 else 0, first_row, columns, block_bits, low, bits, width_bits,
            direction if (first if adjoint else last) else 0, *sampling,
            *(ends[::direction][0] if first else work), *(ends[::direction][1] if last else work),
            dtype=real, per_block=1,
        )  # fmt: skip


def _row_major(out):
    import cupy

    return out if out.flags.c_contiguous else cupy.empty(out.shape, out.dtype)


def _indices(rows):
    import cupy

    return cupy.asarray(rows, dtype=cupy.int64)


def srht_apply(key, A, n_padded, rounds, rows, out):
    """out = rows of (H D_rounds ... H D_1) applied to A padded with zeros to n_padded rows; unscaled."""
    import cupy

    A, target = cupy.ascontiguousarray(A, dtype=out.dtype), _row_major(out)
    _transform(key, A, target, _indices(rows), 1, n_padded, rounds, 0, 0, adjoint=False)
    if target is not out:
        out[...] = target


def srht_adjoint(key, Y, n_padded, rounds, rows, out):
    """out = the first out.shape[0] rows of the transpose of `srht_apply`, applied to Y."""
    import cupy

    Y, target = cupy.ascontiguousarray(Y, dtype=out.dtype), _row_major(out)
    _transform(key, target, Y, _indices(rows), 1, n_padded, rounds, 0, 0, adjoint=True)
    if target is not out:
        out[...] = target


def _outer_signs(key, first, last, n_rows):
    """Signs of the sampled rows in the blocks first..last-1; int8 (last - first, n_rows)."""
    from .tables import sign_bits

    return sign_bits(key, Stream.BLOCK_SIGN, 0, first * n_rows, last * n_rows).reshape(last - first, n_rows)


def block_srht_apply(key, A, start, block_size, rounds, rows, out):
    """out += S[:, start : start + A.shape[0]] @ A for the unscaled block SRHT S; blocks share the sampled `rows`."""
    import cupy

    first, last, rows = start // block_size, -(-(start + len(A)) // block_size), _indices(rows)
    if len(A) == 0 or len(rows) == 0:
        return
    A, n_blocks, k = cupy.ascontiguousarray(A, dtype=out.dtype), last - first, len(rows)
    sampled, first_row = cupy.empty((n_blocks * k, A.shape[1]), out.dtype), first * block_size
    _transform(key, A, sampled, rows, n_blocks, block_size, rounds, first_row, start - first_row, adjoint=False)
    # The signed sum over the blocks is a product with a sign table: item i names row i of every block.
    rows_of_item = 2 * cupy.arange(n_blocks * k, dtype=cupy.int64).reshape(n_blocks, k)
    packed = (rows_of_item + (_outer_signs(key, first, last, k) < 0)).T.ravel()
    gather_rows(cupy.arange(k + 1, dtype=cupy.int64) * n_blocks, packed, sampled, out)


def block_srht_adjoint(key, Y, start, block_size, rounds, rows, out):
    """out = S[:, start : start + out.shape[0]].T @ Y for the unscaled block SRHT S."""
    import cupy

    first, last, rows = start // block_size, -(-(start + len(out)) // block_size), _indices(rows)
    if len(out) == 0:
        return
    n_blocks, k = last - first, len(rows)
    signed = _outer_signs(key, first, last, k)[:, :, None] * Y
    sampled = cupy.ascontiguousarray(signed, dtype=out.dtype).reshape(n_blocks * k, out.shape[1])
    target, first_row = _row_major(out), first * block_size
    shift = start - first_row
    _transform(key, target, sampled, rows, n_blocks, block_size, rounds, first_row, shift, adjoint=True)
    if target is not out:
        out[...] = target
