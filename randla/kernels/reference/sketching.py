"""Truths of sketches, samples, regression and kernel matrices.

`key` is a `randla.Key`.  An entry of a sign table is packed as ``2 * position + (1 if negative else 0)``.
A ragged table is (pointers, packed): the entries of item i are ``packed[pointers[i]:pointers[i + 1]]``.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, device

from ..._random import Stream, words

# --- tables --------------------------------------------------------------------------------------------------------


def philox_words(key, stream, start, stop, n_lanes):
    """Words of the indices start..stop-1, lane after lane; uint32 (stop - start, 4 * n_lanes)."""
    block = words(key, stream, np.arange(start, stop, dtype=np.uint64)[:, None], np.arange(n_lanes, dtype=np.uint64))
    return block.reshape(stop - start, 4 * n_lanes)


def uniforms(key, stream, start, stop):
    """Uniforms on [0, 1) with 53 bits: words 0 and 1 of lane 0; float64 (stop - start,)."""
    w = philox_words(key, stream, start, stop, 1)
    return ((w[:, 0] >> np.uint32(5)) * 67108864.0 + (w[:, 1] >> np.uint32(6))) / 9007199254740992.0


def _scaled(w0, w1, n):
    """High 64 bits of (w1 * 2**32 + w0) * n for n <= 2**32: a bounded integer by multiply-shift."""
    w0, w1, n = w0.astype(np.uint64), w1.astype(np.uint64), np.uint64(n)
    if n == np.uint64(2**32):
        return w1.astype(np.int64)
    return ((w1 * n + ((w0 * n) >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)


def uniform_rows(key, n, size):
    """`size` indices drawn uniformly with replacement from range(n); int64 (size,)."""
    w = philox_words(key, Stream.SAMPLE, 0, size, 1)
    return _scaled(w[:, 0], w[:, 1], n)


def distinct_rows(key, n, size):
    """The first `size` values of a pseudorandom permutation of range(n), ascending; int64 (size,).

    Ten Feistel rounds on numbers of 2h bits, with the first Philox word as round function, walk from each index until
    they fall below n (cycle walking), so distinct indices give distinct values.
    """
    h = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64(2**h - 1)
    value = np.arange(size, dtype=np.uint64)
    walking = np.ones(size, bool)
    while walking.any():
        left, right = value[walking] >> np.uint64(h), value[walking] & mask
        for r in range(10):
            left, right = right, left ^ (words(key, Stream.PERMUTATION, right, r)[..., 0] & mask)
        value[walking] = (left << np.uint64(h)) | right
        walking[walking] = value[walking] >= n
    return np.sort(value).astype(np.int64)


def sparse_sign_table(key, start, stop, nnz, sketch_size):
    """Columns start..stop-1 of a block-constructed sparse sign matrix; packed int32 (stop - start, nnz).

    Entry t of a column lies in the band of rows [t k / nnz, (t + 1) k / nnz), so the nnz rows are distinct.  Column i
    owns the P words from number i P of the stream, P the power of two that holds nnz, four words to a Philox block.
    """
    owned = 1 << (nnz - 1).bit_length()
    address = np.arange(start, stop, dtype=np.uint64)[:, None] * np.uint64(owned) + np.arange(nnz, dtype=np.uint64)
    block = words(key, Stream.SPARSE_SIGN, address >> np.uint64(2), 0)
    w = np.take_along_axis(block, (address & np.uint64(3)).astype(np.int64)[..., None], axis=-1)[..., 0].astype(
        np.int64
    )
    band = np.arange(nnz, dtype=np.int64) * sketch_size // nnz
    width = np.arange(1, nnz + 1, dtype=np.int64) * sketch_size // nnz - band
    return (2 * (band + (((w >> 1) * width) >> 31)) + (w & 1)).astype(np.int32)


def sparse_jl_table(key, thresholds, start, stop, sketch_size):
    """Columns of a matrix with independent entries: +-1 with probability p, else 0; ragged packed int32 table.

    The number of zeros before the next nonzero is geometric: at least g with probability (1 - p)**g, which
    ``thresholds[g]`` holds in units of 2**-31 (descending, ending with 0).
    """
    pointers, packed = np.zeros(stop - start + 1, np.int64), []
    ascending = -np.asarray(thresholds, np.int64)
    for i in range(start, stop):
        row, t = -1, 0
        while True:
            if t % 4 == 0:
                block = words(key, Stream.SPARSE_JL, i, t // 4)
            w = int(block[t % 4])
            # the largest g with w >> 1 below thresholds[g]; g = 0 always holds
            row += 1 + int(np.searchsorted(ascending, -(w >> 1), side="left")) - 1
            if row >= sketch_size:
                break
            packed.append(2 * row + (w & 1))
            t += 1
        pointers[i - start + 1] = len(packed)
    return pointers, np.array(packed, np.int32)


def less_table(key, start, stop, nnz, n):
    """Rows start..stop-1 of a LESS-uniform matrix: nnz draws with replacement from range(n); packed int64."""
    index = np.arange(start, stop, dtype=np.uint64)[:, None]
    w = words(key, Stream.LESS, index, np.arange(nnz, dtype=np.uint64))
    return 2 * _scaled(w[..., 0], w[..., 1], n) + (w[..., 2] & np.uint32(1)).astype(np.int64)


def rademacher_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a dense sign matrix, one per row of the table; (stop - start, sketch_size), +-1."""
    w = philox_words(key, Stream.RADEMACHER, start, stop, -(-sketch_size // 128))
    bits = (w[:, :, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return (1 - 2 * bits.reshape(stop - start, -1)[:, :sketch_size].astype(np.int8)).astype(dtype)


def sign_bits(key, stream, lane, start, stop):
    """Signs of the indices start..stop-1: index i owns bit i % 128 of the Philox block i // 128; +-1, int8."""
    w = words(key, stream, np.arange(start // 128, -(-stop // 128), dtype=np.uint64), lane)
    bits = (w[:, :, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    first = start % 128
    return (1 - 2 * bits.reshape(-1)[first : first + stop - start].astype(np.int8)).astype(np.int8)


# Coefficients of the Cephes single-precision library (logf, sinf, cosf), evaluated by Horner's rule in plain float32
# operations: no fused multiply-add, so that every backend gives the same bits.
LOG_POLYNOMIAL = tuple(
    map(
        np.float32,
        (
            7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
            -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
        ),
    )
)  # fmt: skip
SIN_POLYNOMIAL = tuple(map(np.float32, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
COS_POLYNOMIAL = tuple(map(np.float32, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))
LOG2_HIGH, LOG2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
HALF_PI = np.float32(1.57079632679)


def _horner(coefficients, x):
    value = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value


def _radius(w):
    """sqrt(-2 log u) for u = (w >> 1 | 1) / 2**31, rounded to float32 before the logarithm."""
    x = ((w >> np.uint32(1)) | np.uint32(1)).astype(np.int32).astype(np.float32)
    bits = x.view(np.int32)
    # m in [sqrt(1/2), sqrt(2)) and x = m 2**e: 0x3f3504f3 are the bits of sqrt(1/2)
    shifted = bits - np.int32(0x3F3504F3)
    e = ((shifted >> np.int32(23)) - np.int32(31)).astype(np.float32)
    m = ((shifted & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)).view(np.float32) - np.float32(1)
    z = m * m
    y = _horner(LOG_POLYNOMIAL, m) * m * z + e * LOG2_LOW - np.float32(0.5) * z
    logarithm = (m + y) + e * LOG2_HIGH
    return np.sqrt(np.maximum(np.float32(-2) * logarithm, np.float32(0)))


def _circle(w):
    """cos and sin of pi/2 (quarter + f): the top two bits are the quarter, the rest is f in [-1/2, 1/2)."""
    f = (w << np.uint32(2)).view(np.int32).astype(np.float32) * np.float32(2.0**-32) * HALF_PI
    z = f * f
    s = _horner(SIN_POLYNOMIAL, z) * z * f + f
    c = _horner(COS_POLYNOMIAL, z) * z * z - np.float32(0.5) * z + np.float32(1)
    quarter = w >> np.uint32(30)
    swap = (quarter & np.uint32(1)) == 1
    cosine, sine = np.where(swap, -s, c), np.where(swap, c, s)
    turn = quarter >= 2
    return np.where(turn, -cosine, cosine), np.where(turn, -sine, sine)


def gaussian_table(key, start, stop, sketch_size, dtype):
    """Columns start..stop-1 of a standard normal matrix, one per row of the table; (stop - start, sketch_size).

    Box and Muller in float32: words 0 and 1 of lane l give the rows 4 l and 4 l + 1, words 2 and 3 the next two.
    """
    w = philox_words(key, Stream.GAUSSIAN, start, stop, -(-sketch_size // 4))
    radius = _radius(np.ascontiguousarray(w[:, 0::2]))
    cosine, sine = _circle(np.ascontiguousarray(w[:, 1::2]))
    table = np.stack([radius * cosine, radius * sine], axis=-1).reshape(stop - start, -1)
    return table[:, :sketch_size].astype(dtype)


# --- products with sign tables ------------------------------------------------------------------------------------


def _dense(pointers, packed, n_positions, dtype):
    """The signed incidence matrix (items, positions) of a ragged table; repeated positions add up."""
    T = np.zeros((len(pointers) - 1, n_positions), dtype)
    items = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    np.add.at(T, (items, packed >> 1), 1 - 2 * (packed & 1))
    return T


def scatter_rows(pointers, packed, A, out):
    """out += T.T @ A, T the signed incidence matrix (items, positions): row i of A goes to the positions of item i.

    Both A and out are C-contiguous.
    """
    out += _dense(pointers, packed, out.shape[0], out.dtype).T @ A


def scatter_columns(pointers, packed, A, out):
    """out += A @ T: column i of A goes to the positions of item i."""
    out += A @ _dense(pointers, packed, out.shape[1], out.dtype)


def gather_rows(pointers, packed, Y, out):
    """out += T @ Y: row i of out collects the positions of item i."""
    out += _dense(pointers, packed, Y.shape[0], out.dtype) @ Y


def scatter_rows_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_rows` for a CSR matrix A given as its three arrays."""
    out += _dense(pointers, packed, out.shape[0], out.dtype).T @ _from_csr(
        data, indices, indptr, out.shape[1], out.dtype
    )


def scatter_columns_csr(pointers, packed, data, indices, indptr, out):
    """`scatter_columns` for a CSR matrix A given as its three arrays."""
    out += _from_csr(data, indices, indptr, len(pointers) - 1, out.dtype) @ _dense(
        pointers, packed, out.shape[1], out.dtype
    )


# --- products with CSR matrices -----------------------------------------------------------------------------------


def _from_csr(data, indices, indptr, n_columns, dtype):
    A = np.zeros((len(indptr) - 1, n_columns), dtype)
    np.add.at(A, (np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices), data)
    return A


def csr_matmul(data, indices, indptr, X, n_rows=None):
    """A @ X for a CSR matrix A with X.shape[0] columns and a dense X.  Any array namespace.

    With `n_rows`, row i of A is the sum of the rows i, i + n_rows, ... that the arrays hold.
    """
    xp, m = array_namespace(X), indptr.shape[0] - 1
    out = xp.zeros((m if n_rows is None else n_rows, X.shape[1]), dtype=X.dtype, device=device(X))
    for i in range(m):
        a, b = int(indptr[i]), int(indptr[i + 1])
        out[i % out.shape[0], :] += xp.sum(data[a:b, None] * xp.take(X, indices[a:b], axis=0), axis=0)
    return out


def csr_rmatmul(data, indices, indptr, Y, n_columns):
    """A.T @ Y (no conjugation) for a CSR matrix A with `n_columns` columns and a dense Y."""
    return _from_csr(data, indices, indptr, n_columns, Y.dtype).T @ Y


# --- Walsh-Hadamard transforms ------------------------------------------------------------------------------------


def hadamard_matrix(n):
    """The n x n Sylvester matrix of +-1, n a power of two: entry (i, j) is (-1)**popcount(i & j)."""
    H = np.ones((1, 1))
    while H.shape[0] < n:
        H = np.block([[H, H], [H, -H]])
    return H


def _srht_rows(key, n_padded, rounds, rows):
    """The sampled rows of H D_rounds ... H D_1, unscaled; (len(rows), n_padded)."""
    H = hadamard_matrix(n_padded)
    M = np.eye(n_padded)
    for r in range(rounds):
        M = H @ (sign_bits(key, Stream.TRIGONOMETRIC_SIGN, r, 0, n_padded)[:, None] * M)
    return M[rows]


def srht_apply(key, A, n_padded, rounds, rows, out):
    """out = rows of (H D_rounds ... H D_1) applied to A padded with zeros to n_padded rows; unscaled."""
    out[...] = _srht_rows(key, n_padded, rounds, rows)[:, : A.shape[0]] @ A


def srht_adjoint(key, Y, n_padded, rounds, rows, out):
    """out = the first out.shape[0] rows of the transpose of `srht_apply`, applied to Y."""
    out[...] = _srht_rows(key, n_padded, rounds, rows)[:, : out.shape[0]].T @ Y


def _block_srht(key, start, stop, block_size, rounds, rows):
    """Columns start..stop-1 of the unscaled block SRHT: block b is E_b P H D_rounds ... H D_1 with its own signs."""
    H, S = hadamard_matrix(block_size), np.zeros((len(rows), stop - start))
    for b in range(start // block_size, -(-stop // block_size)):
        M = np.eye(block_size)
        for r in range(rounds):
            signs = sign_bits(key, Stream.TRIGONOMETRIC_SIGN, r, b * block_size, (b + 1) * block_size)
            M = H @ (signs[:, None] * M)
        outer = sign_bits(key, Stream.BLOCK_SIGN, 0, b * len(rows), (b + 1) * len(rows))
        lo, hi = max(start, b * block_size), min(stop, (b + 1) * block_size)
        S[:, lo - start : hi - start] = (outer[:, None] * M[rows])[:, lo - b * block_size : hi - b * block_size]
    return S


def block_srht_apply(key, A, start, block_size, rounds, rows, out):
    """out += S[:, start : start + A.shape[0]] @ A for the unscaled block SRHT S; blocks share the sampled `rows`."""
    out += _block_srht(key, start, start + A.shape[0], block_size, rounds, rows) @ A


def block_srht_adjoint(key, Y, start, block_size, rounds, rows, out):
    """out = S[:, start : start + out.shape[0]].T @ Y for the unscaled block SRHT S."""
    out[...] = _block_srht(key, start, start + out.shape[0], block_size, rounds, rows).T @ Y


# --- products of regression ---------------------------------------------------------------------------------------


def normal_products(A, X, weights):
    """A.T @ diag(weights) @ A @ X for a real dense A (m, n); `weights` is (m,) or None.  Any array namespace."""
    Y = array_namespace(A).matmul(A, X)
    return array_namespace(A).matmul(A.mT, Y if weights is None else weights[:, None] * Y)


def normal_residual(A, X, B, weights):
    """A.T @ diag(weights) @ R for R = B - A @ X, and the column sums of weights * R**2 in float64."""
    xp = array_namespace(A)
    R = B - xp.matmul(A, X)
    weighted = R if weights is None else weights[:, None] * R
    squares = xp.sum(xp.astype(weighted, xp.float64) * xp.astype(R, xp.float64), axis=0)
    return xp.matmul(A.mT, weighted), squares


def csr_normal_products(data, indices, indptr, X, weights):
    """`normal_products` for a CSR matrix with X.shape[0] columns."""
    return normal_products(_from_csr(data, indices, indptr, X.shape[0], data.dtype), X, weights)


def csr_normal_residual(data, indices, indptr, X, B, weights):
    """`normal_residual` for a CSR matrix with X.shape[0] columns."""
    return normal_residual(_from_csr(data, indices, indptr, X.shape[0], data.dtype), X, B, weights)


# --- sampling -----------------------------------------------------------------------------------------------------


def uniforms_at(key, stream, index):
    """Uniforms on (0, 1) of the given 64-bit indices (int64, as bit patterns); float64 (len(index),).

    Words 0 and 1 of lane 0 give 52 bits h, and the uniform is (h + 1/2) / 2**52: never 0 or 1, and exact.
    """
    w = words(key, stream, np.asarray(index, np.int64).view(np.uint64), 0).astype(np.uint64)
    h = (w[:, 0] >> np.uint64(5)) * np.uint64(2**25) + (w[:, 1] >> np.uint64(7))
    return (h.astype(np.float64) + 0.5) / 2.0**52


def row_power_sums(A, power):
    """Sums of |a|**power over each row of a real dense A, power 1 or 2, in double precision; float64 (m,)."""
    return np.sum(np.abs(A.astype(np.float64)) ** power, axis=1)


def csr_row_power_sums(data, indptr, power):
    """`row_power_sums` for a CSR matrix without repeated entries, given as its values and pointers."""
    out = np.zeros(len(indptr) - 1)
    np.add.at(out, np.repeat(np.arange(len(out)), np.diff(indptr)), np.abs(data.astype(np.float64)) ** power)
    return out


# --- kernel matrices ----------------------------------------------------------------------------------------------


def kernel_tile(name, X, Y, gamma, coef0, degree):
    """Kernel of the rows x of X (m, d) with the rows y of Y (n, d), both of one real dtype; (m, n).

    With r = ||x - y||: "linear" <x, y>, "polynomial" (gamma <x, y> + coef0)**degree, "rbf" exp(-gamma r**2),
    "laplacian" exp(-gamma ||x - y||_1), "matern32" (1 + s) exp(-s) for s = sqrt(3) gamma r, and "matern52"
    (1 + s + s**2 / 3) exp(-s) for s = sqrt(5) gamma r.  Any array namespace.
    """
    xp = array_namespace(X)
    if name in ("linear", "polynomial"):
        products = xp.matmul(X, Y.mT)
        return products if name == "linear" else (gamma * products + coef0) ** degree
    differences = X[:, None, :] - Y[None, :, :]
    if name == "laplacian":
        return xp.exp(-gamma * xp.sum(xp.abs(differences), axis=2))
    squares = xp.sum(differences**2, axis=2)
    if name == "rbf":
        return xp.exp(-gamma * squares)
    s = math.sqrt(3 if name == "matern32" else 5) * gamma * xp.sqrt(squares)
    return (1 + s + (s**2 / 3 if name == "matern52" else 0)) * xp.exp(-s)


# --- pivots -------------------------------------------------------------------------------------------------------


def race_candidates(key, start, stop, weights, count):
    """The `count` first arrivals of the races start..stop-1 between the indices of `weights` (n,), float64.

    In race s, index j arrives at the time E(s, j) / weights[j], with independent E ~ Exp(1): it is the first with
    probability weights[j] / sum(weights), and lowering other weights does not change its time.  E = -log(1 - U), where
    U = (w + (h + 1/2) / 2**52) / 2**32 with word j % 4 of (index s, lane j // 4) and 52 bits h of (index j, lane s) of
    another stream.  Returns indices, int64 (stop - start, count), and times, float64, by ascending time; -1 and
    infinity where fewer weights are positive.
    """
    n, s = len(weights), np.arange(start, stop, dtype=np.uint64)[:, None]
    lanes = np.arange(-(-n // 4), dtype=np.uint64)
    w = words(key, Stream.RACE, s, lanes).reshape(stop - start, 4 * len(lanes))[:, :n].astype(np.float64)
    tail = words(key, Stream.RACE_TAIL, np.arange(n, dtype=np.uint64), s).astype(np.uint64)
    h = (tail[..., 0] >> np.uint64(5)) * np.uint64(2**25) + (tail[..., 1] >> np.uint64(7))
    arrivals = -np.log1p(-(w + (h.astype(np.float64) + 0.5) / 2.0**52) / 2.0**32)
    index, times = np.full((stop - start, count), -1, np.int64), np.full((stop - start, count), np.inf)
    running = np.flatnonzero(np.asarray(weights) > 0)
    if np.isfinite(np.sum(weights)):
        for r, row in enumerate(arrivals):
            found = row[running] / weights[running]
            order = np.argsort(found, kind="stable")[:count]
            index[r, : len(order)], times[r, : len(order)] = running[order], found[order]
    return index, times


def _eliminate(H, L, d, p, a):
    """Column a of the factor from pivot p, and the diagonal after it."""
    root = math.sqrt(d[p])
    L[:, a] = (H[p] - L[:, :a] @ L[p, :a]) / root
    d -= L[:, a] ** 2
    L[p, a], d[p] = root, 0.0


def race_pivots(H, d, index, times, floor):
    """Pivots of Cholesky factorisation of H (b, b) that win races run with the weights d (b,) before it.

    Row s of `index` and `times` (s, q) are the first arrivals of race s, as positions in H.  The winner of race s is
    the first by the weights d that are left by the pivots before it, where d[j] <= floor[j] counts as none.  It ends
    where an index behind the list could have come first.  Returns chosen, int64 (s,), ended by -1, and L (b, s): H less
    L L^T has diagonal d, and L[chosen] is lower triangular.
    """
    H, now = np.asarray(H), np.array(d)
    chosen, L = np.full(len(index), -1, np.int64), np.zeros((len(H), len(index)))
    for s in range(len(index)):
        mine = index[s][index[s] >= 0]
        alive = now[mine] > floor[mine]
        arrivals = np.full(len(mine), np.inf)
        arrivals[alive] = times[s, : len(mine)][alive] * d[mine[alive]] / now[mine[alive]]
        first = int(np.argmin(arrivals)) if alive.any() else -1
        if first < 0 or (len(mine) == index.shape[1] and times[s, -1] < arrivals[first]):
            break
        chosen[s] = mine[first]
        _eliminate(H, L, now, chosen[s], s)
    return chosen, L


def greedy_pivots(H, d, floor, share):
    """Largest pivots of H (b, b) with the diagonal d until what is left of its sum is at most `share` of it.

    Returns chosen, int64 (b,), ended by -1, and L (b, b): H less L L^T has diagonal d, L[chosen] is lower triangular.
    """
    H, now = np.asarray(H), np.array(d)
    chosen, L = np.full(len(H), -1, np.int64), np.zeros((len(H), len(H)))
    limit = share * np.sum(now)
    for a in range(len(H)):
        p = int(np.argmax(now))
        if not (now[p] > floor[p] and np.sum(now) > limit):
            break
        _eliminate(H, L, now, p, a)
        now[now <= floor] = 0.0
        chosen[a] = p
    return chosen, L


def store_columns(start, first, tile, floor, F, d):
    """F[start + r, first + c] = tile[c, r], and the squares of these columns are taken from d, float64.

    What is left of d at or below `floor` becomes zero.  Any array namespace.
    """
    xp, rows = array_namespace(F), slice(start, start + tile.shape[1])
    F[rows, first : first + tile.shape[0]] = tile.mT
    left = d[rows] - xp.sum(xp.astype(tile, xp.float64) ** 2, axis=0)
    d[rows] = xp.where(left <= floor[rows], xp.zeros_like(left), left)
