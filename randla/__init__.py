"""Randomized numerical linear algebra: sketches and low-rank factorisations that say how wrong they are.

All public names are flat (``randla.svd``, ``randla.SparseSign``) and loaded at first use, so that ``import randla``
costs next to nothing: neither Numba nor SciPy, scikit-learn, CuPy or Dask is imported before something needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; `_HOMES` is what runs
    from . import datasets as datasets
    from . import diagnostics as diagnostics
    from . import plot as plot
    from ._blocks import RowBlocks as RowBlocks
    from ._parallel import threads as threads
    from ._random import Key as Key
    from ._random import as_key as as_key
    from ._results import ConvergenceError as ConvergenceError
    from ._results import ConvergenceWarning as ConvergenceWarning
    from ._results import Status as Status
    from .estimators import GaussianProjection as GaussianProjection
    from .estimators import LpRegressor as LpRegressor
    from .estimators import PolynomialTensorSketch as PolynomialTensorSketch
    from .estimators import RowSampler as RowSampler
    from .estimators import SketchedLinearRegression as SketchedLinearRegression
    from .estimators import SketchedRidge as SketchedRidge
    from .estimators import SparseSignProjection as SparseSignProjection
    from .estimators import SRHTProjection as SRHTProjection
    from .estimators import TruncatedSVD as TruncatedSVD
    from .lowrank import EighResult as EighResult
    from .lowrank import LowRankResult as LowRankResult
    from .lowrank import RangeResult as RangeResult
    from .lowrank import eigh as eigh
    from .lowrank import range_finder as range_finder
    from .lowrank import svd as svd
    from .operators import LESS as LESS
    from .operators import SRCT as SRCT
    from .operators import SRHT as SRHT
    from .operators import BlockSRHT as BlockSRHT
    from .operators import CountSketch as CountSketch
    from .operators import Gaussian as Gaussian
    from .operators import GaussianPooledHadamard as GaussianPooledHadamard
    from .operators import KhatriRao as KhatriRao
    from .operators import KroneckerSRHT as KroneckerSRHT
    from .operators import Rademacher as Rademacher
    from .operators import RowSample as RowSample
    from .operators import SketchChoice as SketchChoice
    from .operators import SparseJL as SparseJL
    from .operators import SparseSign as SparseSign
    from .operators import TensorSketch as TensorSketch
    from .operators import TensorSRHT as TensorSRHT
    from .operators import choose_sketch as choose_sketch
    from .operators import sketch as sketch
    from .operators import sketch_size_for as sketch_size_for
    from .qr import QRResult as QRResult
    from .qr import cholesky_qr as cholesky_qr
    from .regression import LpResult as LpResult
    from .regression import LstsqChoice as LstsqChoice
    from .regression import LstsqResult as LstsqResult
    from .regression import choose_lstsq as choose_lstsq
    from .regression import lp_regression as lp_regression
    from .regression import lstsq as lstsq
    from .sampling import CoordinatedSample as CoordinatedSample
    from .sampling import JoinRegressionResult as JoinRegressionResult
    from .sampling import JoinResult as JoinResult
    from .sampling import MatmulResult as MatmulResult
    from .sampling import PrioritySampler as PrioritySampler
    from .sampling import ProductResult as ProductResult
    from .sampling import RowSelection as RowSelection
    from .sampling import StreamingRowSampler as StreamingRowSampler
    from .sampling import ThresholdSampler as ThresholdSampler
    from .sampling import TotalSensitivity as TotalSensitivity
    from .sampling import estimate_product as estimate_product
    from .sampling import join_regression as join_regression
    from .sampling import join_statistics as join_statistics
    from .sampling import leverage_scores as leverage_scores
    from .sampling import lewis_weights as lewis_weights
    from .sampling import lp_sensitivities as lp_sensitivities
    from .sampling import matmul_approx as matmul_approx
    from .sampling import ridge_leverage_scores as ridge_leverage_scores
    from .sampling import sample_rows as sample_rows
    from .sampling import select_rows as select_rows
    from .sampling import total_sensitivity as total_sensitivity

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOMES = {
    "Key": "_random",
    "as_key": "_random",
    "threads": "_parallel",
    "RowBlocks": "_blocks",
    "Status": "_results",
    "ConvergenceWarning": "_results",
    "ConvergenceError": "_results",
    "Gaussian": "operators",
    "Rademacher": "operators",
    "SparseJL": "operators",
    "SparseSign": "operators",
    "CountSketch": "operators",
    "LESS": "operators",
    "SRHT": "operators",
    "SRCT": "operators",
    "BlockSRHT": "operators",
    "RowSample": "operators",
    "sketch": "operators",
    "choose_sketch": "operators",
    "SketchChoice": "operators",
    "sketch_size_for": "operators",
    "svd": "lowrank",
    "eigh": "lowrank",
    "range_finder": "lowrank",
    "LowRankResult": "lowrank",
    "EighResult": "lowrank",
    "RangeResult": "lowrank",
    "GaussianProjection": "estimators",
    "SparseSignProjection": "estimators",
    "SRHTProjection": "estimators",
    "TruncatedSVD": "estimators",
    "GaussianPooledHadamard": "operators",
    "TensorSketch": "operators",
    "TensorSRHT": "operators",
    "KhatriRao": "operators",
    "KroneckerSRHT": "operators",
    "cholesky_qr": "qr",
    "QRResult": "qr",
    "lstsq": "regression",
    "choose_lstsq": "regression",
    "LstsqResult": "regression",
    "LstsqChoice": "regression",
    "lp_regression": "regression",
    "LpResult": "regression",
    "leverage_scores": "sampling",
    "ridge_leverage_scores": "sampling",
    "lewis_weights": "sampling",
    "lp_sensitivities": "sampling",
    "total_sensitivity": "sampling",
    "TotalSensitivity": "sampling",
    "sample_rows": "sampling",
    "select_rows": "sampling",
    "RowSelection": "sampling",
    "StreamingRowSampler": "sampling",
    "PrioritySampler": "sampling",
    "ThresholdSampler": "sampling",
    "CoordinatedSample": "sampling",
    "estimate_product": "sampling",
    "ProductResult": "sampling",
    "join_statistics": "sampling",
    "JoinResult": "sampling",
    "join_regression": "sampling",
    "JoinRegressionResult": "sampling",
    "matmul_approx": "sampling",
    "MatmulResult": "sampling",
    "SketchedLinearRegression": "estimators",
    "SketchedRidge": "estimators",
    "LpRegressor": "estimators",
    "RowSampler": "estimators",
    "PolynomialTensorSketch": "estimators",
}
_SUBMODULES = ("datasets", "diagnostics", "plot")

__all__ = ["__version__", *_SUBMODULES, *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
