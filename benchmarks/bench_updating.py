"""How long does one more batch of a stream take, and how near is the updated decomposition to the best one?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from randla.estimators._incremental import IncrementalSVD
from randla.updating import UpdatableSVD

from .common import Pinned

BATCH = 10
STORED, COLUMNS, DENSITY = 4_000, 20_000, 1e-3
STREAM_COLUMNS = 1_000_000


@lru_cache(maxsize=2)
def stream(m: int, n: int, density: float) -> scipy.sparse.csr_array:
    """Rows with normal entries at random places."""
    rng = np.random.default_rng(0)
    A = scipy.sparse.random_array((m, n), density=density, rng=rng, data_sampler=rng.standard_normal)
    return scipy.sparse.csr_array(A)


@lru_cache(maxsize=2)
def begun(rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The decomposition of the first `STORED` rows."""
    A = stream(STORED + 20 * BATCH, COLUMNS, DENSITY)[:STORED]
    U, s, Vh = scipy.sparse.linalg.svds(A, rank, v0=np.ones(STORED))
    return U[:, ::-1], s[::-1], Vh[::-1]


def dense_update(U: np.ndarray, s: np.ndarray, V: np.ndarray, E: np.ndarray) -> tuple[np.ndarray, ...]:
    """The customary way: the update of Zha and Simon with dense factors."""
    k = len(s)
    C = V.T @ E.T
    Q, R = np.linalg.qr(E.T - V @ C)
    M = np.block([[np.diag(s), np.zeros((k, len(R)))], [C.T, R.T]])
    F, t, Gh = np.linalg.svd(M, full_matrices=False)
    G = Gh[:k].T
    return np.concatenate([U @ F[:k, :k], F[k:, :k]]), t[:k], np.concatenate([V, Q], axis=1) @ G


def follow(rank: int, batches: list[Any]) -> UpdatableSVD:
    """Twenty updates."""
    tracked = UpdatableSVD.from_factors(*begun(rank))
    for E in batches:
        tracked.append_rows(E)
    return tracked


def follow_densely(rank: int, batches: list[Any]) -> tuple[np.ndarray, ...]:
    """The same with dense factors."""
    U, s, Vh = begun(rank)
    factors: tuple[np.ndarray, ...] = (U, s, np.ascontiguousarray(Vh.T))
    for E in batches:
        factors = dense_update(*factors, E.toarray())
    return factors


class Updates(Pinned):
    """Twenty batches of 10 sparse rows on 4,000 rows of 20,000 columns."""

    params = ([16, 64], ["randla", "numpy Zha-Simon"])
    param_names = ("rank", "method")

    def setup(self, rank: int, method: str) -> None:
        self.pin()
        A = stream(STORED + 20 * BATCH, COLUMNS, DENSITY)
        batches = [A[lo : lo + BATCH] for lo in range(STORED, A.shape[0], BATCH)]
        self.call = lambda: (follow if method == "randla" else follow_densely)(rank, batches)
        self.exact = follow_densely(rank, batches)[1]
        self.call()

    def time_updates(self, *parameters: Any) -> None:
        self.call()

    def track_error_updates(self, *parameters: Any) -> float:
        found = self.call()
        values = found.s if isinstance(found, UpdatableSVD) else found[1]
        return float(np.abs(values / self.exact - 1).max())

    track_error_updates.unit = "largest relative difference of a singular value from the dense update's"


class WideBatches(Pinned):
    """Four batches of 500 rows: all of a batch, or its main directions."""

    params = ([16, 64], ["exact", "gkl", "rpi"])
    param_names = ("rank", "method")

    def setup(self, rank: int, method: str) -> None:
        self.pin()
        self.A = stream(2_000, COLUMNS, DENSITY)
        self.rank, self.method = rank, method

    def time_updates(self, *parameters: Any) -> None:
        self.follow()

    def track_error_updates(self, *parameters: Any) -> float:
        U, s, Vh = self.follow().to_svd()
        squares = np.sum(self.A.data**2) - 2 * np.sum((self.A @ Vh.T) * (U * s)) + np.sum(s**2)
        return float(np.sqrt(squares / np.sum(self.A.data**2)))

    track_error_updates.unit = "||A - U S V'|| / ||A||"

    def follow(self) -> UpdatableSVD:
        tracked = UpdatableSVD(self.rank, method=self.method, rng=0)
        for lo in range(0, 2_000, 500):
            tracked.append_rows(self.A[lo : lo + 500])
        return tracked


class LongStreams(Pinned):
    """One batch of 10 rows of 20 entries on a stream of a million columns, by the number of rows that are there."""

    params = ([20_000, 200_000, 2_000_000], [16])
    param_names = ("stored", "rank")

    def setup(self, stored: int, rank: int) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        factors = [np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (stored, STREAM_COLUMNS)]
        self.tracked = UpdatableSVD.from_factors(factors[0], np.linspace(200.0, 100.0, rank), factors[1].T)
        self.tracked._left.reserve(stored + 1_000_000)  # the copy that doubles the room is apart
        A = stream(50 * BATCH, STREAM_COLUMNS, 2e-5)
        self.batches = [A[lo : lo + BATCH] for lo in range(0, A.shape[0], BATCH)]

    def time_fifty_batches(self, *parameters: Any) -> None:
        for E in self.batches:
            self.tracked.append_rows(E)

    def track_error_orthogonality(self, *parameters: Any) -> float:
        self.time_fifty_batches()
        V = self.tracked.right_vectors()
        return float(np.abs(V @ V.T - np.eye(len(V))).max())

    track_error_orthogonality.unit = "largest entry of V'V - I"


class PartialFit(Pinned):
    """scikit-learn's interface on 2,000 x 20,000 with 0.5 MB of entries."""

    params = (["randla IncrementalSVD", "sklearn IncrementalPCA"],)
    param_names = ("method",)

    def setup(self, method: str) -> None:
        from sklearn.decomposition import IncrementalPCA

        self.pin()
        self.A, self.ours = stream(2_000, COLUMNS, DENSITY), method.startswith("randla")
        kind = IncrementalSVD if self.ours else IncrementalPCA
        self.call = lambda: kind(10).partial_fit(self.A if self.ours else self.A.toarray())

    def time_partial_fit(self, *parameters: Any) -> None:
        self.call()

    def peakmem_partial_fit(self, *parameters: Any) -> None:
        self.call()

    def track_error_partial_fit(self, *parameters: Any) -> float:
        V = self.call().components_
        return float(np.sqrt(1 - np.linalg.norm(self.A @ V.T) ** 2 / np.sum(self.A.data**2)))

    track_error_partial_fit.unit = "||A - A V V'|| / ||A||"
