"""What all measurements share: checked products, and how each is put together from the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together, dtype_name, floating_dtype, from_host, is_complex, namespace_of
from .._backend import kernel
from .._checks import check_integer
from .._random import Key

_PROBES = 8  # rank of the random matrix that measures the mean square of unknown measurements


class Measurements:
    """The map ``X -> (<A_1, X>, ..., <A_m, X>)`` and its adjoint, known by products.

    Subclasses say how, for arrays that were checked; what they leave out is put together from the rest.

    Attributes
    ----------
    shape : tuple of int
        (d1, d2), that of X.
    n_measurements : int
        m.
    """

    shape: tuple[int, int]
    n_measurements: int

    # --- checked products -----------------------------------------------------------------------------------------

    def apply(self, X: Any) -> Any:
        """Return ``<A_i, X>`` for all i, shape (m,), for a matrix X (d1, d2)."""
        X = self._operand(X, "X", self.shape)
        return self._apply(X)

    def apply_factors(self, U: Any, V: Any) -> Any:
        """Return ``<A_i, U V^T>`` for all i, shape (m,), for factors U (d1, k) and V (d2, k)."""
        U = self._operand(U, "U", (self.shape[0], None))
        V = self._operand(V, "V", (self.shape[1], U.shape[1]))
        check_together(U, V, names=("U", "V"))
        return self._factors(*alike(U, V))

    def adjoint(self, y: Any) -> Any:
        """Return ``sum_i y_i A_i``, shape (d1, d2), for weights y (m,)."""
        return self._adjoint(self._weights(y))

    def adjoint_times(self, y: Any, V: Any) -> Any:
        """Return ``(sum_i y_i A_i) V``, shape (d1, k), for weights y (m,) and V (d2, k)."""
        y, V = self._weights(y), self._operand(V, "V", (self.shape[1], None))
        check_together(y, V, names=("y", "V"))
        return self._times(*alike(y, V))

    def adjoint_rtimes(self, y: Any, U: Any) -> Any:
        """Return ``(sum_i y_i A_i)^T U``, shape (d2, k), for weights y (m,) and U (d1, k)."""
        y, U = self._weights(y), self._operand(U, "U", (self.shape[0], None))
        check_together(y, U, names=("y", "U"))
        return self._rtimes(*alike(y, U))

    def _operand(self, X: Any, name: str, shape: tuple[int, int | None]) -> Any:
        X = as_matrix(X, name=name, sparse=False)
        if X.shape[0] != shape[0] or (shape[1] is not None and X.shape[1] != shape[1]):
            wanted = f"({shape[0]}, {'k' if shape[1] is None else shape[1]})"
            raise ValueError(f"{name} must have shape {wanted}, got {tuple(X.shape)}")
        return self._real(X, name)

    def _weights(self, y: Any) -> Any:
        y = as_matrix(y, name="y", sparse=False, vector=True)
        if tuple(y.shape) != (self.n_measurements,):
            raise ValueError(f"y must have shape ({self.n_measurements},), got {tuple(y.shape)}")
        return self._real(y, "y")

    def _real(self, X: Any, name: str) -> Any:
        if is_complex(X.dtype):
            raise ValueError(f"{name} must be real, got {dtype_name(X.dtype)}; measure its two parts one by one")
        self._check_place(X, name)
        xp = namespace_of(X)
        return xp.astype(xp.asarray(X), floating_dtype(X, xp), copy=False)

    # --- what subclasses say, unchecked: floating arrays of one dtype, namespace and device ------------------------

    def _check_place(self, X: Any, name: str) -> None:
        """Raise ValueError where what is stored and X do not live together; recipes live everywhere."""

    def _apply(self, X: Any) -> Any:
        raise NotImplementedError

    def _adjoint(self, y: Any) -> Any:
        raise NotImplementedError

    def _factors(self, U: Any, V: Any) -> Any:
        return self._apply(array_namespace(U).matmul(U, V.mT))

    def _times(self, y: Any, V: Any) -> Any:
        return array_namespace(y).matmul(self._adjoint(y), V)

    def _rtimes(self, y: Any, U: Any) -> Any:
        return array_namespace(y).matmul(self._adjoint(y).mT, U)

    def _several(self, pairs: list[tuple[Any, Any]]) -> list[Any]:
        """`_factors` of several pairs, in one read where that is possible."""
        return [self._factors(U, V) for U, V in pairs]

    def _sweep(self, U: Any, V: Any, y: Any, weigh: Callable[[Any, slice], Any]) -> tuple[Any, Any, Any]:
        """The residual ``r = A(U V^T) - y`` and, for ``w = weigh(r)``, both of ``A^*(w) V`` and ``A^*(w)^T U``."""
        r = self._factors(U, V) - y
        w = weigh(r, slice(0, self.n_measurements))
        return r, self._times(w, V), self._rtimes(w, U)

    def _mean_square(self, key: Key, like: Any) -> float:
        """The mean of the squared entries of all A_i: here of ``<A_i, X>**2 / ||X||_F**2`` for one random X."""
        U, V = (
            gaussian_panel(key.fold(name), side, _PROBES, like) for name, side in zip("UV", self.shape, strict=True)
        )
        xp = array_namespace(U)
        z, U, V = (xp.astype(M, xp.float64) for M in (self._factors(U, V), U, V))
        return float(xp.mean(z * z)) / float(xp.sum(xp.matmul(U.mT, U) * xp.matmul(V.mT, V)))

    def _kept(self, like: Any) -> Measurements:  # noqa: ARG002 - only what is generated can be kept
        """The form to iterate with for data as `like`."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, n_measurements={self.n_measurements})"


def check_shape(shape: Any) -> tuple[int, int]:
    """`shape` as two positive ints."""
    try:
        d1, d2 = shape
    except (TypeError, ValueError):
        raise ValueError(f"shape must be a pair of integers, got {shape!r}") from None
    return check_integer(d1, "shape[0]", low=1), check_integer(d2, "shape[1]", low=1)


def gaussian_panel(key: Key, rows: int, columns: int, like: Any) -> Any:
    """A standard normal panel in the dtype, namespace and place of `like`."""
    xp = array_namespace(like)
    table = kernel("gaussian_table", xp)(key, 0, rows, columns, host_dtype(like))
    return xp.astype(from_host(table, xp, like), like.dtype, copy=False)


def host_dtype(like: Any) -> np.dtype:
    """The NumPy dtype of a floating array of any namespace."""
    return np.dtype(dtype_name(like.dtype))


def alike(X: Any, Y: Any) -> tuple[Any, Any]:
    """Two floating arrays in the wider of their dtypes."""
    xp = array_namespace(X, Y)
    dtype = xp.result_type(X.dtype, Y.dtype)
    return xp.astype(X, dtype, copy=False), xp.astype(Y, dtype, copy=False)
