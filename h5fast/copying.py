"""A file's objects and links copied into another file, so that nothing is lost but what a recipe changes.

Groups are made anew; datasets without a recipe and committed types are copied by HDF5 itself, stored bytes and all; datasets
with one are encoded again. Links keep their kind: an object with two names has two names, soft and external links stay what they
say. References are made anew at the end, when all that they can refer to is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5l, h5o, h5p, h5r, h5s, h5t

from h5fast.boxes import boxes
from h5fast.errors import UnsupportedError

__all__ = ["Recipe", "TreeCopy", "attribute_names", "link_names", "place_of", "values_of"]

# Where committed types wait in the other file until a link to them is copied.
_TYPES = b".h5fast-types"


def link_names(group: h5g.GroupID) -> list[bytes]:
    """Names of the links of a group, in the order in which they were made where the group knows it."""
    tracked = group.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED
    names: list[bytes] = []
    group.links.iterate(_noting(names), idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME)
    return names


def attribute_names(identifier: Any) -> list[bytes]:
    """Names of the attributes of an object, in the order in which they were made where the object knows it."""
    ordered = isinstance(identifier, (h5g.GroupID, h5d.DatasetID)) and \
        identifier.get_create_plist().get_attr_creation_order() & h5p.CRT_ORDER_TRACKED
    names: list[bytes] = []
    h5a.iterate(identifier, _noting(names), index_type=h5.INDEX_CRT_ORDER if ordered else h5.INDEX_NAME)
    return names


def _noting(names: list[bytes]) -> Callable[[bytes], None]:
    def note(name: bytes) -> None:
        names.append(name)
    return note


def place_of(identifier: Any, name: bytes | None = None) -> tuple[int, int]:
    """What tells an object from others, whatever its names are: an open one, or the one of this name."""
    about = h5o.get_info(identifier) if name is None else h5o.get_info(identifier, name)
    return about.fileno, about.addr


def values_of(holder: h5a.AttrID | h5d.DatasetID) -> tuple[np.ndarray[Any, Any], h5t.TypeID]:
    """All elements of an attribute or dataset, and the type to write them with: as h5py makes them where they are of variable
    length or refer to something, else as the bytes they are.

    Raises ``TypeError`` for a type that can be taken in neither way.
    """
    kind, shape = holder.get_type(), holder.get_space().get_simple_extent_dims()
    if _lists_regions(kind):
        raise TypeError("it holds lists of region references, at which h5py crashes")
    try:
        dtype = kind.dtype
    except (TypeError, KeyError):  # KeyError: of the VAX's order of bytes
        if any(map(kind.detect_class, (h5t.VLEN, h5t.REFERENCE, h5t.STRING))):
            raise
        dtype = None
    plain = dtype is None or not dtype.hasobject
    values: np.ndarray[Any, Any] = np.zeros(shape, f"V{kind.get_size()}") if plain else np.empty(shape, dtype)
    memory = kind if plain else h5t.py_create(dtype)
    if isinstance(holder, h5a.AttrID):
        holder.read(values, memory)
    elif values.size:
        holder.read(h5s.ALL, h5s.ALL, values, memory)
    return values, memory


class Recipe(Protocol):
    """What becomes of a dataset that is not copied as it is."""

    def create(self, source: h5py.Dataset, group: h5g.GroupID, name: bytes, kind: h5t.TypeID, links: h5p.PropLCID | None = None
               ) -> h5d.DatasetID:
        """An empty dataset in its place, of this type."""

    def fill(self, source: h5py.Dataset, target: h5py.Dataset, memory: int, check: Callable[[], None]) -> None:
        """Writes its elements, but for references, which are made anew later."""

    def chosen(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which of all elements of the source it has."""


class TreeCopy:
    """Copies all of one file into another, empty one.

    Args:
        source: the file, open for reading
        target: the other
        recipes: by path, the datasets that are to be stored in another way
        memory: bytes for elements on their way
        check: called now and then; what it raises ends the copying
        without: names of the root that are left out
    """

    def __init__(self, source: h5py.File, target: h5py.File, recipes: Mapping[str, Recipe], memory: int,
                 check: Callable[[], None], *, without: frozenset[bytes] = frozenset()) -> None:
        self._source, self._target = source, target
        self._without = {b"/" + name for name in without}
        self._recipes = {place_of(source[path].id): recipe for path, recipe in recipes.items()}
        self._memory, self._check = memory, check
        self._paths: dict[tuple[int, int], bytes] = {}  # where each object is in the target, by its place in the source
        self._referring: list[bytes] = []  # objects that hold references, in their elements or attributes
        self._bare = h5p.create(h5p.OBJECT_COPY)
        self._bare.set_copy_object(h5o.COPY_WITHOUT_ATTR_FLAG)

    def run(self) -> None:
        """Copies.

        Raises:
            UnsupportedError: the file has something that cannot be copied faithfully; the message names it.
            CorruptChunkError, ReadError, OSError: it cannot be read, or the other not be written.
        """
        self._copy_types()
        self._paths[place_of(self._source.id, b"/")] = b"/"
        self._copy_attributes(b"/")
        pending = [b"/"]
        while pending:
            path = pending.pop()
            group, copy = h5o.open(self._source.id, path), h5o.open(self._target.id, path)
            for name in link_names(group):
                inner = path.rstrip(b"/") + b"/" + name
                if inner not in self._without and self._copy_link(group, copy, name, inner):
                    pending.append(inner)
        if self._target.id.links.exists(_TYPES):
            self._target.id.unlink(_TYPES)
        for path in self._referring:
            self._refer(path)

    def _copy_types(self) -> None:
        found: list[bytes] = []

        def note(name: bytes, about: Any) -> None:
            if about.type == h5o.TYPE_NAMED_DATATYPE:
                found.append(name)

        h5o.visit(self._source.id, note, info=True)
        if not found:
            return
        group = h5g.create(self._target.id, _TYPES)
        for number, name in enumerate(found):
            h5o.copy(self._source.id, name, group, str(number).encode())
            self._paths[place_of(self._source.id, name)] = _TYPES + b"/" + str(number).encode()

    def _copy_link(self, group: h5g.GroupID, copy: h5g.GroupID, name: bytes, path: bytes) -> bool:
        """True if it leads to a group that is new."""
        self._check()
        about = group.links.get_info(name)
        properties = h5p.create(h5p.LINK_CREATE)
        properties.set_char_encoding(about.cset)
        if about.type == h5l.TYPE_SOFT:
            copy.links.create_soft(name, group.links.get_val(name), properties)
        elif about.type == h5l.TYPE_EXTERNAL:
            copy.links.create_external(name, *group.links.get_val(name), properties)
        elif about.type == h5l.TYPE_HARD:
            return self._copy_object(group, copy, name, path, properties)
        else:
            raise UnsupportedError(f"{self._source.filename}: the link {_text(path)!r} is of a kind ({about.type}) that only its makers "
                                   "know")
        return False

    def _copy_object(self, group: h5g.GroupID, copy: h5g.GroupID, name: bytes, path: bytes, properties: h5p.PropLCID) -> bool:
        place = place_of(group, name)
        known = self._paths.get(place)
        self._paths[place] = path if known is None or known.startswith(_TYPES) else known
        if known is not None:
            copy.links.create_hard(name, self._target.id, known, properties)
            return False
        found = h5o.open(group, name)
        if isinstance(found, h5g.GroupID):
            h5g.create(copy, name, properties, _group_properties(found))
            self._copy_attributes(path)
            return True
        if place in self._recipes:
            self._recode(found, self._recipes[place], copy, name, path, properties)
        elif isinstance(found, h5d.DatasetID):
            self._copy_dataset(found, copy, name, path, properties)
        else:
            raise UnsupportedError(f"{self._source.filename}: {_text(path)!r} is neither group nor dataset nor type")
        return False

    def _copy_dataset(self, found: h5d.DatasetID, copy: h5g.GroupID, name: bytes, path: bytes, properties: h5p.PropLCID) -> None:
        # HDF5 gives its copy a committed type of its own, without a name. (Asked to look for one, HDF5 2.0 may crash.)
        if found.get_type().committed():
            made = h5d.create(copy, name, self._type(found.get_type()), found.get_space(), found.get_create_plist(), properties)
            if found.get_space().get_simple_extent_type() != h5s.NULL and found.get_storage_size():
                _move_elements(found, made, self._memory)
            self._copy_attributes(path)
        elif any(h5a.open(found, each).get_type().committed() for each in attribute_names(found)):
            h5o.copy(self._source.id, path, copy, name, self._bare, properties)
            self._copy_attributes(path)
        else:
            h5o.copy(self._source.id, path, copy, name, None, properties)
            if _refers(found):
                self._referring.append(path)

    def _recode(self, found: h5d.DatasetID, recipe: Recipe, copy: h5g.GroupID, name: bytes, path: bytes,
                properties: h5p.PropLCID) -> None:
        source = self._source[path]
        made = recipe.create(source, copy, name, self._type(found.get_type()), properties)
        self._copy_attributes(path)
        recipe.fill(source, h5py.Dataset(made), self._memory, self._check)

    def _type(self, kind: h5t.TypeID) -> h5t.TypeID:
        """The same type in the target: the committed one, if it is."""
        path = self._paths.get(place_of(kind)) if kind.committed() else None
        return kind.copy() if path is None else h5t.open(self._target.id, path)

    def _copy_attributes(self, path: bytes) -> None:
        source, target = h5o.open(self._source.id, path), h5o.open(self._target.id, path)
        for name in attribute_names(source):
            attribute = h5a.open(source, name)
            kind = attribute.get_type()
            made = h5a.create(target, name, self._type(kind), attribute.get_space())
            if attribute.get_space().get_simple_extent_type() != h5s.NULL and not kind.detect_class(h5t.REFERENCE):
                try:
                    made.write(*_pointers_of(attribute) if kind.detect_class(h5t.VLEN) else values_of(attribute))
                except TypeError as error:
                    raise UnsupportedError(f"{self._source.filename}: the attribute {_text(name)!r} of {_text(path)!r} cannot be "
                                           f"read by h5py: {error}") from error
        if _refers(source):
            self._referring.append(path)
        comment = h5g.open(self._source.id, b"/").get_comment(path)
        if comment:
            h5g.open(self._target.id, b"/").set_comment(path, comment)

    def _refer(self, path: bytes) -> None:
        """Makes the references that an object holds refer to the copies of what they refer to."""
        source, target = h5o.open(self._source.id, path), h5o.open(self._target.id, path)
        for name in attribute_names(source):
            attribute = h5a.open(source, name)
            if _holds_references(attribute):
                values, memory = self._values(attribute, f"the attribute {_text(name)!r} of {_text(path)!r}")
                h5a.open(target, name).write(values, memory)
        if isinstance(source, h5d.DatasetID) and _holds_references(source) and source.get_storage_size():
            values, memory = self._values(source, _text(path))
            recipe = self._recipes.get(place_of(source))
            if recipe is not None:
                values = np.ascontiguousarray(recipe.chosen(values))
            target.write(h5s.ALL, h5s.ALL, values, memory)

    def _values(self, holder: Any, where: str) -> tuple[np.ndarray[Any, Any], h5t.TypeID]:
        try:
            values, memory = values_of(holder)
            return self._translated(values), memory
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise UnsupportedError(f"{self._source.filename}: references of {where} cannot be made anew: {error}") from error

    def _translated(self, value: Any) -> Any:
        """The same with every reference replaced; arrays are changed in place."""
        if isinstance(value, h5r.Reference):
            return self._reference(value) if value else value
        if isinstance(value, np.ndarray) and value.dtype.names:
            for name in value.dtype.names:
                if value.dtype[name].hasobject:
                    value[name][...] = self._translated(value[name])
        elif isinstance(value, np.ndarray) and value.dtype == object:
            flat = value.reshape(-1)
            for place, element in enumerate(flat):
                flat[place] = self._translated(element)
            return flat.reshape(value.shape)
        return value

    def _reference(self, reference: h5r.Reference) -> h5r.Reference:
        path = self._paths.get(place_of(h5r.dereference(reference, self._source.id)))
        if path is None:
            raise ValueError("one refers to an object that has no name in the file")
        if isinstance(reference, h5r.RegionReference):
            if h5r.get_region(reference, self._source.id).shape != h5o.open(self._target.id, path).shape:
                raise ValueError(f"one refers to elements of {_text(path)!r}, of which not all are there")
            return h5r.create(self._target.id, path, h5r.DATASET_REGION, h5r.get_region(reference, self._source.id))
        return h5r.create(self._target.id, path, h5r.OBJECT)


def _lists_regions(kind: h5t.TypeID) -> bool:
    """Whether there are lists of region references. h5py makes room for objects in place of them, which are shorter."""
    if isinstance(kind, h5t.TypeCompoundID):
        return any(_lists_regions(kind.get_member_type(place)) for place in range(kind.get_nmembers()))
    if isinstance(kind, (h5t.TypeVlenID, h5t.TypeArrayID)):
        inner = kind.get_super()
        return _lists_regions(inner) or (isinstance(kind, h5t.TypeVlenID) and inner.equal(h5t.STD_REF_DSETREG))
    return False


def _pointers_of(attribute: h5a.AttrID) -> tuple[np.ndarray[Any, Any], h5t.TypeID]:
    """Lists as HDF5 has them in memory, where they are pointers; what these point to is freed with the process. h5py writes texts of
    fixed length in them (MATLAB's names of fields) without their ends, and swaps the bytes of big-endian numbers."""
    kind = attribute.get_type()
    values = np.zeros(attribute.shape, f"V{kind.get_size()}")
    attribute.read(values, kind)
    return values, kind


def _group_properties(group: h5g.GroupID) -> h5p.PropGCID:
    """Creation properties of a group, without what HDF5 leaves in them: where the links of this very group are stored."""
    found, made = group.get_create_plist(), h5p.create(h5p.GROUP_CREATE)
    made.set_link_creation_order(found.get_link_creation_order())
    made.set_attr_creation_order(found.get_attr_creation_order())
    made.set_attr_phase_change(*found.get_attr_phase_change())
    made.set_obj_track_times(found.get_obj_track_times())
    return made


def _move_elements(source: h5d.DatasetID, target: h5d.DatasetID, memory: int) -> None:
    """Copies elements through memory, those of fixed size a part at a time."""
    shape, kind = source.shape, source.get_type()
    if not shape or any(map(kind.detect_class, (h5t.VLEN, h5t.REFERENCE, h5t.STRING))):
        if not kind.detect_class(h5t.REFERENCE):  # these are made anew
            target.write(h5s.ALL, h5s.ALL, *values_of(source))
        return
    properties = source.get_create_plist()
    chunks = properties.get_chunk() if properties.get_layout() == h5d.CHUNKED else (1,) * len(shape)
    for box in boxes(shape, chunks, kind.get_size(), memory // 2):
        extent = tuple(part.stop - part.start for part in box)
        space, values = source.get_space(), np.zeros(extent, f"V{kind.get_size()}")
        space.select_hyperslab(tuple(part.start for part in box), extent)
        source.read(h5s.create_simple(extent), space, values, kind)
        target.write(h5s.create_simple(extent), space, values, kind)


def _holds_references(holder: h5a.AttrID | h5d.DatasetID) -> bool:
    return bool(holder.get_type().detect_class(h5t.REFERENCE)) and holder.get_space().get_simple_extent_type() != h5s.NULL


def _refers(identifier: Any) -> bool:
    return (isinstance(identifier, h5d.DatasetID) and _holds_references(identifier)) or \
        any(_holds_references(h5a.open(identifier, name)) for name in attribute_names(identifier))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
