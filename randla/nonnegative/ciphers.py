"""What messages between agents are made of: numbers under an additively homomorphic cipher, or in the clear.

A cipher makes a pair of keys.  With the public one, anyone encrypts integers, and turns encrypted m into encrypted
``factor m + addend``; only the pair decrypts.  That is all the protocol of `randla.nonnegative.distributed` asks for.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from .._checks import check_integer

CIPHERS = ("plain", "paillier")
SAFE_BITS = 2048  # of a modulus that is thought to be out of reach until 2030 (NIST SP 800-57 part 1, table 2)
LEAST_BITS = 256  # below, a product of two masked numbers does not fit
PLAIN_BYTES = 16  # of a number in the clear


class PublicKey(Protocol):
    """What others may know."""

    fingerprint: bytes
    capacity: int
    width: int

    def to_bytes(self) -> bytes:
        """The key as bytes."""

    def encrypt(self, values: Sequence[int]) -> list[int]:
        """Encrypted integers, each under fresh randomness; |value| <= capacity."""

    def affine(self, encrypted: Sequence[int], factors: Sequence[int], addends: Sequence[int]) -> list[int]:
        """Encrypted ``factor m + addend`` for encrypted m, under fresh randomness."""

    def check(self, encrypted: Sequence[int]) -> None:
        """Raise ValueError where a number cannot be a ciphertext of this key."""


class KeyPair(Protocol):
    """What one agent knows."""

    public: PublicKey

    def decrypt(self, encrypted: Sequence[int]) -> list[int]:
        """The integers."""

    def to_bytes(self) -> bytes:
        """The private key as bytes."""


class Cipher(Protocol):
    """A kind of key."""

    name: str

    def new_keys(self) -> KeyPair:
        """A new pair of keys."""

    def keys_from_bytes(self, data: bytes) -> KeyPair:
        """The pair that `KeyPair.to_bytes` wrote."""

    def public_from_bytes(self, data: bytes) -> PublicKey:
        """The key that `PublicKey.to_bytes` wrote."""


def cipher_of(cipher: Any, key_bits: int) -> Any:
    """The cipher of a name, or the object that was given."""
    if isinstance(cipher, str):
        if cipher == "plain":
            return PlainCipher()
        if cipher == "paillier":
            return PaillierCipher(key_bits)
    elif all(hasattr(cipher, name) for name in ("name", "new_keys", "keys_from_bytes", "public_from_bytes")):
        return cipher
    raise ValueError(f"cipher must be one of {', '.join(CIPHERS)}, or an object that makes keys, got {cipher!r}")


def fingerprint_of(key: bytes) -> bytes:
    """Sixteen bytes that tell keys from each other."""
    return hashlib.sha256(key).digest()[:16]


def checked(values: Sequence[int], capacity: int) -> Sequence[int]:
    """Integers that a key can hold, with their signs.

    Raises
    ------
    OverflowError
        If one is larger.
    """
    for value in values:
        if abs(value) > capacity:
            raise OverflowError(
                f"values must be at most the capacity of the key, about 2^{capacity.bit_length() - 1}, "
                f"got 2^{abs(value).bit_length() - 1}; raise key_bits, or divide the data by a larger scale"
            )
    return values


# --- in the clear -----------------------------------------------------------------------------------------------------


class PlainCipher:
    """No cipher: for simulations, and to compare with."""

    name = "plain"

    def new_keys(self) -> _PlainKeys:
        """A random name in place of a key."""
        return _PlainKeys(secrets.token_bytes(16))

    def keys_from_bytes(self, data: bytes) -> _PlainKeys:
        """The pair of a name."""
        return _PlainKeys(data)

    def public_from_bytes(self, data: bytes) -> _PlainKey:
        """The same, without anything to hide."""
        return _PlainKey(data)


class _PlainKey:
    capacity, width, modulus = 2 ** (8 * PLAIN_BYTES - 2), PLAIN_BYTES, 2 ** (8 * PLAIN_BYTES)

    def __init__(self, name: bytes) -> None:
        self.name, self.fingerprint = bytes(name), fingerprint_of(name)

    def to_bytes(self) -> bytes:
        return self.name

    def encrypt(self, values: Sequence[int]) -> list[int]:
        return [value % self.modulus for value in checked(values, self.capacity)]

    def affine(self, encrypted: Sequence[int], factors: Sequence[int], addends: Sequence[int]) -> list[int]:
        addends = checked(addends, self.capacity)
        return [(m * f + a) % self.modulus for m, f, a in zip(encrypted, factors, addends, strict=True)]

    def check(self, encrypted: Sequence[int]) -> None:
        if not all(0 <= c < self.modulus for c in encrypted):
            raise ValueError("numbers must fit the width of plain messages, got a larger one")


class _PlainKeys:
    def __init__(self, name: bytes) -> None:
        self.public = _PlainKey(name)

    def decrypt(self, encrypted: Sequence[int]) -> list[int]:
        half, modulus = self.public.modulus // 2, self.public.modulus
        return [c - modulus if c > half else c for c in encrypted]

    def to_bytes(self) -> bytes:
        return self.public.to_bytes()


# --- Paillier ---------------------------------------------------------------------------------------------------------


class PaillierCipher:
    """The cipher of Paillier, by the package `lightphe`.

    Primes and the randomness of ciphertexts are drawn from the operating system: those that the package draws itself
    come from Python's Mersenne Twister, whose state can be computed from its output, and who holds the private key
    sees the randomness of what is sent to it.  Where `gmpy2` is installed it does the arithmetic.

    Parameters
    ----------
    key_bits : int, key_bits >= 256, default 2048
        Bits of the modulus.  Fewer than 2,048 are for tests, and warn.

    Raises
    ------
    ImportError
        If `lightphe` is not installed.
    """

    name = "paillier"

    def __init__(self, key_bits: int = SAFE_BITS) -> None:
        self.key_bits = check_integer(key_bits, "key_bits", low=LEAST_BITS, remedy="take 2048, or 512 for a test")
        try:
            from lightphe.cryptosystems.Paillier import Paillier
        except ImportError:
            raise ImportError(
                'cipher="paillier" needs lightphe; install it with: pip install "randla[private]"'
            ) from None
        self._scheme = Paillier
        if self.key_bits < SAFE_BITS:
            warnings.warn(
                f"key_bits must be at least {SAFE_BITS} to keep a secret, got {self.key_bits}; this is for tests",
                UserWarning,
                stacklevel=2,
            )

    def new_keys(self) -> _PaillierKeys:
        """Two primes of half the bits each."""
        half = self.key_bits // 2
        while True:
            p, q = _prime(half), _prime(self.key_bits - half)
            if p != q and math.gcd(p * q, (p - 1) * (q - 1)) == 1:
                return _PaillierKeys(self._scheme, p * q, (p - 1) * (q - 1))

    def keys_from_bytes(self, data: bytes) -> _PaillierKeys:
        """The pair of a modulus and its totient, of one length."""
        if len(data) < 2 or len(data) % 2:
            raise ValueError(f"data must hold two numbers of one length, got {len(data)} bytes")
        half = len(data) // 2
        return _PaillierKeys(self._scheme, int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big"))

    def public_from_bytes(self, data: bytes) -> _PaillierKey:
        """The key of a modulus; keys of other sizes than one's own are refused."""
        n = int.from_bytes(data, "big")
        if n.bit_length() != self.key_bits or n % 2 == 0:
            raise ValueError(f"key must have an odd modulus of {self.key_bits} bits, got {n.bit_length()} bits")
        return _PaillierKey(self._scheme, n)


def _prime(bits: int) -> int:
    """A random prime whose two highest bits are set, so that products of two have the full length."""
    from sympy import isprime  # which lightphe needs anyway

    while True:
        candidate = secrets.randbits(bits) | 3 << (bits - 2) | 1
        if isprime(candidate):
            return candidate


def _integer(value: int) -> Any:
    """The integer as gmpy2 has it, where that is installed."""
    try:
        from gmpy2 import mpz
    except ImportError:
        return value
    return mpz(value)


class _PaillierKey:
    def __init__(self, scheme: Any, n: int, phi: int | None = None) -> None:
        modulus = _integer(n)
        keys = {"public_key": {"g": modulus + 1, "n": modulus}, "private_key": {}}
        if phi is not None:
            keys["private_key"]["phi"] = _integer(phi)
        self.n, self._scheme = n, scheme(keys=keys)
        self.capacity = n // 3  # numbers above 2 n / 3 are negative ones; what lies between tells of an overflow
        self.width = -(-2 * n.bit_length() // 8)
        self.fingerprint = fingerprint_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        return self.n.to_bytes(-(-self.n.bit_length() // 8), "big")

    def encrypt(self, values: Sequence[int]) -> list[int]:
        return [self._encrypted(value) for value in checked(values, self.capacity)]

    def _encrypted(self, value: int) -> int:
        # (1 + n)^m = 1 + n m modulo n^2: without it a negative number costs a second power of full length
        hidden = self._scheme.encrypt(0, random_key=self._unit())
        return int(self._scheme.add(hidden, 1 + self.n * (value % self.n)))

    def _unit(self) -> int:
        while True:
            r = secrets.randbelow(self.n)
            if r > 0 and math.gcd(r, self.n) == 1:
                return r

    def affine(self, encrypted: Sequence[int], factors: Sequence[int], addends: Sequence[int]) -> list[int]:
        scheme, out = self._scheme, []
        for c, factor, addend in zip(encrypted, factors, checked(addends, self.capacity), strict=True):
            powered = scheme.multiply_by_constant(_integer(c), factor)
            out.append(int(scheme.add(powered, self._encrypted(addend))))
        return out

    def check(self, encrypted: Sequence[int]) -> None:
        square = self.n * self.n
        for c in encrypted:
            if not 0 < c < square or math.gcd(c, self.n) != 1:
                raise ValueError("numbers must be ciphertexts under this key, got one that is none")


class _PaillierKeys:
    def __init__(self, scheme: Any, n: int, phi: int) -> None:
        self.public, self._phi = _PaillierKey(scheme, n, phi), phi

    def decrypt(self, encrypted: Sequence[int]) -> list[int]:
        n, scheme, found = self.public.n, self.public._scheme, []
        for c in encrypted:
            value = int(scheme.decrypt(_integer(c)))
            found.append(value - n if value > n // 2 else value)
        return found

    def to_bytes(self) -> bytes:
        length = -(-self.public.n.bit_length() // 8)
        return self.public.to_bytes() + self._phi.to_bytes(length, "big")
