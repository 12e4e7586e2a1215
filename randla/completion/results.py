"""What completion finds: two factors, biases, how far predictions are off, and what is known of each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_cupy_namespace, is_numpy_namespace

from .._arrays import as_matrix, check_together, dtype_name, from_host, to_host
from .._backend import kernel
from .._checks import check_choice, check_integer
from .._results import Result, Status
from ..lowrank.orthonormal import core_svd
from ..streaming.packing import consistent, pack, unpack
from .observations import Observations
from .uncertainty import prediction_std

_KIND = b"CMPL"
_PAIRS = 2**16  # predictions made at a time: their rows of the factors are gathered
_DENSE_BYTES = 2**31  # largest array that `to_dense` makes unasked
ON_UNSEEN = ("mean", "nan", "raise")
LOSSES = ("squared", "huber", "absolute")


@dataclass(frozen=True)
class CompletionStep:
    """What a callback is told after each sweep.

    Attributes
    ----------
    n_iter : int
        Sweeps done.
    objective : float
        The objective that is minimised.
    rmse : float
        Root mean square of the residuals of the entries that are fitted.
    validation_rmse : float
        The same of the entries held out; NaN where none are.
    """

    n_iter: int
    objective: float
    rmse: float
    validation_rmse: float


class Settings(NamedTuple):
    """What a fit minimised: `reg` n**`reg_exponent` is the ridge of a row of n entries, `column` that of the bias.

    `column` is the value of the constant column that stands for a bias, ``sqrt(reg / reg_bias)``; 0 without biases.
    `loss_scale` is the scale of a robust loss.
    """

    reg: float
    reg_exponent: float
    column: float
    loss: str = "squared"
    loss_scale: float = 1.0

    def ridge(self, counts: Any, xp: Any) -> Any:
        """The ridge of rows with `counts` observed entries; float64."""
        return self.reg * xp.astype(counts, xp.float64) ** self.reg_exponent


class Training(NamedTuple):
    """The entries that a fit used, with their weights (nnz,) at the end, or None; kept by reference, not copied.

    `given` are the weights of the caller, to which a robust loss has added its own in `weights`.
    """

    observations: Observations
    weights: Any = None
    given: Any = None


@dataclass(frozen=True, repr=False)
class CompletionResult(Result):
    """A matrix ``mean + row_bias + col_bias^T + row_factors @ col_factors^T``; iterates over the two factors.

    Attributes
    ----------
    row_factors : array, shape (m, rank)
        A row without observed entries has zeros.
    col_factors : array, shape (n, rank)
        A column without observed entries has zeros.
    row_bias : array, shape (m,), or None
        What each row lies above the mean; zero without observed entries.
    col_bias : array, shape (n,), or None
        What each column lies above the mean.
    mean : float
        Added to each prediction.
    error : float
        Root mean square error of the entries held out, or, where none were, of those fitted.
    error_kind : str
        "held-out" or "training".
    error_interval : tuple of two float, or None
        95 % confidence interval of the held-out error, for entries held out at random.
    noise : float
        Estimate of the standard deviation of the entries around the matrix, with the degrees of freedom of the fit
        taken off; NaN where it is not known.
    objective : float
        What was minimised, at this result.
    history : tuple of float
        The objective after each sweep.
    validation_history : tuple of float
        The held-out error after each sweep.
    n_iter : int
        Sweeps done.
    best_iter : int
        The sweep that this result is from: the last, or with entries held out that of the least error.
    status : Status
    row_counts : array of int64, shape (m,), or None
        Observed entries of each row; None where each has some.
    col_counts : array of int64, shape (n,), or None
        Observed entries of each column.
    settings : Settings or None
        Ridge and loss of the fit, which new rows are folded in with.
    training : Training or None
        The entries fitted, which `predict_std` needs; `to_bytes` leaves them out and `attach` brings them back.
    """

    row_factors: Any
    col_factors: Any
    row_bias: Any = None
    col_bias: Any = None
    mean: float = 0.0
    error: float = math.nan
    error_kind: str = "training"
    error_interval: tuple[float, float] | None = None
    noise: float = math.nan
    objective: float = math.nan
    history: tuple[float, ...] = ()
    validation_history: tuple[float, ...] = ()
    n_iter: int = 0
    best_iter: int = 0
    status: Status = Status.CONVERGED
    row_counts: Any = None
    col_counts: Any = None
    settings: Settings | None = None
    training: Training | None = None

    _factors: ClassVar[tuple[str, ...]] = ("row_factors", "col_factors")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the matrix."""
        return int(self.row_factors.shape[0]), int(self.col_factors.shape[0])

    @property
    def rank(self) -> int:
        """Columns of the factors."""
        return int(self.row_factors.shape[1])

    def predict(self, rows: Any, cols: Any, *, on_unseen: str = "mean") -> Any:
        """The entries at (rows, cols), shapes (q,) each; only they are computed.

        Parameters
        ----------
        rows : array of int, shape (q,)
            Or an integer; `rows` and `cols` are broadcast.
        cols : array of int, shape (q,)
        on_unseen : {"mean", "nan", "raise"}, default "mean"
            For a row or column without observed entries: "mean" predicts what is known, the mean and the bias of the
            other side; "nan" predicts NaN; "raise" raises.

        Raises
        ------
        ValueError
            If an index is out of range, or of something unseen with ``on_unseen="raise"``.
        """
        check_choice(on_unseen, "on_unseen", ON_UNSEEN)
        xp = array_namespace(self.row_factors)
        rows, cols, shape = self._pairs(rows, cols)
        parts = [xp.zeros(0, dtype=self.row_factors.dtype, device=device(self.row_factors))]
        for lo in range(0, int(rows.shape[0]), _PAIRS):
            part = slice(lo, min(lo + _PAIRS, int(rows.shape[0])))
            parts.append(self._predicted(rows[part], cols[part], xp))
        values = xp.concat(parts)
        if on_unseen != "mean":
            unseen = self.unseen(rows, cols)
            if on_unseen == "raise" and bool(xp.any(unseen)):
                place = int(xp.argmax(xp.astype(unseen, xp.int8)))
                raise ValueError(
                    f"rows and cols must have observed entries, got row {int(rows[place])}, column {int(cols[place])}, "
                    'one of which has none; pass on_unseen="mean"'
                )
            values = xp.where(unseen, xp.full_like(values, math.nan), values)
        return xp.reshape(values, shape)

    def _predicted(self, rows: Any, cols: Any, xp: Any) -> Any:
        left = xp.take(self.row_factors, rows, axis=0)
        pointers = xp.arange(int(rows.shape[0]) + 1, dtype=xp.int64, device=device(left))
        values = kernel("sampled_products", xp)(left, self.col_factors, cols, pointers) + self.mean
        if self.row_bias is not None:
            values = values + xp.take(self.row_bias, rows)
        return values if self.col_bias is None else values + xp.take(self.col_bias, cols)

    def unseen(self, rows: Any, cols: Any) -> Any:
        """Whether the row or the column of each pair has no observed entry; bool (q,)."""
        xp = array_namespace(self.row_factors)
        rows, cols, shape = self._pairs(rows, cols)
        found = xp.zeros(rows.shape, dtype=xp.bool, device=device(rows))
        for counts, places in ((self.row_counts, rows), (self.col_counts, cols)):
            found = found if counts is None else found | (xp.take(counts, places) == 0)
        return xp.reshape(found, shape)

    def predict_std(self, rows: Any, cols: Any, *, noise: bool = False) -> Any:
        """Standard deviations of predictions, float64 (q,).

        The variance of the entry (i, j) is ``noise**2 (y M_i^-1 y + x M_j^-1 x)``, where M_i is the matrix of the
        least-squares problem that gave the factors x of row i, and y those of column j: what the noise of the entries
        does to either side while the other is held.  The ridge counts as a prior.  A row without observed entries has
        the spread of the factors of the others in place of the first term, a column in place of the second; where
        neither has any, the spread of their products is added.

        It does not know of a rank that is too low, of residuals that depend on each other, of entries that are missing
        for what they are, nor of what the two sides do to each other.  On planted data with the ridge of the true
        prior, intervals of 1.96 of it held 94 % of the true entries where a row has 15 entries for each of its
        unknowns, 92 % with 6, and 88 % with 3.

        Parameters
        ----------
        rows : array of int, shape (q,)
        cols : array of int, shape (q,)
        noise : bool, default False
            Whether to add the noise of a single observation, for intervals of observations to come.

        Raises
        ------
        ValueError
            If the observed entries are not there (see `attach`), or an index is out of range.
        """
        rows, cols, shape = self._pairs(rows, cols)
        return array_namespace(rows).reshape(prediction_std(self, rows, cols, noise), shape)

    def _pairs(self, rows: Any, cols: Any) -> tuple[Any, Any, tuple[int, ...]]:
        """Flat int64 indices on the device of the factors, and the shape that they had."""
        xp = array_namespace(self.row_factors)
        checked = []
        for places, name, size in ((rows, "rows", self.shape[0]), (cols, "cols", self.shape[1])):
            places = _indices(places, name, self.row_factors, xp)
            if places.shape and 0 in places.shape:
                checked.append(places)
                continue
            low, high = int(xp.min(places)), int(xp.max(places))
            if low < 0 or high >= size:
                raise ValueError(f"{name} must be in [0, {size - 1}], got {low if low < 0 else high}")
            checked.append(places)
        rows, cols = xp.broadcast_arrays(*checked)
        shape = tuple(int(side) for side in rows.shape)
        return xp.reshape(rows, (-1,)), xp.reshape(cols, (-1,)), shape

    def matmul(self, X: Any) -> Any:
        """The matrix times X, shape (n,) or (n, j), without forming it."""
        return self._product(X, "X", self.row_factors, self.col_factors, self.row_bias, self.col_bias)

    def rmatmul(self, Y: Any) -> Any:
        """The transpose of the matrix times Y, shape (m,) or (m, j)."""
        return self._product(Y, "Y", self.col_factors, self.row_factors, self.col_bias, self.row_bias)

    def _product(self, X: Any, name: str, left: Any, right: Any, left_bias: Any, right_bias: Any) -> Any:
        X = as_matrix(X, name=name, sparse=False, vector=True)
        check_together(left, X, names=("the result", name))
        if X.shape[0] != right.shape[0]:
            raise ValueError(f"{name} must have {int(right.shape[0])} rows, got shape {tuple(X.shape)}")
        xp, columns = array_namespace(left), X[:, None] if X.ndim == 1 else X
        columns = xp.astype(columns, left.dtype, copy=False)
        sums = xp.sum(columns, axis=0)[None, :]
        Y = xp.matmul(left, xp.matmul(right.mT, columns)) + self.mean * sums
        Y = Y if left_bias is None else Y + left_bias[:, None] * sums
        Y = Y if right_bias is None else Y + xp.matmul(right_bias[None, :], columns)
        return Y[:, 0] if X.ndim == 1 else Y

    def to_dense(self, *, max_bytes: int = _DENSE_BYTES) -> Any:
        """The matrix as an array (m, n).

        Raises
        ------
        ValueError
            If it would take more than `max_bytes` of memory, 2 GiB by default.
        """
        xp, (m, n) = array_namespace(self.row_factors), self.shape
        size = m * n * (4 if dtype_name(self.row_factors.dtype) == "float32" else 8)
        if size > check_integer(max_bytes, "max_bytes", low=0):
            raise ValueError(f"max_bytes must be at least {size} for {m} x {n} entries, got {max_bytes}; use predict")
        D = xp.matmul(self.row_factors, self.col_factors.mT) + self.mean
        D = D if self.row_bias is None else D + self.row_bias[:, None]
        return D if self.col_bias is None else D + self.col_bias[None, :]

    def singular_values(self) -> Any:
        """Singular values of ``row_factors @ col_factors^T``, descending, by two thin QR factorisations; float64."""
        xp = array_namespace(self.row_factors)
        R, T = (xp.linalg.qr(xp.astype(F, xp.float64))[1] for F in (self.row_factors, self.col_factors))
        return core_svd(xp.matmul(R, T.mT))[1]

    def attach(self, observations: Observations, weights: Any = None) -> CompletionResult:
        """The same result with the entries that it was fitted to; see `as_observations`."""
        if observations.shape != self.shape:
            raise ValueError(f"observations must have shape {self.shape}, got {observations.shape}")
        return replace(self, training=Training(observations, weights))

    def to_bytes(self) -> bytes:
        """The result as bytes, with a checksum and without the entries that it was fitted to."""
        optional = (self.row_bias, self.col_bias, self.row_counts, self.col_counts)
        present = sum((part is not None) << bit for bit, part in enumerate(optional))
        present |= (self.error_interval is not None) << 4 | (self.settings is not None) << 5
        settings = self.settings or Settings(0.0, 0.0, 0.0)
        words = "\n".join((self.status.name, self.error_kind, settings.loss)).encode()
        low, high = self.error_interval or (math.nan, math.nan)
        reals = (
            self.mean, self.error, low, high, self.noise, self.objective,
            settings.reg, settings.reg_exponent, settings.column, settings.loss_scale,
        )  # fmt: skip
        arrays = [self.row_factors, self.col_factors]
        arrays += [np.asarray(part, np.float64)[None, :] for part in (self.history, self.validation_history)]
        arrays += [_as_row(part) for part in optional if part is not None]
        return pack(_KIND, (self.n_iter, self.best_iter, present, len(words)), reals, arrays, words)

    @staticmethod
    def from_bytes(data: bytes) -> CompletionResult:
        """Read a result that `to_bytes` wrote; its arrays are NumPy's.

        Raises
        ------
        TypeError
            If `data` is not bytes.
        ValueError
            If it is something else, was cut off or altered, or contradicts itself.
        """
        (n_iter, best_iter, present, _), reals, arrays, words = unpack(data, _KIND, (4, 10), nested=True)
        names = words.decode().split("\n")
        consistent(present < 64 and len(arrays) == 4 + (present & 15).bit_count(), "the arrays that it names")
        consistent(len(names) == 3 and names[0] in Status.__members__ and names[2] in LOSSES, "known words")
        (m, k), (n, other) = arrays[0].shape, arrays[1].shape
        consistent(k == other and arrays[0].dtype == arrays[1].dtype, "factors that fit together")
        optional = _optional(iter(arrays[4:]), present)
        for bit, part in enumerate(optional):
            consistent(part is None or part.shape == ((m, n)[bit % 2],), "vectors that fit the factors")
        mean, error, low, high, noise, objective, reg, exponent, column, scale = reals
        counts = [None if part is None else part.astype(np.int64) for part in optional[2:]]
        return CompletionResult(
            arrays[0], arrays[1], optional[0], optional[1], mean, error, names[1],
            (low, high) if present & 16 else None, noise, objective, tuple(arrays[2].ravel().tolist()),
            tuple(arrays[3].ravel().tolist()), n_iter, best_iter, Status[names[0]], counts[0], counts[1],
            Settings(reg, exponent, column, names[2], scale) if present & 32 else None,
        )  # fmt: skip


def _as_row(part: Any) -> np.ndarray:
    """A vector as a matrix of one row; counts as doubles, which hold them exactly below 2**53."""
    host = to_host(part)[None, :]
    return host if host.dtype in (np.float32, np.float64) else host.astype(np.float64)


def _optional(arrays: Iterator[np.ndarray], present: int) -> list[np.ndarray | None]:
    return [next(arrays).ravel() if present >> bit & 1 else None for bit in range(4)]


def _indices(places: Any, name: str, like: Any, xp: Any) -> Any:
    """Integers as int64 on the device of `like`."""
    own = hasattr(places, "dtype") and array_namespace(places) is xp if not np.isscalar(places) else False
    if not own or is_numpy_namespace(xp):
        host = np.asarray(to_host(places) if hasattr(places, "__array_namespace__") else places)
        if host.dtype.kind not in "iu" and host.size:
            raise TypeError(f"{name} must be integers, got {host.dtype}; convert them first")
        return from_host(np.asarray(host, np.int64), xp, like)
    if not xp.isdtype(places.dtype, "integral"):
        raise TypeError(f"{name} must be integers, got {places.dtype}; convert them first")
    moved = places if is_cupy_namespace(xp) else xp.asarray(places, device=device(like))
    return xp.astype(moved, xp.int64)
