"""The member index: the table of all members of a file, kept in the file or beside it, so that nothing has to be looked for.

It is believed as long as everything in the file but the members' own bytes is what it was when the index was written: groups,
headers and chunk indexes all lie there. docs/decisions/file-tree.md fixes the layout.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import h5py
import numpy as np

from h5fast._members import FOLDER, LINK, MEMBER, UNKNOWN
from h5fast.errors import H5FastError
from h5fast.objects import File
from h5fast.opened import open_file
from h5fast.own_groups import INDEX_GROUP
from h5fast.plugins import is_decoded_directly
from h5fast.tree.catalogue import Catalogue, Folder
from h5fast.tree.member import Contents
from h5fast.tree.paths import join, unfit
from h5fast.tree.table import CHUNK, Pipeline

__all__ = ["SavedIndex", "beside", "drop", "write_member_index"]

_VERSION = 1
_PARTS = ("members", "names", "folders", "chunks", "about", "stamp")
_DIGEST_BYTES = 16
# Reading the metadata and hashing them takes some 1 ns a byte, finding a member through libhdf5 some 10 µs.
_WORTH_A_MEMBER = 16 << 10
# A pread costs about as much as copying this much.
_JOINED_GAP = 8 << 10
_WINDOW = 4 << 20


class _Unsound(Exception):
    """The index contradicts itself."""


def beside(path: str) -> str:
    """Where the index of a file is that is kept beside it."""
    return f"{path}.members"


def drop(file: h5py.File) -> bool:
    """Takes the index out of a file that is open for writing; whether there was one."""
    if file.get(INDEX_GROUP, getlink=True) is None:
        return False
    del file[INDEX_GROUP]
    return True


def write_member_index(path: str | os.PathLike[str], *, beside_it: bool = False) -> bool:
    """Writes the index of all members of a file, in place of one that is there.

    Args:
        path: the file; nobody may have it open for writing
        beside_it: into a file of its own, ``<path>.members``, and leave this one as it is

    Returns:
        False where it was not written because it would not help: much of the file is neither members nor their headers (strings
        of variable length, for example), so that checking an index takes longer than finding the members; or the files of a
        layout `encoded` are stored in a way that only HDF5 reads.

    Raises:
        OSError: the file cannot be opened or written.
    """
    place = os.path.abspath(os.fsdecode(path))
    if not beside_it:
        with File(place, "r+") as file:
            drop(file)
    parts = _collect(place)
    if parts is None:
        return False
    target = beside(place) if beside_it else place
    with File(target, "w" if beside_it else "r+") as file:
        group = file.create_group(INDEX_GROUP)
        group.attrs["version"] = _VERSION
        for name, content in parts.items():
            group.create_dataset(name, data=content)
        stamp = group.create_dataset("stamp", data=np.zeros(8 + _DIGEST_BYTES, "u1"))
        file.flush()
        at = stamp.id.get_offset()
    size = os.stat(place).st_size
    held = _held(parts["members"], parts["chunks"])
    if not beside_it:
        held = np.concatenate([held, [[at, at + 8 + _DIGEST_BYTES]]])
    gaps = _gaps(held, size)
    if (gaps[:, 1] - gaps[:, 0]).sum() > (1 << 20) + _WORTH_A_MEMBER * len(parts["members"]):
        _take_back(target, beside_it)
        return False
    with open(target, "r+b") as raw:
        raw.seek(at)
        raw.write(size.to_bytes(8, "little") + _digest(place, gaps))
    return True


def _take_back(target: str, beside_it: bool) -> None:
    if beside_it:
        os.unlink(target)
        return
    with File(target, "r+") as file:
        drop(file)


def _collect(path: str) -> dict[str, np.ndarray] | None:
    """The index' tables, of a file that has none; None where it cannot say all that is needed."""
    with File(path, "r") as file:
        opened = open_file(file.id)
        catalogue = Catalogue(file, opened)
        contents = Contents(catalogue, opened)
        order: list[int] = []
        names: list[str] = []
        folders: list[tuple[int, int]] = []
        pending = [""]
        skipped: list[str] = []
        while pending:  # folder by folder, so that those of each lie side by side
            path_here = pending.pop(0)
            entries = catalogue.entries(path_here)
            folders.append((len(order), len(entries)))
            order += entries.values()
            names += entries
            skipped += catalogue.folders[path_here].skipped
            kinds = catalogue.table.members["kind"]
            pending += [join(path_here, name) for name, row in entries.items() if kinds[row] == FOLDER]
            _measure(contents, catalogue, path_here, entries, skipped)
        members = catalogue.table.members[order]
        if any((catalogue.table.members["pipeline"][first:end] < 0).any() for first, end, _ in catalogue.encoded_rows):
            return None
        about = {"pipelines": catalogue.table.pipelines, "heads": [head.decode("latin-1") for head in catalogue.table.heads],
                 "skipped": skipped}
        return {
            "members": members,
            "names": np.frombuffer("".join(name + "\0" for name in names).encode("utf-8", "surrogateescape"), "u1"),
            "folders": np.array(folders, "<u8"),
            "chunks": catalogue.table.chunks.copy(),
            "about": np.frombuffer(json.dumps(about).encode(), "u1"),
        }


def _measure(contents: Contents, catalogue: Catalogue, folder: str, entries: dict[str, int], skipped: list[str]) -> None:
    """Looks at what is not known of a folder's files yet."""
    for name, row in entries.items():
        member = catalogue.table.members[row]
        if member["kind"] in (FOLDER, LINK) or (member["pipeline"] >= 0 and int(member["size"]) != UNKNOWN):
            continue
        try:
            contents.size(join(folder, name), row, raw=True)
        except H5FastError as error:
            skipped.append(str(error))


def _held(members: np.ndarray, chunks: np.ndarray) -> np.ndarray:
    """Ranges of the file [begin, end) that hold members' bytes."""
    alone = members[(members["pipeline"] >= 0) & (members["chunks"] == 1)]
    starts = np.concatenate([alone["address"], chunks["address"]]).astype(np.int64)
    stored = np.concatenate([alone["stored"], chunks["stored"]]).astype(np.int64)
    there = (starts > 0) & (stored > 0)
    found: np.ndarray = np.stack([starts[there], starts[there] + stored[there]], axis=1)
    return found


def _gaps(held: np.ndarray, size: int) -> np.ndarray:
    """What lies between: ranges [begin, end), ascending, not empty."""
    ordered = held[np.argsort(held[:, 0], kind="stable")]
    begins = np.concatenate([[0], np.maximum.accumulate(ordered[:, 1])]) if len(ordered) else np.zeros(1, np.int64)
    ends = np.append(ordered[:, 0], size)
    gaps = np.stack([begins, np.minimum(ends, size)], axis=1)
    return gaps[gaps[:, 1] > gaps[:, 0]]


def _digest(path: str, gaps: np.ndarray) -> bytes:
    """A hash of these ranges of a file, and of where they are."""
    found = hashlib.blake2b(gaps.astype("<i8").tobytes(), digest_size=_DIGEST_BYTES)
    begins, ends = gaps[:, 0], gaps[:, 1]
    apart = np.flatnonzero(begins[1:] - ends[:-1] > _JOINED_GAP) + 1
    with open(path, "rb", buffering=0) as file:
        for run in np.split(np.arange(len(gaps)), apart):
            for piece in _windows(begins[run], ends[run]):
                _hash_window(found, file.fileno(), piece)
    return found.digest()


def _windows(begins: np.ndarray, ends: np.ndarray) -> list[list[tuple[int, int]]]:
    """Neighbouring ranges in groups that one read of some MiB serves; a longer range alone."""
    windows: list[list[tuple[int, int]]] = []
    for begin, end in zip(begins.tolist(), ends.tolist()):
        if not windows or end - windows[-1][0][0] > _WINDOW:
            windows.append([])
        windows[-1].append((begin, end))
    return windows


def _hash_window(found: Any, descriptor: int, ranges: list[tuple[int, int]]) -> None:
    begin, end = ranges[0][0], ranges[-1][1]
    while end - begin > _WINDOW:  # one long range
        found.update(os.pread(descriptor, _WINDOW, begin))
        begin += _WINDOW
    view = memoryview(os.pread(descriptor, end - begin, begin))
    for first, last in ranges:
        found.update(view[max(first, begin) - begin : last - begin])


class SavedIndex:
    """The index that belongs to an open file, not looked at yet.

    Attributes:
        rows: how many members it has
    """

    def __init__(self, path: str, file: h5py.File, holder: h5py.File) -> None:
        self._path = path
        self._file = file
        self._group = holder[INDEX_GROUP]
        self._is_inside = holder is file
        self.rows = int(self._group["members"].shape[0])

    @classmethod
    def find(cls, path: str, file: h5py.File) -> SavedIndex | None:
        """The index in the file, or the one beside it; None where there is neither."""
        try:
            if file.get(INDEX_GROUP, getclass=True) is not None:
                return cls(path, file, file)
            if os.path.exists(beside(path)):
                return cls(path, file, File(beside(path), "r"))
        except (OSError, KeyError, AttributeError, RuntimeError):
            pass  # not an index: the members are found without it
        return None

    def load(self) -> Catalogue | None:
        """A catalogue that knows all members; None where the file is no longer the one the index was written for."""
        try:
            parts = {name: np.asarray(self._group[name][()]) for name in _PARTS}
            if int(self._group.attrs["version"]) != _VERSION or not self._is_valid(parts):
                return None
            return self._catalogue(parts)
        except (H5FastError, _Unsound, OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError,
                MemoryError):
            return None

    def _is_valid(self, parts: dict[str, np.ndarray]) -> bool:
        if parts["members"].dtype != MEMBER or parts["chunks"].dtype != CHUNK:
            return False
        size = os.stat(self._path).st_size
        stamp = parts["stamp"].tobytes()
        if int.from_bytes(stamp[:8], "little") != size:
            return False
        held = _held(parts["members"], parts["chunks"])
        if self._is_inside:
            at = self._group["stamp"].id.get_offset()
            held = np.concatenate([held, [[at, at + len(stamp)]]])
        return _digest(self._path, _gaps(held, size)) == stamp[8:]

    def _catalogue(self, parts: dict[str, np.ndarray]) -> Catalogue:
        about = json.loads(parts["about"].tobytes())
        members, folders = parts["members"], parts["folders"].astype(np.int64)
        names = parts["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
        pipelines = [Pipeline(tuple((int(number), tuple(options)) for number, options in filters), int(itemsize))
                     for filters, itemsize in about["pipelines"]]
        _check(members, parts["chunks"], folders, names, pipelines, about["heads"])
        catalogue = Catalogue(self._file, open_file(self._file.id))
        for pipeline in pipelines:
            catalogue.table.pipeline_number(pipeline)
        for head in about["heads"]:
            catalogue.table.head_number(head.encode("latin-1"))
        catalogue.table.add(members)
        catalogue.table.add_chunks(parts["chunks"])
        catalogue.adopt(_folders(catalogue, members, folders, names, about["skipped"]))
        return catalogue


def _check(members: np.ndarray, chunks: np.ndarray, folders: np.ndarray, names: list[str], pipelines: list[Pipeline],
           heads: list[str]) -> None:
    """Raises ``_Unsound`` for an index that would lead the reader astray. Where bytes lie, the engine checks."""
    if len(set(pipelines)) != len(pipelines) or pipelines[0] != Pipeline((), 1) or len(set(heads)) != len(heads) or heads[0]:
        raise _Unsound
    if any(not is_decoded_directly(number) for filters, _ in pipelines for number, _ in filters):
        raise _Unsound
    if (members["pipeline"] >= len(pipelines)).any() or (members["head"] >= len(heads)).any():
        raise _Unsound
    several = members[members["chunks"] > 1]
    if (several["address"] > len(chunks)).any() or (several["address"] + several["chunks"] > len(chunks)).any():
        raise _Unsound
    direct = members[(members["pipeline"] >= 0) & (members["chunks"] > 0)]
    if (direct["chunk_bytes"] == 0).any():
        raise _Unsound
    if len(names) != len(members) or len(folders) != 1 + np.count_nonzero(members["kind"] == FOLDER):
        raise _Unsound
    if (folders < 0).any() or (folders.sum(axis=1) > len(members)).any() or any(unfit(name) for name in names):
        raise _Unsound


def _folders(catalogue: Catalogue, members: np.ndarray, ranges: np.ndarray, names: list[str],
             skipped: list[str]) -> list[Folder]:
    root = catalogue.root()
    root.skipped += skipped
    found = [root]
    rows_of_folders = iter(np.flatnonzero(members["kind"] == FOLDER).tolist())
    for number, (first, count) in enumerate(ranges.tolist()):
        if number >= len(found):
            raise _Unsound
        folder = found[number]
        folder.rows = dict(zip(names[first : first + count], range(first, first + count)))
        folder.is_complete = True
        for row in range(first, first + count) if count and (members["kind"][first : first + count] == FOLDER).any() else ():
            if members["kind"][row] == FOLDER:
                if next(rows_of_folders, None) != row:
                    raise _Unsound
                found.append(Folder(join(folder.path, names[row]), (*folder.above, int(members["object"][row]))))
    return found
