"""Entropic optimal transport; see the modules for each part."""

from __future__ import annotations
