"""Distributed factorisation: agreement, messages as bytes, ciphers, what is hidden, channels that disturb."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from randla import ConsensusNMF, ConvergenceWarning, Key, Status
from randla.nonnegative.agents import FRACTION_BITS, GUARD_BITS, LIMIT_BITS, ConsensusAgent, Terms
from randla.nonnegative.ciphers import PaillierCipher, PlainCipher, checked, cipher_of
from randla.nonnegative.distributed import neighbours_of
from randla.nonnegative.messages import EVERYONE, Kind, Message
from randla.nonnegative.solvers import nmf

from .conftest import skip

PATH = [(0, 1), (1, 2)]
BITS = 512  # of keys in these tests: no secrets are kept here


def small_blocks(m: int = 6, rank: int = 2, n: int = 8, agents: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    W = rng.random((m, rank))
    return [W @ rng.random((rank, n)) for _ in range(agents)]


def run(blocks: Any, graph: Any = PATH, rank: int = 2, **options: Any) -> Any:
    options = {"rng": 0, "max_iter": 5, "tol": 0.0, **options}
    return ConsensusNMF(rank, graph, **options).fit(blocks, on_failure="ignore")


def paillier() -> PaillierCipher:
    """The cipher with a small key, or a skip."""
    if find_spec("lightphe") is None:
        skip("lightphe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return PaillierCipher(BITS)


def two_agents(cipher: Any, *, masks: str = "entrywise", key: Key | None = None, scale: float = 1.0) -> list[Any]:
    """Agents that know each other, with factors that differ."""
    blocks = small_blocks(agents=2)
    terms = Terms(6, 2, Key(1, 2), scale, masks)
    pair = [ConsensusAgent(i, [1 - i], blocks[i], terms, cipher, key and key.fold(i)) for i in range(2)]
    for i in range(2):
        pair[i]._Wt = np.random.default_rng(i).random((2, 6)) * 3 - 0.5
        pair[1 - i].meet(pair[i].hello())
    return pair


# --- agreement --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("masks", "gap"), [("fixed", 1e-3), ("scalar", 1e-3), ("entrywise", 1e-3)])
def test_the_experiment_of_the_specification(masks: str, gap: float) -> None:
    """N = 8, ring and two chords, L = 30, K = 4, M_i = 25, noise 0.01, 600 iterations: gaps 6e-5 to 1.5e-4 there.

    The error is held to that of one factorisation of all blocks together.
    """
    rng = np.random.default_rng(0)
    W = rng.random((30, 4))
    blocks = [np.maximum(W @ rng.random((4, 25)) + 0.01 * rng.standard_normal((30, 25)), 0) for _ in range(8)]
    graph = [(i, (i + 1) % 8) for i in range(8)] + [(0, 4), (2, 6)]
    result = run(blocks, graph, 4, masks=masks, max_iter=600)
    central = nmf(np.hstack(blocks), 4, rng=0, n_init=3, max_iter=2000, tol=1e-7, on_failure="ignore")
    assert result.error < 1.25 * central.error
    assert result.gap < gap
    assert result.n_messages == 20 * (2 * 600 + 1)  # directed edges: an offer and an answer each, and a key


def test_agents_agree_and_rebuild_their_blocks() -> None:
    blocks = small_blocks(12, 2, 10)
    result = run(blocks, max_iter=300)
    assert result.error < 0.02
    assert result.gap < 0.02
    assert result.W.shape == (12, 2)
    assert [H.shape for H in result.H] == [(2, 10)] * 3
    for X, W, H in zip(blocks, result.copies, result.H, strict=True):
        assert np.linalg.norm(X - W @ H) < 0.05 * np.linalg.norm(X)
    assert min(result.copies.min(), *(H.min() for H in result.H)) >= 0
    squares = [np.sum((X - W @ H) ** 2) for X, W, H in zip(blocks, result.copies, result.H, strict=True)]
    assert result.error == pytest.approx(np.sqrt(sum(squares) / sum(np.sum(X**2) for X in blocks)), rel=1e-6)
    W, H = result
    assert W is result.W


@pytest.mark.parametrize("scale", [1e-100, 1e-3, 1e6, 1e100])
def test_units_do_not_matter(scale: float) -> None:
    blocks = small_blocks()
    plain, scaled = run(blocks), run([X * scale for X in blocks])
    assert np.allclose(scaled.W, plain.W, rtol=1e-6)
    assert np.allclose(scaled.H[1] / scale, plain.H[1], rtol=1e-6)


def test_containers_and_unequal_blocks() -> None:
    blocks = small_blocks()
    blocks[1] = blocks[1][:, :3]
    dense = run(blocks)
    mixed = run([sp.csr_array(blocks[0]), blocks[1].tolist(), sp.csc_array(blocks[2])])
    assert np.allclose(mixed.W, dense.W, atol=1e-9)
    assert mixed.H[1].shape == (2, 3)


def test_status_is_computed_from_what_was_to_be_small() -> None:
    blocks = small_blocks()
    done = ConsensusNMF(2, PATH, rng=0, tol=1e-3, max_iter=2000).fit(blocks)
    assert done.status is Status.CONVERGED
    assert done.gap < 0.05
    with pytest.warns(ConvergenceWarning, match="ConsensusNMF"):
        ConsensusNMF(2, PATH, rng=0, max_iter=2).fit(blocks)
    stopped = ConsensusNMF(2, PATH, rng=0, callback=lambda step: step.n_iter == 3).fit(blocks)
    assert stopped.n_iter == len(stopped.history) == 3
    assert run(blocks, max_iter=0).status is Status.MAX_ITER


def test_a_run_goes_on_from_its_states() -> None:
    blocks = small_blocks()
    whole = run(blocks, max_iter=8)
    first = run(blocks, max_iter=3)
    model = ConsensusNMF(2, PATH, rng=0, max_iter=5, tol=0.0)
    second = model.fit(blocks, states=first.states, on_failure="ignore")
    assert np.array_equal(second.copies, whole.copies)
    assert second.n_iter == whole.n_iter
    with pytest.raises(ValueError, match="one for each"):
        model.fit(blocks, states=first.states[:2])
    with pytest.raises(ValueError, match="agent 0"):
        model.fit(blocks, states=first.states[::-1])
    with pytest.raises(ValueError, match="checksum"):
        model.fit(blocks, states=[state[:-1] + b"0" for state in first.states])
    with pytest.raises(ValueError, match="its block"):
        model.fit([X + 1 for X in blocks], states=first.states)


def test_blocks_are_not_changed() -> None:
    blocks = small_blocks()
    before = [X.copy() for X in blocks]
    run(blocks)
    assert all(np.array_equal(X, Y) for X, Y in zip(blocks, before, strict=True))


# --- the masked difference --------------------------------------------------------------------------------------------


def exchange(pair: list[Any], i: int) -> tuple[np.ndarray, np.ndarray]:
    """What agent i gets of the other, and the products of both masks."""
    pair[i].receive(pair[1 - i].answer(pair[i].offer()))
    own, others = (np.array(pair[k]._masks(1 - k), float) / 2**FRACTION_BITS for k in (i, 1 - i))
    return pair[i]._received[1 - i], (own * others).reshape(2, 6)


@pytest.mark.parametrize("kind", ["plain", "paillier"])
def test_a_masked_difference_is_right_to_the_stated_bits(kind: str) -> None:
    pair = two_agents(PlainCipher() if kind == "plain" else paillier())
    got, p = exchange(pair, 0)
    back, same = exchange(pair, 1)
    assert np.array_equal(p, same)
    difference = pair[1]._Wt - pair[0]._Wt
    assert np.abs(got - p * difference).max() < 2.0**-FRACTION_BITS
    assert np.abs(got + back).max() < 2.0**-FRACTION_BITS
    assert 0.7**2 <= p.min() <= p.max() <= 2**2


def test_encrypted_and_plain_runs_are_equal() -> None:
    """To the last bit where masks are, which is far more than the 1e-6 that is asked for."""
    blocks = small_blocks(4, 1, 5)
    plain, private = run(blocks, rank=1, max_iter=3), run(blocks, rank=1, max_iter=3, cipher=paillier())
    assert np.array_equal(plain.copies, private.copies)
    assert plain.n_messages == private.n_messages
    assert private.n_bytes > plain.n_bytes


def test_masks_of_the_system_differ_each_time() -> None:
    first, second = (two_agents(PlainCipher())[0]._masks(1) for _ in range(2))
    assert first != second
    kept = two_agents(PlainCipher(), masks="fixed")[0]
    before = list(kept._masks(1))
    kept.n_iter, kept._drawn = 5, {}
    assert kept._masks(1) == before
    scalar = two_agents(PlainCipher(), masks="scalar")[0]._masks(1)
    assert len(scalar) == 12
    assert len(set(scalar)) == 1


def ratios(masks: str) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of neighbouring entries that agent 0 sees, and the true ones of the differences."""
    pair = two_agents(PlainCipher(), masks=masks)
    seen = exchange(pair, 0)[0] / (np.array(pair[0]._masks(1)).reshape(2, 6) / 2**FRACTION_BITS)
    true = pair[1]._Wt - pair[0]._Wt
    return seen[:, 1:] / seen[:, :-1], true[:, 1:] / true[:, :-1]


def test_ratios_of_differences_leak_with_one_mask_and_not_with_a_mask_for_each_entry() -> None:
    seen, true = ratios("scalar")
    assert np.abs(seen / true - 1).max() < 1e-5
    seen, true = ratios("entrywise")
    # the ratio of two masks is within 10 % of one with probability below 0.16: 10 of 10 have one below 1e-7
    assert np.mean(np.abs(seen / true - 1) < 0.1) < 1


def test_the_integer_that_arrives_is_no_product() -> None:
    """mask * difference could be factored; with the blur, a multiple of the mask is as rare as for random numbers."""
    pair = two_agents(PlainCipher())
    for agent in pair:
        agent._Wt = np.random.default_rng(agent.number).random((2, 6))
    message = Message.from_bytes(pair[1].answer(pair[0].offer()))
    found = pair[0]._keys.decrypt(message.values)
    masks = pair[1]._masks(0)
    exact = [b * (v - w) for b, v, w in zip(masks, pair[1]._integers(), pair[0]._integers(), strict=True)]
    offs = [value - right for value, right in zip(found, exact, strict=True)]
    assert all(abs(off) <= b / 2 + 1 for off, b in zip(offs, masks, strict=True))
    assert sum(value % b == 0 for value, b in zip(found, masks, strict=True)) == 0  # false alarm 12 * 2^-24


# --- bytes ------------------------------------------------------------------------------------------------------------


def sniffed(cipher: Any, **options: Any) -> tuple[list[bytes], list[np.ndarray], Any]:
    sent: list[bytes] = []

    def channel(sender: int, receiver: int, data: bytes) -> bytes:
        sent.append(data)
        return data

    blocks = small_blocks(4, 1, 5)
    return sent, blocks, run(blocks, rank=1, max_iter=2, cipher=cipher, channel=channel, **options)


def windows(data: bytes, size: int = 4) -> set[bytes]:
    return {data[i : i + size] for i in range(len(data) - size + 1)}


def test_no_message_contains_a_block_or_a_factor() -> None:
    """No four bytes of an entry, in either order or precision or fixed point, are in what leaves the agents.

    Random bytes have a given four at one of their places with a probability of places / 2^32.
    """
    sent, blocks, result = sniffed(paillier())
    seen = set().union(*(windows(data[60:-32]) for data in sent))
    secrets = [*blocks, *result.H, *result.copies]
    entries = np.concatenate([np.ravel(part) for part in secrets])
    entries = entries[entries > 0]
    forms = [entries.astype(kind) for kind in ("<f8", ">f8", "<f4", ">f4")]
    fixed = np.rint(entries * 2.0 ** (FRACTION_BITS + GUARD_BITS)).astype(np.uint64)
    forms += [fixed.astype(">u8"), fixed.astype("<u8")]
    hits = 0
    for form in forms:
        raw = np.ascontiguousarray(form)
        for value in raw:
            data = value.tobytes()
            data = data if len(data) == 4 else data[2:6]  # high bytes of integers and exponents of doubles are common
            hits += data in seen
    places = sum(len(data) for data in sent)
    expected = len(forms) * entries.size * places / 2**32
    assert expected < 0.015  # three hits by chance have a probability below 0.015^3 / 6 < 1e-6
    assert hits <= 2
    assert sum(len(data) for data in sent) == result.n_bytes
    assert len(sent) == result.n_messages


def test_the_search_finds_factors_in_plain_messages() -> None:
    """The check of the check: without a cipher the first offer holds W in fixed point."""
    pair = two_agents(PlainCipher())
    offer = pair[0].offer()
    first = int(pair[0]._integers()[0])
    assert (-first % 2**128).to_bytes(16, "big") in offer


def test_messages_survive_and_are_checked() -> None:
    message = Message(Kind.OFFER, 3, EVERYONE, 7, (2, 3), bytes(range(16)), 5, (1, 2**39, 0, 4, 5, 6))
    data = message.to_bytes()
    assert Message.from_bytes(data) == message
    assert Message.from_bytes(bytearray(data)) == message
    with pytest.raises(TypeError, match="bytes"):
        Message.from_bytes("text")
    for changed, text in (
        (b"garbage" + data, "begin with"),
        (data[:50], "cut off"),
        (data[:-1] + b"x", "checksum"),
        (data[:90] + b"x" + data[91:], "checksum"),
    ):
        with pytest.raises(ValueError, match=text):
            Message.from_bytes(changed)


def resealed(data: bytes, **changes: Any) -> bytes:
    """A message with other fields and a right checksum."""
    return dataclasses.replace(Message.from_bytes(data), **changes).to_bytes()


def test_later_versions_and_false_counts_are_refused() -> None:
    import hashlib

    data = bytearray(Message(Kind.KEY, 0, 1, 0, (0, 0), bytes(16), 2, (5,)).to_bytes()[:-32])
    for place, text in ((8, "version"), (10, "hold")):
        changed = bytearray(data)
        changed[place] = 9
        with pytest.raises(ValueError, match=text):
            Message.from_bytes(bytes(changed) + hashlib.sha256(bytes(changed)).digest())


@pytest.mark.parametrize("kind", ["plain", "paillier"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: b"\x00" * len(data), "begin with"),
        (lambda data: data[:-40], "checksum"),
        (lambda data: resealed(data, shape=(6, 2)), "shape"),
        (lambda data: resealed(data, values=Message.from_bytes(data).values[:-1]), "shape"),
        (lambda data: resealed(data, n_iter=4), "iteration"),
        (lambda data: resealed(data, fingerprint=bytes(16)), "under the key"),
        (lambda data: resealed(data, kind=Kind.ANSWER), "kind"),
        (lambda data: resealed(data, sender=5), "come from"),
    ],
)
def test_disturbed_offers_are_refused(kind: str, change: Callable[[bytes], bytes], text: str) -> None:
    pair = two_agents(PlainCipher() if kind == "plain" else paillier())
    data = pair[0].offer()
    state = pair[1].to_bytes()
    with pytest.raises(ValueError, match=text):
        pair[1].answer(change(data))
    assert pair[1].to_bytes() == state


def test_numbers_that_are_no_ciphertexts_are_refused() -> None:
    pair = two_agents(paillier())
    data = pair[0].offer()
    key = pair[0]._keys.public
    for wrong in (0, key.n, key.n**2):
        values = (wrong, *Message.from_bytes(data).values[1:])
        with pytest.raises(ValueError, match="ciphertexts"):
            pair[1].answer(resealed(data, values=values))
    plain = two_agents(PlainCipher())
    answer = plain[1].answer(plain[0].offer())
    with pytest.raises(ValueError, match="another key or another scale"):
        plain[0].receive(resealed(answer, values=(2**120,) * 12))


def test_answers_for_others_twice_or_too_early_are_refused() -> None:
    pair = two_agents(PlainCipher())
    answer = pair[1].answer(pair[0].offer())
    with pytest.raises(ValueError, match="be for 0"):
        pair[0].receive(resealed(answer, receiver=2))
    with pytest.raises(ValueError, match=r"none of \[1\]"):
        pair[0].advance()
    pair[0].receive(answer)
    with pytest.raises(ValueError, match="twice"):
        pair[0].receive(answer)
    terms = Terms(6, 2, Key(1, 2), 1.0)
    lonely = ConsensusAgent(1, [0], small_blocks()[1], terms, PlainCipher())
    with pytest.raises(ValueError, match="call meet"):
        lonely.answer(pair[0].offer())


def test_keys_are_checked_when_they_come() -> None:
    cipher = paillier()
    pair = two_agents(cipher)
    data = pair[0].hello()
    with pytest.raises(ValueError, match="bits"):
        pair[1].meet(resealed(data, values=(12345,), width=2))
    with pytest.raises(ValueError, match="fingerprint"):
        pair[1].meet(resealed(data, fingerprint=bytes(16)))
    with pytest.raises(ValueError, match="one key"):
        pair[1].meet(resealed(data, values=(1, 2), width=2))
    other = cipher.new_keys()
    stranger = resealed(data, fingerprint=other.public.fingerprint, values=(other.public.n,))
    pair[1].meet(stranger)  # a key of its own, but not the one that the offer is under
    with pytest.raises(ValueError, match="under the key"):
        pair[1].answer(pair[0].offer())


def test_a_channel_that_disturbs_ends_the_run_and_keeps_the_last_state() -> None:
    blocks, sent = small_blocks(), []

    def channel(sender: int, receiver: int, data: bytes) -> bytes:
        sent.append(data)
        return b"noise" if len(sent) == 30 else data

    model = ConsensusNMF(2, PATH, rng=0, max_iter=8, tol=0.0, channel=channel)
    with pytest.raises(ValueError, match="message to agent"):
        model.fit(blocks)
    done = model.agents[0].n_iter
    assert {agent.n_iter for agent in model.agents} == {done}
    assert 0 < done < 8
    states = [agent.to_bytes() for agent in model.agents]
    rest = ConsensusNMF(2, PATH, rng=0, max_iter=8 - done, tol=0.0).fit(blocks, states=states, on_failure="ignore")
    assert np.array_equal(rest.copies, run(blocks, max_iter=8).copies)


# --- ciphers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "paillier"])
def test_ciphers_add_and_multiply(kind: str) -> None:
    cipher = PlainCipher() if kind == "plain" else paillier()
    pair = cipher.new_keys()
    key = cipher.public_from_bytes(pair.public.to_bytes())
    values = [0, 1, -1, 2**76, -(2**76), 12345]
    encrypted = key.encrypt(values)
    assert pair.decrypt(encrypted) == values
    factors, addends = [3, 2**25, 7, 1, 5, 2**20], [5, -(2**70), 0, -1, 2, 9]
    moved = key.affine(encrypted, factors, addends)
    assert pair.decrypt(moved) == [v * f + a for v, f, a in zip(values, factors, addends, strict=True)]
    key.check(moved)
    assert all(c < 2 ** (8 * key.width) for c in moved)
    again = cipher.keys_from_bytes(pair.to_bytes())
    assert again.decrypt(moved) == pair.decrypt(moved)
    assert again.public.fingerprint == key.fingerprint
    assert cipher.new_keys().public.fingerprint != key.fingerprint


def test_equal_numbers_have_unequal_ciphertexts() -> None:
    key = paillier().new_keys().public
    assert len(set(key.encrypt([7] * 5))) == 5
    one = key.encrypt([7])
    assert key.affine(one, [1], [0]) != one  # rerandomised: nobody can tell that nothing was done


def test_overflow_is_told_before_anything_is_encrypted() -> None:
    key = PlainCipher().new_keys().public
    with pytest.raises(OverflowError, match="capacity"):
        key.encrypt([1, 2**127])
    assert checked([-5, 5], 5) == [-5, 5]
    pair = two_agents(PlainCipher())
    pair[0]._Wt[0, 0] = 2.0**LIMIT_BITS
    before = pair[0].n_messages
    with pytest.raises(OverflowError, match="scale"):
        pair[0].offer()
    assert pair[0].n_messages == before
    pair[0]._Wt[0, 0] = np.nan
    with pytest.raises(OverflowError, match="scale"):
        pair[0].offer()
    # the largest masked number of the protocol, with masks below 2^10, fits the smallest key that is taken
    largest = 2 ** (LIMIT_BITS + 2 + FRACTION_BITS + GUARD_BITS + FRACTION_BITS + 10)
    assert largest < PlainCipher().new_keys().public.capacity
    assert largest < 2**255 // 3


def test_key_sizes() -> None:
    if find_spec("lightphe") is None:
        skip("lightphe")
    with pytest.warns(UserWarning, match="2048"):
        cipher = PaillierCipher(512)
    assert cipher.new_keys().public.n.bit_length() == 512
    with pytest.raises(ValueError, match="key_bits"):
        PaillierCipher(128)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PaillierCipher().key_bits == cipher_of("paillier", 2048).key_bits == 2048
    with pytest.raises(ValueError, match="one length"):
        cipher.keys_from_bytes(b"abc")


@pytest.mark.slow
def test_a_key_of_full_size_works() -> None:
    if find_spec("lightphe") is None:
        skip("lightphe")
    pair = PaillierCipher().new_keys()
    assert pair.public.n.bit_length() == 2048
    assert pair.public.width == 512
    assert pair.decrypt(pair.public.affine(pair.public.encrypt([-5]), [3], [1])) == [-14]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightphe.cryptosystems.Paillier", None)
    with pytest.raises(ImportError, match=r"randla\[private\]"):
        ConsensusNMF(2, PATH, cipher="paillier")


class Counting(PlainCipher):
    """A cipher of the caller's."""

    name = "counting"

    def __init__(self) -> None:
        self.made = 0

    def new_keys(self) -> Any:
        self.made += 1
        return super().new_keys()


def test_a_cipher_of_ones_own() -> None:
    cipher = Counting()
    assert np.array_equal(run(small_blocks(), cipher=cipher).copies, run(small_blocks()).copies)
    assert cipher.made == 3


def test_counts_and_a_state_that_stays_private() -> None:
    blocks = small_blocks()
    result = run(blocks, max_iter=4)
    edges = 4  # directed
    assert result.n_messages == edges * (1 + 2 * 4)
    agent = ConsensusAgent(0, [1], blocks[0], Terms(6, 2, Key(0, 0), 1.0), PlainCipher())
    data = agent.offer()
    assert agent.n_messages == 1
    assert agent.n_bytes == len(data)
    assert agent.proximal == 4.0  # one neighbour, and no mask above two


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        ([(0, 1), (2, 3)], "connected"),
        ([(0, 0)], "loop"),
        ([(0, -1)], "loop or a negative"),
        ([(0, 1, 2)], "pairs"),
        (np.array([[0, 1, 0], [0, 0, 1], [0, 1, 0]]), "symmetric"),
        ([(0.5, 1.0)], "pairs"),
    ],
)
def test_graphs_that_are_none(graph: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        neighbours_of(graph)


def test_graphs_as_edges_and_matrices() -> None:
    table = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert neighbours_of(PATH) == neighbours_of(table) == neighbours_of(sp.csr_array(table)) == [[1], [0, 2], [1]]
    assert neighbours_of([(0, 1), (1, 0)]) == [[1], [0]]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda b: b[:2], ValueError, "one for each"),
        (lambda b: [b[0], b[1], b[2][:3]], ValueError, r"blocks\[2\] must have 6 rows"),
        (lambda b: [b[0], -b[1], b[2]], ValueError, r"blocks\[1\].*nonnegative"),
        (lambda b: [b[0], b[1] * np.nan, b[2]], ValueError, r"blocks\[1\].*NaN"),
        (lambda b: [b[0], b[1] * np.inf, b[2]], ValueError, r"blocks\[1\]"),
        (lambda b: [b[0], b[1][0], b[2]], ValueError, r"blocks\[1\] must be 2-D"),
        (lambda b: [b[0], b[1] * 1j, b[2]], TypeError, r"blocks\[1\].*real"),
    ],
)
def test_bad_blocks(change: Callable[[list[np.ndarray]], list[Any]], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text), np.errstate(all="ignore"):
        run(change(small_blocks()))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank": 0}, "rank"),
        ({"masks": "none"}, "masks"),
        ({"mask_range": (2.0, 1.0)}, "mask_range"),
        ({"mask_range": (0.0, 1.0)}, "mask_range"),
        ({"rho": 0.0}, "rho"),
        ({"scale": -1.0}, "scale"),
        ({"cipher": "rsa"}, "cipher"),
        ({"cipher": 3}, "cipher"),
        ({"n_sweeps": 0}, "n_sweeps"),
    ],
)
def test_bad_parameters(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConsensusNMF(**{"rank": 2, "graph": PATH, **options})


def test_blocks_of_zeros() -> None:
    result = run([np.zeros((4, 3))] * 3, max_iter=3)
    assert result.error == 0.0
    assert all(np.isfinite(H).all() for H in result.H)
