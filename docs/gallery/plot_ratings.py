"""
Ratings: a model, its rank, and how sure it is
==============================================

A table of ratings is mostly holes. Here 120,000 synthetic ratings by 3,000 users of 1,000 items, five factors planted
behind them: the rank is chosen by the error of ratings held out, predictions come with a standard deviation, and a user
who was not there gets factors without a new fit.
"""

# %%
# The ratings. Users and items are as uneven as in real tables, and the ratings are rounded to 1, ..., 5.

import matplotlib.pyplot as plt
import numpy as np

import randla
from randla.plot import ValidationCurveDisplay

made = randla.datasets.synthetic_ratings(3000, 1000, 120_000, rank=5, noise=0.4, rng=0)
X = made.ratings
print(made)

# %%
# The same tenth of the ratings is held out for each rank, and each fit starts from the one before. The band is one
# standard error; the rule takes the least rank whose error lies within it of the least error.

curve = randla.choose_completion_rank(X, range(8), reg=0.04, rng=0)
print("chosen:", curve.chosen, " least error:", curve.least)

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
ValidationCurveDisplay.from_result(curve).plot(axes[0])
path = randla.regularization_path(X, 8, np.geomspace(0.3, 0.003, 7), rng=0)
ValidationCurveDisplay.from_result(path).plot(axes[1])
axes[0].set_title("rank, at reg = 0.04")
axes[1].set_title("ridge, at rank 8")

# %%
# Predictions for pairs that were never rated, against the truth behind the ratings. Where few ratings stand behind a
# user and an item the model says so: the errors grow with the standard deviations that it gives.

model = randla.MatrixCompletion(5, reg=0.04, random_state=0).fit(X)
generator = np.random.default_rng(1)
rows, cols = generator.integers(0, 3000, 40_000), generator.integers(0, 1000, 40_000)
known = np.asarray(X[rows, cols]).ravel() != 0
rows, cols = rows[~known], cols[~known]
errors = made.truth(rows, cols) - model.predict(rows, cols)
std = model.predict_std(rows, cols)

order = np.argsort(std)
groups = np.array_split(order, 20)
middle = [float(np.sqrt(np.mean(std[g] ** 2))) for g in groups]
actual = [float(np.sqrt(np.mean(errors[g] ** 2))) for g in groups]
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
ax.plot(middle, actual, "o", color="#0072B2", label="twentieths of the pairs")
ax.plot([0, max(middle)], [0, max(middle)], color="#7F7F7F", label="equal")
ax.set(xlabel="standard deviation that is predicted", ylabel="root mean square error")
ax.legend(frameon=False)
print(f"inside of two standard deviations: {np.mean(np.abs(errors) <= 2 * std):.0%}")

# %%
# A new user with a dozen ratings: one small system is solved. The five best of the items that the user has not rated:

rated = generator.choice(1000, 12, replace=False)
taste = generator.standard_normal(5) * made.user_factors.std(axis=0)
new = np.full((1, 1000), np.nan)
new[0, rated] = np.clip(np.round(made.mean + made.item_bias[rated] + made.item_factors[rated] @ taste), 1, 5)
model.partial_fit_rows(new)
best = model.recommend([3000], 5)
truth = made.mean + made.item_bias + made.item_factors @ taste
print("predicted:", best.values[0].round(2))
print("true mean of these five:", truth[best.columns[0]].mean().round(2), " of all items:", truth.mean().round(2))
