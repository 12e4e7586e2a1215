"""How long do scores of rows take, how good are they, and what do samples drawn by them keep?"""

from __future__ import annotations

from typing import Any

import numpy as np

from randla.diagnostics import subspace_distortion
from randla.sampling import leverage_scores, lewis_weights, lp_sensitivities, sample_rows, total_sensitivity

from .common import Pinned


def heavy_tailed(m: int, n: int) -> np.ndarray:
    """Student-t(1.5) with fifty rows of fifty times the size: what scores are for."""
    A = np.random.default_rng(0).standard_t(1.5, size=(m, n))
    A[:50] *= 50
    return A


class LewisWeights(Pinned):
    """Five steps on a tall matrix; a pass of leverage scores by QR is the yardstick."""

    params = ([1.0, 1.5, 3.0, 8.0], [1, 2])
    param_names = ("p", "threads")

    def setup(self, p: float, n_threads: int) -> None:
        self.pin(n_threads)
        self.A = heavy_tailed(1_000_000, 20)
        lewis_weights(self.A[:2000], p, rng=0)

    def time_weights(self, p: float, *parameters: Any) -> None:
        lewis_weights(self.A, p, rng=0)

    def peakmem_weights(self, p: float, *parameters: Any) -> None:
        lewis_weights(self.A, p, rng=0)

    def track_error_weights(self, p: float, *parameters: Any) -> float:
        """How far the leverage scores of the weighted rows are above the weights: what sampling suffers from."""
        A = self.A[:100_000]
        w = lewis_weights(A, p, rng=0)
        Q = np.linalg.qr(A * np.exp((0.5 - 1 / p) * np.log(w))[:, None])[0]
        heavy = w > 1e-12 * w.max()  # below, the rounding of this QR is larger than the weights
        return float(np.max(np.sum(Q * Q, axis=1)[heavy] / w[heavy]) - 1)

    track_error_weights.unit = "largest overshoot"

    def time_qr(self, *parameters: Any) -> None:
        Q = np.linalg.qr(self.A)[0]
        np.sum(Q * Q, axis=1)

    def time_leverage(self, *parameters: Any) -> None:
        leverage_scores(self.A, rng=0)


class Sensitivities(Pinned):
    """Exact, by buckets, and bounded."""

    params = ([1.0, 1.5, 3.0], ["exact", "sampled", "buckets", "bounds"])
    param_names = ("p", "method")

    def setup(self, p: float, method: str) -> None:
        self.pin()
        self.A = heavy_tailed(2000, 6)
        lp_sensitivities(self.A[:50], p, method=method, rng=0)

    def time_sensitivities(self, p: float, method: str) -> None:
        lp_sensitivities(self.A, p, method=method, rng=0)

    def track_error_sensitivities(self, p: float, method: str) -> float:
        truth = lp_sensitivities(self.A, p, method="exact", rng=0)
        return float(np.sum(np.abs(lp_sensitivities(self.A, p, method=method, rng=0) - truth)) / np.sum(truth))

    track_error_sensitivities.unit = "relative l_1 distance to exact ones"

    def time_total(self, p: float, *parameters: Any) -> None:
        total_sensitivity(self.A, p, rng=0)

    def track_error_total(self, p: float, *parameters: Any) -> float:
        truth = float(np.sum(lp_sensitivities(self.A, p, method="exact", rng=0)))
        return abs(total_sensitivity(self.A, p, rng=0).value / truth - 1)

    track_error_total.unit = "relative"


class Samples(Pinned):
    """A sample of 200 of 20,000 rows, drawn by different scores."""

    params = ([1.0, 1.5, 3.0], ["uniform", "leverage", "lewis"])
    param_names = ("p", "scores")

    def setup(self, p: float, name: str) -> None:
        self.pin()
        self.A = heavy_tailed(20_000, 10)
        self._sample(p, name, 0)

    def _sample(self, p: float, name: str, key: int) -> np.ndarray:
        scores = {
            "uniform": lambda: np.ones(len(self.A)),
            "leverage": lambda: leverage_scores(self.A, rng=0),
            "lewis": lambda: lewis_weights(self.A, p, rng=0),
        }
        return sample_rows(scores[name](), 200, p=p, rng=key).apply(self.A)

    def time_sample(self, p: float, name: str) -> None:
        self._sample(p, name, 0)

    def track_error_sample(self, p: float, name: str) -> float:
        found = [subspace_distortion(self.A, self._sample(p, name, key), p, rng=0).distortion for key in range(5)]
        return float(np.median(found))

    track_error_sample.unit = "median distortion"
