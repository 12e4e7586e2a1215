"""`randla tour`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._shared import Command


def _configure_tour(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", default="randla-tour", help="folder of the report (default randla-tour)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller parts of the same data: a minute or two")
    parser.add_argument("--job", action="append", metavar="NAME", help="run this job only; may be given several times")


def _run_tour(args: argparse.Namespace) -> int:
    from ..tour import run_tour

    return run_tour(Path(args.out), quick=args.quick, only=args.job)


COMMAND = Command(
    "tour", "Run randla beside the customary methods on real data and write a report.", _configure_tour, _run_tour
)
