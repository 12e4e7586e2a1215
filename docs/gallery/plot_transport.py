"""
Colours of one photograph on another, by optimal transport
==========================================================

A photograph is a cloud of colours.  :class:`randla.SinkhornTransport` moves one cloud onto the other at least squared
change, and its map then recolours every pixel, fitted or not.  No matrix of costs is stored at any time.
"""

# %%
# Two photographs, every third row and column, and their colours gathered into cells of the cube: a mean colour and a
# number of pixels for each.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import randla
from randla.plot import ConvergenceDisplay, PlanDisplay

temple, flower = (load_sample_image(name)[::3, ::3] / 255 for name in ("china.jpg", "flower.jpg"))


def gathered(image, levels=16):
    pixels = image.reshape(-1, 3)
    cells = np.minimum((pixels * levels).astype(int), levels - 1) @ [levels**2, levels, 1]
    _, where, counts = np.unique(cells, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(where, pixels[:, channel]) for channel in range(3)], axis=1)
    return sums / counts[:, None], counts


(X, a), (Y, b) = gathered(temple), gathered(flower)
print(f"{len(X)} and {len(Y)} colours for {temple.shape[0] * temple.shape[1]:,} pixels each")

# %%
# The fit, and the map of all pixels in both directions.

begin = time.perf_counter()
model = randla.SinkhornTransport(1e-3, tol=1e-6).fit(X, Y=Y, sample_weight=a, target_weight=b)
there = model.transform(temple.reshape(-1, 3)).reshape(temple.shape)
back = model.inverse_transform(flower.reshape(-1, 3)).reshape(flower.shape)
print(f"{time.perf_counter() - begin:.1f} s, {model.n_iter_} steps, marginal error {model.marginal_error_:.0e}")

figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), constrained_layout=True)
for axis, image in zip(axes.ravel(), (temple, flower, there, back), strict=True):
    axis.imshow(np.clip(image, 0, 1))
    axis.axis("off")

# %%
# How sweeps and Newton steps reach a marginal error of 1e-9 at a smaller regularisation (markers: Newton steps).

rng = np.random.default_rng(0)
points = rng.random((300, 2))
targets = rng.random((300, 2)) + np.array([0.9, 0.3])
cost = randla.point_cost(points, targets)
figure, axis = plt.subplots(figsize=(6, 3.6), constrained_layout=True)
options = {"relative": True, "max_iter": 300, "on_failure": "ignore"}
for method in ("log", "newton"):
    clock = [time.perf_counter()]
    result = randla.sinkhorn(
        None,
        None,
        cost,
        3e-4,
        method=method,
        callback=lambda _, clock=clock: clock.append(time.perf_counter()),
        **options,
    )
    seconds = np.array(clock[1:]) - clock[0]
    ConvergenceDisplay.from_result(result, seconds=seconds, label=method).plot(axis)

# %%
# The plan as lines between points: the thousand largest masses.

PlanDisplay.from_result(result, X=points, Y=targets).plot()
plt.show()
