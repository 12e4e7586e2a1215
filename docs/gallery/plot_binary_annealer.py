"""
An annealer in the place of the search
======================================

The binary factor of :func:`randla.binary_nmf` is found column by column: the 0/1 vector z with the least ``z.Q z``, a
quadratic unconstrained binary problem.  That is what quantum and simulated annealers take.  ``binary_solver=`` plugs
one in; here a small one in NumPy, and the sampler of ``dwave-samplers`` where that is installed.  Beside them stand the
search, which proves its answers, and descents.
"""

# %%
# A picture in this data set is a sum of some of 12 strokes; of each picture a third of the pixels is missing.

import time

import matplotlib.pyplot as plt
import numpy as np

import randla

side, n_parts, n_pictures = 12, 12, 100
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:side, :side]
strokes = []
for _ in range(n_parts):
    angle, offset = np.pi * rng.random(), side * (rng.random() - 0.5) / 2
    distance = np.cos(angle) * (rows - side / 2) + np.sin(angle) * (columns - side / 2) - offset
    strokes.append(np.exp(-0.5 * (distance / 0.7) ** 2).ravel())
W, H = np.array(strokes).T, (rng.random((n_parts, n_pictures)) < 0.3).astype(float)
X = W @ H + 0.1 * rng.random((side * side, n_pictures))
known = np.where(rng.random(X.shape) < 2 / 3, X, np.nan)

# %%
# Simulated annealing: flips of single entries, taken with probability ``exp(-rise / temperature)``, while the
# temperature falls.  A solver gets the upper triangular Q and returns zeros and ones; a column is changed only if that
# is better.


class Annealer:
    """Metropolis flips at falling temperatures; the best of several reads."""

    def __init__(self, reads=4, sweeps=30, seed=0):
        self.reads, self.sweeps, self.rng = reads, sweeps, np.random.default_rng(seed)

    def __call__(self, Q):
        k, pairs = len(Q), Q + Q.T
        z = self.rng.integers(0, 2, (self.reads, k)).astype(float)
        size = np.abs(Q).sum(axis=1).max()
        for temperature in np.geomspace(size, 1e-3 * size, self.sweeps):
            for i in range(k):
                step = 1 - 2 * z[:, i]
                rise = step * (z @ pairs[:, i] - 2 * Q[i, i] * z[:, i] + Q[i, i])
                taken = self.rng.random(self.reads) < np.exp(-np.maximum(rise, 0) / temperature)
                z[:, i] += np.where(taken, step, 0)
        return z[np.argmin(np.einsum("ri,ij,rj->r", z, Q, z))]


solvers = {"search": "exact", "descents": "descent", "annealer": Annealer()}
try:
    from dwave.samplers import SimulatedAnnealingSampler
except ImportError:
    pass
else:

    def sampler(Q):
        """The best of ten reads of the sampler of dwave-samplers."""
        terms = {(i, j): Q[i, j] for i in range(len(Q)) for j in range(i, len(Q))}
        best = SimulatedAnnealingSampler().sample_qubo(terms, num_reads=10, num_sweeps=200, seed=0).first.sample
        return np.array([best[i] for i in range(len(Q))])

    solvers["dwave-samplers"] = sampler

# %%
# The same start for all of them, and once more the search from the best of five.

randla.binary_nmf(known, n_parts, max_iter=1, rng=0, on_failure="ignore")  # compiles
runs, seconds = {}, {}
for name, solver, n_init in [*((*item, 1) for item in solvers.items()), ("search, 5 starts", "exact", 5)]:
    begin = time.process_time()
    runs[name] = randla.binary_nmf(
        known, n_parts, binary_solver=solver, n_init=n_init, max_iter=8, tol=0.0, rng=0, on_failure="ignore"
    )
    seconds[name] = time.process_time() - begin

hidden = np.isnan(known)
for name, run in runs.items():
    error = np.linalg.norm((run.to_dense() - X)[hidden]) / np.linalg.norm(X[hidden])
    print(f"{name:18} objective {run.objective:8.3f}, {run.n_unproved:3} columns not proved, {seconds[name]:5.2f} s")
    print(f"{'':18} missing pixels off by {error:.3f}")

# %%
# What the search found: strokes, and pictures with their missing pixels filled.

figure, axes = plt.subplots(3, 8, figsize=(9, 3.8), constrained_layout=True)
order = np.argsort(-runs["search, 5 starts"].W.sum(axis=0))
filled = runs["search, 5 starts"].to_dense()
for j in range(8):
    axes[0, j].imshow(runs["search, 5 starts"].W[:, order[j]].reshape(side, side), cmap="magma")
    axes[1, j].imshow(known[:, j].reshape(side, side), cmap="magma", vmin=0, vmax=X.max())
    axes[2, j].imshow(filled[:, j].reshape(side, side), cmap="magma", vmin=0, vmax=X.max())
for axis, title in zip(axes[:, 0], ("parts", "known", "filled"), strict=True):
    axis.set_ylabel(title)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])

# %%
# How the objective falls.  A proof is about the columns for one W; the factorisation as a whole has many minima, which
# is what more starts are for: five of them with the search take a tenth of the time of the annealer's one.  An annealer
# is plugged in where columns are too large for the search.

figure, axis = plt.subplots(figsize=(5, 3), constrained_layout=True)
for (name, run), style in zip(runs.items(), ("-", "--", ":", "-.", "-"), strict=False):
    axis.semilogy(run.history, style, label=name)
axis.set(xlabel="iteration", ylabel="objective")
axis.legend()
plt.show()
