"""Archives as rows of members, in the order they lie in: tar (plain, gzip, bzip2, xz) as a stream, zip."""

from __future__ import annotations

import bz2
import calendar
import errno
import gzip
import io
import lzma
import os
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from h5fast.errors import ReadError
from h5fast.packing.members import Folder, Member, Problem, clean_path, opened_bytes

__all__ = ["TarSource", "ZipSource", "kind_of"]

_BUFFER = 1 << 20
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# What reading a compressed stream raises where it is damaged or cut off.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
# Links that lead to links: more are a circle.
_MOST_LINKS = 40


def kind_of(path: Path) -> str | None:
    """ "tar" or "zip", by the file's first bytes; None for anything else."""
    with open(path, "rb") as raw:
        head = raw.read(512)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head[257:262] == b"ustar" or path.name.lower().endswith(".tar"):
        return "tar"
    if any(head.startswith(magic) for magic in _OPENERS):
        return "tar"
    return None


class _Header(tarfile.TarInfo):
    """A header that tells its archive why there was none: tarfile itself takes damage between members for the end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile)
        except Exception as reason:
            tarfile.ended_by = reason  # type: ignore[attr-defined]
            raise


class TarSource:
    """The files of a tar archive, which is read once from one end to the other; see :class:`~h5fast.packing.sources.Source`.

    Links lead to members whose bytes have gone by, or are still to come. So where there are any, the archive is read a second
    time for what they lead to, and these come last.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._raw: BinaryIO | None = None
        self._links: dict[str, tuple[str, tarfile.TarInfo]] = {}

    def total(self) -> int | None:
        """Bytes of the archive."""
        return os.stat(self.name).st_size

    @property
    def position(self) -> int:
        """Bytes of the archive that were read."""
        return self._raw.tell() if self._raw is not None and not self._raw.closed else 0

    def members(self) -> Iterator[Member | Problem | Folder]:
        self._links = {}
        for tar, info in self._stream():
            if info.isdir() and not info.name.strip("./"):
                continue  # the folder that was packed
            try:
                path = clean_path(info.name)
                if info.isdir():
                    yield Folder(path, int(info.mtime), stat.S_IFDIR | info.mode)
                elif info.isreg():
                    yield _tar_member(path, tar, info)
                elif info.islnk() or info.issym():
                    self._links[path] = _target(path, info), info
                else:
                    yield Problem(path, "is neither a file nor a folder")
            except ValueError as error:
                yield Problem(info.name, str(error))
        if self._links:
            yield from self._linked()

    def _linked(self) -> Iterator[Member | Problem]:
        wanted: dict[str, list[str]] = {}
        for path in self._links:
            target = path
            for _ in range(_MOST_LINKS):
                if target not in self._links:
                    break
                target = self._links[target][0]
            wanted.setdefault(target, []).append(path)
        for tar, info in self._stream():
            if info.isreg():
                target = posixpath.normpath(info.name)
                paths = wanted.pop(target, [])
                first = _tar_member("", tar, info)
                opened = first.open if len(paths) < 2 else opened_bytes(first.open().read())  # the stream gives it once
                for path in paths:
                    yield replace(first, path=path, open=opened)
        for target, paths in wanted.items():
            yield from (Problem(path, f"is a link to {target!r}, which is not in the archive") for path in paths)

    def _stream(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        """All headers, each while the archive stands at its member's bytes."""
        with open(self.name, "rb") as raw:
            self._raw = raw
            head = raw.read(8)
            raw.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
            try:
                plain = raw if opener is None else io.BufferedReader(opener(raw), _BUFFER)
                with plain, tarfile.open(fileobj=plain, mode="r|", bufsize=_BUFFER, tarinfo=_Header) as tar:
                    while (info := tar.next()) is not None:
                        yield tar, info
                        tar.members.clear()  # type: ignore[attr-defined]  # they would all be kept
                    _check_end(tar)
                    while plain.read(_BUFFER):
                        pass  # to the end: the checksum of the stream stands there
            except _DAMAGE as error:
                raise self._damaged(error) from error
            except OSError as error:
                if error.filename is not None or error.errno is not None:
                    raise  # the system's, not of what the file holds
                raise self._damaged(error) from error  # bz2 tells damage so

    def _damaged(self, error: Exception) -> ReadError:
        return ReadError(errno.EIO, f"the archive is damaged or cut off: {error}", self.name)


def _check_end(tar: tarfile.TarFile) -> None:
    ended_by = getattr(tar, "ended_by", None)
    if not isinstance(ended_by, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        raise tarfile.ReadError(f"it does not end as tar archives do, after {tar.offset} bytes ({ended_by})")


def _tar_member(path: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    return Member(
        path,
        info.size,
        lambda: cast(BinaryIO, tar.extractfile(info)),
        modified=int(info.mtime),
        permissions=stat.S_IFREG | info.mode,
    )


def _target(path: str, info: tarfile.TarInfo) -> str:
    """The path of what a link leads to."""
    if info.islnk():
        return posixpath.normpath(info.linkname)
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), info.linkname))


class ZipSource:
    """The files of a zip archive; see :class:`~h5fast.packing.sources.Source`."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.position = 0
        with self._opened() as archive:
            self._total = sum(info.compress_size for info in archive.infolist())

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.name)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
            raise ReadError(errno.EIO, f"the archive is damaged or cut off: {error}", self.name) from error

    def total(self) -> int | None:
        """Bytes of all members, as they are compressed."""
        return self._total

    def members(self) -> Iterator[Member | Problem | Folder]:
        self.position = 0
        with self._opened() as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
                yield _zip_member(archive, info)
                self.position += info.compress_size


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member | Problem | Folder:
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        return Problem(info.filename, "is encrypted")
    if stat.S_ISLNK(mode):
        return Problem(info.filename, "is a symbolic link, which is not followed within a zip archive")
    try:
        path = clean_path(info.filename)
    except ValueError as error:
        return Problem(info.filename, str(error))
    if info.is_dir():
        return Folder(path, _zip_time(info), mode or None)
    return Member(
        path,
        info.file_size,
        lambda: cast(BinaryIO, archive.open(info)),
        modified=_zip_time(info),
        permissions=mode or None,
    )


def _zip_time(info: zipfile.ZipInfo) -> int | None:
    """Seconds since 1970, as if the clock had shown UTC; None for the day 0 that archives without times have."""
    year, month, day, *clock = info.date_time
    if not 1 <= month <= 12:
        return None
    return calendar.timegm((year, month, day, *clock, 0, 0, 0))
