"""How long do a tall QR factorisation and exact leverage scores take, and how accurate are they?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg

from randla.qr import cholesky_qr
from randla.sampling import leverage_scores

from .common import Pinned

SHAPE = (1_000_000, 50)
WIDE = (50_000, 500)


@lru_cache(maxsize=1)
def matrix_of_condition(m: int, n: int, condition: float) -> np.ndarray:
    """A row-major matrix with log-spaced singular values, orthonormal factors, and rows of about equal weight."""
    rng = np.random.default_rng(0)
    U = rng.standard_normal((m, n))
    U = U @ np.linalg.inv(np.linalg.cholesky(U.T @ U).T)
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (U * np.logspace(0, -np.log10(condition), n)) @ V.T


def householder_scores(A: np.ndarray) -> np.ndarray:
    """The customary way: the Q of LAPACK and its row norms."""
    Q = scipy.linalg.qr(A, mode="economic", check_finite=False)[0]
    return np.vecdot(Q, Q)


def gram_scores(A: np.ndarray) -> np.ndarray:
    """The fastest customary way, for well-conditioned data: the Gram matrix and products of blocks of rows."""
    inverse = np.linalg.inv(np.linalg.cholesky(A.T @ A).T)
    scores = np.empty(A.shape[0])
    for lo in range(0, A.shape[0], 1024):
        W = A[lo : lo + 1024] @ inverse
        np.vecdot(W, W, out=scores[lo : lo + 1024])
    return scores


SCORES = {
    "randla auto": lambda A: leverage_scores(A, rng=0),
    "randla qr": lambda A: leverage_scores(A, method="qr", rng=0),
    "randla sketch": lambda A: leverage_scores(A, method="sketch", rng=0),
    "scipy qr": householder_scores,
    "numpy gram": gram_scores,
}
FACTORISATIONS = {
    "randla cholesky_qr": lambda A: tuple(cholesky_qr(A, rng=0)),
    "randla cholesky_qr, pivoting": lambda A: tuple(cholesky_qr(A, pivoting=True, rng=0)),
    "scipy qr": lambda A: scipy.linalg.qr(A, mode="economic", check_finite=False),
    "scipy qr, pivoting": lambda A: scipy.linalg.qr(A, mode="economic", pivoting=True, check_finite=False),
}


def extended_scores(A: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Leverage scores of some rows, from a Gram matrix of whitened rows in extended precision."""
    n = A.shape[1]
    T = np.linalg.inv(np.linalg.qr(A, mode="r")).astype(np.longdouble)
    G = np.zeros((n, n), np.longdouble)
    for lo in range(0, A.shape[0], 4096):
        W = A[lo : lo + 4096].astype(np.longdouble) @ T
        G += W.T @ W
    inverse = np.linalg.inv(G.astype(np.float64)).astype(np.longdouble)
    for _ in range(3):
        inverse = inverse + inverse @ (np.eye(n, dtype=np.longdouble) - G @ inverse)
    W = A[rows].astype(np.longdouble) @ T
    return np.sum((W @ inverse) * W, axis=1)


class LeverageScores(Pinned):
    """Leverage scores of a million rows."""

    params = ([1e1, 1e3, 1e8], list(SCORES), [1, 2])
    param_names = ("condition", "method", "threads")

    def setup(self, condition: float, method: str, n_threads: int) -> None:
        if method == "numpy gram" and condition > 1e4:
            raise NotImplementedError("the Gram matrix of a badly conditioned matrix has no Cholesky factor")
        self.pin(n_threads)
        self.A, self.scores = matrix_of_condition(*SHAPE, condition), SCORES[method]
        self.scores(self.A[:5000])

    def time_scores(self, *parameters: Any) -> None:
        self.scores(self.A)

    def peakmem_scores(self, *parameters: Any) -> None:
        self.scores(self.A)

    def track_error_scores(self, *parameters: Any) -> float:
        A = self.A[:100_000]
        exact = extended_scores(A, np.arange(len(A)))
        return float(np.abs(self.scores(A) / exact - 1).max())

    track_error_scores.unit = "largest relative error of 100,000 rows"


class TallQR(Pinned):
    """Q and R of a tall matrix."""

    params = ([SHAPE, WIDE], [1e3, 1e12], list(FACTORISATIONS))
    param_names = ("shape", "condition", "method")

    def setup(self, shape: tuple[int, int], condition: float, method: str) -> None:
        self.pin()
        self.A, self.factorise = matrix_of_condition(*shape, condition), FACTORISATIONS[method]
        self.factorise(self.A[:2000])

    def time_qr(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def peakmem_qr(self, *parameters: Any) -> None:
        self.factorise(self.A)

    def track_error_qr(self, *parameters: Any) -> float:
        Q, R, *pivots = self.factorise(self.A)
        A = self.A if not pivots or pivots[0] is None else self.A[:, pivots[0]]
        return float(np.linalg.norm(A - Q @ R) / np.linalg.norm(A))

    track_error_qr.unit = "residual / norm"

    def track_error_orthogonality(self, *parameters: Any) -> float:
        Q = self.factorise(self.A)[0]
        return float(np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1])))

    track_error_orthogonality.unit = "norm of I - Q.T Q"
