"""Ridge regression from a stream of rows: Frequent Directions in place of the normal matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .._arrays import (
    as_matrix,
    check_together,
    eps,
    floating_dtype,
    from_host,
    is_complex,
    is_sparse,
    namespace_of,
)
from .._checks import check_real
from .._results import Result, Status, warn_or_raise
from ..linear_maps import block_matmul, block_rmatmul
from .directions import FrequentDirections
from .packing import consistent, pack, unpack

_KIND = b"FRQR"


@dataclass(frozen=True, repr=False)
class StreamingRidgeResult(Result):
    """Ridge solution from a stream, with a certified distance from the exact one; iterates as ``(x,)``.

    Attributes
    ----------
    x : array, shape (n,) or (n, k)
        Minimises ``x^T C x - 2 x^T A^T b + alpha x^T x`` for the sketched C in place of ``A^T A``.
    error_bound : float
        Bound on ``||x - exact|| / ||x||``, the largest over the columns; certain up to rounding.
    alpha : float
    shift : float
        What the robust sketch adds to alpha.
    n_rows : int
        Rows of A that were seen.
    confidence : float
        Always 1.0.
    error_kind : str
        Always "certified".
    status : Status
        BREAKDOWN if the bound is 1 or more: then x may be worthless, and more components or a larger alpha are needed.
    """

    x: Any
    error_bound: float
    alpha: float
    shift: float
    n_rows: int
    confidence: float = 1.0
    error_kind: str = "certified"
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("x",)


class FrequentDirectionsRidge:
    """Ridge regression ``min ||A x - b||**2 + alpha ||x||**2`` from a stream of rows, in the memory of a sketch.

    ``A^T b`` is exact, ``A^T A`` is that of `FrequentDirections`; both are small and merge.  Deterministic.  For data
    that can be read again `lstsq` with `damp` gives the exact solution.

    Parameters
    ----------
    n_components : int, n_components >= 2
        Rows of the sketch.
    alpha : float, alpha > 0
        Strength of the penalty, in the units of ``A^T A``.
    robust : bool, default True
        Use the robust sketch, which halves the bound.
    buffer_size : int, optional
        As in `FrequentDirections`.

    Attributes
    ----------
    n_components, alpha, robust, buffer_size
    directions : FrequentDirections
        The sketch of the rows.
    coef_ : array, shape (n,) or (n, k)
    error_bound_ : float
        As in `StreamingRidgeResult`.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of range.

    Notes
    -----
    With E the bound on ``||A^T A - C||_2`` the exact solution y obeys
    ``y - x = (A^T A + alpha I)^-1 (C - A^T A) x``, so ``||x - y|| <= E / alpha ||x||``.  E is at most
    ``||A - A_k||_F**2 / (l - k)`` for every k below the number l of components, and half of that if robust: for an
    error epsilon it takes about ``k + ||A - A_k||_F**2 / (epsilon alpha)`` components [1]_.

    References
    ----------
    .. [1] Shi and Phillips, "A deterministic streaming sketch for ridge regression", AISTATS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.streaming import FrequentDirectionsRidge
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((2000, 30)) * 0.7 ** np.arange(30)
    >>> b = A @ np.ones(30)
    >>> ridge = FrequentDirectionsRidge(12, alpha=10.0).partial_fit(A[:500], b[:500]).partial_fit(A[500:], b[500:])
    >>> exact = np.linalg.solve(A.T @ A + 10.0 * np.eye(30), A.T @ b)
    >>> x = ridge.coef_
    >>> bool(np.linalg.norm(x - exact) <= ridge.error_bound_ * np.linalg.norm(x)), ridge.error_bound_ < 0.1
    (True, True)
    """

    def __init__(self, n_components: int, alpha: float, *, robust: bool = True, buffer_size: int | None = None) -> None:
        self.directions = FrequentDirections(n_components, robust=robust, buffer_size=buffer_size)
        self.alpha = check_real(alpha, "alpha", low=0.0, closed="right")
        self._right: Any = None  # A^T b in double precision, always with columns
        self._vector = True

    @property
    def n_components(self) -> int:
        """Rows of the sketch."""
        return self.directions.n_components

    @property
    def robust(self) -> bool:
        """Whether the sketch is the robust one."""
        return self.directions.robust

    @property
    def buffer_size(self) -> int:
        """Rows of the buffer."""
        return self.directions.buffer_size

    def __repr__(self) -> str:
        rows = self.directions.n_rows_
        return f"FrequentDirectionsRidge({self.n_components}, {self.alpha:g}, robust={self.robust}): {rows} rows"

    def partial_fit(self, X: Any, y: Any) -> FrequentDirectionsRidge:
        """Take in rows X (n_samples, n_features) and their targets y, shape (n_samples,) or (n_samples, k).

        Raises
        ------
        ValueError
            As `FrequentDirections.partial_fit`, and if the targets do not fit to the rows or to those before.
        """
        X = self.directions._checked(X)
        y = as_matrix(y, name="y", sparse=False, vector=True)
        check_together(X, y, names=("X", "y"))
        xp, vector = namespace_of(X), y.ndim == 1
        if is_complex(y.dtype):
            raise ValueError(f"y must be real, got {y.dtype}")
        if y.shape[0] != X.shape[0]:
            raise ValueError(f"y must have {X.shape[0]} rows as X has, got shape {tuple(y.shape)}")
        columns = xp.astype(y[:, None] if vector else y, xp.float64, copy=False)
        if self._right is not None and (vector != self._vector or columns.shape[1] != self._right.shape[1]):
            raise ValueError(f"y must have the columns of the targets before, got shape {tuple(y.shape)}")
        wide = X.astype("float64") if is_sparse(X) else xp.astype(X, xp.float64, copy=False)
        part = block_rmatmul(wide, columns)
        if not bool(xp.all(xp.isfinite(part))):
            raise ValueError("X and y must be finite, got NaN, infinity or overflow; the state is unchanged")
        self.directions.partial_fit(X)
        self._vector = vector
        self._right = part if self._right is None else self._right + part
        return self

    def fit(self, X: Any, y: Any) -> FrequentDirectionsRidge:
        """Forget all rows and take in those of X."""
        robust, size = self.robust, self.buffer_size
        FrequentDirectionsRidge.__init__(self, self.n_components, self.alpha, robust=robust, buffer_size=size)
        return self.partial_fit(X, y)

    def merge(self, other: FrequentDirectionsRidge) -> FrequentDirectionsRidge:
        """Take in all rows that another state saw; it is left as it is.

        Raises
        ------
        TypeError
            If `other` is no state of this kind.
        ValueError
            If a parameter, the number of columns or of targets, or the array library differs.
        """
        if not isinstance(other, FrequentDirectionsRidge):
            raise TypeError(f"other must be a FrequentDirectionsRidge, got {type(other).__name__}")
        if other.alpha != self.alpha:
            raise ValueError(f"other must have alpha={self.alpha!r} to be merged, got {other.alpha!r}")
        if other._right is None:
            return self
        mine, right = self._right, other._right
        if mine is not None and (other._vector != self._vector or right.shape[1] != mine.shape[1]):
            raise ValueError("other must have as many targets to be merged, got another number")
        self.directions.merge(other.directions)
        self._vector = other._vector
        self._right = right if mine is None else mine + right
        return self

    def result(self, *, on_failure: str = "warn") -> StreamingRidgeResult:
        """Return the solution for the rows seen so far.

        Parameters
        ----------
        on_failure : {"warn", "raise", "ignore"}, default "warn"
            What to do if the bound is 1 or more.

        Returns
        -------
        StreamingRidgeResult

        Raises
        ------
        ValueError
            If no block was taken in.
        """
        if self._right is None:
            raise ValueError("result must come after a block of rows, got none; call partial_fit first")
        x = self.directions.result(on_failure="ignore").solve(self._right, self.alpha)
        # what rounding adds to the certified error of the covariance
        rounding = 8.0 * eps(x.dtype) * self.directions.squared_frobenius_
        bound = (self.directions.error_bound_ + rounding) / self.alpha
        result = StreamingRidgeResult(
            x[:, 0] if self._vector else x, bound, self.alpha, self.directions.shift_, self.directions.n_rows_,
            status=Status.CONVERGED if bound < 1.0 else Status.BREAKDOWN,
        )  # fmt: skip
        return warn_or_raise(result, on_failure, what="FrequentDirectionsRidge")

    @property
    def coef_(self) -> Any:
        """The solution."""
        return self.result(on_failure="ignore").x

    @property
    def error_bound_(self) -> float:
        """Bound on the distance of `coef_` from the exact solution, relative to its norm."""
        return self.result(on_failure="ignore").error_bound

    def predict(self, X: Any) -> Any:
        """``X @ coef_`` for rows X (n_samples, n_features)."""
        x = self.coef_
        X = self.directions._checked(X)
        xp, dtype = namespace_of(X), floating_dtype(X, namespace_of(X))
        columns = xp.astype(x[:, None] if self._vector else x, dtype, copy=False)
        if is_sparse(X):
            y = block_matmul(X.astype(dtype), columns)
        else:
            y = xp.matmul(xp.astype(X, dtype, copy=False), columns)
        return y[:, 0] if self._vector else y

    def to_bytes(self) -> bytes:
        """The whole state as bytes, with a checksum; the page "Streams" has the format."""
        arrays = () if self._right is None else (self._right,)
        inner = self.directions.to_bytes()
        return pack(_KIND, (int(self._vector), len(inner)), (self.alpha,), arrays, inner)

    @classmethod
    def from_bytes(cls, data: bytes, *, like: Any = None) -> FrequentDirectionsRidge:
        """Read a state that `to_bytes` wrote; arguments and errors as in `FrequentDirections.from_bytes`."""
        fields = unpack(data, _KIND, (2, 1), nested=True)
        (vector, _), (alpha,), arrays = fields.integers, fields.reals, fields.arrays
        consistent(vector <= 1 and 0.0 < alpha < math.inf and len(arrays) <= 1, "a positive alpha")
        directions = FrequentDirections.from_bytes(fields.inner, like=like)
        ridge = cls(directions.n_components, alpha, robust=directions.robust, buffer_size=directions.buffer_size)
        ridge.directions, ridge._vector = directions, bool(vector)
        consistent(bool(arrays) == (directions._buffer is not None), "targets for its rows")
        if arrays:
            (right,) = arrays
            consistent(right.dtype == "float64" and right.shape[0] == directions._buffer.shape[1], "sums of targets")
            consistent(not vector or right.shape[1] == 1, "one column of targets")
            ridge._right = right if like is None else from_host(right, namespace_of(like), like)
        return ridge
