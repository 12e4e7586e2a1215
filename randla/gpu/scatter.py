"""Products with sign tables on the GPU: tables are turned over by an integer sort, then every output entry is a sum.

Each entry is summed by one thread in the order of its list, so equal inputs give equal bits.  Strides are free: what is
not row-major is copied into a workspace on the device, since a panel read once is cheaper than columns read at random.
"""

from __future__ import annotations

from ._compile import launch

PIECE = 256  # longest list that one thread sums where the lists are long; their sums are added in a second round
LANES = 32  # threads to a row of a sparse product, as in scatter.cu


def by_position(pointers, packed, n_positions):
    """The table turned over: for each position the signed items that name it, in their order."""
    import cupy

    n_items = len(pointers) - 1
    keys = cupy.empty(packed.size, cupy.int64)
    launch("scatter", "table_keys", n_items, _integers(pointers), _integers(packed), keys)
    keys.sort()
    starts = cupy.searchsorted(keys, cupy.arange(n_positions + 1, dtype=cupy.int64) * (2 * n_items))
    return starts, keys % max(1, 2 * n_items)


def _integers(table):
    import cupy

    return cupy.ascontiguousarray(cupy.asarray(table), dtype=cupy.int64)


def _add_lists(pointers, packed, A, out):
    """Row i of out += the signed rows of A that list i names; one thread to an entry."""
    import cupy

    A = cupy.ascontiguousarray(A, dtype=out.dtype)
    total = out if out.flags.c_contiguous else cupy.zeros(out.shape, out.dtype)
    width = out.shape[1] * (2 if out.dtype.kind == "c" else 1)  # the table is real: both parts alike
    launch("scatter", "signed_sums", len(out) * width, width, pointers, packed, A, total, dtype=out.dtype)
    if total is not out:
        out += total


def gather_rows(pointers, packed, Y, out):
    """out += T @ Y: row i of out collects the positions of item i."""
    import cupy

    pointers, packed = _integers(pointers), _integers(packed)
    if packed.size <= PIECE * len(out):
        return _add_lists(pointers, packed, Y, out)
    # Few long lists would leave most of the device idle: they are cut, and the pieces of each added in order.
    pieces = cupy.zeros(len(pointers), cupy.int64)
    pieces[1:] = cupy.cumsum((cupy.diff(pointers) + (PIECE - 1)) // PIECE)
    number = cupy.arange(int(pieces[-1]) + 1, dtype=cupy.int64)
    owner = cupy.searchsorted(pieces, number, side="right") - 1
    sums = cupy.zeros((number.size - 1, out.shape[1]), out.dtype)
    _add_lists(pointers[owner] + PIECE * (number - pieces[owner]), packed, Y, sums)
    return _add_lists(pieces, 2 * number[:-1], sums, out)


def scatter_rows(pointers, packed, A, out):
    """out += T.T @ A, T the signed incidence matrix (items, positions): row i of A goes to the positions of item i."""
    gather_rows(*by_position(pointers, packed, len(out)), A, out)


def scatter_columns(pointers, packed, A, out):
    """out += A @ T: column i of A goes to the positions of item i."""
    scatter_rows(pointers, packed, A.T, out.T)


def _add_product(left, right, out):
    """out += L @ R for two CSR matrices (indptr, indices, data), of which at most one is complex."""
    import cupy

    (lp, li, lv), (rp, ri, rv) = left, right
    pattern_l, pattern_r = (_integers(lp), _integers(li)), (_integers(rp), _integers(ri))
    for part in ("real", "imag") if "c" in (lv.dtype.kind, rv.dtype.kind) else ("real",):
        target = getattr(out, part)
        lx, rx = (
            cupy.ascontiguousarray(getattr(v, part) if v.dtype.kind == "c" else v, dtype=target.dtype) for v in (lv, rv)
        )
        strides = (s // target.itemsize for s in target.strides)
        n_items = LANES * len(out)
        launch("scatter", "sparse_product", n_items, *pattern_l, lx, *pattern_r, rx, *strides, target, dtype=out.dtype)


def scatter_rows_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_rows` for a CSR matrix A given as its three arrays."""
    starts, items = by_position(pointers, packed, len(out))
    _add_product((starts, items >> 1, 1 - 2 * (items & 1)), (indptr, indices, data), out)


def scatter_columns_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_columns` for a CSR matrix A given as its three arrays."""
    packed = _integers(packed)
    _add_product((indptr, indices, data), (pointers, packed >> 1, 1 - 2 * (packed & 1)), out)
