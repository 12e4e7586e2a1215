"""How long does completion take, how does a sweep grow with the rank, and how far off are the predictions?"""

from __future__ import annotations

from typing import Any

import numpy as np

import randla
from randla.completion.folding import fold_in
from randla.completion.observations import as_observations
from randla.completion.ranking import recommend

from .common import FULL, Pinned, completion_problem


class Complete(Pinned):
    """By solver and start, to the default tolerance."""

    params = (["cholesky", "cg"], ["svd", "random"], ["squared", "huber"], [1, 2])
    param_names = ("solver", "init", "loss", "threads")

    def setup(self, solver: str, init: str, loss: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.observed, *self.others = completion_problem(*FULL.completion)
        self.run(solver, init, loss)

    def run(self, solver: str, init: str, loss: str, *_: Any) -> Any:
        return randla.complete(
            self.observed, FULL.completion[2], reg=2e-3, solver=solver, init=init, loss=loss, rng=0, on_failure="ignore"
        )

    def time_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def peakmem_fit(self, *parameters: Any) -> None:
        self.run(*parameters)

    def track_error_fit(self, *parameters: Any) -> float:
        rows, cols, truth = self.others
        return float(np.sqrt(np.mean((self.run(*parameters).predict(rows, cols) - truth) ** 2)))

    track_error_fit.unit = "root mean square error, entries of standard deviation 1"


class Sweep(Pinned):
    """One sweep against the rank, at fixed entries: linear in it with "cg", cubic at last with "cholesky"."""

    params = ([16, 32, 64, 128], ["cholesky", "cg"])
    param_names = ("rank", "solver")

    def setup(self, rank: int, solver: str) -> None:
        self.pin()
        self.observed, *self.others = completion_problem(*FULL.completion)
        self.begun = self.run(rank, solver, None)

    def run(self, rank: int, solver: str, init: Any, n_iter: int = 1) -> Any:
        return randla.complete(
            self.observed,
            rank,
            reg=2e-3,
            solver=solver,
            init=init,
            max_iter=n_iter,
            tol=0.0,
            rng=0,
            on_failure="ignore",
        )

    def time_sweep(self, rank: int, solver: str) -> None:
        self.run(rank, solver, self.begun)

    def track_error_sweep(self, rank: int, solver: str) -> float:
        rows, cols, truth = self.others
        return float(np.sqrt(np.mean((self.run(rank, solver, self.begun).predict(rows, cols) - truth) ** 2)))

    track_error_sweep.unit = "root mean square error after two sweeps"


class Use(Pinned):
    """What a fitted model is for: entries, their deviations, new rows, and the best columns."""

    params = (["predict", "predict_std", "fold_in", "recommend"],)
    param_names = ("task",)

    def setup(self, task: str) -> None:
        self.pin()
        self.observed, self.rows, self.cols, self.truth = completion_problem(*FULL.completion)
        self.fit = randla.complete(self.observed, FULL.completion[2], reg=2e-3, rng=0)
        self.seen = as_observations(self.observed)
        self.run(task)

    def run(self, task: str) -> Any:
        if task == "predict":
            return self.fit.predict(self.rows, self.cols)
        if task == "predict_std":
            return self.fit.predict_std(self.rows, self.cols)
        if task == "fold_in":
            return fold_in(self.fit, self.observed)
        return recommend(self.fit.row_factors, self.fit.col_factors, None, 10, seen=self.seen)

    def time_use(self, task: str) -> None:
        self.run(task)

    def track_error_use(self, task: str) -> float:
        """Of predictions and of folded rows; the share of intervals that miss; the share of items that are not best."""
        found = self.run(task)
        fit, rows, cols = self.fit, self.rows, self.cols
        if task == "predict":
            return float(np.sqrt(np.mean((found - self.truth) ** 2)))
        if task == "predict_std":
            return float(np.mean(np.abs(fit.predict(rows, cols) - self.truth) > 1.96 * found))
        if task == "fold_in":
            folded = np.einsum("ik,ik->i", found.factors[rows], fit.col_factors[cols])
            return float(
                np.sqrt(np.mean((folded + fit.mean + found.bias[rows] + fit.col_bias[cols] - self.truth) ** 2))
            )
        scores = fit.row_factors[:50] @ fit.col_factors.T
        scores[self.observed[:50].toarray() != 0] = -np.inf
        best = np.sort(scores, axis=1)[:, ::-1][:, :10]
        return float(np.mean(~np.isclose(np.asarray(found.values)[:50], best)))

    track_error_use.unit = "error of the task, see its code"
