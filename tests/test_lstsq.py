"""Least squares: against LAPACK, in backward error, and problems that must say that they are hard."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import randla
from randla import ConvergenceError, ConvergenceWarning, Status
from randla._arrays import eps, to_host
from randla._random import as_key
from randla.regression import choose_lstsq, lstsq
from randla.regression.preconditioners import factor_of_sketch, from_gram, sketch_rows

from .conftest import tolerance

METHODS = ("direct", "precondition", "lsmr")


def haar(m, n, rng):
    """An orthonormal basis drawn uniformly."""
    Q, R = np.linalg.qr(rng.standard_normal((m, n)))
    return Q * np.sign(np.diag(R))


def problem(m, n, condition, residual, seed=0):
    """A, b, x: singular values spaced evenly on a log scale, a residual orthogonal to the range, ||x|| = 1."""
    rng = np.random.default_rng(seed)
    U, V = haar(m, n, rng), haar(n, n, rng)
    A = (U * np.logspace(0, -np.log10(condition), n)) @ V.T
    x = rng.standard_normal(n)
    x /= np.linalg.norm(x)
    r = rng.standard_normal(m)
    r -= U @ (U.T @ r)
    return A, A @ x + residual * r / np.linalg.norm(r), x


def backward_error(A, b, x):
    """||[dA, theta db]||_F / ||A||_F by Karlson and Walden's estimate from a full decomposition."""
    r = b - A @ x
    _, s, Vh = np.linalg.svd(A, full_matrices=False)
    theta = np.linalg.norm(A) / np.linalg.norm(b)
    grown = 1 + theta**2 * (x @ x)
    shift = theta**2 * (r @ r) / grown + 1e-300
    return np.linalg.norm((Vh @ (A.T @ r)) / np.sqrt(s**2 + shift)) * theta / np.sqrt(grown) / np.linalg.norm(A)


def exact_backward_error(A, b, x):
    """min ||dA||_F / ||A||_F with b fixed: Walden, Karlson and Sun, in full."""
    r = b - A @ x
    phi = np.linalg.norm(r) / np.linalg.norm(x)
    projector = np.eye(len(b)) - np.outer(r, r) / (r @ r)
    least = np.linalg.svd(np.hstack([A, phi * projector]), compute_uv=False)[-1]
    return min(phi, least) / np.linalg.norm(A)


def reference(A, B, damp=0.0, weights=None):
    """The solution of least norm by NumPy, of the augmented problem."""
    A, B = np.asarray(A), np.asarray(B)
    if weights is not None:
        A, B = np.sqrt(weights)[:, None] * A, (np.sqrt(weights) * B.T).T
    if damp and A.shape[0] < A.shape[1]:
        K = A @ A.conj().T + damp**2 * np.eye(A.shape[0])
        return A.conj().T @ np.linalg.solve(K, B)
    if damp:
        A = np.vstack([A, damp * np.eye(A.shape[1])])
        B = np.concatenate([B, np.zeros((A.shape[1], *B.shape[1:]))])
    return np.linalg.lstsq(A, B, rcond=1e-12)[0]


def close(x, y, condition, dtype="float64"):
    """Whether x is y up to what the condition number does to rounding errors."""
    return np.linalg.norm(x - y) <= tolerance(dtype, x.shape[0], condition * np.linalg.norm(y))


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12, 1e15])
@pytest.mark.parametrize("residual", [1e-15, 1e-6, 1.0])
def test_backward_stable(condition, residual):
    """Backward error 2e-15 (spec of the method) and at most ten times that of gelsy, with its own estimate near it."""
    A, b, _ = problem(2000, 40, condition, residual)
    result = lstsq(A, b, method="precondition", rng=0)
    told, ours = result.backward_error, backward_error(A, b, result.x)
    gelsy = backward_error(A, b, scipy.linalg.lstsq(A, b, lapack_driver="gelsy")[0])
    assert ours <= min(2e-15, 10 * max(gelsy, eps("float64") / 4))
    assert 0.3 * ours - eps("float64") <= told <= 3 * ours + eps("float64")
    assert result.converged
    assert result.rank == 40 or condition >= 1e14


@pytest.mark.slow
def test_backward_stable_on_a_grid():
    """8 x 8 of conditions up to 1e15 and residuals down to 1e-15: the largest backward error is below 2e-15."""
    worst = 0.0
    for i, condition in enumerate(np.logspace(0, 15, 8)):
        for j, residual in enumerate(np.logspace(-15, 0, 8)):
            A, b, _ = problem(2000, 50, condition, residual, seed=8 * i + j)
            worst = max(worst, backward_error(A, b, lstsq(A, b, method="precondition", rng=j).x))
    assert worst <= 2e-15


def test_estimate_agrees_with_the_exact_backward_error():
    """The estimate allows for changes of b too, so it may be smaller than the one with b fixed, by sqrt(2) or so."""
    A, b, _ = problem(120, 10, 1e4, 1e-2)
    x = lstsq(A, b, method="sketch", sketch_size=60, rng=1).x
    assert 0.2 < backward_error(A, b, x) / exact_backward_error(A, b, x) < 1.1


@pytest.mark.parametrize("condition", [10.0, 1e8])
def test_residual_excess(condition):
    A, b, _ = problem(6000, 60, condition, 1e-3)
    x = scipy.linalg.lstsq(A, b, lapack_driver="gelsy")[0]
    found = lstsq(A, b, method="precondition", rng=0).x
    assert abs(np.linalg.norm(b - A @ found) / np.linalg.norm(b - A @ x) - 1) <= 1e-12


def test_one_step_of_refinement_is_not_enough():
    """Sketch and solve, of the same sketch, is far from backward stable: the passes do the work."""
    A, b, _ = problem(4000, 50, 1e8, 1e-3)
    once = lstsq(A, b, method="sketch", rng=0)
    assert backward_error(A, b, once.x) > 1e-10
    assert once.n_iter == 0


def test_told_condition_rank_and_norms():
    A, b, _ = problem(3000, 30, 1e6, 1e-2)
    for method in ("direct", "precondition"):
        result = lstsq(A, b, method=method, rng=0)
        assert result.condition == pytest.approx(1e6, rel=0.8)  # of the sketch, within its distortion
        assert result.rank == 30
        assert result.residual_norm == pytest.approx(1e-2, rel=1e-6)
        assert result.normal_residual < 1e-12
        assert result.error < 1e-12
        assert result.coordinate_error is None


def test_tolerance_is_kept_and_saves_steps():
    A, b, _ = problem(20_000, 60, 1e7, 0.3)
    exact = lstsq(A, b, rng=0)
    for tol in (1e-3, 1e-8):
        result = lstsq(A, b, tol=tol, rng=0)
        error = np.linalg.norm(A @ (result.x - exact.x)) / np.linalg.norm(b)
        assert result.converged
        assert result.error <= tol
        assert error <= 2 * tol  # the estimate comes out of a sketch with a distortion below 1/2
        assert result.n_iter < exact.n_iter


# --- kinds of problem -------------------------------------------------------------------------------------------------


def kinds(m, n, seed=0):
    """One matrix in every form that lstsq takes."""
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((m, n)) * np.logspace(0, -1, n)
    sparse = scipy.sparse.random(m, n, density=0.3, random_state=1, format="csr")
    return {
        "row-major": (dense, dense),
        "column-major": (np.asfortranarray(dense), dense),
        "strided": (np.repeat(dense, 2, axis=1)[:, ::2], dense),
        "csr": (sparse, sparse.toarray()),
        "csc": (sparse.tocsc(), sparse.toarray()),
        "operator": (aslinearoperator(dense), dense),
        "blocks": (randla.RowBlocks.from_array(dense, block_bytes=2**15), dense),
        "sparse blocks": (randla.RowBlocks.from_array(sparse, block_bytes=2**13), sparse.toarray()),
        "integers": (np.rint(30 * dense).astype(np.int32), np.rint(30 * dense)),
    }


FORMS = tuple(kinds(20, 4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(900, 12), (12, 300)])
@pytest.mark.parametrize(("damp", "weighted"), [(0.0, False), (0.7, True)])
def test_every_form_by_every_method(form, shape, damp, weighted):
    A, dense = kinds(*shape)[form]
    rng = np.random.default_rng(5)
    B = rng.standard_normal((shape[0], 3))
    weights = rng.uniform(0.2, 2.0, shape[0]) if weighted else None
    expected = reference(dense, B, damp, weights)
    for method in METHODS:
        if method == "direct" and ("blocks" in form or form == "operator"):
            continue
        result = lstsq(A, B, method=method, damp=damp, weights=weights, rng=0)
        # lsmr stops at its tolerance of 1e-10
        slack = 1e-8 * np.linalg.norm(expected) if method == "lsmr" else tolerance("float64", 900, 300.0)
        assert np.linalg.norm(result.x - expected) <= slack
        assert result.x.shape == expected.shape
        assert result.converged
    column = lstsq(A, B[:, 0], method="precondition", damp=damp, weights=weights, rng=0)
    assert column.x.shape == (shape[1],)
    assert np.linalg.norm(column.x - expected[:, 0]) <= tolerance("float64", 900, 300.0)


@pytest.mark.parametrize("shape", [(900, 12), (12, 300)])
@pytest.mark.parametrize("method", ["direct", "precondition"])
def test_namespaces(xp, put, shape, method):
    rng = np.random.default_rng(0)
    A, B, w = rng.standard_normal(shape), rng.standard_normal((shape[0], 2)), rng.uniform(1, 2, shape[0])
    x = lstsq(put(A), put(B), method=method, damp=0.1, weights=put(w), rng=0).x
    assert np.linalg.norm(to_host(x) - reference(A, B, 0.1, w)) <= tolerance("float64", 900, 100.0)


@pytest.mark.parametrize("shape", [(3000, 40), (40, 1500)])
@pytest.mark.parametrize("method", ["direct", "precondition"])
def test_complex(shape, method):
    rng = np.random.default_rng(0)
    A = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    b = rng.standard_normal(shape[0]) + 1j * rng.standard_normal(shape[0])
    assert close(lstsq(A, b, method=method, rng=0).x, np.linalg.lstsq(A, b, rcond=None)[0], 20.0)


@pytest.mark.parametrize("method", ["direct", "precondition", "sketch", "lsmr"])
def test_single_precision_stays(method):
    A, b, _ = problem(4000, 20, 10.0, 1e-2)
    result = lstsq(A.astype("float32"), b.astype("float32"), method=method, rng=0)
    assert result.x.dtype == np.float32
    assert method == "sketch" or close(result.x, lstsq(A, b).x, 100.0, "float32")


def test_memory_map(tmp_path):
    A, b, _ = problem(5000, 20, 1e3, 1e-2)
    np.save(tmp_path / "A.npy", A)
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    assert close(lstsq(mapped, b, rng=0).x, lstsq(A, b, rng=0).x, 1e3)


def test_blocks_are_read_once_a_step():
    A, b, _ = problem(5000, 20, 1e6, 1e-2)
    source = randla.RowBlocks.from_array(A, block_bytes=2**16)
    result = lstsq(source, b, rng=0)
    assert result.converged
    # one for the sketch, one for each step, and one for each true residual
    assert result.n_passes == source.n_passes
    assert result.n_iter + 3 <= result.n_passes <= result.n_iter + 5


# --- rank -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2000, 30), (30, 900)])
@pytest.mark.parametrize("method", ["direct", "precondition"])
def test_rank_deficient_gives_least_norm(shape, method):
    rng = np.random.default_rng(3)
    A = rng.standard_normal(shape)
    short = A if shape[0] > shape[1] else A.T
    short[:, 5] = short[:, 7] + short[:, 9]
    short[:, 11] = 0
    b = rng.standard_normal(shape[0])
    result = lstsq(A, b, method=method, rng=0)
    assert result.status is Status.RANK_DEFICIENT
    assert result.rank == 28
    assert close(result.x, np.linalg.lstsq(A, b, rcond=1e-12)[0], 100.0)


def test_rank_deficient_with_columns_of_all_sizes():
    """The least norm is that of x itself, although columns are scaled inside."""
    rng = np.random.default_rng(4)
    A = rng.standard_normal((3000, 10)) * 10.0 ** np.arange(-4, 6)
    A[:, 3] = 2 * A[:, 2]
    b = A @ np.ones(10)
    result = lstsq(A, b, method="precondition", rng=0)
    assert result.rank == 9
    # of x_2 + 2 x_3 = 3 the least norm is x_3 = 2 x_2
    assert result.x[3] == pytest.approx(2 * result.x[2], rel=1e-6)
    assert result.x[2] + 2 * result.x[3] == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("method", ["direct", "precondition", "lsmr"])
def test_zero_matrix_and_zero_target(method):
    b = np.ones(400)
    nothing = lstsq(np.zeros((400, 5)), b, method=method, rng=0, on_failure="ignore")
    assert not nothing.x.any()
    assert nothing.residual_norm == pytest.approx(20.0)
    still = lstsq(np.random.default_rng(0).standard_normal((400, 5)), 0 * b, method=method, rng=0)
    assert not still.x.any()
    assert still.residual_norm == 0.0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (7, 1), (1, 7), (2, 2)])
@pytest.mark.parametrize("method", ["auto", "direct", "precondition"])
def test_small_and_empty(shape, method):
    A = np.arange(1.0, shape[0] * shape[1] + 1).reshape(shape)
    b = np.ones(shape[0])
    result = lstsq(A, b, method=method, rng=0)
    assert result.x.shape == (shape[1],)
    assert np.linalg.norm(result.x - np.linalg.pinv(A) @ b) <= tolerance("float64", 7, 100.0)


# --- choice, robustness -----------------------------------------------------------------------------------------------


def test_choices():
    rng = np.random.default_rng(0)
    assert choose_lstsq(np.ones((50, 3))).method == "direct"
    assert choose_lstsq(rng.standard_normal((900, 800))).method == "direct"
    tall = rng.standard_normal((30_000, 40))
    method, reason = choose_lstsq(tall, rng=0)
    assert method == "precondition"
    assert "well-conditioned" in reason
    _, reason = choose_lstsq(tall * np.logspace(0, -3, 40) @ haar(40, 40, rng), rng=0)
    assert "factor of a sketch" in reason
    assert choose_lstsq(aslinearoperator(tall)).method == "lsmr"
    assert choose_lstsq(scipy.sparse.diags_array(np.ones(5_000), shape=(40_000, 5_000)).tocsr()).method == "lsmr"
    assert choose_lstsq(scipy.sparse.csr_array(tall), rng=0).method == "precondition"
    result = lstsq(tall, np.ones(30_000), rng=0)
    assert result.method == "precondition"
    assert result.reason.startswith("large and tall")


def test_heavy_rows_that_a_sample_misses():
    """A sample of rows sees a well-conditioned matrix; a few heavy rows of all sizes change that: a sketch follows."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((60_000, 300))
    A[::3000] *= 10.0 ** rng.uniform(2, 10, (20, 1))
    b = rng.standard_normal(60_000)
    result = lstsq(A, b, rng=1)  # a key whose samples miss them all
    assert "converged slowly" in result.reason
    assert result.converged
    assert result.backward_error <= 4 * eps("float64")
    assert result.n_iter < 100


@pytest.mark.parametrize("kind", ["sparse-sign", "gaussian", "srht", "countsketch", "pooled", "rademacher"])
@pytest.mark.parametrize("size", [None, 200, 600])
def test_any_sketch_preconditions(kind, size):
    A, b, _ = problem(4096, 20, 1e6, 1e-3)
    result = lstsq(A, b, sketch=kind, sketch_size=size, method="precondition", rng=0)
    assert result.converged
    assert backward_error(A, b, result.x) <= 2e-15


def test_an_operator_as_sketch():
    A, b, _ = problem(4096, 20, 1e6, 1e-3)
    S = randla.SparseSign(160, 4096, nnz=4, rng=3)
    result = lstsq(A, b, sketch=S, method="precondition")
    assert "160 sketched rows" in result.reason
    assert backward_error(A, b, result.x) <= 2e-15


def test_same_key_same_result():
    A, b, _ = problem(4000, 30, 1e6, 1e-2)
    first, second = (lstsq(A, b, method="precondition", rng=7) for _ in range(2))
    assert np.array_equal(first.x, second.x)
    assert first.history == second.history
    assert not np.array_equal(first.x, lstsq(A, b, method="precondition", rng=8).x)
    with randla.threads(1):
        assert close(lstsq(A, b, method="precondition", rng=7).x, first.x, 1e6)


def test_inputs_are_not_changed():
    A, b, _ = problem(3000, 20, 1e6, 1e-2)
    w = np.ones(3000)
    copies = A.copy(), b.copy(), w.copy()
    for array in (A, b, w):
        array.flags.writeable = False
    for method in ("direct", "precondition", "sketch", "lsmr"):
        lstsq(A, b, weights=w, method=method, rng=0, on_failure="ignore")
    assert all(np.array_equal(x, y) for x, y in zip((A, b, w), copies, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 300), n=st.integers(1, 12), power=st.sampled_from([-20, 0, 20]), seed=st.integers(0, 2**20),
    damp=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_scaling(m, n, power, seed, damp):
    """x scales with b and against A, whatever the scale."""
    rng = np.random.default_rng(seed)
    A, b, scale = rng.standard_normal((m, n)), rng.standard_normal(m), 10.0**power
    plain = lstsq(A, b, damp=damp, method="precondition", rng=0, on_failure="ignore").x
    scaled = lstsq(scale * A, b, damp=scale * damp, method="precondition", rng=0, on_failure="ignore").x
    size = np.linalg.norm(plain) + np.linalg.norm(b) / np.linalg.norm(A, 2)  # to first order, with the residual's part
    assert np.linalg.norm(scale * scaled - plain) <= tolerance("float64", m, 10 * np.linalg.cond(A) ** 2 * size)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), repeats=st.integers(1, 3))
def test_weights_are_repetitions(seed, repeats):
    """An integer weight is a row that many times; a weight of zero is a row that is not there."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((200, 6)), rng.standard_normal(200)
    counts = rng.integers(0, repeats + 1, 200)
    again = np.repeat(np.arange(200), counts)
    weighted = lstsq(A, b, weights=counts, method="precondition", rng=0).x
    assert close(weighted, lstsq(A[again], b[again], method="direct").x, 30.0)


# --- sketch and solve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "law"), [(100, 1.02), (200, 0.336), (600, 0.091)])
def test_excess_law(size, law):
    """The squared residual grows by n / (d - n - 1) of itself: mean over keys within a quarter."""
    A, b, _ = problem(4000, 50, 10.0, 1.0)
    least = np.linalg.norm(b - A @ np.linalg.lstsq(A, b, rcond=None)[0])
    excess = [(lstsq(A, b, method="sketch", sketch_size=size, rng=k).residual_norm / least) ** 2 - 1 for k in range(30)]
    assert 50 / (size - 51) == pytest.approx(law, rel=0.01)
    assert np.mean(excess) == pytest.approx(law, rel=0.25)


def test_sketch_says_how_wrong_it_is():
    A, b, _ = problem(20_000, 40, 1e5, 1.0)
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    for key in range(5):
        result = lstsq(A, b, method="sketch", sketch_size=400, rng=key)
        truth = np.linalg.norm(A @ (result.x - best)) / np.linalg.norm(b)
        assert truth / 2 < result.error < 2 * truth  # distortion of 400 rows for 40 columns: about a third
        # three times the size: a Gaussian maximum over 40 coordinates exceeds it with probability below 1e-6
        assert np.all(np.abs(result.x - best) <= 3 * result.coordinate_error)
    loose = lstsq(A, b, method="sketch", sketch_size=400, tol=0.5, rng=0)
    assert loose.converged
    strict = lstsq(A, b, method="sketch", sketch_size=400, tol=1e-6, rng=0, on_failure="ignore")
    assert strict.status is Status.MAX_ITER


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["A", "b"])
@pytest.mark.parametrize("method", ["direct", "precondition", "sketch", "lsmr"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite(place, method, value):
    A, b, _ = problem(3000, 20, 10.0, 1e-2)
    (A[7] if place == "A" else b)[3] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = lstsq(A, b, method=method, rng=0, on_failure="ignore")
    assert result.status is Status.NONFINITE
    assert not result.converged


def test_iteration_limit():
    A, b, _ = problem(4000, 30, 1e6, 1e-2)
    for limit in (0, 2):
        with pytest.warns(ConvergenceWarning, match="max_iter"):
            result = lstsq(A, b, method="precondition", max_iter=limit, rng=0)
        assert result.status is Status.MAX_ITER
        assert result.n_iter == limit == len(result.history)
    with pytest.raises(ConvergenceError) as caught:
        lstsq(A, b, method="precondition", max_iter=1, rng=0, on_failure="raise")
    assert caught.value.result.n_iter == 1
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        lstsq(A, b, method="lsmr", max_iter=1)


def test_stagnation_is_told():
    A, b, _ = problem(4000, 30, 1e6, 1e-2)
    result = lstsq(A, b, method="precondition", tol=1e-19, rng=0, on_failure="ignore")
    assert result.status is Status.STAGNATED
    assert result.error < tolerance("float64", 4000, 1e3)


def test_callback_and_warm_start():
    A, b, _ = problem(4000, 30, 1e6, 1e-2)
    steps = []

    def stop(step):
        steps.append(step)
        return step.n_iter == 4

    halted = lstsq(A, b, method="precondition", rng=0, callback=stop, on_failure="ignore")
    assert [step.n_iter for step in steps] == [1, 2, 3, 4]
    assert tuple(step.error for step in steps) == halted.history
    assert halted.status is Status.MAX_ITER
    whole = lstsq(A, b, method="precondition", rng=0)
    resumed = lstsq(A, b, method="precondition", rng=0, x0=halted.x)
    assert resumed.converged
    assert resumed.n_iter < whole.n_iter


def test_bad_arguments():
    A, b, _ = problem(100, 5, 10.0, 1e-2)
    wrong = [
        (lambda: lstsq(A, b[:-1]), ValueError, "b must have 100 rows"),
        (lambda: lstsq(A, b[:, None, None]), ValueError, "b must be 1-D or 2-D"),
        (lambda: lstsq(A[0], b), ValueError, "A must be 2-D"),
        (lambda: lstsq(A.astype(str), b), TypeError, "A must have a real or complex numeric dtype"),
        (lambda: lstsq(A, b, method="qr"), ValueError, "method must be one of"),
        (lambda: lstsq(A, b, tol=0.0), ValueError, "tol must be"),
        (lambda: lstsq(A, b, tol="small"), TypeError, "tol must be a real number"),
        (lambda: lstsq(A, b, damp=-1.0), ValueError, "damp must be"),
        (lambda: lstsq(A, b, weights=b[:3]), ValueError, "weights must have shape"),
        (lambda: lstsq(A, b, weights=-np.ones(100)), ValueError, "weights must be finite and not negative"),
        (lambda: lstsq(A, b, weights=np.full(100, np.nan)), ValueError, "weights must be finite"),
        (lambda: lstsq(A, b, weights=1j * np.ones(100)), TypeError, "weights must be real"),
        (lambda: lstsq(A, b, x0=np.ones(4)), ValueError, "x0 must have the shape"),
        (lambda: lstsq(A, b, max_iter=-1), ValueError, "max_iter must be"),
        (lambda: lstsq(A, b, sketch="magic"), ValueError, "sketch must be one of"),
        (lambda: lstsq(A, b, sketch_size=3), ValueError, "sketch_size must be"),
        (lambda: lstsq(A, b, sketch=randla.SparseSign(50, 90, rng=0)), ValueError, "sketch must have n=100"),
        (
            lambda: lstsq(A, b, sketch=randla.SparseSign(50, 100, rng=0), sketch_size=60),
            ValueError,
            "must not be given",
        ),
        (lambda: lstsq(A, b + 1j), ValueError, "b must be real"),
        (lambda: lstsq(A.T, b[:5], method="sketch"), ValueError, "at least as many rows"),
        (lambda: lstsq(aslinearoperator(A), b, method="direct"), ValueError, 'method "direct"'),
        (lambda: lstsq(A, b, on_failure="cry"), ValueError, "on_failure must be"),
        (lambda: lstsq(A, b, rng="x"), TypeError, "rng must be"),
        (lambda: lstsq(iter([A]), b), TypeError, "readable more than once"),
        (lambda: choose_lstsq(A, tol=-1.0), ValueError, "tol must be"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=message):
            call()


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damp", [0.0, 0.3])
@pytest.mark.parametrize("coherent", [False, True])
def test_factor_of_sketch(damp, coherent):
    """R^* R is the Gram matrix of the scaled rows, and z the target, by either way to factor."""
    rng = np.random.default_rng(0)
    M, B = rng.standard_normal((400, 20)) * np.logspace(0, -6, 20), rng.standard_normal((400, 2))
    if coherent:  # the leading rows lack a direction
        M[:200, 4] = 0
    R, z, scale = factor_of_sketch(M, B, None, damp, precision=eps("float64"))
    whole = np.vstack([damp * np.eye(20), M]) / scale[:, 0]
    assert np.allclose(R.T @ R, whole.T @ whole, rtol=0, atol=tolerance("float64", 400, 20.0))
    expected = whole.T @ np.vstack([np.zeros((20, 2)), B])
    assert np.allclose(R.T @ z, expected, rtol=0, atol=tolerance("float64", 400, 100.0))


def test_gram_refuses_what_it_cannot_tell():
    A, _, _ = problem(300, 10, 1e7, 0.0)
    assert from_gram(A.T @ A, precision=eps("float64"), rate=0.1, note="") is None
    assert from_gram(np.full((3, 3), np.nan), precision=eps("float64"), rate=0.1, note="") is None


def test_sketch_rows_follow_the_cost():
    assert sketch_rows(10**6, 20) == 32 * 20
    assert sketch_rows(2000, 500) == 4 * 500
    assert 8 * 500 <= sketch_rows(50_000, 500) <= 24 * 500


def test_result_is_told_in_a_line():
    A, b, _ = problem(100, 5, 10.0, 1e-2)
    result = lstsq(A, b)
    (x,) = result
    assert x is result.x
    assert "\n" not in repr(result)
    assert as_key(0) == as_key(0)
