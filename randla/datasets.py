"""Matrices whose answers are known: prescribed spectrum, coherence and sparsity, ratings with a truth, from a key.

The zoo is what tests and benchmarks run on; every matrix is a NumPy or SciPy one and is the same on each machine up to
the rounding of LAPACK.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._backend import kernel
from ._checks import check_choice, check_integer, check_real
from ._random import Key, Stream, as_key

#: Names of the spectra that `spectrum` knows.
SPECTRA = (
    "inverse-root", "inverse", "inverse-square", "exponential", "geometric",
    "flat", "low-rank", "staircase", "spiked", "gap",
)  # fmt: skip

#: Pairs of a user and an item that are rated at a time.
_PAIRS = 2**20
#: Rounds of drawing items, after which a race over all items draws what is missing.
_ROUNDS = 32


def spectrum(kind: str, n: int) -> np.ndarray:
    """Singular values of a named shape, descending from 1.

    Parameters
    ----------
    kind : str
        "inverse-root", "inverse" and "inverse-square": ``j**-0.5``, ``j**-1``, ``j**-2``; "exponential":
        ``exp(-j / 20)``; "geometric": ``2**-j`` down to the rounding level and beyond; "flat": all 1; "low-rank":
        n / 10 ones, then zeros; "staircase": steps of width n / 8, each a tenth of the one before; "spiked": n / 20
        values between 1 and 0.5 over a flat floor of 0.002; "gap": n / 10 ones over ``1e-6 j**-1``.
    n : int, n >= 0
        Number of values.

    Returns
    -------
    array, shape (n,)
    """
    check_choice(kind, "kind", SPECTRA)
    n = check_integer(n, "n", low=0)
    j = np.arange(n, dtype=np.float64)
    few = max(1, n // 10)
    if kind.startswith("inverse"):
        return (j + 1.0) ** {"inverse-root": -0.5, "inverse": -1.0, "inverse-square": -2.0}[kind]
    if kind == "staircase":
        return 10.0 ** -(j // max(1, n // 8))
    spikes = max(1, n // 20)
    return {
        "exponential": lambda: np.exp(-j / 20.0),
        "geometric": lambda: 2.0**-j,
        "flat": lambda: np.ones(n),
        "low-rank": lambda: np.where(j < few, 1.0, 0.0),
        "spiked": lambda: np.where(j < spikes, 1.0 - 0.5 * j / spikes, 0.002),
        "gap": lambda: np.where(j < few, 1.0, 1e-6 / (j + 1.0)),
    }[kind]()


def orthonormal_columns(m: int, k: int, *, coherence: str = "low", rng: Any = None) -> np.ndarray:
    """Orthonormal columns, shape (m, k), with spread or concentrated rows.

    Parameters
    ----------
    m, k : int, 0 <= k <= m
    coherence : {"low", "high"}, default "low"
        "low": uniformly distributed; "high": k rows of the identity with signs, so that every leverage score is 0 or 1.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    array, shape (m, k)
    """
    m = check_integer(m, "m", low=0)
    k = check_integer(k, "k", low=0, high=m, remedy=f"only {m} columns fit into {m} dimensions")
    check_choice(coherence, "coherence", ("low", "high"))
    key = as_key(rng)
    if k == 0:
        return np.zeros((m, 0))
    if coherence == "high":
        rows = np.argsort(kernel("uniforms", np)(key, 2, 0, m), kind="stable")[:k]
        Q = np.zeros((m, k))
        Q[rows, np.arange(k)] = kernel("rademacher_table", np)(key, 0, k, 1, np.float64)[:, 0]
        return Q
    G = kernel("gaussian_table", np)(key, 0, m, k, np.float64)
    return np.linalg.qr(G)[0]


def with_spectrum(
    m: int, n: int, s: Any, *, coherence: str = "low", dtype: Any = np.float64, rng: Any = None
) -> np.ndarray:
    """Matrix ``U @ diag(s) @ V^*``, shape (m, n), with the singular values `s`.

    Parameters
    ----------
    m, n : int
    s : array, shape (min(m, n),)
        Singular values in any order.
    coherence : {"low", "high"}, default "low"
        Of both factors, see `orthonormal_columns`.
    dtype : dtype, default float64
        A complex dtype gives complex factors.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    array, shape (m, n)
    """
    s = np.asarray(s, np.float64)
    k, key = min(m, n), as_key(rng)
    if s.shape != (k,):
        raise ValueError(f"s must have min(m, n) = {k} values, got shape {s.shape}")
    factors = []
    for label, size in (("left", m), ("right", n)):
        Q = orthonormal_columns(size, k, coherence=coherence, rng=key.fold(label))
        if np.dtype(dtype).kind == "c":
            turn = np.exp(2j * np.pi * kernel("uniforms", np)(key.fold(label), 2, 0, size))
            Q = turn[:, None] * Q
        factors.append(Q)
    return np.ascontiguousarray(((factors[0] * s) @ factors[1].conj().T).astype(dtype))


def sparse_matrix(m: int, n: int, nnz: int, *, skew: float = 1.0, rng: Any = None) -> Any:
    """Random CSR matrix with standard normal entries at random places, columns of uneven weight.

    Parameters
    ----------
    m, n : int
    nnz : int
        Draws of a place; those that fall together add up.
    skew : float, default 1.0
        A column index is ``n u**skew`` for uniform u: 1 spreads them evenly, 2 fills the first columns.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    csr_array, shape (m, n)
    """
    from scipy.sparse import coo_array

    skew = check_real(skew, "skew", low=0.0, closed="neither")
    key = as_key(rng)
    rows = kernel("uniform_rows", np)(key.fold("rows"), m, nnz)
    columns = (n * kernel("uniforms", np)(key.fold("columns"), 2, 0, nnz) ** skew).astype(np.int64)
    values = kernel("gaussian_table", np)(key.fold("values"), 0, nnz, 1, np.float64)[:, 0]
    return coo_array((values, (rows, np.minimum(columns, n - 1))), shape=(m, n)).tocsr()


@dataclass(frozen=True)
class LowRankProblem:
    """A matrix with its exact singular values and a tolerance to reach.

    Attributes
    ----------
    name : str
    A : array, shape (m, n)
    s : array, shape (min(m, n),)
        Singular values, descending.
    tol : float
        Relative Frobenius tolerance.
    least_rank : int
        Smallest rank whose best approximation meets `tol`.
    """

    name: str
    A: np.ndarray
    s: np.ndarray
    tol: float

    @property
    def least_rank(self) -> int:
        """Smallest rank whose best approximation meets `tol`."""
        tails = np.sqrt(np.append(np.cumsum(self.s[::-1] ** 2)[::-1], 0.0))
        return int(np.argmax(tails <= self.tol * tails[0]))


def low_rank_problems(n_problems: int, *, rng: Any = 0) -> Iterator[LowRankProblem]:
    """Problems of all spectra, tall, wide and square, coherent or not, scaled by 1e-20 to 1e20, with tolerances.

    Parameters
    ----------
    n_problems : int
    rng : None, int, SeedSequence, Generator or Key

    Yields
    ------
    LowRankProblem
    """
    key = as_key(rng)
    for i in range(n_problems):
        sub = key.fold(i)
        u = kernel("uniforms", np)(sub, 2, 0, 6)
        m, n = (20 + int(380 * u[0]), 20 + int(280 * u[1]))
        kind = SPECTRA[i % len(SPECTRA)]
        coherence = "high" if u[2] < 0.25 else "low"
        scale = (1e-20, 1.0, 1.0, 1e20)[int(4 * u[3])]
        tol = float(10.0 ** (-0.3 - 5.7 * u[4]))
        s = scale * spectrum(kind, min(m, n))
        A = with_spectrum(m, n, s, coherence=coherence, rng=sub)
        yield LowRankProblem(f"{i}: {kind} {m}x{n} {coherence} {scale:g} tol {tol:.1e}", A, s, tol)


@dataclass(frozen=True, repr=False)
class SyntheticRatings:
    """Ratings that were drawn, not given by anyone, with the low-rank truth behind them; made by `synthetic_ratings`.

    Attributes
    ----------
    ratings : csr_array, shape (n_users, n_items)
        The stored entries are the ratings, each pair at most once, columns ascending in each row.
    user_factors : array, shape (n_users, rank)
    item_factors : array, shape (n_items, rank)
    user_bias : array, shape (n_users,)
    item_bias : array, shape (n_items,)
    mean : float
    noise : float
        Standard deviation of what was added to the truth before rounding.
    scale : tuple of float or None
        Least and largest rating and the step between two; None: neither rounded nor clipped.
    synthetic : bool
        Always True: figures that come from this object say nothing about people.
    """

    ratings: Any
    user_factors: np.ndarray
    item_factors: np.ndarray
    user_bias: np.ndarray
    item_bias: np.ndarray
    mean: float
    noise: float
    scale: tuple[float, float, float] | None
    synthetic: bool = True

    def __repr__(self) -> str:
        (m, n), matrix = self.ratings.shape, self.ratings
        scale = "not rounded" if self.scale is None else "scale {:g} to {:g} by {:g}".format(*self.scale)
        return (
            f"SyntheticRatings({m:,} x {n:,}, {matrix.nnz:,} synthetic ratings, "
            f"rank {self.user_factors.shape[1]}, noise {self.noise:g}, {scale}, {matrix.dtype})"
        )

    def truth(self, rows: Any, cols: Any) -> np.ndarray:
        """``mean + user_bias[i] + item_bias[j] + user_factors[i] . item_factors[j]``: before noise and rounding.

        Parameters
        ----------
        rows, cols : array of int
            Users and items; broadcast against each other.

        Returns
        -------
        array
            In the precision of the ratings, of the shape that `rows` and `cols` have together.

        Raises
        ------
        IndexError
            If a user or an item is out of range.
        """
        rows, cols = np.broadcast_arrays(np.asarray(rows), np.asarray(cols))
        shape, rows, cols = rows.shape, rows.ravel(), cols.ravel()
        out = np.empty(rows.size, self.ratings.dtype)
        for lo in range(0, rows.size, _PAIRS):
            i, j = rows[lo : lo + _PAIRS], cols[lo : lo + _PAIRS]
            out[lo : lo + _PAIRS] = (
                self.mean + self.user_bias[i] + self.item_bias[j]
                + np.einsum("pk,pk->p", self.user_factors[i], self.item_factors[j])
            )  # fmt: skip
        return out.reshape(shape)

    def noise_floor(self) -> float:
        """Root mean square of ``rating - truth`` over the ratings: what no model of them is expected to go below.

        Noise, rounding and clipping together: near ``sqrt(noise**2 + step**2 / 12)`` where the scale seldom clips.
        """
        rows = np.repeat(np.arange(self.ratings.shape[0]), np.diff(self.ratings.indptr))
        difference = (self.ratings.data - self.truth(rows, self.ratings.indices)).astype(np.float64)
        return float(np.sqrt(np.mean(difference**2)))


def synthetic_ratings(
    n_users: int, n_items: int, n_ratings: int, *, rank: int = 10, noise: float = 0.5,
    activity: float | tuple[float, float] = (0.8, 1.2), scale: tuple[float, float, float] | None = (1.0, 5.0, 1.0),
    dtype: Any = np.float64, rng: Any = None,
) -> SyntheticRatings:  # fmt: skip
    """Draw a sparse matrix of ratings with a planted low rank, biases, and uneven users and items.

    A rating is ``mean + b_i + c_j + x_i . y_j + noise g`` for standard normal g, rounded to the scale and clipped.  The
    mean is the middle of the scale; b and c have a standard deviation of a tenth of its width, ``x_i . y_j`` of an
    eighth.  User number t = 1, 2, ... in the order of activity has ratings in proportion to
    ``(t + n_users / 1000)**-a``, at most n_items; a user's items are drawn one after the other without replacement,
    with probabilities in proportion to ``(t + n_items / 1000)**-b``.  Both orders are random.  Cost:
    O(n_ratings (rank + log n_ratings)) time, about 40 bytes a rating.

    Parameters
    ----------
    n_users, n_items : int
    n_ratings : int, 1 <= n_ratings <= n_users * n_items
    rank : int, default 10
        Of the part ``x_i . y_j``; the biases add 2 to it.
    noise : float, default 0.5
        Standard deviation in units of the ratings.
    activity : float or pair of floats, default (0.8, 1.2)
        The exponents a of users and b of items; one number serves for both, 0 is uniform.
    scale : (low, high, step) or None, default (1, 5, 1)
        Ratings are ``low, low + step, ..., high``; None: not rounded, with the mean and the spread of (1, 5).
    dtype : dtype, default float64
        Of the ratings and of the truth: float64 or float32.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    SyntheticRatings

    Raises
    ------
    ValueError
        If the sizes, exponents or the scale make no sense.

    Notes
    -----
    With the default exponents the users resemble those of the MovieLens data in two figures: the median user has 0.47
    of the mean number of ratings, and the most active one 67 times the mean.

    Examples
    --------
    >>> from randla import datasets
    >>> made = datasets.synthetic_ratings(300, 200, 5000, rank=4, rng=0)
    >>> made
    SyntheticRatings(300 x 200, 5,000 synthetic ratings, rank 4, noise 0.5, scale 1 to 5 by 1, float64)
    >>> made.truth([0, 1], [2, 3]).shape
    (2,)
    """
    n_users = check_integer(n_users, "n_users", low=1)
    n_items = check_integer(n_items, "n_items", low=1)
    n_ratings = check_integer(
        n_ratings, "n_ratings", low=1, high=n_users * n_items, remedy=f"there are {n_users * n_items} pairs"
    )
    rank = check_integer(rank, "rank", low=1)
    noise = check_real(noise, "noise", low=0.0)
    exponents = activity if isinstance(activity, tuple) else (activity, activity)
    if len(exponents) != 2:
        raise ValueError(f"activity must be a number or a pair (users, items), got {activity!r}")
    a, b = (check_real(value, "activity", low=0.0) for value in exponents)
    bounds = _check_scale(scale)
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    key = as_key(rng)
    counts = _user_counts(_log_shares(n_users, a, key.fold("users")), n_ratings, n_items)
    codes = _distinct_pairs(counts, _log_shares(n_items, b, key.fold("items")), key.fold("pairs"))
    return _rated(codes, counts, n_items, rank, noise, bounds, dtype, key)


def _check_scale(scale: Any) -> tuple[float, float, float]:
    try:
        low, high, step = (1.0, 5.0, 0.0) if scale is None else (float(value) for value in scale)
    except (TypeError, ValueError):
        raise ValueError(f"scale must be (low, high, step) or None, got {scale!r}") from None
    steps = 1.0 if scale is None else (high - low) / step if step > 0 else np.nan
    # the ends must be on the grid up to rounding: 1e-6 of a step allows scales written in decimals
    if not (high > low and steps >= 1 and np.isfinite(steps) and abs(steps - round(steps)) <= 1e-6):
        raise ValueError(f"scale must go up from low to high in whole steps, got {scale!r}")
    return low, high, step


def _log_shares(n: int, exponent: float, key: Key) -> np.ndarray:
    """Logarithms of the weights ``(t + n / 1000)**-exponent``, t = 1 ... n, in an order that the key draws."""
    order = np.argsort(kernel("uniforms", np)(key, Stream.SAMPLE, 0, n), kind="stable")
    return -exponent * np.log(order + 1.0 + n / 1000.0)


def _user_counts(log_shares: np.ndarray, total: int, cap: int) -> np.ndarray:
    """Integers in [0, cap] that add up to `total`, in proportion to the shares where the cap does not bind."""
    shares = np.exp(log_shares - log_shares.max())
    full = np.zeros(shares.size, bool)
    while True:
        rest = float(np.sum(shares, where=~full))
        wanted = np.where(full, cap, shares * ((total - cap * int(full.sum())) / rest if rest > 0 else 0.0))
        above = wanted > cap
        if not above.any():
            break
        full |= above
    counts = np.floor(wanted).astype(np.int64)
    # the largest remainders get what rounding down left over; a weight that underflowed may leave more than one each
    while (left := total - int(counts.sum())) > 0:
        order = np.argsort(np.where(counts < cap, counts - wanted, np.inf), kind="stable")
        open_ = order[: min(left, int(np.sum(counts < cap)))]
        counts[open_] += 1
    return counts


def _distinct_pairs(counts: np.ndarray, log_shares: np.ndarray, key: Key) -> np.ndarray:
    """Codes ``i n_items + j``, ascending: counts[i] distinct items for user i, drawn one after the other.

    Draws that repeat are dropped and made up for in rounds.  What is missing once few users are left is drawn for each
    of them by a race of exponential arrivals, which has the law of drawing on without replacement.
    """
    n_items, starts = log_shares.size, np.arange(counts.size + 1) * np.int64(log_shares.size)
    cumulative = np.cumsum(np.exp(log_shares - log_shares.max()))
    cumulative /= cumulative[-1]
    codes, missing = np.zeros(0, np.int64), counts
    for number in range(_ROUNDS):
        users = np.flatnonzero(missing)
        if users.size * n_items <= 4 * int(counts.sum()) + _PAIRS:
            break  # a race over all items of these users costs no more than the rounds before
        u = kernel("uniforms", np)(key.fold("round").fold(number), Stream.SAMPLE, 0, int(missing.sum()))
        drawn = np.minimum(np.searchsorted(cumulative, u, side="right"), n_items - 1)
        drawn += np.repeat(starts[users], missing[users])
        drawn.sort()
        codes = np.concatenate([codes, drawn])
        codes.sort(kind="stable")  # two sorted runs: one merge
        codes = codes[np.concatenate([[True], codes[1:] != codes[:-1]])]
        missing = counts - np.diff(np.searchsorted(codes, starts))
    bounds, raced = np.searchsorted(codes, starts), [codes]
    for i in np.flatnonzero(missing):
        u = kernel("uniforms", np)(key.fold("race"), Stream.SAMPLE, int(starts[i]), int(starts[i + 1]))
        with np.errstate(divide="ignore"):  # u = 0 arrives at once
            arrivals = np.log(-np.log1p(-u)) - log_shares
        arrivals[codes[bounds[i] : bounds[i + 1]] - starts[i]] = np.inf
        raced.append(starts[i] + np.argpartition(arrivals, missing[i] - 1)[: missing[i]])
    codes = np.concatenate(raced)
    codes.sort()
    return codes


def _rated(
    codes: np.ndarray, counts: np.ndarray, n_items: int, rank: int, noise: float,
    scale: tuple[float, float, float], dtype: np.dtype[Any], key: Key,
) -> SyntheticRatings:  # fmt: skip
    """Draw the truth, and rate the pairs; a step of 0 in the scale leaves the ratings as they are."""
    from scipy.sparse import csr_array

    low, high, step = scale
    width = high - low

    def normal(label: str, n: int, k: int, spread: float) -> np.ndarray:
        return np.asarray(spread * kernel("gaussian_table", np)(key.fold(label), 0, n, k, dtype))

    size, spread = codes.size, float(np.sqrt(width / 8.0 / np.sqrt(rank)))  # the factors share the spread width / 8
    indptr = np.concatenate([[0], np.cumsum(counts)])
    narrow = np.int32 if max(size, n_items) < 2**31 else np.int64
    columns = (codes % n_items).astype(narrow)
    matrix = csr_array((np.empty(size, dtype), columns, indptr.astype(narrow)), shape=(counts.size, n_items))
    made = SyntheticRatings(
        ratings=matrix,
        user_factors=normal("user factors", counts.size, rank, spread),
        item_factors=normal("item factors", n_items, rank, spread),
        user_bias=normal("user bias", counts.size, 1, width / 10.0)[:, 0],
        item_bias=normal("item bias", n_items, 1, width / 10.0)[:, 0],
        mean=(low + high) / 2.0,
        noise=noise,
        scale=scale if step else None,
    )
    for lo in range(0, size, _PAIRS):
        block = codes[lo : lo + _PAIRS]
        values = made.truth(block // n_items, block % n_items)
        values += noise * kernel("gaussian_table", np)(key.fold("noise"), lo, lo + block.size, 1, dtype)[:, 0]
        if step:
            values = np.clip(low + step * np.rint((values - low) / step), low, high)
        matrix.data[lo : lo + _PAIRS] = values
    return made


@dataclass(frozen=True, repr=False)
class SpectralCube:
    """A synthetic spectral image with the materials and their shares behind it; made by `spectral_cube`.

    Attributes
    ----------
    X : array, shape (n_bands, n_pixels)
        The measured spectra, nonnegative; pixel (i, j) of the image is column ``i * width + j``.
    endmembers : array, shape (n_bands, n_endmembers)
        Spectra of the materials.
    abundances : array, shape (n_endmembers, n_pixels)
        Their shares, nonnegative with sums of one.
    image_shape : tuple of two int
        Height and width.
    bad_bands : int64 array, shape (n_bad_bands,)
        Bands with more noise than the others, ascending.
    """

    X: np.ndarray
    endmembers: np.ndarray
    abundances: np.ndarray
    image_shape: tuple[int, int]
    bad_bands: np.ndarray

    def __repr__(self) -> str:
        height, width = self.image_shape
        return (
            f"SpectralCube({self.X.shape[0]} bands, {height} x {width} pixels, {self.endmembers.shape[1]} endmembers, "
            f"{self.bad_bands.size} bad bands, {self.X.dtype})"
        )


def spectral_cube(
    n_bands: int, image_shape: tuple[int, int], n_endmembers: int, *, snr: float = 30.0, patch: int = 5,
    concentration: float = 0.35, n_bad_bands: int = 0, bad_noise: float = 3.0, dtype: Any = np.float64, rng: Any = None,
) -> SpectralCube:  # fmt: skip
    """Draw a spectral image: smooth spectra of materials, mixed in constant patches, with noise.

    ``X = max(0, endmembers @ abundances + noise)``.  A spectrum is a level of 0.1 plus five bumps at random places; the
    shares of a patch have a symmetric Dirichlet distribution.

    Parameters
    ----------
    n_bands : int, n_bands >= 1
    image_shape : tuple of two int
        Height and width in pixels.
    n_endmembers : int, n_endmembers >= 1
    snr : float, default 30
        Mean square of the signal over that of the noise, in decibels; infinity: no noise.
    patch : int, default 5
        Side of the patches in pixels; 1: pixels are independent.
    concentration : float, default 0.35
        Of the Dirichlet distribution: below 1 most pixels are nearly pure, above 1 most are mixed.
    n_bad_bands : int, default 0
        Bands at random places with more noise.
    bad_noise : float, default 3
        Standard deviation of that noise in units of the standard deviation of the signal.
    dtype : dtype, default float64
        float64 or float32.
    rng : None, int, SeedSequence, Generator or Key

    Returns
    -------
    SpectralCube

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from randla import datasets
    >>> cube = datasets.spectral_cube(50, (20, 30), 3, n_bad_bands=4, rng=0)
    >>> cube
    SpectralCube(50 bands, 20 x 30 pixels, 3 endmembers, 4 bad bands, float64)
    >>> cube.X.shape, cube.abundances.shape
    ((50, 600), (3, 600))
    """
    from scipy.special import gammaincinv

    n_bands, k = check_integer(n_bands, "n_bands", low=1), check_integer(n_endmembers, "n_endmembers", low=1)
    height, width = _image_shape(image_shape)
    patch = check_integer(patch, "patch", low=1)
    n_bad = check_integer(n_bad_bands, "n_bad_bands", low=0, high=n_bands)
    concentration = check_real(concentration, "concentration", low=0.0, closed="neither")
    bad_noise = check_real(bad_noise, "bad_noise", low=0.0)
    snr = float("inf") if snr == float("inf") else check_real(snr, "snr")
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    key, uniforms = as_key(rng).fold("spectral cube"), kernel("uniforms", np)
    u = uniforms(key.fold("spectra"), Stream.SAMPLE, 0, 15 * k).reshape(k, 5, 3)
    places = (np.arange(n_bands) + 0.5)[:, None, None] / n_bands
    bumps = u[..., 1] * np.exp(-0.5 * ((places - u[..., 0]) / (0.03 + 0.12 * u[..., 2])) ** 2)
    spectra = 0.1 + bumps.sum(axis=2)
    rows, columns = -(-height // patch), -(-width // patch)
    shares = gammaincinv(concentration, uniforms(key.fold("shares"), Stream.SAMPLE, 0, k * rows * columns))
    shares = np.maximum(shares.reshape(k, rows, columns), 1e-300)  # the least shares underflow
    shares /= shares.sum(axis=0)
    shares = np.repeat(np.repeat(shares, patch, axis=1), patch, axis=2)[:, :height, :width].reshape(k, -1)
    signal, n = spectra @ shares, height * width
    noise = kernel("gaussian_table", np)(key.fold("noise"), 0, n_bands, n, np.float64)
    X = signal + noise * np.sqrt(np.mean(signal**2) * 10.0 ** (-snr / 10.0))
    bad = np.sort(np.argsort(uniforms(key.fold("bad bands"), Stream.SAMPLE, 0, n_bands), kind="stable")[:n_bad])
    more = kernel("gaussian_table", np)(key.fold("bad noise"), 0, n_bad, n, np.float64)
    X[bad] += bad_noise * np.std(signal) * more
    X = np.maximum(X, 0.0)
    return SpectralCube(X.astype(dtype), spectra.astype(dtype), shares.astype(dtype), (height, width), bad)


def _image_shape(value: Any) -> tuple[int, int]:
    try:
        height, width = value
    except (TypeError, ValueError):
        raise ValueError(f"image_shape must be (height, width), got {value!r}") from None
    return check_integer(height, "image_shape", low=1), check_integer(width, "image_shape", low=1)
