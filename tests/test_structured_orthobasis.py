"""Fixed bases: orthonormal, the best choice of columns, honest about what they cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from randla._arrays import eps, to_host
from randla.structured import OrthobasisProjector
from randla.structured.orthobasis import named_basis

from .conftest import tolerance


def best(G: np.ndarray, rank: int) -> float:
    s = np.linalg.svd(G, compute_uv=False)
    return float(np.linalg.norm(s[rank:]) / np.linalg.norm(s))


@pytest.mark.parametrize("name", ["dct", "hadamard", "haar"])
@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_bases_are_orthonormal(name: str, n: int) -> None:
    Q = named_basis(name, n)
    assert np.abs(Q.T @ Q - np.eye(n)).max() <= tolerance("float64", n)


def test_bases_are_those_of_their_names() -> None:
    n = 32
    j, i = np.arange(n)[:, None], np.arange(n)[None, :]
    by_formula = np.sqrt(2 / n) * np.cos(np.pi * (2 * j + 1) * i / (2 * n))
    by_formula[:, 0] /= np.sqrt(2)
    assert np.abs(named_basis("dct", n) - by_formula).max() <= tolerance("float64", n)
    X = np.random.default_rng(0).standard_normal((5, n))
    dct = scipy.fft.dct(X, type=2, norm="ortho", axis=1)
    assert np.abs(X @ named_basis("dct", n) - dct).max() <= tolerance("float64", n, 3)
    assert np.array_equal(named_basis("hadamard", n) * np.sqrt(n), scipy.linalg.hadamard(n))
    haar = np.array([[1, 1, 1, 0], [1, 1, -1, 0], [1, -1, 0, 1], [1, -1, 0, -1]]) / np.array([2, 2, 2**0.5, 2**0.5])
    assert np.abs(named_basis("haar", 4) - haar).max() <= tolerance("float64", 4)


def test_large_cosine_bases_keep_their_digits() -> None:
    """Angles are reduced in integers: the last column of a large basis is as good as the first."""
    Q = named_basis("dct", 4096)[:, -3:]
    exact = np.empty((4096, 3), dtype=np.longdouble)
    for place, i in enumerate(range(4093, 4096)):
        turns = (2 * np.arange(4096) + 1) * i % (4 * 4096)
        exact[:, place] = np.sqrt(np.longdouble(2) / 4096) * np.cos(np.longdouble(np.pi) / 8192 * turns)
    assert np.abs(Q - exact.astype(float)).max() < 4 * eps("float64") * np.abs(Q).max() * 10


@given(
    st.integers(1, 12),
    st.integers(0, 4),
    st.integers(1, 20),
    st.sampled_from(["dct", "hadamard", "haar", "own"]),
    st.sampled_from(["right", "left"]),
    st.sampled_from([1, 2]),
)
@settings(max_examples=100, deadline=None)
def test_error_is_exact_bounded_and_optimal(m: int, log: int, rank: int, basis: str, side: str, norm: int) -> None:
    n = 2**log
    rng = np.random.default_rng(m * 100 + n)
    G = rng.standard_normal((m, n) if side == "right" else (n, m)) * rng.exponential(size=(1, 1))
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0] if basis == "own" else named_basis(basis, n)
    rank = min(rank, n)
    projector = OrthobasisProjector(Q if basis == "own" else basis, rank, norm=norm, side=side).fit(G)
    tol = tolerance("float64", G.size)
    left_out = projector.residual(G)
    assert abs(np.linalg.norm(left_out) / np.linalg.norm(G) - projector.error_) <= tol
    S = G @ Q if side == "right" else G.T @ Q
    sizes = np.linalg.norm(S, axis=0) if norm == 2 else np.abs(S).sum(axis=0)
    assert sizes[projector.indices_].sum() >= np.sort(sizes)[::-1][:rank].sum() - tol * sizes.max()
    assert np.array_equal(projector.indices_, np.sort(projector.indices_))
    if norm == 2:
        assert projector.error_ <= projector.bound_ + tol
    g = projector.transform(G)
    assert g.shape == ((G.shape[0], rank) if side == "right" else (rank, G.shape[1]))
    assert np.abs(projector.transform(projector.inverse_transform(g)) - g).max() <= tol * np.linalg.norm(G)


@pytest.mark.parametrize(
    ("kind", "rank", "cosine", "optimum"),
    [("walk", 16, 0.113, 0.109), ("walk", 64, 0.0545, 0.050), ("iid", 16, 0.965, 0.917), ("iid", 64, 0.856, 0.702)],
)
def test_smooth_rows_and_white_noise(kind: str, rank: int, cosine: float, optimum: float) -> None:
    """512 x 256: on random walks within a tenth of the best, on noise hardly below the bound for any basis."""
    G = np.random.default_rng(0).standard_normal((512, 256))
    G = np.cumsum(G, axis=1) if kind == "walk" else G
    projector = OrthobasisProjector("dct", rank).fit(G)
    assert projector.error_ == pytest.approx(cosine, rel=0.05)  # one draw of 131,072 entries
    assert best(G, rank) == pytest.approx(optimum, rel=0.05)
    assert projector.bound_ == pytest.approx({16: 0.968, 64: 0.866}[rank], abs=5e-4)
    assert projector.error_ <= projector.bound_
    by_sums = OrthobasisProjector("dct", rank, norm=1).fit(G)
    assert -tolerance("float64", G.size) <= by_sums.error_ - projector.error_ < 1.5e-3


@pytest.mark.parametrize("rank", [16, 64])
def test_low_rank_without_order_is_out_of_reach(rank: int) -> None:
    rng = np.random.default_rng(0)
    G = rng.standard_normal((512, 64)) @ rng.standard_normal((64, 256))
    assert OrthobasisProjector("dct", rank).fit(G).error_ > {16: 0.94, 64: 0.81}[rank]
    assert best(G, 64) <= tolerance("float64", 512)


def test_side_follows_the_shape() -> None:
    G = np.random.default_rng(0).standard_normal((64, 32))
    assert OrthobasisProjector("dct", 4).fit(G).side_ == "right"
    assert OrthobasisProjector("dct", 4).fit(G.T).side_ == "left"
    assert OrthobasisProjector("dct", 4).fit(G[:32]).side_ == "right"


def test_rotation_is_a_selection() -> None:
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.standard_normal((100, 64)), axis=1) + 3 * rng.standard_normal((100, 64)) for _ in range(2)]
    old, new = (OrthobasisProjector("dct", 20).fit(G) for G in walks)
    rotation = new.rotation_from(old)
    dense = old.components(walks[0]).T @ new.components(walks[0])
    assert np.abs(rotation.to_dense() - dense).max() <= tolerance("float64", 64)
    assert 0 < len(rotation.source) < 20
    state = rng.standard_normal((100, 20))
    assert np.array_equal(rotation.apply(state), state @ rotation.to_dense())
    same = old.rotation_from(old)
    assert np.array_equal(same.apply(state), state)
    with pytest.raises(ValueError, match="state must have 20 columns"):
        rotation.apply(state[:, :3])
    others = OrthobasisProjector("haar", 20).fit(walks[0]), OrthobasisProjector("dct", 20, side="left").fit(walks[0].T)
    for other in others:
        with pytest.raises(ValueError, match="previous must have the same basis"):
            new.rotation_from(other)
    with pytest.raises(TypeError, match="previous must be"):
        new.rotation_from("dct")


def test_namespaces(put: Any, any_dtype: str) -> None:
    rng = np.random.default_rng(0)
    G = np.cumsum(rng.standard_normal((30, 16)), axis=1).astype(any_dtype)
    G = G * (1 + 1j) if any_dtype.startswith("complex") else G
    for basis in ("dct", "hadamard", "haar"):
        projector, host = (OrthobasisProjector(basis, 5).fit(M) for M in (put(G), G))
        assert [int(i) for i in projector.indices_] == list(host.indices_)
        assert abs(projector.error_ - host.error_) <= tolerance(any_dtype, 480)
        g = projector.transform(put(G))
        assert to_host(g).dtype == any_dtype
        assert np.abs(to_host(projector.inverse_transform(g)) - host.inverse_transform(host.transform(G))).max() <= (
            tolerance(any_dtype, 480, np.abs(G).max())
        )
        assert np.abs(to_host(projector.rotation_from(projector).apply(g)) - to_host(g)).max() == 0


def test_unitary_bases_on_both_sides() -> None:
    n = 16
    Q = np.fft.fft(np.eye(n), norm="ortho")
    x = np.arange(n)
    G = np.outer(np.exp(2j * np.pi * 3 * x / n), np.ones(5))
    left = OrthobasisProjector(Q.conj(), 1, side="left").fit(G)
    assert left.indices_[0] == 3
    assert np.linalg.norm(left.residual(G)) <= tolerance("complex128", n, np.linalg.norm(G))
    right = OrthobasisProjector(Q, 1, side="right").fit(np.ascontiguousarray(G.T))
    assert right.error_ <= tolerance("complex128", n)
    assert np.linalg.norm(right.residual(G.T)) <= tolerance("complex128", n, np.linalg.norm(G))


def test_ties_zeros_and_all_components() -> None:
    tied = OrthobasisProjector(np.eye(6), 3).fit(np.ones((4, 6)))
    assert list(tied.indices_) == [0, 1, 2]
    assert OrthobasisProjector("dct", 3).fit(np.zeros((8, 6))).error_ == 0.0
    assert OrthobasisProjector("dct", 6).fit(np.ones((8, 6))).error_ == 0.0
    assert OrthobasisProjector("dct", 3).fit(np.full((8, 6), 1e200)).error_ < 1e-14
    assert "error=" in repr(tied)
    assert repr(OrthobasisProjector()) == "OrthobasisProjector('dct', 16, norm=2, side='auto')"


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "basis must be one of", lambda G: OrthobasisProjector("fourier")),
        (ValueError, "basis must have orthonormal columns", lambda G: OrthobasisProjector(np.ones((4, 4)))),
        (ValueError, "basis must be square", lambda G: OrthobasisProjector(np.eye(4)[:, :2])),
        (ValueError, "norm must be 1 or 2", lambda G: OrthobasisProjector(norm=3)),
        (ValueError, "side must be one of", lambda G: OrthobasisProjector(side="both")),
        (ValueError, r"n_components must be in \[1, 6\]", lambda G: OrthobasisProjector("dct", 7).fit(G)),
        (ValueError, "must have a side of a power of two", lambda G: OrthobasisProjector("haar", 2).fit(G)),
        (ValueError, "basis must have 6 rows", lambda G: OrthobasisProjector(np.eye(5), 2).fit(G)),
        (ValueError, "the projector must be fitted", lambda G: OrthobasisProjector("dct", 2).transform(G)),
        (ValueError, "the matrix must have 6 columns", lambda G: OrthobasisProjector("dct", 2).fit(G).transform(G.T)),
        (ValueError, "the matrix must have 2 col", lambda G: OrthobasisProjector("dct", 2).fit(G).inverse_transform(G)),
        (ValueError, "G must be finite", lambda G: OrthobasisProjector("dct", 2).fit(G * np.nan)),
        (ValueError, "G must have rows and columns", lambda G: OrthobasisProjector("dct", 2).fit(G[:0])),
    ],
)
def test_bad_input(error: type, match: str, call: Any) -> None:
    with pytest.raises(error, match=match):
        call(np.random.default_rng(0).standard_normal((8, 6)))
