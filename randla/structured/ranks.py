"""Ranks from spectra: of one matrix, of many under one budget, and of the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_array_api_obj

from .._arrays import to_host
from .._checks import check_choice, check_integer, check_real
from .._results import Result, Status
from .likelihoods import description_lengths, evidences

#: How `choose_rank` decides.
METHODS = ("energy", "welore", "stable", "gavish-donoho", "mdl", "minka")
#: What `select_ranks` spends its budget by.
CRITERIA = ("welore", "energy", "params")


@dataclass(frozen=True, repr=False)
class RankChoice(Result):
    """The rank that a rule reads from a spectrum, and what it leaves behind.

    Attributes
    ----------
    rank : int
    error : float
        ``||A - A_rank||_F / ||A||_F`` of the best approximation of that rank, exact.
    threshold : float
        Singular values from here on are kept; infinity where none is.
    method : str
    status : Status
        NONFINITE where the spectrum holds NaN or infinity.
    """

    rank: int
    error: float
    threshold: float
    method: str
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("rank",)


def choose_rank(
    s: Any, method: str = "energy", *, level: float | None = None, scaling: str = "minmax",
    shape: tuple[int, int] | None = None, noise: float | None = None,
) -> RankChoice:  # fmt: skip
    """Choose the rank of a matrix from its singular values.

    The rules answer different questions.  "energy" and "welore" cut a spectrum without a gap at a level that is chosen
    beforehand; "gavish-donoho", "mdl" and "minka" ask where the noise begins, and find no rank of interest in a
    spectrum that has none; "stable" is a size, ``ceil(sum(s**2) / s[0]**2)``, rather than a cut.

    Parameters
    ----------
    s : array, shape (k,)
        Singular values, descending.  All min(m, n) of them for "gavish-donoho", "mdl", "minka" and for
        ``scaling="minmax"``; for the others the rest counts as zero.
    method : {"energy", "welore", "stable", "gavish-donoho", "mdl", "minka"}, default "energy"
    level : float in [0, 1], default 0.9 for "energy" and 0.1 for "welore"
        "energy": the share of the sum of squares to keep.  "welore": values are kept where the scaled one is at least
        `level`.
    scaling : {"minmax", "max"}, default "minmax"
        "welore": scale to ``(s - s[-1]) / (s[0] - s[-1])`` as in [1]_, or to ``s / s[0]``, which does not lean on the
        least singular value and needs only the leading ones.
    shape : tuple of two int, default (k, k)
        Shape (m, n) of the matrix: for "gavish-donoho", "mdl" and "minka", which take the m rows for samples.
    noise : float, noise > 0, optional
        Standard deviation of the noise in each entry, for "gavish-donoho"; unknown by default.

    Returns
    -------
    RankChoice
        ``rank`` with the error that it leaves and the threshold; iterates as ``rank``.

    Raises
    ------
    ValueError
        If `s` is not a descending vector of nonnegative numbers, or a parameter is out of range.

    Notes
    -----
    "gavish-donoho" [2]_ keeps singular values above ``lambda(b) sqrt(max(m, n)) noise`` or, for unknown noise, above
    ``omega(b) median(s)``, with b = min(m, n) / max(m, n); ``omega(1) = 2.858``, other values from the median of the
    Marchenko-Pastur law.  "mdl" is the criterion of [3]_ for real data, "minka" the evidence of [4]_; for both the
    matrix should have centred columns and more rows than columns.

    References
    ----------
    .. [1] Jaiswal, Yin, Zhang, Liu, Zhao, Tian and Wang, "From low rank gradient subspace stabilization to low-rank
       weights", arXiv:2407.11239.
    .. [2] Gavish and Donoho, "The optimal hard threshold for singular values is 4 / sqrt(3)", IEEE Trans. Inf. Theory
       60 (2014).
    .. [3] Wax and Kailath, "Detection of signals by information theoretic criteria", IEEE Trans. Acoust. 33 (1985).
    .. [4] Minka, "Automatic choice of dimensionality for PCA", NeurIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import choose_rank
    >>> choose_rank(2.0 ** -np.arange(20.0), "energy", level=0.99).rank
    4
    >>> noisy = np.random.default_rng(0).standard_normal((100, 100))
    >>> noisy[:, :3] += 50
    >>> choose_rank(np.linalg.svd(noisy)[1], "gavish-donoho").rank
    1
    """
    check_choice(method, "method", METHODS)
    check_choice(scaling, "scaling", ("minmax", "max"))
    s, finite = _spectrum(s, "s")
    shape = _shape(shape, "shape", s.size)
    noise = None if noise is None else check_real(noise, "noise", low=0.0, closed="neither")
    if level is None:
        level = 0.9 if method == "energy" else 0.1
    level = check_real(level, "level", low=0.0, high=1.0)
    if not finite:
        return RankChoice(0, math.nan, math.nan, method, Status.NONFINITE)
    if s.size == 0 or s[0] == 0.0:
        return RankChoice(0, 0.0, math.inf, method, Status.CONVERGED)
    if method == "welore":
        rank = int(np.sum(_scaled(s, scaling) >= level))
    else:
        rank = _rank(s / s[0], method, level, shape, None if noise is None else noise / s[0])
    return RankChoice(rank, _tail_error(s, rank), float(s[rank - 1]) if rank else math.inf, method, Status.CONVERGED)


def _rank(s: np.ndarray, method: str, level: float, shape: tuple[int, int], noise: float | None) -> int:
    """The rank by one rule for a spectrum with ``s[0] == 1``."""
    if method == "energy":
        total = np.cumsum(s**2)
        # a share that rounding alone keeps from being reached is reached
        return int(np.sum(total < level * total[-1] * (1 - 4 * np.finfo(float).eps))) + 1 if level > 0 else 0
    if method == "stable":
        return min(s.size, math.ceil(float(s @ s) * (1 - 1e-12)))
    _needs_all(s, shape, method)
    if method == "gavish-donoho":
        return int(np.sum(s > _hard_threshold(s, shape, noise)))
    variances = np.maximum(s**2 / shape[0], np.finfo(float).tiny)
    n_samples, variances = (shape[0], variances) if shape[0] >= shape[1] else (shape[1], variances)
    if method == "mdl":
        return int(np.argmin(description_lengths(variances, n_samples)))
    return int(np.argmax(evidences(variances, n_samples)))


def _needs_all(s: np.ndarray, shape: tuple[int, int], method: str) -> None:
    if s.size != min(shape):
        raise ValueError(
            f"s must hold all {min(shape)} singular values for method={method!r}, got {s.size}; "
            "choose another method for a leading part"
        )


def _scaled(s: np.ndarray, scaling: str) -> np.ndarray:
    """Singular values scaled to [0, 1]; a flat spectrum is kept whole."""
    if scaling == "max":
        return s / s[0]
    spread = s[0] - s[-1]
    return (s - s[-1]) / spread if spread > 0 else np.ones_like(s)


def _hard_threshold(s: np.ndarray, shape: tuple[int, int], noise: float | None) -> float:
    """The optimal hard threshold for white noise of known or unknown level."""
    ratio = min(shape) / max(shape)
    known = math.sqrt(2 * (ratio + 1) + 8 * ratio / ((ratio + 1) + math.sqrt(ratio**2 + 14 * ratio + 1)))
    if noise is not None:
        return known * math.sqrt(max(shape)) * noise
    return known / math.sqrt(marchenko_pastur_median(ratio)) * float(np.median(s))


def marchenko_pastur_median(ratio: float) -> float:
    """The median of the Marchenko-Pastur law of unit variance and 0 < ratio <= 1, to seven digits."""
    # with x = 1 + ratio + 2 sqrt(ratio) cos(t) the density is 2 / pi sin(t)**2 / x, smooth over [0, pi]
    t = (np.arange(200_000) + 0.5) * (math.pi / 200_000)
    x = 1 + ratio + 2 * math.sqrt(ratio) * np.cos(t)
    mass = np.cumsum(np.sin(t) ** 2 / x)
    t_median = np.interp(0.5, mass / mass[-1], t + 0.5 * math.pi / 200_000)
    return float(1 + ratio + 2 * math.sqrt(ratio) * math.cos(t_median))


@dataclass(frozen=True, repr=False)
class RankSelection(Result):
    """Ranks of many matrices under one budget.

    Attributes
    ----------
    ranks : dict
        Name of each matrix -> its rank; that of a matrix kept whole is its full rank.
    dense : tuple
        Names of the matrices that are better kept whole, without factors.
    threshold : float
        The level of the criterion at which the budget was met.
    achieved : float
        What is kept: share of the ranks, or of the parameters for "params".
    budget : float
        What was allowed.
    n_parameters : int or None
        Numbers stored: ``rank (m + n)`` of the factored matrices and ``m n`` of the others; None without shapes.
    errors : dict
        Name -> relative Frobenius error of the matrix at its rank, exact.
    error : float
        The same of all matrices together.
    status : Status
    """

    ranks: dict[Any, int]
    dense: tuple[Any, ...]
    threshold: float
    achieved: float
    budget: float
    n_parameters: int | None
    errors: dict[Any, float]
    error: float
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("ranks",)


def select_ranks(
    spectra: Mapping[Any, Any] | Sequence[Any], *, budget: float, criterion: str = "welore",
    shapes: Mapping[Any, tuple[int, int]] | Sequence[tuple[int, int]] | None = None, scaling: str = "minmax",
    min_ratio: float = 0.0,
) -> RankSelection:  # fmt: skip
    """Choose the ranks of many matrices so that together they keep a given share.

    Parameters
    ----------
    spectra : mapping or sequence of arrays, shapes (k_i,)
        All singular values of each matrix, descending; a sequence is numbered 0, 1, ...
    budget : float in [0, 1]
        Share to keep: of the sum of all ranks for "welore" and "energy", of the parameters ``sum(m n)`` for "params".
    criterion : {"welore", "energy", "params"}, default "welore"
        "welore": one threshold for the scaled singular values of all matrices [1]_.  "energy": one threshold for the
        share of its own sum of squares that each matrix leaves out.  "params": the least total squared error that the
        parameters buy, by steps of falling gain per parameter; `shapes` is needed.
    shapes : mapping or sequence of (m, n), optional
        Shapes of the matrices; with them matrices that factors do not make smaller are kept whole.
    scaling : {"minmax", "max"}, default "minmax"
        "welore": as in `choose_rank`.
    min_ratio : float in [0, 1), default 0.0
        Factor a matrix only if that saves more than this share of its parameters ("welore" and "energy").

    Returns
    -------
    RankSelection
        ``ranks`` by name, with errors and what is achieved; iterates as ``ranks``.

    Raises
    ------
    ValueError
        If a spectrum is not a descending vector of nonnegative numbers, or a parameter is out of range.

    Notes
    -----
    The share achieved is that asked for up to one rank of one matrix, and one more for each tie at the threshold.
    Factors of rank r are smaller than the matrix only for ``r < m n / (m + n)``, half of the rank of a square one: a
    budget of 0.6 by "welore" can so leave no matrix smaller.  "params" knows this: its steps are the upper concave
    hull of kept squares against parameters, the last of them from factors to the whole matrix, and what is left of the
    budget buys single ranks.  At the corners of the hulls the choice is optimal (Lagrange); in between it loses less
    than the step that did not fit.

    References
    ----------
    .. [1] Jaiswal, Yin, Zhang, Liu, Zhao, Tian and Wang, "From low rank gradient subspace stabilization to low-rank
       weights", arXiv:2407.11239.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import select_ranks
    >>> spectra = {"steep": 0.5 ** np.arange(8.0), "flat": 0.9 ** np.arange(8.0)}
    >>> select_ranks(spectra, budget=0.5).ranks
    {'steep': 3, 'flat': 5}
    """
    check_choice(criterion, "criterion", CRITERIA)
    check_choice(scaling, "scaling", ("minmax", "max"))
    budget = check_real(budget, "budget", low=0.0, high=1.0)
    min_ratio = check_real(min_ratio, "min_ratio", low=0.0, high=1.0, closed="left")
    names, values, finite = _named(spectra)
    sizes = _sizes(shapes, names, values)
    if criterion == "params" and sizes is None:
        raise ValueError('shapes must be given for criterion="params", got None')
    if not finite:
        ranks = dict.fromkeys(names, 0)
        return RankSelection(ranks, (), math.nan, math.nan, budget, None, {}, math.nan, Status.NONFINITE)
    if criterion == "params":
        chosen, whole, threshold = _by_gain(values, sizes or [], budget)
    else:
        chosen, threshold = _by_level([_levels(s, criterion, scaling) for s in values], budget)
        whole = [
            sizes is not None and (m + n) * r >= (1 - min_ratio) * m * n
            for r, (m, n) in zip(chosen, sizes or [(0, 0)] * len(names), strict=True)
        ]
    return _selection(names, values, sizes, chosen, whole, threshold, budget, criterion)


def _selection(
    names: list[Any], values: list[np.ndarray], sizes: list[tuple[int, int]] | None, chosen: list[int],
    whole: list[bool], threshold: float, budget: float, criterion: str,
) -> RankSelection:  # fmt: skip
    n_parameters = None
    if sizes is not None:
        stored = [m * n if w else r * (m + n) for r, w, (m, n) in zip(chosen, whole, sizes, strict=True)]
        n_parameters = sum(stored)
    if criterion == "params":
        share = n_parameters, sum(m * n for m, n in sizes or [])
    else:
        share = sum(chosen), sum(s.size for s in values)
    ranks = [s.size if w else r for r, w, s in zip(chosen, whole, values, strict=True)]
    errors = {name: _tail_error(s, r) for name, s, r in zip(names, values, ranks, strict=True)}
    scale = max([float(s[0]) for s in values if s.size], default=0.0) or 1.0  # squares must not overflow
    left = sum(float(np.sum((s[r:] / scale) ** 2)) for s, r in zip(values, ranks, strict=True))
    total = sum(float(np.sum((s / scale) ** 2)) for s in values)
    return RankSelection(
        dict(zip(names, ranks, strict=True)), tuple(name for name, w in zip(names, whole, strict=True) if w),
        threshold, share[0] / share[1] if share[0] and share[1] else 0.0, budget, n_parameters, errors,
        math.sqrt(left / total) if total > 0 else 0.0, Status.CONVERGED,
    )  # fmt: skip


def _levels(s: np.ndarray, criterion: str, scaling: str) -> np.ndarray:
    """Descending levels: rank r is kept while the threshold is at most ``levels[r - 1]``."""
    if s.size == 0 or s[0] == 0.0:
        return np.zeros_like(s)
    if criterion == "welore":
        return _scaled(s, scaling)
    left = np.cumsum((s[::-1] / s[0]) ** 2)[::-1]  # what is left out without this value and those after it
    return left / left[0]


def _by_level(levels: list[np.ndarray], budget: float) -> tuple[list[int], float]:
    """Ranks by one threshold for all levels, chosen so that the sum of ranks is nearest to the budget."""
    pooled = np.sort(np.concatenate([np.zeros(0), *levels]))[::-1]
    wanted = budget * pooled.size
    if pooled.size == 0 or round(wanted) == 0:
        return [0] * len(levels), math.inf
    threshold = pooled[round(wanted) - 1]
    at, above = (pooled >= threshold).sum(), (pooled > threshold).sum()
    if abs(above - wanted) < abs(at - wanted):  # a tie: all of it, or nothing
        threshold = np.nextafter(threshold, np.inf)
    return [int(np.sum(level >= threshold)) for level in levels], float(threshold)


def _by_gain(
    values: list[np.ndarray], sizes: list[tuple[int, int]], budget: float
) -> tuple[list[int], list[bool], float]:
    """Ranks that keep the largest sum of squares for the parameters of the budget: greedy on concave hulls."""
    scale = max([float(s[0]) for s in values if s.size], default=0.0) or 1.0
    steps: list[tuple[float, int, int]] = []
    for i, (s, (m, n)) in enumerate(zip(values, sizes, strict=True)):
        steps += [(gain, -i, to) for gain, to in _hull((s / scale) ** 2, m, n)]
    steps.sort(key=lambda step: (-step[0], -step[1], step[2]))  # within a matrix gains fall, so its steps stay in order
    ranks, whole = [0] * len(values), [False] * len(values)
    money, threshold = budget * sum(m * n for m, n in sizes), math.inf
    money *= 1 + 1e-12  # a budget of exactly some ranks buys them
    for gain, index, to in steps:
        i = -index
        m, n = sizes[i]
        last = values[i].size if whole[i] else ranks[i]
        cost = (m * n if to < 0 else to * (m + n)) - last * (m + n)
        if cost <= money:
            ranks[i], whole[i], money, threshold = max(to, ranks[i]), to < 0, money - cost, gain * scale**2
            continue
        more = min(int(money // (m + n)), (m * n - 1) // (m + n) - ranks[i], values[i].size - ranks[i])
        if more > 0:  # a part of a step from factors to the whole matrix
            ranks[i], money = ranks[i] + more, money - more * (m + n)
    return ranks, whole, threshold


def _hull(squares: np.ndarray, m: int, n: int) -> list[tuple[float, int]]:
    """Steps (gain per parameter, rank to go to) of the concave hull; rank -1 is the whole matrix.

    Single ranks have falling gains, so only the last point, the whole matrix, can cut corners: it is reached from the
    rank at which a single rank brings less than the whole rest does.
    """
    left = np.concatenate([np.cumsum(squares[::-1])[::-1], [0.0]])
    steps: list[tuple[float, int]] = []
    for r in range(squares.size + 1):
        rest = m * n - r * (m + n)
        single = squares[r] / (m + n) if r < squares.size else 0.0
        if rest <= m + n or (left[r] > 0 and left[r] / rest >= single):
            return [*steps, (float(left[r] / rest) if rest > 0 else 0.0, -1)] if left[r] > 0 else steps
        if single <= 0.0:
            return steps
        steps.append((float(single), r + 1))
    return steps


def allocate_ranks(scores: Any, average: float, *, temperature: float, cap: float = 0.8) -> Any:
    """Share out a compression over layers by how much each of them matters.

    Maximises ``sum(scores * (1 - removed)) + temperature * entropy(removed)`` over the removed fractions with the given
    average and at most `cap` each: ``removed = min(cap, c exp(-scores / temperature))`` with the c that gives the
    average.

    Parameters
    ----------
    scores : array, shape (n,)
        Importance of each layer, for example the mean of ``1 - cos(input, output)``.
    average : float in [0, cap]
        Average of the fractions to remove.
    temperature : float, temperature > 0
        In the unit of the scores: the larger, the more equal the fractions.  0.015 to 0.15 is usual for scores
        ``1 - cos`` [1]_.
    cap : float in (0, 1], default 0.8
        No layer loses more.

    Returns
    -------
    array, shape (n,)
        Removed fractions.  A layer keeps ``round((1 - removed) * width)`` of its width.

    Raises
    ------
    ValueError
        If the scores are not a finite vector, or a parameter is out of range.

    References
    ----------
    .. [1] Lin, Gao, Smith, Patel, Tuli, Shen, Jin and Hsu, "MoDeGPT: modular decomposition for large language model
       compression", arXiv:2408.09632.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import allocate_ranks
    >>> allocate_ranks([0.4, 0.1, 0.05, 0.3], 0.3, temperature=0.2).round(3)
    array([0.093, 0.417, 0.536, 0.154])
    """
    scores = _vector(scores, "scores")
    if not np.all(np.isfinite(scores)):
        raise ValueError("scores must be finite, got NaN or infinity")
    cap = check_real(cap, "cap", low=0.0, high=1.0, closed="right")
    average = check_real(average, "average", low=0.0, high=cap)
    temperature = check_real(temperature, "temperature", low=0.0, closed="neither")
    removed = np.zeros_like(scores)
    if scores.size == 0 or average == 0.0:
        return removed
    order = np.argsort(scores, kind="stable")
    total = average * scores.size
    for n_capped in range(scores.size):  # the layers of least score reach the cap first
        rest = order[n_capped:]
        weights = np.exp((scores[rest[0]] - scores[rest]) / temperature)
        free = (total - n_capped * cap) * weights / weights.sum()
        if free[0] <= cap:
            removed[rest] = np.maximum(free, 0.0)
            break
        removed[order[n_capped]] = cap
    return removed


def _vector(values: Any, name: str) -> np.ndarray:
    """A short vector on the host in double precision: what is decided from it are numbers of the language."""
    host = to_host(values) if is_array_api_obj(values) else np.asarray(values)
    if host.ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {host.shape}")
    if host.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {host.dtype}")
    return host.astype(np.float64)


def _spectrum(s: Any, name: str) -> tuple[np.ndarray, bool]:
    s = _vector(s, name)
    if not np.all(np.isfinite(s)):
        return s, False
    if np.any(s < 0) or np.any(s[1:] > s[:-1]):
        raise ValueError(f"{name} must be nonnegative and descending, got other numbers; sort the singular values")
    return s, True


def _shape(shape: Any, name: str, k: int) -> tuple[int, int]:
    if shape is None:
        return (k, k)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"{name} must be a pair (m, n), got {shape!r}")
    m, n = (check_integer(side, name, low=0) for side in shape)
    if k > min(m, n):
        raise ValueError(f"{name} must have sides of at least {k}, the number of singular values, got {(m, n)}")
    return m, n


def _named(spectra: Any) -> tuple[list[Any], list[np.ndarray], bool]:
    if isinstance(spectra, Mapping):
        items = list(spectra.items())
    elif isinstance(spectra, Sequence) and not isinstance(spectra, (str, bytes)):
        items = list(enumerate(spectra))
    else:
        raise TypeError(f"spectra must be a mapping or a sequence of vectors, got {type(spectra).__name__}")
    found = [_spectrum(s, f"spectra[{name!r}]") for name, s in items]
    return [name for name, _ in items], [s for s, _ in found], all(finite for _, finite in found)


def _sizes(shapes: Any, names: list[Any], values: list[np.ndarray]) -> list[tuple[int, int]] | None:
    if shapes is None:
        return None
    known = dict(shapes) if isinstance(shapes, Mapping) else dict(enumerate(shapes))
    if set(known) != set(names):
        raise ValueError(f"shapes must name the matrices of spectra, got {sorted(map(str, known))}")
    return [_shape(known[name], f"shapes[{name!r}]", s.size) for name, s in zip(names, values, strict=True)]


def _tail_error(s: np.ndarray, rank: int) -> float:
    """Relative Frobenius error of the best approximation of that rank."""
    if s.size == 0 or s[0] == 0.0:
        return 0.0
    squares = (s / s[0]) ** 2
    return math.sqrt(float(np.sum(squares[rank:])) / float(np.sum(squares)))
