"""Checks of scalar parameters, with one message grammar: "<name> must <requirement>, got <value>[; <remedy>]"."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any


def check_integer(value: Any, name: str, *, low: int, high: int | None = None, remedy: str = "") -> int:
    """`value` as a Python int in [low, high]."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    if number < low or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {bounds}, got {number}" + (f"; {remedy}" if remedy else ""))
    return number


def check_real(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, closed: str = "both", remedy: str = ""
) -> float:
    """`value` as a finite Python float between `low` and `high`; `closed` is "both", "left", "right" or "neither"."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}") from None
    above = number >= low if closed in ("both", "left") else number > low
    below = number <= high if closed in ("both", "right") else number < high
    if not (above and below and math.isfinite(number)):
        left, right = "[" if closed in ("both", "left") else "(", "]" if closed in ("both", "right") else ")"
        raise ValueError(
            f"{name} must be finite and in {left}{low:g}, {high:g}{right}, got {number!r}"
            + (f"; {remedy}" if remedy else "")
        )
    return number


def check_choice(value: Any, name: str, options: Collection[str]) -> str:
    """`value` if it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    return value
