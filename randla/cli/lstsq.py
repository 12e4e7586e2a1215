"""`randla lstsq`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    penalty,
    say,
)

_METHODS = ("auto", "direct", "precondition", "sketch", "lsmr")


def _configure_lstsq(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", metavar="COLUMN|FILE", required=True,
        help="what to fit: a column of FILE by name or number (0 is the first, -1 the last), or a file of its own",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="WEIGHTS", help="file with a weight >= 0 for each row")
    parser.add_argument("--alpha", type=penalty, default=0.0, metavar="A", help="ridge penalty (default 0)")
    parser.add_argument("--no-intercept", action="store_true", help="fit no constant term")
    parser.add_argument("--method", choices=_METHODS, default="auto", help="which method (default: auto, said why)")
    parser.add_argument("--tol", type=fraction, metavar="T", help="stop at this relative error of the fitted values")
    parser.add_argument("--size", type=count, metavar="D", help="rows of the sketch (default: chosen)")
    add_file_options(parser, out="write coef and intercept to this .npz file")


def _target(args: argparse.Namespace, A: Any) -> tuple[Any, Any, str, list[str] | None]:
    """(A without the target, target, its description, names of the columns that are left)."""
    from ..files import column_names, find_column, take_column

    names, n = column_names(args.file, header=args.header), A.shape[1]
    index = find_column(args.target, names, n)
    if index is None and not (Path(args.target).suffix or Path(args.target).exists()):
        known = f"one of {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "a number"
        raise Mistake(f"--target must be {known}, or a file, got {args.target!r}")
    if index is None:
        b = _beside(args, "target")
        return A, b, f"{args.target}, {b.shape[1]} column{'s' * (b.shape[1] > 1)}", names
    if n == 1:
        raise Mistake(f"--target must leave a column to fit with, got the only one of {args.file}")
    A, b = take_column(A, index)
    if names is None:
        return A, b[:, None], f"column {index}", None
    return A, b[:, None], f"column {index} ({names[index]})", names[:index] + names[index + 1 :]


def _beside(args: argparse.Namespace, option: str) -> Any:
    """The small matrix in the file that an option names."""
    from ..files import load_matrix

    A = load_matrix(getattr(args, option), memory=sys.maxsize, header=args.header)
    if hasattr(A, "nnz"):
        raise Mistake(f"--{option} must be a dense file, got a sparse matrix")
    return A


def _weights(args: argparse.Namespace, m: int) -> Any:
    if args.weights is None:
        return None
    w = _beside(args, "weights").reshape(-1).astype("float64")
    if w.size != m or not (w >= 0).all() or not w.any():
        raise Mistake(f"--weights must hold {m} numbers >= 0, not all zero, got {w.size} from {w.min():g} on")
    return w


def _run_lstsq(args: argparse.Namespace) -> int:
    check_outputs(args, (".npz",))
    A, facts = load(args)
    A, B, label, names = _target(args, A)
    weights = _weights(args, A.shape[0])
    if B.shape[0] != A.shape[0]:
        raise Mistake(f"--target must have {A.shape[0]} rows like {args.file}, got {B.shape[0]}")
    from ..regression.intercept import fit_linear

    began = time.perf_counter()
    with limited(args.threads):
        fit = fit_linear(
            A, B, alpha=args.alpha, intercept=not args.no_intercept, weights=weights, method=args.method, tol=args.tol,
            sketch_size=args.size, rng=args.rng,
        )  # fmt: skip
    seconds, result, total = time.perf_counter() - began, fit.result, "squares" if args.no_intercept else "variance"
    fields = ("method", "reason", "rank", "condition", "residual_norm", "error", "backward_error", "n_iter", "n_passes")
    report = {
        "command": "lstsq",
        **facts,
        "target": label,
        **{name: getattr(args, name) for name in ("alpha", "tol", "weights")},
        **{name: getattr(result, name) for name in fields},
        "explained": fit.explained,
        **{"status": result.status.name, "advice": result.status.advice},
        "features": names,
        "coef": fit.coef.T.tolist(),
        "intercept": fit.intercept.tolist(),
        "seconds": seconds,
    }
    named = [f"{names[j] + ' ' if names else ''}{value:.5g}" for j, value in enumerate(fit.coef[:, 0].tolist())]
    constants = [] if args.no_intercept else [f"constant {_first(f'{value:.5g}' for value in fit.intercept.tolist())}"]
    finish(args, report, {"coef": fit.coef.T, "intercept": fit.intercept}, [
        describe({**facts, "shape": A.shape}),
        f"target   {label}",
        f"method   {result.method}: {result.reason}",
        f"coef     {_first(named)}{' for the first target' if B.shape[1] > 1 else ''}",
        *constants,
        f"explains {_first(f'{share:.4%}' for share in fit.explained)} of the {total}",
        f"error    {max(result.error):.3g} in the fitted values, {max(result.backward_error):.3g} backward",
        f"rank     {result.rank} of {A.shape[1]}, condition number {result.condition:.3g}",
        f"cost     {seconds:.2f} s, {result.n_passes} passes over the data, seed {args.rng}",
        f"status   {result.status.name.lower()}",
    ])  # fmt: skip
    if not result.converged:
        return say(f"lstsq ended with {result.status.name}: {result.status.advice}", FAILED)
    return DONE


def _first(words: Iterable[str]) -> str:
    shown = list(words)
    return ", ".join(shown[:6]) + (", ..." if len(shown) > 6 else "")


COMMAND = Command("lstsq", "Linear and ridge regression on a matrix in a file.", _configure_lstsq, _run_lstsq)
