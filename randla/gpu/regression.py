"""Both products of a normal equation on the GPU: one read of a row-major matrix for a vector, two for panels.

Panels, sparse and column-major matrices take two products: a block of rows that stays in the second-level cache is read
in less time than its kernels take to start.
"""

from __future__ import annotations

from ._compile import launch
from .products import csr_matmul, csr_rmatmul

MOST_STRIPES = 1024  # thread blocks: about eight for each multiprocessor of a large device
LEAST_ROWS = 64  # of a stripe, so that its sum is little beside its rows
TILE_BYTES, TILE_ROWS = 32_768, (8, 32)  # rows that are read twice, least and most of them; see regression.cu


def _factors(Y, B, weights):
    """What the transposed matrix is multiplied with, and the residual."""
    R = Y if B is None else B - Y
    return R if weights is None else weights[:, None] * R, R


def _squares(weighted, R):
    import cupy

    return (weighted.astype(cupy.float64) * R.astype(cupy.float64)).sum(axis=0)


def _sweep(A, x, b, weights):
    """The sums of A.T @ factors and of the squares over all stripes; all vectors are of the dtype of A."""
    import cupy

    m, n = A.shape
    height = max(LEAST_ROWS, -(-m // MOST_STRIPES))
    count = -(-m // height)
    sums, squares = cupy.empty((count, n), A.dtype), cupy.empty(count, cupy.float64)
    none = cupy.empty(0, A.dtype)
    tile = min(TILE_ROWS[1], max(TILE_ROWS[0], TILE_BYTES // (n * A.dtype.itemsize)))
    launch(
        "regression", "normal_sweep", count, m, n, height, tile, int(b is not None), int(weights is not None),
        A, x, none if b is None else b, none if weights is None else weights, sums, squares,
        dtype=A.dtype, per_block=1,
    )  # fmt: skip
    return sums.sum(axis=0), squares.sum()


def _run(A, X, B, weights):
    import cupy

    X, B, weights = (None if part is None else cupy.ascontiguousarray(part, dtype=A.dtype) for part in (X, B, weights))
    if X.shape[1] == 1 and A.size > 0 and A.flags.c_contiguous:
        g, squares = _sweep(A, X.ravel(), None if B is None else B.ravel(), weights)
        return g.reshape(-1, 1), squares.reshape(1)
    weighted, R = _factors(A @ X, B, weights)
    return A.T @ weighted, None if B is None else _squares(weighted, R)


def normal_products(A, X, weights):
    """A.T @ diag(weights) @ A @ X for a real dense A (m, n); `weights` is (m,) or None."""
    return _run(A, X, None, weights)[0]


def normal_residual(A, X, B, weights):
    """A.T @ diag(weights) @ R for R = B - A @ X, and the column sums of weights * R**2 in float64."""
    return _run(A, X, B, weights)


def csr_normal_products(data, indices, indptr, X, weights):
    """`normal_products` for a CSR matrix with X.shape[0] columns."""
    weighted, _ = _factors(csr_matmul(data, indices, indptr, X), None, weights)
    return csr_rmatmul(data, indices, indptr, weighted, len(X))


def csr_normal_residual(data, indices, indptr, X, B, weights):
    """`normal_residual` for a CSR matrix with X.shape[0] columns."""
    weighted, R = _factors(csr_matmul(data, indices, indptr, X), B, weights)
    return csr_rmatmul(data, indices, indptr, weighted, len(X)), _squares(weighted, R)
