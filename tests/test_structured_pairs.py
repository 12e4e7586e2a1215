"""Pairs of weights: least squares, scores and singular values from Gram matrices alone, against the data themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randla._arrays import to_host
from randla.structured import GramAccumulator, compress_pair_cr, compress_pair_nystrom, compress_pair_svd
from randla.structured.gram import SELECTIONS, ridge_scores

from .conftest import tolerance

#: Errors from Gram matrices: the squares of the data are rounded, so errors are known to a root of it.
GRAM = tolerance("float64", 1000) ** 0.5


def inputs(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows with columns of falling size, as activations have them."""
    return np.random.default_rng(seed).standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5


def relative(Y: np.ndarray, Z: np.ndarray) -> float:
    return float(np.linalg.norm(Y - Z) / np.linalg.norm(Y))


class Gated:
    """A nonlinear pair on 1500 rows: 40 inputs, 64 or 128 hidden units, 24 outputs."""

    def __init__(self, hidden: int = 64, seed: int = 0, gate: bool = False) -> None:
        rng = np.random.default_rng(seed)
        X = inputs(1500, 40, seed)
        self.W_in, self.W_out = rng.standard_normal((40, hidden)), rng.standard_normal((hidden, 24))
        self.gate = rng.standard_normal((40, hidden)) if gate else None
        self.X = X
        self.Z = self.hidden(self.W_in, self.gate)
        self.C = self.Z.T @ self.Z

    def hidden(self, W_in: np.ndarray, gate: np.ndarray | None) -> np.ndarray:
        if gate is None:
            return np.maximum(self.X @ W_in, 0)
        return np.tanh(self.X @ gate) * (self.X @ W_in)


# --- nonlinear pairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("gated", [False, True])
def test_correction_is_least_squares_and_the_error_is_told(selection: str, gated: bool) -> None:
    pair = Gated(gate=gated)
    result = compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 32, selection=selection, gate=pair.gate, rng=0)
    J = result.indices
    assert np.array_equal(result.W_in, pair.W_in[:, J])
    assert np.array_equal(np.unique(J), J)
    small = pair.hidden(result.W_in, result.gate)
    best = np.linalg.lstsq(pair.Z[:, J], pair.Z @ pair.W_out)[0]
    assert np.abs(result.W_out - best).max() <= 1e-8 * np.abs(best).max()  # normal equations of condition below 1e4
    assert abs(relative(pair.Z @ pair.W_out, small @ result.W_out) - result.error) <= GRAM
    assert abs(result.norm - np.linalg.norm(pair.Z @ pair.W_out)) <= tolerance("float64", 1500, result.norm)
    W_in, W_out = result
    assert W_in.shape == (40, 32)
    assert W_out.shape == (32, 24)


def test_correction_matters_more_than_the_choice() -> None:
    """The order of the table: good selections, random units with the correction, dropping without it."""
    pair = Gated(hidden=128)
    Y = pair.Z @ pair.W_out
    errors = {s: compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 64, selection=s, rng=0).error for s in SELECTIONS}
    rng = np.random.default_rng(0)
    by_chance, dropped = [], []
    for _ in range(10):
        J = np.sort(rng.permutation(128)[:64])
        by_chance.append(relative(Y, pair.Z[:, J] @ np.linalg.lstsq(pair.Z[:, J], Y)[0]))
        dropped.append(relative(Y, pair.Z[:, J] @ pair.W_out[J]))
    assert errors["greedy"] < errors["qr"] < 0.95 * np.mean(by_chance)
    assert errors["ridge_leverage"] < 0.95 * np.mean(by_chance)
    assert max(by_chance) < 0.75 * min(dropped)
    small = compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 64, selection="ridge_leverage", reg=0.01).error
    assert abs(small / errors["ridge_leverage"] - 1) < 0.1  # the ridge hardly matters


def test_scores_are_ridge_leverage_and_do_not_know_units() -> None:
    C = Gated().C
    lam = 0.3 * np.trace(C) / 64
    exact = np.diag(C @ np.linalg.inv(C + lam * np.eye(64)))
    assert np.abs(ridge_scores(C, 0.3) - exact).max() <= tolerance("float64", 64 * 64)
    assert np.abs(ridge_scores(1e12 * C, 0.3) - exact).max() <= tolerance("float64", 64 * 64)


def test_greedy_is_the_best_single_step() -> None:
    pair = Gated()
    first = compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 1, selection="greedy")
    Y = pair.Z @ pair.W_out
    singles = [relative(Y, pair.Z[:, [i]] @ np.linalg.lstsq(pair.Z[:, [i]], Y)[0]) for i in range(64)]
    assert first.indices[0] == int(np.argmin(singles))
    assert abs(first.error - min(singles)) <= GRAM


def test_pivots_are_those_of_qr() -> None:
    from scipy.linalg import qr

    pair = Gated()
    pivots = qr(pair.Z, mode="r", pivoting=True)[1]
    result = compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 20, selection="qr")
    assert np.array_equal(result.indices, np.sort(pivots[:20]))


@pytest.mark.parametrize("selection", ["greedy", "qr", "rpcholesky"])
def test_error_falls_with_the_rank_to_zero(selection: str) -> None:
    pair = Gated()
    ranks = [1, 4, 8, 16, 32, 48, 64]
    results = [compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, r, selection=selection, rng=0) for r in ranks]
    errors = [result.error for result in results]
    assert errors == sorted(errors, reverse=True)  # nested choices: each projects on more
    assert errors[-1] == 0.0
    assert np.array_equal(results[-1].W_out, pair.W_out)


def test_dead_and_doubled_units_are_left_out_for_nothing() -> None:
    pair = Gated()
    W_in = np.concatenate([pair.W_in, pair.W_in[:, :8], np.zeros((40, 8))], axis=1)
    W_out = np.random.default_rng(1).standard_normal((80, 24))
    Z = np.maximum(pair.X @ W_in, 0)
    for selection in ("greedy", "qr", "rpcholesky"):
        result = compress_pair_nystrom(W_in, W_out, Z.T @ Z, 64, selection=selection, rng=0)
        assert result.error <= GRAM
        more = compress_pair_nystrom(W_in, W_out, Z.T @ Z, 75, selection=selection, rng=0)
        assert more.error <= GRAM
        assert len(set(more.indices)) == 75
    nothing = compress_pair_nystrom(W_in, W_out, np.zeros((80, 80)), 3)
    assert nothing.error == 0.0
    assert np.all(np.isfinite(nothing.W_out))


def test_random_pivots_come_from_the_key() -> None:
    pair = Gated()
    draws = [
        compress_pair_nystrom(pair.W_in, pair.W_out, pair.C, 12, selection="rpcholesky", rng=rng).indices
        for rng in (0, 0, 1)
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


# --- queries and keys -------------------------------------------------------------------------------------------------


def head(seed: int = 0, heads: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (heads, 48, 32) if heads else (48, 32)
    scales = np.exp(rng.standard_normal(32))
    return inputs(400, 48, seed), rng.standard_normal(shape) * scales, rng.standard_normal((48, 32)) * scales


def grams(X: np.ndarray, W: np.ndarray) -> np.ndarray:
    Y = X @ W
    return Y.swapaxes(-1, -2) @ Y


@pytest.mark.parametrize("core", ["identity", "optimal"])
def test_scores_need_diagonals_only(core: str) -> None:
    """The columns of the matrix square roots have the norms of the diagonal; the error is that of the scores."""
    X, W_q, W_k = head()
    C_q, C_k = grams(X, W_q), grams(X, W_k)
    result = compress_pair_cr(W_q, W_k, C_q, C_k, 16, core=core)
    roots = [(V * np.sqrt(np.maximum(w, 0))) @ V.T for w, V in (np.linalg.eigh(C) for C in (C_q, C_k))]
    scores = np.linalg.norm(roots[0], axis=0) * np.linalg.norm(roots[1], axis=0)
    assert np.allclose(scores, np.sqrt(np.diag(C_q) * np.diag(C_k)), rtol=tolerance("float64", 32 * 32))
    assert np.array_equal(result.indices, np.sort(np.argsort(-scores)[:16]))
    exact = (X @ W_q) @ (X @ W_k).T
    assert abs(relative(exact, (X @ result.W_in) @ (X @ result.W_out).T) - result.error) <= GRAM
    dropped = np.sort(scores)[:16].sum() / np.linalg.norm(exact)
    assert result.error <= dropped  # the crude bound
    s = np.linalg.svd(exact, compute_uv=False)
    assert result.error >= np.linalg.norm(s[16:]) / np.linalg.norm(s)


def test_optimal_core_is_that_of_pseudoinverses() -> None:
    X, W_q, W_k = head()
    Q, K = X @ W_q, X @ W_k
    result = compress_pair_cr(W_q, W_k, Q.T @ Q, K.T @ K, 16, core="optimal")
    J = result.indices
    core = np.linalg.pinv(Q[:, J]) @ Q @ K.T @ np.linalg.pinv(K[:, J]).T
    assert np.abs(result.W_in - W_q[:, J] @ core).max() <= 1e-9 * np.abs(result.W_in).max()
    assert result.error < compress_pair_cr(W_q, W_k, Q.T @ Q, K.T @ K, 16).error


def test_rotary_pairs_stay_together_under_rotation() -> None:
    """Dimensions i and i + h/2 are kept together, in an order that the rotation of the smaller head understands."""
    X, W_q, W_k = head(3)
    result = compress_pair_cr(W_q, W_k, grams(X, W_q), grams(X, W_k), 12, rotary=True)
    J = result.indices
    assert np.array_equal(J[6:], J[:6] + 16)
    pairs = (np.diag(grams(X, W_q)) * np.diag(grams(X, W_k))).reshape(2, 16).sum(axis=0)
    assert np.array_equal(J[:6], np.sort(np.argsort(-pairs)[:6]))
    exact = (X @ W_q) @ (X @ W_k).T
    assert abs(relative(exact, (X @ result.W_in) @ (X @ result.W_out).T) - result.error) <= GRAM
    angles = np.outer(np.arange(400), 0.1 ** np.arange(16))

    def turned(Y: np.ndarray, angles: np.ndarray) -> np.ndarray:
        a, b = np.split(Y, 2, axis=1)
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], 1)

    assert np.allclose(turned(X @ W_q, angles)[:, J], turned(X @ result.W_in, angles[:, J[:6]]))


@pytest.mark.parametrize("core", ["identity", "optimal"])
def test_groups_share_their_keys(core: str) -> None:
    X, W_q, W_k = head(1, heads=3)
    C_q, C_k = grams(X, W_q), grams(X, W_k)
    result = compress_pair_cr(W_q, W_k, C_q, C_k, 16, core=core)
    scores = np.sqrt(np.einsum("gii->i", C_q) * np.diag(C_k))
    assert np.array_equal(result.indices, np.sort(np.argsort(-scores)[:16]))
    exact = np.concatenate([X @ W @ (X @ W_k).T for W in W_q])
    small = np.concatenate([X @ W @ (X @ result.W_out).T for W in result.W_in])
    assert result.W_in.shape == (3, 48, 16)
    assert abs(relative(exact, small) - result.error) <= GRAM


def test_all_dimensions_change_nothing() -> None:
    X, W_q, W_k = head()
    for core in ("identity", "optimal"):
        result = compress_pair_cr(W_q, W_k, grams(X, W_q), grams(X, W_k), 32, core=core)
        assert result.error <= GRAM
        assert np.array_equal(result.W_out, W_k)
    assert compress_pair_cr(W_q, W_k, grams(X, W_q), grams(X, W_k), 32).error == 0.0


# --- values and outputs -----------------------------------------------------------------------------------------------


@given(st.integers(2, 20), st.integers(1, 12), st.integers(1, 16), st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_linear_pairs_reach_the_singular_values(d: int, h: int, o: int, rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, W_v, W_o = rng.standard_normal((60, d)), rng.standard_normal((d, h)), rng.standard_normal((h, o))
    rank = min(rank, h)
    result = compress_pair_svd(W_v, W_o, X.T @ X, rank)
    Y = X @ W_v @ W_o
    s = np.linalg.svd(Y, compute_uv=False)
    assert abs(result.error - np.linalg.norm(s[rank:]) / np.linalg.norm(s)) <= GRAM
    assert abs(relative(Y, X @ result.W_in @ result.W_out) - result.error) <= GRAM
    assert result.W_in.shape == (d, rank)
    assert result.W_out.shape == (rank, o)
    assert np.linalg.norm(result.W_in) == pytest.approx(np.linalg.norm(result.W_out))
    if rank == h:
        assert np.linalg.norm(W_v @ W_o - result.W_in @ result.W_out) <= 1e-7 * np.linalg.norm(W_v @ W_o)


def test_linear_pair_at_rounding_and_its_invariances() -> None:
    rng = np.random.default_rng(0)
    X, W_v, W_o = inputs(500, 64), rng.standard_normal((64, 32)), rng.standard_normal((32, 40))
    s = np.linalg.svd(X @ W_v @ W_o, compute_uv=False)
    for rank in (1, 8, 16, 31):
        result = compress_pair_svd(W_v, W_o, X.T @ X, rank)
        tail = np.linalg.norm(s[rank:]) / np.linalg.norm(s)
        assert abs(result.error / tail - 1) <= tolerance("float64", 64 * 64, 2)
        turn = np.linalg.qr(rng.standard_normal((32, 32)))[0]
        mixed = compress_pair_svd(W_v @ turn, turn.T @ W_o, X.T @ X, rank)
        assert abs(mixed.error - result.error) <= tolerance("float64", 64 * 64)
        product = result.W_in @ result.W_out
        assert np.abs(mixed.W_in @ mixed.W_out - product).max() <= 1e-9 * np.abs(product).max()
    loose = compress_pair_svd(W_v, W_o, X.T @ X, 8, balance=False)
    whitened = X @ loose.W_in
    assert np.abs(whitened.T @ whitened - np.eye(8)).max() <= 1e-9  # unbalanced values are orthonormal on the data


def test_equal_to_the_form_with_a_root_of_the_gram_matrix() -> None:
    """The paper's two decompositions with C^(1/2), of the size of the inputs, give the same product."""
    rng = np.random.default_rng(1)
    X, W_v, W_o = inputs(300, 24), rng.standard_normal((24, 10)), rng.standard_normal((10, 16))
    w, V = np.linalg.eigh(X.T @ X)
    root, inverse = (V * np.sqrt(w)) @ V.T, (V / np.sqrt(w)) @ V.T
    U, s, Vh = np.linalg.svd(root @ W_v, full_matrices=False)
    U2, s2, Vh2 = np.linalg.svd(s[:, None] * Vh @ W_o, full_matrices=False)
    product = inverse @ U @ U2[:, :4] @ (s2[:4, None] * Vh2[:4])
    result = compress_pair_svd(W_v, W_o, X.T @ X, 4)
    assert np.abs(result.W_in @ result.W_out - product).max() <= 1e-10 * np.abs(product).max()


def test_shared_values_are_optimal_for_the_group() -> None:
    rng = np.random.default_rng(2)
    X, W_v, W_o = inputs(300, 24), rng.standard_normal((24, 10)), rng.standard_normal((3, 10, 16))
    result = compress_pair_svd(W_v, W_o, X.T @ X, 4)
    assert result.W_out.shape == (3, 4, 16)
    Y = np.concatenate([X @ W_v @ W for W in W_o], axis=1)
    small = np.concatenate([X @ result.W_in @ W for W in result.W_out], axis=1)
    s = np.linalg.svd(Y, compute_uv=False)
    assert abs(relative(Y, small) - np.linalg.norm(s[4:]) / np.linalg.norm(s)) <= GRAM
    U = np.linalg.svd(X @ W_v, full_matrices=False)[0][:, :4]  # values chosen without the outputs
    assert result.error < relative(Y, U @ (U.T @ Y))


def test_singular_inputs() -> None:
    rng = np.random.default_rng(0)
    X = inputs(200, 5) @ rng.standard_normal((5, 24))
    W_v, W_o = rng.standard_normal((24, 10)), rng.standard_normal((10, 16))
    result = compress_pair_svd(W_v, W_o, X.T @ X, 5)
    assert result.error <= GRAM
    assert relative(X @ W_v @ W_o, X @ result.W_in @ result.W_out) <= GRAM
    zero = compress_pair_svd(W_v, W_o, np.zeros((24, 24)), 10)
    assert zero.error == 0.0 or np.isfinite(zero.error)
    assert np.all(np.isfinite(zero.W_in @ zero.W_out))


# --- Gram matrices ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 6), st.sampled_from(["float32", "float64"]))
@settings(max_examples=40, deadline=None)
def test_batches_add_up(sizes: list[int], d: int, dtype: str) -> None:
    X = np.random.default_rng(0).standard_normal((sum(sizes), d)).astype(dtype)
    parts = np.split(X, np.cumsum(sizes)[:-1])
    total = GramAccumulator(d)
    for part in parts:
        total.update(part)
    merged = GramAccumulator(d)
    for part in reversed(parts):
        merged.merge(GramAccumulator(d).update(part))
    exact = X.astype(float).T @ X.astype(float)
    assert total.n_rows == merged.n_rows == len(X)
    for state in (total, merged):
        assert np.abs(state.gram - exact).max() <= tolerance("float64", max(1, len(X)), 1 + np.abs(exact).max())


def test_single_precision_batches_lose_nothing() -> None:
    """A large mean in float32: sums in single precision would lose the variance."""
    X = (1000 + np.random.default_rng(0).standard_normal((20_000, 3))).astype("float32")
    state = GramAccumulator(3, "float32")
    for lo in range(0, len(X), 1000):
        state.update(X[lo : lo + 1000])
    exact = X.astype(float).T @ X.astype(float)
    assert state.gram.dtype == np.float32
    assert np.abs(state.gram / exact - 1).max() <= np.finfo(np.float32).eps
    wide = GramAccumulator(3).update(X)
    assert np.abs(wide.gram / exact - 1).max() <= tolerance("float64", len(X))
    first = wide.gram
    first[0, 0] = 0.0
    assert wide.gram[0, 0] > 0  # what is handed out is a copy


def test_accumulators_are_taken_as_they_are() -> None:
    pair = Gated()
    state = GramAccumulator(64)
    for lo in range(0, 1500, 100):
        state.update(pair.Z[lo : lo + 100])
    one, other = (compress_pair_nystrom(pair.W_in, pair.W_out, C, 20) for C in (state, pair.C))
    assert np.array_equal(one.indices, other.indices)
    assert abs(one.error - other.error) <= GRAM


def test_namespaces_and_dtypes(put: Any, dtype: str) -> None:
    pair = Gated()
    W_in, W_out, C, gate = (put(M.astype(dtype)) for M in (pair.W_in, pair.W_out, pair.C, pair.W_in))
    for selection in SELECTIONS:
        result = compress_pair_nystrom(W_in, W_out, C, 20, selection=selection, gate=gate, rng=0)
        host = compress_pair_nystrom(
            *(M.astype(dtype) for M in (pair.W_in, pair.W_out, pair.C)), 20, selection=selection, rng=0
        )
        assert [int(i) for i in result.indices] == list(host.indices)
        assert abs(result.error - host.error) <= tolerance(dtype, 64 * 64)
        assert to_host(result.W_out).dtype == dtype
    X, W_q, W_k = head()
    arguments = [M.astype(dtype) for M in (W_q, W_k, grams(X, W_q), grams(X, W_k))]
    for core in ("identity", "optimal"):
        result, host = (compress_pair_cr(*map(f, arguments), 8, core=core) for f in (put, np.asarray))
        assert abs(result.error - host.error) <= tolerance(dtype, 32 * 32)
        assert to_host(result.W_in).dtype == dtype
    arguments = [M.astype(dtype) for M in (W_q, W_k.T, X.T @ X)]
    result, host = (compress_pair_svd(*map(f, arguments), 8) for f in (put, np.asarray))
    assert abs(result.error - host.error) <= tolerance(dtype, 48 * 48)
    product = to_host(result.W_in) @ to_host(result.W_out)
    assert np.abs(product - host.W_in @ host.W_out).max() <= tolerance(dtype, 48 * 48, np.abs(product).max() * 10)
    state = GramAccumulator(48).update(put(X.astype(dtype)))
    assert np.abs(to_host(state.gram) - X.T @ X).max() <= tolerance(dtype, 400, 400)


ONE, GRAM_4, KEYS = np.ones((3, 4)), np.eye(4), np.ones((5, 4))


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "W_in and W_out must share", lambda: compress_pair_nystrom(ONE, ONE, GRAM_4, 2)),
        (ValueError, r"rank must be in \[1, 4\]", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4, 5)),
        (ValueError, r"gram must have shape \(4, 4\)", lambda: compress_pair_nystrom(ONE, ONE.T, np.eye(3), 2)),
        (ValueError, "gram must be finite", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4 * np.nan, 2)),
        (ValueError, "gram must be symmetric", lambda: compress_pair_nystrom(ONE, ONE.T, np.triu(np.ones((4, 4))), 2)),
        (ValueError, "gram must be positive semidef", lambda: compress_pair_nystrom(ONE, ONE.T, -GRAM_4, 2)),
        (ValueError, "selection must be one of", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4, 2, selection="x")),
        (ValueError, "reg must be one of", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4, 2, reg="x")),
        (ValueError, "reg must be finite and in", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4, 2, reg=0)),
        (ValueError, "gate must have the shape", lambda: compress_pair_nystrom(ONE, ONE.T, GRAM_4, 2, gate=ONE.T)),
        (ValueError, "W_in must be real", lambda: compress_pair_nystrom(1j * ONE, ONE.T, GRAM_4, 2)),
        (ValueError, "W_in must have rows and", lambda: compress_pair_nystrom(ONE[:0], ONE.T, GRAM_4, 2)),
        (ValueError, "W_q and W_k must share", lambda: compress_pair_cr(ONE, ONE.T, GRAM_4, GRAM_4, 2)),
        (ValueError, "must be even with rotary", lambda: compress_pair_cr(ONE, KEYS, GRAM_4, GRAM_4, 3, rotary=True)),
        (
            ValueError,
            'core must be "identity" with rotary',
            lambda: compress_pair_cr(ONE, KEYS, GRAM_4, GRAM_4, 2, rotary=True, core="optimal"),
        ),
        (
            ValueError,
            "gram_q must hold a Gram matrix for each head",
            lambda: compress_pair_cr(np.ones((2, 3, 4)), KEYS, GRAM_4, GRAM_4, 2),
        ),
        (ValueError, "W_v and W_o must share", lambda: compress_pair_svd(ONE, ONE, np.eye(3), 2)),
        (ValueError, r"gram must have shape \(3, 3\)", lambda: compress_pair_svd(ONE, ONE.T, GRAM_4, 2)),
        (ValueError, "X must have 3 columns", lambda: GramAccumulator(3).update(np.ones((2, 4)))),
        (ValueError, "other must be a GramAccumulator", lambda: GramAccumulator(3).merge(GramAccumulator(4))),
        (ValueError, "the accumulator must have seen rows", lambda: GramAccumulator(3).gram),
        (ValueError, "dtype must be one of", lambda: GramAccumulator(3, "float16")),
        (ValueError, "X must be real", lambda: GramAccumulator(3).update(1j * np.ones((2, 3)))),
    ],
)
def test_bad_input(error: type, match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call()
