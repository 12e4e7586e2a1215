"""Vectors orthogonal to a tall matrix as pairs: ``b - V c`` with ``c = V^T b``, b kept at the rows that it touches.

The inner product of two such vectors is ``<b, b'> - <c, c'>``, whatever the length of V.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from .._arrays import as_matrix, eps, floating_dtype, from_host, is_complex, is_sparse, namespace_of
from .._backend import kernel
from .._random import Key
from .factors import GrowingFactor

#: How the part of an update outside the present space is found.
METHODS = ("exact", "gkl", "rpi")

#: A direction is left out where less than this share of the squared norm of a column lies outside the span: what is
#: below is rounding, of the inner product in double precision and of the stored rows in single.
_CUT = {"float64": 1e-14, "float32": 1e-6}
_DENSE_ENTRIES = 2**14  # a batch of at most so many touched entries is multiplied as a dense block: 128 kB
_ONCE = 0.25  # with so much left of every column the first pass is orthonormal to a few units of rounding
_SOUND = 1e-4  # a Cholesky factor is trusted while its squared diagonal stays above this; below, the spectrum decides


class Batch:
    """Rows of an update (s, n): the columns that they touch, and the entries there.

    Attributes
    ----------
    shape : tuple of two int
    where : array, shape (u,), or None
        Touched columns, ascending; None stands for all.
    squares : float
        ``||E||_F**2``.
    dtype : dtype
        The floating dtype of the data.
    """

    def __init__(self, shape: tuple[int, int], where: Any, dense: Any, triple: Any, kind: Any, dtype: Any) -> None:
        self.dtype = dtype
        self.shape, self.where, self._dense, self._triple, self._kind = shape, where, dense, triple, kind
        self._sparse: Any = None
        entries = dense if triple is None else triple[0]
        self.xp = array_namespace(entries)
        with np.errstate(over="ignore"):
            self.squares = float(self.xp.sum(entries**2))
        if not math.isfinite(self.squares):
            raise ValueError("the update must have a Frobenius norm below 1e154, got more; scale the table")

    @property
    def like(self) -> Any:
        """An array of the library and device of this batch."""
        return self._dense if self._triple is None else self._triple[0]

    def dense(self) -> Any:
        """The touched part as columns, shape (u, s), float64."""
        if self._dense is None:
            xp, (data, slots, indptr) = self.xp, self._triple
            s, u = self.shape[0], self.where.shape[0]
            # the owner of each entry by a search, since CuPy repeats by fixed counts only
            entries = xp.arange(data.shape[0], dtype=indptr.dtype)
            numbers = xp.searchsorted(indptr[1:], entries, side="right")
            self._dense = xp.reshape(xp.bincount(slots * s + numbers, weights=data, minlength=u * s), (u, s))
        return self._dense

    def times(self, X: Any) -> Any:
        """E times a panel (u, k) at the touched columns."""
        E = self._entries()
        return self.xp.matmul(E.mT, X) if E is self._dense else E @ X

    def adjoint_times(self, P: Any) -> Any:
        """The touched part of ``E.T @ P`` for P (s, k), shape (u, k)."""
        E = self._entries()
        return self.xp.matmul(E, P) if E is self._dense else E.T @ P

    def gram(self) -> Any:
        """``E @ E.T``, shape (s, s)."""
        E = self._entries()
        return self.xp.matmul(E.mT, E) if E is self._dense else (E @ E.T).toarray()

    def _entries(self) -> Any:
        """The dense columns where they are there or small, else a CSR matrix (s, u)."""
        if self._dense is not None or self.shape[0] * self.where.shape[0] <= _DENSE_ENTRIES:
            return self.dense()
        if self._sparse is None:
            self._sparse = self._kind(self._triple, shape=(self.shape[0], self.where.shape[0]))
        return self._sparse


def as_batch(E: Any, name: str, n_columns: int | None, *, columns: bool = False) -> Batch:
    """The intake of an update; `columns` says that E has the vectors as columns and is to be turned.

    Raises
    ------
    TypeError
        If E is not numeric.
    ValueError
        If E is not 2-D, is complex, has the wrong width, or holds NaN or infinity.
    """
    E = as_matrix(E, name=name)
    xp, shape = namespace_of(E), (int(E.shape[0]), int(E.shape[1]))
    if is_complex(E.dtype):
        raise ValueError(f"{name} must be real, got {E.dtype}; update the real and the imaginary part apart")
    if n_columns is not None and shape[0 if columns else 1] != n_columns:
        what = "rows" if columns else "columns"
        raise ValueError(f"{name} must have {n_columns} {what}, got shape {shape}")
    if columns:
        E = E.T
    dtype = floating_dtype(E, xp)
    if not is_sparse(E):
        E = xp.astype(E, xp.float64)
        _check_finite(E, name, xp)
        return Batch(shape[::-1] if columns else shape, None, E.mT, None, None, dtype)
    E = E if E.format == "csr" else E.tocsr()
    if not E.has_canonical_format:
        E = E.copy()
        E.sum_duplicates()
    data = xp.astype(E.data, xp.float64)
    _check_finite(data, name, xp)
    where, slots = xp.unique(E.indices, return_inverse=True)  # unique_inverse of array_api_compat is twice as slow
    return Batch(shape[::-1] if columns else shape, where, None, (data, slots, E.indptr), type(E), dtype)


def _check_finite(values: Any, name: str, xp: Any) -> None:
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError(f"{name} must be finite, got NaN or infinity; the model is unchanged")


class Residual(NamedTuple):
    """What an update is beside the present space: ``E.T ~ V @ spill + Q @ R`` with ``Q = B - V @ C`` orthonormal.

    B at the rows `where` is ``lift(I)``: it is formed only where it is multiplied, from the entries of the update.
    `lost` is the squared norm of what the right-hand side leaves out.
    """

    where: Any
    lift: Callable[[Any], Any]
    C: Any
    R: Any
    spill: Any
    lost: float


def residual(
    factor: GrowingFactor, batch: Batch, method: str, n_directions: int, n_power_iter: int, key: Callable[[], Key]
) -> Residual:
    """Split the rows of a batch into their part in the column space of `factor` and a basis of the rest.

    `key` is asked for only where something is drawn.
    """
    xp = batch.xp
    spill = xp.matmul(factor.core.mT, batch.times(factor.raw(batch.where)).mT)
    cut = _CUT["float32" if factor.dtype == xp.float32 else "float64"]
    if method == "exact" or batch.shape[0] <= n_directions:
        return _whole(batch, spill, cut)
    start = xp.astype(
        from_host(kernel("gaussian_table", xp)(key(), 0, batch.shape[0], n_directions, np.dtype("float64")), xp, spill),
        xp.float64,
    )
    if method == "gkl":
        B, C = _lanczos(batch, spill, start[:, :1], n_directions, cut)
    else:
        B, C = _power(batch, spill, start, n_power_iter, cut)
    R = (batch.times(B) - xp.matmul(spill.mT, C)).mT
    outside = batch.squares - float(xp.sum(spill**2))
    rounding = 64 * eps(xp.float64) * batch.squares  # of the differences of squares
    return Residual(batch.where, partial(xp.matmul, B), C, R, spill, max(outside - float(xp.sum(R**2)), 0.0) + rounding)


def _whole(batch: Batch, spill: Any, cut: float) -> Residual:
    """All of the residual; B stays a product with the entries where one pass is enough."""
    xp = batch.xp
    G = batch.gram()
    norms = xp.sqrt(xp.linalg.diagonal(G))
    length = xp.where(norms > 0, norms, xp.ones_like(norms))
    G = (G - xp.matmul(spill.mT, spill)) / (length[:, None] * length[None, :])
    W, R, lost, sound = _root(G, cut, norms)
    if not sound:
        B, C, R, lost = whiten(batch.dense(), spill, cut)
        return Residual(batch.where, partial(xp.matmul, B), C, R, spill, lost)
    W = W / length[:, None]

    def lift(X: Any) -> Any:
        return batch.adjoint_times(xp.matmul(W, X))

    return Residual(batch.where, lift, xp.matmul(spill, W), R * length[None, :], spill, lost)


def _power(batch: Batch, spill: Any, P: Any, n_power_iter: int, cut: float) -> tuple[Any, Any]:
    """Randomized power iteration on the residual; returns an orthonormal basis of pairs."""
    xp = batch.xp
    for step in range(max(1, n_power_iter)):
        P, _ = xp.linalg.qr(P)
        B, C, _, _ = whiten(batch.adjoint_times(P), xp.matmul(spill, P), cut)
        if step + 1 < n_power_iter:
            P = batch.times(B) - xp.matmul(spill.mT, C)
    return B, C


def _lanczos(batch: Batch, spill: Any, p: Any, n_directions: int, cut: float) -> tuple[Any, Any]:
    """Golub-Kahan-Lanczos on the residual with full re-orthogonalisation of both short and long vectors."""
    xp = batch.xp
    B, C, P = batch.adjoint_times(p)[:, :0], spill[:, :0], p[:, :0]
    scale = math.sqrt(max(batch.squares, 0.0))
    for _ in range(n_directions):
        for _ in range(2):
            p = p - xp.matmul(P, xp.matmul(P.mT, p))
        length = float(xp.sum(p**2)) ** 0.5
        if not length > 0.0:
            break
        p = p / length
        P = xp.concat([P, p], axis=1)
        b, c = batch.adjoint_times(p), xp.matmul(spill, p)
        whole = float(xp.sum(b**2))
        for _ in range(2):
            overlap = xp.matmul(B.mT, b) - xp.matmul(C.mT, c)
            b, c = b - xp.matmul(B, overlap), c - xp.matmul(C, overlap)
        left = float(xp.sum(b**2)) - float(xp.sum(c**2))
        if not left > cut * max(whole, eps(xp.float64) * scale**2):
            break
        B, C = xp.concat([B, b / left**0.5], axis=1), xp.concat([C, c / left**0.5], axis=1)
        p = batch.times(B[:, -1:]) - xp.matmul(spill.mT, C[:, -1:])
    B, C, _, _ = whiten(B, C, cut)
    return B, C


def whiten(B: Any, C: Any, cut: float) -> tuple[Any, Any, Any, float]:
    """Orthonormalise pairs: ``B, C = Q_B R, Q_C R`` up to what is left out, whose squared norm comes last.

    Columns are scaled to one length first, so that the cut is relative to each of them.
    """
    xp = array_namespace(B)
    norms = xp.sqrt(xp.sum(B**2, axis=0))
    length = xp.where(norms > 0, norms, xp.ones_like(norms))
    B, C = B / length[None, :], C / length[None, :]
    W, R, lost, sound = _root(_gram(B, C), cut, norms)
    B, C, R = xp.matmul(B, W), xp.matmul(C, W), R * length[None, :]
    if not sound:  # a second pass: orthonormal to rounding, except where most of a column has cancelled
        W, again, more, _ = _root(_gram(B, C), 0.25, xp.sqrt(xp.sum(R**2, axis=1)))
        B, C, R, lost = xp.matmul(B, W), xp.matmul(C, W), xp.matmul(again, R), lost + more
    return B, C, R, lost


def _gram(B: Any, C: Any) -> Any:
    xp = array_namespace(B)
    return xp.matmul(B.mT, B) - xp.matmul(C.mT, C)


def _lower(G: Any, xp: Any) -> Any:
    """The Cholesky factor of a small matrix, or None."""
    try:
        L = xp.linalg.cholesky(G)
    except (np.linalg.LinAlgError, RuntimeError):  # NumPy raises the first, PyTorch a kind of the second
        return None
    # CuPy says nothing and leaves a factor of something else
    return L if float(xp.max(xp.abs(xp.matmul(L, L.mT) - G))) < _SOUND else None


def _root(G: Any, cut: float, weights: Any) -> tuple[Any, Any, float, bool]:
    """W and R with ``W^T G W = I`` and ``W R = I`` on what is kept, and the squared weighted norm of the rest.

    Last comes whether W is so well conditioned that one pass is enough.
    """
    xp = array_namespace(G)
    if G.shape[0] == 0:
        return G, G, 0.0, True
    L = _lower(G, xp)
    least = 0.0 if L is None else float(xp.min(xp.linalg.diagonal(L))) ** 2
    if L is not None and least > max(_SOUND, cut):
        return xp.linalg.inv(L).mT, L.mT, 0.0, least > _ONCE
    values, V = xp.linalg.eigh((G + G.mT) / 2)
    keep = xp.nonzero(values > cut)[0]
    gone = xp.nonzero(values <= cut)[0]
    dropped = xp.maximum(xp.take(values, gone), cut * xp.ones_like(xp.take(values, gone)))
    lost = float(xp.sum(dropped[None, :] * (weights[:, None] * xp.take(V, gone, axis=1)) ** 2))
    V, root = xp.take(V, keep, axis=1), xp.sqrt(xp.take(values, keep))
    return V / root[None, :], root[:, None] * V.mT, lost, False
