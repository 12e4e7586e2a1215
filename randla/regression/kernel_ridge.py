"""Kernel ridge regression on all points or on a few centres, by preconditioned conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import device as device_of
from array_api_compat import is_numpy_namespace

from .._arrays import as_matrix, check_together, eps, from_host, is_complex, is_sparse, namespace_of
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..linear_maps import LinearMap
from ..lowrank.kernel_functions import KernelMatrix, as_kernel_matrix
from ..lowrank.psd_solvers import nystrom_preconditioner, solve_psd
from ..operators import SparseSign
from ..triangular import cholesky, inverse_of, row_pieces
from .kernel_maps import CentreColumns, ScaledKernel

SOLVERS = ("auto", "krill", "falkon", "direct", "pcg")
TOLERANCE = {False: 1e-6, True: 1e-4}  # default, and in single precision
DIRECT_KEPT, DIRECT_ANEW = 500, 1500  # centres up to which a Gram matrix costs less than steps on kept or new tiles
SKETCH_FACTOR = 2  # rows of the sketch for each centre
SKETCH_NNZ = 8
MOST_SHIFTS = 10  # tenfold shifts until a factorisation succeeds


@dataclass(frozen=True)
class KernelRidgeStep:
    """What a callback of `kernel_ridge` is told after each step of the iteration.

    Attributes
    ----------
    n_iter : int
        Steps done.
    error : float
        The relative residual, the largest over the targets, that is to fall below `tol`.
    n_entries : int
        Kernel values computed so far.
    """

    n_iter: int
    error: float
    n_entries: int


@dataclass(frozen=True, repr=False)
class KernelRidgeResult(Result):
    """Solution of a kernel ridge regression; iterates as ``(coef,)``.

    Numbers that belong to a target are floats for y of shape (n,) and tuples of floats for (n, t).

    Attributes
    ----------
    coef : array, shape (k,) or (k, t)
        Weights of the centres: the prediction at x is ``kernel(x, centres) @ coef``.
    centers : int64 array, shape (k,), or None
        Numbers of the points that are centres; None where points were given, or every point is one.
    residual_norm : float
        ``||y - A_S w||``, with the weights.
    residual : float
        The relative residual that `tol` is compared with: ``||A_S' (y - A_S w) - alpha A_SS w|| / ||A_S' y||`` with
        centres, ``||y - (K + alpha I) w|| / ||y||`` without.
    error : float
        Bound or estimate of ``||A_S (w - w*)|| / ||y||``, the relative error of the fitted values against those of the
        exact solution w* of the same problem.
    error_kind : str
        "bound": holds up to rounding; "sketched": holds with high probability over the sketch.
    solver, reason : str
        What was used, and why.
    n_iter, n_passes : int
        Steps, and reads of the kernel values.
    n_entries : int
        Kernel values that were computed.
    history : tuple of float
        The error of `KernelRidgeStep` after each step.
    status : Status
    """

    coef: Any
    centers: Any
    residual_norm: Any
    residual: Any
    error: Any
    error_kind: str
    solver: str
    reason: str
    n_iter: int
    n_passes: int
    n_entries: int
    history: tuple[float, ...]
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("coef",)


class _Job(NamedTuple):
    """A checked problem."""

    K: Any
    Y: Any
    vector: bool
    alpha: float
    weights: Any
    tol: float
    max_iter: int
    memory_limit: int
    key: Key
    callback: Any


def kernel_ridge(
    K: Any, y: Any, alpha: float = 1.0, *, centers: Any = None, weights: Any = None, solver: str = "auto",
    rank: int | None = None, tol: float | None = None, max_iter: int = 200, memory_limit: int = 2**30, rng: Any = None,
    callback: Callable[[KernelRidgeStep], Any] | None = None, on_failure: str = "warn",
) -> KernelRidgeResult:  # fmt: skip
    """Fit ``y ~ K w``, or ``y ~ K[:, centers] w`` with few centres, and the penalty of the kernel's own norm.

    With k centres S it minimises ``sum_i weights_i (y - K[:, S] w)_i**2 + alpha w' K[S, S] w`` by conjugate gradients
    on the normal equations, whose preconditioner comes from a sketch of ``K[:, S]`` [1]_: some 20 to 40 steps, whatever
    alpha is.  Without centres it solves ``(K + alpha I) w = y`` by conjugate gradients with a randomized Nystrom
    preconditioner [2]_.  Kernel values are computed tile by tile in each product, and kept where they fit
    `memory_limit`.

    Parameters
    ----------
    K : KernelMatrix, or array of shape (n, n)
        The kernel matrix of the points: positive semidefinite.
    y : array, shape (n,) or (n, t)
        One target, or several.
    alpha : float, alpha >= 0, default 1.0
        The penalty, as in scikit-learn's KernelRidge; positive without centres.
    centers : int, integer array of shape (k,), array of shape (k, d), or None
        How many points are drawn uniformly, the numbers of points, or points that need not be among those of K.
        None: all points are centres.
    weights : array, shape (n,), optional
        Non-negative weights of the squared residuals; positive without centres.
    solver : {"auto", "krill", "falkon", "direct", "pcg"}, default "auto"
        With centres: "krill" as described; "falkon" takes the preconditioner of [3]_, which is right for centres drawn
        uniformly and an alpha that is not small; "direct" forms the Gram matrix.  "pcg" belongs to all points.
    rank : int, optional
        Of the preconditioner of "pcg".
    tol : float, optional
        Stop when the relative `residual` of the result is at most this; 1e-6 by default, 1e-4 in single precision.
    max_iter : int, default 200
        Most steps.
    memory_limit : int, default 2**30
        Bytes up to which ``K[:, S]``, or K without centres, is kept; with 0 it is computed anew in each step.
    rng : None, int, SeedSequence, Generator or Key
        Source of sketches and of centres; equal keys give equal results up to rounding.
    callback : callable, optional
        Called with a `KernelRidgeStep` after each step; returning True ends the iteration with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the tolerance was not reached.

    Returns
    -------
    KernelRidgeResult
        ``coef`` of shape (k,) or (k, t), how good it is and what it cost; iterates as ``(coef,)``.

    Raises
    ------
    ValueError
        If shapes do not fit, or a parameter is out of range or does not belong to the solver.
    TypeError
        If K or y is not numeric.

    Notes
    -----
    With centres the unknowns are ``u = T w`` with ``T' T = K[S, S] + eps tr(K[S, S]) I``, so that the penalty is
    ``alpha ||u||**2`` and what is inverted are normal equations of the features ``K[:, S] inv(T)``; the shift keeps
    dependent centres harmless.  The sketch has 2 k rows and 8 nonzeros a column; where its distortion is that of a
    Gaussian one, the condition number is below 34 and a step gains a factor of 0.71.

    The error is that of the fitted values against the exact solution of the same problem.  With r the residual in the
    preconditioned variables it is at most ``(1 + sqrt(1 / 2)) ||r||`` for such a sketch ("sketched"), and never more
    than ``||inv(T)' g|| / sqrt(alpha)`` for half the gradient g ("bound"); without centres ``||y - (K + alpha I) w||``
    bounds it.  How much of the kernel the centres cover is another question, which `rpcholesky` answers.

    Cost of a step: n k kernel values, where they are not kept, and 4 n k flops.  Before: 16 n k additions for the
    sketch and 4 k**3 flops for factors; "direct" takes 3 n k**2 flops instead.  Memory: 3 k**2 numbers, and K[:, S]
    where it is kept.

    References
    ----------
    .. [1] Diaz, Epperly, Frangella, Tropp and Webber, "Robust, randomized preconditioning for kernel ridge regression",
       arXiv:2304.12465, KRILL.
    .. [2] Frangella, Tropp and Udell, "Randomized Nystrom preconditioning", arXiv:2110.02820.
    .. [3] Rudi, Carratino and Rosasco, "FALKON: an optimal large scale kernel method", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.kernel_functions import KernelMatrix
    >>> from randla.regression.kernel_ridge import kernel_ridge
    >>> X = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    >>> y = np.sin(3 * X[:, 0]) * X[:, 1]
    >>> result = kernel_ridge(KernelMatrix(X, "rbf", gamma=2.0), y, 1e-6, centers=100, rng=0)
    >>> result.status, bool(result.residual_norm < 1e-2 * np.linalg.norm(y)), result.coef.shape
    (Status.CONVERGED, True, (100,))
    """
    check_choice(solver, "solver", SOLVERS)
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    job = _checked_job(K, y, alpha, weights, tol, max_iter, memory_limit, rng, callback)
    if centers is None:
        if solver not in ("auto", "pcg"):
            raise ValueError(f'solver must be "auto" or "pcg" without centers, got {solver!r}; give centers')
        result = _all_points(job, rank)
    else:
        if solver == "pcg" or rank is not None:
            name, value = ("solver", solver) if solver == "pcg" else ("rank", rank)
            raise ValueError(f"{name} must not be given with centers, got {value!r}; leave out one of them")
        result = _with_centers(job, *_checked_centers(centers, job), solver)
    return warn_or_raise(result, on_failure, what="kernel_ridge")


# --- parameters -------------------------------------------------------------------------------------------------------


def _checked_job(
    K: Any, y: Any, alpha: Any, weights: Any, tol: Any, max_iter: Any, memory_limit: Any, rng: Any, callback: Any
) -> _Job:
    K = as_kernel_matrix(K, name="K")
    xp, n = K.xp, K.shape[0]
    y = as_matrix(y, name="y", sparse=False, vector=True)
    like = xp.empty((0,), dtype=K.dtype, device=K.device)
    check_together(like, y, names=("K", "y"))
    if y.shape[0] != n:
        raise ValueError(f"y must have {n} rows as K has, got shape {tuple(y.shape)}")
    if is_complex(y.dtype):
        raise ValueError(f"y must be real, got {y.dtype}; pass real and imaginary parts as two columns")
    Y = xp.astype(y[:, None] if y.ndim == 1 else y, xp.float64)
    if min(n, Y.shape[1]) == 0:
        raise ValueError(f"K and y must not be empty, got shapes {tuple(K.shape)} and {tuple(y.shape)}")
    tol = TOLERANCE[eps(K.dtype) > 1e-10] if tol is None else check_real(tol, "tol", low=0.0, closed="neither")
    return _Job(
        K, Y, y.ndim == 1, check_real(alpha, "alpha", low=0.0), _checked_weights(weights, like, n), tol,
        check_integer(max_iter, "max_iter", low=0), check_integer(memory_limit, "memory_limit", low=0),
        as_key(rng).fold("kernel_ridge"), callback,
    )  # fmt: skip


def _checked_weights(weights: Any, like: Any, n: int) -> Any:
    if weights is None:
        return None
    weights = as_matrix(weights, name="weights", sparse=False, vector=True)
    check_together(like, weights, names=("K", "weights"))
    xp = namespace_of(like)
    if tuple(weights.shape) != (n,):
        raise ValueError(f"weights must have shape ({n},), got {tuple(weights.shape)}")
    if is_complex(weights.dtype):
        raise TypeError(f"weights must be real, got {weights.dtype}")
    weights = xp.astype(weights, xp.float64)
    if not bool(xp.all((weights >= 0) & xp.isfinite(weights))):
        raise ValueError("weights must be finite and not negative, got NaN, infinity or a negative weight")
    return weights


def _checked_centers(centers: Any, job: _Job) -> tuple[CentreColumns, Any]:
    """(the columns of the centres, their numbers or None)."""
    K, xp, n = job.K, job.K.xp, job.K.shape[0]
    like = xp.empty((0,), dtype=K.dtype, device=K.device)
    if np.ndim(centers) == 0 and not hasattr(centers, "shape"):
        size = check_integer(centers, "centers", low=1, high=n)
        chosen = from_host(kernel("distinct_rows", np)(job.key.fold("centers"), n, size), xp, like)
        return CentreColumns(K, chosen, points=False), chosen
    if not is_sparse(centers):
        centers = as_matrix(centers, name="centers", vector=True)
        check_together(like, centers, names=("K", "centers"))
    if centers.ndim == 2:
        if centers.shape[0] == 0:
            raise ValueError("centers must be at least one point, got none")
        return CentreColumns(K, centers, points=True), None
    if not xp.isdtype(centers.dtype, "integral"):
        raise TypeError(f"centers must be numbers of points, or points, got a 1-D array of {centers.dtype}")
    chosen = xp.astype(centers, xp.int64)
    if chosen.shape[0] == 0 or int(xp.min(chosen)) < 0 or int(xp.max(chosen)) >= n:
        raise ValueError(f"centers must be numbers in [0, {n}), at least one, got {centers!r}")
    return CentreColumns(K, chosen, points=False), chosen


# --- a few centres ----------------------------------------------------------------------------------------------------


class _System(NamedTuple):
    """The normal equations in the variables ``v = R T w``: ``T' T`` is the kernel of the centres, R a preconditioner.

    `T`, `R` and their inverses are (k, k) and in double precision; `reach` times the norm of a residual in these
    variables bounds the error in the norm of the problem.
    """

    rows: LinearMap
    Y: Any
    weights: Any
    alpha: float
    T: Any
    T_inverse: Any
    R: Any
    R_inverse: Any
    reach: float
    scale: Any

    def coef(self, V: Any) -> Any:
        xp = self.rows.xp
        return xp.matmul(self.T_inverse, xp.matmul(self.R_inverse, V))

    def apply(self, V: Any) -> Any:
        """The matrix of the preconditioned normal equations times a panel."""
        W, U = self._unknowns(V)
        return self._pulled(self.rows.normal_products(W, self.weights), -self.alpha * U)

    def residual(self, V: Any) -> tuple[Any, Any]:
        """(residual in the variables v, weighted squares of y - A_S w), from the kernel values themselves."""
        W, U = self._unknowns(V)
        G, squares = self.rows.normal_residual(W, self.Y, self.weights)
        return self._pulled(G, self.alpha * U), squares

    def _unknowns(self, V: Any) -> tuple[Any, Any]:
        xp = self.rows.xp
        U = xp.matmul(self.R_inverse, V)
        return xp.astype(xp.matmul(self.T_inverse, U), self.rows.dtype, copy=False), U

    def _pulled(self, G: Any, U: Any) -> Any:
        xp = self.rows.xp
        G = xp.matmul(self.T_inverse.T, xp.astype(G, self.T.dtype, copy=False))
        return xp.matmul(self.R_inverse.T, G - U)

    def lengths(self, S: Any) -> Any:
        """The norm of the residual in w that is S in v, a number for each target."""
        xp = self.rows.xp
        return _norms(xp.matmul(self.T.T, xp.matmul(self.R.T, S)), xp)

    def relative(self, S: Any) -> Any:
        return self.lengths(S) / self.scale


def _with_centers(job: _Job, tiles: CentreColumns, chosen: Any, solver: str) -> KernelRidgeResult:
    (n, k), reason, before = tiles.shape, "as asked", job.K.n_entries
    if solver == "auto":
        most = DIRECT_KEPT if 8 * n * k <= job.memory_limit else DIRECT_ANEW
        small = k <= most or n <= 2 * SKETCH_FACTOR * k
        solver = "direct" if small else "krill"
        reason = f"{k} centres: a " + ("Gram matrix is cheap" if small else "sketch is cheaper than a Gram matrix")
    system = _system(job, tiles, solver)
    system, found = _refine(system, job, lambda: job.K.n_entries - before)
    xp, S = system.rows.xp, found.residual
    error = system.reach * _norms(S, xp)
    if job.alpha > 0.0:
        error = xp.minimum(error, _norms(xp.matmul(system.R.T, S), xp) / math.sqrt(job.alpha))
    roots = 1.0 if job.weights is None else xp.sqrt(job.weights)[:, None]
    exact = system.coef(found.V)
    coef = xp.astype(exact, job.K.dtype)
    if coef.dtype != exact.dtype:  # large coefficients that cancel lose more to rounding than the iteration left
        error = error + _norms(roots * system.rows.matmul(xp.astype(coef, exact.dtype) - exact), xp)
    return KernelRidgeResult(
        coef=coef[:, 0] if job.vector else coef,
        centers=chosen,
        residual_norm=_numbers(xp.sqrt(found.squares), job.vector),
        residual=_numbers(system.relative(S), job.vector),
        error=_numbers(error / _positive(_norms(roots * job.Y, xp), xp), job.vector),
        error_kind="sketched" if solver == "krill" else "bound",
        solver=solver,
        reason=reason,
        n_iter=len(found.history),
        n_passes=system.rows.n_passes,
        n_entries=job.K.n_entries - before,
        history=found.history,
        status=found.status,
    )


def _system(job: _Job, tiles: CentreColumns, solver: str) -> _System:
    """Factor the kernel of the centres and the preconditioner, and set up the right-hand side."""
    T = shifted_factor(tiles.square(), eps(job.K.dtype))
    rows = tiles.kept(job.memory_limit)
    xp, (n, k) = rows.xp, rows.shape
    reach = math.inf
    if solver == "krill":
        size = SKETCH_FACTOR * k
        S = SparseSign(size, n, nnz=min(SKETCH_NNZ, size), rng=job.key.fold("sketch"))
        P = _whitened_gram([_sketched(rows, S, job.weights)], T)
        reach = 1.0 + math.sqrt(1.0 / SKETCH_FACTOR)
    elif solver == "falkon":
        total = float(n) if job.weights is None else float(xp.sum(job.weights))
        P = (total / k) * xp.matmul(T, T.T)
    else:
        rows._count(0)
        P = _whitened_gram((block for _, block in row_pieces(rows, job.weights)), T)
        reach = 1.001  # the matrix itself, up to rounding
    eye = xp.eye(k, dtype=T.dtype, device=rows.device)
    R = shifted_factor(P + job.alpha * eye, eps(T.dtype))
    scale = xp.ones((1,), dtype=T.dtype, device=rows.device)
    return _System(rows, job.Y, job.weights, job.alpha, T, inverse_of(T), R, inverse_of(R), reach, scale)


def _sketched(rows: LinearMap, S: SparseSign, weights: Any) -> Any:
    """``S diag(sqrt(weights)) A_S``, over blocks as tall as the sketch, which is added to for each of them."""
    xp, step = rows.xp, S.sketch_size
    rows._count(S.sketch_size)
    total: Any = None
    waiting: list[Any] = []
    start = height = 0
    for lo, block in row_pieces(rows, weights):
        waiting.append(block)
        height += block.shape[0]
        if height >= step or lo + block.shape[0] == rows.shape[0]:
            part = S.matmul(waiting[0] if len(waiting) == 1 else xp.concat(waiting, axis=0), start=start)
            total = part if total is None else total + part
            waiting, start, height = [], lo + block.shape[0], 0
    return xp.astype(total, xp.float64, copy=False)


def _whitened_gram(blocks: Iterable[Any], T: Any) -> Any:
    """The sum over blocks of ``F' F`` for ``F = block inv(T)``, in double precision."""
    xp = namespace_of(T)
    total: Any = None
    for block in blocks:
        F = right_divided(xp.astype(block, T.dtype, copy=False), T)
        part = xp.matmul(F.T, F)
        total = part if total is None else total + part
    return total


def right_divided(M: Any, T: Any) -> Any:
    """``M inv(T)`` for an upper triangular T of the same dtype."""
    xp = namespace_of(T)
    if not is_numpy_namespace(xp):
        return xp.matmul(M, inverse_of(T))
    from scipy.linalg.blas import get_blas_funcs

    return get_blas_funcs("trsm", (T, M))(1.0, T, M.T, trans_a=1).T


def shifted_factor(M: Any, precision: float) -> Any:
    """The upper triangular R with ``R' R = M + shift I``, for the smallest shift from eps tr(M) on that has one."""
    xp = namespace_of(M)
    trace = float(xp.sum(xp.linalg.diagonal(M)))
    if not math.isfinite(trace):
        raise ValueError("K must be finite, got NaN or infinity among the kernel values of the centers")
    eye = xp.eye(M.shape[0], dtype=M.dtype, device=device_of(M))
    shift = precision * max(trace, 1e-300)
    for _ in range(MOST_SHIFTS):
        R = cholesky(M + shift * eye)
        if R is not None:
            return R
        shift *= 10.0
    raise ValueError("K must be positive semidefinite, got a kernel of the centers with large negative eigenvalues")


# --- all points -------------------------------------------------------------------------------------------------------


def _all_points(job: _Job, rank: int | None) -> KernelRidgeResult:
    """``(K + alpha W^-1) w = y`` as ``(D K D + alpha I) z = D y`` and ``w = D z`` with D the roots of the weights."""
    K, xp, alpha = job.K, job.K.xp, check_real(job.alpha, "alpha", low=0.0, closed="neither")
    before, D, A = K.n_entries, None, K
    if job.weights is not None:
        if not bool(xp.all(job.weights > 0)):
            raise ValueError("weights must be positive without centers, got zero; leave those points out")
        D = xp.sqrt(job.weights)[:, None]
        A = ScaledKernel(K, D[:, 0])
    if K.shape[0] ** 2 * (4 if eps(K.dtype) > 1e-10 else 8) <= job.memory_limit:
        A = KernelMatrix(A.block(None, None), "precomputed")
    Y = xp.astype(job.Y if D is None else D * job.Y, K.dtype)
    P = nystrom_preconditioner(
        A, alpha, "auto" if rank is None else rank, method="rpcholesky", rng=job.key.fold("preconditioner")
    )

    def callback(step: Any) -> bool:
        told = KernelRidgeStep(step.n_iter, step.residual, K.n_entries - before)
        return job.callback is not None and job.callback(told) is True

    found = solve_psd(
        A, Y, alpha, preconditioner=P, tol=job.tol, max_iter=job.max_iter, callback=callback, on_failure="ignore"
    )
    Z = found.x
    left = Y - xp.astype(A.matmul(Z), Y.dtype)  # of the fit; the residual of the system is less by alpha Z
    length = _positive(_norms(Y, xp), xp)
    residual = _norms(left - alpha * Z, xp) / length
    coef = Z if D is None else xp.astype(D, Z.dtype) * Z
    return KernelRidgeResult(
        coef=coef[:, 0] if job.vector else coef,
        centers=None,
        residual_norm=_numbers(_norms(left, xp), job.vector),
        residual=_numbers(residual, job.vector),
        error=_numbers(residual, job.vector),
        error_kind="bound",
        solver="pcg",
        reason=f"all points are centres; a preconditioner of rank {P.rank}",
        n_iter=found.n_iter,
        n_passes=found.n_iter + 2,
        n_entries=K.n_entries - before,
        history=tuple(found.history[1:]),
        status=found.status,
    )


# --- the iteration ----------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """The solution in preconditioned variables, its residual there, the squares of the fit, and how it was reached."""

    V: Any
    residual: Any
    squares: Any
    history: tuple[float, ...]
    status: Status


class _Steps(NamedTuple):
    """What conjugate gradients add to the solution, and how they ended."""

    move: Any
    history: tuple[float, ...]
    stopped: bool


def _refine(system: _System, job: _Job, n_entries: Callable[[], int]) -> tuple[_System, _Found]:
    """Conjugate gradients until the residual, computed from the kernel values, is below the tolerance.

    The residual of the recurrence parts from the true one, so each pass begins from the latter.
    """
    xp = system.rows.xp
    V = xp.zeros((system.T.shape[0], job.Y.shape[1]), dtype=system.T.dtype, device=system.rows.device)
    S, squares = system.residual(V)
    system = system._replace(scale=_positive(system.lengths(S), xp))
    history: tuple[float, ...] = ()
    best, stopped, stuck = (math.inf, V, S, squares), False, False
    while True:
        error = float(xp.max(system.relative(S)))
        if not math.isfinite(error):
            return system, _Found(*best[1:], history, Status.NONFINITE)
        stuck = len(history) > 0 and error > 0.5 * best[0]
        if error < best[0]:
            best = error, V, S, squares
        if best[0] <= job.tol:
            return system, _Found(*best[1:], history, Status.CONVERGED)
        if stuck or stopped or len(history) >= job.max_iter:
            spent = stopped or len(history) >= job.max_iter
            return system, _Found(*best[1:], history, Status.MAX_ITER if spent else Status.STAGNATED)
        steps = _conjugate_gradients(system, S, job, history, n_entries)
        V, history, stopped = V + steps.move, steps.history, steps.stopped
        S, squares = system.residual(V)


def _conjugate_gradients(
    system: _System, S: Any, job: _Job, history: tuple[float, ...], n_entries: Callable[[], int]
) -> _Steps:
    """Solve for the correction that makes the residual S zero, all targets at once."""
    xp = system.rows.xp
    move, direction = xp.zeros_like(S), S
    squares = xp.sum(S**2, axis=0)
    while len(history) < job.max_iter:
        image = system.apply(direction)
        curvature = xp.sum(direction * image, axis=0)
        step = xp.where(curvature > 0, squares / _positive(curvature, xp), xp.zeros_like(squares))
        move, S = move + step * direction, S - step * image
        before, squares = squares, xp.sum(S**2, axis=0)
        direction = S + squares / _positive(before, xp) * direction
        error = float(xp.max(system.relative(S)))
        history = (*history, error)
        stopped = job.callback is not None and job.callback(KernelRidgeStep(len(history), error, n_entries())) is True
        if stopped or not error > 0.7 * job.tol:  # the true residual is a little larger
            return _Steps(move, history, stopped)
    return _Steps(move, history, False)


def _norms(M: Any, xp: Any) -> Any:
    """The norms of the columns, in double precision."""
    return xp.sqrt(xp.sum(xp.astype(M, xp.float64, copy=False) ** 2, axis=0))


def _positive(values: Any, xp: Any) -> Any:
    """The values, with one in place of what can not be divided by."""
    return xp.where(values > 0, values, xp.ones_like(values))


def _numbers(values: Any, vector: bool) -> Any:
    """A float, or a tuple with one for each target."""
    numbers = tuple(float(values[j]) for j in range(values.shape[0]))
    return numbers[0] if vector else numbers
