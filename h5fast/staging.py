"""What becomes of a batch in Python: fields that the engine does not read, the user's function, and the form of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from h5fast._feed import Items
from h5fast.columns import EngineColumn, PythonColumn, Table
from h5fast.errors import CorruptChunkError
from h5fast.lookahead import Lookahead
from h5fast.pipeline import Stage
from h5fast.python_column import Reads

__all__ = ["in_form", "stage_of"]


def stage_of(table: Table, items: Items, transform: Callable[[Any], Any] | None, *, skip_damaged: bool,
             ahead: Mapping[str, Lookahead]) -> Stage | None:
    """What is done to a batch in Python; None if nothing is.

    Args:
        skip_damaged: leave out rows that do not decode
        ahead: what reads fields for several batches at once, by name
    """
    columns = table.columns
    if transform is None and all(isinstance(c, EngineColumn) and c.finish is None for c in columns):
        return None
    in_python = [(place, c) for place, c in enumerate(columns) if isinstance(c, PythonColumn)]
    in_engine = [(place, c) for place, c in enumerate(columns) if isinstance(c, EngineColumn)]

    def read_of(column: PythonColumn, step: int) -> Reads:
        return functools.partial(ahead[column.name].read, step) if column.name in ahead else column.read

    def stage(step: int, arrays: list[np.ndarray], numbers: np.ndarray) -> tuple[Any, int]:
        rows = items.rows_of(numbers)
        values: list[Any] = [None] * len(columns)
        left = np.arange(len(rows))
        for done, (place, column) in enumerate(in_python):
            values[place], good = _read(column, read_of(column, step), rows[left], skip_damaged)
            if good is not None:
                left = left[good]
                if len(left) == 0:
                    return None, 0
                for before, _ in in_python[:done]:
                    values[before] = values[before][good]
        for array, (place, described) in zip(arrays, in_engine):
            array = array if len(left) == len(rows) else array[left]
            values[place] = array if described.finish is None else described.finish(array)
        batch = in_form(table, values)
        return batch if transform is None else transform(batch), len(left)

    return stage


def _read(column: PythonColumn, read: Reads, rows: np.ndarray, skip_damaged: bool) -> tuple[Any, np.ndarray | None]:
    """These rows of a field. Or those of them that decode, and where these were; None where all are there."""
    pieces, good = _pieces(read, rows, skip_damaged)
    if len(pieces) == 1:
        return pieces[0], None if good.all() else np.flatnonzero(good)
    return column.join(pieces) if pieces else None, np.flatnonzero(good)


def _pieces(read: Reads, rows: np.ndarray, skip_damaged: bool) -> tuple[list[Any], np.ndarray]:
    """The rows, in pieces that can be read, and which they are. A half that fails is halved again: the error does not say
    which rows it is about, and HDF5 may have read more than was asked for."""
    try:
        return [read(rows)], np.ones(len(rows), bool)
    except CorruptChunkError:
        if len(rows) == 1:
            if skip_damaged:
                return [], np.zeros(1, bool)
            raise
    middle = len(rows) // 2
    first, good = _pieces(read, rows[:middle], skip_damaged)
    second, also_good = _pieces(read, rows[middle:], skip_damaged)
    return first + second, np.concatenate([good, also_good])


def in_form(table: Table, values: list[Any]) -> Any:
    """A batch of these fields, in the form that was asked for."""
    if table.form == "single":
        return values[0]
    if table.form == "tuple":
        return tuple(values)
    return {column.name: value for column, value in zip(table.columns, values)}
