"""Samples of rows: by given scores, by scores that are computed here, or from a stream in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace, is_numpy_namespace

from .._arrays import as_matrix, check_together, floating_dtype, from_host, is_complex, is_sparse, namespace_of
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, Stream, as_key
from .._results import Result, Status

#: Scores that `select_rows` computes.
SCORES = ("lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform")

#: Scores below count as zero: ranks ``u / q`` stay finite.
LEAST_SCORE = 2.0**-1020

#: Distortion that the default size aims at.
DEFAULT_EPSILON = 0.25

#: A round of root leverage sampling must at least halve the rows; what brings less is left to the last round.
_ROUND_SHRINKS = 2


@dataclass(frozen=True, repr=False)
class RowSelection(Result):
    """Rows kept by a random sample, with the probability that each of them had.

    Two numbers undo the sampling, and they are not the same: a kept row is *scaled* by ``probabilities**(-1/p)``
    (`weights`), so that ``||S A x||_p**p`` is an unbiased estimate of ``||A x||_p**p``; a term of an objective
    ``sum_i f_i`` is *multiplied* by ``1 / probabilities`` (`objective_weights`).

    Attributes
    ----------
    indices : array, shape (n_kept,), int64
        The kept rows, ascending.
    probabilities : array, shape (n_kept,), float64
        Their probabilities, in (0, 1].
    p : float
        The norm that `weights` are for.
    n_rows : int
        Rows that there were to choose from.
    n_expected : float
        Expected number of kept rows: what was asked for, or the rows of positive score if there are fewer.
    complete : bool
        True if every row of positive score was kept with probability one, because no more of them were there than
        asked for; nothing is random then.
    rows : array or CSR matrix, shape (n_kept, n), or None
        The kept rows as they came, where the sample was made from a stream.
    status : Status
        Always CONVERGED.
    """

    indices: Any
    probabilities: Any
    p: float
    n_rows: int
    n_expected: float
    complete: bool
    rows: Any = None
    status: Status = Status.CONVERGED
    _factors: ClassVar[tuple[str, ...]] = ("indices", "probabilities")

    @property
    def weights(self) -> Any:
        """Factors of the kept rows, ``probabilities**(-1/p)``; array (n_kept,), float64."""
        return self.probabilities ** (-1.0 / self.p)

    @property
    def objective_weights(self) -> Any:
        """Factors of the kept terms of a sum over rows, ``1 / probabilities``; array (n_kept,), float64."""
        return 1.0 / self.probabilities

    def apply(self, A: Any = None) -> Any:
        """Return the kept rows of A times `weights`; CSR for a sparse matrix.

        Parameters
        ----------
        A : array, shape (n_rows, n) or (n_rows,), or sparse matrix, optional
            May be left out where the sample was made from a stream, which kept the rows.

        Returns
        -------
        array or CSR matrix, shape (n_kept, n) or (n_kept,)
            In the floating dtype of A.

        Raises
        ------
        ValueError
            If A has not n_rows rows, lives elsewhere than the sample, or is left out and no rows were kept.
        """
        if A is None:
            if self.rows is None:
                raise ValueError("A must be given, got None; only a sample from a stream keeps the rows themselves")
            return _scaled(self.rows, self.weights)
        A = as_matrix(A, vector=True)
        if A.shape[0] != self.n_rows:
            raise ValueError(f"A must have {self.n_rows} rows, got shape {tuple(A.shape)}")
        check_together(self.indices, A, names=("the sample", "A"))
        return _scaled(taken(A, self.indices), self.weights)


def taken(A: Any, indices: Any) -> Any:
    """Some rows of an array or a sparse matrix."""
    if is_sparse(A):
        return (A if A.format == "csr" else A.tocsr())[indices]
    # fancy indexing reads only the chosen rows of a memory map, and is what CuPy has a kernel for
    return A[indices] if is_numpy_namespace(namespace_of(A)) else namespace_of(A).take(A, indices, axis=0)


def _scaled(A: Any, weights: Any) -> Any:
    """``diag(weights) A`` in the floating dtype of A."""
    xp = namespace_of(A)
    dtype = floating_dtype(A, xp)
    if not is_sparse(A):
        factors = xp.astype(weights, dtype)
        return xp.astype(A, dtype, copy=False) * (factors if A.ndim == 1 else factors[:, None])
    data = xp.astype(A.data, dtype) * xp.astype(weights, dtype)[entry_rows(A)]
    return type(A)((data, A.indices, A.indptr), shape=A.shape)


def entry_rows(A: Any) -> Any:
    """The row of each stored entry of a CSR matrix."""
    xp = array_namespace(A.data)
    # by a search in the row pointers, since CuPy repeats by fixed counts only
    entries = xp.arange(A.data.shape[0], dtype=A.indptr.dtype, device=A.data.device)
    return xp.searchsorted(A.indptr, entries, side="right") - 1


# --- samples by given scores ------------------------------------------------------------------------------------------


def sample_rows(
    scores: Any, n_samples: int, *, p: float = 2.0, method: str = "poisson", rng: Any = None
) -> RowSelection:
    """Choose rows at random, with probabilities in proportion to their scores as far as one allows.

    "poisson" keeps row i by itself with probability ``min(1, c q_i)``, where c makes the expected number of kept rows
    exactly `n_samples`.  "priority" keeps exactly `n_samples` rows, those of smallest ``u_i / q_i`` with uniform u_i,
    and is what :class:`StreamingRowSampler` finds in one pass.  In both the uniform of a row depends on the key and on
    its index alone, and larger samples by one key contain the smaller ones.

    Parameters
    ----------
    scores : array, shape (m,)
        Finite and nonnegative; rows of score zero (below 2**-1020) are never kept.
    n_samples : int, n_samples >= 0
        Expected ("poisson") or exact ("priority") number of rows.  If at most so many scores are positive, all these
        rows are kept, and `complete` says so.
    p : float, p >= 1, default 2
        Norm that the weights of the rows are for; it does not change the sample.
    method : {"poisson", "priority"}, default "poisson"
        Independent decisions, or a fixed size.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Equal keys give equal samples on every backend, whatever the data are split into.

    Returns
    -------
    RowSelection
        ``indices`` (n_kept,) and ``probabilities`` (n_kept,); iterates as the two.

    Raises
    ------
    ValueError
        If the scores are not a vector of finite nonnegative numbers, or a parameter is out of range.
    TypeError
        If `scores` is not numeric, or `n_samples` no integer.

    Notes
    -----
    With "poisson" the number of kept rows has a variance below `n_samples`.  With "priority" the probability that is
    told, ``min(1, tau q_i)`` with tau the smallest rank left out, is that of keeping the row given the ranks of all
    others; sums weighted by its inverse are unbiased, and pairs of rows are uncorrelated [1]_.  Cost: a sort
    of m numbers.

    References
    ----------
    .. [1] Duffield, Lund and Thorup, "Priority sampling for estimation of arbitrary subset sums", J. ACM 54 (2007).

    Examples
    --------
    >>> import numpy as np, randla
    >>> from randla.sampling import sample_rows
    >>> A = np.random.default_rng(0).standard_normal((1000, 3))
    >>> sample = sample_rows(np.sum(A * A, axis=1), 50, rng=0)
    >>> sample.n_expected, sample.apply(A).shape == (len(sample.indices), 3)
    (50.0, True)
    >>> sample_rows(np.arange(10.0), 3, method="priority", rng=0).indices.shape
    (3,)
    """
    q = checked_scores(scores)
    k = check_integer(n_samples, "n_samples", low=0)
    p = check_p(p)
    check_choice(method, "method", ("poisson", "priority"))
    draw = _poisson if method == "poisson" else _priority
    return draw(q, k, p, as_key(rng), array_namespace(q))


def check_p(p: Any) -> float:
    """`p` as a float in [1, inf)."""
    return check_real(p, "p", low=1.0, closed="left")


def checked_scores(scores: Any, name: str = "scores") -> Any:
    """The scores in double precision."""
    q = as_matrix(scores, name=name, sparse=False, vector=True)
    xp = array_namespace(q)
    if q.ndim != 1:
        raise ValueError(f"{name} must be 1-D, one number for each row, got shape {tuple(q.shape)}")
    if is_complex(q.dtype):
        raise ValueError(f"{name} must be real, got {q.dtype}")
    q = xp.astype(q, xp.float64)
    sound = xp.isfinite(q) & (q >= 0.0)
    if not bool(xp.all(sound)):
        first = int(xp.argmin(xp.astype(sound, xp.int64)))
        raise ValueError(f"{name} must be finite and nonnegative, got {float(q[first])} at row {first}")
    return xp.where(q >= LEAST_SCORE, q, xp.zeros_like(q))


def inclusion_probabilities(scores: Any, n_samples: int) -> Any:
    """``min(1, c q_i)`` with the c for which they add up to n_samples, or 1 for all positive scores if those are few.

    In descending order the first j rows are those at 1, and ``c = (k - j) / (q_j + q_{j+1} + ...)``; j is the least one
    for which ``c q_j <= 1``.  The tails are summed from the smallest score up, so the sum is exact to rounding.
    """
    xp = array_namespace(scores)
    positive = scores > 0
    if int(xp.sum(xp.astype(positive, xp.int64))) <= n_samples:
        return xp.astype(positive, xp.float64)
    if n_samples == 0:
        return xp.zeros_like(scores)
    q = scores * 2.0**-64 if float(xp.max(scores)) > 2.0**900 else scores  # sums must not overflow
    positive = q > 0
    n_positive = int(xp.sum(xp.astype(positive, xp.int64)))
    if n_positive <= n_samples:  # all others are smaller by 2**900 and more, and share what is left
        others = inclusion_probabilities(xp.where(positive, xp.zeros_like(q), scores), n_samples - n_positive)
        return xp.where(positive, xp.ones_like(q), others)
    ascending = xp.sort(q)
    tails = xp.flip(xp.cumulative_sum(ascending))[:n_samples]
    descending = xp.flip(ascending)[:n_samples]
    left = n_samples - xp.astype(xp.arange(n_samples, dtype=xp.int64, device=q.device), xp.float64)
    j = int(xp.argmax(xp.astype(left * descending <= tails, xp.int64)))
    # scores above the free ones are brought down to them, so that the quotient cannot overflow
    pi = (n_samples - j) * (xp.where(q > descending[j], descending[j] * xp.ones_like(q), q) / float(tails[j]))
    pi = xp.where(pi < 1.0, pi, xp.ones_like(q))
    return xp.where(q >= descending[j - 1], xp.ones_like(q), pi) if j else pi


def _poisson(q: Any, k: int, p: float, key: Key, xp: Any) -> RowSelection:
    pi = inclusion_probabilities(q, k)
    kept = xp.nonzero(uniforms(key, 0, q.shape[0], q) < pi)[0]
    n_positive = int(xp.sum(xp.astype(q > 0, xp.int64)))
    expected = float(min(k, n_positive))
    pi = xp.take(pi, kept, axis=0)
    return RowSelection(xp.astype(kept, xp.int64), pi, p, int(q.shape[0]), expected, n_positive <= k)


def _priority(q: Any, k: int, p: float, key: Key, xp: Any) -> RowSelection:
    m = int(q.shape[0])
    candidates = xp.nonzero(q > 0)[0]
    q = xp.take(q, candidates, axis=0)
    ranks = xp.take(uniforms(key, 0, m, q), candidates, axis=0) / q
    kept, tau = smallest(ranks, candidates, k)
    scores, indices = xp.take(q, kept, axis=0), xp.take(candidates, kept, axis=0)
    pi = conditional_probabilities(scores, tau)
    expected = float(min(k, int(q.shape[0])))
    return RowSelection(xp.astype(indices, xp.int64), pi, p, m, expected, math.isinf(tau))


def smallest(ranks: Any, indices: Any, k: int) -> tuple[Any, float]:
    """Positions, ascending by index, of the k smallest ranks, and the next rank (infinity if there is none)."""
    xp = array_namespace(ranks)
    by_index = xp.argsort(indices)  # equal ranks then stand in the order of their rows
    order = xp.take(by_index, xp.argsort(xp.take(ranks, by_index, axis=0), stable=True), axis=0)
    tau = float(ranks[int(order[k])]) if order.shape[0] > k else math.inf
    kept = order[:k]
    return xp.take(kept, xp.argsort(xp.take(indices, kept, axis=0)), axis=0), tau


def conditional_probabilities(scores: Any, tau: float) -> Any:
    """``min(1, q_i tau)``: the chance that a rank ``u / q_i`` falls below tau."""
    xp = array_namespace(scores)
    one = xp.ones_like(scores)
    if math.isinf(tau):
        return one
    tau = max(tau, LEAST_SCORE)  # a rank of zero has probability 2**-53
    certain = scores >= 1.0 / tau
    return xp.where(certain, one, xp.minimum(xp.where(certain, one, scores) * tau, one))


def uniforms(key: Key, start: int, stop: int, like: Any) -> Any:
    """The uniforms of rows start, ..., stop - 1, which decide on them; float64 on the device of `like`."""
    xp = namespace_of(like)
    return from_host(kernel("uniforms", xp)(key, Stream.POISSON, start, stop), xp, like)


# --- samples by scores that are computed here -------------------------------------------------------------------------


def sample_size(n_columns: int, p: float, epsilon: float = DEFAULT_EPSILON) -> int:
    """Rows that keep l_p norms of an n-dimensional subspace within about 1 +- epsilon: a rule with measured constants.

    ``4 d**max(1, p/2) log(d + 2) / epsilon**2``: the rate of the theorems on Lewis weights up to logarithms, with a
    constant that is no theorem's.
    """
    return math.ceil(4.0 * n_columns ** max(1.0, p / 2.0) * math.log(n_columns + 2.0) / epsilon**2)


def select_rows(
    A: Any, n_samples: int | None = None, *, scores: str = "lewis", p: float = 2.0, epsilon: float | None = None,
    rng: Any = None,
) -> RowSelection:  # fmt: skip
    """Choose rows that keep ``||A x||_p`` for all x, by scores computed from A.

    Parameters
    ----------
    A : array, CSR or CSC matrix, shape (m, n)
        Real matrix whose rows are sampled.
    n_samples : int, optional
        Expected number of rows, by default a rule: ``4 n**max(1, p/2) log(n + 2) / epsilon**2``, at most m.
    scores : {"lewis", "leverage+sensitivity", "root_leverage", "leverage", "uniform"}, default "lewis"
        "lewis": Lewis weights, the best of them for every p.  "leverage+sensitivity": leverage score plus an upper
        bound of the l_p sensitivity plus 1/m.  "root_leverage": leverage to the power p/2; for p < 2 in rounds, each on
        the sample of the one before.  "leverage": fit for p = 2.  "uniform": no pass over A, and no guarantee.
    p : float, p >= 1, default 2
        The norm.
    epsilon : float, 0 < epsilon < 1, default 0.25
        Distortion that the default size aims at; not with `n_samples`.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Different `scores` do not share draws.

    Returns
    -------
    RowSelection
        ``indices`` (n_kept,) and ``probabilities`` (n_kept,); iterates as the two.

    Raises
    ------
    ValueError
        If A is complex or not 2-D, if its scores are not finite, or a parameter is out of range.
    TypeError
        If A is not numeric, or `n_samples` no integer.

    Notes
    -----
    Proved up to constants and logarithms: Lewis weights keep all norms within 1 +- epsilon from
    ``n**max(1, p/2) / epsilon**2`` rows; leverage plus sensitivity needs ``(n + total sensitivity) / epsilon**2`` for
    p <= 2 [1]_, and pure sensitivities, which are not offered, do not reach that.  With "root_leverage" in rounds the
    probability of a row is the product of those of its rounds, given the earlier ones.  Cost: five passes of 2 m n**2
    flops for Lewis weights and for sensitivities, two for leverage.

    References
    ----------
    .. [1] Munteanu and Omlor, "Optimal bounds for l_p sensitivity sampling via l_2 augmentation", arXiv:2406.00328.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.sampling import select_rows
    >>> A = np.random.default_rng(0).standard_t(1.5, (5000, 4))
    >>> sample = select_rows(A, 500, p=1.0, rng=0)
    >>> x = np.ones(4)
    >>> bool(abs(np.abs(sample.apply(A) @ x).sum() / np.abs(A @ x).sum() - 1) < 0.1)
    True
    """
    A = as_matrix(A)
    p = check_p(p)
    check_choice(scores, "scores", SCORES)
    if is_complex(A.dtype):
        raise ValueError(f"A must be real, got {A.dtype}")
    m, n = A.shape
    if n_samples is not None and epsilon is not None:
        raise ValueError(f"epsilon must be None where n_samples is given, got {epsilon!r}; set one of them")
    if n_samples is None:
        aim = DEFAULT_EPSILON if epsilon is None else check_real(epsilon, "epsilon", low=0, high=1, closed="neither")
        n_samples = min(m, sample_size(n, p, aim))
    k = check_integer(n_samples, "n_samples", low=0)
    key = as_key(rng).fold(f"rows by {scores}")  # samples by different scores must not share draws
    if scores == "root_leverage" and p < 2.0:
        return _in_rounds(A, k, p, key)
    q = checked_scores(row_scores(A, scores, p, key.fold("scores")), f"the scores of A by {scores!r}")
    return _poisson(q, k, p, key, array_namespace(q))


def row_scores(A: Any, scores: str, p: float, key: Key) -> Any:
    """The scores of the rows of A by name, in one round."""
    from .lewis import lewis_weights
    from .scores import leverage_scores
    from .sensitivities import lp_sensitivities

    if scores == "uniform":
        like = A.data if is_sparse(A) else A
        xp = array_namespace(like)
        return xp.ones((A.shape[0],), dtype=xp.float64, device=like.device)
    if scores == "lewis":
        return lewis_weights(A, p, rng=key)
    leverage = leverage_scores(A, rng=key)
    if scores == "leverage+sensitivity":
        return leverage + lp_sensitivities(A, p, method="bounds", rng=key) + 1.0 / max(1, A.shape[0])
    return leverage ** (p / 2.0) if scores == "root_leverage" else leverage


def _in_rounds(A: Any, k: int, p: float, key: Key) -> RowSelection:
    """Root leverage sampling for p < 2: from m rows the theorem needs about m^(1-p/2) n^(p/2), so it is applied again.

    A round aims at that number times 4 log(n + 2), or at k; its kept rows carry their scale into the next round.
    """
    m, n = A.shape
    part, kept, pi, n_round = A, None, None, 0
    while True:
        rows = part.shape[0]
        aim = math.ceil(4.0 * math.log(n + 2.0) * rows ** (1.0 - p / 2.0) * n ** (p / 2.0))
        last = aim <= k or _ROUND_SHRINKS * aim > rows
        here = key.fold(f"round {n_round}")
        q = checked_scores(row_scores(part, "root_leverage", p, here.fold("scores")), "the root leverage scores of A")
        chosen = _poisson(q, k if last else aim, p, here, array_namespace(q))
        xp = array_namespace(q)
        kept = chosen.indices if kept is None else xp.take(kept, chosen.indices, axis=0)
        pi = chosen.probabilities if pi is None else xp.take(pi, chosen.indices, axis=0) * chosen.probabilities
        if last:
            complete = chosen.complete and n_round == 0
            return RowSelection(kept, pi, p, int(m), chosen.n_expected, complete)
        part, n_round = chosen.apply(part), n_round + 1
