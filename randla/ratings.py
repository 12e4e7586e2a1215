"""Ratings in text files: `load_ratings` reads the files of MovieLens and those like them, and says which line is wrong.

The file is read in blocks of whole lines, which `randla.rating_lines` parses.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._checks import check_choice, check_real
from .files import FileError, check_readable
from .rating_lines import Block, Layout, Wider, is_number, parse_block, parse_lines, plain_integer, split_line

#: Bytes of text that are parsed at a time.
BLOCK_BYTES = 2**20
#: Bytes without a line feed after which a file is not taken for text.
_LONGEST_LINE = 2**22

FORMATS = ("auto", "u.data", "ratings.csv", "ratings.dat")
_DELIMITERS = {"u.data": b"\t", "ratings.dat": b"::"}

_NAMES = {
    "user": ("user", "userid", "uid"),
    "item": ("item", "itemid", "iid", "movie", "movieid", "product", "productid"),
    "rating": ("rating", "ratings", "score", "value"),
    "timestamp": ("timestamp", "time", "ts"),
}
_HEADS = tuple(name for names in _NAMES.values() for name in names)
_COLUMNS = ("user", "item", "rating", "timestamp")


@dataclass(frozen=True, repr=False)
class Ratings:
    r"""Ratings of items by users as a sparse matrix, with the ids of its rows and columns.

    Parameters
    ----------
    matrix : csr_array, shape (m, n)
        The stored entries are the ratings, zeros included; columns ascend in each row.
    user_ids : array, shape (m,)
        Ids of the rows, ascending: integers, or strings where one of them is no integer.
    item_ids : array, shape (n,)
        Ids of the columns, in the same way.
    timestamps : array, shape (nnz,), or None
        Of the ratings, in the order of ``matrix.data``: integers, or floats where one of them has a fraction.

    Examples
    --------
    >>> import pathlib, tempfile, randla
    >>> text = "userId,movieId,rating,timestamp\n7,20,4.5,11\n7,10,3,12\n5,20,1,13\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ratings.csv")
    ...     _ = path.write_text(text)
    ...     ratings = randla.load_ratings(path)
    >>> ratings
    Ratings(2 users x 2 items, 3 ratings from 1 to 4.5, with timestamps, float64)
    >>> ratings.user_ids, ratings.item_ids, ratings.matrix.toarray()
    (array([5, 7]), array([10, 20]), array([[0. , 1. ],
           [3. , 4.5]]))
    """

    matrix: Any
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None

    def __repr__(self) -> str:
        (m, n), data = self.matrix.shape, self.matrix.data
        span = f" from {data.min():g} to {data.max():g}" if data.size else ""
        stamped = "without timestamps" if self.timestamps is None else "with timestamps"
        return f"Ratings({m:,} users x {n:,} items, {data.size:,} ratings{span}, {stamped}, {data.dtype})"

    def users(self, ids: Any) -> np.ndarray:
        """Rows of the users with these ids; int64, -1 for an id that has no row."""
        return positions(self.user_ids, ids)

    def items(self, ids: Any) -> np.ndarray:
        """Columns of the items with these ids; int64, -1 for an id that has no column."""
        return positions(self.item_ids, ids)

    def split_by_time(self, fraction: float) -> tuple[Ratings, Ratings]:
        """Hold out the last ratings of each user, as a recommender meets them: it learns first and is asked later.

        Of a user with c ratings ``round(fraction * c)`` are held out, the latest ones, and at most c - 1; of equal
        times the one with the larger column.  An item with no rating left to learn from gets its earliest one back.
        So every row and column that had an entry keeps one in the first part.

        Parameters
        ----------
        fraction : float, 0 < fraction < 1

        Returns
        -------
        train, test : Ratings
            Both with the rows and columns of the whole.

        Raises
        ------
        ValueError
            If there are no timestamps, or the fraction is out of range.
        """
        fraction = check_real(fraction, "fraction", low=0.0, high=1.0, closed="neither")
        if self.timestamps is None:
            raise ValueError(
                "ratings must have timestamps to be split by time, got none; hold out a random part instead: "
                "complete(..., validation_fraction=)"
            )
        counts = np.diff(self.matrix.indptr)
        rows = np.repeat(np.arange(counts.size), counts)
        order = np.lexsort((self.timestamps, rows))  # stable: equal times stay in the order of columns
        held = np.minimum(np.rint(fraction * counts).astype(np.int64), np.maximum(counts - 1, 0))
        place = np.arange(rows.size) - np.repeat(
            self.matrix.indptr[:-1], counts
        )  # of a rating among its user's, by time
        out = np.empty(rows.size, bool)
        out[order] = place >= np.repeat(counts - held, counts)
        columns = self.matrix.indices
        known = np.zeros(self.matrix.shape[1], bool)
        known[columns[~out]] = True
        stray = np.flatnonzero(~known[columns])  # ratings of items that are held out altogether
        stray = stray[np.lexsort((self.timestamps[stray], columns[stray]))]
        first = np.ones(stray.size, bool)
        first[1:] = columns[stray[1:]] != columns[stray[:-1]]
        out[stray[first]] = False
        return self._part(~out, rows), self._part(out, rows)

    def _part(self, kept: np.ndarray, rows: np.ndarray) -> Ratings:
        from scipy.sparse import csr_array

        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=self.matrix.shape[0]))])
        arrays = self.matrix.data[kept], self.matrix.indices[kept], indptr.astype(self.matrix.indptr.dtype)
        part = csr_array(arrays, shape=self.matrix.shape)
        return replace(self, matrix=part, timestamps=None if self.timestamps is None else self.timestamps[kept])


def positions(known: np.ndarray, ids: Any) -> np.ndarray:
    """Places of `ids` in the ascending array `known`; -1 where an id is not there.

    Ids of the other kind are converted, so that "7" finds 7 and 7 finds "7"; a text that is no integer is not there.
    """
    wanted = np.asarray(ids)
    if known.dtype.kind == "U":
        wanted = wanted.astype(str)
    elif wanted.dtype.kind in "OU":
        numbers = [plain_integer(str(text).strip().encode()) for text in wanted.ravel().tolist()]
        there = np.array([number is not None for number in numbers], bool).reshape(wanted.shape)
        wanted = np.array([number or 0 for number in numbers], np.int64).reshape(wanted.shape)
        return np.where(there, positions(known, wanted), -1)
    if known.size == 0:
        return np.full(wanted.shape, -1, np.int64)
    place = np.minimum(np.searchsorted(known, wanted), known.size - 1)
    return np.where(known[place] == wanted, place, -1).astype(np.int64)


def load_ratings(path: str | os.PathLike[str], *, format: str = "auto", dtype: Any = np.float64) -> Ratings:
    r"""Read ratings from a text file in one of the layouts of the MovieLens data.

    Three layouts are known, each also compressed (.gz), one rating a line:

    * "u.data": user, item, rating and perhaps a timestamp, separated by tabs;
    * "ratings.csv": the same separated by commas, or, after a header, any columns of which one is named user, userId or
      user_id, one item, itemId or movieId, one rating, and perhaps one timestamp;
    * "ratings.dat": as "u.data", separated by two colons.

    Ids are integers, or texts where one of them in the file is no plain integer; rows and columns are numbered in their
    ascending order.  Cost: two passes over the text in memory, and a sort of the ratings.

    Parameters
    ----------
    path : str or path
    format : {"auto", "u.data", "ratings.csv", "ratings.dat"}, default "auto"
        "auto" takes the separator that is found in the first line: two colons, a tab, or else a comma.
    dtype : dtype, default float64
        Of the ratings: float64 or float32.

    Returns
    -------
    Ratings

    Raises
    ------
    FileError
        A ValueError of one line with the name of the file and, wherever there is one, the number of the line: a wrong
        number of fields, a rating that is no finite number, a pair that is rated twice (both lines), a truncated last
        line, an empty file, or a file that is no text in UTF-8.
    ValueError
        If the format or the dtype is not one of those above.

    Examples
    --------
    >>> import pathlib, tempfile, randla
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "u.data")
    ...     _ = path.write_text("196\t242\t3\t881250949\n186\t302\tfive\t891717742\n")
    ...     try:
    ...         randla.load_ratings(path)
    ...     except ValueError as error:
    ...         print(str(error)[-60:])
    data: line 2: the rating must be a finite number, got 'five'
    """
    check_choice(format, "format", FORMATS)
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    path = Path(path)
    check_readable(path)
    try:
        layout = _layout(path, format)
        texts: set[str] = set()
        while True:
            try:
                columns = _read_columns(path, layout, frozenset(texts), dtype)
                break
            except Wider as column:  # the file is read again with this column as texts; at most once for each
                texts.add(str(column))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path}: the compressed file is damaged or truncated: {' '.join(str(error).split())}"
        ) from None
    return _sorted(path, layout, columns)


# --- layout -----------------------------------------------------------------------------------------------------------


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as handle:
        compressed = handle.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def _layout(path: Path, format: str) -> Layout:
    """Separator, header and columns, told from the first line."""
    with _open(path) as handle:
        line = handle.readline(_LONGEST_LINE)
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FileError(f"{path}: the file is in UTF-16; save it as UTF-8")
    if not line:
        raise FileError(f"{path}: the file is empty")
    line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        raise FileError(f"{path}: line 1 is blank; a file of ratings begins with a rating or a header")
    delimiter = _DELIMITERS.get(format, b"")
    if not delimiter:
        table = max((b",", b";"), key=line.count)
        delimiter = next((known for known in (b"::", b"\t") if known in line and format == "auto"), table)
    fields = split_line(path, delimiter, line.rstrip(b"\r\n"), 1)
    if len(fields) > 1 and not any(map(is_number, fields)):
        return Layout(delimiter, len(fields), _named_columns(path, fields), 1)
    if len(fields) not in (3, 4):
        known = {b"\t": "tabs", b"::": "two colons", b",": "commas", b";": "semicolons"}[delimiter]
        raise FileError(
            f"{path}: line 1 must have 3 or 4 fields separated by {known} (user, item, rating, timestamp), "
            f"got {len(fields)}"
        )
    return Layout(delimiter, len(fields), dict(zip(_COLUMNS, range(len(fields)), strict=False)), 0)


def _plain_name(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _named_columns(
    path: Path, header: list[str], *, needed: tuple[str, ...] = ("user", "item", "rating")
) -> dict[str, int]:
    names = [_plain_name(name) for name in header]
    places = {}
    for column, known in _NAMES.items():
        found = [place for place, name in enumerate(names) if name in known]
        if len(found) == 1:
            places[column] = found[0]
        elif found or column in needed:
            raise FileError(
                f"{path}: line 1: the header must name one column for the {column} "
                f"({', '.join(known)}), got {', '.join(name[:40] for name in header[:8])}"
            )
    return places


# --- the file ---------------------------------------------------------------------------------------------------------


def _blocks(path: Path, n_header: int) -> Iterator[Block]:
    """The lines after the header in blocks; blank lines at the end of the file are left out."""
    line, rest = 1, b""
    with _open(path) as handle:
        while piece := _read(path, handle, line):
            if line == 1 and not rest:
                piece = piece.removeprefix(b"\xef\xbb\xbf")
            text = rest + piece
            # blank lines wait for what comes after them: at the end of the file they mean nothing
            kept = text[: text.rfind(b"\n") + 1].rstrip(b"\r\n")
            if not kept:
                rest = text
                if len(rest) > _LONGEST_LINE:
                    raise FileError(
                        f"{path}: line {line} has no end after {len(rest):,} bytes; is the file a binary one?"
                    )
                continue
            cut = text.index(b"\n", len(kept)) + 1
            skipped = text.index(b"\n") + 1 if line <= n_header else 0
            if skipped < cut:
                yield Block(text[skipped:cut], line + (skipped > 0), cut=False)
            line += text.count(b"\n", 0, cut)
            rest = text[cut:]
    if rest.strip(b"\r\n") and line > n_header:
        yield Block(rest + b"\n", line, cut=True)


def _read(path: Path, handle: IO[bytes] | gzip.GzipFile, line: int, *, whole_line: bool = False) -> bytes:
    try:
        return handle.readline(_LONGEST_LINE) if whole_line else handle.read(BLOCK_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path}: the compressed file is damaged or truncated after line {line}: {' '.join(str(error).split())}"
        ) from None


class _Numbering:
    """Numbers of texts in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def add(self, texts: np.ndarray) -> np.ndarray:
        known = self.numbers
        return np.fromiter((known.setdefault(text, len(known)) for text in texts.tolist()), np.int64, texts.size)

    def sort(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The texts in ascending order, and the numbers in that order of what `add` returned."""
        texts = np.array([text.decode() for text in self.numbers])
        order = np.argsort(texts, kind="stable")
        rank = np.empty(order.size, np.int64)
        rank[order] = np.arange(order.size)
        return texts[order], rank[numbers]


def _read_columns(path: Path, layout: Layout, texts: frozenset[str], dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    """The columns of the file in the order of its lines; texts as numbers, with their sorted texts as "user_ids" ..."""
    parts: dict[str, list[np.ndarray]] = {column: [] for column in layout.places}
    numbering = {column: _Numbering() for column in ("user", "item") if column in texts}
    cut = False
    for block in _blocks(path, layout.n_header):
        columns = parse_block(layout, block, texts)
        if columns is None:
            columns = parse_lines(path, layout, block, texts)
        for column, values in columns.items():
            if column == "rating":
                values = _rounded(path, values, dtype, block.first_line)
            parts[column].append(numbering[column].add(values) if column in numbering else values)
        cut = block.cut
    if not parts["rating"]:
        raise FileError(f"{path}: the file has a header but no ratings")
    whole = {column: np.concatenate(parts.pop(column)) for column in tuple(parts)}
    for column in ("user", "item"):
        sort = numbering[column].sort if column in numbering else _compact
        whole[f"{column}_ids"], whole[column] = sort(whole[column])
    if cut and "timestamp" in whole:
        _check_last(path, whole["timestamp"], layout.n_header)
    return whole


def _rounded(path: Path, values: np.ndarray, dtype: np.dtype[Any], first_line: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype, copy=False)
    if not np.isfinite(rounded).all():
        place = int(np.argmin(np.isfinite(rounded)))
        raise FileError(
            f"{path}: line {first_line + place}: the rating must be a finite number in {dtype}, got {values[place]:g}"
        )
    return rounded


def _compact(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, ascending, and the place of each value among them."""
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span > 4 * values.size + 2**20:
        ids, place = np.unique(values, return_inverse=True)
        return ids, place
    present = np.zeros(span, bool)
    present[values - low] = True
    return np.flatnonzero(present) + low, (np.cumsum(present) - 1)[values - low]


def _check_last(path: Path, timestamps: np.ndarray, n_header: int) -> None:
    """A file that breaks off within the seconds since 1970 has a last time of fewer digits than all others."""
    if timestamps.size > 1 and timestamps[:-1].min() >= 10**8 > timestamps[-1]:
        raise FileError(
            f"{path}: line {timestamps.size + n_header}, the last one, has no end, and its timestamp "
            f"{timestamps[-1]:g} has fewer digits than all others: the file is truncated"
        )


def _sorted(path: Path, layout: Layout, whole: dict[str, np.ndarray]) -> Ratings:
    """The columns as a CSR matrix; a pair that comes twice is an error."""
    from scipy.sparse import csr_array

    users, items, data, times = whole["user_ids"], whole["item_ids"], whole["rating"], whole.get("timestamp")
    codes = whole["user"] * np.int64(items.size) + whole["item"]
    if not (codes[1:] > codes[:-1]).all():
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
        twice = np.flatnonzero(codes[1:] == codes[:-1])
        if twice.size:
            first = twice[np.argmin(order[twice + 1])]
            lines = order[first : first + 2] + 1 + layout.n_header
            raise FileError(
                f"{path}: lines {lines[0]} and {lines[1]} both rate item {items[codes[first] % items.size]} by user "
                f"{users[codes[first] // items.size]}; keep one of them"
            )
        data, times = data[order], None if times is None else times[order]
    counts = np.bincount(codes // items.size, minlength=users.size)
    kind = np.int32 if max(codes.size, items.size) < 2**31 else np.int64
    arrays = data, (codes % items.size).astype(kind), np.concatenate([[0], np.cumsum(counts)]).astype(kind)
    return Ratings(csr_array(arrays, shape=(users.size, items.size)), users, items, times)


# --- pairs ------------------------------------------------------------------------------------------------------------


def load_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Read pairs of a user's and an item's id from a text file; more columns are passed over.

    The layouts are those of `load_ratings`, so that a file of ratings is one of pairs, too; blank lines are skipped.

    Raises
    ------
    FileError
        If a line has fewer than two fields, or the file is none of text; with the number of the line.
    """
    path = Path(path)
    check_readable(path)
    pairs: list[tuple[str, str]] = []
    delimiter, first, second, number = b"", 0, 1, 0
    with _open(path) as handle:
        while line := _read(path, handle, number, whole_line=True):
            number += 1
            line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
            if not line.strip():
                continue
            begins = not delimiter
            if begins:
                delimiter = next(
                    (known for known in (b"::", b"\t") if known in line), max((b",", b";"), key=line.count)
                )
            fields = split_line(path, delimiter, line, number)
            if begins and len(fields) > 1 and not any(map(is_number, fields)) and _plain_name(fields[0]) in _HEADS:
                places = _named_columns(path, fields, needed=("user", "item"))
                first, second = places["user"], places["item"]
                continue
            if len(fields) <= max(first, second) or not (fields[first] and fields[second]):
                raise FileError(f"{path}: line {number} must have a user and an item, got {line[:40].decode()!r}")
            pairs.append((fields[first], fields[second]))
    if not pairs:
        raise FileError(f"{path}: the file has no pairs")
    return pairs
