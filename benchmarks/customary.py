"""The customary ways to do the same jobs: SciPy, NumPy, scikit-learn and fbpca, each called as its users call it."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import fbpca
import numpy as np
import scipy.fft
import scipy.linalg
import scipy.optimize
import scipy.sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import lsmr, svds
from sklearn.kernel_approximation import PolynomialCountSketch
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


def gels(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """LAPACK's least squares by Householder QR, with the workspace that it asks for."""
    m, n = A.shape
    work, _ = lapack.dgels_lwork(m, n, 1)
    _, x, _ = lapack.dgels(A, b, lwork=int(work))
    return x[:n]


def gelsy(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SciPy's least squares by QR with pivoted columns."""
    return scipy.linalg.lstsq(A, b, lapack_driver="gelsy")[0]


def gelsd(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy's least squares, by the SVD."""
    return np.linalg.lstsq(A, b, rcond=None)[0]


def normal_equations(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares by Cholesky's factorisation of A'A, which squares the condition number."""
    return scipy.linalg.cho_solve(scipy.linalg.cho_factor(A.T @ A), A.T @ b)


def lsmr_solution(A: np.ndarray, b: np.ndarray, tol: float) -> np.ndarray:
    """SciPy's LSMR to a relative tolerance."""
    return lsmr(A, b, atol=tol, btol=tol, conlim=0, maxiter=1000)[0]


def leverage_by_qr(A: np.ndarray) -> np.ndarray:
    """Squared row norms of SciPy's thin Q."""
    Q, _ = scipy.linalg.qr(A, mode="economic", check_finite=False)
    return np.einsum("ij,ij->i", Q, Q)


def leverage_by_gram(A: np.ndarray, block: int = 4096) -> np.ndarray:
    """Row norms of A inv(R), block by block, with R from Cholesky's factorisation of A'A: for well-conditioned A."""
    R = np.linalg.cholesky(A.T @ A).T
    inverse = scipy.linalg.solve_triangular(R, np.eye(len(R)))
    scores = np.empty(len(A))
    for lo in range(0, len(A), block):
        Q = A[lo : lo + block] @ inverse
        scores[lo : lo + block] = np.einsum("ij,ij->i", Q, Q)
    return scores


def absolute_program(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Regression in the sum of absolute values as the textbook's linear program, by HiGHS."""
    m, n = A.shape
    equal = scipy.sparse.hstack([A, scipy.sparse.eye_array(m), -scipy.sparse.eye_array(m)], format="csc")
    cost = np.concatenate([np.zeros(n), np.ones(2 * m)])
    bounds = [(None, None)] * n + [(0, None)] * 2 * m
    return _solved(scipy.optimize.linprog(cost, A_eq=equal, b_eq=b, bounds=bounds))[:n]


def absolute_dual(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same by its dual, max b'y with A'y = 0 and |y| <= 1: n equations in place of m."""
    found = scipy.optimize.linprog(-b, A_eq=A.T, b_eq=np.zeros(A.shape[1]), bounds=(-1, 1))
    _solved(found)
    return -found.eqlin.marginals


def _solved(found: Any) -> np.ndarray:
    if found.status != 0:
        raise RuntimeError(found.message)
    return found.x


def polynomial_sketch(X: np.ndarray, degree: int, n_components: int) -> np.ndarray:
    """scikit-learn's features of the polynomial kernel."""
    return PolynomialCountSketch(degree=degree, n_components=n_components, random_state=0).fit_transform(X)


def interp_decomp(A: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's interpolative decomposition of fixed rank, as indices and coefficients of all columns."""
    from scipy.linalg.interpolative import interp_decomp as decompose

    order, projection = decompose(A, rank, rng=np.random.default_rng(0))
    X = np.empty((rank, A.shape[1]))
    X[:, order[:rank]], X[:, order[rank:]] = np.eye(rank), projection
    return order[:rank], X


def sklearn_nystroem(X: np.ndarray, rank: int) -> np.ndarray:
    """scikit-learn's features of a Gaussian kernel."""
    from sklearn.kernel_approximation import Nystroem

    return Nystroem(gamma=1.0 / X.shape[1], n_components=rank, random_state=0).fit_transform(X)


def sklearn_nmf(X: Any, rank: int, n_iter: int, start: Any, loss: str = "frobenius") -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's coordinate descent, or multiplicative updates for another loss, for a number of iterations."""
    from sklearn.decomposition import NMF

    model = NMF(
        rank, init="custom", solver="cd" if loss == "frobenius" else "mu", beta_loss=loss, max_iter=n_iter, tol=0.0,
        random_state=0,
    )  # fmt: skip
    W, H = (np.array(F) for F in start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was not to converge
        return model.fit_transform(X, W=W, H=H), model.components_
