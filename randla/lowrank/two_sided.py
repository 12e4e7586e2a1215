"""The common result of the two-sided factorizations: ``A ~ F G H^*``, never formed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import check_together, eps, is_complex, namespace_of, real_dtype
from .._checks import check_choice, check_integer, check_real
from .._results import Result, Status
from ..linear_maps import squared
from .orthonormal import adjoint, core_dtype, core_svd, orthonormalize, row_blocks
from .results import EighResult, LowRankResult, probed_error, signed
from .sides import (
    Side,
    adjoint_times,
    as_factor,
    as_indices,
    between,
    dense,
    diagonal_matrix,
    operand,
    product,
    taken,
    times,
)

_TOLD = ("error", "error_bound", "confidence", "error_kind", "error_norm", "norm", "n_passes", "n_matvecs", "status")


@dataclass(frozen=True, repr=False)
class TwoSidedFactorization(Result):
    """Approximation ``A ~ F @ core @ H^*`` that is never formed; ``core`` is G, or G between two divisors.

    It has the products of a linear operator, so it can stand in for the matrix wherever randla takes an operator.

    Parameters
    ----------
    F : array or CSR matrix, shape (m, k)
        Basis of the columns.
    G : array, shape (k, l)
        The core, or its middle where there are divisors.
    H : array or CSR matrix, shape (n, l)
        Basis of the rows, conjugated where it is complex.
    left_divisor : array, shape (k, k), or None
        Invertible P: the core is then ``P^-1 G``, applied by solves, since P may be too ill conditioned to be inverted.
    right_divisor : array, shape (l, l), or None
        Invertible T: the core is then ``G T^-*``.
    error : float
        Estimate of ``||A - F core H^*|| / ||A||`` in `error_norm`; NaN where it is not known.
    error_bound : float
        Holds with probability `confidence` at least; NaN where none is known.
    confidence : float
    error_kind : str
        "exact", "sketched", "leave-one-out" or "none".
    error_norm : str
        "frobenius", "spectral" or "trace".
    norm : float
        ``||A||`` in `error_norm`; NaN where it is not known.
    n_passes, n_matvecs : int
        Reads of A, and columns multiplied with A or its adjoint.
    status : Status

    Raises
    ------
    ValueError
        If the shapes do not fit together, or the factors live in different libraries or on different devices.
    TypeError
        If a factor is not numeric.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.projectors import TwoSidedFactorization
    >>> A = np.add.outer(np.arange(4.0), np.arange(3.0))
    >>> cross = TwoSidedFactorization(A[:, :2], np.linalg.inv(A[:2, :2]), A[:2, :].T)
    >>> bool(np.allclose(cross.to_dense(), A)), cross.shape, cross.rank
    (True, (4, 3), 2)
    """

    F: Any
    G: Any
    H: Any
    left_divisor: Any = None
    right_divisor: Any = None
    error: float = math.nan
    error_bound: float = math.nan
    confidence: float = math.nan
    error_kind: str = "none"
    error_norm: str = "frobenius"
    norm: float = math.nan
    n_passes: int = 0
    n_matvecs: int = 0
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("F", "G", "H")

    def __post_init__(self) -> None:
        same = self.F is self.H
        object.__setattr__(self, "F", as_factor(self.F, "F"))
        object.__setattr__(self, "H", self.F if same else as_factor(self.H, "H"))
        object.__setattr__(self, "G", as_factor(self.G, "G", sparse=False))
        k, width = self.F.shape[1], self.H.shape[1]
        if tuple(self.G.shape) != (k, width):
            raise ValueError(f"G must have shape ({k}, {width}) between F and H, got {tuple(self.G.shape)}")
        check_together(self.F, self.G, names=("F", "G"))
        check_together(self.F, self.H, names=("F", "H"))
        for name, size in (("left_divisor", k), ("right_divisor", width)):
            divisor = getattr(self, name)
            if divisor is not None:
                divisor = as_factor(divisor, name, sparse=False)
                check_together(self.F, divisor, names=("F", name))
                if tuple(divisor.shape) != (size, size):
                    raise ValueError(f"{name} must have shape ({size}, {size}), got {tuple(divisor.shape)}")
                object.__setattr__(self, name, divisor)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the matrix that is approximated."""
        return int(self.F.shape[0]), int(self.H.shape[0])

    @property
    def rank(self) -> int:
        """The rank that the core allows, min(k, l)."""
        return int(min(self.G.shape))

    @property
    def dtype(self) -> Any:
        """Floating dtype of the products: the precision of F, complex if one of the factors is."""
        xp = namespace_of(self.F)
        if any(is_complex(M.dtype) for M in (self.F, self.G, self.H)):
            return xp.complex64 if eps(self.F.dtype) > 1e-10 else xp.complex128
        return real_dtype(self.F.dtype, xp)

    @property
    def core(self) -> Any:
        """The core (k, l) formed, divisors applied."""
        xp = array_namespace(self.G)
        return self._core(xp.eye(self.G.shape[1], dtype=self.G.dtype, device=device_of(self.G)), keep=True)

    # --- products -----------------------------------------------------------------------------------------------------

    def matmul(self, X: Any) -> Any:
        """The approximation times X, shape (n,) or (n, p); costs ``(m + n) max(k, l)`` multiplications a column."""
        X, vector = operand(X, "X", self.shape[1], self.F, self.dtype)
        Y = times(self.F, self._core(adjoint_times(self.H, X)))
        return Y[:, 0] if vector else Y

    def rmatmul(self, Y: Any) -> Any:
        """The adjoint of the approximation times Y, shape (m,) or (m, p)."""
        Y, vector = operand(Y, "Y", self.shape[0], self.F, self.dtype)
        X = times(self.H, self._core_adjoint(adjoint_times(self.F, Y)))
        return X[:, 0] if vector else X

    #: the names of SciPy's LinearOperator
    matvec = matmat = matmul
    rmatvec = rmatmat = rmatmul

    def rows(self, i: Any) -> Any:
        """The rows with indices i: shape (n,) for an integer, (p, n) for p of them."""
        index, one = as_indices(i, "i", self.shape[0], self.F)
        M = self._core_adjoint(adjoint(taken(self.F, index)))
        rows = adjoint(times(self.H, M))
        return rows[0, :] if one else rows

    def columns(self, j: Any) -> Any:
        """The columns with indices j: shape (m,) for an integer, (m, p) for p of them."""
        index, one = as_indices(j, "j", self.shape[1], self.H)
        columns = times(self.F, self._core(adjoint(taken(self.H, index))))
        return columns[:, 0] if one else columns

    def entries(self, i: Any, j: Any) -> Any:
        """The entries at (i[0], j[0]), (i[1], j[1]), ...: shape (p,) for index vectors of length p."""
        rows, one = as_indices(i, "i", self.shape[0], self.F)
        columns, other = as_indices(j, "j", self.shape[1], self.H)
        if rows.shape[0] != columns.shape[0]:
            raise ValueError(f"i and j must have one length, got {rows.shape[0]} and {columns.shape[0]}")
        out = self._paired(rows, columns)
        return out[0] if one and other else out

    def diagonal(self) -> Any:
        """The main diagonal of the approximation, without forming it."""
        size = min(self.shape)
        index = array_namespace(self.G).arange(size, dtype=array_namespace(self.G).int64, device=device_of(self.G))
        return self._paired(index, index)

    def trace(self) -> Any:
        """The sum of the main diagonal."""
        return array_namespace(self.G).sum(self.diagonal())

    def to_dense(self) -> Any:
        """The approximation as an array (m, n), which needs m n entries of memory."""
        xp = array_namespace(self.G)
        return times(self.F, self._core(xp.astype(adjoint(dense(self.H)), self.dtype)))

    # --- other forms --------------------------------------------------------------------------------------------------

    def to_svd(self) -> LowRankResult:
        """The same approximation as a singular value decomposition of rank min(k, l, m, n) at most.

        Costs ``O((m + n) k**2)``.  Exact up to rounding: error, bound and costs are passed on.
        """
        left, right = (orthonormalize(dense(M, self.dtype), rtol=0.0) for M in (self.F, self.H))
        xp = array_namespace(left.Q)
        core = core_dtype(self.dtype, xp)
        middle = self._core(xp.astype(adjoint(right.R), core), keep=True)
        W, s, Vh = core_svd(xp.matmul(xp.astype(left.R, core), middle))
        U = xp.matmul(left.Q, xp.astype(W, self.dtype))
        V = xp.matmul(right.Q, xp.astype(adjoint(Vh), self.dtype))
        U, Vh = signed(U, adjoint(V))
        return LowRankResult(
            U, xp.astype(s, real_dtype(self.dtype, xp)), Vh, rank=int(s.shape[0]), n_iter=0, history=(),
            **self._told(),
        )  # fmt: skip

    def truncate(self, tol: float | None = None, *, rank: int | None = None) -> TwoSidedFactorization:
        """The best approximation of lower rank to this one; both bases are then orthonormal and the core diagonal.

        Parameters
        ----------
        tol : float, 0 <= tol < 1
            Take the least rank with ``||self - truncated||_F <= tol ||self||_F``.  Give either `tol` or `rank`.
        rank : int, rank >= 0
            Take this rank, or all of it where there is less.

        Returns
        -------
        TwoSidedFactorization
            Its `error` and `error_bound` have grown by what was cut off, as the triangle inequality allows.
        """
        if (tol is None) == (rank is None):
            raise ValueError(f"tol or rank must be given, and not both, got tol={tol!r} and rank={rank!r}")
        U, s, Vh = self.to_svd()
        xp = array_namespace(s)
        tails = xp.flip(xp.cumulative_sum(xp.flip(xp.astype(s, xp.float64) ** 2)))  # tails[r] is cut off by rank r
        if rank is None:
            tol = check_real(tol, "tol", low=0.0, high=1.0, closed="left")
            r = int(xp.sum(xp.astype(tails > tol**2 * tails[0], xp.int64))) if s.shape[0] else 0
        else:
            r = min(check_integer(rank, "rank", low=0), int(s.shape[0]))
        told, cut = self._told(), 0.0
        if r < s.shape[0]:
            cut = math.sqrt(float(tails[r])) if self.error_norm == "frobenius" else float(s[r])
        if self.error_norm in ("frobenius", "spectral"):
            share = cut / self.norm if self.norm > 0 else math.nan if cut else 0.0
            told |= {"error": self.error + share, "error_bound": self.error_bound + share}
        elif cut:
            told |= {"error": math.nan, "error_bound": math.nan, "error_kind": "none"}
        return TwoSidedFactorization(U[:, :r], diagonal_matrix(s[:r]), adjoint(Vh[:r, :]), **told)

    def error_estimate(self, A: Any, rng: Any = None) -> float:
        """Estimate ``||A - approximation||_F / ||A||_F`` anew from 20 Gaussian probes, in one pass over A.

        Within a factor 2 with probability 0.999.
        """
        return probed_error(self, A, rng, centred=False)

    # --- another basis ------------------------------------------------------------------------------------------------

    def replacement_residual(self, basis: Any, *, side: str = "left", test: Any = None) -> float:
        """How much of the approximation another basis would lose: ``||(F - F' S) core||_F``, S the interface.

        With ``S = Y'^* F`` and ``Y'^* = (B'^* F')^+ B'^*`` the basis F' can replace F exactly where this is zero; S is
        then what turns the one core into the other.

        Parameters
        ----------
        basis : array or CSR matrix, shape (m, p) or (n, p)
            F' for the left side, H' for the right.
        side : {"left", "right"}, default "left"
        test : as `left_test` of `core_matrix`, default the new basis itself

        Returns
        -------
        float
        """
        check_choice(side, "side", ("left", "right"))
        return self._interface(basis, test, side)[2]

    def replace_left(self, F: Any, *, left_test: Any = None, check: bool = True) -> TwoSidedFactorization:
        """The same approximation with another column basis.

        Parameters
        ----------
        F : array or CSR matrix, shape (m, p)
        left_test : as in `core_matrix`, default F itself
        check : bool, default True
            Refuse a basis whose `replacement_residual` is above ``eps**(2/3) ||F core||_F``.

        Returns
        -------
        TwoSidedFactorization
            Its core is ``S @ core`` with the interface S; errors are passed on.

        Raises
        ------
        ValueError
            If the basis is refused; the message tells the residual.

        References
        ----------
        .. [1] Karpowicz, "A theory of meta-factorization", arXiv:2111.14385, section 4.

        Examples
        --------
        The author's example: the Laplacian of a network with 5 nodes has the edges of any spanning tree as a basis, but
        not those of a triangle with one more edge.

        >>> import numpy as np
        >>> from randla.lowrank.projectors import TwoSidedFactorization, core_matrix
        >>> def edges(*pairs):
        ...     return np.stack([np.eye(5)[i - 1] - np.eye(5)[j - 1] for i, j in pairs], axis=1)
        >>> B = edges((1, 2), (2, 3), (1, 3), (3, 4), (4, 5), (3, 5))
        >>> A = B @ np.diag([2.0, 1, 3, 1, 4, 2]) @ B.T
        >>> tree, other = edges((1, 2), (2, 3), (3, 4), (4, 5)), edges((1, 3), (2, 3), (3, 5), (4, 5))
        >>> result = TwoSidedFactorization(tree, core_matrix(A, tree, tree), tree)
        >>> bool(np.allclose(result.replace_left(other).to_dense(), A))
        True
        >>> result.replace_left(edges((1, 2), (2, 3), (1, 3), (4, 5)))
        Traceback (most recent call last):
            ...
        ValueError: F must span what the core uses, got a residual of 3.291403 (0.284 of ||F core||); ...
        """
        basis, core, residual, whole = self._interface(F, left_test, "left")
        return self._replaced("F", basis, core, residual, whole, check)

    def replace_right(self, H: Any, *, right_test: Any = None, check: bool = True) -> TwoSidedFactorization:
        """The same approximation with another row basis H (n, p); all else as in `replace_left`."""
        basis, core, residual, whole = self._interface(H, right_test, "right")
        return self._replaced("H", basis, core, residual, whole, check)

    def _interface(self, basis: Any, test: Any, side: str) -> tuple[Any, Any, float, float]:
        """(new basis, ``S @ core`` seen from that side, residual, norm) of a replacement."""
        name, old, G = ("F", self.F, self.core) if side == "left" else ("H", self.H, adjoint(self.core))
        basis = as_factor(basis, name)
        check_together(old, basis, names=("the factors", name))
        if basis.shape[0] != old.shape[0]:
            raise ValueError(f"{name} must have {old.shape[0]} rows, got shape {tuple(basis.shape)}")
        new = Side(basis, test, f"{side}_test", rcond=None, allow=False, warn=False)
        S = new.coordinates(old)
        xp = array_namespace(S)
        whole = product(dense(old), G)
        core = product(S, G)
        # the interface first: its core may be far larger than what the bases make of it
        lost = product(dense(old) - product(dense(basis), S), G)
        return basis, core, math.sqrt(squared(lost, xp)), math.sqrt(squared(whole, xp))

    def _replaced(
        self, name: str, basis: Any, core: Any, residual: float, whole: float, check: bool
    ) -> TwoSidedFactorization:
        if check and not residual <= eps(self.dtype) ** (2 / 3) * whole:
            share = residual / whole if whole > 0 else math.inf
            raise ValueError(
                f"{name} must span what the core uses, got a residual of {residual:.6f} "
                f"({share:.3g} of ||{name} core||); take another basis, or check=False for the projection onto this one"
            )
        xp = array_namespace(core)
        kept = is_complex(core.dtype) and not is_complex(self.dtype)
        core = core if kept else xp.astype(core, self.dtype)
        told = self._told() if check else {}
        F, G, H = (basis, core, self.H) if name == "F" else (self.F, adjoint(core), basis)
        return TwoSidedFactorization(F, G, H, **told)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _told(self) -> dict[str, Any]:
        """What is known of the error and the cost, for a result derived from this one."""
        return {name: getattr(self, name) for name in _TOLD}

    def _core(self, X: Any, *, keep: bool = False) -> Any:
        """``core @ X`` in double precision, returned in the dtype of X unless it is to keep the one computed in."""
        return between(X, self.left_divisor, self.G, self.right_divisor, keep)

    def _core_adjoint(self, X: Any, *, keep: bool = False) -> Any:
        """``core^* @ X``."""
        return between(X, self.right_divisor, adjoint(self.G), self.left_divisor, keep)

    def _paired(self, rows: Any, columns: Any) -> Any:
        """The entries at pairs of indices, in blocks."""
        xp = array_namespace(self.G)
        parts = [xp.zeros((0,), dtype=self.dtype, device=device_of(self.G))]
        for lo, hi in row_blocks(rows.shape[0], max(self.G.shape)):
            left = adjoint(self._core_adjoint(adjoint(taken(self.F, rows[lo:hi]))))
            right = taken(self.H, columns[lo:hi])
            right = xp.conj(right) if is_complex(right.dtype) else right
            parts.append(xp.astype(xp.sum(left * right, axis=1), self.dtype))
        return xp.concat(parts)


def as_two_sided(result: LowRankResult | EighResult | TwoSidedFactorization) -> TwoSidedFactorization:
    """The result of `svd` or `eigh` as ``F G H^*``: the vectors around a diagonal core, and a column for the mean row.

    Error, bound and costs are passed on; what is a `TwoSidedFactorization` already comes back as it is.

    Parameters
    ----------
    result : LowRankResult, EighResult or TwoSidedFactorization

    Returns
    -------
    TwoSidedFactorization

    Raises
    ------
    TypeError
        If `result` is something else.

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = np.vander(np.linspace(0, 1, 50), 6)
    >>> randla.as_two_sided(randla.svd(A, 2, rng=0)).entries([3], [4]).shape
    (1,)
    """
    if isinstance(result, TwoSidedFactorization):
        return result
    if isinstance(result, EighResult):
        F, s, H, mean = result.V, result.w, result.V, None
    elif isinstance(result, LowRankResult):
        F, s, H, mean = result.U, result.s, adjoint(result.Vh), result.mean
    else:
        raise TypeError(f"result must be a LowRankResult or an EighResult, got {type(result).__name__}")
    if mean is not None:
        xp, place = array_namespace(F), device_of(F)
        row = xp.conj(mean) if is_complex(mean.dtype) else mean
        F = xp.concat([F, xp.ones((F.shape[0], 1), dtype=F.dtype, device=place)], axis=1)
        H = xp.concat([H, row[:, None]], axis=1)
        s = xp.concat([s, xp.ones((1,), dtype=s.dtype, device=place)])
    told = {name: getattr(result, name) for name in _TOLD}
    return TwoSidedFactorization(F, diagonal_matrix(s), H, **told)
