"""Open files: the bytes of each, shared by its datasets, and what has to be closed with it."""

from __future__ import annotations

import os
import weakref

import h5py

from h5fast import layout
from h5fast._gather import Source
from h5fast.layout import Indirect

__all__ = ["OpenFile", "open_file", "watch"]


class OpenFile:
    """The bytes of a file that is open for reading.

    Attributes:
        source: its bytes, and its state when it was opened
        swmr: whether another process may be writing it
        opened: files that virtual datasets of this one are read from, closed with it
    """

    __slots__ = ("source", "swmr", "opened", "__weakref__")

    def __init__(self, file_id: h5py.h5f.FileID) -> None:
        descriptor, self.swmr = layout.open_descriptor(file_id)
        try:
            self.source = Source(descriptor)
        except OSError as error:
            raise Indirect(f"the file cannot be opened a second time ({error.strerror})") from error
        self.opened: dict[str, h5py.File] = {}

    def is_at(self, path: str) -> bool:
        """Whether this file is what the path leads to now. A relative path leads elsewhere from another folder."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.source.identity

    def close_opened(self) -> None:
        """Closes the files that were opened on behalf of this one."""
        while self.opened:
            self.opened.popitem()[1].close()


# By libhdf5's identifier of the file, which it never gives out twice.
_open_files: weakref.WeakValueDictionary[int, OpenFile] = weakref.WeakValueDictionary()


def open_file(file_id: h5py.h5f.FileID, *, afresh: bool = False) -> OpenFile:
    """The bytes of an open file; ``afresh`` takes its present state for the one to compare with.

    Raises:
        Indirect: they must not be read beside libhdf5.
    """
    found = None if afresh else _open_files.get(file_id.id)
    if found is None:
        found = _open_files[file_id.id] = OpenFile(file_id)
    return found


def watch(file: h5py.File) -> OpenFile | None:
    """Notes the state of a file that was just opened, so that a later change is noticed whichever dataset is read first.

    The result has to be kept as long as the file is open. None where the file is not read directly anyway.
    """
    try:
        return open_file(file.id)
    except Indirect:
        return None
