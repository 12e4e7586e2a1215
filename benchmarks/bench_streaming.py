"""How long does a stream take to be taken in, and how far off is what is known of it in the end?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import IncrementalPCA

import randla
from randla.streaming import FrequentDirections, StreamingSVD

from .common import FULL, Pinned, matrix_of_spectrum, skewed_csr

BLOCK = 1000  # rows of a block
STREAMS = {"4,000 x 200": (4000, 200, 20), "20,000 x 500": (20_000, 500, 50), "10,000 x 2,000": (10_000, 2000, 100)}


def signal(m: int, n: int) -> np.ndarray:
    """Rank 30 with strengths 1 / i, and noise of deviation 0.05."""
    rng = np.random.default_rng(0)
    U, V, E = (rng.standard_normal(shape) for shape in ((m, 30), (30, n), (m, n)))
    return (U / np.arange(1, 31)) @ V + 0.05 * E


def row_loop(A: np.ndarray, length: int) -> np.ndarray:
    """Frequent Directions as its paper writes it: one row at a time, a singular value decomposition when full."""
    B, used = np.zeros((2 * length, A.shape[1])), 0
    for row in A:
        if used == 2 * length:
            B, used = shrunk(B, length), length
        B[used] = row
        used += 1
    return shrunk(B, length)[:length]


def shrunk(B: np.ndarray, length: int) -> np.ndarray:
    _, s, Vh = np.linalg.svd(B, full_matrices=False)
    out = np.zeros_like(B)
    out[:length] = np.sqrt(np.maximum(s[:length] ** 2 - s[length - 1] ** 2, 0.0))[:, None] * Vh[:length]
    return out


def blocks(A: Any, axis: int = 0) -> Iterator[tuple[int, Any]]:
    for start in range(0, A.shape[axis], BLOCK):
        yield start, A[start : start + BLOCK] if axis == 0 else A[:, start : start + BLOCK]


class Covariance(Pinned):
    """Sketches of A^T A from blocks of rows, at equal numbers of components."""

    params = (
        list(STREAMS),
        ["frequent directions", "robust", "wide buffer", "gaussian", "row loop", "incremental pca"],
        [1, 2],
    )
    param_names = ("stream", "method", "threads")

    def setup(self, stream: str, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        m, n, self.length = STREAMS[stream]
        self.A = signal(m, n)
        self.take_in(method)

    def take_in(self, method: str) -> np.ndarray:
        """The approximation of A^T A."""
        A, length = self.A, self.length
        if method == "row loop":
            B = row_loop(A, length)
            return B.T @ B
        if method == "incremental pca":
            # rows of this signal have mean zero up to noise, so that the centred covariance is the plain one
            model = IncrementalPCA(length)
            for _, B in blocks(A):
                model.partial_fit(B)
            return (model.components_.T * model.singular_values_**2) @ model.components_
        if method == "gaussian":
            S = randla.Gaussian(length, A.shape[0], rng=0)
            parts = [S.matmul(B, start=start) for start, B in blocks(A)]
            total = np.sum(parts, axis=0)
            return total.T @ total
        sketch = FrequentDirections(
            length, robust=method == "robust", buffer_size=5 * length if method == "wide buffer" else None
        )
        for _, B in blocks(A):
            sketch.partial_fit(B)
        return sketch.get_covariance()

    def time_covariance(self, stream: str, method: str, n_threads: int) -> None:
        self.take_in(method)

    def track_error_covariance(self, stream: str, method: str, n_threads: int) -> float:
        C = self.A.T @ self.A
        return float(np.linalg.norm(C - self.take_in(method), 2) / np.linalg.norm(C, 2))

    track_error_covariance.unit = "spectral error / ||A^T A||"


class Stream(Pinned):
    """A truncated SVD from a stream of changes, and what can be had where the matrix may be read again."""

    params = (
        ["dense", "sparse"],
        ["rows", "columns", "two sketches", "svd, one view", "svd, two passes", "incremental pca"],
        [1, 2],
    )
    param_names = ("data", "method", "threads")
    rank = 10

    def setup(self, data: str, method: str, n_threads: int) -> None:
        if data == "sparse" and method == "incremental pca":
            raise NotImplementedError("it would make blocks of 1,000 x 20,000 dense, and takes minutes")
        self.pin(n_threads)
        self.A = matrix_of_spectrum(*FULL.dense, "poly") if data == "dense" else skewed_csr(*FULL.csr[0])
        self.take_in(method)

    def take_in(self, method: str) -> tuple[Any, Any, Any]:
        A = self.A
        if method.startswith("svd"):
            return tuple(randla.svd(A, self.rank, n_passes=1 + method.endswith("passes"), rng=0, on_failure="ignore"))
        if method == "incremental pca":
            model = IncrementalPCA(self.rank)
            for _, B in blocks(A):
                model.partial_fit(B)
            Vh = model.components_
            return A @ Vh.T, np.ones(self.rank), Vh
        state = StreamingSVD(A.shape, self.rank, co_range=method != "two sketches", rng=0)
        axis = int(method == "columns")
        for start, B in blocks(A.tocsc() if axis and sp.issparse(A) else A, axis):
            state = state.update_columns(B, start) if axis else state.update_rows(B, start)
        return tuple(state.finalize(on_failure="ignore"))

    def time_svd(self, data: str, method: str, n_threads: int) -> None:
        self.take_in(method)

    def track_error_svd(self, data: str, method: str, n_threads: int) -> float:
        """The Frobenius error over that of six passes."""
        found = self.take_in(method)
        best = randla.svd(self.A, self.rank, n_passes=6, rng=1, on_failure="ignore")
        norm = np.sqrt((self.A.multiply(self.A).sum()) if sp.issparse(self.A) else np.sum(self.A**2))
        return float(residual(self.A, found, norm) / residual(self.A, tuple(best), norm))

    track_error_svd.unit = "error / error of six passes"


def residual(A: Any, factors: tuple[Any, Any, Any], norm: float) -> float:
    """``||A - U diag(s) Vh||_F`` from products with the factors."""
    U, s, Vh = factors
    F = U * s
    cross = np.sum((A @ Vh.T) * F)
    return float(np.sqrt(max(norm**2 - 2.0 * cross + np.sum((F.T @ F) * (Vh @ Vh.T)), 0.0)))


class Entries(Pinned):
    """Ten thousand entries that change in a matrix of a million rows."""

    params = ([10_000, 1_000_000], [1, 2])
    param_names = ("rows", "threads")

    def setup(self, m: int, n_threads: int) -> None:
        self.pin(n_threads)
        rng = np.random.default_rng(0)
        self.change = rng.integers(0, m, 10_000), rng.integers(0, 10_000, 10_000), rng.standard_normal(10_000)
        self.state = StreamingSVD((m, 10_000), 10, rng=0).update_entries(*self.change)

    def time_entries(self, m: int, n_threads: int) -> None:
        self.state.update_entries(*self.change)

    def track_error_entries(self, m: int, n_threads: int) -> float:
        """What is left when the same entries are taken away again."""
        fresh = StreamingSVD((m, 10_000), 10, rng=0).update_entries(*self.change)
        whole = float(np.linalg.norm(fresh._Y))
        return float(np.linalg.norm(fresh.update_entries(*self.change, weight=-1.0)._Y)) / whole

    track_error_entries.unit = "rest / whole"
