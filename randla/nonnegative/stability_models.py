"""What the selection of a rank asks of a factorisation: columns to cluster, and the rest for given columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from .._checks import check_choice
from .._random import Key
from ._matrices import as_nonnegative
from ._stacks import Intake
from .encoding import nonneg_codes
from .frobenius import Penalties
from .masked import MaskedProblem, masked_nmf, observed_entries
from .rescal import fitted_core, rescal_nmf
from .simplex import nonneg_lstsq
from .solvers import nmf
from .symmetric import symmetric_nmf

MODELS = ("nmf", "rescal", "symmetric")


def model_of(model: Any, absent: str | None, options: dict[str, Any]) -> Any:
    """The model of a name or a callable."""
    if callable(model):
        if absent is not None:
            raise ValueError(f"absent must be None for a callable model, got {absent!r}; the model knows its data")
        return _Callable(model, options)
    check_choice(model, "model", MODELS)
    if model == "symmetric" and absent is not None:
        raise ValueError(f'absent must be None for model="symmetric", got {absent!r}; it needs all entries')
    return {"nmf": _NMF, "rescal": _Rescal, "symmetric": _Symmetric}[model](absent, options)


@dataclass(frozen=True)
class _NMF:
    """W of X ~ W H is clustered."""

    absent: str | None
    options: dict[str, Any]
    name: str = "nmf"

    def fit(self, X: Any, rank: int, key: Key) -> tuple[Any, float]:
        if self.absent == "missing":
            found: Any = masked_nmf(X, rank, absent="missing", rng=key, on_failure="ignore", **self.options)
            return found.W, self._masked_error(X, found.W, found.H)
        found = nmf(X, rank, rng=key, on_failure="ignore", **{"init": "random", **self.options})
        return found.W, found.error

    def complete(self, X: Any, W: Any) -> tuple[Any, float]:
        xp = array_namespace(W)
        if self.absent == "missing":
            observed = observed_entries(X, "missing")
            W = xp.astype(W, observed.data.dtype)
            H = nonneg_codes(X.T, xp.asarray(W.T, copy=True), absent="missing").T
            return xp.asarray(H, copy=True), self._masked_error(X, W, H)
        data = as_nonnegative(X)
        W = xp.astype(W, data.dtype)
        loss = self.options.get("loss", "frobenius")
        H = xp.asarray(nonneg_codes(data.source.T, xp.asarray(W.T, copy=True), loss=loss).T, copy=True)
        squares = data.residual_squares(xp.asarray(W.T, copy=True), H)
        return H, math.sqrt(squares / data.squared_norm) if data.squared_norm > 0 else 0.0

    def _masked_error(self, X: Any, W: Any, H: Any) -> float:
        observed = observed_entries(X, "missing")
        problem, xp = MaskedProblem(observed, None, (None, None), None, Penalties()), observed.xp
        V = xp.asarray(H.T, copy=True)
        wide = xp.astype(observed.data, xp.float64)
        whole = float(xp.sum(wide * wide))
        return math.sqrt(2 * problem.objective(W, V) / whole) if whole > 0 else 0.0


@dataclass(frozen=True)
class _Rescal:
    """A of X_t ~ A R_t A.T is clustered."""

    absent: str | None
    options: dict[str, Any]
    name: str = "rescal"

    def fit(self, X: Any, rank: int, key: Key) -> tuple[Any, float]:
        found = rescal_nmf(X, rank, absent=self.absent, rng=key, on_failure="ignore", **self.options)
        return found.A, found.error

    def complete(self, X: Any, A: Any) -> tuple[Any, float]:
        return fitted_core(Intake(X, self.absent, bool(self.options.get("scale_slices", False))), A)


@dataclass(frozen=True)
class _Symmetric:
    """H of A ~ H H.T is clustered; its columns get weights of their own."""

    absent: None
    options: dict[str, Any]
    name: str = "symmetric"

    def fit(self, X: Any, rank: int, key: Key) -> tuple[Any, float]:
        found = symmetric_nmf(X, rank, rng=key, on_failure="ignore", **self.options)
        return found.H, found.error

    def complete(self, X: Any, H: Any) -> tuple[Any, float]:
        """Weights d >= 0 of least ``||X - H diag(d) H.T||``, whose normal equations have ``(H.T H)**2``."""
        xp = array_namespace(H)
        wide = xp.astype(H, xp.float64)
        G = xp.matmul(wide.T, wide)
        product = X @ wide if hasattr(X, "tocsr") else xp.matmul(xp.astype(X, xp.float64), wide)
        right = xp.sum(wide * product, axis=0)
        values = X.data if hasattr(X, "tocsr") else X
        whole = float(xp.sum(xp.astype(values, xp.float64) ** 2))
        if not whole > 0:
            return xp.zeros_like(right), 0.0
        weights = nonneg_lstsq(G * G, right[:, None])[:, 0]
        squares = whole - 2 * float(xp.sum(weights * right)) + float(weights @ (G * G) @ weights)
        return weights, math.sqrt(max(squares, 0.0) / whole)


@dataclass(frozen=True)
class _Callable:
    """A function of the caller's; nothing is known of the rest of its factorisation."""

    function: Callable[..., Any]
    options: dict[str, Any]
    name: str = "callable"

    def fit(self, X: Any, rank: int, key: Key) -> tuple[Any, float]:
        found = self.function(X, rank, rng=key, **self.options)
        if hasattr(found, "shape") and hasattr(found, "ndim"):
            return found, math.nan
        return next(iter(found)), float(getattr(found, "error", math.nan))

    def complete(self, X: Any, F: Any) -> tuple[Any, None]:  # noqa: ARG002
        return None, None
