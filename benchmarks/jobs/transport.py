"""Entropic transport to a marginal error of 1e-9, and one iteration in logarithms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import randla
from randla.transport.costs import as_cost
from randla.transport.sweeps import LogSweeps

from ..common import Sizes
from .contest import Contest, Pair, shape_of

ENOUGH = 1e-9  # absolute sum of what both marginals miss
MOST_SWEEPS, MOST_STEPS = 5_000, 300  # of the peers
ITERATIONS = 50  # of a log-domain loop
MODERATE, SMALL = 0.6, 0.25  # goals at 1e-2 and 1e-3 of the largest cost, and below

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


def images(side: int, power: int = 2) -> Triple:
    """Two images of three blobs with a little uniform mass; costs are powers of pixel distances over the largest."""
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2).astype(float)
    masses = []
    for _ in range(2):
        image = np.zeros(len(place))
        for _ in range(3):
            centre, width = rng.random(2) * side, (1.5 + 2.5 * rng.random()) * side / 28
            image += rng.random() * np.exp(-((place - centre) ** 2).sum(1) / (2 * width**2))
        masses.append(0.99875 * image / image.sum() + 0.00125 / len(place))
    C = (np.abs(place[:, None] - place[None]) ** power).sum(2)
    return masses[0], masses[1], C / C.max()


def clouds(n: int, d: int) -> Triple:
    """Two normal clouds, squared distances over the largest."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(n, d)), 0.8 * rng.normal(size=(n, d)) + 0.5
    C = np.maximum((X**2).sum(1)[:, None] + (Y**2).sum(1) - 2 * X @ Y.T, 0)
    return np.full(n, 1 / n), np.full(n, 1 / n), C / C.max()


def line(n: int, m: int) -> Triple:
    """An exponential density and a mixture of two normal ones on [0, 5]."""
    x, y = (np.arange(n) + 0.5) / n * 5, (np.arange(m) + 0.5) / m * 5
    a, b = np.exp(-x), 0.2 * np.exp(-((y - 1) ** 2) / 0.08) + 0.8 * np.exp(-((y - 3) ** 2) / 0.5)
    C = (x[:, None] - y) ** 2
    return a / a.sum(), b / b.sum(), C / C.max()


def assignment(n: int) -> Triple:
    """Independent uniform costs."""
    return np.full(n, 1 / n), np.full(n, 1 / n), np.random.default_rng(0).random((n, n))


def _pot(method: str, a: Any, b: Any, C: Any, reg: float) -> Any:
    import ot

    return ot.sinkhorn(a, b, C, reg, method=method, stopThr=ENOUGH / 3, numItermax=MOST_SWEEPS, warn=False)


def _regot(name: str, a: Any, b: Any, C: Any, reg: float) -> Any:
    import regot

    steps = 3 * MOST_STEPS if name == "bcd" else MOST_STEPS
    solve = getattr(regot, f"sinkhorn_{name}")
    return solve(np.asfortranarray(C), a, b, reg, tol=ENOUGH / 3, max_iter=steps).plan


@lru_cache(maxsize=8)
def _ott_loop(threshold: float, most: int, scaling: bool) -> Any:
    import jax
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    jax.config.update("jax_enable_x64", True)
    solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=most, lse_mode=not scaling)

    def solve(a: Any, b: Any, C: Any, reg: float) -> Any:
        problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=C, epsilon=reg), a=a, b=b)
        return solver(problem).matrix

    return jax.jit(solve)


def _ott(a: Any, b: Any, C: Any, reg: float, threshold: float = ENOUGH / 2, most: int = MOST_SWEEPS) -> Any:
    return np.asarray(_ott_loop(threshold, most, False)(a, b, C, reg))


def _peers(triple: Triple, reg: float, ott: bool) -> dict[str, Callable[[], Any]]:
    """The solvers that are installed (pip install POT ott-jax regot: heavy, so no extra) and may win."""
    calls: dict[str, Callable[[], Any]] = {}
    if find_spec("ot") is not None and reg >= 1e-3:  # below, its kernel is zero in double precision
        calls["POT sinkhorn"] = partial(_pot, "sinkhorn", *triple, reg)
    if find_spec("ott") is not None and ott:
        calls["ott-jax sinkhorn"] = partial(_ott, *triple, reg)
    if find_spec("regot") is not None:
        calls |= {f"regot {name}": partial(_regot, name, *triple, reg) for name in ("ssns", "splr")}
    return calls


def _missed(triple: Triple, found: Any) -> float:
    T = found.plan.to_dense() if isinstance(found, randla.TransportResult) else np.asarray(found)
    error = float(np.abs(T.sum(1) - triple[0]).sum() + np.abs(T.sum(0) - triple[1]).sum())
    return error if np.isfinite(error) else np.inf


def _contest(label: str, triple: Triple, reg: float, goal: float, ott: bool = True) -> Contest:
    peers = _peers(triple, reg, ott)
    ours = {"randla sinkhorn": partial(randla.sinkhorn, *triple, reg, on_failure="ignore")}
    size = f"{label}, {shape_of(*triple[2].shape)}, reg {reg:.3g}"
    return Contest(
        size if peers else f"{size}; no peer is installed", {**peers, **ours},
        [Pair("randla sinkhorn", peer, goal) for peer in peers], "absolute sum of both marginals' errors",
        partial(_missed, triple), lambda mine, _: mine <= ENOUGH, least=2,
    )  # fmt: skip


def sinkhorn(sizes: Sizes) -> Iterator[Contest]:
    """To the same marginal error; a peer that stops short of it has done less."""
    side, small, large = sizes.transport
    problems = {
        "images": images(side),
        "points in 3 dimensions": clouds(small, 3),
        "points in 30 dimensions": clouds(large, 30),
    }
    for label, triple in problems.items():
        for reg in (1e-2, 1e-3, 1e-4):
            yield _contest(label, triple, reg, MODERATE if reg >= 1e-3 else SMALL, ott=reg >= 1e-3)


def newton(sizes: Sizes) -> Iterator[Contest]:
    """The problems of the sparse Newton methods' papers."""
    side, small, _ = sizes.transport
    half = small // 2
    problems = (
        ("random assignment", assignment(half), 1 / 1200),
        ("densities on a line", line(small, 4 * small // 5), 1e-3),
        ("images, squared distance", images(side), 1e-3),
        ("images, L1 distance", images(side, power=1), 1e-3),
        ("points in 30 dimensions", clouds(small, 30), 1e-3),
        ("points in 30 dimensions", clouds(small, 30), 1e-2),
    )
    for label, triple, reg in problems:
        yield _contest(label, triple, reg, 0.5, ott=False)


def _loop(a: np.ndarray, b: np.ndarray, C: np.ndarray, reg: float) -> np.ndarray:
    """Plain log-domain iterations; the plan at their end, as the peer returns it."""
    cost, g = as_cost(C), np.zeros(len(b))
    sweep = LogSweeps(cost, a, reg)
    for _ in range(ITERATIONS):
        f, sums = sweep(g)
        g = g + reg * np.log(b / sums)
    return cost.plan(f, g, reg)


def iteration(sizes: Sizes) -> Iterator[Contest]:
    """Fifty log-domain iterations of each."""
    side, small, _ = sizes.transport
    for label, triple in (("images", images(side)), ("points", clouds(small, 3))):
        calls: dict[str, Callable[[], Any]] = {"randla, 50 log sweeps": partial(_loop, *triple, 1e-2)}
        pairs = []
        if find_spec("ott") is not None:
            calls["ott-jax, 50 iterations"] = partial(_ott, *triple, 1e-2, 0.0, ITERATIONS)
            pairs.append(Pair("randla, 50 log sweeps", "ott-jax, 50 iterations", 0.4))
        size = f"{label}, {shape_of(*triple[2].shape)}, reg 0.01"
        yield Contest(size, calls, pairs, "absolute sum of both marginals' errors", partial(_missed, triple))
