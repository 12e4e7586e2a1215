"""Streams: states that take in blocks, merge, travel as bytes and say how wrong they are."""

from __future__ import annotations

from .directions import CovarianceSketch, FrequentDirections
from .ridge import FrequentDirectionsRidge, StreamingRidgeResult
from .svd import StreamingSVD

__all__ = ["CovarianceSketch", "FrequentDirections", "FrequentDirectionsRidge", "StreamingRidgeResult", "StreamingSVD"]
