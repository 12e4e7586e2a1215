"""Sketches with few nonzeros: sparse sign, CountSketch, sparse Johnson-Lindenstrauss, LESS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._backend import kernel
from .._checks import check_integer, check_real
from .base import SketchOperator, csr_arrays

TABLE_ENTRIES = 2**18  # signs that are held at a time: 1 MiB
TABLE_COLUMNS = 2**16  # columns of S that are hashed at a time


class SparseSketch(SketchOperator):
    """A sparse S: signed positions of a tile of columns are hashed, used and forgotten."""

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        """Ragged sign table (pointers, packed) of the columns start..stop-1."""
        raise NotImplementedError

    def _entries_per_column(self) -> float:
        raise NotImplementedError

    def _tiles(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        step = max(256, int(min(TABLE_COLUMNS, TABLE_ENTRIES / max(self._entries_per_column(), 1.0))))
        for lo in range(start, stop, step):
            yield lo, min(lo + step, stop)

    def _columns(self, start: int, stop: int) -> np.ndarray:
        pointers, packed = self._table(start, stop, np)
        S = np.zeros((self.sketch_size, stop - start))
        np.add.at(S, (packed >> 1, np.repeat(np.arange(stop - start), np.diff(pointers))), 1.0 - 2.0 * (packed & 1))
        return S

    def _apply_rows(self, A: Any, start: int, out: Any, xp: Any) -> None:
        for lo, hi in self._tiles(0, A.shape[0]):
            kernel("scatter_rows", xp)(*self._table(start + lo, start + hi, xp), A[lo:hi], out)

    def _apply_columns(self, A: Any, start: int, out: Any, xp: Any) -> None:
        for lo, hi in self._tiles(0, A.shape[1]):
            kernel("scatter_columns", xp)(*self._table(start + lo, start + hi, xp), A[:, lo:hi], out)

    def _apply_sparse(self, A: Any, start: int, dtype: Any, xp: Any) -> Any:
        if A.format == "csc":  # its columns name rows of A at random: the whole table is held, 4 bytes a nonzero of S
            turned = xp.zeros((A.shape[1], self.sketch_size), dtype=dtype)
            table = self._table(start, start + A.shape[0], xp)
            kernel("scatter_columns_csr", xp)(*table, *csr_arrays(A, dtype), turned)
            return turned.T
        out = xp.zeros((self.sketch_size, A.shape[1]), dtype=dtype)
        data, indices, indptr = csr_arrays(A, dtype)
        for lo, hi in self._tiles(0, A.shape[0]):
            first, last = int(indptr[lo]), int(indptr[hi])
            block = data[first:last], indices[first:last], indptr[lo : hi + 1] - first
            kernel("scatter_rows_csr", xp)(*self._table(start + lo, start + hi, xp), *block, out)
        return out

    def _adjoint(self, Y: Any, start: int, stop: int, xp: Any) -> Any:
        if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
            return super()._adjoint(Y, start, stop, xp)
        out, Y = xp.zeros((stop - start, Y.shape[1]), dtype=Y.dtype), xp.ascontiguousarray(Y)
        for lo, hi in self._tiles(start, stop):
            kernel("gather_rows", xp)(*self._table(lo, hi, xp), Y, out[lo - start : hi - start])
        return out


@dataclass(frozen=True)
class SparseSign(SparseSketch):
    """Sparse sign sketch: each column has `nnz` entries +-1/sqrt(nnz), one in each of `nnz` bands of rows.

    The block construction, also called SparseStack or OSNAP.  Costs nnz additions for each entry of the matrix and one
    read of it.  The general choice: with nnz = 8 its distortion is that of a Gaussian sketch of the same size, also on
    coherent data; nnz = 4 is enough for low-rank work, nnz = 1 (`CountSketch`) fails on coherent data.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    n : int, n >= 0
        Columns of S: rows of the matrix that it compresses.
    nnz : int, 1 <= nnz <= sketch_size, default min(8, sketch_size)
        Nonzeros of each column.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  A column depends on the key, its index, sketch_size and nnz only.

    Raises
    ------
    ValueError
        If a size is out of range.

    Notes
    -----
    For an orthonormal U with d columns all singular values of S U lie in 1 +- epsilon with probability 1 - delta when
    sketch_size is of order d log(d / delta) / epsilon**2 and nnz of order log(d / delta) / epsilon [1]_; the constants
    are not known.  Measured (nnz = 8, d = 100, identity columns): within 0.49 and 1.53 at sketch_size = 4 d, where a
    Gaussian gives 0.49 and 1.54.

    References
    ----------
    .. [1] Cohen, "Nearly tight oblivious subspace embeddings by trace inequalities", SODA 2016, Theorem 4.2.

    Examples
    --------
    >>> import numpy as np, randla
    >>> S = randla.SparseSign(400, 10_000, rng=0)
    >>> A = np.ones((10_000, 3))
    >>> top, bottom = S.matmul(A[:6000]), S.matmul(A[6000:], start=6000)
    >>> bool(np.allclose(S @ A, top + bottom))
    True
    """

    nnz: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        nnz = min(8, self.sketch_size) if self.nnz is None else self.nnz
        self._set(
            "nnz", check_integer(nnz, "nnz", low=1, high=self.sketch_size, remedy="raise sketch_size or lower nnz")
        )
        # the words of the stream are numbered in 64 bits, and each column owns as many as a power of two >= nnz
        check_integer(self.n, "n", low=0, high=2**64 >> (self._entries_per_column() - 1).bit_length())

    @property
    def _scale(self) -> float:
        return float(self._entries_per_column()) ** -0.5

    def _entries_per_column(self) -> int:
        return self.nnz  # type: ignore[return-value]  # an int after __post_init__

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        nnz = self._entries_per_column()
        packed = kernel("sparse_sign_table", xp)(self.key, start, stop, nnz, self.sketch_size)
        return xp.arange(0, (stop - start) * nnz + 1, nnz, dtype=xp.int64), packed.reshape(-1)


@dataclass(frozen=True)
class CountSketch(SparseSketch):
    """One entry +-1 in each column: the cheapest sketch, and the one that needs the largest size.

    Equal to ``SparseSign(nnz=1)``.  On coherent data two important rows may collide, and the sketch then loses a
    direction altogether: choose it for hashing and for frequency vectors, or with a size quadratic in d.

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
    An epsilon-embedding of a d-dimensional subspace with probability at least 1 - delta when
    sketch_size >= (d**2 + d) / (delta (2 epsilon - epsilon**2)**2) [1]_.

    References
    ----------
    .. [1] Nelson and Nguyen, "OSNAP: faster numerical linear algebra algorithms via sparser subspace embeddings",
       FOCS 2013, Theorem 3.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.CountSketch(64, 1000, rng=0) @ np.ones(1000)).shape
    (64,)
    """

    @property
    def _scale(self) -> float:
        return 1.0

    def _entries_per_column(self) -> int:
        return 1

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        packed = kernel("sparse_sign_table", xp)(self.key, start, stop, 1, self.sketch_size)
        return xp.arange(0, stop - start + 1, dtype=xp.int64), packed.reshape(-1)


@dataclass(frozen=True)
class SparseJL(SparseSketch):
    """Independent entries: +-1/sqrt(density sketch_size) with probability `density`, else zero.

    Density 1/3 is Achlioptas' matrix, 1/sqrt(n) the very sparse one of Li, Hastie and Church; both preserve distances
    of points.  A column may be empty, so for subspaces `SparseSign` is the better choice at equal cost.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    n : int, n >= 0
        Columns of S.
    density : float in (0, 1] or "auto", default 1/3
        Probability of a nonzero; "auto" means 1/sqrt(n).
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If a size or the density is out of range.

    Notes
    -----
    Density 1/3: the guarantee of `Rademacher` with the same constants [1]_.  Density 1/sqrt(n): asymptotically the
    same for data with bounded fourth moments [2]_; it fails on data concentrated in few rows.

    References
    ----------
    .. [1] Achlioptas, "Database-friendly random projections", JCSS 66, 2003, Theorem 1.1.
    .. [2] Li, Hastie and Church, "Very sparse random projections", KDD 2006, Lemma 4.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.SparseJL(64, 1000, density="auto", rng=0) @ np.ones(1000)).shape
    (64,)
    """

    density: float | str = field(default=1 / 3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        density = max(self.n, 1) ** -0.5 if self.density == "auto" else self.density
        self._set("density", check_real(density, "density", low=0.0, high=1.0, closed="right"))

    @property
    def _scale(self) -> float:
        return (float(self.density) * self.sketch_size) ** -0.5

    def _entries_per_column(self) -> float:
        return float(self.density) * self.sketch_size

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        thresholds = xp.asarray(_gap_thresholds(float(self.density), self.sketch_size))
        return kernel("sparse_jl_table", xp)(self.key, thresholds, start, stop, self.sketch_size)


@lru_cache(maxsize=64)
def _gap_thresholds(density: float, sketch_size: int) -> np.ndarray:
    """floor(2**31 (1 - density)**g) for g = 0, 1, ... down to 0, in integers, so that all machines agree.

    Gaps beyond sketch_size end a column whatever they are, so the table stops there.
    """
    one = 1 << 62
    miss, power = one - round(density * one), one
    thresholds: list[int] = []
    while power >> 31 and len(thresholds) <= sketch_size:
        thresholds.append(power >> 31)
        power = power * miss >> 62
    table = np.array([*thresholds, 0], np.int64)
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class LESS(SparseSketch):
    """LESS-uniform sketch: each row has `nnz` entries +-sqrt(n / (nnz sketch_size)) at uniform places, with repetition.

    Leverage-score sparsified sketches in their uniform form: sparse along the long axis, so the cost is that of
    sketch_size nnz rows of the matrix, whatever n is.  Made for sketched Newton steps and averaging over machines,
    where the inverse moments of a Gaussian are wanted; on coherent data rotate first, or use `SparseSign`.

    Parameters
    ----------
    sketch_size : int, 1 <= sketch_size <= 2**30
        Rows of S.
    n : int, 0 <= n <= 2**32
        Columns of S.
    nnz : int, nnz >= 1, default max(8, min(n, 4 * sketch_size))
        Entries of each row; the default is 8 d at sketch_size = 2 d, below which coherent data lose directions.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.

    Raises
    ------
    ValueError
        If a size is out of range.

    Notes
    -----
    Draws of one place add up, which keeps E[S.T @ S] = I.  With nnz of order d the expected inverse of A.T S.T S A is
    that of a Gaussian sketch up to a factor 1 + O(1 / sqrt(d)), for incoherent A [1]_.

    References
    ----------
    .. [1] Derezinski, Lacotte, Pilanci and Mahoney, "Newton-LESS: sparsification without trade-offs for the sketched
       Newton update", NeurIPS 2021, Theorem 5.

    Examples
    --------
    >>> import numpy as np, randla
    >>> (randla.LESS(40, 1000, rng=0) @ np.ones((1000, 2))).shape
    (40, 2)
    """

    nnz: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer(self.n, "n", low=0, high=2**32)
        nnz = max(8, min(self.n, 4 * self.sketch_size)) if self.nnz is None else self.nnz
        self._set("nnz", check_integer(nnz, "nnz", low=1))

    @property
    def _scale(self) -> float:
        return math.sqrt(self.n / (self.sketch_size * self._draws))

    @property
    def _draws(self) -> int:
        return self.nnz  # type: ignore[return-value]  # an int after __post_init__

    def _entries_per_column(self) -> float:
        return 0.0  # the table of all draws is made at once: 8 bytes a nonzero of S

    def _tiles(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        if start < stop:
            yield start, stop

    def _table(self, start: int, stop: int, xp: Any) -> tuple[Any, Any]:
        """The draws that fall into the block, turned over: for each column the rows that drew it."""
        drawn = kernel("less_table", xp)(self.key, 0, self.sketch_size, self._draws, self.n).reshape(-1)
        place, row = drawn >> 1, xp.arange(drawn.size) // self._draws
        inside = (place >= start) & (place < stop)
        place, packed = place[inside] - start, (2 * row + (drawn & 1))[inside]
        # a key without ties gives one order everywhere: by place, then by draw
        order = xp.argsort(place * drawn.size + xp.arange(drawn.size)[inside])
        pointers = xp.searchsorted(place[order], xp.arange(stop - start + 1))
        return pointers.astype(xp.int64), packed[order].astype(xp.int32)
