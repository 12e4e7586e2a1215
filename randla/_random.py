"""Counter-based randomness: every random number is a pure function of (key, stream, index, lane).

A random word is Philox4x32-10 applied to a 128-bit counter under a 64-bit key [1]_:

* counter words 0 and 1: the global 64-bit index of the thing that is drawn (a column of S, a sampled row),
* counter word 2: the lane, a block of four words inside the thing,
* counter word 3: the stream, which says what the words are used for.

So a table of a sketch does not depend on blocks, threads, devices or order of arrival.

References
----------
.. [1] Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

#: Version of the map from keys to tables.  A new number is a major-version event ("Stream changes" in the changelog).
STREAM_VERSION = 1

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


class Stream(IntEnum):
    """Register of streams, the last counter word.  A number is never used for anything else."""

    SPARSE_SIGN = 0
    GAUSSIAN = 1
    SAMPLE = 2
    FOLD = 3
    RADEMACHER = 4
    SPARSE_JL = 5
    LESS = 6
    TRIGONOMETRIC_SIGN = 7
    PERMUTATION = 8
    BLOCK_SIGN = 9
    COORDINATED = 10
    POISSON = 11
    POOL = 12
    RACE = 13
    RACE_TAIL = 14


def philox(counter: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Philox4x32-10 of an array of counters, shape (..., 4), under the key (lo, hi); uint32 (..., 4)."""
    c0, c1, c2, c3 = (np.asarray(counter[..., w], np.uint64) for w in range(4))
    for r in range(10):
        k0 = np.uint64((lo + r * _WEYL[0]) & 0xFFFFFFFF)
        k1 = np.uint64((hi + r * _WEYL[1]) & 0xFFFFFFFF)
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(key: Key, stream: int, index: Any, lane: Any) -> np.ndarray:
    """The four words of each (index, lane) pair (broadcast against each other); uint32 (..., 4)."""
    index, lane = np.broadcast_arrays(np.asarray(index, np.uint64), np.asarray(lane, np.uint64))
    counter = np.stack([index & _LOW, index >> _HALF, lane, np.full_like(index, int(stream))], axis=-1)
    return philox(counter, key.lo, key.hi)


@dataclass(frozen=True)
class Key:
    """A 64-bit Philox key: the whole random state of an operator, as two 32-bit words.

    Passing the same Key twice gives the same draws twice; `fold` derives independent keys from it.

    Parameters
    ----------
    lo, hi : int
        The two words, each in [0, 2**32); `as_key` makes them from a seed.

    Examples
    --------
    >>> import randla
    >>> key = randla.as_key(7)
    >>> key.fold("power") == key.fold("power"), key.fold("power") == key.fold("test")
    (True, False)
    """

    lo: int
    hi: int

    def __post_init__(self) -> None:
        for name in ("lo", "hi"):
            value = operator.index(getattr(self, name))
            if not 0 <= value < 2**32:
                raise ValueError(f"Key.{name} must be in [0, 2**32), got {value}")

    def __repr__(self) -> str:
        return f"Key(0x{self.lo:08x}, 0x{self.hi:08x})"

    def fold(self, label: str | int) -> Key:
        """Return the key that belongs to `label` under this one; different labels give unrelated keys."""
        if isinstance(label, str):
            number, lane = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little"), 1
        else:
            try:
                number, lane = operator.index(label), 0
            except TypeError:
                raise TypeError(f"label must be a string or an integer in [0, 2**64), got {label!r}") from None
            if not 0 <= number < 2**64:
                raise ValueError(f"label must be a string or an integer in [0, 2**64), got {label}")
        lo, hi = words(self, Stream.FOLD, number, lane)[:2]
        return Key(int(lo), int(hi))


def as_key(rng: Any = None) -> Key:
    """Turn None, an int, a SeedSequence, a Generator or a Key into a Key.

    Parameters
    ----------
    rng : None, int, SeedSequence, Generator or Key
        None draws fresh entropy from the system; a Generator is consumed, so two calls differ; a Key is returned as it
        is.  See :ref:`random`.

    Returns
    -------
    Key

    Raises
    ------
    TypeError, ValueError
        If `rng` is something else, or a negative integer.

    Examples
    --------
    >>> import randla
    >>> randla.as_key(0) == randla.as_key(0), randla.as_key(0) == randla.as_key(1)
    (True, False)
    """
    if isinstance(rng, Key):
        return rng
    if isinstance(rng, np.random.Generator):
        drawn = rng.integers(0, 2**32, size=2, dtype=np.uint32)
        return Key(int(drawn[0]), int(drawn[1]))
    if rng is None or isinstance(rng, np.random.SeedSequence):
        sequence = rng if rng is not None else np.random.SeedSequence()
    else:
        sequence = np.random.SeedSequence(_as_seed(rng))
    lo, hi = sequence.generate_state(2, np.uint32)
    return Key(int(lo), int(hi))


def _as_seed(rng: Any) -> int:
    try:
        if isinstance(rng, (bool, np.bool_)):
            raise TypeError
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(
            "rng must be None, an int, a SeedSequence, a Generator or a randla.Key, "
            f"got {type(rng).__name__}; pass an int for reproducible results"
        ) from None
    if seed < 0:
        raise ValueError(f"rng must be a non-negative integer, got {seed}")
    return seed
