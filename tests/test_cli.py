"""The command line and the files it reads: results, streaming, every kind of bad file, exit codes, one-line errors."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import randla
from randla import cli, files
from randla._blocks import RowBlocks
from randla.files import FileError, load_matrix, write_atomically

ROOT = Path(__file__).resolve().parent.parent


def _low_rank(m: int = 300, n: int = 40, rank: int = 5, noise: float = 1e-6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)) + noise * rng.normal(size=(m, n))


def _save(path: Path, A: np.ndarray) -> Path:
    """Write `A` in the format that the ending of `path` names."""
    match path.suffix:
        case ".npy":
            np.save(path, A)
        case ".npz":
            np.savez(path, A=A)
        case ".mtx":
            scipy.io.mmwrite(path, A)
        case ".csv":
            np.savetxt(path, A, delimiter=",", fmt="%.17g")
        case ".parquet":
            pa = pytest.importorskip("pyarrow")
            pq = pytest.importorskip("pyarrow.parquet")
            pq.write_table(pa.table({f"x{j}": A[:, j] for j in range(A.shape[1])}), path)
    return path


FORMATS = ("A.npy", "A.npz", "A.mtx", "A.csv", "A.parquet")


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_matrix(tmp_path: Path, name: str) -> None:
    A = _low_rank(50, 7)
    found = load_matrix(_save(tmp_path / name, A))
    assert found.dtype == np.float64
    assert np.allclose(found, A, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["A.npy", "A.npz", "A.csv", "A.parquet"])
def test_large_files_are_streamed(tmp_path: Path, name: str) -> None:
    A = _low_rank(500, 7)
    rows = load_matrix(_save(tmp_path / name, A), memory=A.nbytes // 4)
    assert isinstance(rows, RowBlocks)
    assert rows.shape == A.shape
    for _ in range(2):
        blocks = [block for _, block in rows]
        assert len(blocks) > 4
        assert max(block.nbytes for block in blocks) <= A.nbytes // 4
        assert np.allclose(np.concatenate(blocks), A, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["A.npy", "A.npz"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16", "bool", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("memory", [None, 200])
def test_dtypes_orders_and_streaming_of_arrays(tmp_path: Path, name: str, dtype: str, order: str, memory) -> None:
    A = np.asarray(np.arange(60).reshape(12, 5) % 7, dtype=dtype, order=order)
    found = load_matrix(_save(tmp_path / name, A), memory=memory)
    whole = np.concatenate([block for _, block in found]) if isinstance(found, RowBlocks) else found
    assert whole.dtype == A.dtype.newbyteorder("=")
    assert whole.dtype.isnative
    assert np.array_equal(whole, A)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
def test_sparse_npz(tmp_path: Path, form: str) -> None:
    A = sp.random_array((20, 10), density=0.2, rng=np.random.default_rng(1), format=form)
    sp.save_npz(tmp_path / "A.npz", A)
    found = load_matrix(tmp_path / "A.npz")
    assert found.format == "csr"
    assert np.array_equal(found.toarray(), A.toarray())


def test_matrix_market_kinds(tmp_path: Path) -> None:
    (tmp_path / "s.mtx").write_text("%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n2 1\n3 3\n")
    found = load_matrix(tmp_path / "s.mtx")
    assert np.array_equal(found.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n3,4", [[1, 2], [3, 4]]),
        ("\ufeffa;b\r\n1;2\r\n\r\n3;4\r\n\r\n", [[1, 2], [3, 4]]),
        ('"a"\t"b"\n"1"\t2e0\n+3\t 4\n', [[1, 2], [3, 4]]),
        ("7\n8\n", [[7], [8]]),
        ("1,nan\ninf,-inf\n", [[1, np.nan], [np.inf, -np.inf]]),
    ],
)
def test_csv_dialects(tmp_path: Path, text: str, expected: list) -> None:
    (tmp_path / "A.csv").write_bytes(text.encode())
    assert np.array_equal(load_matrix(tmp_path / "A.csv"), expected, equal_nan=True)


def test_csv_header_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("0,1\n5,6\n")
    assert load_matrix(tmp_path / "A.csv").shape == (2, 2)
    assert np.array_equal(load_matrix(tmp_path / "A.csv", header="yes"), [[5, 6]])
    with pytest.raises(ValueError, match="header must be one of"):
        load_matrix(tmp_path / "A.csv", header="maybe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n3,x\n", "line 4, column 2: expected a number, got 'x'"),
        ("1,2\n3,4\n5\n", "line 3 must have 2 values, got 1"),
        ("1,2\n3,4,5\n", "line 2 must have 2 values, got 3"),
        ("1,2\n3,\n", "line 2, column 2: expected a number, got ''"),
        ("1;2\n3,5;4\n", "line 2, column 1: expected a number, got '3,5'"),
        ("1,x\n2,3\n", "line 1, column 2: expected a number, got 'x'"),
        (",a,b\n0,1,2\n", "index=False"),
        ("a,b\n", "header but no rows"),
        ("\n\n", "no rows"),
    ],
)
@pytest.mark.parametrize("memory", [None, 1])
def test_bad_csv_names_the_line(tmp_path: Path, text: str, message: str, memory) -> None:
    (tmp_path / "A.csv").write_text(text)
    with pytest.raises(FileError, match=re.escape(message)):
        list(load_matrix(tmp_path / "A.csv", memory=memory))


def test_bad_line_far_into_a_streamed_csv(tmp_path: Path) -> None:
    lines = [f"{i},{i}" for i in range(5000)]
    lines[4321] = "4321,oops"
    (tmp_path / "A.csv").write_text("\n".join(lines))
    with pytest.raises(FileError, match="line 4322, column 2"):
        list(load_matrix(tmp_path / "A.csv", memory=4000))


def test_binary_csv(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_bytes(b"1,2\n\xff\xfe\x00\n")
    with pytest.raises(FileError):
        load_matrix(tmp_path / "A.csv")


def test_parquet_columns(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(
        pa.table({"i": [1, None], "f": pa.array([0.5, 2], pa.float32()), "b": [True, False]}), tmp_path / "A.parquet"
    )
    assert np.array_equal(load_matrix(tmp_path / "A.parquet"), [[1, 0.5, 1], [np.nan, 2, 0]], equal_nan=True)
    pq.write_table(pa.table({"f": pa.array([0.5, 2], pa.float32())}), tmp_path / "B.parquet")
    assert load_matrix(tmp_path / "B.parquet").dtype == np.float32
    pq.write_table(pa.table({"i": [1], "name": ["x"]}), tmp_path / "C.parquet")
    with pytest.raises(FileError, match="column 'name' must be numeric, got string"):
        load_matrix(tmp_path / "C.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "A.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError, match=r"randla\[io\]"):
        load_matrix(tmp_path / "A.parquet")


# --- bad files: exit code 2, one line, no crash -----------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.97])
def test_truncated_files(tmp_path: Path, run, name: str, keep: float) -> None:
    path = _save(tmp_path / name, _low_rank(200, 9))
    data = path.read_bytes()[: int(keep * path.stat().st_size)]
    if name == "A.csv":
        data = data.rsplit(b"\n", 1)[0] + b"\n1,2" if keep else data  # cut at a line's end it would be a whole file
    path.write_bytes(data)
    code, out, err = run("svd", path, "--rank", 2)
    assert code == cli.MISTAKE
    assert str(path) in err
    assert out == ""


@pytest.mark.parametrize("name", FORMATS)
def test_garbage_in_files(tmp_path: Path, run, name: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(5).bytes(3000))
    assert run("svd", tmp_path / name, "--rank", 2)[0] == cli.MISTAKE


@pytest.mark.parametrize("memory", ["1G", "3K"])
def test_damage_inside_an_npz_member(tmp_path: Path, run, memory: str) -> None:
    path = tmp_path / "A.npz"
    np.savez_compressed(path, A=_low_rank(200, 9))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    code, _, err = run("svd", path, "--rank", 2, "--memory", memory)
    assert code == cli.MISTAKE
    assert "damaged" in err


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, "x"]], dtype=object), "never unpickled"),
        (np.array([["a", "b"]]), "numeric"),
        (np.zeros((2, 2), dtype=[("x", "f8")]), "numeric"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "numeric"),
        (np.zeros(5), "must be 2-D, got shape (5,)"),
        (np.zeros(()), "must be 2-D, got shape ()"),
        (np.zeros((2, 2, 2)), "must be 2-D"),
        (np.zeros((0, 3)), "at least one row and one column, got shape (0, 3)"),
        (np.zeros((3, 0)), "at least one row and one column"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_are_no_matrix(tmp_path: Path, run, array: np.ndarray, message: str, suffix: str) -> None:
    path = tmp_path / f"A.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez(path, A=array)
    code, _, err = run("svd", path, "--rank", 1)
    assert code == cli.MISTAKE
    assert message in err


def test_sparse_indices_out_of_range_are_refused(tmp_path: Path, run) -> None:
    A = sp.csr_array(np.eye(4))
    A.indices[2] = 10_000_000
    sp.save_npz(tmp_path / "A.npz", A)
    assert run("svd", tmp_path / "A.npz", "--rank", 1)[0] == cli.MISTAKE


def test_huge_header_is_not_believed(tmp_path: Path, run) -> None:
    np.save(tmp_path / "A.npy", np.zeros((2, 2)))
    data = (tmp_path / "A.npy").read_bytes().replace(b"(2, 2), }" + b" " * 24, b"(10000000000000, 2000000), }     ", 1)
    (tmp_path / "A.npy").write_bytes(data)
    code, _, err = run("svd", tmp_path / "A.npy", "--rank", 1)
    assert code == cli.MISTAKE
    assert "truncated" in err


def test_npz_with_several_arrays(tmp_path: Path, run) -> None:
    np.savez(tmp_path / "A.npz", first=_low_rank(20, 5), second=np.zeros(3))
    code, _, err = run("svd", tmp_path / "A.npz", "--rank", 1)
    assert code == cli.MISTAKE
    assert "first, second" in err
    assert run("svd", tmp_path / "A.npz", "--rank", 1, "--array", "first")[0] == cli.DONE
    assert "no array named 'third'" in run("svd", tmp_path / "A.npz", "--rank", 1, "--array", "third")[2]
    _save(tmp_path / "A.npy", np.eye(2))
    assert run("svd", tmp_path / "A.npy", "--rank", 1, "--array", "first")[0] == cli.MISTAKE
    with zipfile.ZipFile(tmp_path / "B.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    assert "got none" in run("svd", tmp_path / "B.npz", "--rank", 1)[2]


def test_missing_folder_directory_ending_permission(tmp_path: Path, run, monkeypatch) -> None:
    assert "there is no such file" in run("svd", tmp_path / "none.npy", "--rank", 1)[2]
    (tmp_path / "folder.npy").mkdir()
    assert "is a directory" in run("svd", tmp_path / "folder.npy", "--rank", 1)[2]
    (tmp_path / "A.dat").write_text("1")
    assert "must end in one of .npy" in run("svd", tmp_path / "A.dat", "--rank", 1)[2]
    path = _save(tmp_path / "A.npy", np.eye(3))

    def refuse(*_args: object, **_keywords: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        code, _, err = run("svd", path, "--rank", 1)
    assert code == cli.MISTAKE
    assert "permission denied" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path, run) -> None:
    os.mkfifo(tmp_path / "A.csv")
    assert "not a regular file" in run("svd", tmp_path / "A.csv", "--rank", 1)[2]


# --- svd --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("memory", ["1G", "20K"])
def test_svd_of_a_file(tmp_path: Path, run, name: str, memory: str) -> None:
    A = _low_rank()
    path = _save(tmp_path / name, A)
    out, report = tmp_path / "out.npz", tmp_path / "report.json"
    code, text, _ = run("svd", path, "--rank", 5, "--rng", 0, "--memory", memory, "--out", out, "--report", report)
    assert code == cli.DONE
    assert "rank     5" in text
    with np.load(out) as arrays:
        assert set(arrays.files) == {"U", "s", "Vh"}
        residual = np.linalg.norm(A - (arrays["U"] * arrays["s"]) @ arrays["Vh"]) / np.linalg.norm(A)
    facts = json.loads(report.read_text())
    assert facts["shape"] == [300, 40]
    assert facts["storage"] == ("stream" if memory == "20K" and name != "A.mtx" else "dense")
    assert facts["status"] == "CONVERGED"
    assert facts["rng"] == 0
    assert facts["versions"]["randla"] == randla.__version__
    assert len(facts["singular_values"]) == facts["rank"] == 5
    assert residual <= 1.5 * np.linalg.svd(A, compute_uv=False)[5:].sum() / np.linalg.norm(A)
    assert facts["error_bound"] >= residual
    assert sorted(os.listdir(tmp_path)) == sorted([name, "out.npz", "report.json"])


def test_svd_to_a_tolerance(tmp_path: Path, run) -> None:
    A = _low_rank(noise=1e-3)
    path = _save(tmp_path / "A.npy", A)
    code, text, _ = run("svd", path, "--tol", 0.01, "--rng", 1, "--report", "-")
    facts = json.loads(text)
    assert code == cli.DONE
    assert facts["rank"] >= 5
    assert facts["error"] <= 0.01


def test_centred_svd_writes_the_mean(tmp_path: Path, run) -> None:
    A = _low_rank() + 5
    path = _save(tmp_path / "A.npy", A)
    assert run("svd", path, "--rank", 5, "--center", "--rng", 0, "--out", tmp_path / "o.npz")[0] == cli.DONE
    with np.load(tmp_path / "o.npz") as arrays:
        assert np.allclose(arrays["mean"], A.mean(axis=0), rtol=1e-12)
        rebuilt = (arrays["U"] * arrays["s"]) @ arrays["Vh"] + arrays["mean"]
    assert np.linalg.norm(A - rebuilt) <= 1e-4 * np.linalg.norm(A)


def test_equal_seeds_give_equal_files_and_the_drawn_seed_is_told(tmp_path: Path, run) -> None:
    path = _save(tmp_path / "A.npy", _low_rank(noise=0.1))
    seed = json.loads(run("svd", path, "--rank", 2, "--report", "-", "--out", tmp_path / "1.npz")[1])["rng"]
    run("svd", path, "--rank", 2, "--rng", seed, "--out", tmp_path / "2.npz")
    with np.load(tmp_path / "1.npz") as first, np.load(tmp_path / "2.npz") as second:
        assert np.array_equal(first["U"], second["U"])


def test_missed_tolerance_is_exit_code_1_and_still_written(tmp_path: Path, run) -> None:
    path = _save(tmp_path / "A.npy", np.random.default_rng(0).normal(size=(100, 60)))
    code, _, err = run("svd", path, "--tol", 1e-3, "--max-rank", 5, "--rng", 0, "--out", tmp_path / "o.npz")
    assert code == cli.FAILED
    assert "MAX_ITER" in err
    assert (tmp_path / "o.npz").exists()


@pytest.mark.parametrize("memory", ["1G", "5K"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_data_end_with_a_status(tmp_path: Path, run, bad: float, memory: str) -> None:
    A = _low_rank(100, 20)
    A[70, 3] = bad
    path = _save(tmp_path / "A.npy", A)
    code, text, err = run("svd", path, "--rank", 3, "--rng", 0, "--memory", memory, "--report", "-")
    assert code == cli.FAILED
    assert "NONFINITE" in err
    assert json.loads(text)["status"] == "NONFINITE"
    assert json.loads(text)["error"] is None


def test_integers_complex_and_sparse(tmp_path: Path, run) -> None:
    for number, A in enumerate([np.arange(60).reshape(12, 5), _low_rank(30, 8) * (1 + 1j)]):
        path = _save(tmp_path / f"{number}.npy", A)
        assert run("svd", path, "--rank", 2, "--rng", 0)[0] == cli.DONE
    sp.save_npz(tmp_path / "S.npz", sp.random_array((80, 30), density=0.1, rng=np.random.default_rng(0)))
    code, text, _ = run("svd", tmp_path / "S.npz", "--rank", 3, "--rng", 0)
    assert code == cli.DONE
    assert "sparse, 240 entries" in text


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rank", 0),
        ("--rank", -3),
        ("--rank", "two"),
        ("--rank", 1000),
        ("--tol", 0),
        ("--tol", 2),
        ("--tol", "nan"),
        ("--rank", 2, "--tol", 0.1),
        ("--rank", 2, "--max-rank", 3),
        ("--rank", 2, "--rng", -1),
        ("--rank", 2, "--threads", 0),
        ("--rank", 2, "--passes", 0),
        ("--rank", 2, "--memory", "lots"),
        ("--rank", 2, "--memory", "0"),
        ("--rank", 2, "--bogus"),
        ("--ran", 2),
        ("--rank", 2, "--out", "out.txt"),
        ("--rank", 2, "--out", "/nowhere/at/all/out.npz"),
    ],
)
def test_wrong_options_are_the_users_mistake(tmp_path: Path, run, options: tuple) -> None:
    path = _save(tmp_path / "A.npy", _low_rank(30, 8))
    assert run("svd", path, *options)[0] == cli.MISTAKE


@pytest.mark.parametrize("argv", [(), ("bogus",), ("svd",), ("sketch",), ("tour", "extra")])
def test_wrong_commands(run, argv: tuple) -> None:
    assert run(*argv)[0] == cli.MISTAKE


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_the_input_is_never_overwritten(tmp_path: Path, run) -> None:
    path = tmp_path / "A.npz"
    np.savez(path, A=_low_rank())
    before = path.read_bytes()
    (tmp_path / "link.npz").symlink_to(path)
    for target in (path, tmp_path / "link.npz"):
        code, _, err = run("svd", path, "--rank", 2, "--out", target)
        assert code == cli.MISTAKE
        assert "is the input file" in err
    assert run("svd", path, "--rank", 2, "--report", path)[0] == cli.MISTAKE
    assert run("svd", path, "--rank", 2, "--out", tmp_path / "o.npz", "--report", tmp_path / "o.npz")[0] == cli.MISTAKE
    assert path.read_bytes() == before


def test_an_old_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")

    def fail(handle) -> None:
        handle.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(target, fail)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]
    write_atomically(target, lambda handle: handle.write(b"new"))
    assert target.read_bytes() == b"new"


def test_a_full_disk_is_exit_code_1(tmp_path: Path, run, monkeypatch) -> None:
    path = _save(tmp_path / "A.npy", _low_rank())

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    code, _, err = run("svd", path, "--rank", 2, "--out", tmp_path / "o.npz")
    assert code == cli.FAILED
    assert "No space left" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), cli.INTERRUPTED, "interrupted"),
        (MemoryError(), cli.FAILED, "not enough memory"),
        (RuntimeError("a\nb"), cli.FAILED, "RuntimeError: a b"),
    ],
)
def test_what_else_can_happen(tmp_path: Path, run, monkeypatch, error: BaseException, code: int, words: str) -> None:
    def fail(*_args: object, **_keywords: object) -> None:
        raise error

    path = _save(tmp_path / "A.npy", _low_rank())
    monkeypatch.setattr(files, "load_matrix", fail)
    found, _, err = run("svd", path, "--rank", 2)
    assert found == code
    assert words in err


# --- sketch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["sparse-sign", "gaussian", "countsketch"])
def test_streamed_and_loaded_sketches_agree(tmp_path: Path, run, axis: int, kind: str) -> None:
    A = _low_rank(400, 30)
    path = _save(tmp_path / "A.npy", A)
    found = []
    for memory in ("1G", "20K"):
        out = tmp_path / f"{memory}.npy"
        options = ("--size", 20, "--axis", axis, "--kind", kind, "--rng", 3, "--memory", memory)
        assert run("sketch", path, *options, "--out", out)[0] == cli.DONE
        found.append(np.load(out))
    expected = randla.sketch(A, 20, kind=kind, axis=axis, rng=3)
    assert found[0].shape == ((20, 30) if axis == 0 else (400, 20))
    for SA in found:
        assert np.linalg.norm(SA - expected) <= 1e-13 * np.linalg.norm(expected)


def test_automatic_sketch_says_what_it_chose(tmp_path: Path, run) -> None:
    A = _low_rank(3000, 4)
    path = _save(tmp_path / "A.npy", A)
    for memory in ("1G", "20K"):
        code, text, _ = run(
            "sketch",
            path,
            "--epsilon",
            0.5,
            "--rng",
            0,
            "--memory",
            memory,
            "--report",
            "-",
            "--out",
            tmp_path / "o.npz",
        )
        facts = json.loads(text)
        assert code == cli.DONE
        assert facts["operator"]
        assert facts["reason"]
        with np.load(tmp_path / "o.npz") as arrays:
            SA = arrays["sketch"]
        assert list(SA.shape) == facts["sketch_shape"]
        values = np.linalg.svd(SA @ np.linalg.inv(np.linalg.qr(A)[1]), compute_uv=False)
        assert values.max() <= 1.5
        assert values.min() >= 0.5


def test_sketch_of_nan_passes_it_on_and_says_so(tmp_path: Path, run) -> None:
    A = _low_rank(100, 5)
    A[3, 3] = np.nan
    code, _, err = run("sketch", _save(tmp_path / "A.npy", A), "--size", 10, "--rng", 0, "--out", tmp_path / "o.npy")
    assert code == cli.DONE
    assert "note: the sketch holds NaN" in err
    assert np.isnan(np.load(tmp_path / "o.npy")).any()


@pytest.mark.parametrize(
    "options", [(), ("--size", 0), ("--epsilon", 1.5), ("--size", 5, "--kind", "magic"), ("--size", 5, "--axis", 2)]
)
def test_wrong_sketch_options(tmp_path: Path, run, options: tuple) -> None:
    assert run("sketch", _save(tmp_path / "A.npy", np.eye(20)), *options)[0] == cli.MISTAKE


# --- info, version, the process ---------------------------------------------------------------------------------------


def test_info(run) -> None:
    code, text, _ = run("info")
    assert code == cli.DONE
    for word in ("python", "randla", "numpy", "scipy", "numba", "scikit-learn", "BLAS", "threads", "CUDA"):
        assert re.search(rf"^{word} ", text, re.MULTILINE), word
    facts = json.loads(run("info", "--json")[1])
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["threads"] >= 1
    assert facts["blas"]
    assert facts["cuda"]["available"] or facts["cuda"]["reason"]


def test_version_and_help(run) -> None:
    assert run("--version")[1].strip() == f"randla {randla.__version__}"
    for argv in (("--help",), ("svd", "--help"), ("sketch", "-h"), ("tour", "-h"), ("info", "-h")):
        code, text, _ = run(*argv)
        assert code == cli.DONE
        assert text.startswith("usage: randla")


def _process(*argv: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "randla", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_as_a_process(tmp_path: Path) -> None:
    path = _save(tmp_path / "A.npy", _low_rank())
    done = _process("svd", path, "--rank", 3, "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "status   converged" in done.stdout
    wrong = _process("svd", tmp_path / "none.npy", "--rank", 3)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1


def test_help_costs_no_heavy_import() -> None:
    heavy = "[m for m in ('numba', 'scipy', 'sklearn', 'matplotlib') if m in sys.modules]"
    code = f"import sys; from randla.cli import main; main(['--version']); print({heavy})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    path = _save(tmp_path / "A.npy", _low_rank(100, 60))
    command = f"{sys.executable} -m randla svd {path} --rank 50 --report - | head -c 1 > /dev/null"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == ""
