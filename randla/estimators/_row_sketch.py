"""The sketch of rows that come in blocks, from one source or from several: add, merge, solve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arrays import is_sparse
from .._random import Key
from ..operators import SparseSign

MAX_ROWS = 2**60  # columns of the sketch operator: a number for every row that may ever come
_TILE_BYTES = 2**25  # rows are gathered beside their targets, in double precision, about this much at a time


class RowSketch:
    """``S [X 1 y]`` of the weighted rows seen, where S is a sparse sign sketch of which row i meets column i.

    Which block a row came in, and in which process, leaves no trace but the order of additions.  As long as the rows
    are no more than those of the sketch they are kept themselves.
    """

    def __init__(self, key: Key, sketch_size: int, width: int) -> None:
        self.width = width
        self.operator = SparseSign(sketch_size, MAX_ROWS, rng=key)
        self.ranges: list[tuple[int, int]] = []  # disjoint, in order, neighbours joined
        self._kept: list[tuple[int, np.ndarray]] = []
        self._sums: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def next_row(self) -> int:
        """The number after that of the last row."""
        return self.ranges[-1][1] if self.ranges else 0

    @property
    def is_exact(self) -> bool:
        """True while `rows` are the rows themselves."""
        return self._sums is None

    @property
    def rows(self) -> np.ndarray:
        """The rows kept, or those of the sketch, in double precision."""
        return np.concatenate([panel for _, panel in self._kept]) if self._sums is None else self._sums

    def add(self, X: Any, columns: np.ndarray, roots: np.ndarray | None, start: int) -> None:
        """Take in the rows start, start + 1, ...: those of X beside those of `columns`, times `roots`."""
        if X.shape[0] == 0:
            return
        self.ranges = self._with(start, start + X.shape[0])
        if self._sums is None and self.n_rows <= self.operator.sketch_size:
            self._kept += [(start + lo, panel) for lo, panel in _panels(X, columns, roots)]
            self._kept.sort(key=lambda block: block[0])
            return
        total = self._sketched()
        if is_sparse(X):
            scaled = X if roots is None else X.multiply(roots[:, None]).tocsr()
            beside = columns if roots is None else columns * roots[:, None]
            total[:, : X.shape[1]] += self.operator.matmul(scaled.astype(np.float64), start=start)
            total[:, X.shape[1] :] += self.operator.matmul(beside, start=start)
        else:
            for lo, panel in _panels(X, columns, roots):
                total += self.operator.matmul(panel, start=start + lo)

    def merge(self, other: RowSketch) -> None:
        """Take in the rows that `other` has seen."""
        if other.operator != self.operator:
            raise ValueError(
                f"other must have the key and the size of {self.operator!r}, got {other.operator!r}; "
                "give all estimators the same integer random_state, and the same sketch_size"
            )
        ranges = self.ranges
        try:
            for start, stop in other.ranges:
                self.ranges = self._with(start, stop)
        except ValueError:
            self.ranges = ranges
            raise
        if self._sums is None and other._sums is None and self.n_rows <= self.operator.sketch_size:
            self._kept = sorted(self._kept + other._kept, key=lambda block: block[0])
            return
        total = self._sketched()
        if other._sums is not None:
            total += other._sums
        for start, panel in other._kept:
            total += self.operator.matmul(panel, start=start)

    def _sketched(self) -> np.ndarray:
        """The sums, after the rows kept so far have gone into them."""
        if self._sums is None:
            self._sums = np.zeros((self.operator.sketch_size, self.width))
            for start, panel in self._kept:
                self._sums += self.operator.matmul(panel, start=start)
            self._kept = []
        return self._sums

    def _with(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The ranges with this one."""
        if stop > MAX_ROWS:
            raise ValueError(f"start must leave the rows below 2**60, got {start} for a block of {stop - start}")
        joined: list[tuple[int, int]] = []
        for lo, hi in sorted([*self.ranges, (start, stop)]):
            if joined and lo < joined[-1][1]:
                raise ValueError(
                    f"start must give every row a number of its own, got rows {start} to {stop - 1} where rows "
                    f"{max(lo, joined[-1][0])} to {min(hi, joined[-1][1]) - 1} are in already"
                )
            if joined and lo == joined[-1][1]:
                joined[-1] = (joined[-1][0], hi)
            else:
                joined.append((lo, hi))
        return joined


def _panels(X: Any, columns: np.ndarray, roots: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of ``[X columns]``, weighted, dense and in double precision."""
    width = X.shape[1] + columns.shape[1]
    step = max(1, _TILE_BYTES // (8 * width))
    for lo in range(0, X.shape[0], step):
        block = X[lo : lo + step]
        panel = np.empty((block.shape[0], width))
        panel[:, : X.shape[1]] = block.toarray() if is_sparse(block) else block
        panel[:, X.shape[1] :] = columns[lo : lo + step]
        if roots is not None:
            panel *= roots[lo : lo + step, None]
        yield lo, panel
