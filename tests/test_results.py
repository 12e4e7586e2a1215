"""Results: iteration over the factors, one-line repr, statuses with advice, warnings and errors."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar

import array_api_strict
import numpy as np
import pytest

from randla import ConvergenceError, ConvergenceWarning, Status
from randla._results import Result, warn_or_raise

#: Statuses of results that reached what was asked for.
REACHED = (Status.CONVERGED, Status.RANK_DEFICIENT)


@dataclasses.dataclass(frozen=True, repr=False)
class Pair(Result):
    """A result of a family of its own."""

    _factors: ClassVar[tuple[str, ...]] = ("left", "right")

    left: Any
    right: Any
    error: float = 0.125
    history: tuple[float, ...] = (1.0, 0.5)
    status: Status = Status.CONVERGED
    mean: Any = None


def pair(status: Status = Status.CONVERGED) -> Pair:
    return Pair(np.ones((3, 2)), np.ones(2, np.float32), status=status)


def test_iterates_over_the_factors_only() -> None:
    result = pair()
    left, right = result
    assert left is result.left
    assert right is result.right


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair().error = 0.0


def test_repr_is_one_line() -> None:
    expected = (
        "Pair(left: numpy float64 (3, 2), right: numpy float32 (2,), error=0.125, status=Status.CONVERGED, mean=None)"
    )
    assert repr(pair()) == expected
    strict = array_api_strict.asarray([1.0], device=array_api_strict.Device("device1"))
    assert repr(Pair(strict, None)).startswith("Pair(left: array_api_strict ")


@pytest.mark.parametrize("status", Status)
def test_every_status_has_advice(status: Status) -> None:
    assert len(status.advice.split()) > 5
    assert "\n" not in status.advice
    assert repr(status) == f"Status.{status.name}"
    assert pair(status).converged == (status in REACHED)
    if status is not Status.CONVERGED:
        assert any(verb in status.advice for verb in ("raise", "loosen", "check", "change", "pass", "drop"))


def test_statuses() -> None:
    names = {"CONVERGED", "RANK_DEFICIENT", "MAX_ITER", "STAGNATED", "BREAKDOWN", "NONFINITE"}
    assert {status.name for status in Status} == names


@pytest.mark.parametrize("on_failure", ["warn", "raise", "ignore"])
@pytest.mark.parametrize("status", REACHED)
def test_success_is_silent(on_failure: str, status: Status) -> None:
    result = pair(status)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_or_raise(result, on_failure, what="svd") is result


@pytest.mark.parametrize("status", [status for status in Status if status not in REACHED])
def test_failures(status: Status) -> None:
    result = pair(status)
    text = f"svd ended with Status.{status.name}: {status.advice}"
    assert warn_or_raise(result, "ignore", what="svd") is result
    with pytest.raises(ConvergenceError) as raised:
        warn_or_raise(result, "raise", what="svd")
    assert str(raised.value) == text
    assert raised.value.result is result
    with pytest.warns(ConvergenceWarning) as caught:
        assert warn_or_raise(result, "warn", what="svd") is result
    assert [str(warning.message) for warning in caught] == [text]


def test_warning_names_the_line_of_the_user() -> None:
    def public(on_failure: str) -> Pair:
        return warn_or_raise(pair(Status.MAX_ITER), on_failure, what="svd")

    with pytest.warns(ConvergenceWarning) as caught:
        public("warn")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("status", [Status.CONVERGED, Status.STAGNATED])
def test_unknown_on_failure_is_refused_even_on_success(status: Status) -> None:
    with pytest.raises(ValueError, match=r'^on_failure must be "warn", "raise" or "ignore", got \'warning\'$'):
        warn_or_raise(pair(status), "warning", what="svd")


def test_kinds_of_warning_and_error() -> None:
    assert issubclass(ConvergenceWarning, RuntimeWarning)
    assert issubclass(ConvergenceError, RuntimeError)
