"""Least squares at several condition numbers, and regression in the sum of absolute values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

import randla

from .. import customary
from ..common import Sizes, absolute_problem, regression_error, regression_problem
from .contest import Contest, Pair, shape_of

EXCESS, LOOSENESS = 1e-12, 10.0  # of the residual norm; of the backward error beside that of gelsy
ROWS = 1_600  # sampled for the sum of absolute values
MAY_EXCEED = 1e-3  # and how far above the least sum their solution may be


def _solution(result: Any) -> np.ndarray:
    return np.asarray(result.x if hasattr(result, "x") else result)


def _judged(
    A: np.ndarray, b: np.ndarray, calls: Mapping[str, Callable[[], Any]], pairs: list[Pair], size: str, **kwargs: Any
) -> Contest:
    """A contest whose errors are those beside gelsy's, and whose goals count where they are as small as required."""
    reference = customary.gelsy(A, b)
    measured = regression_error(A, b, reference)
    _, backward = measured(reference)
    return Contest(
        size, calls, pairs, "excess, backward error", lambda result: measured(_solution(result)),
        lambda ours, _: ours[0] <= EXCESS and ours[1] <= LOOSENESS * backward, **kwargs,
    )  # fmt: skip


def lstsq_hard(sizes: Sizes) -> Iterator[Contest]:
    """Condition numbers at which the normal equations are of no use."""
    for (m, n), goal in zip(sizes.regression, (0.3, 0.35), strict=True):
        for cond in (1e8, 1e12):
            A, b = regression_problem(m, n, cond)
            calls = {
                "scipy gels": partial(customary.gels, A, b),
                "scipy gelsy": partial(customary.gelsy, A, b),
                "numpy lstsq": partial(customary.gelsd, A, b),
                "randla lstsq": partial(randla.lstsq, A, b, rng=0),
            }
            # at 1e12 what is asked is the accuracy; a time of 1 is what any reason to be called needs
            aim = goal if cond < 1e12 else 1.0
            pairs = [
                Pair("randla lstsq", "scipy gels", aim),
                Pair("randla lstsq", "scipy gelsy", aim),
                Pair("randla lstsq", "numpy lstsq"),
            ]
            yield _judged(
                A, b, calls, pairs, f"{shape_of(m, n)}, cond {cond:.0e}".replace("e+0", "e").replace("e+", "e"), least=2
            )


def lstsq_easy(sizes: Sizes) -> Iterator[Contest]:
    """A condition number at which everything works: LSMR to the backward error of LAPACK is the peer."""
    for m, n in sizes.regression:
        A, b = regression_problem(m, n, 10.0)
        calls = {
            "scipy lsmr, tol 1e-14": partial(customary.lsmr_solution, A, b, 1e-14),
            "scipy lsmr, tol 1e-6": partial(customary.lsmr_solution, A, b, 1e-6),
            "scipy gels": partial(customary.gels, A, b),
            "normal equations": partial(customary.normal_equations, A, b),
            "randla lstsq": partial(randla.lstsq, A, b, rng=0),
        }
        pairs = [
            Pair("randla lstsq", "scipy lsmr, tol 1e-14", 0.6),
            Pair("randla lstsq", "scipy lsmr, tol 1e-6"),
            Pair("randla lstsq", "scipy gels"),
            Pair("randla lstsq", "normal equations"),
        ]
        yield _judged(A, b, calls, pairs, f"{shape_of(m, n)}, cond 10")


def lp(sizes: Sizes) -> Iterator[Contest]:
    """A sample of rows beside all of them, for residuals without variance."""
    m, n = sizes.absolute
    A, b = absolute_problem(m, n)
    least = float(np.abs(A @ customary.absolute_dual(A, b) - b).sum())
    program, dual = "scipy HiGHS, all rows", "scipy HiGHS, all rows, dual program"
    # a sample of a quick run is not all of its rows
    sampled = partial(randla.lp_regression, A, b, 1, n_samples=min(ROWS, m // 4), rng=0)
    calls = {
        program: partial(customary.absolute_program, A, b),
        dual: partial(customary.absolute_dual, A, b),
        "randla lp_regression": sampled,
        "randla lp_regression, not polished": partial(sampled, polish=0, tol=None),
    }
    pairs = [
        Pair("randla lp_regression", program, 0.01),
        Pair("randla lp_regression", dual),
        Pair("randla lp_regression, not polished", program, 0.01),
        Pair("randla lp_regression, not polished", dual),
    ]
    yield Contest(
        f"{shape_of(m, n)}, p = 1, Cauchy noise", calls, pairs, "excess objective",
        lambda result: float(np.abs(A @ _solution(result) - b).sum()) / least - 1,
        lambda ours, _: ours <= MAY_EXCEED, least=1,
    )  # fmt: skip
