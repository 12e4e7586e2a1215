"""Random tables of the sketch operators: words, uniforms, sampled rows, sign tables, dense tiles.

Definitions and layouts are those of `randla.kernels.reference`; every table is equal to it bit for bit.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from .._parallel import parallel_for
from .._random import Stream
from ._compile import compiled
from ._philox import HALF, key_words, philox
from .reference import sketching as truth

RUN = 256  # columns whose entries wait in the first-level cache
CHUNK = 65_536  # indices to a task: a table row takes a few nanoseconds, a thread tens of microseconds to start

_ONE, _WORD_BITS, _FULL = np.uint64(1), np.uint64(31), np.uint64(2**32)
_SAMPLE, _PERMUTATION = np.uint64(Stream.SAMPLE), np.uint64(Stream.PERMUTATION)
_SPARSE_SIGN, _SPARSE_JL = np.uint64(Stream.SPARSE_SIGN), np.uint64(Stream.SPARSE_JL)
_LESS, _RADEMACHER, _GAUSSIAN = np.uint64(Stream.LESS), np.uint64(Stream.RADEMACHER), np.uint64(Stream.GAUSSIAN)


@compiled
def _fill_words(out, k0, k1, stream, start, lo, hi):
    n_lanes = out.shape[1] // 4
    for lane in range(n_lanes):
        for i in range(lo, hi):
            a, b, c, d = philox(uint64(start) + uint64(i), lane, stream, k0, k1)
            out[i, 4 * lane] = np.uint32(a)
            out[i, 4 * lane + 1] = np.uint32(b)
            out[i, 4 * lane + 2] = np.uint32(c)
            out[i, 4 * lane + 3] = np.uint32(d)


def philox_words(key, stream, start, stop, n_lanes):
    """Words of the indices start..stop-1, lane after lane; uint32 (stop - start, 4 * n_lanes)."""
    out = np.empty((stop - start, 4 * n_lanes), np.uint32)
    k0, k1 = key_words(key)
    parallel_for(
        lambda lo, hi: _fill_words(out, k0, k1, np.uint64(stream), np.uint64(start), lo, hi), len(out), chunk=CHUNK
    )
    return out


@compiled
def _fill_uniforms(out, k0, k1, stream, start, lo, hi):
    for i in range(lo, hi):
        a, b, _, _ = philox(uint64(start) + uint64(i), 0, stream, k0, k1)
        out[i] = (np.float64(a >> uint64(5)) * 67108864.0 + np.float64(b >> uint64(6))) / 9007199254740992.0


def uniforms(key, stream, start, stop):
    """Uniforms on [0, 1) with 53 bits; float64 (stop - start,)."""
    out = np.empty(stop - start)
    k0, k1 = key_words(key)
    parallel_for(
        lambda lo, hi: _fill_uniforms(out, k0, k1, np.uint64(stream), np.uint64(start), lo, hi), len(out), chunk=CHUNK
    )
    return out


@njit(inline="always")
def _scaled(low, high, n):
    """High 64 bits of (high * 2**32 + low) * n for n <= 2**32: a bounded integer by multiply-shift."""
    if n == _FULL:
        return high
    return (high * n + ((low * n) >> HALF)) >> HALF


@compiled
def _fill_uniform_rows(out, k0, k1, n):
    for i in range(out.size):
        a, b, _, _ = philox(uint64(i), 0, _SAMPLE, k0, k1)
        out[i] = np.int64(_scaled(a, b, n))


def uniform_rows(key, n, size):
    """`size` indices drawn uniformly with replacement from range(n); int64 (size,)."""
    out = np.empty(size, np.int64)
    _fill_uniform_rows(out, *key_words(key), np.uint64(n))
    return out


@compiled
def _fill_distinct_rows(out, k0, k1, n, h):
    mask = (_ONE << h) - _ONE
    for i in range(out.size):
        value = uint64(i)
        while True:
            left, right = value >> h, value & mask
            for r in range(10):
                word, _, _, _ = philox(right, r, _PERMUTATION, k0, k1)
                left, right = right, left ^ (word & mask)
            value = (left << h) | right
            if value < n:
                break
        out[i] = np.int64(value)


def distinct_rows(key, n, size):
    """The first `size` values of a pseudorandom permutation of range(n), ascending; int64 (size,)."""
    out = np.empty(size, np.int64)
    half_bits = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    _fill_distinct_rows(out, *key_words(key), np.uint64(n), np.uint64(half_bits))
    out.sort()
    return out


@njit(inline="always")
def _packed(word, band, width):
    """2 * row + sign for a word: the row lies in [band, band + width) by multiply-shift on the upper 31 bits."""
    return np.int32(((band + (((word >> _ONE) * width) >> _WORD_BITS)) << _ONE) | (word & _ONE))


@compiled
def _fill_sparse_sign_narrow(table, bands, k0, k1, start, owned, lo, hi):
    """Columns that own one or two words: a Philox block serves 4 or 2 of them, so blocks are walked, not columns."""
    nnz, per_block = table.shape[1], 4 // owned
    first = (uint64(start) + uint64(lo)) * uint64(owned) >> uint64(2)
    n_blocks = ((start + hi - 1) * owned >> 2) - np.int64(first) + 1
    base = np.int64(first) * per_block - start
    for b in range(n_blocks):
        block = philox(first + uint64(b), 0, _SPARSE_SIGN, k0, k1)
        i = base + b * per_block
        if owned == 1:
            if i >= lo and i + 3 < hi:
                table[i, 0] = _packed(block[0], bands[0], bands[1])
                table[i + 1, 0] = _packed(block[1], bands[0], bands[1])
                table[i + 2, 0] = _packed(block[2], bands[0], bands[1])
                table[i + 3, 0] = _packed(block[3], bands[0], bands[1])
            else:
                for c in range(4):
                    if lo <= i + c < hi:
                        table[i + c, 0] = _packed(block[c], bands[0], bands[1])
        else:
            for c in range(2):
                if lo <= i + c < hi:
                    for t in range(nnz):
                        table[i + c, t] = _packed(block[2 * c + t], bands[t], bands[t + 1] - bands[t])


@compiled
def _fill_sparse_sign_wide(table, bands, k0, k1, start, owned, lo, hi):
    """Columns that own whole Philox blocks; entries pass through short runs, since strided stores don't vectorise."""
    nnz, blocks = table.shape[1], uint64(owned // 4)
    run = np.empty((4, RUN), np.int32)
    r0, r1, r2, r3 = run[0], run[1], run[2], run[3]
    for first in range(lo, hi, RUN):
        n = min(RUN, hi - first)
        for t in range(0, nnz, 4):
            b0, b1 = bands[t], bands[min(t + 1, nnz)]
            b2, b3, b4 = bands[min(t + 2, nnz)], bands[min(t + 3, nnz)], bands[min(t + 4, nnz)]
            base, lane = uint64(start) + uint64(first), uint64(t // 4)
            for i in range(n):
                a, b, c, d = philox((base + uint64(i)) * blocks + lane, 0, _SPARSE_SIGN, k0, k1)
                r0[i], r1[i] = _packed(a, b0, b1 - b0), _packed(b, b1, b2 - b1)
                r2[i], r3[i] = _packed(c, b2, b3 - b2), _packed(d, b3, b4 - b3)
            if nnz - t >= 4:
                for i in range(n):
                    column = table[first + i]
                    column[t], column[t + 1], column[t + 2], column[t + 3] = r0[i], r1[i], r2[i], r3[i]
            else:
                for q in range(nnz - t):
                    for i in range(n):
                        table[first + i, t + q] = run[q, i]


def sparse_sign_table(key, start, stop, nnz, sketch_size):
    """Columns start..stop-1 of a block-constructed sparse sign matrix; packed int32 (stop - start, nnz)."""
    table = np.empty((stop - start, nnz), np.int32)
    owned = 1 << (nnz - 1).bit_length()
    bands = np.array([t * sketch_size // nnz for t in range(nnz + 1)], np.uint64)
    fill = _fill_sparse_sign_wide if owned >= 4 else _fill_sparse_sign_narrow
    k0, k1 = key_words(key)
    parallel_for(lambda lo, hi: fill(table, bands, k0, k1, start, owned, lo, hi), len(table), chunk=CHUNK // 4)
    return table


@compiled
def _walk_sparse_jl(pointers, packed, thresholds, k0, k1, start, sketch_size, fill, lo, hi):
    """Count (fill False) or write (fill True) the nonzeros of columns lo..hi-1 by skipping geometric gaps."""
    for i in range(lo, hi):
        row, t, p = np.int64(-1), 0, pointers[i]
        while True:
            if t % 4 == 0:
                block = philox(uint64(start) + uint64(i), t // 4, _SPARSE_JL, k0, k1)
            word = block[t % 4]
            level = np.int64(word >> _ONE)
            # the largest gap with level < thresholds[gap]: gallop up, then bisect
            low, step = 0, 1
            while low + step < thresholds.size and level < thresholds[low + step]:
                low += step
                step *= 2
            high = min(low + step, thresholds.size)
            while high - low > 1:
                middle = (low + high) // 2
                if level < thresholds[middle]:
                    low = middle
                else:
                    high = middle
            row += 1 + low
            if row >= sketch_size:
                break
            if fill:
                packed[p + t] = np.int32(2 * row + np.int64(word & _ONE))
            t += 1
        if not fill:
            pointers[i + 1] = t


def sparse_jl_table(key, thresholds, start, stop, sketch_size):
    """Columns of a matrix of independent entries, +-1 with probability p, else 0; ragged packed int32 table."""
    n = stop - start
    k0, k1 = key_words(key)
    counts = np.zeros(n + 1, np.int64)
    nothing = np.empty(0, np.int32)

    def walk(pointers, packed, fill):
        parallel_for(
            lambda lo, hi: _walk_sparse_jl(pointers, packed, thresholds, k0, k1, start, sketch_size, fill, lo, hi),
            n,
            chunk=CHUNK // 16,
        )

    walk(counts, nothing, False)
    pointers = np.cumsum(counts)
    packed = np.empty(int(pointers[-1]), np.int32)
    walk(pointers, packed, True)
    return pointers, packed


@compiled
def _fill_less(table, k0, k1, start, n, lo, hi):
    for r in range(lo, hi):
        for t in range(table.shape[1]):
            a, b, c, _ = philox(uint64(start) + uint64(r), t, _LESS, k0, k1)
            table[r, t] = np.int64((_scaled(a, b, n) << _ONE) | (c & _ONE))


def less_table(key, start, stop, nnz, n):
    """Rows start..stop-1 of a LESS-uniform matrix: nnz draws with replacement from range(n); packed int64."""
    table = np.empty((stop - start, nnz), np.int64)
    k0, k1 = key_words(key)
    chunk = max(1, CHUNK // nnz)
    parallel_for(lambda lo, hi: _fill_less(table, k0, k1, start, np.uint64(n), lo, hi), len(table), chunk=chunk)
    return table


@compiled
def _fill_rademacher(table, k0, k1, start, lo, hi):
    one, two = table.dtype.type(1), table.dtype.type(2)
    sketch_size = table.shape[1]
    for i in range(lo, hi):
        for lane in range((sketch_size + 127) // 128):
            block = philox(uint64(start) + uint64(i), lane, _RADEMACHER, k0, k1)
            for w in range(4):
                first = 128 * lane + 32 * w
                bits = np.uint32(block[w])
                for j in range(min(32, sketch_size - first)):
                    table[i, first + j] = one - two * table.dtype.type((bits >> np.uint32(j)) & np.uint32(1))


def rademacher_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a dense sign matrix, one per row of the table; (stop - start, sketch_size), +-1."""
    table = np.empty((stop - start, sketch_size), dtype)
    k0, k1 = key_words(key)
    chunk = max(1, 16 * CHUNK // sketch_size)
    parallel_for(lambda lo, hi: _fill_rademacher(table, k0, k1, start, lo, hi), len(table), chunk=chunk)
    return table


@compiled
def _fill_sign_bits(out, k0, k1, stream, lane, start, lo, hi):
    for b in range((start + lo) // 128, (start + hi + 127) // 128):
        block = philox(uint64(b), lane, stream, k0, k1)
        for w in range(4):
            first = 128 * b + 32 * w - start
            bits = np.uint32(block[w])
            for j in range(max(0, lo - first), min(32, hi - first)):
                out[first + j] = np.int8(1) - np.int8(2) * np.int8((bits >> np.uint32(j)) & np.uint32(1))


def sign_bits(key, stream, lane, start, stop):
    """Signs of the indices start..stop-1, 128 to a Philox block; +-1, int8."""
    out = np.empty(stop - start, np.int8)
    k0, k1 = key_words(key)
    parallel_for(
        lambda lo, hi: _fill_sign_bits(out, k0, k1, np.uint64(stream), np.uint64(lane), start, lo, hi),
        len(out),
        chunk=16 * CHUNK,
    )
    return out


_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = truth.LOG_POLYNOMIAL
_S0, _S1, _S2 = truth.SIN_POLYNOMIAL
_C0, _C1, _C2 = truth.COS_POLYNOMIAL
_LOG2_HIGH, _LOG2_LOW, _HALF_PI = truth.LOG2_HIGH, truth.LOG2_LOW, truth.HALF_PI
_UNIT, _HALF_UNIT, _MINUS_TWO, _ZERO = np.float32(1), np.float32(0.5), np.float32(-2), np.float32(0)
_ROOT_HALF_BITS, _MANTISSA, _TURN = np.int32(0x3F3504F3), np.int32(0x007FFFFF), np.float32(2.0**-32)
_U1, _U2, _U30 = np.uint32(1), np.uint32(2), np.uint32(30)


@njit(inline="always")
def _normals(w0, w1):
    """Two standard normals of two words: the steps of `reference.gaussian_table`, in its order, for one pair."""
    x = np.float32(np.int32((w0 >> _U1) | _U1))
    shifted = np.int32(x.view(np.int32) - _ROOT_HALF_BITS)
    e = np.float32(np.int32((shifted >> np.int32(23)) - np.int32(31)))
    m = np.int32((shifted & _MANTISSA) + _ROOT_HALF_BITS).view(np.float32) - _UNIT
    z = m * m
    y = (((((((_L0 * m + _L1) * m + _L2) * m + _L3) * m + _L4) * m + _L5) * m + _L6) * m + _L7) * m + _L8
    y = y * m * z + e * _LOG2_LOW - _HALF_UNIT * z
    square = _MINUS_TWO * ((m + y) + e * _LOG2_HIGH)
    radius = np.sqrt(square if square > _ZERO else _ZERO)
    f = np.float32(np.int32(w1 << _U2)) * _TURN * _HALF_PI
    z = f * f
    s = ((_S0 * z + _S1) * z + _S2) * z * f + f
    c = ((_C0 * z + _C1) * z + _C2) * z * z - _HALF_UNIT * z + _UNIT
    quarter = w1 >> _U30
    swap = (quarter & _U1) == _U1
    cosine, sine = -s if swap else c, c if swap else s
    turn = quarter >= _U2
    return radius * (-cosine if turn else cosine), radius * (-sine if turn else sine)


@compiled
def _fill_gaussian(table, k0, k1, start, lo, hi):
    sketch_size = table.shape[1]
    n_lanes = (sketch_size + 3) // 4
    radial, angular = np.empty(2 * n_lanes, np.uint32), np.empty(2 * n_lanes, np.uint32)
    for i in range(lo, hi):
        # two loops, since words and normals vectorise apart but not together
        for lane in range(n_lanes):
            a, b, c, d = philox(uint64(start) + uint64(i), lane, _GAUSSIAN, k0, k1)
            radial[2 * lane], angular[2 * lane] = np.uint32(a), np.uint32(b)
            radial[2 * lane + 1], angular[2 * lane + 1] = np.uint32(c), np.uint32(d)
        row = table[i]
        for p in range(sketch_size // 2):
            row[2 * p], row[2 * p + 1] = _normals(radial[p], angular[p])
        if sketch_size % 2:
            row[sketch_size - 1] = _normals(radial[sketch_size // 2], angular[sketch_size // 2])[0]


def gaussian_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a standard normal matrix, one per row of the table; (stop - start, sketch_size)."""
    table = np.empty((stop - start, sketch_size), dtype)
    k0, k1 = key_words(key)
    chunk = max(1, CHUNK // max(sketch_size, 1))
    parallel_for(lambda lo, hi: _fill_gaussian(table, k0, k1, start, lo, hi), len(table), chunk=chunk)
    return table
