"""The filters of a pipeline: what they are called, which plugin brings them, and what to say where one is missing.

It loads ``hdf5plugin`` where a dataset needs it and asks libhdf5 what it can decode. It never reads a chunk.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterator

from h5py import h5d, h5p, h5z

from h5fast import _library
from h5fast._storage import FILTER_NAMES

__all__ = ["is_decoded_directly", "is_own", "label", "missing", "pipeline", "register_plugins"]

# Filters that hdf5plugin brings and that only libhdf5 calls.
_OTHER_PLUGINS = (32013, 32017, 32018, 32024, 32028, 32033)

# Decoded by h5fast's own code.
_OWN = frozenset((h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF))
_PLUGINS = frozenset((*_library.ALLOWED_PLUGINS, *_OTHER_PLUGINS))
# From here on, filters are not HDF5's own (H5Z_FILTER_RESERVED).
_FIRST_FOREIGN = 256


def pipeline(properties: h5p.PropDCID) -> Iterator[tuple[int, tuple[int, ...], bytes]]:
    """Number, options and name (as the writer put it) of each filter of a dataset, in the order of writing."""
    for place in range(properties.get_nfilters()):
        number, _, options, name = properties.get_filter(place)
        yield number, tuple(options), name


def is_own(number: int) -> bool:
    """Whether h5fast's own code undoes this filter: deflate, shuffle, fletcher32 and lzf."""
    return number in _OWN


def is_decoded_directly(number: int) -> bool:
    """Whether h5fast's threads undo this filter, by its own code or by a plugin's."""
    return is_own(number) or _library.has_plugin(number)


def label(number: int, name: bytes = b"") -> str:
    """How a filter is called in messages: ``zstd (32015)``. `name` serves where h5fast knows none."""
    known = FILTER_NAMES.get(number) or " ".join(name.decode(errors="replace").split())
    return f"{known} ({number})" if known else f"number {number}"


def register_plugins(properties: h5p.PropDCID) -> None:
    """Tell libhdf5 of the filter plugins, if this dataset needs one and they are installed.

    Conversions, writable files and every other way of h5py's need them registered. A virtual dataset is read from others,
    whatever their filters are.
    """
    foreign = any(number >= _FIRST_FOREIGN and number not in _OWN for number, _, _ in pipeline(properties))
    if foreign or properties.get_layout() == h5d.VIRTUAL:
        _import_plugins()


@functools.cache
def _import_plugins() -> bool:
    if not _plugins_installed():
        return False
    importlib.import_module("hdf5plugin")
    return True


def _plugins_installed() -> bool:
    try:
        return importlib.util.find_spec("hdf5plugin") is not None
    except ValueError:  # sys.modules says that it must not be imported
        return False


def missing(properties: h5p.PropDCID) -> str | None:
    """What a dataset lacks to be read, as a clause with the remedy; None where nothing is missing. Registers plugins first."""
    register_plugins(properties)
    for number, _, name in pipeline(properties):
        if is_decoded_directly(number) or h5z.filter_avail(number):
            continue
        if number < _FIRST_FOREIGN:
            return f"filter {label(number, name)} is not part of this build of HDF5: read the file with another h5py"
        if number not in _PLUGINS:
            return f"filter {label(number, name)} has no plugin that HDF5 can find: HDF5_PLUGIN_PATH names their folder"
        if _plugins_installed():
            return f"filter {label(number, name)} is not in the installed hdf5plugin: pip install --upgrade hdf5plugin"
        return f"filter {label(number, name)} needs hdf5plugin: pip install 'h5fast[plugins]'"
    return None
