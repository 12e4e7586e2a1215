"""How long until the first result?  Processor time in fresh processes."""

from __future__ import annotations

import tempfile

from .jobs import FIRST_CALLS, IMPORTS, first_call, imported


class Start:
    """Imports: what each costs beyond the bare interpreter."""

    params = (list(IMPORTS),)
    param_names = ("code",)

    def track_import_ms(self, code: str) -> float:
        return 1e3 * (min(imported(IMPORTS[code]) for _ in range(5)) - min(imported("pass") for _ in range(5)))

    track_import_ms.unit = "ms"


class FirstCall:
    """The first call of a kernel, compiled in this process or read from the cache."""

    params = (list(FIRST_CALLS), ["cold", "cached"])
    param_names = ("kernel", "state")
    timeout = 300

    def track_first_call_ms(self, kernel: str, state: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            times = [first_call(kernel, folder) for _ in range(1 if state == "cold" else 4)]
        return 1e3 * min(times)

    track_first_call_ms.unit = "ms"
