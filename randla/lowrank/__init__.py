"""Low-rank approximation: randomized SVD, eigendecomposition and range finder, each with its error."""

from .eigh import eigh
from .rangefinder import range_finder
from .results import EighResult, LowRankResult, RangeResult
from .svd import svd

__all__ = ["EighResult", "LowRankResult", "RangeResult", "eigh", "range_finder", "svd"]
