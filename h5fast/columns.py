"""The fields of a loader's batches: which datasets of which files they come from, and who reads them.

Most are read by the engine, which needs nothing of Python for it. What it cannot read (strings, arrays, whatever only HDF5
decodes) is read batch by batch in the loader's thread.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from h5fast.engine_column import EngineColumn, engine_column
from h5fast.fields import Field, Request
from h5fast.images_column import images_column
from h5fast.matrix import HDF5Matrix, Normalize
from h5fast.methods import reader_of
from h5fast.objects import File
from h5fast.opened import rest
from h5fast.python_column import PythonColumn, array_column, dataset_column, is_text
from h5fast.samples import check_same_names, find_samples, is_pattern, samples_column
from h5fast.sliding import array_windows, window_column
from h5fast.sources import Source, open_source, require_untrusted
from h5fast.sparse import csr_column
from h5fast.stored import Part

__all__ = ["EngineColumn", "PythonColumn", "Table", "open_table", "read_whole"]


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


def open_table(source: Any, request: Request, *, untrusted: bool = False) -> Table:
    """Opens what a loader reads from; with `untrusted`, files as :class:`h5fast.File` does with the option of that name.

    Raises:
        FileNotFoundError: a pattern that no file matches.
        OSError, KeyError: a file that cannot be opened, or has no such dataset; both name the file.
        ValueError: fields of different lengths, or of files that do not fit together, with their names.
        TypeError: a source that is none.
    """
    if isinstance(source, Mapping) and not isinstance(source, h5py.Group):
        if untrusted:
            raise ValueError("untrusted=True is for paths: open the datasets of the mapping from File(path, untrusted=True)")
        columns = [_of_entry(name, field, source) for name, field in request.fields.items()]
        files: list[str | h5py.Group] = []
    else:
        files = list(_files(source))
        if untrusted:
            files = [_opened_untrusted(file) for file in files]
        samples = {name: [find_samples(name, file, field.name) for file in files]
                   for name, field in request.fields.items() if is_pattern(field.name)}
        if samples:
            check_same_names(samples)
        columns = [samples_column(name, field, samples[name]) if name in samples else _of_files(name, field, files)
                   for name, field in request.fields.items()]
    _check_lengths(columns, files)
    for file in files if untrusted else ():
        rest(file)
    return Table(tuple(columns), request.form, columns[0].rows, tuple(files), columns[0].file_rows if files else ())


def read_whole(source: Any, name: str) -> np.ndarray:
    """All rows of a field of a source. Raises what :func:`open_table` raises."""
    if isinstance(source, Mapping) and not isinstance(source, h5py.Group):
        if name not in source:
            raise KeyError(f"the source has no {name!r}; it has {sorted(source)}")
        return np.asarray(source[name][...])
    opened = [open_source(file, name) for file in _files(source)]  # what was opened as untrusted comes open
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


def _opened_untrusted(file: str | h5py.Group) -> h5py.Group:
    if isinstance(file, str):
        return File(file, "r", untrusted=True)
    require_untrusted(file, True)
    return file


def _of_files(name: str, field: Field, files: list[str | h5py.Group]) -> EngineColumn | PythonColumn:
    if field.layout == "csr":
        return csr_column(name, field, files, field.name)
    if field.layout == "encoded":
        return images_column(name, field, files, field.name)
    return _of_datasets(name, field, [open_source(file, field.name) for file in files])


def _of_datasets(name: str, field: Field, datasets: list[Source]) -> EngineColumn | PythonColumn:
    for opened in datasets:
        _require_rows(name, opened.data, opened.path)
    _check_alike(name, datasets)
    if field.window is not None:
        return window_column(name, field, datasets)
    parts = _engine_parts(datasets)
    if parts is None or is_text(field.dtype) or not any(part.rows for part in parts):
        return dataset_column(name, field, datasets, None)
    return engine_column(name, field, datasets[0].data.shape, datasets[0].data.dtype, tuple(part for part in parts if part.rows), None,
                         tuple(opened.data.shape[0] for opened in datasets))


def _engine_parts(datasets: list[Source]) -> list[Part] | None:
    """Where the rows lie, one dataset after the other; None where the engine cannot read all of them."""
    parts: list[Part] = []
    for opened in datasets:
        inner = reader_of(opened.data).parts()
        if inner is None:
            return None
        first = parts[-1].first + parts[-1].rows if parts else 0
        parts += [part._replace(first=first + part.first) for part in inner]
    return parts


def _of_entry(name: str, field: Field, source: Mapping[str, Any]) -> EngineColumn | PythonColumn:
    if field.name not in source:
        raise KeyError(f"the source has no {field.name!r}; it has {sorted(source)}")
    entry = source[field.name]
    if field.layout == "csr":
        if not isinstance(entry, h5py.Group):
            raise TypeError(f"field {name!r}: layout='csr' needs an open group, not {type(entry).__name__}")
        return csr_column(name, field, [entry], "")
    if field.layout == "encoded":
        if not isinstance(entry, h5py.Group):
            raise TypeError(f"field {name!r}: layout='encoded' needs an open group, not {type(entry).__name__}")
        return images_column(name, field, [entry], "")
    if isinstance(entry, HDF5Matrix):
        if field.window is not None:
            raise ValueError(f"field {name!r}: windows are of a dataset or an array, not of an HDF5Matrix; take its data")
        return _of_matrix(name, field, entry)
    if isinstance(entry, h5py.Dataset):
        return _of_datasets(name, field, [open_source(entry, None)])
    array = np.asarray(entry)
    if array.ndim == 0:
        raise ValueError(f"field {name!r}: {type(entry).__name__} is no array of rows")
    return array_column(name, field, array if field.window is None else array_windows(name, field, array))


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
    if kept and not is_text(field.dtype):
        column = engine_column(name, field, data.shape, data.dtype, kept, normalizer)
        made = 0 if normalizer is None else matrix.dtype.itemsize * math.prod(matrix.shape[1:])
        return replace(column, normalized_bytes=made)
    return dataset_column(name, field, [opened], normalizer, matrix.start, len(matrix))


def _narrowed(part: Part, start: int, end: int) -> Part:
    """What of a part lies in rows [start, end), numbered from start."""
    low, high = max(part.first, start), min(part.first + part.rows, end)
    return part._replace(first=low - start, rows=high - low, offset=part.offset + low - part.first)


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


def _check_lengths(columns: list[EngineColumn | PythonColumn], files: list[str | h5py.Group]) -> None:
    """Fields of one row lie at one place: in each file there must be as many rows of each."""
    lengths = {column.name: column.rows for column in columns}
    for column in columns:
        for number, (rows, first_rows) in enumerate(zip(column.file_rows, columns[0].file_rows)):
            if rows != first_rows:
                file = files[number]
                where = file if isinstance(file, str) else file.file.filename
                raise ValueError(f"the fields have different numbers of rows: {lengths}; the first file in which they differ "
                                 f"is {where}: {columns[0].name!r} ({first_rows}), {column.name!r} ({rows})")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the fields have different numbers of rows: {lengths}")
