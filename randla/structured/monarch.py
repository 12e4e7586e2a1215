"""Monarch matrices: two block-diagonal factors with a transposition between them, and the projection onto them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, floating_dtype, real_dtype
from .._checks import check_integer
from .._results import Result, Status, warn_or_raise
from ..linear_maps import squared
from ..lowrank.orthonormal import adjoint

_BLOCK_ENTRIES = 2**22  # entries of the slices that are decomposed in one call: the workspace stays small


@dataclass(frozen=True, repr=False)
class MonarchOperator(Result):
    """A Monarch matrix, known by its blocks; a linear operator for SciPy as well.

    Row (a, k) and column (r, s) of ``m = p1 q1`` rows and ``n = p2 q2`` columns hold ``sum_j L_k[a, (r, j)] R_r[(k, j),
    s]`` with j up to the rank of the slices.

    Attributes
    ----------
    left_blocks : array, shape (q1, p1, p2 * rank)
        The blocks L_k.
    right_blocks : array, shape (p2, q1 * rank, q2)
        The blocks R_r.
    error : float, default NaN
        ``||A - M||_F / ||A||_F`` of a projection: exact, from the singular values that were cut off.
    norm : float, default NaN
        ``||A||_F``.
    status : Status, default CONVERGED

    Raises
    ------
    ValueError
        If the shapes of the blocks do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import MonarchOperator
    >>> M = MonarchOperator(np.ones((3, 2, 2)), np.ones((2, 3, 4)))
    >>> M.shape, M.n_parameters, M.matmul(np.ones(8)).shape
    ((6, 8), 36, (6,))
    """

    left_blocks: Any
    right_blocks: Any
    error: float = math.nan
    norm: float = math.nan
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("left_blocks", "right_blocks")

    def __post_init__(self) -> None:
        check_together(self.left_blocks, self.right_blocks, names=("left_blocks", "right_blocks"))
        left, right = tuple(self.left_blocks.shape), tuple(self.right_blocks.shape)
        if len(left) != 3 or len(right) != 3:
            raise ValueError(f"left_blocks and right_blocks must be 3-D, got shapes {left} and {right}")
        (q1, _, width), (p2, height, _) = left, right
        if q1 < 1 or p2 < 1 or width % p2 or height % q1 or width // p2 != height // q1:
            raise ValueError(
                "left_blocks and right_blocks must have shapes (q1, p1, p2 * rank) and (p2, q1 * rank, q2), "
                f"got {left} and {right}"
            )

    @property
    def rank(self) -> int:
        """Rank of the slices."""
        return int(self.left_blocks.shape[2] // self.right_blocks.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the matrix."""
        (q1, p1, _), (p2, _, q2) = self.left_blocks.shape, self.right_blocks.shape
        return int(q1 * p1), int(p2 * q2)

    @property
    def dtype(self) -> Any:
        """Dtype of the blocks."""
        return self.left_blocks.dtype

    @property
    def n_parameters(self) -> int:
        """Numbers stored, and multiplications of a product with one vector."""
        (q1, p1, width), (p2, height, q2) = self.left_blocks.shape, self.right_blocks.shape
        return int(q1 * p1 * width + p2 * height * q2)

    def matmul(self, X: Any) -> Any:
        """The matrix times X, shape (n,) or (n, c): two batched products with a transposition between."""
        X, vector = self._operand(X, "X", self.shape[1])
        xp = array_namespace(X)
        (q1, p1, _), (p2, _, q2), b, c = self.left_blocks.shape, self.right_blocks.shape, self.rank, X.shape[1]
        T = xp.matmul(self.right_blocks, xp.reshape(X, (p2, q2, c)))
        T = xp.permute_dims(xp.reshape(T, (p2, q1, b, c)), (1, 0, 2, 3))
        Y = xp.matmul(self.left_blocks, xp.reshape(T, (q1, p2 * b, c)))
        Y = xp.reshape(xp.permute_dims(Y, (1, 0, 2)), (p1 * q1, c))
        return Y[:, 0] if vector else Y

    def rmatmul(self, Y: Any) -> Any:
        """The adjoint of the matrix times Y, shape (m,) or (m, c)."""
        Y, vector = self._operand(Y, "Y", self.shape[0])
        xp = array_namespace(Y)
        (q1, p1, _), (p2, _, q2), b, c = self.left_blocks.shape, self.right_blocks.shape, self.rank, Y.shape[1]
        T = xp.matmul(adjoint(self.left_blocks), xp.permute_dims(xp.reshape(Y, (p1, q1, c)), (1, 0, 2)))
        T = xp.permute_dims(xp.reshape(T, (q1, p2, b, c)), (1, 0, 2, 3))
        X = xp.matmul(adjoint(self.right_blocks), xp.reshape(T, (p2, q1 * b, c)))
        X = xp.reshape(X, (p2 * q2, c))
        return X[:, 0] if vector else X

    matvec = matmat = matmul
    rmatvec = rmatmat = rmatmul

    def _operand(self, X: Any, name: str, rows: int) -> tuple[Any, bool]:
        X = as_matrix(X, name=name, sparse=False, vector=True)
        check_together(self.left_blocks, X, names=("the blocks", name))
        if X.shape[0] != rows:
            raise ValueError(f"{name} must have {rows} rows, got shape {tuple(X.shape)}")
        xp = array_namespace(X)
        X = xp.astype(X, xp.result_type(floating_dtype(X, xp), self.dtype), copy=False)
        return (X[:, None], True) if X.ndim == 1 else (X, False)

    def to_dense(self) -> Any:
        """The matrix as an array (m, n)."""
        xp = array_namespace(self.left_blocks)
        (q1, p1, _), (p2, _, q2), b = self.left_blocks.shape, self.right_blocks.shape, self.rank
        left = xp.permute_dims(xp.reshape(self.left_blocks, (q1, p1, p2, b)), (0, 2, 1, 3))
        right = xp.permute_dims(xp.reshape(self.right_blocks, (p2, q1, b, q2)), (1, 0, 2, 3))
        slices = xp.matmul(left, right)  # (q1, p2, p1, q2)
        return xp.reshape(xp.permute_dims(slices, (2, 0, 1, 3)), (p1 * q1, p2 * q2))


def monarch_project(
    A: Any, shape: tuple[Any, Any] | None = None, rank: int = 1, *, on_failure: str = "warn"
) -> MonarchOperator:
    """Project a matrix onto the Monarch matrices: the nearest one in the Frobenius norm.

    Seen as ``p1 x q1 x p2 x q2``, a matrix is Monarch if each of its ``q1 p2`` slices (p1, q2) with the second and
    third index fixed has rank one, or `rank`.  So the projection is a singular value decomposition of each slice [1]_.

    Parameters
    ----------
    A : array, shape (m, n)
        Matrix to project, real or complex, of any array API namespace; it is not changed.
    shape : (p, q) or ((p1, q1), (p2, q2)), optional
        Factors of the sides, ``m = p1 q1`` and ``n = p2 q2``; a single pair serves both sides of a square matrix.  By
        default the pairs nearest to the square roots, the smaller factor first.
    rank : int, rank >= 1, default 1
        Rank of the slices; ``min(p1, q2)`` keeps A whole.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if A holds NaN or infinity.

    Returns
    -------
    MonarchOperator
        The blocks with the exact relative error; iterates as ``left_blocks, right_blocks``.

    Raises
    ------
    ValueError
        If the factors of `shape` do not multiply to the sides, or `rank` is out of range.
    TypeError
        If A is sparse or not numeric.

    Notes
    -----
    Cost: ``q1 p2`` small decompositions, ``O(m n min(p1, q2))``.  Storage ``rank (p2 m + q1 n)``, 65,536 numbers in
    place of 1,048,576 at n = 1024; so many multiplications a product with a vector takes.

    A Fourier matrix whose columns (i, j) are taken in the order (j, i) is Monarch to rounding, so a fast Fourier
    transform is two of these factors.  A matrix without that structure is not: of a Gaussian one the projection leaves
    0.94 of the norm at n = 1024.

    References
    ----------
    .. [1] Dao, Chen, Sohoni, Desai, Poli, Grogan, Liu, Rao, Rudra and Re, "Monarch: expressive structured matrices for
       efficient and accurate training", ICML 2022, arXiv:2204.00595, theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import monarch_project
    >>> F = np.fft.fft(np.eye(16), norm="ortho")
    >>> F = F.reshape(16, 4, 4).transpose(0, 2, 1).reshape(16, 16)
    >>> M = monarch_project(F)
    >>> M.n_parameters, M.error < 1e-14
    (128, True)
    """
    A = as_matrix(A, sparse=False)
    xp = array_namespace(A)
    A = xp.astype(A, floating_dtype(A, xp), copy=False)
    (p1, q1), (p2, q2) = _sides(A.shape, shape)
    rank = check_integer(
        rank, "rank", low=1, high=min(p1, q2), remedy=f"slices of {p1} x {q2} have no higher rank, choose another shape"
    )
    square = squared(A, xp)
    if not math.isfinite(square):
        shapes = (q1, p1, p2 * rank), (p2, q1 * rank, q2)
        left, right = (xp.zeros(blocks, dtype=A.dtype, device=device_of(A)) for blocks in shapes)
        M = MonarchOperator(left, right, math.nan, square**0.5, Status.NONFINITE)
        return warn_or_raise(M, on_failure, what="monarch_project")
    slices = xp.permute_dims(xp.reshape(A, (p1, q1, p2, q2)), (1, 2, 0, 3))
    lefts, rights, left_out = [], [], 0.0
    step = max(1, _BLOCK_ENTRIES // max(1, p1 * p2 * q2))
    for lo in range(0, q1, step):
        U, s, Vh = xp.linalg.svd(slices[lo : min(lo + step, q1), ...], full_matrices=False)  # stacks of (p1, q2)
        left_out += float(xp.sum(xp.astype(s[..., rank:], xp.float64) ** 2))
        root = xp.astype(xp.sqrt(s[..., :rank]), real_dtype(A.dtype, xp))
        lefts.append(U[..., :rank] * root[..., None, :])
        rights.append(root[..., :, None] * Vh[..., :rank, :])
    left = xp.permute_dims(xp.concat(lefts, axis=0), (0, 2, 1, 3))  # (q1, p1, p2, rank)
    right = xp.permute_dims(xp.concat(rights, axis=0), (1, 0, 2, 3))  # (p2, q1, rank, q2)
    return MonarchOperator(
        xp.reshape(left, (q1, p1, p2 * rank)), xp.reshape(right, (p2, q1 * rank, q2)),
        math.sqrt(left_out / square) if square > 0 else 0.0, math.sqrt(square),
    )  # fmt: skip


def _sides(whole: tuple[int, int], shape: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """((p1, q1), (p2, q2)) with products m and n."""
    m, n = whole
    if not m or not n:
        raise ValueError(f"A must have rows and columns, got shape {tuple(whole)}")
    if shape is None:
        return _balanced(m), _balanced(n)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape must be (p, q) or ((p1, q1), (p2, q2)), got {shape!r}")
    pairs = shape if all(isinstance(side, (tuple, list)) for side in shape) else (shape, shape)
    found = []
    for pair, size in zip(pairs, (m, n), strict=True):
        if len(pair) != 2:
            raise ValueError(f"shape must hold pairs of factors, got {shape!r}")
        p, q = (check_integer(factor, "shape", low=1) for factor in pair)
        if p * q != size:
            raise ValueError(f"shape must have factors of {size}, got {p} x {q}; leave it out for the balanced pair")
        found.append((p, q))
    return found[0], found[1]


def _balanced(n: int) -> tuple[int, int]:
    """The pair of factors nearest to the square root, the smaller first."""
    p = next(p for p in range(math.isqrt(n), 0, -1) if n % p == 0)
    return p, n // p
