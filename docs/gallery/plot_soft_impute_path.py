"""
How strong a penalty: the path of soft-impute
=============================================

The nuclear norm turns completion into a convex problem with one knob.  A strong penalty leaves nothing, a weak one
fits the noise; entries held out tell where to stop, and a duality gap tells that each point of the path is the minimum
it claims to be.
"""

# %%
# A matrix of rank 4, of which 40 % is seen with noise.  The noise has a third of the standard deviation of the entries.

import matplotlib.pyplot as plt
import numpy as np

from randla import altmin_completion, soft_impute_path

m, n, rank, noise = 160, 120, 4, 0.7
generator = np.random.default_rng(0)
A = generator.standard_normal((m, rank)) @ generator.standard_normal((rank, n))
X = np.where(generator.random((m, n)) < 0.4, A + noise * generator.standard_normal((m, n)), np.nan)

# %%
# Two paths over the same penalties and the same held-out entries: as the penalty has it, and with the singular values
# fitted again without it, their vectors fixed.

options = {"n_regs": 12, "reg_ratio": 0.08, "n_iter_no_change": None, "rng": 0}
plain = soft_impute_path(X, **options)
debiased = soft_impute_path(X, debias=True, **options)
for name, path in (("plain", plain), ("debiased", debiased)):
    error = np.linalg.norm(path.result.to_dense() - A) / np.linalg.norm(A)
    print(
        f"{name}: penalty {path.result.reg:.1f}, rank {path.result.rank}, error {error:.3f}, gap {path.result.gap:.0e}"
    )

# %%
# Left: held-out errors, with one standard error as a band, and the penalty that is chosen; no method gets below the
# noise.  Middle: the rank, which the penalty decides.  Right: singular values along the plain path; those of the
# matrix itself come first, those of the noise later and together.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
for name, path, colour in (("as penalised", plain, "C0"), ("fitted again", debiased, "C1")):
    errors, bounds = np.array(path.validation_errors), np.array(path.validation_bounds)
    left.plot(path.regs, errors, "o-", ms=3, color=colour, label=name)
    left.fill_between(path.regs, 2 * errors - bounds, bounds, color=colour, alpha=0.2, lw=0)
    left.plot(path.regs[path.chosen], errors[path.chosen], "*", ms=13, color=colour)
left.axhline(noise, color="0.6", ls=":", label="noise")
left.set(ylabel="held-out root mean square error")
left.legend()
middle.plot(plain.regs, plain.ranks, "o-", ms=3)
middle.axhline(rank, color="0.6", ls=":", label="planted")
middle.set(ylabel="rank", ylim=(0, None))
middle.legend()
values = np.zeros((len(plain.regs), max(plain.ranks)))
for row, result in zip(values, plain.results, strict=True):
    row[: result.rank] = result.s
right.plot(plain.regs, values[:, rank:], color="0.75", lw=0.7)
right.plot(plain.regs, values[:, :rank], color="C0")
right.set(ylabel="singular values")
for axis in (left, middle, right):
    axis.set(xscale="log", xlabel="penalty")
    axis.set_xticks([50, 25, 12, 6], ["50", "25", "12", "6"], minor=False)
    axis.set_xticks([], minor=True)
    axis.invert_xaxis()
plt.show()

# %%
# Where the rank is known, alternating minimisation of that rank is the better estimate: it shrinks nothing.

known = altmin_completion(X, rank, rng=0)
print(f"rank given: error {np.linalg.norm(known.to_dense() - A) / np.linalg.norm(A):.3f}, {known.status.name}")
