"""From a path to a file object's identifier, with what reads behind it: the stand-in, the other process, the bytes.

The one place that puts them together. No libhdf5 call of this process gets a byte of the file.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from typing import Any

import h5py
import numpy as np

from h5fast._gather import KeptPool
from h5fast._index import ChunkIndex
from h5fast.caching import ChunkCache
from h5fast.errors import CorruptFileError, ReadError, UnsupportedError
from h5fast.layout import Indirect, Layout
from h5fast.opened import DEFAULT_KEPT_BYTES, OpenFile, register
from h5fast.untrusted.claims import Object, check_index, objects_of
from h5fast.untrusted.messages import Nonsense
from h5fast.untrusted.process import Limits, Process
from h5fast.untrusted.standin import build

__all__ = ["UntrustedFile", "checked_options", "open_untrusted"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What is told of a file may be this many times its size, and always this much: a group of a few bytes becomes some 100 of JSON.
_TOLD_PER_BYTE = 32
_TOLD_LEAST = 1 << 20
_TOLD_MOST = 1 << 26
# An entry of an index takes 32 bytes, and stands for a chunk of at least one.
_INDEX_ENTRY_BYTES = 32


class UntrustedFile(OpenFile):
    """The bytes of a file that another process parses.

    Attributes:
        path: as it was opened
    """

    __slots__ = ("path", "_stand_in", "_objects", "_numbers", "_process", "_closed")

    def __init__(self, path: str, kept_bytes: int | None) -> None:
        self.path = path
        self._closed = False
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name would wait for a writer
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            super().__init__(descriptor, False, KeptPool(DEFAULT_KEPT_BYTES if kept_bytes is None else kept_bytes))
            if not _has_signature(descriptor, self.source.size):
                raise CorruptFileError(errno.EIO, f"{path}: it is no HDF5 file: file signature not found")
        finally:
            os.close(descriptor)
        self._process: Process | None = None
        self._objects: list[Object] = []
        self._numbers: dict[int, int] = {}

    def lets_libhdf5_read(self, dataset: h5py.Dataset) -> bool:
        """Only what has no elements: libhdf5 has none of the others."""
        return self._objects[self._number(dataset.id)].is_empty

    def filename(self, dataset: h5py.HLObject) -> str:
        """The path of the file, which the stand-in does not have."""
        return self.path

    def fill_value(self, dataset: h5py.Dataset) -> Any:
        """What elements read as that were never written. Raises ``UnsupportedError`` for a dataset that is not read here."""
        try:
            found = self.describe(dataset)
        except Indirect as reason:
            raise UnsupportedError(f"{self.path}: the fill value of {dataset.name!r} is not known: {reason}") from None
        return np.ndarray((), found.dtype, found.fill or bytes(found.dtype.itemsize))[()]

    def describe(self, dataset: h5py.Dataset) -> Layout:
        """How a dataset is stored, as the other process told and this one checked.

        Raises:
            Indirect: it is not read here, whoever vouches for it.
            CorruptFileError: what was told is contradictory.
        """
        told = self._objects[self._number(dataset.id)]
        if told.fault is not None:
            raise CorruptFileError(errno.EIO, f"{self.path}: {dataset.name!r} has {told.fault}")
        if told.layout is None:
            raise Indirect(told.reason or "it cannot be read")
        return told.layout

    def storage(self, dataset: h5py.Dataset) -> tuple[str, int | None, int]:
        """As of any file; of what is not read here, nothing is known."""
        told = self._objects[self._number(dataset.id)]
        if told.is_empty:
            return "null", None, 0
        return ("not read", None, 0) if told.fault is None and told.layout is None else super().storage(dataset)

    def index(self, dataset_id: h5py.h5d.DatasetID, found: Layout) -> ChunkIndex:
        """Where the chunks of a chunked dataset lie, checked. Raises ``CorruptFileError``, which names no file, as of any file."""
        grid = math.prod(-(-extent // size) for extent, size in zip(found.shape, found.chunk or ()))
        most = _TOLD_LEAST + _INDEX_ENTRY_BYTES * min(grid, self.source.size)
        payload = self._ask({"ask": "index", "dataset": self._number(dataset_id)}, most)
        try:
            if len(payload) % _INDEX_ENTRY_BYTES:
                raise Nonsense(f"an index of {len(payload)} bytes")
            table = np.frombuffer(payload, np.uint64).reshape(-1, 4)
            check_index(table, found, self.source.size)
        except Nonsense as error:
            raise CorruptFileError(f"it has {error}") from None
        return ChunkIndex.of_table(table)

    def stored_chunk(self, dataset_id: h5py.h5d.DatasetID, offset: tuple[int, ...]) -> tuple[int, bytes] | None:
        """Raises ``CorruptFileError``, by which the caller turns to the index: the other process hands out no data."""
        raise CorruptFileError(errno.EIO, f"{self.path}: chunks are not looked up one by one")

    def compact(self, dataset_id: h5py.h5d.DatasetID, found: Layout) -> np.ndarray:
        """The elements of a compact dataset. Raises ``CorruptFileError``."""
        try:
            payload = self._ask({"ask": "compact", "dataset": self._number(dataset_id)}, _TOLD_LEAST)
        except CorruptFileError as error:
            raise self._placed(error) from None
        if len(payload) != found.dtype.itemsize * math.prod(found.shape):
            name = h5py.h5i.get_name(dataset_id)
            raise CorruptFileError(errno.EIO, f"{self.path}: {name!r} has {len(payload)} bytes of compact data")
        return np.ndarray(found.shape, found.dtype, payload)

    def close_opened(self) -> None:
        """Ends the other process for good."""
        self._closed = True
        self.rest()

    def rest(self) -> None:
        """Ends the other process; another is started when something is asked that is not known yet."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    @property
    def process_id(self) -> int | None:
        """The number of the other process; None where there is none."""
        return None if self._process is None else self._process.pid

    def _number(self, dataset_id: h5py.h5d.DatasetID) -> int:
        return self._numbers[h5py.h5g.get_objinfo(dataset_id).objno]

    def load(self) -> h5py.h5f.FileID:
        """Has the file described; the stand-in, open for reading. Called once."""
        try:
            self._objects = self._tree(self._started())
            # Held here: without it libhdf5 would number the file anew once the last file object of Python's is gone.
            self._stand_in, self._numbers = build(self._objects)
        except (CorruptFileError, Nonsense) as error:
            raise self._placed(error) from None
        return self._stand_in

    def _tree(self, process: Process) -> list[Object]:
        content, payload = process.ask({"ask": "tree"}, self._most_told)
        self._require_same()
        return objects_of(content, payload, self.source.size)

    @property
    def _most_told(self) -> int:
        return min(_TOLD_MOST, _TOLD_LEAST + _TOLD_PER_BYTE * self.source.size)

    def _placed(self, error: Exception) -> CorruptFileError:
        return CorruptFileError(errno.EIO, f"{self.path}: {'it has ' if isinstance(error, Nonsense) else ''}{error}")

    def _ask(self, question: dict[str, object], most: int) -> bytes:
        payload = self._started(again=True).ask(question, most)[1]
        self._require_same()
        return payload

    def _started(self, *, again: bool = False) -> Process:
        """The other process. A fork of this one needs one of its own, and so does who did not wait for an answer."""
        process = self._process
        if process is None or not process.is_usable:
            if self._closed:
                raise ReadError(errno.EBADF, f"{self.path}: the file is closed")
            process = self._process = Process(self.source.descriptor, self.path, Limits.given())
            if again:
                process.ask({"ask": "tree"}, self._most_told)  # it numbers the objects; what is known of them stays
        return process

    def _require_same(self) -> None:
        changed = self.source.changed()
        if changed:
            raise ReadError(errno.ESTALE, f"{self.path}: the file changed on disk while its metadata was read: {changed}")


def _has_signature(descriptor: int, size: int) -> bool:
    """Whether an HDF5 file begins somewhere where one may: at the start, or behind a user block. Saves starting a process."""
    place = 0
    while place < size:
        if os.pread(descriptor, len(_SIGNATURE), place) == _SIGNATURE:
            return True
        place = max(512, place * 2)
    return False


def checked_options(name: Any, mode: str = "r", *, chunk_cache: Any = None, rdcc_nbytes: int | None = None,
                    **options: Any) -> tuple[str, int | None]:
    """Path and bytes of decoded chunks to keep, from what ``File`` was called with.

    Raises:
        ValueError: an option that has no meaning for a file that libhdf5 does not open in this process.
        TypeError: the file is no path.
    """
    if not isinstance(name, (str, bytes, os.PathLike)):
        raise TypeError(f"untrusted=True needs the path of a file, not {type(name).__name__}")
    given = [option for option, value in options.items() if value is not None and option not in ("rdcc_nslots", "rdcc_w0")]
    if mode not in (None, "r"):
        given.insert(0, f"mode {mode!r}")
    if given:
        raise ValueError(f"untrusted=True reads a file by h5fast's own code: it cannot be combined with {', '.join(given)}")
    if chunk_cache is not None and not isinstance(chunk_cache, ChunkCache):
        raise ValueError("untrusted=True cannot look at the file for a chunk cache: pass rdcc_nbytes")
    return os.fsdecode(name), rdcc_nbytes if chunk_cache is None else chunk_cache.kept_bytes


def open_untrusted(path: str, kept_bytes: int | None = None) -> tuple[h5py.h5f.FileID, UntrustedFile]:
    """Opens a file that nobody vouches for. The second result has to be kept as long as it is used, and closed.

    Args:
        kept_bytes: of decoded chunks to keep; None for the usual number

    Raises:
        OSError: there is no such file, or it cannot be read.
        CorruptFileError: libhdf5 cannot read it within the limits, or it contradicts itself.
    """
    file = UntrustedFile(path, kept_bytes)
    try:
        identifier = file.load()
    except BaseException:
        file.close_opened()
        raise
    register(identifier, file)
    return identifier, file
