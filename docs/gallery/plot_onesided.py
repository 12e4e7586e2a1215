"""
Two entries of each row
=======================

A table with many rows shows two entries of each. Its rows can't be completed, but the second moment of its columns can
be found, and with it the row space: the products of what rows show together have the right mean. Here a smooth
covariance of 60 columns, of rank 4, comes out of 3,000 to 100,000 such rows.
"""

# %%
# The covariance, a sum of four waves over the columns; and rows of which two entries are kept.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import randla

d, rank = 60, 4
position = np.linspace(0, 1, d)[:, None]
V = np.hstack([np.cos(np.pi * k * position) / (1 + 0.5 * k) for k in range(rank)])
Theta = V @ V.T
generator = np.random.default_rng(0)


def two_entries(m):
    """A CSR matrix of m Gaussian rows with this covariance, two entries of each stored."""
    columns = np.sort(np.argpartition(generator.random((m, d)), 2, axis=1)[:, :2], axis=1)
    values = np.einsum("ik,ijk->ij", generator.standard_normal((m, rank)), V[columns])
    return sp.csr_array((values.ravel(), columns.ravel(), np.arange(0, 2 * m + 1, 2)), shape=(m, d))


# %%
# The means of products are known for some pairs only, each from few rows. The fit is not drawn to the missing ones:
# they have no weight.

X = two_entries(3000)
moments = randla.PairMoments(d).update(X)
means, counts = moments.matrices()
fit = randla.one_sided_completion(moments, rank, rng=0)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
seen = np.where(counts > 0, means, np.nan)
pictures = {
    f"means of products, {np.mean(counts > 0):.0%} of the pairs": seen,
    f"fit of rank {rank}, 3,000 rows": fit.second_moment.to_dense(),
    "truth": Theta,
}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    image = axis.imshow(picture, vmin=-2, vmax=2, cmap="RdBu_r")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
figure.colorbar(image, ax=axes, shrink=0.8)

# %%
# More rows: the error of the fit and what the fit says about it, the error of the means cut to rank 4, and the bound.
# The sums are those of the rows before and of the new ones: no row is read twice.

sizes = [3000, 6000, 12_000, 25_000, 50_000, 100_000]
total, done, lines = randla.PairMoments(d), 0, []
for m in sizes:
    total.update(two_entries(m - done))
    done = m
    result = randla.one_sided_completion(total, rank, rng=0)
    means, _ = total.matrices()
    values, vectors = np.linalg.eigh(means)
    plain = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    true, cut = (np.linalg.norm(M - Theta) / np.linalg.norm(Theta) for M in (result.second_moment.to_dense(), plain))
    lines.append((true, result.error, result.error_bound, cut))
    print(f"{m:7d} rows: error {true:.3f}, estimate {result.error:.3f}, bound {result.error_bound:.3f}")

true, estimate, bound, cut = np.transpose(lines)
figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
axis.loglog(sizes, cut, "o:", color="0.5", label="eigenvectors of the means")
axis.loglog(sizes, bound, "--", color="C0", lw=1, label="bound, confidence 0.95")
axis.loglog(sizes, estimate, "s-", color="C1", label="estimated error")
axis.loglog(sizes, true, "o-", color="C0", label="error of the fit")
axis.set_xlabel("rows, two entries each")
axis.set_ylabel("relative error of the second moment")
axis.legend()

# %%
# The error falls with the root of the number of rows, and the estimate with it; the truth is not needed to know where
# one stands.
