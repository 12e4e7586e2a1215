"""Symmetric nonnegative factorisation: exact coordinate descent, where each entry depends on all before it.

Rows are taken one after another, so that the products of a row of A with H are formed once for all its entries; the
Gram matrix of H follows each change.  One thread does it: entries cannot be taken at the same time.
"""

from __future__ import annotations

import numpy as np

from ._compile import compiled


@compiled
def _stationary(a, b):
    """The argmin of x^4 / 4 + a x^2 / 2 + b x over x >= 0: 0, or the largest root of x^3 + a x + b.

    One real root is u - v by Cardano, with u v = a / 3 and u^3 - v^3 = -b; their quotient with the other factor of
    u^3 - v^3 does not cancel.  Of three, Newton's steps fall to the largest from a bound above it, as the cubic is
    convex there, and end where rounding raises them.
    """
    half, third = b / 2, a / 3
    square = half * half + third * third * third
    if square > 0:
        if b >= 0:
            return 0.0
        u = np.cbrt(np.sqrt(square) - half)
        v = third / u
        return -b / (u * u + third + v * v) if third > 0 else u - v
    if not third < 0:
        return 0.0
    x = 2 * np.sqrt(-third)
    for _ in range(60):
        slope = 3 * x * x + a
        if not slope > 0:
            break
        lower = x - (x * x * x + a * x + b) / slope
        if not lower < x:
            break
        x = lower
    return x if x * (x * x / 4 + a / 2) + b < 0 else 0.0


@compiled
def _sweep_row(diagonal, p, q, G, H, i):
    """Set the entries of row i of H, given p = A[i] H and q = H[i] G; returns the fall of the squared norm."""
    r, square, fall = H.shape[1], 0.0, 0.0
    for k in range(r):
        square += np.float64(H[i, k]) * np.float64(H[i, k])
    for k in range(r):
        h = np.float64(H[i, k])
        a = G[k, k] + square - diagonal - 2 * h * h
        b = q[k] - p[k] - a * h - h * h * h
        H[i, k] = _stationary(a, b)
        x = np.float64(H[i, k])
        if x == h:
            continue
        fall += (h - x) * ((h + x) * (h * h + x * x + 2 * a) + 4 * b)
        square += x * x - h * h
        step, row, mine = x - h, G[k], H[i]
        for m in range(r):
            new = row[m] + step * mine[m]
            q[m] += x * new - h * row[m]
            row[m] = new
        row[k] = row[k] + h * step  # mine[k] is x by now: x**2 - h**2 in all
        for m in range(r):
            G[m, k] = row[m]
    return fall


@compiled
def _dense_rows(A, H, G):
    (n, r), fall = H.shape, 0.0
    p, q = np.empty(r), np.empty(r)
    for i in range(n):
        p[:] = 0
        q[:] = 0
        row = A[i]
        for j in range(n):
            value, other = np.float64(row[j]), H[j]
            for k in range(r):
                p[k] += value * other[k]
        for j in range(r):
            value, other = np.float64(H[i, j]), G[j]
            for k in range(r):
                q[k] += value * other[k]
        fall += _sweep_row(np.float64(row[i]), p, q, G, H, i)
    return fall


@compiled
def _sparse_rows(data, indices, indptr, H, G):
    (n, r), fall = H.shape, 0.0
    p, q = np.empty(r), np.empty(r)
    for i in range(n):
        p[:] = 0
        q[:] = 0
        diagonal = 0.0
        for e in range(np.int64(indptr[i]), np.int64(indptr[i + 1])):
            value, other = np.float64(data[e]), H[indices[e]]
            if indices[e] == i:
                diagonal = value
            for k in range(r):
                p[k] += value * other[k]
        for j in range(r):
            value, other = np.float64(H[i, j]), G[j]
            for k in range(r):
                q[k] += value * other[k]
        fall += _sweep_row(diagonal, p, q, G, H, i)
    return fall


def _begun(H):
    H = np.array(H, order="C")
    wide = H.astype(np.float64)
    return H, np.ascontiguousarray(wide.T @ wide)


def symmetric_sweep(A, H):
    """One pass over the entries of H (n, r), row by row, each set to the minimiser of ||A - H H.T||_F^2 over x >= 0.

    Returns H, and by how much the squared norm fell, float64 (1,).  See `reference`.
    """
    H, G = _begun(H)
    return H, np.array([_dense_rows(np.ascontiguousarray(A), H, G)])


def csr_symmetric_sweep(data, indices, indptr, H):
    """`symmetric_sweep` for a matrix in CSR form, symmetric and without duplicates.  See `reference`."""
    H, G = _begun(H)
    return H, np.array([_sparse_rows(data, indices, indptr, H, G)])
