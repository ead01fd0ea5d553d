"""Runs of consecutive rows of a dataset, gathered at random: the rows of a CSR matrix, windows over a recording.

A run is fetched as the blocks of rows that it lies in. Blocks are wanted by any number of runs and read once, all of a batch
in one read of the engine, so that each chunk is decoded once; what only HDF5 can read takes the same way through h5py.
"""

from __future__ import annotations

import errno
import math
import os
import threading

import numpy as np

from h5fast import _gather
from h5fast._blocks import empty
from h5fast._selection import select
from h5fast._storage import Storage
from h5fast.costs import Costs
from h5fast.errors import ReadError
from h5fast.methods import reader_of
from h5fast.python_column import across, is_filtered, naming
from h5fast.sources import Source
from h5fast.stored import Part
from h5fast.threads import get_num_threads

__all__ = ["KeptRuns", "Runs", "ranges", "view_in_runs"]

# A run may be read with up to this many bytes too much at either end, for a plan of fewer pieces: the engine needs 40 bytes
# for each piece, and a quarter of a KiB is copied faster than two pieces are planned.
_SLACK_BYTES = 256
# Pieces of one read at most, but that a chunk is not read in two: 5 MiB for the plan.
_PIECES = 1 << 17
# Bytes read at once where all of a dataset is kept.
_KEPT_STEP = 16 << 20


class Runs:
    """Runs of rows of one dataset, cropped.

    Args:
        opened: the dataset, which has rows; kept open
        crop: what is taken of each axis but the first
        unit: runs start and end at multiples of it
    """

    def __init__(self, opened: Source, crop: tuple[slice, ...] = (), unit: int = 1) -> None:
        self._opened = opened
        data = opened.data
        self._rows: int = data.shape[0]
        self._crop = crop
        row = select((slice(0, 1), *crop), data.shape, True).shape[1:]
        self.dtype = data.dtype.base
        self.row_shape: tuple[int, ...] = row + data.dtype.shape
        self._stored = data.dtype
        self._part = _single_part(opened)
        row_bytes = data.dtype.itemsize * math.prod(data.shape[1:])
        self.grain = 1 if self._part is None else _grain(self._part, self._rows, unit, row_bytes)
        self._blocks = -(-self._rows // self.grain)
        self._view: Storage | None = None if self._part is None else self._part.chunks[0].in_runs(self.grain)
        self._per_chunk = max(1, self._chunk_rows() // self.grain)
        self._across = across(data)
        self.costs = Costs(-(-self._blocks // self._per_chunk), self._across, is_decoded=is_filtered(data))
        self._block_bytes: int = self.grain * max(1, self.dtype.itemsize * math.prod(self.row_shape))
        self._granted = False
        self._begin()

    # What may be kept.

    @property
    def is_worth_keeping(self) -> bool:
        """Whether reading costs more than copying."""
        return self._rows > 0 and self._is_constant() and (self._view is None or self._view.filter_count > 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return int(self._blocks * self._block_bytes + self._blocks // self._per_chunk + 1)

    def grant(self, nbytes: int) -> None:
        """Allows to keep all rows, or nothing."""
        self._begin()
        self._granted = nbytes >= self.nbytes

    def forget(self) -> None:
        """Frees what is kept."""
        self._begin()

    def _begin(self) -> None:
        self._kept: np.ndarray | None = None
        self._present = np.zeros(0, bool)
        self._lock = threading.Lock()
        self._process = os.getpid()

    def _is_constant(self) -> bool:
        file = self._opened.data.file
        return bool(file.mode == "r" and not file.swmr_mode)

    # What reading costs.

    def work_bytes(self, runs: int, rows: int) -> int:
        """Bytes that fetching so many runs with so many rows in all takes, beside where the rows go."""
        pieces = rows // self.grain + 2 * runs
        scratch = 0
        if self._view is not None and self._view.filter_count:
            scratch = (min(self._view.filter_count, 2) + 1) * self._view.chunk_bytes * get_num_threads()
        return int(pieces * self._block_bytes) + min(pieces, _PIECES + self._per_chunk) * 56 + 32 * runs + scratch

    # Reading.

    def fetch(self, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that hold each run [start, stop), none of them empty; and where in these rows each run begins.

        Raises:
            CorruptChunkError, ReadError: they cannot be read.
        """
        first, last = starts // self.grain, (stops - 1) // self.grain
        blocks = _union(first, last)
        chunks = _distinct(blocks // self._per_chunk)
        self.costs.touch(chunks)
        if self._granted:
            return self._keep(chunks).reshape(-1, *self.row_shape), starts
        read = self._read(blocks).reshape(-1, *self.row_shape)
        return read, (np.searchsorted(blocks, first) - first) * self.grain + starts

    def _keep(self, chunks: np.ndarray) -> np.ndarray:
        """All blocks, of which those of these chunks are there."""
        if self._process != os.getpid():  # another thread may have held the lock when the process was forked
            self._begin()
        with self._lock:
            if self._kept is None:
                self._kept = np.empty((self._blocks, self.grain, *self.row_shape), self.dtype)
                self._present = np.zeros(-(-self._blocks // self._per_chunk), bool)
            missing = chunks[~self._present[chunks]]
            step = max(1, _KEPT_STEP // (self._block_bytes * self._per_chunk))
            for at in range(0, len(missing), step):
                some = missing[at:at + step]
                stops = np.minimum((some + 1) * self._per_chunk, self._blocks)
                wanted = ranges(some * self._per_chunk, stops - some * self._per_chunk)
                self._kept[wanted] = self._read(wanted)
                self._present[some] = True
            return self._kept

    def _read(self, blocks: np.ndarray) -> np.ndarray:
        """These blocks, ascending: (blocks, grain, …)."""
        if self._view is None or self._part is None:
            with naming(self._opened.path, self._opened.data.name):
                taken = self._opened.data[(blocks, *self._crop)] if self._crop else self._opened.data.take(blocks)
            self.costs.add(len(_distinct(blocks // self._per_chunk)) * self._across, taken.nbytes)
            return np.asarray(taken)[:, np.newaxis]
        out = empty((len(blocks), self.grain, *self._stored_row()), self._stored)
        ends = _cut(blocks // self._per_chunk, _PIECES)
        for begin, end in zip([0, *ends], ends):
            self._read_some(self._part, self._view, blocks[begin:end], out[begin:end])
        changed = self._part.chunks[2].changed()
        if changed:
            raise ReadError(errno.ESTALE, f"{self._part.where}: the file changed on disk while it was open: {changed}; "
                                          "close and reopen it")
        return out

    def _read_some(self, part: Part, view: Storage, blocks: np.ndarray, out: np.ndarray) -> None:
        storage, index, source = part.chunks
        inner = self._opened.data.shape[1:]
        whole = self._rows // self.grain if not storage.is_chunked else self._blocks
        if len(blocks) and blocks[-1] >= whole:  # of contiguous data, what is left over behind the last whole block
            tail = slice(whole * self.grain, self._rows)
            rest = np.zeros((tail.stop - tail.start, *out.shape[2:]), out.dtype)
            rows = select((tail, *self._crop), self._opened.data.shape, True)
            _gather.read(part.chunks, rows, rest, get_num_threads(), lambda: part.where, costs=self.costs.add)
            out[-1, :len(rest)] = rest
            blocks, out = blocks[:-1], out[:-1]
        if len(blocks):
            selection = select((blocks, slice(None), *self._crop), (whole, self.grain, *inner), True)
            _gather.read((view, index, source), selection, out, get_num_threads(), lambda: part.where, costs=self.costs.add)

    def _stored_row(self) -> tuple[int, ...]:
        """Shape of a row without the axes of the element type."""
        return self.row_shape[:len(self.row_shape) - len(self._stored.shape)]

    def _chunk_rows(self) -> int:
        if self._part is not None:
            return self._part.chunks[0].chunk[0]
        chunks = self._opened.data.chunks
        return chunks[0] if chunks else 1


class KeptRuns:
    """What may be kept of several datasets: all that is decoded, or nothing."""

    takes_part = False

    def __init__(self, runs: list[Runs]) -> None:
        self._runs = [one for one in runs if one.is_worth_keeping]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows that are decoded; 0 where none is."""
        return sum(runs.nbytes for runs in self._runs)

    def grant(self, nbytes: int) -> None:
        """Allows to keep all of them, or nothing."""
        for runs in self._runs:
            runs.grant(runs.nbytes if nbytes >= self.nbytes else 0)

    def forget(self) -> None:
        """Frees what is kept."""
        for runs in self._runs:
            runs.forget()


def view_in_runs(opened: Source, length: int) -> Part | None:
    """A dataset as the engine reads it, seen as rows that are `length` of its rows; what is left over at its end is left
    out. None where its chunks do not allow it."""
    part = _single_part(opened)
    if part is None:
        return None
    storage, index, source = part.chunks
    try:
        view = storage.in_runs(length)
    except ValueError:
        return None
    return Part((view, index, source), 0, opened.data.shape[0] // length, 0, part.where)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from each start on, as many as its length says, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total, dtype=np.int64)


def _union(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """All numbers that lie in any of the ranges [first, last], ascending."""
    order = np.argsort(first, kind="stable")
    first, reached = first[order], np.maximum.accumulate(last[order])
    begins = np.concatenate([[True], first[1:] > reached[:-1]])
    at = np.flatnonzero(begins)
    starts = first[at]
    stops = reached[np.append(at[1:], len(first)) - 1] + 1
    return ranges(starts, stops - starts)


def _distinct(ascending: np.ndarray) -> np.ndarray:
    """Each number once."""
    return ascending[np.flatnonzero(np.diff(ascending, prepend=-1))]


def _cut(chunks: np.ndarray, most: int) -> list[int]:
    """Ends of pieces of an ascending array that have about `most` entries, and part no equal ones."""
    ends = []
    end = 0
    while end < len(chunks):
        end = min(end + most, len(chunks))
        end = int(np.searchsorted(chunks, chunks[end - 1], side="right"))
        ends.append(end)
    return ends


def _single_part(opened: Source) -> Part | None:
    """How the engine reads a dataset, where all of it lies in one."""
    parts = reader_of(opened.data).parts()
    if parts is None or len(parts) != 1 or parts[0].offset != 0 or parts[0].rows != opened.data.shape[0]:
        return None
    return parts[0]


def _grain(part: Part, rows: int, unit: int, row_bytes: int) -> int:
    """Rows of a block: as many as a run reads without waste, or with little, and all of them in one chunk."""
    storage = part.chunks[0]
    slack = max(1, _SLACK_BYTES // max(1, row_bytes))
    if not storage.is_chunked:
        return min(max(unit, slack), max(1, rows))
    best = math.gcd(unit, storage.chunk[0])
    for length in range(slack, best, -1):
        if storage.chunk[0] % length == 0:
            best = length
            break
    try:
        storage.in_runs(best)
    except ValueError:  # chunks at the edge are stored in another way
        return 1
    return best
