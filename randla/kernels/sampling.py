"""Kernels of importance and coordinated sampling: uniforms of given indices, powers summed over rows."""

from __future__ import annotations

import numpy as np
from numba import uint64

from .._parallel import parallel_for
from ._compile import compiled
from ._philox import key_words, philox

CHUNK = 65_536  # indices to a task, as for the tables
RUN = 1024  # rows whose sums wait in the first-level cache while the columns of a tall array are read


@compiled
def _fill_uniforms_at(out, index, k0, k1, stream, lo, hi):
    for i in range(lo, hi):
        a, b, _, _ = philox(index[i], 0, stream, k0, k1)
        # 52 bits and a half: an odd multiple of 2**-53, so neither 0 nor 1, and exact
        out[i] = np.float64(((a >> uint64(5)) << uint64(26)) | (b >> uint64(6)) | uint64(1)) * 2.0**-53


def uniforms_at(key, stream, index):
    """Uniforms on (0, 1) of the given 64-bit indices (int64, as bit patterns); float64 (len(index),)."""
    out = np.empty(len(index))
    k0, k1 = key_words(key)
    parallel_for(lambda lo, hi: _fill_uniforms_at(out, index, k0, k1, np.uint64(stream), lo, hi), len(out), chunk=CHUNK)
    return out


# contract: a fused multiply-add rounds once instead of twice; reassoc: a row is summed in several chains, their number
# chosen by the compiler, and rounding in double precision is all that differs
@compiled(fastmath={"contract", "reassoc"})
def _sum_along_rows(A, square, out, lo, hi):
    d = A.shape[1]
    even = d - d % 4  # four at a time: rows are often shorter than what the compiler would unroll by itself
    for i in range(lo, hi):
        a = A[i]
        s, t, u, v = 0.0, 0.0, 0.0, 0.0
        if square:
            for j in range(0, even, 4):
                w, x, y, z = np.float64(a[j]), np.float64(a[j + 1]), np.float64(a[j + 2]), np.float64(a[j + 3])
                s, t, u, v = s + w * w, t + x * x, u + y * y, v + z * z
            for j in range(even, d):
                s += np.float64(a[j]) * np.float64(a[j])
        else:
            for j in range(0, even, 4):
                s, t = s + abs(np.float64(a[j])), t + abs(np.float64(a[j + 1]))
                u, v = u + abs(np.float64(a[j + 2])), v + abs(np.float64(a[j + 3]))
            for j in range(even, d):
                s += abs(np.float64(a[j]))
        out[i] = (s + t) + (u + v)


@compiled(fastmath={"contract"})
def _sum_down_columns(A, square, out, lo, hi):
    for first in range(lo, hi, RUN):
        part = out[first : min(first + RUN, hi)]
        part[:] = 0.0
        for j in range(A.shape[1]):
            column = A[first : first + part.size, j]
            if square:
                for i in range(part.size):
                    part[i] += np.float64(column[i]) * np.float64(column[i])
            else:
                for i in range(part.size):
                    part[i] += abs(np.float64(column[i]))


def row_power_sums(A, power):
    """Sums of |a|**power over each row of a real dense A, power 1 or 2, in double precision; float64 (m,)."""
    out = np.empty(A.shape[0])
    body = _sum_down_columns if A.strides[0] < A.strides[1] else _sum_along_rows
    parallel_for(lambda lo, hi: body(A, power == 2, out, lo, hi), len(out), chunk=16_384)
    return out


@compiled(fastmath={"contract", "reassoc"})
def _sum_segments(data, indptr, square, out, lo, hi):
    if square:
        for i in range(lo, hi):
            total = 0.0
            for p in range(indptr[i], indptr[i + 1]):
                total += np.float64(data[p]) * np.float64(data[p])
            out[i] = total
    else:
        for i in range(lo, hi):
            total = 0.0
            for p in range(indptr[i], indptr[i + 1]):
                total += abs(np.float64(data[p]))
            out[i] = total


def csr_row_power_sums(data, indptr, power):
    """`row_power_sums` for a CSR matrix without repeated entries, given as its values and pointers."""
    out = np.empty(len(indptr) - 1)
    parallel_for(lambda lo, hi: _sum_segments(data, indptr, power == 2, out, lo, hi), len(out), chunk=16_384)
    return out
