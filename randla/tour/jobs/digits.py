"""Handwritten digits: a small matrix, where the exact method wins on time and randla shows what a projection keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compare import Comparison, best_errors
from ..job import Figure, Job, Outcome, Progress, Row

_RANK = 10
_KINDS = ("sparse-sign", "gaussian", "srht")

_TEXT = (
    "Small data: here the exact SVD takes milliseconds and is the right choice.  randla.svd(center=True) gives the "
    "principal components, without a centred copy of the matrix.",
    "Random projections do not look at the data at all, and still keep the distances: with 32 random directions of "
    "64 the nearest neighbour names the digit nearly as often as with all pixels.",
)
_PLANE = "The digits on their first two principal components, each drawn as itself (every second one)."
_NEIGHBOURS = (
    "How often the nearest neighbour has the same digit, after projection to fewer dimensions (bands: one standard "
    "deviation over keys)."
)


def _run(quick: bool, progress: Progress) -> Outcome:
    from sklearn.datasets import load_digits

    progress.step("loading")
    X, y = load_digits(return_X_y=True)
    ours, rows = _compare(X, progress, budget=0.3 if quick else 1.0)
    progress.step("neighbours after projection")
    sizes = (2, 4, 8, 16, 32, 64)
    curves, raw = _accuracies(X, y, sizes, repeats=3 if quick else 5)
    plane = Figure("digits-plane", _PLANE, lambda figure: _draw_plane(figure, ours, y), (6.2, 5.0))
    near = Figure("digits-neighbours", _NEIGHBOURS, lambda figure: _draw_accuracies(figure, sizes, curves, raw))
    return Outcome(
        size=f"{X.shape[0]:,} x {X.shape[1]} {X.dtype}, dense",
        task=f"principal components, rank {_RANK}",
        rows=rows,
        text=_TEXT,
        figures=(plane, near),
    )


def _compare(X: np.ndarray, progress: Progress, *, budget: float) -> tuple[Any, tuple[Row, ...]]:
    from sklearn.decomposition import PCA

    import randla

    mean = X.mean(axis=0)
    task = Comparison(X, best_errors(np.linalg.svd(X - mean, compute_uv=False)), mean=mean, budget=budget)
    progress.step("numpy.linalg.svd")
    task.add("numpy.linalg.svd, cut off", lambda: _cut(np.linalg.svd(X - X.mean(axis=0), full_matrices=False)))
    progress.step("scikit-learn PCA")
    task.add("sklearn PCA, randomized", lambda: PCA(_RANK, svd_solver="randomized", random_state=0).fit(X),
             factors=lambda pca: _by_projection(pca, X))  # fmt: skip
    progress.step("randla.svd")
    ours = task.add(f"randla.svd(A, {_RANK}, center=True)", lambda: randla.svd(X, _RANK, center=True, rng=0), ours=True)
    return ours, tuple(task.rows)


def _cut(factors: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return factors.U[:, :_RANK], factors.S[:_RANK], factors.Vh[:_RANK]


def _by_projection(pca: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    s = pca.singular_values_
    return (X - pca.mean_) @ pca.components_.T / s, s, pca.components_


def _accuracies(
    X: np.ndarray, y: np.ndarray, sizes: tuple[int, ...], repeats: int
) -> tuple[dict[str, np.ndarray], float]:
    """Leave-one-out accuracy of the nearest neighbour: kind -> (repeats, sizes), and that of the raw pixels."""
    import randla

    curves = {
        kind: np.array([
            [_accuracy(randla.sketch(X, size, kind=kind, axis=1, rng=100 * seed + size), y) for size in sizes]
            for seed in range(repeats)
        ])
        for kind in _KINDS
    }  # fmt: skip
    found = randla.svd(X, max(sizes), center=True, rng=0)
    scores = found.U * found.s
    curves["principal components"] = np.array([[_accuracy(scores[:, :size], y) for size in sizes]])
    return curves, _accuracy(X, y)


def _accuracy(Z: np.ndarray, y: np.ndarray) -> float:
    distances = Z @ (-2 * Z.T)  # squared distances, up to a constant in each row
    distances += np.einsum("ij,ij->i", Z, Z)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(y[np.argmin(distances, axis=1)] == y))


def _draw_plane(figure: Any, ours: Any, y: np.ndarray) -> None:
    import matplotlib as mpl

    ax = figure.subplots()
    points = np.asarray(ours.U[:, :2] * ours.s[:2])
    on_dark = sum(mpl.colors.to_rgb(mpl.rcParams["axes.facecolor"])) < 1.5
    colours = mpl.colormaps["viridis"](np.linspace(0.3, 1.0, 10) if on_dark else np.linspace(0.0, 0.8, 10))
    ax.set(
        xlim=(1.05 * points[:, 0].min(), 1.05 * points[:, 0].max()),
        ylim=(1.05 * points[:, 1].min(), 1.05 * points[:, 1].max()),
    )
    for digit in range(10):
        shown = points[y == digit][::2]
        ax.scatter(*shown.T, marker=f"${digit}$", s=30, color=colours[digit], linewidths=0.2)
    ax.set(xlabel="first principal component", ylabel="second principal component")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _draw_accuracies(figure: Any, sizes: tuple[int, ...], curves: dict[str, np.ndarray], raw: float) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (kind, values) in enumerate(curves.items()):
        mean, spread = 100 * values.mean(axis=0), 100 * values.std(axis=0)
        ax.plot(sizes, mean, color=PALETTE[position], marker=MARKERS[position], markersize=4, label=kind)
        ax.fill_between(sizes, mean - spread, mean + spread, color=PALETTE[position], alpha=0.15, linewidth=0)
    ax.axhline(100 * raw, linestyle="--", linewidth=1, color=PALETTE[-1], label="all 64 pixels")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.set(xlabel="dimensions kept", ylabel="nearest neighbour has the same digit (%)", ylim=(0, 102))
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


JOB = Job("digits", "Handwritten digits", order=30, n_steps=5, run=_run)
