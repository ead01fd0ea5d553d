"""One batch by itself: the rows of one step of an epoch, or any others, read by the engine in the calling thread.

Whoever needs batches in another order than the loader's, or one of them again, reads them so. Nothing is read ahead, and
nothing is kept but the decoded chunks that the open file keeps for all its readers; so any thread and any forked process may do
it, at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from h5fast._feed import Feed, Items, Schedule
from h5fast.columns import EngineColumn, Table
from h5fast.staging import in_form, stage_of
from h5fast.window import checked_rows

__all__ = ["numbered", "read_arrays", "read_rows"]


def numbered(keys: Any, count: int) -> np.ndarray:
    """The numbers, int64 from 0 on, that a list of numbers, a mask or a slice names of ``count`` things.

    Raises:
        IndexError: one is out of range, or none at all.
    """
    if isinstance(keys, slice):
        return np.arange(*keys.indices(count), dtype=np.int64)
    given = np.asarray(keys)
    if given.ndim != 1:
        raise IndexError(f"rows must be a list of numbers, a mask or a slice, not of shape {given.shape}")
    if given.size == 0:
        return np.empty(0, np.int64)
    if given.dtype.kind not in "iub":
        raise IndexError(f"rows must be whole numbers or a mask, not {given.dtype}")
    return np.asarray(checked_rows(given, count), np.int64)


def read_rows(table: Table, rows: np.ndarray, arrays: list[np.ndarray], *, threads: int, skip_damaged: bool,
              transform: Callable[[Any], Any] | None) -> Any:
    """A batch of these rows.

    Args:
        rows: int64, in any order, of the table
        arrays: what the engine fills, one for each of its fields, with room for the rows

    Raises:
        CorruptChunkError, ReadError: rows that cannot be read, and that are not to be left out.
    """
    filled, numbers = read_arrays(table.engine, rows, arrays, threads=threads, skip_damaged=skip_damaged)
    stage = stage_of(table, Items(len(rows), rows=rows), transform, skip_damaged=skip_damaged, ahead={})
    if stage is None:
        return in_form(table, filled)
    batch, left = stage(0, filled, numbers)
    return batch if left else _of_no_rows(table, [array[:0] for array in filled], transform)


def _of_no_rows(table: Table, arrays: list[np.ndarray], transform: Callable[[Any], Any] | None) -> Any:
    """A batch without rows, in the form of the others: none were asked for, or all are damaged."""
    engine, none = iter(arrays), np.empty(0, np.int64)
    values: list[Any] = []
    for column in table.columns:
        if isinstance(column, EngineColumn):
            array = next(engine)
            values.append(array if column.finish is None else column.finish(array))
        else:
            values.append(column.read(none))
    batch = in_form(table, values)
    return batch if transform is None else transform(batch)


def read_arrays(columns: list[EngineColumn], rows: np.ndarray, arrays: list[np.ndarray], *, threads: int,
                skip_damaged: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """What the engine makes of these rows, cut to those that could be read, and their places in `rows`. Raises what
    :func:`read_rows` raises."""
    if not len(rows) or not arrays:
        return arrays, np.arange(len(rows), dtype=np.int64)
    schedule = Schedule("file", len(rows), key=0, batch=len(rows), rank=0, world=1, drop_last=False, epoch=0)
    feed = Feed(schedule, schedule, Items(len(rows), rows=rows), [column.column(with_kept_chunks=True) for column in columns],
                [arrays], threads, skip_damaged=skip_damaged)
    place = feed.fill()
    if place < 0:
        feed.raise_failure()
    filled, _, numbers, _ = feed.batch(place)
    return filled, numbers
