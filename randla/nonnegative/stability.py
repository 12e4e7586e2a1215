"""How many parts: those that come back when the data are perturbed, or those that predict entries held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from .._arrays import floating_dtype, from_host, namespace_of, to_host
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..completion.observations import Observations, hold_out
from .masked import masked_nmf, observed_entries
from .perturbations import NOISES, hidden, perturbed
from .rescal import rescal_nmf
from .stability_models import model_of

METHODS = ("stability", "holdout")
MOST_ROUNDS = 100  # of assignments to clusters


@dataclass(frozen=True)
class RankStep:
    """What a callback is told after a rank."""

    rank: int
    error: float
    silhouette_min: float


@dataclass(frozen=True, repr=False)
class RankCurve(Result):
    """What was measured at each rank, and the rank chosen; iterates as ``values, errors``.

    Attributes
    ----------
    method : str
        "stability" or "holdout".
    values : tuple of int
        The ranks, ascending.
    errors : tuple of float
        "stability": relative error ``||X - model|| / ||X||`` of the data as they came, with the medians of the parts
        and the other factor fitted to them.  "holdout": root mean square error of entries held out, mean over splits.
    standard_errors : tuple of float
        Of the mean over the runs or splits.
    training_errors : tuple of float
        Mean over the runs of the relative error of each on its own data, or over the splits of the root mean square
        of the fitted entries.
    chosen : int
        "stability": the largest rank with a least silhouette of at least `min_silhouette`; where there is none, that
        of the largest.  "holdout": the least rank whose error is within one standard error of the least.
    silhouette_min, silhouette_mean : tuple of float
        Least and mean silhouette of the clusters at each rank, "stability" only.
    min_silhouette : float
        The threshold.
    parts : tuple of array
        Medians of the clustered parts at each rank, columns of norm one, "stability" only.
    cores : tuple of array
        The other factor fitted to them: H (rank, n) of NMF, R (t, rank, rank) of RESCAL, weights (rank,) of symmetric
        factorisations, None for a callable.
    silhouettes : tuple of array
        Silhouette of each cluster at each rank.
    parameter : str
        "rank".
    status : Status
        BREAKDOWN where no rank reached the threshold.
    """

    method: str
    values: tuple[int, ...]
    errors: tuple[float, ...]
    standard_errors: tuple[float, ...]
    training_errors: tuple[float, ...]
    chosen: int
    silhouette_min: tuple[float, ...] = ()
    silhouette_mean: tuple[float, ...] = ()
    min_silhouette: float = math.nan
    parts: tuple[Any, ...] = ()
    cores: tuple[Any, ...] = ()
    silhouettes: tuple[Any, ...] = ()
    parameter: str = "rank"
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("values", "errors")


def select_rank(
    X: Any, ranks: Sequence[int], *, method: str = "stability", model: str | Callable[..., Any] = "nmf",
    absent: str | None = None, options: Mapping[str, Any] | None = None, n_perturbations: int = 20,
    noise: float = 0.015, perturbation: str = "uniform", min_silhouette: float = 0.8,
    validation_fraction: float = 0.1, n_splits: int = 3, n_init: int = 3,
    callback: Callable[[RankStep], object] | None = None, rng: Any = None,
    on_failure: str = "warn",
) -> RankCurve:  # fmt: skip
    """Choose the number of parts of a nonnegative factorisation.

    "stability": factorise perturbed copies of X; parts that are real come back in each.  Columns of all runs are
    clustered, one of each run in each cluster, and silhouettes tell how tight the clusters are.  "holdout": hide
    entries and predict them.

    Parameters
    ----------
    X : array or sparse matrix, shape (m, n), or a stack for "rescal"
        Nonnegative data, as the model takes them.
    ranks : sequence of int, each at least 1
        Ranks to try.
    method : {"stability", "holdout"}, default "stability"
    model : {"nmf", "rescal", "symmetric"} or callable, default "nmf"
        `nmf` (`masked_nmf` where `absent` is "missing"), `rescal_nmf` or `symmetric_nmf`; or
        ``model(X, rank, rng=key)`` that returns a matrix of `rank` columns to cluster, or a result whose first factor
        is one.  "holdout" knows "nmf" and "rescal".
    absent : {"missing", "zeros"}, optional
        As of `masked_nmf` and `rescal_nmf`.
    options : dict, optional
        Further arguments of the model, for instance ``{"max_iter": 1000}``.
    n_perturbations : int, n_perturbations >= 2, default 20
        Runs at each rank.
    noise : float, default 0.015, 0 < noise < 1
        "uniform" noise multiplies each entry by a number between ``1 - noise`` and ``1 + noise``.
    perturbation : {"uniform", "poisson"}, default "uniform"
        "poisson" draws a count of which the entry is the mean; for data that are counts.
    min_silhouette : float, default 0.8
        Silhouette that each cluster must have at an admissible rank.
    validation_fraction : float, default 0.1, 0 < validation_fraction < 1
        Share of the known entries hidden in "holdout".
    n_splits : int, n_splits >= 2, default 3
        Times that entries are hidden; the same ones for all ranks.
    n_init : int, default 3
        Starts for each rank and split in "holdout"; that with the least error of the fitted entries counts.
    callback : callable, optional
        Called with a `RankStep` after each rank; returning True ends the search with the ranks done.
    rng : None, int, SeedSequence, Generator or Key
        Source of perturbations, starts and what is hidden; each run has a key of its own.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do where no rank has a stable factorisation.

    Returns
    -------
    RankCurve
        Errors and silhouettes along the ranks and the rank chosen; `randla.plot.RankStabilityDisplay` draws them,
        `ValidationCurveDisplay` those of "holdout".

    Raises
    ------
    ValueError
        If `ranks` is empty, a parameter is out of range, or the model does not take X.

    Notes
    -----
    With a = mean cosine distance of a column to the others of its cluster and b = the least mean distance to the
    columns of another, its silhouette is ``(b - a) / max(a, b)``; that of a single cluster is one.  Columns are
    assigned to medians by the Hungarian method until nothing changes [1]_.

    A sampler of that method in use multiplies by ``1 + noise + 2 noise u``, so that all data grow; here the factor has
    the mean one.  A fraction of the runs may end in worse stationary points than the rest: silhouettes are low then
    too, and more iterations raise them.

    References
    ----------
    .. [1] Truong, Skau, Valtchinov and Alexandrov, "Determination of latent dimensionality in international trade
       flow", Machine Learning: Science and Technology 1, 2020, arXiv:2003.00129.

    Examples
    --------
    >>> import numpy as np, randla
    >>> W = np.kron(np.eye(3), np.ones((10, 1)))
    >>> X = W @ np.random.default_rng(0).random((3, 40)) + 0.01
    >>> curve = randla.select_rank(X, range(2, 5), n_perturbations=5, rng=0)
    >>> curve.chosen, curve.silhouette_min[1] > 0.9
    (3, True)
    """
    check_choice(method, "method", METHODS)
    check_choice(perturbation, "perturbation", NOISES)
    tried = sorted({check_integer(rank, "ranks", low=1) for rank in ranks})
    if not tried:
        raise ValueError("ranks must have an entry, got none")
    kind = model_of(model, absent, dict(options or {}))
    key = as_key(rng).fold("select_rank")
    if method == "holdout":
        plan = _HoldOut(
            kind.name, absent, dict(options or {}),
            check_real(validation_fraction, "validation_fraction", low=0.0, high=1.0, closed="neither"),
            check_integer(n_splits, "n_splits", low=2), check_integer(n_init, "n_init", low=1), key,
        )  # fmt: skip
        return plan.curve(X, tried, callback)
    runs = check_integer(n_perturbations, "n_perturbations", low=2)
    noise = check_real(noise, "noise", low=0.0, high=1.0, closed="neither")
    threshold = check_real(min_silhouette, "min_silhouette", low=-1.0, high=1.0)
    found = []
    for rank in tried:
        found.append(_stable(X, rank, kind, runs, perturbation, noise, key.fold(rank)))
        if callback is not None and callback(RankStep(rank, found[-1].error, found[-1].least)):
            break
    good = [i for i, one in enumerate(found) if one.least >= threshold]
    chosen = good[-1] if good else max(range(len(found)), key=lambda i: found[i].least)
    curve = RankCurve(
        "stability", tuple(tried[: len(found)]), tuple(one.error for one in found),
        tuple(one.spread for one in found), tuple(one.mean for one in found), tried[chosen],
        tuple(one.least for one in found), tuple(float(np.mean(one.silhouettes)) for one in found), threshold,
        tuple(one.parts for one in found), tuple(one.core for one in found), tuple(one.silhouettes for one in found),
        status=Status.CONVERGED if good else Status.BREAKDOWN,
    )  # fmt: skip
    return warn_or_raise(curve, on_failure, what="select_rank")


# --- stability --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stable:
    """The perturbed runs of one rank."""

    parts: Any
    core: Any
    error: float
    mean: float
    spread: float
    silhouettes: np.ndarray

    @property
    def least(self) -> float:
        return float(np.min(self.silhouettes))


def _stable(X: Any, rank: int, kind: Any, runs: int, perturbation: str, noise: float, key: Key) -> _Stable:
    """Factorise perturbed copies, cluster the columns, fit the rest to the medians."""
    columns, errors = [], []
    for run in range(runs):
        copy = perturbed(X, perturbation, noise, key.fold("noise").fold(run), symmetric=kind.name == "symmetric")
        F, error = kind.fit(copy, rank, key.fold("start").fold(run))
        xp = array_namespace(F)
        if F.ndim != 2 or int(F.shape[1]) != rank:
            raise ValueError(f"model must return {rank} columns, got shape {tuple(F.shape)}")
        columns.append(_normalised(xp.astype(F, xp.float64), xp))
        errors.append(error)
    parts, assigned = clustered(columns)
    silhouettes = cluster_silhouettes(assigned)
    core, error = kind.complete(X, parts)
    finite = np.array(errors)
    mean = float(np.mean(finite))
    return _Stable(parts, core, mean if error is None else error, mean, float(np.std(finite, ddof=1) / math.sqrt(runs)),
                   silhouettes)  # fmt: skip


def _normalised(F: Any, xp: Any) -> Any:
    """Columns of norm one; columns of zeros stay."""
    largest = xp.max(xp.abs(F), axis=0)
    F = F / xp.where(largest > 0, largest, xp.ones_like(largest))
    sizes = xp.linalg.vector_norm(F, axis=0)
    return F / xp.where(sizes > 0, sizes, xp.ones_like(sizes))


def clustered(runs: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Medians (n, k) of k clusters with one column of each run, and the runs with their columns in the order of those.

    The Hungarian method assigns the columns of a run to the medians by their cosines, until no run changes.
    """
    from scipy.optimize import linear_sum_assignment

    xp, columns = array_namespace(runs[0]), list(runs)
    centres = columns[0]
    for _ in range(MOST_ROUNDS):
        changed = False
        for p, F in enumerate(columns):
            order = linear_sum_assignment(to_host(xp.matmul(centres.T, F)), maximize=True)[1]
            if bool(np.any(order != np.arange(order.size))):
                places = from_host(order.astype(np.int64), xp, F)
                columns[p], changed = xp.take(F, places, axis=1), True
        ordered = xp.sort(xp.stack(columns), axis=0)
        low, high = (len(columns) - 1) // 2, len(columns) // 2
        middle = (ordered[low, :, :] + ordered[high, :, :]) / 2
        mean = xp.mean(ordered, axis=0)  # where most of a cluster have a zero, the median of every entry may be zero
        empty = xp.astype(xp.max(middle, axis=0) <= 0, xp.float64)[None, :]
        centres = _normalised(middle * (1 - empty) + mean * empty, xp)
        if not changed:
            break
    return centres, columns


def cluster_silhouettes(columns: Sequence[Any]) -> np.ndarray:
    """The mean silhouette of each cluster, by cosine distance; columns[p][:, k] is in cluster k."""
    xp, runs, k = array_namespace(columns[0]), len(columns), int(columns[0].shape[1])
    if k == 1:
        return np.ones(1)
    table = xp.concat([*columns], axis=1)
    distances = 1 - to_host(xp.matmul(table.T, table))
    blocks = distances.reshape(runs, k, runs, k)
    means = blocks.mean(axis=2)  # (runs, k, k): of a column to each cluster
    own = np.einsum("pqrq->pq", blocks) - np.einsum("pqpq->pq", blocks)
    own = np.maximum(own / (runs - 1), 0.0)
    means[:, np.arange(k), np.arange(k)] = np.inf
    other = means.min(axis=2)
    larger = np.maximum(own, other)
    return np.where(larger > 0, (other - own) / np.where(larger > 0, larger, 1.0), 0.0).mean(axis=0)


# --- entries held out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HoldOut:
    """Several splits of the known entries, the same for all ranks."""

    name: str
    absent: str | None
    options: dict[str, Any] = field(repr=False)
    fraction: float
    n_splits: int
    n_init: int
    key: Key

    def curve(self, X: Any, tried: Sequence[int], callback: Any) -> RankCurve:
        if self.name not in ("nmf", "rescal"):
            raise ValueError(f'model must be "nmf" or "rescal" for method="holdout", got {self.name!r}')
        score = self._masked if self.name == "nmf" else self._relational(X)
        table: list[np.ndarray] = []
        for rank in tried:
            table.append(np.array([score(X, rank, self.key.fold(split)) for split in range(self.n_splits)]))
            if callback is not None and callback(RankStep(rank, float(table[-1][:, 0].mean()), math.nan)):
                break
        found = np.stack(table)
        errors, training = found.mean(axis=1).T
        spreads = found[:, :, 0].std(axis=1, ddof=1) / math.sqrt(self.n_splits)
        if not np.any(np.isfinite(errors)):
            raise ValueError(f"ranks must give a finite held-out error, got none for {list(tried)}")
        least = int(np.nanargmin(errors))
        chosen = next(i for i in range(len(errors)) if errors[i] <= errors[least] + spreads[least])
        return RankCurve(
            "holdout", tuple(tried[: len(errors)]), tuple(map(float, errors)), tuple(map(float, spreads)),
            tuple(map(float, training)), tried[chosen],
        )  # fmt: skip

    def _masked(self, X: Any, rank: int, key: Key) -> tuple[float, float]:
        fitted, held = hold_out(observed_entries(X, self.absent), self.fraction, key.fold("validation"))
        found = [
            masked_nmf(fitted, rank, rng=key.fold(i), on_failure="ignore", **self.options) for i in range(self.n_init)
        ]
        best = min(found, key=lambda one: one.objective)
        return _root_mean_square(best, held), _root_mean_square(best, fitted)

    def _relational(self, X: Any) -> Callable[[Any, int, Key], tuple[float, float]]:
        if not (is_array_api_obj(X) and X.ndim == 3):
            raise NotImplementedError('X must be an array (t, n, n) for method="holdout" with "rescal"')
        xp = namespace_of(X)
        whole = xp.astype(X, floating_dtype(X, xp))
        if self.absent == "zeros":
            whole = xp.where(xp.isnan(whole), xp.zeros_like(whole), whole)
        elif self.absent is None and bool(xp.any(xp.isnan(whole))):
            raise ValueError('absent must be "missing" or "zeros" where X has NaN, got None; say what NaN stands for')

        def score(_: Any, rank: int, key: Key) -> tuple[float, float]:
            holed, places = hidden(whole, self.fraction, key.fold("validation"))
            found = [
                rescal_nmf(holed, rank, absent="missing", rng=key.fold(i), on_failure="ignore", **self.options)
                for i in range(self.n_init)
            ]
            squares = (whole - min(found, key=lambda one: one.objective).to_dense()) ** 2
            errors = []
            for mask in (places, ~(places | xp.isnan(whole))):
                count = int(xp.sum(xp.astype(mask, xp.int64)))
                total = float(xp.sum(xp.where(mask, squares, xp.zeros_like(squares))))
                errors.append(math.sqrt(total / count) if count else math.nan)
            return errors[0], errors[1]

        return score


def _root_mean_square(found: Any, entries: Observations) -> float:
    """Of the residuals of some entries."""
    xp = entries.xp
    if entries.nnz == 0:
        return math.nan
    rest = xp.astype(entries.data - found.predict(entries.rows, entries.indices), xp.float64)
    return math.sqrt(float(xp.mean(rest * rest)))
