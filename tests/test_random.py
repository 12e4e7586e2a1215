"""Keys, folds and streams: known answers, semantics of `rng`, golden digests of everything that is drawn."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import pickle
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import randla
from randla import Key, as_key, kernels
from randla._random import STREAM_VERSION, Stream, philox, words
from randla.kernels import _philox, reference
from randla.kernels.reference import sketching

from .statistics import binomial_interval, binomial_upper

KEY = Key(0x9E3779B9, 0x12345678)

#: counter, key and words of the three published vectors of Random123 (kat_vectors, philox4x32 10 rounds)
KNOWN_ANSWERS = {
    "zeros": ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


def _hexadecimal(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@njit
def _one_block(index, lane, stream, k0, k1):
    return _philox.philox(index, lane, stream, k0, k1)


@pytest.mark.parametrize("vector", KNOWN_ANSWERS)
def test_known_answers(vector: str) -> None:
    counter, key, expected = map(_hexadecimal, KNOWN_ANSWERS[vector])
    assert philox(np.array(counter, np.uint64), *key).tolist() == expected
    index = counter[0] | counter[1] << 32
    assert words(Key(*key), counter[3], index, counter[2]).tolist() == expected
    compiled = _one_block(np.uint64(index), np.uint64(counter[2]), np.uint64(counter[3]), *map(np.uint64, key))
    assert list(compiled) == expected


def test_words_are_made_element_by_element() -> None:
    index, lane = np.array([[0], [5], [2**32], [2**63 + 9]], np.uint64), np.arange(3)
    table = words(KEY, Stream.GAUSSIAN, index, lane)
    assert table.shape == (4, 3, 4)
    assert table.dtype == np.uint32
    for i, j in itertools.product(range(4), range(3)):
        assert np.array_equal(table[i, j], words(KEY, Stream.GAUSSIAN, int(index[i, 0]), j))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_key_from_an_int() -> None:
    lo, hi = np.random.SeedSequence(17).generate_state(2, np.uint32)
    assert as_key(17) == Key(int(lo), int(hi)) == as_key(np.int64(17)) == as_key(np.random.SeedSequence(17))
    assert len({as_key(seed) for seed in range(1000)}) == 1000
    assert as_key(2**200) == as_key(2**200) != as_key(2**200 + 1)


def test_key_from_nothing_is_fresh() -> None:
    assert len({as_key() for _ in range(20)} | {as_key(None) for _ in range(20)}) == 40


def test_generator_is_consumed() -> None:
    rng = np.random.default_rng(3)
    first, second = as_key(rng), as_key(rng)
    assert first != second
    again = np.random.default_rng(3)
    assert (as_key(again), as_key(again)) == (first, second)


def test_key_is_reused() -> None:
    key = as_key(5)
    assert as_key(key) is key


def test_key_is_a_small_value() -> None:
    assert repr(KEY) == "Key(0x9e3779b9, 0x12345678)"
    assert eval(repr(KEY)) == KEY
    assert pickle.loads(pickle.dumps(KEY)) == KEY
    assert len(pickle.dumps(KEY)) < 200
    assert hash(Key(1, 2)) == hash(Key(1, 2))
    with pytest.raises(AttributeError):
        KEY.lo = 3


@pytest.mark.parametrize("bad", [(-1, 0), (0, 2**32), (2**40, 0)])
def test_words_of_a_key_are_words(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"Key\.(lo|hi) must be in \[0, 2\*\*32\), got"):
        Key(*bad)


@pytest.mark.parametrize(
    "bad", [True, np.True_, "7", 1.0, np.float64(2), [1, 2], np.array([1]), np.random.RandomState(0), object(), b"x"]
)
def test_as_key_refuses_other_kinds(bad: Any) -> None:
    with pytest.raises(TypeError, match=f"^rng must be None, an int, .* got {type(bad).__name__}; pass an int"):
        as_key(bad)


@pytest.mark.parametrize("bad", [-1, np.int64(-5), -(2**70)])
def test_as_key_refuses_negative_seeds(bad: int) -> None:
    with pytest.raises(ValueError, match=f"^rng must be a non-negative integer, got {bad}$"):
        as_key(bad)


# --- folds ------------------------------------------------------------------------------------------------------------


def test_fold_is_philox_under_its_stream() -> None:
    assert KEY.fold(2**40 + 1) == Key(*map(int, words(KEY, Stream.FOLD, 2**40 + 1, 0)[:2]))
    number = int.from_bytes(hashlib.sha256(b"power").digest()[:8], "little")
    assert KEY.fold("power") == Key(*map(int, words(KEY, Stream.FOLD, number, 1)[:2]))


def test_folds_are_different() -> None:
    """Numbers, numerals, names and folds of folds never meet, nor do the folds of a neighbouring key."""
    labels: list[Any] = [*range(2000), *map(str, range(2000)), "power", "Power", "", "ß", 2**32, 2**64 - 1]
    keys = [key.fold(label) for key in (KEY, Key(KEY.lo + 1, KEY.hi)) for label in labels]
    keys += [KEY.fold(i).fold(j) for i, j in itertools.product(range(20), range(20))]
    assert len(set(keys)) == len(keys)
    assert KEY not in keys


@settings(deadline=None, max_examples=100)
@given(number=st.integers(0, 2**64 - 1), other=st.integers(0, 2**64 - 1))
def test_fold_collides_only_with_itself(number: int, other: int) -> None:
    assert (KEY.fold(number) == KEY.fold(other)) == (number == other)
    assert KEY.fold(str(number)) != KEY.fold(number)


def test_fold_flips_half_of_the_bits(seed: int) -> None:
    """Neighbouring labels give keys that differ in a Binomial(64, 1/2) number of bits: 2000 x 64 fair coins."""
    key = as_key(seed)
    flips = 0
    for i in range(2000):
        a, b = key.fold(i), key.fold(i + 1)
        flips += (a.lo ^ b.lo).bit_count() + (a.hi ^ b.hi).bit_count()
    # each word takes part in two comparisons, so even and odd pairs are judged together at half the false-alarm rate
    low, high = binomial_interval(2000 * 32, 0.5, 5e-7)
    assert 2 * low <= flips <= 2 * high


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_fold_refuses_numbers_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"^label must be a string or an integer in \[0, 2\*\*64\), got {bad}$"):
        KEY.fold(bad)


@pytest.mark.parametrize("bad", [1.5, None, b"power"])
def test_fold_refuses_other_kinds(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^label must be a string or an integer in \[0, 2\*\*64\), got"):
        KEY.fold(bad)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_register_of_streams() -> None:
    """A number is for ever: new streams are added at the end, none is renumbered."""
    assert {stream.name: stream.value for stream in Stream} == {
        "SPARSE_SIGN": 0, "GAUSSIAN": 1, "SAMPLE": 2, "FOLD": 3, "RADEMACHER": 4, "SPARSE_JL": 5, "LESS": 6,
        "TRIGONOMETRIC_SIGN": 7, "PERMUTATION": 8, "BLOCK_SIGN": 9, "COORDINATED": 10, "POISSON": 11, "POOL": 12,
        "RACE": 13, "RACE_TAIL": 14,
    }  # fmt: skip
    assert len(Stream.__members__) == len(set(Stream)), "an alias would share its number"


def test_every_stream_has_its_user() -> None:
    sources = [inspect.getsource(module) for module in (sketching, inspect.getmodule(as_key))]
    used = set(re.findall(r"Stream\.([A-Z_]+)", "\n".join(sources)))
    passed_in = {"TRIGONOMETRIC_SIGN", "BLOCK_SIGN", "COORDINATED", "POISSON", "POOL"}
    assert used | passed_in == set(Stream.__members__)


def test_streams_and_keys_share_no_numbers() -> None:
    """Of N words of 32 bits, N**2 / 2**33 pairs coincide by chance; a shared block would add 4 a block."""
    n = 500
    keys = (KEY, KEY.fold(0), KEY.fold("a"))
    tables = [words(key, stream, np.arange(n), 0) for key in keys for stream in Stream]
    blocks = np.concatenate(tables).view([("", np.uint32)] * 4)
    assert len(np.unique(blocks)) == len(blocks)
    drawn = np.concatenate(tables).reshape(-1)
    pairs = drawn.size * (drawn.size - 1) // 2
    assert drawn.size - len(np.unique(drawn)) <= binomial_upper(pairs, 2.0**-32)


# --- golden digests ---------------------------------------------------------------------------------------------------

#: What each digest is made of.  The digests are the promise "one key, one sketch" over versions: a change of one is a
#: change of STREAM_VERSION, a major version, and an entry under "Stream changes" in the changelog.
TABLES = {
    "philox_words": (KEY, Stream.GAUSSIAN, 2**32 - 10, 2**32 + 90, 3),
    "uniforms": (KEY, Stream.SAMPLE, 0, 500),
    "uniforms_at": (KEY, Stream.COORDINATED, np.arange(-250, 250) * 2**40),
    "uniform_rows": (KEY, 10**6 + 3, 500),
    "distinct_rows": (KEY, 10**6 + 3, 500),
    "sparse_sign_table": (KEY, 2**32 - 10, 2**32 + 490, 8, 1000),
    "sparse_jl_table": (KEY, np.array([2**31 >> g for g in range(32)]), 0, 200, 60),
    "less_table": (KEY, 0, 50, 11, 10**6 + 3),
    "rademacher_table": (KEY, 2**32 - 10, 2**32 + 90, 150, "float32"),
    "sign_bits": (KEY, Stream.BLOCK_SIGN, 1, 2**32 - 10, 2**32 + 990),
    "gaussian_table": (KEY, 2**32 - 10, 2**32 + 490, 37, "float32"),
}
GOLDEN_TABLES = {
    "philox_words": "a4a78300ec884e20a5b1bb5a56e1034a",
    "uniforms": "9a11e4a35ed6a65e3efff2b1b05abb3e",
    "uniforms_at": "7904c96ff361808f86c21dc673b741ef",
    "uniform_rows": "d49bd48a708b4a16f3a313ae84bb4041",
    "distinct_rows": "5a57f93d1331e166f9407b93c01fbbac",
    "sparse_sign_table": "640b82df47424c68e8ab4efc68a4e58d",
    "sparse_jl_table": "06b05924d1b8dd227fbeb57f7d11a29e",
    "less_table": "c3a0161fef9bcaa9b18bfc035160a640",
    "rademacher_table": "e9267812b7f53d5efc6910580531cf82",
    "sign_bits": "08a296dfdd6de405eaf2b01033281de1",
    "gaussian_table": "3f075d710b70be8d2ac0a11dc11c75b6",
}

OPERATORS = {
    "Gaussian": lambda: randla.Gaussian(20, 300, rng=7),
    "Rademacher": lambda: randla.Rademacher(20, 300, rng=7),
    "SparseJL": lambda: randla.SparseJL(20, 300, rng=7),
    "SparseJL auto": lambda: randla.SparseJL(20, 300, density="auto", rng=7),
    "SparseSign": lambda: randla.SparseSign(20, 300, rng=7),
    "SparseSign nnz=4": lambda: randla.SparseSign(20, 300, nnz=4, rng=7),
    "CountSketch": lambda: randla.CountSketch(20, 300, rng=7),
    "LESS": lambda: randla.LESS(20, 300, rng=7),
    "SRHT": lambda: randla.SRHT(20, 300, rng=7),
    "SRCT": lambda: randla.SRCT(20, 300, rng=7),
    "BlockSRHT": lambda: randla.BlockSRHT(20, 300, block_size=32, rng=7),
    "RowSample": lambda: randla.RowSample(20, 300, rng=7),
    "RowSample weighted": lambda: randla.RowSample(20, 300, probabilities=np.arange(300), rng=7),
}
GOLDEN_OPERATORS = {
    "Gaussian": "2063c1aeaac07af043ea215d11079bf6",
    "Rademacher": "d4bcb5ef925e6b6ab7bb84e27e865039",
    "SparseJL": "6605923b9f4ed254b7ccddec26b7e7bb",
    "SparseJL auto": "6a283d3d8a336c91b85f434de439214d",
    "SparseSign": "5ad0aaa3d142ff61905c0ad4ef9cdbd8",
    "SparseSign nnz=4": "d9c528d3b6baef26602da52026d778e5",
    "CountSketch": "7ad0988d1c0bedfa79f44a85a4774ebf",
    "LESS": "8acbaea8edc63cb0878f8148709933a6",
    "SRHT": "07284cfb068bccf06eddd401b7b862af",
    "SRCT": "c409f554ed0088d40c1f1a4a1d78711d",
    "BlockSRHT": "27a5f7aeff8e2eb31337bdad73eb26c6",
    "RowSample": "0fea273705df46203cf115dbcc30e7cd",
    "RowSample weighted": "a15583d324d92a97f3eb21f5ef80bb6d",
}


def digest(*tables: Any) -> str:
    """SHA-256 of the bytes of some tables in little-endian order."""
    state = hashlib.sha256()
    for table in tables:
        table = np.asarray(table)
        state.update(np.ascontiguousarray(table.astype(table.dtype.newbyteorder("<"), copy=False)).tobytes())
    return state.hexdigest()[:32]


@pytest.mark.parametrize("module", [kernels, reference], ids=["numba", "reference"])
@pytest.mark.parametrize("name", TABLES)
def test_golden_tables(name: str, module: Any) -> None:
    table = getattr(module, name)(*TABLES[name])
    assert digest(*(table if isinstance(table, tuple) else (table,))) == GOLDEN_TABLES[name]


@pytest.mark.parametrize("name", OPERATORS)
def test_golden_operators(name: str) -> None:
    """Exact fixed-point images: entries of the cosine transform differ between libraries in the last bits."""
    assert digest(np.round(OPERATORS[name]().toarray() * 2**30).astype(np.int64)) == GOLDEN_OPERATORS[name]


def test_golden_keys() -> None:
    keys = [as_key(0), as_key(2**64), as_key(np.random.SeedSequence(5)), KEY.fold("power"), KEY.fold(3)]
    keys.append(as_key(np.random.Generator(np.random.PCG64(1))))
    assert [repr(key) for key in keys] == [
        "Key(0xb0f478be, 0xdb2cd7e7)",
        "Key(0xe45b7fc2, 0x78082392)",
        "Key(0x0100b467, 0xaf4c069d)",
        "Key(0x16dfecaa, 0x3a59793c)",
        "Key(0x49b672b4, 0x41a2cf65)",
        "Key(0x7922e4ff, 0x8306bdf3)",
    ]


def test_stream_version() -> None:
    assert STREAM_VERSION == 1, "a new version: record the digests anew and write it under Stream changes"
