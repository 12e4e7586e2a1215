"""Traces, diagonals, row norms, log-determinants and norms of matrices that are known by products."""

from .diagonal import diagonal, row_norms
from .logdet import LogdetResult, logdet
from .norms import NormResult, norm_estimate
from .results import DiagonalResult, TraceResult
from .trace import trace

__all__ = [
    "DiagonalResult",
    "LogdetResult",
    "NormResult",
    "TraceResult",
    "diagonal",
    "logdet",
    "norm_estimate",
    "row_norms",
    "trace",
]
