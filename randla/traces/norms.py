"""Norms of matrices that are known by products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import eps
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..linear_maps import LinearMap, as_linear_map, squared
from ..lowrank.krylov import Subspaces
from ..lowrank.orthonormal import NonfiniteError, orthonormalize
from .panels import TestPanel
from .results import ON_FAILURE

CONFIDENCE = 0.99  # that of all bounds from Gaussian probes in the library
_PROBES, _STARTS = 20, 10


@dataclass(frozen=True, repr=False)
class NormResult(Result):
    """Estimate of a norm between two bounds.

    Attributes
    ----------
    estimate : float
    lower, upper : float
        The norm is in [lower, upper] with probability `confidence`.  For the spectral norm `lower` is the estimate
        and certain.
    confidence : float
        Proved; 1.0 where the norm is the sum over stored entries.
    ord : int or str
        2 or "fro".
    n_matvecs : int
        Columns that A or its adjoint was multiplied with.
    status : Status
    """

    estimate: float
    lower: float
    upper: float
    confidence: float
    ord: Any
    n_matvecs: int
    status: Status

    @property
    def interval(self) -> tuple[float, float]:
        """``(lower, upper)``."""
        return self.lower, self.upper


def norm_estimate(
    A: Any, ord: int | str = 2, *, tol: float = 0.1, n_probes: int | None = None, confidence: float = CONFIDENCE,
    rng: Any = None, on_failure: str = "warn",
) -> NormResult:  # fmt: skip
    """Estimate the spectral or Frobenius norm of a matrix from products, between bounds that hold with a probability.

    The spectral norm by block Lanczos on ``A^* A`` from Gaussian starts, with as many steps as prove the upper bound
    [1]_; the Frobenius norm by a sum over what is stored, or by Gaussian probes where only products are known [2]_.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (m, n)
        Real or complex matrix; it is not changed.
    ord : {2, "fro"}, default 2
        Which norm.
    tol : float in (0, 1], default 0.1
        For the spectral norm, ``upper <= (1 + tol) * lower``: the number of Lanczos steps follows from it.  Not used
        for the Frobenius norm.
    n_probes : int, n_probes >= 1, default 10 for 2, 20 for "fro"
        Gaussian starts, or probes.
    confidence : float in [0.9, 1), default 0.99
        Probability with which the norm shall be between the bounds.
    rng : None, int, SeedSequence, Generator or Key
        Source of the vectors.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    NormResult
        ``estimate`` between ``lower`` and ``upper``.

    Raises
    ------
    ValueError
        If `ord` is another norm, or a parameter is out of range.
    TypeError
        If A is not numeric.

    Notes
    -----
    After k steps from one random start the relative error of the top eigenvalue of ``A^* A`` exceeds epsilon with
    probability at most ``1.648 sqrt(n) exp(-sqrt(epsilon) (2 k - 1))`` [1]_; all starts must fail at once.  About 10
    steps are enough for n = 10**6 and 10 %; the estimate itself is nearly always far better.

    The sum of squares of k Gaussian probes lies between its quantiles for a matrix of rank one, a chi-square variable
    with k degrees of freedom, whose tails are the heaviest [2]_.

    References
    ----------
    .. [1] Kuczynski and Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a
       random start", SIAM J. Matrix Anal. Appl. 13 (1992), theorem 4.2.
    .. [2] Roosta-Khorasani, Szekely and Ascher, "Assessing stochastic algorithms for large scale nonlinear least
       squares problems using extremal probabilities of linear combinations of gamma random variables", SIAM/ASA J.
       Uncertainty Quantification 3 (2015), theorem 4.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.traces import norm_estimate
    >>> A = np.diag(np.linspace(0, 5, 400))
    >>> result = norm_estimate(A, tol=0.05, rng=0)
    >>> result.lower <= 5 <= result.upper <= 1.05 * result.lower
    True
    """
    if isinstance(ord, bool) or ord not in (2, "fro"):
        raise ValueError(f'ord must be 2 or "fro", got {ord!r}; use the library of the array for other norms')
    check_choice(on_failure, "on_failure", ON_FAILURE)
    tol = check_real(tol, "tol", low=0.0, high=1.0, closed="right")
    confidence = check_real(confidence, "confidence", low=0.9, high=1.0, closed="left")
    default = _STARTS if ord == 2 else _PROBES
    k = default if n_probes is None else check_integer(n_probes, "n_probes", low=1)
    A = as_linear_map(A)
    before, key, status = A.n_matvecs, as_key(rng).fold("norm"), Status.CONVERGED
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity end in a status
            if min(A.shape) == 0:
                value, held = (0.0, 0.0, 0.0), 1.0
            elif ord == 2:
                value, held = _spectral(A, tol, k, confidence, key), confidence
            elif A.knows_norm:
                value, held = _stored(A), 1.0
            else:
                value, held = _probed(A, k, confidence, key), confidence
        if not value[0] < math.inf:
            raise NonfiniteError("a norm is NaN or infinity")
    except NonfiniteError:
        value, held, status = (math.nan, 0.0, math.inf), confidence, Status.NONFINITE
    result = NormResult(*value, held, ord, A.n_matvecs - before, status)
    return warn_or_raise(result, on_failure, what="norm_estimate")


def _stored(A: LinearMap) -> tuple[float, float, float]:
    value = math.sqrt(A.frobenius_squared())
    slack = 8.0 * eps(A.dtype) * math.sqrt(A.shape[1])
    return value, value * (1.0 - slack), value * (1.0 + slack)


def _probed(A: LinearMap, k: int, confidence: float, key: Key) -> tuple[float, float, float]:
    """Gaussian probes between the quantiles of a chi-square variable."""
    from scipy.special import gammaincinv

    panel = TestPanel(A, key)
    panel.grow(k)
    value = math.sqrt(squared(panel.Y, A.xp) / k)
    half = (1.0 - confidence) / 2.0
    # a complex probe has two real ones in it; the real quantiles are wider
    quantile = [2.0 * float(gammaincinv(k / 2.0, p)) / k for p in (half, 1.0 - half)]
    return value, value / math.sqrt(quantile[1]), value / math.sqrt(quantile[0])


def _spectral(A: LinearMap, tol: float, k: int, confidence: float, key: Key) -> tuple[float, float, float]:
    """Block Lanczos on ``A^* A`` with the number of steps that the bound asks for."""
    n = A.shape[1]
    k = min(k, n)
    log = math.log(max(1.648 * math.sqrt(n) / (1.0 - confidence) ** (1.0 / k), 1.0))
    root = math.sqrt(1.0 - (1.0 + tol) ** -2)  # 1 / sqrt(1 - root^2) = 1 + tol
    steps = max(1, math.ceil((log / root + 1.0) / 2.0))
    root = log / (2 * steps - 1)
    state = Subspaces(A, key, probe=False)
    X = orthonormalize(A.gaussian(key, k)).Q
    for step in range(steps):
        state.multiply(X)
        X = state.pull() if step + 1 < steps else X[:, :0]
        if X.shape[1] == 0:
            break
    s = state.factors()[1]
    value = float(s[0]) if s.shape[0] else 0.0
    slack = 1.0 + 8.0 * eps(A.dtype) * math.sqrt(max(A.shape))
    return value, value / slack, value * slack / math.sqrt(1.0 - root * root)
