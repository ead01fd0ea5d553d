"""``h5fast verify``: every chunk of every dataset is read and decoded, and those that cannot be are told with their places.

Chunks that the engine decodes are checked by its threads, at their speed, and nothing is kept of them; what only HDF5 reads is
read through it. Checksums are checked where chunks have them; without one, damage may decode to something.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from h5fast import _spans, info, layout
from h5fast._storage import Storage
from h5fast.errors import CorruptFileError, H5FastError
from h5fast.objects import Dataset
from h5fast.opened import OpenFile, describe, index_of, open_file, registered
from h5fast.threads import get_num_threads

__all__ = ["Verified", "validate", "verify_file"]

# Decoded bytes and chunks between two looks at the progress.
_BATCH_BYTES = 64 << 20
_BATCH_CHUNKS = 1 << 16
_LEAST_CHUNKS = 16  # a thread
# Data without chunks are read in pieces of this size.
_PIECE_BYTES = 1 << 20


@dataclass
class Verified:
    """What came of it.

    Attributes:
        datasets, chunks, nbytes: how many were read, and their stored bytes
        damage: one line for each thing that cannot be read, with file, dataset, chunk and file offset
        refused: one line for each dataset that was not looked at, since only libhdf5 reads it and the file is untrusted
    """

    datasets: int = 0
    chunks: int = 0
    nbytes: int = 0
    damage: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def validate(path: str | os.PathLike[str]) -> Verified:
    """Reads a file that nobody vouches for, from the first byte of its metadata to the last chunk, and returns if all is well.

    libhdf5 parses the file in another process, as for ``File(path, untrusted=True)``; every dataset that h5fast decodes itself is
    read and decoded. The result's ``refused`` lists the others, of which nothing was read. It has no ``damage``.

    Raises:
        CorruptFileError: something cannot be read, with the first thing that cannot and how many there are.
        OSError: there is no such file, or it must not be read.
    """
    done = verify_file(os.fspath(path), untrusted=True)
    if done.damage:
        more = f" (and {len(done.damage) - 1} more)" if len(done.damage) > 1 else ""
        raise CorruptFileError(errno.EIO, f"{done.damage[0]}{more}")
    return done


def verify_file(path: str, name: str | None = None, *, untrusted: bool = False,
                report: Callable[[Verified], None] | None = None) -> Verified:
    """Reads everything in a file, or all at and below an object of it.

    Args:
        untrusted: have another process parse it, and read only what h5fast decodes itself
        report: called now and then with what was read so far

    Raises:
        OSError, KeyError: the file cannot be opened, or has no such object.
    """
    done = Verified()
    with info.open_file(path, untrusted=untrusted) as file:
        for found in info.dataset_names(file, path, name, done.damage):
            where = f"{path}: dataset {found!r}"
            try:
                dataset = file[info.name_key(found)]
            except (H5FastError, *info.UNREADABLE) as error:
                done.damage.append(f"{where}: {error}")
                continue
            if isinstance(dataset, Dataset):
                done.datasets += 1
                _verify_dataset(dataset, where, done, report)
    return done


def _verify_dataset(dataset: Dataset, where: str, done: Verified, report: Callable[[Verified], None] | None) -> None:
    try:
        found = describe(dataset)
        opened = open_file(layout.file_of(dataset.id))
        spans, corners = _spans_of(dataset, found)
    except (layout.Indirect, layout.Virtual) as reason:
        behind = registered(dataset)
        if behind is None or behind.lets_libhdf5_read(dataset):
            _read_by_hdf5(dataset, where, done, report)
        else:
            done.refused.append(f"{where}: {reason}")
        return
    except (H5FastError, *info.UNREADABLE) as error:
        done.damage.append(f"{where}: {error}")
        return
    if spans is None:
        _read_by_hdf5(dataset, where, done, report)
        return
    storage = Storage((), (), found.dtype.itemsize, found.filters)
    for first, last in _batches(spans):
        batch = spans[first:last]
        for number in _spans.check(opened.source, (storage,), batch, get_num_threads()).tolist():
            corner = None if corners is None else corners(first + number)
            done.damage.append(_reason(opened, storage, batch[number : number + 1], where, corner))
        done.chunks += len(batch)
        done.nbytes += int((batch["stored"] if found.chunk is not None else batch["length"]).sum())
        if report is not None:
            report(done)
    changed = opened.source.changed()
    if changed:
        done.damage.append(f"{where}: the file changed while it was read: {changed}")


def _spans_of(dataset: Dataset, found: layout.Layout) -> tuple[np.ndarray | None, Callable[[int], tuple[int, ...]] | None]:
    """The spans of all that is stored, and which element each chunk begins with; None where it lies in the header."""
    if found.kind == "compact":
        return None, None
    if found.chunk is None:
        size = math.prod(found.shape) * found.dtype.itemsize
        pieces = np.zeros(-(-size // _PIECE_BYTES) if found.address is not None else 0, _spans.SPAN)
        pieces["address"], pieces["stored"], pieces["chunk_bytes"] = found.address or 0, size, max(size, 1)
        pieces["first"] = np.arange(len(pieces)) * _PIECE_BYTES
        pieces["length"] = np.minimum(_PIECE_BYTES, size - pieces["first"].astype(np.int64))
        return pieces, None
    entries = index_of(dataset.id, found).table()
    chunk, grid = found.chunk, tuple(-(-extent // size) for extent, size in zip(found.shape, found.chunk))
    spans = np.zeros(len(entries), _spans.SPAN)
    for name, column in (("address", 1), ("stored", 2), ("mask", 3)):
        spans[name] = entries[:, column]
    numbers = entries[:, 0].astype(np.int64)
    size = math.prod(chunk) * found.dtype.itemsize
    spans["chunk_bytes"] = spans["length"] = size
    if found.raw_edges and len(entries):
        places = np.unravel_index(numbers, grid)
        edge = np.logical_or.reduce([(place + 1) * n > extent for place, n, extent in zip(places, chunk, found.shape)])
        spans["mask"][edge] = 2**32 - 1

    def corner(place: int) -> tuple[int, ...]:
        return tuple(int(at) * n for at, n in zip(np.unravel_index(int(numbers[place]), grid), chunk))

    return spans, corner


def _batches(spans: np.ndarray) -> Iterator[tuple[int, int]]:
    first = 0
    step = min(_BATCH_CHUNKS, _BATCH_BYTES // int(spans["length"].max())) if len(spans) else 1
    step = max(step, _LEAST_CHUNKS * get_num_threads())  # or threads would wait for the last of each batch
    while first < len(spans):
        yield first, min(first + step, len(spans))
        first += step


def _reason(opened: OpenFile, storage: Storage, span: np.ndarray, where: str, corner: tuple[int, ...] | None) -> str:
    """Reads one span that could not be read again, for what the engine says of it."""
    place = where if corner is None else f"{where}, chunk at {corner}"
    try:
        _spans.read(opened.source, (storage,), span.copy(), span["length"], [1], 1, lambda _: place)
    except (H5FastError, MemoryError) as error:
        return str(error)
    return f"{place}: it could not be read, and then it could; the file or the disk is changing"


def _read_by_hdf5(dataset: Dataset, where: str, done: Verified, report: Callable[[Verified], None] | None) -> None:
    """Box by box through the dataset's own reader: chunks where it has any."""
    try:
        boxes = _boxes(dataset)
    except info.UNREADABLE as error:
        done.damage.append(f"{where}: {error}")
        return
    for box in boxes:
        try:
            read: Any = dataset[box]
            done.nbytes += int(np.asarray(read).nbytes) if not isinstance(read, h5py.Empty) else 0
        except (H5FastError, *info.UNREADABLE) as error:
            corner = tuple(part.start for part in box)
            done.damage.append(f"{where}, chunk at {corner}{_offset(dataset, corner)}: {error}")
        done.chunks += 1
        if report is not None:
            report(done)


def _boxes(dataset: Dataset) -> Iterator[tuple[slice, ...]]:
    shape = dataset.shape
    if not shape:
        return iter([()])
    if dataset.chunks is not None:
        sizes = dataset.chunks
    else:
        row = max(1, math.prod(shape[1:]) * dataset.dtype.itemsize)
        sizes = (max(1, _PIECE_BYTES // row), *shape[1:])
    axes = [[slice(at, min(at + size, extent)) for at in range(0, extent, max(size, 1))] for extent, size in zip(shape, sizes)]
    return itertools.product(*axes)


def _offset(dataset: Dataset, corner: tuple[int, ...]) -> str:
    """Where a chunk lies in the file, as far as libhdf5 tells."""
    if dataset.chunks is None:
        return ""
    try:
        stored = dataset.id.get_chunk_info_by_coord(corner)
    except (CorruptFileError, *info.UNREADABLE):
        return ""
    return "" if stored.byte_offset is None else f" ({stored.size} bytes at file offset {stored.byte_offset})"
