"""Kernel ridge regression on images of digits: features from a few images against the kernel matrix of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress

_GAMMA, _ALPHA = 0.03, 1e-2
_TEXT = (
    "Each of ten functions of the image shall be 1 for one digit and 0 for the others; the largest names it.  The "
    "kernel matrix of all images is small here, so scikit-learn's exact solution takes part: the error is the share of "
    "unseen images that are named wrongly.",
    "Images are shifted by up to one pixel to make more of them.  randla's NystromRidge never stores features, and "
    "says how far its fit is from the exact one on the same centres.",
)
_CENTRES = (
    "Images that are named wrongly, for centres chosen in three ways; the dashed line: the exact solution.  Digits are "
    "spread evenly, so centres drawn uniformly do as well as chosen ones; on clustered data they do not."
)
_CHOSEN = "The first sixty centres that randomly pivoted Cholesky chose, in their order."


def load_digits_shifted(copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images with shifted copies, their labels, and test images (one in three) with theirs; in [0, 1]."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    images = X.reshape(-1, 8, 8) / 16.0
    test = np.arange(len(y)) % 3 == 0
    shifts = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)][:copies]
    train = np.concatenate([np.roll(images[~test], shift, axis=(1, 2)) for shift in shifts])
    return train.reshape(len(train), -1), np.tile(y[~test], len(shifts)), X[test] / 16.0, y[test]


def _run(quick: bool, progress: Progress) -> Outcome:
    progress.step("loading")
    X, y, unseen, truth = load_digits_shifted(2 if quick else 5)
    targets = np.eye(10)[y]
    centres = 200 if quick else 500

    def wrong(predict: Callable[[Any], Any]) -> float:
        return float(np.mean(np.argmax(predict(unseen), axis=1) != truth))

    rows, ours = _compare(X, targets, centres, wrong, progress, budget=0.3 if quick else 1.0)
    progress.step("kinds of centres")
    sizes = (25, 50, 100, 200) if quick else (25, 50, 100, 200, 400)
    curves = _curves(X, targets, sizes, wrong, repeats=2 if quick else 3)
    figures = (
        Figure("kernel-digits-centres", _CENTRES, lambda figure: _draw_curves(figure, sizes, curves, rows[0].error)),
        Figure("kernel-digits-chosen", _CHOSEN, lambda figure: _draw_chosen(figure, ours.centers_), (6.2, 3.9)),
    )
    return Outcome(
        size=f"{X.shape[0]:,} x {X.shape[1]} {X.dtype}, dense",
        task=f"ten kernel ridge regressions, Gaussian kernel; {centres} centres where there are centres",
        rows=tuple(rows),
        text=_TEXT,
        figures=figures,
    )


def _compare(
    X: np.ndarray,
    targets: np.ndarray,
    centres: int,
    wrong: Callable[[Any], float],
    progress: Progress,
    *,
    budget: float,
) -> tuple[list[Any], Any]:
    """Rows of the table, and the fitted model with centres."""
    from sklearn.kernel_approximation import Nystroem as Customary
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    from ...estimators._kernel_ridge import KernelRidgePCG, NystromRidge
    from ...estimators._nystroem import Nystroem

    task = Rows(lambda model: wrong(model.predict), budget=budget)
    progress.step("sklearn KernelRidge")
    task.add("sklearn KernelRidge", lambda: KernelRidge(alpha=_ALPHA, kernel="rbf", gamma=_GAMMA).fit(X, targets))
    progress.step("randla KernelRidgePCG")
    call = lambda: KernelRidgePCG(_ALPHA, gamma=_GAMMA, tol=1e-4, random_state=0).fit(X, targets)  # noqa: E731
    task.add("randla.KernelRidgePCG", call, ours=True, note=lambda model: f"{model.n_iter_} steps")
    progress.step("sklearn Nystroem and Ridge")
    for name, kind, ours in (("sklearn", Customary, False), ("randla", Nystroem, True)):
        features = kind(gamma=_GAMMA, n_components=centres, random_state=0)
        pair = make_pipeline(features, Ridge(_ALPHA, fit_intercept=False))
        task.add(f"{name} Nystroem, sklearn Ridge", partial(pair.fit, X, targets), ours=ours)
    progress.step("randla NystromRidge")
    model = task.add(
        "randla.NystromRidge",
        lambda: NystromRidge(_ALPHA, gamma=_GAMMA, n_centers=centres, random_state=0).fit(X, targets),
        ours=True,
        note=lambda model: f"centres miss {model.trace_error_:.1%} of the kernel",
    )
    return task.rows, model


def _curves(
    X: np.ndarray, targets: np.ndarray, sizes: tuple[int, ...], wrong: Callable[[Any], float], *, repeats: int
) -> dict[str, np.ndarray]:
    """Share of wrong names: kind of centres -> (repeats, sizes)."""
    from ...estimators._kernel_ridge import NystromRidge

    def share(how: str, size: int, seed: int) -> float:
        model = NystromRidge(_ALPHA, gamma=_GAMMA, n_centers=size, centers=how, random_state=seed)
        return wrong(model.fit(X, targets).predict)

    return {
        how: np.array([[share(how, size, seed) for size in sizes] for seed in range(repeats)])
        for how in ("rpcholesky", "uniform", "ridge_leverage")
    }


def _draw_curves(figure: Any, sizes: tuple[int, ...], curves: dict[str, np.ndarray], exact: float) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (how, values) in enumerate(curves.items()):
        mean, spread = 100 * values.mean(axis=0), 100 * values.std(axis=0)
        ax.plot(sizes, mean, color=PALETTE[position], marker=MARKERS[position], markersize=4, label=how)
        ax.fill_between(sizes, mean - spread, mean + spread, color=PALETTE[position], alpha=0.15, linewidth=0)
    ax.axhline(100 * exact, linestyle="--", linewidth=1, color=PALETTE[-1], label="all images")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.set(xlabel="centres", ylabel="unseen images named wrongly (%)")
    ax.set_ylim(bottom=0)
    ax.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False)


def _draw_chosen(figure: Any, centres: np.ndarray) -> None:
    panels = figure.subplots(5, 12).ravel()
    for ax, image in zip(panels, centres[: len(panels)], strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r")
        ax.axis("off")


JOB = Job("kernel-digits", "Kernel ridge regression on digits", order=35, n_steps=6, run=_run)
