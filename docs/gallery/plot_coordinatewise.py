"""
Errors of single coordinates
============================

Two sketches may give least-squares solutions with errors of the same length and yet differ in what happens to single
coordinates: a dense sketch spreads its error over all of them, a sparse one may put it into one. Here is the instance
that tells them apart, and what it says about a theorem.
"""

# %%
# A has the d unit vectors as its columns, and b lives in k = m / d rows below them, where m is the sketch size. So the
# solution is zero and every entry of a sketched solution is an error. The d rows of the identity and the k rows of b
# are the only ones that count: a sketch with one nonzero in each column confuses two of them in most draws.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import randla
from randla.operators import GaussianPooledHadamard

d, m, n = 128, 1024, 4096
k = m // d
A = sp.eye_array(n, d, format="csr")
b = np.zeros(n)
b[d : d + k] = k**-0.5

operators = {
    "Gaussian": lambda key: randla.Gaussian(m, n, rng=key),
    "pooled Hadamard": lambda key: GaussianPooledHadamard(m, n, rng=key),
    "SRHT": lambda key: randla.SRHT(m, n, rng=key),
    "SparseSign, nnz=8": lambda key: randla.SparseSign(m, n, nnz=8, rng=key),
    "SparseSign, nnz=2": lambda key: randla.SparseSign(m, n, nnz=2, rng=key),
    "CountSketch": lambda key: randla.CountSketch(m, n, rng=key),
}

# %%
# Sketch and solve, thirty times each: the length of the error, and its largest entry.


def errors(make, draws=30):
    """Length and largest entry of the sketched solution, one row for each key."""
    found = []
    for key in range(draws):
        S = make(key)
        x = np.linalg.lstsq(S @ A, S @ b)[0]
        found.append((np.linalg.norm(x), np.abs(x).max()))
    return np.array(found)


measured = {name: errors(make) for name, make in operators.items()}
for name, found in measured.items():
    print(f"{name:18s} median length {np.median(found[:, 0]):.3f}, median largest entry {np.median(found[:, 1]):.3f}")

# %%
# The grey line is sqrt(2 log(2d) / m), the largest of d normal errors of variance 1 / m, and the dashed ones are the
# multiples of 1 / sqrt(k): what a collision of a row of b with one or two columns of A costs.

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
law, collision = np.sqrt(2 * np.log(2 * d) / m), k**-0.5
axis.axvline(law, color="0.75", lw=7)
for cost in (collision, collision / 2):
    axis.axvline(cost, color="0.6", ls="--", lw=1)
shift = np.random.default_rng(0).uniform(-0.25, 0.25, 30)
for row, found in enumerate(measured.values()):
    axis.plot(found[:, 1], row + shift, "o", ms=4, alpha=0.6, color=f"C{row}")
axis.set_yticks(range(len(measured)), measured)
axis.invert_yaxis()
axis.set_xlim(left=0)
axis.set_xlabel("largest error of a coordinate, 30 keys each")

# %%
# The three dense sketches stay near the line. With two nonzeros per column a collision costs half as much as with one,
# and is as likely twice over. What is proved for which of the dense ones is told in :doc:`/coordinatewise`.

for name in ("Gaussian", "pooled Hadamard", "SRHT"):
    assert np.median(measured[name][:, 1]) < 1.3 * law
assert np.mean(measured["CountSketch"][:, 1] > 0.9 * collision) > 0.3
