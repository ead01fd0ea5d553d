"""Which rows a loader draws, and how likely each is: ``rows=`` and ``weights=``."""

from __future__ import annotations

from typing import Any

import numpy as np

from h5fast._feed import Items
from h5fast.columns import Table, read_whole
from h5fast.splits import stored_split
from h5fast.window import checked_rows

__all__ = ["selected_items", "weights_of"]


def selected_items(rows: Any, table: Table, *, ascending: bool) -> Items:
    """The items that ``rows`` selects of a table.

    Args:
        ascending: put a list of rows in ascending order, where the order of items does not matter

    Raises:
        IndexError: a row out of range, or what is no index.
        KeyError: no split of this name is stored in the files.
    """
    count = table.rows
    if rows is None:
        return Items(count)
    if isinstance(rows, str):
        rows = stored_split(rows, table.files, table.file_rows)
    if isinstance(rows, slice):
        picked = range(*rows.indices(count))
        if picked.step > 0:
            return Items(len(picked), picked.start, picked.step)
        rows = np.arange(picked.start, picked.stop, picked.step, dtype=np.int64)
    given = np.asarray(rows)
    if given.size and given.dtype.kind not in "iub":
        raise IndexError(f"rows must be whole numbers or a mask, not {given.dtype}")
    found = checked_rows(given, count)
    if isinstance(found, slice):
        return selected_items(found, table, ascending=ascending)
    listed = np.ascontiguousarray(np.atleast_1d(found), np.int64)
    if listed.ndim != 1:
        raise IndexError(f"rows must be one-dimensional, not of shape {listed.shape}")
    if (listed < 0).any():
        listed = np.where(listed < 0, listed + count, listed)
    return Items(len(listed), rows=np.sort(listed) if ascending else listed)


def weights_of(weights: Any, table: Table, items: Items, source: Any) -> np.ndarray:
    """Cumulated weights of the items.

    Raises:
        ValueError: as many weights as there are neither rows nor items, negative ones, NaN, or none that is positive.
    """
    if isinstance(weights, str):
        weights = read_whole(table.files or source, weights)
        if len(weights) != table.rows:
            raise ValueError(f"the weights have {len(weights):,} rows, the fields {table.rows:,}")
    values = np.asarray(weights, np.float64)
    if values.ndim != 1:
        raise ValueError(f"weights must be one for each row, not an array of shape {values.shape}")
    if len(values) == table.rows:
        values = values[items.rows_of(np.arange(len(items), dtype=np.int64))]
    elif len(values) != len(items):
        raise ValueError(f"there are {len(values):,} weights for {len(items):,} rows (of {table.rows:,})")
    if np.isnan(values).any() or (values < 0).any() or not np.isfinite(values).all():
        bad = int(np.flatnonzero(~(values >= 0) | ~np.isfinite(values))[0])
        raise ValueError(f"weights must be finite and not negative; that of item {bad} is {values[bad]}")
    with np.errstate(over="ignore"):
        cumulated = np.cumsum(values)
    if not cumulated[-1] > 0:
        raise ValueError("the weights are all zero: no row can be drawn")
    if not np.isfinite(cumulated[-1]):
        raise ValueError("the weights are too large to be added up")
    return cumulated
