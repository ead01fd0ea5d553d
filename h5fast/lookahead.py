"""Rows of the next batches read at once, for fields that are read in Python and do not fit the memory.

The order is known, so the rows of many batches can be asked for together: a chunk that several of them share is then decoded
once for all of these, and not once for each. What was read is handed out batch by batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from h5fast._feed import Items, Schedule
from h5fast.errors import CorruptChunkError
from h5fast.python_column import PythonColumn

__all__ = ["Lookahead"]


class Lookahead:
    """Reads a field for one iteration.

    Args:
        column: the field
        schedule: which items each batch has
        items: which rows they are
        batches: that are read at once
    """

    def __init__(self, column: PythonColumn, schedule: Schedule, items: Items, batches: int) -> None:
        self._column, self._schedule, self._items, self._batches = column, schedule, items, batches
        self._steps = range(0)
        self._rows = np.empty(0, np.int64)
        self._values: Any = None  # of these rows; None: they were not all to be had

    def read(self, step: int, rows: np.ndarray) -> Any:
        """These rows, of those that a batch has."""
        if step not in self._steps:
            self._fetch(step)
        if self._values is None:
            return self._column.read(rows)
        return self._values[np.searchsorted(self._rows, rows)]

    def _fetch(self, step: int) -> None:
        self._values = None  # before its memory is needed again
        self._steps = range(step, min(step + self._batches, self._schedule.steps))
        self._rows = np.unique(np.concatenate([self._items.rows_of(self._schedule.items(each)) for each in self._steps]))
        try:
            self._values = self._column.read(self._rows)
        except CorruptChunkError:  # it concerns the batch that needs the chunk, which will meet it
            self._values = None
