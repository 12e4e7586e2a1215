"""
An image at several ranks, and the error that randla expects
============================================================

A photograph, cut into patches of 8 x 8 pixels, is a tall matrix of low effective rank: neighbouring pixels are alike.
Each factorisation says how wrong it is before anybody compares it with the data; here the estimate is set beside the
truth.
"""

# %%
# The photograph comes with scikit-learn. Every 8 x 8 patch of a grid with step 4 is one row of 192 numbers.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import randla

image = load_sample_image("china.jpg")[:424, :640] / 255.0
size, step = 8, 4
windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))[::step, ::step]
A = windows.reshape(-1, 3 * size * size)
print("patches:", A.shape)

# %%
# Factor at several ranks. ``error`` is an estimate, relative to the Frobenius norm, that comes with the result; the
# true error needs the whole product.

ranks = (1, 3, 10, 30)
results = {rank: randla.svd(A, rank, rng=0) for rank in ranks}
true = {rank: np.linalg.norm(A - result.to_dense()) / np.linalg.norm(A) for rank, result in results.items()}
for rank in ranks:
    print(f"rank {rank:3d}: estimated {results[rank].error:.4f}, true {true[rank]:.4f}")


# %%
# Put the patches back, averaging where they overlap.


def assemble(patches):
    """The image whose patches are the rows of `patches`."""
    blocks = patches.reshape(*windows.shape[:2], 3, size, size)
    total, count = np.zeros_like(image), np.zeros(image.shape[:2])
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            rows, columns = slice(i * step, i * step + size), slice(j * step, j * step + size)
            total[rows, columns] += np.moveaxis(blocks[i, j], 0, -1)
            count[rows, columns] += 1
    return np.clip(total / count[:, :, None], 0, 1)


figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
for axis, rank in zip(axes.flat, ranks, strict=True):
    axis.imshow(assemble(results[rank].to_dense()))
    axis.set_title(f"rank {rank}: error {results[rank].error:.1%} estimated, {true[rank]:.1%} true", fontsize=10)
    axis.axis("off")

# %%
# The optimal error at each rank is the tail of the singular values. Estimate, truth and optimum are hard to tell apart.

s = np.linalg.svd(A, compute_uv=False)
tail = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0)) / np.linalg.norm(s)
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
axis.semilogy(np.arange(60), tail[:60], color="0.7", lw=4, label="optimal")
axis.semilogy(ranks, [true[rank] for rank in ranks], "o", label="true")
axis.semilogy(ranks, [results[rank].error for rank in ranks], "x", ms=9, label="estimated")
axis.set_xlabel("rank")
axis.set_ylabel("relative error, Frobenius")
axis.legend()

for rank in ranks:
    assert true[rank] <= 1.02 * tail[rank]
    assert 0.5 < results[rank].error / true[rank] < 2

# %%
# With a tolerance in place of a rank, the rank is found.

result = randla.svd(A, tol=0.05, rng=0)
print(f"5 % error: rank {result.rank}, estimated {result.error:.4f}, {result.status!r}")
assert np.linalg.norm(A - result.to_dense()) <= 0.05 * np.linalg.norm(A)
