"""Stand-in for CuPy: NumPy arrays, and kernels that run on the CPU from the same CUDA sources.

Kernels without barriers are built as a plain C++ loop; those with barriers, and all of them where `threads` is set,
from their device text with a stack for each CUDA thread (cuda_on_host.hpp).  Every launch is checked against the
signature in the source: number, order and width of the arguments, types of the arrays, size of the grid.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

HERE = Path(__file__).parent

#: C type -> dtypes that an argument may have; T is added by `_dtypes`.
DTYPES = {
    "i64": ("int64",), "u32": ("uint32",), "int": ("int32",), "signed char": ("int8",), "double": ("float64",),
}  # fmt: skip
SCALARS = {"int64": ctypes.c_int64, "uint32": ctypes.c_uint32, "float64": ctypes.c_double}
REALS = {"float": ("float32", "complex64"), "double": ("float64", "complex128")}

#: What CuPy calls like NumPy does; names that no launcher uses are left out, so that a new one is noticed.
NAMES = (
    "arange", "argpartition", "argsort", "array", "asarray", "ascontiguousarray", "concatenate", "cumsum", "diff",
    "dtype", "empty", "flatnonzero", "float32", "float64", "full", "inf", "int32", "int64", "int8", "isfinite",
    "searchsorted", "take_along_axis", "uint32", "where", "zeros",
)  # fmt: skip


def has_compiler() -> bool:
    """True if there is a g++ that knows C++20 barriers."""
    return shutil.which("g++") is not None and _knows_barriers()


@functools.cache
def _knows_barriers() -> bool:
    command = ["g++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input="#include <barrier>", text=True, capture_output=True).returncode == 0


def signatures(code: str) -> dict[str, list[tuple[str, bool, str]]]:
    """Kernel name -> (C type, is it a pointer, name) of each parameter."""
    found = {}
    for name, text in re.findall(r"^RANDLA_KERNEL (\w+)\(([^)]*)\)", code, flags=re.MULTILINE):
        parameters = (re.fullmatch(r"(?:const )?([\w ]+?) ?(\*?)(\w+)", p.strip()) for p in text.split(","))
        found[name] = [(p[1], bool(p[2]), p[3]) for p in parameters]
    return found


def host_text(code: str, *, threads: bool) -> str:
    """C++ of a CUDA source; with `threads`, its device text and a wrapper ``host_<name>`` for each kernel."""
    if not threads:
        return code
    wrappers = []
    for name, parameters in signatures(code).items():
        declared = ", ".join(f"{kind} {'*' * pointer}{label}" for kind, pointer, label in parameters)
        passed = ", ".join(label for _, _, label in parameters)
        body = f"return launch(grid, block, [=] {{ {name}({passed}); }}, shared);"
        team = "unsigned grid, unsigned block, unsigned shared"
        wrappers.append(f'extern "C" int host_{name}({team}, {declared}) {{ {body} }}')
    header = (HERE / "cuda_on_host.hpp").read_text(encoding="utf-8").replace("#pragma once\n", "")
    return "\n".join([header, code, *wrappers])


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="randla-host-")


def build(text: str, flags: tuple[str, ...], *, shared: bool = True) -> Path:
    """Path of the library (or program) built from C++ text; built once in the life of this process."""
    digest = hashlib.sha256("\0".join([text, *flags]).encode()).hexdigest()[:16]
    target = Path(_folder().name) / (f"{digest}.so" if shared else digest)
    if not target.exists():
        options = ["-std=c++20", "-O1", "-ffp-contract=off", "-pthread", *(["-shared", "-fPIC"] if shared else [])]
        command = ["g++", *options, *flags, "-x", "c++", "-", "-o", str(target)]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    return target


class RawModule:
    """CuPy's class, for the keywords that launchers use."""

    #: Set by `installed`: (compiler flags, run everything from device text, {old: new} text of mutated kernels).
    setting: tuple[tuple[str, ...], bool, dict[str, str]] = ((), False, {})

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
        flags, threads, mutations = self.setting
        for old, new in mutations.items():
            code = code.replace(old, new)
        definitions = [option for option in options if option.startswith("-D")]
        self.real = definitions[0].removeprefix("-DRANDLA_REAL=")
        self.threads = threads or "__syncthreads" in code
        self.signatures = signatures(code)
        self.library = ctypes.CDLL(str(build(host_text(code, threads=self.threads), (*flags, *definitions))))

    def _convert(self, label: str, kind: str, pointer: bool, value: object) -> object:
        if not isinstance(value, np.ndarray if pointer else np.generic):
            raise TypeError(f"{label}: expected {'an array' if pointer else 'a scalar of fixed width'}, got {value!r}")
        wanted = REALS[self.real] if kind == "T" else DTYPES[kind]
        if value.dtype.name not in wanted:
            raise TypeError(f"{label}: expected {' or '.join(wanted)}, got {value.dtype}")
        return ctypes.c_void_p(value.ctypes.data) if pointer else SCALARS[value.dtype.name](value)

    def get_function(self, name: str):
        function = getattr(self.library, f"host_{name}" if self.threads else name)
        parameters = self.signatures[name]

        def call(grid: tuple[int], block: tuple[int], arguments: tuple, *, shared_mem: int = 0) -> None:
            if not (1 <= grid[0] < 2**31 and 1 <= block[0] <= 1024):
                raise ValueError(f"{name}: no device runs a grid of {grid} blocks of {block} threads")
            if not 0 <= shared_mem <= 48 * 1024:
                raise ValueError(f"{name}: no block has {shared_mem} bytes of shared memory unless it asks for them")
            if len(arguments) != len(parameters):
                raise TypeError(f"{name} takes {len(parameters)} arguments, got {len(arguments)}")
            converted = [
                self._convert(f"{name}, {label}", kind, pointer, value)
                for (kind, pointer, label), value in zip(parameters, arguments, strict=True)
            ]
            team = tuple(map(ctypes.c_uint, (grid[0], block[0], shared_mem))) if self.threads else ()
            strayed = function(*team, *converted)
            if self.threads and strayed:
                raise RuntimeError(f"{name}: threads of a block wait at a barrier that others never come to")

        return call


def _modules() -> dict[str, ModuleType]:
    import scipy.sparse

    modules = {name: ModuleType(name) for name in ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.sparse")}
    modules["cupy"].__dict__.update({name: getattr(np, name) for name in NAMES}, RawModule=RawModule)
    modules["cupyx.scipy.sparse"].csr_matrix = scipy.sparse.csr_matrix
    return modules


@contextmanager
def installed(
    *, flags: tuple[str, ...] = (), threads: bool = False, mutations: dict[str, str] | None = None
) -> Iterator[ModuleType]:
    """Put the stand-in in the place of CuPy, and give `randla.gpu`."""
    import randla.gpu as gpu
    from randla.gpu import _compile

    modules = _modules()
    saved = {name: sys.modules.get(name) for name in modules}
    RawModule.setting = (flags, threads, mutations or {})
    sys.modules.update(modules)
    _compile._function.cache_clear()
    try:
        yield gpu
    finally:
        _compile._function.cache_clear()
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
