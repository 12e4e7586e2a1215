"""What every result shares: a status with advice, iteration over the factors, a one-line repr."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from typing import Any, ClassVar

from array_api_compat import array_namespace, is_array_api_obj

from ._arrays import is_sparse


class ConvergenceWarning(RuntimeWarning):
    """A result did not reach what was asked for; its `status` says why and what to change."""


class ConvergenceError(RuntimeError):
    """Raised in place of the warning with ``on_failure="raise"``; the attribute `result` holds the last good state."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class Status(Enum):
    """How a computation ended; `advice` names the knob to turn."""

    CONVERGED = "the tolerance was reached, or none was asked for"
    RANK_DEFICIENT = "converged to the solution of least norm of a rank-deficient problem: drop columns, or set damp"
    MAX_ITER = "the iteration or rank limit came before the tolerance: raise max_iter or max_rank, or loosen tol"
    STAGNATED = "the error stopped falling at the rounding floor: loosen tol, or pass float64 data"
    BREAKDOWN = "the approximation is worthless or a factorisation broke down: allow more passes, or change method"
    NONFINITE = "NaN or infinity appeared: check the input for non-finite entries and for overflow"

    @property
    def advice(self) -> str:
        """One sentence: what happened and what to change."""
        return self.value

    def __repr__(self) -> str:
        return f"Status.{self.name}"


class Result:
    """Base of the frozen result dataclasses: iterates over its factors only, so new diagnostics break no caller."""

    _factors: ClassVar[tuple[str, ...]] = ()
    status: Status

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._factors)

    @property
    def converged(self) -> bool:
        """True when the status is CONVERGED, or RANK_DEFICIENT, which is told of a converged result."""
        return self.status in (Status.CONVERGED, Status.RANK_DEFICIENT)

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if is_sparse(value):
                parts.append(f"{field.name}: {value.format} {value.dtype} {tuple(value.shape)}, {value.nnz} stored")
            elif is_array_api_obj(value):
                xp = array_namespace(value).__name__.rsplit(".", 1)[-1]
                parts.append(f"{field.name}: {xp} {value.dtype} {tuple(value.shape)}")
            elif isinstance(value, float):
                parts.append(f"{field.name}={value:.3g}")
            elif not isinstance(value, tuple):
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


@contextmanager
def interrupted_with(result: Callable[[], Any]) -> Iterator[None]:
    """Let a Ctrl-C inside the block carry the last good state, which `result` returns, as its attribute `result`."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.result = result()  # type: ignore[attr-defined]  # exceptions take attributes that no stub knows
        raise


def warn_or_raise(result: Any, on_failure: str, *, what: str) -> Any:
    """Return `result`; warn or raise first when it did not converge and `on_failure` says so."""
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(f'on_failure must be "warn", "raise" or "ignore", got {on_failure!r}')
    if not result.converged and on_failure != "ignore":
        message = f"{what} ended with {result.status!r}: {result.status.advice}"
        if on_failure == "raise":
            raise ConvergenceError(message, result)
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return result
