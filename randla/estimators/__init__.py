"""scikit-learn estimators: the only place in randla that imports scikit-learn."""

from __future__ import annotations

from ._decomposition import TruncatedSVD
from ._incremental import IncrementalSVD
from ._kernel import PolynomialTensorSketch
from ._kernel_ridge import KernelRidgePCG, NystromRidge
from ._lp import LpRegressor
from ._nystroem import Nystroem
from ._projection import GaussianProjection, SparseSignProjection, SRHTProjection
from ._regression import SketchedLinearRegression, SketchedRidge
from ._sampling import RowSampler
from ._selection import ColumnSubsetSelector

__all__ = [
    "ColumnSubsetSelector",
    "GaussianProjection",
    "IncrementalSVD",
    "KernelRidgePCG",
    "LpRegressor",
    "Nystroem",
    "NystromRidge",
    "PolynomialTensorSketch",
    "RowSampler",
    "SRHTProjection",
    "SketchedLinearRegression",
    "SketchedRidge",
    "SparseSignProjection",
    "TruncatedSVD",
]
