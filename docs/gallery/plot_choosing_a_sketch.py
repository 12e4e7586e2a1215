"""
Distortion against sketch size
==============================

A sketch is good when it keeps the lengths of all vectors of a subspace. Here is how far the singular values of
S @ U stray from 1, for orthonormal bases U of two kinds: a random one, on which every operator behaves as
a Gaussian does, and columns of the identity, on which operators that mix little lose directions altogether.
"""

# %%
# The two bases have 50 columns in 4096 rows. Both are orthonormal, so a perfect sketch would have all singular values
# equal to 1.

import matplotlib.pyplot as plt
import numpy as np

import randla

m, n = 4096, 50
haar = np.linalg.qr(np.random.default_rng(0).normal(size=(m, n)))[0]
coherent = np.eye(m, n)

# %%
# The worst largest and smallest singular value over five keys, for sketch sizes from 2n to 16n.

operators = {
    "Gaussian": lambda d, key: randla.Gaussian(d, m, rng=key),
    "SparseSign, nnz=8": lambda d, key: randla.SparseSign(d, m, nnz=8, rng=key),
    "CountSketch": lambda d, key: randla.CountSketch(d, m, rng=key),
    "SRHT, two rounds": lambda d, key: randla.SRHT(d, m, rounds=2, rng=key),
    "SRCT, one round": lambda d, key: randla.SRCT(d, m, rounds=1, rng=key),
}
factors = np.array([2, 4, 8, 16])


def extremes(make, U):
    """Worst largest and smallest singular values of S @ U over five keys, one pair for each sketch size."""
    worst = []
    for factor in factors:
        s = [np.linalg.svd(make(factor * n, key) @ U, compute_uv=False) for key in range(5)]
        worst.append((max(values[0] for values in s), min(values[-1] for values in s)))
    return np.array(worst)


measured = {
    (name, kind): extremes(make, U)
    for name, make in operators.items()
    for kind, U in (("random basis", haar), ("columns of the identity", coherent))
}

# %%
# The grey lines are 1 ± sqrt(n / d), the law for Gaussians.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
for axis, kind in zip(axes, ("random basis", "columns of the identity"), strict=True):
    law = np.sqrt(1 / factors)
    axis.plot(factors, 1 + law, color="0.75", lw=7)
    axis.plot(factors, 1 - law, color="0.75", lw=7)
    for color, (name, marker) in enumerate(zip(operators, "os^Dv", strict=True)):
        values = measured[name, kind]
        axis.plot(factors, values[:, 0], marker, ls="-", lw=1, color=f"C{color}", ms=5, label=name)
        axis.plot(factors, values[:, 1], marker, ls="-", lw=1, color=f"C{color}", ms=5)
    axis.set_xscale("log", base=2)
    axis.set_xticks(factors, [f"{factor}n" for factor in factors])
    axis.set_title(kind)
    axis.set_xlabel("sketch size")
axes[0].set_ylabel("worst singular values of SU")
axes[0].legend(loc="center left")

# %%
# On the random basis the lines lie on each other. On columns of the identity, CountSketch loses a direction whenever
# two of the fifty rows meet in one bucket: its smallest singular value is zero. One round of a cosine transform comes
# close to losing one at 2n. Eight nonzeros per column, or a second round, repair this, and so they are the defaults.

lost = measured["CountSketch", "columns of the identity"][:2, 1]
close = measured["SRCT, one round", "columns of the identity"][0, 1]
kept = measured["SparseSign, nnz=8", "columns of the identity"][:, 1]
print("CountSketch, smallest singular value at 2n and 4n:", lost.round(3))
print("SparseSign with nnz=8, at 2n to 16n:", kept.round(3))
assert np.all(lost < 1e-12)
assert close < 0.2 < kept.min()
