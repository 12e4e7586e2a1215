"""
Kernel ridge regression: centres, preconditioners and what the errors say
=========================================================================

Three claims, drawn: that randomly pivoted Cholesky picks centres that cover the data where uniform ones miss parts of
it; that the sketched preconditioner (KRILL) needs the same few steps however small the penalty is, where the older one
(FALKON) stalls; and that the error that a fit states bounds the true one.
"""

# %%
# The points: a dense cloud with a thin spiral around it, which holds one point in twenty.

import time

import matplotlib.pyplot as plt
import numpy as np

from randla.estimators import Nystroem
from randla.lowrank.kernel_functions import KernelMatrix
from randla.regression.kernel_ridge import kernel_ridge

rng = np.random.default_rng(0)
angle = np.sqrt(rng.uniform(0.1, 1, 200)) * 5 * np.pi
spiral = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / 4
points = np.concatenate([0.3 * rng.standard_normal((3800, 2)), spiral])

ranks = [10, 20, 40, 80, 120]
missed = {
    how: [Nystroem(gamma=1.0, n_components=k, selection=how, random_state=0).fit(points).error_ for k in ranks]
    for how in ("uniform", "kmeans", "ridge_leverage", "rpcholesky")
}
chosen = {
    how: Nystroem(gamma=1.0, n_components=80, selection=how, random_state=0).fit(points).components_
    for how in ("uniform", "rpcholesky")
}

# %%
# The iterations: 3000 points in three dimensions, 300 centres drawn uniformly, and a penalty that falls to 1e-8. A step
# costs one product with the kernel values and its transpose for each of the preconditioners.

X = rng.standard_normal((3000, 3))
y = np.sin(3 * X.sum(axis=1)) + 0.1 * rng.standard_normal(3000)
K = KernelMatrix(X, "rbf", gamma=0.5)
alphas = (1e-2, 1e-4, 1e-8)
runs = {
    (solver, alpha): kernel_ridge(K, y, alpha, centers=300, solver=solver, max_iter=200, rng=0, on_failure="ignore")
    for solver in ("krill", "falkon")
    for alpha in alphas
}
for (solver, alpha), run in runs.items():
    print(f"{solver:6s} alpha={alpha:.0e}: {run.n_iter:3d} steps, {run.status!r}")

# %%
# The errors: the solution after each tolerance against the one to full accuracy, and what the result says of itself.

centres = runs["krill", 1e-4].centers
exact = K.block(None, centres) @ kernel_ridge(K, y, 1e-4, centers=centres, solver="direct", tol=1e-7).coef
tolerances = 10.0 ** -np.arange(1, 7)
stated, true = [], []
for tol in tolerances:
    run = kernel_ridge(K, y, 1e-4, centers=300, solver="krill", tol=tol, rng=0)
    stated.append(run.error)
    true.append(np.linalg.norm(K.block(None, run.centers) @ run.coef - exact) / np.linalg.norm(y))

# %%
# All four side by side.

figure, axes = plt.subplots(2, 2, figsize=(10.5, 8), layout="constrained")
axes[0, 0].plot(*points.T, ".", ms=1.5, color="0.75")
axes[0, 0].plot(*chosen["uniform"].T, "x", ms=5, color="C1", label="uniform")
axes[0, 0].plot(*chosen["rpcholesky"].T, "o", ms=5, mfc="none", color="C0", label="rpcholesky")
axes[0, 0].set(title="80 centres of 4000 points", aspect="equal")
axes[0, 0].legend(fontsize=8, loc="lower left")
for (how, values), marker in zip(missed.items(), "xvso", strict=True):
    axes[0, 1].semilogy(ranks, values, marker=marker, ms=5, label=how)
axes[0, 1].set(xlabel="centres", ylabel="share of the trace that is missed", title="What the centres miss")
axes[0, 1].legend(fontsize=8)
for (solver, alpha), run in runs.items():
    style, color = ("-" if solver == "krill" else ":"), f"C{alphas.index(alpha)}"
    label = f"{solver}, penalty {alpha:.0e}"
    axes[1, 0].semilogy(range(1, run.n_iter + 1), run.history, style, color=color, label=label)
axes[1, 0].axhline(1e-6, color="0.6", lw=0.8)
axes[1, 0].set(xlabel="steps", ylabel="relative residual", title="Convergence", ylim=(1e-7, 1e2))
axes[1, 0].legend(fontsize=8)
axes[1, 1].loglog(tolerances, stated, "s-", ms=5, label="stated")
axes[1, 1].loglog(tolerances, true, "o-", ms=5, label="true")
axes[1, 1].set(xlabel="tolerance", ylabel="error of the fitted values, relative to y", title="Errors")
axes[1, 1].invert_xaxis()
axes[1, 1].legend(fontsize=8)

# %%
# Uniform centres lie in the cloud and miss the spiral. KRILL takes 25 to 40 steps for all penalties, FALKON more than
# 200 for the small ones. The stated error lies above the true one, by a factor below ten.

assert missed["rpcholesky"][-1] < 0.3 * missed["uniform"][-1]
assert all(runs["krill", alpha].converged and runs["krill", alpha].n_iter < 50 for alpha in alphas)
assert not runs["falkon", 1e-8].converged
assert np.all(np.array(true) <= np.array(stated) + 1e-7)

# %%
# And the time of features for 20,000 points, of which this is one run on the machine that built this page.

import sklearn.kernel_approximation

data = rng.standard_normal((20_000, 20))
for kind in (sklearn.kernel_approximation.Nystroem, Nystroem):
    kind(n_components=500, random_state=0).fit_transform(data[:2000])  # compile first
    began = time.perf_counter()
    kind(n_components=500, random_state=0).fit_transform(data)
    print(f"{kind.__module__.split('.')[0]}: {time.perf_counter() - began:.2f} s")
