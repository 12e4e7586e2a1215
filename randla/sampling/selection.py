"""Which rows a coordinated sample keeps: weights, thresholds, and the samples' arithmetic on rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device, is_cupy_namespace, is_numpy_namespace

from .._arrays import from_host, is_sparse, namespace_of, to_host
from .._backend import kernel
from .._random import Key, Stream

KINDS = ("priority", "threshold")
#: Names of the weights; the last is a joint sample for the weights 1, ||a||^2 and ||a||^4.
WEIGHTS = ("l2", "l1", "uniform", "moments")


def tuned(xp: Any) -> bool:
    """True for NumPy and CuPy, which have kernels, partial sorting and sparse matrices."""
    return is_numpy_namespace(xp) or is_cupy_namespace(xp)


def shared_uniforms(key: Key, numbers: Any, xp: Any, stream: int = Stream.COORDINATED) -> Any:
    """The uniform of each row key: the same for every party."""
    draw = kernel("uniforms_at", xp)
    return draw(key, stream, numbers) if tuned(xp) else from_host(draw(key, stream, to_host(numbers)), xp, numbers)


def power_sums(A: Any, power: int, xp: Any) -> Any:
    """Sums of |a|**power over the rows of a dense matrix or a CSR matrix without repeated entries; float64."""
    if is_sparse(A):
        return kernel("csr_row_power_sums", xp)(A.data, A.indptr, power)
    if tuned(xp):
        return kernel("row_power_sums", xp)(A, power)
    wide = xp.abs(xp.astype(A, xp.float64))
    return xp.sum(wide * wide if power == 2 else wide, axis=1)


def row_weights(A: Any, weight: str, xp: Any) -> tuple[list[Any], float, int]:
    """The weights of each row, the squared Frobenius norm, and how many rows are not finite (their weight is 0)."""
    squares = power_sums(A, 2, xp)
    if weight == "l2":
        weights = [squares]
    elif weight == "l1":
        weights = [power_sums(A, 1, xp)]
    elif weight == "uniform":
        weights = [xp.astype(squares != 0, xp.float64)]
    else:
        with np.errstate(over="ignore"):
            weights = [xp.ones_like(squares), squares, squares * squares]
    squared_norm, n_nonfinite = float(xp.sum(squares)), 0
    if not (math.isfinite(squared_norm) and (weight in ("l2", "uniform") or math.isfinite(float(xp.sum(weights[-1]))))):
        good = xp.isfinite(squares) & xp.isfinite(weights[-1])
        n_nonfinite = int(good.shape[0]) - int(xp.sum(xp.astype(good, xp.int64)))
        nothing = xp.zeros_like(squares)
        weights = [xp.where(good, w, nothing) for w in weights]
        squared_norm = float(xp.sum(xp.where(good, squares, nothing)))
    return weights, squared_norm, n_nonfinite


def ranks(u: Any, weight: Any) -> Any:
    """u / weight: infinity where the weight is 0, since u never is, so that such rows are never kept."""
    with np.errstate(divide="ignore", over="ignore"):
        return u / weight


def priority_threshold(known: Any, n_samples: int, xp: Any) -> float:
    """The (n_samples + 1)-st smallest rank, infinity if there are fewer.

    The n_samples-th, with the row that has it kept, would make every estimate too large.
    """
    if known.shape[0] <= n_samples:
        return math.inf
    part = known[: known.shape[0] // 16]
    if tuned(xp) and part.shape[0] > n_samples:
        # the rank looked for is at most that of a part, which spares the partition of all
        known = known[known <= xp.partition(part, n_samples)[n_samples]]
    ordered = xp.partition(known, n_samples) if tuned(xp) else xp.sort(known, stable=False)
    return float(ordered[n_samples])


def poisson_threshold(weight: Any, dropped: float, n_samples: int, xp: Any) -> float:
    """The c with sum(min(1, c w)) = n_samples over the given weights and the rows dropped before, of weight `dropped`.

    Rows that were dropped had c w < 1, and c falls as rows join, so their sum is all that is needed of them.
    """
    positive = weight > 0
    if not bool(xp.all(positive)):
        weight = weight[positive]
    n = int(weight.shape[0])
    if dropped == 0 and n <= n_samples:
        return math.inf
    n_top, light = min(n, n_samples), dropped
    if n_top < n:
        parted = xp.partition(weight, n - n_top) if tuned(xp) else xp.sort(weight, stable=False)
        light, weight = dropped + float(xp.sum(parted[: n - n_top])), parted[n - n_top :]
    top = xp.sort(weight, stable=False)
    # entry r: the rows above the r-th of `top` are kept with certainty, the others share what is left of n_samples
    left = xp.astype(xp.arange(n_top, device=device(top)), xp.float64) + float(n_samples - n_top + 1)
    levels = left / (xp.cumulative_sum(top) + light)
    fits = xp.nonzero(levels * top <= 1.0)[0]
    return float(levels[fits[-1]]) if fits.shape[0] else (n_samples - n_top) / light


def kept_mask(rank_columns: list[Any], thresholds: tuple[float, ...]) -> Any:
    """Rows of which one rank lies strictly below its threshold."""
    mask = rank_columns[0] < thresholds[0]
    for rank, threshold in zip(rank_columns[1:], thresholds[1:], strict=True):
        mask = mask | (rank < threshold)
    return mask


def inclusion(weights: list[Any], thresholds: tuple[float, ...], xp: Any) -> Any:
    """Probability min(1, max_j t_j w_j) with which each kept row was to be kept, given the others."""
    level = xp.zeros_like(weights[0])
    for weight, threshold in zip(weights, thresholds, strict=True):
        # an infinite threshold keeps all rows of positive weight; min keeps 0 * inf and overflow out
        share = xp.astype(weight > 0, xp.float64) if math.isinf(threshold) else weight * threshold
        level = xp.where(share > level, share, level)
    return xp.where(level < 1.0, level, xp.ones_like(level))


# --- rows, dense or CSR -----------------------------------------------------------------------------------------------


def take_rows(A: Any, index: Any, xp: Any) -> Any:
    """A C-contiguous copy of some rows."""
    return A[index] if is_sparse(A) else xp.take(A, index, axis=0)


def scale_rows(A: Any, factors: Any, xp: Any) -> Any:
    """diag(factors) @ A in the dtype of A."""
    if not is_sparse(A):
        return A * xp.astype(factors, A.dtype)[:, None]
    owner = xp.searchsorted(A.indptr[1:], xp.arange(A.data.shape[0], dtype=A.indptr.dtype), side="right")
    return type(A)((A.data * factors.astype(A.dtype)[owner], A.indices, A.indptr), shape=A.shape)


def stack_rows(A: Any, B: Any, xp: Any) -> Any:
    """The rows of A, then those of B."""
    if not is_sparse(A):
        return xp.concat([A, B], axis=0)
    parts = [xp.concat([getattr(A, name), getattr(B, name)]) for name in ("data", "indices")]
    indptr = xp.concat([A.indptr, B.indptr[1:] + A.indptr[-1]])
    return type(A)((*parts, indptr), shape=(A.shape[0] + B.shape[0], A.shape[1]))


def outer_sum(A: Any, B: Any) -> Any:
    """A.T @ B for any mixture of dense and CSR; CSR if both are."""
    if is_sparse(B) and not is_sparse(A):
        return (B.T @ A).T
    if is_sparse(A):
        product = A.T @ B
        return product.tocsr() if is_sparse(product) else product
    return namespace_of(A).matmul(A.T, B)


def dense_rows(A: Any) -> Any:
    """A as a dense float64 matrix: for the few rows of a sample."""
    A = A.toarray() if is_sparse(A) else A
    xp = namespace_of(A)
    return xp.astype(A, xp.float64)
