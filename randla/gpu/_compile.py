"""CUDA sources become modules at their first launch, one for each real type; CuPy loads them on each device."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import numpy as np

BLOCK = 256  # threads of a block
MOST_BLOCKS = 2**20  # kernels stride over the grid, so more blocks bring nothing

#: The C type under a dtype; complex entries are pairs of it.
REAL = {"float32": "float", "complex64": "float", "float64": "double", "complex128": "double"}

# Tables are equal on every backend bit for bit, so their products and sums are rounded one by one.
_OPTIONS = {"tables": ("--fmad=false",)}


def source(stem):
    """The text of ``cuda/<stem>.cu`` with its headers put in."""
    folder = files(__package__) / "cuda"
    text = (folder / f"{stem}.cu").read_text(encoding="utf-8")
    return re.sub(r'#include "(\w+\.h)"', lambda found: (folder / found[1]).read_text(encoding="utf-8"), text)


def options(stem, real):
    """Compiler options of a source for the C type `real` of its arrays."""
    return ("--std=c++17", f"-DRANDLA_REAL={real}", *_OPTIONS.get(stem, ()))


@cache
def _function(stem, name, real):
    import cupy

    return cupy.RawModule(code=source(stem), options=options(stem, real)).get_function(name)


def launch(stem, name, n_items, *arguments, dtype="float32", per_block=BLOCK, threads=BLOCK, shared=0):
    """Run a kernel on the current device; its first argument is the number of items, Python integers get 64 bits.

    A block has `threads` threads, at most `BLOCK`, and `shared` bytes of what its source calls RANDLA_SHARED.
    """
    if n_items > 0:
        function = _function(stem, name, REAL[np.dtype(dtype).name])
        wide = tuple(np.int64(a) if isinstance(a, int) else a for a in (n_items, *arguments))
        grid, block = (min(-(-n_items // per_block), MOST_BLOCKS),), (min(threads, BLOCK),)
        function(grid, block, wide, shared_mem=shared)


def seed(key, stream):
    """The words of a key and the number of a stream, as kernels take them."""
    return np.uint32(key.lo), np.uint32(key.hi), np.uint32(stream)
