"""How long does a CSR matrix times a dense panel take?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from randla import kernels

from .common import FULL, PANEL, Pinned, product_error, skewed_csr

METHODS: dict[tuple[str, str], Callable[[Any, np.ndarray], np.ndarray]] = {
    ("A @ X", "randla"): lambda A, X: kernels.csr_matmul(A.data, A.indices, A.indptr, X),
    ("A @ X", "scipy"): lambda A, X: A @ X,
    ("A.T @ Y", "randla"): lambda A, Y: kernels.csr_rmatmul(A.data, A.indices, A.indptr, Y, A.shape[1]),
    ("A.T @ Y", "scipy"): lambda A, Y: A.T @ Y,
}


class SparsePanel(Pinned):
    """Both directions, tall panels and single vectors."""

    params = (list(FULL.csr), ["A @ X", "A.T @ Y"], [1, PANEL], ["float32", "float64"], ["randla", "scipy"], [1, 2])
    param_names = ("shape", "product", "columns", "dtype", "method", "threads")

    def setup(
        self, shape: tuple[int, int, int], product: str, columns: int, dtype: str, method: str, n_threads: int
    ) -> None:
        if method == "scipy" and n_threads > 1:
            raise NotImplementedError("SciPy's sparse products use one thread")
        self.pin(n_threads)
        self.A = skewed_csr(*shape).astype(dtype)
        length = self.A.shape[1] if product == "A @ X" else self.A.shape[0]
        self.X = np.random.default_rng(3).standard_normal((length, columns), dtype=dtype)
        self.multiply = METHODS[product, method]
        self.multiply(self.A, self.X)

    def time_product(self, *parameters: Any) -> None:
        self.multiply(self.A, self.X)

    def peakmem_product(self, *parameters: Any) -> None:
        self.multiply(self.A, self.X)

    def track_error_product(self, shape: tuple[int, int, int], product: str, *parameters: Any) -> float:
        B = self.A if product == "A @ X" else self.A.T.tocsr()
        return product_error(B, self.X)(self.multiply(self.A, self.X))

    track_error_product.unit = "relative Frobenius error"
