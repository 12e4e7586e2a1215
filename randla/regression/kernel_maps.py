"""The rectangle of kernel values between all points and a few centres, read tile by tile or kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from array_api_compat import is_numpy_namespace

from ..linear_maps import DenseMap, LinearMap, _Blocked
from ..lowrank.kernel_functions import KernelMatrix

TILE_ENTRIES = 2**19  # of a tile in memory: 4 MiB, so that its second product finds it in a cache
DEVICE_ENTRIES = 2**24  # the same where a launch costs more than a missed cache


class CentreColumns(_Blocked):
    """The kernel values (n, k) of all points with k centres, computed anew at each read.

    The centres are numbers of points, or with `points` an array (k, d) of their own.  The values are those of the
    kernel's precision, and their products are taken in double precision: the coefficients of smooth kernels are large
    and cancel.
    """

    def __init__(self, K: Any, centers: Any, *, points: bool) -> None:
        super().__init__((K.shape[0], centers.shape[0]), K.xp.float64, K.xp, K.device)
        self.K, self.centers, self.points = K, centers, points
        entries = TILE_ENTRIES if is_numpy_namespace(K.xp) else DEVICE_ENTRIES
        self.step = max(64, entries // max(1, self.shape[1]))

    def _blocks(self, bounded: bool = False) -> Iterator[tuple[int, Any]]:  # noqa: ARG002 - tiles are small
        n = self.shape[0]
        for lo in range(0, n, self.step):
            rows = slice(lo, min(lo + self.step, n))
            tile = self.K.cross(self.centers, rows).T if self.points else self.K.block(rows, self.centers)
            yield lo, self.xp.astype(tile, self.dtype, copy=False)

    def kept(self, limit: int) -> LinearMap:
        """The same values in memory, if they take at most `limit` bytes; else the map itself."""
        if self.shape[0] * self.shape[1] * 8 > limit:
            return self
        out = self.xp.empty(self.shape, dtype=self.dtype, device=self.device)
        for lo, tile in self._blocks():
            out[lo : lo + tile.shape[0], :] = tile
        return DenseMap(out)

    def square(self) -> Any:
        """The kernel matrix (k, k) of the centres in double precision, symmetric to the last bit."""
        xp = self.xp
        if self.points:
            W = matrix_like(self.K, self.centers).block(None, None)
        else:
            W = self.K.block(self.centers, self.centers)
        W = xp.astype(W, xp.float64, copy=False)
        return 0.5 * (W + W.T)


def matrix_like(K: Any, points: Any) -> Any:
    """The kernel matrix of other points with the kernel of K."""
    if isinstance(K, KernelMatrix):
        return KernelMatrix(points, K.kernel, gamma=K.gamma, coef0=K.coef0, degree=K.degree)
    return K.of(points)


class ScaledKernel:
    """``diag(scale) K diag(scale)``: what the kernel matrix of weighted points is."""

    ndim = 2

    def __init__(self, K: Any, scale: Any) -> None:
        self.K, self.scale = K, K.xp.astype(scale, K.dtype)
        self.xp, self.device, self.dtype, self.shape = K.xp, K.device, K.dtype, K.shape

    @property
    def n_entries(self) -> int:
        """Kernel values that were computed so far."""
        return self.K.n_entries

    def diagonal(self) -> Any:
        """The main diagonal, shape (n,)."""
        return self.scale**2 * self.K.diagonal()

    def columns(self, index: Any) -> Any:
        """The columns of the given indices."""
        return self.block(None, index)

    def block(self, rows: Any, columns: Any) -> Any:
        """The entries of the given rows and columns; index arrays, slices, or None for all."""
        return self._part(rows)[:, None] * self.K.block(rows, columns) * self._part(columns)[None, :]

    def matmul(self, V: Any) -> Any:
        """The matrix times V, shape (n,) or (n, p)."""
        scale = self.scale if V.ndim == 1 else self.scale[:, None]
        return scale * self.K.matmul(scale * V)

    matvec = matmat = rmatvec = rmatmat = __matmul__ = matmul

    def _part(self, index: Any) -> Any:
        if index is None or isinstance(index, slice):
            return self.scale if index is None else self.scale[index]
        return self.xp.take(self.scale, self.xp.asarray(index, device=self.device), axis=0)
