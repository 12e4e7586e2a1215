"""The lines of a text file of ratings, parsed in blocks.

`parse_block` reads all lines of a block at once, as arrays of bytes, and knows regular lines only.  `parse_lines` reads
one after the other, knows every line, and names the one that is wrong.  Where both have an answer it is the same.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import FileError

#: The longest name of a user or an item, in bytes.
_LONGEST = 64


@dataclass(frozen=True)
class Layout:
    """Where a line has which field."""

    delimiter: bytes
    n_fields: int
    places: dict[str, int]
    n_header: int


class Wider(Exception):
    """A column is no column of integers: ids are texts, timestamps have fractions."""


# --- lines, one by one ------------------------------------------------------------------------------------------------


def _shown(text: str) -> str:
    return repr(text[:40])


def is_number(text: str) -> bool:
    """True if Python reads it as a number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python allows between digits


def plain_integer(text: bytes) -> int | None:
    """The value of a plain integer of up to 18 digits: no zeros in front, no plus; else None."""
    digits = text.removeprefix(b"-")
    if not (digits.isdigit() and len(digits) <= 18) or (digits[:1] == b"0" and text != b"0"):
        return None
    return int(text)


def split_line(path: Path, delimiter: bytes, line: bytes, number: int) -> list[str]:
    """The fields of a line, checked to be text."""
    control = next((byte for byte in line if byte < 32 and byte != 9), None)
    if control is not None:
        raise FileError(f"{path}: line {number} is no text, it has a byte 0x{control:02x}; is the file a binary one?")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        place = f"byte 0x{byte:02x} at place {error.start + 1}"
        raise FileError(f"{path}: line {number} is not in UTF-8 ({place}); save the file as UTF-8") from None
    if '"' in text and delimiter in (b",", b";"):
        try:
            return [field.strip() for field in next(csv.reader([text], delimiter=delimiter.decode(), strict=True))]
        except csv.Error:
            raise FileError(f"{path}: line {number} has a quotation mark that is not closed") from None
    return [field.strip() for field in text.split(delimiter.decode())]


@dataclass(frozen=True)
class Block:
    """Whole lines of the file; `cut` where the last of them ends with the file in place of a line feed."""

    text: bytes
    first_line: int
    cut: bool


def parse_lines(path: Path, layout: Layout, block: Block, texts: frozenset[str]) -> dict[str, np.ndarray]:
    """The columns of a block, line by line; raises at the first line that is wrong."""
    columns: dict[str, list[Any]] = {column: [] for column in layout.places}
    lines = block.text.removesuffix(b"\n").split(b"\n")
    for offset, line in enumerate(lines):
        number, line = block.first_line + offset, line.removesuffix(b"\r")
        fields = split_line(path, layout.delimiter, line, number)
        if len(fields) != layout.n_fields:
            if block.cut and offset == len(lines) - 1 and len(fields) < layout.n_fields:
                raise FileError(
                    f"{path}: line {number}, the last one, has {len(fields)} of {layout.n_fields} fields: "
                    "the file is truncated"
                )
            got = f"{len(fields)}" if line.strip() else "a blank line"
            raise FileError(f"{path}: line {number} must have {layout.n_fields} fields, got {got}")
        for column, values in columns.items():
            values.append(_value(path, column, fields[layout.places[column]], number, column in texts))
    kinds = {"user": bytes, "item": bytes, "timestamp": np.float64}
    return {
        column: np.array(values, kinds[column] if column in texts else np.float64 if column == "rating" else np.int64)
        for column, values in columns.items()
    }


def _value(path: Path, column: str, text: str, number: int, wide: bool) -> Any:
    if column in ("user", "item"):
        if not text:
            raise FileError(f"{path}: line {number}: the {column} has no name")
        encoded = text.encode()
        if len(encoded) > _LONGEST:
            raise FileError(
                f"{path}: line {number}: the {column}'s name must have at most {_LONGEST} bytes, got {_shown(text)}"
            )
        whole = encoded if wide else plain_integer(encoded)
    elif column == "rating" or wide:
        value = float(text) if is_number(text) else math.nan
        if not math.isfinite(value):
            raise FileError(f"{path}: line {number}: the {column} must be a finite number, got {_shown(text)}")
        return value
    else:
        whole = plain_integer(text.encode())
    if whole is None:
        raise Wider(column)
    return whole


# --- lines, all at once -----------------------------------------------------------------------------------------------


def parse_block(layout: Layout, block: Block, texts: frozenset[str]) -> dict[str, np.ndarray] | None:
    """The columns of a block of regular lines; None where a line may be anything else."""
    text, delimiter = block.text, layout.delimiter
    if delimiter == b"::":
        if b"\t" in text:
            return None
        text, delimiter = text.replace(b"::", b"\t"), b"\t"
    raw = np.frombuffer(text, np.uint8)
    separators = np.flatnonzero((raw == delimiter[0]) | (raw == 10))
    if separators.size % layout.n_fields:
        return None
    ends = separators.reshape(-1, layout.n_fields)
    if not ((raw[ends[:, -1]] == 10).all() and (raw[ends[:, :-1]] == delimiter[0]).all()):
        return None
    starts = np.empty_like(ends)
    starts[:, 1:] = ends[:, :-1] + 1
    starts[0, 0], starts[1:, 0] = 0, ends[:-1, -1] + 1
    ends[:, -1] -= raw[ends[:, -1] - 1] == 13
    if b'"' in text and delimiter in (b",", b";"):
        quoted = raw[np.minimum(starts, raw.size - 1)] == 34
        closed = (raw[ends - 1] == 34) & (ends - starts > 1)
        if (quoted != closed).any() or 2 * int(quoted.sum()) != text.count(b'"'):
            return None
        starts, ends = starts + quoted, ends - quoted
    columns = {}
    for column, place in layout.places.items():
        read = _decimals if column == "rating" else _integers
        if column in texts:
            read = _decimals if column == "timestamp" else _words
        values = read(raw, starts[:, place], ends[:, place])
        if values is None:
            return None
        columns[column] = values
    return columns


def _integers(raw: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray | None:
    """Plain integers, as in `plain_integer`."""
    read = _digits(raw, start, stop, dots=False)
    if read is None:
        return None
    value, _, negative, first = read
    if ((first == 48) & ((stop - start > 1) | negative)).any():
        return None
    return np.where(negative, -value, value)


def _decimals(raw: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray | None:
    """Decimal numbers of at most 15 digits, of which the quotient by a power of ten is correctly rounded."""
    if stop.size and int((stop - start).max()) > 16:
        return None
    read = _digits(raw, start, stop, dots=True)
    if read is None:
        return None
    value, places, negative, _ = read
    if int(value.max(initial=0)) >= 10**15:
        return None
    return np.where(negative, -1.0, 1.0) * value / (10.0 ** np.arange(17))[places]


def _digits(
    raw: np.ndarray, start: np.ndarray, stop: np.ndarray, *, dots: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """(digits as an integer, those after the point, whether a minus is in front, the first byte after it), or None."""
    negative = raw[start] == 45
    start = start + negative
    width = stop - start
    if width.size == 0 or int(width.min()) < 1 or int(width.max()) > 18:
        return None
    value, places, points = np.zeros(start.size, np.int64), np.zeros(start.size, np.int64), np.zeros(start.size, bool)
    shortest = int(width.min())
    for step in range(int(width.max())):
        digit = raw[np.minimum(start + step, raw.size - 1)] - np.uint8(48)  # bytes below "0" wrap round to above 9
        is_digit = digit <= 9
        inside = True if step < shortest else step < width
        is_point = (digit == 254) & inside if dots else False  # "." is the byte 46
        if not (is_digit | is_point | np.logical_not(inside)).all() or (dots and (is_point & points).any()):
            return None
        counted = is_digit & inside
        value = np.where(counted, 10 * value + digit, value)
        if dots:
            places += counted & points
            points |= is_point
    if dots and (width == points).any():  # a point alone
        return None
    return value, places, negative, raw[start]


def _words(raw: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray | None:
    """Printable ASCII texts without spaces at their ends, as bytes."""
    width = stop - start
    if width.size == 0 or int(width.min()) < 1 or int(width.max()) > _LONGEST:
        return None
    if (raw[start] <= 32).any() or (raw[stop - 1] <= 32).any():
        return None
    at = start[:, None] + np.arange(int(width.max()))
    letters = raw[np.minimum(at, raw.size - 1)]
    letters[at >= stop[:, None]] = 32
    if ((letters < 32) | (letters > 126)).any():
        return None
    letters[at >= stop[:, None]] = 0
    return letters.view(f"S{letters.shape[1]}")[:, 0]
