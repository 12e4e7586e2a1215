"""Second moments of rows observed in part: sums over the entries that rows have together, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, dtype_name, is_sparse, namespace_of
from .._backend import kernel
from .._blocks import RowBlocks
from .._checks import check_choice, check_integer
from .._random import as_key
from ..sampling.selection import shared_uniforms, tuned
from ..streaming.packing import consistent, pack, unpack
from .observations import Observations, as_observations
from .pair_tables import DenseTable, Pattern, Run, SparseTable, all_within, dense_by_default

_KIND = b"PMOM"
_PAIRS = 2**21  # pairs of entries that a call of the kernel goes through: 50 MiB of results at most, but for wide rows
_ROWS = 2**18  # rows of a block, where they have few pairs
_BLOCK_ENTRIES = 2**20  # entries of a dense block in double precision
_FULL = 8  # a table that has more than one in so many entries is multiplied as a dense one
_KEY = as_key(0).fold("groups of pair moments")
STORAGES = ("auto", "sparse", "dense")


@dataclass(frozen=True, eq=False)
class PairStatistics:
    """Means of products of pairs of columns, and of squares of columns, with the counts of rows behind them."""

    pattern: Pattern | None
    counts: Any  # float64 (p,) or (d, d) with a diagonal of zeros
    means: Any  # (p,) or (d, d)
    column_counts: Any  # float64 (d,)
    column_means: Any  # (d,)


class PairMoments:
    """Sums of products ``x_a x_b`` over the rows that observe both columns, and how many there are.

    What is known of ``X^T X / m`` of a table X of which each row holds a few entries: two are enough.  Rows come in
    blocks of any size and order; states of different rows add up.  Only pairs that occur are stored.

    Parameters
    ----------
    n_features : int, n_features >= 1
        Columns d of each block.
    storage : {"auto", "sparse", "dense"}, default "auto"
        "sparse": 24 bytes for each pair and group of rows in which it occurs; "dense": ``16 n_groups d**2`` bytes.
        "auto" is dense up to 362 columns with 8 groups, and for arrays that are neither NumPy's nor CuPy's.
    center : bool, default False
        Keep the sums that make the products those of ``x - mean``, with the means of all rows that came in: 16 bytes
        more for each pair and group.
    weighted : bool, default False
        Take probabilities of observation with each block: 8 bytes more.
    n_groups : int, default 8
        Groups into which rows are divided at random, from which the error of a fit is estimated: 1 or an even number
        of 4 or more.

    Attributes
    ----------
    n_features, storage, center, weighted, n_groups
        As given; `storage` is decided at the first block.
    n_rows : int
        Rows seen, those without entries too.
    n_pairs : int
        Pairs of different columns that were seen together.
    mean : array, shape (d,)
        Means of the observed entries of each column, weighted where the state is; 0 where none was observed.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of range.

    Notes
    -----
    The group of a row depends on its number in the stream only, so that blocks may come in any order if each is given
    its `start`.  Counts are exact; sums are in double precision whatever the data are, and depend on the blocks by
    rounding.  With `center`, digits are lost where means are large beside deviations: subtract a constant first.

    With a propensity p an entry counts 1/p for its column and a pair counts ``1 / (p_a p_b)``, which is right where
    entries of a row are observed independently of each other and of their values.  Entries that are observed together
    or not at all, or because of their values, are not corrected by it.

    Cost: ``sum_i n_i**2 / 2`` additions for rows with n_i entries; a row with n_i entries stores up to as many pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import PairMoments
    >>> X = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, 5.0], [1.0, 4.0, np.nan]])
    >>> whole = PairMoments(3).update(X)
    >>> parts = PairMoments(3).update(X[:1]).merge(PairMoments(3).update(X[1:]))
    >>> whole.n_rows, whole.n_pairs, parts.n_pairs
    (3, 2, 2)
    >>> means, counts = whole.matrices()
    >>> means.round(2).tolist(), counts.tolist()
    ([[3.67, 3.0, 15.0], [3.0, 10.0, 0.0], [15.0, 0.0, 25.0]], [[3, 2, 1], [2, 2, 0], [1, 0, 1]])
    """

    def __init__(
        self, n_features: int, *, storage: str = "auto", center: bool = False, weighted: bool = False, n_groups: int = 8
    ) -> None:
        self.n_features = check_integer(n_features, "n_features", low=1, high=2**28, remedy="keys have 64 bits")
        self.storage = check_choice(storage, "storage", STORAGES)
        for value, name in ((center, "center"), (weighted, "weighted")):
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        self.center, self.weighted = bool(center), bool(weighted)
        self.n_groups = check_integer(n_groups, "n_groups", low=1, high=64)
        if self.n_groups == 2 or (self.n_groups > 1 and self.n_groups % 2):
            raise ValueError(f"n_groups must be 1 or an even number of at least 4, got {self.n_groups}")
        self.n_rows = 0
        self.dtype = "float32"  # that of results: float64 from the first block on that has more digits
        self._table: Any = None
        self.column_counts: Any = None  # int64 (g, d)
        self._column_sums: Any = None  # float64 (3, g, d): of weights, weighted values and weighted squares

    def __repr__(self) -> str:
        options = "".join(f", {name}=True" for name in ("center", "weighted") if getattr(self, name))
        return f"PairMoments({self.n_features}{options}): {self.n_rows} rows, storage={self.storage!r}"

    @property
    def _width(self) -> int:
        """Sums of a pair a < b: of products, of weights, of weighted values of a and of b."""
        return 1 + self.weighted + 2 * self.center

    # --- taking rows in -----------------------------------------------------------------------------------------------

    def update(self, X: Any, *, propensity: Any = None, start: int | None = None) -> PairMoments:
        """Take in a block of rows.

        Parameters
        ----------
        X : CSR or CSC matrix, or array with NaN, shape (n_rows, n_features); or RowBlocks
            What a sparse matrix stores was observed, zeros included; of an array all that is not NaN.
        propensity : array or sparse matrix, shape (n_rows, n_features) or (n_rows, 1), optional
            Probabilities with which the entries were observed, with `weighted` only; those of entries that were not
            are not read.  One for each column would cancel.
        start : int, optional
            Number of the first row in the whole; the rows seen so far by default.

        Returns
        -------
        self : PairMoments

        Raises
        ------
        ValueError
            If the block is not finite, stores an entry twice, or has another width or library than those before; if
            propensities are missing, not wanted, or not in (0, 1].
        """
        if isinstance(X, RowBlocks):
            first = 0 if start is None else check_integer(start, "start", low=0)
            offset = self.n_rows if start is None else first
            for at, block in X:
                part = None if propensity is None else propensity[at : at + int(block.shape[0])]
                self.update(block, propensity=part, start=offset + at)
            return self
        start = self.n_rows if start is None else check_integer(start, "start", low=0)
        seen = as_observations(X)
        if seen.shape[1] != self.n_features:
            raise ValueError(f"X must have {self.n_features} columns, got shape {seen.shape}")
        if self._table is not None:
            check_together(self._column_sums, seen.data, names=("earlier blocks", "X"))
        A = None if tuned(seen.xp) else as_matrix(X, name="X")
        weights = self._weights(seen, A, propensity)
        self._begin(seen.xp, device_of(seen.data))
        if self.storage == "dense" and (not tuned(seen.xp) or _FULL * seen.nnz > seen.shape[0] * seen.shape[1]):
            self._add_dense(seen, A, weights, start)
        else:
            self._add_sparse(seen, weights, start)
        self.n_rows += seen.shape[0]
        self.dtype = "float64" if dtype_name(seen.data.dtype) == "float64" else self.dtype
        return self

    def merge(self, other: PairMoments) -> PairMoments:
        """Take in all rows that another state saw; it is left as it is.

        Raises
        ------
        TypeError
            If `other` is no state of this kind.
        ValueError
            If it was made with other parameters, or lives elsewhere.
        """
        if not isinstance(other, PairMoments):
            raise TypeError(f"other must be a PairMoments, got {type(other).__name__}")
        for name in ("n_features", "center", "weighted", "n_groups"):
            mine, yours = getattr(self, name), getattr(other, name)
            if mine != yours:
                raise ValueError(f"other must have {name}={mine!r} to be merged, got {yours!r}")
        if other._table is None:
            return self
        if self._table is None:
            if self.storage not in ("auto", other.storage):
                raise ValueError(f"other must have storage={self.storage!r} to be merged, got {other.storage!r}")
            self.storage = other.storage
            self._begin(array_namespace(other._column_sums), device_of(other._column_sums))
        check_together(self._column_sums, other._column_sums, names=("this state", "other"))
        if self._table.sparse != other._table.sparse:
            raise ValueError(f"other must have storage={self.storage!r} to be merged, got {other.storage!r}")
        self._table.merge(other._table)
        self.column_counts = self.column_counts + other.column_counts
        self._column_sums = self._column_sums + other._column_sums
        self.n_rows += other.n_rows
        self.dtype = "float64" if other.dtype == "float64" else self.dtype
        return self

    def _begin(self, xp: Any, place: Any) -> None:
        if self._table is not None:
            return
        if self.storage == "auto":
            self.storage = "dense" if not tuned(xp) or dense_by_default(self.n_features, self.n_groups) else "sparse"
        if self.storage == "sparse" and not tuned(xp):
            raise NotImplementedError(f'storage must be "dense" for arrays of {xp.__name__}, got "sparse"')
        sizes = self.n_features, self.n_groups
        if self.storage == "sparse":
            self._table = SparseTable(*sizes, self._width, xp)
        else:
            self._table = DenseTable(*sizes, self._width - self.center, xp, place)
        self.column_counts = xp.zeros(sizes[::-1], dtype=xp.int64, device=place)
        self._column_sums = xp.zeros((3, *sizes[::-1]), dtype=xp.float64, device=place)

    def _groups(self, start: int, count: int, like: Any) -> Any:
        """The group of each of the rows start, start + 1, ...; int64."""
        xp = array_namespace(like)
        numbers = xp.arange(start, start + count, dtype=xp.int64, device=device_of(like))
        u = shared_uniforms(_KEY, numbers, xp)
        return xp.astype(xp.floor(u * self.n_groups), xp.int64)

    def _weights(self, seen: Observations, A: Any, propensity: Any) -> Any:
        """Reciprocal probabilities of the entries, as a matrix for arrays without kernels; None if none are given."""
        if (propensity is not None) != self.weighted:
            wanted, remedy = ("given", "") if self.weighted else ("None", "; make the state with weighted=True")
            raise ValueError(f"propensity must be {wanted} where weighted={self.weighted}, got the opposite{remedy}")
        if propensity is None:
            return None
        xp = seen.xp
        p = as_matrix(propensity, name="propensity")
        check_together(seen.data, p, names=("X", "propensity"))
        if tuple(p.shape) not in (seen.shape, (seen.shape[0], 1)):
            raise ValueError(
                f"propensity must have shape {seen.shape} or ({seen.shape[0]}, 1), got {tuple(p.shape)}; "
                "one number for each column would cancel"
            )
        p = xp.astype(_like_entries(p, seen), xp.float64)
        outside = ~((p > 0) & (p <= 1))
        if not tuned(xp):  # of a whole matrix only what was observed counts
            outside = outside & (~xp.isnan(A) if p.shape == A.shape else xp.ones_like(outside))
        if bool(xp.any(outside)):
            raise ValueError("propensity must be in (0, 1], got other values; each entry had some chance to be seen")
        return 1.0 / p

    def _add_sparse(self, seen: Observations, weights: Any, start: int) -> None:
        xp = seen.xp
        for lo, hi in _pieces(seen, self._table):
            first, last = int(seen.indptr[lo]), int(seen.indptr[hi])
            indices, indptr = seen.indices[first:last], seen.indptr[lo : hi + 1] - seen.indptr[lo]
            x = xp.astype(seen.data[first:last], xp.float64)
            v = None if weights is None else weights[first:last]
            groups = self._groups(start + lo, hi - lo, seen.data)
            self._add_columns(indices, indptr, x, v, groups)
            left, right = self._factors(x, v, xp)
            run = Run(*kernel("pair_sums", xp)(left, right, groups, indices, indptr, self.n_features, self.n_groups))
            if self.storage == "sparse":
                self._table.add(run)
            else:
                last_sum = self._width - 1  # of values of b, as that before it is of values of a
                turned = [*range(1 + self.weighted), last_sum]
                self._table.add(run, tuple(turned))

    def _factors(self, x: Any, v: Any, xp: Any) -> tuple[Any, Any]:
        """Columns whose products over the entries of a pair add up to its sums."""
        ones = xp.ones_like(x) if v is None else v
        scaled = x if v is None else v * x
        left, right = [scaled], [scaled]
        if self.weighted:
            left, right = [*left, ones], [*right, ones]
        if self.center:
            left, right = [*left, scaled, ones], [*right, ones, scaled]
        return xp.stack(left, axis=1), xp.stack(right, axis=1)

    def _add_columns(self, indices: Any, indptr: Any, x: Any, v: Any, groups: Any) -> None:
        """Counts and sums of columns by group: products with the indicators of the groups."""
        xp = array_namespace(x)
        ones = xp.ones_like(x)
        indicators = xp.astype(groups[:, None] == xp.arange(self.n_groups, dtype=xp.int64)[None, :], xp.float64)
        multiply = kernel("csr_rmatmul", xp)
        v = ones if v is None else v
        counts, *sums = (
            multiply(values, indices, indptr, indicators, self.n_features).mT for values in (ones, v, v * x, v * x * x)
        )
        self.column_counts = self.column_counts + xp.astype(xp.round(counts), xp.int64)
        self._column_sums = self._column_sums + xp.stack(sums)

    def _add_dense(self, seen: Observations, A: Any, weights: Any, start: int) -> None:
        xp, step = seen.xp, max(1, _BLOCK_ENTRIES // self.n_features)
        for lo in range(0, seen.shape[0], step):
            hi = min(lo + step, seen.shape[0])
            mask, x, v = _square_rows(seen, A, weights, lo, hi)
            groups = self._groups(start + lo, hi - lo, seen.data)
            for group in range(self.n_groups):
                here = xp.nonzero(groups == group)[0]
                m, z, w = (xp.take(part, here, axis=0) for part in (mask, x, v))
                scaled = z * w
                sums = [xp.matmul(scaled.mT, scaled)]
                sums += [xp.matmul(w.mT, w)] if self.weighted else []
                sums += [xp.matmul(scaled.mT, w)] if self.center else []
                self._table.add_square(group, xp.matmul(m.mT, m), sums)
                self.column_counts[group, :] += xp.astype(xp.round(xp.sum(m, axis=0)), xp.int64)
                for t, values in enumerate((w, scaled, scaled * z)):
                    self._column_sums[t, group, :] += xp.sum(values, axis=0)

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def table(self) -> SparseTable | DenseTable:
        """The sums over pairs, by group."""
        self.check_rows()
        return self._table

    def check_rows(self) -> None:
        """Raise ValueError where no block came in."""
        if self._table is None:
            raise ValueError("the state must have seen rows, got none; call update first")

    @property
    def mean(self) -> Any:
        """Means of the observed entries of each column (d,)."""
        self.check_rows()
        xp = array_namespace(self._column_sums)
        return quotient(xp.sum(self._column_sums[1, ...], axis=0), xp.sum(self._column_sums[0, ...], axis=0))

    @property
    def n_pairs(self) -> int:
        """Pairs of different columns that were seen together."""
        if self._table is None:
            return 0
        xp = array_namespace(self._column_sums)
        if self._table.sparse:
            return int(self._table.collapsed(range(self.n_groups)).counts.shape[0])
        seen = xp.any(self._table.counts > 0, axis=0)
        diagonal = xp.eye(self.n_features, dtype=xp.int64, device=device_of(self._column_sums)) > 0
        return int(xp.sum(xp.astype(seen & ~diagonal, xp.int64))) // 2

    def matrices(self) -> tuple[Any, Any]:
        """Return the means of products and the counts behind them, both (d, d) and symmetric.

        Returns
        -------
        means : array or CSR matrix, shape (d, d)
            ``sum x_a x_b / count``, weighted and centred as the state is; 0, or not stored, where no row has both.
        counts : int64 array or CSR matrix, shape (d, d)
            How many rows observe both columns, and each column on the diagonal.

        Raises
        ------
        NotImplementedError
            If the state is sparse and on a GPU.
        """
        known = self.statistics(range(self.n_groups))
        xp = array_namespace(known.means)
        if known.pattern is None:
            eye = xp.eye(self.n_features, dtype=xp.float64, device=device_of(known.means))
            counts = known.counts + eye * known.column_counts[:, None]
            return known.means + eye * known.column_means[:, None], xp.astype(xp.round(counts), xp.int64)
        if not is_numpy_namespace(xp):
            raise NotImplementedError(f'matrices need storage="dense" for arrays of {xp.__name__}, got "sparse"')
        from scipy.sparse import csr_array

        here = np.nonzero(known.column_counts)[0]
        rows = np.concatenate([known.pattern.rows, known.pattern.indices, here])
        columns = np.concatenate([known.pattern.indices, known.pattern.rows, here])
        shape = (self.n_features, self.n_features)
        means = np.concatenate([known.means, known.means, known.column_means[here]])
        counts = np.concatenate([known.counts, known.counts, known.column_counts[here]]).astype(np.int64)
        return csr_array((means, (rows, columns)), shape=shape), csr_array((counts, (rows, columns)), shape=shape)

    def statistics(self, groups: range) -> PairStatistics:
        """Means of products and squares over the rows of some groups, centred and weighted as the state is."""
        part = slice(groups.start, groups.stop)
        found = self.table.collapsed(groups)
        xp = array_namespace(found.sums)
        counts = xp.astype(found.counts, xp.float64)
        if found.pattern is None:
            eye = xp.eye(self.n_features, dtype=xp.float64, device=device_of(found.sums))
            counts = counts * (1.0 - eye)
            rows = columns = None
        else:
            rows, columns = found.pattern.rows, found.pattern.indices
        weights, products = self.centred(found.sums, counts, rows, columns)
        means = quotient(products, xp.where(counts > 0, weights, xp.zeros_like(weights)))
        column_weights, squares = self.centred_columns()
        column_weights = xp.sum(column_weights[part, :], axis=0)
        column_counts = xp.astype(xp.sum(self.column_counts[part, :], axis=0), xp.float64)
        column_means = quotient(xp.sum(squares[part, :], axis=0), column_weights)
        return PairStatistics(found.pattern, counts, means, column_counts, column_means)

    def centred(self, sums: Any, counts: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
        """Weights and centred sums of products: of the pairs (rows, columns), or of square arrays where these are None.

        Sums have their components in the last axis for pairs and in the first one for square arrays.
        """
        take = (lambda t: sums[:, t]) if rows is not None else (lambda t: sums[t, ...])
        weights, products = take(1) if self.weighted else counts, take(0)
        if not self.center:
            return weights, products
        mean, at = self.mean, 1 + self.weighted
        if rows is not None:
            xp = array_namespace(sums)
            a, b = xp.take(mean, rows), xp.take(mean, columns)
            return weights, products - b * take(at) - a * take(at + 1) + weights * (a * b)
        a, b, values = mean[:, None], mean[None, :], take(at)
        return weights, products - b * values - a * values.mT + weights * (a * b)

    def centred_columns(self) -> tuple[Any, Any]:
        """Weights and centred sums of squares of columns, by group: two arrays (n_groups, d)."""
        weights, values, squares = (self._column_sums[t, ...] for t in range(3))
        if not self.center:
            return weights, squares
        mean = self.mean[None, :]
        return weights, squares - 2.0 * mean * values + weights * mean * mean

    # --- bytes --------------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The state as bytes, with a checksum; the page on one-sided completion has the format."""
        if self._table is None:
            options = {name: getattr(self, name) for name in ("storage", "center", "weighted", "n_groups")}
            state = PairMoments(self.n_features, **options)
            state._begin(namespace_of(np.empty(0)), "cpu")
            return state.to_bytes()
        d, flags = self.n_features, (self.center, self.weighted, self._table.sparse, self.dtype == "float32")
        xp = array_namespace(self._column_sums)
        columns = self.column_counts, xp.reshape(self._column_sums, (-1, d))
        return pack(_KIND, [d, self.n_groups, self.n_rows, *flags], [], [*columns, *self._table.arrays()])

    @classmethod
    def from_bytes(cls, data: bytes) -> PairMoments:
        """The state that `to_bytes` wrote, in NumPy's arrays.

        Raises
        ------
        TypeError, ValueError
            If `data` is not bytes, was cut off or altered, or is no state of this kind.
        """
        fields = unpack(data, _KIND, (7, 0))
        d, n_groups, n_rows, *flags = fields.integers
        consistent(1 <= d <= 2**28 and 1 <= n_groups <= 64 and n_rows < 2**63 and max(flags) <= 1, "sizes and flags")
        center, weighted, sparse, narrow = (bool(flag) for flag in flags)
        state = cls(d, storage="sparse" if sparse else "dense", center=center, weighted=weighted, n_groups=n_groups)
        kind = SparseTable if sparse else DenseTable
        width = state._width if sparse else state._width - center
        consistent(len(fields.arrays) == (5 if sparse else 4), "the arrays of its table")
        state.column_counts, sums, *rest = fields.arrays
        shapes = [state.column_counts.shape, sums.shape, *(array.shape for array in rest)]
        p = rest[0].shape[1] if sparse else 0
        expected = [(1, p), (1, p), (p, width)] if sparse else [(n_groups * d, d), (width * n_groups * d, d)]
        consistent(shapes == [(n_groups, d), (3 * n_groups, d), *expected], "arrays of fitting shapes")
        integers = [state.column_counts, *(rest[:2] if sparse else rest[:1])]
        consistent(all(array.dtype == np.int64 and bool(np.all(array >= 0)) for array in integers), "counts")
        consistent(all(array.dtype == np.float64 for array in (sums, rest[-1])), "sums in double precision")
        if sparse:
            keys = rest[0][0]
            pairs = keys // n_groups
            consistent(bool(np.all(keys[1:] > keys[:-1])) and all_within(keys, 0, d * d * n_groups), "ascending keys")
            consistent(bool(np.all(pairs // d < pairs % d)), "pairs of different columns")
        state._column_sums = sums.reshape(3, n_groups, d)
        state._table = kind.of(tuple(rest), d, n_groups)
        state.n_rows, state.dtype = n_rows, "float32" if narrow else "float64"
        return state


def quotient(sums: Any, weights: Any) -> Any:
    """Sums over weights, and 0 where there are none."""
    xp = array_namespace(sums)
    known = weights > 0
    return xp.where(known, sums, xp.zeros_like(sums)) / xp.where(known, weights, xp.ones_like(weights))


def _like_entries(p: Any, seen: Observations) -> Any:
    """The propensity of each observed entry, from a matrix; for arrays without kernels the matrix itself."""
    xp = seen.xp
    if is_sparse(p):
        p = as_observations(p, name="propensity")
        if p.nnz != seen.nnz or not bool(xp.all(p.indptr == seen.indptr) & xp.all(p.indices == seen.indices)):
            raise ValueError("propensity must store the entries that X stores and no others, got another pattern")
        return p.data
    if not tuned(xp):
        return p
    return p[seen.rows, 0 if p.shape[1] == 1 else seen.indices]


def _pieces(seen: Observations, table: SparseTable | DenseTable) -> Iterator[tuple[int, int]]:
    """Bounds of runs of rows with few pairs of entries, or no more than the table has by now: fewer are merged then."""
    xp, m = seen.xp, seen.shape[0]
    pairs = seen.row_counts * (seen.row_counts - 1) // 2 + seen.row_counts
    ends, lo = xp.cumulative_sum(pairs), 0
    while lo < m:
        before, most = int(ends[lo - 1]) if lo else 0, max(_PAIRS, table.size if isinstance(table, SparseTable) else 0)
        hi = int(xp.searchsorted(ends, xp.asarray(before + most, dtype=ends.dtype), side="right"))
        hi = min(max(hi, lo + 1), lo + _ROWS, m)
        yield lo, hi
        lo = hi


def _square_rows(seen: Observations, A: Any, weights: Any, lo: int, hi: int) -> tuple[Any, Any, Any]:
    """Rows lo..hi-1 in full: 1 where an entry was observed, its value and its weight there, and 0 elsewhere."""
    xp = seen.xp
    if not tuned(xp):
        x = xp.astype(A[lo:hi, :], xp.float64)
        mask = xp.astype(~xp.isnan(x), xp.float64)
        x = xp.where(mask > 0, x, xp.zeros_like(x))
        if weights is None:
            return mask, x, mask
        return mask, x, xp.where(mask > 0, weights[lo:hi, :] + xp.zeros_like(mask), xp.zeros_like(mask))
    first, last = int(seen.indptr[lo]), int(seen.indptr[hi])
    rows, columns = seen.rows[first:last] - lo, seen.indices[first:last]
    mask = xp.zeros((hi - lo, seen.shape[1]), dtype=xp.float64)
    x, v = xp.zeros_like(mask), mask
    mask[rows, columns] = 1.0
    x[rows, columns] = seen.data[first:last]
    if weights is not None:
        v = xp.zeros_like(mask)
        v[rows, columns] = weights[first:last]
    return mask, x, v
