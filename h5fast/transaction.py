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

from h5fast._paged import PAGE, PagedFile

__all__ = ["Transaction", "commit_path", "drop_commit", "files_beside", "read_state"]

_MAGIC = b"h5fast commit 1\n"
_DIGEST = 16


def commit_path(path: Path) -> Path:
    """Where the last commit of the file at `path` is told."""
    return path.with_name(path.name + ".commit")


def files_beside(path: Path) -> tuple[Path, Path]:
    """What there may be beside the file at `path`: its last commit, and one that was being written when the process was killed."""
    commit = commit_path(path)
    return commit, commit.with_name(commit.name + ".new")


def drop_commit(path: Path) -> None:
    """Takes away what lies beside the file at `path`: it cannot be continued then."""
    for beside in files_beside(path):
        beside.unlink(missing_ok=True)


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


class Transaction(PagedFile):
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
        self._is_locked = False
        if not (resume and path.exists() and self._continue()):
            self._begin()

    def _continue(self) -> bool:
        """Whether there is a commit, from which the file is continued now."""
        self.descriptor = self._open_locked(os.O_RDWR)
        try:
            found = _read_commit(commit_path(self.path))  # not before: who had the lock may have made another
            if found is not None:
                self._roll_forward(*found)
                return True
        except BaseException:
            self.close()
            raise
        self.close()
        return False

    def _begin(self) -> None:
        """A new file. One that is there keeps its bytes, in case they have another name as well."""
        try:
            former = self._open_locked(os.O_RDONLY)
        except FileNotFoundError:
            pass
        else:
            os.unlink(self.path)
            os.close(former)
        drop_commit(self.path)
        self.descriptor = self._open_locked(os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _open_locked(self, flags: int) -> int:
        descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o666)
        try:
            self._lock(descriptor)
            if not self._leads_to(descriptor):  # who had the lock gave the file its name meanwhile, or began anew
                raise OSError(errno.EBUSY, "is being written by another Writer", str(self.path))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _leads_to(self, descriptor: int) -> bool:
        """Whether the path is still that of the file that was opened."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

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
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def _roll_forward(self, head: dict[str, Any], blobs: dict[str, bytes], pages: dict[int, bytearray]) -> None:
        size = head["size"]
        if os.fstat(self.descriptor).st_size < size:
            raise OSError(errno.EIO, f"is shorter than the {size} bytes of its last commit: it cannot be continued", str(self.path))
        for number, page in pages.items():
            _write_all(self.descriptor, page, number * PAGE)
        os.ftruncate(self.descriptor, size)
        if self._fingerprint(size) != head["fingerprint"]:
            raise OSError(errno.EIO, f"is not the file that {commit_path(self.path).name} tells of: it cannot be continued",
                          str(self.path))
        self.committed = self.size = size
        self.state, self.blobs = head["state"], blobs

    def check(self) -> None:
        """Raises the ``OSError`` of a write that the system refused, naming the file."""
        self.settle()
        if self.failure is not None:
            raise OSError(self.failure.errno, self.failure.strerror, str(self.path)) from self.failure

    def give_up(self) -> None:
        """Nothing is written any more; the last commit stays the file's state."""
        self.failure = self.failure or OSError(errno.ECANCELED, "was given up")

    def commit(self, state: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Makes what was written so far, with `state` and `blobs`, the state that the file is continued from.

        Raises:
            OSError: the disk is full, or refuses otherwise; the former commit holds.
        """
        self.check()
        try:
            os.fsync(self.descriptor)
            pages = {number: page for number, page in self.pages.items() if number * PAGE < self.size}
            head = {"size": self.size, "state": dict(state), "fingerprint": self._fingerprint(self.size)}
            _write_commit(self.path, head, blobs, pages)
            for number, page in pages.items():
                _write_all(self.descriptor, page, number * PAGE)
            if os.fstat(self.descriptor).st_size > self.size:
                os.ftruncate(self.descriptor, self.size)
        except OSError as error:
            self.failure = error
            self.check()
        self.pages.clear()
        self.committed = self.size

    def finish(self, state: Mapping[str, Any], target: Path, *, replace: bool, then: Callable[[Path], object] | None = None) -> None:
        """Gives the file its name, at the end of all writing; until then `state` is what a crash leaves to continue from.

        `then` may change the file at its path before it gets its name; a crash in that leaves nothing to continue from.

        Raises:
            FileExistsError: there is a file of this name meanwhile, and not to be replaced. The commit holds.
            OSError: the system refuses.
        """
        if self.committed:
            self.commit(state, {})
        self.check()
        if then is not None:
            drop_commit(self.path)
            self._unlock()  # HDF5 takes that lock itself
            then(self.path)
        os.fsync(self.descriptor)
        if replace:
            os.replace(self.path, target)
        else:
            _rename_to_new(self.path, target)
        drop_commit(self.path)
        _sync_folder(target)

    def close(self) -> None:
        """Lets go of the file, as it is."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _fingerprint(self, size: int) -> str:
        """Of the first and the last page: another file, or another state of this one, has another."""
        before, digest = self.tell(), hashlib.blake2b(digest_size=_DIGEST)
        for offset in (0, max(0, size - PAGE)):
            self.size = max(self.size, size)
            self.seek(offset)
            digest.update(self.read(min(PAGE, size - offset)))
        self.seek(before)
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
    (commit, new), numbers = files_beside(path), sorted(pages)
    head = {**head, "blobs": [[name, len(blob)] for name, blob in blobs.items()],
            "pages": [[number, len(pages[number])] for number in numbers]}
    text = json.dumps(head).encode()
    parts: list[bytes | bytearray] = [_MAGIC, len(text).to_bytes(8, "little"), text, *blobs.values(), *(pages[number] for number in numbers)]
    digest = hashlib.blake2b(digest_size=_DIGEST)
    try:
        with open(new, "wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, commit)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _sync_folder(commit)


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
