"""The tour: its measurements are right, its jobs are found, its page stands alone, and nobody is disturbed by it."""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from randla import cli
from randla.files import FileError
from randla.tour import find_jobs, run_tour
from randla.tour import progress as progress_module
from randla.tour.compare import Comparison, best_errors, relative_error
from randla.tour.job import Row
from randla.tour.jobs import patches, words
from randla.tour.measure import _traced, measure, memory_method
from randla.tour.progress import Lines, Silent, watch
from randla.tour.table import cells

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")


def _factors(m: int = 60, n: int = 20, rank: int = 4):
    A = np.random.default_rng(0).normal(size=(m, n))
    U, s, Vh = np.linalg.svd(A, full_matrices=False)
    return A, s, (U[:, :rank], s[:rank], Vh[:rank])


# --- what the table says ----------------------------------------------------------------------------------------------


def test_relative_error_is_that_of_the_definition() -> None:
    A, s, (U, d, Vh) = _factors()
    truth = np.linalg.norm(A - (U * d) @ Vh) / np.linalg.norm(A)
    assert relative_error(A, U, d, Vh) == pytest.approx(truth, rel=1e-12)
    assert relative_error(sp.csr_array(A), U, d, Vh) == pytest.approx(truth, rel=1e-12)
    assert best_errors(s)[3] == pytest.approx(truth, rel=1e-12)
    assert best_errors(s[:4], norm=float(np.linalg.norm(A)))[3] == pytest.approx(truth, rel=1e-12)
    mean = A.mean(axis=0)
    centred = np.linalg.norm(A - mean - (U * d) @ Vh) / np.linalg.norm(A - mean)
    assert relative_error(A, U, d, Vh, mean=mean) == pytest.approx(centred, rel=1e-12)


def test_relative_error_notices_factors_that_are_no_svd() -> None:
    A, _, (U, d, Vh) = _factors()
    wrong = U + 0.1  # not orthonormal: ||A||^2 - ||s||^2 would not see it
    truth = np.linalg.norm(A - (wrong * d) @ Vh) / np.linalg.norm(A)
    assert relative_error(sp.csr_array(A), wrong, d, Vh) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("how", ["default", "traced"])
def test_peak_memory_of_a_known_allocation(how: str) -> None:
    def call() -> float:
        first = np.ones(5_000_000)  # 40 MB; the sum below adds 40 more while both live
        return float((first + 1).sum())

    peak = measure(call, budget=0).peak_bytes if how == "default" else _traced(call)[2]
    assert 78e6 <= peak <= 95e6
    assert memory_method()


def test_measure_takes_the_least_time_and_calls_no_more_than_it_may() -> None:
    calls = []
    measured = measure(lambda: calls.append(1) or len(calls), budget=10, max_repeats=4)
    assert measured.value == 1
    assert len(calls) >= 4
    assert 0 < measured.seconds < 1


def test_comparison_judges_against_the_first_row() -> None:
    A, s, factors = _factors()
    task = Comparison(A, best_errors(s))
    task.add("exact", lambda: factors)
    bad = (factors[0], 0.5 * factors[1], factors[2])
    task.add("half", lambda: bad, note=lambda value: f"{len(value)} factors")
    exact, half = task.rows
    assert exact.excess == pytest.approx(1, rel=1e-12)
    assert exact.speedup is None
    assert half.excess > 1.05
    assert half.speedup == pytest.approx(exact.seconds / half.seconds)
    assert half.note == "3 factors"


def test_cells() -> None:
    row = Row("m", True, 0.25, 12_000_000, 0.5, estimate=0.25, best=0.5, reference_seconds=5.0)
    assert cells(row) == ("m", "250 ms", "20x", "12 MB", "0.5000", "0.2500", "1.0000")
    assert cells(Row("m", False, 2.0, 10, 1e-5)) == ("m", "2.00 s", "", "< 1 MB", "1.0e-05", "", "")


# --- data -------------------------------------------------------------------------------------------------------------


def test_patches_rebuild_the_photograph() -> None:
    image, A = patches.load_patches(1)
    assert A.shape == (265_860, 192)
    assert A.dtype == np.float32
    assert np.array_equal(A[0].reshape(8, 8, 3), image[:8, :8])
    corner = np.ascontiguousarray(A.reshape(420, 633, 192)[:20, :30]).reshape(-1, 192)
    rebuilt = patches.rebuild(corner, np.eye(192, dtype=np.float32), (27, 37))
    assert np.abs(rebuilt - image[:27, :37]).max() <= 64 * np.finfo(np.float32).eps


def test_docstrings_are_read_and_never_imported(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "loud_package"
    (package / "tests").mkdir(parents=True)
    text = "Long enough to count as documentation. " * 3
    (package / "__init__.py").write_text(f'raise RuntimeError("imported")\n\ndef f():\n    """{text}"""\n')
    (package / "twice.py").write_text(
        f'def g():\n    """{text}"""\n\nclass C:\n    """{text} Other."""\n    x = """no"""\n'
    )
    (package / "broken.py").write_text(f'"""{text} broken"""\ndef (\n')
    (package / "tests" / "test_a.py").write_text(f'"""{text} tests"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    found = words.read_docstrings(("loud_package", "package_that_is_not_there"))
    assert found == [text, f"{text} Other."]
    assert "loud_package" not in sys.modules


def test_nearest_words() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [1, 0.01], [0, 0]])
    names = np.array(["a", "b", "c", "d", "e"])
    found = words.nearest(vectors.T, np.ones(2), names, "a", 2, allowed=np.array([True, True, True, False, True]))
    assert [name for name, _ in found] == ["b", "c"]
    assert found[0][1] == pytest.approx(0.9 / np.hypot(0.9, 0.1))


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_found_in_order() -> None:
    names = [job.name for job in find_jobs()]
    assert [name for name in names if name in ("patches", "words", "digits")] == ["patches", "words", "digits"]
    assert len(set(names)) == len(names)


_ONE_FILE = """
    import numpy as np
    from randla.tour.job import Figure, Job, Outcome, Row, Table

    def _run(quick, progress):
        progress.step("only step")
        row = Row("<method>", True, 0.5, 10**7, 0.25, estimate=0.26, best=0.25, note="quick" if quick else "full")
        figure = Figure("extra-picture", "A line & more.", lambda figure: figure.subplots().plot([1, 2, 3]))
        photo = Figure("extra-photo", "A photo.", lambda figure: figure.subplots().imshow(np.eye(3)), photo=True)
        table = Table("Words", ("one", "two"), (("a", "<b>"),))
        return Outcome("3 x 3", "a test", (row,), ("First.", "Second."), (figure, photo), (table,))

    JOB = Job("extra", "An extra job", order=1, n_steps=1, run=_run)
"""


@pytest.fixture
def extra_job(tmp_path: Path, monkeypatch):
    """A job added as one file."""
    import randla.tour.jobs as package

    folder = tmp_path / "more_jobs"
    folder.mkdir()
    (folder / "extra.py").write_text(textwrap.dedent(_ONE_FILE))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield
    sys.modules.pop("randla.tour.jobs.extra", None)


@pytest.mark.usefixtures("extra_job")
def test_a_job_is_one_file_and_the_page_stands_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "out"
    assert run_tour(out, quick=True, only=["extra"]) == 0
    text, err = capsys.readouterr()
    assert err == ""  # nobody watches a captured stderr
    assert "An extra job: 3 x 3; a test" in text
    assert "(quick)" in text
    assert sorted(path.name for path in out.iterdir()) == [
        "extra-photo.png",
        "extra-picture.png",
        "index.html",
        "tour.json",
    ]
    assert (out / "extra-picture.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert not re.findall(r'(?:src|href|srcset)="(?!data:image/png;base64,|#extra")', page)
    assert page.count("data:image/png") == 3  # light, dark, and one photo
    for piece in ("&lt;method&gt;", "A line &amp; more.", "&lt;b&gt;", 'name="viewport"', "prefers-color-scheme: dark"):
        assert piece in page
    record = json.loads((out / "tour.json").read_text())
    assert record["quick"] is True
    assert record["jobs"][0]["rows"][0]["excess"] == 1.0
    assert record["versions"]["numpy"] == np.__version__


def test_digits_for_real(tmp_path: Path, capsys) -> None:
    assert cli.main(["tour", "--quick", "--job", "digits", "--out", str(tmp_path)]) == 0
    assert "Handwritten digits" in capsys.readouterr().out
    (job,) = json.loads((tmp_path / "tour.json").read_text())["jobs"]
    ours = [row for row in job["rows"] if row["ours"]]
    assert ours
    for row in ours:
        assert 1 - 1e-12 <= row["excess"] <= 1.01
        assert 0.5 <= row["estimate"] / row["error"] <= 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".html", ".json"}


def test_patches_and_words_compare_fairly(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    steps = Silent()
    *_, rows = patches._compare(patches.load_patches(16)[1], steps, budget=0)
    texts = [f"alpha{i % 7} beta{i % 11} gamma{i % 13} delta{i % 5}" for i in range(300)]
    letters = sorted({word for text in texts for word in text.split()})
    A = sp.csr_array(np.array([[float(word in text.split()) for word in letters] for text in texts]))
    rows += words._compare(A, 6, steps, budget=0)[-1]
    assert len(rows) >= 10
    for row in rows:
        few_passes = "n_passes" in row.method  # cost accuracy; the tour shows it
        assert 1 - 1e-5 <= row.excess <= (1.5 if few_passes else 1.02), row
        if row.ours:
            assert 0.5 <= row.estimate / row.error <= 2, row


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_wrong_job_and_wrong_folder(tmp_path: Path, capsys) -> None:
    assert cli.main(["tour", "--job", "nonsense", "--out", str(tmp_path / "o")]) == cli.MISTAKE
    assert "job must be one of" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["tour", "--job", "digits", "--out", str(tmp_path / "file")]) == cli.MISTAKE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("module", "package"), [("matplotlib", "matplotlib"), ("PIL", "pillow")])
def test_missing_extra_is_named(tmp_path: Path, monkeypatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FileError, match=rf"needs {package}.*randla\[plot\]"):
        run_tour(tmp_path, only=["digits"])


# --- progress ---------------------------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_and_off_it(monkeypatch) -> None:
    for stream, without_rich in ((io.StringIO(), False), (_Terminal(), True), (_Terminal(), False)):
        with monkeypatch.context() as patch:
            patch.setattr(progress_module.sys, "stderr", stream)
            if without_rich:
                patch.setitem(sys.modules, "rich.console", None)
            with watch() as progress:
                progress.begin("Title", 2)
                progress.step("one")
                progress.step("two")
                progress.end()
                if without_rich:
                    assert isinstance(progress, Lines)
        written = stream.getvalue()
        if not stream.isatty():
            assert written == ""
        elif without_rich:
            assert written == "Title [1/2] one\nTitle [2/2] two\n"
        else:
            assert "Title" in written
