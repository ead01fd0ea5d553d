"""Files in an HDF5 file, shared out to several such files: copied as they are stored, or as their bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast.class_numbers import labels_path
from h5fast.objects import File
from h5fast.packing.labels import ClassNumbers
from h5fast.packing.layouts import EncodedSink, Output, stored_name
from h5fast.packing.members import Member, opened_bytes
from h5fast.target import AtomicTarget, finished_together, partial_path
from h5fast.transaction import drop_commit
from h5fast.tree import encoded
from h5fast.tree.filetree import FileTree
from h5fast.tree.saved import write_member_index

__all__ = ["TreeFile", "write_files"]

# Files that are read in one pass.
_FILES, _BYTES = 256, 8 << 20


@dataclass(frozen=True)
class TreeFile:
    """The files that an HDF5 file holds.

    Attributes:
        file: the open file
        paths: of all files in it
        classes: of each: the number that the file tells, or the name of its first folder
        is_encoded: whether they lie in one dataset
    """

    file: File
    paths: list[str]
    classes: np.ndarray
    is_encoded: bool

    @classmethod
    def is_one(cls, file: File) -> bool:
        """Whether it says so, or most of its datasets have names that end as those of files do."""
        layout = file.attrs.get(encoded.ATTRIBUTE)
        if layout is not None:
            return layout in ("encoded", "tree", b"encoded", b"tree")
        names: list[str] = []

        def visit(name: str, what: Any) -> None:
            if isinstance(what, h5py.Dataset):
                names.append(name.rpartition("/")[2])

        file.visititems(visit)
        return 2 * sum("." in name.strip(".") for name in names) > len(names)

    @classmethod
    def of(cls, file: File) -> TreeFile:
        """The files in a file. Raises ``ValueError`` where there is none."""
        if encoded.is_encoded(file["/"]):
            found = encoded.load(file["/"])
            rows = [row for row, path in enumerate(found.paths) if path and not path.endswith("/")]
            paths = [found.paths[row] for row in rows]
            classes = np.asarray(file["label"][()])[rows] if "label" in file else _folders(paths)
        else:
            with FileTree(file.filename) as tree:
                paths = list(tree)
            classes = _folders(paths)
        if not paths:
            raise ValueError(f"{file.filename} holds no files")
        return cls(file, paths, classes, encoded.is_encoded(file["/"]))


    def numbers(self) -> dict[str, int]:
        """The number of each class, by its name, the same in every part; of files that have no numbers of their own, those that the
        whole file has beside it, or else the order of the names."""
        if self.is_encoded and "label" in self.file:
            return {str(name): number for number, name in _class_names(self).items()}
        beside = labels_path(self.file.filename)
        if beside.exists():
            return {str(name): int(number) for name, number in json.loads(beside.read_text(encoding="utf-8")).items()}
        return {name: number for number, name in enumerate(sorted(set(self.classes.tolist()) - {""}))}


def _folders(paths: list[str]) -> np.ndarray:
    return np.array([path.partition("/")[0] if "/" in path else "" for path in paths])


def write_files(
    source: TreeFile, parts: Mapping[str, np.ndarray], paths: Mapping[str, Path], *, memory: int, overwrite: bool
) -> None:
    """Writes the files of each part to its file; they get their names when all are complete."""
    if source.is_encoded:
        outputs = {part: Output(path, overwrite, False, memory // len(paths), None) for part, path in paths.items()}
        _write_encoded(source, parts, outputs)
        return
    with finished_together(paths, overwrite=overwrite, then=write_member_index) as targets:
        for part, target in targets.items():
            _write_datasets(source, parts[part], target)


def _write_encoded(source: TreeFile, parts: Mapping[str, np.ndarray], outputs: Mapping[str, Output]) -> None:
    data, named, sinks = source.file["data"], _class_names(source), dict[str, EncodedSink]()
    try:
        for part, output in outputs.items():
            sink = sinks[part] = EncodedSink(
                output, codec=data.compression, chunk_rows=data.chunks[0] if data.chunks else "auto", metadata="modified" in source.file
            )
            sink.classes = ClassNumbers({name: code for code, name in enumerate(named.values())})
            for member, number in _members(source, parts[part]):
                sink.add([(member, None, named.get(number))])
        for sink in sinks.values():
            sink.flush()  # a disk that is full says so before the first has its name
        for sink in sinks.values():
            sink.finish()
    except BaseException:
        for part, sink in sinks.items():
            sink.leave()
            partial_path(outputs[part].path).unlink(missing_ok=True)
            drop_commit(partial_path(outputs[part].path))
        raise


def _class_names(source: TreeFile) -> dict[int, Any]:
    """What the classes are called, by number."""
    if "label" not in source.file:
        return {}
    if "class_names" in source.file:
        return dict(enumerate(name.decode("utf-8", "surrogateescape") for name in source.file["class_names"][()].tolist()))
    return {int(number): int(number) for number in np.unique(source.file["label"][()]) if number >= 0}


def _members(source: TreeFile, rows: np.ndarray) -> Iterator[tuple[Member, int]]:
    has_labels = "label" in source.file
    with FileTree(source.file.filename) as tree:
        for first in range(0, len(rows), _FILES):
            some = rows[first : first + _FILES].tolist()
            paths = [source.paths[row] for row in some]
            for row, path, content in zip(some, paths, tree.read_many("/" + path for path in paths)):
                about = tree.stat("/" + path)
                yield (
                    Member(path, len(content), opened_bytes(content), modified=about.modified, permissions=about.permissions),
                    int(source.classes[row]) if has_labels else -1,
                )


def _write_datasets(source: TreeFile, rows: np.ndarray, target: AtomicTarget) -> None:
    groups: dict[str, Any] = {}
    for row in rows.tolist():
        path = source.paths[row].lstrip("/")
        folder, _, name = path.rpartition("/")
        if folder not in groups:
            groups[folder] = target.file.require_group(stored_name(folder)) if folder else target.file["/"]
        h5py.h5o.copy(source.file.id, stored_name(path), groups[folder].id, stored_name(name))
        target.check()
    for key, value in source.file.attrs.items():
        target.file.attrs[key] = value
    target.rows = len(rows)
