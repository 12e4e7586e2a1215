"""The customary ways to do the same jobs: SciPy, NumPy, scikit-learn and fbpca, each called as its users call it."""

from __future__ import annotations

from typing import Any, TypeAlias

import fbpca
import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd

BLOCK = 1024  # rows for which NumPy makes normals at a time: the best, or as good, of 512 to 16384 at both sizes

Factors: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def countsketch(A: np.ndarray, sketch_size: int, seed: int = 0) -> np.ndarray:
    """SciPy's CountSketch; builds a CSC matrix and multiplies."""
    return scipy.linalg.clarkson_woodruff_transform(A, sketch_size, seed)


def sparse_sign_matrix(sketch_size: int, n: int, nnz: int, seed: int = 0) -> scipy.sparse.csc_array:
    """A sparse sign matrix with one nonzero of each column in each of `nnz` bands, drawn with NumPy."""
    rng = np.random.default_rng(seed)
    width = sketch_size // nnz
    rows = rng.integers(0, width, (n, nnz), dtype=np.int32) + width * np.arange(nnz, dtype=np.int32)
    values = rng.choice(np.array([-1.0, 1.0]) * nnz**-0.5, n * nnz)
    return scipy.sparse.csc_array((values, rows.reshape(-1), np.arange(0, n * nnz + 1, nnz)), shape=(sketch_size, n))


def sparse_sign(A: np.ndarray, sketch_size: int, nnz: int = 8, seed: int = 0) -> np.ndarray:
    """Sampled with NumPy, multiplied with SciPy."""
    return sparse_sign_matrix(sketch_size, A.shape[0], nnz, seed) @ A


def cosine_transform(A: np.ndarray, sketch_size: int, rounds: int, seed: int = 0) -> np.ndarray:
    """Random signs and SciPy's cosine transform, `rounds` times, then a sample of rows."""
    n, rng = A.shape[0], np.random.default_rng(seed)
    X = A
    for r in range(rounds):
        signs = rng.choice([-1.0, 1.0], (n, 1))
        X = X * signs if r == 0 else np.multiply(X, signs, out=X)
        X = scipy.fft.dct(X, axis=0, norm="ortho", overwrite_x=True)
    return (n / sketch_size) ** 0.5 * X[rng.choice(n, sketch_size, replace=False)]


def gaussian(A: np.ndarray, sketch_size: int, seed: int = 0, block: int = BLOCK) -> np.ndarray:
    """NumPy's normals made block by block beside the product."""
    rng, out = np.random.default_rng(seed), np.zeros((sketch_size, A.shape[1]))
    for lo in range(0, A.shape[0], block):
        part = A[lo : lo + block]
        out += rng.standard_normal((sketch_size, len(part))) @ part
    return out * sketch_size**-0.5


def sklearn_svd(A: Any, rank: int, normalizer: str = "auto", seed: int = 0) -> Factors:
    """scikit-learn's randomized SVD with two power iterations."""
    return randomized_svd(A, rank, n_iter=2, power_iteration_normalizer=normalizer, random_state=seed)


def fbpca_svd(A: Any, rank: int) -> Factors:
    """Facebook's randomized SVD with two power iterations."""
    return fbpca.pca(A, rank, raw=True, n_iter=2)


def arpack_svd(A: Any, rank: int) -> Factors:
    """ARPACK's Lanczos to machine precision."""
    return svds(A, rank, tol=0, random_state=0)
