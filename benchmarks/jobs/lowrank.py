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
