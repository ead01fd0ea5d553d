"""The process that parses a file nobody vouches for: it opens the file with libhdf5, under limits, and answers questions.

Started by :mod:`process` as an interpreter of its own. It may crash, hang or lie; it is asked again by nobody once it did. It
reads what describes the data, never the data, and loads no plugin: ``HDF5_PLUGIN_PRELOAD`` is ``::`` here, which switches them
off.
"""

from __future__ import annotations

import codecs
import os
import resource
from collections import deque
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5l, h5o, h5p, h5s

from h5fast import layout, plugins
from h5fast.untrusted import kinds, messages

__all__ = ["main"]

# Python imports a codec when it first meets its name, which it cannot once nothing can be opened.
for _codec in ("ascii", "latin-1", "utf-8"):
    codecs.lookup(_codec)

# What h5py raises for a file that libhdf5 cannot make sense of.
_UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError)
_REASON_LENGTH = 300
_PAGE_BYTES = resource.getpagesize()
_LINKS = {h5l.TYPE_HARD: "hard", h5l.TYPE_SOFT: "soft", h5l.TYPE_EXTERNAL: "external"}


def main(descriptor: int, answers: int, memory: int, cpu_seconds: int) -> None:
    """Answers questions from standard input about the file behind a descriptor, until there are no more.

    Args:
        answers: descriptor that answers are written to
        memory: bytes that may be allocated beyond those in use when the limits are set
        cpu_seconds: of processor time, for each question
    """
    _limit(memory)
    with os.fdopen(answers, "wb", buffering=0) as out, open(0, "rb", buffering=0, closefd=False) as questions:
        _write(out, {"ready": True})
        file: _File | None = None
        while True:
            head = questions.read(messages.HEAD_BYTES)
            if not head:
                return
            text, _ = messages.lengths(head, 1 << 16)
            question = messages.parse(questions.read(text))
            _allow(cpu_seconds)
            payload: Any = b""
            try:
                if file is None:
                    file = _File(descriptor)
                content, payload = file.answer(question)
            except MemoryError:
                content = {"error": f"it needs more than {memory >> 20} MiB of memory"}
            except _UNREADABLE as error:
                content = {"error": _reason(error), "errno": getattr(error, "errno", None)}
            _write(out, content, payload)


def _limit(memory: int) -> None:
    """No files written, no processes, no core, little memory. Descriptors: one more, for the file."""
    if os.path.exists("/proc/self/statm"):  # elsewhere than on Linux the kernel does not tell, nor hold to this limit
        with open("/proc/self/statm", "rb") as status:
            in_use = int(status.read().split()[0]) * _PAGE_BYTES
        _set(resource.RLIMIT_AS, in_use + memory)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NPROC, 0)
    _set(resource.RLIMIT_NOFILE, 64)


def _set(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def _allow(cpu_seconds: int) -> None:
    """So much processor time from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _write(out: BinaryIO, content: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    behind = memoryview(payload if len(payload) else b"").cast("B")
    for part in (memoryview(messages.begin(content, behind.nbytes)), behind):
        rest = part
        while rest:
            rest = rest[out.write(rest):]


def _reason(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_REASON_LENGTH]


class _File:
    """The file, and its objects in the order in which links lead to them; the root group is number 0."""

    def __init__(self, descriptor: int) -> None:
        self._file = h5py.File(f"/dev/fd/{descriptor}", "r")
        # From here on nothing can be opened: no source of a virtual dataset, no external file, no plugin.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        self._datasets: dict[int, h5d.DatasetID] = {}

    def answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
        """JSON, and the bytes behind it."""
        ask = question.get("ask")
        if ask == "tree":
            return self._tree()
        dataset = self._datasets[question["dataset"]]
        found = layout.describe(h5py.Dataset(dataset), own_filters=True)
        if ask == "index":
            return {}, layout.build_index(dataset, found).table().data
        return {}, layout.read_compact(dataset, found).tobytes()

    def _tree(self) -> tuple[dict[str, Any], bytes]:
        """All objects, each once, and the links between them."""
        objects: list[dict[str, Any]] = []
        values = _Values()
        root = h5o.open(self._file.id, b"/")
        numbers = {h5g.get_objinfo(root).objno: 0}
        pending: deque[Any] = deque([root])
        while pending:
            found = pending.popleft()
            number = len(objects)
            if isinstance(found, str):
                objects.append({"kind": "broken", "reason": found})
                continue
            try:
                entry = self._object(found, number, numbers, pending)
                entry["ordered"] = _is_ordered(found)
                entry["attributes"] = values.of(found, entry["ordered"])
            except _UNREADABLE as error:
                entry = {"kind": "broken", "reason": _reason(error)}
            objects.append(entry)
        return {"objects": objects}, values.payload()

    def _object(self, found: Any, number: int, numbers: dict[int, int], pending: deque[Any]) -> dict[str, Any]:
        if isinstance(found, h5g.GroupID):
            return self._group(found, numbers, pending)
        if isinstance(found, h5d.DatasetID):
            self._datasets[number] = found
            return _dataset(found)
        return {"kind": "type", "dtype": _kind_of(found)}

    def _group(self, group: h5g.GroupID, numbers: dict[int, int], pending: deque[Any]) -> dict[str, Any]:
        order = group.get_create_plist().get_link_creation_order()
        by_creation = bool(order & h5p.CRT_ORDER_TRACKED)
        met: list[tuple[bytes, Any, Any]] = []
        group.links.iterate(lambda name, info: met.append((name, info.type, info.u)), info=True,
                            idx_type=h5.INDEX_CRT_ORDER if by_creation else h5.INDEX_NAME)
        links = []
        for name, how, address in met:
            link: list[Any] = [_text(name), _LINKS.get(how, "other")]
            if how == h5l.TYPE_HARD:
                if address not in numbers:
                    numbers[address] = len(numbers)
                    pending.append(_opened(group, name))
                link.append(numbers[address])
            elif how in _LINKS:
                value = group.links.get_val(name)
                link += [_text(part) for part in (value if isinstance(value, tuple) else (value,))]
            links.append(link)
        return {"kind": "group", "links": links, "by_creation": by_creation}


def _opened(group: h5g.GroupID, name: bytes) -> Any:
    """The object behind a link, or why it cannot be opened."""
    try:
        return h5o.open(group, name)
    except _UNREADABLE as error:
        return _reason(error)


def _is_ordered(found: Any) -> bool:
    """Whether the attributes of an object have the order in which they were made."""
    if not isinstance(found, (h5g.GroupID, h5d.DatasetID)):
        return False
    order = found.get_create_plist().get_attr_creation_order()
    return bool(order & h5p.CRT_ORDER_TRACKED)


def _text(name: bytes) -> str:
    """As h5py shows it: what is no UTF-8 survives as surrogates, which JSON escapes."""
    return name.decode("utf-8", "surrogateescape")


def _kind_of(stored: Any) -> dict[str, Any] | None:
    try:
        dtype = stored.dtype
    except TypeError:
        return None
    return kinds.encode(dtype)


def _dataset(dataset: h5d.DatasetID) -> dict[str, Any]:
    """A dataset without its index. Of a virtual one nothing more is asked: libhdf5 would look for its sources."""
    properties = dataset.get_create_plist()
    entry: dict[str, Any] = {"kind": "dataset", "dtype": _kind_of(dataset.get_type()), "shape": None}
    if properties.get_layout() == h5d.VIRTUAL:
        return {**entry, "refused": "it is virtual: its elements lie in other datasets"}
    space = dataset.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        return {**entry, "null": True}
    entry["shape"] = list(space.get_simple_extent_dims())
    entry["maxshape"] = [None if n == h5s.UNLIMITED else n for n in space.get_simple_extent_dims(True)]
    if properties.get_layout() == h5d.CHUNKED:
        entry["chunk"] = list(properties.get_chunk())
    entry["filters"] = [[number, list(options), plugins.label(number, name)]
                        for number, options, name in plugins.pipeline(properties)]
    try:
        found = layout.describe(h5py.Dataset(dataset), own_filters=True)
    except layout.Indirect as reason:
        return {**entry, "refused": str(reason)[:_REASON_LENGTH]}
    return {**entry, "layout": found.kind, "raw_edges": found.raw_edges, "fill": found.fill.hex() if any(found.fill) else "",
            "leaves_gaps": found.leaves_gaps, "address": found.address}


class _Values:
    """The values of attributes: texts as JSON, numbers as bytes behind it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def payload(self) -> bytes:
        return b"".join(self._parts)

    def of(self, found: Any, ordered: bool) -> list[dict[str, Any]]:
        """The attributes of an object whose types can be told; the others are left out."""
        names: list[bytes] = []
        h5a.iterate(found, names.append, index_type=h5.INDEX_CRT_ORDER if ordered else h5.INDEX_NAME)
        holder = {h5g.GroupID: h5py.Group, h5d.DatasetID: h5py.Dataset}.get(type(found), h5py.Datatype)(found)
        told = []
        for name in names:
            try:
                value = self._value(found, name, holder.attrs)
            except _UNREADABLE:
                continue  # damaged, or of a type that h5py does not know: as if it were not there
            if value is not None:
                told.append({"name": _text(name), **value})
        return told

    def _value(self, found: Any, name: bytes, attributes: h5py.AttributeManager) -> dict[str, Any] | None:
        kind = kinds.encode(h5a.open(found, name).dtype)
        if kind is None:
            return None
        value = attributes[name]
        if isinstance(value, h5py.Empty):
            return {"dtype": kind, "empty": True}
        if isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.hasobject):
            texts = np.asarray(value, object)
            flat = texts.ravel().tolist()
            if not all(isinstance(one, str) for one in flat):
                return None
            return {"dtype": kind, "shape": list(texts.shape), "texts": flat}
        content = np.ascontiguousarray(value)
        if content.dtype.kind == "S":
            content = content.astype(f"S{kind['length']}")  # NumPy drops zeros at the end, and with them the length
        else:
            kind = kinds.encode(content.dtype)
        if kind is None:
            return None
        begin, stored = self._size, content.tobytes()
        self._parts.append(stored)
        self._size += len(stored)
        return {"dtype": kind, "shape": list(np.shape(value)), "bytes": [begin, len(stored)]}
