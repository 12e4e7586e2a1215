"""Singular value decompositions of tables that grow, change and fade."""

from __future__ import annotations

from .model import UpdatableSVD

__all__ = ["UpdatableSVD"]
