"""One dataset's elements read from one file and written to another, in other chunks or through other filters.

While native threads encode the chunks of one box, the next box is read; what HDF5 alone can encode, it does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5p, h5z

from h5fast import layout
from h5fast._encode import Encoder
from h5fast._storage import Storage
from h5fast.boxes import Box, boxes, tiled
from h5fast.codec import Codec
from h5fast.plugins import register_plugins
from h5fast.threads import get_num_threads

__all__ = ["NewLayout", "recode"]

# A box as it is read, cut into chunks and encoded, and the next one: parts of the memory at the same time.
_COPIES = 6
_ALL_FILTERS = 0


@dataclass(frozen=True)
class NewLayout:
    """How a dataset is to be stored.

    Attributes:
        chunks: shape of a chunk
        codec: its filters
        reason: why so
    """

    chunks: tuple[int, ...]
    codec: Codec
    reason: str

    def create(self, source: h5py.Dataset, group: h5py.h5g.GroupID, name: bytes, kind: h5py.h5t.TypeID,
               links: h5p.PropLCID | None = None) -> h5d.DatasetID:
        """An empty dataset like `source` but for chunks and filters: type, extent, limits, fill value and what is tracked stay."""
        properties = source.id.get_create_plist()
        if properties.get_layout() != h5d.CHUNKED:
            properties.set_alloc_time(h5d.ALLOC_TIME_INCR)
        properties.set_chunk(self.chunks)
        if properties.get_nfilters():
            properties.remove_filter(_ALL_FILTERS)
        _add_filters(properties, self.codec)
        return h5d.create(group, name, kind, source.id.get_space(), properties, links)

    def fill(self, source: h5py.Dataset, target: h5py.Dataset, memory: int, check: Callable[[], None]) -> None:
        """As :func:`recode`."""
        recode(source, target, memory, check)

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """All of them: nothing is left out."""
        return values


def _add_filters(properties: h5p.PropDCID, codec: Codec) -> None:
    options = codec.options
    if "dcpl" in options:
        register_plugins(options["dcpl"])
        for place in range(options["dcpl"].get_nfilters()):
            number, flags, values, _ = options["dcpl"].get_filter(place)
            properties.set_filter(number, flags, values)
        return
    compression = options.get("compression")
    if options.get("shuffle"):
        properties.set_shuffle()
    if compression == "gzip":
        properties.set_deflate(options["compression_opts"])
    elif compression is not None:
        number = h5z.FILTER_LZF if compression == "lzf" else compression
        properties.set_filter(number, h5z.FLAG_OPTIONAL, tuple(options.get("compression_opts") or ()))
    if options.get("fletcher32"):
        properties.set_fletcher32()


def recode(source: h5py.Dataset, target: h5py.Dataset, memory: int, check: Callable[[], None]) -> None:
    """Writes all elements of `source` to `target`, which a recipe has just made, with about `memory` bytes. What `check`
    raises, which is called now and then, ends it.

    Chunks that were never written are not written there either.
    """
    fill = target.fillvalue if target.id.get_create_plist().fill_value_defined() != h5d.FILL_VALUE_UNDEFINED else 0
    fill_element = np.zeros((), target.dtype)
    fill_element[...] = fill
    align = source.chunks[0] if source.chunks is not None else 1
    cut = _checked(boxes(target.shape, target.chunks, target.dtype.itemsize, memory // _COPIES, align), check)
    if source.id.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED:
        return
    try:
        described = layout.describe(target)
    except layout.Indirect:
        _through_hdf5(source, target, cut)
        return
    if described.raw_edges:
        _through_hdf5(source, target, cut)
    else:
        _through_encoders(source, target, cut, described, _skipped(source, fill_element))


def _checked(cut: Iterator[Box], check: Callable[[], None]) -> Iterator[Box]:
    for box in cut:
        check()
        yield box


def _skipped(source: h5py.Dataset, fill: np.ndarray) -> bytes | None:
    """Of which bytes a chunk consists that need not be written: those it is read as, where `source` lacks chunks too."""
    if source.chunks is None or layout.leaves_gaps(source.id.get_create_plist()):
        return None
    grid = (-(-length // chunk) for length, chunk in zip(source.shape, source.chunks, strict=True))
    return fill.tobytes() if source.id.get_num_chunks() < math.prod(grid) else None


def _through_hdf5(source: h5py.Dataset, target: h5py.Dataset, cut: Iterator[Box]) -> None:
    for box in cut:
        target[box] = source[box]


def _through_encoders(source: h5py.Dataset, target: h5py.Dataset, cut: Iterator[Box], described: layout.Layout,
                      skipped: bytes | None) -> None:
    chunks: tuple[int, ...] = target.chunks
    storage = Storage(chunks, chunks, described.dtype.itemsize, described.filters)
    fill = np.frombuffer(described.fill, described.dtype)[0]
    encoders: list[Encoder] = []
    begun: tuple[Encoder, list[tuple[int, ...]]] | None = None
    for number, box in enumerate(cut):
        tiles = tiled(source[box], chunks, fill)
        places = _places(box, chunks)
        if skipped is not None:
            kept = [place for place, tile in enumerate(tiles) if tile.tobytes() != skipped * tile.size]
            tiles, places = tiles[kept], [places[place] for place in kept]
        if begun is not None:
            begun[0].finish()
        if number < 2:  # the first box is the largest
            encoders.append(Encoder(storage, max(1, math.prod(-(-(part.stop - part.start) // chunk)
                                                              for part, chunk in zip(box, chunks, strict=True)))))
        if places:
            encoders[number % 2].start(tiles, len(places), get_num_threads())
        _write(target, begun)
        begun = (encoders[number % 2], places) if places else None
    if begun is not None:
        begun[0].finish()
    _write(target, begun)


def _places(box: Box, chunks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Where the chunks of a box begin, in the order of :func:`tiled`."""
    return list(itertools.product(*(range(part.start, part.stop, chunk) for part, chunk in zip(box, chunks, strict=True))))


def _write(target: h5py.Dataset, run: tuple[Encoder, list[tuple[int, ...]]] | None) -> None:
    if run is None:
        return
    encoder, places = run
    for number, place in enumerate(places):
        stored, mask = encoder.chunk(number)
        target.id.write_direct_chunk(place, stored, mask)
