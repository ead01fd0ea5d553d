"""A file that changes from one consistent state to the next, whatever happens to the process in between.

HDF5 itself makes no such promise: a process that dies while it writes leaves a file of which nobody can say what it holds.
So libhdf5 is given this object as its file (h5py's driver for file objects). What it appends goes straight to the file. What
it changes of the part that was committed is kept aside, page by page, until the next commit; that writes one small file
beside it, ``NAME.commit``, holding these pages, the size and whatever the writer wants to know when it continues, replaces
the former one in a single step, and only then changes the pages in the file. Whoever opens the file again puts the pages of
the last commit into place (once more, if need be) and cuts off what was appended since.

Knows nothing of rows or HDF5. A refused write (a full disk) is remembered and the object becomes a sink, because libhdf5 cannot
close a file that it cannot write; :meth:`Transaction.check` raises the refusal.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Transaction", "commit_path", "read_state"]

_MAGIC = b"h5fast commit 1\n"
_DIGEST = 16
_PAGE = 4096


def commit_path(path: Path) -> Path:
    """Where the last commit of the file at `path` is told."""
    return path.with_name(path.name + ".commit")


def read_state(path: Path) -> dict[str, Any] | None:
    """What the last commit of the file at `path` was given; None where there is none. Raises ``OSError`` for a damaged one."""
    found = _read_commit(commit_path(path)) if path.exists() else None
    return None if found is None else found[0]["state"]


def _sync_folder(path: Path) -> None:
    """Makes renames in the folder of `path` outlast a loss of power, where the file system can."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do not offer it
            raise
    finally:
        os.close(descriptor)


class Transaction:
    """The file at a path, open for reading and writing; the protocol of Python's raw files, as far as h5py asks for it.

    Args:
        path: the file; another process that has it open in this way is an error
        resume: whether to continue from its last commit, if it has one; else it is emptied

    Attributes:
        state, blobs: what the last commit was given; None and empty where there is none

    Raises:
        OSError: it cannot be opened, or is in use, or is not the file that its commit tells of.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self.state: dict[str, Any] | None = None
        self.blobs: dict[str, bytes] = {}
        self._failure: OSError | None = None
        self._process = os.getpid()
        self._is_locked = False
        self._pages: dict[int, bytearray] = {}  # of the committed part, as they are to be, by number; the last may be short
        self._committed = 0  # bytes of the committed part
        self._size = 0  # bytes of the file as its user sees it
        self._at = 0
        found = _read_commit(commit_path(path)) if resume and path.exists() else None
        if found is None:
            self._begin()
        else:
            self._descriptor = self._open_locked(os.O_RDWR)
            try:
                self._roll_forward(*found)
            except BaseException:
                self.close()
                raise

    def _begin(self) -> None:
        """A new file. One that is there keeps its bytes, in case they have another name as well."""
        try:
            former = self._open_locked(os.O_RDONLY)
        except FileNotFoundError:
            pass
        else:
            os.unlink(self.path)
            os.close(former)
        commit_path(self.path).unlink(missing_ok=True)
        self._descriptor = self._open_locked(os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _open_locked(self, flags: int) -> int:
        descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o666)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_locked = True
        except BlockingIOError as error:
            raise OSError(errno.EBUSY, "is being written by another Writer", str(self.path)) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                raise  # these: a file system without locks, where nothing keeps two writers apart

    def _unlock(self) -> None:
        if self._is_locked:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _roll_forward(self, head: dict[str, Any], blobs: dict[str, bytes], pages: dict[int, bytearray]) -> None:
        size = head["size"]
        if os.fstat(self._descriptor).st_size < size:
            raise OSError(errno.EIO, f"is shorter than the {size} bytes of its last commit: it cannot be continued", str(self.path))
        for number, page in pages.items():
            _write_all(self._descriptor, page, number * _PAGE)
        os.ftruncate(self._descriptor, size)
        if self._fingerprint(size) != head["fingerprint"]:
            raise OSError(errno.EIO, f"is not the file that {commit_path(self.path).name} tells of: it cannot be continued",
                          str(self.path))
        self._committed = self._size = size
        self.state, self.blobs = head["state"], blobs

    # What h5py calls.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; returns it."""
        self._at = offset + (0 if whence == os.SEEK_SET else self._at if whence == os.SEEK_CUR else self._size)
        return self._at

    def tell(self) -> int:
        """The present offset."""
        return self._at

    def read(self, size: int) -> bytes:
        """`size` bytes from the present offset; fewer at the end."""
        found = bytearray(max(0, min(size, self._size - self._at)))
        self.readinto(found)
        return bytes(found)

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer from the present offset, as far as there are bytes; returns how many."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        done = 0
        while done < count:
            got = os.preadv(self._descriptor, [view[done:count]], self._at + done)
            if got == 0:
                view[done:count] = bytes(count - done)  # never written, or only kept aside
                break
            done += got
        for number, page in self._kept_pages(self._at, self._at + count):
            begin, end = max(self._at, number * _PAGE), min(self._at + count, number * _PAGE + len(page))
            if begin < end:
                view[begin - self._at:end - self._at] = page[begin - number * _PAGE:end - number * _PAGE]
        self._at += count
        return count

    def write(self, data: Any) -> int:
        """Writes at the present offset; always takes all of it."""
        view = memoryview(data).cast("B")
        count, first = len(view), self._at
        if self._is_written():
            aside = max(0, min(count, self._committed - first))
            try:
                if aside > 0:
                    self._keep_aside(view[:aside], first)
                if aside < count:
                    _write_all(self._descriptor, view[aside:], first + aside)
            except OSError as error:
                self._failure = error
        self._at = first + count
        self._size = max(self._size, self._at)
        return count

    def truncate(self, size: int | None = None) -> int:
        """Makes the file as long as that."""
        self._size = self._at if size is None else size
        if self._is_written() and self._size >= self._committed:
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError as error:
                self._failure = error
        return self._size

    def flush(self) -> None:
        """Does nothing: :meth:`commit` does."""

    # What the writer calls.

    def check(self) -> None:
        """Raises the ``OSError`` of a write that the system refused, naming the file."""
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror, str(self.path)) from self._failure

    def give_up(self) -> None:
        """Nothing is written any more; the last commit stays the file's state."""
        self._failure = self._failure or OSError(errno.ECANCELED, "was given up")

    def commit(self, state: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Makes what was written so far, with `state` and `blobs`, the state that the file is continued from.

        Raises:
            OSError: the disk is full, or refuses otherwise; the former commit holds.
        """
        self.check()
        try:
            os.fsync(self._descriptor)
            pages = {number: page for number, page in self._pages.items() if number * _PAGE < self._size}
            head = {"size": self._size, "state": dict(state), "fingerprint": self._fingerprint(self._size)}
            _write_commit(commit_path(self.path), head, blobs, pages)
            for number, page in pages.items():
                _write_all(self._descriptor, page, number * _PAGE)
            if os.fstat(self._descriptor).st_size > self._size:
                os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            self._failure = error
            self.check()
        self._pages.clear()
        self._committed = self._size

    def finish(self, state: Mapping[str, Any], target: Path, *, replace: bool, then: Callable[[Path], object] | None = None) -> None:
        """Gives the file its name, at the end of all writing; until then `state` is what a crash leaves to continue from.

        `then` may change the file at its path before it gets its name; a crash in that leaves nothing to continue from.

        Raises:
            FileExistsError: there is a file of this name meanwhile, and not to be replaced. The commit holds.
            OSError: the system refuses.
        """
        if self._committed:
            self.commit(state, {})
        self.check()
        if then is not None:
            commit_path(self.path).unlink(missing_ok=True)
            self._unlock()  # HDF5 takes that lock itself
            then(self.path)
        os.fsync(self._descriptor)
        if replace:
            os.replace(self.path, target)
        else:
            _rename_to_new(self.path, target)
        commit_path(self.path).unlink(missing_ok=True)
        _sync_folder(target)

    def close(self) -> None:
        """Lets go of the file, as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_written(self) -> bool:
        """Not after a refusal, and not in a forked child: libhdf5 writes what it has when that ends."""
        return self._failure is None and os.getpid() == self._process

    def _kept_pages(self, begin: int, end: int) -> list[tuple[int, bytearray]]:
        if not self._pages or begin >= end:
            return []
        numbers = range(begin // _PAGE, (end - 1) // _PAGE + 1)
        if len(numbers) > len(self._pages):
            return [(number, page) for number, page in self._pages.items() if number in numbers]
        return [(number, self._pages[number]) for number in numbers if number in self._pages]

    def _keep_aside(self, view: memoryview, first: int) -> None:
        for number in range(first // _PAGE, (first + len(view) - 1) // _PAGE + 1):
            begin, end = max(first, number * _PAGE), min(first + len(view), (number + 1) * _PAGE)
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bytearray(min(_PAGE, self._committed - number * _PAGE))
                stored = os.pread(self._descriptor, len(page), number * _PAGE)
                page[:len(stored)] = stored
            page[begin - number * _PAGE:end - number * _PAGE] = view[begin - first:end - first]

    def _fingerprint(self, size: int) -> str:
        """Of the first and the last page: another file, or another state of this one, has another."""
        before, digest = self._at, hashlib.blake2b(digest_size=_DIGEST)
        for offset in (0, max(0, size - _PAGE)):
            self._at, self._size = offset, max(self._size, size)
            digest.update(self.read(min(_PAGE, size - offset)))
        self._at = before
        return digest.hexdigest()


def _rename_to_new(path: Path, target: Path) -> None:
    """Renames without replacing anything."""
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links; a look before the rename is the best that is left
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(path, target)
    else:
        os.unlink(path)


def _write_all(descriptor: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    while len(view) > 0:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _write_commit(path: Path, head: dict[str, Any], blobs: Mapping[str, bytes], pages: Mapping[int, bytearray]) -> None:
    numbers = sorted(pages)
    head = {**head, "blobs": [[name, len(blob)] for name, blob in blobs.items()],
            "pages": [[number, len(pages[number])] for number in numbers]}
    text = json.dumps(head).encode()
    parts: list[bytes | bytearray] = [_MAGIC, len(text).to_bytes(8, "little"), text, *blobs.values(), *(pages[number] for number in numbers)]
    digest = hashlib.blake2b(digest_size=_DIGEST)
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _sync_folder(path)


def _read_commit(path: Path) -> tuple[dict[str, Any], dict[str, bytes], dict[int, bytearray]] | None:
    """Head, blobs and pages of a commit; None where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body, stored = content[:-_DIGEST], content[-_DIGEST:]
    if not body.startswith(_MAGIC) or hashlib.blake2b(body, digest_size=_DIGEST).digest() != stored:
        raise OSError(errno.EIO, "is damaged: what it was written for cannot be continued", str(path))
    at = len(_MAGIC) + 8
    length = int.from_bytes(body[len(_MAGIC):at], "little")
    head = json.loads(body[at:at + length])
    at += length
    blobs: dict[str, bytes] = {}
    for name, size in head["blobs"]:
        blobs[name] = body[at:at + size]
        at += size
    pages: dict[int, bytearray] = {}
    for number, size in head["pages"]:
        pages[number] = bytearray(body[at:at + size])
        at += size
    return head, blobs, pages
