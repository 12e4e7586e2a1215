"""Problems, threads and clocks that all benchmarks share."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import scipy.fft
import scipy.sparse
from threadpoolctl import threadpool_info, threadpool_limits

import randla

OVERSAMPLING = 4  # rows of a sketch for each column of the matrix, as in all comparisons of sketches
RANK = 50
PANEL = 60  # columns of a panel: a rank of 50 and 10 oversamples

Error: TypeAlias = float | tuple[float, ...] | None


@dataclass(frozen=True)
class Sizes:
    """Shapes of the problems; a sparse shape is (m, n, nonzeros), `tables` is rows, columns of each, repetitions."""

    tall: tuple[tuple[int, int], ...]
    csr: tuple[tuple[int, int, int], ...]
    dense: tuple[int, int]
    sparse: tuple[int, int, int]
    words: int
    regression: tuple[tuple[int, int], ...]
    scores: tuple[int, int]
    absolute: tuple[int, int]
    tables: tuple[int, int, int, int]
    tensor: tuple[int, int, int]
    interpolative: tuple[int, int, int]  # rows, columns, rank
    kernel: tuple[int, int, int]  # points, dimensions, components
    nmf_dense: tuple[int, int, int]  # rows, columns, rank
    nmf_faces: tuple[int, int, int]
    nmf_sparse: tuple[int, int, int, int]  # rows, columns, nonzeros, rank
    completion: tuple[int, int, int, float]  # rows, columns, rank, share observed
    implicit: tuple[int, int, int, int]  # rows, columns, interactions, rank
    ease: tuple[int, int, int]
    transport: tuple[int, int, int]  # side of images, points of the smaller and the larger clouds


FULL = Sizes(
    tall=((250_000, 64), (50_000, 512)),
    csr=((200_000, 20_000, 4_000_000), (500_000, 100_000, 8_000_000)),
    dense=(10_000, 2_000),
    sparse=(250_000, 50_000, 5_000_000),
    words=2**24,
    regression=((250_000, 100), (50_000, 500)),
    scores=(1_000_000, 50),
    absolute=(20_000, 8),
    tables=(20_000, 500, 400, 20),
    tensor=(20_000, 100, 1024),
    interpolative=(4_000, 3_000, 100),
    kernel=(30_000, 20, 1_000),
    nmf_dense=(5_000, 2_000, 40),
    nmf_faces=(361, 2_429, 49),
    nmf_sparse=(10_000, 25_000, 1_900_000, 50),
    completion=(6_000, 2_500, 20, 0.08),
    implicit=(30_000, 10_000, 1_500_000, 64),
    ease=(30_000, 3_000, 1_000_000),
    transport=(28, 1_000, 2_000),
)
QUICK = Sizes(
    tall=((40_000, 64), (8_000, 512)),
    csr=((50_000, 5_000, 500_000), (100_000, 20_000, 1_000_000)),
    dense=(2_000, 500),
    sparse=(20_000, 5_000, 400_000),
    words=2**20,
    regression=((20_000, 40), (8_000, 100)),
    scores=(50_000, 20),
    absolute=(3_000, 8),
    tables=(2_000, 50, 40, 20),
    tensor=(2_000, 50, 256),
    interpolative=(800, 600, 40),
    kernel=(3_000, 20, 200),
    nmf_dense=(600, 400, 10),
    nmf_faces=(121, 400, 12),
    nmf_sparse=(800, 1_500, 30_000, 10),
    completion=(1_000, 600, 5, 0.15),
    implicit=(2_000, 800, 40_000, 16),
    ease=(2_000, 300, 20_000),
    transport=(14, 200, 300),
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
    tall = np.zeros((m, n))
    tall[:n] = _rotated(np.diag(spectrum(name, n)), rng).T
    return np.ascontiguousarray(_rotated(tall, rng))


def _rotated(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two rounds of signs and cosine transform: orthogonal, and fast to apply."""
    for _ in range(2):
        X = scipy.fft.dct(X * rng.choice([-1.0, 1.0], (X.shape[0], 1)), axis=0, norm="ortho")
    return X


@lru_cache(maxsize=1)
def completion_problem(
    m: int, n: int, rank: int, share: float, noise: float = 0.1
) -> tuple[scipy.sparse.csr_array, np.ndarray, np.ndarray, np.ndarray]:
    """Observed entries of a matrix of low rank whose entries have variance one, and others of it without noise.

    The latter as rows, columns and values, for the error of predictions.
    """
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((m, rank)), rng.standard_normal((n, rank)) * rank**-0.5
    rows, cols = np.nonzero(rng.random((m, n)) < share)
    values = np.einsum("ik,ik->i", U[rows], V[cols]) + noise * rng.standard_normal(rows.size)
    observed = scipy.sparse.csr_array((values, (rows, cols)), shape=(m, n))
    rows, cols = rng.integers(0, m, 200_000), rng.integers(0, n, 200_000)
    return observed, rows, cols, np.einsum("ik,ik->i", U[rows], V[cols])


def interactions(m: int, n: int, n_interactions: int, n_groups: int = 32) -> scipy.sparse.csr_array:
    """Counts of interactions of rows and columns with power laws; 60 % of them are with the columns of a row's group.

    Single precision, about as many stored as asked for.
    """
    rng = np.random.default_rng(9)
    group = rng.integers(0, n_groups, m)
    rows = (m * rng.random(2 * n_interactions) ** 1.6).astype(np.int64)
    columns = (n * rng.random(2 * n_interactions) ** 2.2).astype(np.int64)
    own = rng.random(2 * n_interactions) < 0.6
    columns = np.minimum(np.where(own, columns // n_groups * n_groups + group[rows], columns), n - 1)
    places = np.unique(rows * n + columns)
    places = np.sort(rng.permutation(places)[:n_interactions])
    counts = (1 + rng.poisson(1.0, places.size)).astype(np.float32)
    return scipy.sparse.csr_array((counts, (places // n, places % n)), shape=(m, n))


@lru_cache(maxsize=1)
def regression_problem(m: int, n: int, cond: float, residual: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """A of norm 1 with log-spaced singular values and incoherent singular vectors, and b = A x + r.

    ``||x|| = 1``, ``||r|| = residual`` and r is orthogonal to the columns of A, all to rounding.
    """
    rng = np.random.default_rng(4)
    x, r = rng.standard_normal(n), rng.standard_normal(m - n)
    inner = np.diag(np.geomspace(1.0, 1.0 / cond, n)) @ _rotated(np.eye(n), rng)
    tall = np.zeros((m, n + 1))  # with b as its last column
    tall[:n, :n], tall[:n, n] = inner, inner @ (x / np.linalg.norm(x))
    tall[n:, n] = r * (residual / np.linalg.norm(r))
    tall = _rotated(tall, rng)
    return np.ascontiguousarray(tall[:, :n]), np.ascontiguousarray(tall[:, n])


def regression_error(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> Callable[[np.ndarray], tuple[float, float]]:
    """What turns a solution into its residual's excess over that of `x`, and its backward error.

    The backward error, relative to ``||A||_F``, is the estimate of Karlson and Walden with the exact singular values
    of A; both products are taken in extended precision, so that rounding here is not taken for an error there.
    """
    _, s, Vh = np.linalg.svd(np.linalg.qr(A, mode="r"))
    frobenius, blocks = np.linalg.norm(s), range(0, len(A), 8192)
    theta = frobenius / np.linalg.norm(b)

    def residual(x: np.ndarray) -> tuple[float, np.ndarray]:
        x, squares, gradient = x.astype(np.longdouble), np.longdouble(0), np.zeros(len(x), np.longdouble)
        for lo in blocks:
            rows = A[lo : lo + 8192].astype(np.longdouble)
            r = b[lo : lo + 8192] - rows @ x
            squares, gradient = squares + r @ r, gradient + rows.T @ r
        return np.sqrt(squares), gradient

    least, _ = residual(x)

    def error(x: np.ndarray) -> tuple[float, float]:
        norm, gradient = residual(x)
        shrunk = 1.0 + (theta * np.linalg.norm(x)) ** 2
        weighted = (Vh @ gradient.astype(float)) / np.sqrt(s**2 + float(theta * norm) ** 2 / shrunk)
        return float(norm / least - 1), float(np.linalg.norm(weighted) * theta / shrunk**0.5 / frobenius)

    return error


@lru_cache(maxsize=1)
def matrix_of_scores(m: int, n: int, cond: float) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with log-spaced singular values, and its leverage scores.

    A thousandth of the rows holds half of each column, a tenth the next third: the scores lie some orders of
    magnitude apart.  They are those of the orthonormal factor before A was rounded, which moves them by about
    ``eps * cond`` relative to themselves, and no method can know them better.
    """
    rng = np.random.default_rng(5)
    heights = [max(m // 1000, n), m // 10]
    heights.append(m - sum(heights))
    parts = []
    for height, mass in zip(heights, (1 / 2, 1 / 3, 1 / 6), strict=True):
        part = np.zeros((height, n))
        np.fill_diagonal(part, mass**0.5)
        parts.append(_rotated(part, rng))
    U = np.concatenate(parts)
    inner = np.diag(np.geomspace(1.0, 1.0 / cond, n)) @ _rotated(np.eye(n), rng)
    return U @ inner, np.einsum("ij,ij->i", U, U)


def absolute_problem(m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A normal design and a right-hand side with Cauchy noise, for regression in the sum of absolute values."""
    rng = np.random.default_rng(6)
    A = rng.standard_normal((m, n))
    return A, A @ np.ones(n) + rng.standard_cauchy(m)


@lru_cache(maxsize=1)
def tables(m: int, columns: tuple[int, int], density: float) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Two sparse tables over the same rows, with log-normal row scales in common and correlated entries.

    Half of the entries of a row of the narrower table repeat that of the other, so that the product stands out of
    what independent tables would have.
    """
    rng = np.random.default_rng(7)
    scales = rng.lognormal(sigma=1.5, size=(m, 1))
    A = rng.standard_normal((m, columns[0])) * (rng.random((m, columns[0])) < density)
    B = rng.standard_normal((m, columns[1])) * (rng.random((m, columns[1])) < density)
    common = rng.random((m, 1)) < 0.5
    narrow = min(columns)
    B[:, :narrow] = np.where(common, A[:, :narrow], B[:, :narrow])
    return scipy.sparse.csr_array(scales * A), scipy.sparse.csr_array(scales * B)


def tensor_points(m: int, n: int) -> np.ndarray:
    """Points of norm 1 around ten directions, so that their kernel is far from the identity."""
    rng = np.random.default_rng(8)
    centres = rng.standard_normal((10, n))
    X = centres[rng.integers(0, 10, m)] + rng.standard_normal((m, n))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


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
    inspect: Callable[[Any], Error] | None = None,
) -> tuple[dict[str, float], dict[str, Error], int]:
    """Least time of each call in rounds A B A B ..., so that a machine that slows down slows all alike.

    A first round, which compiles and touches the memory, is not counted; `inspect` turns its results into errors.
    Without a clock a call returns its own time.  Returns times, errors and the number of rounds.
    """
    errors: dict[str, Error] = {}
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
