"""Conjugate gradients on preconditioned normal equations, begun again from the true residual until it is small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._results import Status
from .preconditioners import Preconditioner
from .results import LstsqStep
from .systems import Check, TallSystem, WideSystem, column_norms

ACCEPT = 2.0  # the true error may be so many times the one that the recurrence was run to
PATIENCE = 3.0  # so many times the expected steps, and the preconditioner is taken for a bad one
LEAST_STEPS = 12  # before that is judged
MOST_IDLE = 2  # passes in a row that do not halve the error: it is at its floor


class Refined(NamedTuple):
    """A state, what is known of it, and how it was reached."""

    state: Any
    check: Check
    n_iter: int
    history: tuple[float, ...]
    status: Status
    slow: bool


class _Steps(NamedTuple):
    move: Any
    n_iter: int
    history: tuple[float, ...]
    slow: bool
    stopped: bool


def refine(
    system: TallSystem | WideSystem, pre: Preconditioner, state: Any, *, tol: float | None, max_iter: int,
    history: tuple[float, ...] = (), impatient: bool = False, callback: Callable[[LstsqStep], Any] | None = None,
) -> Refined:  # fmt: skip
    """Refine a state until its error, computed from the true residual, is below the tolerance [1]_.

    Each pass takes the true residual, solves for the correction by conjugate gradients in the preconditioned variables,
    and adds it.  The first pass ends where rounding of x makes more steps useless; the others run to the tolerance.
    With `impatient` a pass that converges far more slowly than `pre` should allow ends the refinement with ``slow``.

    References
    ----------
    .. [1] Epperly, Meier and Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and stable as
       classical direct solvers", arXiv:2406.03468, Algorithm SPIR.
    """
    xp = system.xp
    target = pre.eps if tol is None else tol
    best: tuple[Any, Check, float] | None = None
    n_pass = idle = 0
    while True:
        look = system.check(state, pre)
        error = worst(look.backward if tol is None else look.error)
        if not math.isfinite(error):
            end = (state, look) if best is None else best[:2]
            return Refined(*end, len(history), history, Status.NONFINITE, False)
        # the first pass ends early, so its error may stay where it was
        idle = idle + 1 if best is not None and n_pass > 1 and error > 0.5 * best[2] else 0
        if best is None or error < best[2]:
            best = state, look, error
        done = best[2] <= (ACCEPT if tol is None else 1.0) * target
        if done or idle == MOST_IDLE or len(history) >= max_iter:
            status = Status.CONVERGED if done else Status.STAGNATED if idle == MOST_IDLE else Status.MAX_ITER
            return Refined(*best[:2], len(history), history, status, False)

        def measure(S: Any) -> Any:
            if tol is None:
                return system.backward(S, pre)
            norms = column_norms(S if isinstance(system, TallSystem) else pre.back(S), xp)
            return norms / xp.maximum(system.b_norm, 1e-300 * xp.ones_like(system.b_norm))

        aim = target if tol is None else 0.5 * target
        steps = _conjugate_gradients(
            system, pre, pre.adjoint(look.gradient), measure, aim, look.floor if n_pass == 0 else 0.0 * look.floor,
            max_iter - len(history), len(history), callback, pre.rate ** (1.0 / PATIENCE) if impatient else 1.0,
        )  # fmt: skip
        history = history + steps.history
        state = system.move(state, pre.apply(steps.move))
        n_pass += 1
        if steps.stopped or (impatient and steps.slow):
            look = system.check(state, pre)
            error = worst(look.backward if tol is None else look.error)
            done = error <= (ACCEPT if tol is None else 1.0) * target
            return Refined(
                state, look, len(history), history, Status.CONVERGED if done else Status.MAX_ITER,
                impatient and steps.slow and not done,
            )  # fmt: skip


def _conjugate_gradients(
    system: TallSystem | WideSystem, pre: Preconditioner, S: Any, measure: Callable[[Any], Any], aim: float, floor: Any,
    limit: int, done: int, callback: Callable[[LstsqStep], Any] | None, slowest: float,
) -> _Steps:  # fmt: skip
    """Solve ``P^* (C^* C + damp**2) P Y = S``: each column until its measure is below `aim`, or S below the floor."""
    xp = system.xp
    Y, Q = 0.0 * S, S
    squares = _squares(S, xp)
    history: list[float] = []
    first = measure(S)
    active = (first > aim) & (xp.sqrt(squares) > floor)
    while len(history) < limit and bool(xp.any(active)):
        M = pre.adjoint(system.product(pre.apply(Q)))
        curvature = _inner(Q, M, xp)
        sound = active & (curvature > 0)
        length = xp.where(sound, squares, 0.0 * squares) / xp.where(sound, curvature, xp.ones_like(curvature))
        Y, S = Y + length * Q, S - length * M
        last, squares = squares, _squares(S, xp)
        error = measure(S)
        history.append(worst(xp.where(active, error, 0.0 * error)))
        if callback is not None and callback(LstsqStep(done + len(history), history[-1], system.n_passes)) is True:
            return _Steps(Y, len(history), tuple(history), False, True)
        if len(history) >= LEAST_STEPS and history[-1] > worst(first) * slowest ** len(history):
            return _Steps(Y, len(history), tuple(history), slowest < 1.0, False)
        active = sound & (error > aim) & (xp.sqrt(squares) > floor)
        Q = S + squares / xp.where(last > 0, last, xp.ones_like(last)) * Q
    return _Steps(Y, len(history), tuple(history), False, False)


def _squares(S: Any, xp: Any) -> Any:
    return xp.astype(xp.sum(xp.abs(S) ** 2, axis=0), xp.float64, copy=False)


def _inner(Q: Any, M: Any, xp: Any) -> Any:
    if xp.isdtype(Q.dtype, "complex floating"):
        return xp.real(xp.sum(xp.conj(Q) * M, axis=0))
    return xp.sum(Q * M, axis=0)


def worst(values: Any) -> float:
    """The largest of the numbers of the right-hand sides; NaN if one is NaN."""
    return float(np.max([float(v) for v in values])) if values.shape[0] else 0.0
