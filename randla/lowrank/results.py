"""Results of the low-rank algorithms: factors first, then how good they are and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from .._arrays import as_matrix, check_together, is_complex
from .._random import as_key
from .._results import Result, Status
from ..diagnostics import PROBES
from ..linear_maps import as_linear_map, squared
from .orthonormal import adjoint

#: What may be done about a result that did not converge.
ON_FAILURE = ("warn", "raise", "ignore")


@dataclass(frozen=True)
class Step:
    """What a callback is told after each step of an iteration.

    Attributes
    ----------
    n_iter : int
        Steps done.
    rank : int
        Dimension of the basis so far.
    error : float
        Relative error of the basis so far; NaN where it is not known yet.
    n_passes, n_matvecs : int
        Reads of A, and columns multiplied with A or its adjoint, so far.
    """

    n_iter: int
    rank: int
    error: float
    n_passes: int
    n_matvecs: int


def _operand(X: Any, name: str, factor: Any, rows: int) -> tuple[Any, bool]:
    """X as a matrix of `rows` rows beside `factor`, and whether it was a vector."""
    X = as_matrix(X, name=name, sparse=False, vector=True)
    check_together(factor, X, names=("the result", name))
    if X.shape[0] != rows:
        raise ValueError(f"{name} must have {rows} rows, got shape {tuple(X.shape)}")
    return (X[:, None], True) if X.ndim == 1 else (X, False)


@dataclass(frozen=True, repr=False)
class LowRankResult(Result):
    """Truncated singular value decomposition ``A ~ U @ diag(s) @ Vh`` (plus the mean row where A was centred).

    Attributes
    ----------
    U : array, shape (m, rank)
        Left singular vectors, orthonormal columns.
    s : array, shape (rank,)
        Singular values in descending order.
    Vh : array, shape (rank, n)
        Right singular vectors, orthonormal rows; the entry of largest modulus in each row is real and positive.
    rank : int
    error : float
        Estimate of ``||A - U S Vh|| / ||A||`` in `error_norm`.
    error_bound : float
        Holds with probability `confidence` at least.
    confidence : float
        1.0 where the error is computed exactly (up to rounding).
    error_kind : str
        "exact" (difference of norms), "sketched" (Gaussian probes) or "krylov" (Lanczos from Gaussian starts).
    error_norm : str
        "frobenius" or "spectral".
    norm : float
        ``||A||`` in `error_norm`, of the centred matrix where A was centred.
    n_passes, n_matvecs, n_iter : int
        Reads of A, columns multiplied with A or its adjoint, and steps.
    history : tuple of float
        Relative Frobenius error of the whole basis after each step.
    status : Status
    mean : array, shape (n,), or None
        The row that was subtracted from each row of A.
    """

    U: Any
    s: Any
    Vh: Any
    rank: int
    error: float
    error_bound: float
    confidence: float
    error_kind: str
    error_norm: str
    norm: float
    n_passes: int
    n_matvecs: int
    n_iter: int
    history: tuple[float, ...]
    status: Status
    mean: Any = None

    _factors: ClassVar[tuple[str, ...]] = ("U", "s", "Vh")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the matrix that is approximated."""
        return self.U.shape[0], self.Vh.shape[1]

    def matmul(self, X: Any) -> Any:
        """The approximation times X, shape (n,) or (n, k); the mean row is added back."""
        X, vector = _operand(X, "X", self.Vh, self.Vh.shape[1])
        xp = array_namespace(self.U)
        Y = xp.matmul(self.U, self.s[:, None] * xp.matmul(self.Vh, X))
        Y = Y if self.mean is None else Y + xp.matmul(self.mean[None, :], X)
        return Y[:, 0] if vector else Y

    def rmatmul(self, Y: Any) -> Any:
        """The adjoint of the approximation times Y, shape (m,) or (m, k)."""
        Y, vector = _operand(Y, "Y", self.U, self.U.shape[0])
        xp = array_namespace(self.U)
        X = xp.matmul(adjoint(self.Vh), self.s[:, None] * xp.matmul(adjoint(self.U), Y))
        X = X if self.mean is None else X + xp.matmul(adjoint(self.mean[None, :]), xp.sum(Y, axis=0)[None, :])
        return X[:, 0] if vector else X

    def to_dense(self) -> Any:
        """The approximation as an array (m, n), which needs m n entries of memory."""
        D = array_namespace(self.U).matmul(self.U * self.s[None, :], self.Vh)
        return D if self.mean is None else D + self.mean[None, :]

    def diagonal(self) -> Any:
        """The main diagonal of the approximation, without forming it."""
        k = min(self.shape)
        xp = array_namespace(self.U)
        d = xp.sum((self.U[:k, :] * self.s[None, :]) * self.Vh[:, :k].mT, axis=1)
        return d if self.mean is None else d + self.mean[:k]

    def trace(self) -> Any:
        """The sum of the main diagonal."""
        return array_namespace(self.U).sum(self.diagonal())

    def error_estimate(self, A: Any, rng: Any = None) -> float:
        """Estimate ``||A - approximation||_F / ||A||_F`` anew from 20 Gaussian probes, in one pass over A.

        Within a factor 2 with probability 0.999; both norms are those of the centred matrix where A was centred.
        """
        return probed_error(self, A, rng, centred=self.mean is not None)


def probed_error(result: Any, A: Any, rng: Any, *, centred: bool) -> float:
    """Relative Frobenius error of a result with `matmul`, from Gaussian probes of A."""
    A = as_linear_map(A)
    G = A.gaussian(as_key(rng).fold("error"), PROBES)
    Y = A.matmul(G)
    residual = squared(Y - result.matmul(G), A.xp)
    whole = squared(Y - A.xp.matmul(result.mean[None, :], G), A.xp) if centred else squared(Y, A.xp)
    return math.sqrt(residual / whole) if whole > 0 else 0.0


@dataclass(frozen=True, repr=False)
class EighResult(Result):
    """Partial eigendecomposition ``A ~ V @ diag(w) @ V^*`` of a symmetric or Hermitian matrix.

    Attributes
    ----------
    w : array, shape (rank,)
        Eigenvalues in descending order of modulus.
    V : array, shape (n, rank)
        Eigenvectors, orthonormal columns; the entry of largest modulus in each column is real and positive.
    rank, error, error_bound, confidence, error_kind, error_norm, norm, n_passes, n_matvecs, n_iter, history, status
        As in `LowRankResult`.
    """

    w: Any
    V: Any
    rank: int
    error: float
    error_bound: float
    confidence: float
    error_kind: str
    error_norm: str
    norm: float
    n_passes: int
    n_matvecs: int
    n_iter: int
    history: tuple[float, ...]
    status: Status

    _factors: ClassVar[tuple[str, ...]] = ("w", "V")

    def matmul(self, X: Any) -> Any:
        """The approximation times X, shape (n,) or (n, k)."""
        X, vector = _operand(X, "X", self.V, self.V.shape[0])
        xp = array_namespace(self.V)
        Y = xp.matmul(self.V, self.w[:, None] * xp.matmul(adjoint(self.V), X))
        return Y[:, 0] if vector else Y

    def rmatmul(self, Y: Any) -> Any:
        """The same as `matmul`: the approximation is its own adjoint."""
        return self.matmul(Y)

    def to_dense(self) -> Any:
        """The approximation as an array (n, n)."""
        return array_namespace(self.V).matmul(self.V * self.w[None, :], adjoint(self.V))

    def diagonal(self) -> Any:
        """The main diagonal of the approximation, without forming it."""
        xp = array_namespace(self.V)
        return xp.sum(abs(self.V) ** 2 * self.w[None, :], axis=1)

    def trace(self) -> Any:
        """The sum of the main diagonal."""
        return array_namespace(self.w).sum(self.w)

    def error_estimate(self, A: Any, rng: Any = None) -> float:
        """Estimate ``||A - approximation||_F / ||A||_F`` anew from 20 Gaussian probes, in one pass over A."""
        return probed_error(self, A, rng, centred=False)


@dataclass(frozen=True, repr=False)
class RangeResult(Result):
    """Orthonormal basis of the leading column space: ``A ~ Q @ (Q^* @ A)``.

    Attributes
    ----------
    Q : array, shape (m, rank)
        Orthonormal columns, the leading approximate left singular vectors.
    s : array, shape (rank,)
        Norms of the rows of ``Q^* @ A``: approximate singular values.
    rank : int
    error : float
        Estimate of ``||A - Q Q^* A|| / ||A||`` in `error_norm`.
    error_bound, confidence, error_kind, error_norm, norm, n_passes, n_matvecs, n_iter, history, status, mean
        As in `LowRankResult`.
    """

    Q: Any
    s: Any
    rank: int
    error: float
    error_bound: float
    confidence: float
    error_kind: str
    error_norm: str
    norm: float
    n_passes: int
    n_matvecs: int
    n_iter: int
    history: tuple[float, ...]
    status: Status
    mean: Any = None

    _factors: ClassVar[tuple[str, ...]] = ("Q",)


def phases(Vh: Any) -> Any:
    """Factors (rank,) of modulus 1 that make the entry of largest modulus in each row of Vh real and positive.

    Among entries within 1e-3 of the largest modulus the first one counts, so rounding does not decide.
    """
    xp = array_namespace(Vh)
    if Vh.shape[0] == 0 or Vh.shape[1] == 0:
        return xp.sum(Vh, axis=1)
    size = xp.abs(Vh)
    near = xp.astype(size >= 0.999 * xp.max(size, axis=1, keepdims=True), xp.int8)
    pivot = xp.take_along_axis(Vh, xp.argmax(near, axis=1)[:, None], axis=1)[:, 0]
    length = xp.abs(pivot)
    pivot = xp.conj(pivot) if is_complex(Vh.dtype) else pivot
    return xp.where(length > 0, pivot / xp.where(length > 0, length, xp.ones_like(length)), xp.ones_like(pivot))


def signed(U: Any, Vh: Any) -> tuple[Any, Any]:
    """Turn each pair of singular vectors by the one rule of `phases`."""
    phase = phases(Vh)
    return U * (array_namespace(U).conj(phase) if is_complex(Vh.dtype) else phase)[None, :], Vh * phase[:, None]
