"""Generalized Nystrom: a low-rank approximation of any matrix from one pass, without orthogonalising tall panels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._arrays import eps, from_host, namespace_of
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import CONFIDENCE, probe_factor
from ..linear_maps import _Blocked, as_linear_map, squared
from ..operators import Gaussian, Rademacher, SketchOperator, SparseJL, SparseSign
from .orthonormal import adjoint, core_dtype, core_svd
from .results import ON_FAILURE
from .sides import between, dense, diagonal_matrix, times
from .single_view import _readable
from .two_sided import TwoSidedFactorization

_ANY = 2**62  # rows of a stream whose length is not known: a table of a sketch does not depend on it

_HALF = (1.0 + CONFIDENCE) / 2.0

#: Sketches whose columns belong to single rows of the matrix, so that blocks add up.
SKETCHES = {"sparse-sign": SparseSign, "sparse-jl": SparseJL, "gaussian": Gaussian, "rademacher": Rademacher}


def generalized_nystrom(
    A: Any, rank: int, *, oversampling: float = 1.5, sketch: str = "auto", rcond: float | None = None,
    n_probes: int = 10, rng: Any = None, on_failure: str = "warn",
) -> TwoSidedFactorization:  # fmt: skip
    """Approximate a matrix by ``A X (Y^* A X)^+ Y^* A`` with random X (n, rank) and Y (m, oversampling rank).

    One pass over A, 8 additions and `n_probes` multiplications an entry for sparse sketches, and ``O((m + n) rank**2)``
    on top; no tall panel is orthogonalised.  `svd` with two passes is more accurate for the rank; with
    ``n_passes=1`` it is as accurate as this for the same memory, and gives singular vectors at once.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Also a plain iterator of blocks of rows, which is read once.  A linear operator is multiplied with two panels.
    rank : int, 0 <= rank <= min(m, n)
        Columns of X.  There is no truncation: for an approximation within 1.2 to 1.7 of the best of rank k take
        ``rank=4 * k`` and then ``result.truncate(rank=k)``; without that expect a factor of 2 to 3.
    oversampling : float, 1 <= oversampling, default 1.5
        Columns of Y for each one of X.  At 1 the core is square and may be singular by chance.
    sketch : {"auto", "sparse-sign", "sparse-jl", "gaussian", "rademacher"}, default "auto"
        Kind of X and Y.  "auto" takes signs, 4 to a row of X or Y, and "gaussian" for less than 16 columns and for an X
        with less than 4 times as many rows as columns: there signs may repeat each other, or leave a column empty.
    rcond : float, 0 <= rcond < 1, default 5 eps
        Singular values of the core up to this share of the largest are left out.
    n_probes : int, n_probes >= 1, default 10
        Gaussian probes of the rows, from the same pass, that measure the error.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches; equal keys give equal results up to rounding, for any partition into blocks.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    TwoSidedFactorization
        ``F`` (m, r), ``G`` (r, r) diagonal, ``H`` (n, r) with r <= rank, the numerical rank of the core, and the error.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    TypeError
        If A is not numeric.

    Notes
    -----
    With a Gaussian X and Y the expected squared error is at most ``(1 + rank / (l - rank - 1)) (1 + k / (rank - k -
    1))`` times that of the best approximation of any rank k < rank - 1, l the columns of Y [2]_, Theorem 4.3; at
    oversampling 1.5 the first factor is 3 for large ranks.  The approximation is exact for rank(A) <= rank.

    `error` is the Frobenius norm of the probed residual, within a factor 2 with probability 0.99 at 10 probes, and
    `error_bound` holds with probability 0.99.  `norm` is exact but for a linear operator, where the probes estimate
    it.  The error is that of the factors as they are returned, rounding included.

    Deviation from [1]_: the pseudo-inverse is cut at 5 eps and split between the bases, ``F = A X V`` and ``H = A^* Y
    W`` for the singular vectors V and W of the core, so that no factor mixes columns of different size.  Where the rank
    exceeds the numerical one (150 at singular values exp(-0.3 j)) the relative error is 1e-14; with the same
    pseudo-inverse formed it is 2e-3, and without the cut 0.17.

    References
    ----------
    .. [1] Nakatsukasa, "Fast and stable randomized low-rank matrix approximation", arXiv:2009.11392.
    .. [2] Tropp, Yurtsever, Udell and Cevher, "Practical sketching algorithms for low-rank matrix approximation",
       SIAM J. Matrix Anal. Appl. 38 (2017), whose Algorithm 4 computes the same approximation.

    Examples
    --------
    >>> import numpy as np, randla
    >>> from randla.lowrank.generalized import generalized_nystrom
    >>> A = np.vander(np.linspace(0, 1, 200), 100)
    >>> result = generalized_nystrom(A, 10, rng=0)
    >>> result.F.shape, result.H.shape, result.n_passes
    ((200, 10), (100, 10), 1)
    >>> bool(np.linalg.norm(A - result.to_dense()) <= result.error_bound * np.linalg.norm(A))
    True
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(sketch, "sketch", ("auto", *SKETCHES))
    oversampling = check_real(oversampling, "oversampling", low=1.0)
    rcond = None if rcond is None else check_real(rcond, "rcond", low=0.0, high=1.0, closed="left")
    n_probes = check_integer(n_probes, "n_probes", low=1)
    key = as_key(rng).fold("generalized nystrom")
    if not hasattr(A, "__next__"):
        A = as_linear_map(A)
    rank = check_integer(rank, "rank", low=0, high=None if hasattr(A, "__next__") else min(A.shape))
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status, not in NumPy's warnings
        # a centred matrix has no rows to read, only products
        by_rows = hasattr(A, "__next__") or (isinstance(A, _Blocked) and not A.center)
        panels = (_streamed if by_rows else _multiplied)(A, rank, math.ceil(oversampling * rank), sketch, n_probes, key)
        result = _finish(panels, rcond, n_probes)
    return warn_or_raise(result, on_failure, what="generalized_nystrom")


class _Panels(NamedTuple):
    """``AX = A X``, ``YA = Y^* A``, ``core = Y^* A X``, ``EA = Theta A`` and what else the pass told."""

    AX: Any
    YA: Any
    core: Any
    EA: Any
    theta: Gaussian
    norm: float
    exact: bool  # whether the norm is
    n_passes: int
    n_matvecs: int


def _maker(kind: str, key: Key, label: str, width: int, n: int) -> SketchOperator:
    """A sketch of `width` rows; `n` is large where the number of rows may be unknown, so it decides for X only."""
    if kind == "auto":
        kind = "sparse-sign" if width >= 16 and n >= 4 * width else "gaussian"
    more = {"nnz": min(4, width)} if kind == "sparse-sign" else {}
    return SKETCHES[kind](width, n, rng=key.fold(label), **more)


def _streamed(A: Any, rank: int, width: int, kind: str, n_probes: int, key: Key) -> _Panels:
    """One pass over the rows."""
    blocks, m, n = _readable(A)
    if rank > n:
        raise ValueError(f"rank must be at most the number of columns, got {rank} for {n} columns")
    X = _maker(kind, key, "columns", rank, n) if 0 < rank < n else None
    # as many test columns as rows see everything: the identity is then the better test
    whole = m is not None and width >= m
    Y = _maker(kind, key, "rows", width, _ANY) if width and not whole else None
    theta = Gaussian(n_probes, _ANY, rng=key.fold("probe"))
    tall, kept, squares, rows = [], [], 0.0, 0
    sums: list[Any] = []
    for start, B in blocks:
        xp = namespace_of(B)
        # with as many columns as n or m the sketch is the identity
        D = dense(B if rank and (whole or X is None) else B[:, :0])
        tall.append(X.rmatmul(B) if X is not None else D[:, :rank])
        parts = [theta.matmul(B, start=start)]
        if Y is not None:
            parts += [Y.matmul(B, start=start), Y.matmul(tall[-1], start=start)]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        kept += [D] if whole else []
        squares += squared(B, xp)
        rows = max(rows, start + B.shape[0])
    if rank > rows:
        raise ValueError(f"rank must be at most the number of rows, got {rank} for {rows} rows")
    xp = namespace_of(tall[0])
    AX = xp.concat(tall, axis=0) if len(tall) > 1 else tall[0]
    if Y is not None:
        YA, core = sums[1], sums[2]
    elif whole and width:
        YA, core = (xp.concat(kept, axis=0) if len(kept) > 1 else kept[0]), AX
    else:
        YA, core = sums[0][:0, :], AX[:0, :]
    norm = math.sqrt(squares) if squares < math.inf else math.nan
    return _Panels(AX, YA, core, sums[0], theta, norm, True, 1, rank + width + n_probes)


def _multiplied(A: Any, rank: int, width: int, kind: str, n_probes: int, key: Key) -> _Panels:
    """Two panels for a linear operator: X, and Y beside the probes."""
    xp, (m, n) = A.xp, A.shape
    width = min(width, m)

    def panel(S: SketchOperator, size: int) -> Any:
        return xp.astype(from_host(np.ascontiguousarray(S.toarray(0, size).T), xp, A._like()), A.dtype)

    theta = Gaussian(n_probes, m, rng=key.fold("probe"))
    Y = AX = xp.zeros((m, 0), dtype=A.dtype, device=A.device)
    if rank:
        X = panel(_maker(kind, key, "columns", rank, n), n) if rank < n else xp.eye(n, dtype=A.dtype, device=A.device)
        Y = panel(_maker(kind, key, "rows", width, _ANY), m) if width < m else xp.eye(m, dtype=A.dtype, device=A.device)
        AX = A.matmul(X)
    both = adjoint(A.rmatmul(xp.concat([Y, panel(theta, m)], axis=1)))
    YA, EA = both[: Y.shape[1], :], both[Y.shape[1] :, :]
    norm = math.sqrt(squared(EA, xp))
    return _Panels(AX, YA, xp.matmul(adjoint(Y), AX), EA, theta, norm, False, A.n_passes, A.n_matvecs)


def _finish(panels: _Panels, rcond: float | None, n_probes: int) -> TwoSidedFactorization:
    """Invert the core in its singular vectors, and measure what came of it."""
    AX, YA, core = panels.AX, panels.YA, panels.core
    xp = namespace_of(AX)
    C = xp.astype(core, core_dtype(core.dtype, xp))
    if 0 in C.shape:
        F, G, H = AX[:, :0], C[:0, :0], adjoint(YA)[:, :0]
    elif not bool(xp.all(xp.isfinite(C))):
        return _result(panels, AX[:, :0], C[:0, :0], adjoint(YA)[:, :0], math.nan, n_probes)
    else:
        W, s, Vh = core_svd(C)
        cut = 5.0 * eps(AX.dtype) if rcond is None else rcond  # 5 eps: the epsilon of [1]_, section 4.1
        r = int(xp.sum(xp.astype(s > cut * s[0], xp.int64)))
        F = xp.matmul(AX, xp.astype(adjoint(Vh[:r, :]), AX.dtype))
        H = adjoint(xp.matmul(xp.astype(adjoint(W[:, :r]), YA.dtype), YA))
        # G stays in double precision: the inverse of a singular value may not fit into single
        G = diagonal_matrix(xp.astype(1.0 / s[:r], C.dtype))
    left = between(adjoint(panels.theta.matmul(F)), None, adjoint(G), None)
    residual = panels.EA - adjoint(times(H, left))
    return _result(panels, F, G, H, math.sqrt(squared(residual, xp)), n_probes)


def _result(panels: _Panels, F: Any, G: Any, H: Any, error: float, n_probes: int) -> TwoSidedFactorization:
    norm = panels.norm
    # of two uncertain norms each may fail in half of the cases
    margin = probe_factor(n_probes) if panels.exact else probe_factor(n_probes, _HALF) * _most(n_probes, _HALF)
    relative = error / norm if norm != 0.0 else 0.0
    status = Status.CONVERGED if error < norm or norm == 0.0 or panels.core.shape[1] == 0 else Status.BREAKDOWN
    if not math.isfinite(relative):
        relative, status = math.nan, Status.NONFINITE
    return TwoSidedFactorization(
        F, G, H, error=relative, error_bound=relative * margin if relative == relative else math.inf,
        confidence=CONFIDENCE, error_kind="sketched", error_norm="frobenius", norm=norm, n_passes=panels.n_passes,
        n_matvecs=panels.n_matvecs, status=status,
    )  # fmt: skip


def _most(n_probes: int, confidence: float) -> float:
    """The largest plausible ratio of a probed norm to the true one, the counterpart of `probe_factor`."""
    from scipy.special import gammaincinv

    return math.sqrt(2.0 * float(gammaincinv(n_probes / 2.0, confidence)) / n_probes)
