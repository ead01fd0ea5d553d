"""Rows that were read in Python, kept in memory up to a number of bytes: each block of rows that fits is read once.

It knows no files: it is given a function that reads rows, and says how to take them from memory instead.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from h5fast.errors import CorruptChunkError

__all__ = ["Keeper", "KeptRows", "block_starts", "rows_per_block", "size_of"]

# What malloc adds to an object, at most: its header, and rounding to 16 bytes.
_MALLOC = 16
# A block: its array object and its place in the table.
_BLOCK = 300


class Keeper(Protocol):
    """What a loader tells how much of a field may be kept."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of it, as far as can be told."""

    @property
    def takes_part(self) -> bool:
        """Whether less than that is of use."""

    def grant(self, nbytes: int) -> None:
        """Allows to keep so many bytes. What is kept already is forgotten."""

    def forget(self) -> None:
        """Frees what is kept."""


class KeptRows:
    """Rows of one field, read through it.

    The first rows that are read are kept, and stay; what does not fit any more is read again for each batch. (Which row is
    needed soonest is not known here.) It may be called from several threads.

    Args:
        read: reads rows (int64, any order) into a new array
        starts: the first row of each block that is read at once, ascending from 0, and the number of rows behind them
        nbytes: estimate of the bytes of all rows
        copies: whether rows are objects that may be changed where they lie, and are handed out as copies
    """

    takes_part = True

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, nbytes: int, *, copies: bool) -> None:
        self._read, self._starts, self._copies = read, starts, copies
        self._row_bytes = nbytes // max(1, int(starts[-1]))
        self.nbytes = nbytes + len(starts) * _BLOCK
        self._granted = 0
        self._begin()

    def grant(self, nbytes: int) -> None:
        """Allows to keep so many bytes."""
        self._begin()
        self._granted = nbytes

    def forget(self) -> None:
        """Frees what is kept."""
        self._begin()

    def _begin(self) -> None:
        self._blocks: dict[int, np.ndarray] = {}
        self._unreadable: set[int] = set()
        self._used, self._is_full = 0, False
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The rows, as ``read`` gives them."""
        if self._granted == 0:
            return self._read(rows)
        if self._process != os.getpid():  # another thread may have held the lock when the process was forked
            self._begin()
        block = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(block, kind="stable")
        used, first = np.unique(block[order], return_index=True)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        missing: list[np.ndarray] = []
        for number, at in zip(used, np.split(order, first[1:])):
            kept = self._block(int(number))
            if kept is None:
                missing.append(at)
            else:
                found.append((at, self._handed_out(kept[rows[at] - self._starts[number]])))
        if missing:
            at = np.concatenate(missing)
            found.append((at, self._read(rows[at])))
        if not found:
            return self._read(rows)
        sample = found[0][1]
        out = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
        for at, values in found:
            out[at] = values
        return out

    def _block(self, number: int) -> np.ndarray | None:
        """All rows of a block, kept; None where there is no room for it."""
        kept = self._blocks.get(number)
        if kept is not None or self._is_full or number in self._unreadable:
            return kept
        with self._lock:
            kept = self._blocks.get(number)
            if kept is not None or self._is_full or number in self._unreadable:
                return kept
            rows = np.arange(self._starts[number], self._starts[number + 1], dtype=np.int64)
            if self._used + len(rows) * self._row_bytes + _BLOCK > self._granted:
                self._is_full = True
                return None
            try:
                kept = self._read(rows)
            except CorruptChunkError:  # in rows that nobody may need: who asks for them will see it
                self._unreadable.add(number)
                return None
            size = size_of(kept) + _BLOCK
            if self._used + size > self._granted:
                self._is_full = True
                return None
            self._used += size
            self._blocks[number] = kept
            return kept

    def _handed_out(self, rows: np.ndarray) -> np.ndarray:
        if not self._copies:
            return rows
        out = np.empty_like(rows)
        for place, row in enumerate(rows.flat):
            out.flat[place] = row.copy() if isinstance(row, np.ndarray) else row
        return out


def size_of(rows: np.ndarray) -> int:
    """Bytes that an array holds, with the objects in it."""
    if rows.dtype != object:
        return rows.nbytes
    return rows.nbytes + sum(_object_size(value) for value in rows.flat)


def _object_size(value: object) -> int:
    if isinstance(value, np.ndarray):
        # Its numbers are an allocation of their own, whether it owns them or shares them.
        return sys.getsizeof(value) - (value.nbytes if value.base is None else 0) + size_of(value) + 2 * _MALLOC
    return sys.getsizeof(value) + _MALLOC


def block_starts(lengths: list[int], sizes: list[int]) -> np.ndarray:
    """First rows of blocks of ``sizes[i]`` rows in files of ``lengths[i]`` rows each, and the number of rows behind them."""
    ends = np.cumsum([0, *lengths], dtype=np.int64)
    firsts = [np.arange(first, first + length, size, dtype=np.int64) for first, length, size in zip(ends, lengths, sizes)]
    return np.concatenate([*firsts, ends[-1:]])


def rows_per_block(chunk: int) -> int:
    """Rows that are read at once where chunks are this long: whole chunks, and not one row at a time."""
    return math.ceil(64 / chunk) * chunk
