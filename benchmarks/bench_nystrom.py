"""How long do kernel tiles, pivoted Cholesky factors and preconditioned solves take, and how accurate are they?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from randla.lowrank.kernel_functions import KernelMatrix
from randla.lowrank.nystrom import nystrom
from randla.lowrank.psd_solvers import nystrom_preconditioner, solve_psd
from randla.lowrank.rpcholesky import rpcholesky

from .common import Pinned

SHAPE = (30_000, 20)
COMPONENTS = 1_000
GAMMA = 0.05


def points(n: int = SHAPE[0]) -> np.ndarray:
    """Standard normal points, whose kernel has a slowly falling spectrum."""
    return np.random.default_rng(0).standard_normal((n, SHAPE[1]))


class Tiles(Pinned):
    """Entries of a radial kernel, `COMPONENTS` columns of them."""

    param_names = ("method",)
    params = ("randla", "scikit-learn", "gemm")

    def setup(self, method: str) -> None:
        X = points()
        self.exact = rbf_kernel(X[:500], X[:COMPONENTS], gamma=GAMMA)
        K = KernelMatrix(X, "rbf", gamma=GAMMA)
        ways: dict[str, Callable[[], Any]] = {
            "randla": lambda: K.columns(slice(0, COMPONENTS)),
            "scikit-learn": lambda: rbf_kernel(X, X[:COMPONENTS], gamma=GAMMA),
            "gemm": lambda: X @ X[:COMPONENTS].T,
        }
        self.run = ways[method]
        self.run()

    def time_tile(self, method: str) -> None:
        self.run()

    def track_error(self, method: str) -> float:
        """Largest difference to scikit-learn's values; the product alone is no kernel."""
        return 0.0 if method == "gemm" else float(np.max(np.abs(self.run()[:500] - self.exact)))


class Pivots(Pinned):
    """Randomly pivoted Cholesky; "gemm" is the product with as many operations, the limit."""

    param_names = ("method",)
    params = ("accelerated", "block", "robust", "gemm")
    timeout = 300

    def setup(self, method: str) -> None:
        K = KernelMatrix(points(), "rbf", gamma=GAMMA)
        if method == "gemm":
            F, G = np.ones((SHAPE[0], COMPONENTS)), np.ones((COMPONENTS, COMPONENTS // 2))
            self.run: Callable[[], Any] = lambda: F @ G
        else:
            self.run = lambda: rpcholesky(K, COMPONENTS, method=method, rng=0)
            rpcholesky(K, 64, method=method, rng=0)

    def time_factor(self, method: str) -> None:
        self.run()

    def track_error(self, method: str) -> float:
        """What is left of the trace, relative to it."""
        return 0.0 if method == "gemm" else self.run().error


class Solves(Pinned):
    """Kernel ridge regression of 2,000 points with and without preconditioners of rank 200."""

    param_names = ("preconditioner",)
    params = ("none", "rpcholesky", "gaussian")

    def setup(self, preconditioner: str) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((2_000, 5))
        self.K = KernelMatrix(KernelMatrix(X, "rbf", gamma=1 / 8).block(None, None), "precomputed")
        self.b = rng.standard_normal(2_000)
        self.solve(preconditioner)

    def solve(self, method: str) -> Any:
        """Solve with mu = 0.1."""
        P = None if method == "none" else nystrom_preconditioner(self.K, 0.1, 200, method=method, rng=0)
        return solve_psd(self.K, self.b, 0.1, preconditioner=P)

    def time_solve(self, preconditioner: str) -> None:
        self.solve(preconditioner)

    def time_one_pass(self, preconditioner: str) -> None:
        if preconditioner == "gaussian":
            nystrom(self.K, 200, rng=0)

    def track_error(self, preconditioner: str) -> float:
        """The residual that was reached."""
        return self.solve(preconditioner).residual

    def track_steps(self, preconditioner: str) -> int:
        """Products with the kernel matrix."""
        return self.solve(preconditioner).n_iter
