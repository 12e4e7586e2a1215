"""`sketch`: one call that picks an operator and its size, and says why."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays import as_matrix, is_sparse
from .._checks import check_choice, check_integer, check_real
from .base import SketchOperator
from .dense import Gaussian, Rademacher
from .pooled import GaussianPooledHadamard
from .rows import RowSample
from .sparse import LESS, CountSketch, SparseJL, SparseSign
from .trigonometric import SRCT, SRHT

KINDS: dict[str, type[SketchOperator]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "sparse-jl": SparseJL,
    "sparse-sign": SparseSign,
    "countsketch": CountSketch,
    "less": LESS,
    "srht": SRHT,
    "srct": SRCT,
    "pooled": GaussianPooledHadamard,
    "rows": RowSample,
}
DEFAULT_EPSILON = 0.5  # sketch_size close to 4 d: what a preconditioner or a first look needs
SMALL_FLOPS = 1e8  # below this a dense product takes a few milliseconds, and the kind with proved constants is free


class SketchChoice(NamedTuple):
    """An operator, and one sentence that says why it was chosen."""

    operator: SketchOperator
    reason: str


def sketch_size_for(kind: str, d: int, *, epsilon: float, delta: float = 0.01) -> int:
    """Return the sketch size for an epsilon-embedding of a d-dimensional subspace with probability 1 - delta.

    Parameters
    ----------
    kind : str
        One of the kinds of `sketch` except "rows", whose size depends on the data.
    d : int, d >= 1
        Dimension of the subspace: columns of a tall matrix.
    epsilon : float in (0, 1)
        All singular values of S U lie in [1 - epsilon, 1 + epsilon] for an orthonormal basis U.
    delta : float in (0, 1), default 0.01
        Probability of failure.

    Returns
    -------
    int
        Rows of the sketch.

    Raises
    ------
    ValueError
        If a number is out of range, or the kind has no such rule.

    Notes
    -----
    "gaussian": (sqrt(d) + sqrt(2 log(2 / delta)))**2 / epsilon**2 [1]_, proved with these constants.  "rademacher",
    "sparse-sign" (nnz = 8), "sparse-jl" (density 1/3), "less", "srht", "srct", "pooled": the same number, which is what
    they need in practice (distortions measured in the guide "Choosing a sketch"); their theorems have larger or unknown
    constants [2]_ [3]_.  "countsketch": (d**2 + d) / (delta (2 epsilon - epsilon**2)**2) [4]_, proved.

    References
    ----------
    .. [1] Davidson and Szarek, "Local operator theory, random matrices and Banach spaces", 2001, Theorem II.13.
    .. [2] Cohen, "Nearly tight oblivious subspace embeddings by trace inequalities", SODA 2016, Theorem 4.2.
    .. [3] Tropp, "Improved analysis of the subsampled randomized Hadamard transform", 2011, Theorem 1.3.
    .. [4] Nelson and Nguyen, "OSNAP", FOCS 2013, Theorem 3.

    Examples
    --------
    >>> import randla
    >>> randla.sketch_size_for("gaussian", 100, epsilon=0.5)
    703
    """
    check_choice(kind, "kind", KINDS)
    d = check_integer(d, "d", low=1)
    epsilon = check_real(epsilon, "epsilon", low=0.0, high=1.0, closed="neither")
    delta = check_real(delta, "delta", low=0.0, high=1.0, closed="neither")
    if kind == "rows":
        raise ValueError(
            'kind must not be "rows" with epsilon, got "rows"; give sketch_size, since it depends on the data'
        )
    if kind == "countsketch":
        return math.ceil((d * d + d) / (delta * (2 * epsilon - epsilon**2) ** 2))
    return math.ceil((math.sqrt(d) + math.sqrt(2 * math.log(2 / delta))) ** 2 / epsilon**2)


def choose_sketch(
    A: Any,
    sketch_size: int | None = None,
    *,
    epsilon: float | None = None,
    delta: float = 0.01,
    kind: str = "auto",
    axis: int = 0,
    rng: Any = None,
) -> SketchChoice:
    """Return the operator that `sketch` would apply with these arguments, and the reason for it.

    Parameters
    ----------
    A : array or CSR or CSC matrix, shape (m, n)
        Only its shape and kind are looked at.
    sketch_size, epsilon, delta, kind, axis, rng
        As for `sketch`.

    Returns
    -------
    SketchChoice
        ``operator`` and ``reason``; unpacks as a pair.

    Raises
    ------
    ValueError, TypeError
        As `sketch`.

    Notes
    -----
    "auto" takes a Gaussian where the dense product costs less than 1e8 flops, and else a sparse sign sketch with 8
    nonzeros to a column, which has the same distortion, also on coherent data, and costs one read of the data.

    Examples
    --------
    >>> import numpy as np, randla
    >>> operator, reason = randla.choose_sketch(np.ones((100_000, 50)), rng=0)
    >>> type(operator).__name__
    'SparseSign'
    """
    A = as_matrix(A, name="A")
    kind = check_choice(kind, "kind", ("auto", *KINDS))
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (compress rows) or 1 (compress columns), got {axis!r}")
    if sketch_size is not None and epsilon is not None:
        raise ValueError(f"sketch_size and epsilon must not both be given, got {sketch_size} and {epsilon}; drop one")
    n, d = A.shape[axis], A.shape[1 - axis]
    if sketch_size is None and epsilon is None and kind == "rows":
        raise ValueError('sketch_size must be given for kind "rows", got None')
    if sketch_size is None:
        size, told = _size_by_rule(kind, n, d, DEFAULT_EPSILON if epsilon is None else epsilon, delta)
    else:
        size = check_integer(sketch_size, "sketch_size", low=1)
        told = f"sketch_size {size} as given"
    if size >= n:
        told += f", no fewer than the {n} {'rows' if axis == 0 else 'columns'} of A"
    if kind != "auto":
        return SketchChoice(KINDS[kind](size, n, rng=rng), f"{kind} as asked, {told}")
    if not is_sparse(A) and 2.0 * size * n * d < SMALL_FLOPS:
        return SketchChoice(Gaussian(size, n, rng=rng), f"gaussian: its product costs next to nothing here, {told}")
    data = "sparse data" if is_sparse(A) else "large dense data"
    why = f"sparse-sign with 8 nonzeros to a column: Gaussian distortion for one read of {data}, {told}"
    return SketchChoice(SparseSign(size, n, rng=rng), why)


def _size_by_rule(kind: str, n: int, d: int, epsilon: float, delta: float) -> tuple[int, str]:
    """The size that `sketch_size_for` gives, in the limits of the operator, and the words for it."""
    size = sketch_size_for("gaussian" if kind == "auto" else kind, max(d, 1), epsilon=epsilon, delta=delta)
    # a transform with all its rows sampled is an isometry, better than any epsilon
    longest = {"srht": 1 << max(n - 1, 0).bit_length(), "srct": max(n, 1)}
    size = min(size, longest.get(kind, size))
    return size, f"sketch_size {size} for distortion {epsilon:g} of {d} dimensions"


def sketch(
    A: Any,
    sketch_size: int | None = None,
    *,
    epsilon: float | None = None,
    delta: float = 0.01,
    kind: str = "auto",
    axis: int = 0,
    rng: Any = None,
) -> Any:
    """Compress the rows (axis 0) or columns (axis 1) of a matrix: return S @ A or A @ S.T.

    Parameters
    ----------
    A : array or CSR or CSC matrix, shape (m, n)
        NumPy, CuPy; other array API libraries run untuned.  Any numeric dtype; read once, never changed.
    sketch_size : int, optional
        Rows of S.  Default: the size for `epsilon`.
    epsilon : float in (0, 1), optional
        Wanted distortion of the space that the columns (axis 0) or rows (axis 1) of A span, see `sketch_size_for`.
        Default 0.5, when sketch_size is not given: about 4 d rows.
    delta : float in (0, 1), default 0.01
        Probability that the distortion is larger.
    kind : str, default "auto"
        The operator: "gaussian", "rademacher", "sparse-jl", "sparse-sign", "countsketch", "less", "srht", "srct",
        "pooled" or "rows"; `choose_sketch` tells what "auto" takes and why.
    axis : {0, 1}, default 0
        The axis that is compressed.
    rng : None, int, SeedSequence, Generator or Key
        See :ref:`random`.  Equal keys give equal sketches on every backend, up to the rounding of sums.

    Returns
    -------
    array, shape (sketch_size, n) for axis 0, (m, sketch_size) for axis 1
        In the namespace and on the device of A.

    Raises
    ------
    ValueError
        If a size is out of range, both sketch_size and epsilon are given, or A is not 2-D.
    TypeError
        If A is not numeric.

    Examples
    --------
    >>> import numpy as np, randla
    >>> A = np.random.default_rng(0).standard_normal((20_000, 10))
    >>> B = randla.sketch(A, epsilon=0.3, rng=0)
    >>> ratio = np.linalg.svd(B, compute_uv=False) / np.linalg.svd(A, compute_uv=False)
    >>> bool(abs(ratio - 1).max() < 0.3)
    True
    """
    A = as_matrix(A, name="A")
    operator, _ = choose_sketch(A, sketch_size, epsilon=epsilon, delta=delta, kind=kind, axis=axis, rng=rng)
    return operator.matmul(A) if axis == 0 else operator.rmatmul(A)
