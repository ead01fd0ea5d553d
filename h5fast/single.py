"""One batch of an epoch by itself: the rows of one step, read by the engine in the calling thread.

Whoever needs batches in another order than the loader's, or one of them again, reads them so. Nothing is read ahead and no
decoded row is kept, so any thread and any forked process may do it, at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from h5fast._feed import Feed, Items, Schedule
from h5fast.columns import Table
from h5fast.staging import in_form, stage_of

__all__ = ["read_rows"]


def read_rows(table: Table, rows: np.ndarray, arrays: list[np.ndarray], *, threads: int, skip_damaged: bool,
              transform: Callable[[Any], Any] | None) -> Any:
    """A batch of these rows.

    Args:
        rows: int64, in any order, of the table
        arrays: what the engine fills, one for each of its fields, with room for the rows

    Raises:
        CorruptChunkError, ReadError: rows that cannot be read, and that are not to be left out.
    """
    items = Items(len(rows), rows=rows)
    schedule = Schedule("file", len(rows), key=0, batch=len(rows), rank=0, world=1, drop_last=False, epoch=0)
    feed = Feed(schedule, schedule, items, [column.column() for column in table.engine], [arrays], threads,
                skip_damaged=skip_damaged)
    place = feed.fill()
    if place < 0:
        feed.raise_failure()
    filled, _, numbers, _ = feed.batch(place)
    stage = stage_of(table, items, transform, skip_damaged=skip_damaged, ahead={})
    return in_form(table, filled) if stage is None else stage(0, filled, numbers)[0]
