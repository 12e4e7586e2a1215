"""Truths of binary least squares.  They run in any array namespace, in double precision."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, device

from .completion import _row, _row_system

FLOOR = 16 * 2.0**-52  # of the sum of all terms: changes below are rounding
BATCH = 2**14  # vectors that are tried together


def _all_vectors(k, first, last):
    """The 0/1 vectors of the numbers first..last-1 in binary, int8 (last - first, k)."""
    return ((np.arange(first, last)[:, None] >> np.arange(k)[None, :]) & 1).astype(np.int8)


def _values(G, b, Z):
    """z.G z - 2 b.z of the rows of Z."""
    xp = array_namespace(G)
    Z = xp.astype(Z, xp.float64)
    return xp.sum(xp.matmul(Z, G) * Z, axis=1) - 2 * xp.matmul(Z, b[:, None])[:, 0]


def _descend(G, b, z, floor):
    """Take the best of all vectors with one entry changed; where that is no better, of those with two."""
    xp, k = array_namespace(G), b.shape[0]
    where = device(G)
    ones = xp.asarray(np.eye(k, dtype=np.int8), device=where)
    pairs = [(i, j) for i in range(k) for j in range(i)]
    twos = np.zeros((len(pairs), k), np.int8)
    for row, places in zip(twos, pairs, strict=True):
        row[list(places)] = 1
    while True:
        here = _values(G, b, z[None, :])
        for flips in (ones, xp.asarray(twos, device=where)):
            others = (1 - 2 * z)[None, :] * flips + z[None, :]
            fall = here - _values(G, b, others)
            if fall.shape[0] and float(xp.max(fall)) > floor:
                z = others[int(xp.argmax(fall)), :]
                break
        else:
            return z


def _best(G, b, z, starts, max_nodes):
    """The vector of least value, if it is better than z, and whether all were tried."""
    xp, k = array_namespace(G), b.shape[0]
    floor = FLOOR * float(2 * xp.sum(xp.abs(b)) + xp.sum(xp.abs(G)))
    least = float(_values(G, b, z[None, :])[0])
    if not np.isfinite(least + floor):
        return z, False
    every = 2**k <= max_nodes
    if every:
        batches = range(0, 2**k, BATCH)
        tried = (xp.asarray(_all_vectors(k, first, min(first + BATCH, 2**k)), device=device(G)) for first in batches)
    else:
        descents = [_descend(G, b, start, floor) for start in (z, *(starts[s, :] for s in range(starts.shape[0])))]
        tried = (vector[None, :] for vector in descents)
    for Z in tried:
        values = _values(G, b, Z)
        at = int(xp.argmin(values))
        if float(values[at]) < least - floor:
            least, z = float(values[at]), Z[at, :]
    return z, every


def binary_search(G, B, Z, starts, max_nodes):
    """The columns of argmin of z.G z - 2 b.z over 0/1 vectors z, for the columns b of B (k, n), from those of Z.

    Returns them, int8 (k, n), and for which it is proved that there is no better one, bool (n,).  The truth tries all
    2**k vectors if they are at most `max_nodes`.  Else the result is the best of the descents from the column of Z and
    from the rows of `starts` (s, k), each of which changes one entry or, where that is no gain, two.  Columns of Z that
    are as good stay.
    """
    xp, (k, n) = array_namespace(B), B.shape
    G, B = xp.astype(G, xp.float64), xp.astype(B, xp.float64)
    out, starts = xp.astype(Z, xp.int8, copy=True), xp.astype(starts, xp.int8)
    proved = xp.full(n, k == 0, dtype=xp.bool, device=device(B))
    for j in range(n if k else 0):
        out[:, j], proved[j] = _best(G, B[:, j], xp.asarray(out[:, j], copy=True), starts, max_nodes)
    return out, proved


def masked_binary_search(V, indices, indptr, weights, targets, Z, starts, max_nodes):
    """`binary_search` for each row z of Z (m, k) with G = sum of w_p v_p v_p.T and b = sum of targets_p v_p.

    The sums are over the entries p of the row, v_p = V[indices[p]]; a row without entries stays as it is.  Returns
    int8 (m, k) and bool (m,).
    """
    xp, (m, k) = array_namespace(V), Z.shape
    out, starts = xp.astype(Z, xp.int8, copy=True), xp.astype(starts, xp.int8)
    proved = xp.full(m, k == 0, dtype=xp.bool, device=device(V))
    nothing = xp.zeros(m, dtype=xp.float64, device=device(V))
    for i in range(m if k else 0):
        if int(indptr[i]) == int(indptr[i + 1]):
            proved[i] = True
            continue
        G = _row_system(V, indices, indptr, weights, None, nothing, i)
        design, t = _row(V, indices, indptr, i, targets)
        b = xp.matmul(design.mT, t[:, None])[:, 0]
        out[i, :], proved[i] = _best(G, b, xp.asarray(out[i, :], copy=True), starts, max_nodes)
    return out, proved
