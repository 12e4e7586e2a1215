"""A sample of rows from a stream: one pass, any order of blocks, and samplers that merge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together, is_complex, is_sparse, namespace_of
from .._checks import check_integer
from .._random import Key, as_key
from .rows import RowSelection, check_p, checked_scores, conditional_probabilities, smallest, taken, uniforms


class StreamingRowSampler:
    """Sample of rows that arrive in blocks, in one pass; samplers of the parts of a matrix merge.

    Keeps the `n_samples` rows of smallest rank ``u_i / q_i``, where the uniform u_i is a function of the key and of the
    global index i, and q_i is the score of the row.  With given scores the result is that of
    ``sample_rows(scores, n_samples, method="priority", rng=rng)``, whatever the blocks, their order and the machines
    that saw them.  Without scores each row gets its online leverage score: with respect to the rows that this sampler
    saw up to the end of its block, never below its leverage score in the end.

    Parameters
    ----------
    n_samples : int, n_samples >= 1
        Rows to keep.
    p : float, p >= 1, default 2
        Norm that the weights of the rows are for.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Samplers that are to be merged need equal keys.

    Attributes
    ----------
    n_samples : int
    p : float
    key : Key
    n_rows : int
        Rows seen.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of range.

    Notes
    -----
    Memory: n_samples + 1 rows, and n x n numbers for online scores.  A row that is not kept can never return, so
    merging loses nothing.  Online leverage scores add up to ``O(n log(condition of A))``, so more rows are needed than
    with the scores themselves, by a logarithm [1]_; unlike all else here they depend on the blocks and their order.

    References
    ----------
    .. [1] Cohen, Musco and Pachocki, "Online row sampling", APPROX 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import StreamingRowSampler, sample_rows
    >>> A = np.random.default_rng(0).standard_normal((1000, 3))
    >>> scores = np.sum(A * A, axis=1)
    >>> first, second = StreamingRowSampler(50, rng=0), StreamingRowSampler(50, rng=0)
    >>> first = first.partial_fit(A[:300], scores[:300], start=0)
    >>> second = second.partial_fit(A[300:], scores[300:], start=300)
    >>> streamed = first.merge(second).finalize()
    >>> bool(np.all(streamed.indices == sample_rows(scores, 50, method="priority", rng=0).indices))
    True
    >>> streamed.apply().shape
    (50, 3)
    """

    def __init__(self, n_samples: int, *, p: float = 2.0, rng: Any = None) -> None:
        self.n_samples = check_integer(n_samples, "n_samples", low=1)
        self.p = check_p(p)
        self.key = as_key(rng)
        self._seen: list[tuple[int, int]] = []
        self._kept: _Candidates | None = None
        self._online: bool | None = None
        self._gram: Any = None

    @property
    def n_rows(self) -> int:
        """Rows seen so far."""
        return sum(stop - start for start, stop in self._seen)

    def __repr__(self) -> str:
        return f"StreamingRowSampler({self.n_samples}, p={self.p:g}, rng={self.key}): {self.n_rows} rows seen"

    def partial_fit(self, block: Any, scores: Any = None, start: int | None = None) -> StreamingRowSampler:
        """Take in the rows ``start, start + 1, ...`` of the matrix.

        Parameters
        ----------
        block : array, CSR or CSC matrix, shape (b, n)
            The rows.
        scores : array, shape (b,), optional
            Their scores, finite and nonnegative; without them online leverage scores are computed.  All blocks come
            with scores, or none.
        start : int, optional
            Global index of the first of them; by default the one after the largest seen.

        Returns
        -------
        self : StreamingRowSampler

        Raises
        ------
        ValueError
            If rows were seen before, shapes do not fit, or only some blocks come with scores.
        """
        block = as_matrix(block, name="block")
        height, width = block.shape
        start = max((stop for _, stop in self._seen), default=0) if start is None else start
        start = check_integer(start, "start", low=0)
        if self._kept is not None:
            check_together(self._kept.ranks, block, names=("the sampler", "block"))
            if width != self._kept.rows.shape[1]:
                raise ValueError(f"block must have {self._kept.rows.shape[1]} columns, got {width}")
        if self._online not in (None, scores is None):
            raise ValueError("scores must be given for all blocks or for none, got both kinds")
        seen = _joined([*self._seen, (start, start + height)])
        if scores is None:
            gram, q = _online_scores(block, self._gram)
        else:
            gram, q = None, checked_scores(scores)
            check_together(q, block, names=("scores", "block"))
            if q.shape[0] != height:
                raise ValueError(f"scores must have shape ({height},), got {tuple(q.shape)}")
        fresh = _Candidates.of(block, q, start, self.key).best(self.n_samples + 1)
        # what may still be refused comes before any change
        kept = fresh if self._kept is None else self._kept.join(fresh).best(self.n_samples + 1)
        self._seen, self._online, self._gram, self._kept = seen, scores is None, gram, kept
        return self

    def merge(self, other: StreamingRowSampler) -> StreamingRowSampler:
        """Take in all that another sampler of the same key saw; it is left as it is.

        Raises
        ------
        TypeError
            If `other` is no sampler.
        ValueError
            If its key, n_samples or p differs, if both saw a row, or if one had scores and the other had none.
        """
        if not isinstance(other, StreamingRowSampler):
            raise TypeError(f"other must be a StreamingRowSampler, got {type(other).__name__}")
        for name in ("key", "n_samples", "p"):
            mine, yours = getattr(self, name), getattr(other, name)
            if mine != yours:
                raise ValueError(f"other must have {name}={mine!r} to be merged, got {yours!r}")
        if other._kept is None:
            return self
        if self._online not in (None, other._online):
            raise ValueError("other must have scores of the same kind to be merged, got online and given ones")
        if self._kept is not None:
            check_together(self._kept.ranks, other._kept.ranks, names=("the sampler", "other"))
            if self._kept.rows.shape[1] != other._kept.rows.shape[1]:
                raise ValueError(f"other must have {self._kept.rows.shape[1]} columns, got {other._kept.rows.shape[1]}")
        seen = _joined([*self._seen, *other._seen])
        kept = other._kept if self._kept is None else self._kept.join(other._kept).best(self.n_samples + 1)
        self._seen, self._online, self._kept = seen, other._online, kept
        self._gram = other._gram if self._gram is None else self._gram + other._gram
        return self

    def finalize(self) -> RowSelection:
        """Return the sample of what was seen so far; more may be taken in afterwards.

        Returns
        -------
        RowSelection
            With the kept `rows`, so that ``apply()`` needs no matrix; indices are global, and `n_rows` is one more
            than the largest index that was seen.

        Raises
        ------
        ValueError
            If no block was taken in.
        """
        if self._kept is None:
            raise ValueError("finalize must come after a block, got none; call partial_fit first")
        kept, tau = smallest(self._kept.ranks, self._kept.indices, self.n_samples)
        best = self._kept.at(kept)
        return RowSelection(
            best.indices, conditional_probabilities(best.scores, tau), self.p, max(stop for _, stop in self._seen),
            float(best.indices.shape[0]), math.isinf(tau), best.rows,
        )  # fmt: skip


@dataclass(frozen=True)
class _Candidates:
    """Rows that may still be in the sample."""

    ranks: Any
    scores: Any
    indices: Any
    rows: Any

    @classmethod
    def of(cls, block: Any, q: Any, start: int, key: Key) -> _Candidates:
        xp = array_namespace(q)
        ranks = uniforms(key, start, start + q.shape[0], q) / xp.where(q > 0, q, xp.ones_like(q))
        indices = xp.arange(start, start + q.shape[0], dtype=xp.int64, device=q.device)
        found = cls(ranks, q, indices, block.tocsr() if is_sparse(block) else block)
        return found.at(xp.nonzero(q > 0)[0])

    def at(self, positions: Any) -> _Candidates:
        xp = array_namespace(self.ranks)
        ranks, scores, indices = (xp.take(v, positions, axis=0) for v in (self.ranks, self.scores, self.indices))
        return _Candidates(ranks, scores, indices, taken(self.rows, positions))

    def best(self, k: int) -> _Candidates:
        return self.at(smallest(self.ranks, self.indices, k)[0]) if self.ranks.shape[0] > k else self

    def join(self, other: _Candidates) -> _Candidates:
        xp = array_namespace(self.ranks)
        if is_sparse(self.rows) != is_sparse(other.rows):
            raise ValueError("blocks must be all sparse or all dense, got both kinds")
        return _Candidates(
            xp.concat((self.ranks, other.ranks)), xp.concat((self.scores, other.scores)),
            xp.concat((self.indices, other.indices)), _stacked(self.rows, other.rows, xp),
        )  # fmt: skip


def _stacked(first: Any, second: Any, xp: Any) -> Any:
    if not is_sparse(first):
        return xp.concat((first, second))
    parts = [xp.concat((getattr(first, name), getattr(second, name))) for name in ("data", "indices")]
    indptr = xp.concat((first.indptr, second.indptr[1:] + first.indptr[-1]))
    return type(first)((*parts, indptr), shape=(first.shape[0] + second.shape[0], first.shape[1]))


def _joined(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint intervals of rows, neighbours made one, so that a stream in order is remembered as one interval."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if found and start < found[-1][1]:
            raise ValueError(f"rows must be seen once, got rows {start} to {min(stop, found[-1][1]) - 1} again")
        if found and start == found[-1][1]:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _online_scores(block: Any, gram: Any) -> tuple[Any, Any]:
    """The Gram matrix of all rows with those of `block`, and the leverage scores of `block` with respect to it."""
    xp = namespace_of(block)
    if is_complex(block.dtype):
        raise ValueError(f"block must be real, got {block.dtype}")
    wide = block.astype("float64") if is_sparse(block) else xp.astype(block, xp.float64)
    squares = wide.T @ wide
    squares = squares.toarray() if is_sparse(squares) else squares
    gram = squares if gram is None else gram + squares
    if not bool(xp.all(xp.isfinite(gram))):
        raise ValueError("block must be finite, got NaN, infinity or squares that overflow")
    length = xp.sqrt(xp.linalg.diagonal(gram))
    length = xp.where(length > 0, length, xp.ones_like(length))
    values, V = xp.linalg.eigh(gram / (length[:, None] * length[None, :]))
    # columns outside the range of what was seen have eigenvalues at rounding level: not in the pseudo-inverse
    known = values > xp.max(values) * (values.shape[0] * 2.0**-50)
    inverse = xp.where(known, 1.0 / xp.sqrt(xp.where(known, values, xp.ones_like(values))), xp.zeros_like(values))
    Y = wide @ ((V / length[:, None]) * inverse[None, :])
    return gram, xp.minimum(xp.vecdot(Y, Y), xp.ones(Y.shape[0], dtype=Y.dtype, device=Y.device))
