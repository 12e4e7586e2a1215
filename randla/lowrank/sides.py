"""One side of a factorization: a basis, the test matrix that measures it, and the small matrix between the two."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._arrays import (
    as_matrix,
    check_together,
    eps,
    floating_dtype,
    from_host,
    is_complex,
    is_sparse,
    namespace_of,
)
from .._checks import check_real
from .._results import ConvergenceWarning
from ..linear_maps import LinearMap, OperatorMap, block_matmul, block_rmatmul
from ..operators import SketchOperator
from .orthonormal import NonfiniteError, adjoint, core_dtype, core_svd, orthonormalize

# --- products of factors, dense or sparse -----------------------------------------------------------------------------


def as_factor(M: Any, name: str, *, sparse: bool = True) -> Any:
    """A factor at intake: floating, sparse ones as CSR since their rows are read."""
    M = as_matrix(M, name=name, sparse=sparse)
    dtype = floating_dtype(M, namespace_of(M))
    if is_sparse(M):
        M = M.tocsr()
        return M if M.dtype == dtype else M.astype(dtype)
    return array_namespace(M).astype(M, dtype, copy=False)


def dense(M: Any, dtype: Any = None) -> Any:
    """A factor as a dense array, in its own dtype or another."""
    M = M.toarray() if is_sparse(M) else M
    return M if dtype is None else array_namespace(M).astype(M, dtype, copy=False)


def times(M: Any, X: Any) -> Any:
    """``M @ X`` for a dense or sparse factor; the dtypes may differ in precision or in being complex."""
    return _mixed(lambda panel: block_matmul(M, panel), M.dtype, X)


def adjoint_times(M: Any, X: Any) -> Any:
    """``M^* @ X`` for a dense or sparse factor."""
    return _mixed(lambda panel: block_rmatmul(M, panel), M.dtype, X)


def _mixed(product: Any, dtype: Any, X: Any) -> Any:
    """A product with a matrix of another dtype, given as a function of panels in that dtype."""
    if dtype == X.dtype:
        return product(X)
    xp = array_namespace(X)
    if is_complex(X.dtype) and not is_complex(dtype):
        # two real products cost as much as one with a complex copy of M, and make none
        return _mixed(product, dtype, xp.real(X)) + 1j * _mixed(product, dtype, xp.imag(X))
    return product(xp.astype(X, dtype))


def column_lengths(M: Any) -> Any:
    """Lengths of the columns of a factor in double precision; 1 for columns of zeros."""
    xp = namespace_of(M)
    if is_sparse(M):
        M = M.copy()
        M.data = xp.astype(xp.abs(M.data), xp.float64) ** 2
        ones = xp.ones((M.shape[0], 1), dtype=xp.float64, device=device_of(M.data))
        squares = adjoint_times(M, ones)[:, 0]
    else:
        squares = xp.sum(xp.astype(xp.abs(M), xp.float64) ** 2, axis=0)
    return xp.sqrt(xp.where(squares > 0, squares, xp.ones_like(squares)))


def taken(M: Any, index: Any) -> Any:
    """The rows of a dense or sparse factor with these indices, dense."""
    return M[index].toarray() if is_sparse(M) else array_namespace(M).take(M, index, axis=0)


def as_indices(i: Any, name: str, size: int, like: Any) -> tuple[Any, bool]:
    """Indices as an int64 vector beside a factor, and whether a single one was given."""
    xp = namespace_of(like)
    # index arrays of another library would be copied silently
    if hasattr(i, "__array_namespace__") or hasattr(i, "__dlpack__"):
        check_together(like, i, names=("the factors", name))
    else:
        i = from_host(np.asarray(i), xp, like.data if is_sparse(like) else like)
    if i.ndim > 1:
        raise ValueError(f"{name} must be an integer or a vector of them, got shape {tuple(i.shape)}")
    if 0 not in i.shape and not xp.isdtype(i.dtype, "integral"):
        raise TypeError(f"{name} must hold integers, got {i.dtype}")
    index = xp.astype(xp.reshape(i, (-1,)), xp.int64)
    if index.shape[0] and not (int(xp.min(index)) >= 0 and int(xp.max(index)) < size):
        raise ValueError(
            f"{name} must be in [0, {size - 1}], got values from {int(xp.min(index))} to {int(xp.max(index))}"
        )
    return index, i.ndim == 0


def operand(X: Any, name: str, rows: int, like: Any, dtype: Any) -> tuple[Any, bool]:
    """X as a panel of `rows` rows beside a factor, in the precision of `dtype`, and whether it was a vector."""
    X = as_matrix(X, name=name, sparse=False, vector=True)
    check_together(like, X, names=("the factors", name))
    if X.shape[0] != rows:
        raise ValueError(f"{name} must have {rows} rows, got shape {tuple(X.shape)}")
    X = cast_like(X, dtype)
    return (X[:, None], True) if X.ndim == 1 else (X, False)


def cast_like(X: Any, dtype: Any) -> Any:
    """X in the precision of `dtype`; what is complex stays complex."""
    xp = array_namespace(X)
    if is_complex(X.dtype) and not is_complex(dtype):
        dtype = xp.complex64 if eps(dtype) > 1e-10 else xp.complex128
    return xp.astype(X, dtype, copy=False)


def between(X: Any, left: Any, G: Any, right: Any, keep: bool = False) -> Any:
    """``left^-1 G right^-* X``, computed in double precision."""
    xp = array_namespace(G)
    mixed = any(is_complex(M.dtype) for M in (X, left, G, right) if M is not None)
    core = xp.complex128 if mixed else xp.float64
    Y = xp.astype(X, core, copy=False)
    if right is not None:
        Y = xp.linalg.solve(adjoint(xp.astype(right, core)), Y)
    Y = xp.matmul(xp.astype(G, core, copy=False), Y)
    if left is not None:
        Y = xp.linalg.solve(xp.astype(left, core), Y)
    return Y if keep else cast_like(Y, X.dtype)


def diagonal_matrix(s: Any) -> Any:
    """The diagonal matrix of a vector."""
    xp = array_namespace(s)
    return s[:, None] * xp.eye(s.shape[0], dtype=s.dtype, device=device_of(s))


# --- test matrices ----------------------------------------------------------------------------------------------------


class _Test:
    """A matrix B (m, l) known by its products; `width` is l."""

    width: int

    def on(self, F: Any) -> Any:
        """``B^* F`` for a basis F (m, k), dense."""
        raise NotImplementedError

    def times(self, Y: Any) -> Any:
        """``B Y`` for a panel Y (l, p)."""
        raise NotImplementedError

    def lengths(self) -> Any:
        """Lengths (l,) of the columns of B, in double precision; 1 for columns of zeros."""
        raise NotImplementedError

    def adjoint_of(self, A: LinearMap) -> Any:
        """``A^* B`` for a map A with m rows."""
        raise NotImplementedError

    def image(self, A: LinearMap) -> Any:
        """``A B`` for a map A with m columns."""
        raise NotImplementedError


class _Columns(_Test):
    """The columns of an array."""

    def __init__(self, B: Any) -> None:
        self.B, self.width = B, int(B.shape[1])

    def on(self, F: Any) -> Any:
        return adjoint(adjoint_times(F, self.B))

    def times(self, Y: Any) -> Any:
        return times(self.B, Y)

    def lengths(self) -> Any:
        return column_lengths(self.B)

    def adjoint_of(self, A: LinearMap) -> Any:
        return _mixed(A.rmatmul, A.dtype, self.B)

    def image(self, A: LinearMap) -> Any:
        return _mixed(A.matmul, A.dtype, self.B)


class _Selected(_Test):
    """Columns of the identity: the products are rows and columns of the other factor."""

    def __init__(self, index: Any, size: int) -> None:
        self.index, self.size, self.width = index, size, int(index.shape[0])

    def on(self, F: Any) -> Any:
        return taken(F, self.index)

    def _hot(self, lo: int, hi: int, dtype: Any) -> Any:
        """Rows lo..hi-1 of B."""
        xp, place = array_namespace(self.index), device_of(self.index)
        rows = xp.arange(lo, hi, dtype=xp.int64, device=place)
        return xp.astype(rows[:, None] == self.index[None, :], dtype)

    def times(self, Y: Any) -> Any:
        return array_namespace(Y).matmul(self._hot(0, self.size, Y.dtype), Y)

    def lengths(self) -> Any:
        xp = array_namespace(self.index)
        return xp.ones((self.width,), dtype=xp.float64, device=device_of(self.index))

    def adjoint_of(self, A: LinearMap) -> Any:
        if isinstance(A, OperatorMap) or not hasattr(A, "_blocks"):
            return A.rmatmul(self._hot(0, self.size, A.dtype))
        xp, pieces = A.xp, []
        A._count(0)
        for start, block in A._blocks():
            here = (self.index >= start) & (self.index < start + block.shape[0])
            place = xp.nonzero(here)[0]
            rows = taken(block, xp.take(self.index, place) - start)
            pieces.append((place, rows))
        order = xp.argsort(xp.concat([place for place, _ in pieces]))
        return adjoint(xp.take(xp.concat([rows for _, rows in pieces], axis=0), order, axis=0))

    def image(self, A: LinearMap) -> Any:
        if isinstance(A, OperatorMap) or not hasattr(A, "_blocks"):
            return A.matmul(self._hot(0, self.size, A.dtype))
        xp = A.xp
        A._count(0)
        columns = [
            block[:, self.index].toarray() if is_sparse(block) else xp.take(block, self.index, axis=1)
            for _, block in A._blocks()
        ]
        return columns[0] if len(columns) == 1 else xp.concat(columns, axis=0)


class _Sketched(_Test):
    """The adjoint of a sketch operator S: ``B^* = S``."""

    def __init__(self, S: SketchOperator, F: Any) -> None:
        self.S, self.width = S, S.sketch_size
        xp, place = namespace_of(F), device_of(F.data if is_sparse(F) else F)
        self._ones = xp.ones((self.width,), dtype=xp.float64, device=place)

    def on(self, F: Any) -> Any:
        return self.S.matmul(F)

    def times(self, Y: Any) -> Any:
        return self.S.adjoint(Y)

    def lengths(self) -> Any:
        # rows of a sketch have nearly one length, so none of them needs scaling
        return self._ones

    def adjoint_of(self, A: LinearMap) -> Any:
        return adjoint(A.sketch(self.S))

    def image(self, A: LinearMap) -> Any:
        return A.sketch_columns(self.S)


def as_test(B: Any, F: Any, name: str) -> _Test:
    """The test matrix for a basis F (m, k): an array (m, l), a vector of row indices, or a sketch with m columns."""
    m = int(F.shape[0])
    if isinstance(B, SketchOperator):
        if B.n != m:
            raise ValueError(f"{name} must be a sketch of {m} rows, got {type(B).__name__} with n={B.n}")
        return _Sketched(B, F)
    if getattr(B, "ndim", None) == 1 or (isinstance(B, (list, tuple)) and np.ndim(B) == 1):
        return _Selected(as_indices(B, name, m, F)[0], m)
    B = as_factor(B, name)
    check_together(F, B, names=("the basis", name))
    if B.shape[0] != m:
        raise ValueError(f"{name} must have {m} rows like the basis, got shape {tuple(B.shape)}")
    return _Columns(dense(B))


# --- a basis with its test matrix -------------------------------------------------------------------------------------


class Side:
    """A basis F (m, k) with a test matrix B (m, l): ``inverse @ B^*`` is a left inverse of F on its range.

    Attributes
    ----------
    F, test : the basis and the test matrix; the one by default is an orthonormal basis Q of F itself.
    product : array, shape (l, k)
        ``B^* F`` in double precision.
    inverse : array, shape (k, l)
        Its pseudo-inverse.
    rank : int
        Its numerical rank.
    condition : float
        Its condition number with the columns of B and F scaled to length one, over the singular values that count.
    """

    def __init__(self, F: Any, B: Any, name: str, *, rcond: float | None, allow: bool, warn: bool = True) -> None:
        self.F, self.name, self.own = F, name, B is None
        xp = namespace_of(F)
        core = core_dtype(F.dtype, xp)
        self.rcond = None if rcond is None else check_real(rcond, "rcond", low=0.0, high=1.0, closed="left")
        try:
            if B is None:
                panel = orthonormalize(dense(F))
                self.test: _Test = _Columns(panel.Q)
                self.product = panel.R
            else:
                self.test = as_test(B, F, name)
                product = self.test.on(F)
                self.product = xp.astype(product, xp.complex128 if is_complex(product.dtype) else core)
            self.inverse, self.rank, self.condition = self._inverted()
        except NonfiniteError:
            raise ValueError(f"the basis and {name} must be finite, got NaN or infinity") from None
        if self.rank < F.shape[1] and B is not None and not allow:
            self._check_rank()
        if warn and self.condition > 1.5 / math.sqrt(eps(F.dtype)):  # 1e8 in double precision
            warnings.warn(
                f"{name} sees the basis with condition number {self.condition:.1e}, and the projector amplifies errors "
                f"by as much; take {math.ceil(1.5 * F.shape[1])} test columns or more, or orthonormalise the basis",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _inverted(self) -> tuple[Any, int, float]:
        """(pseudo-inverse, rank, condition number) of the product."""
        M, xp = self.product, array_namespace(self.product)
        if 0 in M.shape:
            return xp.zeros((M.shape[1], M.shape[0]), dtype=M.dtype, device=device_of(M)), 0, 1.0
        if not bool(xp.all(xp.isfinite(M))):
            raise NonfiniteError("B^* F holds NaN or infinity")
        U, s, Vh = core_svd(M)
        cut = max(M.shape) * eps(self.F.dtype) if self.rcond is None else self.rcond
        r = int(xp.sum(xp.astype(s > cut * s[0], xp.int64)))
        inverse = xp.matmul(adjoint(Vh[:r, :]) / xp.astype(s[:r], M.dtype)[None, :], adjoint(U[:, :r]))
        across = column_lengths(M if self.own else self.F)
        down = xp.ones_like(xp.abs(M[:, 0])) if self.own else self.test.lengths()
        values = core_svd(M / xp.astype(down[:, None] * across[None, :], M.dtype))[1]
        return inverse, r, float(values[0]) / max(float(values[r - 1]), 1e-300) if r else 1.0

    def _check_rank(self) -> None:
        """Raise unless the test matrix sees all of the basis: F Y^* F = F has no solution then."""
        R = orthonormalize(dense(self.F)).R
        xp = array_namespace(R)
        s = core_svd(R)[1] if 0 not in R.shape else xp.zeros((1,), dtype=xp.float64)
        cut = max(self.product.shape) * eps(self.F.dtype)
        whole = int(xp.sum(xp.astype(s > cut * s[0], xp.int64)))
        if self.rank < whole:
            raise ValueError(
                f"{self.name} must see all {whole} independent columns of the basis, got rank {self.rank} of B^* F; "
                "take more test columns, another basis, or allow_rank_deficient=True"
            )

    def coordinates(self, M: Any) -> Any:
        """``inverse @ B^* M``: what F is to be multiplied with to give the projection of M (m, p)."""
        return product(self.inverse, self.test.on(M))


def product(*factors: Any) -> Any:
    """The product of small matrices in double precision, complex if one of them is."""
    xp = array_namespace(factors[0])
    core = xp.complex128 if any(is_complex(M.dtype) for M in factors) else xp.float64
    total = xp.astype(factors[0], core, copy=False)
    for M in factors[1:]:
        total = xp.matmul(total, xp.astype(M, core, copy=False))
    return total


def compressed(A: LinearMap, left: _Test, right: _Test) -> Any:
    """``B^* A D`` for two test matrices, the cheaper one first."""
    rows_first = left.width < right.width if isinstance(right, _Selected) == isinstance(left, _Selected) else True
    if isinstance(right, _Selected) and not isinstance(left, _Selected):
        rows_first = False
    if rows_first:
        return adjoint(right.on(left.adjoint_of(A)))
    return left.on(right.image(A))
