"""Latent semantic analysis that is kept up to date while documents arrive in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..compare import best_errors, relative_error
from ..job import Figure, Job, Outcome, Progress, Row
from ..measure import measure
from .words import load_words, read_docstrings

_TEXT = (
    "The docstrings of the job 'words' arrive in batches, and after each batch the singular value decomposition of all "
    "documents so far is wanted.  Customary is to compute it anew, which takes longer with each batch.  randla takes "
    "up the new rows: the cost depends on the words of the batch alone, not on the documents nor on the vocabulary "
    "that are there already.",
    "The error that it tells is no estimate: as long as rows are appended and nothing else, the squares of what was "
    "cut off on the way add up to the squared error.  scikit-learn's IncrementalPCA is left out: it centres the "
    "columns, and makes each batch and the components with it dense.",
)
_TIMES = "Time of each batch: computed anew from all documents so far, and updated."
_ERRORS = "Relative error of the decomposition of all documents so far, above that of the best one of that rank."
_PEER, _OURS = "sklearn TruncatedSVD, anew each time", "randla.IncrementalSVD.partial_fit"
_OVERSAMPLES = 20


@dataclass
class Course:
    """What one method did, batch after batch."""

    seconds: list[float] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)  # after the batches that are looked at


def load_quickly() -> Any:
    """The TF-IDF matrix of the docstrings of one package."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"[a-zA-Z]{3,}", stop_words="english", min_df=2, sublinear_tf=True)
    return vectorizer.fit_transform(read_docstrings(("scipy",)))


def batches(A: Any, count: int) -> list[int]:
    """Ends of `count` batches of rows of nearly one size."""
    return [A.shape[0] * (i + 1) // count for i in range(count)]


def looked_at(count: int) -> list[int]:
    """The batches after which the errors are computed: the first, the middle and the last one."""
    return sorted({0, count // 2, count - 1})


def anew(A: Any, ends: list[int], rank: int) -> Course:
    """The customary way: a decomposition of all rows after each batch."""
    from sklearn.utils.extmath import randomized_svd

    course = Course()
    for position, end in enumerate(ends):
        began = time.perf_counter()
        found = randomized_svd(A[:end], rank, n_iter=2, random_state=0)
        course.seconds.append(time.perf_counter() - began)
        if position in looked_at(len(ends)):
            course.answers[position] = found
    return course


def updated(A: Any, ends: list[int], rank: int) -> Course:
    """The same by updates; the factors are formed where they are looked at, apart from the times."""
    from ...estimators._incremental import IncrementalSVD

    course, start = Course(), 0
    model = IncrementalSVD(rank, n_oversamples=_OVERSAMPLES)
    for position, end in enumerate(ends):
        began = time.perf_counter()
        model.partial_fit(A[start:end])
        course.seconds.append(time.perf_counter() - began)
        if position in looked_at(len(ends)):
            course.answers[position] = model.svd_.to_svd(model.n_components_)
        start = end
    return course


def _compare(
    A: Any, ends: list[int], rank: int, progress: Progress
) -> tuple[dict[str, Course], dict[str, list[float]], tuple[Row, ...]]:
    """Run both; returns their courses, the excess of their errors after some batches, and the rows of the table."""
    from scipy.sparse.linalg import svds

    measured = {}
    for name, call in ((_PEER, anew), (_OURS, updated)):
        progress.step(name)
        measured[name] = measure(partial(call, A, ends, rank), budget=0, compiles=call is updated)
    progress.step("the best possible")
    excess: dict[str, list[float]] = {name: [] for name in measured}
    rows: tuple[Row, ...] = ()
    for position in looked_at(len(ends)):
        part = A[: ends[position]]
        exact = svds(part, rank, v0=np.ones(min(part.shape)), return_singular_vectors=False)
        best = float(best_errors(np.sort(exact)[::-1], norm=float(np.linalg.norm(part.data)))[rank - 1])
        errors = {name: relative_error(part, *found.value.answers[position]) for name, found in measured.items()}
        for name, error in errors.items():
            excess[name].append(error / best)
    reference = sum(measured[_PEER].value.seconds)
    for name, found in measured.items():
        ours, last = name == _OURS, found.value.answers[len(ends) - 1]
        rows += (
            Row(
                name, ours, sum(found.value.seconds), found.peak_bytes, errors[name], best=best,
                estimate=float(last.error) if ours else None, reference_seconds=reference if ours else None,
                note=f"{len(ends)} batches; the last took {1e3 * found.value.seconds[-1]:.0f} ms",
            ),
        )  # fmt: skip
    return {name: found.value for name, found in measured.items()}, excess, rows


def _run(quick: bool, progress: Progress) -> Outcome:
    from sklearn.utils import shuffle

    progress.step("reading docstrings")
    A = load_quickly() if quick else load_words(False)[0]
    rank, count = (20, 40) if quick else (50, 100)
    A = shuffle(A, random_state=0)  # packages arrive mixed
    ends = batches(A, count)
    courses, excess, rows = _compare(A, ends, rank, progress)
    documents = [ends[i] for i in looked_at(count)]
    times = Figure("stream-svd-times", _TIMES, lambda figure: _draw_times(figure, ends, courses))
    errors = Figure("stream-svd-errors", _ERRORS, lambda figure: _draw_errors(figure, documents, excess))
    m, n = A.shape
    return Outcome(
        size=f"{m:,} x {n:,} {A.dtype}, sparse, {A.nnz:,} entries, in {count} batches",
        task=f"rank {rank} after each batch; times are sums, errors those at the end",
        rows=rows,
        text=_TEXT,
        figures=(times, errors),
    )


def _draw_times(figure: Any, ends: list[int], courses: dict[str, Course]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (name, course) in enumerate(courses.items()):
        milliseconds = 1e3 * np.array(course.seconds)
        ax.plot(ends, milliseconds, color=PALETTE[1 - position], marker=MARKERS[position], markersize=4, label=name)
    ax.set(xlabel="documents so far", ylabel="milliseconds for the batch", ylim=(0, None), xlim=(0, None))
    _finish(ax)


def _draw_errors(figure: Any, documents: list[int], excess: dict[str, list[float]]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (name, values) in enumerate(excess.items()):
        percent = 100 * (np.array(values) - 1)
        ax.plot(documents, percent, color=PALETTE[1 - position], marker=MARKERS[position], markersize=5, label=name)
    ax.set(xlabel="documents so far", ylabel="per cent above the best error", ylim=(0, None), xlim=(0, None))
    _finish(ax)


def _finish(ax: Any) -> None:
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


JOB = Job("stream-svd", "Documents that keep arriving", order=60, n_steps=4, run=_run)
