"""Subsampled trigonometric sketches: random signs, a fast transform, again, and a sample of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, floating_dtype, is_sparse, namespace_of
from .._backend import kernel
from .._checks import check_integer
from .._parallel import available_threads
from .._random import Stream
from .base import TILE_BYTES, SketchOperator, is_ready


class TrigonometricSketch(SketchOperator):
    """sqrt(N / sketch_size) P (F D_rounds) ... (F D_1): signs D, an orthonormal transform F of length N, a sample P."""

    rounds: int
    _why_whole: ClassVar[str] = "its transform needs the whole axis; use BlockSRHT, or SparseSign, for blocks of rows"

    @property
    def _length(self) -> int:
        """N, the length of the transform."""
        raise NotImplementedError

    def _check_rounds(self) -> None:
        self._set("rounds", check_integer(self.rounds, "rounds", low=1))
        check_integer(self.n, "n", low=1)
        check_integer(
            self.sketch_size, "sketch_size", low=1, high=self._length, remedy="rows are sampled without repetition"
        )

    @property
    def _bytes_per_column(self) -> int:
        return 8 * self._length

    def _row_step(self, A: Any) -> int:
        return max(A.shape[0], 1)  # the transform takes all rows at once

    def matmul(self, A: Any, *, start: int = 0) -> Any:
        """Return ``S @ A``; a block of rows alone raises NotImplementedError, since the transform needs them all."""
        A = as_matrix(A, name="A", vector=True)
        if check_integer(start, "start", low=0) != 0 or A.shape[0] < self.n:
            raise NotImplementedError(
                f"{type(self).__name__}.matmul takes all {self.n} rows at once: {self._why_whole}"
            )
        return super().matmul(A, start=start)

    def _columns(self, start: int, stop: int) -> np.ndarray:
        units, out = np.zeros((self.n, stop - start)), np.zeros((self.sketch_size, stop - start))
        units[np.arange(start, stop), np.arange(stop - start)] = 1.0
        self._apply_rows(units, 0, out, np)
        return out

    def _apply_columns(self, A: Any, start: int, out: Any, xp: Any) -> None:
        self._apply_rows(A.T, start, out.T, xp)

    def _apply_sparse(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        A = A.tocsc()
        out = xp.zeros((self.sketch_size, A.shape[1]), dtype=dtype)
        step = max(1, TILE_BYTES // self._bytes_per_column)
        for lo in range(0, A.shape[1], step):
            panel = A[:, lo : lo + step].toarray(order="C") if is_sparse(A) else A[:, lo : lo + step]
            self._apply_rows(panel.astype(dtype), start, out[:, lo : lo + step], xp)
        return out

    def _left(self, A: Any, start: int) -> Any:
        xp = namespace_of(A)
        native = not is_sparse(A) and (is_numpy_namespace(xp) or is_cupy_namespace(xp))
        if not native or A.flags.f_contiguous or (A.flags.c_contiguous and is_ready(A, floating_dtype(A, xp))):
            return super()._left(A, start)
        # the transform takes all rows at once: what must be converted comes in panels of columns
        out = xp.empty((self.sketch_size, A.shape[1]), dtype=floating_dtype(A, xp))
        for panel in self._panels(A.shape[1]):
            out[:, panel] = super()._left(A[:, panel], start)
        return out

    def _panels(self, width: int) -> list[slice]:
        step = max(1, TILE_BYTES // self._bytes_per_column)
        return [slice(lo, lo + step) for lo in range(0, width, step)]

    def _sampled_rows(self, xp: Any) -> Any:
        return kernel("distinct_rows", xp)(self.key, self._length, self.sketch_size)


@dataclass(frozen=True)
class SRHT(TrigonometricSketch):
    """Subsampled randomized Walsh-Hadamard transform.

    The n rows are padded with zeros to N, the next power of two.  Costs rounds N d log2(N) additions and three passes
    over a workspace of a few columns; the quality on dense data is that of a Gaussian.  It needs the whole axis, so it
    does not take blocks of rows (`BlockSRHT` does), and it makes sparse data dense.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= N
        Rows of S.
    n : int, n >= 1
        Columns of S: rows of the matrix that it compresses.
    rounds : int, default 2
        Rounds of signs and transform.  One round loses directions on coherent data.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If sketch_size exceeds N, or rounds is less than 1.
    NotImplementedError
        By `matmul` for a block of rows.

    Notes
    -----
    For an orthonormal U with d columns and sketch_size >= 4 (sqrt(d) + sqrt(8 log(d n)))**2 log(d), all singular values
    of S U lie in [0.40, 1.48] with probability at least 1 - 3 / d, already for one round [1]_.  In practice
    sketch_size = 4 d with two rounds gives the distortion of a Gaussian, 1 +- 1/2.

    References
    ----------
    .. [1] Tropp, "Improved analysis of the subsampled randomized Hadamard transform", 2011, Theorem 1.3.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.SRHT(64, 1000, rng=0) @ np.ones((1000, 2))).shape
    (64, 2)
    """

    rounds: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rounds()

    @property
    def _length(self) -> int:
        return 1 << max(self.n - 1, 0).bit_length()

    @property
    def _scale(self) -> float:
        return (self._length / self.sketch_size) ** 0.5 * self._length ** (-0.5 * self.rounds)

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:  # noqa: ARG002  # start is 0 here
        kernel("srht_apply", xp)(self.key, A, self._length, self.rounds, self._sampled_rows(xp), out)

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        out = xp.empty((self.n, Y.shape[1]), dtype=Y.dtype)
        kernel("srht_adjoint", xp)(self.key, Y, self._length, self.rounds, self._sampled_rows(xp), out)
        return out[start:stop]


@dataclass(frozen=True)
class SRCT(TrigonometricSketch):
    """Subsampled randomized cosine transform: as `SRHT`, with the orthonormal DCT-II and without padding.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= n
        Rows of S.
    n : int, n >= 1
        Columns of S: rows of the matrix that it compresses.
    rounds : int, default 2
        Rounds of signs and transform.  One round fails on neighbouring unit vectors, whose cosine transforms are alike.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If sketch_size exceeds n, or rounds is less than 1.
    NotImplementedError
        By `matmul` for a block of rows.

    Notes
    -----
    The guarantee of `SRHT` with a coherence of 2 / n in place of 1 / n for the transform [1]_; measured distortion at
    sketch_size = 4 d on identity columns: 0.52 to 1.50.

    References
    ----------
    .. [1] Avron, Maymounkov and Toledo, "Blendenpik: supercharging LAPACK's least-squares solver", 2010, section 3.2.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.SRCT(64, 1000, rng=0) @ np.ones((1000, 2))).shape
    (64, 2)
    """

    rounds: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rounds()

    @property
    def _length(self) -> int:
        return self.n

    @property
    def _scale(self) -> float:
        return (self.n / self.sketch_size) ** 0.5

    def _signs(self, r: int, dtype: Any, xp: Any) -> Any:
        return kernel("sign_bits", xp)(self.key, Stream.TRIGONOMETRIC_SIGN, r, 0, self.n).astype(dtype)[:, None]

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:  # noqa: ARG002  # start is 0 here
        dct, rows = _fft(xp, "dct"), self._sampled_rows(xp)
        for panel in self._panels(A.shape[1]):
            X = A[:, panel]
            for r in range(self.rounds):
                X = dct(self._signs(r, X.real.dtype, xp) * X, axis=0, norm="ortho", overwrite_x=True)
            out[:, panel] += X[rows]

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        idct, rows = _fft(xp, "idct"), self._sampled_rows(xp)
        out = xp.zeros((self.n, Y.shape[1]), dtype=Y.dtype)
        for panel in self._panels(Y.shape[1]):
            X = xp.zeros_like(out[:, panel])
            X[rows] = Y[:, panel]
            for r in reversed(range(self.rounds)):
                X = self._signs(r, X.real.dtype, xp) * idct(X, axis=0, norm="ortho", overwrite_x=True)
            out[:, panel] = X
        return out[start:stop]


def _fft(xp: Any, name: str) -> Any:
    """The cosine transform of the library that holds the data."""
    if is_cupy_namespace(xp):
        return getattr(import_module("cupyx.scipy.fft"), name)
    transform, workers = getattr(import_module("scipy.fft"), name), available_threads()
    return lambda X, **keywords: transform(X, workers=workers, **keywords)


@dataclass(frozen=True)
class BlockSRHT(SketchOperator):
    """Block-diagonal SRHT for data in blocks of rows: it partitions, and each block is transformed in cache.

    Block b of `block_size` rows goes through its own signs and Walsh-Hadamard rounds; all blocks share one sample of
    transformed rows, whose signs are scrambled once more for each block before the sum.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= block_size
        Rows of S.
    n : int, n >= 0
        Columns of S: rows of the matrix that it compresses.
    block_size : int, a power of two, default the smallest one that is at least max(1024, 2 sketch_size)
        Rows of a block.
    rounds : int, default 2
        Rounds of signs and transform in each block.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If block_size is not a power of two or is less than sketch_size.

    Notes
    -----
    The guarantee of `SRHT` carries over: an epsilon-embedding of d-dimensional subspaces with sketch_size of order
    (d + log(n / delta)) log(d / delta) / epsilon**2 [1]_.

    References
    ----------
    .. [1] Balabanov, Beaupere, Grigori and Lederer, "Block subsampled randomized Hadamard transform for low-rank
       approximation on distributed architectures", ICML 2023, Theorem 2.3.

    Examples
    --------
    >>> import numpy as np, randla
    >>> S = randla.BlockSRHT(64, 5000, rng=0)
    >>> A = np.ones((5000, 2))
    >>> bool(np.allclose(S @ A, S.matmul(A[:1234]) + S.matmul(A[1234:], start=1234)))
    True
    """

    block_size: int | None = field(default=None, kw_only=True)
    rounds: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        default = 1 << (max(1024, 2 * self.sketch_size) - 1).bit_length()
        size = check_integer(
            default if self.block_size is None else self.block_size, "block_size", low=self.sketch_size
        )
        if size & (size - 1):
            raise ValueError(f"block_size must be a power of two, got {size}; take {1 << size.bit_length()}")
        self._set("block_size", size)
        self._set("rounds", check_integer(self.rounds, "rounds", low=1))

    @property
    def _block(self) -> int:
        return self.block_size  # type: ignore[return-value]  # an int after __post_init__

    @property
    def _scale(self) -> float:
        return (self._block / self.sketch_size) ** 0.5 * self._block ** (-0.5 * self.rounds)

    def _sampled_rows(self, xp: Any) -> Any:
        return kernel("distinct_rows", xp)(self.key, self._block, self.sketch_size)

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:
        kernel("block_srht_apply", xp)(self.key, A, start, self._block, self.rounds, self._sampled_rows(xp), out)

    def _apply_columns(self, A: Any, start: int, out: Any, xp: Any) -> None:
        self._apply_rows(A.T, start, out.T, xp)

    def _apply_sparse(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        A = A.tocsr()
        out = xp.zeros((self.sketch_size, A.shape[1]), dtype=dtype)
        step = max(1, TILE_BYTES // (8 * max(A.shape[1], 1) * self._block)) * self._block
        for lo in range(0, A.shape[0], step):
            self._apply_rows(A[lo : lo + step].toarray(order="C").astype(dtype), start + lo, out, xp)
        return out

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        out = xp.empty((stop - start, Y.shape[1]), dtype=Y.dtype)
        kernel("block_srht_adjoint", xp)(self.key, Y, start, self._block, self.rounds, self._sampled_rows(xp), out)
        return out
