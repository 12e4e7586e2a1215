"""Intake of transport problems: marginals are checked, brought to mass 1 and freed of zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from .._arrays import check_together
from .._checks import check_real
from .costs import as_cost, real_matrix

SAME_MASS = 1e-8  # relative difference of the two masses that is taken for rounding


@dataclass(frozen=True)
class Problem:
    """Marginals of mass 1 without zeros, their costs, and what leads back to the caller's problem."""

    cost: Any
    a: Any
    b: Any
    reg: float
    mass: float  # of the caller's marginals
    whole: Any  # costs of all rows and columns
    rows: Any  # numbers of the rows kept; None: all
    columns: Any

    def restored(self, f: Any, g: Any) -> tuple[Any, Any]:
        """Potentials of all rows and columns, -inf where there is no mass, for plans of the caller's mass."""
        return self._spread(f + self.reg * math.log(self.mass), self.rows, 0), self._spread(g, self.columns, 1)

    def masses(self) -> tuple[Any, Any]:
        """The caller's marginals, b with the mass of a."""
        return tuple(
            self.mass * self._spread(weights, places, axis, 0.0)
            for axis, (weights, places) in enumerate(((self.a, self.rows), (self.b, self.columns)))
        )

    def restricted(self, f: Any, g: Any) -> tuple[Any, Any]:
        """The inverse of `restored`."""
        xp = self.cost.xp
        f = f if self.rows is None else xp.take(f, self.rows)
        return f - self.reg * math.log(self.mass), g if self.columns is None else xp.take(g, self.columns)

    def _spread(self, values: Any, places: Any, axis: int, absent: float = -math.inf) -> Any:
        if places is None:
            return values
        out = self.cost.xp.full(self.whole.shape[axis], absent, dtype=values.dtype, device=self.cost.device)
        out[places] = values
        return out


def as_problem(a: Any, b: Any, cost: Any, reg: Any, *, relative: bool = False) -> Problem:
    """Check the arguments of a balanced problem; see `sinkhorn` for what they mean."""
    cost = as_cost(cost)
    a, b = as_marginal(a, cost, 0), as_marginal(b, cost, 1)
    first, second = (float(cost.xp.sum(weights)) for weights in (a, b))
    if abs(first - second) > SAME_MASS * max(first, second):
        raise ValueError(
            f"b must have the mass of a, sum(a) = {first:.9g}, got sum(b) = {second:.9g}; "
            "divide both by their sums, or use sinkhorn_unbalanced"
        )
    reg = as_reg(reg, cost, relative)
    rows, columns = (_support(weights, cost) for weights in (a, b))
    kept = cost if rows is None and columns is None else cost.take(rows, columns)
    a = a if rows is None else cost.xp.take(a, rows)
    b = b if columns is None else cost.xp.take(b, columns)
    _check_reachable(kept)
    return Problem(kept, a / first, b / second, reg, first, cost, rows, columns)


def as_marginal(weights: Any, cost: Any, axis: int) -> Any:
    """The masses of the rows (axis 0) or columns of a cost, float64; None is uniform of mass 1."""
    name, size, xp = "ab"[axis], cost.shape[axis], cost.xp
    if weights is None:
        return xp.full(size, 1.0 / size, dtype=xp.float64, device=cost.device)
    weights = as_masses(weights, name, cost, axis)
    if weights.ndim != 1:
        raise ValueError(f"{name} must have shape ({size},), got {tuple(weights.shape)}")
    return weights


def as_masses(weights: Any, name: str, cost: Any, axis: int) -> Any:
    """Masses of the rows (axis 0) or columns of a cost, one set (n,) or several in rows (k, n); checked, float64."""
    weights, size, xp = real_matrix(weights, name, vector=True), cost.shape[axis], cost.xp
    check_together(weights, cost.X, names=(name, "cost"))
    if weights.shape[-1] != size:
        raise ValueError(
            f"{name} must have shape ({size},), or rows of that length where several are taken, for a cost of shape "
            f"{cost.shape}, got {tuple(weights.shape)}"
        )
    weights = xp.astype(weights, xp.float64)
    if not bool(xp.all(xp.isfinite(weights))):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if bool(xp.any(weights < 0)):
        raise ValueError(
            f"{name} must be nonnegative, got {float(xp.min(weights)):.3g}; clip it at 0 where that is noise"
        )
    if not bool(xp.all(xp.sum(weights, axis=-1) > 0)):
        raise ValueError(f"{name} must have mass, in each row where there are several, got zeros only")
    return weights


def as_histograms(rows: Any, name: str, cost: Any, axis: int = 0) -> Any:
    """Several sets of masses, in rows."""
    rows = as_masses(rows, name, cost, axis)
    if rows.ndim != 2:
        raise ValueError(f"{name} must be a matrix with histograms in rows, got shape {tuple(rows.shape)}")
    return rows


def common_mass(*histograms: Any, names: str) -> float:
    """The mass that all rows have, up to rounding."""
    xp = array_namespace(histograms[0])
    masses = xp.concat([xp.sum(rows, axis=1) for rows in histograms])
    low, high = float(xp.min(masses)), float(xp.max(masses))
    if high - low > SAME_MASS * high:
        raise ValueError(f"{names} must have rows of equal mass, got {low:.9g} to {high:.9g}; divide each by its sum")
    return high


def as_reg(reg: Any, cost: Any, relative: bool) -> float:
    """The regularisation in units of cost."""
    reg = check_real(reg, "reg", low=0.0, closed="neither", remedy="exact transport is scipy's or POT's job")
    if relative:
        largest = cost.largest()
        reg = reg * largest if largest > 0 else 1.0  # without costs the plan is a b.T for every reg
    cost.check_reg(reg)
    return reg


def _support(weights: Any, cost: Any) -> Any:
    """The numbers of the entries above 0; None when all are."""
    xp = cost.xp
    return None if bool(xp.all(weights > 0)) else xp.nonzero(weights > 0)[0]


def _check_reachable(cost: Any) -> None:
    if not cost.is_stored:
        return
    finite = cost.xp.isfinite(cost.X)
    for axis, name in ((1, "row"), (0, "column")):
        cut = ~cost.xp.any(finite, axis=axis)
        if bool(cost.xp.any(cut)):
            raise ValueError(
                f"cost must let every {name} with mass go somewhere, got {int(cost.xp.sum(cut))} with inf only; "
                "drop them, or set their masses to 0"
            )
