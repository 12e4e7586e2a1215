"""The model of implicit feedback: what cells count, problems of rows, and what can be asked of fitted factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from .._arrays import from_host, is_sparse
from .._backend import kernel
from .._results import Result, Status
from .observations import Observations, as_observations
from .ranking import TopColumns, recommend

WEIGHTINGS = ("missing", "all")
_GRAM_ROWS = 2**14  # rows that are converted to double precision at a time
_PAIRS = 2**16  # pairs whose factors are gathered at a time


class Confidence(NamedTuple):
    """How cells count, as the arguments of `implicit_als` say."""

    reg: float
    alpha: float
    unobserved_weight: float
    weighting: str
    reg_exponent: float


_PLAIN = Confidence(0.01, 1.0, 1.0, "missing", 0.0)


def interactions(X: Any, *, name: str = "X") -> Observations:
    """The stored cells of a sparse matrix, or those of an array that are neither zero nor NaN."""
    observed = as_observations(X, name=name)
    return observed if is_sparse(X) or isinstance(X, Observations) else observed.select(observed.data != 0)


def indices_of(places: Any, name: str, size: int | None, like: Any) -> Any:
    """Integers, at least 0 and below `size`, as int64 where `like` lives."""
    xp = array_namespace(like)
    if not (is_array_api_obj(places) and array_namespace(places) is xp):
        host = np.asarray(places)
        places = from_host(host if host.size else host.astype(np.int64), xp, like)
    if not xp.isdtype(places.dtype, "integral"):
        raise TypeError(f"{name} must be integers, got {places.dtype}; convert them first")
    places = xp.astype(places, xp.int64)
    if math.prod(places.shape):
        low, high = int(xp.min(places)), int(xp.max(places))
        if low < 0 or (size is not None and high >= size):
            bounds = "at least 0" if size is None else f"in [0, {size - 1}]"
            raise ValueError(f"{name} must be {bounds}, got {low if low < 0 else high}")
    return places


def gram(V: Any, weights: Any = None) -> Any:
    """``V^T V``, or ``V^T diag(weights) V``, in double precision."""
    xp, k = array_namespace(V), V.shape[1]
    G = xp.zeros((k, k), dtype=xp.float64, device=device(V))
    for lo in range(0, V.shape[0], _GRAM_ROWS):
        hi = min(lo + _GRAM_ROWS, int(V.shape[0]))
        part = xp.astype(V[lo:hi, :], xp.float64, copy=False)
        other = part if weights is None else part * weights[lo:hi, None]
        G = G + xp.matmul(part.mT, other)
    return G


class Side:
    """The problems of all rows of a matrix of interactions, for fixed factors of the columns."""

    def __init__(self, observed: Observations, told: Confidence) -> None:
        xp = observed.xp
        self.xp, self.observed, self.told = xp, observed, told
        values = xp.astype(observed.data, xp.float64)
        self.weight = told.alpha * xp.abs(values)
        self.preference = xp.astype(values > 0, xp.float64)
        beyond = self.weight - (told.unobserved_weight if told.weighting == "missing" else 0.0)
        self.extra = xp.astype(beyond, observed.data.dtype)
        self.targets = xp.astype(self.weight * self.preference, observed.data.dtype)
        cells = xp.astype(observed.row_counts, xp.float64) + told.unobserved_weight * observed.shape[1]
        self.ridge = told.reg * cells**told.reg_exponent

    def exact(self, V: Any, G: Any) -> tuple[Any, Any]:
        """Solutions, and the least pivots; `G` is the Gram matrix of V."""
        R, w = self.observed, self.told.unobserved_weight
        solve = kernel("masked_cholesky", self.xp)
        return solve(V, R.indices, R.indptr, self.extra, self.targets, w * G, self.ridge)

    def iterate(self, V: Any, G: Any, values: Any, X: Any, steps: int) -> tuple[Any, Any]:
        """Solutions after some steps from X, and their residuals; `G` is diagonal with these values."""
        R, w, xp = self.observed, self.told.unobserved_weight, self.xp
        found, _, residuals = kernel("masked_cg", xp)(
            V, R.indices, R.indptr, self.extra, self.targets, w * G, self.ridge, w * values,
            xp.ones_like(self.ridge), X, 0.0, steps,
        )  # fmt: skip
        return found, residuals

    def penalty(self, X: Any) -> float:
        """The sum of ridge times squared lengths."""
        xp = self.xp
        return float(xp.sum(self.ridge * xp.sum(xp.astype(X, xp.float64) ** 2, axis=1)))


@dataclass(frozen=True, repr=False)
class ImplicitResult(Result):
    """Scores ``row_factors @ col_factors^T`` of all cells; iterates over the two factors.

    Attributes
    ----------
    row_factors : array, shape (m, rank)
        A row without a positive interaction has zeros.
    col_factors : array, shape (n, rank)
        A column without a positive interaction has zeros.
    loss : float
        The objective at these factors.
    score : float
        NDCG at 10 of the interactions held out; NaN where none were.
    score_error : float
        Standard error of `score`, over rows.
    residual : float
        The largest residual of a problem of a row in the last half sweep, relative to its right-hand side and in the
        norm of the preconditioner; 0 for exact solutions.
    history : tuple of float
        The objective after each sweep.
    validation_history : tuple of float
        The score after each sweep.
    n_iter : int
        Sweeps done.
    best_iter : int
        The sweep that this result is from: the last, or with interactions held out that of the best score.
    solver : str
        "cholesky" or "cg".
    status : Status
    confidence : Confidence
        The parameters of the objective, which new rows are folded in with.
    """

    row_factors: Any
    col_factors: Any
    loss: float = math.nan
    score: float = math.nan
    score_error: float = math.nan
    residual: float = math.nan
    history: tuple[float, ...] = ()
    validation_history: tuple[float, ...] = ()
    n_iter: int = 0
    best_iter: int = 0
    solver: str = "cholesky"
    status: Status = Status.CONVERGED
    confidence: Confidence = _PLAIN

    _factors: ClassVar[tuple[str, ...]] = ("row_factors", "col_factors")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the matrix."""
        return int(self.row_factors.shape[0]), int(self.col_factors.shape[0])

    @property
    def rank(self) -> int:
        """Columns of the factors."""
        return int(self.row_factors.shape[1])

    def predict(self, rows: Any, cols: Any) -> Any:
        """The scores of the cells (rows, cols), int arrays of shape (q,); only they are computed.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        xp, (m, n) = array_namespace(self.row_factors), self.shape
        rows, cols = indices_of(rows, "rows", m, self.row_factors), indices_of(cols, "cols", n, self.row_factors)
        rows, cols = xp.broadcast_arrays(rows, cols)
        shape, parts = rows.shape, [self.row_factors[:0, 0]]
        rows, cols = xp.reshape(rows, (-1,)), xp.reshape(cols, (-1,))
        for lo in range(0, int(rows.shape[0]), _PAIRS):
            hi = min(lo + _PAIRS, int(rows.shape[0]))
            left = xp.take(self.row_factors, rows[lo:hi], axis=0)
            pointers = xp.arange(hi - lo + 1, dtype=xp.int64, device=device(left))
            parts.append(kernel("sampled_products", xp)(left, self.col_factors, cols[lo:hi], pointers))
        return xp.reshape(xp.concat(parts), shape)

    def recommend(self, rows: Any, k: int, *, seen: Any = None) -> TopColumns:
        """The k columns of largest score of each row; those of `seen`, a matrix (m, n), are left out.

        `rows` is an array of int, or None for all; see `randla.completion.ranking.recommend`.
        """
        rows = None if rows is None else indices_of(rows, "rows", self.shape[0], self.row_factors)
        seen = None if seen is None else as_observations(seen, name="seen")
        return recommend(self.row_factors, self.col_factors, rows, k, seen=seen)

    def fold_in(self, X: Any) -> Any:
        """The factors of new rows with the interactions X, shape (q, n): the exact minimiser for these columns."""
        return self._folded(X, self.col_factors)

    def fold_in_cols(self, X: Any) -> Any:
        """The factors of new columns with the interactions X, shape (m, q): the exact minimiser for these rows."""
        return self._folded(interactions(X).transposed, self.row_factors)

    def _folded(self, X: Any, V: Any) -> Any:
        observed, xp = interactions(X), array_namespace(V)
        if observed.shape[1] != V.shape[0]:
            raise ValueError(f"X must have {int(V.shape[0])} cells for each, got shape {observed.shape}")
        F, pivots = Side(observed, self.confidence).exact(V, gram(V))
        if not bool(xp.all(pivots > 0)):
            raise ValueError(
                f"reg must be large enough that each problem of a row has a solution, got {self.confidence.reg}"
            )
        return F

    def with_rows(self, rows: Any, X: Any) -> ImplicitResult:
        """The same model where `rows` have the interactions X, shape (q, n); rows beyond the last are appended.

        Nothing else changes: column factors stay, and rows between the last and a new one have zeros.
        """
        new = self._replaced(self.row_factors, rows, self.fold_in(X), "rows")
        return replace(self, row_factors=new, loss=math.nan)

    def with_cols(self, cols: Any, X: Any) -> ImplicitResult:
        """The same model where `cols` have the interactions X, shape (m, q); columns beyond the last are appended."""
        new = self._replaced(self.col_factors, cols, self.fold_in_cols(X), "cols")
        return replace(self, col_factors=new, loss=math.nan)

    def _replaced(self, old: Any, places: Any, new: Any, name: str) -> Any:
        xp = array_namespace(old)
        places = indices_of(places, name, None, old)
        if places.ndim != 1 or places.shape[0] != new.shape[0]:
            raise ValueError(f"{name} must be {int(new.shape[0])} indices, one for each, got shape {places.shape}")
        if places.shape[0] == 0:
            return old
        order = xp.argsort(places)
        ordered = xp.take(places, order)
        if bool(xp.any(ordered[1:] == ordered[:-1])):
            raise ValueError(f"{name} must be distinct, got an index twice")
        size, m = max(int(old.shape[0]), int(ordered[-1]) + 1), int(old.shape[0])
        blank = xp.zeros((size - m, old.shape[1]), dtype=old.dtype, device=device(old))
        whole = xp.concat([old, blank, xp.astype(new, old.dtype)])
        every = xp.arange(size, dtype=xp.int64, device=device(old))
        spots = xp.searchsorted(ordered, every)
        spots = xp.where(spots < ordered.shape[0], spots, xp.zeros_like(spots))
        source = xp.where(xp.take(ordered, spots) == every, size + xp.take(order, spots), every)
        return xp.take(whole, source, axis=0)

    def similar_rows(self, rows: Any, k: int) -> TopColumns:
        """The k rows whose factors have the largest cosine with those of each of `rows`, itself left out."""
        return _similar(self.row_factors, rows, k, "rows")

    def similar_cols(self, cols: Any, k: int) -> TopColumns:
        """The k columns whose factors have the largest cosine with those of each of `cols`, itself left out."""
        return _similar(self.col_factors, cols, k, "cols")


def _similar(F: Any, places: Any, k: int, name: str) -> TopColumns:
    xp = array_namespace(F)
    places = xp.reshape(indices_of(places, name, int(F.shape[0]), F), (-1,))
    lengths = xp.linalg.vector_norm(F, axis=1)
    F = F / xp.where(lengths > 0, lengths, xp.ones_like(lengths))[:, None]
    own = xp.take(F, places, axis=0)
    size = int(places.shape[0])
    pointers = xp.arange(size + 1, dtype=xp.int64, device=device(F))
    itself = Observations(xp.ones(size, dtype=F.dtype, device=device(F)), places, pointers, (size, int(F.shape[0])))
    return recommend(own, F, None, k, seen=itself)
