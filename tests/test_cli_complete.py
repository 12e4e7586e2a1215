"""The command `randla complete`: what it fits and tells, the file of a model, predictions, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from randla import cli
from randla.cli.models import load_model
from randla.completion.als import complete
from randla.datasets import synthetic_ratings
from randla.ratings import load_pairs, load_ratings

from .conftest import tolerance

M, N, NNZ = 120, 80, 3000


@pytest.fixture(scope="module")
def made():
    return synthetic_ratings(M, N, NNZ, rank=3, noise=0.2, scale=(1, 5, 0.5), activity=0.5, rng=0)


@pytest.fixture
def path(tmp_path: Path, made) -> Path:
    return _write(tmp_path / "u.data", made.ratings)


def _write(path: Path, matrix) -> Path:
    """Ratings as u.data: users from 1 on, items as i1, i2, ..., a timestamp for each."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    entries = enumerate(zip(rows, matrix.indices, matrix.data, strict=True))
    path.write_text("".join(f"{i + 1}\ti{j + 1}\t{v:g}\t{880_000_000 + p}\n" for p, (i, j, v) in entries))
    return path


OPTIONS = ("--rank", 3, "--reg", 0.02, "--rng", 0)


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_a_model_is_fitted_judged_and_written(tmp_path: Path, run, path: Path, made) -> None:
    out = tmp_path / "model.npz"
    code, text, _ = run("complete", path, *OPTIONS, "--validation", 0.2, "--out", out, "--threads", 1)
    assert code == cli.DONE
    lines = text.splitlines()
    assert lines[0] == f"ratings  {M} users x {N} items, 3,000 ratings from 1 to 5, with timestamps, float64"
    ratings = load_ratings(path)
    exact = complete(ratings.matrix, 3, reg=0.02, validation_fraction=0.2, rng=0)
    sweeps = [line for line in lines if line.startswith("sweep")]
    assert len(sweeps) == exact.n_iter
    assert sweeps[0].endswith(f"held out {exact.validation_history[0]:.4f}")
    # the error of the entries that the fit did not see, by the definition
    fitted = exact.training.observations
    unseen = sp.csr_array(ratings.matrix, copy=True)
    unseen.data[:] = 1
    unseen = (unseen - sp.csr_array((np.ones(fitted.nnz), fitted.indices, fitted.indptr), shape=fitted.shape)).tocoo()
    unseen.eliminate_zeros()
    rows, cols = unseen.coords
    off = exact.predict(rows, cols) - np.asarray(ratings.matrix[rows, cols]).ravel()
    rmse, mae = np.sqrt(np.mean(off**2)), np.mean(np.abs(off))
    assert rmse == pytest.approx(exact.error, rel=tolerance(np.float64, rows.size))
    assert f"held out RMSE {rmse:.4f}, MAE {mae:.4f} over {rows.size:,} of 3,000 entries; at random" in text
    assert "status   converged\n" in text
    assert text.endswith(f"written  {out}\n")
    with np.load(out, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["row_factors"], exact.row_factors)
        assert np.array_equal(arrays["user_ids"], np.arange(1, M + 1))
        assert set(arrays["item_ids"]) <= {f"i{j}" for j in range(1, N + 1)}


def test_the_report(tmp_path: Path, run, path: Path) -> None:
    report = tmp_path / "r.json"
    assert run("complete", path, *OPTIONS, "--report", report, "--predict", "7,i3")[0] == cli.DONE
    code, text, _ = run("complete", path, *OPTIONS, "--report", "-", "--predict", "7,i3")
    assert code == cli.DONE
    facts = json.loads(text)  # no progress between the lines
    assert {**facts, "seconds": 0} == {**json.loads(report.read_text()), "seconds": 0}
    assert (facts["shape"], facts["nnz"], facts["rank"], facts["reg"], facts["bias"]) == ([M, N], NNZ, 3, 0.02, True)
    assert facts["held_out"]["n"] + facts["fitted"] == NNZ
    assert facts["held_out"]["rmse"] == pytest.approx(min(facts["validation_history"]), rel=1e-9)
    assert facts["status"] == "CONVERGED"
    (told,) = facts["predictions"]
    assert (told["user"], told["item"], told["user_known"], told["item_known"]) == ("7", "i3", True, True)
    assert told["std"] > 0


def test_options_reach_the_fit(run, path: Path) -> None:
    def history(*options: object) -> list[float]:
        code, text, _ = run("complete", path, *OPTIONS, *options, "--report", "-")
        assert code == cli.DONE
        return json.loads(text)["history"]

    plain = history("--validation", 0)
    ratings = load_ratings(path).matrix
    for options, keywords in (
        ((), {}),
        (("--no-bias",), {"bias": False}),
        (("--loss", "huber"), {"loss": "huber"}),
        (("--reg", 0.3), {"reg": 0.3}),
        (("--rank", 1), {"rank": 1}),
        (("--tol", 0.1), {"tol": 0.1}),
    ):
        exact = complete(ratings, **{"rank": 3, "reg": 0.02, "rng": 0, **keywords})
        found = history("--validation", 0, *options)
        assert found == pytest.approx(list(exact.history), rel=1e-12)
        assert (found == plain) == (not keywords)


def test_nothing_held_out(run, path: Path) -> None:
    code, text, _ = run("complete", path, *OPTIONS, "--validation", 0)
    assert code == cli.DONE
    assert "held out" not in text
    assert "estimated from 3,000 entries" in text


def test_held_out_by_time(run, path: Path) -> None:
    code, text, _ = run("complete", path, *OPTIONS, "--validation", 0.2, "--by-time", "--report", "-")
    assert code == cli.DONE
    train, test = load_ratings(path).split_by_time(0.2)
    facts = json.loads(text)
    assert (facts["fitted"], facts["held_out"]["n"]) == (train.matrix.nnz, test.matrix.nnz)
    exact = complete(train.matrix, 3, reg=0.02, rng=0)
    rows = np.repeat(np.arange(M), np.diff(test.matrix.indptr))
    off = exact.predict(rows, test.matrix.indices) - test.matrix.data
    assert facts["held_out"]["mae"] == pytest.approx(np.mean(np.abs(off)), rel=1e-9)


def test_a_limit_that_came_first_is_told(tmp_path: Path, run, path: Path) -> None:
    out = tmp_path / "m.npz"
    code, text, err = run("complete", path, *OPTIONS, "--max-iter", 1, "--tol", 1e-9, "--validation", 0, "--out", out)
    assert code == cli.FAILED
    assert "status   max_iter" in text
    assert "complete ended with MAX_ITER" in err
    assert load_model(out).result.converged is False


@pytest.mark.parametrize("name", ["A.npz", "A.mtx", "A.npy"])
def test_matrices(tmp_path: Path, run, made, name: str) -> None:
    target = tmp_path / name
    matrix = made.ratings.copy()
    matrix.data[0] = 0.0  # a stored zero is an observation
    match target.suffix:
        case ".npz":
            sp.save_npz(target, matrix)
        case ".mtx":
            scipy.io.mmwrite(target, matrix)
        case ".npy":
            dense = np.full(matrix.shape, np.nan)
            dense[np.repeat(np.arange(M), np.diff(matrix.indptr)), matrix.indices] = matrix.data
            np.save(target, dense)
    code, text, _ = run("complete", target, *OPTIONS, "--validation", 0, "--predict", "0,5", "--report", "-")
    assert code == cli.DONE
    facts = json.loads(text)
    exact = complete(matrix, 3, reg=0.02, rng=0)
    assert (facts["nnz"], facts["shape"]) == (NNZ, [M, N])
    assert facts["predictions"][0]["prediction"] == pytest.approx(float(exact.predict(0, 5)), rel=1e-9)


def test_a_matrix_that_stores_an_entry_twice(tmp_path: Path, run) -> None:
    text = "%%MatrixMarket matrix coordinate real general\n2 2 3\n1 1 1.0\n1 1 1.0\n2 2 1.0\n"
    (tmp_path / "A.mtx").write_text(text)
    code, _, err = run("complete", tmp_path / "A.mtx", "--rank", 1)
    assert code == cli.MISTAKE
    assert "1 of 3 entries are stored more than once" in err


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_fit_goes_on_from_its_checkpoint(tmp_path: Path, run, path: Path) -> None:
    state, whole, parts = tmp_path / "state", tmp_path / "whole.npz", tmp_path / "parts.npz"
    options = (*OPTIONS, "--validation", 0.1, "--tol", 1e-6)
    assert run("complete", path, *options, "--out", whole)[0] == cli.DONE
    code, text, _ = run("complete", path, *options, "--max-iter", 2, "--checkpoint", state)
    assert code == cli.FAILED
    assert text.count("sweep  ") == 2
    code, text, _ = run("complete", path, *options, "--checkpoint", state, "--out", parts)
    assert code == cli.DONE
    assert "sweep    3:" in text
    assert "sweep    2:" not in text
    with np.load(whole) as first, np.load(parts) as second:
        assert all(np.array_equal(first[name], second[name]) for name in first.files)
    code, _, err = run("complete", path, *options, "--rank", 2, "--checkpoint", state)
    assert code == cli.MISTAKE
    assert "checkpoint must belong to these data and parameters" in err


@pytest.mark.slow
def test_a_killed_run_is_continued(tmp_path: Path) -> None:
    """SIGKILL in the middle of the sweeps: the second run ends with the bits of one that was never stopped."""
    path = _write(tmp_path / "u.data", synthetic_ratings(4000, 3000, 400_000, rank=5, rng=0).ratings)
    state, parts, whole = tmp_path / "state", tmp_path / "parts.npz", tmp_path / "whole.npz"
    command = [sys.executable, "-m", "randla", "complete", str(path), "--rank", "30", "--tol", "1e-12", "--max-iter",
               "8", "--validation", "0", "--threads", "1"]  # fmt: skip
    with subprocess.Popen(
        [*command, "--checkpoint", str(state), "--out", str(parts)], stdout=subprocess.DEVNULL
    ) as child:
        deadline = time.monotonic() + 60
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    assert state.exists()
    assert not parts.exists()
    second = subprocess.run([*command, "--checkpoint", str(state), "--out", str(parts)], capture_output=True, text=True)
    first = subprocess.run([*command, "--out", str(whole)], capture_output=True, text=True)
    assert first.stdout.count("sweep  ") == 8
    assert 0 < second.stdout.count("sweep  ") < 8
    with np.load(whole) as one, np.load(parts) as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_of_a_saved_model(tmp_path: Path, run, path: Path) -> None:
    out = tmp_path / "m.npz"
    asked = ("--predict", "7,i3", "--predict", "1,i80", "--predict", "0,i3", "--predict", "7,x", "--predict=-1,x")
    first = run("complete", path, *OPTIONS, "--out", out, *asked)
    second = run("complete", "--model", out, *asked)
    assert first[0] == second[0] == cli.DONE
    told = [line for line in first[1].splitlines() if line.startswith("predict")]
    assert len(told) == 5
    assert told == [line for line in second[1].splitlines() if line.startswith("predict")]
    exact = complete(load_ratings(path).matrix, 3, reg=0.02, validation_fraction=0.1, rng=0)
    ratings = load_ratings(path)
    i, j = ratings.users(["7", "1"]), ratings.items(["i3", "i80"])
    value, std = exact.predict(i, j), exact.predict_std(i, j)
    assert told[0] == f"predict  7,i3: {value[0]:.4f} +- {std[0]:.4f}"
    assert told[2].startswith(f"predict  0,i3: {exact.mean + exact.col_bias[j[0]]:.4f} +- ")
    assert told[2].endswith("(unknown user)")
    assert told[3].startswith(f"predict  7,x: {exact.mean + exact.row_bias[i[0]]:.4f} +- ")
    assert told[3].endswith("(unknown item)")
    assert told[4].startswith(f"predict  -1,x: {exact.mean:.4f} +- ")
    assert told[4].endswith("(unknown user and item)")
    spread = [float(line.split("+- ")[1].split()[0]) for line in told]
    assert min(spread[2:]) > max(spread[:2])  # what is not known is less sure


def test_predictions_without_biases_and_with_a_robust_loss(tmp_path: Path, run, path: Path) -> None:
    out = tmp_path / "m.npz"
    for options in (("--no-bias",), ("--loss", "huber"), ("--no-bias", "--loss", "absolute")):
        first = run("complete", path, *OPTIONS, *options, "--out", out, "--predict", "5,i9")[1]
        second = run("complete", "--model", out, "--predict", "5,i9")[1]
        assert first.splitlines()[-2] == second.splitlines()[-1]
        assert np.isfinite(float(first.splitlines()[-2].split("+- ")[1]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "7,i3\n\n1,i80\n"),
        ("pairs.csv", "userId,movieId\n7,i3\n1,i80\n"),
        ("pairs.csv", "item,user,rating\ni3,7,4\ni80,1,5"),
        ("u1.test", "7\ti3\t4\t880000000\r\n1\ti80\t5\t880000001\r\n"),
        ("pairs.dat", "7::i3\n1::i80\n"),
        ("quoted.csv", '"user","item"\n"7","i3"\n"1","i80"\n'),
    ],
)
def test_pairs_in_files(tmp_path: Path, run, path: Path, name: str, text: str) -> None:
    pairs = tmp_path / name
    pairs.write_text(text)
    assert load_pairs(pairs) == [("7", "i3"), ("1", "i80")]
    code, out, _ = run("complete", path, *OPTIONS, "--predict", pairs, "--predict", "2,i2")
    assert code == cli.DONE
    asked = [line.split(":")[0] for line in out.splitlines() if line.startswith("predict")]
    assert asked == ["predict  7,i3", "predict  1,i80", "predict  2,i2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,i3\n7\n", "line 2 must have a user and an item, got '7'"),
        ("7,i3\n7,\n", "line 2 must have a user and an item, got '7,'"),
        ("user,stars\n7,3\n", "line 1: the header must name one column for the item"),
        ("user,item\n\n", "the file has no pairs"),
        ("7,i3\n\x007,i3\n", "line 2 is no text, it has a byte 0x00"),
    ],
)
def test_wrong_pairs(tmp_path: Path, run, path: Path, text: str, message: str) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(text)
    code, _, err = run("complete", path, "--predict", pairs)
    assert code == cli.MISTAKE
    assert message in err


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "one of RATINGS and --model must be given, got none"),
        (("u.data", "--model", "m.npz"), "one of RATINGS and --model must be given, got both"),
        (("--model", "m.npz"), "--model must come with --predict"),
        (
            ("--model", "m.npz", "--rank", 3, "--by-time", "--predict", "1,2"),
            "--model must come without --rank, --by-time",
        ),
        (("--model", "m.npz", "--out", "n.npz", "--predict", "1,2"), "--model must come without --out"),
        (("--model", "none.npz", "--predict", "1,2"), "there is no such file"),
        (("none.data",), "none.data: there is no such file"),
        (("bad.data",), "bad.data: line 2: the rating must be a finite number, got 'x'"),
        (("dense.npz", "--by-time"), "--by-time must come with a file of ratings that has timestamps"),
        (("plain.csv", "--by-time", "--rank", 1), "ratings must have timestamps to be split by time"),
        (("u.data", "--by-time", "--validation", 0), "--by-time must come with a --validation above 0"),
        (("u.data", "--rank", 0), "argument --rank: must be at least 1, got 0"),
        (("u.data", "--rank", 81), "rank must be in [0, 80], got 81"),
        (("u.data", "--validation", 1), "argument --validation: must be between 0 and 1"),
        (("u.data", "--reg", -1), "argument --reg: must be at least 0"),
        (("u.data", "--loss", "cubic"), "argument --loss: invalid choice"),
        (("u.data", "--predict", "7"), "--predict must be USER,ITEM or a file of pairs, got '7'"),
        (("u.data", "--predict", "7,"), "--predict must be USER,ITEM or a file of pairs, got '7,'"),
        (("u.data", "--out", "m.csv"), "--out must end in .npz, got 'm.csv'"),
        (("u.data", "--out", "no/m.npz"), "there is no folder"),
        (("u.data", "--checkpoint", "no/state"), "there is no folder"),
        (("u.data", "--checkpoint", "u.data"), "is the input file"),
        (("u.data", "--checkpoint", "a.npz", "--out", "a.npz"), "--checkpoint must be a file of its own"),
        (("u.data", "--checkpoint", "bad.data"), "checkpoint must be a file that complete() wrote"),
        (("u.data", "--format", "xml"), "argument --format: invalid choice"),
    ],
)
def test_mistakes(tmp_path: Path, run, path: Path, monkeypatch, argv: tuple, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.data").write_text("1\t2\t3\n1\t3\tx\n")
    Path("plain.csv").write_text("1,2,3\n1,3,4\n2,3,4\n")
    np.savez("dense.npz", A=np.ones((4, 3)))
    code, out, err = run("complete", *argv)
    assert code == cli.MISTAKE
    assert "sweep" not in out
    assert message in err


def test_damaged_models(tmp_path: Path, run, path: Path) -> None:
    out, bad = tmp_path / "m.npz", tmp_path / "bad.npz"
    assert run("complete", path, *OPTIONS, "--out", out)[0] == cli.DONE
    with np.load(out) as archive:
        arrays = dict(archive)
    far = arrays["seen_indices"].copy()
    far[0] = N
    cases = [
        ({}, ("randla_completion_model",), "not a model file; write one with"),
        ({}, ("mean",), "but mean is missing"),
        ({"randla_completion_model": np.array(2)}, (), "layout must be number 1, got 2"),
        ({"row_factors": arrays["row_factors"][1:]}, (), "contradict each other"),
        ({"col_bias": arrays["col_bias"][1:]}, (), "contradict each other"),
        ({"seen_indices": far}, (), "contradict each other"),
        ({"seen_indptr": arrays["seen_indptr"][::-1]}, (), "contradict each other"),
        ({"status": np.array("FINE")}, (), "contradict each other"),
        ({"user_ids": np.array([{}], object)}, (), "not a model file, or a damaged one"),
    ]
    for changed, dropped, message in cases:
        np.savez(bad, **{name: array for name, array in {**arrays, **changed}.items() if name not in dropped})
        code, _, err = run("complete", "--model", bad, "--predict", "1,i1")
        assert code == cli.MISTAKE
        assert message in err
    data = out.read_bytes()
    for wrong in (data[: len(data) // 2], b"not an archive", np.lib.format.magic(1, 0)):
        bad.write_bytes(wrong)
        code, _, err = run("complete", "--model", bad, "--predict", "1,i1")
        assert code == cli.MISTAKE
        assert "not a model file, or a damaged one" in err
