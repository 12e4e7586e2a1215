"""Rank and ridge by the error of entries held out, with the one-standard-error rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from array_api_compat import array_namespace

from .._checks import check_choice, check_integer, check_real
from .._random import as_key
from .._results import Result, Status, warn_or_raise
from .als import complete
from .als_start import gaussian, sparse_product
from .observations import Observations, as_observations
from .results import CompletionResult

_NORMAL_95 = 1.959963984540054  # quantile of the normal distribution for intervals of 95 %
_COLLAPSED = 1e-3  # of the largest product of lengths: what a strong ridge leaves of a pair of columns
_POWER_STEPS = 8  # for the largest ridge: within a few percent, where a path of three decades begins
RULES = ("one-se", "least")


@dataclass(frozen=True, repr=False)
class ValidationCurve(Result):
    """Held-out errors along ranks or ridges, the value chosen, and the fit to all entries with it.

    Attributes
    ----------
    parameter : str
        "rank" or "reg".
    values : tuple
        What was tried, in the order of the fits.
    errors : tuple of float
        Root mean square error of the same held-out entries for each.
    standard_errors : tuple of float
        Of those errors.
    training_errors : tuple of float
        Root mean square of the residuals of the fitted entries.
    least : float or int
        The value of the least error.
    chosen : float or int
        By "one-se" the simplest value, of the least rank or the largest ridge, whose error is within one standard error
        of the least; by "least" that one itself.
    result : CompletionResult
        The fit to all entries with the value chosen.
    status : Status
        That of `result`.
    """

    parameter: str
    values: tuple[Any, ...]
    errors: tuple[float, ...]
    standard_errors: tuple[float, ...]
    training_errors: tuple[float, ...]
    least: Any
    chosen: Any
    result: CompletionResult
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("values", "errors")


def choose_completion_rank(
    X: Any, ranks: Sequence[int], *, reg: float = 0.1, options: Mapping[str, Any] | None = None,
    validation_fraction: float = 0.1, rule: str = "one-se", rng: Any = None, on_failure: str = "warn",
) -> ValidationCurve:  # fmt: skip
    """Choose the rank of `complete` by the error of entries that are held out.

    Fits from the lowest rank to the highest, each from the factors before, with the same entries held out; then fits
    all entries with the rank chosen.

    Parameters
    ----------
    X : sparse matrix, or array with NaN, shape (m, n)
        The observed entries.
    ranks : sequence of int
        Ranks to try; 0 stands for biases only.
    reg : float, default 0.1
        Ridge of all fits.
    options : mapping, optional
        Other arguments of `complete`, such as ``{"bias": False, "loss": "huber"}``.
    validation_fraction : float, 0 < validation_fraction < 1, default 0.1
        Share of the entries held out.
    rule : {"one-se", "least"}, default "one-se"
        Take the least rank whose error is within one standard error of the least one, or that of the least one.
    rng : None, int, SeedSequence, Generator or Key
        Source of what is held out and of starts.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the last fit did not converge.

    Returns
    -------
    ValidationCurve
        Errors, choice and fit; `randla.plot.ValidationCurveDisplay` draws it.

    Raises
    ------
    ValueError
        If `ranks` is empty, or as `complete`.

    Notes
    -----
    The standard error is that of one error, from the spread of the squares.  Errors of two ranks on the same entries
    go together, so their difference is known better than that: the rule errs towards simple models.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 60)) + 0.1 * rng.normal(size=(80, 60))
    >>> X[rng.random(X.shape) < 0.5] = np.nan
    >>> randla.choose_completion_rank(X, range(1, 5), reg=0.01, rng=0).chosen
    2
    """
    observed = as_observations(X)
    tried = sorted({check_integer(rank, "ranks", low=0, high=min(observed.shape)) for rank in ranks})
    if not tried:
        raise ValueError("ranks must have an entry, got none")

    def fit(rank: int, init: Any, **more: Any) -> CompletionResult:
        return complete(observed, rank, reg=reg, init=init, **{**(options or {}), **more})

    return _chosen("rank", tried, fit, validation_fraction, rule, rng, on_failure)


def regularization_path(
    X: Any, rank: int, regs: Sequence[float] | None = None, *, n_regs: int = 10,
    options: Mapping[str, Any] | None = None, validation_fraction: float = 0.1, rule: str = "one-se", rng: Any = None,
    on_failure: str = "warn",
) -> ValidationCurve:  # fmt: skip
    """Choose the ridge of `complete` by the error of entries that are held out.

    Fits from the largest ridge to the smallest, each from the factors before, with the same entries held out; then fits
    all entries with the ridge chosen.

    Parameters
    ----------
    X : sparse matrix, or array with NaN, shape (m, n)
        The observed entries.
    rank : int
        Rank of all fits.
    regs : sequence of float, optional
        Ridges to try.  By default `n_regs` of them in geometric order, from about the one that leaves no factors down
        to a thousandth of it.
    n_regs : int, n_regs >= 1, default 10
        Number of ridges, where none are given.
    options : mapping, optional
        Other arguments of `complete`.
    validation_fraction : float, 0 < validation_fraction < 1, default 0.1
        Share of the entries held out.
    rule : {"one-se", "least"}, default "one-se"
        Take the largest ridge whose error is within one standard error of the least one, or that of the least one.
    rng : None, int, SeedSequence, Generator or Key
        Source of what is held out and of starts.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the last fit did not converge.

    Returns
    -------
    ValidationCurve
        Errors, choice and fit.

    Raises
    ------
    ValueError
        If `regs` is empty or has a negative entry, or as `complete`.

    Examples
    --------
    >>> import numpy as np
    >>> import randla
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 60)) + 0.5 * rng.normal(size=(80, 60))
    >>> X[rng.random(X.shape) < 0.5] = np.nan
    >>> curve = randla.regularization_path(X, 6, rng=0)
    >>> len(curve.errors), bool(min(curve.errors) < curve.errors[-1])
    (10, True)
    """
    observed = as_observations(X)
    key = as_key(rng)
    if regs is None:
        n_regs = check_integer(n_regs, "n_regs", low=1)
        top = _largest_reg(observed, options or {}, key.fold("largest"))
        regs = [top * 10.0 ** (-3.0 * i / max(1, n_regs - 1)) for i in range(n_regs)]
    tried = sorted({check_real(reg, "regs", low=0.0) for reg in regs}, reverse=True)
    if not tried:
        raise ValueError("regs must have an entry, got none")

    def fit(reg: float, init: Any, **more: Any) -> CompletionResult:
        return complete(observed, rank, reg=reg, init=init, **{**(options or {}), **more})

    return _chosen("reg", tried, fit, validation_fraction, rule, key, on_failure)


def _chosen(
    parameter: str, tried: list[Any], fit: Callable[..., CompletionResult], fraction: float, rule: str, rng: Any,
    on_failure: str,
) -> ValidationCurve:  # fmt: skip
    """The curve of values from the simplest to the richest, each fitted from the one before."""
    fraction = check_real(fraction, "validation_fraction", low=0.0, high=1.0, closed="neither")
    check_choice(rule, "rule", RULES)
    key, init, fits, chosen_init = as_key(rng), None, [], []
    for value in tried:
        found = fit(value, init, validation_fraction=fraction, rng=key, on_failure="ignore")
        low, high = found.error_interval or (math.nan, math.nan)
        fits.append((found.error, (high - low) / (2 * _NORMAL_95), _training_error(found)))
        init = _living(found)
        chosen_init.append(init)
    errors, spreads, training = zip(*fits, strict=True)
    finite = [i for i, error in enumerate(errors) if math.isfinite(error)]
    if not finite:
        raise ValueError(f"{parameter}s must give a finite held-out error, got none for {tried}")
    least = min(finite, key=lambda i: errors[i])
    chosen = least
    if rule == "one-se":
        chosen = next(i for i in finite if errors[i] <= errors[least] + spreads[least])
    result = fit(tried[chosen], chosen_init[chosen], rng=key, on_failure="ignore")
    curve = ValidationCurve(
        parameter, tuple(tried), errors, spreads, training, tried[least], tried[chosen], result, result.status
    )
    return warn_or_raise(curve, on_failure, what="the fit to all entries")


def _training_error(found: CompletionResult) -> float:
    """Root mean square of the residuals of the entries that a result was fitted to."""
    if found.training is None or found.training.observations.nnz == 0:
        return math.nan
    X = found.training.observations
    xp = X.xp
    errors = xp.astype(X.data - found.predict(X.rows, X.indices), xp.float64)
    return math.sqrt(float(xp.mean(errors * errors)))


def _living(found: CompletionResult) -> CompletionResult | None:
    """The result without the pairs of columns that its ridge has emptied, which would not grow again."""
    xp = array_namespace(found.row_factors)
    lengths = [xp.linalg.vector_norm(xp.astype(F, xp.float64), axis=0) for F in found]
    if found.rank == 0:
        return found
    sizes = lengths[0] * lengths[1]
    kept = sizes > _COLLAPSED * float(xp.max(sizes))
    if not bool(xp.any(kept)):
        return None
    return replace(found, row_factors=found.row_factors[:, kept], col_factors=found.col_factors[:, kept])


def _largest_reg(X: Observations, options: Mapping[str, Any], key: Any) -> float:
    """About the least ridge for which all factors are zero: the largest singular value of the scaled residuals.

    Scaled by the roots of the ridges of rows and columns, since a sum of squares of factors is at least twice the
    nuclear norm of their product.
    """
    xp, power = X.xp, 0.5 * float(options.get("reg_exponent", 1.0))
    biased = bool(options.get("bias", True))
    base = complete(X, 0, reg=0.1, bias=biased, max_iter=5, on_failure="ignore", rng=0)
    rest = X.data - base.predict(X.rows, X.indices)
    one = xp.ones((), dtype=xp.float64)
    roots = [xp.where(c > 0, xp.astype(c, xp.float64), one) ** power for c in (X.row_counts, X.col_counts)]
    scaled = rest / xp.astype(xp.take(roots[0], X.rows) * xp.take(roots[1], X.indices), rest.dtype)
    R = X.with_values(scaled)
    v = gaussian(key, X.shape[1], 1, rest, xp)
    size = 0.0
    for _ in range(_POWER_STEPS):
        norm = float(xp.linalg.vector_norm(v))
        if norm == 0.0:
            break
        u = sparse_product(R, v / norm)
        size, v = float(xp.linalg.vector_norm(u)), sparse_product(R.transposed, u)
    return size if size > 0.0 else 1.0
