"""Mixed memberships of the rows and columns of a bipartite network, from singular vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import device as device_of

from .._arrays import as_matrix, eps, is_complex, namespace_of
from .._checks import check_integer
from .._random import as_key
from .._results import Result, Status, warn_or_raise
from ..lowrank.svd import svd
from .separable import _Columns, successive


@dataclass(frozen=True, repr=False)
class MembershipResult(Result):
    """Mixed memberships of rows and columns; iterates as ``row_memberships, column_memberships``.

    Attributes
    ----------
    row_memberships : array, shape (m, n_communities)
        Shares of each row in the communities of rows: nonnegative, with sum one.
    column_memberships : array, shape (n, n_communities)
        The same for columns.
    pure_rows, pure_columns : int64 array, shape (n_communities,)
        The rows and columns that were taken for pure members, in the order of the communities.
    row_condition, column_condition : float
        Condition numbers of the singular vectors at the pure rows and columns: errors of the singular vectors are
        multiplied with them.
    n_uniform : int
        Rows and columns on the negative side of all communities, which were given equal shares.
    singular_values : array, shape (n_communities,)
        Leading singular values of A.
    error : float
        Share of A that they leave, ``||A - U S Vh||_F / ||A||_F``: how far A is from such a model, noise included.
    status : Status
        BREAKDOWN if a condition number exceeds ``1 / sqrt(eps)``, or A has a lower rank than `n_communities`.
    """

    row_memberships: Any
    column_memberships: Any
    pure_rows: Any
    pure_columns: Any
    row_condition: float
    column_condition: float
    n_uniform: int
    singular_values: Any
    error: float
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("row_memberships", "column_memberships")


def bipartite_mixed_membership(
    A: Any, n_communities: int, *, n_neighbors: int = 1, rng: Any = None, on_failure: str = "warn",
) -> MembershipResult:  # fmt: skip
    """Estimate how much each row and each column of a bipartite network belongs to each community.

    The model is ``E[A] = Pi_r P Pi_c.T`` with memberships Pi_r (m, k) and Pi_c (n, k) whose rows sum to one, for edges
    of any distribution, signed ones too.  Rows of the leading singular vectors are then mixtures of those of pure
    members, which `spa` finds; the coefficients are the memberships.  It costs a singular value decomposition.

    Parameters
    ----------
    A : array, or CSR or CSC matrix, shape (m, n)
        Real adjacency matrix; it is not changed.
    n_communities : int, 1 <= n_communities <= min(m, n)
        Number of communities of rows, and of columns.
    n_neighbors : int, n_neighbors >= 1, default 1
        Average the singular vectors over so many rows that are nearest to each pure one: on noisy networks the row
        that sticks out farthest does so by its noise, and 5 is better.
    rng : None, int, SeedSequence, Generator or Key
        Source of the sketch of the singular value decomposition.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    MembershipResult
        ``row_memberships`` (m, n_communities) and ``column_memberships`` (n, n_communities); iterates as these.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    TypeError
        If A is complex or not numeric.

    Notes
    -----
    The memberships are identified up to the order of communities if each has a pure row and a pure column and P has
    full rank.  Without noise they are found up to rounding.  The communities of rows and of columns come in orders of
    their own; ``U[pure_rows] S V[pure_columns].T`` estimates P in these orders.

    References
    ----------
    .. [1] Qing and Wang, "Bipartite mixed membership distribution-free model. A novel model for community detection in
       overlapping bipartite weighted networks", arXiv:2211.00912, Algorithm DiSP.

    Examples
    --------
    >>> import numpy as np, randla
    >>> rng = np.random.default_rng(0)
    >>> rows, columns = (np.vstack([np.eye(2), rng.dirichlet([1, 1], size)]) for size in (60, 40))
    >>> A = rows @ np.array([[1.0, 0.2], [0.3, 0.8]]) @ columns.T
    >>> result = randla.bipartite_mixed_membership(A, 2, rng=0)
    >>> sorted(result.pure_rows.tolist()), bool(np.abs(np.sort(result.row_memberships) - np.sort(rows)).max() < 1e-12)
    ([0, 1], True)
    """
    A = as_matrix(A)
    if is_complex(A.dtype):
        raise TypeError(f"A must be real, got {A.dtype}")
    k = check_integer(n_communities, "n_communities", low=1, high=min(int(side) for side in A.shape))
    n_neighbors = check_integer(n_neighbors, "n_neighbors", low=1, high=min(int(side) for side in A.shape))
    key = as_key(rng).fold("bipartite_mixed_membership")
    found = svd(A, k, rng=key, on_failure="ignore")
    xp = namespace_of(A)
    if found.status is Status.NONFINITE or not math.isfinite(float(xp.sum(found.s))):
        rows, columns = (xp.zeros((int(side), k), dtype=found.s.dtype, device=device_of(found.s)) for side in A.shape)
        none = xp.zeros(0, dtype=xp.int64, device=device_of(found.s))
        result = MembershipResult(
            rows, columns, none, none, math.nan, math.nan, 0, found.s, math.nan, status=Status.NONFINITE
        )
        return warn_or_raise(result, on_failure, what="bipartite_mixed_membership")
    left, right = (_memberships(vectors, k, n_neighbors) for vectors in (found.U, found.Vh.mT))
    sound = float(found.s[k - 1]) > 32 * eps(found.s.dtype) * float(found.s[0])  # else vectors were made up
    sound = sound and max(left[2], right[2]) <= eps(found.s.dtype) ** -0.5
    status = Status.CONVERGED if sound else Status.BREAKDOWN
    result = MembershipResult(
        left[0], right[0], left[1], right[1], left[2], right[2], left[3] + right[3], found.s, found.error,
        status=status,
    )  # fmt: skip
    return warn_or_raise(result, on_failure, what="bipartite_mixed_membership")


def _memberships(U: Any, k: int, n_neighbors: int) -> tuple[Any, Any, float, int]:
    """Shares of the rows of U in its pure rows, these, the condition number of them, and how many got equal shares."""
    xp, dtype, device = namespace_of(U), U.dtype, device_of(U)
    U = xp.astype(U, xp.float64)
    chosen = successive(_Columns(U.mT, normalize=False), k, 32 * eps(dtype)).columns
    index = xp.asarray(chosen, dtype=xp.int64, device=device)
    equal = xp.full((U.shape[0], k), 1.0 / k, dtype=dtype, device=device)
    if len(chosen) < k:
        return equal, index, math.inf, int(U.shape[0])
    corners = xp.take(U, index, axis=0)
    if n_neighbors > 1:
        corners = xp.stack([_averaged(U, corners[t, :], n_neighbors) for t in range(k)])
    s = xp.linalg.svdvals(corners)
    condition = float(s[0] / s[-1]) if float(s[-1]) > 0 else math.inf
    if not condition <= 1 / eps(xp.float64):
        return equal, index, math.inf, int(U.shape[0])
    Z = xp.linalg.solve(corners.mT, U.mT).mT
    Z = xp.maximum(Z, xp.zeros_like(Z))
    total = xp.sum(Z, axis=1, keepdims=True)
    shares = xp.where(total > 0, Z / xp.where(total > 0, total, 1.0), 1.0 / k)
    uniform = int(xp.sum(xp.astype(total == 0, xp.int64)))
    return xp.astype(shares, dtype), index, condition, uniform


def _averaged(U: Any, corner: Any, count: int) -> Any:
    """The mean of the `count` rows of U that are nearest to a corner."""
    xp = namespace_of(U)
    nearest = xp.argsort(xp.sum((U - corner[None, :]) ** 2, axis=1))[:count]
    return xp.mean(xp.take(U, nearest, axis=0), axis=0)
