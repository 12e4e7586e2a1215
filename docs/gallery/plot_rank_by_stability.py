"""
How many groups are there?
==========================

Sixty nodes in four overlapping groups have relations of twelve kinds. Perturbed copies of the stack are factorised with
two to seven groups. At the right number all runs find the same groups; with one more, the surplus group is another one
each time. The error alone tells less: beyond the right number it stays where it is, at the level of the noise.
"""

# %%
# Groups are bumps over the nodes, relations are random, and each entry has an error of up to 10 %.

import matplotlib.pyplot as plt
import numpy as np

import randla
from randla.plot import RankStabilityDisplay

generator = np.random.default_rng(4)
n, t, k = 60, 12, 4
groups = np.exp(-0.5 * ((np.arange(n)[:, None] - (np.arange(k) + 0.5) * n / k) / 6) ** 2)
X = groups @ generator.random((t, k, k)) @ groups.T
X *= 1 + 0.1 * (2 * generator.random(X.shape) - 1)

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, slice_ in zip(axes, (0, 1, 2), strict=True):
    axis.imshow(X[slice_], cmap="viridis")
    axis.set(title=f"relation {slice_ + 1}", xticks=[], yticks=[])

# %%
# Eight perturbed copies at each rank. The silhouette of a cluster is near one where the columns of all runs agree.

curve = randla.select_rank(
    X, range(2, 8), model="rescal", n_perturbations=8, noise=0.015, options={"max_iter": 150, "tol": 1e-4}, rng=0
)
for rank, least, error in zip(curve.values, curve.silhouette_min, curve.errors, strict=True):
    print(f"{rank} groups: least silhouette {least:6.3f}, error {error:.3f}")
print("chosen:", curve.chosen)

figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
RankStabilityDisplay.from_result(curve).plot(axis)

# %%
# The medians of the clusters at the rank chosen are the groups; those at one more have a group that no run agrees on.

figure, axes = plt.subplots(2, 1, figsize=(7, 4.6), sharex=True, layout="constrained")
for axis, rank in zip(axes, (curve.chosen, curve.chosen + 1), strict=True):
    place = curve.values.index(rank)
    silhouettes = curve.silhouettes[place]
    for j in np.argsort(curve.parts[place].argmax(axis=0)):
        axis.plot(curve.parts[place][:, j], label=f"{silhouettes[j]:.2f}")
    axis.set(title=f"{rank} groups", ylabel="membership")
    axis.legend(title="silhouette", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
axes[1].set_xlabel("node")
