"""How long do column selections, interpolative and CUR decompositions take, and how far are they from the best rank?"""

from __future__ import annotations

from typing import Any

import numpy as np

from randla.lowrank.cur import cur
from randla.lowrank.interpolative import interpolative

from .common import Pinned, matrix_of_spectrum, skewed_csr, spectrum
from .customary import interp_decomp

SHAPE, RANK = (4_000, 3_000), 100


INTERPOLATIVE = {
    "randla interpolative": lambda A: tuple(interpolative(A, RANK, rng=0)),
    "randla interpolative, oversampled": lambda A: tuple(interpolative(A, RANK, coefficients="oversampled", rng=0)),
    "randla interpolative, sketch": lambda A: tuple(interpolative(A, RANK, coefficients="sketch", rng=0)),
    "scipy interp_decomp": lambda A: interp_decomp(A, RANK),
}
CORES = ("optimal", "sketched", "cross")
SELECTIONS = ("sketch-qr", "sketch-lu", "arp", "rbrp", "rpqr", "deim", "leverage", "qr")


def _least(name: str) -> float:
    return float(np.linalg.norm(spectrum(name, min(SHAPE))[RANK:]))


class Interpolative(Pinned):
    """Rank 100 of a dense matrix with a known spectrum."""

    params = (["poly", "exp"], list(INTERPOLATIVE), [1, 2])
    param_names = ("spectrum", "method", "threads")

    def setup(self, name: str, method: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.A, self.decompose = matrix_of_spectrum(*SHAPE, name), INTERPOLATIVE[method]
        self.decompose(self.A[:500, :400])

    def time_id(self, *parameters: Any) -> None:
        self.decompose(self.A)

    def peakmem_id(self, *parameters: Any) -> None:
        self.decompose(self.A)

    def track_error_id(self, name: str, *parameters: Any) -> float:
        J, X = self.decompose(self.A)
        return float(np.linalg.norm(self.A - self.A[:, J] @ X) / _least(name))

    track_error_id.unit = "error / optimal error"


class Selections(Pinned):
    """The same with every selection of columns."""

    params = (["poly", "exp"], list(SELECTIONS))
    param_names = ("spectrum", "selection")

    def setup(self, name: str, selection: str) -> None:
        self.pin()
        self.A = matrix_of_spectrum(*SHAPE, name)
        interpolative(self.A[:500], 10, selection=selection, rng=0)

    def time_selection(self, name: str, selection: str) -> None:
        interpolative(self.A, RANK, selection=selection, rng=0)

    def track_error_selection(self, name: str, selection: str) -> float:
        result = interpolative(self.A, RANK, selection=selection, rng=0)
        return result.error * result.norm / _least(name)

    track_error_selection.unit = "error / optimal error"


class CUR(Pinned):
    """Columns, core and rows at rank 100."""

    params = (["poly", "exp"], list(CORES))
    param_names = ("spectrum", "core")

    def setup(self, name: str, core: str) -> None:
        self.pin()
        self.A = matrix_of_spectrum(*SHAPE, name)
        cur(self.A[:500], 10, core=core, rng=0)

    def time_cur(self, name: str, core: str) -> None:
        cur(self.A, RANK, core=core, rng=0)

    def peakmem_cur(self, name: str, core: str) -> None:
        cur(self.A, RANK, core=core, rng=0)

    def track_error_cur(self, name: str, core: str) -> float:
        result = cur(self.A, RANK, core=core, rng=0)
        return float(np.linalg.norm(self.A - result.to_dense()) / _least(name))

    track_error_cur.unit = "error / optimal error"


class SparseCUR(Pinned):
    """Rank 50 of a sparse matrix, with sparse factors."""

    def setup(self) -> None:
        self.pin()
        self.A = skewed_csr(50_000, 20_000, 1_000_000)
        cur(self.A[:2000], 10, rng=0)

    def time_sparse_cur(self) -> None:
        cur(self.A, 50, rng=0)

    def peakmem_sparse_cur(self) -> None:
        cur(self.A, 50, rng=0)

    def track_error_sparse_cur(self) -> float:
        return float(cur(self.A, 50, rng=0).error)

    track_error_sparse_cur.unit = "relative error"
