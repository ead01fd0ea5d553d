"""The general path: a selection read through h5py, chunk by chunk, for what must not be read directly.

h5py reads boxes well and lists element by element. So a list of rows is grouped by the chunks it falls into, one box is
read for each chunk, and the rows are picked out of it: each chunk is decoded once, in any order of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
import math
from typing import Any

import h5py
import numpy as np

from h5fast._selection import Selection

__all__ = ["h5py_read", "read", "strided"]

# Rows of a dataset without chunks that lie this close are read in one box: a call into HDF5 costs some 7 µs.
_JOIN_BYTES = 64 * 1024


def read(source: Any, chunk: tuple[int, ...] | None, selection: Selection, out: np.ndarray) -> None:
    """Reads a selection into ``out``, an array of the selection's shape and the type that ``source`` reads as.

    Args:
        source: the dataset or, for some of its fields, h5py's view of them
        chunk: its chunk shape, or None where it has none
    """
    if selection.size == 0:
        return
    axes = selection.axes
    coordinates = {axis: c for axis, c in enumerate(selection.coordinates) if c is not None}
    points = list(coordinates)
    target = strided(out, selection, points)
    ranges = tuple(slice(start, start + (count - 1) * step + 1, step) for start, count, step, _, _ in axes)
    if not points:
        target[0] = _box(source, ranges)
        return
    for members, key in _groups(selection, coordinates, chunk, out.dtype):
        box = list(ranges)
        within = []
        for axis, first, last in key:
            box[axis] = slice(first, last + 1)
            within.append(coordinates[axis][members] - first)
        block = np.moveaxis(_box(source, tuple(box)), points, range(len(points)))
        target[members] = block[tuple(within)]


# h5py's own, also while it is patched.
_h5py_getitem = h5py.Dataset.__getitem__


def h5py_read(dataset: h5py.Dataset, key: Any) -> Any:
    """``dataset[key]`` by h5py itself."""
    return _h5py_getitem(dataset, key)


def _box(source: Any, box: tuple[slice, ...]) -> np.ndarray:
    """A box, with every axis kept; of a dataset or of h5py's view of its fields."""
    key = box if box else ()
    return np.asarray(h5py_read(source, key) if isinstance(source, h5py.Dataset) else source[key])


def strided(out: np.ndarray, selection: Selection, points: list[int]) -> np.ndarray:
    """``out`` seen as (points, range axes in order, axes of the element type), so that a box can be assigned to it.

    By flipping and permuting axes only, which works for every element type. An axis of the result that is longer than one
    is known by its stride; those that no range axis feeds are the points', next to each other, or newaxis.
    """
    axes = len(selection.shape)
    strides = [math.prod(selection.shape[axis + 1:]) for axis in range(axes)]
    flips: list[slice] = [slice(None)] * axes
    fed = []
    for axis, (_, count, _, stride, _) in enumerate(selection.axes):
        if axis not in points and count > 1:
            place = next(i for i in range(axes) if strides[i] == abs(stride) and selection.shape[i] == count)
            fed.append(place)
            if stride < 0:
                flips[place] = slice(None, None, -1)
    rest = [axis for axis in range(axes) if axis not in fed]
    inner = list(range(axes, out.ndim))
    counts = [count for axis, (_, count, _, _, _) in enumerate(selection.axes) if axis not in points]
    key: tuple[Any, ...] = (*flips, ...)
    flipped: np.ndarray = out[key]
    return flipped.transpose(rest + fed + inner).reshape((selection.npoints, *counts, *out.shape[axes:]))


def _groups(
    selection: Selection,
    coordinates: dict[int, np.ndarray],
    chunk: tuple[int, ...] | None,
    dtype: np.dtype,
) -> Iterator[tuple[np.ndarray, list[tuple[int, int, int]]]]:
    """Points that are read together: their positions, and (axis, first, last) of the box they need on each point axis."""
    if dtype.hasobject:
        keys = _runs(list(coordinates.values()))
    else:
        if chunk is None:
            chunk = _pieces(selection, list(coordinates), dtype.itemsize)
        keys = np.stack([column // chunk[axis] for axis, column in coordinates.items()])
    order = np.lexsort(keys[::-1])
    changes = np.any(np.diff(keys[:, order], axis=1) != 0, axis=0)
    for members in np.split(order, np.flatnonzero(changes) + 1):
        yield members, [(axis, int(column[members].min()), int(column[members].max()))
                        for axis, column in coordinates.items()]


def _runs(columns: list[np.ndarray]) -> np.ndarray:
    """Numbers of runs of points whose rows follow one another: (1, points). Of rows of variable length nothing may be read
    that nobody asked for: what lies between two of them may be any size, and is fetched row by row in any case."""
    order = np.lexsort(columns[::-1])
    steps = [np.diff(column[order]) for column in columns]
    apart = np.any([step != 0 for step in steps[1:]], axis=0) | (steps[0] > 1) if len(steps) > 1 else steps[0] > 1
    runs = np.empty((1, len(order)), np.int64)
    runs[0, order] = np.concatenate([[0], np.cumsum(apart)])
    return runs


def _pieces(selection: Selection, points: list[int], itemsize: int) -> tuple[int, ...]:
    """Stand-ins for chunks where there are none: neighbouring rows on the first point axis, single ones on others."""
    row = itemsize
    for axis, (_, count, step, _, _) in enumerate(selection.axes):
        if axis not in points:
            row *= count * step
    pieces = [1] * selection.rank
    pieces[points[0]] = max(1, _JOIN_BYTES // max(row, 1))
    return tuple(pieces)
