"""The jobs of `peers.py`: what is called side by side, how wrong each result is, and which ratio is the goal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import randla
from randla import kernels
from randla._random import Stream

from . import customary
from .common import (
    OVERSAMPLING,
    PANEL,
    RANK,
    Sizes,
    distortion,
    matrix_of_spectrum,
    product_error,
    skewed_csr,
    spectrum,
    tall_matrix,
)

OPTIMAL = 1.004  # error that a dense SVD may have, as a multiple of the least possible


@dataclass(frozen=True)
class Pair:
    """One line of the table: ours beside a peer, with a goal for the figure that `kind` names.

    "ratio" is our time over the peer's; "over" our seconds beyond the peer's; "rate" our work per second.
    """

    ours: str
    peer: str
    goal: float | None = None
    kind: str = "ratio"


@dataclass(frozen=True)
class Contest:
    """Calls that are raced against each other on one problem."""

    size: str
    calls: Mapping[str, Callable[[], Any]]
    pairs: Sequence[Pair]
    error_kind: str = ""
    error: Callable[[Any], float | None] | None = None
    good_enough: Callable[[float, float], bool] | None = None  # of our error and the peer's, for a goal to count
    work: float = 0.0  # what "rate" counts
    timed_inside: bool = False  # the calls return their own seconds
    least: int = 3


Job = Callable[[Sizes], Iterator[Contest]]


def _shape(*sizes: int) -> str:
    return " x ".join(f"{size:,}" for size in sizes)


def _sparse(m: int, n: int, n_nonzeros: int) -> str:
    return f"{_shape(m, n)}, {n_nonzeros:.0e} nonzeros".replace("e+0", "e")


SKETCH_ERROR = "distortion"
Build = Callable[[np.ndarray, int, Any], tuple[dict[str, Callable[[], Any]], list[Pair]]]  # of A, sketch_size, goal


def _sketches(sizes: Sizes, goals: Sequence[Any], build: Build) -> Iterator[Contest]:
    for (m, d), goal in zip(sizes.tall, goals, strict=True):
        A = tall_matrix(m, d)
        calls, pairs = build(A, OVERSAMPLING * d, goal)
        yield Contest(_shape(m, d), calls, pairs, SKETCH_ERROR, distortion(A))


def countsketch(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls = {
            "scipy clarkson_woodruff_transform": lambda: customary.countsketch(A, sketch_size),
            "randla CountSketch": lambda: randla.CountSketch(sketch_size, len(A), rng=0) @ A,
        }
        return calls, [Pair("randla CountSketch", "scipy clarkson_woodruff_transform", goal)]

    return _sketches(sizes, (0.5, 0.7), build)


def sparse_sign(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goals: tuple[float, float]) -> tuple[dict[str, Any], list[Pair]]:
        S, ours = customary.sparse_sign_matrix(sketch_size, len(A), 8), "randla SparseSign nnz 8"
        calls = {
            "numpy sampling, scipy csc @ A": lambda: customary.sparse_sign(A, sketch_size),
            "scipy csc @ A alone": lambda: S @ A,
            ours: lambda: randla.SparseSign(sketch_size, len(A), nnz=8, rng=0) @ A,
        }
        return calls, [
            Pair(ours, "numpy sampling, scipy csc @ A", goals[0]), Pair(ours, "scipy csc @ A alone", goals[1])
        ]  # fmt: skip

    return _sketches(sizes, ((0.5, 1.0), (0.5, 1.0)), build)


def srht(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls: dict[str, Any] = {}
        pairs = []
        for rounds in (1, 2):
            number = "1 round" if rounds == 1 else f"{rounds} rounds"
            peer, ours = f"signs, scipy dct, sample, {number}", f"randla SRHT, {number}"
            calls[peer] = partial(customary.cosine_transform, A, sketch_size, rounds)
            calls[ours] = partial(lambda r: randla.SRHT(sketch_size, len(A), rounds=r, rng=0) @ A, rounds)
            pairs.append(Pair(ours, peer, goal))
        return calls, pairs

    return _sketches(sizes, (0.35, 0.2), build)


def gaussian(sizes: Sizes) -> Iterator[Contest]:
    def build(A: np.ndarray, sketch_size: int, goal: float) -> tuple[dict[str, Any], list[Pair]]:
        calls = {
            "numpy normals and product by blocks": lambda: customary.gaussian(A, sketch_size),
            "randla Gaussian": lambda: randla.Gaussian(sketch_size, len(A), rng=0) @ A,
        }
        return calls, [Pair("randla Gaussian", "numpy normals and product by blocks", goal)]

    return _sketches(sizes, (0.5, 0.8), build)


def philox(sizes: Sizes) -> Iterator[Contest]:
    key, n = randla.as_key(0), sizes.words // 4
    expected = kernels.reference.philox_words(key, Stream.SPARSE_SIGN, 0, 1024, 1)
    calls = {
        "numpy Philox.random_raw": lambda: np.random.Philox(0).random_raw(sizes.words // 2),
        "randla philox_words": lambda: kernels.philox_words(key, Stream.SPARSE_SIGN, 0, n, 1),
    }

    def wrong_words(words: np.ndarray) -> float | None:
        # NumPy's generator is another variant (4x64): only ours has these known words
        return float(np.sum(words[:1024] != expected)) if words.ndim == 2 else None

    pairs = [Pair("randla philox_words", "numpy Philox.random_raw", 400e6, "rate")]
    yield Contest(
        f"{sizes.words:.1e} words".replace("e+0", "e"), calls, pairs, "wrong words", wrong_words, None, sizes.words
    )


def csr_product(sizes: Sizes) -> Iterator[Contest]:
    """A panel of 60 columns by a sparse matrix and by its transpose."""
    for (m, n, n_nonzeros), goal in zip(sizes.csr, (0.6, 0.45), strict=True):
        A, rng = skewed_csr(m, n, n_nonzeros), np.random.default_rng(3)
        X, Y = rng.standard_normal((n, PANEL)), rng.standard_normal((m, PANEL))
        calls = {
            "scipy csr @ X": lambda A=A, X=X: A @ X,
            "randla csr_matmul": lambda A=A, X=X: kernels.csr_matmul(A.data, A.indices, A.indptr, X),
        }
        pairs = [Pair("randla csr_matmul", "scipy csr @ X", goal)]
        yield Contest("A @ X, " + _sparse(m, n, n_nonzeros), calls, pairs, "relative error", product_error(A, X))
        calls = {
            "scipy csr.T @ Y": lambda A=A, Y=Y: A.T @ Y,
            "randla csr_rmatmul": lambda A=A, Y=Y: kernels.csr_rmatmul(A.data, A.indices, A.indptr, Y, A.shape[1]),
        }
        pairs = [Pair("randla csr_rmatmul", "scipy csr.T @ Y", goal)]
        yield Contest(
            "A.T @ Y, " + _sparse(m, n, n_nonzeros), calls, pairs, "relative error", product_error(A.T.tocsr(), Y)
        )


def svd_dense(sizes: Sizes) -> Iterator[Contest]:
    m, n = sizes.dense
    for name in ("poly", "exp"):
        A = matrix_of_spectrum(m, n, name)
        least = float(np.linalg.norm(spectrum(name, n)[RANK:]))

        def over_optimal(result: Any, A: np.ndarray = A, least: float = least) -> float:
            U, s, Vh = result
            return float(np.linalg.norm(A - (U * s) @ Vh)) / least

        calls = {
            "sklearn randomized_svd, n_iter=2": partial(customary.sklearn_svd, A, RANK),
            "sklearn randomized_svd, n_iter=2, QR": partial(customary.sklearn_svd, A, RANK, "QR"),
            "fbpca pca, n_iter=2": partial(customary.fbpca_svd, A, RANK),
            "randla svd": partial(randla.svd, A, RANK, rng=0),
        }
        pairs = [
            Pair("randla svd", "sklearn randomized_svd, n_iter=2", 0.8),
            Pair("randla svd", "sklearn randomized_svd, n_iter=2, QR", 0.8),
            Pair("randla svd", "fbpca pca, n_iter=2"),
        ]
        size = f"{_shape(m, n)}, spectrum {name}, rank {RANK}"
        yield Contest(size, calls, pairs, "error / optimal", over_optimal, lambda ours, _: ours <= OPTIMAL)


def svd_sparse(sizes: Sizes) -> Iterator[Contest]:
    m, n, n_nonzeros = sizes.sparse
    A = skewed_csr(m, n, n_nonzeros)

    def captured(result: Any) -> float:
        U = np.asarray(result[0] if isinstance(result, tuple) else result.U)
        return float(np.linalg.norm(A.T @ U)) ** 2  # of an orthonormal U, so a bound from below on what is there

    calls = {
        "sklearn randomized_svd, n_iter=2": partial(customary.sklearn_svd, A, RANK),
        "fbpca pca, n_iter=2": partial(customary.fbpca_svd, A, RANK),
        "scipy svds, exact": partial(customary.arpack_svd, A, RANK),
        "randla svd": partial(randla.svd, A, RANK, rng=0),
    }
    pairs = [
        Pair("randla svd", "sklearn randomized_svd, n_iter=2", 0.5),
        Pair("randla svd", "fbpca pca, n_iter=2"),
        Pair("randla svd", "scipy svds, exact"),
    ]
    size = f"{_sparse(m, n, n_nonzeros)}, rank {RANK}"
    yield Contest(size, calls, pairs, "captured energy", captured, lambda ours, peer: ours >= peer, least=2)


# --- start-up ---------------------------------------------------------------------------------------------------------

IMPORTS = {
    "import numpy": "import numpy",
    "import sklearn.random_projection": "import sklearn.random_projection",
    "import numpy, randla": "import numpy, randla",
    "import randla; randla.SparseSign": "import randla; randla.SparseSign",
    "sklearn SparseRandomProjection fitted and applied": (
        "import numpy as np; from sklearn.random_projection import SparseRandomProjection; "
        "SparseRandomProjection(20).fit_transform(np.ones((3, 100)))"
    ),
    "randla SparseSign made and applied": (
        "import numpy as np, randla; np.ones((3, 100)) @ randla.SparseSign(20, 100, rng=0).T"
    ),
}
_FIRST_CALL = """
import time
import numba
import numpy as np
A = np.ones((100, 3))
numba.njit(lambda x: x + 1)(1)  # Numba's own start, a quarter of a second, is that of both
{setup}
began = time.process_time()
{call}
print(time.process_time() - began)
"""
# the same job, with the same random words, in Numba's own threads
_PARALLEL = """
@numba.njit(parallel=True, cache=True)
def sketch(A, out, nnz, k0, k1):
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    rows, signs = np.empty((A.shape[0], nnz), np.int64), np.empty((A.shape[0], nnz))
    for i in numba.prange(A.shape[0]):
        c0, c1, c2, c3 = np.uint64(i), np.uint64(0), np.uint64(0), np.uint64(0)
        a, b = np.uint64(k0), np.uint64(k1)
        for r in range(10):
            p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ a, p1 & low, (p0 >> half) ^ c3 ^ b, p0 & low
            a, b = (a + np.uint64(0x9E3779B9)) & low, (b + np.uint64(0xBB67AE85)) & low
        for t in range(nnz):
            word = (c0, c1, c2, c3)[t % 4]
            rows[i, t] = np.int64((word >> np.uint64(1)) % np.uint64(out.shape[0]))
            signs[i, t] = 1.0 - 2.0 * np.float64(word & np.uint64(1))
    for j in numba.prange(A.shape[1]):
        for i in range(A.shape[0]):
            for t in range(nnz):
                out[rows[i, t], j] += signs[i, t] * A[i, j]
"""
FIRST_CALLS = {
    "numba parallel=True": {
        "setup": _PARALLEL,
        "call": "sketch(A, np.zeros((20, 3)), 8, 1, 2)",
    },
    "randla SparseSign @ A": {
        "setup": "import randla, randla.kernels\nS = randla.SparseSign(20, 100, rng=0)",
        "call": "S @ A",
    },
}


def start(sizes: Sizes) -> Iterator[Contest]:
    """Processor time of imports in fresh processes, and of the first call of a kernel."""
    calls = {name: partial(imported, code) for name, code in IMPORTS.items()}
    pairs = [
        Pair("import numpy, randla", "import numpy", 0.15, "over"),
        Pair("import randla; randla.SparseSign", "import sklearn.random_projection", 0.35),
        Pair("randla SparseSign made and applied", "sklearn SparseRandomProjection fitted and applied"),
    ]
    yield Contest("fresh process", calls, pairs, timed_inside=True, least=5)
    pairs = [Pair("randla SparseSign @ A", "numba parallel=True")]
    cold = {name: partial(_cold_call, name) for name in FIRST_CALLS}
    yield Contest("first call, nothing compiled", cold, pairs, timed_inside=True, least=2)
    with tempfile.TemporaryDirectory() as folder:
        cached = {name: partial(first_call, name, folder) for name in FIRST_CALLS}
        yield Contest("first call, compiled before", cached, pairs, timed_inside=True)


def _run(*arguments: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def imported(code: str) -> float:
    """Processor seconds of a fresh interpreter that runs `code`."""
    return _run("-c", f"import time; {code}; print(time.process_time())", PYTHONPATH=os.pathsep.join(sys.path))


def first_call(name: str, folder: str) -> float:
    """Processor seconds of the first call of a kernel in a fresh process, whose cache is in `folder`."""
    place = Path(folder) / name.split()[0]
    place.mkdir(exist_ok=True)
    program = place / "first_call.py"  # a file, and written once, since Numba caches by the file of a function
    if not program.exists():
        program.write_text(_FIRST_CALL.format(**FIRST_CALLS[name]), encoding="utf-8")
    return _run(str(program), NUMBA_CACHE_DIR=str(place), PYTHONPATH=os.pathsep.join(sys.path))


def _cold_call(name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return first_call(name, folder)


JOBS: dict[str, Job] = {
    "countsketch": countsketch,
    "sparse-sign": sparse_sign,
    "philox": philox,
    "srht": srht,
    "gaussian": gaussian,
    "csr-product": csr_product,
    "svd-dense": svd_dense,
    "svd-sparse": svd_sparse,
    "start": start,
}
