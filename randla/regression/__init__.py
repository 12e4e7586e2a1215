"""Regression: least squares and l_p regression."""

from __future__ import annotations

from .lp import LpResult, LpStep, lp_regression
from .lstsq import LstsqChoice, choose_lstsq, lstsq
from .results import LstsqResult, LstsqStep

__all__ = [
    "LpResult",
    "LpStep",
    "LstsqChoice",
    "LstsqResult",
    "LstsqStep",
    "choose_lstsq",
    "lp_regression",
    "lstsq",
]
