"""Arrays and tables become fields: ``.npy``, ``.npz``, CSV, Parquet. Rows go through some at a time."""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib.util
import itertools
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from h5fast.errors import ReadError, UnsupportedError
from h5fast.packing.layouts import Output
from h5fast.specs import Spec
from h5fast.target import partial_path
from h5fast.transaction import read_state

__all__ = ["is_table", "pack_columns"]

# Rows of a table are taken some MiB, or this many, at a time.
_BATCH_BYTES, _BATCH_ROWS = 4 << 20, 1 << 14
_FLUSH_BYTES = 1 << 30
# Whole numbers up to here are all different in float64.
_EXACT = 1 << 53
# Longer than any number is written.
_MOST_DIGITS = 400


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


def _common_rows(source: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    lengths = {name: shape[0] if shape else None for name, shape in shapes.items()}
    if not shapes or None in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(f"{source}: its arrays have to have the same number of rows, and have {lengths or 'none'}")
    return next(iter(shapes.values()))[0]


def _array_field(source: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[tuple[int, ...], Any]:
    if 0 in shape[1:]:
        raise ValueError(f"{source}: {name!r} is of shape {shape}: its rows hold nothing")
    if dtype.kind == "U":
        return shape[1:], str
    try:
        if dtype.hasobject or dtype.kind in "mM":
            raise TypeError
        h5py.h5t.py_create(dtype, logical=True)
    except TypeError:
        raise UnsupportedError(f"{source}: {name!r} is of {dtype}, for which HDF5 has no type") from None
    return shape[1:], dtype


def _read_npy(source: Path) -> Table:
    try:
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{source}: no .npy file that can be read: {error}") from error
    rows = _common_rows(source, {"data": array.shape})

    def batches(first: int) -> Iterator[dict[str, Any]]:
        for part in _row_slices(first, rows, array.nbytes // max(1, rows)):
            yield {"data": array[part]}

    return Table({"data": _array_field(source, "data", array.shape, array.dtype)}, rows, batches)


def _read_npz(source: Path) -> Table:
    """The arrays of an archive, which are never in memory as wholes (but for those in Fortran's order)."""
    with _damage_named(source), zipfile.ZipFile(source) as archive:
        heads = {info.filename.removesuffix(".npy"): _npy_head(source, archive, info) for info in archive.infolist()}
    rows = _common_rows(source, {name: shape for name, (shape, _, _) in heads.items()})
    fields = {name: _array_field(source, name, shape, dtype) for name, (shape, _, dtype) in heads.items()}
    width = sum(math.prod(shape) * dtype.itemsize for shape, _, dtype in heads.values()) // max(1, rows)

    def batches(first: int) -> Iterator[dict[str, Any]]:
        with _damage_named(source), zipfile.ZipFile(source) as archive, contextlib.ExitStack() as opened:
            arrays = {name: _streamed(opened.enter_context(archive.open(f"{name}.npy")), first) for name in heads}
            for part in _row_slices(first, rows, width):
                yield {name: read(part.stop - part.start) for name, read in arrays.items()}

    return Table(fields, rows, batches)


@contextlib.contextmanager
def _damage_named(source: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ReadError(errno.EIO, f"is damaged: {error}", str(source)) from error


_Head = tuple[tuple[int, ...], bool, np.dtype]  # shape, whether in Fortran's order, type


def _npy_head(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Head:
    if not info.filename.endswith(".npy"):
        raise ValueError(f"{source}: {info.filename!r} is no array")
    with archive.open(info) as file:
        try:
            return _read_head(file)
        except ValueError as error:
            raise ValueError(f"{source}: {info.filename!r} is no array that can be read: {error}") from error


def _read_head(file: IO[bytes]) -> _Head:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _streamed(file: IO[bytes], first: int) -> Callable[[int], np.ndarray]:
    """What reads so many rows of an array on, beginning with row `first`."""
    shape, in_columns, dtype = _read_head(file)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    if in_columns and len(shape) > 1:
        whole = np.frombuffer(file.read(shape[0] * row_bytes), dtype).reshape(shape[::-1]).T
        places = itertools.count(first)
        return lambda count: whole[[next(places) for _ in range(count)]]
    left = first * row_bytes
    while left:
        left -= len(file.read(min(left, _BATCH_BYTES)) or _ended(file))

    def read(count: int) -> np.ndarray:
        data = file.read(count * row_bytes)
        return np.frombuffer(data if len(data) == count * row_bytes else _ended(file), dtype).reshape(count, *shape[1:])

    return read


def _ended(file: IO[bytes]) -> bytes:
    raise EOFError(f"{file.name} is shorter than it says")


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


def _csv_lines(source: Path) -> Iterator[tuple[int, list[str]]]:
    """All lines, with their numbers."""
    with open(source, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            for row in rows:
                yield rows.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{source}, line {rows.line_num + 1}: is no CSV in UTF-8: {error}") from error


def _csv_rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """All lines but the first and empty ones, with their numbers."""
    return (found for found in itertools.islice(_csv_lines(source), 1, None) if found[1])


def _look_at_csv(source: Path) -> tuple[list[str], list[str], int]:
    """Names of the columns, what each is ("i", "f" or "s"), and how many rows there are."""
    names = next(_csv_lines(source), (1, []))[1]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{source}: its first line has to name the columns, each differently, and is {names}")
    kinds, count = ["i"] * len(names), 0
    exact = [True] * len(names)  # whether float64 holds all whole numbers so far
    for line, row in _csv_rows(source):
        if len(row) != len(names):
            raise ValueError(f"{source}, line {line}: has {len(row)} of the {len(names)} columns that the first line names")
        count += 1
        for place, text in enumerate(row):
            if kinds[place] != "s":
                kinds[place], exact[place] = _kind_with(text.strip(), kinds[place], exact[place])
            if "\0" in text:
                raise ValueError(f"{source}, line {line}: column {names[place]!r} has a NUL, where text in HDF5 ends")
    if not count:
        raise ValueError(f"{source}: has no rows")
    return names, kinds, count


def _kind_with(text: str, kind: str, exact: bool) -> tuple[str, bool]:
    """What a column of this kind is, and whether it is exact in float64, when it has this text too. Nothing is rounded: long whole
    numbers beside what is none stay text."""
    number = _whole(text)
    exact = exact and (number is None or abs(number) <= _EXACT)
    if kind == "i" and number is not None and -(1 << 63) <= number < 1 << 63:
        return "i", exact
    return ("f" if exact and _is_float(text) else "s"), exact


def _whole(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < _MOST_DIGITS else None


def _is_float(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return "_" not in text and len(text) < _MOST_DIGITS


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
        if column.null_count:  # flatten() would leave them out
            raise ValueError(f"{source}: column {name!r} has rows without a list, where all have to have one of {shape}")
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
