"""The kernel matrix behind an estimator: compiled tiles where there are any, scikit-learn's kernels for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from array_api_compat import array_namespace
from sklearn.metrics.pairwise import KERNEL_PARAMS, PAIRWISE_KERNEL_FUNCTIONS, pairwise_kernels

from .._checks import check_choice, check_integer, check_real
from ..lowrank.kernel_functions import KernelMatrix

MATERN = ("matern32", "matern52")  # beyond scikit-learn's names
_NAMES = {"rbf": "rbf", "laplacian": "laplacian", "linear": "linear", "poly": "polynomial", "polynomial": "polynomial"}
_DIAGONAL_BLOCK = 32  # points that are met with one another where only the diagonal is wanted


class PairwiseKernel:
    """A kernel matrix of scikit-learn's kernels: of sparse points, callables of two samples, and rarer names.

    Offers what `KernelMatrix` offers: the diagonal, blocks, products by tiles, and the kernel with new points.
    """

    ndim = 2

    def __init__(self, X: Any, metric: Any, params: dict[str, Any]) -> None:
        self.X, self.metric, self.params = X, metric, params
        self.xp, self.device = array_namespace(np.empty(0)), "cpu"
        self.dtype, self.shape = X.dtype, (X.shape[0], X.shape[0])
        self.n_entries = 0

    def of(self, points: Any) -> PairwiseKernel:
        """The same kernel of other points."""
        return PairwiseKernel(points, self.metric, self.params)

    def diagonal(self) -> Any:
        """The main diagonal, shape (n,)."""
        blocks = (self.X[lo : lo + _DIAGONAL_BLOCK] for lo in range(0, self.shape[0], _DIAGONAL_BLOCK))
        return np.concatenate([np.diagonal(self._tile(P, P)) for P in blocks])

    def columns(self, index: Any) -> Any:
        """The columns of the given indices."""
        return self.block(None, index)

    def block(self, rows: Any, columns: Any) -> Any:
        """The entries of the given rows and columns; index arrays, slices, or None for all."""
        return self._tile(self._rows(rows), self._rows(columns))

    def cross(self, Y: Any, columns: Any = None) -> Any:
        """Kernel values of new points with the points of the given indices."""
        return self._tile(Y, self._rows(columns))

    def matmul(self, V: Any) -> Any:
        """The matrix times V, shape (n,) or (n, p), tile by tile."""
        return self.cross_matmul(self.X, V)

    def cross_matmul(self, Y: Any, V: Any, columns: Any = None) -> Any:
        """`cross` times V, tile by tile."""
        points, step = self._rows(columns), max(16, 2**20 // max(1, V.shape[0]))
        return np.concatenate([self._tile(Y[lo : lo + step], points) @ V for lo in range(0, Y.shape[0], step)])

    matvec = matmat = rmatvec = rmatmat = __matmul__ = matmul

    def _rows(self, index: Any) -> Any:
        return self.X if index is None else self.X[index]

    def _tile(self, P: Any, Q: Any) -> Any:
        self.n_entries += P.shape[0] * Q.shape[0]
        filtered = not callable(self.metric)
        values = pairwise_kernels(P, Q, metric=self.metric, filter_params=filtered, **self.params)
        return np.asarray(values, dtype=self.dtype)


def as_points(X: Any) -> Any:
    """Samples as a C-ordered array or a CSR matrix, with indices of 32 bits where they fit: some kernels need them."""
    if not sp.issparse(X):
        return np.ascontiguousarray(X)
    X = X.tocsr()
    if X.indices.dtype != np.int32 and max(X.nnz, *X.shape) < 2**31:
        X = type(X)((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=X.shape)
    return X


def kernel_parameters(estimator: Any) -> dict[str, Any]:
    """The parameters of the kernel of an estimator, checked as far as they are used."""
    kernel, params = estimator.kernel, dict(estimator.kernel_params or {})
    given = {name: getattr(estimator, name) for name in ("gamma", "coef0", "degree")}
    given = {name: value for name, value in given.items() if value is not None}
    if callable(kernel) or kernel == "precomputed":
        if given:
            name, value = next(iter(given.items()))
            raise ValueError(
                f"{name} must be None for a callable or precomputed kernel, got {value!r}; use kernel_params"
            )
        return params
    check_choice(kernel, "kernel", (*sorted(PAIRWISE_KERNEL_FUNCTIONS), *MATERN, "precomputed"))
    if "gamma" in given:
        check_real(given["gamma"], "gamma", low=0.0)
    if "coef0" in given:
        check_real(given["coef0"], "coef0")
    if "degree" in given:
        check_real(given["degree"], "degree", low=1.0)
    known = ("gamma",) if kernel in MATERN else tuple(KERNEL_PARAMS[kernel])
    return params | {name: value for name, value in given.items() if name in known}


def kernel_matrix_of(estimator: Any, X: Any, other: Any = None) -> Any:
    """The kernel matrix of the samples X for the kernel of an estimator, to be crossed with `other` samples."""
    params = kernel_parameters(estimator)
    kernel = estimator.kernel
    if kernel == "precomputed":
        return KernelMatrix(X, "precomputed")
    name = kernel if kernel in MATERN else _NAMES.get(kernel) if isinstance(kernel, str) else None
    gamma, coef0, degree = params.get("gamma"), params.get("coef0", 1.0), params.get("degree", 3)
    compiled = not (gamma is not None and gamma <= 0) and coef0 >= 0 and degree == int(degree)
    if name is not None and compiled and not (sp.issparse(X) or sp.issparse(other)):
        degree = check_integer(int(degree), "degree", low=1)
        return KernelMatrix(X, name, gamma=gamma, coef0=coef0, degree=degree)
    if kernel in MATERN:
        raise TypeError(f"X must be dense for kernel={kernel!r}, got a sparse matrix; pass X.toarray()")
    return PairwiseKernel(X, kernel, params)
