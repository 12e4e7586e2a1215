"""Measurement matrices: Gaussian, dense, of rank one, and single entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace, is_cupy_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, dtype_name, from_host, is_complex, namespace_of
from .._backend import kernel
from .._checks import check_integer
from .._random import Key, as_key
from .base import Measurements, check_shape, host_dtype

_TABLE_ENTRIES = 2**19  # entries of a tile of measurement matrices: 4 MiB in double precision, read while in cache
_KEPT_BYTES = 2**27  # a Gaussian table up to this size is made once for a whole iteration
_ONE_HOT_ENTRIES = 2**22  # entries of the 0/1 matrices that add up rows in untuned namespaces


class _Tabled(Measurements):
    """Measurement matrices that come as tiles of a table (m, d1 d2), stored or made; one tile is in use at a time."""

    symmetric = False

    def _tiles(self, like: Any) -> Iterator[tuple[slice, Any]]:
        """Tiles of rows of the table in the dtype, namespace and place of `like`."""
        raise NotImplementedError

    def _bounds(self) -> Iterator[slice]:
        step = max(1, _TABLE_ENTRIES // max(1, math.prod(self.shape)))
        for lo in range(0, self.n_measurements, step):
            yield slice(lo, min(lo + step, self.n_measurements))

    def _column(self, X: Any) -> Any:
        X = 0.5 * (X + X.mT) if self.symmetric else X
        return array_namespace(X).reshape(X, (-1, 1))

    def _unfolded(self, row: Any) -> Any:
        G = array_namespace(row).reshape(row, self.shape)
        return 0.5 * (G + G.mT) if self.symmetric else G

    def _measured(self, columns: Any) -> Any:
        xp = array_namespace(columns)
        parts = [xp.matmul(table, columns) for _, table in self._tiles(columns)]
        return xp.concat(parts, axis=0) if parts else columns[:0, :]

    def _apply(self, X: Any) -> Any:
        return self._measured(self._column(X))[:, 0]

    def _several(self, pairs: list[tuple[Any, Any]]) -> list[Any]:
        xp = array_namespace(pairs[0][0])
        measured = self._measured(xp.concat([self._column(xp.matmul(U, V.mT)) for U, V in pairs], axis=1))
        return [measured[:, i] for i in range(len(pairs))]

    def _adjoint(self, y: Any) -> Any:
        xp = array_namespace(y)
        total = xp.zeros((1, math.prod(self.shape)), dtype=y.dtype, device=device_of(y))
        for rows, table in self._tiles(y):
            total = total + xp.matmul(y[None, rows], table)
        return self._unfolded(total)

    def _sweep(self, U: Any, V: Any, y: Any, weigh: Callable[[Any, slice], Any]) -> tuple[Any, Any, Any]:
        xp = array_namespace(y)
        column = self._column(xp.matmul(U, V.mT))
        total = xp.zeros((1, column.shape[0]), dtype=y.dtype, device=device_of(y))
        residuals = [y[:0]]
        for rows, table in self._tiles(y):  # both products of a tile: it is read, or made, once
            r = xp.matmul(table, column)[:, 0] - y[rows]
            total = total + xp.matmul(weigh(r, rows)[None, :], table)
            residuals.append(r)
        G = self._unfolded(total)
        return xp.concat(residuals, axis=0), xp.matmul(G, V), xp.matmul(G.mT, U)


class DenseMeasurements(_Tabled):
    """Measurement matrices that are given as one array.

    Parameters
    ----------
    A : array, shape (m, d1, d2)
        Measurement i is ``sum(A[i] * X)``.  Real; neither copied nor changed.

    Raises
    ------
    ValueError
        If A is complex or does not have three axes.
    TypeError
        If A is not numeric.

    Notes
    -----
    Each product is one read of A: 2 m d1 d2 flops.

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = np.arange(24.0).reshape(2, 3, 4)
    >>> randla.DenseMeasurements(A).apply(np.ones((3, 4)))
    array([ 66., 210.])
    """

    def __init__(self, A: Any) -> None:
        if len(getattr(A, "shape", ())) != 3:
            raise ValueError(f"A must have shape (m, d1, d2), got {tuple(getattr(A, 'shape', ()))}")
        xp = array_namespace(A)
        flat = as_matrix(xp.reshape(A, (int(A.shape[0]), int(A.shape[1]) * int(A.shape[2]))), name="A", sparse=False)
        if is_complex(flat.dtype):
            raise ValueError(f"A must be real, got {dtype_name(flat.dtype)}; measure with its two parts one by one")
        self._table = flat
        self.shape, self.n_measurements = (int(A.shape[1]), int(A.shape[2])), int(A.shape[0])

    def _check_place(self, X: Any, name: str) -> None:
        check_together(self._table, X, names=("the measurements", name))

    def _tiles(self, like: Any) -> Iterator[tuple[slice, Any]]:
        for rows in self._bounds():
            yield rows, array_namespace(like).astype(self._table[rows, :], like.dtype, copy=False)

    def _mean_square(self, key: Key, like: Any) -> float:  # noqa: ARG002 - computed, not probed
        xp, total = namespace_of(like), 0.0
        for _, table in self._tiles(like):
            total += float(xp.sum(xp.astype(table, xp.float64) ** 2))
        return total / (self.n_measurements * math.prod(self.shape))


class GaussianMeasurements(_Tabled):
    """Measurement matrices with independent standard normal entries, made from a key and never stored when large.

    Parameters
    ----------
    shape : tuple of int, (d1, d2)
        Shape of the matrix that is measured.
    n_measurements : int, n_measurements >= 1
    symmetric : bool, default False
        Measure with ``(A_i + A_i^T) / 2``: on symmetric matrices the same numbers, and an adjoint that is symmetric.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Equal keys give equal measurements on every backend; matrix i depends on the key, i and
        d1 d2 alone.

    Raises
    ------
    ValueError
        If a side is below 1, or `symmetric` comes with d1 != d2.

    Notes
    -----
    Measurements of any X have mean square ``||X||_F**2`` (with `symmetric`, of symmetric X).  Each product makes
    m d1 d2 normal numbers, tile by tile beside its use, which takes several times as long as reading them;
    `subgradient_recovery` and `factorized_gd` keep a table of at most 128 MiB for the time of their iteration.

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = randla.GaussianMeasurements((6, 4), 1000, rng=0)
    >>> y = A.apply(np.ones((6, 4)))
    >>> y.shape, bool(abs(np.mean(y**2) / 24 - 1) < 0.2)
    ((1000,), True)
    """

    def __init__(
        self, shape: tuple[int, int], n_measurements: int, *, symmetric: bool = False, rng: Any = None
    ) -> None:
        self.shape = check_shape(shape)
        self.n_measurements = check_integer(n_measurements, "n_measurements", low=1)
        if symmetric and self.shape[0] != self.shape[1]:
            raise ValueError(f"shape must be square with symmetric=True, got {self.shape}")
        check_integer(math.prod(self.shape), "d1 * d2", high=2**30, low=1)
        self.symmetric, self.key = bool(symmetric), as_key(rng)

    def __repr__(self) -> str:
        end = ", symmetric=True" if self.symmetric else ""
        return f"GaussianMeasurements({self.shape}, {self.n_measurements}{end}, rng={self.key!r})"

    def _tiles(self, like: Any) -> Iterator[tuple[slice, Any]]:
        xp, size = array_namespace(like), math.prod(self.shape)
        for rows in self._bounds():
            table = kernel("gaussian_table", xp)(self.key, rows.start, rows.stop, size, host_dtype(like))
            yield rows, xp.astype(from_host(table, xp, like), like.dtype, copy=False)

    def _mean_square(self, key: Key, like: Any) -> float:  # noqa: ARG002 - by definition
        return 1.0

    def _kept(self, like: Any) -> Measurements:
        if self.n_measurements * math.prod(self.shape) * host_dtype(like).itemsize > _KEPT_BYTES:
            return self
        xp = array_namespace(like)
        table = xp.concat([tile for _, tile in self._tiles(like)], axis=0)
        kept = DenseMeasurements(xp.reshape(table, (self.n_measurements, *self.shape)))
        kept.symmetric = self.symmetric
        return kept


class RankOneMeasurements(Measurements):
    """Measurements ``a_i^T X b_i``.

    Parameters
    ----------
    a : array, shape (m, d1)
        Row i is a_i.
    b : array, shape (m, d2), optional
        Row i is b_i.  Default: a, the quadratic measurements ``a_i^T X a_i`` of a square matrix.

    Raises
    ------
    ValueError
        If the numbers of rows differ or an array is complex.
    TypeError
        If an array is not numeric.

    Notes
    -----
    All products with k factors cost O(m (d1 + d2) k) flops; no d1 x d2 matrix is formed but by `adjoint`.

    Examples
    --------
    >>> import numpy as np, randla
    >>> a, b = np.eye(3)[:2], np.ones((2, 4))
    >>> randla.RankOneMeasurements(a, b).apply(np.arange(12.0).reshape(3, 4))
    array([ 6., 22.])
    """

    def __init__(self, a: Any, b: Any = None) -> None:
        a = as_matrix(a, name="a", sparse=False)
        b = a if b is None else as_matrix(b, name="b", sparse=False)
        check_together(a, b, names=("a", "b"))
        if a.shape[0] != b.shape[0]:
            raise ValueError(f"b must have {a.shape[0]} rows as a has, got shape {tuple(b.shape)}")
        if is_complex(a.dtype) or is_complex(b.dtype):
            raise ValueError(f"a and b must be real, got {dtype_name(a.dtype)} and {dtype_name(b.dtype)}")
        self.a, self.b = a, b
        self.shape, self.n_measurements = (int(a.shape[1]), int(b.shape[1])), int(a.shape[0])

    def _check_place(self, X: Any, name: str) -> None:
        check_together(self.a, X, names=("the measurements", name))

    def _sides(self, like: Any) -> tuple[Any, Any]:
        xp = array_namespace(like)
        return xp.astype(self.a, like.dtype, copy=False), xp.astype(self.b, like.dtype, copy=False)

    def _apply(self, X: Any) -> Any:
        xp, (a, b) = array_namespace(X), self._sides(X)
        return xp.sum(xp.matmul(a, X) * b, axis=1)

    def _adjoint(self, y: Any) -> Any:
        a, b = self._sides(y)
        return array_namespace(y).matmul((y[:, None] * a).mT, b)

    def _factors(self, U: Any, V: Any) -> Any:
        xp, (a, b) = array_namespace(U), self._sides(U)
        return xp.sum(xp.matmul(a, U) * xp.matmul(b, V), axis=1)

    def _times(self, y: Any, V: Any) -> Any:
        xp, (a, b) = array_namespace(y), self._sides(y)
        return xp.matmul(a.mT, y[:, None] * xp.matmul(b, V))

    def _rtimes(self, y: Any, U: Any) -> Any:
        xp, (a, b) = array_namespace(y), self._sides(y)
        return xp.matmul(b.mT, y[:, None] * xp.matmul(a, U))

    def _sweep(self, U: Any, V: Any, y: Any, weigh: Callable[[Any, slice], Any]) -> tuple[Any, Any, Any]:
        xp, (a, b) = array_namespace(y), self._sides(y)
        left, right = xp.matmul(a, U), xp.matmul(b, V)
        r = xp.sum(left * right, axis=1) - y
        w = weigh(r, slice(0, self.n_measurements))[:, None]
        return r, xp.matmul(a.mT, w * right), xp.matmul(b.mT, w * left)

    def _mean_square(self, key: Key, like: Any) -> float:  # noqa: ARG002 - computed, not probed
        xp, (a, b) = (
            array_namespace(like),
            (array_namespace(like).astype(s, array_namespace(like).float64) for s in self._sides(like)),
        )
        squares = xp.sum(a * a, axis=1) * xp.sum(b * b, axis=1)
        return float(xp.mean(squares)) / math.prod(self.shape)


class EntryMeasurements(Measurements):
    """Measurements ``X[rows[i], cols[i]]``.

    Parameters
    ----------
    rows, cols : array of integers, shape (m,)
        Positions; one that comes twice is measured twice.
    shape : tuple of int, (d1, d2)
        Shape of the matrix that is measured.

    Raises
    ------
    ValueError
        If the numbers of rows and columns differ, or one lies outside of `shape`.
    TypeError
        If the positions are not integers.

    Notes
    -----
    All products with k factors cost O(m k) flops.  Single entries are not isotropic as dense measurements are: recovery
    needs factors whose rows are about alike (incoherence), which the theory of `subgradient_recovery` does not cover.

    Examples
    --------
    >>> import numpy as np, randla
    >>> randla.EntryMeasurements([0, 2], [1, 3], (3, 4)).apply(np.arange(12.0).reshape(3, 4))
    array([ 1., 11.])
    """

    def __init__(self, rows: Any, cols: Any, shape: tuple[int, int]) -> None:
        self.shape = check_shape(shape)
        rows, cols = (
            as_matrix(places, name=name, sparse=False, vector=True) for name, places in (("rows", rows), ("cols", cols))
        )
        check_together(rows, cols, names=("rows", "cols"))
        xp = namespace_of(rows)
        for name, places, side in (("rows", rows, self.shape[0]), ("cols", cols, self.shape[1])):
            if not xp.isdtype(places.dtype, "integral"):
                raise TypeError(f"{name} must hold integers, got {dtype_name(places.dtype)}")
            if places.ndim != 1 or places.shape != rows.shape:
                raise ValueError(f"{name} must have shape ({rows.shape[0]},), got {tuple(places.shape)}")
            if places.shape[0] and (int(xp.min(places)) < 0 or int(xp.max(places)) >= side):
                raise ValueError(
                    f"{name} must be in [0, {side - 1}], got {int(xp.min(places))} to {int(xp.max(places))}"
                )
        rows, cols = xp.astype(rows, xp.int64), xp.astype(cols, xp.int64)
        self.n_measurements = int(rows.shape[0])
        self._order = xp.argsort(rows * self.shape[1] + cols)  # the products go by rows, the numbers as they were given
        self._back = xp.argsort(self._order)
        self._rows, self._indices = xp.take(rows, self._order), xp.take(cols, self._order)
        bounds = xp.arange(self.shape[0] + 1, dtype=xp.int64, device=device_of(rows))
        self._indptr = xp.astype(xp.searchsorted(self._rows, bounds), xp.int64)

    def _check_place(self, X: Any, name: str) -> None:
        check_together(self._rows, X, names=("the measurements", name))

    def _apply(self, X: Any) -> Any:
        xp = array_namespace(X)
        flat = xp.take(xp.reshape(X, (-1,)), self._rows * self.shape[1] + self._indices)
        return xp.take(flat, self._back)

    def _factors(self, U: Any, V: Any) -> Any:
        xp = array_namespace(U)
        products = kernel("sampled_products", xp)(U, V, self._indices, self._indptr)
        return xp.take(products, self._back)

    def _adjoint(self, y: Any) -> Any:
        xp = array_namespace(y)
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            flat = self._rows * self.shape[1] + self._indices
            sums = xp.bincount(flat, weights=xp.take(y, self._order), minlength=math.prod(self.shape))
            return xp.reshape(xp.astype(sums, y.dtype, copy=False), self.shape)
        return self._times(y, xp.eye(self.shape[1], dtype=y.dtype, device=device_of(y)))

    def _times(self, y: Any, V: Any) -> Any:
        xp = array_namespace(y)
        data = xp.take(y, self._order)
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            return kernel("csr_matmul", xp)(data, self._indices, self._indptr, V)
        return _added_rows(data[:, None] * xp.take(V, self._indices, axis=0), self._rows, self.shape[0])

    def _rtimes(self, y: Any, U: Any) -> Any:
        xp = array_namespace(y)
        data = xp.take(y, self._order)
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            return kernel("csr_rmatmul", xp)(data, self._indices, self._indptr, U, self.shape[1])
        return _added_rows(data[:, None] * xp.take(U, self._rows, axis=0), self._indices, self.shape[1])

    def _mean_square(self, key: Key, like: Any) -> float:  # noqa: ARG002 - one entry of each matrix is 1
        return 1.0 / math.prod(self.shape)


def _added_rows(P: Any, places: Any, count: int) -> Any:
    """Row i of the result is the sum of the rows of P whose place is i; by 0/1 matrices, for want of a scatter."""
    xp, place = array_namespace(P), device_of(P)
    out = xp.zeros((count, P.shape[1]), dtype=P.dtype, device=place)
    numbers = xp.arange(count, dtype=places.dtype, device=place)
    step = max(1, _ONE_HOT_ENTRIES // count)
    for lo in range(0, P.shape[0], step):
        block = slice(lo, min(lo + step, P.shape[0]))
        hot = xp.astype(places[None, block] == numbers[:, None], P.dtype)
        out = out + xp.matmul(hot, P[block, :])
    return out
