"""Randomly pivoted partial Cholesky factors of positive semidefinite matrices, from a few columns of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_array_api_obj, is_cupy_namespace, is_numpy_namespace

from .._arrays import eps, from_host, to_host
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from .kernel_functions import KernelMatrix, as_kernel_matrix
from .projectors import TwoSidedFactorization
from .results import ON_FAILURE

METHODS = ("accelerated", "simple", "block", "robust")

FIRST_BLOCK, LARGEST_BLOCK = 16, 192  # races that are prepared together
CANDIDATES = 5  # of a race: the pivots of a block leave the first of them in front in all but few races
DIVISOR = 48  # columns of a step of a triangular solve
STRIPE = 1024  # rows of the factor that stay in cache through a step
NOISE = 16.0  # what is left of a diagonal entry below this many eps of it is rounding error


@dataclass(frozen=True, repr=False)
class NystromResult(TwoSidedFactorization):
    """Approximation ``A ~ F F^T`` of a positive semidefinite matrix by some of its columns.

    Attributes
    ----------
    F : array, shape (n, rank)
        Cholesky factor of the approximation; ``F[pivots]`` is lower triangular.
    pivots : array of int, shape (rank,)
        Indices of the columns, in the order of their choice.
    error : float
        ``trace(A - F F^T) / trace(A)``, exactly up to rounding: what is left of the diagonal.
    diagonal_left : array, shape (n,)
        The diagonal of ``A - F F^T`` in double precision, not negative.
    n_entries : int
        Entries of A that were computed or read.
    n_iter : int
        Blocks of pivots.
    history : tuple of float
        The error after each block.
    status : Status
    """

    pivots: Any = None
    diagonal_left: Any = None
    n_entries: int = 0
    n_iter: int = 0
    history: tuple[float, ...] = ()

    _factors: ClassVar[tuple[str, ...]] = ("F", "pivots")


def rpcholesky(
    A: Any,
    rank: int | None = None,
    *,
    tol: float | None = None,
    block_size: int | str = "auto",
    method: str = "accelerated",
    rng: Any = None,
    on_failure: str = "warn",
) -> NystromResult:
    """Factor a positive semidefinite matrix by randomly pivoted Cholesky.

    ``A ~ F F^T`` with F (n, rank), from the diagonal and `rank` columns of A: (rank + 1) n entries and a few blocks of
    the size of a step, and ``n rank**2`` multiplications and additions at the speed of GEMM.

    Parameters
    ----------
    A : KernelMatrix, or array of shape (n, n)
        Symmetric positive semidefinite; only the entries that are needed are computed.
    rank : int, 0 <= rank <= n, optional
        Number of pivots; n where only `tol` is given.
    tol : float, 0 <= tol < 1, optional
        Stop when ``trace(A - F F^T) <= tol * trace(A)``.
    block_size : int or "auto", default "auto"
        Pivots that are prepared together.  The accelerated method gives the same pivots for each.
    method : {"accelerated", "simple", "block", "robust"}, default "accelerated"
        "simple" draws each pivot with probability proportional to what the ones before have left of the diagonal;
        "accelerated" makes the same draws by blocks.  "block" draws blocks without a correction, which wastes columns
        on clusters; "robust" keeps of such a block the greedy pivots that leave 1 / block_size of its trace.
    rng : None, int, SeedSequence, Generator or Key
        Pivot i depends on the key and on i, and on what is left of the diagonal.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    NystromResult
        ``F`` (n, rank) and ``pivots`` (rank,), with the exact trace error; iterates as ``F, pivots``.  The rank is
        lower than asked for where the rest of A is rounding error.

    Raises
    ------
    ValueError
        If neither rank nor tol is given, A is not square, or its diagonal has a negative entry.

    Notes
    -----
    With ``rank >= r / epsilon + r log(1 / (epsilon eta))`` the expected trace error is at most 1 + epsilon times that
    of the best approximation of rank r, where eta is the relative error of that [1]_.

    Deviations from [2]_: (1) a draw is an exponential race, index j arriving at E_ij / d_j in race i, in place of
    proposals that are accepted or rejected.  As d_j only falls, an index can only be late, so the few first arrivals by
    an old diagonal hold the winner by the new one, and pivots do not depend on the blocks.  (2) A block ends at the
    first race whose winner is not certain, so no race is thrown away.

    References
    ----------
    .. [1] Chen, Epperly, Tropp and Webber, "Randomly pivoted Cholesky", Communications on Pure and Applied Mathematics
       78 (2025).
    .. [2] Epperly, Tropp and Webber, "Embrace rejection: kernel matrix approximation by accelerated randomly pivoted
       Cholesky", arXiv:2410.03969 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.kernel_functions import KernelMatrix
    >>> from randla.lowrank.rpcholesky import rpcholesky
    >>> K = KernelMatrix(np.linspace(0.0, 1.0, 500)[:, None], "rbf", gamma=1.0)
    >>> F, pivots = rpcholesky(K, tol=1e-6, rng=0)
    >>> F.shape[1] < 10, bool(np.trace(K.block(None, None) - F @ F.T) < 1e-6 * 500)
    (True, True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    method = check_choice(method, "method", METHODS)
    A = as_kernel_matrix(A)
    n = A.shape[0]
    if rank is None and tol is None:
        raise ValueError("rank must be given where tol is not, got None for both; pass one of them")
    wanted = n if rank is None else check_integer(rank, "rank", low=0, high=n, remedy=f"A has shape {A.shape}")
    limit = 0.0 if tol is None else check_real(tol, "tol", low=0.0, high=1.0, closed="left")
    size = None if block_size == "auto" else check_integer(block_size, "block_size", low=1)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
        run = Pivoting(A, wanted, limit, as_key(rng).fold("rpcholesky"))
        status = run.go(method, 1 if method == "simple" else size)
    if tol is not None and status is Status.CONVERGED and run.error > max(tol, run.resolution):
        status = Status.MAX_ITER
    return warn_or_raise(run.result(status), on_failure, what="rpcholesky")


class Pivoting:
    """A factor F that grows by blocks of pivots, and the diagonal that is left."""

    def __init__(self, A: KernelMatrix, rank: int, tol: float, key: Key) -> None:
        self.A, self.xp, self.rank, self.tol, self.key = A, A.xp, rank, tol, key
        self.entries_before = A.n_entries
        self.d = self.xp.astype(A.diagonal(), self.xp.float64, copy=True)
        self.trace = float(self.xp.sum(self.d))
        self.floor = NOISE * eps(A.dtype) * self.d
        self.resolution = NOISE * eps(A.dtype)
        least = float(self.xp.min(self.d)) if A.shape[0] else 0.0
        if least < 0.0:
            raise ValueError(f"A must be positive semidefinite, got {least:.3g} on its diagonal")
        self.F = self._room(min(rank, 4 * LARGEST_BLOCK) if tol > 0 else rank)
        self.k = 0
        self.pivots: list[Any] = []
        self.history: list[float] = []

    def _room(self, columns: int) -> Any:
        """An empty factor; rows whose length is a multiple of a page would all compete for one set of the cache."""
        columns += 8 if columns * 8 % 4096 == 0 and columns else 0
        return self.xp.empty((self.A.shape[0], columns), dtype=self.A.dtype, device=self.A.device)

    @property
    def error(self) -> float:
        """What is left of the trace, relative to it."""
        return float(self.xp.sum(self.d)) / self.trace if self.trace else 0.0

    def go(self, method: str, size: int | None) -> Status:
        """Add blocks until the rank or the tolerance is reached, or nothing is left."""
        block, drawn = size or max(4, min(FIRST_BLOCK, self.rank // 4)), 0
        if not math.isfinite(self.trace):
            return Status.NONFINITE
        while self.k < self.rank and self.error > self.tol:
            races = min(block, self.rank - self.k)
            if method in ("accelerated", "simple"):
                chosen, L = self._accelerated(races)
            else:
                chosen, L = self._block(drawn, block, races, robust=method == "robust")
                drawn += block
            if chosen.shape[0] == 0:
                break
            self._append(chosen, L)
            self.history.append(self.error)
            if not math.isfinite(self.history[-1]):
                return Status.NONFINITE
            if size is None:
                # as many races as the last block could decide, and half as many more
                block = max(FIRST_BLOCK, min(LARGEST_BLOCK, int(chosen.shape[0]) * 3 // 2))
        return Status.CONVERGED

    def _accelerated(self, races: int) -> tuple[Any, Any]:
        """Pivots that win the next races, and their Cholesky factor."""
        xp = self.xp
        count = min(CANDIDATES if races > 1 else 1, self.A.shape[0])
        index, times = self._kernel("race_candidates", self.key, self.k, self.k + races, self.d, count)
        union, position = xp.unique_inverse(xp.where(index < 0, index[0, 0], index))
        position = xp.where(index < 0, index, xp.reshape(position, index.shape))
        if int(index[0, 0]) < 0:
            return index[:0, 0], None
        H = self._rest(union)
        chosen, L = self._kernel("race_pivots", H, xp.take(self.d, union), position, times, xp.take(self.floor, union))
        return self._kept(union, chosen, L)

    def _block(self, drawn: int, block: int, most: int, *, robust: bool) -> tuple[Any, Any]:
        """Pivots out of a block of independent draws."""
        xp = self.xp
        index, _ = self._kernel("race_candidates", self.key, drawn, drawn + block, self.d, 1)
        if int(index[0, 0]) < 0:
            return index[:0, 0], None
        union = xp.unique_values(index)
        share = 1.0 / block if robust and block > 1 else 0.0
        chosen, L = self._kernel(
            "greedy_pivots", self._rest(union), xp.take(self.d, union), xp.take(self.floor, union), share
        )
        return self._kept(union, chosen[:most], L)

    def _kept(self, union: Any, chosen: Any, L: Any) -> tuple[Any, Any]:
        xp = self.xp
        found = int(xp.sum(xp.astype(chosen >= 0, xp.int64)))
        chosen = chosen[:found]
        return xp.take(union, chosen), xp.take(L, chosen, axis=0)[:, :found]

    def _kernel(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """A kernel of pivots; the slow truth works on host arrays."""
        xp = self.xp
        function = kernel(name, xp)
        if not function.__module__.startswith("randla.kernels.reference"):
            return function(*arguments)
        host = [to_host(a) if is_array_api_obj(a) else a for a in arguments]
        return tuple(from_host(part, xp, self.d) for part in function(*host))

    def _rest(self, union: Any) -> Any:
        """The block of A - F F^T of the given indices, in double precision."""
        xp = self.xp
        rows = xp.take(self.F, union, axis=0)[:, : self.k]
        H = self.A.block(union, union) - xp.matmul(rows, rows.mT)
        return xp.astype(H, xp.float64)

    def _append(self, chosen: Any, L: Any) -> None:
        """The columns of A - F F^T of the new pivots, divided by their Cholesky factor, stripe by stripe."""
        xp, n, a = self.xp, self.A.shape[0], int(chosen.shape[0])
        if self.k + a > self.F.shape[1]:
            wider = self._room(min(self.rank, max(2 * self.F.shape[1], self.k + a)))
            wider[:, : self.k] = self.F[:, : self.k]
            self.F = wider
        before = self.k
        rows = xp.take(self.F, chosen, axis=0)[:, :before]
        L, inverses = xp.astype(L, self.A.dtype), [xp.astype(M, self.A.dtype) for M in _inverses(L, xp)]
        store = kernel("store_columns", xp)
        for lo in range(0, n, STRIPE):
            stripe = slice(lo, min(lo + STRIPE, n))
            # with the narrow panel first OpenBLAS takes 0.7 of the time (54 and 77 Gflop/s)
            tile = self.A.block(chosen, stripe)
            tile = (
                tile - xp.matmul(rows, self.F[stripe, :before].mT) if before else xp.astype(tile, tile.dtype, copy=True)
            )
            _divide(tile, L, inverses, xp)
            store(lo, before, tile, self.floor, self.F, self.d)
        if is_numpy_namespace(xp) or is_cupy_namespace(xp):
            self.d[chosen] = 0.0
        else:  # the standard has no assignment to a list of indices
            for p in range(a):
                self.d[int(chosen[p])] = 0.0
        self.k = before + a
        self.pivots.append(chosen)

    def result(self, status: Status) -> NystromResult:
        """What was found."""
        xp = self.xp
        like = self.d
        F = self.F[:, : self.k]
        empty = from_host(np.zeros(0, np.int64), xp, like)
        pivots = xp.concat(self.pivots) if self.pivots else empty
        G = xp.eye(self.k, dtype=F.dtype, device=self.A.device)
        bound = self.error
        return NystromResult(
            F, G, F, error=bound, error_bound=bound, confidence=1.0, error_kind="exact", error_norm="trace",
            norm=self.trace, status=status, pivots=pivots, diagonal_left=self.d,
            n_entries=self.A.n_entries - self.entries_before, n_iter=len(self.history), history=tuple(self.history),
        )  # fmt: skip


def _inverses(L: Any, xp: Any) -> list[Any]:
    """The inverses of the diagonal blocks of a lower triangular L."""
    pieces = [slice(c, min(c + DIVISOR, L.shape[0])) for c in range(0, L.shape[0], DIVISOR)]
    return [xp.linalg.inv(L[piece, piece]) for piece in pieces]


def _divide(tile: Any, L: Any, inverses: list[Any], xp: Any) -> None:
    """``tile = L^-1 tile`` for a lower triangular L, mostly by products: a triangular solve takes 1.7 of the time."""
    lo = 0
    for inverse in inverses:
        here = slice(lo, lo + inverse.shape[0])
        part = tile[here, :]
        part = part - xp.matmul(L[here, :lo], tile[:lo, :]) if lo else part
        tile[here, :] = xp.matmul(inverse, part)
        lo = here.stop
