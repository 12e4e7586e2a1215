"""Singular value decomposition from a single view of the rows: three sketches and a probe, all in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .._arrays import as_matrix, floating_dtype, is_sparse, namespace_of, real_dtype
from .._checks import check_integer
from .._random import Key
from .._results import Status
from ..diagnostics import CONFIDENCE, probe_factor
from ..linear_maps import OperatorMap, _Blocked, as_linear_map, column_sums, squared
from .orthonormal import NonfiniteError
from .results import LowRankResult, signed
from .three_sketches import filled, sketches, solve_core

_ANY = 2**62  # rows of a stream whose length is not known: a table of a sketch does not depend on it


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity end in a status, not in NumPy's warnings
def single_view(A: Any, rank: Any, *, center: bool, key: Key) -> LowRankResult:
    """The decomposition of `svd` with ``n_passes=1``.

    Three sketches ``X = Upsilon A``, ``Y = A Omega^T``, ``Z = Phi A Psi^T`` of sizes k = 4 rank + 1 and s = 2 k + 1 are
    collected with 20 Gaussian probes of the rows.  With Q and P spanning Y and X^*, the core C solves the two least
    squares problems ``(Phi Q) C (Psi P)^* = Z`` [1]_.

    Deviations from [1]_: (1) sketches are sparse; (2) sizes above n are replaced by the identity.

    References
    ----------
    .. [1] Tropp, Yurtsever, Udell and Cevher, "Streaming low-rank matrix approximation with an application to
       scientific simulation", SIAM J. Sci. Comput. 41 (2019), Algorithms 4.1 and 4.2; the probes are section 6.
    """
    blocks, m, n = _readable(A)
    rank = check_integer(rank, "rank", low=0, high=min(m, n) if m is not None else n)
    view = _View(rank, n, key, center)
    for start, B in blocks:
        view.add(B, start)
    if view.m == 0 and rank > 0:
        raise ValueError("A must have at least one row for a single view, got an empty stream")
    if rank > view.m:
        raise ValueError(f"rank must be at most the number of rows, got {rank} for {view.m} rows")
    return view.finish()


def _readable(A: Any) -> tuple[Iterator[tuple[int, Any]], int | None, int]:
    """The floating blocks of A with their first rows, the number of rows if known, and the number of columns."""
    if hasattr(A, "__next__"):
        first = next(A, None)
        if first is None:
            raise ValueError("A must yield at least one block of rows, got an empty iterator")
        first = as_matrix(first, name="block at row 0")
        return _stream(first, A), None, int(first.shape[1])
    A = as_linear_map(A)
    if isinstance(A, OperatorMap) or not isinstance(A, _Blocked):
        raise ValueError("n_passes must be at least 2 for a linear operator, got 1; a single view reads rows of A")
    return A._blocks(bounded=False), A.shape[0], A.shape[1]


def _stream(first: Any, rest: Any) -> Iterator[tuple[int, Any]]:
    start, block = 0, first
    xp, n = namespace_of(first), first.shape[1]
    while block is not None:
        block = as_matrix(block, name=f"block at row {start}")
        if block.shape[1] != n:
            raise ValueError(f"block at row {start} must have {n} columns like the first, got {block.shape[1]}")
        dtype = floating_dtype(first, xp)
        ready = block if block.dtype == dtype else block.astype(dtype) if is_sparse(block) else xp.astype(block, dtype)
        yield start, ready
        start += block.shape[0]
        block = next(rest, None)


class _View:
    """The sketches of the rows seen so far."""

    def __init__(self, rank: int, n: int, key: Key, center: bool) -> None:
        k = 4 * rank + 1
        self.rank, self.n, self.center, self.m, self.squares = rank, n, center, 0, 0.0
        self.sketches = sketches(k, 2 * k + 1, _ANY, n, key)
        self.sums: dict[str, Any] = {}
        self.Y: list[Any] = []

    def add(self, B: Any, start: int) -> None:
        """Take in the rows start, start + 1, ... of the matrix."""
        xp = namespace_of(B)
        self.m = max(self.m, start + B.shape[0])
        self.squares += squared(B, xp)
        S = self.sketches
        columns = S.psi.rmatmul(B)
        self.Y.append(S.omega.rmatmul(B))
        parts = {
            "X": S.upsilon.matmul(B, start=start),
            "Z": S.phi.matmul(columns, start=start),
            "E": S.theta.matmul(B, start=start),
        }
        if self.center:
            where = device_of(B.data if is_sparse(B) else B)
            ones = xp.ones((B.shape[0], 1), dtype=B.dtype, device=where)
            parts["mean"] = column_sums(B, xp)
            for name, side in (("X1", S.upsilon), ("Z1", S.phi), ("E1", S.theta)):
                parts[name] = side.matmul(ones, start=start)
        for name, part in parts.items():
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def _centred(self, xp: Any) -> tuple[Any, Any, Any, Any, Any]:
        Y = self.Y[0] if len(self.Y) == 1 else xp.concat(self.Y, axis=0)
        X, Z, E = self.sums["X"], self.sums["Z"], self.sums["E"]
        if not self.center:
            return X, Y, Z, E, None
        mean = self.sums["mean"] / self.m
        across = [side.matmul(mean[:, None])[:, 0] for side in (self.sketches.omega, self.sketches.psi)]
        self.squares = max(0.0, self.squares - self.m * squared(mean[None, :], xp))
        X = X - self.sums["X1"] * mean[None, :]
        Z = Z - self.sums["Z1"] * across[1][None, :]
        return X, Y - across[0][None, :], Z, E - self.sums["E1"] * mean[None, :], mean

    def finish(self) -> LowRankResult:
        """Solve for the core and cut it to the rank."""
        xp = namespace_of(self.Y[0])
        X, Y, Z, E, mean = self._centred(xp)
        try:
            U, s, Vh = solve_core(self.sketches, X, Y, Z, self.rank)
        except NonfiniteError:
            return self._result(
                Y[:, :0],
                X[:0, :],
                xp.zeros((0,), dtype=real_dtype(Y.dtype, xp), device=device_of(Y)),
                math.nan,
                mean,
                Status.NONFINITE,
            )
        residual = E - xp.matmul(self.sketches.theta.matmul(U) * s[None, :], Vh)
        U, s, Vh = filled(U, s, Vh, self.rank)
        U, Vh = signed(U, Vh)
        error = math.sqrt(squared(residual, xp))
        # on a flat spectrum the noise of the sketches can outweigh what they caught: zero would be the better answer
        status = Status.CONVERGED if error**2 < self.squares or self.squares == 0.0 else Status.BREAKDOWN
        return self._result(U, Vh, s, error, mean, status)

    def _result(self, U: Any, Vh: Any, s: Any, error: float, mean: Any, status: Status) -> LowRankResult:
        norm = math.sqrt(self.squares) if self.squares < math.inf else math.nan
        relative = error / norm if norm != 0.0 else 0.0
        bound = relative * probe_factor() if relative == relative else math.inf
        return LowRankResult(
            U, s, Vh, rank=int(s.shape[0]), error=relative, error_bound=bound, confidence=CONFIDENCE,
            error_kind="sketched", error_norm="frobenius", norm=norm, n_passes=1, n_matvecs=0, n_iter=1, history=(),
            status=status, mean=mean,
        )  # fmt: skip
