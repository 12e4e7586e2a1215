"""Eigenvalues of a positive semidefinite matrix from one product with a random panel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays import eps, is_complex, real_dtype
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import CONFIDENCE, PROBES, probe_factor
from ..linear_maps import LinearMap, squared
from .kernel_functions import as_symmetric_map
from .orthonormal import NonfiniteError, adjoint, core_dtype, core_svd, orthonormalize, orthonormalize_owned
from .results import ON_FAILURE, EighResult, phases

FIRST_RANK = 16  # of a search by tolerance
SHIFTS = 5  # times that the shift grows tenfold before eigenvalues take the place of the Cholesky factor


def nystrom(
    A: Any, rank: int | None = None, *, tol: float | None = None, n_oversamples: int = 10, max_rank: int | None = None,
    rng: Any = None, on_failure: str = "warn",
) -> EighResult:  # fmt: skip
    """Compute leading eigenvalues and vectors of a positive semidefinite matrix in one pass.

    ``A ~ V @ diag(w) @ V^*`` from the Nystrom approximation ``(A W) (W^* A W)^+ (A W)^*`` for an orthonormal Gaussian
    panel W of ``rank + n_oversamples`` columns, 20 more for the error: it never exceeds A, and is exact where A has
    that rank.  `eigh` takes more passes and is more accurate; `rpcholesky` reads a few columns of A only.

    Parameters
    ----------
    A : KernelMatrix, array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (n, n)
        Symmetric (Hermitian) positive semidefinite; it is not changed.
    rank : int, 0 <= rank <= n, optional
        Number of eigenvalues.
    tol : float, tol > 0, optional
        In place of a rank: double the panel, keeping its products, until the bound of ``||A - V diag(w) V^*||_F`` is at
        most ``tol * ||A||_F``, then drop the eigenvalues that are not needed for it.
    n_oversamples : int, default 10
        Columns beyond `rank`.
    max_rank : int, optional
        Largest panel of a search by `tol`, n by default.
    rng : None, int, SeedSequence, Generator or Key
        Source of the panel and the probes.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    EighResult
        ``w`` (rank,), descending and not negative, and ``V`` (n, rank), with errors, costs and status; iterates as
        ``w, V``.

    Raises
    ------
    ValueError
        If not one of `rank` and `tol` is given, A is not square, or the panel shows that A is not symmetric or has an
        eigenvalue below zero by more than rounding.

    Notes
    -----
    The expected error in the nuclear norm is at most ``1 + r / (l - r - 1)`` times that of the best approximation of
    rank r, for each r < l - 1 and a panel of l columns, before it is cut to `rank` [1]_.  The products are shifted by
    ``nu = eps ||A W||_F / sqrt(n)`` for the Cholesky factor of ``W^* A W + nu I``, at most five times by ten times
    more, and the eigenvalues lowered by nu again; where that fails, eigenvectors take the place of the factor.  So
    w is wrong by a few nu, and eigenvalues at that level are lost.

    References
    ----------
    .. [1] Tropp, Yurtsever, Udell and Cevher, "Fixed-rank approximation of a positive-semidefinite matrix from
       streaming data", NIPS 2017, Algorithm 3 and Theorem 4.1.
    .. [2] Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023),
       Algorithm 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.nystrom import nystrom
    >>> w, V = nystrom(np.diag([4.0, 2.0, 0.0, 0.0]), 2, rng=0)
    >>> w.round(6).tolist()
    [4.0, 2.0]
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    A = as_symmetric_map(A)
    n = A.shape[0]
    if (rank is None) == (tol is None):
        raise ValueError(f"exactly one of rank and tol must be given, got rank={rank!r} and tol={tol!r}")
    n_oversamples = check_integer(n_oversamples, "n_oversamples", low=0)
    largest = n if max_rank is None else check_integer(max_rank, "max_rank", low=1, high=n)
    if rank is not None:
        rank = check_integer(rank, "rank", low=0, high=n, remedy=f"A has shape {A.shape}")
    search = Search(A, as_key(rng).fold("nystrom"))
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
            if rank is not None:
                search.widen(min(rank + n_oversamples, n))
                status = Status.CONVERGED
            else:
                tol = check_real(tol, "tol", low=0.0, closed="neither")
                rank, status = search.until(tol, largest)
            result = search.finish(rank, status)
    except NonfiniteError:
        result = search.nothing()
    return warn_or_raise(result, on_failure, what="nystrom")


class Search:
    """An orthonormal panel W with its products A W, and the approximation that they give."""

    def __init__(self, A: LinearMap, key: Key, *, probes: int = PROBES) -> None:
        self.A, self.key, self.xp = A, key, A.xp
        self.W: list[Any] = []
        self.Y: list[Any] = []
        self.n_iter = 0
        self.history: list[float] = []
        self.G = A.gaussian(key.fold("probe"), probes)
        self.AG: Any = None

    def widen(self, width: int) -> None:
        """Bring the panel to `width` columns; the probes share the first product."""
        A, xp = self.A, self.xp
        held = sum(W.shape[1] for W in self.W)
        W = A.gaussian(self.key.fold(self.n_iter), width - held)
        W = orthonormalize_owned(W, (self._panel(self.W),) if self.W else ()).Q
        panel = W if self.W else xp.concat([W, self.G], axis=1)
        Y = A.matmul(panel)
        if not self.W:
            Y, self.AG = Y[:, : W.shape[1]], Y[:, W.shape[1] :]
        self.W.append(W)
        self.Y.append(Y)
        self.n_iter += 1
        self.w, self.V = self._eigh(self._panel(self.W), self._panel(self.Y))

    def _panel(self, parts: list[Any]) -> Any:
        """The parts as one panel, which takes their place."""
        if len(parts) > 1:
            parts[:] = [self.xp.concat(parts, axis=1)]
        return parts[0]

    def until(self, tol: float, largest: int) -> tuple[int, Status]:
        """Double the panel until the bound is below the tolerance; the rank that is needed."""
        xp, width = self.xp, min(FIRST_RANK, largest)
        while True:
            self.widen(width)
            whole, error = self._errors(self.w.shape[0])
            self.history.append(error / whole if whole > 0.0 else 0.0)
            bound, room = error * probe_factor(), tol * whole
            if bound <= room or width == largest:
                break
            width = min(2 * width, largest)
        # the norm of what is dropped adds to the error, at most
        dropped = xp.sqrt(xp.flip(xp.cumulative_sum(xp.flip(self.w**2), include_initial=True)))
        rank = int(xp.sum(xp.astype(dropped > max(room - bound, 0.0), xp.int64)))
        if bound <= room:
            return rank, Status.CONVERGED
        return rank, Status.STAGNATED if width == self.A.shape[0] else Status.MAX_ITER

    def _eigh(self, W: Any, Y: Any) -> tuple[Any, Any]:
        """Eigenvalues, descending and in double precision, and vectors of the Nystrom approximation."""
        xp, n = self.xp, self.A.shape[0]
        core = core_dtype(self.A.dtype, xp)
        size = math.sqrt(squared(Y, xp))
        if not size < math.inf:
            raise NonfiniteError("a product with A holds NaN or infinity")
        C = xp.astype(xp.matmul(adjoint(W), Y), core)
        noise = 100.0 * eps(self.A.dtype) * math.sqrt(n) * size
        off = math.sqrt(squared(C - adjoint(C), xp))
        if off > noise:
            raise ValueError(
                f"A must be symmetric (Hermitian), got ||W^* (A - A^*) W|| = {off:.1e} for ||A W|| = {size:.1e} and a "
                "random W; pass (A + A.conj().T) / 2, or use randla.svd"
            )
        nu = eps(self.A.dtype) * size / math.sqrt(n) if n else 0.0
        C = (C + adjoint(C)) / 2.0
        inverse, nu = self._root(C, nu, noise)
        B = xp.matmul(Y + nu * W, xp.astype(inverse, Y.dtype))
        Q, R, _ = orthonormalize(B, rtol=0.0)
        U, s, _ = core_svd(R)
        w = s**2 - nu
        return xp.where(w > 0, w, xp.zeros_like(w)), xp.matmul(Q, xp.astype(U, Q.dtype))

    def _root(self, C: Any, nu: float, noise: float) -> tuple[Any, float]:
        """(T, nu) with ``T T^* = (C + nu I)^-1``, or its pseudoinverse."""
        xp = self.xp
        eye = xp.eye(C.shape[0], dtype=C.dtype, device=self.A.device)
        for attempt in range(SHIFTS):
            shift = nu * 10.0**attempt
            try:
                L = xp.linalg.cholesky(C + shift * eye)
            except (np.linalg.LinAlgError, RuntimeError):
                continue
            inverse = xp.linalg.inv(L)  # CuPy fills the factor with NaN in place of raising
            if bool(xp.all(xp.isfinite(inverse))):
                return adjoint(inverse), shift
        values, V = xp.linalg.eigh(C + nu * eye)
        if float(values[0]) < -noise:
            raise ValueError(
                f"A must be positive semidefinite, got a Rayleigh quotient of {float(values[0]):.3g}; use randla.eigh"
            )
        kept = values > C.shape[0] * eps(self.A.dtype) * float(values[-1])
        safe = xp.where(kept, values, xp.ones_like(values))
        return V * xp.where(kept, 1.0 / xp.sqrt(safe), xp.zeros_like(values))[None, :], nu

    def _errors(self, rank: int) -> tuple[float, float]:
        """(||A||_F, ||A - approximation||_F) from the probes."""
        xp, V = self.xp, self.V[:, :rank]
        w, VG = self.w[:rank], xp.matmul(adjoint(V), self.G)
        lifted = xp.astype(w, V.dtype)[:, None] * VG
        E = self.AG - xp.matmul(V, lifted)
        error = math.sqrt(squared(E, xp) / PROBES)
        # what is left is no projection: ||A||**2 = ||approximation||**2 + 2 <approximation, rest> + ||rest||**2
        products = xp.conj(lifted) * xp.matmul(adjoint(V), E) if is_complex(V.dtype) else lifted * xp.matmul(V.mT, E)
        mixed = float(xp.real(xp.sum(products)) if is_complex(V.dtype) else xp.sum(products)) / PROBES
        return math.sqrt(float(xp.sum(w**2)) + 2.0 * max(mixed, 0.0) + error**2), error

    def finish(self, rank: int, status: Status) -> EighResult:
        """The leading eigenpairs with their error."""
        xp, A = self.xp, self.A
        w, V = self.w[:rank], self.V[:, :rank]
        missing = rank - w.shape[0]
        if missing:
            fill = A.gaussian(self.key.fold("complement"), missing)
            V = xp.concat([V, orthonormalize_owned(fill, (V,) if V.shape[1] else ()).Q], axis=1)
            w = xp.concat([w, xp.zeros((missing,), dtype=w.dtype, device=A.device)])
        self.w, self.V = w, V * phases(V.mT)[None, :]
        whole, error = self._errors(rank)
        relative = error / whole if whole > 0.0 else 0.0
        return self._result(xp.astype(w, real_dtype(A.dtype, xp)), whole, relative, relative * probe_factor(), status)

    def nothing(self) -> EighResult:
        """The result where NaN or infinity appeared."""
        xp, A = self.xp, self.A
        self.V = xp.zeros((A.shape[0], 0), dtype=A.dtype, device=A.device)
        w = xp.zeros((0,), dtype=real_dtype(A.dtype, xp), device=A.device)
        return self._result(w, math.nan, math.nan, math.inf, Status.NONFINITE)

    def _result(self, w: Any, norm: float, error: float, bound: float, status: Status) -> EighResult:
        return EighResult(
            w, self.V, rank=int(w.shape[0]), error=error, error_bound=bound, confidence=CONFIDENCE,
            error_kind="sketched", error_norm="frobenius", norm=norm, n_passes=self.A.n_passes,
            n_matvecs=self.A.n_matvecs, n_iter=self.n_iter, history=tuple(self.history), status=status,
        )  # fmt: skip
