"""One side of an updatable decomposition: orthonormal columns as a tall table of rows times a small core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_cupy_namespace, is_numpy_namespace, is_torch_namespace
from array_api_compat import device as device_of

from .._arrays import eps
from ..lowrank.orthonormal import core_svd
from ..triangular import cholesky

_BLOCK_ENTRIES = 2**18  # entries of a block of rows: what one pass over the table keeps in cache
#: Share of the squared length below which a direction that is left of a column is rounding.
VANISHED = 64 * eps("float64")
_LEAST_ROWS = 64  # room of an empty table


class Move(NamedTuple):
    """What an update does to one side, worked out before anything is changed.

    `turn` is None, or what the whole table has to be multiplied with: then `core` is the identity again.
    """

    core: Any
    inverse: Any
    where: Any
    change: Any
    turn: Any


class GrowingFactor:
    """A matrix with orthonormal columns, kept as ``table[:n_rows, :rank] @ core``.

    A rotation of the columns changes the core alone, new rows go to the end of a table that doubles when it is full,
    and an update of a few rows touches those rows.  The Gram matrix of the table is kept beside it, in double
    precision, from the same few rows: it tells how orthonormal the columns are without a look at the others.

    Attributes
    ----------
    n_rows, rank : int
        Shape of the matrix.
    core, inverse, gram : array, shape (rank, rank), float64
        The small factor, its inverse, and ``table.T @ table``.
    n_sweeps, n_copied : int
        Times that the whole table was multiplied, and rows that this and growing have copied; all else is local.
    """

    def __init__(self, n_rows: int, width: int, dtype: Any, like: Any, limit: float) -> None:
        xp = array_namespace(like)
        self.limit = limit  # condition number of the core beyond which it is multiplied into the table
        self.xp, self.device, self.dtype, self.width = xp, device_of(like), dtype, width
        self.n_rows, self.rank, self.n_sweeps, self.n_copied = n_rows, 0, 0, 0
        self._table = self._zeros(max(n_rows, _LEAST_ROWS), width, dtype)
        self.core = self.inverse = self.gram = self._eye = self._zeros(0, 0, xp.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "xp"}  # modules are not pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.xp = array_namespace(self.core)

    def eye(self, size: int) -> Any:
        """The identity; the last one is kept."""
        if self._eye.shape[0] != size:
            self._eye = self.xp.eye(size, dtype=self.xp.float64, device=self.device)
        return self._eye

    def start(self, rows: Any) -> None:
        """Take a copy of a matrix with near orthonormal columns."""
        self.n_rows, self.rank = int(rows.shape[0]), int(rows.shape[1])
        self._table = self._zeros(max(self.n_rows, _LEAST_ROWS), self.width, self.dtype)
        self._table[: self.n_rows, : self.rank] = self.xp.astype(rows, self.dtype)
        self._reset_core()

    def rows(self, where: Any) -> Any:
        """Rows of the matrix, shape (count, rank), float64."""
        return self.xp.matmul(self.raw(where), self.core)

    def raw(self, where: Any) -> Any:
        """Rows of the table, shape (count, rank), float64; all of them where `where` is None."""
        picked = self._table[: self.n_rows, :] if where is None else self.xp.take(self._table, where, axis=0)
        picked = picked if self.rank == self.width else picked[:, : self.rank]
        return self._double(picked)

    def table(self) -> Any:
        """The table itself, shape (n_rows, rank): a view, in the stored dtype."""
        return self._table[: self.n_rows, : self.rank]

    def matrix(self, turn: Any = None) -> Any:
        """The whole matrix, times `turn` (rank, k) where given, in the stored dtype."""
        core = self.core if turn is None else self.xp.matmul(self.core, turn)
        out = self.xp.empty((self.n_rows, core.shape[1]), dtype=self.dtype, device=self.device)
        for lo, hi in self._blocks():
            block = self._double(self._table[lo:hi, : self.rank])
            out[lo:hi, :] = self._stored(self.xp.matmul(block, core))
        return out

    def plan(self, F: Any, where: Any, rows: Any) -> Move:
        """The move to ``[matrix @ F]`` plus `rows` at `where`, or below the last row where `where` is "below"."""
        xp = self.xp
        turn = core = xp.matmul(self.core, F)
        if F.shape[1] > self.rank:  # the new columns of the table are zero so far: any complement serves
            core = xp.concat([core, self._complement(core)], axis=0)
        inverse = _inverse(core)
        if inverse is None or not condition(core, inverse) <= self.limit:
            eye = self.eye(int(F.shape[1]))
            return Move(eye, eye, where, rows, turn)
        return Move(core, inverse, where, xp.matmul(rows, inverse), None)

    def commit(self, move: Move) -> None:
        """Carry out a planned move."""
        xp, rank = self.xp, int(move.core.shape[1])
        if move.turn is not None:
            self._multiply(move.turn)
        elif rank > self.rank:
            gram = self._zeros(rank, rank, xp.float64)
            gram[: self.rank, : self.rank] = self.gram
            self.gram, self.rank = gram, rank
        self.core, self.inverse = move.core, move.inverse
        if isinstance(move.where, str):
            self.reserve(self.n_rows + move.change.shape[0])
            change = self._stored(move.change)
            self._table[self.n_rows : self.n_rows + change.shape[0], :rank] = change
            self.n_rows += int(change.shape[0])
            change = self._double(change)
            gained = xp.matmul(change.mT, change)
        else:
            before = self.raw(move.where)  # a view of the table where it is all of it
            old = xp.matmul(before.mT, before)
            after = self._double(self._stored(before + move.change))
            self._put(move.where, after)
            gained = xp.matmul(after.mT, after) - old
        if move.turn is None:
            self.gram = self.gram + gained
        else:  # the old rows and the change may be large and cancel: nothing is left of a difference of squares
            self.gram = self._table_gram()

    def clear(self, where: Any) -> None:
        """Set rows to zero; the columns are orthonormal no more."""
        before = self.raw(where)
        self.gram = self.gram - self.xp.matmul(before.mT, before)
        self._put(where, self.xp.zeros_like(before))

    def grow(self, count: int) -> None:
        """Add zero rows at the end."""
        self.reserve(self.n_rows + count)
        self.n_rows += count

    def reserve(self, n_rows: int) -> None:
        """Make room for rows; the room at least doubles, so that a row is copied twice on average."""
        have = self._table.shape[0]
        if n_rows > have:
            table = self._zeros(max(n_rows, 2 * have), self.width, self.dtype)
            table[: self.n_rows, :] = self._table[: self.n_rows, :]
            self._table = table
            self.n_copied += self.n_rows

    def turn(self, left: Any, inverse: Any) -> None:
        """Multiply the matrix with a small square matrix from the right, whose inverse is given too."""
        self.core, self.inverse = self.xp.matmul(self.core, left), self.xp.matmul(inverse, self.inverse)

    def product_gram(self) -> Any:
        """``matrix.T @ matrix``, the identity up to rounding."""
        xp = self.xp
        return xp.matmul(self.core.mT, xp.matmul(self.gram, self.core))

    def drift(self) -> float:
        """Largest entry of ``matrix.T @ matrix - I``."""
        if self.rank == 0:
            return 0.0
        return float(self.xp.max(self.xp.abs(self.product_gram() - self.eye(self.rank))))

    def condition(self) -> float:
        """Condition number of the core, as `condition` counts it."""
        return condition(self.core, self.inverse)

    def orthonormalize(self) -> Any:
        """Make the columns orthonormal again; return R with ``before = after @ R``, shape (rank after, rank).

        Fewer columns come back where some have vanished.
        """
        xp = self.xp
        if self.rank == 0:
            return self.core
        R = cholesky(self.product_gram())
        if R is None or self._uncertain(R):
            self.rebase()  # an exact Gram matrix of an explicit matrix
            R = cholesky(self.product_gram())
        if R is not None and not self._uncertain(R):
            self.turn(xp.linalg.inv(R), R)
            return R
        return self._reduce()

    def _uncertain(self, R: Any) -> bool:
        """True if a diagonal entry of the Cholesky factor is so small that its square may be rounding."""
        squares = self.xp.linalg.diagonal(R) ** 2
        return not float(self.xp.min(squares)) > eps(self.xp.float64) ** 0.5

    def _reduce(self) -> Any:
        """The orthonormal columns of a matrix some of whose columns depend on others: two sweeps over the table."""
        xp, total = self.xp, None
        for _ in range(2):  # the second sweep repairs what the first could not see of small directions
            values, W = xp.linalg.eigh(self.product_gram())
            keep = xp.nonzero(values > VANISHED)[0]
            W, root = xp.take(W, keep, axis=1), xp.sqrt(xp.take(values, keep))
            self.shrink(W / root[None, :])
            R = root[:, None] * W.mT
            total = R if total is None else xp.matmul(R, total)
            if self.rank == 0:
                break
        return total

    def shrink(self, turn: Any) -> None:
        """Replace the matrix by itself times `turn` (rank, fewer): a sweep over the table."""
        self._multiply(self.xp.matmul(self.core, turn))
        self._reset_core()

    def rebase(self) -> None:
        """Multiply the core into the table: a sweep over it."""
        self._multiply(self.core)
        self._reset_core()

    def _multiply(self, turn: Any) -> None:
        """Replace the table by itself times `turn`, in its own memory; its Gram matrix is left to the caller."""
        xp, rank = self.xp, int(turn.shape[1])
        for lo, hi in self._blocks():
            block = self._double(self._table[lo:hi, : self.rank])
            self._table[lo:hi, :rank] = self._stored(xp.matmul(block, turn))
            self._table[lo:hi, rank:] = 0.0
        self.rank, self.n_sweeps, self.n_copied = rank, self.n_sweeps + 1, self.n_copied + self.n_rows

    def _reset_core(self) -> None:
        self.core = self.inverse = self.eye(self.rank)
        self.gram = self._table_gram()

    def _table_gram(self) -> Any:
        xp = self.xp
        gram = self._zeros(self.rank, self.rank, xp.float64)
        for lo, hi in self._blocks():
            block = self._double(self._table[lo:hi, : self.rank])
            gram = gram + xp.matmul(block.mT, block)
        return gram

    def _complement(self, core: Any) -> Any:
        """Orthonormal rows that complete the rows of `core`, shape (columns - rows, columns)."""
        have, want = core.shape
        if have == 0:
            return self.eye(want)
        Q, _ = self.xp.linalg.qr(core.mT, mode="complete")
        return Q[:, have:].mT

    def _put(self, where: Any, rows: Any) -> None:
        rows = self._stored(rows)
        if where is None:
            self._table[: self.n_rows, : self.rank] = rows
        elif any(is_it(self.xp) for is_it in (is_numpy_namespace, is_cupy_namespace, is_torch_namespace)):
            self._table[where, : self.rank] = rows
        else:  # the array API standard knows no assignment to a list of rows
            for position in range(rows.shape[0]):
                self._table[int(where[position]), : self.rank] = rows[position, :]

    def _double(self, rows: Any) -> Any:
        return rows if rows.dtype == self.xp.float64 else self.xp.astype(rows, self.xp.float64)

    def _stored(self, rows: Any) -> Any:
        return rows if rows.dtype == self.dtype else self.xp.astype(rows, self.dtype)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        step = max(1, _BLOCK_ENTRIES // max(self.width, 1))
        for lo in range(0, self.n_rows, step):
            yield lo, min(lo + step, self.n_rows)

    def _zeros(self, rows: int, columns: int, dtype: Any) -> Any:
        return self.xp.zeros((rows, columns), dtype=dtype, device=self.device)


def condition(core: Any, inverse: Any) -> float:
    """Condition number in the Frobenius norm over the rank: 1 for a rotation, and at most that of the 2-norm."""
    xp, rank = array_namespace(core), core.shape[0]
    return float(xp.sum(core**2) * xp.sum(inverse**2)) ** 0.5 / rank if rank else 1.0


def _inverse(core: Any) -> Any:
    """The inverse of a small square matrix, or None."""
    xp = array_namespace(core)
    try:
        return xp.linalg.inv(core)
    except (np.linalg.LinAlgError, RuntimeError):  # NumPy and CuPy raise the first, PyTorch a kind of the second
        return None


def middle(left: Any, s: Any, right: Any) -> tuple[Any, Any, Any]:
    """The decomposition of ``left @ diag(s) @ right.T``: left vectors, singular values, right vectors as columns."""
    xp = array_namespace(s)
    F, t, Gh = core_svd(xp.matmul(left * s[None, :], right.mT))
    return F, t, Gh.mT
