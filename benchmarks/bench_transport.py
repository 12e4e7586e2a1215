"""How long does entropic transport take by each method, and how far are the marginals off?"""

from __future__ import annotations

import numpy as np

import randla
from randla.transport.costs import as_cost

from .common import Pinned
from .jobs.transport import assignment, clouds, images, line

PROBLEMS = {
    "images": lambda: images(28),
    "line": lambda: line(1000, 800),
    "assignment": lambda: assignment(500),
    "clouds": lambda: clouds(1000, 30),
}


class Sinkhorn(Pinned):
    """Four problems at three regularisations, to a marginal error of 1e-9."""

    params = (list(PROBLEMS), [1e-2, 1e-3, 1e-4], ["auto", "newton"])
    param_names = ("problem", "reg", "method")

    def setup(self, problem: str, reg: float, method: str) -> None:
        self.pin()
        self.a, self.b, self.C = PROBLEMS[problem]()

    def run(self, reg: float, method: str) -> randla.TransportResult:
        return randla.sinkhorn(self.a, self.b, self.C, reg, method=method, on_failure="ignore")

    def time_sinkhorn(self, _: str, reg: float, method: str) -> None:
        self.run(reg, method)

    def track_error_sinkhorn(self, _: str, reg: float, method: str) -> float:
        return self.run(reg, method).marginal_error

    track_error_sinkhorn.unit = "absolute sum of both marginals' errors"


class Sweeps(Pinned):
    """One sweep in logarithms: costs stored, or made from points."""

    params = (["stored", "points"], [1000, 3000])
    param_names = ("cost", "size")

    def setup(self, cost: str, size: int) -> None:
        self.pin()
        rng = np.random.default_rng(0)
        X, Y = rng.random((size, 3)), rng.random((size, 3))
        points = randla.point_cost(X, Y)
        self.dense = ((X[:, None] - Y) ** 2).sum(2)
        self.cost = as_cost(self.dense) if cost == "stored" else points
        self.a, self.g = np.full(size, 1 / size), np.zeros(size)

    def time_sweep(self, _: str, __: int) -> None:
        self.cost.sweep(self.a, self.g, 1e-2)

    def track_error_sweep(self, _: str, __: int) -> float:
        f, _sums = self.cost.sweep(self.a, self.g, 1e-2)
        return float(np.abs(np.exp((f[:, None] + self.g - self.dense) / 1e-2).sum(1) - self.a).sum())

    track_error_sweep.unit = "absolute sum of the rows' errors"
