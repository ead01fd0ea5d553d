"""``tune()``: which chunks and which codec suit a dataset and a way of reading it, measured on a part of its own elements.

The part is written to a temporary file in the present way and in others, and read from each as asked for. Nothing of the
present way but its name is assumed: where it is the best, that is the answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from h5fast import layout, plugins
from h5fast.boxes import Box, boxes
from h5fast.cache_trial import measure_cache
from h5fast.caching import DEFAULT_BYTES, ChunkCache, check_cache_access, chunk_cache
from h5fast.chunking import choose_rows
from h5fast.codec import Codec, Pipeline, resolve_codec
from h5fast.errors import UnsupportedError
from h5fast.info import open_file
from h5fast.objects import Dataset, File
from h5fast.recoding import NewLayout, recode
from h5fast.sizes import format_bytes, parse_bytes

__all__ = ["Measured", "TuneReport", "format_tuning", "json_tuning", "tune"]

# Elements that are tried: enough that they leave the caches of the processor, little enough to be encoded in all ways.
_SAMPLE_BYTES = 24 << 20
# One row, or one present chunk, may be larger; but not this large.
_MOST_SAMPLE_BYTES = 512 << 20
_PARTS = 8  # of the dataset, from which the sample is put together
_CHUNK_BYTES = {"random rows": (4 << 10, 16 << 10, 64 << 10, 256 << 10), "sequential": (64 << 10, 256 << 10, 1 << 20, 4 << 20),
                "crops": (16 << 10, 64 << 10, 256 << 10)}
_CODECS = (None, "lzf", "gzip")
_PLUGIN_CODECS = ("lz4", "zstd")
_READ_BYTES = 4 << 20  # of one timed read
_ROUNDS = 5
# Reading what is stored from a disk costs a second for each gigabyte.
_DISK_BYTES_PER_SECOND = 1e9
# Storing a dataset anew takes time, and other chunks may suit other programs less: they have to be this much better.
_WORTHWHILE = 0.8
_NO_CHUNKS_KEPT = 0
_CHANNELS = 4  # axes of crops that are no longer are not cut


@dataclass(frozen=True)
class Measured:
    """One way to store the dataset, tried on a part of it.

    Attributes:
        chunks: shape of a chunk; None if there are none
        codec: its filters, by name
        codec_option: what :func:`repack` takes for them
        present: whether the dataset is stored so now
        stored_bytes: that the whole dataset would take
        rows_per_second: (or crops) that were read, from memory that holds the stored bytes, by all threads
        megabytes_per_second: of elements that came with them
        read_bytes: stored bytes that have to be read for one row (or crop)
    """

    chunks: tuple[int, ...] | None
    codec: str
    codec_option: Any
    present: bool
    stored_bytes: int
    rows_per_second: float
    megabytes_per_second: float
    read_bytes: float

    @property
    def seconds(self) -> float:
        """To get one row, or crop, from a disk of a gigabyte a second."""
        return 1 / self.rows_per_second + self.read_bytes / _DISK_BYTES_PER_SECOND

    @property
    def cost(self) -> float:
        """What counts: the time to get a row times the room that the dataset takes."""
        return self.seconds * self.stored_bytes


@dataclass(frozen=True)
class TuneReport:
    """What was measured, and what follows from it.

    Attributes:
        path, name, shape, dtype, access: what was asked about
        sample_bytes: of elements that were tried
        measured: the present way first, then the others, the best first
        best: the one to take: the present one, unless another is clearly better
        reason: why
        cache, best_cache: the chunk cache that suits reads through h5py, as the dataset is stored now, and in the best way
        decoded, decoded_cached: share of those reads that decode a chunk, expected with HDF5's own cache, and with `cache`
        h5py_rate, h5py_rate_cached: rows (or crops) a second that plain h5py reads of the part that was tried, stored as it is now, with
            HDF5's own cache and with `cache`, each as large a share of the part's chunks as it is of all; None where there are no chunks
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    access: str
    sample_bytes: int
    measured: tuple[Measured, ...]
    best: Measured
    reason: str
    cache: ChunkCache
    best_cache: ChunkCache
    decoded: float
    decoded_cached: float
    h5py_rate: float | None
    h5py_rate_cached: float | None


def tune(path: str | os.PathLike[str], dataset: str | None = None, *, access: str = "random rows", crop: Sequence[int] | None = None,
         seconds: float = 20.0, memory: int | float | str = "256 MiB") -> TuneReport:
    """Measures which chunk shape, codec and chunk cache suit a dataset and a way of reading it. Changes nothing.

    Parameters
    ----------
    path, dataset:
        The file, and a dataset of numbers in it; None takes the largest.
    access:
        "random rows", "sequential", or "crops" (boxes at random places).
    crop:
        With "crops": the shape of one, in elements. None takes one as large as a present chunk.
    seconds:
        After which nothing more is tried. What was begun is finished.
    memory:
        As of :func:`chunk_cache`.

    Returns
    -------
    A :class:`TuneReport`. ``h5fast.repack(path, paths=[report.name], chunks=report.best.chunks,
    codec=report.best.codec_option)`` stores the dataset in the best way.

    Raises
    ------
    KeyError
        The file has no such dataset.
    ValueError
        The dataset has no rows, a row is too large to be tried, or an argument means nothing.
    UnsupportedError
        It is not a dataset of numbers (or fixed text) whose bytes HDF5 stores as they are.
    OSError
        The file cannot be read, or no temporary one be written.
    """
    check_cache_access(access)
    if crop is not None and access != "crops":
        raise TypeError(f"crop is the shape of crops, and access is {access!r}")
    if not seconds > 0:
        raise ValueError(f"seconds is a time, not {seconds!r}")
    budget = parse_bytes(memory)
    deadline = time.perf_counter() + seconds
    with open_file(os.fspath(path)) as file:
        found = _found(file, dataset)
        trials = _Trials(found, access, _crop_of(found, crop))
        cache = chunk_cache(found, access, crop=trials.crop if access == "crops" else None, memory=budget)
        trials.run(deadline, cache)
        present, others = trials.measured[0], sorted(trials.measured[1:], key=lambda one: one.cost)
        best, reason = _best(present, others)
        best_cache = cache
        if best.chunks is not None and not best.present:
            best_cache = chunk_cache(found.shape, access, chunks=_clipped(best.chunks, found.shape), dtype=found.dtype,
                                     compressed=best.codec != "none", crop=trials.crop if access == "crops" else None, memory=budget)
        default = ChunkCache(DEFAULT_BYTES, 0, 0.0, 0, "")
        return TuneReport(os.fspath(path), found.name, found.shape, str(found.dtype), access, trials.sample.nbytes, (present, *others),
                          best, reason, cache, best_cache, _decoded(found, access, default), _decoded(found, access, cache),
                          *trials.through_h5py)


def _found(file: File, name: str | None) -> Dataset:
    if name is None:
        names: list[str] = []
        file.visit(names.append)
        usable = [found for found in (file.get(each) for each in names)
                  if isinstance(found, Dataset) and found.shape and found.size and found.dtype.kind in "biufc" and not found.is_virtual]
        if not usable:
            raise ValueError(f"{file.filename}: no dataset has rows of numbers, so there is nothing to tune")
        return max(usable, key=lambda found: int(found.nbytes))
    found = file[name]
    if not isinstance(found, Dataset):
        raise ValueError(f"{file.filename}: {name!r} is no dataset")
    if not found.shape or not found.size:
        raise ValueError(f"{file.filename}: {name!r} has no rows")
    try:
        layout.describe(found)
    except layout.Virtual:
        raise UnsupportedError(f"{file.filename}: {name!r} is made of other datasets: tune these") from None
    except layout.Indirect as error:
        if not str(error).startswith("filter"):
            raise UnsupportedError(f"{file.filename}: {name!r} cannot be stored in another way: {error}") from None
    return found


def _crop_of(dataset: Dataset, crop: Sequence[int] | None) -> tuple[int, ...]:
    shape: tuple[int, ...] = dataset.shape
    if crop is None:
        return dataset.chunks if dataset.chunks is not None else _tile(shape, shape, dataset.dtype.itemsize, 64 << 10)
    found = tuple(map(int, crop))
    if len(found) != len(shape) or any(not 1 <= part <= whole for part, whole in zip(found, shape, strict=True)):
        raise ValueError(f"{dataset.name!r} has the shape {shape}, and a crop of shape {found} does not lie in it")
    return found


def _clipped(chunks: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(min, chunks, shape))


def _decoded(dataset: Dataset, access: str, cache: ChunkCache) -> float:
    """Share of the reads of a chunk through h5py that decode it, once the cache is full."""
    if dataset.chunks is None or not dataset.id.get_create_plist().get_nfilters():
        return 0.0
    size = max(1, math.prod(dataset.chunks) * dataset.dtype.itemsize)
    grid = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    held = cache.rdcc_nbytes // size
    if access == "sequential":
        return 1.0 / int(dataset.chunks[0]) if held >= math.prod(grid[1:]) else 1.0
    return max(0.0, 1.0 - float(held) / float(math.prod(grid)))


def _best(present: Measured, others: Sequence[Measured]) -> tuple[Measured, str]:
    if not others:
        return present, "nothing else could be tried in the time"
    best = others[0]
    if best.cost > _WORTHWHILE * present.cost:
        return present, "the present way is as good as any that was tried: leave it"
    faster, smaller = present.seconds / best.seconds, present.stored_bytes / best.stored_bytes
    return best, (f"a row in {1 / faster:.2f} of the time ({faster:.1f} times as fast), in {1 / smaller:.2f} of the room: "
                  "the product of both decides")


@dataclass(frozen=True)
class _Try:
    chunks: tuple[int, ...] | None
    codec: Codec
    way: tuple[tuple[int, ...], Any] | None  # None: the present one
    dataset: Dataset  # the sample, stored so


class _Trials:
    """The ways of storing one dataset that are tried.

    Attributes:
        sample: its elements that are
        crop: shape of one, of the sample's size at most
        measured: the results, the present way first
        through_h5py: rates with HDF5's own chunk cache and with the proposed one, as it is stored now
    """

    def __init__(self, dataset: Dataset, access: str, crop: tuple[int, ...]) -> None:
        self._dataset, self._access = dataset, access
        self.sample = _sample(dataset, access, crop)
        self.crop = _clipped(crop, self.sample.shape)
        self.measured: list[Measured] = []
        self.through_h5py: tuple[float | None, float | None] = None, None

    def run(self, deadline: float, cache: ChunkCache) -> None:
        """Tries codecs with the chunks that are usual for this access, then other chunks with the best of them."""
        with tempfile.TemporaryDirectory(prefix="h5fast-tune-") as folder, contextlib.ExitStack() as opened:
            tries = [self._write(Path(folder), opened, None)]
            shapes = list(dict.fromkeys(self._shapes()))
            usual = shapes[len(shapes) // 2]
            tries += [self._write(Path(folder), opened, (usual, codec)) for codec in self._codecs()
                      if time.perf_counter() < deadline]
            measured = self._measure(tries)
            if len(measured) > 1:
                best = min(measured[1:], key=lambda one: one.cost).codec_option
                tries += [self._write(Path(folder), opened, (shape, best)) for shape in shapes
                          if shape != usual and time.perf_counter() < deadline]
                measured = self._measure(tries)
            self.measured = measured
            if self._dataset.chunks is not None:
                alone = Path(folder) / "alone.h5"  # a file that is open keeps the cache that it was opened with
                shutil.copyfile(tries[0].dataset.file.filename, alone)
                share = min(1.0, self.sample.nbytes / self._dataset.nbytes)
                self.through_h5py = measure_cache(alone, "x", self._access, self.crop, cache, share)

    def _codecs(self) -> Iterator[Any]:
        yield from _CODECS
        if importlib.util.find_spec("hdf5plugin") is not None:
            yield from _PLUGIN_CODECS

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        shape, itemsize = self._dataset.shape, self._dataset.dtype.itemsize
        row_bytes = math.prod(shape[1:]) * itemsize
        for target in _CHUNK_BYTES[self._access]:
            if self._access == "crops":
                yield _tile(shape, self.crop, itemsize, target)
            else:
                rows, _ = choose_rows(row_bytes, compressed=True, access="sequential", rows=shape[0], most_bytes=target)
                yield (rows, *shape[1:])

    def _write(self, folder: Path, opened: contextlib.ExitStack, way: tuple[tuple[int, ...], Any] | None) -> _Try:
        """The sample, stored in one way: chunks and codec, or None for the present one."""
        source, path = self._dataset, folder / "sample.h5"
        if way is None:
            filters = tuple((number, values) for number, values, _ in plugins.pipeline(source.id.get_create_plist()))
            chunks, codec = source.chunks, resolve_codec(Pipeline(filters), shuffle=None, fletcher32=False, dtype=source.dtype)
        else:
            chunks = way[0]
            codec = resolve_codec(way[1], shuffle=None, fletcher32=bool(source.fletcher32), dtype=source.dtype)
        if not path.exists():
            with h5py.File(path, "w") as file:
                file.create_dataset("x", data=self.sample)
        copy = folder / f"{len(list(folder.iterdir()))}.h5"
        with h5py.File(path, "r") as whole, h5py.File(copy, "w") as file:
            if chunks is None:
                file.create_dataset("x", data=self.sample)
            else:
                recipe = NewLayout(_clipped(chunks, self.sample.shape), codec, "")
                made = recipe.create(whole["x"], file.id, b"x", whole["x"].id.get_type())
                recode(whole["x"], h5py.Dataset(made), 2 * _SAMPLE_BYTES, _go_on)
        # Chunks kept of a sample would say nothing of the whole.
        return _Try(chunks, codec, way, opened.enter_context(File(copy, "r", rdcc_nbytes=_NO_CHUNKS_KEPT))["x"])

    def _measure(self, tries: Sequence[_Try]) -> list[Measured]:
        """Reads from all in turn, so that what else the machine does hits them alike; the median of the rounds counts."""
        rng = np.random.default_rng(0)
        times: list[list[float]] = [[] for _ in tries]
        for _ in range(_ROUNDS + 1):
            for one, found in zip(tries, times, strict=True):
                count, read = _READS[self._access](one.dataset, self.crop, rng)
                begun = time.perf_counter()
                read()
                found.append((time.perf_counter() - begun) / count)
        return [self._told(one, max(1e-9, statistics.median(found[1:]))) for one, found in zip(tries, times, strict=True)]

    def _told(self, one: _Try, seconds: float) -> Measured:
        tried = one.dataset
        stored = max(1, tried.id.get_storage_size())
        nbytes = math.prod(self.crop if self._access == "crops" else self.sample.shape[1:]) * self.sample.itemsize
        touched = self._touched(tried) * stored / max(1, tried.id.get_num_chunks() if tried.chunks is not None else 1)
        return Measured(one.chunks, one.codec.name, "keep" if one.way is None else one.way[1], one.way is None,
                        round(stored * self._dataset.nbytes / self.sample.nbytes), 1 / seconds, nbytes / seconds / 1e6,
                        touched if one.codec.compresses else min(touched, nbytes))

    def _touched(self, tried: Dataset) -> float:
        """Chunks of which one row, or crop, has to be decoded, on average; a row after the other decodes each once."""
        chunks = tried.chunks
        if chunks is None:
            return 1.0
        if self._access == "crops":
            crossed: float = math.prod(min(-(-whole // chunk), 1 + (part - 1) / chunk)
                                       for whole, part, chunk in zip(tried.shape, self.crop, chunks, strict=True))
            return crossed
        spans = math.prod(-(-length // chunk) for length, chunk in zip(tried.shape[1:], chunks[1:], strict=True))
        return spans / chunks[0] if self._access == "sequential" else float(spans)


def _go_on() -> None:
    """Nothing forbids to go on."""


def _random_rows(tried: Dataset, crop: tuple[int, ...], rng: np.random.Generator) -> tuple[int, Callable[[], Any]]:
    count = _at_once(tried)
    rows = rng.choice(len(tried), count, replace=False)
    return count, lambda: tried.take(rows)


def _sequential(tried: Dataset, crop: tuple[int, ...], rng: np.random.Generator) -> tuple[int, Callable[[], Any]]:
    step = tried.chunks[0] if tried.chunks is not None else 1
    count = min(len(tried), max(1, -(-_at_once(tried) // step)) * step)
    first = int(rng.integers(0, (len(tried) - count) // step + 1)) * step
    return count, lambda: tried.take(slice(first, first + count))


def _crops(tried: Dataset, crop: tuple[int, ...], rng: np.random.Generator) -> tuple[int, Callable[[], Any]]:
    count = max(1, min(64, _READ_BYTES // max(1, math.prod(crop) * tried.dtype.itemsize)))
    starts = [[int(rng.integers(0, whole - part + 1)) for whole, part in zip(tried.shape, crop, strict=True)]
              for _ in range(count)]
    keys = [tuple(slice(first, first + part) for first, part in zip(start, crop, strict=True)) for start in starts]
    return count, lambda: [tried[key] for key in keys]


_READS: dict[str, Callable[[Dataset, tuple[int, ...], np.random.Generator], tuple[int, Callable[[], Any]]]] = {
    "random rows": _random_rows, "sequential": _sequential, "crops": _crops}


def _at_once(tried: Dataset) -> int:
    """Rows of a batch."""
    row_bytes = max(1, math.prod(tried.shape[1:]) * tried.dtype.itemsize)
    return int(max(1, min(256, len(tried), _READ_BYTES // row_bytes)))


def _tile(shape: tuple[int, ...], like: tuple[int, ...], itemsize: int, target: int) -> tuple[int, ...]:
    """A chunk of about `target` bytes with the proportions of `like`, within `shape`."""
    free = [part for part in like if part > _CHANNELS]
    scale = (target / (math.prod(like) * itemsize)) ** (1 / max(1, len(free)))
    return tuple(part if part <= _CHANNELS else max(1, min(whole, round(part * scale)))
                 for whole, part in zip(shape, like, strict=True))


def _sample(dataset: Dataset, access: str, crop: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Elements of the dataset: runs of rows from all parts of it, or for crops a box in the middle."""
    shape, itemsize = dataset.shape, dataset.dtype.itemsize
    chunks = dataset.chunks or (1,) * len(shape)
    if access == "crops":
        return _middle(dataset, tuple(map(max, _clipped(chunks, shape), crop)))
    row_bytes = max(1, math.prod(shape[1:]) * itemsize)
    run = chunks[0] * max(1, _SAMPLE_BYTES // (_PARTS * row_bytes * chunks[0]))
    parts = max(1, min(_PARTS, shape[0] // run, _SAMPLE_BYTES // (run * row_bytes)))
    run = min(run, shape[0])
    if run * row_bytes > _MOST_SAMPLE_BYTES:
        raise ValueError(f"{dataset.name!r}: {run} rows, a chunk of them, take {format_bytes(run * row_bytes)}: too much to try; "
                         "access='crops' tries boxes")
    starts = [(shape[0] - run) * part // max(1, parts - 1) // chunks[0] * chunks[0] for part in range(parts)]
    return np.concatenate([dataset[first:first + run] for first in starts])


def _middle(dataset: Dataset, least: tuple[int, ...]) -> np.ndarray[Any, Any]:
    cut: list[Box] = []
    for box in boxes(dataset.shape, least, dataset.dtype.itemsize, _SAMPLE_BYTES):
        cut.append(box)
        if len(cut) > 1000:
            break
    found = cut[len(cut) // 2]
    if math.prod(part.stop - part.start for part in found) * dataset.dtype.itemsize > _MOST_SAMPLE_BYTES:
        raise ValueError(f"{dataset.name!r}: a crop, or a chunk, takes more than {format_bytes(_MOST_SAMPLE_BYTES)}: too much to try")
    values: np.ndarray[Any, Any] = dataset[found]
    return values


# Writing it down.


def json_tuning(report: TuneReport) -> str:
    """The report as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=2)


def format_tuning(report: TuneReport) -> str:
    """The report as a table, the present way first, and what to do."""
    unit = "crops/s" if report.access == "crops" else "rows/s"
    lines = [f"{report.path}::{report.name}  {report.dtype} {report.shape}",
             f"{report.access}, on {format_bytes(report.sample_bytes)} of it; stored bytes in memory, all threads", "",
             f"{'':10}{'chunks':24}{'codec':24}{'size':>12}{unit:>14}{'MB/s':>10}{'cost':>8}"]
    present = report.measured[0]
    for one in report.measured:
        mark = "present" if one.present else "best" if one is report.best else ""
        chunks = "none" if one.chunks is None else "x".join(map(str, one.chunks))
        lines.append(f"{mark:10}{chunks:24}{one.codec:24}{format_bytes(one.stored_bytes):>12}{one.rows_per_second:14,.0f}"
                     f"{one.megabytes_per_second:10,.0f}{one.cost / present.cost:8.2f}")
    lines += ["", report.reason]
    if not report.best.present:
        lines += ["h5fast tune --apply stores it so"]
    cache = report.cache
    lines += ["", "for reads through h5py, as it is stored now: " + _format_cache(cache),
              f"  {cache.reason}",
              f"  reads that decode a chunk, as computed: {report.decoded:.1%} with HDF5's own cache, {report.decoded_cached:.1%} with "
              "this one"]
    if report.h5py_rate is not None and report.h5py_rate_cached is not None:
        lines += [f"  measured through h5py: {report.h5py_rate:,.0f} {unit} with HDF5's own cache, {report.h5py_rate_cached:,.0f} with this "
                  "one, on the same part; each cache is as large a share of the part's chunks as it is of all"]
    if report.best_cache != cache:
        lines += ["in the best way: " + _format_cache(report.best_cache), f"  {report.best_cache.reason}"]
    return "\n".join(lines)


def _format_cache(cache: ChunkCache) -> str:
    return ", ".join(f"{name}={value}" for name, value in cache.options.items())
