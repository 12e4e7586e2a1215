"""The table of all jobs in words: for the terminal, and cell by cell for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .job import Job, Outcome

#: Columns of the table, on the terminal and on the page.
COLUMNS = ("method", "time", "faster", "peak memory", "error", "estimated", "error / best")


def cells(row: Any) -> tuple[str, ...]:
    """The words of one row of the table, in the order of `COLUMNS`."""
    return (
        row.method,
        f"{1000 * row.seconds:.0f} ms" if row.seconds < 1 else f"{row.seconds:.2f} s",
        f"{row.speedup:.2g}x" if row.speedup and row.speedup < 10 else f"{row.speedup:.0f}x" if row.speedup else "",
        f"{row.peak_bytes / 1e6:,.0f} MB" if row.peak_bytes > 5e5 else "< 1 MB",
        f"{row.error:.4f}" if row.error > 1e-3 else f"{row.error:.1e}",
        "" if row.estimate is None else f"{row.estimate:.4f}" if row.estimate > 1e-3 else f"{row.estimate:.1e}",
        f"{row.excess:.4f}" if row.excess else "",
    )


def text_table(found: Sequence[tuple[Job, Outcome]]) -> str:
    """The table for a terminal: a heading and its rows for each job."""
    lines = []
    bodies = [[cells(row) for row in outcome.rows] for _, outcome in found]
    widths = [
        max(len(line[j]) for line in (COLUMNS, *(row for body in bodies for row in body))) for j in range(len(COLUMNS))
    ]
    for (job, outcome), body in zip(found, bodies, strict=True):
        lines += ["", f"{job.title}: {outcome.size}; {outcome.task}"]
        notes = ["", *(f"  ({row.note})" if row.note else "" for row in outcome.rows)]
        lines += ["  " + _aligned(line, widths) + note for line, note in zip((COLUMNS, *body), notes, strict=True)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        text.ljust(width) if j == 0 else text.rjust(width)
        for j, (text, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join((first, *rest))
