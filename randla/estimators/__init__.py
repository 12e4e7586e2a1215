"""scikit-learn estimators: the only place in randla that imports scikit-learn."""

from __future__ import annotations

from ._decomposition import TruncatedSVD
from ._kernel import PolynomialTensorSketch
from ._lp import LpRegressor
from ._projection import GaussianProjection, SparseSignProjection, SRHTProjection
from ._regression import SketchedLinearRegression, SketchedRidge
from ._sampling import RowSampler

__all__ = [
    "GaussianProjection",
    "LpRegressor",
    "PolynomialTensorSketch",
    "RowSampler",
    "SRHTProjection",
    "SketchedLinearRegression",
    "SketchedRidge",
    "SparseSignProjection",
    "TruncatedSVD",
]
