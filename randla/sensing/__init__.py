"""Low-rank matrices from linear measurements: robust recovery by subgradients, and descent on two factors."""

from .base import Measurements
from .descent import DescentStep, factorized_gd
from .measurements import (
    DenseMeasurements,
    EntryMeasurements,
    GaussianMeasurements,
    RankOneMeasurements,
)
from .results import RecoveryResult
from .subgradient import SubgradientStep, subgradient_recovery

__all__ = [
    "DenseMeasurements",
    "DescentStep",
    "EntryMeasurements",
    "GaussianMeasurements",
    "Measurements",
    "RankOneMeasurements",
    "RecoveryResult",
    "SubgradientStep",
    "factorized_gd",
    "subgradient_recovery",
]
