"""Five folds of MovieLens 100K where RANDLA_ML100K names its file `u.data`, which may not be redistributed."""

from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.sparse as sp

from randla import MatrixCompletion, complete, datasets, load_ratings, regularization_path

from .conftest import skip

REGS = (0.3, 0.2, 0.14, 0.1, 0.07, 0.05)


def five_fold_rmse(ratings: sp.csr_array, rank: int, seed: int) -> float:
    """Root mean square error over five folds, with the ridge chosen inside the first one."""
    entries = ratings.tocoo()
    rows, cols = entries.coords
    fold = np.random.default_rng(seed).permutation(ratings.nnz) % 5
    squares, model = [], None
    for held in range(5):
        fitted = fold != held
        X = sp.csr_array((entries.data[fitted], (rows[fitted], cols[fitted])), shape=ratings.shape)
        if model is None:
            curve = regularization_path(X, rank, REGS, rule="least", rng=0, on_failure="ignore")
            model = MatrixCompletion(rank, reg=curve.chosen, max_iter=50, random_state=0)
        errors = model.fit(X).predict(rows[~fitted], cols[~fitted]) - entries.data[~fitted]
        squares.append(errors**2)
    return float(np.sqrt(np.mean(np.concatenate(squares))))


@pytest.mark.slow
def test_movielens_100k() -> None:
    """The biased matrix factorisation of Surprise has 0.934 (its README)."""
    path = os.environ.get("RANDLA_ML100K", "")
    if not os.path.isfile(path):
        skip("ml100k")
    assert five_fold_rmse(load_ratings(path).matrix, 20, seed=0) <= 0.935


@pytest.mark.slow
def test_the_same_folds_on_synthetic_ratings() -> None:
    """Synthetic, of the same shape: between the noise floor and three quarters of the way to biases alone."""
    made = datasets.synthetic_ratings(943, 1682, 100_000, rank=4, noise=0.5, rng=0)
    X, floor = made.ratings.astype(np.float64), made.noise_floor()
    biases = complete(X, 0, reg=0.01, rng=0)
    rows = np.repeat(np.arange(943), np.diff(X.indptr))
    above = float(np.sqrt(np.mean((biases.predict(rows, X.indices) - X.data) ** 2)))
    assert floor < five_fold_rmse(X, 4, seed=0) < floor + 0.75 * (above - floor)
