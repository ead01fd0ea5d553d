"""The fields of a loader's batches: which datasets of which files they come from, and who reads them.

Most are read by the engine, which needs nothing of Python for it. What it cannot read (strings, arrays, whatever only HDF5
decodes) is read batch by batch in the loader's thread. Nothing is read here but metadata.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np

from h5fast import transform
from h5fast._feed import Column
from h5fast._selection import Selection, select
from h5fast.fields import Field, Request
from h5fast.matrix import HDF5Matrix, Normalize
from h5fast.methods import reader_of
from h5fast.sources import Source, open_source
from h5fast.stored import Part

__all__ = ["EngineColumn", "PythonColumn", "Table", "open_table", "read_whole"]

Normalizer = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class EngineColumn:
    """A field that the engine reads.

    Attributes:
        name: in the batches
        parts: its files
        stored: what the rows are in the files, cropped, and what becomes of them
        row: what is taken of a row
        normalizer: what the rows of a batch go through after that, in Python; or None
    """

    name: str
    parts: tuple[Part, ...]
    stored: transform.Transform
    row: Selection
    itemsize: int
    normalizer: Normalizer | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.parts[-1].first + self.parts[-1].rows

    @property
    def is_cast_by_engine(self) -> bool:
        """Whether the engine hands out rows as they are wanted; else they come as stored, and :meth:`finish` does the rest."""
        return self.stored.is_identity or self.stored.cast().fused

    @property
    def batch_dtype(self) -> np.dtype:
        """Type of what the engine fills."""
        return self.stored.dtype if self.is_cast_by_engine else self.stored.stored

    @property
    def batch_row_shape(self) -> tuple[int, ...]:
        """Shape of a row of what the engine fills."""
        return self.stored.out_row_shape if self.is_cast_by_engine else self.stored.row_shape

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored, cropped."""
        return self.stored.stored.itemsize * math.prod(self.stored.row_shape)

    @property
    def out_bytes(self) -> int:
        """Bytes of a row in a batch."""
        return self.batch_dtype.itemsize * math.prod(self.batch_row_shape)

    def column(self) -> Column:
        """The engine's form of it, which keeps nothing yet."""
        cast = None if self.stored.is_identity or not self.is_cast_by_engine else self.stored.cast()
        parts = [(*part.chunks, part.first, part.rows, part.offset, _said(part.where)) for part in self.parts]
        return Column(parts, self.row, self.itemsize, self.row_bytes, self.out_bytes, cast)

    @property
    def finish(self) -> Normalizer | None:
        """What is left to do to the rows of a batch, in Python; None where nothing is."""
        if self.is_cast_by_engine:
            return self.normalizer
        return self._cast_by_numpy

    def _cast_by_numpy(self, rows: np.ndarray) -> Any:
        out = transform.output(self.stored, len(rows), None)
        self.stored.apply(rows, out)
        return out if self.normalizer is None else self.normalizer(out)

    def boundaries(self) -> np.ndarray:
        """First row of each group of rows that are decoded together, and the number of rows behind them."""
        firsts = []
        for part in self.parts:
            size = part.chunks[0].chunk[0]
            inner = np.arange(part.offset // size * size, part.offset + part.rows, size, dtype=np.int64) - part.offset
            firsts.append(np.maximum(inner, 0) + part.first)
        return np.concatenate([*firsts, [self.rows]])

    @property
    def is_decoded(self) -> bool:
        """Whether reading a row costs the decoding of its chunk."""
        return any(part.chunks[0].filter_count > 0 for part in self.parts)


class Reads(Protocol):
    """What reads rows for a :class:`PythonColumn`."""

    def __call__(self, rows: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class PythonColumn:
    """A field whose rows are read in Python.

    Attributes:
        name: in the batches
        rows: number of rows
        read: gives these rows (int64, in any order), as they go into the batch
        row_bytes: bytes of a row in a batch, as far as can be told
        form: what a row is, for messages and comparisons
    """

    name: str
    rows: int
    read: Reads
    row_bytes: int
    form: str


@dataclass(frozen=True)
class Table:
    """What a loader reads from.

    Attributes:
        columns: in the order of the batches
        form: of a batch: "dict", "tuple" or "single"
        rows: number of rows
        files: paths or open groups, in order; empty where the caller brought open datasets or arrays
        file_rows: rows of each of them
    """

    columns: tuple[EngineColumn | PythonColumn, ...]
    form: str
    rows: int
    files: tuple[str | h5py.Group, ...]
    file_rows: tuple[int, ...]

    @property
    def engine(self) -> list[EngineColumn]:
        """The columns that the engine reads."""
        return [column for column in self.columns if isinstance(column, EngineColumn)]

    @property
    def description(self) -> dict[str, str]:
        """Names and forms of the fields: what tells one dataset from another."""
        return {c.name: c.form if isinstance(c, PythonColumn) else f"{c.batch_dtype} {c.batch_row_shape}"
                for c in self.columns}


def open_table(source: Any, request: Request) -> Table:
    """Opens what a loader reads from.

    Raises:
        FileNotFoundError: a pattern that no file matches.
        OSError, KeyError: a file that cannot be opened, or has no such dataset; both name the file.
        ValueError: fields of different lengths, or of files that do not fit together, with their names.
        TypeError: a source that is none.
    """
    if isinstance(source, Mapping) and not isinstance(source, h5py.Group):
        columns = [_of_entry(name, field, source) for name, field in request.fields.items()]
        files, lengths = [], []
    else:
        files = list(_files(source))
        opened = {name: [open_source(file, field.name) for file in files] for name, field in request.fields.items()}
        columns = [_of_files(name, field, opened[name]) for name, field in request.fields.items()]
        lengths = [one.data.shape[0] for one in next(iter(opened.values()))]
    _check_lengths(columns)
    return Table(tuple(columns), request.form, columns[0].rows, tuple(files), tuple(lengths))


def read_whole(source: Any, name: str) -> np.ndarray:
    """All rows of a field of a source. Raises what :func:`open_table` raises."""
    if isinstance(source, Mapping) and not isinstance(source, h5py.Group):
        if name not in source:
            raise KeyError(f"the source has no {name!r}; it has {sorted(source)}")
        return np.asarray(source[name][...])
    opened = [open_source(file, name) for file in _files(source)]
    return np.concatenate([np.atleast_1d(one.data[...]) for one in opened])


def _files(source: Any) -> Iterator[str | h5py.Group]:
    if isinstance(source, h5py.Group):
        yield source
    elif isinstance(source, (str, bytes, os.PathLike)):
        path = os.fsdecode(source)
        if glob.has_magic(path) and not os.path.exists(path):
            found = sorted(glob.glob(path, recursive=True))
            if not found:
                raise FileNotFoundError(f"no file matches {path!r}")
            yield from found
        else:
            yield path
    elif isinstance(source, Sequence):
        if not source:
            raise ValueError("the list of files is empty")
        for one in source:
            yield from _files(one)
    else:
        raise TypeError(
            f"a loader reads from a path, a list or pattern of paths, an open file, or a mapping of names to datasets or "
            f"arrays, not from {type(source).__name__}"
        )


def _of_files(name: str, field: Field, datasets: list[Source]) -> EngineColumn | PythonColumn:
    parts: list[Part] | None = []
    for opened in datasets:
        _require_rows(name, opened.data, opened.path)
        inner = reader_of(opened.data).parts()
        if inner is None or parts is None:
            parts = None
            continue
        first = parts[-1].first + parts[-1].rows if parts else 0
        parts += [part._replace(first=first + part.first) for part in inner]
    _check_alike(name, datasets)
    if parts is None or not any(part.rows for part in parts):
        return _read_in_python(name, field, datasets, None)
    return _engine_column(name, field, datasets[0].data, tuple(part for part in parts if part.rows), None)


def _of_entry(name: str, field: Field, source: Mapping[str, Any]) -> EngineColumn | PythonColumn:
    if field.name not in source:
        raise KeyError(f"the source has no {field.name!r}; it has {sorted(source)}")
    entry = source[field.name]
    if isinstance(entry, HDF5Matrix):
        return _of_matrix(name, field, entry)
    if isinstance(entry, h5py.Dataset):
        opened = open_source(entry, None)
        _require_rows(name, opened.data, opened.path)
        parts = reader_of(opened.data).parts()
        if parts:
            return _engine_column(name, field, opened.data, tuple(parts), None)
        return _read_in_python(name, field, [opened], None)
    array = np.asarray(entry)
    if array.ndim == 0:
        raise ValueError(f"field {name!r}: {type(entry).__name__} is no array of rows")
    return _of_array(name, field, array)


def _of_matrix(name: str, field: Field, matrix: HDF5Matrix) -> EngineColumn | PythonColumn:
    asked = (field.dtype, field.scale, field.offset, field.channels_first or None)
    normalizer = matrix.normalizer
    if normalizer is not None and any(value is not None for value in asked):
        raise ValueError(f"field {name!r}: its HDF5Matrix has a normalizer; the field cannot ask for another conversion")
    if isinstance(normalizer, Normalize):
        field = Field(field.name, normalizer.dtype, normalizer.scale, normalizer.offset, normalizer.channels_first,
                      field.crop)
        normalizer = None
    opened = open_source(matrix.data, None)
    data = opened.data
    parts = [_narrowed(part, matrix.start, matrix.end) for part in reader_of(data).parts() or ()]
    kept = tuple(part for part in parts if part.rows > 0)
    if kept:
        return _engine_column(name, field, data, kept, normalizer)
    return _read_in_python(name, field, [opened], normalizer, matrix.start, len(matrix))


def _narrowed(part: Part, start: int, end: int) -> Part:
    """What of a part lies in rows [start, end), numbered from start."""
    low, high = max(part.first, start), min(part.first + part.rows, end)
    return part._replace(first=low - start, rows=high - low, offset=part.offset + low - part.first)


def _engine_column(name: str, field: Field, data: h5py.Dataset, parts: tuple[Part, ...],
                   normalizer: Normalizer | None) -> EngineColumn:
    crop = _crop(name, field, data.shape[1:])
    row = select((slice(0, 1), *crop), data.shape, True)
    wanted = transform.request(data.dtype, row.shape[1:], field.dtype, field.scale, field.offset, field.channels_first)
    return EngineColumn(name, parts, wanted, row, data.dtype.itemsize, normalizer)


def _crop(name: str, field: Field, shape: tuple[int, ...]) -> tuple[slice, ...]:
    crop = tuple(field.crop or ())
    if len(crop) > len(shape):
        raise ValueError(f"field {name!r}: crop names {len(crop)} axes, and a row has {len(shape)}")
    found = []
    for axis, (part, size) in enumerate(zip(crop, shape)):
        if part is None:
            found.append(slice(None))
        elif isinstance(part, slice):
            if len(range(*part.indices(size))) == 0 or (part.step or 1) < 1:
                raise ValueError(f"field {name!r}: {part} takes nothing of the {size} on axis {axis} of a row, or backwards")
            found.append(part)
        else:
            length = int(part)
            if not 0 < length <= size:
                raise ValueError(f"field {name!r}: crop to {length} of the {size} on axis {axis} of a row")
            start = (size - length) // 2
            found.append(slice(start, start + length))
    return tuple(found)


def _read_in_python(name: str, field: Field, opened: list[Source], normalizer: Normalizer | None, start: int = 0,
                    count: int | None = None) -> PythonColumn:
    """Rows of datasets that the engine cannot read, one after the other, through their readers."""
    data = [one.data for one in opened]
    lengths = [d.shape[0] for d in data]
    ends = np.cumsum(lengths)
    crop = _crop(name, field, data[0].shape[1:])
    convert = any(v is not None for v in (field.dtype, field.scale, field.offset)) or field.channels_first

    def take(dataset: Any, rows: np.ndarray) -> np.ndarray:
        if crop:
            taken = dataset[(rows, *crop)]
        elif convert:
            return np.asarray(dataset.take(rows, dtype=field.dtype, scale=field.scale, offset=field.offset,
                                           channels_first=field.channels_first))
        else:
            taken = dataset.take(rows)
        return np.asarray(taken)

    def read(rows: np.ndarray) -> Any:
        rows = rows + start
        owner = np.searchsorted(ends, rows, side="right")
        used = np.unique(owner)
        if len(used) == 1:
            number = int(used[0])
            out = take(opened[number].data, rows - (ends[number] - lengths[number]))  # an opened one keeps its file open
        else:
            pieces = {n: np.flatnonzero(owner == n) for n in used}
            taken = {n: take(opened[n].data, rows[at] - (ends[n] - lengths[n])) for n, at in pieces.items()}
            sample = next(iter(taken.values()))
            out = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
            for n, at in pieces.items():
                out[at] = taken[n]
        return out if normalizer is None else normalizer(out)

    sample_shape = data[0].shape[1:]
    row_bytes = data[0].dtype.itemsize * math.prod(sample_shape)
    if crop and convert:
        raise ValueError(f"field {name!r}: a crop and a conversion together need a dataset that is read directly; this one "
                         f"is not ({reader_of(data[0]).path})")
    return PythonColumn(name, int(ends[-1]) if count is None else count, read, row_bytes, f"{data[0].dtype} {sample_shape}")


def _of_array(name: str, field: Field, array: np.ndarray) -> PythonColumn:
    crop = _crop(name, field, array.shape[1:])
    array = array[(slice(None), *crop)]
    wanted = transform.request(array.dtype, array.shape[1:], field.dtype, field.scale, field.offset, field.channels_first)

    def read(rows: np.ndarray) -> np.ndarray:
        taken = array.take(rows, axis=0)
        if wanted.is_identity:
            return taken
        out = transform.output(wanted, len(rows), None)
        wanted.apply(taken, out)
        return out

    row_bytes = wanted.dtype.itemsize * math.prod(wanted.out_row_shape)
    return PythonColumn(name, len(array), read, row_bytes, f"{wanted.dtype} {wanted.out_row_shape}")


def _require_rows(name: str, data: Any, path: str) -> None:
    if not data.shape:
        raise ValueError(f"field {name!r}: {data.name!r} of {path} has no rows: its shape is {data.shape}")


def _check_alike(name: str, datasets: list[Any]) -> None:
    """Rows of several files go into one batch: they must have one shape and type."""
    first = datasets[0]
    for other in datasets[1:]:
        if other.data.shape[1:] != first.data.shape[1:] or other.data.dtype != first.data.dtype:
            raise ValueError(
                f"field {name!r}: rows of {first.path} are {first.data.dtype} {first.data.shape[1:]}, those of {other.path} "
                f"are {other.data.dtype} {other.data.shape[1:]}"
            )


def _check_lengths(columns: list[EngineColumn | PythonColumn]) -> None:
    lengths = {column.name: column.rows for column in columns}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the fields have different numbers of rows: {lengths}{_unequal_file(columns)}")


def _unequal_file(columns: list[EngineColumn | PythonColumn]) -> str:
    """Which file it is in, where that can be told."""
    engine = [column for column in columns if isinstance(column, EngineColumn)]
    for one in engine:
        for other in engine:
            for mine, theirs in zip(one.parts, other.parts):
                if mine.rows != theirs.rows:
                    return f"; the first that differ: {mine.where} ({mine.rows}), {theirs.where} ({theirs.rows})"
    return ""


def _said(text: str) -> Callable[[], str]:
    return lambda: text
