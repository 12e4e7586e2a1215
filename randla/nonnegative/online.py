"""Nonnegative factorisation of rows that pass by: sufficient statistics in place of the rows themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device as device_of

from .._blocks import RowBlocks
from .._checks import check_integer, check_real
from .._random import as_key
from .._results import Result, Status
from ..streaming.packing import pack, unpack
from ._matrices import as_nonnegative, gram
from .frobenius import half_step
from .initialization import random_factor

_KIND = b"ONMF"
SMOOTHING = 0.1  # weight of a new batch in the running mean of relative errors
CODE_SWEEPS = 20
PATIENCE = 2  # passes without a lower error, which wavers from pass to pass


@dataclass(frozen=True, repr=False)
class OnlineNMFResult(Result):
    """Parts H of a stream of rows ``X ~ W H``; iterates as ``H,``.

    Attributes
    ----------
    H : array, shape (rank, n)
        Parts, nonnegative.
    error : float
        Running mean of ``||X_b - W_b H||_F / ||X_b||_F`` over batches, each measured before the parts learnt from it:
        an estimate for rows to come.
    error_kind : str
        "running".
    n_rows : int
        Rows that were seen.
    n_batches : int
        Batches that were seen.
    n_passes : int
        Passes over the data that were begun, where the source can be read again.
    status : Status
        CONVERGED if the running error no longer fell, MAX_ITER otherwise.
    """

    H: Any
    error: float
    n_rows: int
    n_batches: int
    n_passes: int = 0
    error_kind: str = "running"
    status: Status = Status.MAX_ITER

    _factors: ClassVar[tuple[str, ...]] = ("H",)


class OnlineNMF:
    """State of a factorisation that learns from batches of rows.

    A batch X_b gets its codes ``W_b = argmin ||X_b - W H||_F`` over W >= 0; then ``A <- f A + W_b.T W_b`` and
    ``B <- f B + W_b.T X_b`` with ``f = forget**(rows of the batch / batch)``, and the parts H take coordinate sweeps
    for these.  Memory O(rank n), whatever the number of rows.

    Parameters
    ----------
    rank : int, rank >= 1
        Number of parts.
    forget : float, default 0.7, 0 < forget <= 1
        Factor on what was seen before, for each `batch` rows; 1 forgets nothing.
    batch : int, default 1024
        Rows for which `forget` is meant.
    n_sweeps : int, default 5
        Sweeps over the parts after each batch.
    rng : None, int, SeedSequence, Generator or Key
        Source of the first parts.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.nonnegative.online import OnlineNMF
    >>> X = np.random.default_rng(0).random((400, 3)) @ np.random.default_rng(1).random((3, 20))
    >>> state = OnlineNMF(3, rng=0)
    >>> for start in range(0, 400, 50):
    ...     state = state.partial(X[start : start + 50])
    >>> state.finalize().H.shape
    (3, 20)
    """

    def __init__(
        self, rank: int, *, forget: float = 0.7, batch: int = 1024, n_sweeps: int = 5, rng: Any = None
    ) -> None:
        self.rank = check_integer(rank, "rank", low=1)
        self.forget = check_real(forget, "forget", low=0.0, high=1.0, closed="right")
        self.batch = check_integer(batch, "batch", low=1)
        self.n_sweeps = check_integer(n_sweeps, "n_sweeps", low=1)
        self.key = as_key(rng)
        self.H: Any = None
        self.A: Any = None
        self.B: Any = None
        self.error, self.n_rows, self.n_batches = math.nan, 0, 0

    def partial(self, X: Any) -> OnlineNMF:
        """Learn from a batch of rows X (b, n), dense or sparse and nonnegative; returns the state.

        Raises
        ------
        ValueError
            If X has another number of columns than the batches before, or negative, NaN or infinite entries.
        """
        data = as_nonnegative(X)
        xp, (b, n) = data.xp, data.shape
        if self.H is not None and int(self.H.shape[1]) != n:
            raise ValueError(f"X must have {int(self.H.shape[1])} columns as the rows before, got {n}")
        if b == 0 or not data.squared_norm > 0:
            self.n_rows += b
            return self
        if self.H is None:
            self._begin(data)
        codes = self._codes(data)
        squares = data.residual_squares(codes, self.H)
        relative = math.sqrt(squares / data.squared_norm)
        self.error = relative if self.n_batches == 0 else (1 - SMOOTHING) * self.error + SMOOTHING * relative
        keep = self.forget ** (b / self.batch)
        self.A = keep * self.A + gram(codes, xp)
        self.B = keep * self.B + xp.astype(data.left(codes), xp.float64)
        self.H = half_step(self.A, xp.astype(self.B, self.H.dtype), self.H, 0.0, 0.0, self.n_sweeps, "hals", xp)
        self._revive(data, codes)
        self.n_rows, self.n_batches = self.n_rows + b, self.n_batches + 1
        return self

    def _begin(self, data: Any) -> None:
        """Parts from rows of the first batch with random weights: of its scale, and near what it holds."""
        xp, (b, n) = data.xp, data.shape
        mixing = random_factor(self.rank, b, data, self.key.fold("online"))
        H = data.left(mixing**8)  # the power makes each part lean on few rows
        root = math.sqrt(data.squared_norm / b) / max(float(xp.max(xp.linalg.vector_norm(H, axis=1))), 1e-300)
        self.H = H * root
        device = device_of(data.like)
        self.A = xp.zeros((self.rank, self.rank), dtype=xp.float64, device=device)
        self.B = xp.zeros((self.rank, n), dtype=xp.float64, device=device)

    def _codes(self, data: Any) -> Any:
        """W.T (rank, b) for the rows of a batch."""
        xp = data.xp
        zeros = xp.zeros((self.rank, data.shape[0]), dtype=data.dtype, device=device_of(data.like))
        H = xp.astype(self.H, data.dtype, copy=False)
        G, right = gram(H, xp), data.right(H)
        diagonal = xp.astype(xp.linalg.diagonal(G), data.dtype)
        guess = right / xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal))[:, None] / self.rank
        start = xp.where(guess > 0, guess, zeros)
        return half_step(G, right, start, 0.0, 0.0, CODE_SWEEPS, "hals", xp)

    def _revive(self, data: Any, codes: Any) -> None:
        """A part that has become zero begins anew as the row that is approximated worst."""
        xp = data.xp
        sizes = xp.linalg.vector_norm(self.H, axis=1)
        for k in [k for k in range(self.rank) if not float(sizes[k]) > 0]:
            turned = as_nonnegative(data.source.T if hasattr(data.source, "T") else data.source)
            j = int(xp.argmax(turned.column_squares - xp.sum(codes * data.right(self.H), axis=0)))
            self.H[k, :] = turned.column(j)
            self.A[k, :], self.A[:, k], self.B[k, :] = 0.0, 0.0, 0.0
            self.A[k, k] = 1.0
            self.B[k, :] = xp.astype(self.H[k, :], xp.float64)

    def transform(self, X: Any) -> Any:
        """Codes W (b, rank) of rows by the parts as they are now.

        Raises
        ------
        ValueError
            If nothing was learnt yet, or X does not fit.
        """
        if self.H is None:
            raise ValueError("state must have seen a batch, got none; call partial first")
        data = as_nonnegative(X)
        if data.shape[1] != int(self.H.shape[1]):
            raise ValueError(f"X must have {int(self.H.shape[1])} columns, got {data.shape[1]}")
        return data.xp.asarray(self._codes(data).T, copy=True)

    def finalize(self, *, n_passes: int = 0, settled: bool = False) -> OnlineNMFResult:
        """Return the parts with the running error."""
        if self.H is None and self.n_rows:
            raise ValueError(f"rows must have a positive entry, got zeros only in {self.n_rows} rows")
        if self.H is None:
            raise ValueError("state must have seen a batch, got none; call partial first")
        status = Status.CONVERGED if settled else Status.MAX_ITER
        return OnlineNMFResult(self.H, self.error, self.n_rows, self.n_batches, n_passes, status=status)

    def to_bytes(self) -> bytes:
        """The state as bytes, which `from_bytes` restores exactly; no pickle."""
        integers = (self.rank, self.batch, self.n_sweeps, self.key.lo, self.key.hi, self.n_rows, self.n_batches)
        arrays = [] if self.H is None else [self.H, self.A, self.B]
        return pack(_KIND, integers, (self.forget, self.error), arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> OnlineNMF:
        """Restore a state, on the host.

        Raises
        ------
        ValueError
            If the bytes are no such state, or were changed.
        """
        from .._random import Key

        fields = unpack(data, _KIND, (7, 2))
        rank, batch, n_sweeps, lo, hi, n_rows, n_batches = fields.integers
        state = cls(rank, forget=fields.reals[0], batch=batch, n_sweeps=n_sweeps, rng=Key(lo, hi))
        state.error, state.n_rows, state.n_batches = fields.reals[1], n_rows, n_batches
        if fields.arrays:
            state.H, state.A, state.B = (np.array(A) for A in fields.arrays)
        return state


def minibatch_nmf(
    rows: RowBlocks, rank: int, *, n_passes: int = 5, tol: float = 1e-3, forget: float = 0.7, batch: int = 1024,
    n_sweeps: int = 5, rng: Any = None,
) -> OnlineNMFResult:  # fmt: skip
    """Learn the parts of a matrix that is read block by block, from files larger than memory.

    Passes end when two in a row have not brought the running error below the least one by more than `tol` of it.

    Parameters
    ----------
    rows : RowBlocks
        Source of blocks of rows, dense or CSR, nonnegative.
    rank : int, rank >= 1
    n_passes : int, default 5
        Passes over the data at most.
    tol : float, default 1e-3
        Relative fall of the running error that counts as one.
    forget, batch, n_sweeps
        As of `OnlineNMF`.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    OnlineNMFResult
        ``H`` (rank, n); its `error` is an estimate for the last rows read.

    Raises
    ------
    TypeError
        If `rows` is no `RowBlocks`.
    ValueError
        If a parameter is out of range, or a block has negative, NaN or infinite entries.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import RowBlocks, minibatch_nmf
    >>> X = np.random.default_rng(0).random((400, 3)) @ np.random.default_rng(1).random((3, 20))
    >>> minibatch_nmf(RowBlocks.from_array(X, block_bytes=8000), 3, rng=0).H.shape
    (3, 20)
    """
    if not isinstance(rows, RowBlocks):
        raise TypeError(f"rows must be RowBlocks, got {type(rows).__name__}; wrap arrays by RowBlocks.from_array")
    n_passes, tol = check_integer(n_passes, "n_passes", low=1), check_real(tol, "tol", low=0.0)
    state = OnlineNMF(rank, forget=forget, batch=batch, n_sweeps=n_sweeps, rng=rng)
    least, stale, done = math.inf, 0, 0
    while done < n_passes and stale < PATIENCE:
        for _, block in rows:
            state.partial(block)
        stale = 0 if state.error < (1 - tol) * least else stale + 1
        least, done = min(least, state.error), done + 1
    settled = stale >= PATIENCE
    return state.finalize(n_passes=done, settled=settled)
