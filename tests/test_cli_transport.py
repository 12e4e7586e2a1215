"""The command `randla transport`: what it writes and tells is the function's, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from randla import cli
from randla.transport.costs import point_cost
from randla.transport.sinkhorn import sinkhorn

from .test_cli import FORMATS, _save


def _points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 1.0


@pytest.mark.parametrize("name", FORMATS)
def test_points_of_every_format(tmp_path: Path, run, name: str) -> None:
    X, Y = _points()
    start, end = _save(tmp_path / f"X{name}", X), _save(tmp_path / f"Y{name}", Y)
    out, report = tmp_path / "p.npz", tmp_path / "r.json"
    code, text, _ = run("transport", start, end, "--reg", 0.1, "--out", out, "--report", report, "--plan")
    exact = sinkhorn(None, None, point_cost(X, Y), 0.1)
    assert code == cli.DONE
    with np.load(out) as arrays:
        assert sorted(arrays.files) == ["f", "g", "moved", "plan"]
        assert np.allclose(arrays["f"], exact.f, rtol=0, atol=1e-7)  # 1e-9 of the mass and last bits of text formats
        assert np.allclose(arrays["plan"].sum(axis=1), 1 / 30, rtol=0, atol=1e-9)
        assert np.allclose(arrays["moved"], 30 * arrays["plan"] @ Y, rtol=1e-12, atol=1e-12)
    facts = json.loads(report.read_text())
    assert facts["cost"] == pytest.approx(exact.cost, rel=1e-6)
    assert facts["marginal_error"] <= 1e-9
    assert (facts["status"], facts["shape"], facts["metric"]) == ("CONVERGED", [30, 20], "sqeuclidean")
    assert text.count("\n") == 7
    for line in (
        "problem  30 x 20, costs sqeuclidean",
        f"cost     {facts['cost']:.9g}, of exact transport",
        f"error    {facts['marginal_error']:.2e} of the mass",
        "status   converged",
        f"written  {out}",
    ):
        assert line in text


def test_options_are_those_of_the_function(tmp_path: Path, run) -> None:
    X, Y = _points()
    a, b = np.arange(30.0), np.arange(20.0)
    a, b = a / a.sum(), b / b.sum()
    files = [_save(tmp_path / f"{name}.npy", A) for name, A in (("X", X), ("Y", Y), ("a", a[:, None]), ("b", b[None]))]
    out = tmp_path / "p.npz"
    masses = ("--from-mass", files[2], "--to-mass", files[3])
    more = ("--metric", "cityblock", "--method", "log", "--relative", "--tol", 1e-8)
    code, text, _ = run("transport", *files[:2], "--reg", 0.05, *masses, *more, "--out", out, "--report", "-")
    exact = sinkhorn(a, b, point_cost(X, Y, "cityblock"), 0.05, relative=True, method="log", tol=1e-8)
    facts = json.loads(text)
    assert code == cli.DONE
    with np.load(out) as arrays:
        assert np.array_equal(arrays["f"], exact.f)
        assert np.array_equal(arrays["g"], exact.g)
        assert np.isnan(arrays["moved"][0]).all()  # a point without mass goes nowhere
        assert np.isfinite(arrays["moved"][1:]).all()
    assert (facts["reg"], facts["method"], facts["n_iter"]) == (exact.reg, exact.method, exact.n_iter)


def test_histograms_with_a_cost(tmp_path: Path, run) -> None:
    rng = np.random.default_rng(1)
    a, b, C = rng.random(8), rng.random(6), rng.random((8, 6))
    b *= a.sum() / b.sum()
    files = [_save(tmp_path / f"{name}.csv", A) for name, A in (("a", a[:, None]), ("b", b[:, None]), ("C", C))]
    out = tmp_path / "p.npz"
    code, text, _ = run(
        "transport", files[0], files[1], "--cost", files[2], "--reg", 0.02, "--out", out, "--header", "no"
    )
    assert code == cli.DONE
    with np.load(out) as arrays:
        assert sorted(arrays.files) == ["f", "g"]
        assert np.allclose(arrays["g"], sinkhorn(a, b, C, 0.02).g, rtol=0, atol=1e-7)
    assert f"problem  8 x 6, costs from {files[2]}" in text


def test_one_that_does_not_converge(tmp_path: Path, run) -> None:
    X, Y = _points()
    start, end = _save(tmp_path / "X.npy", X), _save(tmp_path / "Y.npy", Y)
    code, text, err = run("transport", start, end, "--reg", 0.01, "--method", "log", "--max-iter", 1)
    assert code == cli.FAILED
    assert "transport ended with " in err
    assert "status   converged" not in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--reg", 0), "must be above 0"),
        (("--reg", 1, "--tol", 2), "must be between 0 and 1"),
        (("--reg", 1, "--plan"), "--plan must come with --out"),
        (("--reg", 1, "--out", "p.npy"), "--out must end in .npz"),
        (("--reg", 1, "--cost", "X.npy", "--metric", "cosine"), "--metric must come with points, got --cost"),
        (("--reg", 1, "--cost", "X.npy"), "must hold masses, one row or one column of them, got 30 x 3"),
        (("--reg", 1, "--from-mass", "X.npy"), "must hold masses"),
        (("--reg", 1, "--from-mass", "nothing.npy"), "nothing.npy"),
        (("--reg", 1, "--method", "simplex"), "invalid choice"),
        ((), "--reg"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, run, monkeypatch, words: tuple, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    X, Y = _points()
    _save(tmp_path / "X.npy", X)
    _save(tmp_path / "Y.npy", Y)
    code, _, err = run("transport", "X.npy", "Y.npy", *words)
    assert code == cli.MISTAKE
    assert text in err


def test_inputs_are_not_overwritten(tmp_path: Path, run) -> None:
    X, Y = _points()
    start, end = _save(tmp_path / "X.npz", X), _save(tmp_path / "Y.npz", Y)
    assert run("transport", start, end, "--reg", 1, "--out", end)[0] == cli.MISTAKE
    assert run("transport", start, _save(tmp_path / "Z.npy", Y[:, :2]), "--reg", 1)[0] == cli.MISTAKE
