"""Leave-one-out errors and jackknife deviations of sketched factorisations.

A Gaussian sketch ``Y = A Omega`` of s columns can be used without one of them: the approximation from the other s - 1
is independent of the column that is left, which so becomes a test of it.  All of that follows from one triangular
factor, without another look at A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, is_complex
from .._checks import check_choice, check_integer
from .._random import as_key
from .._results import Result, Status
from ..diagnostics import CONFIDENCE, PROBES, probe_factor
from ..linear_maps import as_linear_map, squared
from .orthonormal import adjoint, core_dtype, core_svd

_SHIFTS = 12  # doublings of the shift of a Nystrom core: up to 4096 times the rounding of its products

#: Condition number of the sketch above which its leave-one-out error is rounding.
_LARGEST_CONDITION = 1e12


# Truth over estimate, 0.95 quantiles over 12 spectra (flat, powers, geometric, gaps at the sketch) and 3 to 20 columns:
# at most 3.2, 2.5, 2.4 and 1.7 for 3, 6, 10 and 20; the factor of as many probes at 0.99 is 5.1, 2.6, 2.0 and 1.6.
_CONFIDENCE, _LEAST_FACTOR = 0.95, 2.5


@dataclass(frozen=True, repr=False)
class LeaveOneOutError(Result):
    """Estimate of the Frobenius error of a factorisation from its own sketch.

    Attributes
    ----------
    error : float
        Estimate of ``||A - approximation||_F``, absolute.  Its square is in expectation the squared error of the
        approximation from one column less, and so slightly too large.
    error_bound : float
        `error` times the factor for as many independent probes, and at least 2.5.  The tests are not independent, nor
        do they see the approximation itself: that the bound holds at `confidence` is measured, not proved.  For
        "sketched" it is proved.
    confidence : float
        0.95, or 0.99 for "sketched".
    error_kind : str
        "leave-one-out", or "sketched": 20 fresh Gaussian probes.
    condition : float
        Of the sketch: largest over smallest diagonal entry of its triangular factor.
    n_vectors : int
        Columns of the sketch, or probes.
    status : Status
        BREAKDOWN where the condition number is above 1e12, so that the estimate is rounding, and no matrix was given to
        probe.
    """

    error: float
    error_bound: float
    confidence: float
    error_kind: str
    condition: float
    n_vectors: int
    status: Status


@dataclass(frozen=True, repr=False)
class JackknifeResult(Result):
    """Jackknife standard deviation of an output of a sketched factorisation.

    Attributes
    ----------
    deviation : float
        ``(sum_j ||Q_j - mean||_F**2)**0.5`` over the outputs Q_j without column j of the sketch.
    entries : array, shape of the output
        The same entry by entry.
    mean : array, shape of the output
        Mean of the outputs.
    n_vectors : int
        Columns of the sketch.
    status : Status
        Always CONVERGED.
    """

    deviation: float
    entries: Any
    mean: Any
    n_vectors: int
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("deviation",)


def range_error(Y: Any, products: Any = None, *, A: Any = None, rng: Any = None) -> LeaveOneOutError:
    """Estimate the error ``||A - Q Q^* A||_F`` of a range finder from its Gaussian sketch, with no look at A.

    Without power steps Y = A Omega, and the error of the basis from the other columns at column i is ``1 / ||row i of
    inv(R)||`` for ``Y = Q R`` [1]_.  With power steps ``Y = (A A^*)**q A Omega`` itself, since columns that are
    recombined between the steps no longer belong to test vectors, and `products` is ``A Omega``.

    Parameters
    ----------
    Y : array, shape (m, s)
        The sketch whose columns span the range; s >= 2.
    products : array, shape (m, s), optional
        ``A Omega``, where Y is not.
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (m, n), optional
        Multiplied with 20 probes where the condition number of Y is above 1e12.
    rng : None, int, SeedSequence, Generator or Key
        Source of those probes.

    Returns
    -------
    LeaveOneOutError

    Raises
    ------
    ValueError
        If the shapes do not fit, or an entry is NaN or infinity.
    TypeError
        If Y or `products` is not a dense numeric array.

    Notes
    -----
    Omega must be Gaussian (or have independent isotropic columns); the sketches that `svd` starts from are not, and
    `svd` computes its error from what it has read.  Cost: a QR factorisation and 4 m s**2 flops.

    Relative standard deviation at s = 10: 22 % for a slow decay.

    References
    ----------
    .. [1] Epperly and Tropp, "Efficient error and variance estimation for randomized matrix computations", SIAM J. Sci.
       Comput. 46 (2024), sections 2 and 3.

    Examples
    --------
    >>> import numpy as np, randla
    >>> from randla.lowrank.leave_one_out import range_error
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((300, 200)) * 0.9 ** np.arange(200)
    >>> Y = A @ rng.standard_normal((200, 30))
    >>> Q = np.linalg.qr(Y)[0]
    >>> bool(0.7 < range_error(Y).error / np.linalg.norm(A - Q @ (Q.T @ A)) < 1.5)
    True
    """
    Y = _panel(Y, "Y")
    xp = array_namespace(Y)
    Q, R = xp.linalg.qr(Y)
    S, lengths = unit_duals(R, xp)
    if products is None:
        squares = float(xp.sum(lengths**2))
    else:
        Z = _panel(products, "products")
        if Z.shape != Y.shape:
            raise ValueError(f"products must have the shape of Y, {tuple(Y.shape)}, got {tuple(Z.shape)}")
        C = xp.matmul(adjoint(Q), Z)
        squares = squared(Z - xp.matmul(Q, C - S * xp.sum(conj(S, xp) * C, axis=0)[None, :]), xp)

    def residual(G: Any, AG: Any) -> Any:  # noqa: ARG001 - the range needs no input
        return AG - xp.matmul(Q, xp.matmul(adjoint(Q), AG))

    return _told(squares, R, A, rng, residual, xp)


def nystrom_error(Y: Any, Omega: Any, *, A: Any = None, rng: Any = None) -> LeaveOneOutError:
    """Estimate the error ``||A - Y inv(Omega^* Y) Y^*||_F`` of a Nystrom approximation from its sketch.

    Without test vector i the residual at it is column i of ``Y inv(H)`` over ``inv(H)_ii``, for ``H = Omega^* Y``.

    Parameters
    ----------
    Y : array, shape (n, s)
        ``A Omega`` for a positive semidefinite A; s >= 2.
    Omega : array, shape (n, s)
        Gaussian test vectors.
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (n, n), optional
        Multiplied with 20 probes where the condition number of the sketch is above 1e12.
    rng : None, int, SeedSequence, Generator or Key
        Source of those probes.

    Returns
    -------
    LeaveOneOutError

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is NaN or infinity, or H is not Hermitian or not positive semidefinite.
    TypeError
        If Y or Omega is not a dense numeric array.

    Notes
    -----
    H is shifted by the rounding of the products, doubled up to 12 times until its Cholesky factorisation succeeds.

    References
    ----------
    .. [1] Epperly and Tropp, "Efficient error and variance estimation for randomized matrix computations", SIAM J. Sci.
       Comput. 46 (2024), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.leave_one_out import nystrom_error
    >>> A, Omega = np.diag(0.8 ** np.arange(200)), np.random.default_rng(0).standard_normal((200, 20))
    >>> Y = A @ Omega
    >>> true = np.linalg.norm(A - Y @ np.linalg.solve(Omega.T @ Y, Y.T))
    >>> bool(0.5 < nystrom_error(Y, Omega).error / true < 3)
    True
    """
    unit = _unit(Y, Omega)
    Y, Omega = _test_pair(Y, Omega)
    xp = array_namespace(Y)
    factor = nystrom_factor(Omega, Y, symmetric_core(Omega, Y, unit), unit)
    squares = float(xp.sum(xp.sum(xp.abs(factor.Z) ** 2, axis=0) * factor.lengths**2))

    def residual(G: Any, AG: Any) -> Any:
        return AG + factor.shift * G - xp.matmul(factor.F, xp.matmul(adjoint(factor.F), G))

    return _told(squares, xp.linalg.qr(Y)[1], A, rng, residual, xp)


def _told(
    squares: float, R: Any, A: Any, rng: Any, residual: Callable[[Any, Any], Any], xp: Any
) -> LeaveOneOutError:  # fmt: skip
    """The error from the summed squares of all columns left out, or from probes where the sketch is too flat."""
    s = R.shape[0]
    size = xp.abs(xp.linalg.diagonal(R))
    top, least = float(xp.max(size)), float(xp.min(size))
    condition = top / least if least > 0.0 else math.inf if top > 0.0 else 1.0
    if condition <= _LARGEST_CONDITION or A is None:
        error = math.sqrt(squares / s)
        status = Status.CONVERGED if condition <= _LARGEST_CONDITION else Status.BREAKDOWN
        bound = error * max(probe_factor(s), _LEAST_FACTOR)
        return LeaveOneOutError(error, bound, _CONFIDENCE, "leave-one-out", condition, s, status)
    A = as_linear_map(A)
    G = A.gaussian(as_key(rng).fold("leave one out"), PROBES)
    AG = xp.astype(A.matmul(G), R.dtype)
    error = math.sqrt(squared(residual(xp.astype(G, R.dtype), AG), xp) / PROBES)
    return LeaveOneOutError(
        error, error * probe_factor(), CONFIDENCE, "sketched", condition, PROBES, Status.CONVERGED
    )  # fmt: skip


# --- the jackknife ----------------------------------------------------------------------------------------------------

_OUTPUTS = ("values", "left", "right", "approximation")


def jackknife_svd(
    Y: Any, core: Any, output: str | Callable[[Any, Any, Any], Any] = "values", *, rank: int | None = None
) -> JackknifeResult:
    """Estimate how far an output of a randomized SVD would move with another sketch: its standard deviation.

    The approximation ``Q C`` with ``Y = Q R`` and ``C = Q^* A`` loses a projector of rank one with each column of Y
    that is left out: ``Q (I - t t^*) C`` [1]_.  A deviation that is small does not make a result right; one that is
    large makes it useless.

    Parameters
    ----------
    Y : array, shape (m, s)
        ``A Omega``, or the powers ``(A A^*)**q A Omega``; s >= 2.
    core : array, shape (s, n)
        ``Q^* A`` with Q of ``numpy.linalg.qr(Y)`` (that of the namespace of Y).
    output : {"values", "left", "right", "approximation"} or callable, default "values"
        "values": the leading singular values; "left", "right": the orthogonal projectors on the leading singular
        vectors; "approximation": the truncated decomposition.  A callable is given ``U`` (s, s), ``s`` (s,) and ``Vh``
        (s, s) in coordinates in which Q and the row space of C are the identity, and returns an array; it must not
        depend on signs.
    rank : int, 1 <= rank <= s, default s
        Leading values and vectors.

    Returns
    -------
    JackknifeResult
        ``deviation``, and ``entries`` entry by entry; iterates as ``deviation``.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an entry is NaN or infinity.
    TypeError
        If Y or `core` is not a dense numeric array.

    Notes
    -----
    Cost: O(m s**2 + n s**2) and s decompositions of (s, s) matrices, so O(s**4).  By Efron and Stein the square of
    the deviation is in expectation at least the variance of the output from a sketch of s - 1 columns.

    References
    ----------
    .. [1] Epperly and Tropp, "Efficient error and variance estimation for randomized matrix computations", SIAM J. Sci.
       Comput. 46 (2024), section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.leave_one_out import jackknife_svd
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((300, 200)) * 0.8 ** np.arange(200)
    >>> Y = A @ rng.standard_normal((200, 20))
    >>> Q = np.linalg.qr(Y)[0]
    >>> result = jackknife_svd(Y, Q.T @ A, rank=3)
    >>> result.entries.shape, result.deviation < 0.1
    ((3,), True)
    """
    Y, core = _panel(Y, "Y"), _panel(core, "core", least=1)
    check_together(Y, core, names=("Y", "core"))
    xp, s = array_namespace(Y), Y.shape[1]
    if core.shape[0] != s:
        raise ValueError(f"core must have as many rows as Y has columns, {s}, got shape {tuple(core.shape)}")
    rank = s if rank is None else check_integer(rank, "rank", low=1, high=s)
    S, _ = unit_duals(xp.linalg.qr(Y)[1], xp)
    left, values, _ = core_svd(core)
    M = left * xp.astype(values, left.dtype)[None, :]
    chosen = _chosen(output, rank, xp)
    outputs = []
    for j in range(s):
        t = S[:, j : j + 1]
        outputs.append(chosen(*core_svd(M - xp.matmul(t, xp.matmul(adjoint(t), M)))))
    return _spread(outputs, xp)


def jackknife_nystrom(
    Y: Any, Omega: Any, output: str | Callable[[Any, Any, Any], Any] = "values", *, rank: int | None = None
) -> JackknifeResult:
    """Estimate how far an output of a Nystrom approximation would move with other test vectors: its deviation.

    ``F F^*`` loses ``z z^*`` with each test vector that is left out; the replicates are eigendecompositions of
    downdated (s, s) matrices.

    Parameters
    ----------
    Y : array, shape (n, s)
        ``A Omega`` for a positive semidefinite A; s >= 2.
    Omega : array, shape (n, s)
        Test vectors.
    output : {"values", "left", "right", "approximation"} or callable, default "values"
        As in `jackknife_svd`, of the eigendecomposition in coordinates of the range of Y.
    rank : int, 1 <= rank <= s, default s
        Leading values and vectors.

    Returns
    -------
    JackknifeResult
        ``deviation``, and ``entries`` entry by entry; iterates as ``deviation``.

    Raises
    ------
    ValueError
        If the shapes do not fit, an entry is NaN or infinity, or ``Omega^* Y`` is not Hermitian positive semidefinite.
    TypeError
        If Y or Omega is not a dense numeric array.

    Notes
    -----
    Cost: O(n s**2 + s**4).

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.leave_one_out import jackknife_nystrom
    >>> A, Omega = np.diag(0.8 ** np.arange(200)), np.random.default_rng(0).standard_normal((200, 20))
    >>> jackknife_nystrom(A @ Omega, Omega, rank=3).entries.shape
    (3,)
    """
    unit = _unit(Y, Omega)
    Y, Omega = _test_pair(Y, Omega)
    xp, s = array_namespace(Y), Y.shape[1]
    rank = s if rank is None else check_integer(rank, "rank", low=1, high=s)
    factor = nystrom_factor(Omega, Y, symmetric_core(Omega, Y, unit), unit)
    T = xp.linalg.qr(factor.F)[1]
    chosen = _chosen(output, rank, xp)
    outputs = []
    for j in range(s):
        p = factor.duals[:, j : j + 1]
        # a square root of T (I - p p^*) T^*: its singular values are the roots of the eigenvalues
        U, roots, _ = core_svd(T - xp.matmul(xp.matmul(T, p), adjoint(p)))
        values = roots**2 - factor.shift
        outputs.append(chosen(U, xp.where(values > 0, values, xp.zeros_like(values)), adjoint(U)))
    return _spread(outputs, xp)


def _chosen(output: Any, rank: int, xp: Any) -> Callable[[Any, Any, Any], Any]:
    """The function of a decomposition that `output` names."""
    if callable(output):
        return output
    check_choice(output, "output", _OUTPUTS)
    if output == "values":
        return lambda U, s, Vh: s[:rank]  # noqa: ARG005
    if output == "left":
        return lambda U, s, Vh: xp.matmul(U[:, :rank], adjoint(U[:, :rank]))  # noqa: ARG005
    if output == "right":
        return lambda U, s, Vh: xp.matmul(adjoint(Vh[:rank, :]), Vh[:rank, :])  # noqa: ARG005
    return lambda U, s, Vh: xp.matmul(U[:, :rank] * xp.astype(s[:rank], U.dtype)[None, :], Vh[:rank, :])


def _spread(outputs: list[Any], xp: Any) -> JackknifeResult:
    stacked = xp.stack([xp.asarray(value) for value in outputs], axis=0)
    mean = xp.mean(stacked, axis=0)
    squares = xp.sum(xp.abs(stacked - mean[None, ...]) ** 2, axis=0)
    return JackknifeResult(math.sqrt(float(xp.sum(squares))), xp.sqrt(squares), mean, len(outputs))


# --- sketches ---------------------------------------------------------------------------------------------------------


def _unit(Y: Any, Omega: Any) -> float:
    """The rounding of the products in Y, as far as dtypes tell."""
    return max((eps(X.dtype) for X in (Y, Omega) if hasattr(X, "dtype")), default=eps(np.float64))


def _panel(Y: Any, name: str, *, least: int = 2) -> Any:
    """A dense finite panel in double precision."""
    Y = as_matrix(Y, name=name, sparse=False)
    xp = array_namespace(Y)
    if least == 2 and not 2 <= Y.shape[1] <= Y.shape[0]:
        raise ValueError(f"{name} must have at least two columns and no more than rows, got shape {tuple(Y.shape)}")
    Y = xp.astype(Y, core_dtype(floating_dtype(Y, xp), xp))
    if not bool(xp.all(xp.isfinite(Y))):
        raise ValueError(f"{name} must be finite, got NaN or infinity; check the products")
    return Y


def _test_pair(Y: Any, Omega: Any) -> tuple[Any, Any]:
    Y, Omega = _panel(Y, "Y"), _panel(Omega, "Omega")
    check_together(Y, Omega, names=("Y", "Omega"))
    if Y.shape != Omega.shape:
        raise ValueError(f"Omega must have the shape of Y, {tuple(Y.shape)}, got {tuple(Omega.shape)}")
    xp = array_namespace(Y)
    core = xp.complex128 if is_complex(Y.dtype) or is_complex(Omega.dtype) else xp.float64
    return xp.astype(Y, core), xp.astype(Omega, core)


class NystromFactor(NamedTuple):
    """``A + shift I ~ F F^*``, and unit columns `duals` with ``Z = F duals`` and ``Z^* Omega = diag(lengths)``.

    `gram` is that of the duals.  Without test vector i the approximation is ``F F^* - z_i z_i^*``.
    """

    F: Any
    Z: Any
    lengths: Any
    duals: Any
    gram: Any
    shift: float


def symmetric_core(Omega: Any, Y: Any, unit: float) -> Any:
    """``Omega^* Y``, checked to be Hermitian up to products of rounding `unit`."""
    xp, (n, k) = array_namespace(Y), Omega.shape
    H = xp.matmul(adjoint(Omega), Y)
    off = math.sqrt(squared(H - adjoint(H), xp))
    # entries are sums of n terms of the size of |omega| |y|; 100 leaves room for any order of summation
    scale = math.sqrt(squared(Omega, xp) * squared(Y, xp) / max(k, 1))
    if off > 100.0 * unit * math.sqrt(n) * scale:
        raise ValueError(
            "A must be symmetric (Hermitian), got a core with "
            f"||H - H^*||_F = {off / math.sqrt(squared(H, xp)):.1e} ||H||_F; use the method for general matrices"
        )
    return (H + adjoint(H)) / 2.0


def nystrom_factor(Omega: Any, Y: Any, core: Any, unit: float) -> NystromFactor:
    """The Nystrom factor of a sketch with the least shift that its Cholesky factorisation takes."""
    from ..triangular import cholesky, inverse_of

    xp = array_namespace(Y)
    shift = unit * math.sqrt(squared(Y, xp) / Y.shape[0])
    inner = xp.matmul(adjoint(Omega), Omega)
    shift = shift if shift > 0.0 else 1e-300  # the zero matrix
    for _ in range(_SHIFTS):
        R = cholesky(core + shift * inner)
        if R is not None:
            break
        shift = 2.0 * shift
    else:
        raise ValueError(
            "A must be positive semidefinite, got negative eigenvalues far above rounding; "
            "use a method for general matrices"
        )
    inverse = inverse_of(R)
    length = xp.sqrt(xp.sum(xp.abs(inverse) ** 2, axis=1))
    F = xp.matmul(Y + shift * Omega, inverse)
    P = adjoint(inverse / xp.astype(length, inverse.dtype)[:, None])
    return NystromFactor(F, xp.matmul(F, P), 1.0 / length, P, xp.matmul(adjoint(P), P), shift)


def unit_duals(R: Any, xp: Any) -> tuple[Any, Any]:
    """Unit columns S with ``S^* R = diag(lengths)``: column i is what all columns of R but the i-th are orthogonal to.

    A zero on the diagonal of a triangular R, a test vector whose image the others span already, is raised to rounding.
    """
    from ..triangular import inverse_of

    size = xp.abs(xp.linalg.diagonal(R))
    top = float(xp.max(size)) if size.shape[0] else 0.0
    unit = top if top > 0.0 else 1.0
    lift = xp.where(size > 1e-30 * unit, xp.zeros_like(size), xp.ones_like(size) * eps(R.dtype))
    eye = xp.eye(R.shape[0], dtype=R.dtype, device=device_of(R))
    P = adjoint(inverse_of(R / unit + eye * xp.astype(lift, R.dtype)[None, :]))
    # lengths from 1 to 1e30: scaled first, so that no square leaves the range
    largest = xp.max(xp.abs(P), axis=0)
    P = P / largest[None, :]
    length = xp.sqrt(xp.sum(xp.abs(P) ** 2, axis=0))
    return P / xp.astype(length, P.dtype)[None, :], top / (largest * length)


def conj(M: Any, xp: Any) -> Any:
    """The conjugate of an array, or the array itself if it is real."""
    return xp.conj(M) if is_complex(M.dtype) else M


def real(M: Any, xp: Any) -> Any:
    """The real part of an array, or the array itself if it is real."""
    return xp.real(M) if is_complex(M.dtype) else M
