"""Least squares of rows: exact against dense solvers, least norms, tolerances that hold, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from randla import ConvergenceError, ConvergenceWarning, Status, masked_lstsq
from randla._arrays import eps, to_host
from randla.completion.rows import SOLVERS, default_tolerance

from .conftest import tolerance

DIRECT, ITERATIVE = ("cholesky", "qr"), ("cg", "sketch")


def pattern(m: int, n: int, density: float, seed: int = 0) -> sp.csr_array:
    X = sp.csr_array(sp.random_array((m, n), density=density, rng=np.random.default_rng(seed)))
    X.data = np.random.default_rng(seed + 1).standard_normal(X.nnz)
    X.sort_indices()
    return X


def vectors(n: int, k: int, dtype: str = "float64", seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(dtype)


def solved(V: np.ndarray, X: sp.csr_array, weights: Any = None, reg: Any = 0.0) -> np.ndarray:
    """The truth: a dense least-squares problem of least norm for each row."""
    m, k = X.shape[0], V.shape[1]
    out, reg = np.zeros((m, k)), np.broadcast_to(reg, m)
    for i in range(m):
        part = slice(X.indptr[i], X.indptr[i + 1])
        root = np.ones(part.stop - part.start) if weights is None else np.sqrt(weights[part])
        A = np.vstack([root[:, None] * V[X.indices[part]], np.sqrt(reg[i]) * np.eye(k)])
        b = np.concatenate([root * X.data[part], np.zeros(k)])
        out[i] = np.linalg.lstsq(A, b, rcond=1e-10)[0]
    return out


def run(V: Any, X: sp.csr_array, **options: Any) -> Any:
    return masked_lstsq(V, X.indptr, X.indices, X.data, **options)


# --- solutions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reg", ["none", "scalar", "rows"])
def test_solutions_are_those_of_dense_solvers(solver: str, weighted: bool, reg: str, dtype: str) -> None:
    X, V = pattern(40, 120, 0.6), vectors(120, 8, dtype)
    weights = np.random.default_rng(5).random(X.nnz) + 0.2 if weighted else None
    ridge = {"none": 0.0, "scalar": 2.0, "rows": np.linspace(0.0, 5.0, 40)}[reg]
    result = run(V, X, weights=weights, reg=ridge, solver=solver, rng=0, tol=1e-6 if dtype == "float32" else 1e-13)
    expected = solved(V.astype(float), X, weights, ridge)
    # sums of 72 terms, condition numbers below 20, and the tolerance of the iterations
    assert np.abs(result.X - expected).max() <= tolerance(dtype, 72, 20) + (1e-5 if dtype == "float32" else 1e-12)
    assert result.X.dtype == dtype
    assert result.status is Status.CONVERGED
    assert result.n_deficient == result.n_missed == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_with_too_few_entries_get_the_least_norm(solver: str) -> None:
    X, V = pattern(60, 50, 0.05), vectors(50, 6)
    counts = np.diff(X.indptr)
    assert 0 in counts
    assert np.any((counts > 0) & (counts < 6))
    result = run(V, X, solver=solver, rng=0)
    assert np.abs(result.X - solved(V, X)).max() <= tolerance("float64", 50, 100)
    assert result.n_deficient == np.sum((counts > 0) & (counts < 6))
    assert result.status is Status.RANK_DEFICIENT
    assert result.converged
    assert not result.X[counts == 0].any()


def test_least_norm_of_repeated_vectors_and_zero_weights() -> None:
    """Enough entries, but all with the same two vectors; and a row all of whose weights are zero."""
    V = np.repeat(vectors(2, 5), 10, axis=0)
    X = pattern(12, 20, 0.9)
    weights = np.ones(X.nnz)
    weights[: X.indptr[1]] = 0.0
    for solver in DIRECT:
        result = run(V, X, weights=weights, solver=solver)
        assert result.n_deficient == 11
        assert np.abs(result.X - solved(V, X, weights)).max() <= tolerance("float64", 20, 100)
    ridge = run(V, X, weights=weights, reg=0.1)
    assert ridge.n_deficient == 0
    assert np.abs(ridge.X - solved(V, X, weights, 0.1)).max() <= tolerance("float64", 20, 100)


@given(st.integers(0, 8), st.integers(1, 12), st.integers(0, 4), st.floats(0, 1), st.sampled_from(SOLVERS))
@settings(max_examples=60, deadline=None)
def test_any_shape_and_any_order(m: int, n: int, k: int, density: float, solver: str) -> None:
    """Entries of a row in any order, and rows in any order, give the same solutions."""
    X, V = pattern(m, n, density), vectors(n, k)
    result = run(V, X, reg=0.3, solver=solver, rng=0)
    assert result.X.shape == (m, k)
    order = np.random.default_rng(0).permutation(n)
    shuffled = sp.csr_array(X[:, order])  # its columns are not sorted
    other = run(V[order], shuffled, reg=0.3, solver=solver, rng=0)
    slack = 1e-9 if solver in ITERATIVE else tolerance("float64", n, 10)
    assert np.abs(result.X - other.X).max(initial=0) <= slack
    if m > 1:
        turned = run(V, sp.csr_array(X[::-1]), reg=0.3, solver=solver, rng=0)
        assert np.abs(turned.X[::-1] - result.X).max(initial=0) <= slack


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scales(solver: str, scale: float) -> None:
    X, V = pattern(30, 60, 0.5), vectors(60, 5)
    base = run(V, X, reg=0.5, solver=solver, rng=0).X
    data = run(V, X._with_data(scale * X.data), reg=0.5, solver=solver, rng=0).X
    both = run(scale * V, X._with_data(scale * X.data), reg=0.5 * scale**2, solver=solver, rng=0).X
    assert np.abs(data / scale - base).max() <= 1e-9
    assert np.abs(both - base).max() <= 1e-9


def test_int64_indices_are_taken() -> None:
    X, V = pattern(20, 30, 0.5), vectors(30, 4)
    wide = masked_lstsq(V, X.indptr.astype(np.int64), X.indices.astype(np.int64), X.data)
    assert np.array_equal(wide.X, run(V, X).X)


@pytest.mark.parametrize("solver", SOLVERS)
def test_namespaces(put: Any, dtype: str, solver: str) -> None:
    X, V = pattern(10, 30, 0.5), vectors(30, 3, dtype)
    X = sp.csr_array(sp.vstack([X, pattern(6, 30, 0.04)]))
    weights, start = np.random.default_rng(1).random(X.nnz), np.ones((16, 3))
    host = run(V, X, weights=weights, solver=solver, x0=start, rng=0)
    arrays = (put(part) for part in (V, X.indptr, X.indices, X.data))
    result = masked_lstsq(*arrays, weights=put(weights), solver=solver, x0=put(start), rng=0)
    assert to_host(result.X).dtype == dtype
    assert np.abs(to_host(result.X) - host.X).max() <= tolerance(dtype, 30, 100)
    assert result.n_deficient == host.n_deficient


# --- iterations -------------------------------------------------------------------------------------------------------


def skewed(m: int = 50, n: int = 2000, k: int = 32) -> tuple[np.ndarray, sp.csr_array]:
    """800 entries a row, columns whose scales differ by 1.5 decades."""
    X = pattern(m, n, 0.4, seed=1)
    return vectors(n, k, seed=0) * 10 ** np.linspace(0, 1.5, k), X


def test_steps_of_the_preconditioners() -> None:
    """Means of 56, 13.5, 23 and 12 steps to 1e-10: the shared Gram matrix beats a sketch of each row's own entries."""
    V, X = skewed()
    expected = solved(V, X)
    plain, diagonal, gram = (
        run(V, X, solver="cg", preconditioner=name, tol=1e-10, max_iter=300) for name in ("none", "diagonal", "gram")
    )
    sketch = run(V, X, solver="sketch", tol=1e-10, rng=0)
    means = [float(result.steps.mean()) for result in (plain, diagonal, gram, sketch)]
    assert 45 < means[0] < 65
    assert 12 < means[1] < 16
    assert 11 < means[2] < 13
    assert 19 < means[3] < 27
    assert means[2] < means[1] < means[3] < means[0]
    for result in (plain, diagonal, gram, sketch):
        assert result.status is Status.CONVERGED
        assert result.residuals.max() <= 1e-10
        assert np.abs(result.X - expected).max() <= 1e-8 * np.abs(expected).max()  # condition numbers below 40


def test_gram_steps_do_not_depend_on_the_scales_of_the_columns() -> None:
    V, X = skewed(m=20)
    steps = [run(V * s, X, solver="cg", tol=1e-10).steps.mean() for s in (1.0, 10 ** np.linspace(0, 4, 32))]
    assert abs(steps[0] - steps[1]) <= 1.0


def test_warm_starts_save_steps() -> None:
    V, X = skewed(m=20)
    cold = run(V, X, solver="cg", tol=1e-10)
    warm = run(V, X, solver="cg", tol=1e-10, x0=cold.X * (1 + 1e-6))
    assert warm.steps.max() < cold.steps.min()
    there = run(V, X, solver="cg", tol=1e-9, x0=cold.X)
    assert there.n_iter == 0


def test_sketches_that_fail_are_guarded() -> None:
    """Two steps are too few for any sketch: a larger one is tried, then QR; plain "cg" tells what it missed."""
    V, X = skewed(m=20)
    result = run(V, X, solver="sketch", tol=1e-10, max_iter=2, rng=0)
    assert result.n_refined == 20
    assert result.status is Status.CONVERGED
    assert np.abs(result.X - solved(V, X)).max() <= tolerance("float64", 800, 1000)
    left = run(V, X, solver="cg", tol=1e-10, max_iter=2, on_failure="ignore")
    assert left.status is Status.MAX_ITER
    assert left.n_missed == 20
    with pytest.warns(ConvergenceWarning, match="MAX_ITER"):
        run(V, X, solver="cg", tol=1e-10, max_iter=0)
    with pytest.raises(ConvergenceError):
        run(V, X, solver="cg", tol=1e-10, max_iter=0, on_failure="raise")


def test_sketches_are_equal_for_equal_keys() -> None:
    V, X = skewed(m=10)
    first, second, third = (run(V, X, solver="sketch", tol=1e-3, rng=seed).X for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_auto_chooses_by_cost_and_says_why() -> None:
    X = pattern(30, 1500, 0.5)
    small, large = vectors(1500, 8), vectors(1500, 96)
    assert run(large, X).solver == "cholesky"
    assert "no tolerance" in run(large, X).reason
    assert run(large, X, tol=1e-3).solver == "cg"
    assert run(small, X, tol=1e-9).solver == "cholesky"
    assert "expected steps" in run(small, X, tol=1e-9).reason
    assert default_tolerance("float64") == eps("float64") ** (2 / 3)


def test_work_of_conjugate_gradients_grows_like_the_rank_and_that_of_cholesky_like_its_square() -> None:
    """Multiplications counted, at fixed entries and the tolerance of a sweep: slopes in log-log from 16 to 128."""
    n, X = 3000, pattern(40, 3000, 0.4)
    ranks = np.array([16, 32, 64, 128])
    work = []
    for k in ranks:
        result = run(vectors(n, k), X, solver="cg", tol=1e-3)
        work.append(2 * k * int(np.sum((result.steps + 2) * np.diff(X.indptr))) + 2 * n * k)
    slope = np.polyfit(np.log(ranks), np.log(work), 1)[0]
    assert slope < 1.3
    exact = [X.nnz * k * (k + 1) / 2 + X.shape[0] * k**3 / 6 for k in ranks[2:]]
    assert np.diff(np.log(exact)) / np.log(2) > 1.7


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "weights must be nonnegative, got -1", {"weights": np.array([1.0, -1.0, 1.0])}),
        (ValueError, "weights must be finite", {"weights": np.array([1.0, np.nan, 1.0])}),
        (ValueError, r"weights must have shape \(3,\)", {"weights": np.ones(2)}),
        (ValueError, "data must be finite", {"data": np.array([1.0, np.inf, 1.0])}),
        (ValueError, r"data must have shape \(3,\)", {"data": np.ones(2)}),
        (ValueError, "V must be finite", {"V": np.full((3, 2), np.nan)}),
        (ValueError, "indptr must rise", {"indptr": np.array([0, 3, 2])}),
        (ValueError, "indptr must rise", {"indptr": np.array([0, 2, 4])}),
        (ValueError, r"indices must be in \[0, 2\]", {"indices": np.array([0, 3, 1])}),
        (ValueError, r"indices must be in \[0, 2\]", {"indices": np.array([0, -1, 1])}),
        (TypeError, "indices must be integers", {"indices": np.array([0.0, 1.0, 1.0])}),
        (ValueError, "reg must be nonnegative", {"reg": np.array([1.0, -1.0])}),
        (ValueError, "reg must be finite and in", {"reg": -1.0}),
        (ValueError, r"x0 must have shape \(2, 2\)", {"x0": np.ones((2, 3))}),
        (ValueError, "x0 must be finite", {"x0": np.full((2, 2), np.nan)}),
        (ValueError, "solver must be one of", {"solver": "lu"}),
        (ValueError, "preconditioner must be one of", {"preconditioner": "ilu"}),
        (ValueError, "tol must be finite and in", {"tol": 0.0}),
        (ValueError, "max_iter must be at least 0", {"max_iter": -1}),
        (ValueError, "on_failure must be one of", {"on_failure": "no"}),
        (TypeError, "V must be real", {"V": np.ones((3, 2)) * 1j}),
        (TypeError, "data must be real", {"data": np.ones(3) * 1j}),
    ],
)
def test_bad_input(error: type, match: str, changes: dict[str, Any]) -> None:
    given = {
        "V": np.ones((3, 2)), "indptr": np.array([0, 2, 3]), "indices": np.array([0, 1, 2]), "data": np.ones(3),
        **changes,
    }  # fmt: skip
    with pytest.raises(error, match=match):
        masked_lstsq(**given)


def test_overflow_is_told() -> None:
    X, V = pattern(5, 10, 0.8), vectors(10, 2)
    result = run(V * 1e-30, X._with_data(X.data * 1e300), solver="qr", on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert not result.converged


def test_inputs_are_not_changed() -> None:
    X, V = pattern(20, 30, 0.3), vectors(30, 4)
    copies = [part.copy() for part in (V, X.indptr, X.indices, X.data)]
    for solver in SOLVERS:
        run(V, X, solver=solver, rng=0)
    for before, after in zip(copies, (V, X.indptr, X.indices, X.data), strict=True):
        assert np.array_equal(before, after)
