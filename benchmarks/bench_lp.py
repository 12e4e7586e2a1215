"""How long does l_p regression take, and how far is it from the minimum?"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

from randla.regression import lp_regression
from randla.sampling import select_rows

from . import customary
from .common import Pinned, absolute_problem

SHAPES = [(20_000, 8), (200_000, 8), (100_000, 30)]
ROWS = 1600


def _solution(A: np.ndarray, b: np.ndarray, **options: Any) -> np.ndarray:
    return lp_regression(A, b, rng=0, **options).x


METHODS = {
    "randla": partial(_solution, n_samples=ROWS),
    "randla, default size": _solution,
    "randla, sample only": partial(_solution, n_samples=ROWS, polish=0, tol=None),
    "HiGHS, dual program": customary.absolute_dual,
    "HiGHS, primal program": customary.absolute_program,
}


@lru_cache(maxsize=1)
def _minimum(shape: tuple[int, int]) -> float:
    return lp_regression(*absolute_problem(*shape), tol=1e-12, polish=20, rng=0).objective


class AbsoluteDeviations(Pinned):
    """p = 1 with Cauchy noise."""

    params = (SHAPES, list(METHODS))
    param_names = ("shape", "method")

    def setup(self, shape: tuple[int, int], method: str) -> None:
        if method == "HiGHS, primal program" and shape[0] > 20_000:
            raise NotImplementedError("the primal program of this size takes many minutes")
        self.pin()
        self.A, self.b = absolute_problem(*shape)
        self.solve = METHODS[method]
        self.solve(self.A[:2000], self.b[:2000])

    def time_solve(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def peakmem_solve(self, *parameters: Any) -> None:
        self.solve(self.A, self.b)

    def track_error_solve(self, shape: tuple[int, int], method: str) -> float:
        x = self.solve(self.A, self.b)
        return float(np.abs(self.A @ x - self.b).sum() / _minimum(shape) - 1.0)

    track_error_solve.unit = "objective over the minimum, less 1"


class OtherPowers(Pinned):
    """From a sample, or on all rows from the start."""

    params = ([1.05, 1.5, 3.0, 8.0], [ROWS, 200_000])
    param_names = ("p", "n_samples")

    def setup(self, p: float, n_samples: int) -> None:
        self.pin()
        self.A, self.b = absolute_problem(200_000, 8)
        self._solve(p, n_samples)

    def _solve(self, p: float, n_samples: int) -> Any:
        return lp_regression(self.A, self.b, p, n_samples=n_samples, polish=10, rng=0, on_failure="ignore")

    def time_solve(self, p: float, n_samples: int) -> None:
        self._solve(p, n_samples)

    def track_error_solve(self, p: float, n_samples: int) -> float:
        return self._solve(p, n_samples).excess_bound

    track_error_solve.unit = "proved bound of the objective over the minimum, less 1"


class Selection(Pinned):
    """Rows by score: the time to choose them, and the distortion of l_p norms."""

    params = (["lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform"], [1.0, 1.5, 3.0])
    param_names = ("scores", "p")

    def setup(self, scores: str, p: float) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        self.A = rng.standard_t(1.5, (200_000, 10))
        self.A[:500] *= 50
        self.X = rng.standard_normal((10, 200))
        self.norms = np.sum(np.abs(self.A @ self.X) ** p, axis=0)
        select_rows(self.A[:2000], 200, scores=scores, p=p, rng=0)

    def time_select(self, scores: str, p: float) -> None:
        select_rows(self.A, 1000, scores=scores, p=p, rng=0)

    def track_error_select(self, scores: str, p: float) -> float:
        found = []
        for seed in range(5):
            sampled = select_rows(self.A, 1000, scores=scores, p=p, rng=seed).apply(self.A)
            found.append(np.abs(np.sum(np.abs(sampled @ self.X) ** p, axis=0) / self.norms - 1.0).max())
        return float(np.median(found))

    track_error_select.unit = "largest relative error of ||A x||_p^p over 200 directions"
