"""What ``h5fast bench`` measures: batches of random rows of one dataset, through h5py, h5fast, and from memory.

Methods take turns, so that drifts of the machine hit all alike, and the median over the rounds is what counts. Every call
gets rows drawn for it alone: h5py keeps the chunks of the call before, and would read them from there. Before anything is
timed, every method's bytes are compared with h5py's on the same rows.
"""

from __future__ import annotations

import errno
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import h5py
import numpy as np

from h5fast.errors import CorruptFileError, H5FastError, UnsupportedError
from h5fast.info import DatasetReport, FileReport, describe_file, open_file
from h5fast.objects import Dataset
from h5fast.sizes import format_bytes
from h5fast.threads import get_num_threads, set_num_threads

__all__ = ["BenchReport", "Timing", "format_bench", "read_fancy", "read_row_loop", "run_bench", "same_bytes"]

#: The in-memory stand-in for the file is no larger than this: enough to leave every cache of the processor far behind.
_MEMORY_BYTES = 256 << 20
#: A median of fewer rounds is an anecdote.
_LEAST_ROUNDS = 3
#: Pages of the file that are probed for being in the page cache: ±6 % at two standard deviations.
_PROBED_PAGES = 256

#: How reports call the types whose elements lie elsewhere in the file.
_WITHOUT_FIXED_SIZE = ("string", "object")

FANCY, LOOP, MEMORY = "h5py d[sorted rows]", "h5py row by row", "memory, np.take"


@dataclass(frozen=True)
class Timing:
    """Median and best seconds that one method took for a batch."""

    method: str
    median: float
    best: float


@dataclass(frozen=True)
class BenchReport:
    """Timings of all methods on one dataset, and the conditions they hold for.

    ``cached`` is the share of the file that was in the page cache at the start, ``None`` where the system does not tell.
    """

    path: str
    name: str
    file_bytes: int
    cached: float | None
    dataset: DatasetReport
    batch: int
    asked_batch: int
    rounds: int
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class _Method:
    name: str
    read: Callable[[np.ndarray], np.ndarray]
    sorts: bool = False  # whether the rows come back in ascending order
    checked: bool = True  # whether it reads the dataset at all

    def agrees(self, rows: np.ndarray, expected: np.ndarray) -> bool:
        return not self.checked or same_bytes(self.read(rows), expected[np.argsort(rows)] if self.sorts else expected)


def run_bench(
    path: str,
    name: str | None = None,
    *,
    batch: int = 256,
    rounds: int = 15,
    threads: int | None = None,
    seconds: float = 30.0,
) -> BenchReport:
    """Time random batches of `batch` rows of the dataset `name`, or of the largest one that has rows of fixed size.

    At most `rounds` rounds (at least 3) are run within about `seconds`; a batch too large for that is made smaller.
    `threads` is the largest number of threads to try. Raises ``OSError``, ``KeyError`` or ``ValueError`` with the path in
    the message for a file or dataset that cannot be timed, and ``H5FastError`` if a method's bytes differ.
    """
    cached = cached_share(path)
    report = describe_file(path, name)
    dataset = _pick(report, name)
    rows_there = dataset.shape[0] if dataset.shape else 0
    threads_before = get_num_threads()
    try:
        with open_file(path) as ours, h5py.File(path, "r") as theirs:
            methods = list(_methods(theirs[dataset.name], ours[dataset.name], threads or threads_before))
            methods += [_memory_method(dataset)] if dataset.dtype not in _WITHOUT_FIXED_SIZE else []
            draw = partial(_draw, np.random.default_rng(), rows_there)
            round_time = _check(methods, draw(batch), dataset.name)
            size = _affordable(min(batch, rows_there), round_time, seconds)
            samples = _sample(methods, lambda: draw(size), rounds, seconds)
    finally:
        set_num_threads(threads_before)
    return BenchReport(
        path=path,
        name=dataset.name,
        file_bytes=report.file_bytes,
        cached=cached,
        dataset=dataset,
        batch=size,
        asked_batch=min(batch, rows_there),
        rounds=len(samples[0]),
        timings=tuple(
            Timing(method.name, statistics.median(times), min(times)) for method, times in zip(methods, samples, strict=True)
        ),
    )


def read_fancy(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """The rows in ascending order, by the one call that h5py offers for them."""
    batch: np.ndarray = dataset[np.sort(rows)]
    return batch


def read_row_loop(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """The rows in the order asked for, one call each: what people who know h5py write."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for place, row in enumerate(rows.tolist()):
        out[place] = dataset[row]
    return out


def same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal to the last bit (objects: equal)."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one == other).all()) if one.dtype.hasobject else one.tobytes() == other.tobytes()


def cached_share(path: str) -> float | None:
    """The share of the file that is in the page cache, by a random sample; ``None`` where that cannot be known."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pages = os.fstat(descriptor).st_size // 4096
        chosen = random.sample(range(pages), min(pages, _PROBED_PAGES))
        return statistics.fmean(_is_cached(descriptor, page * 4096) for page in chosen) if chosen else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def _pick(file: FileReport, name: str | None) -> DatasetReport:
    path, datasets = file.path, file.datasets
    for report in datasets:
        if name is not None and report.error is not None:
            raise ValueError(f"{path}: {report.name}: {report.error}")
    usable = [report for report in datasets
              if report.error is report.missing is None and report.shape and math.prod(report.shape)]
    fixed = [report for report in usable if report.dtype not in _WITHOUT_FIXED_SIZE] if name is None else usable
    for report in datasets if not fixed else ():
        if report.missing is not None:
            raise UnsupportedError(f"{path}: dataset {report.name!r}: {report.missing}")
    if not fixed and name is None and file.problems:
        raise CorruptFileError(errno.EIO, f"{path}: {file.problems[0]}")
    if not fixed:
        what = "no dataset has rows of fixed size" if name is None else f"{name!r} has no rows"
        raise ValueError(f"{path}: {what}, so there is nothing to time")
    return max(fixed, key=lambda report: report.logical_bytes)


def _methods(theirs: h5py.Dataset, ours: Dataset, threads: int) -> Iterator[_Method]:
    yield _Method(FANCY, partial(read_fancy, theirs), sorts=True)
    yield _Method(LOOP, partial(read_row_loop, theirs))
    for count in _thread_counts(threads):
        yield _Method(f"h5fast, {count} thread{'s' if count > 1 else ''}", partial(_take, ours, count))


def _memory_method(dataset: DatasetReport) -> _Method:
    """The same gather from memory, on one thread, into an array that exists already: what no file can beat by much."""
    rows_there = dataset.shape[0] if dataset.shape else 0
    length = min(rows_there, _MEMORY_BYTES // max(1, dataset.row_bytes) + 1)
    source = np.ones((length, dataset.row_bytes), np.uint8)  # written to: untouched memory would all be one page
    out = np.empty((rows_there, dataset.row_bytes), np.uint8)

    def read(rows: np.ndarray) -> np.ndarray:
        # "clip" is the mode in which np.take does not buffer its output.
        return np.take(source, rows % length, axis=0, out=out[: len(rows)], mode="clip")

    return _Method(MEMORY, read, checked=False)


def _thread_counts(most: int) -> list[int]:
    """1, 2, 4 … and the most."""
    counts = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*counts, most]


def _take(dataset: Dataset, threads: int, rows: np.ndarray) -> np.ndarray:
    set_num_threads(threads)
    return dataset.take(rows)


def _draw(rng: np.random.Generator, size: int, batch: int) -> np.ndarray:
    return rng.choice(size, min(size, batch), replace=False)


def _check(methods: list[_Method], rows: np.ndarray, name: str) -> float:
    """Compare every method with the row loop, on the same rows; returns how long that took."""
    start = time.perf_counter()
    expected = next(method.read for method in methods if method.name == LOOP)(rows)
    for method in methods:
        if not method.agrees(rows, expected):
            raise H5FastError(f"{method.name} and {LOOP} differ on rows of {name!r}: nothing was timed")
    return time.perf_counter() - start


def _affordable(batch: int, round_time: float, seconds: float) -> int:
    share = seconds / max(round_time * _LEAST_ROUNDS, 1e-9)
    return max(1, min(batch, int(batch * share)))


def _sample(
    methods: list[_Method], draw: Callable[[], np.ndarray], rounds: int, seconds: float
) -> list[list[float]]:
    """Seconds of each method in each round. Each round starts with another method, so that none always goes first."""
    samples: list[list[float]] = [[] for _ in methods]
    deadline = time.perf_counter() + seconds
    for number in range(max(rounds, _LEAST_ROUNDS)):
        if number >= _LEAST_ROUNDS and time.perf_counter() > deadline:
            break
        for step in range(len(methods)):
            place = (number + step) % len(methods)
            rows = draw()
            start = time.perf_counter()
            methods[place].read(rows)
            samples[place].append(time.perf_counter() - start)
    return samples


# Writing it down.


def format_bench(report: BenchReport) -> str:
    """The report as a table with its conditions."""
    lines = [*_conditions(report), "", f"{'':24}{'ms a batch':>12}{'rows/s':>14}{'MiB/s':>10}{'x sorted':>10}{'x loop':>9}"]
    medians = {timing.method: timing.median for timing in report.timings}
    for timing in report.timings:
        rate = report.batch / timing.median
        lines.append(
            f"{timing.method:24}{timing.median * 1e3:12.3f}{rate:14,.0f}{rate * report.dataset.row_bytes / 2**20:10,.0f}"
            f"{medians[FANCY] / timing.median:10.1f}{medians[LOOP] / timing.median:9.1f}"
        )
    return "\n".join(lines)


def _conditions(report: BenchReport) -> Iterator[str]:
    cached = "unknown" if report.cached is None else f"{report.cached:.0%}"
    yield f"{report.path}::{report.name}  {report.dataset.dtype} {report.dataset.shape}, reader {report.dataset.reader}"
    yield f"file {format_bytes(report.file_bytes)}; in the page cache at the start: {cached}; timed warm"
    rows = f"batches of {report.batch:,} random rows ({format_bytes(report.batch * report.dataset.row_bytes)})"
    yield f"{rows}, fresh for every call; medians of {report.rounds} rounds; bytes compared first"
    if report.batch < report.asked_batch:
        yield f"(batches of {report.asked_batch:,} rows would have taken too long: --seconds allows more)"
