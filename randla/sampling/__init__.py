"""Importance sampling of rows: scores that say which rows matter, and samples drawn by them."""

from __future__ import annotations

from .coordinated import CoordinatedSample, PrioritySampler, ProductResult, ThresholdSampler, estimate_product
from .joins import JoinRegressionResult, JoinResult, join_regression, join_statistics
from .lewis import lewis_weights
from .products import MatmulResult, matmul_approx
from .rows import RowSelection, sample_rows, select_rows
from .scores import leverage_scores, ridge_leverage_scores
from .sensitivities import TotalSensitivity, lp_sensitivities, total_sensitivity
from .streams import StreamingRowSampler

__all__ = [
    "CoordinatedSample",
    "JoinRegressionResult",
    "JoinResult",
    "MatmulResult",
    "PrioritySampler",
    "ProductResult",
    "RowSelection",
    "StreamingRowSampler",
    "ThresholdSampler",
    "TotalSensitivity",
    "estimate_product",
    "join_regression",
    "join_statistics",
    "leverage_scores",
    "lewis_weights",
    "lp_sensitivities",
    "matmul_approx",
    "ridge_leverage_scores",
    "sample_rows",
    "select_rows",
    "total_sensitivity",
]
