"""The tour: its measurements are right, its jobs are found, its page stands alone, and nobody is disturbed by it."""

from __future__ import annotations

import io
import json
import re
import subprocess
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
from randla.tour.compare import Comparison, Rows, best_errors, relative_error
from randla.tour.job import Row
from randla.tour.jobs import (
    colour_transfer,
    colours,
    parts_of_digits,
    patches,
    photograph,
    recommender,
    tables,
    topics,
    unmixing,
    words,
)
from randla.tour.measure import measure, memory_method
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
    """In a fresh process: of one that holds gigabytes the system may take back pages during the call."""
    program = f"""
import numpy as np
from randla.tour.measure import _traced, measure

def call():
    first = np.ones(5_000_000)  # 40 MB; the sum below adds 40 more while both live
    return float((first + 1).sum())

print(measure(call, budget=0).peak_bytes if {how!r} == "default" else _traced(call)[2])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 78e6 <= int(done.stdout) <= 95e6
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


def test_rows_are_judged_by_what_is_read_off_the_answers() -> None:
    task = Rows(lambda value: abs(value - 3.0), best=0.5, budget=0)
    assert task.add("first", lambda: 4.0) == 4.0
    task.add("second", lambda: (5.0, 2.5), ours=True, answer=lambda pair: pair[0], estimate=lambda pair: pair[1],
             note=lambda pair: f"{len(pair)} numbers")  # fmt: skip
    first, second = task.rows
    assert (first.error, first.excess, first.estimate, first.note) == (1.0, 2.0, None, "")
    assert (second.error, second.excess, second.estimate, second.note) == (2.0, 4.0, 2.5, "2 numbers")
    assert first.speedup is None
    assert second.speedup == pytest.approx(first.seconds / second.seconds)


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
    by_module = words.read_modules("loud_package")
    assert by_module == {"loud_package.__init__": (text,), "loud_package.twice": (text, f"{text} Other.")}
    assert "loud_package" not in sys.modules


def test_nearest_words() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [1, 0.01], [0, 0]])
    names = np.array(["a", "b", "c", "d", "e"])
    found = words.nearest(vectors.T, np.ones(2), names, "a", 2, allowed=np.array([True, True, True, False, True]))
    assert [name for name, _ in found] == ["b", "c"]
    assert found[0][1] == pytest.approx(0.9 / np.hypot(0.9, 0.1))


def test_mosaic_and_neighbourhoods_of_cells() -> None:
    image = np.random.default_rng(0).random((12, 16, 3))
    seen = colours.mosaic(image)
    assert (seen[0, 0], seen[0, 1], seen[1, 0], seen[1, 1]) == (
        image[0, 0, 0], image[0, 1, 1], image[1, 0, 1], image[1, 1, 2],
    )  # fmt: skip
    A, B = colours.neighbourhoods(image)
    assert A.shape == (2 * 4, 100)
    assert B.shape == (2 * 4, 12)
    corner = seen[:10, :10].reshape(5, 2, 5, 2).transpose(1, 3, 0, 2)  # one 5 x 5 picture for each place in a cell
    assert np.array_equal(A[0].reshape(4, 5, 5), corner.reshape(4, 5, 5))
    assert np.array_equal(colours.rebuild(B, (12, 16)), image[4:-4, 4:-4])
    # the middle cell's own pixels are among its neighbourhood, so they can be told exactly
    assert np.array_equal(A.reshape(8, 4, 5, 5)[:, :, 2, 2], B[:, [0, 4, 7, 11]])


def test_means_of_neighbours_keep_what_was_seen_and_what_is_flat() -> None:
    image = np.random.default_rng(1).random((8, 10, 3))
    seen = colours.mosaic(image)
    guess = colours.means_of_neighbours(seen)
    eps = np.finfo(float).eps
    assert np.abs(colours.mosaic(guess) - seen).max() <= 4 * eps
    assert guess[2, 2, 1] == pytest.approx((seen[1, 2] + seen[3, 2] + seen[2, 1] + seen[2, 3]) / 4, rel=4 * eps)
    assert guess[3, 3, 0] == pytest.approx((seen[2, 2] + seen[2, 4] + seen[4, 2] + seen[4, 4]) / 4, rel=4 * eps)
    assert np.abs(colours.means_of_neighbours(np.full((6, 6), 0.3)) - 0.3).max() <= 4 * eps


def test_photographs_for_regression() -> None:
    image = colours.load("flower.jpg")
    assert image.shape == (426, 640, 3)
    A, B = colours.learn_from(image[:40, :60], 4)
    one, _ = colours.learn_from(image[:40, :60], 1)
    assert np.array_equal(A[: len(one)], one)
    assert len(A) == len(B) == 4 * len(one) == 4 * (38 // 2 - 4) * (58 // 2 - 4)
    assert colours.decibels(np.full(4, 0.6), np.full(4, 0.5)) == pytest.approx(20.0)


def _table(columns: dict[str, dict[str, float]]) -> tables.WordTable:
    rows = sorted({word for column in columns.values() for word in column})
    matrix = np.array([[column.get(word, 0.0) for column in columns.values()] for word in rows])
    return tables.WordTable(sp.csr_array(matrix), np.array(rows), list(columns))


def test_tables_are_joined_by_their_words() -> None:
    first = _table({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 3.0, "z": 4.0}})
    second = _table({"c": {"z": 5.0, "w": 7.0, "y": 1.0}})
    A, B = tables.joined(first, second)
    assert A.shape == (4, 2)
    exact = (A.T @ B).toarray()
    assert np.array_equal(exact, [[2.0], [3.0 + 20.0]])
    found, stored = tables.sampled(first, second, 10, 0)  # more than there are words: nothing is estimated
    assert np.array_equal(found.value.toarray(), exact)
    assert found.n_common == 2
    assert stored >= 1.5 * (A.nnz + B.nnz)
    assert tables.linear(A, B, 3, 0).shape == (2, 1)


def test_word_table_has_columns_of_length_one(monkeypatch) -> None:
    long = "gradient " * 300
    modules = {"p": {"p.one": (long + "hessian",), "p.short": ("gradient",)}, "q": {"q.two": (long, "matrix " * 4)}}
    monkeypatch.setattr(tables, "read_modules", modules.__getitem__)
    table = tables.word_table(("p", "q"))
    assert table.modules == ["p.one", "q.two"]
    assert list(table.words) == ["gradient", "hessian", "matrix"]
    grown = np.array([[1 + np.log(300), 1 + np.log(300)], [1, 0], [0, 1 + np.log(4)]])
    assert np.allclose(table.matrix.toarray(), grown / np.linalg.norm(grown, axis=0), rtol=1e-14, atol=0)


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_found_in_order() -> None:
    names = [job.name for job in find_jobs()]
    assert names == [
        "patches", "words", "chosen_words", "topics", "digits", "parts-of-digits", "kernel-digits", "matching-digits",
        "colours", "photograph", "recommender", "unmixing", "colour-transfer", "tables", "stream-svd",
    ]  # fmt: skip
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


def test_least_squares_of_the_tour_are_as_good_as_they_say(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    A, B = colours.learn_from(colours.load("flower.jpg")[:120, :200], 1)
    held_out = colours.neighbourhoods(colours.load("china.jpg")[100:160, 200:280])
    X, rows = colours._compare(A, B, held_out, Silent(), budget=0)
    norm, eps = np.linalg.norm(B), np.finfo(float).eps
    # what a backward stable method may add to the residual, for a condition number below 1e4
    exact = 1 + 1e4 * eps * np.linalg.norm(A) * np.linalg.norm(X) / np.linalg.norm(A @ X - B)
    for row in rows:
        assert 2 - exact <= row.excess <= (1.2 if "sketch" in row.method else exact), row
        assert row.note.startswith("held out: ")
        assert (row.estimate is not None) == row.ours
        if row.ours:
            assert row.estimate == pytest.approx(row.error, rel=1e-6)
    assert norm * rows[0].error == pytest.approx(np.linalg.norm(A @ X - B), rel=1e-6)


def test_excess_of_a_sketch_is_that_of_its_definition() -> None:
    import randla

    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((400, 6)), rng.standard_normal((400, 2))
    best = np.linalg.lstsq(A, B, rcond=None)[0]
    X = randla.lstsq(A, B, method="sketch", sketch_size=30, rng=0).x
    truth = (np.linalg.norm(A @ X - B) / np.linalg.norm(A @ best - B)) ** 2 - 1
    assert colours._excesses(A, B, [30], 1)[0, 0] == pytest.approx(truth, rel=1e-9)


def test_products_of_the_tour_are_as_good_as_they_say(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    monkeypatch.setattr(tables, "_KEPT", 120)
    rng = np.random.default_rng(3)
    scales = {f"word{i}": float(scale) for i, scale in enumerate(rng.lognormal(sigma=2, size=600))}

    def drawn(names: str, words_of: list[str]) -> tables.WordTable:
        return _table({name: {word: scales[word] * rng.random() for word in words_of if rng.random() < 0.1}
                       for name in names})  # fmt: skip

    every = list(scales)
    first, second = drawn("abcdefgh", every[:400]), drawn("ijklmn", every[200:])
    A, B = tables.joined(first, second)
    exact = (A.T @ B).toarray()
    estimates, rows = tables._compare(first, second, exact, Silent(), budget=0)
    whole, peer, ours = rows
    assert whole.error <= 8 * np.finfo(float).eps
    assert ours.error == pytest.approx(
        np.linalg.norm(estimates["randla.PrioritySampler"] - exact) / np.linalg.norm(exact)
    )
    assert ours.error < 0.5 * peer.error
    assert 0.25 <= ours.estimate / ours.error <= 4
    curves = tables._errors_by_storage(first, second, exact, (120,), 1)
    assert curves["randla.PrioritySampler"][1][0, 0] == pytest.approx(ours.error)


def _picture(height: int = 40, width: int = 48) -> np.ndarray:
    """Stripes in three colours, of which small squares are alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([0.5 + 0.4 * np.sin(a * x + b * y) for a, b in ((0.9, 0.2), (0.7, 0.5), (0.9, 0.3))], axis=-1)


def test_squares_of_a_picture_average_to_it() -> None:
    picture = _picture(24, 31)
    squares = photograph.Squares(picture.shape, 8, 2)
    rows = squares.rows(picture)
    assert rows.shape == (9 * 12, 192)
    assert np.array_equal(rows[13].reshape(3, 8, 8), picture[2:10, 2:10].transpose(2, 0, 1))
    back = squares.average(rows)
    assert np.isnan(back[:, 30]).all()  # (31 - 8) / 2 is no whole number: nothing covers the last column
    assert np.abs(back[:, :30] - picture[:, :30]).max() <= 16 * np.finfo(float).eps
    seen = photograph.draw_seen(picture.shape, 0.3, "seen")
    observed = squares.observed(picture, seen)
    there = squares.rows(seen)
    assert observed.nnz == there.sum()
    assert observed.has_canonical_format
    assert np.array_equal(observed.toarray(), np.where(there, rows, 0))


def test_customary_fillings_keep_what_was_seen() -> None:
    y, x = np.mgrid[:24, :32]
    plane = np.stack([0.01 * x + 0.02 * y, 0.9 - 0.02 * x, 0.3 + 0.01 * y], axis=-1)
    seen = photograph.draw_seen(plane.shape, 0.3, "seen")
    squares = photograph.Squares(plane.shape, 8, 2)
    filled = [
        photograph.interpolated(plane, seen),
        photograph.channel_means(plane, seen),
        photograph.by_iterated_svd(squares, plane, seen, 3, 40),
        photograph.by_imputer(squares, plane, seen),
    ]
    for picture in filled:
        assert np.array_equal(picture[seen], plane[seen])
        assert np.isfinite(picture).all()
    inner = np.abs(filled[0] - plane)[4:-4, 4:-4]  # within the triangles, linear interpolation of a plane is exact
    assert inner.max() <= 1e3 * np.finfo(float).eps
    assert np.ptp(filled[1][~seen[..., 0], 0]) == 0
    assert np.abs(filled[2] - plane).max() < 0.05 < np.abs(filled[1] - plane).max()


def test_the_photograph_is_filled_as_well_as_the_tour_says(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    monkeypatch.setattr(photograph, "_PART", (slice(0, 16), slice(0, 24)))
    picture = _picture(40, 40)
    seen = photograph.draw_seen(picture.shape, 0.4, "seen")
    fills, rows, size = photograph._compare(picture, seen, Silent(), quick=True)
    assert size.endswith("squares: 289 x 192 float32")
    errors = {row.method: row.error for row in rows}
    ours = next(row for row in rows if "of the squares, rank" in row.method)
    assert ours.error == pytest.approx(np.sqrt(np.mean((fills["completion"] - picture)[~seen] ** 2)), rel=1e-12)
    assert ours.error < 0.5 * errors["mean of each channel"]
    assert 0.5 <= ours.estimate / ours.error <= 2
    assert all(row.note.endswith("dB") for row in rows)
    assert rows[0].note == f"{colours.decibels(fills['linear interpolation'], picture):.2f} dB"


def test_biases_solve_their_equations() -> None:
    data = recommender.draw(200, 80, 4000)
    X = data.train
    mean, b, c = recommender.biases(X, damping=2.0, n_rounds=200)
    rows = np.repeat(np.arange(200), np.diff(X.indptr))
    left = X.data - mean - b[rows] - c[X.indices]
    for own, places in ((b, rows), (c, X.indices)):  # the gradient of the damped squares
        assert np.abs(np.bincount(places, left, own.size) - 2.0 * own).max() <= 1e-9 * X.nnz
    assert mean == X.data.mean()


def test_the_recommender_is_as_good_as_the_tour_says(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    data = recommender.draw(600, 300, 30_000)
    assert data.train.nnz + len(data.rows) == 30_000
    assert (data.train[data.rows, data.cols] == 0).all()
    model, rows = recommender._compare(data, Silent(), budget=0)
    errors = {row.method: row.error for row in rows}
    ours = rows[-1]
    assert all(row.excess >= 1 for row in rows)
    assert ours.error < min(error for method, error in errors.items() if method != ours.method)
    assert ours.error == pytest.approx(np.sqrt(np.mean((model.predict(data.rows, data.cols) - data.values) ** 2)))
    assert 0.9 <= ours.estimate / ours.error <= 1.1
    table = recommender._recommended(data, model, np.arange(0, 600, 3))
    means = {row[0]: float(row[1]) for row in table.rows}
    assert means["the truth"] > means["randla.complete"] > means["items with the largest bias"]
    assert table.rows[0][2] == "10.0 of 10"
    curves = recommender._by_counts(data, model)
    assert curves["size"].sum() == len(data.rows)
    squares = curves["randla.complete"] ** 2 * curves["size"]
    assert np.sqrt(np.nansum(squares) / len(data.rows)) == pytest.approx(ours.error, rel=1e-9)
    told, off = recommender._calibration(data, model)
    assert (np.diff(told) > 0).all()
    assert off[-1] > off[0]


def test_lists_leave_out_what_was_rated() -> None:
    seen = np.zeros((2, 30), bool)
    seen[0, :5] = True
    lists = recommender._first_unseen(np.arange(30), seen)
    assert lists.tolist() == [list(range(5, 15)), list(range(10))]


def _corpus(monkeypatch) -> topics.Corpus:
    """Docstrings that each take their words from one or two of three lists, in two packages."""
    rng = np.random.default_rng(5)
    lists = [[f"{name}{letter}" for letter in "abcdefghijkl"] for name in ("alpha", "beta", "gamma")]
    modules: dict[str, dict[str, tuple[str, ...]]] = {"p": {}, "q": {}}
    for i in range(240):
        first = i % 3
        drawn = [*rng.choice(lists[first], 9), *rng.choice(lists[(first + 1) % 3], 2), "everywhere", f"once{i}"]
        modules["p" if first < 2 else "q"][f"module{i}"] = (" ".join(drawn),)
    modules["q"]["again"] = modules["p"]["module0"]  # belongs to the first package that has it
    monkeypatch.setattr(topics, "read_modules", modules.__getitem__)
    monkeypatch.setattr(topics, "_COMMON", 0.9)
    return topics.load_corpus(("p", "q"))


def test_corpus_of_the_topics(monkeypatch) -> None:
    corpus = _corpus(monkeypatch)
    assert corpus.counts.shape == corpus.weights.shape == (240, 36)
    assert not {"everywhere", "once0"} & set(corpus.words)
    assert (corpus.packages == "p").sum() == 160
    assert np.allclose(np.sqrt(corpus.weights.multiply(corpus.weights).sum(axis=1)), 1)
    assert corpus.counts.sum() == 240 * 11


def test_divergence_and_shares_of_topics_are_those_of_their_definitions() -> None:
    from scipy.special import kl_div

    from randla.nonnegative.results import NMFResult

    rng = np.random.default_rng(6)
    X = rng.poisson(0.4, (40, 25)).astype(float)
    W, H = rng.random((40, 3)), rng.random((3, 25))
    truth = kl_div(X, W @ H).sum()
    assert topics.divergence(sp.csr_array(X), W, H) == pytest.approx(truth, rel=1e-12)
    result = NMFResult(W, H, 0.0)
    order, shares = topics.by_weight(result)
    mass = np.array([np.outer(W[:, k], H[k]).sum() for k in order])
    assert (np.diff(mass) <= 0).all()
    assert np.allclose(shares, mass / (W @ H).sum(), rtol=1e-13)
    packages = np.array(["a"] * 10 + ["b"] * 30)
    names, table = topics.shares_of_packages(result, packages)
    assert names == ["a", "b"]
    assert table[1, 0] == pytest.approx(np.outer(W[10:, order[0]], H[order[0]]).sum() / (W[10:] @ H).sum())
    lines = topics._table(result, np.array([f"w{j}" for j in range(25)]), "t", 2).rows
    leading = np.argsort(-H[order[0]])[:2]
    assert lines[0] == ("1", f"{shares[0]:.1%}", f"w{leading[0]}, w{leading[1]}")


def test_topics_are_found_and_compared_fairly(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    corpus = _corpus(monkeypatch)
    found, rows = topics._compare(corpus, 3, Silent(), budget=0)
    for result in found.values():  # each topic is one of the lists
        for line in topics._table(result, corpus.words, "", 5).rows:
            assert len({word[:-1] for word in line[2].split(", ")}) == 1
    squares, counts = rows[:3], rows[3:]
    A, result = corpus.weights.toarray(), found["frobenius"]
    assert squares[1].error == pytest.approx(np.linalg.norm(A - result.W @ result.H) / np.linalg.norm(A), rel=1e-10)
    s = np.linalg.svd(A, compute_uv=False)
    assert squares[0].best == pytest.approx(np.linalg.norm(s[3:]) / np.linalg.norm(s), rel=1e-8)
    for theirs, ours, same in (squares, counts):
        assert (theirs.ours, ours.ours, same.ours) == (False, True, True)
        assert ours.estimate == pytest.approx(ours.error, rel=1e-8)
        assert ours.error <= 1.01 * theirs.error
        assert "not reached" in same.note or same.error <= (1 + 1e-5) * theirs.error
        assert theirs.note.endswith("iterations")


def test_pixels_are_hidden_and_filled_as_the_tour_says(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    every = parts_of_digits.load_digits(quick=True)
    digits = parts_of_digits.Digits(every.truth[:200], every.seen[:200])
    assert 0.15 <= 1 - digits.seen.mean() <= 0.25
    assert np.array_equal(np.isnan(digits.known), ~digits.seen)
    fills, rows = parts_of_digits._compare(digits, Silent(), budget=0)
    errors = {row.method: row.error for row in rows}
    ours = rows[-1]
    assert ours.error == pytest.approx(np.sqrt(np.mean((fills["masked NMF"] - digits.truth)[~digits.seen] ** 2)))
    assert ours.error < min(error for method, error in errors.items() if "mean" in method)
    assert 0.8 <= ours.estimate / ours.error <= 1.25  # of 500 pixels
    assert errors["mean of each pixel"] == pytest.approx(
        np.sqrt(np.mean((np.nanmean(digits.known, axis=0) - digits.truth)[~digits.seen] ** 2))
    )


def test_more_parts_help_until_they_do_not() -> None:
    curves = parts_of_digits.rank_curves(parts_of_digits.load_digits(quick=True).truth[:200], (2, 6, 16), n_splits=2)
    free, held = (np.array(curve.errors) for curve in curves.values())
    assert free[1] < free[0] < free[2]  # the least is inside
    assert (np.diff(held) < 0).all()


def test_tiles() -> None:
    pictures = np.arange(3 * 64, dtype=float).reshape(3, 64)
    tiles = parts_of_digits._tiles(pictures, 2)
    assert tiles.shape == (17, 17)
    assert np.array_equal(tiles[:8, 9:], pictures[1].reshape(8, 8))
    assert np.isnan(tiles[8]).all()
    assert np.isnan(tiles[9:, 9:]).all()


def test_materials_are_judged_whatever_their_scale_and_order() -> None:
    from randla.datasets import spectral_cube

    cube = spectral_cube(40, (12, 12), 4, snr=float("inf"), rng=3)
    scale, order = np.array([3.0, 0.1, 20.0, 1.0]), [2, 0, 3, 1]
    found = unmixing.judged(cube, (cube.endmembers * scale)[:, order], (cube.abundances / scale[:, None])[order])
    eps = np.finfo(float).eps
    assert np.abs(found.shares - cube.abundances).max() <= 1e3 * eps
    assert np.abs(found.endmembers - cube.endmembers).max() <= 1e3 * eps * cube.endmembers.max()
    assert found.degrees <= np.degrees(1e3 * eps)
    dead = unmixing.judged(cube, cube.endmembers, cube.abundances * np.array([[1.0], [1.0], [1.0], [0.0]]))
    assert np.isfinite(dead.shares).all()


def test_materials_are_found_as_the_tour_says(monkeypatch) -> None:
    from randla.datasets import spectral_cube

    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    cube = spectral_cube(40, (24, 24), 4, **unmixing._SETTINGS)
    found, rows = unmixing._compare(cube, Silent(), budget=0)
    errors = {row.method: row.error for row in rows}
    assert list(found) == ["scikit-learn NMF", "pixels by spa", "least volume"]
    truth = np.sqrt(np.mean((found["least volume"].shares - cube.abundances) ** 2))
    assert errors["randla.minvol_nmf"] == pytest.approx(truth, rel=1e-12)
    assert max(errors["randla.minvol_nmf"], errors["randla.structured_nmf"]) < 0.7 * errors["sklearn NMF"]
    for one in found.values():
        assert np.allclose(one.shares.sum(axis=0), 1)
    assert all("spectra off by" in row.note for row in rows)


def test_cells_keep_the_mean_colour_and_the_number_of_pixels() -> None:
    X = np.random.default_rng(0).random((500, 3))
    X[0] = 1.0  # the upper edge belongs to the last cell
    cells = colour_transfer.gathered(X, 4)
    assert cells.counts.sum() == 500
    assert len(cells.colours) <= 64
    near = 1e3 * np.finfo(float).eps
    assert np.abs(cells.counts @ cells.colours - X.sum(axis=0)).max() <= near * 500
    assert len(np.unique(np.minimum((cells.colours * 4).astype(int), 3), axis=0)) == len(cells.colours)


def test_distance_of_clouds_is_that_of_a_shift() -> None:
    X = np.random.default_rng(0).random((400, 3))
    shift = np.array([0.3, -0.2, 0.5])
    assert colour_transfer.distance(X, X[::-1]) == 0.0
    # the mean over directions of (shift . direction)^2 is a third of |shift|^2 for directions spread over the sphere
    assert colour_transfer.distance(X, X + shift) == pytest.approx(np.linalg.norm(shift) / 3**0.5, rel=0.1)


def test_customary_maps_of_colours_match_what_they_say() -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.random((3000, 3)) ** 2, rng.random((3000, 3)) @ rng.random((3, 3))
    moved = colour_transfer.by_covariance(X, Y)
    assert np.allclose(np.cov(moved.T), np.cov(Y.T), rtol=1e-8, atol=1e-10)
    assert np.allclose(moved.mean(axis=0), Y.mean(axis=0))
    scaled = colour_transfer.by_mean_and_deviation(X, Y)
    assert np.allclose(scaled.std(axis=0), Y.std(axis=0))
    ranked = colour_transfer.by_histograms(X, Y)
    assert np.abs(np.sort(ranked, axis=0) - np.sort(Y, axis=0)).max() <= 0.05


def test_colours_are_transferred_as_the_tour_says(monkeypatch) -> None:
    monkeypatch.setattr("randla.tour.compare.measure", lambda call, **_: measure(call, budget=0))
    X, Y = (colours.load(name)[::6, ::6].reshape(-1, 3).astype(float) for name in ("china.jpg", "flower.jpg"))
    moved, model, rows = colour_transfer._compare(X, Y, 16, Silent())
    errors = {row.method: row.error for row in rows}
    ours = errors.pop("randla.SinkhornTransport, fit and all pixels")
    assert ours <= min(errors.values())
    assert moved.shape == X.shape
    low, high = model.Y_.min(axis=0), model.Y_.max(axis=0)
    assert ((moved >= low - 1e-9) & (moved <= high + 1e-9)).all()  # means of colours that are there
    assert model.marginal_error_ <= model.tol


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
