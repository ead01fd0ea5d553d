"""The chunks of one dataset: when they are looked up one by one, when an index pays, which one is kept decoded."""

from __future__ import annotations

from dataclasses import dataclass
import math

import h5py
import numpy as np

from h5fast import _index, layout
from h5fast._gather import Source, Storage
from h5fast._selection import Selection, select
from h5fast.errors import CorruptFileError, H5FastError
from h5fast.opened import OpenFile

__all__ = ["Stored", "Chunks"]

# Finding and reading one chunk through libhdf5 costs about as much as indexing this many; bytes read beyond need count too.
_INDEX_PER_CHUNK = 128
_INDEX_PER_BYTE = 1 / 512
# Chunks that one read looks up one by one, at most.
_LOOKUPS = 256
# The largest chunk that is kept decoded for the next read of part of it: HDF5's own default since 2.0.
_RECENT_BYTES = 8 << 20
# A compressed dataset of at most this size is kept decoded whole, once reads have decoded as much as twice that. HDF5's
# chunk cache, 8 MiB since 2.0, does the same for whoever reads single rows of a small dataset.
_WHOLE_BYTES = 8 << 20
_NO_BYTES = Source(b"")

Chunks = tuple[Storage, _index.ChunkIndex, Source]
"""What the engine reads with: how chunks are stored, where they are, and in which bytes."""


@dataclass(frozen=True, slots=True)
class _Recent:
    """The chunk that the last read of part of one chunk fell into and, if the one before did too, its decoded bytes."""

    coordinates: tuple[int, ...]
    chunks: Chunks | None = None
    is_damaged: bool = False


class Stored:
    """What the direct path keeps of a dataset."""

    __slots__ = ("shape", "dtype", "layout", "storage", "file", "source", "index", "_id", "_debt", "_recent", "_whole",
                 "_decoded_bytes")

    def __init__(self, dataset: h5py.Dataset, file: OpenFile, found: layout.Layout) -> None:
        self.file = file
        self.source = file.source
        self.shape = found.shape
        self.dtype = found.dtype
        self.layout = found
        self.storage = Storage(found.shape, found.chunk, found.dtype.itemsize, found.filters, found.raw_edges, found.fill)
        self.index: _index.ChunkIndex | None = None
        self._id = dataset.id
        self._debt = 0.0
        self._recent: _Recent | None = None
        self._whole: Chunks | None = None
        self._decoded_bytes = 0
        if found.kind == "compact":
            self.source = _compact(dataset, found)
            self.index = _index.ChunkIndex.contiguous(_index.MEMORY_HEAD)
        elif found.kind == "contiguous":
            self.index = (_index.ChunkIndex.of([]) if found.address is None
                          else _index.ChunkIndex.contiguous(found.address))

    def chunks(self, selection: Selection) -> Chunks:
        """What to read a selection with.

        Raises:
            CorruptFileError: libhdf5 cannot read the chunk index, or it contradicts itself.
        """
        kept = self._whole or (self._keep_whole(selection) if self.layout.filters else None)
        if kept is not None:
            return kept
        recent = self._recent_chunk(selection)
        if recent is not None:
            return recent
        if self.index is None:
            found = self._look_up(selection)
            if found is not None:
                return found
        return self.indexed()

    def indexed(self) -> Chunks:
        """What to read anything with: the whole index, made if it is not there yet."""
        # h5py's lock rather than one of our own: h5py looks after it when the process forks.
        if self.index is None:
            with layout.phil:
                if self.index is None:
                    found = self.layout
                    block = layout.user_block(layout.file_of(self._id)) if _index.addresses_lack_user_block() else 0
                    self.index = _index.build(self._id, found.shape, found.maxshape, self.storage.chunk, block)
        return self.storage, self.index, self.source

    def _keep_whole(self, selection: Selection) -> Chunks | None:
        """The whole dataset in memory, if it is small and was decoded often enough to have paid for it."""
        size = math.prod(self.shape) * self.dtype.itemsize
        if not 0 < size <= _WHOLE_BYTES:
            return None
        self._decoded_bytes += self.storage.chunks_at_most(selection) * self.storage.chunk_bytes
        if self._decoded_bytes <= 2 * size:
            return None
        self._decoded_bytes = -(1 << 62)  # tried once: a damaged chunk must not spoil the sound ones again and again
        whole = np.empty(self.shape, self.dtype)
        try:
            storage, index, source = self.indexed()
            storage.read(index, source, select((), self.shape, True), whole, 1, str)
        except H5FastError:
            return None
        memory = _in_memory(whole)
        plain = Storage(self.shape, None, self.dtype.itemsize)
        self._whole = plain, _index.ChunkIndex.contiguous(_index.MEMORY_HEAD), memory
        return self._whole

    def _look_up(self, selection: Selection) -> Chunks | None:
        """The few chunks of a selection, one by one. Walking a large index takes longer than reading a row, so this is how
        the first rows of a dataset are found, until together they have cost as much."""
        grid = self.storage.chunk_count
        wanted = self.storage.chunks_of(selection, min(_LOOKUPS, grid // _INDEX_PER_CHUNK))
        if wanted is None:
            return None
        self._debt += len(wanted) * (_INDEX_PER_CHUNK + self.storage.chunk_bytes * _INDEX_PER_BYTE)
        if self._debt >= grid:
            return None
        entries, content = [], [bytes(_index.MEMORY_HEAD)]
        end = _index.MEMORY_HEAD
        for coordinates in wanted:
            offset = tuple(c * n for c, n in zip(coordinates, self.storage.chunk))
            try:
                stored = _index.read_stored(self._id, offset, self.source.size)
            except CorruptFileError:
                return None  # libhdf5 refuses chunks that are not allocated, and damaged ones: the index tells which
            if stored is not None:
                mask, chunk = stored
                entries.append((self.storage.number_of(coordinates), end, len(chunk), mask))
                content.append(chunk)
                end += len(chunk)
        return self.storage, _index.ChunkIndex.of(entries), Source(b"".join(content)) if entries else _NO_BYTES

    def _recent_chunk(self, selection: Selection) -> Chunks | None:
        """What to read with, if the selection is part of the chunk that was read last.

        Reading row by row would decode a chunk again for each row. The first read of a chunk decodes what it needs, the
        second one all of it, and as long as reads stay in that chunk they are copies.
        """
        storage = self.storage
        if not self.layout.filters or storage.chunk_bytes > _RECENT_BYTES:
            return None
        coordinates = storage.single_chunk(selection)
        if coordinates is None or selection.size * self.dtype.itemsize * 2 > storage.chunk_bytes:
            return None
        recent = self._recent
        if recent is None or recent.coordinates != coordinates:
            self._recent = _Recent(coordinates)
            return None
        if recent.chunks is None and not recent.is_damaged:
            recent = self._recent = self._decoded(coordinates)
        return recent.chunks

    def _decoded(self, coordinates: tuple[int, ...]) -> _Recent:
        """A whole chunk as bytes in memory."""
        found, chunk = self.layout, self.storage.chunk
        corner = tuple(c * n for c, n in zip(coordinates, chunk))
        box = tuple(slice(a, min(a + n, e)) for a, n, e in zip(corner, chunk, found.shape))
        selection = select(box, found.shape, True)
        whole = np.empty(selection.shape, found.dtype)
        try:
            storage, index, source = (self._look_up(selection) if self.index is None else None) or self.indexed()
            storage.read(index, source, selection, whole, 1, str)
        except H5FastError:
            return _Recent(coordinates, is_damaged=True)  # the part that is asked for may be sound
        if selection.shape != chunk:  # a chunk that sticks out of the extent
            content = np.empty(chunk, found.dtype)
            content[tuple(slice(0, n) for n in selection.shape)] = whole
            whole = content
        memory = _in_memory(whole)
        plain = Storage(found.shape, chunk, found.dtype.itemsize)
        entry = (self.storage.number_of(coordinates), _index.MEMORY_HEAD, self.storage.chunk_bytes, 0)
        return _Recent(coordinates, (plain, _index.ChunkIndex.of([entry]), memory))


def _compact(dataset: h5py.Dataset, found: layout.Layout) -> Source:
    """Compact data lies in the object header, at most 64 KiB of it: read once, kept as a source of its own."""
    elements = np.empty(found.shape, found.dtype)
    if elements.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, elements, h5py.h5t.py_create(found.dtype))
    return _in_memory(elements)


def _in_memory(elements: np.ndarray) -> Source:
    """A source of these elements, from MEMORY_HEAD on."""
    return Source(bytes(_index.MEMORY_HEAD) + elements.tobytes())
