"""Where alternating least squares starts: biases from means, factors from the sparse residuals or at random."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import device

from .._arrays import check_together, dtype_name, from_host
from .._backend import kernel
from .._random import Key
from ..lowrank.orthonormal import NonfiniteError, orthonormalize, whitened
from ..sampling.selection import tuned
from .als_state import Problem, State, row_sums, sum_squares
from .losses import median, robust_scale
from .observations import Observations
from .results import CompletionResult

_OVERSAMPLES = 5  # columns of the block beyond the rank
_POWER_STEPS = 2  # products with R^T R: one fewer costs a sweep later, one more saves none
_CLIP = 3.0  # scales at which residuals are cut off before a robust fit starts
_SMALL = 1e-2  # of the root mean square of a factor's entries: columns added to factors of a lower rank


def started(problem: Problem, init: str | CompletionResult, key: Key) -> State:
    """The state before the first sweep."""
    if isinstance(init, CompletionResult):
        return _from_result(problem, init, key)
    xp, X = problem.xp, problem.centred
    values = X.data
    if problem.robust and X.nnz:
        top = _CLIP * robust_scale(values - median(values, xp), xp)
        values = xp.clip(values, -top, top)
    row_bias, col_bias, values = _biases(problem, values)
    if init == "random" or X.nnz == 0 or problem.rank == 0:
        row, col = _random(problem, values, key)
    else:
        row, col = _spectral(X if values is X.data else X.with_values(values), problem.rank, key)
    scale = problem.settings.loss_scale
    return State(_joined(row, row_bias, problem), _joined(col, col_bias, problem), scale=scale)


def _joined(factors: Any, bias: Any, problem: Problem) -> Any:
    """Factors beside the biases as entries of a solution."""
    xp, column = problem.xp, problem.settings.column
    if column == 0.0:
        return factors
    return xp.concat([factors, xp.astype(bias / column, factors.dtype)[:, None]], axis=1)


def _biases(problem: Problem, values: Any) -> tuple[Any, Any, Any]:
    """Means of columns, then of rows, drawn to zero as their ridges do; and the values less both."""
    xp, X, column = problem.xp, problem.centred, problem.settings.column
    like = xp.zeros(0, dtype=values.dtype, device=device(values))
    if column == 0.0:
        return like, like, values
    col = _shrunk_means(X.by_columns(values), X.transposed, problem.col_ridge, column, xp)
    values = values - xp.take(xp.astype(col, values.dtype), X.indices)
    row = _shrunk_means(values, X, problem.row_ridge, column, xp)
    rest = values - xp.take(xp.astype(row, values.dtype), X.rows)
    return row, col, rest


def _shrunk_means(values: Any, X: Observations, ridge: Any, column: float, xp: Any) -> Any:
    below = xp.astype(X.row_counts, xp.float64) + ridge / column**2
    return row_sums(values, X.indptr, xp) / xp.where(below > 0, below, xp.ones_like(below))


def _random(problem: Problem, values: Any, key: Key) -> tuple[Any, Any]:
    """No factors of rows, and normal ones of columns whose products are about as large as the values."""
    xp, (m, n), k = problem.xp, problem.fitted.shape, problem.rank
    size = math.sqrt(sum_squares(values, xp) / max(1, int(values.shape[0])))
    width = math.sqrt(size / math.sqrt(max(1, k)))
    rows = xp.zeros((m, k), dtype=values.dtype, device=device(values))
    return rows, width * gaussian(key.fold("columns"), n, k, values, xp)


def gaussian(key: Key, n: int, k: int, like: Any, xp: Any) -> Any:
    """A standard normal table (n, k) on the device of `like`."""
    host = kernel("gaussian_table", xp)(key, 0, n, k, dtype_name(like.dtype))
    return xp.astype(from_host(host, xp, like), like.dtype)


def _spectral(R: Observations, rank: int, key: Key) -> tuple[Any, Any]:
    """Leading singular vectors of the sparse residuals, times the root of what the singular values of all would be.

    Subspace iteration, and the best directions of its last block by the eigenvectors of a small Gram matrix.
    """
    xp, (m, n) = R.xp, R.shape
    width = min(rank + _OVERSAMPLES, m, n)
    Y = gaussian(key.fold("columns"), n, width, R.data, xp)
    try:
        for _ in range(_POWER_STEPS):
            Y = sparse_product(R.transposed, whitened(sparse_product(R, Y)))
        Y = orthonormalize(Y).Q
    except NonfiniteError:
        return xp.zeros((m, rank), dtype=Y.dtype, device=device(Y)), gaussian(key.fold("columns"), n, rank, Y, xp)
    B = sparse_product(R, Y)
    wide = xp.astype(B, xp.float64)
    squares, W = xp.linalg.eigh(xp.matmul(wide.mT, wide))
    order = xp.arange(int(squares.shape[0]) - 1, max(-1, int(squares.shape[0]) - 1 - rank), -1, device=device(Y))
    squares, W = xp.take(squares, order), xp.take(W, order, axis=1)
    s = xp.sqrt(xp.where(squares > 0, squares, xp.zeros_like(squares)))
    share = R.nnz / (m * n)
    root = xp.sqrt(s / share)
    col = xp.matmul(Y, xp.astype(W * root[None, :], Y.dtype))
    inverse = xp.where(s > 0, root / xp.where(s > 0, s, xp.ones_like(s)), xp.zeros_like(s))
    row = xp.matmul(B, xp.astype(W * inverse[None, :], B.dtype))
    return _padded(row, rank, key.fold("rows"), xp), _padded(col, rank, key.fold("more columns"), xp)


def sparse_product(R: Observations, V: Any) -> Any:
    """The sparse matrix times V."""
    xp = R.xp
    if tuned(xp):
        return kernel("csr_matmul", xp)(R.data, R.indices, R.indptr, V)
    # no sparse products there: a system that is the identity has its right-hand side for a solution
    ones = xp.ones(R.shape[0], dtype=xp.float64, device=device(V))
    return kernel("masked_cholesky", xp)(V, R.indices, R.indptr, xp.zeros_like(R.data), R.data, None, ones)[0]


def _padded(factors: Any, rank: int, key: Key, xp: Any) -> Any:
    """Small normal columns added up to the rank: none that is zero on both sides would ever grow."""
    missing = rank - int(factors.shape[1])
    if missing <= 0:
        return factors
    squares = sum_squares(xp.reshape(factors, (-1,)), xp) / max(1, int(factors.shape[0] * factors.shape[1]))
    extra = gaussian(key, int(factors.shape[0]), missing, factors, xp)
    return xp.concat([factors, (_SMALL * math.sqrt(squares) if squares > 0 else _SMALL) * extra], axis=1)


def _from_result(problem: Problem, init: CompletionResult, key: Key) -> State:
    """A result of equal shape and of at most this rank, whose biases and mean need not be of the same kind."""
    xp, X, k = problem.xp, problem.fitted, problem.rank
    if init.shape != X.shape or init.rank > k:
        raise ValueError(
            f"init must have shape {X.shape} and at most rank {k}, got {init.shape} and {init.rank}; "
            "append_rows and append_cols change a shape"
        )
    check_together(init.row_factors, X.data, names=("init", "X"))
    row, col = (xp.astype(F, X.data.dtype) for F in (init.row_factors, init.col_factors))
    row, col = _padded(row, k, key.fold("rows"), xp), _padded(col, k, key.fold("more columns"), xp)
    biases = [
        xp.zeros_like(F[:, 0]) if b is None else b
        for F, b in ((init.row_factors, init.row_bias), (init.col_factors, init.col_bias))
    ]
    biases[1] = biases[1] + (init.mean - problem.mean)
    scale = problem.settings.loss_scale
    return State(_joined(row, biases[0], problem), _joined(col, biases[1], problem), scale=scale)
