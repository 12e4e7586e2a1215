"""`randla svd`."""

from __future__ import annotations

import argparse
import time

from ._shared import (
    DONE,
    FAILED,
    Command,
    Mistake,
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


def _configure_svd(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--rank", type=count, metavar="K", help="number of singular triplets")
    goal.add_argument("--tol", type=fraction, metavar="T", help="find the rank whose error is at most T times the norm")
    parser.add_argument(
        "--norm", choices=("frobenius", "spectral"), default="frobenius", help="norm of --tol and the error"
    )
    parser.add_argument("--max-rank", type=count, metavar="K", help="with --tol: stop at this rank")
    parser.add_argument("--center", action="store_true", help="subtract the column means (PCA); nothing is densified")
    parser.add_argument("--passes", type=count, metavar="N", help="read the data at most N times; 1 for a single view")
    add_file_options(parser, out="write U, s, Vh (and the mean with --center) to this .npz file")


def _run_svd(args: argparse.Namespace) -> int:
    check_outputs(args, (".npz",))
    if args.max_rank is not None and args.tol is None:
        raise Mistake("--max-rank must go with --tol, got --rank; drop one of them")
    A, facts = load(args)
    import randla

    began = time.perf_counter()
    with limited(args.threads):
        result = randla.svd(
            A, args.rank, tol=args.tol, norm=args.norm, max_rank=args.max_rank, center=args.center,
            n_passes=args.passes, rng=args.rng, on_failure="ignore",
        )  # fmt: skip
    seconds = time.perf_counter() - began
    report = {
        "command": "svd",
        **facts,
        "tol": args.tol,
        "center": args.center,
        **{name: getattr(result, name) for name in ("rank", "error", "error_bound", "confidence", "error_kind")},
        **{name: getattr(result, name) for name in ("error_norm", "norm", "n_passes", "n_matvecs", "n_iter")},
        "status": result.status.name,
        "advice": result.status.advice,
        "singular_values": [float(value) for value in result.s],
        "seconds": seconds,
    }
    arrays = {"U": result.U, "s": result.s, "Vh": result.Vh}
    if args.center:
        arrays["mean"] = result.mean
    leading = ", ".join(f"{float(value):.5g}" for value in result.s[:6]) + (", ..." if result.rank > 6 else "")
    bound = f" (at most {result.error_bound:.3g} with probability {result.confidence:g})" if result.error_bound else ""
    finish(args, report, arrays, [
        describe(facts),
        f"rank     {result.rank}",
        f"values   {leading}",
        f"error    {result.error:.3g} of the {result.error_norm} norm, estimated{bound}",
        f"cost     {seconds:.2f} s, {result.n_passes} passes over the data, seed {args.rng}",
        f"status   {result.status.name.lower()}",
    ])  # fmt: skip
    if not result.converged:
        return say(f"svd ended with {result.status.name}: {result.status.advice}", FAILED)
    return DONE


COMMAND = Command("svd", "Truncated SVD or PCA of a matrix in a file.", _configure_svd, _run_svd)
