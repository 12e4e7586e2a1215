"""`randla complete`."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._shared import (
    DONE,
    FAILED,
    Command,
    Mistake,
    check_outputs,
    count,
    finish,
    fraction,
    limited,
    penalty,
    say,
    seed,
    write_line,
)

if TYPE_CHECKING:
    import numpy as np

    from ..completion.observations import Observations
    from .models import Model, Predictions

#: What a fit takes where the options say nothing; they default to None, which tells whether they were given.
_DEFAULTS: dict[str, Any] = {
    "format": "auto", "rank": 20, "reg": 0.1, "bias": True, "loss": "squared", "validation": 0.1, "by_time": False,
    "max_iter": 30, "tol": 1e-4, "checkpoint": None, "rng": 0, "out": None,
}  # fmt: skip
_MATRICES = (".npz", ".npy", ".mtx")


def _share(text: str) -> float:
    return 0.0 if float(text) == 0 else fraction(text)


_share.__name__ = "number"


def _configure_complete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="RATINGS",
        help="ratings (u.data, ratings.csv, ratings.dat, each also .gz), or a matrix of which the stored entries "
        "(.npz, .mtx) or those that are not NaN (.npy) were observed",
    )  # fmt: skip
    parser.add_argument("--model", metavar="MODEL.npz", help="a model that --out wrote, in place of RATINGS")
    parser.add_argument(
        "--predict", metavar="USER,ITEM|FILE", action="append", default=[],
        help="print the prediction for a pair of ids, or for each pair in a file, with its standard error",
    )  # fmt: skip
    parser.add_argument("--out", metavar="MODEL.npz", help="write the factors, biases and ids to this file")
    parser.add_argument("--report", metavar="OUT.json", help="JSON report of the run; - writes it to the output")
    parser.add_argument("--threads", type=count, metavar="N", help="threads to use (default: all that are allowed)")
    fit = parser.add_argument_group("the fit")
    fit.add_argument("--rank", type=count, metavar="K", help="columns of the factors (default 20)")
    fit.add_argument("--reg", type=penalty, metavar="R", help="ridge for each entry of a row or column (default 0.1)")
    fit.add_argument("--bias", action=argparse.BooleanOptionalAction, help="biases of rows and columns (default: yes)")
    fit.add_argument("--loss", choices=("squared", "huber", "absolute"), help="loss of an entry (default: squared)")
    fit.add_argument(
        "--validation", type=_share, metavar="F", help="fraction of the entries to hold out (default 0.1); 0: none"
    )
    fit.add_argument("--by-time", action="store_true", default=None, help="hold out the last ratings of each user")
    fit.add_argument("--max-iter", type=count, metavar="N", help="sweeps at most (default 30)")
    fit.add_argument("--tol", type=fraction, metavar="T", help="stop at this relative change (default 1e-4)")
    fit.add_argument("--checkpoint", metavar="FILE", help="keep the state here; the same command continues from it")
    fit.add_argument("--rng", type=seed, metavar="N", help="seed of the start and of what is held out (default 0)")
    fit.add_argument("--format", choices=("auto", "u.data", "ratings.csv", "ratings.dat"), help="layout of the ratings")


# --- what is asked ----------------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself, and fill in the defaults."""
    if (args.file is None) == (args.model is None):
        raise Mistake("one of RATINGS and --model must be given" + (", got both" if args.file else ", got none"))
    if args.model is not None:
        given = [name for name in _DEFAULTS if getattr(args, name) is not None]
        if given:
            named = ", ".join("--" + name.replace("_", "-") for name in given)
            raise Mistake(f"--model must come without {named}: the model is fitted already")
        if not args.predict:
            raise Mistake("--model must come with --predict: there is nothing else to do with a model")
    for name, value in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.file = args.model if args.file is None else args.file
    check_outputs(args, (".npz",))
    if args.checkpoint is not None:
        from ..files import check_output

        others = [check_output(path) for path in (args.out, args.report) if path and path != "-"]
        if check_output(args.checkpoint, inputs=(args.file,)) in others:
            raise Mistake("--checkpoint must be a file of its own, got that of --out or --report")
    if args.by_time and args.validation == 0.0:
        raise Mistake("--by-time must come with a --validation above 0")


def _asked_pairs(words: list[str]) -> tuple[list[str], list[str]]:
    from ..ratings import load_pairs

    pairs: list[tuple[str, str]] = []
    for word in words:
        if Path(word).is_file():
            pairs += load_pairs(word)
            continue
        user, comma, item = (part.strip() for part in word.partition(","))
        if not (comma and user and item):
            raise Mistake(f"--predict must be USER,ITEM or a file of pairs, got {word!r}")
        pairs.append((user, item))
    return [user for user, _ in pairs], [item for _, item in pairs]


@dataclass(frozen=True)
class _Data:
    """What was observed, with ids; `train` and `test` where the split is by time."""

    observations: Observations
    user_ids: np.ndarray
    item_ids: np.ndarray
    described: str
    train: Observations | None = None


def _load(args: argparse.Namespace) -> _Data:
    import numpy as np

    from ..completion.observations import as_observations

    path = Path(args.file)
    if path.name.lower().removesuffix(".gz").endswith(_MATRICES):
        if args.by_time:
            raise Mistake(f"--by-time must come with a file of ratings that has timestamps, got {args.file}")
        observations = as_observations(_matrix(path), name="matrix")
        m, n = observations.shape
        described = f"matrix   {m:,} x {n:,} {observations.data.dtype}, {observations.nnz:,} entries observed"
        return _Data(observations, np.arange(m), np.arange(n), described)
    from ..ratings import load_ratings

    ratings = load_ratings(path, format=args.format)
    train = None
    if args.by_time:
        train = as_observations(ratings.split_by_time(args.validation)[0].matrix)
    words = repr(ratings).removeprefix("Ratings(").removesuffix(")")
    return _Data(as_observations(ratings.matrix), ratings.user_ids, ratings.item_ids, f"ratings  {words}", train)


def _matrix(path: Path) -> Any:
    """The matrix in a file; entries that a Matrix Market file stores twice are refused, not added up."""
    from ..files import FileError, load_matrix

    A = load_matrix(path, memory=sys.maxsize)
    if path.name.lower().removesuffix(".gz").endswith(".mtx") and hasattr(A, "nnz"):
        from scipy.io import mminfo

        _, _, entries, _, _, symmetry = mminfo(path)
        if symmetry == "general" and entries != A.nnz:
            raise FileError(
                f"{path}: {entries - A.nnz} of {entries} entries are stored more than once; keep one of each"
            )
    return A


# --- the fit ----------------------------------------------------------------------------------------------------------


class _HeldOut(NamedTuple):
    """Errors of predictions of entries that the fit did not see."""

    n: int
    rmse: float
    mae: float


def _held_out(model: Model, whole: Observations) -> _HeldOut | None:
    """Judge the model on the entries of `whole` that it was not fitted to; None where it saw all."""
    import numpy as np

    seen, n = model.training.observations, whole.shape[1]
    codes, known = (part.rows * n + part.indices for part in (whole, seen))
    hidden = np.ones(codes.size, bool)
    hidden[np.searchsorted(codes, known)] = False  # both ascend
    if not hidden.any():
        return None
    difference = model.result.predict(whole.rows[hidden], whole.indices[hidden]) - whole.data[hidden]
    wide = difference.astype(np.float64)
    return _HeldOut(wide.size, float(np.sqrt(np.mean(wide**2))), float(np.mean(np.abs(wide))))


def _fit(args: argparse.Namespace, data: _Data, callback: Callable[[Any], None] | None) -> Model:
    from ..completion.als import complete
    from .models import Model

    by_time = data.train is not None
    result = complete(
        data.train if by_time else data.observations, args.rank, reg=args.reg, bias=args.bias, loss=args.loss,
        validation_fraction=0.0 if by_time else args.validation, max_iter=args.max_iter, tol=args.tol,
        checkpoint=args.checkpoint, rng=args.rng, callback=callback, on_failure="ignore",
    )  # fmt: skip
    return Model(result, data.user_ids, data.item_ids)


def _told_sweep(step: Any) -> str:
    shown = f"sweep    {step.n_iter}: objective {step.objective:.6g}, RMSE {step.rmse:.4f}"
    return shown if math.isnan(step.validation_rmse) else f"{shown}, held out {step.validation_rmse:.4f}"


def _run_complete(args: argparse.Namespace) -> int:
    _check(args)
    users, items = _asked_pairs(args.predict)
    return _fit_and_tell(args, users, items) if args.model is None else _only_predict(args, users, items)


def _only_predict(args: argparse.Namespace, users: list[str], items: list[str]) -> int:
    from .models import load_model

    with limited(args.threads):
        model = load_model(args.model)
        predictions = model.predict(users, items)
    m, n = model.result.shape
    lines = [f"model    {m:,} x {n:,}, rank {model.result.rank}, status {model.result.status.name.lower()}"]
    report = {"command": "complete", "model": str(args.model), "shape": [m, n], "rank": model.result.rank}
    report["predictions"] = _as_records(users, items, predictions)
    finish(args, report, {}, lines + _told_predictions(users, items, predictions))
    return DONE


def _fit_and_tell(args: argparse.Namespace, users: list[str], items: list[str]) -> int:
    data = _load(args)
    aloud = args.report != "-"
    if aloud:
        write_line(data.described)
    began = time.perf_counter()
    with limited(args.threads):
        model = _fit(args, data, _tell if aloud else None)
        seconds, result = time.perf_counter() - began, model.result
        held_out = _held_out(model, data.observations)
        predictions = model.predict(users, items) if users else None
    whole, n_fitted = data.observations, model.training.observations.nnz
    lines = []
    if held_out is not None:
        how = "the last of each user" if args.by_time else f"at random, least after sweep {result.best_iter}"
        errors = f"RMSE {held_out.rmse:.4f}, MAE {held_out.mae:.4f}"
        lines.append(f"held out {errors} over {held_out.n:,} of {whole.nnz:,} entries; {how}")
    lines += [
        f"noise    {result.noise:.4f} around the model, estimated from {n_fitted:,} entries",
        f"cost     {seconds:.2f} s, {result.n_iter} sweeps, seed {args.rng}",
        f"status   {result.status.name.lower()}",
    ]
    settings = {name: getattr(args, name) for name in _DEFAULTS if name not in ("out", "format")}
    report = {
        "command": "complete",
        "file": str(args.file),
        "shape": list(whole.shape),
        "nnz": whole.nnz,
        "dtype": str(whole.data.dtype),
        **settings,
        "fitted": n_fitted,
        "held_out": None if held_out is None else held_out._asdict(),
        **{name: getattr(result, name) for name in ("noise", "objective", "history", "validation_history")},
        **{name: getattr(result, name) for name in ("n_iter", "best_iter")},
        **{"status": result.status.name, "advice": result.status.advice},
        "seconds": seconds,
    }
    if predictions is not None:
        lines += _told_predictions(users, items, predictions)
        report["predictions"] = _as_records(users, items, predictions)
    finish(args, report, model.arrays() if args.out else {}, lines)
    if not result.converged:
        return say(f"complete ended with {result.status.name}: {result.status.advice}", FAILED)
    return DONE


def _tell(step: Any) -> None:
    write_line(_told_sweep(step))
    sys.stdout.flush()


# --- predictions ------------------------------------------------------------------------------------------------------


def _strangers(predictions: Predictions, place: int) -> str:
    strange = [
        name for name, known in (("user", predictions.user_known), ("item", predictions.item_known)) if not known[place]
    ]
    return f"  (unknown {' and '.join(strange)})" if strange else ""


def _told_predictions(users: list[str], items: list[str], predictions: Predictions) -> list[str]:
    return [
        f"predict  {user},{item}: {value:.4f} +- {std:.4f}{_strangers(predictions, place)}"
        for place, (user, item, value, std) in enumerate(
            zip(users, items, predictions.values.tolist(), predictions.std.tolist(), strict=True)
        )
    ]


def _as_records(users: list[str], items: list[str], predictions: Predictions) -> list[dict[str, Any]]:
    names = ("user", "item", "prediction", "std", "user_known", "item_known")
    columns = (users, items, *(part.tolist() for part in predictions))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


COMMAND = Command(
    "complete", "Fill a matrix of ratings: a low-rank model with biases.", _configure_complete, _run_complete
)
