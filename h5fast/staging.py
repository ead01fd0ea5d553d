"""What becomes of a batch in Python: fields that the engine does not read, the user's function, and the form of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from h5fast._feed import Items
from h5fast.columns import EngineColumn, PythonColumn, Table
from h5fast.pipeline import Stage

__all__ = ["in_form", "stage_of"]


def stage_of(table: Table, items: Items, transform: Callable[[Any], Any] | None) -> Stage | None:
    """What is done to a batch in Python; None if nothing is."""
    columns = table.columns
    if transform is None and all(isinstance(c, EngineColumn) and c.finish is None for c in columns):
        return None

    def stage(arrays: list[np.ndarray], numbers: np.ndarray) -> Any:
        rows = items.rows_of(numbers)
        engine = iter(arrays)
        values = []
        for column in columns:
            if isinstance(column, PythonColumn):
                values.append(column.read(rows))
            else:
                array = next(engine)
                values.append(array if column.finish is None else column.finish(array))
        batch = in_form(table, values)
        return batch if transform is None else transform(batch)

    return stage


def in_form(table: Table, values: list[Any]) -> Any:
    """A batch of these fields, in the form that was asked for."""
    if table.form == "single":
        return values[0]
    if table.form == "tuple":
        return tuple(values)
    return {column.name: value for column, value in zip(table.columns, values)}
