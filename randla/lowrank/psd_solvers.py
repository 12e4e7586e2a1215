"""Regularised positive semidefinite systems: low-rank preconditioners, and conjugate gradients with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together, eps, is_complex
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..linear_maps import LinearMap
from .kernel_functions import KernelMap, KernelMatrix, as_kernel_matrix, as_symmetric_map
from .nystrom import Search
from .orthonormal import adjoint, core_svd, orthonormalize
from .results import ON_FAILURE, EighResult
from .rpcholesky import NystromResult, Pivoting

PRECONDITIONERS = ("auto", "rpcholesky", "gaussian")
FIRST_RANK = 32  # of a search; it ends where the least eigenvalue is at most ENOUGH mu
ENOUGH = 10.0
REPLACEMENTS = 3  # times that conjugate gradients start again from the true residual


class NystromPreconditioner:
    """Inverse of a low-rank approximation of ``A + mu I``, as a linear operator (n, n) for SciPy's ``cg(..., M=P)``.

    ``P r = V diag((tail + mu) / (w + mu)) V^* r + (r - V V^* r)``, where `tail` is what the rest of the spectrum is
    taken for: the least eigenvalue of a Gaussian approximation, which lies above that rest, and 0 for pivoted Cholesky.

    Parameters
    ----------
    w : array, shape (rank,)
        Eigenvalues of the approximation, descending.
    V : array, shape (n, rank)
        Its eigenvectors.
    mu : float, mu > 0
    tail : float, default 0.0

    Attributes
    ----------
    shape : tuple of two int
    dtype : dtype
    rank : int
    n_matvecs, n_entries : int
        Products with A, or entries of it, that the approximation took.
    """

    ndim = 2

    def __init__(self, w: Any, V: Any, mu: float, *, tail: float = 0.0, n_matvecs: int = 0, n_entries: int = 0) -> None:
        self.w, self.V, self.mu, self.tail = w, V, check_real(mu, "mu", low=0.0, closed="neither"), tail
        self.shape = (int(V.shape[0]), int(V.shape[0]))
        self.dtype = V.dtype
        self.rank = int(w.shape[0])
        self.n_matvecs, self.n_entries = n_matvecs, n_entries
        self._factors = array_namespace(V).astype((tail - w) / (w + mu), V.dtype)  # (tail + mu) / (w + mu) - 1

    def __repr__(self) -> str:
        return f"NystromPreconditioner(shape={self.shape}, rank={self.rank}, mu={self.mu:g}, tail={self.tail:.3g})"

    def matmat(self, R: Any) -> Any:
        """P times a panel (n, k), or a vector (n,)."""
        xp = array_namespace(self.V)
        factors = self._factors if R.ndim == 1 else self._factors[:, None]
        return R + xp.matmul(self.V, factors * xp.matmul(adjoint(self.V), R))

    matvec = rmatvec = rmatmat = __matmul__ = matmat


def nystrom_preconditioner(
    A: Any, mu: float, rank: int | str = "auto", *, method: str = "auto", max_rank: int | None = None, rng: Any = None
) -> NystromPreconditioner:
    """Make a preconditioner for ``(A + mu I) x = b`` out of a low-rank approximation of A.

    Parameters
    ----------
    A : KernelMatrix, array, CSR matrix, LinearOperator, or an `EighResult` or `NystromResult`, shape (n, n)
        Positive semidefinite, or an approximation of it that is there already.
    mu : float, mu > 0
    rank : int or "auto", default "auto"
        Rank of the approximation; "auto" doubles it from 32 until its least eigenvalue is at most 10 mu.
    method : {"auto", "rpcholesky", "gaussian"}, default "auto"
        "rpcholesky" reads `rank` columns of A; "gaussian" multiplies A with `rank` random vectors.  "auto" takes the
        first for a KernelMatrix and the second for anything else.
    max_rank : int, optional
        Where "auto" ends; ten times the square root of n, at most n, by default.
    rng : None, int, SeedSequence, Generator or Key
        Source of the approximation.

    Returns
    -------
    NystromPreconditioner

    Raises
    ------
    ValueError, TypeError
        If A is not square, mu is not positive, or "rpcholesky" is asked of what has no entries.

    Notes
    -----
    With the effective dimension ``d = sum_i lambda_i / (lambda_i + mu)`` a Gaussian approximation of rank
    ``2 ceil(1.5 d) + 1`` gives an expected condition number of the preconditioned matrix of at most 28 [1]_, so the
    steps of conjugate gradients no longer depend on A.

    References
    ----------
    .. [1] Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023),
       Theorem 1.1.
    .. [2] Diaz, Epperly, Frangella, Tropp and Webber, "Robust, randomized preconditioning for kernel ridge regression",
       arXiv:2304.12465 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import cg
    >>> from randla.lowrank.psd_solvers import nystrom_preconditioner
    >>> A = np.diag(10.0 ** -np.arange(12.0))
    >>> P = nystrom_preconditioner(A, 1e-6, rank=8, rng=0)
    >>> x, failed = cg(A + 1e-6 * np.eye(12), np.ones(12), M=P, rtol=1e-10)
    >>> failed
    0
    """
    mu = check_real(mu, "mu", low=0.0, closed="neither")
    method = check_choice(method, "method", PRECONDITIONERS)
    if isinstance(A, NystromResult):
        return _of_factor(A, mu)
    if isinstance(A, EighResult):
        return _of_eigenpairs(A, mu)
    pivoted = method == "rpcholesky" or (method == "auto" and isinstance(A, KernelMatrix))
    if not pivoted:
        A = as_symmetric_map(A)
    n, key = A.shape[0], as_key(rng).fold("preconditioner")
    budget = min(n, 10 * math.ceil(math.sqrt(n))) if max_rank is None else check_integer(max_rank, "max_rank", low=1)
    budget = min(budget, n)
    auto = isinstance(rank, str) and check_choice(rank, "rank", ("auto",)) == "auto"
    size = min(FIRST_RANK, budget) if auto else check_integer(rank, "rank", low=0, high=n)
    grow = _pivots(A, key) if pivoted else _panels(A, key)
    while True:
        P = grow(size, mu)
        least = float(P.w[-1]) if P.rank else 0.0
        if not auto or size >= budget or P.rank < size or not least > ENOUGH * mu:
            return P
        size = min(2 * size, budget)


def _pivots(A: Any, key: Key) -> Callable[[int, float], NystromPreconditioner]:
    """Preconditioners of growing rank that share their pivots."""
    run = Pivoting(as_kernel_matrix(A), 0, 0.0, key)

    def grow(size: int, mu: float) -> NystromPreconditioner:
        run.rank = size
        return _of_factor(run.result(run.go("accelerated", None)), mu)

    return grow


def _panels(A: LinearMap, key: Key) -> Callable[[int, float], NystromPreconditioner]:
    """Preconditioners of growing rank that share their products."""
    search, before = Search(A, key, probes=0), A.n_matvecs

    def grow(size: int, mu: float) -> NystromPreconditioner:
        search.widen(size)
        tail = float(search.w[-1]) if size else 0.0
        return NystromPreconditioner(search.w, search.V, mu, tail=tail, n_matvecs=A.n_matvecs - before)

    return grow


def _of_factor(result: NystromResult, mu: float) -> NystromPreconditioner:
    Q, R, _ = orthonormalize(result.F)
    U, s, _ = core_svd(R)
    V = array_namespace(Q).matmul(Q, array_namespace(Q).astype(U, Q.dtype))
    return NystromPreconditioner(s**2, V, mu, n_entries=result.n_entries)


def _of_eigenpairs(result: EighResult, mu: float) -> NystromPreconditioner:
    tail = max(0.0, float(result.w[-1])) if result.rank else 0.0
    return NystromPreconditioner(result.w, result.V, mu, tail=tail, n_matvecs=result.n_matvecs)


@dataclass(frozen=True)
class SolveStep:
    """What a callback is told after each step of `solve_psd`.

    Attributes
    ----------
    n_iter : int
        Steps done.
    residual : float
        Largest ``||b - (A + mu I) x|| / ||b||`` of the columns, by recurrence.
    """

    n_iter: int
    residual: float


@dataclass(frozen=True, repr=False)
class PsdSolveResult(Result):
    """Solution of ``(A + mu I) x = b``; iterates as ``(x,)``.

    Attributes
    ----------
    x : array, shape (n,) or (n, k)
    residual : float
        Largest ``||b - (A + mu I) x|| / ||b||`` of the columns, computed from x at the end.
    n_iter : int
        Steps of conjugate gradients, all columns together.
    history : tuple of float
        The residual before the first step and after each, by recurrence.
    rank : int
        Rank of the preconditioner; 0 without one.
    n_matvecs : int
        Columns that A was multiplied with, those of the preconditioner included.
    status : Status
    """

    x: Any
    residual: float
    n_iter: int
    history: tuple[float, ...]
    rank: int
    n_matvecs: int
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("x",)


def solve_psd(
    A: Any,
    b: Any,
    mu: float = 0.0,
    *,
    preconditioner: Any = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    x0: Any = None,
    rng: Any = None,
    callback: Callable[[SolveStep], Any] | None = None,
    on_failure: str = "warn",
) -> PsdSolveResult:
    """Solve ``(A + mu I) x = b`` for a positive semidefinite A by preconditioned conjugate gradients.

    One product of A with b's columns to a step, and 4 n rank multiplications for each column; right-hand sides go
    together, each with a step length of its own.

    Parameters
    ----------
    A : KernelMatrix, array, CSR matrix, LinearOperator or RowBlocks, shape (n, n)
        Symmetric (Hermitian) positive semidefinite.
    b : array, shape (n,) or (n, k)
        Right-hand sides.
    mu : float, mu >= 0, default 0.0
        Regularisation; without it, A must be definite and no preconditioner is made.
    preconditioner : "auto", int, operator or None, default "auto"
        "auto" makes one by `nystrom_preconditioner`, an int one of that rank; an object with `matmat` is used as it is.
    tol : float, tol > 0, optional
        Stop when ``||b - (A + mu I) x|| <= tol ||b||`` for all columns; 1e-8 by default, 1e-4 in single precision.
    max_iter : int, default 10 n + 50
        Most steps.
    x0 : array of the shape of b, optional
        Starting point; zero by default.
    rng : None, int, SeedSequence, Generator or Key
        Source of the preconditioner.
    callback : callable, optional
        Called with a `SolveStep` after each step; returning True ends the computation.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    PsdSolveResult
        ``x`` with the shape of b, its residual, costs and status.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or a parameter is out of range.

    Notes
    -----
    The residual that counts is computed from x, and the iteration starts again from it where the recurrence has lost
    it, at most three times; the status is STAGNATED where that does not bring it to `tol`, and BREAKDOWN where a
    direction of negative curvature shows that ``A + mu I`` or the preconditioner is not positive definite.

    References
    ----------
    .. [1] Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.psd_solvers import solve_psd
    >>> result = solve_psd(np.diag([3.0, 1.0, 0.0]), np.ones(3), 1.0, rng=0)
    >>> result.x.round(6).tolist(), result.converged
    ([0.25, 0.5, 1.0], True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    mu = check_real(mu, "mu", low=0.0)
    source, A = A, as_symmetric_map(A)
    B, vector = _right_hand_side(A, b, "b")
    X = A.xp.zeros_like(B) if x0 is None else A.xp.asarray(_right_hand_side(A, x0, "x0")[0], copy=True)
    if X.shape != B.shape:
        raise ValueError(f"x0 must have the shape of b, {tuple(b.shape)}, got {tuple(x0.shape)}")
    tol = (1e-4 if eps(A.dtype) > 1e-10 else 1e-8) if tol is None else check_real(tol, "tol", low=0.0, closed="neither")
    limit = 10 * A.shape[0] + 50 if max_iter is None else check_integer(max_iter, "max_iter", low=0)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
        P = _preconditioner(source, A, mu, preconditioner, as_key(rng))
        run = _ConjugateGradients(A, B, mu, P, tol, limit, callback)
        status = run.go(X)
    result = PsdSolveResult(
        run.X[:, 0] if vector else run.X, run.residual, run.n_iter, tuple(run.history), int(getattr(P, "rank", 0)),
        A.n_matvecs, status,
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="solve_psd")


def _right_hand_side(A: LinearMap, b: Any, name: str) -> tuple[Any, bool]:
    """A panel of right-hand sides in the dtype of A, and whether it was a vector."""
    b = as_matrix(b, name=name, sparse=False, vector=True)
    check_together(A._like(), b, names=("A", name))
    if b.shape[0] != A.shape[0]:
        raise ValueError(f"{name} must have {A.shape[0]} rows, got shape {tuple(b.shape)}")
    if is_complex(b.dtype) and not is_complex(A.dtype):
        raise ValueError(f"{name} must be real like A, got complex values; solve for its two parts as two columns")
    panel = A.xp.astype(b, A.dtype, copy=False)
    return (panel[:, None], True) if b.ndim == 1 else (panel, False)


def _preconditioner(source: Any, A: LinearMap, mu: float, wanted: Any, key: Key) -> Any:
    if wanted is None or (isinstance(wanted, str) and wanted == "auto" and (mu == 0.0 or A.shape[0] == 0)):
        return None
    if hasattr(wanted, "matmat"):
        if tuple(wanted.shape) != A.shape:
            raise ValueError(f"preconditioner must have shape {A.shape}, got {tuple(wanted.shape)}")
        return wanted
    rank = check_choice(wanted, "preconditioner", ("auto",)) if isinstance(wanted, str) else wanted
    return nystrom_preconditioner(source if isinstance(A, KernelMap) else A, mu, rank, rng=key)


class _ConjugateGradients:
    """The iterate and its history; columns that have converged stand still."""

    def __init__(
        self,
        A: LinearMap,
        B: Any,
        mu: float,
        P: Any,
        tol: float,
        limit: int,
        callback: Callable[[SolveStep], Any] | None,
    ) -> None:
        self.A, self.B, self.mu, self.P, self.tol, self.limit, self.callback = A, B, mu, P, tol, limit, callback
        self.xp, self.n_iter, self.residual, self.stopped = A.xp, 0, math.nan, False
        self.history: list[float] = []
        self.norms = self._lengths(B)

    def _lengths(self, R: Any) -> Any:
        xp = self.xp
        return xp.sqrt(xp.sum(xp.astype(xp.abs(R), xp.float64) ** 2, axis=0))

    def _dots(self, X: Any, Y: Any) -> Any:
        """The real parts of the inner products of columns."""
        xp = self.xp
        products = xp.real(xp.conj(X) * Y) if is_complex(X.dtype) else X * Y
        return xp.sum(xp.astype(products, xp.float64), axis=0)

    def _apply(self, X: Any) -> Any:
        return self.A.matmul(X) + self.mu * X if self.mu else self.A.matmul(X)

    def _relative(self, lengths: Any) -> float:
        """The largest length relative to its right-hand side, NaN where one is not a number."""
        xp = self.xp
        if lengths.shape[0] == 0:
            return 0.0
        return float(xp.max(xp.where(lengths == 0.0, lengths, lengths / xp.where(self.norms > 0, self.norms, 1e-300))))

    def go(self, X: Any) -> Status:
        """Iterate from X until the tolerance, the limit or an obstacle."""
        self.X, last = X, math.inf
        for attempt in range(REPLACEMENTS + 1):
            known = attempt == 0 and not bool(self.xp.any(X != 0))
            R = self.B if known else self.B - self._apply(self.X)
            self.residual = self._relative(self._lengths(R))
            if attempt == 0:
                self.history.append(self.residual)
            if not math.isfinite(self.residual):
                return Status.NONFINITE
            if self.residual <= self.tol:
                return Status.CONVERGED
            if self.n_iter >= self.limit or self.stopped:
                return Status.MAX_ITER
            if not self.residual < last / 2.0:
                return Status.STAGNATED
            last = self.residual if attempt else math.inf
            status = self._run(R)
            if status is not Status.CONVERGED:
                self.residual = self._relative(self._lengths(self.B - self._apply(self.X)))
                return Status.CONVERGED if self.residual <= self.tol else status
        self.residual = self._relative(self._lengths(self.B - self._apply(self.X)))
        return Status.CONVERGED if self.residual <= self.tol else Status.STAGNATED

    def _run(self, R: Any) -> Status:
        """Conjugate gradients from the residual R until its recurrence is below the tolerance."""
        xp = self.xp
        Z = R if self.P is None else self.P.matmat(R)
        direction, rho = Z, self._dots(R, Z)
        while True:
            lengths = self._lengths(R)
            active = lengths > self.tol * self.norms
            if not bool(xp.any(active)):
                return Status.CONVERGED if math.isfinite(float(xp.sum(lengths))) else Status.NONFINITE
            if self.n_iter >= self.limit or self.stopped:
                return Status.MAX_ITER
            Q = self._apply(direction)
            curvature = self._dots(direction, Q)
            if not bool(xp.all(xp.isfinite(curvature))):
                return Status.NONFINITE
            if bool(xp.any(active & ((curvature <= 0.0) | (rho <= 0.0)))):
                return Status.BREAKDOWN
            alpha = self._row(xp.where(active, rho, xp.zeros_like(rho)) / xp.where(active, curvature, 1.0))
            self.X = self.X + alpha * direction
            R = R - alpha * Q
            Z = R if self.P is None else self.P.matmat(R)
            before, rho = rho, self._dots(R, Z)
            direction = Z + self._row(xp.where(active, rho / xp.where(active, before, 1.0), 0.0)) * direction
            self._record(self._relative(self._lengths(R)))

    def _row(self, values: Any) -> Any:
        return self.xp.astype(values, self.A.dtype)[None, :]

    def _record(self, residual: float) -> None:
        self.n_iter += 1
        self.history.append(residual)
        if self.callback is not None and self.callback(SolveStep(self.n_iter, residual)) is True:
            self.stopped = True
