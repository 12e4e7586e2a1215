"""Completion by alternating least squares: its objective and optimum, noise and intervals, states, folding, choices."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla._arrays import eps, to_host
from randla._random import as_key
from randla._results import ConvergenceError, ConvergenceWarning, Status
from randla.completion.als import complete
from randla.completion.als_gauge import balanced, levelled, shifted
from randla.completion.als_state import SCALE_SWEEPS
from randla.completion.folding import append_cols, append_rows, fold_in, swapped
from randla.completion.losses import loss_values, loss_weights, robust_scale
from randla.completion.observations import as_observations, hold_out
from randla.completion.ranking import recommend
from randla.completion.results import LOSSES, CompletionResult, CompletionStep
from randla.completion.selection import choose_completion_rank, regularization_path
from randla.plot import ValidationCurveDisplay

from .conftest import tolerance
from .statistics import binomial_interval


def planted(
    m: int, n: int, rank: int, *, share: float = 0.4, noise: float = 0.0, bias: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of low rank with biases, and what is observed of it, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    truth += bias * (rng.standard_normal((m, 1)) + rng.standard_normal(n) + 1.0)
    seen = rng.random((m, n)) < share
    return truth, np.where(seen, truth + noise * rng.standard_normal((m, n)), np.nan)


def objective(fit: CompletionResult, Z: np.ndarray, W: np.ndarray | None = None) -> float:
    """The objective of `complete` from its definition."""
    assert fit.settings is not None
    reg, power, column, loss, scale = fit.settings
    E = Z - fit.to_dense()
    seen = ~np.isnan(Z)
    values = loss_values(E[seen], loss, scale, np)
    total = float(np.sum(values if W is None else W[seen] * values))
    for axis, factors, bias in ((1, fit.row_factors, fit.row_bias), (0, fit.col_factors, fit.col_bias)):
        squares = np.sum(factors**2, axis=1) + (0.0 if bias is None else bias**2 / column**2)
        total += float(np.sum(reg * seen.sum(axis=axis, dtype=float) ** power * squares))
    return total


def fitted(Z: Any, rank: int, **options: Any) -> CompletionResult:
    return complete(Z, rank, **{"rng": 0, "on_failure": "ignore", **options})


# --- what is minimised ------------------------------------------------------------------------------------------------


@given(
    st.integers(2, 14), st.integers(2, 12), st.integers(0, 4), st.sampled_from(LOSSES),
    st.sampled_from(["cholesky", "cg"]), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(),
    st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_objective_is_what_it_says_and_never_rises(
    m: int, n: int, rank: int, loss: str, solver: str, bias: bool, power: float, weighted: bool, seed: int
) -> None:
    """For each loss, solver, bias, exponent and weights; the history is the definition, evaluated on a dense matrix."""
    rank = min(rank, m, n)
    _, Z = planted(m, n, 2, noise=0.3, bias=1.0, seed=seed)
    if np.isnan(Z).all():
        return
    W = np.random.default_rng(seed).random((m, n)) + 0.1 if weighted else None
    scale = None if loss == "squared" else 0.4
    options: dict[str, Any] = {"reg_exponent": power, "bias": bias, "loss": loss, "loss_scale": scale, "weights": W}
    fit = fitted(Z, rank, reg=0.05, solver=solver, max_iter=6, tol=0.0, **options)
    history = np.array(fit.history)
    slack = tolerance("float64", m * n, history[0])
    assert np.all(np.diff(history) <= slack)
    assert abs(fit.objective - objective(fit, Z, W)) <= slack
    assert fit.objective == history[-1]
    assert fit.n_iter == len(history) == fit.best_iter


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_end_is_a_stationary_point(solver: str, power: float) -> None:
    """The gradient in factors and biases, by hand, against its size at the start."""
    _, Z = planted(40, 30, 3, noise=0.5, bias=1.0)
    fit = fitted(Z, 3, reg=0.02, reg_bias=0.05, reg_exponent=power, solver=solver, max_iter=500, tol=1e-14)
    assert fit.status in (Status.CONVERGED, Status.STAGNATED)
    E = np.nan_to_num(Z - fit.to_dense())
    ridges = [0.02 * (~np.isnan(Z)).sum(axis=axis, dtype=float)[:, None] ** power for axis in (1, 0)]
    gradients = [
        E @ fit.col_factors - ridges[0] * fit.row_factors,
        E.T @ fit.row_factors - ridges[1] * fit.col_factors,
        E.sum(axis=1) - 2.5 * ridges[0][:, 0] * fit.row_bias,
        E.sum(axis=0) - 2.5 * ridges[1][:, 0] * fit.col_bias,
    ]
    sizes = [np.nan_to_num(Z) @ fit.col_factors, np.nan_to_num(Z).T @ fit.row_factors]
    # sweeps that change the objective by 1e-14 of it move the factors, and so the gradient, by its root
    for gradient, size in zip(gradients, [*sizes, Z[~np.isnan(Z)], Z[~np.isnan(Z)]], strict=True):
        assert np.linalg.norm(gradient) <= 1e-6 * np.linalg.norm(size)


def test_rank_zero_is_the_ridge_solution_of_the_biases() -> None:
    _, Z = planted(12, 9, 1, noise=0.5, bias=2.0)
    fit = fitted(Z, 0, reg=0.3, reg_exponent=0.0, max_iter=200, tol=0.0)
    rows, cols = np.nonzero(~np.isnan(Z))
    design = np.hstack([np.eye(12)[rows], np.eye(9)[cols]])
    exact = np.linalg.solve(design.T @ design + 0.3 * np.eye(21), design.T @ (Z[rows, cols] - fit.mean))
    found = np.concatenate([fit.row_bias, fit.col_bias])
    assert np.abs(found - exact).max() <= 1e-6
    assert fit.mean == pytest.approx(np.nanmean(Z), rel=1e-14)
    assert fit.row_factors.shape == (12, 0)


def test_weights_count_like_repeated_entries() -> None:
    """A weight of 2 is an entry that was seen twice, for plain ridges, whose size does not depend on counts."""
    _, Z = planted(20, 15, 2, noise=0.3)
    W = np.where(np.random.default_rng(1).random(Z.shape) < 0.5, 2.0, 1.0)
    fit = fitted(Z, 2, reg=0.1, reg_exponent=0.0, bias=False, weights=W, max_iter=300, tol=1e-13)
    seen = ~np.isnan(Z)
    for i in range(5):
        V, w = fit.col_factors[seen[i]], W[i, seen[i]]
        exact = np.linalg.solve(V.T @ (w[:, None] * V) + 0.1 * np.eye(2), V.T @ (w * Z[i, seen[i]]))
        assert np.abs(exact - fit.row_factors[i]).max() <= 1e-5
    sparse = sp.csr_array(np.nan_to_num(Z))
    heavy = sp.csr_array(np.where(seen, W, 0.0))
    for weights in (heavy, heavy.tocoo(), heavy.data):
        again = fitted(sparse, 2, reg=0.1, reg_exponent=0.0, bias=False, weights=weights, max_iter=5, tol=0.0)
        assert again.history == fit.history[:5]


def test_exchanges_of_factors_and_biases_change_no_prediction_and_are_the_best() -> None:
    """Each of them: predictions stay, the ridge terms fall, and a second one finds nothing left to gain."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 4)), 5.0 * rng.standard_normal((20, 4))
    rows, cols, column = rng.random(30) + 0.5, rng.random(20) + 0.5, 0.7
    rows[3] = cols[5] = 0.0
    X[3], Y[5] = 0.0, 0.0

    def predictions(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        return X[:, :3] @ Y[:, :3].T + column * X[:, 3:] + column * Y[:, 3]

    def cost(X: np.ndarray, Y: np.ndarray) -> float:
        return float(np.sum(rows[:, None] * X**2) + np.sum(cols[:, None] * Y**2))

    def both_seen(D: np.ndarray) -> np.ndarray:
        return D[np.ix_(rows > 0, cols > 0)]

    moves = {
        "balanced": lambda X, Y: balanced(X, Y, 3, rows, cols, np),
        "rows shifted": lambda X, Y: shifted(X, Y, rows, cols, column, np),
        "columns shifted": lambda X, Y: shifted(Y, X, cols, rows, column, np)[::-1],
        "levelled": lambda X, Y: levelled(X, Y, rows, cols, np),
    }
    for name, move in moves.items():
        A, B = move(X, Y)
        before = both_seen(predictions(X, Y))
        assert np.abs(both_seen(predictions(A, B)) - before).max() <= tolerance("float64", 600, np.abs(before).max()), (
            name
        )
        assert cost(A, B) < cost(X, Y), name
        again = cost(*move(A, B))
        assert abs(again - cost(A, B)) <= tolerance("float64", 600, again), name
        assert not A[3].any(), name
        assert not B[5].any(), name
    low, high = (np.linalg.svd(F)[1] for F in balanced(X, Y, 3, rows, cols, np))
    assert low[0] > 0
    assert high[0] > 0
    flat = np.outer(np.ones(30), [1.0, 1.0])
    assert balanced(flat, flat[:20], 2, rows, cols, np)[0] is flat  # a direction is missing: left as it is


# --- recovery and noise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_noiseless_recovery(solver: str) -> None:
    """Three times as many entries as unknowns: the whole matrix comes back, and the entries are met to rounding."""
    truth, Z = planted(100, 80, 3, share=3 * 3 * 177 / 8000, seed=2)
    fit = fitted(Z, 3, reg=0.0, bias=False, solver=solver, max_iter=300, tol=0.0)
    assert np.linalg.norm(fit.to_dense() - truth) <= 1e-10 * np.linalg.norm(truth)
    assert fit.converged
    assert fit.error <= 128 * eps(np.float64) * np.sqrt(np.nanmean(Z**2))
    from_chance = fitted(planted(60, 50, 2, share=0.5)[1], 2, reg=1e-8, bias=False, solver=solver, init="random")
    assert from_chance.error < 1e-3


def test_noise_is_estimated_with_the_degrees_of_freedom() -> None:
    """The naive estimate is low by a fifth here; the other is within 3 %, four standard errors of its own."""
    for seed, power in enumerate((0.0, 1.0)):
        _, Z = planted(200, 150, 4, share=0.25, noise=0.7, bias=1.0, seed=seed)
        reg = 0.49 if power == 0.0 else 0.49 / 40
        fit = fitted(Z, 4, reg=reg, reg_exponent=power, max_iter=100, tol=1e-6)
        n = int(np.sum(~np.isnan(Z)))
        freedom = n - 4 * (350 - 4) - 350
        assert abs(fit.noise - 0.7) <= 4 * 0.7 / math.sqrt(2 * freedom)
        assert fit.error < 0.65
        assert fit.error_kind == "training"


def test_too_many_parameters_leave_the_noise_unknown() -> None:
    _, Z = planted(20, 20, 3, share=0.3)
    assert math.isnan(fitted(Z, 10, reg=0.0, bias=False, max_iter=2).noise)


@pytest.mark.parametrize("loss", ["huber", "absolute"])
def test_robust_losses_withstand_outliers(loss: str) -> None:
    """A tenth of the entries grossly wrong: squares are far off, the others are near the fit to clean entries."""
    truth, Z = planted(150, 100, 3, share=0.5, noise=0.1, bias=1.0)
    dirty = np.where(np.random.default_rng(3).random(Z.shape) < 0.1, Z + 30.0, Z)
    options: dict[str, Any] = {"reg": 0.001, "max_iter": 100, "tol": 1e-5}
    clean, square, robust = (
        fitted(D, 3, loss=kind, **options) for D, kind in ((Z, "squared"), (dirty, "squared"), (dirty, loss))
    )
    errors = [float(np.sqrt(np.mean((fit.to_dense() - truth) ** 2))) for fit in (clean, square, robust)]
    assert errors[1] > 10 * errors[0]
    assert errors[2] < 2 * errors[0]
    assert 0.07 < robust.noise < 0.14
    assert robust.converged
    fixed = np.array(robust.history[SCALE_SWEEPS:])
    assert np.all(np.diff(fixed) <= tolerance("float64", Z.size, fixed[0]))
    assert robust.settings is not None
    assert 0.5 < robust.settings.loss_scale / robust.noise < 2  # the scale of the fifth sweep


@given(st.sampled_from(["huber", "absolute"]), st.floats(0.01, 10.0), st.floats(-30, 30), st.floats(-30, 30))
@settings(max_examples=200, deadline=None)
def test_weights_make_a_parabola_above_the_loss(loss: str, scale: float, at: float, e: float) -> None:
    """It touches at the residual where the weight was taken, and lies above elsewhere: so no step raises the loss."""
    points = np.array([at, e])
    values = loss_values(points, loss, scale, np)
    weight = float(loss_weights(points[:1], loss, scale, np)[0])
    parabola = values[0] + weight * (e**2 - at**2)
    assert parabola >= values[1] - tolerance("float64", 4, abs(values).max() + weight * max(e**2, at**2))


def test_scale_is_that_of_the_middle() -> None:
    rng = np.random.default_rng(0)
    e = rng.standard_normal(10_001)
    e[:2000] = 1e6
    assert 1.0 < robust_scale(e, np) < 1.4
    assert robust_scale(np.zeros(5), np) == 1.0
    assert robust_scale(np.zeros(0), np) == 1.0
    assert robust_scale(np.array([0.0, 0.0, 0.0, 3.0]), np) == pytest.approx(1.5e-6)


# --- held-out entries -------------------------------------------------------------------------------------------------


def test_held_out_stopping_keeps_the_best_sweep() -> None:
    """A rank that is far too high: the held-out error falls and rises, and the result is that of the least."""
    options: dict[str, Any] = {"reg": 1e-4, "bias": False, "validation_fraction": 0.2, "init": "random", "tol": 0.0}
    _, Z = planted(80, 60, 2, share=0.6, noise=1.0)
    fit = fitted(Z, 5, max_iter=60, n_iter_no_change=3, **options)
    errors = np.array(fit.validation_history)
    assert fit.converged
    assert 1 < fit.best_iter == 1 + int(np.argmin(errors)) < fit.n_iter == len(errors)
    assert fit.error == errors.min()
    assert fit.error_kind == "held-out"
    assert fit.objective == fit.history[fit.best_iter - 1]
    train, held = hold_out(as_observations(Z), 0.2, as_key(0).fold("complete"))
    e = held.data - fit.predict(held.rows, held.indices)
    assert fit.error == pytest.approx(float(np.sqrt(np.mean(e**2))), rel=1e-12)
    assert fit.error_interval is not None
    low, high = fit.error_interval
    assert low < fit.error < high
    spread = np.std(e**2, ddof=1) / math.sqrt(e.size)
    assert high**2 - low**2 == pytest.approx(2 * 1.959964 * spread, rel=1e-6)
    assert fit.training is not None
    assert fit.training.observations.nnz == train.nnz
    short = fitted(Z, 5, max_iter=fit.best_iter, **options)
    assert np.array_equal(short.col_factors, fit.col_factors)


@pytest.mark.slow
def test_interval_covers_the_error() -> None:
    """95 % intervals of the held-out error hold the error over all entries not seen; false alarm 1e-6."""
    hits, n_trials = 0, 200
    for seed in range(n_trials):
        truth, Z = planted(60, 50, 2, share=0.5, noise=0.5, seed=seed)
        fit = fitted(Z, 2, reg=0.01, bias=False, validation_fraction=0.2, max_iter=8, rng=seed)
        rest = np.isnan(Z)
        error = math.sqrt(float(np.mean((fit.to_dense() - truth)[rest] ** 2)) + 0.25)
        assert fit.error_interval is not None
        hits += fit.error_interval[0] <= error <= fit.error_interval[1]
    low, _ = binomial_interval(n_trials, 0.93)  # entries of one row go together, and the normal interval is a bit short
    assert hits >= low


def test_standard_deviations_are_calibrated() -> None:
    """Intervals of 1.96 predicted deviations, on planted data with the ridge of the true prior.

    With 15 entries for each unknown of a row they hold 94 to 95 % of the true entries that were not observed, with 6
    entries 92 to 93 %.  Entries of one row share their error: the bounds lie three standard deviations, over seeds,
    below that, and never are more than 98 % held.
    """
    for share, rank, noise, least in ((0.3, 3, 0.3, 0.91), (0.15, 4, 0.5, 0.88)):
        truth, Z = planted(300, 200, rank, share=share, noise=noise, bias=1.0, seed=rank)
        fit = fitted(Z, rank, reg=noise**2, reg_exponent=0.0, max_iter=200, tol=1e-7)
        rows, cols = (places[::7] for places in np.nonzero(np.isnan(Z)))
        errors = truth[rows, cols] - fit.predict(rows, cols)
        std = fit.predict_std(rows, cols)
        assert least <= np.mean(np.abs(errors) <= 1.96 * std) <= 0.98
        anew = errors + noise * np.random.default_rng(9).standard_normal(errors.size)
        wide = fit.predict_std(rows, cols, noise=True)
        assert least + 0.02 <= np.mean(np.abs(anew) <= 1.96 * wide) <= 0.98
        assert np.abs(wide**2 - std**2 - fit.noise**2).max() <= tolerance("float64", 10, wide.max() ** 2)


def test_standard_deviations_are_those_of_the_formula() -> None:
    _, Z = planted(12, 10, 2, noise=0.3, bias=1.0, share=0.7)
    Z[4], Z[:, 7] = np.nan, np.nan
    fit = fitted(Z, 2, reg=0.1, reg_exponent=0.0, reg_bias=0.4)
    column, seen = 0.5, ~np.isnan(Z)
    V = np.hstack([fit.col_factors, np.full((10, 1), column)])
    U = np.hstack([fit.row_factors, np.full((12, 1), column)])

    def variance(i: int, j: int) -> float:
        M = V[seen[i]].T @ V[seen[i]] + 0.1 * np.eye(3)
        N = U[seen[:, j]].T @ U[seen[:, j]] + 0.1 * np.eye(3)
        return fit.noise**2 * float(V[j] @ np.linalg.solve(M, V[j]) + U[i] @ np.linalg.solve(N, U[i]))

    found = fit.predict_std([0, 3, 11], [1, 2, 9])
    assert np.abs(found - [math.sqrt(variance(i, j)) for i, j in ((0, 1), (3, 2), (11, 9))]).max() <= 1e-9
    X = np.hstack([fit.row_factors, fit.row_bias[:, None] / column])
    spread = X.T @ X / 11
    unknown = V[1] @ spread @ V[1]
    assert fit.predict_std(4, 1) == pytest.approx(
        math.sqrt(
            unknown + fit.noise**2 * column**2 * np.linalg.inv(U[seen[:, 1]].T @ U[seen[:, 1]] + 0.1 * np.eye(3))[2, 2]
        )
    )
    Y = np.hstack([fit.col_factors, fit.col_bias[:, None] / column])
    other = Y.T @ Y / 9
    both = column**2 * (spread[2, 2] + other[2, 2]) + np.sum(spread[:2, :2] * other[:2, :2])
    assert fit.predict_std(4, 7) == pytest.approx(math.sqrt(both))
    bare = dataclasses.replace(fit, training=None)
    with pytest.raises(ValueError, match="must hold the entries"):
        bare.predict_std(0, 0)
    again = bare.attach(as_observations(Z))
    assert np.array_equal(again.predict_std([0, 3], [1, 2]), found[:2])
    with pytest.raises(ValueError, match="must have shape"):
        bare.attach(as_observations(Z[:5]))


# --- states on disk ---------------------------------------------------------------------------------------------------


class _Killed(Exception):
    """Stands for the end of a process."""


def _stopping_after(n: int, error: type[BaseException] = _Killed) -> Any:
    def callback(step: CompletionStep) -> None:
        if step.n_iter == n:
            raise error

    return callback


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "cg"},
        {"loss": "huber"},
        {"validation_fraction": 0.2, "init": "random"},
        {"weights": np.full((40, 30), 2.0), "bias": False, "reg_exponent": 0.0},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stopped_fit_goes_on_bit_by_bit(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    _, Z = planted(40, 30, 3, noise=0.5, bias=1.0)
    Z = Z.astype(dtype)
    path = tmp_path / "state"
    options = {"reg": 0.01, "max_iter": 9, "tol": 0.0, **options}
    whole = fitted(Z, 3, **options)
    for n in (1, 4, 7):  # stopped three times
        with pytest.raises(_Killed):
            complete(Z, 3, checkpoint=path, rng=0, callback=_stopping_after(n), **options)
    resumed = fitted(Z, 3, checkpoint=path, **options)
    for name in ("row_factors", "col_factors", "row_bias", "col_bias"):
        assert np.array_equal(getattr(resumed, name), getattr(whole, name)), name
    assert resumed.history == whole.history
    assert resumed.validation_history == whole.validation_history
    assert (resumed.error, resumed.noise, resumed.best_iter) == (whole.error, whole.noise, whole.best_iter)
    steps: list[int] = []
    done = fitted(Z, 3, checkpoint=path, callback=lambda step: steps.append(step.n_iter), **options)
    assert not steps  # it was there
    assert np.array_equal(done.col_factors, whole.col_factors)
    more = fitted(Z, 3, checkpoint=path, **{**options, "max_iter": 11})
    assert np.array_equal(more.col_factors, fitted(Z, 3, **{**options, "max_iter": 11}).col_factors)


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of a fit: the file is whole, and the rest of the fit has the same bits."""
    code = (
        "import os, signal, sys, numpy as np, randla\n"
        "Z = np.load(sys.argv[1])\n"
        "def callback(step):\n"
        "    if step.n_iter == 3 and sys.argv[3].endswith('kill'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "fit = randla.complete(Z, 3, reg=0.01, max_iter=6, tol=0.0, checkpoint=sys.argv[2], callback=callback, rng=0,\n"
        "    on_failure='ignore')\n"
        "np.save(sys.argv[4], fit.to_dense())"
    )
    _, Z = planted(40, 30, 3, noise=0.5, bias=1.0)
    np.save(tmp_path / "Z.npy", Z)
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, *(str(tmp_path / name) for name in ("Z.npy", "state", mode, "D.npy"))],
            check=False, timeout=120,
        ).returncode
        for mode in ("kill", "go on")
    ]  # fmt: skip
    assert runs[0] != 0
    assert runs[1] == 0
    assert np.array_equal(np.load(tmp_path / "D.npy"), fitted(Z, 3, reg=0.01, max_iter=6, tol=0.0).to_dense())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_checkpoints_of_other_fits_are_refused(tmp_path: Path) -> None:
    _, Z = planted(20, 15, 2, noise=0.5)
    path = tmp_path / "state"
    first = fitted(Z, 2, checkpoint=path, max_iter=3)
    key_from_file = complete(Z, 2, checkpoint=path, max_iter=3, on_failure="ignore")  # rng=None: that of the file
    assert np.array_equal(first.row_factors, key_from_file.row_factors)
    other = np.where(np.isnan(Z), Z, Z + 1e-12)
    W = np.ones(Z.shape)
    changed: list[tuple[Any, int, dict[str, Any]]] = [
        (other, 2, {}), (Z, 3, {}), (Z, 2, {"reg": 0.2}), (Z, 2, {"bias": False}), (Z, 2, {"rng": 1}),
        (Z, 2, {"weights": W}), (Z, 2, {"solver": "cg"}), (Z, 2, {"validation_fraction": 0.1}),
        (Z, 2, {"init": first}), (Z, 2, {"loss": "huber"}),
    ]  # fmt: skip
    for data, rank, options in changed:
        with pytest.raises(ValueError, match="must belong to these data and parameters"):
            fitted(data, rank, checkpoint=path, max_iter=3, **options)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="must be a file that complete"):
        fitted(Z, 2, checkpoint=path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="must be a file that complete"):
        fitted(Z, 2, checkpoint=path)
    with pytest.raises(ValueError, match="in a folder that exists"):
        fitted(Z, 2, checkpoint=tmp_path / "none" / "state")


def test_an_interrupt_keeps_the_last_sweep() -> None:
    _, Z = planted(30, 20, 2, noise=0.5)
    with pytest.raises(KeyboardInterrupt) as caught:
        complete(Z, 2, rng=0, max_iter=9, tol=0.0, callback=_stopping_after(3, KeyboardInterrupt))
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.n_iter == 3
    assert not result.converged
    assert np.array_equal(result.col_factors, fitted(Z, 2, max_iter=3, tol=0.0).col_factors)


def test_the_callback_is_told_and_may_stop() -> None:
    _, Z = planted(30, 20, 2, noise=0.5)
    steps: list[CompletionStep] = []

    def callback(step: CompletionStep) -> bool:
        steps.append(step)
        return step.n_iter == 4

    fit = fitted(Z, 2, tol=0.0, callback=callback, validation_fraction=0.1, n_iter_no_change=9)
    assert [step.n_iter for step in steps] == [1, 2, 3, 4]
    assert tuple(step.objective for step in steps) == fit.history
    assert tuple(step.validation_rmse for step in steps) == fit.validation_history
    assert fit.n_iter == 4
    assert not fit.converged


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_results_agree_with_their_dense_form(bias: bool, dtype: str) -> None:
    _, Z = planted(15, 12, 3, noise=0.2, bias=1.0)
    fit = fitted(Z.astype(dtype), 3, bias=bias)
    D = fit.to_dense()
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, 15, (4, 1)), rng.integers(0, 12, (1, 5))
    bound = tolerance(dtype, 200, np.abs(D).max() * 10)
    assert D.dtype == np.dtype(dtype)
    assert np.abs(fit.predict(rows, cols) - D[rows, cols]).max() <= bound
    assert fit.predict(3, 4).shape == ()
    assert fit.predict([], []).shape == (0,)
    x, y = rng.standard_normal(12).astype(dtype), rng.standard_normal((15, 2)).astype(dtype)
    assert np.abs(fit.matmul(x) - D @ x).max() <= bound
    assert np.abs(fit.rmatmul(y) - D.T @ y).max() <= bound
    product = fit.row_factors.astype(float) @ fit.col_factors.T
    assert np.abs(fit.singular_values() - np.linalg.svd(product)[1][:3]).max() <= bound
    X, Y = fit
    assert (X.shape, Y.shape, fit.shape, fit.rank) == ((15, 3), (12, 3), (15, 12), 3)
    assert repr(fit).count("\n") == 0


def test_results_refuse_what_does_not_fit() -> None:
    _, Z = planted(15, 12, 3)
    fit = fitted(Z, 3)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 14\], got 15"):
        fit.predict([15], [0])
    with pytest.raises(ValueError, match=r"cols must be in \[0, 11\], got -1"):
        fit.predict([0], [-1])
    with pytest.raises(TypeError, match="rows must be integers"):
        fit.predict([0.5], [1])
    with pytest.raises(ValueError, match="max_bytes must be at least 1440 for"):
        fit.to_dense(max_bytes=1000)
    with pytest.raises(ValueError, match="X must have 12 rows"):
        fit.matmul(np.ones(11))
    with pytest.raises(ValueError, match="on_unseen must be one of"):
        fit.predict([0], [0], on_unseen="zero")


def test_rows_and_columns_without_entries() -> None:
    """Zero factors and no bias: predictions are those of what is known; or NaN, or an error."""
    _, Z = planted(20, 15, 2, bias=1.0)
    Z[3], Z[:, 5] = np.nan, np.nan
    for power in (0.0, 1.0):
        for solver in ("cholesky", "cg"):
            fit = fitted(Z, 2, reg=0.1, reg_exponent=power, solver=solver)
            assert not fit.row_factors[3].any()
            assert not fit.col_factors[5].any()
            assert fit.row_bias[3] == 0.0 == fit.col_bias[5]
            assert fit.predict(3, 0) == pytest.approx(fit.mean + fit.col_bias[0])
            assert fit.predict(3, 5) == fit.mean
    assert np.array_equal(np.isnan(fit.predict([3, 0, 0], [0, 5, 0], on_unseen="nan")), [True, True, False])
    with pytest.raises(ValueError, match="got row 0, column 5"):
        fit.predict([0, 0], [0, 5], on_unseen="raise")
    assert fit.predict([0], [0], on_unseen="raise").shape == (1,)


def test_bytes_hold_the_result() -> None:
    _, Z = planted(15, 12, 3, noise=0.2)
    for options in ({}, {"bias": False}, {"loss": "huber", "validation_fraction": 0.2}):
        fit = fitted(Z, 1, **options)
        data = fit.to_bytes()
        again = CompletionResult.from_bytes(data)
        for field in dataclasses.fields(fit):
            first, second = getattr(fit, field.name), getattr(again, field.name)
            if field.name != "training":
                same = np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second
                assert same, field.name
        assert again.training is None
        assert again.to_bytes() == data
        for damaged in (data[:-1], data[:50], b"", data[:100] + bytes([data[100] ^ 1]) + data[101:]):
            with pytest.raises(ValueError, match="data must"):
                CompletionResult.from_bytes(damaged)
    with pytest.raises(TypeError, match="data must be bytes"):
        CompletionResult.from_bytes("text")  # type: ignore[arg-type]


# --- new rows and columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_in_solves_each_row_exactly(bias: bool, loss: str) -> None:
    _, Z = planted(60, 40, 3, share=0.6, noise=0.1, bias=float(bias))
    fit = fitted(Z[:50], 3, reg=0.01, bias=bias, loss=loss, loss_scale=None if loss == "squared" else 0.1)
    new = Z[50:].copy()
    new[2] = np.nan
    found = fold_in(fit, new)
    for container in (sp.csr_array, sp.coo_array):
        seen = ~np.isnan(new)
        stored = container((new[seen], np.nonzero(seen)), shape=new.shape)
        assert np.abs(fold_in(fit, stored).factors - found.factors).max() <= tolerance("float64", 100, 10)
    V = np.hstack([fit.col_factors, np.ones((40, 1))]) if bias else fit.col_factors
    for i in range(10):
        seen = ~np.isnan(new[i])
        r = new[i, seen] - fit.mean - (fit.col_bias[seen] if bias else 0.0)
        x = np.append(found.factors[i], found.bias[i]) if bias and found.bias is not None else found.factors[i]
        w = np.ones(seen.sum()) if loss == "squared" else loss_weights(r - V[seen] @ x, loss, 0.1, np)
        gradient = V[seen].T @ (w * (r - V[seen] @ x)) - 0.01 * seen.sum() * x
        assert np.abs(gradient).max() <= 1e-6 * max(1.0, np.abs(V[seen].T @ r).max())
    assert not found.factors[2].any()
    assert (found.bias is None) == (not bias)
    wrong = np.ones((2, 41))
    with pytest.raises(ValueError, match="X_new must have 40 columns, got 41"):
        fold_in(fit, wrong)


def test_appended_rows_and_columns() -> None:
    truth, Z = planted(70, 50, 3, share=0.6, noise=0.1, bias=1.0)
    part = fitted(Z[:60, :45], 3, reg=0.005)
    grown = append_cols(append_rows(part, Z[60:, :45]), Z[:, 45:])
    assert grown.shape == (70, 50)
    assert np.array_equal(grown.row_factors[:60], part.row_factors)
    rest = np.isnan(Z)

    def error(fit: CompletionResult) -> float:
        return float(np.sqrt(np.mean((fit.to_dense() - truth)[rest] ** 2)))

    whole = fitted(Z, 3, reg=0.005)
    assert error(grown) < 1.5 * error(whole)
    assert np.array_equal(grown.row_counts, (~rest).sum(axis=1))
    assert np.array_equal(grown.col_counts, (~rest).sum(axis=0))
    assert grown.training is not None
    assert grown.training.observations.nnz == int((~rest).sum())
    assert np.isfinite(grown.predict_std([65], [48])).all()
    swept = append_rows(fitted(Z[:60], 3, reg=0.005), Z[60:], sweeps=4)
    assert swept.n_iter == 4
    assert abs(error(swept) / error(whole) - 1) < 0.02
    with pytest.raises(ValueError, match="attach them first"):
        append_rows(dataclasses.replace(part, training=None), Z[60:, :45], sweeps=1)
    back = swapped(swapped(part))
    assert np.array_equal(back.row_factors, part.row_factors)
    robust = append_rows(fitted(Z[:60], 3, reg=0.005, loss="huber"), Z[60:], sweeps=2)
    assert error(robust) < 1.5 * error(whole)


# --- ranks and ridges -------------------------------------------------------------------------------------------------


def test_the_planted_rank_is_chosen() -> None:
    _, Z = planted(150, 100, 4, share=0.5, noise=0.5)
    curve = choose_completion_rank(Z, [6, 1, 2, 3, 4, 5, 8], reg=0.005, options={"bias": False}, rng=0)
    assert curve.values == (1, 2, 3, 4, 5, 6, 8)
    assert curve.chosen == 4
    assert curve.result.rank == 4
    assert curve.converged
    assert curve.errors[3] < 0.6 < curve.errors[2]
    assert all(s > 0 for s in curve.standard_errors)
    assert np.all(np.diff(curve.training_errors) < 0)
    least = choose_completion_rank(Z, [3, 4, 5], reg=0.005, options={"bias": False}, rng=0, rule="least")
    assert least.chosen == least.least
    with pytest.raises(ValueError, match="ranks must have an entry"):
        choose_completion_rank(Z, [])


def test_the_path_begins_without_factors_and_chooses_in_the_middle() -> None:
    _, Z = planted(100, 80, 3, share=0.4, noise=1.5, bias=1.0)
    curve = regularization_path(Z, 8, n_regs=7, rng=0)
    assert np.all(np.diff(curve.values) < 0)
    assert curve.values[0] == pytest.approx(1e3 * curve.values[-1])
    errors = np.array(curve.errors)
    best = int(np.argmin(errors))
    assert 0 < best < 6
    assert curve.least == curve.values[best]
    chosen = curve.values.index(curve.chosen)
    assert chosen <= best
    assert errors[chosen] <= errors[best] + curve.standard_errors[best]
    top = fitted(
        Z, 8, reg=1.5 * curve.values[0], max_iter=300, tol=1e-10
    )  # the largest ridge is known to a few percent
    assert top.singular_values()[0] < 1e-2 * np.nanstd(Z) * math.sqrt(Z.size)
    below = fitted(Z, 8, reg=curve.values[1], max_iter=300)
    assert below.singular_values()[0] > 0.1 * np.nanstd(Z) * math.sqrt(Z.size)
    given_regs = regularization_path(Z, 3, [0.01, 0.1], rng=0)
    assert given_regs.values == (0.1, 0.01)


# --- ranking ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 18), st.booleans(), st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_recommendations_are_the_largest_scores(m: int, n: int, k: int, filtered: bool, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, Y, bias, offset = rng.standard_normal((m, 3)), rng.standard_normal((n, 3)), rng.standard_normal(n), rng.random(m)
    seen = rng.random((m, n)) < 0.3
    observed = as_observations(np.where(seen, 1.0, np.nan)) if filtered else None
    rows = rng.integers(0, m, 6)
    found = recommend(X, Y, rows, k, seen=observed, col_bias=bias, offset=offset, block_size=block)
    scores = X @ Y.T + bias + offset[:, None]
    for q, i in enumerate(rows):
        left = [j for j in np.argsort(-scores[i], kind="stable") if not (filtered and seen[i, j])]
        expected = (left + [-1] * k)[:k]
        assert found.columns[q].tolist() == expected
        values = [scores[i, j] if j >= 0 else -math.inf for j in expected]
        assert np.allclose(found.values[q], values, rtol=1e-12, atol=1e-12)


def test_recommendations_refuse_what_does_not_fit() -> None:
    X, Y = np.ones((4, 2)), np.ones((5, 2))
    assert recommend(X, Y, None, 2).columns.shape == (4, 2)
    assert recommend(X, Y, np.zeros(0, np.int64), 2).columns.shape == (0, 2)
    with pytest.raises(ValueError, match="col_factors must have 2 columns"):
        recommend(X, np.ones((5, 3)), None, 2)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 3\]"):
        recommend(X, Y, np.array([4]), 2)
    with pytest.raises(ValueError, match="seen must have shape"):
        recommend(X, Y, None, 2, seen=as_observations(np.ones((3, 5))))
    with pytest.raises(ValueError, match="k must be at least 1"):
        recommend(X, Y, None, 0)


# --- threads, libraries, input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_threads_change_no_bit(solver: str) -> None:
    _, Z = planted(150, 90, 3, noise=0.5, bias=1.0)
    results = []
    for n in (1, 2, 5):
        with randla.threads(n):
            results.append(fitted(Z, 3, solver=solver, validation_fraction=0.1, max_iter=5, tol=0.0))
    for other in results[1:]:
        assert np.array_equal(other.row_factors, results[0].row_factors)
        assert other.history == results[0].history
        assert other.validation_history == results[0].validation_history


@pytest.mark.parametrize(
    "options", [{}, {"solver": "cg", "init": "random"}, {"loss": "huber", "validation_fraction": 0.2}]
)
def test_other_array_libraries(options: dict[str, Any]) -> None:
    """On the second device of array_api_strict: no host copy, no NumPy-ism, the same numbers."""
    xp = array_api_strict
    _, Z = planted(14, 11, 1, noise=0.3, bias=1.0, share=0.7)
    A = xp.asarray(Z, device=xp.Device("device1"))
    found, numpy = fitted(A, 1, max_iter=3, **options), fitted(Z, 1, max_iter=3, **options)
    assert found.row_factors.device == xp.Device("device1")
    assert np.abs(np.array(found.history) - numpy.history).max() <= tolerance("float64", 1000, numpy.history[0])
    rows, cols = [1, 2, 13], [3, 4, 10]
    for method in ("predict", "predict_std"):
        ours = to_host(getattr(found, method)(rows, cols))
        assert np.abs(ours - getattr(numpy, method)(rows, cols)).max() <= 1e-9
    assert fold_in(found, A[:3, :]).factors.device == xp.Device("device1")
    assert append_rows(found, A[:3, :]).shape == (17, 11)
    assert len(found.to_bytes()) == len(numpy.to_bytes())


def test_sparse_and_dense_give_the_same(dtype: str) -> None:
    """Stored zeros are observations; int64 indices, columns out of order and CSC make no difference."""
    _, Z = planted(30, 20, 2, noise=0.5)
    Z[0, np.nonzero(~np.isnan(Z[0]))[0][0]] = 0.0
    Z = Z.astype(dtype)
    dense = fitted(Z, 2, max_iter=3)
    rows, cols = np.nonzero(~np.isnan(Z))
    order = np.random.default_rng(0).permutation(rows.size)
    coo = sp.coo_array((Z[rows, cols][order], (rows[order], cols[order])), shape=Z.shape)
    csr = coo.tocsr()
    wide = csr.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for stored in (coo, csr, wide, csr.tocsc()):
        before = stored.data.copy()
        found = fitted(stored, 2, max_iter=3)
        assert np.array_equal(found.row_factors, dense.row_factors)
        assert np.array_equal(stored.data, before)
        assert found.row_factors.dtype == np.dtype(dtype)
        assert found.training is not None
        assert found.training.observations.nnz == rows.size


def test_results_that_did_not_converge_say_so() -> None:
    _, Z = planted(30, 20, 2, noise=0.5)
    for max_iter in (0, 1):
        fit = fitted(Z, 2, max_iter=max_iter)
        assert fit.status is Status.MAX_ITER
        assert not fit.converged
        assert fit.n_iter == max_iter
        assert math.isfinite(fit.objective)
        assert math.isfinite(fit.error)
    with pytest.warns(ConvergenceWarning, match="complete ended with"):
        complete(Z, 2, max_iter=1, rng=0)
    with pytest.raises(ConvergenceError) as caught:
        complete(Z, 2, max_iter=1, rng=0, on_failure="raise")
    assert caught.value.result.n_iter == 1
    huge = fitted(np.where(Z > -0.5, np.float32(3.3e38), np.float32(-3.3e38)), 2)
    assert huge.status is Status.NONFINITE
    assert not huge.converged
    floor = fitted(Z.astype(np.float32), 2, tol=0.0, max_iter=2000)
    assert floor.status in (Status.STAGNATED, Status.CONVERGED)
    assert floor.n_iter < 2000


def test_degenerate_matrices() -> None:
    empty = fitted(sp.csr_array((5, 4)), 2)
    assert empty.converged
    assert not empty.to_dense().any()
    assert math.isnan(empty.error)
    constant = fitted(np.full((6, 5), 3.0), 2)
    assert np.abs(constant.to_dense() - 3.0).max() <= tolerance("float64", 30, 3.0)
    one = fitted(np.array([[2.0, np.nan], [np.nan, np.nan]]), 1)
    assert one.converged
    assert one.predict(1, 1) == 2.0
    few = fitted(planted(30, 20, 2, share=0.1)[1], 15, reg=0.1)  # a rank above the entries of any row
    assert few.converged
    assert np.isfinite(few.to_dense()).all()
    assert fitted(np.where(np.eye(6) > 0, 1.0, np.nan), 2, reg=0.0, bias=False).n_iter >= 1


def test_warm_starts() -> None:
    _, Z = planted(60, 40, 3, share=0.6, noise=0.3, bias=1.0)
    first = fitted(Z, 3, tol=1e-8, max_iter=200)
    again = fitted(Z, 3, init=first, tol=1e-6)
    assert again.n_iter <= 2
    assert again.objective <= first.objective * (1 + 1e-12)
    unbiased = fitted(Z, 3, init=fitted(Z, 3, bias=False), tol=1e-8, max_iter=200)
    assert unbiased.objective == pytest.approx(first.objective, rel=1e-3)
    wider = fitted(Z, 5, init=first, tol=1e-8)
    assert wider.objective < first.objective * (1 + 1e-6)  # the two more are of no use with this ridge
    freer = fitted(Z, 5, reg=1e-3, init=first)
    assert freer.singular_values()[4] > 0.1 * freer.singular_values()[3]
    with pytest.raises(ValueError, match="init must have shape"):
        fitted(Z[:50], 3, init=first)
    with pytest.raises(ValueError, match="init must have shape"):
        fitted(Z, 2, init=first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 9}, r"rank must be in \[0, 8\], got 9"),
        ({"reg": -1.0}, "reg must be finite and in"),
        ({"reg": math.nan}, "reg must be finite and in"),
        ({"reg_exponent": -0.5}, "reg_exponent must be"),
        ({"reg_bias": 0.0}, "reg_bias must be"),
        ({"reg_bias": 1.0, "bias": False}, "reg_bias must be None"),
        ({"loss": "cubic"}, "loss must be one of"),
        ({"loss_scale": 1.0}, 'loss_scale must be None for loss="squared"'),
        ({"loss": "huber", "loss_scale": 0.0}, "loss_scale must be"),
        ({"solver": "lu"}, "solver must be one of"),
        ({"init": "zeros"}, "init must be one of"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"validation_fraction": 1e-9}, "validation_fraction must leave entries"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be"),
        ({"max_iter": -1}, "max_iter must be"),
        ({"tol": -1.0}, "tol must be"),
        ({"on_failure": "cry"}, "on_failure must be one of"),
        ({"weights": np.ones(3)}, "weights must have shape"),
        ({"weights": np.ones((3, 3))}, "weights must have the shape"),
        ({"weights": -np.ones((10, 8))}, "weights must be finite and nonnegative"),
        ({"weights": sp.csr_array(np.eye(10, 8))}, "weights must store the entries that X stores"),
    ],
)
def test_parameters_are_checked(change: dict[str, Any], message: str) -> None:
    _, Z = planted(10, 8, 2)
    with pytest.raises(ValueError, match=message):
        complete(Z, **{"rank": 2, "rng": 0, **change})


def test_input_is_checked() -> None:
    with pytest.raises(ValueError, match="row 1, column 2 more than once"):
        complete(sp.coo_array(([1.0, 2.0], ([1, 1], [2, 2])), shape=(3, 4)), 1)
    with pytest.raises(ValueError, match="finite"):
        complete(sp.csr_array(np.array([[1.0, np.inf]])), 1)
    with pytest.raises(TypeError, match="must be real"):
        complete(np.ones((3, 3), complex), 1)
    with pytest.raises(TypeError, match="bias must be True or False"):
        complete(np.ones((3, 3)), 1, bias="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rank must be an integer"):
        complete(np.ones((3, 3)), 1.5)  # type: ignore[arg-type]


def test_the_curve_can_be_drawn() -> None:
    _, Z = planted(60, 40, 2, share=0.5, noise=0.5)
    by_rank = choose_completion_rank(Z, [1, 2, 3], reg=0.01, rng=0)
    display = ValidationCurveDisplay.from_result(by_rank).plot()
    held, fit = display.lines_
    assert held.get_ydata().tolist() == list(by_rank.errors)
    assert fit.get_ydata().tolist() == list(by_rank.training_errors)
    assert display.ax_.get_xlabel() == "rank"
    by_reg = regularization_path(Z, 2, [0.1, 0.01], rng=0)
    again = ValidationCurveDisplay(by_reg).plot(display.ax_)
    assert again.ax_.get_xscale() == "log"
