"""Sketches of tall matrices, their random words, and products of sparse matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

import randla
from randla import kernels
from randla._random import Stream

from .. import customary
from ..common import OVERSAMPLING, PANEL, Sizes, distortion, product_error, skewed_csr, tall_matrix
from .contest import Contest, Pair, shape_of, sparse_shape

SKETCH_ERROR = "distortion"
Build = Callable[[np.ndarray, int, Any], tuple[dict[str, Callable[[], Any]], list[Pair]]]  # of A, sketch_size, goal


def _sketches(sizes: Sizes, goals: Sequence[Any], build: Build) -> Iterator[Contest]:
    for (m, d), goal in zip(sizes.tall, goals, strict=True):
        A = tall_matrix(m, d)
        calls, pairs = build(A, OVERSAMPLING * d, goal)
        yield Contest(shape_of(m, d), calls, pairs, SKETCH_ERROR, distortion(A))


def countsketch(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls = {
            "scipy clarkson_woodruff_transform": lambda: customary.countsketch(A, sketch_size),
            "randla CountSketch": lambda: randla.CountSketch(sketch_size, len(A), rng=0) @ A,
        }
        return calls, [Pair("randla CountSketch", "scipy clarkson_woodruff_transform", goal)]

    return _sketches(sizes, (0.5, 0.7), build)


def sparse_sign(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goals: tuple[float, float]) -> tuple[dict[str, Any], list[Pair]]:
        S, ours = customary.sparse_sign_matrix(sketch_size, len(A), 8), "randla SparseSign nnz 8"
        calls = {
            "numpy sampling, scipy csc @ A": lambda: customary.sparse_sign(A, sketch_size),
            "scipy csc @ A alone": lambda: S @ A,
            ours: lambda: randla.SparseSign(sketch_size, len(A), nnz=8, rng=0) @ A,
        }
        return calls, [
            Pair(ours, "numpy sampling, scipy csc @ A", goals[0]), Pair(ours, "scipy csc @ A alone", goals[1])
        ]  # fmt: skip

    return _sketches(sizes, ((0.5, 1.0), (0.5, 1.0)), build)


def srht(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls: dict[str, Any] = {}
        pairs = []
        for rounds in (1, 2):
            number = "1 round" if rounds == 1 else f"{rounds} rounds"
            peer, ours = f"signs, scipy dct, sample, {number}", f"randla SRHT, {number}"
            calls[peer] = partial(customary.cosine_transform, A, sketch_size, rounds)
            calls[ours] = partial(lambda r: randla.SRHT(sketch_size, len(A), rounds=r, rng=0) @ A, rounds)
            pairs.append(Pair(ours, peer, goal))
        return calls, pairs

    return _sketches(sizes, (0.35, 0.2), build)


def gaussian(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls = {
            "numpy normals and product by blocks": lambda: customary.gaussian(A, sketch_size),
            "randla Gaussian": lambda: randla.Gaussian(sketch_size, len(A), rng=0) @ A,
        }
        return calls, [Pair("randla Gaussian", "numpy normals and product by blocks", goal)]

    return _sketches(sizes, (0.5, 0.8), build)


def philox(sizes: Sizes) -> Iterator[Contest]:
    key, n = randla.as_key(0), sizes.words // 4
    expected = kernels.reference.philox_words(key, Stream.SPARSE_SIGN, 0, 1024, 1)
    calls = {
        "numpy Philox.random_raw": lambda: np.random.Philox(0).random_raw(sizes.words // 2),
        "randla philox_words": lambda: kernels.philox_words(key, Stream.SPARSE_SIGN, 0, n, 1),
    }

    def wrong_words(words: np.ndarray) -> float | None:
        # NumPy's generator is another variant (4x64): only ours has these known words
        return float(np.sum(words[:1024] != expected)) if words.ndim == 2 else None

    pairs = [Pair("randla philox_words", "numpy Philox.random_raw", 400e6, "rate")]
    yield Contest(
        f"{sizes.words:.1e} words".replace("e+0", "e"), calls, pairs, "wrong words", wrong_words, None, sizes.words
    )


def csr_product(sizes: Sizes) -> Iterator[Contest]:
    """A panel of 60 columns by a sparse matrix and by its transpose."""
    for (m, n, n_nonzeros), goal in zip(sizes.csr, (0.6, 0.45), strict=True):
        A, rng = skewed_csr(m, n, n_nonzeros), np.random.default_rng(3)
        X, Y = rng.standard_normal((n, PANEL)), rng.standard_normal((m, PANEL))
        calls = {
            "scipy csr @ X": lambda A=A, X=X: A @ X,
            "randla csr_matmul": lambda A=A, X=X: kernels.csr_matmul(A.data, A.indices, A.indptr, X),
        }
        pairs = [Pair("randla csr_matmul", "scipy csr @ X", goal)]
        yield Contest("A @ X, " + sparse_shape(m, n, n_nonzeros), calls, pairs, "relative error", product_error(A, X))
        calls = {
            "scipy csr.T @ Y": lambda A=A, Y=Y: A.T @ Y,
            "randla csr_rmatmul": lambda A=A, Y=Y: kernels.csr_rmatmul(A.data, A.indices, A.indptr, Y, A.shape[1]),
        }
        pairs = [Pair("randla csr_rmatmul", "scipy csr.T @ Y", goal)]
        yield Contest(
            "A.T @ Y, " + sparse_shape(m, n, n_nonzeros), calls, pairs, "relative error", product_error(A.T.tocsr(), Y)
        )
