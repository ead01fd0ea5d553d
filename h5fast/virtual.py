"""Virtual datasets whose mapping is plain: rows of other datasets one after the other, each read by its own reader.

Plain means that every mapping puts a block of whole source rows at a range of whole virtual rows, or a whole source at one
virtual row, and that no two overlap. All other virtual datasets are libhdf5's to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
import os
from typing import Any, Protocol

import h5py
from h5py import h5s
import numpy as np

from h5fast._selection import Selection, select
from h5fast.general import strided
from h5fast.layout import Indirect
from h5fast.opened import OpenFile
from h5fast.stored import Part

__all__ = ["VirtualRows"]


class RowReader(Protocol):
    """What reads a source: a reader of one dataset."""

    @property
    def path(self) -> str: ...

    def read_into(self, selection: Selection, out: np.ndarray) -> None: ...

    def parts(self) -> list[Part] | None: ...


@dataclass(frozen=True, slots=True)
class _Part:
    """Virtual rows [first, first + count), found in ``source`` from row ``source_first`` on.

    Where ``squeezed``, the whole source is the one virtual row.
    """

    first: int
    count: int
    source: h5py.Dataset
    reader: RowReader
    source_first: int
    squeezed: bool

    def read(self, rows: np.ndarray, is_range: bool, inner: tuple[slice, ...], out: np.ndarray) -> None:
        """Reads virtual rows that all lie in this part into ``out``, C-contiguous, one entry a row."""
        shape = self.source.shape
        if self.squeezed:
            once = select(inner, shape, True)
            self.reader.read_into(once, out[:1].reshape(once.shape))
            out[1:] = out[:1]
            return
        local = rows - self.first + self.source_first
        key: Any = local
        if is_range:
            step = int(local[1] - local[0]) if len(local) > 1 else 1
            key = slice(int(local[0]), int(local[-1]) + 1, step)
        self.reader.read_into(select((key, *inner), shape, True), out)


class VirtualRows:
    """The parts of a plain virtual dataset.

    Args:
        dataset: the virtual dataset
        file: its file, which the files of sources are closed with
        make_reader: makes the reader of a source

    Raises:
        Indirect: its mapping is not plain, or a source is missing or cannot be read directly.
    """

    def __init__(self, dataset: h5py.Dataset, file: OpenFile, make_reader: Callable[[h5py.Dataset], RowReader]) -> None:
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype
        self._file = file
        if not self.shape:
            raise Indirect("virtual dataset without axes")
        if dataset.id.get_access_plist().get_virtual_prefix():
            raise Indirect("virtual dataset opened with a prefix for its sources")
        plist = dataset.id.get_create_plist()
        parts = [self._part(dataset, plist, i, make_reader) for i in range(plist.get_virtual_count())]
        self._parts = sorted(parts, key=lambda part: part.first)
        for before, after in zip(self._parts, self._parts[1:]):
            if before.first + before.count > after.first:
                raise Indirect("virtual dataset whose mappings overlap")
        self._firsts = np.array([part.first for part in self._parts], np.int64)
        self._fill = np.zeros((), self.dtype)
        plist.get_fill_value(self._fill)

    def parts(self) -> list[Part] | None:
        """The ranges of rows that lie in one file each; None where they leave gaps, or a source is stored in another way."""
        found: list[Part] = []
        for part in self._parts:
            inner = None if part.squeezed or part.first != sum(p.rows for p in found) else part.reader.parts()
            if inner is None:
                return None
            for source in inner:  # of a source that is virtual itself, those that the part takes
                begin, end = part.source_first, part.source_first + part.count
                low, high = max(source.first, begin), min(source.first + source.rows, end)
                if low < high:
                    found.append(source._replace(first=part.first + low - begin, rows=high - low,
                                                 offset=source.offset + low - source.first))
        return found if sum(p.rows for p in found) == self.shape[0] else None

    def read(self, selection: Selection, out: np.ndarray) -> bool:
        """Reads a selection into ``out``; False where it is not one of rows, and nothing was read."""
        points = [axis for axis, c in enumerate(selection.coordinates) if c is not None]
        if points not in ([], [0]):
            return False
        if selection.size == 0:
            return True
        target = strided(out, selection, points)
        target = target if points else target[0]
        start, count, step, _, _ = selection.axes[0]
        listed = selection.coordinates[0]
        rows = start + step * np.arange(count, dtype=np.int64) if listed is None else listed
        inner = tuple(slice(first, first + (n - 1) * by + 1, by) for first, n, by, _, _ in selection.axes[1:])
        block = target if target.flags.c_contiguous else np.empty(target.shape, self.dtype)
        self._read_rows(rows, not points, inner, block)
        if block is not target:
            target[...] = block
        return True

    def _read_rows(self, rows: np.ndarray, is_range: bool, inner: tuple[slice, ...], out: np.ndarray) -> None:
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        for number in np.unique(owner):
            members = np.flatnonzero(owner == number)
            part = self._parts[number] if number >= 0 else None
            if part is not None:
                covered = rows[members] < part.first + part.count
                out[members[~covered]] = self._fill
                members = members[covered]
            else:
                out[members] = self._fill
            if part is None or len(members) == 0:
                continue
            adjacent = members[-1] - members[0] + 1 == len(members)
            block = out[members[0]:members[-1] + 1] if adjacent else np.empty((len(members), *out.shape[1:]), out.dtype)
            part.read(rows[members], is_range, inner, block)
            if not adjacent:
                out[members] = block

    def _part(self, dataset: h5py.Dataset, plist: Any, number: int,
              make_reader: Callable[[h5py.Dataset], RowReader]) -> _Part:
        low, extent = _box(plist.get_virtual_vspace(number), self.shape)
        if any(low[1:]) or extent[1:] != self.shape[1:]:
            raise Indirect("virtual dataset whose mappings split rows")
        source = self._source(dataset, plist.get_virtual_filename(number), plist.get_virtual_dsetname(number))
        source_low, source_extent = _box(plist.get_virtual_srcspace(number), source.shape)
        reader = make_reader(source)
        if reader.path != "direct" or source.dtype != self.dtype:
            raise Indirect("virtual dataset with a source that cannot be read directly")
        if source_extent == extent and not any(source_low[1:]) and source.shape[1:] == extent[1:] \
                and source_low[0] + extent[0] <= source.shape[0]:
            return _Part(low[0], extent[0], source, reader, source_low[0], False)
        if extent[0] == 1 and source_extent == extent[1:] == source.shape and not any(source_low):
            return _Part(low[0], 1, source, reader, 0, True)
        raise Indirect("virtual dataset whose mappings do not take whole rows of their sources")

    def _source(self, dataset: h5py.Dataset, filename: str, name: str) -> h5py.Dataset:
        if filename == ".":
            file: Any = dataset.file
        else:
            path = _find(dataset.file.filename, self._file, filename)
            try:
                file = self._file.open_another(path)
            except OSError as error:
                raise Indirect(f"virtual dataset with a source that cannot be opened ({filename})") from error
        source = file.get(name)
        if not isinstance(source, h5py.Dataset):
            raise Indirect(f"virtual dataset with a missing source ({filename}, {name})")
        return source


def _find(owner: str, opened: OpenFile, filename: str) -> str:
    """The file of a source, where libhdf5 looks for it first. What it would find elsewhere is left to it."""
    if not os.path.isabs(filename) and not opened.is_at(owner):
        raise Indirect("virtual dataset in a file that is not at its path any more")
    if os.environ.get("HDF5_VDS_PREFIX"):
        raise Indirect("virtual dataset with HDF5_VDS_PREFIX set")
    if "%" in filename:
        raise Indirect("virtual dataset with a pattern of source names")
    path = os.path.join(os.path.dirname(os.path.abspath(owner)), filename)
    if not os.path.isfile(path):
        raise Indirect(f"virtual dataset with a missing source ({filename})")
    return path


def _box(space: h5s.SpaceID, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Corner and extent of a selection, within a dataset of this shape, that is one box."""
    if space.get_select_type() == h5s.SEL_ALL:
        return (0,) * len(shape), shape
    if space.get_select_type() != h5s.SEL_HYPERSLABS:
        raise Indirect("virtual dataset with a mapping of points")
    try:
        low, high = space.get_select_bounds()
    except (ValueError, RuntimeError) as error:
        raise Indirect("virtual dataset with an unlimited mapping") from error
    extent = tuple(b - a + 1 for a, b in zip(low, high))
    if space.get_select_npoints() != math.prod(extent):
        raise Indirect("virtual dataset with a mapping that is not one box")
    return tuple(low), extent
