"""Reading one dataset: picks the direct or the general path, and makes the index when a read repays it."""

from __future__ import annotations

from dataclasses import dataclass
import errno
import math
from typing import Any
import weakref

import h5py
import numpy as np

from h5fast import _index, general, layout, transform, virtual
from h5fast._gather import Cast, Source, Storage, empty
from h5fast._selection import Selection, Unhandled, h5py_accepts, select, select_rows
from h5fast.errors import CorruptFileError, H5FastError, ReadError
from h5fast.threads import get_num_threads

__all__ = ["DatasetReader", "watch"]

# Finding and reading one chunk through libhdf5 costs about as much as indexing this many; bytes read beyond need count too.
_INDEX_PER_CHUNK = 128
_INDEX_PER_BYTE = 1 / 512
# The largest chunk that is kept decoded for the next read of part of it: HDF5's own default since 2.0.
_RECENT_BYTES = 8 << 20
# Rows that are cast outside the engine pass through a buffer of at most this size.
_CAST_BLOCK_BYTES = 16 << 20

class _Appended(Exception):
    """Another process wrote to the file, which is open for that (SWMR): libhdf5 knows what is valid now."""


class _Direct:
    """What the direct path keeps of a dataset: its storage, the file's bytes and, once it pays, the chunk index."""

    __slots__ = ("shape", "dtype", "layout", "storage", "file", "source", "index", "debt", "recent")

    def __init__(self, dataset: h5py.Dataset, file: _OpenFile, found: layout.Layout) -> None:
        self.file = file
        self.source = file.source
        self.shape = found.shape
        self.dtype = found.dtype
        self.layout = found
        chunk = found.chunk
        self.storage = Storage(found.shape, chunk, found.dtype.itemsize, found.filters, found.raw_edges, found.fill)
        self.debt = 0.0
        self.recent: _Recent | None = None
        self.index: _index.ChunkIndex | None = None
        if found.kind == "compact":
            self.source, self.index = _compact(dataset, found)
            return
        if found.kind == "contiguous":
            self.index = (_index.ChunkIndex.empty() if found.address is None
                          else _index.ChunkIndex.contiguous(found.address))


def _compact(dataset: h5py.Dataset, found: layout.Layout) -> tuple[Source, _index.ChunkIndex]:
    """Compact data lies in the object header, at most 64 KiB of it: read once, kept as a source of its own."""
    elements = np.empty(found.shape, found.dtype)
    if elements.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, elements, h5py.h5t.py_create(found.dtype))
    return Source(bytes(_index.MEMORY_HEAD) + elements.tobytes()), _index.ChunkIndex.contiguous(_index.MEMORY_HEAD)


@dataclass(frozen=True, slots=True)
class _Recent:
    """The chunk that the last read of part of one chunk fell into and, if the one before did too, its decoded bytes."""

    coordinates: tuple[int, ...]
    storage: Storage | None = None
    index: _index.ChunkIndex | None = None
    source: Source | None = None


class _OpenFile:
    """The bytes of an open file, shared by its datasets."""

    __slots__ = ("source", "swmr", "__weakref__")

    def __init__(self, file_id: h5py.h5f.FileID) -> None:
        descriptor, self.swmr = layout.open_descriptor(file_id)
        self.source = Source(descriptor)


# By libhdf5's identifier of the file, which it never gives out twice.
_open_files: weakref.WeakValueDictionary[int, _OpenFile] = weakref.WeakValueDictionary()


def _open_file(file_id: h5py.h5f.FileID) -> _OpenFile:
    found = _open_files.get(file_id.id)
    if found is None:
        found = _open_files.setdefault(file_id.id, _OpenFile(file_id))
    return found


def watch(file: h5py.File) -> object:
    """Notes the state of a file that was just opened, so that a later change is noticed whichever dataset is read first.

    The result has to be kept as long as the file is open. None where the file is not read directly anyway.
    """
    try:
        return _open_file(file.id)
    except layout.Indirect:
        return None


class DatasetReader:
    """Reads one dataset, by the direct path where that is known to be right, else by the general one.

    Args:
        dataset: the dataset; only its identifier is kept, so that no cycle holds the file open
    """

    __slots__ = ("_id", "_direct", "_reason")

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._id = dataset.id
        self._direct: _Direct | virtual.VirtualRows | None = None
        self._reason: str | None = None

    @property
    def path(self) -> str:
        """"direct", or "general: <reason>"."""
        return "direct" if self._prepared() is not None else f"general: {self._reason}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the dataset in elements."""
        direct = self._prepared()
        return direct.shape if direct is not None else self._plain().shape

    def invalidate(self) -> None:
        """Forgets layout and index: the extent or the contents may have changed."""
        self._direct = None
        self._reason = None

    def read(self, key: Any) -> Any:
        """What ``dataset[key]`` gives: h5py's answer where it has one, else NumPy's.

        Raises:
            IndexError: an index is out of range, with the index and the size.
            CorruptChunkError, ReadError: the bytes cannot be read.
        """
        direct = self._prepared()
        if direct is None:
            return self._read_general(key)
        try:
            selection = select(key, direct.shape)
        except Unhandled:
            return general.h5py_read(self._plain(), key)
        if selection.fields:
            return self._read_fields(direct, selection, key)
        return self._finish(selection, self._array(direct, selection))

    def read_patched(self, key: Any) -> Any:
        """h5py's own answer for the key, or ``NotImplemented`` where h5py has to give it."""
        direct = self._prepared()
        if direct is None or not h5py_accepts(key, direct.shape):
            return NotImplemented
        selection = select(key, direct.shape)
        if selection.fields:
            return NotImplemented
        try:
            return self._finish(selection, self._array(direct, selection))
        except (H5FastError, _Appended):
            return NotImplemented  # h5py meets the same fault and reports it in its own way

    def take(
        self,
        rows: Any,
        out: np.ndarray | None = None,
        *,
        dtype: Any = None,
        scale: Any = None,
        offset: Any = None,
        channels_first: bool = False,
    ) -> np.ndarray:
        """Rows along the first axis, in any order; see :meth:`h5fast.Dataset.take`."""
        direct = self._prepared()
        shape = self.shape
        stored = direct.dtype if direct is not None else self._plain().dtype
        selection = select_rows(rows, shape[0] if shape else 0, shape)
        wanted = transform.request(stored, shape[1:], dtype, scale, offset, channels_first)
        count = selection.shape[0]
        out = transform.output(wanted, count, out)
        try:
            if wanted.is_identity:
                self.read_into(selection, out)
            elif not isinstance(direct, _Direct) or not self._cast(direct, selection, wanted.cast(), out):
                self._cast_in_blocks(selection, wanted, out)
        except _Appended:
            self._cast_in_blocks(selection, wanted, out)
        return out

    # --- paths ---

    def _prepared(self) -> _Direct | virtual.VirtualRows | None:
        if self._direct is None and self._reason is None:
            # h5py's lock rather than one of our own: h5py looks after it when the process forks.
            with layout.phil:
                if self._direct is None and self._reason is None:
                    self._prepare(self._plain())
        return self._direct

    def _prepare(self, dataset: h5py.Dataset) -> None:
        try:
            file = _open_file(layout.file_of(self._id))
            try:
                self._direct = _Direct(dataset, file, layout.describe(dataset))
            except layout.Virtual:
                self._direct = virtual.VirtualRows(dataset, DatasetReader)
        except layout.Indirect as reason:
            self._reason = str(reason)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            # libhdf5 or h5py cannot make sense of it: whatever they say when it is read, they say themselves.
            self._reason = f"h5py cannot describe it ({error})"

    def _plain(self) -> h5py.Dataset:
        return h5py.Dataset(self._id)

    def _finish(self, selection: Selection, array: np.ndarray) -> Any:
        return array[()] if selection.scalar and array.shape == () else array

    def _array(self, direct: Any, selection: Selection) -> np.ndarray:
        out = empty(selection.shape, direct.dtype)
        self.read_into(selection, out)
        return out

    def read_into(self, selection: Selection, out: np.ndarray) -> None:
        """Reads a selection into ``out``, a C-contiguous array of its shape and the dataset's type."""
        direct = self._prepared()
        try:
            if isinstance(direct, _Direct):
                self._gather(direct, selection, out)
                return
            if direct is not None and direct.read(selection, out):
                return
        except _Appended:
            pass  # the general path is the answer to that
        dataset = self._plain()
        general.read(dataset, dataset.chunks, selection, out)

    def _gather(self, direct: _Direct, selection: Selection, out: np.ndarray, **options: Any) -> bool:
        """Reads into ``out`` through the engine, then makes sure that the file was the same throughout."""
        try:
            storage, index, source = self._recent(direct, selection) or (
                direct.storage, *self._chunks(direct, selection))
            done = storage.read(index, source, selection, out, get_num_threads(), self._where, **options)
        except H5FastError as error:
            self._require_unchanged(direct, error)
            raise
        self._require_unchanged(direct, None)
        return done

    def _require_unchanged(self, direct: _Direct, error: H5FastError | None) -> None:
        changed = direct.source.changed()
        if not changed:
            return
        if direct.file.swmr:
            self.invalidate()
            raise _Appended
        raise ReadError(
            errno.ESTALE, f"{self._where()}: the file changed on disk while it was open: {changed}; close and reopen it"
        ) from error

    def _recent(self, direct: _Direct, selection: Selection) -> tuple[Storage, _index.ChunkIndex, Source] | None:
        """What to read with, if the selection is part of the chunk that was read last.

        Reading row by row would decode a chunk again for each row. The first read of a chunk decodes what it needs, the
        second one all of it, and as long as reads stay in that chunk they are copies.
        """
        storage = direct.storage
        if not direct.layout.filters or storage.chunk_bytes > _RECENT_BYTES:
            return None
        coordinates = storage.single_chunk(selection)
        if coordinates is None or selection.size * direct.dtype.itemsize * 2 > storage.chunk_bytes:
            return None
        recent = direct.recent
        if recent is None or recent.coordinates != coordinates:
            direct.recent = _Recent(coordinates)
            return None
        if recent.source is None:
            recent = direct.recent = self._decoded(direct, coordinates)
        return recent.storage, recent.index, recent.source

    def _decoded(self, direct: _Direct, coordinates: tuple[int, ...]) -> _Recent:
        """A whole chunk, as a dataset of its own extent and then as bytes in memory."""
        found, storage = direct.layout, direct.storage
        corner = tuple(c * n for c, n in zip(coordinates, found.chunk))
        box = tuple(slice(a, min(a + n, e)) for a, n, e in zip(corner, found.chunk, found.shape))
        selection = select(box, found.shape, True)
        index, source = self._chunks(direct, selection)
        content = np.empty(found.chunk, found.dtype)
        whole = np.empty(selection.shape, found.dtype)
        storage.read(index, source, selection, whole, get_num_threads(), self._where)
        content[tuple(slice(0, b.stop - b.start) for b in box)] = whole
        plain = Storage(found.shape, found.chunk, found.dtype.itemsize)
        memory = Source(bytes(_index.MEMORY_HEAD) + content.tobytes())
        number = storage.number_of(coordinates)
        entry = _index.ChunkIndex.of_one(number, _index.MEMORY_HEAD, storage.chunk_bytes, 0)
        return _Recent(coordinates, plain, entry, memory)

    def _chunks(self, direct: _Direct, selection: Selection) -> tuple[_index.ChunkIndex, Source]:
        """The index to read with. Walking a large one takes longer than reading a row, so the first few rows of a
        dataset are looked up one by one, until together they have cost as much."""
        if direct.index is None:
            grid = direct.storage.chunk_count
            direct.debt += direct.storage.chunks_touched(selection) * (
                _INDEX_PER_CHUNK + direct.storage.chunk_bytes * _INDEX_PER_BYTE)
            one = direct.storage.single_chunk(selection) if direct.debt < grid else None
            if one is not None:
                return self._one_chunk(direct, one)
            self._make_index(direct)
        return direct.index, direct.source

    def _one_chunk(self, direct: _Direct, coordinates: tuple[int, ...]) -> tuple[_index.ChunkIndex, Source]:
        offset = tuple(c * n for c, n in zip(coordinates, direct.storage.chunk))
        stored = _index.read_stored(self._id, offset)
        if stored is None:
            return _index.ChunkIndex.empty(), direct.source
        mask, content = stored
        size = len(content) - _index.MEMORY_HEAD
        number = direct.storage.number_of(coordinates)
        return _index.ChunkIndex.of_one(number, _index.MEMORY_HEAD, size, mask), Source(content)

    def _make_index(self, direct: _Direct) -> None:
        found = direct.layout
        with layout.phil:
            if direct.index is None:
                block = layout.user_block(layout.file_of(self._id)) if _index.addresses_lack_user_block() else 0
                try:
                    direct.index = _index.build(self._id, found.shape, found.maxshape, found.chunk, block)
                except CorruptFileError as error:
                    raise CorruptFileError(errno.EIO, f"{self._where()}: {error}") from None

    def _read_fields(self, direct: Any, selection: Selection, key: Any) -> Any:
        """One field of a compound is a range of each element's bytes; several are left to h5py's rules."""
        dtype = direct.dtype
        name = selection.fields[0]
        if not isinstance(direct, _Direct) or len(selection.fields) > 1 or selection.record or dtype.names is None or name not in dtype.names:
            return self._read_general(key)
        field, offset = dtype.fields[name][:2]
        out = empty(selection.shape, field)
        try:
            self._gather(direct, selection, out, field_offset=offset, field_bytes=field.itemsize)
        except _Appended:
            return self._read_general(key)
        return self._finish(selection, out)

    def _read_general(self, key: Any) -> Any:
        """Through h5py: its own answer where it has one without walking element by element, else chunk by chunk."""
        dataset = self._plain()
        if dataset.shape is None or dataset.shape == ():
            return general.h5py_read(dataset, key)
        try:
            selection = select(key, dataset.shape)
        except Unhandled:
            return general.h5py_read(dataset, key)
        axes = selection.axes
        if selection.h5py and not any(is_point for *_, is_point in axes):
            return general.h5py_read(dataset, key)
        source: Any = dataset
        if selection.fields:
            names = selection.fields[0] if len(selection.fields) == 1 and not selection.record else selection.fields
            source = dataset.fields(list(names) if isinstance(names, tuple) else names)
        out = np.empty(selection.shape, source.dtype)
        general.read(source, dataset.chunks, selection, out)
        return self._finish(selection, out)

    def _cast(self, direct: _Direct, selection: Selection, cast: Cast, out: np.ndarray) -> bool:
        return cast.fused and self._gather(direct, selection, out, cast=cast)

    def _cast_in_blocks(self, selection: Selection, wanted: transform.Transform, out: np.ndarray) -> None:
        """Rows as they are stored into a bounded buffer, from there cast by NumPy into the output."""
        shape = self.shape
        rows = _rows_of(selection)
        row_bytes = max(1, math.prod(shape[1:]) * wanted.stored.itemsize)
        step = max(1, _CAST_BLOCK_BYTES // row_bytes)
        for first in range(0, len(rows), step):
            part = select_rows(rows[first:first + step], shape[0], shape)
            block = np.empty(part.shape, wanted.stored)
            self.read_into(part, block)
            wanted.apply(block, out[first:first + step])

    def _where(self) -> str:
        dataset = self._plain()
        return f"{dataset.file.filename}: dataset {dataset.name!r}"


def _rows_of(selection: Selection) -> np.ndarray:
    """The rows that a selection of rows lists, in order."""
    rows = selection.coordinates[0]
    if rows is not None:
        return rows
    start, count, step, stride, _ = selection.axes[0]
    rows = start + step * np.arange(count, dtype=np.int64)
    return rows[::-1] if stride < 0 else rows
