"""What a mounted tree answers the kernel: calls of FUSE, as methods that raise ``OSError`` with an ``errno``.

It knows nothing of FUSE itself, so it runs and is tested without a kernel that mounts.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from h5fast.errors import H5FastError, UnsupportedError
from h5fast.tree.filetree import FileTree
from h5fast.tree.member import Member

__all__ = ["ReadOperations", "WriteOperations"]

# Members that are kept open for the next read, with their last decoded chunk.
_OPEN_MEMBERS = 64
_PREFIX = "user."
_ERRNO: tuple[tuple[type[BaseException], int], ...] = (
    (FileNotFoundError, errno.ENOENT), (NotADirectoryError, errno.ENOTDIR), (IsADirectoryError, errno.EISDIR),
    (FileExistsError, errno.EEXIST), (UnsupportedError, errno.EOPNOTSUPP), (io.UnsupportedOperation, errno.EROFS),
    (H5FastError, errno.EIO), (KeyError, errno.ENOENT), (ValueError, errno.EINVAL), (RuntimeError, errno.EIO),
)

_Answer = TypeVar("_Answer")


def _answering(method: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """Gives every error the number that the kernel knows it by."""

    @functools.wraps(method)
    def call(*arguments: Any) -> _Answer:
        try:
            return method(*arguments)
        except Exception as error:
            for kind, number in _ERRNO:
                if isinstance(error, kind):
                    raise OSError(number, str(error)) from error
            if isinstance(error, OSError) and error.errno is None:  # libhdf5's: the number is in its text, if anywhere
                told = re.search(r"errno = (\d+)", str(error))
                raise OSError(int(told[1]) if told else errno.EIO, str(error)) from error
            raise

    return call


class ReadOperations:
    """A tree that is open for reading.

    Args:
        tree: the tree, of which no one else changes the folder
    """

    use_ns = True  # times are whole nanoseconds

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        about = os.stat(tree.path)
        self._time = about.st_mtime_ns
        self._bytes = about.st_size
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._lock = threading.Lock()

    @_answering
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """What ``stat`` tells."""
        try:
            found = self._tree.stat(path)
            kind, size, modified, permissions = found.kind, found.size, found.modified, found.permissions
        except UnsupportedError:  # it is there, and reading it says why it cannot be
            kind, size, modified, permissions = "file", 0, None, None
        if kind == "link":
            size = len(os.fsencode(self.readlink(path)))
        when = self._time if modified is None else modified * 10**9
        return {"st_mode": self._mode(kind, permissions), "st_nlink": 1, "st_size": size, "st_blocks": -(-size // 512),
                "st_blksize": 4096, "st_mtime": when, "st_ctime": when, "st_atime": when, **self._owner}

    def _mode(self, kind: str, permissions: int | None) -> int:
        if kind == "link":
            return stat.S_IFLNK | 0o777
        if kind == "folder":
            return stat.S_IFDIR | (0o755 if permissions is None else permissions & 0o777)
        return stat.S_IFREG | (0o444 if permissions is None else permissions & 0o777)

    @_answering
    def readdir(self, path: str, fh: int) -> Iterable[str]:
        """The names in a folder."""
        return [".", "..", *self._tree.ls(path)]

    @_answering
    def readlink(self, path: str) -> str:
        """What a link says, relative to its folder; one that leads out of the file leads nowhere."""
        target = self._tree.stat(path).target
        return os.path.relpath(target, os.path.dirname(path)) if target is not None else "(outside of the file)"

    def open(self, path: str, flags: int) -> int:
        """Never needed: the kernel then reads without opening, which saves two calls of three a file."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    @_answering
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """A range of a file."""
        return self._member(path).read_at(offset, offset + size)

    def _member(self, path: str) -> Member:
        with self._lock:
            found = self._members.get(path)
            if found is not None:
                self._members.move_to_end(path)
                return found
        found = self._tree.member(path)
        with self._lock:
            self._members[path] = found
            while len(self._members) > _OPEN_MEMBERS:
                self._members.popitem(last=False)
        return found

    @_answering
    def listxattr(self, path: str) -> list[str]:
        """The names of the attributes."""
        return [_PREFIX + name for name in self._tree.attributes(path)] if self._tree.stat(path).has_attributes else []

    @_answering
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """An attribute: strings as they are, numbers and arrays as JSON."""
        if name.startswith(_PREFIX) and self._tree.stat(path).has_attributes:
            found = self._tree.attributes(path)
            if name[len(_PREFIX):] in found:
                return _as_text(found[name[len(_PREFIX):]])
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def statfs(self, path: str) -> dict[str, int]:
        """Sizes of the whole: those of the file, and no room."""
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": -(-self._bytes // 4096), "f_namemax": 255}


def _as_text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    try:
        return json.dumps(np.asarray(value).tolist(), default=str).encode()
    except (TypeError, ValueError):
        return str(value).encode()


def _moved(path: str, old: str, new: str) -> str:
    """What a path is called now that `old`, which may be a folder above it, is called `new`."""
    return new + path[len(old):] if f"{path}/".startswith(f"{old}/") else path


class WriteOperations(ReadOperations):
    """A tree that is open for writing. A file that is written lies in memory until it is closed."""

    def __init__(self, tree: FileTree) -> None:
        super().__init__(tree)
        self._written: dict[str, bytearray] = {}
        self._modes: dict[str, int] = {}  # of those that are not in the tree yet
        self._dirty: set[str] = set()
        self._handles: dict[int, str] = {}
        self._next = 1
        self._busy = threading.RLock()

    def _mode(self, kind: str, permissions: int | None) -> int:
        usual = 0o644 if kind == "file" and permissions is None else permissions
        return super()._mode(kind, usual)

    @_answering
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """What ``stat`` tells, also of a file that is being written."""
        with self._busy:
            content = self._written.get(path)
            if content is None:
                return super().getattr(path, fh)
            now = time.time_ns()
            mode = self._modes[path] if path in self._modes else super().getattr(path, fh)["st_mode"]
            return {"st_mode": mode, "st_nlink": 1, "st_size": len(content), "st_mtime": now, "st_ctime": now,
                    "st_atime": now, **self._owner}

    @_answering
    def readdir(self, path: str, fh: int) -> Iterable[str]:
        """The names in a folder, those of files that are being written too."""
        with self._busy:
            new = [os.path.basename(one) for one in self._written if os.path.dirname(one) == path]
            return list(dict.fromkeys([*super().readdir(path, fh), *new]))

    @_answering
    def open(self, path: str, flags: int) -> int:
        """A number for an open file."""
        with self._busy:
            if flags & os.O_ACCMODE != os.O_RDONLY and path not in self._written:
                self._written[path] = bytearray(b"" if flags & os.O_TRUNC else self._tree.read_bytes(path))
                if flags & os.O_TRUNC:
                    self._dirty.add(path)
            return self._handle(path)

    @_answering
    def create(self, path: str, mode: int, fi: int | None = None) -> int:
        """A new file, open."""
        with self._busy:
            if not self._tree.isdir(os.path.dirname(path)):
                raise FileNotFoundError(path)
            self._written[path] = bytearray()
            self._modes[path] = stat.S_IFREG | stat.S_IMODE(mode)
            self._dirty.add(path)
            return self._handle(path)

    def _handle(self, path: str) -> int:
        self._next += 1
        self._handles[self._next] = path
        return self._next

    @_answering
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """A range of a file."""
        with self._busy:
            content = self._written.get(path)
            if content is not None:
                return bytes(content[offset : offset + size])
            return super().read(path, size, offset, fh)

    @_answering
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Puts bytes into a file that is open to be written."""
        with self._busy:
            content = self._written[path]
            if offset > len(content):
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
            self._dirty.add(path)
            return len(data)

    @_answering
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Cuts a file, or adds zeros."""
        with self._busy:
            content = self._written.get(path)
            if content is None:
                old = self._tree.read_bytes(path)
                self._put(path, old[:length] + bytes(max(0, length - len(old))))
                return 0
            del content[length:]
            content.extend(bytes(length - len(content)))
            self._dirty.add(path)
            return 0

    @_answering
    def flush(self, path: str, fh: int) -> int:
        """Puts what was written into the tree. The kernel asks for it as a file is closed, and hands an error on."""
        with self._busy:
            if path in self._dirty:
                self._put(path, bytes(self._written[path]))
                self._dirty.discard(path)
                self._tree.flush()  # what was closed stays, if this process is killed
            return 0

    @_answering
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """As :meth:`flush`."""
        return self.flush(path, fh)

    def _put(self, path: str, content: bytes) -> None:
        try:
            permissions = self._tree.stat(path).permissions
        except FileNotFoundError:
            permissions = self._modes.get(path)
        self._forget(path)
        self._tree.put(path, content, modified=int(time.time()), permissions=permissions)
        self._modes.pop(path, None)

    @_answering
    def release(self, path: str, fh: int) -> int:
        """The file is closed."""
        with self._busy:
            place = self._handles.pop(fh, path)
            if place in self._written and place not in self._handles.values():
                try:
                    self.flush(place, fh)
                finally:  # what could not be written was told, and is not there
                    self._drop(place)
            return 0

    def _drop(self, path: str) -> None:
        self._written.pop(path, None)
        self._modes.pop(path, None)
        self._dirty.discard(path)

    @_answering
    def unlink(self, path: str) -> int:
        """Removes a file or link."""
        with self._busy:
            self._forget(path)
            self._drop(path)
            if self._tree.exists(path) or self._is_link(path):
                self._tree.rm(path)
            return 0

    def _is_link(self, path: str) -> bool:
        try:
            return self._tree.stat(path).kind == "link"
        except OSError:
            return False

    @_answering
    def mkdir(self, path: str, mode: int) -> int:
        """Makes a folder."""
        self._tree.mkdir(path)
        self._tree.note(path, permissions=stat.S_IFDIR | stat.S_IMODE(mode))
        return 0

    @_answering
    def rmdir(self, path: str) -> int:
        """Removes an empty folder."""
        if self._tree.ls(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        self._tree.rm(path, recursive=True)
        return 0

    @_answering
    def rename(self, old: str, new: str) -> int:
        """Gives a member another path, in place of a file or an empty folder there."""
        with self._busy:
            for path in [path for path in self._written if f"{path}/".startswith(f"{old}/")]:
                self.flush(path, 0)
            self._drop(new)
            self._members.clear()
            if self._tree.isdir(new) and not self._is_link(new):
                self.rmdir(new)
            self._tree.mv(old, new)
            self._written = {_moved(path, old, new): content for path, content in self._written.items()}  # still open
            self._handles = {fh: _moved(path, old, new) for fh, path in self._handles.items()}
            return 0

    @_answering
    def chmod(self, path: str, mode: int) -> int:
        """Notes permissions."""
        self._note(path, permissions=mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """Owners are not kept; everything is the mounting user's."""
        return 0

    @_answering
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Notes the time of modification."""
        self._note(path, modified=int(time.time() if times is None else times[1] // 10**9))
        return 0

    def _note(self, path: str, **about: int) -> None:
        with self._busy:
            if path in self._written:
                self.flush(path, 0)
            self._tree.note(path, **about)

    def statfs(self, path: str) -> dict[str, int]:
        """Sizes of the file system that the file lies in."""
        about = os.statvfs(self._tree.path)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")
        return {name: getattr(about, name) for name in names}

    def _forget(self, path: str) -> None:
        with self._lock:
            self._members.pop(path, None)
