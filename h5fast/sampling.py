"""Which codec suits a field: tried on the first of its rows, encoded and read back in memory by the very code that will do both.

What counts is the time to read a row times the room it takes. The time is that of decoding, measured, and that of getting the
stored bytes from a disk of a gigabyte a second.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast import _gather, layout
from h5fast._encode import Encoder
from h5fast._gather import Source
from h5fast._index import MEMORY_HEAD, ChunkIndex
from h5fast._selection import select_rows
from h5fast._storage import Storage
from h5fast.specs import Spec, lay_out

__all__ = ["SAMPLE_BYTES", "choose_codec"]

#: Rows of this many bytes make a sample that tells enough.
SAMPLE_BYTES = 1 << 20

_DISK_BYTES_PER_SECOND = 1e9
_ROUNDS = 5
# Storing as it is needs no decoder, no plugin and no second copy: others have to be this much better.
_WORTHWHILE = 0.9
_PLUGIN_CODECS = ("lz4", "zstd")


@dataclass(frozen=True)
class _Trial:
    codec: Any
    name: str
    ratio: float  # stored bytes for each byte
    seconds: float  # to read the sample's bytes, for each of them

    @property
    def cost(self) -> float:
        return self.ratio * self.seconds

    def __str__(self) -> str:
        return f"{self.name} {self.ratio:.2f} of the size, {1e-6 / self.seconds:.0f} MB/s"


def choose_codec(spec: Spec, rows: np.ndarray[Any, Any], *, access: str, most_bytes: int) -> tuple[Any, str]:
    """The codec for a field whose first rows these are, as a :class:`Spec` takes it, and the reason.

    Fields that HDF5 itself writes are not tried: "lzf". Args as of :func:`lay_out`.
    """
    if rows.dtype.hasobject:
        return "lzf", "auto, for elements of variable length"
    if len(rows) == 0:
        return "lzf", "auto, without a row to try others on"
    plugins = _PLUGIN_CODECS if importlib.util.find_spec("hdf5plugin") is not None else ()
    trials = [_try(spec.with_codec(codec), rows, access, most_bytes) for codec in (None, "lzf", "gzip", *plugins)]
    found = [trial for trial in trials if trial is not None]
    if not found:
        return "lzf", "auto, for a type that is not read directly"
    plain, best = found[0], min(found, key=lambda trial: trial.cost)
    if best.cost > _WORTHWHILE * plain.cost:
        best = plain
    tried = "; ".join(str(trial) for trial in found)
    return best.codec, f"auto, of {len(rows)} rows: {tried}"


def _try(spec: Spec, rows: np.ndarray[Any, Any], access: str, most_bytes: int) -> _Trial | None:
    found = lay_out("", spec, access=access, rows=len(rows), most_bytes=most_bytes)
    chunks = len(rows) // found.chunk_rows
    whole = np.ascontiguousarray(rows[:chunks * found.chunk_rows])
    with h5py.File("sample", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("sample", whole.shape, whole.dtype, chunks=(found.chunk_rows, *spec.shape),
                                      **found.codec.options)
        try:
            described = layout.describe(dataset)
        except layout.Indirect:
            return None
    storage = Storage(described.shape, described.chunk, described.dtype.itemsize, described.filters)
    content, entries = _stored(storage, whole, chunks)
    seconds = _reading_time((storage, ChunkIndex.of(entries), Source(content)), whole)
    ratio = (len(content) - MEMORY_HEAD) / whole.nbytes
    return _Trial(spec.codec, found.codec.name, ratio, seconds / whole.nbytes + ratio / _DISK_BYTES_PER_SECOND)


def _stored(storage: Storage, rows: np.ndarray[Any, Any], chunks: int) -> tuple[bytes, list[tuple[int, int, int, int]]]:
    encoder = Encoder(storage, chunks)
    encoder.start(rows, chunks, 1)
    encoder.finish()
    content, entries = bytearray(MEMORY_HEAD), []
    for number in range(chunks):
        stored, mask = encoder.chunk(number)
        entries.append((number, len(content), len(stored), mask))
        content += stored
    return bytes(content), entries


def _reading_time(chunks: tuple[Storage, ChunkIndex, Source], expected: np.ndarray[Any, Any]) -> float:
    """Seconds to read all rows with one thread, the best of a few rounds."""
    out = np.empty_like(expected)
    selection = select_rows(slice(0, len(out)), len(out), out.shape)
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        _gather.read(chunks, selection, out, 1, lambda: "sample")
        best = min(best, time.perf_counter() - begun)
    return best
