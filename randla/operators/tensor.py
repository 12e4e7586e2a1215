"""Sketches with the structure of a Kronecker product: they meet the factors, and the product is never made.

Every operator here is a tree.  A leaf sketches one factor, ``L_k`` of shape (sketch_size, N_k); a node merges two
sketches column by column into the sketch of their Kronecker product.  `KhatriRao` and `KroneckerSRHT` merge all modes
at once; `TensorSketch` and `TensorSRHT` merge neighbours, level by level, and sketch anew before each merge, so that
their variance grows linearly with the order instead of exponentially.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

from array_api_compat import device

from .._arrays import as_matrix, check_together, floating_dtype, is_complex, namespace_of
from .._backend import kernel
from .._checks import check_choice, check_integer
from .._random import Key, Stream
from .base import TILE_BYTES, SketchOperator
from .dense import DenseSketch, Gaussian, Rademacher
from .sparse import CountSketch, SparseSketch
from .trigonometric import SRHT

MERGE_BYTES = 2**22  # of a sketch of columns that is merged at a time: its transforms stay near the cache


class TensorOperator(SketchOperator):
    """What the four kinds share: modes, the tree, and products with factors."""

    shapes: tuple[int, ...]

    def _check_modes(self) -> None:
        try:
            shapes = tuple(check_integer(N, "each of shapes", low=1, high=2**32) for N in self.shapes)
        except TypeError as error:
            if "each of shapes" in str(error):
                raise
            raise TypeError(f"shapes must be a sequence of at least two integers, got {self.shapes!r}") from None
        if len(shapes) < 2:
            raise ValueError(f"shapes must name at least two modes, got {shapes}; one mode needs no tensor sketch")
        self._set("shapes", shapes)
        self._set("n", math.prod(shapes))

    # --- the tree --------------------------------------------------------------------------------------------------

    def _leaf(self, key: Key, n: int) -> SketchOperator:
        """The isotropic sketch of one mode, of shape (sketch_size, n)."""
        raise NotImplementedError

    def _merge(self, Y: Any, Z: Any, xp: Any) -> Any:  # noqa: ARG002  # for the one that transforms
        """Sketch of x (x) y from those of x and of y, along the last axis; other axes are broadcast."""
        return self.sketch_size**0.5 * Y * Z

    def _tree(self, meet: Callable[[SketchOperator, Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
        """Merge neighbours, level by level; an odd one waits for the next level.

        `meet(leaf, part)` sketches a part, which is the number of a mode or what `merge` has returned.
        """
        parts: list[Any] = list(range(len(self.shapes)))
        level = 0
        while len(parts) > 1:
            key, merged = self.key.fold(f"level {level}"), []
            for p in range(0, len(parts) - 1, 2):
                sizes = [self.shapes[part] if isinstance(part, int) else self.sketch_size for part in parts[p : p + 2]]
                pair = [meet(self._leaf(key.fold(p + i), sizes[i]), parts[p + i]) for i in (0, 1)]
                merged.append(merge(*pair))
            parts = merged + parts[2 * len(merged) :]
            level += 1
        return parts[0]

    # --- products with factors -------------------------------------------------------------------------------------

    def apply_factors(self, factors: Sequence[Any]) -> Any:
        """Return S times the columnwise Kronecker (Khatri-Rao) product of the factors, without forming it.

        Parameters
        ----------
        factors : sequence of arrays or CSR or CSC matrices, shape (N_k, c) or (N_k,) each
            One for each of `shapes`, in that order: column j of the product is
            ``np.kron(factors[0][:, j], np.kron(factors[1][:, j], ...))``.

        Returns
        -------
        array, shape (sketch_size, c) or (sketch_size,)
            In the namespace and on the device of the factors, in their common floating dtype.

        Raises
        ------
        ValueError
            If the number of factors, their rows or columns, or their libraries or devices do not fit.
        TypeError
            If a factor is not numeric.
        """
        arrays, dtype, xp = self._intake(factors)
        vectors = arrays[0].ndim == 1
        if any((X.ndim == 1) != vectors or (not vectors and X.shape[1] != arrays[0].shape[1]) for X in arrays):
            raise ValueError(
                f"factors must have equal numbers of columns, got shapes {[tuple(X.shape) for X in arrays]}; "
                "use apply_kronecker for the Kronecker product of matrices"
            )
        if vectors:
            arrays = [X[:, None] for X in arrays]
        c = int(arrays[0].shape[1])
        out = xp.empty((c, self.sketch_size), dtype=dtype, device=_place(arrays[0]))
        step = max(1, MERGE_BYTES // (8 * self.sketch_size))
        for lo in range(0, c, step):
            hi = min(lo + step, c)
            panel = [X[:, lo:hi] for X in arrays] if hi - lo < c else arrays
            meet = partial(_sketched, arrays=panel, dtype=dtype, xp=xp)
            out[lo:hi, :] = self._tree(meet, partial(self._merge, xp=xp))
        return out[0, :] if vectors else xp.matrix_transpose(out)

    def apply_kronecker(self, factors: Sequence[Any]) -> Any:
        """Return ``S @ np.kron(factors[0], np.kron(factors[1], ...))`` without forming the Kronecker product.

        Parameters
        ----------
        factors : sequence of arrays or CSR or CSC matrices, shape (N_k, c_k) each
            One for each of `shapes`, in that order.

        Returns
        -------
        array, shape (sketch_size, prod(c_k))
            Columns in the order of `np.kron`.

        Raises
        ------
        ValueError, TypeError
            As `apply_factors`, without the condition on the columns.
        """
        arrays, dtype, xp = self._intake(factors)
        if any(X.ndim != 2 for X in arrays):
            raise ValueError(f"factors must be 2-D, got shapes {[tuple(X.shape) for X in arrays]}; use apply_factors")

        def merge(Y: Any, Z: Any) -> Any:
            return xp.reshape(self._merge(Y[:, None, :], Z[None, :, :], xp), (-1, self.sketch_size))

        out = self._tree(partial(_sketched, arrays=arrays, dtype=dtype, xp=xp), merge)
        return xp.matrix_transpose(out)

    def _intake(self, factors: Sequence[Any]) -> tuple[list[Any], Any, Any]:
        if not isinstance(factors, (list, tuple)):
            raise TypeError(f"factors must be a list or tuple of arrays, got {type(factors).__name__}")
        if len(factors) != len(self.shapes):
            raise ValueError(f"factors must hold one array for each of shapes={self.shapes}, got {len(factors)}")
        arrays = [as_matrix(X, name=f"factors[{k}]", vector=True) for k, X in enumerate(factors)]
        for k, X in enumerate(arrays):
            if X.shape[0] != self.shapes[k]:
                raise ValueError(
                    f"factors[{k}] must have {self.shapes[k]} rows to meet shapes={self.shapes}, "
                    f"got shape {tuple(X.shape)}"
                )
            check_together(arrays[0], X, names=("factors[0]", f"factors[{k}]"))
        xp = namespace_of(arrays[0])
        return arrays, reduce(xp.result_type, [floating_dtype(X, xp) for X in arrays]), xp


def _sketched(leaf: SketchOperator, part: Any, *, arrays: Sequence[Any], dtype: Any, xp: Any) -> Any:
    """The sketch of a mode, or of what a node returned, as rows: shape (c, sketch_size)."""
    if not isinstance(part, int):
        return leaf.rmatmul(part)
    return xp.astype(xp.matrix_transpose(leaf.matmul(arrays[part])), dtype, copy=False)


def _place(A: Any) -> Any:
    return device(A.data if hasattr(A, "tocsr") else A)


class _DenseTensor(TensorOperator, DenseSketch):
    """A dense S, made tile by tile from the columns of its leaves."""

    @property
    def _scale(self) -> float:
        return 1.0  # the leaves are scaled

    def _columns_of(self, leaf: Any, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        """Columns start..stop-1 of a leaf, one per row."""
        return leaf._table(start, stop, dtype, xp) * leaf._scale

    def _table(self, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        def meet(leaf: Any, part: Any) -> Any:
            if not isinstance(part, int):
                return leaf.rmatmul(part)
            pieces, index = mode_indices(self.shapes, part, start, stop, xp)
            return xp.concat([self._columns_of(leaf, lo, hi, dtype, xp) for lo, hi in pieces])[index]

        return self._tree(meet, partial(self._merge, xp=xp))


def mode_indices(shapes: Sequence[int], mode: int, start: int, stop: int, xp: Any) -> tuple[list[tuple[int, int]], Any]:
    """Which indices of a mode the flat indices start..stop-1 run through: pieces of its range, and a position in them.

    The positions count from the beginning of the first piece to the end of the last, and are int64 (stop - start,).
    """
    N, stride = shapes[mode], math.prod(shapes[mode + 1 :])
    flat = xp.arange(start, stop, dtype=xp.int64) // stride
    first = start // stride
    count = (max(stop - 1, start)) // stride - first + 1
    if count >= N:
        return [(0, N)], flat % N
    begin = first % N
    end = begin + count
    pieces = [(begin, min(end, N))] + ([(0, end - N)] if end > N else [])
    return pieces, flat - first


@dataclass(frozen=True)
class TensorSketch(TensorOperator, SparseSketch):
    """TensorSketch: a CountSketch of Kronecker products, computed from sketches of the factors by FFT.

    For columns x (x) y it costs one addition for each nonzero of the factors and an FFT of length sketch_size; for any
    other matrix of prod(shapes) rows it is a CountSketch, one addition for each nonzero, also for blocks of rows.  The
    cheapest of the tensor sketches, and the one for sparse factors and polynomial kernels.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S, the length of the FFT: prime sizes are slow.
    shapes : sequence of at least two ints
        Rows of the factors, N_k >= 1; the first varies slowest, as in `np.kron`.  S has n = prod(shapes) columns.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError, TypeError
        If a size is out of range or not an integer.

    Notes
    -----
    Two modes: the sketch of Pham and Pagh [1]_.  For z = x (x) y of length one the variance of ||S z||**2 is at most
    v = 6 / sketch_size + 4 / sketch_size**2, and zero for unit vectors: the words of a key are independent, and the
    variance is a sum over pairs of equal and of opposite differences of hashes.  Hashes with three independent values
    have 11 / sketch_size [2]_ (Lemma 2).  More modes: the binary tree of [3]_ whose nodes are such sketches.  Each node
    multiplies the second moment by at most 1 + v, so q modes have (1 + v)**(q - 1) - 1, about 6 (q - 1) / sketch_size,
    where one product of q sketches has 2 (2**q - 1) / sketch_size: 42 against 510 for eight modes, as good as equal for
    three.

    Deviations from [3]_: an odd mode waits for the next level, in place of padding with unit vectors; the lowest nodes
    meet the factors themselves, in place of leaves that sketch each factor first.  Every column of S has one entry +-1.

    References
    ----------
    .. [1] Pham and Pagh, "Fast and scalable polynomial kernels via explicit feature maps", KDD 2013.
    .. [2] Avron, Nguyen and Woodruff, "Subspace embeddings for the polynomial kernel", NIPS 2014, Lemma 2.
    .. [3] Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh, "Oblivious sketching of high-degree
       polynomial kernels", SODA 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.operators import TensorSketch
    >>> S = TensorSketch(64, (30, 20), rng=0)
    >>> x, y = np.arange(30.0), np.ones(20)
    >>> bool(np.allclose(S.apply_factors([x, y]), S @ np.kron(x, y)))
    True
    """

    n: int = field(init=False, repr=False)
    shapes: tuple[int, ...]

    def __post_init__(self) -> None:
        self._check_modes()
        super().__post_init__()

    @property
    def _scale(self) -> float:
        return 1.0

    def _entries_per_column(self) -> int:
        return 1

    def _leaf(self, key: Key, n: int) -> SketchOperator:
        return CountSketch(self.sketch_size, n, rng=key)

    def _merge(self, Y: Any, Z: Any, xp: Any) -> Any:
        if is_complex(Y.dtype):
            return xp.fft.ifft(xp.fft.fft(Y, axis=-1) * xp.fft.fft(Z, axis=-1), axis=-1)
        return xp.fft.irfft(xp.fft.rfft(Y, axis=-1) * xp.fft.rfft(Z, axis=-1), n=self.sketch_size, axis=-1)

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        """Positions of the merged sketches add up modulo sketch_size, and their signs multiply."""

        def meet(leaf: Any, part: Any) -> tuple[Any, Any]:
            if isinstance(part, int):
                pieces, index = mode_indices(self.shapes, part, start, stop, xp)
                packed = xp.concat([leaf._table(lo, hi, xp)[1] for lo, hi in pieces])[index].astype(xp.int64)
                return packed >> 1, packed & 1
            packed = leaf._table(0, self.sketch_size, xp)[1].astype(xp.int64)[part[0]]
            return packed >> 1, (packed & 1) ^ part[1]

        def merge(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
            return (first[0] + second[0]) % self.sketch_size, first[1] ^ second[1]

        position, negative = self._tree(meet, merge)
        return xp.arange(stop - start + 1, dtype=xp.int64), (2 * position + negative).astype(xp.int32)


@dataclass(frozen=True)
class KhatriRao(_DenseTensor):
    """Rowwise Khatri-Rao (face-splitting) product of sign or Gaussian matrices: S = sqrt(1 / sketch_size) (T_1 . T_2).

    Row t of S is the Kronecker product of the rows t of the T_k, of shape (sketch_size, N_k), so that S meets factors
    as the entrywise product of the T_k X_k: 2 c sketch_size sum(N_k) flops for c columns, all of them in matrix
    products.  For short modes, small sketch sizes and two or three modes.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    shapes : sequence of at least two ints
        Rows of the factors, N_k >= 1; the first varies slowest, as in `np.kron`.  S has n = prod(shapes) columns.
    entries : {"sign", "gaussian"}, default "sign"
        Law of the entries of the T_k.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError, TypeError
        If a size is out of range or not an integer.

    Notes
    -----
    The variance of ||S z||**2 for z = x (x) y (x) ... of length one is (3**q - 1) / sketch_size for q modes of Gaussian
    entries.  Signs have (prod(3 - 2 sum(x**4)) - 1) / sketch_size, a product over the modes: the same for factors that
    are spread out, nothing for unit vectors.  It is exponential in q: for more than three modes take `TensorSRHT` or
    `TensorSketch`.

    References
    ----------
    .. [1] Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh, "Oblivious sketching of high-degree
       polynomial kernels", SODA 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.operators import KhatriRao
    >>> KhatriRao(64, (30, 20), rng=0).apply_factors([np.ones((30, 5)), np.ones((20, 5))]).shape
    (64, 5)
    """

    n: int = field(init=False, repr=False)
    shapes: tuple[int, ...]
    entries: str = field(default="sign", kw_only=True)

    def __post_init__(self) -> None:
        self._check_modes()
        super().__post_init__()
        check_choice(self.entries, "entries", ("sign", "gaussian"))

    def _tree(self, meet: Callable[[SketchOperator, Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
        law = Rademacher if self.entries == "sign" else Gaussian
        modes = enumerate(self.shapes)
        return reduce(merge, [meet(law(self.sketch_size, N, rng=self.key.fold(f"mode {k}")), k) for k, N in modes])


@dataclass(frozen=True)
class _HadamardRows(SRHT):
    """Given rows, repeated or not, of H D for one mode, times 1 / sqrt(sketch_size)."""

    pick: Callable[[Any], Any] = field(kw_only=True)  # namespace -> rows

    def __post_init__(self) -> None:
        SketchOperator.__post_init__(self)

    def _sampled_rows(self, xp: Any) -> Any:
        return self.pick(xp)

    def columns(self, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        """Columns start..stop-1, one per row: entry (i, t) is sign_i (-1)**popcount(i & row_t)."""
        common = xp.arange(start, stop, dtype=xp.int64)[:, None] & self.pick(xp)[None, :]
        for shift in (32, 16, 8, 4, 2, 1):
            common = common ^ (common >> shift)
        signs = kernel("sign_bits", xp)(self.key, Stream.TRIGONOMETRIC_SIGN, 0, start, stop).astype(xp.int64)
        return ((1 - 2 * (common & 1)) * signs[:, None]).astype(dtype) * self._scale


class _TransformedTensor(_DenseTensor):
    """Products of rows of Hadamard transforms of the modes."""

    def _columns_of(self, leaf: Any, start: int, stop: int, dtype: Any, xp: Any) -> Any:
        return leaf.columns(start, stop, dtype, xp)

    def _modes(self) -> list[_HadamardRows]:
        """The leaves, where one merge takes all modes; an empty list where there are more levels."""
        raise NotImplementedError

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:
        leaves = self._modes()
        if A.shape[0] < self.n or not leaves:
            super()._apply_rows(A, start, out, xp)
            return
        padded = math.prod(leaf._length for leaf in leaves)
        step = max(1, TILE_BYTES // (8 * padded))
        rows = 0
        for leaf in reversed(leaves):  # the transform below leaves the last mode slowest
            rows = rows * leaf._length + leaf.pick(xp)
        for lo in range(0, A.shape[1], step):
            out[:, lo : lo + step] += _transform_modes(leaves, A[:, lo : lo + step], xp)[rows] * self.sketch_size**-0.5


def _transform_modes(leaves: Sequence[_HadamardRows], A: Any, xp: Any) -> Any:
    """(H D_1 (x) H D_2 (x) ...) A, unscaled, with the modes of its rows in reverse order."""
    done, left, c = 1, A.shape[0], A.shape[1]
    X = A.reshape(1, left, c)
    for leaf in leaves:
        left //= leaf.n
        X = X.reshape(done, leaf.n, left * c).swapaxes(0, 1).reshape(leaf.n, done * left * c)
        X, source = xp.empty((leaf._length, X.shape[1]), dtype=A.dtype), X
        everything = xp.arange(leaf._length, dtype=xp.int64)
        kernel("srht_apply", xp)(leaf.key, xp.ascontiguousarray(source), leaf._length, 1, everything, X)
        done *= leaf._length
    return X.reshape(done, c)


@dataclass(frozen=True)
class TensorSRHT(_TransformedTensor):
    """Tensor SRHT: row t of S is the Kronecker product of random rows of the transforms H D_k of the modes.

    For columns x (x) y it costs a Walsh-Hadamard transform of each factor, c sum(N_k log2(N_k)) additions for c
    columns, and a product of c sketch_size numbers, in place of the 2 c sketch_size sum(N_k) flops of `KhatriRao` at
    the same variance.  For dense factors.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    shapes : sequence of at least two ints
        Rows of the factors, N_k >= 1; the first varies slowest, as in `np.kron`.  S has n = prod(shapes) columns.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError, TypeError
        If a size is out of range or not an integer.

    Notes
    -----
    Rows of each transform are drawn uniformly with replacement, for each mode by itself [1]_.  More than
    two modes: the binary tree of [1]_, whose nodes are such sketches.  For z = x (x) y (x) ... of length one the
    variance of ||S z||**2 is at most 8 / sketch_size for two modes, which spread factors reach, and
    (1 + 8 / sketch_size)**(q - 1) - 1 for q of them, where one product of q transforms has (3**q - 1) / sketch_size.
    For two modes ``S @ A`` transforms the modes of A, n d log2(n) additions; blocks of rows, the adjoint and more modes
    make tiles of S, 2 sketch_size n d flops.

    References
    ----------
    .. [1] Ahle, Kapralov, Knudsen, Pagh, Velingkar, Woodruff and Zandieh, "Oblivious sketching of high-degree
       polynomial kernels", SODA 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.operators import TensorSRHT
    >>> A, B = np.random.default_rng(0).standard_normal((2, 30, 4))
    >>> S = TensorSRHT(256, (30, 30), rng=0)
    >>> bool(np.allclose(S.apply_kronecker([A, B]), S @ np.kron(A, B)))
    True
    """

    n: int = field(init=False, repr=False)
    shapes: tuple[int, ...]

    def __post_init__(self) -> None:
        self._check_modes()
        super().__post_init__()

    def _leaf(self, key: Key, n: int) -> _HadamardRows:
        length = 1 << (n - 1).bit_length()

        def pick(xp: Any) -> Any:
            return kernel("uniform_rows", xp)(key.fold("rows"), length, self.sketch_size)

        return _HadamardRows(self.sketch_size, n, rounds=1, rng=key, pick=pick)

    def _modes(self) -> list[_HadamardRows]:
        key = self.key.fold("level 0")
        return [self._leaf(key.fold(k), N) for k, N in enumerate(self.shapes)] if len(self.shapes) == 2 else []


@dataclass(frozen=True)
class KroneckerSRHT(_TransformedTensor):
    """Kronecker fast Johnson-Lindenstrauss transform: signs and a transform for each mode, one sample of all rows.

    S = sqrt(N / sketch_size) P (F D_1 (x) F D_2 (x) ...) with the orthonormal Walsh-Hadamard transform F of each mode,
    padded to a power of two, N the product of these, and sketch_size distinct rows P of all N.  Made for least squares
    with a Kronecker or Khatri-Rao matrix, as in CP-ALS: the factors are transformed once each, and the right-hand side
    of prod(shapes) rows costs n log2(n) additions.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= N
        Rows of S.
    shapes : sequence of at least two ints
        Rows of the factors, N_k >= 1; the first varies slowest, as in `np.kron`.  S has n = prod(shapes) columns.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError, TypeError
        If a size is out of range or not an integer, or N exceeds 2**62.

    Notes
    -----
    The variance of ||S z||**2 is that of `TensorSRHT` for two modes, less what sampling without repetition gains, and
    grows as 3**q with the number of modes q; the embedding dimension of [1]_ grows as a power log(n)**(2 q - 1).  With
    sketch_size = N it is an isometry.  [1]_ samples with replacement and uses the Fourier transform.  ``S @ A`` for the
    whole A costs n d log2(n) additions; blocks of rows and the adjoint make tiles of S, 2 sketch_size n d flops.

    References
    ----------
    .. [1] Jin, Kolda and Ward, "Faster Johnson-Lindenstrauss transforms via Kronecker products", Information and
       Inference 10, 2021, Theorem 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.operators import KroneckerSRHT
    >>> S = KroneckerSRHT(300, (40, 30), rng=0)
    >>> b = np.random.default_rng(0).standard_normal(1200)
    >>> bool(abs(np.linalg.norm(S @ b) / np.linalg.norm(b) - 1) < 0.3)
    True
    """

    n: int = field(init=False, repr=False)
    shapes: tuple[int, ...]

    def __post_init__(self) -> None:
        self._check_modes()
        super().__post_init__()
        total = math.prod(self._lengths)
        check_integer(total, "the product of shapes, padded to powers of two,", low=1, high=2**62)
        check_integer(self.sketch_size, "sketch_size", low=1, high=total, remedy="rows are sampled without repetition")

    @property
    def _lengths(self) -> list[int]:
        return [1 << (N - 1).bit_length() for N in self.shapes]

    def _modes(self) -> list[_HadamardRows]:
        leaves, stride = [], math.prod(self._lengths)
        for k, (N, length) in enumerate(zip(self.shapes, self._lengths, strict=True)):
            stride //= length

            def pick(xp: Any, stride: int = stride, length: int = length) -> Any:
                rows = kernel("distinct_rows", xp)(self.key, math.prod(self._lengths), self.sketch_size)
                return rows // stride % length

            leaves.append(_HadamardRows(self.sketch_size, N, rounds=1, rng=self.key.fold(f"mode {k}"), pick=pick))
        return leaves

    def _tree(self, meet: Callable[[SketchOperator, Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
        return reduce(merge, [meet(leaf, k) for k, leaf in enumerate(self._modes())])
