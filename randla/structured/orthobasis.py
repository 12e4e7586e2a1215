"""Compression on the leading columns of a fixed orthonormal basis: cosine, Hadamard, Haar, or one of the user's own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace
from array_api_compat import device as device_of

from .._arrays import as_matrix, check_together, eps, floating_dtype, from_host, is_complex
from .._checks import check_choice, check_integer
from ..linear_maps import squared

#: Bases that are known by name.
BASES = ("dct", "hadamard", "haar")


class Rotation(NamedTuple):
    """How coordinates move when the chosen columns of a basis change: kept ones to a new place, others away.

    Attributes
    ----------
    source, target : int64 arrays, shape (k,)
        Coordinate ``source[i]`` of the old choice is coordinate ``target[i]`` of the new one.
    shape : tuple of two int
        Numbers of old and new coordinates.
    """

    source: Any
    target: Any
    shape: tuple[int, int]

    def to_dense(self) -> np.ndarray:
        """The same as a matrix of zeros and ones, ``Q_old^* Q_new``."""
        matrix = np.zeros(self.shape)
        matrix[self.source, self.target] = 1.0
        return matrix

    def apply(self, state: Any) -> Any:
        """Move the columns of a state, shape (m, old), to their new places, shape (m, new); new ones are zero."""
        state = as_matrix(state, name="state", sparse=False)
        if state.shape[1] != self.shape[0]:
            raise ValueError(f"state must have {self.shape[0]} columns, got shape {tuple(state.shape)}")
        xp = array_namespace(state)
        where = np.full(self.shape[1], self.shape[0], dtype=np.int64)  # new columns come from an appended zero
        where[self.target] = self.source
        zero = xp.zeros((state.shape[0], 1), dtype=state.dtype, device=device_of(state))
        return xp.take(xp.concat([state, zero], axis=1), from_host(where, xp, state), axis=1)


class OrthobasisProjector:
    """Keep the coordinates of a matrix that matter in a fixed orthonormal basis.

    ``S = G Q`` are the coordinates of the rows of G in the basis Q; the `n_components` columns of largest norm are
    kept.  What is stored is their numbers alone, where a truncated singular value decomposition stores a basis.

    Parameters
    ----------
    basis : {"dct", "hadamard", "haar"} or array, shape (n, n), default "dct"
        Orthonormal columns.  "dct" is the cosine transform of type II; "hadamard" and "haar" need a power of two.
    n_components : int, n_components >= 1, default 16
        Coordinates to keep.
    norm : {2, 1}, default 2
        Norm of the columns of S that are compared.  2 is optimal for the basis; 1 is what [1]_ uses.
    side : {"auto", "right", "left"}, default "auto"
        "right" transforms the rows (Q has the size of a row), "left" the columns; "auto" the shorter of the two that
        the basis fits, and the rows of a square matrix.

    Attributes
    ----------
    indices_ : int64 array, shape (n_components,)
        Numbers of the kept columns of the basis, ascending.
    error_ : float
        ``||G - projection||_F / ||G||_F`` of the matrix that was fitted, exact.
    bound_ : float
        ``sqrt(1 - n_components / n)``, which `error_` cannot exceed with ``norm=2``.
    side_ : str
        "right" or "left".

    Raises
    ------
    ValueError
        If the basis is not orthonormal, or does not fit the matrix.

    Notes
    -----
    Cost of a fit: the transform, ``O(m n log n)`` by SciPy on NumPy arrays and one product with the basis elsewhere.

    A fixed basis has no adaptivity but the choice of columns.  On rows that are smooth in their index the cosine basis
    comes within a tenth of the singular value decomposition; on a matrix of low rank whose rows are in no order it
    leaves nearly all of it, where the decomposition is exact.  Among columns of equal norm the first are kept, so ties
    are decided alike everywhere.

    References
    ----------
    .. [1] Modoranu, Safaryan, Schultheis, Ryabinin, Chumachenko and Alistarh, "SVD-free low-rank adaptive gradient
       optimization for large language models", arXiv:2505.17967.

    Examples
    --------
    >>> import numpy as np
    >>> from randla.structured import OrthobasisProjector
    >>> G = np.cumsum(np.random.default_rng(0).standard_normal((300, 128)), axis=1)
    >>> projector = OrthobasisProjector("dct", 8).fit(G)
    >>> projector.transform(G).shape, round(projector.error_, 1), round(projector.bound_, 1)
    ((300, 8), 0.2, 1.0)
    """

    indices_: Any
    error_: float
    bound_: float
    side_: str

    def __init__(self, basis: Any = "dct", n_components: int = 16, *, norm: int = 2, side: str = "auto") -> None:
        self.n_components = check_integer(n_components, "n_components", low=1)
        if norm not in (1, 2) or isinstance(norm, bool):
            raise ValueError(f"norm must be 1 or 2, got {norm!r}")
        check_choice(side, "side", ("auto", "right", "left"))
        if isinstance(basis, str):
            check_choice(basis, "basis", BASES)
        else:
            basis = _own(basis)
        self.basis, self.norm, self.side = basis, norm, side

    def fit(self, G: Any) -> OrthobasisProjector:
        """Choose the columns for G, shape (m, n).

        Raises
        ------
        ValueError
            If G is empty, holds NaN or infinity, or has a side that the basis does not fit.
        """
        G = _dense(G)
        side = self._chosen_side(G)
        n = int(G.shape[1] if side == "right" else G.shape[0])
        check_integer(self.n_components, "n_components", low=1, high=n, remedy="the basis has no more columns")
        xp = array_namespace(G)
        S = xp.abs(self._coordinates(G, side))
        top = float(xp.max(S))
        if not top < math.inf:
            raise ValueError("G must be finite, got NaN or infinity")
        S = xp.astype(S, xp.float64) / (top or 1.0)
        squares = xp.sum(S * S, axis=0)
        order = xp.argsort(-(squares if self.norm == 2 else xp.sum(S, axis=0)), stable=True)
        total = float(xp.sum(squares))
        self.side_, self._size = side, n
        self.indices_ = xp.sort(order[: self.n_components])
        left_out = float(xp.sum(xp.take(squares, order[self.n_components :], axis=0)))
        self.error_ = math.sqrt(left_out / total) if total > 0 else 0.0
        self.bound_ = math.sqrt(1 - self.n_components / n)
        return self

    def _chosen_side(self, G: Any) -> str:
        if self.side != "auto":
            return self.side
        m, n = G.shape
        if not isinstance(self.basis, str) and (m == self.basis.shape[0]) != (n == self.basis.shape[0]):
            return "right" if n == self.basis.shape[0] else "left"  # the one that an own basis fits
        return "right" if m >= n else "left"

    def _coordinates(self, G: Any, side: str) -> Any:
        """``G Q``, or ``G^* Q`` on the left, by a fast transform where there is one."""
        xp = array_namespace(G)
        if side == "left":
            G = xp.conj(G.mT) if is_complex(G.dtype) else G.mT
        if isinstance(self.basis, str) and self.basis == "dct" and is_numpy_namespace(xp):
            from scipy.fft import dct

            return dct(G, type=2, norm="ortho", axis=1)
        return xp.matmul(G, self._basis(G.shape[1], G))

    def _basis(self, n: int, like: Any) -> Any:
        """The whole basis in the namespace and precision of `like`."""
        xp = array_namespace(like)
        if isinstance(self.basis, str):
            return xp.astype(from_host(named_basis(self.basis, n), xp, like), like.dtype)
        if self.basis.shape[0] != n:
            raise ValueError(
                f"basis must have {n} rows, as long as the side that it transforms, got {self.basis.shape}"
            )
        check_together(self.basis, like, names=("basis", "G"))
        return xp.astype(self.basis, xp.result_type(self.basis.dtype, like.dtype))

    def components(self, like: Any) -> Any:
        """The chosen columns Q_J, shape (n, n_components), in the namespace and precision of an array."""
        self._check_fitted()
        xp = array_namespace(like)
        if isinstance(self.basis, str):
            index = np.asarray([int(i) for i in self.indices_])
            return xp.astype(from_host(named_columns(self.basis, self._size, index), xp, like), like.dtype)
        return xp.take(self._basis(self._size, like), self.indices_, axis=1)

    def transform(self, G: Any) -> Any:
        """The kept coordinates: ``G Q_J`` of shape (m, n_components), or ``Q_J^* G`` on the left."""
        G = self._fitting(_dense(G), 0)
        xp = array_namespace(G)
        Q = self.components(G)
        if self.side_ == "right":
            return xp.matmul(G, Q)
        return xp.matmul(xp.conj(Q.mT) if is_complex(Q.dtype) else Q.mT, G)

    def inverse_transform(self, g: Any) -> Any:
        """The matrix with these coordinates, ``g Q_J^*`` or ``Q_J g``: the nearest one that the columns can hold."""
        g = self._fitting(_dense(g, name="g"), self.n_components)
        xp = array_namespace(g)
        Q = self.components(g)
        if self.side_ == "left":
            return xp.matmul(Q, g)
        return xp.matmul(g, xp.conj(Q.mT) if is_complex(Q.dtype) else Q.mT)

    def residual(self, G: Any) -> Any:
        """What the projection of G leaves out, for a buffer of error feedback."""
        G = _dense(G)
        return G - self.inverse_transform(self.transform(G))

    def rotation_from(self, previous: OrthobasisProjector) -> Rotation:
        """How the coordinates of an earlier choice from the same basis move to this one.

        ``Q_old^* Q_new`` is a selection: shared columns keep their coordinate, others are lost or begin at zero.

        Raises
        ------
        ValueError
            If the two projectors have different bases or sides.
        """
        if not isinstance(previous, OrthobasisProjector):
            raise TypeError(f"previous must be an OrthobasisProjector, got {type(previous).__name__}")
        self._check_fitted()
        previous._check_fitted()
        same = self.basis is previous.basis or (isinstance(self.basis, str) and self.basis == previous.basis)
        if not same or self.side_ != previous.side_ or self._size != previous._size:
            raise ValueError("previous must have the same basis, side and size, got another; rotate by a full product")
        old, new = (np.asarray([int(i) for i in p.indices_]) for p in (previous, self))
        _, source, target = np.intersect1d(old, new, assume_unique=True, return_indices=True)
        return Rotation(source.astype(np.int64), target.astype(np.int64), (old.size, new.size))

    def _check_fitted(self) -> None:
        if not hasattr(self, "indices_"):
            raise ValueError("the projector must be fitted, got one that is not; call fit first")

    def _fitting(self, G: Any, width: int) -> Any:
        """G, once its side has the size of the basis, or `width` where that is given."""
        self._check_fitted()
        axis, wanted = (1 if self.side_ == "right" else 0), width or self._size
        if G.shape[axis] != wanted:
            side = "columns" if axis else "rows"
            raise ValueError(f"the matrix must have {wanted} {side}, got shape {tuple(G.shape)}")
        return G

    def __repr__(self) -> str:
        basis = self.basis if isinstance(self.basis, str) else f"array {tuple(self.basis.shape)}"
        fitted = f", error={self.error_:.3g}" if hasattr(self, "indices_") else ""
        return f"OrthobasisProjector({basis!r}, {self.n_components}, norm={self.norm}, side={self.side!r}{fitted})"


def named_basis(name: str, n: int) -> np.ndarray:
    """An orthonormal basis by name, one column for each basis vector, shape (n, n)."""
    return named_columns(name, n, np.arange(n))


def named_columns(name: str, n: int, index: np.ndarray) -> np.ndarray:
    """Some columns of a basis by name, shape (n, k)."""
    if name == "dct":
        # the angle is reduced in integers, so large n lose no digits
        turns = ((2 * np.arange(n, dtype=np.int64)[:, None] + 1) * index[None, :]) % (4 * n)
        columns = math.sqrt(2 / n) * np.cos((math.pi / (2 * n)) * turns)
        return np.where(index[None, :] == 0, math.sqrt(1 / n), columns)
    if n & (n - 1) or n < 1:
        raise ValueError(f"basis={name!r} must have a side of a power of two to transform, got {n}; pad with zeros")
    if name == "hadamard":
        return _sylvester(n, index) / math.sqrt(n)
    columns = np.zeros((n, index.size))
    for place, i in enumerate(index):
        if i == 0:
            columns[:, place] = 1 / math.sqrt(n)
            continue
        level = int(i).bit_length() - 1  # 2**level wavelets of this width
        width = n >> level
        start = (int(i) - (1 << level)) * width
        columns[start : start + width // 2, place] = 1 / math.sqrt(width)
        columns[start + width // 2 : start + width, place] = -1 / math.sqrt(width)
    return columns


def _sylvester(n: int, index: np.ndarray) -> np.ndarray:
    """Columns of the Hadamard matrix in Sylvester's order: signs by the parity of common bits."""
    common = np.arange(n, dtype=np.int64)[:, None] & index[None, :].astype(np.int64)
    return 1.0 - 2.0 * (np.bitwise_count(common) & 1)


def _own(basis: Any) -> Any:
    """A basis of the user's own, checked for orthonormal columns."""
    basis = as_matrix(basis, name="basis", sparse=False)
    xp = array_namespace(basis)
    basis = xp.astype(basis, floating_dtype(basis, xp), copy=False)
    n = basis.shape[0]
    if n != basis.shape[1]:
        raise ValueError(f"basis must be square, got shape {tuple(basis.shape)}")
    gram = xp.matmul(xp.conj(basis.mT) if is_complex(basis.dtype) else basis.mT, basis)
    off = math.sqrt(squared(gram - xp.eye(n, dtype=gram.dtype, device=device_of(gram)), xp))
    if not off <= 100 * eps(basis.dtype) * max(n, 1):
        raise ValueError(f"basis must have orthonormal columns, got ||I - Q^* Q|| = {off:.2g}; take the Q of a QR")
    return basis


def _dense(G: Any, name: str = "G") -> Any:
    G = as_matrix(G, name=name, sparse=False)
    if 0 in G.shape:
        raise ValueError(f"{name} must have rows and columns, got shape {tuple(G.shape)}")
    xp = array_namespace(G)
    return xp.astype(G, floating_dtype(G, xp), copy=False)
