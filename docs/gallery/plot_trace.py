"""
Traces with an interval, and what a hundred products buy
========================================================

The trace of a matrix that is known by products only: an inverse, a function of a matrix, a product of many. Means of
quadratic forms converge with the root of their number; methods that first take a low-rank part out follow the tail of
the spectrum. Each comes with an interval, and the interval has to hold.
"""

# %%
# Four spectra of a thousand eigenvalues, from flat to geometric. A diagonal matrix is as good as any other here: the
# test vectors have no preferred directions, and the methods are not told.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

from randla.traces import diagonal, logdet, trace

i = np.arange(1.0, 1001.0)
spectra = {
    "flat, 1 to 3": 1 + 2 * i / 1000,
    "50 ones over 0.001": np.where(i <= 50, 1, 1e-3),
    "1 / i²": i**-2,
    "0.9^i": 0.9**i,
}
methods = {"hutchinson": "0.6", "hutchpp": "C0", "xtrace": "C1", "xnystrace": "C2"}
sizes = [12, 24, 48, 96, 192]

figure, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained", sharex=True)
for axis, (name, values) in zip(axes.flat, spectra.items(), strict=True):
    A, truth = sp.diags_array(values).tocsr(), values.sum()
    for method, color in methods.items():
        results = [[trace(A, size, method=method, rng=seed) for seed in range(9)] for size in sizes]
        error = [np.median([abs(r.estimate - truth) for r in row]) / truth for row in results]
        width = [np.median([r.half_width for r in row]) / truth for row in results]
        axis.loglog(sizes, error, "o-", color=color, label=method)
        axis.loglog(sizes, width, "--", color=color, lw=1)
    axis.set_title(name)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
for axis in axes[1]:
    axis.set_xlabel("products with the matrix")
for axis in axes[:, 0]:
    axis.set_ylabel("relative error (solid), half width (dashed)")
axes[0, 0].legend()

# %%
# The error of one method can lie far below its interval by luck, and for fast decays the interval is wide by design.
# A flat spectrum leaves nothing to take out, and all methods are alike. On the step, ``xtrace`` needs more than 100
# products to see all 50 ones, ``xnystrace`` more than 50. On fast decays the two are worth orders of magnitude.
#
# Does the interval hold? 300 runs at each of three sizes, stated confidence 0.95. The usual interval, two standard
# errors of the leave-one-out estimates, does not.

fast = 0.8 ** np.arange(1, 201)
A, truth = np.diag(fast), fast.sum()
rows = []
for size in (12, 24, 48):
    results = [trace(A, size, method="xnystrace", rng=seed) for seed in range(300)]
    jackknife = np.mean([abs(r.estimate - truth) <= r.half_width for r in results])
    usual = np.mean([abs(r.estimate - truth) <= 2 * r.stderr for r in results])
    rows.append((size, jackknife, usual))
    print(f"{size:3d} products: inside the interval {jackknife:.3f}, inside two standard errors {usual:.3f}")
    assert jackknife >= 0.95

figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
places = np.arange(len(rows))
axis.bar(places - 0.2, [row[1] for row in rows], 0.35, label="interval of the result")
axis.bar(places + 0.2, [row[2] for row in rows], 0.35, label="two standard errors", color="0.7")
axis.axhline(0.95, color="k", lw=1, ls=":")
axis.set_xticks(places, [f"{row[0]} products" for row in rows])
axis.set_ylabel("share of runs with the truth inside")
axis.set_ylim(0, 1.3)
axis.legend(loc="upper center", ncols=2)

# %%
# The diagonal of an inverse, entry by entry, from products with it: variances of a Gaussian process, subgraph
# centralities, leverage scores are of this kind.

n = 400
points = np.sort(np.random.default_rng(0).uniform(0, 1, n))
K = np.exp(-0.5 * ((points[:, None] - points[None, :]) / 0.05) ** 2) + 0.05 * np.eye(n)
posterior = K - 0.05 * np.eye(n) - (K - 0.05 * np.eye(n)) @ np.linalg.solve(K, K - 0.05 * np.eye(n))
posterior = (posterior + posterior.T) / 2
result = diagonal(posterior, 24, method="xnysdiag", rng=0)
low, high = result.interval
exact = np.diag(posterior)
inside = np.mean((low <= exact) & (exact <= high))
print(f"posterior variances: {inside:.1%} of the intervals hold the truth")
assert inside > 0.9

figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
axis.fill_between(points, low, high, color="C2", alpha=0.3, lw=0, label="interval, 95 % for each entry")
axis.plot(points, result.estimate, "C2", lw=1, label="estimate, 24 products")
axis.plot(points, exact, "k:", lw=1, label="truth")
axis.set_xlabel("place")
axis.set_ylabel("posterior variance")
axis.legend()

# %%
# And the log-determinant of a covariance, which a likelihood asks for. The two parts of the error are told apart: the
# probes, and the quadrature.

size = 3000
line = sp.diags_array([-np.ones(size - 1), np.full(size, 2.1), -np.ones(size - 1)], offsets=[-1, 0, 1]).tocsr()
exact = np.sum(np.log(2.1 - 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))))
result = logdet(line, 20, 30, smallest=0.1, rng=0)
print(f"estimate {result.estimate:.1f} ± {result.half_width:.1f}, truth {exact:.1f}")
print(f"of the half width, the quadrature has {result.quadrature_error:.1e}")
assert abs(result.estimate - exact) <= result.half_width
