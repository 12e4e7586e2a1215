"""How long does a coordinated sample take, and how far off is what two of them say of a product?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

import randla
from randla.sampling import PrioritySampler, ThresholdSampler, estimate_product, matmul_approx

from .common import FULL, Pinned, tables

SAMPLERS = {"priority": PrioritySampler, "threshold": ThresholdSampler}
N_KEYS = 20
M, P, Q, _ = FULL.tables


def _dense() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1_000_000, 20))


def _csr() -> sp.csr_array:
    rng = np.random.default_rng(1)
    columns = np.sort(rng.integers(0, 1000, (1_000_000, 10)), axis=1).ravel()
    A = sp.csr_array((rng.standard_normal(columns.size), columns, np.arange(0, columns.size + 1, 10)))
    A.sum_duplicates()
    return A


TABLES = {"dense 1e6 x 20": _dense, "csr 1e6 x 1000": _csr}


class OnePass(Pinned):
    """Sketching a table in memory: the sum of its values, one read, stands for the limit."""

    params = (list(TABLES), ["priority", "threshold", "moments", "given keys", "one read"], [1, 2])
    param_names = ("table", "method", "threads")

    def setup(self, table: str, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.A = TABLES[table]()
        keys = np.random.default_rng(2).permutation(self.A.shape[0]) if method == "given keys" else None
        weight = "moments" if method == "moments" else "l2"
        sampler = SAMPLERS.get(method, PrioritySampler)(1000, weight=weight, rng=0)
        values = self.A.data if sp.issparse(self.A) else self.A
        self.work = values.sum if method == "one read" else lambda: sampler.sketch(self.A, keys)
        self.work()

    def time_sketch(self, *parameters: Any) -> None:
        self.work()

    def peakmem_sketch(self, *parameters: Any) -> None:
        self.work()

    def track_error_sketch(self, table: str, method: str, *parameters: Any) -> float:
        """Relative error of the squared norm of the table from its sample; of the sum itself, nothing."""
        if method == "one read":
            return 0.0
        S = self.work()
        estimate = estimate_product(S, S).value
        return float(abs(estimate.trace() - S.squared_norm) / S.squared_norm)

    track_error_sketch.unit = "relative error of the squared norm"


class EqualStorage(Pinned):
    """A product of two sparse tables from sketches of equal size, counted in words of 64 bits."""

    params = ([0.005, 0.01, 0.02, 0.04, 0.1, 0.3], [200, 1000], ["priority", "threshold", "countsketch", "sparse-sign"])
    param_names = ("density", "n_samples", "method")

    def setup(self, density: float, n_samples: int, method: str) -> None:
        self.pin()
        self.A, self.B = tables(M, (P, Q), density)
        sample = PrioritySampler(n_samples, rng=0)
        n_words = sample.sketch(self.A).n_words + sample.sketch(self.B).n_words
        self.n_rows = max(1, round(n_words / (P + Q)))
        self.estimate(n_samples, method, 0)

    def estimate(self, n_samples: int, method: str, key: int) -> Any:
        if method in SAMPLERS:
            sampler = SAMPLERS[method](n_samples, rng=key)
            return estimate_product(sampler.sketch(self.A), sampler.sketch(self.B), on_failure="ignore").value
        if method == "countsketch":
            S: Any = randla.CountSketch(self.n_rows, M, rng=key)
        else:
            S = randla.SparseSign(self.n_rows, M, nnz=min(8, self.n_rows), rng=key)
        return (S @ self.A).T @ (S @ self.B)

    def time_product(self, density: float, n_samples: int, method: str) -> None:
        self.estimate(n_samples, method, 0)

    def track_error_product(self, density: float, n_samples: int, method: str) -> tuple[float, float]:
        """Root mean square error over keys, and that of answering zero, relative to ||A|| ||B||."""
        W = (self.A.T @ self.B).toarray()
        squares = [np.sum(np.asarray(self.estimate(n_samples, method, key) - W) ** 2) for key in range(N_KEYS)]
        norm = sp.linalg.norm(self.A) * sp.linalg.norm(self.B)
        return float(np.mean(squares) ** 0.5 / norm), float(np.linalg.norm(W) / norm)

    track_error_product.unit = "error / (||A|| ||B||): of the method, of zero"


class ApproximateProduct(Pinned):
    """`matmul_approx` of dense factors against the whole product."""

    params = (["row-norm", "coordinated", "countsketch", "sparse-sign", "exact"], [500, 5000])
    param_names = ("method", "n_samples")

    def setup(self, method: str, n_samples: int) -> None:
        self.pin()
        rng = np.random.default_rng(4)
        scales = rng.lognormal(size=50_000)
        self.A = rng.standard_normal((300, 50_000)) * scales
        self.B = self.A[:200].T + rng.standard_normal((50_000, 200))
        matmul_approx(self.A, self.B, n_samples, method=method, rng=0)

    def time_matmul(self, method: str, n_samples: int) -> None:
        matmul_approx(self.A, self.B, n_samples, method=method, rng=0)

    def track_error_matmul(self, method: str, n_samples: int) -> float:
        W = self.A @ self.B
        value = matmul_approx(self.A, self.B, n_samples, method=method, rng=0).value
        return float(np.linalg.norm(value - W) / np.linalg.norm(W))

    track_error_matmul.unit = "relative Frobenius error"
