"""What a field of a file that is written is: the shape and type of its rows, and how they are stored."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from h5fast.chunking import LARGEST_CHUNK, choose_rows
from h5fast.codec import Codec, Pipeline, resolve_codec
from h5fast.plugins import pipeline, register_plugins
from h5fast.sizes import format_bytes

__all__ = ["Recipe", "Spec", "lay_out"]


@dataclass(frozen=True)
class Spec:
    """A field of a file that :class:`Writer` writes.

    Parameters
    ----------
    shape:
        Of one row: ``(64, 64, 3)`` for images, ``()`` for labels.
    dtype:
        Of an element, anything that NumPy or h5py knows: ``"uint8"``, ``str`` (variable length), ``h5py.vlen_dtype("f4")``,
        compounds.
    chunk_rows:
        Rows of a chunk, which holds whole rows, or "auto": chosen from the size of a row, the codec and the access.
    codec:
        None, "lzf", "gzip" or ``("gzip", level)``, which every h5py reads; "zstd", "lz4", "blosc", "blosc2", "bitshuffle" or
        "bzip2", alone or with a level, or an object of hdf5plugin's, whose readers need that package. "auto" tries those that
        are installed on the first rows and takes what reads fastest for its size.
    shuffle:
        Whether to group the bytes of numbers by significance before they are compressed; None does so for numbers of
        several bytes and the codecs that gain from it.
    fletcher32:
        Whether each chunk gets a checksum, which readers verify.
    fillvalue:
        What HDF5 pads the last chunk with, and gives for rows that are added and never written. None is zero.
    attrs:
        Attributes of the dataset.

    Raises
    ------
    ValueError, TypeError
        A shape, type, number or codec that means nothing.
    ImportError
        The codec needs hdf5plugin, which is not installed.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    chunk_rows: int | str = "auto"
    codec: Any = "lzf"
    shuffle: bool | None = None
    fletcher32: bool = False
    fillvalue: Any = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, (int, np.integer)) else tuple(self.shape)
        if any(isinstance(length, bool) or operator.index(length) < 1 for length in shape):
            raise ValueError(f"the shape of a row has lengths of at least 1, not {self.shape}")
        object.__setattr__(self, "shape", tuple(map(int, shape)))
        dtype = h5py.string_dtype() if self.dtype is str else np.dtype(self.dtype)
        if dtype.kind == "U":
            raise TypeError(f"HDF5 has no type for {dtype}: dtype=str is text of any length, 'S{dtype.itemsize // 4}' of fixed length")
        if dtype.kind in "mM":
            raise TypeError(f"HDF5 has no type for {dtype}: store it as int64, with the unit in an attribute")
        if dtype == object and h5py.check_dtype(vlen=dtype) is None and h5py.check_dtype(ref=dtype) is None:
            raise TypeError("dtype=object says nothing of what is stored: h5py.string_dtype() or h5py.vlen_dtype(…) does")
        object.__setattr__(self, "dtype", dtype)
        if self.chunk_rows != "auto" and (isinstance(self.chunk_rows, (str, bool)) or operator.index(self.chunk_rows) < 1):
            raise ValueError(f"chunk_rows is a number of at least 1 or 'auto', not {self.chunk_rows!r}")
        if self.codec != "auto":
            self.resolved()

    @classmethod
    def like(cls, rows: ArrayLike, **options: Any) -> Spec:
        """A spec for rows such as these: `rows` is a batch of them, the first axis counts. `options` as for the class."""
        array = np.asarray(rows)
        if array.ndim == 0:
            raise ValueError("a batch of rows has at least one axis")
        dtype: Any = str if array.dtype.kind == "U" else array.dtype
        return cls(**{"shape": array.shape[1:], "dtype": dtype, **options})

    @classmethod
    def of(cls, dataset: h5py.Dataset, **changes: Any) -> Spec:
        """A spec for rows such as those of a dataset, stored as they are there: shape, type, chunk rows (of a chunked dataset
        whose chunks hold whole rows), filters and fill value. `changes` as for the class. Attributes are not taken over.

        Raises:
            ValueError: the dataset has no rows.
        """
        if not dataset.shape:
            raise ValueError(f"{dataset.name!r} has no rows: its shape is {dataset.shape}")
        properties = dataset.id.get_create_plist()
        chunks = dataset.chunks
        whole = chunks is not None and chunks[1:] == dataset.shape[1:]
        register_plugins(properties)
        filters = tuple((number, options) for number, options, _ in pipeline(properties))
        text = h5py.check_string_dtype(dataset.dtype)
        dtype: Any = str if text is not None and text.length is None and text.encoding == "utf-8" else dataset.dtype
        given = properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
        options: dict[str, Any] = {"shape": dataset.shape[1:], "dtype": dtype, "codec": Pipeline(filters),
                                   "chunk_rows": chunks[0] if whole else "auto", "fillvalue": dataset.fillvalue if given else None}
        if {"codec", "shuffle", "fletcher32"} & changes.keys() and "codec" not in changes:
            raise ValueError("shuffle and fletcher32 are part of the dataset's filters: say which codec they shall go with")
        return cls(**{**options, **changes})

    @property
    def element(self) -> np.dtype[Any]:
        """The type of an element."""
        return np.dtype(self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory; of variable lengths, of what refers to them."""
        return self.element.itemsize * int(np.prod(self.shape, dtype=object))

    def resolved(self) -> Codec:
        """The codec, where it is not "auto"."""
        return resolve_codec(self.codec, shuffle=self.shuffle, fletcher32=self.fletcher32, dtype=self.element)

    def with_codec(self, codec: Any) -> Spec:
        """The same with another codec."""
        return replace(self, codec=codec)


@dataclass(frozen=True)
class Recipe:
    """How a field is to be stored.

    Attributes:
        chunk_rows, codec: what it says
        rows_reason, codec_reason: why, for the attributes of the dataset
    """

    chunk_rows: int
    rows_reason: str
    codec: Codec
    codec_reason: str


def lay_out(name: str, spec: Spec, *, access: str, rows: int | None, most_bytes: int, codec_reason: str = "asked for") -> Recipe:
    """How a field is to be stored, in chunks of up to `most_bytes` where their size is not asked for.

    Raises:
        ValueError: a chunk would be larger than HDF5 can store.
    """
    codec = spec.resolved()
    if spec.chunk_rows == "auto":
        chunk_rows, reason = choose_rows(spec.row_bytes, compressed=codec.compresses, access=access, rows=rows,
                                         most_bytes=most_bytes)
        reason = f"auto, {access}: {reason}"
    else:
        chunk_rows, reason = int(spec.chunk_rows), "asked for"
        if rows is not None and chunk_rows > rows:  # HDF5 wants no chunk larger than the dataset can become
            chunk_rows, reason = max(1, rows), f"asked for {chunk_rows}, and there are {rows} rows"
    if chunk_rows * spec.row_bytes > LARGEST_CHUNK:
        raise ValueError(f"field {name!r}: a chunk of {chunk_rows} rows takes {format_bytes(chunk_rows * spec.row_bytes)}, and HDF5 "
                         "stores less than 4 GiB in one: take fewer chunk_rows, or split the rows into fields")
    return Recipe(chunk_rows, reason, codec, codec_reason)
