"""Displays of curves from which a rank or a ridge is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import check_choice
from ._axes import PALETTE, axes_of, finish, line_style, numbers


class ValidationCurveDisplay:
    """Held-out error against rank or ridge, with standard errors, the least value and the one chosen.

    Parameters
    ----------
    curve : ValidationCurve
        From `choose_completion_rank` or `regularization_path`.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Held-out errors and errors of the fitted entries.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> from randla.plot import ValidationCurveDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40)) + 0.1 * rng.normal(size=(60, 40))
    >>> curve = randla.choose_completion_rank(X, [1, 2, 3], reg=0.01, rng=0)
    >>> ValidationCurveDisplay.from_result(curve).plot().ax_.get_xlabel()
    'rank'
    """

    def __init__(self, curve: Any) -> None:
        self.curve = curve

    @classmethod
    def from_result(cls, curve: Any) -> ValidationCurveDisplay:
        """Return the display of a `ValidationCurve`."""
        return cls(curve)

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> ValidationCurveDisplay:
        """Draw on `ax`, or on a new figure; ridges on a logarithmic axis.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.plot`` for both lines, over the defaults.

        Returns
        -------
        ValidationCurveDisplay
            Itself, with `ax_`, `figure_` and `lines_` set.
        """
        self.ax_, self.figure_ = axes_of(ax)
        curve, self.lines_ = self.curve, []
        values = numbers(curve.values, "values")
        errors, spread = numbers(curve.errors, "errors"), numbers(curve.standard_errors, "standard_errors")
        for position, (label, line) in enumerate((("held out", errors), ("fitted", np.array(curve.training_errors)))):
            style = {**line_style(position), "label": label, **(line_kwargs or {})}
            self.lines_ += self.ax_.plot(values, line, **style)
        self.ax_.fill_between(values, errors - spread, errors + spread, color=PALETTE[0], alpha=0.2, linewidth=0)
        if curve.parameter == "reg":
            self.ax_.set_xscale("log")
        else:
            self.ax_.set_xticks(values, [f"{int(value)}" for value in values])
        chosen = errors[list(curve.values).index(curve.chosen)]
        self.ax_.plot(
            [curve.chosen], [chosen], "o", markersize=11, markerfacecolor="none", color="black", label="chosen"
        )
        self.ax_.set(xlabel=curve.parameter, ylabel="root mean square error")
        finish(self.ax_, legend=True)
        return self


class RankStabilityDisplay:
    """Least and mean silhouette of perturbed runs against the rank, with the error beside them and the rank chosen.

    Parameters
    ----------
    curve : RankCurve
        From `select_rank` with ``method="stability"``.

    Attributes
    ----------
    ax_, error_ax_ : matplotlib Axes
        Of the silhouettes and of the errors.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Least silhouettes, mean silhouettes, errors.
    """

    def __init__(self, curve: Any) -> None:
        check_choice(curve.method, "curve.method", ("stability",))
        self.curve = curve

    @classmethod
    def from_result(cls, curve: Any) -> RankStabilityDisplay:
        """Return the display of a `RankCurve`."""
        return cls(curve)

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> RankStabilityDisplay:
        """Draw on `ax`, or on a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.plot`` for all lines, over the defaults.

        Returns
        -------
        RankStabilityDisplay
            Itself, with `ax_`, `error_ax_`, `figure_` and `lines_` set.
        """
        self.ax_, self.figure_ = axes_of(ax)
        self.error_ax_ = self.ax_.twinx()
        curve, self.lines_ = self.curve, []
        ranks = numbers(curve.values, "values")
        drawn = (
            (self.ax_, curve.silhouette_min, "least silhouette"),
            (self.ax_, curve.silhouette_mean, "mean silhouette"),
            (self.error_ax_, curve.errors, "relative error"),
        )
        for position, (axes, values, label) in enumerate(drawn):
            style = {**line_style(position), "label": label, **(line_kwargs or {})}
            self.lines_ += axes.plot(ranks, np.array(values), **style)
        self.ax_.axhline(curve.min_silhouette, color="black", linewidth=0.8, linestyle=":")
        self.ax_.axvline(curve.chosen, color="black", linewidth=0.8, linestyle="--")
        self.ax_.set_xticks(ranks, [f"{int(rank)}" for rank in ranks])
        self.ax_.set(xlabel="rank", ylabel="silhouette", ylim=(min(-0.05, *curve.silhouette_min), 1.05))
        self.error_ax_.set(ylabel="relative error", ylim=(0, None))
        finish(self.ax_, legend=False)
        self.error_ax_.spines["top"].set_visible(False)
        self.ax_.legend(handles=self.lines_, frameon=False, loc="lower left")
        return self
