"""A-posteriori errors: how far an approximation is from its matrix, with the probability that the answer holds."""

from __future__ import annotations

import math

#: Gaussian probes of a sketched residual.  With 20 of them the estimate is within a factor 2 of the error with
#: probability 0.9996 for a residual of rank one, the worst case (chi-square with 20 degrees of freedom).
PROBES = 20

#: Confidence of every bound that rests on probes.
CONFIDENCE = 0.99


def probe_factor(n_probes: int = PROBES, confidence: float = CONFIDENCE) -> float:
    """Factor by which the estimate from Gaussian probes must be raised to bound the Frobenius error.

    ``||E G||_F**2 / k`` is a weighted mean of chi-square variables, and its lower tail is heaviest for a residual E of
    rank one [1]_: there it is a chi-square variable with k degrees of freedom over k.

    References
    ----------
    .. [1] Roosta-Khorasani, Szekely and Ascher, "Assessing stochastic algorithms for large scale nonlinear least
       squares problems using extremal probabilities of linear combinations of gamma random variables", SIAM/ASA J.
       Uncertainty Quantification 3 (2015), Theorem 4.
    """
    from scipy.special import gammaincinv

    return math.sqrt(n_probes / (2.0 * float(gammaincinv(n_probes / 2.0, 1.0 - confidence))))


def lanczos_factor(n: int, n_steps: int, n_starts: int, confidence: float = CONFIDENCE) -> float:
    """Factor by which a Krylov estimate of the spectral norm of E must be raised to bound it; inf if none is proved.

    After k Lanczos steps on ``E^* E`` (n x n) from a random start the relative error of the top eigenvalue exceeds
    epsilon with probability at most ``1.648 sqrt(n) exp(-sqrt(epsilon) (2 k - 1))`` [1]_.  A block Krylov space
    contains the spaces of its columns, so all `n_starts` independent starts must fail at once.

    References
    ----------
    .. [1] Kuczynski and Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a
       random start", SIAM J. Matrix Anal. Appl. 13 (1992), Theorem 4.2.
    """
    failure = (1.0 - confidence) ** (1.0 / n_starts)
    root = math.log(max(1.648 * math.sqrt(n) / failure, 1.0)) / (2 * n_steps - 1)
    return 1.0 / math.sqrt(1.0 - root * root) if root < 1.0 else math.inf
