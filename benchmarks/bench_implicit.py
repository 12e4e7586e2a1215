"""How long do models of implicit feedback take, and how good are their objectives and their lists?"""

from __future__ import annotations

from typing import Any

import numpy as np

import randla

from .common import FULL, QUICK, Pinned, interactions

SWEEPS = 5


class Implicit(Pinned):
    """Five sweeps, by solver and number of threads."""

    params = (["cholesky", "cg"], [16, 64], [1, 2])
    param_names = ("solver", "rank", "threads")

    def setup(self, solver: str, rank: int, n_threads: int) -> None:
        self.pin(n_threads)
        self.C = interactions(*FULL.implicit[:3])
        self.run(solver, rank, n_iter=1)

    def run(self, solver: str, rank: int, *_: Any, n_iter: int = SWEEPS) -> Any:
        return randla.implicit_als(
            self.C, rank, reg=10.0, solver=solver, max_iter=n_iter, tol=0.0, rng=0, on_failure="ignore"
        )

    def time_sweeps(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_sweeps(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_sweeps(self, *parameters: Any) -> float:
        return self.run(*parameters).loss / float(np.sum(self.C.data))

    track_error_sweeps.unit = "objective over that of factors of zero"


class NewRows(Pinned):
    """A tenth of the rows as new ones: the exact solution, and lists of 20."""

    params = ([16, 64],)
    param_names = ("rank",)

    def setup(self, rank: int) -> None:
        self.pin()
        self.split = randla.split_rows(interactions(*FULL.implicit[:3]), 0.1, rng=0)
        self.model = randla.ImplicitALS(rank, reg=10.0, tol=1e-3, random_state=0).fit(self.split.train)
        self.lists()

    def lists(self) -> Any:
        return self.model.recommend_new(self.split.fold_in, 20).columns

    def time_fold_in(self, *parameters: Any) -> None:
        self.lists()

    def track_error_fold_in(self, *parameters: Any) -> float:
        return 1.0 - randla.ranking_scores(self.lists(), self.split.held).ndcg

    track_error_fold_in.unit = "1 - NDCG at 20"


class Ease(Pinned):
    """The inverse and its approximations, for 3,000 columns."""

    params = (["exact", "svd", "nystrom", "threshold"], ["float32", "float64"])
    param_names = ("method", "dtype")

    def setup(self, method: str, dtype: str) -> None:
        self.pin()
        C = interactions(*FULL.ease)
        C.data[:] = 1.0
        self.split = randla.split_rows(C, 0.1, rng=0)
        options: dict[str, dict[str, Any]] = {
            "exact": {}, "threshold": {"threshold": 0.01}, "svd": {"approx": "svd", "rank": 64},
            "nystrom": {"approx": "nystrom"},
        }  # fmt: skip
        self.fit = lambda: randla.ease(self.split.train, 500.0, dtype=dtype, rng=0, **options[method])
        randla.ease(interactions(*QUICK.ease), 500.0, dtype=dtype, rng=0, **options[method])

    def time_fit(self, *parameters: Any) -> None:
        self.fit()

    def peakmem_fit(self, *parameters: Any) -> None:
        self.fit()

    def track_error_inverse(self, *parameters: Any) -> float:
        return self.fit().error

    track_error_inverse.unit = "||(X'X + reg I) P - I|| / sqrt(n)"

    def track_error_lists(self, *parameters: Any) -> float:
        lists = self.fit().recommend(self.split.fold_in, 20).columns
        return 1.0 - randla.ranking_scores(lists, self.split.held).ndcg

    track_error_lists.unit = "1 - NDCG at 20"
