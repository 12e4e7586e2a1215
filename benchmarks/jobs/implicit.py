"""Implicit feedback to one objective, beside the package implicit; and EASE beside the inverse of NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse

import randla
from randla._parallel import available_threads

from ..common import Sizes, interactions
from .contest import Contest, Pair, shape_of

SETTINGS = ((1.0, 10.0), (40.0, 100.0))  # alpha, reg: counts as they are, and heavy confidence
PEER_SWEEPS = 15  # its default
GOAL = 0.8  # of its time, at an objective that is at most its own
ENOUGH = 1.0 + 1e-4


def objective(C: scipy.sparse.csr_array, X: np.ndarray, Y: np.ndarray, alpha: float, reg: float) -> float:
    """What both minimise, in double precision; ours is not asked for it."""
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    rows, s = np.repeat(np.arange(C.shape[0]), np.diff(C.indptr)), np.empty(C.nnz)
    for lo in range(0, C.nnz, 100_000):
        part = slice(lo, lo + 100_000)
        s[part] = np.einsum("ij,ij->i", X[rows[part]], Y[C.indices[part]])
    c = alpha * C.data.astype(np.float64)
    cells = np.sum((X.T @ X) * (Y.T @ Y)) - s @ s + c @ (1.0 - s) ** 2
    return float(cells + reg * (np.sum(X**2) + np.sum(Y**2)))


def _implicit(C: Any, rank: int, alpha: float, reg: float, use_cg: bool) -> tuple[np.ndarray, np.ndarray]:
    from implicit.cpu.als import AlternatingLeastSquares

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of BLAS threads, which are pinned here
        model = AlternatingLeastSquares(
            factors=rank, regularization=reg, alpha=alpha, dtype=np.float32, use_native=True, use_cg=use_cg,
            iterations=PEER_SWEEPS, num_threads=available_threads(), random_state=0,
        )  # fmt: skip
        model.fit(C, show_progress=False)
    return model.user_factors, model.item_factors


def implicit(sizes: Sizes) -> Iterator[Contest]:
    """The fewest of our sweeps that reach the objective of fifteen of its."""
    m, n, n_interactions, rank = sizes.implicit
    C = interactions(m, n, n_interactions)
    there = find_spec("implicit") is not None
    for alpha, reg in SETTINGS:
        goal = partial(objective, C, alpha=alpha, reg=reg)
        peers: dict[str, Callable[[], Any]] = {}
        n_sweeps = PEER_SWEEPS
        if there:
            kept = scipy.sparse.csr_matrix(C)
            peers = {
                f"implicit, {name}": partial(_implicit, kept, rank, alpha, reg, use_cg)
                for name, use_cg in (("CG", True), ("Cholesky", False))
            }
            n_sweeps = _sweeps(C, rank, alpha, reg, goal(*peers["implicit, CG"]()))
        ours = partial(
            randla.implicit_als, C, rank, alpha=alpha, reg=reg, tol=0.0, max_iter=n_sweeps, rng=0, on_failure="ignore"
        )
        name = f"randla implicit_als, {n_sweeps} sweeps"
        size = f"{shape_of(m, n)}, {C.nnz:,} interactions, rank {rank}, alpha {alpha:g}, reg {reg:g}"
        pairs = [Pair(name, peer, GOAL) for peer in peers]
        size += "" if peers else "; implicit is not installed"
        yield Contest(
            size, {**peers, name: ours}, pairs, "objective", lambda pair, goal=goal: goal(*pair),
            lambda ours, theirs: ours <= ENOUGH * theirs, least=1,
        )  # fmt: skip


def _sweeps(C: Any, rank: int, alpha: float, reg: float, wanted: float) -> int:
    """How many sweeps of ours come down to an objective."""
    found = randla.implicit_als(
        C, rank, alpha=alpha, reg=reg, tol=0.0, max_iter=3 * PEER_SWEEPS, rng=0, on_failure="ignore",
        callback=lambda step: step.loss <= wanted,
    )  # fmt: skip
    return found.n_iter


def _inverse(C: scipy.sparse.csr_array, reg: float) -> np.ndarray:
    """The customary lines: a dense Gram matrix, NumPy's inverse, and its scaled columns."""
    G = (C.T @ C).toarray()
    G[np.diag_indices(len(G))] += reg
    P = np.linalg.inv(G)
    B = P / -np.diag(P)
    np.fill_diagonal(B, 0.0)
    return B


def ease(sizes: Sizes) -> Iterator[Contest]:
    """In both precisions; what they give is compared with NumPy's inverse in double precision."""
    m, n, n_interactions = sizes.ease
    C, reg = interactions(m, n, n_interactions), 500.0
    C.data[:] = 1.0
    exact = _inverse(C.astype(np.float64), reg)
    size = float(np.linalg.norm(exact))
    calls = {
        f"{maker}, {dtype}": partial(call, dtype)
        for dtype in ("float32", "float64")
        for maker, call in (
            ("numpy inv", lambda dtype: _inverse(C.astype(dtype), reg)),
            ("randla ease", lambda dtype: randla.ease(C, reg, dtype=dtype, rng=0).B),
        )
    }
    pairs = [Pair(f"randla ease, {dtype}", f"numpy inv, {dtype}") for dtype in ("float32", "float64")]
    yield Contest(
        f"{shape_of(m, n)}, {C.nnz:,} interactions", calls, pairs, "error of B relative to double precision",
        lambda B: float(np.linalg.norm(B - exact)) / size,
    )  # fmt: skip
