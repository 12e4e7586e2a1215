"""The file of a completion model: an .npz of plain arrays with the ids of rows and columns, never unpickled."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from ..completion.results import CompletionResult, Training

_T = TypeVar("_T")

#: Version of the layout, in the array "randla_completion_model".
VERSION = 1

_NEEDED = (
    "row_factors", "col_factors", "mean", "noise", "loss", "penalty", "user_ids", "item_ids", "seen_indices",
    "seen_indptr", "status",
)  # fmt: skip


class Predictions(NamedTuple):
    """What a model says of pairs: a value, its standard error, and whether the user and the item are known to it."""

    values: np.ndarray
    std: np.ndarray
    user_known: np.ndarray
    item_known: np.ndarray


@dataclass(frozen=True)
class Model:
    """A completion with the ids of its rows and columns."""

    result: CompletionResult
    user_ids: np.ndarray
    item_ids: np.ndarray

    @property
    def training(self) -> Training:
        """The entries that were fitted."""
        return _there(self.result.training)

    def arrays(self) -> dict[str, Any]:
        """What the file holds: the factors, what a prediction's error needs, and where the fitted entries were."""
        result, (seen, weights, *_) = self.result, self.training
        settings = _there(result.settings)
        found = {
            "randla_completion_model": np.array(VERSION),
            "row_factors": result.row_factors,
            "col_factors": result.col_factors,
            "row_bias": result.row_bias,
            "col_bias": result.col_bias,
            "mean": np.array(result.mean),
            "noise": np.array(result.noise),
            "loss": np.array(settings.loss),
            "penalty": np.array([settings.reg, settings.reg_exponent, settings.column, settings.loss_scale]),
            "user_ids": self.user_ids,
            "item_ids": self.item_ids,
            "seen_indices": seen.indices,
            "seen_indptr": seen.indptr,
            "seen_weights": weights,
            "status": np.array(result.status.name),
        }
        return {name: array for name, array in found.items() if array is not None}

    def predict(self, users: list[str], items: list[str]) -> Predictions:
        """Predict pairs of ids; one that is not known counts as a row or column without entries."""
        from ..ratings import positions

        rows, cols = positions(self.user_ids, users), positions(self.item_ids, items)
        result, (m, n) = _with_strangers(self.result, self.training), self.result.shape
        i, j = np.where(rows < 0, m, rows), np.where(cols < 0, n, cols)
        return Predictions(result.predict(i, j), result.predict_std(i, j), rows >= 0, cols >= 0)


def _there(part: _T | None) -> _T:
    """What each result of `complete` and each file of a model has."""
    if part is None:
        raise ValueError("result must hold its settings and the entries that it was fitted to, got none")
    return part


def _with_strangers(result: CompletionResult, training: Training) -> CompletionResult:
    """The result with one more row and one more column, of which nothing was observed."""
    from ..completion.observations import Observations

    seen = training.observations
    (m, n), end = seen.shape, seen.indptr[-1:]
    wider = Observations(seen.data, seen.indices, np.concatenate([seen.indptr, end]), (m + 1, n + 1))

    def longer(part: Any) -> Any:
        return None if part is None else np.concatenate([part, np.zeros_like(part[:1])])

    return replace(
        result,
        row_factors=longer(result.row_factors),
        col_factors=longer(result.col_factors),
        row_bias=longer(result.row_bias),
        col_bias=longer(result.col_bias),
        row_counts=wider.row_counts,
        col_counts=wider.col_counts,
        training=training._replace(observations=wider),
    )


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model that `randla complete --out` wrote.

    Raises
    ------
    FileError
        If the file is something else, or damaged.
    """
    from ..files import FileError, check_readable

    check_readable(Path(path))
    try:
        with Path(path).open("rb") as handle:
            archive = np.load(handle, allow_pickle=False)
            arrays = (
                {name: archive[name] for name in archive.files} if isinstance(archive, np.lib.npyio.NpzFile) else {}
            )
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(f"{path}: not a model file, or a damaged one: {' '.join(str(error).split())}") from None
    version = arrays.get("randla_completion_model")
    if version is None:
        raise FileError(f"{path}: not a model file; write one with: randla complete RATINGS --out {path}")
    if version.shape or int(version) != VERSION:
        raise FileError(f"{path}: the model's layout must be number {VERSION}, got {version}; fit it again")
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise FileError(f"{path}: the model file must hold {', '.join(_NEEDED)}, but {', '.join(missing)} is missing")
    return _restored(path, arrays)


def _restored(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> Model:
    from .._results import Status
    from ..completion.observations import Observations
    from ..completion.results import CompletionResult, Settings, Training
    from ..files import FileError

    X, Y = arrays["row_factors"], arrays["col_factors"]
    indices, indptr = arrays["seen_indices"], arrays["seen_indptr"]
    biases = arrays.get("row_bias"), arrays.get("col_bias")
    consistent = (
        X.ndim == Y.ndim == 2
        and X.shape[1] == Y.shape[1]
        and arrays["user_ids"].shape == X.shape[:1]
        and arrays["item_ids"].shape == Y.shape[:1]
        and all(bias is None or bias.shape == F.shape[:1] for bias, F in zip(biases, (X, Y), strict=True))
        and arrays["penalty"].shape == (4,)
        and arrays["mean"].shape == arrays["noise"].shape == ()
        and _is_pattern(indices, indptr, X.shape[0], Y.shape[0])
        and str(arrays["status"]) in Status.__members__
    )
    if not consistent:
        raise FileError(f"{path}: the arrays of the model file contradict each other; fit the model again")
    # the values of the entries are not needed for predictions, only their places
    seen = Observations(np.zeros(indices.size, X.dtype), indices, indptr, (X.shape[0], Y.shape[0]))
    reg, exponent, column, scale = arrays["penalty"].tolist()
    result = CompletionResult(
        row_factors=X,
        col_factors=Y,
        row_bias=biases[0],
        col_bias=biases[1],
        mean=float(arrays["mean"]),
        noise=float(arrays["noise"]),
        status=Status[str(arrays["status"])],
        row_counts=seen.row_counts,
        col_counts=seen.col_counts,
        settings=Settings(reg, exponent, column, str(arrays["loss"]), scale),
        training=Training(seen, arrays.get("seen_weights")),
    )
    return Model(result, arrays["user_ids"], arrays["item_ids"])


def _is_pattern(indices: np.ndarray, indptr: np.ndarray, m: int, n: int) -> bool:
    """Whether the arrays are the places of a CSR matrix (m, n); indices from elsewhere would be read from outside."""
    whole = indices.dtype.kind == "i" == indptr.dtype.kind and indices.ndim == 1 and indptr.shape == (m + 1,)
    if not whole or indptr[0] != 0 or indptr[-1] != indices.size or (np.diff(indptr) < 0).any():
        return False
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < n)
