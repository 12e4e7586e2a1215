"""Sketch operators: random matrices known by their sizes and a key."""

from .base import SketchOperator, TransposedSketch
from .choose import KINDS, SketchChoice, choose_sketch, sketch, sketch_size_for
from .dense import Gaussian, Rademacher
from .pooled import GaussianPooledHadamard
from .rows import RowSample
from .sparse import LESS, CountSketch, SparseJL, SparseSign
from .tensor import KhatriRao, KroneckerSRHT, TensorSketch, TensorSRHT
from .trigonometric import SRCT, SRHT, BlockSRHT

__all__ = [
    "KINDS", "LESS", "SRCT", "SRHT", "BlockSRHT", "CountSketch", "Gaussian", "GaussianPooledHadamard", "KhatriRao",
    "KroneckerSRHT", "Rademacher", "RowSample", "SketchChoice", "SketchOperator", "SparseJL", "SparseSign",
    "TensorSRHT", "TensorSketch", "TransposedSketch", "choose_sketch", "sketch", "sketch_size_for",
]  # fmt: skip
