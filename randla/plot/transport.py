"""Displays of transport: plans as pictures or as lines between points, and how the marginal error fell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays import to_host
from .._checks import check_integer, check_real
from ._axes import MARKERS, PALETTE, axes_of, finish, line_style, numbers, plain_ticks

MOST_ENTRIES = 4_000_000  # of a plan that is drawn: more than a screen has


class ConvergenceDisplay:
    """Error against steps or seconds on a logarithmic axis, with the Newton steps of transport marked.

    Parameters
    ----------
    errors : vector
        One for each step.
    seconds : vector, optional
        When each of them was known, for instance from a callback; default the number of the step.
    newton : vector of bool, optional
        Which of them Newton steps began at; marked.
    quantity : str, default "error"
        What the errors are of, for the axis.
    label : str, optional
        Name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    Examples
    --------
    >>> import numpy as np, randla
    >>> from randla.plot import ConvergenceDisplay
    >>> X = np.random.default_rng(0).random((30, 2))
    >>> result = randla.sinkhorn(None, None, randla.point_cost(X, X + 0.1), 0.01)
    >>> ConvergenceDisplay.from_result(result).plot().ax_.get_ylabel()
    'marginal error'
    """

    def __init__(
        self, errors: Any, *, seconds: Any = None, newton: Any = None, quantity: str = "error", label: str | None = None
    ) -> None:
        self.errors = numbers(errors, "errors")
        size = self.errors.size
        self.seconds = None if seconds is None else numbers(seconds, "seconds")
        self.newton = np.zeros(size, bool) if newton is None else np.asarray(newton, bool)
        for name, values in (("seconds", self.seconds), ("newton", self.newton)):
            if values is not None and values.size != size:
                raise ValueError(f"{name} must have {size} entries, one for each error, got {values.size}")
        self.quantity, self.label = quantity, label

    @classmethod
    def from_result(cls, result: Any, *, seconds: Any = None, label: str | None = None) -> ConvergenceDisplay:
        """Return the display of a result's `history`.

        Parameters
        ----------
        result : TransportResult, or another result whose history is a tuple of numbers
            Of transport, steps at larger regularisations than the final one are left out: their errors are those of
            other problems.
        seconds : vector, optional
            When each step of the history was told to the callback.
        label : str, optional
            Name in the legend; default the method, if it has one.

        Returns
        -------
        ConvergenceDisplay
        """
        history = tuple(result.history)
        if not history:
            raise ValueError("result must have a history, got none; it took no step")
        times = None if seconds is None else numbers(seconds, "seconds")
        if times is not None and times.size != len(history):
            raise ValueError(f"seconds must have {len(history)} entries, one for each step, got {times.size}")
        label = getattr(result, "method", None) if label is None else label
        if not hasattr(history[0], "marginal_error"):
            return cls(history, seconds=times, label=label)
        kept = [k for k, step in enumerate(history) if step.reg <= result.reg]
        return cls(
            [history[k].marginal_error for k in kept] or [result.marginal_error],
            seconds=times[kept] if times is not None and kept else None,
            newton=[history[k].method == "newton" for k in kept] or None,
            quantity="marginal error",
            label=label,
        )

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> ConvergenceDisplay:
        """Draw on `ax`, or on a new figure; several displays may share one `ax`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.semilogy``, over the defaults.

        Returns
        -------
        ConvergenceDisplay
            Itself, with `ax_`, `figure_` and `line_` set.
        """
        self.ax_, self.figure_ = axes_of(ax)
        position = len(self.ax_.lines)
        x = np.arange(self.errors.size) if self.seconds is None else self.seconds
        style: dict[str, Any] = {
            **line_style(position), "label": self.label, "linewidth": 1.2,
            "markevery": np.flatnonzero(self.newton).tolist(),
        }  # fmt: skip
        positive = np.where(self.errors > 0, self.errors, np.nan)  # an error of 0 has no place on the axis
        (self.line_,) = self.ax_.semilogy(x, positive, **{**style, **(line_kwargs or {})})
        self.ax_.set(xlabel="step" if self.seconds is None else "seconds", ylabel=self.quantity)
        if float(np.nanmax(positive)) < 1e3 * float(np.nanmin(positive)):  # else decades are enough
            plain_ticks(self.ax_.yaxis)
        finish(self.ax_, legend=any(not line.get_label().startswith("_") for line in self.ax_.lines))
        return self


class PlanDisplay:
    """A transport plan: an image with its marginals, or lines between points in the plane.

    Parameters
    ----------
    plan : array, shape (n, m)
        Masses that move from i to j.
    X, Y : array, shape (n, 2) and (m, 2), optional
        Where the rows and the columns lie; lines are drawn where both are given.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    marginal_axes_ : tuple of two Axes
        Above and beside the image; empty where lines are drawn.
    image_ : matplotlib AxesImage, or None
    lines_ : matplotlib LineCollection, or None

    Examples
    --------
    >>> import numpy as np, randla
    >>> from randla.plot import PlanDisplay
    >>> X = np.random.default_rng(0).random((20, 2))
    >>> result = randla.sinkhorn(None, None, randla.point_cost(X, X + 0.2), 0.01)
    >>> PlanDisplay.from_result(result, X=X, Y=X + 0.2).plot().image_ is None
    True
    """

    def __init__(self, plan: Any, *, X: Any = None, Y: Any = None) -> None:
        plan = np.asarray(to_host(plan) if hasattr(plan, "__array_namespace__") else plan, dtype=np.float64)
        if plan.ndim != 2 or plan.size == 0:
            raise ValueError(f"plan must be a matrix with at least one entry, got shape {plan.shape}")
        if (X is None) != (Y is None):
            raise ValueError("X and Y must be given together, got one of them")
        self.plan = plan
        self.X, self.Y = (None if points is None else _in_plane(points, size, name)
                          for points, size, name in ((X, plan.shape[0], "X"), (Y, plan.shape[1], "Y")))  # fmt: skip

    @classmethod
    def from_result(cls, result: Any, *, X: Any = None, Y: Any = None) -> PlanDisplay:
        """Return the display of a `TransportResult`, whose plan is made for it.

        Parameters
        ----------
        result : TransportResult
            Of at most 4,000,000 entries: a plan is stored to be drawn.
        X, Y : array, shape (n, 2) and (m, 2), optional
            Points to draw lines between.

        Returns
        -------
        PlanDisplay
        """
        n, m = result.plan.shape
        if n * m > MOST_ENTRIES:
            raise ValueError(
                f"result must have at most {MOST_ENTRIES:,} pairs to be drawn, got {n:,} x {m:,}; draw a part"
            )
        return cls(result.plan.to_dense(), X=X, Y=Y)

    @classmethod
    def from_estimator(cls, estimator: Any, *, lines: bool = True) -> PlanDisplay:
        """Return the display of a fitted `SinkhornTransport`: with two features, and `lines`, lines between points."""
        plan = getattr(estimator, "plan_", None)
        if plan is None:
            raise ValueError(f"estimator must be fitted and have plan_, got {type(estimator).__name__}")
        between = lines and estimator.n_features_in_ == 2
        return cls(plan.to_dense(), X=estimator.X_ if between else None, Y=estimator.Y_ if between else None)

    def plot(
        self,
        ax: Any = None,
        *,
        max_lines: int = 1000,
        share: float = 0.01,
        line_kwargs: Mapping[str, Any] | None = None,
    ) -> PlanDisplay:
        """Draw on `ax`, or on a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        max_lines : int, default 1000
            Lines drawn at most, those of the largest masses; image: without meaning.
        share : float, default 0.01, 0 <= share < 1
            Lines of less than this share of the largest mass are left out.
        line_kwargs : dict, optional
            Passed on to the LineCollection or to ``ax.imshow``, over the defaults.

        Returns
        -------
        PlanDisplay
            Itself, with `ax_`, `figure_`, `marginal_axes_`, `image_` and `lines_` set.
        """
        max_lines = check_integer(max_lines, "max_lines", low=1)
        share = check_real(share, "share", low=0.0, high=1.0, closed="left")
        self.ax_, self.figure_ = axes_of(ax)
        self.marginal_axes_: tuple[Any, ...] = ()
        self.image_, self.lines_ = None, None
        if self.X is None or self.Y is None:
            self._draw_image(line_kwargs or {})
        else:
            self._draw_lines(self.X, self.Y, max_lines, share, line_kwargs or {})
        return self

    def _draw_image(self, options: Mapping[str, Any]) -> None:
        top = float(np.nanmax(self.plan))
        style = {"aspect": "auto", "interpolation": "nearest", "cmap": "viridis", "vmin": 0.0, "vmax": top or 1.0}
        self.image_ = self.ax_.imshow(self.plan, **{**style, **options})
        self.ax_.set(xlabel="column j", ylabel="row i")
        above = self.ax_.inset_axes((0.0, 1.03, 1.0, 0.17), sharex=self.ax_)
        beside = self.ax_.inset_axes((1.03, 0.0, 0.17, 1.0), sharey=self.ax_)
        columns, rows = self.plan.sum(axis=0), self.plan.sum(axis=1)
        above.fill_between(np.arange(columns.size), columns, step="mid", color=PALETTE[1], linewidth=0)
        beside.fill_betweenx(np.arange(rows.size), rows, step="mid", color=PALETTE[0], linewidth=0)
        for axes in (above, beside):
            axes.axis("off")
        above.set_ylim(bottom=0)
        beside.set_xlim(left=0)
        self.marginal_axes_ = (above, beside)

    def _draw_lines(
        self, X: np.ndarray, Y: np.ndarray, max_lines: int, share: float, options: Mapping[str, Any]
    ) -> None:
        from matplotlib.collections import LineCollection

        flat = self.plan.reshape(-1)
        count = min(max_lines, flat.size)
        kept = np.argpartition(flat, flat.size - count)[flat.size - count :]
        kept = kept[flat[kept] >= max(share * float(flat.max()), np.finfo(float).tiny)]
        kept = kept[np.argsort(flat[kept])]  # the largest masses last, on top
        i, j = np.divmod(kept, self.plan.shape[1])
        strength = flat[kept] / flat[kept[-1]] if kept.size else flat[:0]
        self.lines_ = LineCollection(
            np.stack([X[i], Y[j]], axis=1),
            **{"colors": PALETTE[-1], "alpha": np.clip(strength, 0.05, 1.0), "linewidths": 0.8, "zorder": 1, **options},
        )
        self.ax_.add_collection(self.lines_)
        for position, (points, name) in enumerate(((X, "X"), (Y, "Y"))):
            marker = MARKERS[position]
            self.ax_.scatter(*points.T, s=14, color=PALETTE[position], marker=marker, label=name, zorder=2)
        self.ax_.set_aspect("equal", adjustable="datalim")
        self.ax_.autoscale_view()
        finish(self.ax_, legend=True)


def _in_plane(points: Any, size: int, name: str) -> np.ndarray:
    points = np.asarray(to_host(points) if hasattr(points, "__array_namespace__") else points, dtype=np.float64)
    if points.shape != (size, 2):
        raise ValueError(
            f"{name} must have shape ({size}, 2), one point of the plane for each mass, got {points.shape}"
        )
    return points
