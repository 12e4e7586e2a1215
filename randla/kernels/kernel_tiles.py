"""Tiles of kernel matrices: products in BLAS, then one vectorised sweep that makes distances and exponentials of them.

A tile is cut into stripes of rows that stay in the second-level cache between the product and the sweep.
"""

from __future__ import annotations

import contextlib

import numpy as np

from .._parallel import parallel_for, serial_blas
from ._compile import compiled
from ._exponential import exponentials

STRIPE_BYTES = 2**19
PANEL = 1024  # points whose distances wait in the first-level cache


@compiled(fastmath={"contract"})
def _exponents(t, a, b, lo, hi):
    """t[j] = min(0, t[j] - a - b[j]); NaN stays."""
    zero, run, rest = t.dtype.type(0), t[lo:hi], b[lo:hi]
    for j in range(run.size):
        value = run[j] - a - rest[j]
        run[j] = zero if value > zero else value


@compiled(fastmath={"contract"})
def _lengths(t, a, b, lo, hi):
    """t[j] = -sqrt(max(0, a + b[j] - t[j])); NaN stays."""
    zero, run, rest = t.dtype.type(0), t[lo:hi], b[lo:hi]
    for j in range(run.size):
        value = a + rest[j] - run[j]
        run[j] = -np.sqrt(zero if value < zero else value)


@compiled(fastmath={"contract"})
def _times_matern(t, s, quadratic, lo, hi):
    """t[j] *= 1 - s[j] + quadratic s[j]**2: the polynomial before the exponential of s <= 0."""
    one, run, length = t.dtype.type(1), t[lo:hi], s[lo:hi]
    for j in range(run.size):
        run[j] *= one - length[j] + quadratic * (length[j] * length[j])


@compiled
def _sweep_rbf(tile, a, b):
    for i in range(tile.shape[0]):
        row = tile[i]
        for lo in range(0, row.size, PANEL):
            hi = min(lo + PANEL, row.size)
            _exponents(row, a[i], b, lo, hi)
            exponentials(row, lo, hi)


@compiled
def _sweep_matern(tile, a, b, quadratic):
    kept = np.empty(tile.shape[1], tile.dtype)
    for i in range(tile.shape[0]):
        row = tile[i]
        for lo in range(0, row.size, PANEL):
            hi = min(lo + PANEL, row.size)
            _lengths(row, a[i], b, lo, hi)
            kept[lo:hi] = row[lo:hi]
            exponentials(row, lo, hi)
            _times_matern(row, kept, quadratic, lo, hi)


@compiled
def _sweep_laplacian(tile, X, columns, gamma):
    """tile[i, j] = exp(-gamma sum_c |X[i, c] - columns[c, j]|)."""
    for i in range(tile.shape[0]):
        row = tile[i]
        for lo in range(0, row.size, PANEL):
            hi = min(lo + PANEL, row.size)
            run = row[lo:hi]
            run[:] = 0
            for c in range(columns.shape[0]):
                x, y = X[i, c], columns[c, lo:hi]
                for j in range(run.size):
                    run[j] += abs(x - y[j])
            run *= -gamma
            exponentials(row, lo, hi)


@compiled
def _sweep_power(tile, constant, degree):
    for i in range(tile.shape[0]):
        row = tile[i]
        for j in range(row.size):
            base = row[j] + constant
            value = base
            for _ in range(1, degree):
                value *= base
            row[j] = value


def _norms(X, factor):
    return np.einsum("ij,ij->i", X, X) * X.dtype.type(factor)


def kernel_tile(name, X, Y, gamma, coef0, degree):
    """Kernel of the rows of X (m, d) with those of Y (n, d), both float32 or float64; (m, n), C-ordered.

    "linear", "polynomial", "rbf", "laplacian", "matern32" or "matern52" as in `randla.kernels.reference`.
    """
    X, Y = np.ascontiguousarray(X), np.ascontiguousarray(Y)
    (m, n), dtype = (len(X), len(Y)), X.dtype.type
    out = np.empty((m, n), dtype)
    if m == 0 or n == 0:
        return out
    if name == "laplacian":
        columns = np.ascontiguousarray(Y.T)

        def finish(lo, hi):
            _sweep_laplacian(out[lo:hi], X[lo:hi], columns, dtype(gamma))
    else:
        finish = _products(name, X, Y, out, gamma, coef0, degree)
    chunk = max(8, STRIPE_BYTES // (n * X.itemsize))
    with contextlib.nullcontext() if m <= chunk else serial_blas(), np.errstate(all="ignore"):
        parallel_for(finish, m, chunk=chunk)
    return out


def _products(name, X, Y, out, gamma, coef0, degree):
    """The function that fills rows lo..hi-1 of a kernel of inner products and squared norms."""
    dtype = X.dtype.type
    factor = {"linear": 1.0, "polynomial": gamma, "rbf": 2.0 * gamma, "matern32": 6.0 * gamma**2}
    scale = factor.get(name, 10.0 * gamma**2)
    Z = Y.T if scale == 1.0 else (Y * dtype(scale)).T
    if name not in ("linear", "polynomial"):
        a, b = _norms(X, scale / 2), _norms(Y, scale / 2)

    def finish(lo, hi):
        tile = out[lo:hi]
        np.matmul(X[lo:hi], Z, out=tile)
        if name == "polynomial":
            _sweep_power(tile, dtype(coef0), degree)
        elif name == "rbf":
            _sweep_rbf(tile, a[lo:hi], b)
        elif name != "linear":
            _sweep_matern(tile, a[lo:hi], b, dtype(0.0 if name == "matern32" else 1 / 3))

    return finish
