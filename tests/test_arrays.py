"""The intake gate: what comes in, what is refused and in which words, and where data go."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.sparse as sp
from array_api_compat import array_namespace, device
from scipy.sparse.linalg import aslinearoperator

from randla import _arrays
from randla._arrays import as_matrix, check_together, floating_dtype, from_host, to_host
from randla._backend import kernel
from randla._checks import check_choice, check_integer, check_real


def message(text: str) -> str:
    return "^" + re.escape(text)


# --- what passes ------------------------------------------------------------------------------------------------------


def test_dense_arrays_pass_as_they_are(xp: ModuleType, put: Callable[[Any], Any]) -> None:
    A = put(np.ones((3, 2)))
    assert as_matrix(A) is A
    x = put(np.ones(3))
    assert as_matrix(x, vector=True) is x


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only", "memory map", "no rows", "no columns"])
def test_layouts_are_not_copied(layout: str, tmp_path: Path) -> None:
    A = {
        "C": lambda: np.ones((4, 3)),
        "F": lambda: np.ones((4, 3), order="F"),
        "strided": lambda: np.ones((8, 6))[::-2, ::2],
        "read-only": lambda: np.broadcast_to(1.0, (4, 3)),
        "memory map": lambda: np.memmap(tmp_path / "A", np.float64, "w+", shape=(4, 3)),
        "no rows": lambda: np.ones((0, 3)),
        "no columns": lambda: np.ones((4, 0)),
    }[layout]()
    assert as_matrix(A) is A


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_compressed_matrices_pass_as_they_are(container: type, index: type) -> None:
    A = container(np.diag([1.0, 2.0]))
    A.indices, A.indptr = A.indices.astype(index), A.indptr.astype(index)  # the constructor would narrow them
    assert as_matrix(A) is A
    assert A.indices.dtype == index


@pytest.mark.parametrize(
    "container", [sp.coo_matrix, sp.coo_array, sp.lil_array, sp.dok_array, sp.bsr_array, sp.dia_array]
)
def test_other_sparse_formats_become_csr(container: type) -> None:
    A = as_matrix(container(np.diag([1.0, 2.0, 0.0])))
    assert A.format == "csr"
    assert np.array_equal(A.toarray(), np.diag([1.0, 2.0, 0.0]))


class Frame:
    """Stands for a data frame: not an array, but becomes one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "A", [[[1, 2], [3, 4], [5, 6]], ((1.0, 2.0),), [np.ones(2), np.zeros(2)], range(3), np.matrix("1 2; 3 4"), Frame()]
)
def test_what_can_become_an_array_does(A: Any) -> None:
    found = as_matrix(A, vector=True)
    assert type(found) is np.ndarray
    assert np.array_equal(found, np.asarray(A))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", "float32"), ("float64", "float64"), ("complex64", "complex64"), ("complex128", "complex128"),
        ("float16", "float32"), ("bool", "float64"), ("int8", "float64"), ("int32", "float64"), ("int64", "float64"),
        ("uint8", "float64"), ("uint64", "float64"), (">f8", "float64"), (">f4", "float32"), ("longlong", "float64"),
    ],
)  # fmt: skip
def test_floating_dtype(dtype: str, expected: str) -> None:
    A = as_matrix(np.ones((2, 2), dtype))
    assert np.dtype(floating_dtype(A, np)) == expected
    sparse = as_matrix(sp.csr_array(np.ones((2, 2)))).astype(np.float32)
    assert np.dtype(floating_dtype(sparse, np)) == "float32"


def test_floating_dtype_of_a_namespace(xp: ModuleType, put: Callable[[Any], Any], any_dtype: str) -> None:
    A = put(np.ones((2, 2), any_dtype))
    assert floating_dtype(A, xp) == A.dtype
    assert floating_dtype(xp.astype(put(np.ones((2, 2))), xp.int32), xp) == xp.float64


@pytest.mark.parametrize(
    ("dtype", "real", "is_complex"),
    [("float32", "float32", False), ("float64", "float64", False), ("complex64", "float32", True),
     ("complex128", "float64", True)],
)  # fmt: skip
def test_parts_of_a_dtype(dtype: str, real: str, is_complex: bool) -> None:
    for xp in (np, array_api_strict):
        own = getattr(xp, dtype)
        assert _arrays.dtype_name(own) == dtype
        assert _arrays.is_complex(own) == is_complex
        assert _arrays.real_dtype(own, xp) == getattr(xp, real)
        assert _arrays.eps(own) == np.finfo(real).eps


def test_kinds_of_input() -> None:
    dense, sparse, operator = np.eye(2), sp.csr_array(np.eye(2)), aslinearoperator(np.eye(2))
    assert [_arrays.is_sparse(A) for A in (dense, sparse, operator, [1])] == [False, True, False, False]
    assert [_arrays.is_linear_operator(A) for A in (dense, sparse, operator, [1])] == [False, False, True, False]
    assert array_namespace(dense) is _arrays.namespace_of(dense) is _arrays.namespace_of(sparse)


# --- what is refused --------------------------------------------------------------------------------------------------

BAD_KINDS = {
    "None": (None, "A must be an array or a sparse matrix, got NoneType"),
    "string": ("abc", "A must be an array or a sparse matrix, got str"),
    "bytes": (b"abc", "A must be an array or a sparse matrix, got bytes"),
    "dictionary": ({"a": [1]}, "A must be an array or a sparse matrix, got dict"),
    "set": ({1, 2}, "A must be an array or a sparse matrix, got set"),
    "masked": (
        np.ma.masked_array(np.eye(2), np.eye(2) > 0),
        "A must be a plain array, got a masked array; pass A.filled(",
    ),
    "strings": ([["a", "b"]], "A must have a real or complex numeric dtype of at most 64 bits a part, got str"),
    "objects": (
        np.array([[1, None]], object),
        "A must have a real or complex numeric dtype of at most 64 bits a part, got obj",
    ),
    "any object": (object(), "A must have a real or complex numeric dtype of at most 64 bits a part, got object"),
    "dates": (
        np.zeros((2, 2), "M8[s]"),
        "A must have a real or complex numeric dtype of at most 64 bits a part, got date",
    ),
    "records": (
        np.zeros((2, 2), [("a", float)]),
        "A must have a real or complex numeric dtype of at most 64 bits a part",
    ),
    "operator": (aslinearoperator(np.eye(2)), "A must have a real or complex numeric dtype of at most 64 bits a part"),
}


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_other_kinds_are_refused(kind: str) -> None:
    A, text = BAD_KINDS[kind]
    with pytest.raises(TypeError, match=message(text)):
        as_matrix(A)


@pytest.mark.parametrize("dtype", ["longdouble", "clongdouble"])
def test_long_double_is_refused(dtype: str) -> None:
    A = np.ones((2, 2), dtype)
    if A.dtype.itemsize in (8, 16) and A.dtype.name in ("float64", "complex128"):
        assert as_matrix(A) is A  # the platform has none
    else:
        with pytest.raises(TypeError, match=r"of at most 64 bits a part, got \w+; convert it first"):
            as_matrix(A)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2), (0,)])
def test_wrong_number_of_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=message(f"Y must be 2-D, got shape {shape}; use Y.reshape(-1, 1)")):
        as_matrix(np.zeros(shape), name="Y")
    if len(shape) != 1:
        with pytest.raises(ValueError, match=message(f"A must be 1-D or 2-D, got shape {shape}")):
            as_matrix(np.zeros(shape), vector=True)


def test_sparse_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=message("A must be 2-D, got a sparse array of shape (3,)")):
        as_matrix(sp.coo_array(np.ones(3)), vector=True)


def test_ragged_list_is_refused() -> None:
    with pytest.raises(
        ValueError, match=message("A must be rectangular, got rows of different lengths; pad them first")
    ):
        as_matrix([[1, 2], [3]])


def test_sparse_is_refused_where_only_dense_is_taken() -> None:
    with pytest.raises(TypeError, match=message("Y must be a dense array, got a sparse csc matrix; pass Y.toarray()")):
        as_matrix(sp.csc_array(np.eye(2)), name="Y", sparse=False)


def test_sparse_objects_are_refused() -> None:
    A = sp.csr_array((np.array([1, 2], object), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 2))
    with pytest.raises(TypeError, match="got object"):
        as_matrix(A)


# --- places -----------------------------------------------------------------------------------------------------------


def test_tables_go_to_the_device_of_the_data_and_back(xp: ModuleType, put: Callable[[Any], Any]) -> None:
    table = np.arange(6.0).reshape(2, 3)[:, ::-1]
    A = put(np.ones(2))
    moved = from_host(table, _arrays.namespace_of(A), A)
    assert array_namespace(moved) is array_namespace(A)
    assert str(device(moved)) == str(device(A))
    assert np.array_equal(to_host(moved), table)


def test_arrays_of_one_call_live_together() -> None:
    strict = [
        array_api_strict.asarray([1.0], device=array_api_strict.Device(name)) for name in ("CPU_DEVICE", "device1")
    ]
    assert check_together(np.ones(1), np.ones(2), names=("A", "b")) is None
    assert check_together(sp.csr_array(np.eye(2)), np.ones(2), names=("A", "b")) is None
    assert check_together(strict[1], strict[1], names=("A", "b")) is None
    with pytest.raises(ValueError, match=message("A and b must live in one array library and on one device, got")):
        check_together(strict[0], strict[1], names=("A", "b"))
    with pytest.raises(
        ValueError, match=r"got array_api_strict on .*device1.* and [\w.]*numpy on cpu; move one of them$"
    ):
        check_together(strict[1], np.ones(1), names=("A", "b"))


def test_a_backend_is_a_module(xp: ModuleType, put: Callable[[Any], Any]) -> None:
    found = kernel("uniforms", _arrays.namespace_of(put(np.ones(1))))
    home = {"numpy": "randla.kernels.tables", "cupy": "randla.gpu.tables"}
    assert found.__module__ == home.get(xp.__name__.rsplit(".", 1)[-1], "randla.kernels.reference.sketching")
    with pytest.raises(AttributeError):
        kernel("no_such_kernel", np)


# --- scalars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), np.uint64(3)])
def test_integers_pass(value: Any) -> None:
    found = check_integer(value, "rank", low=1, high=3)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.float64(2), [1], 1j])
def test_what_is_no_integer(value: Any) -> None:
    text = f"rank must be an integer, got {value!r} of type {type(value).__name__}"
    with pytest.raises(TypeError, match=message(text) + "$"):
        check_integer(value, "rank", low=0)


def test_integers_out_of_range() -> None:
    with pytest.raises(ValueError, match=message("rank must be at least 1, got 0") + "$"):
        check_integer(0, "rank", low=1)
    with pytest.raises(ValueError, match=message("rank must be in [1, 5], got 6; lower it") + "$"):
        check_integer(6, "rank", low=1, high=5, remedy="lower it")


@pytest.mark.parametrize(
    ("closed", "passing"), [("both", (0, 0.5, 1)), ("left", (0, 0.5)), ("right", (0.5, 1)), ("neither", (0.5,))]
)
def test_reals_and_their_ends(closed: str, passing: tuple[float, ...]) -> None:
    for value in (0, 0.5, 1, -0.1, 1.1, np.nan, np.inf):
        if value in passing:
            found = check_real(value, "tol", low=0, high=1, closed=closed)
            assert type(found) is float
            assert found == value
        else:
            ends = ("[" if closed in ("both", "left") else "(") + "0, 1" + ("]" if closed in ("both", "right") else ")")
            with pytest.raises(ValueError, match=message(f"tol must be finite and in {ends}, got {float(value)!r}")):
                check_real(value, "tol", low=0, high=1, closed=closed)


@pytest.mark.parametrize("value", [True, "0.5", b"1", None, [0.5, 0.6], 1j])
def test_what_is_no_real(value: Any) -> None:
    with pytest.raises(TypeError, match=message(f"tol must be a real number, got {value!r} of type")):
        check_real(value, "tol")


@pytest.mark.parametrize("value", ["qr", None, 1, ["svd"]])
def test_choices(value: Any) -> None:
    assert check_choice("svd", "method", ("svd", "eigh")) == "svd"
    with pytest.raises(ValueError, match=message(f"method must be one of 'svd', 'eigh', got {value!r}") + "$"):
        check_choice(value, "method", ("svd", "eigh"))
