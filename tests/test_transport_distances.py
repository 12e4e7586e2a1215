"""Distances of pairs of histograms: the function for one pair, linear programs, symmetry, and what stops them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.transport.batches import STEEPEST, Batch
from randla.transport.costs import as_cost, point_cost
from randla.transport.distances import transport_distances
from randla.transport.grids import grid_cost
from randla.transport.sinkhorn import sinkhorn

from .conftest import tolerance


def histograms(count: int, bins: int, seed: int = 0, zeros: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.random((count, bins)) ** 3 * (rng.random((count, bins)) >= zeros)
    return X / X.sum(axis=1, keepdims=True)


def line_costs(bins: int) -> np.ndarray:
    x = np.linspace(0, 1, bins)
    return (x[:, None] - x) ** 2


@pytest.mark.parametrize("reg", [0.1, 0.01, 0.002])
@pytest.mark.parametrize("kind", ["cost", "value"])
def test_agrees_with_the_function_for_one_pair(reg: float, kind: str) -> None:
    """At the two larger reg the batch does it, at the smallest one, below 1 / 300 of the largest cost, pair by pair."""
    X, Y, C = histograms(4, 12, zeros=0.3), histograms(3, 15, seed=1, zeros=0.3), line_costs(15)[:12]
    found = transport_distances(X, C, reg, Y, kind=kind, tol=1e-10)
    assert found.distances.shape == found.pairs_converged.shape == (4, 3)
    assert found.converged
    assert found.pairs_converged.all()
    assert found.n_single == (12 if C.max() > STEEPEST * reg else 0)
    for i in range(4):
        for j in range(3):
            one = sinkhorn(X[i], Y[j], C, reg, tol=1e-10)
            slack = 2 * 1e-10 * (C.max() + reg * 40) * 12  # potentials of at most C, and 40 for logarithms of masses
            assert abs(found.distances[i, j] - getattr(one, kind)) <= slack


def test_bounds_of_exact_transport() -> None:
    """``0 <= cost - exact <= reg min(H(a), H(b))`` against linear programs."""
    X, C, reg = histograms(4, 8, seed=2), line_costs(8), 0.01
    found = transport_distances(X, C, reg, tol=1e-9)
    rows = np.vstack([np.kron(np.eye(8), np.ones(8)), np.kron(np.ones(8), np.eye(8))])
    entropy = -(X * np.log(X)).sum(axis=1)
    for i in range(4):
        for j in range(4):
            exact = linprog(C.reshape(-1), A_eq=rows, b_eq=np.concatenate([X[i], X[j]]), method="highs").fun
            excess = found.distances[i, j] - exact
            assert -1e-7 <= excess <= reg * min(entropy[i], entropy[j]) + 1e-7  # 1e-7: HiGHS, feasible to that


def test_half_is_enough_and_a_divergence_vanishes_for_equals() -> None:
    X, C = histograms(6, 10, seed=3), line_costs(10)
    calls: list[tuple[int, int]] = []
    half = transport_distances(X, C, 0.02, tol=1e-9, callback=lambda step: calls.append(step[:2]))
    whole = transport_distances(X, C, 0.02, X, tol=1e-9)
    assert np.array_equal(half.distances, half.distances.T)
    assert np.abs(half.distances - whole.distances).max() <= 2e-9 * 10
    assert calls[-1] == (21, 21)
    assert [n for n, _ in calls] == sorted(n for n, _ in calls)
    divergence = transport_distances(X, C, 0.02, kind="divergence", tol=1e-11)
    between = transport_distances(X, C, 0.02, X.copy(), kind="divergence", tol=1e-11)
    assert np.all(np.diag(divergence.distances) == 0)
    assert np.all(divergence.pairs_converged)
    assert np.abs(between.distances - divergence.distances).max() <= 1e-9
    assert (divergence.distances[~np.eye(6, dtype=bool)] > 0).all()
    value = [sinkhorn(X[i], X[j], C, 0.02, tol=1e-11).value for i, j in ((0, 1), (0, 0), (1, 1))]
    assert divergence.distances[0, 1] == pytest.approx(value[0] - (value[1] + value[2]) / 2, abs=1e-10)


def test_mass_scales_and_relative_regularisation() -> None:
    X, C = histograms(5, 9, seed=4), line_costs(9)
    plain = transport_distances(X, C, 0.05, tol=1e-9).distances
    assert np.allclose(transport_distances(7 * X, C, 0.05, tol=1e-9).distances, 7 * plain, rtol=1e-12, atol=0)
    for scale in (1e-10, 1e10):
        found = transport_distances(X, scale * C, 0.05, relative=True, tol=1e-9)
        assert np.allclose(found.distances, scale * plain, rtol=1e-10, atol=0)
        assert found.reg == pytest.approx(0.05 * scale)
    order = np.random.default_rng(0).permutation(9)
    moved = transport_distances(X[:, order], C[np.ix_(order, order)], 0.05, tol=1e-9).distances
    assert np.abs(moved - plain).max() <= 1e-9 * 20


def test_costs_that_are_made() -> None:
    """Points and grids give what their matrices give; forbidden pairs stay empty."""
    points = np.random.default_rng(0).random((12, 2))
    X = histograms(3, 12, seed=5)
    C = ((points[:, None] - points) ** 2).sum(axis=-1)
    near = 1e4 * tolerance(np.float64, 12, C.max())
    stored = transport_distances(X, C, 0.05, tol=1e-10).distances
    assert np.abs(transport_distances(X, point_cost(points), 0.05, tol=1e-10).distances - stored).max() <= near
    grid = grid_cost(3, 4)
    C = grid.to_dense()
    made = transport_distances(X, grid, 0.1 * C.max(), tol=1e-10).distances
    stored = transport_distances(X, (C + C.T) / 2, 0.1 * C.max(), tol=1e-10).distances
    assert np.abs(made - stored).max() <= 1e4 * tolerance(np.float64, 12, C.max())
    band = np.where(np.abs(np.subtract.outer(np.arange(12), np.arange(12))) <= 6, line_costs(12), np.inf)
    found = transport_distances(X, band, 0.05, tol=1e-9)
    assert found.converged
    assert found.distances[0, 1] == pytest.approx(sinkhorn(X[0], X[1], band, 0.05).cost, abs=1e-8)


def test_pairs_leave_the_batch_when_they_are_done() -> None:
    """Easy and hard pairs in one batch: every one as if it were alone."""
    C, reg = line_costs(16), 0.01
    A, B = histograms(9, 16, seed=6), histograms(9, 16, seed=7)
    B[:4] = A[:4] + 1e-9
    B /= B.sum(axis=1, keepdims=True)
    B[8] = np.eye(16)[15]
    batch = Batch(as_cost(C), reg, 1e-9)
    together = batch.solve(A, B, 300)
    assert (together.error <= 1e-9).all()
    for p in range(9):
        alone = batch.solve(A[p : p + 1], B[p : p + 1], 300)
        assert together.cost[p] == pytest.approx(alone.cost[0], abs=1e-8)
    assert together.n_iter < 9 * max(batch.solve(A[p : p + 1], B[p : p + 1], 300).n_iter for p in range(9))


def test_what_the_batch_cannot_finish_is_finished_alone() -> None:
    """Two clusters far apart: sweeps alone are slow, and the pair goes on from where they ended."""
    x = np.concatenate([np.linspace(0, 0.1, 8), np.linspace(0.9, 1.0, 8)])
    C = (x[:, None] - x) ** 2
    X = histograms(3, 16, seed=8)
    found = transport_distances(X, C, 0.004, tol=1e-9)
    assert found.converged
    assert (found.marginal_errors <= 1e-9).all()


def test_limits_and_stops() -> None:
    X, C = histograms(6, 10, seed=9), line_costs(10)
    with pytest.warns(ConvergenceWarning, match="transport_distances ended with Status"):
        found = transport_distances(X, C, 0.01, tol=1e-12, max_iter=1)
    assert not found.converged
    assert not found.pairs_converged.all()
    assert np.isfinite(found.distances).all()
    assert (found.marginal_errors > 1e-12).any()
    with pytest.raises(ConvergenceError) as failure:
        transport_distances(X, C, 0.01, tol=1e-12, max_iter=1, on_failure="raise")
    assert failure.value.result.distances.shape == (6, 6)
    stopped = transport_distances(X, C, 0.1, callback=lambda step: step.n_done >= 11, on_failure="ignore")
    assert stopped.status is Status.MAX_ITER
    assert np.isfinite(stopped.distances[0]).all()
    assert np.isnan(stopped.distances[5, 5])
    assert not stopped.pairs_converged[5, 5]


def test_an_interrupt_keeps_what_is_known() -> None:
    def interrupt(step) -> None:
        if step.n_done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        transport_distances(histograms(6, 10), line_costs(10), 0.1, callback=interrupt)
    result = caught.value.result
    assert np.isnan(result.distances[5, 5])
    assert not result.converged


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"X": np.array([[0.5, -0.5, 1.0]])}, ValueError, "X must be nonnegative"),
        ({"X": np.array([[0.5, math.nan, 1.0]])}, ValueError, "X must be finite"),
        ({"X": np.ones((2, 4))}, ValueError, r"X must have shape \(3,\), or rows"),
        ({"X": np.array([[1.0, 0, 0], [0.0, 0, 0]])}, ValueError, "mass, in each row"),
        ({"X": np.array([[1.0, 0, 0], [2.0, 0, 0]])}, ValueError, "rows of equal mass, got 1 to 2"),
        ({"X": np.ones((2, 3), complex)}, TypeError, "X must be real"),
        ({"cost": np.arange(9.0).reshape(3, 3)}, ValueError, "cost must be symmetric where Y is None"),
        ({"cost": np.ones((3, 4))}, ValueError, "cost must be symmetric where Y is None"),
        ({"cost": np.ones((3, 4)), "Y": np.ones((1, 4)), "kind": "divergence"}, ValueError, 'for kind="divergence"'),
        ({"kind": "wasserstein"}, ValueError, "kind must be one of"),
        ({"reg": 0.0}, ValueError, "reg must be"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"max_iter": 0}, ValueError, "max_iter must be"),
        ({"on_failure": "cry"}, ValueError, "on_failure must be"),
    ],
)  # fmt: skip
def test_wrong_arguments(change: dict, kind: type, text: str) -> None:
    arguments = {"X": np.ones((2, 3)), "cost": line_costs(3), "reg": 0.1} | change
    with pytest.raises(kind, match=text):
        transport_distances(arguments.pop("X"), arguments.pop("cost"), arguments.pop("reg"), **arguments)


def test_unreachable_mass_is_refused_and_inputs_stay() -> None:
    C = np.array([[0.0, np.inf], [np.inf, 0.0]])
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    before = X.copy(), C.copy()
    with pytest.raises(ValueError, match="cost must let every row with mass go somewhere"):
        transport_distances(X, C, 0.1)
    assert np.array_equal(X, before[0])
    assert np.array_equal(C, before[1])
