"""Rows of one field on their way into its dataset: the direct way through native threads, and the general one through h5py.

The one module that writes data. Whole chunks are put together in memory, a run of them at a time; while native threads
encode one run, the caller writes the one before with HDF5's direct chunk write and fills the next. What HDF5 alone can write
(elements of variable length, filters without an encoder here) it writes itself, whole chunks at a time too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import h5py
import numpy as np
from h5py import h5s

from h5fast import layout
from h5fast._encode import EFFORT_OF_LEVEL, Encoder, encoder_memory, move_chunks
from h5fast._library import ALLOWED_PLUGINS
from h5fast._storage import Storage
from h5fast.effort import choose_effort, gzip_level
from h5fast.stored import Chunks
from h5fast.threads import get_num_threads

__all__ = ["DirectOutput", "GeneralOutput", "Output", "open_output", "smallest_memory"]

# A run larger than this no longer stays in the caches between the threads that fill, encode and write it.
_RUN_BYTES = 4 << 20
# Chunks of a run, where the memory is there: fewer leave threads idle at its end. Not a matter of how many threads there are:
# the same rows make the same file on any machine.
_RUN_CHUNKS = 16
# The part of the memory that is for runs; the rest is for what threads have for the steps of a pipeline.
_RUN_PART = 3 / 4


class Output(Protocol):
    """The way of rows into one dataset.

    Attributes:
        dataset: where they go
        rows: how many were added, and come to be stored
        way: "direct", or "general: " and the reason
        chunk_rows: of a chunk
    """

    dataset: h5py.Dataset
    rows: int
    way: str
    chunk_rows: int

    def add(self, rows: np.ndarray[Any, Any]) -> None:
        """Takes rows, of the dataset's type and shape; they may be changed afterwards."""

    def add_stored(self, stored: Any, mask: int, rows: int) -> None:
        """Takes a chunk as it is to be stored, which begins where rows added before fill their chunks."""

    def add_moved(self, chunks: Chunks, rows: np.ndarray[Any, Any], origin: Callable[[], str]) -> None:
        """Takes full chunks of another dataset as they are stored there: those that begin with these rows. Both have the same
        filters and chunk shape; `origin` names the other for messages."""

    def settle(self) -> None:
        """Writes every whole chunk, and makes the dataset as long as these. Rows that fill none stay in memory."""

    def tail(self) -> np.ndarray[Any, Any]:
        """The rows that fill no chunk and are not written."""

    def show_tail(self) -> None:
        """Writes the rows that fill no chunk too, in such a way that more of them cost no space: not encoded."""

    def close(self) -> None:
        """Writes all there is, encoded; nothing may be added any more."""


def open_output(dataset: h5py.Dataset, memory: int, rows: int | None = None) -> Output:
    """The way into a dataset, from row `rows` on (its end, by default), which uses about `memory` bytes."""
    first = dataset.shape[0] if rows is None else rows
    try:
        described = _directly_written(dataset)
    except layout.Indirect as reason:
        return GeneralOutput(dataset, first, f"general: {reason}")
    return DirectOutput(dataset, first, described, memory)


def _directly_written(dataset: h5py.Dataset) -> layout.Layout:
    try:
        found = layout.describe(dataset)
    except layout.Virtual:
        raise layout.Indirect("a virtual dataset") from None
    if found.chunk is None:
        raise layout.Indirect("the dataset is not chunked")
    if found.chunk[1:] != found.shape[1:]:
        raise layout.Indirect("chunks hold parts of rows")
    if found.raw_edges:
        raise layout.Indirect("chunks that stick out are stored unfiltered")
    return found


def smallest_memory(chunk_bytes: int) -> int:
    """Bytes that a field with such chunks cannot do without: two runs of a chunk, as they are and encoded, and the steps of one
    thread in between."""
    return 8 * chunk_bytes


def _storage(described: layout.Layout) -> Storage:
    assert described.chunk is not None
    return Storage(described.chunk, described.chunk, described.dtype.itemsize, described.filters)


class DirectOutput:
    """Rows that go through native encoders; see :class:`Output`.

    Attributes:
        effort: of the gzip encoder; None while there are not enough rows to choose it
    """

    effort: int | None

    def __init__(self, dataset: h5py.Dataset, rows: int, described: layout.Layout, memory: int) -> None:
        storage = _storage(described)
        self.dataset = dataset
        self.way = "direct"
        self.chunk_rows: int = dataset.chunks[0]
        self.rows = rows
        self.effort = None if gzip_level(described.filters) else EFFORT_OF_LEVEL
        self._pipeline = described.filters
        self._filters = (1 << storage.filter_count) - 1
        self._fill = np.frombuffer(described.fill, described.dtype)[0]
        chunks = _run_chunks(storage, int(memory * _RUN_PART))
        self._most_threads = _most_threads(storage, described, int(memory * (1 - _RUN_PART)))
        self._encoders = [Encoder(storage, chunks) for _ in range(2)]
        self._buffers = [np.empty((chunks * self.chunk_rows, *dataset.shape[1:]), described.dtype) for _ in range(2)]
        self._filling = 0  # which of them takes rows
        self._filled = 0  # rows in it
        self._begun: tuple[Encoder, int] | None = None  # a run at the encoder, and the row it begins with

    def add(self, rows: np.ndarray[Any, Any]) -> None:
        done = 0
        while done < len(rows):
            buffer = self._buffers[self._filling]
            count = min(len(rows) - done, len(buffer) - self._filled)
            np.copyto(buffer[self._filled:self._filled + count], rows[done:done + count], casting="same_kind")
            self._filled += count
            self.rows += count
            done += count
            if self._filled == len(buffer):
                self._encode(len(buffer) // self.chunk_rows)

    def add_stored(self, stored: Any, mask: int, rows: int) -> None:
        self._settle_whole()
        _put_chunk(self.dataset, self.rows, stored, mask, rows)
        self.rows += rows

    def add_moved(self, chunks: Chunks, rows: np.ndarray[Any, Any], origin: Callable[[], str]) -> None:
        self._settle_whole()
        self.rows = _move_chunks(self.dataset, self.rows, chunks, rows, origin)

    def _settle_whole(self) -> None:
        self.settle()
        _check_whole(self.rows, self.chunk_rows)

    def _encode(self, chunks: int) -> None:
        """Hands the first chunks of the buffer to the threads, and writes the run before meanwhile."""
        encoder, buffer = self._encoders[self._filling], self._buffers[self._filling]
        used = chunks * self.chunk_rows
        first = self.rows - self._filled
        self._finish_run()
        threads = min(get_num_threads(), self._most_threads)
        if self.effort is None and chunks == encoder.most:
            self.effort = choose_effort(self._pipeline, buffer[:used], self.chunk_rows, threads)
        encoder.start(buffer, chunks, threads, self.effort or EFFORT_OF_LEVEL)
        before, self._begun = self._begun, (encoder, first)
        self._write_run(before)
        other = self._buffers[1 - self._filling]
        left = self._filled - used
        other[:left] = buffer[used:self._filled]
        self._filling, self._filled = 1 - self._filling, left

    def _finish_run(self) -> None:
        if self._begun is not None:
            self._begun[0].finish()

    def _write_run(self, run: tuple[Encoder, int] | None) -> None:
        if run is None:
            return
        encoder, first = run
        self._extend(first + encoder.count * self.chunk_rows)
        encoder.put(self.dataset.id, first)

    def _extend(self, rows: int) -> None:
        if rows > self.dataset.shape[0]:
            self.dataset.resize(rows, axis=0)

    def settle(self) -> None:
        chunks = self._filled // self.chunk_rows
        if chunks:
            self._encode(chunks)
        self._finish_run()
        self._write_run(self._begun)
        self._begun = None

    def tail(self) -> np.ndarray[Any, Any]:
        return self._buffers[self._filling][:self._filled % self.chunk_rows]

    def restore_tail(self, rows: np.ndarray[Any, Any]) -> None:
        """Takes back rows that :meth:`tail` gave, into a dataset that ends with a whole chunk."""
        self._buffers[self._filling][:len(rows)] = rows
        self._filled = len(rows)
        self.rows += len(rows)

    def reopen_tail(self) -> None:
        """Takes back the rows of a last chunk that is not full, as :meth:`close` wrote it; it is written again with more."""
        left = self.rows % self.chunk_rows
        if left:
            self._buffers[self._filling][:left] = self.dataset[self.rows - left:self.rows]
            self._filled = left

    def _padded_tail(self) -> np.ndarray[Any, Any]:
        chunk = self._buffers[self._filling][:self.chunk_rows]
        chunk[self._filled:] = self._fill
        return chunk

    def show_tail(self) -> None:
        self.settle()
        if self._filled:
            self._extend(self.rows)
            self.dataset.id.write_direct_chunk(self._tail_offset(), np.ascontiguousarray(self._padded_tail()), self._filters)

    def close(self) -> None:
        self.settle()
        if self._filled:
            encoder = self._encoders[self._filling]
            encoder.start(np.ascontiguousarray(self._padded_tail()), 1, 1, self.effort or EFFORT_OF_LEVEL)
            encoder.finish()
            self._extend(self.rows)
            self.dataset.id.write_direct_chunk(self._tail_offset(), *encoder.chunk(0))
            self._filled = 0

    def _tail_offset(self) -> tuple[int, ...]:
        return (self.rows - self._filled, *(0,) * (len(self.dataset.shape) - 1))


def _run_chunks(storage: Storage, memory: int) -> int:
    """Chunks of a run: as many as the memory allows and do good."""
    affordable = memory // (2 * (storage.chunk_bytes + encoder_memory(storage, 1)))
    useful = max(_RUN_BYTES // storage.chunk_bytes, _RUN_CHUNKS)
    return max(1, min(affordable, useful))


def _most_threads(storage: Storage, described: layout.Layout, memory: int) -> int:
    """Threads whose buffers the memory has room for: one of a chunk for each filter but the last, two more for a plugin, in each
    of the two encoders."""
    plugins = any(number in ALLOWED_PLUGINS for number, _ in described.filters)
    buffers = max(0, storage.filter_count - 1) + 2 * plugins
    return max(1, memory // (2 * buffers * storage.chunk_bytes)) if buffers else sys.maxsize


def _check_whole(rows: int, chunk_rows: int) -> None:
    if rows % chunk_rows:
        raise ValueError(f"{rows} rows do not fill chunks of {chunk_rows}: no chunk can follow them")


def _move_chunks(dataset: h5py.Dataset, first: int, chunks: Chunks, rows: np.ndarray[Any, Any], origin: Callable[[], str]) -> int:
    """Puts chunks behind row `first`; the row they end with."""
    end: int = first + len(rows) * dataset.chunks[0]
    if end > dataset.shape[0]:
        dataset.resize(end, axis=0)
    move_chunks(dataset.id, first, chunks, np.ascontiguousarray(rows, np.int64), origin)
    return end


def _put_chunk(dataset: h5py.Dataset, first: int, stored: Any, mask: int, rows: int) -> None:
    if first + rows > dataset.shape[0]:
        dataset.resize(first + rows, axis=0)
    dataset.id.write_direct_chunk((first, *(0,) * (len(dataset.shape) - 1)), stored, mask)


def _assign(dataset: h5py.Dataset, first: int, rows: np.ndarray[Any, Any]) -> None:
    """``dataset[first:first + len(rows)] = rows``. h5py's own way takes a single row of any length for an axis more."""
    base = h5py.check_vlen_dtype(dataset.dtype)
    if base is None or base in (str, bytes):
        dataset[first:first + len(rows)] = rows
        return
    ragged = np.empty(rows.shape, dataset.dtype)
    for place in np.ndindex(*rows.shape):
        ragged[place] = np.asarray(rows[place], base)
    space = dataset.id.get_space()
    space.select_hyperslab((first, *(0,) * (rows.ndim - 1)), rows.shape)
    dataset.id.write(h5s.create_simple(rows.shape), space, ragged)


class GeneralOutput:
    """Rows that HDF5 writes itself; see :class:`Output`."""

    def __init__(self, dataset: h5py.Dataset, rows: int, way: str) -> None:
        self.dataset = dataset
        self.way = way
        self.chunk_rows = dataset.chunks[0] if dataset.chunks is not None else 1
        self.rows = self._written = rows
        self._waiting: list[np.ndarray[Any, Any]] = []

    def add(self, rows: np.ndarray[Any, Any]) -> None:
        self._waiting.append(rows.copy())
        self.rows += len(rows)
        if self.rows - self._written >= self.chunk_rows:
            self._write(self.rows // self.chunk_rows * self.chunk_rows)

    def add_stored(self, stored: Any, mask: int, rows: int) -> None:
        if self.dataset.dtype.hasobject:
            raise ValueError("elements of variable length do not lie in their chunk: it cannot be moved to another file")
        self.settle()
        _check_whole(self.rows, self.chunk_rows)
        _put_chunk(self.dataset, self.rows, stored, mask, rows)
        self.rows += rows
        self._written = self.rows

    def add_moved(self, chunks: Chunks, rows: np.ndarray[Any, Any], origin: Callable[[], str]) -> None:
        self.settle()
        _check_whole(self.rows, self.chunk_rows)
        self.rows = self._written = _move_chunks(self.dataset, self.rows, chunks, rows, origin)

    def _write(self, end: int) -> None:
        first = self._written
        if end <= first:
            return
        rows = np.concatenate(self._waiting)
        if end > self.dataset.shape[0]:
            self.dataset.resize(end, axis=0)
        _assign(self.dataset, first, rows[:end - first])
        self._written = end
        self._waiting = [rows[end - first:]] if len(rows) > end - first else []

    def settle(self) -> None:
        self._write(self.rows)

    def tail(self) -> np.ndarray[Any, Any]:
        return np.empty((0, *self.dataset.shape[1:]), self.dataset.dtype)

    def show_tail(self) -> None:
        self.settle()

    def close(self) -> None:
        self.settle()
