"""Two tables that never meet: which modules of two libraries speak of the same things."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row
from .words import read_modules

_FIRST, _SECOND = ("numpy", "scipy"), ("sklearn",)
_MORE = ("matplotlib", "numba")  # of the second table, in a full run
_LEAST_TEXT = 2_000  # letters of docstrings that a module must have
_KEPT = 800
_PEER, _OURS = "scipy CountSketch", "randla.PrioritySampler"

_TEXT = (
    "One party has the words of the docstrings of NumPy and SciPy, another those of other packages: tables with a row "
    "for each word and a column for each module, of length 1.  The product A'B, the cosines between their modules, "
    "needs both tables; only part of the words occur in both.  Each party makes a sketch of its own table, and the "
    "sketches are all that meet.  They share a key, so both keep the same words where they can.",
    "The tables are small enough for the exact product, which is done in milliseconds: what counts here is how much "
    "has to be sent, and the error.  At equal storage a linear sketch (CountSketch) has room for few rows, for its "
    "rows are dense, and words of one party disturb it though they contribute nothing.  randla's estimate of its error "
    "comes from the two samples alone.",
)
_SCATTER = (
    "All cosines between modules: estimated from the two sketches, against the truth, at equal storage.  Those near 1 "
    "belong to files of which both parties carry a copy.  A dot far above the line rests on a rare word that was kept "
    "by chance: the sketches know the product as a whole better than each of its entries."
)
_STORAGE = (
    "Relative error of the product against the storage of both sketches, in numbers of 64 bits (bands: least and "
    "largest over keys).  The tables themselves take {words:,.0f}."
)


@dataclass(frozen=True)
class WordTable:
    """A CSR matrix (words x modules) with columns of length 1, and the names of its rows and columns."""

    matrix: Any
    words: np.ndarray
    modules: list[str]


def word_table(packages: tuple[str, ...]) -> WordTable:
    """Count words; an entry grows like the logarithm of the count."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    texts = {name: " ".join(found) for package in packages for name, found in read_modules(package).items()}
    texts = {name: text for name, text in texts.items() if len(text) >= _LEAST_TEXT}
    vectorizer = CountVectorizer(token_pattern=r"[a-zA-Z]{3,}", stop_words="english", dtype=np.float64)
    counts = vectorizer.fit_transform(texts.values())
    counts.data = 1.0 + np.log(counts.data)
    return WordTable(sp.csr_array(normalize(counts).T), vectorizer.get_feature_names_out(), list(texts))


def joined(first: WordTable, second: WordTable) -> tuple[Any, Any]:
    """Both matrices with a row for each word of either, in one order: what no party has."""
    words, places = np.unique(np.concatenate([first.words, second.words]), return_inverse=True)

    def lifted(table: WordTable, rows: np.ndarray) -> Any:
        entries = table.matrix.tocoo()
        shape = (len(words), table.matrix.shape[1])
        return sp.csr_array((entries.data, (rows[entries.row], entries.col)), shape=shape)

    return lifted(first, places[: len(first.words)]), lifted(second, places[len(first.words) :])


def sampled(first: WordTable, second: WordTable, n_samples: int, key: int) -> tuple[Any, float]:
    """randla's estimate from two samples, and the storage of both."""
    import randla

    sampler = randla.PrioritySampler(n_samples, rng=randla.as_key(key))
    SA, SB = sampler.sketch(first.matrix, first.words), sampler.sketch(second.matrix, second.words)
    return randla.estimate_product(SA, SB), SA.n_words + SB.n_words


def linear(A: Any, B: Any, sketch_size: int, key: int) -> np.ndarray:
    """The product of two CountSketches by SciPy, which need the rows in one order, so more than the parties have."""
    from scipy.linalg import clarkson_woodruff_transform

    SA, SB = (clarkson_woodruff_transform(M, sketch_size, key) for M in (A, B))
    return np.asarray((SA.T @ SB).todense())


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("reading docstrings")
    first, second = word_table(_FIRST), word_table(_SECOND if quick else _SECOND + _MORE)
    A, B = joined(first, second)
    exact = (A.T @ B).toarray()
    estimates, rows = _compare(first, second, exact, progress, budget=0.3 if quick else 1.0)
    progress.step("sketches of several sizes")
    sizes = (50, 100, 200, 400, 800, 1600)
    curves = _errors_by_storage(first, second, exact, sizes, repeats=3 if quick else 7)
    stored = 1.5 * (A.nnz + B.nnz)
    both = len(np.intersect1d(first.words, second.words))
    scatter = Figure("tables-cosines", _SCATTER, lambda figure: _draw_cosines(figure, exact, estimates), (7.4, 4.2))
    storage = Figure("tables-storage", _STORAGE.format(words=stored), lambda figure: _draw_storage(figure, curves))
    return Outcome(
        size=f"{first.matrix.shape[0]:,} x {first.matrix.shape[1]} and {second.matrix.shape[0]:,} x "
        f"{second.matrix.shape[1]}, sparse; {both:,} words in both",
        task="product of the tables, error: ||W - A'B|| / ||A'B||",
        rows=rows,
        text=_TEXT,
        figures=(scatter, storage),
    )


def _compare(
    first: WordTable, second: WordTable, exact: np.ndarray, progress: Progress, *, budget: float
) -> tuple[dict[str, np.ndarray], tuple[Row, ...]]:
    """Run the methods; returns the estimates and the rows."""
    A, B = joined(first, second)
    norm = float(np.linalg.norm(exact))

    def dense(W: Any) -> np.ndarray:
        return W.toarray() if sp.issparse(W) else np.asarray(W)

    task = Rows(lambda W: float(np.linalg.norm(dense(W) - exact)) / norm, budget=budget)
    progress.step("the exact product")
    task.add("exact, both tables in one place", lambda: A.T @ B, note=lambda _: f"{1.5 * (A.nnz + B.nnz):,.0f} numbers")
    _, words = sampled(first, second, _KEPT, 0)
    sketch_size = max(1, round(words / (A.shape[1] + B.shape[1])))
    note = f"{words:,.0f} numbers, {sketch_size} rows"
    progress.step("CountSketch")
    theirs = task.add(_PEER, partial(linear, A, B, sketch_size, 0), note=lambda _: note)
    progress.step("coordinated sampling")
    found, _ = task.add(
        f"{_OURS}({_KEPT})", partial(sampled, first, second, _KEPT, 0), ours=True,
        answer=lambda found: found[0].value, estimate=lambda found: found[0].standard_error / norm,
        note=lambda found: f"{found[1]:,.0f} numbers, {found[0].n_common} words in both samples",
    )  # fmt: skip
    return {_PEER: theirs, _OURS: dense(found.value)}, tuple(task.rows)


def _errors_by_storage(
    first: WordTable, second: WordTable, exact: np.ndarray, sizes: tuple[int, ...], repeats: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> (storage, errors of shape (repeats, sizes))."""
    A, B = joined(first, second)
    norm, n_columns = np.linalg.norm(exact), A.shape[1] + B.shape[1]
    stored = np.empty((repeats, len(sizes)))
    ours, theirs = np.empty_like(stored), np.empty_like(stored)
    for key in range(repeats):
        for position, size in enumerate(sizes):
            found, stored[key, position] = sampled(first, second, size, key)
            ours[key, position] = np.linalg.norm(found.value.toarray() - exact) / norm
            sketch_size = max(1, round(stored[key, position] / n_columns))
            theirs[key, position] = np.linalg.norm(linear(A, B, sketch_size, key) - exact) / norm
    words = stored.mean(axis=0)
    return {_PEER: (words, theirs), _OURS: (words, ours)}


def _draw_cosines(figure: Any, exact: np.ndarray, estimates: dict[str, np.ndarray]) -> None:
    from ...plot import PALETTE

    low = min(0.0, *(float(np.quantile(W, 1e-4)) for W in estimates.values()))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for position, (ax, (name, W)) in enumerate(zip(panels, estimates.items(), strict=True)):
        colour = PALETTE[1 - position]
        ax.plot([0, 1.05], [0, 1.05], color=PALETTE[-1], linewidth=1)
        ax.scatter(exact.ravel(), W.ravel(), s=2, color=colour, alpha=0.12, linewidths=0, rasterized=True)
        ax.set(xlim=(0, 1.05), ylim=(low, 1.1), xlabel="cosine", aspect="equal")
        ax.set_title(name, fontsize="medium")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    panels[0].set_ylabel("estimated from the sketches")


def _draw_storage(figure: Any, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (name, (words, errors)) in enumerate(curves.items()):
        colour = PALETTE[1 - position]
        median = np.median(errors, axis=0)
        ax.plot(words, median, color=colour, marker=MARKERS[position], markersize=4, label=name)
        ax.fill_between(words, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="numbers stored", ylabel="relative error of the product")
    ticks = [tick for tick in (10_000, 20_000, 50_000, 100_000, 200_000, 500_000) if words[0] <= tick <= words[-1]]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


JOB = Job("tables", "Two tables that never meet", order=50, n_steps=5, run=_run)
