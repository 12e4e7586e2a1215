"""l_1 regression by linear programs on few rows: the others keep the signs of their residuals, which are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .design import Design, lower_bound, norm
from .newton import Iterate

#: Up to so many columns the simplex method is the faster one (measured at 8, 30 and 100), beyond an interior point.
SIMPLEX_COLUMNS = 30

#: Free rows of the first program are ``2 m sqrt(rank / n_samples)``: two deviations of what a sample leaves unknown ...
_DEVIATIONS = 2.0
_MOST_FREE = 16  # ... but at most so many times n_samples, to keep the program small

#: Share of the rows in the band of the bound that needs no program, and its Newton steps.
_BAND = 0.1
_BAND_STEPS = 3


def solve_program(U: np.ndarray, r: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Maximise ``r^T y`` subject to ``U^T y = target`` and ``|y_i| <= 1``; None if no y does or HiGHS gives up.

    Returns z and y: the multipliers of the equations are the minimiser of ``||r - U z||_1 + target^T z``.  In this form
    the program has as many equations as there are columns; the usual one, with two variables for each row, is the same
    to the mathematician and some ten times slower to solve.
    """
    from scipy.optimize import linprog

    rank = U.shape[1]
    # HiGHS works with absolute tolerances of 1e-7: residuals and equations are brought to the size of one
    size = float(np.median(np.abs(r))) or float(np.mean(np.abs(r))) or 1.0
    unit = float(np.sqrt(np.mean(U * U))) or 1.0
    methods = ("highs-ds", "highs-ipm") if rank <= SIMPLEX_COLUMNS else ("highs-ipm", "highs-ds")
    for method in methods:
        found = linprog(
            -r / size, A_eq=U.T / unit, b_eq=target / unit, bounds=(-1.0, 1.0), method=method,
            options={"presolve": False},
        )  # fmt: skip
        if found.status == 0:
            return -found.eqlin.marginals * (size / unit), found.x
        if found.status == 2:
            return None
    return None


def iterates(design: Design, z: Any, n_samples: int) -> Iterator[Iterate]:
    """The start, then the point after each linear program; ends when every sign is confirmed, which is the minimum.

    Portnoy and Koenker's preprocessing with a certificate: rows far from the fitted plane, compared with what the
    position of the plane may still change there, keep y_i = sign(r_i); the program finds the rest of y.  That y is
    feasible for the dual of the whole problem, so each step gives a bound from below.  Rows whose residual contradicts
    their y_i are freed for the next program, so that the bounds rise and the last one is the minimum.
    """
    (m, rank), b = design.shape, design.b
    r = b - design.matmul(z)
    y = np.sign(r)
    distance = _distances(r, design.lengths())
    best = Iterate(z, r, norm(r, 1.0), banded_bound(design, z))
    yield best
    aim = max(n_samples, math.ceil(_DEVIATIONS * m * math.sqrt(rank / max(1, n_samples))))
    n_free = min(m, _MOST_FREE * n_samples, aim)
    nearest = np.argsort(distance, kind="stable")
    free = np.zeros(m, bool)
    free[nearest[:n_free]] = True
    while best.excess > 0.0 and math.isfinite(best.objective):
        chosen = np.flatnonzero(free)
        found = solve_program(design.rows(chosen), r[chosen], -design.adjoint(np.where(free, 0.0, y)))
        if found is None:  # a fixed sign is wrong, or the program is too hard as it stands
            if chosen.size == m:
                return
            free[nearest[: 2 * chosen.size]] = True
            yield best
            continue
        z, y[chosen] = z + found[0], found[1]
        r = b - design.matmul(z)
        lower = max(best.lower, lower_bound(design, r, y, 1.0))
        objective = norm(r, 1.0)
        closer = objective < best.objective
        best = Iterate(z, r, objective, lower) if closer else best._replace(lower=lower)
        yield best
        wrong = np.flatnonzero(~free & (np.sign(r) * y < 0.0))
        if wrong.size == 0:
            return
        if wrong.size > chosen.size:
            wrong = wrong[np.argsort(-np.abs(r[wrong]), kind="stable")[: chosen.size]]
        free[wrong] = True


def _distances(r: np.ndarray, length: np.ndarray) -> np.ndarray:
    """``|r_i| / ||u_i||``: how far coefficients must move to turn the sign of a residual; infinite for zero rows."""
    known = length > np.finfo(float).eps * np.max(length, initial=0.0)
    return np.where(known, np.abs(r) / np.where(known, length, 1.0), math.inf)


def banded_bound(design: Design, z: np.ndarray) -> float:
    """A bound from below without a program, of the loss in which a band of small residuals counts by its squares.

    With the weights ``1 / (delta ||u_i||)`` in the band and signs outside it y is the gradient of a Huber loss: a few
    Newton steps make ``U^T y = 0`` nearly, and what the band costs is of the order of its width squared.
    """
    lower, length = 0.0, design.lengths()
    r = design.b - design.matmul(z)
    delta = float(np.sort(_distances(r, length))[int(_BAND * r.size)])
    for _ in range(_BAND_STEPS if 0.0 < delta < math.inf else 0):
        band = np.flatnonzero(_distances(r, length) <= delta)
        slope = 1.0 / (delta * length[band])
        y = np.sign(r)
        y[band] = r[band] * slope
        U = design.rows(band)
        d = np.linalg.lstsq(U.T @ (U * slope[:, None]), design.adjoint(y), rcond=None)[0]
        y[band] -= slope * (U @ d)
        lower = max(lower, lower_bound(design, r, y, 1.0))
        r = r - design.matmul(d)
    return lower
