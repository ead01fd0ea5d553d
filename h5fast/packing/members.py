"""One file of a source, on its way into an HDF5 file. No I/O of its own."""

from __future__ import annotations

import errno
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from h5fast.errors import ReadError

__all__ = ["UNREADABLE", "Folder", "Member", "Problem", "Trail", "clean_path", "opened_bytes", "read"]

#: What reading a member raises where its bytes are damaged, encrypted or refused.
UNREADABLE = (OSError, EOFError, NotImplementedError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Member:
    """A file of a source.

    Attributes:
        path: relative, with slashes, no part of it "." or ".."; bytes that are no UTF-8 as surrogates
        size: bytes; of an array, in memory
        open: opens it; what it gives may be read until the source is asked for the next member
        file: where it lies on a disk, if it does
        array: what it is, if it is an array already
        modified: seconds since 1970, if the source says
        permissions: as stat has them, if the source says
        label: its class, if the source says
    """

    path: str
    size: int
    open: Callable[[], BinaryIO]
    file: str | None = None
    array: Any = None
    modified: int | None = None
    permissions: int | None = None
    label: Any = None


@dataclass(frozen=True)
class Folder:
    """A folder of a source, which is told before what lies in it, if anything does.

    Attributes:
        path, modified, permissions: as of :class:`Member`
    """

    path: str
    modified: int | None = None
    permissions: int | None = None


@dataclass(frozen=True)
class Problem:
    """What of a source could not be packed, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Trail:
    """Which members a file has, so that one that is resumed is not continued from another source: a digest of their paths and sizes
    is part of its note.

    Args:
        note: what is kept with each flush
        former: what it was with the last one
        path: the file, for messages
    """

    def __init__(self, note: dict[str, Any], former: Mapping[str, Any], path: Path) -> None:
        self._note, self._path = note, path
        self._digest = hashlib.blake2b(digest_size=8)
        self._count = 0
        self._former = former.get("trail")
        if self._former is not None:
            note["trail"] = self._former

    def replay(self, member: Member) -> None:
        """A member comes by that the file has."""
        self._take(member)
        if self._former is not None and self._count == self._former[0] and self._told() == self._former:
            self._former = None

    def add(self, *members: Member) -> None:
        """Members have been added."""
        for member in members:
            self._take(member)
        self._note["trail"] = self._told()

    def check(self) -> None:
        """Raises ``ReadError`` where the members that came by are not those that the file has."""
        if self._former is not None:
            raise ReadError(errno.ESTALE, "was begun from a source with other files, or in another order: resume from the same one, or "
                            "begin anew with overwrite=True", str(self._path))

    def _take(self, member: Member) -> None:
        self._digest.update(f"{member.path}\0{member.size}\0".encode("utf-8", "surrogateescape"))
        self._count += 1

    def _told(self) -> list[Any]:
        return [self._count, self._digest.hexdigest()]


def clean_path(path: str) -> str:
    """The path of a member as it is stored. Raises ``ValueError`` for one that would leave the folder it is unpacked in, or
    that
    HDF5 has no name for."""
    if "\0" in path:
        raise ValueError("its path holds a NUL, which no name in an HDF5 file can")
    if path.startswith("/"):
        raise ValueError("its path is absolute")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("its path leads out of the archive, through '..'")
    if not parts:
        raise ValueError("its path is empty")
    return "/".join(parts)


def opened_bytes(data: bytes) -> Callable[[], BinaryIO]:
    """What opens bytes that are in memory."""
    return lambda: io.BytesIO(data)


def read(member: Member) -> bytes:
    """All bytes of a member. Raises one of :data:`UNREADABLE`."""
    with member.open() as file:
        data = file.read()
    if len(data) != member.size:
        raise EOFError(f"{len(data)} bytes came, of {member.size}")
    return data
