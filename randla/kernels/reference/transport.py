"""Truths of entropic transport.  They run in any array namespace, in double precision."""

from __future__ import annotations

import math

from array_api_compat import array_namespace, device

from ..._arrays import from_host, to_host

LEAST = -708.0  # exponentials below are 0: they would be subnormal
BINS = 64


def transport_costs(metric, X, Y):
    """C_ij, float64 (n, m): X itself for "stored", else the distance of the points X[i] and Y[j].

    "sqeuclidean": sum of (x_c - y_c)^2; "euclidean": its root; "cityblock": sum of |x_c - y_c|.
    """
    xp = array_namespace(X)
    X = xp.astype(X, xp.float64)
    if metric == "stored":
        return X
    Y, total = xp.astype(Y, xp.float64), 0.0
    for c in range(X.shape[1]):
        apart = X[:, c][:, None] - Y[:, c][None, :]
        total = total + (xp.abs(apart) if metric == "cityblock" else apart * apart)
    return xp.sqrt(total) if metric == "euclidean" else total


def _exponentials(metric, X, Y, g, reg):
    """exp((g_j - C_ij) / reg - top_i), and top_i, the largest exponent of the row, or -inf."""
    xp = array_namespace(X)
    gaps = (g[None, :] - transport_costs(metric, X, Y)) / reg
    tops = xp.max(gaps, axis=1)
    finite = xp.where(tops > -math.inf, tops, xp.zeros_like(tops))
    gaps = gaps - finite[:, None]
    return xp.where(gaps < LEAST, xp.zeros_like(gaps), xp.exp(gaps)), tops


def _logarithm(x):
    """Logarithm of x >= 0, -inf where it is 0."""
    xp = array_namespace(x)
    return xp.where(x > 0, xp.log(xp.where(x > 0, x, xp.ones_like(x))), xp.full_like(x, -math.inf))


def softmin_rows(metric, X, Y, g, reg):
    """-reg log(sum over j of exp((g_j - C_ij) / reg)), float64 (n,); inf where no term is above 0.

    `metric`, X and Y give the costs C (n, m) as in `transport_costs`; C_ij = inf and g_j = -inf leave the pair out.
    """
    E, tops = _exponentials(metric, X, Y, g, reg)
    return -reg * (tops + _logarithm(array_namespace(X).sum(E, axis=1)))


def sinkhorn_sweep(metric, X, Y, a, g, reg):
    """f (n,) for which row i of T_ij = exp((f_i + g_j - C_ij) / reg) sums to a_i, and the column sums of T, (m,).

    f_i is -inf where a_i = 0, and inf, with a row of zeros, where no T_ij can be above 0.
    """
    xp = array_namespace(X)
    E, tops = _exponentials(metric, X, Y, g, reg)
    totals = xp.sum(E, axis=1)
    shares = xp.where(totals > 0, a / xp.where(totals > 0, totals, xp.ones_like(totals)), xp.zeros_like(a))
    finite = xp.where(totals > 0, tops, xp.zeros_like(tops))
    f = xp.where(totals > 0, reg * (_logarithm(shares) - finite), xp.full_like(a, math.inf))
    f = xp.where(a == 0, xp.full_like(a, -math.inf), f)
    return f, xp.sum(shares[:, None] * E, axis=0)


def plan_matrix(metric, X, Y, f, g, reg):
    """T_ij = exp((f_i + g_j - C_ij) / reg), float64 (n, m); rows whose largest entry is below e**-700 are zeros."""
    xp = array_namespace(X)
    E, tops = _exponentials(metric, X, Y, g, reg)
    levels = f / reg + xp.where(tops > -math.inf, tops, xp.zeros_like(tops))
    alive = (tops > -math.inf) & (levels > -700.0)
    factors = xp.where(alive, xp.exp(xp.where(alive, levels, xp.zeros_like(levels))), xp.zeros_like(levels))
    return factors[:, None] * E


def plan_sums(metric, X, Y, f, g, reg):
    """Sums of the rows (n,) and columns (m,) of `plan_matrix`, and of its products with the costs in each row (n,)."""
    xp, T = array_namespace(X), plan_matrix(metric, X, Y, f, g, reg)
    C = transport_costs(metric, X, Y)
    return xp.sum(T, axis=1), xp.sum(T, axis=0), xp.sum(xp.where(T > 0, T * xp.where(T > 0, C, 0 * T), 0 * T), axis=1)


def plan_matmul(metric, X, Y, f, g, reg, V):
    """The product of `plan_matrix` and V (m, k), float64 (n, k)."""
    xp = array_namespace(X)
    return xp.matmul(plan_matrix(metric, X, Y, f, g, reg), xp.astype(V, xp.float64))


def plan_entries(metric, X, Y, f, g, reg, share):
    """`plan_matrix` without small entries as (data, indices, indptr) of CSR.

    In each row the entries below a power of two are left out: the largest below which they, with all those below
    ``share / m`` of the row's sum, add up to at most `share` of it.
    """
    T = to_host(plan_matrix(metric, X, Y, f, g, reg))
    xp, (n, m) = array_namespace(X), T.shape
    data, indices, indptr = [], [], [0]
    for i in range(n):
        row, total = T[i], float(T[i].sum())
        certain = max(share * total / m, 2.3e-308)
        kept = [j for j in range(m) if row[j] >= certain]
        masses = [0.0] * BINS
        highest = max((math.frexp(row[j])[1] for j in kept), default=0)
        for j in kept:
            masses[min(highest - math.frexp(row[j])[1], BINS - 1)] += float(row[j])
        spent, least = max(total - sum(masses), 0.0), certain
        for k in range(BINS - 1, -1, -1):
            spent += masses[k]
            if spent > share * total:  # the last bin has all that is lower, which is then kept
                least = max(certain, math.ldexp(0.5, highest - k)) if k < BINS - 1 else certain
                break
        kept = [j for j in kept if row[j] >= least]
        data += [float(row[j]) for j in kept]
        indices += kept
        indptr.append(len(indices))
    place = device(X)
    return (
        xp.asarray(data, dtype=xp.float64, device=place),
        xp.asarray(indices, dtype=xp.int32, device=place),
        xp.asarray(indptr, dtype=xp.int64, device=place),
    )


def scaling_sweep(K, a, v):
    """u = a / (K v), 0 where K v is 0, and K.T u, for a kernel K (n, m)."""
    xp = array_namespace(K)
    totals = xp.matmul(K, v)
    u = xp.where(totals > 0, a / xp.where(totals > 0, totals, xp.ones_like(totals)), xp.zeros_like(a))
    return u, xp.matmul(K.T, u)


def schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter):
    """Solve (D - S.T diag(1 / rows) S) x = right, D = diag(diagonal), by conjugate gradients from 0.

    S (n, m) in CSR form.  The preconditioner is the diagonal of the matrix, at least 1e-3 of D.  Stops when the
    absolute sum of the residual is `tol` times that of `right`, at `max_iter`, or where the curvature is not positive.
    Returns x (m,), the number of steps and whether the residual was reached.
    """
    host = [to_host(part) for part in (data, indices, indptr, rows, diagonal, right)]
    x, steps, solved = _schur_cg(*host, tol, max_iter)
    return from_host(x, array_namespace(right), right), steps, solved


def _schur_cg(data, indices, indptr, rows, diagonal, right, tol, max_iter):
    from scipy.sparse import csr_array

    S = csr_array((data, indices, indptr), shape=(len(rows), len(right)))
    scale = 1 / (diagonal - (S * S).T @ (1 / rows)).clip(1e-3 * diagonal)
    x, rest = 0 * right, right + 0.0
    p = scale * rest
    energy = rest @ p
    for step in range(max_iter):
        if abs(rest).sum() <= tol * abs(right).sum():
            return x, step, True
        image = diagonal * p - S.T @ ((S @ p) / rows)
        if not (p @ image > 0 and energy > 0):
            return x, step, False
        length = energy / (p @ image)
        x, rest = x + length * p, rest - length * image
        before, energy = energy, (rest * scale) @ rest
        p = scale * rest + energy / before * p
    return x, max_iter, bool(abs(rest).sum() <= tol * abs(right).sum())
