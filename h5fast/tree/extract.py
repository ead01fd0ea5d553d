"""Out of a tree into a folder on disk, and from disk into a tree.

Nothing is written outside of the target: each folder is opened in the one above it, links are never followed on the way, and
what lies in the way of a file is removed instead of written through.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from h5fast.errors import H5FastError
from h5fast.threads import get_num_threads
from h5fast.tree.entries import Stat
from h5fast.tree.filetree import FileTree
from h5fast.tree.paths import join, resolve

__all__ = ["Done", "add", "extract", "outermost", "select"]

# Files that are read in one pass, by their number and their bytes; a larger one goes in pieces of that many bytes.
_BATCH_FILES = 4096
_BATCH_BYTES = 64 << 20

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Done:
    """What came of it: how many files and bytes, and a line for each thing that was left out."""

    files: int = 0
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)


def select(tree: FileTree, patterns: Iterable[str]) -> list[str]:
    """Paths of members: those named, and those that match a pattern. A name that is there is not a pattern.

    Raises:
        FileNotFoundError: a name or pattern leads to nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        place = "/" + "/".join(part for part in pattern.split("/") if part not in ("", "."))
        is_there = place == "/" or tree.exists(place) or _kind(tree, place) == "link"
        matches = [place] if is_there else tree.glob(place)
        if not matches:
            raise FileNotFoundError(f"{tree.path}: nothing there is called or matches {pattern!r}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _kind(tree: FileTree, path: str) -> str | None:
    try:
        return tree.stat(path).kind
    except (OSError, H5FastError):
        return None


def extract(tree: FileTree, target: str | os.PathLike[str], paths: Iterable[str] = ("/",), *,
            report: Callable[[Done], None] | None = None) -> Done:
    """Writes members, and all below those that are folders, under their paths into a folder on disk, which is made.

    Links within the tree become symbolic links. Times and permissions are set where the tree has them.

    Args:
        report: called now and then with what was done so far

    Raises:
        OSError: the target cannot be made or written to.
    """
    os.makedirs(target, exist_ok=True)
    done = Done()
    links: list[Stat] = []
    paths = outermost(tree, paths)
    root = _Folder(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        with ThreadPoolExecutor(get_num_threads()) as pool:
            for batch in _batches(_below(tree, paths, root, links, done)):
                _write_batch(tree, root, batch, pool, done)
                if report is not None:
                    report(done)
        for link in links:  # last, so that nothing is written through them
            _attempt(done, link.path, functools.partial(root.link, link))
        done.problems += tree.skipped
    finally:
        root.close()
    return done


def outermost(tree: FileTree, paths: Iterable[str]) -> list[str]:
    """Paths from the root, without those that lie in a folder that is among them: a pattern may match both."""
    chosen = dict.fromkeys("/" + resolve(tree.cwd.strip("/"), path) for path in paths)
    is_folder = functools.cache(lambda path: path in chosen and _kind(tree, path) == "folder")
    return [path for path in chosen if not any(map(is_folder, _above(path)))]


def _above(path: str) -> Iterator[str]:
    """All folders above a path, the root last."""
    while path != "/":
        path = posixpath.dirname(path)
        yield path


def _attempt(done: Done, path: str, do: Callable[[], None]) -> bool:
    try:
        do()
    except (H5FastError, OSError) as error:
        done.problems.append(f"{path}: {error.strerror if isinstance(error, OSError) and error.strerror else error}")
        return False
    return True


def _below(tree: FileTree, paths: Iterable[str], root: _Folder, links: list[Stat], done: Done) -> Iterator[Stat]:
    """The files at and below paths. Folders are made on the way."""
    for found in _stats(tree, paths, done):
        if found.kind != "folder":
            chosen: Iterable[Stat] = [found]
        else:
            walked = (folder for folder, _, _ in tree.walk(found.path))
            made = (folder for folder in walked if _attempt(done, folder, functools.partial(root.make, folder)))
            chosen = (inside for folder in made for inside in _stats(tree, _names(tree, folder), done))
        for inside in chosen:
            if inside.kind == "file":
                yield inside
            elif inside.kind == "link":
                links.append(inside)


def _names(tree: FileTree, folder: str) -> Iterator[str]:
    return (posixpath.join(folder, name) for name in tree.ls(folder))


def _stats(tree: FileTree, paths: Iterable[str], done: Done) -> Iterator[Stat]:
    """What is known of members; of which nothing can be known, it is told."""
    for path in paths:
        try:
            yield tree.stat(path)
        except (H5FastError, OSError) as error:
            done.problems.append(f"{path}: {error}")


def _batches(files: Iterable[Stat]) -> Iterator[list[Stat]]:
    batch: list[Stat] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _BATCH_FILES or size + file.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


def _write_batch(tree: FileTree, root: _Folder, batch: list[Stat], pool: ThreadPoolExecutor, done: Done) -> None:
    try:
        contents = None if batch[0].size > _BATCH_BYTES else tree.read_many([file.path for file in batch])
    except (H5FastError, OSError):
        contents = None  # one of them is damaged: each alone
    shares = [range(first, len(batch), get_num_threads()) for first in range(get_num_threads())]

    def write(share: range) -> None:
        for number in share:
            file = batch[number]
            data = iter([contents[number]]) if contents is not None else _pieces(tree, file)
            if _attempt(done, file.path, functools.partial(root.write, file, data)):
                with counting:
                    done.files += 1
                    done.nbytes += file.size

    counting = threading.Lock()
    list(pool.map(write, shares))


def _pieces(tree: FileTree, file: Stat) -> Iterator[bytes]:
    member = tree.member(file.path)
    for start in range(0, file.size, _BATCH_BYTES):
        yield member.read_at(start, start + _BATCH_BYTES)


class _Folder:
    """The target on disk, and the folders in it that are open: each was opened in the one above, no link followed."""

    def __init__(self, descriptor: int) -> None:
        self._open: dict[str, int] = {"": descriptor}
        self._lock = threading.Lock()

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def make(self, path: str) -> None:
        """Makes a folder and those above it. ``NotADirectoryError`` where something else is in the way, a link too."""
        with self._lock:
            self._descriptor(path.strip("/"))

    @contextmanager
    def _above(self, path: str) -> Iterator[tuple[bytes, int]]:
        """The last name of a path, and a descriptor of the folder it lies in, which no other thread closes."""
        folder, _, name = path.strip("/").rpartition("/")
        with self._lock:
            descriptor = os.dup(self._descriptor(folder))
        try:
            yield os.fsencode(name), descriptor
        finally:
            os.close(descriptor)

    def _descriptor(self, path: str) -> int:
        """A descriptor of a folder, which is made, and those above it, if it is not there."""
        here, names = path, []
        while here not in self._open:
            here, _, name = here.rpartition("/")
            names.append(name)
        for name in reversed(names):
            here, above = join(here, name), self._open[here]
            try:
                os.mkdir(os.fsencode(name), dir_fd=above)
            except FileExistsError:
                pass  # opening tells whether it is a folder
            try:
                found = os.open(os.fsencode(name), _FOLDER_FLAGS, dir_fd=above)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise NotADirectoryError(f"what is at {here!r} in the target is no folder; a link is not followed") from error
            if len(self._open) > 200:  # a process may have about a thousand files open
                self._forget(here)
            self._open[here] = found
        return self._open[path]

    def _forget(self, path: str) -> None:
        """Closes folders that are not above this one."""
        for other in [other for other in self._open if other and not f"{path}/".startswith(f"{other}/")]:
            os.close(self._open.pop(other))

    def write(self, file: Stat, data: Iterator[bytes]) -> None:
        """Writes a file, in place of a file or link that is there. Half of one does not stay."""
        with self._above(file.path) as (name, above):
            descriptor = _create(name, above, 0o666 if file.permissions is None else 0o600)
            try:
                with open(descriptor, "wb", buffering=0) as out:
                    _fill(out, file, data)
            except BaseException:
                os.unlink(name, dir_fd=above)
                raise

    def link(self, link: Stat) -> None:
        """Makes a symbolic link, in place of a file or link that is there. Only to what is within the tree."""
        if link.target is None:
            raise OSError(f"{link.path!r} is a link that leads nowhere within the file")
        with self._above(link.path) as (name, above):
            _clear(name, above)
            os.symlink(os.fsencode(posixpath.relpath(link.target, posixpath.dirname(link.path))), name, dir_fd=above)


def _fill(out: io.FileIO, file: Stat, data: Iterator[bytes]) -> None:
    for piece in data:
        view = memoryview(piece)
        while view:
            view = view[out.write(view) or 0 :]
    if file.permissions is not None:
        os.fchmod(out.fileno(), file.permissions & 0o777)
    if file.modified is not None:
        os.utime(out.fileno(), (file.modified, file.modified))


def _create(name: bytes, above: int, mode: int) -> int:
    try:
        return os.open(name, _NEW_FILE_FLAGS, mode, dir_fd=above)
    except FileExistsError:
        _clear(name, above)
        return os.open(name, _NEW_FILE_FLAGS, mode, dir_fd=above)


def _clear(name: bytes, above: int) -> None:
    """Removes a file or link; a file of that name elsewhere, of which this is a hard link, stays as it is."""
    try:
        os.unlink(name, dir_fd=above)
    except FileNotFoundError:
        pass  # nothing is in the way


def add(tree: FileTree, sources: Iterable[str | os.PathLike[str]], into: str = "/", *,
        report: Callable[[Done], None] | None = None) -> Done:
    """Puts files, and folders with all below them, from disk into a folder of a tree, under their own last names.

    Times and permissions are kept. Symbolic links are left out, and told, and so is what is neither a file nor a folder, and
    what cannot be read.

    Raises:
        OSError: a source is not there, or the tree cannot be written.
    """
    done = Done()
    for source in sources:
        place = os.path.abspath(os.fspath(source))
        top = posixpath.join(into, os.path.basename(place))
        if not os.path.isdir(place):
            _add_file(tree, place, top, done)
            continue
        tree.mkdir(top, exist_ok=True)
        unread: list[OSError] = []
        for folder, folders, files in os.walk(place, onerror=unread.append):
            folders.sort()
            below = os.path.relpath(folder, place)
            inside = top if below == "." else posixpath.join(top, *below.split(os.sep))
            for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
                done.problems.append(f"{os.path.join(folder, name)}: a symbolic link")
            for name in folders:
                if not os.path.islink(os.path.join(folder, name)):
                    tree.mkdir(posixpath.join(inside, name), exist_ok=True)
            for name in sorted(files):
                _add_file(tree, os.path.join(folder, name), posixpath.join(inside, name), done)
            if report is not None:
                report(done)
        done.problems += [f"{error.filename}: {error.strerror}" for error in unread]
    return done


def _add_file(tree: FileTree, source: str, path: str, done: Done) -> None:
    about = os.lstat(source)
    reason = None
    if not stat.S_ISREG(about.st_mode):
        reason = "a symbolic link" if stat.S_ISLNK(about.st_mode) else "neither a file nor a folder"
    elif os.path.samestat(about, os.stat(tree.path)):
        reason = "the file that it would be put into"
    if reason is not None:
        done.problems.append(f"{source}: {reason}")
        return
    try:
        with open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        done.problems.append(f"{source}: {error.strerror}")
        return
    tree.put(path, content, modified=int(about.st_mtime), permissions=about.st_mode)
    done.files += 1
    done.nbytes += len(content)
