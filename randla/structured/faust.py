"""Products of sparse factors: proximal alternating minimisation, and a hierarchy of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, floating_dtype, is_sparse
from .._checks import check_choice, check_integer, check_real
from .._results import Result, Status, warn_or_raise
from ..linear_maps import block_matmul, block_rmatmul, squared

Projection = Callable[[Any], Any]

_STEP = 1.001  # the step is this much shorter than one over the Lipschitz constant
_POWER_STEPS = 10  # steps of the power method for a spectral norm, from the vector of the sweep before
_FLOOR = 1.0  # units of rounding below which a relative error is zero
ORDERS = ("right-to-left", "left-to-right")


@dataclass(frozen=True, repr=False)
class SparseProduct(Result):
    """A matrix as a scaled product of sparse factors; a linear operator for SciPy as well.

    Attributes
    ----------
    factors : tuple of CSR matrices, or of arrays where the namespace has no sparse ones
        Each of Frobenius norm 1.
    scale : float
    error : float
        ``||A - product||_F / ||A||_F``, computed.
    history : tuple of float
        The relative error after each sweep over the factors; with a hierarchy of the sweeps over the whole product.
    n_iter : int
        Sweeps over all factors.
    status : Status
        STAGNATED where a tolerance was given that the last sweeps did not come nearer to.
    """

    factors: tuple[Any, ...]
    scale: float
    error: float = math.nan
    history: tuple[float, ...] = ()
    n_iter: int = 0
    status: Status = Status.CONVERGED

    _factors: ClassVar[tuple[str, ...]] = ("factors", "scale")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the product."""
        return self.factors[0].shape[0], self.factors[-1].shape[1]

    @property
    def dtype(self) -> Any:
        """Dtype of the factors."""
        return self.factors[0].dtype

    @property
    def nnz(self) -> int:
        """Nonzero entries of all factors together."""
        return sum(_nonzeros(S) for S in self.factors)

    @property
    def density(self) -> float:
        """Nonzero entries of the factors over ``m n``: the relative complexity of a product."""
        m, n = self.shape
        return self.nnz / (m * n) if m and n else 0.0

    @property
    def speedup(self) -> float:
        """One over the density: how many times fewer multiplications a product takes."""
        return 1 / self.density if self.density else math.inf

    def matmul(self, X: Any) -> Any:
        """The product times X, shape (n,) or (n, k)."""
        X = as_matrix(X, name="X", sparse=False, vector=True)
        Y = self._operand(X, "X", self.shape[1])
        for S in reversed(self.factors):
            Y = block_matmul(S, Y)
        return self.scale * (Y[:, 0] if X.ndim == 1 else Y)

    def rmatmul(self, Y: Any) -> Any:
        """The adjoint of the product times Y, shape (m,) or (m, k)."""
        Y = as_matrix(Y, name="Y", sparse=False, vector=True)
        X = self._operand(Y, "Y", self.shape[0])
        for S in self.factors:
            X = block_rmatmul(S, X)
        return self.scale * (X[:, 0] if Y.ndim == 1 else X)

    def _operand(self, X: Any, name: str, rows: int) -> Any:
        check_together(self.factors[0], X, names=("the factors", name))
        if X.shape[0] != rows:
            raise ValueError(f"{name} must have {rows} rows, got shape {tuple(X.shape)}")
        xp = array_namespace(X)
        X = xp.astype(X, xp.result_type(floating_dtype(X, xp), self.dtype), copy=False)
        return X[:, None] if X.ndim == 1 else X

    matvec = matmat = matmul
    rmatvec = rmatmat = rmatmul

    def to_dense(self) -> Any:
        """The product as an array (m, n)."""
        D = self.factors[-1]
        D = D.toarray() if is_sparse(D) else D
        for S in reversed(self.factors[:-1]):
            D = block_matmul(S, D)
        return self.scale * D


def _nonzeros(S: Any) -> int:
    if is_sparse(S):
        return int(S.nnz)
    xp = array_namespace(S)
    return int(xp.sum(xp.astype(S != 0, xp.int64)))


def palm4msa(
    A: Any, projections: Sequence[Projection], *, init: Sequence[Any] | None = None, scale: float = 1.0,
    n_iter: int = 30, order: str = "right-to-left", tol: float | None = None, on_failure: str = "warn",
) -> SparseProduct:  # fmt: skip
    """Factor a matrix into sparse factors by proximal alternating linearised minimisation.

    Decreases ``||A - scale S_1 S_2 ... S_J||_F**2``: each factor in turn takes a gradient step, is projected on its set
    and scaled to norm 1; after each sweep the scale is the best one.  The problem is not convex, and which of its
    stationary points is reached depends on `init` and `order`: see `hierarchical_factorize` for a start that works.

    Parameters
    ----------
    A : array, shape (m, n)
        Matrix to factor, of any array API namespace; it is not changed.
    projections : sequence of callables
        One for each factor, from the left: array to nearest array of its set, see `randla.structured.proj`.
    init : sequence of arrays, optional
        The factors to start from; shapes must chain from m to n.  By default the first factor to be updated is zero and
        the others are identities, which needs m = n or a single factor of another shape at that end.
    scale : float, default 1.0
        The scale to start from.
    n_iter : int, n_iter >= 0, default 30
        Sweeps over the factors.
    order : {"right-to-left", "left-to-right"}, default "right-to-left"
        Order of the updates within a sweep.
    tol : float, tol > 0, optional
        Stop once ``||A - product||_F <= tol ||A||_F``.  By default all sweeps are done unless the error reaches the
        rounding level.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    SparseProduct
        ``factors`` and ``scale`` with the error, computed at the end, and its history.

    Raises
    ------
    ValueError
        If shapes do not chain, or a parameter is out of range.
    NotImplementedError
        If A is complex.

    Notes
    -----
    Cost of a sweep: about 6 products of n x n matrices for each factor.  The step is ``1 / (1.001 scale**2 ||L||_2**2
    ||R||_2**2)`` with L and R the products to the left and right, whose norms come from 10 steps of the power method
    that start from the vectors of the sweep before.  These are lower bounds, so the decrease is proved only where
    they have converged.

    References
    ----------
    .. [1] Le Magoarou and Gribonval, "Flexible multilayer sparse approximations of matrices and applications", IEEE J.
       Sel. Topics Signal Process. 10 (2016), arXiv:1506.07300, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import palm4msa, proj
    >>> A = np.diag([3.0, 2.0, 1.0]) @ np.array([[1.0, 1, 0], [0, 1, 1], [0, 0, 1]])
    >>> product = palm4msa(A, [proj.Rows(1), proj.Largest(5)])
    >>> product.shape, product.nnz, product.error < 1e-5
    ((3, 3), 8, True)
    """
    check_choice(order, "order", ORDERS)
    n_iter = check_integer(n_iter, "n_iter", low=0)
    scale = check_real(scale, "scale")
    tol = None if tol is None else check_real(tol, "tol", low=0.0, closed="neither")
    A = _dense(A)
    state = _Palm(A, _started(A, projections, init, order), scale, order)
    if not math.isfinite(state.norm):
        return warn_or_raise(state.product(Status.NONFINITE), on_failure, what="palm4msa")
    status = state.sweep(list(projections), n_iter, tol)
    return warn_or_raise(state.product(status), on_failure, what="palm4msa")


def _dense(A: Any) -> Any:
    A = as_matrix(A, sparse=False)
    xp = array_namespace(A)
    A = xp.astype(A, floating_dtype(A, xp), copy=False)
    if not xp.isdtype(A.dtype, "real floating"):
        raise NotImplementedError(f"A must be real for sparse factors, got {A.dtype}; factor its parts")
    if 0 in A.shape:
        raise ValueError(f"A must have rows and columns, got shape {tuple(A.shape)}")
    return A


def _started(A: Any, projections: Sequence[Projection], init: Sequence[Any] | None, order: str) -> list[Any]:
    xp, (m, n), count = array_namespace(A), A.shape, len(projections)
    if not count or not all(callable(projection) for projection in projections):
        raise ValueError(f"projections must hold a callable for each factor, got {projections!r}")
    if init is None:
        side = m if order == "right-to-left" else n  # the first factor to be updated takes what shape is left
        factors = [xp.eye(side, dtype=A.dtype, device=device_of(A)) for _ in range(count - 1)]
        zero = xp.zeros((m, n), dtype=A.dtype, device=device_of(A))
        return [*factors, zero] if order == "right-to-left" else [zero, *factors]
    factors = [as_matrix(S, name=f"init[{j}]", sparse=False) for j, S in enumerate(init)]
    sides = [m, *(int(S.shape[1]) for S in factors)]
    if (
        len(factors) != count
        or sides[-1] != n
        or any(S.shape[0] != side for S, side in zip(factors, sides, strict=False))
    ):
        shapes = [tuple(S.shape) for S in factors]
        raise ValueError(f"init must hold {count} factors whose shapes chain from {m} to {n}, got {shapes}")
    for j, S in enumerate(factors):
        check_together(A, S, names=("A", f"init[{j}]"))
    return [xp.astype(S, A.dtype) for S in factors]


class _Palm:
    """Factors of A under way: their scale, errors, and the vectors that spectral norms are continued from."""

    def __init__(self, A: Any, factors: list[Any], scale: float, order: str) -> None:
        self.A, self.factors, self.scale, self.order = A, factors, scale, order
        self.xp = array_namespace(A)
        self.norm = math.sqrt(squared(A, self.xp))
        self.starts: dict[tuple[str, int], Any] = {}
        self.history: list[float] = []

    def sweep(self, projections: list[Projection], n_iter: int, tol: float | None) -> Status:
        """Up to `n_iter` sweeps over all factors; the best scale after each."""
        self.starts = {}
        goal = _FLOOR * float(self.xp.finfo(self.A.dtype).eps) if tol is None else tol
        for _ in range(n_iter):
            whole = self._pass(projections)
            inner = float(self.xp.sum(self.A * whole))
            square = squared(whole, self.xp)
            self.scale = inner / square if square > 0 else 0.0
            self.history.append(self._error(whole))
            if not math.isfinite(self.history[-1]):
                return Status.NONFINITE
            if self.history[-1] <= goal:
                return Status.CONVERGED
        if tol is None:
            return Status.CONVERGED
        stuck = len(self.history) > 5 and self.history[-1] > 0.999 * self.history[-5]
        return Status.STAGNATED if stuck else Status.MAX_ITER

    def _pass(self, projections: list[Projection]) -> Any:
        """One update of each factor; returns their product."""
        count, backwards = len(self.factors), self.order == "right-to-left"
        done: Any = None  # the product of what was updated in this sweep
        ahead = self._products(backwards)
        for j in range(count - 1, -1, -1) if backwards else range(count):
            left, right = (ahead[j], done) if backwards else (done, ahead[j])
            S = self._updated(j, left, right, projections[j])
            self.factors[j] = S
            done = S if done is None else self.xp.matmul(S, done) if backwards else self.xp.matmul(done, S)
        return done

    def _products(self, backwards: bool) -> list[Any]:
        """For each factor the product of the ones before it in the order of the matrix (or after it)."""
        count = len(self.factors)
        ahead: list[Any] = [None] * count
        for j in range(1, count):
            if backwards:
                S = self.factors[j - 1]
                ahead[j] = S if ahead[j - 1] is None else self.xp.matmul(ahead[j - 1], S)
            else:
                k, S = count - 1 - j, self.factors[count - j]
                ahead[k] = S if ahead[k + 1] is None else self.xp.matmul(S, ahead[k + 1])
        return ahead

    def _updated(self, j: int, left: Any, right: Any, projection: Projection) -> Any:
        """Factor j after a gradient step, projected and scaled to norm 1."""
        xp, S = self.xp, self.factors[j]
        slope = (self.scale * self._spectral(left, ("left", j)) * self._spectral(right, ("right", j))) ** 2
        if not 0.0 < slope < math.inf:  # with a zero among the others this factor changes nothing
            return S
        fitted = S if left is None else xp.matmul(left, S)
        fitted = fitted if right is None else xp.matmul(fitted, right)
        gradient = self.scale * fitted - self.A
        gradient = gradient if left is None else xp.matmul(left.mT, gradient)
        gradient = gradient if right is None else xp.matmul(gradient, right.mT)
        stepped = projection(S - (self.scale / (_STEP * slope)) * gradient)
        size = math.sqrt(squared(stepped, xp))
        return stepped / size if size > 0 else S

    def _spectral(self, M: Any, place: tuple[str, int]) -> float:
        """The spectral norm of a product of factors, by the power method from the vector of the last sweep."""
        if M is None:
            return 1.0
        xp = self.xp
        x = self.starts.get(place)
        if x is None:
            x = xp.ones((M.shape[1], 1), dtype=M.dtype, device=device_of(M))
            x = x + xp.arange(M.shape[1], dtype=M.dtype, device=device_of(M))[:, None] / M.shape[1]  # no symmetry
            x = x / math.sqrt(squared(x, xp))
        value = 0.0
        for _ in range(_POWER_STEPS):
            y = xp.matmul(M.mT, xp.matmul(M, x))
            value = math.sqrt(squared(y, xp))
            if not value > 0.0:
                return 0.0
            x = y / value
        self.starts[place] = x
        return math.sqrt(value)

    def _error(self, whole: Any) -> float:
        left = squared(self.A - self.scale * whole, self.xp)
        return math.sqrt(left) / self.norm if self.norm > 0 else math.sqrt(left)

    def product(self, status: Status) -> SparseProduct:
        """The factors in sparse form with the error that they leave."""
        whole = self.factors[-1]
        for S in reversed(self.factors[:-1]):
            whole = self.xp.matmul(S, whole)
        error = self._error(whole) if math.isfinite(self.norm) else math.nan
        factors = tuple(_as_sparse(S) for S in self.factors)
        return SparseProduct(factors, self.scale, error, tuple(self.history), len(self.history), status)


def _as_sparse(S: Any) -> Any:
    """CSR form of a NumPy factor; other arrays keep their zeros."""
    if not is_numpy_namespace(array_namespace(S)):
        return S
    from scipy.sparse import csr_array

    return csr_array(S)


def hierarchical_factorize(
    A: Any, factor_projections: Sequence[Projection], residual_projections: Sequence[Projection], *,
    n_iter: int = 30, n_iter_global: int | None = None, order: str = "right-to-left", tol: float | None = None,
    on_failure: str = "warn",
) -> SparseProduct:  # fmt: skip
    """Factor a matrix into many sparse factors, one after the other from the left.

    A residual T, at first A itself, is split into a sparse factor on the left and a new residual on the right, from the
    identity and zero; then all factors so far are improved together.  The last residual is the last factor.

    Parameters
    ----------
    A : array, shape (m, n)
        Matrix to factor, of any array API namespace; it is not changed.
    factor_projections : sequence of callables
        The sets of the J - 1 factors that are split off, from the left; see `randla.structured.proj`.
    residual_projections : sequence of callables, of the same length
        The sets of the residuals; the last one is that of the last factor.
    n_iter : int, n_iter >= 1, default 30
        Sweeps for each split.
    n_iter_global : int, default n_iter
        Sweeps over all factors after each split.
    order : {"right-to-left", "left-to-right"}, default "right-to-left"
        Order of the updates: the residual first by default.
    tol : float, tol > 0, optional
        The relative error that the product is to reach; the status says whether it does.
    on_failure : {"warn", "raise", "ignore"}, default "warn"
        What to do if the status is not CONVERGED.

    Returns
    -------
    SparseProduct
        The J factors with the error, computed at the end.

    Raises
    ------
    ValueError
        If the two sequences differ in length, or a parameter is out of range.
    NotImplementedError
        If A is complex.

    Notes
    -----
    The Hadamard matrix of order ``n = 2**J`` comes out in its J butterflies of 2 n entries with
    ``RowsAndColumns(2)`` for the factors and ``RowsAndColumns(n / 2**l)`` for residual l (`hadamard_projections`).  All
    its entries are of equal modulus, so each projection is decided by ties: sparse factors that start from the
    identity, a residual that starts from zero and so moves first, and stable sorting are all needed.  From the opposite
    start, or with the largest entries of the columns or of the whole matrix, an error above one half is left.

    References
    ----------
    .. [1] Le Magoarou and Gribonval, "Flexible multilayer sparse approximations of matrices and applications", IEEE J.
       Sel. Topics Signal Process. 10 (2016), arXiv:1506.07300, algorithm 3.  Here with one factor split off from the
       left in each round.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.linalg import hadamard
    >>> from randla.structured import hadamard_projections, hierarchical_factorize
    >>> product = hierarchical_factorize(hadamard(32), *hadamard_projections(32))
    >>> [S.nnz for S in product.factors], product.density, product.error < 1e-12
    ([64, 64, 64, 64, 64], 0.3125, True)
    """
    check_choice(order, "order", ORDERS)
    n_iter = check_integer(n_iter, "n_iter", low=1)
    n_global = n_iter if n_iter_global is None else check_integer(n_iter_global, "n_iter_global", low=0)
    tol = None if tol is None else check_real(tol, "tol", low=0.0, closed="neither")
    count = len(factor_projections)
    if count < 1 or len(residual_projections) != count:
        raise ValueError(
            "residual_projections must hold one set for each of factor_projections, at least one, "
            f"got {len(residual_projections)} for {count}"
        )
    A = _dense(A)
    xp, done, residual, status = array_namespace(A), [], A, Status.CONVERGED
    whole = _Palm(A, [A], 1.0, order)
    if not math.isfinite(whole.norm):
        return warn_or_raise(whole.product(Status.NONFINITE), on_failure, what="hierarchical_factorize")
    scale = 1.0
    for split, rest in zip(factor_projections, residual_projections, strict=True):
        m, n = residual.shape
        eye, zero = xp.eye(m, dtype=A.dtype, device=device_of(A)), xp.zeros((m, n), dtype=A.dtype, device=device_of(A))
        two = _Palm(residual, [eye, zero], 1.0, order)  # step (i): the residual in two
        two.sweep([split, rest], n_iter, None)
        done.append(split)
        whole.factors = [*whole.factors[:-1], *two.factors]
        whole.scale = scale * two.scale
        status = whole.sweep([*done, rest], n_global, tol)  # step (ii): all factors together
        scale, residual = whole.scale, whole.factors[-1]
    return warn_or_raise(whole.product(status), on_failure, what="hierarchical_factorize")


def hadamard_projections(n: int) -> tuple[list[Projection], list[Projection]]:
    """The sets of factors and of residuals by which a Hadamard matrix of order n comes out in its butterflies.

    Parameters
    ----------
    n : int, n >= 4, a power of two

    Returns
    -------
    tuple of two lists
        For `hierarchical_factorize`.

    Raises
    ------
    ValueError
        If n is not a power of two.

    Examples
    --------
    >>> from randla.structured import hadamard_projections
    >>> hadamard_projections(8)
    ([RowsAndColumns(k=2), RowsAndColumns(k=2)], [RowsAndColumns(k=4), RowsAndColumns(k=2)])
    """
    from .proj import RowsAndColumns

    n = check_integer(n, "n", low=4)
    if n & (n - 1):
        raise ValueError(f"n must be a power of two, got {n}")
    splits = n.bit_length() - 2
    return [RowsAndColumns(2) for _ in range(splits)], [RowsAndColumns(n >> (j + 1)) for j in range(splits)]
