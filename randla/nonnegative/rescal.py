"""Nonnegative RESCAL: a stack of square matrices as ``A R_t A.T``, nodes in groups and groups in relations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, from_host
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, Stream, as_key
from .._results import Result, Status, warn_or_raise
from ._matrices import as_nonnegative
from ._stacks import Intake, Stack, gram
from .frobenius import INNER, PLATEAU, Step
from .initialization import random_factor, start

SOLVERS = ("sweeps", "mu")
STARTS = ("random", "nndsvd", "nndsvda", "nnsvdlrc")
CORE_SWEEPS, FACTOR_SWEEPS = 5, 10  # of coordinates in the half steps
JOINT = 16  # largest rank for which the core is one least-squares problem, with a Gram matrix of rank^2 columns
MOST_CORES, TOL_CORE = 200, 1e-6  # steps of the core alone, and the scale-free slope that ends them
FRESH = 10  # iterations between products formed anew, where they are else updated along the step


@dataclass(frozen=True, repr=False)
class RescalResult(Result):
    """Nonnegative factors ``X_t ~ A R_t A^T``; iterates as ``A, R``.

    Attributes
    ----------
    A : array, shape (n, rank)
        Nonnegative; columns sum to one.  Row i says how much node i belongs to each group.
    R : array, shape (t, rank, rank)
        Nonnegative; how much the groups have to do with each other in slice t.
    error : float
        Root of the sum of ``||X_t - A R_t A.T||_F^2`` over that of ``||X_t||_F^2``, over the known entries.
    errors : tuple of float
        The relative error of each slice; 0 for a slice of zeros that is matched.
    objective : float
        Half the sum of the squared errors, with the slices scaled as asked.
    stationarity : float
        Scale-free size of the projected gradient, see `rescal_nmf`.
    solver : str
        "sweeps" or "mu".
    n_iter : int
        Iterations of the start that won.
    n_passes : float
        Products with the stack in all starts, in passes over it.
    history : tuple of float
        The objective at the begin and after each iteration; it never rises beyond rounding.
    start_objectives : tuple of float
        The objective that each start reached.
    n_revived : int
        Groups that had died and were begun anew.
    n_pruned : int
        Nodes without an entry above zero, whose rows of A are zero.
    slice_scales : tuple of float
        What each slice was divided by.
    status : Status
        How that start ended.
    """

    A: Any
    R: Any
    error: float
    errors: tuple[float, ...] = ()
    objective: float = math.nan
    stationarity: float = math.nan
    solver: str = ""
    n_iter: int = 0
    n_passes: float = 0.0
    history: tuple[float, ...] = ()
    start_objectives: tuple[float, ...] = ()
    n_revived: int = 0
    n_pruned: int = 0
    slice_scales: tuple[float, ...] = ()
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("A", "R")

    @property
    def rank(self) -> int:
        """Number of groups."""
        return int(self.A.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the approximated stack."""
        return int(self.R.shape[0]), int(self.A.shape[0]), int(self.A.shape[0])

    def to_dense(self) -> Any:
        """Return the products ``A R_t A.T``, shape (t, n, n)."""
        xp = array_namespace(self.A)
        return xp.matmul(xp.matmul(self.A, self.R), self.A.mT)


def rescal_nmf(
    X: Any, rank: int, *, absent: str | None = None, solver: str = "sweeps", init: Any = "random",
    scale_slices: bool = False, n_init: int = 1, max_iter: int = 500, tol: float = 1e-5,
    callback: Callable[[Step], object] | None = None, rng: Any = None, on_failure: str = "warn",
) -> RescalResult:  # fmt: skip
    """Factorise a stack of square matrices as ``X_t ~ A R_t A^T`` with nonnegative A (n, rank) and R_t (rank, rank).

    Minimises the sum over t of ``||X_t - A R_t A.T||_F^2 / 2``: relations of several kinds, or of several times,
    between the same n nodes.  An iteration costs two products with the stack, ``4 t n^2 rank`` flops dense and
    ``4 nnz rank`` sparse, and ``O(t n rank^2 + t rank^4)`` more.

    Parameters
    ----------
    X : array, shape (t, n, n), or list of t arrays or sparse matrices, shape (n, n)
        Nonnegative data, float32 or float64; any array API namespace where dense.  Not changed.
    rank : int, rank >= 0
        Number of groups.
    absent : {"missing", "zeros"}, optional
        What NaN stand for; must be given where X has some.  With "missing", entries that sparse matrices do not store
        are unknown too; else those are zeros.
    solver : {"sweeps", "mu"}, default "sweeps"
        "sweeps": coordinate sweeps for the core, then a step towards the solution of the least-squares problem in
        which the other A is kept, of the length that is best for both.  "mu": multiplicative updates [1]_.
    init : str or tuple (A, R), default "random"
        "random"; "nndsvd", "nndsvda" or "nnsvdlrc" of the slices and their transposes below one another; or factors.
    scale_slices : bool, default False
        Divide each slice by its norm, so that slices of other sizes count alike; R is scaled back.
    n_init : int, default 1
        Starts, under keys of their own; the one of least objective is returned.
    max_iter : int, default 500
    tol : float, default 1e-5
        Stop where `stationarity` is at most `tol`: with the projected slopes D of A and E of R,
        ``sqrt(sum_k (||D[:, k]|| ||A[:, k]||)^2 + sum_ab (||E[:, a, b]|| ||R[:, a, b]||)^2) / sum_t ||X_t||_F^2``.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the start.
    rng : None, int, SeedSequence, Generator or Key
        Source of the starts.  See :ref:`random`.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    RescalResult
        ``A`` (n, rank) and ``R`` (t, rank, rank) with the error of each slice; iterates as ``A, R``.

    Raises
    ------
    ValueError
        If X is no stack of square matrices, has negative or infinite entries, or NaN without `absent`; or if a
        parameter is out of range.
    TypeError
        If X is complex or not numeric, or sparse and dense matrices are mixed.

    Notes
    -----
    The error never rises: each half step lowers it, and the length of the step in A minimises a polynomial of degree
    four, which is known from products that the next iteration needs anyway.  What is reached is a stationary point;
    groups may be permuted, and with few slices other factors may have the same product.

    Missing entries are replaced by the model before each half step, which keeps the error of the known ones from
    rising; many missing entries slow it down.  For sparse matrices with missing entries nothing of n^2 entries is
    formed.

    References
    ----------
    .. [1] Truong, Skau, Valtchinov and Alexandrov, "Determination of latent dimensionality in international trade
       flow", Machine Learning: Science and Technology 1, 2020, arXiv:2003.00129.
    .. [2] Nickel, Tresp and Kriegel, "A three-way model for collective learning on multi-relational data", ICML 2011.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> A, R = np.kron(np.eye(3), np.ones((8, 1))), rng.random((5, 3, 3))
    >>> result = randla.rescal_nmf(A @ R @ A.T, 3, n_init=3, rng=0)
    >>> result.A.shape, result.R.shape, result.error < 0.01
    ((24, 3), (5, 3, 3), True)
    """
    check_choice(solver, "solver", SOLVERS)
    rank = check_integer(rank, "rank", low=0)
    max_iter, n_init = check_integer(max_iter, "max_iter", low=0), check_integer(n_init, "n_init", low=1)
    tol = check_real(tol, "tol", low=0.0)
    if isinstance(init, str):
        check_choice(init, "init", STARTS)
    elif n_init > 1:
        raise ValueError(f"n_init must be 1 where init gives the factors, got {n_init}")
    data = Intake(X, absent, bool(scale_slices))
    key, stack, fits = as_key(rng).fold("rescal"), data.stack, []
    for attempt in range(n_init):
        if rank == 0 or not stack.squared_norm > 0:
            fits.append(_trivial(stack, rank))
            break
        A, R = _start(data, rank, init, key.fold(attempt))
        fits.append(_alternate(stack, A, R, solver, max_iter, tol, callback))
        if fits[-1].stopped:
            break
    result = _result(data, fits, solver)
    return warn_or_raise(result, "ignore" if fits[-1].stopped else on_failure, what="rescal_nmf")


@dataclass
class _Fit:
    """One start: its factors and how it got there."""

    A: Any
    R: Any
    objective: float
    history: list[float]
    stationarity: float = math.inf
    n_iter: int = 0
    n_revived: int = 0
    status: Status = Status.MAX_ITER
    stopped: bool = False


def _trivial(stack: Stack, rank: int) -> _Fit:
    xp, (t, n, _) = stack.xp, stack.shape
    where = device_of(stack.like)
    A, R = xp.zeros((n, rank), dtype=stack.dtype, device=where), xp.zeros((t, rank, rank), device=where)
    value = stack.squared_norm / 2
    return _Fit(A, R, value, [value], 0.0, status=Status.CONVERGED)


def _start(data: Intake, rank: int, init: Any, key: Key) -> tuple[Any, Any]:
    """A and R by the name of a start, or the caller's; R multiplied so that the model fits best."""
    stack, xp = data.stack, data.xp
    t, n, _ = stack.shape
    if isinstance(init, str):
        if init == "random":
            A = xp.asarray(random_factor(rank, n, stack, key.fold("A")).T, copy=True)
        else:
            A = xp.asarray(start(as_nonnegative(stack.unfolded()), rank, init, key.fold("A"))[1].T, copy=True)
        u = kernel("uniforms", np)(key.fold("R"), Stream.SAMPLE, 0, t * rank * rank)
        R = xp.astype(from_host(np.asarray(u, np.float64).reshape(t, rank, rank), xp, stack.like), xp.float64)
    else:
        A, R = _given(data, rank, init)
    G = gram(A, xp)
    whole = float(xp.sum(R * xp.matmul(xp.matmul(G, R), G)))
    shared = float(xp.sum(R * xp.astype(xp.matmul(A.mT, stack.products(A)[0]), xp.float64)))
    return A, R * (shared / whole) if whole > 0 and shared > 0 else R


def _given(data: Intake, rank: int, init: Any) -> tuple[Any, Any]:
    try:
        A, R = init
    except (TypeError, ValueError):
        raise ValueError(f"init must be one of {', '.join(STARTS)}, or a pair (A, R), got {init!r}") from None
    xp = data.xp
    A = as_matrix(A, name="init A", sparse=False)
    check_together(data.like, A, names=("X", "init A"))
    check_together(data.like, R, names=("X", "init R"))
    for F, name, wanted in ((A, "A", (data.n, rank)), (R, "R", (data.t, rank, rank))):
        if tuple(F.shape) != wanted:
            raise ValueError(f"init {name} must have shape {wanted}, got {tuple(F.shape)}")
        if not bool(xp.all(F >= 0)) or not bool(xp.all(xp.isfinite(F))):
            raise ValueError(f"init {name} must be finite and nonnegative, got other entries")
    R = xp.astype(R, xp.float64, copy=True)
    scales = xp.asarray(data.scales, dtype=xp.float64, device=device_of(R))
    return xp.astype(xp.take(A, data.kept, axis=0), data.dtype), R / xp.reshape(scales, (-1, 1, 1))


def _alternate(
    stack: Stack, A: Any, R: Any, solver: str, max_iter: int, tol: float, callback: Callable[[Step], object] | None
) -> _Fit:
    """Core, then factor; the products with A are updated along the step, and formed anew now and then."""
    norm, stale = stack.squared_norm, 0
    stack.anchor(A, R)
    P, Q = stack.products(A)
    value = stack.objective(A, R, P)
    fit = _Fit(A, R, value, [value])
    while fit.n_iter < max_iter:
        R, slope = _core(stack, A, R, P, solver)
        if stack.masked:
            stack.anchor(A, R)
            P, Q = stack.products(A)
        A, P, Q, other = (_factor if solver == "sweeps" else _scaled_factor)(stack, A, R, P, Q)
        fit.n_iter += 1
        if stack.masked or solver == "mu" or fit.n_iter % FRESH == 0:
            stack.anchor(A, R)
            P, Q = stack.products(A)
        value = stack.objective(A, R, P)
        fit.stationarity = math.sqrt(slope + other) / norm
        if not math.isfinite(value):
            fit.status = Status.NONFINITE
            break
        stale = 0 if value < fit.objective else stale + 1
        fit.A, fit.R, fit.objective = (A, R, value) if value <= fit.objective else (fit.A, fit.R, fit.objective)
        fit.history.append(value)
        step = Step(fit.n_iter, value, math.sqrt(max(2 * value, 0.0) / norm), fit.stationarity)
        if callback is not None and callback(step):
            fit.stopped = True
            break
        if fit.stationarity <= tol or 2 * value <= (8 * eps(stack.dtype)) ** 2 * norm:
            fit.status = Status.CONVERGED
            break
        if stale >= PLATEAU:
            fit.status = Status.STAGNATED
            break
        if fit.n_iter % FRESH == 0:
            A, R, n_new = _revived(stack, A, R)
            if n_new:
                fit.n_revived += n_new
                stack.anchor(A, R)
                P, Q = stack.products(A)
    return fit


# --- the core ---------------------------------------------------------------------------------------------------------


def _core(stack: Stack, A: Any, R: Any, P: Any, solver: str) -> tuple[Any, float]:
    """R for fixed A, and the scale-free squares of the slopes it had."""
    xp, G = stack.xp, gram(A, stack.xp)
    B = xp.astype(xp.matmul(A.mT, P), xp.float64)
    model = xp.matmul(xp.matmul(G, R), G)
    slope = model - B
    free = xp.where((R > 0) | (slope < 0), slope, xp.zeros_like(slope))
    size = float(xp.sum(xp.sum(free * free, axis=0) * xp.sum(R * R, axis=0)))
    if solver == "mu":
        return R * _ratio(B, model, xp), size
    return _core_sweeps(G, B, R, xp), size


def _core_sweeps(G: Any, B: Any, R: Any, xp: Any) -> Any:
    """Coordinate sweeps towards the least ``tr(R_t.T G R_t G) / 2 - tr(B_t.T R_t)`` over R_t >= 0."""
    sweeps, (t, k, _) = kernel("nonneg_sweeps", xp), R.shape
    if k <= JOINT:
        whole = xp.reshape(G[:, None, :, None] * G[None, :, None, :], (k * k, k * k))
        right, start = (xp.asarray(xp.reshape(T, (t, k * k)).T, copy=True) for T in (B, R))
        return xp.reshape(sweeps(whole, right, start, CORE_SWEEPS, INNER).T, (t, k, k))
    R = xp.asarray(R, copy=True)
    for a in range(k):  # the row a of every R_t: its Gram matrix is a multiple of G
        rest = xp.matmul(G[a : a + 1, :], R)[:, 0, :] - G[a, a] * R[:, a, :]
        right = B[:, a, :] - xp.matmul(rest, G)
        row = sweeps(G[a, a] * G, xp.asarray(right.T, copy=True), xp.asarray(R[:, a, :].T, copy=True), 2, INNER)
        R[:, a, :] = row.T
    return R


# --- the factor -------------------------------------------------------------------------------------------------------


def _slopes(stack: Stack, A: Any, R: Any, P: Any, Q: Any) -> tuple[Any, Any, float]:
    """S (k, k) and C (n, k), of which ``A S - C`` is the slope in A, and its scale-free squares."""
    xp, G = stack.xp, gram(A, stack.xp)
    S = xp.sum(xp.matmul(xp.matmul(R, G), R.mT) + xp.matmul(xp.matmul(R.mT, G), R), axis=0)
    core = xp.astype(R, A.dtype)
    C = xp.sum(xp.matmul(P, core.mT) + xp.matmul(Q, core), axis=0)
    wide = xp.astype(A, xp.float64)
    slope = xp.matmul(wide, S) - xp.astype(C, xp.float64)
    free = xp.where((wide > 0) | (slope < 0), slope, xp.zeros_like(slope))
    return S, C, float(xp.sum(xp.sum(free * free, axis=0) * xp.sum(wide * wide, axis=0)))


def _factor(stack: Stack, A: Any, R: Any, P: Any, Q: Any) -> tuple[Any, Any, Any, float]:
    """Towards the least error with the other A kept, as far as is best with both."""
    xp = stack.xp
    S, C, size = _slopes(stack, A, R, P, Q)
    turned = (xp.asarray(T.T, copy=True) for T in (C, A))
    D = kernel("nonneg_sweeps", xp)(S, *turned, FACTOR_SWEEPS, INNER).T - A
    P_D, Q_D = stack.products(D)
    length = _best_length(A, D, R, P, P_D, xp)
    A = A + length * D
    return xp.where(A > 0, A, xp.zeros_like(A)), P + length * P_D, Q + length * Q_D, size


def _best_length(A: Any, D: Any, R: Any, P: Any, P_D: Any, xp: Any) -> float:
    """The step in [0, 1] of least error of ``(A + step D) R_t (A + step D).T``, a polynomial of degree four."""
    wide = [xp.astype(T, xp.float64) for T in (A, D)]
    cross = xp.matmul(wide[0].mT, wide[1])
    grams = [xp.matmul(wide[0].mT, wide[0]), cross + cross.mT, xp.matmul(wide[1].mT, wide[1])]
    squares = [0.0] * 5
    for i in range(3):
        left = xp.matmul(grams[i], R)
        for j in range(3):
            squares[i + j] += float(xp.sum(R * xp.matmul(left, grams[j])))
    linear = float(xp.sum(R * xp.astype(xp.matmul(D.mT, P) + xp.matmul(A.mT, P_D), xp.float64)))
    quadratic = float(xp.sum(R * xp.astype(xp.matmul(D.mT, P_D), xp.float64)))
    error = np.array([squares[4] / 2, squares[3] / 2, squares[2] / 2 - quadratic, squares[1] / 2 - linear, 0.0])
    if not np.all(np.isfinite(error)):
        return 1.0  # the objective will say that something is not finite
    turns = [float(root.real) for root in np.roots(np.polyder(error)) if 0 < root.real < 1]
    return min([0.0, 1.0, *turns], key=lambda step: float(np.polyval(error, step)))


def _scaled_factor(stack: Stack, A: Any, R: Any, P: Any, Q: Any) -> tuple[Any, Any, Any, float]:
    """A multiplicative update of A; its products are to be formed anew."""
    xp = stack.xp
    S, C, size = _slopes(stack, A, R, P, Q)
    below = xp.matmul(xp.astype(A, xp.float64), S)
    # both A change at once, so that the plain update may raise the error; it is shortened where it does
    ratio = _ratio(xp.astype(C, xp.float64), below, xp)
    for power in (1.0, 0.5, 0.25, 0.0):
        new = xp.astype(A * ratio**power, A.dtype)
        P_new, Q_new = stack.products(new)
        if _lower(stack, A, new, R, P, P_new):
            break
    return new, P_new, Q_new, size


def _lower(stack: Stack, A: Any, new: Any, R: Any, P: Any, P_new: Any) -> bool:
    """Whether the error with `new` is at most the one with A, up to rounding."""
    before, after = stack.objective(A, R, P), stack.objective(new, R, P_new)
    return after <= before * (1 + 4 * eps(stack.dtype))


def _ratio(up: Any, down: Any, xp: Any) -> Any:
    up = xp.where(up > 0, up, xp.zeros_like(up))
    return xp.where(down > 0, up / xp.where(down > 0, down, xp.ones_like(down)), xp.ones_like(down))


def fitted_core(data: Intake, A: Any) -> tuple[Any, float]:
    """R for columns A (n, k) that stay as they are, in the units of the data, and the relative error with it."""
    stack, xp = data.stack, data.xp
    A = xp.astype(xp.take(A, data.kept, axis=0), data.dtype)
    R = xp.zeros((stack.shape[0], int(A.shape[1]), int(A.shape[1])), dtype=xp.float64, device=device_of(stack.like))
    for step in range(MOST_CORES):
        stack.anchor(A, R)
        R, slope = _core(stack, A, R, stack.products(A)[0], "sweeps")
        if step > 0 and slope <= (TOL_CORE * stack.squared_norm) ** 2:  # that of R before the step, zeros at first
            break
    squares = math.fsum(stack.residual_squares(A, R))
    scales = xp.asarray(data.scales, dtype=xp.float64, device=device_of(R))
    error = math.sqrt(squares / stack.squared_norm) if stack.squared_norm > 0 else 0.0
    return xp.astype(R * xp.reshape(scales, (-1, 1, 1)), data.dtype), error


# --- ends -------------------------------------------------------------------------------------------------------------


def _revived(stack: Stack, A: Any, R: Any) -> tuple[Any, Any, int]:
    """Begin groups that died anew from what is missing at the nodes; R of them is zero, so that no error rises."""
    xp, k = stack.xp, int(A.shape[1])
    sizes = xp.sum(A, axis=0)
    strength = xp.sum(xp.sum(R, axis=0), axis=0) + xp.sum(xp.sum(R, axis=0), axis=1)
    dead = [j for j in range(k) if not float(sizes[j]) * float(strength[j]) > 0]
    if not dead or len(dead) == k:
        return A, R, 0
    A, R = xp.asarray(A, copy=True), xp.asarray(R, copy=True)
    stack.anchor(A, R)
    ones = xp.ones((stack.shape[1], 1), dtype=A.dtype, device=device_of(A))
    P, Q = stack.products(ones)
    model = xp.matmul(A, xp.matmul(xp.astype(R + R.mT, A.dtype), xp.matmul(A.mT, ones)))
    lost = xp.sum(P + Q - model, axis=0)[:, 0]
    order = xp.argsort(-lost, stable=True)
    for rank_of, j in enumerate(dead):
        i = int(order[rank_of % stack.shape[1]])
        A[:, j] = 0.0
        A[i, j] = 1.0
        R[:, j, :] = 0.0
        R[:, :, j] = 0.0
    return A, R, len(dead)


def _result(data: Intake, fits: list[_Fit], solver: str) -> RescalResult:
    """The best start with columns of A that sum to one, in the units of the caller."""
    stack, xp = data.stack, data.xp
    best = min(fits, key=lambda fit: fit.objective if math.isfinite(fit.objective) else math.inf)
    A, R = best.A, best.R
    squares, wholes = stack.residual_squares(A, R), stack.squares
    sums = xp.sum(xp.astype(A, xp.float64), axis=0)
    safe = xp.where(sums > 0, sums, xp.ones_like(sums))
    scales = xp.asarray(data.scales, dtype=xp.float64, device=device_of(R))
    R = R * (safe[:, None] * safe[None, :]) * xp.reshape(scales, (-1, 1, 1))
    errors = tuple(
        math.sqrt(part / whole) if whole > 0 else (math.inf if part > 0 else 0.0)
        for part, whole in zip(squares, wholes, strict=True)
    )
    largest = max(data.scales)
    parts, sizes = ([v * (s / largest) ** 2 for v, s in zip(values, data.scales, strict=True)]
                    for values in (squares, wholes))  # fmt: skip
    whole = math.fsum(sizes)
    return RescalResult(
        data.restored(xp.astype(A / xp.astype(safe, A.dtype), A.dtype)), xp.astype(R, data.dtype),
        math.sqrt(math.fsum(parts) / whole) if whole > 0 else 0.0, errors, best.objective, best.stationarity, solver,
        best.n_iter, stack.n_passes, tuple(best.history), tuple(fit.objective for fit in fits), best.n_revived,
        data.n - int(data.kept.shape[0]), tuple(data.scales), best.status,
    )  # fmt: skip
