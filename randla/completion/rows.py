"""Least squares for all rows of a matrix observed in part: one small problem for each row, over the same vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import device, is_numpy_namespace

from .._arrays import as_matrix, check_together, eps, floating_dtype, is_complex, namespace_of
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from .observations import Observations

SOLVERS = ("auto", "cholesky", "qr", "cg", "sketch")
PRECONDITIONERS = ("gram", "diagonal", "none")
_SKETCH = 4  # rows of a sketch for each column of V: distortion about 1/2, and so does a step divide the error
_SKETCH_NNZ = 4  # nonzeros in each column of a sketch: one more would not lower the distortion measurably
_BLOCK_ENTRIES = 2**20  # numbers of a block of small designs whose singular value decompositions are taken together


@dataclass(frozen=True, repr=False)
class MaskedLstsqResult(Result):
    """Solutions of the least-squares problems of all rows; iterates as ``(X,)``.

    Attributes
    ----------
    X : array, shape (m, k)
        Row i solves problem i.
    solver : str
        What solved them: "cholesky", "qr", "cg" or "sketch".
    reason : str
        Why.
    pivots : array, shape (m,), or None
        For "cholesky" and "qr": the least pivot of each factorisation, relative to its column, float64; 0 for rows
        that are rank-deficient, 1 for rows without entries.
    steps : array, shape (m,), or None
        For "cg" and "sketch": steps of each row, int64.
    residuals : array, shape (m,), or None
        For "cg" and "sketch": the residual of the normal equations of each row in the norm of the preconditioner,
        relative to that of the right-hand side, float64; 0 for rows solved directly.
    n_iter : int
        The most steps of any row.
    n_refined : int
        Rows that missed the tolerance and were solved again: by a larger sketch, or by QR.
    n_missed : int
        Rows that miss the tolerance still.
    n_deficient : int
        Rows with entries whose solution is not unique; theirs is the one of least norm.
    status : Status
        RANK_DEFICIENT where `n_deficient` is positive, MAX_ITER where `n_missed` is.
    """

    X: Any
    solver: str
    reason: str
    pivots: Any
    steps: Any
    residuals: Any
    n_iter: int
    n_refined: int
    n_missed: int
    n_deficient: int
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("X",)


class Rows(NamedTuple):
    """The problems: min over x of sum_p weights_p (data_p - V[indices_p].x)**2 + ridge_i ||x||**2 for each row i."""

    V: Any
    observed: Observations
    weights: Any
    ridge: Any

    @property
    def counts(self) -> Any:
        """Entries of positive weight of each row; int64."""
        if self.weights is None:
            return self.observed.row_counts
        return self.observed.xp.astype(_row_sums(self.observed, self.weights > 0), self.observed.xp.int64)

    def take(self, chosen: Any) -> Rows:
        """The problems of the rows where the mask (m,) is true."""
        xp, X = self.observed.xp, self.observed
        kept = xp.take(chosen, X.rows)
        start = xp.zeros(1, dtype=xp.int64, device=device(X.data))
        indptr = xp.concat([start, xp.cumulative_sum(X.row_counts[chosen])])
        part = Observations(X.data[kept], X.indices[kept], indptr, (int(indptr.shape[0]) - 1, X.shape[1]))
        return Rows(self.V, part, None if self.weights is None else self.weights[kept], self.ridge[chosen])


class Method(NamedTuple):
    """How the problems are solved; `guarded` rows that miss the tolerance are solved again."""

    solver: str
    reason: str
    preconditioner: str
    tol: float
    max_iter: int
    guarded: bool


def masked_lstsq(
    V: Any, indptr: Any, indices: Any, data: Any, *, weights: Any = None, reg: Any = 0.0, x0: Any = None,
    solver: str = "auto", preconditioner: str = "gram", tol: float | None = None, max_iter: int | None = None,
    rng: Any = None, on_failure: str = "warn",
) -> MaskedLstsqResult:  # fmt: skip
    """Solve one small least-squares problem for each row of a matrix observed in part.

    Row i minimises ``sum_p weights_p (data_p - V[indices_p] . x)**2 + reg_i ||x||**2`` over its entries p, those from
    ``indptr[i]`` up to ``indptr[i + 1]``: half a sweep of alternating least squares, and the fold-in of new rows.  The
    direct solvers cost ``nnz k**2 + m k**3 / 3`` flops, conjugate gradients ``4 nnz k`` a step.

    Parameters
    ----------
    V : array, shape (n, k), float32 or float64
        The vectors that all problems share.
    indptr : array of int, shape (m + 1,)
        Where rows begin.
    indices : array of int, shape (nnz,)
        The vector of each entry.
    data : array, shape (nnz,)
        The values to fit, cast to the dtype of V.
    weights : array, shape (nnz,), optional
        Nonnegative weights of the squares; ones by default.
    reg : float or array, shape (m,), default 0.0
        The ridge, of all rows or of each.
    x0 : array, shape (m, k), optional
        Where "cg" and "sketch" start; zeros by default.
    solver : {"auto", "cholesky", "qr", "cg", "sketch"}, default "auto"
        "cholesky": of the normal equations, in double precision.  "qr": of the designs, for ill-conditioned ones.
        "cg": conjugate gradients with a preconditioner for all rows.  "sketch": conjugate gradients with the factor of
        a sketch of 4 k rows for each row, for rows whose entries are far from a fair sample of the vectors; rows of
        at most 4 k entries go to "qr".  "auto": "cg" where a tolerance is given and the steps that it is expected to
        take cost less than a factorisation, else "cholesky".
    preconditioner : {"gram", "diagonal", "none"}, default "gram"
        Of "cg": ``(n_i / n) V^T V + reg_i I``, its diagonal, or nothing.
    tol : float in (0, 1), optional
        Residual of the normal equations in the norm of the preconditioner, relative to that of the right-hand side,
        that "cg" and "sketch" stop at; by default ``eps**(2/3)``, 4e-11 for float64.
    max_iter : int, max_iter >= 0, optional
        Most steps; by default ``2 k + 20`` for "cg", and as many as halving needs to reach `tol` for "sketch".
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is neither CONVERGED nor RANK_DEFICIENT.

    Returns
    -------
    MaskedLstsqResult
        ``X`` (m, k) with pivots or residuals of the rows.

    Raises
    ------
    ValueError
        If shapes do not fit, an index is out of range, a weight or a ridge is negative, a number is not finite, or a
        parameter is out of range.
    TypeError
        If an array is complex or indices are not integers.

    Notes
    -----
    One preconditioner for all rows: if the entries of row i are a fair sample of the rows of V, its system is near
    ``(n_i / n) V^T V + reg_i I``.  With ``V^T V = Q L Q^T`` and ``W = V Q`` that matrix is diagonal, so a step costs
    as much as without one.  The contraction of a step is then about ``sqrt(k / n_i)``; "auto" reckons with
    ``2 log(2 / tol) / log(n_i / k)`` steps and takes a factorisation for the price of ``5 + k / 5`` steps, as measured.

    Rows that "sketch", or "auto" with "cg", did not bring to `tol` are solved again, the first with a sketch of twice
    the size and then all by QR; `n_refined` counts them.  Rows with a pivot at rounding level, and with "cg" and
    "sketch" those with fewer than k entries and no ridge, get the solution of least norm from a singular value
    decomposition.  Rows without entries get zeros.

    References
    ----------
    .. [1] Gu, Song, Yin and Zhang, "Low rank matrix completion via robust alternating minimization in nearly linear
       time", arXiv:2302.11068.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import masked_lstsq
    >>> V = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> result = masked_lstsq(V, np.array([0, 2, 3]), np.array([0, 2, 1]), np.array([1.0, 5.0, 4.0]))
    >>> result.X.round(6), result.n_deficient
    (array([[1., 2.],
           [2., 2.]]), 1)
    """
    check_choice(solver, "solver", SOLVERS)
    check_choice(preconditioner, "preconditioner", PRECONDITIONERS)
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    rows = _intake(V, indptr, indices, data, weights, reg)
    given = None if tol is None else check_real(tol, "tol", low=0.0, high=1.0, closed="neither")
    limit = None if max_iter is None else check_integer(max_iter, "max_iter", low=0)
    start = _start(x0, rows)
    method = choose_method(rows, solver, preconditioner, given, limit)
    return warn_or_raise(solve_rows(rows, method, start, as_key(rng)), on_failure, what="masked_lstsq")


# --- intake -----------------------------------------------------------------------------------------------------------


def _intake(V: Any, indptr: Any, indices: Any, data: Any, weights: Any, reg: Any) -> Rows:
    V = as_matrix(V, name="V", sparse=False)
    xp = namespace_of(V)
    if is_complex(V.dtype):
        raise TypeError(f"V must be real, got {V.dtype}")
    V = _finite(xp.astype(V, floating_dtype(V, xp), copy=False), "V", xp)
    n = int(V.shape[0])
    indptr, indices = _integers(indptr, "indptr", V, xp), _integers(indices, "indices", V, xp)
    nnz = int(indices.shape[0])
    if indptr.shape[0] < 1 or int(indptr[0]) != 0 or int(indptr[-1]) != nnz or bool(xp.any(indptr[1:] < indptr[:-1])):
        raise ValueError(f"indptr must rise from 0 to {nnz}, the number of indices, got other values")
    if nnz and not (int(xp.min(indices)) >= 0 and int(xp.max(indices)) < n):
        raise ValueError(f"indices must be in [0, {n - 1}], the rows of V, got others")
    data = _vector(data, "data", nnz, V, xp)
    if weights is not None:
        weights = _vector(weights, "weights", nnz, V, xp)
        if bool(xp.any(weights < 0)):
            raise ValueError(f"weights must be nonnegative, got {float(xp.min(weights))}")
    m = int(indptr.shape[0]) - 1
    if hasattr(reg, "shape") and len(reg.shape) == 1:
        ridge = xp.astype(_vector(reg, "reg", m, V, xp), xp.float64)
        if bool(xp.any(ridge < 0)):
            raise ValueError(f"reg must be nonnegative, got {float(xp.min(ridge))}")
    else:
        ridge = xp.full((m,), check_real(reg, "reg", low=0.0), dtype=xp.float64, device=device(V))
    return Rows(V, Observations(data, indices, indptr, (m, n)), weights, ridge)


def _integers(values: Any, name: str, V: Any, xp: Any) -> Any:
    values = as_matrix(values, name=name, sparse=False, vector=True)
    check_together(V, values, names=("V", name))
    if values.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {tuple(values.shape)}")
    if not xp.isdtype(values.dtype, "integral"):
        raise TypeError(f"{name} must be integers, got {values.dtype}; convert them first")
    return values if values.dtype in (xp.int32, xp.int64) else xp.astype(values, xp.int64)


def _vector(values: Any, name: str, size: int, V: Any, xp: Any) -> Any:
    values = as_matrix(values, name=name, sparse=False, vector=True)
    check_together(V, values, names=("V", name))
    if is_complex(values.dtype):
        raise TypeError(f"{name} must be real, got {values.dtype}")
    if tuple(values.shape) != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {tuple(values.shape)}")
    dtype = xp.float64 if name == "reg" else V.dtype
    return _finite(xp.astype(values, dtype, copy=False), name, xp)


def _finite(values: Any, name: str, xp: Any) -> Any:
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return values


def _start(x0: Any, rows: Rows) -> Any:
    xp, shape = rows.observed.xp, (rows.observed.shape[0], int(rows.V.shape[1]))
    if x0 is None:
        return None
    x0 = as_matrix(x0, name="x0", sparse=False)
    check_together(rows.V, x0, names=("V", "x0"))
    if is_complex(x0.dtype):
        raise TypeError(f"x0 must be real, got {x0.dtype}")
    if tuple(x0.shape) != shape:
        raise ValueError(f"x0 must have shape {shape}, got {tuple(x0.shape)}")
    return _finite(xp.astype(x0, rows.V.dtype, copy=False), "x0", xp)


# --- which solver -----------------------------------------------------------------------------------------------------


def default_tolerance(dtype: Any) -> float:
    """The residual that conjugate gradients stop at unless told: two thirds of the digits."""
    return eps(dtype) ** (2 / 3)


def choose_method(rows: Rows, solver: str, preconditioner: str, tol: float | None, max_iter: int | None) -> Method:
    """The solver by its cost, with its limit of steps, and why."""
    k, reason, guarded = int(rows.V.shape[1]), "as asked for", solver == "sketch"
    wanted = default_tolerance(rows.V.dtype) if tol is None else tol
    if k == 0:
        return Method("cholesky", "there is nothing to solve for", preconditioner, wanted, 0, guarded)
    if solver == "auto":
        guarded, price = True, 5 + k / 5  # of a factorisation in steps, measured for k = 16 .. 128
        steps = _expected_steps(rows, wanted) if tol is not None else math.inf
        solver = "cg" if steps + 2 < price else "cholesky"  # two steps' worth of work before the first step
        about = f"{steps:.0f} expected steps" if tol is not None else "no tolerance was given"
        reason = f"{about}, against a factorisation at the price of {price:.0f} steps"
    halvings = math.ceil(math.log2(2 / wanted))
    limit = (halvings if solver == "sketch" else 2 * k + 20) if max_iter is None else max_iter
    return Method(solver, reason, preconditioner, wanted, limit, guarded)


def _expected_steps(rows: Rows, tol: float) -> float:
    """Mean over the entries of the steps that a fair sample of the vectors would need for its row."""
    xp, k = rows.observed.xp, int(rows.V.shape[1])
    counts = xp.astype(rows.observed.row_counts, xp.float64)
    total = float(xp.sum(counts))
    if total == 0.0 or k == 0:
        return 0.0
    excess = xp.log(xp.where(counts > k, counts / k, xp.ones_like(counts)))
    most = k + 10.0  # where rounding and k directions are all that is left
    bound = 2 * math.log(2 / tol)
    steps = xp.where(excess * most > bound, bound / xp.where(excess > 0, excess, xp.ones_like(excess)), most)
    return float(xp.sum(counts * steps)) / total


# --- solutions --------------------------------------------------------------------------------------------------------


@np.errstate(over="ignore", invalid="ignore")  # what is not finite ends in a status
def solve_rows(rows: Rows, method: Method, x0: Any, key: Key) -> MaskedLstsqResult:
    """Solve checked problems by a method that was chosen."""
    xp, k = rows.observed.xp, int(rows.V.shape[1])
    if method.solver in ("cholesky", "qr"):
        X, pivots, deficient = _direct(rows, method.solver)
        told: dict[str, Any] = {"pivots": pivots, "steps": None, "residuals": None}
        n_refined = n_missed = n_iter = 0
    else:
        if x0 is None:
            x0 = xp.zeros((rows.observed.shape[0], k), dtype=rows.V.dtype, device=device(rows.V))
        if method.solver == "cg":
            X, steps, residuals, n_refined, deficient = _by_gradients(rows, method, x0)
        else:
            X, steps, residuals, n_refined, deficient = _by_sketches(rows, method, x0, key)
        n_missed = int(xp.sum(xp.astype(residuals > method.tol, xp.int64)))
        n_iter = int(xp.max(steps)) if steps.shape[0] else 0
        told = {"pivots": None, "steps": steps, "residuals": residuals}
    n_deficient = int(xp.sum(xp.astype(deficient, xp.int64)))
    status = Status.RANK_DEFICIENT if n_deficient else Status.CONVERGED
    status = Status.MAX_ITER if n_missed else status
    status = status if bool(xp.all(xp.isfinite(X))) else Status.NONFINITE
    return MaskedLstsqResult(
        X, method.solver, method.reason, n_iter=n_iter, n_refined=n_refined, n_missed=n_missed,
        n_deficient=n_deficient, status=status, **told,
    )  # fmt: skip


def _direct(rows: Rows, solver: str) -> tuple[Any, Any, Any]:
    """Solutions, pivots, and which rows got the solution of least norm."""
    xp, X, singular = rows.observed.xp, rows.observed, _underdetermined(rows)
    ridge = xp.where(singular, xp.ones_like(rows.ridge), rows.ridge)  # their solutions are replaced below
    if solver == "cholesky":
        targets = X.data if rows.weights is None else rows.weights * X.data
        found, pivots = kernel("masked_cholesky", xp)(rows.V, X.indices, X.indptr, rows.weights, targets, None, ridge)
    else:
        found, pivots = kernel("masked_qr", xp)(rows.V, X.indices, X.indptr, rows.weights, X.data, ridge)
    counts = rows.counts
    noise = 8.0 * 2.0**-52 * xp.sqrt(xp.astype(counts, xp.float64) + int(rows.V.shape[1]))
    # rounding may leave more of a pivot that is zero than the kernels allow for
    deficient = (counts > 0) & ((pivots <= noise) | singular)
    pivots = _cleared(pivots, deficient, xp)
    return _with_least_norm(rows, found, deficient), pivots, deficient


def _by_gradients(rows: Rows, method: Method, x0: Any) -> tuple[Any, Any, Any, int, Any]:
    """Conjugate gradients with one preconditioner for all rows; rows that are underdetermined get the least norm."""
    xp, X, k = rows.observed.xp, rows.observed, int(rows.V.shape[1])
    V, Q, diagonal = rows.V, None, xp.ones(k, dtype=xp.float64, device=device(rows.V))
    wide = xp.astype(V, xp.float64)
    if method.preconditioner == "diagonal":
        diagonal = xp.sum(wide * wide, axis=0)
    elif method.preconditioner == "gram" and k:
        diagonal, Q = xp.linalg.eigh(xp.matmul(wide.mT, wide))
        V = xp.astype(xp.matmul(wide, Q), rows.V.dtype)
        x0 = xp.astype(xp.matmul(xp.astype(x0, xp.float64), Q), rows.V.dtype)
        least = k * 2.0**-52 * float(diagonal[-1])  # what rounding leaves of directions that V lacks
        diagonal = xp.where(diagonal > least, diagonal, xp.full_like(diagonal, least))
    sums = _row_sums(X, rows.weights) if rows.weights is not None else xp.astype(X.row_counts, xp.float64)
    plain = method.preconditioner == "none"
    scale = xp.ones_like(sums) if plain else sums / max(int(V.shape[0]), 1)
    targets = X.data if rows.weights is None else rows.weights * X.data
    found, steps, residuals = kernel("masked_cg", xp)(
        V, X.indices, X.indptr, rows.weights, targets, None, rows.ridge, diagonal, scale, x0, method.tol,
        method.max_iter,
    )  # fmt: skip
    if Q is not None:
        found = xp.astype(xp.matmul(xp.astype(found, xp.float64), Q.mT), rows.V.dtype)
    deficient = _underdetermined(rows)
    found, residuals = _with_least_norm(rows, found, deficient), _cleared(residuals, deficient, xp)
    missed = residuals > method.tol
    if not method.guarded or not bool(xp.any(missed)):
        return found, steps, residuals, 0, deficient
    return _refined(rows, found, steps, residuals, deficient, missed)


def _by_sketches(rows: Rows, method: Method, x0: Any, key: Key) -> tuple[Any, Any, Any, int, Any]:
    """Conjugate gradients with the factor of a sketch of each long row; short rows by QR."""
    xp, k = rows.observed.xp, int(rows.V.shape[1])
    m = rows.observed.shape[0]
    place = device(rows.V)
    steps, residuals = xp.zeros(m, dtype=xp.int64, device=place), xp.zeros(m, dtype=xp.float64, device=place)
    deficient, n_refined = xp.zeros(m, dtype=xp.bool, device=place), 0
    todo = rows.counts > _SKETCH * k
    if not bool(xp.all(todo)):  # rows that no sketch can shorten
        short, _, some = _direct(rows.take(~todo), "qr")
        x0 = _placed(x0, ~todo, short, xp)
        deficient = _placed(deficient, ~todo, some, xp)
    for round_ in range(2):
        if not bool(xp.any(todo)):
            break
        size = 2**round_ * _SKETCH * k
        part, start = rows.take(todo), xp.take(x0, _numbers(todo, xp), axis=0)
        P = part.observed
        targets = P.data if part.weights is None else part.weights * P.data
        found, some_steps, left = kernel("masked_sketched_cg", xp)(
            key.fold("masked_lstsq").fold(round_), part.V, P.indices, P.indptr, part.weights, targets, part.ridge,
            start, size, min(_SKETCH_NNZ, size), method.tol, method.max_iter,
        )  # fmt: skip
        x0 = _placed(x0, todo, found, xp)
        steps = _placed(steps, todo, xp.take(steps, _numbers(todo, xp)) + some_steps, xp)
        residuals = _placed(residuals, todo, left, xp)
        todo = residuals > method.tol
        n_refined = n_refined if round_ else int(xp.sum(xp.astype(todo, xp.int64)))
    if not bool(xp.any(todo)):
        return x0, steps, residuals, n_refined, deficient
    x0, steps, residuals, _, deficient = _refined(rows, x0, steps, residuals, deficient, todo)
    return x0, steps, residuals, n_refined, deficient


def _refined(rows: Rows, X: Any, steps: Any, residuals: Any, deficient: Any, missed: Any) -> Any:
    """The last resort: QR for the rows that missed the tolerance."""
    xp = rows.observed.xp
    direct, _, some = _direct(rows.take(missed), "qr")
    X, deficient = _placed(X, missed, direct, xp), _placed(deficient, missed, some, xp)
    return X, steps, _cleared(residuals, missed, xp), int(xp.sum(xp.astype(missed, xp.int64))), deficient


def _underdetermined(rows: Rows) -> Any:
    """Rows with entries, but fewer than unknowns, and no ridge."""
    counts = rows.counts
    return (counts > 0) & (counts < int(rows.V.shape[1])) & (rows.ridge == 0)


def _with_least_norm(rows: Rows, X: Any, deficient: Any) -> Any:
    """X with the rows of the mask replaced by the solutions of least norm, a block of small designs at a time."""
    xp, k = rows.observed.xp, int(rows.V.shape[1])
    if not bool(xp.any(deficient)):
        return X
    part = rows.take(deficient)
    counts = part.observed.row_counts
    order = xp.argsort(counts)  # rows of one block are padded to the longest
    solved = xp.zeros((int(order.shape[0]), k), dtype=xp.float64, device=device(X))
    lo, total = 0, int(order.shape[0])
    while lo < total:
        width = max(1, int(xp.max(xp.take(counts, order[lo:]))))
        hi = min(total, lo + max(1, _BLOCK_ENTRIES // (width * max(k, 1))))
        solved[lo:hi, :] = _block_least_norm(part, order[lo:hi], xp)
        lo = hi
    solved = xp.take(solved, xp.argsort(order), axis=0)
    return _placed(X, deficient, xp.astype(solved, X.dtype), xp)


def _block_least_norm(rows: Rows, numbers: Any, xp: Any) -> Any:
    """``sum of v_j s_j / (s_j**2 + ridge) u_j.b`` over the singular values s_j above rounding level."""
    X, k = rows.observed, int(rows.V.shape[1])
    begin = xp.take(xp.astype(X.indptr, xp.int64), numbers)[:, None]
    counts = xp.take(X.row_counts, numbers)[:, None]
    width = max(1, int(xp.max(counts)))
    offset = xp.arange(width, dtype=xp.int64, device=device(rows.V))[None, :]
    there = offset < counts
    places = xp.reshape(xp.where(there, begin + offset, xp.zeros_like(begin + offset)), (-1,))
    root = xp.astype(there, xp.float64)
    if rows.weights is not None:
        root = root * xp.reshape(xp.sqrt(xp.astype(xp.take(rows.weights, places), xp.float64)), root.shape)
    design = xp.astype(xp.take(rows.V, xp.take(X.indices, places), axis=0), xp.float64)
    design = xp.reshape(design, (*root.shape, k)) * root[:, :, None]
    target = xp.reshape(xp.astype(xp.take(X.data, places), xp.float64), root.shape) * root
    U, s, Vh = xp.linalg.svd(design, full_matrices=False)
    kept = s > max(width, k) * eps(rows.V.dtype) * s[:, :1]
    ridge = xp.take(rows.ridge, numbers)[:, None]
    inverse = xp.where(kept, s / xp.where(kept, s * s + ridge, xp.ones_like(s)), xp.zeros_like(s))
    inside = xp.matmul(U.mT, target[:, :, None])[:, :, 0] * inverse
    return xp.matmul(Vh.mT, inside[:, :, None])[:, :, 0]


# --- arrays of rows ---------------------------------------------------------------------------------------------------


def _row_sums(X: Observations, values: Any) -> Any:
    """The sum of the values (nnz,) of each row; float64 (m,)."""
    xp = X.xp
    if is_numpy_namespace(xp):
        return np.bincount(X.rows, weights=values, minlength=X.shape[0])
    ones = xp.ones((X.shape[1], 1), dtype=xp.float64, device=device(X.data))
    return kernel("csr_matmul", xp)(xp.astype(values, xp.float64), X.indices, X.indptr, ones)[:, 0]


def _numbers(mask: Any, xp: Any) -> Any:
    return xp.nonzero(mask)[0]


def _placed(whole: Any, mask: Any, part: Any, xp: Any) -> Any:
    """`whole` with the rows of the mask replaced by those of `part`."""
    out = xp.asarray(whole, copy=True)
    if is_numpy_namespace(xp):
        out[mask] = part
        return out
    places = xp.cumulative_sum(xp.astype(mask, xp.int64)) - 1
    places = xp.where(mask, places, xp.zeros_like(places))
    spread = xp.take(part, places, axis=0)
    return xp.where(mask if whole.ndim == 1 else mask[:, None], spread, out)


def _cleared(values: Any, mask: Any, xp: Any) -> Any:
    return xp.where(mask, xp.zeros_like(values), values)
