"""What does the structure of a Kronecker product save, and what does it cost in accuracy?"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.kernel_approximation import PolynomialCountSketch

import randla
from randla.estimators._kernel import PolynomialTensorSketch
from randla.operators import KhatriRao, KroneckerSRHT, TensorSketch, TensorSRHT

from .common import Pinned

OPERATORS = {
    "tensor-sketch": TensorSketch,
    "tensor-srht": TensorSRHT,
    "khatri-rao": KhatriRao,
    "kronecker-srht": KroneckerSRHT,
}
EXPLICIT = "np.kron and CountSketch"  # what one does without a tensor sketch: form the product, then compress it
SHAPES = [(100, 100), (1000, 1000), (60, 60, 60)]


def factors(shapes: tuple[int, ...], columns: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((N, columns)) / N**0.5 for N in shapes]


def khatri_rao(arrays: list[np.ndarray]) -> np.ndarray:
    """The columnwise Kronecker product, formed."""
    product = arrays[0]
    for X in arrays[1:]:
        product = np.einsum("ij,kj->ikj", product, X).reshape(-1, X.shape[1])
    return product


def gram(arrays: list[np.ndarray]) -> np.ndarray:
    """The exact inner products of the Kronecker products of columns: products of those of the factors."""
    return np.prod([X.T @ X for X in arrays], axis=0)


class KroneckerColumns(Pinned):
    """S times the Kronecker products of 20 columns."""

    params = (SHAPES, [256, 2048], [*OPERATORS, EXPLICIT])
    param_names = ("shapes", "sketch_size", "operator")

    def setup(self, shapes: tuple[int, ...], sketch_size: int, operator: str) -> None:
        self.pin()
        self.factors = factors(shapes, 20)
        if operator == EXPLICIT:
            self.S: Any = randla.CountSketch(sketch_size, int(np.prod(shapes)), rng=0)
        else:
            self.S = OPERATORS[operator](sketch_size, shapes, rng=0)
        self._apply(operator)

    def _apply(self, operator: str) -> np.ndarray:
        return self.S @ khatri_rao(self.factors) if operator == EXPLICIT else self.S.apply_factors(self.factors)

    def time_apply(self, shapes: tuple[int, ...], sketch_size: int, operator: str) -> None:
        self._apply(operator)

    def peakmem_apply(self, shapes: tuple[int, ...], sketch_size: int, operator: str) -> None:
        self._apply(operator)

    def track_error_apply(self, shapes: tuple[int, ...], sketch_size: int, operator: str) -> float:
        B, exact = self._apply(operator), gram(self.factors)
        return float(np.linalg.norm(B.T @ B - exact) / np.linalg.norm(exact))

    track_error_apply.unit = "relative error of the inner products"


class PolynomialKernel(Pinned):
    """The feature map of (<x, y> + 1)**degree for 5000 samples of 100 features."""

    params = ([2, 3, 4], [256, 1024], ["float32", "float64"], ["randla", "scikit-learn"])
    param_names = ("degree", "n_components", "dtype", "library")

    def setup(self, degree: int, n_components: int, dtype: str, library: str) -> None:
        self.pin()
        X = np.random.default_rng(0).standard_normal((5000, 100))
        self.X = (X / np.linalg.norm(X, axis=1)[:, None]).astype(dtype)
        kind = PolynomialTensorSketch if library == "randla" else PolynomialCountSketch
        self.model = kind(n_components=n_components, degree=degree, coef0=1.0, random_state=0).fit(self.X)
        self.model.transform(self.X)

    def time_transform(self, *parameters: Any) -> None:
        self.model.transform(self.X)

    def track_error_transform(self, degree: int, *parameters: Any) -> float:
        X = self.X[:300].astype("float64")
        Z, exact = self.model.transform(self.X[:300]).astype("float64"), (X @ X.T + 1.0) ** degree
        return float(np.linalg.norm(Z @ Z.T - exact) / np.linalg.norm(exact))

    track_error_transform.unit = "relative error of the kernel matrix"
