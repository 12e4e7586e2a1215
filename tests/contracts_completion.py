"""The lines of the contract table on completion: systems of rows observed in part, their predictions, best columns.

Rows have no entry, one, few and several tiles of them.  Errors are bounded by what a system says of itself: with
M = base + sum of w_p v_p v_p.T + ridge I and the size |M| of its terms, both twins solve a system that differs from M
by about eps |M| with a right-hand side off by about eps times the size of its terms; ||M^-1|| carries that over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .contracts import KEY, Contract, _panel

EPS = 2.0**-52


class Case(NamedTuple):
    """What a line varies: columns, dtypes of numbers and indices, weights, whether there is a base, rows' lengths."""

    k: int
    dtype: str
    index: str
    weights: str  # "none", "positive" or "signed", which needs a base
    based: bool
    lengths: tuple[int, ...] = (0, 1, 150, 3, 30, 9)
    layout: str = "C"

    @property
    def id(self) -> str:
        """Every field, for the name of a line."""
        based = "base" if self.based else "plain"
        longest = f"{len(self.lengths)}x{max(self.lengths, default=0)}"
        return f"{self.k}-{longest}-{self.dtype}-{self.index}-{self.weights}-{based}-{self.layout}"


CASES = (
    Case(8, "float64", "int64", "signed", True, layout="F"),
    Case(17, "float32", "int32", "none", False, layout="S"),
    Case(40, "float64", "int32", "positive", False, (2, 70, 0)),
    Case(5, "float32", "int64", "positive", True),
    Case(1, "float64", "int32", "none", False),
    Case(4, "float64", "int64", "none", False, (6,)),
    Case(3, "float32", "int32", "positive", True, (0, 0)),
    Case(2, "float64", "int32", "none", False, ()),
    Case(0, "float64", "int32", "none", False, (3, 0)),
)
#: From about 90 columns on, matrices lie outside of the shared memory of a block.
TALL = Case(100, "float64", "int32", "none", False, (20,))


class Parts(NamedTuple):
    """The arguments that the kernels share."""

    V: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    weights: np.ndarray | None
    targets: np.ndarray
    base: np.ndarray | None
    ridge: np.ndarray


def parts(case: Case) -> Parts:
    """Rows of normal deviates on distinct columns; a third of them have targets of zero."""
    rng, (m, n, k) = np.random.default_rng(16), (len(case.lengths), 160, case.k)
    V = _panel(rng, (n, k), case.dtype, case.layout)
    columns = [rng.permutation(n)[:length] for length in case.lengths]
    indices = np.concatenate([*columns, np.zeros(0, int)]).astype(case.index)
    indptr = np.concatenate([[0], np.cumsum(case.lengths)]).astype(case.index)
    weights = {"none": None, "positive": rng.random(indices.size) + 0.1, "signed": rng.random(indices.size) - 0.1}
    chosen = weights[case.weights]
    targets = rng.standard_normal(indices.size) * np.repeat(np.arange(m) % 3 < 2, case.lengths)
    B = rng.standard_normal((k, k + 3))
    base = B @ B.T + 20 * np.eye(k) if case.based else None
    ridge = 0.5 + rng.random(m)
    return Parts(
        V,
        indices,
        indptr,
        None if chosen is None else chosen.astype(case.dtype),
        targets.astype(case.dtype),
        base,
        ridge,
    )


# --- how exact a row is -----------------------------------------------------------------------------------------------


def _weighted(p: Parts) -> Parts:
    """The arguments with the targets of `masked_qr` times the weights, as all others take them."""
    return p if p.weights is None else p._replace(targets=p.weights * p.targets)


def _row(p: Parts, i: int) -> tuple[np.ndarray, float, np.ndarray, float]:
    """M and the size of its terms, b and the size of its terms."""
    entries = slice(int(p.indptr[i]), int(p.indptr[i + 1]))
    D, t = p.V[p.indices[entries]].astype(float), p.targets[entries].astype(float)
    w = np.ones(len(D)) if p.weights is None else p.weights[entries].astype(float)
    base = np.zeros((D.shape[1], D.shape[1])) if p.base is None else p.base
    lengths = np.linalg.norm(D, axis=1)
    size = float(np.sum(np.abs(w) * lengths**2) + np.linalg.norm(base) + p.ridge[i])
    M = D.T @ (w[:, None] * D) + base + p.ridge[i] * np.eye(D.shape[1])
    return M, size, D.T @ t, float(np.sum(np.abs(t) * lengths))


def _regular(M: np.ndarray) -> bool:
    return len(M) > 0 and np.linalg.cond(M) < 1 / (len(M) * EPS)


def _sizes(p: Parts, least: np.ndarray | None = None) -> tuple[int, float, float, float]:
    """Terms of a sum, and the largest of ||M^-1|| |M|, of the error of x in units of eps, and of x.

    `least` bounds eigenvalues from below, for systems that are solved with something else than M.
    """
    worst = error = largest = 0.0
    for i in range(len(p.indptr) - 1):
        M, size, b, b_size = _row(p, i)
        if _regular(M):
            x = np.linalg.norm(np.linalg.solve(M, b))
            inverse = np.linalg.norm(np.linalg.inv(M), 2) if least is None else 1 / least[i]
            worst = max(worst, size * inverse)
            error, largest = max(error, inverse * (size * x + b_size)), max(largest, x)
    return p.V.shape[1] + int(np.max(np.diff(p.indptr), initial=0)), worst, error, largest


def _relative(p: Parts) -> float:
    """Of the unit of double precision, in which systems are solved, to that of the result."""
    return EPS / float(np.finfo(p.V.dtype).eps)


def _direct_scale(*arguments: Any) -> tuple[int, tuple[float, ...]]:
    p = Parts(*arguments)
    terms, worst, error, largest = _sizes(p)
    return terms, (largest + _relative(p) * error, _relative(p) * worst)


def _qr_scale(V: Any, indices: Any, indptr: Any, weights: Any, values: Any, ridge: Any) -> tuple:
    return _direct_scale(*_weighted(Parts(V, indices, indptr, weights, values, None, ridge)))


def _variance_scale(*arguments: Any) -> tuple[int, float]:
    *shared, ridge, _, U = arguments
    p = Parts(*shared[:4], np.zeros(len(shared[1])), shared[4], ridge)
    terms, worst, _, _ = _sizes(p)
    largest = [np.linalg.norm(np.linalg.inv(M), 2) for M in (_row(p, i)[0] for i in range(len(ridge))) if _regular(M)]
    return terms, worst * max(largest, default=0.0) * float(np.max(np.sum(U.astype(float) ** 2, axis=1), initial=0.0))


def _iterative(
    p: Parts, X0: np.ndarray, max_iter: int, least: np.ndarray | None, unit: float
) -> tuple[int, tuple[float, ...]]:
    """Steps are off by eps ||M^-1|| |M| of their lengths, one after the other; a start far away makes long ones.

    `unit` is eps of the iterations relative to that of the result.
    """
    terms, worst, error, largest = _sizes(p, least)
    start = float(np.max(np.linalg.norm(X0.astype(float), axis=1), initial=0.0))
    exact = unit * (1 + max_iter)
    residual = 1 + start / largest if largest > 0 else 0.0
    return terms, (largest + start + exact * (error + worst * start), 0.0, exact * worst * residual)


def _cg_scale(*arguments: Any) -> tuple[int, tuple[float, ...]]:
    return _iterative(Parts(*arguments[:7]), arguments[-3], arguments[-1], None, 1.0)  # in the dtype of V or better


def _sketched_scale(*arguments: Any) -> tuple[int, tuple[float, ...]]:
    _, V, indices, indptr, weights, targets, ridge, X0, _, _, _, max_iter = arguments
    p = Parts(V, indices, indptr, weights, targets, None, ridge)
    return _iterative(p, X0, max_iter, ridge, _relative(p))


# --- the lines --------------------------------------------------------------------------------------------------------


def completion_contracts() -> Iterator[Contract]:
    """All lines on completion."""
    return itertools.chain(
        _cholesky_contracts(), _qr_contracts(), _cg_contracts(), _sketched_contracts(), _prediction_contracts(),
        _top_contracts(),
    )  # fmt: skip


def _cholesky_contracts() -> Iterator[Contract]:
    for name in ("deficient", "nothing"):
        yield Contract("masked_cholesky", name, lambda n=name: tuple(_deficient(n)), None, "rounding", _direct_scale)
    for case in (*CASES, TALL):
        yield Contract("masked_cholesky", case.id, lambda c=case: tuple(parts(c)), None, "rounding", _direct_scale)


def _deficient(name: str) -> Parts:
    """Ridges of zero: rows of unit vectors, one vector again and again, all of them, and none; or nothing but zeros."""
    p = parts(Case(8, "float64", "int32", "none", False, (3, 2, 8, 0, 1)))
    V = np.zeros_like(p.V)
    V[:8], V[8:] = np.eye(8), [1, 2, -1, 0.5, 4, -2, 1, 0.25]
    indices = np.array([0, 3, 5, 9, 10, *range(8), 11], np.int32)
    ridge = np.array([0.0, 0.0, 0.0, 0.0, 0.5])
    return p._replace(V=np.zeros_like(V) if name == "nothing" else V, indices=indices, ridge=ridge)


def _qr_contracts() -> Iterator[Contract]:
    def build(p: Parts) -> tuple[Any, ...]:
        return p.V, p.indices, p.indptr, p.weights, p.targets, p.ridge

    for case in CASES:
        if case.weights != "signed":
            plain = case._replace(based=False)
            yield Contract("masked_qr", plain.id, lambda c=plain: build(parts(c)), None, "rounding", _qr_scale)
    for name in ("deficient", "nothing"):
        yield Contract("masked_qr", name, lambda n=name: build(_deficient(n)), None, "rounding", _qr_scale)


def _start(p: Parts) -> np.ndarray:
    return np.random.default_rng(17).standard_normal((len(p.ridge), p.V.shape[1])).astype(p.V.dtype)


def _cg_contracts() -> Iterator[Contract]:
    """Steps of a fixed number, fewer than end an iteration; up to a tolerance; and none."""

    def build(case: Case, tol: float, max_iter: int) -> tuple[Any, ...]:
        p = parts(case)
        diagonal, scale = np.mean(p.V.astype(float) ** 2, axis=0), np.diff(p.indptr).astype(float)
        if case.based:
            diagonal[:1], p = 0.0, p._replace(ridge=0.0 * p.ridge)  # a preconditioner with a zero
        return *p, diagonal, scale, _start(p), tol, max_iter

    exact = CASES[1]._replace(dtype="float64")
    steps = [*((case, 0.0, min(3, case.k)) for case in CASES), (exact, 1e-3, 50), (exact, 0.0, 0)]
    for case, tol, max_iter in steps:
        name = f"{case.id}-{tol}-{max_iter}"
        yield Contract("masked_cg", name, lambda a=(case, tol, max_iter): build(*a), None, "rounding", _cg_scale)


def _sketched_contracts() -> Iterator[Contract]:
    def build(case: Case, sketch_size: int, nnz: int, tol: float, max_iter: int) -> tuple[Any, ...]:
        p = parts(case)
        return KEY, *p[:5], p.ridge, _start(p), sketch_size, nnz, tol, max_iter

    for case, sketch_size, nnz, tol, max_iter in (
        (CASES[2], 80, 4, 0.0, 2), (CASES[1], 70, 8, 0.0, 3), (CASES[1]._replace(dtype="float64"), 40, 2, 0.1, 50),
        (CASES[3], 15, 3, 0.0, 3), (CASES[4], 4, 1, 0.0, 1), (CASES[6], 9, 2, 0.0, 3), (CASES[7], 9, 2, 0.0, 3),
        (CASES[8], 9, 2, 0.0, 3),
    ):  # fmt: skip
        arguments = case._replace(based=False), sketch_size, nnz, tol, max_iter
        name = f"{case.id}-{sketch_size}-{nnz}-{tol}-{max_iter}"
        yield Contract("masked_sketched_cg", name, lambda a=arguments: build(*a), None, "rounding", _sketched_scale)


def _prediction_contracts() -> Iterator[Contract]:
    def products(case: Case) -> tuple[Any, ...]:
        p = parts(case)
        X = _panel(np.random.default_rng(18), (len(p.ridge), case.k), case.dtype, case.layout)
        return X, p.V, p.indices, p.indptr

    def variances(p: Parts) -> tuple[Any, ...]:
        rng, (m, k) = np.random.default_rng(19), (len(p.ridge), p.V.shape[1])
        U = rng.standard_normal((2 * m + 1 if m else 0, k)).astype(p.V.dtype)
        U[1:2] = 0
        return *p[:4], p.base, p.ridge, rng.integers(0, max(1, m), len(U)), U

    inputs = [(name, lambda n=name: _deficient(n)) for name in ("deficient", "nothing")]
    for case, build in [*inputs, *((case.id, lambda c=case: parts(c)) for case in CASES)]:
        yield Contract("masked_variances", case, lambda b=build: variances(b()), None, "rounding", _variance_scale)
    for case in CASES:
        yield Contract("sampled_products", case.id, lambda c=case: products(c), None, "rounding", _product_scale)


def _product_scale(X: np.ndarray, Y: np.ndarray, *_: np.ndarray) -> tuple[int, float]:
    lengths = [float(np.max(np.linalg.norm(Z.astype(float), axis=1), initial=0.0)) for Z in (X, Y)]
    return X.shape[1], lengths[0] * lengths[1]


def _top_contracts() -> Iterator[Contract]:
    """Ties, NaN and infinities; rows of which all is seen; fewer columns than asked for; columns to several threads."""
    for (b, n, k), dtype, index in (
        ((6, 40, 5), "float64", "int32"), ((6, 40, 5), "float32", "int64"), ((3, 5000, 9), "float32", "int32"),
        ((4, 3, 7), "float64", "int64"), ((2, 0, 3), "float64", "int32"), ((0, 5, 2), "float32", "int32"),
        ((3, 5, 0), "float64", "int32"),
    ):  # fmt: skip

        def build(shape=(b, n), k=k, dtype=dtype, index=index):
            rng = np.random.default_rng(20)
            scores = np.round(rng.standard_normal(shape), 1).astype(dtype)
            flat = scores.reshape(-1)
            flat[1::11], flat[3::7], flat[5::9] = np.inf, np.nan, -np.inf
            lengths = np.minimum([shape[1], 0, *rng.integers(0, 9, 8)][: shape[0]], shape[1]).astype(int)
            seen = np.concatenate([*(rng.permutation(shape[1])[:length] for length in lengths), np.zeros(0, int)])
            return scores, k, seen.astype(index), np.concatenate([[0], np.cumsum(lengths)]).astype(index)

        yield Contract("top_columns", f"{b}x{n}-{k}-{dtype}-{index}", build, None, "bitwise")
