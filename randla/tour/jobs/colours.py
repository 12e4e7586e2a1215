"""The colours that a camera did not see: least squares with a hundred columns, learnt on one photograph."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row
from ..measure import measure

_CELLS = 5  # cells of 2 x 2 pixels to a side of the neighbourhood
_MARGIN = 2 * (_CELLS // 2)  # pixels at the border of a photograph that have no full neighbourhood
_LEARN, _HELD_OUT = "flower.jpg", "china.jpg"
_SHOWN = (slice(104, 224), slice(236, 416))  # the roofs of the temple: where the colours are hardest to guess

_TEXT = (
    "A camera sees one colour in each pixel: red, green or blue by turns, in cells of 2 x 2.  The other two are "
    "guessed from the pixels around it.  Here the guess is linear, and learnt: each row is a neighbourhood of "
    f"{_CELLS} x {_CELLS} cells of one photograph, and the right-hand sides are the 12 colours of its middle cell.  "
    "The other photograph that comes with scikit-learn was held out, and the notes tell how well its colours are "
    "guessed.",
    "The best possible error is that of LAPACK.  randla.lstsq reads the matrix a few "
    "times in place of factorising it, and ends with the same residual; the sketch alone is faster still and leaves an "
    "excess, which the last picture shows to be as large as the theory says.",
)
_IMAGE = (
    "Part of the photograph that was held out.  What the camera sees; each missing colour as the mean of its "
    "neighbours; as the regression that was learnt on the other photograph; the truth.  Decibels: peak signal to noise "
    "over the whole photograph, higher is better."
)
_EXCESS = (
    "How much larger the squared residual becomes where only a sketch of the problem is solved, against the rows of "
    "the sketch (band: least and largest over keys).  Grey: n / (d - n - 1) for d rows and n columns, which is the law "
    "of sketches with normal entries."
)


def mosaic(image: np.ndarray) -> np.ndarray:
    """What a camera sees of an image: red and green in even rows, green and blue in odd ones."""
    seen = np.empty(image.shape[:2], image.dtype)
    for i, j, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        seen[i::2, j::2] = image[i::2, j::2, channel]
    return seen


def neighbourhoods(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mosaic around each cell, and the 2 x 2 x 3 colours of the cell, as rows of two matrices.

    Both sides of `image` must be even.
    """
    height, width = image.shape[0] // 2, image.shape[1] // 2
    cells = mosaic(image).reshape(height, 2, width, 2).transpose(0, 2, 1, 3)
    windows = np.lib.stride_tricks.sliding_window_view(cells, (_CELLS, _CELLS), axis=(0, 1))
    colours = image.reshape(height, 2, width, 2, 3).transpose(0, 2, 1, 3, 4)
    edge = _CELLS // 2
    inner = colours[edge : height - edge, edge : width - edge]
    return np.ascontiguousarray(windows).reshape(-1, 4 * _CELLS**2), inner.reshape(-1, 12)


def rebuild(colours: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The image, `shape` pixels with its margin cut off, from the 12 colours of each cell."""
    height, width = (side // 2 - 2 * (_CELLS // 2) for side in shape)
    cells = colours.reshape(height, width, 2, 2, 3).transpose(0, 2, 1, 3, 4)
    return np.clip(cells.reshape(2 * height, 2 * width, 3), 0, 1)


def means_of_neighbours(seen: np.ndarray) -> np.ndarray:
    """The customary guess: each missing colour as the mean of the nearest pixels that have it."""
    from scipy.ndimage import convolve

    cross = np.array([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]])
    square = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    rows, columns = np.indices(seen.shape) % 2
    image = np.empty((*seen.shape, 3))
    # every second pixel is green, so a green one has green pixels at its corners that must not count
    places = ((rows + columns == 0, square), (rows != columns, cross), (rows + columns == 2, square))
    for channel, (there, weights) in enumerate(places):
        total = convolve(seen * there, weights, mode="constant")
        image[..., channel] = total / convolve(there.astype(float), weights, mode="constant")
    return image


def load(name: str) -> np.ndarray:
    """A photograph with values in [0, 1] and even sides."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image(name).astype(np.float64) / 255
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]


def learn_from(image: np.ndarray, n_shifts: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbourhoods of the image as it is and moved by a pixel, so that each pixel is seen in several colours."""
    shifted = (image[i : i - 2, j : j - 2] for i in (0, 1) for j in (0, 1))
    parts = [neighbourhoods(part) for part, _ in zip(shifted, range(n_shifts), strict=False)]
    A, B = (np.concatenate(matrices) for matrices in zip(*parts, strict=True))
    return A, B


def decibels(guess: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise of values in [0, 1]."""
    return float(-10 * np.log10(np.mean((np.clip(guess, 0, 1) - truth) ** 2)))


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("cutting the neighbourhoods")
    A, B = learn_from(load(_LEARN), 1 if quick else 4)
    held_out = load(_HELD_OUT)
    X, rows = _compare(A, B, neighbourhoods(held_out), progress, budget=0.3 if quick else 1.0)
    progress.step("guessing the colours")
    inner = slice(_MARGIN, -_MARGIN)
    truth = held_out[inner, inner]
    guesses = {
        "neighbours' mean": means_of_neighbours(mosaic(held_out))[inner, inner],
        "randla.lstsq": rebuild(neighbourhoods(held_out)[0] @ X, held_out.shape[:2]),
    }
    progress.step("sketches of several sizes")
    sizes = [factor * A.shape[1] for factor in (2, 4, 8, 16, 32)]
    excess = _excesses(A, B, sizes, repeats=2 if quick else 5)
    m, n = A.shape
    image = Figure(
        "colours-image", _IMAGE, lambda figure: _draw_images(figure, held_out[inner, inner], truth, guesses),
        (8.4, 6.3), photo=True,
    )  # fmt: skip
    sketched = Figure("colours-sketch", _EXCESS, lambda figure: _draw_excesses(figure, n, sizes, excess))
    return Outcome(
        size=f"{m:,} x {n} {A.dtype}, dense, {B.shape[1]} right-hand sides",
        task="least squares, error: ||A X - B|| / ||B||",
        rows=rows,
        text=_TEXT,
        figures=(image, sketched),
    )


def _compare(
    A: np.ndarray, B: np.ndarray, held_out: tuple[np.ndarray, np.ndarray], progress: Progress, *, budget: float
) -> tuple[np.ndarray, tuple[Row, ...]]:
    """Run the methods; returns randla's coefficients and the rows."""
    import scipy.linalg
    from sklearn.linear_model import LinearRegression

    import randla

    norm = float(np.linalg.norm(B))

    def error(X: np.ndarray) -> float:
        return float(np.linalg.norm(A @ X - B)) / norm

    def note(X: np.ndarray) -> str:
        return f"held out: {decibels(held_out[0] @ X, held_out[1]):.2f} dB"

    progress.step("numpy.linalg.lstsq")
    measured = measure(lambda: np.linalg.lstsq(A, B, rcond=None)[0], budget=budget)
    task = Rows(error, best=error(measured.value), budget=budget)
    task.judge("numpy.linalg.lstsq", measured, measured.value, note=note(measured.value))
    progress.step("scipy, gelsy")
    task.add("scipy.linalg.lstsq, gelsy", lambda: scipy.linalg.lstsq(A, B, lapack_driver="gelsy")[0], note=note)
    progress.step("scikit-learn")
    plain = LinearRegression(fit_intercept=False)
    task.add("sklearn LinearRegression", lambda: plain.fit(A, B).coef_.T, note=note)
    solutions = []
    for method in ("auto", "sketch"):
        progress.step(f"randla.lstsq, {method}")
        call = partial(randla.lstsq, A, B, method=method, rng=0)
        name = "randla.lstsq(A, B)" if method == "auto" else f"randla.lstsq(A, B, method={method!r})"
        found = task.add(
            name, call, ours=True, answer=lambda found: found.x, note=lambda found: note(found.x),
            estimate=lambda found: float(np.linalg.norm(found.residual_norm)) / norm,
        )  # fmt: skip
        solutions.append(found.x)
    return solutions[0], tuple(task.rows)


def _excesses(A: np.ndarray, B: np.ndarray, sizes: list[int], repeats: int) -> np.ndarray:
    """Relative excess of the squared residual after a sketch and nothing else: (repeats, sizes)."""
    import randla

    # all that is asked of a solution X is R X, with R the triangular factor of [A B]
    R: Any = np.linalg.qr(np.column_stack([A, B]), mode="r")
    n = A.shape[1]
    least = float(np.sum(R[n:, n:] ** 2))
    excess = np.empty((repeats, len(sizes)))
    for key in range(repeats):
        for position, size in enumerate(sizes):
            X = randla.lstsq(A, B, method="sketch", sketch_size=size, rng=key).x
            excess[key, position] = float(np.sum((R[:n, :n] @ X - R[:n, n:]) ** 2)) / least
    return excess


def _draw_images(figure: Any, seen: np.ndarray, truth: np.ndarray, guesses: dict[str, np.ndarray]) -> None:
    raw = np.zeros_like(seen)
    for i, j, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        raw[i::2, j::2, channel] = seen[i::2, j::2, channel]
    titles: dict[str, np.ndarray] = {"what the camera sees": raw}
    titles |= {f"{name}: {decibels(guess, truth):.1f} dB": guess for name, guess in guesses.items()}
    titles["truth"] = truth
    for ax, (title, picture) in zip(figure.subplots(2, 2).ravel(), titles.items(), strict=True):
        ax.imshow(np.clip(picture[_SHOWN], 0, 1), interpolation="nearest")
        ax.set_title(title, fontsize="medium")
        ax.axis("off")


def _draw_excesses(figure: Any, n: int, sizes: list[int], excess: np.ndarray) -> None:
    from ...plot import PALETTE

    ax = figure.subplots()
    low, high, middle = excess.min(axis=0), excess.max(axis=0), np.median(excess, axis=0)
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    ax.plot(fine, n / (fine - n - 1), color=PALETTE[-1], linewidth=4, alpha=0.55, label="n / (d - n - 1)")
    ax.plot(sizes, middle, color=PALETTE[0], marker="o", markersize=4, linewidth=1, label='method="sketch"')
    ax.fill_between(sizes, low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set(xlabel="rows of the sketch", ylabel="excess of the squared residual")
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


JOB = Job("colours", "The colours that a camera did not see", order=40, n_steps=8, run=_run)
