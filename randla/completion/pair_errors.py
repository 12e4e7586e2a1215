"""How far a fitted second moment is from the true one: two fits to halves of the rows, judged by the other halves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._backend import kernel
from .moments import PairMoments, quotient
from .pair_tables import DenseTable, SparseTable, places

CONFIDENCE = 0.95
_CHUNK = 2**16  # pairs whose groups are laid out side by side: 16 MiB with 8 groups


Block: TypeAlias = tuple[Any, Any, Any, list[Any]]


class Grams(NamedTuple):
    """Sums over pairs of products between groups, (g, g), as host arrays; pairs weigh as often as they were seen."""

    first: Any  # of what the first fit leaves of each group's sums
    second: Any
    sums: Any  # of the sums themselves
    counts: Any
    difference: float  # mean squared difference of the two fits
    share: float  # of the entries of the matrix that these pairs stand for


class ErrorEstimate(NamedTuple):
    """Relative error of the fit to all rows, and a bound that holds with `CONFIDENCE`."""

    error: float
    bound: float
    spread: float  # the part that comes from having so few rows
    bias: float  # the part that more rows would not take away


def estimate_error(moments: PairMoments, first: Any, second: Any, *, diagonal: bool) -> ErrorEstimate:
    """Judge factors (d, rank) fitted to the first and to the second half of the groups.

    With D the difference of the two fits, e**2 the mean squared error of one of them on pairs in the rows that it has
    not seen, the fit to all rows has a variance of D**2 / 4 and a squared bias of e**2 - D**2 / 2.  The latter comes
    from products of residuals of different groups, whose noise is independent, so that it has no bias itself.
    """
    parts = [_pair_grams(moments, first, second)]
    if diagonal:
        parts.append(_column_grams(moments, first, second))
    n_groups = moments.n_groups
    everything = range(n_groups)
    spread, bias = _components(parts, list(everything), n_groups // 2)
    if not math.isfinite(spread):
        return ErrorEstimate(math.nan, math.inf, math.nan, math.nan)
    left_out = np.array([_components(parts, [h for h in everything if h != g], n_groups // 2)[1] for g in everything])
    deviation = math.sqrt((n_groups - 1) / n_groups * float(np.sum((left_out - left_out.mean()) ** 2)))
    from scipy.special import stdtrit

    # the rows' own covariance, r (r + 1) / 2 numbers, is the part of D that averages least
    freedom = first.shape[1] * (first.shape[1] + 1) / 2
    wider = spread * (1.0 + NormalDist().inv_cdf(CONFIDENCE) * math.sqrt(4.0 / freedom))
    worse = bias + float(stdtrit(n_groups - 1, CONFIDENCE)) * deviation if math.isfinite(deviation) else math.inf
    # what is no larger than its own deviation is noise: shrunk as James and Stein do, which leaves a clear bias alone
    clear = max(bias - deviation**2 / bias, 0.0) if bias > 0.0 and math.isfinite(deviation) else 0.0
    bound = math.sqrt(wider + max(worse, 0.0))
    return ErrorEstimate(math.sqrt(spread + clear), bound, math.sqrt(spread), math.sqrt(clear))


def _components(parts: list[Grams], kept: list[int], half: int) -> tuple[float, float]:
    """Variance and squared bias of the fit to all rows, relative to the squared norm, from some of the groups."""
    early, late = [g for g in kept if g < half], [g for g in kept if g >= half]
    difference = error = norm = 0.0
    for part in parts:
        seen = _between(part.counts, late) + _between(part.counts, early)
        whole = _between(part.counts, kept)
        if not (seen > 0 and whole > 0):
            return math.nan, math.nan
        difference += part.share * part.difference
        error += part.share * (_between(part.first, late) + _between(part.second, early)) / seen
        norm += part.share * _between(part.sums, kept) / whole
    if not norm > 0:
        return math.nan, math.nan
    return difference / (4.0 * norm), (error - difference / 2.0) / norm


def _between(gram: np.ndarray, groups: list[int]) -> float:
    """The sum over all pairs of different groups."""
    part = gram[np.ix_(groups, groups)]
    return float(part.sum() - np.trace(part))


def _floats(M: Any) -> np.ndarray:
    return np.array([[float(M[i, j]) for j in range(M.shape[1])] for i in range(M.shape[0])])


def _pair_grams(moments: PairMoments, first: Any, second: Any) -> Grams:
    xp = array_namespace(first)
    grams = [xp.zeros((moments.n_groups,) * 2, dtype=xp.float64, device=device_of(first)) for _ in range(4)]
    apart, total = 0.0, 0.0
    for counts, weights, sums, fits in _blocks(moments, moments.table, (first, second)):
        seen = xp.sum(counts, axis=0)
        root = xp.sqrt(xp.where(seen > 0, seen, xp.ones_like(seen)))
        # sums in the scale of counts: with weights of their own they would not compare between pairs
        scale = quotient(counts, weights)
        tables = [(sums - weights * fit[None, :]) * scale / root[None, :] for fit in fits]
        tables += [sums * scale / root[None, :], counts / root[None, :]]
        grams = [gram + xp.matmul(table, table.mT) for gram, table in zip(grams, tables, strict=True)]
        apart += float(xp.sum(seen * (fits[0] - fits[1]) ** 2))
        total += float(xp.sum(seen))
    share = 1.0 - 1.0 / moments.n_features
    between = [_floats(gram) for gram in grams]
    return Grams(between[0], between[1], between[2], between[3], apart / total if total else math.nan, share)


def _column_grams(moments: PairMoments, first: Any, second: Any) -> Grams:
    xp = array_namespace(first)
    counts = xp.astype(moments.column_counts, xp.float64)
    weights, sums = moments.centred_columns()
    fits = [xp.sum(V * V, axis=1) for V in (first, second)]
    seen = xp.sum(counts, axis=0)
    root = xp.sqrt(xp.where(seen > 0, seen, xp.ones_like(seen)))
    scale = quotient(counts, weights)
    tables = [(sums - weights * fit[None, :]) * scale / root[None, :] for fit in fits]
    tables += [sums * scale / root[None, :], counts / root[None, :]]
    apart = float(xp.sum(seen * (fits[0] - fits[1]) ** 2)) / max(float(xp.sum(seen)), 1.0)
    between = [_floats(xp.matmul(table, table.mT)) for table in tables]
    return Grams(between[0], between[1], between[2], between[3], apart, 1.0 / moments.n_features)


def _blocks(moments: PairMoments, table: SparseTable | DenseTable, factors: tuple[Any, Any]) -> Iterator[Block]:
    """Counts, weights and sums (g, p) of consecutive pairs, and what the fits say there (p,)."""
    if isinstance(table, SparseTable):
        yield from _sparse_blocks(moments, table, factors)
    else:
        yield _dense_block(moments, table, factors)


def _sparse_blocks(moments: PairMoments, table: SparseTable, factors: tuple[Any, Any]) -> Iterator[Block]:
    run, pairs, groups = table.run(), table.pairs(), table.groups()
    xp = array_namespace(pairs)
    starts, place = places(pairs)
    pattern, n = table.pattern(pairs[starts]), int(starts.shape[0])
    fits = [kernel("sampled_products", xp)(V, V, pattern.indices, pattern.indptr) for V in factors]
    for lo in range(0, n, _CHUNK):
        hi = min(lo + _CHUNK, n)
        keys = slice(int(starts[lo]), int(starts[hi]) if hi < n else int(pairs.shape[0]))
        at, group = place[keys], groups[keys]
        counts = xp.astype(run.counts[keys], xp.float64)
        weights, sums = moments.centred(run.sums[keys, :], counts, pattern.rows[at], pattern.indices[at])
        wide = []
        for values in (counts, weights, sums):
            laid = xp.zeros((moments.n_groups, hi - lo), dtype=xp.float64)
            laid[group, at - lo] = values
            wide.append(laid)
        yield wide[0], wide[1], wide[2], [fit[lo:hi] for fit in fits]


def _dense_block(moments: PairMoments, table: DenseTable, factors: tuple[Any, Any]) -> Block:
    """All pairs at once, each in both orders, and zeros for the diagonal."""
    d = moments.n_features
    xp = array_namespace(table.sums)
    off = 1.0 - xp.eye(d, dtype=xp.float64, device=device_of(table.sums))
    wide: list[list[Any]] = [[], [], []]
    for group in range(moments.n_groups):
        counts = xp.astype(table.counts[group, ...], xp.float64) * off
        weights, sums = moments.centred(table.sums[:, group, ...], counts, None, None)
        for rows, values in zip(wide, (counts, weights * off, sums * off), strict=True):
            rows.append(xp.reshape(values, (-1,)))
    fits = [xp.reshape(xp.matmul(V, V.mT) * off, (-1,)) for V in factors]
    return xp.stack(wide[0]), xp.stack(wide[1]), xp.stack(wide[2]), fits
