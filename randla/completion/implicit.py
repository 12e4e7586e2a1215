"""Implicit feedback: every cell of a matrix of interactions counts, the many empty ones through one Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from .._arrays import as_matrix, check_together, eps, from_host
from .._backend import kernel
from .._checks import check_choice, check_integer, check_real
from .._random import Key, as_key
from .._results import Status, warn_or_raise
from ..lowrank.orthonormal import core_svd
from ..triangular import cholesky, inverse_of, spectral
from .implicit_model import WEIGHTINGS, Confidence, ImplicitResult, Side, gram, interactions
from .observations import Observations
from .ranking import recommend
from .ranking_metrics import hold_out_interactions, ranking_scores, take_rows

SOLVERS = ("auto", "cholesky", "cg")
_DIRECT = 8  # largest rank at which elimination takes less time than three steps of conjugate gradients
_SPREAD = 0.1  # length of a row of the start: scores begin near zero, where those of empty cells belong
_TOP = 10  # places of the list that hold-out stopping looks at
_TURN = 100.0  # largest condition number of a change of basis: rounding grows by it
_JUDGED = 2000  # rows whose lists are made after each sweep


@dataclass(frozen=True)
class ImplicitStep:
    """What a callback is told after each sweep of `implicit_als`.

    Attributes
    ----------
    n_iter : int
        Sweeps done.
    loss : float
        The objective.
    score : float
        NDCG at 10 of the interactions held out; NaN where none are.
    row_factors, col_factors : arrays
        The factors so far, not to be changed; saved, they go on as ``init=(row_factors, col_factors)``.
    """

    n_iter: int
    loss: float
    score: float
    row_factors: Any
    col_factors: Any


def implicit_als(
    X: Any, rank: int, *, reg: float = 0.01, alpha: float = 1.0, unobserved_weight: float = 1.0,
    weighting: str = "missing", reg_exponent: float = 0.0, solver: str = "auto", cg_steps: int = 3,
    init: Any = "normal", max_iter: int = 100, tol: float = 1e-4, validation_fraction: float = 0.0,
    n_iter_no_change: int = 2, rng: Any = None, callback: Callable[[ImplicitStep], Any] | None = None,
    on_failure: str = "warn",
) -> ImplicitResult:  # fmt: skip
    """Fit factors to interactions by weighted least squares over all cells of the matrix, empty ones too.

    With ``s_ij = x_i . y_j`` and, for a stored value v, the confidence ``c_ij = alpha |v|`` and the preference
    ``p_ij = 1`` where v > 0, else 0, it lowers by alternating least squares::

        sum over stored cells  c_ij (p_ij - s_ij)**2  +  unobserved_weight * sum over the other cells  s_ij**2
            +  sum_i lambda_i ||x_i||**2  +  sum_j lambda_j ||y_j||**2,
        lambda_i = reg (n_i + unobserved_weight n)**reg_exponent,
        lambda_j = reg (n_j + unobserved_weight m)**reg_exponent

    for n_i stored cells in row i and n_j in column j.  A sweep costs O(nnz rank) for each step of conjugate gradients
    and O((m + n) rank**2); nothing of size m n is formed.  For few columns (to about 30,000) `ease` is the simpler
    model and often the better one; for ratings, where empty cells say nothing, take `MatrixCompletion`.

    Parameters
    ----------
    X : CSR or other sparse matrix, or array, shape (m, n)
        Interactions, for example counts; it is not changed.  A negative value is a dislike with confidence
        ``alpha |v|``, and a stored zero takes its cell out of the objective.  In an array zero and NaN mean no
        interaction.
    rank : int, rank >= 1
        Columns of the factors; it may exceed the number of interactions of any row.
    reg : float, reg > 0, default 0.01
        Ridge.  It multiplies squared lengths of factors, so it is in units of confidence.
    alpha : float, alpha > 0, default 1.0
        Confidence for each unit of a stored value.
    unobserved_weight : float, unobserved_weight >= 0, default 1.0
        Weight of the cells without interaction.
    weighting : {"missing", "all"}, default "missing"
        Which cells `unobserved_weight` is for: those not stored, as above; or all, so that a stored cell has
        ``unobserved_weight * s_ij**2`` beside ``c_ij (p_ij - s_ij)**2``.
    reg_exponent : float, reg_exponent >= 0, default 0.0
        0: plain ridge; 1: ridge in proportion to the cells of the row, so that `reg` is to be chosen some hundred
        times smaller.
    solver : {"auto", "cholesky", "cg"}, default "auto"
        How the problems of rows are solved: exactly, or by `cg_steps` steps from the last solution.  "auto" takes
        conjugate gradients above rank 8.
    cg_steps : int, cg_steps >= 1, default 3
    init : {"normal"} or pair of arrays, shapes (m, rank) and (n, rank), default "normal"
        "normal": column factors from N(0, 0.01 / rank).  Of a pair the first may be None; the rows are solved first.
    max_iter : int, max_iter >= 0, default 100
    tol : float, tol >= 0, default 1e-4
        Stop when a sweep lowers the objective by at most this share.
    validation_fraction : float, 0 <= validation_fraction < 1, default 0.0
        Share of the interactions of each row that are held out, and count as empty cells; the NDCG at 10 of at most
        2000 rows is then computed after each sweep, and the best sweep kept.
    n_iter_no_change : int, n_iter_no_change >= 1, default 2
        With interactions held out: stop after this many sweeps without a better score.
    rng : None, int, SeedSequence, Generator or Key
        Source of the start and of the hold-out.
    callback : callable, optional
        Called with an `ImplicitStep` after each sweep; returning True ends the fit with what is there.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    ImplicitResult
        ``row_factors`` (m, rank) and ``col_factors`` (n, rank), with loss, history and the held-out score; iterates as
        ``row_factors, col_factors``.  A row without a positive interaction has the zero factor.

    Raises
    ------
    ValueError
        If an entry is stored twice or not finite, X has no rows or columns, or a parameter is out of range.
    TypeError
        If X is complex or not numeric.

    Notes
    -----
    "missing" with unobserved_weight 1 and reg_exponent 0 is the objective of [1]_ and of the package implicit.  "all"
    with unobserved_weight alpha_0 is that of [2]_.  For stored values of 1 and alpha 1 the second is the first with
    unobserved_weight ``alpha_0 / (1 + alpha_0)``, the scores divided by ``1 + alpha_0``.

    The problem of a row is ``(w G + lambda I + Y_S^T D Y_S) x = Y_S^T c p`` with G the Gram matrix of all y, w the
    unobserved weight and D the confidence beyond it, of the stored cells S.  For conjugate gradients [3]_ factors are
    turned to the eigenvectors of G, in double precision: ``w G + lambda I`` is then diagonal and preconditions the
    iteration at no cost.  On 30,000 x 10,000 with 1.5e6 interactions and rank 64 three such steps gave the objective of
    exact sweeps to 4 digits at alpha = 1, and to 2 at alpha = 40, in a quarter of their time.

    The objective never rises, with either solver: both end at or below where they begin, row by row.  It is computed
    after each sweep from ``||X Y^T||_F**2 = trace(X^T X Y^T Y)`` and the stored cells.

    Before each sweep the factors change to X T and Y T^-T with T such that both ridge terms are equal.  That leaves
    scores as they are and makes the sum of the terms as small as it can be; alternating steps alone get there slowly,
    and took up to twice as many sweeps to the same objective.

    Deviations from [3]_: (1) the preconditioner and this change of basis; (2) no exact first sweep, which with them
    gains nothing.

    References
    ----------
    .. [1] Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
    .. [2] Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on item recommendation benchmarks",
       RecSys 2022, arXiv:2110.14037.
    .. [3] Takacs, Pilaszy and Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative
       filtering", RecSys 2011.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from randla.completion.implicit import implicit_als
    >>> taste = np.kron(np.eye(2), np.ones((4, 3)))  # four rows like the first three columns, four the others
    >>> taste[0, 2] = 0.0
    >>> model = implicit_als(sp.csr_array(taste), 2, reg=0.1, alpha=10.0, rng=0)
    >>> model.recommend([0], 1, seen=sp.csr_array(taste)).columns
    array([[2]])
    """
    confidence = Confidence(
        check_real(reg, "reg", low=0.0, closed="neither"), check_real(alpha, "alpha", low=0.0, closed="neither"),
        check_real(unobserved_weight, "unobserved_weight", low=0.0),
        check_choice(weighting, "weighting", WEIGHTINGS), check_real(reg_exponent, "reg_exponent", low=0.0),
    )  # fmt: skip
    rank = check_integer(rank, "rank", low=1)
    solver = check_choice(solver, "solver", SOLVERS)
    solver = solver if solver != "auto" else "cholesky" if rank <= _DIRECT else "cg"
    cg_steps = check_integer(cg_steps, "cg_steps", low=1)
    max_iter, tol = check_integer(max_iter, "max_iter", low=0), check_real(tol, "tol", low=0.0)
    fraction = check_real(validation_fraction, "validation_fraction", low=0.0, high=1.0, closed="left")
    patience = check_integer(n_iter_no_change, "n_iter_no_change", low=1)
    observed = interactions(X)
    if min(observed.shape) == 0:
        raise ValueError(f"X must have rows and columns, got shape {observed.shape}")
    key = as_key(rng).fold("implicit_als")
    start = _started(init, observed, rank, key)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity ends in a status
        fit = _Fit(observed, confidence, solver, cg_steps, start)
        if fraction > 0:
            fit.hold_out(fraction, patience, key)
        status = fit.run(max_iter, tol, callback)
    return warn_or_raise(fit.result(status), on_failure, what="implicit_als")


def _started(init: Any, observed: Observations, rank: int, key: Key) -> tuple[Any, Any]:
    """Factors to start from, in the dtype and place of the interactions."""
    xp, (m, n), like = observed.xp, observed.shape, observed.data
    none = xp.zeros((m, rank), dtype=like.dtype, device=device(like))
    if isinstance(init, str):
        check_choice(init, "init", ("normal",))
        host = np.dtype("float32" if eps(like.dtype) > 1e-10 else "float64")
        Y = from_host(kernel("gaussian_table", xp)(key.fold("start"), 0, n, rank, host), xp, like)
        return none, Y * (_SPREAD / rank**0.5)
    factors: list[Any] = []
    for F, size in zip(init, (m, n), strict=True):
        if F is None and size == m and not factors:
            factors.append(none)
            continue
        F = as_matrix(F, name="init", sparse=False)
        check_together(F, like, names=("init", "X"))
        if tuple(F.shape) != (size, rank):
            raise ValueError(
                f"init must hold factors of shapes {(m, rank)} and {(n, rank)}, got {tuple(F.shape)} for {size} rows"
            )
        factors.append(xp.astype(F, like.dtype))
    return factors[0], factors[1]


class _Fit:
    """Two factors that are solved for in turn."""

    def __init__(
        self, observed: Observations, confidence: Confidence, solver: str, cg_steps: int, start: tuple[Any, Any]
    ) -> None:
        self.observed, self.confidence, self.xp = observed, confidence, observed.xp
        self.solver, self.steps = solver, cg_steps
        self.X, self.Y = start
        self.held: Observations | None = None
        self.patience = 0
        self.history: list[float] = []
        self.scores: list[float] = []
        self.score = self.score_error = self.residual = math.nan
        self.best_iter = 0
        self._sides()

    def _sides(self) -> None:
        self.rows = Side(self.observed, self.confidence)
        self.cols = Side(self.observed.transposed, self.confidence)

    def hold_out(self, fraction: float, patience: int, key: Key) -> None:
        """Take interactions out of the fit, and choose the rows that they judge it by."""
        self.observed, held = hold_out_interactions(self.observed, fraction, rng=key)
        xp = self.xp
        held = held.select(held.data > 0)
        judged = xp.nonzero(held.row_counts > 0)[0]
        size = int(judged.shape[0])
        if size == 0:
            raise ValueError(
                f"validation_fraction must leave something to hold out, got {fraction} and no row with enough "
                "interactions; take a larger one"
            )
        if size > _JUDGED:
            chosen = from_host(kernel("distinct_rows", np)(key.fold("judged"), size, _JUDGED), xp, judged)
            judged = xp.take(judged, chosen)
        self.held, self.judged, self.patience = take_rows(held, judged), judged, patience
        self._sides()

    def run(self, max_iter: int, tol: float, callback: Callable[[ImplicitStep], Any] | None) -> Status:
        """Sweep until the objective stands still, or the held-out score no longer rises."""
        if self.observed.nnz == 0:
            self.X, self.Y = self.X * 0, self.Y * 0
            self.history.append(0.0)
            return Status.CONVERGED
        kept = (self.X, self.Y)
        for n_iter in range(1, max_iter + 1):
            loss, regular = self._sweep()
            if not (math.isfinite(loss) and regular):
                self.X, self.Y = kept
                return Status.BREAKDOWN if math.isfinite(loss) else Status.NONFINITE
            self.history.append(loss)
            better = self._judge(n_iter)
            kept = (self.X, self.Y) if better else kept
            told = ImplicitStep(n_iter, loss, self.scores[-1] if self.scores else math.nan, self.X, self.Y)
            stop = callback is not None and callback(told)
            still = n_iter > 1 and self.history[-2] - loss <= tol * self.history[-2]
            if stop or still or (self.held is not None and n_iter - self.best_iter >= self.patience):
                self.X, self.Y = kept
                return Status.CONVERGED
        self.X, self.Y = kept
        return Status.MAX_ITER

    def _judge(self, n_iter: int) -> bool:
        """Whether this sweep is the best so far; the last one without interactions held out."""
        if self.held is None:
            self.best_iter = n_iter
            return True
        found = ranking_scores(recommend(self.X, self.Y, self.judged, _TOP, seen=self.observed).columns, self.held)
        self.scores.append(found.ndcg)
        if n_iter > 1 and not found.ndcg > self.score:
            return False
        self.score, self.score_error, self.best_iter = found.ndcg, found.ndcg_error, n_iter
        return True

    def _sweep(self) -> tuple[float, bool]:
        """Rows, then columns; the objective afterwards, and whether all systems could be solved."""
        self.X, self.Y = self._balanced(self.X, self.Y)
        self.X, self.Y, _, first = self._solved(self.rows, self.Y, self.X)
        self.Y, self.X, square, second = self._solved(self.cols, self.X, self.Y)
        return self._loss(square), first and second

    def _balanced(self, X: Any, Y: Any) -> tuple[Any, Any]:
        """The same product in the basis where both sides have the same ridge terms, whose sum is then the least."""
        xp = self.xp
        if not bool(xp.any(X != 0)):  # of a start without row factors
            return X, Y
        A, B = cholesky(gram(X, self.rows.ridge)), cholesky(gram(Y, self.cols.ridge))
        if A is None or B is None:
            return X, Y
        P, s = core_svd(xp.matmul(A, B.mT))[:2]
        T = xp.matmul(inverse_of(A), P) * xp.sqrt(s)[None, :]
        if not spectral(T) * spectral(inverse := xp.linalg.inv(T)) <= _TURN:
            return X, Y
        return xp.matmul(X, xp.astype(T, X.dtype)), xp.matmul(Y, xp.astype(inverse.mT, Y.dtype))

    def _solved(self, side: Side, V: Any, X: Any) -> tuple[Any, Any, Any, bool]:
        """(X, V, Gram matrix of V, all solved): the rows of X for fixed V, both in the basis of the solution."""
        xp, G = self.xp, gram(V)
        if self.solver == "cholesky":
            X, pivots = side.exact(V, G)
            self.residual = 0.0
            return X, V, G, bool(xp.all(pivots > 0))
        if not bool(xp.all(xp.isfinite(G))):
            return X, V, G, False
        values, Q = xp.linalg.eigh(G)
        values = xp.where(values > 0, values, xp.zeros_like(values))
        turn = xp.astype(Q, V.dtype)
        V, X = xp.matmul(V, turn), xp.matmul(X, turn)
        G = values[:, None] * xp.eye(V.shape[1], dtype=xp.float64, device=device(V))
        X, residuals = side.iterate(V, G, values, X, self.steps)
        self.residual = float(xp.max(residuals))
        return X, V, G, True

    def _loss(self, square: Any) -> float:
        """The objective; `square` is the Gram matrix of the row factors."""
        xp, told = self.xp, self.confidence
        s = kernel("sampled_products", xp)(self.X, self.Y, self.observed.indices, self.observed.indptr)
        s = xp.astype(s, xp.float64)
        whole = float(xp.sum(square * gram(self.Y)))
        if told.weighting == "missing":
            whole -= float(xp.sum(s * s))
        value = float(xp.sum(self.rows.weight * (self.rows.preference - s) ** 2)) + told.unobserved_weight * whole
        return value + self.rows.penalty(self.X) + self.cols.penalty(self.Y)

    def result(self, status: Status) -> ImplicitResult:
        """The factors with what is known of them."""
        loss = self.history[self.best_iter - 1] if self.best_iter else self.history[-1] if self.history else math.nan
        return ImplicitResult(
            self.X, self.Y, loss=loss, history=tuple(self.history), score=self.score, score_error=self.score_error,
            validation_history=tuple(self.scores), residual=self.residual, n_iter=len(self.history),
            best_iter=self.best_iter, solver=self.solver, status=status, confidence=self.confidence,
        )  # fmt: skip
