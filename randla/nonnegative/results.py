"""What nonnegative factorisations return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from .._results import Result, Status


@dataclass(frozen=True, repr=False)
class NMFResult(Result):
    """Nonnegative factors ``X ~ W H`` with the loss that was reached and how stationary it is.

    Attributes
    ----------
    W : array, shape (m, rank)
        Left factor, nonnegative.
    H : array, shape (rank, n)
        Right factor, nonnegative.
    error : float
        ``||X - W H||_F / ||X||_F``, exact: over all entries, or over the observed ones.  For another loss than
        "frobenius" it is the divergence over that of the best constant matrix.
    error_kind : str
        "exact".
    loss : str or float
        The loss: "frobenius", "kl" or the number beta.
    objective : float
        The loss with its penalties: ``||X - W H||_F^2 / 2`` for "frobenius".
    stationarity : float
        Scale-free size of the projected gradient, see `nmf`: 0 at a stationary point.
    solver : str
        The solver that ran.
    reason : str
        Why it was taken.
    n_iter : int
        Iterations of the start that won.
    n_passes : int
        Products with X in that start, in passes over X.
    history : tuple of float
        The objective of that start at its begin and after each iteration; where it extrapolates, it may rise before
        a restart, but W and H are the best ones.
    start_objectives : tuple of float
        The objective that each start reached.
    n_revived : int
        Parts that had died and were begun anew.
    status : Status
        How that start ended.
    """

    W: Any
    H: Any
    error: float
    loss: str | float = "frobenius"
    objective: float = math.nan
    stationarity: float = math.nan
    solver: str = ""
    reason: str = ""
    n_iter: int = 0
    n_passes: float = 0.0
    history: tuple[float, ...] = ()
    start_objectives: tuple[float, ...] = ()
    n_revived: int = 0
    error_kind: str = "exact"
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("W", "H")

    @property
    def rank(self) -> int:
        """Number of parts."""
        return int(self.H.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the approximated matrix."""
        return int(self.W.shape[0]), int(self.H.shape[1])

    def matmul(self, X: Any) -> Any:
        """Return ``W (H X)`` for a matrix of n rows."""
        xp = array_namespace(self.W)
        return xp.matmul(self.W, xp.matmul(self.H, X))

    def to_dense(self) -> Any:
        """Return the product ``W H``, shape (m, n)."""
        return array_namespace(self.W).matmul(self.W, self.H)
