"""Arrays and tables become fields: ``.npy``, ``.npz``, CSV, Parquet. Rows go through some at a time."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from h5fast.errors import UnsupportedError
from h5fast.packing.layouts import Output
from h5fast.specs import Spec
from h5fast.target import partial_path
from h5fast.transaction import read_state

__all__ = ["is_table", "pack_columns"]

# Rows of a table are taken some MiB, or this many, at a time.
_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 1 << 14
_FLUSH_BYTES = 1 << 30


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        fields: shape and type of a row of each column
        rows: how many there are
        batches: gives them, from a row on, some at a time
    """

    fields: Mapping[str, tuple[tuple[int, ...], Any]]
    rows: int
    batches: Callable[[int], Iterator[dict[str, Any]]]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row; of texts, of what refers to them."""
        return sum(Spec(shape, dtype).row_bytes for shape, dtype in self.fields.values())


def is_table(source: Any) -> bool:
    """Whether a source is one of these files, by its name."""
    try:
        path = Path(source)
    except TypeError:
        return False
    return path.suffix.lower() in _READERS and not path.is_dir()


def pack_columns(source: Path, output: Output, codec: Any, chunk_rows: int | str, *, dry_run: bool) -> tuple[int, int]:
    """Packs a table; returns its rows and their bytes.

    Raises:
        ValueError: it has a short line, columns of different lengths, or names that no dataset can have.
        UnsupportedError: a column has a type that HDF5 has not. ``ImportError``: Parquet needs pyarrow.
    """
    table = _READERS[source.suffix.lower()](source)
    for name in table.fields:
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise ValueError(f"{source}: a column is called {name!r}, which no dataset can be")
    size = table.rows * table.row_bytes
    if dry_run:
        return table.rows, size
    if output.resume and read_state(partial_path(output.path)) is None:
        output = replace(output, resume=False, overwrite=output.overwrite)
    fields = {name: Spec(shape, dtype, codec=codec, chunk_rows=chunk_rows) for name, (shape, dtype) in table.fields.items()}
    with output.writer(fields, {}) as writer:
        since = 0
        for batch in table.batches(writer.rows):
            writer.append(batch)
            since += len(next(iter(batch.values()))) * table.row_bytes
            if since >= _FLUSH_BYTES:
                writer.flush()
                since = 0
    return table.rows, size


def _row_slices(first: int, rows: int, row_bytes: int) -> Iterator[slice]:
    step = max(1, _BATCH_BYTES // max(1, row_bytes))
    for start in range(first, rows, step):
        yield slice(start, min(start + step, rows))


def _from_arrays(source: Path, arrays: Mapping[str, np.ndarray]) -> Table:
    lengths = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if not arrays or None in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(f"{source}: its arrays have to have the same number of rows, and have {lengths or 'none'}")
    for name, array in arrays.items():
        if array.dtype.hasobject or array.dtype.kind in "mM":
            raise UnsupportedError(f"{source}: {name!r} is of {array.dtype}, for which HDF5 has no type")
    rows = next(iter(arrays.values())).shape[0]
    fields = {name: (array.shape[1:], str if array.dtype.kind == "U" else array.dtype) for name, array in arrays.items()}
    width = sum(array.nbytes for array in arrays.values()) // max(1, rows)

    def batches(first: int) -> Iterator[dict[str, Any]]:
        for part in _row_slices(first, rows, width):
            yield {name: array[part] for name, array in arrays.items()}

    return Table(fields, rows, batches)


def _read_npy(source: Path) -> Table:
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{source}: no .npy file that can be read: {error}") from error
    return _from_arrays(source, {"data": array})


def _read_npz(source: Path) -> Table:
    try:
        with np.load(source, allow_pickle=False) as found:
            return _from_arrays(source, {name: found[name] for name in found.files})
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source}: {error}") from error


def _read_csv(source: Path) -> Table:
    """The columns of a CSV file, whose first line names them. It is gone through once to see what they are, once to pack them."""
    names, kinds, rows = _look_at_csv(source)
    dtypes: dict[str, Any] = {"i": np.int64, "f": np.float64, "s": str}
    readers: dict[str, Callable[[list[str]], Any]] = {
        "i": lambda column: np.array(column, np.int64),
        "f": lambda column: np.array([text.strip() or "nan" for text in column], np.float64),
        "s": lambda column: np.array(column, object),
    }

    def batches(first: int) -> Iterator[dict[str, Any]]:
        waiting: list[list[str]] = []
        for number, (_, row) in enumerate(_csv_rows(source)):
            if number >= first:
                waiting.append(row)
            if len(waiting) == _BATCH_ROWS:
                yield {name: readers[kind](list(column)) for name, kind, column in zip(names, kinds, zip(*waiting))}
                waiting = []
        if waiting:
            yield {name: readers[kind](list(column)) for name, kind, column in zip(names, kinds, zip(*waiting))}

    return Table({name: ((), dtypes[kind]) for name, kind in zip(names, kinds)}, rows, batches)


def _csv_rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """All lines but the first, with their numbers."""
    with open(source, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in rows:
            if row:
                yield rows.line_num, row


def _look_at_csv(source: Path) -> tuple[list[str], list[str], int]:
    """Names of the columns, what each is ("i", "f" or "s"), and how many rows there are."""
    with open(source, newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), [])
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{source}: its first line has to name the columns, each differently, and is {names}")
    kinds, count = ["i"] * len(names), 0
    for line, row in _csv_rows(source):
        if len(row) != len(names):
            raise ValueError(f"{source}, line {line}: has {len(row)} of the {len(names)} columns that the first line names")
        count += 1
        for place, text in enumerate(row):
            if kinds[place] != "s" and not _fits(text.strip(), kinds[place]):
                kinds[place] = "f" if kinds[place] == "i" and _fits(text.strip(), "f") else "s"
    if not count:
        raise ValueError(f"{source}: has no rows")
    return names, kinds, count


def _fits(text: str, kind: str) -> bool:
    if kind == "i":
        digits = text.removeprefix("-").removeprefix("+")
        return digits.isascii() and digits.isdecimal() and len(digits) <= 18  # of any 18 digits int64 has room
    try:
        float(text or "nan")
    except ValueError:
        return False
    return "_" not in text


def _read_parquet(source: Path) -> Table:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{source}: reading Parquet needs pyarrow: pip install pyarrow")
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(source)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{source}: {error}") from error
    fields = {column.name: _arrow_field(source, column) for column in file.schema_arrow}

    def batches(first: int) -> Iterator[dict[str, Any]]:
        at = 0
        for batch in file.iter_batches(_BATCH_ROWS):
            part = batch.slice(max(0, first - at))
            at += batch.num_rows
            if part.num_rows:
                yield {name: _from_arrow(source, name, part.column(place), *fields[name]) for place, name in enumerate(fields)}

    return Table(fields, file.metadata.num_rows, batches)


def _arrow_field(source: Path, column: Any) -> tuple[tuple[int, ...], Any]:
    from pyarrow import types

    kind: Any = column.type
    shape: tuple[int, ...] = ()
    while types.is_fixed_size_list(kind):
        kind, shape = kind.value_type, (*shape, kind.list_size)
    if types.is_string(kind) or types.is_large_string(kind):
        return shape, str
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return shape, np.dtype(kind.to_pandas_dtype())
    raise UnsupportedError(
        f"{source}: column {column.name!r} is of type {column.type}: numbers, texts and lists of a fixed size can be packed"
    )


def _from_arrow(source: Path, name: str, column: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    for _ in shape:
        column = column.flatten()
    if column.null_count and dtype is not str and np.dtype(dtype).kind != "f":
        raise ValueError(f"{source}: column {name!r} has rows without a value, which {dtype} cannot hold")
    if dtype is str:
        return np.array([text or "" for text in column.to_pylist()], object).reshape(-1, *shape)
    return column.to_numpy(zero_copy_only=False).reshape(-1, *shape)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
