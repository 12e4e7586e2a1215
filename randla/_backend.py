"""Which module serves an array: a backend is a module, found by the namespace of the array."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from array_api_compat import is_cupy_namespace, is_numpy_namespace


def kernel(name: str, xp: Any) -> Callable[..., Any]:
    """The kernel called `name` for arrays of namespace `xp`.

    NumPy is served by Numba (`randla.kernels`), CuPy by CUDA (`randla.gpu`), any other array API namespace by the
    slow NumPy truth (`randla.kernels.reference`), whose callers move its tables to the device of the data.
    """
    if is_numpy_namespace(xp):
        module = "randla.kernels"
    elif is_cupy_namespace(xp):
        module = "randla.gpu"
    else:
        module = "randla.kernels.reference"
    return getattr(import_module(module), name)
