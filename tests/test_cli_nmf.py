"""The command `randla nmf`: the factors and what it tells of them, streaming, missing entries, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from randla import cli
from randla.nonnegative.encoding import nonneg_codes
from randla.nonnegative.masked import masked_nmf
from randla.nonnegative.solvers import nmf

from .conftest import tolerance
from .test_cli import FORMATS, _save

M, N, RANK = 300, 24, 3


def _data(m: int = M, noise: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((m, RANK)) ** 2 @ rng.random((RANK, N)) ** 2 + noise * rng.random((m, N))


def _factors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        assert sorted(arrays.files) == ["H", "W"]
        return arrays["W"], arrays["H"]


def _error(X: np.ndarray, W: np.ndarray, H: np.ndarray) -> float:
    return float(np.linalg.norm(X - W @ H) / np.linalg.norm(X))


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_factors_of_the_function(tmp_path: Path, run, name: str) -> None:
    X = _data(60)
    path, out, report = _save(tmp_path / name, X), tmp_path / "p.npz", tmp_path / "r.json"
    code, text, _ = run("nmf", path, "--rank", RANK, "--rng", 5, "--out", out, "--report", report)
    W, H = _factors(out)
    exact = nmf(X, RANK, rng=5)
    near = tolerance(X.dtype, X.size, float(np.linalg.norm(X)))
    assert code == cli.DONE
    assert np.allclose(W, exact.W, rtol=1e-8, atol=1e3 * near)  # text formats change the last bit, and it is iterated
    assert np.allclose(H, exact.H, rtol=1e-8, atol=1e3 * near)
    facts = json.loads(report.read_text())
    assert facts["error"] == pytest.approx(_error(X, W, H), rel=1e-10)
    assert (facts["status"], facts["solver"], facts["error_kind"]) == ("CONVERGED", "hals", "exact")
    assert 0 < facts["stationarity"] <= 1e-4
    assert text.count("\n") == 8
    for line in (
        f"matrix   60 x {N} float64, dense",
        "parts    3, loss frobenius",
        f"error    {facts['error']:.3g} of the norm",
        f"gradient {facts['stationarity']:.3g}, ",
        "status   converged",
        f"written  {out}",
    ):
        assert line in text


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "pivots"},
        {"loss": "kl", "init": "random"},
        {"loss": "kl", "solver": "mu", "max_iter": 400},
        {"loss": 1.5},
        {"alpha_w": 0.01, "alpha_h": 0.02, "l1_ratio": 0.5},
        {"starts": 3, "tol": 1e-3},
    ],
)
def test_options_are_those_of_the_function(tmp_path: Path, run, options: dict) -> None:
    X, out = _data(60), tmp_path / "p.npz"
    words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    code, text, _ = run("nmf", _save(tmp_path / "X.npy", X), "--rank", 2, "--rng", 1, "--out", out, *words)
    names = {"alpha_w": "alpha_W", "alpha_h": "alpha_H", "starts": "n_init"}
    exact = nmf(X, 2, rng=1, on_failure="ignore", **{names.get(name, name): value for name, value in options.items()})
    W, H = _factors(out)
    assert np.array_equal(W, exact.W)
    assert np.array_equal(H, exact.H)
    assert code == (cli.DONE if exact.converged else cli.FAILED)
    assert f"solver   {exact.solver}: {exact.reason}" in text
    assert ("starts   3, objectives " in text) == ("starts" in options)
    kind = "norm" if options.get("loss", "frobenius") == "frobenius" else "divergence from a constant"
    assert f"error    {exact.error:.3g} of the {kind}" in text


def test_sparse_files_hold_zeros_unless_told(tmp_path: Path, run) -> None:
    X = sp.random_array((80, N), density=0.3, rng=np.random.default_rng(0), format="csr")
    path, out = tmp_path / "X.npz", tmp_path / "p.npz"
    sp.save_npz(path, X)
    assert run("nmf", path, "--rank", 4, "--rng", 0, "--tol", 1e-3, "--out", out)[0] == cli.DONE
    assert np.array_equal(_factors(out)[1], nmf(X, 4, rng=0, tol=1e-3).H)
    code, text, _ = run("nmf", path, "--rank", 1, "--rng", 0, "--missing", "absent", "--out", out)
    exact = masked_nmf(X, 1, absent="missing", rng=0)
    assert code == cli.DONE
    assert np.array_equal(_factors(out)[1], exact.H)
    assert f"error    {exact.error:.3g} root mean square of the fitted entries" in text


def test_missing_entries_of_a_dense_file(tmp_path: Path, run) -> None:
    X = _data(120)
    known = np.where(np.random.default_rng(1).random(X.shape) < 0.7, X, np.nan)
    path, out = _save(tmp_path / "X.csv", known), tmp_path / "p.npz"
    code, text, err = run("nmf", path, "--rank", RANK, "--rng", 0)
    assert (code, text) == (cli.MISTAKE, "")
    assert "must have no NaN, got some; pass --missing nan if these entries are missing" in err
    asked = ("--missing", "nan", "--validation", 0.1, "--starts", 2, "--report", "-")
    code, text, _ = run("nmf", path, "--rank", RANK, "--rng", 0, "--out", out, *asked)
    facts = json.loads(text)
    W, H = _factors(out)
    assert code == cli.DONE
    hidden = np.isnan(known)
    truth = float(np.sqrt(np.mean((X - W @ H)[hidden] ** 2)))
    low, high = facts["error_interval"]
    assert low < facts["error"] < high
    # held out are 200 entries: their spread is a fifteenth, and the hidden ones have one of their own
    assert 0.5 <= facts["error"] / truth <= 2
    assert truth < 0.1 * X[hidden].std()
    code, text, _ = run("nmf", path, "--rank", RANK, "--rng", 0, *asked[:-2])
    assert "root mean square of the held-out entries (" in text


# --- files larger than the budget -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_files_larger_than_the_budget_are_streamed(tmp_path: Path, run, dtype: str) -> None:
    X = (100 * _data(4000)).astype(dtype)
    path, out = _save(tmp_path / "X.npy", X), tmp_path / "p.npz"
    asked = ("--rank", RANK, "--rng", 0, "--memory", "200K", "--passes", 50, "--tol", 1e-3)
    code, text, _ = run("nmf", path, *asked, "--out", out, "--report", "-")
    facts = json.loads(text)
    W, H = _factors(out)
    assert code == cli.DONE
    assert (facts["storage"], facts["solver"], facts["error_kind"]) == ("stream", "minibatch", "exact")
    assert W.shape == (4000, RANK)
    assert min(W.min(), H.min()) >= 0
    wide = X.astype(np.float64)
    assert facts["error"] == pytest.approx(_error(wide, W.astype(float), H.astype(float)), rel=1e-4)
    s = np.linalg.svd(wide, compute_uv=False)
    assert np.linalg.norm(s[RANK:]) < np.linalg.norm(s) * facts["error"] < np.linalg.norm(s[RANK - 1 :])
    # the codes are the best for these parts, and the stationarity is that of its definition
    codes = nonneg_codes(wide, H.astype(float))
    assert np.abs(W - codes).max() <= 1e-4 * codes.max()
    slope = codes.T @ (codes @ H - wide)
    free = np.where((H > 0) | (slope < 0), slope, 0)
    sizes = np.linalg.norm(free, axis=1) * np.linalg.norm(H, axis=1)
    assert facts["stationarity"] == pytest.approx(np.linalg.norm(sizes) / np.linalg.norm(wide) ** 2, rel=0.02)
    again = run("nmf", path, *asked, "--report", "-")[1]
    assert json.loads(again)["error"] == facts["error"]


def test_a_stream_that_was_not_read_often_enough(tmp_path: Path, run) -> None:
    path = _save(tmp_path / "X.npy", _data(2000))
    code, text, err = run("nmf", path, "--rank", RANK, "--rng", 0, "--memory", "100K", "--passes", 1)
    assert code == cli.FAILED
    assert "status   max_iter" in text
    assert "raise --passes, or loosen --tol" in err


# --- failures and mistakes --------------------------------------------------------------------------------------------


def test_what_misses_the_tolerance_is_written_and_told(tmp_path: Path, run) -> None:
    out = tmp_path / "p.npz"
    code, text, err = run("nmf", _save(tmp_path / "X.npy", _data()), "--rank", RANK, "--max-iter", 1, "--out", out)
    assert code == cli.FAILED
    assert "status   max_iter" in text
    assert "nmf ended with MAX_ITER: the iteration or rank limit" in err
    assert _factors(out)[0].shape == (M, RANK)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("X.npy",), "the following arguments are required: --rank"),
        (("X.npy", "--rank", 0), "argument --rank: must be at least 1, got 0"),
        (("none.npy", "--rank", 2), "none.npy: there is no such file"),
        (("X.npy", "--rank", 2, "--loss", "cubic"), "argument --loss: must be one of frobenius, kl, itakura-saito"),
        (("X.npy", "--rank", 2, "--loss", "nan"), "argument --loss: must be one of"),
        (("X.npy", "--rank", 2, "--loss", "kl", "--solver", "hals"), "solver must be one of auto, newton, mu"),
        (("zeros.npy", "--rank", 2, "--loss", "itakura-saito"), "X must be positive everywhere for loss="),
        (("X.npy", "--rank", 2, "--l1-ratio", 1.5), "argument --l1-ratio: must be between 0 and 1"),
        (("X.npy", "--rank", 2, "--alpha-w", -1), "argument --alpha-w: must be at least 0"),
        (("X.npy", "--rank", 2, "--out", "p.csv"), "--out must end in .npz, got 'p.csv'"),
        (("X.npy", "--rank", 2, "--passes", 3), "--passes must come with a file to stream"),
        (("X.npy", "--rank", 2, "--validation", 0.1), "--validation must come with --missing"),
        (("X.npy", "--rank", 2, "--missing", "nan", "--validation", 1), "--validation must be below 1"),
        (("X.npy", "--rank", 2, "--missing", "absent"), "--missing absent must come with a sparse file, got a dense"),
        (("S.npz", "--rank", 2, "--missing", "nan"), "--missing nan must come with a dense file, got a sparse one"),
        (("X.npy", "--rank", 2, "--missing", "nan", "--loss", "kl"), "--missing must come with --loss frobenius"),
        (("minus.npy", "--rank", 2), "X must be nonnegative"),
        (("minus.npy", "--rank", 2, "--memory", "1K"), "X must be nonnegative"),
        (("X.npy", "--rank", 2, "--memory", "1K", "--missing", "nan", "--starts", 3),
         "--missing, --starts must come with a file that fits in memory, got one to stream; raise --memory"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, run, monkeypatch, argv: tuple, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    X = _data(40)
    for name, A in {"X.npy": X, "minus.npy": X - 1, "zeros.npy": np.maximum(X - X.mean(), 0)}.items():
        np.save(name, A)
    sp.save_npz("S.npz", sp.csr_array(X))
    code, out, err = run("nmf", *argv)
    assert (code, out) == (cli.MISTAKE, "")
    assert message in err
