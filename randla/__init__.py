"""Randomized numerical linear algebra: sketches and low-rank factorisations that say how wrong they are.

All public names are flat (``randla.svd``, ``randla.SparseSign``) and loaded at first use, so that ``import randla``
costs next to nothing: neither Numba nor SciPy, scikit-learn, CuPy or Dask is imported before something needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; `_HOMES` is what runs
    from . import datasets as datasets
    from . import diagnostics as diagnostics
    from . import plot as plot
    from ._blocks import RowBlocks as RowBlocks
    from ._parallel import threads as threads
    from ._random import Key as Key
    from ._random import as_key as as_key
    from ._results import ConvergenceError as ConvergenceError
    from ._results import ConvergenceWarning as ConvergenceWarning
    from ._results import Status as Status
    from .estimators import GaussianProjection as GaussianProjection
    from .estimators import SparseSignProjection as SparseSignProjection
    from .estimators import SRHTProjection as SRHTProjection
    from .estimators import TruncatedSVD as TruncatedSVD
    from .lowrank import EighResult as EighResult
    from .lowrank import LowRankResult as LowRankResult
    from .lowrank import RangeResult as RangeResult
    from .lowrank import eigh as eigh
    from .lowrank import range_finder as range_finder
    from .lowrank import svd as svd
    from .operators import LESS as LESS
    from .operators import SRCT as SRCT
    from .operators import SRHT as SRHT
    from .operators import BlockSRHT as BlockSRHT
    from .operators import CountSketch as CountSketch
    from .operators import Gaussian as Gaussian
    from .operators import Rademacher as Rademacher
    from .operators import RowSample as RowSample
    from .operators import SketchChoice as SketchChoice
    from .operators import SparseJL as SparseJL
    from .operators import SparseSign as SparseSign
    from .operators import choose_sketch as choose_sketch
    from .operators import sketch as sketch
    from .operators import sketch_size_for as sketch_size_for

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOMES = {
    "Key": "_random",
    "as_key": "_random",
    "threads": "_parallel",
    "RowBlocks": "_blocks",
    "Status": "_results",
    "ConvergenceWarning": "_results",
    "ConvergenceError": "_results",
    "Gaussian": "operators",
    "Rademacher": "operators",
    "SparseJL": "operators",
    "SparseSign": "operators",
    "CountSketch": "operators",
    "LESS": "operators",
    "SRHT": "operators",
    "SRCT": "operators",
    "BlockSRHT": "operators",
    "RowSample": "operators",
    "sketch": "operators",
    "choose_sketch": "operators",
    "SketchChoice": "operators",
    "sketch_size_for": "operators",
    "svd": "lowrank",
    "eigh": "lowrank",
    "range_finder": "lowrank",
    "LowRankResult": "lowrank",
    "EighResult": "lowrank",
    "RangeResult": "lowrank",
    "GaussianProjection": "estimators",
    "SparseSignProjection": "estimators",
    "SRHTProjection": "estimators",
    "TruncatedSVD": "estimators",
}
_SUBMODULES = ("datasets", "diagnostics", "plot")

__all__ = ["__version__", *_SUBMODULES, *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
