"""NumPy truth of every kernel: slow, obvious, written from the definitions and not from the fast code.

`key` is a `randla.Key`.  An entry of a sign table is packed as ``2 * position + (1 if negative else 0)``.
A ragged table is (pointers, packed): the entries of item i are ``packed[pointers[i]:pointers[i + 1]]``.
"""

from __future__ import annotations

from .binary import binary_search, masked_binary_search
from .completion import (
    masked_cg,
    masked_cholesky,
    masked_qr,
    masked_sketched_cg,
    masked_variances,
    sampled_products,
    top_columns,
)
from .moments import pair_sums
from .nmf import divergence_sweeps, masked_nonneg_sweeps, nonneg_pivots, nonneg_sweeps
from .sketching import (
    block_srht_adjoint,
    block_srht_apply,
    csr_matmul,
    csr_normal_products,
    csr_normal_residual,
    csr_rmatmul,
    csr_row_power_sums,
    distinct_rows,
    gather_rows,
    gaussian_table,
    greedy_pivots,
    kernel_tile,
    less_table,
    normal_products,
    normal_residual,
    philox_words,
    race_candidates,
    race_pivots,
    rademacher_table,
    row_power_sums,
    scatter_columns,
    scatter_columns_csr,
    scatter_rows,
    scatter_rows_csr,
    sign_bits,
    sparse_jl_table,
    sparse_sign_table,
    srht_adjoint,
    srht_apply,
    store_columns,
    uniform_rows,
    uniforms,
    uniforms_at,
)
from .symmetric import csr_symmetric_sweep, symmetric_sweep
from .transport import (
    plan_entries,
    plan_matmul,
    plan_matrix,
    plan_sums,
    scaling_sweep,
    schur_cg,
    sinkhorn_sweep,
    softmin_rows,
)

__all__ = [
    "binary_search", "block_srht_adjoint", "block_srht_apply", "csr_matmul", "csr_normal_products",
    "csr_normal_residual", "csr_rmatmul", "csr_row_power_sums", "csr_symmetric_sweep", "distinct_rows",
    "divergence_sweeps", "gather_rows", "gaussian_table", "greedy_pivots", "kernel_tile", "less_table",
    "masked_binary_search", "masked_cg", "masked_cholesky", "masked_nonneg_sweeps", "masked_qr", "masked_sketched_cg",
    "masked_variances", "nonneg_pivots", "nonneg_sweeps", "normal_products", "normal_residual", "pair_sums",
    "philox_words", "plan_entries", "plan_matmul", "plan_matrix", "plan_sums", "race_candidates", "race_pivots",
    "rademacher_table", "row_power_sums", "sampled_products", "scaling_sweep", "scatter_columns",
    "scatter_columns_csr", "scatter_rows", "scatter_rows_csr", "schur_cg", "sign_bits", "sinkhorn_sweep",
    "softmin_rows", "sparse_jl_table", "sparse_sign_table", "srht_adjoint", "srht_apply", "store_columns",
    "symmetric_sweep", "top_columns", "uniform_rows", "uniforms", "uniforms_at",
]  # fmt: skip
