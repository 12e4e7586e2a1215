"""Newton steps on the semi-dual of entropic transport, with a Hessian that is made sparse by mass.

With f eliminated, the dual is a concave function of g with gradient ``b - c`` and Hessian
``-(diag(c) - T.T diag(1/a) T) / reg``, where T has the row sums a and the column sums c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace

from .._backend import kernel

DROPPED = 0.001  # share of each row that the Hessian may lose, times the marginal error
SHIFT = 1e-3  # of the diagonal, times the marginal error: the constant direction has curvature 0
MOST_STEPS = 200  # of conjugate gradients; near-permutations need thousands, and factor in milliseconds
SPARSE = 0.1  # share of entries of the plan up to which a factorisation is tried
FILLED = (
    0.02  # of the entries of the reduced matrix, above which a dense factorisation takes less time than a sparse one
)
DENSE_SIZE = 6000  # columns up to which a dense one is


@dataclass(frozen=True)
class Direction:
    """A direction for g and what it took."""

    step: Any
    density: float
    n_inner: int
    direct: bool


def newton_direction(
    cost: Any, a: Any, b: Any, f: Any, g: Any, sums: Any, reg: float, error: float, rule: Any
) -> Direction:
    """The step ``reg M^-1 (b - c)`` with ``M = diag(c) - S.T diag(1/a) S`` for a sparse part S of the plan.

    `rule` says how S is found and solved with; see `Rule`.
    """
    xp = cost.xp
    right = b - sums
    diagonal = sums * (1.0 + SHIFT * min(error, SHIFT))
    if rule.sparsify == "none":
        step, n_inner = _truncated(cost.plan(f, g, reg), a, diagonal, right, _forcing(error), rule.max_inner)
        return Direction(reg * (step - xp.sum(step * b)), 1.0, n_inner, False)
    data, indices, indptr = rule.entries(cost, f, g, reg, error)
    density = data.shape[0] / (cost.shape[0] * cost.shape[1])
    n_inner, step = 0, None
    if not rule.direct:
        goal = _forcing(error)
        step, n_inner, solved = kernel("schur_cg", xp)(data, indices, indptr, a, diagonal, right, goal, rule.max_inner)
        if not solved and rule.may_factor(density, cost.shape[1], n_inner):
            rule.direct = True
    direct = rule.direct
    if direct:
        step = _factored(cost, a, f, g, reg, diagonal, right, (data, indices, indptr))
        if not bool(xp.all(xp.isfinite(step))):
            rule.direct, direct = False, False
            step, n_inner, _ = kernel("schur_cg", xp)(data, indices, indptr, a, diagonal, right, 1e-2, 10 * MOST_STEPS)
    step = reg * (step - xp.sum(step * b))
    return Direction(step, density, n_inner, direct)


def _forcing(error: float) -> float:
    """Share of the residual that an inexact step may leave, for a rate that grows with the steps."""
    return 0.1 * min(0.1, max(error, 1e-10))


def _truncated(T: Any, a: Any, diagonal: Any, right: Any, tol: float, max_iter: int) -> tuple[Any, int]:
    """Conjugate gradients for ``diag(diagonal) - T.T diag(1/a) T`` with the whole plan, two products a step."""
    xp = array_namespace(T)
    scale = 1.0 / xp.maximum(diagonal - xp.matmul(1.0 / a, T * T), 1e-3 * diagonal)
    x, rest = xp.zeros_like(right), right
    p = scale * rest
    energy, goal = float(xp.sum(rest * p)), tol * float(xp.sum(xp.abs(right)))
    for step in range(max_iter):
        if float(xp.sum(xp.abs(rest))) <= goal:
            return x, step
        image = diagonal * p - xp.matmul(xp.matmul(T, p) / a, T)
        curvature = float(xp.sum(p * image))
        if not (curvature > 0 and energy > 0):
            return x, step
        x, rest = x + energy / curvature * p, rest - energy / curvature * image
        before, energy = energy, float(xp.sum(rest * rest * scale))
        p = scale * rest + energy / before * p
    return x, max_iter


@dataclass
class Rule:
    """Which entries of the plan the Hessian keeps and how systems with it are solved; `direct` once that was needed."""

    sparsify: str = "mass"
    topk_factor: int = 8
    max_inner: int = MOST_STEPS
    direct: bool = False

    def entries(self, cost: Any, f: Any, g: Any, reg: float, error: float) -> tuple[Any, Any, Any]:
        """CSR parts of the sparse plan."""
        if self.sparsify == "mass":
            return cost.entries(f, g, reg, DROPPED * min(1.0, error))
        return _largest_entries(cost, f, g, reg, self.topk_factor * max(cost.shape))

    def may_factor(self, density: float, m: int, n_inner: int) -> bool:
        """Whether a factorisation is worth it after conjugate gradients stopped short."""
        return n_inner >= self.max_inner and (density < SPARSE or m <= DENSE_SIZE)


def _largest_entries(cost: Any, f: Any, g: Any, reg: float, count: int) -> tuple[Any, Any, Any]:
    """The `count` largest entries of the plan: the rule of Tang et al. 2024."""
    xp = cost.xp
    data, indices, indptr = cost.entries(f, g, reg, 1e-12)
    if data.shape[0] <= count:
        return data, indices, indptr
    level = xp.sort(data)[data.shape[0] - count]
    kept = xp.nonzero(data >= level)[0]
    before = xp.concat(
        [xp.zeros(1, dtype=xp.int64, device=cost.device), xp.cumulative_sum(xp.astype(data >= level, xp.int64))]
    )
    return xp.take(data, kept), xp.take(indices, kept), xp.take(before, indptr)


def _factored(cost: Any, a: Any, f: Any, g: Any, reg: float, diagonal: Any, right: Any, parts: Any) -> Any:
    """Solve with ``diag(diagonal) - S.T diag(1/a) S``, its last unknown held at 0: the potential's free constant."""
    xp = cost.xp
    if is_numpy_namespace(xp):
        M = _reduced(parts, a, diagonal, cost.shape)
        if M.nnz <= FILLED * M.shape[0] ** 2:
            return _sparse_solved(M, right)
        M = M.toarray()
    else:
        T = cost.plan(f, g, reg)
        M = xp.eye(cost.shape[1], dtype=xp.float64, device=cost.device) * diagonal - xp.matmul(T.T, T / a[:, None])
        M = M[:-1, :-1]
    step = xp.zeros_like(right)
    try:
        step[:-1] = xp.linalg.solve(M, right[:-1])
    except np.linalg.LinAlgError:  # singular to rounding; CuPy's answer is NaN
        step[:] = math.nan
    return step


def _reduced(parts: Any, a: Any, diagonal: Any, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array, diags_array

    S = csr_array(parts, shape=shape)
    return (diags_array(diagonal) - S.T @ (diags_array(1.0 / a) @ S)).tocsc()[:-1, :-1]


def _sparse_solved(M: Any, right: Any) -> Any:
    from scipy.sparse.linalg import splu

    step = np.zeros_like(right)
    try:
        options = {"SymmetricMode": True}
        step[:-1] = splu(M, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(right[:-1])
    except RuntimeError:  # singular to rounding
        step[:] = math.nan
    return step
