"""Matrices whose answers are known: prescribed spectrum, coherence and sparsity, from a key.

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
from ._random import as_key

#: Names of the spectra that `spectrum` knows.
SPECTRA = (
    "inverse-root", "inverse", "inverse-square", "exponential", "geometric",
    "flat", "low-rank", "staircase", "spiked", "gap",
)  # fmt: skip


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
