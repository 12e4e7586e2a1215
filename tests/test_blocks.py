"""Row blocks: they add up to the matrix, can be read again, and say what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from randla._blocks import RowBlocks


def _matrix(m: int, n: int) -> np.ndarray:
    return np.arange(float(m * n)).reshape(m, n)


@given(m=st.integers(0, 40), n=st.integers(0, 5), block_bytes=st.integers(1, 400))
def test_blocks_of_an_array_add_up_to_it(m: int, n: int, block_bytes: int) -> None:
    A = _matrix(m, n)
    rows = RowBlocks.from_array(A, block_bytes=block_bytes)
    expected = 0
    for start, block in rows:
        assert start == expected
        assert np.array_equal(block, A[start : start + len(block)])
        assert len(block) == 1 or block.nbytes <= block_bytes
        expected += len(block)
    assert expected == m == len(rows)
    assert rows.shape == (m, n)
    assert rows.ndim == 2


def test_blocks_are_views_and_can_be_read_again() -> None:
    A = _matrix(10, 3)
    A.flags.writeable = False
    rows = RowBlocks.from_array(A, block_bytes=48)
    for _ in range(2):
        blocks = [block for _, block in rows]
        assert all(np.shares_memory(block, A) for block in blocks)
        assert np.array_equal(np.concatenate(blocks), A)
    assert rows.n_passes == 2


@pytest.mark.parametrize("container", [sp.csr_array, sp.csr_matrix, sp.csc_array])
def test_sparse_blocks(container: type) -> None:
    A = sp.random_array((50, 8), density=0.2, rng=np.random.default_rng(0))
    rows = RowBlocks.from_array(container(A), block_bytes=100)
    blocks = [block for _, block in rows]
    assert len(blocks) > 2
    assert all(block.format == "csr" for block in blocks)
    assert np.array_equal(sp.vstack(blocks).toarray(), A.toarray())


def test_memory_map_is_not_copied(tmp_path) -> None:
    np.save(tmp_path / "A.npy", _matrix(20, 4))
    A = np.load(tmp_path / "A.npy", mmap_mode="r")
    rows = RowBlocks.from_array(A, block_bytes=64)
    assert all(np.shares_memory(block, A) for _, block in rows)
    assert sum(len(block) for _, block in rows) == 20


def test_other_namespaces() -> None:
    xp = pytest.importorskip("array_api_strict")
    rows = RowBlocks.from_array(xp.asarray(_matrix(5, 2)), block_bytes=32)
    assert [start for start, _ in rows] == [0, 2, 4]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((7, 3), "float64", r"blocks must have 7 rows in all, got 6"),
        ((5, 3), "float64", r"blocks must have 5 rows in all, got at least 6"),
        ((6, 4), "float64", r"block at row 0 must have 4 columns, got 3"),
        ((6, 3), "float32", r"block at row 0 must have dtype float32, got float64"),
    ],
)
def test_what_does_not_fit_is_named(shape: tuple[int, int], dtype: str, message: str) -> None:
    A = _matrix(6, 3)
    with pytest.raises(ValueError, match=message):
        list(RowBlocks(lambda: [A[:3], A[3:]], shape, dtype))


def test_later_blocks_are_checked_too() -> None:
    A = _matrix(6, 3)
    with pytest.raises(ValueError, match="block at row 3 must have 3 columns, got 2"):
        list(RowBlocks(lambda: [A[:3], A[3:, :2]], (6, 3), float))
    with pytest.raises(ValueError, match="block at row 3 must be 2-D"):
        list(RowBlocks(lambda: [A[:3], A[3]], (6, 3), float))
    with pytest.raises(TypeError, match="block at row 3 must"):
        list(RowBlocks(lambda: [A[:3], "rows"], (6, 3), float))


def test_an_iterator_that_is_spent_is_noticed_on_the_second_pass() -> None:
    spent = iter([_matrix(6, 3)])
    rows = RowBlocks(lambda: spent, (6, 3), float)
    assert len(list(rows)) == 1
    with pytest.raises(ValueError, match="fresh iterator"):
        list(rows)


def test_constructor_refuses_generators_and_odd_shapes() -> None:
    with pytest.raises(TypeError, match="blocks must be callable"):
        RowBlocks((block for block in []), (0, 0), float)  # type: ignore[arg-type]
    for shape in (5, (5,), (1, 2, 3)):
        with pytest.raises(ValueError, match="shape must be two integers"):
            RowBlocks(list, shape, float)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape\[0\] must be at least 0"):
        RowBlocks(list, (-1, 2), float)
    with pytest.raises(ValueError, match="block_bytes must be at least 1"):
        RowBlocks.from_array(_matrix(2, 2), block_bytes=0)
