"""From parameters to a truncated decomposition: what `svd` and `range_finder` have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._arrays import real_dtype
from .._checks import check_choice, check_integer, check_real
from .._random import Key
from .._results import Status
from ..diagnostics import CONFIDENCE, probe_factor
from ..linear_maps import AdjointMap, LinearMap, OperatorMap, SparseMap
from .krylov import Subspaces, combine, floor_squared
from .orthonormal import NonfiniteError, adjoint, orthonormalize_owned, squared_norm
from .results import Step

#: Power steps unless given: two for a rank, which beat randomized_svd(n_iter=2) in error at less than half of its time
#: (dense decay 1/j and sparse flat spectra); one for each block of a tolerance, whose blocks add up anyway.
_POWER_STEPS, _BLOCK_POWER_STEPS = 2, 1

#: Share of the squared tolerance that the part outside the basis may use; the rest is left to the truncation.
_SLACK = 0.5

#: Columns of the first block where a tolerance is given.
_FIRST_BLOCK = 32


@dataclass(frozen=True)
class Plan:
    """The checked parameters of one computation."""

    rank: int | None
    tol: float | None
    norm: str
    method: str
    width: int  # columns of the first block
    n_power_iter: int
    max_passes: int | None
    max_rank: int
    limit: int  # dimension that the basis may reach
    products: int  # products with A and its adjoint for a given rank

    @property
    def target(self) -> float:
        """The tolerance, 0 where a rank is given."""
        return self.tol or 0.0


def plan(
    A: LinearMap, rank: Any, tol: Any, *, norm: Any, method: Any, n_oversamples: Any, n_power_iter: Any, n_passes: Any,
    block_size: Any, max_rank: Any, turned: bool = False,
) -> Plan:  # fmt: skip
    """Check the parameters that define a low-rank approximation of A, or of its adjoint (`turned`)."""
    least = min(A.shape)
    if (rank is None) == (tol is None):
        given = "neither" if rank is None else "both"
        raise ValueError(f"exactly one of rank and tol must be given, got {given}; pass rank=k or tol=relative_error")
    check_choice(norm, "norm", ("frobenius", "spectral"))
    check_choice(method, "method", ("auto", "krylov", "subspace"))
    n_oversamples = check_integer(n_oversamples, "n_oversamples", low=0)
    default = _BLOCK_POWER_STEPS if rank is None else _POWER_STEPS
    power = default if n_power_iter is None else check_integer(n_power_iter, "n_power_iter", low=0)
    remedy = "n_passes=1, the single view, needs svd(A, rank) and an array, row blocks or an iterator of blocks"
    # the mean of an operator, or of the columns that a range finder sketches, takes a pass of its own
    lead = int(getattr(A, "center", False) and (turned or isinstance(A, OperatorMap)))
    passes = None if n_passes is None else check_integer(n_passes, "n_passes", low=2 + lead, remedy=remedy)
    if passes is not None and norm == "spectral":
        raise ValueError(f"n_passes must be None with norm='spectral', whose estimate takes 9 passes, got {passes}")
    block = None if block_size is None else check_integer(block_size, "block_size", low=1)
    if rank is None:
        tol = check_real(tol, "tol", low=0.0, closed="neither", remedy="it is relative to the norm of A")
        cap = least if max_rank is None else check_integer(max_rank, "max_rank", low=0, high=least)
        limit = least if max_rank is None else min(least, 2 * (cap + n_oversamples))
        method = "krylov" if method == "auto" else method
        return Plan(None, tol, norm, method, min(block or _FIRST_BLOCK, limit), power, passes, cap, limit, 0)
    rank = check_integer(rank, "rank", low=0, high=least, remedy=f"A has shape {A.shape}")
    if max_rank is not None:
        raise ValueError(f"max_rank must be None where rank is given, got {max_rank}; it limits the search for a tol")
    power = power if rank else 0
    products = 1 + 2 * power if passes is None else min(1 + 2 * power, passes - 1 - lead)
    # products with a sparse matrix cost less than orthonormalising a growing basis; with a dense one they cost more
    method = ("subspace" if isinstance(A, SparseMap) else "krylov") if method == "auto" else method
    blocks = -(-products // 2) if method == "krylov" else 1
    if block is not None and block * blocks < rank:
        raise ValueError(
            f"block_size must be at least {-(-rank // blocks)} for rank={rank}, got {block}; raise it or n_power_iter"
        )
    width = min(block or rank + -(-n_oversamples // blocks), least)
    return Plan(rank, None, norm, method, width, power, passes, rank, least, products)


@dataclass(frozen=True)
class Truncated:
    """Singular vectors and values cut to size, and the fields that all results share."""

    left: Any  # (m, r)
    s: Any
    right: Any  # (n, r)
    fields: dict[str, Any]


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity end in a status, not in NumPy's warnings
def approximate(A: LinearMap, plan: Plan, key: Key, callback: Callable[[Step], Any] | None) -> Truncated:
    """Build the subspaces that `plan` asks for and cut them to size."""
    # probes ride along where only they know the norm, where the tolerance lies below the floor of the difference of
    # norms, and where no pass would be left for them at the end
    below = plan.tol is not None and plan.target**2 < 16.0 * floor_squared(A)
    state = Subspaces(A, key, probe=not A.knows_norm or below or plan.max_passes is not None)
    try:
        status = (_to_tolerance if plan.rank is None else _fixed_rank)(state, plan, callback)
        return _truncate(state, plan, status)
    except NonfiniteError:
        return _nothing(state, plan)


def _fixed_rank(state: Subspaces, plan: Plan, callback: Callable[[Step], Any] | None) -> Status:
    """Sketch, then alternate ``A @ X`` and ``A^* @ Q``; an even number of products ends with a `pull`."""
    products = plan.products
    X_new = state.inject(plan.width)
    while plan.method == "subspace" and products > 2:
        X_new, products = state.refine(X_new), products - 2
    for i in range(products):
        if X_new.shape[1] == 0:
            break
        if i % 2 == 1:
            X_new = state.pull()
            continue
        state.multiply(X_new)
        if state.record(callback, state.relative()) and i + 1 < products:
            return Status.MAX_ITER
    # a singular value of higher multiplicity than the block leaves the Krylov space too small: add fresh directions
    while state.dimension < plan.max_rank and (plan.max_passes is None or state.A.n_passes + 2 <= plan.max_passes):
        X_new = state.inject(plan.width)
        if X_new.shape[1] == 0:
            break
        state.multiply(X_new)
        state.record(callback, state.relative())
    return Status.CONVERGED


def _to_tolerance(state: Subspaces, plan: Plan, callback: Callable[[Step], Any] | None) -> Status:
    """Fresh blocks with their Krylov steps until what is outside the basis is small enough."""
    width, stalled = plan.width, 0
    while True:
        before = state.dimension
        room = plan.limit - before
        if room <= 0 or (
            plan.max_passes is not None and state.A.n_passes + 2 + 2 * plan.n_power_iter > plan.max_passes
        ):
            return Status.STAGNATED if before == min(state.A.shape) else Status.MAX_ITER
        X_new = state.inject(min(width, room))
        if X_new.shape[1] == 0 and before > 0:
            return Status.STAGNATED
        if X_new.shape[1] == 0:
            return Status.CONVERGED  # a zero matrix
        _add_block(state, X_new, plan)
        past = state.history[-1] if state.history else math.inf
        stop = state.record(callback, state.relative())
        if _small_enough(state, plan):
            return Status.CONVERGED
        if stop:
            return Status.MAX_ITER
        now = state.history[-1]
        # at the level of rounding a block that gains less than a tenth is noise
        stalled = stalled + 1 if now > 0.9 * past and now < 1e3 * state.rounding else 0
        if stalled:
            return Status.STAGNATED
        width = _next_width(plan, before, state.dimension, past, now)


def _add_block(state: Subspaces, X_new: Any, plan: Plan) -> None:
    if plan.method == "subspace":
        for _ in range(plan.n_power_iter):
            X_new = state.refine(X_new)
        state.multiply(X_new)
        return
    state.multiply(X_new)
    for _ in range(plan.n_power_iter):
        X_new = state.pull(plan.limit - state.dimension)
        if X_new.shape[1] == 0:
            break
        state.multiply(X_new)


def _small_enough(state: Subspaces, plan: Plan) -> bool:
    """True if the part of A outside the basis leaves the truncation its share of the tolerance."""
    if plan.norm == "frobenius":
        rest, probed = state.uncaptured()
        margin = probe_factor() ** 2 if probed else 1.0
        return margin * rest <= _SLACK * plan.target**2 * (state.captured + rest)
    s = state.factors()[1]
    if s.shape[0] == 0 or float(s[-1]) > plan.target * float(s[0]):
        return False
    norm, factor = state.residual_norm()
    return (factor * norm) ** 2 <= _SLACK * (plan.target * float(s[0])) ** 2


def _next_width(plan: Plan, before: int, now: int, past_error: float, error: float) -> int:
    """Columns of the next block: what the decay so far predicts, at most doubling the basis."""
    target = math.sqrt(_SLACK) * plan.target
    share = 1 + plan.n_power_iter if plan.method == "krylov" else 1
    if 0.0 < error < past_error < math.inf and error > target:
        needed = math.log(error / target) * (now - before) / math.log(past_error / error)
    else:
        needed = math.inf
    return int(max(plan.width, min(needed * 1.1, now) / share))


@dataclass(frozen=True)
class _Rest:
    """Squared norms: of A, of what is outside the basis, and of a bound on that which holds with `confidence`."""

    whole: float
    outside: float
    bound: float
    kind: str
    confidence: float


def _frobenius_rest(state: Subspaces, probed: bool) -> _Rest:
    if not probed and state.A.knows_norm:
        whole = state.A.frobenius_squared()
        outside = max(whole - state.captured, 0.0)
        return _Rest(whole, outside, outside + floor_squared(state.A) * whole, "exact", 1.0)
    outside = state.probed()
    return _Rest(state.captured + outside, outside, outside * probe_factor() ** 2, "sketched", CONFIDENCE)


def _spectral_rest(state: Subspaces, top: float) -> _Rest:
    norm, factor = state.residual_norm()
    return _Rest(max(top, norm) ** 2, norm**2, (norm * factor) ** 2, "krylov", CONFIDENCE)


def _truncate(state: Subspaces, plan: Plan, status: Status) -> Truncated:
    """Cut the decomposition of the core to the rank asked for, or to the least one that meets the tolerance."""
    xp = state.xp
    left, s, right = state.factors()
    if plan.norm == "spectral":
        tails = s**2
        rest = _spectral_rest(state, float(s[0]) if s.shape[0] else 0.0)
    else:
        tails = xp.flip(xp.cumulative_sum(xp.flip(s**2)))
        rest = _frobenius_rest(state, probed=state.G is not None)
    r = _least_rank(tails, rest, plan, xp)
    tail = float(tails[r]) if r < s.shape[0] else 0.0
    if rest.kind == "exact" and rest.whole > 0.0 and rest.outside + tail <= floor_squared(state.A) * rest.whole:
        rest = _frobenius_rest(state, probed=True)
    if plan.tol is not None:
        held = tail + (rest.bound if rest.kind != "exact" else rest.outside)
        status = Status.CONVERGED if held <= plan.target**2 * rest.whole else status
        status = Status.MAX_ITER if status is Status.CONVERGED and held > plan.target**2 * rest.whole else status
    U, s, V = _vectors(state, left, s, right, r, plan)
    error, bound = rest.outside + tail, rest.bound + tail
    # at the level of rounding the factors are measured as they are handed out
    if rest.kind == "sketched":
        error = state.probed_factors(U, s, V)
        bound = error * probe_factor() ** 2
    elif rest.kind == "krylov" and error <= (1e3 * state.rounding) ** 2 * rest.whole:
        norm, factor = state.residual_norm((U, s, V))
        error, bound = norm**2, (norm * factor) ** 2
    return Truncated(U, s, V, _fields(state, plan, rest, error, bound, status))


def _least_rank(tails: Any, rest: _Rest, plan: Plan, xp: Any) -> int:
    if plan.rank is not None:
        return min(plan.rank, tails.shape[0])
    outside = rest.outside if rest.kind == "exact" else rest.bound
    wanted = xp.astype(tails + outside > plan.target**2 * rest.whole, xp.int64)
    return min(int(xp.sum(wanted)), plan.max_rank)


def _fields(state: Subspaces, plan: Plan, rest: _Rest, error: float, bound: float, status: Status) -> dict[str, Any]:
    relative = (lambda square: math.sqrt(square / rest.whole)) if rest.whole > 0.0 else (lambda _: 0.0)
    return {
        "error": relative(error),
        "error_bound": relative(bound),
        "confidence": rest.confidence,
        "error_kind": rest.kind,
        "error_norm": plan.norm,
        "norm": math.sqrt(rest.whole),
        "n_passes": state.A.n_passes,
        "n_matvecs": state.A.n_matvecs,
        "n_iter": state.n_iter,
        "history": tuple(state.history),
        "status": status,
    }


def _vectors(state: Subspaces, left: Any, s: Any, right: Any, r: int, plan: Plan) -> tuple[Any, Any, Any]:
    """The leading vectors in the space of A; a rank above that of A is filled with zeros and orthonormal columns."""
    xp, A, (_, X) = state.xp, state.A, state.core()
    U = combine(state.Q, left[:, :r], A)
    V = combine(X, adjoint(right[:r, :]), AdjointMap(A))
    s = xp.astype(s[:r], real_dtype(A.dtype, xp))
    missing = 0 if plan.rank is None else plan.rank - r
    if missing:
        U = xp.concat([U, complement(U, missing, A, state.key)], axis=1)
        V = xp.concat([V, complement(V, missing, A, state.key)], axis=1)
        s = xp.concat([s, xp.zeros((missing,), dtype=s.dtype, device=A.device)])
    return U, s, V


def complement(U: Any, k: int, A: LinearMap, key: Key) -> Any:
    """`k` orthonormal columns that are orthogonal to those of U."""
    return orthonormalize_owned(A.gaussian(key.fold("complement"), k, U.shape[0]), (U,)).Q


def _nothing(state: Subspaces, plan: Plan) -> Truncated:
    """The result of a computation that met NaN or infinity: what was sound before, which may be nothing."""
    A, xp = state.A, state.xp
    sound = state.C.shape[0] > 0 and squared_norm(state.C) < math.inf
    state.outer = None
    left, s, right = (
        state.factors() if sound else (state.C[:, :0], xp.ones((0,), dtype=xp.float64, device=A.device), state.C[:0, :])
    )
    r = min(s.shape[0], plan.max_rank)
    U, s, V = _vectors(state, left, s, right, r, replace(plan, rank=None))
    rest = _Rest(math.nan, math.nan, math.inf, "exact", 1.0)
    fields = _fields(state, plan, rest, math.nan, math.nan, Status.NONFINITE)
    return Truncated(U, s, V, {**fields, "error": math.nan, "error_bound": math.inf, "norm": math.nan})
