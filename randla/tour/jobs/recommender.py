"""A recommender on ratings that were drawn: what can be known of them, what a model finds, and for whom it fails."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row, Table

_RANK, _REG = 8, 0.03
_TOP = 10  # recommendations a user
_FEW = (1, 2, 4, 8, 16, 32, 64, 128, 10**9)  # borders of the groups of users by ratings known

_TEXT = (
    "The ratings are synthetic (randla.datasets.synthetic_ratings): stars from 1 to 5, a planted matrix of rank 8 with "
    "biases of users and items, noise of half a star, and uneven as real ones are, with a few very active users and "
    "very popular items.  So the truth behind each rating is known, and with it the error that nobody can go below, "
    "noise and rounding together, which is the best possible error of the table.  They say nothing about people.",
    "A tenth of the ratings was held out.  The mean of all ratings and the biases are what a recommender must beat.  A "
    "truncated SVD takes what is missing for zeros, or, better, for what the biases predict; randla.complete fits what "
    "is there and nothing else.",
)
_COLD = (
    "Held-out error by the number of ratings that were known of the user (cold start).  With few ratings a model can "
    "do little more than the biases do; with none it predicts the mean and the item's bias.  Dashed: the error that "
    "nobody can go below."
)
_TOLD = (
    "Errors of predictions against their standard errors, both from randla.complete, in groups of equal size: the root "
    "mean square distance from the truth behind the ratings, and what predict_std told before the truth was known.  On "
    "the dashed line a model is as wrong as it says.  Above it lies what a standard error does not know of: here that "
    "the ridge pulls the factors to zero, and that stars end at 1 and at 5."
)


@dataclass(frozen=True)
class Ratings:
    """Synthetic ratings, of which some are held out."""

    made: Any
    train: Any
    rows: np.ndarray
    cols: np.ndarray
    values: np.ndarray

    @cached_property
    def counts(self) -> np.ndarray:
        """Known ratings of each user."""
        return np.diff(self.train.indptr)

    @cached_property
    def floor(self) -> float:
        """Error of the truth itself on what is held out."""
        return self.error(self.made.truth(self.rows, self.cols))

    def error(self, predicted: np.ndarray) -> float:
        """Root mean square error on what is held out."""
        return float(np.sqrt(np.mean((predicted - self.values) ** 2)))


def draw(n_users: int, n_items: int, n_ratings: int, rng: int = 0) -> Ratings:
    """Synthetic ratings with a tenth of them held out, no user or item losing its last one."""
    from scipy.sparse import csr_array

    import randla

    from ...completion.observations import as_observations, hold_out

    made = randla.datasets.synthetic_ratings(n_users, n_items, n_ratings, rank=_RANK, rng=rng)
    fitted, held = hold_out(as_observations(made.ratings), 0.1, randla.as_key(rng).fold("held out"))
    train = csr_array((fitted.data, fitted.indices, fitted.indptr), shape=fitted.shape)
    return Ratings(made, train, held.rows, held.indices, held.data)


def biases(X: Any, *, damping: float = 5.0, n_rounds: int = 10) -> tuple[float, np.ndarray, np.ndarray]:
    """The customary start: mean, then biases of users and items in turn, each shrunk as by `damping` zeros more."""
    m, n = X.shape
    rows = np.repeat(np.arange(m), np.diff(X.indptr))
    mean = float(X.data.mean())
    b, c = np.zeros(m), np.zeros(n)
    for _ in range(n_rounds):
        for own, places, other, others in ((b, rows, c, X.indices), (c, X.indices, b, rows)):
            left = X.data - mean - other[others]
            own[:] = np.bincount(places, left, own.size) / (np.bincount(places, minlength=own.size) + damping)
    return mean, b, c


def by_svd(data: Ratings, *, rank: int, centred: bool) -> np.ndarray:
    """Predictions of a truncated SVD that takes what is missing for zeros, or for what the biases predict."""
    from sklearn.decomposition import TruncatedSVD

    X, base = data.train.copy(), np.zeros(len(data.rows))
    if centred:
        mean, b, c = biases(X)
        X.data = X.data - mean - b[np.repeat(np.arange(X.shape[0]), data.counts)] - c[X.indices]
        base = mean + b[data.rows] + c[data.cols]
    svd = TruncatedSVD(rank, random_state=0)
    left = svd.fit_transform(X)
    return base + np.einsum("ij,ij->i", left[data.rows], svd.components_.T[data.cols])


def by_biases(data: Ratings) -> np.ndarray:
    """Predictions of the biases alone."""
    mean, b, c = biases(data.train)
    return np.asarray(mean + b[data.rows] + c[data.cols])


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("drawing the ratings")
    data = draw(*((2000, 1000, 120_000) if quick else (20_000, 5000, 2_000_000)))
    model, rows = _compare(data, progress, budget=0.3 if quick else 1.0)
    progress.step("recommending")
    users = np.arange(0, data.train.shape[0], 10)
    table = _recommended(data, model, users)
    progress.step("cold start and standard errors")
    cold, told = _by_counts(data, model), _calibration(data, model)
    n, (m, n_items) = data.made.ratings.nnz, data.train.shape
    figures = (
        Figure("recommender-cold-start", _COLD, lambda figure: _draw_cold(figure, data, cold)),
        Figure("recommender-told", _TOLD, lambda figure: _draw_told(figure, told)),
    )
    return Outcome(
        size=f"{m:,} x {n_items:,}, {n:,} synthetic ratings",
        task=f"predicting ratings, rank {_RANK}, error: root mean square of {len(data.rows):,} held out",
        rows=rows,
        text=_TEXT,
        figures=figures,
        tables=(table,),
    )


def _compare(data: Ratings, progress: Progress, *, budget: float) -> tuple[Any, tuple[Row, ...]]:
    """Run the methods; returns randla's model and the rows."""
    import randla

    task = Rows(data.error, best=data.floor, budget=budget)
    progress.step("customary methods")
    task.add("damped biases", lambda: by_biases(data))
    task.add("mean of all ratings", lambda: np.full(len(data.rows), data.train.data.mean()))
    for centred in (False, True):
        name = "sklearn TruncatedSVD, " + ("biases for what is missing" if centred else "zeros for what is missing")
        task.add(name, partial(by_svd, data, rank=_RANK, centred=centred))
    progress.step("randla.complete")
    model = task.add(
        f"randla.complete(X, {_RANK})",
        lambda: randla.complete(data.train, _RANK, reg=_REG, rng=0, on_failure="ignore"), ours=True,
        answer=lambda found: found.predict(data.rows, data.cols),
        estimate=lambda found: float(np.sqrt(np.mean(found.predict_std(data.rows, data.cols, noise=True) ** 2))),
        note=lambda found: f"{found.n_iter} sweeps",
    )  # fmt: skip
    return model, tuple(task.rows)


def _recommended(data: Ratings, model: Any, users: np.ndarray) -> Table:
    """How good the recommendations are, by the truth: items that the user has rated are left out."""
    from ...completion.observations import as_observations
    from ...completion.ranking import recommend

    truth = data.made.truth(users[:, None], np.arange(data.train.shape[1]))
    seen = data.train[users].toarray() != 0
    truth[seen] = -np.inf
    wanted = np.argpartition(-truth, 5 * _TOP, axis=1)[:, : 5 * _TOP]
    good = np.zeros(truth.shape, bool)
    np.put_along_axis(good, wanted, values=True, axis=1)
    popular = np.argsort(-np.bincount(data.train.indices, minlength=truth.shape[1]), kind="stable")
    loved = np.argsort(-biases(data.train)[2], kind="stable")
    ours = recommend(
        model.row_factors, model.col_factors, users, _TOP, seen=as_observations(data.train), col_bias=model.col_bias
    )
    lists = {
        "the truth": np.argsort(-truth, axis=1, kind="stable")[:, :_TOP],
        "randla.complete": ours.columns,
        "items with the largest bias": _first_unseen(loved, seen),
        "most popular items": _first_unseen(popular, seen),
    }
    rows = []
    for name, columns in lists.items():
        values = np.take_along_axis(truth, columns, axis=1)
        hits = float(np.take_along_axis(good, columns, axis=1).mean())
        rows.append((name, f"{values.mean():.2f}", f"{_TOP * hits:.1f} of {_TOP}"))
    caption = (
        f"The {_TOP} best items for each of {len(users):,} users, rated ones left out: the mean of what the user would "
        f"think of them, noise apart, and how many are among the user's true best {5 * _TOP}."
    )
    return Table(caption, ("list made by", "true mean rating", "among the best"), tuple(rows))


def _first_unseen(order: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The first items in `order` for each user that the user has not rated."""
    return np.array([order[~rated[order]][:_TOP] for rated in seen])


def _by_counts(data: Ratings, model: Any) -> dict[str, np.ndarray]:
    """Held-out errors of groups of users with so many ratings known."""
    group = np.searchsorted(_FEW, data.counts[data.rows], side="right") - 1
    n_groups = len(_FEW) - 1
    size = np.bincount(group, minlength=n_groups)
    curves = {"size": size}
    for name, predicted in (
        ("damped biases", by_biases(data)),
        ("TruncatedSVD on biases", by_svd(data, rank=_RANK, centred=True)),
        ("randla.complete", model.predict(data.rows, data.cols)),
    ):
        squares = np.bincount(group, (predicted - data.values) ** 2, n_groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            curves[name] = np.sqrt(squares / size)
    return curves


def _calibration(data: Ratings, model: Any, n_groups: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors as told and errors as they were: root mean squares of groups of pairs of like standard error."""
    told = model.predict_std(data.rows, data.cols)
    off = model.predict(data.rows, data.cols) - data.made.truth(data.rows, data.cols)
    groups = np.array_split(np.argsort(told, kind="stable"), n_groups)
    told, off = (np.array([np.sqrt(np.mean(part[group] ** 2)) for group in groups]) for part in (told, off))
    return told, off


def _draw_cold(figure: Any, data: Ratings, curves: dict[str, np.ndarray]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    shown = np.flatnonzero(curves["size"] >= 50)
    for position, name in enumerate(name for name in curves if name != "size"):
        ax.plot(shown, curves[name][shown], color=PALETTE[position], marker=MARKERS[position], markersize=4, label=name)
    ax.axhline(data.floor, linestyle="--", linewidth=1, color=PALETTE[-1])
    names = [f"{low}-{high - 1}" if high < 10**9 else f"{low}+" for low, high in pairwise(_FEW)]
    ax.set_xticks(shown, [names[place] for place in shown])
    ax.set(xlabel="ratings known of the user", ylabel="held-out error (stars)")
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


def _draw_told(figure: Any, told: tuple[np.ndarray, np.ndarray]) -> None:
    from ...plot import PALETTE

    ax = figure.subplots()
    top = 1.05 * max(part.max() for part in told)
    ax.plot([0, top], [0, top], color=PALETTE[-1], linewidth=1, linestyle="--")
    ax.plot(*told, color=PALETTE[0], marker="o", markersize=4)
    ax.set(xlim=(0, top), ylim=(0, top), xlabel="standard error told", ylabel="error from the truth (stars)")
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


JOB = Job("recommender", "A recommender, and what nobody can know", order=46, n_steps=5, run=_run)
