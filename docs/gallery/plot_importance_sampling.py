"""
Which rows matter for which norm
================================

A sample of rows keeps ``||A x||_p`` for all x if the rows are chosen by scores that know p. Here are five kinds of
scores on data with heavy tails, and the distortion of samples of growing size.
"""

# %%
# The data are 10,000 rows of Student's t distribution with 1.5 degrees of freedom, fifty of them fifty times as long.

import matplotlib.pyplot as plt
import numpy as np

from randla.diagnostics import subspace_distortion
from randla.sampling import leverage_scores, lewis_weights, lp_sensitivities, sample_rows, total_sensitivity

m, n = 10_000, 10
A = np.random.default_rng(0).standard_t(1.5, size=(m, n))
A[:50] *= 50


def scores(p):
    """Scores by name; each sample is drawn with probabilities in proportion to them."""
    leverage = leverage_scores(A, rng=0)
    return {
        "uniform": np.ones(m),
        "leverage": leverage,
        "root leverage": leverage ** (p / 2),
        "Lewis weights": lewis_weights(A, p, rng=0),
        "leverage + bound": leverage + lp_sensitivities(A, p, method="bounds", rng=0) + 1 / m,
    }


# %%
# The distortion is the largest relative error of ``||A x||_p**p`` over 100 random directions and those of the ten
# heaviest rows: a median over five samples.

sizes = np.array([50, 100, 200, 400, 800])


def distortion(q, k, p):
    """Median over five keys."""
    samples = (sample_rows(q, k, p=p, rng=key).apply(A) for key in range(5))
    return np.median([subspace_distortion(A, SA, p, n_directions=100, n_refine=0, rng=0).distortion for SA in samples])


norms = (1.0, 1.5, 3.0)
measured = {(p, name): [distortion(q, k, p) for k in sizes] for p in norms for name, q in scores(p).items()}

# %%
# The grey line falls like one over the root of the number of rows; where more and more heavy rows are kept for sure,
# the distortion falls faster.

figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for axis, p in zip(axes, norms, strict=True):
    law = measured[p, "Lewis weights"][2] * np.sqrt(sizes[2] / sizes)
    axis.plot(sizes, law, color="0.8", lw=7)
    for color, (name, marker) in enumerate(zip(scores(p), "os^Dv", strict=True)):
        axis.plot(sizes, measured[p, name], marker, ls="-", lw=1, ms=5, color=f"C{color}", label=name)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_title(f"p = {p:g}")
    axis.set_xlabel("expected rows in the sample")
axes[0].set_ylabel("distortion of $||Ax||_p^p$")
axes[0].legend(loc="lower left", fontsize=8)

# %%
# Uniform samples miss the heavy rows, and the more so the larger p is. Leverage scores, which belong to p = 2, are far
# behind at p = 1, where they spend the sample on heavy rows that matter less there. Root leverage, Lewis weights and
# the sum of leverage and a bound of the sensitivities know p, and they lie together; of these, Lewis weights come with
# the best theorem for every p. At p = 3 a few rows hold nearly all of the norm, and a hundred say almost everything.

for p in norms:
    total = total_sensitivity(A, p, rng=0)
    print(f"p = {p:g}: sensitivities add up to {total.value:.2f} +- {total.stderr:.2f}")

lewis, leverage, uniform = (np.array(measured[1.0, name]) for name in ("Lewis weights", "leverage", "uniform"))
assert np.all(lewis[1:] < leverage[1:])
assert np.all(measured[3.0, "Lewis weights"] < 0.5 * np.array(measured[3.0, "uniform"]))
