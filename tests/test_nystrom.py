"""Nystrom approximations of semidefinite matrices, preconditioners made of them, and solves with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg

from randla import ConvergenceError, ConvergenceWarning, RowBlocks
from randla._arrays import eps, to_host
from randla._results import Status
from randla.lowrank.kernel_functions import KernelMatrix
from randla.lowrank.nystrom import nystrom
from randla.lowrank.psd_solvers import NystromPreconditioner, nystrom_preconditioner, solve_psd
from randla.lowrank.rpcholesky import rpcholesky

from .conftest import tolerance


def definite(n: int = 200, *, fall: float = 5.0, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    """A matrix with eigenvalues exp(-i / fall)."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    A = (Q * np.exp(-np.arange(n) / fall)) @ Q.T
    return ((A + A.T) / 2).astype(dtype)


def tail(A: np.ndarray, rank: int, order: Any = None) -> float:
    w = np.sort(np.linalg.eigvalsh(A.astype(float)))[::-1][rank:]
    return float(np.linalg.norm(w, order))


# --- nystrom ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 10, 40, 199, 200])
def test_bound_of_the_expected_error(rank: int) -> None:
    """The mean of ten runs keeps the bound in the nuclear norm before the cut; the cut adds its own tail."""
    A = definite()
    errors = [np.linalg.norm(A - nystrom(A, rank, rng=i).to_dense(), "nuc") for i in range(10)]
    panel = min(rank + 10, 200)
    bound = min((1 + r / (panel - r - 1)) * tail(A, r, 1) for r in range(panel - 1))
    assert np.mean(errors) <= bound + tail(A, rank, 1) + tolerance("float64", 200, 20.0)


def test_order_of_semidefinite_matrices(dtype: str) -> None:
    """Spec 10.11: A lies above its approximation up to 10 nu."""
    A = definite(dtype=dtype)
    for rank in (5, 30, 200):
        result = nystrom(A, rank, rng=1)
        nu = eps(dtype) * np.linalg.norm(A) / 200**0.5
        least = np.linalg.eigvalsh(A.astype(float) - result.to_dense().astype(float))[0]
        assert least >= -10 * nu - tolerance(dtype, 200)  # the second is the rounding of A and of the factors
        assert np.all(result.w >= 0)
        assert np.all(np.diff(result.w) <= 0)
        assert result.w.dtype == result.V.dtype == dtype


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_exact_for_low_rank(kind: str) -> None:
    rng = np.random.default_rng(2)
    L = rng.standard_normal((150, 6)) + (1j * rng.standard_normal((150, 6)) if kind == "complex" else 0.0)
    A = L @ L.conj().T
    for rank in (6, 20):
        result = nystrom(A, rank, rng=0)
        assert np.linalg.norm(A - result.to_dense()) <= tolerance("float64", 150, np.linalg.norm(A))
        assert np.linalg.norm(result.V.conj().T @ result.V - np.eye(rank)) <= tolerance("float64", 150, rank)
    assert np.allclose(nystrom(A, 6, rng=0).w, np.linalg.eigvalsh(A)[::-1][:6])


def test_flat_and_graded_spectra_need_no_cholesky_factor() -> None:
    """Eigenvalues from 1 to 1e-300: the core is singular to rounding, and its eigenvectors take over."""
    A = np.diag(np.exp(-np.linspace(0.0, 690.0, 120)))
    result = nystrom(A, 60, rng=0)
    assert np.all(np.isfinite(result.w))
    assert np.linalg.norm(A - result.to_dense(), 2) <= tolerance("float64", 120)
    assert np.linalg.norm(np.eye(50) - nystrom(np.eye(50), 50, rng=0).to_dense()) <= tolerance("float64", 50, 50.0)


def test_passes_and_products() -> None:
    A = definite()
    counted = []

    def product(X: np.ndarray) -> np.ndarray:
        counted.append(X.reshape(200, -1).shape[1])
        return A @ X

    operator = LinearOperator((200, 200), matvec=product, matmat=product, rmatvec=product, rmatmat=product, dtype=float)
    result = nystrom(operator, 20, rng=0)
    assert counted == [20 + 10 + 20]
    assert (result.n_passes, result.n_matvecs, result.n_iter) == (1, 50, 1)
    counted.clear()
    found = nystrom(operator, tol=1e-4, rng=0)
    assert counted == [16 + 20, 16, 32][: found.n_iter]
    assert found.n_matvecs == sum(counted)


def test_error_is_within_its_bound() -> None:
    A = definite(fall=20.0)
    size, inside = np.linalg.norm(A), 0
    for i in range(50):
        result = nystrom(A, 15, rng=i)
        truth = np.linalg.norm(A - result.to_dense()) / size
        inside += truth <= result.error_bound
        assert result.error / 2 < truth < 2 * result.error
        assert result.norm == pytest.approx(size, rel=0.1)
    assert inside >= 48  # a confidence of 0.99 each: three failures in 50 have probability 1.4 %


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5])
def test_tolerance(tol: float) -> None:
    A = definite()
    result = nystrom(A, tol=tol, rng=0)
    assert result.converged
    assert np.linalg.norm(A - result.to_dense()) <= tol * np.linalg.norm(A)
    assert tail(A, result.rank) > 0.05 * tol * np.linalg.norm(A)  # not many more than are needed
    assert len(result.history) == result.n_iter


def test_tolerances_that_cannot_be_reached() -> None:
    A = definite(fall=1000.0)
    with pytest.warns(ConvergenceWarning, match="nystrom ended with Status.MAX_ITER"):
        assert nystrom(A, tol=1e-3, max_rank=40, rng=0).rank <= 40
    with pytest.raises(ConvergenceError):
        nystrom(A, tol=1e-3, max_rank=40, rng=0, on_failure="raise")
    assert nystrom(A, tol=1e-30, rng=0, on_failure="ignore").status is Status.STAGNATED


def test_every_kind_of_matrix() -> None:
    A = definite(fall=2.0)
    plain = nystrom(A, 10, rng=0)
    for other in (
        csr_array(A),
        RowBlocks.from_array(A, block_bytes=30_000),
        aslinearoperator(A),
        KernelMatrix(A, "precomputed"),
    ):
        assert np.allclose(nystrom(other, 10, rng=0).w, plain.w, rtol=1e-10)
    sparse = diags_array(np.arange(300.0)).tocsr()
    assert nystrom(sparse, 300, rng=0).w[0] == pytest.approx(299.0)


def test_any_namespace(xp: Any, put: Callable[[Any], Any], any_dtype: str) -> None:
    A = definite(60, dtype=any_dtype)
    result = nystrom(put(A), 8, rng=0)
    assert result.V.dtype == getattr(xp, any_dtype)
    truth = nystrom(A, 8, rng=0)
    # eigenvalues see the shift, the products and the panel rounded another way, amplified by the core's inverse
    assert np.allclose(to_host(result.w), truth.w, rtol=0, atol=tolerance(any_dtype, 60, 10.0))
    if not any_dtype.startswith("complex"):
        K = KernelMatrix(put(np.random.default_rng(0).standard_normal((40, 2)).astype(any_dtype)))
        assert nystrom(K, 5, rng=0).error < 0.5


def test_trivial_sizes() -> None:
    assert nystrom(np.eye(4), 0, rng=0).error == 1.0
    assert nystrom(np.zeros((9, 9)), 2, rng=0).w.tolist() == [0.0, 0.0]
    assert nystrom(np.zeros((9, 9)), tol=0.1, rng=0).rank == 0
    assert nystrom(np.zeros((0, 0)), 0, rng=0).V.shape == (0, 0)
    assert nystrom(np.array([[3.0]]), 1, rng=0).w.tolist() == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("A", "options", "error", "message"),
    [
        (np.eye(3), {}, ValueError, "exactly one of rank and tol must be given"),
        (np.eye(3), {"rank": 2, "tol": 0.1}, ValueError, "exactly one of rank and tol"),
        (np.eye(3), {"rank": 4}, ValueError, r"rank must be in \[0, 3\]"),
        (np.eye(3), {"tol": 0.0}, ValueError, "tol must be finite and in"),
        (np.eye(3), {"rank": 2, "n_oversamples": -1}, ValueError, "n_oversamples must be at least 0"),
        (np.eye(3), {"tol": 0.1, "max_rank": 0}, ValueError, "max_rank must be in"),
        (np.ones((3, 2)), {"rank": 1}, ValueError, "A must be square"),
        (np.triu(np.ones((30, 30))), {"rank": 5}, ValueError, r"A must be symmetric \(Hermitian\)"),
        (-np.eye(30), {"rank": 5}, ValueError, "A must be positive semidefinite, got a Rayleigh quotient of -1"),
        (np.eye(3), {"rank": 1, "on_failure": "x"}, ValueError, "on_failure must be one of"),
    ],
)
def test_bad_input(A: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nystrom(A, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad: float) -> None:
    A = np.eye(6)
    A[2, 3] = bad
    assert nystrom(A, 3, rng=0, on_failure="ignore").status is Status.NONFINITE


# --- preconditioners --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rpcholesky", "gaussian"])
def test_preconditioner_inverts_what_it_knows(method: str) -> None:
    A, mu = definite(), 1e-3
    P = nystrom_preconditioner(A, mu, 200, method=method, rng=0)
    X = np.random.default_rng(3).standard_normal((200, 3))
    inverse = (P.tail + mu) * np.linalg.solve(A + mu * np.eye(200), X)
    assert np.max(np.abs(P.matmat(X) - inverse)) <= tolerance("float64", 200, np.max(np.abs(X)) * 1e2)
    assert np.allclose(P @ X[:, 0], P.matmat(X)[:, 0])
    assert P.shape == (200, 200)
    assert "rank=" in repr(P)


def test_condition_number_of_the_theorem() -> None:
    """Rank 2 ceil(1.5 d) + 1: the expected condition number is at most 28."""
    A, mu = definite(300, fall=12.0), 1e-3
    w = np.linalg.eigvalsh(A)
    rank = 2 * int(np.ceil(1.5 * np.sum(w / (w + mu)))) + 1
    assert rank < 300
    conditions = []
    for i in range(10):
        P = nystrom_preconditioner(A, mu, rank, method="gaussian", rng=i)
        found = np.linalg.eigvals(P.matmat(A + mu * np.eye(300))).real
        conditions.append(found.max() / found.min())
    assert np.mean(conditions) <= 28


@pytest.mark.parametrize("method", ["rpcholesky", "gaussian"])
def test_automatic_rank(method: str) -> None:
    A = definite(1000, fall=20.0)
    P = nystrom_preconditioner(A, 1e-3, method=method, rng=0)
    assert P.w[-1] <= 10 * 1e-3
    assert P.rank in (64, 128, 256)
    assert nystrom_preconditioner(A, 1e-3, method=method, max_rank=40, rng=0).rank == 40
    given = nystrom_preconditioner(A, 1e-3, 64, method=method, rng=0)
    assert given.rank == 64
    assert (given.n_entries if method == "rpcholesky" else given.n_matvecs) > 0


def test_preconditioner_of_a_result() -> None:
    A = definite()
    for result in (rpcholesky(A, 30, rng=0), nystrom(A, 30, rng=0)):
        P = nystrom_preconditioner(result, 1e-2)
        assert isinstance(P, NystromPreconditioner)
        assert P.rank == 30
    x, failed = cg(A + 1e-2 * np.eye(200), np.ones(200), M=aslinearoperator(P), rtol=1e-10)
    assert failed == 0
    assert np.linalg.norm(A @ x + 1e-2 * x - 1) <= 1e-9 * 200**0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0.0}, "mu must be finite and in"),
        ({"mu": 1.0, "rank": "all"}, "rank must be one of 'auto'"),
        ({"mu": 1.0, "rank": 300}, r"rank must be in \[0, 200\]"),
        ({"mu": 1.0, "method": "ichol"}, "method must be one of"),
        ({"mu": 1.0, "max_rank": 0}, "max_rank must be at least 1"),
    ],
)
def test_bad_preconditioners(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nystrom_preconditioner(definite(), **options)


# --- solves -----------------------------------------------------------------------------------------------------------

#: mu: effective dimension, steps without a preconditioner, and {rank: (pivots, Gaussian)}: spec 10.8
STEPS = {
    0.1: (195, 142, {50: (48, 55), 200: (14, 15), 400: (7, 7)}),
    1e-3: (538, None, {50: (436, 497), 200: (107, 117), 400: (32, 34)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("mu", STEPS)
def test_table_of_iterations(mu: float) -> None:
    """Spec 10.8: 2,000 points, a Gaussian kernel, tolerance 1e-8; steps within 20 %, or one where that is less."""
    rng = np.random.default_rng(0)
    K = KernelMatrix(rng.standard_normal((2000, 5)), "rbf", gamma=1 / 8)
    D, b = K.block(None, None), rng.standard_normal(2000)
    dimension, plain, table = STEPS[mu]
    w = np.linalg.eigvalsh(D)
    assert np.sum(w / (w + mu)) == pytest.approx(dimension, rel=0.01)
    bare = solve_psd(D, b, mu, preconditioner=None, max_iter=1000, on_failure="ignore")
    if plain is None:
        assert bare.status is Status.MAX_ITER
    else:
        assert bare.n_iter == pytest.approx(plain, rel=0.2)
    for rank, expected in table.items():
        for method, steps in zip(("rpcholesky", "gaussian"), expected, strict=True):
            P = nystrom_preconditioner(D, mu, rank, method=method, rng=1)
            result = solve_psd(D, b, mu, preconditioner=P)
            assert result.converged
            assert result.rank == rank
            assert abs(result.n_iter - steps) <= max(1, 0.2 * steps)


@pytest.mark.parametrize("columns", [None, 1, 4])
def test_solution_history_and_costs(columns: int | None, dtype: str) -> None:
    A = definite(dtype=dtype)
    b = np.random.default_rng(5).standard_normal(200 if columns is None else (200, columns)).astype(dtype)
    steps = []
    result = solve_psd(A, b, 1e-2, preconditioner=None, callback=lambda step: steps.append(step.residual))
    (x,) = result
    assert x.shape == b.shape
    assert x.dtype == dtype
    tol = 1e-4 if dtype == "float32" else 1e-8
    assert np.linalg.norm(A @ x + 1e-2 * x - b) <= 1.01 * tol * np.linalg.norm(b)
    assert result.residual <= tol
    assert list(result.history) == [1.0, *steps] or list(result.history[1:]) == steps
    assert len(result.history) == result.n_iter + 1
    # a product for each step and one for the last residual; one more where the recurrence was left behind
    assert result.n_matvecs - (result.n_iter + 1) * (columns or 1) in (0, columns or 1)
    assert not result.n_iter > 200


def test_columns_go_their_own_way() -> None:
    A = definite()
    b = np.zeros((200, 3))
    b[:, 0] = np.linalg.eigh(A)[1][:, -1]
    b[:, 2] = 1.0
    together = solve_psd(A, b, 1e-3, rng=0)
    assert np.all(together.x[:, 1] == 0)
    assert np.allclose(A @ together.x + 1e-3 * together.x, b, atol=1e-6)
    start = solve_psd(A, b, 1e-3, rng=0, x0=together.x)
    assert start.n_iter == 0
    assert np.array_equal(start.x, together.x)
    assert start.x is not together.x


def test_ways_to_name_a_preconditioner() -> None:
    A, b = definite(), np.ones(200)
    counts = {}
    for name, choice in {
        "none": None, "auto": "auto", "rank": 30, "object": nystrom_preconditioner(A, 1e-4, 30, rng=0),
        "scipy": LinearOperator((200, 200), matvec=lambda r: r, matmat=lambda r: r, dtype=float),
    }.items():  # fmt: skip
        result = solve_psd(A, b, 1e-4, preconditioner=choice, rng=0)
        assert result.converged
        counts[name] = result.n_iter
    assert counts["scipy"] == counts["none"] > 2 * counts["rank"]
    assert counts["auto"] < counts["none"]
    K = KernelMatrix(np.random.default_rng(0).standard_normal((300, 2)))
    assert solve_psd(K, np.ones(300), 1e-3, rng=0).rank > 0


def test_complex_systems() -> None:
    L = np.random.default_rng(6).standard_normal((50, 100)).view(complex)
    A, b = L @ L.conj().T, np.exp(1j * np.arange(50.0))
    result = solve_psd(A, b, 0.5, rng=0)
    assert np.linalg.norm(A @ result.x + 0.5 * result.x - b) <= 1e-7 * np.linalg.norm(b)
    with pytest.raises(ValueError, match="b must be real like A"):
        solve_psd(np.eye(50), b, 0.5)


def test_failures_are_told() -> None:
    A, b = definite(), np.ones(200)
    short = solve_psd(A, b, 1e-6, preconditioner=None, max_iter=3, on_failure="ignore")
    assert (short.status, short.n_iter) == (Status.MAX_ITER, 3)
    assert np.linalg.norm(A @ short.x + 1e-6 * short.x - b) == pytest.approx(short.residual * np.linalg.norm(b))
    assert solve_psd(A, b, 1e-6, max_iter=0, rng=0, on_failure="ignore").status is Status.MAX_ITER
    assert solve_psd(A, b, 1e-6, tol=1e-17, rng=0, on_failure="ignore").status is Status.STAGNATED
    assert solve_psd(A - np.eye(200), b, 1e-6, preconditioner=None, on_failure="ignore").status is Status.BREAKDOWN
    with pytest.warns(ConvergenceWarning, match="solve_psd ended with Status.BREAKDOWN"):
        solve_psd(-np.eye(3), np.ones(3), preconditioner=None)
    bad = A.copy()
    bad[3, 3] = np.nan
    assert solve_psd(bad, b, 1.0, preconditioner=None, on_failure="ignore").status is Status.NONFINITE
    stopped = solve_psd(A, b, 1e-6, preconditioner=None, callback=lambda step: step.n_iter == 2, on_failure="ignore")
    assert (stopped.status, stopped.n_iter) == (Status.MAX_ITER, 2)


def test_trivial_solves() -> None:
    assert solve_psd(np.eye(3), np.zeros(3), 1.0).x.tolist() == [0.0, 0.0, 0.0]
    assert solve_psd(np.eye(3), np.ones((3, 0)), 1.0).x.shape == (3, 0)
    assert solve_psd(np.zeros((0, 0)), np.ones(0), 1.0).x.shape == (0,)
    assert solve_psd(np.diag([2.0, 4.0]), np.ones(2)).x.tolist() == pytest.approx([0.5, 0.25])


def test_solves_in_any_namespace(xp: Any, put: Callable[[Any], Any], dtype: str) -> None:
    A, b = definite(60, dtype=dtype), np.ones((60, 2), dtype)
    result = solve_psd(put(A), put(b), 0.01, rng=0)
    assert result.x.dtype == getattr(xp, dtype)
    x = to_host(result.x)
    assert np.linalg.norm(A @ x + 0.01 * x - b) <= (1e-4 if dtype == "float32" else 1e-8) * 1.1 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.eye(3), np.ones(4), 1.0), {}, "b must have 3 rows"),
        ((np.eye(3), np.ones(3), -1.0), {}, "mu must be finite and in"),
        ((np.eye(3), np.ones(3), 1.0), {"tol": 0.0}, "tol must be"),
        ((np.eye(3), np.ones(3), 1.0), {"max_iter": -1}, "max_iter must be"),
        ((np.eye(3), np.ones(3), 1.0), {"x0": np.ones((3, 2))}, "x0 must have the shape of b"),
        ((np.eye(3), np.ones(3), 1.0), {"preconditioner": "ilu"}, "preconditioner must be one of 'auto'"),
        (
            (np.eye(3), np.ones(3), 1.0),
            {"preconditioner": aslinearoperator(np.eye(2))},
            r"preconditioner must have shape",
        ),
        ((np.ones((3, 2)), np.ones(3), 1.0), {}, "A must be square"),
    ],
)
def test_bad_systems(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_psd(*arguments, **options)
