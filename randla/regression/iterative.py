"""LSMR of SciPy, for matrices whose factor would be too large and operators with cheap products only."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import is_numpy_namespace

from ..linear_maps import LinearMap


class Iterated(NamedTuple):
    """Solution, steps, LSMR's estimates of the norm and condition of A, and if all columns reached the tolerance."""

    X: Any
    n_iter: int
    norm: float
    condition: float
    reached: bool


def iterative(A: LinearMap, B: Any, *, weights: Any, damp: float, tol: float, max_iter: int, x0: Any) -> Iterated:
    """LSMR on each right-hand side; `tol` is its ``atol = btol``."""
    xp = A.xp
    if not is_numpy_namespace(xp):
        raise NotImplementedError(
            f'method must not be "lsmr" for arrays of {xp.__name__}, which has none; take "precondition"'
        )
    from scipy.sparse.linalg import LinearOperator, lsmr

    # LSMR's own scalars overflow in single precision, so its vectors are doubles
    core = xp.complex128 if xp.isdtype(A.dtype, "complex floating") else xp.float64
    roots = None if weights is None else xp.astype(xp.sqrt(weights), A.dtype)[:, None]

    def matvec(v: Any) -> Any:
        y = A.matmul(xp.astype(v.reshape(-1, 1), A.dtype))
        return xp.astype((y if roots is None else roots * y)[:, 0], core)

    def rmatvec(u: Any) -> Any:
        u = xp.astype(u.reshape(-1, 1), A.dtype)
        return xp.astype(A.rmatmul(u if roots is None else roots * u)[:, 0], core)

    operator = LinearOperator(A.shape, matvec=matvec, rmatvec=rmatvec, dtype=core)
    target = xp.astype(B if roots is None else roots * B, core)
    columns, steps, norm, condition, reached = [], 0, 0.0, 1.0, True
    for j in range(B.shape[1]):
        start = None if x0 is None else x0[:, j]
        found = lsmr(operator, target[:, j], damp=damp, atol=tol, btol=tol, conlim=0.0, maxiter=max_iter, x0=start)
        columns.append(found[0])
        steps, norm, condition = steps + int(found[2]), max(norm, float(found[5])), max(condition, float(found[6]))
        reached = reached and int(found[1]) in (0, 1, 2, 4, 5)
    return Iterated(xp.stack(columns, axis=1), steps, norm, condition, reached)
