"""Progress on a terminal: bars where rich is installed, plain lines where it is not, silence where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Silent:
    """Says nothing; for pipes, logs and tests."""

    def begin(self, title: str, n_steps: int) -> None:
        """A job begins."""

    def step(self, text: str) -> None:
        """A step of it begins."""

    def end(self) -> None:
        """It is done."""


class Lines(Silent):
    """One line for each step on stderr."""

    def begin(self, title: str, n_steps: int) -> None:
        """Announce a job."""
        self._title, self._done, self._total = title, 0, n_steps

    def step(self, text: str) -> None:
        """Announce a step of it."""
        self._done += 1
        sys.stderr.write(f"{self._title} [{self._done}/{self._total}] {text}\n")
        sys.stderr.flush()


class Bars(Silent):
    """A bar for each job, with the step under way beside it."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    def begin(self, title: str, n_steps: int) -> None:
        """Add a bar."""
        self._task = self._bars.add_task(title, total=n_steps, step="")
        self._begun = False

    def step(self, text: str) -> None:
        """Advance it past the step before, and name this one."""
        self._bars.update(self._task, advance=int(self._begun), step=text)
        self._begun = True

    def end(self) -> None:
        """Fill it."""
        task = next(task for task in self._bars.tasks if task.id == self._task)
        self._bars.update(self._task, completed=task.total, step="done")


@contextmanager
def watch() -> Iterator[Silent]:
    """The progress that suits stderr."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Bars(bars)
