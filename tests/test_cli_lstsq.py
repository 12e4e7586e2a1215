"""The command `randla lstsq`: what it solves, from where it takes the target, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LinearRegression, Ridge

from randla import cli, files
from randla._blocks import RowBlocks
from randla.files import FileError, column_names, find_column, take_column

from .test_cli import FORMATS, _save


def _problem(m: int = 600, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(m, n)) + 7
    return X, X @ np.arange(1.0, n + 1) - 9 + rng.normal(size=m)


def _report(text: str) -> dict:
    return json.loads(text)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("memory", ["1G", "9K"])
def test_every_format_in_memory_and_streamed(tmp_path: Path, run, name: str, memory: str) -> None:
    X, y = _problem()
    path = _save(tmp_path / name, np.c_[X, y])
    out = tmp_path / "o.npz"
    code, text, _ = run("lstsq", path, "--target", -1, "--rng", 0, "--memory", memory, "--report", "-", "--out", out)
    assert code == cli.DONE
    facts, exact = _report(text), LinearRegression().fit(X, y)
    assert facts["storage"] == ("stream" if memory == "9K" and name != "A.mtx" else "dense")
    assert facts["shape"] == [600, 6]
    with np.load(out) as arrays:
        assert arrays["coef"].shape == (1, 5)
        assert np.allclose(arrays["coef"][0], exact.coef_, rtol=1e-12)
        assert np.allclose(arrays["intercept"], exact.intercept_, rtol=1e-11)
        assert arrays["coef"].tolist() == facts["coef"]
    assert facts["explained"][0] == pytest.approx(exact.score(X, y), rel=1e-12)
    assert facts["residual_norm"][0] == pytest.approx(np.linalg.norm(y - exact.predict(X)), rel=1e-12)
    assert facts["backward_error"][0] <= 1e-14
    assert (facts["status"], facts["rank"]) == ("CONVERGED", 5)


@pytest.mark.parametrize("memory", ["1G", "9K"])
@pytest.mark.parametrize("intercept", [False, True])
def test_ridge_with_weights_and_targets_in_a_file(tmp_path: Path, run, memory: str, intercept: bool) -> None:
    X, y = _problem()
    w = np.random.default_rng(1).random(600)
    paths = [_save(tmp_path / "X.npy", X), _save(tmp_path / "Y.csv", np.c_[y, 2 * y])]
    paths.append(_save(tmp_path / "w.npy", w[:, None]))
    options = ["--target", paths[1], "--weights", paths[2], "--alpha", 3, "--memory", memory, "--rng", 0]
    code, text, _ = run("lstsq", paths[0], *options, "--report", "-", *([] if intercept else ["--no-intercept"]))
    exact = Ridge(3.0, fit_intercept=intercept, solver="cholesky").fit(X, np.c_[y, 2 * y], w)
    facts = _report(text)
    assert code == cli.DONE
    assert np.allclose(facts["coef"], exact.coef_, rtol=1e-11)
    assert np.allclose(facts["intercept"], exact.intercept_, rtol=1e-10)
    assert facts["target"].endswith("Y.csv, 2 columns")


def test_sparse_data(tmp_path: Path, run) -> None:
    X = sp.random_array((3000, 60), density=0.1, rng=np.random.default_rng(0), format="csr")
    y = X @ np.arange(60.0) + 1
    sp.save_npz(tmp_path / "X.npz", X)
    code, text, _ = run(
        "lstsq", tmp_path / "X.npz", "--target", _save(tmp_path / "y.npy", y[:, None]), "--rng", 0, "--report", "-"
    )
    facts = _report(text)
    assert (code, facts["storage"], facts["method"]) == (cli.DONE, "sparse", "precondition")
    assert np.allclose(facts["coef"][0], np.arange(60.0), rtol=1e-11, atol=1e-11)
    assert facts["intercept"][0] == pytest.approx(1.0, rel=1e-10)
    assert run("lstsq", tmp_path / "X.npz", "--target", 3, "--rng", 0)[0] == cli.DONE


def test_the_table_names_columns(tmp_path: Path, run) -> None:
    X, y = _problem(50, 3)
    path = tmp_path / "houses.csv"
    np.savetxt(path, np.c_[X[:, :2], y, X[:, 2]], delimiter=";", header='"rooms";age;price; area', comments="")
    code, text, _ = run("lstsq", path, "--target", "price", "--rng", 0)
    assert code == cli.DONE
    coef = LinearRegression().fit(X, y).coef_
    assert f"coef     rooms {coef[0]:.5g}, age {coef[1]:.5g}, area {coef[2]:.5g}\n" in text
    assert "target   column 2 (price)\n" in text
    assert "matrix   50 x 3 float64, dense\n" in text
    assert "of the variance\n" in text
    assert "status   converged\n" in text
    assert run("lstsq", path, "--target", 2, "--rng", 0, "--no-intercept")[1].count("of the squares\n") == 1


def test_a_missed_tolerance_is_told(tmp_path: Path, run) -> None:
    X, y = _problem()
    path = _save(tmp_path / "A.npy", np.c_[X, y])
    code, text, err = run("lstsq", path, "--target", 5, "--method", "sketch", "--tol", 1e-9, "--size", 50, "--rng", 0)
    assert code == cli.FAILED
    assert "status   max_iter" in text
    assert "lstsq ended with MAX_ITER" in err


def test_nan_is_told(tmp_path: Path, run) -> None:
    X, y = _problem()
    X[3, 2] = np.nan
    code, text, err = run("lstsq", _save(tmp_path / "A.npy", np.c_[X, y]), "--target", 5, "--rng", 0, "--report", "-")
    assert code == cli.FAILED
    assert "NONFINITE" in err
    assert _report(text)["coef"] == [[None] * 5]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the following arguments are required: --target"),
        (("--target", 6), "the number of a column must be from -6 to 5, got 6"),
        (("--target", "price"), "--target must be a number, or a file, got 'price'"),
        (("--target", "none.npy"), "there is no such file"),
        (("--target", "short.npy"), "--target must have 600 rows"),
        (("--target", "sparse.npz"), "--target must be a dense file"),
        (("--target", 5, "--weights", "short.npy"), "--weights must hold 600 numbers >= 0"),
        (("--target", 5, "--weights", "negative.npy"), "not all zero, got 600 from -1 on"),
        (("--target", 5, "--alpha", -1), "argument --alpha: must be at least 0"),
        (("--target", 5, "--alpha", "x"), "argument --alpha: invalid number value"),
        (("--target", 5, "--tol", 2), "argument --tol: must be between 0 and 1"),
        (("--target", 5, "--method", "magic"), "argument --method: invalid choice"),
        (("--target", 5, "--size", 2), "sketch_size must be at least 5"),
        (("--target", 5, "--out", "o.npy"), "--out must end in .npz"),
    ],
)
def test_mistakes(tmp_path: Path, run, monkeypatch, options: tuple, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = _problem()
    np.save("A.npy", np.c_[X, y])
    np.save("short.npy", y[:10, None])
    np.save("negative.npy", -np.ones((600, 1)))
    sp.save_npz("sparse.npz", sp.csr_array(y[:, None]))
    code, out, err = run("lstsq", "A.npy", *options)
    assert (code, out) == (cli.MISTAKE, "")
    assert message in err


def test_a_single_column_leaves_nothing_to_fit_with(tmp_path: Path, run) -> None:
    code, _, err = run("lstsq", _save(tmp_path / "A.csv", np.arange(9.0)[:, None]), "--target", 0)
    assert code == cli.MISTAKE
    assert "--target must leave a column to fit with" in err


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, run) -> None:
    (tmp_path / "t.csv").write_text(",".join("abcdefghij") + "\n" + ",".join("0123456789") + "\n")
    code, _, err = run("lstsq", tmp_path / "t.csv", "--target", "k")
    assert code == cli.MISTAKE
    assert "--target must be one of a, b, c, d, e, f, g, h, ..., or a file, got 'k'" in err


# --- the parts in files.py --------------------------------------------------------------------------------------------


def test_names_of_columns(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"i": [1, 2], "f": [0.5, 2]}), tmp_path / "A.parquet")
    assert column_names(tmp_path / "A.parquet") == ["i", "f"]
    (tmp_path / "A.csv").write_text('\n"a b",2\n1,2\n')
    assert column_names(tmp_path / "A.csv") is None, "one of the fields is a number"
    assert column_names(tmp_path / "A.csv", header="yes") == ["a b", "2"]
    assert column_names(_save(tmp_path / "A.npy", np.eye(2))) is None
    with pytest.raises(FileError, match="no such file"):
        column_names(tmp_path / "B.csv")
    (tmp_path / "B.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(FileError, match=r"B.parquet: not a Parquet file"):
        column_names(tmp_path / "B.parquet")


def test_columns_by_name_and_number() -> None:
    assert find_column("b", ["a", "b"], 2) == 1
    assert find_column("-2", ["a", "b"], 2) == 0
    assert find_column("1", ["1", "0"], 2) == 0, "a name comes first"
    assert find_column("a", ["a", "a"], 2) is None, "a name that is not unique names nothing"
    assert find_column("x", None, 2) is None
    with pytest.raises(FileError, match="from -2 to 1, got 2"):
        find_column("2", None, 2)


@pytest.mark.parametrize("index", [0, 2, 3])
def test_a_column_is_taken_out(index: int) -> None:
    A = np.arange(20.0).reshape(5, 4)
    kinds = {
        "dense": A,
        "sparse": sp.csr_array(A),
        "blocks": RowBlocks.from_array(A, block_bytes=64),
    }
    for kind, matrix in kinds.items():
        rest, column = take_column(matrix, index)
        whole = np.concatenate([block for _, block in rest]) if kind == "blocks" else rest
        whole = whole.toarray() if kind == "sparse" else whole
        assert type(rest) is type(matrix)
        assert np.array_equal(whole, np.delete(A, index, axis=1))
        assert np.array_equal(column, A[:, index])


def test_the_file_is_read_before_the_work(tmp_path: Path, run, monkeypatch) -> None:
    """A folder that is missing is seen before anything is read."""
    monkeypatch.setattr(files, "load_matrix", lambda *_args, **_keywords: pytest.fail("read too early"))
    code, _, err = run("lstsq", tmp_path / "A.npy", "--target", 0, "--out", tmp_path / "none" / "o.npz")
    assert code == cli.MISTAKE
    assert "there is no folder" in err
