"""The lines of the contract table on symmetric factorisation: one sweep, dense and sparse."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .contracts import Contract

SHAPES = ((9, 3), (23, 5), (6, 40), (1, 1), (4, 0), (0, 2))


def _matrix(n: int, dtype: str) -> np.ndarray:
    """Symmetric, with negative entries and a row of zeros: both branches of the cubic, and its limits, are taken."""
    rng = np.random.default_rng(31)
    A = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.4)
    A[n // 2 :, n // 2 :] = 0
    return (np.abs(A + A.T) - 0.3 * (A != 0) * (A.T != 0)).astype(dtype)


def _start(n: int, r: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(32)
    return (rng.random((n, r)) * (rng.random((n, r)) < 0.8)).astype(dtype)


def _scale(*arguments: Any) -> tuple[int, tuple[float, float]]:
    """Errors of the entries before pass on to those after, with the sizes of A and of H H.T as their weights."""
    A, H = arguments[0], arguments[-1]
    squares = float(np.sum(np.square(A, dtype=float)) + np.sum((H.astype(float).T @ H) ** 2))
    return H.size * max(1, len(H)), (1 + squares**0.25, 1 + squares)


def symmetric_contracts() -> Iterator[Contract]:
    """One sweep from random starts, some entries of which are zero."""
    for (n, r), dtype in itertools.product(SHAPES, ("float32", "float64")):

        def dense(n=n, r=r, dtype=dtype):
            return _matrix(n, dtype), _start(n, r, dtype)

        def sparse(index, n=n, r=r, dtype=dtype):
            A = sp.csr_array(_matrix(n, dtype))
            return A.data, A.indices.astype(index), A.indptr.astype(index), _start(n, r, dtype)

        yield Contract("symmetric_sweep", f"{n}x{r}-{dtype}", dense, None, "rounding", _scale)
        for index in ("int32", "int64"):
            build = lambda index=index, sparse=sparse: sparse(index)  # noqa: E731
            yield Contract("csr_symmetric_sweep", f"{n}x{r}-{dtype}-{index}", build, None, "rounding", _scale)
