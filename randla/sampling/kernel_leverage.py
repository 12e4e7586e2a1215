"""Ridge leverage scores of kernel matrices by recursive sampling: few entries, and no factor of the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays import from_host
from .._backend import kernel
from .._checks import check_integer
from .._random import Stream, as_key
from ..lowrank.kernel_functions import as_kernel_matrix
from ..lowrank.pivoting import sample_distinct

BLOCK_ENTRIES = 2**21  # of the columns that are whitened at a time


def kernel_leverage_sample(K: Any, size: int, *, rng: Any = None) -> Any:
    """Sample distinct points with probability proportional to their approximate ridge leverage scores.

    The scores ``(K (K + lambda I)^-1)_ii`` are estimated from a weighted sample of half of the points, whose own comes
    from a sample of a quarter, and so on [1]_; lambda is what the best approximation of a rank below `size` leaves.

    Parameters
    ----------
    K : KernelMatrix, or array of shape (n, n)
        Positive semidefinite.
    size : int, 1 <= size <= n
        Number of points.
    rng : None, int, SeedSequence, Generator or Key
        Source of the order of the points and of the samples.

    Returns
    -------
    int64 array, shape (r,)
        Distinct indices, ascending; fewer than `size` only where fewer points have a positive score.

    Raises
    ------
    ValueError
        If K is not square, or size is out of range.

    Notes
    -----
    Cost: 2 n size entries of K and about 2 n size**2 flops.  The scores are overestimates up to a constant factor with
    high probability when the size is of order k log k for the k that sets lambda; here ``k = size / (4 log(size))``.

    References
    ----------
    .. [1] Musco and Musco, "Recursive sampling for the Nystrom method", NeurIPS 2017, Algorithm 3.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.lowrank.kernel_functions import KernelMatrix
    >>> from randla.sampling.kernel_leverage import kernel_leverage_sample
    >>> X = np.r_[np.zeros((500, 1)), np.linspace(5, 10, 20)[:, None]]  # one heavy point, and twenty others
    >>> chosen = kernel_leverage_sample(KernelMatrix(X, "rbf", gamma=10.0), 15, rng=0)
    >>> bool(np.mean(chosen >= 500) > 0.5)
    True
    """
    K = as_kernel_matrix(K)
    xp, n = K.xp, K.shape[0]
    size = check_integer(size, "size", low=1, high=n)
    key = as_key(rng).fold("kernel_leverage")
    like = xp.empty((0,), dtype=K.dtype, device=K.device)
    order = from_host(np.argsort(kernel("uniforms", np)(key.fold("order"), Stream.SAMPLE, 0, n)), xp, like)
    levels = max(0, math.ceil(math.log2(n / size)))
    target = max(1, math.ceil(size / (4.0 * math.log(size + 1.0))))
    chosen = order[: max(1, n >> levels)]
    weights = xp.ones((chosen.shape[0],), dtype=xp.float64, device=K.device)
    for level in range(levels - 1, 0, -1):
        points = order[: max(1, n >> level)]
        probability = xp.minimum(
            math.log(target + 2.0) * _scores(K, points, chosen, weights, target, xp), xp.ones_like(weights[:1])
        )
        u = from_host(kernel("uniforms", np)(key.fold(level), Stream.SAMPLE, 0, points.shape[0]), xp, like)
        kept = xp.nonzero(xp.astype(u, xp.float64) < probability)[0]
        if kept.shape[0] > 0:
            chosen, weights = xp.take(points, kept, axis=0), 1.0 / xp.take(probability, kept, axis=0)
    scores = _scores(K, order, chosen, weights, target, xp)
    return xp.sort(xp.take(order, sample_distinct(scores, size, key.fold("last")), axis=0))


def _scores(K: Any, points: Any, chosen: Any, weights: Any, target: int, xp: Any) -> Any:
    """Scores of some points from a weighted sample, clipped to [0, 1]."""
    W = xp.astype(K.block(chosen, chosen), xp.float64, copy=False)
    roots = xp.sqrt(weights)
    W = roots[:, None] * (0.5 * (W + W.T)) * roots[None, :]
    values, vectors = xp.linalg.eigh(W)
    values = xp.where(values > 0, values, xp.zeros_like(values))
    tail = float(xp.sum(values[: max(0, values.shape[0] - target)]))
    ridge = max(tail / target, 1e-12 * float(xp.sum(values)), 1e-300)
    # k_i' D^(1/2) (W + ridge)^-1 D^(1/2) k_i is the part of k_ii that the sample explains
    half = roots[:, None] * vectors / xp.sqrt(values + ridge)[None, :]
    diagonal = xp.astype(xp.take(K.diagonal(), points, axis=0), xp.float64)
    explained = []
    step = max(64, BLOCK_ENTRIES // max(1, chosen.shape[0]))
    for lo in range(0, points.shape[0], step):
        rows = xp.astype(K.block(points[lo : min(lo + step, points.shape[0])], chosen), xp.float64, copy=False)
        explained.append(xp.sum(xp.matmul(rows, half) ** 2, axis=1))
    scores = (diagonal - xp.concat(explained)) / ridge
    return xp.minimum(xp.where(scores > 0, scores, xp.zeros_like(scores)), xp.ones_like(scores))
