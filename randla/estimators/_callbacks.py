"""From the callbacks of randla's functions to scikit-learn's tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


class Steps:
    """Translate the calls that a function makes after each iteration into scikit-learn's tasks.

    A task begins when the one before it ends.  The one that is open when the function returns did no work and is closed
    empty, so that every begin has an end.
    """

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self.stopped = False
        self._known = {"estimator": estimator, "X": X, "y": y}
        self._context = estimator._init_callback_context(max_subtasks=None).call_on_fit_task_begin(**self._known)
        self._begin()

    def _begin(self) -> None:
        self._step = self._context.subcontext(task_name="iteration").call_on_fit_task_begin(**self._known)

    def __call__(self, step: Any) -> bool:
        self.stopped = self._step.call_on_fit_task_end(**self._known, metadata=_fields(step))
        self._begin()
        return self.stopped

    def close(self, fitted: Any) -> None:
        """End the fit; `fitted` is, or returns, the attributes that make an estimator ready to use."""
        self._step.call_on_fit_task_end(estimator=self._known["estimator"])
        self._context.call_on_fit_task_end(**self._known, reconstruction_attributes=fitted)


def _fields(step: Any) -> dict[str, Any]:
    """The fields of a step, which is a dataclass or a named tuple."""
    return dict(step._asdict() if hasattr(step, "_asdict") else asdict(step))
