"""Least squares: sketch and precondition, sketch and solve, or a direct factorisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .._arrays import as_matrix, check_together, floating_dtype, is_linear_operator, is_sparse
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..linear_maps import DenseMap, LinearMap, OperatorMap, as_linear_map
from ..operators import SketchOperator, SparseSign
from ..operators.choose import KINDS
from ..triangular import as_rows
from . import preconditioners as factors
from .direct import direct
from .iterative import iterative
from .refinement import Refined, refine
from .results import LstsqResult, LstsqStep
from .systems import TallSystem, WideSystem, column_norms, core_of, make_system

METHODS = ("auto", "direct", "precondition", "sketch", "lsmr")
SMALL_FLOPS = 2e7  # below this LAPACK is done in milliseconds
TALL = 4  # least ratio of the sides for which a sketch saves work
LARGEST_FACTOR = 2_500  # columns of a dense factor of a sparse matrix: n**3 flops tens of times
WELL_CONDITIONED = 1e3  # estimated condition of a sample of rows up to which a Gram matrix is trusted for all of them


class LstsqChoice(NamedTuple):
    """A method of `lstsq`, and one sentence that says why it was chosen."""

    method: str
    reason: str


def choose_lstsq(A: Any, *, tol: float | None = None, rng: Any = None) -> LstsqChoice:
    """Return the method that `lstsq` takes for this matrix with ``method="auto"``, and the reason for it.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Its shape and kind are looked at, and, where it is large and dense, a sample of 4 n rows.
    tol : float, optional
        As for `lstsq`.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sample; with the same key `lstsq` looks at the same rows.

    Returns
    -------
    LstsqChoice
        ``method`` and ``reason``; unpacks as a pair.

    Raises
    ------
    TypeError, ValueError
        As `lstsq`.

    Examples
    --------
    >>> import numpy as np, randla
    >>> method, reason = randla.choose_lstsq(np.random.default_rng(0).normal(size=(20_000, 50)), rng=0)
    >>> method, reason.split(";")[0]
    ('precondition', 'large and tall')
    """
    _check_tol(tol)
    A = as_linear_map(A)
    choice = _choose(A)
    if choice.method != "precondition":
        return choice
    tall = A if A.shape[0] >= A.shape[1] else make_system(A, A.xp.zeros((A.shape[0], 0), dtype=A.dtype), None, 0.0).C
    pre = _well_conditioned(as_rows(tall), None, None, 0.0, as_key(rng).fold("lstsq"))
    end = " The sketch-and-solve start may meet the tolerance already." if tol is not None and tol >= 1e-2 else ""
    return LstsqChoice(choice.method, f"{choice.reason}; {_told(pre)}{end}")


def lstsq(
    A: Any, b: Any, *, method: str = "auto", tol: float | None = None, damp: float = 0.0, weights: Any = None,
    sketch: Any = "auto", sketch_size: int | None = None, x0: Any = None, max_iter: int | None = None, rng: Any = None,
    callback: Callable[[LstsqStep], Any] | None = None, on_failure: str = "warn",
) -> LstsqResult:  # fmt: skip
    """Solve ``min ||A x - b||``, with the accuracy of LAPACK at a fraction of its time where A is long.

    Minimises ``sum_i weights_i |A x - b|_i**2 + damp**2 ||x||**2``; where the minimum is not unique, or m < n, it takes
    the x of least norm.  The main method sketches A to a few times its columns, factors the sketch, and solves the
    now well-conditioned normal equations by conjugate gradients with iterative refinement: about 15 to 25 reads of A
    for full accuracy, each of which serves both products.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Dense arrays of any array API namespace, memory maps among them; it is not changed.
    b : array, shape (m,) or (m, k)
        One right-hand side, or several.
    method : {"auto", "direct", "precondition", "sketch", "lsmr"}, default "auto"
        "precondition" as described; "sketch" solves the sketched problem only; "direct" is QR and a singular value
        decomposition; "lsmr" the iteration of SciPy, for matrices too wide for a dense factor.  `choose_lstsq` tells
        what "auto" takes and why.
    tol : float, optional
        Stop when the estimate of ``||A (x - x*)|| / ||b||`` is at most `tol`.  Default: run until the backward error is
        at the level of rounding.  For "lsmr" it is its ``atol = btol``, 1e-10 by default (1e-5 in single precision).
    damp : float, damp >= 0, default 0.0
        Square root of the ridge parameter.
    weights : real array, shape (m,), optional
        Non-negative weights of the squared residuals.
    sketch : {"auto", "sparse-sign", "srht", "srct", "pooled", "gaussian", ...} or SketchOperator, default "auto"
        The sketch of the rows (for m < n of the columns): a kind of `sketch`, or an operator.  "auto" is a sparse sign
        sketch; with "precondition" a uniform sample is tried before it where A is dense or sparse in memory.
    sketch_size : int, optional
        Rows of the sketch; default what makes the whole cheapest, between 4 and 32 times the shorter side.
    x0 : array, shape of the solution, optional
        Start of "precondition" and "lsmr".  For m < n the solution nearest to x0 is returned.
    max_iter : int, optional
        Steps in all; default 200 for "precondition", ``10 min(m, n) + 100`` for "lsmr".
    rng : None, int, SeedSequence, Generator or Key
        Source of sketches and samples; equal keys give equal results up to rounding.
    callback : callable, optional
        Called with a `LstsqStep` after each step of "precondition"; returning True ends it with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the result did not converge.

    Returns
    -------
    LstsqResult
        ``x`` of shape (n,) or (n, k), how good it is and what it cost; iterates as ``(x,)``.

    Raises
    ------
    ValueError
        If shapes do not fit, a weight is negative, or a parameter is out of range or does not belong to the method.
    TypeError
        If A or b is not numeric.

    Notes
    -----
    "precondition" is the SPIR iteration [1]_ with these deviations: (1) the sketch has as many rows as make factor and
    steps together cheapest; (2) a uniform sample of 4 n rows is looked at first, and where it is well-conditioned (1e3)
    the Gram matrix of all rows (up to 256 columns) or of the sample takes the place of the sketch; if conjugate
    gradients then need three times the expected steps, since a few heavy rows were missed, a sketch follows; (3) passes
    go on while they help, three at most on what was tried.  It is backward stable [1]_: the backward error is of the
    order of machine epsilon up to condition numbers of 1 / eps.  Beyond, directions below 30 eps of the largest
    singular value (columns scaled to unit norm) are dropped, ``rank`` is lower and the status RANK_DEFICIENT.

    "sketch" with a Gaussian or similar sketch of d rows raises the squared residual by ``n / (d - n - 1)`` of it on
    average.  Every single coordinate is off by ``||r|| sqrt((A^* A)^-1_jj 2 log(2 n) / d)`` at most, up to constants,
    for the Gaussian and the pooled sketch [2]_; for SRHT and SRCT that is what is observed.  The proof of the paper
    that claimed it for these with O(n log(n / delta)**3 / epsilon**2) rows [3]_ is incomplete, as two of its authors
    showed [2]_.  Sparse sketches do not have the property: see the guide "Coordinate-wise guarantees".

    Cost of "precondition": 4 or 8 additions for each nonzero of A for the sketch, ``2 gamma n**3`` flops for the factor
    of gamma n rows, ``4 nnz(A)`` flops and one read of A for each step.  Memory beyond A: the sketch.

    References
    ----------
    .. [1] Epperly, Meier and Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and stable as
       classical direct solvers", arXiv:2406.03468, Algorithm SPIR.
    .. [2] Song and Zhang, "Hadamard flattening and Gaussian pooling sketch for least squares with coordinate-wise
       guarantee", 2026, Theorem 10.1.
    .. [3] Song, Ye, Yin and Zhang, "A nearly-optimal bound for fast regression with l_infinity guarantee", ICML 2023;
       arXiv:2302.00248.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((20_000, 30)) @ np.diag(10.0 ** -np.arange(0, 9, 0.3))
    >>> b = A @ np.ones(30) + 0.1 * rng.standard_normal(20_000)
    >>> result = randla.lstsq(A, b, rng=0)
    >>> result.status, result.backward_error < 1e-15
    (Status.CONVERGED, True)
    """
    A, B, vector = _intake(A, b)
    check_choice(method, "method", METHODS)
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    _check_tol(tol)
    damp = check_real(damp, "damp", low=0.0)
    weights = _checked_weights(weights, A, B)
    x0 = _checked_start(x0, A, B)
    limit = None if max_iter is None else check_integer(max_iter, "max_iter", low=0)
    operator = _checked_sketch(sketch, sketch_size, A)
    choice = _choose(A) if method == "auto" else LstsqChoice(method, "as asked")
    if min(*A.shape, B.shape[1]) == 0:
        choice = LstsqChoice("direct", "nothing to solve")
    job = _Job(A, B, vector, weights, damp, tol, operator, x0, limit, as_key(rng).fold("lstsq"), callback, choice)
    solve = {"direct": _direct, "precondition": _precondition, "sketch": _sketch_and_solve, "lsmr": _lsmr}
    return warn_or_raise(solve[choice.method](job), on_failure, what="lstsq")


# --- parameters -------------------------------------------------------------------------------------------------------


class _Sketch(NamedTuple):
    """What the arguments say about the sketch: an operator, or a kind and a size that may be left open."""

    operator: SketchOperator | None
    kind: str
    size: int | None

    def make(self, m: int, n: int, key: Key, size: int | None = None) -> SketchOperator:
        if self.operator is not None:
            return self.operator
        rows = self.size or min(size or factors.sketch_rows(m, n), max(TALL * n, m // 2))
        if self.kind in ("auto", "sparse-sign"):
            nnz = 4 if rows >= 12 * n else 8  # a large sketch has room: half the additions for the same distortion
            return SparseSign(max(rows, 1), m, nnz=min(nnz, max(rows, 1)), rng=key)
        return KINDS[self.kind](max(rows, 1), m, rng=key)


class _Job(NamedTuple):
    """A checked problem and all that was said about how to solve it."""

    A: LinearMap
    B: Any
    vector: bool
    weights: Any
    damp: float
    tol: float | None
    sketch: _Sketch
    x0: Any
    max_iter: int | None
    key: Key
    callback: Any
    choice: LstsqChoice


def _intake(A: Any, b: Any) -> tuple[LinearMap, Any, bool]:
    A = as_linear_map(A)
    b = as_matrix(b, name="b", sparse=False, vector=True)
    xp = A.xp
    check_together(xp.empty((0,), dtype=A.dtype, device=A.device), b, names=("A", "b"))
    if b.shape[0] != A.shape[0]:
        raise ValueError(f"b must have {A.shape[0]} rows as A has, got shape {tuple(b.shape)}")
    dtype = xp.result_type(A.dtype, floating_dtype(b, xp))
    if A.dtype != dtype and xp.isdtype(dtype, "complex floating") and not xp.isdtype(A.dtype, "complex floating"):
        raise ValueError(
            f"b must be real as A is, got {b.dtype}; solve for its real and imaginary parts as two columns"
        )
    B = xp.astype(b, A.dtype, copy=False)
    return A, (B[:, None] if B.ndim == 1 else B), b.ndim == 1


def _check_tol(tol: Any) -> None:
    if tol is not None:
        check_real(tol, "tol", low=0.0, closed="neither", remedy="leave it out for full accuracy")


def _checked_weights(weights: Any, A: LinearMap, B: Any) -> Any:
    if weights is None:
        return None
    xp = A.xp
    weights = as_matrix(weights, name="weights", sparse=False, vector=True)
    check_together(B, weights, names=("b", "weights"))
    if tuple(weights.shape) != (A.shape[0],):
        raise ValueError(f"weights must have shape ({A.shape[0]},), got {tuple(weights.shape)}")
    if xp.isdtype(weights.dtype, "complex floating"):
        raise TypeError(f"weights must be real, got {weights.dtype}")
    if A.shape[0] and not bool(xp.all(weights >= 0) & xp.all(xp.isfinite(xp.astype(weights, xp.float64)))):
        raise ValueError("weights must be finite and not negative, got NaN, infinity or a negative weight")
    real = xp.float32 if factors.precision_of(A) > 1e-10 else xp.float64
    return xp.astype(weights, real, copy=False)


def _checked_start(x0: Any, A: LinearMap, B: Any) -> Any:
    if x0 is None:
        return None
    x0 = as_matrix(x0, name="x0", sparse=False, vector=True)
    check_together(B, x0, names=("b", "x0"))
    X = x0[:, None] if x0.ndim == 1 else x0
    if tuple(X.shape) != (A.shape[1], B.shape[1]):
        raise ValueError(f"x0 must have the shape of the solution, ({A.shape[1]}, {B.shape[1]}), got {tuple(x0.shape)}")
    return A.xp.astype(X, core_of(A))


def _checked_sketch(sketch: Any, size: Any, A: LinearMap) -> _Sketch:
    if isinstance(sketch, SketchOperator):
        if size is not None:
            raise ValueError(f"sketch_size must not be given with an operator, got {size}; {sketch!r} has its own")
        if sketch.n != max(A.shape) or sketch.sketch_size < min(A.shape):
            raise ValueError(
                f"sketch must have n={max(A.shape)} columns and at least {min(A.shape)} rows, got shape {sketch.shape}"
            )
        return _Sketch(sketch, "as given", None)
    kinds = ("auto", *(kind for kind in KINDS if kind != "rows"))
    check_choice(sketch, "sketch", kinds)
    if size is not None:
        size = check_integer(size, "sketch_size", low=max(1, min(A.shape)), remedy="it has to exceed the shorter side")
    return _Sketch(None, sketch, size)


# --- the choice of a method -------------------------------------------------------------------------------------------


def _choose(A: LinearMap) -> LstsqChoice:
    long, short = max(A.shape), min(A.shape)
    if isinstance(A, OperatorMap):
        return LstsqChoice("lsmr", "a linear operator: a sketch would take four products for each column")
    stored = isinstance(A, DenseMap) or hasattr(A, "A")
    if stored and 2.0 * long * short**2 <= SMALL_FLOPS:
        return LstsqChoice("direct", "small: a factorisation takes milliseconds")
    if is_sparse(getattr(getattr(A, "sparse_base", A), "A", None)) and short > LARGEST_FACTOR:
        return LstsqChoice("lsmr", f"sparse with {short} columns: a dense factor of so many costs more than iterations")
    if stored and long < TALL * short:
        return LstsqChoice("direct", f"nearly square ({long} x {short}): a sketch would save nothing")
    return LstsqChoice("precondition", "large and tall" if A.shape[0] >= A.shape[1] else "large and wide")


def _well_conditioned(C: LinearMap, columns: Any, weights: Any, damp: float, key: Key) -> factors.Preconditioner | None:
    """The preconditioner of a uniform sample of rows, or None where it is ill-conditioned or there is none."""
    n = C.shape[1]
    if not factors.can_sample(C, TALL * n):
        return None
    _, M = factors.sample_rows_of(C, key.fold("sample"), TALL * n, weights)
    M = M if columns is None else M * columns[:, 0][None, :]
    note = f"a sample of {TALL * n} rows"
    rate = factors.rate_of(n, TALL * n)
    precision = factors.precision_of(C)
    return factors.from_gram(
        factors.gram_of(M, damp), precision=precision, rate=rate, note=note, limit=WELL_CONDITIONED
    )


def _told(pre: factors.Preconditioner | None) -> str:
    if pre is None:
        return "no well-conditioned sample of rows: factor of a sketch"
    what = "Gram matrix of all rows" if pre.V.shape[0] <= factors.GRAM_COLUMNS else "Gram matrix of a sample"
    return f"{pre.note} is well-conditioned ({pre.condition:.2g}): {what}"


# --- the methods ------------------------------------------------------------------------------------------------------


def _precondition(job: _Job) -> LstsqResult:
    """Sketch, factor, refine; a preconditioner that turns out bad is replaced by the factor of a larger sketch."""
    system = make_system(job.A, job.B, job.weights, job.damp)
    limit = 200 if job.max_iter is None else job.max_iter
    pre, X = _first_factor(system, job)
    if pre is None:
        return _nonfinite(job, system)
    state = system.zero() if X is None else system.start(X)
    if job.x0 is not None:
        state = system.start(job.x0)
    history: tuple[float, ...] = ()
    notes = [pre.note]
    for attempt in range(3):
        found = refine(
            system,
            pre,
            state,
            tol=job.tol,
            max_iter=limit,
            history=history,
            impatient=attempt < 2,
            callback=job.callback,
        )
        if not found.slow:
            break
        state, history = found.state, found.history
        rows = min(2**attempt * factors.sketch_rows(*system.C.shape), system.C.shape[0])
        new, _ = _sketched_factor(system, job, f"sketch {attempt + 1}", rows)
        pre = pre if new is None else new
        notes.append(f"converged slowly, so then {pre.note}")
    return _result(job, system, pre, found, reason=f"{job.choice.reason}; {'; '.join(notes)}")


def _first_factor(system: TallSystem | WideSystem, job: _Job) -> tuple[factors.Preconditioner | None, Any]:
    """(preconditioner, first solution or None): from rows of C where they are well-conditioned, else from a sketch."""
    C, n, weights = system.C, system.C.shape[1], system.sketch_weights
    if job.sketch == _Sketch(None, "auto", None):
        small = _well_conditioned(C, system.columns, weights, job.damp, job.key)
        if small is not None and n <= factors.GRAM_COLUMNS:
            G = factors.gram_of_rows(C, weights, 0.0)
            G = G if system.columns is None else G * system.columns * system.columns.T
            G = G + job.damp**2 * C.xp.eye(n, dtype=G.dtype, device=C.device)
            whole = factors.from_gram(G, precision=small.eps, rate=0.01, note=f"{_told(small)}")
            if whole is not None:
                return whole, None
        elif small is not None and factors.can_sample(C, 2 * TALL * n):
            return _sampled_factor(system, job, small)
    return _sketched_factor(system, job, "sketch")


def _sampled_factor(system: TallSystem | WideSystem, job: _Job, small: factors.Preconditioner) -> tuple[Any, Any]:
    """The factor of twice the rows, and the solution of the problem of these rows."""
    C, size, xp = system.C, 2 * TALL * system.C.shape[1], system.xp
    rows, M = factors.sample_rows_of(C, job.key.fold("larger sample"), size, system.sketch_weights)
    M = M if system.columns is None else M * system.columns[:, 0][None, :]
    note = f"{_told(small)} of {size} rows"
    rate = factors.rate_of(M.shape[1], size)
    pre = factors.from_gram(factors.gram_of(M, job.damp), precision=small.eps, rate=rate, note=note)
    if pre is None:
        return _sketched_factor(system, job, "sketch")
    if isinstance(system, WideSystem):
        return pre, None
    target = xp.astype(xp.take(system.B, rows, axis=0), M.dtype) * math.sqrt(C.shape[0] / size)
    if system.weights is not None:
        target = target * xp.sqrt(xp.take(system.weights, rows, axis=0))[:, None]
    return pre, pre.apply(pre.adjoint(xp.matmul(factors.adjoint(M), target)))


def _sketched_factor(
    system: TallSystem | WideSystem, job: _Job, label: str, rows: int | None = None
) -> tuple[factors.Preconditioner | None, Any]:
    """(preconditioner, solution of the sketched problem); (None, None) where the sketch is not finite."""
    C, xp = system.C, system.xp
    S = job.sketch.make(*C.shape, job.key.fold(label), rows)
    tall = isinstance(system, TallSystem)
    SC, SB = factors.sketch_of(C, S, system.B if tall else None, system.sketch_weights)
    if not bool(xp.all(xp.isfinite(SC))) or (SB is not None and not bool(xp.all(xp.isfinite(SB)))):
        return None, None
    precision = factors.precision_of(C)
    R, z, scale = factors.factor_of_sketch(SC, SB, system.columns, job.damp, precision=precision)
    told = {"precision": precision, "rate": factors.rate_of(C.shape[1], S.sketch_size)}
    note = f"factor of {S.sketch_size} sketched rows"
    pre, X = factors.from_factor(R, z, scale, note=note, **told)
    if not tall and pre.rank < C.shape[1]:  # b is projected on the range of A: orthogonally only without scaling
        pre, _ = factors.from_factor(R * scale[:, 0][None, :], None, xp.ones_like(scale), note=note, **told)
    return pre, X if tall else None


def _sketch_and_solve(job: _Job) -> LstsqResult:
    """The exact solution of the sketched problem, and one read of A that tells how good it is."""
    system = make_system(job.A, job.B, job.weights, job.damp)
    if isinstance(system, WideSystem):
        raise ValueError(f'A must have at least as many rows as columns for method "sketch", got shape {job.A.shape}')
    pre, X = _sketched_factor(system, job, "sketch")
    if pre is None:
        return _nonfinite(job, system)
    xp = system.xp
    look = system.check(X, pre)
    sketch_size = job.sketch.make(*system.C.shape, job.key).sketch_size
    spread = xp.sqrt(xp.sum(xp.abs(pre.P) ** 2, axis=1) * (2.0 * math.log(2 * max(X.shape[0], 1)) / sketch_size))
    met = job.tol is None or max((float(e) for e in look.error), default=0.0) <= job.tol
    found = Refined(X, look, 0, (), Status.CONVERGED if met else Status.MAX_ITER, False)
    reason = f"{job.choice.reason}; {pre.note}"
    return _result(job, system, pre, found, reason=reason, coordinates=spread[:, None] * look.residual[None, :])


def _direct(job: _Job) -> LstsqResult:
    A, B, xp = getattr(job.A, "A", None), job.B, job.A.xp
    if A is None or is_linear_operator(A):
        raise ValueError(
            'A must be stored in memory for method "direct", got blocks or an operator; use "precondition"'
        )
    core = core_of(job.A)
    dense = xp.astype(A.toarray() if is_sparse(A) else A, core)
    B = xp.astype(B, core)
    if job.weights is not None:
        roots = xp.sqrt(xp.astype(job.weights, xp.float64))[:, None]
        dense, B = roots * dense, roots * B
    system = make_system(job.A, job.B, job.weights, job.damp)
    if not bool(xp.all(xp.isfinite(dense)) & xp.all(xp.isfinite(B))):
        return _nonfinite(job, system)
    X, pre = direct(system, dense, B, job.damp, precision=factors.precision_of(job.A))
    look = system.check(X if isinstance(system, TallSystem) else _wide_state(system, pre, X, B, job.damp), pre)
    found = Refined(system.start(X), look, 0, (), Status.CONVERGED, False)
    return _result(job, system, pre, found, reason=job.choice.reason, full=min(job.A.shape))


def _wide_state(system: WideSystem, pre: factors.Preconditioner, X: Any, B: Any, damp: float) -> Any:
    """(U, X) with the U that belongs to X where a ridge term asks for it."""
    U, _ = system.start(X)
    return (U if damp == 0.0 else pre.apply(pre.adjoint(B))), X


def _lsmr(job: _Job) -> LstsqResult:
    xp, precision = job.A.xp, factors.precision_of(job.A)
    tol = job.tol if job.tol is not None else (1e-10 if precision < 1e-10 else 1e-5)
    limit = 10 * min(job.A.shape) + 100 if job.max_iter is None else job.max_iter
    found = iterative(job.A, job.B, weights=job.weights, damp=job.damp, tol=tol, max_iter=limit, x0=job.x0)
    X = xp.astype(found.X, core_of(job.A))
    G, squares = job.A.normal_residual(xp.astype(X, job.A.dtype), job.B, job.weights)
    G = xp.astype(G, X.dtype) - job.damp**2 * X
    residual, length = xp.sqrt(squares), column_norms(X, xp)
    whole = xp.sqrt(squares + (job.damp * length) ** 2)
    system = make_system(job.A, job.B, job.weights, job.damp)
    small = 1e-300 * xp.ones_like(whole)
    normal = column_norms(G, xp) / xp.maximum(found.norm * whole, small)
    consistent = whole / xp.maximum(found.norm * length + system.b_norm, small)
    backward = xp.minimum(normal, consistent)
    finite = bool(xp.all(xp.isfinite(X)))
    status = Status.NONFINITE if not finite else Status.CONVERGED if found.reached else Status.MAX_ITER
    error = column_norms(G, xp) * found.condition / xp.maximum(found.norm * system.b_norm, small)  # an upper bound
    return _assemble(
        job, X, residual, normal, error, backward, None, found.condition, min(job.A.shape), job.choice.reason,
        found.n_iter, job.A.n_passes, (), status,
    )  # fmt: skip


# --- results ----------------------------------------------------------------------------------------------------------


def _result(
    job: _Job, system: TallSystem | WideSystem, pre: factors.Preconditioner, found: Refined, *, reason: str,
    coordinates: Any = None, full: int | None = None,
) -> LstsqResult:  # fmt: skip
    X = system.solution(found.state)
    status, full = found.status, system.C.shape[1] if full is None else full
    if pre.rank < full:
        X = pre.least_norm(X) if isinstance(system, TallSystem) else X
        status = Status.RANK_DEFICIENT if status is Status.CONVERGED else status
    look = found.check
    return _assemble(
        job, X, look.residual, look.normal, look.error, look.backward, coordinates, pre.condition, pre.rank, reason,
        found.n_iter, system.n_passes, found.history, status,
    )  # fmt: skip


def _nonfinite(job: _Job, system: TallSystem | WideSystem) -> LstsqResult:
    """What is told of data with NaN or infinity."""
    xp = system.xp
    nan = math.nan * xp.ones((job.B.shape[1],), dtype=xp.float64, device=job.A.device)
    X = math.nan * xp.ones((job.A.shape[1], job.B.shape[1]), dtype=core_of(job.A), device=job.A.device)
    return _assemble(
        job, X, nan, nan, nan, nan, None, math.nan, 0, job.choice.reason, 0, system.n_passes, (), Status.NONFINITE
    )


def _assemble(
    job: _Job, X: Any, residual: Any, normal: Any, error: Any, backward: Any, coordinates: Any, condition: float,
    rank: int, reason: str, n_iter: int, n_passes: int, history: tuple[float, ...], status: Status,
) -> LstsqResult:  # fmt: skip
    xp = job.A.xp

    def told(values: Any) -> Any:
        numbers = tuple(float(v) for v in values)
        return numbers[0] if job.vector else numbers

    def shaped(M: Any) -> Any:
        return None if M is None else M[:, 0] if job.vector else M

    return LstsqResult(
        shaped(xp.astype(X, job.A.dtype, copy=False)), told(residual), told(normal), told(error), told(backward),
        shaped(coordinates), condition, rank, job.choice.method, reason, n_iter, n_passes, history, status,
    )  # fmt: skip
