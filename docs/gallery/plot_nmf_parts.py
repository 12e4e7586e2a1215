"""
Parts of digits
===============

A nonnegative factorisation adds up and never cancels, so that its parts are pieces of what the rows show.  Here are
strokes of handwritten digits; how many of them; and whether another start finds the same.
"""

# %%
# Sixteen parts of 1,797 digits of 8 x 8 pixels, the brightest pixel of each scaled to one.

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import randla
from randla.plot import ValidationCurveDisplay

X = load_digits().data
result = randla.nmf(X, 16, rng=0)
W, H = result
print(result)


def show(ax, pictures, columns, title):
    """Pictures of 8 x 8 pixels side by side."""
    framed = np.full((len(pictures), 9, 9), np.nan)
    framed[:, :8, :8] = pictures.reshape(-1, 8, 8)
    whole = framed.reshape(-1, columns, 9, 9).transpose(0, 2, 1, 3).reshape(-1, 9 * columns)[:-1, :-1]
    ax.imshow(whole, cmap=mpl.colormaps["gray_r"].with_extremes(bad="#9ecae1"))
    ax.set_title(title)
    ax.axis("off")


figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
show(ax, H / H.max(axis=1, keepdims=True), 8, "16 parts")

# %%
# A digit is a sum of few of them.  Each line has a digit, the four parts that add most to it with their shares of the
# whole, the sum of these four, and the sum of all.

figure, axes = plt.subplots(3, 7, figsize=(8, 3.8), layout="constrained")
for line, number in zip(axes, (3, 5, 9), strict=True):
    shares = W[number] * H.sum(axis=1) / X[number].sum()
    heavy = np.argsort(-shares)[:4]
    titles = ["the digit", *(f"{shares[k]:.0%}" for k in heavy), "these four", "all"]
    pictures = [X[number], *(W[number, k] * H[k] for k in heavy), W[number, heavy] @ H[heavy], W[number] @ H]
    for ax, name, picture in zip(line, titles, pictures, strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set_title(name, fontsize=9)
        ax.axis("off")

# %%
# How many parts?  Entries are held out, factors are fitted to the others, and the error of what was held out tells.
# With too many parts some pixels have more unknowns than data, and the error rises beyond all bounds.

curve = randla.select_rank(
    X, (2, 4, 6, 8, 10, 12), method="holdout", validation_fraction=0.2, n_splits=3, n_init=1,
    options={"max_iter": 60}, rng=0,
)  # fmt: skip
print("chosen:", curve.chosen)
ValidationCurveDisplay.from_result(curve).plot().figure_.set_layout_engine("constrained")

# %%
# The problem has many local optima, and a run finds one of them.  How far above the best of ten random starts are the
# others?  And has the best one the parts of the run above, which had a single start, from singular vectors?  Cosines of
# the best matching parts say so.

several = randla.nmf(X, 16, init="random", n_init=10, rng=0)
spread = np.array(several.start_objectives) / min(several.start_objectives) - 1
print("objectives above the best:", np.sort(spread).round(4))
unit = [F / np.linalg.norm(F, axis=1, keepdims=True) for F in (H, several.H)]
print("cosines of matching parts:", np.sort((unit[0] @ unit[1].T).max(axis=1)).round(2))
