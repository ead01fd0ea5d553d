"""A field that the engine reads: what is in which file, and what becomes of a row. Made from metadata; nothing is read here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from h5fast import transform
from h5fast._feed import Column
from h5fast._selection import Selection, select
from h5fast.fields import Field
from h5fast.stored import Part

__all__ = ["EngineColumn", "Normalizer", "checked_crop", "engine_column"]

Normalizer = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class EngineColumn:
    """A field that the engine reads.

    Attributes:
        name: in the batches
        parts: its files
        stored: what the rows are in the files, cropped, and what becomes of them
        row: what is taken of a row
        normalizer: what the rows of a batch go through after that, in Python; or None
        file_rows: rows of each file; empty where there are no files
        normalized_bytes: bytes of a row that the normalizer gives
    """

    name: str
    parts: tuple[Part, ...]
    stored: transform.Transform
    row: Selection
    itemsize: int
    normalizer: Normalizer | None = None
    file_rows: tuple[int, ...] = ()
    normalized_bytes: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.parts[-1].first + self.parts[-1].rows

    @property
    def is_cast_by_engine(self) -> bool:
        """Whether the engine hands out rows as they are wanted; else they come as stored, and :meth:`finish` does the rest."""
        return self.stored.is_identity or self.stored.cast().fused

    @property
    def batch_dtype(self) -> np.dtype:
        """Type of what the engine fills."""
        return self.stored.dtype if self.is_cast_by_engine else self.stored.stored

    @property
    def batch_row_shape(self) -> tuple[int, ...]:
        """Shape of a row of what the engine fills."""
        return self.stored.out_row_shape if self.is_cast_by_engine else self.stored.row_shape

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored, cropped."""
        return self.stored.stored.itemsize * math.prod(self.stored.row_shape)

    @property
    def out_bytes(self) -> int:
        """Bytes of a row in a batch."""
        return self.batch_dtype.itemsize * math.prod(self.batch_row_shape)

    @property
    def finished_bytes(self) -> int:
        """Bytes of a row that :meth:`finish` makes, as far as can be told; 0 where there is nothing to do."""
        if self.finish is None:
            return 0
        made = 0 if self.is_cast_by_engine else self.stored.dtype.itemsize * math.prod(self.stored.out_row_shape)
        return max(made, self.normalized_bytes)

    def column(self, *, with_kept_chunks: bool = False) -> Column:
        """The engine's form of it, which keeps no rows yet.

        Args:
            with_kept_chunks: use the decoded chunks that the open file keeps, and keep some there: for reads that no order
                announces
        """
        cast = None if self.stored.is_identity or not self.is_cast_by_engine else self.stored.cast()
        parts = [(*part.chunks, part.first, part.rows, part.offset, part.kept if with_kept_chunks else None, _said(part.where))
                 for part in self.parts]
        return Column(parts, self.row, self.itemsize, self.row_bytes, self.out_bytes, cast)

    @property
    def finish(self) -> Normalizer | None:
        """What is left to do to the rows of a batch, in Python; None where nothing is."""
        if self.is_cast_by_engine:
            return self.normalizer
        return self._cast_by_numpy

    def _cast_by_numpy(self, rows: np.ndarray) -> Any:
        out = transform.output(self.stored, len(rows), None)
        self.stored.apply(rows, out)
        return out if self.normalizer is None else self.normalizer(out)

    def boundaries(self) -> np.ndarray:
        """First row of each group of rows that are decoded together, and the number of rows behind them."""
        firsts = []
        for part in self.parts:
            size = part.chunks[0].chunk[0]
            inner = np.arange(part.offset // size * size, part.offset + part.rows, size, dtype=np.int64) - part.offset
            firsts.append(np.maximum(inner, 0) + part.first)
        return np.concatenate([*firsts, [self.rows]])

    @property
    def is_decoded(self) -> bool:
        """Whether reading a row costs the decoding of its chunk."""
        return any(part.chunks[0].filter_count > 0 for part in self.parts)


def engine_column(name: str, field: Field, shape: tuple[int, ...], dtype: np.dtype, parts: tuple[Part, ...],
                  normalizer: Normalizer | None, file_rows: tuple[int, ...] = ()) -> EngineColumn:
    """The column of parts of datasets of this type; of the shape, all but the first axis counts.

    Raises:
        TypeError, ValueError: the field asks for what their rows cannot become.
    """
    crop = checked_crop(name, field, shape[1:])
    row = select((slice(0, 1), *crop), shape, True)
    wanted = transform.request(dtype, row.shape[1:], field.dtype, field.scale, field.offset, field.channels_first)
    return EngineColumn(name, parts, wanted, row, dtype.itemsize, normalizer, file_rows)


def checked_crop(name: str, field: Field, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """What a field takes of each axis of rows of this shape. Raises ``ValueError`` for what they do not have."""
    crop = tuple(field.crop or ())
    if len(crop) > len(shape):
        raise ValueError(f"field {name!r}: crop names {len(crop)} axes, and a row has {len(shape)}")
    found = []
    for axis, (part, size) in enumerate(zip(crop, shape)):
        if part is None:
            found.append(slice(None))
        elif isinstance(part, slice):
            if len(range(*part.indices(size))) == 0 or (part.step or 1) < 1:
                raise ValueError(f"field {name!r}: {part} takes nothing of the {size} on axis {axis} of a row, or backwards")
            found.append(part)
        else:
            length = int(part)
            if not 0 < length <= size:
                raise ValueError(f"field {name!r}: crop to {length} of the {size} on axis {axis} of a row")
            start = (size - length) // 2
            found.append(slice(start, start + length))
    return tuple(found)


def _said(text: str) -> Callable[[], str]:
    return lambda: text
