"""Stacks of square matrices for RESCAL: products with a factor, residuals, missing entries; nodes that never occur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_cupy_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, dtype_name, floating_dtype, is_complex, is_sparse, namespace_of
from .._backend import kernel
from .._checks import check_choice
from ._matrices import MODERATE

ABSENT = ("missing", "zeros")
CANCELLED = 64  # times eps ||X||^2: below, a difference of squares is rounding, and the residual itself is formed


class Stack:
    """Nonnegative matrices X_t (n, n), each divided by its scale; with `masked`, some entries are unknown.

    For a masked stack the products are those of ``model + E``, where E has the residuals of the known entries at the
    factors of the last `anchor`: to lower the error of that matrix lowers the error of the known entries.
    """

    xp: Any
    like: Any
    dtype: Any
    shape: tuple[int, int, int]
    masked: bool
    squares: list[float]

    def __init__(self) -> None:
        self._anchor: tuple[Any, Any] | None = None
        self.n_passes = 0.0

    @property
    def squared_norm(self) -> float:
        """Sum of the squares of all known entries."""
        return math.fsum(self.squares)

    def anchor(self, A: Any, R: Any) -> None:
        """Fix the factors whose residuals stand for the entries; nothing to do where all are known."""
        if self.masked:
            self._anchor = A, R
            self._refresh(A, R)

    def products(self, M: Any) -> tuple[Any, Any]:
        """``X_t M`` and ``X_t.T M`` for M (n, k), both (t, n, k)."""
        self.n_passes += 2
        P, Q = self._apply(M)
        if self._anchor is not None:
            A, R = self._anchor
            core = self.xp.matmul(A.mT, M)
            P = P + self.xp.matmul(A, self.xp.matmul(self.xp.astype(R, A.dtype), core))
            Q = Q + self.xp.matmul(A, self.xp.matmul(self.xp.astype(R.mT, A.dtype), core))
        return P, Q

    def objective(self, A: Any, R: Any, P: Any) -> float:
        """Half the squared error, from the products P with A where that keeps its digits."""
        if not self.masked:
            xp, G = self.xp, gram(A, self.xp)
            cross = _inner(R, _core(A, P, xp), xp)
            value = self.squared_norm - 2 * cross + _inner(R, xp.matmul(xp.matmul(G, R), G), xp)
            if value > CANCELLED * float(xp.finfo(self.dtype).eps) * self.squared_norm or not math.isfinite(value):
                return value / 2
        return math.fsum(self.residual_squares(A, R)) / 2

    def residual_squares(self, A: Any, R: Any) -> list[float]:
        """Squared error of each slice over its known entries."""
        raise NotImplementedError

    def _apply(self, M: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _refresh(self, A: Any, R: Any) -> None:
        raise NotImplementedError

    def unfolded(self) -> Any:
        """The slices and their transposes below one another, (2 t n, n); unknown entries as zeros."""
        raise NotImplementedError


class DenseStack(Stack):
    """An array (t, n, n), and a mask of the same shape or None."""

    def __init__(self, X: Any, known: Any, scales: Sequence[float]) -> None:
        super().__init__()
        self.xp, self.dtype, self.like = namespace_of(X), X.dtype, X
        t, n = int(X.shape[0]), int(X.shape[1])
        self.shape, self.masked, self.known = (t, n, n), known is not None, known
        if any(scale != 1 for scale in scales):
            factors = self.xp.asarray([1 / scale for scale in scales], dtype=X.dtype, device=device_of(X))
            X = X * self.xp.reshape(factors, (t, 1, 1))
        self.X = self.values = X
        self.squares = [_squares(X[i, :, :], self.xp) for i in range(t)]

    def _apply(self, M: Any) -> tuple[Any, Any]:
        return self.xp.matmul(self.values, M), self.xp.matmul(self.values.mT, M)

    def _residual(self, i: int, A: Any, R: Any) -> Any:
        xp = self.xp
        rest = self.X[i, :, :] - xp.matmul(xp.matmul(A, xp.astype(R[i, :, :], A.dtype)), A.mT)
        return rest if self.known is None else xp.where(self.known[i, :, :], rest, xp.zeros_like(rest))

    def _refresh(self, A: Any, R: Any) -> None:
        if self.values is self.X:
            self.values = self.xp.zeros_like(self.X)
        for i in range(self.shape[0]):
            self.values[i, :, :] = self._residual(i, A, R)

    def residual_squares(self, A: Any, R: Any) -> list[float]:
        self.n_passes += 1
        return [_squares(self._residual(i, A, R), self.xp) for i in range(self.shape[0])]

    def unfolded(self) -> Any:
        flat = (2 * self.shape[0] * self.shape[1], self.shape[1])
        return self.xp.reshape(self.xp.concat([self.X, self.X.mT]), flat)


class SparseStack(Stack):
    """CSR matrices below one another, and their transposes; with `masked` they store what is known."""

    def __init__(self, slices: Sequence[Any], masked: bool, scales: Sequence[float]) -> None:
        super().__init__()
        first = slices[0]
        self.container, self.xp, self.masked = type(first), namespace_of(first), masked
        self.shape = (len(slices), int(first.shape[0]), int(first.shape[0]))
        self.data, self.indices, self.indptr = _below(slices, self.xp)
        self.dtype, self.like = self.data.dtype, self.data
        numbered, begin = [], 0
        for S in slices:  # the place of each entry, to find it again in the transpose
            places = self.xp.arange(begin, begin + int(S.nnz), dtype=self.xp.float64)
            numbered.append(type(S)((places, S.indices, S.indptr), shape=S.shape).T.tocsr())
            begin += int(S.nnz)
        order, self.turned_indices, self.turned_indptr = _below(numbered, self.xp)
        self.order = self.xp.astype(order, self.xp.int64)
        self.bounds = [0]
        for S in slices:
            self.bounds.append(self.bounds[-1] + int(S.nnz))
        for i, scale in enumerate(scales):
            if scale != 1:
                self.data[self._part(i)] = self.data[self._part(i)] / scale
        self.values = self.data
        self.squares = [_squares(self.data[self._part(i)], self.xp) for i in range(len(slices))]

    def _part(self, i: int) -> slice:
        return slice(self.bounds[i], self.bounds[i + 1])

    def _apply(self, M: Any) -> tuple[Any, Any]:
        multiply, panel = kernel("csr_matmul", self.xp), self.xp.asarray(M, order="C")
        shape = (self.shape[0], self.shape[1], int(M.shape[1]))
        P = multiply(self.values, self.indices, self.indptr, panel)
        Q = multiply(self.values[self.order], self.turned_indices, self.turned_indptr, panel)
        return self.xp.reshape(P, shape), self.xp.reshape(Q, shape)

    def _model(self, A: Any, R: Any) -> Any:
        """The model at the stored entries."""
        xp, (t, n, _) = self.xp, self.shape
        left = xp.reshape(xp.matmul(A, xp.astype(R, A.dtype)), (t * n, int(A.shape[1])))
        right = xp.asarray(A, order="C")
        return kernel("sampled_products", xp)(xp.asarray(left, order="C"), right, self.indices, self.indptr)

    def _refresh(self, A: Any, R: Any) -> None:
        self.values = self.data - self._model(A, R)

    def residual_squares(self, A: Any, R: Any) -> list[float]:
        """Of stored entries the squared residuals, of the others squares of the model: all of them less the stored."""
        self.n_passes += 1
        xp, found = self.xp, []
        model = xp.astype(self._model(A, R), xp.float64)
        G = gram(A, xp)
        for i in range(self.shape[0]):
            part = model[self._part(i)]
            total = _squares(self.data[self._part(i)] - part, xp)
            if not self.masked:
                core = xp.astype(R[i, :, :], xp.float64)
                whole = _inner(core, xp.matmul(xp.matmul(G, core), G), xp)
                total += max(whole - float(xp.sum(part * part)), 0.0)
            found.append(total)
        return found

    def unfolded(self) -> Any:
        xp = self.xp
        data, indices = xp.concat([self.data, self.data[self.order]]), xp.concat([self.indices, self.turned_indices])
        indptr = xp.concat([self.indptr, self.turned_indptr[1:] + self.bounds[-1]])
        return self.container((data, indices, indptr), shape=(2 * self.shape[0] * self.shape[1], self.shape[1]))


def gram(A: Any, xp: Any) -> Any:
    """``A.T A`` in double precision."""
    wide = xp.astype(A, xp.float64, copy=False)
    return xp.matmul(wide.mT, wide)


def _core(A: Any, P: Any, xp: Any) -> Any:
    """``A.T P_t`` in double precision, (t, k, k)."""
    return xp.astype(xp.matmul(A.mT, P), xp.float64)


def _inner(U: Any, V: Any, xp: Any) -> float:
    return float(xp.sum(xp.astype(U, xp.float64, copy=False) * xp.astype(V, xp.float64, copy=False)))


def _squares(X: Any, xp: Any) -> float:
    wide = xp.astype(X, xp.float64, copy=False)
    return float(xp.sum(wide * wide)) if 0 not in X.shape else 0.0


def _below(slices: Sequence[Any], xp: Any) -> tuple[Any, Any, Any]:
    """CSR arrays of matrices below one another."""
    ends, begin = [], 0
    for i, S in enumerate(slices):
        ends.append(xp.astype(S.indptr[0 if i == 0 else 1 :], xp.int64) + begin)
        begin += int(S.nnz)
    return xp.concat([S.data for S in slices]), xp.concat([S.indices for S in slices]), xp.concat(ends)


# --- intake -----------------------------------------------------------------------------------------------------------


class Intake:
    """What came in: the stack of the nodes that occur, where they are, and the scale of each slice."""

    def __init__(self, X: Any, absent: str | None, scale_slices: bool) -> None:
        if absent is not None:
            check_choice(absent, "absent", ABSENT)
        slices = _as_slices(X)
        sparse = isinstance(slices, list)
        head = slices[0] if sparse else slices
        self.xp = xp = namespace_of(head)
        self.n, self.t = int(head.shape[-1]), len(slices) if sparse else int(slices.shape[0])
        self.like = head.data if sparse else head
        known = None
        if sparse:
            slices = [_clean_sparse(S, absent, xp) for S in slices]
        else:
            slices, known = _clean_dense(slices, absent, xp)
        values = [S.data for S in slices] if sparse else [slices]
        self.dtype = values[0].dtype
        largest = max((float(xp.max(v)) for v in values if 0 not in v.shape), default=0.0)
        self.kept = self._occurring(slices, sparse)
        if int(self.kept.shape[0]) < self.n:
            slices, known = self._pruned(slices, known, sparse)
        parts = [S.data for S in slices] if sparse else [slices[i, :, :] for i in range(self.t)]
        norms = [_slice_norm(part, largest, xp) for part in parts]
        self.scales = self._scales(norms, largest, scale_slices)
        masked = absent == "missing" if sparse else known is not None
        self.stack: Stack = (
            SparseStack(slices, masked, self.scales) if sparse else DenseStack(slices, known, self.scales)
        )

    def _scales(self, norms: list[float], largest: float, scale_slices: bool) -> list[float]:
        """The norm of each slice; or a power of two for all, where squares would overflow or vanish."""
        if scale_slices:
            return [norm if norm > 0 else 1.0 for norm in norms]
        low, high = MODERATE[dtype_name(self.dtype)]
        whole = math.hypot(*norms)
        moderate = whole == 0 or low <= whole**2 <= high if whole < 1e150 else False
        return [1.0 if moderate else 2.0 ** math.floor(math.log2(largest))] * self.t

    def _occurring(self, slices: Any, sparse: bool) -> Any:
        """Numbers of the nodes with an entry above zero in their row or column."""
        xp = self.xp
        if sparse:
            seen = xp.zeros(self.n, dtype=xp.bool)
            for S in slices:
                positive = S.data > 0
                rows = xp.searchsorted(S.indptr[1:], xp.arange(int(S.nnz)), side="right")
                seen[S.indices[positive]] = True
                seen[rows[positive]] = True
        else:
            seen = xp.any(xp.any(slices > 0, axis=0), axis=0) | xp.any(xp.any(slices > 0, axis=0), axis=1)
        return xp.nonzero(seen)[0]

    def _pruned(self, slices: Any, known: Any, sparse: bool) -> tuple[Any, Any]:
        xp, kept = self.xp, self.kept
        if sparse:
            return [S[kept, :][:, kept].tocsr() for S in slices], known

        def part(T: Any) -> Any:
            return xp.take(xp.take(T, kept, axis=1), kept, axis=2)

        return part(slices), None if known is None else part(known)

    def restored(self, A: Any) -> Any:
        """A with rows of zeros for the nodes that do not occur."""
        if int(self.kept.shape[0]) == self.n:
            return A
        xp = self.xp
        places = xp.searchsorted(self.kept, xp.arange(self.n, dtype=self.kept.dtype, device=device_of(A)))
        places = xp.clip(places, 0, max(0, int(self.kept.shape[0]) - 1))
        if int(self.kept.shape[0]) == 0:
            return xp.zeros((self.n, int(A.shape[1])), dtype=A.dtype, device=device_of(A))
        here = xp.take(self.kept, places) == xp.arange(self.n, dtype=self.kept.dtype, device=device_of(A))
        return xp.take(A, places, axis=0) * xp.astype(here, A.dtype)[:, None]


def _slice_norm(values: Any, largest: float, xp: Any) -> float:
    """Frobenius norm without overflow."""
    if not largest > 0 or 0 in values.shape:
        return 0.0
    return largest * math.sqrt(_squares(xp.astype(values, xp.float64) / largest, xp))


def _as_slices(X: Any) -> Any:
    """An array (t, n, n), or a list of CSR matrices of one shape."""
    if is_sparse(X):
        raise TypeError("X must be a list of sparse matrices, got one sparse matrix; pass [X]")
    if isinstance(X, (list, tuple)) and any(is_sparse(S) for S in X):
        slices = [_as_csr(S, i) for i, S in enumerate(X)]
        shapes = {(int(S.shape[0]), int(S.shape[1])) for S in slices}
        if len(shapes) > 1 or any(a != b for a, b in shapes):
            raise ValueError(f"X must have square matrices of one shape, got {sorted(shapes)}")
        return slices
    if isinstance(X, (list, tuple)) and X and all(is_array_api_obj(S) for S in X):
        sizes = {tuple(int(size) for size in S.shape) for S in X}
        if len(sizes) > 1:
            raise ValueError(f"X must have square matrices of one shape, got {sorted(sizes)}")
        X = array_namespace(*X).stack(list(X))
    elif not is_array_api_obj(X):
        try:
            X = np.asarray(X)
        except ValueError:
            raise ValueError("X must have square matrices of one shape, got ragged lists") from None
    if X.ndim != 3 or X.shape[1] != X.shape[2] or X.shape[0] == 0:
        raise ValueError(f"X must have shape (t, n, n) with t >= 1, got {tuple(X.shape)}; pass X[None] for one matrix")
    xp = array_namespace(X)
    as_matrix(xp.reshape(X, (-1, max(1, int(X.shape[2])))) if 0 not in X.shape else X[0, :, :], name="X")
    if is_complex(X.dtype):
        raise TypeError(f"X must be real, got {X.dtype}")
    return xp.astype(X, floating_dtype(X, xp), copy=False)


def _as_csr(S: Any, i: int) -> Any:
    if not is_sparse(S):
        raise TypeError(f"X must have matrices of one kind, got sparse ones and {type(S).__name__} at place {i}")
    S = as_matrix(S, name=f"X[{i}]")
    xp = namespace_of(S)
    if is_complex(S.dtype):
        raise TypeError(f"X[{i}] must be real, got {S.dtype}")
    if not (is_numpy_namespace(xp) or is_cupy_namespace(xp)):
        raise NotImplementedError("X must have SciPy or CuPy matrices where they are sparse")
    S = S.tocsr().astype(floating_dtype(S.data, xp))
    if not S.has_canonical_format:
        S = S.copy()
        S.sum_duplicates()
    return S


def _clean_dense(X: Any, absent: str | None, xp: Any) -> tuple[Any, Any]:
    """X with zeros for NaN, and which entries are known where some are not."""
    known = ~xp.isnan(X)
    if bool(xp.all(known)):
        _check_values(X, xp)
        return X, None
    _check_nan(absent)
    X = xp.where(known, X, xp.zeros_like(X))
    _check_values(X, xp)
    return X, known if absent == "missing" else None


def _clean_sparse(S: Any, absent: str | None, xp: Any) -> Any:
    """S without NaN; stored zeros stay where what is stored is what is known."""
    unknown = xp.isnan(S.data)
    if bool(xp.any(unknown)):
        _check_nan(absent)
        rows = xp.searchsorted(S.indptr[1:], xp.arange(int(S.nnz)), side="right")[~unknown]
        counts = xp.zeros(int(S.shape[0]) + 1, dtype=xp.int64)
        counts[1:] = xp.cumsum(xp.bincount(rows, minlength=int(S.shape[0])))
        S = type(S)((S.data[~unknown], S.indices[~unknown], counts), shape=S.shape)
    _check_values(S.data, xp)
    return S


def _check_nan(absent: str | None) -> None:
    if absent is None:
        raise ValueError('absent must be "missing" or "zeros" where X has NaN, got None; say what NaN stands for')


def _check_values(values: Any, xp: Any) -> None:
    if 0 in values.shape:
        return
    least, largest = float(xp.min(values)), float(xp.max(values))
    if math.isinf(largest):
        raise ValueError("X must be finite, got infinity")
    if least < 0:
        raise ValueError(f"X must be nonnegative, got {least:g}")
