"""How long do relational and private factorisations take, and how close do they come?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from randla.nonnegative.ciphers import PaillierCipher, PlainCipher
from randla.nonnegative.distributed import ConsensusNMF
from randla.nonnegative.rescal import RescalResult, rescal_nmf
from randla.nonnegative.stability import RankCurve, select_rank

from .common import Pinned


def stack(t: int, n: int, k: int, density: float) -> Any:
    """Relations of k groups with 10 % noise; sparse where the density is below one."""
    rng = np.random.default_rng(0)
    A = rng.random((n, k)) * (rng.random((n, k)) < 0.5)
    X = A @ rng.random((t, k, k)) @ A.T
    X = X * (1 + 0.1 * (2 * rng.random(X.shape) - 1))
    return X if density >= 1 else [sp.csr_array(S * (rng.random(S.shape) < density)) for S in X]


class Rescal(Pinned):
    """A fixed number of iterations of both solvers, which cost the same products; errors say what they are worth."""

    params = ([(12, 60, 4, 1.0), (20, 200, 8, 1.0), (6, 1000, 8, 0.02)], ["sweeps", "mu"])
    param_names = ("shape", "solver")

    def setup(self, shape: tuple[int, int, int, float], solver: str) -> None:
        self.pin()
        self.X, self.rank = stack(*shape), shape[2]
        self.run(solver, 2)

    def run(self, solver: str, max_iter: int = 50) -> RescalResult:
        return rescal_nmf(self.X, self.rank, solver=solver, max_iter=max_iter, tol=0.0, rng=0, on_failure="ignore")

    def time_fit(self, shape: tuple[int, int, int, float], solver: str) -> None:
        self.run(solver)

    def peakmem_fit(self, shape: tuple[int, int, int, float], solver: str) -> None:
        self.run(solver)

    def track_error_fit(self, shape: tuple[int, int, int, float], solver: str) -> float:
        return self.run(solver).error

    track_error_fit.unit = "relative error"


class Stability(Pinned):
    """The choice between two and five groups where there are three."""

    def setup(self) -> None:
        self.pin()
        groups = np.exp(-0.5 * ((np.arange(60)[:, None] - [10, 30, 50]) / 7) ** 2)
        self.X = groups @ np.random.default_rng(0).random((12, 3, 3)) @ groups.T

    def run(self) -> RankCurve:
        options = {"max_iter": 100, "tol": 1e-4}
        return select_rank(self.X, range(2, 6), model="rescal", n_perturbations=5, options=options, rng=0)

    def time_choice(self) -> None:
        self.run()

    def track_error_choice(self) -> float:
        return float(abs(self.run().chosen - 3))

    track_error_choice.unit = "ranks off"


class Consensus(Pinned):
    """Eight agents on a ring with two chords, in the clear."""

    def setup(self) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        W = rng.random((30, 4))
        self.blocks = [W @ rng.random((4, 25)) + 0.01 * rng.random((30, 25)) for _ in range(8)]
        self.graph = [(i, (i + 1) % 8) for i in range(8)] + [(0, 4), (2, 6)]

    def run(self) -> Any:
        model = ConsensusNMF(4, self.graph, max_iter=50, tol=0.0, rng=0)
        return model.fit(self.blocks, on_failure="ignore")

    def time_fit(self) -> None:
        self.run()

    def track_error_fit(self) -> float:
        return float(self.run().error)

    track_error_fit.unit = "relative error"


class Messages(Pinned):
    """Offer, answer and decryption of 20 values."""

    params = (["plain", "paillier 512", "paillier 2048"],)
    param_names = ("cipher",)

    def setup(self, cipher: str) -> None:
        self.pin()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.keys = (PlainCipher() if cipher == "plain" else PaillierCipher(int(cipher.split()[1]))).new_keys()
        self.values = [(-3) ** i for i in range(20)]

    def run(self) -> list[int]:
        public = self.keys.public
        return self.keys.decrypt(public.affine(public.encrypt(self.values), [2**24 + 1] * 20, [7] * 20))

    def time_exchange(self, cipher: str) -> None:
        self.run()

    def track_error_exchange(self, cipher: str) -> float:
        expected = [value * (2**24 + 1) + 7 for value in self.values]
        return float(max(abs(a - b) for a, b in zip(self.run(), expected, strict=True)))

    track_error_exchange.unit = "integers off"
