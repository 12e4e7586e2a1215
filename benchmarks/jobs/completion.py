"""A matrix of low rank from a twelfth of its entries, to the error that alternating least squares reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import randla
from randla._parallel import available_threads

from ..common import Sizes, completion_problem
from .contest import Contest, Pair, shape_of

ENOUGH = 4.14e-2  # root mean square error against the matrix without noise, standard deviation of its entries 1
REG = 0.2  # plain ridge: of 0.1, 0.2 and 0.3 the best or as good for both
GOAL = 0.4  # on one thread; on all threads it is 0.25


def _cmfrec(observed: Any, rank: int, use_cg: bool, n_iter: int) -> Any:
    """Without side information, biases and what only later predictions need."""
    from cmfrec import CMF

    model = CMF(
        k=rank, lambda_=REG, user_bias=False, item_bias=False, center=False, niter=n_iter, use_cg=use_cg,
        finalize_chol=False, precompute_for_predictions=False, verbose=False, random_state=1,
        nthreads=available_threads(),
    )  # fmt: skip
    return model.fit(observed)


def completion(sizes: Sizes) -> Iterator[Contest]:
    """Beside cmfrec where it is installed (pip install cmfrec): it is compiled on many systems, so it is no extra."""
    m, n, rank, share = sizes.completion
    observed, rows, cols, truth = completion_problem(m, n, rank, share)
    triples = observed.tocoo()
    options: dict[str, Any] = {"reg": REG, "reg_exponent": 0.0, "bias": False, "tol": 0.0, "rng": 0}
    ours: dict[str, Callable[[], Any]] = {
        f"randla complete, {solver}": partial(
            randla.complete, observed, rank, solver=solver, max_iter=3, on_failure="ignore", **options
        )
        for solver in ("cholesky", "cg")
    }
    # the fewest sweeps of each that reach the error at the full size: four leave 4.65e-2 and 4.99e-2
    peers: dict[str, Callable[[], Any]] = {
        "cmfrec, Cholesky, 5 sweeps": partial(_cmfrec, triples, rank, False, 5),
        "cmfrec, CG, 5 sweeps": partial(_cmfrec, triples, rank, True, 5),
    }
    if find_spec("cmfrec") is None:
        peers = {}

    def error(fit: Any) -> float:
        return float(np.sqrt(np.mean((fit.predict(rows, cols) - truth) ** 2)))

    first, second = ours
    pairs = [Pair(first, peer, GOAL) for peer in peers] + [Pair(second, first)]
    size = f"{shape_of(m, n)}, rank {rank}, {observed.nnz:,} entries"
    size += "" if peers else "; cmfrec is not installed"
    yield Contest(
        size, {**peers, **ours}, pairs, "root mean square error", error, lambda ours, _: ours <= ENOUGH, least=2
    )
