"""What the displays share: axes to draw on, colours and markers, ticks that are written out."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import to_host

#: Okabe and Ito (2008), without the yellow that is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def axes_of(ax: Any) -> tuple[Any, Any]:
    """The axes to draw on and their figure; a new figure where none is given."""
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise ImportError("plotting needs matplotlib; install it with: pip install 'randla[plot]'") from None
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    return ax, ax.figure


def numbers(values: Any, name: str) -> np.ndarray:
    """`values` as a float64 vector on the host."""
    array = np.asarray(to_host(values) if hasattr(values, "__array_namespace__") else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector with at least one entry, got shape {array.shape}")
    return array


def line_style(position: int) -> dict[str, Any]:
    """Colour and marker of the line that is drawn as number `position` on its axes."""
    return {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "markersize": 4}


def plain_ticks(axis: Any) -> None:
    """Ticks 1, 2, 5, 10, ... written out, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    few = high / max(low, 1e-300) > 1e3
    axis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def finish(ax: Any, *, legend: bool) -> None:
    ax.grid(visible=True, which="major", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if legend:
        ax.legend(frameon=False)


def every(n: int) -> list[int]:
    """Positions of the markers of `n` points: about evenly spread on a logarithmic axis."""
    return sorted({int(i) - 1 for i in np.unique(np.round(np.geomspace(1, n, 16)))})
