"""
When is a nonnegative factorisation unique?
===========================================

Columns that sum to one lie in a simplex.  If their hull contains the ball that touches every face of it, and touches it
nowhere else, the factorisation of least volume is unique.  Three rows make a picture of it: a triangle and its circle.
"""

# %%
# Six columns, two on each side of the triangle; w says how far from its corners they are.

import matplotlib.pyplot as plt
import numpy as np

import randla


def columns(w):
    H = np.array([[w, 1, 1, w, 0, 0], [1, w, 0, 0, w, 1], [0, 0, w, 1, 1, w]])
    return H / H.sum(axis=0)


corners = np.array([[0.0, 1.0, 0.5], [0.0, 0.0, 3**0.5 / 2]])
centre, radius = corners.mean(axis=1), 3**0.5 / 6
results = {w: randla.check_ssc(columns(w)) for w in (0.3, 0.5, 0.7)}
for w, result in results.items():
    print(f"w = {w}: {result.status}, SSC1 {result.ssc1}, SSC2 {result.ssc2}, value {result.value:.4f}")

# %%
# The certificate is a line: all columns are on one side of it, and it meets the circle.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for axis, (w, result) in zip(axes, results.items(), strict=True):
    points = corners @ columns(w)
    around = points[:, np.argsort(np.arctan2(*(points - centre[:, None])))]
    axis.fill(*corners, facecolor="none", edgecolor="black")
    axis.fill(*around, alpha=0.25, color="tab:blue", label="hull of the columns")
    axis.plot(*points, "o", color="tab:blue")
    axis.add_patch(plt.Circle(centre, radius, facecolor="none", edgecolor="tab:red", linewidth=2))
    if result.certificate is not None:
        y = result.certificate
        ends = [np.array([y[j], -y[i]]) / (y[j] - y[i]) for i, j in ((0, 1), (1, 2), (0, 2)) if y[i] * y[j] < 0]
        pairs = [(i, j) for i, j in ((0, 1), (1, 2), (0, 2)) if y[i] * y[j] < 0]
        line = np.array([corners[:, list(pair)] @ end for pair, end in zip(pairs, ends, strict=True)]).T
        axis.plot(*line, "--", color="tab:orange", linewidth=2, label="certificate")
    axis.set_title(f"w = {w}: {result.status}")
    axis.set_aspect("equal")
    axis.axis("off")
axes[1].legend(loc="lower center", bbox_to_anchor=(0.5, -0.15), fontsize=8)

# %%
# At w = 1/2 the hull touches the circle: SSC1 holds and SSC2 does not.  With w = 0.3 the factorisation of least volume
# is unique although no column is a corner.  Here are mixtures of three parts, none of them pure, in 30 dimensions:
# what does each method take for the parts?

rng = np.random.default_rng(1)
W = rng.random((30, 3)) + 0.2
mixtures = rng.dirichlet(0.4 * np.ones(3), 400).T
mixtures = mixtures[:, mixtures.max(axis=0) < 0.85]
X = W @ mixtures
X = np.maximum(X + 0.002 * rng.standard_normal(X.shape), 0)
found = {
    "least volume": randla.minvol_nmf(X, 3, normalization="h-columns", weight=0.05).W,
    "SNPA (columns of X)": randla.snpa(X, 3).W,
}
figure, axis = plt.subplots(figsize=(6, 5), layout="constrained")
axis.fill(*corners, facecolor="none", edgecolor="black")
axis.plot(*(corners @ mixtures), ".", color="lightgray", label="mixtures")
for (name, parts), marker in zip(found.items(), "*^", strict=True):
    shares = np.linalg.lstsq(W, parts)[0]
    shares = shares / shares.sum(axis=0)
    away = np.abs(shares - np.eye(3)[:, shares.argmax(axis=0)]).sum(axis=0) / 2
    print(f"{name}: at most {away.max():.3f} of a part comes from others")
    axis.plot(*(corners @ shares), marker, markersize=11, label=name)
axis.legend()
axis.set_aspect("equal")
axis.axis("off")
axis.set_title("Parts found, in the triangle of the true ones")

# %%
# Columns of the data can at best be the purest of them.  Least volume goes beyond the data to the corners that their
# sides point to.
