"""Row space and second moment of a tall table of which each row shows a few entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, namespace_of
from .._backend import kernel
from .._blocks import RowBlocks
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..lowrank.results import phases
from .moments import PairMoments
from .observations import Observations, as_observations
from .pair_errors import CONFIDENCE, ErrorEstimate, estimate_error
from .pair_fits import ESTIMATORS, PairFit

_HALVES_TOL = 1e-5  # of the fits to halves of the rows: what they differ by is far above
_BLOCK_ENTRIES = 2**20  # numbers gathered at a time


@dataclass(frozen=True, eq=False, repr=False)
class SecondMoment:
    """The matrix ``V V^T`` (d, d) by its factor; nothing of its size is formed but by `to_dense`."""

    V: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (d, d)."""
        return int(self.V.shape[0]), int(self.V.shape[0])

    def matmul(self, X: Any) -> Any:
        """``V V^T X`` for X of shape (d,) or (d, k)."""
        X = as_matrix(X, name="X", sparse=False, vector=True)
        check_together(self.V, X, names=("the second moment", "X"))
        if X.shape[0] != self.shape[0]:
            raise ValueError(f"X must have {self.shape[0]} rows, got shape {tuple(X.shape)}")
        xp = array_namespace(self.V)
        columns = xp.astype(X[:, None] if X.ndim == 1 else X, self.V.dtype)
        Y = xp.matmul(self.V, xp.matmul(self.V.mT, columns))
        return Y[:, 0] if X.ndim == 1 else Y

    def entries(self, rows: Any, columns: Any) -> Any:
        """The entries at (rows[q], columns[q])."""
        xp = array_namespace(self.V)
        rows, columns = (
            _positions(p, name, self.shape[0], self.V) for p, name in ((rows, "rows"), (columns, "columns"))
        )
        _check_lengths(rows, columns)
        return xp.sum(xp.take(self.V, rows, axis=0) * xp.take(self.V, columns, axis=0), axis=1)

    def diagonal(self) -> Any:
        """The mean squares of the columns (d,)."""
        return array_namespace(self.V).sum(self.V * self.V, axis=1)

    def trace(self) -> float:
        """The sum of the diagonal."""
        return float(array_namespace(self.V).sum(self.V * self.V))

    def to_dense(self) -> Any:
        """The matrix as an array (d, d)."""
        return array_namespace(self.V).matmul(self.V, self.V.mT)

    def __repr__(self) -> str:
        return f"SecondMoment(shape={self.shape}, rank={self.V.shape[1]})"


@dataclass(frozen=True)
class OneSidedStep:
    """What a callback is told after each iteration of `one_sided_completion`.

    Attributes
    ----------
    n_iter : int
        Iterations done.
    residual : float
        Weighted residual on the known pairs over that of zero.
    gradient : float
        The quantity that is compared with `tol`.
    """

    n_iter: int
    residual: float
    gradient: float


@dataclass(frozen=True, repr=False)
class OneSidedResult(Result):
    """Row space of a table observed in part, ``X^T X / m ~ components^T diag(eigenvalues) components``.

    Iterates as ``components, eigenvalues``.

    Attributes
    ----------
    components : array, shape (rank, d)
        Orthonormal rows, most important first; the entry of largest modulus in each row is positive.
    eigenvalues : array, shape (rank,)
        Eigenvalues of the second moment, descending.
    V : array, shape (d, rank)
        ``components.T * sqrt(eigenvalues)``, so that ``V V^T`` is the second moment.
    mean : array, shape (d,), or None
        Column means that were subtracted; None without centring.
    n_rows : int
        Rows m behind it.
    n_pairs : int
        Pairs of columns that some row observes together.
    residual : float
        Root of the weighted mean square of what the fit leaves of the known means, over that of zero.
    gradient : float
        Norm of the gradient of the loss times the norm of V, relative to the loss at zero: what `tol` is compared with.
    error : float
        Estimate of ``||V V^T - Theta||_F / ||Theta||_F``, Theta the second moment of all rows that could come, over
        pairs as often as they were seen together; NaN where it is not known.
    error_bound : float
        Upper bound of the same with the stated confidence.
    error_spread : float
        The part of `error` that is due to the number of rows: four times as many halve it.
    error_bias : float
        The part that is not: a rank too small, or entries that are observed because of their values.
    confidence : float
    error_kind : str
        "halves", or "none".
    error_norm : str
        "co-observed", or "co-observed off-diagonal" where the diagonal has no weight.
    n_iter : int
    history : tuple of float
        The residual at the start and after each iteration; it never rises.
    status : Status
    """

    components: Any
    eigenvalues: Any
    V: Any
    mean: Any
    n_rows: int
    n_pairs: int
    residual: float
    gradient: float
    error: float = math.nan
    error_bound: float = math.inf
    error_spread: float = math.nan
    error_bias: float = math.nan
    confidence: float = CONFIDENCE
    error_kind: str = "none"
    error_norm: str = "co-observed"
    n_iter: int = 0
    history: tuple[float, ...] = field(default=())
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("components", "eigenvalues")

    @property
    def rank(self) -> int:
        """Number of components."""
        return int(self.eigenvalues.shape[0])

    @property
    def singular_values(self) -> Any:
        """``sqrt(m * eigenvalues)``, those of the whole table if the rows that came are all of it."""
        return array_namespace(self.eigenvalues).sqrt(self.n_rows * self.eigenvalues)

    @property
    def second_moment(self) -> SecondMoment:
        """``V V^T`` with products, entries and diagonal."""
        return SecondMoment(self.V)

    def transform(self, X: Any, *, noise_variance: float = 0.0) -> Any:
        """Coordinates of rows in the components, from the entries that they show.

        Parameters
        ----------
        X : CSR or CSC matrix, or array with NaN, shape (q, d)
            Rows to place; what is stored, or not NaN, was observed.
        noise_variance : float, noise_variance >= 0, default 0
            Variance of errors in the entries.

        Returns
        -------
        Z : array, shape (q, rank)
            ``Z @ components + mean`` completes the rows.  With S the entries of a row, its coordinates are those of
            the conditional mean ``V (V_S^T V_S + noise_variance I)^+ V_S^T x_S`` of a Gaussian row: with as many
            entries as components or more, the least-squares fit; with fewer, that of least length; zero with none.

        Raises
        ------
        ValueError
            If X has another number of columns, or is not finite.
        """
        noise_variance = check_real(noise_variance, "noise_variance", low=0.0)
        return self._placed(self._observed(X), noise_variance)

    def predict_cells(self, X: Any, rows: Any, columns: Any, *, noise_variance: float = 0.0) -> Any:
        """Conditional means of single cells, given what their rows show.

        Parameters
        ----------
        X : CSR or CSC matrix, or array with NaN, shape (q, d)
            Rows, old or new.
        rows, columns : integer arrays, shape (p,)
            Cells to predict.
        noise_variance : float, noise_variance >= 0, default 0
            As in `transform`.

        Returns
        -------
        values : array, shape (p,)
            ``Theta[j, S] Theta[S, S]^+ x_S`` for each cell (i, j), S the entries of row i; plus the means.

        Raises
        ------
        ValueError
            If X does not fit, or an index is out of range.
        """
        seen = self._observed(X)
        noise_variance = check_real(noise_variance, "noise_variance", low=0.0)
        rows = _positions(rows, "rows", seen.shape[0], self.V)
        columns = _positions(columns, "columns", int(self.V.shape[0]), self.V)
        _check_lengths(rows, columns)
        xp = array_namespace(self.V)
        wanted, place = xp.unique_inverse(rows)
        Z = self._placed(_some_rows(seen, wanted), noise_variance)
        place, out = xp.reshape(place, (-1,)), []
        step = max(1, _BLOCK_ENTRIES // max(1, self.rank))
        for lo in range(0, int(rows.shape[0]), step):
            part = slice(lo, min(lo + step, int(rows.shape[0])))
            j = columns[part]
            values = xp.sum(xp.take(Z, place[part], axis=0) * xp.take(self.components, j, axis=1).mT, axis=1)
            out.append(values if self.mean is None else values + xp.take(self.mean, j))
        return xp.concat(out) if out else xp.zeros(0, dtype=self.V.dtype, device=device_of(self.V))

    def _placed(self, centred: Observations, noise_variance: float) -> Any:
        xp = centred.xp
        scores = _scores(centred, xp.astype(self.V, xp.float64), noise_variance)
        return xp.astype(scores * xp.sqrt(xp.astype(self.eigenvalues, xp.float64))[None, :], self.V.dtype)

    def _observed(self, X: Any) -> Observations:
        seen = as_observations(X)
        check_together(self.V, seen.data, names=("the result", "X"))
        if seen.shape[1] != self.V.shape[0]:
            raise ValueError(f"X must have {self.V.shape[0]} columns, got shape {seen.shape}")
        xp = seen.xp
        values = xp.astype(seen.data, xp.float64)
        return seen.with_values(values if self.mean is None else values - xp.take(self.mean, seen.indices))


def _positions(values: Any, name: str, size: int, like: Any) -> Any:
    xp = array_namespace(like)
    if not hasattr(values, "dtype"):
        values = xp.asarray(values, dtype=None if len(values) else xp.int64, device=device_of(like))
    values = as_matrix(values, name=name, sparse=False, vector=True)
    if values.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {tuple(values.shape)}")
    if not xp.isdtype(values.dtype, "integral"):
        raise TypeError(f"{name} must be integers, got dtype {values.dtype}")
    check_together(like, values, names=("the result", name))
    if values.shape[0] and not (int(xp.min(values)) >= 0 and int(xp.max(values)) < size):
        raise ValueError(f"{name} must be in [0, {size - 1}], got others")
    return xp.astype(values, xp.int64)


def _check_lengths(rows: Any, columns: Any) -> None:
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"columns must have {rows.shape[0]} entries as rows has, got {columns.shape[0]}")


def _some_rows(seen: Observations, wanted: Any) -> Observations:
    """The observations of the rows `wanted`, in that order."""
    xp = seen.xp
    counts = xp.take(seen.row_counts, wanted)
    ends = xp.cumulative_sum(counts)
    total = int(ends[-1]) if wanted.shape[0] else 0
    number = xp.arange(total, dtype=xp.int64, device=device_of(seen.data))
    row = xp.searchsorted(ends, number, side="right")
    first = xp.astype(xp.take(seen.indptr, wanted), xp.int64) - (ends - counts)
    entries = number + xp.take(first, row)
    indptr = xp.concat([xp.zeros(1, dtype=xp.int64, device=device_of(seen.data)), ends])
    shape = int(wanted.shape[0]), seen.shape[1]
    return Observations(xp.take(seen.data, entries), xp.take(seen.indices, entries), indptr, shape)


def _scores(seen: Observations, V: Any, noise_variance: float) -> Any:
    """``(V_S^T V_S + noise_variance I)^+ V_S^T x_S`` for each row with entries S."""
    xp, rank = seen.xp, int(V.shape[1])
    ridge = xp.full((seen.shape[0],), noise_variance, dtype=xp.float64, device=device_of(V))
    scores, pivots = kernel("masked_qr", xp)(V, seen.indices, seen.indptr, None, seen.data, ridge)
    missing = (pivots == 0) & (seen.row_counts > 0)
    deficient = xp.nonzero(missing)[0]
    if not deficient.shape[0]:
        return scores
    counts, rows, values = xp.take(seen.row_counts, deficient), [], []
    lengths = xp.unique_values(counts)
    for n in (int(lengths[t]) for t in range(lengths.shape[0])):  # rows of one length make a stack of small matrices
        alike = deficient[counts == n]
        step = max(1, _BLOCK_ENTRIES // (n * max(1, rank)))
        for lo in range(0, int(alike.shape[0]), step):
            rows.append(alike[lo : min(lo + step, int(alike.shape[0]))])
            at = xp.astype(xp.take(seen.indptr, rows[-1]), xp.int64)[:, None]
            at = xp.reshape(at + xp.arange(n, dtype=xp.int64, device=device_of(V))[None, :], (-1,))
            design = xp.reshape(xp.take(V, xp.take(seen.indices, at), axis=0), (-1, n, rank))
            x = xp.reshape(xp.take(seen.data, at), (-1, n, 1))
            values.append(xp.matmul(xp.linalg.pinv(design), x)[:, :, 0])
    shortest = xp.take(xp.concat(values), xp.argsort(xp.concat(rows), stable=True), axis=0)
    place = xp.cumulative_sum(xp.astype(missing, xp.int64)) - 1
    shortest = xp.take(shortest, xp.where(missing, place, xp.zeros_like(place)), axis=0)
    return xp.where(missing[:, None], shortest, scores)


def one_sided_completion(
    X: Any, rank: int, *, estimator: str = "factored", diagonal_weight: float = 1.0, center: bool = False,
    propensity: Any = None, max_iter: int = 500, tol: float = 1e-8, rng: Any = None,
    callback: Callable[[OneSidedStep], Any] | None = None, check: bool = True, on_failure: str = "warn",
) -> OneSidedResult:  # fmt: skip
    """Find the row space and the second moment of a table from a few entries of each row; two are enough.

    With two entries in a row its factor can't be found, but the columns' can: products ``x_a x_b`` of entries that a
    row shows together have the mean ``Theta_ab``, Theta the second moment ``X^T X / m``.  A matrix ``V V^T`` of the
    given rank is fitted to these means, each weighted by its count; pairs that were never seen have no weight.

    Parameters
    ----------
    X : CSR or CSC matrix, array with NaN, RowBlocks or PairMoments, shape (m, d)
        The table; what is stored, or not NaN, was observed.  It is not changed.
    rank : int, 1 <= rank <= d
    estimator : {"factored", "hajek"}, default "factored"
        "factored": pairs weigh as often as they were seen.  "hajek": all pairs that were seen weigh alike, with a small
        penalty on long rows of V; its error was 1.3 to 1.9 times that of "factored" wherever both were measured.
    diagonal_weight : float, diagonal_weight >= 0, default 1
        Weight of the mean squares of the columns.  Errors in the entries add their variance there: take 0 then.
    center : bool, default False
        Subtract the mean of the observed entries of each column; else the mean takes a component.
    propensity : array or sparse matrix, shape (m, d) or (m, 1), optional
        Probabilities with which entries were observed: products are weighted by their reciprocals.
    max_iter : int, max_iter >= 0, default 500
    tol : float, tol >= 0, default 1e-8
        Stop when ``||gradient||_F ||V||_F <= tol``, for the loss relative to that of V = 0.
    rng : None, int, SeedSequence, Generator or Key
        Source of the Krylov start, for more than 500 columns.
    callback : callable, optional
        Called with a `OneSidedStep` after each iteration; returning True ends the fit.
    check : bool, default True
        Estimate the error, by two more fits to halves of the rows.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    OneSidedResult
        ``components`` (rank, d) and ``eigenvalues`` (rank,), with errors, history and status; iterates as
        ``components, eigenvalues``.

    Raises
    ------
    ValueError
        If no row shows two entries, a parameter is out of range, or one contradicts the given PairMoments.

    Notes
    -----
    ``m >= C rank**2 d log(d)`` rows with two entries each determine Theta [1]_, provided that entries are observed
    independently of their values.  Gaussian rows, d = 100, rank 3, two entries each: the relative error of Theta is
    0.9 with 2,000 rows, 0.15 with 50,000, and 0.075 with 200,000.  What the rows do not determine is left alone:
    columns that are never seen have zeros in V, and columns that no chain of pairs connects have independent signs.

    `error` adds a variance, from the difference of fits to two halves of the rows, and a squared bias, from the
    residuals of each on the other half, whose products between groups of rows are free of noise.  In 14 simulated
    settings it was 0.93 to 1.31 times the true error on average, and the bound held in all of 210 fits: 1.2 times the
    error where a bias rules, 2 to 3 times where noise does.

    Cost: the pairs of entries of each row once, then ``O(n_pairs rank)`` for an iteration; memory ``O(n_pairs)``, or
    ``O(d**2)`` where d is small.

    Deviations: (1) limited-memory BFGS with Armijo's rule takes the place of Adam and, for "hajek", of gradient
    descent with backtracking, which goes to the same minimum in more steps; (2) "hajek" measures its penalty in units
    of the mean square of the columns, and starts from the eigenvectors of the means divided by the share of pairs that
    are known; (3) weights with a propensity are normalised by their sums, pair by pair.

    References
    ----------
    .. [1] Cao, Liang and Valiant, "One-sided matrix completion from two observations per row", ICML 2023,
       arXiv:2306.04049.
    .. [2] "Ultra-sparse one-sided matrix completion", arXiv:2601.12213 (estimator "hajek").

    Examples
    --------
    >>> import numpy as np, randla
    >>> import scipy.sparse as sp
    >>> rng = np.random.default_rng(0)
    >>> V, Z = rng.standard_normal((20, 2)), rng.standard_normal((40_000, 2))
    >>> columns = np.argsort(rng.random((40_000, 20)), axis=1)[:, :2]  # two entries of each row
    >>> values = np.einsum("ik,ijk->ij", Z, V[columns])
    >>> X = sp.csr_array((values.ravel(), columns.ravel(), np.arange(0, 80_001, 2)), shape=(40_000, 20))
    >>> X.sort_indices()
    >>> result = randla.one_sided_completion(X, 2, rng=0)
    >>> error = np.linalg.norm(result.second_moment.to_dense() - V @ V.T) / np.linalg.norm(V @ V.T)
    >>> bool(error < 0.1), bool(error < result.error_bound < 0.2)
    (True, True)
    """
    check_choice(estimator, "estimator", ESTIMATORS)
    diagonal_weight = check_real(diagonal_weight, "diagonal_weight", low=0.0)
    max_iter = check_integer(max_iter, "max_iter", low=0)
    tol = check_real(tol, "tol", low=0.0)
    moments = _as_moments(X, center, propensity)
    rank = check_integer(rank, "rank", low=1, high=moments.n_features)
    if moments.n_pairs == 0:
        raise ValueError(
            f"X must have a row with two observed entries, got none in {moments.n_rows} rows of {moments.n_features} "
            "columns; the second moment needs products"
        )
    told = None if callback is None else _told(callback)
    options = estimator, diagonal_weight
    result = _fitted(moments, rank, options, max_iter, tol, as_key(rng).fold("one_sided"), told, check)
    return warn_or_raise(result, on_failure, what="one_sided_completion")


def _told(callback: Callable[[OneSidedStep], Any]) -> Callable[[int, float, float], bool]:
    return lambda n_iter, value, gradient: callback(OneSidedStep(n_iter, math.sqrt(value), gradient)) is True


def _as_moments(X: Any, center: bool, propensity: Any) -> PairMoments:
    if isinstance(X, PairMoments):
        if center and not X.center:
            raise ValueError("center must be False for moments made without it, got True; make them with center=True")
        if propensity is not None:
            raise ValueError("propensity must be None for moments, got an array; pass it to their update")
        X.check_rows()
        return X
    A = X if isinstance(X, RowBlocks) else as_matrix(X, name="X")
    if A.shape[1] == 0:
        raise ValueError(f"X must have at least one column, got shape {tuple(A.shape)}")
    moments = PairMoments(int(A.shape[1]), center=center, weighted=propensity is not None)
    moments.update(X, propensity=propensity)
    return moments


def _fitted(
    moments: PairMoments, rank: int, options: tuple[str, float], max_iter: int, tol: float, key: Key, told: Any,
    check: bool,
) -> OneSidedResult:  # fmt: skip
    groups = moments.n_groups
    whole = PairFit(moments.statistics(range(groups)), *options, moments.n_rows, rank, key)
    xp, norm = whole.xp, "co-observed" if options[1] > 0 else "co-observed off-diagonal"
    if not whole.finite or whole.trivial:
        zero = xp.zeros((moments.n_features, rank), dtype=xp.float64, device=device_of(whole.h))
        status = Status.CONVERGED if whole.finite else Status.NONFINITE
        told_of = {"residual": 0.0 if whole.finite else math.nan, "gradient": 0.0 if whole.finite else math.nan}
        return _result(moments, zero, status=status, error_norm=norm, **told_of)
    found = whole.run(max_iter, tol, told)
    estimate = ErrorEstimate(math.nan, math.inf, math.nan, math.nan)
    known = check and groups > 1 and found.status is not Status.NONFINITE
    if known:
        halves = range(groups // 2), range(groups // 2, groups)
        fits = [PairFit(moments.statistics(half), *options, moments.n_rows // 2, rank, key) for half in halves]
        if all(fit.finite and not fit.trivial for fit in fits):
            first, second = (fit.run(max_iter, max(tol, _HALVES_TOL)).X for fit in fits)
            estimate = estimate_error(moments, first, second, diagonal=options[1] > 0)
    return _result(
        moments, found.X, status=found.status, error_norm=norm, residual=math.sqrt(found.value),
        gradient=found.gradient, n_iter=len(found.history) - 1, history=tuple(map(math.sqrt, found.history)),
        error=estimate.error, error_bound=estimate.bound, error_spread=estimate.spread, error_bias=estimate.bias,
        error_kind="halves" if math.isfinite(estimate.error) else "none",
    )  # fmt: skip


def _result(moments: PairMoments, V: Any, **told: Any) -> OneSidedResult:
    """The factor as eigenvectors and eigenvalues, in the dtype of the data."""
    xp = namespace_of(V)
    dtype = xp.float32 if moments.dtype == "float32" else xp.float64
    if bool(xp.any(~xp.isfinite(V))):
        V = xp.zeros_like(V)
    U, s, _ = xp.linalg.svd(V, full_matrices=False)
    known = xp.astype(xp.sum(moments.column_counts, axis=0) > 0, xp.float64)  # nothing is said of the other columns
    E = known[None, :] * U.mT
    E = E * phases(E)[:, None]
    mean = xp.astype(moments.mean, dtype) if moments.center else None
    return OneSidedResult(
        xp.astype(E, dtype), xp.astype(s * s, dtype), xp.astype(E.mT * s[None, :], dtype), mean, moments.n_rows,
        moments.n_pairs, **told,
    )  # fmt: skip
