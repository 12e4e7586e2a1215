"""`randla transport`."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from ._shared import DONE, FAILED, Command, Mistake, check_outputs, count, finish, fraction, limited, say

_METRICS = ("sqeuclidean", "euclidean", "cityblock", "cosine")
_METHODS = ("auto", "sinkhorn", "log", "newton")
_MOST_ENTRIES = 2**27  # of a plan that is written: 1 GiB


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


_positive.__name__ = "number"


def _configure_transport(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FROM", help="points, one in a row: .npy, .npz, .csv, .tsv, .mtx or .parquet")
    parser.add_argument("target", metavar="TO", help="points to move to, with as many columns")
    parser.add_argument("--reg", type=_positive, required=True, metavar="R", help="regularisation in units of cost")
    parser.add_argument("--relative", action="store_true", help="--reg is a share of the largest cost")
    parser.add_argument("--metric", choices=_METRICS, help="cost of moving from point to point (default sqeuclidean)")
    parser.add_argument("--cost", metavar="COST", help="matrix of costs; FROM and TO then hold masses, not points")
    parser.add_argument("--from-mass", metavar="FILE", help="masses of the points of FROM (default: all equal)")
    parser.add_argument("--to-mass", metavar="FILE", help="masses of the points of TO (default: all equal)")
    parser.add_argument("--method", choices=_METHODS, default="auto", help="which method (default auto)")
    parser.add_argument(
        "--tol", type=fraction, default=1e-9, metavar="T", help="marginal error to reach (default 1e-9)"
    )
    parser.add_argument("--max-iter", type=count, metavar="N", help="sweeps at the final regularisation, at most")
    parser.add_argument("--plan", action="store_true", help="write the plan, too, as a dense matrix")
    parser.add_argument(
        "--out", metavar="OUT", help="write the potentials f and g, and where points move to, to this .npz file"
    )
    parser.add_argument("--report", metavar="OUT.json", help="JSON report of the run; - writes it to the output")
    parser.add_argument("--threads", type=count, metavar="N", help="threads to use (default: all that are allowed)")
    parser.add_argument(
        "--header", choices=("auto", "yes", "no"), default="auto", help="whether the first line of a .csv holds names"
    )  # fmt: skip


def _matrix(path: str, header: str) -> Any:
    import numpy as np

    from ..files import load_matrix

    A = load_matrix(path, header=header)
    if hasattr(A, "nnz"):
        return A.toarray()
    if not isinstance(A, np.ndarray):
        raise Mistake(f"{path} must fit in a quarter of the memory, got {A.shape[0]:,} x {A.shape[1]:,}; take a sample")
    return A


def _masses(path: str | None, header: str) -> Any:
    """A vector, from a file with one row or one column."""
    if path is None:
        return None
    A = _matrix(path, header)
    if 1 not in A.shape:
        raise Mistake(f"{path} must hold masses, one row or one column of them, got {A.shape[0]:,} x {A.shape[1]:,}")
    return A.reshape(-1)


def _check(args: argparse.Namespace) -> None:
    from ..files import check_output

    check_outputs(args, (".npz",))
    others = [path for path in (args.target, args.cost, args.from_mass, args.to_mass) if path is not None]
    for path in (args.out, args.report):
        if path and path != "-":
            check_output(path, inputs=tuple(others))
    if args.plan and not args.out:
        raise Mistake("--plan must come with --out: there is nowhere to write it to")
    if args.cost is not None:
        given = [name for name in ("metric", "from_mass", "to_mass") if getattr(args, name) is not None]
        if given:
            named = ", ".join("--" + name.replace("_", "-") for name in given)
            raise Mistake(f"{named} must come with points, got --cost; FROM and TO are the masses then")


def _problem(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Masses, costs, and the points to move to, or None."""
    from ..transport.costs import as_cost, point_cost

    if args.cost is not None:
        a, b = (_masses(path, args.header) for path in (args.file, args.target))
        return a, b, as_cost(_matrix(args.cost, args.header)), None
    X, Y = (_matrix(path, args.header) for path in (args.file, args.target))
    a, b = (_masses(path, args.header) for path in (args.from_mass, args.to_mass))
    return a, b, point_cost(X, Y, metric=args.metric or "sqeuclidean"), Y


def _arrays(args: argparse.Namespace, result: Any, a: Any, Y: Any) -> dict[str, Any]:
    """What is written."""
    import numpy as np

    arrays = {"f": result.f, "g": result.g}
    if Y is not None:
        mass = np.full(len(result.f), 1 / len(result.f)) if a is None else a
        moved = result.plan.matmul(Y)
        arrays["moved"] = moved / np.where(mass > 0, mass, np.nan)[:, None]
    if args.plan:
        arrays["plan"] = result.plan.to_dense()
    return arrays


def _run_transport(args: argparse.Namespace) -> int:
    from ..transport.sinkhorn import sinkhorn

    _check(args)
    a, b, cost, Y = _problem(args)
    n, m = cost.shape
    if args.plan and n * m > _MOST_ENTRIES:
        raise Mistake(f"--plan must be of at most {_MOST_ENTRIES:,} entries, got {n:,} x {m:,}; leave it out")
    began = time.perf_counter()
    with limited(args.threads):
        result = sinkhorn(
            a, b, cost, args.reg, relative=args.relative, method=args.method, tol=args.tol, max_iter=args.max_iter,
            on_failure="ignore",
        )  # fmt: skip
        seconds = time.perf_counter() - began
        arrays = _arrays(args, result, a, Y) if args.out else {}
    told = (
        "cost",
        "value",
        "rounded_cost",
        "lower_bound",
        "gap",
        "marginal_error",
        "reg",
        "method",
        "n_iter",
        "n_newton",
    )
    report = {
        "command": "transport", "files": [args.file, args.target, args.cost], "shape": [n, m],
        "metric": None if args.cost else args.metric or "sqeuclidean", "tol": args.tol,
        **{name: getattr(result, name) for name in told},
        "status": result.status.name, "advice": result.status.advice, "seconds": seconds,
    }  # fmt: skip
    finish(args, report, arrays, [
        f"problem  {n:,} x {m:,}, costs {'from ' + args.cost if args.cost else report['metric']}",
        f"reg      {result.reg:.3g} in units of cost",
        f"cost     {result.cost:.9g}, of exact transport {result.lower_bound:.6g} to {result.rounded_cost:.6g}",
        f"error    {result.marginal_error:.2e} of the mass, both marginals",
        f"work     {seconds:.2f} s, {result.n_iter} sweeps and {result.n_newton} Newton steps, {result.method}",
        f"status   {result.status.name.lower()}",
    ])  # fmt: skip
    if not result.converged:
        return say(f"transport ended with {result.status.name}: {result.status.advice}", FAILED)
    return DONE


COMMAND = Command(
    "transport", "Entropic optimal transport between two sets of points, or two histograms.", _configure_transport,
    _run_transport,
)  # fmt: skip
