"""
Searching for tables that explain a column
==========================================

A table has a target column, and somewhere there are many other tables, each with keys that overlap in part with its
own.  Which of them, joined by key, would explain the target?  Joining them all answers it, at the price of moving them
all.  Here every owner makes one sample of some hundred rows, without having seen the others, and the samples alone
answer it.
"""

# %%
# A table of 20,000 places with a target, and 40 tables of other sources.  Each has its own share of the places, and a
# column that goes with the target more or less; the first three follow its causes closely.

import matplotlib.pyplot as plt
import numpy as np

from randla.sampling import CoordinatedSample, PrioritySampler, join_regression, join_statistics

generator = np.random.default_rng(1)
places = np.array([f"place {number}" for number in range(40_000)])
causes = generator.standard_normal((40_000, 3)) * generator.lognormal(sigma=0.4, size=(40_000, 1))
target_places = generator.choice(40_000, 20_000, replace=False)
target = causes[target_places] @ [1.5, -1.0, 0.5] + generator.standard_normal(20_000)

tables = []
for number in range(40):
    rows = generator.choice(40_000, generator.integers(4_000, 20_000), replace=False)
    strength = 0.9 if number < 3 else generator.uniform(0, 0.5)
    column = strength * causes[rows, number % 3] + (1 - strength) * 2 * generator.standard_normal(len(rows))
    tables.append((rows, column))

# %%
# Everybody uses the same key, 0 here.  ``weight="moments"`` makes a joint sample that serves counts, sums and squares.
# What travels is bytes: some kilobytes for each table.

sampler = PrioritySampler(400, weight="moments", rng=0)
sample = sampler.sketch(target, keys=places[target_places])
catalogue = [sampler.sketch(column, keys=places[rows]).to_bytes() for rows, column in tables]
print(f"{len(catalogue)} tables, {np.mean([len(data) for data in catalogue]) / 1024:.1f} KiB each on average")

joins = [join_statistics(sample, CoordinatedSample.from_bytes(data)) for data in catalogue]


def true_correlation(rows, column):
    """Size of the join and correlation over it, from the whole tables."""
    common, mine, theirs = np.intersect1d(target_places, rows, return_indices=True)
    return len(common), np.corrcoef(target[mine], column[theirs])[0, 1]


truth = np.array([true_correlation(rows, column) for rows, column in tables])
order = np.argsort(truth[:, 1])
estimates = np.array([float(join.correlation) for join in joins])
errors = np.array([float(join.correlation_error) for join in joins])
figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
axes[0].errorbar(np.arange(40), estimates[order], 2 * errors[order], fmt="o", ms=4, capsize=2, label="from samples")
axes[0].plot(truth[order, 1], "k_", ms=9, label="whole join")
axes[0].set_xlabel("table, by its true correlation")
axes[0].set_ylabel("correlation with the target, +- 2 standard errors")
axes[0].legend()
axes[1].errorbar(truth[:, 0], [join.size for join in joins], [2 * join.size_error for join in joins], fmt="o", ms=4)
axes[1].plot([0, 11_000], [0, 11_000], color="0.6", lw=1)
axes[1].set_xlabel("true size of the join")
axes[1].set_ylabel("estimated size, +- 2 standard errors")

found = np.argsort(-np.abs(estimates))[:3]
print("found:", sorted(found.tolist()), "correlations", np.round(estimates[found], 2))

# %%
# The bars hold what they promise, and the tables of the two strong causes come out on top.  All sizes on the right are
# a little too large together: estimates under one key share their luck, since every sample uses the same numbers.

assert set(found[:2]) == {0, 1}
assert np.mean(np.abs(estimates - truth[:, 1]) < 2 * errors) > 0.8

# %%
# How much of the target does a table explain, alone or as one of several columns?  ``join_regression`` solves least
# squares over the join, with the Gram matrix and the right-hand side estimated from one sample.  Here a table of three
# columns and half of the places; the coefficients over the whole join are known for comparison.

rows = generator.choice(40_000, 20_000, replace=False)
features = causes[rows] + 0.3 * generator.standard_normal((20_000, 3))
_, mine, theirs = np.intersect1d(target_places, rows, return_indices=True)
design = np.column_stack([features[theirs], np.ones(len(theirs))])
best = np.linalg.lstsq(design, target[mine], rcond=None)[0]

sizes = (100, 200, 400, 800, 1600)
fits = []
for n_samples in sizes:
    sampler = PrioritySampler(n_samples, weight="moments", rng=0)
    fits.append(
        join_regression(sampler.sketch(features, keys=places[rows]), sampler.sketch(target, keys=places[target_places]))
    )
    print(f"n_samples {n_samples:5d}: {fits[-1].n_common:5d} common rows, R^2 {float(fits[-1].r_squared):.3f}")
residual = target[mine] - design @ best
print(f"whole join: {len(mine)} rows, R^2 {1 - np.var(residual) / np.var(target[mine]):.3f}")

figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for column in range(3):
    middle = [fit.coef[column] for fit in fits]
    spread = [2 * fit.coef_error[column] for fit in fits]
    axis.errorbar(np.array(sizes) * 1.03**column, middle, spread, fmt="o", capsize=3, color=f"C{column}")
    axis.axhline(best[column], color=f"C{column}", lw=1)
axis.set_xscale("log")
axis.set_xlabel("n_samples")
axis.set_ylabel("coefficients, +- 2 standard errors (lines: whole join)")
