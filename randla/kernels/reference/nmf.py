"""Truths of nonnegative least squares.  They run in any array namespace, in double precision."""

from __future__ import annotations

import itertools

from array_api_compat import array_namespace, device

from .completion import _row, _row_system


def _sweep(G, b, x):
    """One pass over the coordinates of x (r,) >= 0 that minimises x.G x / 2 - b.x in each; the squared change."""
    xp, change = array_namespace(x), 0.0
    for k in range(x.shape[0]):
        if float(G[k, k]) > 0:
            step = max(0.0, float(x[k] + (b[k] - xp.sum(G[k, :] * x)) / G[k, k])) - float(x[k])
            x[k] = x[k] + step
            change += step * step
    return change


def nonneg_sweeps(G, B, X, n_sweeps, tol):
    """Up to `n_sweeps` coordinate sweeps from X (r, n) towards argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0.

    Stops, tile by tile of 16 columns, when a sweep changes X by at most `tol` of what the first one did.
    """
    xp, n = array_namespace(X), X.shape[1]
    G, B, out = (xp.astype(part, xp.float64, copy=True) for part in (G, B, X))
    for first in range(0, n, 16):
        start = 0.0
        for sweep in range(n_sweeps):
            columns = range(first, min(n, first + 16))
            change = 0.0
            for c in columns:
                x = xp.asarray(out[:, c], copy=True)
                change += _sweep(G, B[:, c], x)
                out[:, c] = x
            start = change if sweep == 0 else start
            if not change > tol * tol * start:
                break
    return xp.astype(out, X.dtype)


def nonneg_pivots(G, B, X, tol, max_iter):  # the start and the limit matter to the twins only
    """The columns of argmin of tr(X.T G X) / 2 - tr(B.T X) over X >= 0, exactly, from the places where X (r, n) is > 0.

    Slopes above -tol max |b| count as nonnegative, and X is 0 where the diagonal of G is.  Returns X (r, n), and for
    each column 1, or -1 where `max_iter` exchanges did not do; int64 (n,).  The truth tries every set of places.
    """
    xp, (r, n) = array_namespace(X), X.shape
    G, B, out = xp.astype(G, xp.float64), xp.astype(B, xp.float64), xp.zeros_like(X)
    alive = [k for k in range(r) if float(G[k, k]) > 0]
    for c in range(n):
        best, b = 0.0, B[:, c]
        for size, places in ((s, p) for s in range(1, len(alive) + 1) for p in itertools.combinations(alive, s)):
            at = xp.asarray(places, dtype=xp.int64, device=device(X))
            part = xp.take(xp.take(G, at, axis=0), at, axis=1)
            x = xp.linalg.solve(part, xp.take(b, at)[:, None])[:, 0]
            value = -0.5 * float(xp.sum(x * xp.take(b, at)))
            if bool(xp.all(x >= 0)) and value < best:
                best = value
                out[:, c] = xp.zeros_like(out[:, c])
                for t in range(size):
                    out[places[t], c] = xp.astype(x[t], X.dtype)
    return out, xp.ones(n, dtype=xp.int64, device=device(X))


def masked_nonneg_sweeps(V, indices, indptr, weights, targets, base, ridge, X, n_sweeps, tol):
    """Coordinate sweeps from X (m, r) for the nonnegative solutions of the systems of `masked_cholesky`.

    Stops, row by row, when a sweep changes x by at most `tol` of what the first one did.  A row without entries and
    without base stays as it is.
    """
    xp, out = array_namespace(V), array_namespace(V).astype(X, V.dtype, copy=True)
    for i in range(indptr.shape[0] - 1):
        if int(indptr[i]) == int(indptr[i + 1]) and base is None:
            continue
        M = _row_system(V, indices, indptr, weights, base, ridge, i)
        design, t = _row(V, indices, indptr, i, targets)
        b, x, start = xp.matmul(design.mT, t[:, None])[:, 0], xp.astype(X[i, :], xp.float64, copy=True), 0.0
        for sweep in range(n_sweeps):
            change = _sweep(M, b, x)
            start = change if sweep == 0 else start
            if not change > tol * tol * start:
                break
        out[i, :] = xp.astype(x, V.dtype)
    return out


def divergence_sweeps(V, indices, indptr, values, sums, ridge, X, n_sweeps, floor):
    """Coordinate sweeps from X (m, r) that lower sums.x - sum of values_p log(v_p.x) + ridge ||x||^2 / 2 in each row.

    V is (n, r), `sums` (r,) its column sums plus linear penalties; coordinates stay at `floor` or above.  A Newton
    step down is damped by 1 / (1 + d) where its decrement d, times the greatest values_p**-1/2, exceeds 0.683802, up
    to which a full step cannot raise a self-concordant function.
    """
    xp, out = array_namespace(V), array_namespace(V).astype(X, V.dtype, copy=True)
    for i in range(indptr.shape[0] - 1):
        design, v = _row(V, indices, indptr, i, values)
        positive = xp.nonzero(v > 0)[0]  # the others are in `sums` only
        design, v = xp.take(design, positive, axis=0), xp.take(v, positive)
        x = xp.astype(X[i, :], xp.float64, copy=True)
        root = float(xp.min(v)) ** -0.5 if v.shape[0] else 0.0
        for _ in range(n_sweeps):
            for k in range(x.shape[0]):
                model = xp.matmul(design, x[:, None])[:, 0]
                model = xp.where(model > 0, model, 1e-300 * xp.ones_like(model))
                g = float(sums[k]) + ridge * float(x[k]) - float(xp.sum(design[:, k] * v / model))
                c = float(xp.sum((design[:, k] / model) ** 2 * v)) + ridge
                step = -g / c if c > 0 else (-float(x[k]) if g > 0 else 0.0)
                decrement = c**0.5 * -step * root
                if c > 0 and g > 0 and decrement > 0.683802:
                    step = step / (1 + decrement)
                x[k] = max(float(x[k]) + step, floor)
        out[i, :] = xp.astype(x, V.dtype)
    return out
