"""The protocol ``h5fast`` of fsspec: ``h5fast://inner/path::/file.h5``. fsspec is imported here alone; it finds this module by
its entry point."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from h5fast.errors import UnsupportedError
from h5fast.tree.entries import Stat
from h5fast.tree.filetree import FileTree

__all__ = ["H5FastFileSystem"]


class H5FastFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """The files in an HDF5 file.

    Args:
        fo: the HDF5 file, by path or by the URL of a file system whose files are local: ``simplecache::s3://bucket/file.h5``
        mode: "r", or "a" to write and remove files, too
        raw: arrays are their elements alone, without the head of a ``.npy`` file
        target_protocol, target_options: of the file system that `fo` is in, as chained URLs give them

    Raises:
        UnsupportedError: `fo` is in a file system whose files are not local; the message says how they become so.
        OSError: the file cannot be opened.
    """

    root_marker = ""
    protocol = "h5fast"
    cachable = False  # the file may be another one next time; what is open is shared below

    def __init__(self, fo: str = "", mode: str = "r", raw: bool = False, target_protocol: str | None = None,
                 target_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("r", "a", "r+"):
            raise ValueError(f"mode must be 'r', 'r+' or 'a', not {mode!r}")
        self.tree = FileTree(_local_path(fo, target_protocol, target_options), mode, raw=raw)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        found = super()._strip_protocol(path)
        return [one.lstrip("/") for one in found] if isinstance(found, list) else found.lstrip("/")

    def close(self) -> None:
        """Closes the file."""
        self.tree.close()

    # --- looking ---

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What fsspec's file systems say of a path: name, size, type; and ``mtime``, ``mode`` where the file has them."""
        return _about(self.tree.stat("/" + self._strip_protocol(path), follow=True), self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The members of a folder, or the file of that path; names, or with `detail` what :meth:`info` gives."""
        place = self._strip_protocol(path)
        if not self.tree.isdir("/" + place):
            names = [place] if self.tree.isfile("/" + place) else []
            if not names:
                raise FileNotFoundError(place)
        else:
            names = [f"{place}/{name}".lstrip("/") for name in self.tree.ls("/" + place)]
        return [self._about_any(name) for name in names] if detail else names

    def _about_any(self, name: str) -> dict[str, Any]:
        try:
            return self.info(name)
        except (FileNotFoundError, UnsupportedError):  # a link that leads nowhere, or what has no bytes
            return {"name": name, "size": 0, "type": "other"}

    # --- reading ---

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode not in ("rb", "wb"):
            raise ValueError(f"files are opened 'rb' or 'wb', not {mode!r}")
        return self.tree.open("/" + self._strip_protocol(path), mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """The bytes of a file, or a range of them."""
        member = self.tree.member("/" + self._strip_protocol(path))
        first, last, _ = slice(start, end).indices(member.size)
        return member.read_at(first, last)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of files, read in one pass where there are several; see fsspec."""
        if on_error != "raise" or isinstance(path, str):
            return super().cat(path, recursive=recursive, on_error=on_error, **kwargs)
        names = self.expand_path(path, recursive=recursive)
        files = [name for name in names if self.tree.isfile("/" + name)]
        return dict(zip(files, self.tree.read_many("/" + name for name in files), strict=True))

    # --- writing ---

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Writes a file."""
        place = "/" + self._strip_protocol(path)
        if mode == "create" and self.tree.exists(place):
            raise FileExistsError(place)
        self.tree.put(place, value)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Makes a folder, and those above it."""
        self.tree.mkdir("/" + self._strip_protocol(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a folder, and those above it."""
        self.tree.mkdir("/" + self._strip_protocol(path), exist_ok=exist_ok)

    def rm_file(self, path: str) -> None:
        """Removes a file."""
        self.tree.rm("/" + self._strip_protocol(path))

    def rmdir(self, path: str) -> None:
        """Removes an empty folder."""
        place = "/" + self._strip_protocol(path)
        if self.tree.ls(place):
            raise OSError(f"{place!r} is not empty")
        self.tree.rm(place, recursive=True)

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Gives a file or folder another path."""
        self.tree.mv("/" + self._strip_protocol(path1), "/" + self._strip_protocol(path2))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Writes a file that is there under another path as well; a folder is made."""
        source = "/" + self._strip_protocol(path1)
        if self.tree.isdir(source):
            self.makedirs(path2, exist_ok=True)
        else:
            self.pipe_file(path2, self.cat_file(path1))


def _local_path(fo: str, protocol: str | None, options: dict[str, Any] | None) -> str:
    if not fo:
        raise ValueError("which HDF5 file? h5fast://inner/path::/file.h5, or fsspec.filesystem('h5fast', fo='/file.h5')")
    if protocol in (None, "file", "local") and "::" not in str(fo) and "://" not in str(fo):
        return str(fo)
    try:
        found = fsspec.open_local(fo, mode="rb", protocol=protocol, **(options or {}))
    except ValueError as error:
        raise UnsupportedError(f"{fo} is not a local file: put simplecache:: in front of its URL, which copies it here first "
                               f"({error})") from error
    return str(found[0] if isinstance(found, list) else found)


def _about(found: Stat, name: str) -> dict[str, Any]:
    about = {"name": name, "size": found.size, "type": "directory" if found.kind == "folder" else found.kind}
    if found.modified is not None:
        about["mtime"] = found.modified
    if found.permissions is not None:
        about["mode"] = found.permissions
    return about
