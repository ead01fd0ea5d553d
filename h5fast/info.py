"""What ``h5fast info`` tells of a file: how each dataset is stored, which path reads it, what would make it faster.

``describe_file`` collects frozen reports, ``format_report`` writes them for people and ``json_report`` for programs. The
advice is arithmetic on a report, so it is the same for a file of any size. Nothing here reads the data.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py

from h5fast import plugins
from h5fast._storage import FILTER_NAMES
from h5fast.chunking import ONE_READ_BYTES
from h5fast.errors import H5FastError
from h5fast.objects import Dataset, File
from h5fast.opened import registered
from h5fast.sizes import format_bytes

__all__ = ["UNREADABLE", "DatasetReport", "FileReport", "FilterReport", "dataset_names", "describe_file", "format_report",
           "json_report", "name_key", "open_file"]

_NOT_COMPRESSORS = {"shuffle", "fletcher32"}
_WITHOUT_OPTIONS = {"shuffle", "fletcher32", "lzf"}  # their values repeat the type and chunk shape, or a version

#: What h5py raises, at one place or another, for a file that libhdf5 cannot make sense of.
UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError)

#: Up to this many times the best number of rows a chunk, advice would be pedantry.
_GOOD_ENOUGH = 4


@dataclass(frozen=True)
class FilterReport:
    """One step of a filter pipeline: HDF5's number for it, its name, and its options as written in the file."""

    number: int
    name: str
    options: tuple[int, ...]

    def __str__(self) -> str:
        if not self.options or self.name in _WITHOUT_OPTIONS:
            return self.name
        return f"{self.name}({', '.join(map(str, self.options))})"


@dataclass(frozen=True)
class DatasetReport:
    """How one dataset is stored and read. Sizes are bytes; ``None`` where the question makes no sense.

    ``missing`` says which filter cannot be undone here, and the remedy. ``error`` is set where the dataset could not be examined, and the rest then means nothing.
    """

    name: str
    shape: tuple[int, ...] | None = None
    maxshape: tuple[int | None, ...] | None = None
    dtype: str = ""
    itemsize: int = 0
    layout: str = ""
    chunks: tuple[int, ...] | None = None
    chunks_stored: int | None = None
    filters: tuple[FilterReport, ...] = ()
    logical_bytes: int = 0
    stored_bytes: int = 0
    reader: str = ""
    missing: str | None = None
    error: str | None = None

    @property
    def ratio(self) -> float | None:
        """How many times smaller the data are stored than they are; chunks that were never written do not count."""
        if not self.stored_bytes:
            return None
        if self.chunks is None or self.chunks_stored is None:
            return self.logical_bytes / self.stored_bytes
        return min(self.logical_bytes, self.chunks_stored * self.chunk_bytes) / self.stored_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk; 0 unless chunked."""
        return 0 if self.chunks is None else self.itemsize * math.prod(self.chunks)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: one index on the first axis."""
        return self.itemsize * math.prod(self.shape[1:]) if self.shape else 0

    @property
    def compressed(self) -> bool:
        """Whether a chunk has to be decoded as a whole, not just copied from."""
        return any(step.name not in _NOT_COMPRESSORS for step in self.filters)

    @property
    def advice(self) -> tuple[str, ...]:
        """What would make random rows of this dataset faster; empty where nothing would, or where there are no rows."""
        if self.error is not None or not self.shape:
            return ()
        return tuple(text for text in (*_reader_advice(self), *_chunk_advice(self), *_codec_advice(self)) if text)


@dataclass(frozen=True)
class FileReport:
    """A file and its datasets, in the order of their names, and what of it could not even be listed (``damage``)."""

    path: str
    file_bytes: int
    datasets: tuple[DatasetReport, ...]
    damage: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be listed or examined, each with its place and the reason."""
        return (*self.damage, *(f"{report.name}: {report.error}" for report in self.datasets if report.error is not None))


def open_file(path: str, *, untrusted: bool = False) -> File:
    """The file at `path`, for reading. Every ``OSError`` names the path."""
    if untrusted:
        return File(path, "r", untrusted=True)
    with open(path, "rb"):  # FileNotFoundError, IsADirectoryError, PermissionError in the system's words
        pass
    if not h5py.is_hdf5(path):
        raise OSError(errno.EINVAL, "not an HDF5 file", path)
    try:
        file: File = File(path, "r")
        return file
    except OSError as error:
        raise OSError(errno.EIO, f"cannot be opened: {error}", path) from error


def describe_file(path: str, name: str | None = None, *, untrusted: bool = False) -> FileReport:
    """Reports on all datasets of a file, or on those at and below `name`.

    Raises ``OSError`` for a file that cannot be opened and ``KeyError`` where there is no object called `name`; both name
    the path. Groups that cannot be listed are in the report's ``damage``.
    """
    with open_file(path, untrusted=untrusted) as file:
        damage: list[str] = []
        datasets = tuple(_describe(file, found) for found in dataset_names(file, path, name, damage))
        return FileReport(path=path, file_bytes=os.path.getsize(path), datasets=datasets, damage=tuple(damage))


def dataset_names(file: File, path: str, name: str | None, damage: list[str]) -> Iterator[str]:
    """Names of all datasets of a file, or of those at and below `name`; groups that cannot be listed are told to `damage`.

    Raises:
        KeyError: there is no object called `name`.
    """
    top: Any = file
    if name is not None:
        try:
            top = file[name]
        except (KeyError, ValueError, RuntimeError) as error:  # ValueError: a name with a NUL byte
            raise KeyError(f"{path}: no object {name!r} in the file ({_reason(error, file, name)})") from error
        if not isinstance(top, h5py.Group):
            yield top.name
            return
    below: list[str] = []
    try:
        # Names of objects, each once; links that leave the file or repeat an object are left out. What is no UTF-8 comes as bytes.
        top.visit(lambda found: below.append(os.fsdecode(found)))
    except UNREADABLE:
        below = _names_around_damage(top, damage)
    prefix = "" if top.name == "/" else top.name
    for relative in sorted(below):
        if _may_be_dataset(top, relative):
            yield f"{prefix}/{relative}"


def _names_around_damage(top: h5py.Group, damage: list[str]) -> list[str]:
    """What ``top.visit`` gives, one group at a time: groups that cannot be listed are left out, and told to `damage`."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        prefix = pending.pop()
        place = f"{top.name.rstrip('/')}/{prefix}".rstrip("/") or "/"
        try:
            group = top[prefix] if prefix else top
            if _seen_before(group, seen):
                continue
            names = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
        except UNREADABLE as error:
            damage.append(f"group {place!r} cannot be listed: {_one_line(error)}")
            continue
        for name in names:
            relative = f"{prefix}/{name}".lstrip("/")
            (pending if _is_group(group, name) else found).append(relative)
    return found


def _seen_before(group: h5py.Group, seen: set[tuple[int, int]]) -> bool:
    about = h5py.h5o.get_info(group.id)
    known = (about.fileno, about.addr) in seen
    seen.add((about.fileno, about.addr))
    return known


def _is_group(group: h5py.Group, name: str) -> bool:
    try:
        return issubclass(group.get(name, getclass=True), h5py.Group)
    except UNREADABLE:
        return False


def _may_be_dataset(top: Any, name: str) -> bool:
    try:
        return issubclass(top.get(name_key(name), getclass=True), h5py.Dataset)
    except UNREADABLE:
        return True  # the report on it says what is wrong


def name_key(name: str) -> str | bytes:
    """A name of :func:`dataset_names` as h5py finds it: one that is no UTF-8 as bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _describe(file: File, key: str) -> DatasetReport:
    name = os.fsencode(key).decode("utf-8", "backslashreplace")
    try:
        dataset = file[name_key(key)]
        if not isinstance(dataset, Dataset):
            return DatasetReport(name, error=f"a {type(dataset).__name__.lower()}, not a dataset")
        return _describe_dataset(dataset, name)
    except (H5FastError, *UNREADABLE) as error:
        return DatasetReport(name, error=_reason(error, file, name))


def _describe_dataset(dataset: Dataset, name: str) -> DatasetReport:
    dtype = dataset.dtype
    text = h5py.check_string_dtype(dtype)
    variable = text is not None and text.length is None
    behind = registered(dataset)
    layout, chunks_stored, stored_bytes = _storage(dataset) if behind is None else behind.storage(dataset)
    return DatasetReport(
        name=name,
        shape=dataset.shape,
        maxshape=dataset.maxshape,
        dtype="string" if variable else str(dtype),
        itemsize=dtype.itemsize,
        layout=layout,
        chunks=dataset.chunks,
        chunks_stored=chunks_stored,
        filters=tuple(_filters(dataset)),
        missing=plugins.missing(dataset.id.get_create_plist()),
        logical_bytes=dataset.nbytes if dataset.shape is not None else 0,
        stored_bytes=stored_bytes,
        reader=dataset.reader,
    )


def _storage(dataset: Dataset) -> tuple[str, int | None, int]:
    """Layout, stored chunks, and bytes that they take."""
    chunks = dataset.id.get_num_chunks() if dataset.chunks is not None else None
    return _layout(dataset), chunks, dataset.id.get_storage_size()


def _layout(dataset: Dataset) -> str:
    if dataset.shape is None:
        return "null"
    if dataset.chunks is not None:
        return "chunked"
    if dataset.is_virtual:
        return "virtual"
    if dataset.external:
        return "external"
    compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
    return "compact" if compact else "contiguous"


def _filters(dataset: Dataset) -> Iterator[FilterReport]:
    for number, options, label in plugins.pipeline(dataset.id.get_create_plist()):
        name = FILTER_NAMES.get(number) or label.decode(errors="replace") or f"filter {number}"
        yield FilterReport(number, name, options)


# Advice.


def _reader_advice(report: DatasetReport) -> Iterator[str]:
    if not report.reader.startswith("general") or report.missing is not None:
        return
    reason = report.reader.partition(":")[2].strip() or "of the way it is stored"
    yield f"HDF5 itself reads it, without threads: {reason}"
    if any(step.name in ("szip", "nbit", "scale-offset") for step in report.filters):
        yield "lzf, gzip, lz4 or zstd chunks are decoded by h5fast's own threads"


def _chunk_advice(report: DatasetReport) -> Iterator[str]:
    if report.chunks is None or report.shape is None:
        return
    spans = math.prod(-(-length // chunk) for length, chunk in zip(report.shape[1:], report.chunks[1:], strict=True))
    least = max(1, ONE_READ_BYTES // max(1, report.row_bytes))
    most = least * _GOOD_ENOUGH
    rows = min(report.chunks[0], report.shape[0])
    row_chunk = (least, *report.shape[1:])
    if spans > 1:
        yield f"a row lies in {spans:,} chunks: with chunks={row_chunk} it lies in one"
    elif report.compressed and rows > most:
        yield (
            f"a chunk holds {rows:,} rows, and a random row decodes it for one of them: "
            f"{least:,} to {most:,} rows a chunk, such as chunks={row_chunk}, suit random rows"
        )
    elif report.chunk_bytes * _GOOD_ENOUGH < ONE_READ_BYTES and rows < report.shape[0]:
        yield f"a chunk holds only {format_bytes(report.chunk_bytes)}: with chunks={row_chunk} there are fewer to find"


def _codec_advice(report: DatasetReport) -> Iterator[str]:
    if not report.compressed or report.ratio is None:
        return
    if report.ratio < 1.1:
        saved = f"only {1 - 1 / report.ratio:.0%}" if report.ratio > 1 else "nothing"
        yield f"the filters save {saved}: without them, rows are copied and nothing is decoded"
        return
    for step in report.filters:
        if step.name in ("gzip", "bzip2"):
            yield f"lzf, lz4 and zstd decode faster than {step.name}, for a larger file"


# Writing it down.


def json_report(report: FileReport) -> str:
    """The report as JSON, with what follows from it: ratio and advice."""
    content = dataclasses.asdict(report)
    for entry, dataset in zip(content["datasets"], report.datasets, strict=True):
        entry["ratio"] = dataset.ratio
        entry["advice"] = dataset.advice
    return json.dumps(content, indent=2)


def format_report(report: FileReport) -> str:
    """The report as text, one paragraph for each dataset."""
    count = len(report.datasets)
    head = f"{report.path}: {format_bytes(report.file_bytes)}, {count} dataset{'s' if count != 1 else ''}"
    damage = [f"damaged\n  error    {text}" for text in report.damage]
    return "\n\n".join([head, *damage, *map(_format_dataset, report.datasets)])


def _format_dataset(report: DatasetReport) -> str:
    if report.error is not None:
        return f"{report.name}\n  error    {report.error}"
    shape = "no shape" if report.shape is None else str(report.shape)
    lines = [
        f"{report.name}  {report.dtype} {shape}, {format_bytes(report.logical_bytes)}",
        f"  layout   {_format_layout(report)}",
    ]
    if report.maxshape != report.shape and report.maxshape is not None:
        limits = ", ".join("any" if length is None else str(length) for length in report.maxshape)
        lines.append(f"  grows to ({limits})")
    if report.filters:
        lines.append(f"  filters  {', then '.join(map(str, report.filters))}")
    if report.ratio is not None and report.filters:
        times = f"{report.ratio:.2f} times smaller" if report.ratio >= 1 else f"{1 / report.ratio:.2f} times larger"
        lines.append(f"  stored   {format_bytes(report.stored_bytes)}, {times}")
    lines.append(f"  reader   {report.reader}")
    lines += [f"  {'faster' if place == 0 else '      '}   {text}" for place, text in enumerate(report.advice)]
    return "\n".join(lines)


def _format_layout(report: DatasetReport) -> str:
    if report.chunks is None:
        return report.layout
    return f"{report.chunks_stored:,} chunks of {report.chunks}, {format_bytes(report.chunk_bytes)} each"


def _reason(error: BaseException, file: File, name: str) -> str:
    """What is wrong with a member, without its name and file, which the reports state themselves."""
    return _one_line(error).removesuffix(f": {name!r} in {file.filename}")


def _one_line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
