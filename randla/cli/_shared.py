"""What the commands share: exit codes, the kinds of option values, one way to load, to report and to write."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from .. import __version__

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "threadpoolctl", "array-api-compat")


@dataclass(frozen=True)
class Command:
    """One subcommand: its words, its options and what it does; `run` returns the exit code."""

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Mistake(Exception):
    """A user's mistake, told in one line; exit code 2."""


def say(message: str, code: int) -> int:
    sys.stderr.write(f"randla: {' '.join(message.split())}\n")
    return code


def write_line(text: str) -> None:
    sys.stdout.write(text + "\n")


# --- values of options ------------------------------------------------------------------------------------------------


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


count.__name__ = "integer"  # argparse names the type in its message


def seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


seed.__name__ = "integer"


def fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return value


fraction.__name__ = "number"


def penalty(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


penalty.__name__ = "number"


def memory(text: str) -> int:
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), 1
    if number and number[-1] in "KMGT":
        number, unit = number[:-1], 1024 ** ("KMGT".index(number[-1]) + 1)
    value = float(number) * unit
    if not (math.isfinite(value) and value >= 1):
        raise argparse.ArgumentTypeError(f"must be a positive amount such as 500M or 2G, got {text!r}")
    return int(value)


memory.__name__ = "amount of memory (500M, 2G)"


def add_file_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    parser.add_argument("file", metavar="FILE", help="matrix in .npy, .npz, .mtx, .csv, .tsv or .parquet")
    parser.add_argument("--out", metavar="OUT", help=out)
    parser.add_argument("--report", metavar="OUT.json", help="JSON report of the run; - writes it to the output")
    parser.add_argument(
        "--rng", type=seed, metavar="N", help="seed; the same seed gives the same sketch (default: drawn)"
    )
    parser.add_argument("--threads", type=count, metavar="N", help="threads to use (default: all that are allowed)")
    parser.add_argument(
        "--memory", type=memory, metavar="BUDGET", help="stream files larger than this, e.g. 500M (default: 1/4 of RAM)"
    )
    parser.add_argument("--array", metavar="NAME", help="which array of an .npz file")
    parser.add_argument(
        "--header",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the first line of a .csv file holds names",
    )


# --- what the file commands share -------------------------------------------------------------------------------------


def check_outputs(args: argparse.Namespace, endings: tuple[str, ...]) -> None:
    """Refuse before the work what could not be written after it."""
    from ..files import check_output

    if args.out and Path(args.out).suffix.lower() not in endings:
        raise Mistake(f"--out must end in {' or '.join(endings)}, got {args.out!r}")
    targets = [path for path in (args.out, args.report) if path and path != "-"]
    resolved = [check_output(path, inputs=(args.file,)) for path in targets]
    if len(set(resolved)) < len(resolved):
        raise Mistake("--out and --report must be two files")


def load(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The matrix of the file, and the part of the report that describes it."""
    from ..files import load_matrix

    began = time.perf_counter()
    A = load_matrix(args.file, memory=args.memory, array=args.array, header=args.header)
    if args.rng is None:
        args.rng = secrets.randbits(32)
    storage = (
        "stream" if not hasattr(A, "nbytes") and not hasattr(A, "nnz") else "sparse" if hasattr(A, "nnz") else "dense"
    )
    facts = {
        "file": str(args.file),
        "shape": list(A.shape),
        "dtype": str(A.dtype),
        "storage": storage,
        **({"nnz": int(A.nnz)} if storage == "sparse" else {}),
        "rng": args.rng,
        "seconds_reading": time.perf_counter() - began,
    }
    return A, facts


@contextlib.contextmanager
def limited(n: int | None) -> Iterator[None]:
    from .._parallel import threads

    with threads(n) if n is not None else contextlib.nullcontext():
        yield


def finish(args: argparse.Namespace, report: dict[str, Any], arrays: dict[str, Any], lines: list[str]) -> None:
    """Write what was asked for, and tell the rest."""
    import numpy as np

    from ..files import write_atomically

    if args.out and args.out.lower().endswith(".npy"):
        (only,) = arrays.values()
        write_atomically(args.out, lambda handle: np.save(handle, only, allow_pickle=False))
    elif args.out:
        write_atomically(args.out, lambda handle: np.savez(handle, allow_pickle=False, **arrays))
    report = {**report, "out": args.out, "versions": versions(PACKAGES)}
    if args.report == "-":
        write_line(as_json(report))
        return
    if args.report:
        write_atomically(args.report, lambda handle: _write_text(handle, as_json(report) + "\n"))
    for line in lines:
        write_line(line)
    if args.out:
        write_line(f"written  {args.out}")


def _write_text(handle: IO[bytes], text: str) -> None:
    handle.write(text.encode())


def as_json(report: dict[str, Any]) -> str:
    return json.dumps(_plain(report), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """`value` in JSON's types; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def describe(facts: dict[str, Any]) -> str:
    m, n = facts["shape"]
    size = f", {facts['nnz']:,} entries" if "nnz" in facts else ""
    return f"matrix   {m:,} x {n:,} {facts['dtype']}, {facts['storage']}{size}"


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {"randla": __version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
