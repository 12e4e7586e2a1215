"""Observed entries plus a product of factors as a linear map: known by its products, never formed."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import device, is_cupy_namespace, is_numpy_namespace

from .._arrays import from_host
from .._backend import kernel
from ..linear_maps import LinearMap, Look
from .observations import Observations


class SparsePlusLowRank(LinearMap):
    """``P + left @ right^T`` where P holds the observed entries and zeros; without factors it is P alone."""

    def __init__(self, observed: Observations, left: Any = None, right: Any = None) -> None:
        super().__init__(observed.shape, observed.data.dtype, observed.xp, device(observed.data))
        self.observed, self.left, self.right = observed, left, right
        self.knows_norm = left is None

    def _matmul(self, X: Any) -> Any:
        P = self.observed
        Y = kernel("csr_matmul", self.xp)(P.data, P.indices, P.indptr, X)
        return Y if self.left is None else Y + self.xp.matmul(self.left, self.xp.matmul(self.right.mT, X))

    def _rmatmul(self, Y: Any) -> Any:
        P = self.observed
        if is_numpy_namespace(self.xp) or is_cupy_namespace(self.xp):
            X = kernel("csr_rmatmul", self.xp)(P.data, P.indices, P.indptr, Y, self.shape[1])
        else:  # its truth is for NumPy only
            T = P.transposed
            X = kernel("csr_matmul", self.xp)(T.data, T.indices, T.indptr, Y)
        return X if self.left is None else X + self.xp.matmul(self.right, self.xp.matmul(self.left.mT, Y))

    def _sketch_columns(self, S: Any) -> Any:
        return self._matmul(self._panel(S))

    def _look(self, S: Any) -> Look:
        P, xp = self.observed, self.xp
        squares = math.nan
        if self.left is None:
            squares = float(xp.sum(xp.astype(P.data, xp.float64) ** 2))
        if S is None or not is_numpy_namespace(xp):
            return Look(None if S is None else self._rmatmul(self._panel(S)).mT, squares, squares, None)
        from scipy.sparse import csr_array

        SA = xp.astype(S.matmul(csr_array((P.data, P.indices, P.indptr), shape=self.shape)), self.dtype)
        if self.left is not None:
            SA = SA + xp.matmul(xp.astype(S.matmul(self.left), self.dtype), self.right.mT)
        return Look(SA, squares, squares, None)

    def _panel(self, S: Any) -> Any:
        """The adjoint of a sketch operator as an array."""
        return self.xp.astype(from_host(S.toarray(), self.xp, self._like()).mT, self.dtype)
