"""
Attention scores from samples of sparse queries and keys
========================================================

Attention scores are a product: queries times keys, ``Q @ K.T``.  Where both are sparse codes, few features of a long
list for each token, a coordinated sample of the features keeps the few entries that matter and forgets the zeros, and a
linear sketch of the same size mixes them all.  Here the errors of both are set side by side at equal storage, and the
error of answering zero beside them, since a normalised error says little without it.
"""

# %%
# 400 tokens of forty topics are written in a dictionary of 8,000 features, and each keeps its strongest 1 %.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

import randla
from randla.sampling import PrioritySampler, estimate_product

n_tokens, n_features = 400, 8000
generator = np.random.default_rng(0)
topics = generator.standard_normal((40, 48))
tokens = topics[np.sort(generator.integers(0, 40, n_tokens))] + 0.6 * generator.standard_normal((n_tokens, 48))
dictionary = generator.standard_normal((48, n_features))
dictionary /= np.linalg.norm(dictionary, axis=0)


def codes(noise, density):
    """Features by tokens (the inner dimension of the product first), with a share `density` of each column kept."""
    strength = np.maximum((tokens + noise * generator.standard_normal(tokens.shape)) @ dictionary, 0).T
    n_kept = max(1, round(density * n_features))
    strength[strength < np.partition(strength, -n_kept, axis=0)[-n_kept]] = 0.0
    return sp.csr_array(strength / np.linalg.norm(strength, axis=0))


Q, K = codes(0.2, 0.01), codes(0.2, 0.01)
n_words = 1.5 * (Q.nnz + K.nnz)
print(f"features x tokens: {Q.shape}, entries of a token: {Q.nnz // n_tokens}, words of both: {n_words:.0f}")

# %%
# Storage is counted in words of 64 bits.  A sample pays for the number of each feature it keeps and, in sparse form, a
# word and a half for each entry; ``n_words`` has the sum.  A sketch pays for its dense rows.  Each error is a root mean
# square over eight keys, relative to ``||Q|| ||K||``.

budgets = np.array([4_000, 8_000, 16_000, 32_000, 64_000])


def sampled_error(Q, K, words):
    """Error of coordinated samples that fit into a budget of words together."""
    W, errors = (Q.T @ K).toarray(), []
    n_samples = 2
    while n_samples < n_features:  # the largest sample of a geometric list that fits
        sampler = PrioritySampler(round(1.2 * n_samples) + 1, rng=0)
        if sampler.sketch(Q).n_words + sampler.sketch(K).n_words > words:
            break
        n_samples = sampler.n_samples
    for key in range(8):
        sampler = PrioritySampler(n_samples, rng=key)
        result = estimate_product(sampler.sketch(Q), sampler.sketch(K), on_failure="ignore")
        errors.append(np.linalg.norm(result.value.toarray() - W))
    return np.sqrt(np.mean(np.square(errors))) / (sp.linalg.norm(Q) * sp.linalg.norm(K))


def sketched_error(Q, K, words, operator):
    """Error of a linear sketch whose rows fill the same budget."""
    W, errors = (Q.T @ K).toarray(), []
    n_rows = max(1, words // (Q.shape[1] + K.shape[1]))
    for key in range(8):
        S = operator(n_rows, n_features, rng=key)
        errors.append(np.linalg.norm((S @ Q).T @ (S @ K) - W))
    return np.sqrt(np.mean(np.square(errors))) / (sp.linalg.norm(Q) * sp.linalg.norm(K))


def sparse_sign(n_rows, n, rng):
    """Up to eight entries in each column."""
    return randla.SparseSign(n_rows, n, nnz=min(8, n_rows), rng=rng)


def zero_error(Q, K):
    """Error of answering zero."""
    return sp.linalg.norm(Q.T @ K) / (sp.linalg.norm(Q) * sp.linalg.norm(K))


curves = {
    "coordinated sample": [sampled_error(Q, K, words) for words in budgets],
    "CountSketch": [sketched_error(Q, K, words, randla.CountSketch) for words in budgets],
    "SparseSign": [sketched_error(Q, K, words, sparse_sign) for words in budgets],
}
styles = {"coordinated sample": "o-", "CountSketch": "s--", "SparseSign": "^:"}
figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for name, errors in curves.items():
    axis.loglog(budgets, errors, styles[name], label=name)
axis.axhline(zero_error(Q, K), color="0.5", lw=1, label="answering zero")
axis.set_xlabel("words stored for Q and K together")
axis.set_ylabel("error / (||Q|| ||K||)")
axis.set_title("1 % of the features of each token")
axis.legend()
for words, sampled, sketched in zip(budgets, curves["coordinated sample"], curves["CountSketch"], strict=True):
    print(f"{words:6d} words: sample {sampled:.4f}, CountSketch {sketched:.4f}, ratio {sketched / sampled:.1f}")

# %%
# The sample is some five times as accurate at every budget.  From 8,000 words on, a twelfth of the data, it says more
# than zero does; a linear sketch of this size is always worse than no answer.
#
# The advantage is one of sparsity.  At one budget and growing density the sample holds fewer and fewer features, and
# where the codes are dense the linear sketch catches up.

densities = np.array([0.003, 0.01, 0.03, 0.1, 0.3])
trend = {name: [] for name in (*curves, "answering zero")}
for density in densities:
    Q, K = codes(0.2, density), codes(0.2, density)
    trend["coordinated sample"].append(sampled_error(Q, K, 16_000))
    trend["CountSketch"].append(sketched_error(Q, K, 16_000, randla.CountSketch))
    trend["SparseSign"].append(sketched_error(Q, K, 16_000, sparse_sign))
    trend["answering zero"].append(zero_error(Q, K))
figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for name, errors in trend.items():
    axis.loglog(densities, errors, styles.get(name, "-"), color=None if name in styles else "0.5", label=name)
axis.set_xlabel("share of features that a token keeps")
axis.set_ylabel("error / (||Q|| ||K||)")
axis.set_title("16,000 words for Q and K together")
axis.legend()
for density, sampled, sketched in zip(densities, trend["coordinated sample"], trend["CountSketch"], strict=True):
    print(f"density {density:.3f}: sample {sampled:.4f}, CountSketch {sketched:.4f}, ratio {sketched / sampled:.1f}")
