"""Where the rows of an ``HDF5Matrix`` come from: an open dataset, and the file handle that matrices share.

It opens files and finds datasets in them. It never reads a row.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import h5py

from h5fast.objects import Dataset, File
from h5fast.opened import registered

__all__ = ["Lease", "Source", "open_source", "require_untrusted"]


class _SharedFile:
    """A file that all matrices on it share; closed when the last of them is closed or gone."""

    def __init__(self, path: str, untrusted: bool) -> None:
        self.file = File(path, "r", untrusted=untrusted)
        self.datasets: weakref.WeakValueDictionary[str, Dataset] = weakref.WeakValueDictionary()
        self.leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        weakref.finalize(self, self.file.close)

    def dataset(self, name: str) -> Any:
        """The object at ``name``; one object for all matrices, so that they share its chunk index."""
        found = self.datasets.get(name)
        if found is None:
            found = self.file[name]
            if isinstance(found, Dataset):
                self.datasets[name] = found
        return found


class Lease:
    """One user's share in a file. The file is closed when nobody has one any more: ended, or collected."""

    __slots__ = ("shared", "__weakref__")

    def __init__(self, shared: _SharedFile) -> None:
        self.shared = shared
        shared.leases.add(self)

    def end(self) -> None:
        """Gives it up. What a traceback still refers to does not keep the file open after that."""
        self.shared.leases.discard(self)
        if not self.shared.leases:
            self.shared.file.close()


#: Open files by device, inode, process and trust: two paths to one file share a handle, a replaced file gets a new one, and a
#: forked child does not hand its parent's handle to new matrices. Weak, hence without a lock: a lock here could be wanted
#: while HDF5's is held (a collection inside h5py) and the reverse. The worst a race does is a second, equal handle.
_open_files: weakref.WeakValueDictionary[tuple[int, int, int, bool], _SharedFile] = weakref.WeakValueDictionary()


def _shared_file(path: str, untrusted: bool) -> _SharedFile:
    stamp = os.stat(path)
    shared = _open_files.get((stamp.st_dev, stamp.st_ino, os.getpid(), untrusted))
    if shared is None or not shared.file:
        shared = _SharedFile(path, untrusted)
        # The path may have been replaced since: the descriptor says which file it is.
        behind = registered(shared.file)
        stamp = os.fstat(shared.file.id.get_vfd_handle() if behind is None else behind.source.descriptor)
        _open_files[stamp.st_dev, stamp.st_ino, os.getpid(), untrusted] = shared
    return shared


class Source(NamedTuple):
    """An open dataset, what keeps its file open, where a copy in another process finds it, and whether nobody vouches for it."""

    data: Dataset
    owner: Lease | h5py.File
    path: str
    name: str
    untrusted: bool


def open_source(datapath: Any, name: str | None, *, untrusted: bool = False) -> Source:
    """The dataset at ``name`` of a path, or of an open file or group; or ``datapath`` itself, an open dataset.

    Raises what h5py raises for a path that cannot be opened, ``KeyError`` for a missing dataset, and ``ValueError`` for
    something that is not a dataset, is closed, or is of a file that was opened as trusted although `untrusted` is asked for.
    """
    if isinstance(datapath, h5py.HLObject):
        require_untrusted(datapath, untrusted)
        return _source_from_open(datapath, name)
    if name is None:
        raise TypeError("the name of a dataset is missing: a path needs one")
    path = os.path.abspath(os.fsdecode(datapath))
    shared = _shared_file(path, untrusted)
    return Source(_checked_dataset(shared.dataset, name, path), Lease(shared), path, name, untrusted)


def _source_from_open(opened: h5py.HLObject, name: str | None) -> Source:
    if not opened:
        raise ValueError("the h5py object is closed")
    file = opened.file
    path = os.path.abspath(os.fsdecode(file.filename))
    if isinstance(opened, h5py.Dataset):
        if name is not None:
            raise TypeError(f"an open dataset needs no name; it came with {name!r}")
        data: h5py.Dataset = opened
    elif name is None:
        raise TypeError("the name of a dataset is missing: a file or group needs one")
    else:
        data = _checked_dataset(opened.__getitem__, name, path)
    if not isinstance(data, Dataset):
        data = Dataset(data.id)
    return Source(data, file, path, data.name if data.name is not None else str(name), registered(opened) is not None)


def require_untrusted(opened: h5py.HLObject, untrusted: bool) -> None:
    """Raises ``ValueError`` for an open file, or an object of it, that libhdf5 reads here, where that must not be."""
    if untrusted and opened and registered(opened) is None:
        raise ValueError(f"{opened.file.filename} is open already, and was trusted: open it as File(path, untrusted=True), "
                         "or pass its path")


def _checked_dataset(get: Callable[[str], Any], name: str, path: str) -> Any:
    try:
        found = get(name)
    except KeyError as error:
        raise KeyError(f"no dataset {name!r} in {path!r}") from error
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name!r} in {path!r} is a {type(found).__name__.lower()}, not a dataset")
    return found
