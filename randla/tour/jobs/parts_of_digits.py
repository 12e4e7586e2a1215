"""Parts of handwritten digits, how many of them, and pixels that were hidden: nonnegative factorisation with holes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row

_PARTS = 16  # shown
_SHOWN = (0, 2, 3, 5, 8, 9)  # digits whose hidden pixels are shown
_HIDDEN = 0.2  # of the pixels
_CHECKED = 0.05  # of the others, held out by the factorisation itself
_RANK, _ALPHA = 30, 30.0
_FILLED_RANK = 12  # the best one for the matrix filled with means
_RANKS = (2, 4, 6, 8, 10, 13, 16, 20, 25, 30)

_TEXT = (
    "A nonnegative factorisation writes each digit as a sum of parts.  Nothing cancels, so that the parts are strokes, "
    "where principal components are patterns of both signs, and each digit takes a few of them.",
    f"How many parts?  {_HIDDEN:.0%} of the pixels are hidden and predicted: few parts miss much of a digit, many fit "
    "the pixels that are seen at the expense of those that are not.  A penalty on both factors "
    "(alpha_W = alpha_H) keeps the parts that few pixels speak for small, and then more parts do no harm.",
    "The table fills the hidden pixels.  A factorisation of the matrix filled with the means of pixels learns the "
    "means, too; randla.masked_nmf fits what is known and nothing else.  Its estimate is the error of "
    f"{_CHECKED:.0%} of the known pixels, which it held out.  Where a hidden pixel alone is wanted, the nearest "
    "neighbours among 1,797 digits that are much alike do better; they give no parts.",
)
_PICTURES = f"{_PARTS} parts of the digits, and as many leading singular vectors (blue: negative)."
_CURVE = (
    "Root mean square error of hidden pixels (grey levels from 0 to 16) against the number of parts; the bands are one "
    "standard error over the draws of what is hidden.  The circles are the least numbers within one of the least error."
)
_FILLED = "Six digits with a fifth of their pixels hidden (blue), filled in two ways, and as they were."


class Digits(NamedTuple):
    """The pictures as rows, and what of them is seen."""

    truth: np.ndarray
    seen: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """NaN where a pixel is hidden."""
        return np.where(self.seen, self.truth, np.nan)


def load_digits(quick: bool) -> Digits:
    """The digits of scikit-learn, every third of them in a quick run."""
    from sklearn import datasets

    from .photograph import draw_seen

    truth = datasets.load_digits().data[:: 3 if quick else 1]
    return Digits(truth, draw_seen(truth.shape, 1 - _HIDDEN, "digits"))


def _run(quick: bool, progress: Progress) -> Outcome:
    from ...nonnegative.solvers import nmf

    progress.step("parts")
    digits = load_digits(quick)
    parts = nmf(digits.truth, _PARTS, rng=0, on_failure="ignore")
    progress.step("error against the number of parts")
    curves = rank_curves(digits.truth, _RANKS[1:9:2] if quick else _RANKS, n_splits=2)
    fills, rows = _compare(digits, progress, budget=0.0 if quick else 1.0)
    m, n = digits.truth.shape
    return Outcome(
        size=f"{m:,} x {n} {digits.truth.dtype}, dense, {1 - digits.seen.mean():.0%} hidden",
        task="filling in, error: root mean square of the hidden pixels, which lie in [0, 16]",
        rows=rows,
        text=_TEXT,
        figures=(
            Figure("parts-of-digits", _PICTURES, lambda figure: _draw_parts(figure, parts.H, digits.truth), (7.0, 3.8)),
            Figure("parts-ranks", _CURVE, lambda figure: _draw_curves(figure, curves)),
            Figure("parts-filled", _FILLED, lambda figure: _draw_filled(figure, digits, fills), (6.4, 4.4)),
        ),
    )


def rank_curves(X: np.ndarray, ranks: tuple[int, ...], *, n_splits: int) -> dict[str, Any]:
    """Held-out errors without and with a penalty."""
    from ...nonnegative.stability import select_rank

    return {
        name: select_rank(
            X, ranks, method="holdout", validation_fraction=_HIDDEN, n_splits=n_splits, n_init=1, rng=0,
            options={"max_iter": 100, "alpha_W": alpha, "alpha_H": alpha},
        )
        for name, alpha in (("no penalty", 0.0), (f"alpha = {_ALPHA:g}", _ALPHA))
    }  # fmt: skip


def _compare(digits: Digits, progress: Progress, *, budget: float) -> tuple[dict[str, np.ndarray], tuple[Row, ...]]:
    """Fill in the hidden pixels by customary methods and by randla; the pictures, and the rows."""
    from sklearn.impute import KNNImputer

    from ...nonnegative.masked import masked_nmf

    truth, seen, known = digits.truth, digits.seen, digits.known

    def error(filled: np.ndarray) -> float:
        return float(np.sqrt(np.mean((filled - truth)[~seen] ** 2)))

    task = Rows(error, budget=budget)
    progress.step("scikit-learn NMF of the means")
    by_means = task.add(
        f"sklearn NMF filled with means, {_FILLED_RANK} parts", lambda: by_mean_filling(known, _FILLED_RANK)
    )
    task.add(f"sklearn NMF filled with means, {_RANK} parts", lambda: by_mean_filling(known, _RANK))
    task.add("mean of each pixel", lambda: np.where(seen, truth, np.nanmean(known, axis=0)))
    progress.step("scikit-learn KNNImputer")
    task.add("sklearn KNNImputer", lambda: KNNImputer(keep_empty_features=True).fit_transform(known))
    progress.step("randla.masked_nmf")
    ours = task.add(
        f"randla.masked_nmf, {_RANK} parts, alpha {_ALPHA:g}",
        lambda: masked_nmf(
            known, _RANK, alpha_W=_ALPHA, alpha_H=_ALPHA, validation_fraction=_CHECKED, rng=0, on_failure="ignore"
        ),
        ours=True,
        answer=lambda result: result.to_dense(),
        estimate=lambda result: result.error,
        note=lambda result: f"{result.n_iter} iterations",
    )
    return {"NMF of the means": by_means, "masked NMF": ours.to_dense()}, tuple(task.rows)


def by_mean_filling(known: np.ndarray, rank: int) -> np.ndarray:
    """The customary detour: fill with the means of columns, factorise, and read the model off."""
    import warnings

    from sklearn.decomposition import NMF

    filled = np.where(np.isnan(known), np.nanmean(known, axis=0), known)
    model = NMF(rank, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 iterations are its default
        W = model.fit_transform(filled)
    return np.asarray(W @ model.components_)


def _tiles(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures of 8 x 8 pixels in rows of `columns`, NaN between them."""
    count = -(-len(pictures) // columns) * columns
    framed = np.full((count, 9, 9), np.nan)
    framed[: len(pictures), :8, :8] = pictures.reshape(-1, 8, 8)
    whole = framed.reshape(-1, columns, 9, 9).transpose(0, 2, 1, 3).reshape(-1, 9 * columns)
    return whole[:-1, :-1]


def _draw_parts(figure: Any, H: np.ndarray, X: np.ndarray) -> None:
    parts = H / H.max(axis=1, keepdims=True)
    vectors = np.linalg.svd(X, full_matrices=False).Vh[: len(parts)]
    vectors = vectors / np.abs(vectors).max(axis=1, keepdims=True)
    vectors *= np.sign(vectors.sum(axis=1, keepdims=True))
    for ax, pictures, title in zip(figure.subplots(1, 2), (parts, vectors), ("parts", "singular vectors"), strict=True):
        ax.imshow(_tiles(pictures, 4), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(title, fontsize="medium")
        ax.axis("off")
    figure.get_layout_engine().set(wspace=0.08)


def _draw_curves(figure: Any, curves: dict[str, Any]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (name, curve) in enumerate(curves.items()):
        errors, spread = np.array(curve.errors), np.array(curve.standard_errors)
        style = {"color": PALETTE[position], "marker": MARKERS[position], "markersize": 4}
        ax.plot(curve.values, errors, label=name, **style)
        ax.fill_between(curve.values, errors - spread, errors + spread, color=PALETTE[position], alpha=0.2, linewidth=0)
        chosen = errors[curve.values.index(curve.chosen)]
        ax.plot([curve.chosen], [chosen], "o", markersize=11, markerfacecolor="none", color=PALETTE[position])
    least = min(min(curve.errors) for curve in curves.values())
    most = max(curve.errors[0] for curve in curves.values())
    ax.set_ylim(0.95 * least, 1.1 * most)  # without a penalty the last ones are far above
    ax.set(xlabel="parts", ylabel="error of hidden pixels")
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


def _draw_filled(figure: Any, digits: Digits, fills: dict[str, np.ndarray]) -> None:
    import matplotlib as mpl

    hidden = mpl.colormaps["gray_r"].with_extremes(bad="#0072B2")
    shown = {"seen": digits.known, **fills, "the digits": digits.truth}
    axes = figure.subplots(len(shown), len(_SHOWN))
    for line, (title, pictures) in zip(axes, shown.items(), strict=True):
        for ax, number in zip(line, _SHOWN, strict=True):
            picture = pictures[number]
            if title not in ("seen", "the digits"):  # what is known stays
                picture = np.where(digits.seen[number], digits.truth[number], picture)
            ax.imshow(picture.reshape(8, 8), cmap=hidden, vmin=0, vmax=16)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize="small", rotation=0, ha="right", va="center")


JOB = Job("parts-of-digits", "Parts of digits", order=32, n_steps=5, run=_run)
