"""What the reading methods of a dataset do through its reader: for h5fast's class and for h5py's own while h5py is patched.

Nothing here knows how bytes are read, which is :mod:`h5fast.reading`'s, nor which class asks, which is for
:mod:`h5fast.objects` and :mod:`h5fast.patching` to say. What h5py has to answer itself is told to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from h5fast.errors import H5FastError
from h5fast.reading import DatasetReader

__all__ = ["invalidate", "iterate_rows", "read_as", "read_into", "reader_of", "require_open"]

# Key in a dataset's ``__dict__`` under which its reader is kept: the same for h5fast's datasets and for h5py's own ones
# while h5py is patched, so that a dataset has one reader.
_READER = "_h5fast_reader"

# Bytes that one step of an iteration reads ahead, and the most it may take to hold whole chunks. 1 MiB is 85 rows of
# 64x64x3 uint8: the cost of a call (microseconds) vanishes against copying it (100 µs). Whole chunks are worth holding up
# to the size at which h5py's own chunk cache (8 MiB at most) has long given up and decodes every chunk for every row.
_ITERATION_BYTES = 1 << 20
_ITERATION_BYTES_MAX = 64 << 20

# Element kinds whose bytes in memory are the value, so that equal dtypes mean equal bytes: bool, integers, floats, complex.
_PLAIN_KINDS = frozenset("biufc")


def require_open(obj: Any) -> None:
    """Raise ``ValueError`` if `obj`, or the file it belongs to, was closed.

    h5py sets the identifier of every object to zero when it closes their file, so this takes no lock. The check has to be
    made before each read: a reader of h5fast keeps a descriptor of its own and could go on reading.
    """
    if not obj._id.id:
        raise ValueError(f"this HDF5 {_kind(obj)} cannot be read: its file is closed, or it was closed itself")


def reader_of(dataset: Any) -> DatasetReader:
    """The one reader of `dataset` (h5fast's or h5py's), made when it is first asked for."""
    reader: DatasetReader | None = dataset.__dict__.get(_READER)
    if reader is None:
        # setdefault: two threads may both make a reader, but only one is ever used.
        reader = dataset.__dict__.setdefault(_READER, DatasetReader(dataset))
    return reader


def invalidate(dataset: Any) -> None:
    """Tell the reader of `dataset`, if there is one, that extent or contents changed."""
    reader = dataset.__dict__.get(_READER)
    if reader is not None:
        reader.invalidate()


def read_as(read: Callable[[Any], Any], dataset: Any, key: Any, dtype: Any) -> Any:
    """``read(key)`` converted to `dtype` if that gives h5py's answer for sure, else ``NotImplemented``.

    HDF5 converts while it reads and clips where numpy wraps, so only conversions that keep every value are done here:
    integers and floats of 4 and 8 bytes to wider ones. The result of `read` must be h5py's own for `key`.
    """
    if not _widens(dataset.dtype, np.dtype(dtype)):
        return NotImplemented
    result = read(key)
    if isinstance(result, (np.ndarray, np.generic)):
        return result.astype(dtype)
    return result


def read_into(dataset: Any, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> bool:
    """Do what ``h5py.Dataset.read_direct`` does, if the direct path can; False means that nothing was done.

    Served are whole rows: ranges (with any step) of axis 0 of `dataset` into consecutive rows of `dest`, a C-contiguous
    array of the same plain dtype. All else, broadcasting and every error among it, is left to h5py.
    """
    if type(dest) is not np.ndarray or not dest.flags.carray:
        return False
    dtype = dataset.dtype
    if dest.dtype != dtype or dtype.kind not in _PLAIN_KINDS or dtype.metadata or dest.dtype.metadata:
        return False
    source = _leading_rows(source_sel, dataset.shape)
    target = _leading_rows(dest_sel, dest.shape)
    if source is None or target is None or source[1] != target[1] or target[0].step != 1:
        return False
    reader = reader_of(dataset)
    if not reader.writes_everything:
        return False
    rows = source[0]
    out = dest[target[0]].reshape((len(range(rows.start, rows.stop, rows.step)), *dataset.shape[1:]))
    reader.take(rows, out=out)
    return True


def iterate_rows(dataset: Any) -> Iterator[Any] | None:
    """Rows of `dataset` in order, read many at a time; None if they have to be read one by one.

    A row of a compressed chunk costs the decoding of the chunk, so reading row by row decodes a chunk of 32 rows up to 32
    times. Each row is a copy, as from ``dataset[i]``: keeping one does not keep its neighbours. Only what cannot change is
    read ahead: by the direct path, and not while another process writes the file (SWMR).
    """
    if not dataset.shape or dataset.dtype.kind not in _PLAIN_KINDS:
        return None
    reader = reader_of(dataset)
    if not reader.path.startswith("direct") or dataset.file.swmr_mode:
        return None
    return _rows_in_blocks(dataset, reader)


def _rows_in_blocks(dataset: Any, reader: DatasetReader) -> Iterator[Any]:
    length = dataset.shape[0]
    step = _rows_per_block(dataset)
    for start in range(0, length, step):
        stop = min(start + step, length)
        block = _block_or_none(dataset, reader, slice(start, stop))
        if block is None:
            for row in range(start, stop):
                yield dataset[row]
        else:
            for row, values in enumerate(block, start):
                if not dataset._id.id:
                    dataset[row]  # closed meanwhile: raises what a read raises
                yield values.copy() if block.ndim > 1 else values


def _block_or_none(dataset: Any, reader: DatasetReader, rows: slice) -> np.ndarray[Any, Any] | None:
    """These rows; None if they cannot be read together, so that the error is raised at its row, as indexing raises it."""
    if not dataset._id.id:
        return None
    try:
        return reader.take(rows)
    except H5FastError:
        return None


def _rows_per_block(dataset: Any) -> int:
    """How many rows an iteration reads at once: whole chunks where they are not huge."""
    row_bytes: int = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    rows = max(1, _ITERATION_BYTES // row_bytes)
    if dataset.chunks is None:
        return rows
    chunk_rows: int = dataset.chunks[0]
    most = max(1, _ITERATION_BYTES_MAX // row_bytes)
    return min(most, max(1, rows // chunk_rows) * chunk_rows)


def _leading_rows(selection: Any, shape: tuple[int, ...] | None) -> tuple[slice, tuple[int, ...]] | None:
    """The non-empty range of axis 0 that `selection` names, and the shape that h5py gives it; None for anything else."""
    if not shape:
        return None
    parts = selection if isinstance(selection, tuple) else (slice(None) if selection is None else selection,)
    if not parts or len(parts) > len(shape) or any(not _is_whole(part) for part in parts[1:]):
        return None
    first = slice(None) if parts[0] is Ellipsis else parts[0]
    if type(first) is int:
        return (slice(first, first + 1, 1), shape[1:]) if 0 <= first < shape[0] else None
    if not isinstance(first, slice):
        return None
    try:
        start, stop, step = first.indices(shape[0])
    except (TypeError, ValueError):
        return None
    count = len(range(start, stop, step))
    return (slice(start, stop, step), (count, *shape[1:])) if step > 0 and count else None


def _is_whole(part: Any) -> bool:
    return part is Ellipsis or (isinstance(part, slice) and part == slice(None))


def _widens(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether every value of `source` is a value of `target`, for the types that HDF5 and numpy convert alike.

    Excluded by hand: half and extended floats (HDF5 converts them in software, NaN payloads included), 8-byte integers to
    float (numpy calls that safe, it rounds), and dtypes with metadata (enumerations, booleans, strings, references).
    """
    if source.kind not in "iuf" or target.kind not in "iuf" or source.metadata or target.metadata:
        return False
    if any(dtype.kind == "f" and dtype.itemsize not in (4, 8) for dtype in (source, target)):
        return False
    if source.kind != "f" and target.kind == "f" and source.itemsize >= target.itemsize:
        return False
    return np.can_cast(source, target, "safe")


def _kind(obj: Any) -> str:
    return "dataset" if isinstance(obj, h5py.Dataset) else "file" if isinstance(obj, h5py.File) else "group"
