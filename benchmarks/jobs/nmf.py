"""Nonnegative factorisations: the time to an error, or to an objective, that the peer reaches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import scipy.sparse as sp

import randla

from .. import customary
from ..common import Sizes
from .contest import Contest, Pair, shape_of, sparse_shape

NEAR = 1.01  # times the bound that the singular values give: a band that counts as reached
GAPS = ((1e-2, 0.5), (3e-3, 0.25), (1e-3, 0.2))  # above the least error found, and the goal there
COUNTS = ((30, 0.6), (100, 0.6))  # iterations of the peer, and the goal to where they end


@lru_cache(maxsize=1)
def planted(m: int, n: int, rank: int, density: float) -> np.ndarray:
    """A product of factors with a share of their entries, and noise of 4 % of its size, kept nonnegative."""
    rng = np.random.default_rng(0)
    W, H = (rng.random(shape) * (rng.random(shape) < density) for shape in ((m, rank), (rank, n)))
    X = W @ H
    return np.abs(X / np.sqrt(np.mean(X**2)) + 0.04 * rng.standard_normal((m, n)))


@lru_cache(maxsize=1)
def faces_like(m: int, n: int) -> np.ndarray:
    """Sums of 60 smooth bumps with sparse weights and noise, as parts of aligned pictures are."""
    rng = np.random.default_rng(1)
    side = int(np.sqrt(m))
    y, x = np.divmod(np.arange(m), side)
    centres, widths = side * rng.random((60, 2)), side * (0.05 + 0.15 * rng.random(60))
    parts = np.exp(-((y[:, None] - centres[:, 0]) ** 2 + (x[:, None] - centres[:, 1]) ** 2) / (2 * widths**2))
    weights = rng.gamma(0.7, size=(60, n)) * (rng.random((60, n)) < 0.4)
    X = parts @ weights
    return np.maximum(X + 0.05 * X.std() * rng.standard_normal(X.shape), 0.0)


@lru_cache(maxsize=1)
def counts(m: int, n: int, n_nonzeros: int) -> sp.csr_array:
    """Counts of a topic model whose words and documents follow power laws."""
    rng = np.random.default_rng(2)
    topics = rng.dirichlet(np.full(50, 0.1), m)
    words = np.stack([rng.permutation(n)[: n // 10] for _ in range(50)])
    rows = np.minimum((m * rng.random(n_nonzeros) ** 1.5).astype(np.int64), m - 1)
    drawn = (topics[rows].cumsum(axis=1) < rng.random(len(rows))[:, None]).sum(axis=1).clip(max=49)
    columns = words[drawn, (words.shape[1] * rng.random(len(rows)) ** 2).astype(np.int64)]
    A = sp.coo_array((np.ones(len(rows)), (rows, columns)), shape=(m, n)).tocsr()
    A.sum_duplicates()
    return A


def begun(X: Any, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform factors of the scale of X, from which both sides start: other starts have other ends."""
    rng, (m, n) = np.random.default_rng(3), X.shape
    size = 2 * np.sqrt(X.sum() / (m * n) / rank)
    return size * rng.random((m, rank)), size * rng.random((rank, n))


def relative_error(X: Any, result: Any) -> float:
    """||X - W H|| / ||X||, nothing of the size of X formed for sparse data."""
    W, H = result
    whole = float(np.sum(X.data**2) if sp.issparse(X) else np.vdot(X, X))
    squares = whole - 2 * float(np.sum((X @ H.T) * W)) + float(np.sum((W.T @ W) * (H @ H.T)))
    return float(np.sqrt(max(squares, 0.0) / whole))


def _ours(X: Any, rank: int, target: float, **options: Any) -> tuple[Any, Any]:
    """randla until its error is `target`."""
    options = {"tol": 0.0, "max_iter": 600, "rng": 0, **options}
    return tuple(randla.nmf(X, rank, callback=lambda step: step.error <= target, on_failure="ignore", **options))


def _peer(X: Any, rank: int, n_iter: int, **options: Any) -> tuple[Any, Any]:
    return customary.sklearn_nmf(X, rank, n_iter, begun(X, rank), **options)


def _iterations(X: Any, rank: int, target: float, most: int = 400, **options: Any) -> int:
    """How many iterations scikit-learn needs to an error: doubling, then bisection over fits from the same start."""
    low, high = 0, 10
    while high < most and relative_error(X, _peer(X, rank, high, **options)) > target:
        low, high = high, 2 * high
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        reached = relative_error(X, _peer(X, rank, middle, **options)) <= target
        low, high = (low, middle) if reached else (middle, high)
    return high


def dense(sizes: Sizes) -> Iterator[Contest]:
    """To within 1 % of what the singular values allow, for parts that overlap little and much."""
    m, n, rank = sizes.nmf_dense
    for density in (0.1, 0.3):
        X = planted(m, n, rank, density)
        squares = np.linalg.eigvalsh(X.T @ X)[::-1]
        target = NEAR * float(np.sqrt(max(squares[rank:].sum(), 0.0) / squares.sum()))
        n_iter = _iterations(X, rank, target)
        name = f"sklearn cd, {n_iter} iterations"
        calls = {
            name: partial(_peer, X, rank, n_iter),
            "randla hals": partial(_ours, X, rank, target, solver="hals"),
            "randla nmf": partial(_ours, X, rank, target),
            "GEMM": partial(np.matmul, X, np.random.default_rng(0).random((n, rank))),
        }
        pairs = [Pair("randla nmf", name, 0.3), Pair("randla hals", name), Pair("randla nmf", "GEMM")]
        yield Contest(
            f"{shape_of(m, n)}, rank {rank}, factors {density:.0%} full", calls, pairs, "relative error",
            lambda result, X=X: relative_error(X, result) if isinstance(result, tuple) else None,
            lambda ours, _, target=target: ours <= 1.001 * target, least=1,
        )  # fmt: skip


def faces(sizes: Sizes) -> Iterator[Contest]:
    """To gaps above the least error that long runs find."""
    m, n, rank = sizes.nmf_faces
    X = faces_like(m, n)
    least = min(
        randla.nmf(X, rank, init="random", solver="hals", tol=0.0, max_iter=600, rng=seed, on_failure="ignore").error
        for seed in range(2)
    )
    for gap, goal in GAPS:
        target = (1 + gap) * least
        n_iter = _iterations(X, rank, target, most=1600)
        name = f"sklearn cd, {n_iter} iterations"
        calls = {
            name: partial(_peer, X, rank, n_iter),
            "randla nmf": partial(_ours, X, rank, target, solver="hals", init=begun(X, rank)),
        }
        yield Contest(
            f"{shape_of(m, n)}, rank {rank}, gap {gap:g}", calls, [Pair("randla nmf", name, goal)], "relative error",
            partial(relative_error, X), lambda ours, _, target=target: ours <= 1.001 * target, least=1,
        )  # fmt: skip


def sparse(sizes: Sizes) -> Iterator[Contest]:
    """To the error that coordinate descent has after given numbers of iterations, from its start and from our own.

    From one start both may end in stationary points of their own, whose errors differ in the fifth digit only: so the
    band that counts as reached is narrower than that.
    """
    m, n, n_nonzeros, rank = sizes.nmf_sparse
    X = counts(m, n, n_nonzeros)
    for n_iter, goal in COUNTS:
        target = relative_error(X, _peer(X, rank, n_iter))
        name = f"sklearn cd, {n_iter} iterations"
        calls = {
            name: partial(_peer, X, rank, n_iter),
            "randla nmf": partial(_ours, X, rank, target, init=begun(X, rank)),
            "randla nmf, own start": partial(_ours, X, rank, target),
        }
        pairs = [Pair("randla nmf", name, goal), Pair("randla nmf, own start", name, goal)]
        yield Contest(
            f"{sparse_shape(m, n, X.nnz)}, rank {rank}", calls, pairs, "relative error", partial(relative_error, X),
            lambda ours, _, target=target: ours <= 1.000001 * target, least=1,
        )  # fmt: skip


def divergence(sizes: Sizes) -> Iterator[Contest]:
    """Kullback-Leibler, to the objective of 200 multiplicative updates."""
    m, n, n_nonzeros, rank = sizes.nmf_sparse
    X = counts(m, n, n_nonzeros)
    name = "sklearn mu, 200 iterations"
    theirs = partial(_peer, X, rank, 200, loss="kullback-leibler")
    target = _divergence(X, theirs())

    def ours() -> tuple[Any, Any]:
        return tuple(
            randla.nmf(
                X, rank, loss="kl", init=begun(X, rank), tol=0.0, max_iter=200, rng=0, on_failure="ignore",
                callback=lambda step: step.objective <= target,
            )
        )  # fmt: skip

    yield Contest(
        f"{sparse_shape(m, n, X.nnz)}, rank {rank}", {name: theirs, "randla nmf, kl": ours},
        [Pair("randla nmf, kl", name, 0.2)], "divergence / that of the peer",
        lambda result: _divergence(X, result) / target, lambda ours, _: ours <= 1.0001, least=1,
    )  # fmt: skip


def _divergence(X: sp.csr_array, result: Any) -> float:
    W, H = result
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    V, model = np.ascontiguousarray(H.T), np.empty(X.nnz)
    for first in range(0, X.nnz, 2**18):
        part = slice(first, first + 2**18)
        model[part] = np.einsum("ij,ij->i", W[rows[part]], V[X.indices[part]])
    return float(np.sum(X.data * np.log(X.data / np.maximum(model, 1e-300)) - X.data) + W.sum(axis=0) @ H.sum(axis=1))
