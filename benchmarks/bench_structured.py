"""How long do weighted and structured approximations take, and what error do they leave?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from randla.structured import (
    GramAccumulator,
    OrthobasisProjector,
    compress_pair_cr,
    compress_pair_nystrom,
    compress_pair_svd,
    hadamard_projections,
    hierarchical_factorize,
    monarch_project,
    weighted_low_rank,
    weighted_svd,
)

from .common import Pinned


class WeightedEntries(Pinned):
    """Low rank with a weight for each entry, to a given stopping tolerance."""

    params = ([(500, 400), (2000, 1000)], [10, 30], ["als", "em"])
    param_names = ("shape", "rank", "method")

    def setup(self, shape: tuple[int, int], rank: int, method: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        self.A, self.W = rng.standard_normal(shape), rng.random(shape) ** 2

    def run(self, shape: tuple[int, int], rank: int, method: str) -> Any:
        return weighted_low_rank(self.A, self.W, rank, method=method, max_iter=50, tol=1e-5, on_failure="ignore")

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        return self.run(*parameters).error

    track_error_fit.unit = "weighted residual / norm"


class WeightedRows(Pinned):
    """Low rank with weights of rows, exact and by a sketch."""

    params = ([(2000, 1000), (20_000, 500)], ["exact", "randomized"])
    param_names = ("shape", "method")

    def setup(self, shape: tuple[int, int], method: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        self.A = rng.standard_normal((shape[0], 100)) @ rng.standard_normal((100, shape[1]))
        self.A += rng.standard_normal(shape)
        self.weights = rng.random(shape[0])

    def run(self, method: str) -> Any:
        return weighted_svd(self.A, 20, row_weights=self.weights, method=method, rng=0)

    def time_svd(self, shape: tuple[int, int], method: str) -> None:
        self.run(method)

    def track_error_svd(self, shape: tuple[int, int], method: str) -> float:
        return self.run(method).error

    track_error_svd.unit = "weighted residual / norm"


class Monarch(Pinned):
    """Projection onto the Monarch matrices, and products with 64 vectors beside those of the dense matrix."""

    params = ([256, 1024, 4096],)
    param_names = ("n",)

    def setup(self, n: int) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        self.A, self.X = rng.standard_normal((n, n)), rng.standard_normal((n, 64))
        self.M = monarch_project(self.A)

    def time_project(self, n: int) -> None:
        monarch_project(self.A)

    def time_product(self, n: int) -> None:
        self.M.matmul(self.X)

    def time_dense_product(self, n: int) -> None:
        self.A @ self.X

    def track_error_project(self, n: int) -> float:
        return self.M.error

    track_error_project.unit = "residual / norm"


class Butterflies(Pinned):
    """A Hadamard matrix from its entries to its butterflies."""

    params = ([16, 32, 64, 128],)
    param_names = ("n",)

    def setup(self, n: int) -> None:
        self.pin()
        self.H = scipy.linalg.hadamard(n).astype(float)

    def time_factorize(self, n: int) -> None:
        hierarchical_factorize(self.H, *hadamard_projections(n))

    def track_error_factorize(self, n: int) -> float:
        return hierarchical_factorize(self.H, *hadamard_projections(n)).error

    track_error_factorize.unit = "residual / norm"


class FixedBasis(Pinned):
    """The choice of 64 columns of a basis for random walks, beside a singular value decomposition."""

    params = (["dct", "hadamard", "haar", "svd"],)
    param_names = ("basis",)

    def setup(self, basis: str) -> None:
        self.pin()
        self.G = np.cumsum(np.random.default_rng(0).standard_normal((4096, 1024)), axis=1)

    def run(self, basis: str) -> float:
        if basis == "svd":
            s = np.linalg.svd(self.G, compute_uv=False)
            return float(np.linalg.norm(s[64:]) / np.linalg.norm(s))
        return OrthobasisProjector(basis, 64).fit(self.G).error_

    def time_fit(self, basis: str) -> None:
        self.run(basis)

    def track_error_fit(self, basis: str) -> float:
        return self.run(basis)

    track_error_fit.unit = "residual / norm"


class Pairs(Pinned):
    """Half of the hidden width of a pair, by each method."""

    params = (["greedy", "qr", "ridge_leverage", "rpcholesky", "cr", "svd"],)
    param_names = ("method",)

    def setup(self, method: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        X = rng.standard_normal((4000, 256)) * np.arange(1, 257) ** -0.5
        self.W_in, self.W_out = rng.standard_normal((256, 1024)), rng.standard_normal((1024, 256))
        self.hidden = GramAccumulator(1024).update(np.maximum(X @ self.W_in, 0))
        self.gram = X.T @ X
        self.keys = self.W_in.T @ self.gram @ self.W_in

    def run(self, method: str) -> float:
        if method == "cr":
            return compress_pair_cr(self.W_in, self.W_in, self.keys, self.keys, 512).error
        if method == "svd":
            return compress_pair_svd(self.W_in, self.W_out, self.gram, 128).error
        return compress_pair_nystrom(self.W_in, self.W_out, self.hidden, 512, selection=method, rng=0).error

    def time_compress(self, method: str) -> None:
        self.run(method)

    def track_error_compress(self, method: str) -> float:
        return self.run(method)

    track_error_compress.unit = "change of the output / output"
