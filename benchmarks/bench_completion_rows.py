"""How long do least squares of rows, a sweep of alternating minimisation and soft-impute take, at what error?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from randla import altmin_completion, masked_lstsq, soft_impute, svd

from .common import Pinned


def observed(m: int, n: int, rank: int, per_row: int, noise: float = 0.0) -> sp.csr_array:
    """Entries of a matrix of a rank, the same number in each row, with noise."""
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((m, rank)), rng.standard_normal((n, rank))
    columns = np.sort(np.argsort(rng.random((m, n)), axis=1)[:, :per_row], axis=1)
    values = np.einsum("ik,ijk->ij", U, V[columns]) / rank**0.5
    values += noise * rng.standard_normal(values.shape)
    return sp.csr_array((values.ravel(), columns.ravel(), np.arange(m + 1) * per_row), shape=(m, n))


class Rows(Pinned):
    """All rows of a matrix, to 1e-3 as a sweep needs them, against the factorisations that are exact."""

    params = ([16, 32, 64, 128], ["cholesky", "qr", "cg", "sketch"], ["float32", "float64"])
    param_names = ("k", "solver", "dtype")

    def setup(self, k: int, solver: str, dtype: str) -> None:
        self.pin()
        self.X = observed(2000, 1500, k, 600, noise=0.1).astype(dtype)
        self.V = np.random.default_rng(1).standard_normal((1500, k)).astype(dtype)
        self.run(solver)

    def run(self, solver: str) -> Any:
        X = self.X
        tol = 1e-3 if solver in ("cg", "sketch") else None
        return masked_lstsq(self.V, X.indptr, X.indices, X.data, solver=solver, tol=tol, rng=0)

    def time_solve(self, k: int, solver: str, dtype: str) -> None:
        self.run(solver)

    def track_error_solve(self, k: int, solver: str, dtype: str) -> float:
        exact = self.run("qr").X.astype(np.float64)
        return float(np.linalg.norm(self.run(solver).X - exact) / np.linalg.norm(exact))

    track_error_solve.unit = "||X - X*|| / ||X*||"


class Sweep(Pinned):
    """Ten sweeps at fixed observations: the time of "cg" grows like the rank, that of "cholesky" like its square."""

    params = ([16, 32, 64, 128], ["cholesky", "cg"])
    param_names = ("rank", "solver")

    def setup(self, rank: int, solver: str) -> None:
        self.pin()
        self.X = observed(2000, 1500, rank, 600)
        self.run(rank, solver)

    def run(self, rank: int, solver: str) -> Any:
        return altmin_completion(self.X, rank, solver=solver, tol=0.0, max_iter=10, rng=0, on_failure="ignore")

    def time_fit(self, rank: int, solver: str) -> None:
        self.run(rank, solver)

    def peakmem_fit(self, rank: int, solver: str) -> None:
        self.run(rank, solver)

    def track_error_fit(self, rank: int, solver: str) -> float:
        return self.run(rank, solver).error

    track_error_fit.unit = "root mean square residual"


class Nuclear(Pinned):
    """Soft-impute to a gap of 1e-3, at a strong and at a weak penalty."""

    params = ([0.3, 0.1], ["auto", "als", "svd"])
    param_names = ("reg / norm", "method")

    def setup(self, share: float, method: str) -> None:
        self.pin()
        self.X = observed(1000, 800, 10, 80, noise=0.3)
        self.reg = share * float(svd(self.X, 1, rng=0).s[0])
        self.run(method)

    def run(self, method: str) -> Any:
        return soft_impute(self.X, self.reg, method=method, tol=1e-3, rng=0, on_failure="ignore")

    def time_fit(self, share: float, method: str) -> None:
        self.run(method)

    def track_error_fit(self, share: float, method: str) -> float:
        return self.run(method).gap

    track_error_fit.unit = "duality gap / objective"
