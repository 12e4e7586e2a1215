"""States of a fit on disk: written whole after each sweep, read only for the data and parameters they belong to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import dtype_name, from_host, to_host
from .._atomic import write_atomically
from .._random import Key
from ..streaming.packing import consistent, pack, unpack
from .als_state import State
from .observations import Observations

_KIND = b"CALS"


def fingerprint(fitted: Observations, others: Iterable[Any], words: str) -> bytes:
    """SHA-256 of the entries, of other arrays (None: left out), and of the parameters in words."""
    digest = hashlib.sha256(f"{words}|{fitted.shape}".encode())
    for part in (fitted.data, fitted.indices, fitted.indptr, *others):
        if part is None:
            digest.update(b"none")
            continue
        host = np.ascontiguousarray(to_host(part))
        wide = (
            host.astype(np.int64, copy=False) if host.dtype.kind == "i" else host
        )  # int32 and int64 indices are equal
        digest.update(f"{wide.dtype}{wide.shape}".encode())
        digest.update(wide.data)
    return digest.digest()


class Checkpoint:
    """The file of a fit."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ValueError(f"checkpoint must name a file in a folder that exists, got {str(path)!r}")
        self._fields = _read(self.path.read_bytes(), self.path) if self.path.is_file() else None

    @property
    def key(self) -> Key | None:
        """The key that the fit in the file was begun with."""
        return None if self._fields is None else Key(*self._fields.integers[:2])

    def load(self, print_: bytes, like: Any, xp: Any) -> State | None:
        """The state in the file, on the device of `like`; None where there is no file.

        Raises
        ------
        ValueError
            If it belongs to other data or parameters.
        """
        if self._fields is None:
            return None
        numbers, (scale,), arrays, _ = self._fields
        if b"".join(int(word).to_bytes(8, "little") for word in numbers[2:6]) != print_:
            raise ValueError(
                f"checkpoint must belong to these data and parameters, got {str(self.path)!r} of another fit; "
                "pass what that fit had, or name a new file"
            )
        consistent(len(arrays) in (4, 6), "two factors, two histories and what was best")
        row, col, history, validation, *best = arrays
        placed = [from_host(part, xp, like) for part in (row, col, *best)]
        consistent(
            all(dtype_name(part.dtype) == dtype_name(like.dtype) for part in placed), "factors of the data's dtype"
        )
        self._fields = None
        pair = (placed[2], placed[3]) if best else None
        return State(
            placed[0], placed[1], tuple(history[0].tolist()), tuple(validation[0].tolist()), scale, pair, numbers[6]
        )

    def save(self, state: State, key: Key, print_: bytes) -> None:
        """Write the state in place of the one before."""
        words = tuple(int.from_bytes(print_[i : i + 8], "little") for i in range(0, 32, 8))
        arrays = [state.row, state.col]
        arrays += [np.asarray(part, np.float64)[None, :] for part in (state.history, state.validation)]
        arrays += [] if state.best is None else list(state.best)
        data = pack(_KIND, (key.lo, key.hi, *words, state.best_iter), (state.scale,), arrays)
        write_atomically(self.path, lambda handle: handle.write(data))


def _read(data: bytes, path: Path) -> Any:
    try:
        return unpack(data, _KIND, (7, 1))
    except ValueError as error:
        raise ValueError(f"checkpoint must be a file that complete() wrote, got {str(path)!r}: {error}") from None
