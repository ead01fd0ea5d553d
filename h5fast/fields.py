"""What a loader is asked to put into its batches: :class:`Field`, and how such requests may be written."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Field", "Request", "request"]


@dataclass(frozen=True)
class Field:
    """One field of the batches: which dataset it comes from, and what becomes of its rows on their way.

    Attributes
    ----------
    name:
        Name of the dataset in each file, or of the entry where the source is a mapping. With stars it is a pattern,
        ``"samples/*/image"``: rows are the datasets that match, in natural order (2 before 10) of what the stars, which stand
        for any part of one name, stand for. Fields with patterns must match the same. Samples of different shapes or types
        come as an object array of arrays.
    dtype, scale, offset, channels_first:
        ``row.astype(dtype) * scale + offset``, with the last axis moved to the front, as in :meth:`h5fast.Dataset.take`.
        ``dtype=str`` decodes strings into str, as h5py's ``Dataset.asstr()`` does; without it they come as h5py gives them,
        bytes in an object array, and so do rows of variable length: each is an array.
    crop:
        What is taken of each axis of a row, in the order in which they are stored: a slice, a length (from the middle), or
        None for all of it. Axes that are not mentioned are taken whole. Only the chunks that the crop touches are read.
    layout:
        ``"csr"``: the dataset is a group with ``data``, ``indices`` and ``indptr`` and an attribute ``shape``, as AnnData
        writes them, and batches are ``scipy.sparse.csr_matrix`` (needs scipy). `dtype` and `scale` are the values'.
        ``"encoded"``: `name` is a group of image files as ``h5fast.pack(layout="encoded")`` makes it ("/" for the whole file), and
        batches are the images, decoded by native threads: uint8 of shape (n, height, width, channels), before `dtype` and the
        like (needs Pillow; JPEG without a `size` is twice as fast with simplejpeg).
    size, mode:
        Of the images of layout ``"encoded"``: the (height, width) that each is scaled to, which may be left out where all have
        one; and what pixels are, in Pillow's words: "RGB", "L", "RGBA" …
    window, stride:
        A row is `window` consecutive entries of the dataset, the next row starts `stride` (by default `window`) further:
        row i is ``dataset[i * stride : i * stride + window]``. Windows do not reach from one file into the next; what is
        left over at the end of a file is left out. Such a row has one axis more, in front: `crop` counts it as the first,
        `channels_first` puts the last axis before it, (time, channels) becomes (channels, time). Windows that neither overlap
        nor cross the chunks are read as fast as plain rows.
    """

    name: str
    dtype: DTypeLike | None = None
    scale: float | Sequence[float] | np.ndarray[Any, Any] | None = None
    offset: float | Sequence[float] | np.ndarray[Any, Any] | None = None
    channels_first: bool = False
    crop: Sequence[slice | int | None] | None = None
    layout: str | None = None
    window: int | None = None
    stride: int | None = None
    size: tuple[int, int] | None = None
    mode: str = "RGB"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"the name of a field must be the name of a dataset, not {self.name!r}")
        if self.layout not in (None, "csr", "encoded"):
            raise ValueError(f"field {self.name!r}: layout must be 'csr', 'encoded' or None, not {self.layout!r}")
        if self.layout != "encoded" and (self.size is not None or self.mode != "RGB"):
            raise ValueError(f"field {self.name!r}: size and mode are of images: they need layout='encoded'")
        if self.size is not None and not (len(self.size) == 2 and all(isinstance(side, numbers.Integral) and side > 0 for side in self.size)):
            raise ValueError(f"field {self.name!r}: size must be (height, width), not {self.size!r}")
        for what, value in (("window", self.window), ("stride", self.stride)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1):
                raise ValueError(f"field {self.name!r}: {what} must be a whole number of at least 1, not {value!r}")
        if self.crop is not None and (isinstance(self.crop, str) or not isinstance(self.crop, Sequence)):
            raise TypeError(f"field {self.name!r}: crop is a sequence with a slice, a length or None for each axis of a row, "
                            f"not {self.crop!r}")
        if self.stride is not None and self.window is None:
            raise ValueError(f"field {self.name!r}: stride says how windows follow each other, and there is no window")
        if self.layout is not None and (self.window is not None or self.crop is not None):
            raise ValueError(f"field {self.name!r}: rows of layout {self.layout!r} have no window or crop")
        if self.layout == "csr" and self.channels_first:
            raise ValueError(f"field {self.name!r}: rows of layout 'csr' have no channels")


@dataclass(frozen=True)
class Request:
    """The fields of the batches, and the form of a batch.

    Attributes:
        fields: by the names that they have in the batches, in order
        form: "dict"; "tuple"; "single" for the bare array of the one field
    """

    fields: Mapping[str, Field]
    form: str


def request(fields: Any, available: Sequence[str] | None) -> Request:
    """The fields as they may be written: a name or :class:`Field`, a sequence of them, or a mapping of names to them.

    Args:
        fields: what was asked for; None asks for all that are ``available``
        available: names of a mapping that serves as source; None where files do

    Raises:
        TypeError, ValueError: they are written in another way, or name nothing.
    """
    if fields is None:
        if available is None:
            raise TypeError("fields must say which datasets make a batch: fields=('image', 'label')")
        fields = tuple(available)
    if isinstance(fields, (str, Field)):
        return Request({_name(fields): _field(fields)}, "single")
    if isinstance(fields, Mapping):
        return Request({str(name): _field(field) for name, field in fields.items()}, _checked("dict", fields))
    if isinstance(fields, Sequence):
        named: dict[str, Field] = {}
        for field in fields:
            name, number = _name(field), 2
            while name in named:  # the same dataset twice, treated in two ways
                name, number = f"{_name(field)} ({number})", number + 1
            named[name] = _field(field)
        return Request(named, _checked("tuple", fields))
    raise TypeError(f"fields must be names of datasets, not {fields!r}")


def _checked(form: str, fields: Any) -> str:
    if not len(fields):
        raise ValueError("fields is empty: which datasets make a batch?")
    return form


def _name(field: Any) -> str:
    return field.name if isinstance(field, Field) else str(field)


def _field(field: Any) -> Field:
    if isinstance(field, Field):
        return field
    if isinstance(field, str):
        return Field(field)
    raise TypeError(f"a field is the name of a dataset or an h5fast.Field, not {field!r}")
