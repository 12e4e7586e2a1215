"""Pictures of spectra and errors, in scikit-learn's manner: build a Display from a result, then call `plot`.

matplotlib is imported inside the functions and belongs to the extra `plot`.  Lines differ in colour (the palette of
Okabe and Ito, which colour-blind readers can tell apart) and in marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._arrays import to_host
from ._checks import check_choice, check_integer

#: Okabe and Ito (2008), without the yellow that is hard to see on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _axes(ax: Any) -> tuple[Any, Any]:
    """The axes to draw on and their figure; a new figure where none is given."""
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise ImportError("plotting needs matplotlib; install it with: pip install 'randla[plot]'") from None
        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    return ax, ax.figure


def _numbers(values: Any, name: str) -> np.ndarray:
    """`values` as a float64 vector on the host."""
    array = np.asarray(to_host(values) if hasattr(values, "__array_namespace__") else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector with at least one entry, got shape {array.shape}")
    return array


def _style(position: int) -> dict[str, Any]:
    """Colour and marker of the line that is drawn as number `position` on its axes."""
    return {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "markersize": 4}


def _plain_ticks(axis: Any) -> None:
    """Ticks 1, 2, 5, 10, ... written out, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    few = high / max(low, 1e-300) > 1e3
    axis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _finish(ax: Any, *, legend: bool) -> None:
    ax.grid(visible=True, which="major", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if legend:
        ax.legend(frameon=False)


class SpectrumDisplay:
    """Singular values against their index, on logarithmic axes.

    Parameters
    ----------
    singular_values : vector
        Singular values, largest first.
    label : str, optional
        Name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    Examples
    --------
    >>> from randla.plot import SpectrumDisplay
    >>> display = SpectrumDisplay.from_values([3.0, 2.0, 1.0])
    >>> display.plot().ax_.get_ylabel()
    'singular value'
    """

    def __init__(self, singular_values: Any, *, label: str | None = None) -> None:
        self.singular_values = _numbers(singular_values, "singular_values")
        self.label = label

    @classmethod
    def from_values(cls, singular_values: Any, *, label: str | None = None) -> SpectrumDisplay:
        """Return the display of the given singular values."""
        return cls(singular_values, label=label)

    @classmethod
    def from_result(cls, result: Any, *, label: str | None = None) -> SpectrumDisplay:
        """Return the display of a `LowRankResult`."""
        return cls(result.s, label=label if label is not None else f"rank {result.rank}")

    @classmethod
    def from_estimator(cls, estimator: Any, *, label: str | None = None) -> SpectrumDisplay:
        """Return the display of a fitted estimator that has `singular_values_`."""
        values = getattr(estimator, "singular_values_", None)
        if values is None:
            raise ValueError(f"estimator must be fitted and have singular_values_, got {type(estimator).__name__}")
        return cls(values, label=label if label is not None else type(estimator).__name__)

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> SpectrumDisplay:
        """Draw on `ax`, or on a new figure; several displays may share one `ax`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.loglog``, over the defaults.

        Returns
        -------
        SpectrumDisplay
            Itself, with `ax_`, `figure_` and `line_` set.
        """
        self.ax_, self.figure_ = _axes(ax)
        index = np.arange(1, self.singular_values.size + 1)
        markers = {"markevery": _every(index.size)}
        style = {**_style(len(self.ax_.lines)), **markers, "label": self.label, **(line_kwargs or {})}
        (self.line_,) = self.ax_.loglog(index, self.singular_values, **style)
        self.ax_.set(xlabel="index", ylabel="singular value")
        _plain_ticks(self.ax_.xaxis)
        _plain_ticks(self.ax_.yaxis)
        _finish(self.ax_, legend=any(not line.get_label().startswith("_") for line in self.ax_.lines))
        return self


def _every(n: int) -> list[int]:
    """Positions of the markers of `n` points: about evenly spread on a logarithmic axis."""
    return sorted({int(i) - 1 for i in np.unique(np.round(np.geomspace(1, n, 16)))})


class RankErrorDisplay:
    """Relative Frobenius error against the rank that is kept.

    Parameters
    ----------
    ranks : vector of int
    errors : vector
        ``||A - A_r|| / ||A||`` at these ranks.
    label : str, optional
        Name in the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
    """

    def __init__(self, ranks: Any, errors: Any, *, label: str | None = None) -> None:
        self.ranks = _numbers(ranks, "ranks")
        self.errors = _numbers(errors, "errors")
        if self.ranks.size != self.errors.size:
            raise ValueError(f"errors must have {self.ranks.size} entries, one for each rank, got {self.errors.size}")
        self.label = label

    @classmethod
    def from_values(
        cls, singular_values: Any, *, norm: float | None = None, label: str | None = None
    ) -> RankErrorDisplay:
        """Return the errors that singular values imply: the part of ``norm**2`` that the first r do not hold.

        Parameters
        ----------
        singular_values : vector
            The leading ones, or all.
        norm : float, optional
            Frobenius norm of the matrix; by default that of the given values, which must then be all of them.
        label : str, optional
            Name in the legend.

        Returns
        -------
        RankErrorDisplay
        """
        energy = _numbers(singular_values, "singular_values") ** 2
        total = float(energy.sum() if norm is None else norm**2)
        if norm is None:  # sum the tails from the small end: no cancellation
            tail = np.append(np.cumsum(energy[::-1])[::-1][1:], 0.0)
        else:
            tail = np.maximum(total - np.cumsum(energy), 0.0)
        errors = np.sqrt(tail / total) if total > 0 else tail
        return cls(np.arange(1, energy.size + 1), errors, label=label)

    @classmethod
    def from_result(cls, result: Any, *, label: str | None = None) -> RankErrorDisplay:
        """Return the errors of a `LowRankResult` at every rank up to its own; its `error_norm` must be "frobenius"."""
        check_choice(result.error_norm, "result.error_norm", ("frobenius",))
        label = label if label is not None else f"rank {result.rank}"
        return cls.from_values(result.s, norm=float(result.norm), label=label)

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> RankErrorDisplay:
        """Draw on `ax`, or on a new figure; several displays may share one `ax`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.plot``, over the defaults.

        Returns
        -------
        RankErrorDisplay
            Itself, with `ax_`, `figure_` and `line_` set.
        """
        self.ax_, self.figure_ = _axes(ax)
        markers = {"markevery": _every(self.ranks.size)}
        style = {**_style(len(self.ax_.lines)), **markers, "label": self.label, **(line_kwargs or {})}
        (self.line_,) = self.ax_.semilogx(self.ranks, self.errors, **style)
        self.ax_.set(xlabel="rank", ylabel="relative error (Frobenius)")
        self.ax_.set_ylim(bottom=0)
        _plain_ticks(self.ax_.xaxis)
        _finish(self.ax_, legend=any(not line.get_label().startswith("_") for line in self.ax_.lines))
        return self


class SketchErrorDisplay:
    """Error of a sketched low-rank approximation against the sketch size, a line for each kind of operator.

    Parameters
    ----------
    sketch_sizes : vector of int
    errors : dict
        Kind of operator -> errors at these sizes, each divided by the best possible error of the rank.
    rank : int
        Rank of the approximations.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
    """

    def __init__(self, sketch_sizes: Any, errors: Mapping[str, Any], *, rank: int) -> None:
        self.sketch_sizes = _numbers(sketch_sizes, "sketch_sizes")
        self.errors = {kind: _numbers(values, f"errors[{kind!r}]") for kind, values in errors.items()}
        for kind, values in self.errors.items():
            if values.size != self.sketch_sizes.size:
                raise ValueError(f"errors[{kind!r}] must have {self.sketch_sizes.size} entries, got {values.size}")
        self.rank = check_integer(rank, "rank", low=1)

    @classmethod
    def from_matrix(
        cls,
        A: Any,
        rank: int,
        *,
        sketch_sizes: Sequence[int],
        kinds: Sequence[str] = ("gaussian", "sparse-sign", "srht", "countsketch", "rows"),
        n_repeats: int = 1,
        rng: Any = None,
    ) -> SketchErrorDisplay:
        """Sketch the rows of `A` and measure how well the leading right singular vectors of the sketch serve A.

        For each operator S, V holds the first `rank` right singular vectors of ``S @ A``, and the error is
        ``||A - A V V'|| / ||A - A_rank||``; 1 is the best possible.  Costs one Gram matrix of A and the sketches, so it
        is meant for a few hundred columns.

        Parameters
        ----------
        A : array, shape (m, n), m >= n
        rank : int, 1 <= rank < n
        sketch_sizes : sequence of int, each at least `rank`
        kinds : sequence of str
            Names that `randla.sketch` takes.
        n_repeats : int, default 1
            Keys to average over (mean of the errors).
        rng : None, int, SeedSequence, Generator or Key
            See :ref:`random`.

        Returns
        -------
        SketchErrorDisplay
        """
        from ._arrays import as_matrix
        from ._random import as_key
        from .operators import sketch

        A, key = as_matrix(A, sparse=False), as_key(rng)
        rank = check_integer(rank, "rank", low=1, high=A.shape[1] - 1)
        gram = gram_matrix(A)
        total, best = float(np.trace(gram)), float(np.linalg.eigvalsh(gram)[:-rank].sum())
        errors: dict[str, list[float]] = {kind: [] for kind in kinds}
        for d in sketch_sizes:
            check_integer(d, "sketch size", low=rank)
            for kind in kinds:
                ratios = []
                for repeat in range(check_integer(n_repeats, "n_repeats", low=1)):
                    SA = sketch(A, d, kind=kind, rng=key.fold(f"{kind} {d} {repeat}"))
                    V = np.linalg.svd(to_host(SA).astype(np.float64), full_matrices=False)[2][:rank].T
                    lost = total - float(np.sum(V * (gram @ V)))
                    ratios.append(float(np.sqrt(max(lost, 0.0) / best)))
                errors[kind].append(float(np.mean(ratios)))
        return cls(sketch_sizes, errors, rank=rank)

    def plot(self, ax: Any = None, *, line_kwargs: Mapping[str, Any] | None = None) -> SketchErrorDisplay:
        """Draw on `ax`, or on a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        line_kwargs : dict, optional
            Passed on to ``ax.loglog`` for every line, over the defaults.

        Returns
        -------
        SketchErrorDisplay
            Itself, with `ax_`, `figure_` and `lines_` set.
        """
        self.ax_, self.figure_ = _axes(ax)
        self.lines_ = []
        for position, (kind, values) in enumerate(self.errors.items()):
            style = {**_style(position), "label": kind, **(line_kwargs or {})}
            self.lines_ += self.ax_.loglog(self.sketch_sizes, 100 * np.maximum(values - 1, 1e-12), **style)
        self.ax_.set(xlabel="sketch size (rows of S @ A)", ylabel="error above the best possible (%)")
        self.ax_.set_title(f"rank-{self.rank} approximation from one sketch", fontsize="medium")
        self.ax_.set_xticks(self.sketch_sizes, [f"{int(size):,}" for size in self.sketch_sizes])
        self.ax_.minorticks_off()
        _plain_ticks(self.ax_.yaxis)
        _finish(self.ax_, legend=True)
        return self


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
        self.ax_, self.figure_ = _axes(ax)
        curve, self.lines_ = self.curve, []
        values = _numbers(curve.values, "values")
        errors, spread = _numbers(curve.errors, "errors"), _numbers(curve.standard_errors, "standard_errors")
        for position, (label, line) in enumerate((("held out", errors), ("fitted", np.array(curve.training_errors)))):
            style = {**_style(position), "label": label, **(line_kwargs or {})}
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
        _finish(self.ax_, legend=True)
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
        self.ax_, self.figure_ = _axes(ax)
        self.error_ax_ = self.ax_.twinx()
        curve, self.lines_ = self.curve, []
        ranks = _numbers(curve.values, "values")
        drawn = (
            (self.ax_, curve.silhouette_min, "least silhouette"),
            (self.ax_, curve.silhouette_mean, "mean silhouette"),
            (self.error_ax_, curve.errors, "relative error"),
        )
        for position, (axes, values, label) in enumerate(drawn):
            style = {**_style(position), "label": label, **(line_kwargs or {})}
            self.lines_ += axes.plot(ranks, np.array(values), **style)
        self.ax_.axhline(curve.min_silhouette, color="black", linewidth=0.8, linestyle=":")
        self.ax_.axvline(curve.chosen, color="black", linewidth=0.8, linestyle="--")
        self.ax_.set_xticks(ranks, [f"{int(rank)}" for rank in ranks])
        self.ax_.set(xlabel="rank", ylabel="silhouette", ylim=(min(-0.05, *curve.silhouette_min), 1.05))
        self.error_ax_.set(ylabel="relative error", ylim=(0, None))
        _finish(self.ax_, legend=False)
        self.error_ax_.spines["top"].set_visible(False)
        self.ax_.legend(handles=self.lines_, frameon=False, loc="lower left")
        return self


def gram_matrix(A: Any, *, chunk: int = 16384) -> np.ndarray:
    """Return ``A.T @ A`` in float64 on the host, summed over blocks of rows so that no second copy of A is made."""
    A = to_host(A)
    gram = np.zeros((A.shape[1], A.shape[1]))
    for start in range(0, A.shape[0], chunk):
        block = A[start : start + chunk].astype(np.float64)
        gram += block.T @ block
    return gram
