"""Matrices in files: .npy, .npz, .mtx, .csv and .parquet, loaded or, where they are large, streamed as row blocks.

Every reader checks the file before it trusts it, never unpickles, and says what is wrong in one line, as a `FileError`.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._arrays import as_matrix
from ._atomic import is_special
from ._atomic import write_atomically as write_atomically
from ._blocks import RowBlocks
from ._checks import check_choice, check_integer

#: Height of a streamed block, unless the memory budget asks for less.
BLOCK_BYTES = 64 * 2**20

_UNREADABLE = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class FileError(ValueError):
    """A file that cannot be used, with the reason and, where there is one, the remedy."""


def load_matrix(
    path: str | os.PathLike[str], *, memory: int | None = None, array: str | None = None, header: str = "auto"
) -> Any:
    """Return the matrix in a file: in memory, or as `RowBlocks` where it is larger than the budget.

    Dense .npy and .npz arrays, .csv and .parquet tables are streamed; sparse matrices and .mtx files are held in
    memory.  In tables every column must be numeric; the result is float64 (float32 if all .parquet columns are).

    Parameters
    ----------
    path : str or path
        The ending decides the format: .npy, .npz, .mtx, .mtx.gz, .csv, .tsv, .parquet.
    memory : int, optional
        Bytes that the matrix may take in memory; by default a quarter of the machine's.
    array : str, optional
        Name of the array in an .npz file that holds several.
    header : {"auto", "yes", "no"}, default "auto"
        Whether the first line of a .csv or .tsv file holds names; "auto" takes it for names if no field is a number.

    Returns
    -------
    ndarray, csr_array or RowBlocks
        Shape (m, n) with m, n >= 1.

    Raises
    ------
    FileError
        If the file is missing, unreadable, truncated, of another format, or does not hold a numeric matrix.
    """
    path = Path(path)
    check_readable(path)
    name = path.name.lower().removesuffix(".gz") if path.name.lower().endswith(".mtx.gz") else path.name.lower()
    reader = _READERS.get(Path(name).suffix)
    if reader is None:
        raise FileError(f"{path}: the name must end in one of {', '.join(_READERS)}")
    if array is not None and reader is not _read_npz:
        raise FileError(f"{path}: an array name is for .npz files only")
    check_choice(header, "header", ("auto", "yes", "no"))
    budget = default_memory() if memory is None else check_integer(memory, "memory", low=1)
    extra = {_read_npz: (array,), _read_csv: (header,)}.get(reader, ())
    try:
        A = reader(path, budget, *extra)
        A = A if isinstance(A, RowBlocks) else as_matrix(A, name="matrix")
    except FileError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except (TypeError, *_UNREADABLE) as error:
        raise FileError(f"{path}: {_one_line(error)}") from error
    if 0 in A.shape:
        raise FileError(f"{path}: the matrix must have at least one row and one column, got shape {tuple(A.shape)}")
    return A


def column_names(path: str | os.PathLike[str], *, header: str = "auto") -> list[str] | None:
    """Return the names of the columns of a table, in the order of `load_matrix`; None where the file has none.

    Parameters
    ----------
    path : str or path
        A file that `load_matrix` reads.
    header : {"auto", "yes", "no"}, default "auto"
        As in `load_matrix`.

    Returns
    -------
    list of str or None

    Raises
    ------
    FileError
        If the file is missing or unreadable.
    """
    path = Path(path)
    check_readable(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return [field.name for field in _parquet_columns(path)[0]]
        if suffix in (".csv", ".tsv"):
            table = _table_layout(path, header)
            if table.n_header:
                with _lines(path) as handle:
                    line = [handle.readline() for _ in range(table.n_header)][-1]
                return [field.strip().strip('"') for field in line.rstrip("\r\n").split(table.delimiter)]
    except FileError:
        raise
    except _UNREADABLE as error:
        raise FileError(f"{path}: {_one_line(error)}") from error
    return None


def find_column(word: str, names: list[str] | None, n: int) -> int | None:
    """Return the column of n that `word` means: a name, or a number that may count from the end; None if it is neither.

    Raises
    ------
    FileError
        If the number is out of range.
    """
    if names is not None and names.count(word) == 1:
        return names.index(word)
    try:
        index = int(word)
    except ValueError:
        return None
    if not -n <= index < n:
        raise FileError(f"the number of a column must be from {-n} to {n - 1}, got {word}")
    return index % n


def default_memory() -> int:
    """A quarter of the machine's memory, or of the limit that its control group sets."""
    limits = [2**31]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(ValueError, OSError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits) // 4


def check_readable(path: Path) -> None:
    """Raise a `FileError` that says why, if `path` is no regular file that can be read, or is empty."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileError(f"{path}: is a directory")
        if not stat.S_ISREG(mode):
            raise FileError(f"{path}: is not a regular file; write the data to a file first")
        with path.open("rb") as handle:
            if not handle.read(1):
                raise FileError(f"{path}: the file is empty")
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file") from None
    except PermissionError:
        raise FileError(f"{path}: permission denied") from None
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _block_bytes(budget: int) -> int:
    """A block is at most a quarter of the budget, for the algorithm needs room beside it."""
    return max(1, min(BLOCK_BYTES, budget // 4))


# --- .npy and .npz ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    """What an .npy header announces, checked."""

    shape: tuple[int, int]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def native(self) -> np.dtype[Any]:
        return self.dtype.newbyteorder("=")

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(handle: IO[bytes]) -> _Header:
    try:
        version = np.lib.format.read_magic(handle)
    except ValueError:
        raise ValueError("not a NumPy .npy file, or a truncated one") from None
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"the .npy format must be version 1.0 or 2.0, got {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(handle)
    except (ValueError, EOFError):
        raise ValueError("the .npy header is damaged or truncated") from None
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, which are never unpickled; save it as float64")
    if len(shape) != 2:
        raise ValueError(f"the array must be 2-D, got shape {shape}; save a vector as one column: x.reshape(-1, 1)")
    as_matrix(np.empty((1, 1), dtype), name="matrix")
    return _Header(shape, fortran, dtype, handle.tell())


def _read_npy(path: Path, budget: int) -> Any:
    with path.open("rb") as handle:
        header = _read_header(handle)
    missing = header.offset + header.nbytes - path.stat().st_size
    if missing > 0:
        raise ValueError(f"the file is truncated: {missing} of {header.nbytes} data bytes are missing")
    if header.nbytes <= budget or 0 in header.shape:
        return np.load(path, allow_pickle=False).astype(header.native, copy=False)
    return RowBlocks(lambda: _mapped_blocks(path, header, _block_bytes(budget)), header.shape, header.native)


def _mapped_blocks(path: Path, header: _Header, block_bytes: int) -> Iterator[np.ndarray]:
    """Map each block on its own, so that the pages of a block are released with it."""
    m, n = header.shape
    step = max(1, block_bytes // max(header.row_bytes, 1))
    if header.fortran:  # the rows of a block are spread over the whole file: one map of all of it
        whole = np.memmap(path, header.dtype, "r", header.offset, header.shape, "F")
        for start in range(0, m, step):
            yield np.ascontiguousarray(whole[start : start + step], header.native)
        return
    for start in range(0, m, step):
        shape = (min(step, m - start), n)
        block = np.memmap(path, header.dtype, "r", header.offset + start * header.row_bytes, shape)
        yield block.view(np.ndarray).astype(header.native, copy=False)


def _read_npz(path: Path, budget: int, array: str | None) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile:
        raise ValueError("not an .npz file, or a truncated one") from None
    if array is None and {"format", "shape"} <= set(names):
        return _read_sparse(path)
    listed = ", ".join(names) if names else "none"
    if array is None and len(names) != 1:
        raise ValueError(f"the file must hold one array, got {listed}; choose one with --array NAME")
    if array is not None and array not in names:
        raise ValueError(f"there is no array named {array!r}; the file holds {listed}")
    member = (array or names[0]) + ".npy"
    with zipfile.ZipFile(path) as archive, archive.open(member) as handle:
        header = _read_header(handle)
    if header.nbytes > budget and not header.fortran:
        step = max(1, _block_bytes(budget) // max(header.row_bytes, 1))
        return RowBlocks(lambda: _member_blocks(path, member, step), header.shape, header.native)
    if 0 in header.shape:
        return np.empty(header.shape, header.native)
    if header.fortran:
        header = _Header(header.shape[::-1], True, header.dtype, header.offset)
        return next(_member_blocks(path, member, header.shape[0])).reshape(header.shape).T
    return next(_member_blocks(path, member, header.shape[0]))


def _member_blocks(path: Path, member: str, step: int) -> Iterator[np.ndarray]:
    """Read the rows of one array of an .npz file in order; columns, where it is stored in Fortran order."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as handle:
            header = _read_header(handle)
            m, n = header.shape[::-1] if header.fortran else header.shape
            for start in range(0, m, step):
                height = min(step, m - start)
                block = np.empty((height, n), header.dtype)
                _read_exactly(handle, block)
                yield block.astype(header.native, copy=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise FileError(f"{path}: the array in the .npz file is damaged or truncated: {_one_line(error)}") from error


def _read_exactly(handle: IO[bytes], block: np.ndarray) -> None:
    flat = block.reshape(-1).view(np.uint8)
    done = 0
    while done < flat.size:
        piece = handle.read(min(flat.size - done, 2**24))
        if not piece:
            raise EOFError(f"{flat.size - done} bytes are missing")
        flat[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)


def _read_sparse(path: Path) -> Any:
    import scipy.sparse as sp

    A = sp.load_npz(path)
    if A.format in ("csr", "csc", "bsr"):
        A.check_format(full_check=True)  # indices out of range would be read from outside the arrays later
    return sp.csr_array(A) if A.ndim == 2 else A


# --- Matrix Market ----------------------------------------------------------------------------------------------------


def _read_mtx(path: Path, budget: int) -> Any:  # noqa: ARG001  a reader's signature; this format is not streamed
    import scipy.io
    import scipy.sparse as sp

    try:
        A = scipy.io.mmread(path, spmatrix=False)
    except (ValueError, OverflowError, EOFError, TypeError) as error:
        raise ValueError(f"not a Matrix Market file, or a damaged or truncated one: {_one_line(error)}") from error
    return sp.csr_array(A) if sp.issparse(A) else A


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Layout of a text table, told from its first line."""

    delimiter: str
    n_header: int
    n_columns: int


def _lines(path: Path) -> IO[str]:
    return path.open(encoding="utf-8-sig", newline=None)


def _number(text: str) -> float | None:
    """The value of a field, or None if it is not a number; a quoted number counts."""
    try:
        return float(text.strip().strip('"'))
    except ValueError:
        return None


def _table_layout(path: Path, header: str) -> _Table:
    with _lines(path) as handle:
        n_blank = 0
        for line in handle:
            if line.strip():
                break
            n_blank += 1
        else:
            raise ValueError("the file has no rows")
    line = line.rstrip("\r\n")
    delimiter = max(",;\t", key=line.count)
    fields = line.split(delimiter)
    is_header = all(_number(field) is None for field in fields) if header == "auto" else header == "yes"
    if is_header and not fields[0].strip().strip('"') and len(fields) > 1:
        raise ValueError(
            "the first column has no name in the header, which is how pandas writes row labels; "
            "save the table without them (index=False)"
        )
    return _Table(delimiter, n_blank + 1 if is_header else 0, len(fields))


def _read_csv(path: Path, budget: int, header: str) -> Any:
    try:
        table = _table_layout(path, header)
        with path.open("rb") as handle:
            m = sum(1 for line in handle if line.strip()) - (table.n_header > 0)
    except UnicodeDecodeError as error:
        raise ValueError(f"not a text table in UTF-8: {_one_line(error)}") from error
    if m == 0:
        raise ValueError("the table has a header but no rows")
    shape = (m, table.n_columns)
    if math.prod(shape) * 8 > budget:
        return RowBlocks(lambda: _csv_blocks(path, table, _block_bytes(budget)), shape, np.float64)
    A = np.empty(shape)
    start = 0
    for block in _csv_blocks(path, table, BLOCK_BYTES):
        A[start : start + len(block)] = block
        start += len(block)
    return A


def _csv_blocks(path: Path, table: _Table, block_bytes: int) -> Iterator[np.ndarray]:
    number = table.n_header
    with _lines(path) as handle:
        for _ in range(table.n_header):
            handle.readline()
        # a value takes at least two characters in text and eight bytes here; lines and floats share the block's bytes
        while lines := handle.readlines(max(1, block_bytes // 8)):
            if any(map(str.strip, lines)):
                yield _parse_lines(path, table, lines, number)
            number += len(lines)


def _parse_lines(path: Path, table: _Table, lines: list[str], number: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            block = np.loadtxt(lines, delimiter=table.delimiter, ndmin=2, comments=None, quotechar='"')
        if block.shape[1] == table.n_columns:
            return block
    except ValueError:
        pass
    for offset, line in enumerate(lines, start=1):  # slow and exact: find the line to name
        fields = line.rstrip("\r\n").split(table.delimiter)
        if not line.strip():
            continue
        if len(fields) != table.n_columns:
            raise FileError(f"{path}: line {number + offset} must have {table.n_columns} values, got {len(fields)}")
        for column, field in enumerate(fields, start=1):
            if _number(field) is None:
                raise FileError(
                    f"{path}: line {number + offset}, column {column}: expected a number, got {field.strip()[:40]!r}"
                )
    raise FileError(f"{path}: lines {number + 1} to {number + len(lines)} could not be read as numbers")


def _parquet_columns(path: Path) -> tuple[list[Any], int]:
    """The numeric columns of the file, without row labels, and the number of rows."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise FileError(f"{path}: reading .parquet needs pyarrow; install it with: pip install 'randla[io]'") from None
    try:
        with pq.ParquetFile(path) as file:
            schema, m = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a Parquet file, or a truncated one: {_one_line(error)}") from error
    labels = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    columns = [field for field in schema if field.name not in labels]
    for field in columns:
        kind = field.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ValueError(f"column {field.name!r} must be numeric, got {kind}; drop it or encode it as numbers")
    return columns, m


def _read_parquet(path: Path, budget: int) -> Any:
    columns, m = _parquet_columns(path)
    import pyarrow as pa

    names = [field.name for field in columns]
    single = bool(columns) and all(field.type in (pa.float32(), pa.float16()) for field in columns)
    dtype = np.dtype(np.float32 if single else np.float64)
    shape = (m, len(names))
    if math.prod(shape) * dtype.itemsize > budget:
        step = max(1, _block_bytes(budget) // (2 * dtype.itemsize * len(names)))
        return RowBlocks(lambda: _parquet_blocks(path, names, dtype, step), shape, dtype)
    blocks = list(_parquet_blocks(path, names, dtype, 2**17)) if 0 not in shape else []
    return np.concatenate(blocks) if blocks else np.empty(shape, dtype)


def _parquet_blocks(path: Path, names: list[str], dtype: np.dtype[Any], step: int) -> Iterator[np.ndarray]:
    """Read record batches as row blocks; nulls become NaN."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=step, columns=names):
                block = np.empty((batch.num_rows, len(names)), dtype)
                for j, column in enumerate(batch.columns):
                    values = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
                    block[:, j] = values.to_numpy(zero_copy_only=False)
                yield block
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"{path}: damaged or truncated: {_one_line(error)}") from error


_READERS: dict[str, Callable[..., Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mtx": _read_mtx,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}


def sketch_blocks(S: Any, rows: RowBlocks, *, axis: int) -> np.ndarray:
    """Return ``S @ A`` (axis 0) or ``A @ S.T`` (axis 1) in one pass over the row blocks of A."""
    if axis == 1:
        return np.concatenate([block @ S.T for _, block in rows])
    total: Any = 0
    for start, block in rows:
        total = total + S.matmul(block, start=start)
    return np.asarray(total)


def take_column(A: Any, index: int) -> tuple[Any, np.ndarray]:
    """Return A without a column, and that column (m,); row blocks stay row blocks, and are read once for the column."""
    if isinstance(A, RowBlocks):
        column = np.concatenate([_dense_column(block, index) for _, block in A])
        rest = RowBlocks(
            lambda: (np.delete(block, index, axis=1) for _, block in A), (A.shape[0], A.shape[1] - 1), A.dtype
        )
        return rest, column
    if isinstance(A, np.ndarray):
        return np.delete(A, index, axis=1), A[:, index].copy()
    kept = np.delete(np.arange(A.shape[1]), index)
    return A[:, kept], _dense_column(A, index)


def _dense_column(A: Any, index: int) -> np.ndarray:
    column = A[:, [index]]
    return np.asarray(column.toarray() if hasattr(column, "toarray") else column)[:, 0]


# --- writing ----------------------------------------------------------------------------------------------------------


def check_output(path: str | os.PathLike[str], *, inputs: tuple[str | os.PathLike[str], ...] = ()) -> Path:
    """Return `path` as a place that can be written; called before the work, so that no result is lost after it.

    Raises
    ------
    FileError
        If the folder is missing or closed, if `path` is a folder, or if it is one of the input files.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise FileError(f"{path}: is a directory; name a file")
    if not target.parent.is_dir():
        raise FileError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent if not is_special(target) else target, os.W_OK):
        raise FileError(f"{path}: permission denied")
    for source in inputs:
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise FileError(f"{path}: is the input file; choose another name for the output")
    return target
