"""Coordinated samples: sketches of tables that never meet, made apart under one key, and what they tell together.

Every party draws the same uniform number u_i for the row key i.  A row is kept if u_i falls below its weight times a
threshold, so heavy rows are kept by both parties more often than by chance, and the product of two tables is a weighted
sum over the keys that both samples hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from .._arrays import (
    as_matrix,
    check_together,
    dtype_name,
    floating_dtype,
    from_host,
    is_complex,
    is_sparse,
    namespace_of,
)
from .._backend import kernel
from .._checks import check_choice, check_integer
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from . import packing
from .keys import as_keys, has_repeats
from .selection import (
    WEIGHTS,
    inclusion,
    kept_mask,
    outer_sum,
    poisson_threshold,
    power_sums,
    priority_threshold,
    ranks,
    row_weights,
    scale_rows,
    shared_uniforms,
    stack_rows,
    take_rows,
    tuned,
)


@dataclass(frozen=True)
class _Sampler:
    n_samples: int
    weight: str = field(default="l2", kw_only=True)
    rng: Key = field(default=None, kw_only=True)  # type: ignore[assignment]  # anything as_key takes; a Key afterwards

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_samples", check_integer(self.n_samples, "n_samples", low=1, high=2**62))
        check_choice(self.weight, "weight", WEIGHTS)
        object.__setattr__(self, "rng", as_key(self.rng))

    def sketch(self, A: Any, keys: Any = None, *, duplicates: str = "raise") -> CoordinatedSample:
        """Sample the rows of a table in one pass.

        Parameters
        ----------
        A : array, shape (m,) or (m, d), or CSR or CSC matrix, shape (m, d)
            Real; float32 and float64 are kept, integers and bools become float64.
        keys : None or array, shape (m,), integers, strings or bytes
            Name of each row; rows of two tables with equal keys belong together.  None takes the row numbers.
        duplicates : {"raise", "sum"}, default "raise"
            What to do with rows of equal key: "sum" adds them up first, which is what the product over all pairs of
            equal keys (a join) asks for.

        Returns
        -------
        CoordinatedSample

        Raises
        ------
        TypeError, ValueError
            If A is not real and numeric, or `keys` has the wrong length or kind, or repeats itself.
        """
        return _sketch(self, A, keys, 0, duplicates)


class ThresholdSampler(_Sampler):
    """Coordinated sample of an expected number of rows, each decided by itself.

    Row i is kept if u_i < c w_i with its weight w_i and the c that makes ``sum_i min(1, c w_i) = n_samples``.  The
    number of rows is random with a variance below n_samples.  One pass over the data; samples of parts merge.

    Parameters
    ----------
    n_samples : int, at least 1
        Expected number of rows (of all rows that are not zero, if there are fewer).
    weight : {"l2", "l1", "uniform", "moments"}, default "l2"
        Squared Euclidean norm of the row, sum of absolute values, 1 for every row that is not zero, or a joint sample
        for the weights 1, ||a||**2 and ||a||**4, each of n_samples rows: it holds up to three times as many, serves
        sums of 1, a and a**2 alike, and keeps zero rows, so that `join_statistics` and `join_regression` count them.
    rng : None, int, SeedSequence, Generator or Key
        The key that the parties share.  Samples under different keys cannot meet.  See :ref:`random`.

    See Also
    --------
    PrioritySampler : a fixed number of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import ThresholdSampler, estimate_product
    >>> sampler = ThresholdSampler(50, rng=0)
    >>> a, b = np.arange(1000.0), np.ones(500)
    >>> SA, SB = sampler.sketch(a), sampler.sketch(b, keys=np.arange(500, 1000))
    >>> result = estimate_product(SA, SB)
    >>> bool(abs(result.value - a[500:].sum()) < 4 * result.standard_error)
    True
    """

    kind: ClassVar[str] = "threshold"


class PrioritySampler(_Sampler):
    """Coordinated sample of a fixed number of rows.

    Row i has the rank u_i / w_i with its weight w_i.  The n_samples rows of least rank are kept, with the rank of the
    next as threshold.  One pass over the data and a selection; samples of parts merge.

    Parameters
    ----------
    n_samples : int, at least 1
        Number of rows (all rows that are not zero, if there are fewer).  The variance has a bound from 2 on.
    weight : {"l2", "l1", "uniform", "moments"}, default "l2"
        Squared Euclidean norm of the row, sum of absolute values, 1 for every row that is not zero, or a joint sample
        for the weights 1, ||a||**2 and ||a||**4, each of n_samples rows: it holds up to three times as many, serves
        sums of 1, a and a**2 alike, and keeps zero rows, so that `join_statistics` and `join_regression` count them.
    rng : None, int, SeedSequence, Generator or Key
        The key that the parties share.  Samples under different keys cannot meet.  See :ref:`random`.

    See Also
    --------
    ThresholdSampler : rows decided independently, for an exact analysis.

    Notes
    -----
    Deviation from the code published with [1]_: the threshold is the (n_samples + 1)-st smallest rank and the
    comparison is strict.  With the n_samples-th rank, whose own row is kept too, the estimates are too
    large on average.

    References
    ----------
    .. [1] Daliri, Freire, Musco, Santos and Zhang, "Sampling methods for inner product sketching", PVLDB 17 (2024);
       arXiv:2309.16157.
    .. [2] Daliri, Freire, Li and Musco, "Matrix product sketching via coordinated sampling", ICLR 2025;
       arXiv:2501.17836.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import PrioritySampler, estimate_product
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((2000, 3)) * rng.lognormal(sigma=2, size=(2000, 1))
    >>> sampler = PrioritySampler(300, rng=1)
    >>> result = estimate_product(sampler.sketch(A), sampler.sketch(A + 1))
    >>> result.value.shape, bool(result.standard_error < result.guarantee)
    ((3, 3), True)
    """

    kind: ClassVar[str] = "priority"


@dataclass(frozen=True, eq=False, repr=False)
class CoordinatedSample:
    """Rows kept by a `PrioritySampler` or `ThresholdSampler`: a sketch that meets others of its key.

    Made by `sketch`, `update`, `merge` and `from_bytes`; the fields are for reading.

    Parameters
    ----------
    keys : array, shape (k,), int64
        Keys of the kept rows, ascending; unsigned keys as bit patterns, strings as their hashes.
    rows : array or CSR matrix, shape (k, d)
        The kept rows as they are; d = 1 for a vector.
    weights : tuple of arrays, shape (k,), float64
        Their weights; three of them for ``weight="moments"``.
    thresholds : tuple of float
        For each weight what a row's weight is multiplied with; infinity where all rows are held.
    key : Key
        The shared key.
    kind : str
        "priority" or "threshold".
    weight : str
        Name of the weights.
    n_samples : int
        Size that was asked for.
    key_kind : str
        "integer" or "text".
    shape : tuple of int
        Shape of the table: of all rows seen so far.
    squared_norm : float
        Squared Frobenius norm of the table, exact up to rounding.
    dropped : tuple of float
        For each weight its sum over the rows that were not kept.
    n_nonfinite : int
        Rows left out because they, or their weights, are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import PrioritySampler
    >>> S = PrioritySampler(3, rng=0).sketch(np.arange(10.0))
    >>> len(S), S.shape, S.is_exact
    (3, (10,), False)
    >>> same = PrioritySampler(3, rng=0).sketch(np.arange(6.0)).update(np.arange(6.0, 10.0))
    >>> same.to_bytes() == S.to_bytes()
    True
    """

    keys: Any
    rows: Any
    weights: tuple[Any, ...]
    thresholds: tuple[float, ...]
    key: Key
    kind: str
    weight: str
    n_samples: int
    key_kind: str
    shape: tuple[int, ...]
    squared_norm: float
    dropped: tuple[float, ...]
    n_nonfinite: int

    def __len__(self) -> int:
        return int(self.keys.shape[0])

    def __repr__(self) -> str:
        storage = f"CSR with {self.rows.data.shape[0]} entries" if is_sparse(self.rows) else "dense"
        return (
            f"CoordinatedSample({len(self)} of {self.shape[0]} rows, {self.shape[1:] or 1} columns, {storage}, "
            f"{self.kind}, weight={self.weight!r}, n_samples={self.n_samples}, key={self.key!r})"
        )

    @property
    def threshold(self) -> float:
        """The threshold of a sample with one weight; of a joint sample, that of ||a||**2."""
        return self.thresholds[len(self.thresholds) // 2]

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole table, exact up to rounding."""
        return math.sqrt(self.squared_norm)

    @property
    def is_exact(self) -> bool:
        """True if the sample holds every row that counts, so that nothing is estimated."""
        return all(math.isinf(threshold) for threshold in self.thresholds)

    @property
    def n_words(self) -> float:
        """Storage in words of 64 bits, as in `to_bytes` without its header.

        A word for each key and half a word or a word for each value, by its type; in CSR also half a word for the
        column of an entry and for the length of a row.
        """
        value = 0.5 if dtype_name(self.rows.dtype) == "float32" else 1.0
        if is_sparse(self.rows):
            return 1.5 * len(self) + (value + 0.5) * self.rows.data.shape[0]
        return len(self) + value * len(self) * self.rows.shape[1]

    def update(self, A: Any, keys: Any = None, *, duplicates: str = "raise") -> CoordinatedSample:
        """Return the sample of the table with further rows; keys must not have occurred before.

        The result is the one-shot sample of all rows, whatever their order.  Without `keys` the rows are numbered on.
        """
        return self.merge(_sketch(self, A, keys, self.shape[0], duplicates))

    def merge(self, other: CoordinatedSample) -> CoordinatedSample:
        """Return the sample of both tables, one below the other; their keys must be disjoint.

        Raises
        ------
        TypeError, ValueError
            If the samples differ in key, kind, weight, size, columns, storage or place, or share a key of a row.
        """
        check_meeting(self, other)
        if (self.n_samples, self.shape[1:]) != (other.n_samples, other.shape[1:]):
            raise ValueError(
                f"other must have n_samples={self.n_samples} and {self.shape[1:] or 1} columns to be merged, "
                f"got n_samples={other.n_samples} and {other.shape[1:] or 1}"
            )
        if is_sparse(self.rows) != is_sparse(other.rows):
            raise ValueError("other must be stored as the first sample is, got one dense and one sparse; convert one")
        return _merged(self, other)

    def to_bytes(self) -> bytes:
        """Return the sample as bytes with a version and a checksum; see :doc:`/coordinated` for the format."""
        return packing.pack(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> CoordinatedSample:
        """Read what `to_bytes` wrote, as NumPy arrays or a SciPy CSR array; nothing in it is executed.

        Raises
        ------
        ValueError
            If the bytes are truncated, altered, of another format or of a later version.
        """
        fields = packing.unpack(data)
        weights, _, _ = row_weights(fields["rows"], fields["weight"], namespace_of(fields["rows"]))
        return cls(weights=tuple(weights), **fields)


@dataclass(frozen=True, repr=False)
class ProductResult(Result):
    """An estimate of A.T @ B from two samples, with its error.

    Attributes
    ----------
    value : array or CSR matrix, shape (d, m)
        Unbiased estimate; axes of vectors are left out, so two vectors give shape ().  CSR if both tables are.
    standard_error : float
        Root of an unbiased estimate of the expected ``||value - A.T @ B||_F**2``, from the common rows.
    guarantee : float
        Bound on the root mean square error, from the sizes and the exact norms; infinity for the weights "l1" and
        "uniform", where nothing is proved.
    n_common : int
        Keys that both samples hold.  With few of them `standard_error` is itself uncertain, by about
        ``1 / sqrt(2 n_common)``, more for heavy-tailed rows.
    status : Status
        BREAKDOWN if no common key was seen although rows were left out, NONFINITE if rows were not finite.
    """

    _factors = ("value",)
    value: Any
    standard_error: float
    guarantee: float
    n_common: int
    status: Status

    def __repr__(self) -> str:
        return " ".join(super().__repr__().split())


def estimate_product(SA: CoordinatedSample, SB: CoordinatedSample, *, on_failure: str = "warn") -> ProductResult:
    """Estimate A.T @ B, the sum over common keys of the products of rows, from samples of A and of B.

    ``sum_i a_i b_i^T / min(1, t_A w_i, t_B v_i)`` over the keys i in both samples, with the weights w and v and the
    thresholds t: a merge of sorted keys and one small product.

    Parameters
    ----------
    SA, SB : CoordinatedSample
        Samples of A (n, d) and B (n, m) under one key, by one kind of sampler and one weight; the sizes may differ.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    ProductResult
        ``value`` (d, m), ``standard_error``, ``guarantee``, ``n_common``, ``status``.

    Raises
    ------
    TypeError, ValueError
        If the samples cannot meet: another key, weight, kind of sampler, kind of keys, or place.

    Notes
    -----
    Unbiased, with uncorrelated terms, so the squared error is estimated without bias by
    ``sum_i (1 - p_i) / p_i**2 ||a_i||**2 ||b_i||**2`` over the common rows (p_i the denominators above).  For priority
    samples that holds for p_i given the other rows, which is why it carries over.

    With weight "l2" or "moments" the expected squared error is at most
    ``(1 / k_A + 1 / k_B) ||A||_F**2 ||B||_F**2`` with k = n_samples for threshold and n_samples - 1 for priority
    samples ([1]_, there for equal sizes), hence `guarantee`; a sample that holds all its rows adds nothing.  By
    Chebyshev an error above ``guarantee / sqrt(delta)`` has probability at most delta.  The sharper form has
    ``||A||**2 ||B_I||**2 / k_A + ||A_I||**2 ||B||**2 / k_B`` with the rows A_I and B_I of common keys: little overlap
    makes little error, which no linear sketch can say.

    All estimates under one key move together: the mean over many pairs is no better than the estimate of one.

    References
    ----------
    .. [1] Daliri, Freire, Li and Musco, "Matrix product sketching via coordinated sampling", ICLR 2025;
       arXiv:2501.17836.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import PrioritySampler, estimate_product
    >>> sampler = PrioritySampler(20, rng=0)
    >>> cities = sampler.sketch(np.array([3.0, 1.0, 2.0]), keys=["Oslo", "Bergen", "Paris"])
    >>> fares = sampler.sketch(np.array([10.0, 20.0]), keys=["Paris", "Oslo"])
    >>> float(estimate_product(cities, fares).value)
    80.0
    """
    check_meeting(SA, SB)
    A, B, p = aligned(SA, SB)
    xp = namespace_of(A)
    value = outer_sum(A, scale_rows(B, 1.0 / p, xp))
    squares = power_sums(A, 2, xp) * power_sums(B, 2, xp)
    error = math.sqrt(float(xp.sum((1.0 - p) / p**2 * squares)))
    shape = (*SA.shape[1:], *SB.shape[1:])
    result = ProductResult(
        value=value if len(shape) == 2 else _squeezed(value, shape, xp),
        standard_error=error, guarantee=guarantee(SA, SB), n_common=int(p.shape[0]),
        status=status_of(SA, SB, int(p.shape[0]), error),
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="estimate_product")


def _squeezed(value: Any, shape: tuple[int, ...], xp: Any) -> Any:
    return xp.reshape(value.toarray() if is_sparse(value) else value, shape)


def guarantee(SA: CoordinatedSample, SB: CoordinatedSample) -> float:
    """Bound on the root mean square error of `estimate_product`; infinity if nothing is proved."""
    if SA.is_exact and SB.is_exact:
        return 0.0
    if SA.weight not in ("l2", "moments"):
        return math.inf
    total = 0.0
    for sample in (SA, SB):
        size = sample.n_samples - (sample.kind == "priority")
        if not math.isinf(sample.threshold):
            total += 1.0 / size if size else math.inf
    return math.sqrt(total) * SA.norm * SB.norm


def status_of(SA: CoordinatedSample, SB: CoordinatedSample, n_common: int, error: float) -> Status:
    """How far the common rows of two samples can be trusted."""
    if SA.n_nonfinite or SB.n_nonfinite or not math.isfinite(error):
        return Status.NONFINITE
    if n_common == 0 and not (SA.is_exact and SB.is_exact):
        return Status.BREAKDOWN
    return Status.CONVERGED


def check_meeting(SA: CoordinatedSample, SB: CoordinatedSample) -> None:
    """Raise unless two samples were made to meet."""
    for name, sample in (("SA", SA), ("SB", SB)):
        if not isinstance(sample, CoordinatedSample):
            raise TypeError(f"{name} must be a CoordinatedSample, got {type(sample).__name__}; make it with .sketch(A)")
    for name, remedy in (
        ("key", "give all samplers the same rng"),
        ("kind", "use one kind of sampler"),
        ("weight", "use one weight"),
    ):
        mine, theirs = getattr(SA, name), getattr(SB, name)
        if mine != theirs:
            raise ValueError(f"the samples must share their {name}, got {mine!r} and {theirs!r}; {remedy}")
    if SA.key_kind != SB.key_kind and SA.shape[0] and SB.shape[0]:
        raise ValueError(
            f"the samples must share the kind of their keys, got {SA.key_kind!r} and {SB.key_kind!r}; "
            "name the rows of both tables by integers, or of both by strings"
        )
    check_together(SA.keys, SB.keys, names=("SA", "SB"))


def aligned(SA: CoordinatedSample, SB: CoordinatedSample) -> tuple[Any, Any, Any]:
    """The rows of common keys of two samples, in the wider of their dtypes, and their probabilities."""
    xp = namespace_of(SA.keys)
    if len(SA) == 0 or len(SB) == 0:
        at = here = xp.zeros_like(SA.keys[:0])
    else:
        at = xp.searchsorted(SB.keys, SA.keys)
        at = xp.where(at < len(SB), at, xp.zeros_like(at))
        here = xp.nonzero(xp.take(SB.keys, at) == SA.keys)[0]
        at = xp.take(at, here)
    dtype = xp.float64 if "float64" in (dtype_name(SA.rows.dtype), dtype_name(SB.rows.dtype)) else xp.float32
    A, B = (_cast(take_rows(S.rows, i, xp), dtype, xp) for S, i in ((SA, here), (SB, at)))
    first, second = (
        inclusion([xp.take(weight, i) for weight in S.weights], S.thresholds, xp) for S, i in ((SA, here), (SB, at))
    )
    return A, B, xp.where(first < second, first, second)


def _cast(rows: Any, dtype: Any, xp: Any) -> Any:
    return rows.astype(dtype) if is_sparse(rows) else xp.astype(rows, dtype, copy=False)


# --- selection --------------------------------------------------------------------------------------------------------


def _sketch(recipe: Any, A: Any, keys: Any, start: int, duplicates: str) -> CoordinatedSample:
    """`recipe` is a sampler, or a sample whose settings are used again."""
    check_choice(duplicates, "duplicates", ("raise", "sum"))
    key = recipe.rng if isinstance(recipe, _Sampler) else recipe.key
    A, shape, xp = _table(A)
    numbers, key_kind = as_keys(keys, shape[0], start, key, xp, A.data if is_sparse(A) else A)
    if keys is not None and has_repeats(numbers, xp):
        if duplicates == "raise":
            raise ValueError(
                "keys must be distinct, got some of them twice; pass duplicates='sum' to add such rows up, "
                "or aggregate them first"
            )
        A, numbers = _added_up(A, numbers, xp)
    weights, squared_norm, n_nonfinite = row_weights(A, recipe.weight, xp)
    u = shared_uniforms(key, numbers, xp)
    columns = [ranks(u, weight) for weight in weights]
    if recipe.kind == "priority":
        thresholds = tuple(priority_threshold(column, recipe.n_samples, xp) for column in columns)
        dropped = [0.0] * len(weights)  # not needed, and not worth the sums
    else:
        thresholds = tuple(poisson_threshold(weight, 0.0, recipe.n_samples, xp) for weight in weights)
        dropped = [0.0] * len(weights)
    mask = kept_mask(columns, thresholds)
    if recipe.kind == "threshold" and not bool(xp.all(mask)):
        dropped = [float(xp.sum(xp.where(mask, xp.zeros_like(weight), weight))) for weight in weights]
    index = xp.nonzero(mask)[0]
    index = xp.take(index, xp.argsort(xp.take(numbers, index)))
    rows = take_rows(A, index, xp)
    return CoordinatedSample(
        keys=xp.take(numbers, index), rows=rows, weights=tuple(row_weights(rows, recipe.weight, xp)[0]),
        thresholds=thresholds, key=key, kind=recipe.kind, weight=recipe.weight, n_samples=recipe.n_samples,
        key_kind=key_kind, shape=shape, squared_norm=squared_norm, dropped=tuple(dropped), n_nonfinite=n_nonfinite,
    )  # fmt: skip


def _table(A: Any) -> tuple[Any, tuple[int, ...], Any]:
    """A as floating 2-D array or canonical CSR matrix, its shape as it was given, and its namespace."""
    A = as_matrix(A, name="A", vector=True)
    xp = namespace_of(A)
    if is_complex(A.dtype):
        raise ValueError("A must be real, got a complex dtype; sample A.real and A.imag as columns of one table")
    dtype, shape = floating_dtype(A, xp), tuple(int(size) for size in A.shape)
    if not is_sparse(A):
        A = xp.astype(A, dtype, copy=False)
        return A if A.ndim == 2 else A[:, None], shape, xp
    A = A.tocsr()
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    return A if dtype_name(A.dtype) == dtype_name(dtype) else A.astype(dtype), shape, xp


def _added_up(A: Any, numbers: Any, xp: Any) -> tuple[Any, Any]:
    """One row for each key: the sum of its rows."""
    if not tuned(xp):
        raise NotImplementedError(
            f"duplicates='sum' is not there for {xp.__name__}; add the rows of equal keys before, or use NumPy arrays"
        )
    distinct, inverse = xp.unique_inverse(numbers)
    order = xp.argsort(inverse)
    starts = xp.searchsorted(xp.take(inverse, order), xp.arange(distinct.shape[0] + 1))
    if is_sparse(A):
        ones = xp.ones_like(order, dtype=A.dtype)
        return type(A)((ones, order, starts), shape=(distinct.shape[0], A.shape[0])) @ A, distinct
    ones = xp.ones_like(order, dtype=A.dtype)
    return kernel("csr_matmul", xp)(ones, order, starts, A), distinct


def _merged(first: CoordinatedSample, second: CoordinatedSample) -> CoordinatedSample:
    xp = namespace_of(first.keys)
    numbers = xp.concat([first.keys, second.keys])
    if has_repeats(numbers, xp):
        raise ValueError("keys must be disjoint, got rows of one key in both samples; aggregate them before sampling")
    dtype = xp.float64 if "float64" in (dtype_name(first.rows.dtype), dtype_name(second.rows.dtype)) else xp.float32
    rows = stack_rows(_cast(first.rows, dtype, xp), _cast(second.rows, dtype, xp), xp)
    u = shared_uniforms(first.key, numbers, xp)
    weights = row_weights(rows, first.weight, xp)[0]
    columns = [ranks(u, weight) for weight in weights]
    owner = from_host(_owners(len(first), len(second)), xp, numbers)
    thresholds = []
    for j, column in enumerate(columns):
        # the samples are complete below their own thresholds, so the common one cannot lie above either
        bounds = first.thresholds[j], second.thresholds[j]
        if first.kind == "priority":
            complete = (owner & (column < bounds[0])) | (~owner & (column < bounds[1]))
            level = priority_threshold(column[complete], first.n_samples, xp)
        else:
            level = poisson_threshold(weights[j], first.dropped[j] + second.dropped[j], first.n_samples, xp)
        thresholds.append(min(level, *bounds))
    mask = kept_mask(columns, tuple(thresholds))
    lost = [float(xp.sum(xp.where(mask, xp.zeros_like(weight), weight))) for weight in weights]
    before = [a + b for a, b in zip(first.dropped, second.dropped, strict=True)]
    index = xp.nonzero(mask)[0]
    index = xp.take(index, xp.argsort(xp.take(numbers, index)))
    rows = take_rows(rows, index, xp)
    empty = first if first.shape[0] == 0 else second
    return replace(
        second if empty is first else first, keys=xp.take(numbers, index), rows=rows,
        weights=tuple(row_weights(rows, first.weight, xp)[0]), thresholds=tuple(thresholds),
        shape=(first.shape[0] + second.shape[0], *first.shape[1:]),
        squared_norm=first.squared_norm + second.squared_norm, n_nonfinite=first.n_nonfinite + second.n_nonfinite,
        dropped=tuple(a + b for a, b in zip(before, lost, strict=True)) if first.kind == "threshold" else first.dropped,
    )  # fmt: skip


def _owners(n_first: int, n_second: int) -> Any:
    import numpy as np

    return np.arange(n_first + n_second) < n_first
