"""Where factorisations start: random, from singular vectors, from columns of the data; scaled to fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, from_host
from .._backend import kernel
from .._random import Key, Stream
from ..lowrank.svd import svd
from ._matrices import Compressed, gram

INITS = ("random", "nndsvd", "nndsvda", "nndsvdar", "nnsvdlrc", "spa")
LEAST_DROP = 0.05  # nnsvdlrc: a sweep on the singular vectors that lowers the error by less ends them
MOST_SWEEPS = 10


def start(data: Any, rank: int, init: Any, key: Key) -> tuple[Any, Any]:
    """Factors Wt (rank, m) and H (rank, n) by the name of a start, or the pair (W, H) of the caller's, scaled to X."""
    if not isinstance(init, str):
        return _given(data, rank, init)
    if init == "spa":
        from .separable import spa

        chosen = spa(data.source, min(rank, data.shape[1]), rng=key).columns
        Wt = data.xp.stack([data.column(int(j)) for j in chosen])
        Wt = _filled(Wt, rank, data, key)
        H = _sweeps(gram(Wt, data.xp), data.left(Wt), random_factor(rank, data.shape[1], data, key.fold("H")), data.xp)
        return scaled(Wt, H, data)
    if init == "random" or min(data.shape) == 0 or not data.squared_norm > 0:
        Wt, H = (random_factor(rank, n, data, key.fold(name)) for n, name in zip(data.shape, "WH", strict=True))
        return scaled(Wt, H, data)
    if init == "nnsvdlrc":
        return scaled(*_low_rank_corrected(data, rank, key), data)
    return _double(data, rank, init, key)


def random_factor(rank: int, n: int, data: Any, key: Key) -> Any:
    """Uniform numbers on (0, 1): entry (k, j) depends on the key, k and j only."""
    columns = [kernel("uniforms", np)(key, Stream.SAMPLE, k << 40, (k << 40) + n) for k in range(rank)]
    table = np.stack(columns).astype(np.float32) if columns else np.zeros((0, n), np.float32)
    return data.xp.astype(from_host(table, data.xp, data.like), data.dtype)


def _filled(Wt: Any, rank: int, data: Any, key: Key) -> Any:
    """Random parts below the rows of Wt where it has fewer than `rank`."""
    missing = rank - int(Wt.shape[0])
    return data.xp.concat([Wt, random_factor(missing, data.shape[0], data, key)]) if missing else Wt


def scaled(Wt: Any, H: Any, data: Any) -> tuple[Any, Any]:
    """The same parts with the best common factor, and with equal norms on both sides."""
    xp = data.xp
    sizes = [xp.sqrt(xp.linalg.diagonal(gram(F, xp))) for F in (Wt, H)]
    balance = xp.sqrt(xp.where(sizes[0] * sizes[1] > 0, sizes[1] / xp.where(sizes[0] > 0, sizes[0], 1.0), 1.0))
    balance = xp.where(balance > 0, balance, 1.0)
    Wt = xp.astype(xp.astype(Wt, xp.float64) * balance[:, None], data.dtype)
    H = xp.astype(xp.astype(H, xp.float64) / balance[:, None], data.dtype)
    whole = float(xp.sum(gram(Wt, xp) * gram(H, xp)))
    shared = float(xp.sum(xp.astype(data.left(Wt) * H, xp.float64)))
    root = math.sqrt(shared / whole) if whole > 0 and shared > 0 else 1.0
    return Wt * root, H * root


def _given(data: Any, rank: int, init: Any) -> tuple[Any, Any]:
    try:
        W, H = init
    except (TypeError, ValueError):
        raise ValueError(f"init must be one of {', '.join(INITS)}, or a pair (W, H), got {init!r}") from None
    xp, (m, n), parts = data.xp, data.shape, []
    for F, name, wanted in ((W, "W", (m, rank)), (H, "H", (rank, n))):
        F = as_matrix(F, name=f"init {name}", sparse=False)
        check_together(data.like, F, names=("X", f"init {name}"))
        if tuple(F.shape) != wanted:
            raise ValueError(f"init {name} must have shape {wanted}, got {tuple(F.shape)}")
        F = xp.astype(F, data.dtype, copy=True)
        if not bool(xp.all(F >= 0)) or not bool(xp.all(xp.isfinite(F))):
            raise ValueError(f"init {name} must be finite and nonnegative, got other entries")
        parts.append(F)
    return _turned(parts[0], xp), parts[1]


def _turned(W: Any, xp: Any) -> Any:
    """W.T as rows that lie in memory one after another."""
    return xp.asarray(W.T, copy=True, order="C") if hasattr(W, "flags") else xp.asarray(W.T, copy=True)


def _leading(data: Any, rank: int, key: Key) -> tuple[Any, Any, Any]:
    """Leading singular triples; columns of zeros where the rank of X is less than asked for."""
    rank = min(rank, *data.shape)
    U, s, Vh = svd(data.source, rank, rng=key.fold("svd"), on_failure="ignore")
    return U, data.xp.astype(s, data.dtype), Vh


def _double(data: Any, rank: int, init: str, key: Key) -> tuple[Any, Any]:
    """Boutsidis and Gallopoulos: the heavier of the two signs of each singular pair."""
    xp = data.xp
    U, s, Vh = _leading(data, rank, key)
    rows = []
    for k in range(int(s.shape[0])):
        u, v = U[:, k], Vh[k, :]
        if k == 0:
            rows.append((xp.abs(u) * xp.sqrt(s[0]), xp.abs(v) * xp.sqrt(s[0])))
            continue
        sides = [(xp.where(sign * u > 0, sign * u, 0 * u), xp.where(sign * v > 0, sign * v, 0 * v)) for sign in (1, -1)]
        sizes = [tuple(float(xp.linalg.vector_norm(part)) for part in side) for side in sides]
        best = 0 if sizes[0][0] * sizes[0][1] >= sizes[1][0] * sizes[1][1] else 1
        (a, b), (p, q) = sizes[best], sides[best]
        root = math.sqrt(float(s[k]) * a * b)
        rows.append((p * (root / a), q * (root / b)) if a * b > 0 else (0 * u, 0 * v))
    Wt, H = (xp.stack([row[side] for row in rows]) for side in (0, 1))
    mean = _typical(data, rank)
    Wt, H = (_filled_to(F, rank, n, data, key, mean) for F, n in ((Wt, data.shape[0]), (H, data.shape[1])))
    if init == "nndsvd":
        return Wt, H
    small = mean if init == "nndsvda" else mean / 100
    fill = [
        small * (random_factor(rank, n, data, key.fold(name)) if init == "nndsvdar" else xp.ones_like(F))
        for n, name, F in ((data.shape[0], "W", Wt), (data.shape[1], "H", H))
    ]
    return tuple(xp.where(F > 0, F, other) for F, other in zip((Wt, H), fill, strict=True))


def _typical(data: Any, rank: int) -> float:
    """The entry of constant factors whose product has the root mean square of X; it scales as they do."""
    return math.sqrt(math.sqrt(data.squared_norm / max(1, data.shape[0] * data.shape[1])) / max(1, rank))


def _filled_to(F: Any, rank: int, n: int, data: Any, key: Key, size: float) -> Any:
    missing = rank - int(F.shape[0])
    return data.xp.concat([F, size * random_factor(missing, n, data, key.fold("rest"))]) if missing else F


def _low_rank_corrected(data: Any, rank: int, key: Key) -> tuple[Any, Any]:
    """Atif, Qazi and Gillis: both signs of half as many singular pairs, then sweeps on those pairs in place of X."""
    xp = data.xp
    U, s, Vh = _leading(data, rank // 2 + 1, key)
    root = xp.sqrt(s)
    Y, Z = U * root[None, :], Vh * root[:, None]
    left, right = [xp.abs(Y[:, 0])], [xp.abs(Z[0, :])]
    for k in range(1, int(s.shape[0])):
        for sign in (1, -1):
            left.append(xp.where(sign * Y[:, k] > 0, sign * Y[:, k], 0 * Y[:, k]))
            right.append(xp.where(sign * Z[k, :] > 0, sign * Z[k, :], 0 * Z[k, :]))
    Wt, H = xp.stack(left[:rank]), xp.stack(right[:rank])
    size = _typical(data, rank)
    Wt, H = (_filled_to(F, rank, n, data, key, size) for F, n in ((Wt, data.shape[0]), (H, data.shape[1])))
    few = Compressed.of_factors(data, Y, Z)
    before = math.inf
    for _ in range(MOST_SWEEPS):
        H = _sweeps(gram(Wt, xp), few.left(Wt), H, xp)
        right_side, G = few.right(H), gram(H, xp)
        Wt = _sweeps(G, right_side, Wt, xp)
        cross = float(xp.sum(xp.astype(right_side * Wt, xp.float64)))
        error = few.squared_norm - 2 * cross + float(xp.sum(G * gram(Wt, xp)))
        if not error < (1 - LEAST_DROP) ** 2 * before:
            break
        before = error
    return Wt, H


def _sweeps(G: Any, B: Any, X: Any, xp: Any) -> Any:
    return kernel("nonneg_sweeps", xp)(G, B, X, 3, 0.1)


def empty_factors(data: Any, rank: int) -> tuple[Any, Any]:
    """Factors of zeros, for a matrix of zeros."""
    return tuple(data.xp.zeros((rank, n), dtype=data.dtype, device=device_of(data.like)) for n in data.shape)
