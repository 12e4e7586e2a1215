"""The intake gate: every array enters randla here and is known afterwards by kind, shape, dtype and device."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_namespace,
    is_numpy_namespace,
    is_torch_namespace,
    to_device,
)

_FLOATING = ("float32", "float64", "complex64", "complex128")


def is_sparse(A: Any) -> bool:
    """True for SciPy and cupyx sparse containers; imports neither."""
    return hasattr(A, "tocsr") and hasattr(A, "nnz") and hasattr(A, "format")


def is_linear_operator(A: Any) -> bool:
    """True for objects that offer products and a shape but no entries, such as SciPy's LinearOperator."""
    return hasattr(A, "shape") and hasattr(A, "matvec") and not is_sparse(A) and not is_array_api_obj(A)


def namespace_of(A: Any) -> Any:
    """The array namespace of a dense array, or the one whose arrays a sparse container is made of."""
    return array_namespace(A.data if is_sparse(A) else A)


def as_matrix(A: Any, *, name: str = "A", sparse: bool = True, vector: bool = False) -> Any:
    """Return `A` as a numeric 2-D array (or vector, or CSR/CSC matrix) of its own namespace; nothing is copied.

    Lists and data frames become NumPy arrays.  Integers and bools pass as they are: the algorithms convert them block
    by block to `floating_dtype(A)`, so a memory-mapped file is never copied whole.

    Raises
    ------
    TypeError
        If `A` is not numeric (strings, objects, masked arrays), or sparse where only dense arrays are taken.
    ValueError
        If `A` has the wrong number of axes, or is a ragged list.
    """
    if is_sparse(A):
        if not sparse:
            raise TypeError(f"{name} must be a dense array, got a sparse {A.format} matrix; pass {name}.toarray()")
        if A.ndim != 2:
            raise ValueError(f"{name} must be 2-D, got a sparse array of shape {tuple(A.shape)}")
        A = A if A.format in ("csr", "csc") else A.tocsr()
        _check_dtype(A.dtype, name)
        return A
    if isinstance(A, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked array; pass {name}.filled(value)")
    if isinstance(A, np.matrix) or not is_array_api_obj(A):
        A = _from_objects(A, name)
    _check_dtype(A.dtype, name)
    if A.ndim != 2 and not (vector and A.ndim == 1):
        wanted = "1-D or 2-D" if vector else "2-D"
        raise ValueError(
            f"{name} must be {wanted}, got shape {tuple(A.shape)}; use {name}.reshape(-1, 1) for one column"
        )
    return A


def _from_objects(A: Any, name: str) -> np.ndarray:
    if A is None or isinstance(A, (str, bytes, dict, set)):
        raise TypeError(f"{name} must be an array or a sparse matrix, got {type(A).__name__}")
    try:
        return np.asarray(A)
    except ValueError:
        raise ValueError(f"{name} must be rectangular, got rows of different lengths; pad them first") from None
    except TypeError:
        raise TypeError(f"{name} must be an array or a sparse matrix, got {type(A).__name__}") from None


def _check_dtype(dtype: Any, name: str) -> None:
    label = dtype_name(dtype)
    if not (label in _FLOATING or label in ("bool", "float16", "bfloat16") or label.startswith(("int", "uint"))):
        raise TypeError(
            f"{name} must have a real or complex numeric dtype of at most 64 bits a part, got {label}; "
            f"convert it first, for example with {name}.astype(float)"
        )


def dtype_name(dtype: Any) -> str:
    """The plain name of a dtype of any namespace, for example "float32"."""
    name = getattr(dtype, "name", getattr(dtype, "__name__", None))  # np.float32 is a class
    return str(name if name is not None else dtype).rsplit(".", 1)[-1]


def floating_dtype(A: Any, xp: Any) -> Any:
    """The dtype that computations on `A` use: the four floating ones stay, half becomes float32, the rest float64."""
    label = dtype_name(A.dtype)
    if label in _FLOATING:
        return getattr(xp, label)
    return xp.float32 if label in ("float16", "bfloat16") else xp.float64


def real_dtype(dtype: Any, xp: Any) -> Any:
    """The real dtype with the precision of `dtype`."""
    return xp.float32 if dtype_name(dtype) in ("float32", "complex64") else xp.float64


def is_complex(dtype: Any) -> bool:
    """True for complex64 and complex128 of any namespace."""
    return dtype_name(dtype).startswith("complex")


def eps(dtype: Any) -> float:
    """Machine epsilon of the real dtype under `dtype`."""
    return float(np.finfo(np.float32 if dtype_name(dtype) in ("float32", "complex64") else np.float64).eps)


def from_host(table: np.ndarray, xp: Any, like: Any) -> Any:
    """A NumPy table as an array of namespace `xp`, on the device of `like`."""
    if is_numpy_namespace(xp):
        return table
    if is_cupy_namespace(xp):
        return xp.asarray(table)
    return to_device(xp.asarray(np.ascontiguousarray(table)), device(like))


def to_host(A: Any) -> np.ndarray:
    """`A` as a NumPy array, whatever its device; only for data that leave the library (files, pictures, reports)."""
    xp = array_namespace(A)
    if is_numpy_namespace(xp):
        return np.asarray(A)
    if is_cupy_namespace(xp):
        return A.get()
    return np.asarray(to_device(A, "cpu") if is_torch_namespace(xp) else np.from_dlpack(A))


def check_together(A: Any, B: Any, *, names: tuple[str, str]) -> None:
    """Raise ValueError unless the two arrays share their namespace and device."""
    first, second = (namespace_of(X) for X in (A, B))
    places = [str(device(X.data if is_sparse(X) else X)) for X in (A, B)]
    if first is not second or places[0] != places[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must live in one array library and on one device, "
            f"got {first.__name__} on {places[0]} and {second.__name__} on {places[1]}; move one of them"
        )
