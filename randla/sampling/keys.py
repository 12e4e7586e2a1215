"""Keys of rows as 64-bit integers: row numbers, integers as they are, strings by a keyed hash."""

from __future__ import annotations

import hashlib
import operator
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, is_numpy_namespace

from .._arrays import dtype_name, from_host
from .._random import Key

#: How keys were given.  The two kinds never meet: a hash that equals an integer would be an accident.
KEY_KINDS = ("integer", "text")


def as_keys(keys: Any, n: int, start: int, key: Key, xp: Any, like: Any) -> tuple[Any, str]:
    """(int64 array on the device of `like`, kind of keys); None numbers the rows from `start` on."""
    if keys is None:
        return from_host(np.arange(start, start + n, dtype=np.int64), xp, like), "integer"
    if is_array_api_obj(keys) and not is_numpy_namespace(xp) and not isinstance(keys, np.ndarray):
        _check_integers(dtype_name(keys.dtype))
        _check_length(keys.shape, n)
        return xp.astype(keys, xp.int64), "integer"
    listed = _listed(keys)
    _check_length(listed.shape, n)
    if listed.size == 0:
        return from_host(np.zeros(0, np.int64), xp, like), "integer"
    if listed.dtype.kind in "SUOT":
        numbers = hashed(listed, key)
        kind = "integer" if numbers is None else "text"
        numbers = _integers(listed) if numbers is None else numbers
    else:
        _check_integers(listed.dtype.name)
        # two's complement: an unsigned key of 64 bits keeps its bits
        numbers, kind = listed.astype(np.int64 if listed.dtype.kind == "i" else np.uint64).view(np.int64), "integer"
    return from_host(np.ascontiguousarray(numbers), xp, like), kind


def hashed(texts: np.ndarray, key: Key) -> np.ndarray | None:
    """BLAKE2b of 8 bytes under the key, of the UTF-8 bytes; int64.  None if there are numbers and no text.

    A string that occurs again is looked up, not hashed.
    """
    values = texts.tolist()
    distinct = set(values)
    kinds = {type(value) for value in distinct}
    if not kinds & {str, bytes}:
        return None
    if not kinds <= {str, bytes}:
        wrong = next(kind for kind in kinds if kind not in (str, bytes))
        raise TypeError(f"keys must be integers, or strings and bytes, got both text and {wrong.__name__}")
    secret = key.lo.to_bytes(4, "little") + key.hi.to_bytes(4, "little")
    numbers = {}
    for value in distinct:
        data = value.encode() if isinstance(value, str) else value
        digest = hashlib.blake2b(data, digest_size=8, key=secret).digest()
        numbers[value] = int.from_bytes(digest, "little", signed=True)
    return np.fromiter((numbers[value] for value in values), np.int64, len(values))


def _listed(keys: Any) -> np.ndarray:
    if isinstance(keys, (str, bytes)) or not hasattr(keys, "__len__"):
        raise TypeError(f"keys must be an array or a list with one key for each row, got {type(keys).__name__}")
    if isinstance(keys, (list, tuple)) and any(isinstance(key, (str, bytes)) for key in keys):
        return np.array(keys, dtype=object)  # NumPy would turn a list of texts and numbers into texts
    return np.asarray(keys)


def _integers(listed: np.ndarray) -> np.ndarray:
    """Python integers of an object array; those of 64 unsigned bits keep their bits."""
    try:
        if any(isinstance(value, (bool, np.bool_)) for value in listed):
            raise TypeError
        values = [operator.index(value) for value in listed]
    except TypeError:
        raise TypeError("keys must be integers, or strings and bytes, got other objects; map them to one") from None
    if min(values) < -(2**63) or max(values) >= 2**64:
        raise ValueError("keys must be integers of 64 bits, got a larger one; pass it as a string")
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64)


def _check_integers(name: str) -> None:
    if not name.startswith(("int", "uint")):
        raise TypeError(f"keys must be integers, strings or bytes, got {name}; numbers with a fraction are no names")


def _check_length(shape: tuple[int, ...], n: int) -> None:
    if tuple(shape) != (n,):
        raise ValueError(f"keys must have shape ({n},), one for each row, got {tuple(shape)}")


def has_repeats(numbers: Any, xp: Any) -> bool:
    """True if two of the numbers are equal."""
    if numbers.shape[0] < 2 or bool(xp.all(numbers[1:] > numbers[:-1])):
        return False
    ordered = xp.sort(numbers, stable=False)
    return bool(xp.any(ordered[1:] == ordered[:-1]))
