"""What can be asked of a decomposition that is kept up to date."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from .._arrays import as_matrix, check_together, from_host, is_complex, is_sparse, to_host
from .._checks import check_integer
from .._results import Status
from ..linear_maps import block_matmul
from ..lowrank.results import LowRankResult, phases, signed
from .factors import GrowingFactor
from .ledger import Ledger


class Queries:
    """The questions, and the state that answers them."""

    n_updates: int
    _left: Any  # GrowingFactor, or None before the first update
    _right: Any
    _s: Any
    _ledger: Ledger

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the table so far."""
        return (0, 0) if self._left is None else (self._left.n_rows, self._right.n_rows)

    @property
    def n_rebases(self) -> int:
        """Sweeps over a whole factor so far."""
        return 0 if self._left is None else self._left.n_sweeps + self._right.n_sweeps

    @property
    def s(self) -> Any:
        """Singular values, descending, shape (current rank,), float64; None before anything was appended."""
        return self._s

    @property
    def error_bound(self) -> float:
        """Upper bound of ``||A - U S Vh||_F``, rounding apart."""
        return self._ledger.bound

    @property
    def error_kind(self) -> str:
        """Whether `error_bound` is the error itself up to rounding ("exact") or not ("bound")."""
        return self._ledger.kind

    @property
    def truncation_energy(self) -> float:
        """Sum of the squares of all singular values that were cut off."""
        return self._ledger.energy

    @property
    def norm(self) -> float:
        """``||A||_F``; after changes in place and removals a lower bound."""
        return self._ledger.norm(0.0 if self._s is None else float(self._left.xp.sum(self._s**2)) ** 0.5)

    def row_embedding(self, i: Any) -> Any:
        """Rows of U, shape (rank,) for one number, (count, rank) for several; times `s` they are rows of A V."""
        return self._embedding(self._left, i, "i", self.shape[0])

    def col_embedding(self, j: Any) -> Any:
        """Rows of V, shape (rank,) for one number, (count, rank) for several."""
        return self._embedding(self._right, j, "j", self.shape[1])

    def entries(self, i: Any, j: Any) -> Any:
        """Entries (i[t], j[t]) of the approximation, shape (count,)."""
        xp = self._namespace()
        left, right = self.row_embedding(i), self.col_embedding(j)
        return xp.sum(left * self._s * right, axis=-1)

    def project(self, X: Any) -> Any:
        """Coordinates ``X @ V`` of rows in the space of the right singular vectors.

        Parameters
        ----------
        X : array, CSR or CSC matrix, shape (count, n), real

        Returns
        -------
        array, shape (count, rank), in the dtype of the model
        """
        xp = self._namespace()
        X, factor = as_matrix(X, name="X"), self._right
        if X.shape[1] != self.shape[1]:
            raise ValueError(f"X must have {self.shape[1]} columns, got shape {tuple(X.shape)}")
        if is_complex(X.dtype):
            raise ValueError(f"X must be real, got {X.dtype}")
        check_together(self._s, X, names=("the model", "X"))
        if X.dtype != factor.dtype:
            X = X.astype(factor.dtype) if is_sparse(X) else xp.astype(X, factor.dtype)
        table = xp.asarray(factor.table(), copy=True) if factor.rank < factor.width else factor.table()
        return xp.matmul(block_matmul(X, table), xp.astype(factor.core, factor.dtype))

    def to_svd(self, rank: int | None = None) -> LowRankResult:
        """Form the factors: a sweep over both.

        Parameters
        ----------
        rank : int, default the current rank
            Singular values wanted.

        Returns
        -------
        LowRankResult
            With `error` as its `error_bound`, of `error_kind` "exact" or "bound", and `confidence` 1.  The signs are
            those of `randla.svd`; embeddings of one row keep the signs of the updates instead.

        Raises
        ------
        ValueError
            If nothing was appended yet, or `rank` is more than the current rank.
        """
        xp = self._namespace()
        k = self._rank(rank)
        turn = self._left.eye(int(self._s.shape[0]))[:, :k]
        U, Vh = signed(self._left.matrix(turn), self._right.matrix(turn).mT)
        norm, error = self.norm, self.relative_error(k)
        return LowRankResult(
            U, xp.astype(self._s[:k], self._left.dtype), Vh, rank=k, error=error, error_bound=error, confidence=1.0,
            error_kind=self.error_kind, error_norm="frobenius", norm=norm, n_passes=1, n_matvecs=0,
            n_iter=self.n_updates, history=(), status=Status.CONVERGED,
        )  # fmt: skip

    def right_vectors(self, rank: int | None = None) -> Any:
        """Form the right singular vectors as rows, shape (rank, n), with the signs of `to_svd`: a sweep over n rows."""
        k = self._rank(rank)
        Vh = self._right.matrix(self._right.eye(int(self._s.shape[0]))[:, :k]).mT
        return phases(Vh)[:, None] * Vh

    def relative_error(self, rank: int | None = None) -> float:
        """The bound of ``||A - U S Vh||_F / ||A||_F`` after a cut to `rank`; infinite where nothing is known."""
        k, norm = self._rank(rank), self.norm
        bound = self._ledger.of_rank(float(self._left.xp.sum(self._s[k:] ** 2)))
        return bound / norm if norm > 0 else (0.0 if bound == 0 else math.inf)

    def _rank(self, rank: int | None) -> int:
        self._check_begun()
        have = int(self._s.shape[0])
        return have if rank is None else check_integer(rank, "rank", low=0, high=have)

    def __repr__(self) -> str:
        m, n = self.shape
        return (
            f"UpdatableSVD({m} x {n}, rank={0 if self._s is None else self._s.shape[0]}, n_updates={self.n_updates}, "
            f"error_bound={self.error_bound:.3g}, error_kind={self.error_kind!r})"
        )

    def _check_begun(self) -> None:
        if self._left is None:
            raise ValueError("the model must have rows or columns first, got none; call append_rows")

    def _namespace(self) -> Any:
        self._check_begun()
        return self._left.xp

    def _embedding(self, factor: GrowingFactor, numbers: Any, name: str, size: int) -> Any:
        self._check_begun()
        where, single = self._numbers(numbers, name, size)
        rows = factor.xp.astype(factor.rows(where), factor.dtype, copy=False)
        return rows[0, :] if single else rows

    def _numbers(self, numbers: Any, name: str, size: int) -> tuple[Any, bool]:
        """Row numbers as an array, and whether there was one without brackets."""
        xp = self._left.xp
        table = numbers if is_array_api_obj(numbers) else np.asarray(numbers)
        if array_namespace(table) is not xp:
            table = from_host(to_host(table), xp, self._s)
        if not (xp.isdtype(table.dtype, "integral") or table.size == 0) or table.ndim > 1:
            raise TypeError(f"{name} must be an integer or a 1-D array of integers, got {numbers!r}")
        table = xp.astype(table, xp.int64)
        single, table = table.ndim == 0, xp.reshape(table, (-1,))
        if table.shape[0] and (int(xp.min(table)) < 0 or int(xp.max(table)) >= size):
            raise ValueError(f"{name} must be in [0, {size - 1}], got {int(xp.min(table))} to {int(xp.max(table))}")
        return table, single
