"""Fields whose rows are datasets of their own, found by a pattern: ``samples/*/image``.

Every dataset is looked at once, when the loader is made. Where all are stored alike, their chunks make one index, and the
engine reads them as if they were the rows of one dataset; else each is opened and read when its row is needed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast import _index, layout, transform
from h5fast._selection import select
from h5fast._storage import Storage
from h5fast.costs import Costs
from h5fast.engine_column import EngineColumn, checked_crop, engine_column
from h5fast.fields import Field
from h5fast.kept_rows import KeptRows, block_starts, size_of
from h5fast.methods import reader_of
from h5fast.objects import Dataset
from h5fast.opened import describe, index_of, open_file
from h5fast.own_groups import INDEX_GROUP
from h5fast.python_column import PythonColumn, is_filtered, is_text, naming, sampled_row_bytes, text_decoder, transform_of
from h5fast.sources import Source, open_source
from h5fast.stored import Part

__all__ = ["Samples", "check_same_names", "find_samples", "is_pattern", "samples_column"]

# Samples that are read at once where they are kept.
_BLOCK = 8


@dataclass(frozen=True)
class Samples:
    """The datasets of one file that a pattern matches.

    Attributes:
        path: the file
        pattern: of names
        names: those that match, in natural order of what the stars stand for
        stars: what they stand for in each name
        first: one of them, which keeps the file open
    """

    path: str
    pattern: str
    names: list[str]
    stars: list[tuple[str, ...]]
    first: Source

    def open(self, number: int) -> Any:
        """One of the datasets."""
        found = self.first.data.file[self.names[number]]
        return found if isinstance(found, Dataset) else Dataset(found.id)


def is_pattern(name: str) -> bool:
    """Whether a field's name is a pattern."""
    return "*" in name


def find_samples(name: str, file: str | h5py.Group, pattern: str) -> Samples:
    """The datasets of a file or open group that match; a star stands for any part of one name.

    Raises:
        KeyError: none does, with pattern and file.
    """
    opened = h5py.File(file, "r") if isinstance(file, str) else None
    group: h5py.Group = file if opened is None else opened
    try:
        prefix = group.name.rstrip("/") if opened is None else ""
        found = [(stars, f"{prefix}/{path}") for stars, path in _matches(group, pattern.strip("/").split("/"))]
        where = os.path.abspath(os.fsdecode(group.file.filename))
    finally:
        if opened is not None:
            opened.close()
    if not found:
        raise KeyError(f"field {name!r}: no dataset of {where} matches {pattern!r}")
    found.sort(key=lambda one: [_natural(star) for star in one[0]])
    names = [path for _, path in found]
    first = open_source(file if opened is not None else group.file, names[0])
    return Samples(where, pattern, names, [stars for stars, _ in found], first)


def _matches(group: h5py.Group, parts: list[str]) -> list[tuple[tuple[str, ...], str]]:
    """What the stars stand for, and the path below the group, of each dataset that matches."""
    head, *rest = parts
    expression = re.compile("([^/]*)".join(map(re.escape, head.split("*"))), re.DOTALL)
    found = []
    for name in (group if "*" in head else [head]):
        match = expression.fullmatch(name)
        if match is None or name not in group or ("*" in head and name == INDEX_GROUP and group.name == "/"):
            continue
        kind = group.get(name, getclass=True)
        if rest and issubclass(kind, h5py.Group):
            inner: h5py.Group = group[name]
            found += [(match.groups() + stars, f"{name}/{path}") for stars, path in _matches(inner, rest)]
        elif not rest and issubclass(kind, h5py.Dataset):
            found.append((match.groups(), name))
    return found


def _natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key by which s_2 comes before s_10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], text


def check_same_names(fields: Mapping[str, list[Samples]]) -> None:
    """Rows of several fields belong together by what the stars stand for. Raises ``ValueError`` with the first that one
    lacks."""
    (first, reference), *others = fields.items()
    for name, found in others:
        for mine, theirs in zip(reference, found):
            if mine.stars == theirs.stars:
                continue
            have, want = set(mine.stars), set(theirs.stars)
            lacking = next((s for s in mine.stars if s not in want), None)
            which, pattern, stars = (name, theirs.pattern, lacking) if lacking is not None else (
                first, mine.pattern, next(s for s in theirs.stars if s not in have))
            raise ValueError(f"field {which!r}: {_filled(pattern, stars)!r} is not in {mine.path}, which the other fields have")


def _filled(pattern: str, stars: tuple[str, ...]) -> str:
    parts = pattern.split("*")
    return parts[0] + "".join(star + part for star, part in zip(stars, parts[1:])) if len(stars) == len(parts) - 1 else pattern


def samples_column(name: str, field: Field, found: list[Samples]) -> EngineColumn | PythonColumn:
    """The datasets of the files as rows. Those of one shape and type make arrays, others an object array of arrays.

    Raises:
        ValueError, TypeError: the field asks for what their rows cannot become.
    """
    if field.window is not None or field.layout is not None:
        raise ValueError(f"field {name!r}: samples found by a pattern have no window or layout")
    counts = tuple(len(samples.names) for samples in found)
    kinds, parts = set(), []
    first = 0
    for samples in found:
        part, alike = _examined(samples, first)
        kinds |= alike
        parts.append(part)
        first += len(samples.names)
    shape, dtype = next(iter(kinds))
    engine = [part for part in parts if part is not None]
    if len(kinds) == 1 and len(engine) == len(parts) and not is_text(field.dtype):
        return engine_column(name, field, (first, *shape), dtype, tuple(engine), None, counts)
    return _one_by_one(name, field, found, counts, (shape, dtype) if len(kinds) == 1 and dtype != object else None)


def _examined(samples: Samples, first: int) -> tuple[Part | None, set[tuple[tuple[int, ...], np.dtype]]]:
    """How the engine reads the samples of a file, None where it does not; and the shapes and types that there are."""
    kinds: set[tuple[tuple[int, ...], np.dtype]] = set()
    layouts: list[layout.Layout] | None = []
    entries: list[tuple[int, int, int, int]] = []
    with layout.phil:
        for number in range(len(samples.names)):
            dataset = samples.open(number)
            kinds.add((dataset.shape or (), dataset.dtype))
            if layouts is None:
                continue
            try:
                described = describe(dataset)
            except (layout.Indirect, layout.Virtual):
                layouts = None
                continue
            if described.kind == "compact" or (layouts and _storage_key(described) != _storage_key(layouts[0])):
                layouts = None
                continue
            layouts = layouts or [described]
            entries += _entries(dataset, described, number)
        if not layouts or len(kinds) > 1:
            return None, kinds
        try:
            file = open_file(layout.file_of(samples.first.data.id))
        except layout.Indirect:
            return None, kinds
    if file.swmr:
        return None, kinds
    one = layouts[0]
    chunk = one.chunk or tuple(max(extent, 1) for extent in one.shape)
    storage = Storage((len(samples.names), *one.shape), (1, *chunk), one.dtype.itemsize, one.filters, one.raw_edges, one.fill)
    chunks = storage, _index.ChunkIndex.of(entries), file.source
    return Part(chunks, first, len(samples.names), 0, f"{samples.path}: datasets {samples.pattern!r}"), kinds


def _storage_key(found: layout.Layout) -> tuple[Any, ...]:
    return found.kind, found.shape, found.chunk, found.dtype, found.filters, found.raw_edges, found.fill


def _entries(dataset: Any, found: layout.Layout, number: int) -> list[tuple[int, int, int, int]]:
    """The chunks of a sample, as those of one of many."""
    nbytes = found.dtype.itemsize * math.prod(found.shape)
    if found.chunk is None:
        return [] if found.address is None or nbytes == 0 else [(number, found.address, nbytes, 0)]
    grid = math.prod(-(-extent // size) for extent, size in zip(found.shape, found.chunk))
    index = index_of(dataset.id, found)
    return [(number * grid + at, address, size, mask) for at, address, size, mask in index.entries()]


def _one_by_one(name: str, field: Field, found: list[Samples], counts: tuple[int, ...],
                alike: tuple[tuple[int, ...], np.dtype] | None) -> PythonColumn:
    """Samples that are opened for each row; `alike` is their shape and type, None where they are objects."""
    ends = np.cumsum(counts)
    costs = Costs(sum(counts), is_decoded=is_filtered(found[0].open(0)))
    finish: Callable[[np.ndarray], np.ndarray] | None = None
    decode = text_decoder(name, found[0].open(0).dtype) if is_text(field.dtype) else None
    if decode is not None or alike is None:
        plain = (field.scale, field.offset, field.crop, field.dtype if decode is None else None, field.channels_first or None)
        if any(value is not None for value in plain):
            raise TypeError(f"field {name!r}: samples of different shapes or types, and strings, come as they are: no crop, "
                            "scale, offset, channels_first, or dtype but str")
        form = "samples" if decode is None else "str samples"
        crop: tuple[slice, ...] = ()
    else:
        shape, dtype = alike
        crop = checked_crop(name, field, shape)
        row_shape = select((slice(0, 1), *crop), (1, *shape), True).shape[1:]
        wanted = transform.request(dtype, row_shape, field.dtype, field.scale, field.offset, field.channels_first)
        finish = None if wanted.is_identity else transform_of(wanted)
        form = f"{wanted.dtype} {wanted.out_row_shape}"

    def sample(row: int) -> Any:
        number = int(np.searchsorted(ends, row, side="right"))
        dataset = found[number].open(int(row - (ends[number] - counts[number])))
        with naming(found[number].path, dataset.name):
            value = reader_of(dataset).by_h5py(lambda: dataset[()])
        costs.add(dataset.id.get_num_chunks() if is_filtered(dataset) else 0, size_of(np.asarray(value)))
        if decode is not None:
            text = decode(np.array(value, dataset.dtype)) if np.shape(value) == () else decode(value)
            return text[()] if text.shape == () else text
        return value

    def read(rows: np.ndarray) -> np.ndarray:
        if alike is not None and decode is None:
            return np.stack([np.asarray(sample(row))[crop] for row in rows])
        out = np.empty(len(rows), object)
        for place, row in enumerate(rows):
            out[place] = sample(row)
        return out

    rows = int(ends[-1])
    row_bytes = sampled_row_bytes(read, rows)
    starts = block_starts(list(counts), [_BLOCK] * len(counts))
    constant = all(one.first.data.file.mode == "r" and not one.first.data.file.swmr_mode for one in found)
    keeper = KeptRows(read, starts, rows * row_bytes, copies=alike is None or decode is not None) if constant else None

    def finished(wanted_rows: np.ndarray) -> np.ndarray:
        costs.touch(wanted_rows)
        taken = read(wanted_rows) if keeper is None else keeper(wanted_rows)
        return taken if finish is None else finish(taken)

    return PythonColumn(name, rows, finished, row_bytes, form, counts, keeper=keeper, parts=(costs,))
