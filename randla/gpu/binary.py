"""Binary least squares on the GPU: a thread to a column or row, with the search of the CPU.

A search visits some hundred vectors where an enumeration of 16 entries visits 65,536, and it goes on beyond 16.
"""

from __future__ import annotations

from ._compile import launch
from .completion import SCRATCH, _doubles, _entries, _integers

VECTORS = 13  # of k + 1 doubles in a workspace, as in binary.cu


def binary_search(G, B, Z, starts, max_nodes):
    """The columns of argmin of z.G z - 2 b.z over 0/1 vectors z, for the columns b of B (k, n), from those of Z.

    Returns them, int8 (k, n), and for which it is proved that there is no better one, bool (n,): where `max_nodes` of
    the search did.  See `reference`.
    """
    import cupy

    (k, n), out = B.shape, cupy.array(Z, cupy.int8, order="C")
    proved = cupy.full(n, int(k == 0), cupy.int8)
    G, B, starts = _doubles(G), cupy.ascontiguousarray(B), cupy.ascontiguousarray(starts, dtype=cupy.int8)
    R, step = cupy.empty(k * k + k + 1), max(1, SCRATCH // (VECTORS * (k + 1)))
    launch("binary", "binary_factor", 1 if k and n else 0, k, G, R, dtype=B.dtype)
    scratch = cupy.empty(min(n, step) * VECTORS * (k + 1))
    for first in range(0, n if k else 0, step):
        launch(
            "binary", "binary_search", min(step, n - first), k, first, n, len(starts), int(max_nodes), G, R, B, starts,
            scratch, out, proved, dtype=B.dtype,
        )  # fmt: skip
    return out, proved != 0


def masked_binary_search(V, indices, indptr, weights, targets, Z, starts, max_nodes):
    """`binary_search` for each row z of Z (m, k) with G = sum of w_p v_p v_p.T and b = sum of targets_p v_p.

    The sums are over the entries p of the row, v_p = V[indices[p]]; a row without entries stays as it is.  Returns
    int8 (m, k) and bool (m,).  See `reference`.
    """
    import cupy

    (m, k), out = Z.shape, cupy.array(Z, cupy.int8, order="C")
    proved, starts = cupy.full(m, int(k == 0), cupy.int8), cupy.ascontiguousarray(starts, dtype=cupy.int8)
    V, indices, indptr = cupy.ascontiguousarray(V), _integers(indices), _integers(indptr)
    w, t = _entries(weights, V.dtype), _entries(targets, V.dtype)
    size = VECTORS * (k + 1) + 2 * k * k
    step = max(1, SCRATCH // size)
    scratch = cupy.empty(min(m, step) * size)
    for first in range(0, m if k else 0, step):
        launch(
            "binary", "masked_binary_search", min(step, m - first), k, first, len(starts), int(max_nodes),
            int(weights is not None), V, indices, indptr, w, t, starts, scratch, out, proved, dtype=V.dtype,
        )  # fmt: skip
    return out, proved != 0
