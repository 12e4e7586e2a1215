"""Two sets of handwritten digits matched by optimal transport, and how scaling and Newton steps get there."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from ..compare import Rows
from ..job import Figure, Job, Outcome, Progress

_REG = 1e-3  # of the largest cost
_TOL = 1e-10
_MOST = 400  # sweeps or steps
_LOOPS = 10  # of the customary iteration
_SHOWN = 0.02  # share of an image from which on its mass is drawn

_TEXT = (
    "Two sets of images with as many of each digit.  Transport at the squared distance of the images matches them "
    "without looking at the labels; the notes tell how much of the mass joins equal digits.",
    "Where the regularisation is small, sweeps creep.  The few entries that the plan has left make Newton steps cheap, "
    "and each takes a fair share off the error.  randla.sinkhorn begins with sweeps and changes over in time.",
    f"Both were stopped after {_MOST} of them.",
    "For a plan without regularisation the assignment solver of SciPy is the right tool at this size.",
)
_PLAN = (
    "The plan between the two sets, sorted by digit: a spot for each mass that moves; on the diagonal, equal digits."
)
_RACE = "Error of the marginals against time, without (sweeps) and with Newton steps."


def two_sets(each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sets with `each` images of every digit, sorted, and the digits of either."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    places = [np.flatnonzero(y == digit)[: 2 * each] for digit in range(10)]
    first, second = (np.concatenate([place[half::2] for place in places]) for half in range(2))
    return X[first] / 16, X[second] / 16, y[first]


def by_logsumexp(a: np.ndarray, b: np.ndarray, C: np.ndarray, reg: float) -> tuple[np.ndarray, np.ndarray]:
    """The customary loop: potentials after some rounds."""
    from scipy.special import logsumexp

    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(_LOOPS):
        f = reg * (np.log(a) - logsumexp((g[None, :] - C) / reg, axis=1))
        g = reg * (np.log(b) - logsumexp((f[:, None] - C) / reg, axis=0))
    return f, g


def missed(a: np.ndarray, b: np.ndarray, C: np.ndarray, pair: Any, reg: float) -> float:
    """What the plan of two potentials misses of both marginals, in all."""
    f, g = pair
    T = np.exp((f[:, None] + g[None, :] - C) / reg)
    return float(np.abs(T.sum(1) - a).sum() + np.abs(T.sum(0) - b).sum())


def traced(a: Any, b: Any, C: np.ndarray, reg: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and marginal errors of the steps at the final regularisation."""
    import randla

    seen: list[tuple[float, float]] = []
    begin = time.perf_counter()

    def note(step: Any) -> None:
        if step.reg == reg:
            seen.append((time.perf_counter() - begin, step.marginal_error))

    randla.sinkhorn(a, b, C, reg, method=method, tol=_TOL, max_iter=_MOST, callback=note, on_failure="ignore")
    seconds, errors = np.array(seen).T
    return seconds, errors


def _run(quick: bool, progress: Progress) -> Outcome:
    from scipy.optimize import linear_sum_assignment

    import randla

    progress.step("loading")
    X, Y, digits = two_sets(15 if quick else 80)
    n = len(X)
    C = ((X[:, None] - Y[None]) ** 2).sum(2)
    reg, a = _REG * C.max(), np.full(n, 1 / n)
    same = digits[:, None] == digits[None, :]
    task = Rows(lambda pair: missed(a, a, C, pair, reg), budget=0.3 if quick else 1.0)

    def note(pair: Any) -> str:
        f, g = pair
        T = np.exp((f[:, None] + g[None, :] - C) / reg)
        return f"{T[same].sum() / T.sum():.0%} of the mass joins equal digits, cost {(T * C).sum():.3f}"

    progress.step("customary loop")
    task.add(f"scipy logsumexp, {_LOOPS} rounds", lambda: by_logsumexp(a, a, C, reg), note=note)
    for method in ("sinkhorn", "newton"):
        progress.step(f"randla.sinkhorn, {method}")
        result = task.add(
            f'randla.sinkhorn, method="{method}"',
            partial(randla.sinkhorn, a, a, C, reg, method=method, tol=_TOL, max_iter=_MOST, on_failure="ignore"),
            ours=True, answer=tuple, note=note, estimate=lambda result: result.marginal_error,
        )  # fmt: skip
    progress.step("exact assignment")
    rows, columns = linear_sum_assignment(C)
    exact = f"the exact assignment costs {C[rows, columns].mean():.3f} and joins {same[rows, columns].mean():.0%}."
    curves = {name: traced(a, a, C, reg, method) for name, method in (("sweeps", "sinkhorn"), ("Newton", "newton"))}
    T = result.plan.to_dense()
    return Outcome(
        size=f"{n} x {n} images",
        task=f"transport at {_REG:g} of the largest cost, error: what both marginals miss",
        rows=tuple(task.rows),
        text=(*_TEXT[:-1], f"{_TEXT[-1]}  Here {exact}"),
        figures=(
            Figure("digits-plan", _PLAN, lambda figure: _draw_plan(figure, T, digits), (5.4, 5.0)),
            Figure("transport-race", _RACE, lambda figure: _draw_race(figure, curves)),
        ),
    )


def _draw_plan(figure: Any, T: np.ndarray, digits: np.ndarray) -> None:
    from ...plot import PALETTE

    ax = figure.subplots()
    i, j = np.nonzero(T * len(T) > _SHOWN)
    ax.scatter(j, i, s=9 * np.sqrt(T[i, j] * len(T)), color=PALETTE[0], linewidths=0)
    edges = np.flatnonzero(np.diff(digits)) + 0.5
    for draw in (ax.axhline, ax.axvline):
        for edge in edges:
            draw(edge, color="0.85", linewidth=0.6, zorder=0)
    middles = [np.flatnonzero(digits == digit).mean() for digit in range(10)]
    ax.set(xticks=middles, yticks=middles, xticklabels=range(10), yticklabels=range(10), aspect="equal")
    ax.set(xlim=(-0.5, len(T) - 0.5), ylim=(len(T) - 0.5, -0.5))
    ax.set(xlabel="digit of the second set", ylabel="digit of the first set")


def _draw_race(figure: Any, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    from ...plot import MARKERS, PALETTE

    ax = figure.subplots()
    for position, (name, (seconds, errors)) in enumerate(curves.items()):
        ax.semilogy(1e3 * seconds, errors, color=PALETTE[position], marker=MARKERS[position], markevery=0.1, label=name)
    ax.set(xlabel="milliseconds", ylabel="error of the marginals")
    ax.legend(frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


JOB = Job("matching-digits", "Two sets of digits matched", order=36, n_steps=5, run=_run)
