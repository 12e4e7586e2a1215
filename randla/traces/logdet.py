"""Log-determinants of positive definite matrices by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device as device_of

from .._arrays import eps
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Result, Status, warn_or_raise
from ..linear_maps import LinearMap, as_linear_map
from ..lowrank.eigh import eigh
from ..lowrank.leave_one_out import conj, real
from ..lowrank.orthonormal import NonfiniteError, adjoint
from ..triangular import cholesky
from .panels import TestPanel, beside, standard_error
from .results import CONFIDENCE, ON_FAILURE, check_confidence, skewed_factor
from .trace import check_square

_EXACT = 512  # up to this size, n products and a Cholesky factorisation cost less than the quadrature
# Before it settles the convergence slows down from step to step: after 8 steps at condition number 1e4 the series gives
# 0.4 of what is missing.
_MARGIN = 3.0
_SLOWEST = 0.9  # the convergence of the quadrature is taken for at least so fast for each quarter of the steps


@dataclass(frozen=True, repr=False)
class LogdetResult(Result):
    """Estimate of a log-determinant with an interval around it.

    Attributes
    ----------
    estimate : float
    stderr : float
        Standard error of the mean over the probes.
    quadrature_error : float
        What the finite number of Lanczos steps may amount to: a bound where `smallest` was given, else extrapolated
        from the last steps.
    half_width : float
        The truth is within ``estimate +- half_width`` with probability `confidence`.
    confidence : float
        Of the interval; 1.0 where the matrix was small enough to be factored.
    method : str
        "lanczos", "deflated lanczos" or "exact".
    n_matvecs : int
        Columns that A was multiplied with.
    n_vectors : int
        Probes.
    n_lanczos : int
        Steps for each probe; 0 if exact.
    status : Status
    """

    estimate: float
    stderr: float
    quadrature_error: float
    half_width: float
    confidence: float
    method: str
    n_matvecs: int
    n_vectors: int
    n_lanczos: int
    status: Status

    @property
    def interval(self) -> tuple[float, float]:
        """``(low, high)``."""
        return self.estimate - self.half_width, self.estimate + self.half_width


def logdet(
    A: Any, n_probes: int = 30, n_lanczos: int = 40, *, tol: float | None = None, rank: int = 0,
    smallest: float | None = None, confidence: float = CONFIDENCE, rng: Any = None, on_failure: str = "warn",
) -> LogdetResult:  # fmt: skip
    """Estimate the logarithm of the determinant of a positive definite matrix from products.

    ``log det A = tr log A`` is a mean of ``n w^* log(A) w`` over random directions w, each by a Gauss quadrature from
    Lanczos steps that start at w [1]_.

    Parameters
    ----------
    A : array, CSR or CSC matrix, LinearOperator, RowBlocks or LinearMap, shape (n, n)
        Symmetric (Hermitian) positive definite matrix; it is not changed.
    n_probes : int, n_probes >= 4, default 30
        Random directions.  The standard error falls with the root of their number.
    n_lanczos : int, n_lanczos >= 8, default 40
        Steps for each probe, one product each.  The error of the quadrature falls about as fast as that of the
        conjugate gradient method, with the root of the condition number.
    tol : float, optional
        Double the number of probes until the half width is at most ``tol * abs(estimate)``, up to n products in each
        step.  It cannot be met where the quadrature is what is wrong: raise `n_lanczos` or `rank`.
    rank : int, rank >= 0, default 0
        Divide by ``P = V diag(w) V^* + c (I - V V^*)`` first, with so many leading eigenvectors V of A: ``log det A =
        log det P + tr log(inv(sqrt(P)) A inv(sqrt(P)))`` for any V.  For matrices with few large eigenvalues.
    smallest : float, optional
        A positive number that no eigenvalue of A is below, such as the ridge in K + ridge I.  Then a Gauss-Radau rule
        bounds the quadrature from the other side.
    confidence : float in [0.5, 0.99], default 0.95
        Probability with which the interval shall hold.
    rng : None, int, SeedSequence, Generator or Key
        Source of the probes.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    LogdetResult
        ``estimate``, ``half_width`` and the property ``interval``, with both parts of the error.

    Raises
    ------
    ValueError
        If A is not square, a Lanczos step shows that it is not positive definite, or a parameter is out of range.
    TypeError
        If A is not numeric.

    Notes
    -----
    Cost: ``n_probes n_lanczos`` products and O(n n_probes n_lanczos**2) flops for full orthogonality, which keeps
    quadrature nodes from repeating.  Up to n = 512 the matrix is multiplied out and factored.

    A Gauss rule for the logarithm lies above the integral, and a Gauss-Radau rule with a node below all eigenvalues
    lies under it [2]_; with `smallest` the quadrature error is half of their difference and holds up to rounding.
    Without, the monotone fall over the last two quarters of the steps is extrapolated as a geometric series, which is
    an estimate only.

    References
    ----------
    .. [1] Ubaru, Chen and Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal.
       Appl. 38 (2017).
    .. [2] Golub and Meurant, "Matrices, moments and quadrature with applications", Princeton (2010), theorem 6.4.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> from randla.traces import logdet
    >>> A = scipy.sparse.diags_array([-np.ones(1999), np.full(2000, 3.0), -np.ones(1999)], offsets=[-1, 0, 1])
    >>> result = logdet(A, rng=0)
    >>> low, high = result.interval
    >>> bool(low < 2000 * np.log((3 + 5**0.5) / 2) < high), result.half_width < 20
    (True, True)
    """
    check_choice(on_failure, "on_failure", ON_FAILURE)
    confidence = check_confidence(confidence)
    n_probes = check_integer(n_probes, "n_probes", low=4)
    n_lanczos = check_integer(n_lanczos, "n_lanczos", low=8)
    tol = None if tol is None else check_real(tol, "tol", low=0.0, closed="neither", remedy="it is relative")
    smallest = None if smallest is None else check_real(smallest, "smallest", low=0.0, closed="neither")
    A = as_linear_map(A)
    n = check_square(A)
    rank = check_integer(rank, "rank", low=0, high=max(n - 1, 0), remedy=f"A has shape {A.shape}")
    before = A.n_matvecs
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # NaN and infinity end in a status
            if n <= min(_EXACT, n_probes * n_lanczos):
                parts = _factored(A)
            else:
                probing = (n_probes, min(n_lanczos, n), rank, smallest, tol, confidence)
                parts = _quadrature(A, probing, as_key(rng).fold("logdet"))
    except NonfiniteError:
        parts = (math.nan, math.inf, math.inf, math.inf, confidence, "lanczos", 0, 0, Status.NONFINITE)
    value, error, quadrature, width, held, method, probes, steps, status = parts
    spent = A.n_matvecs - before
    result = LogdetResult(value, error, quadrature, width, held, method, spent, probes, steps, status)
    return warn_or_raise(result, on_failure, what="logdet")


def _factored(A: LinearMap) -> tuple[Any, ...]:
    """The log-determinant of a small matrix through its Cholesky factor."""
    xp, n = A.xp, A.shape[0]
    panel = TestPanel(A, Key(0, 0))
    M = panel.product(xp.eye(n, dtype=A.dtype, device=A.device))
    R = cholesky((M + adjoint(M)) / 2.0) if n else M
    if R is None:
        raise _indefinite("a failing Cholesky factorisation")
    d = xp.log(real(xp.linalg.diagonal(R), xp))
    value = 2.0 * float(xp.sum(d))
    # the backward error of Cholesky, n eps ||A||, moves log det by its product with the inverse
    s = xp.linalg.svdvals(R) if n else d
    width = 8.0 * eps(A.dtype) * float(s[0]) ** 2 * float(xp.sum(1.0 / s**2)) if n else 0.0
    return value, 0.0, 0.0, width, 1.0, "exact", n, 0, Status.CONVERGED


def _indefinite(seen: str) -> ValueError:
    return ValueError(f"A must be positive definite, got {seen}; add a multiple of the identity")


class _Scaled:
    """``inv(sqrt(P)) A inv(sqrt(P))`` with the eigenvectors V and values w of P, and c on the complement."""

    def __init__(self, A: LinearMap, rank: int, key: Key) -> None:
        self.A, self.panel, self.xp = A, TestPanel(A, key), A.xp
        self.V: Any = None
        self.logdet = 0.0
        if rank == 0:
            return
        found = eigh(A, rank, n_power_iter=1, rng=key.fold("deflation"), on_failure="ignore")
        if found.status is Status.NONFINITE:
            raise NonfiniteError("a product with A holds NaN or infinity")
        xp, core = A.xp, self.panel.core
        w = xp.astype(found.w, xp.float64)
        if not float(xp.min(w)) > 0.0:
            raise _indefinite(f"an eigenvalue of about {float(xp.min(w)):.2e}")
        # orthonormal in double precision, so that P is what it is taken for
        self.V = xp.linalg.qr(xp.astype(found.V, core))[0]
        G = self.panel.draw(4)
        G = G - xp.matmul(self.V, xp.matmul(adjoint(self.V), G))
        rest = float(xp.sum(real(conj(G, xp) * self.panel.product(G), xp))) / float(xp.sum(xp.abs(G) ** 2))
        self.c = min(rest, float(xp.min(w)))
        if not self.c > 0.0:
            raise _indefinite(f"a quadratic form of {rest:.2e}")
        self.root = xp.astype(1.0 / xp.sqrt(w) - self.c**-0.5, core)
        self.logdet = float(xp.sum(xp.log(w))) + (A.shape[0] - rank) * math.log(self.c)

    def product(self, X: Any) -> Any:
        return self.panel.product(X) if self.V is None else self._root(self.panel.product(self._root(X)))

    def _root(self, X: Any) -> Any:
        xp = self.xp
        return self.c**-0.5 * X + xp.matmul(self.V, self.root[:, None] * xp.matmul(adjoint(self.V), X))


def _quadrature(A: LinearMap, probing: tuple[Any, ...], key: Key) -> tuple[Any, ...]:
    n_probes, steps, rank, smallest, tol, confidence = probing
    scaled, xp = _Scaled(A, rank, key), A.xp
    bound = None if smallest is None else smallest / _largest_scale(scaled)
    tables: Any = xp.zeros((3, 0), dtype=xp.float64, device=A.device)
    size, limit = n_probes, n_probes if tol is None else max(n_probes, A.shape[0])
    while True:
        new = _probe(scaled, size - tables.shape[1], steps, bound)
        tables = beside(tables, new)
        upper, rest = tables[0, :], xp.mean(tables[1:, :], axis=1)
        quadrature = _rest(float(xp.mean(upper)), rest, bound)
        error = float(standard_error(upper, xp))
        width = skewed_factor(size, confidence) * error + quadrature + 8.0 * eps(A.dtype) * A.shape[0]
        # a two-sided rule has its centre between the two
        value = scaled.logdet + float(xp.mean(upper)) - (quadrature if bound is not None else 0.0)
        done = tol is None or width <= tol * abs(value)
        if done or size >= limit:
            break
        size = min(2 * size, limit)
    method = "deflated lanczos" if rank else "lanczos"
    return value, error, quadrature, width, confidence, method, size, steps, (
        Status.CONVERGED if done else Status.MAX_ITER
    )  # fmt: skip


def _largest_scale(scaled: _Scaled) -> float:
    """The largest eigenvalue of P: no eigenvalue of the scaled matrix is below that of A over it."""
    if scaled.V is None:
        return 1.0
    return 1.0 / float(scaled.xp.min(real(scaled.root, scaled.xp) + scaled.c**-0.5)) ** 2


def _rest(upper: float, rest: Any, bound: float | None) -> float:
    """The error of the quadrature: half of what two rules enclose, or the rest of a geometric series."""
    if bound is not None:
        return max(0.0, upper - float(rest[0])) / 2.0
    last, before = max(0.0, float(rest[1]) - upper), max(0.0, float(rest[0]) - float(rest[1]))
    ratio = min(_SLOWEST, last / before) if before > 0.0 else 0.0
    return _MARGIN * last * ratio / (1.0 - ratio)


def _probe(scaled: _Scaled, k: int, steps: int, bound: float | None) -> Any:
    """Gauss rules of k probes, and what tells their error: Radau rules, or Gauss rules of fewer steps; (3, k)."""
    xp = scaled.xp
    n, W = scaled.A.shape[0], scaled.panel.draw(k)
    V = W / xp.astype(xp.sqrt(xp.sum(xp.abs(W) ** 2, axis=0)), W.dtype)[None, :]
    alphas, betas = _lanczos(scaled, V, steps)
    whole, quarter = _rule(alphas, betas, xp), steps // 4
    if bound is not None:
        lower = _rule(*_radau(alphas, betas, bound, xp), xp)
        return n * xp.stack([whole, lower, lower])
    early = [_rule(alphas[:, : steps - j * quarter], betas[:, : steps - j * quarter], xp) for j in (2, 1)]
    return n * xp.stack([whole, *early])


def _lanczos(scaled: _Scaled, V: Any, steps: int) -> tuple[Any, Any]:
    """Diagonals (k, steps) of the tridiagonal matrices of k starts, and what is beside and below them (k, steps)."""
    xp, (n, k) = scaled.xp, V.shape
    alphas: list[Any] = []
    betas: list[Any] = []
    basis = xp.empty((k, steps, n), dtype=V.dtype, device=scaled.A.device)  # one contiguous basis for each start
    alive = xp.ones((k,), dtype=xp.float64, device=scaled.A.device)
    tiny, below = math.sqrt(n) * eps(scaled.A.dtype), xp.zeros_like(V)
    for j in range(steps):
        basis[:, j, :] = V.mT
        W = scaled.product(V) - below
        alpha = xp.sum(real(conj(V, xp) * W, xp), axis=0)
        W = W - xp.astype(alpha, V.dtype)[None, :] * V
        # what the three-term recurrence leaves is orthogonal up to rounding that converged Ritz vectors lift: one pass
        held, row = basis[:, : j + 1, :], W.mT[:, None, :]
        coefficients = xp.matmul(row, conj(held, xp).mT)
        W = (row - xp.matmul(coefficients, held))[:, 0, :].mT
        beta = xp.sqrt(xp.sum(xp.abs(W) ** 2, axis=0))
        # a start that is exhausted goes on with zeros; its dead rows repeat the first node, with weight zero
        alphas.append(xp.where(alive > 0, alpha, alphas[0] if alphas else alpha))
        alive = xp.where(beta > tiny * xp.abs(alphas[0]), alive, xp.zeros_like(alive))
        beta = xp.where(alive > 0, beta, xp.zeros_like(beta))
        betas.append(beta)
        below = V * xp.astype(beta, V.dtype)[None, :]
        V = W * xp.astype(alive / xp.where(beta > 0, beta, xp.ones_like(beta)), W.dtype)[None, :]
        if float(xp.sum(alive)) == 0.0:
            break
    return xp.stack(alphas, axis=1), xp.stack(betas, axis=1)


def _tridiagonal(alphas: Any, betas: Any, xp: Any) -> Any:
    """Stacked tridiagonal matrices (k, steps, steps)."""
    steps = alphas.shape[1]
    unit, above = (xp.eye(steps, k=k, dtype=alphas.dtype, device=device_of(alphas)) for k in (0, 1))
    T = alphas[:, :, None] * unit[None, :, :] + betas[:, :, None] * above[None, :, :]
    return T + (betas[:, :, None] * above[None, :, :]).mT


def _rule(alphas: Any, betas: Any, xp: Any) -> Any:
    """The quadratures of the logarithm, one for each tridiagonal matrix."""
    nodes, vectors = xp.linalg.eigh(_tridiagonal(alphas, betas, xp))
    least = float(xp.min(nodes))
    if not least > 0.0:
        if least != least:
            raise NonfiniteError("a Lanczos step holds NaN or infinity")
        raise _indefinite(f"a Ritz value of {least:.2e}")
    return xp.sum(vectors[:, 0, :] ** 2 * xp.log(nodes), axis=1)


def _radau(alphas: Any, betas: Any, bound: float, xp: Any) -> tuple[Any, Any]:
    """The tridiagonal matrices with one more row that makes `bound` an eigenvalue."""
    k, steps = alphas.shape
    unit = xp.eye(steps, dtype=alphas.dtype, device=device_of(alphas))
    square = (betas[:, -1] ** 2)[:, None] * unit[-1, :][None, :]
    T = _tridiagonal(alphas, betas, xp) - bound * unit[None, :, :]
    end = bound + xp.linalg.solve(T, square[:, :, None])[:, -1, :]
    zero = xp.zeros((k, 1), dtype=betas.dtype, device=device_of(betas))
    return beside(alphas, end), beside(betas, zero)
