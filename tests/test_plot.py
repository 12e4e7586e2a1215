"""Display objects: what they draw is what they were given, on the axes they were given."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import randla
from randla.plot import (
    MARKERS,
    PALETTE,
    ConvergenceDisplay,
    PlanDisplay,
    RankErrorDisplay,
    SketchErrorDisplay,
    SpectrumDisplay,
    gram_matrix,
)

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")


@pytest.fixture
def ax():
    from matplotlib.figure import Figure

    return Figure().subplots()


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def _matrix() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 12)) * 2.0 ** -np.arange(12)


def test_spectrum(ax) -> None:
    result = randla.svd(_matrix(), 5, rng=0)
    first = SpectrumDisplay.from_result(result).plot(ax)
    second = SpectrumDisplay.from_values([3, 2, 1], label="values").plot(ax, line_kwargs={"linestyle": ":"})
    assert first.ax_ is ax
    assert first.figure_ is ax.figure
    assert np.array_equal(first.line_.get_ydata(), result.s)
    assert np.array_equal(first.line_.get_xdata(), [1, 2, 3, 4, 5])
    assert second.line_.get_linestyle() == ":"
    assert first.line_.get_color() != second.line_.get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["rank 5", "values"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("index", "singular value")


def test_spectrum_of_an_estimator() -> None:
    display = SpectrumDisplay.from_estimator(SimpleNamespace(singular_values_=np.array([2.0, 1.0])))
    assert np.array_equal(display.plot().line_.get_ydata(), [2, 1])
    with pytest.raises(ValueError, match="must be fitted"):
        SpectrumDisplay.from_estimator(SimpleNamespace())


def test_rank_error_is_the_tail(ax) -> None:
    A = _matrix()
    s = np.linalg.svd(A, compute_uv=False)
    truth = [np.linalg.norm(s[r:]) / np.linalg.norm(s) for r in range(1, 13)]
    display = RankErrorDisplay.from_values(s).plot(ax)
    assert np.allclose(display.line_.get_ydata(), truth, rtol=1e-12, atol=1e-15)
    leading = RankErrorDisplay.from_values(s[:4], norm=float(np.linalg.norm(A)))
    assert np.allclose(leading.errors, truth[:4], rtol=1e-9)
    found = RankErrorDisplay.from_result(randla.svd(A, 4, rng=0))
    assert np.allclose(found.errors, truth[:4], rtol=0.02)
    with pytest.raises(ValueError, match="error_norm"):
        RankErrorDisplay.from_result(SimpleNamespace(error_norm="spectral"))


def test_sketch_error_falls_to_one(ax) -> None:
    A = _matrix()
    display = SketchErrorDisplay.from_matrix(
        A, 3, sketch_sizes=(6, 60, 400), kinds=("gaussian", "sparse-sign"), rng=0, n_repeats=4
    )
    display.plot(ax)
    assert len(display.lines_) == 2
    for values in display.errors.values():
        assert np.all(values >= 1 - 1e-9)
        assert values[-1] <= 1.05
        assert values[-1] <= values[0]
    again = SketchErrorDisplay.from_matrix(A, 3, sketch_sizes=(6,), kinds=("gaussian",), rng=0, n_repeats=4)
    assert again.errors["gaussian"][0] == display.errors["gaussian"][0]
    assert {line.get_marker() for line in display.lines_} == set(MARKERS[:2])
    assert {line.get_color() for line in display.lines_} == set(PALETTE[:2])


def test_whole_sketch_reproduces_the_best_error() -> None:
    A = _matrix()[:40]
    display = SketchErrorDisplay.from_matrix(A, 3, sketch_sizes=(40,), kinds=("rows",), rng=0, n_repeats=1)
    assert display.errors["rows"][0] >= 1 - 1e-9
    assert np.allclose(gram_matrix(A, chunk=7), A.T @ A, rtol=1e-12, atol=1e-12)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="singular_values must be a vector"):
        SpectrumDisplay.from_values([[1.0]])
    with pytest.raises(ValueError, match="errors must have 2 entries"):
        RankErrorDisplay([1, 2], [0.5])
    with pytest.raises(ValueError, match="must have 2 entries"):
        SketchErrorDisplay([1, 2], {"x": [1.0]}, rank=1)
    with pytest.raises(ValueError, match="rank must be in"):
        SketchErrorDisplay.from_matrix(_matrix(), 12, sketch_sizes=(20,))


def test_missing_matplotlib_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"randla\[plot\]"):
        SpectrumDisplay.from_values([1.0]).plot()


# --- transport --------------------------------------------------------------------------------------------------------


def _transport(reg: float = 0.01, **options):
    rng = np.random.default_rng(0)
    X, Y = rng.random((30, 2)), rng.random((25, 2)) + 0.3
    return X, Y, randla.sinkhorn(None, None, randla.point_cost(X, Y), reg, **options)


def test_convergence_shows_the_steps_at_the_final_regularisation(ax) -> None:
    seconds: list[float] = []
    *_, result = _transport(2e-4, method="newton", callback=lambda step: seconds.append(len(seconds) / 10))
    display = ConvergenceDisplay.from_result(result).plot(ax)
    final = [step for step in result.history if step.reg == result.reg]
    assert len(final) < len(result.history)
    assert np.array_equal(display.line_.get_ydata(), [step.marginal_error for step in final])
    assert display.newton.sum() == result.n_newton > 0
    assert display.line_.get_markevery() == [k for k, step in enumerate(final) if step.method == "newton"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "marginal error", "log")
    timed = ConvergenceDisplay.from_result(result, seconds=seconds, label="timed").plot()
    assert timed.ax_.get_xlabel() == "seconds"
    assert np.allclose(timed.line_.get_xdata(), seconds[-len(final) :])
    second = ConvergenceDisplay([1.0, 0.1, 0.0], label="by hand").plot(ax)
    assert np.isnan(second.line_.get_ydata()[2])
    assert second.line_.get_color() != display.line_.get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()][1] == "by hand"


def test_convergence_of_a_history_of_numbers() -> None:
    display = ConvergenceDisplay.from_result(SimpleNamespace(history=(0.5, 0.25, 0.125)))
    assert np.array_equal(display.plot().line_.get_ydata(), [0.5, 0.25, 0.125])
    with pytest.raises(ValueError, match="result must have a history"):
        ConvergenceDisplay.from_result(SimpleNamespace(history=()))
    with pytest.raises(ValueError, match="seconds must have 3 entries"):
        ConvergenceDisplay([1.0, 2.0, 3.0], seconds=[1.0, 2.0])
    with pytest.raises(ValueError, match="seconds must have 2 entries"):
        ConvergenceDisplay.from_result(SimpleNamespace(history=(0.5, 0.25)), seconds=[1.0])
    with pytest.raises(ValueError, match="newton must have"):
        ConvergenceDisplay([1.0, 2.0], newton=[True])


def test_plan_as_an_image_with_its_marginals(ax) -> None:
    *_, result = _transport()
    plan = result.plan.to_dense()
    display = PlanDisplay.from_result(result).plot(ax, line_kwargs={"cmap": "Greys"})
    assert np.array_equal(display.image_.get_array(), plan)
    assert display.image_.get_cmap().name == "Greys"
    assert display.lines_ is None
    above, beside = display.marginal_axes_
    heights = above.collections[0].get_paths()[0].vertices[:, 1]
    widths = beside.collections[0].get_paths()[0].vertices[:, 0]
    assert heights.max() == pytest.approx(plan.sum(axis=0).max())
    assert widths.max() == pytest.approx(plan.sum(axis=1).max())


def test_plan_as_lines_between_points(ax) -> None:
    X, Y, result = _transport(1e-4)
    plan = result.plan.to_dense()
    display = PlanDisplay.from_result(result, X=X, Y=Y).plot(ax, share=0.1)
    segments = np.array(display.lines_.get_segments())
    assert len(segments) == np.count_nonzero(plan >= 0.1 * plan.max())
    drawn = [plan[np.argmin(np.abs(X - x).sum(axis=1)), np.argmin(np.abs(Y - y).sum(axis=1))] for x, y in segments]
    assert np.array_equal(drawn, np.sort(plan[plan >= 0.1 * plan.max()]))  # the largest masses last, on top
    assert display.image_ is None
    assert display.marginal_axes_ == ()
    assert len(PlanDisplay(plan, X=X, Y=Y).plot(max_lines=5, share=0.0).lines_.get_segments()) == 5
    model = randla.SinkhornTransport().fit(X, Y=Y)
    assert PlanDisplay.from_estimator(model).plot().lines_ is not None
    assert PlanDisplay.from_estimator(model, lines=False).plot().image_ is not None


def test_plans_that_cannot_be_drawn() -> None:
    big = SimpleNamespace(plan=SimpleNamespace(shape=(10_000, 10_000)))
    with pytest.raises(ValueError, match=r"at most 4,000,000 pairs to be drawn, got 10,000 x 10,000"):
        PlanDisplay.from_result(big)
    with pytest.raises(ValueError, match="plan must be a matrix"):
        PlanDisplay(np.ones(3))
    with pytest.raises(ValueError, match="X and Y must be given together"):
        PlanDisplay(np.ones((3, 2)), X=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"Y must have shape \(2, 2\)"):
        PlanDisplay(np.ones((3, 2)), X=np.ones((3, 2)), Y=np.ones((3, 2)))
    with pytest.raises(ValueError, match="share must be"):
        PlanDisplay(np.ones((3, 2))).plot(share=1.0)
    with pytest.raises(ValueError, match="must be fitted"):
        PlanDisplay.from_estimator(SimpleNamespace())
