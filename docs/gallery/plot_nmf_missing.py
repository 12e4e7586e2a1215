"""
Nonnegative factors of data with holes
======================================

The absent entries of a table are zeros, or they are unknown, and only you can say which.  For unknown ones
`masked_nmf` fits the known entries and nothing else; the model then says what the others are.
"""

# %%
# Concentrations of five sources at 60 places over 300 days: a product of nonnegative factors, measured with an error of
# 5 %.  Instruments fail, for days on end or for single values, and two entries in five are missing.

import matplotlib.pyplot as plt
import numpy as np

import randla

rng = np.random.default_rng(0)
days = np.arange(300)
seasons = np.stack([np.clip(np.sin(2 * np.pi * (days / period + shift)), 0, None) + 0.05
                    for period, shift in ((300, 0.0), (300, 0.5), (7, 0.2), (30, 0.1), (90, 0.6))])  # fmt: skip
sources = rng.gamma(0.6, size=(60, 5))
truth = sources @ seasons
measured = truth * (1 + 0.05 * rng.standard_normal(truth.shape))
missing = rng.random(truth.shape) < 0.25
for place, start in zip(rng.integers(0, 60, 90), rng.integers(0, 280, 90), strict=True):
    missing[place, start : start + 50] = True
X = np.where(missing, np.nan, measured)
print(f"{missing.mean():.0%} missing")

# %%
# A tenth of the known entries is held out: their error says how far off predictions are, with an interval.  It counts
# the error of the measurements, too, so that it lies above the distance from the truth.

found = randla.masked_nmf(X, 5, validation_fraction=0.1, n_init=5, rng=0)
actual = np.sqrt(np.mean((found.to_dense() - truth)[missing] ** 2))
low, high = found.error_interval
print(f"held out: {found.error:.3f} ({low:.3f} to {high:.3f}); missing entries, against the truth: {actual:.3f}")

# %%
# The same rank after filling the holes with zeros, and with the means of places.

fillings = {
    "zeros": np.where(missing, 0.0, measured),
    "means of places": np.where(missing, np.nanmean(X, axis=1, keepdims=True), measured),
}
models = {name: randla.nmf(filled, 5, init="random", n_init=5, rng=0).to_dense() for name, filled in fillings.items()}
models["nothing (masked)"] = found.to_dense()
for name, model in models.items():
    error = np.sqrt(np.mean((model - truth)[missing] ** 2))
    print(f"filled with {name:<17} error of missing entries {error:.3f}, spread of them {truth[missing].std():.3f}")

figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
for ax, place in zip(axes, np.argsort(-missing.sum(axis=1))[[0, 5]], strict=True):
    ax.plot(days, truth[place], color="lightgray", linewidth=5, label="truth")
    ax.plot(days, X[place], ".", color="black", markersize=4, label="measured")
    for (name, model), colour in zip(models.items(), ("#D55E00", "#E69F00", "#0072B2"), strict=True):
        ax.plot(days, model[place], color=colour, linewidth=1, label=f"filled with {name}")
    ax.set_title(f"place {place}, {missing[place].mean():.0%} missing", fontsize=10)
axes[1].set_xlabel("day")
figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=5, frameon=False, loc="outside upper center")
figure.supylabel("concentration")

# %%
# In a sparse matrix it has to be said what an absent entry is.  `nmf` takes a zero, `masked_nmf` asks.

import scipy.sparse

rows, cols = np.nonzero(~missing)
table = scipy.sparse.csr_array((measured[rows, cols], (rows, cols)), shape=truth.shape)
try:
    randla.masked_nmf(table, 5)
except ValueError as error:
    print(error)
again = randla.masked_nmf(table, 5, absent="missing", validation_fraction=0.1, n_init=5, rng=0)
print("the same as from NaN:", bool(np.allclose(again.to_dense(), found.to_dense())))

# %%
# How much may be missing?  The error of what is missing against the share of it, for entries missing at random.

shares = np.array([0.2, 0.4, 0.6, 0.8, 0.9, 0.95])
curves = {"masked": [], "filled with means": []}
for share in shares:
    gone = rng.random(truth.shape) < share
    seen = np.where(gone, np.nan, measured)
    means = np.nanmean(seen, axis=1, keepdims=True)
    fits = {
        "masked": randla.masked_nmf(seen, 5, alpha_W=0.05, alpha_H=0.05, n_init=3, rng=0, on_failure="ignore"),
        "filled with means": randla.nmf(np.where(gone, means, measured), 5, rng=0),
    }
    for name, fit in fits.items():
        curves[name].append(np.sqrt(np.mean((fit.to_dense() - truth)[gone] ** 2)))
figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
for (name, errors), marker in zip(curves.items(), "os", strict=True):
    ax.plot(100 * shares, errors, marker=marker, label=name)
ax.axhline(truth.std(), linestyle="--", color="gray", label="standard deviation of the entries")
ax.set(xlabel="missing (%)", ylabel="error of missing entries", ylim=(0, 1.4 * truth.std()))
ax.legend(frameon=False)
