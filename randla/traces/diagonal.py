"""Diagonals and squared row norms of matrices that are known by products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays import eps, is_complex, real_dtype
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..linear_maps import LinearMap, as_linear_map, squared
from ..lowrank.leave_one_out import conj, nystrom_factor, real, symmetric_core, unit_duals
from ..lowrank.orthonormal import NonfiniteError, adjoint
from .panels import (
    Pairs,
    RangePanel,
    TestPanel,
    deviation,
    is_stored,
    read_diagonal,
    standard_error,
)
from .results import CONFIDENCE, ON_FAILURE, DiagonalResult, check_confidence, entry_factor, skewed_factor
from .trace import FIRST, N_MATVECS, check_square, schedule

_LEAST = 8  # products: below, few random signs are all equal in an entry too often to tell its spread


def diagonal(
    A: Any, n_matvecs: int | None = None, *, method: str = "xdiag", tol: float | None = None,
    confidence: float = CONFIDENCE, rng: Any = None, on_failure: str = "warn",
) -> DiagonalResult:  # fmt: skip
    """Estimate the diagonal of a square matrix from products with random signs, with an interval for each entry.

    The diagonal of a low-rank approximation plus ``w * (E w)`` for what it leaves, E, with every test vector w used for
    both in turn [1]_.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (n, n)
        Square matrix, real or complex; it is not changed.
    n_matvecs : int, n_matvecs >= 8, default 100, or n where `tol` is given
        Columns that A or its adjoint is multiplied with; with `tol` at most so many.  From n on the result is exact.
    method : {"xdiag", "xnysdiag", "auto"}, default "xdiag"
        "xdiag" multiplies with A and its adjoint half and half.  "xnysdiag" is for positive semidefinite A, and needs
        no adjoint.  "auto" reads the diagonal where it is stored, and is "xdiag" elsewhere.
    tol : float, optional
        Double the number of products until the root mean square of the half widths is at most `tol` times that of the
        estimates; products are used again.
    confidence : float in [0.5, 0.99], default 0.95
        Probability with which the interval of an entry shall hold.
    rng : None, int, SeedSequence, Generator or Key
        Source of the signs.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    DiagonalResult
        ``estimate`` (m,) with m = n, ``stderr`` and ``half_width`` of the same shape, in the precision of A; iterates
        as ``estimate``.

    Raises
    ------
    ValueError
        If A is not square, not positive semidefinite where the method asks for it, or a parameter is out of range.
    TypeError
        If A is not numeric.

    Notes
    -----
    Cost: the products and O(n n_matvecs**2) flops.  The intervals are those of `trace`, entry by entry: Student's
    around the jackknife deviation from a closed form that removes pairs of test vectors.

    References
    ----------
    .. [1] Epperly, Tropp and Webber, "XTrace: making the most of every sample in stochastic trace estimation", SIAM J.
       Matrix Anal. Appl. 45 (2024), section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.traces import diagonal
    >>> X = np.random.default_rng(0).standard_normal((300, 20)) * 0.5 ** np.arange(20)
    >>> result = diagonal(X @ X.T, 30, method="xnysdiag", rng=0)
    >>> truth = np.sum(X**2, axis=1)
    >>> bool(np.abs(result.estimate - truth).max() < 1e-10 * truth.max())
    True
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(method, "method", ("xdiag", "xnysdiag", "auto"))
    A = as_linear_map(A)
    n = check_square(A)
    if method == "auto":
        method = "exact" if is_stored(A) else "xdiag"
    result = _entries(A, method, n, n, n_matvecs, tol, confidence, as_key(rng).fold("diagonal"))
    return warn_or_raise(result, on_failure, what="diagonal")


def row_norms(
    A: Any, n_matvecs: int | None = None, *, method: str = "xrownorm", tol: float | None = None,
    confidence: float = CONFIDENCE, rng: Any = None, on_failure: str = "warn",
) -> DiagonalResult:  # fmt: skip
    """Estimate the squared Euclidean norms of the rows of a matrix from products, with an interval for each.

    The row norms of a low-rank approximation ``A Q Q^*`` plus squares of ``(A - A Q Q^*) w``, with every test vector w
    used for both in turn [1]_.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (m, n)
        Real or complex matrix; it is not changed.
    n_matvecs : int, n_matvecs >= 8, default 100, or n where `tol` is given
        Columns that A or its adjoint is multiplied with; with `tol` at most so many.  From n on the result is exact.
    method : {"xrownorm", "xsymrownorm"}, default "xrownorm"
        "xrownorm" spends a third each on ``A w``, ``A^* A w`` and ``A Q``.  "xsymrownorm", for symmetric A, takes
        ``A w`` for ``A^* w``, and spends a half each.
    tol : float, optional
        Double the number of products until the root mean square of the half widths is at most `tol` times that of the
        estimates.
    confidence : float in [0.5, 0.99], default 0.95
        Probability with which the interval of a row shall hold.
    rng : None, int, SeedSequence, Generator or Key
        Source of the test vectors.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    DiagonalResult
        ``estimate`` (m,) of the squares, ``stderr`` and ``half_width`` of the same shape; iterates as ``estimate``.

    Raises
    ------
    ValueError
        If A is not square where the method asks for a symmetric one, or a parameter is out of range.
    TypeError
        If A is not numeric.

    Notes
    -----
    Row norms of stored matrices are a read away; this is for products such as ``A inv(R)``, inverses and functions of
    matrices.  The intervals are those of `diagonal`.

    References
    ----------
    .. [1] Epperly, "Make the most of what you have: resource-efficient randomized algorithms for matrix computations",
       PhD thesis, Caltech (2025), chapter 17.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.traces import row_norms
    >>> A = np.random.default_rng(0).standard_normal((300, 80)) * 0.5 ** np.arange(80)
    >>> result = row_norms(A, 60, rng=0)
    >>> bool(np.abs(result.estimate - np.sum(A**2, axis=1)).max() < 1e-4)
    True
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    check_choice(method, "method", ("xrownorm", "xsymrownorm"))
    A = as_linear_map(A)
    if method == "xsymrownorm":
        check_square(A)
    result = _entries(A, method, A.shape[0], A.shape[1], n_matvecs, tol, confidence, as_key(rng).fold("row norms"))
    return warn_or_raise(result, on_failure, what="row_norms")


def _entries(
    A: LinearMap, method: str, m: int, n: int, n_matvecs: Any, tol: Any, confidence: Any, key: Key
) -> DiagonalResult:
    """The estimates of one method by rounds of products, in the precision of A."""
    xp, confidence = A.xp, check_confidence(confidence)
    tol = None if tol is None else check_real(tol, "tol", low=0.0, closed="neither", remedy="it is relative")
    limit = max(n, _LEAST) if tol is not None else N_MATVECS
    limit = limit if n_matvecs is None else check_integer(n_matvecs, "n_matvecs", low=_LEAST)
    before, status, name = A.n_matvecs, Status.CONVERGED, method
    missing = xp.full((m,), math.nan, dtype=xp.float64, device=A.device)
    estimate, error, width, k = missing, missing, missing, 0
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
            state = None if method == "exact" else _STATES[method](A, key)
            for size in [n] if method == "exact" else schedule(n, limit, FIRST, tol):
                if state is None or size >= n:
                    estimate, error, width, k, name = *_exact(A, method), n, "exact"
                    break
                state.grow(size)
                estimate, error, width = state.value(confidence)
                k = error.shape[0] and state.panel.Omega.shape[1]
                if tol is not None and squared(width[:, None], xp) <= tol**2 * squared(estimate[:, None], xp):
                    break
            else:
                status = Status.CONVERGED if tol is None else Status.MAX_ITER
    except NonfiniteError:
        status = Status.NONFINITE
    reals = real_dtype(A.dtype, xp)
    kind = A.dtype if is_complex(estimate.dtype) else reals
    return DiagonalResult(
        xp.astype(estimate, kind), xp.astype(error, reals), xp.astype(width, reals),
        1.0 if name == "exact" else confidence, name, A.n_matvecs - before, k, status,
    )  # fmt: skip


def _exact(A: LinearMap, method: str) -> tuple[Any, Any, Any]:
    """The numbers themselves: of the diagonal, or of the rows through products with the identity."""
    xp = A.xp
    if method in ("xdiag", "xnysdiag", "exact"):
        value = read_diagonal(A)
        size = xp.abs(value)
    else:
        value = xp.zeros((A.shape[0],), dtype=xp.float64, device=A.device)
        for start in range(0, A.shape[1], 256):
            k = min(256, A.shape[1] - start)
            E = xp.eye(A.shape[1], k, k=-start, dtype=A.dtype, device=A.device)
            value = value + xp.sum(xp.astype(xp.abs(A.matmul(E)), xp.float64) ** 2, axis=1)
        size = value
    if not float(xp.sum(size)) < math.inf:
        raise NonfiniteError("the entries hold NaN or infinity")
    return value, xp.zeros_like(size), 8.0 * eps(A.dtype) * size


# --- estimators -------------------------------------------------------------------------------------------------------


class _XDiag:
    """``diag(Q Q^* A)`` and signs on the rest, each left out of Q in turn."""

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = RangePanel(A, key, signs=True, turned=True)

    def grow(self, n_matvecs: int) -> None:
        self.panel.grow(n_matvecs // 2 - self.panel.Y.shape[1])

    def value(self, confidence: float) -> tuple[Any, Any, Any]:
        xp, Q, Z = self.panel.xp, self.panel.basis.Q, self.panel.Z
        S, lengths = unit_duals(self.panel.basis.R, xp)
        P, C = xp.matmul(Q, S), conj(xp.matmul(Z, S), xp)
        gram = xp.matmul(adjoint(S), S)
        return _entrywise(xp.sum(Q * conj(Z, xp), axis=1), P, C, lengths, gram, self.panel, confidence)


class _XNysDiag:
    """The diagonal of the Nystrom approximation and signs on the rest, each left out in turn."""

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = TestPanel(A, key, signs=True)

    def grow(self, n_matvecs: int) -> None:
        self.panel.grow(n_matvecs - self.panel.Y.shape[1])

    def value(self, confidence: float) -> tuple[Any, Any, Any]:
        xp, W, Y, unit = self.panel.xp, self.panel.Omega, self.panel.Y, eps(self.panel.A.dtype)
        factor = nystrom_factor(W, Y, symmetric_core(W, Y, unit), unit)
        whole, Z = xp.sum(xp.abs(factor.F) ** 2, axis=1) - factor.shift, factor.Z
        parts = _entrywise(whole, Z, conj(Z, xp), factor.lengths, factor.gram, self.panel, confidence, hermitian=True)
        return parts[0], parts[1], parts[2] + factor.shift


def _entrywise(
    whole: Any, P: Any, C: Any, lengths: Any, gram: Any, panel: TestPanel, confidence: float, *,
    hermitian: bool = False,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Estimates, standard errors and half widths of the entries.

    Without vector i the approximation loses ``P_i C_i``, and its test ``w_i * lengths_i P_i`` is added; without the
    pair i, j both are quadratic forms with the inverse of their Gram matrix, summed over j by products of matrices.
    """
    xp, W = panel.xp, panel.Omega
    k, tests = W.shape[1], W * xp.astype(lengths, W.dtype)[None, :]
    one = whole[:, None] + P * (tests - C)
    pairs = Pairs(gram, xp)
    weight, cross = xp.astype(pairs.weight, P.dtype), pairs.weight * gram
    # sums over j of P_i C_i / gap, P_j C_j / gap, and the two cross terms
    lost = P * C * xp.sum(weight, axis=1)[None, :] + xp.matmul(P * C, weight)
    lost = lost - P * xp.matmul(C, cross.mT) - C * xp.matmul(P, conj(cross, xp).mT)
    # sums over j of w_j * lengths_j (P_j - gram_ij P_i) / gap
    gained = xp.matmul(tests * P, weight) - P * xp.matmul(tests, cross.mT)
    two = whole[:, None] + (gained - lost) / (k - 1)
    one, two = (real(one, xp), real(two, xp)) if hermitian else (one, two)
    spread = entry_factor(k, confidence) * deviation(two, xp)
    return xp.mean(one, axis=1), standard_error(one, xp), spread + panel.rounding / math.sqrt(W.shape[0])


class _XRowNorm:
    """Rows of ``A Q Q^*`` and squares on the rest, each test vector left out of Q in turn."""

    symmetric = False

    def __init__(self, A: LinearMap, key: Key) -> None:
        self.panel = RangePanel(A, key, squared_rows=not self.symmetric)

    def grow(self, n_matvecs: int) -> None:
        self.panel.grow(n_matvecs // (2 if self.symmetric else 3) - self.panel.Y.shape[1])

    def value(self, confidence: float) -> tuple[Any, Any, Any]:
        panel, xp, Q, Z = self.panel, self.panel.xp, self.panel.basis.Q, self.panel.Z
        (n, k), W = Q.shape, xp.matmul(adjoint(Q), panel.Omega)
        S, _ = unit_duals(panel.basis.R, xp)
        P, E = xp.matmul(Z, S), panel.Y - xp.matmul(Z, W)
        B = xp.matmul(adjoint(S), W)
        b = xp.linalg.diagonal(B)
        outside = xp.sum(xp.abs(panel.Omega) ** 2, axis=0) - xp.sum(xp.abs(W) ** 2, axis=0)
        whole, squares = xp.sum(xp.abs(Z) ** 2, axis=1), xp.abs(P) ** 2
        scale = (n - k + 1) / (outside + xp.abs(b) ** 2)
        one = whole[:, None] - squares + scale[None, :] * xp.abs(E + P * b[None, :]) ** 2
        pairs = Pairs(xp.matmul(adjoint(S), S), xp)
        c, d = pairs.coefficients(B)
        lost = real(conj(B, xp) * c, xp) + real(conj(b, xp)[None, :] * d, xp)
        scale = pairs.off * (n - k + 2) / (outside[None, :] + lost)
        gone = squares * xp.sum(pairs.weight, axis=1)[None, :] + xp.matmul(squares, pairs.weight)
        gone = gone - 2.0 * real(P * xp.matmul(conj(P, xp), (pairs.weight * pairs.gram).mT), xp)
        # sums over j of scale_ij |E_j + d_ij P_j + c_ij P_i|^2, term by term
        tested = xp.matmul(xp.abs(E) ** 2, scale.mT) + xp.matmul(squares, (scale * xp.abs(d) ** 2).mT)
        tested = tested + 2.0 * real(xp.matmul(conj(E, xp) * P, (scale * d).mT), xp)
        cross = xp.matmul(conj(E, xp), (scale * c).mT) + xp.matmul(conj(P, xp), (scale * c * conj(d, xp)).mT)
        tested = tested + squares * xp.sum(scale * xp.abs(c) ** 2, axis=1)[None, :] + 2.0 * real(P * cross, xp)
        two = whole[:, None] + (tested - gone) / (k - 1)
        floor = 8.0 * eps(panel.A.dtype) * math.sqrt(squared(Z, xp) / max(Z.shape[0], 1)) * xp.sqrt(whole)
        spread = skewed_factor(k, confidence) * deviation(two, xp)  # squares, as skewed as can be
        return xp.mean(one, axis=1), standard_error(one, xp), spread + floor


class _XSymRowNorm(_XRowNorm):
    """`_XRowNorm` for a symmetric matrix, whose products with test vectors are those of its adjoint."""

    symmetric = True


_STATES: dict[str, Any] = {
    "xdiag": _XDiag,
    "xnysdiag": _XNysDiag,
    "xrownorm": _XRowNorm,
    "xsymrownorm": _XSymRowNorm,
}
