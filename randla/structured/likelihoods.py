"""Two criteria of likelihood for the number of principal components, for all numbers at once."""

from __future__ import annotations

import math

import numpy as np


def description_lengths(variances: np.ndarray, n_samples: int) -> np.ndarray:
    """The description length (Wax and Kailath) of 0, 1, ..., p - 1 components, for descending variances (p,)."""
    p = variances.size
    k = np.arange(p)
    left = p - k
    logs = np.cumsum(np.log(variances)[::-1])[::-1]  # of the variances from k on
    sums = np.cumsum(variances[::-1])[::-1]
    misfit = n_samples / 2 * (left * np.log(sums / left) - logs)
    n_parameters = k * (2 * p - k + 1) / 2  # k variances, and k orthonormal vectors in p dimensions
    return misfit + n_parameters / 2 * math.log(n_samples)


def evidences(variances: np.ndarray, n_samples: int) -> np.ndarray:
    """The logarithm of Minka's evidence (Laplace's approximation) of 0, 1, ..., p - 1 components."""
    from scipy.special import gammaln

    p = variances.size
    k = np.arange(p)
    sums = np.concatenate([np.cumsum(variances[::-1])[::-1], [0.0]])
    noise = np.maximum(sums[:p] / (p - k), np.finfo(float).tiny)
    logs = np.log(variances)
    before = np.concatenate([[0.0], np.cumsum(logs)[:-1]])  # of the first k variances
    i = np.arange(1, p + 1)
    volume = np.concatenate([[0.0], np.cumsum(gammaln((p - i + 1) / 2) - math.log(math.pi) * (p - i + 1) / 2)[:-1]])
    volume = volume - k * math.log(2)
    m = p * k - k * (k + 1) / 2
    curvature = _curvature(variances, noise)
    return (
        volume - n_samples / 2 * (before + np.log(noise) * (p - k)) + math.log(2 * math.pi) * (m + k) / 2
        - (curvature + m * math.log(n_samples)) / 2 - k * math.log(n_samples) / 2
    )  # fmt: skip


def _curvature(variances: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The sum over i < k, j > i of ``log((l_i - l_j) (1 / h_j - 1 / l_i))``, h_j = l_j for j < k, else the noise."""
    p = variances.size
    tiny = np.finfo(float).tiny
    gaps = np.triu(np.log(np.maximum(variances[:, None] - variances[None, :], tiny * variances[0])), 1)
    inverse = np.maximum(1 / variances[None, :] - 1 / variances[:, None], tiny / variances[0])
    inside = np.triu(np.log(inverse), 1)
    rows = np.concatenate([[0.0], np.cumsum(gaps.sum(axis=1))[:-1]])
    squares = np.concatenate([[0.0], np.cumsum(inside.sum(axis=0))[:-1]])  # i < j < k
    outside = np.zeros(p)
    for k in range(1, p):
        with_noise = np.maximum(1 / noise[k] - 1 / variances[:k], tiny / variances[0])
        outside[k] = (p - k) * np.log(with_noise).sum()
    return rows + squares + outside
