"""Topics of the docstrings of the installed scientific packages: nonnegative factorisation of words in texts."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..compare import Rows, best_errors, relative_error
from ..job import Figure, Job, Outcome, Progress, Row, Table
from ..measure import measure
from .words import _PACKAGES, read_modules

_COMMON = 0.1  # words in more docstrings than this share belong to the form of docstrings, not to a topic
_TOPICS = (12, 20)  # in a quick run, and else

_TEXT = (
    "Each row is a docstring of an installed scientific package, each column a word.  A nonnegative factorisation "
    "writes every docstring as a sum of topics, and a topic is a list of words with weights of one sign: parts that "
    "add up and never cancel, where the directions of an SVD have two ends.",
    "The Frobenius norm is for words weighted by TF-IDF, the Kullback-Leibler divergence for the counts themselves, "
    "which it takes for Poisson variables.  The error of the first is relative to the norm of the matrix, and its last "
    "column compares with an SVD of the same rank, which may cancel; the error of the second is relative to the "
    "divergence from a constant.",
    "Every method stops by its own rule at its default tolerance.  The problem has many local optima, so that errors "
    "differ a little; the rows 'to the same error' stop where randla has reached what scikit-learn ended with.  For "
    "the counts both begin with the same factors, NNDSVDa of the matrix.",
)  # fmt: skip
_SHARES = (
    "How the words of each package spread over the topics of the counts; a topic is named by its two leading words."
)


class Corpus(NamedTuple):
    """Counts of words and their TF-IDF weights (docstrings x words, CSR), the words, and the package of each row."""

    counts: Any
    weights: Any
    words: np.ndarray
    packages: np.ndarray


def load_corpus(packages: tuple[str, ...]) -> Corpus:
    """The docstrings of the job "words", without the words that too many or too few of them have."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    owners: dict[str, str] = {}
    for package in packages:
        for texts in read_modules(package).values():
            for text in texts:
                owners.setdefault(text, package)
    vectorizer = CountVectorizer(
        token_pattern=r"[a-zA-Z]{3,}", stop_words="english", min_df=5, max_df=_COMMON, dtype=np.float64
    )
    counts = vectorizer.fit_transform(owners)
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    return Corpus(counts, weights, vectorizer.get_feature_names_out(), np.array(list(owners.values())))


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("reading docstrings")
    corpus = load_corpus(_PACKAGES[:1] if quick else _PACKAGES)
    rank = _TOPICS[not quick]
    found, rows = _compare(corpus, rank, progress, budget=0.0 if quick else 1.0)
    m, n = corpus.counts.shape
    kl = found["kl"]
    shares = Figure("topics-packages", _SHARES, lambda figure: _draw(figure, kl, corpus), (7.6, 3.2))
    tables = tuple(
        _table(found[loss], corpus.words, caption)
        for loss, caption in (("kl", "Topics of the counts (Kullback-Leibler): the leading words"),
                              ("frobenius", "Topics of the TF-IDF weights (Frobenius): the leading words"))
    )  # fmt: skip
    return Outcome(
        size=f"{m:,} x {n:,} {corpus.counts.dtype}, sparse, {corpus.counts.nnz:,} entries",
        task=f"{rank} topics",
        rows=rows,
        text=_TEXT,
        figures=() if quick else (shares,),  # a quick run reads one package
        tables=tables,
    )


def _compare(corpus: Corpus, rank: int, progress: Progress, *, budget: float) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Both losses by both libraries, each from the weights that suit it."""
    from scipy.sparse.linalg import svds

    progress.step("the best of this rank, by scipy svds")
    A, C = corpus.weights, corpus.counts
    s = np.sort(svds(A, rank, v0=np.ones(min(A.shape)), return_singular_vectors=False))[::-1]
    best = float(best_errors(s, norm=float(np.linalg.norm(A.data)))[-1])
    squares = Rows(lambda pair: relative_error(A, pair[0], np.ones(rank), pair[1]), best=best, budget=budget)
    found = {"frobenius": _both(squares, A, rank, progress, "frobenius", "cd", "TF-IDF")}
    scale = divergence(C, np.ones((C.shape[0], 1)), np.full((1, C.shape[1]), C.sum() / np.prod(C.shape)))
    counts = Rows(lambda pair: divergence(C, *pair) / scale, budget=budget)
    found["kl"] = _both(counts, C, rank, progress, "kl", "mu", "counts")
    return found, (*squares.rows, *counts.rows)


def _both(task: Rows, X: Any, rank: int, progress: Progress, loss: str, solver: str, data: str) -> Any:
    """Rows of scikit-learn, of randla, and of randla until it is as good as scikit-learn."""
    from ...nonnegative.solvers import nmf

    label = {"frobenius": "Frobenius", "kl": "KL"}[loss]
    progress.step(f"scikit-learn NMF, {label}")
    task.add(f"sklearn NMF, {solver}: {label}, {data}", lambda: by_sklearn(X, rank, loss, solver),
             answer=lambda value: value[:2], note=lambda value: f"{value[2]} iterations")  # fmt: skip
    reached = task.rows[0].error
    progress.step(f"randla.nmf, {label}")
    init = "auto" if loss == "frobenius" else "nndsvda"  # the same as the peer's
    fit = partial(nmf, rank=rank, loss=loss, init=init, rng=0, on_failure="ignore")
    fit(X[: 4 * rank], max_iter=1)  # compiles
    measured = measure(partial(fit, X), budget=task.budget)
    ours = measured.value
    task.judge(
        f"randla.nmf: {label}, {data}", measured, tuple(ours), ours=True, estimate=ours.error,
        note=f"{ours.n_iter} iterations",
    )  # fmt: skip
    call = partial(fit, X, tol=0.0, callback=lambda step: step.error <= reached)
    measured = measure(call, budget=task.budget)
    missed = "" if measured.value.error <= (1 + 1e-6) * reached else ", not reached"
    task.judge(
        f"randla.nmf: {label}, to the same error", measured, tuple(measured.value), ours=True,
        note=f"{measured.value.n_iter} iterations{missed}",
    )  # fmt: skip
    return ours


def by_sklearn(X: Any, rank: int, loss: str, solver: str) -> tuple[np.ndarray, np.ndarray, int]:
    """W, H and the number of iterations of scikit-learn, with its defaults but for loss and solver."""
    import warnings

    from sklearn.decomposition import NMF

    name = {"frobenius": "frobenius", "kl": "kullback-leibler"}[loss]
    model = NMF(rank, solver=solver, beta_loss=name, init="nndsvda" if solver == "mu" else None, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its number of iterations is in the table
        W = model.fit_transform(X)
    return W, model.components_, int(model.n_iter_)


def divergence(X: Any, W: Any, H: Any) -> float:
    """The Kullback-Leibler divergence of a CSR matrix from W H, which is formed at the stored entries only."""
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    V, model = np.ascontiguousarray(np.asarray(H).T), np.empty(X.nnz)
    for first in range(0, X.nnz, 2**17):
        part = slice(first, first + 2**17)
        model[part] = np.einsum("ij,ij->i", W[rows[part]], V[X.indices[part]])
    inner = X.data * np.log(X.data / np.maximum(model, np.finfo(float).tiny)) - X.data
    return float(inner.sum() + np.sum(W, axis=0) @ np.sum(H, axis=1))


def by_weight(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """The topics from the heaviest on, and the share of each in the sum of W H."""
    mass = result.W.sum(axis=0) * result.H.sum(axis=1)
    order = np.argsort(-mass)
    return order, mass[order] / mass.sum()


def _table(result: Any, words: np.ndarray, caption: str, count: int = 8) -> Table:
    lines = []
    for position, (k, share) in enumerate(zip(*by_weight(result), strict=True), start=1):
        leading = ", ".join(str(words[j]) for j in np.argsort(-result.H[k])[:count])
        lines.append((str(position), f"{share:.1%}", leading))
    return Table(caption, ("topic", "share", "words"), tuple(lines))


def shares_of_packages(result: Any, packages: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the packages, and the share of each topic (columns, heaviest first) in their words (rows)."""
    order, _ = by_weight(result)
    mass = (result.W * result.H.sum(axis=1))[:, order]
    names = list(dict.fromkeys(packages.tolist()))
    sums = np.stack([mass[packages == name].sum(axis=0) for name in names])
    return names, sums / sums.sum(axis=1, keepdims=True)


def _draw(figure: Any, result: Any, corpus: Corpus) -> None:
    names, shares = shares_of_packages(result, corpus.packages)
    ax = figure.subplots()
    picture = ax.imshow(100 * shares, cmap="viridis", aspect="auto", vmin=0)
    order, _ = by_weight(result)
    labels = [" ".join(str(corpus.words[j]) for j in np.argsort(-result.H[k])[:2]) for k in order]
    ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    ax.set_yticks(range(len(names)), names)
    figure.colorbar(picture, ax=ax, label="% of the words")


JOB = Job("topics", "Topics of docstrings", order=26, n_steps=6, run=_run)
