"""Relational data from files: stacks of square matrices as other programs store them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

ENDINGS = (".npy", ".npz", ".mat")


def load_relations(path: Any, *, name: str | None = None) -> np.ndarray:
    """Read a stack of square matrices (t, n, n) from a NumPy or MATLAB file, with the slices first.

    The stacks that circulate with RESCAL, such as Nations (14 countries, 56 relations; ``dnations.mat``), have the
    slices last; the axis that differs from the other two is brought to the front.

    Parameters
    ----------
    path : str or path
        A file that ends on .npy, .npz or .mat (version 7.2 or before).
    name : str, optional
        The array in an .npz or .mat file; by default the only one with three axes.

    Returns
    -------
    array, shape (t, n, n)
        float64, NaN where the file has them.

    Raises
    ------
    ValueError
        If the file has another ending, no such array or several, or one that is no stack of square matrices.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"path must end on one of {', '.join(ENDINGS)}, got {path.suffix!r}")
    found = _arrays(path)
    if name is None:
        names = [key for key, value in found.items() if value.ndim == 3]
        if len(names) != 1:
            raise ValueError(f"name must be given where {path.name} has not one stack, got {names} among {list(found)}")
        name = names[0]
    if name not in found:
        raise ValueError(f"name must be one of {list(found)}, got {name!r}")
    X = found[name]
    if X.ndim != 3 or X.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be a real array with three axes, got {X.dtype} of shape {X.shape}")
    sizes = X.shape
    front = [axis for axis in range(3) if len({sizes[other] for other in range(3) if other != axis}) == 1]
    if not front:
        raise ValueError(f"{name} must have two axes of one length, got shape {sizes}")
    # a cube says nothing: the first axis is taken for the slices then
    return np.ascontiguousarray(np.moveaxis(X, front[0], 0), dtype=np.float64)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, without pickles."""
    if path.suffix == ".npy":
        return {"array": np.load(path, allow_pickle=False)}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    from scipy.io import loadmat

    try:
        table = loadmat(path)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"path must be a MATLAB file of version 7.2 or before, got another: {error}") from None
    return {key: value for key, value in table.items() if isinstance(value, np.ndarray)}
