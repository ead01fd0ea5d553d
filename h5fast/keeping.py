"""The decoded rows that a loader keeps from batch to batch and from epoch to epoch, and which iteration they serve.

Rows are kept under the position at which they are needed next, by one thread at a time: of two iterations at once the second
one keeps none.
"""

from __future__ import annotations

import os

from h5fast._feed import Column
from h5fast.columns import Table
from h5fast.pipeline import Worker

__all__ = ["Keeping"]


class Keeping:
    """The fields that the engine reads, with what they keep.

    Args:
        table: the fields
        kept: of each field that is decoded, by name, how many of its rows can be kept
        items: rows that an epoch draws from
    """

    def __init__(self, table: Table, kept: dict[str, int], items: int) -> None:
        self._table, self._kept, self._items = table, kept, items
        self._columns: list[Column] | None = None
        self._process = os.getpid()
        self._worker: Worker | None = None  # that uses them, or used them last
        self._settled_for: tuple[int, int] | None = None  # the iteration that it leaves them in order for

    def columns(self, number: int, begun: int, stride: int) -> tuple[list[Column], bool]:
        """The fields, for an iteration from row ``begun`` of epoch ``number`` on, and whether what they keep is in order for
        it. They serve nobody else until :meth:`serve` says whom they serve.

        Args:
            stride: the schedule's
        """
        if self._process != os.getpid():  # the thread that used them stayed in the other process, and left them anyhow
            self.forget()
        worker, settled_for = self._worker, self._settled_for
        if worker is not None and not worker.is_over:
            return self._make(keeping=False, stride=stride), True
        is_settled = False
        if worker is not None:
            worker.wait()  # meanwhile another thread may close the loader, which forgets all of this
            is_settled = worker.is_complete and settled_for == (number, begun)
        self._worker = self._settled_for = None
        columns = self._columns
        if columns is None:
            columns = self._columns = self._make(keeping=True, stride=stride)
        return columns, is_settled

    def owns(self, columns: list[Column]) -> bool:
        """Whether these are the ones that keep rows, and not those of a second iteration."""
        return columns is self._columns

    def serve(self, worker: Worker, columns: list[Column], number: int) -> None:
        """The worker, which fills all of an epoch or the rest of it, uses these columns from now on."""
        if self.owns(columns):
            self._worker, self._settled_for = worker, (number + 1, 0)

    def unsettle(self) -> None:
        """The order changed: positions that rows are kept under may mean other rows."""
        self._settled_for = None

    def forget(self) -> None:
        """Keeps nothing any more. What an iteration uses is freed when that ends."""
        self._columns = self._worker = self._settled_for = None
        self._process = os.getpid()

    def _make(self, *, keeping: bool, stride: int) -> list[Column]:
        columns = []
        for described in self._table.engine:
            column = described.column()
            slots = self._kept.get(described.name, 0) if keeping else 0
            if slots and slots >= self._items:
                column.keep_all(self._items)
            elif slots:
                column.keep_some(slots, stride)
            columns.append(column)
        return columns
