"""A folder as a row of members, in the order of their paths."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from h5fast.packing.members import Folder, Member, Problem

__all__ = ["FolderSource"]


class FolderSource:
    """All files below a folder; see :class:`~h5fast.packing.sources.Source`.

    Symbolic links are what they lead to; one that leads to a folder that it lies in is a problem, or there would be no end.

    Args:
        folder: the folder
        but: files that are none of its members: what is being written
    """

    def __init__(self, folder: Path, but: frozenset[str] = frozenset()) -> None:
        self.name = str(folder)
        self._but = but
        self._but_names = {os.path.basename(path) for path in but}
        self.position = 0

    def total(self) -> int | None:
        """Bytes of all files: goes through the folder once."""
        return sum(one.size for one in self.members() if isinstance(one, Member))

    def members(self) -> Iterator[Member | Problem | Folder]:
        self.position = 0
        top = os.stat(self.name)
        pending = [self._listed("", ((top.st_dev, top.st_ino),))]
        while pending:
            found = next(pending[-1], None)
            if found is None:
                pending.pop()
            elif isinstance(found, tuple):
                folder, about, above = found
                yield Folder(folder, about.st_mtime_ns // 10**9, about.st_mode)
                pending.append(self._listed(folder, above))
            else:
                yield found
                self.position += found.size if isinstance(found, Member) else 0

    def _listed(
        self, folder: str, above: tuple[tuple[int, int], ...]
    ) -> Iterator[Member | Problem | tuple[str, os.stat_result, tuple[tuple[int, int], ...]]]:
        """The files of a folder; of the folders in it, path, times, and what they lie in."""
        try:
            with os.scandir(os.path.join(self.name, folder)) as entries:
                found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Problem(folder or ".", f"the folder cannot be listed: {error.strerror}")
            return
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name in self._but_names and os.path.abspath(entry.path) in self._but:
                continue
            try:
                about = entry.stat()
            except OSError as error:
                yield Problem(path, f"cannot be looked at: {error.strerror}" + (" (a link)" if entry.is_symlink() else ""))
                continue
            if stat.S_ISDIR(about.st_mode):
                identity = about.st_dev, about.st_ino
                if identity in above:
                    yield Problem(path, "is a link to a folder that it lies in")
                else:
                    yield path, about, (*above, identity)
            elif stat.S_ISREG(about.st_mode):
                yield _member(path, entry.path, about)
            else:
                yield Problem(path, "is neither a file nor a folder")


def _member(path: str, file: str, about: os.stat_result) -> Member:
    return Member(
        path,
        about.st_size,
        lambda: open(file, "rb"),
        file=file,
        modified=about.st_mtime_ns // 10**9,
        permissions=about.st_mode,
    )
