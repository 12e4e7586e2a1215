"""States of streams as bytes: a header of fixed fields, the arrays, a checksum; no pickle.

The page "Streams" has the table of fields.  All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import dtype_name, to_host
from .._random import STREAM_VERSION

MAGIC = b"randlaST"
VERSION = 1
_HEADER = struct.Struct("<8s4sHHHHHH")  # magic, kind, versions of format and streams, counts of the three parts, 0
_SHAPE = struct.Struct("<QQQ")  # code of the dtype, rows, columns
_DTYPES = ("float32", "float64", "complex64", "complex128", "int64")
_DIGEST = 32  # bytes of the SHA-256 at the end


class Fields(NamedTuple):
    """What a state is made of."""

    integers: tuple[int, ...]
    reals: tuple[float, ...]
    arrays: tuple[np.ndarray, ...]
    inner: bytes = b""


def pack(
    kind: bytes, integers: Sequence[int], reals: Sequence[float], arrays: Sequence[Any], inner: bytes = b""
) -> bytes:
    """The bytes of a state of the four-letter kind: integers of 64 bits, doubles, matrices, and a state inside it.

    The last of the integers is the length of the inner state where there is one.
    """
    counts = len(integers), len(reals), len(arrays)
    parts = [_HEADER.pack(MAGIC, kind, VERSION, STREAM_VERSION, *counts, 0)]
    parts.append(struct.pack(f"<{counts[0]}Q{counts[1]}d", *integers, *reals))
    parts += [_SHAPE.pack(_DTYPES.index(dtype_name(A.dtype)), *A.shape) for A in arrays]
    for A in arrays:
        host = np.ascontiguousarray(to_host(A))
        parts.append(host.astype(host.dtype.newbyteorder("<"), copy=False).tobytes())
    body = b"".join([*parts, inner])
    return body + hashlib.sha256(body).digest()


def unpack(data: Any, kind: bytes, counts: tuple[int, int], *, nested: bool = False) -> Fields:
    """The fields of a state with `counts` integers and reals, after every check that does not need their meaning."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"data must begin with {MAGIC!r}, got {data[: len(MAGIC)]!r}; it is no state of a stream")
    if len(data) < _HEADER.size + _DIGEST:
        raise ValueError(f"data must have at least {_HEADER.size + _DIGEST} bytes, got {len(data)}; it was cut off")
    _, found, version, stream_version, n_integers, n_reals, n_arrays, reserved = _HEADER.unpack_from(data)
    if version != VERSION or stream_version != STREAM_VERSION:
        raise ValueError(
            f"data must be of version {VERSION} with streams of version {STREAM_VERSION}, got {version} and "
            f"{stream_version}; read it with the release of randla that wrote it"
        )
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError("data must match its checksum, got other bytes; it was cut off or altered, copy it again")
    if found != kind:
        raise ValueError(f"data must be a state of kind {kind!r}, got {found!r}; read it with the class that wrote it")
    consistent(reserved == 0 and (n_integers, n_reals) == counts, f"{counts[0]} integers and {counts[1]} reals")
    position = _HEADER.size + 8 * (n_integers + n_reals)
    consistent(position + n_arrays * _SHAPE.size + _DIGEST <= len(data), "all its fields")
    numbers = struct.unpack_from(f"<{n_integers}Q{n_reals}d", data, _HEADER.size)
    length = numbers[n_integers - 1] if nested else 0
    consistent(length <= len(data) - position - _DIGEST, "all of the state inside it")
    stop = len(data) - _DIGEST - length
    arrays = _arrays(data[:stop], position, n_arrays)
    return Fields(numbers[:n_integers], numbers[n_integers:], arrays, data[stop : stop + length])


def _arrays(data: bytes, position: int, n_arrays: int) -> tuple[np.ndarray, ...]:
    shapes = [_SHAPE.unpack_from(data, position + i * _SHAPE.size) for i in range(n_arrays)]
    position += n_arrays * _SHAPE.size
    consistent(all(code < len(_DTYPES) for code, _, _ in shapes), "known dtypes")
    kinds = [np.dtype(_DTYPES[code]).newbyteorder("<") for code, _, _ in shapes]
    sizes = [rows * columns for _, rows, columns in shapes]
    expected = sum(kind.itemsize * size for kind, size in zip(kinds, sizes, strict=True))
    consistent(len(data) - position == expected, f"{expected} bytes of arrays")
    found = []
    for kind, size, (_, rows, columns) in zip(kinds, sizes, shapes, strict=True):
        flat = np.frombuffer(data, kind, size, position)
        found.append(flat.astype(kind.newbyteorder("=")).reshape(rows, columns))
        position += kind.itemsize * size
    return tuple(found)


def consistent(good: bool, what: str) -> None:
    """Raise ValueError unless the fields of a state fit together."""
    if not good:
        raise ValueError(f"data must hold {what}, got a contradiction; it was not written by to_bytes")
