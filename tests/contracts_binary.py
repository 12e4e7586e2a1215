"""The lines of the contract table on binary least squares: proved results, and descents alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .contracts import Contract

#: entries of a vector, columns, starts, rows of the design: full rank and not, one and no entry, one and no column
SHAPES = ((1, 9, 0, 4), (5, 40, 2, 30), (7, 21, 0, 30), (7, 21, 3, 4), (9, 1, 1, 12), (0, 4, 2, 3), (4, 0, 1, 6))
NODES = (0, 10**6)


def _design(rng: np.random.Generator, p: int, k: int, dtype: str) -> np.ndarray:
    V = rng.random((p, k))
    if k > 2:  # nearly alike: one takes the place of the other by two changes at once
        V[:, 1] = 0.9 * V[:, 0] + 0.1 * V[:, 1]
    V[:, k // 2] *= 5  # so that the search takes the entries in another order than they come
    return V.astype(dtype)


def _dense(k: int, n: int, s: int, p: int, dtype: str, max_nodes: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(41)
    W = _design(rng, p, k + 1, dtype)[:, :k]
    X = (W.sum(axis=1, keepdims=True) * rng.random((p, n))).astype(dtype)
    Z, starts = (rng.integers(0, 2, shape).astype(np.int8) for shape in ((k, n), (s, k)))
    return W.astype(float).T @ W.astype(float), W.T @ X, Z, starts, max_nodes


def _masked(k: int, n: int, s: int, p: int, dtype: str, max_nodes: int, index: str, weighted: bool) -> tuple[Any, ...]:
    """Rows with no entry, one, and up to all of them."""
    rng = np.random.default_rng(42)
    V = _design(rng, p, k + 1, dtype)[:, :k].copy()
    lengths = np.array([0, 1, *rng.integers(0, p + 1, max(0, n - 2))][:n], int)
    indices = np.concatenate([*(rng.permutation(p)[:length] for length in lengths), np.zeros(0, int)]).astype(index)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
    weights = (0.1 + rng.random(indices.size)).astype(dtype) if weighted else None
    targets = (k * rng.random(indices.size)).astype(dtype)
    Z, starts = (rng.integers(0, 2, shape).astype(np.int8) for shape in ((n, k), (s, k)))
    return V, indices, indptr, weights, targets, Z, starts, max_nodes


def binary_contracts() -> Iterator[Contract]:
    """Random problems, whose best vectors are no ties."""
    for (shape, dtype), max_nodes in itertools.product(itertools.product(SHAPES, ("float32", "float64")), NODES):
        name = f"{'x'.join(map(str, shape))}-{dtype}-{max_nodes}"
        arguments = *shape, dtype, max_nodes
        yield Contract("binary_search", name, lambda a=arguments: _dense(*a), None, "bitwise")
        for index, weighted in (("int32", False), ("int64", True)):
            build = lambda a=(*arguments, index, weighted): _masked(*a)  # noqa: E731
            yield Contract("masked_binary_search", f"{name}-{index}", build, None, "bitwise")
