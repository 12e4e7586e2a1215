"""Low-rank factorisations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import randla

from .. import customary
from ..common import RANK, Sizes, matrix_of_spectrum, skewed_csr, spectrum
from .contest import Contest, Pair, shape_of, sparse_shape

SAME = 1e-12  # largest relative difference of singular values that counts as none
ID_ERROR = 2.2  # error that a decomposition by columns may have, in the same way
OPTIMAL = 1.004  # error that a dense SVD may have, as a multiple of the least possible


def svd_dense(sizes: Sizes) -> Iterator[Contest]:
    m, n = sizes.dense
    for name in ("poly", "exp"):
        A = matrix_of_spectrum(m, n, name)
        least = float(np.linalg.norm(spectrum(name, n)[RANK:]))

        def over_optimal(result: Any, A: np.ndarray = A, least: float = least) -> float:
            U, s, Vh = result
            return float(np.linalg.norm(A - (U * s) @ Vh)) / least

        calls = {
            "sklearn randomized_svd, n_iter=2": partial(customary.sklearn_svd, A, RANK),
            "sklearn randomized_svd, n_iter=2, QR": partial(customary.sklearn_svd, A, RANK, "QR"),
            "fbpca pca, n_iter=2": partial(customary.fbpca_svd, A, RANK),
            "randla svd": partial(randla.svd, A, RANK, rng=0),
        }
        pairs = [
            Pair("randla svd", "sklearn randomized_svd, n_iter=2", 0.8),
            Pair("randla svd", "sklearn randomized_svd, n_iter=2, QR", 0.8),
            Pair("randla svd", "fbpca pca, n_iter=2"),
        ]
        size = f"{shape_of(m, n)}, spectrum {name}, rank {RANK}"
        yield Contest(size, calls, pairs, "error / optimal", over_optimal, lambda ours, _: ours <= OPTIMAL)


def svd_sparse(sizes: Sizes) -> Iterator[Contest]:
    m, n, n_nonzeros = sizes.sparse
    A = skewed_csr(m, n, n_nonzeros)

    def captured(result: Any) -> float:
        U = np.asarray(result[0] if isinstance(result, tuple) else result.U)
        return float(np.linalg.norm(A.T @ U)) ** 2  # of an orthonormal U, so a bound from below on what is there

    calls = {
        "sklearn randomized_svd, n_iter=2": partial(customary.sklearn_svd, A, RANK),
        "fbpca pca, n_iter=2": partial(customary.fbpca_svd, A, RANK),
        "scipy svds, exact": partial(customary.arpack_svd, A, RANK),
        "randla svd": partial(randla.svd, A, RANK, rng=0),
    }
    pairs = [
        Pair("randla svd", "sklearn randomized_svd, n_iter=2", 0.5),
        Pair("randla svd", "fbpca pca, n_iter=2"),
        Pair("randla svd", "scipy svds, exact"),
    ]
    size = f"{sparse_shape(m, n, n_nonzeros)}, rank {RANK}"
    yield Contest(size, calls, pairs, "captured energy", captured, lambda ours, peer: ours >= peer, least=2)


def interpolative(sizes: Sizes) -> Iterator[Contest]:
    """A hundred columns that stand for all."""
    m, n, rank = sizes.interpolative
    for name in ("exp", "poly"):
        A = matrix_of_spectrum(m, n, name)
        least = float(np.linalg.norm(spectrum(name, n)[rank:]))

        def over_optimal(result: Any, A: np.ndarray = A, least: float = least) -> float:
            columns, X = result
            return float(np.linalg.norm(A - A[:, np.asarray(columns)] @ np.asarray(X))) / least

        calls = {
            "scipy interp_decomp": partial(customary.interp_decomp, A, rank),
            "randla interpolative": partial(randla.interpolative, A, rank, rng=0),
        }
        pairs = [Pair("randla interpolative", "scipy interp_decomp", 0.15)]
        size = f"{shape_of(m, n)}, spectrum {name}, rank {rank}"
        yield Contest(size, calls, pairs, "error / optimal", over_optimal, lambda ours, _: ours <= ID_ERROR, least=2)


def svd_update(_: Sizes) -> Iterator[Contest]:
    """Twenty batches of ten sparse rows, appended to a truncated SVD."""
    from ..bench_updating import BATCH, COLUMNS, DENSITY, STORED, begun, follow, follow_densely, stream

    for rank, goal in ((16, 0.1), (64, 0.2)):
        rows = stream(STORED + 20 * BATCH, COLUMNS, DENSITY)[STORED:]
        batches = [rows[lo : lo + BATCH] for lo in range(0, 20 * BATCH, BATCH)]
        begun(rank)  # the same start for both, made once
        calls = {
            "Zha and Simon, dense factors": partial(follow_densely, rank, batches),
            "randla UpdatableSVD": partial(follow, rank, batches),
        }
        pairs = [Pair("randla UpdatableSVD", "Zha and Simon, dense factors", goal)]
        exact = follow_densely(rank, batches)[1]

        def off(result: Any, exact: np.ndarray = exact) -> float:
            values = result[1] if isinstance(result, tuple) else result.s
            return float(np.abs(values / exact - 1).max())

        size = f"20,000 columns, 20 batches of 10 rows, rank {rank}"
        yield Contest(size, calls, pairs, "off the dense update's", off, lambda ours, _: ours <= SAME)


def nystroem(sizes: Sizes) -> Iterator[Contest]:
    """Features of a Gaussian kernel."""
    m, d, rank = sizes.kernel
    X = np.random.default_rng(4).standard_normal((m, d))
    K = np.exp(-((X[:500, None, :] - X[None, :500, :]) ** 2).sum(axis=2) / d)

    def kernel_error(Z: Any) -> float:
        return float(np.linalg.norm(Z[:500] @ Z[:500].T - K) / np.linalg.norm(K))

    calls = {
        "sklearn Nystroem": partial(customary.sklearn_nystroem, X, rank),
        "randla Nystroem": lambda: randla.Nystroem(n_components=rank, gamma=1.0 / d, random_state=0).fit_transform(X),
        "randla Nystroem, rpcholesky": lambda: randla.Nystroem(
            n_components=rank, gamma=1.0 / d, selection="rpcholesky", random_state=0
        ).fit_transform(X),
    }
    pairs = [
        Pair("randla Nystroem", "sklearn Nystroem", 0.5),
        Pair("randla Nystroem, rpcholesky", "sklearn Nystroem"),
    ]
    yield Contest(f"{shape_of(m, d)}, {rank} components", calls, pairs, "kernel error", kernel_error, least=2)
