"""Truths of symmetric factorisation.  They run in any array namespace, in double precision."""

from __future__ import annotations

from array_api_compat import array_namespace, device


def _stationary(a, b):
    """The argmin of x^4 / 4 + a x^2 / 2 + b x over x >= 0: 0, or the largest root of x^3 + a x + b, by bisection."""
    high = abs(a) ** 0.5 + abs(b) ** (1 / 3)  # at twice of it the cubic is positive
    low, high = (max(0.0, -a / 3)) ** 0.5, 2 * high  # the cubic rises from its local minimum on
    if low**3 + a * low + b >= 0:
        return 0.0
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if middle**3 + a * middle + b < 0 else (low, middle)
    return high if high**4 / 4 + a * high**2 / 2 + b * high < 0 else 0.0


def symmetric_sweep(A, H):
    """One pass over the entries of H (n, r), row by row, each set to the minimiser of ||A - H H.T||_F^2 over x >= 0.

    A (n, n) is symmetric.  Returns H, and by how much the squared norm fell, float64 (1,).
    """
    xp, out, fall = array_namespace(H), array_namespace(H).astype(H, H.dtype, copy=True), 0.0
    A = xp.astype(A, xp.float64)
    for i in range(H.shape[0]):
        for k in range(H.shape[1]):
            wide = xp.astype(out, xp.float64)
            G, h = xp.matmul(wide.T, wide), float(wide[i, k])
            a = float(G[k, k] + xp.sum(wide[i, :] ** 2) - A[i, i]) - 2 * h * h
            b = float(xp.sum(wide[i, :] * G[:, k]) - xp.sum(A[i, :] * wide[:, k])) - a * h - h**3
            out[i, k] = _stationary(a, b)
            x = float(out[i, k])
            fall += (h**4 - x**4) + 2 * a * (h * h - x * x) + 4 * b * (h - x)
    return out, xp.asarray([fall], dtype=xp.float64, device=device(H))


def csr_symmetric_sweep(data, indices, indptr, H):
    """`symmetric_sweep` for a matrix in CSR form, symmetric and without duplicates."""
    xp, n = array_namespace(H), H.shape[0]
    A = xp.zeros((n, n), dtype=xp.float64, device=device(H))
    for i in range(n):
        for e in range(int(indptr[i]), int(indptr[i + 1])):
            A[i, int(indices[e])] = data[e]
    return symmetric_sweep(A, H)
