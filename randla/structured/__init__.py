"""Weighted and structured approximations: weighted low rank, ranks, Monarch, sparse products, fixed bases, pairs."""

from __future__ import annotations

from . import proj
from .faust import SparseProduct, hadamard_projections, hierarchical_factorize, palm4msa
from .gram import GramAccumulator
from .monarch import MonarchOperator, monarch_project
from .orthobasis import OrthobasisProjector, Rotation
from .pairs import PairResult, compress_pair_cr, compress_pair_nystrom, compress_pair_svd
from .ranks import RankChoice, RankSelection, allocate_ranks, choose_rank, select_ranks
from .weighted import WeightedResult, weighted_low_rank, weighted_svd

__all__ = [
    "GramAccumulator",
    "MonarchOperator",
    "OrthobasisProjector",
    "PairResult",
    "RankChoice",
    "RankSelection",
    "Rotation",
    "SparseProduct",
    "WeightedResult",
    "allocate_ranks",
    "choose_rank",
    "compress_pair_cr",
    "compress_pair_nystrom",
    "compress_pair_svd",
    "hadamard_projections",
    "hierarchical_factorize",
    "monarch_project",
    "palm4msa",
    "proj",
    "select_ranks",
    "weighted_low_rank",
    "weighted_svd",
]
