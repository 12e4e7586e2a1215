"""Regression in the l_p norm: solve on a sample of rows, improve on all of them, and say how far from the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, is_complex, is_sparse, namespace_of
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..sampling.rows import SCORES, check_p, sample_size, select_rows
from . import newton, sifting
from .design import Design, norm, scaled_rows

ON_FAILURE = ("warn", "raise", "ignore")

#: Steps on the small problem, and on the whole one where no sample is taken.
MOST_STEPS = 100

#: Excess at which the small problem counts as solved: far below what its sampling error is.
_SAMPLE_TOL = 1e-7

#: Entries up to 2**200 and down to 2**-200 are taken as they are.
_SAFE_EXPONENT = 200


@dataclass(frozen=True)
class LpStep:
    """What a callback is told about the sample's solution (n_iter 0) and after each step on the full data.

    Attributes
    ----------
    n_iter : int
        Steps on the full data so far.
    objective : float
        ``||A x - b||_p`` on the full data.
    excess_bound : float
        Bound of ``objective / minimum - 1``.
    """

    n_iter: int
    objective: float
    excess_bound: float


@dataclass(frozen=True, repr=False)
class LpResult(Result):
    """Solution of ``min_x ||A x - b||_p`` with a proof of how good it is.

    Attributes
    ----------
    x : array, shape (n,)
        The solution; of least Euclidean norm among the equivalent ones where columns of A are dependent.
    objective : float
        ``||A x - b||_p`` on the full data, with weights where they were given.
    excess_bound : float
        ``objective / minimum - 1`` is at most this, by duality and up to rounding: no probability is involved.
    p : float
    indices : array, shape (n_kept,), int64
        Rows of the sample; all rows where `n_samples` reaches their number.
    rank : int
        Numerical rank of A.
    n_iter : int
        Steps on the full data.
    history : tuple of float
        The objective on the full data: of the sample's solution, then after each step.
    status : Status
    """

    x: Any
    objective: float
    excess_bound: float
    p: float
    indices: Any
    rank: int
    n_iter: int
    history: tuple[float, ...]
    status: Status
    _factors: ClassVar[tuple[str, ...]] = ("x",)


def lp_regression(
    A: Any, b: Any, p: float = 1.0, *, n_samples: int | None = None, scores: str = "lewis", polish: int = 3,
    tol: float | None = 1e-6, weights: Any = None, rng: Any = None, callback: Callable[[LpStep], Any] | None = None,
    on_failure: str = "warn",
) -> LpResult:  # fmt: skip
    """Minimise ``||A x - b||_p``: robust regression at p = 1, least squares at 2, near the minimax at large p.

    Rows are sampled by scores of [A b]; the small weighted problem is solved; a few steps on the full data remove the
    sampling error, and each gives a bound from below of the minimum.  At p = 1 these steps are small linear programs
    over the rows whose residual signs are in doubt, and the last one usually proves the exact minimum.

    Parameters
    ----------
    A : array, CSR or CSC matrix, shape (m, n)
        Real matrix; a dense one is copied once in double precision.  At p = 1 NumPy and SciPy only.
    b : array, shape (m,)
        Right-hand side.
    p : float, 1 <= p < inf, default 1
        The norm.
    n_samples : int, optional
        Expected rows of the sample.  Default: ``64 d log(d + 2)`` with d = n + 1 for p = 1; all rows for p > 1, where
        steps on all rows are few and cost less than scores.  From m on nothing is sampled, and there may be 100 steps.
    scores : {"lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform"}, default "lewis"
        How rows are sampled, see :func:`randla.select_rows`.
    polish : int, polish >= 0, default 3
        Largest number of steps on the full data after the sample.
    tol : float or None, default 1e-6
        Wanted ``||A x - b||_p <= (1 + tol) minimum``, proved by `excess_bound`; steps end when it is reached.  None
        asks for nothing: all steps are done.
    weights : array, shape (m,), optional
        Finite and nonnegative; the objective is then ``(sum_i w_i |r_i|**p)**(1/p)``.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sample; equal keys give equal results up to rounding.
    callback : callable, optional
        Called with an `LpStep` for the sample's solution and after each step; returning True ends the computation.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    LpResult
        ``x`` (n,) with objective, excess bound, sample, steps and status; iterates as ``x,``.

    Raises
    ------
    ValueError
        If shapes do not fit, A or b is complex, or a parameter is out of range.
    TypeError
        If A or b is not numeric, or a parameter of the wrong kind.
    NotImplementedError
        If p = 1 and A is no NumPy array or SciPy matrix: the linear programs are solved on the host.

    Notes
    -----
    With ``U^T y = 0`` for a basis U of the range of A, Hoelder's inequality gives ``b^T y / ||y||_q`` as a bound from
    below; p = 1 takes y from the linear program [1]_, other p from the residual, one reweighted step ahead, which is
    exact to second order.  The excess of the sample's own solution is about ``n / (2 n_samples)`` for well-behaved
    noise.  If steps run out, the status is MAX_ITER: raise `polish` or `n_samples`.  Between 1 and 1.05 the last digits
    take more steps.  Cost: the scores (five passes of 2 m n**2 flops for Lewis weights), an orthonormal basis, and for
    each step one pass (p > 1), or a program in ``2 m sqrt(n / n_samples)`` rows (p = 1).

    Deviations from [1]_: (1) rows are sampled by Lewis weights, so heavy rows are never missed, (2) settled rows enter
    as the right-hand side of the dual program in place of two pseudo-rows, which makes its solution a certificate.

    References
    ----------
    .. [1] Portnoy and Koenker, "The Gaussian hare and the Laplacian tortoise: computability of squared-error versus
       absolute-error estimators", Statistical Science 12 (1997), section 5.
    .. [2] Cohen and Peng, "l_p row sampling by Lewis weights", STOC 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.regression import lp_regression
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 3))
    >>> b = A @ np.array([1.0, -2.0, 3.0]) + rng.standard_cauchy(5000)
    >>> result = lp_regression(A, b, rng=0)
    >>> result.x.round(1), result.excess_bound < 1e-9
    (array([ 1., -2.,  3.]), True)
    """
    p = check_p(p)
    A, b, scale = _intake(A, b, weights, p)
    check_choice(scores, "scores", SCORES)
    check_choice(on_failure, "on_failure", ON_FAILURE)
    polish = check_integer(polish, "polish", low=0)
    n_samples = None if n_samples is None else check_integer(n_samples, "n_samples", low=1)
    tol = None if tol is None else check_real(tol, "tol", low=0.0)
    if p == 1.0 and not is_numpy_namespace(namespace_of(A)):
        raise NotImplementedError(
            f"p must be above 1 for arrays of {namespace_of(A).__name__}, got {p}; "
            "the linear programs of p = 1 are solved on the host, so pass NumPy arrays"
        )
    key = as_key(rng).fold("lp regression")
    result = _lp_regression(A, b, p, scale, n_samples, scores, polish, tol, key, callback)
    return warn_or_raise(result, on_failure, what="lp_regression")


def _intake(A: Any, b: Any, weights: Any, p: float) -> tuple[Any, Any, Any]:
    """A, b in double precision, and the factors ``weights**(1/p)`` of the rows or None."""
    A = as_matrix(A)
    b = as_matrix(b, name="b", sparse=False, vector=True)
    if is_sparse(A) and A.format != "csr":
        A = A.tocsr()
    given = {"A": A, "b": b}
    if weights is not None:
        given["weights"] = weights = as_matrix(weights, name="weights", sparse=False, vector=True)
    for name, value in given.items():
        if is_complex(value.dtype):
            raise ValueError(f"{name} must be real, got {value.dtype}")
        if name != "A" and tuple(value.shape) != (A.shape[0],):
            raise ValueError(f"{name} must have shape ({A.shape[0]},), got {tuple(value.shape)}")
        check_together(A, value, names=("A", name))
    xp = namespace_of(A)
    b = xp.astype(b, xp.float64)
    if weights is None:
        return A, b, None
    weights = xp.astype(weights, xp.float64)
    if not bool(xp.all(xp.isfinite(weights) & (weights >= 0.0))):
        raise ValueError("weights must be finite and nonnegative, got negative or non-finite numbers")
    return A, b, weights ** (1.0 / p)


def _lp_regression(
    A: Any, b: Any, p: float, scale: Any, n_samples: int | None, scores: str, polish: int, tol: float | None, key: Key,
    callback: Callable[[LpStep], Any] | None,
) -> LpResult:  # fmt: skip
    xp, (m, n) = namespace_of(A), A.shape
    entries = A.data if is_sparse(A) else A
    every = xp.arange(m, dtype=xp.int64, device=device_of(entries))
    tops = _largest(entries), _largest(b)
    if not all(map(math.isfinite, tops)):
        x = xp.full((n,), math.nan, dtype=floating_dtype(A, xp), device=device_of(entries))
        return LpResult(x, math.nan, math.nan, p, every, 0, 0, (), Status.NONFINITE)
    design = Design(A, b, scale, key.fold("basis"), (_unit(tops[0]), _unit(tops[1])))
    if design.rank == 0:
        x = xp.zeros((n,), dtype=floating_dtype(A, xp), device=device_of(entries))
        status = Status.RANK_DEFICIENT if n else Status.CONVERGED
        objective = _objective(A, b, x, p, scale)
        return LpResult(x, objective, 0.0, p, every, 0, 0, (objective,), status)
    by_default = sample_size(design.rank + 1, p) if p == 1.0 else m
    k = by_default if n_samples is None else n_samples
    whole = k >= m
    if whole:  # nothing to sample: start from least squares
        indices, z, limit = every, design.adjoint(design.b), MOST_STEPS
    else:
        indices, z = _from_sample(design, p, k, scores, key)
        limit = polish
    steps: Iterator[newton.Iterate]
    steps = sifting.iterates(design, z, m if whole else k) if p == 1.0 else newton.iterates(design, p, z)
    # what a residual can be rounded to: below it a consistent system counts as solved
    unit = design.units[1]
    rounding = 8.0 * eps(xp.float64) * math.sqrt(design.rank + 1.0) * norm(design.b, p)
    history: list[float] = []
    ended = True  # by itself, and not by a limit
    for at in steps:
        excess = 0.0 if at.objective <= rounding else at.excess
        history.append(at.objective / unit)
        told = callback is not None and callback(LpStep(len(history) - 1, history[-1], excess))
        if told or (tol is not None and excess <= tol) or len(history) > limit:
            ended = False
            break
    x = xp.astype(design.coefficients(at.z), floating_dtype(A, xp))
    objective = _objective(A, b, x, p, scale)
    excess = 0.0 if objective * unit <= rounding else at._replace(objective=objective * unit).excess
    status = _status(objective, excess, tol, ended)
    if status is Status.CONVERGED and design.rank < n:
        status = Status.RANK_DEFICIENT
    return LpResult(x, objective, excess, p, indices, design.rank, len(history) - 1, tuple(history), status)


def _largest(entries: Any) -> float:
    xp = array_namespace(entries)
    return float(xp.max(xp.abs(xp.astype(entries, xp.float64, copy=False)))) if math.prod(entries.shape) else 0.0


def _unit(top: float) -> float:
    """A power of two that brings entries to the size of one, where their squares could overflow or vanish."""
    exponent = math.frexp(top)[1]
    return 1.0 if abs(exponent) < _SAFE_EXPONENT else 2.0 ** min(-exponent, 1000)


def _status(objective: float, excess: float, tol: float | None, ended: bool) -> Status:
    if not math.isfinite(objective):
        return Status.NONFINITE
    if tol is None or excess <= tol:
        return Status.CONVERGED
    return Status.STAGNATED if ended else Status.MAX_ITER


def _objective(A: Any, b: Any, x: Any, p: float, scale: Any) -> float:
    xp = namespace_of(A)
    wide = A.astype("float64") if is_sparse(A) else xp.astype(A, xp.float64, copy=False)
    r = b - wide @ xp.astype(x, xp.float64)
    return norm(r if scale is None else r * scale, p)


def _from_sample(design: Design, p: float, k: int, scores: str, key: Key) -> tuple[Any, Any]:
    """The rows of the sample and the solution of their weighted problem, in the coordinates of `design`."""
    xp = design.xp
    sample = select_rows(design.augmented(), k, scores=scores, p=p, rng=key)
    U = scaled_rows(design.rows(sample.indices), sample.weights)
    b = xp.take(design.b, sample.indices, axis=0) * sample.weights
    zeros = xp.zeros((design.rank,), dtype=xp.float64, device=device_of(b))
    if U.shape[0] == 0:
        return sample.indices, zeros
    if p == 1.0:
        found = sifting.solve_program(U, b, zeros)
        return sample.indices, zeros if found is None else found[0]
    small = Design(U, b, None, key.fold("basis of the sample"))
    at = None
    for n_iter, at in enumerate(newton.iterates(small, p, small.adjoint(b))):
        if at.excess <= _SAMPLE_TOL or n_iter == MOST_STEPS:
            break
    return sample.indices, zeros if at is None else small.coefficients(at.z)
