"""Nonnegative times binary: each column is a sum of parts that it has or has not, with or without missing entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, dtype_name, floating_dtype, is_complex, is_sparse, namespace_of
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..completion.observations import Observations
from ._matrices import MODERATE
from .binary_problems import SOLVERS, DenseBinary, MaskedBinary
from .frobenius import Step
from .masked import ABSENT, MaskedNMFResult, observed_entries
from .solvers import _unit_scale

STARTS = ("nmf", "random")
RESTARTS = 9  # shared starts of the descents, besides the column before


@dataclass(frozen=True, repr=False)
class BinaryNMFResult(MaskedNMFResult):
    """Factors ``X ~ W H`` with nonnegative W and an H of zeros and ones.

    Attributes
    ----------
    W : array, shape (m, rank)
        Nonnegative parts.
    H : array, shape (rank, n)
        Zeros and ones, in the dtype of W: which parts a column has.
    error : float
        ``||X - W H||_F / ||X||_F`` over the known entries.
    error_kind : str
        "exact" where all entries are known, "training" where some are missing.
    objective : float
        ``||X - W H||_F^2 / 2 + alpha ||W||_F^2 / 2`` over the known entries.
    history : tuple of float
        The objective at the start and after each iteration; it never rises beyond rounding.
    n_unproved : int
        Columns of H in the last iteration for which it is not proved that no other 0/1 column is better for this W.
    loss, solver, reason, n_iter, n_passes, start_objectives, n_revived, status
        As in `NMFResult`.
    """

    n_unproved: int = 0


def binary_nmf(
    X: Any, rank: int, *, absent: str | None = None, alpha: float = 1e-4,
    binary_solver: str | Callable[[Any], Any] = "exact", max_nodes: int = 1_000_000, init: Any = "nmf",
    max_iter: int = 100, tol: float = 1e-4, n_init: int = 1, callback: Callable[[Step], object] | None = None,
    rng: Any = None, on_failure: str = "warn",
) -> BinaryNMFResult:  # fmt: skip
    """Factorise a nonnegative matrix as ``X ~ W H`` with nonnegative W (m, rank) and H (rank, n) of zeros and ones.

    Minimises ``||X - W H||_F^2 / 2 + alpha ||W||_F^2 / 2`` over the known entries by turns: W by nonnegative least
    squares, the columns of H by a search over 0/1 vectors.  An iteration costs ``4 nnz(X) rank`` flops where all
    entries are known and about ``2 nnz rank**2`` where some are missing, and the searches.

    Parameters
    ----------
    X : array, NaN for what is missing, or sparse matrix, shape (m, n)
        Nonnegative data, float32 or float64, not changed.
    rank : int, rank >= 0
        Number of parts.
    absent : {"missing", "zeros"}, optional
        What the entries are that a sparse X does not store; must be given for sparse X.
    alpha : float, default 1e-4
        Ridge on W.
    binary_solver : {"exact", "descent"} or callable, default "exact"
        "exact": depth-first branch and bound from the best descent.  "descent": changes of one or two entries as long
        as they lower the objective, from the column before and from 9 shared random starts.  A callable gets an upper
        triangular array Q (rank, rank) of the library of X and returns z (rank,) of zeros and ones with a small
        ``z @ Q @ z``: so annealers are plugged in.
    max_nodes : int, default 1000000
        Vectors, also partial ones, that the search for a column may visit; beyond, the best one known is taken, after
        descents, and is counted in `n_unproved`.  A problem that is not small may need it all: on data of 60 known
        entries a column of 16 visits some 250, of 30 some 10,000, of 40 a million.
    init : {"nmf", "random"} or tuple (W, H), default "nmf"
        "nmf": 30 iterations of a nonnegative factorisation, and H where that is above the median of its part.
        "random": uniform numbers and fair coins.
    max_iter : int, default 100
    tol : float, default 1e-4
        Stop where the objective falls by at most `tol` of itself over an iteration; an objective below rounding of
        the data counts as that.
    n_init : int, default 1
        Starts; that of least objective is returned.
    callback : callable, optional
        Called with a `Step` after each iteration; returning True ends the run.
    rng : None, int, SeedSequence, Generator or Key
        Source of the starts.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    BinaryNMFResult
        ``W`` (m, rank) and ``H`` (rank, n), with `predict`; iterates as ``W, H``.

    Raises
    ------
    ValueError
        If X has negative or infinite entries, if `absent` is not given for sparse X, if a callable returns anything but
        zeros and ones, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    With ``G = W.T W`` and ``b = W.T x`` a column z minimises ``z.G z - 2 b.z``, which is ``z.Q z`` for
    ``Q_ii = G_ii - 2 b_i`` and ``Q_ij = 2 G_ij``, i < j.  A column is changed only if that is better, so the objective
    falls.  The problem as a whole has many minima.  On exact products of rank 4 and 6, with 30 % or all of the entries
    known, the start "nmf" reached the factors from each of 10 keys, "random" from 0 to 6 of 10.

    A column without known entries has zeros in H, and a row without has zeros in W.  A part that no column has, or that
    is zero, is begun anew from the column that is approximated worst, where alpha < 1.

    Deviations from [1]_: 1. coordinate sweeps and pivoting in place of projected gradients for W.  2. a search in place
    of an annealer for H: a column of 16 takes microseconds, and the answer is proved.  3. the start "nmf".

    References
    ----------
    .. [1] Terui, Inoue, Hamakawa, Tatsumura and Kudo, "Nonnegative/binary matrix factorization for collaborative
       filtering", Frontiers in Big Data 2025, arXiv:2410.10381.
    .. [2] Asaoka and Kudo, "Nonnegative/binary matrix factorization for image classification using quantum annealing",
       Scientific Reports 13, 2023.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> W, H = rng.random((40, 4)), rng.integers(0, 2, (4, 60))
    >>> result = randla.binary_nmf(W @ H, 4, alpha=0.0, rng=0)
    >>> result.error < 1e-6, result.n_unproved, sorted(set(result.H.ravel().tolist()))
    (True, 0, [0.0, 1.0])
    """
    problem, unit, masked = _problem(X, absent, check_real(alpha, "alpha", low=0.0))
    rank = check_integer(rank, "rank", low=0)
    if not callable(binary_solver):
        check_choice(binary_solver, "binary_solver", SOLVERS)
    max_nodes = check_integer(max_nodes, "max_nodes", low=1)
    max_iter, n_init = check_integer(max_iter, "max_iter", low=0), check_integer(n_init, "n_init", low=1)
    tol = check_real(tol, "tol", low=0.0)
    if isinstance(init, str):
        check_choice(init, "init", STARTS)
    elif n_init > 1:
        raise ValueError(f"n_init must be 1 where init gives the factors, got {n_init}")
    key = as_key(rng).fold("binary_nmf")
    runs: list[_Run] = []
    for attempt in range(n_init):
        own = key.fold(attempt)
        first: tuple[Any, Any] = (
            problem.start(rank, init, own) if isinstance(init, str) else _given(problem, rank, init, unit)
        )
        searcher = problem.searcher(binary_solver, max_nodes, rank, RESTARTS, own)
        runs.append(_alternate(problem, *first, searcher, max_iter, tol, callback))
        if runs[-1].stopped:
            break
    result = _result(problem, runs, unit, masked, binary_solver)
    stopped = runs[-1].stopped
    return warn_or_raise(result, "ignore" if stopped else on_failure, what="binary_nmf")


def _problem(X: Any, absent: str | None, alpha: float) -> tuple[Any, float, bool]:
    """The known entries, all of them or not, the unit they are divided by, and whether some are missing."""
    if absent is not None:
        check_choice(absent, "absent", ABSENT)
    if is_sparse(X):
        masked = absent != "zeros"
    else:
        X = as_matrix(X, name="X")
        if is_complex(X.dtype):
            raise TypeError(f"X must be real, got {X.dtype}")
        xp = namespace_of(X)
        floating = xp.isdtype(X.dtype, "real floating") if hasattr(xp, "isdtype") else True
        masked = bool(floating) and bool(xp.any(xp.isnan(X)))
        if masked and absent == "zeros":
            raise ValueError('absent must be "missing" for an X with NaN, got "zeros"; replace them by zeros first')
    if masked:
        observed = observed_entries(X, absent)
        unit = _moderate(observed)
        return MaskedBinary.of(observed.with_values(observed.data / unit), alpha), unit, True
    data, unit = _unit_scale(X)
    return DenseBinary(data, alpha), unit, False


def _moderate(observed: Observations) -> float:
    """A power of two by which the entries are divided, where their squares would overflow or vanish; else 1."""
    xp = observed.xp
    largest = float(xp.max(observed.data)) if observed.nnz else 0.0
    low, high = MODERATE[dtype_name(observed.data.dtype)]
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 and not low <= largest * largest <= high else 1.0


def _given(problem: Any, rank: int, init: Any, unit: float) -> tuple[Any, Any]:
    """The caller's factors, checked."""
    try:
        W, H = init
    except (TypeError, ValueError):
        raise ValueError(f"init must be one of {', '.join(STARTS)}, or a pair (W, H), got {init!r}") from None
    (m, n), like = problem.shape, problem.like
    W, H = (as_matrix(F, name=f"init {name}", sparse=False) for F, name in ((W, "W"), (H, "H")))
    for F, name, shape in ((W, "W", (m, rank)), (H, "H", (rank, n))):
        check_together(like, F, names=("X", f"init {name}"))
        if tuple(F.shape) != shape:
            raise ValueError(f"init {name} must have shape {shape}, got {tuple(F.shape)}")
    xp = namespace_of(W)
    if not bool(xp.all(W >= 0)) or not bool(xp.all(xp.isfinite(xp.astype(W, floating_dtype(W, xp))))):
        raise ValueError("init W must be finite and nonnegative, got other entries")
    if not bool(xp.all((H == 0) | (H == 1))):
        raise ValueError("init H must have zeros and ones only, got other entries")
    return problem.take(xp.astype(W, like.dtype) / unit, H)


@dataclass
class _Run:
    """One start: its factors in the layout of the problem, and how it got there."""

    W: Any
    Z: Any
    objective: float
    history: list[float]
    n_iter: int = 0
    n_revived: int = 0
    n_unproved: int = 0
    status: Status = Status.MAX_ITER
    stopped: bool = False


def _alternate(
    problem: Any, W: Any, Z: Any, searcher: Any, max_iter: int, tol: float,
    callback: Callable[[Step], object] | None,
) -> _Run:  # fmt: skip
    """Nonnegative and binary half steps by turns; neither raises the objective."""
    value = problem.objective(W, Z)
    run = _Run(W, Z, value, [value])
    rounding = problem.rounding
    if not math.isfinite(value):
        run.status = Status.NONFINITE
        return run
    while run.n_iter < max_iter:
        W = problem.nonneg_step(W, Z)
        Z, run.n_unproved = problem.binary_step(W, Z, searcher)
        W, Z, n_new = problem.revive(W, Z)
        value = problem.objective(W, Z)
        run.n_iter += 1
        run.n_revived += n_new
        if not math.isfinite(value):
            run.status = Status.NONFINITE
            break
        before = run.history[-1]
        run.history.append(value)
        run.W, run.Z, run.objective = W, Z, value
        if callback is not None:
            share = (before - value) / before if before > 0 else 0.0
            if callback(Step(run.n_iter, value, problem.error(W, Z), share)):
                run.stopped = True
                break
        if (before - value <= tol * before and not n_new) or value <= rounding:
            run.status = Status.CONVERGED
            break
    return run


def _result(problem: Any, runs: list[_Run], unit: float, masked: bool, solver: Any) -> BinaryNMFResult:
    best = min(runs, key=lambda run: run.objective if math.isfinite(run.objective) else math.inf)
    W, H = problem.factors(best.W, best.Z)
    scale = unit * unit
    name = solver if isinstance(solver, str) else getattr(solver, "__name__", type(solver).__name__)
    return BinaryNMFResult(
        W * unit, H, problem.error(best.W, best.Z), "frobenius", best.objective * scale, solver=f"binary-{name}",
        reason="asked for", n_iter=best.n_iter, n_passes=2.0 * best.n_iter,
        history=tuple(v * scale for v in best.history), start_objectives=tuple(run.objective * scale for run in runs),
        n_revived=best.n_revived, error_kind="training" if masked else "exact", status=best.status,
        best_iter=best.n_iter, n_unproved=best.n_unproved,
    )  # fmt: skip


def binary_codes(
    X: Any, W: Any, *, absent: str | None = None, binary_solver: str | Callable[[Any], Any] = "exact",
    max_nodes: int = 1_000_000, rng: Any = 0,
) -> Any:  # fmt: skip
    """The H (rank, n) of zeros and ones with the least ``||X - W H||_F`` over the known entries, for a given W."""
    problem, unit, _ = _problem(X, absent, 0.0)
    xp, rank = array_namespace(W), int(W.shape[1])
    H = xp.zeros((rank, problem.shape[1]), dtype=problem.like.dtype, device=device_of(problem.like))
    W, Z = _given(problem, rank, (W, H), unit)
    Z, _ = problem.binary_step(W, Z, problem.searcher(binary_solver, max_nodes, rank, RESTARTS, _codes_key(rng)))
    return problem.factors(W, Z)[1]


def _codes_key(rng: Any) -> Key:
    return as_key(rng).fold("binary_codes")
