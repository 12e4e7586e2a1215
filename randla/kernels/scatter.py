"""Products with sign tables: hash tables in, rows added or gathered, nothing stored but the output.

A ragged table (pointers, packed) lists the signed positions of each item, see `randla.kernels.reference`.  Every output
entry is summed by one thread in the order of the items, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from .._parallel import available_threads, parallel_for, stripe_width
from ._compile import compiled
from ._vector import LANE_BYTES, prefetch_read, signed_add

PANEL = 16  # rows of A that `scatter_columns` turns into one row of vectors
TILE = 512  # items that it turns at a time: 64 KiB of doubles
WIDE = 1024  # bytes of a row from which sorting by position beats scattering
AHEAD = 8  # rows of A between the prefetch and the use


@compiled
def _scatter(pointers, packed, A, sums, lo, hi):
    """Add row i of A[:, lo:hi] to the rows of `sums` (positions, hi - lo) that item i names, four at a time."""
    one, two = A.dtype.type(1), A.dtype.type(2)
    source, target = A.reshape(A.size), sums.reshape(sums.size)
    d, width, line = A.shape[1], hi - lo, LANE_BYTES // A.itemsize
    for i in range(A.shape[0]):
        ahead = (i + AHEAD) * d
        if ahead < A.size:
            for c in range(lo, hi, line):
                prefetch_read(source, ahead + c)
        p, end, a = pointers[i], pointers[i + 1], i * d + lo
        while p + 3 < end:
            e, f = np.int64(packed[p]), np.int64(packed[p + 1])
            g, h = np.int64(packed[p + 2]), np.int64(packed[p + 3])
            places = (e >> 1) * width, (f >> 1) * width, (g >> 1) * width, (h >> 1) * width
            s, t = one - two * A.dtype.type(e & 1), one - two * A.dtype.type(f & 1)
            u, v = one - two * A.dtype.type(g & 1), one - two * A.dtype.type(h & 1)
            signed_add(target, places, (s, t, u, v), source, a, width)
            p += 4
        while p < end:
            e = np.int64(packed[p])
            signed_add(target, ((e >> 1) * width,), (one - two * A.dtype.type(e & 1),), source, a, width)
            p += 1


@compiled
def _scatter_single(packed, A, sums, lo, hi):
    """`_scatter` where each item names one position: the loops over entries take a quarter of its time otherwise."""
    one, two = A.dtype.type(1), A.dtype.type(2)
    source, target = A.reshape(A.size), sums.reshape(sums.size)
    d, width, line = A.shape[1], hi - lo, LANE_BYTES // A.itemsize
    for i in range(A.shape[0]):
        ahead = (i + AHEAD) * d
        if ahead < A.size:
            for c in range(lo, hi, line):
                prefetch_read(source, ahead + c)
        e = np.int64(packed[i])
        signed_add(target, ((e >> 1) * width,), (one - two * A.dtype.type(e & 1),), source, i * d + lo, width)


@compiled
def _is_single(pointers):
    """True for a table with one entry an item."""
    for i in range(pointers.size):
        if pointers[i] != i:
            return False
    return True


@compiled
def _by_position(pointers, packed, n_positions):
    """The table turned over: for each position the signed items that name it, in their order."""
    starts = np.zeros(n_positions + 1, np.int64)
    for p in range(packed.size):
        starts[(packed[p] >> 1) + 1] += 1
    for q in range(n_positions):
        starts[q + 1] += starts[q]
    cursor, items = starts[:-1].copy(), np.empty(packed.size, np.int64)
    for i in range(pointers.size - 1):
        for p in range(pointers[i], pointers[i + 1]):
            q = packed[p] >> 1
            items[cursor[q]] = 2 * i + (packed[p] & 1)
            cursor[q] += 1
    return starts, items


@compiled
def _gather(pointers, packed, Y, out, first, lo, hi):
    """Add to row i of out[lo:hi] the signed rows of Y that item first + i names, four at a time, in their order."""
    one, two = Y.dtype.type(1), Y.dtype.type(2)
    for i in range(lo, hi):
        y = out[i]
        p, end = pointers[first + i], pointers[first + i + 1]
        while p + 3 < end:
            e, f, g, h = packed[p], packed[p + 1], packed[p + 2], packed[p + 3]
            a, b, c, d = Y[e >> 1], Y[f >> 1], Y[g >> 1], Y[h >> 1]
            s, t = one - two * Y.dtype.type(e & 1), one - two * Y.dtype.type(f & 1)
            u, v = one - two * Y.dtype.type(g & 1), one - two * Y.dtype.type(h & 1)
            for j in range(y.size):
                y[j] = (((y[j] + s * a[j]) + t * b[j]) + u * c[j]) + v * d[j]
            p += 4
        while p < end:
            e = packed[p]
            a, s = Y[e >> 1], one - two * Y.dtype.type(e & 1)
            for j in range(y.size):
                y[j] += s * a[j]
            p += 1


def scatter_rows(pointers, packed, A, out):
    """out += T.T @ A, T the signed incidence matrix (items, positions): row i of A goes to the positions of item i."""
    if np.iscomplexobj(A):  # signs are real: a complex row is a real one of twice the length
        A, out = A.view(A.real.dtype), out.view(A.real.dtype)
    n_items, width = A.shape
    if width * A.itemsize >= WIDE and 4 * len(out) <= len(packed) <= 2 * n_items:
        # few entries an item and long rows: turning the table over reads A once and writes each output row once
        starts, items = _by_position(pointers, packed, len(out))
        parallel_for(lambda lo, hi: _gather(starts, items, A, out, 0, lo, hi), len(out), chunk=64)
    else:
        single, stripe = _is_single(pointers), stripe_width(width)

        def work(lo, hi):
            # a stripe of its own for each thread, since rows of `out` would pass to and fro between the caches
            sums = out if hi - lo == width else out[:, lo:hi].copy()
            if single:
                _scatter_single(packed, A, sums, lo, hi)
            else:
                _scatter(pointers, packed, A, sums, lo, hi)
            if sums is not out:
                out[:, lo:hi] = sums

        parallel_for(work, width, chunk=stripe)


@compiled
def _scatter_panels(pointers, packed, A, out, lo, hi):
    """Turn PANEL rows of A into rows of vectors, scatter these, and turn the sums back."""
    one, two = out.dtype.type(1), out.dtype.type(2)
    n_items, n_positions = A.shape[1], out.shape[1]
    # zeros: the rows that a short last panel lacks are summed too, though never read
    sums, turned = np.empty(n_positions * PANEL, out.dtype), np.zeros(TILE * PANEL, out.dtype)
    for r0 in range(lo, hi, PANEL):
        height = min(PANEL, hi - r0)
        sums[:] = 0
        for i0 in range(0, n_items, TILE):
            i1 = min(i0 + TILE, n_items)
            for r in range(height):
                a = A[r0 + r, i0:i1]
                for i in range(a.size):
                    turned[i * PANEL + r] = a[i]
            for i in range(i0, i1):
                for p in range(pointers[i], pointers[i + 1]):
                    e = np.int64(packed[p])
                    sign = (one - two * out.dtype.type(e & 1),)
                    signed_add(sums, ((e >> 1) * PANEL,), sign, turned, (i - i0) * PANEL, PANEL)
        for r in range(height):
            for q in range(n_positions):
                out[r0 + r, q] += sums[q * PANEL + r]


def scatter_columns(pointers, packed, A, out):
    """out += A @ T: column i of A goes to the positions of item i."""
    if np.iscomplexobj(A):
        scatter_columns(pointers, packed, A.real, out.real)
        scatter_columns(pointers, packed, A.imag, out.imag)
        return
    parallel_for(lambda lo, hi: _scatter_panels(pointers, packed, A, out, lo, hi), len(A), chunk=4 * PANEL)


def gather_rows(pointers, packed, Y, out):
    """out += T @ Y: row i of out collects the positions of item i."""
    parallel_for(lambda lo, hi: _gather(pointers, packed, Y, out, 0, lo, hi), len(out), chunk=4096)


@compiled
def _scatter_csr(pointers, packed, data, indices, indptr, out, lo, hi):
    """Scatter the rows of a CSR matrix into the rows lo..hi-1 of out."""
    for i in range(indptr.size - 1):
        for p in range(pointers[i], pointers[i + 1]):
            e = packed[p]
            q = e >> 1
            if lo <= q < hi:
                y = out[q]
                if e & 1:
                    for z in range(indptr[i], indptr[i + 1]):
                        y[indices[z]] -= data[z]
                else:
                    for z in range(indptr[i], indptr[i + 1]):
                        y[indices[z]] += data[z]


def scatter_rows_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_rows` for a CSR matrix A given as its three arrays."""
    chunk = max(1, -(-len(out) // available_threads()))
    parallel_for(
        lambda lo, hi: _scatter_csr(pointers, packed, data, indices, indptr, out, lo, hi), len(out), chunk=chunk
    )


@compiled
def _scatter_columns_csr(pointers, packed, data, indices, indptr, out, lo, hi):
    for r in range(lo, hi):
        y = out[r]
        for z in range(indptr[r], indptr[r + 1]):
            value, i = data[z], indices[z]
            for p in range(pointers[i], pointers[i + 1]):
                e = packed[p]
                if e & 1:
                    y[e >> 1] -= value
                else:
                    y[e >> 1] += value


def scatter_columns_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_columns` for a CSR matrix A given as its three arrays."""
    parallel_for(
        lambda lo, hi: _scatter_columns_csr(pointers, packed, data, indices, indptr, out, lo, hi), len(out), chunk=1024
    )
