"""`randla nmf`."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
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

_LOSSES = ("frobenius", "kl", "itakura-saito")
_SOLVERS = ("auto", "hals", "pivots", "randomized", "newton", "mu")
_BATCH = 1024  # rows that the parts of a streamed file learn from at a time
_INITS = ("auto", "random", "nndsvd", "nndsvda", "nndsvdar", "nnsvdlrc", "spa")
#: Options that only factorisations in memory know; None tells that they were not given.
_IN_MEMORY = {"loss": "frobenius", "solver": "auto", "init": "auto", "alpha_w": 0.0, "alpha_h": 0.0, "l1_ratio": 0.0,
              "missing": None, "validation": 0.0, "starts": 1, "max_iter": None}  # fmt: skip


def _share(text: str) -> float:
    return float(text) if float(text) in (0.0, 1.0) else fraction(text)


_share.__name__ = "number"


def _loss(text: str) -> str | float:
    """A name, or the number beta."""
    if text in _LOSSES:
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(_LOSSES)} or a number, got {text!r}")
    return value


def _configure_nmf(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rank", type=count, required=True, metavar="K", help="number of parts")
    names = ", ".join(_LOSSES)
    parser.add_argument(
        "--loss", type=_loss, metavar="LOSS", help=f"{names} or the beta of a divergence (default: frobenius)"
    )
    parser.add_argument("--solver", choices=_SOLVERS, help="which method (default: auto, said why)")
    parser.add_argument("--init", choices=_INITS, help="where to start (default: auto)")
    parser.add_argument("--alpha-w", type=penalty, metavar="A", help="penalty of W (default 0)")
    parser.add_argument("--alpha-h", type=penalty, metavar="A", help="penalty of H (default 0)")
    parser.add_argument(
        "--l1-ratio", type=_share, metavar="F", help="share of the sum of entries in the penalties (default 0)"
    )
    parser.add_argument(
        "--missing", choices=("nan", "absent"),
        help="what is missing: the NaN of a dense file, or what a sparse file does not store (default: nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--validation", type=_share, metavar="F", help="with --missing: share of the known to hold out (default 0)"
    )
    parser.add_argument("--starts", type=count, metavar="N", help="starts, of which the best is kept (default 1)")
    parser.add_argument(
        "--max-iter", type=count, metavar="N", help="iterations at most (default 200; 300 with --missing)"
    )
    parser.add_argument("--tol", type=fraction, metavar="T", help="when to stop (default 1e-4; 1e-5 with --missing)")
    parser.add_argument("--passes", type=count, metavar="N", help="passes over a file that is streamed (default 5)")
    add_file_options(parser, out="write W and H to this .npz file")


@dataclass(frozen=True)
class _Found:
    """The factors, and what is told of them."""

    W: Any
    H: Any
    error: str
    facts: dict[str, Any]
    cost: str
    status: Any


def _check(args: argparse.Namespace, storage: str) -> None:
    """Refuse what the data cannot be asked for, and fill in the defaults."""
    given = [name for name in _IN_MEMORY if getattr(args, name) is not None]
    if storage == "stream" and given:
        named = ", ".join("--" + name.replace("_", "-") for name in given)
        raise Mistake(f"{named} must come with a file that fits in memory, got one to stream; raise --memory")
    if storage != "stream" and args.passes is not None:
        raise Mistake("--passes must come with a file to stream, got one that fits in memory; lower --memory")
    for name, value in _IN_MEMORY.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.missing is None:
        if args.validation:
            raise Mistake("--validation must come with --missing: nothing is to be predicted in a matrix that is known")
        return
    fits = {"nan": "dense", "absent": "sparse"}[args.missing]
    if storage != fits:
        raise Mistake(f"--missing {args.missing} must come with a {fits} file, got a {storage} one")
    if args.loss != "frobenius" or args.solver not in ("auto", "hals") or args.init not in ("auto", "random"):
        raise Mistake("--missing must come with --loss frobenius, --solver auto and --init random, got another of them")
    if args.validation == 1.0:
        raise Mistake("--validation must be below 1, got 1; something must be left to fit")


def _refuse_nan(args: argparse.Namespace, A: Any) -> None:
    import numpy as np

    values = A.data if hasattr(A, "nnz") else A
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise Mistake(f"{args.file} must have no NaN, got some; pass --missing nan if these entries are missing")


def _in_memory(args: argparse.Namespace, A: Any) -> _Found:
    """The factorisation of a matrix in memory, with or without missing entries."""
    from ..nonnegative.masked import masked_nmf
    from ..nonnegative.solvers import nmf

    given = {name: value for name, value in (("max_iter", args.max_iter), ("tol", args.tol)) if value is not None}
    common: dict[str, Any] = {
        "alpha_W": args.alpha_w, "alpha_H": args.alpha_h, "l1_ratio": args.l1_ratio, "n_init": args.starts,
        "rng": args.rng, "on_failure": "ignore", **given,
    }  # fmt: skip
    if args.missing is None:
        _refuse_nan(args, A)
        result: Any = nmf(A, args.rank, loss=args.loss, solver=args.solver, init=args.init, **common)
        error = "of the norm" if args.loss == "frobenius" else "of the divergence from a constant"
    else:
        absent = "missing" if args.missing == "absent" else None
        result = masked_nmf(A, args.rank, absent=absent, validation_fraction=args.validation, **common)
        error = f"root mean square of the {'held-out' if args.validation else 'fitted'} entries"
        if result.error_interval is not None:
            error += " ({:.3g} to {:.3g} with probability 0.95)".format(*result.error_interval)
    fields = ("error", "error_kind", "objective", "stationarity", "solver", "reason", "n_iter", "n_passes", "n_revived")
    facts = {name: getattr(result, name) for name in (*fields, "start_objectives")}
    if args.missing is not None:
        facts["error_interval"] = result.error_interval
    return _Found(result.W, result.H, error, facts, f"{result.n_iter} iterations", result.status)


def _streamed(args: argparse.Namespace, rows: Any) -> _Found:
    """Parts from the blocks of a file, and one pass more for the codes of its rows and the exact error."""
    import numpy as np

    from ..nonnegative.encoding import nonneg_codes
    from ..nonnegative.online import minibatch_nmf

    given = {name: value for name, value in (("n_passes", args.passes), ("tol", args.tol)) if value is not None}
    found = minibatch_nmf(_batches(rows), args.rank, batch=_BATCH, rng=args.rng, **given)
    H = found.H.astype(np.float64)
    W = np.zeros((rows.shape[0], args.rank), found.H.dtype)
    left, whole, slope = 0.0, 0.0, np.zeros_like(H)
    for start, block in rows:
        codes = nonneg_codes(block, found.H.astype(block.dtype) if block.dtype.kind == "f" else H)
        W[start : start + len(codes)] = codes
        block, codes = block.astype(np.float64), codes.astype(np.float64)
        residual = codes @ H - block
        left, whole = left + float(np.vdot(residual, residual)), whole + float(np.vdot(block, block))
        slope += codes.T @ residual
    # the codes are best for these parts, so that only the slopes of the parts are left
    free = np.where((H > 0) | (slope < 0), slope, 0.0)
    sizes = np.linalg.norm(free, axis=1) * np.linalg.norm(H, axis=1)
    facts = {
        "error": math.sqrt(left / whole), "error_kind": "exact", "objective": left / 2,
        "stationarity": float(np.linalg.norm(sizes)) / whole, "solver": "minibatch", "reason": "the file is streamed",
        "n_iter": found.n_batches, "n_passes": found.n_passes + 1, "running_error": found.error,
    }  # fmt: skip
    return _Found(W, found.H, "of the norm", facts, f"{found.n_batches} batches", found.status)


def _batches(rows: Any) -> Any:
    """The same rows in blocks of at most a batch, however the file was cut."""
    from .._blocks import RowBlocks

    def pieces() -> Iterator[Any]:
        for _, block in rows:
            yield from (block[first : first + _BATCH] for first in range(0, len(block), _BATCH))

    return RowBlocks(pieces, rows.shape, rows.dtype)


def _run_nmf(args: argparse.Namespace) -> int:
    check_outputs(args, (".npz",))
    A, facts = load(args)
    _check(args, facts["storage"])
    began = time.perf_counter()
    with limited(args.threads):
        found = (_streamed if facts["storage"] == "stream" else _in_memory)(args, A)
    seconds = time.perf_counter() - began
    options = ("rank", "loss", "init", "alpha_w", "alpha_h", "l1_ratio", "missing", "validation")
    report = {
        "command": "nmf",
        **facts,
        **{name: getattr(args, name) for name in options},
        **found.facts,
        **{"status": found.status.name, "advice": found.status.advice},
        "seconds": seconds,
    }
    told = found.facts
    starts = told.get("start_objectives", ())
    spread = [f"starts   {len(starts)}, objectives {min(starts):.5g} to {max(starts):.5g}"] if len(starts) > 1 else []
    finish(args, report, {"W": found.W, "H": found.H}, [
        describe(facts),
        f"parts    {args.rank}, loss {args.loss}",
        f"solver   {told['solver']}: {told['reason']}",
        *spread,
        f"error    {told['error']:.3g} {found.error}",
        f"gradient {told['stationarity']:.3g}, projected and free of scale; 0 where no small step helps",
        f"cost     {seconds:.2f} s, {found.cost}, {told['n_passes']:g} passes over the data, seed {args.rng}",
        f"status   {found.status.name.lower()}",
    ])  # fmt: skip
    if found.status.name != "CONVERGED":
        advice = found.status.advice
        if facts["storage"] == "stream":
            advice = "the error of batches still fell in the last pass: raise --passes, or loosen --tol"
        return say(f"nmf ended with {found.status.name}: {advice}", FAILED)
    return DONE


COMMAND = Command("nmf", "Nonnegative factorisation of a matrix in a file, W and H.", _configure_nmf, _run_nmf)
