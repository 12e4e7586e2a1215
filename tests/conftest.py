"""Fixtures and helpers that all tests share."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from randla._arrays import eps

#: Every reason for which a test may be skipped.  The summary counts them; `skip` takes no other reason.
SKIPS = {
    "gpu": "no CUDA device with CuPy here",
    "torch": "PyTorch is not installed",
    "g++": "no g++ with C++20 here: the CUDA sources are not run on the host",
    "tsan": "this g++ has no working ThreadSanitizer",
    "nvrtc": "neither the NVRTC wheel nor nvcc is installed: the CUDA sources are not compiled",
    "dask": "Dask is not installed",
    "pyarrow": "PyArrow is not installed",
    "fork": "this system cannot fork",
    "lightphe": "lightphe is not installed: nothing is encrypted",
    "nations": "RANDLA_NATIONS is not set to the path of the Nations data",
    "ml100k": "RANDLA_ML100K names no file u.data of MovieLens 100K",
    "scipy": "SCIPY_ARRAY_API is not set: not checking array_api input",  # said by scikit-learn's own checks
}


def skip(reason: str) -> None:
    """Skip the running test for one of the reasons in `SKIPS`."""
    pytest.skip(SKIPS[reason])


def tolerance(dtype: Any, size: int, norm: float = 1.0) -> float:
    """Largest plausible rounding error of a sum of `size` terms: ``8 eps(dtype) sqrt(size) norm``.

    `norm` is the size of the result or of the terms, whichever is larger.  8 covers the few operations per term; the
    square root is the growth of errors that are not all of one sign, as pairwise and blocked sums have them.
    """
    return 8 * eps(dtype) * max(1, size) ** 0.5 * float(norm)


def _cuda_device() -> bool:
    if find_spec("cupy") is None:
        return False
    try:
        return import_module("cupy").cuda.runtime.getDeviceCount() > 0
    except Exception:  # a driver that is missing or too old raises errors of CuPy's own
        return False


def _namespace(name: str) -> Any:
    if name == "torch" and find_spec("torch") is None:
        skip("torch")
    if name == "cupy" and not _cuda_device():
        skip("gpu")
    return import_module(f"array_api_compat.{name}" if name in ("torch", "cupy") else name)


@pytest.fixture(params=["numpy", "array_api_strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> Any:
    """An array namespace; use `put` to make its arrays."""
    return _namespace(request.param)


@pytest.fixture
def put(xp: Any) -> Callable[[Any], Any]:
    """Turns a host array into one of `xp`; that of array_api_strict lives on its second device, off the host."""
    if xp.__name__ == "array_api_strict":
        return lambda table: xp.asarray(np.ascontiguousarray(table), device=xp.Device("device1"))
    return xp.asarray


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Name of a real floating dtype."""
    return request.param


@pytest.fixture(params=["float32", "float64", "complex64", "complex128"])
def any_dtype(request: pytest.FixtureRequest) -> str:
    """Name of a floating dtype, real or complex."""
    return request.param


def _seed() -> int:
    """0, or RANDLA_TEST_SEED; the word "random" draws one, which the header prints."""
    setting = os.environ.get("RANDLA_TEST_SEED", "0")
    return secrets.randbelow(2**31) if setting == "random" else int(setting)


SEED = _seed()


@pytest.fixture
def seed() -> int:
    """Seed of the statistical tests; set RANDLA_TEST_SEED to change it."""
    return SEED


@pytest.fixture
def generator(seed: int) -> np.random.Generator:
    """NumPy generator for test data."""
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    """Close what a test drew, if it drew."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_configure() -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_report_header() -> str:
    return f"randla: RANDLA_TEST_SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not _cuda_device():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=SKIPS["gpu"]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many tests were skipped, and why."""
    reports = terminalreporter.stats.get("skipped", [])
    counts = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    terminalreporter.section("skipped tests by reason")
    for reason, count in sorted(counts.items()):
        known = "" if reason in SKIPS.values() else "  (not in the table of conftest.py)"
        terminalreporter.write_line(f"{count:5d}  {reason}{known}")
    terminalreporter.write_line(f"{sum(counts.values()):5d}  in all")


@pytest.fixture
def run(capsys):
    """Run the command line in this process; returns exit code and output, and checks the manner of errors."""

    from randla import cli

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in argv])
        out, err = capsys.readouterr()
        if code != cli.DONE:
            assert err.startswith("randla: ")
            assert err.count("\n") == 1, err
        assert "Traceback" not in err
        return code, out, err

    return call
