"""One agent of a distributed factorisation: its block, its factors, its keys; what it sends and what it takes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace

from .._backend import kernel
from .._random import Key, Stream
from ..streaming.packing import consistent, pack, unpack
from ._matrices import as_nonnegative, gram
from .frobenius import exact_squares, half_step
from .initialization import random_factor
from .messages import EVERYONE, Kind, Message

MASKS = ("entrywise", "scalar", "fixed")
FRACTION_BITS = 24  # of a mask, and what is promised of a masked difference: it is off by less than 2^-24
GUARD_BITS = 8  # more, of a factor: rounding and blurring lie below what is promised
LIMIT_BITS = 20  # entries of factors stay below 2^20; those of scaled data are near one
_STATE = b"CNMF"


@dataclass(frozen=True)
class Terms:
    """What all agents agree on, and may be known to all: sizes, the start, how masks are drawn."""

    m: int
    rank: int
    start: Key
    scale: float
    masks: str = "entrywise"
    mask_range: tuple[float, float] = (0.7, 2.0)
    rho: float = 2.0
    n_sweeps: int = 5


class ConsensusAgent:
    """An agent that holds the block X_i (m, n_i), learns W_i (m, rank) and H_i (rank, n_i), and tells none of them.

    An iteration: `offer` to all neighbours, `answer` to their offers, `receive` their answers, `advance`.  Nothing of
    the state changes before `advance`, so that an iteration in which a message was lost or refused can be repeated.

    Parameters
    ----------
    number : int
        Its number in the graph.
    neighbours : sequence of int
        Those it talks to.
    block : array or sparse matrix, shape (m, n_i)
        Nonnegative data; never sent.
    terms : Terms
        What all agree on.
    cipher : Cipher
        How messages are encrypted.
    masks_key : Key or None
        Source of masks for repeatable runs; None asks the operating system.
    """

    def __init__(
        self, number: int, neighbours: Sequence[int], block: Any, terms: Terms, cipher: Any,
        masks_key: Key | None = None,
    ) -> None:  # fmt: skip
        self.number, self.neighbours, self.terms = number, tuple(sorted(neighbours)), terms
        self._masks_key, self._cipher, self._keys = masks_key, cipher, cipher.new_keys()
        self._data = _block(block, terms, f"blocks[{number}]")
        shape = (terms.rank, terms.m)
        self._Wt = np.asarray(random_factor(terms.rank, terms.m, self._data, terms.start.fold("W")), np.float64)
        self._H = np.asarray(random_factor(terms.rank, self._data.shape[1], self._data, terms.start.fold(number)))
        self._V, self._U, self._P = np.zeros(shape), np.zeros(shape), self._Wt.copy()
        self.n_iter, self.n_messages, self.n_bytes = 0, 0, 0
        self.distance, self.change = math.inf, math.inf
        self._others: dict[int, Any] = {}
        self._received: dict[int, np.ndarray] = {}
        self._drawn: dict[int, list[int]] = {}
        self._streams: dict[tuple[str, int], Key] = {}

    # --- what it knows ------------------------------------------------------------------------------------------------

    @property
    def W(self) -> np.ndarray:
        """Its copy of the common factor, (m, rank), nonnegative.  Private."""
        return np.ascontiguousarray(self._P.T)

    @property
    def H(self) -> np.ndarray:
        """Its own factor (rank, n_i), in the units of its block.  Private."""
        return self._H * self.terms.scale

    @property
    def squares(self) -> tuple[float, float]:
        """Squared norms of ``X_i - W_i H_i`` and of X_i, in units of ``scale**2``.  Private."""
        dtype = self._data.dtype
        squares = exact_squares(self._data, self._P.astype(dtype), self._H) if self._data.squared_norm > 0 else 0.0
        return squares, self._data.squared_norm

    @property
    def proximal(self) -> float:
        """A weight that no sum of products of its masks exceeds, whatever is drawn; it may so stay fixed."""
        return len(self.neighbours) * self.terms.mask_range[1] ** 2

    # --- messages -----------------------------------------------------------------------------------------------------

    def hello(self) -> bytes:
        """Its public key, for everyone."""
        key = self._keys.public.to_bytes()
        number = int.from_bytes(key, "big")
        return self._sent(Message(Kind.KEY, self.number, EVERYONE, 0, (0, 0), self._keys.public.fingerprint, len(key),
                                  (number,)), copies=len(self.neighbours))  # fmt: skip

    def meet(self, data: bytes) -> None:
        """Take the public key of a neighbour.

        Raises
        ------
        ValueError
            If it is none, or of another size.
        """
        message, what = self._opened(data, Kind.KEY)
        if len(message.values) != 1:
            raise ValueError(f"{what} must hold one key, got {len(message.values)}")
        try:
            key = self._cipher.public_from_bytes(message.values[0].to_bytes(message.width, "big"))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{what} must hold a public key, got another: {error}") from None
        if key.fingerprint != message.fingerprint:
            raise ValueError(f"{what} must hold the key of its fingerprint, got another; ask for it again")
        self._others[message.sender] = key

    def offer(self) -> bytes:
        """``-W_i`` under its own key, the same for all neighbours.

        Raises
        ------
        OverflowError
            If an entry is 2^20 or larger: nothing is sent then.
        """
        key = self._keys.public
        values = key.encrypt([-value for value in self._integers()])
        message = Message(Kind.OFFER, self.number, EVERYONE, self.n_iter, self._shape, key.fingerprint, key.width,
                          tuple(values))  # fmt: skip
        return self._sent(message, copies=len(self.neighbours))

    def answer(self, data: bytes) -> bytes:
        """For a neighbour's offer ``-W_j`` under its key: ``mask * (W_i - W_j)`` under that key.

        The mask is a random number for each entry.  A random number of half a mask at most is added: a product of two
        integers could be factored, and would tell both.

        Raises
        ------
        ValueError
            If the offer is not of this iteration, shape, neighbour or key.
        """
        message, what = self._opened(data, Kind.OFFER)
        key = self._others.get(message.sender)
        if key is None:
            raise ValueError(f"{what} must come after the key of {message.sender}, got it before; call meet first")
        self._check_numbers(message, key, what)
        masks = self._masks(message.sender)
        blurs = self._blurs(message.sender, masks)
        addends = [b * w + blur for b, w, blur in zip(masks, self._integers(), blurs, strict=True)]
        values = key.affine(message.values, masks, addends)
        reply = Message(Kind.ANSWER, self.number, message.sender, self.n_iter, self._shape, key.fingerprint, key.width,
                        tuple(values))  # fmt: skip
        return self._sent(reply)

    def receive(self, data: bytes) -> None:
        """Take a neighbour's answer: its mask times the difference, which the own mask multiplies.

        Raises
        ------
        ValueError
            If the answer is not of this iteration, shape, neighbour or key, came already, or decrypts to a number
            that no answer can be.
        """
        message, what = self._opened(data, Kind.ANSWER)
        self._check_numbers(message, self._keys.public, what)
        if message.receiver != self.number:
            raise ValueError(f"{what} must be for {self.number}, got one for {message.receiver}")
        if message.sender in self._received:
            raise ValueError(f"{what} must come once in an iteration, got it twice")
        found = self._keys.decrypt(message.values)
        bound = 2 ** (LIMIT_BITS + 2 + FRACTION_BITS + GUARD_BITS) * int(self.terms.mask_range[1] * 2**FRACTION_BITS)
        if any(abs(value) > bound for value in found):
            raise ValueError(
                f"{what} must decrypt to numbers below 2^{bound.bit_length()}, got a larger one; "
                "the sender used another key or another scale"
            )
        unit = 2.0 ** -(3 * FRACTION_BITS + GUARD_BITS)
        products = [value * b for value, b in zip(found, self._masks(message.sender), strict=True)]
        self._received[message.sender] = np.array([float(value) * unit for value in products]).reshape(self._Wt.shape)

    def advance(self) -> None:
        """End the iteration: sweeps of H, then W and the duals from the masked differences.

        Raises
        ------
        ValueError
            If a neighbour has not answered.
        """
        missing = [j for j in self.neighbours if j not in self._received]
        if missing:
            raise ValueError(f"agent {self.number} must have an answer of each neighbour, got none of {missing}")
        terms, data, c = self.terms, self._data, self.proximal
        D = sum((self._received[j] for j in self.neighbours), np.zeros(self._Wt.shape))
        Wt = np.maximum(self._Wt, 0.0).astype(data.dtype)
        H = half_step(gram(Wt, np), data.left(Wt), self._H, 0.0, 0.0, terms.n_sweeps, "hals", np)
        V = self._V - D / 2
        right = data.right(H) - V + c * self._Wt + D / 2 + terms.rho * (self._P - self._U)
        new = np.linalg.solve(gram(H, np) + (c + terms.rho) * np.eye(terms.rank), right.astype(np.float64))
        size = float(np.linalg.norm(self._Wt)) or 1.0
        self.change = float(np.linalg.norm(new - self._Wt)) / size
        self.distance = float(np.linalg.norm(D)) / (c * size) if c > 0 else 0.0
        self._P = np.maximum(new + self._U, 0.0)
        self._U = self._U + new - self._P
        self._Wt, self._H, self._V = new, H, V
        self.n_iter += 1
        self._received, self._drawn = {}, {}

    def forget(self) -> None:
        """Begin the iteration again: drop answers that were received; masks stay."""
        self._received = {}

    # --- parts of those -----------------------------------------------------------------------------------------------

    @property
    def _shape(self) -> tuple[int, int]:
        return self.terms.rank, self.terms.m

    def _integers(self) -> list[int]:
        """The entries of W_i in fixed point."""
        limit = 2.0**LIMIT_BITS
        largest = float(np.max(np.abs(self._Wt))) if self._Wt.size else 0.0
        if not largest < limit:
            raise OverflowError(
                f"factors of agent {self.number} must be below 2^{LIMIT_BITS}, got {largest:g}; "
                "pass a scale near the root mean square of all entries"
            )
        return [int(value) for value in np.rint(self._Wt * 2.0 ** (FRACTION_BITS + GUARD_BITS)).ravel()]

    def _masks(self, neighbour: int) -> list[int]:
        """The masks for a neighbour in this iteration; the same for what is answered and what is received."""
        if neighbour not in self._drawn:
            low, high = (int(part * 2**FRACTION_BITS) for part in self.terms.mask_range)
            count = self._Wt.size if self.terms.masks == "entrywise" else 1
            iteration = 0 if self.terms.masks == "fixed" else self.n_iter
            u = self._uniforms("mask", neighbour, iteration * count, count)
            drawn = low + np.floor(u * (high - low + 1)).astype(np.int64)
            self._drawn[neighbour] = np.broadcast_to(drawn, self._Wt.size).tolist()
        return self._drawn[neighbour]

    def _blurs(self, neighbour: int, masks: Sequence[int]) -> list[int]:
        """For each mask b a random integer from -b / 2 to b / 2."""
        u = self._uniforms("blur", neighbour, self.n_iter * len(masks), len(masks))
        return np.rint((u - 0.5) * np.array(masks, np.float64)).astype(np.int64).tolist()

    def _uniforms(self, label: str, neighbour: int, begin: int, count: int) -> np.ndarray:
        """Numbers on [0, 1) with 53 bits: of the system, or of keys where the run is to be repeatable."""
        fixed = label == "mask" and self.terms.masks == "fixed"
        if self._masks_key is None and not fixed:
            words = np.frombuffer(secrets.token_bytes(8 * count), np.uint64)
            return (words >> np.uint64(11)) * 2.0**-53
        if (label, neighbour) not in self._streams:
            key = self._fixed_key() if self._masks_key is None else self._masks_key
            self._streams[label, neighbour] = key.fold(label).fold(neighbour)
        uniforms = kernel("uniforms", np)
        return uniforms(self._streams[label, neighbour], Stream.SAMPLE, begin, begin + count)

    def _fixed_key(self) -> Key:
        """A key of its own for masks that stay, from its private key."""
        words = int.from_bytes(sha256(self._keys.to_bytes()).digest()[:8], "big")
        return Key(words & 0xFFFFFFFF, words >> 32)

    def _opened(self, data: bytes, kind: Kind) -> tuple[Message, str]:
        """A message of a neighbour, and what to call it."""
        message = Message.from_bytes(data, what=f"message to agent {self.number}")
        what = f"{kind.name.lower()} of {message.sender} to agent {self.number}"
        if message.kind is not kind:
            raise ValueError(f"{what} must be of kind {kind.name}, got {message.kind.name}")
        if message.sender not in self.neighbours:
            raise ValueError(f"{what} must come from one of {list(self.neighbours)}, got {message.sender}")
        return message, what

    def _check_numbers(self, message: Message, key: Any, what: str) -> None:
        if message.n_iter != self.n_iter:
            raise ValueError(
                f"{what} must be of iteration {self.n_iter}, got {message.n_iter}; messages got out of order"
            )
        if message.shape != self._shape or len(message.values) != self._Wt.size:
            raise ValueError(f"{what} must have shape {self._shape}, got {message.shape} with {len(message.values)}")
        if message.fingerprint != key.fingerprint or message.width != key.width:
            raise ValueError(
                f"{what} must be under the key {key.fingerprint.hex()[:8]}, got another; exchange keys again"
            )
        try:
            key.check(message.values)
        except ValueError as error:
            raise ValueError(f"{what} must hold ciphertexts, got other numbers: {error}") from None

    def _sent(self, message: Message, copies: int = 1) -> bytes:
        data = message.to_bytes()
        self.n_messages += copies
        self.n_bytes += copies * len(data)
        return data

    # --- states -------------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """All but the block: factors, duals, private key.  It stays where the block is."""
        inner = self._keys.to_bytes()
        integers = (self.number, self.n_iter, self.n_messages, self.n_bytes, len(inner))
        reals = (self._data.squared_norm, self.distance, self.change)
        return pack(_STATE, integers, reals, [self._Wt, self._H, self._V, self._U, self._P], inner)

    def restore(self, data: bytes) -> ConsensusAgent:
        """Go on from `to_bytes`; keys are to be exchanged again.

        Raises
        ------
        ValueError
            If the bytes are of another agent, block or shape.
        """
        fields = unpack(data, _STATE, (5, 3), nested=True)
        number, n_iter, n_messages, n_bytes, _ = fields.integers
        wanted = [self._Wt.shape, self._H.shape, *[self._Wt.shape] * 3]
        if number != self.number or fields.reals[0] != self._data.squared_norm:
            raise ValueError(f"state must be of agent {self.number} and its block, got agent {number}")
        consistent([part.shape for part in fields.arrays] == wanted, f"factors of shapes {wanted[:2]}")
        self._keys = self._cipher.keys_from_bytes(fields.inner)
        self._Wt, self._H, self._V, self._U, self._P = (np.array(part) for part in fields.arrays)
        self.n_iter, self.n_messages, self.n_bytes = n_iter, n_messages, n_bytes
        self.distance, self.change = fields.reals[1:]
        self._others, self._received, self._drawn = {}, {}, {}
        return self


def _block(block: Any, terms: Terms, name: str) -> Any:
    """A block divided by the scale."""
    try:
        data = as_nonnegative(block / terms.scale if hasattr(block, "dtype") else np.asarray(block) / terms.scale)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from None
    except OverflowError as error:
        raise ValueError(f"{name} must be moderate after division by scale={terms.scale:g}, got {error}") from None
    if not is_numpy_namespace(data.xp):
        raise NotImplementedError(f"{name} must be a NumPy array or SciPy matrix; messages are made on the host")
    if data.shape[0] != terms.m:
        raise ValueError(f"{name} must have {terms.m} rows as the others, got {data.shape[0]}")
    return data
