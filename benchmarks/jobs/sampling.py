"""Leverage scores, products of tables that never meet, and sketches of a polynomial kernel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import randla

from .. import customary
from ..common import Sizes, matrix_of_scores, tables, tensor_points
from .contest import Contest, Pair, shape_of

MAY_BE_WRONG = {1e3: 1e-10, 1e8: 1e-6}  # relative error of a score, by condition number
DENSITIES = (0.01, 0.04, 0.16)
SAMPLED = 400  # rows that a sampler keeps of each table
NNZ = 4  # of a column of the sparse sign matrix: a sketch as small as here has few rows
DEGREE = 2


def leverage(sizes: Sizes) -> Iterator[Contest]:
    """All scores of a tall matrix, well and badly conditioned."""
    for cond, allowed in MAY_BE_WRONG.items():
        A, exact = matrix_of_scores(*sizes.scores, cond)
        calls = {
            "scipy qr, row norms": partial(customary.leverage_by_qr, A),
            "randla leverage_scores": partial(randla.leverage_scores, A, rng=0),
        }
        pairs = [Pair("randla leverage_scores", "scipy qr, row norms", 0.2)]
        if cond < 1e4:  # beyond, it fails
            calls["numpy Gram, product by blocks"] = partial(customary.leverage_by_gram, A)
            calls["randla leverage_scores, gram"] = partial(randla.leverage_scores, A, method="gram")
            pairs += [
                Pair("randla leverage_scores", "numpy Gram, product by blocks"),
                Pair("randla leverage_scores, gram", "numpy Gram, product by blocks"),
            ]

        def worst(scores: np.ndarray, exact: np.ndarray = exact) -> float:
            return float(np.abs(np.asarray(scores) / exact - 1).max())

        size = f"{shape_of(*A.shape)}, cond {cond:.0e}".replace("e+0", "e")
        yield Contest(
            size, calls, pairs, "score error", worst, lambda ours, _, allowed=allowed: ours <= allowed, least=2
        )


def products(sizes: Sizes) -> Iterator[Contest]:
    """``A.T @ B`` from sketches that were made apart: errors at equal storage."""
    m, p, q, n_keys = sizes.tables
    for density in DENSITIES:
        A, B = tables(m, (p, q), density)
        exact = (A.T @ B).toarray()
        norms = np.linalg.norm(A.data) * np.linalg.norm(B.data)
        k = min(SAMPLED, m // 5)
        # the index of a column is half a word, and a row that was kept has its key; a sketch is dense
        sampler = randla.PrioritySampler(k, rng=0)
        words = sampler.sketch(A).n_words + sampler.sketch(B).n_words
        sketch_size = NNZ * max(1, round(words / (p + q) / NNZ))

        def median_error(estimates: list[Any], exact: np.ndarray = exact, norms: float = norms) -> float:
            dense = (W.toarray() if hasattr(W, "toarray") else np.asarray(W) for W in estimates)
            return float(np.median([np.linalg.norm(W - exact) / norms for W in dense]))

        ours = "randla PrioritySampler"
        calls = {
            "scipy clarkson_woodruff_transform": partial(_each, n_keys, customary.countsketch, A, B, sketch_size),
            "numpy sampling, sparse signs": partial(_each, n_keys, customary.sparse_sign, A, B, sketch_size, nnz=NNZ),
            "randla SparseSign": lambda A=A, B=B, d=sketch_size: [
                (S @ A).T @ (S @ B) for S in (randla.SparseSign(d, A.shape[0], nnz=NNZ, rng=i) for i in range(n_keys))
            ],
            ours: lambda A=A, B=B, k=k: [_sampled(A, B, k, i) for i in range(n_keys)],
        }
        pairs = [Pair(ours, peer, 0.2, "error") for peer in calls if peer != ours]
        zero = float(np.linalg.norm(exact) / norms)
        size = (
            f"{m:,} rows, {p} and {q} columns, density {density:g}, keeps {k} rows, as much as a sketch of "
            f"{sketch_size}; W = 0 has {zero:.2f}"
        )
        yield Contest(size, calls, pairs, "product error", median_error, least=1)


def _sampled(A: Any, B: Any, k: int, seed: int) -> Any:
    sampler = randla.PrioritySampler(k, rng=seed)
    return randla.estimate_product(sampler.sketch(A), sampler.sketch(B)).value


def _each(n_keys: int, sketch: Any, A: Any, B: Any, sketch_size: int, **kwargs: Any) -> list[Any]:
    """The products of the sketches of A and B for each key."""
    return [
        sketch(A, sketch_size, seed=i, **kwargs).T @ sketch(B, sketch_size, seed=i, **kwargs) for i in range(n_keys)
    ]


def tensor_sketch(sizes: Sizes) -> Iterator[Contest]:
    """Features whose inner products are those of the polynomial kernel."""
    m, n, n_components = sizes.tensor
    X = tensor_points(m, n)
    head = X[:500]
    kernel = (head @ head.T) ** DEGREE

    def kernel_error(Z: np.ndarray) -> float:
        return float(np.linalg.norm(Z[:500] @ Z[:500].T - kernel) / np.linalg.norm(kernel))

    ours = partial(randla.PolynomialTensorSketch, n_components=n_components, degree=DEGREE, random_state=0)
    calls = {
        "sklearn PolynomialCountSketch": partial(customary.polynomial_sketch, X, DEGREE, n_components),
        "randla PolynomialTensorSketch": lambda: ours().fit_transform(X),
    }
    pairs = [Pair("randla PolynomialTensorSketch", "sklearn PolynomialCountSketch", 1.0)]
    size = f"{shape_of(m, n)}, degree {DEGREE}, {n_components} features"
    yield Contest(size, calls, pairs, "kernel error", kernel_error, lambda ours, peer: ours <= 1.25 * peer)
