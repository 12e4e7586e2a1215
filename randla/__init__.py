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
    from .completion.als import complete as complete
    from .completion.alternating import altmin_completion as altmin_completion
    from .completion.ease import EASEResult as EASEResult
    from .completion.ease import ease as ease
    from .completion.folding import append_cols as append_cols
    from .completion.folding import append_rows as append_rows
    from .completion.folding import fold_in as fold_in
    from .completion.implicit import implicit_als as implicit_als
    from .completion.implicit_model import ImplicitResult as ImplicitResult
    from .completion.moments import PairMoments as PairMoments
    from .completion.onesided import OneSidedResult as OneSidedResult
    from .completion.onesided import one_sided_completion as one_sided_completion
    from .completion.ranking_metrics import RankingScores as RankingScores
    from .completion.ranking_metrics import hold_out_interactions as hold_out_interactions
    from .completion.ranking_metrics import ranking_scores as ranking_scores
    from .completion.ranking_metrics import split_rows as split_rows
    from .completion.results import CompletionResult as CompletionResult
    from .completion.rows import MaskedLstsqResult as MaskedLstsqResult
    from .completion.rows import masked_lstsq as masked_lstsq
    from .completion.selection import ValidationCurve as ValidationCurve
    from .completion.selection import choose_completion_rank as choose_completion_rank
    from .completion.selection import regularization_path as regularization_path
    from .completion.soft_impute import SoftImputeResult as SoftImputeResult
    from .completion.soft_impute import soft_impute as soft_impute
    from .completion.soft_impute_path import SoftImputePath as SoftImputePath
    from .completion.soft_impute_path import soft_impute_path as soft_impute_path
    from .cur_scoring import CURScorer as CURScorer
    from .cur_scoring import TopItems as TopItems
    from .cur_scoring import adaptive_topk as adaptive_topk
    from .estimators import EASE as EASE
    from .estimators import NMF as NMF
    from .estimators import BinaryNMF as BinaryNMF
    from .estimators import ColumnSubsetSelector as ColumnSubsetSelector
    from .estimators import GaussianProjection as GaussianProjection
    from .estimators import ImplicitALS as ImplicitALS
    from .estimators import IncrementalSVD as IncrementalSVD
    from .estimators import KernelRidgePCG as KernelRidgePCG
    from .estimators import LpRegressor as LpRegressor
    from .estimators import MatrixCompletion as MatrixCompletion
    from .estimators import Nystroem as Nystroem
    from .estimators import NystromRidge as NystromRidge
    from .estimators import OneSidedCompletion as OneSidedCompletion
    from .estimators import PolynomialTensorSketch as PolynomialTensorSketch
    from .estimators import RobustNMF as RobustNMF
    from .estimators import RowSampler as RowSampler
    from .estimators import SinkhornTransport as SinkhornTransport
    from .estimators import SketchedLinearRegression as SketchedLinearRegression
    from .estimators import SketchedRidge as SketchedRidge
    from .estimators import SoftImpute as SoftImpute
    from .estimators import SparseSignProjection as SparseSignProjection
    from .estimators import SRHTProjection as SRHTProjection
    from .estimators import StabilitySelector as StabilitySelector
    from .estimators import StructuredNMF as StructuredNMF
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
    from .nonnegative.binary import BinaryNMFResult as BinaryNMFResult
    from .nonnegative.binary import binary_nmf as binary_nmf
    from .nonnegative.distributed import ConsensusNMF as ConsensusNMF
    from .nonnegative.distributed import ConsensusResult as ConsensusResult
    from .nonnegative.encoding import nonneg_codes as nonneg_codes
    from .nonnegative.endmembers import EndmemberMatch as EndmemberMatch
    from .nonnegative.endmembers import abundance_rmse as abundance_rmse
    from .nonnegative.endmembers import match_endmembers as match_endmembers
    from .nonnegative.endmembers import spectral_angle as spectral_angle
    from .nonnegative.identifiability import SSCResult as SSCResult
    from .nonnegative.identifiability import check_ssc as check_ssc
    from .nonnegative.masked import MaskedNMFResult as MaskedNMFResult
    from .nonnegative.masked import masked_nmf as masked_nmf
    from .nonnegative.membership import MembershipResult as MembershipResult
    from .nonnegative.membership import bipartite_mixed_membership as bipartite_mixed_membership
    from .nonnegative.minvol import MinVolResult as MinVolResult
    from .nonnegative.minvol import minvol_nmf as minvol_nmf
    from .nonnegative.online import OnlineNMF as OnlineNMF
    from .nonnegative.online import OnlineNMFResult as OnlineNMFResult
    from .nonnegative.online import minibatch_nmf as minibatch_nmf
    from .nonnegative.rescal import RescalResult as RescalResult
    from .nonnegative.rescal import rescal_nmf as rescal_nmf
    from .nonnegative.results import NMFResult as NMFResult
    from .nonnegative.robust import RobustNMFResult as RobustNMFResult
    from .nonnegative.robust import robust_nmf as robust_nmf
    from .nonnegative.separable import SeparableResult as SeparableResult
    from .nonnegative.separable import snpa as snpa
    from .nonnegative.separable import spa as spa
    from .nonnegative.solvers import nmf as nmf
    from .nonnegative.stability import RankCurve as RankCurve
    from .nonnegative.stability import select_rank as select_rank
    from .nonnegative.structured import StructuredNMFResult as StructuredNMFResult
    from .nonnegative.structured import structured_nmf as structured_nmf
    from .nonnegative.symmetric import SymmetricResult as SymmetricResult
    from .nonnegative.symmetric import symmetric_nmf as symmetric_nmf
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
    from .ratings import Ratings as Ratings
    from .ratings import load_ratings as load_ratings
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
    from .sensing import DenseMeasurements as DenseMeasurements
    from .sensing import EntryMeasurements as EntryMeasurements
    from .sensing import GaussianMeasurements as GaussianMeasurements
    from .sensing import RankOneMeasurements as RankOneMeasurements
    from .sensing import RecoveryResult as RecoveryResult
    from .sensing import factorized_gd as factorized_gd
    from .sensing import subgradient_recovery as subgradient_recovery
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
    from .transport.barycenters import BarycenterResult as BarycenterResult
    from .transport.barycenters import sinkhorn_barycenter as sinkhorn_barycenter
    from .transport.costs import point_cost as point_cost
    from .transport.distances import TransportDistances as TransportDistances
    from .transport.distances import transport_distances as transport_distances
    from .transport.divergence import DivergenceResult as DivergenceResult
    from .transport.divergence import sinkhorn_divergence as sinkhorn_divergence
    from .transport.factors import factor_cost as factor_cost
    from .transport.factors import factor_error as factor_error
    from .transport.factors import nystrom_cost as nystrom_cost
    from .transport.gradients import transport_gradient as transport_gradient
    from .transport.grids import grid_cost as grid_cost
    from .transport.results import TransportPlan as TransportPlan
    from .transport.results import TransportResult as TransportResult
    from .transport.rounding import round_plan as round_plan
    from .transport.sinkhorn import sinkhorn as sinkhorn
    from .transport.unbalanced import UnbalancedResult as UnbalancedResult
    from .transport.unbalanced import sinkhorn_unbalanced as sinkhorn_unbalanced
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
    "load_ratings": "ratings",
    "Ratings": "ratings",
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
    "masked_lstsq": "completion.rows",
    "MaskedLstsqResult": "completion.rows",
    "altmin_completion": "completion.alternating",
    "soft_impute": "completion.soft_impute",
    "SoftImputeResult": "completion.soft_impute",
    "soft_impute_path": "completion.soft_impute_path",
    "SoftImputePath": "completion.soft_impute_path",
    "SoftImpute": "estimators",
    "complete": "completion.als",
    "CompletionResult": "completion.results",
    "fold_in": "completion.folding",
    "append_rows": "completion.folding",
    "append_cols": "completion.folding",
    "choose_completion_rank": "completion.selection",
    "regularization_path": "completion.selection",
    "ValidationCurve": "completion.selection",
    "MatrixCompletion": "estimators",
    "implicit_als": "completion.implicit",
    "ImplicitResult": "completion.implicit_model",
    "ease": "completion.ease",
    "EASEResult": "completion.ease",
    "ranking_scores": "completion.ranking_metrics",
    "RankingScores": "completion.ranking_metrics",
    "hold_out_interactions": "completion.ranking_metrics",
    "split_rows": "completion.ranking_metrics",
    "ImplicitALS": "estimators",
    "EASE": "estimators",
    "one_sided_completion": "completion.onesided",
    "OneSidedResult": "completion.onesided",
    "PairMoments": "completion.moments",
    "OneSidedCompletion": "estimators",
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
    "subgradient_recovery": "sensing",
    "factorized_gd": "sensing",
    "RecoveryResult": "sensing",
    "GaussianMeasurements": "sensing",
    "EntryMeasurements": "sensing",
    "RankOneMeasurements": "sensing",
    "DenseMeasurements": "sensing",
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
    "nmf": "nonnegative.solvers",
    "NMFResult": "nonnegative.results",
    "masked_nmf": "nonnegative.masked",
    "MaskedNMFResult": "nonnegative.masked",
    "nonneg_codes": "nonnegative.encoding",
    "minibatch_nmf": "nonnegative.online",
    "OnlineNMF": "nonnegative.online",
    "OnlineNMFResult": "nonnegative.online",
    "binary_nmf": "nonnegative.binary",
    "BinaryNMFResult": "nonnegative.binary",
    "structured_nmf": "nonnegative.structured",
    "StructuredNMFResult": "nonnegative.structured",
    "robust_nmf": "nonnegative.robust",
    "RobustNMFResult": "nonnegative.robust",
    "spectral_angle": "nonnegative.endmembers",
    "abundance_rmse": "nonnegative.endmembers",
    "match_endmembers": "nonnegative.endmembers",
    "EndmemberMatch": "nonnegative.endmembers",
    "spa": "nonnegative.separable",
    "snpa": "nonnegative.separable",
    "SeparableResult": "nonnegative.separable",
    "minvol_nmf": "nonnegative.minvol",
    "MinVolResult": "nonnegative.minvol",
    "symmetric_nmf": "nonnegative.symmetric",
    "SymmetricResult": "nonnegative.symmetric",
    "rescal_nmf": "nonnegative.rescal",
    "RescalResult": "nonnegative.rescal",
    "select_rank": "nonnegative.stability",
    "RankCurve": "nonnegative.stability",
    "ConsensusNMF": "nonnegative.distributed",
    "ConsensusResult": "nonnegative.distributed",
    "StabilitySelector": "estimators",
    "check_ssc": "nonnegative.identifiability",
    "SSCResult": "nonnegative.identifiability",
    "bipartite_mixed_membership": "nonnegative.membership",
    "MembershipResult": "nonnegative.membership",
    "NMF": "estimators",
    "BinaryNMF": "estimators",
    "StructuredNMF": "estimators",
    "RobustNMF": "estimators",
    "Nystroem": "estimators",
    "NystromRidge": "estimators",
    "KernelRidgePCG": "estimators",
    "ColumnSubsetSelector": "estimators",
    "IncrementalSVD": "estimators",
    "sinkhorn": "transport.sinkhorn",
    "SinkhornTransport": "estimators",
    "TransportDistances": "transport.distances",
    "transport_distances": "transport.distances",
    "point_cost": "transport.costs",
    "round_plan": "transport.rounding",
    "TransportResult": "transport.results",
    "TransportPlan": "transport.results",
    "grid_cost": "transport.grids",
    "sinkhorn_divergence": "transport.divergence",
    "DivergenceResult": "transport.divergence",
    "transport_gradient": "transport.gradients",
    "sinkhorn_unbalanced": "transport.unbalanced",
    "UnbalancedResult": "transport.unbalanced",
    "sinkhorn_barycenter": "transport.barycenters",
    "BarycenterResult": "transport.barycenters",
    "nystrom_cost": "transport.factors",
    "factor_cost": "transport.factors",
    "factor_error": "transport.factors",
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
