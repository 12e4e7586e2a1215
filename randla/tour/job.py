"""What a job of the tour is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


class Progress(Protocol):
    """What a job may say while it works."""

    def step(self, text: str) -> None:
        """One of the announced steps begins."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a method, its cost, its error."""

    method: str
    ours: bool
    seconds: float
    peak_bytes: int
    error: float
    estimate: float | None = None
    best: float | None = None
    reference_seconds: float | None = None
    note: str = ""

    @property
    def excess(self) -> float | None:
        """Error as a multiple of the best possible at the same rank."""
        return self.error / self.best if self.best else None

    @property
    def speedup(self) -> float | None:
        """How many times faster than the job's reference method."""
        return self.reference_seconds / self.seconds if self.reference_seconds else None


@dataclass(frozen=True)
class Figure:
    """A picture; ``draw(figure)`` fills an empty matplotlib figure, once for each colour scheme; `size` in inches.

    A `photo` is drawn once, on a transparent ground, for photographs need no second scheme.
    """

    name: str
    caption: str
    draw: Callable[[Any], object]
    size: tuple[float, float] = (5.8, 3.9)
    photo: bool = False


@dataclass(frozen=True)
class Table:
    """A small table of words for the page."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """What a job found: `size` is that of its matrix, `task` what the rows of the table do, `text` paragraphs."""

    size: str
    task: str
    rows: tuple[Row, ...]
    text: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = field(default=())


@dataclass(frozen=True)
class Job:
    """A job: `run(quick, progress)` calls ``progress.step`` up to `n_steps` times; low `order` runs first."""

    name: str
    title: str
    order: int
    n_steps: int
    run: Callable[[bool, Progress], Outcome]
