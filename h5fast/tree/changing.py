"""Changing a tree: files put, folders made, members removed and moved, through h5py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from h5fast._members import FILE, FOLDER
from h5fast.layout import phil
from h5fast.tree import encoded, saved
from h5fast.tree.catalogue import Catalogue
from h5fast.tree.member import Contents
from h5fast.tree.paths import as_bytes, check_name, join, parts_of

__all__ = ["Changes"]

_ATTRIBUTE_TYPES = {"Modified": np.int64, "Permissions": np.uint32}


class Changes:
    """Changes a file that is open for writing.

    Attributes:
        had_index: whether a member index was taken out, since it would no longer be true
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._catalogue: Catalogue | None = None
        self.had_index = False

    def catalogue(self) -> Catalogue:
        """What is known of the file as it is now."""
        if self._catalogue is None:
            self._catalogue = Catalogue(self._file, is_direct=False)
        return self._catalogue

    def put(self, path: str, data: Any, attributes: Mapping[str, int | None]) -> None:
        """Writes a file; see :meth:`FileTree.put`."""
        check_name(path)
        content = _as_array(data)
        with phil:
            folder = self._require_folder(path.rpartition("/")[0])
            name = path.rpartition("/")[2]
            place = join(folder, name)
            row = self.catalogue().row_of(self.catalogue().folder(folder), name)
            if row is not None and self.catalogue().table.members["kind"][row] == FOLDER:
                raise IsADirectoryError(f"{path!r} is a folder")
            if row is not None:
                self._unlink(place)
            _write_attributes(self._group(folder).create_dataset(_name(name), data=content), attributes)
            self._changed(folder, name)

    def note(self, path: str, attributes: Mapping[str, int | None]) -> None:
        """Writes attributes of a member that is there; see :meth:`FileTree.note`."""
        with phil:
            found = self._file.get(as_bytes(path))
            if found is not None:
                _write_attributes(found, attributes)
                self._changed(path.rpartition("/")[0], path.rpartition("/")[2])

    def mkdir(self, path: str, *, exist_ok: bool) -> None:
        """Makes a folder; see :meth:`FileTree.mkdir`."""
        with phil:
            parent, _, name = path.rpartition("/")
            if path:
                self._require_folder(parent)
            if path and self.catalogue().row_of(self.catalogue().folder(parent), name) is None:
                self._require_folder(path)
                return
            row = self.catalogue().find(path)[1]
            is_folder = row < 0 or self.catalogue().table.members["kind"][row] == FOLDER
            if not (exist_ok and is_folder):
                raise FileExistsError(f"{path!r} is there already")

    def remove(self, path: str, *, recursive: bool) -> None:
        """Removes a member; see :meth:`FileTree.rm`."""
        check_name(path)
        with phil:
            folder, name, kind = self._existing(path)
            if kind == FOLDER and not recursive:
                raise IsADirectoryError(f"{path!r} is a folder; recursive=True removes it with all that it holds")
            self._unlink(join(folder, name))
            self._changed(folder, name)

    def move(self, old: str, new: str) -> None:
        """Gives a member another path; see :meth:`FileTree.mv`."""
        check_name(old)
        check_name(new)
        with phil:
            folder, name, kind = self._existing(old)
            source = join(folder, name)
            if new.startswith(f"{old}/"):  # before folders are made on the way
                raise ValueError(f"{old!r} cannot move into itself, to {new!r}")
            target_folder = self._require_folder(new.rpartition("/")[0])
            target = join(target_folder, new.rpartition("/")[2])
            if target == source:
                return
            if f"{target}/".startswith(f"{source}/"):
                raise ValueError(f"{old!r} cannot move into itself, to {new!r}")
            row = self.catalogue().row_of(self.catalogue().folder(target_folder), new.rpartition("/")[2])
            if row is not None and self.catalogue().table.members["kind"][row] == FOLDER:
                raise IsADirectoryError(f"{new!r} is a folder")
            if row is not None:
                self._unlink(target)
            self._relink(source, target)
            self._catalogue = None
            self._note()

    # --- what lies where ---

    def _existing(self, path: str) -> tuple[str, str, int]:
        """Folder, name and kind of a member; a link is itself."""
        parent, _, name = path.rpartition("/")
        folder = self.catalogue().folder(parent)
        row = self.catalogue().row_of(folder, name)
        if row is None:
            raise FileNotFoundError(f"no {path!r}")
        return folder.path, name, int(self.catalogue().table.members["kind"][row])

    def _require_folder(self, path: str) -> str:
        """The path, without links, of a folder, which is made if it is not there."""
        here = ""
        for part in parts_of(path):
            above = self.catalogue().folder(here)
            row = self.catalogue().row_of(above, part)
            if row is None:
                self._group(here).create_group(_name(part))
                self._changed(here, part)
                here = join(here, part)
                continue
            here, row = self.catalogue().follow(above, part, row)
            if row >= 0 and self.catalogue().table.members["kind"][row] == FILE:
                raise NotADirectoryError(f"{here!r} is a file, and {path!r} would lie in it")
        return here

    def _group(self, folder: str) -> h5py.Group:
        """The group of a folder; one that only a layout `encoded` knows is made."""
        return self._file.require_group(as_bytes(folder))

    def _encoded_above(self, path: str) -> tuple[str, str] | None:
        """The group of the layout `encoded` that a path lies in, and the path below it."""
        names = parts_of(path)
        for depth in range(len(names)):
            here = "/".join(names[:depth])
            group = self._file.get(as_bytes(here)) if here else self._file
            if not isinstance(group, h5py.Group):
                return None
            if encoded.is_encoded(group):
                return here, "/".join(names[depth:])
        return None

    def _unlink(self, path: str) -> None:
        if self._file.get(as_bytes(path), getlink=True) is not None:
            del self._file[as_bytes(path)]
        inside = self._encoded_above(path)
        if inside is not None:
            encoded.remove(self._file[as_bytes(inside[0])], inside[1])
            self._group(path.rpartition("/")[0])  # a folder that only this file's path told of stays

    def _relink(self, source: str, target: str) -> None:
        inside, there = self._encoded_above(source), self._encoded_above(target)
        if self._file.get(as_bytes(source), getlink=True) is not None:
            self._group(target.rpartition("/")[0])
            self._file.move(as_bytes(source), as_bytes(target))
        if inside is None:
            return
        if there is not None and there[0] == inside[0]:
            encoded.rename(self._file[as_bytes(inside[0])], inside[1], there[1])
            self._group(source.rpartition("/")[0])
            return
        self._catalogue = None
        self._copy_out(source, target)
        encoded.remove(self._file[as_bytes(inside[0])], inside[1])
        self._group(source.rpartition("/")[0])

    def _copy_out(self, source: str, target: str) -> None:
        """Files of a layout `encoded` that leave its group become datasets."""
        try:
            row = self.catalogue().find(source)[1]
        except FileNotFoundError:
            return  # it was not of that layout, and has moved
        member = self.catalogue().table.members[row]
        if member["kind"] == FOLDER:
            self._file.require_group(as_bytes(target))
            for name in list(self.catalogue().entries(source)):
                self._copy_out(join(source, name), join(target, name))
            return
        contents = Contents(self.catalogue(), None)
        data = contents.read_many([source], np.array([row]), raw=True)[0]
        self._group(target.rpartition("/")[0]).create_dataset(_name(target.rpartition("/")[2]), data=np.frombuffer(data, "u1"))

    def _changed(self, folder: str, name: str) -> None:
        """Forgets what was known of a member of a folder, and of all below it."""
        self._note()
        catalogue = self.catalogue()
        place = join(folder, name)
        if catalogue.encoded_rows:
            self._catalogue = None
            return
        known = catalogue.folder(folder)
        known.rows.pop(name, None)
        known.is_complete = False
        if place in catalogue.folders:
            catalogue.adopt([one for path, one in catalogue.folders.items() if not f"{path}/".startswith(f"{place}/")])

    def _note(self) -> None:
        if not self.had_index:
            self.had_index = saved.drop(self._file)


def _write_attributes(found: h5py.HLObject, attributes: Mapping[str, int | None]) -> None:
    for key, value in attributes.items():
        if value is not None:
            found.attrs.create(key, value, dtype=_ATTRIBUTE_TYPES[key])


def _name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _as_array(data: Any) -> np.ndarray:
    """What is stored for some data: an array of bytes, or of numbers."""
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, np.ndarray):
        if data.dtype.hasobject or data.dtype.kind not in "biufcV":
            raise TypeError(f"an array of {data.dtype} cannot be put into a tree; numbers and records can")
        return data
    try:
        return np.frombuffer(data, "u1")
    except (TypeError, ValueError, BufferError):
        raise TypeError(f"a file is put as bytes, a str or an array, not as {type(data).__name__}") from None
