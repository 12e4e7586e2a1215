"""Files of ratings: what is read, what is refused, and that the line that is wrong is named."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import randla
from randla import rating_lines, ratings
from randla.files import FileError
from randla.rating_lines import Block, Layout, Wider, parse_block, parse_lines
from randla.ratings import Ratings, load_ratings, positions

ROWS = [(196, 242, 3.0, 881250949), (186, 302, 3.5, 891717742), (22, 377, 1.0, 878887116), (196, 51, 4.0, 881250950)]
SEPARATORS = {"u.data": "\t", "ratings.csv": ",", "ratings.dat": "::", "semicolons.csv": ";"}


def _text(name: str, rows: list = ROWS, *, fields: int = 4) -> str:
    return "".join(SEPARATORS[name].join(f"{value:g}" if i == 2 else str(value) for i, value in enumerate(row[:fields]))
                   + "\n" for row in rows)  # fmt: skip


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _check(found: Ratings, rows: list = ROWS, *, stamped: bool = True) -> None:
    """Every rating is found by its ids, and nothing else is there."""
    assert found.matrix.nnz == len(rows)
    assert found.matrix.has_canonical_format
    dense = found.matrix.toarray()
    for user, item, rating, stamp in rows:
        (i,), (j,) = found.users([user]), found.items([item])
        assert dense[i, j] == rating
        start, stop = found.matrix.indptr[i : i + 2]
        place = start + np.flatnonzero(found.matrix.indices[start:stop] == j)[0]
        assert (found.timestamps is not None) == stamped
        if stamped:
            assert found.timestamps[place] == stamp


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEPARATORS)
@pytest.mark.parametrize("fields", [3, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout(tmp_path: Path, name: str, fields: int, packed: bool) -> None:
    data = _text(name, fields=fields).encode()
    path = _write(tmp_path / (name + ".gz" * packed), gzip.compress(data) if packed else data)
    found = load_ratings(path)
    _check(found, stamped=fields == 4)
    assert list(found.user_ids) == [22, 186, 196]
    assert list(found.item_ids) == [51, 242, 302, 377]
    assert found.matrix.dtype == np.float64
    assert repr(found).startswith("Ratings(3 users x 4 items, 4 ratings from 1 to 4, with")
    single = load_ratings(path, dtype=np.float32, format="ratings.csv" if name == "semicolons.csv" else name)
    assert single.matrix.dtype == np.float32
    assert np.array_equal(single.matrix.toarray(), found.matrix.toarray())


@pytest.mark.parametrize(
    "header",
    [
        "userId,movieId,rating,timestamp",
        "timestamp,rating,itemId,userId",
        "movie_id,title,User-ID,genre,Rating,ts",
        '"item","user","score"',
        "rating, user, movie",
    ],
)
def test_named_columns_in_any_order(tmp_path: Path, header: str) -> None:
    names = ["".join(filter(str.isalpha, name.lower())) for name in header.split(",")]
    known = {"userid": 0, "user": 0, "movieid": 1, "itemid": 1, "item": 1, "movie": 1, "rating": 2, "score": 2,
             "timestamp": 3, "ts": 3}  # fmt: skip
    lines = [",".join(str(row[known[name]]) if name in known else "Heat (1995)" for name in names) for row in ROWS]
    found = load_ratings(_write(tmp_path / "any.csv", "\n".join([header, *lines])))
    _check(found, stamped=bool({"timestamp", "ts"} & set(names)))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end", "blank lines"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_ends_of_lines_and_of_files(tmp_path: Path, end: str, last: str, mark: bytes) -> None:
    text = _text("u.data").replace("\n", end)
    text = {"": text.removesuffix(end), "end": text, "blank lines": text + 3 * end}[last]
    _check(load_ratings(_write(tmp_path / "u.data", mark + text.encode())))


def test_ids_that_are_texts(tmp_path: Path) -> None:
    rows = [("bob", "007", 3, 1), ("eve", "7", 4, 2), ("Zoë", "7", 0, 3), ("bob", "tt 1", -2.5, 4)]
    found = load_ratings(_write(tmp_path / "r.csv", "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows)))
    assert list(found.user_ids) == ["Zoë", "bob", "eve"]
    assert list(found.item_ids) == ["007", "7", "tt 1"]  # one of them is no plain integer, so 007 and 7 are two items
    _check(found, rows)
    assert found.matrix.nnz == 4  # the rating 0 is stored


def test_a_text_in_the_last_line_makes_all_ids_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "BLOCK_BYTES", 64)
    rows = [(str(i), str(i % 7), 1.0 + i % 5, i + 0.0) for i in range(60)] + [("60", "x", 2.0, 0.5)]
    path = _write(tmp_path / "r.csv", "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows))
    found = load_ratings(path)
    assert list(found.user_ids[:3]) == [0, 1, 2]
    assert list(found.item_ids) == [*"0123456", "x"]
    assert found.timestamps.dtype == np.float64
    _check(found, [(int(a), b, c, d) for a, b, c, d in rows])


def test_quoted_fields(tmp_path: Path) -> None:
    stream = io.StringIO()
    rows = [("a, b", "7", 3.0, 1), ('say "x"', "8", 2.0, 2), ("c", "9", 1.0, 3)]
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("user", "item", "rating", "time"), *rows])
    found = load_ratings(_write(tmp_path / "q.csv", stream.getvalue()))
    _check(found, rows)
    assert list(found.user_ids) == ["a, b", "c", 'say "x"']
    plain = load_ratings(_write(tmp_path / "p.csv", '"1","2","3.5"\n"4","5","6"\n'))
    assert plain.matrix.toarray().tolist() == [[3.5, 0.0], [0.0, 6.0]]


@pytest.mark.parametrize("size", [16, 37, 2**20])
def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice(50 * 40, 300, replace=False)
    rows = [(int(c // 40) - 20, int(c % 40) * 10**9, float(rng.integers(1, 11)) / 2, 880000000 + i)
            for i, c in enumerate(codes)]  # fmt: skip
    path = _write(tmp_path / "u.data", _text("u.data", rows))
    monkeypatch.setattr(ratings, "BLOCK_BYTES", size)
    found = load_ratings(path)
    _check(found, rows)
    assert found.item_ids.max() == 39 * 10**9


def test_positions_of_ids() -> None:
    numbers, names = np.array([3, 5, 9]), np.array(["3", "a", "b"])
    assert positions(numbers, [9, 4, 3, 10]).tolist() == [2, -1, 0, -1]
    assert positions(numbers, ["9", "x", "3", "5.0", "05"]).tolist() == [2, -1, 0, -1, -1]
    assert positions(names, ["b", "c", "3", ""]).tolist() == [2, -1, 0, -1]
    assert positions(names, [3, 4]).tolist() == [0, -1]
    assert positions(np.zeros(0, np.int64), [1, 2]).tolist() == [-1, -1]
    assert positions(numbers, 5) == 1


_SEP = {"tab": b"\t", "comma": b",", "colons": b"::"}
_ID = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.sampled_from(["0", "-0", "007", "a", " 5", "5 ", "", "é", '"3"', '"', "1:"]),
)
_RATING = st.one_of(
    st.decimals(-(10**6), 10**6, places=3).map(str), st.floats().map(repr),
    st.sampled_from(["5.", ".5", ".", "-", "-.5", "+4", "1_0", "1e3", "4.0.0", "", "nan", "NaN", "inf", "0x1", '"4"',
                     "123456789012345678", "0.1234567890123456"]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_ID, _ID, _RATING, _ID), min_size=1, max_size=4), st.sampled_from(sorted(_SEP)),
       st.sampled_from([frozenset(), frozenset(["user"]), frozenset(["user", "item", "timestamp"])]),
       st.sampled_from([b"\n", b"\r\n"]))  # fmt: skip
def test_all_lines_at_once_or_one_by_one(rows: list, separator: str, texts: frozenset, end: bytes) -> None:
    """Where the reader of whole blocks has an answer, the reader of lines has the same, to the last bit."""
    layout = Layout(_SEP[separator], 4, {"user": 0, "item": 1, "rating": 2, "timestamp": 3}, 0)
    text = b"".join(_SEP[separator].join(field.encode() for field in row) + end for row in rows)
    block = Block(text, 1, cut=False)
    quick = parse_block(layout, block, texts)
    if quick is None:
        return
    slow = parse_lines(Path("file"), layout, block, texts) if np.isfinite(quick["rating"]).all() else {}
    for column, values in slow.items():
        assert values.tolist() == quick[column].tolist()
    assert slow


def test_regular_lines_are_read_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow reader is not needed for the files of MovieLens, nor for texts and quotation marks."""
    monkeypatch.setattr(ratings, "parse_lines", None)
    monkeypatch.setattr(ratings, "_read_columns", _without_lines(ratings._read_columns))
    for name in SEPARATORS:
        _check(load_ratings(_write(tmp_path / name, _text(name))))
    _check(load_ratings(_write(tmp_path / "r.csv", "userId,movieId,rating,timestamp\r\n" + _text("ratings.csv"))))
    _check(load_ratings(_write(tmp_path / "q.csv", _text("ratings.csv").replace("196", '"196"'))))


def _without_lines(read):
    def checked(*args):
        try:
            return read(*args)
        except TypeError as error:
            raise AssertionError("the slow reader was called") from error

    return checked


# --- what is refused --------------------------------------------------------------------------------------------------

GOOD = "1\t10\t3\t880000001\n2\t20\t4\t880000002\n"
WRONG = {
    "a field too few": (GOOD + "3\t30\t5\n4\t40\t1\t880000003\n", "line 3 must have 4 fields, got 3"),
    "a field too many": (GOOD + "3\t30\t5\t880000003\t9\n", "line 3 must have 4 fields, got 5"),
    "another separator": (GOOD + "3,30,5,880000003\n", "line 3 must have 4 fields, got 1"),
    "a blank line": (GOOD + "\n4\t40\t1\t880000003\n", "line 3 must have 4 fields, got a blank line"),
    "blank lines before the last": (GOOD + "\n\n\n4\t40\t1\t880000003", "line 3 must have 4 fields, got a blank line"),
    "a word for a rating": (
        GOOD + "3\t30\tfive\t880000003\n",
        "line 3: the rating must be a finite number, got 'five'",
    ),
    "two points": (GOOD + "3\t30\t4.0.0\t880000003\n", "line 3: the rating must be a finite number, got '4.0.0'"),
    "an underscore": (GOOD + "3\t30\t1_0\t880000003\n", "line 3: the rating must be a finite number, got '1_0'"),
    "no rating": (GOOD + "3\t30\t\t880000003\n", "line 3: the rating must be a finite number, got ''"),
    "nan": (GOOD + "3\t30\tnan\t880000003\n", "line 3: the rating must be a finite number, got 'nan'"),
    "inf": (GOOD + "3\t30\t-inf\t880000003\n", "line 3: the rating must be a finite number, got '-inf'"),
    "overflow": (GOOD + "3\t30\t1e999\t880000003\n", "line 3: the rating must be a finite number, got '1e999'"),
    "no user": (GOOD + "\t30\t5\t880000003\n", "line 3: the user has no name"),
    "a long item": (GOOD + "3\t" + 65 * "x" + "\t5\t880000003\n", "line 3: the item's name must have at most 64 bytes"),
    "a date for a timestamp": (
        GOOD + "3\t30\t5\tMonday\n",
        "line 3: the timestamp must be a finite number, got 'Monday'",
    ),
    "cut within a line": (GOOD + "3\t30", "line 3, the last one, has 2 of 4 fields: the file is truncated"),
    "cut after a separator": (GOOD + "3\t30\t5\t", "line 3: the timestamp must be a finite number, got ''"),
    "cut within the timestamp": (GOOD + "3\t30\t5\t8800", "line 3, the last one, has no end, and its timestamp 8800"),
    "rated twice": (
        GOOD + "3\t30\t5\t880000003\n2\t20\t1\t880000004\n1\t10\t3\t880000005\n",
        "lines 2 and 4 both rate item 20 by user 2; keep one of them",
    ),
    "a byte of zero": (GOOD + "3\t3\0\t5\t880000003\n", "line 3 is no text, it has a byte 0x00"),
    "latin-1": (GOOD.encode() + b"3\tcaf\xe9\t5\t880000003\n", "line 3 is not in UTF-8 (byte 0xe9 at place 6)"),
    "utf-16": (GOOD.encode("utf-16"), "the file is in UTF-16; save it as UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1 is not in UTF-8 (byte 0x89 at place 1)"),
    "machine code": (b"\x7fELF\x02\x01\x01\0", "line 1 is no text, it has a byte 0x02; is the file a binary one?"),
    "nothing": ("", "the file is empty"),
    "blank lines only": ("\n\n\n", "line 1 is blank"),
    "words": ("all work and no play\n", "line 1 must have 3 or 4 fields separated by commas"),
    "two columns": (
        "1\t2\n",
        "line 1 must have 3 or 4 fields separated by tabs (user, item, rating, timestamp), got 2",
    ),
    "a header and no more": ("userId,movieId,rating\n", "the file has a header but no ratings"),
    "a header without an end": ("userId,movieId,rating", "the file has a header but no ratings"),
    "a header without a rating": (
        "userId,movieId,stars\n1,2,3\n",
        "line 1: the header must name one column for the rating",
    ),
    "a header with two items": (
        "user,item,movie,rating\n1,2,3,4\n",
        "line 1: the header must name one column for the item",
    ),
    "a header again": (
        "user,item,rating\n1,2,3\nuser,item,rating\n",
        "line 3: the rating must be a finite number, got 'rating'",
    ),
    "an open quotation": ('user,item,rating\n1,2,3\n"1,3,3\n', "line 3 has a quotation mark that is not closed"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("size", [8, 2**20])
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, size: int, packed: bool) -> None:
    """The message is one line with the file's name and the number of the line, for any size of the blocks."""
    monkeypatch.setattr(ratings, "BLOCK_BYTES", size)
    text, message = WRONG[case]
    data = text.encode() if isinstance(text, str) else text
    path = _write(tmp_path / "bad.data", gzip.compress(data) if packed else data)
    with pytest.raises(FileError) as caught:
        load_ratings(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_duplicates_after_a_header_and_among_texts(tmp_path: Path) -> None:
    path = _write(tmp_path / "r.csv", "user,item,rating\na,x,1\nb,x,2\nb,y,2\nb,x,3\na,x,1\n")
    with pytest.raises(FileError, match="lines 3 and 5 both rate item x by user b"):
        load_ratings(path)


def test_truncated_and_damaged_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(i, int(rng.integers(1, 10**6)), 3.0, int(rng.integers(8e8, 9e8))) for i in range(20_000)]
    data = gzip.compress(_text("u.data", rows).encode())
    cut = _write(tmp_path / "cut.gz", data[: len(data) // 2])
    with pytest.raises(FileError, match=r"cut\.gz: the compressed file is damaged or truncated"):
        load_ratings(cut)
    turned = bytearray(data)
    turned[len(data) // 2] ^= 0xFF
    with pytest.raises(FileError, match=r"bad\.gz: "):
        load_ratings(_write(tmp_path / "bad.gz", bytes(turned)))


def test_no_line_feed_in_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "BLOCK_BYTES", 2**16)
    path = _write(tmp_path / "u.data", GOOD + 2**23 * "1")
    with pytest.raises(FileError, match=r"line 3 has no end after [0-9,]+ bytes"):
        load_ratings(path)


def test_ratings_beyond_single_precision(tmp_path: Path) -> None:
    path = _write(tmp_path / "u.data", "1\t1\t3\n1\t2\t1e39\n")
    assert load_ratings(path).matrix.max() == 1e39
    with pytest.raises(FileError, match="line 2: the rating must be a finite number in float32, got 1e"):
        load_ratings(path, dtype="float32")


def test_missing_files_and_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        load_ratings(tmp_path / "none")
    with pytest.raises(FileError, match="is a directory"):
        load_ratings(tmp_path)
    path = _write(tmp_path / "u.data", GOOD)
    with pytest.raises(ValueError, match=r"format must be one of 'auto', 'u\.data'"):
        load_ratings(path, format="xlsx")
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got int8"):
        load_ratings(path, dtype="int8")
    with pytest.raises(FileError, match="line 1 must have 3 or 4 fields separated by two colons"):
        load_ratings(path, format="ratings.dat")


# --- the split --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stamped() -> Ratings:
    made = randla.datasets.synthetic_ratings(200, 150, 3000, rank=3, rng=0)
    times = np.random.default_rng(1).integers(0, 500, 3000)  # with ties
    return Ratings(made.ratings, np.arange(200), np.arange(150), times)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_split_by_time(stamped: Ratings, fraction: float) -> None:
    train, test = stamped.split_by_time(fraction)
    assert train.matrix.shape == test.matrix.shape == (200, 150)
    assert train.matrix.nnz + test.matrix.nnz == 3000
    assert ((train.matrix + test.matrix) != stamped.matrix).nnz == 0
    filled = np.bincount(train.matrix.indices, minlength=150) > 0
    assert np.array_equal(filled, np.bincount(stamped.matrix.indices, minlength=150) > 0)
    assert (np.diff(train.matrix.indptr) > 0).all()
    counts = np.diff(stamped.matrix.indptr)
    wanted = np.minimum(np.rint(fraction * counts), counts - 1)
    held = np.diff(test.matrix.indptr)
    assert (held <= wanted).all()
    assert wanted.sum() - held.sum() <= 150  # an item gets one rating back at most
    alone = np.bincount(train.matrix.indices, minlength=150) == 1
    for i in range(200):
        early, late = (slice(*part.matrix.indptr[i : i + 2]) for part in (train, test))
        mine = train.timestamps[early][~alone[train.matrix.indices[early]]]  # those that were given back are late
        if mine.size and late.stop > late.start:
            assert mine.max() <= test.timestamps[late].min()


def test_split_gives_an_item_its_earliest_rating_back() -> None:
    from scipy.sparse import csr_array

    # the item 2 is the last of both users
    matrix = csr_array(np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]]))
    whole = Ratings(matrix, np.array(["a", "b"]), np.arange(3), np.array([1, 9, 2, 8]))
    train, test = whole.split_by_time(0.5)
    assert train.matrix.toarray().tolist() == [[1, 0, 0], [0, 3, 4]]
    assert test.matrix.toarray().tolist() == [[0, 0, 2], [0, 0, 0]]
    assert (train.timestamps.tolist(), test.timestamps.tolist()) == ([1, 2, 8], [9])
    assert whole.matrix.nnz == 4


def test_split_refuses(stamped: Ratings) -> None:
    for fraction in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="fraction must be finite and in"):
            stamped.split_by_time(fraction)
    with pytest.raises(ValueError, match="ratings must have timestamps to be split by time, got none"):
        Ratings(stamped.matrix, stamped.user_ids, stamped.item_ids).split_by_time(0.2)


# --- size -------------------------------------------------------------------------------------------------------------


def test_no_line_is_touched_alone_in_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand lines: the reader of lines is called for the bad block only, and names its line."""
    rows = [(i % 997, i, 3.5, 880000000 + i) for i in range(100_000)]
    text = _text("u.data", rows).splitlines(keepends=True)
    text[77_776] = "1\t2\tx\t3\n"
    seen = []
    slow = rating_lines.parse_lines
    monkeypatch.setattr(ratings, "parse_lines", lambda *args: seen.append(args[2].first_line) or slow(*args))
    with pytest.raises(FileError, match="line 77777: the rating must be a finite number, got 'x'"):
        load_ratings(_write(tmp_path / "u.data", "".join(text)))
    assert len(seen) == 1


def test_wider_columns_name_themselves() -> None:
    layout = Layout(b",", 3, {"user": 0, "item": 1, "rating": 2}, 0)
    with pytest.raises(Wider, match="item"):
        parse_lines(Path("file"), layout, Block(b"1,x,3\n", 1, cut=False), frozenset())
