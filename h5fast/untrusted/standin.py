"""A file in memory with the groups, datasets and attributes of another, and none of its data, for h5py to describe.

It is written here, from what was checked, so that libhdf5 in this process parses nothing that a stranger wrote. Names, shapes,
types, chunks, filters and attributes are read from it as from any file. Elements are not there: libhdf5 refuses to read them,
since nothing is stored and the fill value is undefined. Links that lead elsewhere are soft links to a name that says so.
"""

from __future__ import annotations

import errno
import io
import math
import os
from collections.abc import Sequence

import h5py
import numpy as np
from h5py import h5d, h5f, h5fd, h5g, h5o, h5p, h5s, h5t, h5z

from h5fast import _index
from h5fast.errors import CorruptFileError, UnsupportedError
from h5fast.untrusted.claims import Attribute, Link, Object
from h5fast.untrusted.messages import Nonsense

__all__ = ["Elsewhere", "build", "elsewhere", "refuse_elsewhere"]

# No path in a file begins so by chance; one that does on purpose is refused for the wrong reason.
_MARK = "\x01h5fast"
_SEPARATOR = "\x01"

# libhdf5 reads these attributes of a dataset as types that it does not check.
_OF_SCALES = frozenset(("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"))


class Elsewhere(Exception):
    """A member that is not followed, with the reason; ``link`` is what it is."""

    def __init__(self, reason: str, link: h5py.ExternalLink | None, *, broken: bool = False) -> None:
        super().__init__(reason)
        self.link = link
        self.broken = broken


def build(objects: Sequence[Object]) -> tuple[h5f.FileID, dict[int, int]]:
    """The stand-in of a file, open for reading, and which number the object at each of its addresses has.

    Raises:
        Nonsense: libhdf5 cannot write such objects.
    """
    # Closed before its bytes are taken: HDF5 1.14 cannot open the image of a file that is open.
    memory = io.BytesIO()
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, memory)
    access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    first = objects[0]
    creation = h5p.create(h5p.FILE_CREATE)
    _set_order(creation, first)
    try:
        file = h5f.create(repr(memory).encode(), h5f.ACC_TRUNC, creation, access)
        try:
            addresses = _fill(file, objects)
        finally:
            file.close()
        return h5f.open_file_image(memory.getvalue()), addresses
    except (OSError, RuntimeError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise Nonsense(f"objects of which no file can be made ({' '.join(str(error).split())})") from error


def elsewhere(link: object) -> Elsewhere | None:
    """What a link of a stand-in says of a member that is not followed; None for every other link."""
    path = link.path if isinstance(link, h5py.SoftLink) else ""
    if not path.startswith(_MARK):
        return None
    kind, *target = path.removeprefix(_MARK).split(_SEPARATOR)
    if kind == "external" and len(target) == 2:
        return Elsewhere(f"it lies in another file, {target[0]!r}, and such links are not followed", h5py.ExternalLink(*target))
    if kind == "broken":
        return Elsewhere(f"libhdf5 cannot open it: {''.join(target)}", None, broken=True)
    return Elsewhere("it is a link of a kind that only its makers follow", None)


def refuse_elsewhere(group: h5py.Group, name: object, where: str) -> None:
    """Raises what the stand-in says of a member that is not followed, or of the first on the way to it; nothing for others.

    Raises:
        UnsupportedError: it is a link that leads out of the file, or of a kind that only its makers follow.
        CorruptFileError: libhdf5 cannot open it.
    """
    path = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
    # h5py's own classes: those of h5fast end here when they find nothing.
    place = h5py.Group((group.file if path.startswith("/") else group).id)
    for part in (one for one in path.split("/") if one not in ("", ".")):
        found = elsewhere(place.get(part, getlink=True))
        if found is not None and found.broken:
            raise CorruptFileError(errno.EIO, f"{where}: {path!r}: {found}")
        if found is not None:
            raise UnsupportedError(f"{where}: {path!r}: {found}; if you trust the file, open it without untrusted=True")
        place = place.get(part)
        if not isinstance(place, h5py.Group):
            return


def _set_order(properties: h5p.PropGCID | h5p.PropFCID, group: Object) -> None:
    kept = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
    properties.set_link_creation_order(kept if group.by_creation else 0)
    properties.set_attr_creation_order(kept if group.ordered else 0)


def _fill(file: h5f.FileID, objects: Sequence[Object]) -> dict[int, int]:
    root = h5g.open(file, b"/")
    made: list[h5py.h5g.GroupID | h5d.DatasetID | h5t.TypeID | None] = [root]
    for one in objects[1:]:
        made.append(_make(file, one))
    for one, identifier in zip(objects, made):
        for link in one.links:
            _link(identifier, link, objects, made)
    addresses = {}
    for number, (one, identifier) in enumerate(zip(objects, made)):
        if identifier is None or (isinstance(identifier, h5t.TypeID) and not identifier.committed()):
            continue
        _set_attributes(identifier, one)
        addresses[h5g.get_objinfo(identifier).objno] = number
    return addresses


def _make(file: h5f.FileID, one: Object) -> h5g.GroupID | h5d.DatasetID | h5t.TypeID | None:
    if one.kind == "group":
        properties = h5p.create(h5p.GROUP_CREATE)
        _set_order(properties, one)
        return h5g.create(file, None, gcpl=properties)
    if one.kind == "dataset":
        return _make_dataset(file, one)
    if one.kind == "type":
        return _type_of(one.dtype).copy()  # it is committed under the first name that leads to it
    return None


def _type_of(dtype: np.dtype | None) -> h5t.TypeID:
    """The type; where it is none that can be told, one byte that nobody can take for a number."""
    return h5t.create(h5t.OPAQUE, 1) if dtype is None else h5t.py_create(dtype, logical=True)


def _make_dataset(file: h5f.FileID, one: Object) -> h5d.DatasetID:
    stored = _type_of(one.dtype)
    properties = h5p.create(h5p.DATASET_CREATE)
    _index.undefine_fill_value(properties, stored)
    properties.set_fill_time(h5d.FILL_TIME_IFSET)
    properties.set_attr_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED if one.ordered else 0)
    if one.shape is None:
        return h5d.create(file, None, stored, h5s.create(h5s.NULL), properties)
    found = one.layout
    limits = tuple(h5s.UNLIMITED if extent is None else extent for extent in one.maxshape or one.shape)
    if found is not None and found.chunk is not None and math.prod(found.chunk) * found.dtype.itemsize < 1 << 32:
        properties.set_chunk(found.chunk)
        _set_filters(properties, found.filters)
    else:
        limits = one.shape  # only chunks can grow
    space = h5s.create_simple(one.shape, limits) if one.shape else h5s.create(h5s.SCALAR)
    return h5d.create(file, None, stored, space, properties)


def _set_filters(properties: h5p.PropDCID, filters: Sequence[tuple[int, tuple[int, ...]]]) -> None:
    for number, options in filters:
        if number == h5z.FILTER_DEFLATE:
            properties.set_deflate(min(options[0], 9) if options else 0)
        elif number == h5z.FILTER_SHUFFLE:
            properties.set_shuffle()
        elif number == h5z.FILTER_FLETCHER32:
            properties.set_fletcher32()
        else:
            properties.set_filter(number, h5z.FLAG_OPTIONAL)


def _set_attributes(identifier: h5g.GroupID | h5d.DatasetID | h5t.TypeID, one: Object) -> None:
    attributes = h5py.AttributeManager({"group": h5py.Group, "dataset": h5py.Dataset}.get(one.kind, h5py.Datatype)(identifier))
    for attribute in one.attributes:
        if one.kind == "dataset" and attribute.name in _OF_SCALES and not _is_safe(attribute, one):
            continue
        value = h5py.Empty(attribute.dtype) if attribute.value is None else attribute.value
        if attribute.value is not None and attribute.value.dtype.hasobject and not _is_writable(attribute.value):
            continue
        attributes.create(attribute.name, value, dtype=attribute.dtype)


def _is_safe(attribute: Attribute, dataset: Object) -> bool:
    value = attribute.value
    if value is None:
        return False
    if attribute.name == "DIMENSION_LABELS":
        return value.dtype.hasobject and value.shape == (len(dataset.shape or ()),)
    return attribute.name in ("CLASS", "NAME") and value.dtype.kind == "S" and value.shape == ()


def _is_writable(texts: np.ndarray) -> bool:
    """Whether libhdf5 gives these texts back as they are: those with a NUL in them end there, others are no UTF-8."""
    return all("\0" not in text and text.isascii() or _is_utf8(text) for text in texts.ravel().tolist())


def _is_utf8(text: str) -> bool:
    try:
        return "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False


def _link(group: h5g.GroupID, link: Link, objects: Sequence[Object],
          made: Sequence[h5g.GroupID | h5d.DatasetID | h5t.TypeID | None]) -> None:
    name = link.name.encode("utf-8", "surrogateescape")
    if link.kind == "hard":
        target = made[link.target[0]]
        if isinstance(target, h5t.TypeID) and not target.committed():
            target.commit(group, name)
            return
        if target is not None:
            h5o.link(target, group, name)
            return
        told = _SEPARATOR.join((f"{_MARK}broken", objects[link.target[0]].reason or ""))
    elif link.kind == "soft":
        told = link.target[0]
    else:
        told = _SEPARATOR.join((f"{_MARK}{link.kind}", *link.target))
    group.links.create_soft(name, told.encode("utf-8", "surrogateescape"))
