"""
Clicks: factors, weights between columns, and popularity
========================================================

A table of clicks of 4,000 rows on 800 columns, drawn from sixteen kinds of taste, each of which likes its columns and,
now and then, those of its neighbour.  A fifth of the rows is not seen by any model: of each of them four fifths of the
clicks are known, and the lists of ten columns that the models make are judged by the others.
"""

# %%
# The clicks.  Columns have popularities that fall like a power law, rows have 10 to 60 clicks.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import randla

generator = np.random.default_rng(0)
m, n, kinds = 4000, 800, 16
popularity = (np.arange(n) + 10.0) ** -0.9
taste, kind = generator.integers(0, kinds, m), np.arange(n) % kinds
near = np.where(kind == taste[:, None], 12.0, np.where(kind == (taste[:, None] + 1) % kinds, 3.0, 0.3))
# the columns whose exponential clocks ring first: draws without replacement in proportion to the weights
clocks = generator.exponential(size=(m, n)) / (popularity * near)
lengths = generator.integers(10, 61, m)
chosen = np.argsort(np.argsort(clocks, axis=1), axis=1) < lengths[:, None]
X = sp.csr_array(chosen.astype(np.float32))
split = randla.split_rows(X, 0.2, rng=0)
print(f"{X.nnz:,} clicks; {split.train.shape[0]} rows to fit on, {split.held.nnz:,} clicks to be found")


def judged(columns):
    """Scores of lists of the new rows."""
    return randla.ranking_scores(columns, split.held)


# %%
# Popularity alone, then EASE, then factors of several ranks: with the empty cells as a hundredth, a tenth, and all of
# the weight of a click (alpha is 1, and each click has the same).

counts = np.asarray(split.train.sum(axis=0)).ravel()
unseen = np.where(split.fold_in.toarray() > 0, -np.inf, counts)
by_popularity = judged(np.argsort(-unseen, axis=1)[:, :10])
weights = randla.EASE(100.0, random_state=0).fit(split.train)
by_weights = judged(weights.recommend(split.fold_in, 10).columns)
print(
    f"NDCG at 10: popularity {by_popularity.ndcg:.3f}, EASE {by_weights.ndcg:.3f} (error {by_weights.ndcg_error:.3f})"
)

ranks, empty = (2, 4, 8, 16, 32), (0.01, 0.1, 1.0)
found = {}
for w in empty:
    for rank in ranks:
        model = randla.ImplicitALS(rank, reg=2.0, unobserved_weight=w, tol=1e-3, random_state=0).fit(split.train)
        found[w, rank] = judged(model.recommend_new(split.fold_in, 10).columns)
    print(f"weight {w}:", " ".join(f"{found[w, rank].ndcg:.3f}" for rank in ranks))

# %%
# What sweeps do: the objective falls on and on, the score of clicks held out does not rise as long.

stages = randla.implicit_als(
    split.train, 32, reg=2.0, unobserved_weight=0.1, validation_fraction=0.2, n_iter_no_change=8, tol=0.0, rng=0
)
print("best sweep:", stages.best_iter, "of", stages.n_iter)

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
for w, style in zip(empty, ("^:", "o-", "s--"), strict=True):
    means = np.array([found[w, rank].ndcg for rank in ranks])
    spread = np.array([found[w, rank].ndcg_error for rank in ranks])
    axes[0].errorbar(ranks, means, spread, fmt=style, capsize=3, label=f"factors, empty cells {w:g}")
for told, name, color in ((by_weights, "EASE", "black"), (by_popularity, "popularity", "gray")):
    axes[0].axhline(told.ndcg, color=color, label=name)
    axes[0].axhspan(told.ndcg - told.ndcg_error, told.ndcg + told.ndcg_error, color=color, alpha=0.15)
axes[0].set_xscale("log", base=2)
axes[0].set(xlabel="rank", ylabel="NDCG at 10, new rows", ylim=(0, 0.55), title="models")
axes[0].legend(fontsize="small", loc="upper left", ncols=2)

sweeps = np.arange(1, stages.n_iter + 1)
axes[1].plot(sweeps, np.array(stages.history) / stages.history[-1], "o-", label="objective / last")
axes[1].set(xlabel="sweep", ylabel="objective / last", title="rank 32, empty cells 0.1")
right = axes[1].twinx()
right.plot(sweeps, stages.validation_history, "s--", color="tab:orange", label="NDCG at 10, clicks held out")
right.axvline(stages.best_iter, color="tab:orange", alpha=0.5)
right.set_ylabel("NDCG at 10")
lines = [*axes[1].get_lines(), right.get_lines()[0]]
axes[1].legend(lines, [line.get_label() for line in lines], loc="center right", fontsize="small")

# %%
# Factors are best at the number of tastes, 16, and there ahead of EASE, which needs no such number and is ahead of all
# other ranks.  With next to no weight on the empty cells little speaks against a high score everywhere, and lists are
# worse from rank 4 on.  The objective falls in each sweep; lists are best after the second one, and that is the state
# which ``validation_fraction`` keeps.
