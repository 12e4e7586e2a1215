"""Measurements of other kinds: objects of the user, and matrices or operators that act on the entries in a row."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays import check_together, dtype_name, is_complex, is_linear_operator, is_sparse
from .._blocks import RowBlocks
from .._checks import check_integer
from ..linear_maps import LinearMap, as_linear_map
from .base import Measurements, check_shape
from .measurements import DenseMeasurements


class _Vectorised(Measurements):
    """A matrix of any kind, or a linear operator, that acts on the rows of X one after the other."""

    def __init__(self, A: LinearMap, shape: tuple[int, int]) -> None:
        self.A, self.shape, self.n_measurements = A, shape, A.shape[0]

    def _check_place(self, X: Any, name: str) -> None:
        xp = self.A.xp
        check_together(xp.empty((0,), dtype=xp.float64, device=self.A.device), X, names=("the measurements", name))

    def _apply(self, X: Any) -> Any:
        xp = array_namespace(X)
        return xp.astype(self.A.matmul(xp.reshape(X, (-1, 1)))[:, 0], X.dtype, copy=False)

    def _adjoint(self, y: Any) -> Any:
        xp = array_namespace(y)
        return xp.reshape(xp.astype(self.A.rmatmul(y[:, None])[:, 0], y.dtype, copy=False), self.shape)


class _Foreign(Measurements):
    """An object of the user with `apply` and `adjoint`, and with the other products if it has them."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.shape, self.n_measurements = (
            check_shape(base.shape),
            check_integer(base.n_measurements, "n_measurements", low=1),
        )

    def _apply(self, X: Any) -> Any:
        return self.base.apply(X)

    def _adjoint(self, y: Any) -> Any:
        return self.base.adjoint(y)

    def _factors(self, U: Any, V: Any) -> Any:
        own = getattr(self.base, "apply_factors", None)
        return super()._factors(U, V) if own is None else own(U, V)

    def _times(self, y: Any, V: Any) -> Any:
        own = getattr(self.base, "adjoint_times", None)
        return super()._times(y, V) if own is None else own(y, V)

    def _rtimes(self, y: Any, U: Any) -> Any:
        own = getattr(self.base, "adjoint_rtimes", None)
        return super()._rtimes(y, U) if own is None else own(y, U)


def as_measurements(A: Any, shape: tuple[int, int] | None = None) -> Measurements:
    """The measurements that an object of any accepted kind stands for; `shape` belongs to matrices and operators.

    Raises
    ------
    TypeError
        If A is of none of these kinds.
    ValueError
        If a matrix or operator does not fit `shape`, or has none and its columns are no square number.
    """
    if isinstance(A, Measurements) or all(hasattr(A, name) for name in ("apply", "adjoint", "n_measurements", "shape")):
        made = A if isinstance(A, Measurements) else _Foreign(A)
    elif is_linear_operator(A) or is_sparse(A) or isinstance(A, RowBlocks) or len(getattr(A, "shape", ())) == 2:
        return _Vectorised(*_acting(A, shape))
    elif len(getattr(A, "shape", ())) == 3:
        made = DenseMeasurements(A)
    else:
        raise TypeError(
            "measurements must be measurements, an array (m, d1, d2), a matrix or a linear operator, "
            f"got {type(A).__name__}"
        )
    if shape is not None and check_shape(shape) != tuple(made.shape):
        raise ValueError(f"shape must be that of the measurements, {tuple(made.shape)}, got {tuple(shape)}")
    return made


def _acting(A: Any, shape: tuple[int, int] | None) -> tuple[LinearMap, tuple[int, int]]:
    found = as_linear_map(A, name="measurements")
    if is_complex(found.dtype):
        raise ValueError(f"measurements must be real, got {dtype_name(found.dtype)}")
    side = math.isqrt(found.shape[1])
    sides = (side, side) if shape is None else check_shape(shape)
    if math.prod(sides) != found.shape[1]:
        raise ValueError(
            f"shape must have a product of {found.shape[1]}, the columns of the measurements, "
            f"got {sides}; pass shape=(d1, d2)"
        )
    return found, sides
