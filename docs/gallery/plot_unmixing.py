"""
Materials of a spectral image, with bands that are worthless
============================================================

A synthetic image of 120 bands and 40 x 40 pixels shows four materials.  In 20 bands there is three times as much noise
as signal.  Plain unmixing takes the noisiest pixels for materials; :func:`randla.robust_nmf` finds which bands to leave
out.
"""

# %%
# The image and its truth.

import matplotlib.pyplot as plt
import numpy as np

import randla
from randla import datasets

cube = datasets.spectral_cube(120, (40, 40), 4, snr=25, n_bad_bands=20, bad_noise=3.0, rng=0)
good = np.setdiff1d(np.arange(120), cube.bad_bands)
print(cube)

# %%
# Both factorisations, their endmembers matched with the true ones by the spectral angle on the good bands.

runs = {
    "structured_nmf": randla.structured_nmf(cube.X, 4, max_iter=100, on_failure="ignore"),
    "robust_nmf": randla.robust_nmf(cube.X, 4, sum_to_one=5.0, max_iter=100, on_failure="ignore"),
}
orders = {}
for name, run in runs.items():
    orders[name], angles = randla.match_endmembers(cube.endmembers[good], run.W[good])
    error = randla.abundance_rmse(cube.abundances, run.H, orders[name])
    print(f"{name:15} mean spectral angle {angles.mean():.3f}   abundances off by {error:.3f}")

# %%
# Abundances: the truth above, then what both found.

figure, axes = plt.subplots(3, 4, figsize=(8, 6), constrained_layout=True)
pictures = {"truth": cube.abundances} | {name: run.H[orders[name]] for name, run in runs.items()}
for row, (name, maps) in zip(axes, pictures.items(), strict=True):
    for axis, image in zip(row, maps.reshape(4, 40, 40), strict=True):
        axis.imshow(image, vmin=0, vmax=1, cmap="viridis")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# Weights of the bands, and the spectra that were found on the good ones.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
left.plot(runs["robust_nmf"].weights, "k.", ms=4)
left.plot(cube.bad_bands, runs["robust_nmf"].weights[cube.bad_bands], "rx", label="bad bands")
left.set(xlabel="band", ylabel="weight")
left.legend()
found = runs["robust_nmf"].W[:, orders["robust_nmf"]]
for k in range(4):
    (line,) = right.plot(cube.endmembers[:, k], lw=1)
    right.plot(good, found[good, k], ".", ms=3, color=line.get_color())
right.set(xlabel="band", ylabel="reflectance", title="spectra: lines true, dots found")
plt.show()
