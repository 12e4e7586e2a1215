"""Symmetric nonnegative factorisation ``A ~ H H.T``, for graphs and similarities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, is_cupy_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, from_host, is_complex, is_sparse, namespace_of
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, Stream, as_key
from .._results import Result, Status, warn_or_raise
from ..linear_maps import block_matmul
from .simplex import nonneg_lstsq

METHODS = ("auto", "coordinate", "anls")
BLOCK_ENTRIES = 2**21  # entries of a block of rows in which the residual is formed
CANCELLED = 1e8  # squared errors below this many eps are formed entry by entry
GROWTH = 1.01  # of the penalty, in each iteration


@dataclass(frozen=True, repr=False)
class SymmetricResult(Result):
    """Symmetric factorisation ``A ~ H H.T`` with nonnegative H; iterates as ``(H,)``.

    Attributes
    ----------
    H : array, shape (n, rank)
        Nonnegative factor.
    error : float
        ``||A - H H.T||_F / ||A||_F``, computed at the end.
    norm : float
        ``||A||_F``.
    method : str
        "coordinate" or "anls".
    asymmetry : float
        For "anls" ``||W - H||_F / ||H||_F`` of the two factors that were pulled together; 0 for "coordinate".
    n_iter : int
        Sweeps of the start that won.
    history : tuple of float
        The error of that start at its begin and after each sweep; with "coordinate" it never rises.
    start_errors : tuple of float
        The error that each start reached.
    status : Status
        How the best start ended.
    """

    H: Any
    error: float
    norm: float
    method: str
    asymmetry: float = 0.0
    n_iter: int = 0
    history: tuple[float, ...] = ()
    start_errors: tuple[float, ...] = ()
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("H",)

    @property
    def rank(self) -> int:
        """Number of parts."""
        return int(self.H.shape[1])

    @property
    def labels(self) -> Any:
        """The part with the largest entry in each row of H, int64 (n,): a clustering."""
        return array_namespace(self.H).argmax(self.H, axis=1)

    def to_dense(self) -> Any:
        """Return ``H H.T``, shape (n, n)."""
        return array_namespace(self.H).matmul(self.H, self.H.T)


def symmetric_nmf(
    A: Any, rank: int, *, method: str = "auto", init: Any = None, n_init: int = 1, max_iter: int = 500,
    tol: float = 1e-6, rng: Any = None, callback: Callable[[int, float], Any] | None = None, on_failure: str = "warn",
) -> SymmetricResult:  # fmt: skip
    """Approximate a symmetric matrix by ``H H.T`` with nonnegative H.

    Minimises ``||A - H H.T||_F^2``.  "coordinate" sets one entry of H after another to its exact minimiser, the root
    of a cubic: ``O(nnz(A) rank + n rank**2)`` operations a sweep, no step size, an error that never rises.  On the
    normalised similarities of a graph the parts are clusters that may overlap.

    Parameters
    ----------
    A : array, or CSR or CSC matrix, shape (n, n)
        Symmetric real matrix; it is not changed.  Negative entries are allowed.
    rank : int, 1 <= rank <= n
        Number of parts.
    method : {"auto", "coordinate", "anls"}, default "auto"
        "coordinate" as described; one entry depends on those before it, so it uses one thread.  "anls": nonnegative
        least squares for W and H in turn in ``||A - W H.T||^2 + mu ||W - H||^2``, made of products, for GPUs.  "auto"
        takes "anls" for CuPy, and else "coordinate".
    init : array, shape (n, rank), optional
        Nonnegative start; default uniform random numbers.  It is scaled to the best multiple.
    n_init : int, n_init >= 1, default 1
        Random starts, of which the best result is returned.
    max_iter : int, max_iter >= 0, default 500
        Sweeps of each start.
    tol : float, tol >= 0, default 1e-6
        Stop when a sweep lowers ``||A - H H.T||_F^2`` by at most this share of it; "anls" also asks for
        ``||W - H||_F <= sqrt(tol) ||H||_F``.
    rng : None, int, SeedSequence, Generator or Key
        Source of the starts.
    callback : callable, optional
        Called with the number of sweeps and the error after each; returning True ends the start.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    SymmetricResult
        ``H`` (n, rank) with its error; iterates as ``(H,)``.

    Raises
    ------
    ValueError
        If A is not symmetric, `init` does not fit or has a negative entry, or a parameter is out of range.
    TypeError
        If A is complex or not numeric.

    Notes
    -----
    For the entry h in row i and column k of H a quarter of the objective is ``x**4 / 4 + a x**2 / 2 + b x`` plus a
    constant, with ``a = ||H[:, k]||^2 + ||H[i]||^2 - A[i, i] - 2 h^2`` and ``b = (H H.T H - A H)[i, k] - a h - h^3``;
    the minimiser over x >= 0 is 0 or the largest root of ``x**3 + a x + b`` [1]_.  H.T H is updated with each entry.

    Deviations: (1) rows are taken one after another with all their entries, not columns, so that a row of A is read
    once; the fixed points are the same.  (2) "anls" starts at the mean of the diagonal of ``H.T H`` for mu and raises
    it by 1 % in each iteration until the factors agree; [2]_ keeps it fixed.

    References
    ----------
    .. [1] Vandaele, Gillis, Lei, Zhong and Dhillon, "Efficient and non-convex coordinate descent for symmetric
       nonnegative matrix factorization", IEEE Transactions on Signal Processing 64, 2016, Algorithm 4.
    .. [2] Kuang, Yun and Park, "SymNMF: nonnegative low-rank approximation of a similarity matrix for graph
       clustering", J. Global Optimization 62, 2015.

    Examples
    --------
    >>> import numpy as np, randla
    >>> blocks = np.kron(np.eye(3), np.ones((5, 5)))
    >>> result = randla.symmetric_nmf(blocks, 3, n_init=5, rng=0)
    >>> result.error < 1e-3, len(set(result.labels[:5].tolist()))
    (True, 1)
    """
    check_choice(method, "method", METHODS)
    problem = _Problem(A)
    n = problem.shape[0]
    rank = check_integer(rank, "rank", low=1, high=n)
    n_init, max_iter = check_integer(n_init, "n_init", low=1), check_integer(max_iter, "max_iter", low=0)
    tol = check_real(tol, "tol", low=0.0)
    xp = problem.xp
    method = ("anls" if is_cupy_namespace(xp) else "coordinate") if method == "auto" else method
    key = as_key(rng).fold("symmetric_nmf")
    if not 0 < problem.norm < math.inf:  # zeros, or NaN and infinity
        H = xp.zeros((n, rank), dtype=problem.dtype, device=device_of(problem.like))
        status, error = (Status.CONVERGED, 0.0) if problem.norm == 0.0 else (Status.NONFINITE, math.nan)
        result = SymmetricResult(H, error, problem.norm, method, status=status)
        return warn_or_raise(result, on_failure, what="symmetric_nmf")
    best: SymmetricResult | None = None
    errors = []
    for trial in range(1 if init is not None else n_init):
        H = problem.started(rank, init, key.fold(trial))
        run = _coordinate if method == "coordinate" else _anls
        found = run(problem, H, max_iter, tol, callback)
        errors.append(found.error)
        if best is None or found.error < best.error:
            best = found
    result = SymmetricResult(**{**vars(best), "start_errors": tuple(errors)})
    return warn_or_raise(result, on_failure, what="symmetric_nmf")


class _Problem:
    """A symmetric matrix, scaled to norm one: its products, norms and residuals."""

    def __init__(self, A: Any) -> None:
        A = as_matrix(A)
        self.xp = xp = namespace_of(A)
        if is_complex(A.dtype):
            raise TypeError(f"A must be real, got {A.dtype}")
        if is_sparse(A) and not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            raise NotImplementedError("A must be a SciPy or CuPy matrix where it is sparse")
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        if self.shape[0] != self.shape[1] or self.shape[0] == 0:
            raise ValueError(f"A must be square and not empty, got shape {self.shape}")
        self.dtype = floating_dtype(A, xp)
        if is_sparse(A):
            A = A.tocsr() if A.dtype == self.dtype else A.tocsr().astype(self.dtype)
            if not A.has_canonical_format:
                A = A.copy()
                A.sum_duplicates()
        else:
            A = xp.astype(A, self.dtype, copy=False)
        entries = A.data if is_sparse(A) else A
        self.like = entries
        largest = float(xp.max(xp.abs(entries))) if 0 not in entries.shape else 0.0
        if math.isfinite(largest):
            self._check_symmetry(A, largest)
        self.norm = largest  # NaN and infinity stay
        if 0 < largest < math.inf:
            wide = xp.astype(entries, xp.float64) / largest
            self.norm = largest * math.sqrt(float(xp.sum(wide * wide)))
            # entries of H are about the root of those of A: so none leaves the range, and the squared norm is one
            A = type(A)((A.data / self.norm, A.indices, A.indptr), shape=A.shape) if is_sparse(A) else A / self.norm
        self.A = A

    def _check_symmetry(self, A: Any, largest: float) -> None:
        xp, difference = self.xp, A - A.T
        entries = difference.data if is_sparse(difference) else difference
        worst = float(xp.max(xp.abs(entries))) if 0 not in entries.shape else 0.0
        if worst > 64 * eps(self.dtype) * largest:
            raise ValueError(f"A must be symmetric, got a difference of {worst:g} to its transpose; pass (A + A.T) / 2")

    def started(self, rank: int, init: Any, key: Key) -> Any:
        """A start, scaled so that ``H H.T`` is as near to A as a multiple can be."""
        xp, n = self.xp, self.shape[0]
        if init is None:
            u = kernel("uniforms", np)(key, Stream.SAMPLE, 0, n * rank).reshape(n, rank)
            H = xp.astype(from_host(u, xp, self.like), self.dtype)
        else:
            H = as_matrix(init, name="init", sparse=False)
            check_together(self.like, H, names=("A", "init"))
            if tuple(H.shape) != (n, rank):
                raise ValueError(f"init must have shape {(n, rank)}, got {tuple(H.shape)}")
            if not bool(xp.all(H >= 0)):
                raise ValueError("init must be nonnegative, got a negative entry or NaN")
            H = xp.astype(H, self.dtype)
        inner = float(xp.sum(xp.astype(self.products(H) * H, xp.float64)))
        G = self.gram(H)
        whole = float(xp.sum(G * G))
        return H * math.sqrt(inner / whole) if inner > 0 and whole > 0 else H

    def products(self, H: Any) -> Any:
        """``A H``."""
        return block_matmul(self.A, H)

    def gram(self, H: Any) -> Any:
        """``H.T H`` in double precision."""
        wide = self.xp.astype(H, self.xp.float64)
        return self.xp.matmul(wide.mT, wide)

    def sweep(self, H: Any) -> tuple[Any, float]:
        """One pass of coordinate descent, and by how much the squared norm fell."""
        if is_sparse(self.A):
            H, fall = kernel("csr_symmetric_sweep", self.xp)(self.A.data, self.A.indices, self.A.indptr, H)
        else:
            H, fall = kernel("symmetric_sweep", self.xp)(self.A, H)
        return H, float(fall[0])

    def residual(self, H: Any) -> float:
        """``||A - H H.T||_F^2``, from products with H, and block by block where that difference has lost its digits."""
        xp, n, total = self.xp, self.shape[0], 0.0
        G = self.gram(H)
        inner = float(xp.sum(xp.astype(self.products(H), xp.float64) * xp.astype(H, xp.float64)))
        squares = 1.0 - 2 * inner + float(xp.sum(G * G))
        if not squares < CANCELLED * eps(self.dtype) or not math.isfinite(inner):
            return squares
        step = max(1, BLOCK_ENTRIES // n)
        wide = xp.astype(H, xp.float64)
        for lo in range(0, n, step):
            hi = min(lo + step, n)
            block = self.A[lo:hi, :]
            block = xp.astype(block.toarray() if is_sparse(block) else block, xp.float64)
            block = block - xp.matmul(wide[lo:hi, :], wide.mT)
            total += float(xp.sum(block * block))
        return total

    def result(
        self, H: Any, squares: float, history: list[float], status: Status, method: str, asymmetry: float = 0.0
    ) -> SymmetricResult:
        """H at the scale of the matrix that came in."""
        return SymmetricResult(
            H * math.sqrt(self.norm), math.sqrt(squares), self.norm, method, asymmetry=asymmetry,
            n_iter=len(history) - 1, history=tuple(history), status=status,
        )  # fmt: skip


def _coordinate(problem: _Problem, H: Any, max_iter: int, tol: float, callback: Any) -> SymmetricResult:
    """Sweeps whose falls are added up, as they are known to more digits than the difference of two norms."""
    squares, status = problem.residual(H), Status.MAX_ITER
    history, noise = [math.sqrt(squares)], 8 * eps(problem.dtype)
    for step in range(max_iter):
        H, fall = problem.sweep(H)
        squares -= fall
        if squares < CANCELLED * eps(problem.dtype):
            squares = problem.residual(H)
        history.append(math.sqrt(squares))
        if not math.isfinite(squares):
            status = Status.NONFINITE
            break
        if fall <= tol * squares or squares <= noise**2:
            status = Status.CONVERGED
            break
        if callback is not None and callback(step + 1, history[-1]):
            break
    return problem.result(H, problem.residual(H), history, status, "coordinate")


def _anls(problem: _Problem, H: Any, max_iter: int, tol: float, callback: Any) -> SymmetricResult:
    """Nonnegative least squares for two factors, whose distance costs more and more until they agree."""
    xp, r = problem.xp, H.shape[1]
    eye = xp.eye(r, dtype=xp.float64, device=device_of(H))
    W, status = H, Status.MAX_ITER
    mu = float(xp.linalg.trace(problem.gram(H))) / r or 1.0
    history, asymmetry, noise = [math.sqrt(problem.residual(H))], 0.0, 8 * eps(problem.dtype)
    for step in range(max_iter):
        for _ in range(2):
            B = xp.astype(problem.products(W), xp.float64) + mu * xp.astype(W, xp.float64)
            start = xp.astype(H, xp.float64).mT
            new = nonneg_lstsq(problem.gram(W) + mu * eye, B.mT, start).mT
            W, H = xp.astype(new, problem.dtype), W
        size = float(xp.linalg.vector_norm(H))
        asymmetry = float(xp.linalg.vector_norm(W - H)) / size if size else 0.0
        history.append(math.sqrt(problem.residual(H)))
        if not math.isfinite(history[-1]):
            status = Status.NONFINITE
            break
        drop = abs(history[-2] ** 2 - history[-1] ** 2)
        if (drop <= tol * history[-1] ** 2 or history[-1] <= noise) and asymmetry <= math.sqrt(tol):
            status = Status.CONVERGED
            break
        if callback is not None and callback(step + 1, history[-1]):
            break
        mu *= GROWTH
    return problem.result(H, history[-1] ** 2, history, status, "anls", asymmetry)
