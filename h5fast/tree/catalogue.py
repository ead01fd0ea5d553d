"""Which members a file has, and where their bytes lie: found group by group as they are asked for, and kept.

A member is a row of a table (``MEMBER``); a folder knows the rows of its members by name. Where a whole file is known from
its member index, the table comes from there. Everything here runs under h5py's lock.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import h5py
from h5py import h5l
import numpy as np

from h5fast import layout
from h5fast._members import FILE, FOLDER, LINK, MEMBER, NO_TIME, OTHER, STORED_TYPES, look_up, scan
from h5fast.errors import CorruptFileError, H5FastError, UnsupportedError
from h5fast.opened import OpenFile
from h5fast.own_groups import INDEX_GROUP
from h5fast.plugins import is_decoded_directly
from h5fast.tree import content, encoded, packed
from h5fast.tree.paths import as_bytes, join, parts_of, unfit
from h5fast.tree.table import Pipeline, Table

__all__ = ["Catalogue", "Folder"]

# From so many names on, it is asked how large the folder is: a member of one pass over all takes 0.6 times a look-up.
_MANY = 64
# Links that one path leads through, those to folders on the way too: more are a circle, or meant to take for ever.
_MOST_LINKS = 40


class Folder:
    """A folder: the rows of its members by name.

    Attributes:
        path: from the root; "" is the root
        rows: row of each member that is known, by name
        is_complete: whether these are all
        is_sorted: whether they are in the order of their names
        above: addresses of the groups that it lies in, its own last
        skipped: what of it is not shown, with the reason
    """

    __slots__ = ("path", "rows", "is_complete", "is_sorted", "above", "skipped")

    def __init__(self, path: str, above: tuple[int, ...], rows: dict[str, int] | None = None) -> None:
        self.path = path
        self.rows: dict[str, int] = {} if rows is None else rows
        self.is_complete = rows is not None
        self.is_sorted = True
        self.above = above
        self.skipped: list[str] = []


class Catalogue:
    """The members of an open file.

    Args:
        file: the file
        bytes_of: its bytes, where they may be read beside libhdf5
    """

    def __init__(self, file: h5py.File, bytes_of: OpenFile | None) -> None:
        self.file = file
        self.is_direct = bytes_of is not None
        # Headers are read beside libhdf5 too, where addresses have 8 bytes and nobody writes.
        self._headers = bytes_of.source if bytes_of and not bytes_of.swmr and layout.has_wide_addresses(file.id) else None
        self.table = Table()
        self.folders: dict[str, Folder] = {}
        self._user_block = bool(layout.user_block(file.id))
        # Rows that lie in one dataset: the first, the one behind the last, and their group.
        self.encoded_rows: list[tuple[int, int, str]] = []
        self._is_following = False  # a link, and how many it were since the first
        self._links = 0

    # --- finding ---

    def find(self, path: str) -> tuple[str, int]:
        """Path and row of a member, after all links; -1 for the root.

        Raises:
            FileNotFoundError, NotADirectoryError, UnsupportedError: see :meth:`folder` and :meth:`follow`.
        """
        if not path:
            return "", -1
        parent, _, name = path.rpartition("/")
        folder = self.folder(parent)
        row = self.row_of(folder, name)
        if row is None:
            raise FileNotFoundError(f"no {path!r}")
        return self.follow(folder, name, row)

    def row_of(self, folder: Folder, name: str) -> int | None:
        """The row of a member of a folder, links not followed; None where there is none."""
        row = folder.rows.get(name)
        if row is None and not folder.is_complete:
            row = self._look_up(folder, [name])[0]
        return row

    def find_many(self, paths: Sequence[str]) -> np.ndarray:
        """The rows of files, links followed.

        Raises:
            FileNotFoundError, IsADirectoryError: with the first path that leads to none.
        """
        by_folder: dict[str, list[tuple[int, str]]] = {}
        for place, path in enumerate(paths):
            parent, _, name = path.rpartition("/")
            by_folder.setdefault(parent, []).append((place, name))
        rows = np.empty(len(paths), np.int64)
        for parent, wanted in by_folder.items():
            folder = self.folder(parent)
            names = [name for _, name in wanted]
            missing = [] if folder.is_complete else [name for name in dict.fromkeys(names) if name not in folder.rows]
            if len(missing) >= _MANY and len(self._group(folder)) <= 2 * len(missing):
                self._complete(folder)
            elif missing:
                self._look_up(folder, missing)
            known = folder.rows
            rows[[place for place, _ in wanted]] = [known.get(name, -1) for name in names]
        is_file = rows >= 0
        is_file[is_file] = self.table.members["kind"][rows[is_file]] == FILE
        for place in np.flatnonzero(~is_file).tolist():
            found = rows[place] = self.find(paths[place])[1]
            if found < 0 or self.table.members["kind"][found] != FILE:
                raise IsADirectoryError(f"{paths[place]!r} is a folder")
        return rows

    def folder(self, path: str) -> Folder:
        """The folder at a path, links followed.

        Raises:
            FileNotFoundError: there is nothing.
            NotADirectoryError: there is a file.
        """
        known, names = path, []
        while known and known not in self.folders:
            known, _, name = known.rpartition("/")
            names.append(name)
        here = self.folders.get(known) or self._open(self.root())
        for name in reversed(names):
            here = self._inner(here, name)
        return here

    def _inner(self, above: Folder, name: str) -> Folder:
        """A folder in a folder, or what a link there leads to."""
        row = self.row_of(above, name)
        if row is None:
            raise FileNotFoundError(f"no {join(above.path, name)!r}")
        real, row = self.follow(above, name, row)
        if not real or real in self.folders:
            return self.folder(real)
        if self.table.members["kind"][row] != FOLDER:
            raise NotADirectoryError(f"{real!r} is not a folder")
        address = int(self.table.members["object"][row])
        return self._open(Folder(real, (*self.folder(real.rpartition("/")[0]).above, address)))

    def follow(self, folder: Folder, name: str, row: int) -> tuple[str, int]:
        """Path and row of what a member of a folder is, after all links.

        Raises:
            FileNotFoundError: a link leads nowhere.
            UnsupportedError: it leads into another file.
        """
        path = join(folder.path, name)
        if row < 0 or self.table.members["kind"][row] != LINK:
            return path, row
        is_first, self._is_following = not self._is_following, True
        try:
            if is_first:
                self._links = 0
            while row >= 0 and self.table.members["kind"][row] == LINK:
                path, row = self._one_link(path)
        finally:
            self._is_following = not is_first
        return path, row

    def _one_link(self, path: str) -> tuple[str, int]:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise FileNotFoundError(f"{path!r} is a link that leads to itself, or through more than {_MOST_LINKS} others")
        target = self.target(path)
        if not target:
            return "", -1
        parent, _, last = target.rpartition("/")
        above = self.folder(parent)  # which may follow links, and they count too
        found = self.row_of(above, last)
        if found is None:
            raise FileNotFoundError(f"{path!r} is a link to {'/' + target!r}, which is not there")
        return join(above.path, last), found

    def target(self, path: str) -> str:
        """The path, from the root, that a link leads to.

        Raises:
            UnsupportedError: it leads into another file, which is not followed.
            FileNotFoundError: to a place that no path names.
        """
        kind, values = self.link(path), self.file.id.links.get_val
        if kind == h5l.TYPE_EXTERNAL:
            filename = os.fsdecode(values(as_bytes(path))[0])
            raise UnsupportedError(f"{path!r} is a link into another file, {filename!r}, and such links are not followed")
        if kind == h5l.TYPE_HARD:  # a group that it lies in
            parent = path.rpartition("/")[0]
            above = self.folder(parent)
            place = above.above.index(layout.address_of(self.file[as_bytes(path)].id))
            return "/".join(parts_of(above.path)[:place])
        text = values(as_bytes(path)).decode("utf-8", "surrogateescape") if kind == h5l.TYPE_SOFT else ""
        names = [part for part in text.split("/") if part not in ("", ".")]
        if not text or any(unfit(part) for part in names):
            raise FileNotFoundError(f"{path!r} is a link to {text!r}, which no path names")
        start = [] if text.startswith("/") else parts_of(path)[:-1]
        return "/".join([*start, *names])

    def link(self, path: str) -> int | None:
        """Of what type the link at a path is; None where there is none. h5py's ``get`` fails for names that are no UTF-8."""
        try:
            return int(self.file.id.links.get_info(as_bytes(path)).type)
        except (KeyError, RuntimeError):
            return None

    def shown_target(self, path: str) -> str | None:
        """What a link leads to, with a slash in front; None where that is nowhere within the file."""
        try:
            return "/" + self.target(path)
        except (H5FastError, OSError):
            return None

    def entries(self, path: str) -> dict[str, int]:
        """Names and rows of all members of a folder."""
        folder = self.folder(path)
        if not folder.is_complete:
            self._complete(folder)
        if not folder.is_sorted:
            folder.rows = dict(sorted(folder.rows.items()))
            folder.is_sorted = True
        return folder.rows

    def look_again(self, folder: Folder, name: str) -> None:
        """A member of a folder was made, replaced or removed, in a file that is open for writing."""
        folder.rows.pop(name, None)
        place = join(folder.path, name)
        if place in self.folders:
            self.adopt([one for path, one in self.folders.items() if not f"{path}/".startswith(f"{place}/")])
        if not self.encoded_rows:
            folder.is_complete = False
        elif folder.is_complete and self._has_group(folder.path):  # others are known from tables of the layout `encoded`
            self._look_up(folder, [name])
            folder.is_sorted = False

    def _has_group(self, path: str) -> bool:
        return not encoded.is_table(self.file, path) and self.file.get(as_bytes(path)) is not None

    def taken(self, folder: str, name: str) -> str | None:
        """What else a name in a folder stands for, so that no member can be made there; None where it is free."""
        if not folder and name == INDEX_GROUP:
            return "the member index"
        is_table = encoded.is_table(self.file, join(folder, name))
        return f"a table of the layout 'encoded' in {'/' + folder!r}" if is_table else None

    def where(self, row: int) -> str | None:
        """The group of the layout `encoded` that a row lies in."""
        return next((group for first, end, group in self.encoded_rows if first <= row < end), None)

    def root(self) -> Folder:
        """The root, nothing known of it yet."""
        return Folder("", (layout.address_of(self.file["/"].id),))

    def adopt(self, folders: list[Folder]) -> None:
        """Takes these for the folders that there are."""
        self.folders = {folder.path: folder for folder in folders}

    # --- groups ---

    def _open(self, folder: Folder) -> Folder:
        group = self._group(folder)
        if encoded.is_encoded(group):
            self._load(folder, encoded.load(group))
            self._overlay(folder, group, encoded.NAMES)
        self.folders[folder.path] = folder
        return folder

    def _group(self, folder: Folder) -> h5py.Group:
        found = self.file[as_bytes(folder.path)]
        if not isinstance(found, h5py.Group):
            raise CorruptFileError(f"{self.file.filename}: {folder.path!r} is no longer a group; close and reopen the file")
        return found

    def _look_up(self, folder: Folder, names: list[str]) -> list[int | None]:
        fit = [name for name in names if unfit(name) is None and self.taken(folder.path, name) is None]
        found, forms = look_up(self._group(folder).id, fit, self._user_block, self._headers)
        self._settle(found, forms)
        known = {name: at for at, name in enumerate(fit) if found["kind"][at] != OTHER}
        self._close_circles(folder, found)
        base = self.table.add(found[list(known.values())])
        folder.rows.update({name: base + at for at, name in enumerate(known)})
        return [folder.rows.get(name) for name in names]

    def _complete(self, folder: Folder) -> None:
        try:
            names, found, forms = scan(self._group(folder).id, self._user_block, self._headers)
        except CorruptFileError as error:
            raise CorruptFileError(f"{self.file.filename}: folder {'/' + folder.path!r}: {error}") from None
        self._settle(found, forms)
        self._close_circles(folder, found)
        shown = []
        for at, name in enumerate(names):
            reason = unfit(name)
            if reason is None and found["kind"][at] == OTHER:
                reason = "it is neither a group nor a dataset"
            if reason is not None:
                folder.skipped.append(f"{'/' + join(folder.path, name)!r}: {reason}")
            elif name not in folder.rows and not self._is_hidden(folder, name):
                shown.append(at)
        base = self.table.add(found[shown])
        known = {**folder.rows, **{names[at]: base + place for place, at in enumerate(shown)}}
        folder.rows = dict(sorted(known.items()))
        folder.is_complete = True

    def _settle(self, found: np.ndarray, forms: list[Any]) -> None:
        """Gives arrays and filtered members their head and pipeline. What the engine cannot decode is looked at later."""
        pipelines, heads = found["pipeline"], found["head"]
        for at, number, shape, filters in forms:
            if self.is_direct and all(is_decoded_directly(one) for one, _ in filters):
                pipelines[at] = self.table.pipeline_number(Pipeline(filters, STORED_TYPES[number].itemsize))
                heads[at] = self.table.head_number(content.head_of(STORED_TYPES[number], shape))

    def _close_circles(self, folder: Folder, found: np.ndarray) -> None:
        """A group that its own group lies in is shown as a link to it, or a walk would never end."""
        found["kind"][(found["kind"] == FOLDER) & np.isin(found["object"], np.array(folder.above, np.uint64))] = LINK

    def _is_hidden(self, folder: Folder, name: str) -> bool:
        return not folder.path and name == INDEX_GROUP


    # --- the layout `encoded` ---

    def _load(self, folder: Folder, files: encoded.EncodedFiles) -> None:
        rows = packed.rows_of(files, self.table, is_direct=self.is_direct)
        base = self.table.add(rows)
        self.encoded_rows.append((base, base + len(rows), folder.path))
        folder.is_complete = True
        folder.skipped += files.skipped
        made = {"": folder}
        for number, path in enumerate(files.paths):
            parent, _, name = path.removesuffix("/").rpartition("/")
            inside = made.get(parent)
            if inside is None:
                inside = self._make(made, folder, parent)
            if not name:
                continue
            if inside is None or (name in inside.rows and not path.endswith("/")):
                folder.skipped.append(f"file {number} of /{folder.path}, {path!r}: a file and a folder have the same path")
                continue
            inside.rows[name] = base + number
            if path.endswith("/"):
                self._make(made, folder, path[:-1])

    def _make(self, made: dict[str, Folder], top: Folder, path: str) -> Folder | None:
        """The folder at a path below `top`, and those above it; None where one of them is a file."""
        names: list[str] = []
        while path not in made:
            path, _, name = path.rpartition("/")
            names.append(name)
        here = made[path]
        for name in reversed(names):
            row = here.rows.get(name)
            if row is None:
                new = np.zeros(1, MEMBER)
                new["kind"], new["modified"] = FOLDER, NO_TIME
                here.rows[name] = self.table.add(new)
            elif self.table.members["kind"][row] != FOLDER:
                return None
            path = join(path, name)
            made[path] = here = Folder(join(top.path, path), (*here.above, 0), {})
            here.is_sorted = False
            self.folders[here.path] = here
        return here

    def _overlay(self, folder: Folder, group: h5py.Group, hidden: Sequence[str] = ()) -> None:
        """Adds what lies in a group beside the files of a layout `encoded`; of the same name, it is what is shown."""
        names, found, forms = scan(group.id, self._user_block, self._headers)
        self._settle(found, forms)
        self._close_circles(folder, found)
        base = self.table.add(found)
        for at, name in enumerate(names):
            if name in hidden or unfit(name) is not None or found["kind"][at] == OTHER or self._is_hidden(folder, name):
                continue
            inner = self.folders.get(join(folder.path, name))
            if found["kind"][at] == FOLDER and inner is not None and name in folder.rows:
                self._overlay(inner, group[name.encode("utf-8", "surrogateescape")])
            else:
                folder.rows[name] = base + at
        folder.rows = dict(sorted(folder.rows.items()))
