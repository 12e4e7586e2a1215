"""How long do sums over pairs and fits of second moments take, and how far is the row space from the true one?"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from randla.completion.moments import PairMoments
from randla.completion.onesided import OneSidedResult, one_sided_completion

from .common import Pinned


def few_entries(m: int, d: int, n: int, rank: int) -> tuple[np.ndarray, sp.csr_array]:
    """Factors (d, rank), and m Gaussian rows with them of which n entries in random columns are stored."""
    rng = np.random.default_rng(0)
    V = rng.standard_normal((d, rank))
    columns = np.sort(rng.integers(0, d - n + 1, (m, n)), axis=1) + np.arange(n)
    values = np.concatenate(
        [np.einsum("ik,ijk->ij", rng.standard_normal((len(c), rank)), V[c]) for c in np.array_split(columns, 20)]
    )
    return V, sp.csr_array((values.ravel(), columns.ravel(), np.arange(0, n * m + 1, n)), shape=(m, d))


def scipy_sums(X: sp.csr_array) -> tuple[sp.csr_array, sp.csr_array]:
    """Sums and counts of all pairs by two sparse products."""
    mask = sp.csr_array((np.ones(X.nnz, np.int64), X.indices, X.indptr), shape=X.shape)
    return X.T.tocsr() @ X, mask.T.tocsr() @ mask


class PairSums(Pinned):
    """Sums of products and counts of pairs, beside two sparse products of SciPy, which know no groups of rows."""

    params = ([(1_000_000, 20_000, 2), (100_000, 5_000, 20), (200_000, 100, 2)], ["randla", "scipy"])
    param_names = ("shape", "method")

    def setup(self, shape: tuple[int, int, int], method: str) -> None:
        self.pin()
        self.X = few_entries(*shape, 2)[1]
        self.run(method)

    def run(self, method: str) -> Any:
        return scipy_sums(self.X) if method == "scipy" else PairMoments(self.X.shape[1]).update(self.X)

    def time_sums(self, shape: tuple[int, int, int], method: str) -> None:
        self.run(method)

    def peakmem_sums(self, shape: tuple[int, int, int], method: str) -> None:
        self.run(method)

    def track_error_sums(self, shape: tuple[int, int, int], method: str) -> float:
        """Against the squares of columns in extended precision."""
        squares = np.zeros(self.X.shape[1], np.longdouble)
        np.add.at(squares, self.X.indices, self.X.data.astype(np.longdouble) ** 2)
        if method == "scipy":
            found = self.run(method)[0].diagonal()
        else:
            means, counts = self.run(method).matrices()
            found = means.diagonal() * counts.diagonal()
        return float(np.abs(found - squares).max() / squares.max())

    track_error_sums.unit = "error / largest"


class SecondMoments(Pinned):
    """Fits to given sums, with and without the estimate of their error."""

    params = ([(50_000, 100, 2, 3), (200_000, 600, 2, 3), (200_000, 5_000, 10, 5)], [False, True])
    param_names = ("shape", "check")

    def setup(self, shape: tuple[int, int, int, int], check: bool) -> None:
        self.pin()
        self.V, X = few_entries(*shape)
        self.moments = PairMoments(X.shape[1]).update(X)

    def run(self, shape: tuple[int, int, int, int], check: bool) -> OneSidedResult:
        return one_sided_completion(self.moments, shape[3], rng=0, check=check, on_failure="ignore")

    def time_fit(self, shape: tuple[int, int, int, int], check: bool) -> None:
        self.run(shape, check)

    def peakmem_fit(self, shape: tuple[int, int, int, int], check: bool) -> None:
        self.run(shape, check)

    def track_error_fit(self, shape: tuple[int, int, int, int], check: bool) -> float:
        return float(np.degrees(scipy.linalg.subspace_angles(self.run(shape, check).V, self.V)).mean())

    track_error_fit.unit = "degrees between the row spaces"
