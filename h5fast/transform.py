"""What ``take`` does to rows on their way out: cast, scale, offset, last axis first. Checks the request, and applies it
with NumPy where the engine has no kernel for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast._blocks import empty
from h5fast._cast import Cast

__all__ = ["Transform", "request", "output"]


@dataclass(frozen=True, slots=True)
class Transform:
    """``out = row.astype(dtype) * scale + offset``, then the last axis moved to the front of the row.

    Attributes:
        stored: type of the numbers in the file; of elements that are arrays, that of what they hold
        dtype: type of the output
        row_shape: shape of a row of the file, axes of the element type included
        scale, offset: arrays of ``dtype`` with one value or one per channel (last axis), or None
        channels_first: whether the last axis is moved
    """

    stored: np.dtype
    dtype: np.dtype
    row_shape: tuple[int, ...]
    scale: np.ndarray | None
    offset: np.ndarray | None
    channels_first: bool

    @property
    def is_identity(self) -> bool:
        """Whether rows leave as they are stored."""
        return self.stored == self.dtype and self.scale is None and self.offset is None and not self.moves_axis

    @property
    def moves_axis(self) -> bool:
        """Whether the last axis of a row goes to its front; a row of one axis has nothing to move."""
        return self.channels_first and len(self.row_shape) > 1

    @property
    def out_row_shape(self) -> tuple[int, ...]:
        """Shape of a row of the output."""
        if self.moves_axis:
            return (self.row_shape[-1], *self.row_shape[:-1])
        return self.row_shape

    def cast(self) -> Cast:
        """The engine's form of it."""
        return Cast(self.stored, self.dtype, self.row_shape, self.scale, self.offset, self.moves_axis)

    def apply(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Does it to ``rows``, shape (n, *row_shape), into ``out``, with the engine's arithmetic."""
        values = rows.astype(self.dtype)
        if self.scale is not None:
            values = values * self.scale
        if self.offset is not None:
            values = values + self.offset
        out[...] = np.moveaxis(values, -1, 1) if self.moves_axis else values


def request(stored: np.dtype, row_shape: tuple[int, ...], dtype: Any, scale: Any, offset: Any,
            channels_first: bool) -> Transform:
    """Checks what ``take`` was asked for.

    Raises:
        TypeError: scale or offset for an output that is not floating, or elements or factors that are no numbers.
        ValueError: scale or offset that is neither one number nor one per channel.
    """
    arithmetic = scale is not None or offset is not None
    if stored.subdtype is not None:
        stored, inner = stored.subdtype
        row_shape = row_shape + inner
    if dtype is not None:
        target = np.dtype(dtype)
    elif arithmetic and stored.kind in "iub":
        target = np.dtype(np.float32)
    else:
        target = stored
    if arithmetic and stored.kind not in "iubfc":
        raise TypeError(f"scale and offset need numbers, and the rows of this dataset are {_in_words(stored)}")
    if arithmetic and target.kind not in "fc":
        raise TypeError(f"scale and offset need a floating output, not {target}: pass dtype='float32'")
    channels = row_shape[-1] if row_shape else 1
    return Transform(stored, target, row_shape, _values("scale", scale, target, channels),
                     _values("offset", offset, target, channels), bool(channels_first))


def _in_words(dtype: np.dtype) -> str:
    text = h5py.check_string_dtype(dtype) is not None or dtype.kind in "SU"
    return "strings" if text else f"of type {dtype}"


def _values(name: str, value: Any, dtype: np.dtype, channels: int) -> np.ndarray | None:
    if value is None:
        return None
    given = np.asarray(value)
    if given.dtype.kind not in ("iubfc" if dtype.kind == "c" else "iubf"):
        raise TypeError(f"{name} must be one number or one for each of the {channels} channels (the last axis), of a kind "
                        f"that {dtype} can hold, not {value!r}")
    array = np.ascontiguousarray(np.atleast_1d(given).astype(dtype))
    if array.ndim != 1 or array.size not in (1, channels):
        raise ValueError(f"{name} must be one number or one for each of the {channels} channels (the last axis), "
                         f"not an array of shape {np.shape(value)}")
    return array


def output(transform: Transform, count: int, out: np.ndarray | None) -> np.ndarray:
    """The array to read into: a new one, or ``out`` if it fits.

    Raises:
        ValueError, TypeError: ``out`` has another shape or type, is not C-contiguous or not writeable.
    """
    shape = (count, *transform.out_row_shape)
    if out is None:
        return empty(shape, transform.dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.dtype != transform.dtype:
        raise TypeError(f"out has dtype {out.dtype}, the rows have {transform.dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, the rows have {shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be C-contiguous and writeable")
    return out
