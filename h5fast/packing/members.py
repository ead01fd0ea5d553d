"""One file of a source, on its way into an HDF5 file. No I/O of its own."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

__all__ = ["UNREADABLE", "Member", "Problem", "clean_path", "opened_bytes", "read"]

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
class Problem:
    """What of a source could not be packed, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


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
