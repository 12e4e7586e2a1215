"""What the jobs share: true errors, the best possible ones, and rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from .job import Row
from .measure import Measured, measure


def relative_error(A: Any, U: Any, s: Any, Vh: Any, *, mean: Any = None) -> float:
    """``||A - 1 mean' - U diag(s) Vh|| / ||A - 1 mean'||`` in the Frobenius norm, by blocks of rows.

    Dense: the residual itself is formed.  Sparse: ``||A||^2 - 2 <A, USV'> + ||USV'||^2``, nothing is densified.
    """
    if sp.issparse(A):
        return _sparse_error(A, U, s, Vh)
    lost, total = 0.0, 0.0
    for start in range(0, A.shape[0], 16384):
        block = A[start : start + 16384].astype(np.float64)
        if mean is not None:
            block -= mean
        total += float(np.vdot(block, block))
        block -= (U[start : start + 16384] * s) @ Vh
        lost += float(np.vdot(block, block))
    return float(np.sqrt(lost / total))


def _sparse_error(A: Any, U: Any, s: Any, Vh: Any) -> float:
    total = float(np.vdot(A.data, A.data))
    left = np.asarray(U, np.float64) * s
    cross = float(np.sum((A @ np.asarray(Vh, np.float64).T) * left))
    own = float(np.sum((left.T @ left) * (Vh @ np.asarray(Vh, np.float64).T)))
    return float(np.sqrt(max(total - 2 * cross + own, 0.0) / total))


def best_errors(singular_values: Any, norm: float | None = None) -> np.ndarray:
    """Best possible relative error at the ranks 1, 2, ...; `norm` where not all singular values are given."""
    energy = np.asarray(singular_values, np.float64) ** 2
    if norm is None:
        tail = np.append(np.cumsum(energy[::-1])[::-1][1:], 0.0)
        return np.sqrt(tail / energy.sum())
    return np.sqrt(np.maximum(norm**2 - np.cumsum(energy), 0.0)) / norm


class Rows:
    """Collects the rows of one task; the first method is the reference of the speed-ups.

    `error` judges the answer of a method, `best` is the least that it can be.  Methods faster than `budget` seconds
    are repeated.
    """

    def __init__(self, error: Callable[[Any], float], *, best: float | None = None, budget: float = 1.0) -> None:
        self.error, self.best, self.budget = error, best, budget
        self.rows: list[Row] = []

    def add(
        self, method: str, call: Callable[[], Any], *, ours: bool = False, note: Callable[[Any], str] | None = None,
        answer: Callable[[Any], Any] | None = None, estimate: Callable[[Any], float] | None = None,
    ) -> Any:  # fmt: skip
        """Measure `call` and return what it returned; `answer`, `estimate` and `note` are read off that."""
        measured = measure(call, budget=self.budget, compiles=ours)
        value = measured.value
        self.judge(
            method, measured, answer(value) if answer else value, ours=ours, note=note(value) if note else "",
            estimate=estimate(value) if estimate else None,
        )  # fmt: skip
        return value

    def judge(
        self, method: str, measured: Measured, answer: Any, *, ours: bool = False, estimate: float | None = None,
        note: str = "",
    ) -> None:  # fmt: skip
        """Add the row of a call that was measured before."""
        row = Row(
            method=method,
            ours=ours,
            seconds=measured.seconds,
            peak_bytes=measured.peak_bytes,
            error=self.error(answer),
            estimate=estimate,
            best=self.best,
            reference_seconds=self.rows[0].seconds if self.rows else None,
            note=note,
        )
        self.rows.append(row)


class Comparison:
    """Collects the rows of one task; the first method added is the reference of the speed-ups.

    Methods faster than `budget` seconds are repeated.
    """

    def __init__(self, A: Any, best: np.ndarray | None = None, *, mean: Any = None, budget: float = 1.0) -> None:
        self.A, self.best, self.mean, self.budget = A, best, mean, budget
        self.rows: list[Row] = []

    def add(
        self, method: str, call: Callable[[], Any], *, ours: bool = False, note: str | Callable[[Any], str] = "",
        factors: Callable[[Any], tuple[Any, Any, Any]] = tuple,
    ) -> Any:  # fmt: skip
        """Measure `call`, judge the factors that it returns, and return what it returned."""
        measured = measure(call, budget=self.budget, compiles=ours)
        note = note if isinstance(note, str) else note(measured.value)
        self.judge(method, measured, factors(measured.value), ours=ours, note=note)
        return measured.value

    def judge(
        self, method: str, measured: Measured, factors: tuple[Any, Any, Any], *, ours: bool = False, note: str = ""
    ) -> None:
        """Add the row of a call that was measured before."""
        U, s, Vh = factors
        row = Row(
            method=method,
            ours=ours,
            seconds=measured.seconds,
            peak_bytes=measured.peak_bytes,
            error=relative_error(self.A, U, s, Vh, mean=self.mean),
            estimate=float(measured.value.error) if ours else None,
            best=None if self.best is None else float(self.best[len(s) - 1]),
            reference_seconds=self.rows[0].seconds if self.rows else None,
            note=note,
        )
        self.rows.append(row)
