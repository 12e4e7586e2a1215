"""Frequent Directions: a deterministic sketch of ``A^T A`` from a stream of rows, with a certified error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, from_host, is_complex, is_sparse, namespace_of
from .._checks import check_integer, check_real
from .._results import Result, Status, warn_or_raise
from ..linear_maps import block_matmul, squared
from ..lowrank.orthonormal import core_svd
from ..lowrank.results import phases
from .packing import consistent, pack, unpack

_KIND = b"FRQD"


@dataclass(frozen=True, repr=False)
class CovarianceSketch(Result):
    """Approximation ``A^T A ~ Vh^T diag(s**2) Vh + shift I`` with a certified error; iterates as ``s, Vh``.

    Attributes
    ----------
    s : array, shape (rank,)
        Singular values of the sketch, descending; squared, each lies below that of A by at most `shrinkage`.
    Vh : array, shape (rank, n)
        Orthonormal rows, the directions; the entry of largest modulus in each row is positive.
    shift : float
        Multiple of the identity; 0 unless the sketch is robust.
    rank : int
    shrinkage : float
        Sum of all that was taken off: ``0 <= A^T A - Vh^T diag(s**2) Vh <= shrinkage`` as matrices.
    squared_frobenius : float
        ``||A||_F**2``, exactly.
    n_rows : int
        Rows of A that were seen.
    error_bound : float
        Bound on ``||A^T A - approximation||_2 / ||A^T A||_2``; certain, up to rounding.
    projection_bound : float
        Bound on ``||A - A Vh^T Vh||_F / ||A||_F``; certain, up to rounding about 1e-8.
    confidence : float
        Always 1.0.
    error_kind : str
        Always "certified".
    error_norm : str
        Always "spectral".
    status : Status
        BREAKDOWN if the bound is as large as all that the sketch holds, so that nothing is certain.
    """

    s: Any
    Vh: Any
    shift: float
    rank: int
    shrinkage: float
    squared_frobenius: float
    n_rows: int
    error_bound: float
    projection_bound: float
    confidence: float = 1.0
    error_kind: str = "certified"
    error_norm: str = "spectral"
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("s", "Vh")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n, n) of the covariance."""
        return int(self.Vh.shape[1]), int(self.Vh.shape[1])

    def matmul(self, X: Any) -> Any:
        """The approximation of ``A^T A`` times X, shape (n,) or (n, k)."""
        return self._apply(X, self.s**2, self.shift)

    def solve(self, B: Any, alpha: float = 0.0) -> Any:
        """``(approximation + alpha I)^-1 B`` for B of shape (n,) or (n, k); alpha plus the shift must be positive."""
        alpha = check_real(alpha, "alpha", low=0.0) + self.shift
        if alpha == 0.0:
            raise ValueError("alpha must be positive for a sketch without shift, got 0; the sketch is singular")
        return self._apply(B, 1.0 / (self.s**2 + alpha) - 1.0 / alpha, 1.0 / alpha)

    def _apply(self, X: Any, weights: Any, rest: float) -> Any:
        X = as_matrix(X, name="X", sparse=False, vector=True)
        check_together(self.Vh, X, names=("the sketch", "X"))
        if X.shape[0] != self.Vh.shape[1]:
            raise ValueError(f"X must have {self.Vh.shape[1]} rows, got shape {tuple(X.shape)}")
        xp = array_namespace(self.Vh)
        X = xp.astype(X, self.Vh.dtype, copy=False)
        columns = X[:, None] if X.ndim == 1 else X
        Y = rest * columns + xp.matmul(self.Vh.mT, weights[:, None] * xp.matmul(self.Vh, columns))
        return Y[:, 0] if X.ndim == 1 else Y

    def to_dense(self) -> Any:
        """The approximation of ``A^T A`` as an array (n, n)."""
        xp = array_namespace(self.Vh)
        C = xp.matmul(self.Vh.mT * self.s[None, :] ** 2, self.Vh)
        return C + self.shift * xp.eye(C.shape[0], dtype=C.dtype, device=device_of(C)) if self.shift else C

    def diagonal(self) -> Any:
        """The main diagonal of the approximation: squared norms of the columns of A."""
        return array_namespace(self.Vh).sum((self.s[:, None] * self.Vh) ** 2, axis=0) + self.shift

    def trace(self) -> float:
        """The sum of the main diagonal."""
        return float(array_namespace(self.s).sum(self.s**2)) + self.shift * self.Vh.shape[1]


class _Shrunk(NamedTuple):
    """Orthogonal rows, their squared norms in descending order, and what was taken off the squares."""

    rows: Any
    squares: Any
    delta: float


class FrequentDirections:
    """Sketch of ``A^T A`` for a matrix A whose rows arrive in blocks: deterministic, mergeable, with a certified error.

    Rows fill a buffer; when it is full, its squared singular values are lowered by the one at place `n_components`,
    which frees half of it.  The sum of what was taken off bounds the error from above, whatever the rows were.  Use it
    where a guarantee must hold without luck; `StreamingSVD` also gives left vectors, and takes changes of any shape.

    Parameters
    ----------
    n_components : int, n_components >= 2
        Rows l of the sketch.
    robust : bool, default False
        Add half of what was taken off as a multiple of the identity: half the error, and an invertible matrix [3]_.
    buffer_size : int, buffer_size > n_components, default 2 n_components
        Rows of the buffer.  A larger one shrinks less often: smaller errors, more memory.

    Attributes
    ----------
    n_components : int
    robust : bool
    buffer_size : int
    n_rows_ : int
        Rows seen.
    squared_frobenius_ : float
        ``||A||_F**2`` of the rows seen.
    shrinkage_ : float
        Sum of what was taken off the squared singular values.
    shift_ : float
        Multiple of the identity that belongs to the approximation.
    error_bound_ : float
        Bound on ``||A^T A - get_covariance()||_2``, certain up to rounding.
    components_ : array, shape (n_components, n_features)
        Orthonormal directions; fewer rows if so few were seen, and one fewer after a shrinking.
    singular_values_ : array, shape (n_components,)
    sketch_ : array, shape (n_components, n_features)
        The sketch B itself: ``singular_values_[:, None] * components_``.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong kind or out of range.

    Notes
    -----
    For every k < l, whatever the order and the blocks of the rows [1]_:
    ``0 <= A^T A - B^T B``, ``||A^T A - B^T B||_2 <= shrinkage_ <= ||A - A_k||_F**2 / (l - k)``, and
    ``||A - A V_k V_k^T||_F**2 <= (1 + k / (l - k)) ||A - A_k||_F**2``.  `merge` keeps all of it [2]_.

    Cost: about 8 l n flops a row, all in GEMM, and an eigendecomposition of 2 l x 2 l for every l rows; memory
    ``buffer_size * n`` doubles.  The state is in double precision whatever the rows are, so that the bound holds; the
    Gram matrix loses digits below 1e-8 of the largest singular value, which is 1e-16 of what is approximated.  The
    state depends on the order of the rows, not on the blocks.

    Deviations: the row that becomes zero takes a new row at once; what is in the buffer when the result is read is
    shrunk on a copy (the authors' code drops it, with errors above the bound).

    References
    ----------
    .. [1] Ghashami, Liberty, Phillips and Woodruff, "Frequent directions: simple and deterministic matrix sketching",
       SIAM J. Comput. 45 (2016), Theorems 1.1 and 3.2.
    .. [2] Ghashami et al., as above, section 3.1 (mergeability).
    .. [3] Luo, Chen, Zhang, Li and Zhang, "Robust frequent directions with application in online learning", JMLR 20
       (2019), Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.streaming import FrequentDirections
    >>> A = np.random.default_rng(0).standard_normal((3000, 40)) / np.arange(1.0, 41.0)
    >>> sketch = FrequentDirections(10).partial_fit(A[:1000]).partial_fit(A[1000:])
    >>> error = np.linalg.norm(A.T @ A - sketch.get_covariance(), 2)
    >>> bool(error <= sketch.error_bound_ < 0.05 * np.linalg.norm(A, 2) ** 2)
    True
    """

    def __init__(self, n_components: int, *, robust: bool = False, buffer_size: int | None = None) -> None:
        self.n_components = check_integer(n_components, "n_components", low=2)
        if not isinstance(robust, bool):
            raise TypeError(f"robust must be True or False, got {robust!r}")
        size = 2 * self.n_components if buffer_size is None else buffer_size
        self.robust = robust
        self.buffer_size = check_integer(
            size, "buffer_size", low=self.n_components + 1, remedy="it must hold more rows than the sketch"
        )
        self.n_rows_, self.squared_frobenius_ = 0, 0.0
        self._taken = 0.0  # shrinkage so far, without what reading the result takes
        self._buffer: Any = None
        self._used = 0
        self._squares: Any = None  # squared norms of the leading rows of the buffer, which are orthogonal
        self._final: _Shrunk | None = None
        self._read: CovarianceSketch | None = None

    def __repr__(self) -> str:
        kind = "robust, " if self.robust else ""
        return f"FrequentDirections({self.n_components}, {kind}buffer_size={self.buffer_size}): {self.n_rows_} rows"

    # --- taking rows in -----------------------------------------------------------------------------------------------

    def partial_fit(self, X: Any, y: Any = None) -> FrequentDirections:  # noqa: ARG002 - scikit-learn's signature
        """Take in a block of rows.

        Parameters
        ----------
        X : array, CSR or CSC matrix, shape (n_samples, n_features)
            Real rows; a sparse block becomes dense a buffer at a time.
        y : ignored
            For pipelines.

        Returns
        -------
        self : FrequentDirections

        Raises
        ------
        ValueError
            If the block is complex or not finite, or its width or array library differs from those before.
        """
        X = self._checked(X)
        squares = squared(_floating(X), namespace_of(X)) if X.shape[0] else 0.0
        if not self.squared_frobenius_ + squares < math.inf:
            raise ValueError("X must be finite, got NaN, infinity or squares that overflow; the state is unchanged")
        self._start(X)
        self.squared_frobenius_ += squares
        self.n_rows_ += int(X.shape[0])
        self._append(X.tocsr() if is_sparse(X) else X)
        return self

    def update(self, X: Any) -> FrequentDirections:
        """The same as `partial_fit`."""
        return self.partial_fit(X)

    def fit(self, X: Any, y: Any = None) -> FrequentDirections:  # noqa: ARG002 - scikit-learn's signature
        """Forget all rows and take in those of X, an array, a sparse matrix or an iterable of blocks."""
        FrequentDirections.__init__(self, self.n_components, robust=self.robust, buffer_size=self.buffer_size)
        if hasattr(X, "__next__"):
            for block in X:
                self.partial_fit(block)
            return self
        if hasattr(X, "n_passes") and hasattr(X, "__iter__"):  # RowBlocks
            for _, block in X:
                self.partial_fit(block)
            return self
        return self.partial_fit(X)

    def merge(self, other: FrequentDirections) -> FrequentDirections:
        """Take in all rows that another sketch saw; it is left as it is.

        Raises
        ------
        TypeError
            If `other` is no sketch of this kind.
        ValueError
            If its `n_components` or `robust` differs, or the number of columns or the array library.
        """
        if not isinstance(other, FrequentDirections):
            raise TypeError(f"other must be a FrequentDirections, got {type(other).__name__}")
        for name in ("n_components", "robust"):
            mine, yours = getattr(self, name), getattr(other, name)
            if mine != yours:
                raise ValueError(f"other must have {name}={mine!r} to be merged, got {yours!r}")
        if other._buffer is None:
            return self
        theirs = other._shrunk()
        self._checked(theirs.rows, name="other")
        taken, n_rows, squares = other._taken + theirs.delta, other.n_rows_, other.squared_frobenius_
        self._start(theirs.rows)
        self._compress()
        self._append(theirs.rows)
        self._taken += taken
        self.n_rows_ += n_rows
        self.squared_frobenius_ += squares
        return self

    def _checked(self, X: Any, name: str = "X") -> Any:
        X = as_matrix(X, name=name)
        if is_complex(X.dtype):
            raise ValueError(f"{name} must be real, got {X.dtype}")
        if X.shape[1] == 0:
            raise ValueError(f"{name} must have at least one column, got shape {tuple(X.shape)}")
        if self._buffer is not None:
            check_together(self._buffer, X, names=("the sketch", name))
            if X.shape[1] != self._buffer.shape[1]:
                raise ValueError(f"{name} must have {self._buffer.shape[1]} columns, got {X.shape[1]}")
        return X

    def _start(self, X: Any) -> None:
        self._final = self._read = None
        if self._buffer is None:
            xp, place = namespace_of(X), device_of(X.data if is_sparse(X) else X)
            self._buffer = xp.zeros((self.buffer_size, X.shape[1]), dtype=xp.float64, device=place)
            self._squares = xp.zeros((0,), dtype=xp.float64, device=place)

    def _append(self, X: Any) -> None:
        """Fill the buffer, and empty a part of it whenever a row meets it full."""
        xp, done = namespace_of(self._buffer), 0
        while done < X.shape[0]:
            if self._used == self.buffer_size:
                self._compress()
            stop = min(done + self.buffer_size - self._used, X.shape[0])
            part = X[done:stop, :]
            part = part.toarray() if is_sparse(part) else part
            self._buffer[self._used : self._used + stop - done, :] = xp.astype(part, xp.float64)
            self._used, done = self._used + stop - done, stop

    def _compress(self) -> None:
        """Shrink the buffer in place to at most `n_components` rows."""
        if self._used > self.n_components:
            shrunk = self._shrunk()
            self._used = int(shrunk.rows.shape[0])
            self._buffer[: self._used, :] = shrunk.rows
            self._squares, self._final = shrunk.squares, None
            self._taken += shrunk.delta

    def _shrunk(self) -> _Shrunk:
        """The rows of the buffer made orthogonal, at most `n_components` of them."""
        if self._final is not None:
            return self._final
        xp, length, used = namespace_of(self._buffer), self.n_components, self._used
        rows, known = self._buffer[:used, :], self._squares.shape[0]
        fresh = rows[known:, :]
        # the leading rows are orthogonal already, so a quarter of the Gram matrix is known
        cross = xp.matmul(fresh, rows[:known, :].mT)
        top = xp.concat([_diagonal(self._squares, xp), cross.mT], axis=1)
        G = xp.concat([top, xp.concat([cross, xp.matmul(fresh, fresh.mT)], axis=1)], axis=0)
        values, W = xp.linalg.eigh(G)
        most = min(used, rows.shape[1])
        delta, kept = 0.0, min(most, length)
        if used > length and most >= length:
            delta, kept = max(float(values[-length]), 0.0), length - 1
        values, W = xp.flip(values[used - kept :], axis=0), xp.flip(W[:, used - kept :], axis=1)
        positive = values > delta
        squares = xp.where(positive, values - delta, xp.zeros_like(values))
        factor = xp.sqrt(xp.where(positive, squares / xp.where(positive, values, xp.ones_like(values)), squares))
        self._final = _Shrunk(xp.matmul((W * factor[None, :]).mT, rows), squares, delta)
        return self._final

    # --- reading the sketch -------------------------------------------------------------------------------------------

    def result(self, *, on_failure: str = "warn") -> CovarianceSketch:
        """Return what is known of ``A^T A`` so far; more rows may be taken in afterwards.

        Parameters
        ----------
        on_failure : {"warn", "raise", "ignore"}, default "warn"
            What to do if the bound is as large as what the sketch holds: then more components are needed.

        Returns
        -------
        CovarianceSketch

        Raises
        ------
        ValueError
            If no block was taken in.
        """
        if self._buffer is None:
            raise ValueError("result must come after a block of rows, got none; call partial_fit first")
        if self._read is None:
            self._read = self._decomposed()
        return warn_or_raise(self._read, on_failure, what="FrequentDirections")

    def _decomposed(self) -> CovarianceSketch:
        shrunk = self._shrunk()
        xp = namespace_of(shrunk.rows)
        # the rows are orthogonal up to the rounding of a Gram matrix; the directions shall be to the last digit
        _, s, Vh = core_svd(shrunk.rows)
        floor = max(shrunk.rows.shape) * eps(s.dtype) * float(s[0]) if s.shape[0] else 0.0
        kept = int(xp.sum(xp.astype(s > floor, xp.int64)))
        s, Vh = s[:kept], Vh[:kept, :]
        Vh = Vh * phases(Vh)[:, None]
        norm = float(s[0]) ** 2 if kept else 0.0
        bound, whole = self.error_bound_, self.squared_frobenius_
        relative = bound / norm if norm > 0.0 else (math.inf if bound > 0.0 else 0.0)
        rest = max(whole - float(xp.sum(s**2)), 0.0)
        return CovarianceSketch(
            s, Vh, self.shift_, kept, self.shrinkage_, whole, self.n_rows_, relative,
            math.sqrt(rest / whole) if whole > 0.0 else 0.0,
            status=Status.CONVERGED if relative < 1.0 else Status.BREAKDOWN,
        )  # fmt: skip

    @property
    def shrinkage_(self) -> float:
        """Sum of what was taken off the squared singular values, the last shrinking included."""
        return self._taken + (self._shrunk().delta if self._buffer is not None else 0.0)

    @property
    def shift_(self) -> float:
        """Multiple of the identity: half the shrinkage if robust, else 0."""
        return self.shrinkage_ / 2.0 if self.robust else 0.0

    @property
    def error_bound_(self) -> float:
        """Bound on the spectral norm of the error of `get_covariance`."""
        return self.shrinkage_ / 2.0 if self.robust else self.shrinkage_

    @property
    def components_(self) -> Any:
        """Orthonormal directions, one a row, the strongest first."""
        return self.result(on_failure="ignore").Vh

    @property
    def singular_values_(self) -> Any:
        """Singular values of the sketch."""
        return self.result(on_failure="ignore").s

    @property
    def sketch_(self) -> Any:
        """The sketch B, whose ``B^T B`` is the approximation without its shift."""
        s, Vh = self.result(on_failure="ignore")
        return s[:, None] * Vh

    def get_covariance(self) -> Any:
        """The approximation of ``A^T A`` (n_features, n_features): neither centred nor divided by the rows seen."""
        return self.result(on_failure="ignore").to_dense()

    def transform(self, X: Any) -> Any:
        """Coordinates ``X @ components_.T`` of rows X along the directions; shape (n_samples, rank)."""
        Vh = self.components_
        X = self._checked(X)
        xp, dtype = namespace_of(X), floating_dtype(X, namespace_of(X))
        if is_sparse(X):
            return block_matmul(X.astype(dtype), xp.asarray(xp.astype(Vh, dtype).mT, copy=True))
        return xp.matmul(xp.astype(X, dtype, copy=False), xp.astype(Vh, dtype).mT)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The whole state as bytes, with a checksum; the page "Streams" has the format."""
        integers = (self.n_components, self.buffer_size, int(self.robust), self.n_rows_)
        arrays = () if self._buffer is None else (self._buffer[: self._used, :], self._squares[:, None])
        return pack(_KIND, integers, (self._taken, self.squared_frobenius_), arrays)

    @classmethod
    def from_bytes(cls, data: bytes, *, like: Any = None) -> FrequentDirections:
        """Read a state that `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
        like : array, optional
            An array of the library and device where the state shall live; NumPy by default.

        Raises
        ------
        TypeError
            If `data` is not bytes.
        ValueError
            If it is something else, was cut off or altered, or contradicts itself.
        """
        (length, size, robust, n_rows), (taken, squares), arrays, _ = unpack(data, _KIND, (4, 2))
        consistent(2 <= length < size < 2**31 and robust <= 1, "sizes that fit together")
        consistent(taken >= 0.0 and 0.0 <= squares < math.inf and len(arrays) in (0, 2), "sums that are finite")
        sketch = cls(length, robust=bool(robust), buffer_size=size)
        if arrays:
            rows, known = arrays
            consistent(rows.dtype == known.dtype == "float64" and rows.shape[1] > 0, "rows in double precision")
            consistent(known.shape[1] == 1 and known.shape[0] <= rows.shape[0] <= size, "at most a buffer of rows")
            consistent(bool((known >= 0.0).all()) and rows.shape[0] <= n_rows, "squares of rows")
            xp = namespace_of(rows if like is None else like)
            like = rows if like is None else like
            sketch._start(from_host(rows, xp, like))
            sketch._append(from_host(rows, xp, like))
            sketch._squares = from_host(known[:, 0], xp, like)
        else:
            consistent(n_rows == 0 and taken == squares == 0.0, "rows for what it counts")
        sketch._taken, sketch.squared_frobenius_, sketch.n_rows_ = taken, squares, n_rows
        return sketch


def _floating(X: Any) -> Any:
    """X with its floating dtype, for sums of squares."""
    dtype = floating_dtype(X, namespace_of(X))
    if X.dtype == dtype:
        return X
    return X.astype(dtype) if is_sparse(X) else namespace_of(X).astype(X, dtype)


def _diagonal(values: Any, xp: Any) -> Any:
    return values[:, None] * xp.eye(values.shape[0], dtype=values.dtype, device=device_of(values))
