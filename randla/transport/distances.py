"""Entropic transport between all pairs of many histograms: products with one kernel serve a batch of pairs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .._checks import check_choice, check_integer, check_real
from .._results import Result, Status, interrupted_with, warn_or_raise
from .batches import STEEPEST, Batch
from .costs import METRICS, as_cost
from .problems import as_histograms, as_reg, common_mass
from .sinkhorn import sinkhorn

KINDS = ("cost", "value", "divergence")
KERNEL_BYTES = 2**29  # of that kernel
BATCH_ENTRIES = 2**17  # potentials of one batch: the deltas of its mixing take 2 DEPTH times as much
BATCH_SWEEPS = 300  # after which a pair is left to `sinkhorn`, which has Newton steps
SAME_MASS = 1e-8  # relative difference of masses that is taken for rounding


class PairStep(NamedTuple):
    """How far `transport_distances` is."""

    n_done: int  #: pairs that are finished
    n_pairs: int  #: pairs in all
    marginal_error: float  #: the largest of those finished


@dataclass(frozen=True, repr=False)
class TransportDistances(Result):
    """Distances of all pairs of histograms; iterates as ``(distances,)``.

    Attributes
    ----------
    distances : array, shape (n_x, n_y)
        One for each pair, float64; NaN where the work was stopped before.
    marginal_errors : array, shape (n_x, n_y)
        ``(||T 1 - a||_1 + ||T.T 1 - b||_1) / sum(a)`` of each pair's plan; NaN where there is none.
    pairs_converged : array, shape (n_x, n_y)
        Whether that error is at most the tolerance, bool; of a divergence also those of its two self-distances.
    kind : str
        "cost", "value" or "divergence".
    reg : float
        Regularisation, absolute.
    n_iter : int
        Sweeps and Newton steps, summed over the pairs.
    n_single : int
        Pairs that `sinkhorn` solved one by one.
    status : Status
        CONVERGED where all pairs are; else that of a pair that is not.
    """

    distances: Any
    marginal_errors: Any
    pairs_converged: Any
    kind: str
    reg: float
    n_iter: int = 0
    n_single: int = 0
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("distances",)


def transport_distances(
    X: Any, cost: Any, reg: float, Y: Any = None, *, kind: str = "cost", relative: bool = False, tol: float = 1e-6,
    max_iter: int | None = None, callback: Callable[[PairStep], object] | None = None, on_failure: str = "warn",
) -> TransportDistances:  # fmt: skip
    """Entropic transport between each row of X and each row of Y, histograms over common bins.

    A pair (a, b) gives ``<T, C>`` of the plan that minimises ``<T, C> + reg sum T log T`` ("cost"), that minimum
    ("value"), or the minimum freed of its bias by those of (a, a) and (b, b) ("divergence"), which is 0 for ``a = b``.

    Parameters
    ----------
    X : array, shape (n_x, n)
        Histograms, one in a row, nonnegative; all of the same mass.
    cost : array, shape (n, m), or Cost
        Costs from the bins of X to those of Y.  Symmetric where Y is None or `kind` is "divergence".
    reg : float, reg > 0
        Regularisation in units of cost; with ``relative=True`` as a share of the largest cost.
    Y : array, shape (n_y, m), optional
        Histograms of the same mass; default X, of whose pairs only half are then solved.
    kind : {"cost", "value", "divergence"}, default "cost"
        What is told of a pair.
    relative : bool, default False
        Whether `reg` is a share of the largest cost.
    tol : float, tol > 0, default 1e-6
        Goal for each pair's ``(||T 1 - a||_1 + ||T.T 1 - b||_1) / sum(a)``.
    max_iter : int, max_iter >= 1, optional
        Sweeps for a pair; default those of `sinkhorn`.
    callback : callable, optional
        Called with a `PairStep` when pairs are finished; return True to stop.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do when a pair has not converged.

    Returns
    -------
    TransportDistances
        ``distances`` (n_x, n_y), the marginal error of each pair, and whether it has converged.

    Raises
    ------
    ValueError
        If histograms are negative, not finite or of unequal masses, shapes don't fit, the cost is not symmetric
        where it must be, or a parameter is out of range.
    TypeError
        If an argument is complex or not numeric.
    KeyboardInterrupt
        As it comes, with what is finished as its attribute `result`.

    Notes
    -----
    Where the largest cost is at most 300 times `reg`, a sweep of a batch of pairs is two products with the kernel
    ``exp(-C / reg)``, ``4 n m`` operations a pair, and each pair's sweeps are combined by Anderson's mixing.  Pairs
    that need more than 300 sweeps, and all pairs at a smaller `reg`, are solved by `sinkhorn`, which starts at the
    potentials that the batch has reached.  Memory beyond the result: ``8 n m`` bytes and about 15 MB for a batch.

    References
    ----------
    Cuturi 2013, section 4.1 (several problems by products of matrices); Feydy et al. 2019 (divergence).

    Examples
    --------
    >>> import numpy as np, randla
    >>> bins = np.linspace(0, 1, 20)
    >>> X = np.exp(-((bins - np.array([[0.2], [0.5], [0.8]])) ** 2) / 0.01)
    >>> X /= X.sum(axis=1, keepdims=True)
    >>> found = randla.transport_distances(X, (bins[:, None] - bins) ** 2, 0.01, kind="divergence")
    >>> np.round(found.distances, 2)
    array([[0.  , 0.09, 0.36],
           [0.09, 0.  , 0.09],
           [0.36, 0.09, 0.  ]])
    """
    cost, kind = as_cost(cost), check_choice(kind, "kind", KINDS)
    tol = check_real(tol, "tol", low=0.0, closed="neither", remedy="1e-6 is a good value")
    max_iter = None if max_iter is None else check_integer(max_iter, "max_iter", low=1)
    check_choice(on_failure, "on_failure", ("warn", "raise", "ignore"))
    if Y is None or kind == "divergence":
        cost.check_symmetric("where Y is None" if Y is None else 'for kind="divergence"')
    X = as_histograms(X, "X", cost, 0)
    symmetric, Y = Y is None, X if Y is None else as_histograms(Y, "Y", cost, 1)
    mass = common_mass(X, Y, names="X and Y")
    reg = as_reg(reg, cost, relative)
    run = _Run(cost, X / mass, Y / mass, reg, mass, kind, symmetric, tol, max_iter, callback)
    with interrupted_with(run.result):
        run.solve()
    return warn_or_raise(run.result(), on_failure, what="transport_distances")


@dataclass
class _Run:
    """Distances of all pairs as far as they are known."""

    cost: Any
    X: Any
    Y: Any
    reg: float
    mass: float
    kind: str
    symmetric: bool
    tol: float
    max_iter: int | None
    callback: Callable[[PairStep], object] | None
    n_iter: int = 0
    n_single: int = 0
    n_done: int = 0
    stopped: bool = False
    failed: Status | None = None

    def __post_init__(self) -> None:
        xp = self.cost.xp
        shape, options = (self.X.shape[0], self.Y.shape[0]), {"dtype": xp.float64, "device": self.cost.device}
        self.found = xp.full(shape, math.nan, **options)
        self.errors = xp.full(shape, math.nan, **options)
        self.own = [(xp.full(size, math.nan, **options), xp.full(size, math.nan, **options)) for size in shape]
        self.largest = 0.0
        steep = self.cost.largest() > STEEPEST * self.reg or 8 * math.prod(self.cost.shape) > KERNEL_BYTES
        made = self.cost.metric in ("stored", "grid", *METRICS)  # others know their kernel at one reg only
        self.batch = None if steep or not made else Batch(self.cost, self.reg, self.tol)

    def solve(self) -> None:
        """All pairs, and for divergences each histogram with itself."""
        n_x, n_y = self.found.shape
        self.n_pairs = n_x * (n_x + 1) // 2 if self.symmetric else n_x * n_y
        if self.kind == "divergence":
            self.n_pairs += 0 if self.symmetric else n_x + n_y
            for (values, errors), histograms in zip(
                self.own[: 1 if self.symmetric else 2], (self.X, self.Y), strict=False
            ):
                for lo, hi in self._chunks(histograms.shape[0]):
                    rows = histograms[lo:hi]
                    values[lo:hi], errors[lo:hi] = self._pairs(rows, rows)
            if self.symmetric:
                self.own[1] = self.own[0]
        for i in range(n_x):
            first = 0 if not self.symmetric else i + (self.kind == "divergence")
            for lo, hi in self._chunks(n_y - first):
                lo, hi = lo + first, hi + first
                if self.stopped:
                    return
                b = self.Y[lo:hi]
                self.found[i, lo:hi], self.errors[i, lo:hi] = self._pairs(
                    self.cost.xp.broadcast_to(self.X[i], (hi - lo, self.X.shape[1])), b
                )

    def _chunks(self, count: int) -> Iterator[tuple[int, int]]:
        width = max(1, BATCH_ENTRIES // max(self.cost.shape))
        return ((lo, min(lo + width, count)) for lo in range(0, count, width))

    def _pairs(self, A: Any, B: Any) -> tuple[Any, Any]:
        """What is told of the pairs (A[p], B[p]), and their marginal errors."""
        xp = self.cost.xp
        if self.batch is not None:
            found = self.batch.solve(A, B, BATCH_SWEEPS if self.max_iter is None else min(BATCH_SWEEPS, self.max_iter))
            told, errors, starts = found.cost if self.kind == "cost" else found.value, found.error, found.x
            self.n_iter += found.n_iter
        else:
            told, starts = xp.full(A.shape[0], math.nan, dtype=xp.float64, device=self.cost.device), None
            errors = xp.asarray(told, copy=True)
        for p in range(A.shape[0]):
            if not self.stopped and not float(errors[p]) <= self.tol:
                result = self._single(A[p], B[p], None if starts is None else starts[p])
                told[p], errors[p] = result.cost if self.kind == "cost" else result.value, result.marginal_error
        self._report(A.shape[0], errors)
        return told, errors

    def _single(self, a: Any, b: Any, x: Any) -> Any:
        start, xp = None, self.cost.xp
        if x is not None and bool(xp.all(xp.isfinite(x))):
            there = b > 0
            g = self.reg * (x + xp.log(xp.where(there, b, xp.ones_like(b))))
            start = (xp.zeros_like(a), g)  # sweeps begin at g
        result = sinkhorn(
            a, b, self.cost, self.reg, tol=self.tol, max_iter=self.max_iter, start=start, on_failure="ignore"
        )
        self.n_single, self.n_iter = self.n_single + 1, self.n_iter + result.n_iter + result.n_newton
        if not result.converged:
            self.failed = result.status
        return result

    def _report(self, count: int, errors: Any) -> None:
        self.n_done += count
        self.largest = max(self.largest, float(self.cost.xp.max(errors)))
        step = PairStep(self.n_done, self.n_pairs, self.largest)
        if self.callback is not None and self.callback(step) is True:
            self.stopped = True

    def result(self) -> TransportDistances:
        """The result as far as the pairs are known."""
        xp = self.cost.xp
        distances, errors = self.found, self.errors
        converged = errors <= self.tol
        if self.symmetric:
            n = distances.shape[0]
            upper = xp.arange(n, device=self.cost.device)[:, None] <= xp.arange(n, device=self.cost.device)[None, :]
            distances, errors = xp.where(upper, distances, distances.T), xp.where(upper, errors, errors.T)
            converged = errors <= self.tol
        if self.kind == "divergence":
            (own, own_errors), (other, other_errors) = self.own
            distances = distances - (own[:, None] + other[None, :]) / 2
            converged = converged & (own_errors <= self.tol)[:, None] & (other_errors <= self.tol)[None, :]
            if self.symmetric:
                same = xp.eye(n, dtype=xp.bool, device=self.cost.device) & xp.isfinite(own)[:, None]
                distances = xp.where(same, xp.zeros_like(distances), distances)
                errors = xp.where(same, own_errors[:, None], errors)
                converged = xp.where(same, (own_errors <= self.tol)[:, None], converged)
        status = self.failed or (Status.CONVERGED if bool(xp.all(converged)) else Status.MAX_ITER)
        return TransportDistances(
            self.mass * distances, errors, converged, self.kind, self.reg, self.n_iter, self.n_single, status
        )
