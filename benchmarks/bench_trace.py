"""How long does a trace, a diagonal or a log-determinant take, how far off is it, and how wide is its interval?"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse

from randla.traces import diagonal, logdet, norm_estimate, trace

from .common import Pinned

SIZE, PRODUCTS = 4000, 100
SPECTRA: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverse square": lambda i: i**-2.0,
    "geometric": lambda i: 0.9**i,
    "flat": lambda i: 1.0 + 2.0 * i / SIZE,
}


@lru_cache(maxsize=1)
def positive_matrix(name: str) -> tuple[np.ndarray, float]:
    """A dense matrix with known eigenvalues, and its trace."""
    values = SPECTRA[name](np.arange(1.0, SIZE + 1.0))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=SIZE)
    # an orthogonal matrix that mixes all entries: random signs and a cosine transform
    A = scipy.fft.dct(np.diag(signs), norm="ortho") * np.sqrt(values)
    A = A @ A.T
    return (A + A.T) / 2.0, float(np.sum(values))


def customary_trace(A: np.ndarray) -> float:
    """Girard and Hutchinson as one writes it down: random signs, and the mean of quadratic forms."""
    W = np.random.default_rng(0).choice([-1.0, 1.0], size=(A.shape[0], PRODUCTS))
    return float(np.mean(np.sum(W * (A @ W), axis=0)))


METHODS: dict[str, Callable[[np.ndarray], Any]] = {
    **{
        f"randla {method}": lambda A, method=method: trace(A, PRODUCTS, method=method, rng=0)  # type: ignore[misc]
        for method in ("xtrace", "xnystrace", "xsymtrace", "hutchpp", "hutchinson")
    },
    "numpy hutchinson": customary_trace,
}


class Traces(Pinned):
    """A hundred products with a dense matrix of 4,000 rows."""

    params = (list(SPECTRA), list(METHODS))
    param_names = ("spectrum", "method")

    def setup(self, name: str, method: str) -> None:
        self.pin()
        (self.A, self.truth), self.call = positive_matrix(name), METHODS[method]
        self.result = self.call(self.A)

    def time_trace(self, *parameters: Any) -> None:
        self.call(self.A)

    def peakmem_trace(self, *parameters: Any) -> None:
        self.call(self.A)

    def track_error_trace(self, *parameters: Any) -> float:
        return abs(getattr(self.result, "estimate", self.result) / self.truth - 1.0)

    track_error_trace.unit = "relative error"

    def track_width_trace(self, name: str, method: str) -> float:
        if method.startswith("numpy"):
            raise NotImplementedError("a mean comes without an interval")
        return float(self.result.half_width / self.truth)

    track_width_trace.unit = "relative half width of the interval"


class Diagonals(Pinned):
    """All entries of the diagonal from a hundred products."""

    params = (list(SPECTRA), ["xdiag", "xnysdiag"])
    param_names = ("spectrum", "method")

    def setup(self, name: str, method: str) -> None:
        self.pin()
        self.A, _ = positive_matrix(name)
        self.result = diagonal(self.A, PRODUCTS, method=method, rng=0)

    def time_diagonal(self, name: str, method: str) -> None:
        diagonal(self.A, PRODUCTS, method=method, rng=0)

    def track_error_diagonal(self, *parameters: Any) -> float:
        truth = np.diag(self.A)
        return float(np.linalg.norm(self.result.estimate - truth) / np.linalg.norm(truth))

    track_error_diagonal.unit = "relative error"


class Logdets(Pinned):
    """The log-determinant of a sparse matrix of 100,000 rows, a shifted Laplacian of a grid."""

    params = ([0.01, 1.0],)
    param_names = ("shift",)

    def setup(self, shift: float) -> None:
        self.pin()
        side = 320
        line = scipy.sparse.diags_array(
            [-np.ones(side - 1), np.full(side, 2.0), -np.ones(side - 1)], offsets=[-1, 0, 1]
        )
        grid = scipy.sparse.kronsum(line, line) + shift * scipy.sparse.eye_array(side**2)
        self.A, self.shift = scipy.sparse.csr_array(grid), shift
        modes = 2.0 - 2.0 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))
        self.truth = float(np.sum(np.log(modes[:, None] + modes[None, :] + shift)))

    def time_logdet(self, shift: float) -> None:
        logdet(self.A, 10, 40, smallest=shift, rng=0)

    def track_error_logdet(self, shift: float) -> float:
        return abs(logdet(self.A, 10, 40, smallest=shift, rng=0).estimate / self.truth - 1.0)

    track_error_logdet.unit = "relative error"


class SpectralNorms(Pinned):
    """The spectral norm with an upper bound within 10 %, beside that of LAPACK."""

    params = (["randla norm_estimate", "numpy norm"],)
    param_names = ("method",)

    def setup(self, method: str) -> None:
        self.pin()
        self.A, _ = positive_matrix("inverse square")
        self.A = self.A[:, :1500]
        self.call = (lambda A: norm_estimate(A, rng=0).estimate) if method.startswith("randla") else (
            lambda A: np.linalg.norm(A, 2)
        )  # fmt: skip

    def time_norm(self, *parameters: Any) -> None:
        self.call(self.A)

    def track_error_norm(self, *parameters: Any) -> float:
        top = np.linalg.eigvalsh(self.A.T @ self.A)[-1] ** 0.5
        return float(abs(self.call(self.A) / top - 1.0))

    track_error_norm.unit = "relative error"
