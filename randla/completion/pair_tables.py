"""Tables of sums over pairs of columns: what was seen and nothing else, or square arrays where there are few columns.

A table has, for each pair and each group of rows, the number of rows that observe both columns and sums over them.
Tables add up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

DENSE_BYTES = 8 * 2**20  # of the counts of a square table: up to here it takes less than what a sparse one would fill


class Run(NamedTuple):
    """Sums at ascending keys ``(a n_features + b) n_groups + group`` with a < b."""

    keys: Any  # int64 (p,)
    counts: Any  # int64 (p,)
    sums: Any  # float64 (p, c)


class Pattern(NamedTuple):
    """Pairs a < b in the order of rows: those of a are ``indices[indptr[a]:indptr[a + 1]]``, and `rows` repeats a."""

    rows: Any
    indices: Any
    indptr: Any


class Collapsed(NamedTuple):
    """Counts and sums of pairs over several groups; the pattern is None for square arrays."""

    pattern: Pattern | None
    counts: Any  # (p,) or (d, d)
    sums: Any  # (p, c) or (c, d, d)


def merged(first: Run, second: Run) -> Run:
    """The run with the sums of both; each key occurs at most once in each."""
    xp = array_namespace(first.keys)
    keys = xp.concat([first.keys, second.keys])
    order = xp.argsort(keys, stable=True)  # of two ascending runs: a merge
    keys = keys[order]
    starts, place = places(keys)
    values = [xp.concat([mine, yours])[order] for mine, yours in zip(first[1:], second[1:], strict=True)]
    counts, sums = segment_sums(values, starts, place)
    return Run(keys[starts], counts, sums)


def places(values: Any) -> tuple[Any, Any]:
    """Where the values of an ascending vector begin, and which of the distinct values each entry is."""
    xp = array_namespace(values)
    new = xp.ones(values.shape[0], dtype=xp.bool)
    new[1:] = values[1:] != values[:-1]
    return xp.nonzero(new)[0], xp.cumulative_sum(xp.astype(new, xp.int64)) - 1


def segment_sums(arrays: list[Any], starts: Any, place: Any) -> list[Any]:
    """Sums of the rows of each array over stretches that begin at `starts`, in their order."""
    xp = array_namespace(starts)
    if is_numpy_namespace(xp):
        return [np.add.reduceat(A, starts, axis=0) if len(starts) else A for A in arrays]
    sums = [A[starts] for A in arrays]
    position = xp.arange(place.shape[0], dtype=xp.int64, device=device_of(place)) - starts[place]
    for step in range(1, int(xp.max(position)) + 1 if place.shape[0] else 1):
        here = xp.nonzero(position == step)[0]  # one entry of each stretch at most
        for total, A in zip(sums, arrays, strict=True):
            total[place[here]] += A[here]
    return sums


class SparseTable:
    """Only the pairs that occur, as sorted runs whose lengths at least halve: a pair is moved a logarithm of times."""

    sparse = True

    def __init__(self, n_features: int, n_groups: int, width: int, xp: Any) -> None:
        self.n_features, self.n_groups = n_features, n_groups
        none = xp.zeros(0, dtype=xp.int64)
        self._runs = [Run(none, none, xp.zeros((0, width), dtype=xp.float64))]

    def add(self, run: Run) -> None:
        """Take in the sums of a block."""
        self._runs.append(run)
        while len(self._runs) > 1 and self._runs[-2].keys.shape[0] <= 2 * self._runs[-1].keys.shape[0]:
            self._runs.append(merged(self._runs.pop(-2), self._runs.pop()))

    @property
    def size(self) -> int:
        """Keys that are stored, those of runs that overlap counted more than once."""
        return sum(int(run.keys.shape[0]) for run in self._runs)

    def merge(self, other: SparseTable) -> None:
        """Take in all that another table holds."""
        self.add(other.run())

    def run(self) -> Run:
        """All sums in one run."""
        while len(self._runs) > 1:
            self._runs.append(merged(self._runs.pop(-2), self._runs.pop()))
        return self._runs[0]

    def arrays(self) -> tuple[Any, ...]:
        """What `of` makes the table from again, as matrices."""
        run = self.run()
        return run.keys[None, :], run.counts[None, :], run.sums

    @classmethod
    def of(cls, arrays: tuple[Any, ...], n_features: int, n_groups: int) -> SparseTable:
        """The table with these arrays."""
        keys, counts, sums = arrays
        table = cls(n_features, n_groups, sums.shape[1], array_namespace(sums))
        table._runs = [Run(keys[0, :], counts[0, :], sums)]
        return table

    def pairs(self) -> Any:
        """The pair ``a n_features + b`` of each key of the run, ascending with repetitions."""
        return self.run().keys // self.n_groups

    def groups(self) -> Any:
        """The group of each key of the run."""
        return self.run().keys % self.n_groups

    def pattern(self, pairs: Any) -> Pattern:
        """Ascending pairs without repetitions, as rows."""
        xp, d = array_namespace(pairs), self.n_features
        rows = pairs // d
        indptr = xp.astype(xp.searchsorted(rows, xp.arange(d + 1, dtype=xp.int64)), xp.int64)
        return Pattern(rows, pairs % d, indptr)

    def collapsed(self, groups: range) -> Collapsed:
        """Sums over some groups."""
        run, pairs, number = self.run(), self.pairs(), self.groups()
        if len(groups) < self.n_groups:
            kept = (number >= groups.start) & (number < groups.stop)
            run, pairs, number = Run(*(part[kept] for part in run)), pairs[kept], number[kept]
        starts, place = places(pairs)
        counts, sums = segment_sums([run.counts, run.sums], starts, place)
        return Collapsed(self.pattern(pairs[starts]), counts, sums)


class DenseTable:
    """Square arrays of all pairs, both halves and the diagonal: counts (g, d, d) and sums (c, g, d, d)."""

    sparse = False

    def __init__(self, n_features: int, n_groups: int, width: int, xp: Any, like: Any) -> None:
        self.n_features, self.n_groups = n_features, n_groups
        shape = (n_groups, n_features, n_features)
        self.counts = xp.zeros(shape, dtype=xp.int64, device=like)
        self.sums = xp.zeros((width, *shape), dtype=xp.float64, device=like)

    def add(self, run: Run, turned: tuple[int, ...]) -> None:
        """Take in the sums of a block; component t of the pair (b, a) is `turned[t]` of the pair (a, b)."""
        pairs, group = run.keys // self.n_groups, run.keys % self.n_groups
        a, b = pairs // self.n_features, pairs % self.n_features
        self.counts[group, a, b] += run.counts
        self.counts[group, b, a] += run.counts
        for t in range(self.sums.shape[0]):
            self.sums[t, group, a, b] += run.sums[:, t]
            self.sums[t, group, b, a] += run.sums[:, turned[t]]

    def add_square(self, group: int, counts: Any, sums: list[Any]) -> None:
        """Take in counts (d, d) in doubles and sums (d, d) of rows of one group."""
        xp = array_namespace(self.counts)
        self.counts[group, ...] += xp.astype(xp.round(counts), xp.int64)
        for t, total in enumerate(sums):
            self.sums[t, group, ...] += total

    def merge(self, other: DenseTable) -> None:
        """Take in all that another table holds."""
        self.counts, self.sums = self.counts + other.counts, self.sums + other.sums

    def arrays(self) -> tuple[Any, ...]:
        """What `of` makes the table from again, as matrices."""
        xp, d = array_namespace(self.counts), self.n_features
        return xp.reshape(self.counts, (-1, d)), xp.reshape(self.sums, (-1, d))

    @classmethod
    def of(cls, arrays: tuple[Any, ...], n_features: int, n_groups: int) -> DenseTable:
        """The table with these arrays."""
        counts, sums = arrays
        xp = array_namespace(counts)
        table = cls.__new__(cls)
        table.n_features, table.n_groups = n_features, n_groups
        table.counts = xp.reshape(counts, (n_groups, n_features, n_features))
        table.sums = xp.reshape(sums, (-1, n_groups, n_features, n_features))
        return table

    def collapsed(self, groups: range) -> Collapsed:
        """Sums over some groups."""
        xp, part = array_namespace(self.counts), slice(groups.start, groups.stop)
        return Collapsed(None, xp.sum(self.counts[part, ...], axis=0), xp.sum(self.sums[:, part, ...], axis=1))


def dense_by_default(n_features: int, n_groups: int) -> bool:
    """True where square arrays are small."""
    return 8 * n_groups * n_features * n_features <= DENSE_BYTES


def all_within(values: Any, low: int, high: int) -> bool:
    """True if all integers are in [low, high)."""
    return bool(np.all((values >= low) & (values < high)))
