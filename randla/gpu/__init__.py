"""CUDA twins of `randla.kernels`: the same names and signatures for CuPy arrays on the current device.

CuPy is imported by the call that needs it, and a kernel is compiled at its first launch.
"""

from __future__ import annotations

from .hadamard import block_srht_adjoint, block_srht_apply, srht_adjoint, srht_apply
from .products import csr_matmul, csr_rmatmul
from .scatter import gather_rows, scatter_columns, scatter_columns_csr, scatter_rows, scatter_rows_csr
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

__all__ = [
    "block_srht_adjoint", "block_srht_apply", "csr_matmul", "csr_rmatmul", "distinct_rows", "gather_rows",
    "gaussian_table", "less_table", "philox_words", "rademacher_table", "scatter_columns", "scatter_columns_csr",
    "scatter_rows", "scatter_rows_csr", "sign_bits", "sparse_jl_table", "sparse_sign_table", "srht_adjoint",
    "srht_apply", "uniform_rows", "uniforms",
]  # fmt: skip
