"""Rows of an HDF5 file, shared out to several files: chunks that move as a whole are moved as they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast.methods import reader_of
from h5fast.objects import Dataset, File
from h5fast.outputs import Output
from h5fast.specs import Spec
from h5fast.splits import GROUP
from h5fast.target import CODEC_ATTRIBUTE, ROWS_ATTRIBUTE, AtomicTarget, Plan

__all__ = ["RowFile", "write_rows"]

# Rows that are decoded and encoded again go through so many bytes at a time.
_BATCH_BYTES = 8 << 20


@dataclass(frozen=True)
class RowFile:
    """What of a file is rows.

    Attributes:
        file: the open file
        rows: how many there are
        fields: the datasets that have so many
        others: the names of what belongs to no row, and is copied to each part
    """

    file: File
    rows: int
    fields: Mapping[str, Dataset]
    others: tuple[str, ...]

    @classmethod
    def of(cls, file: File) -> RowFile:
        """The rows of a file: those of its largest dataset, and of all that are as long.

        Raises:
            ValueError: it has no dataset with rows.
        """
        found: dict[str, Dataset] = {}
        scalars: list[str] = []
        for name in _datasets(file):
            dataset = file[name]
            if dataset.shape:
                found[name] = dataset
            else:
                scalars.append(name)
        if not found:
            raise ValueError(f"{file.filename} has no dataset with rows")
        rows = max(found.values(), key=lambda dataset: dataset.size * dataset.dtype.itemsize).shape[0]
        fields = {name: dataset for name, dataset in found.items() if dataset.shape[0] == rows and name != "class_names"}
        return cls(file, rows, fields, tuple(scalars + [name for name in found if name not in fields]))

    def labels(self, stratify: bool | str) -> np.ndarray | None:
        """The class of each row; None where there is none, or it is not asked for.

        Raises:
            KeyError: the dataset that is asked for is not one of a number or text for each row.
        """
        name = "label" if stratify is True else stratify
        if not isinstance(name, str):
            return None
        dataset = self.fields.get(name.strip("/"))
        if dataset is None or dataset.ndim != 1:
            if stratify is True:
                return None
            raise KeyError(f"{self.file.filename} has no dataset {name!r} with one value for each of its {self.rows} rows")
        return np.asarray(dataset[()])


def _datasets(file: h5py.File) -> list[str]:
    """Paths of all datasets that lie in the file by hard links, without those of splits."""
    found: list[str] = []

    def visit(name: str, what: Any) -> None:
        if isinstance(what, h5py.Dataset) and what.shape is not None and not name.startswith((f"{GROUP}/", ".h5fast/")):
            found.append(name)

    file.visititems(visit)
    return found


def write_rows(
    source: RowFile, parts: Mapping[str, np.ndarray], paths: Mapping[str, Path], *, memory: int, overwrite: bool
) -> None:
    """Writes the rows of each part, ascending, to its file, stored as in the source; all files appear when all are complete."""
    targets: dict[str, AtomicTarget] = {}
    done = False
    try:
        for part, path in paths.items():
            targets[part] = AtomicTarget(path, overwrite=overwrite, resume=False)
        for part, target in targets.items():
            _fill(source, parts[part], target, memory)
        for part in list(targets):
            targets[part].finish()
            del targets[part]
        done = True
    finally:
        if not done:
            for target in targets.values():
                target.leave()
                target.path.unlink(missing_ok=True)


def _fill(source: RowFile, rows: np.ndarray, target: AtomicTarget, memory: int) -> None:
    fields = {name: Spec.of(dataset, attrs=_attributes(dataset)) for name, dataset in source.fields.items()}
    for key, value in _attributes(source.file).items():
        target.file.attrs[key] = value
    for name in source.others:
        parent = target.file.require_group(name.rpartition("/")[0] or "/")
        source.file.copy(name, parent, name.rpartition("/")[2])
    target.begin(fields, Plan(len(rows), "random rows", memory))
    for name, dataset in source.fields.items():
        output = target.outputs[name]
        chunk = output.chunk_rows
        output.dataset.resize(len(rows), axis=0)  # once, and not for each chunk
        for moved, part in _runs(rows, chunk) if _is_movable(dataset, output.dataset) else [(False, rows)]:
            if moved:
                _move(dataset, part[::chunk], output)
            else:
                step = max(1, _BATCH_BYTES // max(1, fields[name].row_bytes))
                for at in range(0, len(part), step):
                    output.add(np.asarray(dataset.take(part[at : at + step])))
        target.check()


def _is_movable(dataset: Dataset, target: h5py.Dataset) -> bool:
    """Whether chunks can be moved from one to the other: alike, and all there. Which one is not, HDF5 tells too slowly."""
    if dataset.chunks is None or dataset.chunks != target.chunks or dataset.dtype.hasobject:
        return False
    return bool(dataset.id.get_num_chunks() == -(-dataset.shape[0] // dataset.chunks[0]))


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


def _move(dataset: Dataset, rows: np.ndarray, output: Output) -> None:
    """Moves the chunks that begin with these rows as they are stored."""
    direct = reader_of(dataset).parts()
    if direct is not None and len(direct) == 1:
        output.add_moved(direct[0].chunks, rows, lambda: f"{dataset.file.filename}::{dataset.name}")
        return
    for first in rows.tolist():
        mask, stored = dataset.id.read_direct_chunk((first, *(0,) * (dataset.ndim - 1)))
        output.add_stored(stored, mask, output.chunk_rows)


def _attributes(thing: Any) -> dict[str, Any]:
    """The attributes of a dataset or file that mean the same in another file."""
    found = {}
    for key in thing.attrs:
        if key in (ROWS_ATTRIBUTE, CODEC_ATTRIBUTE):
            continue
        dtype = thing.attrs.get_id(key).dtype
        refers = h5py.check_ref_dtype(dtype) or h5py.check_ref_dtype(h5py.check_vlen_dtype(dtype) or np.dtype("u1"))
        if not refers and dtype.names is None:
            found[key] = thing.attrs[key]
    return found
