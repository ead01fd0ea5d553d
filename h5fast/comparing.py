"""Whether two files say the same: every link, attribute and element, to the last bit, in whatever way they are stored."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5r, h5s, h5t

from h5fast import plugins
from h5fast.boxes import boxes
from h5fast.copying import attribute_names, link_names, place_of, values_of
from h5fast.errors import H5FastError, UnsupportedError

__all__ = ["Comparison"]


class Comparison:
    """Compares two open files.

    Args:
        one, other: the files, opened by h5fast, so that native threads decode what is compared
        ignored: attributes that need not be the same
        memory: bytes for elements
    """

    def __init__(self, one: h5py.File, other: h5py.File, ignored: frozenset[str], memory: int) -> None:
        self._files = (one, other)
        self._ignored, self._memory = {name.encode() for name in ignored}, memory
        self._same: dict[tuple[int, int], tuple[int, int]] = {}  # which object of the one is which of the other
        self._met: set[tuple[int, int]] = set()  # objects of the other that one of the one is
        self._references: list[tuple[Any, Any, str]] = []  # to be compared when all objects are known

    def run(self) -> None:
        """Compares.

        Raises:
            H5FastError: they differ; the message says in what.
            UnsupportedError: they hold what h5py has no type for.
            CorruptChunkError, OSError: one of them cannot be read.
        """
        pending = [b"/"]
        self._same[place_of(self._files[0].id, b"/")] = place_of(self._files[1].id, b"/")
        self._attributes(b"/")
        while pending:
            path = pending.pop()
            groups = [h5o.open(file.id, path) for file in self._files]
            names = [link_names(group) for group in groups]
            self._check(names[0] == names[1], path, "names of links")
            for name in names[0]:
                inner = path.rstrip(b"/") + b"/" + name
                if self._link(groups, name, inner):
                    pending.append(inner)
        for mine, theirs, where in self._references:
            self._check(self._refer_alike(mine, theirs), where, "references")

    def _check(self, same: bool, where: bytes | str, what: str) -> None:
        if not same:
            place = where if isinstance(where, str) else where.decode("utf-8", "replace")
            raise H5FastError(f"{self._files[1].filename}: {place}: {what} are not those of {self._files[0].filename}")

    def _link(self, groups: list[h5g.GroupID], name: bytes, path: bytes) -> bool:
        """True if both lead to groups that are new."""
        kinds = [group.links.get_info(name).type for group in groups]
        self._check(kinds[0] == kinds[1], path, "kinds of links")
        if kinds[0] != h5l.TYPE_HARD:
            self._check(groups[0].links.get_val(name) == groups[1].links.get_val(name), path, "targets of links")
            return False
        places = [self._place(group, name, path) for group in groups]
        if places[0] in self._same:
            self._check(self._same[places[0]] == places[1], path, "objects behind the names")
            return False
        self._check(places[1] not in self._met, path, "objects behind the names")
        self._same[places[0]] = places[1]
        self._met.add(places[1])
        found = [h5o.open(group, name) for group in groups]
        self._check(type(found[0]) is type(found[1]), path, "kinds of objects")
        self._attributes(path)
        if isinstance(found[0], h5d.DatasetID):
            self._dataset(path)
        return isinstance(found[0], h5g.GroupID)

    def _place(self, group: h5g.GroupID, name: bytes, path: bytes) -> tuple[int, int]:
        try:
            return place_of(group, name)
        except RuntimeError as error:
            raise H5FastError(f"{self._files[1].filename}: {path.decode('utf-8', 'replace')}: libhdf5 cannot read what it made as a copy "
                              f"of it ({error})") from error

    def _attributes(self, path: bytes) -> None:
        objects = [h5o.open(file.id, path) for file in self._files]
        names = [[name for name in attribute_names(found) if name not in self._ignored] for found in objects]
        self._check(names[0] == names[1], path, "names of attributes")
        for name in names[0]:
            mine, theirs = (h5a.open(found, name) for found in objects)
            self._holders(mine, theirs, f"{path.decode('utf-8', 'replace')}, attribute {name.decode('utf-8', 'replace')!r}")

    def _holders(self, mine: Any, theirs: Any, where: str) -> None:
        """Attributes, or datasets, compared as wholes."""
        spaces = [holder.get_space() for holder in (mine, theirs)]
        self._check(_extent(spaces[0]) == _extent(spaces[1]), where, "shapes")
        if spaces[0].get_simple_extent_type() == h5s.NULL:
            return
        try:
            first, second = values_of(mine)[0], values_of(theirs)[0]
        except TypeError as error:
            raise UnsupportedError(f"{self._files[0].filename}: {where} cannot be read by h5py ({error}), so that nobody can tell whether "
                                   "its copy is the same: verify=False leaves that out") from error
        self._check(first.dtype == second.dtype, where, "types")
        self._check(self._alike(first, second, where), where, "values")

    def _dataset(self, path: bytes) -> None:
        mine, theirs = (file[path] for file in self._files)
        name = path.decode("utf-8", "replace")
        if mine.shape is not None and mine.is_virtual:
            name += " (made of other files, which a copy in another folder may not find)"
        self._check(_extent(mine.id.get_space()) == _extent(theirs.id.get_space()), name, "shapes")
        self._check(_fill(mine.id) == _fill(theirs.id), name, "fill values")
        if mine.shape is None:
            return
        kind = mine.id.get_type()
        try:  # opaque types have an equivalent in NumPy that HDF5 does not convert to
            fixed = not mine.dtype.hasobject and not kind.detect_class(h5t.OPAQUE) and not kind.detect_class(h5t.BITFIELD)
        except (TypeError, KeyError):
            fixed = False  # a type that NumPy lacks
        if plugins.missing(mine.id.get_create_plist()) is not None:
            self._check(_stored(mine.id) == _stored(theirs.id), name, "stored chunks")
        elif _holds_nothing(mine) and _holds_nothing(theirs):
            pass  # all of it is the fill value, which is the same
        elif not fixed or not mine.shape or not mine.size:
            self._holders(mine.id, theirs.id, name)
        else:
            self._elements(mine, theirs, name)

    def _elements(self, mine: h5py.Dataset, theirs: h5py.Dataset, name: str) -> None:
        self._check(mine.dtype == theirs.dtype and mine.id.get_type().get_class() == theirs.id.get_type().get_class(), name, "types")
        align = mine.chunks[0] if mine.chunks is not None else 1
        chunks = theirs.chunks or (1,) * len(theirs.shape)
        for box in boxes(mine.shape, chunks, mine.dtype.itemsize, self._memory // 4, align):
            first, second = np.ascontiguousarray(mine[box]), np.ascontiguousarray(theirs[box])
            same = first.shape == second.shape and np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8))
            self._check(same, f"{name}, at {tuple(part.start for part in box)}", "elements")

    def _alike(self, first: Any, second: Any, where: str) -> bool:
        """Equal bytes; references are put aside."""
        if isinstance(first, h5r.Reference):
            self._references.append((first, second, where))
            return isinstance(second, h5r.Reference)
        if isinstance(first, np.ndarray):
            if not isinstance(second, np.ndarray) or first.shape != second.shape or first.dtype != second.dtype:
                return False
            if first.dtype.names and first.dtype.hasobject:
                return all(self._alike(first[name], second[name], where) for name in first.dtype.names)
            if first.dtype == object:
                return all(self._alike(a, b, where) for a, b in zip(first.flat, second.flat, strict=True))
            return first.tobytes() == second.tobytes()
        return type(first) is type(second) and bool(first == second or (first != first and second != second))

    def _refer_alike(self, mine: Any, theirs: Any) -> bool:
        if not mine or not theirs:
            return not mine and not theirs
        one, other = self._files
        if self._same.get(place_of(h5r.dereference(mine, one.id))) != place_of(h5r.dereference(theirs, other.id)):
            return False
        if not isinstance(mine, h5r.RegionReference):
            return not isinstance(theirs, h5r.RegionReference)
        return _region(h5r.get_region(mine, one.id)) == _region(h5r.get_region(theirs, other.id))


def _holds_nothing(dataset: h5py.Dataset) -> bool:
    """Whether no element was ever written, and all of them are where others look for them: in the file."""
    properties = dataset.id.get_create_plist()
    return not dataset.is_virtual and not properties.get_external_count() and not dataset.id.get_storage_size()


def _extent(space: h5s.SpaceID) -> tuple[Any, ...]:
    kind = space.get_simple_extent_type()
    return (kind, None, None) if kind == h5s.NULL else (kind, space.get_simple_extent_dims(), space.get_simple_extent_dims(True))


def _region(space: h5s.SpaceID) -> tuple[Any, ...]:
    """Which elements are selected. (How that is encoded depends on the version of the file.)"""
    kind = space.get_select_type()
    places: bytes | None = None
    if kind == h5s.SEL_HYPERSLABS:
        places = space.get_select_hyper_blocklist().tobytes()
    elif kind == h5s.SEL_POINTS:
        places = space.get_select_elem_pointlist().tobytes()
    return (kind, space.shape, places)


def _fill(dataset: h5d.DatasetID) -> tuple[Any, ...]:
    """State and bytes of the fill value, as far as h5py can fetch it."""
    properties = dataset.get_create_plist()
    state = properties.fill_value_defined()
    try:
        dtype = dataset.dtype
        if state != h5d.FILL_VALUE_USER_DEFINED or dtype.hasobject or dtype.subdtype:
            return (state, None)
        element = np.zeros((), dtype)
        properties.get_fill_value(element)
    except (TypeError, KeyError):
        return (state, None)
    return (state, element.tobytes())


def _stored(dataset: h5d.DatasetID) -> dict[Any, tuple[int, bytes]]:
    """The chunks of a dataset as they are stored."""
    places: list[Any] = []
    dataset.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
    return {place: dataset.read_direct_chunk(place) for place in places}
