"""Whether a factor is sufficiently scattered: known examples, all vertices by brute force, certificates, the clock."""

from __future__ import annotations

import itertools
import math
import time
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla.nonnegative import identifiability, scattered
from randla.nonnegative.scattered import Search, caps

from .conftest import tolerance

TOL = 1e-6  # the default of check_ssc


def family(w: float) -> np.ndarray:
    """Sufficiently scattered if and only if w < 1/2; at 1/2 three more vertices touch the sphere."""
    return np.array([[w, 1, 1, w, 0, 0], [1, w, 0, 0, w, 1], [0, 0, w, 1, 1, w]], dtype=float)


def pairs() -> np.ndarray:
    """All columns with two ones in four rows."""
    return np.array([[float(i in pair) for pair in itertools.combinations(range(4), 2)] for i in range(4)])


def sparse_columns(r: int, n: int, nonzeros: int, seed: int) -> np.ndarray:
    rng, H = np.random.default_rng(seed), np.zeros((r, n))
    for j in range(n):
        H[rng.choice(r, nonzeros, replace=False), j] = rng.dirichlet(np.ones(nonzeros))
    return H


def vertices(H: np.ndarray) -> np.ndarray:
    """All vertices of ``H.T y >= 0, sum(y) = 1``, from every set of r - 1 inequalities."""
    r, found = len(H), []
    for chosen in itertools.combinations(range(H.shape[1]), r - 1):
        M = np.vstack([H[:, chosen].T, np.ones(r)])
        if np.linalg.matrix_rank(M) == r:
            y = np.linalg.solve(M, np.eye(r)[-1])
            if (H.T @ y).min() >= -1e-10:
                found.append(y)
    return np.array(found)


def check_certificate(H: np.ndarray, result: randla.SSCResult) -> None:
    """Nothing of the library is used here: inequalities in extended precision, and the two ways to refute."""
    y, wide = result.certificate.astype(np.longdouble), H.astype(np.longdouble)
    sums = wide.sum(axis=0)
    assert ((wide[:, sums > 0] / sums[sums > 0]).T @ y).min() >= -tolerance("float64", len(H), np.linalg.norm(y))
    assert abs(y.sum() - 1) <= tolerance("float64", len(H), np.linalg.norm(y))
    if result.ssc1 is False:
        assert y @ y > 1
    else:
        assert abs(y @ y - 1) <= 2 * TOL
        assert np.abs(y - np.eye(len(H))[np.argmax(y)]).max() > TOL**0.5


# --- examples whose answer is known -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hull", "branch"])
@pytest.mark.parametrize(
    ("w", "ssc1", "ssc2", "value"),
    [(0.0, True, True, 1.0), (0.3, True, True, 1.0), (0.499, True, True, 1.0), (0.5, True, False, 1.0)],
)
def test_family_up_to_one_half(w: float, ssc1: bool, ssc2: bool, value: float, method: str) -> None:
    result = randla.check_ssc(family(w), method=method)
    assert (result.ssc1, result.ssc2, result.necessary) == (ssc1, ssc2, True)
    assert result.status == ("proved" if ssc2 else "refuted")
    assert abs(result.value - value) <= TOL
    assert result.bound <= 1 + 2 * TOL
    assert result.converged
    if not ssc2:
        check_certificate(family(w), result)


@pytest.mark.parametrize("method", ["hull", "branch"])
@pytest.mark.parametrize(("w", "value"), [(0.501, 1.00178), (0.6, 1.204082)])
def test_family_beyond_one_half(w: float, value: float, method: str) -> None:
    """The values of the paper's example, to the digits that are given."""
    result = randla.check_ssc(family(w), method=method)
    assert (result.ssc1, result.ssc2, result.necessary, result.status) == (False, False, True, "refuted")
    assert abs(result.value - value) <= 0.5e-5
    assert result.value >= float(np.max(np.sum(vertices(family(w)) ** 2, axis=1))) - TOL
    check_certificate(family(w), result)


def test_maximisers_are_counted() -> None:
    """Six at w = 1/2 and three below it; eight for the pairs."""
    for H, count in ((family(0.5), 6), (family(0.499), 3), (pairs(), 8)):
        found = np.unique(np.round(vertices(H), 6), axis=0)
        assert int(np.sum(np.sum(found**2, axis=1) > 1 - TOL)) == count


@pytest.mark.parametrize("method", ["hull", "branch"])
def test_pairs(method: str) -> None:
    result = randla.check_ssc(pairs(), method=method)
    assert (result.ssc1, result.ssc2, result.status) == (True, False, "refuted")
    check_certificate(pairs(), result)


@pytest.mark.parametrize("r", [1, 2, 3, 5, 8])
def test_pure_columns_suffice(r: int) -> None:
    H = np.hstack([np.eye(r), np.random.default_rng(0).random((r, 7))])
    for method in ("auto", "branch"):
        result = randla.check_ssc(H, method=method)
        assert (result.ssc1, result.ssc2, result.status) == (True, True, "proved")
        assert result.certificate is None


@pytest.mark.parametrize(
    "H",
    [
        np.ones((3, 5)),
        np.random.default_rng(0).random((4, 50)),
        np.array([[1.0, 0.5], [0.0, 0.5]]),
        np.eye(4)[:, :3],
        np.vstack([np.eye(3), np.eye(3)]),
        family(1.0),
    ],
    ids=["one ray", "no zeros", "one pure of two", "a row of zeros", "rank three of six", "on the boundary"],
)
def test_necessary_condition_refutes(H: np.ndarray) -> None:
    result = randla.check_ssc(H)
    assert (result.ssc1, result.necessary, result.status) == (False, False, "refuted")
    assert result.margin <= TOL
    assert result.method == "necessary"
    check_certificate(H, result)


# --- against all vertices ---------------------------------------------------------------------------------------------


@given(st.integers(2, 4), st.integers(2, 9), st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_all_vertices(r: int, n: int, nonzeros: int, seed: int) -> None:
    """Where the polytope is bounded; else the necessary condition must have refuted."""
    H = np.round(sparse_columns(r, n, min(r, nonzeros), seed), 3)
    result = randla.check_ssc(H)
    if result.status == "refuted":
        check_certificate(H, result)
    if result.necessary:
        values = np.sum(vertices(H) ** 2, axis=1)
        others = values[np.abs(vertices(H)).max(axis=1) < 1 - 1e-4]
        assert result.ssc1 == (values.max() <= 1 + TOL)
        assert result.ssc2 == (result.ssc1 and not np.any(others > 1 - TOL))
        assert abs(result.value - values.max()) <= 1e-8
    else:
        assert result.necessary is False


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("r", "n", "nonzeros"), [(4, 14, 2), (5, 25, 3), (6, 50, 4), (7, 70, 4)])
def test_hull_and_branch_agree(r: int, n: int, nonzeros: int, seed: int) -> None:
    H = sparse_columns(r, n, nonzeros, seed)
    hull, branch = (randla.check_ssc(H, method=method) for method in ("hull", "branch"))
    assert (hull.ssc1, hull.ssc2, hull.status) == (branch.ssc1, branch.ssc2, branch.status)
    assert hull.status != "unknown"
    assert branch.value <= hull.bound * (1 + TOL) or hull.method == "necessary"
    if hull.status == "refuted":
        check_certificate(H, hull)
        check_certificate(H, branch)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_caps_hold(seed: int) -> None:
    """Between its cap and 1 no coordinate of a vertex goes with a norm of 1 or more."""
    H = sparse_columns(4, 14, 3, seed)
    limits, found = caps(Search(H, TOL, math.inf)), vertices(H)
    assert np.all(limits <= 1)
    for k in range(4):
        near = found[(found[:, k] > limits[k] + TOL) & (found[:, k] < 1 - TOL)]
        assert np.all(np.sum(near**2, axis=1) < 1)


@pytest.mark.slow
@pytest.mark.parametrize(("r", "n"), [(10, 300), (12, 360), (15, 300)])
def test_large_ranks_are_decided(r: int, n: int) -> None:
    result = randla.check_ssc(sparse_columns(r, n, 3, 0), time_limit=60)
    assert (result.status, result.method) == ("proved", "branch")


# --- invariance, cleaning, sensitivity --------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([1e-150, 1e-20, 1.0, 1e150]))
@settings(max_examples=20, deadline=None)
def test_scales_orders_and_copies_do_not_matter(seed: int, scale: float) -> None:
    H = sparse_columns(4, 14, 2, 5)
    rng = np.random.default_rng(seed)
    other = H[rng.permutation(4)] * rng.uniform(0.5, 2, 14) * scale
    other = np.hstack([other, other[:, rng.integers(0, 14, 5)], np.zeros((4, 2))])[:, rng.permutation(21)]
    first, second = randla.check_ssc(H), randla.check_ssc(other)
    assert (first.ssc1, first.ssc2, first.n_columns) == (second.ssc1, second.ssc2, second.n_columns)
    assert abs(first.value - second.value) <= 1e-8


def test_small_entries_are_told_to_matter() -> None:
    """What a solver leaves in place of zeros refutes at the first threshold, and not at the second."""
    H = family(0.3) + 1e-5
    result = randla.check_ssc(H)
    assert result.status == "refuted"
    assert [verdict.status for verdict in result.sensitivity] == ["refuted", "proved"]
    assert [verdict.n_zeros for verdict in result.sensitivity] == [0, 6]
    assert randla.check_ssc(H, thresholds=[1e-3]).status == "proved"


def test_sparse_and_integer_input() -> None:
    whole = (family(0.5) * 2).astype(int)
    for H in (whole, sp.csr_array(whole), sp.csc_matrix(whole.astype(np.float32))):
        assert randla.check_ssc(H).ssc2 is False
    assert whole[0, 0] == 1


def test_large_and_flat() -> None:
    """Thousands of columns, most of them inside: the linear programs see some dozens."""
    rng = np.random.default_rng(0)
    H = np.hstack([sparse_columns(8, 200, 3, 0), rng.dirichlet(np.ones(8), 3000).T])
    result = randla.check_ssc(H)
    assert result.status == "proved"
    assert result.n_columns == 3200


# --- what must fail ---------------------------------------------------------------------------------------------------


def test_no_time_no_answer() -> None:
    H = sparse_columns(8, 60, 5, 1)
    result = randla.check_ssc(H, method="branch", time_limit=1e-9)
    assert (result.ssc1, result.ssc2, result.status) == (None, None, "unknown")
    assert not result.converged
    assert result.bound > 1


def test_interrupted_search_keeps_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stops after some nodes: what is told is still a bound, and no answer is made up."""
    H = sparse_columns(8, 60, 5, 1)
    reads = itertools.count()
    monkeypatch.setattr(Search, "late", property(lambda self: next(reads) > 200))
    result = randla.check_ssc(H, method="branch")
    assert result.status == "unknown"
    assert result.bound > 1 + TOL
    assert result.n_nodes > 0


def test_hull_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    H = sparse_columns(4, 60, 2, 0)
    search = Search(H, TOL, time.monotonic() - 1)
    assert not scattered.hull_route(search)
    assert search.bound == math.inf
    monkeypatch.setattr(scattered, "hull_route", lambda search: False)
    monkeypatch.setattr(identifiability, "hull_route", lambda search: False)
    assert randla.check_ssc(H).method == "hull"
    assert randla.check_ssc(H).status == "proved"  # the branch and bound takes over


@pytest.mark.parametrize(
    ("H", "message"),
    [
        (np.array([[1.0, -1.0], [1.0, 1.0]]), "H must be nonnegative, got -1"),
        (np.array([[1.0, np.nan]]), "H must be finite"),
        (np.array([[1.0, np.inf]]), "H must be finite"),
        (np.zeros((3, 4)), "H must have a column that is not zero"),
        (np.zeros((3, 0)), "H must have a column that is not zero"),
        (np.ones(3), "H must be 2-D"),
    ],
)
def test_bad_matrices(H: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        randla.check_ssc(H)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gurobi"}, "method must be one of"),
        ({"tol": 0.0}, "tol must be finite and in"),
        ({"tol": 0.5}, "tol must be finite and in"),
        ({"time_limit": 0}, "time_limit must be finite and in"),
        ({"thresholds": ()}, "thresholds must hold at least one"),
        ({"thresholds": (2.0,)}, "thresholds must be finite and in"),
    ],
)
def test_bad_parameters(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        randla.check_ssc(np.eye(3), **options)


def test_other_kinds_of_matrices() -> None:
    import array_api_strict

    with pytest.raises(NotImplementedError, match="H must be an array of NumPy"):
        randla.check_ssc(array_api_strict.asarray(np.eye(3)))
    with pytest.raises(TypeError, match="H must be real"):
        randla.check_ssc(np.eye(3) * 1j)


def test_scip_is_asked_for_by_name() -> None:
    """With PySCIPOpt it gives the known answers; without, it says what to install."""
    if find_spec("pyscipopt") is None:
        with pytest.raises(ImportError, match=r"install randla\[scip\]"):
            randla.check_ssc(family(0.3), method="scip")
        return
    for w, status in ((0.3, "proved"), (0.5, "refuted"), (0.6, "refuted")):
        result = randla.check_ssc(family(w), method="scip")
        assert result.status == status
        if status == "refuted":
            check_certificate(family(w), result)
    for seed in range(3):
        H = sparse_columns(6, 40, 4, seed)
        assert randla.check_ssc(H, method="scip").status == randla.check_ssc(H).status
