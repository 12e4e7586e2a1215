"""The contract table: for every kernel its inputs, where its result is, and how equal its twins must be.

`check` holds a module (`randla.kernels`, `randla.gpu`) to one line of the table; the truth is the reference module.
Integer tables and all draws are equal bit for bit, sums up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from randla._random import Key, Stream
from randla.kernels import reference

from .conftest import tolerance

KEY = Key(0x9E3779B9, 0x12345678)
STARTS = (0, 7, 2**33 + 5)  # an aligned one, one inside a block of bits, one that needs 64 bits
DTYPES = ("float32", "float64", "complex64", "complex128")


class Contract(NamedTuple):
    """One line: `build` makes fresh arguments, `output` is the argument that is written (None: the value returned)."""

    kernel: str
    case: str
    build: Callable[[], tuple[Any, ...]]
    output: int | None
    grade: str  # "bitwise" or "rounding"
    #: Terms of a sum and a bound of their norm, or one for each part of the result, from the arguments.
    scale: Callable[..., tuple[int, float | tuple[float, ...]]] | None = None

    @property
    def id(self) -> str:
        return f"{self.kernel}-{self.case}"


def outcome(
    contract: Contract,
    module: ModuleType,
    put: Callable[[np.ndarray], Any] = np.asarray,
    get: Callable[[Any], np.ndarray] = np.asarray,
) -> tuple[np.ndarray, ...]:
    """The result of a kernel as host arrays; `put` moves its arguments to the device, `get` back."""
    arguments = [put(a) if isinstance(a, np.ndarray) else a for a in contract.build()]
    result = getattr(module, contract.kernel)(*arguments)
    if contract.output is not None:
        assert result is None, "a kernel that writes an argument returns nothing"
        result = arguments[contract.output]
    return tuple(get(part) for part in (result if isinstance(result, tuple) else (result,)))


def check(contract: Contract, module: ModuleType, **moves: Callable[..., Any]) -> None:
    """Assert that the kernel of `module` keeps the contract."""
    found, expected = outcome(contract, module, **moves), outcome(contract, reference)
    assert [(part.dtype, part.shape) for part in found] == [(part.dtype, part.shape) for part in expected]
    dtype = min(
        (part.dtype for part in expected), key=lambda dtype: dtype.itemsize
    )  # the others are sums of its entries
    for number, (mine, truth) in enumerate(zip(found, expected, strict=True)):
        if contract.grade == "bitwise":
            assert np.array_equal(mine, truth), f"{np.sum(mine != truth)} of {truth.size} entries differ"
        else:
            terms, norms = contract.scale(*contract.build())
            norm = norms[number] if isinstance(norms, tuple) else norms
            apart = mine != truth  # infinity equals infinity
            worst = float(np.max(np.abs(1.0 * mine[apart] - truth[apart]), initial=0.0))  # 1.0: also of booleans
            allowed = tolerance(dtype, terms, norm)
            assert worst <= allowed, f"error {worst:.3g}, allowed {allowed:.3g}"


def contracts() -> Iterator[Contract]:
    """Every line of the table."""
    from .contracts_binary import binary_contracts  # which is made of what stands here
    from .contracts_completion import completion_contracts
    from .contracts_nmf import nmf_contracts
    from .contracts_symmetric import symmetric_contracts
    from .contracts_transport import transport_contracts

    groups = (
        _table_contracts(),
        _scatter_contracts(),
        _csr_contracts(),
        _hadamard_contracts(),
        _sampling_contracts(),
        _regression_contracts(),
        _kernel_matrix_contracts(),
        _pivot_contracts(),
        _moment_contracts(),
        binary_contracts(),
        completion_contracts(),
        nmf_contracts(),
        symmetric_contracts(),
        transport_contracts(),
    )
    return itertools.chain(*groups)


# --- tables -----------------------------------------------------------------------------------------------------------


def thresholds(density: float) -> np.ndarray:
    """(1 - density)**g in units of 2**-31, down to 0."""
    values = np.floor((1 - density) ** np.arange(10_000) * 2.0**31).astype(np.int64)
    return values[: np.argmin(values) + 1]


def _tables() -> Iterator[tuple[Any, ...]]:
    for start in STARTS:
        for n_lanes in (1, 3):
            yield "philox_words", KEY, Stream.GAUSSIAN, start, start + 65, n_lanes
        yield "uniforms", KEY, Stream.SAMPLE, start, start + 300
        for nnz, sketch_size in ((1, 1), (1, 50), (2, 50), (3, 50), (5, 5), (8, 64), (9, 1000), (4, 2**30)):
            yield "sparse_sign_table", KEY, start, start + 40, nnz, sketch_size
        for nnz, n in ((1, 1), (5, 1000), (3, 2**32 - 1)):
            yield "less_table", KEY, start, start + 30, nnz, n
        for stop in (start, start + 1, start + 300):
            yield "sign_bits", KEY, Stream.TRIGONOMETRIC_SIGN, 2, start, stop
        for sketch_size, dtype in itertools.product((1, 5, 128, 130), ("float32", "float64")):
            yield "rademacher_table", KEY, start, start + 20, sketch_size, dtype
            yield "gaussian_table", KEY, start, start + 20, sketch_size, dtype
        for density, sketch_size in ((1.0, 5), (0.3, 40), (0.01, 500)):
            yield "sparse_jl_table", KEY, thresholds(density), start, start + 30, sketch_size
    yield "gaussian_table", KEY, 0, 2000, 64, "float32"
    yield "gaussian_table", KEY, 3, 4, 3, "complex128"
    yield "sparse_sign_table", KEY, 5, 5, 3, 50
    yield "sparse_jl_table", KEY, thresholds(0.5), 5, 5, 3
    for n in (1, 10, 2**32 - 1, 2**32):  # the last but one needs every carry
        yield "uniform_rows", KEY, n, 200
    for n, size in ((1, 1), (2, 1), (10, 10), (1000, 37), (2**40 + 3, 50), (5, 0)):
        yield "distinct_rows", KEY, n, size


def _table_contracts() -> Iterator[Contract]:
    for name, *arguments in _tables():
        case = "-".join(str(int(a) if isinstance(a, Stream) else a) for a in arguments if not _is_hidden(a))
        yield Contract(name, case, lambda arguments=arguments: tuple(arguments), None, "bitwise")


def _is_hidden(argument: Any) -> bool:
    return isinstance(argument, (Key, np.ndarray))


# --- products with sign tables ----------------------------------------------------------------------------------------


def _panel(rng: np.random.Generator, shape: tuple[int, int], dtype: str, layout: str = "C") -> np.ndarray:
    """Normal deviates; layout C, F, or S for every second entry of a larger array."""
    step = 2 if layout == "S" else 1
    A = rng.standard_normal((shape[0] * step, shape[1] * step))
    if dtype.startswith("complex"):
        A = A + 1j * rng.standard_normal(A.shape)
    return np.asarray(A, dtype, order="F" if layout == "F" else "C")[::step, ::step]


def _sign_table(rng: np.random.Generator, n_items: int, n_positions: int, longest: int, dtype: str) -> tuple:
    """A ragged table with empty lists and repeated positions."""
    lengths = rng.integers(0, longest + 1, n_items)
    packed = rng.integers(0, 2 * n_positions, lengths.sum()).astype(dtype)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), packed


#: items, positions, longest list, columns; the last has lists that are summed in pieces
SHAPES = ((1, 1, 1, 1), (30, 7, 4, 5), (7, 40, 9, 33), (0, 3, 2, 2), (900, 2, 6, 3))


def _scatter_cases() -> Iterator[tuple[tuple[int, int, int, int], str, str]]:
    for shape in SHAPES:
        yield shape, "float64", "C"
    for dtype, layout in itertools.product(DTYPES, "CFS"):
        yield SHAPES[1], dtype, layout


def _norm(*arrays: np.ndarray) -> float:
    return float(np.prod([np.linalg.norm(A.ravel()) for A in arrays]))


def _scatter_scale(pointers: np.ndarray, packed: np.ndarray, *rest: np.ndarray) -> tuple[int, float]:
    items = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    counts = np.unique(np.stack([items, packed >> 1]), axis=1, return_counts=True)[1]
    return packed.size, _norm(counts) * _norm(rest[0]) + _norm(rest[-1])


def _scatter_contracts() -> Iterator[Contract]:
    for shape, dtype, layout in dict.fromkeys(_scatter_cases()):
        n_items, n_positions, _, d = shape

        def build(kernel, shape=shape, dtype=dtype, layout=layout):
            n_items, n_positions, longest, d = shape
            rng = np.random.default_rng(sum(shape))
            table = _sign_table(rng, n_items, n_positions, longest, "int32" if layout == "C" else "int64")
            sizes = {
                "scatter_rows": ((n_items, d), (n_positions, d)),
                "scatter_columns": ((d, n_items), (d, n_positions)),
                "gather_rows": ((n_positions, d), (n_items, d)),
            }
            order = "C" if kernel == "scatter_rows" else layout  # its rows are runs of memory
            return (*table, *(_panel(rng, size, dtype, order) for size in sizes[kernel]))

        case = f"{n_items}x{n_positions}x{d}-{dtype}-{layout}"
        for kernel in ("scatter_rows", "scatter_columns", "gather_rows"):
            yield Contract(kernel, case, lambda b=build, k=kernel: b(k), 3, "rounding", _scatter_scale)


# --- products with CSR matrices ---------------------------------------------------------------------------------------


def _csr(rng: np.random.Generator, shape: tuple[int, int], dtype: str, *, canonical: bool) -> tuple[np.ndarray, ...]:
    """The three arrays; those of a matrix that is not canonical have repeated and unsorted columns."""
    lengths = rng.integers(0, 6, shape[0])
    indices = rng.integers(0, shape[1], lengths.sum()).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    data = _panel(rng, (1, indices.size), dtype)[0]
    A = sp.csr_array((data, indices, indptr), shape=shape)
    if canonical:
        A.sum_duplicates()
    return A.data, A.indices, A.indptr


def _csr_contracts() -> Iterator[Contract]:
    for dtype, canonical in itertools.product(DTYPES, (True, False)):
        case = f"{dtype}-{'canonical' if canonical else 'raw'}"

        def product(dtype=dtype, canonical=canonical):
            rng = np.random.default_rng(1)
            return (*_csr(rng, (20, 9), dtype, canonical=canonical), _panel(rng, (9, 4), dtype))

        def transposed(dtype=dtype, canonical=canonical):
            rng = np.random.default_rng(2)
            return (*_csr(rng, (20, 9), dtype, canonical=canonical), _panel(rng, (20, 4), dtype, "F"), 9)

        def rows(dtype=dtype, canonical=canonical):
            rng = np.random.default_rng(3)
            table, A = _sign_table(rng, 25, 6, 4, "int32"), _csr(rng, (25, 70), dtype, canonical=canonical)
            return (*table, *A, _panel(rng, (6, 70), dtype))

        def columns(dtype=dtype, canonical=canonical):
            rng = np.random.default_rng(4)
            table, A = _sign_table(rng, 25, 40, 4, "int32"), _csr(rng, (12, 25), dtype, canonical=canonical)
            return (*table, *A, _panel(rng, (12, 40), dtype, "F"))

        def pieces(dtype=dtype, canonical=canonical):
            rng = np.random.default_rng(9)
            return (*_csr(rng, (60, 9), dtype, canonical=canonical), _panel(rng, (9, 21), dtype), 20)

        yield Contract("csr_matmul", case, product, None, "rounding", _csr_scale)
        yield Contract("csr_matmul", f"{case}-pieces", pieces, None, "rounding", _csr_scale)
        yield Contract("csr_rmatmul", case, transposed, None, "rounding", _csr_scale)
        yield Contract("scatter_rows_csr", case, rows, 5, "rounding", _scatter_scale)
        yield Contract("scatter_columns_csr", case, columns, 5, "rounding", _scatter_scale)


def _csr_scale(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, X: np.ndarray, *_: int) -> tuple[int, float]:
    return data.size, data.size**0.5 * _norm(data, X)


# --- Walsh-Hadamard transforms ----------------------------------------------------------------------------------------

#: padded rows, rows of A, columns, rounds, sampled rows
TRANSFORMS = (
    (1, 1, 1, 1, (0,)), (2, 2, 3, 2, (1,)), (64, 50, 1, 1, (0, 5, 63)), (64, 64, 5, 3, (9, 9, 2)),
    (256, 200, 17, 2, tuple(range(0, 256, 5))), (16, 9, 40, 2, ()), (1024, 1000, 2, 2, (1, 700, 1023)),
)  # fmt: skip

#: block size, start, rows of A, columns, rounds, sampled rows
BLOCKS = (
    (16, 0, 48, 3, 2, (0, 7, 9)), (16, 5, 40, 3, 1, (3, 3, 15)), (64, 37, 20, 5, 2, (1, 60)),
    (128, 130, 300, 2, 2, (4,)), (8, 2**33 + 5, 2100, 1, 2, (1, 6)), (1, 3, 4, 2, 1, (0,)),
)  # fmt: skip


def _hadamard_contracts() -> Iterator[Contract]:
    every = [(c, "float64", "C") for c in TRANSFORMS] + [(TRANSFORMS[4], d, o) for d in DTYPES for o in "CFS"]
    for (n_padded, n, d, rounds, rows), dtype, layout in dict.fromkeys(every):

        def build(adjoint, n_padded=n_padded, sizes=(n, d), rounds=rounds, rows=rows, dtype=dtype, layout=layout):
            rng, small = np.random.default_rng(5), (len(rows), sizes[1])
            A, out = (_panel(rng, size, dtype, layout) for size in ((small, sizes) if adjoint else (sizes, small)))
            return KEY, A, n_padded, rounds, np.array(rows, np.int64), out

        def scale(key, A, n_padded, rounds, rows, out):
            return _terms(n_padded, rounds, A, len(rows))

        case = f"{n_padded}-{n}x{d}-{rounds}-{len(rows)}-{dtype}-{layout}"
        yield Contract("srht_apply", case, lambda b=build: b(False), 5, "rounding", scale)
        yield Contract("srht_adjoint", case, lambda b=build: b(True), 5, "rounding", scale)
    for (size, start, n, d, rounds, rows), dtype in itertools.product(BLOCKS, ("float64", "complex64")):

        def build(adjoint, size=size, start=start, sizes=(n, d), rounds=rounds, rows=rows, dtype=dtype):
            rng, small = np.random.default_rng(6), (len(rows), sizes[1])
            A, out = (_panel(rng, shape, dtype) for shape in ((small, sizes) if adjoint else (sizes, small)))
            return KEY, A, start, size, rounds, np.array(rows, np.int64), out

        def scale(key, A, start, size, rounds, rows, out):
            n_blocks = (max(len(A), len(out)) - 1) // size + 2
            terms, norm = _terms(size, rounds, A, len(rows))
            return terms * n_blocks, n_blocks**0.5 * norm + _norm(out)

        case = f"{size}-{start}-{n}x{d}-{rounds}-{dtype}"
        yield Contract("block_srht_apply", case, lambda b=build: b(False), 6, "rounding", scale)
        yield Contract("block_srht_adjoint", case, lambda b=build: b(True), 6, "rounding", scale)


def _terms(n_padded: int, rounds: int, A: np.ndarray, n_sampled: int) -> tuple[int, float]:
    # H multiplies lengths by sqrt(n_padded); a row sampled several times, as often again.
    return n_padded * rounds, n_padded ** (rounds / 2) * max(1, n_sampled) ** 0.5 * _norm(A)


# --- sampling ---------------------------------------------------------------------------------------------------------


def _sampling_contracts() -> Iterator[Contract]:
    listed = {str(start): np.arange(start, start + 300)[::-1] for start in STARTS}
    listed |= {"edges": np.array([-1, 2**63 - 1, -(2**63), 5, 5]), "none": np.zeros(0, np.int64)}
    for case, index in listed.items():
        arguments = KEY, Stream.COORDINATED, index
        yield Contract("uniforms_at", case, lambda arguments=arguments: arguments, None, "bitwise")
    for shape, dtype, layout in itertools.product(((1, 1), (0, 3), (3, 0), (1030, 7)), DTYPES[:2], "CFS"):
        for power in (1, 2):

            def dense(shape=shape, dtype=dtype, layout=layout, power=power):
                return _panel(np.random.default_rng(8), shape, dtype, layout), power

            case = f"{shape[0]}x{shape[1]}-{dtype}-{layout}-{power}"
            yield Contract("row_power_sums", case, dense, None, "rounding", _power_scale)
    for dtype, power in itertools.product(DTYPES[:2], (1, 2)):

        def sparse(dtype=dtype, power=power):
            data, _, indptr = _csr(np.random.default_rng(9), (40, 30), dtype, canonical=True)
            return data, indptr, power

        yield Contract("csr_row_power_sums", f"{dtype}-{power}", sparse, None, "rounding", _power_scale)


def _power_scale(values: np.ndarray, *rest: Any) -> tuple[int, float]:
    return values.size, float(np.sum(np.abs(values.astype(np.float64)) ** rest[-1]))


# --- products of regression -------------------------------------------------------------------------------------------

#: rows, columns, columns of the panel: halves of vectors as tails, rows in pairs, several stripes, nothing
SYSTEMS = (
    (1, 1, 1), (7, 5, 1), (8, 3, 2), (150, 31, 1), (67, 40, 3), (4200, 17, 1), (4100, 16, 5), (0, 3, 1), (3, 0, 2),
    (2, 3, 0),
)  # fmt: skip


def _regression_contracts() -> Iterator[Contract]:
    every = [(size, "float64", "C") for size in SYSTEMS]
    every += [(size, dtype, layout) for size in SYSTEMS[2:7] for dtype in DTYPES[:2] for layout in "CFS"]
    for (size, dtype, layout), weighted in itertools.product(dict.fromkeys(every), (True, False)):
        case = f"{'x'.join(map(str, size))}-{dtype}-{layout}-{'weights' if weighted else 'plain'}"

        def dense(size=size, dtype=dtype, layout=layout, weighted=weighted):
            rng = np.random.default_rng(10)
            return (_panel(rng, size[:2], dtype, layout), *_right_sides(rng, *size, dtype, layout, weighted=weighted))

        yield Contract("normal_products", case, lambda b=dense: _without_b(b()), None, "rounding", _normal_scale)
        yield Contract("normal_residual", case, dense, None, "rounding", _normal_scale)
    sparse_sizes = ((1, 1, 1), (40, 9, 1), (900, 2, 1), (700, 8, 5), (30, 50, 17), (0, 2, 3))
    for size, dtype, weighted, raw in itertools.product(sparse_sizes, DTYPES[:2], (True, False), (True, False)):
        case = (
            f"{'x'.join(map(str, size))}-{dtype}-{'weights' if weighted else 'plain'}-{'raw' if raw else 'canonical'}"
        )

        def sparse(size=size, dtype=dtype, weighted=weighted, raw=raw):
            rng = np.random.default_rng(11)
            A = _csr(rng, size[:2], dtype, canonical=not raw)
            return (*A, *_right_sides(rng, *size, dtype, "C", weighted=weighted))

        yield Contract("csr_normal_products", case, lambda b=sparse: _without_b(b()), None, "rounding", _normal_scale)
        yield Contract("csr_normal_residual", case, sparse, None, "rounding", _normal_scale)


def _right_sides(rng: np.random.Generator, m: int, n: int, k: int, dtype: str, layout: str, *, weighted: bool) -> tuple:
    X, B = _panel(rng, (n, k), dtype, layout), _panel(rng, (m, k), dtype, layout)
    return X, B, rng.random(m).astype(dtype) if weighted else None


def _without_b(arguments: tuple) -> tuple:
    return (*arguments[:-2], arguments[-1])


def _normal_scale(A: np.ndarray, *rest: Any) -> tuple[int, tuple[float, ...]]:
    *before, weights = rest
    if A.ndim == 1:  # the data of a CSR matrix, in which a column may be named several times in a row
        before = before[2:]
    norm_a = A.size**0.5 * _norm(A) if A.ndim == 1 else _norm(A)
    largest = 1.0 if weights is None else float(np.max(weights, initial=0.0))
    size = norm_a * _norm(before[0]) + (_norm(before[1]) if len(before) > 1 else 0.0)
    terms = A.size if A.ndim == 1 else sum(A.shape)
    return terms, (largest * norm_a * size, largest * size**2)


# --- kernel matrices and pivots ---------------------------------------------------------------------------------------

KERNEL_NAMES = ("linear", "polynomial", "rbf", "laplacian", "matern32", "matern52")


def _kernel_matrix_contracts() -> Iterator[Contract]:
    sizes = ((1, 1, 1), (5, 7, 3), (70, 1030, 6), (0, 3, 2), (3, 0, 2), (4, 3, 0))
    every = [(size, dtype, "C") for size in sizes for dtype in DTYPES[:2]] + [(sizes[1], "float64", x) for x in "FS"]
    for name, (size, dtype, layout) in itertools.product(KERNEL_NAMES, every):

        def build(name=name, size=size, dtype=dtype, layout=layout):
            rng = np.random.default_rng(12)
            m, n, d = size
            return name, _panel(rng, (m, d), dtype, layout), _panel(rng, (n, d), dtype, layout), 0.3, 0.5, 3

        case = f"{name}-{'x'.join(map(str, size))}-{dtype}-{layout}"
        yield Contract("kernel_tile", case, build, None, "rounding", _kernel_scale)


def _kernel_scale(name: str, X: np.ndarray, Y: np.ndarray, gamma: float, *_: Any) -> tuple[int, float]:
    """Radial kernels see errors of squared distances; a Matern kernel its square root, flattened by its own slope."""
    largest = max((float(np.max(np.sum(Z.astype(float) ** 2, axis=1), initial=0.0)) for Z in (X, Y)), default=0.0)
    power = (1 + gamma * largest) ** 3 if name == "polynomial" else 0.0
    return X.shape[1] + 4, 1 + largest + power + (10 * gamma**2 * largest)


def _pivot_contracts() -> Iterator[Contract]:
    for n, count, start in ((1, 1, 0), (5, 3, 7), (1500, 5, 2**32 - 3), (4100, 12, 0), (3, 8, 1), (0, 2, 0)):

        def race(n=n, count=count, start=start):
            weights = np.random.default_rng(13).random(n) ** 8
            weights[::3] *= n % 2  # zeros among the even ones
            return KEY, start, start + 3, weights, count

        yield Contract("race_candidates", f"{n}-{count}-{start}", race, None, "rounding", _race_scale)
    for b, races in ((1, 1), (40, 12), (130, 60)):

        def run(b=b, races=races):
            H = _definite(b)
            d = np.diag(H).copy()
            index, times = reference.race_candidates(KEY, 0, races, d, min(4, b))
            return H, d, index, times, 1e-12 * d

        yield Contract("race_pivots", f"{b}-{races}", run, None, "rounding", _pivot_scale)
        for share in (0.0, 0.1):

            def greedy(b=b, share=share):
                H = _definite(b)
                return H, np.diag(H).copy(), 1e-12 * np.diag(H), share

            yield Contract("greedy_pivots", f"{b}-{share}", greedy, None, "rounding", _pivot_scale)
    for (n, a, width), dtype, output in itertools.product(((1, 0, 1), (53, 3, 9), (9, 0, 0)), DTYPES[:2], (4, 5)):

        def store(n=n, a=a, width=width, dtype=dtype):
            rng = np.random.default_rng(14)
            F, tile = np.zeros((n + 2, a + width + 1), dtype), _panel(rng, (width, n), dtype)
            return 1, a, tile, np.full(n + 2, 0.1), F, width * rng.random(n + 2)

        yield Contract("store_columns", f"{n}-{a}-{width}-{dtype}-{output}", store, output, "rounding", _store_scale)


def _definite(b: int) -> np.ndarray:
    factor = np.random.default_rng(15).standard_normal((b, b + 3)) * 0.98 ** np.arange(b + 3)
    return np.einsum("ik,jk->ij", factor, factor)  # not by BLAS: equal bits for any number of threads


def _race_scale(key: Key, start: int, stop: int, weights: np.ndarray, count: int) -> tuple[int, tuple[float, ...]]:
    times = reference.race_candidates(key, start, stop, weights, count)[1]
    return 4, (0.0, float(np.max(times[np.isfinite(times)], initial=0.0)))


def _pivot_scale(H: np.ndarray, d: np.ndarray, *_: Any) -> tuple[int, tuple[float, ...]]:
    return len(H), (0.0, 1e4 * float(np.max(d)) ** 0.5)  # pivots fall by 1e-3, and columns are divided by them


def _store_scale(start: int, first: int, tile: np.ndarray, *rest: np.ndarray) -> tuple[int, float]:
    return len(tile) + 1, _norm(tile) + _norm(tile) ** 2 + _norm(rest[-1])


# --- pairs of entries -------------------------------------------------------------------------------------------------


def _moment_contracts() -> Iterator[Contract]:
    """Few and many pairs, which are sorted and found; a column that every row has; no rows, no columns, no pairs."""
    shapes = ((50, 12, 0.5), (300, 70, 0.02), (4, 1000, 0.01), (0, 5, 1.0), (5, 0, 1.0), (9, 4, 0.0), (7, 3, 1.0))
    for (m, n, density), (n_groups, width), index in itertools.product(shapes, ((1, 1), (3, 4)), ("int32", "int64")):

        def build(m=m, n=n, density=density, n_groups=n_groups, width=width, index=index):
            rng = np.random.default_rng(12)
            A = sp.random_array((m, n), density=density, rng=rng, format="csr")
            A.sort_indices()
            left, right = (rng.standard_normal((A.nnz, width)) for _ in range(2))
            groups = rng.integers(0, n_groups, m)
            return left, right, groups, A.indices.astype(index), A.indptr.astype(index), n, n_groups

        case = f"{m}x{n}-{density}-{n_groups}-{width}-{index}"
        yield Contract("pair_sums", case, build, None, "rounding", _pair_scale)


def _pair_scale(left: np.ndarray, right: np.ndarray, groups: np.ndarray, *_: Any) -> tuple[int, tuple[float, ...]]:
    size = float(np.abs(left).max(initial=0.0) * np.abs(right).max(initial=0.0)) * len(groups)
    return max(1, len(groups)), (0.0, 0.0, size)
