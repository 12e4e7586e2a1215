"""Find the jobs, run them, and write the table, the pictures and the page."""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import IO, Any

from .. import __version__
from .._checks import check_choice
from .._parallel import available_threads
from ..files import FileError, write_atomically
from .job import Job, Outcome
from .measure import memory_method
from .progress import watch
from .report import page, render
from .table import text_table


def find_jobs() -> list[Job]:
    """Every `JOB` of the modules in `randla.tour.jobs`, in order."""
    package = import_module("randla.tour.jobs")
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    return sorted((module.JOB for module in modules), key=lambda job: (job.order, job.name))


def run_tour(out: Path, *, quick: bool = False, only: Sequence[str] | None = None) -> int:
    """Run the jobs, print their table and write ``index.html``, ``tour.json`` and the PNGs into `out`.

    Parameters
    ----------
    out : Path
        Folder; made if it is not there.
    quick : bool, default False
        Smaller parts of the same data.
    only : sequence of str, optional
        Names of the jobs to run; by default all.

    Returns
    -------
    int
        Exit code: 0.

    Raises
    ------
    FileError
        If `out` cannot be made or written.
    ImportError
        If matplotlib or pillow is missing.
    """
    began = time.perf_counter()
    jobs = find_jobs()
    for name in only or ():
        check_choice(name, "job", [job.name for job in jobs])
    _check_extras()
    _prepare(out)
    found: list[tuple[Job, Outcome]] = []
    with watch() as progress:
        for job in jobs:
            if only and job.name not in only:
                continue
            progress.begin(job.title, job.n_steps)
            found.append((job, job.run(quick, progress)))
            progress.end()
        progress.begin("Report", sum(len(outcome.figures) for _, outcome in found))
        pictures = {
            figure.name: render(figure, progress) for _, outcome in found for figure in outcome.figures
        }  # fmt: skip
        progress.end()
    facts = _facts(quick, time.perf_counter() - began)
    for name, (light, _) in pictures.items():
        write_atomically(out / f"{name}.png", partial(_write, light))
    record = {**facts, "jobs": [_record(job, outcome) for job, outcome in found]}
    write_atomically(out / "tour.json", partial(_write, (json.dumps(record, indent=2) + "\n").encode()))
    write_atomically(out / "index.html", partial(_write, page(found, pictures, facts).encode()))
    sys.stdout.write(text_table(found))
    sys.stdout.write(f"\n{facts['seconds']:.0f} s in all; open {out / 'index.html'}\n")
    return 0


def _write(data: bytes, handle: IO[bytes]) -> None:
    handle.write(data)


def _check_extras() -> None:
    for module, package in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        try:
            import_module(module)
        except ImportError:
            raise FileError(f"the tour needs {package}; install it with: pip install 'randla[plot]'") from None


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: {error.strerror or error}; choose another folder with --out") from None
    if not os.access(out, os.W_OK):
        raise FileError(f"{out}: permission denied; choose another folder with --out")


def _facts(quick: bool, seconds: float) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("numpy", "scipy", "numba", "scikit-learn", "matplotlib")}
    return {
        "quick": quick,
        "seconds": seconds,
        "threads": available_threads(),
        "memory_method": memory_method(),
        "versions": {"randla": __version__, **versions},
    }


def _record(job: Job, outcome: Outcome) -> dict[str, Any]:
    rows = [{**asdict(row), "excess": row.excess, "speedup": row.speedup} for row in outcome.rows]
    return {"name": job.name, "title": job.title, "size": outcome.size, "task": outcome.task, "rows": rows}
