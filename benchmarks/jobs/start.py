"""Imports and first calls, in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..common import Sizes
from .contest import Contest, Pair

IMPORTS = {
    "import numpy": "import numpy",
    "import sklearn.random_projection": "import sklearn.random_projection",
    "import numpy, randla": "import numpy, randla",
    "import randla; randla.SparseSign": "import randla; randla.SparseSign",
    "sklearn SparseRandomProjection fitted and applied": (
        "import numpy as np; from sklearn.random_projection import SparseRandomProjection; "
        "SparseRandomProjection(20).fit_transform(np.ones((3, 100)))"
    ),
    "randla SparseSign made and applied": (
        "import numpy as np, randla; np.ones((3, 100)) @ randla.SparseSign(20, 100, rng=0).T"
    ),
}
_FIRST_CALL = """
import time
import numba
import numpy as np
A = np.ones((100, 3))
numba.njit(lambda x: x + 1)(1)  # Numba's own start, a quarter of a second, is that of both
{setup}
began = time.process_time()
{call}
print(time.process_time() - began)
"""
# the same job, with the same random words, in Numba's own threads
_PARALLEL = """
@numba.njit(parallel=True, cache=True)
def sketch(A, out, nnz, k0, k1):
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    rows, signs = np.empty((A.shape[0], nnz), np.int64), np.empty((A.shape[0], nnz))
    for i in numba.prange(A.shape[0]):
        c0, c1, c2, c3 = np.uint64(i), np.uint64(0), np.uint64(0), np.uint64(0)
        a, b = np.uint64(k0), np.uint64(k1)
        for r in range(10):
            p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ a, p1 & low, (p0 >> half) ^ c3 ^ b, p0 & low
            a, b = (a + np.uint64(0x9E3779B9)) & low, (b + np.uint64(0xBB67AE85)) & low
        for t in range(nnz):
            word = (c0, c1, c2, c3)[t % 4]
            rows[i, t] = np.int64((word >> np.uint64(1)) % np.uint64(out.shape[0]))
            signs[i, t] = 1.0 - 2.0 * np.float64(word & np.uint64(1))
    for j in numba.prange(A.shape[1]):
        for i in range(A.shape[0]):
            for t in range(nnz):
                out[rows[i, t], j] += signs[i, t] * A[i, j]
"""
FIRST_CALLS = {
    "numba parallel=True": {
        "setup": _PARALLEL,
        "call": "sketch(A, np.zeros((20, 3)), 8, 1, 2)",
    },
    "randla SparseSign @ A": {
        "setup": "import randla, randla.kernels\nS = randla.SparseSign(20, 100, rng=0)",
        "call": "S @ A",
    },
}


def start(sizes: Sizes) -> Iterator[Contest]:
    """Processor time of imports in fresh processes, and of the first call of a kernel."""
    calls = {name: partial(imported, code) for name, code in IMPORTS.items()}
    pairs = [
        Pair("import numpy, randla", "import numpy", 0.15, "over"),
        Pair("import randla; randla.SparseSign", "import sklearn.random_projection", 0.35),
        Pair("randla SparseSign made and applied", "sklearn SparseRandomProjection fitted and applied"),
    ]
    yield Contest("fresh process", calls, pairs, timed_inside=True, least=5)
    pairs = [Pair("randla SparseSign @ A", "numba parallel=True")]
    cold = {name: partial(_cold_call, name) for name in FIRST_CALLS}
    yield Contest("first call, nothing compiled", cold, pairs, timed_inside=True, least=2)
    with tempfile.TemporaryDirectory() as folder:
        cached = {name: partial(first_call, name, folder) for name in FIRST_CALLS}
        yield Contest("first call, compiled before", cached, pairs, timed_inside=True)


def _run(*arguments: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def imported(code: str) -> float:
    """Processor seconds of a fresh interpreter that runs `code`."""
    return _run("-c", f"import time; {code}; print(time.process_time())", PYTHONPATH=os.pathsep.join(sys.path))


def first_call(name: str, folder: str) -> float:
    """Processor seconds of the first call of a kernel in a fresh process, whose cache is in `folder`."""
    place = Path(folder) / name.split()[0]
    place.mkdir(exist_ok=True)
    program = place / "first_call.py"  # a file, and written once, since Numba caches by the file of a function
    if not program.exists():
        program.write_text(_FIRST_CALL.format(**FIRST_CALLS[name]), encoding="utf-8")
    return _run(str(program), NUMBA_CACHE_DIR=str(place), PYTHONPATH=os.pathsep.join(sys.path))


def _cold_call(name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return first_call(name, folder)
