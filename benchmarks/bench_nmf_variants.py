"""How long do binary factorisation and unmixing take, and how good is what they find?"""

from __future__ import annotations

from typing import Any

import numpy as np

import randla
from randla import datasets, kernels

from .common import Pinned


class BinarySearch(Pinned):
    """Columns of 60 entries: the search with its proof, descents, and all vectors tried by a matrix product."""

    params = (["search", "descents", "all"], [8, 16, 24])
    param_names = ("solver", "rank")

    def setup(self, solver: str, rank: int) -> None:
        self.pin()
        if solver == "all" and rank > 16:
            raise NotImplementedError("too many vectors")
        rng = np.random.default_rng(0)
        W = rng.random((60, rank))
        X = W @ rng.integers(0, 2, (rank, 200)) + rng.random((60, 200))
        self.G, self.B = W.T @ W, W.T @ X
        self.Z, self.starts = np.zeros((rank, 200), np.int8), rng.integers(0, 2, (9, rank)).astype(np.int8)
        self.best = kernels.binary_search(self.G, self.B, self.Z, self.starts, 10**8)[0]
        self.every = ((np.arange(2 ** min(rank, 16))[:, None] >> np.arange(rank)) & 1).astype(float)

    def run(self, solver: str) -> np.ndarray:
        if solver == "all":
            values = np.sum((self.every @ self.G) * self.every, axis=1)[:, None]
            parts = np.array_split(np.arange(self.B.shape[1]), 10)
            chosen = [np.argmin(values - 2 * self.every @ self.B[:, part], axis=0) for part in parts]
            return self.every[np.concatenate(chosen)].T
        nodes = 10**8 if solver == "search" else 0
        return kernels.binary_search(self.G, self.B, self.Z, self.starts, nodes)[0]

    def time_columns(self, solver: str, _: int) -> None:
        self.run(solver)

    def track_error_columns(self, solver: str, _: int) -> float:
        return float(np.mean(np.any(self.run(solver) != self.best, axis=0)))

    track_error_columns.unit = "share of columns that are not best"


class BinaryFactorisation(Pinned):
    """Nonnegative times binary of 200 x 300 entries, all of them known or a third."""

    params = (["nmf", "random"], [1.0, 1 / 3])
    param_names = ("init", "known")

    def setup(self, init: str, known: float) -> None:
        self.pin()
        rng = np.random.default_rng(1)
        X = rng.random((200, 10)) @ rng.integers(0, 2, (10, 300)) + 0.1 * rng.random((200, 300))
        self.X = np.where(rng.random(X.shape) < known, X, np.nan) if known < 1 else X
        self.init = init

    def run(self) -> Any:
        return randla.binary_nmf(self.X, 10, init=self.init, rng=0, on_failure="ignore")

    def time_factorise(self, *_: Any) -> None:
        self.run()

    def track_error_factorise(self, *_: Any) -> float:
        return float(self.run().error)

    track_error_factorise.unit = "error / norm"


class Unmixing(Pinned):
    """120 bands, 40 x 40 pixels, four materials; 20 bad bands or none."""

    params = (["structured", "smooth", "correntropy", "huber", "l21"], [0, 20])
    param_names = ("method", "bad")

    def setup(self, method: str, bad: int) -> None:
        self.pin()
        self.cube = datasets.spectral_cube(120, (40, 40), 4, n_bad_bands=bad, rng=0)
        self.method = method

    def run(self) -> Any:
        options: dict[str, Any] = {"max_iter": 50, "sum_to_one": 5.0, "on_failure": "ignore"}
        if self.method in ("structured", "smooth"):
            strength = 0.3 if self.method == "smooth" else 0.0
            return randla.structured_nmf(self.cube.X, 4, image_shape=(40, 40), smoothness=strength, **options)
        return randla.robust_nmf(self.cube.X, 4, loss=self.method, **options)

    def time_unmix(self, *_: Any) -> None:
        self.run()

    def track_error_unmix(self, *_: Any) -> float:
        found, good = self.run(), np.setdiff1d(np.arange(120), self.cube.bad_bands)
        match = randla.match_endmembers(self.cube.endmembers[good], found.W[good])
        return float(randla.abundance_rmse(self.cube.abundances, found.H, match.order))

    track_error_unmix.unit = "root mean square error of abundances"
