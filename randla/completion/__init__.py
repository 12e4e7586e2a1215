"""Models of matrices of which some entries were observed; see the modules for each."""

from __future__ import annotations
