"""Copies of nonnegative data that differ by small noise, the same for dense and sparse containers; entries hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device as device_of
from array_api_compat import is_array_api_obj

from .._arrays import as_matrix, floating_dtype, from_host, is_complex, is_sparse, namespace_of, to_host
from .._random import Key, Stream
from ..sampling.selection import shared_uniforms

NOISES = ("uniform", "poisson")


def perturbed(X: Any, kind: str, noise: float, key: Key, *, symmetric: bool = False) -> Any:
    """A copy of X, or of each matrix of a list, with noise; NaN and zeros stay.

    "uniform" multiplies an entry by ``1 + noise (2 u - 1)``, u uniform on (0, 1): the factor has the mean one.
    "poisson" draws a count of which the entry is the mean.  u depends on the key and the place of the entry only; with
    `symmetric`, (i, j) and (j, i) share it.
    """
    if isinstance(X, (list, tuple)) and any(is_sparse(S) or is_array_api_obj(S) for S in X):
        return [perturbed(S, kind, noise, key.fold(i)) for i, S in enumerate(X)]
    if not is_sparse(X) and getattr(X, "ndim", 2) == 3:
        return namespace_of(X).stack([perturbed(X[i, :, :], kind, noise, key.fold(i)) for i in range(X.shape[0])])
    A = as_matrix(X, name="X")
    if is_complex(A.dtype):
        raise TypeError(f"X must be real, got {A.dtype}")
    xp = namespace_of(A)
    if not is_sparse(A):
        shape = tuple(A.shape)
        rows = xp.arange(shape[0], dtype=xp.int64, device=device_of(A))[:, None]
        columns = xp.arange(shape[1], dtype=xp.int64, device=device_of(A))[None, :]
        values = xp.reshape(xp.astype(A, floating_dtype(A, xp), copy=False), (-1,))
        numbers = xp.reshape(_numbers(rows, columns, shape[1], symmetric, xp), (-1,))
        return xp.reshape(_noisy(values, numbers, kind, noise, key, xp), shape)
    csr = A.tocsr().copy()
    csr.sum_duplicates()
    numbered = xp.arange(int(csr.nnz), dtype=xp.int64)
    rows = xp.searchsorted(csr.indptr[1:], numbered, side="right")
    numbers = _numbers(xp.astype(rows, xp.int64), xp.astype(csr.indices, xp.int64), csr.shape[1], symmetric, xp)
    values = _noisy(xp.astype(csr.data, floating_dtype(csr.data, xp)), numbers, kind, noise, key, xp)
    return type(csr)((values, csr.indices, csr.indptr), shape=csr.shape)


def _numbers(rows: Any, columns: Any, n: int, symmetric: bool, xp: Any) -> Any:
    """The number of each place."""
    if symmetric:
        rows, columns = xp.where(rows < columns, rows, columns), xp.where(rows < columns, columns, rows)
    return rows * n + columns


def _noisy(values: Any, numbers: Any, kind: str, noise: float, key: Key, xp: Any) -> Any:
    u = shared_uniforms(key, numbers, xp, Stream.SAMPLE)
    if kind == "uniform":
        return values * xp.astype(1 + noise * (2 * u - 1), values.dtype)
    from scipy.stats import poisson

    means, shares = to_host(values).astype(np.float64), to_host(u)
    counts = np.where(means > 0, poisson.ppf(shares, np.where(means > 0, means, 1.0)), means)  # NaN stays
    return xp.astype(from_host(counts, xp, values), values.dtype)


def hidden(X: Any, fraction: float, key: Key) -> tuple[Any, Any]:
    """A stack with NaN in about a share of its known entries, and where those are."""
    xp = namespace_of(X)
    numbers = xp.arange(int(np.prod(X.shape)), dtype=xp.int64, device=device_of(X))
    u = xp.reshape(shared_uniforms(key, numbers, xp, Stream.SAMPLE), X.shape)
    X = xp.astype(X, floating_dtype(X, xp))
    chosen = (u < fraction) & ~xp.isnan(X)
    return xp.where(chosen, xp.full_like(X, float("nan")), X), chosen
