"""The core of ``A ~ F G H^*`` for given bases, and the oblique projectors behind it."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import check_together, eps, is_complex
from ..linear_maps import as_linear_map
from .orthonormal import adjoint, core_svd, orthonormalize
from .sides import (
    Side,
    adjoint_times,
    as_factor,
    cast_like,
    compressed,
    dense,
    operand,
    product,
    times,
)
from .two_sided import TwoSidedFactorization, as_two_sided

__all__ = ["ObliqueProjector", "TwoSidedFactorization", "as_two_sided", "core_matrix"]


def core_matrix(
    A: Any, F: Any, H: Any, *, left_test: Any = None, right_test: Any = None, gauge: Any = None,
    rcond: float | None = None, allow_rank_deficient: bool = False,
) -> Any:  # fmt: skip
    """Compute the core G of ``A ~ F G H^*`` for given bases of columns and rows.

    ``G = Y^* A X`` with ``Y^* = (B^* F)^+ B^*`` and ``X = D (H^* D)^+`` for test matrices B and D, so that ``F G H^*``
    is A between two projectors, ``(F Y^*) A (X H^*)`` [1]_.  The choice of tests names the factorization:

    ==========================================  ===================  =================================================
    bases                                       tests                result
    ==========================================  ===================  =================================================
    orthonormal F and H                         the bases            ``F^* A H``: SVD, UTV, two-sided projection
    columns ``A[:, J]``, rows ``A[I, :]^*``     the bases            ``C^+ A R^+``: CUR with the best core
    columns ``A[:, J]``, rows ``A[I, :]^*``     indices I and J      ``A[I, J]^+``: cross or skeleton
    ``A D`` and ``A^* B``                       B and D              ``(B^* A D)^+``: generalized Nystrom
    ``A D`` twice, A positive semidefinite      D and D              ``(D^* A D)^+``: Nystrom
    ==========================================  ===================  =================================================

    Costs one product of A with the fewer of the test columns and ``O((m + n) k**2)``; tests that are indices read
    rows or columns only.  With more columns in B than in D the generalized Nystrom core needs
    ``allow_rank_deficient=True``: D cannot see all of ``A^* B``.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
    F : array or CSR matrix, shape (m, k)
        Basis of the columns.
    H : array or CSR matrix, shape (n, l)
        Basis of the rows.
    left_test, right_test : array, vector of indices, or SketchOperator, optional
        B of shape (m, p) and D of shape (n, q), p >= k and q >= l; a vector of indices stands for those columns of the
        identity, a sketch S for its transpose.  By default an orthonormal basis of F or H, which makes the projectors
        orthogonal and the approximation the best one in these bases.
    gauge : array, shape (k, l), optional
        W in ``G + W - Y^* F W H^* X``.  It changes the core of bases with dependent columns, and never ``F G H^*``.
    rcond : float, 0 <= rcond < 1, default max(p, k) eps
        Singular values of ``B^* F`` and ``D^* H`` up to this share of the largest count as zero.
    allow_rank_deficient : bool, default False
        Take tests that do not see all of a basis; the rest of it is then not used.

    Returns
    -------
    array, shape (k, l)

    Raises
    ------
    ValueError
        If a test matrix does not see all of its basis, shapes do not fit, or something is not finite.

    Warns
    -----
    ConvergenceWarning
        If ``B^* F`` or ``D^* H``, for columns scaled to length one, has a condition number above 1e8 (4e3 in single
        precision).

    Notes
    -----
    The core of bases with independent columns is unique for given tests, so the gauge has no effect then.  The error
    is at most ``(1 + ||F Y^*||) (1 + ||X H^*||)`` times what the orthogonal projectors leave; `ObliqueProjector` tells
    these norms.  With square ``B^* F`` they can be huge; 1.5 times as many test columns as k keep them small.

    References
    ----------
    .. [1] Karpowicz, "A theory of meta-factorization", arXiv:2111.14385.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.projectors import core_matrix
    >>> x = np.linspace(0, 1, 100)
    >>> A = 1 / (1 + x[:, None] + x[None, :])
    >>> J = np.asarray([0, 25, 50, 75, 99])
    >>> C, R = A[:, J], A[J, :]
    >>> best = core_matrix(A, C, R.T)
    >>> bool(np.linalg.norm(A - C @ best @ R) < 1e-5 * np.linalg.norm(A))
    True
    >>> cross = core_matrix(A, C, R.T, left_test=J, right_test=J)
    >>> bool(np.linalg.norm(A - C @ cross @ R) < 1e-5 * np.linalg.norm(A))
    True
    """
    A = as_linear_map(A)
    F, H = as_factor(F, "F"), as_factor(H, "H")
    like = A.xp.empty((0,), dtype=A.dtype, device=A.device)
    for name, M, size in (("F", F, A.shape[0]), ("H", H, A.shape[1])):
        check_together(like, M, names=("A", name))
        if M.shape[0] != size:
            raise ValueError(f"{name} must have {size} rows to fit A of shape {A.shape}, got shape {tuple(M.shape)}")
    left = Side(F, left_test, "left_test", rcond=rcond, allow=allow_rank_deficient)
    right = Side(H, right_test, "right_test", rcond=rcond, allow=allow_rank_deficient)
    G = product(left.inverse, compressed(A, left.test, right.test), adjoint(right.inverse))
    if gauge is not None:
        W = as_factor(gauge, "gauge", sparse=False)
        check_together(F, W, names=("F", "gauge"))
        if tuple(W.shape) != tuple(G.shape):
            raise ValueError(f"gauge must have shape {tuple(G.shape)}, got {tuple(W.shape)}")
        seen = product(left.inverse, left.product, W, adjoint(right.product), adjoint(right.inverse))
        G = G + product(W) - seen
    xp = array_namespace(G)
    mixed = is_complex(G.dtype)
    single = eps(F.dtype) > 1e-10 and eps(H.dtype) > 1e-10
    if single:
        return xp.astype(G, xp.complex64 if mixed else xp.float32)
    return G


class ObliqueProjector:
    """The projector ``P = F (B^* F)^+ B^*`` onto the range of F (m, k), along what B does not see; never formed.

    It has the products of a linear operator of shape (m, m).

    Parameters
    ----------
    F : array or CSR matrix, shape (m, k)
        Basis of the range.
    B : array, vector of indices, or SketchOperator, optional
        Test matrix (m, l) with l >= k; by default F itself, which makes the projector orthogonal.
    rcond : float, 0 <= rcond < 1, default max(l, k) eps
        Singular values of ``B^* F`` up to this share of the largest count as zero.
    allow_rank_deficient : bool, default False
        Take a test matrix that does not see all of F, and project onto the part that it sees.

    Attributes
    ----------
    shape : tuple of two int
    dtype : dtype
    rank : int
        Dimension of the range.
    condition : float
        Condition number of ``B^* F`` for columns of B and F scaled to length one.

    Raises
    ------
    ValueError
        If B does not see all of F, shapes do not fit, or something is not finite.

    Warns
    -----
    ConvergenceWarning
        If the condition number is above 1e8 (4e3 in single precision).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.projectors import ObliqueProjector
    >>> F = np.vander(np.linspace(0, 1, 50), 4)
    >>> P = ObliqueProjector(F, [0, 15, 30, 49])
    >>> bool(np.allclose(P.matmul(F), F)), round(P.norm_estimate(), 2)
    (True, 5.18)
    """

    def __init__(
        self, F: Any, B: Any = None, *, rcond: float | None = None, allow_rank_deficient: bool = False
    ) -> None:
        self.F = as_factor(F, "F")
        self._side = Side(self.F, B, "B", rcond=rcond, allow=allow_rank_deficient)
        self._orthogonal = B is None
        self.rank, self.condition = self._side.rank, self._side.condition
        self.shape = (int(self.F.shape[0]), int(self.F.shape[0]))
        self.dtype = self.F.dtype

    def matmul(self, X: Any) -> Any:
        """The projection of X, shape (m,) or (m, p)."""
        X, vector = operand(X, "X", self.shape[0], self.F, self.dtype)
        Y = times(self.F, cast_like(self._side.coordinates(X), X.dtype))
        return Y[:, 0] if vector else Y

    def rmatmul(self, Y: Any) -> Any:
        """The adjoint of the projector times Y, shape (m,) or (m, p)."""
        Y, vector = operand(Y, "Y", self.shape[0], self.F, self.dtype)
        inner = product(adjoint(self._side.inverse), adjoint_times(self.F, Y))
        X = self._side.test.times(cast_like(inner, Y.dtype))
        return X[:, 0] if vector else X

    #: the names of SciPy's LinearOperator
    matvec = matmat = __matmul__ = matmul
    rmatvec = rmatmat = rmatmul

    def norm_estimate(self) -> float:
        """``||P||_2``, the factor by which the projector can amplify an error; 1 where it is orthogonal.

        Computed from matrices of the size of ``B^* F`` in ``O(m (k + l)**2)``, to rounding.
        """
        if self.rank == 0 or self._orthogonal:
            return 1.0 if self.rank else 0.0
        xp = array_namespace(self._side.inverse)
        unit = xp.eye(self._side.test.width, dtype=xp.float64, device=device_of(self._side.inverse))
        # ||F M^+ B^*|| = ||R_F M^+ R_B^*|| for the triangular factors of both
        R = orthonormalize(dense(self.F), rtol=0.0).R
        T = orthonormalize(self._side.test.times(unit), rtol=0.0).R
        return float(core_svd(product(R, self._side.inverse, adjoint(T)))[1][0])

    def __repr__(self) -> str:
        return f"ObliqueProjector(shape={self.shape}, rank={self.rank}, condition={self.condition:.3g})"
