"""CUDA twins of `randla.kernels`: the same names and signatures for CuPy arrays on the current device.

CuPy is imported by the call that needs it, and a kernel is compiled at its first launch.
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
from .hadamard import block_srht_adjoint, block_srht_apply, srht_adjoint, srht_apply
from .kernel_tiles import kernel_tile
from .moments import pair_sums
from .nmf import divergence_sweeps, masked_nonneg_sweeps, nonneg_pivots, nonneg_sweeps
from .pivots import greedy_pivots, race_candidates, race_pivots, store_columns
from .products import csr_matmul, csr_rmatmul
from .regression import csr_normal_products, csr_normal_residual, normal_products, normal_residual
from .sampling import csr_row_power_sums, row_power_sums, uniforms_at
from .scatter import gather_rows, scatter_columns, scatter_columns_csr, scatter_rows, scatter_rows_csr
from .symmetric import csr_symmetric_sweep, symmetric_sweep
from .tables import (
    distinct_rows,
    gaussian_table,
    less_table,
    philox_words,
    rademacher_table,
    sign_bits,
    sparse_jl_table,
    sparse_sign_table,
    uniform_rows,
    uniforms,
)
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
