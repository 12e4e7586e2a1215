"""Truncated SVD of a matrix that changes: sketches that are linear in it, so every kind of change is one update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .._arrays import (
    as_matrix,
    check_together,
    dtype_name,
    floating_dtype,
    from_host,
    is_complex,
    is_sparse,
    namespace_of,
    real_dtype,
)
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..diagnostics import CONFIDENCE, PROBES, probe_factor
from ..linear_maps import LinearMap, _Blocked, as_linear_map, squared
from ..lowrank.orthonormal import NonfiniteError, adjoint
from ..lowrank.results import LowRankResult, signed
from ..lowrank.three_sketches import SKETCHES, filled, sketches, solve_core
from .entries import Entries
from .packing import consistent, pack, unpack

_KIND = b"SSVD"
_DTYPES = ("", "float32", "float64", "complex64", "complex128")
_NAMES = ("X", "Y", "Z", "E")


class StreamingSVD:
    """Truncated SVD of a matrix known only by a stream of changes to it, from linear sketches, in one view of each.

    The state is three sketches ``X = Upsilon A``, ``Y = A Omega^T``, ``Z = Phi A Psi^T`` and probes ``Theta A``, all
    linear in A: rows, columns, entries, low-rank terms and whole matrices may be added in any order and number, states
    of parts add up, and old data may fade.  A matrix that can be read twice is better served by `svd`; rows that come
    once and in order also by ``svd(blocks, rank, n_passes=1)``, which is this with the exact norm.

    Parameters
    ----------
    shape : tuple of two int
        Shape (m, n) of the matrix.
    rank : int, 1 <= rank <= min(m, n)
        Most terms of the decomposition.
    sketch : {"sparse-sign", "gaussian", "rademacher"}, default "sparse-sign"
        Kind of the sketches.
    co_range : bool, default True
        Keep three sketches; False keeps the two ``Upsilon A`` and ``A Omega^T``, with larger errors at equal memory.
    sketch_size : int, sketch_size > rank, optional
        Rows k of Upsilon and Omega, by default 4 rank + 1; of Omega alone, by default 2 rank + 1, with two sketches.
    core_size : int, core_size >= sketch_size, default 2 sketch_size + 1
        Rows s of Phi and Psi; of Upsilon with two sketches.
    n_probes : int, n_probes >= 1, default 20
        Gaussian rows Theta for the error.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  States that are to be merged need equal keys.

    Attributes
    ----------
    shape : tuple of two int
    rank : int
    key : Key
    n_updates : int
        Changes taken in.
    n_bytes : int
        Memory of the state.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of range.

    Notes
    -----
    Memory: ``(m + n) k + s**2 + n_probes n`` numbers.  The sketches themselves are made from the key at each change and
    never stored.  A dense block costs one read for each sketch; entries cost about 4 k operations each, and the making
    of the columns of the sketches between the first and the last row that changes.

    With k = 4 r + 1 and s = 2 k + 1 Gaussian sketches have an expected squared error below
    ``(s - 1) / (s - k - 1) (k + r - 1) / (k - r - 1)`` times that of the best rank-r matrix before the cut to rank r
    [1]_; about 3.3 times here, and much less in practice where the spectrum falls.  The errors told come from the
    probes, which are independent of the rest: ``||Theta (A - approximation)||_F`` estimates the error, and the worst
    case of its distribution, a residual of rank one, gives the bound with its confidence.

    Deviations from [1]_: (1) sparse sketches by default; (2) a sketch not smaller than its side becomes the identity;
    (3) 20 probes in place of 10, as everywhere in randla.

    References
    ----------
    .. [1] Tropp, Yurtsever, Udell and Cevher, "Streaming low-rank matrix approximation with an application to
       scientific simulation", SIAM J. Sci. Comput. 41 (2019), Algorithms 4.1 to 4.4 and section 6; Theorem 5.1.
    .. [2] Tropp, Yurtsever, Udell and Cevher, "Practical sketching algorithms for low-rank matrix approximation", SIAM
       J. Matrix Anal. Appl. 38 (2017): two sketches.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.streaming import StreamingSVD
    >>> A = np.outer(np.arange(1.0, 301.0), np.ones(80))
    >>> state = StreamingSVD((300, 80), 2, rng=0)
    >>> state = state.update_rows(A[200:], 200).update_rows(A[:200], 0).update_entries([5], [7], [100.0])
    >>> U, s, Vh = state.finalize()
    >>> A[5, 7] += 100.0
    >>> bool(np.allclose(U * s @ Vh, A))
    True
    """

    def __init__(
        self, shape: tuple[int, int], rank: int, *, sketch: str = "sparse-sign", co_range: bool = True,
        sketch_size: int | None = None, core_size: int | None = None, n_probes: int = PROBES, rng: Any = None,
    ) -> None:  # fmt: skip
        try:
            m, n = shape
        except (TypeError, ValueError):
            raise ValueError(f"shape must be two integers, got {shape!r}") from None
        self.shape = (check_integer(m, "shape[0]", low=1), check_integer(n, "shape[1]", low=1))
        self.rank = check_integer(rank, "rank", low=1, high=min(self.shape))
        self.sketch = check_choice(sketch, "sketch", SKETCHES)
        if not isinstance(co_range, bool):
            raise TypeError(f"co_range must be True or False, got {co_range!r}")
        self.co_range = co_range
        size = (4 if co_range else 2) * self.rank + 1 if sketch_size is None else sketch_size
        self.sketch_size = check_integer(size, "sketch_size", low=self.rank + 1)
        core = 2 * self.sketch_size + 1 if core_size is None else core_size
        self.core_size = check_integer(core, "core_size", low=self.sketch_size)
        self.n_probes = check_integer(n_probes, "n_probes", low=1)
        self.key: Key = as_key(rng)
        self.n_updates = 0
        self._sketches = sketches(
            self.sketch_size, self.core_size, *self.shape, self.key, kind=self.sketch, core=co_range,
            n_probes=self.n_probes,
        )  # fmt: skip
        self._X: Any = None
        self._Y: Any = None
        self._Z: Any = None
        self._E: Any = None

    def __repr__(self) -> str:
        return f"StreamingSVD({self.shape}, {self.rank}, rng={self.key}): {self.n_updates} updates"

    @property
    def n_bytes(self) -> int:
        """Memory of the state; 0 before the first change."""
        return sum(A.size * np.dtype(dtype_name(A.dtype)).itemsize for A in self._arrays())

    def _arrays(self) -> tuple[Any, ...]:
        found = (self._X, self._Y, self._Z, self._E)
        return tuple(A for A in found if A is not None)

    # --- changes ------------------------------------------------------------------------------------------------------

    def update_rows(self, block: Any, start: int = 0, *, weight: float = 1.0) -> StreamingSVD:
        """Add ``weight * block`` to the rows ``start, start + 1, ...``.

        Parameters
        ----------
        block : array, CSR or CSC matrix, shape (b, n)
        start : int, default 0
            The first of the rows.
        weight : float, default 1.0

        Returns
        -------
        self : StreamingSVD

        Raises
        ------
        ValueError
            If the block does not fit into the matrix, is complex where the state is real, or lives elsewhere.
        """
        block, weight = as_matrix(block, name="block"), check_real(weight, "weight")
        start = self._fits(block, start, axis=0)
        self._add_rows(self._taken(block, "block"), start, weight)
        return self._changed()

    def update_columns(self, block: Any, start: int = 0, *, weight: float = 1.0) -> StreamingSVD:
        """Add ``weight * block`` to the columns ``start, start + 1, ...``; block of shape (m, b), else as for rows."""
        block, weight = as_matrix(block, name="block"), check_real(weight, "weight")
        start = self._fits(block, start, axis=1)
        block, S = self._taken(block, "block"), self._sketches
        columns = slice(start, start + block.shape[1])
        self._X[:, columns] += _times(weight, S.upsilon.matmul(block))
        self._E[:, columns] += _times(weight, S.theta.matmul(block))
        self._Y += _times(weight, S.omega.rmatmul(block, start=start))
        if S.phi is not None:
            self._Z += _times(weight, S.psi.rmatmul(S.phi.matmul(block), start=start))
        return self._changed()

    def update_entries(self, rows: Any, columns: Any, values: Any, *, weight: float = 1.0) -> StreamingSVD:
        """Add ``weight * values[t]`` to the entry ``(rows[t], columns[t])`` for each t; entries named twice get both.

        Parameters
        ----------
        rows, columns : array of int, shape (t,)
            Places, with values of 0 to m - 1 and 0 to n - 1.
        values : array, shape (t,)
        weight : float, default 1.0

        Returns
        -------
        self : StreamingSVD

        Raises
        ------
        TypeError
            If a place is no integer.
        ValueError
            If a place lies outside the matrix, or the lengths differ.
        """
        weight = check_real(weight, "weight")
        entries = Entries.checked(rows, columns, values, self.shape)
        values = self._taken(entries.values[:, None], "values")[:, 0]
        if values.shape[0] == 0:
            return self._changed()
        entries, S = entries.compact(_times(weight, values)), self._sketches
        at_rows, at_columns = entries.rows, entries.columns
        X = entries.rmatmul(at_rows.of(S.upsilon, values).mT).mT
        E = entries.rmatmul(at_rows.of(S.theta, values).mT).mT
        at_columns.add(self._X, X, axis=1)
        at_columns.add(self._E, E, axis=1)
        at_rows.add(self._Y, entries.matmul(at_columns.of(S.omega, values).mT), axis=0)
        if S.phi is not None:
            xp = namespace_of(values)
            across = entries.matmul(at_columns.of(S.psi, values).mT)
            self._Z += xp.matmul(at_rows.of(S.phi, values), across)
        return self._changed()

    def update_low_rank(self, F: Any, H: Any, *, weight: float = 1.0) -> StreamingSVD:
        """Add ``weight * F @ H^*`` for F of shape (m, p) and H of shape (n, p), or two vectors."""
        weight, pair = check_real(weight, "weight"), []
        for M, name, length in ((F, "F", self.shape[0]), (H, "H", self.shape[1])):
            M = as_matrix(M, name=name, sparse=False, vector=True)
            if M.shape[0] != length:
                raise ValueError(f"{name} must have {length} rows, got shape {tuple(M.shape)}")
            pair.append(M[:, None] if M.ndim == 1 else M)
        if pair[0].shape[1] != pair[1].shape[1]:
            raise ValueError(f"H must have {pair[0].shape[1]} columns as F has, got shape {tuple(pair[1].shape)}")
        check_together(pair[0], pair[1], names=("F", "H"))
        self._start(pair[1] if is_complex(pair[1].dtype) else pair[0])  # the kind of both
        F, H = (self._taken(M, name) for M, name in zip(pair, "FH", strict=True))
        S, xp = self._sketches, namespace_of(F)
        H_star, F = adjoint(H), _times(weight, F)
        self._X += xp.matmul(S.upsilon.matmul(F), H_star)
        self._E += xp.matmul(S.theta.matmul(F), H_star)
        self._Y += xp.matmul(F, S.omega.rmatmul(H_star))
        if S.phi is not None:
            self._Z += xp.matmul(S.phi.matmul(F), S.psi.rmatmul(H_star))
        return self._changed()

    def update(self, A: Any, *, decay: float = 1.0, weight: float = 1.0) -> StreamingSVD:
        """Replace the matrix by ``decay * matrix + weight * A``.

        Parameters
        ----------
        A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
            A linear operator is read four times (three with two sketches), anything else once.
        decay, weight : float, default 1.0

        Returns
        -------
        self : StreamingSVD

        Raises
        ------
        ValueError
            If A has another shape, is complex where the state is real, or lives elsewhere.
        """
        decay, weight = check_real(decay, "decay"), check_real(weight, "weight")
        A = as_linear_map(A)
        if A.shape != self.shape:
            raise ValueError(f"A must have shape {self.shape}, got {A.shape}")
        like = A.xp.zeros((0, 1), dtype=A.dtype, device=A.device)
        self._refuses(like, "A")
        self._start(like)
        if isinstance(A, _Blocked):
            self._scale(decay)
            for start, B in A._blocks():
                self._add_rows(self._taken(B, "A"), start, weight)
        else:
            self._add_operator(A, decay, weight)
        return self._changed()

    def merge(self, other: StreamingSVD, *, decay: float = 1.0, weight: float = 1.0) -> StreamingSVD:
        """Replace the matrix by ``decay * matrix + weight * other's``; `other` is left as it is.

        Raises
        ------
        TypeError
            If `other` is no state of this kind.
        ValueError
            If its shape, sizes, kind of sketch or key differs, or it lives elsewhere.
        """
        if not isinstance(other, StreamingSVD):
            raise TypeError(f"other must be a StreamingSVD, got {type(other).__name__}")
        for name in ("shape", "rank", "sketch", "co_range", "sketch_size", "core_size", "n_probes", "key"):
            mine, yours = getattr(self, name), getattr(other, name)
            if mine != yours:
                raise ValueError(f"other must have {name}={mine!r} to be merged, got {yours!r}")
        decay, weight = check_real(decay, "decay"), check_real(weight, "weight")
        if other is self:
            self._scale(decay + weight)
        elif other._Y is not None:
            self._refuses(other._Y, "other")
            parts = tuple(None if A is None else self._converted(A) for A in (other._X, other._Y, other._Z, other._E))
            parts = tuple(None if A is None else _times(weight, A) for A in parts)
            self._start(parts[1])
            self._scale(decay)
            self._add_parts(*parts)
        elif self._Y is not None:
            self._scale(decay)
        self.n_updates += other.n_updates
        return self

    def _add_rows(self, B: Any, start: int, weight: float) -> None:
        S, rows = self._sketches, slice(start, start + B.shape[0])
        self._X += _times(weight, S.upsilon.matmul(B, start=start))
        self._E += _times(weight, S.theta.matmul(B, start=start))
        self._Y[rows, :] += _times(weight, S.omega.rmatmul(B))
        if S.phi is not None:
            self._Z += _times(weight, S.phi.matmul(S.psi.rmatmul(B), start=start))

    def _add_operator(self, A: LinearMap, decay: float, weight: float) -> None:
        S = self._sketches
        # all products come before any change, so that an operator that fails leaves the state as it was
        X, E, Y = (
            _times(weight, self._converted(M))
            for M in (A.sketch(S.upsilon), A.sketch(S.theta), A.sketch_columns(S.omega))
        )
        Z = None if S.phi is None else _times(weight, S.phi.matmul(self._converted(A.sketch_columns(S.psi))))
        self._scale(decay)
        self._add_parts(X, Y, Z, E)

    def _add_parts(self, X: Any, Y: Any, Z: Any, E: Any) -> None:
        self._X += X
        self._Y += Y
        self._E += E
        if Z is not None:
            self._Z += Z

    def _scale(self, factor: float) -> None:
        if factor != 1.0:
            for A in self._arrays():
                A *= factor

    def _changed(self) -> StreamingSVD:
        self.n_updates += 1
        return self

    # --- checks -------------------------------------------------------------------------------------------------------

    def _fits(self, block: Any, start: int, axis: int) -> int:
        what, other = ("rows", "columns") if axis == 0 else ("columns", "rows")
        if block.shape[1 - axis] != self.shape[1 - axis]:
            raise ValueError(f"block must have {self.shape[1 - axis]} {other}, got shape {tuple(block.shape)}")
        start = check_integer(start, "start", low=0)
        if start + block.shape[axis] > self.shape[axis]:
            raise ValueError(
                f"block must have at most {max(self.shape[axis] - start, 0)} {what} from {start} on to fit into shape "
                f"{self.shape}, got shape {tuple(block.shape)}"
            )
        return start

    def _refuses(self, M: Any, name: str) -> None:
        if self._Y is not None:
            check_together(self._Y, M, names=("the state", name))
            if is_complex(M.dtype) and not is_complex(self._Y.dtype):
                raise ValueError(
                    f"{name} must be real, as what came first was, got {M.dtype}; begin with complex zeros"
                )

    def _taken(self, M: Any, name: str) -> Any:
        """M in the dtype of the state, which is that of the first change."""
        self._refuses(M, name)
        self._start(M)
        return self._converted(M)

    def _converted(self, M: Any) -> Any:
        if self._Y is None or M.dtype == self._Y.dtype:
            return M
        return M.astype(self._Y.dtype) if is_sparse(M) else namespace_of(M).astype(M, self._Y.dtype)

    def _start(self, M: Any) -> None:
        """Zero sketches where and as M is."""
        if self._Y is None:
            xp, (m, n), S = namespace_of(M), self.shape, self._sketches
            options = {"dtype": floating_dtype(M, xp), "device": device_of(M.data if is_sparse(M) else M)}
            self._X = xp.zeros((S.upsilon.sketch_size, n), **options)
            self._Y = xp.zeros((m, S.omega.sketch_size), **options)
            self._E = xp.zeros((self.n_probes, n), **options)
            if S.phi is not None:
                self._Z = xp.zeros((S.phi.sketch_size, S.psi.sketch_size), **options)

    # --- the decomposition --------------------------------------------------------------------------------------------

    @np.errstate(over="ignore", invalid="ignore")  # NaN and infinity end in a status, not in NumPy's warnings
    def finalize(self, rank: int | None = None, *, on_failure: str = "warn") -> LowRankResult:
        """Return the decomposition of the matrix as it is now; more changes may be taken in afterwards.

        Parameters
        ----------
        rank : int, 1 <= rank <= self.rank, optional
            Terms wanted; by default the rank that the state was made for.
        on_failure : {"warn", "raise", "ignore"}, default "warn"
            What to do if the status is not CONVERGED.

        Returns
        -------
        LowRankResult
            With the norm and the errors from the probes; the status is BREAKDOWN where zero would be no worse an
            answer, as happens on flat spectra.

        Raises
        ------
        ValueError
            If nothing was taken in.
        """
        if self._Y is None:
            raise ValueError("finalize must come after a change, got none; call update_rows or another update first")
        rank = self.rank if rank is None else check_integer(rank, "rank", low=1, high=self.rank)
        xp = namespace_of(self._Y)
        try:
            U, s, Vh = solve_core(self._sketches, self._X, self._Y, self._Z, rank)
        except NonfiniteError:
            none = xp.zeros((0,), dtype=real_dtype(self._Y.dtype, xp), device=device_of(self._Y))
            result = self._result(self._Y[:, :0], none, self._X[:0, :], math.nan, math.nan)
            return warn_or_raise(result, on_failure, what="StreamingSVD")
        residual = self._E - xp.matmul(self._sketches.theta.matmul(U) * s[None, :], Vh)
        held = math.sqrt(float(xp.sum(xp.astype(s, xp.float64) ** 2)))
        U, s, Vh = filled(U, s, Vh, rank)
        U, Vh = signed(U, Vh)
        result = self._result(U, s, Vh, math.sqrt(squared(residual, xp)), held)
        return warn_or_raise(result, on_failure, what="StreamingSVD")

    def _result(self, U: Any, s: Any, Vh: Any, error: float, held: float) -> LowRankResult:
        """The result with what the probes say; `held` is the norm of the approximation."""
        norm = math.sqrt(squared(self._E, namespace_of(self._E)))
        relative, bound, status = math.nan, math.inf, Status.NONFINITE
        if norm == 0.0:
            relative, bound, status = 0.0, 0.0, Status.CONVERGED
        elif error < math.inf and norm < math.inf:
            half = (1.0 + CONFIDENCE) / 2.0  # error too low and norm too high share the chance to be wrong
            largest = error * probe_factor(self.n_probes, half)
            least = max(held - largest, norm / _excess_factor(self.n_probes, half))
            relative, bound = error / norm, largest / least
            status = Status.CONVERGED if error < norm else Status.BREAKDOWN
        return LowRankResult(
            U, s, Vh, rank=int(s.shape[0]), error=relative, error_bound=bound, confidence=CONFIDENCE,
            error_kind="sketched", error_norm="frobenius", norm=norm, n_passes=1, n_matvecs=0, n_iter=self.n_updates,
            history=(), status=status,
        )  # fmt: skip

    # --- bytes --------------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The whole state as bytes, with a checksum; the page "Streams" has the format."""
        dtype = "" if self._Y is None else dtype_name(self._Y.dtype)
        integers = (
            *self.shape, self.rank, SKETCHES.index(self.sketch), int(self.co_range), self.sketch_size, self.core_size,
            self.n_probes, self.key.lo, self.key.hi, self.n_updates, _DTYPES.index(dtype),
        )  # fmt: skip
        return pack(_KIND, integers, (), self._arrays())

    @classmethod
    def from_bytes(cls, data: bytes, *, like: Any = None) -> StreamingSVD:
        """Read a state that `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
        like : array, optional
            An array of the library and device where the state shall live; NumPy by default.

        Raises
        ------
        TypeError
            If `data` is not bytes.
        ValueError
            If it is something else, was cut off or altered, or contradicts itself.
        """
        integers, _, arrays, _ = unpack(data, _KIND, (12, 0))
        m, n, rank, kind, co_range, k, s, n_probes, lo, hi, n_updates, dtype = integers
        consistent(kind < len(SKETCHES) and co_range <= 1 and dtype < len(_DTYPES), "known codes")
        consistent(1 <= rank <= min(m, n) and max(m, n) < 2**62 and rank < k <= s <= 2**30, "sizes that fit together")
        consistent(1 <= n_probes <= 2**30 and lo < 2**32 and hi < 2**32, "a key and probes")
        state = cls(
            (m, n), rank, sketch=SKETCHES[kind], co_range=bool(co_range), sketch_size=k, core_size=s,
            n_probes=n_probes, rng=Key(lo, hi),
        )  # fmt: skip
        state.n_updates = n_updates
        if dtype == 0:
            consistent(not arrays, "no arrays before the first change")
            return state
        consistent(len(arrays) == 3 + co_range, "all its sketches")
        consistent(all(A.dtype == _DTYPES[dtype] for A in arrays), "sketches of one dtype")
        S = state._sketches
        shapes = [(S.upsilon.sketch_size, n), (m, S.omega.sketch_size), (n_probes, n)]
        if S.phi is not None:
            shapes.insert(2, (S.phi.sketch_size, S.psi.sketch_size))
        consistent([A.shape for A in arrays] == shapes, "sketches of its sizes")
        xp = namespace_of(arrays[0] if like is None else like)
        moved = [from_host(A, xp, A if like is None else like) for A in arrays]
        names = _NAMES if co_range else ("X", "Y", "E")
        for name, A in zip(names, moved, strict=True):
            setattr(state, f"_{name}", A)
        return state


def _times(weight: float, M: Any) -> Any:
    """``weight * M``, and M itself where that is the same: most changes come with weight 1."""
    return M if weight == 1.0 else weight * M


def _excess_factor(n_probes: int, confidence: float) -> float:
    """Factor by which the estimate of a norm from Gaussian probes must be lowered to bound the norm from below.

    As `probe_factor`, at the other end of the distribution.
    """
    from scipy.special import gammainccinv

    return math.sqrt(2.0 * float(gammainccinv(n_probes / 2.0, 1.0 - confidence)) / n_probes)
