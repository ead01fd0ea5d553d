"""How a dataset is stored, as h5py's low level tells it, and whether h5fast may read its bytes directly.

The one module that asks h5py's low level about a dataset. The conditions for reading directly are all here: each of them
leads to wrong data somewhere if it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import h5py
from h5py._objects import phil
from h5py import h5d, h5f, h5fd, h5g, h5i, h5p, h5s, h5t
import numpy as np

from h5fast import _index, plugins

__all__ = ["Layout", "Indirect", "Virtual", "address_of", "build_index", "describe", "file_of", "has_wide_addresses", "leaves_gaps",
           "open_descriptor", "phil", "read_compact", "user_block"]

_KINDS = {h5d.COMPACT: "compact", h5d.CONTIGUOUS: "contiguous", h5d.CHUNKED: "chunked", h5d.VIRTUAL: "virtual"}


class Indirect(Exception):
    """The dataset has to be read through libhdf5; the message says why."""


class Virtual(Exception):
    """The dataset is a mapping of others, and nothing else forbids reading these directly."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one dataset is stored.

    Attributes:
        kind: "contiguous", "chunked" or "compact"
        shape, maxshape: present and maximum extent in elements; None where unlimited
        chunk: chunk shape in elements; None unless chunked
        dtype: NumPy type of an element, whose bytes are those of the file
        filters: (id, cd_values) in the order of writing
        raw_edges: whether chunks that stick out of the extent are stored unfiltered
        fill: bytes of one element of the fill value
        leaves_gaps: whether libhdf5 leaves a caller's buffer as it is where nothing is stored; ``fill`` is zeros then
        address: file offset of the first element of a contiguous dataset; None where it is not allocated
    """

    kind: str
    shape: tuple[int, ...]
    maxshape: tuple[int | None, ...]
    chunk: tuple[int, ...] | None
    dtype: np.dtype
    filters: tuple[tuple[int, tuple[int, ...]], ...]
    raw_edges: bool
    fill: bytes
    leaves_gaps: bool
    address: int | None


def describe(dataset: h5py.Dataset, *, own_filters: bool = False) -> Layout:
    """The layout of a dataset that h5fast can read directly; with `own_filters`, without any plugin being looked for.

    Raises:
        Indirect: h5fast must not read it directly.
        Virtual: it is a virtual dataset.
    """
    dataset_id = dataset.id
    space = dataset_id.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Indirect("the dataset is empty (null dataspace)")
    dtype = _check_type(dataset_id)
    create_plist = dataset_id.get_create_plist()
    kind = _KINDS.get(create_plist.get_layout(), "unknown")
    if kind == "virtual":
        raise Virtual
    if kind == "unknown":
        raise Indirect("layout unknown to h5fast")
    if kind == "contiguous" and create_plist.get_external_count() > 0:
        raise Indirect("external storage")
    if not own_filters:
        plugins.register_plugins(create_plist)
    filters = _filters(create_plist, plugins.is_own if own_filters else plugins.is_decoded_directly)
    chunk = create_plist.get_chunk() if kind == "chunked" else None
    address = _address(dataset_id) if kind == "contiguous" else None
    return Layout(
        kind=kind,
        shape=tuple(space.get_simple_extent_dims()),
        maxshape=tuple(None if n == h5s.UNLIMITED else n for n in space.get_simple_extent_dims(True)),
        chunk=chunk,
        dtype=dtype,
        filters=filters,
        raw_edges=bool(filters) and not _index.filters_partial_chunks(create_plist),
        fill=_fill(create_plist, dtype, kind == "contiguous" and address is None),
        leaves_gaps=leaves_gaps(create_plist),
        address=address,
    )


def build_index(dataset_id: h5d.DatasetID, found: Layout) -> _index.ChunkIndex:
    """Where the chunks of a chunked dataset lie, as libhdf5 tells.

    Raises:
        CorruptFileError: libhdf5 cannot read its index, or the index contradicts itself.
    """
    block = user_block(file_of(dataset_id)) if _index.addresses_lack_user_block() else 0
    return _index.build(dataset_id, found.shape, found.maxshape, found.chunk or (), block)


def read_compact(dataset_id: h5d.DatasetID, found: Layout) -> np.ndarray:
    """The elements of a compact dataset, which lie in the object header, at most 64 KiB of them."""
    elements = np.empty(found.shape, found.dtype)
    if elements.size:
        dataset_id.read(h5s.ALL, h5s.ALL, elements, h5t.py_create(found.dtype))
    return elements


def file_of(identifier: h5g.GroupID | h5d.DatasetID) -> h5f.FileID:
    """The open file that an object belongs to."""
    return h5i.get_file_id(identifier)


def has_wide_addresses(file_id: h5f.FileID) -> bool:
    """Whether addresses and lengths take 8 bytes in a file, as they do unless its writer wanted otherwise."""
    return bool(file_id.get_create_plist().get_sizes() == (8, 8))


def address_of(group: h5g.GroupID) -> int:
    """The address of a group's header in its file."""
    found = h5g.get_objinfo(group).objno
    return int(found[0]) if isinstance(found, tuple) else int(found)


def open_descriptor(file_id: h5f.FileID) -> tuple[int, bool]:
    """The descriptor that libhdf5 reads a file through, which stays libhdf5's, and whether another process may be
    writing the file (SWMR).

    Raises:
        Indirect: the file is not a plain local one that is open for reading only.
    """
    intent = file_id.get_intent()
    if intent & h5f.ACC_RDWR:
        raise Indirect("the file is open for writing in this process")
    if file_id.get_access_plist().get_driver() != h5fd.SEC2:  # the one driver whose handle is a descriptor
        raise Indirect("the file is not read by the plain driver sec2")
    return file_id.get_vfd_handle(), bool(intent & h5f.ACC_SWMR_READ)


def user_block(file_id: h5f.FileID) -> int:
    """Bytes in front of the HDF5 part of a file."""
    size: int = file_id.get_create_plist().get_userblock()
    return size


def _address(dataset_id: h5d.DatasetID) -> int | None:
    """Where contiguous data starts. (h5py's get_offset() of nothing is off by the user block, if there is one.)"""
    if dataset_id.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED:
        return None
    address: int | None = dataset_id.get_offset()
    if address is not None and address + dataset_id.get_storage_size() >= 1 << 63:
        raise Indirect("the data lie outside any file")
    return address


def _check_type(dataset_id: h5d.DatasetID) -> np.dtype:
    """The dataset's NumPy type, if its bytes are those of the file."""
    stored = dataset_id.get_type()
    try:
        dtype: np.dtype = stored.dtype
    except (TypeError, KeyError) as error:  # KeyError: of the VAX's order of bytes
        raise Indirect(f"NumPy has no such type ({error})") from error
    if dtype.hasobject or dtype.kind == "T":
        raise Indirect("elements of variable length or references")
    if not _same_bytes(stored, dtype):
        raise Indirect("the stored type needs conversion")
    return dtype


def _same_bytes(stored: h5t.TypeID, dtype: np.dtype) -> bool:
    """Whether libhdf5 would copy elements as they are: its memory type for this dtype equals the stored one."""
    if stored.get_class() == h5t.OPAQUE or stored.get_size() != dtype.itemsize:
        return False
    try:
        return bool(stored.equal(h5t.py_create(dtype)))
    except TypeError:
        return False  # h5py has no HDF5 type for it


def _filters(create_plist: h5p.PropDCID, are_decoded: Callable[[int], bool]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    found = []
    for number, options, name in plugins.pipeline(create_plist):
        if not are_decoded(number):
            raise Indirect(f"filter {plugins.label(number, name)} is decoded by HDF5 only")
        found.append((number, options))
    return tuple(found)


def leaves_gaps(create_plist: h5p.PropDCID) -> bool:
    """Whether libhdf5 leaves a caller's buffer as it is where nothing is stored."""
    return bool(create_plist.get_fill_time() == h5d.FILL_TIME_NEVER
                or create_plist.fill_value_defined() == h5d.FILL_VALUE_UNDEFINED)


def _fill(create_plist: h5p.PropDCID, dtype: np.dtype, nothing_stored: bool) -> bytes:
    """One element of what unallocated space reads as."""
    defined = create_plist.fill_value_defined()
    if defined == h5d.FILL_VALUE_UNDEFINED and nothing_stored:
        raise Indirect("nothing is stored and no fill value is defined")
    if defined == h5d.FILL_VALUE_DEFAULT or leaves_gaps(create_plist):
        return bytes(dtype.itemsize)  # where libhdf5 leaves the buffer as it is, h5py's is zeroed
    if dtype.subdtype:
        raise Indirect("fill value of array type")  # h5py cannot fetch it
    element = np.zeros((), dtype)
    create_plist.get_fill_value(element)
    return element.tobytes()
