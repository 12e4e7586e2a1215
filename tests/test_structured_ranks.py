"""Ranks from spectra: rules for one matrix, budgets for many, fractions for layers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from randla._arrays import eps
from randla._results import Status
from randla.structured import allocate_ranks, choose_rank, select_ranks
from randla.structured.ranks import marchenko_pastur_median

from .conftest import tolerance


def spiked(m: int, n: int, spikes: list[float], seed: int) -> np.ndarray:
    """White noise of variance 1 with columns centred, plus orthogonal signals of the given singular values."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((side, len(spikes))))[0] for side in (m, n))
    A = (U * spikes) @ V.T + rng.standard_normal((m, n))
    return A - A.mean(axis=0)


# --- one spectrum -----------------------------------------------------------------------------------------------------


def test_energy_keeps_the_least_rank_that_holds_the_share() -> None:
    s = np.sqrt([0.5, 0.25, 0.125, 0.0625, 0.0625])
    assert [choose_rank(s, "energy", level=level).rank for level in (0, 0.5, 0.51, 0.75, 0.9, 1)] == [0, 1, 2, 2, 4, 5]
    result = choose_rank(s, "energy", level=0.75)
    assert abs(result.error - 0.5) <= tolerance("float64", 5)
    assert result.threshold == s[1]
    assert list(result) == [2]


def test_welore_scales_between_the_extremes_and_is_monotone() -> None:
    s = np.array([11.0, 6.0, 3.5, 2.0, 1.0])  # scaled: 1, 0.5, 0.25, 0.1, 0
    levels = [0.0, 0.1, 0.11, 0.3, 0.5, 0.51, 1.0]
    assert [choose_rank(s, "welore", level=level).rank for level in levels] == [5, 4, 3, 2, 2, 1, 1]
    assert choose_rank(s, "welore", level=0.3, scaling="max").rank == 3  # 3.5 / 11 = 0.318
    ranks = [choose_rank(s, "welore", level=level).rank for level in np.linspace(0, 1, 50)]
    assert ranks == sorted(ranks, reverse=True)
    assert choose_rank(np.ones(4), "welore", level=0.9).rank == 4  # a flat spectrum has nothing to cut


def test_stable_rank() -> None:
    assert choose_rank(np.ones(7), "stable").rank == 7
    assert choose_rank(2.0 ** -np.arange(20), "stable").rank == 2
    assert choose_rank(1e200 * 2.0 ** -np.arange(20), "stable").rank == 2


def test_hard_threshold_is_that_of_the_paper() -> None:
    """omega(1) = 2.858 and the medians of the law, which an integral of its density confirms."""
    assert abs(4 / math.sqrt(3) / math.sqrt(marchenko_pastur_median(1.0)) - 2.858) < 5e-4
    for ratio in (0.05, 0.3, 0.5, 0.9, 1.0):
        low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2

        def density(x: float, low: float = low, high: float = high, ratio: float = ratio) -> float:
            return math.sqrt((high - x) * (x - low)) / (2 * math.pi * ratio * x)

        below, _ = scipy.integrate.quad(density, low, marchenko_pastur_median(ratio))
        assert abs(below - 0.5) < 1e-6


@pytest.mark.parametrize("method", ["gavish-donoho", "mdl", "minka"])
@pytest.mark.parametrize("shape", [(400, 100), (100, 400)])
def test_rules_of_noise_find_the_signals(method: str, shape: tuple[int, int]) -> None:
    """Signals at 3 times the edge of the noise are found, and no more: the edge is 30, its fluctuation below 1."""
    A = spiked(400, 100, [150.0, 120.0, 90.0], 0)
    s = np.linalg.svd(A, compute_uv=False)
    assert choose_rank(s, method, shape=shape).rank == 3


def test_known_noise() -> None:
    s = np.linalg.svd(spiked(200, 200, [80.0, 60.0], 1), compute_uv=False)
    result = choose_rank(s, "gavish-donoho", noise=1.0)
    assert result.rank == 2
    assert choose_rank(s, "gavish-donoho", noise=10.0).rank == 0
    assert choose_rank(s[:5], "gavish-donoho", noise=1.0, shape=(5, 200)).rank == 5


@pytest.mark.parametrize("seed", range(4))
def test_minka_agrees_with_scikit_learn(seed: int) -> None:
    from sklearn.decomposition import PCA

    A = spiked(120, 15, [60.0, 30.0, 22.0], seed)
    theirs = PCA(n_components="mle", svd_solver="full").fit(A).n_components_
    assert choose_rank(np.linalg.svd(A, compute_uv=False), "minka", shape=A.shape).rank == theirs


def test_trivial_spectra() -> None:
    for method in ("energy", "welore", "stable", "gavish-donoho", "mdl", "minka"):
        assert choose_rank(np.zeros(3), method).rank == 0
        assert choose_rank([], method).error == 0.0
        assert choose_rank([np.nan, 1.0], method).status is Status.NONFINITE
    assert not choose_rank([np.inf, 1.0]).converged


def test_other_namespaces(put: object) -> None:
    assert choose_rank(put(2.0 ** -np.arange(9.0)), "stable").rank == 2
    assert select_ranks([put(np.ones(4)), put(0.5 ** np.arange(4.0))], budget=0.75).ranks == {0: 4, 1: 2}


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    [
        (ValueError, "method must be one of", ([1.0], "elbow"), {}),
        (ValueError, "level must be finite and in", ([1.0], "energy"), {"level": 1.5}),
        (TypeError, "level must be a real number", ([1.0], "energy"), {"level": "high"}),
        (ValueError, "s must be nonnegative and descending", ([1.0, 2.0],), {}),
        (ValueError, "s must be nonnegative and descending", ([1.0, -2.0],), {}),
        (ValueError, "s must be 1-D", ([[1.0]],), {}),
        (TypeError, "s must be real numbers", (["a"],), {}),
        (ValueError, "shape must have sides of at least 2", ([2.0, 1.0], "mdl"), {"shape": (1, 5)}),
        (ValueError, r"shape must be a pair", ([2.0, 1.0], "mdl"), {"shape": 5}),
        (ValueError, "s must hold all 5 singular values", ([2.0, 1.0], "mdl"), {"shape": (5, 5)}),
        (ValueError, "noise must be finite and in", ([2.0, 1.0], "gavish-donoho"), {"noise": 0.0}),
        (ValueError, "scaling must be one of", ([1.0], "welore"), {"scaling": "log"}),
    ],
)
def test_bad_input_of_choose_rank(error: type, match: str, arguments: tuple, options: dict) -> None:
    with pytest.raises(error, match=match):
        choose_rank(*arguments, **options)


# --- many spectra -----------------------------------------------------------------------------------------------------

SPECTRA = st.lists(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12, unique=True).map(lambda s: sorted(s, reverse=True)),
    min_size=1,
    max_size=5,
)


@given(SPECTRA, st.floats(0, 1), st.sampled_from(["welore", "energy"]), st.sampled_from(["minmax", "max"]))
@settings(max_examples=150, deadline=None)
def test_budget_of_ranks_is_met(spectra: list[list[float]], budget: float, criterion: str, scaling: str) -> None:
    """Within half a rank and one for each tie; scaled spectra all begin in a tie, at 1 (and may end in one, at 0)."""
    result = select_ranks(spectra, budget=budget, criterion=criterion, scaling=scaling)
    total = sum(map(len, spectra))
    assert abs(sum(result.ranks.values()) - budget * total) <= len(spectra)
    assert abs(result.achieved - sum(result.ranks.values()) / total) <= eps("float64")
    for i, s in enumerate(spectra):
        tail = np.linalg.norm(s[result.ranks[i] :]) / np.linalg.norm(s)
        assert abs(result.errors[i] - tail) <= tolerance("float64", len(s))


@given(SPECTRA, st.floats(0.05, 0.9), st.floats(0, 0.1))
@settings(max_examples=60, deadline=None)
def test_more_budget_never_takes_ranks_away(spectra: list[list[float]], budget: float, more: float) -> None:
    small, large = (select_ranks(spectra, budget=b) for b in (budget, budget + more))
    assert all(small.ranks[i] <= large.ranks[i] for i in small.ranks)
    assert small.threshold >= large.threshold


def brute_force(spectra: list[np.ndarray], shapes: list[tuple[int, int]], money: float) -> float:
    """The largest sum of squares that any choice of ranks, or of whole matrices, keeps."""
    options = []
    for s, (m, n) in zip(spectra, shapes, strict=True):
        kept = np.concatenate([[0.0], np.cumsum(s**2)])
        options.append([(r * (m + n), kept[r]) for r in range(len(s) + 1)] + [(m * n, kept[-1])])
    choices = itertools.product(*options)
    return max(sum(k for _, k in choice) for choice in choices if sum(c for c, _ in choice) <= money * (1 + 1e-12))


@pytest.mark.parametrize("seed", range(6))
def test_parameters_are_spent_well(seed: int) -> None:
    """Never over the budget; as good as the best choice wherever the budget is a corner of the hulls."""
    rng = np.random.default_rng(seed)
    shapes = [(8, 6), (5, 12), (9, 9)]
    spectra = [np.sort(rng.exponential(size=min(shape)) ** 2)[::-1] for shape in shapes]
    whole = sum(m * n for m, n in shapes)
    for budget in (0.1, 0.25, 0.5, 0.75, 1.0):
        first = select_ranks(spectra, budget=budget, criterion="params", shapes=shapes)
        assert first.n_parameters <= budget * whole * (1 + 1e-12)
        again = select_ranks(spectra, budget=first.achieved, criterion="params", shapes=shapes)
        assert again.ranks == first.ranks
        stored = sum(m * n if i in first.dense else first.ranks[i] * (m + n) for i, (m, n) in enumerate(shapes))
        assert stored == first.n_parameters
        kept = sum(float(np.sum(s[: first.ranks[i]] ** 2)) for i, s in enumerate(spectra))
        best = brute_force(spectra, shapes, budget * whole)
        largest = max(float(s[0] ** 2) for s in spectra)
        assert best - largest <= kept <= best * (1 + tolerance("float64", 30))
    assert first.dense == (0, 1, 2)
    assert first.error == 0.0


def test_corners_of_the_hulls_are_optimal() -> None:
    rng = np.random.default_rng(7)
    shapes = [(10, 10), (20, 6), (7, 9)]
    spectra = [np.sort(rng.exponential(size=min(shape)))[::-1] for shape in shapes]
    whole = sum(m * n for m, n in shapes)
    met = 0
    for budget in np.linspace(0, 1, 60):
        chosen = select_ranks(spectra, budget=budget, criterion="params", shapes=shapes)
        kept = sum(float(np.sum(s[: chosen.ranks[i]] ** 2)) for i, s in enumerate(spectra))
        met += kept >= brute_force(spectra, shapes, chosen.n_parameters) * (1 - 1e-12)
        assert chosen.achieved <= budget + 1e-12
        assert chosen.n_parameters == round(chosen.achieved * whole)
    assert met >= 45  # most of what is reached is a corner


def test_matrices_that_factors_do_not_shrink_are_kept_whole() -> None:
    spectra = {"steep": 0.1 ** np.arange(10.0), "flat": np.linspace(1, 0.9, 10)}
    shapes = {"steep": (10, 10), "flat": (10, 10)}
    result = select_ranks(spectra, budget=0.55, scaling="max", shapes=shapes)
    assert result.dense == ("flat",)
    assert result.ranks["flat"] == 10
    assert result.errors["flat"] == 0.0
    assert result.n_parameters == 100 + 20 * result.ranks["steep"]
    some = select_ranks(spectra, budget=0.55, scaling="max", shapes=shapes, min_ratio=0.9)
    assert set(some.dense) == {"flat", "steep"}


def test_trivial_selections() -> None:
    assert select_ranks({}, budget=0.5).ranks == {}
    assert select_ranks([np.zeros(3)], budget=0.5).errors == {0: 0.0}
    assert select_ranks([np.ones(3)], budget=0.0).ranks == {0: 0}
    assert select_ranks([np.ones(3)], budget=1.0).ranks == {0: 3}
    assert select_ranks([[np.nan, 1]], budget=0.5).status is Status.NONFINITE
    assert select_ranks([], budget=0.5, criterion="params", shapes=[]).n_parameters == 0


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    [
        (ValueError, "budget must be finite and in", ([[1.0]],), {"budget": 2.0}),
        (ValueError, "criterion must be one of", ([[1.0]],), {"budget": 0.5, "criterion": "best"}),
        (ValueError, "shapes must be given", ([[1.0]],), {"budget": 0.5, "criterion": "params"}),
        (ValueError, "shapes must name the matrices", ([[1.0]],), {"budget": 0.5, "shapes": {"a": (2, 2)}}),
        (TypeError, "spectra must be a mapping or a sequence", (3,), {"budget": 0.5}),
        (ValueError, r"spectra\[0\] must be nonnegative", ([[1.0, 2.0]],), {"budget": 0.5}),
        (ValueError, "min_ratio must be finite and in", ([[1.0]],), {"budget": 0.5, "min_ratio": 1.0}),
    ],
)
def test_bad_input_of_select_ranks(error: type, match: str, arguments: tuple, options: dict) -> None:
    with pytest.raises(error, match=match):
        select_ranks(*arguments, **options)


# --- layers -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.floats(0, 1),
    st.floats(0.005, 10),
    st.floats(0.05, 1),
)
@settings(max_examples=200, deadline=None)
def test_fractions_keep_their_average_and_cap(
    scores: list[float], share: float, temperature: float, cap: float
) -> None:
    removed = allocate_ranks(scores, share * cap, temperature=temperature, cap=cap)
    assert abs(removed.mean() - share * cap) <= tolerance("float64", len(scores))
    assert np.all((removed >= 0) & (removed <= cap * (1 + 8 * eps("float64"))))
    order = np.argsort(scores, kind="stable")
    assert np.all(np.diff(removed[order]) <= 8 * eps("float64"))  # what matters more loses less


def test_fractions_are_optimal() -> None:
    """Against a general solver of the same concave problem."""
    rng = np.random.default_rng(0)
    scores, average, temperature, cap = rng.random(8), 0.4, 0.3, 0.7
    removed = allocate_ranks(scores, average, temperature=temperature, cap=cap)

    def objective(phi: np.ndarray) -> float:
        return float(scores @ phi + temperature * np.sum(phi * np.log(np.maximum(phi, 1e-300))))

    found = scipy.optimize.minimize(
        objective, np.full(8, average), bounds=[(1e-9, cap)] * 8, method="SLSQP", options={"ftol": 1e-14},
        constraints={"type": "eq", "fun": lambda phi: phi.sum() - 8 * average},
    )  # fmt: skip
    assert objective(removed) <= found.fun + tolerance("float64", 8)
    assert np.abs(removed - found.x).max() < 1e-4  # the solver's accuracy
    assert np.any(removed == cap)


def test_softmax_without_a_cap() -> None:
    scores = np.array([0.1, 0.2, 0.4])
    weights = np.exp(-scores / 0.5)
    removed = allocate_ranks(scores, 0.2, temperature=0.5)
    assert np.allclose(removed, 3 * 0.2 * weights / weights.sum(), rtol=tolerance("float64", 3))
    assert np.array_equal(allocate_ranks(scores, 0.0, temperature=0.5), np.zeros(3))
    assert allocate_ranks([], 0.3, temperature=0.5).shape == (0,)


@pytest.mark.parametrize(
    ("match", "scores", "average", "options"),
    [
        ("scores must be finite", [np.nan], 0.2, {"temperature": 1}),
        ("scores must be 1-D", [[1.0]], 0.2, {"temperature": 1}),
        ("average must be finite and in", [1.0], 0.9, {"temperature": 1}),
        ("temperature must be finite and in", [1.0], 0.2, {"temperature": 0}),
        ("cap must be finite and in", [1.0], 0.2, {"temperature": 1, "cap": 0}),
    ],
)
def test_bad_input_of_allocate_ranks(match: str, scores: list, average: float, options: dict) -> None:
    with pytest.raises(ValueError, match=match):
        allocate_ranks(scores, average, **options)
