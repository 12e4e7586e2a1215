"""Approximate matrix products: sampling or sketching of the inner dimension, with the error beside the product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import as_matrix, check_together, dtype_name, floating_dtype, from_host, is_complex, is_sparse
from .._arrays import namespace_of as _namespace_of
from .._checks import check_choice, check_integer
from .._random import Key, as_key
from .._results import Result, Status
from ..operators import CountSketch, SparseSign
from .coordinated import PrioritySampler, estimate_product
from .selection import (
    inclusion,
    kept_mask,
    outer_sum,
    poisson_threshold,
    power_sums,
    ranks,
    scale_rows,
    shared_uniforms,
    take_rows,
)

METHODS = ("auto", "row-norm", "coordinated", "countsketch", "sparse-sign", "exact")
NONZEROS = 8  # of a column of the sparse sign sketch: its error does not depend on them, its tails do


@dataclass(frozen=True, repr=False)
class MatmulResult(Result):
    """An approximate product A @ B; iterates as ``value,``.

    Attributes
    ----------
    value : array or CSR matrix, shape (m, p)
        Unbiased estimate of A @ B; CSR if both factors are and rows were sampled.
    standard_error : float
        Root of the expected squared error in Frobenius norm: exact for "row-norm" and "exact", else estimated.
    n_terms : int
        Rank-one terms that were summed, or rows of the sketch.
    method : str
        The method that was used.
    reason : str
        Why, if the choice was left to the function.
    status : Status
        NONFINITE if the factors are not finite, BREAKDOWN if coordinated samples had nothing in common.
    """

    _factors = ("value",)
    value: Any
    standard_error: float
    n_terms: int
    method: str
    reason: str
    status: Status

    def __repr__(self) -> str:
        return " ".join(super().__repr__().split())


def matmul_approx(A: Any, B: Any, n_samples: int, *, method: str = "auto", rng: Any = None) -> MatmulResult:
    """Estimate the product A @ B from `n_samples` of its inner dimension.

    ``A @ B = sum_i A[:, i] B[i, :]`` is a sum of n rank-one terms, of which a weighted sample is computed (or a sketch
    of the inner axis): about ``n_samples m p`` multiplications in place of ``n m p``, and one pass over both factors.
    Use `PrioritySampler` and `estimate_product` for factors that are not in one place.

    Parameters
    ----------
    A : array or CSR or CSC matrix, shape (m, n)
        Left factor, real.
    B : array or CSR or CSC matrix, shape (n, p)
        Right factor, real, of the same library and device.
    n_samples : int, at least 1
        Terms to compute (expected number for "row-norm"), or rows of the sketch.
    method : {"auto", "row-norm", "coordinated", "countsketch", "sparse-sign", "exact"}, default "auto"
        "row-norm" keeps term i with probability proportional to ``||A[:, i]|| ||B[i, :]||``, which has the least
        expected error of all independent samples of that size; "coordinated" samples each factor by its own norms;
        "countsketch" and "sparse-sign" multiply sketches of both.  "auto" computes the product exactly if
        `n_samples` reaches the number of terms that are not zero, and takes "row-norm" otherwise.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sample.  See :ref:`random`.

    Returns
    -------
    MatmulResult
        ``value`` (m, p), ``standard_error``, ``n_terms``, ``method``, ``reason``, ``status``.

    Raises
    ------
    TypeError, ValueError
        If the factors do not fit, are not real, or a parameter is out of range.

    Notes
    -----
    All methods are unbiased.  Expected squared errors in Frobenius norm, k = n_samples:

    * row-norm: ``sum_i (1 - p_i) / p_i ||A_i||**2 ||B_i||**2 <= (sum_i ||A_i|| ||B_i||)**2 / k``, which by Cauchy and
      Schwarz is at most ``||A||_F**2 ||B||_F**2 / k`` ([1]_ for sampling with repetition, whose error is larger);
    * coordinated: at most ``2 / (k - 1) ||A||_F**2 ||B||_F**2``;
    * sketches: ``(||A||_F**2 ||B||_F**2 + ||A B||_F**2 - 2 sum_i ||A_i||**2 ||B_i||**2) / k``, near the bound whatever
      the overlap of the factors.

    So with both factors at hand "row-norm" has never much more than the error of a sketch, and far less where large
    columns of A do not meet large rows of B.

    References
    ----------
    .. [1] Drineas, Kannan and Mahoney, "Fast Monte Carlo algorithms for matrices I: approximating matrix
       multiplication", SIAM J. Comput. 36 (2006).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import matmul_approx
    >>> A = np.outer(np.ones(3), 0.9 ** np.arange(500)) + 0.01
    >>> result = matmul_approx(A, A.T, 100, rng=0)
    >>> result.method, bool(np.linalg.norm(result.value - A @ A.T) < 4 * result.standard_error)
    ('row-norm', True)
    """
    A, B = (as_matrix(X, name=name) for X, name in ((A, "A"), (B, "B")))
    n_samples = check_integer(n_samples, "n_samples", low=1, high=2**62)
    check_choice(method, "method", METHODS)
    key = as_key(rng).fold("matmul_approx")
    check_together(A, B, names=("A", "B"))
    if A.shape[1] != B.shape[0]:
        raise ValueError(f"B must have {A.shape[1]} rows to be multiplied by A, got shape {tuple(B.shape)}")
    xp = _namespace_of(A)
    for X, name in ((A, "A"), (B, "B")):
        if is_complex(X.dtype):
            raise ValueError(f"{name} must be real, got a complex dtype; multiply real and imaginary parts apart")
    wide = "float64" in (dtype_name(floating_dtype(X, xp)) for X in (A, B))
    left, right = (_floating(X, xp.float64 if wide else xp.float32, xp) for X in (A.T, B))
    squares = power_sums(left, 2, xp), power_sums(right, 2, xp)
    reason = "asked for"
    if method == "auto":
        method, reason = _choice(squares, n_samples, xp)
    value, error, n_terms, status = _product(method, left, right, squares, n_samples, key)
    if not math.isfinite(error):
        status = Status.NONFINITE
    return MatmulResult(value, error, n_terms, method, reason, status)


def _floating(X: Any, dtype: Any, xp: Any) -> Any:
    if not is_sparse(X):
        return xp.astype(X, dtype, copy=False)
    X = X.tocsr()
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X if dtype_name(X.dtype) == dtype_name(dtype) else X.astype(dtype)


def _choice(squares: tuple[Any, Any], n_samples: int, xp: Any) -> tuple[str, str]:
    left, right = squares
    n_terms = int(xp.sum(xp.astype((left > 0) & (right > 0), xp.int64)))
    if n_samples >= n_terms:
        return "exact", f"n_samples={n_samples} holds all {n_terms} terms that are not zero"
    norms = xp.sqrt(left) * xp.sqrt(right)
    sampled = float(xp.sum(norms)) / math.sqrt(n_samples)
    sketched = math.sqrt(float(xp.sum(left)) * float(xp.sum(right)) / n_samples)
    return "row-norm", f"the error is at most {sampled:.3g}, that of a sketch of as many rows about {sketched:.3g}"


def _product(
    method: str, left: Any, right: Any, squares: tuple[Any, Any], n_samples: int, key: Key
) -> tuple[Any, float, int, Status]:
    """The product left.T @ right, its error, the terms that were used, and how it went."""
    if method == "exact":
        return _exact(left, right, squares)
    if method == "row-norm":
        return _row_norm(left, right, squares, n_samples, key.fold(method))
    if method == "coordinated":
        return _coordinated(left, right, n_samples, key.fold(method))
    n = int(left.shape[0])
    if method == "countsketch":
        return _sketched(CountSketch(n_samples, n, rng=key.fold(method)), left, right, squares)
    S = SparseSign(n_samples, n, nnz=min(NONZEROS, n_samples), rng=key.fold(method))
    return _sketched(S, left, right, squares)


def _exact(left: Any, right: Any, squares: tuple[Any, Any]) -> tuple[Any, float, int, Status]:
    xp = _namespace_of(left)
    error = 0.0 if math.isfinite(float(xp.sum(squares[0]) + xp.sum(squares[1]))) else math.nan
    return outer_sum(left, right), error, int(left.shape[0]), Status.CONVERGED


def _row_norm(
    left: Any, right: Any, squares: tuple[Any, Any], n_samples: int, key: Key
) -> tuple[Any, float, int, Status]:
    xp = _namespace_of(left)
    norms = xp.sqrt(squares[0]) * xp.sqrt(squares[1])
    if not math.isfinite(float(xp.sum(norms))):
        nothing = outer_sum(take_rows(left, _numbers(0, left, xp), xp), take_rows(right, _numbers(0, left, xp), xp))
        return nothing * math.nan, math.nan, 0, Status.NONFINITE
    threshold = poisson_threshold(norms, 0.0, n_samples, xp)
    u = shared_uniforms(key, _numbers(int(left.shape[0]), left, xp), xp)
    index = xp.nonzero(kept_mask([ranks(u, norms)], (threshold,)))[0]
    p = inclusion([norms], (threshold,), xp)
    likely = xp.where(p > 0, p, xp.ones_like(p))  # terms of probability 0 are 0
    error = math.sqrt(float(xp.sum((1.0 - likely) / likely * norms**2)))
    scaled = scale_rows(take_rows(right, index, xp), 1.0 / xp.take(p, index), xp)
    return outer_sum(take_rows(left, index, xp), scaled), error, int(index.shape[0]), Status.CONVERGED


def _numbers(n: int, like: Any, xp: Any) -> Any:
    return from_host(np.arange(n, dtype=np.int64), xp, like.data if is_sparse(like) else like)


def _coordinated(left: Any, right: Any, n_samples: int, key: Key) -> tuple[Any, float, int, Status]:
    sampler = PrioritySampler(n_samples, rng=key)
    result = estimate_product(sampler.sketch(left), sampler.sketch(right), on_failure="ignore")
    return result.value, result.standard_error, result.n_common, result.status


def _sketched(S: Any, left: Any, right: Any, squares: tuple[Any, Any]) -> tuple[Any, float, int, Status]:
    value = outer_sum(S @ left, S @ right)
    xp = _namespace_of(value)
    one, two = (float(xp.sum(s)) for s in squares)
    # E||value||^2 = ||A B||^2 + V and k V = ||A||^2 ||B||^2 + ||A B||^2 - 2 sum_i ... give V without bias
    fixed = one * two - 2.0 * float(xp.sum(squares[0] * squares[1]))
    total = float(xp.sum(power_sums(value, 2, xp)))
    error = math.sqrt(max(fixed + total, 0.0) / (S.sketch_size + 1)) if math.isfinite(fixed + total) else math.nan
    return value, error, S.sketch_size, Status.CONVERGED
