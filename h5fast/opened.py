"""Open files: the bytes of each, shared by its datasets, who tells how these are stored, and what has to be closed with it."""

from __future__ import annotations

import math
import os
import weakref
from typing import Any

import h5py
import numpy as np

from h5fast import layout
from h5fast._gather import KeptPool, Source
from h5fast._index import ChunkIndex, read_stored
from h5fast.layout import Indirect, Layout

__all__ = ["DEFAULT_KEPT_BYTES", "OpenFile", "Watch", "describe", "forget_limit", "hold", "index_of", "limit_of", "open_file",
           "register", "registered", "rest", "set_limit", "shelf_of", "watch"]

# HDF5's chunk cache since 2.0, for each dataset. Before it was 1 MiB, which holds no chunk of a usual size.
DEFAULT_KEPT_BYTES = 8 << 20
# Datasets of a file whose index and decoded chunks are there when they are opened again.
_SHELVED = 64


class OpenFile:
    """The bytes of a file that is open for reading, and what tells where in them its datasets lie: libhdf5.

    Attributes:
        source: its bytes, and its state when it was opened
        swmr: whether another process may be writing it
        pool: what decoded chunks of its datasets are kept in
        opened: files that virtual datasets of this one are read from, closed with it
    """

    __slots__ = ("source", "swmr", "pool", "opened", "_lent", "__weakref__")

    def __init__(self, descriptor: int, swmr: bool, pool: KeptPool) -> None:
        self.swmr = swmr
        self.pool = pool
        try:
            self.source = Source(descriptor)
        except OSError as error:
            raise Indirect(f"the file cannot be opened a second time ({error.strerror})") from error
        self.opened: dict[str, h5py.File] = {}
        self._lent: list[OpenFile] = []

    def lets_libhdf5_read(self, dataset: h5py.Dataset) -> bool:
        """Whether what h5fast does not read itself may be read through libhdf5."""
        return True

    def storage(self, dataset: h5py.Dataset) -> tuple[str, int | None, int]:
        """Layout, number of stored chunks (None unless chunked), and bytes that are stored.

        Raises:
            CorruptFileError: the chunk index cannot be told.
        """
        found = self.describe(dataset)
        if found.kind != "chunked":
            nbytes = found.dtype.itemsize * math.prod(found.shape)
            return found.kind, None, 0 if found.kind == "contiguous" and found.address is None else nbytes
        table = self.index(dataset.id, found).table()
        return found.kind, len(table), int(table[:, 2].sum())

    def rest(self) -> None:
        """Gives back what is needed only to learn more of the file, and can be had again."""

    def filename(self, dataset: h5py.HLObject) -> str:
        """The path of the file that an object is in."""
        name: str = dataset.file.filename
        return name

    def describe(self, dataset: h5py.Dataset) -> Layout:
        """How a dataset of the file is stored; raises ``Indirect`` or ``Virtual`` as :func:`layout.describe` does."""
        return layout.describe(dataset)

    def index(self, dataset_id: h5py.h5d.DatasetID, found: Layout) -> ChunkIndex:
        """Where the chunks of a chunked dataset lie. Raises ``CorruptFileError`` if that cannot be told."""
        return layout.build_index(dataset_id, found)

    def stored_chunk(self, dataset_id: h5py.h5d.DatasetID, offset: tuple[int, ...]) -> tuple[int, bytes] | None:
        """One chunk, found without an index; None where it is not allocated. Raises ``CorruptFileError``."""
        return read_stored(dataset_id, offset, self.source.size)

    def compact(self, dataset_id: h5py.h5d.DatasetID, found: Layout) -> np.ndarray:
        """The elements of a compact dataset."""
        return layout.read_compact(dataset_id, found)

    def is_at(self, path: str) -> bool:
        """Whether this file is what the path leads to now. A relative path leads elsewhere from another folder."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.source.identity

    def open_another(self, path: str) -> h5py.File:
        """A file that is read on behalf of this one: its datasets share the memory for decoded chunks."""
        if path not in self.opened:
            self.opened[path] = h5py.File(path, "r")
            try:
                self._lent.append(open_file(self.opened[path].id, pool=self.pool))
            except Indirect:
                pass  # it is not read directly, and keeps nothing
        return self.opened[path]

    def close_opened(self) -> None:
        """Closes the files that were opened on behalf of this one."""
        self._lent.clear()
        while self.opened:
            self.opened.popitem()[1].close()


def _kept_bytes(file_id: h5py.h5f.FileID) -> int:
    """Bytes of decoded chunks to keep of a file: what :func:`set_limit` said, else the size of its chunk cache (``rdcc_nbytes``),
    which libhdf5 itself then has no use for. Nobody asked for the default, so that is no ceiling."""
    limit = _limits.get(file_id.id)
    if limit is not None:
        return limit
    size: int = file_id.get_access_plist().get_cache()[2]
    default: int = h5py.h5p.create(h5py.h5p.FILE_ACCESS).get_cache()[2]
    return max(size, DEFAULT_KEPT_BYTES) if size == default else size


# By libhdf5's identifier of the file, which it never gives out twice. A file that nobody closed by name leaves its limit behind.
_limits: dict[int, int] = {}
_open_files: weakref.WeakValueDictionary[int, OpenFile] = weakref.WeakValueDictionary()
# Those of them that libhdf5 has only a stand-in of.
_registered: weakref.WeakValueDictionary[int, OpenFile] = weakref.WeakValueDictionary()
# Key in the ``__dict__`` of an object of such a file under which it holds the file.
_HELD = "_h5fast_file"


def open_file(file_id: h5py.h5f.FileID, *, afresh: bool = False, pool: KeptPool | None = None) -> OpenFile:
    """The bytes of an open file; ``afresh`` takes its present state for the one to compare with. ``pool`` serves where it was
    not known yet.

    Raises:
        Indirect: they must not be read beside libhdf5.
    """
    found = _registered.get(file_id.id) if afresh else _open_files.get(file_id.id)
    if found is None:
        descriptor, swmr = layout.open_descriptor(file_id)
        found = OpenFile(descriptor, swmr, KeptPool(_kept_bytes(file_id)) if pool is None else pool)
        _open_files[file_id.id] = found
    return found


def describe(dataset: h5py.Dataset) -> Layout:
    """How a dataset is stored, told by whoever knows its file.

    Raises:
        Indirect: h5fast must not read it directly.
        Virtual: it is a virtual dataset.
    """
    known = _open_files.get(layout.file_of(dataset.id).id)
    return layout.describe(dataset) if known is None else known.describe(dataset)


def index_of(dataset_id: h5py.h5d.DatasetID, found: Layout) -> ChunkIndex:
    """Where the chunks of a chunked dataset lie, told by whoever knows its file. Raises ``CorruptFileError``."""
    known = _open_files.get(layout.file_of(dataset_id).id)
    return layout.build_index(dataset_id, found) if known is None else known.index(dataset_id, found)


def register(file_id: h5py.h5f.FileID, file: OpenFile) -> None:
    """Says what is behind a file object of libhdf5's that is only a stand-in: this, and nothing that libhdf5 reads."""
    _open_files[file_id.id] = _registered[file_id.id] = file


def registered(obj: h5py.HLObject) -> OpenFile | None:
    """What is behind the file of an object, if libhdf5 has only a stand-in of it."""
    return _registered.get(layout.file_of(obj.id).id) if _registered and obj.id.id else None


def rest(obj: h5py.HLObject) -> None:
    """What is known of the file of an object is enough for now: what can be given back until more is asked, is."""
    found = registered(obj)
    if found is not None:
        found.rest()


def hold(obj: h5py.HLObject) -> None:
    """Has an object of such a file hold what is behind the file, which would go with the last file object of Python's else."""
    found = registered(obj)
    if found is not None:
        obj.__dict__[_HELD] = found


def set_limit(file_id: h5py.h5f.FileID, kept_bytes: int) -> None:
    """Bytes of decoded chunks to keep of a file that was just opened, where that is not for its chunk cache to say."""
    _limits[file_id.id] = kept_bytes


def limit_of(file_id: h5py.h5f.FileID) -> int | None:
    """What :func:`set_limit` said of this open file, if it did."""
    return _limits.get(file_id.id)


def forget_limit(file_id: h5py.h5f.FileID) -> None:
    """The file is about to be closed."""
    _limits.pop(file_id.id, None)


class Watch:
    """What a file object of h5fast's holds on to while it is open.

    Attributes:
        file: its bytes, and its state when it was opened
        shelf: what is known of its datasets, by their addresses in the file, those used last at the end
    """

    __slots__ = ("file", "shelf", "__weakref__")

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.shelf: dict[Any, Any] = {}

    def get(self, address: Any) -> Any:
        """What was put there; None if nothing was, or it made place for others since."""
        found = self.shelf.pop(address, None)
        if found is not None:
            self.shelf[address] = found
        return found

    def put(self, address: Any, known: Any) -> None:
        """Keeps what is known of a dataset, so that ``file["x"][rows]`` does not find it out for each batch."""
        self.shelf[address] = known
        while len(self.shelf) > _SHELVED:
            del self.shelf[next(iter(self.shelf))]


_watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()


def watch(file: h5py.File) -> Watch | None:
    """Notes the state of a file that was just opened, so that a later change is noticed whichever dataset is read first.

    The result has to be kept as long as the file is open. None where the file is not read directly anyway.
    """
    try:
        opened = open_file(file.id)
    except Indirect:
        return None
    found = _watches.get(file.id.id)
    if found is None or found.file is not opened:
        found = _watches[file.id.id] = Watch(opened)
    return found


def shelf_of(file_id: h5py.h5f.FileID) -> Watch | None:
    """What a file object of h5fast's holds on to for this open file; None where there is none: then nothing may be kept that
    would keep the file open after h5py has let go of it."""
    return _watches.get(file_id.id)
