"""The command line: `randla tour | svd | sketch | info`.

Exit codes: 0 done; 1 ran, but missed the tolerance or failed at run time; 2 the user's mistake (arguments, files);
130 interrupted.  Errors are one line on stderr.  A command is one `Command` in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import IO, Any, NoReturn

from . import __version__

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

_KINDS = ("auto", "gaussian", "rademacher", "sparse-jl", "sparse-sign", "countsketch", "less", "srht", "srct", "rows")
_PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "threadpoolctl", "array-api-compat")
_EXTRAS = ("matplotlib", "rich", "pyarrow", "dask", "cupy-cuda12x", "cupy-cuda13x")


@dataclass(frozen=True)
class Command:
    """One subcommand: its words, its options and what it does; `run` returns the exit code."""

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Mistake(Exception):
    """A user's mistake, told in one line; exit code 2."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise _Mistake(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (by default the process's own arguments) and return the exit code."""
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help and --version
        return DONE if leaving.code is None else int(leaving.code)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has left; a second flush at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError as error:
        return _say(f"not enough memory: {error or 'try --memory with a smaller budget, or a smaller rank'}", FAILED)
    except (_Mistake, ValueError, TypeError, NotImplementedError) as error:
        if os.environ.get("RANDLA_TRACEBACK"):
            raise
        return _say(str(error), MISTAKE)
    except Exception as error:
        if os.environ.get("RANDLA_TRACEBACK"):
            raise
        return _say(f"{type(error).__name__}: {error} (set RANDLA_TRACEBACK=1 to see where)", FAILED)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"randla: {' '.join(message.split())}\n")
    return code


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="randla", description="Randomized linear algebra that says how wrong it is.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"randla {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser


# --- values of options ------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


_count.__name__ = "integer"  # argparse names the type in its message


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


_seed.__name__ = "integer"


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text}")
    return value


_fraction.__name__ = "number"


def _bytes(text: str) -> int:
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), 1
    if number and number[-1] in "KMGT":
        number, unit = number[:-1], 1024 ** ("KMGT".index(number[-1]) + 1)
    value = float(number) * unit
    if not (math.isfinite(value) and value >= 1):
        raise argparse.ArgumentTypeError(f"must be a positive amount such as 500M or 2G, got {text!r}")
    return int(value)


_bytes.__name__ = "amount of memory (500M, 2G)"


def _add_file_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    parser.add_argument("file", metavar="FILE", help="matrix in .npy, .npz, .mtx, .csv, .tsv or .parquet")
    parser.add_argument("--out", metavar="OUT", help=out)
    parser.add_argument("--report", metavar="OUT.json", help="JSON report of the run; - writes it to the output")
    parser.add_argument(
        "--rng", type=_seed, metavar="N", help="seed; the same seed gives the same sketch (default: drawn)"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="threads to use (default: all that are allowed)")
    parser.add_argument(
        "--memory", type=_bytes, metavar="BUDGET", help="stream files larger than this, e.g. 500M (default: 1/4 of RAM)"
    )
    parser.add_argument("--array", metavar="NAME", help="which array of an .npz file")
    parser.add_argument(
        "--header",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the first line of a .csv file holds names",
    )


# --- what the file commands share -------------------------------------------------------------------------------------


def _check_outputs(args: argparse.Namespace, endings: tuple[str, ...]) -> None:
    """Refuse before the work what could not be written after it."""
    from .files import check_output

    if args.out and Path(args.out).suffix.lower() not in endings:
        raise _Mistake(f"--out must end in {' or '.join(endings)}, got {args.out!r}")
    targets = [path for path in (args.out, args.report) if path and path != "-"]
    resolved = [check_output(path, inputs=(args.file,)) for path in targets]
    if len(set(resolved)) < len(resolved):
        raise _Mistake("--out and --report must be two files")


def _load(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The matrix of the file, and the part of the report that describes it."""
    from .files import load_matrix

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
def _limited(n: int | None) -> Iterator[None]:
    from ._parallel import threads

    with threads(n) if n is not None else contextlib.nullcontext():
        yield


def _finish(args: argparse.Namespace, report: dict[str, Any], arrays: dict[str, Any], lines: list[str]) -> None:
    """Write what was asked for, and tell the rest."""
    import numpy as np

    from .files import write_atomically

    if args.out and args.out.lower().endswith(".npy"):
        (only,) = arrays.values()
        write_atomically(args.out, lambda handle: np.save(handle, only, allow_pickle=False))
    elif args.out:
        write_atomically(args.out, lambda handle: np.savez(handle, allow_pickle=False, **arrays))
    report = {**report, "out": args.out, "versions": _versions(_PACKAGES)}
    if args.report == "-":
        _print(_as_json(report))
        return
    if args.report:
        write_atomically(args.report, lambda handle: _write_text(handle, _as_json(report) + "\n"))
    for line in lines:
        _print(line)
    if args.out:
        _print(f"written  {args.out}")


def _write_text(handle: IO[bytes], text: str) -> None:
    handle.write(text.encode())


def _as_json(report: dict[str, Any]) -> str:
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


def _describe(facts: dict[str, Any]) -> str:
    m, n = facts["shape"]
    size = f", {facts['nnz']:,} entries" if "nnz" in facts else ""
    return f"matrix   {m:,} x {n:,} {facts['dtype']}, {facts['storage']}{size}"


# --- svd --------------------------------------------------------------------------------------------------------------


def _configure_svd(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--rank", type=_count, metavar="K", help="number of singular triplets")
    goal.add_argument(
        "--tol", type=_fraction, metavar="T", help="find the rank whose error is at most T times the norm"
    )
    parser.add_argument(
        "--norm", choices=("frobenius", "spectral"), default="frobenius", help="norm of --tol and the error"
    )
    parser.add_argument("--max-rank", type=_count, metavar="K", help="with --tol: stop at this rank")
    parser.add_argument("--center", action="store_true", help="subtract the column means (PCA); nothing is densified")
    parser.add_argument("--passes", type=_count, metavar="N", help="read the data at most N times; 1 for a single view")
    _add_file_options(parser, out="write U, s, Vh (and the mean with --center) to this .npz file")


def _run_svd(args: argparse.Namespace) -> int:
    _check_outputs(args, (".npz",))
    if args.max_rank is not None and args.tol is None:
        raise _Mistake("--max-rank must go with --tol, got --rank; drop one of them")
    A, facts = _load(args)
    import randla

    began = time.perf_counter()
    with _limited(args.threads):
        result = randla.svd(
            A, args.rank, tol=args.tol, norm=args.norm, max_rank=args.max_rank, center=args.center,
            n_passes=args.passes, rng=args.rng, on_failure="ignore",
        )  # fmt: skip
    seconds = time.perf_counter() - began
    report = {
        "command": "svd",
        **facts,
        "tol": args.tol,
        "center": args.center,
        **{name: getattr(result, name) for name in ("rank", "error", "error_bound", "confidence", "error_kind")},
        **{name: getattr(result, name) for name in ("error_norm", "norm", "n_passes", "n_matvecs", "n_iter")},
        "status": result.status.name,
        "advice": result.status.advice,
        "singular_values": [float(value) for value in result.s],
        "seconds": seconds,
    }
    arrays = {"U": result.U, "s": result.s, "Vh": result.Vh}
    if args.center:
        arrays["mean"] = result.mean
    leading = ", ".join(f"{float(value):.5g}" for value in result.s[:6]) + (", ..." if result.rank > 6 else "")
    bound = f" (at most {result.error_bound:.3g} with probability {result.confidence:g})" if result.error_bound else ""
    _finish(args, report, arrays, [
        _describe(facts),
        f"rank     {result.rank}",
        f"values   {leading}",
        f"error    {result.error:.3g} of the {result.error_norm} norm, estimated{bound}",
        f"cost     {seconds:.2f} s, {result.n_passes} passes over the data, seed {args.rng}",
        f"status   {result.status.name.lower()}",
    ])  # fmt: skip
    if not result.converged:
        return _say(f"svd ended with {result.status.name}: {result.status.advice}", FAILED)
    return DONE


# --- sketch -----------------------------------------------------------------------------------------------------------


def _configure_sketch(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--size", type=_count, metavar="D", help="rows (columns with --axis 1) of the sketch")
    size.add_argument(
        "--epsilon", type=_fraction, metavar="E", help="choose the size for this distortion of the subspace"
    )
    parser.add_argument(
        "--kind", choices=_KINDS, default="auto", help="which operator (default: auto, with its reason)"
    )
    parser.add_argument("--axis", type=int, choices=(0, 1), default=0, help="0 compresses rows, 1 columns (default 0)")
    _add_file_options(parser, out="write the sketch to this .npy or .npz file")


def _run_sketch(args: argparse.Namespace) -> int:
    _check_outputs(args, (".npy", ".npz"))
    A, facts = _load(args)
    import numpy as np

    from .files import sketch_blocks
    from .operators import choose_sketch

    began = time.perf_counter()
    with _limited(args.threads):
        # the choice looks at shape and kind only; a stream is shown to it as zeros without storage
        outline = np.broadcast_to(np.zeros((), A.dtype), A.shape) if facts["storage"] == "stream" else A
        S, reason = choose_sketch(
            outline, args.size, epsilon=args.epsilon, kind=args.kind, axis=args.axis, rng=args.rng
        )
        if facts["storage"] == "stream":
            SA = sketch_blocks(S, A, axis=args.axis)
        else:
            SA = S @ A if args.axis == 0 else A @ S.T
    seconds = time.perf_counter() - began
    finite = bool(np.isfinite(SA).all())
    report = {
        "command": "sketch",
        **facts,
        "axis": args.axis,
        "operator": repr(S),
        "reason": reason,
        "sketch_shape": list(SA.shape),
        "finite": finite,
        "seconds": seconds,
    }
    _finish(args, report, {"sketch": SA}, [
        _describe(facts),
        f"operator {S!r}",
        f"reason   {reason}",
        f"sketch   {SA.shape[0]:,} x {SA.shape[1]:,} {SA.dtype}",
        f"cost     {seconds:.2f} s, seed {args.rng}",
    ])  # fmt: skip
    return DONE if finite else _say("note: the sketch holds NaN or infinity, because the data do", DONE)


# --- tour -------------------------------------------------------------------------------------------------------------


def _configure_tour(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", default="randla-tour", help="folder of the report (default randla-tour)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller parts of the same data, under 40 seconds")
    parser.add_argument("--job", action="append", metavar="NAME", help="run this job only; may be given several times")


def _run_tour(args: argparse.Namespace) -> int:
    from .tour import run_tour

    return run_tour(Path(args.out), quick=args.quick, only=args.job)


# --- info -------------------------------------------------------------------------------------------------------------


def _configure_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_info(args: argparse.Namespace) -> int:
    facts = system_facts()
    if args.json:
        _print(_as_json(facts))
        return DONE
    rows = [("python", facts["python"]), ("platform", facts["platform"])]
    rows += [(name, version or "not installed") for name, version in facts["versions"].items()]
    rows += [("BLAS", f"{pool['name']} {pool['version']}, {pool['threads']} threads") for pool in facts["blas"]]
    cuda = facts["cuda"]
    rows += [("threads", str(facts["threads"])), ("CUDA", cuda["devices"] or cuda["reason"])]
    for name, value in rows:
        _print(f"{name:<18}{', '.join(value) if isinstance(value, list) else value}")
    return DONE


def system_facts() -> dict[str, Any]:
    """Return versions, BLAS, threads and CUDA of this installation, in JSON's types."""
    import numpy  # noqa: F401  loads its BLAS, which threadpoolctl then sees
    from threadpoolctl import threadpool_info

    from ._parallel import available_threads

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(_PACKAGES + _EXTRAS),
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


def _versions(packages: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {"randla": __version__}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


COMMANDS = (
    Command(
        "tour", "Run randla beside the customary methods on real data and write a report.", _configure_tour, _run_tour
    ),
    Command("svd", "Truncated SVD or PCA of a matrix in a file.", _configure_svd, _run_svd),
    Command("sketch", "Compress the rows or columns of a matrix in a file.", _configure_sketch, _run_sketch),
    Command("info", "Print versions, BLAS, threads and CUDA.", _configure_info, _run_info),
)
