"""Codes of rows in given parts: nonnegative least squares, or the least divergence, with the parts fixed."""

from __future__ import annotations

from typing import Any

from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together
from .._backend import kernel
from .._checks import check_real
from ._matrices import as_nonnegative, gram
from .divergences import beta_objective, floor_of, moved, positive_entries, products, ratios, total_of
from .frobenius import Penalties
from .masked import MaskedProblem, observed_entries
from .solvers import beta_of

SWEEPS = 500  # of coordinates at most; they end by TOL
TOL = 1e-8  # of the first sweep's change
UPDATES = 500  # multiplicative updates at most
SETTLED = 1e-7  # relative fall of the divergence over an update that ends them


def nonneg_codes(
    X: Any, H: Any, *, loss: str | float = "frobenius", alpha: float = 0.0, l1_ratio: float = 0.0,
    absent: str | None = None,
) -> Any:  # fmt: skip
    """Return the nonnegative W (m, rank) of least loss ``X ~ W H`` for given parts H (rank, n).

    For "frobenius" exactly, by block principal pivoting, O(m n rank) for the products and O(rank^3) for each exchange
    in a row; for "kl" by damped Newton steps in one coordinate, for other betas by multiplicative updates.

    Parameters
    ----------
    X : array or sparse matrix, shape (m, n)
        Nonnegative data; NaN, or what a sparse X does not store, is missing where `absent` says so.
    H : array, shape (rank, n)
        Nonnegative parts.
    loss : {"frobenius", "kl", "itakura-saito"} or float, default "frobenius"
    alpha : float, default 0
        Penalty ``alpha (l1_ratio sum(W) + (1 - l1_ratio) ||W||_F^2 / 2)``.
    l1_ratio : float, default 0, 0 <= l1_ratio <= 1
    absent : {"missing"}, optional
        Take the NaN of a dense X, or the entries that a sparse X does not store, as missing; "frobenius" only.

    Returns
    -------
    array, shape (m, rank)

    Raises
    ------
    ValueError
        If shapes do not fit, entries are negative, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import nonneg_codes
    >>> H = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    >>> nonneg_codes(np.array([[2.0, 3.0, 1.0]]), H).round(6)
    array([[2., 1.]])
    """
    beta, alpha = beta_of(loss), check_real(alpha, "alpha", low=0.0)
    share = check_real(l1_ratio, "l1_ratio", low=0.0, high=1.0)
    penalties = Penalties(alpha * share, alpha * (1 - share))
    H = as_matrix(H, name="H", sparse=False)
    if absent is not None:
        if beta != 2.0:
            raise ValueError(f'loss must be "frobenius" for missing entries, got {loss!r}')
        return _missing(X, H, absent, penalties)
    data = as_nonnegative(X)
    check_together(data.like, H, names=("X", "H"))
    _check_parts(H, data.shape[1], data.xp)
    H = data.xp.astype(H, data.dtype)
    if beta == 2.0:
        return _exact(data, H, penalties)
    return _newton(data, H, penalties) if beta == 1.0 else _multiplicative(data, H, penalties, beta)


def _check_parts(H: Any, n: int, xp: Any) -> None:
    if H.shape[1] != n:
        raise ValueError(f"H must have {n} columns as X, got shape {tuple(H.shape)}")
    if not bool(xp.all(H >= 0)) or not bool(xp.all(xp.isfinite(H))):
        raise ValueError("H must be finite and nonnegative, got other entries")


def _exact(data: Any, H: Any, p: Penalties) -> Any:
    xp, r = data.xp, int(H.shape[0])
    G, B = gram(H, xp), data.right(H)
    if p.l2_W:
        G = G + p.l2_W * xp.eye(r, dtype=G.dtype, device=device_of(G))
    if p.l1_W:
        B = B - p.l1_W
    start = xp.zeros((r, data.shape[0]), dtype=data.dtype, device=device_of(data.like))
    codes, steps = kernel("nonneg_pivots", xp)(G, B, start, 1e-12, 50 + 10 * r)
    if not bool(xp.all(steps >= 0)):
        codes = kernel("nonneg_sweeps", xp)(G, B, codes, SWEEPS, TOL)
    return xp.asarray(codes.T, copy=True)


def _missing(X: Any, H: Any, absent: str, p: Penalties) -> Any:
    observed = observed_entries(X, absent)
    xp = observed.xp
    check_together(observed.data, H, names=("X", "H"))
    _check_parts(H, observed.shape[1], xp)
    problem = MaskedProblem(observed, None, (None, None), None, p)
    V = xp.asarray(xp.astype(H, observed.data.dtype).T, copy=True)
    codes = xp.zeros((observed.shape[0], V.shape[1]), dtype=V.dtype, device=device_of(V))
    for _ in range(SWEEPS):
        before, codes = codes, problem.half_step(V, codes, 0)
        if float(xp.max(xp.abs(codes - before))) <= TOL * float(xp.max(xp.abs(codes))):
            break
    return codes


def _newton(data: Any, H: Any, p: Penalties) -> Any:
    xp, r = data.xp, int(H.shape[0])
    entries, V = positive_entries(data), xp.asarray(H.T, copy=True)
    floor = floor_of(data, total_of(data), r)
    sums = xp.sum(xp.astype(V, xp.float64), axis=0) + p.l1_W
    size = total_of(data) / max(1, data.shape[0]) / max(float(xp.sum(sums)), 1e-300)
    codes = xp.full((data.shape[0], r), max(size, floor), dtype=data.dtype, device=device_of(data.like))
    sweep = kernel("divergence_sweeps", xp)
    for _ in range(SWEEPS // 10):
        before = codes
        codes = sweep(V, entries.indices, entries.indptr, entries.data, sums, p.l2_W, codes, 10, floor)
        if float(xp.max(xp.abs(codes - before))) <= 1e-6 * float(xp.max(codes)):
            break
    return codes


def _multiplicative(data: Any, H: Any, p: Penalties, beta: float) -> Any:
    xp, r = data.xp, int(H.shape[0])
    floor = floor_of(data, total_of(data), r)
    exponent = 1 / (2 - beta) if beta < 1 else (1.0 if beta <= 2 else 1 / (beta - 1))
    mean = total_of(data) / max(1, data.shape[0] * data.shape[1])
    size = mean / max(float(xp.mean(H)) * r, 1e-300)
    Wt = xp.full((r, data.shape[0]), max(size, floor), dtype=data.dtype, device=device_of(data.like))
    value = beta_objective(data, Wt, H, beta)
    for _ in range(UPDATES):
        up, down = products(data, Wt, H, beta, of_H=False)
        ratio, _ = ratios(up, down, Wt, p.l1_W, p.l2_W, floor, xp)
        Wt = moved(Wt, ratio, exponent, floor, xp)
        before, value = value, beta_objective(data, Wt, H, beta)
        if before - value <= SETTLED * abs(before):
            break
    return xp.asarray(Wt.T, copy=True)
