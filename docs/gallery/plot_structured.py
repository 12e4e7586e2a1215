"""
Structure beats rank, where there is structure
==============================================

A matrix can be cheap to store and to apply for several reasons: few directions (low rank), a fast algorithm (products
of sparse factors, Monarch matrices), or smoothness (a fixed cosine basis).  Each form is blind to the reasons of the
others.  Here the error of five forms is drawn against the numbers that they store, on four matrices of 64 x 64.
"""

# %%
# The four matrices: a Hadamard matrix, the Hartley transform (the Fourier transform in real numbers) with its columns
# in transposed order, rows that are random walks, and white noise.

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import hadamard

from randla.structured import (
    OrthobasisProjector,
    hadamard_projections,
    hierarchical_factorize,
    monarch_project,
    proj,
)

n, p = 64, 8
generator = np.random.default_rng(0)
angles = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
hartley = (np.cos(angles) + np.sin(angles)).reshape(n, p, n // p).transpose(0, 2, 1).reshape(n, n)
matrices = {
    "Hadamard": hadamard(n).astype(float),
    "Hartley, columns transposed": hartley,
    "random walks": np.cumsum(generator.standard_normal((n, n)), axis=1),
    "white noise": generator.standard_normal((n, n)),
}

# %%
# Each form is a list of (share of n**2 numbers, relative error).  Indices are not counted: a sparse factor has one for
# each entry, the cosine basis one for each column.


def low_rank(A):
    """Truncated singular value decompositions: 2 n numbers for each rank."""
    s = np.linalg.svd(A, compute_uv=False)
    return [(2 * r / n, np.linalg.norm(s[r:]) / np.linalg.norm(s)) for r in (1, 2, 4, 8, 12, 16, 24, 32)]


def cosine(A):
    """The best columns of a cosine basis: n numbers for each."""
    return [(r / n, OrthobasisProjector("dct", r).fit(A).error_) for r in (1, 2, 4, 8, 16, 24, 32, 48)]


def monarch(A):
    """Monarch matrices with slices of rank 1, 2, ..."""
    projections = [monarch_project(A, (p, n // p), rank) for rank in (1, 2, 3, 4)]
    return [(M.n_parameters / n**2, M.error) for M in projections]


def sparse_product(A):
    """Three factors with the k largest entries of rows and columns."""
    rows = proj.RowsAndColumns
    found = [hierarchical_factorize(A, [rows(k), rows(k)], [rows(4 * k), rows(k)]) for k in (2, 4, 8, 12)]
    return [(product.density, product.error) for product in found]


def butterflies(A):
    """Six factors with two entries in each row and column, as a fast transform has them."""
    product = hierarchical_factorize(A, *hadamard_projections(n))
    return [(product.density, product.error)]


forms = {
    "low rank": low_rank,
    "cosine basis": cosine,
    "Monarch": monarch,
    "three sparse factors": sparse_product,
    "six butterflies": butterflies,
}
curves = {title: {name: np.array(form(A)) for name, form in forms.items()} for title, A in matrices.items()}
for title, found in curves.items():
    best = {name: points[points[:, 0] <= 0.5][:, 1].min() for name, points in found.items()}
    print(f"{title:28s}", ", ".join(f"{name} {error:.1e}" for name, error in best.items()), "(half of the numbers)")

# %%
# The picture has one panel for each matrix.  Errors at the level of rounding are drawn at 1e-6.

styles = dict(zip(forms, ("o-", "s--", "D-.", "^:", "r*"), strict=True))
figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
for axis, (title, found) in zip(axes.flat, curves.items(), strict=True):
    for name, points in found.items():
        inside = points[points[:, 0] <= 1.05]
        axis.semilogy(
            inside[:, 0],
            np.maximum(inside[:, 1], 1e-6),
            styles[name],
            label=name,
            markersize=10 if name == "six butterflies" else 5,
        )
    axis.set_title(title)
    axis.grid(alpha=0.3)
for axis in axes[1]:
    axis.set_xlabel("numbers stored / n²")
for axis in axes[:, 0]:
    axis.set_ylabel("relative error")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)

# %%
# The Hadamard matrix has full rank and equal singular values, and so no approximation of low rank; six butterflies
# hold it in 19 % of the numbers, a Monarch matrix in a quarter.  The Hartley transform takes Monarch slices of rank
# two, half of the numbers, and sparse factors do not find it.  Random walks are smooth: sixteen cosines, a quarter of
# the numbers, leave what twelve singular vectors leave with three eighths.  White noise has no structure; sparse
# factors gain a little by keeping its largest entries, and pay for it in indices.  Which structure a matrix has must be
# known beforehand; `error` then says whether it was true.
