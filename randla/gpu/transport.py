"""Passes over the plans of entropic transport on the GPU: costs stored in float32 or float64, all else in double.

Rows are folded by thread blocks, columns by threads over fixed chunks of rows, so results repeat bit for bit.  A sweep
takes two exponentials for each entry where the CPU takes one: a row need not fit into shared memory.
"""

from __future__ import annotations

from ._compile import launch
from .completion import _doubles
from .products import _matrix

METRICS = {"stored": 0, "sqeuclidean": 1, "euclidean": 2, "cityblock": 3}  # as in transport.cu
SOFTMIN, SWEEP, PLAN = range(3)
HEIGHT, THREADS, BINS = 4, 128, 64  # rows of a block, its threads, powers of two of a row; HEIGHT and BINS as there
FILLERS = 64  # threads of a block that looks at stored entries: as many sums by powers of two fit into shared memory
PARTS = 2**19  # sums of columns over chunks of rows that run side by side: twice the threads of a large device
LEAST_ROWS = 16  # of a chunk
TILE = 2**25  # entries of the plan that are stored at a time


def _source(metric, X, Y):
    """Arguments of every pass: the sizes and the arrays that give the costs, and the dtype of stored ones."""
    import cupy

    none = cupy.empty(0, cupy.float64)
    if metric == "stored":
        C = cupy.ascontiguousarray(X)
        return (METRICS[metric], *C.shape, 0), (C, none, none), C.dtype
    X, Y = _doubles(X), _doubles(Y.T)
    return (METRICS[metric], len(X), Y.shape[1], len(Y)), (none, X, Y), none.dtype


def _rows(source, kind, g, reg, given=None):
    """The largest exponents of the rows, and what `kind` says of them: values, factors and prices, float64 (n,)."""
    import cupy

    sizes, arrays, dtype = source
    n = sizes[1]
    tops, out, factors, prices = (cupy.empty(n, cupy.float64) for _ in range(4))
    given = tops if given is None else _doubles(given)
    launch(
        "transport", "row_pass", -(-n // HEIGHT), kind, *sizes, cupy.float64(reg), *arrays, _doubles(g),
        given, tops, out, factors, prices, dtype=dtype, per_block=1, threads=THREADS, shared=8 * 3 * HEIGHT * THREADS,
    )  # fmt: skip
    return tops, out, factors, prices


def _columns(source, g, reg, tops, factors):
    """Sums of the columns of the plan whose rows have these tops and factors."""
    import cupy

    sizes, arrays, dtype = source
    _, n, m, _ = sizes
    rows = max(LEAST_ROWS, -(-n // max(1, PARTS // m)))
    count = -(-n // rows)
    parts, sums = cupy.empty(count * m, cupy.float64), cupy.empty(m, cupy.float64)
    launch(
        "transport", "column_parts", count * m, rows, *sizes, cupy.float64(reg), *arrays, _doubles(g), tops, factors,
        parts, dtype=dtype,
    )  # fmt: skip
    launch("transport", "add_parts", m, count, parts, sums, dtype=dtype)
    return sums


def _tile(source, g, reg, tops, factors, first, last):
    """The rows first..last-1 of the plan."""
    import cupy

    sizes, arrays, dtype = source
    plan = cupy.empty((last - first, sizes[2]), cupy.float64)
    launch(
        "transport", "plan_tile", -(-(last - first) // HEIGHT) * sizes[2], first, last, *sizes, cupy.float64(reg),
        *arrays, _doubles(g), tops, factors, plan, dtype=dtype,
    )  # fmt: skip
    return plan


def _tiles(n, m):
    """Ranges of rows of which TILE entries are stored, or one row."""
    step = max(1, TILE // m)
    return [(first, min(n, first + step)) for first in range(0, n, step)]


def softmin_rows(metric, X, Y, g, reg):
    """-reg log(sum over j of exp((g_j - C_ij) / reg)), float64 (n,); see `reference`."""
    source = _source(metric, X, Y)
    return _rows(source, SOFTMIN, g, reg)[1]


def sinkhorn_sweep(metric, X, Y, a, g, reg):
    """f (n,) for which the rows of the plan sum to a, and the sums of its columns (m,); see `reference`."""
    source = _source(metric, X, Y)
    tops, f, factors, _ = _rows(source, SWEEP, g, reg, a)
    return f, _columns(source, g, reg, tops, factors)


def plan_sums(metric, X, Y, f, g, reg):
    """Sums of the rows (n,) and columns (m,) of the plan, and of its products with the costs in each row (n,)."""
    source = _source(metric, X, Y)
    tops, sums, factors, prices = _rows(source, PLAN, g, reg, f)
    return sums, _columns(source, g, reg, tops, factors), prices


def plan_matrix(metric, X, Y, f, g, reg):
    """The plan, float64 (n, m); see `reference`."""
    source = _source(metric, X, Y)
    tops, _, factors, _ = _rows(source, PLAN, g, reg, f)
    return _tile(source, g, reg, tops, factors, 0, len(factors))


def plan_matmul(metric, X, Y, f, g, reg, V):
    """The product of the plan and V (m, k), float64 (n, k); see `reference`."""
    import cupy

    source, V = _source(metric, X, Y), _doubles(V)
    tops, _, factors, _ = _rows(source, PLAN, g, reg, f)
    out = cupy.empty((len(factors), V.shape[1]), cupy.float64)
    for first, last in _tiles(len(factors), len(V)):
        out[first:last] = _tile(source, g, reg, tops, factors, first, last) @ V
    return out


def plan_entries(metric, X, Y, f, g, reg, share):
    """The plan without small entries, at most `share` of the sum of each row, as (data, indices, indptr) of CSR.

    Tiles of the plan are stored, so that what is counted is what is kept.  See `reference`.
    """
    import cupy

    source = _source(metric, X, Y)
    tops, totals, factors, _ = _rows(source, PLAN, g, reg, f)
    n, m = len(factors), source[0][2]
    parts, indptr = [], cupy.zeros(n + 1, cupy.int64)
    for first, last in _tiles(n, m):
        rows, plan = last - first, _tile(source, g, reg, tops, factors, first, last)
        least, counts = cupy.empty(rows, cupy.float64), cupy.empty(rows, cupy.int64)
        launch(
            "transport", "plan_thresholds", rows, m, cupy.float64(share), plan, totals[first:last],
            factors[first:last], least, counts, dtype=source[2], per_block=1, threads=FILLERS,
            shared=8 * (BINS * FILLERS + BINS + FILLERS),
        )  # fmt: skip
        indptr[first + 1 : last + 1] = indptr[first] + cupy.cumsum(counts)
        size = int(counts.sum())
        data, indices = cupy.empty(size, cupy.float64), cupy.empty(size, cupy.int32)
        launch(
            "transport", "plan_fill", rows, m, first, plan, least, indptr, data, indices, dtype=source[2],
            per_block=1, threads=FILLERS, shared=8 * FILLERS,
        )  # fmt: skip
        parts.append((data, indices))
    data, indices = (cupy.concatenate(part) for part in zip(*parts, strict=True))
    return data, indices, indptr


def scaling_sweep(K, a, v):
    """u = a / (K v), 0 where K v is 0, and K.T u, for a kernel K (n, m); see `reference`."""
    import cupy

    totals = K @ v
    u = cupy.where(totals > 0, a / cupy.where(totals > 0, totals, 1.0), 0.0)
    return u, K.T @ u


def schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter):
    """Solve (diag(diagonal) - S.T diag(1 / rows) S) x = right by conjugate gradients; x (m,), steps, whether solved.

    The transpose of S is stored too: cuSPARSE multiplies by a turned matrix with atomics.  See `reference`.
    """
    import cupy

    shape = len(rows), len(right)
    S, squares = (_matrix(part, indices, indptr, shape, cupy.float64) for part in (data, data * data))
    turned, squares = S.T.tocsr(), squares.T.tocsr()
    scale = diagonal - squares @ (1 / rows)
    scale = 1 / cupy.where(scale > 1e-3 * diagonal, scale, 1e-3 * diagonal)
    x, rest = cupy.zeros(len(right), cupy.float64), _doubles(right) + 0.0
    p = scale * rest
    energy, norm = float(rest @ p), float(abs(rest).sum())
    goal = tol * norm
    for step in range(max_iter):
        if norm <= goal:
            return x, step, True
        image = diagonal * p - turned @ ((S @ p) / rows)
        curvature = float(p @ image)
        if not curvature > 0:
            return x, step, False
        length = energy / curvature
        x, rest = x + length * p, rest - length * image
        before, energy, norm = energy, float((rest * scale) @ rest), float(abs(rest).sum())
        p = scale * rest + energy / before * p
    return x, max_iter, norm <= goal
