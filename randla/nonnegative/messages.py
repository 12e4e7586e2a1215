"""Messages between agents as bytes: who, to whom, when, under which key, the numbers, a checksum."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAGIC = b"randlaPM"
VERSION = 1
EVERYONE = 2**32 - 1
_HEADER = struct.Struct("<8sHHIIQIIII16s")
_DIGEST = 32  # bytes of the SHA-256 at the end: against accidents, not against forgery


class Kind(IntEnum):
    """What a message holds."""

    KEY = 1  # the sender's public key
    OFFER = 2  # minus the sender's factor, under the sender's key
    ANSWER = 3  # masked differences, under the receiver's key


@dataclass(frozen=True)
class Message:
    """One message; `values` are integers of at most `width` bytes each, `shape` that of the matrix they fill."""

    kind: Kind
    sender: int
    receiver: int
    n_iter: int
    shape: tuple[int, int]
    fingerprint: bytes
    width: int
    values: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """A header of fixed fields, the numbers with their high bytes first, and the SHA-256 of both."""
        header = _HEADER.pack(
            MAGIC, VERSION, int(self.kind), self.sender, self.receiver, self.n_iter, *self.shape, self.width,
            len(self.values), self.fingerprint,
        )  # fmt: skip
        body = header + b"".join(value.to_bytes(self.width, "big") for value in self.values)
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: Any, *, what: str = "message") -> Message:
        """The message that `to_bytes` wrote.

        Raises
        ------
        TypeError
            If `data` is not bytes.
        ValueError
            If it is no such message; `what` names it.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"{what} must be bytes, got {type(data).__name__}")
        data = bytes(data)
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{what} must begin with {MAGIC!r}, got {data[: len(MAGIC)]!r}; it is of another kind")
        if len(data) < _HEADER.size + _DIGEST:
            raise ValueError(
                f"{what} must have at least {_HEADER.size + _DIGEST} bytes, got {len(data)}; it was cut off"
            )
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise ValueError(f"{what} must match its checksum, got other bytes; ask for it again")
        _, version, kind, sender, receiver, n_iter, m, r, width, count, fingerprint = _HEADER.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"{what} must be of version {VERSION}, got {version}; agents must run one release")
        if kind not in list(Kind) or len(data) != _HEADER.size + width * count + _DIGEST:
            raise ValueError(f"{what} must hold {count} numbers of {width} bytes, got {len(data)} bytes in all")
        numbers = data[_HEADER.size : -_DIGEST]
        values = tuple(int.from_bytes(numbers[i * width : (i + 1) * width], "big") for i in range(count))
        return cls(Kind(kind), sender, receiver, n_iter, (m, r), fingerprint, width, values)
