"""How long does a low-rank factorisation take, and how far is it from the best one?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import randla

from . import customary
from .common import FULL, RANK, Pinned, matrix_of_spectrum, skewed_csr, spectrum

METHODS = {
    "randla svd": lambda A: randla.svd(A, RANK, rng=0),
    "sklearn randomized_svd, n_iter=2": lambda A: customary.sklearn_svd(A, RANK),
    "sklearn randomized_svd, n_iter=2, QR": lambda A: customary.sklearn_svd(A, RANK, "QR"),
    "fbpca pca, n_iter=2": lambda A: customary.fbpca_svd(A, RANK),
}


def _over_optimal(A: np.ndarray, name: str, factors: Any) -> float:
    U, s, Vh = factors
    return float(np.linalg.norm(A - (U * s) @ Vh) / np.linalg.norm(spectrum(name, A.shape[1])[len(s) :]))


class DenseSVD(Pinned):
    """Rank 50 of a dense matrix with a known spectrum."""

    params = (["poly", "exp"], list(METHODS), [1, 2])
    param_names = ("spectrum", "method", "threads")

    def setup(self, name: str, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.A, self.factorise = matrix_of_spectrum(*FULL.dense, name), METHODS[method]
        self.factorise(self.A[:500])

    def time_svd(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def peakmem_svd(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def track_error_svd(self, name: str, *parameters: Any) -> float:
        return _over_optimal(self.A, name, self.factorise(self.A))

    track_error_svd.unit = "error / optimal error"


class SparseSVD(Pinned):
    """Rank 50 of a sparse matrix with a nearly flat spectrum."""

    params = (list(METHODS), [1, 2])
    param_names = ("method", "threads")

    def setup(self, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.A, self.factorise = skewed_csr(*FULL.sparse), METHODS[method]
        self.factorise(self.A[:2000])

    def time_svd(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def peakmem_svd(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def track_error_svd(self, *parameters: Any) -> float:
        U, *_ = self.factorise(self.A)
        captured = np.linalg.norm(self.A.T @ np.asarray(U)) ** 2
        return float((1.0 - captured / np.sum(self.A.data**2)) ** 0.5)

    track_error_svd.unit = "relative Frobenius error of U U.T A"


class ToleranceSVD(Pinned):
    """The rank that an error asks for."""

    params = (["poly", "exp"], [0.3, 0.1, 0.03])
    param_names = ("spectrum", "tol")

    def setup(self, name: str, tol: float) -> None:
        self.pin()
        self.A = matrix_of_spectrum(*FULL.dense, name)
        tails = np.sqrt(np.cumsum(spectrum(name, self.A.shape[1])[::-1] ** 2))[::-1]
        self.norm, self.least = tails[0], int(np.argmax(tails <= tol * tails[0]))
        self.factorise = partial(randla.svd, tol=tol, rng=0)
        self.factorise(self.A[:500])

    def time_tol(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def peakmem_tol(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def track_error_tol(self, name: str, tol: float) -> float:
        U, s, Vh = self.factorise(self.A)
        return float(np.linalg.norm(self.A - (U * s) @ Vh) / self.norm / tol)

    track_error_tol.unit = "true error / tolerance"

    def track_rank_tol(self, *parameters: Any) -> float:
        return self.factorise(self.A).rank / self.least

    track_rank_tol.unit = "rank / least rank"


class StreamedSVD(Pinned):
    """One pass over blocks of rows."""

    params = (["poly", "exp"],)
    param_names = ("spectrum",)

    def setup(self, name: str) -> None:
        self.pin()
        self.A = matrix_of_spectrum(*FULL.dense, name)
        randla.svd(randla.RowBlocks.from_array(self.A[:500]), RANK, n_passes=1, rng=0)

    def _stream(self) -> Any:
        return randla.svd(randla.RowBlocks.from_array(self.A, block_bytes=2**22), RANK, n_passes=1, rng=0)

    def time_stream(self, name: str) -> None:
        self._stream()

    def peakmem_stream(self, name: str) -> None:
        self._stream()

    def track_error_stream(self, name: str) -> float:
        return _over_optimal(self.A, name, self._stream())

    track_error_stream.unit = "error / optimal error"
