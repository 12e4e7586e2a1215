"""scikit-learn estimators: the only place in randla that imports scikit-learn."""

from __future__ import annotations

from ._binary_nmf import BinaryNMF
from ._completion import MatrixCompletion
from ._decomposition import TruncatedSVD
from ._ease import EASE
from ._implicit import ImplicitALS
from ._incremental import IncrementalSVD
from ._kernel import PolynomialTensorSketch
from ._kernel_ridge import KernelRidgePCG, NystromRidge
from ._lp import LpRegressor
from ._nmf import NMF
from ._nystroem import Nystroem
from ._onesided import OneSidedCompletion
from ._projection import GaussianProjection, SparseSignProjection, SRHTProjection
from ._regression import SketchedLinearRegression, SketchedRidge
from ._sampling import RowSampler
from ._selection import ColumnSubsetSelector
from ._soft_impute import SoftImpute
from ._stability import StabilitySelector
from ._transport import SinkhornTransport
from ._unmixing import RobustNMF, StructuredNMF

__all__ = [
    "EASE",
    "NMF",
    "BinaryNMF",
    "ColumnSubsetSelector",
    "GaussianProjection",
    "ImplicitALS",
    "IncrementalSVD",
    "KernelRidgePCG",
    "LpRegressor",
    "MatrixCompletion",
    "Nystroem",
    "NystromRidge",
    "OneSidedCompletion",
    "PolynomialTensorSketch",
    "RobustNMF",
    "RowSampler",
    "SRHTProjection",
    "SinkhornTransport",
    "SketchedLinearRegression",
    "SketchedRidge",
    "SoftImpute",
    "SparseSignProjection",
    "StabilitySelector",
    "StructuredNMF",
    "TruncatedSVD",
]
