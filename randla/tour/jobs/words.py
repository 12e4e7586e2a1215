"""Latent semantic analysis of the docstrings of the installed scientific packages: a large sparse matrix."""

from __future__ import annotations

import ast
import os
from functools import cache, partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from ..compare import Comparison, best_errors
from ..job import Figure, Job, Outcome, Progress, Row, Table
from ..measure import measure

#: Packages that come with randla; their files are read, never imported.
_PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib", "numba", "joblib")
_SEEDS = ("matrix", "random", "cluster", "sparse", "colormap", "fourier", "thread", "polynomial")

_TEXT = (
    "Each row is a docstring of an installed scientific package, each column a word, weighted by TF-IDF.  Truncated "
    "SVD of such a matrix is latent semantic analysis: words that keep the same company come close.",
    "The spectrum falls slowly, so even the best approximation of this rank leaves a large error.  What counts is "
    "the last column, how close a method comes to the best one.  Fewer passes over the data cost accuracy, most of "
    "all on a spectrum as flat as this: a single pass is not enough here, and its estimate says so.",
)
_SPECTRUM = "Singular values: Lanczos (scipy, exact to rounding) and randla."
_NEIGHBOURS = (
    "The words nearest to six words in the latent space, by cosine, among words of at least 15 docstrings; nothing "
    "but the docstrings was used."
)


def read_docstrings(packages: tuple[str, ...]) -> list[str]:
    """The docstrings of at least 80 characters in the source files of `packages`, tests left out, each once."""
    found = (text for package in packages for texts in read_modules(package).values() for text in texts)
    return list(dict.fromkeys(found))


@cache  # two jobs read the same files
def read_modules(package: str) -> dict[str, tuple[str, ...]]:
    """The docstrings of each module of a package that has some, as in `read_docstrings`."""
    found = {}
    spec = util.find_spec(package)  # of a top-level package: looks for it without importing it
    for folder in map(Path, (spec.submodule_search_locations or []) if spec else []):
        for path in _sources(folder):
            source = path.read_text(encoding="utf-8", errors="replace")
            texts = _docstrings(source) if '"""' in source else []
            if texts:
                found[".".join((package, *path.relative_to(folder).with_suffix("").parts))] = tuple(texts)
    return found


def _sources(folder: Path) -> list[Path]:
    paths = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in ("tests", "test", "__pycache__"))
        paths += [Path(root, name) for name in sorted(files) if name.endswith(".py")]
    return paths


def _docstrings(source: str) -> list[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates, files for another Python
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in texts if text and len(text) >= 80]


def load_words(quick: bool) -> tuple[Any, np.ndarray]:
    """The TF-IDF matrix (docstrings x words, CSR) and its words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = read_docstrings(_PACKAGES[:3] if quick else _PACKAGES)
    vectorizer = TfidfVectorizer(token_pattern=r"[a-zA-Z]{3,}", stop_words="english", min_df=2, sublinear_tf=True)
    A = vectorizer.fit_transform(texts)
    return A, vectorizer.get_feature_names_out()


def nearest(
    Vh: Any, s: Any, words: np.ndarray, seed: str, count: int, *, allowed: np.ndarray
) -> list[tuple[str, float]]:
    """The `count` allowed words whose vectors in the latent space make the smallest angles with that of `seed`."""
    vectors = np.asarray(Vh).T * np.asarray(s)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
    position = int(np.flatnonzero(words == seed)[0])
    cosines = vectors @ vectors[position]
    order = [int(i) for i in np.argsort(-cosines) if allowed[i] and i != position][:count]
    return [(str(words[i]), float(cosines[i])) for i in order]


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("reading docstrings")
    A, words = load_words(quick)
    rank = 50 if quick else 100
    exact, ours, rows = _compare(A, rank, progress, budget=0.3 if quick else 1.0)
    progress.step("nearest words")
    seeds = [seed for seed in _SEEDS if seed in words][:6]
    common = np.bincount(A.indices, minlength=A.shape[1]) >= 15
    neighbours = {seed: nearest(ours.Vh, ours.s, words, seed, 6, allowed=common) for seed in seeds}
    m, n = A.shape
    spectrum = Figure("words-spectrum", _SPECTRUM, lambda figure: _draw_spectrum(figure, exact, ours))
    near = Figure("words-neighbours", _NEIGHBOURS, lambda figure: _draw_neighbours(figure, neighbours), (7.2, 4.4))
    return Outcome(
        size=f"{m:,} x {n:,} {A.dtype}, sparse, {A.nnz:,} entries",
        task=f"rank {rank}",
        rows=rows,
        text=_TEXT,
        figures=(spectrum, near),
        tables=(_topic_table(ours, words),),
    )


def _compare(A: Any, rank: int, progress: Progress, *, budget: float) -> tuple[np.ndarray, Any, tuple[Row, ...]]:
    from scipy.sparse.linalg import svds
    from sklearn.utils.extmath import randomized_svd

    import randla

    progress.step("scipy svds")
    start = np.ones(min(A.shape))
    measured = measure(lambda: svds(A, rank, v0=start), budget=budget)
    exact = np.sort(measured.value[1])[::-1]
    task = Comparison(A, best_errors(exact, norm=float(np.linalg.norm(A.data))), budget=budget)
    task.judge("scipy svds (ARPACK)", measured, measured.value)
    for n_iter in (2, 5):
        progress.step(f"scikit-learn randomized_svd, n_iter={n_iter}")
        call = partial(randomized_svd, A, rank, n_iter=n_iter, random_state=0)
        task.add(f"sklearn randomized_svd, n_iter={n_iter}", call)
    progress.step("randla.svd")
    ours = task.add(f"randla.svd(A, {rank})", partial(randla.svd, A, rank, rng=0), ours=True)
    progress.step("randla.svd, two passes")
    call = partial(randla.svd, A, rank, n_passes=2, rng=0)
    task.add(f"randla.svd(A, {rank}, n_passes=2)", call, ours=True, note="reads the data twice")
    return exact, ours, tuple(task.rows)


def _topic_table(ours: Any, words: np.ndarray) -> Table:
    """The heaviest words at both ends of the leading directions after the first, which only measures length."""
    lines = []
    for r in range(1, min(6, ours.rank)):
        weights = np.asarray(ours.Vh[r])
        order = np.argsort(weights)
        ends = (", ".join(str(words[i]) for i in part) for part in (order[::-1][:6], order[:6]))
        lines.append((str(r + 1), *ends))
    return Table("Directions 2 to 6: the words at their two ends", ("direction", "one end", "the other"), tuple(lines))


def _draw_spectrum(figure: Any, exact: np.ndarray, ours: Any) -> None:
    from ...plot import PALETTE, SpectrumDisplay

    ax = figure.subplots()
    SpectrumDisplay.from_values(exact, label="scipy svds").plot(
        ax, line_kwargs={"marker": None, "linewidth": 4, "color": PALETTE[-1], "alpha": 0.55}
    )
    SpectrumDisplay.from_result(ours, label="randla.svd").plot(ax, line_kwargs={"linewidth": 1})


def _draw_neighbours(figure: Any, neighbours: dict[str, list[tuple[str, float]]]) -> None:
    from ...plot import PALETTE

    panels = figure.subplots(2, 3, sharex=True).ravel()
    for ax, (seed, near) in zip(panels, neighbours.items(), strict=False):
        names, cosines = zip(*near[::-1], strict=True)
        ax.barh(range(len(names)), cosines, color=PALETTE[0], height=0.78)
        for height, name in enumerate(names):
            ax.text(0.03, height, name, color="white", va="center", fontsize=9)
        ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], yticks=[])
        ax.set_title(seed, fontweight="bold", loc="left")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    for ax in panels[3:]:
        ax.set_xlabel("cosine")
    for ax in panels[len(neighbours) :]:
        ax.axis("off")


JOB = Job("words", "Words of docstrings", order=20, n_steps=7, run=_run)
