"""What a job is made of: contests of calls, and the pairs of them that the table shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..common import Error, Sizes


@dataclass(frozen=True)
class Pair:
    """One line of the table: ours beside a peer, with a goal for the figure that `kind` names.

    "ratio" is our time over the peer's; "over" our seconds beyond the peer's; "rate" our work per second; "error" our
    error over the peer's.  A goal that is set by the faster of two peers is given to both.
    """

    ours: str
    peer: str
    goal: float | None = None
    kind: str = "ratio"


@dataclass(frozen=True)
class Contest:
    """Calls that are raced against each other on one problem.

    An error is a number, or several where one measure does not say enough; `error_kind` names them.
    """

    size: str
    calls: Mapping[str, Callable[[], Any]]
    pairs: Sequence[Pair]
    error_kind: str = ""
    error: Callable[[Any], Error] | None = None
    good_enough: Callable[[Any, Any], bool] | None = None  # of our error and the peer's, for a goal to count
    work: float = 0.0  # what "rate" counts
    timed_inside: bool = False  # the calls return their own seconds
    least: int = 3


Job: TypeAlias = Callable[[Sizes], Iterator[Contest]]


def shape_of(*sizes: int) -> str:
    return " x ".join(f"{size:,}" for size in sizes)


def sparse_shape(m: int, n: int, n_nonzeros: int) -> str:
    return f"{shape_of(m, n)}, {n_nonzeros:.0e} nonzeros".replace("e+0", "e")
