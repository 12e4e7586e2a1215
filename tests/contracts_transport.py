"""The lines of the contract table on entropic transport: passes over plans, sparse plans, and their linear systems.

An entry of a plan is an exponential, whose relative error is the error of its exponent: eps times potentials and costs
in units of reg.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from randla.kernels import reference
from randla.kernels.reference.transport import transport_costs

from .contracts import Contract

METRICS = ("sqeuclidean", "euclidean", "cityblock")


class Case(NamedTuple):
    """Rows, columns, coordinates, the metric or the dtype and layout of stored costs, and reg."""

    n: int
    m: int
    d: int
    cost: str
    reg: float

    @property
    def id(self) -> str:
        """Every field, for the name of a line."""
        return "x".join(map(str, self[:3])) + f"-{self.cost}-{self.reg}"


#: A smooth plan, and one of so small a reg that exponentials are 0; one row, one column, both; long rows and columns.
CASES = (
    *(Case(23, 37, 3, cost, reg) for cost in ("float32", "float64", *METRICS) for reg in (0.3, 0.002)),
    *(Case(1, 1, 2, cost, 0.1) for cost in ("float64", "forbidden", "euclidean")),
    *(Case(*size, cost, 0.05) for size in ((1, 300, 1), (50, 1, 9)) for cost in ("float32", "sqeuclidean")),
    Case(6, 530, 4, "float64F", 0.1),
    Case(130, 9, 1, "cityblock", 0.1),
)


def transport_contracts() -> Iterator[Contract]:
    """All lines on the kernels of transport."""
    for case in CASES:
        yield from _pass_contracts(case)
    yield from _entry_contracts()
    yield from _scaling_contracts()
    yield from _schur_contracts()


# --- passes over plans ------------------------------------------------------------------------------------------------


def _costs(case: Case) -> tuple[str, Any, Any]:
    """What gives the costs: of the stored ones a tenth is forbidden, and all of the last row."""
    rng = np.random.default_rng(61)
    if case.cost in METRICS:
        return case.cost, rng.random((case.n, case.d)), rng.random((case.m, case.d))
    C = 2 * rng.random((case.n, case.m))
    if case.n > 1 or case.cost == "forbidden":
        C[rng.random(C.shape) < 0.1] = np.inf
        C[-1] = np.inf
    dtype = "float32" if case.cost == "float32" else "float64"
    return "stored", np.asarray(C, dtype, order="F" if case.cost.endswith("F") else "C"), None


def _vectors(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the rows, some of them 0, and potentials of the columns, one of which is left out."""
    rng = np.random.default_rng(62)
    a, g = rng.random(case.n) + 0.1, 0.3 * rng.standard_normal(case.m)
    if case.n > 2:
        a[case.n // 3] = 0
    if case.n > 40:
        a[-1] = 0
    if case.m > 2:
        g[case.m // 2] = -np.inf
    return a / a.sum(), g


def _potentials(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Those of a plan near the sums, some rows of which are as good as empty."""
    a, g = _vectors(case)
    f, _ = reference.sinkhorn_sweep(*_costs(case), a, g, case.reg)
    rng = np.random.default_rng(63)
    f = f + case.reg * rng.standard_normal(case.n)
    f[5::9] -= 720 * case.reg
    return f, g


def _pass_contracts(case: Case) -> Iterator[Contract]:
    def on_columns() -> tuple[Any, ...]:
        return *_costs(case), _vectors(case)[1], case.reg

    def sweep() -> tuple[Any, ...]:
        return *_costs(case), *_vectors(case), case.reg

    def plan() -> tuple[Any, ...]:
        return *_costs(case), *_potentials(case), case.reg

    def product() -> tuple[Any, ...]:
        rng, dtype = np.random.default_rng(64), "float32" if case.cost == "float32" else "float64"
        return *plan(), rng.standard_normal((case.m, case.m % 4 + 1)).astype(dtype)

    yield Contract("softmin_rows", case.id, on_columns, None, "rounding", _softmin_scale)
    yield Contract("sinkhorn_sweep", case.id, sweep, None, "rounding", _sweep_scale)
    yield Contract("plan_sums", case.id, plan, None, "rounding", _sums_scale)
    yield Contract("plan_matrix", case.id, plan, None, "rounding", _matrix_scale)
    yield Contract("plan_matmul", case.id, product, None, "rounding", _product_scale)


def _largest(*arrays: np.ndarray) -> float:
    """The sum of the largest finite entries of arrays."""
    return sum(float(np.max(np.abs(A[np.isfinite(A)]), initial=0.0)) for A in arrays)


def _exponents(cost: tuple[str, Any, Any], *potentials: np.ndarray) -> tuple[int, float]:
    """Terms of a sum, and the size of costs and potentials together."""
    C, Y = transport_costs(*cost), cost[2]
    return C.shape[0] + C.shape[1] + (0 if Y is None else Y.shape[1]), _largest(C, *potentials)


def _softmin_scale(metric: str, X: Any, Y: Any, g: Any, reg: float) -> tuple[int, float]:
    terms, size = _exponents((metric, X, Y), g)
    return terms, size + reg * np.log(1 + len(g))


def _sweep_scale(metric: str, X: Any, Y: Any, a: Any, g: Any, reg: float) -> tuple[int, tuple[float, float]]:
    terms, size = _exponents((metric, X, Y), g)
    logarithms = _largest(np.log(a[a > 0])) + np.log(1 + len(g))
    return terms, (size + reg * logarithms, float(a.sum()) * (1 + size / reg))


def _sums_scale(metric: str, X: Any, Y: Any, f: Any, g: Any, reg: float) -> tuple[int, tuple[float, float, float]]:
    terms, size = _exponents((metric, X, Y), f, g)
    rows, columns, prices = reference.plan_sums(metric, X, Y, f, g, reg)
    return terms, tuple((1 + size / reg) * float(np.max(sums)) for sums in (rows, columns, prices))


def _matrix_scale(metric: str, X: Any, Y: Any, f: Any, g: Any, reg: float, *_: float) -> tuple[int, float]:
    terms, size = _exponents((metric, X, Y), f, g)
    return terms, (1 + size / reg) * float(np.max(reference.plan_matrix(metric, X, Y, f, g, reg)))


def _product_scale(metric: str, X: Any, Y: Any, f: Any, g: Any, reg: float, V: np.ndarray) -> tuple[int, float]:
    terms, size = _exponents((metric, X, Y), f, g)
    return terms, (1 + size / reg) * float(np.max(reference.plan_sums(metric, X, Y, f, g, reg)[0])) * _largest(V)


# --- sparse plans -----------------------------------------------------------------------------------------------------


def _entry_contracts() -> Iterator[Contract]:
    """No entry lies within rounding of where it would be left out, so the patterns are equal."""
    for case in CASES:
        for share in (0.1, 1e-6, 0.0) if (case.n, case.m) == (23, 37) else (0.01,):
            build = partial(_entry_arguments, case, share)
            yield Contract("plan_entries", f"{case.id}-{share}", build, None, "rounding", _entry_scale)


def _entry_arguments(case: Case, share: float) -> tuple[Any, ...]:
    return (*_costs(case), *_potentials(case), case.reg, share)


def _entry_scale(*arguments: Any) -> tuple[int, tuple[float, float, float]]:
    terms, size = _matrix_scale(*arguments)
    return terms, (size, 0.0, 0.0)


# --- kernels and systems ----------------------------------------------------------------------------------------------


def _scaling_contracts() -> Iterator[Contract]:
    for n, m in ((23, 37), (1, 1), (1, 300), (50, 1), (6, 530)):

        def build(n: int = n, m: int = m) -> tuple[np.ndarray, ...]:
            rng = np.random.default_rng(65)
            K = rng.random((n, m)) * (rng.random((n, m)) < 0.8)
            K[n // 2] *= n == 1  # a row of zeros, unless it is the only one
            return K, rng.random(n), rng.random(m)

        yield Contract("scaling_sweep", f"{n}x{m}", build, None, "rounding", _scaling_scale)


def _scaling_scale(K: np.ndarray, a: np.ndarray, v: np.ndarray) -> tuple[int, tuple[float, float]]:
    u, sums = reference.scaling_sweep(K, a, v)
    return sum(K.shape), (_largest(u), _largest(sums))


def _schur_contracts() -> Iterator[Contract]:
    """Solved, stopped by `max_iter`, not begun, of no residual, and of a curvature that is not positive."""
    ends = ((1.0, 1e-9, 100), (1.0, 1e-9, 3), (1.0, 1e-9, 0), (1.0, 1.0, 5), (0.8, 1e-9, 100))
    cases = [(case, end) for case in CASES[2:5:2] for end in ends]  # stored and from points
    for case, (share, tol, max_iter) in [*cases, (CASES[3], ends[0]), (CASES[-1], ends[0])]:

        def build(
            case: Case = case, share: float = share, rest: tuple[float, int] = (tol, max_iter)
        ) -> tuple[Any, ...]:
            plan = *_costs(case), *_potentials(case), case.reg
            rows, columns, _ = reference.plan_sums(*plan)
            S = reference.plan_entries(*plan, 1e-3)
            rng, mean = np.random.default_rng(66), columns.mean()
            return *S, rows + mean * (rows == 0), share * columns + 0.02 * mean, rng.standard_normal(case.m), *rest

        name = f"{case.id}-{share}-{tol}-{max_iter}"
        yield Contract("schur_cg", name, build, None, "rounding", _schur_scale)


def _schur_scale(*arguments: Any) -> tuple[int, tuple[float, float, float]]:
    data, indices, indptr, rows, diagonal, right, _, _ = arguments
    S = sp.csr_array((data, indices, indptr), shape=(len(rows), len(right))).toarray()
    x, steps, _ = reference.schur_cg(*arguments)
    condition = np.linalg.cond(np.diag(diagonal) - S.T @ (S / rows[:, None]))
    return S.size * (1 + steps), (condition * _largest(x), 0.0, 0.0)
