"""How kernels are compiled: without the GIL, and cached on disk where there is a place to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any] | None = None, *, fastmath: Any = False) -> Any:
    """``njit(nogil=True, cache=True)``; where no cache can be written, each process compiles again.

    Numba refuses to decorate when neither the package's folder nor the user's can be written to (a read-only container,
    NUMBA_CACHE_DIR on a full or locked disk), which would make the import fail.
    """
    if function is None:
        return lambda body: compiled(body, fastmath=fastmath)
    try:
        return njit(nogil=True, cache=True, fastmath=fastmath)(function)
    except RuntimeError:
        return njit(nogil=True, fastmath=fastmath)(function)
