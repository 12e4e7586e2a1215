"""Nonnegative matrix factorisation and its variants; see the modules for each."""

from __future__ import annotations
