"""``HDF5Matrix``: a range of rows of an HDF5 dataset that reads like a numpy array, batch by batch.

It is the class that Keras once shipped, with numpy's meaning for every key. It opens files, translates keys from its
range of rows to the dataset, and applies the normalizer. It never decodes anything itself, and never asks the dataset
for a row outside ``[start, end)``.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType, TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from h5fast.objects import Dataset
from h5fast.sources import Lease, Source, open_source
from h5fast.window import as_part, checked_rows, expanded, shifted, without_mixed_scalars

__all__ = ["MAX_ARRAY_BYTES", "HDF5Matrix", "Normalize"]

#: The largest matrix, in bytes after the normalizer, that ``np.asarray(matrix)`` reads; above it, it refuses.
#: 1 GiB: enough for the test half of most image sets, and too little to fill a laptop by one careless call.
#: ``matrix[...]`` is explicit and has no limit.
MAX_ARRAY_BYTES = 1 << 30

#: The modules of Keras 3 that make arrays of what ``fit``, ``evaluate`` and ``predict`` are given: 2 * epochs + 1 times.
_KERAS_INPUTS = "keras.src.trainers."

#: Bytes of stored rows that iteration reads at a time: about ten chunks of the usual size, so that a block border that
#: falls inside a chunk decodes that chunk twice at a cost of a tenth.
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Normalize:
    """A normalizer that the reading kernel applies while it copies: ``row.astype(dtype) * scale + offset``.

    ``scale`` and ``offset`` are numbers, or one number for each channel (the last axis). ``dtype=None`` keeps the stored
    type, except that integers with a scale or offset become float32. ``channels_first`` moves the last axis to the place
    behind the rows, (N, H, W, C) to (N, C, H, W). Called on an array of rows, it returns what the kernel would have.

    Raises ``TypeError`` for a scale or offset with a ``dtype`` that is not floating.
    """

    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    dtype: DTypeLike | None = "float32"
    channels_first: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _as_numbers("scale", self.scale))
        object.__setattr__(self, "offset", _as_numbers("offset", self.offset))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", np.dtype(self.dtype))
            if self._computes and np.dtype(self.dtype).kind not in "fc":
                raise TypeError(f"scale and offset need a floating dtype, not {self.dtype}")

    @property
    def _computes(self) -> bool:
        return self.scale is not None or self.offset is not None

    def __call__(self, batch: ArrayLike) -> np.ndarray:
        """The rows of ``batch`` (rows on the first axis, channels on the last), normalized, as a new array."""
        rows = np.array(batch, dtype=self.dtype)
        if self._computes and rows.dtype.kind in "iub":
            rows = rows.astype(np.float32)
        if self.scale is not None:
            rows *= np.asarray(self.scale, dtype=rows.dtype)
        if self.offset is not None:
            rows += np.asarray(self.offset, dtype=rows.dtype)
        if self.channels_first and rows.ndim > 2:
            rows = np.ascontiguousarray(np.moveaxis(rows, -1, 1))
        return rows

    def read(self, data: Dataset, rows: slice | np.ndarray) -> np.ndarray:
        """``self(data[rows])``, with the arithmetic done inside the read."""
        return data.take(rows, dtype=self.dtype, scale=self.scale, offset=self.offset, channels_first=self.channels_first)


class HDF5Matrix:
    """The rows ``start`` to ``end`` of a dataset, read when they are asked for.

    Parameters
    ----------
    datapath:
        Path of an HDF5 file; or an open ``File`` or ``Group`` of h5py or h5fast; or an open ``Dataset``, and then
        ``dataset`` is left out.
    dataset:
        Name of the dataset inside ``datapath``.
    start, end:
        The range of rows, as row numbers of the dataset: ``0 <= start <= end <= rows``. ``None`` means its last row.
        They do not count from the end: a negative number raises ``IndexError``, as does one beyond the data.
    normalizer:
        ``None``, a callable that gets an array of whole rows (never a bare row) and returns as many normalized rows, or a
        :class:`Normalize`. The shape of a row and its type may change; both show in ``shape`` and ``dtype``.
    untrusted:
        Nobody vouches for the file: see :class:`h5fast.File`.

    ``matrix[key]`` means what ``normalizer(data[start:end])[key]`` means in numpy, for every key that numpy takes, and
    reads only the rows it needs; any iterable of integers works as a list. Two rules come from the original class:
    ``matrix[None]`` is a ``TypeError``, and a slice of which no row exists although its bounds promise some, such as
    ``matrix[1000:1001]`` on 1,000 rows, is an ``IndexError`` (``matrix[990:1010]`` is the last ten rows, as in numpy).

    Matrices of one file share one open handle, which is closed when the last of them is closed or collected. Reading is
    safe from several threads, and in a forked child. A matrix pickles as path, name, range and normalizer.
    """

    def __init__(
        self,
        datapath: str | bytes | os.PathLike[str] | h5py.Group | h5py.Dataset,
        dataset: str | None = None,
        start: int = 0,
        end: int | None = None,
        normalizer: Callable[[np.ndarray], ArrayLike] | None = None,
        *,
        untrusted: bool = False,
    ) -> None:
        if normalizer is not None and not callable(normalizer):
            raise TypeError(f"normalizer must be callable or None, not {type(normalizer).__name__}")
        source = open_source(datapath, dataset, untrusted=untrusted)
        self.start, self.end = _checked_window(source, start, end)
        self.normalizer = normalizer
        self._path, self._name, self._untrusted = source.path, source.name, source.untrusted
        self._row_shape = source.data.shape[1:] + source.data.dtype.shape  # an array type adds axes to what is read
        self._row_dtype = source.data.dtype.base
        self._source: Source | None = source

    # What it looks like, after the normalizer.

    def __len__(self) -> int:
        """Number of rows."""
        return self.end - self.start

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, then the shape of one row after the normalizer."""
        return (len(self), *self._template.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of an element after the normalizer."""
        return self._template.dtype

    @property
    def ndim(self) -> int:
        """Number of axes after the normalizer."""
        return self._template.ndim

    @property
    def size(self) -> int:
        """Number of elements after the normalizer."""
        return math.prod(self.shape)

    @property
    def data(self) -> Dataset:
        """The dataset that the rows come from, before the normalizer, with its rows outside the range."""
        return self._opened().data

    def __repr__(self) -> str:
        """Name, path, range, shape and type before the normalizer, and the normalizer; reads nothing."""
        shape = (len(self), *self._row_shape)
        then = "" if self.normalizer is None else f", then {self.normalizer!r}"
        closed = "" if self._source is not None else ", closed"
        rows = f"rows {self.start}:{self.end}"
        return f"<HDF5Matrix {self._name!r} of {self._path!r}, {rows}, shape {shape}, {self._row_dtype}{then}{closed}>"

    # Reading.

    def __getitem__(self, key: Any) -> Any:
        """``normalizer(data[start:end])[key]``, of which only the needed rows are read.

        Raises ``IndexError`` for a row out of range or what is no index, ``TypeError`` for ``None`` alone, ``ValueError`` if
        the matrix or its file is closed, ``CorruptChunkError`` and ``ReadError`` for data that cannot be read.
        """
        if key is None:
            raise TypeError("HDF5Matrix rows are integers, slices, arrays or tuples, not None")
        if isinstance(key, str):
            return self._get_field(key)
        if isinstance(key, (tuple, EllipsisType)):
            return self._get_axes(key if isinstance(key, tuple) else (key,))
        part = as_part(key)
        if isinstance(part, np.ndarray) and part.dtype == bool and part.ndim != 1:
            return self._get_axes((part,))
        return self._get_rows(checked_rows(part, len(self)))

    def __iter__(self) -> Iterator[Any]:
        """The rows in order, read in blocks."""
        row_bytes = self._row_dtype.itemsize * math.prod(self._row_shape)
        step = max(1, _BLOCK_BYTES // max(1, row_bytes))
        for first in range(0, len(self), step):
            yield from self[first : min(first + step, len(self))]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All rows, normalized, as a new array. ``ValueError`` above ``MAX_ARRAY_BYTES``, and for ``copy=False``.

        ``ValueError``, too, at any size, where ``fit``, ``evaluate`` or ``predict`` of Keras asks for it.
        """
        if sys._getframe(1).f_globals.get("__name__", "").startswith(_KERAS_INPUTS):  # np.asarray has no frame
            raise ValueError(
                f"Keras makes an array of its input again and again, in fit 2 * epochs + 1 times, and would read all of "
                f"{self!r} each time. Call h5fast.keras.install() first: then this very call reads batch by batch. Or, "
                "without changing Keras, pass h5fast.keras.HDF5Sequence(x, y, batch_size=...) in place of x and y"
            )
        if copy is False:
            raise ValueError("an HDF5Matrix is read from a file: it cannot become an array without a copy")
        nbytes = self.size * self.dtype.itemsize
        if nbytes > MAX_ARRAY_BYTES:
            raise ValueError(
                f"refusing to read all {nbytes:,} bytes of {self!r} at once (the limit is {MAX_ARRAY_BYTES:,}): "
                "take a part with np.asarray(matrix[a:b]), feed batches to the framework with a loader or generator, "
                "or read everything on purpose with matrix[...]"
            )
        return np.asarray(self[...], dtype=dtype)

    def _opened(self) -> Source:
        """The open dataset. Callers keep the result in a variable while they read: it holds the file open."""
        source = self._source
        if source is None:
            raise ValueError(f"{self!r} is closed")
        return source

    @cached_property
    def _template(self) -> np.ndarray:
        """No rows, in the shape and type that rows have after the normalizer."""
        if self.normalizer is None:
            return np.empty((0, *self._row_shape), self._row_dtype)
        if len(self) == 0 or isinstance(self.normalizer, Normalize):
            # Ones, for want of a row: zeros would make the usual normalizers divide by zero.
            probe = np.ones((1, *self._row_shape), self._row_dtype)
        else:
            source = self._opened()
            probe = source.data[self.start : self.start + 1]
        return self._normalized(probe)[:0].copy()

    def _normalized(self, batch: np.ndarray) -> np.ndarray:
        if self.normalizer is None:
            return batch
        if len(batch) == 0:  # normalizers that reshape or stack cannot tell the shape of a row from none
            return self._template.copy()
        out = np.asarray(self.normalizer(batch))
        if out.ndim == 0 or len(out) != len(batch):
            raise ValueError(f"the normalizer made shape {out.shape} of {len(batch)} rows: it must keep their number")
        return out

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Normalized rows; ``rows`` as ``checked_rows`` gives them, an array in one dimension."""
        source = self._opened()
        rows = shifted(rows, self.start)
        if isinstance(self.normalizer, Normalize):
            return self.normalizer.read(source.data, rows)
        return self._normalized(source.data[rows])

    def _get_rows(self, rows: int | slice | np.ndarray) -> Any:
        """Whole rows; an array of any shape, as numpy has it, is replaced by the rows it names."""
        if isinstance(rows, int):
            if self.normalizer is None:
                source = self._opened()
                return source.data[self.start + rows]
            return self._read(slice(rows, rows + 1))[0]
        if isinstance(rows, np.ndarray) and rows.ndim != 1:
            batch = self._read(rows.ravel())
            return batch.reshape(rows.shape + batch.shape[1:])
        return self._read(rows)

    def _get_axes(self, key: tuple[Any, ...]) -> Any:
        """A key that may address every axis."""
        parts, rows_at = expanded(key, self.shape)
        rows = checked_rows(parts[rows_at], len(self))
        others = parts[:rows_at] + parts[rows_at + 1 :]
        if all(isinstance(part, slice) and part == slice(None) for part in others):
            return self._get_rows(rows)
        source = self._opened()
        if self.normalizer is None and not source.data.dtype.shape:
            parts[rows_at] = shifted(rows, self.start)
            return source.data[tuple(without_mixed_scalars(parts))]
        return self._get_from_whole_rows(parts, rows_at, rows)

    def _get_from_whole_rows(self, parts: list[Any], rows_at: int, rows: int | slice | np.ndarray) -> Any:
        """Normalize each needed row once, whole; then let numpy pick."""
        if isinstance(rows, int):
            batch, parts[rows_at] = self._read(slice(rows, rows + 1)), 0
        elif isinstance(rows, slice):
            batch, parts[rows_at] = self._read(rows), slice(None)
        else:
            needed, place = np.unique(rows, return_inverse=True)
            batch, parts[rows_at] = self._read(needed), place.reshape(rows.shape)
        picked = batch[tuple(parts)]
        return picked.copy() if isinstance(picked, np.ndarray) else picked  # a view would keep all of the batch alive

    def _get_field(self, name: str) -> np.ndarray:
        if self.dtype.names is None or name not in self.dtype.names:
            raise IndexError(f"no field {name!r} in rows of type {self.dtype}")
        rows: np.ndarray = self[...]
        return rows[name]

    def part(self, start: int = 0, end: int | None = None) -> HDF5Matrix:
        """The rows ``start`` to ``end`` of this matrix as a matrix of their own; nothing is read.

        They are row numbers of this matrix, ``0 <= start <= end <= len(self)``, and None means its last row. Raises
        ``IndexError`` for others, ``ValueError`` if the matrix is closed.
        """
        source = self._opened()
        start = operator.index(start)
        end = len(self) if end is None else operator.index(end)
        if not 0 <= start <= end <= len(self):
            raise IndexError(f"there are no rows {start} to {end} in {self!r}")
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__, start=self.start + start, end=self.start + end)
        if isinstance(source.owner, Lease):
            part._source = source._replace(owner=Lease(source.owner.shared))
        return part

    # Life cycle.

    def close(self) -> None:
        """Let go of the file; it is closed when no other matrix uses it. Reading afterwards raises ``ValueError``."""
        source, self._source = self._source, None
        if source is not None and isinstance(source.owner, Lease):
            source.owner.end()

    def __enter__(self) -> HDF5Matrix:
        """The matrix itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as path, name, range and normalizer; the copy opens the file again, in the same trust."""
        make = functools.partial(type(self), untrusted=True) if self._untrusted else type(self)
        return make, (self._path, self._name, self.start, self.end, self.normalizer)


def _as_numbers(what: str, value: Any) -> float | tuple[float, ...] | None:
    """One number, or a tuple of them: what can be hashed, compared and pickled."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "buif":
        raise TypeError(f"{what} must be a number or one number for each channel, not {value!r}")
    return array.item() if array.ndim == 0 else tuple(array.tolist())


def _checked_window(source: Source, start: int, end: int | None) -> tuple[int, int]:
    where = f"{source.name!r} of {source.path!r}"
    if not source.data.shape:
        raise ValueError(f"{where} has no rows: its shape is {source.data.shape}")
    rows = source.data.shape[0]
    start = operator.index(start)
    end = rows if end is None else operator.index(end)
    for bound, value in (("start", start), ("end", end)):
        if not 0 <= value <= rows:
            raise IndexError(f"{bound}={value} is out of bounds for {where} with {rows} rows")
    if start > end:
        raise ValueError(f"start={start} lies behind end={end}, for {where} with {rows} rows")
    return start, end
