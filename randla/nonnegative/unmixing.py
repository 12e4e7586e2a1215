"""What the unmixing of spectral images shares: the abundances' problem, the graph of the pixels, starts, the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, from_host, is_sparse
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key
from .._results import Status
from ._matrices import Dense, as_nonnegative, gram
from .frobenius import Step
from .initialization import random_factor
from .separable import spa
from .simplex import nonneg_lstsq

PENALTIES = ("l1", "l1/2")
ROUNDS = 5  # majorised problems in a half step, where it takes more than one
CODING = 20  # half steps for codes, where one is not exact
LEAST = 1e-6  # entry of H below which the square root is continued by its tangent
EDGE_ENTRIES = 2**22  # entries of differences of spectra that are formed together


@dataclass(frozen=True)
class Graph:
    """Weights between neighbouring pixels as a CSR matrix, their sums, and a bound of the Laplacian's eigenvalues."""

    data: Any
    indices: Any
    indptr: Any
    degrees: Any
    bound: float

    def laplacian(self, H: Any, xp: Any) -> Any:
        """H (D - A) for H (r, n)."""
        rows = xp.asarray(H.T, order="C") if hasattr(H, "flags") else H.T
        return H * self.degrees[None, :] - kernel("csr_matmul", xp)(self.data, self.indices, self.indptr, rows).T


def pixel_graph(X: Any, image_shape: tuple[int, int], connectivity: int, seen: Any, xp: Any) -> Graph:
    """Weights ``exp(-||x_i - x_j||^2 / sigma)`` of neighbours, sigma the median square; 0 at pixels of zeros."""
    height, width = image_shape
    steps = ((0, 1), (1, 0)) if connectivity == 4 else ((0, 1), (1, 0), (1, 1), (1, -1))
    numbers, left, right = np.arange(height * width).reshape(height, width), [], []
    for down, across in steps:
        side = slice(max(0, -across), width - max(0, across)), slice(max(0, across), width + min(0, across))
        left.append(numbers[: height - down, side[0]].ravel())
        right.append(numbers[down:, side[1]].ravel())
    i, j = np.concatenate(left), np.concatenate(right)
    a, b = (from_host(places, xp, X) for places in (i, j))
    step, parts = max(1, EDGE_ENTRIES // max(1, int(X.shape[0]))), []
    for first in range(0, len(i), step):
        pair = (xp.take(X, places[first : min(first + step, len(i))], axis=1) for places in (a, b))
        difference = xp.astype(next(pair) - next(pair), xp.float64)
        parts.append(xp.sum(difference * difference, axis=0))
    squares = xp.concat(parts) if parts else xp.zeros(0, dtype=xp.float64, device=device_of(X))
    both = xp.take(seen, a) * xp.take(seen, b)
    known = squares[both > 0]
    sigma = float(xp.sort(known)[int(known.shape[0]) // 2]) if known.shape[0] else 0.0
    weights = xp.exp(-squares / (sigma if sigma > 0 else 1.0)) * xp.astype(both, xp.float64)
    order = np.lexsort([np.concatenate([j, i]), np.concatenate([i, j])])
    indptr = np.concatenate([[0], np.cumsum(np.bincount(np.concatenate([i, j]), minlength=height * width))])
    data = xp.take(xp.concat([weights, weights]), from_host(order, xp, X))
    indices, indptr = from_host(np.concatenate([j, i])[order], xp, X), from_host(indptr.astype(np.int64), xp, X)
    ones = xp.ones((height * width, 1), dtype=xp.float64, device=device_of(X))
    degrees = kernel("csr_matmul", xp)(data, indices, indptr, ones)[:, 0]
    # Anderson and Morley: no eigenvalue exceeds the sum of the degrees of two neighbours
    bound = float(xp.max(xp.take(degrees, a) + xp.take(degrees, b))) if len(i) else 0.0
    return Graph(xp.astype(data, X.dtype), indices, indptr, xp.astype(degrees, X.dtype), bound)


@dataclass(frozen=True)
class Mixture:
    """The data over their largest entry, and everything in the objective but the loss of the residuals.

    ``weights`` multiply the rows of X; ``pull`` is the weight of the squares of 1 - sum(H[:, j]); ``seen`` is 1 for
    columns that are not zero.
    """

    data: Dense
    unit: float
    seen: Any
    pull: float
    sparsity: float
    penalty: str
    graph: Graph | None = None
    smoothness: float = 0.0
    weights: Any = None

    @property
    def xp(self) -> Any:
        """The namespace of the data."""
        return self.data.xp

    def penalties(self, H: Any) -> float:
        """Sum-to-one, sparsity and graph terms."""
        xp, total = self.xp, 0.0
        wide = xp.astype(H, xp.float64)
        if self.pull:
            gap = (1 - xp.sum(wide, axis=0)) * self.seen
            total += 0.5 * self.pull * float(xp.sum(gap * gap))
        if self.sparsity:
            total += self.sparsity * float(xp.sum(wide if self.penalty == "l1" else _root(wide, xp)))
        if self.graph is not None:
            total += 0.5 * self.smoothness * float(xp.sum(wide * xp.astype(self.graph.laplacian(H, xp), xp.float64)))
        return total

    def band_errors(self, W: Any, H: Any) -> Any:
        """Squared residual norms of the rows of X, float64 (m,)."""
        xp, X = self.xp, self.data.X
        R = xp.astype(X - xp.matmul(W, H), xp.float64)
        return xp.sum(R * R, axis=1)

    def abundances(self, W: Any, H: Any) -> Any:
        """H for given W: the minimiser, or a few steps down majorants where terms are not quadratic by columns."""
        xp, c = self.xp, self.smoothness * (self.graph.bound if self.graph is not None else 0.0)
        scaled = W if self.weights is None else W * xp.astype(self.weights, W.dtype)[:, None]
        wide = xp.astype(scaled, xp.float64)
        G = xp.matmul(wide.T, xp.astype(W, xp.float64)) + self.pull
        B = self.data.left(xp.asarray(scaled.T, copy=True)) + xp.astype(self.pull * self.seen, H.dtype)[None, :]
        k = int(G.shape[0])
        if c > 0:
            G = G + c * xp.eye(k, dtype=G.dtype, device=device_of(G))
        for _ in range(ROUNDS if c > 0 or (self.sparsity and self.penalty == "l1/2") else 1):
            right = B
            if self.sparsity:
                right = right - self.sparsity * (1.0 if self.penalty == "l1" else _slope(H, xp))
            if c > 0 and self.graph is not None:
                right = right + (c * H - self.smoothness * self.graph.laplacian(H, xp))
            H = nonneg_lstsq(G, right, H)
        return H * xp.astype(self.seen, H.dtype)[None, :]

    def endmembers(self, W: Any, H: Any) -> Any:
        """W for given H, row by row: weights of rows cancel."""
        xp = self.xp
        Wt = nonneg_lstsq(gram(H, xp), self.data.right(H), xp.asarray(W.T, copy=True))
        return xp.asarray(Wt.T, copy=True)


def _root(H: Any, xp: Any) -> Any:
    """The square root, below `LEAST` continued by its tangent, which keeps it concave with a bounded slope."""
    low = math.sqrt(LEAST)
    return xp.where(H >= LEAST, xp.sqrt(xp.where(H >= LEAST, H, LEAST)), low + (H - LEAST) / (2 * low))


def _slope(H: Any, xp: Any) -> Any:
    return 0.5 / xp.sqrt(xp.where(H >= LEAST, H, LEAST))


# --- intake and starts ------------------------------------------------------------------------------------------------


def mixture(X: Any, *, sum_to_one: Any, sparsity: Any, penalty: str) -> Mixture:
    """The checked data and terms; X dense, nonnegative and finite."""
    if is_sparse(X):
        raise TypeError(f"X must be a dense array, got a sparse {X.format} matrix; pass X.toarray()")
    X = as_matrix(X, name="X", sparse=False)
    pull, sparsity = check_real(sum_to_one, "sum_to_one", low=0.0), check_real(sparsity, "sparsity", low=0.0)
    check_choice(penalty, "penalty", PENALTIES)
    try:
        data = as_nonnegative(X)
        unit = float(data.xp.max(data.X)) if min(data.shape) else 0.0
        scaled = data.X / unit if unit > 0 else data.X
    except OverflowError as error:
        unit = float(error.args[0])
        scaled = X / unit
    data = as_nonnegative(scaled)
    xp = data.xp
    seen = xp.astype(data.column_squares > 0, xp.float64)
    return Mixture(data, unit if unit > 0 else 1.0, seen, pull**2, sparsity, penalty)


def check_image(image_shape: Any, n: int, connectivity: Any) -> tuple[tuple[int, int], int]:
    """Height, width and the number of neighbours."""
    try:
        height, width = (check_integer(side, "image_shape", low=0) for side in image_shape)
    except (TypeError, ValueError):
        raise ValueError(f"image_shape must be (height, width), got {image_shape!r}") from None
    if height * width != n:
        raise ValueError(f"image_shape must have the {n} columns of X as its pixels, got {height} x {width}")
    connectivity = check_integer(connectivity, "connectivity", low=4, high=8)
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    return (height, width), connectivity


def pure_pixels(model: Mixture, rank: int, key: Key) -> Any:
    """W from the columns that successive projections take, filled up by random ones where they are fewer."""
    xp, data = model.xp, model.data
    X = data.X if model.weights is None else data.X * xp.astype(xp.sqrt(model.weights), data.dtype)[:, None]
    found = spa(X, min(rank, data.shape[1]), normalize=model.pull == 0, on_failure="ignore")
    W = xp.take(data.X, found.columns, axis=1)
    missing = rank - int(W.shape[1])
    if missing:
        W = xp.concat([W, random_factor(missing, data.shape[0], data, key).T], axis=1)
    return W


def given_matrix(F: Any, name: str, shape: tuple[int, int], model: Mixture) -> Any:
    """A nonnegative matrix of the caller's in the dtype of the data."""
    xp = model.xp
    F = as_matrix(F, name=name, sparse=False)
    check_together(model.data.like, F, names=("X", name))
    if tuple(F.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(F.shape)}")
    F = xp.astype(F, model.data.dtype, copy=True)
    if not bool(xp.all(F >= 0)) or not bool(xp.all(xp.isfinite(F))):
        raise ValueError(f"{name} must be finite and nonnegative, got other entries")
    return F


def first_factors(model: Mixture, rank: int, init: Any, endmembers: Any, key: Key, starts: tuple[str, ...]) -> Any:
    """W and H to begin with: pure pixels or what the caller gives, and abundances without graph for W."""
    xp, (m, n) = model.xp, model.data.shape
    if endmembers is not None:
        W, H = given_matrix(endmembers, "endmembers", (m, rank), model) / model.unit, None
    elif isinstance(init, str):
        check_choice(init, "init", starts)
        W, H = (pure_pixels(model, rank, key) if rank and n else xp.zeros((m, rank), dtype=model.data.dtype)), None
    else:
        try:
            W, H = init
        except (TypeError, ValueError):
            raise ValueError(f"init must be one of {', '.join(starts)}, or a pair (W, H), got {init!r}") from None
        W, H = given_matrix(W, "init W", (m, rank), model) / model.unit, given_matrix(H, "init H", (rank, n), model)
    if H is None:
        H = xp.zeros((rank, n), dtype=model.data.dtype, device=device_of(model.data.like))
        H = replace(model, graph=None, smoothness=0.0, sparsity=0.0).abundances(W, H) if rank and n else H
    return W, H * xp.astype(model.seen, H.dtype)[None, :]


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass
class Mixed:
    """Where the loop is."""

    W: Any
    H: Any
    objective: float
    history: list[float]
    n_iter: int = 0
    status: Status = Status.MAX_ITER
    stopped: bool = False


def unmix(
    model: Mixture, W: Any, H: Any, *, free: bool, max_iter: int, tol: float, callback: Callable[[Step], object] | None,
    loss: Callable[[Any], tuple[float, Any]] | None = None, begun: int = 0,
) -> Mixed:  # fmt: skip
    """Half steps for H and, where it is `free`, W by turns, until the objective falls by `tol` of itself or less.

    `loss` maps the squared errors of bands to their total loss and to the weights of the next half step: those of a
    majorant, so that the objective falls.
    """
    xp = model.xp

    def judged(W: Any, H: Any) -> tuple[float, float, Any]:
        e = model.band_errors(W, H)
        total, weights = (0.5 * float(xp.sum(e)), None) if loss is None else loss(e)
        return total + model.penalties(H), float(xp.sum(e)), weights

    value, squares, weights = judged(W, H)
    state = Mixed(W, H, value, [value], begun)
    if not math.isfinite(value):
        state.status = Status.NONFINITE
        return state
    while state.n_iter < max_iter:
        H = replace(model, weights=weights).abundances(W, H)
        W = model.endmembers(W, H) if free else W
        value, squares, weights = judged(W, H)
        state.n_iter += 1
        if not math.isfinite(value):
            state.status = Status.NONFINITE
            break
        before, better = state.history[-1], value <= state.objective
        state.history.append(value)
        if better:
            state.W, state.H, state.objective = W, H, value
        fall = (before - value) / before if before > 0 else 0.0
        if callback is not None:
            error = math.sqrt(squares / model.data.squared_norm) if model.data.squared_norm > 0 else 0.0
            if callback(Step(state.n_iter, value, error, fall)):
                state.stopped = True
                break
        if fall <= tol:
            state.status = Status.CONVERGED
            break
    return state


def codes(
    X: Any, W: Any, *, unit: float, weights: Any, sum_to_one: float, sparsity: float, penalty: str,
) -> Any:  # fmt: skip
    """Abundances (rank, n) of the columns of X for endmembers W, each by itself, with the terms of data over `unit`."""
    model = mixture(X, sum_to_one=sum_to_one, sparsity=sparsity, penalty=penalty)
    xp, ratio = model.xp, (unit / model.unit) ** 2  # X has a unit of its own, in which the terms weigh so much more
    model = replace(model, weights=weights, pull=ratio * model.pull, sparsity=ratio * model.sparsity)
    H = xp.zeros((int(W.shape[1]), model.data.shape[1]), dtype=model.data.dtype, device=device_of(model.data.like))
    for _ in range(CODING if sparsity and penalty == "l1/2" else 1):
        H = model.abundances(W / model.unit, H)
    return H
