"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def is_special(path: Path) -> bool:
    """True for pipes and devices such as /dev/stdout, which are written to and never replaced."""
    return path.exists() and not path.is_file()


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(handle)`` on a temporary neighbour of `path`, then rename it: readers see the old file or the new.

    Raises
    ------
    OSError
        If the disk refuses; the old file is then untouched and the temporary one removed.
    """
    target = Path(os.path.realpath(path))
    if is_special(target):
        with target.open("wb") as handle:
            write(handle)
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
