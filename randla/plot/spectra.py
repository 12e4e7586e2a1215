"""Displays of singular values, and of the errors of low-rank approximations and sketches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import to_host
from .._checks import check_choice, check_integer
from ._axes import axes_of, every, finish, line_style, numbers, plain_ticks


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
        self.singular_values = numbers(singular_values, "singular_values")
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
        self.ax_, self.figure_ = axes_of(ax)
        index = np.arange(1, self.singular_values.size + 1)
        markers = {"markevery": every(index.size)}
        style = {**line_style(len(self.ax_.lines)), **markers, "label": self.label, **(line_kwargs or {})}
        (self.line_,) = self.ax_.loglog(index, self.singular_values, **style)
        self.ax_.set(xlabel="index", ylabel="singular value")
        plain_ticks(self.ax_.xaxis)
        plain_ticks(self.ax_.yaxis)
        finish(self.ax_, legend=any(not line.get_label().startswith("_") for line in self.ax_.lines))
        return self


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
        self.ranks = numbers(ranks, "ranks")
        self.errors = numbers(errors, "errors")
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
        energy = numbers(singular_values, "singular_values") ** 2
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
        self.ax_, self.figure_ = axes_of(ax)
        markers = {"markevery": every(self.ranks.size)}
        style = {**line_style(len(self.ax_.lines)), **markers, "label": self.label, **(line_kwargs or {})}
        (self.line_,) = self.ax_.semilogx(self.ranks, self.errors, **style)
        self.ax_.set(xlabel="rank", ylabel="relative error (Frobenius)")
        self.ax_.set_ylim(bottom=0)
        plain_ticks(self.ax_.xaxis)
        finish(self.ax_, legend=any(not line.get_label().startswith("_") for line in self.ax_.lines))
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
        self.sketch_sizes = numbers(sketch_sizes, "sketch_sizes")
        self.errors = {kind: numbers(values, f"errors[{kind!r}]") for kind, values in errors.items()}
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
        from .._arrays import as_matrix
        from .._random import as_key
        from ..operators import sketch

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
        self.ax_, self.figure_ = axes_of(ax)
        self.lines_ = []
        for position, (kind, values) in enumerate(self.errors.items()):
            style = {**line_style(position), "label": kind, **(line_kwargs or {})}
            self.lines_ += self.ax_.loglog(self.sketch_sizes, 100 * np.maximum(values - 1, 1e-12), **style)
        self.ax_.set(xlabel="sketch size (rows of S @ A)", ylabel="error above the best possible (%)")
        self.ax_.set_title(f"rank-{self.rank} approximation from one sketch", fontsize="medium")
        self.ax_.set_xticks(self.sketch_sizes, [f"{int(size):,}" for size in self.sketch_sizes])
        self.ax_.minorticks_off()
        plain_ticks(self.ax_.yaxis)
        finish(self.ax_, legend=True)
        return self


def gram_matrix(A: Any, *, chunk: int = 16384) -> np.ndarray:
    """Return ``A.T @ A`` in float64 on the host, summed over blocks of rows so that no second copy of A is made."""
    A = to_host(A)
    gram = np.zeros((A.shape[1], A.shape[1]))
    for start in range(0, A.shape[0], chunk):
        block = A[start : start + chunk].astype(np.float64)
        gram += block.T @ block
    return gram
