"""`randla info`."""

from __future__ import annotations

import argparse
import platform
from importlib import util
from typing import Any

from ._shared import DONE, PACKAGES, Command, as_json, versions, write_line

_EXTRAS = ("matplotlib", "rich", "pyarrow", "dask", "cupy-cuda12x", "cupy-cuda13x")


def _configure_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_info(args: argparse.Namespace) -> int:
    facts = system_facts()
    if args.json:
        write_line(as_json(facts))
        return DONE
    rows = [("python", facts["python"]), ("platform", facts["platform"])]
    rows += [(name, version or "not installed") for name, version in facts["versions"].items()]
    rows += [("BLAS", f"{pool['name']} {pool['version']}, {pool['threads']} threads") for pool in facts["blas"]]
    cuda = facts["cuda"]
    rows += [("threads", str(facts["threads"])), ("CUDA", cuda["devices"] or cuda["reason"])]
    for name, value in rows:
        write_line(f"{name:<18}{', '.join(value) if isinstance(value, list) else value}")
    return DONE


def system_facts() -> dict[str, Any]:
    """Return versions, BLAS, threads and CUDA of this installation, in JSON's types."""
    import numpy  # noqa: F401  loads its BLAS, which threadpoolctl then sees
    from threadpoolctl import threadpool_info

    from .._parallel import available_threads

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(PACKAGES + _EXTRAS),
        "blas": [
            {"name": pool["internal_api"], "version": pool["version"] or "", "threads": pool["num_threads"],
             "kernel": pool.get("architecture")}
            for pool in pools
        ],
        "threads": available_threads(),
        "cuda": _cuda_facts(),
    }  # fmt: skip


def _cuda_facts() -> dict[str, Any]:
    if util.find_spec("cupy") is None:
        return {"available": False, "devices": [], "reason": "CuPy is not installed (extras cuda12, cuda13)"}
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
    except Exception as error:  # a broken driver raises many kinds; the report must still come out
        return {
            "available": False,
            "devices": [],
            "reason": f"CuPy cannot use a device: {' '.join(str(error).split())}",
        }
    return {"available": bool(names), "devices": names, "reason": "" if names else "CuPy finds no device"}


COMMAND = Command("info", "Print versions, BLAS, threads and CUDA.", _configure_info, _run_info)
