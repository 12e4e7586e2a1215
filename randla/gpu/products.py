"""Products of a CSR matrix with a dense panel on the GPU: cuSPARSE through CuPy."""

from __future__ import annotations


def _matrix(data, indices, indptr, shape, dtype):
    from cupyx.scipy.sparse import csr_matrix

    return csr_matrix((data.astype(dtype, copy=False), indices, indptr), shape=shape)


def csr_matmul(data, indices, indptr, X, n_rows=None):
    """A @ X for a CSR matrix A with X.shape[0] columns and a dense X; rows i, i + n_rows, ... are one where told."""
    out = _matrix(data, indices, indptr, (len(indptr) - 1, len(X)), X.dtype) @ X
    return out if n_rows is None else out.reshape(-1, n_rows, X.shape[1]).sum(axis=0)


def csr_rmatmul(data, indices, indptr, Y, n_columns):
    """A.T @ Y (no conjugation) for a CSR matrix A with `n_columns` columns and a dense Y."""
    # cuSPARSE multiplies by a transpose with float atomics, whose order varies; rows of the turned matrix are summed
    return _matrix(data, indices, indptr, (len(indptr) - 1, n_columns), Y.dtype).T.tocsr() @ Y
