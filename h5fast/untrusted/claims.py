"""What the other process says of a file, checked field by field; what comes out can be relied on.

Pure arithmetic: nothing here asks, reads or allocates in proportion to a number that was not checked. What is wrong with one
dataset is kept as its ``fault``, raised when it is read; what is wrong with the whole is :class:`Nonsense` at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from h5fast import plugins
from h5fast._storage import FILTER_NAMES
from h5fast.layout import Layout
from h5fast.untrusted import kinds
from h5fast.untrusted.kinds import parts, whole_number
from h5fast.untrusted.messages import Nonsense

__all__ = ["Attribute", "Link", "Object", "check_index", "objects_of"]

_MAX_RANK = 32  # H5S_MAX_RANK
_MAX_EXTENT = (1 << 63) - 1
_MAX_FILTERS = 32  # H5Z_MAX_NFILTERS
_MAX_OPTIONS = 1 << 16
_MAX_CHUNK_EXTENT = (1 << 32) - 1
_MAX_COMPACT = 1 << 16
_TEXT = 300
_LINK_PARTS = {"hard": 1, "soft": 1, "external": 2, "other": 0}


@dataclass(frozen=True, slots=True)
class Link:
    """A member of a group: `kind` is "hard", "soft", "external" or "other"; `target` a number of an object, or names."""

    name: str
    kind: str
    target: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a type that can be told; no value is HDF5's empty."""

    name: str
    dtype: np.dtype
    value: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Object:
    """One object of the file.

    Attributes:
        kind: "group", "dataset", "type", or "broken" where libhdf5 could not open it
        attributes, ordered: those whose types can be told, and whether they are in the order of their creation
        links, by_creation: of a group, and whether they are in the order of their creation
        dtype: of a dataset or type; None where it cannot be told
        shape, maxshape: of a dataset; None where it has none
        layout: of a dataset that can be read; else `reason` says why not
        reason: of a dataset, why it cannot be read here; of what is broken, what libhdf5 said
        fault: what is contradictory in the description of a dataset, if anything is
        is_empty: of a dataset, whether it is HDF5's empty: a type, and no element
    """

    kind: str
    attributes: tuple[Attribute, ...] = ()
    ordered: bool = False
    links: tuple[Link, ...] = ()
    by_creation: bool = False
    dtype: np.dtype | None = None
    shape: tuple[int, ...] | None = None
    maxshape: tuple[int | None, ...] | None = None
    layout: Layout | None = None
    reason: str | None = None
    fault: str | None = None
    is_empty: bool = False


def objects_of(content: dict[str, Any], payload: bytes, file_size: int) -> list[Object]:
    """All objects of a file; number 0 is the root group.

    Raises:
        Nonsense: what was told is no such list.
    """
    told = _list(content.get("objects"), file_size, "objects")
    if not told or not isinstance(told[0], dict) or told[0].get("kind") != "group":
        reason = told[0].get("reason") if told and isinstance(told[0], dict) else None
        raise Nonsense(f"no root group that can be read{'' if reason is None else f': {_words(reason)}'}")
    return [_object(one, payload, len(told), file_size) for one in told]


def _object(told: Any, payload: bytes, count: int, file_size: int) -> Object:
    if not isinstance(told, dict):
        raise Nonsense("an object that is none")
    kind, ordered = told.get("kind"), told.get("ordered") is True
    if kind == "broken":
        return Object("broken", reason=_words(told.get("reason")))
    attributes = tuple(_attribute(one, payload) for one in _list(told.get("attributes"), file_size, "attributes"))
    if len({attribute.name for attribute in attributes}) != len(attributes):
        raise Nonsense("an object with two attributes of one name")
    if kind == "group":
        links = tuple(_link(one, count) for one in _list(told.get("links"), file_size, "links"))
        if len({link.name for link in links}) != len(links):
            raise Nonsense("a group with two members of one name")
        return Object("group", attributes, ordered, links=links, by_creation=told.get("by_creation") is True)
    dtype = None if told.get("dtype") is None else kinds.decode(told["dtype"])
    if kind == "type":
        return Object("type", attributes, dtype=dtype)
    if kind != "dataset":
        raise Nonsense("an object of a kind that there is not")
    return replace(_dataset(told, attributes, dtype, file_size), ordered=ordered)


def _link(told: Any, count: int) -> Link:
    if not isinstance(told, list) or len(told) < 2:
        raise Nonsense("a link that is none")
    name, kind, target = _name(told[0]), told[1], told[2:]
    if not isinstance(kind, str) or _LINK_PARTS.get(kind) != len(target):
        raise Nonsense("a link that is none")
    if "/" in name or name == ".":
        raise Nonsense("a member whose name is a path")
    if kind == "hard":
        return Link(name, kind, (whole_number(target[0], 0, count - 1, "number of an object"),))
    return Link(name, kind, tuple(_name(part) for part in target))


def _attribute(told: Any, payload: bytes) -> Attribute:
    if not isinstance(told, dict):
        raise Nonsense("an attribute that is none")
    name, dtype = _name(told.get("name")), kinds.decode(told.get("dtype"))
    if told.get("empty") is True:
        return Attribute(name, dtype, None)
    shape = _extents(told.get("shape"), "shape of an attribute")
    if dtype.kind == "O":
        texts = _list(told.get("texts"), 1 << 24, "texts of an attribute")
        if len(texts) != math.prod(shape) or not all(isinstance(text, str) for text in texts):
            raise Nonsense("an attribute with other texts than it has")
        value = np.empty(len(texts), dtype)
        value[:] = texts
        return Attribute(name, dtype, value.reshape(shape))
    begin, length = parts(told.get("bytes"), 2)
    begin = whole_number(begin, 0, len(payload), "place of an attribute")
    length = whole_number(length, 0, len(payload) - begin, "length of an attribute")
    if length != math.prod(shape) * dtype.itemsize:
        raise Nonsense("an attribute of another length than its shape says")
    try:
        return Attribute(name, dtype, np.ndarray(shape, dtype, payload, begin))
    except ValueError as error:  # no element, and axes that together are too long
        raise Nonsense(f"an attribute that is none ({error})") from error


def _dataset(told: dict[str, Any], attributes: tuple[Attribute, ...], dtype: np.dtype | None, file_size: int) -> Object:
    reason = None if told.get("refused") is None else _words(told["refused"])
    if told.get("shape") is None:
        is_empty = reason is None and told.get("null") is True
        return Object("dataset", attributes, dtype=dtype, reason=reason or "it is empty", is_empty=is_empty)
    shape = _extents(told["shape"], "shape of a dataset")
    most = _list(told.get("maxshape"), _MAX_RANK, "limits of a shape")
    if len(most) != len(shape):
        raise Nonsense("a dataset whose limits have another rank")
    maxshape = tuple(None if one is None else whole_number(one, extent, _MAX_EXTENT, "limit of a shape")
                     for one, extent in zip(most, shape))
    layout = None
    fault = None
    try:
        filters = _filters(told)
        foreign = next((label for number, _, label in filters if not plugins.is_own(number)), None)
        if foreign is not None:
            reason = f"its filter {foreign} is not one of h5fast's own"
        if dtype is not None and dtype.itemsize * math.prod(max(extent, 1) for extent in shape) > _MAX_EXTENT:
            reason = f"it has more than {_MAX_EXTENT} bytes"
        if reason is None:
            pipeline = tuple((number, options) for number, options, _ in filters)
            layout = _layout(told, shape, maxshape, dtype, pipeline, file_size)
    except Nonsense as error:
        fault = str(error)
    return Object("dataset", attributes, dtype=dtype, shape=shape, maxshape=maxshape, layout=layout, reason=reason, fault=fault)


def _layout(told: dict[str, Any], shape: tuple[int, ...], maxshape: tuple[int | None, ...], dtype: np.dtype | None,
            filters: tuple[tuple[int, tuple[int, ...]], ...], file_size: int) -> Layout:
    """The layout of a dataset whose extents and filters are checked.

    Raises:
        Nonsense: the rest does not go with them, or with the size of the file.
    """
    kind = told.get("layout")
    if dtype is None or dtype.hasobject or kind not in ("chunked", "contiguous", "compact"):
        raise Nonsense("a dataset of no type or layout that there is")
    nbytes = dtype.itemsize * math.prod(shape)
    chunk = None
    if kind == "chunked":
        chunk = tuple(whole_number(extent, 1, _MAX_CHUNK_EXTENT, "extent of a chunk")
                      for extent in _list(told.get("chunk"), _MAX_RANK, "extents of a chunk"))
        if len(chunk) != len(shape) or dtype.itemsize * math.prod(chunk) >= 1 << 62:
            raise Nonsense("chunks that do not go with the dataset")
    elif filters:
        raise Nonsense("filters without chunks")
    if kind == "compact" and nbytes > _MAX_COMPACT:
        raise Nonsense(f"{nbytes} bytes in an object header")
    address = None
    if kind == "contiguous" and told.get("address") is not None:
        address = whole_number(told["address"], 1, _MAX_EXTENT, "address of the data")
        if address + nbytes > file_size:
            raise Nonsense(f"{nbytes} bytes of data at {address}, in a file of {file_size}")
    try:
        fill = bytes.fromhex(told.get("fill") or "")
    except (TypeError, ValueError) as error:
        raise Nonsense("a fill value that is none") from error
    if len(fill) not in (0, dtype.itemsize):  # none are zeros, which take no memory
        raise Nonsense("a fill value of another size than an element")
    return Layout(kind, shape, maxshape, chunk, dtype, filters, told.get("raw_edges") is True and bool(filters), fill,
                  told.get("leaves_gaps") is True, address)


def _filters(told: dict[str, Any]) -> list[tuple[int, tuple[int, ...], str]]:
    """Number, options and name of each. The options that h5fast's own decoders look at are checked by them."""
    found = []
    for one in _list(told.get("filters"), _MAX_FILTERS, "filters"):
        number, options, label = parts(one, 3)
        number = whole_number(number, 1, 0xFFFF, "number of a filter")
        values = tuple(whole_number(value, 0, 0xFFFFFFFF, "option of a filter")
                       for value in _list(options, _MAX_OPTIONS, "options of a filter"))
        found.append((number, values, f"{FILTER_NAMES[number]} ({number})" if number in FILTER_NAMES else _words(label)))
    return found


def check_index(table: np.ndarray, found: Layout, file_size: int) -> None:
    """Raises :class:`Nonsense` unless these can be the chunks of the dataset: (number, address, stored size, filter mask).

    Numbers ascend within the grid, each chunk lies within the file and none on another, unfiltered ones have their size.
    """
    chunk = found.chunk or ()
    grid = math.prod(-(-extent // size) for extent, size in zip(found.shape, chunk))
    number, address, size, mask = table.T
    if len(table) > min(grid, file_size):
        raise Nonsense(f"{len(table)} chunks where there can be {min(grid, file_size)}")
    if not len(table):
        return
    if np.any(number[1:] <= number[:-1]) or int(number[-1]) >= grid:
        raise Nonsense("chunks that are not in the dataset, or there twice")
    limit = np.uint64(file_size)
    if np.any(address == 0) or np.any(size == 0) or np.any(size > limit) or np.any(address > limit - size):
        raise Nonsense(f"chunks that are not within the {file_size} bytes of the file")
    order = np.argsort(address)
    if np.any(address[order][1:] - address[order][:-1] < size[order][:-1]):
        raise Nonsense("chunks that lie on each other")
    if np.any(mask > np.uint64(0xFFFFFFFF)):
        raise Nonsense("a filter mask of more than 32 filters")
    if not found.filters and np.any(size != np.uint64(found.dtype.itemsize * math.prod(chunk))):
        raise Nonsense("unfiltered chunks of another size than the chunk shape has")


def _extents(told: Any, what: str) -> tuple[int, ...]:
    return tuple(whole_number(extent, 0, _MAX_EXTENT, what) for extent in _list(told, _MAX_RANK, what))


def _list(told: Any, most: int, what: str) -> list[Any]:
    if not isinstance(told, list) or len(told) > most:
        raise Nonsense(f"{what} that are no list of at most {most}")
    return told


def _name(told: Any) -> str:
    if not isinstance(told, str) or not told or "\0" in told:
        raise Nonsense("a name that is none")
    return told


def _words(told: Any) -> str:
    """For messages: one line of printable characters."""
    if not isinstance(told, str):
        raise Nonsense("a reason that is none")
    return "".join(c if c.isprintable() else "?" for c in told[:_TEXT])
