"""l_p sensitivities: the largest share that a row can have in ||A x||_p^p, exactly, by buckets, or bounded."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import from_host
from .._backend import kernel
from .._checks import check_choice, check_integer
from .._random import Key, Stream, as_key
from .._results import ConvergenceWarning, Result, Status
from .extremal import TOLERANCE, LeastNorms, least_norms
from .lewis import DEFAULT_STEPS, Rows, check_p, lewis_steps

METHODS = ("auto", "exact", "sampled", "buckets", "bounds")

#: "auto" is exact for matrices of up to so many entries (m rank), about a second on one core.
EXACT_ENTRIES = 20_000

#: Rows for each square of the rank in the sample that stands for A in "sampled" and "buckets".
SAMPLE_FACTOR = 20

#: Most rows that `total_sensitivity` draws unless told.
MOST_ROWS = 1000


def lp_sensitivities(A: Any, p: float, *, method: str = "auto", bucket_size: int | None = None, rng: Any = None) -> Any:
    """Compute the l_p sensitivities of the rows of a matrix, or upper bounds of them.

    ``sigma_i = max over x of abs(a_i^T x)**p / ||A x||_p**p``, at most 1: the most that a row can matter in an l_p
    norm.  At p = 2 these are the leverage scores.

    Parameters
    ----------
    A : array, CSR or CSC matrix or RowBlocks, shape (m, n)
        Real matrix.
    p : float, p >= 1
        The norm.
    method : {"auto", "exact", "sampled", "buckets", "bounds"}, default "auto"
        "exact" solves a convex problem for each row, to a proved relative gap of 1e-8.  "sampled" solves it against
        20 rank**2 rows drawn by Lewis weights in place of A, which is right up to a constant factor.  "buckets" takes
        random combinations of `bucket_size` rows at a time and solves for these against that sample: with high
        probability the result is above the sensitivities against the sample, for p = 1 by at most those of the bucket.
        "bounds" gives proved upper bounds from the passes of the Lewis iteration.  "auto" is "exact" for
        m rank <= 20,000, else "bounds".
    bucket_size : int, 1 <= bucket_size <= m, optional
        Rows in a bucket, by default 2 log2(m) as there are repeats.  For "buckets" only.
    rng : None, int, SeedSequence, Generator or Key
        Source of the samples and buckets; "exact" and "bounds" depend on it by rounding only.

    Returns
    -------
    array, shape (m,)
        Scores in [0, 1] in the floating dtype of A; 0 for rows of zeros.

    Warns
    -----
    ConvergenceWarning
        If the gap of a row stays above 1e-6, as it may for 1 < p < 1.05, and for p > 4 on data with very heavy tails.
        Such rows get the upper end of their gap.

    Raises
    ------
    ValueError
        If p is below 1 or infinite, A is complex or holds NaN or infinity, or `bucket_size` is out of range or given to
        another method.
    TypeError
        If A has no rows that can be read.

    Notes
    -----
    The reciprocal of a sensitivity is ``min ||A x||_p**p`` with ``a_i^T x = 1``.  For p = 1 a primal-dual
    interior-point method solves it in 10 to 15 steps, for other p Newton's method with a search along its steps in 2 to
    40.  Both take many rows at once, so that a step is one product of their weights with the products of the columns of
    A.  Each step gives a dual point as well, whose value proves the gap: HiGHS found the same optima to 1e-9.

    The bounds hold for any weights w, with ``q_i = a_i^T (A^T W**(1 - 2/p) A)^-1 a_i``, up to rounding:
    ``q_i**(p/2) max_j(q_j**(1/2) w_j**(-1/p))**(2-p)`` for p <= 2 and ``q_i**(p/2) (sum_j w_j)**(p/2-1)`` for p >= 2,
    both by Hoelder's inequality.  With equal weights the first is at most ``tau_i**(p/2)``, the second
    ``m**(p/2-1) tau_i**(p/2)``, for leverage scores tau; with Lewis weights they are w and ``rank**(p/2-1) w``.  The
    least one of five passes is returned.  For p <= 2 the bounds add up to about the rank, and they exceed the
    sensitivities by at most ``rank**(1-p/2)`` and what five steps leave.

    Cost: "exact" m solves of about 10 m rank**2 flops each, "sampled" the same against 20 rank**2 rows, "buckets" for
    ``2 log2(m) m / bucket_size`` combinations; "bounds" 6 passes of 3 m n**2 flops.

    References
    ----------
    .. [1] Padmanabhan, Woodruff and Zhang, "Computing approximate l_p sensitivities", NeurIPS 2023 (arXiv:2311.04158).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import lp_sensitivities
    >>> A = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> lp_sensitivities(A, 1.0, rng=0).round(6)
    array([0.5, 0.5, 1. ])
    """
    p = check_p(p)
    check_choice(method, "method", METHODS)
    key = as_key(rng).fold("sensitivities")
    rows = Rows(A, key)
    xp, m = rows.xp, rows.shape[0]
    if bucket_size is not None:
        bucket_size = check_integer(bucket_size, "bucket_size", low=1, high=max(1, m))
        if method != "buckets":
            raise ValueError(
                f"bucket_size must be None for method={method!r}, got {bucket_size}; pass method='buckets'"
            )
    if rows.rank == 0:
        return xp.astype(rows.zeros(m), rows.dtype)
    if method == "auto":
        method = "exact" if m * rows.rank <= EXACT_ENTRIES else "bounds"
    log_w, log_bounds = _lewis_and_bounds(rows, p)
    scores = xp.exp(log_bounds)
    if method != "bounds":
        B = _coordinates(rows)
        if method == "exact":
            solved = least_norms(B, B, p, proved=_reciprocal(scores))
        else:
            sample = _sample(B, log_w, p, key.fold("sample"))
            if method == "sampled":
                solved = least_norms(sample, B, p)
            else:
                size = min(m, _repeats(m)) if bucket_size is None else bucket_size
                solved = _buckets(B, sample, p, size, key.fold("buckets"))
        _warn(solved)
        scores = xp.minimum(scores, solved.scores)
    return xp.astype(scores, rows.dtype)


def _reciprocal(scores: Any) -> Any:
    xp = array_namespace(scores)
    return xp.where(scores > 0, 1.0 / xp.where(scores > 0, scores, 1.0), math.inf)


def _warn(solved: LeastNorms) -> None:
    """Warn if some gaps are open."""
    xp = array_namespace(solved.reached)
    gaps = solved.gaps
    n_open = int(xp.sum(xp.astype(gaps > TOLERANCE, xp.int64)))
    if n_open:
        message = (
            f"lp_sensitivities left {n_open} of {gaps.shape[0]} problems with a relative gap above {TOLERANCE:.0e}, "
            f"the largest {float(xp.max(gaps)):.1e}: these scores are upper bounds; take p = 1 or p nearer to 2"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _lewis_and_bounds(rows: Rows, p: float) -> tuple[Any, Any]:
    """Logarithms of Lewis weights, and of the least of the upper bounds that the passes towards them give."""
    xp = rows.xp
    best = rows.zeros(rows.shape[0])
    for count, step in enumerate(lewis_steps(rows, p, leverage_map=p > 2.0), start=1):
        if p <= 2.0:
            held = step.log_q > -math.inf
            share = xp.where(held, step.log_q, 0.0) / 2.0 - xp.where(held, step.old, 0.0) / p
            shift = (2.0 - p) * float(xp.max(xp.where(held, share, -math.inf)))
        else:
            shift = (p / 2.0 - 1.0) * math.log(float(xp.sum(xp.exp(step.old))))
        best = xp.minimum(best, step.log_q * (p / 2.0) + shift)
        if count == DEFAULT_STEPS:
            break
    return step.new, best


def _coordinates(rows: Rows) -> Any:
    """The rows in coordinates in which their columns are orthonormal, as one array in double precision."""
    xp = rows.xp
    return xp.concat([xp.astype(Y, xp.float64) for _, _, Y in rows.products(rows.whitening)], axis=0)


def _drawn(log_w: Any, size: int, key: Key) -> tuple[Any, Any]:
    """Rows drawn with repetition in proportion to their weights, and the probabilities of these rows in one draw."""
    xp = array_namespace(log_w)
    totals = xp.cumulative_sum(xp.exp(log_w - xp.max(log_w)))
    u = from_host(kernel("uniforms", xp)(key, Stream.SAMPLE, 0, size), xp, log_w)
    # a uniform at the very end belongs to the last row that has a weight
    last = xp.searchsorted(totals, totals[-1:] * (1.0 - 1e-16), side="left")
    drawn = xp.minimum(xp.searchsorted(totals, u * totals[-1], side="right"), last)
    return drawn, xp.exp(xp.take(log_w, drawn, axis=0) - xp.max(log_w)) / totals[-1]


def _sample(B: Any, log_w: Any, p: float, key: Key) -> Any:
    """Rows of B by Lewis weights, scaled to keep l_p norms; B itself where it has few rows."""
    size = SAMPLE_FACTOR * B.shape[1] ** 2
    if size >= B.shape[0]:
        return B
    xp = array_namespace(B)
    drawn, probability = _drawn(log_w, size, key)
    return xp.take(B, drawn, axis=0) * (size * probability[:, None]) ** (-1.0 / p)


def _repeats(m: int) -> int:
    """Random combinations for each bucket: each is below a row with probability 1/2, and so all are with 1/m**2."""
    return max(1, math.ceil(2.0 * math.log2(max(2, m))))


def _buckets(B: Any, sample: Any, p: float, size: int, key: Key) -> LeastNorms:
    """For each row the largest sensitivity of the random combinations of its bucket.

    With random signs the rest of a bucket does not oppose a row, at the x that is extremal for the row, with
    probability at least 1/2.
    """
    xp, (m, r) = array_namespace(B), B.shape
    u = from_host(kernel("uniforms", xp)(key.fold("order"), Stream.SAMPLE, 0, m), xp, B)
    order = xp.argsort(u)
    n_buckets = -(-m // size)
    padded = xp.zeros((n_buckets * size, r), dtype=xp.float64, device=device_of(B))
    padded[:m, :] = xp.take(B, order, axis=0)
    padded = xp.reshape(padded, (n_buckets, size, r))
    combined = []
    for repeat in range(_repeats(m)):
        coins = kernel("uniforms", xp)(key.fold("signs").fold(repeat), Stream.SAMPLE, 0, n_buckets * size)
        signs = xp.sign(xp.reshape(from_host(coins, xp, B), (n_buckets, size, 1)) - 0.5)
        combined.append(xp.sum(signs * padded, axis=1))
    solved = least_norms(sample, xp.concat(combined, axis=0), p)
    best = [xp.min(xp.reshape(f, (len(combined), n_buckets)), axis=0) for f in solved]
    place = xp.argsort(order) // size
    return LeastNorms(*(xp.take(f, place, axis=0) for f in best))


@dataclass(frozen=True, repr=False)
class TotalSensitivity(Result):
    """Estimate of the sum of all l_p sensitivities; iterates as ``value, stderr``.

    Attributes
    ----------
    value : float
        The estimate, unbiased up to the gaps of the solves.
    stderr : float
        Its standard error, from the spread of the draws; 0 where every row was solved for.
    n_rows : int
        Rows that were solved for, with repetition.
    status : Status
        MAX_ITER if the gap of a solve stayed open, else CONVERGED.
    """

    _factors: ClassVar[tuple[str, ...]] = ("value", "stderr")

    value: float
    stderr: float
    n_rows: int
    status: Status


def total_sensitivity(A: Any, p: float, *, n_rows: int | None = None, rng: Any = None) -> TotalSensitivity:
    """Estimate the sum of the l_p sensitivities of all rows from those of a few.

    Rows are drawn by Lewis weights w, and the mean of ``sigma_i sum(w) / w_i`` is returned.  The sum is at most
    ``rank**max(1, p/2)``, on real data far below; it says how many rows sampling by sensitivities needs.

    Parameters
    ----------
    A : array, CSR or CSC matrix or RowBlocks, shape (m, n)
        Real matrix.
    p : float, p >= 1
        The norm.
    n_rows : int, n_rows >= 2, optional
        Rows to draw, by default ``8 rank**abs(1 - p/2)``, at most 1000.  From m on, every row is solved for once.
    rng : None, int, SeedSequence, Generator or Key
        Source of the draws.

    Returns
    -------
    TotalSensitivity
        With its standard error; iterates as ``value, stderr``.

    Warns
    -----
    ConvergenceWarning
        If the gap of a solve stays above 1e-6; its upper end is taken.

    Raises
    ------
    ValueError
        If p is below 1 or infinite, A is complex or holds NaN or infinity, or `n_rows` is below 2.
    TypeError
        If A has no rows that can be read.

    Notes
    -----
    For p <= 2 each term lies between ``rank**(p/2)`` and ``rank`` up to what five Lewis steps leave, so the standard
    error of k draws is at most half the difference over sqrt(k).  Cost: the solves of `lp_sensitivities` with
    ``method="exact"`` for the drawn rows, each about 10 m rank**2 flops, and a copy of A in double precision.

    References
    ----------
    .. [1] Padmanabhan, Woodruff and Zhang, "Computing approximate l_p sensitivities", NeurIPS 2023 (arXiv:2311.04158).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import total_sensitivity
    >>> A = np.random.default_rng(0).standard_normal((500, 4))
    >>> value, stderr = total_sensitivity(A, 2.0, rng=0)
    >>> round(value, 6), stderr < 1e-6
    (4.0, True)
    """
    p = check_p(p)
    key = as_key(rng).fold("total sensitivity")
    if n_rows is not None:
        n_rows = check_integer(n_rows, "n_rows", low=2)
    rows = Rows(A, key)
    xp, (m, _) = rows.xp, rows.shape
    if rows.rank == 0:
        return TotalSensitivity(0.0, 0.0, 0, Status.CONVERGED)
    if n_rows is None:
        n_rows = min(MOST_ROWS, math.ceil(8.0 * rows.rank ** abs(1.0 - p / 2.0)))
    B = _coordinates(rows)
    log_w, log_bounds = _lewis_and_bounds(rows, p)
    every = n_rows >= m
    if every:
        drawn = xp.arange(m, dtype=xp.int64, device=rows.device)
        factor = xp.ones_like(log_w)
    else:
        drawn, probability = _drawn(log_w, n_rows, key.fold("rows"))
        factor = 1.0 / probability
    bounds = xp.exp(xp.take(log_bounds, drawn, axis=0))
    solved = least_norms(B, xp.take(B, drawn, axis=0), p, proved=_reciprocal(bounds))
    _warn(solved)
    terms = xp.minimum(solved.scores, bounds) * factor
    total = float(xp.sum(terms))
    status = Status.CONVERGED if float(xp.max(solved.gaps)) <= TOLERANCE else Status.MAX_ITER
    if every:
        return TotalSensitivity(total, 0.0, m, status)
    return TotalSensitivity(total / n_rows, float(xp.std(terms, correction=1.0)) / n_rows**0.5, n_rows, status)
