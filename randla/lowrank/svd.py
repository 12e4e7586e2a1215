"""Randomized singular value decomposition: by rank or by tolerance, in memory, out of it, or in a single view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._checks import check_choice, check_integer
from .._random import as_key
from .._results import warn_or_raise
from ..linear_maps import as_linear_map
from .approximation import approximate, plan
from .orthonormal import adjoint
from .results import ON_FAILURE, LowRankResult, Step, signed
from .single_view import single_view


def svd(
    A: Any, rank: int | None = None, *, tol: float | None = None, norm: str = "frobenius", method: str = "auto",
    n_oversamples: int = 10, n_power_iter: int | None = None, n_passes: int | None = None, center: bool = False,
    block_size: int | None = None, max_rank: int | None = None, rng: Any = None,
    callback: Callable[[Step], Any] | None = None, on_failure: str = "warn",
) -> LowRankResult:  # fmt: skip
    """Compute the leading singular values and vectors, for a rank or for a tolerance.

    ``A ~ U @ diag(s) @ Vh`` with U (m, rank) and Vh (rank, n).  For a rank: a sparse sketch of A (one read) and then
    ``1 + 2 n_power_iter`` products of A with about ``rank`` columns.  For a tolerance: blocks of fresh and Krylov
    directions until the error is below ``tol``, cut to the least rank that keeps it there.  The error that is told is
    computed from what was read anyway, not guessed from a theorem.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Matrix to decompose, of any array API namespace; it is not changed.  Integers and bools are converted by blocks.
        With ``n_passes=1`` also a plain iterator of blocks of rows.
    rank : int, 0 <= rank <= min(m, n)
        Number of singular values.  Give either `rank` or `tol`.
    tol : float, tol > 0
        Wanted ``||A - U S Vh|| <= tol ||A||`` in `norm`.
    norm : {"frobenius", "spectral"}, default "frobenius"
        Norm of `tol` and of the error that is told.
    method : {"auto", "krylov", "subspace"}, default "auto"
        "krylov" keeps every block that was multiplied; "subspace" only the last, which saves memory and
        orthonormalisation.  "auto" takes "subspace" for a given rank of a sparse matrix, else "krylov".
    n_oversamples : int, default 10
        Columns beyond `rank`, spread over the blocks of a Krylov space; a single view has sketch sizes of its own,
        4 rank + 1 and 8 rank + 3.
    n_power_iter : int, default 2 for a rank, 1 for a tolerance
        Krylov or power steps, two products each; for a tolerance in each block.
    n_passes : int, optional
        Read A at most so often.  1 is the single view: sketches of rows and columns from one pass, for a rank only.
        Not with ``norm="spectral"``, whose estimate takes 9 passes of 10 columns.
    center : bool, default False
        Decompose ``A - mean`` with the mean row, without forming it; the result carries the mean.
    block_size : int, optional
        Columns of the first block: by default ``rank`` plus a share of `n_oversamples`, and 32 for a tolerance.
    max_rank : int, default min(m, n)
        Largest rank that a tolerance may lead to.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches; equal keys give equal results up to rounding.
    callback : callable, optional
        Called with a `Step` after each block; returning True ends the computation with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    LowRankResult
        ``U`` (m, rank), ``s`` (rank,), ``Vh`` (rank, n) with errors, costs and status; iterates as ``U, s, Vh``.

    Raises
    ------
    ValueError
        If neither or both of `rank` and `tol` are given, or a parameter is out of range.
    TypeError
        If A is not numeric, or can be read only once and `n_passes` is not 1.

    Notes
    -----
    With orthonormal X and Q and ``A X = Q C`` the squared error of ``Q C X^*`` is ``||A||_F**2 - ||C||_F**2`` exactly
    ("exact").  Below about 1e-7 ||A|| (1e-3 in single precision) that difference is rounding, and 20 Gaussian probes of
    the residual take over ("sketched"): within a factor 2 with probability 0.9996, and `error_bound` holds with
    probability 0.99.  A linear operator, whose norm is unknown, is always probed.  Spectral errors come from 5 steps of
    block Lanczos from 10 Gaussian starts ("krylov"); the bound follows Kuczynski and Wozniakowski.

    The Frobenius error of the default scheme was within 1.004 of the best possible for decays from 1/j to exp(-j/20);
    proved is less: (1 + epsilon) of the best rank-k error in spectral norm after O(log n / sqrt(epsilon)) steps [2]_.

    Deviations from [1]_: (1) the start is the leading part of a sparse sketch with four times the rows of the block,
    (2) fresh sketches join the blocks of a tolerance, so that multiplicities above the block size are found,
    (3) blocks are orthonormalised through Gram matrices with repeated projection.

    The entry of largest modulus in each row of Vh is real and positive, on every backend.  A rank above that of A is
    filled with zero singular values and orthonormal vectors.

    References
    ----------
    .. [1] Tropp and Webber, "Randomized algorithms for low-rank matrix approximation: design, analysis, and
       applications", arXiv:2306.12418, Algorithm A.1.
    .. [2] Musco and Musco, "Randomized block Krylov methods for stronger and faster approximate singular value
       decomposition", NeurIPS 2015, Theorem 1.

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = np.vander(np.linspace(0, 1, 200), 30)
    >>> result = randla.svd(A, tol=1e-3, rng=0)
    >>> result.U.shape, result.Vh.shape, result.error <= 1e-3
    ((200, 7), (7, 30), True)
    >>> U, s, Vh = randla.svd(A, 2, rng=0)
    >>> bool(np.allclose(s, np.linalg.svd(A)[1][:2]))
    True
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    once = n_passes is not None and check_integer(n_passes, "n_passes", low=1) == 1
    if once and rank is not None and tol is None:
        result = single_view(A, rank, center=center, key=as_key(rng).fold("single view"))
        return warn_or_raise(result, on_failure, what="svd")
    A = as_linear_map(A, center=center)
    chosen = plan(
        A, rank, tol, norm=norm, method=method, n_oversamples=n_oversamples, n_power_iter=n_power_iter,
        n_passes=n_passes, block_size=block_size, max_rank=max_rank,
    )  # fmt: skip
    cut = approximate(A, chosen, as_key(rng).fold("svd"), callback)
    U, Vh = signed(cut.left, adjoint(cut.right))
    result = LowRankResult(U, cut.s, Vh, rank=int(cut.s.shape[0]), mean=A.mean, **cut.fields)
    return warn_or_raise(result, on_failure, what="svd")
