"""Matrices with known answers: the answers must be right."""

from __future__ import annotations

import numpy as np
import pytest

from randla.datasets import (
    SPECTRA,
    low_rank_problems,
    orthonormal_columns,
    sparse_matrix,
    spectrum,
    with_spectrum,
)

from .conftest import tolerance


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_spectra_descend_from_one(kind: str, n: int) -> None:
    s = spectrum(kind, n)
    assert s.shape == (n,)
    assert np.all(np.diff(s) <= 0)
    assert np.all(s >= 0)
    assert n == 0 or s[0] == 1.0


@pytest.mark.parametrize("coherence", ["low", "high"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_prescribed_singular_values(dtype: type, coherence: str) -> None:
    s = spectrum("inverse", 20)
    for shape in ((50, 20), (20, 50), (20, 20)):
        A = with_spectrum(*shape, s, coherence=coherence, dtype=dtype, rng=0)
        assert A.dtype == dtype
        assert A.flags.c_contiguous
        assert np.abs(np.linalg.svd(A, compute_uv=False) - s).max() <= tolerance(dtype, A.size)


def test_coherence_is_what_it_says() -> None:
    for coherence, largest in (("low", 0.5), ("high", 1.0)):
        Q = orthonormal_columns(400, 10, coherence=coherence, rng=1)
        assert np.linalg.norm(Q.T @ Q - np.eye(10)) <= tolerance(np.float64, Q.size)
        scores = (Q**2).sum(axis=1)
        assert scores.max() == pytest.approx(1.0) if largest == 1.0 else scores.max() < largest


def test_same_key_same_matrix() -> None:
    s = np.ones(5)
    assert np.array_equal(with_spectrum(9, 5, s, rng=3), with_spectrum(9, 5, s, rng=3))
    assert not np.array_equal(with_spectrum(9, 5, s, rng=3), with_spectrum(9, 5, s, rng=4))
    first, second = (sparse_matrix(50, 40, 200, rng=3) for _ in range(2))
    assert (first != second).nnz == 0


def test_sparse_matrix_is_skewed_as_asked() -> None:
    A = sparse_matrix(20_000, 100, 20_000, skew=2.0, rng=0)
    assert A.format == "csr"
    assert A.shape == (20_000, 100)
    counts = np.bincount(A.indices, minlength=100)
    # an index below n / 4 has probability 1/2 for u**2
    assert counts[:25].sum() == pytest.approx(A.nnz / 2, rel=0.1)


def test_problems_know_their_least_rank() -> None:
    names = set()
    for problem in low_rank_problems(10, rng=0):
        s = np.linalg.svd(problem.A, compute_uv=False)
        norm = np.linalg.norm(s)
        r = problem.least_rank
        slack = 1 + tolerance(np.float64, problem.A.size) / problem.tol
        assert np.linalg.norm(s[r:]) <= problem.tol * norm * slack
        assert r == 0 or np.linalg.norm(s[r - 1 :]) >= problem.tol * norm / slack
        names.add(problem.name)
    assert len(names) == 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum("pink", 5), "kind must be one of"),
        (lambda: spectrum("flat", -1), "n must be"),
        (lambda: with_spectrum(5, 4, np.ones(5)), r"s must have min\(m, n\) = 4 values"),
        (lambda: orthonormal_columns(3, 4), "k must be in"),
        (lambda: orthonormal_columns(4, 3, coherence="some"), "coherence must be one of"),
        (lambda: sparse_matrix(5, 5, 5, skew=0.0), "skew must be"),
    ],
)
def test_parameters_are_checked(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
