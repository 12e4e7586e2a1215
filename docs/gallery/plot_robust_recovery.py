"""
Recovery beside gross errors, from starts of different size
===========================================================

A matrix of rank 3 is measured 500 times, a tenth of the numbers is off by a hundred times a normal number, and the
model has rank 20 and could fit almost anything.  The size of the start decides how much of its freedom it uses.
"""

# %%
# Gaussian measurements of a positive semidefinite matrix of order 20.

import matplotlib.pyplot as plt
import numpy as np

import randla

generator = np.random.default_rng(0)
L = generator.standard_normal((20, 3))
X = L @ L.T
A = randla.GaussianMeasurements((20, 20), 500, rng=0)
y = A.apply(X)
wrong = generator.permutation(500)[:50]
y[wrong] += 100 * generator.standard_normal(50)

# %%
# A callback records the error, which only this page knows, beside the median residual, which the method knows.
# Least squares on the same numbers is drawn for comparison.


def recorded(solve, **options):
    """The true error at each step, and the result."""
    errors = []

    def record(step):
        errors.append(np.linalg.norm(step.U @ step.V.T - X) / np.linalg.norm(X))

    result = solve(A, y, callback=record, on_failure="ignore", **options)
    return np.array(errors), result


scales = (1e-1, 1e-2, 1e-3, 1e-6)
runs = {
    scale: recorded(randla.subgradient_recovery, rank=20, structure="psd", init_scale=scale, max_iter=600, tol=1e-8)
    for scale in scales
}
squares, _ = recorded(randla.factorized_gd, rank=3, max_iter=600)
for scale, (errors, result) in runs.items():
    print(f"start {scale:g}: error {errors[-1]:.1e}, told {result.error:.1e}, outliers {result.outlier_share:.3f}")
print(f"least squares of the true rank: error {squares[-1]:.2f}")

# %%
# Full lines are the true error, dotted ones what the result tells of itself.

figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
for colour, (scale, (errors, result)) in zip(("C3", "C1", "C2", "C0"), runs.items(), strict=True):
    axis.semilogy(errors, color=colour, label=f"start {scale:g}")
    axis.semilogy(result.history, color=colour, linestyle=":")
axis.semilogy(squares, color="grey", linestyle="--", label="least squares, rank 3")
axis.set_xlabel("steps")
axis.set_ylabel("relative error (dotted: median residual over median of |y|)")
axis.set_ylim(1e-8, 3)
axis.grid(alpha=0.3)
axis.legend()

# %%
# The smaller the start the later the descent begins, by some steps for each power of ten, and the lower it ends: the
# seventeen directions that are not needed start at that size and grow slowly.  The median residual follows the true
# error within a factor of two, and the fifty wrong numbers are named.  Least squares spreads them over the matrix.

assert all(abs(result.outlier_share - 0.1) < 0.005 for _, result in runs.values())
assert runs[1e-6][0][-1] < runs[1e-3][0][-1] < runs[1e-1][0][-1] < squares[-1]
