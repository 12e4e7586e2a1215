"""Results of the stochastic estimators, and the intervals that belong to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from .._checks import check_real
from .._results import Result, Status

#: What may be done about a result that did not converge.
ON_FAILURE = ("warn", "raise", "ignore")

#: Confidence of an interval unless given.
CONFIDENCE = 0.95

# Independent squares of normal variables are skewed: a t interval of m of them covers less than it says.  Measured for
# a residual of rank one, the worst case: the interval must be wider by 3.6, 1.8 and 1.2 for m = 4, 10 and 40 at 0.95,
# and by 5.9 and 1.6 for m = 4 and 40 at 0.99.  1 + c / m covers all of them with c = 12 at 0.95 and 24 at 0.99.
_SKEW, _SKEW_AT, _SKEW_POWER = 12.0, math.log(20.0), 1.6


def check_confidence(confidence: Any) -> float:
    """A confidence between one half and 0.99, for which the intervals were calibrated."""
    remedy = "wider intervals were not calibrated; double the half width for more"
    return check_real(confidence, "confidence", low=0.5, high=0.99, remedy=remedy)


def entry_factor(n_vectors: int, confidence: float) -> float:
    """Half the width of the interval of one entry of a diagonal over its jackknife deviation.

    An entry sees few of the random signs where its row is sparse or the spectrum falls at once, so the margin over
    Student's t is larger than for a trace.
    """
    from scipy.special import stdtrit

    return (1.0 + 5.0 / n_vectors) * float(stdtrit(n_vectors - 1, (1.0 + confidence) / 2.0))


def student_factor(n_vectors: int, confidence: float) -> float:
    """Half the width of an interval over the jackknife deviation of a leave-one-out estimate.

    Student's t with a margin of 1 / n_vectors: over 19 spectra (flat, powers, geometric, steps, low rank, indefinite)
    and 4 to 40 vectors the quantiles of error over deviation were at most 1.06 (0.95) and 1.2 (0.99) times those of t.
    """
    from scipy.special import stdtrit

    return (1.0 + 1.0 / n_vectors) * float(stdtrit(n_vectors - 1, (1.0 + confidence) / 2.0))


def skewed_factor(n_vectors: int, confidence: float) -> float:
    """Half the width of an interval over the standard error of a mean of independent quadratic forms."""
    from scipy.special import stdtrit

    margin = _SKEW * (-math.log1p(-confidence) / _SKEW_AT) ** _SKEW_POWER
    return (1.0 + margin / n_vectors) * float(stdtrit(n_vectors - 1, (1.0 + confidence) / 2.0))


@dataclass(frozen=True, repr=False)
class TraceResult(Result):
    """Estimate of a trace with an interval around it.

    Attributes
    ----------
    estimate : float or complex
        Unbiased up to rounding (not "xsymtrace", whose distribution has no mean).
    stderr : float
        Standard deviation of the leave-one-out estimates over the root of their number.  It neglects that they are
        correlated, and for fast decays it is too small.
    half_width : float
        The truth is within ``estimate +- half_width`` with probability `confidence`.
    confidence : float
        Of the interval; 1.0 where the trace is computed from the diagonal, up to rounding.
    method : str
        "xtrace", "xnystrace", "xsymtrace", "hutchpp", "hutchinson", or "exact".
    n_matvecs : int
        Columns that A was multiplied with.
    n_vectors : int
        Test vectors, or independent samples, behind `half_width`.
    status : Status
    """

    estimate: Any
    stderr: float
    half_width: float
    confidence: float
    method: str
    n_matvecs: int
    n_vectors: int
    status: Status

    @property
    def interval(self) -> tuple[Any, Any]:
        """``(low, high)``; for a complex trace the corners of a square in the plane."""
        corner = self.half_width * (1.0 + 1.0j) if isinstance(self.estimate, complex) else self.half_width
        return self.estimate - corner, self.estimate + corner


@dataclass(frozen=True, repr=False)
class DiagonalResult(Result):
    """Estimates of many numbers, a diagonal or squared row norms, with an interval around each; iterates as `estimate`.

    Attributes
    ----------
    estimate : array, shape (m,)
        Each entry is unbiased up to rounding.
    stderr : array, shape (m,)
        Standard deviation of the leave-one-out estimates over the root of their number; neglects their correlation.
    half_width : array, shape (m,)
        Each truth is within ``estimate +- half_width`` with probability `confidence`, one at a time.
    confidence : float
        Of each interval; 1.0 where the entries are read, up to rounding.
    method : str
        "xdiag", "xnysdiag", "xrownorm", "xsymrownorm" or "exact".
    n_matvecs : int
        Columns that A or its adjoint was multiplied with.
    n_vectors : int
        Test vectors.
    status : Status
    """

    estimate: Any
    stderr: Any
    half_width: Any
    confidence: float
    method: str
    n_matvecs: int
    n_vectors: int
    status: Status

    _factors = ("estimate",)

    @property
    def interval(self) -> tuple[Any, Any]:
        """``(low, high)``, two arrays; for complex entries the corners of squares in the plane."""
        xp = array_namespace(self.estimate)
        whole = self.half_width if xp.isdtype(self.estimate.dtype, "real floating") else (1.0 + 1.0j) * self.half_width
        return self.estimate - whole, self.estimate + whole
