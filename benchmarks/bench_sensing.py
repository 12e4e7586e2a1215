"""How long does recovery from linear measurements take, and what error does it leave?"""

from __future__ import annotations

from typing import Any

import numpy as np

import randla

from .common import Pinned


def low_rank(shape: tuple[int, int], rank: int, condition: float = 1.0) -> np.ndarray:
    """A matrix with singular values from 1 to 1 / condition."""
    rng = np.random.default_rng(0)
    P, Q = (np.linalg.qr(rng.standard_normal((side, rank)))[0] for side in shape)
    return (P * np.geomspace(1.0, 1.0 / condition, rank)) @ Q.T


class Robust(Pinned):
    """A tenth of the measurements wrong: Gaussian ones, entries, and of rank one."""

    params = (["gaussian", "entries", "rank one"], [1, 2])
    param_names = ("measurements", "surplus")

    def setup(self, measurements: str, surplus: int) -> None:
        self.pin()
        rng = np.random.default_rng(1)
        if measurements == "gaussian":
            self.X = low_rank((40, 40), 3)
            self.A: Any = randla.GaussianMeasurements((40, 40), 2_000, rng=0)
        elif measurements == "entries":
            if surplus > 1:
                raise NotImplementedError("entries with outliers need the true rank")
            self.X = 500 * low_rank((600, 400), 3)
            self.A = randla.EntryMeasurements(*np.nonzero(rng.random((600, 400)) < 0.2), (600, 400))
        else:
            self.X = low_rank((200, 200), 3)
            self.A = randla.RankOneMeasurements(*rng.standard_normal((2, 6_000, 200)))
        self.rank = 3 * surplus
        self.y = self.A.apply(self.X)
        wrong = rng.random(len(self.y)) < 0.1
        self.y[wrong] += 10 * self.y.std() * rng.standard_normal(wrong.sum())

    def run(self) -> Any:
        return randla.subgradient_recovery(self.A, self.y, self.rank, max_iter=2_000, on_failure="ignore")

    def time_recover(self, *_: Any) -> None:
        self.run()

    def peakmem_recover(self, *_: Any) -> None:
        self.run()

    def track_error_recover(self, *_: Any) -> float:
        return float(np.linalg.norm(self.run().to_dense() - self.X) / np.linalg.norm(self.X))

    track_error_recover.unit = "error / norm"


class Descent(Pinned):
    """Clean measurements, condition numbers 1 and 100, rank three for three and twice that."""

    params = (["scaled", "once", "plain"], [1.0, 100.0], [3, 6])
    param_names = ("rebalance", "condition", "rank")

    def setup(self, rebalance: str, condition: float, rank: int) -> None:
        self.pin()
        self.X = low_rank((60, 40), 3, condition)
        self.A = randla.GaussianMeasurements((60, 40), 2_000, rng=0)
        self.y = self.A.apply(self.X)

    def run(self, rebalance: str, rank: int) -> Any:
        kind = None if rebalance == "plain" else rebalance
        return randla.factorized_gd(self.A, self.y, rank, rebalance=kind, max_iter=300, rng=0, on_failure="ignore")

    def time_recover(self, rebalance: str, condition: float, rank: int) -> None:
        self.run(rebalance, rank)

    def track_error_recover(self, rebalance: str, condition: float, rank: int) -> float:
        return float(np.linalg.norm(self.run(rebalance, rank).to_dense() - self.X) / np.linalg.norm(self.X))

    track_error_recover.unit = "error / norm"


class Products(Pinned):
    """One residual and one adjoint with factors of rank 5, stored and made from the key."""

    params = (["dense", "gaussian", "entries", "rank one"],)
    param_names = ("measurements",)

    def setup(self, measurements: str) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        shape, m = ((300, 200), 2_000) if measurements in ("dense", "gaussian") else ((3_000, 2_000), 100_000)
        self.U, self.V = (rng.standard_normal((side, 5)) for side in shape)
        if measurements == "dense":
            self.A: Any = randla.DenseMeasurements(rng.standard_normal((m, *shape)))
        elif measurements == "gaussian":
            self.A = randla.GaussianMeasurements(shape, m, rng=0)
        elif measurements == "entries":
            self.A = randla.EntryMeasurements(rng.integers(0, 3_000, m), rng.integers(0, 2_000, m), shape)
        else:
            self.A = randla.RankOneMeasurements(
                rng.standard_normal((20_000, 3_000)), rng.standard_normal((20_000, 2_000))
            )
        self.y = rng.standard_normal(self.A.n_measurements)

    def run(self) -> tuple[Any, Any]:
        return self.A.apply_factors(self.U, self.V), self.A.adjoint_times(self.y, self.V)

    def time_products(self, *_: Any) -> None:
        self.run()

    def track_error_products(self, *_: Any) -> float:
        measured, image = self.run()
        inner = float(measured @ self.y)  # <A(U V^T), y> = <U, A^*(y) V>
        return abs(inner - float(np.sum(self.U * image))) / (np.linalg.norm(measured) * np.linalg.norm(self.y))

    track_error_products.unit = "defect of the adjoint identity"
