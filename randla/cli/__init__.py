"""The command line: `randla tour | svd | sketch | lstsq | complete | nmf | transport | info`.

Exit codes: 0 done; 1 ran, but missed the tolerance or failed at run time; 2 the user's mistake (arguments, files);
130 interrupted.  Errors are one line on stderr.  A command is a module with one `COMMAND`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from . import complete, info, lstsq, nmf, sketch, svd, tour, transport
from ._shared import DONE, FAILED, INTERRUPTED, MISTAKE, Mistake, say
from .info import system_facts

__all__ = ["COMMANDS", "DONE", "FAILED", "INTERRUPTED", "MISTAKE", "main", "system_facts"]

COMMANDS = (
    tour.COMMAND, svd.COMMAND, sketch.COMMAND, lstsq.COMMAND, complete.COMMAND, nmf.COMMAND, transport.COMMAND,
    info.COMMAND,
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise Mistake(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (by default the process's own arguments) and return the exit code."""
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help and --version
        return DONE if leaving.code is None else int(leaving.code)
    except KeyboardInterrupt:
        return say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has left; a second flush at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError as error:
        return say(f"not enough memory: {error or 'try --memory with a smaller budget, or a smaller rank'}", FAILED)
    except (Mistake, ValueError, TypeError, NotImplementedError) as error:
        if os.environ.get("RANDLA_TRACEBACK"):
            raise
        return say(str(error), MISTAKE)
    except Exception as error:
        if os.environ.get("RANDLA_TRACEBACK"):
            raise
        return say(f"{type(error).__name__}: {error} (set RANDLA_TRACEBACK=1 to see where)", FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="randla", description="Randomized linear algebra that says how wrong it is.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"randla {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser
