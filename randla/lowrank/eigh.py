"""Leading eigenvalues and eigenvectors of a symmetric or Hermitian matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import eps, real_dtype
from .._checks import check_choice, check_integer
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import CONFIDENCE, PROBES, probe_factor
from ..linear_maps import LinearMap, as_linear_map, squared
from .krylov import Subspaces, combine, floor_squared
from .orthonormal import NonfiniteError, adjoint, core_dtype, orthonormalize_owned
from .results import ON_FAILURE, EighResult, Step, phases


def eigh(
    A: Any, rank: int, *, n_oversamples: int = 10, n_power_iter: int = 2, rng: Any = None,
    callback: Callable[[Step], Any] | None = None, on_failure: str = "warn",
) -> EighResult:  # fmt: skip
    """Compute the eigenvalues of largest modulus of a symmetric or Hermitian matrix, with their vectors.

    ``A ~ V @ diag(w) @ V^*`` with V (n, rank), by block Lanczos from a sparse sketch of A with full orthogonality:
    one read for the sketch and ``1 + n_power_iter`` products of A with ``rank + n_oversamples`` columns.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (n, n)
        Symmetric (Hermitian) matrix of any array API namespace; it is not changed.
    rank : int, 0 <= rank <= n
        Number of eigenvalues.
    n_oversamples : int, default 10
        Columns beyond `rank`.
    n_power_iter : int, default 2
        Krylov steps, one product each.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketch and the probes.
    callback : callable, optional
        Called with a `Step` after each product; returning True ends the computation with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    EighResult
        ``w`` (rank,) by descending modulus and ``V`` (n, rank), with errors, costs and status; iterates as ``w, V``.

    Raises
    ------
    ValueError
        If A is not square, or if a random probe shows that it is not symmetric (Hermitian).

    Notes
    -----
    The squared Frobenius error is ``||A||_F**2 - sum(w**2)``, exactly, because ``V^* A V = diag(w)``; below about
    1e-7 ||A|| it is probed as in `svd`.  Symmetry is checked with one Gaussian vector x: ``A x`` and ``A^* x`` must
    agree to rounding, which any fixed asymmetry well above rounding violates almost surely.

    References
    ----------
    .. [1] Golub and Underwood, "The block Lanczos method for computing eigenvalues", Mathematical Software III (1977).

    Examples
    --------
    >>> import numpy as np, randla
    >>> w, V = randla.eigh(np.diag([1.0, -5.0, 2.0, 0.0]), 2, rng=0)
    >>> w.round(6).tolist()
    [-5.0, 2.0]
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    A = as_linear_map(A)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be square, got shape {A.shape}; use randla.svd for rectangular matrices")
    rank = check_integer(rank, "rank", low=0, high=A.shape[0], remedy=f"A has shape {A.shape}")
    n_oversamples = check_integer(n_oversamples, "n_oversamples", low=0)
    n_power_iter = check_integer(n_power_iter, "n_power_iter", low=0)
    key = as_key(rng).fold("eigh")
    lanczos = _Lanczos(A, key)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
            _check_symmetric(A, key)
            status = lanczos.run(min(rank + n_oversamples, A.shape[0]), n_power_iter, rank, callback)
            result = lanczos.finish(rank, status)
    except NonfiniteError:
        result = lanczos.nothing()
    return warn_or_raise(result, on_failure, what="eigh")


def _check_symmetric(A: LinearMap, key: Key) -> None:
    x = A.gaussian(key.fold("symmetry"), 1)
    right, left = A.matmul(x), A.rmatmul(x)
    size, off = math.sqrt(squared(right, A.xp)), math.sqrt(squared(right - left, A.xp))
    if not size + off < math.inf:
        raise NonfiniteError("a product with A holds NaN or infinity")
    # sums of n terms in another order differ by about sqrt(n) eps; 100 leaves room for any summation
    if off > 100.0 * eps(A.dtype) * math.sqrt(A.shape[0]) * max(size, math.sqrt(squared(left, A.xp))):
        raise ValueError(
            "A must be symmetric (Hermitian), got "
            f"||(A - A^*) x|| = {off / size if size else math.inf:.1e} ||A x|| for a random x; "
            "pass (A + A.conj().T) / 2, or use randla.svd"
        )


class _Lanczos:
    """Blocks V with ``T = V^* A V``."""

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.A, self.key, self.xp = A, key, A.xp
        self.V: tuple[Any, ...] = ()
        self.T = A.xp.zeros((0, 0), dtype=core_dtype(A.dtype, A.xp), device=A.device)
        self.n_iter = 0
        self.history: list[float] = []

    def run(self, width: int, steps: int, rank: int, callback: Callable[[Step], Any] | None) -> Status:
        start = Subspaces(self.A, self.key, probe=False)
        V_new = start.inject(width)
        for i in range(steps + 1):
            if V_new.shape[1] == 0:
                break
            V_new = self._add(V_new)
            if self._record(callback) and i < steps:
                return Status.MAX_ITER
        while self.T.shape[0] < rank:
            # an eigenvalue of higher multiplicity than the block: fresh directions
            fresh = orthonormalize_owned(self.A.gaussian(self.key.fold(self.n_iter), width), self.V).Q
            if fresh.shape[1] == 0:
                break
            self._add(fresh)
            self._record(callback)
        return Status.CONVERGED

    def _add(self, V_new: Any) -> Any:
        """Extend V and T by a block, and return the next one."""
        xp = self.xp
        W = self.A.matmul(V_new)
        blocks = (*self.V, V_new)
        panel = orthonormalize_owned(W, blocks, rtol=4.0 * eps(W.dtype))
        old, H = self.T.shape[0], panel.H
        diagonal = (H[old:, :] + adjoint(H[old:, :])) / 2.0
        top = xp.concat([self.T, H[:old, :]], axis=1)
        self.T = xp.concat([top, xp.concat([adjoint(H[:old, :]), diagonal], axis=1)], axis=0)
        self.V = blocks
        return panel.Q

    def _record(self, callback: Callable[[Step], Any] | None) -> bool:
        error = math.nan
        if self.A.knows_norm:
            whole = self.A.frobenius_squared()
            error = math.sqrt(max(whole - squared(self.T, self.xp), 0.0) / whole) if whole > 0.0 else 0.0
            self.history.append(error)
        self.n_iter += 1
        step = Step(self.n_iter, self.T.shape[0], error, self.A.n_passes, self.A.n_matvecs)
        return callback is not None and callback(step) is True

    def finish(self, rank: int, status: Status) -> EighResult:
        xp, A = self.xp, self.A
        if not squared(self.T, xp) < math.inf:
            raise NonfiniteError("the core holds NaN or infinity")
        w, W = xp.linalg.eigh(self.T)
        order = xp.argsort(-xp.abs(w), stable=True)[:rank]
        w, V = xp.take(w, order, axis=0), combine(self.V, xp.take(W, order, axis=1), A)
        missing = rank - w.shape[0]
        if missing:
            fill = A.gaussian(self.key.fold("complement"), missing)
            V = xp.concat([V, orthonormalize_owned(fill, (V,) if V.shape[1] else ()).Q], axis=1)
            w = xp.concat([w, xp.zeros((missing,), dtype=w.dtype, device=A.device)])
        held = float(xp.sum(w**2))
        whole = A.frobenius_squared() if A.knows_norm else math.nan
        error, bound, kind, confidence = whole - held, whole - held, "exact", 1.0
        if not error > floor_squared(A) * whole and held > 0.0:
            G = A.gaussian(self.key.fold("probe"), PROBES)
            apply = xp.matmul(V, xp.astype(w, V.dtype)[:, None] * xp.matmul(adjoint(V), G))
            error, kind, confidence = squared(A.matmul(G) - apply, xp) / PROBES, "sketched", CONFIDENCE
            whole, bound = held + error, error * probe_factor() ** 2
        V = V * phases(V.mT)[None, :]
        return self._result(xp.astype(w, real_dtype(A.dtype, xp)), V, whole, (error, bound), (kind, confidence), status)

    def nothing(self) -> EighResult:
        xp, A = self.xp, self.A
        w = xp.zeros((0,), dtype=real_dtype(A.dtype, xp), device=A.device)
        V = xp.zeros((A.shape[0], 0), dtype=A.dtype, device=A.device)
        return self._result(w, V, math.nan, (math.nan, math.inf), ("exact", 1.0), Status.NONFINITE)

    def _result(
        self, w: Any, V: Any, whole: float, errors: tuple[float, float], kind: tuple[str, float], status: Status
    ) -> EighResult:
        error, bound = (math.sqrt(max(e, 0.0) / whole) if whole > 0.0 else 0.0 if whole == 0.0 else e for e in errors)
        return EighResult(
            w, V, rank=int(w.shape[0]), error=error, error_bound=bound, confidence=kind[1], error_kind=kind[0],
            error_norm="frobenius", norm=math.sqrt(whole), n_passes=self.A.n_passes, n_matvecs=self.A.n_matvecs,
            n_iter=self.n_iter, history=tuple(self.history), status=status,
        )  # fmt: skip
