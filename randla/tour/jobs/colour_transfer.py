"""The colours of one photograph on another: transport between clouds of colours, and all pixels by its map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row
from .colours import load

_FROM, _TO = "china.jpg", "flower.jpg"
_LEVELS = 20  # of each channel, into which colours are gathered for the fit
_QUICK_LEVELS = 12
_REG = 1e-3  # of the largest cost
_DIRECTIONS = 32  # along which colours are compared
_STEP = 7  # of the pixels that are compared

_TEXT = (
    "Each photograph is a cloud of colours, points in the cube of red, green and blue.  Optimal transport moves one "
    "cloud onto the other at least total squared change.  For the fit the colours of all pixels are gathered into "
    f"{_LEVELS} levels of each channel: an occupied cell stands for its pixels by their mean colour and their number.  "
    "No matrix of costs is stored.  Then each pixel, by its own colour, is moved by the entropic map of the potentials "
    "that were found, which is as smooth as the regularisation is large.  The same potentials lead back, and recolour "
    "the other photograph.",
    "The customary ways match the channels one by one, by mean and deviation or by their histograms, or match mean and "
    "covariance of all three.  They move colours to where the other photograph has none.  The error is the distance of "
    "the colours that come out from those that were to be had: transport along a line, averaged over 32 directions, as "
    "a share of that distance before.",
    "Where a photograph has few colours next to each other, as JPEG leaves them in the sky, a map between colours can "
    "only stretch them apart: contours that show are those of the photograph.",
)
_PICTURE = (
    "Above, the two photographs; below, each with the colours of the other: every pixel moved by the map of one fit, "
    "there and back."
)


class Cells(NamedTuple):
    """Occupied cells of the cube of colours: mean colours (k, 3) and numbers of pixels (k,)."""

    colours: np.ndarray
    counts: np.ndarray


def gathered(pixels: np.ndarray, levels: int) -> Cells:
    """Pixels (n, 3) in [0, 1] by cells of `levels` levels of each channel."""
    index = np.minimum((pixels * levels).astype(np.int64), levels - 1) @ np.array([levels**2, levels, 1])
    _, where, counts = np.unique(index, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(where, weights=pixels[:, channel]) for channel in range(3)], axis=1)
    return Cells(sums / counts[:, None], counts)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square of transport along lines in fixed directions, between clouds of as many points."""
    angle = np.pi * (3 - 5**0.5) * np.arange(_DIRECTIONS)  # directions of Fibonacci's lattice on the sphere
    height = 1 - (2 * np.arange(_DIRECTIONS) + 1) / _DIRECTIONS
    flat = np.sqrt(1 - height**2)
    directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)
    apart = np.sort(first @ directions.T, axis=0) - np.sort(second @ directions.T, axis=0)
    return float(np.sqrt(np.mean(apart**2)))


def by_mean_and_deviation(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Each channel shifted and stretched to the mean and deviation of the other."""
    return (X - X.mean(axis=0)) / X.std(axis=0) * Y.std(axis=0) + Y.mean(axis=0)


def by_covariance(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """The linear map between normal distributions of these means and covariances."""
    from scipy.linalg import sqrtm

    A, B = np.cov(X.T), np.cov(Y.T)
    root = sqrtm(A)
    inverse = np.linalg.inv(root)
    return (X - X.mean(axis=0)) @ np.real(inverse @ sqrtm(root @ B @ root) @ inverse) + Y.mean(axis=0)


def by_histograms(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Each value of a channel to the value of the same rank in the other."""
    moved = np.empty_like(X)
    for channel in range(3):
        _, where, counts = np.unique(X[:, channel], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - 0.5 * counts) / len(X)
        moved[:, channel] = np.quantile(Y[:, channel], ranks)[where]
    return moved


def by_transport(X: np.ndarray, Y: np.ndarray, levels: int) -> tuple[np.ndarray, Any]:
    """All pixels of X moved to the colours of Y, and the fitted estimator."""
    from ...estimators import SinkhornTransport

    first, second = gathered(X, levels), gathered(Y, levels)
    model = SinkhornTransport(_REG, tol=1e-6).fit(
        first.colours, Y=second.colours, sample_weight=first.counts, target_weight=second.counts
    )
    return model.transform(X), model


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("loading")
    pictures = [load(name) for name in (_FROM, _TO)]
    if quick:
        pictures = [picture[::4, ::4] for picture in pictures]
    levels = _QUICK_LEVELS if quick else _LEVELS
    X, Y = (picture.reshape(-1, 3).astype(np.float64) for picture in pictures)
    moved, model, rows = _compare(X, Y, levels, progress)
    progress.step("the way back")
    back = model.inverse_transform(Y)
    shown = [*pictures, moved.reshape(pictures[0].shape), back.reshape(pictures[1].shape)]
    figure = Figure("colour-transfer", _PICTURE, lambda figure: _draw(figure, shown), (9.0, 6.3), photo=True)
    return Outcome(
        size=f"{len(X):,} x {len(Y):,} pixels; fit: {len(model.X_):,} x {len(model.Y_):,} colours with their numbers",
        task="recolouring a photograph, error: distance of its colours from the other's, as a share of that before",
        rows=rows,
        text=_TEXT,
        figures=(figure,),
    )


def _compare(X: np.ndarray, Y: np.ndarray, levels: int, progress: Progress) -> tuple[np.ndarray, Any, tuple[Row, ...]]:
    """Pixels moved by transport, its estimator, and the rows."""
    seen = slice(None, None, _STEP)
    before = distance(X[seen], Y[seen])
    task = Rows(lambda moved: distance(np.clip(moved[seen], 0, 1), Y[seen]) / before, budget=0.0)
    progress.step("customary ways")
    task.add("mean and deviation of each channel", lambda: by_mean_and_deviation(X, Y))
    task.add("mean and covariance of the colours", lambda: by_covariance(X, Y))
    task.add("histogram of each channel", lambda: by_histograms(X, Y))
    progress.step("randla.SinkhornTransport")
    moved, model = task.add(
        "randla.SinkhornTransport, fit and all pixels", lambda: by_transport(X, Y, levels), ours=True,
        answer=lambda found: found[0],
        note=lambda found: f"{found[1].n_iter_} steps, marginal error {found[1].marginal_error_:.0e}",
    )  # fmt: skip
    return moved, model, tuple(task.rows)


def _draw(figure: Any, shown: list[np.ndarray]) -> None:
    axes = figure.subplots(2, 2).ravel()
    titles = ("a temple", "a flower", "the temple in the flower's colours", "the flower in the temple's colours")
    for ax, image, title in zip(axes, shown, titles, strict=True):
        ax.imshow(np.clip(image, 0, 1), interpolation="nearest")
        ax.set_title(title, fontsize="medium")
        ax.axis("off")


JOB = Job("colour-transfer", "The colours of another photograph", order=49, n_steps=4, run=_run)
