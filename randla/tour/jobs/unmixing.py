"""A spectral image whose materials are known: endmembers, and the share of each material in each pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress, Row

_MATERIALS = 4
_SETTINGS: dict[str, Any] = {"snr": 30.0, "patch": 6, "concentration": 1.0, "rng": 1}

_TEXT = (
    "A synthetic spectral image: each pixel is a mixture of four materials, with a spectrum of many bands and noise at "
    "30 decibels.  X ~ W H with the spectra of the materials as columns of W, and their shares of the pixels in H.  "
    "Both are to be found from X alone, and here both are known.",
    "Any factorisation describes X to the noise.  But a nonnegative one is not unique, and that of the peer, or of "
    "randla.nmf, has other spectra than the true ones.  Successive projections (spa) take pixels for materials, which "
    "is right where each material has a pure pixel; in this image mixtures are the rule.  What finds the materials is "
    "to ask for the parts of least volume (minvol_nmf), or for shares that sum to one (structured_nmf).",
    "Factors have a free scale for each material; before they are judged it is fitted so that the shares sum to one.",
)
_MAPS = "Shares of the four materials: the truth, and what three factorisations find, matched by their spectra."
_SPECTRA = "Spectra of the four materials: the truth (grey) and what was found."


class Found(NamedTuple):
    """Endmembers (bands, materials) and shares (materials, pixels) in the order of the truth; mean angle in degrees."""

    endmembers: np.ndarray
    shares: np.ndarray
    degrees: float


def judged(cube: Any, W: Any, H: Any) -> Found:
    """Factors scaled so that shares sum to one, and matched with the truth."""
    from scipy.optimize import nnls

    from ...nonnegative.endmembers import match_endmembers

    W, H = np.asarray(W, float), np.asarray(H, float)
    scale = nnls(H.T, np.ones(H.shape[1]))[0]
    scale = np.where(scale > 0, scale, 1 / np.maximum(H.max(axis=1), np.finfo(float).tiny))
    shares, spectra = H * scale[:, None], W / scale
    shares = shares / np.maximum(shares.sum(axis=0), np.finfo(float).tiny)
    match = match_endmembers(cube.endmembers, spectra)
    return Found(spectra[:, match.order], shares[match.order], float(np.degrees(match.mean_angle)))


def _run(quick: bool, progress: Progress) -> Outcome:
    from ...datasets import spectral_cube

    progress.step("drawing the image")
    bands, shape = (60, (36, 48)) if quick else (150, (120, 160))
    cube = spectral_cube(bands, shape, _MATERIALS, **_SETTINGS)
    found, rows = _compare(cube, progress, budget=0.0 if quick else 1.0)
    m, n = cube.X.shape
    return Outcome(
        size=f"{m} bands x {n:,} pixels {cube.X.dtype}, dense",
        task=f"{_MATERIALS} materials, error: root mean square of the shares, which lie in [0, 1]",
        rows=rows,
        text=_TEXT,
        figures=(
            Figure("unmixing-maps", _MAPS, lambda figure: _draw_maps(figure, cube, found), (7.2, 5.6)),
            Figure("unmixing-spectra", _SPECTRA, lambda figure: _draw_spectra(figure, cube, found), (7.2, 2.6)),
        ),
    )


def _compare(cube: Any, progress: Progress, *, budget: float) -> tuple[dict[str, Found], tuple[Row, ...]]:
    """The factors of each method, judged; the three that are drawn, and the rows."""
    from ...nonnegative.endmembers import abundance_rmse
    from ...nonnegative.minvol import minvol_nmf
    from ...nonnegative.separable import spa
    from ...nonnegative.solvers import nmf
    from ...nonnegative.structured import structured_nmf

    X, found = cube.X, {}
    task = Rows(lambda one: abundance_rmse(cube.abundances, one.shares), budget=budget)

    def add(name: str, shown: str, call: Any, *, ours: bool = True) -> None:
        progress.step(name)

        def note(pair: Any) -> str:
            return f"spectra off by {judged(cube, *pair).degrees:.1f} degrees"

        pair = task.add(name, call, ours=ours, answer=lambda pair: judged(cube, *pair), note=note)
        found[shown] = judged(cube, *pair)

    options: dict[str, Any] = {"on_failure": "ignore"}
    add("sklearn NMF", "scikit-learn NMF", lambda: by_sklearn(X), ours=False)
    add("randla.nmf", "", lambda: nmf(X, _MATERIALS, rng=0, **options))
    add("randla.spa", "pixels by spa", lambda: spa(X, _MATERIALS))
    add("randla.minvol_nmf", "least volume", lambda: minvol_nmf(X, _MATERIALS, normalization="h-columns", **options))
    add("randla.structured_nmf", "", lambda: structured_nmf(X, _MATERIALS, **options))
    found.pop("")
    return found, tuple(task.rows)


def by_sklearn(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's factors, pixels as its samples."""
    import warnings

    from sklearn.decomposition import NMF

    model = NMF(_MATERIALS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 iterations are its default
        H = model.fit_transform(X.T).T
    return model.components_.T, H


def _draw_maps(figure: Any, cube: Any, found: dict[str, Found]) -> None:
    shown = {"the truth": cube.abundances, **{name: one.shares for name, one in found.items()}}
    axes = figure.subplots(len(shown), _MATERIALS)
    for line, (name, shares) in zip(axes, shown.items(), strict=True):
        for ax, share in zip(line, shares, strict=True):
            picture = ax.imshow(share.reshape(cube.image_shape), cmap="viridis", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize="small")
    figure.colorbar(picture, ax=axes, label="share of the pixel", shrink=0.5)


def _draw_spectra(figure: Any, cube: Any, found: dict[str, Found]) -> None:
    from ...plot import PALETTE

    axes = figure.subplots(1, _MATERIALS, sharey=True)
    for k, ax in enumerate(axes):
        truth = cube.endmembers[:, k]
        ax.plot(truth / truth.max(), color=PALETTE[-1], linewidth=4, alpha=0.55)
        for position, (name, one) in enumerate(found.items()):
            spectrum = one.endmembers[:, k]
            ax.plot(spectrum / spectrum.max(), color=PALETTE[position], linewidth=1, label=name)
        ax.set(xlabel="band", yticks=[0, 1])
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(found), frameon=False)


JOB = Job("unmixing", "Materials of a spectral image", order=48, n_steps=6, run=_run)
