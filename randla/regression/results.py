"""Results of the regression algorithms: the solution first, then how good it is and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .._results import Result, Status


@dataclass(frozen=True)
class LstsqStep:
    """What a callback of `lstsq` is told after each step of an iteration.

    Attributes
    ----------
    n_iter : int
        Steps done.
    error : float
        The quantity that is to fall below the tolerance, as the iteration knows it: the relative backward error, or the
        relative error of the fitted values where `tol` is given; the largest over the right-hand sides.
    n_passes : int
        Reads of A so far.
    """

    n_iter: int
    error: float
    n_passes: int


@dataclass(frozen=True, repr=False)
class LstsqResult(Result):
    """Solution of a least-squares problem; iterates as ``(x,)``.

    Numbers that belong to a right-hand side are floats for b of shape (m,) and tuples of floats for (m, k).

    Attributes
    ----------
    x : array, shape (n,) or (n, k)
        The solution.
    residual_norm : float
        ``||A x - b||``, of the weighted rows where there are weights, without the term of `damp`.
    normal_residual : float
        ``||A^* r|| / (||A||_F ||r||)`` with r = b - A x and columns scaled as for `condition`: zero at the solution.
    error : float
        Estimate of ``||A (x - x*)|| / ||b||``, the relative error of the fitted values against the exact solution x*.
    backward_error : float
        Estimate of the least relative change of A and b, ``||[dA, theta db]||_F / ||A||_F`` with
        theta = ||A||_F / ||b||, that makes x an exact solution.
    coordinate_error : array, shape of x, or None
        For method "sketch": the size of the error of each coordinate under a sketch with the coordinate guarantee.
    condition : float
        Estimate of the ratio of the extreme singular values that are kept, of A with columns scaled to equal norms.
    rank : int
        Numerical rank; below min(m, n) the solution is the one of least norm.
    method : str
        The method that was used.
    reason : str
        Why, and with which preconditioner.
    n_iter, n_passes : int
        Steps of the iteration, and reads of A.
    history : tuple of float
        The error of `LstsqStep` after each step.
    status : Status
        RANK_DEFICIENT means converged, to the solution of least norm.
    """

    x: Any
    residual_norm: Any
    normal_residual: Any
    error: Any
    backward_error: Any
    coordinate_error: Any
    condition: float
    rank: int
    method: str
    reason: str
    n_iter: int
    n_passes: int
    history: tuple[float, ...]
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("x",)
