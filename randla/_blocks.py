"""A matrix that arrives as blocks of rows and can be read again: files, streams and memory maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ._arrays import as_matrix, dtype_name, is_sparse
from ._checks import check_integer


class RowBlocks:
    """Source of row blocks that can be read more than once.

    Iterating yields ``(start, block)``, where `block` holds the rows ``start : start + block.shape[0]`` of the matrix,
    and checks on the way that the blocks fit together.  Each iteration is one pass, counted in `n_passes`.

    Parameters
    ----------
    blocks : callable
        Called without arguments at each pass; returns a fresh iterable of 2-D blocks, dense or CSR, in row order.
        Blocks may differ in height, and may be empty.
    shape : tuple of two int
        Shape (m, n) of the whole matrix.
    dtype : dtype
        Element type that every block has.

    Attributes
    ----------
    shape : tuple of two int
    dtype : dtype
    ndim : int
        Always 2.
    n_passes : int
        Passes over the data that were begun.

    Raises
    ------
    TypeError
        If `blocks` is not callable: a generator can be read only once, so pass the function that makes it.  While
        iterating: if a block is not a numeric array or sparse matrix.
    ValueError
        If `shape` is not two non-negative integers.  While iterating: if a block is not 2-D, if its width or dtype is
        not the announced one, or if the rows do not add up to ``shape[0]``.

    Examples
    --------
    >>> import numpy as np
    >>> from randla import RowBlocks
    >>> A = np.arange(12.0).reshape(6, 2)
    >>> source = RowBlocks(lambda: (A[i : i + 4] for i in (0, 4)), shape=(6, 2), dtype=A.dtype)
    >>> [(start, block.shape) for start, block in source]
    [(0, (4, 2)), (4, (2, 2))]
    """

    ndim = 2

    def __init__(self, blocks: Callable[[], Iterable[Any]], shape: tuple[int, int], dtype: Any) -> None:
        if not callable(blocks):
            raise TypeError(
                f"blocks must be callable and return a fresh iterable, got {type(blocks).__name__}; "
                "pass the function that makes the iterator, so that the data can be read again"
            )
        try:
            m, n = shape
        except (TypeError, ValueError):
            raise ValueError(f"shape must be two integers, got {shape!r}") from None
        self._blocks = blocks
        self.shape = (check_integer(m, "shape[0]", low=0), check_integer(n, "shape[1]", low=0))
        self.dtype = np.dtype(dtype) if _is_numpy_dtype(dtype) else dtype
        self.n_passes = 0

    @classmethod
    def from_array(cls, A: Any, *, block_bytes: int = 64 * 2**20) -> RowBlocks:
        """Return the row blocks of an array, a memory map or a CSR matrix; dense blocks are views, nothing is copied.

        Parameters
        ----------
        A : array, memory map or sparse matrix, shape (m, n)
            CSC input is converted to CSR once.
        block_bytes : int, default 64 MiB
            Target size of a block; a block has one row at least.

        Returns
        -------
        RowBlocks
        """
        block_bytes = check_integer(block_bytes, "block_bytes", low=1)
        A = as_matrix(A)
        if is_sparse(A):
            A = A.tocsr()
            itemsize = A.data.dtype.itemsize + A.indices.dtype.itemsize
            row_bytes = -(-A.nnz * itemsize // max(A.shape[0], 1))
        else:
            row_bytes = A.shape[1] * _itemsize(A.dtype)
        step = max(1, block_bytes // max(row_bytes, 1))
        m = A.shape[0]
        return cls(lambda: (A[i : min(i + step, m), :] for i in range(0, m, step)), A.shape, A.dtype)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        self.n_passes += 1
        m, n = self.shape
        start = 0
        for block in self._blocks():
            block = as_matrix(block, name=f"block at row {start}")
            if block.shape[1] != n:
                raise ValueError(f"block at row {start} must have {n} columns, got {block.shape[1]}")
            if block.dtype != self.dtype:
                raise ValueError(
                    f"block at row {start} must have dtype {dtype_name(self.dtype)}, got {dtype_name(block.dtype)}"
                )
            stop = start + block.shape[0]
            if stop > m:
                raise ValueError(f"blocks must have {m} rows in all, got at least {stop}; check the announced shape")
            yield start, block
            start = stop
        if start != m:
            raise ValueError(
                f"blocks must have {m} rows in all, got {start}; "
                "return a fresh iterator at each call, and check the announced shape"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"RowBlocks(shape={self.shape}, dtype={dtype_name(self.dtype)})"


def _is_numpy_dtype(dtype: Any) -> bool:
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True


def _itemsize(dtype: Any) -> int:
    """Bytes of one entry; 8 for dtypes of other libraries that do not say."""
    size = getattr(dtype, "itemsize", None)
    return size if isinstance(size, int) else 8
