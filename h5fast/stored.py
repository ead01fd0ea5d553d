"""The chunks of one dataset: when they are looked up one by one, when an index pays, how many are kept decoded."""

from __future__ import annotations

from typing import NamedTuple

import h5py

from h5fast import _index, layout
from h5fast._gather import Kept, Source
from h5fast._selection import Selection
from h5fast._storage import Storage
from h5fast.errors import CorruptFileError
from h5fast.opened import OpenFile

__all__ = ["Stored", "Part", "Chunks"]

# Finding and reading one chunk through libhdf5 costs about as much as indexing this many; bytes read beyond need count too.
_INDEX_PER_CHUNK = 128
_INDEX_PER_BYTE = 1 / 512
# Chunks that one read looks up one by one, at most.
_LOOKUPS = 256
_NO_BYTES = Source(b"")

Chunks = tuple[Storage, _index.ChunkIndex, Source]
"""What the engine reads with: how chunks are stored, where they are, and in which bytes."""


class Part(NamedTuple):
    """A range of rows that lies in one file.

    Attributes:
        chunks: what to read it with
        first, rows: its rows are ``[first, first + rows)`` of the whole
        offset: the row of its dataset that is the first
        where: file and dataset, for messages
        kept: decoded chunks of the dataset, kept from read to read
    """

    chunks: Chunks
    first: int
    rows: int
    offset: int
    where: str
    kept: Kept | None = None


class Stored:
    """What the direct path keeps of a dataset."""

    __slots__ = ("shape", "dtype", "layout", "storage", "file", "source", "index", "kept", "_id", "_debt")

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
        self.kept = Kept(file.pool, self.storage.chunk_bytes) if found.filters else None
        if found.kind == "compact":
            self.source = Source(bytes(_index.MEMORY_HEAD) + file.compact(dataset.id, found).tobytes())
            self.index = _index.ChunkIndex.contiguous(_index.MEMORY_HEAD)
        elif found.kind == "contiguous":
            self.index = (_index.ChunkIndex.of([]) if found.address is None
                          else _index.ChunkIndex.contiguous(found.address))

    def chunks(self, selection: Selection) -> Chunks:
        """What to read a selection with.

        Raises:
            CorruptFileError: libhdf5 cannot read the chunk index, or it contradicts itself.
        """
        if self.index is None and not self.file.swmr:  # libhdf5 may look chunks up in an index that has moved since
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
                    self.index = self.file.index(self._id, self.layout)
        return self.storage, self.index, self.source

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
                stored = self.file.stored_chunk(self._id, offset)
            except CorruptFileError:
                return None  # libhdf5 refuses chunks that are not allocated, and damaged ones: the index tells which
            if stored is not None:
                mask, chunk = stored
                entries.append((self.storage.number_of(coordinates), end, len(chunk), mask))
                content.append(chunk)
                end += len(chunk)
        return self.storage, _index.ChunkIndex.of(entries), Source(b"".join(content)) if entries else _NO_BYTES

