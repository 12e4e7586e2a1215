"""Truths of completion.

Row i of a matrix observed in part has the entries p of indptr[i]..indptr[i + 1] - 1; its design is made of the rows
v_p = V[indices[p]].  These run in any array namespace, row after row, in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, device

from .sketching import sparse_sign_table


def _row(V, indices, indptr, i, *values):
    """The design of row i in double precision, and its part of arrays of entries (None: ones)."""
    xp = array_namespace(V)
    a, b = int(indptr[i]), int(indptr[i + 1])
    design = xp.astype(xp.take(V, indices[a:b], axis=0), xp.float64)
    ones = xp.ones(design.shape[0], dtype=xp.float64, device=device(V))
    return design, *(ones if part is None else xp.astype(part[a:b], xp.float64) for part in values)


def _row_system(V, indices, indptr, weights, base, ridge, i):
    """base + sum of w_p v_p v_p.T + ridge_i I."""
    xp, k = array_namespace(V), V.shape[1]
    design, w = _row(V, indices, indptr, i, weights)
    M = xp.matmul(design.mT, w[:, None] * design) + ridge[i] * xp.eye(k, dtype=xp.float64, device=device(V))
    return M if base is None else M + xp.astype(base, xp.float64)


def _least_pivot(M):
    """The least pivot of the Cholesky factorisation, relative to its diagonal entry; 0 where that is not positive."""
    xp, least = array_namespace(M), 1.0
    S = xp.asarray(M, copy=True)
    for j in range(M.shape[0]):
        pivot = float(S[j, j])
        if not (float(M[j, j]) > 0 and pivot > 0):
            return 0.0
        least = min(least, pivot / float(M[j, j]))
        S = S - S[:, j][:, None] * (S[j, :] / pivot)[None, :]
    return least


def masked_cholesky(V, indices, indptr, weights, targets, base, ridge):
    """Row i of X (m, k) solves (base + sum of w_p v_p v_p.T + ridge_i I) x = sum of targets_p v_p.

    Also the least pivots, float64 (m,), relative to their diagonal entries.  Where one is at most 1e-16 times 2.2 k
    the row has zeros and the pivot is told as 0; a row whose system is zero has zeros and the pivot 1.
    """
    xp, (m, k) = array_namespace(V), (indptr.shape[0] - 1, V.shape[1])
    X = xp.zeros((m, k), dtype=V.dtype, device=device(V))
    pivots = xp.ones(m, dtype=xp.float64, device=device(V))
    for i in range(m):
        M = _row_system(V, indices, indptr, weights, base, ridge, i)
        if k == 0 or not bool(xp.any(M != 0)):
            continue
        design, t = _row(V, indices, indptr, i, targets)
        least = _least_pivot(M)
        pivots[i] = least if least > k * 2.0**-52 else 0.0
        if least > k * 2.0**-52:
            X[i, :] = xp.astype(xp.linalg.solve(M, xp.matmul(design.mT, t[:, None]))[:, 0], V.dtype)
    return X, pivots


def masked_qr(V, indices, indptr, weights, values, ridge):
    """Row i of X (m, k) minimises sum of w_p (values_p - v_p.x)**2 + ridge_i ||x||**2, by QR of the design.

    Also the least pivots |R_jj| / ||column j||, float64 (m,).  Where one is at most 8 k eps(dtype of V) the row has
    zeros and the pivot is told as 0; a row whose design is zero has zeros and the pivot 1.
    """
    xp, (m, k) = array_namespace(V), (indptr.shape[0] - 1, V.shape[1])
    X = xp.zeros((m, k), dtype=V.dtype, device=device(V))
    pivots, least = xp.ones(m, dtype=xp.float64, device=device(V)), 8 * k * float(xp.finfo(V.dtype).eps)
    for i in range(m):
        design, w, b = _row(V, indices, indptr, i, weights, values)
        root, below = xp.sqrt(w), float(ridge[i]) ** 0.5
        A = xp.concat([root[:, None] * design, below * xp.eye(k, dtype=xp.float64, device=device(V))])
        if k == 0 or not bool(xp.any(A != 0)):
            continue
        Q, R = xp.linalg.qr(A)
        norms = xp.linalg.vector_norm(A, axis=0)
        pivot = float(xp.min(xp.abs(xp.linalg.diagonal(R)) / xp.where(norms > 0, norms, xp.ones_like(norms))))
        pivots[i] = pivot if pivot > least else 0.0
        if pivot > least:
            rhs = xp.concat([root * b, xp.zeros(k, dtype=xp.float64, device=device(V))])
            X[i, :] = xp.astype(xp.linalg.solve(R, xp.matmul(Q.mT, rhs[:, None]))[:, 0], V.dtype)
    return X, pivots


def _conjugate_gradients(M, b, x, precondition, tol, max_iter):
    """Solution, steps and ||r|| / ||b|| in the norm of the preconditioner; stops where a direction has no energy."""
    xp = array_namespace(M)

    def inner(p, q):
        return float(xp.sum(p * q))

    target = inner(b, precondition(b))
    if not target > 0:
        return xp.zeros_like(b), 0, 0.0 if target == 0 else math.nan
    r = b - xp.matmul(M, x[:, None])[:, 0]
    z = precondition(r)
    p, energy, steps = z, inner(r, z), 0
    while steps < max_iter and energy > tol * tol * target:
        q = xp.matmul(M, p[:, None])[:, 0]
        curvature = inner(p, q)
        if not curvature > 0:
            break
        x = x + (energy / curvature) * p
        r = r - (energy / curvature) * q
        z = precondition(r)
        before, energy = energy, inner(r, z)
        p = z + (energy / before) * p
        steps += 1
    return x, steps, max(energy / target, 0.0) ** 0.5


def masked_cg(V, indices, indptr, weights, targets, base, ridge, diagonal, scale, X0, tol, max_iter):
    """The systems of `masked_cholesky` by conjugate gradients from X0, preconditioned by scale_i diagonal + ridge_i.

    Stops at sqrt(r.P^-1 r) <= tol sqrt(b.P^-1 b).  Returns X (m, k), the steps, int64 (m,), and that ratio at the end,
    float64 (m,).  A row without a right-hand side has zeros; one whose right-hand side is not finite has zeros and
    NaN as its ratio.  Zeros of the preconditioner count as ones.
    """
    xp, (m, k) = array_namespace(V), (indptr.shape[0] - 1, V.shape[1])
    X = xp.zeros((m, k), dtype=V.dtype, device=device(V))
    steps = xp.zeros(m, dtype=xp.int64, device=device(V))
    residuals = xp.zeros(m, dtype=xp.float64, device=device(V))
    for i in range(m):
        M = _row_system(V, indices, indptr, weights, base, ridge, i)
        design, t = _row(V, indices, indptr, i, targets)
        P = scale[i] * xp.astype(diagonal, xp.float64) + ridge[i]
        P = xp.where(P > 0, P, xp.ones_like(P))
        b, start = xp.matmul(design.mT, t[:, None])[:, 0], xp.astype(X0[i, :], xp.float64)
        x, steps[i], residuals[i] = _conjugate_gradients(M, b, start, lambda r, P=P: r / P, tol, max_iter)
        X[i, :] = xp.astype(x, V.dtype)
    return X, steps, residuals


def masked_sketched_cg(key, V, indices, indptr, weights, targets, ridge, X0, sketch_size, nnz, tol, max_iter):
    """The systems of `masked_cholesky` without base, preconditioned by a sketch of each row's own design.

    The sketch of a design is ``S diag(sqrt(w)) V_S`` with the columns ``indices[p]`` of a sparse sign matrix over
    sqrt(nnz), and the preconditioner its Gram matrix plus ridge_i I, plus k 2**-52 times the trace of both, which keeps
    it regular.  Returns as `masked_cg`.
    """
    xp, (m, k) = array_namespace(V), (indptr.shape[0] - 1, V.shape[1])
    X = xp.zeros((m, k), dtype=V.dtype, device=device(V))
    steps = xp.zeros(m, dtype=xp.int64, device=device(V))
    residuals = xp.zeros(m, dtype=xp.float64, device=device(V))
    identity = xp.eye(k, dtype=xp.float64, device=device(V))
    for i in range(m):
        M = _row_system(V, indices, indptr, weights, None, ridge, i)
        design, w, t = _row(V, indices, indptr, i, weights, targets)
        b, start = xp.matmul(design.mT, t[:, None])[:, 0], xp.astype(X0[i, :], xp.float64)
        S = np.zeros((sketch_size, design.shape[0]))
        for place, column in enumerate(int(indices[p]) for p in range(int(indptr[i]), int(indptr[i + 1]))):
            for packed in sparse_sign_table(key, column, column + 1, nnz, sketch_size)[0].tolist():
                S[packed >> 1, place] = (1 - 2 * (packed & 1)) / nnz**0.5
        SA = xp.matmul(xp.asarray(S, device=device(V)), xp.sqrt(w)[:, None] * design)
        P = xp.matmul(SA.mT, SA) + ridge[i] * identity
        P = P + k * 2.0**-52 * float(xp.linalg.trace(P)) * identity
        solve = (lambda r: r) if not bool(xp.any(P != 0)) else lambda r, P=P: xp.linalg.solve(P, r[:, None])[:, 0]
        x, steps[i], residuals[i] = _conjugate_gradients(M, b, start, solve, tol, max_iter)
        X[i, :] = xp.astype(x, V.dtype)
    return X, steps, residuals


def sampled_products(X, Y, indices, indptr):
    """X[i].Y[indices[p]] for the entries p of each row i; (nnz,) in the dtype of X."""
    xp = array_namespace(X)
    out = xp.zeros(indices.shape[0], dtype=X.dtype, device=device(X))
    for i in range(indptr.shape[0] - 1):
        design = _row(Y, indices, indptr, i)[0]
        x = xp.astype(X[i, :], xp.float64)
        out[int(indptr[i]) : int(indptr[i + 1])] = xp.astype(xp.matmul(design, x[:, None])[:, 0], X.dtype)
    return out


def masked_variances(V, indices, indptr, weights, base, ridge, rows, U):
    """u_q.M^-1 u_q for each row q of U (q, k), M the system of `masked_cholesky` of row rows[q]; float64 (q,).

    Infinity where that system is singular by the rule there.
    """
    xp, k = array_namespace(V), V.shape[1]
    out = xp.zeros(rows.shape[0], dtype=xp.float64, device=device(V))
    for q in range(rows.shape[0]):
        M = _row_system(V, indices, indptr, weights, base, ridge, int(rows[q]))
        u = xp.astype(U[q, :], xp.float64)
        if not bool(xp.any(u != 0)):
            continue
        singular = not _least_pivot(M) > k * 2.0**-52
        out[q] = math.inf if singular else xp.sum(u * xp.linalg.solve(M, u[:, None])[:, 0])
    return out


def top_columns(scores, k, indices, indptr):
    """The k largest of each row of `scores` (b, n), descending, without the columns that the CSR rows list.

    Returns columns, int64 (b, k), and values (b, k); ties go to the lower column.  NaN is never taken, and where fewer
    than k are left, -1 and minus infinity stand.
    """
    xp, (b, n) = array_namespace(scores), scores.shape
    columns = xp.full((b, k), -1, dtype=xp.int64, device=device(scores))
    values = xp.full((b, k), -math.inf, dtype=scores.dtype, device=device(scores))
    for i in range(b):
        seen = {int(indices[p]) for p in range(int(indptr[i]), int(indptr[i + 1]))}
        left = [(-float(scores[i, j]), j) for j in range(n) if j not in seen and float(scores[i, j]) > -math.inf]
        for place, (_, j) in enumerate(sorted(left)[:k]):
            columns[i, place], values[i, place] = j, scores[i, j]
    return columns, values
