"""Subsampled Walsh-Hadamard transforms of tall matrices, panel by panel of columns.

A panel of n rows is seen as an (n_high, n_low) grid of rows.  The transform of length n is a transform over the low
index (contiguous, in the first-level cache) and one over the high index (strided, copied into the second-level cache);
their order is free.  So the rounds alternate: low, high | signs | high, low | signs | low, high ..., and the passes on
both sides of a bar are one.  Two rounds read and write the panel three times, and the last pass touches only the parts
that hold sampled rows.
"""

from __future__ import annotations

import numpy as np

from .._parallel import available_threads, parallel_for
from .._random import Stream
from ._compile import compiled
from ._vector import LANE_BYTES, butterfly_2, butterfly_4, butterfly_8, prefetch_read, signed_copy
from .tables import sign_bits

PANEL_BYTES = 2**24  # workspace of a panel
AHEAD = 16  # rows between the prefetch of a panel's row and its use
GROUP_BYTES = 2**19  # rows of equal low index that are transformed at a time: a quarter of a second-level cache


@compiled
def _transform(x, offset, n, width):
    """In-place transform of the n runs of `width` numbers from x[offset] on; unscaled."""
    length, left = width, n
    while left >= 8:
        for first in range(offset, offset + n * width, 8 * length):
            butterfly_8(x, first, length)
        length, left = 8 * length, left // 8
    if left == 4:
        for first in range(offset, offset + n * width, 4 * length):
            butterfly_4(x, first, length)
    elif left == 2:
        for first in range(offset, offset + n * width, 2 * length):
            butterfly_2(x, first, length)


@compiled
def _flip(x, offset, n, width, signs, first):
    """Multiply run i by signs[first + i]."""
    for i in range(n):
        signed_copy(x, offset + i * width, x, offset + i * width, width, x.dtype.type(signs[first + i]))


@compiled
def _load_rows(flat, n_columns, signs, x, width, row, n, column):
    """Rows row..row+n-1 of the columns from `column` on of a C-contiguous matrix, signed; the panel lies inside."""
    for i in range(row, row + n):
        ahead = (i + AHEAD) * n_columns + column
        if ahead < flat.size:
            for j in range(0, width, LANE_BYTES // x.itemsize):
                prefetch_read(flat, ahead + j)
        signed_copy(x, i * width, flat, i * n_columns + column, width, x.dtype.type(signs[i]))


@compiled
def _load_any(A, signs, x, width, row, n, column):
    """As `_load_rows` for any strides and for a panel that sticks out of A: zero there."""
    columns = min(width, A.shape[1] - column)
    x[row * width : (row + n) * width] = 0
    for i in range(row, row + n):
        s = x.dtype.type(signs[i])
        for j in range(columns):
            x[i * width + j] = s * A[i, column + j]


@compiled
def _load(A, flat, signs, x, width, row, n, column):
    """The block of n rows from `row` on, of the panel from `column` on, with signs; zero beyond the edges of A."""
    filled = min(max(A.shape[0] - row, 0), n)
    if flat.size and column + width <= A.shape[1]:
        _load_rows(flat, A.shape[1], signs, x, width, row, filled, column)
    else:
        _load_any(A, signs, x, width, row, filled, column)
    x[(row + filled) * width : (row + n) * width] = 0


@compiled
def _low_pass(x, n_high, n_low, width, signs, again, needed):
    """Transform over the low index; with `again`, flip signs and transform once more."""
    for i in range(n_high):
        if needed[i]:
            offset = i * n_low * width
            _transform(x, offset, n_low, width)
            if again:
                _flip(x, offset, n_low, width, signs, i * n_low)
                _transform(x, offset, n_low, width)


@compiled
def _high_pass(x, group, n_high, n_low, width, signs, again, needed):
    """Transform over the high index, `together` low rows at a time through the buffer `group`."""
    together = group.size // (n_high * width)
    run = together * width
    for first in range(0, n_low, together):
        wanted = False
        for q in range(first, first + together):
            wanted |= needed[q]
        if not wanted:
            continue
        for i in range(n_high):
            source = (i * n_low + first) * width
            group[i * run : (i + 1) * run] = x[source : source + run]
        _transform(group, 0, n_high, run)
        if again:
            for i in range(n_high):
                _flip(group, i * run, together, width, signs, i * n_low + first)
            _transform(group, 0, n_high, run)
        for i in range(n_high):
            source = (i * n_low + first) * width
            x[source : source + run] = group[i * run : (i + 1) * run]


@compiled
def _rounds(x, group, n_high, n_low, width, signs, reverse, needed_high, needed_low):
    """All rounds on a panel whose first signs are applied; in reverse order of the signs for the adjoint.

    The last pass is restricted to the needed blocks; with none missing it is a whole transform.
    """
    rounds = signs.shape[0]
    everything = np.ones(max(n_high, n_low), np.bool_)
    low = True
    for p in range(rounds + 1):
        inner, last = 0 < p < rounds, p == rounds
        flip = signs[min(rounds - p if reverse else p, rounds - 1)]
        if low:
            _low_pass(x, n_high, n_low, width, flip, inner, needed_high if last else everything)
        else:
            _high_pass(x, group, n_high, n_low, width, flip, inner, needed_low if last else everything)
        low = not low


@compiled
def _apply_panels(A, flat, signs, rows, out, x, group, n_low, width, first, last):
    n = signs.shape[1]
    n_high = n // n_low
    needed_high, needed_low = np.zeros(n_high, np.bool_), np.zeros(n_low, np.bool_)
    for r in range(rows.size):
        needed_high[rows[r] // n_low] = True
        needed_low[rows[r] % n_low] = True
    for column in range(first * width, min(last * width, A.shape[1]), width):
        for i in range(n_high):
            _load(A, flat, signs[0], x, width, i * n_low, n_low, column)
        _rounds(x, group, n_high, n_low, width, signs, False, needed_high, needed_low)
        for r in range(rows.size):
            for j in range(min(width, A.shape[1] - column)):
                out[r, column + j] = x[rows[r] * width + j]


@compiled
def _adjoint_panels(Y, _, signs, rows, out, x, group, n_low, width, first, last):
    n_high = signs.shape[1] // n_low
    everything = np.ones(max(n_high, n_low), np.bool_)
    for column in range(first * width, min(last * width, Y.shape[1]), width):
        x[:] = 0
        columns = min(width, Y.shape[1] - column)
        for r in range(rows.size):
            for j in range(columns):
                x[rows[r] * width + j] += Y[r, column + j]
        _rounds(x, group, n_high, n_low, width, signs, True, everything, everything)
        for i in range(out.shape[0]):
            s = x.dtype.type(signs[0, i])
            for j in range(columns):
                out[i, column + j] = s * x[i * width + j]


def _by_parts(body, key, array, n_padded, rounds, rows, out):
    """Run `body` over the panels of a real array, or of the real and the imaginary part of a complex one."""
    if np.iscomplexobj(array):
        _by_parts(body, key, array.real, n_padded, rounds, rows, out.real)
        _by_parts(body, key, array.imag, n_padded, rounds, rows, out.imag)
        return
    signs = np.stack([sign_bits(key, Stream.TRIGONOMETRIC_SIGN, r, 0, n_padded) for r in range(rounds)])
    itemsize, lane = array.dtype.itemsize, LANE_BYTES // array.dtype.itemsize
    width = max(lane, PANEL_BYTES // (n_padded * itemsize) // lane * lane)
    width = min(width, -(-max(array.shape[1], 1) // (lane * available_threads())) * lane, 8 * lane)
    n_low = 1 << (n_padded.bit_length() // 2)
    n_high = n_padded // n_low
    together = min(n_low, max(1, GROUP_BYTES // (n_high * width * itemsize)))
    together = 1 << (together.bit_length() - 1)
    n_panels = -(-array.shape[1] // width)
    flat = array.reshape(-1) if array.flags.c_contiguous else np.empty(0, array.dtype)

    def work(first, last):
        x = np.empty(n_padded * width, array.dtype)
        group = np.empty(n_high * together * width, array.dtype)
        body(array, flat, signs, rows, out, x, group, n_low, width, first, last)

    parallel_for(work, n_panels, chunk=max(1, -(-n_panels // available_threads())))


def srht_apply(key, A, n_padded, rounds, rows, out):
    """out = rows of (H D_rounds ... H D_1) applied to A padded with zeros to n_padded rows; unscaled."""
    _by_parts(_apply_panels, key, A, n_padded, rounds, rows, out)


def srht_adjoint(key, Y, n_padded, rounds, rows, out):
    """out = the first out.shape[0] rows of the transpose of `srht_apply`, applied to Y."""
    _by_parts(_adjoint_panels, key, Y, n_padded, rounds, rows, out)


@compiled
def _apply_blocks(A, start, signs, outer, first_sign, size, rows, out, width, first, last):
    x, rounds = np.empty(size * width, out.dtype), signs.shape[0]
    for column in range(first * width, min(last * width, A.shape[1]), width):
        columns = min(width, A.shape[1] - column)
        for b in range(start // size, (start + A.shape[0] - 1) // size + 1):
            lo, hi = max(start, b * size), min(start + A.shape[0], (b + 1) * size)
            x[:] = 0
            for i in range(lo, hi):
                for j in range(columns):
                    x[(i - b * size) * width + j] = A[i - start, column + j]
            for r in range(rounds):
                _flip(x, 0, size, width, signs[r], b * size - first_sign)
                _transform(x, 0, size, width)
            for q in range(rows.size):
                s = out.dtype.type(outer[(b - start // size) * rows.size + q])
                for j in range(columns):
                    out[q, column + j] += s * x[rows[q] * width + j]


@compiled
def _adjoint_blocks(Y, start, signs, outer, first_sign, size, rows, out, width, first, last):
    x, rounds = np.empty(size * width, out.dtype), signs.shape[0]
    for column in range(first * width, min(last * width, Y.shape[1]), width):
        columns = min(width, Y.shape[1] - column)
        for b in range(start // size, (start + out.shape[0] - 1) // size + 1):
            x[:] = 0
            for q in range(rows.size):
                s = out.dtype.type(outer[(b - start // size) * rows.size + q])
                for j in range(columns):
                    x[rows[q] * width + j] += s * Y[q, column + j]
            for r in range(rounds - 1, -1, -1):
                _transform(x, 0, size, width)
                _flip(x, 0, size, width, signs[r], b * size - first_sign)
            for i in range(max(start, b * size), min(start + out.shape[0], (b + 1) * size)):
                for j in range(columns):
                    out[i - start, column + j] = x[(i - b * size) * width + j]


def _by_blocks(body, key, array, start, n, size, rounds, rows, out):
    if np.iscomplexobj(array):
        _by_blocks(body, key, array.real, start, n, size, rounds, rows, out.real)
        _by_blocks(body, key, array.imag, start, n, size, rounds, rows, out.imag)
        return
    if n == 0:
        return
    first, last = start // size, -(-(start + n) // size)
    signs = np.stack([sign_bits(key, Stream.TRIGONOMETRIC_SIGN, r, first * size, last * size) for r in range(rounds)])
    outer = sign_bits(key, Stream.BLOCK_SIGN, 0, first * len(rows), last * len(rows))
    width = LANE_BYTES // array.dtype.itemsize
    parallel_for(
        lambda lo, hi: body(array, start, signs, outer, first * size, size, rows, out, width, lo, hi),
        -(-array.shape[1] // width),
        chunk=1,
    )


def block_srht_apply(key, A, start, block_size, rounds, rows, out):
    """out += S[:, start : start + A.shape[0]] @ A for the unscaled block SRHT S; blocks share the sampled `rows`."""
    _by_blocks(_apply_blocks, key, A, start, A.shape[0], block_size, rounds, rows, out)


def block_srht_adjoint(key, Y, start, block_size, rounds, rows, out):
    """out = S[:, start : start + out.shape[0]].T @ Y for the unscaled block SRHT S."""
    _by_blocks(_adjoint_blocks, key, Y, start, out.shape[0], block_size, rounds, rows, out)
