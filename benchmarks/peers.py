"""Side by side with SciPy, scikit-learn and fbpca, in one run: times, errors, ratios, and whether the goals hold.

    python -m benchmarks.peers [--jobs countsketch svd-dense ...] [--quick] [--threads 1 2] [--out FOLDER] [--page PAGE]

Calls of one line alternate, and the least time of each counts.  On one thread that is processor time, which other
processes on the machine disturb least; on several it is wall time.  Goals are for one thread and the full sizes,
and shown there only.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import randla

from .common import FULL, QUICK, Error, Sizes, blas_kernels, clock, cores, pinned, race
from .jobs import JOBS, Contest, Pair

PACKAGES = ("numpy", "scipy", "scikit-learn", "fbpca", "numba")
MARKS = "<!-- measured -->", "<!-- end -->"  # where a page takes the report
HOW_WRONG = """\
Errors stand beside the times.  *distortion*: max |sigma - 1| over the singular values sigma of S U, where U is an
orthonormal basis of the columns of the matrix and S U comes from the very result that was timed; the matrix is normal
with one heavy row for each column (coherent), and a sketch has 4 rows for each of its columns.  *relative error*:
Frobenius norm on 200 rows against sums in extended precision.  *error / optimal*: ||A - U S Vh|| over the least
possible one of this rank.  *captured energy*: ||A.T U||^2, more is better.

Least squares: A has norm 1, log-spaced singular values and incoherent singular vectors; b = A x + r with ||x|| = 1,
||r|| = 1e-3 and r orthogonal to A.  *excess*: ||b - A x|| over that of SciPy's gelsy, less 1.  *backward error*: the
estimate of Karlson and Walden with the exact singular values of A, relative to its Frobenius norm; a goal holds where
the excess is at most 1e-12 and the backward error at most 10 times that of gelsy.  *score error*: the largest error
of a leverage score, relative to that score; half of each column lies in a thousandth of the rows, so scores span four
orders of magnitude.  *excess objective*: the sum of absolute residuals over the least possible one, less 1.  *product
error*: ||W - A.T B|| / (||A|| ||B||) in Frobenius norms, the median over 20 keys, at equal storage; that of W = 0
stands with the size.  *kernel error*: ||Z Z.T - K|| / ||K|| for the first 500 rows.  *objective*, of implicit
feedback: what both minimise, computed alike for both; ours makes the fewest sweeps that come down to that of fifteen of
the peer's."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    job: str
    size: str
    threads: int
    peer: str
    peer_seconds: float
    peer_error: Error
    ours: str
    seconds: float
    error: Error
    error_kind: str
    ratio: float
    figure: float
    goal: float | None
    goal_kind: str
    holds: bool | None
    rounds: int


def lines(job: str, sizes: Sizes, n_threads: int, budget: float) -> Iterator[Line]:
    """Run the contests of a job; a goal counts at the full sizes, on one thread."""
    with pinned(n_threads):
        for contest in JOBS[job](sizes):
            now = None if contest.timed_inside else clock(n_threads)
            seconds, errors, rounds = race(
                contest.calls, now, budget=budget * len(contest.calls), least=contest.least, inspect=contest.error
            )
            for pair in contest.pairs:
                yield _line(job, contest, pair, n_threads, seconds, errors, rounds, sizes is FULL and n_threads == 1)


def _line(
    job: str, contest: Contest, pair: Pair, n_threads: int, seconds: dict[str, float],
    errors: dict[str, Error], rounds: int, counts: bool,
) -> Line:  # fmt: skip
    peer, ours = seconds[pair.peer], seconds[pair.ours]
    figures = {
        "ratio": lambda: ours / peer,
        "over": lambda: ours - peer,
        "rate": lambda: contest.work / ours,
        "error": lambda: errors[pair.ours] / errors[pair.peer],
    }
    figure = figures[pair.kind]()
    holds = None
    if counts and pair.goal is not None:
        holds = figure >= pair.goal if pair.kind == "rate" else figure <= pair.goal
        if contest.good_enough is not None:
            holds = holds and contest.good_enough(errors[pair.ours], errors[pair.peer])
    return Line(
        job, contest.size, n_threads, pair.peer, peer, errors[pair.peer], pair.ours, ours, errors[pair.ours],
        contest.error_kind, ours / peer, figure, pair.goal if counts else None, pair.kind, holds, rounds,
    )  # fmt: skip


# --- the table --------------------------------------------------------------------------------------------------------


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _error(value: Error) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{number:.1e}" for number in value)
    return "" if value is None else f"{value:.5g}"


def _figure(value: float, kind: str) -> str:
    text = {
        "ratio": f"{value:.2f}" if value >= 0.1 else f"{value:.2g}",
        "over": f"{value:.3f} s more",
        "rate": f"{value / 1e6:.0f} M/s",
        "error": f"{value:.2g} of its error",
    }
    return text[kind]


def _goal(line: Line) -> str:
    if line.goal is None:
        return ""
    text = {
        "ratio": "<= {:.2f}", "over": "<= {:.2f} s more", "rate": ">= {:.0f} M/s", "error": "<= {:.2f} of its error",
    }  # fmt: skip
    return text[line.goal_kind].format(line.goal / 1e6 if line.goal_kind == "rate" else line.goal)


def markdown(table: Sequence[Line]) -> str:
    """The table, by job."""
    head = "| job and size | threads | peer | time | error | randla | time | error | figure | goal | holds |"
    rows = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for line in table:
        first = f"{line.job}: {line.size}" + (f" ({line.error_kind})" if line.error_kind else "")
        holds = {None: "", True: "yes", False: "**no**"}[line.holds]
        cells = (
            first, line.threads, line.peer, _time(line.peer_seconds), _error(line.peer_error), line.ours,
            _time(line.seconds), _error(line.error), _figure(line.figure, line.goal_kind), _goal(line), holds,
        )  # fmt: skip
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(rows)


def into_page(page: Path, report: str) -> None:
    """Put the report between the two marks of a page of the documentation."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"page must hold the lines {MARKS[0]} and {MARKS[1]}, got {page.name}")
    page.write_text(f"{before}{MARKS[0]}\n\n{report}\n{end}{after}", encoding="utf-8")


def surroundings() -> dict[str, object]:
    """Versions, BLAS kernels and processor."""
    return {
        "python": platform.python_version(),
        "randla": randla.__version__,
        "packages": {name: version(name) for name in PACKAGES},
        "blas": blas_kernels(),
        "machine": platform.machine(),
        "cores": cores(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", nargs="+", choices=sorted(JOBS), default=list(JOBS), metavar="JOB", help=", ".join(JOBS)
    )
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, cores()}), help="default: one, and all")
    parser.add_argument("--quick", action="store_true", help="small problems, for a look; no goal is judged")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="spent on each call, default 2; three calls at least"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of peers.md and .json"
    )
    parser.add_argument("--page", type=Path, help="page of the documentation whose table is replaced")
    options = parser.parse_args(argv)
    sizes, budget = (QUICK, min(options.seconds, 0.3)) if options.quick else (FULL, options.seconds)
    about = surroundings()
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    header = f"Python {about['python']}, {packages}; {about['cores']} cores.\nBLAS: {'; '.join(about['blas'])}.\n"
    print(header, flush=True)
    table: list[Line] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for job in options.jobs:
        for n_threads in sorted(set(options.threads)) if job != "start" else (1,):
            new = list(lines(job, sizes, n_threads, budget))
            table += new
            print("\n".join(markdown(new).splitlines()[0 if len(table) == len(new) else 2 :]), flush=True)
        # written after each job, so that an interrupted run keeps what it measured
        report = f"{header}\n{HOW_WRONG}\n\n{markdown(table)}\n"
        (options.out / "peers.md").write_text(report, encoding="utf-8")
        record = {"about": about, "quick": options.quick, "lines": [asdict(line) for line in table]}
        (options.out / "peers.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    if options.page is not None:
        into_page(options.page, report)
    judged = [line.holds for line in table if line.holds is not None]
    if judged:
        print(f"\n{sum(judged)} of {len(judged)} goals hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
