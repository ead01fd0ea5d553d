"""Fields whose rows are windows over longer datasets: recordings, series, sequences of frames.

Where windows lie side by side and inside chunks, they are rows like any other to the engine. Windows that overlap are runs:
what several of a batch share is read and decoded once, and copied into each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from h5fast import transform
from h5fast.engine_column import EngineColumn, checked_crop, engine_column
from h5fast.fields import Field
from h5fast.python_column import PythonColumn, is_text, transform_of
from h5fast.runs import KeptRuns, Runs, view_in_runs
from h5fast.sources import Source
from h5fast.stored import Part

__all__ = ["array_windows", "window_column"]


def window_column(name: str, field: Field, opened: list[Source]) -> EngineColumn | PythonColumn:
    """The windows of datasets, one after the other.

    Raises:
        ValueError: all are shorter than a window.
        TypeError: rows of variable length, or strings to decode.
    """
    length, stride = _window(field)
    data = opened[0].data
    if data.dtype == object or is_text(field.dtype):
        raise TypeError(f"field {name!r}: windows need entries of one size, and {data.name!r} of {opened[0].path} has "
                        f"{data.dtype}" + (" to be decoded" if is_text(field.dtype) else ""))
    counts = tuple(_count(one.data.shape[0], length, stride) for one in opened)
    if not any(counts):
        longest = max(opened, key=lambda one: int(one.data.shape[0]))
        raise ValueError(f"field {name!r}: a window of {length:,} is longer than all there is; {longest.data.name!r} of "
                         f"{longest.path} has {longest.data.shape[0]:,} entries")
    if stride == length:
        parts = _side_by_side(opened, counts, length)
        if parts is not None:
            shape = (sum(counts), length, *data.shape[1:])
            return engine_column(name, field, shape, data.dtype, parts, None, counts)
    return _overlapping(name, field, opened, counts)


def array_windows(name: str, field: Field, array: np.ndarray) -> np.ndarray:
    """The windows of an array, as a view of it: (windows, length, …). Raises ``ValueError`` where there is none."""
    length, stride = _window(field)
    if len(array) < length:
        raise ValueError(f"field {name!r}: a window of {length:,} is longer than its {len(array):,} entries")
    return _views(array, length)[::stride]


def _window(field: Field) -> tuple[int, int]:
    assert field.window is not None
    return field.window, field.window if field.stride is None else field.stride


def _count(entries: int, length: int, stride: int) -> int:
    return (entries - length) // stride + 1 if entries >= length else 0


def _views(entries: np.ndarray, length: int) -> np.ndarray:
    """Every window of this length, wherever it starts."""
    shape = (len(entries) - length + 1, length, *entries.shape[1:])
    return np.lib.stride_tricks.as_strided(entries, shape, (entries.strides[0], *entries.strides), writeable=False)


def _side_by_side(opened: list[Source], counts: tuple[int, ...], length: int) -> tuple[Part, ...] | None:
    """Windows as rows of the engine; None where chunks do not allow it."""
    parts: list[Part] = []
    for one, count in zip(opened, counts):
        if not count:
            continue
        part = view_in_runs(one, length)
        if part is None:
            return None
        parts.append(part._replace(first=sum(before.rows for before in parts)))
    return tuple(parts)


def _overlapping(name: str, field: Field, opened: list[Source], counts: tuple[int, ...]) -> PythonColumn:
    length, stride = _window(field)
    inner_shape = opened[0].data.shape[1:]
    crop = checked_crop(name, field, (length, *inner_shape))
    time = range(length)[crop[0]] if crop else range(length)
    span = time[-1] + 1 - time[0]
    unit = math.gcd(span, stride, time[0])
    runs = [Runs(one, crop[1:], unit) if count else None for one, count in zip(opened, counts)]
    used = [one for one in runs if one is not None]
    row_shape = (len(time), *used[0].row_shape)
    wanted = transform.request(used[0].dtype, row_shape, field.dtype, field.scale, field.offset, field.channels_first)
    finish = None if wanted.is_identity else transform_of(wanted)
    ends = np.cumsum(counts)
    stored_bytes: int = used[0].dtype.itemsize * math.prod(row_shape)

    def read(rows: np.ndarray) -> Any:
        out = np.empty((len(rows), *row_shape), used[0].dtype)
        owner = np.searchsorted(ends, rows, side="right")
        for number in np.unique(owner):
            at = np.flatnonzero(owner == number)
            starts = (rows[at] - (ends[number] - counts[number])) * stride + time[0]
            file = runs[number]
            assert file is not None  # a file without windows owns none
            entries, places = file.fetch(starts, starts + span)
            windows = _views(entries, span)[:, ::time.step]
            out[at] = windows[places]
        return out if finish is None else finish(out)

    row_bytes = wanted.dtype.itemsize * math.prod(wanted.out_row_shape)

    def work_bytes(batch: int) -> int:
        return max(one.work_bytes(batch, batch * span) for one in used) + batch * (stored_bytes if finish is None else 2 * stored_bytes + row_bytes)

    kept = KeptRuns(used)
    return PythonColumn(name, int(ends[-1]), read, row_bytes, f"{wanted.dtype} {wanted.out_row_shape}", counts,
                        work_bytes=work_bytes, keeper=kept if kept.nbytes else None, parts=tuple(one.costs for one in used),
                        shares_chunks=True)
