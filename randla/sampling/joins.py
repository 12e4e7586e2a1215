"""Statistics of a join from samples of its two tables: size, means, correlations, regression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import eps, namespace_of
from .._checks import check_real
from .._results import Result, Status, warn_or_raise
from .coordinated import CoordinatedSample, aligned, check_meeting, status_of
from .selection import dense_rows


@dataclass(frozen=True, repr=False)
class JoinResult(Result):
    """What `join_statistics` estimates of a join; iterates as ``size, correlation``.

    Attributes
    ----------
    size : float
        Number of keys that both tables hold.
    mean_a : array, shape (d,)
        Means of the columns of A over the join; shape () for a vector.
    mean_b : array, shape (m,)
        Means of the columns of B over the join.
    correlation : array, shape (d, m)
        Correlations of the columns of A with those of B over the join; axes of vectors are left out.
    size_error : float
        Standard error of `size`.
    mean_a_error : array, shape (d,)
        Standard errors of `mean_a`.
    mean_b_error : array, shape (m,)
        Standard errors of `mean_b`.
    correlation_error : array, shape (d, m)
        Standard errors of `correlation`.
    n_common : int
        Keys that both samples hold.
    status : Status
        BREAKDOWN with fewer than three common keys, NONFINITE if rows were not finite.
    """

    _factors = ("size", "correlation")
    size: float
    mean_a: Any
    mean_b: Any
    correlation: Any
    size_error: float
    mean_a_error: Any
    mean_b_error: Any
    correlation_error: Any
    n_common: int
    status: Status


@dataclass(frozen=True, repr=False)
class JoinRegressionResult(Result):
    """Least squares over a join; iterates as ``coef, intercept``.

    Attributes
    ----------
    coef : array, shape (d,)
        Coefficients of the columns of A; shape (d, m) for m targets.
    intercept : array, shape (m,)
        Constant terms, shape () for one target given as a vector; 0 without intercept.
    coef_error : array, shape (d,)
        Standard errors: how far the sampling moves `coef` from the least squares solution over the whole join.
    r_squared : array, shape (m,)
        Share of the variance of b over the join that is explained, each row judged by a fit without it, so that the
        values of tables with different numbers of columns compare; it can be negative.
    n_join : float
        Estimated size of the join.
    n_common : int
        Keys that both samples hold.
    rank : int
        Rank of the sampled Gram matrix.
    condition : float
        Condition number of the Gram matrix with the ridge, on its range.
    status : Status
        BREAKDOWN if there are no more common keys than coefficients and no ridge, NONFINITE if rows were not finite.
    """

    _factors = ("coef", "intercept")
    coef: Any
    intercept: Any
    coef_error: Any
    r_squared: Any
    n_join: float
    n_common: int
    rank: int
    condition: float
    status: Status


def join_statistics(SA: CoordinatedSample, SB: CoordinatedSample, *, on_failure: str = "warn") -> JoinResult:
    """Estimate size, means and correlations of the join of two tables from their samples.

    The join has the keys that are in both tables.  Each common sampled key counts 1 / p, p its probability, so size and
    sums are unbiased; means and correlations are their quotients, with a bias below their standard errors.

    Parameters
    ----------
    SA, SB : CoordinatedSample
        Samples of tables A (n, d) and B (n', m), made with ``weight="moments"`` under one key.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    JoinResult
        ``size``, ``mean_a`` (d,), ``mean_b`` (m,), ``correlation`` (d, m), and their errors.

    Raises
    ------
    TypeError, ValueError
        If the samples cannot meet, or have other weights, which drop rows of zeros.

    Notes
    -----
    Standard errors by the delta method, with the variances ``(1 - p) / p**2`` of the counts: what the sampling adds,
    not the spread of the data.  They need some 30 common keys to be trusted.  Correlations are quotients of weighted
    sums with positive weights, so they lie in [-1, 1].

    References
    ----------
    .. [1] Daliri, Freire, Musco, Santos and Zhang, "Sampling methods for inner product sketching", PVLDB 17 (2024);
       arXiv:2309.16157, on join correlations.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import PrioritySampler, join_statistics
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal(5000)
    >>> b = a[2000:] + rng.standard_normal(3000)
    >>> sampler = PrioritySampler(400, weight="moments", rng=0)
    >>> join = join_statistics(sampler.sketch(a), sampler.sketch(b, keys=np.arange(2000, 5000)))
    >>> bool(abs(join.size - 3000) < 4 * join.size_error)
    True
    >>> bool(abs(join.correlation - 0.5**0.5) < 0.2)
    True
    """
    A, B, p, xp = _joined(SA, SB)
    n_common = int(p.shape[0])
    status = status_of(SA, SB, n_common, 0.0)
    if status is Status.CONVERGED and n_common < 3 and not (SA.is_exact and SB.is_exact):
        status = Status.BREAKDOWN
    counts, spread = 1.0 / p, (1.0 - p) / p**2
    size = float(xp.sum(counts))
    with np.errstate(all="ignore"):  # an empty join has no means, and a constant column no correlation: NaN
        (mean_a, Za), (mean_b, Zb) = (_standard(X, counts, size, xp) for X in (A, B))
        r = xp.matmul(Za.T, counts[:, None] * Zb) / size
        # (za zb - r (za^2 + zb^2) / 2)^2, each term a product of matrices
        q = spread[:, None]
        square = xp.matmul((Za**2).T, q * Zb**2)
        fourth_a, fourth_b = (xp.sum(q * Z**4, axis=0) for Z in (Za, Zb))
        cross = xp.matmul((Za**3).T, q * Zb) + xp.matmul(Za.T, q * Zb**3)
        variance = square + r**2 / 4 * (fourth_a[:, None] + 2 * square + fourth_b) - r * cross
        errors = [xp.sqrt(xp.sum(q * (X - mean) ** 2, axis=0)) / size for X, mean in ((A, mean_a), (B, mean_b))]
        r_error = xp.sqrt(xp.where(variance > 0, variance, xp.zeros_like(variance))) / size
    sides = SA.shape[1:], SB.shape[1:]
    result = JoinResult(
        size=size, mean_a=xp.reshape(mean_a, sides[0]), mean_b=xp.reshape(mean_b, sides[1]),
        correlation=xp.reshape(r, sides[0] + sides[1]), size_error=math.sqrt(float(xp.sum(spread))),
        mean_a_error=xp.reshape(errors[0], sides[0]), mean_b_error=xp.reshape(errors[1], sides[1]),
        correlation_error=xp.reshape(r_error, sides[0] + sides[1]), n_common=n_common, status=status,
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="join_statistics")


def join_regression(
    SA: CoordinatedSample, SB: CoordinatedSample, *, alpha: float = 0.0, intercept: bool = True,
    on_failure: str = "warn",
) -> JoinRegressionResult:  # fmt: skip
    """Regress a column of one table on the columns of another over their join, from samples of both.

    Minimises ``sum_i (b_i - a_i x - c)**2 / p_i + alpha ||x||**2`` over the common sampled keys i with their
    probabilities p_i: Gram matrix and right-hand side are both those of the join, estimated from one sample, so the
    Gram matrix is positive semidefinite and tables may overlap in part.

    Parameters
    ----------
    SA : CoordinatedSample
        Sample of the table A (n, d) of features, made with ``weight="moments"``.
    SB : CoordinatedSample
        Sample of the target b (n',), or of several targets (n', m), under the same key.
    alpha : float, alpha >= 0, default 0
        Ridge, in the units of the sum of squares over the whole join.
    intercept : bool, default True
        Whether a constant c is fitted; it is not penalised.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    JoinRegressionResult
        ``coef`` (d,), ``intercept``, ``coef_error`` (d,), ``r_squared``; iterates as ``coef, intercept``.

    Raises
    ------
    TypeError, ValueError
        If the samples cannot meet, have other weights, or `alpha` is negative.

    Notes
    -----
    Solved by the eigenvalues of the Gram matrix in double precision; those below ``max(k, d) eps`` of the largest are
    cut off, for the solution of least norm.  `coef_error` is the sandwich ``H^-1 (sum_i (1 - p_i) / p_i**2 s_i s_i^T)
    H^-1`` with the scores ``s_i = a_i r_i / (1 - h_i)``, the residuals raised by the leverages h_i as in a jackknife.

    For tables with equal keys that can be factored apart, A = U R, sampling the rows of U with weight "l2" and solving
    ``R x = estimate_product(SU, Sb).value`` has a proved bound: the squared residual exceeds the best by at most
    ``2 d / (n_samples - 1) ||b||**2`` in expectation (the sum of squares of an estimated product).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import PrioritySampler, join_regression
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((4000, 3))
    >>> b = A @ [1.0, -2.0, 0.0] + 3 + 0.1 * rng.standard_normal(4000)
    >>> sampler = PrioritySampler(200, weight="moments", rng=0)
    >>> coef, constant = join_regression(sampler.sketch(A), sampler.sketch(b))
    >>> bool(np.allclose(coef, [1, -2, 0], atol=0.1)), bool(abs(constant - 3) < 0.1)
    (True, True)
    """
    alpha = check_real(alpha, "alpha", low=0.0)
    A, B, p, xp = _joined(SA, SB)
    n_common, d = int(p.shape[0]), int(A.shape[1])
    counts, spread = 1.0 / p, (1.0 - p) / p**2
    size = float(xp.sum(counts))
    exact = SA.is_exact and SB.is_exact
    status = status_of(SA, SB, n_common, 0.0)
    if status is Status.CONVERGED and alpha == 0 and not exact and n_common <= d + intercept:
        status = Status.BREAKDOWN
    center_a, center_b = (_means(X, counts if intercept else 0.0 * counts, size, xp) for X in (A, B))
    A, B = A - center_a, B - center_b
    weighted = counts[:, None] * A
    inverse, rank, condition = _inverse(xp.matmul(A.T, weighted), alpha, max(n_common, d), xp)
    coef = xp.matmul(inverse, xp.matmul(weighted.T, B))
    leverage = xp.sum(xp.matmul(A, inverse) * weighted, axis=1) + (counts / size if intercept and size else 0.0)
    # a row that the fit follows wholly tells nothing about its residual; eps keeps the quotient finite
    slack = xp.where(leverage < 1.0 - eps(p.dtype), 1.0 - leverage, xp.full_like(leverage, eps(p.dtype)))
    left_out = (B - xp.matmul(A, coef)) / slack[:, None]
    reach = xp.matmul(A, inverse) ** 2  # squares of the rows H^-1 a_i
    coef_error = xp.sqrt(xp.matmul(reach.T, spread[:, None] * left_out**2))
    with np.errstate(all="ignore"):  # a constant target has no variance to explain: NaN
        totals = xp.sum(counts[:, None] * B**2, axis=0)
        r_squared = 1.0 - xp.sum(counts[:, None] * left_out**2, axis=0) / totals
    targets = SB.shape[1:]
    result = JoinRegressionResult(
        coef=xp.reshape(coef, (d, *targets)), coef_error=xp.reshape(coef_error, (d, *targets)),
        intercept=xp.reshape(center_b - xp.matmul(center_a, coef), targets), r_squared=xp.reshape(r_squared, targets),
        n_join=size, n_common=n_common, rank=rank, condition=condition, status=status,
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="join_regression")


def _joined(SA: CoordinatedSample, SB: CoordinatedSample) -> tuple[Any, Any, Any, Any]:
    check_meeting(SA, SB)
    if SA.weight != "moments":
        raise ValueError(
            f"the samples must have weight='moments' to describe a join, got {SA.weight!r}; "
            "the other weights leave rows of zeros out"
        )
    A, B, p = aligned(SA, SB)
    return dense_rows(A), dense_rows(B), p, namespace_of(p)


def _means(X: Any, counts: Any, size: float, xp: Any) -> Any:
    return xp.sum(counts[:, None] * X, axis=0)[None, :] / (size or 1.0)


def _standard(X: Any, counts: Any, size: float, xp: Any) -> tuple[Any, Any]:
    """Weighted means of the columns, and the columns with mean 0 and variance 1."""
    mean = xp.sum(counts[:, None] * X, axis=0) / (size or math.nan)
    centered = X - mean
    return mean, centered / xp.sqrt(xp.sum(counts[:, None] * centered**2, axis=0) / (size or math.nan))


def _inverse(G: Any, alpha: float, n: int, xp: Any) -> tuple[Any, int, float]:
    """Pseudoinverse of G + alpha I, rank of G, condition on the range."""
    values, vectors = xp.linalg.eigh(G)
    top = float(values[-1]) if values.shape[0] else 0.0
    cut = n * eps(G.dtype) * max(top, 0.0)
    rank = int(xp.sum(xp.astype(values > cut, xp.int64)))
    shifted = xp.where(values > 0, values, xp.zeros_like(values)) + alpha
    usable = shifted > cut
    used = shifted[usable]
    condition = float(used[-1] / used[0]) if used.shape[0] else math.inf
    inverses = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
    return xp.matmul(vectors * inverses, vectors.T), rank, condition
