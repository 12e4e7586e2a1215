"""The docstrings again, through some of their own words and texts: a CUR decomposition that stays sparse."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row, Table
from ..measure import Measured, measure
from .words import _PACKAGES, load_words, read_docstrings

_LARGEST = 48  # words that the picture has room for

_TEXT = (
    "The matrix of docstrings and words once more.  Singular vectors mix all words; here the approximation is built "
    "from some of the words and some of the texts as they are, so it can be read, and it stays as sparse as the data.",
    "The price is a larger error: the last column has the best possible error of this rank as its unit.  The spectrum "
    "is flat, so all of these errors are close to 1 and close to one another; how much of the best capture a method "
    "gets, and how many numbers it has to keep, is in the notes.",
)
_CAPTION = (
    "The words that stand for all others, the first {count} of {rank} in the order in which pivoting chose them: size "
    "by the share of all docstrings' mass that each one adds to those before it."
)
_TEXTS = "Docstrings that stand for all others, the first ten: how they begin, and their words of most weight"
_CURVE = (
    "Share of the squared norm captured, of the most that is possible at this rank, by columns alone, for choices of "
    "words of different kinds (randla.interpolative)."
)


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("reading docstrings")
    A, words = load_words(quick)
    rank = 40 if quick else 120
    found, captured, rows = _compare(A, rank, progress, budget=0.2 if quick else 1.0)
    progress.step("choices of words")
    curves, sizes = _curves(A, captured, rank)
    shares = added_shares(A, found.column_indices)
    names = [str(words[j]) for j in found.column_indices]
    count = min(_LARGEST, len(names))
    m, n = A.shape
    picture = Figure(
        "chosen-words", _CAPTION.format(count=count, rank=rank),
        lambda figure: _draw_words(figure, names[:count], shares[:count]), (7.2, 3.6),
    )  # fmt: skip
    curve = Figure("chosen-words-captured", _CURVE, lambda figure: _draw_curves(figure, sizes, curves))
    return Outcome(
        size=f"{m:,} x {n:,} {A.dtype}, sparse, {A.nnz:,} entries",
        task=f"rank {rank}",
        rows=rows,
        text=_TEXT,
        figures=(picture, curve),
        tables=(_text_table(A, found, words, quick),),
    )


def _compare(A: Any, rank: int, progress: Progress, *, budget: float) -> tuple[Any, np.ndarray, tuple[Row, ...]]:
    """The CUR decomposition, the most that each rank can capture, and the rows of the table."""
    from scipy.sparse.linalg import svds
    from sklearn.decomposition import TruncatedSVD

    from ...lowrank.cur import cur
    from ...lowrank.interpolative import interpolative

    norm = float(np.linalg.norm(A.data))
    progress.step("scikit-learn TruncatedSVD")
    customary = measure(lambda: TruncatedSVD(rank, n_iter=5, random_state=0).fit(A), budget=budget)
    singular: Any = svds(A, rank, v0=np.ones(min(A.shape)), return_singular_vectors=False)
    s = np.sort(singular)[::-1]
    captured = np.cumsum(s**2) / norm**2
    least = float(np.sqrt(1.0 - captured[-1]))
    task = Rows(lambda error: error, best=least, budget=budget)

    def note(error: float, stored: int) -> str:
        return f"{(1.0 - error**2) / captured[-1]:.0%} of the best capture, {stored:,} numbers"

    V = customary.value.components_
    error = float(np.sqrt(max(norm**2 - float(np.linalg.norm(A @ V.T)) ** 2, 0.0)) / norm)
    task.judge(
        "sklearn TruncatedSVD, n_iter=5", customary, error, note=note(error, rank * (sum(A.shape) + 1))
    )  # fmt: skip
    results = []
    for label, call in (
        (f"randla.cur(A, {rank})", partial(cur, A, rank, rng=0)),
        (
            f'randla.cur(A, {rank}, selection="deim")',
            partial(cur, A, rank, selection="deim", rows_from="matrix", rng=0),
        ),
        (f"randla.interpolative(A, {rank})", partial(interpolative, A, rank, rng=0)),
    ):
        progress.step(label)
        measured: Measured = measure(call, budget=budget, compiles=True)
        result = measured.value
        truth = true_error(A, result)
        task.judge(label, measured, truth, ours=True, estimate=result.error, note=note(truth, stored_numbers(result)))
        results.append(result)
    return results[0], captured, tuple(task.rows)


def true_error(A: Any, result: Any) -> float:
    """``||A - F core H^*|| / ||A||`` of a two-sided factorisation of a sparse matrix, by inner products."""
    core = result.core
    AH = A @ (result.H.toarray() if hasattr(result.H, "toarray") else result.H)
    cross = float(np.sum((result.F.T @ AH) * core))
    grams = [M.T @ M for M in (result.F, result.H)]
    left, right = (G.toarray() if hasattr(G, "toarray") else G for G in grams)
    total = float(np.vdot(A.data, A.data))
    return float(np.sqrt(max(total - 2 * cross + float(np.sum((left @ core @ right) * core)), 0.0) / total))


def stored_numbers(result: Any) -> int:
    """Nonzeros of the factors that a decomposition consists of."""
    parts = (result.F, result.G, result.H)
    return int(sum(part.nnz if hasattr(part, "nnz") else part.size for part in parts))


def added_shares(A: Any, columns: np.ndarray) -> np.ndarray:
    """What each column adds to the squared norm that those before it capture, as a share of the whole."""
    Q = np.linalg.qr(A[:, columns].toarray())[0]
    return np.asarray(np.sum((A.T @ Q) ** 2, axis=0)) / float(np.vdot(A.data, A.data))


def _curves(A: Any, captured: np.ndarray, rank: int) -> tuple[dict[str, list[float]], list[int]]:
    """Selection -> captured share of the possible, at some ranks; each selection is made once and cut."""
    from ...lowrank.selection import select_columns

    sizes = sorted({max(2, rank // 8), rank // 4, rank // 2, rank})
    curves = {}
    for method in ("sketch-qr", "rbrp", "column-norm", "uniform"):
        gains = np.cumsum(added_shares(A, select_columns(A, rank, method=method, rng=1).indices))
        curves[method] = [float(gains[min(k, len(gains)) - 1] / captured[k - 1]) for k in sizes]
    return curves, sizes


def _text_table(A: Any, found: Any, words: np.ndarray, quick: bool) -> Table:
    texts = read_docstrings(_PACKAGES[:3] if quick else _PACKAGES)  # kept from the first reading
    lines = []
    for i in found.row_indices[:10]:
        row = A[[int(i)], :]
        order = np.argsort(-row.data)[:6]
        begin = " ".join(texts[int(i)].split())
        lines.append(
            (
                begin if len(begin) <= 70 else begin[:69] + "\N{HORIZONTAL ELLIPSIS}",
                ", ".join(str(words[j]) for j in row.indices[order]),
            )
        )
    return Table(_TEXTS, ("begins with", "words"), tuple(lines))


def _draw_words(figure: Any, names: list[str], shares: np.ndarray) -> None:
    from ...plot import PALETTE

    ax = figure.subplots()
    ax.axis("off")
    columns = 6
    lines = -(-len(names) // columns)
    scale = np.sqrt(shares / shares.max())
    for number, (name, size) in enumerate(zip(names, scale, strict=True)):
        row, column = divmod(number, columns)
        largest = min(18.0, 110.0 / max(len(name), 4))  # no word wider than its column
        ax.text(
            (column + 0.5) / columns, 1.0 - (row + 0.5) / lines, name, ha="center", va="center",
            fontsize=max(6.5, largest * float(size)), color=PALETTE[row % 2],
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1))


def _draw_curves(figure: Any, sizes: list[int], curves: dict[str, list[float]]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (method, values) in enumerate(curves.items()):
        ax.plot(
            sizes, 100 * np.asarray(values), color=PALETTE[position], marker=MARKERS[position], markersize=4,
            label=f'"{method}"',
        )  # fmt: skip
    ax.set(xlabel="words", ylabel="% of the best capture", ylim=(0, 100))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


JOB = Job("chosen_words", "Chosen words of docstrings", order=25, n_steps=6, run=_run)
