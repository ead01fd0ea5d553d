"""Which bytes a dataset is, as a file.

============================================================  ==========================================================
one axis of uint8, an opaque scalar, one axis of opaque bytes  these bytes
numbers, booleans, records, enums, of any other shape          a ``.npy`` file of the array, or with ``raw`` its elements alone
a string                                                       its bytes
an array of strings                                            each, with a newline behind it
a scalar of variable length, of uint8                          its bytes
a null dataspace                                               no bytes
references, other types of variable length, types unknown      none: ``UnsupportedError``
============================================================  ==========================================================
"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast import layout
from h5fast.errors import UnsupportedError
from h5fast.opened import describe, index_of

__all__ = ["Content", "Stored", "examine", "head_of", "read_all", "read_range", "stored_as"]

# Rows up to this size are read whole where a range of bytes begins or ends in them.
_WHOLE_ROW = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a dataset is as a file.

    Attributes:
        form: "bytes", "array", "text" or "nothing"
        size: bytes, without the head; None for text, whose size only reading tells
        head: what a ``.npy`` file begins with; b"" for all but arrays
    """

    form: str
    size: int | None
    head: bytes


@dataclass(frozen=True)
class Stored:
    """Where the bytes of a dataset lie, as a row of chunks one behind the other.

    Attributes:
        filters: (id, cd_values) in the order of writing
        itemsize: bytes of an element
        chunk_bytes: bytes of a decoded chunk
        chunks: (address, stored bytes, filter mask) of each; address 0 where nothing is stored and zeros are meant
    """

    filters: tuple[tuple[int, tuple[int, ...]], ...]
    itemsize: int
    chunk_bytes: int
    chunks: list[tuple[int, int, int]]


def examine(dataset: h5py.Dataset) -> Content:
    """What the dataset is as a file. Reads metadata only.

    Raises:
        UnsupportedError: it has no bytes that would mean something elsewhere.
    """
    try:
        dtype, shape = dataset.dtype, dataset.shape
    except TypeError as error:
        raise UnsupportedError(f"its type is not one that NumPy has ({error})") from error
    if shape is None:
        return Content("nothing", 0, b"")
    if h5py.check_string_dtype(dtype) is not None:
        return Content("text", None, b"")
    if shape == () and h5py.check_vlen_dtype(dtype) == np.dtype("u1"):
        return Content("text", None, b"")
    if dtype.hasobject:
        raise UnsupportedError(f"its elements, {_named(dtype)}, mean nothing outside of its file")
    count = math.prod(shape)
    is_opaque = dtype.kind == "V" and dtype.names is None and dtype.subdtype is None
    is_row = len(shape) == 1 and dtype.itemsize == 1 and (is_opaque or dtype == np.dtype("u1"))
    if is_row or (is_opaque and shape == ()):
        return Content("bytes", count * dtype.itemsize, b"")
    return Content("array", count * dtype.itemsize, _npy_head(dtype, shape))


@functools.lru_cache(1024)
def head_of(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What comes before the elements of a dataset of plain numbers: nothing for one axis of uint8, else a ``.npy`` head."""
    return b"" if dtype == np.dtype("u1") and len(shape) == 1 else _npy_head(dtype, shape)


def _named(dtype: np.dtype) -> str:
    if h5py.check_ref_dtype(dtype) is not None:
        return "references"
    return "of variable length" if h5py.check_vlen_dtype(dtype) is not None else f"of type {dtype}"


def _npy_head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    plain = _without_metadata(dtype)
    if plain.subdtype is not None:
        plain, inner = plain.subdtype
        shape += inner
    about = {"descr": np.lib.format.dtype_to_descr(plain), "fortran_order": False, "shape": shape}
    out = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(out, about)
    except ValueError:  # a record of very many fields
        out = io.BytesIO()
        np.lib.format.write_array_header_2_0(out, about)
    return out.getvalue()


def _without_metadata(dtype: np.dtype) -> np.dtype:
    """The type without what h5py notes in it (enums, for example), of which NumPy warns where it is written."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_without_metadata(base), shape))
    if dtype.names is None:
        return np.dtype(dtype.str)
    fields = [dtype.fields[name] for name in dtype.names] if dtype.fields is not None else []
    return np.dtype({"names": list(dtype.names), "formats": [_without_metadata(field[0]) for field in fields],
                     "offsets": [field[1] for field in fields], "itemsize": dtype.itemsize})


def stored_as(dataset: h5py.Dataset, content: Content) -> Stored | None:
    """Where the content lies, if it is a row of chunks that the engine decodes; None where HDF5 or the dataset's reader has
    to put it together.

    Raises:
        CorruptFileError: the chunk index contradicts itself.
    """
    if content.form not in ("bytes", "array"):
        return None
    try:
        found = describe(dataset)
    except (layout.Indirect, layout.Virtual):
        return None
    if not content.size:
        return Stored((), 1, 1, [])
    if found.kind == "contiguous" and found.address is not None:
        return Stored((), found.dtype.itemsize, content.size, [(found.address, content.size, 0)])
    # Chunks that are as wide as the dataset follow one another; elements that were never written must be zeros.
    if found.chunk is None or found.chunk[1:] != found.shape[1:] or any(found.fill):
        return None
    index = index_of(dataset.id, found)
    chunks = [(0, 0, 0)] * -(-found.shape[0] // found.chunk[0])
    for number, address, size, mask in index.entries():
        chunks[number] = address, size, mask
    if found.raw_edges and found.shape[0] % found.chunk[0] and chunks[-1][0]:
        chunks[-1] = (*chunks[-1][:2], 2**32 - 1)  # the last one went through no filter
    return Stored(found.filters, found.dtype.itemsize, math.prod(found.chunk) * found.dtype.itemsize, chunks)


def read_all(dataset: h5py.Dataset, content: Content) -> bytes:
    """The content, without the head, through the dataset's own reader."""
    if content.form == "nothing":
        return b""
    if content.form != "text":
        return _elements(dataset, ())
    value: Any = dataset[()]
    if dataset.shape != ():
        return b"".join(bytes(item) + b"\n" for item in value.reshape(-1).tolist())
    return bytes(value) if isinstance(value, bytes) else np.asarray(value).tobytes()


def _elements(dataset: h5py.Dataset, selection: tuple[int | slice, ...]) -> bytes:
    """The selected elements, in the byte order that the head names: a single number comes from h5py in the machine's."""
    value = np.asarray(dataset[selection])
    return (value if dataset.dtype.subdtype is not None else value.astype(dataset.dtype, copy=False)).tobytes()


def read_range(dataset: h5py.Dataset, start: int, stop: int) -> bytes:
    """The bytes ``[start, stop)`` of the elements of a dataset of the form "bytes" or "array"; of others, ``read_all``.

    Reads whole rows of up to 1 MiB, and so the chunks that these lie in.
    """
    if stop <= start:
        return b""
    parts: list[bytes] = []
    _add_range(dataset, (), dataset.shape, start, stop, parts)
    return b"".join(parts)


def _add_range(dataset: h5py.Dataset, prefix: tuple[int, ...], shape: tuple[int, ...], start: int, stop: int,
               parts: list[bytes]) -> None:
    if not shape:
        parts.append(_elements(dataset, prefix)[start:stop])
        return
    row = math.prod(shape[1:]) * dataset.dtype.itemsize
    first, last = start // row, -(-stop // row)
    if len(shape) == 1 or row <= _WHOLE_ROW:
        block = _elements(dataset, (*prefix, slice(first, last)))
        parts.append(block[start - first * row : stop - first * row])
        return
    for number in range(first, last):
        from_here, to_here = max(start - number * row, 0), min(stop - number * row, row)
        _add_range(dataset, (*prefix, number), shape[1:], from_here, to_here, parts)
