"""``FileTree``: an HDF5 file seen as a folder, groups as folders and datasets as files."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, cast

from h5fast._members import FILE, FOLDER, LINK, NO_TIME
from h5fast.errors import H5FastError
from h5fast.layout import Indirect, phil
from h5fast.objects import File
from h5fast.opened import open_file
from h5fast.tree import saved
from h5fast.tree.catalogue import Catalogue
from h5fast.tree.changing import Changes
from h5fast.tree.entries import NewFile, Stat
from h5fast.tree.globbing import matches, parts_of_pattern
from h5fast.tree.member import Contents, Member, MemberFile
from h5fast.tree.paths import as_bytes, join, resolve

__all__ = ["FileTree"]

_KINDS = {FOLDER: "folder", FILE: "file", LINK: "link"}
# Finding a member through libhdf5 takes as long as reading and checking about this many of a saved index.
_INDEX_PER_LOOKUP = 8


class FileTree(Mapping[str, bytes]):
    """An HDF5 file as a folder: groups are folders, datasets are files, and links within the file links.

    A dataset of one axis of uint8 is a file of these bytes, and so is each file of the layout `encoded`. An array of numbers or
    records is a ``.npy`` file, under the dataset's own name. Strings are text. Files that H5VFS, HDFVFS and Data2H5 made
    are read as they are.

    Paths are relative to the folder that :meth:`cd` chose, at first the root, or begin with a slash; ``..`` never leads out of
    the root. As a mapping it holds the contents of all files by their paths from the root. Links into other files are not
    followed. Opened for reading, it may be used by any number of threads, is pickled by path, and works in forked children.

    Args:
        path: the HDF5 file
        mode: "r"; "r+" to change it, "a" to make it if it is not there, "w" to make it anew, "x" to make it where none is
        raw: arrays are their elements alone, without the head of a ``.npy`` file

    Raises:
        OSError: the file cannot be opened, in h5py's words.
        ValueError: there is no such mode.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "r", *, raw: bool = False) -> None:
        if mode not in ("r", "r+", "a", "w", "x"):
            raise ValueError(f"mode must be 'r', 'r+', 'a', 'w' or 'x', not {mode!r}")
        self.path = os.path.abspath(os.fsdecode(path))
        self.mode = mode
        self.raw = raw
        self.cwd = "/"
        self._file = File(self.path, mode)
        self._bytes_of = None
        self._saved: saved.SavedIndex | None = None
        self._lookups = 0
        if mode == "r":
            try:
                self._bytes_of = open_file(self._file.id)
                self._saved = saved.SavedIndex.find(self.path, self._file)
            except Indirect:
                pass  # libhdf5 reads it
        self._use(Catalogue(self._file, self._bytes_of))
        self._changes = None if mode == "r" else Changes(self._file)

    def _use(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._contents = Contents(catalogue, self._bytes_of)

    # --- the file ---

    def close(self) -> None:
        """Closes the file. A member index that was in it is written anew if the file was changed."""
        if not self._file:
            return
        stale = self._changes is not None and self._changes.had_index
        self._file.close()
        if stale:
            saved.write_member_index(self.path)

    def __enter__(self) -> FileTree:
        """The tree itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as (path, options), for reading only. ``TypeError`` for a tree that is open for writing, or closed."""
        if self.mode != "r" or not self._file:
            reason = "it is closed" if self.mode == "r" else "it is open for writing"
            raise TypeError(f"cannot pickle this FileTree: {reason}")
        return _reopen, (self.path, self.raw, self.cwd)

    def __repr__(self) -> str:
        """Path and mode."""
        return f"<FileTree {self.path!r}, mode {self.mode!r}{'' if self._file else ', closed'}>"

    # --- looking around ---

    def cd(self, path: str | os.PathLike[str]) -> None:
        """Relative paths begin at this folder from now on. ``FileNotFoundError`` or ``NotADirectoryError`` where it is none."""
        with phil:
            self.cwd = "/" + self._known().folder(self._resolve(path)).path

    def ls(self, path: str | os.PathLike[str] = ".") -> list[str]:
        """The names in a folder, in the order of their bytes: files, folders and links."""
        with phil:
            return list(self._known(all_of=True).entries(self._resolve(path)))

    def walk(self, top: str | os.PathLike[str] = ".") -> Iterator[tuple[str, list[str], list[str]]]:
        """As ``os.walk``: path, names of folders, names of files, for each folder from the top down.

        Links count as what they lead to, and are not walked into; one that leads nowhere counts as a file. Names that are
        taken out of the list of folders are not walked into either.
        """
        with phil:
            pending = [self._known(all_of=True).folder(self._resolve(top)).path]
        while pending:
            path = pending.pop()
            folders: list[str] = []
            files: list[str] = []
            links: set[str] = set()
            with phil:
                catalogue = self._known(all_of=True)
                entries = catalogue.entries(path)
                for name, kind in zip(entries, catalogue.table.members["kind"][list(entries.values())].tolist()):
                    if kind == LINK:
                        links.add(name)
                        kind = FOLDER if self._is(join(path, name), FOLDER) else FILE
                    (folders if kind == FOLDER else files).append(name)
            yield "/" + path, folders, files
            pending += [join(path, name) for name in reversed(folders) if name not in links]

    def glob(self, pattern: str) -> list[str]:
        """Paths that match a pattern, in order: ``*``, ``?`` and ``[…]`` within a name, ``**`` for any number of folders.

        They are written as the pattern is: relative to the folder of :meth:`cd` unless it begins with a slash.
        """
        start, lead = ("", "/") if pattern.startswith("/") else (self.cwd.strip("/"), "")
        found = {lead + path for path in matches(self._listing, start, parts_of_pattern(pattern)) if path}
        return sorted(found)

    def _listing(self, folder: str) -> dict[str, bool]:
        """The names in a folder, and whether each is one itself; nothing of what is none."""
        with phil:
            catalogue = self._known(all_of=True)
            if not self._is(folder, FOLDER):
                return {}
            entries = catalogue.entries(folder)
            return dict(zip(entries, (catalogue.table.members["kind"][list(entries.values())] == FOLDER).tolist()))

    def stat(self, path: str | os.PathLike[str], *, follow: bool = False) -> Stat:
        """What is known of a member; of what a link leads to with `follow`.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
            UnsupportedError: it has no bytes that would mean something elsewhere.
        """
        with phil:
            catalogue = self._known(1)
            place = self._resolve(path)
            parent, _, name = place.rpartition("/")
            if not place:
                return Stat("/", "folder", 0, None, None, None, bool(self._file.attrs))
            folder = catalogue.folder(parent)
            row = catalogue.row_of(folder, name)
            if row is None:
                raise FileNotFoundError(f"no {place!r} in {self.path}")
            place, row = catalogue.follow(folder, name, row) if follow else (join(folder.path, name), row)
            if row < 0:
                return self.stat("/")
            kind = _KINDS[int(catalogue.table.members["kind"][row])]
            size = self._contents.size(place, row, raw=self.raw) if kind == "file" else 0
            member = catalogue.table.members[row]
            return Stat("/" + place, kind, size, None if member["modified"] == NO_TIME else int(member["modified"]),
                        int(member["permissions"]) or None, catalogue.shown_target(place) if kind == "link" else None,
                        bool(member["attributes"]))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is a file or folder, or a link that leads to one."""
        return self.isfile(path) or self.isdir(path)

    def isdir(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is a folder, or a link to one."""
        return self._leads_to(path, FOLDER)

    def isfile(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is a file, or a link to one."""
        return self._leads_to(path, FILE)

    def _leads_to(self, path: str | os.PathLike[str], kind: int) -> bool:
        with phil:
            self._known(1)
            try:
                return self._is(self._resolve(path), kind)
            except ValueError:  # what no path can be is not there
                return False

    def _is(self, path: str, kind: int) -> bool:
        try:
            row = self._catalogue.find(path)[1]
        except (H5FastError, OSError):
            return False
        return bool((FOLDER if row < 0 else self._catalogue.table.members["kind"][row]) == kind)

    def attributes(self, path: str | os.PathLike[str] = ".") -> dict[str, Any]:
        """The HDF5 attributes of a member. Files of the layout `encoded` have none."""
        with phil:
            place, row = self._real(path)
            found = None if self._catalogue.where(row) is not None else self._file.get(as_bytes(place))
            return {} if found is None else dict(found.attrs)

    @property
    def skipped(self) -> list[str]:
        """What of the folders that were listed so far is not shown, each with the reason."""
        return [text for folder in self._catalogue.folders.values() for text in folder.skipped]

    # --- reading ---

    def open(self, path: str | os.PathLike[str], mode: str = "rb") -> BinaryIO:
        """A file as a seekable binary file object, which reads just the chunks that it touches.

        "wb" gives an empty one to write to; it is put into the tree when it is closed.

        Raises:
            FileNotFoundError, IsADirectoryError, NotADirectoryError: there is no such file.
            UnsupportedError: it has no bytes that would mean something elsewhere.
            ValueError: there is no such mode.
        """
        if mode in ("w", "wb"):
            self._writable()
            return cast(BinaryIO, NewFile("/" + self._resolve(path), self.put))
        if mode not in ("r", "rb"):
            raise ValueError(f"files are opened to be read, 'rb', or written, 'wb', and not {mode!r}")
        return cast(BinaryIO, io.BufferedReader(MemberFile(self.member(path), os.fspath(path))))

    def member(self, path: str | os.PathLike[str]) -> Member:
        """A file, of which any thread reads any range: ``member.read_at(start, stop)``. Raises what :meth:`open` does."""
        with phil:
            place, row = self._real_file(path)
            return Member(self._contents, place, row, raw=self.raw)

    def read_bytes(self, path: str | os.PathLike[str]) -> bytes:
        """All bytes of a file. Raises what :meth:`open` does."""
        return self.read_many([path])[0]

    def read_many(self, paths: Iterable[str | os.PathLike[str]]) -> list[bytes]:
        """The bytes of many files, in the order asked for, in one pass of native threads over the file.

        Raises what :meth:`open` does, and ``CorruptChunkError`` or ``ReadError`` for bytes that cannot be read. ``TypeError``:
        `paths` is a single one.
        """
        if isinstance(paths, (str, bytes)):
            raise TypeError(f"read_many takes several paths, not one str: read_many([{paths!r}])")
        asked = list(paths)
        with phil:
            catalogue = self._known(len(asked))
            places = [self._resolve(path) for path in asked]
            rows = catalogue.find_many(places)
            contents = self._contents
            if not contents.are_known(rows):  # datasets have to be opened, by the paths that links lead to
                places = [catalogue.find(place)[0] for place in places]
        return contents.read_many(places, rows, raw=self.raw)

    def __getitem__(self, path: str) -> bytes:
        """All bytes of a file. ``KeyError`` where there is none of that path."""
        try:
            return self.read_bytes(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise KeyError(str(error)) from None

    def __contains__(self, path: object) -> bool:
        """Whether there is a file of that path."""
        return isinstance(path, (str, os.PathLike)) and self.isfile(path)

    def __iter__(self) -> Iterator[str]:
        """The paths of all files, folder by folder: from the root, without a slash in front unless :meth:`cd` led elsewhere."""
        lead = "" if self.cwd == "/" else "/"
        for folder, names in self._files():
            for name in names:
                yield lead + join(folder, name)

    def __len__(self) -> int:
        """How many files there are."""
        return sum(len(names) for _, names in self._files())

    def _files(self) -> Iterator[tuple[str, list[str]]]:
        """Each folder, from the root, and the names of its files and of links to files."""
        pending = [""]
        while pending:
            folder = pending.pop()
            with phil:
                catalogue = self._known(all_of=True)
                entries = catalogue.entries(folder)
                kinds = catalogue.table.members["kind"][list(entries.values())].tolist()
                names = [name for name, kind in zip(entries, kinds)
                         if kind == FILE or (kind == LINK and self._is(join(folder, name), FILE))]
            yield folder, names
            pending += [join(folder, name) for name, kind in zip(entries, kinds) if kind == FOLDER][::-1]

    # --- writing ---

    def put(self, path: str | os.PathLike[str], data: Any, *, modified: int | None = None,
            permissions: int | None = None) -> None:
        """Writes a file, in place of one that is there; folders on the way are made.

        Args:
            data: anything with a buffer of bytes, or a str, which becomes UTF-8; an array of numbers stays an array, and comes
                back as a ``.npy`` file
            modified, permissions: as :class:`Stat` has them

        Raises:
            IsADirectoryError, NotADirectoryError: a folder is there, or a file where a folder should be.
            TypeError: data is none of these. ``io.UnsupportedOperation``: the tree is open for reading only.
        """
        self._writable().put(self._resolve(path), data, {"Modified": modified, "Permissions": permissions})

    def mkdir(self, path: str | os.PathLike[str], *, exist_ok: bool = False) -> None:
        """Makes a folder, and those above it. ``FileExistsError`` where something is there, but a folder with `exist_ok`."""
        self._writable().mkdir(self._resolve(path), exist_ok=exist_ok)

    def rm(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Removes a file or link, or with `recursive` a folder. HDF5 does not give the room back: ``h5repack`` does.

        Raises:
            FileNotFoundError: there is none. ``IsADirectoryError``: it is a folder.
        """
        self._writable().remove(self._resolve(path), recursive=recursive)

    def mv(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """Gives a member another path, in place of a file there; into `new`, if that is a folder.

        Raises:
            FileNotFoundError: there is no such member. ``ValueError``: a folder would move into itself.
        """
        place = self._resolve(new)
        if self.isdir("/" + place):
            place = join(place, posixpath.basename(self._resolve(old)))
        self._writable().move(self._resolve(old), place)

    def note(self, path: str | os.PathLike[str], *, modified: int | None = None, permissions: int | None = None) -> None:
        """Notes time or permissions of a file or folder. Files of the layout `encoded` keep what they have."""
        place = self._real(path)[0]
        self._writable().note(place, {"Modified": modified, "Permissions": permissions})

    def flush(self) -> None:
        """Hands all changes to the operating system: they stay there if this process is killed."""
        self._writable()
        self._file.flush()

    def _writable(self) -> Changes:
        if self._changes is None:
            raise io.UnsupportedOperation(f"{self.path} is open for reading: FileTree(path, 'r+') changes it")
        self._use(self._changes.catalogue())
        return self._changes

    # --- finding ---

    def _resolve(self, path: str | os.PathLike[str]) -> str:
        return resolve(self.cwd.strip("/"), path)

    def _known(self, lookups: int = 0, *, all_of: bool = False) -> Catalogue:
        """What is known of the file. The saved index is loaded where that is less work than what was looked up without it."""
        if not self._file:
            raise ValueError(f"the FileTree of {self.path} is closed")
        if self._changes is not None:
            self._use(self._changes.catalogue())
        elif self._saved is not None:
            self._lookups += lookups
            if all_of or self._lookups * _INDEX_PER_LOOKUP >= self._saved.rows:
                found, self._saved = self._saved.load(), None
                if found is not None:
                    self._use(found)
        return self._catalogue

    def _real(self, path: str | os.PathLike[str]) -> tuple[str, int]:
        """Path and row of a member, links followed."""
        return self._known(1).find(self._resolve(path))

    def _real_file(self, path: str | os.PathLike[str]) -> tuple[str, int]:
        place, row = self._real(path)
        if row < 0 or self._catalogue.table.members["kind"][row] != FILE:
            raise IsADirectoryError(f"{place!r} is a folder")
        return place, row


def _reopen(path: str, raw: bool, cwd: str) -> FileTree:
    tree = FileTree(path, raw=raw)
    tree.cwd = cwd
    return tree
