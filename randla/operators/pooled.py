"""The balanced Gaussian-pooled Hadamard sketch: every transformed row is used, none is sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._backend import kernel
from .._checks import check_integer
from .._random import Key, Stream
from .trigonometric import TrigonometricSketch

FEISTEL_ROUNDS = 10  # as in the kernel `distinct_rows`
MAX_LENGTH = 2**32  # of the transform: times a sketch_size of at most 2**30 it stays in 63 bits


@dataclass(frozen=True)
class GaussianPooledHadamard(TrigonometricSketch):
    """Balanced Gaussian-pooled Walsh-Hadamard transform: the sketch with a proved coordinate-wise guarantee.

    The n rows get random signs, are padded with zeros to N, a power of two, and transformed; the N transformed rows are
    permuted, multiplied by independent N(0, 1) numbers, and sums of consecutive blocks of them are the rows of S A.
    Costs N d log2(N) additions and 2 N d flops for d columns and a workspace of a few columns, two to three times the
    price of `SRHT`; it needs the whole axis and makes sparse data dense, as that one.  Take it where single coordinates
    of a sketched least-squares solution count and a proof is wanted; in practice `SRHT` errs as little.

    Parameters
    ----------
    sketch_size : int, sketch_size >= 1
        Rows of S.
    n : int, n >= 1
        Columns of S: rows of the matrix that it compresses.
    block_size : int, block_size >= 1, default ceil(n / sketch_size)
        Least number of transformed rows that are pooled into one.  N is the power of two next to
        ``max(n, sketch_size * block_size)``.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If a size is out of range, or N would exceed 2**32.
    NotImplementedError
        By `matmul` for a block of rows.

    Notes
    -----
    For A (n, d) of full column rank let x solve min ||A x - b|| and x' the sketched problem.  With sketch_size of order
    d log(d / delta) / epsilon**2 all coordinates satisfy ||x' - x||_inf <= epsilon / sqrt(d) ||A x - b|| ||pinv(A)||
    with probability 1 - delta [1]_ (Theorem 10.1), and S is an epsilon-embedding of d dimensions with sketch_size of
    order (d + log(1 / delta)) / epsilon**2 (Proposition 8.3).  Both ask for a block_size of order d**2 up to
    logarithms, so N of order d**3 / epsilon**2; `block_size` exposes it, and the default is the practical one.

    Deviations from [1]_ (Definition 4.1):

    1. sketch_size is not rounded up to a power of two: the N permuted rows fall into sketch_size blocks whose sizes
       differ by at most one.  E[S.T @ S] = I holds for any partition, since distinct Gaussians are uncorrelated.  For a
       sketch_size and a block_size that are powers of two, S is that of the paper.
    2. The permutation is ten Feistel rounds, pseudorandom in place of uniform.

    References
    ----------
    .. [1] Song and Zhang, "Hadamard flattening and Gaussian pooling sketch for least squares with coordinate-wise
       guarantee", 2026.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.operators import GaussianPooledHadamard
    >>> (GaussianPooledHadamard(64, 1000, rng=0) @ np.ones((1000, 2))).shape
    (64, 2)
    """

    block_size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self.n, "n", low=1)
        size = -(-self.n // self.sketch_size) if self.block_size is None else self.block_size
        self._set("block_size", check_integer(size, "block_size", low=1))
        check_integer(
            max(self.n, self.sketch_size * self._block), "max(n, sketch_size * block_size)", low=1, high=MAX_LENGTH
        )

    @property
    def _block(self) -> int:
        return self.block_size  # type: ignore[return-value]  # an int after __post_init__

    @property
    def _length(self) -> int:
        return 1 << (max(self.n, self.sketch_size * self._block) - 1).bit_length()

    @property
    def _scale(self) -> float:
        return self._length**-0.5

    @property
    def _bytes_per_column(self) -> int:
        return 16 * self._length  # a column after the transform, beside the workspace of the transform

    def _pools(self, dtype: Any, xp: Any) -> tuple[Any, Any, Any]:
        """Weights, transformed rows and pointers: the pooling as a CSR matrix of shape (sketch_size, N)."""
        N, per_index = self._length, 4  # a Philox block makes four normals
        weights = kernel("gaussian_table", xp)(self.key.fold("pool"), 0, -(-N // per_index), per_index, dtype)
        edges = xp.arange(self.sketch_size + 1, dtype=xp.int64) * N // self.sketch_size
        return weights.reshape(-1)[:N], permutation(self.key, N, xp), edges

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:  # noqa: ARG002  # start is 0 here
        pools, everything = self._pools(out.dtype, xp), xp.arange(self._length, dtype=xp.int64)
        for panel in self._panels(A.shape[1]):
            X = xp.empty((self._length, A[:, panel].shape[1]), dtype=out.dtype)
            kernel("srht_apply", xp)(self.key, A[:, panel], self._length, 1, everything, X)
            out[:, panel] += kernel("csr_matmul", xp)(*pools, X)

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        out, everything = xp.empty((self.n, Y.shape[1]), dtype=Y.dtype), xp.arange(self._length, dtype=xp.int64)
        weights, rows, edges = self._pools(Y.real.dtype, xp)
        pool = xp.searchsorted(edges, everything, side="right") - 1
        for panel in self._panels(Y.shape[1]):
            X = xp.empty((self._length, Y[:, panel].shape[1]), dtype=Y.dtype)
            X[rows] = weights[:, None] * Y[:, panel][pool]
            part = xp.empty((self.n, X.shape[1]), dtype=Y.dtype)
            kernel("srht_adjoint", xp)(self.key, X, self._length, 1, everything, part)
            out[:, panel] = part
        return out[start:stop]


def permutation(key: Key, n: int, xp: Any) -> Any:
    """A pseudorandom permutation of range(n), n a power of two; int64 (n,).

    The Feistel network of the kernel `distinct_rows` on numbers of 2h bits, from a table of all its round functions
    (2**h entries for each round); what exceeds n, if 2h is one bit too many, is left out.
    """
    h = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << h) - 1
    table = kernel("philox_words", xp)(key, Stream.PERMUTATION, 0, 1 << h, FEISTEL_ROUNDS)[:, ::4].astype(xp.int64)
    index = xp.arange(1 << 2 * h, dtype=xp.int64)
    left, right = index >> h, index & mask
    for r in range(FEISTEL_ROUNDS):
        left, right = right, left ^ (table[:, r] & mask)[right]
    value = (left << h) | right
    return value[value < n]
