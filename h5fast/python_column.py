"""A field whose rows are read in Python: what the engine cannot read, and arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from h5fast import transform
from h5fast.engine_column import Normalizer, checked_crop
from h5fast.fields import Field
from h5fast.methods import reader_of
from h5fast.sources import Source

__all__ = ["PythonColumn", "array_column", "dataset_column"]


class Reads(Protocol):
    """What reads rows for a :class:`PythonColumn`."""

    def __call__(self, rows: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class PythonColumn:
    """A field whose rows are read in Python.

    Attributes:
        name: in the batches
        rows: number of rows
        read: gives these rows (int64, in any order), as they go into the batch
        row_bytes: bytes of a row in a batch, as far as can be told
        form: what a row is, for messages and comparisons
    """

    name: str
    rows: int
    read: Reads
    row_bytes: int
    form: str


def dataset_column(name: str, field: Field, opened: list[Source], normalizer: Normalizer | None, start: int = 0,
                    count: int | None = None) -> PythonColumn:
    """Rows of datasets that the engine cannot read, one after the other, through their readers."""
    data = [one.data for one in opened]
    lengths = [d.shape[0] for d in data]
    ends = np.cumsum(lengths)
    crop = checked_crop(name, field, data[0].shape[1:])
    convert = any(v is not None for v in (field.dtype, field.scale, field.offset)) or field.channels_first

    def take(dataset: Any, rows: np.ndarray) -> np.ndarray:
        if crop:
            taken = dataset[(rows, *crop)]
        elif convert:
            return np.asarray(dataset.take(rows, dtype=field.dtype, scale=field.scale, offset=field.offset,
                                           channels_first=field.channels_first))
        else:
            taken = dataset.take(rows)
        return np.asarray(taken)

    def read(rows: np.ndarray) -> Any:
        rows = rows + start
        owner = np.searchsorted(ends, rows, side="right")
        used = np.unique(owner)
        if len(used) == 1:
            number = int(used[0])
            out = take(opened[number].data, rows - (ends[number] - lengths[number]))  # an opened one keeps its file open
        else:
            pieces = {n: np.flatnonzero(owner == n) for n in used}
            taken = {n: take(opened[n].data, rows[at] - (ends[n] - lengths[n])) for n, at in pieces.items()}
            sample = next(iter(taken.values()))
            out = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
            for n, at in pieces.items():
                out[at] = taken[n]
        return out if normalizer is None else normalizer(out)

    sample_shape = data[0].shape[1:]
    row_bytes = data[0].dtype.itemsize * math.prod(sample_shape)
    if crop and convert:
        raise ValueError(f"field {name!r}: a crop and a conversion together need a dataset that is read directly; this one "
                         f"is not ({reader_of(data[0]).path})")
    return PythonColumn(name, int(ends[-1]) if count is None else count, read, row_bytes, f"{data[0].dtype} {sample_shape}")


def array_column(name: str, field: Field, array: np.ndarray) -> PythonColumn:
    crop = checked_crop(name, field, array.shape[1:])
    array = array[(slice(None), *crop)]
    wanted = transform.request(array.dtype, array.shape[1:], field.dtype, field.scale, field.offset, field.channels_first)

    def read(rows: np.ndarray) -> np.ndarray:
        taken = array.take(rows, axis=0)
        if wanted.is_identity:
            return taken
        out = transform.output(wanted, len(rows), None)
        wanted.apply(taken, out)
        return out

    row_bytes = wanted.dtype.itemsize * math.prod(wanted.out_row_shape)
    return PythonColumn(name, len(array), read, row_bytes, f"{wanted.dtype} {wanted.out_row_shape}")
