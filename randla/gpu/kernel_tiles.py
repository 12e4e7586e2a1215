"""Tiles of kernel matrices on the GPU: products in cuBLAS, which one kernel turns into kernel values in place."""

from __future__ import annotations

from ._compile import launch


def kernel_tile(name, X, Y, gamma, coef0, degree):
    """Kernel of the rows of X (m, d) with those of Y (n, d), both float32 or float64; (m, n), C-ordered.

    "linear", "polynomial", "rbf", "laplacian", "matern32" or "matern52" as in `randla.kernels.reference`.
    """
    import cupy

    X, Y = cupy.ascontiguousarray(X), cupy.ascontiguousarray(Y)
    (m, d), n, dtype = X.shape, len(Y), X.dtype
    if name == "laplacian":
        out = cupy.empty((m, n), dtype)
        launch("kernel_tiles", "laplacian_tile", out.size, n, d, cupy.float64(gamma), X, Y, out, dtype=dtype)
        return out
    out = cupy.ascontiguousarray(X @ Y.T)
    if name == "polynomial":
        launch("kernel_tiles", "power", out.size, degree, cupy.float64(gamma), cupy.float64(coef0), out, dtype=dtype)
    elif name != "linear":
        kind, factor = {"rbf": (0, gamma), "matern32": (1, 3.0 * gamma**2), "matern52": (2, 5.0 * gamma**2)}[name]
        x, y = (cupy.ascontiguousarray(factor * (Z * Z).sum(axis=1), dtype=dtype) for Z in (X, Y))
        launch("kernel_tiles", "radial", out.size, n, kind, cupy.float64(2.0 * factor), x, y, out, dtype=dtype)
    return out
