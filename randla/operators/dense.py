"""Dense sketches: Gaussian and Rademacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._backend import kernel
from .base import SketchOperator, csr_arrays

TABLE_BYTES = 2**23  # a tile of S beside the GEMM: long enough for its inner dimension, and for threads to share
SPARSE_TABLE_BYTES = 2**26  # for sparse data, where each tile costs a pass over the output


class DenseSketch(SketchOperator):
    """A dense S: tiles of its columns are made beside the GEMM that uses them."""

    def _table(self, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        """Unscaled columns start..stop-1, one per row; shape (stop - start, sketch_size)."""
        raise NotImplementedError

    @property
    def _step(self) -> int:
        return max(64, TABLE_BYTES // (8 * self.sketch_size))

    def _columns(self, start: int, stop: int) -> np.ndarray:
        return self._table(start, stop, np.float64, np).T

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:
        step, real = self._step, A.real.dtype
        for lo in range(0, A.shape[0], step):
            hi = min(lo + step, A.shape[0])
            table = self._table(start + lo, start + hi, real, xp)
            if out.dtype == real:
                out += table.T @ A[lo:hi]
            else:  # a real table meets complex data as twice as many real columns
                out.view(real)[...] += table.T @ A[lo:hi].view(real)
            del table  # before the next one is made: one tile at a time

    def _apply_columns(self, A: Any, start: int, out: Any, xp: Any) -> None:
        step, real = self._step, A.real.dtype
        for lo in range(0, A.shape[1], step):
            hi = min(lo + step, A.shape[1])
            table = self._table(start + lo, start + hi, real, xp)
            if out.dtype == real:
                out += A[:, lo:hi] @ table
            else:
                out.real += A.real[:, lo:hi] @ table
                out.imag += A.imag[:, lo:hi] @ table
            del table

    def _apply_sparse(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        data, indices, indptr = csr_arrays(A.tocsr(), dtype)
        turned = xp.zeros((A.shape[1], self.sketch_size), dtype=dtype)
        step = max(64, SPARSE_TABLE_BYTES // (8 * self.sketch_size))
        for lo in range(0, A.shape[0], step):
            hi = min(lo + step, A.shape[0])
            first, last = int(indptr[lo]), int(indptr[hi])
            table = self._table(start + lo, start + hi, dtype, xp)
            block = data[first:last], indices[first:last], indptr[lo : hi + 1] - first
            turned += kernel("csr_rmatmul", xp)(*block, table, A.shape[1])
            del table
        return turned.T

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        out = xp.empty((stop - start, Y.shape[1]), dtype=Y.dtype)
        step = self._step
        for lo in range(start, stop, step):
            hi = min(lo + step, stop)
            out[lo - start : hi - start] = self._table(lo, hi, Y.dtype, xp) @ Y
        return out


@dataclass(frozen=True)
class Gaussian(DenseSketch):
    """Dense sketch with independent N(0, 1/sketch_size) entries.

    Costs 2 sketch_size m d flops for an (m, d) matrix; entries are made tile by tile beside the GEMM (Box and Muller in
    float32, bit for bit the same on every backend) and never stored.  Use it where constants must be proved or the
    sketch is small; `SparseSign` gives the same distortion at a fraction of the cost.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    n : int, n >= 0
        Columns of S: rows of the matrix that it compresses.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Equal keys give equal matrices on every backend.

    Notes
    -----
    For an orthonormal U with d columns all singular values of S U lie in 1 +- (sqrt(d) + t) / sqrt(sketch_size) with
    probability at least 1 - 2 exp(-t**2 / 2) [1]_.

    References
    ----------
    .. [1] Davidson and Szarek, "Local operator theory, random matrices and Banach spaces", 2001, Theorem II.13.

    Examples
    --------
    >>> import numpy as np, randla
    >>> S = randla.Gaussian(200, 10_000, rng=0)
    >>> (S @ np.ones((10_000, 3))).shape
    (200, 3)
    """

    def _table(self, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        return kernel("gaussian_table", xp)(self.key, start, stop, self.sketch_size, dtype)


@dataclass(frozen=True)
class Rademacher(DenseSketch):
    """Dense sketch with independent entries +-1/sqrt(sketch_size).

    As `Gaussian`, with entries that take one random bit each, so that their making costs next to nothing.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    n : int, n >= 0
        Columns of S.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Notes
    -----
    Preserves the norms of a fixed set of N vectors within 1 +- epsilon with probability at least 1 - N**-beta when
    sketch_size >= (4 + 2 beta) log(N) / (epsilon**2 / 2 - epsilon**3 / 3) [1]_.

    References
    ----------
    .. [1] Achlioptas, "Database-friendly random projections", JCSS 66, 2003, Theorem 1.1.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.Rademacher(64, 1000, rng=0) @ np.ones(1000)).shape
    (64,)
    """

    def _table(self, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        return kernel("rademacher_table", xp)(self.key, start, stop, self.sketch_size, dtype)
