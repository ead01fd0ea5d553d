"""Keys of a window of rows: a numpy key, relative to rows ``start`` to ``end`` of a dataset, taken apart and checked.

Pure arithmetic: nothing here reads. A *part* is what addresses one axis (or several, if a mask): an int, a slice, or an
array of integers or booleans. Checked rows are an int, a slice or an integer array in which every row lies in 0…size−1.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["as_part", "checked_rows", "expanded", "shifted", "without_mixed_scalars"]

# The largest index.
_MOST: int = np.iinfo(np.intp).max


def as_part(key: Any) -> int | slice | np.ndarray:
    """The key of one axis as a part: ranges, iterables and whatever converts to an array become arrays.

    Raises ``IndexError`` for what numpy does not take as an index either, and for a bare boolean, which would add an axis.
    """
    if isinstance(key, slice) or (isinstance(key, int) and not isinstance(key, bool)):
        return key
    if isinstance(key, range):
        huge = _huge(key[:1]) or _huge(key[-1:])
        return np.arange(key.start, key.stop, key.step) if huge is None else huge
    if not hasattr(key, "__array__"):
        if isinstance(key, Iterable) and not isinstance(key, Sequence):
            key = list(key)
        elif hasattr(key, "__index__") and not isinstance(key, bool):
            return operator.index(key)
    array = np.asarray(key)
    if array.size == 0 and not isinstance(key, np.ndarray) and array.dtype.kind == "f":
        array = array.astype(np.intp)  # an empty list
    huge = _huge(key) if array.dtype.kind in "fO" and isinstance(key, (list, tuple)) else None
    if huge is not None:
        return huge
    if array.dtype == bool and array.ndim > 0:
        return array
    if array.dtype.kind not in "iu":
        raise IndexError(f"only integers, slices, ellipsis and arrays of integers or booleans are indices, not {key!r}")
    if array.ndim == 0:
        return int(array)
    if array.dtype == np.uint64 and array.size and array.max() > _MOST:
        return int(array.max())  # a cast would make it negative
    return array.astype(np.intp, copy=False)


def _huge(numbers: Sequence[Any]) -> int | None:
    """The first integer that an array of indices cannot hold. It stands for the whole key: no axis has such an index."""
    return next((n for n in numbers if isinstance(n, int) and not -_MOST <= n <= _MOST), None)


def expanded(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[list[Any], int]:
    """One part for each axis, masks as index arrays, new axes kept; and the place of the part for axis 0."""
    given = [part if part is None or part is Ellipsis else as_part(part) for part in key]
    used = sum(_axes(part) for part in given)
    ellipses = sum(part is Ellipsis for part in given)
    if ellipses > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if used > len(shape):
        raise IndexError(f"too many indices: the matrix has {len(shape)} axes, but {used} were indexed")
    if ellipses == 0:
        given.append(Ellipsis)
    parts: list[Any] = []
    axis = 0
    for part in given:
        if part is Ellipsis:
            parts += [slice(None)] * (len(shape) - used)
            axis += len(shape) - used
        elif isinstance(part, np.ndarray) and part.dtype == bool:
            parts += _mask_positions(part, shape, axis)
            axis += part.ndim
        else:
            if isinstance(part, int):
                _check_bounds(part, part, shape[axis], axis)  # here, as empty arrays beside it would hide a wrong one
            parts.append(part)
            axis += _axes(part)
    return parts, next(place for place, part in enumerate(parts) if part is not None)


def _axes(part: Any) -> int:
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == bool else 1


def _mask_positions(mask: np.ndarray, shape: tuple[int, ...], axis: int) -> list[np.ndarray]:
    for place, length in enumerate(mask.shape):
        if length != shape[axis + place]:
            raise IndexError(
                f"boolean index did not match indexed array along axis {axis + place}; "
                f"size of axis is {shape[axis + place]} but size of corresponding boolean axis is {length}"
            )
    return list(np.nonzero(mask))


def checked_rows(part: int | slice | np.ndarray, size: int) -> int | slice | np.ndarray:
    """The part for axis 0 as rows counted from the first; ``IndexError`` unless all of them are in 0…size−1.

    A slice comes back with explicit bounds; only one that runs down to row 0 has ``None`` as its stop.
    """
    if isinstance(part, slice):
        return _checked_slice(part, size)
    if isinstance(part, int):
        _check_bounds(part, part, size)
        return part + size if part < 0 else part
    if part.dtype == bool:
        return _mask_positions(part, (size,), 0)[0]
    if part.size:
        low = part.min()
        _check_bounds(low, part.max(), size)
        if low < 0:
            return np.where(part < 0, part + size, part)
    return part


def _checked_slice(part: slice, size: int) -> slice:
    rows = range(*part.indices(size))
    if part.start is not None and part.stop is not None and rows.step > 0:
        start, stop = operator.index(part.start), operator.index(part.stop)
        if size <= start < stop:
            raise IndexError(f"rows {start}:{stop} are out of bounds for axis 0 with size {size}")
    if not rows:
        return slice(0, 0)
    stop = rows[-1] + (1 if rows.step > 0 else -1)
    return slice(rows.start, stop if stop >= 0 else None, rows.step)


def _check_bounds(low: int, high: int, size: int, axis: int = 0) -> None:
    if low < -size or high >= size:
        raise IndexError(f"index {low if low < -size else high} is out of bounds for axis {axis} with size {size}")


def shifted(rows: Any, start: int) -> Any:
    """Checked rows of the matrix as rows of the dataset."""
    if not isinstance(rows, slice):
        return rows + start
    if rows.stop is not None:
        return slice(rows.start + start, rows.stop + start, rows.step)
    return slice(rows.start + start, start - 1 if start else None, rows.step)


def without_mixed_scalars(parts: list[Any]) -> list[Any]:
    """Beside an array, scalars as arrays: there h5py keeps the order of the axes, and numpy does not.

    A dataset answers as h5py does where h5py has an answer, and h5py has none for two arrays.
    """
    if not any(isinstance(part, np.ndarray) for part in parts):
        return parts
    return [np.array([part]) if isinstance(part, int) else part for part in parts]
