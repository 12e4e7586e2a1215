"""Leverage scores of rows: exact from a triangular factor or a Gram matrix, approximate from a sketch."""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

from .._arrays import eps, from_host, is_complex, real_dtype
from .._backend import kernel
from .._checks import check_choice, check_real
from .._random import Key, as_key
from ..linear_maps import LinearMap
from ..lowrank.orthonormal import core_dtype, core_svd
from ..operators import SparseSign
from ..triangular import (
    TriangularFactor,
    as_rows,
    default_tolerance,
    gram_factor,
    inverse_of,
    leading_factor,
    row_sketch,
    triangular_factor,
    whitened_rows,
)

_METHODS = ("auto", "qr", "gram", "sketch")
_PROJECTIONS = 32  # columns that stand for more of them in sketched scores
_TWO_STEPS = 1e9  # condition number from which the two halves of an inverse are applied one after the other


def leverage_scores(A: Any, *, method: str = "auto", rng: Any = None) -> Any:
    """Compute the leverage scores of the rows of a tall matrix.

    The leverage of row i is ``a_i^* pinv(A^* A) a_i``, the squared norm of row i of any orthonormal basis of the range
    of A: how much the row can pull a least-squares fit.  The scores lie in [0, 1] and sum to the rank of A.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        Any numeric dtype and array API namespace; read in blocks of rows, never copied whole, not changed.
    method : {"auto", "qr", "gram", "sketch"}, default "auto"
        "qr": the triangular factor of a sketch, corrected by a Gram matrix; as accurate as Householder QR.
        "gram": the Cholesky factor of ``A^* A``, one pass less, with an error of ``eps cond(A)**2``.
        "auto": "gram" where the condition number allows about 1e-11 (below 200 in double, 7 in single precision), else
        "qr".
        "sketch": a constant factor, from the triangular factor of a sketch alone.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches; exact scores depend on it by rounding only.

    Returns
    -------
    array, shape (m,)
        In the namespace and the real dtype of A.

    Raises
    ------
    TypeError
        If A is not numeric.
    ValueError
        If A holds NaN or infinity, or is too badly conditioned for "gram".

    Notes
    -----
    Cost: "gram" 3 m n**2 flops in two reads, "qr" 5 m n**2 in two reads (7 from a condition number of 1e9), and 4
    additions per entry in a third where a uniform sample of rows will not do, as on coherent data; "sketch" 2 m n
    min(n, 32) in two reads.  Columns may be scaled at will.

    Largest relative errors for 100,000 x 50, against sums in extended precision: 3e-14 at condition number 1e3 and 2e-9
    at 1e8, where Householder QR has 7e-13 and 1e-7.  Columns that depend on others within ``2 eps**0.95`` are left out.

    "sketch": with the singular values of ``S U`` in [1 - e, 1 + e] every score is within [(1 + e)**-2, (1 - e)**-2] of
    the true one [1]_; e is about 0.5 for the 4 n rows used.  Beyond 32 columns a Gaussian projection to 32 adds a
    relative standard deviation of 0.25.  The sum is scaled to the rank.

    References
    ----------
    .. [1] Drineas, Magdon-Ismail, Mahoney and Woodruff, "Fast approximation of matrix coherence and statistical
       leverage", JMLR 13 (2012), Theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import leverage_scores
    >>> A = np.vander(np.linspace(-1, 1, 1001), 5)
    >>> scores = leverage_scores(A, rng=0)
    >>> round(float(scores.sum()), 10), bool(scores[0] > 5 * scores[500])
    (5.0, True)
    """
    check_choice(method, "method", _METHODS)
    A = as_rows(A)
    key = as_key(rng).fold("leverage_scores")
    if min(A.shape) == 0:
        return A.xp.zeros((A.shape[0],), dtype=real_dtype(A.dtype, A.xp), device=A.device)
    if method == "sketch":
        return _sketched(A, 0.0, key)
    return row_leverage(A, _exact_factor(A, method, 0.0, key))


def ridge_leverage_scores(A: Any, alpha: float, *, method: str = "auto", rng: Any = None) -> Any:
    """Compute ridge leverage scores, ``a_i^* (A^* A + alpha I)^-1 a_i``.

    They lie in [0, 1] and sum to the effective dimension, the sum of ``s**2 / (s**2 + alpha)`` over the singular values
    of A [1]_.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator or RowBlocks, shape (m, n)
        As for `leverage_scores`.
    alpha : float, alpha >= 0
        Ridge, in units of squared singular values; 0 gives the leverage scores.
    method : {"auto", "qr", "gram", "sketch"}, default "auto"
        As for `leverage_scores`; for "gram" the condition number is that of ``A^* A + alpha I``.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketches.

    Returns
    -------
    array, shape (m,)
        In the namespace and the real dtype of A.

    Raises
    ------
    TypeError
        If A is not numeric, or alpha not a real number.
    ValueError
        If alpha is negative, A holds NaN or infinity, or the ridge leaves it too badly conditioned for "gram".

    Notes
    -----
    Cost as for `leverage_scores`, with the SVD of the triangular factor.  "sketch" has its guarantee with the same
    constants, since the sketch preserves ``||A x||**2 + alpha ||x||**2`` at least as well as ``||A x||**2``.

    References
    ----------
    .. [1] Alaoui and Mahoney, "Fast randomized kernel ridge regression with statistical guarantees", NeurIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import ridge_leverage_scores
    >>> A = np.vander(np.linspace(-1, 1, 1001), 5)
    >>> s = np.linalg.svd(A, compute_uv=False)
    >>> scores = ridge_leverage_scores(A, 10.0, rng=0)
    >>> bool(np.isclose(scores.sum(), np.sum(s**2 / (s**2 + 10.0))))
    True
    """
    check_choice(method, "method", _METHODS)
    alpha = check_real(alpha, "alpha", low=0.0)
    A = as_rows(A)
    key = as_key(rng).fold("leverage_scores")
    if min(A.shape) == 0:
        return A.xp.zeros((A.shape[0],), dtype=real_dtype(A.dtype, A.xp), device=A.device)
    if method == "sketch":
        return _sketched(A, alpha, key)
    factor = _exact_factor(A, method, alpha, key)
    return row_leverage(A, factor if method == "gram" else _damped(factor, alpha))


def row_leverage(A: Any, R: Any, weights: Any = None) -> Any:
    """``weights_i ||R^-* a_i||**2`` of each row, at most 1, in blocks of rows that stay in cache.

    Parameters
    ----------
    A : array, CSR or CSC matrix, RowBlocks, LinearOperator or LinearMap, shape (m, n)
    R : TriangularFactor, or upper triangular array of shape (n, n)
        An array is inverted; the two halves of a badly conditioned TriangularFactor are applied one after the other.
    weights : array, shape (m,), optional

    Returns
    -------
    array, shape (m,)
        In the real dtype of A.
    """
    A = as_rows(A)
    if not isinstance(R, TriangularFactor):
        return _at_most_one(_row_squares(A, inverse_of(R), None, weights))
    if R.condition < _TWO_STEPS:
        return _at_most_one(_row_squares(A, R.inverse, None, weights))
    return _at_most_one(_row_squares(A, R.first, R.second, weights))


def _at_most_one(scores: Any) -> Any:
    xp = array_namespace(scores)
    return xp.where(scores > 1.0, xp.ones_like(scores), scores)


def _row_squares(A: LinearMap, first: Any, second: Any, weights: Any) -> Any:
    """Squared norms of the rows of ``A first second``."""
    xp = A.xp
    out = xp.empty((A.shape[0],), dtype=real_dtype(A.dtype, xp), device=A.device)
    turned = is_complex(A.dtype)
    for start, W in whitened_rows(A, first, weights, second):
        squares = xp.vecdot(W, W)
        squares = xp.real(squares) if turned else squares
        out[start : start + W.shape[0]] = xp.astype(squares, out.dtype, copy=False)
    return out


def _gram_limit(A: LinearMap) -> float:
    """The condition number up to which "auto" takes the Gram matrix, whose error is then eps**(2/3) / 4."""
    return 0.5 * eps(A.dtype) ** (-1.0 / 6.0)


def _exact_factor(A: LinearMap, method: str, alpha: float, key: Key) -> TriangularFactor:
    """The factor of A, or by the Gram matrix that of [A; sqrt(alpha) I]."""
    if method != "gram":
        return triangular_factor(A, key=key, gram_condition=_gram_limit(A) if method == "auto" else 0.0)
    most = eps(A.dtype) ** (-1.0 / 3.0)
    factor = gram_factor(A, None, most, alpha=alpha)
    if factor is None:
        raise ValueError(
            f'A must have full column rank and a condition number of at most {most:.0f} for method="gram", '
            'got one above, or entries that are not finite; use method="qr" or "auto"'
        )
    return factor


def _damped(factor: TriangularFactor, alpha: float) -> TriangularFactor:
    """The factor whose second half takes ``A first`` to rows with the ridge leverage as squared norms.

    With ``A = Q R`` and ``R = U s V^*`` the score of a row q of Q is ``||q U diag(s / sqrt(s**2 + alpha))||**2``.
    """
    if alpha == 0.0 or factor.rank == 0:
        return factor
    xp = array_namespace(factor.R)
    U, s, _ = core_svd(factor.R)
    s = s / math.sqrt(alpha)
    shrink = s / xp.sqrt(s * s + 1.0)
    shrink = xp.where(s > 1e100, xp.ones_like(s), shrink)  # where the square overflows
    return factor._replace(second=xp.matmul(factor.second, U * xp.astype(shrink, U.dtype)[None, :]))


def _sketched(A: LinearMap, alpha: float, key: Key) -> Any:
    """Scores from the triangular factor of a sketch, and of a Gaussian projection of many columns."""
    xp, n = A.xp, A.shape[1]
    size = max(4 * n, 32)
    S = SparseSign(size, A.shape[0], rng=key.fold("sketch"))
    start = leading_factor(row_sketch(A, S, None), default_tolerance(A.dtype))
    eye = xp.eye(start.rank, dtype=core_dtype(A.dtype, xp), device=A.device)
    factor = _damped(TriangularFactor(start.R, start.rank, start.pivots, 1.0, start.first, eye), alpha)
    T, total = factor.inverse, float(start.rank)
    if alpha > 0.0 and start.rank:
        total = float(xp.sum(xp.abs(factor.second) ** 2))  # U is unitary: the sum of the squared shrink factors
    if start.rank > 2 * _PROJECTIONS:
        table = kernel("gaussian_table", xp)(key.fold("projection"), 0, start.rank, _PROJECTIONS, "float64")
        project = xp.astype(from_host(table, xp, T), T.dtype) / math.sqrt(_PROJECTIONS)
        T = xp.matmul(T, project)
    scores = _row_squares(A, T, None, None)
    found = float(xp.sum(xp.astype(scores, xp.float64)))
    return _at_most_one(scores * (total / found) if found > 0.0 else scores)
