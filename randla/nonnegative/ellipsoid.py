"""The ellipsoid of least volume around the origin that holds all points, for preconditioning."""

from __future__ import annotations

from typing import Any

from array_api_compat import device as device_of

from .._arrays import namespace_of

EXCESS = 1e-3  # points may stick out of the ellipsoid by half of this
MOST_STEPS = 20_000
REFRESH = 200  # steps between factorisations, which take out what updates of rank one leave of rounding


def enclosing_ellipsoid(P: Any) -> Any:
    """``A^{1/2} P`` for points P (r, n) of rank r and the ellipsoid ``{x: x.T A x <= 1}`` of least volume around them.

    The dual problem is that of a D-optimal design: weights u of the points that maximise ``det(P diag(u) P.T)``.  Each
    step moves weight to the point farthest out, or away from the weighted point farthest in, by the best amount
    (Todd and Yildirim, Discrete Applied Mathematics 155, 2007).
    """
    xp, (r, n), device = namespace_of(P), P.shape, device_of(P)
    u = xp.full(n, 1.0 / n, dtype=P.dtype, device=device)
    places = xp.arange(n, device=device)
    for step in range(MOST_STEPS):
        if step % REFRESH == 0:
            inverse = xp.linalg.inv(xp.matmul(P * u[None, :], P.mT))
            kappa = xp.sum(P * xp.matmul(inverse, P), axis=0)
        out, inward = int(xp.argmax(kappa)), int(xp.argmin(xp.where(u > 0, kappa, float(r) * n + 1.0)))
        high, low = float(kappa[out]) / r - 1, 1 - float(kappa[inward]) / r
        if max(high, low) <= EXCESS:
            break
        j = out if high >= low else inward
        k = float(kappa[j])
        tau = (k - r) / ((k - 1) * r) if k > 1 else -1.0
        if tau < 0:  # away: no weight below zero
            share = float(u[j])
            tau = max(tau, -share / (1 - share))
        q = xp.matmul(inverse, P[:, j : j + 1])
        scale = tau / (1 - tau + tau * k)
        inverse = (inverse - scale * xp.matmul(q, q.mT)) / (1 - tau)
        kappa = (kappa - scale * xp.matmul(q.mT, P)[0, :] ** 2) / (1 - tau)
        u = xp.where(places == j, (1 - tau) * u + tau, (1 - tau) * u)
        u = xp.where(u > 1e-15, u, 0.0)
    values, vectors = xp.linalg.eigh(inverse)
    return xp.matmul(vectors * xp.sqrt(values / r)[None, :], xp.matmul(vectors.mT, P))
