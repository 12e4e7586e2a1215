"""Scattered entries: the rows and columns that they touch, and products with what they add up to there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from array_api_compat import device as device_of
from array_api_compat import is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, check_together, namespace_of
from .._backend import kernel
from ..linear_maps import block_matmul

_GAP = 1024  # columns of a sketch whose making costs about as much as one more call
_DENSE_ENTRIES = 2**20  # of one-hot rows at a time, where there is no sparse product


class Csr:
    """What kernels and sketches ask of a CSR matrix, for arrays of any library that has the kernels."""

    format = "csr"
    ndim = 2

    def __init__(self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int]) -> None:
        self.data, self.indices, self.indptr, self.shape = data, indices, indptr, shape

    @property
    def dtype(self) -> Any:
        """Dtype of the values."""
        return self.data.dtype

    @property
    def nnz(self) -> int:
        """Stored values."""
        return int(self.data.shape[0])

    def tocsr(self) -> Csr:
        """The matrix itself."""
        return self


class Places(NamedTuple):
    """Some rows (or columns) of a matrix of `length` rows, ascending."""

    indices: Any
    length: int

    def of(self, S: Any, like: Any) -> Any:
        """The columns of a sketch S at these places (sketch_size, p), in the library and dtype of `like`."""
        xp = namespace_of(like)
        if not hasattr(S, "key"):  # the identity
            every = xp.arange(self.length, dtype=self.indices.dtype, device=device_of(like))
            return xp.astype(every[:, None] == self.indices[None, :], like.dtype)
        parts = []
        for lo, hi in self._stretches(xp):
            part = self.indices[lo:hi]
            first, last = int(part[0]), int(part[-1]) + 1
            if is_numpy_namespace(xp) or is_cupy_namespace(xp):
                pointers = xp.searchsorted(part, xp.arange(first, last + 1)).astype(xp.int32)
                ones = xp.ones(hi - lo, dtype=like.real.dtype)
                block = Csr(ones, xp.arange(hi - lo, dtype=xp.int32), pointers, (last - first, hi - lo))
                parts.append(S.matmul(block, start=first))
            else:
                table = xp.asarray(S.toarray(first, last), dtype=xp.float64, device=device_of(like))
                parts.append(xp.take(table, part - first, axis=1))
        return xp.astype(xp.concat(parts, axis=1), like.dtype, copy=False)

    def _stretches(self, xp: Any) -> Iterator[tuple[int, int]]:
        """Runs of places without large gaps, so that few columns of a sketch are made in vain."""
        gaps = xp.nonzero(self.indices[1:] - self.indices[:-1] > _GAP)[0]
        cuts = [0, *(int(gaps[i]) + 1 for i in range(gaps.shape[0])), int(self.indices.shape[0])]
        return pairwise(cuts)

    def add(self, target: Any, part: Any, *, axis: int) -> None:
        """``target[indices] += part`` along an axis."""
        xp = namespace_of(target)
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            target[self.indices if axis == 0 else (slice(None), self.indices)] += part
            return
        step = max(1, _DENSE_ENTRIES // self.indices.shape[0])
        for lo in range(0, self.length, step):
            hi = min(lo + step, self.length)
            hot = _one_hot(self.indices, lo, hi, target)
            if axis == 0:
                target[lo:hi, :] += xp.matmul(hot.mT, part)
            else:
                target[:, lo:hi] += xp.matmul(part, hot)


class Entries:
    """Values at scattered places: rows and columns that they touch, and their matrix D restricted to those.

    `rows` and `columns` are known after `compact`.
    """

    rows: Places
    columns: Places

    def __init__(self, rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> None:
        self._places, self.values, self.shape = (rows, columns), values, shape
        self._matrix: Any = None

    @classmethod
    def checked(cls, rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> Entries:
        """Entries of a matrix of the shape, every one of them inside it."""
        values = _vector(values, "values")
        xp, places = namespace_of(values), []
        for indices, name, length in ((rows, "rows", shape[0]), (columns, "columns", shape[1])):
            indices = _vector(indices, name)
            check_together(values, indices, names=("values", name))
            if indices.shape[0] != values.shape[0]:
                raise ValueError(f"{name} must have {values.shape[0]} entries as values has, got {indices.shape[0]}")
            if indices.shape[0] == 0:
                places.append(xp.astype(indices, xp.int64))
                continue
            if not xp.isdtype(indices.dtype, "integral"):
                raise TypeError(f"{name} must be integers, got dtype {indices.dtype}")
            lowest, highest = int(xp.min(indices)), int(xp.max(indices))
            if lowest < 0 or highest >= length:
                bad = lowest if lowest < 0 else highest
                raise ValueError(f"{name} must be in [0, {length - 1}], got {bad}")
            places.append(xp.astype(indices, xp.int64))
        return cls(places[0], places[1], values, shape)

    def compact(self, values: Any) -> Entries:
        """The same places with other values, ready for products; there must be one entry at least."""
        xp = namespace_of(values)
        (rows, i), (columns, j) = (xp.unique_inverse(indices) for indices in self._places)
        self.rows, self.columns = Places(rows, self.shape[0]), Places(columns, self.shape[1])
        p, q = int(rows.shape[0]), int(columns.shape[0])
        i, j = xp.reshape(i, (-1,)), xp.reshape(j, (-1,))
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            self._matrix = _csr(i * q + j, values, (p, q), xp)
            return self
        D = xp.zeros((p, q), dtype=values.dtype, device=device_of(values))
        step = max(1, _DENSE_ENTRIES // (p + q))
        for lo in range(0, values.shape[0], step):
            hi = min(lo + step, int(values.shape[0]))
            left, right = _one_hot(i[lo:hi], 0, p, values), _one_hot(j[lo:hi], 0, q, values)
            D = D + xp.matmul(left.mT, values[lo:hi, None] * right)
        self._matrix = D
        return self

    def matmul(self, X: Any) -> Any:
        """``D @ X``."""
        return block_matmul(self._matrix, X)

    def rmatmul(self, Y: Any) -> Any:
        """``D.T @ Y`` for a real Y, without conjugation."""
        D = self._matrix
        if isinstance(D, Csr):
            return kernel("csr_rmatmul", namespace_of(D))(D.data, D.indices, D.indptr, Y, D.shape[1])
        return namespace_of(D).matmul(D.mT, Y)


def _vector(values: Any, name: str) -> Any:
    values = as_matrix(values, name=name, sparse=False, vector=True)
    if values.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {tuple(values.shape)}")
    return values


def _one_hot(indices: Any, lo: int, hi: int, like: Any) -> Any:
    xp = namespace_of(like)
    every = xp.arange(lo, hi, dtype=indices.dtype, device=device_of(like))
    return xp.astype(indices[:, None] == every[None, :], like.dtype)


def _csr(codes: Any, values: Any, shape: tuple[int, int], xp: Any) -> Csr:
    """The CSR matrix of values at the codes row * width + column, those of equal code added up."""
    order = xp.argsort(codes, stable=True)
    codes, values = codes[order], values[order]
    starts = xp.concat([xp.zeros((1,), dtype=xp.int64), xp.nonzero(codes[1:] != codes[:-1])[0] + 1])
    if starts.shape[0] < codes.shape[0]:  # the kernels take each place once
        bounds = xp.concat([starts, xp.asarray([codes.shape[0]], dtype=starts.dtype)]).astype(xp.int32)
        places, ones = xp.arange(codes.shape[0], dtype=xp.int32), xp.ones((codes.shape[0], 1), dtype=values.dtype)
        values = kernel("csr_matmul", xp)(values, places, bounds, ones)[:, 0]
        codes = codes[starts]
    rows, columns = codes // shape[1], (codes % shape[1]).astype(xp.int32)
    indptr = xp.searchsorted(rows, xp.arange(shape[0] + 1)).astype(xp.int32)
    return Csr(values, columns, indptr, shape)
