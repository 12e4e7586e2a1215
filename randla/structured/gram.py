"""Gram matrices of streams, and the choice of columns from one."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, floating_dtype
from .._backend import kernel
from .._checks import check_choice, check_integer
from .._random import Key, Stream
from ..linear_maps import squared
from ..triangular import cholesky

_BLOCK_ENTRIES = 2**20  # entries of a batch that are converted to double precision at a time
_NEGLIGIBLE = 1e-14  # of the largest diagonal entry: pivots below are rounding
#: How `compress_pair_nystrom` chooses columns.
SELECTIONS = ("ridge_leverage", "rpcholesky", "qr", "greedy")


class GramAccumulator:
    """The Gram matrix ``X^T X`` of rows that arrive in batches, added up in double precision.

    Parameters
    ----------
    n_features : int, n_features >= 1
        Columns of each batch.
    dtype : {"float64", "float32"}, default "float64"
        Dtype of `gram`; the sum is kept in double precision whatever it is.

    Attributes
    ----------
    n_rows : int
        Rows seen so far.

    Raises
    ------
    ValueError
        If n_features or dtype is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import GramAccumulator
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> total = GramAccumulator(3).update(X[:60]).merge(GramAccumulator(3).update(X[60:]))
    >>> total.n_rows, bool(np.allclose(total.gram, X.T @ X))
    (100, True)
    """

    def __init__(self, n_features: int, dtype: str = "float64") -> None:
        self.n_features = check_integer(n_features, "n_features", low=1)
        self.dtype = check_choice(dtype, "dtype", ("float64", "float32"))
        self.n_rows = 0
        self._sum: Any = None

    def update(self, X: Any) -> GramAccumulator:
        """Add the rows of a batch (N, n_features); returns the accumulator."""
        X = as_matrix(X, name="X", sparse=False)
        if X.shape[1] != self.n_features:
            raise ValueError(f"X must have {self.n_features} columns, got shape {tuple(X.shape)}")
        xp = array_namespace(X)
        if not xp.isdtype(floating_dtype(X, xp), "real floating"):
            raise ValueError(f"X must be real, got dtype {X.dtype}")
        if self._sum is not None:
            check_together(self._sum, X, names=("earlier batches", "X"))
        if self._sum is None:
            self._sum = xp.zeros((self.n_features, self.n_features), dtype=xp.float64, device=device_of(X))
        step = max(1, _BLOCK_ENTRIES // self.n_features)
        for lo in range(0, X.shape[0], step):
            block = xp.astype(X[lo : min(lo + step, X.shape[0]), :], xp.float64)
            self._sum = self._sum + xp.matmul(block.mT, block)
        self.n_rows += int(X.shape[0])
        return self

    def merge(self, other: GramAccumulator) -> GramAccumulator:
        """Add the rows that another accumulator has seen; returns this one."""
        if not isinstance(other, GramAccumulator) or other.n_features != self.n_features:
            raise ValueError(f"other must be a GramAccumulator of {self.n_features} features, got {other!r}")
        if other._sum is not None:
            self._sum = other._sum if self._sum is None else self._sum + other._sum
        self.n_rows += other.n_rows
        return self

    @property
    def gram(self) -> Any:
        """The Gram matrix (n_features, n_features) so far."""
        if self._sum is None:
            raise ValueError("the accumulator must have seen rows, got none; call update first")
        xp = array_namespace(self._sum)
        return xp.astype(self._sum, getattr(xp, self.dtype), copy=self.dtype == "float64")

    def __repr__(self) -> str:
        return f"GramAccumulator({self.n_features}, n_rows={self.n_rows}, dtype={self.dtype!r})"


def as_gram(C: Any, name: str, size: int, like: Any) -> Any:
    """A Gram matrix in double precision, checked and made symmetric to the last bit.

    A stack of them, shape (g, size, size), passes as well.
    """
    if isinstance(C, GramAccumulator):
        C = C.gram
    if hasattr(C, "ndim") and C.ndim == 3:
        xp = array_namespace(C)
        parts = [as_gram(C[i, ...], f"{name}[{i}]", size, like) for i in range(C.shape[0])]
        if not parts:
            raise ValueError(f"{name} must hold at least one Gram matrix, got shape {tuple(C.shape)}")
        return xp.stack(parts)
    C = as_matrix(C, name=name, sparse=False)
    check_together(like, C, names=("the weights", name))
    if tuple(C.shape) != (size, size):
        raise ValueError(f"{name} must have shape ({size}, {size}), got {tuple(C.shape)}")
    xp = array_namespace(C)
    if not xp.isdtype(floating_dtype(C, xp), "real floating"):
        raise ValueError(f"{name} must be real, got dtype {C.dtype}")
    precise = floating_dtype(C, xp) == xp.float64
    C = xp.astype(C, xp.float64)
    whole, off = math.sqrt(squared(C, xp)), math.sqrt(squared(C - C.mT, xp))
    if not whole < math.inf:
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if off > (1e-8 if precise else 1e-3) * whole:
        raise ValueError(f"{name} must be symmetric, got ||C - C^T|| = {off:.2g}; pass X.T @ X")
    if bool(xp.any(xp.linalg.diagonal(C) < 0)):
        raise ValueError(f"{name} must be positive semidefinite, got a negative diagonal entry; pass X.T @ X")
    return (C + C.mT) / 2


def chosen_columns(C: Any, W: Any, rank: int, selection: str, reg: float, key: Key) -> Any:
    """The `rank` columns that a rule takes from a Gram matrix C (D, D), ascending; W (D, o) is what they feed."""
    xp = array_namespace(C)
    if selection == "ridge_leverage":
        return xp.sort(xp.argsort(-ridge_scores(C, reg), stable=True)[:rank])
    picked = _pivots(C, W if selection == "greedy" else None, rank, key if selection == "rpcholesky" else None)
    return xp.sort(xp.asarray(picked, dtype=xp.int64, device=device_of(C)))


def ridge_scores(C: Any, reg: float) -> Any:
    """The diagonal of ``C (C + reg mean(diag(C)) I)^-1``: how little the other columns can stand in for each."""
    xp = array_namespace(C)
    D = C.shape[0]
    eye = xp.eye(D, dtype=C.dtype, device=device_of(C))
    mean = float(xp.sum(xp.linalg.diagonal(C))) / D
    if not mean > 0.0:
        return xp.zeros((D,), dtype=C.dtype, device=device_of(C))
    shifted = C / mean + reg * eye
    inverse = xp.linalg.solve(shifted, eye)
    return 1.0 - reg * xp.linalg.diagonal(inverse)


def _pivots(C: Any, W: Any, rank: int, key: Key | None) -> list[int]:
    """Pivots of a partial Cholesky factorisation of C: the largest, drawn by `key`, or of most use for W.

    The largest diagonal entry is the pivot of a pivoted QR of the data.  With W the gain of a pivot is what it takes
    from the trace of ``W^T (C - L L^T) W``.
    """
    xp, D = array_namespace(C), C.shape[0]
    L = xp.zeros((D, rank), dtype=C.dtype, device=device_of(C))
    left = xp.linalg.diagonal(C) + xp.zeros((D,), dtype=C.dtype, device=device_of(C))
    least = _NEGLIGIBLE * float(xp.max(left))
    reach = None if W is None else xp.matmul(C, W)  # (C - L L^T) W
    free, picked = [True] * D, []
    draws = [] if key is None else [float(u) for u in kernel("uniforms", xp)(key, Stream.SAMPLE, 0, rank)]
    for t in range(rank):
        sound = xp.where(left > least, left, xp.zeros_like(left))
        if reach is not None:
            ones = xp.ones_like(left)
            gain = xp.sum(reach * reach, axis=1) / xp.where(left > least, left, ones)
            gain = xp.where(left > least, gain, xp.zeros_like(gain))
        else:
            gain = sound
        if not float(xp.max(gain)) > 0.0:  # the rest is in the span already: any column serves
            picked += [i for i in range(D) if free[i]][: rank - t]
            break
        if draws:
            sums = xp.cumulative_sum(gain)
            at = int(xp.sum(xp.astype(sums <= draws[t] * float(sums[-1]), xp.int64)))
            pivot = min(at, int(xp.max(xp.nonzero(gain > 0)[0])))
        else:
            pivot = int(xp.argmax(gain))
        column = C[:, pivot] - xp.matmul(L[:, :t], L[pivot, :t, None])[:, 0]
        column = column / math.sqrt(float(left[pivot]))
        L[:, t] = column
        left = left - column * column
        left[pivot] = 0.0
        free[pivot] = False
        picked.append(pivot)
        if reach is not None:
            reach = reach - column[:, None] * xp.matmul(column[None, :], W)
    return picked


def solve_gram(G: Any, B: Any) -> Any:
    """``pinv(G) B`` for a Gram matrix G: by Cholesky where it is definite, else by its leading eigenvectors."""
    xp = array_namespace(G)
    size = xp.sqrt(xp.linalg.diagonal(G))
    size = xp.where(size > 0, size, xp.ones_like(size))
    scaled = G / (size[:, None] * size[None, :])  # unit diagonal: columns of very different size do no harm
    R = cholesky(scaled)
    if R is not None and float(xp.min(xp.linalg.diagonal(R))) > 1e-6:
        return xp.linalg.solve(R, xp.linalg.solve(R.mT, B / size[:, None])) / size[:, None]
    values, V = xp.linalg.eigh(scaled)
    keep = values > 1e-12 * float(xp.max(values))
    inverse = xp.where(keep, 1 / xp.where(keep, values, xp.ones_like(values)), xp.zeros_like(values))
    return xp.matmul(V, inverse[:, None] * xp.matmul(V.mT, B / size[:, None])) / size[:, None]
