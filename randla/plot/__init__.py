"""Pictures of spectra, errors and plans, in scikit-learn's manner: build a Display from a result, then call `plot`.

matplotlib is imported inside the functions and belongs to the extra `plot`.  Lines differ in colour (the palette of
Okabe and Ito, which colour-blind readers can tell apart) and in marker.
"""

from __future__ import annotations

from ._axes import MARKERS, PALETTE
from .curves import RankStabilityDisplay, ValidationCurveDisplay
from .spectra import RankErrorDisplay, SketchErrorDisplay, SpectrumDisplay, gram_matrix
from .transport import ConvergenceDisplay, PlanDisplay

__all__ = [
    "MARKERS",
    "PALETTE",
    "ConvergenceDisplay",
    "PlanDisplay",
    "RankErrorDisplay",
    "RankStabilityDisplay",
    "SketchErrorDisplay",
    "SpectrumDisplay",
    "ValidationCurveDisplay",
    "gram_matrix",
]
