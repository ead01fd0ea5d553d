"""What a loader's state says: where training stands, and of which rows in which order.

A state is made of numbers and texts, which JSON can hold. It fits a loader that draws the same rows of the same data in the same
order; what does not change the order (memory, threads, prefetch) is not in it.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from h5fast._blocks import empty
from h5fast._feed import Items
from h5fast.columns import Table
from h5fast.errors import H5FastError
from h5fast.ordering import Order
from h5fast.single import read_arrays

__all__ = ["Identity", "at_least", "checked"]

_VERSION = 1
# Numbers beyond it are of no epoch, row or block.
_MOST = 1 << 62


class Identity:
    """What tells one loader from another, as far as its order is concerned.

    Args:
        table, items, order: of the loader
    """

    def __init__(self, table: Table, items: Items, order: Order) -> None:
        self._table, self._items, self._order = table, items, order
        self._digests: dict[str, str] = {}

    def state(self, epoch: int, taken: int) -> dict[str, Any]:
        """The state after `taken` rows of an epoch, of all processes together."""
        order = self._order
        if not self._digests:
            self._digests = {"chosen": self._choice(), "data": self._contents()}
        return {"version": _VERSION, "epoch": epoch, "taken": taken, "order": order.kind, "seed": repr(order.seed),
                "rows": len(self._items), "of": self._table.rows, **self._digests, "fields": self._table.description,
                "drop_last": order.drop_last, "window": order.window, "world": order.world, "batch_size": order.batch,
                "worker": [order.worker, order.workers]}

    def _choice(self) -> str:
        """A digest of which rows are drawn, and of what else the order depends on."""
        digest = hashlib.blake2b(repr((self._items.first, self._items.step)).encode(), digest_size=8)
        for array in (self._items.listed(), self._order.cumulated, self._order.groups):
            digest.update(b"none" if array is None else array.tobytes())
        return digest.hexdigest()

    def _contents(self) -> str:
        """A digest of the first row and the last, of what the engine reads of them: the same data in another file, or stored in
        another way, is the same; other data of the same form is not."""
        digest = hashlib.blake2b(digest_size=8)
        rows = self._items.rows_of(np.array([0, len(self._items) - 1], np.int64))
        for column in self._table.engine:
            array = empty((len(rows), *column.batch_row_shape), column.batch_dtype)
            try:
                read_arrays([column], rows, [array], threads=1, skip_damaged=False)
            except H5FastError:  # whoever needs these rows will see it
                continue
            digest.update(array.tobytes())
        return digest.hexdigest()


def checked(state: Mapping[str, Any], mine: Mapping[str, Any]) -> tuple[int, int, int]:
    """Epoch, rows taken and blocks mixed of a state, which has to be one of the loader whose state is `mine`.

    Of exact orders and that of the file, processes and batches may be others.

    Raises:
        ValueError: it belongs to another loader, or is no state.
        TypeError: its numbers are none.
    """
    if not isinstance(state, Mapping) or state.get("version") != _VERSION:
        raise ValueError(f"this is no state of a loader of this version of h5fast: {state!r}")
    free = {"epoch", "taken", "window"} | ({"world", "batch_size"} if mine["order"] in ("exact", "file") else set())
    for name, value in mine.items():
        if name not in free and state.get(name) != value:
            raise ValueError(f"the state belongs to another loader: its {name} is {state.get(name)!r}, here it is {value!r}")
    epoch, taken, window = (at_least(least, name, state.get(name)) for least, name in ((0, "epoch"), (0, "taken"), (1, "window")))
    if max(epoch, taken, window) >= _MOST:
        raise ValueError(f"this is no state of a loader: epoch {epoch}, {taken} rows taken, window {window}")
    return epoch, taken, window


def at_least(least: int, name: str, value: Any) -> int:
    """The value as a whole number. Raises ``TypeError`` where it is none, ``ValueError`` where it is less."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number
