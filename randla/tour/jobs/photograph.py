"""A photograph of which seven values in ten are missing: completion of the matrix of its overlapping squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row
from .colours import decibels, load

_SEEN = 0.3  # of the values; each channel of each pixel is there or missing by itself
_CHECKED = 0.05  # of the values seen, kept back to tell the error
_SIDE, _STRIDE = 8, 2  # of the squares, and from one square to the next, in pixels
_RANK, _REG = 40, 2e-3
_QUICK = (slice(104, 200), slice(160, 304))  # roofs of the temple: what a quick run fills, and what is shown enlarged
_PART = (slice(16, 64), slice(48, 112))  # of these: what the slowest peer is given

_TEXT = (
    "Of the photograph 70 % of the numbers were thrown away, red, green and blue of each pixel by separate draws.  "
    f"Its squares of {_SIDE} x {_SIDE} pixels, one every {_STRIDE} pixels, are the rows of a matrix with "
    f"{3 * _SIDE**2} columns, and what is known of a square is 58 of them on average.  Squares of a photograph look "
    "like each other, so that the matrix is near to one of low rank, and randla.complete fills it.  A pixel is the "
    "mean of all squares that cover it.",
    "The photograph itself is a matrix, too (its rows, with the channels side by side), and the same call fills that; "
    "but rows of a photograph are less alike than small squares are, and the table shows what this choice costs.  The "
    "estimate of the error is that of 5 % of the known values, which were kept from the fit.",
    "IterativeImputer of scikit-learn, which fits a regression for each column, was given a part of 48 x 64 pixels, "
    "two rounds and 24 columns for each regression, for it takes minutes for the whole.",
)
_PICTURE = (
    "What is left of the photograph, filled by completion of its squares and by linear interpolation within each "
    "channel, and as it was; below a part of it.  Decibels: peak signal to noise over the whole, higher is better."
)


@dataclass(frozen=True)
class Squares:
    """The overlapping squares of a picture (height, width, 3) as rows of a matrix."""

    shape: tuple[int, int, int]
    side: int
    stride: int

    @property
    def grid(self) -> tuple[int, int]:
        """Squares below each other and side by side."""
        height, width = ((size - self.side) // self.stride + 1 for size in self.shape[:2])
        return height, width

    def rows(self, picture: np.ndarray) -> np.ndarray:
        """A row for each square: its pixels, channel after channel."""
        windows = np.lib.stride_tricks.sliding_window_view(picture, (self.side, self.side), axis=(0, 1))
        return np.ascontiguousarray(windows[:: self.stride, :: self.stride]).reshape(-1, 3 * self.side**2)

    def observed(self, picture: np.ndarray, seen: np.ndarray) -> Any:
        """The rows as a sparse matrix of which the stored entries are what was seen."""
        from scipy.sparse import csr_array

        there = self.rows(seen)
        indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return csr_array((self.rows(picture)[there], np.nonzero(there)[1], indptr), shape=there.shape)

    def average(self, rows: np.ndarray) -> np.ndarray:
        """The picture of which each value is the mean of the squares that cover it; NaN where none does."""
        height, width = self.grid
        squares = rows.reshape(height, width, 3, self.side, self.side)
        total, count = np.zeros(self.shape), np.zeros(self.shape[:2])
        for i in range(self.side):
            for j in range(self.side):
                place = (
                    slice(i, i + self.stride * height, self.stride),
                    slice(j, j + self.stride * width, self.stride),
                )
                total[place] += squares[:, :, :, i, j]
                count[place] += 1
        with np.errstate(invalid="ignore"):
            return total / count[:, :, None]


def draw_seen(shape: tuple[int, ...], fraction: float, label: str) -> np.ndarray:
    """Whether each value is seen, independently with probability `fraction`."""
    from ..._backend import kernel
    from ..._random import Stream, as_key

    u = kernel("uniforms", np)(as_key(0).fold(label), Stream.SAMPLE, 0, int(np.prod(shape)))
    return np.asarray(u < fraction).reshape(shape)


def interpolated(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The customary filling: linear interpolation on triangles within each channel, the nearest value outside."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    filled = picture.copy()
    for channel in range(3):
        places = np.argwhere(seen[..., channel])
        holes = np.argwhere(~seen[..., channel])
        values = picture[..., channel][seen[..., channel]]
        guess = LinearNDInterpolator(places, values)(holes)
        outside = np.isnan(guess)
        guess[outside] = NearestNDInterpolator(places, values)(holes[outside])
        filled[..., channel][~seen[..., channel]] = guess
    return filled


def channel_means(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Each missing value as the mean of its channel."""
    means = np.array([picture[..., channel][seen[..., channel]].mean() for channel in range(3)])
    return np.where(seen, picture, means)


def by_iterated_svd(squares: Squares, picture: np.ndarray, seen: np.ndarray, rank: int, n_rounds: int) -> np.ndarray:
    """The customary loop: fill with the means of columns, then again and again with a truncated SVD."""
    from sklearn.decomposition import TruncatedSVD

    X, there = squares.rows(picture).astype(np.float32), squares.rows(seen)
    means = np.array([X[:, j][there[:, j]].mean() for j in range(X.shape[1])])
    filled = np.where(there, X, means)
    for _ in range(n_rounds):
        svd = TruncatedSVD(rank, random_state=0)
        filled = np.where(there, X, svd.fit_transform(filled - means) @ svd.components_ + means)
    return _kept(squares.average(filled), picture, seen)


def by_imputer(squares: Squares, picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The squares filled by scikit-learn's IterativeImputer."""
    import warnings

    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  its import makes the next one possible
    from sklearn.impute import IterativeImputer

    X = np.where(squares.rows(seen), squares.rows(picture), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that two rounds were not enough to converge is said in the table
        filled = IterativeImputer(max_iter=2, n_nearest_features=24, random_state=0).fit_transform(X)
    return _kept(squares.average(filled), picture, seen)


def by_completion(squares: Squares, picture: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, Any]:
    """The picture filled from its squares, and the result of the completion."""
    import randla

    found = randla.complete(
        squares.observed(picture, seen).astype(np.float32), _RANK, reg=_REG, max_iter=10, rng=0, on_failure="ignore"
    )
    return _kept(squares.average(found.to_dense()), picture, seen), found


def by_whole_picture(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The picture filled as one matrix: its rows, with the channels side by side."""
    import randla

    whole = np.where(seen, picture, np.nan).reshape(len(picture), -1)
    found = randla.complete(whole, 40, reg=4e-3, max_iter=20, rng=0, on_failure="ignore")
    return _kept(found.to_dense().reshape(picture.shape), picture, seen)


def _kept(guess: np.ndarray, picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return np.where(seen, picture, np.clip(guess, 0, 1))


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("making the holes")
    picture = load("china.jpg")
    picture = picture[_QUICK] if quick else picture
    seen = draw_seen(picture.shape, _SEEN, "seen")
    fills, rows, size = _compare(picture, seen, progress, quick=quick)
    part = None if quick else _QUICK
    size_of_figure = (12.0, 2.4) if quick else (12.0, 4.5)
    figure = Figure(
        "photograph-filled",
        _PICTURE,
        lambda figure: _draw(figure, picture, seen, fills, part),
        size_of_figure,
        photo=True,
    )
    return Outcome(
        size=size,
        task="filling in, error: root mean square of the missing values, which lie in [0, 1]",
        rows=rows,
        text=_TEXT,
        figures=(figure,),
    )


def _compare(
    picture: np.ndarray, seen: np.ndarray, progress: Progress, *, quick: bool, budget: float = 0.0
) -> tuple[dict[str, np.ndarray], tuple[Row, ...], str]:
    """Run the methods; returns pictures filled by interpolation and by completion, the rows, and what was filled."""
    squares = Squares(picture.shape, _SIDE, _STRIDE)
    checked = seen & draw_seen(picture.shape, _CHECKED, "checked")
    fitted = seen & ~checked

    def error(filled: np.ndarray) -> float:
        return float(np.sqrt(np.mean((filled - picture)[~seen] ** 2)))

    def note(filled: np.ndarray) -> str:
        return f"{decibels(filled, picture):.2f} dB"

    task = Rows(error, budget=budget)
    progress.step("linear interpolation")
    linear = task.add("scipy LinearNDInterpolator", lambda: interpolated(picture, seen), note=note)
    task.add("mean of each channel", lambda: channel_means(picture, seen), note=note)
    progress.step("iterated TruncatedSVD")
    task.add(
        "sklearn TruncatedSVD of the squares, 20 rounds",
        lambda: by_iterated_svd(squares, picture, seen, 16, 20),
        note=note,
    )
    progress.step("randla.complete, the whole picture")
    task.add("randla.complete of the picture", lambda: by_whole_picture(picture, seen), ours=True, note=note)
    progress.step("randla.complete, squares")
    ours, found = task.add(
        f"randla.complete of the squares, rank {_RANK}", lambda: by_completion(squares, picture, fitted), ours=True,
        answer=lambda value: np.where(checked, picture, value[0]),
        estimate=lambda value: float(np.sqrt(np.mean((value[0] - picture)[checked] ** 2))),
        note=lambda value: note(np.where(checked, picture, value[0])),
    )  # fmt: skip
    ours = np.where(checked, picture, ours)
    progress.step("IterativeImputer, a part")
    rows = (*task.rows, _imputed(picture, seen, ours, quick=quick))
    m, n = found.shape
    size = f"{'x'.join(map(str, picture.shape))} numbers, 70 % missing; squares: {m:,} x {n} float32"
    return {"linear interpolation": linear, "completion": ours}, rows, size


def _imputed(picture: np.ndarray, seen: np.ndarray, ours: np.ndarray, *, quick: bool) -> Row:
    """The row of scikit-learn's imputer, on a part; its note tells what completion of the whole made of that part."""
    if not quick:
        picture, seen, ours = picture[_QUICK], seen[_QUICK], ours[_QUICK]
    truth, there, ours = picture[_PART], seen[_PART], ours[_PART]
    squares = Squares(truth.shape, _SIDE, _STRIDE)
    small = Rows(lambda filled: float(np.sqrt(np.mean((filled - truth)[~there] ** 2))), budget=0.0)
    small.add(
        "sklearn IterativeImputer of the squares, 48 x 64 pixels", lambda: by_imputer(squares, truth, there),
        note=lambda filled: f"{decibels(filled, truth):.2f} dB; completion there {decibels(ours, truth):.2f} dB",
    )  # fmt: skip
    return small.rows[0]


def _draw(
    figure: Any, picture: np.ndarray, seen: np.ndarray, fills: dict[str, np.ndarray], part: tuple[slice, ...] | None
) -> None:
    linear, ours = (f"{name}, {decibels(filled, picture):.1f} dB" for name, filled in fills.items())
    shown = {
        "30 % of the numbers": np.where(seen, picture, 0.0),
        linear: fills["linear interpolation"],
        ours: fills["completion"],
        "the photograph": picture,
    }
    axes = figure.subplots(1 if part is None else 2, 4, squeeze=False)
    for column, (title, image) in enumerate(shown.items()):
        axes[0, column].set_title(title, fontsize="medium")
        for row, place in enumerate(((), part)[: len(axes)]):
            axes[row, column].imshow(np.clip(image[place], 0, 1), interpolation="nearest")
            axes[row, column].axis("off")


JOB = Job("photograph", "The holes of a photograph", order=45, n_steps=6, run=_run)
