"""How long does least squares take, and how far is it from the solution of LAPACK?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse

import randla

from . import customary
from .common import FULL, Pinned, regression_error, regression_problem

METHODS = {
    "randla auto": lambda A, b: randla.lstsq(A, b, rng=0).x,
    "randla precondition": lambda A, b: randla.lstsq(A, b, method="precondition", rng=0).x,
    "randla sketch": lambda A, b: randla.lstsq(A, b, method="sketch", rng=0).x,
    "scipy gels": customary.gels,
    "scipy gelsy": customary.gelsy,
    "normal equations": customary.normal_equations,
}


@lru_cache(maxsize=1)
def _errors(shape: tuple[int, int], cond: float) -> Any:
    A, b = regression_problem(*shape, cond)
    return regression_error(A, b, customary.gels(A, b))


class LeastSquares(Pinned):
    """By method, size and condition number."""

    params = (list(FULL.regression), [1e1, 1e8, 1e12], list(METHODS), [1, 2])
    param_names = ("shape", "cond", "method", "threads")

    def setup(self, shape: tuple[int, int], cond: float, method: str, n_threads: int) -> None:
        if method == "normal equations" and cond > 1e6:
            raise NotImplementedError("they lose the small singular values, and Cholesky may fail")
        self.pin(n_threads)
        self.A, self.b = regression_problem(*shape, cond)
        self.solve = METHODS[method]
        self.solve(self.A[:2000], self.b[:2000])

    def time_solve(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def peakmem_solve(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def track_excess_solve(self, shape: tuple[int, int], cond: float, *parameters: Any) -> float:
        excess, _ = _errors(shape, cond)(self.solve(self.A, self.b))
        return excess

    track_excess_solve.unit = "residual norm over that of LAPACK, less 1"

    def track_backward_error_solve(self, shape: tuple[int, int], cond: float, *parameters: Any) -> float:
        _, backward = _errors(shape, cond)(self.solve(self.A, self.b))
        return backward

    track_backward_error_solve.unit = "backward error / ||A||_F"


class SparseLeastSquares(Pinned):
    """A sparse matrix with columns of very different lengths, beside LSMR."""

    params = (["randla auto", "scipy lsmr"], [1, 2])
    param_names = ("method", "threads")

    def setup(self, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        m, n, rng = 200_000, 200, np.random.default_rng(9)
        lengths = scipy.sparse.diags_array(np.geomspace(1.0, 1e-3, n))
        self.A = (scipy.sparse.random_array((m, n), density=0.05, rng=rng) @ lengths).tocsr()
        self.b = self.A @ rng.standard_normal(n) + rng.standard_normal(m)
        self.solve = METHODS[method] if method in METHODS else lambda A, b: customary.lsmr_solution(A, b, 1e-14)
        self.solve(self.A[:2000], self.b[:2000])

    def time_sparse(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def peakmem_sparse(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def track_gradient_sparse(self, *parameters: Any) -> float:
        r = self.b - self.A @ self.solve(self.A, self.b)
        return float(np.linalg.norm(self.A.T @ r) / np.linalg.norm(self.A.data) / np.linalg.norm(r))

    track_gradient_sparse.unit = "||A.T r|| / (||A||_F ||r||)"
