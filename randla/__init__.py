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
    from .cur_scoring import CURScorer as CURScorer
    from .cur_scoring import TopItems as TopItems
    from .cur_scoring import adaptive_topk as adaptive_topk
    from .estimators import ColumnSubsetSelector as ColumnSubsetSelector
    from .estimators import GaussianProjection as GaussianProjection
    from .estimators import IncrementalSVD as IncrementalSVD
    from .estimators import KernelRidgePCG as KernelRidgePCG
    from .estimators import LpRegressor as LpRegressor
    from .estimators import Nystroem as Nystroem
    from .estimators import NystromRidge as NystromRidge
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
    from .lowrank.cur import CURResult as CURResult
    from .lowrank.cur import cur as cur
    from .lowrank.generalized import generalized_nystrom as generalized_nystrom
    from .lowrank.interpolative import InterpolativeResult as InterpolativeResult
    from .lowrank.interpolative import TwoSidedInterpolativeResult as TwoSidedInterpolativeResult
    from .lowrank.interpolative import interpolative as interpolative
    from .lowrank.interpolative import interpolative_two_sided as interpolative_two_sided
    from .lowrank.kernel_functions import KernelMatrix as KernelMatrix
    from .lowrank.leave_one_out import JackknifeResult as JackknifeResult
    from .lowrank.leave_one_out import LeaveOneOutError as LeaveOneOutError
    from .lowrank.leave_one_out import jackknife_nystrom as jackknife_nystrom
    from .lowrank.leave_one_out import jackknife_svd as jackknife_svd
    from .lowrank.leave_one_out import nystrom_error as nystrom_error
    from .lowrank.leave_one_out import range_error as range_error
    from .lowrank.nystrom import nystrom as nystrom
    from .lowrank.projectors import ObliqueProjector as ObliqueProjector
    from .lowrank.projectors import core_matrix as core_matrix
    from .lowrank.psd_solvers import PsdSolveResult as PsdSolveResult
    from .lowrank.psd_solvers import nystrom_preconditioner as nystrom_preconditioner
    from .lowrank.psd_solvers import solve_psd as solve_psd
    from .lowrank.rpcholesky import NystromResult as NystromResult
    from .lowrank.rpcholesky import rpcholesky as rpcholesky
    from .lowrank.selection import ColumnSelection as ColumnSelection
    from .lowrank.selection import select_columns as select_columns
    from .lowrank.two_sided import TwoSidedFactorization as TwoSidedFactorization
    from .lowrank.two_sided import as_two_sided as as_two_sided
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
    from .regression.kernel_ridge import KernelRidgeResult as KernelRidgeResult
    from .regression.kernel_ridge import kernel_ridge as kernel_ridge
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
    from .streaming import CovarianceSketch as CovarianceSketch
    from .streaming import FrequentDirections as FrequentDirections
    from .streaming import FrequentDirectionsRidge as FrequentDirectionsRidge
    from .streaming import StreamingRidgeResult as StreamingRidgeResult
    from .streaming import StreamingSVD as StreamingSVD
    from .structured import GramAccumulator as GramAccumulator
    from .structured import OrthobasisProjector as OrthobasisProjector
    from .structured import PairResult as PairResult
    from .structured import RankChoice as RankChoice
    from .structured import RankSelection as RankSelection
    from .structured import SparseProduct as SparseProduct
    from .structured import WeightedResult as WeightedResult
    from .structured import allocate_ranks as allocate_ranks
    from .structured import choose_rank as choose_rank
    from .structured import compress_pair_cr as compress_pair_cr
    from .structured import compress_pair_nystrom as compress_pair_nystrom
    from .structured import compress_pair_svd as compress_pair_svd
    from .structured import hadamard_projections as hadamard_projections
    from .structured import hierarchical_factorize as hierarchical_factorize
    from .structured import monarch_project as monarch_project
    from .structured import palm4msa as palm4msa
    from .structured import select_ranks as select_ranks
    from .structured import weighted_low_rank as weighted_low_rank
    from .structured import weighted_svd as weighted_svd
    from .traces import DiagonalResult as DiagonalResult
    from .traces import LogdetResult as LogdetResult
    from .traces import NormResult as NormResult
    from .traces import TraceResult as TraceResult
    from .traces import diagonal as diagonal
    from .traces import logdet as logdet
    from .traces import norm_estimate as norm_estimate
    from .traces import row_norms as row_norms
    from .traces import trace as trace
    from .updating import UpdatableSVD as UpdatableSVD

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
    "TwoSidedFactorization": "lowrank.two_sided",
    "as_two_sided": "lowrank.two_sided",
    "core_matrix": "lowrank.projectors",
    "ObliqueProjector": "lowrank.projectors",
    "generalized_nystrom": "lowrank.generalized",
    "nystrom": "lowrank.nystrom",
    "rpcholesky": "lowrank.rpcholesky",
    "NystromResult": "lowrank.rpcholesky",
    "KernelMatrix": "lowrank.kernel_functions",
    "nystrom_preconditioner": "lowrank.psd_solvers",
    "solve_psd": "lowrank.psd_solvers",
    "PsdSolveResult": "lowrank.psd_solvers",
    "select_columns": "lowrank.selection",
    "ColumnSelection": "lowrank.selection",
    "interpolative": "lowrank.interpolative",
    "interpolative_two_sided": "lowrank.interpolative",
    "InterpolativeResult": "lowrank.interpolative",
    "TwoSidedInterpolativeResult": "lowrank.interpolative",
    "cur": "lowrank.cur",
    "CURResult": "lowrank.cur",
    "range_error": "lowrank.leave_one_out",
    "nystrom_error": "lowrank.leave_one_out",
    "jackknife_svd": "lowrank.leave_one_out",
    "jackknife_nystrom": "lowrank.leave_one_out",
    "LeaveOneOutError": "lowrank.leave_one_out",
    "JackknifeResult": "lowrank.leave_one_out",
    "CURScorer": "cur_scoring",
    "adaptive_topk": "cur_scoring",
    "TopItems": "cur_scoring",
    "FrequentDirections": "streaming",
    "FrequentDirectionsRidge": "streaming",
    "StreamingSVD": "streaming",
    "CovarianceSketch": "streaming",
    "StreamingRidgeResult": "streaming",
    "UpdatableSVD": "updating",
    "weighted_svd": "structured",
    "weighted_low_rank": "structured",
    "WeightedResult": "structured",
    "choose_rank": "structured",
    "RankChoice": "structured",
    "select_ranks": "structured",
    "RankSelection": "structured",
    "allocate_ranks": "structured",
    "monarch_project": "structured",
    "palm4msa": "structured",
    "hierarchical_factorize": "structured",
    "hadamard_projections": "structured",
    "SparseProduct": "structured",
    "OrthobasisProjector": "structured",
    "compress_pair_nystrom": "structured",
    "compress_pair_cr": "structured",
    "compress_pair_svd": "structured",
    "PairResult": "structured",
    "GramAccumulator": "structured",
    "trace": "traces",
    "TraceResult": "traces",
    "diagonal": "traces",
    "DiagonalResult": "traces",
    "row_norms": "traces",
    "logdet": "traces",
    "LogdetResult": "traces",
    "norm_estimate": "traces",
    "NormResult": "traces",
    "kernel_ridge": "regression.kernel_ridge",
    "KernelRidgeResult": "regression.kernel_ridge",
    "Nystroem": "estimators",
    "NystromRidge": "estimators",
    "KernelRidgePCG": "estimators",
    "ColumnSubsetSelector": "estimators",
    "IncrementalSVD": "estimators",
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
