"""The engine of the low-rank algorithms: a pair of growing subspaces with everything known about the error.

The state is ``A @ X = Q @ C`` with orthonormal X (n, p) and Q (m, q).  Then ``A ~ Q C X^*`` has the error
``||A||_F**2 - ||C||_F**2``, by Pythagoras and without another look at A; below sqrt(eps) that difference is rounding
noise, and Gaussian probes of the residual take over.

Steps:

* `inject`: a sketch ``S @ A`` gives fresh directions of the row space for the price of one read,
* `multiply`: ``A @ X_new`` extends Q and C,
* `pull`: ``A^* @ Q_new`` gives the Krylov directions that X lacks.

References
----------
.. [1] Tropp and Webber, "Randomized algorithms for low-rank matrix approximation: design, analysis, and applications",
   arXiv:2306.12418, Algorithm A.1 (RBKI).  Deviations: (1) the start is a sparse sketch of the rows instead of a
   Gaussian product, (2) fresh sketches join later blocks, so that multiplicities above the block size are found,
   (3) blocks are orthonormalised by Gram matrices with repeated projection, (4) below the floor of the Pythagorean
   error the residual is probed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import device as device_of

from .._arrays import eps, namespace_of
from .._random import Key
from ..diagnostics import PROBES, lanczos_factor
from ..linear_maps import AdjointMap, LinearMap, squared
from ..operators import Gaussian, SparseSign
from .orthonormal import (
    NonfiniteError,
    adjoint,
    core_dtype,
    core_svd,
    orthonormalize,
    orthonormalize_owned,
    row_blocks,
    squared_norm,
    whitened,
)
from .results import Step

# Four nonzeros a column are enough for a range finder that multiplies with A afterwards (specs of the sketches: the
# distortion only has to keep the subspace in reach); where a sketch is nearly square its rank would suffer.
_NNZ, _DENSE_UP_TO = 4, 4

# The leading directions of a sketch with four times the rows cost no second read: at 10,000 x 2,000, rank 50 and
# singular values 1/j they bring the error after one Krylov step from 1.013 to 1.002 of the optimum (8 times: 1.001).
_OVERSKETCH = 4

# The leading directions of a sketch are exact up to this many rows; above, where eigenvectors would cost more than
# the product with A, so many steps of subspace iteration on its Gram matrix find them (1.005 in place of 1.002).
_EXACT_UP_TO, _LEADING_STEPS = 320, 3

#: Directions of a block below this many units of rounding of A are taken for noise.
_NOISE = 32.0

#: Lanczos steps and starts of the spectral estimate.
_SPECTRAL_STEPS, _SPECTRAL_STARTS = 5, 10


def sketch_operator(sketch_size: int, n: int, key: Key) -> Any:
    """The sketch that starts a subspace: sparse signs, or Gaussian where it is nearly square."""
    if n <= _DENSE_UP_TO * sketch_size:
        return Gaussian(sketch_size, n, rng=key)
    return SparseSign(sketch_size, n, nnz=min(_NNZ, sketch_size), rng=key)


def floor_squared(A: LinearMap) -> float:
    """Relative squared error below which ``||A||_F**2 - ||C||_F**2`` is rounding noise."""
    return 64.0 * eps(A.dtype) * A.amplification


class Subspaces:
    """The state ``A @ X = Q @ C`` of one computation.

    Attributes
    ----------
    X, Q, C : arrays, shapes (n, p), (m, q) and (q, p)
        C is kept in double precision.
    outer : tuple of arrays, or None
        After a last `pull`: the directions X_new (n, k) and S (k, q) with ``Q^* A = C X^* + S^* X_new^*``.
    captured : float
        ``||C||_F**2``.
    n_iter, history : int, list of float
    """

    def __init__(self, A: LinearMap, key: Key, *, probe: bool) -> None:
        xp = A.xp
        self.A, self.key, self.xp = A, key, xp
        self.X: tuple[Any, ...] = ()
        self.Q: tuple[Any, ...] = ()
        self.C = xp.zeros((0, 0), dtype=core_dtype(A.dtype, xp), device=A.device)
        self.outer: tuple[Any, Any] | None = None
        self.n_iter = 0
        self.history: list[float] = []
        self.G = A.gaussian(key.fold("probe"), PROBES) if probe else None
        self.AG: Any = None

    # --- steps --------------------------------------------------------------------------------------------------------

    def inject(self, width: int) -> Any:
        """Orthonormal fresh directions of the row space: a sketch of A minus what X holds already."""
        m, n = self.A.shape
        if width == 0:
            return self.xp.zeros((n, 0), dtype=self.A.dtype, device=self.A.device)
        rows = min(_OVERSKETCH * width, m) if self.A.knows_norm else width
        S = sketch_operator(max(width, rows), m, self.key.fold("sketch").fold(self.n_iter))
        Z = self.xp.astype(adjoint(self.A.sketch(S)), self.A.dtype)
        return self._news(Z if Z.shape[1] <= width else self._leading(Z, width))[0]

    def _leading(self, Z: Any, width: int) -> Any:
        """The leading left singular vectors of Z minus what X holds, scaled, through the Gram matrix."""
        xp = self.xp
        for X in self.X:
            Z = Z - xp.matmul(X, xp.matmul(adjoint(X), Z))
        scale = math.sqrt(squared(Z, xp))
        if not 0.0 < scale < math.inf:
            return Z[:, :width]
        Z = Z / scale
        G = xp.matmul(adjoint(Z), Z)
        if G.shape[0] <= _EXACT_UP_TO:
            W = xp.astype(xp.linalg.eigh(xp.astype(G, self.C.dtype))[1][:, -width:], Z.dtype)
            return xp.matmul(Z, W) * scale
        W = self.A.gaussian(self.key.fold("leading").fold(self.n_iter), width, G.shape[0])
        for _ in range(_LEADING_STEPS):
            W = xp.matmul(G, whitened(W))
        return xp.matmul(Z, whitened(W)) * scale

    def pull(self, room: int | None = None) -> Any:
        """The Krylov directions ``A^* Q_new`` minus what X holds already; at most `room` of them, the strongest."""
        X_new, S = self._news(self.A.rmatmul(self.Q[-1]))
        if room is not None and room < X_new.shape[1]:
            U = core_svd(S)[0][:, :room]
            X_new, S = self.xp.matmul(X_new, self.xp.astype(U, X_new.dtype)), self.xp.matmul(adjoint(U), S)
        self.outer = X_new, S
        return X_new

    def _news(self, Z: Any) -> tuple[Any, Any]:
        Z = self.xp.astype(Z, self.A.dtype)
        # what is left of Z at the level of its rounding says nothing about A
        Q, R, _ = orthonormalize_owned(Z, self.X, rtol=_NOISE * eps(Z.dtype), scale=math.sqrt(self.captured))
        return Q, R

    def multiply(self, X_new: Any) -> None:
        """Extend the state by ``A @ X_new``; the first product takes the probes along."""
        xp, k = self.xp, X_new.shape[1]
        if self.G is not None and self.AG is None:
            Y = self.A.matmul(xp.concat([X_new, self.G], axis=1))
            Y, self.AG = Y[:, :k], Y[:, k:]
        else:
            Y = self.A.matmul(X_new)
        panel = orthonormalize_owned(Y, self.Q, rtol=_NOISE * eps(Y.dtype), scale=math.sqrt(self.captured))
        p, new = self.C.shape[1], panel.Q.shape[1]
        below = xp.zeros((new, p), dtype=self.C.dtype, device=self.A.device)
        self.C = xp.concat([xp.concat([self.C, below], axis=0), xp.concat([panel.H, panel.R], axis=0)], axis=1)
        self.X, self.Q, self.outer = (*self.X, X_new), (*self.Q, panel.Q), None

    def refine(self, X_new: Any) -> Any:
        """``A^* A @ X_new``, orthonormal and orthogonal to X: a power step, which keeps no block."""
        return self._news(self.A.rmatmul(whitened(self.A.matmul(X_new))))[0]

    @property
    def dimension(self) -> int:
        """Columns of all blocks of X."""
        return self.C.shape[1]

    # --- what is known about the error --------------------------------------------------------------------------------

    @property
    def captured(self) -> float:
        """Squared norm of the part of A that the state holds."""
        return squared_norm(self.C) + (squared_norm(self.outer[1]) if self.outer else 0.0)

    @property
    def rounding(self) -> float:
        """Relative error that the rounding of products with A leaves."""
        return eps(self.A.dtype) * math.sqrt(self.A.amplification)

    def relative(self) -> float:
        """``||A - Q C X^*||_F / ||A||_F`` as far as it is known without another pass."""
        rest, _ = self.uncaptured()
        whole = self.captured + rest
        return math.sqrt(rest / whole) if whole > 0.0 else 0.0

    def uncaptured(self) -> tuple[float, bool]:
        """``||A - Q C X^*||_F**2``, and whether it was probed instead of computed."""
        if self.A.knows_norm:
            whole = self.A.frobenius_squared()
            rest = max(whole - self.captured, 0.0)
            if rest > floor_squared(self.A) * whole or self.G is None:
                return rest, False
        return self.probed(), True

    def probes(self) -> tuple[Any, Any]:
        """Gaussian G and ``A @ G``; one pass over A unless they rode along."""
        if self.G is None:
            self.G = self.A.gaussian(self.key.fold("probe"), PROBES)
        if self.AG is None:
            self.AG = self.A.matmul(self.G)
        return self.G, self.AG

    def probed(self) -> float:
        """``||A - Q C X^*||_F**2`` from Gaussian probes."""
        G, AG = self.probes()
        return squared(AG - self.apply(G), self.xp) / PROBES

    def probed_factors(self, U: Any, s: Any, V: Any) -> float:
        """``||A - U S V^*||_F**2`` from Gaussian probes."""
        G, AG = self.probes()
        return squared(AG - self.xp.matmul(U, s[:, None] * self.xp.matmul(adjoint(V), G)), self.xp) / PROBES

    def apply(self, G: Any) -> Any:
        """``Q C X^* @ G``."""
        C, X = self.core()
        return combine(self.Q, self.xp.matmul(C, coefficients(X, G, C.dtype)), self.A)

    def apply_adjoint(self, Y: Any) -> Any:
        """``X C^* Q^* @ Y``."""
        C, X = self.core()
        return combine(X, self.xp.matmul(adjoint(C), coefficients(self.Q, Y, C.dtype)), AdjointMap(self.A))

    def core(self) -> tuple[Any, tuple[Any, ...]]:
        """C and the blocks of X, with the directions of a last `pull` that was not multiplied."""
        if self.outer is None:
            return self.C, self.X
        X_new, S = self.outer
        xp, k = self.xp, X_new.shape[1]
        above = xp.zeros((self.C.shape[0] - S.shape[1], k), dtype=self.C.dtype, device=self.A.device)
        right = xp.concat([above, adjoint(S)], axis=0)
        return xp.concat([self.C, right], axis=1), (*self.X, X_new)

    def factors(self) -> tuple[Any, Any, Any]:
        """The singular value decomposition of the core: (left, s, right) in double precision."""
        C, _ = self.core()
        if not squared_norm(C) < math.inf:
            raise NonfiniteError("the core holds NaN or infinity")
        return core_svd(C)

    def record(self, callback: Callable[[Step], Any] | None, error: float) -> bool:
        """Count a step, tell the callback, and return True if it wants to stop."""
        self.n_iter += 1
        self.history.append(error)
        if callback is None:
            return False
        step = Step(self.n_iter, self.dimension, error, self.A.n_passes, self.A.n_matvecs)
        return callback(step) is True

    def residual_norm(self, factors: tuple[Any, Any, Any] | None = None) -> tuple[float, float]:
        """``||A - Q C X^*||_2`` from below by block Lanczos, and the factor that makes it an upper bound.

        With `factors` U, s, V it is ``||A - U S V^*||_2``.
        """
        residual = _ResidualMap(self, factors)
        inner = Subspaces(residual, self.key, probe=False)
        start = self.A.gaussian(self.key.fold("spectral").fold(self.n_iter), _SPECTRAL_STARTS)
        X_new = orthonormalize(start).Q
        for step in range(_SPECTRAL_STEPS):
            inner.multiply(X_new)
            X_new = inner.pull() if step + 1 < _SPECTRAL_STEPS else X_new[:, :0]
            if X_new.shape[1] == 0:
                break
        s = inner.factors()[1]
        factor = lanczos_factor(self.A.shape[1], _SPECTRAL_STEPS, _SPECTRAL_STARTS)
        return (float(s[0]) if s.shape[0] else 0.0), factor


class _ResidualMap(LinearMap):
    """``A - Q C X^*`` as a map; its products count as those of A."""

    knows_norm = False

    def __init__(self, state: Subspaces, factors: tuple[Any, Any, Any] | None) -> None:
        A = state.A
        super().__init__(A.shape, A.dtype, A.xp, A.device)
        self.state, self.factors = state, factors

    def _matmul(self, X: Any) -> Any:
        if self.factors is None:
            return self.state.A.matmul(X) - self.state.apply(X)
        U, s, V = self.factors
        return self.state.A.matmul(X) - self.xp.matmul(U, s[:, None] * self.xp.matmul(adjoint(V), X))

    def _rmatmul(self, Y: Any) -> Any:
        if self.factors is None:
            return self.state.A.rmatmul(Y) - self.state.apply_adjoint(Y)
        U, s, V = self.factors
        return self.state.A.rmatmul(Y) - self.xp.matmul(V, s[:, None] * self.xp.matmul(adjoint(U), Y))


def combine(blocks: Sequence[Any], coefficients: Any, A: LinearMap) -> Any:
    """The columns of all blocks times their coefficients, in the dtype of A; A gives the number of rows."""
    xp, (m, k), first, parts = A.xp, (A.shape[0], coefficients.shape[1]), 0, []
    for B in blocks:
        parts.append((B, xp.astype(coefficients[first : first + B.shape[1], :], A.dtype)))
        first += B.shape[1]
    if len(parts) == 1:
        return xp.matmul(*parts[0])
    out = xp.zeros((m, k), dtype=A.dtype, device=A.device)
    for lo, hi in row_blocks(m, k):
        total = out[lo:hi, :]
        for B, part in parts:
            total = total + xp.matmul(B[lo:hi, :], part)
        out[lo:hi, :] = total
    return out


def coefficients(blocks: Sequence[Any], G: Any, dtype: Any) -> Any:
    """The adjoint of the blocks, side by side, times G, in double precision."""
    xp = namespace_of(G)
    parts = [xp.astype(xp.matmul(adjoint(B), G), dtype) for B in blocks]
    return xp.concat(parts, axis=0) if parts else xp.zeros((0, G.shape[1]), dtype=dtype, device=device_of(G))
