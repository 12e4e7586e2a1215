"""A truncated singular value decomposition that follows a table which grows, changes and fades."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together, floating_dtype, is_complex, is_sparse
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from ..lowrank.orthonormal import core_svd
from ..lowrank.results import LowRankResult
from .factors import VANISHED, GrowingFactor, middle
from .ledger import Ledger
from .pairs import METHODS, Batch, Residual, as_batch, residual
from .queries import Queries

_REBASE_EVERY = 10_000  # updates: far beyond any growth of the core that was seen, and rare enough to cost nothing
#: Departure of a factor from orthonormal columns that is repaired, in the small core.
_DRIFT = {"float64": 1e-13, "float32": 1e-8}


class UpdatableSVD(Queries):
    """Keep a truncated singular value decomposition of a table that grows by rows and columns, changes, and fades.

    The table A (m, n) is never stored, only ``A ~ U @ diag(s) @ Vh`` with at most `rank` singular values.  An update
    gives what the Rayleigh-Ritz update of Zha and Simon gives; its cost depends on the entries of the update and the
    rank, not on m and n: with u touched columns, s new rows and ``z`` entries it is
    O(z rank + u s (rank + s) + u rank^2 + (rank + s)^3).

    Parameters
    ----------
    rank : int, rank >= 1
        Singular values that are kept.  As long as the table has fewer rows or columns there are fewer.
    method : {"exact", "gkl", "rpi"}, default "exact"
        How the part of an update outside the present space is found: all of it ("exact"), or its `n_directions` main
        directions by Golub-Kahan-Lanczos ("gkl") or randomized power iteration ("rpi"), which cost less where an
        update has many rows.
    n_directions : int, default 10
        Directions that "gkl" and "rpi" take up per update, or more while the rank is not reached; an update with fewer
        rows is exact.
    n_power_iter : int, default 3
        Rounds of "rpi".
    rebase_condition : float, default 1e2, rebase_condition >= 1
        Condition number of a small factor beyond which it is multiplied into the large one, which costs a sweep.  The
        columns stay orthonormal to about eps times its square.
    rng : None, int, SeedSequence, Generator or Key
        Source of the starts of "gkl" and "rpi"; "exact" draws nothing.

    Attributes
    ----------
    s : array, shape (current rank,), float64
        Singular values, descending.
    shape : tuple of two int
        Rows and columns of the table so far.
    n_updates, n_rebases : int
        Updates done, and sweeps over a whole factor among them.
    truncation_energy : float
        Sum of the squares of all singular values that were cut off.
    error_bound : float
        Upper bound of ``||A - U S Vh||_F``; see the notes.
    error_kind : str
        "exact" where the bound is the error itself up to rounding, else "bound".

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range or of the wrong type.

    See Also
    --------
    randla.svd : the decomposition of a table that is all there; `UpdatableSVD.from_svd` goes on from it.

    Notes
    -----
    The factors are kept as ``U = Uo Ku`` and ``V = Vo Kv`` with small Ku, Kv.  A vector orthogonal to V is a pair
    (b, c) meaning ``b - V c`` with b on the touched rows, and such pairs are orthonormalised by Gram matrices
    ``B^T B - C^T C`` in double precision, twice.

    *Error.*  An update that appends cuts singular values d off.  If only rows were appended (or only columns), the new
    and the old residuals are orthogonal: the squared error is the sum of the squares cut off, exactly.  After a
    mixture of updates the triangle inequality is left: the errors of the steps add.  What "gkl" and "rpi" leave out,
    and directions below the cut of the orthonormalisation (1e-14 of the squared norm of a row in double precision,
    1e-6 in single), is added as the norm of a perturbation of the table.  The bound leaves rounding aside.

    Deviations from [1]_: (1) block Gram-Schmidt by Cholesky or eigenvalues with a relative cut, in place of a loop
    with an absolute one, (2) the Gram matrices of Uo and Vo are kept up to date at the touched rows, so that lost
    orthogonality is seen and repaired in the small factors at no cost in m or n, (3) the small factor is multiplied in
    by its condition number and every 10,000 updates, (4) rows can be removed and weights can fade.

    References
    ----------
    .. [1] Deng et al., "Fast updating truncated SVD for representation learning with sparse matrices", ICLR 2024,
       arXiv:2401.09703.
    .. [2] Zha and Simon, "On updating problems in latent semantic indexing", SIAM J. Sci. Comput. 21, 1999.
    .. [3] Vecharynski and Saad, "Fast updating algorithms for latent semantic indexing", SIAM J. Matrix Anal. 35, 2014.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from randla.updating import UpdatableSVD
    >>> A = sp.random_array((300, 2000), density=0.01, rng=0, format="csr")
    >>> model = UpdatableSVD(20)
    >>> for start in range(0, 300, 50):
    ...     model = model.append_rows(A[start : start + 50])
    >>> model.shape, model.s.shape, model.error_kind
    ((300, 2000), (20,), 'exact')
    >>> U, s, Vh = model.to_svd()
    >>> bool(abs(((A - (U * s) @ Vh) ** 2).sum() ** 0.5 / model.error_bound - 1) < 1e-12)
    True
    """

    def __init__(
        self, rank: int, *, method: str = "exact", n_directions: int = 10, n_power_iter: int = 3,
        rebase_condition: float = 1e2, rng: Any = None,
    ) -> None:  # fmt: skip
        self.rank = check_integer(rank, "rank", low=1)
        self.method = check_choice(method, "method", METHODS)
        self.n_directions = check_integer(n_directions, "n_directions", low=1)
        self.n_power_iter = check_integer(n_power_iter, "n_power_iter", low=1)
        self.rebase_condition = check_real(rebase_condition, "rebase_condition", low=1.0)
        self._key = as_key(rng)
        self.n_updates = self._last_rebase = 0
        self._ledger = Ledger()
        self._left: Any = None
        self._right: Any = None
        self._s: Any = None

    @classmethod
    def from_factors(
        cls, U: Any, s: Any, Vh: Any, *, rank: int | None = None, error: float = 0.0, **options: Any
    ) -> UpdatableSVD:
        """Go on from a decomposition; the factors are copied.

        Parameters
        ----------
        U : array, shape (m, k), float32 or float64
            Orthonormal columns.
        s : array, shape (k,)
            Non-negative, in any order.
        Vh : array, shape (k, n)
            Orthonormal rows.
        rank : int, default k
            Singular values to keep from now on, at least k.
        error : float, default 0.0
            ``||A - U S Vh||_F`` of the table behind, or a bound of it.
        **options
            The other parameters of `UpdatableSVD`.

        Returns
        -------
        UpdatableSVD

        Raises
        ------
        ValueError
            If the shapes do not fit, the factors are not finite, or their columns are not near orthonormal.
        """
        U, Vh = as_matrix(U, name="U", sparse=False), as_matrix(Vh, name="Vh", sparse=False)
        check_together(U, Vh, names=("U", "Vh"))
        xp = array_namespace(U)
        s = xp.asarray(s)
        k = int(U.shape[1])
        if s.shape != (k,) or Vh.shape[0] != k:
            raise ValueError(
                f"U, s and Vh must have shapes (m, k), (k,), (k, n), got {tuple(U.shape)}, {tuple(s.shape)}, "
                f"{tuple(Vh.shape)}"
            )
        if is_complex(U.dtype) or is_complex(Vh.dtype):
            raise ValueError(f"U and Vh must be real, got {U.dtype} and {Vh.dtype}")
        if not bool(xp.all(xp.isfinite(s))) or bool(xp.any(s < 0)):
            raise ValueError("s must be finite and non-negative, got other values")
        model = cls(max(k, 1) if rank is None else check_integer(rank, "rank", low=max(k, 1)), **options)
        error = check_real(error, "error", low=0.0)
        model._begin(U.shape[0], Vh.shape[1], floating_dtype(U, xp), U)
        model._left.start(U)
        model._right.start(Vh.mT)
        for name, factor in (("U", model._left), ("Vh", model._right)):
            if not factor.drift() < 1e-2:  # columns that are not meant to be orthonormal at all; NaN lands here too
                raise ValueError(f"{name} must be orthonormal, got a departure of {factor.drift():.2g}; pass an SVD")
        model._settle(model._left.orthonormalize(), xp.astype(s, xp.float64), model._right.orthonormalize())
        squares = float(xp.sum(model.s**2))
        model._ledger = Ledger(cut_off=error, squares=squares, known=error == 0.0, grew="mixed" if error > 0.0 else "")
        return model

    @classmethod
    def from_svd(cls, result: LowRankResult, *, rank: int | None = None, **options: Any) -> UpdatableSVD:
        """Go on from the result of `randla.svd`, whose Frobenius error bound is taken over.

        Parameters
        ----------
        result : LowRankResult
            Not of a centred table.  Its factors are copied.
        rank : int, default that of the result
            Singular values to keep from now on.
        **options
            The other parameters of `UpdatableSVD`.

        Returns
        -------
        UpdatableSVD

        Raises
        ------
        ValueError
            If the result belongs to a centred table, or its error is in the spectral norm.
        """
        if result.mean is not None:
            raise ValueError("result must be of a table that was not centred, got one with a mean; use center=False")
        if result.error_norm != "frobenius":
            raise ValueError(f'result must have error_norm="frobenius", got {result.error_norm!r}')
        bound = result.error if result.confidence == 1.0 else result.error_bound
        error = bound * result.norm
        model = cls.from_factors(result.U, result.s, result.Vh, rank=rank, error=error, **options)
        model._ledger.squares, model._ledger.known = float(result.norm) ** 2, True
        return model

    def append_rows(self, E: Any) -> UpdatableSVD:
        """Append rows to the table.

        Parameters
        ----------
        E : array or CSR matrix, shape (s, n), real
            New rows.  A CSR matrix is never densified beyond the columns that it touches; a dense array touches all.

        Returns
        -------
        self : UpdatableSVD

        Raises
        ------
        TypeError, ValueError
            If E is not numeric, has the wrong width, is complex or not finite; the model is then unchanged.
        """
        batch = as_batch(E, "E", self.shape[1] if self._left is not None else None)
        self._ready(batch, rows=0, columns=batch.shape[1])
        self._append(batch, self._left, self._right, "rows")
        return self

    def append_columns(self, E: Any) -> UpdatableSVD:
        """Append columns to the table; columns of zeros, for words not yet seen, cost nothing.

        Parameters
        ----------
        E : array or CSC matrix, shape (m, s), real
            New columns; CSR is converted.

        Returns
        -------
        self : UpdatableSVD

        Raises
        ------
        TypeError, ValueError
            As in `append_rows`.
        """
        batch = as_batch(E, "E", self.shape[0] if self._left is not None else None, columns=True)
        self._ready(batch, rows=batch.shape[1], columns=0)
        self._append(batch, self._right, self._left, "columns")
        return self

    def rank_update(self, D: Any, E: Any) -> UpdatableSVD:
        """Change the table to ``A + D @ E.T``.

        Parameters
        ----------
        D : array or CSC matrix, shape (m, s), real
        E : array or CSC matrix, shape (n, s), real
            Sparse ones touch the rows and columns in which they have entries.

        Returns
        -------
        self : UpdatableSVD

        Raises
        ------
        TypeError, ValueError
            As in `append_rows`, or if D and E have different numbers of columns, or if nothing was appended yet.
        """
        self._check_begun()
        m, n = self.shape
        first, second = as_batch(D, "D", m, columns=True), as_batch(E, "E", n, columns=True)
        if first.shape[0] != second.shape[0]:
            raise ValueError(f"D and E must have equally many columns, got {first.shape[0]} and {second.shape[0]}")
        check_together(self.s, first.like, names=("the model", "D"))
        check_together(self.s, second.like, names=("the model", "E"))
        xp = self._left.xp
        left, right = self._residual(self._left, first, "left"), self._residual(self._right, second, "right")
        r = int(self._s.shape[0])
        inner = xp.matmul(xp.concat([left.spill, left.R], axis=0), xp.concat([right.spill, right.R], axis=0).mT)
        inner[:r, :r] = inner[:r, :r] + self._left.eye(r) * self._s[None, :]
        cut = self._absorb(inner, left, right)
        lost = math.sqrt(left.lost * second.squares) + math.sqrt(first.squares * right.lost)
        self._ledger.changed(cut, lost)
        return self

    def add_sparse(self, change: Any) -> UpdatableSVD:
        """Change the table to ``A + change``, where `change` has entries in few rows or in few columns.

        Parameters
        ----------
        change : CSR or CSC matrix, shape (m, n), real
            Cost as of a `rank_update` with as many columns as `change` touches rows or columns, whichever are fewer.

        Returns
        -------
        self : UpdatableSVD

        Raises
        ------
        TypeError, ValueError
            As in `rank_update`, or if `change` is dense.
        """
        self._check_begun()
        if not is_sparse(change):
            raise TypeError(f"change must be a sparse matrix, got {type(change).__name__}; or call rank_update(D, E)")
        if tuple(change.shape) != self.shape:
            raise ValueError(f"change must have shape {self.shape}, got {tuple(change.shape)}")
        by_rows, by_columns = as_batch(change, "change", None), as_batch(change, "change", None, columns=True)
        xp, turned = by_rows.xp, by_rows.where.shape[0] < by_columns.where.shape[0]
        few = by_rows.where if turned else by_columns.where
        kind = type(change.tocsc())
        ones, starts = xp.ones(few.shape[0], dtype=xp.float64), xp.arange(few.shape[0] + 1)
        chosen = kind((ones, few, starts), shape=(self.shape[1 if turned else 0], few.shape[0]))
        if turned:
            return self.rank_update(change.tocsc()[:, few], chosen)
        return self.rank_update(chosen, change.tocsr()[few, :].T)

    def decay(self, weight: float) -> UpdatableSVD:
        """Multiply the table by a weight, so that what comes later counts more.

        Parameters
        ----------
        weight : float, 0 < weight <= 1

        Returns
        -------
        self : UpdatableSVD
        """
        weight = check_real(weight, "weight", low=0.0, high=1.0, closed="right")
        if self._s is not None:
            self._s = self._s * weight
        self._ledger.faded(weight)
        return self

    def remove_rows(self, rows: Any) -> UpdatableSVD:
        """Set rows of the table to zero; the rows keep their numbers.

        The decomposition is that of the present approximation without these rows, whose error is at most the present
        one.  Cost O(count rank^2 + rank^3), and a sweep over the factors where a direction all but vanishes.

        Parameters
        ----------
        rows : int or array of int
            Numbers of rows, each in [0, m).

        Returns
        -------
        self : UpdatableSVD

        Raises
        ------
        TypeError, ValueError
            If a number is no integer, or out of range.
        """
        return self._remove(rows, "rows")

    def remove_columns(self, columns: Any) -> UpdatableSVD:
        """Set columns of the table to zero; as `remove_rows`."""
        return self._remove(columns, "columns")

    def rebase(self) -> UpdatableSVD:
        """Multiply the small factors into the large ones: a sweep over both, done by itself when it is due."""
        self._check_begun()
        for factor in (self._left, self._right):
            factor.rebase()
        self._last_rebase = self.n_updates
        self._repair()
        return self

    # --- the body of an update ----------------------------------------------------------------------------------------

    def _begin(self, m: int, n: int, dtype: Any, like: Any) -> None:
        """An empty decomposition (m, n) beside the array `like`."""
        for size, side in ((m, "_left"), (n, "_right")):
            setattr(self, side, GrowingFactor(size, self.rank, dtype, like, self.rebase_condition))
        self._s = self._left.xp.zeros((0,), dtype=self._left.xp.float64, device=self._left.device)

    def _ready(self, batch: Batch, *, rows: int, columns: int) -> None:
        """Begin with the first update, and check the place of each later one."""
        if self._left is None:
            self._begin(rows, columns, batch.dtype, batch.like)
        check_together(self._s, batch.like, names=("the model", "E"))

    def _residual(self, factor: GrowingFactor, batch: Batch, side: str) -> Residual:
        def key() -> Key:
            return self._key.fold(self.n_updates).fold(side)

        width = max(self.n_directions, self.rank - int(self._s.shape[0]))  # there is room for so many
        return residual(factor, batch, self.method, width, self.n_power_iter, key)

    def _append(self, batch: Batch, grown: GrowingFactor, other: GrowingFactor, how: str) -> None:
        """New rows of `grown`, whose entries meet the rows of `other`."""
        count = batch.shape[0]
        if batch.squares == 0.0:
            grown.grow(count)
            self.n_updates += 1
            self._ledger.appended(how, 0.0, 0.0, 0.0)
            return
        xp, r = batch.xp, int(self._s.shape[0])
        new = self._residual(other, batch, "right")
        p = int(new.R.shape[0])
        inner = xp.zeros((r + count, r + p), dtype=xp.float64, device=grown.device)
        inner[:r, :r] = grown.eye(r) * self._s[None, :]
        inner[r:, :r], inner[r:, r:] = new.spill.mT, new.R.mT
        cut = self._absorb(inner if how == "rows" else inner.mT, *((None, new) if how == "rows" else (new, None)))
        self._ledger.appended(how, batch.squares, cut, new.lost)

    def _absorb(self, inner: Any, left: Residual | None, right: Residual | None) -> float:
        """Step 4 of [1]_: decompose the inner matrix and move both factors; returns the squares cut off.

        A side without residual gets new rows instead.  Nothing is changed before all is worked out.
        """
        xp, r = self._left.xp, int(self._s.shape[0])
        F, t, Gh = core_svd(inner)
        k = min(self.rank, int(t.shape[0]))
        G = Gh[:k, :].mT
        # singular vectors keep their sense from update to update
        sense = xp.ones((k,), dtype=xp.float64, device=self._left.device)
        q = min(r, k)
        sense[:q] = xp.where(xp.linalg.diagonal(G[:q, :q]) < 0, -sense[:q], sense[:q])
        moves = []
        for factor, basis, side in ((self._left, F[:, :k] * sense, left), (self._right, G * sense, right)):
            head, tail = basis[:r, :], basis[r:, :]
            if side is None:
                moves.append(factor.plan(head, "below", tail))
            else:
                moves.append(factor.plan(head - xp.matmul(side.C, tail), side.where, side.lift(tail)))
        for factor, move in zip((self._left, self._right), moves, strict=True):
            factor.commit(move)
        self._s = t[:k]
        self.n_updates += 1
        if self.n_updates - self._last_rebase >= _REBASE_EVERY:
            self.rebase()
        else:
            self._repair()
        return float(xp.sum(t[k:] ** 2))

    def _repair(self) -> None:
        """Restore orthogonality in the small factors where it has drifted."""
        xp = self._left.xp
        limit = _DRIFT["float32" if self._left.dtype == xp.float32 else "float64"]
        if max(self._left.drift(), self._right.drift()) > limit:
            self._settle(self._left.orthonormalize(), self._s, self._right.orthonormalize())

    def _settle(self, R: Any, s: Any, T: Any) -> None:
        """Make ``U R diag(s) T^T V^T`` a singular value decomposition again; U and V are orthonormal."""
        F, t, G = middle(R, s, T)
        for factor, turn in ((self._left, F), (self._right, G)):
            if turn.shape[0] == turn.shape[1]:
                factor.turn(turn, turn.mT)
            else:
                factor.shrink(turn)
        self._s = t

    def _remove(self, numbers: Any, name: str) -> UpdatableSVD:
        self._check_begun()
        factor, size = (self._left, self.shape[0]) if name == "rows" else (self._right, self.shape[1])
        where, _ = self._numbers(numbers, name, size)
        where = self._left.xp.unique_values(where)
        if where.shape[0]:
            factor.clear(where)
            before = self._s
            eye = self._left.eye(int(self._s.shape[0]))
            R = factor.orthonormalize()
            self._settle(*((R, self._s, eye) if name == "rows" else (eye, self._s, R)))
            # a direction is given up where less than this is left of it
            gone = max(int(R.shape[1]) - int(R.shape[0]), 0)
            self._ledger.removed(float(before[0]) * math.sqrt(VANISHED * gone))
        self.n_updates += 1
        return self
