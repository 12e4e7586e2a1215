"""Orthonormal basis of the leading column space of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._checks import check_choice
from .._random import as_key
from .._results import warn_or_raise
from ..linear_maps import AdjointMap, as_linear_map
from .approximation import approximate, plan
from .results import ON_FAILURE, RangeResult, Step, phases


def range_finder(
    A: Any, rank: int | None = None, *, tol: float | None = None, norm: str = "frobenius", method: str = "auto",
    n_oversamples: int = 10, n_power_iter: int | None = None, n_passes: int | None = None, center: bool = False,
    block_size: int | None = None, max_rank: int | None = None, rng: Any = None,
    callback: Callable[[Step], Any] | None = None, on_failure: str = "warn",
) -> RangeResult:  # fmt: skip
    """Find orthonormal columns Q with ``A ~ Q @ (Q^* @ A)``, for a rank or for a tolerance.

    The decomposition of `svd` applied to the adjoint of A, so that the error that is told is that of the projection:
    ``||A - Q Q^* A||_F**2 = ||A||_F**2 - ||Q^* A||_F**2`` exactly.  Use `svd` where the values or the right vectors
    are wanted as well; it costs the same.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Matrix whose columns are to be spanned, of any array API namespace; it is not changed.
    rank : int, 0 <= rank <= min(m, n)
        Number of columns of Q.  Give either `rank` or `tol`.
    tol : float, tol > 0
        Wanted ``||A - Q Q^* A|| <= tol ||A||`` in `norm`.
    norm, method, n_oversamples, n_power_iter, center, block_size, max_rank, rng, callback, on_failure
        As in `svd`.
    n_passes : int, n_passes >= 2, optional
        Read A at most so often.

    Returns
    -------
    RangeResult
        ``Q`` (m, rank) with errors, costs and status; iterates as ``Q``.

    Raises
    ------
    ValueError
        If neither or both of `rank` and `tol` are given, or a parameter is out of range.

    Notes
    -----
    The columns of Q are the leading approximate left singular vectors, in order.

    References
    ----------
    .. [1] Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53 (2011).

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = np.outer(np.arange(1.0, 6.0), np.ones(4))
    >>> randla.range_finder(A, tol=1e-6, rng=0).Q.shape
    (5, 1)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    A = as_linear_map(A, center=center)
    chosen = plan(
        A, rank, tol, norm=norm, method=method, n_oversamples=n_oversamples, n_power_iter=n_power_iter,
        n_passes=n_passes, block_size=block_size, max_rank=max_rank, turned=True,
    )  # fmt: skip
    turned = AdjointMap(A)
    turned.knows_norm = A.knows_norm and n_passes is None  # the norm takes a read of its own; probes ride along
    cut = approximate(turned, chosen, as_key(rng).fold("range finder"), callback)
    Q = cut.right * phases(cut.right.mT)[None, :]
    result = RangeResult(Q, cut.s, rank=int(cut.s.shape[0]), mean=A.mean, **cut.fields)
    return warn_or_raise(result, on_failure, what="range_finder")
