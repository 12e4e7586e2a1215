"""Coordinated samples as bytes: a header of fixed fields, the arrays, a checksum; no pickle.

The page "Coordinated sampling" has the table of fields.  All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

import numpy as np

from .._arrays import dtype_name, is_sparse, to_host
from .._random import STREAM_VERSION, Key
from .keys import KEY_KINDS
from .selection import KINDS, WEIGHTS

MAGIC = b"randlaCS"
VERSION = 1
_HEADER = struct.Struct("<8sHHBBBBBB2xII6Qd3d3d")  # magic, versions, codes, key, sizes, norm, thresholds, dropped
_DIGEST = 32  # bytes of the SHA-256 at the end
_DTYPES = ("float32", "float64")
_LAYOUTS = ("dense", "csr")


def pack(sample: Any) -> bytes:
    """The bytes of a CoordinatedSample."""
    rows, sparse = sample.rows, is_sparse(sample.rows)
    parts = [("<i8", sample.keys)]
    if sparse:
        lengths = rows.indptr[1:] - rows.indptr[:-1]
        parts += [("<i4", lengths), ("<i4", rows.indices), (f"<f{rows.data.dtype.itemsize}", rows.data)]
    else:
        parts += [("<f4" if dtype_name(rows.dtype) == "float32" else "<f8", rows)]
    n_entries = int(rows.data.shape[0]) if sparse else len(sample) * int(rows.shape[1])
    codes = (
        KINDS.index(sample.kind), WEIGHTS.index(sample.weight), KEY_KINDS.index(sample.key_kind),
        _LAYOUTS.index("csr" if sparse else "dense"), _DTYPES.index(dtype_name(rows.dtype)), len(sample.shape),
    )  # fmt: skip
    sizes = (sample.n_samples, sample.shape[0], rows.shape[1], len(sample), n_entries, sample.n_nonfinite)
    header = _HEADER.pack(
        MAGIC, VERSION, STREAM_VERSION, *codes, sample.key.lo, sample.key.hi, *sizes, sample.squared_norm,
        *_three(sample.thresholds, math.inf), *_three(sample.dropped, 0.0),
    )  # fmt: skip
    body = header + b"".join(np.ascontiguousarray(to_host(array)).astype(dtype).tobytes() for dtype, array in parts)
    return body + hashlib.sha256(body).digest()


def _three(values: tuple[float, ...], filler: float) -> tuple[float, ...]:
    return (*values, *(filler,) * (3 - len(values)))


def unpack(data: bytes) -> dict[str, Any]:
    """The fields of a CoordinatedSample but its weights, every one of them checked."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"data must begin with {MAGIC!r}, got {data[: len(MAGIC)]!r}; it is no coordinated sample")
    if len(data) < _HEADER.size + _DIGEST:
        raise ValueError(f"data must have at least {_HEADER.size + _DIGEST} bytes, got {len(data)}; it was cut off")
    _, version, stream_version, *rest = _HEADER.unpack_from(data)
    if version != VERSION or stream_version != STREAM_VERSION:
        raise ValueError(
            f"data must be of version {VERSION} with streams of version {STREAM_VERSION}, got {version} and "
            f"{stream_version}; read it with the release of randla that wrote it"
        )
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError("data must match its checksum, got other bytes; it was cut off or altered, copy it again")
    return _fields(data, rest)


def _fields(data: bytes, rest: list[Any]) -> dict[str, Any]:
    codes, (lo, hi), sizes, numbers = rest[:6], rest[6:8], rest[8:14], rest[14:]
    kinds = (KINDS, WEIGHTS, KEY_KINDS, _LAYOUTS, _DTYPES, ("", "vector", "matrix"))
    _check(all(code < len(names) for code, names in zip(codes, kinds, strict=True)) and codes[5] > 0, "known codes")
    kind, weight, key_kind, layout, dtype = (names[code] for code, names in zip(codes[:5], kinds[:5], strict=True))
    n_samples, m, d, k, n_entries, n_nonfinite = sizes
    n_weights = 3 if weight == "moments" else 1
    thresholds, dropped = numbers[1 : 1 + n_weights], numbers[4 : 4 + n_weights]
    _check(1 <= n_samples < 2**63 and k <= m < 2**63 and n_nonfinite <= m - k and d < 2**31, "sizes that fit together")
    _check(codes[5] == 2 or d == 1, "one column in a vector")
    _check(numbers[0] >= 0 and all(t > 0 for t in thresholds) and all(w >= 0 for w in dropped), "positive thresholds")
    keys, rows = _arrays(data, layout, dtype, k, d, n_entries)
    _check(bool(np.all(keys[1:] > keys[:-1])), "ascending keys")
    return {
        "keys": keys, "rows": rows, "thresholds": tuple(thresholds), "key": Key(lo, hi), "kind": kind,
        "weight": weight, "n_samples": n_samples, "key_kind": key_kind, "shape": (m, d)[: codes[5]],
        "squared_norm": numbers[0], "dropped": tuple(dropped), "n_nonfinite": n_nonfinite,
    }  # fmt: skip


def _arrays(data: bytes, layout: str, dtype: str, k: int, d: int, n_entries: int) -> tuple[np.ndarray, Any]:
    width = np.dtype(dtype).itemsize
    expected = 8 * k + (4 * k + (4 + width) * n_entries if layout == "csr" else width * n_entries)
    _check(len(data) - _HEADER.size - _DIGEST == expected, f"{expected} bytes of arrays")
    _check(layout == "csr" or n_entries == k * d, "an entry for each row and column")
    position = _HEADER.size

    def take(kind: str, count: int) -> np.ndarray:
        nonlocal position
        array = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), count, position)
        position += array.nbytes
        return array.astype(kind)

    keys = take("int64", k)
    if layout == "dense":
        return keys, take(dtype, n_entries).reshape(k, d)
    from scipy.sparse import csr_array

    lengths, indices, values = take("int32", k), take("int32", n_entries), take(dtype, n_entries)
    _check(bool(np.all(lengths >= 0)) and int(np.sum(lengths, dtype=np.int64)) == n_entries, "the entries of its rows")
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    _check(bool(np.all((indices >= 0) & (indices < d))), "columns inside the table")
    return keys, csr_array((values, indices, indptr), shape=(k, d))


def _check(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"data must hold {what}, got a contradiction; it was not written by to_bytes")
