"""How long does a sketch take, and how far does it bend the geometry?"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

import randla
from randla import kernels
from randla._random import Stream

from . import customary
from .common import FULL, OVERSAMPLING, Pinned, distortion, tall_matrix

SHAPES = list(FULL.tall)
OPERATORS = {
    "countsketch": randla.CountSketch,
    "sparse-sign": randla.SparseSign,
    "less": randla.LESS,
    "srht": randla.SRHT,
    "srct": randla.SRCT,
    "block-srht": lambda sketch_size, n, rng: randla.BlockSRHT(sketch_size, n, block_size=4096, rng=rng),
    "gaussian": randla.Gaussian,
    "rademacher": randla.Rademacher,
}
CUSTOMARY = {
    "scipy clarkson_woodruff_transform": customary.countsketch,
    "numpy sampling, scipy csc product": customary.sparse_sign,
    "scipy dct, 2 rounds": lambda A, sketch_size: customary.cosine_transform(A, sketch_size, 2),
    "numpy normals by blocks": customary.gaussian,
}


def _on(backend: str, A: np.ndarray) -> Any:
    """A in the memory of the backend; skips where the backend is not there."""
    if backend == "numpy":
        return A
    try:
        cupy = import_module("cupy")
        cupy.cuda.runtime.getDeviceCount()
    except Exception as reason:
        raise NotImplementedError(f"no CUDA device: {reason}") from reason
    return cupy.asarray(A)


class TallSketch(Pinned):
    """``S @ A`` for a tall, coherent A."""

    params = (SHAPES, [2, OVERSAMPLING], list(OPERATORS), ["float32", "float64"], ["numpy", "cupy"])
    param_names = ("shape", "rows_per_column", "operator", "dtype", "backend")

    def setup(self, shape: tuple[int, int], ratio: int, operator: str, dtype: str, backend: str) -> None:
        self.A = _on(backend, tall_matrix(*shape, dtype))
        self.pin()
        self.S = OPERATORS[operator](ratio * shape[1], shape[0], rng=0)
        self._apply()

    def _apply(self) -> Any:
        product = self.S @ self.A
        if not isinstance(product, np.ndarray):
            import_module("cupy").cuda.get_current_stream().synchronize()  # a launch is not a result
        return product

    def time_apply(self, *parameters: Any) -> None:
        self._apply()

    def peakmem_apply(self, *parameters: Any) -> None:
        self._apply()

    def track_error_apply(self, shape: tuple[int, int], ratio: int, operator: str, dtype: str, backend: str) -> float:
        product = self._apply()
        product = product if isinstance(product, np.ndarray) else product.get()
        return distortion(tall_matrix(*shape, dtype))(product)

    track_error_apply.unit = "max |sigma(S U) - 1|"


class CustomarySketch(Pinned):
    """The baseline: the same jobs with SciPy and NumPy."""

    params = (SHAPES, list(CUSTOMARY))
    param_names = ("shape", "method")

    def setup(self, shape: tuple[int, int], method: str) -> None:
        self.pin()
        self.A, self.sketch_size = tall_matrix(*shape), OVERSAMPLING * shape[1]
        self.time_apply(shape, method)

    def time_apply(self, shape: tuple[int, int], method: str) -> None:
        CUSTOMARY[method](self.A, self.sketch_size)

    def peakmem_apply(self, shape: tuple[int, int], method: str) -> None:
        CUSTOMARY[method](self.A, self.sketch_size)

    def track_error_apply(self, shape: tuple[int, int], method: str) -> float:
        return distortion(self.A)(CUSTOMARY[method](self.A, self.sketch_size))

    track_error_apply.unit = "max |sigma(S U) - 1|"


class SketchThreads(Pinned):
    """What threads bring to ``S @ A`` and to the adjoint."""

    params = (SHAPES, ["countsketch", "sparse-sign", "srht", "gaussian"], [1, 2, 4])
    param_names = ("shape", "operator", "threads")

    def setup(self, shape: tuple[int, int], operator: str, n_threads: int) -> None:
        self.pin(n_threads)
        self.A = tall_matrix(*shape)
        self.S = OPERATORS[operator](OVERSAMPLING * shape[1], shape[0], rng=0)
        self.Y = self.S @ self.A
        _ = self.S.T @ self.Y

    def time_apply(self, *parameters: Any) -> None:
        _ = self.S @ self.A

    def track_error_apply(self, *parameters: Any) -> float:
        return distortion(self.A)(self.S @ self.A)

    track_error_apply.unit = "max |sigma(S U) - 1|"

    def time_adjoint(self, *parameters: Any) -> None:
        _ = self.S.T @ self.Y

    def track_error_adjoint(self, *parameters: Any) -> float:
        # <S A, Y> and <A, S.T Y> are one number
        left, right = float(np.vdot(self.Y, self.Y)), float(np.vdot(self.A, self.S.T @ self.Y))
        return abs(left - right) / left

    track_error_adjoint.unit = "relative difference of <S A, Y> and <A, S.T Y>"


class Words(Pinned):
    """Philox in bulk, and the table of a sparse sign sketch."""

    params = ([2**20, 2**24],)
    param_names = ("words",)

    def setup(self, n_words: int) -> None:
        self.pin()
        self.key = randla.as_key(0)
        self._words(n_words)
        self._table(n_words)

    def _words(self, n_words: int) -> np.ndarray:
        return kernels.philox_words(self.key, Stream.SPARSE_SIGN, 0, n_words // 4, 1)

    def _table(self, n_words: int) -> np.ndarray:
        return kernels.sparse_sign_table(self.key, 0, n_words // 8, 8, 256)

    def time_words(self, n_words: int) -> None:
        self._words(n_words)

    def track_error_words(self, n_words: int) -> int:
        expected = kernels.reference.philox_words(self.key, Stream.SPARSE_SIGN, 0, 1024, 1)
        return int(np.sum(self._words(n_words)[:1024] != expected))

    track_error_words.unit = "wrong words"

    def time_table(self, n_words: int) -> None:
        self._table(n_words)

    def track_error_table(self, n_words: int) -> int:
        expected = kernels.reference.sparse_sign_table(self.key, 0, 1024, 8, 256)
        return int(np.sum(self._table(n_words)[:1024] != expected))

    track_error_table.unit = "wrong entries"
