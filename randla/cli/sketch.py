"""`randla sketch`."""

from __future__ import annotations

import argparse
import time

from ._shared import (
    DONE,
    Command,
    add_file_options,
    check_outputs,
    count,
    describe,
    finish,
    fraction,
    limited,
    load,
    say,
)

_KINDS = (
    "auto", "gaussian", "rademacher", "sparse-jl", "sparse-sign", "countsketch", "less", "srht", "srct", "pooled",
    "rows",
)  # fmt: skip


def _configure_sketch(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--size", type=count, metavar="D", help="rows (columns with --axis 1) of the sketch")
    size.add_argument(
        "--epsilon", type=fraction, metavar="E", help="choose the size for this distortion of the subspace"
    )
    parser.add_argument(
        "--kind", choices=_KINDS, default="auto", help="which operator (default: auto, with its reason)"
    )
    parser.add_argument("--axis", type=int, choices=(0, 1), default=0, help="0 compresses rows, 1 columns (default 0)")
    add_file_options(parser, out="write the sketch to this .npy or .npz file")


def _run_sketch(args: argparse.Namespace) -> int:
    check_outputs(args, (".npy", ".npz"))
    A, facts = load(args)
    import numpy as np

    from ..files import sketch_blocks
    from ..operators import choose_sketch

    began = time.perf_counter()
    with limited(args.threads):
        # the choice looks at shape and kind only; a stream is shown to it as zeros without storage
        outline = np.broadcast_to(np.zeros((), A.dtype), A.shape) if facts["storage"] == "stream" else A
        S, reason = choose_sketch(
            outline, args.size, epsilon=args.epsilon, kind=args.kind, axis=args.axis, rng=args.rng
        )
        if facts["storage"] == "stream":
            SA = sketch_blocks(S, A, axis=args.axis)
        else:
            SA = S @ A if args.axis == 0 else A @ S.T
    seconds = time.perf_counter() - began
    finite = bool(np.isfinite(SA).all())
    report = {
        "command": "sketch",
        **facts,
        "axis": args.axis,
        "operator": repr(S),
        "reason": reason,
        "sketch_shape": list(SA.shape),
        "finite": finite,
        "seconds": seconds,
    }
    finish(args, report, {"sketch": SA}, [
        describe(facts),
        f"operator {S!r}",
        f"reason   {reason}",
        f"sketch   {SA.shape[0]:,} x {SA.shape[1]:,} {SA.dtype}",
        f"cost     {seconds:.2f} s, seed {args.rng}",
    ])  # fmt: skip
    return DONE if finite else say("note: the sketch holds NaN or infinity, because the data do", DONE)


COMMAND = Command("sketch", "Compress the rows or columns of a matrix in a file.", _configure_sketch, _run_sketch)
