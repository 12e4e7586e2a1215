"""Every 8x8 patch of a photograph: a tall dense matrix."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..compare import Comparison, best_errors
from ..job import Figure, Job, Outcome, Progress, Row
from ..measure import measure

_SIDE = 8
_RANK = 16
_SHOWN = (1, 4, 16, 48)
_TOL = 0.1
_KINDS = ("gaussian", "sparse-sign", "srht", "countsketch", "rows")

_TEXT = (
    "Each row is one 8 x 8 patch of a photograph that comes with scikit-learn: three colours, 192 numbers.  The "
    "leading right singular vectors are the patterns that photographs are made of.",
    "On a matrix as narrow as this one the eigenvectors of A'A are the method to beat; they square the condition "
    "number, so singular values below 1e-4 (float32) or 1e-8 (float64) of the largest are out of their reach.  The "
    "streamed rows read the matrix from a file in blocks, so they need room for the result and a few blocks only; a "
    "single pass costs accuracy, which the estimate tells.",
)
_SPECTRUM = (
    "Singular values of the patch matrix: exact, and those that randla found for a tolerance.  They fall fast, so a "
    "few patterns carry the picture."
)
_SKETCHES = (
    f"One sketch of the rows, from which the leading {_RANK} right singular vectors are read off.  The kinds lie close "
    "together, though the sparse ones cost a fraction of the Gaussian; plain sampling of rows needs about twice the "
    "size, for it may miss the rows that matter."
)
_IMAGE = (
    "The photograph rebuilt from its patches after projection on the leading patterns; of 192 numbers in a patch, "
    "the rank is what is kept.  Decibels: peak signal to noise, higher is better."
)


def load_patches(stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The photograph with values in [0, 1], and its patches at every `stride`-th place as the rows of a matrix."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg").astype(np.float32) / np.float32(255)
    windows = np.lib.stride_tricks.sliding_window_view(image, (_SIDE, _SIDE, 3))[::stride, ::stride, 0]
    return image, np.ascontiguousarray(windows).reshape(-1, _SIDE * _SIDE * 3)


def rebuild(scores: np.ndarray, basis: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Average the overlapping patches ``scores @ basis`` (one at every place) back into an image.

    One row of the patch at a time, so that the patches themselves are never stored.
    """
    height, width = shape[0] - _SIDE + 1, shape[1] - _SIDE + 1
    total, count = np.zeros((*shape, 3), basis.dtype), np.zeros((*shape, 1), basis.dtype)
    wide = 3 * _SIDE
    for i in range(_SIDE):
        strips = (scores @ basis[:, i * wide : (i + 1) * wide]).reshape(height, width, _SIDE, 3)
        for j in range(_SIDE):
            total[i : i + height, j : j + width] += strips[:, :, j]
            count[i : i + height, j : j + width] += 1
    return np.clip(total / count, 0, 1)


def _run(quick: bool, progress: Progress) -> Outcome:
    import randla

    from ...plot import SketchErrorDisplay

    progress.step("cutting the patches")
    image, A = load_patches(2 if quick else 1)
    whole, s, rows = _compare(A, progress, budget=0.3 if quick else 1.0)
    progress.step("sketches of several kinds and sizes")
    sizes = (24, 48, 96, 192, 384) if quick else (24, 48, 96, 192, 384, 768)
    sketches = SketchErrorDisplay.from_matrix(
        A, _RANK, sketch_sizes=sizes, kinds=_KINDS, n_repeats=1 if quick else 2, rng=0
    )
    progress.step("rebuilding the photograph")
    full = A if not quick else load_patches(1)[1]
    basis = randla.svd(A, max(_SHOWN), rng=0).Vh
    scores = full @ basis.T
    images = [rebuild(scores[:, :r], basis[:r], image.shape[:2]) for r in _SHOWN]
    m, n = A.shape
    spectrum = Figure("patches-spectrum", _SPECTRUM, lambda figure: _draw_spectrum(figure, s, whole))
    sketched = Figure("patches-sketches", _SKETCHES, lambda figure: sketches.plot(figure.subplots()))
    rebuilt = Figure(
        "patches-image", _IMAGE, lambda figure: _draw_images(figure, image, images), (8.4, 6.3), photo=True
    )
    return Outcome(
        size=f"{m:,} x {n} {A.dtype}, dense",
        task=f"rank {_RANK} unless said otherwise",
        rows=rows,
        text=_TEXT,
        figures=(spectrum, sketched, rebuilt),
    )


def _compare(A: np.ndarray, progress: Progress, *, budget: float) -> tuple[Any, np.ndarray, tuple[Row, ...]]:
    """Run the methods; returns the result for the tolerance, the exact singular values, and the rows."""
    from sklearn.utils.extmath import randomized_svd

    import randla

    from ...files import load_matrix

    progress.step("numpy.linalg.svd")
    measured = measure(lambda: np.linalg.svd(A, full_matrices=False), budget=0)
    U, s, Vh = measured.value
    task = Comparison(A, best_errors(s), budget=budget)
    task.judge("numpy.linalg.svd, cut off", measured, (U[:, :_RANK], s[:_RANK], Vh[:_RANK]))
    del U, measured  # as large as A: not to be held while the others run
    progress.step("A'A and its eigenvectors")
    task.add("eigenvectors of A'A", lambda: _by_gram(A))
    progress.step("scikit-learn randomized_svd")
    task.add("sklearn randomized_svd", lambda: randomized_svd(A, _RANK, random_state=0))
    progress.step("randla.svd, rank given")
    task.add(f"randla.svd(A, {_RANK})", lambda: randla.svd(A, _RANK, rng=0), ours=True)
    progress.step("randla.svd, tolerance given")
    call = partial(randla.svd, A, tol=_TOL, rng=0)
    whole = task.add(f"randla.svd(A, tol={_TOL})", call, ours=True, note=lambda found: f"found rank {found.rank}")
    progress.step("randla.svd, streamed from a file")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patches.npy"
        np.save(path, A)
        stream = load_matrix(path, memory=A.nbytes // 8)
        for n_passes in (1, 2):
            call = partial(randla.svd, stream, _RANK, n_passes=n_passes, rng=0)
            note = f"reads {A.nbytes / 1e6:.0f} MB from disk {'once' if n_passes == 1 else 'twice'}"
            task.add(f"randla.svd(file, {_RANK}, n_passes={n_passes})", call, ours=True, note=note)
    return whole, s, tuple(task.rows)


def _by_gram(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(A.T @ A)
    s = np.sqrt(np.maximum(values[::-1][:_RANK], 0))
    V = vectors[:, ::-1][:, :_RANK]
    return A @ V / s, s, V.T


def _draw_spectrum(figure: Any, s: np.ndarray, whole: Any) -> None:
    from ...plot import PALETTE, SpectrumDisplay

    ax = figure.subplots()
    SpectrumDisplay.from_values(s, label="numpy.linalg.svd").plot(
        ax, line_kwargs={"marker": None, "linewidth": 4, "color": PALETTE[-1], "alpha": 0.55}
    )
    SpectrumDisplay.from_result(whole, label=f"randla.svd, tol={_TOL}: rank {whole.rank}").plot(
        ax, line_kwargs={"linewidth": 1}
    )


def _draw_images(figure: Any, image: np.ndarray, images: list[np.ndarray]) -> None:
    panels = figure.subplots(2, 2).ravel()
    for ax, rank, rebuilt in zip(panels, _SHOWN, images, strict=True):
        psnr = -10 * np.log10(np.mean((rebuilt - image) ** 2))
        ax.imshow(rebuilt, interpolation="lanczos")
        ax.set_title(f"rank {rank}: {psnr:.1f} dB", fontsize="medium")
        ax.axis("off")


JOB = Job("patches", "Patches of a photograph", order=10, n_steps=9, run=_run)
