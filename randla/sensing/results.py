"""What is recovered from measurements: two factors, how well they fit, and which measurements do not belong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together
from .._results import Result, Status
from ..lowrank.orthonormal import core_svd


@dataclass(frozen=True, repr=False)
class RecoveryResult(Result):
    """A matrix ``U V^T`` recovered from linear measurements.

    Attributes
    ----------
    U : array, shape (d1, rank)
        Left factor.
    V : array, shape (d2, rank)
        Right factor; U itself for a positive semidefinite matrix.
    error : float
        How far the measurements are from being met; the quantity is named by `error_kind`.
    error_kind : str
        "median": median of ``|residual|`` over the median of ``|y|``; "held-out": the same over measurements that were
        not used; "residual": ``||residual|| / ||y||``.
    residual_scale : float
        Standard deviation of the residuals of the measurements that are not outliers, in units of y: from their median
        for the first two kinds (as of a normal distribution), their root mean square for the third.
    outliers : array of bool, shape (m,), or None
        The measurements that are judged outliers.  None where no robust loss was used.
    outlier_share : float
        Their share of all measurements.
    n_iter : int
        Steps done.
    history : tuple of float
        The error at the start and after each step.
    status : Status
    """

    U: Any
    V: Any
    error: float
    error_kind: str
    residual_scale: float
    outliers: Any
    outlier_share: float
    n_iter: int
    history: tuple[float, ...]
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("U", "V")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (d1, d2) of the recovered matrix."""
        return int(self.U.shape[0]), int(self.V.shape[0])

    @property
    def rank(self) -> int:
        """Columns of the factors; `singular_values` tells how many of them count."""
        return int(self.U.shape[1])

    def matmul(self, X: Any) -> Any:
        """The matrix times X, shape (d2,) or (d2, j), without forming it."""
        return self._product(self.U, self.V, X)

    def rmatmul(self, Y: Any) -> Any:
        """The transpose of the matrix times Y, shape (d1,) or (d1, j)."""
        return self._product(self.V, self.U, Y)

    @staticmethod
    def _product(left: Any, right: Any, X: Any) -> Any:
        X = as_matrix(X, name="X", sparse=False, vector=True)
        check_together(left, X, names=("the result", "X"))
        if X.shape[0] != right.shape[0]:
            raise ValueError(f"X must have {right.shape[0]} rows, got shape {tuple(X.shape)}")
        xp = array_namespace(left)
        Y = xp.matmul(left, xp.matmul(right.mT, X[:, None] if X.ndim == 1 else X))
        return Y[:, 0] if X.ndim == 1 else Y

    def to_dense(self) -> Any:
        """The matrix as an array (d1, d2)."""
        return array_namespace(self.U).matmul(self.U, self.V.mT)

    def singular_values(self) -> Any:
        """The singular values of the matrix in descending order, in double precision, from two thin factorisations."""
        xp = array_namespace(self.U)
        R, T = (xp.linalg.qr(xp.astype(side, xp.float64))[1] for side in (self.U, self.V))
        return core_svd(xp.matmul(R, T.mT))[1]
