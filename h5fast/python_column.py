"""A field whose rows are read in Python: what only HDF5 decodes, rows of variable length, strings, and arrays.

HDF5 reads under a lock and one chunk at a time, so rows that fit the memory are kept; see :mod:`h5fast.kept_rows`. Of rows
whose size the metadata do not tell, a few are read when the loader is made.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast import transform
from h5fast._selection import select
from h5fast.costs import Costs
from h5fast.engine_column import Normalizer, checked_crop
from h5fast.errors import CorruptChunkError, H5FastError
from h5fast.fields import Field
from h5fast.kept_rows import Keeper, KeptRows, block_starts, rows_per_block, size_of
from h5fast.sources import Source

__all__ = ["PythonColumn", "Reads", "across", "array_column", "dataset_column", "is_filtered", "is_text", "naming", "sampled_row_bytes",
           "text_decoder"]

Reads = Callable[[np.ndarray], Any]
"""Gives rows: int64, in any order."""

# Rows whose size is looked at where it is not the same for all.
_SAMPLE = 32
# Where a row of unknown size cannot be read, it is taken to have this many bytes; whoever needs it will see the error.
_UNKNOWN_ROW = 64


@dataclass(frozen=True)
class PythonColumn:
    """A field whose rows are read in Python.

    Attributes:
        name: in the batches
        rows: number of rows
        read: gives these rows (int64, in any order), as they go into the batch
        row_bytes: bytes of a row in a batch, as far as can be told
        form: what a row is, for messages and comparisons
        file_rows: rows of each file; empty where there are no files
        batch_bytes: most bytes that a batch of so many rows has, where row_bytes does not tell
        work_bytes: bytes that making a batch of so many rows takes beside the batch, while it is made
        keeper: what may keep rows in memory
        join: puts batches of rows one after the other
        parts: what counts the costs of each dataset behind it
        shares_chunks: whether reading more rows at once means decoding less for each
    """

    name: str
    rows: int
    read: Reads
    row_bytes: int
    form: str
    file_rows: tuple[int, ...] = ()
    batch_bytes: Callable[[int], int] | None = None
    work_bytes: Callable[[int], int] | None = None
    keeper: Keeper | None = None
    join: Callable[[list[Any]], Any] = np.concatenate
    parts: tuple[Costs, ...] = ()
    shares_chunks: bool = False

    def begin_epoch(self) -> None:
        """Starts counting anew."""
        for part in self.parts:
            part.begin_epoch()

    def costs(self) -> tuple[int, int, int]:
        """(chunks that the epoch took a row of, chunks decoded, bytes read) so far."""
        chunks, decodes, nbytes = np.sum([part.costs() for part in self.parts] or [(0, 0, 0)], axis=0).tolist()
        return chunks, decodes, nbytes

    def bytes_of(self, batch: int) -> int:
        """Bytes of a batch of so many rows, as far as can be told."""
        return batch * self.row_bytes if self.batch_bytes is None else self.batch_bytes(batch)

    def fetch_bytes(self, rows: int) -> int:
        """Bytes that reading so many rows at once takes, and what is read, as far as can be told."""
        return self.bytes_of(rows) + (self.bytes_of(rows) if self.work_bytes is None else self.work_bytes(rows)) + 16 * rows


def dataset_column(name: str, field: Field, opened: list[Source], normalizer: Normalizer | None, start: int = 0,
                   count: int | None = None) -> PythonColumn:
    """Rows of datasets that the engine cannot read, one after the other, through their readers; from `start` on."""
    data = [one.data for one in opened]
    finish, form, row_bytes = _finishing(name, field, data[0])
    lengths = [d.shape[0] for d in data]
    chunk_starts = block_starts(lengths, [d.chunks[0] if d.chunks else max(1, d.shape[0]) for d in data])
    costs = Costs(len(chunk_starts) - 1, across(data[0]), is_decoded=any(is_filtered(d) for d in data))
    raw = _raw_reads(opened, checked_crop(name, field, data[0].shape[1:]), start, costs)
    rows = sum(lengths) - start if count is None else count
    if row_bytes is None:
        row_bytes = sampled_row_bytes(raw, rows)

    kept_form = finish if is_text(field.dtype) else None  # text is decoded once; numbers are small before they are cast

    def read_kept(wanted: np.ndarray) -> np.ndarray:
        taken = raw(wanted)
        return taken if kept_form is None else kept_form(taken)

    keeper = None
    if all(d.file.mode == "r" and not d.file.swmr_mode for d in data):
        starts = _within(block_starts(lengths, [rows_per_block(d.chunks[0] if d.chunks else 1) for d in data]), start, rows)
        keeper = KeptRows(read_kept, starts, rows * row_bytes, copies=data[0].dtype == object and finish is None)

    def read(wanted: np.ndarray) -> Any:
        costs.touch(np.searchsorted(chunk_starts, wanted + start, side="right") - 1)
        out = read_kept(wanted) if keeper is None else keeper(wanted)
        if finish is not None and finish is not kept_form:
            out = finish(out)
        return out if normalizer is None else normalizer(out)

    return PythonColumn(name, rows, read, row_bytes, form, tuple(lengths) if count is None else (), keeper=keeper,
                        parts=(costs,), shares_chunks=data[0].dtype != object and any(is_filtered(d) for d in data))


def is_filtered(data: h5py.Dataset) -> bool:
    """Whether there is something to decode; of a virtual dataset or one in pieces of other files that is not known."""
    return data.chunks is not None and data.id.get_create_plist().get_nfilters() > 0


def across(data: h5py.Dataset) -> int:
    """Chunks that hold one row."""
    return math.prod(-(-extent // size) for extent, size in zip(data.shape[1:], data.chunks[1:])) if data.chunks else 1


def _within(starts: np.ndarray, first: int, rows: int) -> np.ndarray:
    """Starts of blocks, of a range of the rows."""
    inner = starts[(starts > first) & (starts < first + rows)] - first
    return np.concatenate([[0], inner, [rows]]).astype(np.int64)


def _finishing(name: str, field: Field, data: h5py.Dataset) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str, int | None]:
    """What becomes of rows that were read, None where nothing does; what they are then; bytes of one, None if they differ."""
    crop = checked_crop(name, field, data.shape[1:])
    shape = select((slice(0, 1), *crop), data.shape, True).shape[1:]
    if is_text(field.dtype):
        _refuse_arithmetic(name, field)
        return text_decoder(name, data.dtype), f"str {shape}", None
    if data.dtype == object:
        if field.dtype is not None:
            raise TypeError(f"field {name!r}: rows are {_in_words(data.dtype)}, which have no dtype {field.dtype!r}; "
                            "dtype=str decodes strings, dtype=None leaves rows as h5py gives them")
        _refuse_arithmetic(name, field)
        return None, f"{_in_words(data.dtype)} {shape}", None
    wanted = transform.request(data.dtype, shape, field.dtype, field.scale, field.offset, field.channels_first)
    form = f"{wanted.dtype} {wanted.out_row_shape}"
    row_bytes = max(wanted.dtype.itemsize, wanted.stored.itemsize) * math.prod(wanted.out_row_shape)
    return None if wanted.is_identity else transform_of(wanted), form, row_bytes


def transform_of(wanted: transform.Transform) -> Callable[[np.ndarray], np.ndarray]:
    """The transform as a function of an array of rows."""

    def apply(rows: np.ndarray) -> np.ndarray:
        out = transform.output(wanted, len(rows), None)
        wanted.apply(rows, out)
        return out

    return apply


def is_text(dtype: Any) -> bool:
    """Whether a field's dtype asks for strings as str: ``str``, ``"str"`` or ``"U"``."""
    if dtype is None or isinstance(dtype, np.dtype) and dtype.kind != "U":
        return False
    found = np.dtype(dtype)
    return bool(found.kind == "U" and found.itemsize == 0)


def text_decoder(name: str, dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """A function that decodes an array of strings as ``Dataset.asstr()`` does, into an array of str.

    Raises:
        TypeError: these are no strings.
    """
    info = h5py.check_string_dtype(dtype)
    if info is None:
        raise TypeError(f"field {name!r}: dtype=str decodes strings, and its rows are {_in_words(dtype)}")

    def decode(rows: np.ndarray) -> np.ndarray:
        out = np.empty(rows.shape, object)
        for place, value in enumerate(rows.flat):
            out.flat[place] = value.decode(info.encoding, "strict")
        return out

    return decode


def _refuse_arithmetic(name: str, field: Field) -> None:
    if field.scale is not None or field.offset is not None or field.channels_first:
        raise TypeError(f"field {name!r}: scale, offset and channels_first need rows of numbers of one shape")


def _in_words(dtype: np.dtype) -> str:
    if h5py.check_string_dtype(dtype) is not None:
        return "strings"
    if h5py.check_vlen_dtype(dtype) is not None:
        return f"arrays of variable length of {h5py.check_vlen_dtype(dtype)}"
    return "references" if h5py.check_ref_dtype(dtype) is not None else str(dtype)


def _raw_reads(opened: list[Source], crop: tuple[slice, ...], start: int, costs: Costs) -> Callable[[np.ndarray], np.ndarray]:
    """Rows as they are stored, counted; an opened dataset keeps its file open."""
    lengths = [one.data.shape[0] for one in opened]
    ends = np.cumsum(lengths)

    def take(number: int, rows: np.ndarray) -> np.ndarray:
        dataset = opened[number].data
        local = rows - (ends[number] - lengths[number])
        with naming(opened[number].path, dataset.name):
            taken = np.asarray(dataset[(local, *crop)] if crop else dataset.take(local))
        costs.add(len(np.unique(local // dataset.chunks[0])) * across(dataset) if dataset.chunks else 0, size_of(taken))
        return taken

    def read(rows: np.ndarray) -> np.ndarray:
        rows = rows + start
        owner = np.searchsorted(ends, rows, side="right")
        used = np.unique(owner)
        if len(used) == 1:
            return take(int(used[0]), rows)
        if len(used) == 0:
            return take(0, rows)
        pieces = {int(number): np.flatnonzero(owner == number) for number in used}
        taken = {number: take(number, rows[at]) for number, at in pieces.items()}
        sample = next(iter(taken.values()))
        out = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
        for number, at in pieces.items():
            out[at] = taken[number]
        return out

    return read


@contextlib.contextmanager
def naming(path: str, name: str) -> Iterator[None]:
    """What HDF5 says of data that do not decode, as the engine would say it. Where the system failed, there is an errno."""
    try:
        yield
    except H5FastError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise CorruptChunkError(f"{path}, dataset {name!r}: {error}") from error


def sampled_row_bytes(read: Callable[[np.ndarray], np.ndarray], rows: int) -> int:
    """Bytes of a row, with a quarter more, going by a few anywhere."""
    if rows == 0:
        return _UNKNOWN_ROW
    picked = np.unique(np.random.default_rng(0).integers(0, rows, _SAMPLE))
    try:
        return max(_UNKNOWN_ROW, size_of(read(picked)) * 5 // (4 * len(picked)))
    except (OSError, RuntimeError, ValueError):  # H5FastError is one of the latter two's kin, or of the first
        return _UNKNOWN_ROW


def array_column(name: str, field: Field, array: np.ndarray) -> PythonColumn:
    """Rows of an array in memory."""
    crop = checked_crop(name, field, array.shape[1:])
    array = array[(slice(None), *crop)]
    if is_text(field.dtype) and array.dtype.kind == "S":
        decode = text_decoder(name, array.dtype)
        return PythonColumn(name, len(array), lambda rows: decode(array[rows]), array.dtype.itemsize + _UNKNOWN_ROW,
                            f"str {array.shape[1:]}")
    wanted = transform.request(array.dtype, array.shape[1:], field.dtype, field.scale, field.offset, field.channels_first)
    convert = None if wanted.is_identity else transform_of(wanted)

    def read(rows: np.ndarray) -> np.ndarray:
        taken = array[rows]
        return taken if convert is None else convert(taken)

    row_bytes = wanted.dtype.itemsize * math.prod(wanted.out_row_shape)
    return PythonColumn(name, len(array), read, row_bytes, f"{wanted.dtype} {wanted.out_row_shape}")
