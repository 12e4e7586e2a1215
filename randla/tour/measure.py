"""Time and peak memory of one call, in this process.

On Linux the peak is the kernel's: the high-water mark of resident memory is reset before the call and read after it, so
LAPACK's workspace, the output and mapped pages of files all count.  Elsewhere it is what `tracemalloc` sees in a
second, untimed call: NumPy's arrays, without LAPACK's workspace.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measured:
    """What a call returned and cost."""

    value: Any
    seconds: float
    peak_bytes: int


def memory_method() -> str:
    """How `measure` finds the peak here, in words."""
    if _can_reset():
        return "highest resident memory during the call above that before it (VmHWM of Linux)"
    return "NumPy's allocations in a second, untimed call (tracemalloc); LAPACK's workspace is not counted"


def measure(call: Callable[[], Any], *, budget: float = 1.0, max_repeats: int = 5, compiles: bool = False) -> Measured:
    """Call once for value and peak memory, and again until `budget` seconds are spent; the least time counts.

    Where the first call `compiles`, it is made beforehand and not counted.
    """
    if compiles:
        call()
    value, seconds, peak = _resident(call) if _can_reset() else _traced(call)
    spent, repeats = seconds, 1
    while spent < budget and repeats < max_repeats:
        began = time.perf_counter()
        call()
        elapsed = time.perf_counter() - began
        seconds, spent, repeats = min(seconds, elapsed), spent + elapsed, repeats + 1
    return Measured(value, seconds, peak)


def _resident(call: Callable[[], Any]) -> tuple[Any, float, int]:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else memory that the allocator keeps would hide what the call takes
    _RESET.write_text("5")
    before = _status("VmRSS")
    began = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - began
    return value, seconds, max(0, _status("VmHWM") - before)


def _traced(call: Callable[[], Any]) -> tuple[Any, float, int]:
    began = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - began
    gc.collect()
    tracemalloc.start()
    try:
        call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return value, seconds, peak


def _can_reset() -> bool:
    try:
        _RESET.write_text("5")
        return _status("VmHWM") > 0
    except (OSError, StopIteration):
        return False


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024
