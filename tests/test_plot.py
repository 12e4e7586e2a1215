"""Display objects: what they draw is what they were given, on the axes they were given."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import randla
from randla.plot import MARKERS, PALETTE, RankErrorDisplay, SketchErrorDisplay, SpectrumDisplay, gram_matrix

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
