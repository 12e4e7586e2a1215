"""How long do separable, minimum-volume and symmetric factorisations take, and what do they find?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

import randla

from .common import Pinned


class Separable(Pinned):
    """Pure columns among mixtures, with noise."""

    params = ([(200, 5000), (1000, 20_000)], [10, 30], ["spa", "spa-svd", "spa-ellipsoid", "snpa"])
    param_names = ("shape", "rank", "method")

    def setup(self, shape: tuple[int, int], rank: int, method: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        H = np.hstack([rng.dirichlet(np.ones(rank), shape[1] - rank).T, np.eye(rank)])
        self.X = rng.random((shape[0], rank)) @ H + 1e-3 * rng.random(shape)
        self.run(shape, rank, method)

    def run(self, shape: tuple[int, int], rank: int, method: str) -> Any:
        if method == "snpa":
            return randla.snpa(self.X, rank)
        kind = {"spa": None, "spa-svd": "svd", "spa-ellipsoid": "ellipsoid"}[method]
        return randla.spa(self.X, rank, precondition=kind, rng=0)

    def time_find(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_find(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_find(self, *parameters: Any) -> float:
        return self.run(*parameters).error

    track_error_find.unit = "residual / norm"


class LeastVolume(Pinned):
    """Mixtures without pure columns."""

    params = ([(30, 500), (200, 5000)], ["w-columns", "h-columns"])
    param_names = ("shape", "normalization")

    def setup(self, shape: tuple[int, int], normalization: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        H = rng.dirichlet(0.5 * np.ones(5), 2 * shape[1]).T
        self.W = rng.random((shape[0], 5))
        X = self.W @ H[:, H.max(axis=0) < 0.85][:, : shape[1]]
        self.X = np.maximum(X + 2e-3 * rng.standard_normal(X.shape), 0)
        self.run(shape, normalization)

    def run(self, shape: tuple[int, int], normalization: str) -> Any:
        return randla.minvol_nmf(self.X, 5, normalization=normalization, on_failure="ignore")

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        found, truth = (M / np.linalg.norm(M, axis=0) for M in (self.run(*parameters).W, self.W))
        return float(np.arccos(np.clip((found.T @ truth).max(axis=0), -1, 1)).mean())

    track_error_fit.unit = "mean angle to the nearest part"


class Symmetric(Pinned):
    """A sparse graph and a dense product, by both methods."""

    params = (["graph", "dense"], ["coordinate", "anls"])
    param_names = ("matrix", "method")

    def setup(self, matrix: str, method: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        if matrix == "graph":
            S = scipy.sparse.random_array((10_000, 10_000), density=5e-4, rng=rng, format="csr")
            self.A = (S + S.T).tocsr()
        else:
            H = rng.random((1000, 20)) * (rng.random((1000, 20)) < 0.3)
            self.A = H @ H.T
        randla.symmetric_nmf(self.A, 20, method=method, max_iter=1, rng=0, on_failure="ignore")

    def run(self, matrix: str, method: str) -> Any:
        return randla.symmetric_nmf(self.A, 20, method=method, max_iter=20, rng=0, on_failure="ignore")

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        return self.run(*parameters).error

    track_error_fit.unit = "residual / norm"


class Scattered(Pinned):
    """Random columns with three nonzeros: until both conditions are proved."""

    params = ([(6, 200), (8, 200), (10, 300)], ["hull", "branch"])
    param_names = ("shape", "method")

    def setup(self, shape: tuple[int, int], method: str) -> None:
        if method == "hull" and shape[0] > 8:
            raise NotImplementedError("the hull of 300 points in nine dimensions takes minutes")
        self.pin()
        rng, self.H = np.random.default_rng(0), np.zeros(shape)
        for j in range(shape[1]):
            self.H[rng.choice(shape[0], 3, replace=False), j] = rng.dirichlet(np.ones(3))

    def run(self, shape: tuple[int, int], method: str) -> Any:
        return randla.check_ssc(self.H, method=method, thresholds=(1e-10,))

    def time_check(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_check(self, *parameters: Any) -> float:
        """How far above 1 the proof ended."""
        return self.run(*parameters).bound - 1

    track_error_check.unit = "bound - 1"
