"""Changing a tree: files put, folders made, members removed and moved, through h5py."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from h5fast._members import FILE, FOLDER, NO_TIME
from h5fast.layout import phil
from h5fast.tree import encoded, saved
from h5fast.tree.catalogue import Catalogue
from h5fast.tree.member import Contents
from h5fast.tree.paths import as_bytes, check_name, join, parts_of

__all__ = ["Changes"]

_ATTRIBUTE_TYPES: dict[str, type[np.integer[Any]]] = {"Modified": np.int64, "Permissions": np.uint32}


class Changes:
    """Changes a file that is open for writing.

    Attributes:
        had_index: whether a member index was taken out, since it would no longer be true
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._catalogue: Catalogue | None = None
        self._tables: dict[str, encoded.PathTable] = {}  # of the groups of the layout `encoded` that were changed
        self.had_index = False

    def catalogue(self) -> Catalogue:
        """What is known of the file as it is now."""
        if self._catalogue is None:
            self._catalogue = Catalogue(self._file, None)
        return self._catalogue

    def put(self, path: str, data: Any, attributes: Mapping[str, int | None]) -> None:
        """Writes a file; see :meth:`FileTree.put`."""
        check_name(path)
        content, noted = _as_array(data), _as_numbers(attributes)
        with phil:
            folder = self._require_folder(path.rpartition("/")[0])
            name = path.rpartition("/")[2]
            self._require_free(folder, name)
            row = self.catalogue().row_of(self.catalogue().folder(folder), name)
            if row is not None and self.catalogue().table.members["kind"][row] == FOLDER:
                raise IsADirectoryError(f"{path!r} is a folder")
            group = self._group(folder)
            made = group.create_dataset(None, data=content)  # without a name until it is whole: what is there stays until then
            _write_attributes(made, noted)
            if row is not None:
                self._unlink(join(folder, name))
            group[_name(name)] = made
            self._changed(folder, name)

    def note(self, path: str, attributes: Mapping[str, int | None]) -> None:
        """Writes attributes of a member that is there; see :meth:`FileTree.note`."""
        noted = _as_numbers(attributes)
        with phil:
            row = self.catalogue().find(path)[1]
            found = None if encoded.is_table(self._file, path) else self._file.get(as_bytes(path))
            if found is None or not noted:
                return  # of the layout `encoded`
            _write_attributes(found, noted)
            self._note()
            if row >= 0:
                member = self.catalogue().table.members[row]
                member["attributes"] = 1
                for key, value in noted.items():
                    member[key.lower()] = value

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
            self._unlink(join(folder, name), is_folder=kind == FOLDER)
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
            self._require_free(target_folder, new.rpartition("/")[2])
            if target == source:
                return
            if f"{target}/".startswith(f"{source}/"):
                raise ValueError(f"{old!r} cannot move into itself, to {new!r}")
            row = self.catalogue().row_of(self.catalogue().folder(target_folder), new.rpartition("/")[2])
            if row is not None and self.catalogue().table.members["kind"][row] == FOLDER:
                raise IsADirectoryError(f"{new!r} is a folder")
            if row is not None:
                self._unlink(target)
            self._relink(source, target, is_folder=kind == FOLDER)
            self._catalogue = None
            self._tables.clear()
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
                self._require_free(here, part)
                self._group(here).create_group(_name(part))
                self._changed(here, part)
                here = join(here, part)
                continue
            here, row = self.catalogue().follow(above, part, row)
            if row >= 0 and self.catalogue().table.members["kind"][row] == FILE:
                raise NotADirectoryError(f"{here!r} is a file, and {path!r} would lie in it")
        return here

    def _require_free(self, folder: str, name: str) -> None:
        taken = self.catalogue().taken(folder, name)
        if taken is not None:
            raise ValueError(f"{'/' + join(folder, name)!r} cannot be written: that name is taken by {taken}; choose another")

    def _group(self, folder: str) -> h5py.Group:
        """The group of a folder; one that only a layout `encoded` knows is made."""
        found = self._file.get(as_bytes(folder))  # h5py's require_group fails for names that are no UTF-8
        return self._file.create_group(as_bytes(folder)) if found is None else found

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

    def _has_link(self, path: str) -> bool:
        """Whether a member is an object of its own, or is shown in place of a file of the layout `encoded`."""
        return not encoded.is_table(self._file, path) and self.catalogue().link(path) is not None

    def _table(self, group: str) -> encoded.PathTable:
        if group not in self._tables:
            self._tables[group] = encoded.PathTable(self._file[as_bytes(group)])
        return self._tables[group]

    def _keep_folder(self, path: str) -> None:
        """A folder that only the path of a file told of stays when the file goes."""
        if not encoded.is_table(self._file, path):
            self._group(path)

    def _unlink(self, path: str, *, is_folder: bool = False) -> None:
        inside = self._encoded_above(path)
        if self._has_link(path):
            del self._file[as_bytes(path)]
        if is_folder:
            self._tables = {group: table for group, table in self._tables.items() if not f"{group}/".startswith(f"{path}/")}
        if inside is not None:
            self._table(inside[0]).remove(inside[1], is_folder=is_folder)
            self._keep_folder(path.rpartition("/")[0])

    def _relink(self, source: str, target: str, *, is_folder: bool) -> None:
        inside, there = self._encoded_above(source), self._encoded_above(target)
        if self._has_link(source):
            self._group(target.rpartition("/")[0])
            self._file.move(as_bytes(source), as_bytes(target))
        if inside is None:
            return
        if there is not None and there[0] == inside[0]:
            self._table(inside[0]).rename(inside[1], there[1], is_folder=is_folder)
        else:
            self._catalogue = None
            self._copy_out(source, target)
            self._table(inside[0]).remove(inside[1], is_folder=is_folder)
        self._keep_folder(source.rpartition("/")[0])

    def _copy_out(self, source: str, target: str) -> None:
        """Files of a layout `encoded` that leave its group become datasets."""
        try:
            row = self.catalogue().find(source)[1]
        except FileNotFoundError:
            return  # it was not of that layout, and has moved
        member = self.catalogue().table.members[row]
        if member["kind"] == FOLDER:
            self._group(target)
            for name in list(self.catalogue().entries(source)):
                self._copy_out(join(source, name), join(target, name))
            return
        contents = Contents(self.catalogue(), None)
        data = contents.read_many([source], np.array([row]), raw=True)[0]
        folder, _, name = target.rpartition("/")
        made = self._group(folder).create_dataset(_name(name), data=np.frombuffer(data, "u1"))
        modified, permissions = int(member["modified"]), int(member["permissions"])
        _write_attributes(made, _as_numbers({"Modified": None if modified == NO_TIME else modified,
                                             "Permissions": permissions or None}))

    def _changed(self, folder: str, name: str) -> None:
        """Forgets what was known of a member of a folder, and of all below it."""
        self._note()
        self.catalogue().look_again(self.catalogue().folder(folder), name)

    def _note(self) -> None:
        if not self.had_index:
            self.had_index = saved.drop(self._file)


def _as_numbers(attributes: Mapping[str, int | None]) -> dict[str, np.integer[Any]]:
    """What is stored of the attributes that are told. ``ValueError`` for what is no number, or none that fits."""
    try:
        return {key: _ATTRIBUTE_TYPES[key](operator.index(value)) for key, value in attributes.items() if value is not None}
    except (TypeError, OverflowError) as error:
        raise ValueError("modified is whole seconds since 1970 (int64), permissions a mode as stat has it (uint32), not "
                         f"{', '.join(f'{key}={value!r}' for key, value in attributes.items())}") from error


def _write_attributes(found: h5py.HLObject, noted: Mapping[str, np.integer[Any]]) -> None:
    for key, value in noted.items():
        found.attrs[key] = value


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
