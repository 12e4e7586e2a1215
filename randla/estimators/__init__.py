"""scikit-learn estimators: the only place in randla that imports scikit-learn."""

from __future__ import annotations

from ._decomposition import TruncatedSVD
from ._projection import GaussianProjection, SparseSignProjection, SRHTProjection

__all__ = ["GaussianProjection", "SRHTProjection", "SparseSignProjection", "TruncatedSVD"]
