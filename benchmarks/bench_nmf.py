"""How long do nonnegative factorisations take by solver, loss and storage, and how close do they come?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import randla

from .common import FULL, Pinned
from .jobs.nmf import counts, faces_like, planted, relative_error


class Solvers(Pinned):
    """Thirty iterations on squares, dense and sparse; the start is included."""

    params = (["dense", "faces", "sparse"], ["hals", "pivots", "randomized", "mu"], [1, 2])
    param_names = ("matrix", "solver", "threads")

    def setup(self, matrix: str, solver: str, n_threads: int) -> None:
        if matrix == "sparse" and solver == "randomized":
            raise NotImplementedError("a sketch of sparse data is dense: the function refuses it")
        self.pin(n_threads)
        sizes = {"dense": FULL.nmf_dense, "faces": FULL.nmf_faces, "sparse": FULL.nmf_sparse}[matrix]
        self.X = {"dense": partial(planted, density=0.3), "faces": faces_like, "sparse": counts}[matrix](
            *(sizes if matrix == "dense" else sizes[:-1])
        )
        self.rank = sizes[-1]
        self.run(matrix, solver, n_iter=1)

    def run(self, _: str, solver: str, *__: Any, n_iter: int = 30) -> Any:
        return randla.nmf(self.X, self.rank, solver=solver, tol=0.0, max_iter=n_iter, rng=0, on_failure="ignore")

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        return relative_error(self.X, self.run(*parameters))

    track_error_fit.unit = "residual / norm"


class Starts(Pinned):
    """The start alone, and what it is worth after five iterations."""

    params = (["random", "nndsvda", "nnsvdlrc", "spa"], ["faces", "sparse"])
    param_names = ("init", "matrix")

    def setup(self, init: str, matrix: str) -> None:
        self.pin()
        sizes = {"faces": FULL.nmf_faces, "sparse": FULL.nmf_sparse}[matrix]
        self.X, self.rank = {"faces": faces_like, "sparse": counts}[matrix](*sizes[:-1]), sizes[-1]
        self.run(init, 1)

    def run(self, init: str, n_iter: int) -> Any:
        return randla.nmf(
            self.X, self.rank, init=init, solver="hals", tol=0.0, max_iter=n_iter, rng=0, on_failure="ignore"
        )

    def time_start(self, init: str, _: str) -> None:
        self.run(init, 0)

    def track_error_start(self, init: str, _: str) -> float:
        return relative_error(self.X, self.run(init, 5))

    track_error_start.unit = "residual / norm after five iterations"


class Divergence(Pinned):
    """Kullback-Leibler on sparse counts: the same number of iterations."""

    params = (["newton", "mu"], ["random", "nndsvda"])
    param_names = ("solver", "init")

    def setup(self, solver: str, init: str) -> None:
        self.pin()
        *sizes, self.rank = FULL.nmf_sparse
        self.X = counts(*sizes)
        self.run(solver, init, 1)

    def run(self, solver: str, init: str, n_iter: int = 20) -> Any:
        return randla.nmf(
            self.X, self.rank, loss="kl", solver=solver, init=init, tol=0.0, max_iter=n_iter, rng=0, on_failure="ignore"
        )

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        return self.run(*parameters).error

    track_error_fit.unit = "divergence / that of a constant"


class Masked(Pinned):
    """A fifth of the entries hidden, dense with NaN or sparse; the error is that of the hidden ones."""

    params = (["nan", "sparse"], [10, 40])
    param_names = ("storage", "rank")

    def setup(self, storage: str, rank: int) -> None:
        import scipy.sparse

        self.pin()
        self.truth = planted(1_000, 500, 10, 0.3)
        self.hidden = np.random.default_rng(1).random(self.truth.shape) < 0.2
        if storage == "nan":
            self.X = np.where(self.hidden, np.nan, self.truth)
        else:
            rows, cols = np.nonzero(~self.hidden)
            self.X = scipy.sparse.csr_array((self.truth[rows, cols], (rows, cols)), shape=self.truth.shape)
        self.run(storage, rank, n_iter=1)

    def run(self, storage: str, rank: int, n_iter: int = 50) -> Any:
        absent = "missing" if storage == "sparse" else None
        return randla.masked_nmf(
            self.X, rank, absent=absent, alpha_W=0.1, alpha_H=0.1, tol=0.0, max_iter=n_iter, rng=0, on_failure="ignore"
        )

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        left = (self.run(*parameters).to_dense() - self.truth)[self.hidden]
        return float(np.linalg.norm(left) / np.linalg.norm(self.truth[self.hidden]))

    track_error_fit.unit = "residual / norm of the hidden entries"


class Stream(Pinned):
    """One pass over blocks of rows, and codes of all rows for the parts that were found."""

    params = (["learn", "encode"], [10, 40])
    param_names = ("task", "rank")

    def setup(self, task: str, rank: int) -> None:
        self.pin()
        self.X = planted(20_000, 200, 20, 0.3)
        self.rows = randla.RowBlocks.from_array(self.X, block_bytes=1024 * self.X[0].nbytes)
        self.parts = self.learn(rank)
        self.run(task, rank)

    def learn(self, rank: int) -> Any:
        return randla.minibatch_nmf(self.rows, rank, n_passes=1, rng=0).H

    def run(self, task: str, rank: int) -> Any:
        return self.learn(rank) if task == "learn" else randla.nonneg_codes(self.X, self.parts)

    def time_stream(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_stream(self, task: str, rank: int) -> float:
        """Of all rows in the parts: what a pass learns is judged by its codes."""
        found = self.run(task, rank)
        H, W = (found, randla.nonneg_codes(self.X, found)) if task == "learn" else (self.parts, found)
        return relative_error(self.X, (W, H))

    track_error_stream.unit = "residual / norm"
