"""Problems, threads and clocks that all benchmarks share."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse
from threadpoolctl import threadpool_info, threadpool_limits

import randla

OVERSAMPLING = 4  # rows of a sketch for each column of the matrix, as in all comparisons of sketches
RANK = 50
PANEL = 60  # columns of a panel: a rank of 50 and 10 oversamples


@dataclass(frozen=True)
class Sizes:
    """Shapes of the problems; a sparse shape is (m, n, nonzeros)."""

    tall: tuple[tuple[int, int], ...]
    csr: tuple[tuple[int, int, int], ...]
    dense: tuple[int, int]
    sparse: tuple[int, int, int]
    words: int


FULL = Sizes(
    tall=((250_000, 64), (50_000, 512)),
    csr=((200_000, 20_000, 4_000_000), (500_000, 100_000, 8_000_000)),
    dense=(10_000, 2_000),
    sparse=(250_000, 50_000, 5_000_000),
    words=2**24,
)
QUICK = Sizes(
    tall=((40_000, 64), (8_000, 512)),
    csr=((50_000, 5_000, 500_000), (100_000, 20_000, 1_000_000)),
    dense=(2_000, 500),
    sparse=(20_000, 5_000, 400_000),
    words=2**20,
)


# --- problems ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def tall_matrix(m: int, d: int, dtype: str = "float64") -> np.ndarray:
    """A normal matrix in which one heavy row for each column holds four fifths of the column's mass.

    So it is coherent, as real data are: sketches that collide or do not mix show it in their distortion.
    """
    A = np.random.default_rng(0).standard_normal((m, d), dtype=dtype)
    A[np.arange(d), np.arange(d)] = 2.0 * m**0.5
    return A


def distortion(A: np.ndarray) -> Callable[[np.ndarray], float]:
    """What turns a sketch S A into max |sigma(S U) - 1|, where U is an orthonormal basis of the columns of A."""
    wide = A.astype(np.float64)
    R = np.linalg.cholesky(wide.T @ wide).T  # A is well-conditioned, so U = A inv(R) is orthonormal to rounding

    def error(sketched: np.ndarray) -> float:
        SU = scipy.linalg.solve_triangular(R, np.asarray(sketched, np.float64).T, trans="T").T
        return float(np.abs(np.linalg.svd(SU, compute_uv=False) - 1.0).max())

    return error


@lru_cache(maxsize=1)
def skewed_csr(m: int, n: int, n_nonzeros: int) -> scipy.sparse.csr_array:
    """A CSR matrix with normal entries whose columns fill like a power law, as words in texts do."""
    rng = np.random.default_rng(1)
    rows = np.sort(rng.integers(0, m, n_nonzeros))
    columns = (n * rng.random(n_nonzeros) ** 2).astype(np.int64)  # density of column j falls like j**-0.5
    # of entries that meet the last one stays, so that values keep their scale
    places = np.unique(rows * n + columns)
    values = rng.standard_normal(places.size)
    return scipy.sparse.csr_array((values, (places // n, places % n)), shape=(m, n))


def product_error(A: scipy.sparse.csr_array, X: np.ndarray, n_rows: int = 200) -> Callable[[np.ndarray], float]:
    """Relative Frobenius error on some rows, against sums in extended precision."""
    rows = np.linspace(0, A.shape[0] - 1, n_rows).astype(int)
    exact = np.zeros((n_rows, X.shape[1]), np.longdouble)
    for r, i in enumerate(rows):
        part = slice(A.indptr[i], A.indptr[i + 1])
        exact[r] = A.data[part].astype(np.longdouble) @ X[A.indices[part]].astype(np.longdouble)
    norm = np.linalg.norm(exact.astype(float))
    return lambda product: float(np.linalg.norm((product[rows] - exact).astype(float)) / norm)


def spectrum(name: str, n: int) -> np.ndarray:
    """Singular values: "poly" falls like 1/j, "exp" by e every 20."""
    j = np.arange(1, n + 1, dtype=np.float64)
    return 1.0 / j if name == "poly" else np.exp(-j / 20.0)


@lru_cache(maxsize=1)
def matrix_of_spectrum(m: int, n: int, name: str) -> np.ndarray:
    """A dense matrix with the singular values of `spectrum` and incoherent singular vectors."""
    rng = np.random.default_rng(2)

    def rotated(X: np.ndarray) -> np.ndarray:  # two rounds of signs and cosine transform: orthogonal, and fast to apply
        for _ in range(2):
            X = scipy.fft.dct(X * rng.choice([-1.0, 1.0], (X.shape[0], 1)), axis=0, norm="ortho")
        return X

    tall = np.zeros((m, n))
    tall[:n] = rotated(np.diag(spectrum(name, n))).T
    return np.ascontiguousarray(rotated(tall))


# --- threads ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pinned(n_threads: int) -> Iterator[None]:
    """Hold BLAS, OpenMP, SciPy's transforms and randla at `n_threads`."""
    with threadpool_limits(n_threads), scipy.fft.set_workers(n_threads), randla.threads(n_threads):
        yield


class Pinned:
    """Base of asv classes: `pin` in `setup` holds the number of threads until `teardown`."""

    timeout = 600

    def pin(self, n_threads: int = 1) -> None:
        if n_threads > cores():
            raise NotImplementedError(f"{n_threads} threads need as many cores, got {cores()}")
        self._pins = contextlib.ExitStack()
        self._pins.enter_context(pinned(n_threads))

    def teardown(self, *parameters: Any) -> None:
        if hasattr(self, "_pins"):
            self._pins.close()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_kernels() -> list[str]:
    """One line for each BLAS that is loaded, with the kernels it chose for this processor."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted(
        f"{library['prefix']} ({library['internal_api']} {library['version']}, kernels {library.get('architecture')})"
        for library in found
    )


# --- clocks -----------------------------------------------------------------------------------------------------------


def clock(n_threads: int) -> Callable[[], float]:
    """Processor time of this process on one thread, which other processes disturb least; wall time on several."""
    return time.process_time if n_threads == 1 else time.perf_counter


def race(
    calls: Mapping[str, Callable[[], Any]],
    now: Callable[[], float] | None,
    *,
    budget: float,
    least: int = 3,
    most: int = 50,
    inspect: Callable[[Any], float | None] | None = None,
) -> tuple[dict[str, float], dict[str, float | None], int]:
    """Least time of each call in rounds A B A B ..., so that a machine that slows down slows all alike.

    A first round, which compiles and touches the memory, is not counted; `inspect` turns its results into errors.
    Without a clock a call returns its own time.  Returns times, errors and the number of rounds.
    """
    errors: dict[str, float | None] = {}
    for name, call in calls.items():
        value = call()
        errors[name] = inspect(value) if inspect else None
        del value
    best, spent, rounds = dict.fromkeys(calls, float("inf")), 0.0, 0
    gc.collect()
    gc.disable()
    try:
        while rounds < least or (spent < budget and rounds < most):
            for name, call in calls.items():
                seconds = call() if now is None else _timed(call, now)
                best[name], spent = min(best[name], seconds), spent + seconds
            rounds += 1
    finally:
        gc.enable()
    return best, errors, rounds


def _timed(call: Callable[[], Any], now: Callable[[], float]) -> float:
    began = now()
    call()
    return now() - began
