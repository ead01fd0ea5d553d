"""Rows of an HDF5 file, shared out to several files: chunks that move as a whole are moved as they are stored."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5p, h5s, h5t

from h5fast.copying import TreeCopy
from h5fast.errors import ReadError, UnsupportedError
from h5fast.methods import reader_of
from h5fast.objects import Dataset, File
from h5fast.outputs import Output, open_output
from h5fast.own_groups import INDEX_GROUP
from h5fast.plugins import missing, register_plugins
from h5fast.splits import GROUP
from h5fast.target import finished_together

__all__ = ["RowFile", "Share", "write_rows"]

# What says which rows or members the whole file has.
_OWN = (GROUP, INDEX_GROUP)
# Rows that are decoded and encoded again go through so many bytes at a time.
_BATCH_BYTES = 8 << 20
# Chunks that are moved before anybody is asked whether to go on: a tenth of a second.
_MOVED = 1 << 14


@dataclass(frozen=True)
class RowFile:
    """What of a file is rows.

    Attributes:
        file: the open file
        rows: how many there are
        fields: the datasets that have so many; all else belongs to no row, and is copied to each part
    """

    file: File
    rows: int
    fields: Mapping[str, Dataset]

    @classmethod
    def of(cls, file: File) -> RowFile:
        """The rows of a file: those of its largest dataset, and of all that are as long.

        Raises:
            ValueError: it has no dataset with rows.
        """
        found = {name: file[name] for name in _datasets(file) if file[name].shape}
        if not found:
            raise ValueError(f"{file.filename} has no dataset with rows")
        rows = max(found.values(), key=lambda dataset: dataset.size * dataset.id.get_type().get_size()).shape[0]
        fields = {name: dataset for name, dataset in found.items() if dataset.shape[0] == rows and name != "class_names"}
        return cls(file, rows, fields)

    def labels(self, stratify: bool | str) -> np.ndarray | None:
        """The class of each row; None where there is none, or it is not asked for.

        Raises:
            KeyError: the dataset that is asked for is not one of a number or text for each row.
        """
        name = "label" if stratify is True else stratify
        if not isinstance(name, str):
            return None
        dataset = self.file.get(name)
        if not isinstance(dataset, Dataset) or dataset.shape != (self.rows,):
            if stratify is True:
                return None
            raise KeyError(f"{self.file.filename} has no dataset {name!r} with one value for each of its {self.rows} rows")
        return np.asarray(dataset[()])


    def numbers(self) -> dict[str, int]:
        """The number of each class, by its name, as far as the file tells."""
        names = self.file.get("class_names")
        if not isinstance(names, Dataset) or names.ndim != 1 or h5py.check_string_dtype(names.dtype) is None:
            return {}
        return {name.decode("utf-8", "surrogateescape"): number for number, name in enumerate(names[()].tolist())}


def _datasets(file: h5py.File) -> list[str]:
    """Paths of all datasets that lie in the file by hard links, without those of splits."""
    found: list[str] = []

    def visit(name: str, what: Any) -> None:
        if isinstance(what, h5py.Dataset) and name.split("/")[0] not in _OWN:
            found.append(name)

    file.visititems(visit)
    return found


def write_rows(
    source: RowFile, parts: Mapping[str, np.ndarray], paths: Mapping[str, Path], *, memory: int, overwrite: bool
) -> None:
    """Writes the rows of each part, ascending, to its file, stored as in the source, and with it all that belongs to no row; the
    files get their names when all are complete."""
    with finished_together(paths, overwrite=overwrite) as targets:
        for part, target in targets.items():
            recipes = dict.fromkeys(source.fields, Share(parts[part]))
            own = frozenset(name.encode() for name in _OWN)
            TreeCopy(source.file, target.file, recipes, memory, target.check, without=own).run()
            target.rows = len(parts[part])


@dataclass(frozen=True)
class Share:
    """Some rows of a dataset, as a recipe of :class:`~h5fast.copying.TreeCopy`.

    Attributes:
        rows: ascending
    """

    rows: np.ndarray

    def create(
        self, source: h5py.Dataset, group: h5g.GroupID, name: bytes, kind: h5t.TypeID, links: h5p.PropLCID | None = None
    ) -> h5d.DatasetID:
        """An empty dataset like `source`, of so many rows."""
        properties, length = source.id.get_create_plist(), len(self.rows)
        if missing(properties) is not None:
            raise UnsupportedError(f"{source.file.filename}: {source.name!r} cannot be shared out: {missing(properties)}")
        register_plugins(properties)
        limits = tuple(h5s.UNLIMITED if limit is None else limit for limit in source.maxshape)
        limits = (length if length and limits[0] != h5s.UNLIMITED else h5s.UNLIMITED, *limits[1:])
        if properties.get_layout() == h5d.CHUNKED:
            if limits[0] != h5s.UNLIMITED and source.chunks[0] > length:
                properties.set_chunk((length, *source.chunks[1:]))
        else:
            limits = (length, *limits[1:])
            if properties.get_layout() != h5d.CONTIGUOUS or properties.get_external_count():
                properties = h5p.create(h5p.DATASET_CREATE)  # what lies elsewhere, or in the header, lies in the file
                properties.set_obj_track_times(False)
        properties.set_obj_track_times(False)
        return h5d.create(group, name, kind, h5s.create_simple((length, *source.shape[1:]), limits), properties, links)

    def fill(self, source: h5py.Dataset, target: h5py.Dataset, memory: int, check: Callable[[], None]) -> None:
        """Writes the rows: whole chunks as they are stored, others decoded and encoded."""
        if not target.size or source.id.get_type().detect_class(h5t.REFERENCE):
            return
        output = open_output(target, memory, 0)
        chunk = output.chunk_rows
        for moved, part in _runs(self.rows, chunk) if _is_movable(source, target) else [(False, self.rows)]:
            if moved:
                _move(source, part[::chunk], output, check)
            else:
                step = max(1, min(_BATCH_BYTES, memory // 8) // max(1, source.dtype.itemsize * math.prod(source.shape[1:])))
                for at in range(0, len(part), step):
                    output.add(np.asarray(source.take(part[at : at + step])))
                    check()
        output.close()
        check()

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """The rows among all."""
        found: np.ndarray = values[self.rows]
        return found


def _is_movable(source: Dataset, target: h5py.Dataset) -> bool:
    """Whether chunks can be moved from one to the other: alike, of whole rows, and all there. Which one is not, HDF5 tells too
    slowly."""
    if source.chunks is None or source.chunks != target.chunks or source.chunks[1:] != source.shape[1:]:
        return False
    if source.dtype.hasobject:
        return False
    return bool(source.id.get_num_chunks() == -(-source.shape[0] // source.chunks[0]))


def _move(source: Dataset, rows: np.ndarray, output: Output, check: Callable[[], None]) -> None:
    """Moves the chunks that begin with these rows as they are stored."""
    direct = reader_of(source).parts()
    if direct is not None and len(direct) == 1:
        for at in range(0, len(rows), _MOVED):
            output.add_moved(direct[0].chunks, rows[at : at + _MOVED], lambda: f"{source.file.filename}::{source.name}")
            check()
        changed = direct[0].chunks[2].changed()
        if changed:
            raise ReadError(errno.ESTALE, f"changed while it was shared out: {changed}", source.file.filename)
        return
    for first in rows.tolist():
        mask, stored = source.id.read_direct_chunk((first, *(0,) * (source.ndim - 1)))
        output.add_stored(stored, mask, output.chunk_rows)


def _runs(rows: np.ndarray, chunk: int) -> Iterator[tuple[bool, np.ndarray]]:
    """The rows in runs: of those that are whole chunks there and here, and of others."""
    whole = len(rows) // chunk
    blocks = rows[: whole * chunk].reshape(whole, chunk)
    moved = (blocks[:, 0] % chunk == 0) & (blocks[:, -1] - blocks[:, 0] == chunk - 1)  # ascending, each once
    edges = np.flatnonzero(np.diff(moved)) + 1
    for group in np.split(np.arange(whole), edges):
        if len(group):
            yield bool(moved[group[0]]), rows[group[0] * chunk : (group[-1] + 1) * chunk]
    if len(rows) > whole * chunk:
        yield False, rows[whole * chunk :]
